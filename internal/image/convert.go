package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"berth/internal/disk"
)

// Layouts are the names of the forms in which a qcow2 can hold a disk; docs/adr/0007-conversion.md has what each costs.
var Layouts = map[string]disk.Form{"fast": disk.Plain, "zstd": disk.Zstd, "compact": disk.Compact}

// DefaultLayout is the one of [Layouts] that is taken unless another is asked for.
const DefaultLayout = "fast"

// Convert writes the upload's i-th disk as a standalone qcow2 of that form at target, which appears there whole or not at all, and
// never changes again. Unless all of it is asked for, what a Windows' disk need not have is left out ([LeaveOut]). progress is told the
// percentage done; an error from it ends the conversion with that error.
//
// A conversion that was interrupted is gone on with; one that is done already is only read, for what it came to, of
// which progress is told in the same way: a crash right after it loses nothing of what it tells. What the upload's file says that cannot be right is a *Failure.
func (u *Upload) Convert(ctx context.Context, i int, target string, form disk.Form, all bool, progress func(percent float64) error) (Converted, error) {
	var left LeftOut
	if !all {
		left = LeaveOut(u.Disks[i], Keep{}, slices.Concat(u.Disks[:i], u.Disks[i+1:])...)
	}
	if _, err := os.Stat(target); err == nil {
		made := Converted{Kept: left.Kept, Resumed: u.Disks[i].Size()}
		if made.LeftOut, err = storedWithin(u.Disks[i], left.Ranges); err != nil {
			return made, failureOf(err)
		}
		made.Digest, err = DigestFile(ctx, target, func(done, size int64) error { return progress(100 * float64(done) / float64(max(size, 1))) })
		return made, err
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Converted{}, fmt.Errorf("image: %w", err)
	}
	source, err := u.identity()
	if err != nil {
		return Converted{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done, err := disk.CopyFile(ctx, target, u.Disks[i], disk.CopyOptions{
		Form: form, Skip: left.Ranges, Digest: true, Durable: true, Resume: true, Checkpoint: fmt.Sprintf("%s disk %d %v", source, i, all),
		Progress: func(done, size int64) {
			if err := progress(100 * float64(done) / float64(max(size, 1))); err != nil {
				cancel(err)
			}
		}})
	if cause := context.Cause(ctx); cause != nil {
		return Converted{}, cause
	}
	if err != nil {
		return Converted{}, failureOf(err)
	}
	if err := os.Chmod(target, 0o400); err != nil { // an image's bytes never change again
		return Converted{}, fmt.Errorf("image: %w", err)
	}
	return Converted{Digest: digestName(done.Digest), LeftOut: done.Skipped, Kept: left.Kept, Resumed: done.Resumed}, nil
}

// storedWithin is how many bytes of some ranges a disk stores: what disk.Copied counts as skipped. No ranges: nothing.
func storedWithin(img disk.Image, ranges iter.Seq2[disk.Range, error]) (n int64, err error) {
	if ranges == nil {
		return 0, nil
	}
	next, stop := iter.Pull2(img.Extents())
	defer stop()
	var x disk.Extent
	for r, err := range ranges {
		if err != nil {
			return 0, err
		}
		for {
			if from, to := max(x.Start, r.Start), min(x.Start+x.Length, r.Start+r.Length); from < to && (x.Kind == disk.Data || x.Kind == disk.Compressed) {
				n += to - from
			}
			if x.Start+x.Length > r.Start+r.Length { // the rest of it may be in the next range
				break
			}
			var ok bool
			if x, err, ok = next(); err != nil || !ok {
				return n, err
			}
		}
	}
	return n, nil
}

// RoomBytes is the most that the i-th disk takes of a file system when it is kept, in bytes: what of it is not known to be
// zeros, in whole blocks, and a qcow2's tables.
func (u *Upload) RoomBytes(i int) (int64, error) {
	const (
		block   = 4 << 10   // of the usual file systems; disk.Copy makes no smaller hole
		cluster = 64 << 10  // of the qcow2 that disk.Copy writes, and so its L2 tables and refcount blocks
		mapped  = 512 << 20 // bytes of the disk that an L2 table maps: a cluster of 8-byte entries
		counted = 2 << 30   // bytes of the file that a refcount block counts: a cluster of 2-byte entries
	)
	var data, tables int64
	last := int64(-1)
	for x, err := range u.Disks[i].Extents() {
		if err != nil {
			return 0, failureOf(err)
		}
		if x.Kind != disk.Data && x.Kind != disk.Compressed || x.Length == 0 {
			continue
		}
		end := x.Start + x.Length
		data += (end+block-1)/block*block - x.Start/block*block
		first := max(x.Start/mapped, last+1) // extents ascend
		last = max((end-1)/mapped, last)
		tables += last + 1 - first
	}
	tables += 3 + u.Disks[i].Size()/mapped*8/cluster // header, refcount table, L1 table
	tables += (data+tables*cluster)/counted + 1
	return data + tables*cluster, nil
}

// Converted is what a conversion came to.
type Converted struct {
	// Digest names the disk by what a guest reads of it (disk.Digest).
	Digest string
	// LeftOut is how many bytes that the source stores were left out; Kept says of volumes of which nothing was, why.
	LeftOut int64
	Kept    []string
	// Resumed is the byte of the disk from which on an earlier call's conversion was gone on with; 0: it is all new.
	Resumed int64
}

// digestName is how a digest is written where it names a disk.
func digestName(sum string) string { return "sha256:" + sum }

// identity tells the upload's files from any others.
func (u *Upload) identity() (string, error) {
	var b strings.Builder
	for _, f := range u.files {
		fi, err := os.Stat(f.Path)
		if err != nil {
			return "", fmt.Errorf("image: %w", err)
		}
		fmt.Fprintf(&b, "%q %d %d ", f.Name, fi.Size(), fi.ModTime().UnixNano())
	}
	return b.String(), nil
}
