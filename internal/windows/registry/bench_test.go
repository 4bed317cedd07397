package registry

import (
	"io"
	"syscall"
	"testing"
	"time"

	"berth/internal/windows"
)

// countingReader counts what is asked of a file.
type countingReader struct {
	r            io.ReaderAt
	bytes, reads int64
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	c.bytes += int64(len(b))
	c.reads++
	return c.r.ReadAt(b, off)
}

// visit reads every key and value and keeps none.
func visit(t testing.TB, k windows.Key) (keys int) {
	names, err := k.Values()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := k.Value(name); err != nil {
			t.Fatal(err)
		}
	}
	names, err = k.Subkeys()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		s, err := k.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		keys += visit(t, s)
	}
	return keys + 1
}

// cpu is the processor time of this process, which other processes do not add to.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The whole of a 15 MB SYSTEM through windows.Key; the aim is 0.2 s of CPU.
func BenchmarkWalk(b *testing.B) {
	data := realHive(b, "SYSTEM_WIN_10_1709")
	start := cpu(b)
	n := 0
	for b.Loop() {
		n++
		if n := visit(b, rootOf(b, openBytes(b, data))); n != 43211 {
			b.Fatalf("%d keys", n)
		}
	}
	b.ReportMetric((cpu(b)-start).Seconds()*1000/float64(n), "cpu-ms/op")
}
