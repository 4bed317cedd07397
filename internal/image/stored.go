package image

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/windows"
	"berth/internal/windows/offline"
)

// Stored is a disk as it is kept: a standalone qcow2, or one of few clusters over another one (see [Mend]). Its bytes never change.
type Stored struct {
	Path string
	Base string // what shows where Path has nothing; "" when Path is all
}

// OpenStored opens disks that are kept, a machine's root first.
func OpenStored(disks ...Stored) (_ *Upload, err error) {
	var files []File
	for i, s := range disks {
		f := File{Name: fmt.Sprintf("disk %d", i+1), Path: s.Path, Format: "QCOW2"}
		if s.Base != "" {
			f.Path = s.Base
		}
		files = append(files, f)
	}
	u, err := Open(files...)
	if err != nil {
		return nil, err
	}
	for i, s := range disks {
		if s.Base == "" {
			continue
		}
		patches, err := readOverlay(s.Path, u.Disks[i].Size())
		if err != nil {
			return nil, errors.Join(err, u.Close())
		}
		u.Disks[i].Image = disk.Overlay(u.Disks[i].Image, patches)
	}
	return u, nil
}

// Inspect runs the checks over the Windows on a machine's disks, its root first.
func Inspect(ctx context.Context, opt check.Options, disks ...Stored) (check.Report, error) {
	u, err := OpenStored(disks...)
	if err != nil {
		return check.Report{}, err
	}
	defer u.Close()
	_, report, err := judge(ctx, u.Envelope, opt)
	return report, err
}

// judge runs the checks. Several installations on one disk are a finding (MultipleBootPartition), not an error: the first one is judged.
func judge(ctx context.Context, env *disk.Envelope, opt check.Options) (*offline.System, check.Report, error) {
	ss, err := offline.Open(env)
	if err != nil {
		return nil, check.Report{}, failureOf(err)
	}
	return ss[0], check.Run(check.Collect(ctx, ss[0]), opt), nil
}

// Mended is what [Mend] came to.
type Mended struct {
	// Report is about the disk as it is after the fixes.
	Report check.Report
	// Fixes are those that were made; none when there was nothing to mend, and then there is no file either.
	Fixes []check.Fix
	// Digest names the mended disk as [Digest] names a whole one.
	Digest string
}

// Mend makes those fixes of the checks' findings that a powered-off disk takes, and judges the disk again. The disks stay as
// they are: the clusters that differ are written to target, a qcow2 to be laid over the root disk, whole or not at all. digest
// is the root disk's, at the time that Windows is told for the changes: the same of both make the same file.
func Mend(ctx context.Context, opt check.Options, target, digest string, at time.Time, disks ...Stored) (Mended, error) {
	u, err := OpenStored(disks...)
	if err != nil {
		return Mended{}, err
	}
	defer u.Close()
	s, report, err := judge(ctx, u.Envelope, opt)
	m := Mended{Report: report}
	if err != nil || disks[0].Base != "" {
		return m, err
	}
	var changes []windows.Change
	for _, f := range report.Fixes() {
		if f.Place == check.OnDisk {
			changes = append(changes, f.Changes...)
			m.Fixes = append(m.Fixes, f)
		}
	}
	patches, err := s.Patch(at, changes...)
	if err != nil {
		// What the disk does not take is not mended: the report tells what is wrong with it.
		return Mended{Report: report}, nil //nolint:nilerr // it is in the report
	}
	root, _, _ := s.Location()
	if root != 0 || len(patches) == 0 {
		return Mended{Report: report}, nil
	}
	mended := disk.Overlay(u.Disks[0].Image, patches)
	clusters, err := touched(mended, patches)
	if err != nil {
		return m, err
	}
	env := *u.Envelope
	env.Disks = append([]disk.Disk(nil), u.Disks...)
	env.Disks[0].Image = mended
	if _, m.Report, err = judge(ctx, &env, opt); err != nil {
		return m, err
	}
	m.Digest = overlayDigest(digest, clusters)
	return m, writeOverlay(target, mended.Size(), clusters)
}

// Digests are of what a guest reads, in these units: a cluster of zeros is as one that is not there.
const (
	clusterBytes = 64 << 10
	digestPiece  = 4 << 20
)

// Digest names a disk by what a guest reads of it, however it is stored: SHA-256 over its size and over the place and
// digest of every piece of 4 MiB that has other bytes than zeros, which is the SHA-256 of the places and bytes of its
// clusters of 64 KiB that have.
func Digest(ctx context.Context, img disk.Image) (string, error) {
	pieces := make(chan int64)
	sums := map[int64][sha256.Size]byte{}
	type sum struct {
		at  int64
		sum [sha256.Size]byte
	}
	results := make(chan sum)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(pieces)
		last := int64(-1)
		for x, err := range img.Extents() {
			if err != nil {
				return failureOf(err)
			}
			if x.Kind != disk.Data && x.Kind != disk.Compressed {
				continue
			}
			for at := x.Start - x.Start%digestPiece; at < x.Start+x.Length; at += digestPiece {
				if at <= last {
					continue
				}
				last = at
				select {
				case pieces <- at:
				case <-gctx.Done():
					return context.Cause(gctx)
				}
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buffer := make([]byte, digestPiece)
			for at := range pieces {
				p := buffer[:min(digestPiece, img.Size()-at)]
				if n, err := img.ReadAt(p, at); n < len(p) {
					return fmt.Errorf("image: read byte %d of the disk: %w", at+int64(n), err)
				}
				s, some := pieceSum(p, at)
				if !some {
					continue
				}
				select {
				case results <- sum{at, s}:
				case <-gctx.Done():
					return context.Cause(gctx)
				}
			}
			return nil
		})
	}
	done := make(chan error, 1)
	go func() { done <- g.Wait(); close(results) }()
	for r := range results {
		sums[r.at] = r.sum
	}
	if err := <-done; err != nil {
		return "", err
	}
	h := sha256.New()
	place(h, img.Size())
	for at := int64(0); at < img.Size(); at += digestPiece {
		if s, ok := sums[at]; ok {
			place(h, at)
			h.Write(s[:])
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// place writes a number of bytes into a digest.
func place(w io.Writer, n int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	w.Write(b[:]) //nolint:errcheck // a digest takes everything
}

// pieceSum is the digest of a piece of a disk, and whether it has other bytes than zeros.
func pieceSum(p []byte, at int64) (s [sha256.Size]byte, some bool) {
	h := sha256.New()
	for len(p) > 0 {
		n := min(clusterBytes, len(p))
		if !zero(p[:n]) {
			some = true
			place(h, at)
			h.Write(p[:n])
		}
		at += int64(n)
		p = p[n:]
	}
	h.Sum(s[:0])
	return s, some
}

func zero(p []byte) bool {
	for len(p) >= 8 {
		if binary.NativeEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// Verify reads a disk that is kept and says what is wrong with it; nil when it is what its digest says. base is the digest of
// the disk under it.
func Verify(ctx context.Context, s Stored, digest, base string) error {
	var got string
	if s.Base != "" {
		u, err := Open(File{Path: s.Path, Format: "QCOW2"})
		if err != nil {
			return err
		}
		size := u.Disks[0].Size()
		u.Close()
		clusters, err := readOverlay(s.Path, size)
		if err != nil {
			return err
		}
		got = overlayDigest(base, clusters)
	} else {
		u, err := Open(File{Path: s.Path, Format: "QCOW2"})
		if err != nil {
			return err
		}
		defer u.Close()
		if got, err = Digest(ctx, u.Disks[0]); err != nil {
			return err
		}
	}
	if got != digest {
		return &Failure{fmt.Sprintf("what is stored has the digest %s", got)}
	}
	return nil
}

// DigestFile is the digest of a standalone qcow2.
func DigestFile(ctx context.Context, path string) (string, error) {
	u, err := Open(File{Path: path, Format: "QCOW2"})
	if err != nil {
		return "", err
	}
	defer u.Close()
	return Digest(ctx, u.Disks[0])
}

// FileBytes is how much room a file takes on its file system, in bytes.
func FileBytes(path string) (int64, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return allocated(fi), nil
}
