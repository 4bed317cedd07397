package ntfs

import (
	"errors"
	"io"
	"io/fs"
	"sort"
)

// dir is an open directory.
type dir struct {
	index   *dirIndex
	info    fileInfo
	entries []fs.DirEntry
	loaded  bool
}

func (d *dir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dir) Close() error               { return nil }

func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: errors.New("is a directory")}
}

// ReadDir implements fs.ReadDirFile.
func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.loaded {
		var list []fs.DirEntry
		err := d.index.list(func(e *entry) error {
			if e.ref.number() >= recordFirstUser {
				list = append(list, &dirEntry{d.index, *e})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
		d.entries, d.loaded = list, true
	}
	list := d.entries
	if n > 0 {
		if len(list) == 0 {
			return nil, io.EOF
		}
		list = list[:min(n, len(list))]
	}
	d.entries = d.entries[len(list):]
	return list, nil
}

// dirEntry implements fs.DirEntry from what the directory holds; Info reads the file's record.
type dirEntry struct {
	in *dirIndex
	entry
}

func (e *dirEntry) Name() string { return e.printable() }
func (e *dirEntry) IsDir() bool  { return e.Type().IsDir() }

func (e *dirEntry) Type() fs.FileMode {
	switch {
	case e.tag&tagSurrogate != 0:
		return fs.ModeSymlink
	case e.flags&fileDirectory != 0:
		return fs.ModeDir
	}
	return 0
}

func (e *dirEntry) Info() (fs.FileInfo, error) {
	rec, err := e.in.child(&e.entry)
	if err != nil {
		return nil, err
	}
	n := &node{rec: rec, name: e.Name()}
	if err := n.loadReparse(); err != nil {
		return nil, err
	}
	return n.info("")
}

func (e *dirEntry) String() string { return fs.FormatDirEntry(e) }
