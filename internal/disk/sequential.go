package disk

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
)

// sequential is a raw disk inside a compressed file. It can only be read from its beginning to its end, which Copy does; as
// an Image it refuses to be read in any other way.
type sequential struct {
	f      *file
	limit  int64 // bytes: the largest disk
	unpack func(in *inlet) (io.Reader, error)
}

var _ Image = (*sequential)(nil)

// Size is -1: how large the disk is shows when it has been read.
func (*sequential) Size() int64 { return -1 }

func (s *sequential) ReadAt([]byte, int64) (int, error) { return 0, onlySequential(s.f) }

func (s *sequential) Extents() iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) { yield(Extent{}, onlySequential(s.f)) }
}

func onlySequential(f *file) error {
	return f.refuse(Unsupported, "compression", 0, "a disk in a %s file can only be read from its beginning to its end: convert it to a raw disk first", f.format)
}

// openSequential opens a file that unpack decompresses.
func openSequential(f *file, opt Options, unpack func(in *inlet) (io.Reader, error)) (*Envelope, error) {
	if !opt.Sequential {
		return nil, onlySequential(f)
	}
	s := &sequential{f: f, limit: opt.MaxSize, unpack: unpack}
	// What is inside has to be a raw disk.
	head := make([]byte, sequentialHead)
	in := newInlet(f)
	r, err := unpack(in)
	if err != nil {
		return nil, s.fault(in, err)
	}
	n, err := fill(r, head)
	if err != nil && err != io.EOF {
		return nil, s.fault(in, err)
	}
	inside := bytes.NewReader(head[:n])
	for _, other := range Formats() {
		if other.Name != "RAW" && other.detect(inside) {
			return nil, f.refuse(Unsupported, "compression", 0, "there is a %s file inside, not a raw disk: decompress it and use that", other.Name)
		}
	}
	if !isRaw(inside) {
		var r *Refusal
		if err := unknown(inside, nil); !errors.As(err, &r) {
			return nil, err
		}
		return nil, f.refuse(r.Reason, "compressed data", 0, "inside, %s", r.Detail)
	}
	return &Envelope{Disks: []Disk{{Format: f.format, SubFormat: "raw", Length: f.size, Image: s}}}, nil
}

// sequentialHead is how much of a compressed disk is looked at to see that it is one, in bytes: up to where a CD has its mark.
const sequentialHead = 0x8006

// fill reads until p is full or there is no more. Unlike io.ReadFull it leaves it to the reader to say whether its end is
// where it should be: io.EOF is a sound end.
func fill(r io.Reader, p []byte) (n int, err error) {
	for idle := 0; n < len(p) && err == nil; {
		var m int
		m, err = r.Read(p[n:])
		if n += m; m > 0 {
			idle = 0
		} else if idle++; idle > 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// inlet is the compressed bytes of a file, from its beginning on. It counts them, and remembers that some could not be read:
// what is then wrong is not the file.
type inlet struct {
	*bufio.Reader
	f      *file
	at     int64
	failed error
}

func newInlet(f *file) *inlet {
	in := &inlet{f: f}
	in.Reader = bufio.NewReaderSize(readerFunc(in.next), 256<<10)
	return in
}

// read is how many bytes were taken out.
func (in *inlet) read() int64 { return in.at - int64(in.Buffered()) }

func (in *inlet) next(p []byte) (int, error) {
	p = p[:min(int64(len(p)), in.f.size-in.at)]
	if len(p) == 0 {
		return 0, io.EOF
	}
	if err := in.f.readFull(p, in.at, "compressed data"); err != nil {
		in.failed = err
		return 0, err
	}
	in.at += int64(len(p))
	return len(p), nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// fault is what an error of a decompressor means.
func (s *sequential) fault(in *inlet, err error) error {
	if in.failed != nil {
		return in.failed
	}
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.f.refuse(Damaged, "compressed data", in.read(), "the file ends inside it: it is cut off")
	}
	return s.f.refuse(Damaged, "compressed data", in.read(), "about here it cannot be decompressed: %v", err)
}
