package disk

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// Form is what Copy writes.
type Form uint8

const (
	// Raw is the bytes of the guest's disk; zeros are holes of the file, in units of 4 KiB.
	Raw Form = iota
	// Plain is a QCOW2 whose clusters are stored as they are: what a desktop boots from fastest.
	Plain
	// Zstd is a QCOW2 whose clusters are compressed with zstd, which QEMU reads since 5.1; those that gain less than a 16th are
	// stored as they are.
	Zstd
	// Compact is a QCOW2 that takes the compressed blocks of a streamOptimized VMDK, or of a QCOW2 with zlib, over as they are
	// where they are as large as its clusters; what is left is compressed anew, with deflate. The blocks of VMDKs look back
	// further than the 4 KiB that QCOW2 speaks of: QEMU reads that, other readers may not. A disk that has no such blocks is
	// written as Zstd.
	Compact
)

// Range is a range of the guest's disk, in bytes.
type Range struct{ Start, Length int64 }

func (r Range) end() int64 { return r.Start + r.Length }

// CopyOptions say how Copy copies. The zero value is a raw copy.
type CopyOptions struct {
	Form Form
	// Unverified takes compressed blocks over without inflating them ([Compact]): what is damaged in them shows when they are
	// read. Digest does not go with it.
	Unverified bool
	// Skip, unless nil, yields ranges whose bytes are not wanted, in ascending order and without overlap: they read as zeros in
	// the copy, to the byte, but for what is patched ([Overlay]). It is ranged over once, while the copy is made. An error ends
	// the copy.
	Skip iter.Seq2[Range, error]
	// Digest asks for Copied.Digest.
	Digest bool
	// Progress, unless nil, is told how many of size bytes of the disk are done, holes included, from one goroutine; size is -1
	// for a disk in a gzip or xz file ([Options].Sequential).
	Progress func(done, size int64)

	// What follows is for CopyFile.

	// Durable is to return only when the file has reached its disk.
	Durable bool
	// Confirm, unless nil, is called when all is written, before the copy appears: after an error from it nothing is left of the
	// copy, whatever Resume says. [Envelope.Unchanged] is made for it.
	Confirm func() error
	// Checkpoint, unless empty, tells the source from any other: name, size and time of a file, the ETag of an object. The copy
	// then writes down now and then how far it is, so that one that was killed can be gone on with (Resume).
	Checkpoint string
	// Every is the time between two checkpoints; 0 is 4 s.
	Every time.Duration
	// Resume goes on with the copy that is at path and was not finished, if its Checkpoint and its other options are the same,
	// and begins anew if not. A copy that fails, but for a [Refusal], is then left as it is, to be gone on with again, unless it
	// is of a disk in a gzip or xz file, whose middle cannot be entered, or has no Checkpoint.
	Resume bool
}

// Copied tells what a copy holds. All are bytes of the guest's disk but for File.
type Copied struct {
	Size int64 // of the guest's disk; of a QCOW2, in whole sectors
	// Stored is what the source stores, compressed or not; Skipped is what of that was left out.
	Stored, Skipped int64
	// Plain is stored as it is, Passed in blocks that were taken over, and Packed compressed anew. The rest reads as zeros.
	Plain, Passed, Packed int64
	// File is the length of the file.
	File int64
	// Resumed is the byte from which on an earlier copy was gone on with; 0: it is all new.
	Resumed int64
	// Digest tells contents of disks apart, whatever form they are stored in, in hexadecimal: the SHA-256 of, for every 64 KiB
	// of the disk that are not all zeros, their number (8 bytes, big endian) and their BLAKE3 (the last ones filled up with
	// zeros), and at the end the size in 512-byte sectors, rounded up (8 bytes). Empty unless it was asked for.
	Digest string
}

// Target is where Copy writes: a new file. What was never written to it reads as zeros.
type Target interface {
	io.WriterAt
	// Truncate sets the size, in bytes.
	Truncate(size int64) error
}

// Copy writes a disk to dst, on all processors. Zeros are not written. What it needs of memory does not depend on the disk: 8
// MiB for each of up to 5 processors, 13 MiB besides, and what the disk's Envelope does. Blocks of img that an [Overlay] or
// Skip changes are written as changed.
//
// An error is a *Refusal where the disk is at fault. What dst then holds is of no use, and no QCOW2, whose header is written
// last; see [CopyFile].
func Copy(ctx context.Context, dst Target, img Image, opt CopyOptions) (Copied, error) {
	c, err := newCopying(dst, img, opt)
	if err != nil {
		return Copied{}, err
	}
	return c.run(ctx)
}

// WriteEmpty writes a QCOW2 of size bytes, a multiple of 512, that stores nothing, to dst.
func WriteEmpty(dst Target, size int64) error {
	q := newQCOW2Sink(dst, false)
	if err := q.begin(size); err != nil {
		return err
	}
	_, err := q.end(size)
	return err
}

// Digest is Copied.Digest of a disk. progress, unless nil, is told how many of its bytes are done, holes included; an error from
// it ends the reading with that error.
func Digest(ctx context.Context, img Image, progress func(done, size int64) error) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	opt := CopyOptions{Digest: true}
	var stopped error
	if progress != nil {
		opt.Progress = func(done, size int64) {
			if stopped == nil {
				if stopped = progress(done, size); stopped != nil {
					cancel(stopped)
				}
			}
		}
	}
	c, err := newCopying(nil, img, opt)
	if err != nil {
		return "", err
	}
	done, err := c.run(ctx)
	return done.Digest, cmp.Or(stopped, err)
}

// CopyFile is Copy to a new file at path, which appears there when it is whole: until then its name ends in ".part", and an
// error removes it. If there is a file already, whole or part, that is an error that satisfies errors.Is(err, fs.ErrExist),
// and it is left as it is; a part may be gone on with (CopyOptions.Resume). Beside the part, a file whose name ends in
// ".checkpoint" is there while it is needed.
func CopyFile(ctx context.Context, path string, img Image, opt CopyOptions) (done Copied, err error) {
	part := path + ".part"
	absent := func() error {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return cmp.Or(err, error(&fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}))
		}
		return nil
	}
	if err := absent(); err != nil {
		// A copy that was killed when it was done may have left its checkpoint.
		if _, gone := os.Lstat(part); errors.Is(err, fs.ErrExist) && errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, forget(part))
		}
		return Copied{}, err
	}
	c, err := newCopying(nil, img, opt)
	if err != nil {
		return Copied{}, err
	}
	f, err := c.openPart(part)
	if err != nil {
		return Copied{}, err
	}
	done, err = c.run(ctx)
	unconfirmed := false
	if err == nil && opt.Confirm != nil {
		err = opt.Confirm()
		unconfirmed = err != nil
	}
	if err == nil && opt.Durable {
		err = f.Sync()
	}
	if err == nil {
		err = absent() // somebody may have been quicker
	}
	if err == nil {
		err = os.Rename(part, path) // while it is locked
	}
	switch {
	case err == nil:
		err = errors.Join(f.Close(), forget(part))
	case opt.Resume && c.save != nil && !isRefusal(err) && !unconfirmed:
		return done, errors.Join(err, f.Close())
	default:
		return done, errors.Join(err, f.Close(), os.Remove(part), forget(part))
	}
	if err != nil || !opt.Durable {
		return done, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return done, err
	}
	return done, errors.Join(dir.Sync(), dir.Close())
}
