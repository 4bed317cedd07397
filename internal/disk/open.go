package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// DefaultMaxSize is the largest virtual size accepted when Options say nothing, in bytes: one sector less than 16 TiB,
// because VM Import supports only disks under 16 TiB.
const DefaultMaxSize = 16<<40 - sector

// Format is one kind of file that Open knows.
type Format struct {
	// Name is the word for it in Options, Envelope and Disk, and in VM Import's DiskContainers where that has one.
	Name string
	// detect reports whether a file is of this format, from a few bytes of it.
	detect func(src Source) bool
	// open reads a file that was detected.
	open func(f *file, opt Options) (*Envelope, error)
	// Sequential says that its disks can only be copied from their beginning to their end (Options.Sequential).
	Sequential bool
}

// Formats are the formats that Open knows, in the order in which it looks for them: first those that are known by how the
// file begins, then by how it ends, then raw, which has no mark of its own.
func Formats() []Format {
	return []Format{
		{"OVA", isOVA, openOVA, false},
		{"OVF", isOVF, openOVF, false},
		{"QCOW2", isQCOW2, openQCOW2, false},
		{"VMDK", isVMDK, openVMDK, false},
		{"VHDX", isVHDX, openVHDX, false},
		{"GZIP", isGzip, openGzip, true},
		{"XZ", isXZ, openXZ, true},
		{"VHD", isVHD, openVHD, false},
		{"RAW", isRaw, openRaw, false},
	}
}

// Open reads what kind of file src is and the description of the disks in it; their bytes are read as they are asked for.
// src is used as long as the Envelope is. An error that is no *Refusal is about this machine (src could not be read).
func Open(src Source, opt Options) (*Envelope, error) {
	if opt.MaxSize == 0 {
		opt.MaxSize = DefaultMaxSize
	}
	if opt.MaxSize < 0 {
		return nil, fmt.Errorf("disk: Options.MaxSize is %d", opt.MaxSize)
	}
	return open(src, opt, newMemory())
}

func open(src Source, opt Options, mem *memory) (*Envelope, error) {
	var said, found *Format
	sniffed := &sniffer{Source: src}
	formats := Formats()
	for i := range formats {
		f := &formats[i]
		if strings.EqualFold(f.Name, opt.Format) {
			said = f
		}
		if found == nil && f.detect(sniffed) {
			found = f
		}
	}
	if opt.Format != "" && said == nil {
		return nil, fmt.Errorf("disk: Options.Format %q is not a format", opt.Format)
	}
	use := found
	var warnings []string
	switch {
	case said == nil || said == found:
	case said.Name == "RAW" && found != nil:
		// A raw disk is whatever its guest wrote: it may well begin with the header of something else.
		use = said
		warnings = append(warnings, fmt.Sprintf("The file begins like %s; it was read as RAW because that is what was said.", found.Name))
	case said.Name == "RAW":
		use = said
	case said.detect(sniffed):
		// A fixed VHD begins with its guest's bytes.
		use = said
		warnings = append(warnings, fmt.Sprintf("The file also looks like %s; it was read as %s because that is what was said.", found.Name, said.Name))
	case found != nil && sniffed.err == nil:
		return nil, &Refusal{Format: found.Name, Reason: NotADisk, Field: "format", Offset: -1,
			Detail: fmt.Sprintf("the file was said to be %s, but is %s", said.Name, found.Name)}
	default:
		use = nil
	}
	if sniffed.err != nil {
		return nil, fmt.Errorf("disk: read signatures: %w", sniffed.err)
	}
	if use == nil {
		return nil, unknown(src, said)
	}
	e, err := use.open(newFile(src, use.Name, mem), opt)
	if err != nil {
		return nil, err
	}
	e.Format = use.Name
	e.Warnings = append(warnings, e.Warnings...)
	return e, nil
}

// SiblingsIn are the regular files in a folder, for Options.Siblings.
func SiblingsIn(folder *os.Root) func(name string) (Source, error) {
	return func(name string) (Source, error) {
		// Looked at first, because opening a pipe would wait for its writer.
		if info, err := folder.Lstat(name); err != nil {
			return nil, err
		} else if !info.Mode().IsRegular() {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		f, err := folder.Open(name)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return newOSFile(f, info), nil
	}
}

// sniffer remembers that bytes could not be read: a signature that is not found is then no reason to refuse the file.
type sniffer struct {
	Source
	err error
}

func (s *sniffer) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Source.ReadAt(p, off)
	if n < len(p) && err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// single is the Envelope of a file that is itself the disk.
func single(f *file, subFormat string, size int64, l layout, warnings ...string) *Envelope {
	return &Envelope{
		Disks: []Disk{{Format: f.format, SubFormat: subFormat, Length: f.size,
			Image: &mapped{size: size, layout: l, file: f, stored: f.size}}},
		Warnings: warnings,
	}
}

// foreign are files that people take for disks, or disks of formats that are not read: they deserve better than "not a disk".
var foreign = []struct {
	offset int64
	magic  string
	reason Reason
	what   string
}{
	{0, "LUKS\xba\xbe", Encrypted, "a LUKS container"},
	{64, "\x7f\x10\xda\xbe", Unsupported, "a VirtualBox disk (VDI)"},
	{0, "WithoutFreeSpace", Unsupported, "a Parallels disk (HDD)"},
	{0, "WithouFreSpacExt", Unsupported, "a Parallels disk (HDD)"},
	{0, "QED\x00", Unsupported, "a QED disk"},
	{0, "BZh", Unsupported, "compressed with bzip2"},
	{0, "\x28\xb5\x2f\xfd", Unsupported, "compressed with zstd"},
	{0, "7z\xbc\xaf\x27\x1c", Unsupported, "a 7-Zip archive"},
	{0, "PK\x03\x04", Unsupported, "a ZIP archive"},
	{0, "MSWIM\x00\x00\x00", Unsupported, "a Windows image (WIM)"},
	{0x8001, "CD001", Unsupported, "a CD or DVD image"},
}

// unknown is the Refusal of a file that no format claims.
func unknown(src Source, said *Format) error {
	r := &Refusal{Format: "RAW", Reason: NotADisk, Field: "signature", Offset: 0,
		Detail: "the file has the signature of no disk format, and no boot signature either"}
	if said != nil {
		r.Format, r.Detail = said.Name, "the file does not have this format's signature"
	}
	for _, f := range foreign {
		if begins(src, f.offset, f.magic) {
			r.Reason, r.Offset, r.Detail = f.reason, f.offset, "the file is "+f.what
			break
		}
	}
	return r
}

// isRefusal tells what is wrong with the input from what is wrong with this machine.
func isRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}

// begins reports whether magic is at offset.
func begins(src Source, offset int64, magic string) bool {
	p := make([]byte, len(magic))
	n, _ := src.ReadAt(p, offset)
	return n == len(p) && string(p) == magic
}

// OpenFile opens the regular file at path as Open does. Envelope.Close closes it.
func OpenFile(path string, opt Options) (*Envelope, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return nil, fmt.Errorf("disk: %s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if opt.Name == "" {
		opt.Name = filepath.Base(path)
	}
	if info, err = f.Stat(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	source := newOSFile(f, info)
	e, err := Open(source, opt)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	e.closers = append(e.closers, source)
	return e, nil
}

// osFile is an open file as a Source: its size is what it was when it was opened.
type osFile struct {
	*os.File
	bytes   int64
	written time.Time // when it was last written to, as it was opened
}

func newOSFile(f *os.File, info fs.FileInfo) *osFile {
	return &osFile{f, info.Size(), info.ModTime()}
}

// Unchanged reports a file that is no longer what it was when OpenFile or [SiblingsIn] opened it, by its size or the time of its
// last writing: what was read of it may be half of what it was and half of what it is. Nothing is known of other Sources.
func (e *Envelope) Unchanged() error {
	for _, c := range e.closers {
		f, ok := c.(*osFile)
		if !ok {
			continue
		}
		if info, err := f.Stat(); err != nil {
			return err
		} else if info.Size() != f.bytes || !info.ModTime().Equal(f.written) {
			return fmt.Errorf("%s was written to while it was read", f.Name())
		}
	}
	return nil
}

// Identity tells the files that OpenFile and [SiblingsIn] opened from any others, as they were then, for CopyOptions.Checkpoint.
func (e *Envelope) Identity() string {
	var b strings.Builder
	for _, c := range e.closers {
		if f, ok := c.(*osFile); ok {
			fmt.Fprintf(&b, "%q %d %d ", filepath.Base(f.Name()), f.bytes, f.written.UnixNano())
		}
	}
	return b.String()
}

func (f *osFile) Size() int64 { return f.bytes }

// dataFrom asks the file system where the file has holes. It moves the file's own position, which nobody uses.
func (f *osFile) dataFrom(at int64) (start, end int64, ok bool) {
	if runtime.GOOS != "linux" {
		return 0, 0, false
	}
	const seekData, seekHole = 3, 4 // lseek(2)
	start, err := f.Seek(at, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return f.bytes, f.bytes, true // a hole up to the end
	}
	if err == nil {
		end, err = f.Seek(start, seekHole)
	}
	return start, end, err == nil && start >= at && end > start
}

// Close closes the file that OpenFile opened and every Source from Options.Siblings that is an io.Closer.
// The Envelope's disks cannot be read any more.
func (e *Envelope) Close() error {
	var errs []error
	for _, c := range e.closers {
		errs = append(errs, c.Close())
	}
	e.closers = nil
	return errors.Join(errs...)
}

var _ io.Closer = (*Envelope)(nil)
