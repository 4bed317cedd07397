package disk

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestCopyOfEveryFormat(t *testing.T) {
	for name, file := range samples(t) {
		t.Run(name, func(t *testing.T) {
			e, err := Open(bytes.NewReader(file), Options{})
			if err != nil {
				t.Fatal(err)
			}
			img := e.Disks[0]
			want := make([]byte, img.Size())
			if n, err := img.ReadAt(want, 0); n != len(want) {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "out.raw")
			var told []int64
			_, err = CopyFile(t.Context(), path, img, CopyOptions{Durable: true, Progress: func(done, size int64) {
				if size != img.Size() {
					t.Errorf("told of %d bytes", size)
				}
				told = append(told, done)
			}})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("the copy differs from byte %d on: %v", firstDifference(got, want), err)
			}
			for i, n := range told {
				if i > 0 && n <= told[i-1] {
					t.Errorf("progress goes from %d to %d", told[i-1], n)
				}
			}
			if len(told) == 0 || told[len(told)-1] != img.Size() {
				t.Errorf("progress ends with %v", told)
			}
		})
	}
}

// All kinds of pieces and holes, at all places, with several workers: more than a few copyPieces of them.
func TestCopyKeepsHoles(t *testing.T) {
	guest := guestDisk(70<<20+512, 21)
	clear(guest[5<<20 : 40<<20]) // stored by the raw disk, but zeros
	for name, file := range map[string][]byte{"RAW": guest, "QCOW2": plainQCOW2(guest), "VMDK": streamVMDK(guest, esxi), "VHD": dynamicVHD(guest, 3)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := Open(bytes.NewReader(file), Options{})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "out.raw")
			if _, err := CopyFile(t.Context(), path, e.Disks[0], CopyOptions{}); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || int64(len(got)) < e.Disks[0].Size() || !bytes.Equal(got[:len(guest)], guest) {
				t.Fatalf("the copy differs from byte %d on: %v", firstDifference(got, guest), err)
			}
			blocks := int64(0)
			for at := 0; at < len(guest); at += copyHole {
				if firstNonZero(guest[at:min(len(guest), at+copyHole)]) >= 0 {
					blocks++
				}
			}
			if n := stored(t, path); n > blocks*copyHole+1<<20 {
				t.Errorf("%d bytes are stored, %d are needed", n, blocks*copyHole)
			}
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
				t.Errorf("files %v: %v", left, err)
			}
		})
	}
}

func TestCopyFileReplacesNothing(t *testing.T) {
	e, err := Open(bytes.NewReader(guestDisk(1<<20, 1)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{"out.raw", "out.raw.part"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, taken), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := CopyFile(t.Context(), filepath.Join(dir, "out.raw"), e.Disks[0], CopyOptions{})
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", taken, err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, taken)); err != nil || string(got) != "mine" {
			t.Errorf("%s is now %q: %v", taken, got, err)
		}
	}
	// Made while the copy was made.
	path := filepath.Join(t.TempDir(), "out.raw")
	_, err = CopyFile(t.Context(), path, e.Disks[0], CopyOptions{Progress: func(done, size int64) {
		if done == size {
			if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
				t.Error(err)
			}
		}
	}})
	if got, _ := os.ReadFile(path); !errors.Is(err, fs.ErrExist) || string(got) != "mine" {
		t.Errorf("%v, %q", err, got)
	}
}

// A copy that cannot be made leaves nothing behind, and says whose fault it is.
func TestCopyThatFails(t *testing.T) {
	guest := guestDisk(30<<20, 22)
	file := streamVMDK(guest, esxi)
	whole, err := Open(bytes.NewReader(file), Options{})
	if err != nil {
		t.Fatal(err)
	}
	try := func(ctx context.Context, src Source, progress func(done, size int64)) error {
		t.Helper()
		e, err := Open(src, Options{})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		_, err = CopyFile(ctx, filepath.Join(dir, "out.raw"), e.Disks[0], CopyOptions{Progress: progress})
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("files %v are left: %v", left, err)
		}
		return err
	}
	var at int64
	for _, x := range extents(t, whole.Disks[0]) {
		if at = x.At; at > int64(len(file)/2) {
			break
		}
	}
	wantRefusal(t, try(t.Context(), bytes.NewReader(patched(file, int(at), 0xff)), nil), "VMDK", Damaged, "grain marker")
	if err := try(t.Context(), failingSource{bytes.NewReader(file), at}, nil); !errors.Is(err, errBroken) {
		t.Errorf("a source that cannot be read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := try(ctx, bytes.NewReader(file), func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Copy(t.Context(), fullTarget{}, whole.Disks[0], CopyOptions{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("no space: %v", err)
	}
}

// failingSource cannot be read where byte at is.
type failingSource struct {
	Source
	at int64
}

func (f failingSource) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, errBroken
	}
	return f.Source.ReadAt(p, off)
}

type fullTarget struct{}

func (fullTarget) Truncate(int64) error                   { return nil }
func (fullTarget) WriteAt(p []byte, _ int64) (int, error) { return 0, syscall.ENOSPC }

// A copy that cannot begin, here for want of a place for its checkpoint, leaves nothing.
func TestCopyThatCannotBegin(t *testing.T) {
	e, err := Open(bytes.NewReader(guestDisk(1<<20, 1)), Options{Format: "RAW"})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, e)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	taken := notesOf(out + ".part")
	if err := os.MkdirAll(filepath.Join(taken, "by a folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := CopyFile(t.Context(), out, e.Disks[0], CopyOptions{Checkpoint: "source"}); err == nil {
		t.Error("no error")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != filepath.Base(taken) {
		t.Errorf("files %v: %v", left, err)
	}
}

// What can never be gone on with is not kept for that: a stream's middle cannot be entered, and without a name nobody knows its source.
func TestCopiesThatCannotBeGoneOnWith(t *testing.T) {
	guest := guestDisk(32<<20, 1) // more than is under way at a time
	for name, c := range map[string]struct {
		file       []byte
		checkpoint string
	}{"a stream": {gzipped(t, guest), "source"}, "no name": {guest, ""}} {
		e, err := Open(bytes.NewReader(c.file), Options{Sequential: true})
		if err != nil {
			t.Fatal(err)
		}
		closeAfter(t, e)
		ctx, cancel := context.WithCancel(t.Context())
		dir := t.TempDir()
		opt := CopyOptions{Checkpoint: c.checkpoint, Resume: true, Progress: func(int64, int64) { cancel() }}
		if _, err := CopyFile(ctx, filepath.Join(dir, "out"), e.Disks[0], opt); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: files %v are left: %v", name, left, err)
		}
	}
}
