package disk

import (
	"fmt"
	"io"
	"iter"
)

// stretch is a run of the guest's disk from an asked offset on, and where it is stored.
//
//	             asked offset
//	guest    ...-----|==========length==========|-----...
//	file     ...-----|at                               Data
//	file     ...--|at: packed bytes--|                 Compressed: inflates to block bytes,
//	               the asked offset is head bytes into them
type stretch struct {
	length int64 // bytes, > 0; may reach beyond the end of the disk
	kind   Kind

	file *file  // Data and Compressed
	at   int64  // byte in file
	what string // the field or part that points there, for a Refusal

	// Compressed only.
	packed int64
	block  int64
	head   int64
	start  int64 // the block's first byte in owner's part of the disk
	owner  inflater
}

// extend adds next, the stretch behind s in the disk, to s, and reports whether it goes on in the same way, in the file too.
// That next could not be described ends s; who asks for it learns why.
func (s *stretch) extend(next stretch, err error) bool {
	if err != nil || next.kind != s.kind || next.kind == Compressed || next.kind == Data && next.at != s.at+s.length {
		return false
	}
	s.length += next.length
	return true
}

// layout is a format's map from the guest's disk to files. It is safe for concurrent use.
type layout interface {
	// locate describes the disk from off on (0 <= off < its size). It need not look further than max bytes.
	locate(off, max int64) (stretch, error)
}

// inflater is what a format knows of its compressed blocks.
type inflater interface {
	// stream returns the packed bytes of a Compressed stretch's block, which are valid until w is used again. There may be
	// more of them than belong to the block.
	stream(s stretch, w *window) ([]byte, error)
	// inflate fills block, the whole of it, from its packed bytes, and says how many of them that took: 0 if that is not
	// known or if they are not one whole stream that fills the block.
	inflate(block, packed []byte, s stretch) (used int, err error)
	// deflate finds the bare deflate stream in packed bytes of which all belong to the block; nil where they are not deflate.
	deflate(packed []byte) []byte
}

// mapped is the Image of every format: a size and a layout.
type mapped struct {
	size   int64
	layout layout
	file   *file
	stored int64 // bytes of all files
}

// maxSteps bounds the stretches of a disk for each byte of its files. The densest table is the bitmap of a VHD, of which a
// byte can tell of eight; a disk that has more uses its tables over and over, to keep its reader busy.
const maxSteps = 8

var _ Image = (*mapped)(nil)

func (m *mapped) Size() int64 { return m.size }

// locate is the layout's, trimmed to the disk and checked against the end of the file.
func (m *mapped) locate(off, limit int64) (stretch, error) {
	limit = min(limit, m.size-off)
	s, err := m.layout.locate(off, limit)
	if err != nil {
		return s, err
	}
	if s.length <= 0 {
		return s, fmt.Errorf("disk: layout gave %d bytes at %d", s.length, off) // a bug, not an input
	}
	s.length = min(s.length, limit)
	switch {
	case s.kind == Data && !s.file.holds(s.at, s.length):
		return s, s.file.refuse(Damaged, s.what, s.at,
			"bytes %d to %d of the disk should be here, but the file ends at byte %d", off, off+s.length, s.file.size)
	case s.kind == Compressed && !s.file.holds(s.at, 1):
		return s, s.file.refuse(Damaged, s.what, s.at,
			"byte %d of the disk should be here, but the file ends at byte %d", off, s.file.size)
	}
	return s, nil
}

func (m *mapped) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("disk: read at negative offset %d", off)
	}
	if off >= m.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > m.size-off {
		p, end = p[:m.size-off], io.EOF
	}
	for n := 0; n < len(p); {
		s, err := m.locate(off+int64(n), int64(len(p)-n))
		if err != nil {
			return n, err
		}
		part := p[n : n+int(s.length)]
		switch s.kind {
		case Zero, Unallocated:
			clear(part)
		case Data:
			err = s.file.readFull(part, s.at, s.what)
		case Compressed:
			err = m.inflate(part, s)
		}
		if err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), end
}

// inflate fills part from a compressed block. A block wanted as a whole, as a sequential reader does, is not kept.
func (m *mapped) inflate(part []byte, s stretch) error {
	key := place{s.file, s.at}
	block, ok := m.file.mem.blocks.get(key)
	if !ok {
		w := windows.Get().(*window)
		defer windows.Put(w)
		packed, err := s.owner.stream(s, w)
		if err != nil {
			return err
		}
		if s.head == 0 && int64(len(part)) == s.block {
			_, err := s.owner.inflate(part, packed, s)
			return err
		}
		block = make([]byte, s.block)
		if _, err := s.owner.inflate(block, packed, s); err != nil {
			return err
		}
		m.file.mem.blocks.put(key, block)
	}
	if s.head+int64(len(part)) > int64(len(block)) {
		// Two tables share packed bytes but disagree about what they are: one of them is wrong.
		return s.file.refuse(Damaged, s.what, s.at, "the same bytes are used as blocks of different sizes")
	}
	copy(part, block[s.head:])
	return nil
}

func (m *mapped) Extents() iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		var run Extent
		var stored dataRange
		for off, steps := int64(0), int64(0); off < m.size; steps++ {
			s, err := m.locate(off, m.size-off)
			if err == nil && steps/maxSteps > m.stored {
				err = m.file.refuse(Damaged, "tables", -1, "they describe more pieces than fit into a file of %d bytes: they are shared", m.stored)
			}
			if err != nil {
				if run.Length == 0 || yield(run, nil) {
					yield(Extent{Start: off}, err)
				}
				return
			}
			if s.kind == Data {
				stored.trim(&s)
			}
			at := m.at(s)
			if run.Length > 0 && (run.Kind != s.kind || s.kind == Compressed || run.At >= 0 && run.At+run.Length != at || run.At < 0 && at >= 0) {
				if !yield(run, nil) {
					return
				}
				run.Length = 0
			}
			if run.Length == 0 {
				run = Extent{Start: off, Kind: s.kind, At: at}
			}
			run.Length += s.length
			off += s.length
		}
		if run.Length > 0 {
			yield(run, nil)
		}
	}
}

// at is what Extent.At says of a stretch.
func (m *mapped) at(s stretch) int64 {
	if s.kind != Data && s.kind != Compressed || s.file != m.file {
		return -1
	}
	if _, ok := s.file.src.(*overlay); ok {
		return -1
	}
	return s.at
}

// holed is a Source that may have holes, as a sparse file has.
type holed interface {
	// dataFrom returns the first range of stored bytes that ends behind byte at; ok is false where that is not known.
	dataFrom(at int64) (start, end int64, ok bool)
}

// dataRange is the range of stored bytes of a file that was asked for last.
type dataRange struct {
	file       *file
	from       int64 // nothing is stored from here to start
	start, end int64
}

// trim makes of a Data stretch that begins in a hole of the file the part that is in the hole, of any other the part that is not.
func (d *dataRange) trim(s *stretch) {
	source, ok := s.file.src.(holed)
	if !ok {
		return
	}
	if d.file != s.file || s.at < d.from || s.at >= d.end {
		start, end, ok := source.dataFrom(s.at)
		if !ok {
			return
		}
		*d = dataRange{s.file, s.at, start, end}
	}
	if s.at < d.start {
		s.kind, s.length = Unallocated, min(s.length, d.start-s.at)
	} else {
		s.length = min(s.length, d.end-s.at)
	}
}
