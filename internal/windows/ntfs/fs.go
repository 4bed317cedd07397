package ntfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
	"unicode/utf16"
)

// MaxReadFile is the largest file that FS.ReadFile reads, in bytes: a file's size is the volume's word and may be anything.
const MaxReadFile = 256 << 20

// maxPathParts bounds the depth of a path. Windows' longest path, 32,767 characters, could have more, but none does.
const maxPathParts = 512

// FS is the tree of a volume: an fs.FS, fs.ReadDirFS, fs.StatFS and fs.ReadFileFS, safe for concurrent use. Paths are those of
// io/fs and compare without case; DOS names (8.3) find their file, too. "name:stream" in the last element opens an alternate
// data stream. The file system's own files ($MFT, ...) can be opened, but are not listed.
//
// Errors wrap fs.ErrNotExist only if a sound directory does not have the name.
type FS struct{ v *Volume }

// FS returns the volume's tree.
func (v *Volume) FS() *FS { return &FS{v} }

// Entry is what FileInfo.Sys returns.
type Entry struct {
	Record     int64  // number of the MFT record
	Links      int    // hard links, DOS names counted
	Attributes uint32 // FILE_ATTRIBUTE_* of $STANDARD_INFORMATION
	Created    time.Time
	ReparseTag uint32 // 0: none
}

// File is an open file: fs.File, io.ReaderAt and io.Seeker. ReadAt is safe for concurrent use.
type File struct {
	io.SectionReader
	info fileInfo
}

// Stat implements fs.File.
func (f *File) Stat() (fs.FileInfo, error) { return f.info, nil }

// Close implements fs.File. There is nothing to close.
func (f *File) Close() error { return nil }

// node is what a path leads to.
type node struct {
	rec  *record
	name string
	tag  uint32
	data []byte // reparse data without its header
}

// walk resolves a path to the record, without its stream part.
func (v *Volume) walk(name string) (*node, error) {
	rec, err := v.record(fileRef(recordRoot))
	if err != nil {
		return nil, err
	}
	n := &node{rec: rec, name: "."}
	if name == "." {
		return n, nil
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxPathParts {
		return nil, fmt.Errorf("path of %d parts: %w", len(parts), ErrTooLarge)
	}
	for _, part := range parts {
		if n.isLink() {
			return nil, n.reparseError()
		}
		if !n.rec.isDir() {
			return nil, fs.ErrNotExist
		}
		d, err := n.rec.index()
		if err != nil {
			return nil, err
		}
		e, err := d.lookup(utf16.Encode([]rune(part)))
		if err != nil {
			return nil, err
		}
		if e == nil {
			return nil, fs.ErrNotExist
		}
		if rec, err = d.child(e); err != nil {
			return nil, err
		}
		n = &node{rec: rec, name: part}
		if err := n.loadReparse(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// loadReparse reads $REPARSE_POINT:  0 tag   4 data length   8 data.
func (n *node) loadReparse() error {
	b, err := n.rec.value(attrReparse)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(b) < 8 || int(binary.LittleEndian.Uint16(b[4:])) > len(b)-8 {
		return n.rec.corrupt(-1, "reparse data of %d bytes", len(b))
	}
	n.tag = binary.LittleEndian.Uint32(b)
	n.data = b[8 : 8+int(binary.LittleEndian.Uint16(b[4:]))]
	return nil
}

// isLink tells entries that stand for another one.
func (n *node) isLink() bool { return n.tag&tagSurrogate != 0 }

// reparseError describes the reparse point. Data of links:
//
//	0 and 2 offset and length of the substitute name, 4 and 6 of the name to show, 8 flags (symbolic links only), names
func (n *node) reparseError() error {
	e := &ReparseError{Tag: n.tag}
	names := 8
	if n.tag == TagSymlink {
		names = 12
	}
	if (n.tag == TagSymlink || n.tag == TagMountPoint) && len(n.data) >= names {
		o, l := int(binary.LittleEndian.Uint16(n.data)), int(binary.LittleEndian.Uint16(n.data[2:]))
		if names+o+l <= len(n.data) {
			e.Target = decodeUTF16(bytesToUTF16(n.data[names+o : names+o+l]))
		}
	}
	return e
}

// errNoContents is the error of reading a file of NTFS' own that is sound and has no unnamed $DATA.
var errNoContents = &UnsupportedError{What: "a file of NTFS' own that has no contents, but indexes or alternate streams"}

// attribute opens a stream as it is stored. Only an alternate one may be absent, or any of a file of the file system's own.
func (n *node) attribute(name string) (*stream, error) {
	s, err := n.rec.stream(attrData, name)
	switch {
	case !isMissing(err):
		return s, err
	case name != "":
		return nil, fs.ErrNotExist
	}
	if n.rec.isOwn() {
		return nil, errNoContents
	}
	return nil, n.rec.corrupt(-1, "file has no $DATA")
}

// contents opens a stream of the node; "" is the file's unnamed one.
func (n *node) contents(stream string) (io.ReaderAt, int64, error) {
	if n.isLink() {
		return nil, 0, n.reparseError()
	}
	s, err := n.attribute(stream)
	if err != nil {
		return nil, 0, err
	}
	if stream != "" || n.tag == 0 {
		if s.encrypted {
			return nil, 0, &UnsupportedError{What: "EFS encryption"}
		}
		return s, s.size, nil
	}
	if n.tag != TagWOF {
		return nil, 0, n.reparseError()
	}
	w, err := newWOF(n.rec, s.size, n.data)
	if err != nil {
		return nil, 0, err
	}
	return w, s.size, nil
}

// info makes the FileInfo of a stream of the node.
func (n *node) info(stream string) (fileInfo, error) {
	i := fileInfo{name: n.name, mode: 0o444, sys: &Entry{Record: n.rec.number, Links: int(n.rec.links), ReparseTag: n.tag}}
	if si, err := n.rec.value(attrStandardInfo); err == nil && len(si) >= 36 {
		i.sys.Created = filetime(binary.LittleEndian.Uint64(si))
		i.modified = filetime(binary.LittleEndian.Uint64(si[8:]))
		i.sys.Attributes = binary.LittleEndian.Uint32(si[32:])
	} else if err != nil && !isMissing(err) {
		return i, err
	}
	switch {
	case stream == "" && n.isLink():
		i.mode |= fs.ModeSymlink
	case stream == "" && n.rec.isDir():
		i.mode |= fs.ModeDir | 0o111
	default:
		s, err := n.attribute(stream)
		switch {
		case err == errNoContents: //nolint:errorlint // attribute returns it as it is
		case err != nil:
			return i, err
		default:
			i.size = s.size
		}
	}
	return i, nil
}

// splitStream takes the stream off a path: "a/b:c" and "a/b:c:$DATA".
func splitStream(name string) (file, stream string, ok bool) {
	dir, last := path.Split(name)
	last, stream, has := strings.Cut(last, ":")
	if !has {
		return name, "", true
	}
	stream, typ, has := strings.Cut(stream, ":")
	if last == "" || stream == "" && !has || has && !strings.EqualFold(typ, "$DATA") {
		return name, "", false
	}
	return dir + last, stream, true
}

// resolve is walk with the checks and the error that io/fs asks for.
func (f *FS) resolve(op, name string) (*node, string, error) {
	fail := func(err error) (*node, string, error) { return nil, "", &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) || strings.Contains(name, "\x00") {
		return fail(fs.ErrInvalid)
	}
	file, stream, ok := splitStream(name)
	if !ok {
		return fail(fs.ErrInvalid)
	}
	n, err := f.v.walk(file)
	if err != nil {
		return fail(err)
	}
	if name != "." {
		n.name = path.Base(name)
	}
	return n, stream, nil
}

// Open implements fs.FS. A file is a *File; a directory is an fs.ReadDirFile.
func (f *FS) Open(name string) (fs.File, error) {
	n, stream, err := f.resolve("open", name)
	if err != nil {
		return nil, err
	}
	file, err := n.open(stream)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

func (n *node) open(stream string) (fs.File, error) {
	info, err := n.info(stream)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		d, err := n.rec.index()
		if err != nil {
			return nil, err
		}
		return &dir{index: d, info: info}, nil
	}
	r, size, err := n.contents(stream)
	if err != nil {
		return nil, err
	}
	return &File{SectionReader: *io.NewSectionReader(r, 0, size), info: info}, nil
}

// Stat implements fs.StatFS. It does not follow links: these have fs.ModeSymlink.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	n, stream, err := f.resolve("stat", name)
	if err != nil {
		return nil, err
	}
	info, err := n.info(stream)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return info, nil
}

// ReadDir implements fs.ReadDirFS, in the order of the names' bytes.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	d, ok := file.(*dir)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	list, err := d.ReadDir(-1)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return list, nil
}

// ReadFile implements fs.ReadFileFS. Files over MaxReadFile are refused with ErrTooLarge.
func (f *FS) ReadFile(name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	r, ok := file.(*File)
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	if r.Size() > MaxReadFile {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("%d bytes: %w", r.Size(), ErrTooLarge)}
	}
	b := make([]byte, r.Size())
	if err := readFull(r, b, 0); err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return b, nil
}

// fileInfo implements fs.FileInfo.
type fileInfo struct {
	name     string
	size     int64
	mode     fs.FileMode
	modified time.Time
	sys      *Entry
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() fs.FileMode  { return i.mode }
func (i fileInfo) ModTime() time.Time { return i.modified }
func (i fileInfo) IsDir() bool        { return i.mode.IsDir() }
func (i fileInfo) Sys() any           { return i.sys }
