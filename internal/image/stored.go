package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

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
	// Digest names the mended disk: of the digest of the disk under it, and of the clusters.
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

// Verify reads a disk that is kept and says what is wrong with it; nil when its file is, to the bit, what its digest
// ([FileDigest]; "": it is not known) says, and what a guest reads of it is what the disk's digest says. base is the digest of
// the disk under it.
func Verify(ctx context.Context, s Stored, digest, base, file string) error {
	got, err := FileDigest(ctx, s.Path, nil)
	if err != nil {
		return err
	}
	if file != "" && got != file {
		return &Failure{fmt.Sprintf("the file has the SHA-256 %s, and had %s when it was stored", got, file)}
	}
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
		if got, err = disk.Digest(ctx, u.Disks[0], nil); err != nil {
			return failureOf(err)
		}
		got = digestName(got)
	}
	if got != digest {
		return &Failure{fmt.Sprintf("what is stored has the digest %s", got)}
	}
	return nil
}

// FileDigest is the SHA-256 of a file, in hexadecimal. progress, if there is one, is told how many of its bytes have been read, from
// none on; an error from it ends the reading with that error.
func FileDigest(ctx context.Context, path string, progress func(done, size int64) error) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	h, done := sha256.New(), int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if progress != nil {
			if err := progress(done, fi.Size()); err != nil {
				return "", err
			}
		}
		n, err := io.CopyN(h, f, 16<<20)
		if done += n; errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		} else if err != nil {
			return "", err
		}
	}
}

// DigestFile is the digest of a standalone qcow2. progress, if there is one, is as disk.Digest's.
func DigestFile(ctx context.Context, path string, progress func(done, size int64) error) (string, error) {
	u, err := Open(File{Path: path, Format: "QCOW2"})
	if err != nil {
		return "", err
	}
	defer u.Close()
	sum, err := disk.Digest(ctx, u.Disks[0], progress)
	if err != nil {
		return "", failureOf(err)
	}
	return digestName(sum), nil
}

// FileBytes is how much room a file takes on its file system, in bytes.
func FileBytes(path string) (int64, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return allocated(fi), nil
}
