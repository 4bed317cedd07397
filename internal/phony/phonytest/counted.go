package phonytest

import (
	"os"
	"sync/atomic"
	"testing"
)

// Counted is a file that counts what is read of it. It is a disk.Source.
type Counted struct {
	file *os.File
	size int64
	read atomic.Int64
}

// OpenCounted opens a file. It is closed when the test ends.
func OpenCounted(t testing.TB, path string) *Counted {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // only read
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return &Counted{file: f, size: info.Size()}
}

// ReadAt reads of the file. What was asked for counts, even where the file ends before.
func (c *Counted) ReadAt(b []byte, off int64) (int, error) {
	c.read.Add(int64(len(b)))
	return c.file.ReadAt(b, off)
}

// Size is the file's length in bytes.
func (c *Counted) Size() int64 { return c.size }

// Read is how many bytes were read so far.
func (c *Counted) Read() int64 { return c.read.Load() }
