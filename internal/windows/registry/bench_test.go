package registry

import (
	"bytes"
	"fmt"
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

// The whole of a 15 MB SYSTEM through windows.Key.
func BenchmarkWalk(b *testing.B) {
	const bar = 200 * time.Millisecond
	data := realHive(b, "SYSTEM_WIN_10_1709")
	start := cpu(b)
	n := 0
	for b.Loop() {
		n++
		if n := visit(b, rootOf(b, openBytes(b, data))); n != 43211 {
			b.Fatalf("%d keys", n)
		}
	}
	took := (cpu(b) - start) / time.Duration(n)
	b.ReportMetric(took.Seconds()*1000, "cpu-ms/op")
	word := "held"
	if took > bar {
		word = "MISSED"
	}
	b.Logf("bar of %v CPU: %v, %s", bar, took, word)
}

// One value of a SOFTWARE of 216,000 keys and 55 MB, the hive opened anew each time: what it reads and what it costs.
func BenchmarkLookup(b *testing.B) {
	root := &Node{Name: "SOFTWARE"}
	for i := range 216 {
		k := root.Make(fmt.Sprintf(`Classes\Part %d`, i))
		for j := range 1000 {
			k.Keys = append(k.Keys, &Node{Name: fmt.Sprintf("{%08X-0000-0000-C000-000000000046}", i*1000+j), Values: []windows.Value{
				NewSZ("", "a description of some class of components, as they are")}})
		}
	}
	root.Make(`Microsoft\Windows NT\CurrentVersion`).Set(NewSZ("EditionID", "Enterprise"))
	data, err := Build(root, BuildOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{`Microsoft\Windows NT\CurrentVersion`, `Classes\Part 99\{000183A0-0000-0000-C000-000000000046}`} {
		b.Run(path, func(b *testing.B) {
			r := &countingReader{r: bytes.NewReader(data)}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n++
				h, err := Open(r, int64(len(data)))
				if err != nil {
					b.Fatal(err)
				}
				k, err := rootOf(b, h).Open(path)
				if err != nil {
					b.Fatal(err)
				}
				if names, err := k.Values(); err != nil || len(names) != 1 {
					b.Fatal(names, err)
				}
			}
			b.ReportMetric(float64(r.bytes)/float64(n), "read-bytes/op")
			b.ReportMetric(float64(r.reads)/float64(n), "reads/op")
			b.ReportMetric(float64(len(data)), "hive-bytes")
		})
	}
}
