package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// The disk is given what is written 16 MiB at a time, and nobody waits for a disk that is busy.
func TestWriteBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		disk := make(chan struct{})
		w := &writeBack{begin: func() { begun.Add(1); <-disk }, running: make(chan struct{}, 1)}
		expect := func(want int64) {
			t.Helper()
			if synctest.Wait(); begun.Load() != want {
				t.Fatalf("begun %d times, want %d", begun.Load(), want)
			}
		}
		w.wrote(writeBackAfter - 1)
		expect(0)
		w.wrote(1)
		expect(1)
		for range 5 { // the disk is busy
			w.wrote(writeBackAfter)
		}
		expect(1)
		disk <- struct{}{}
		synctest.Wait()
		w.wrote(1) // and all of that with it
		expect(2)
		disk <- struct{}{}
		synctest.Wait()
		w.wrote(1)
		expect(2)
	})
}

// Only a durable copy hurries its disk.
func TestDurableCopiesAreWrittenBack(t *testing.T) {
	e, err := Open(bytes.NewReader(guestDisk(1<<20, 3)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, durable := range []bool{false, true} {
		c, err := newCopying(nil, e.Disks[0], CopyOptions{Durable: durable})
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.openPart(filepath.Join(t.TempDir(), "copy.part"))
		if err != nil {
			t.Fatal(err)
		}
		if (c.back != nil) != durable {
			t.Errorf("durable %t: %v", durable, c.back)
		}
		if durable {
			begun := make(chan struct{}, 1)
			c.back.begin, c.back.pending = func() { beginWriteBack(f); begun <- struct{}{} }, writeBackAfter-1
			if _, err := c.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-begun
		}
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Fatal(err)
		}
		beginWriteBack(f) // is closed
	}
}
