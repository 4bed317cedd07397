package image

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"berth/internal/disk"
)

// Verify sees that all of the disks is in the files, which may have been cut off on their way, then reads the files whole and
// holds them against the digests that they bring along; a file without any is taken as it is. progress is told how many of the
// bytes have been read that there are digests of; an error from it ends the reading with that error.
func (u *Upload) Verify(ctx context.Context, progress func(done, size int64) error) error {
	for _, d := range u.Disks {
		for _, err := range d.Extents() {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return failureOf(err)
			}
		}
	}
	m := &meter{progress: progress}
	for i, e := range u.opened {
		if e == nil || !e.HasManifest() {
			continue
		}
		if err := u.verify(ctx, i, m); err != nil {
			return failureOf(err)
		}
	}
	return nil
}

// verify compares the i-th file, and those that it names, with its manifest. It is opened anew for that: what the disks are copied
// from is read without a detour.
func (u *Upload) verify(ctx context.Context, i int, m *meter) error {
	src, err := source(u.files[i].Path)
	if err != nil {
		return err
	}
	opt := u.options(i, make([]bool, len(u.files)))
	if opt.Name == "" {
		opt.Name = filepath.Base(u.files[i].Path) // as disk.OpenFile does
	}
	siblings, counted := opt.Siblings, map[string]bool{}
	opt.Siblings = func(name string) (disk.Source, error) {
		src, err := siblings(name)
		if err != nil {
			return nil, err
		}
		if !counted[name] { // as a disk, and as what the manifest names
			counted[name] = true
			m.size += src.Size()
		}
		return &metered{src, m}, nil
	}
	m.size += src.Size()
	file := &metered{src, m}
	e, err := disk.Open(file, opt)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	m.reading = true
	err = e.Verify(ctx)
	m.reading = false
	return errors.Join(err, e.Close(), file.Close())
}

// meter counts what is read of files.
type meter struct {
	done, size int64 // bytes
	reading    bool
	progress   func(done, size int64) error
}

// metered is a file whose reading counts.
type metered struct {
	disk.Source
	m *meter
}

func (s *metered) ReadAt(p []byte, off int64) (int, error) {
	if s.m.reading { // not while the file is opened
		if err := s.m.progress(min(s.m.done, s.m.size), s.m.size); err != nil {
			return 0, err
		}
	}
	n, err := s.Source.ReadAt(p, off)
	if s.m.reading {
		s.m.done += int64(n)
	}
	return n, err
}

func (s *metered) Close() error {
	if c, ok := s.Source.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
