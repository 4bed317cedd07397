package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

const (
	sector = 512 // bytes; the unit of VMDK and VHD, whatever the guest's sectors are

	// pageSize is what is read of a table at a time: small, so that a look-up in a disk of terabytes reads little.
	pageSize = 4096
	// pageBudget and blockBudget bound what one Envelope keeps in memory, in bytes: pages of tables, and inflated blocks
	// (128 VMDK grains of 64 KiB, or 4 qcow2 clusters of 2 MiB).
	pageBudget  = 2 << 20
	blockBudget = 8 << 20
	// maxBlock is the largest compressed block accepted, in bytes: qcow2's largest cluster.
	maxBlock = 2 << 20
)

// file is one file that holds a disk or part of one. All reading of untrusted bytes goes through it: it knows where the
// file ends, and turns what lies beyond into a Refusal.
type file struct {
	src    Source
	size   int64
	format string // for Refusals
	mem    *memory
}

func newFile(src Source, format string, mem *memory) *file {
	return &file{src: src, size: src.Size(), format: format, mem: mem}
}

func (f *file) refuse(reason Reason, field string, offset int64, detail string, args ...any) error {
	return &Refusal{Format: f.format, Reason: reason, Field: field, Offset: offset, Detail: fmt.Sprintf(detail, args...)}
}

// holds reports whether length bytes at offset lie inside the file. Any values may be asked for.
func (f *file) holds(offset, length int64) bool {
	return offset >= 0 && length >= 0 && offset <= f.size && length <= f.size-offset
}

// readFull fills p from offset; field names what is being read.
func (f *file) readFull(p []byte, offset int64, field string) error {
	if !f.holds(offset, int64(len(p))) {
		return f.refuse(Damaged, field, offset, "needs %d bytes, but the file ends at byte %d", len(p), f.size)
	}
	n, err := f.src.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // shorter than its Source said: not a property of the input
	}
	return fmt.Errorf("disk: read %s at byte %d: %w", field, offset, err)
}

// bytes reads n bytes at offset into new memory. The caller bounds n.
func (f *file) bytes(field string, offset, n int64) ([]byte, error) {
	if !f.holds(offset, n) {
		return nil, f.refuse(Damaged, field, offset, "needs %d bytes, but the file ends at byte %d", n, f.size)
	}
	p := make([]byte, n)
	return p, f.readFull(p, offset, field)
}

// table returns entries of a table from offset on, at least one and at most limit bytes of them, as far as the page
// goes that holds the first. Entries are unit bytes long, and offset is a multiple of unit. The bytes are shared: read only.
func (f *file) table(field string, offset, unit, limit int64) ([]byte, error) {
	if !f.holds(offset, unit) {
		return nil, f.refuse(Damaged, field, offset, "the file ends at byte %d", f.size)
	}
	start := offset &^ (pageSize - 1)
	key := place{f, start}
	page, ok := f.mem.pages.get(key)
	if !ok {
		page = make([]byte, min(pageSize, f.size-start))
		if err := f.readFull(page, start, field); err != nil {
			return nil, err
		}
		f.mem.pages.put(key, page)
	}
	page = page[offset-start:]
	n := min(int64(len(page)), max(limit, unit))
	return page[:n-n%unit], nil
}

// checkSize refuses a virtual size that is not whole sectors or is over policy.
func (f *file) checkSize(size uint64, field string, offset int64, opt Options) error {
	switch {
	case size == 0:
		return f.refuse(Damaged, field, offset, "the disk has no bytes")
	case size > uint64(opt.MaxSize):
		return f.refuse(TooLarge, field, offset, "%d bytes, at most %d are accepted", size, opt.MaxSize)
	case size%sector != 0:
		return f.refuse(Damaged, field, offset, "%d bytes is not a whole number of 512-byte sectors", size)
	}
	return nil
}

// section is part of a Source, as a Source: a member of an OVA.
type section struct {
	src           Source
	offset, bytes int64
}

func (s *section) Size() int64 { return s.bytes }

func (s *section) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= s.bytes {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > s.bytes-off {
		p, end = p[:s.bytes-off], io.EOF
	}
	n, err := s.src.ReadAt(p, s.offset+off)
	if err == nil || n == len(p) {
		err = end
	}
	return n, err
}

func (s *section) dataFrom(at int64) (start, end int64, ok bool) {
	source, ok := s.src.(holed)
	if !ok {
		return 0, 0, false
	}
	start, end, ok = source.dataFrom(s.offset + at)
	start, end = min(start-s.offset, s.bytes), min(end-s.offset, s.bytes)
	return start, end, ok
}

// memory is what an Envelope keeps of what it read: bounded, shared by its disks and safe for concurrent use.
type memory struct {
	pages, blocks cache
}

func newMemory() *memory {
	return &memory{pages: cache{budget: pageBudget}, blocks: cache{budget: blockBudget}}
}

// place is where something was read from.
type place struct {
	f  *file
	at int64
}

// cache keeps the byte slices used last, of at most budget bytes together.
type cache struct {
	budget int64

	mu      sync.Mutex
	held    int64
	entries map[place]*entry
	ring    entry // next: used last; prev: used longest ago
}

type entry struct {
	key        place
	data       []byte
	next, prev *entry
}

func (e *entry) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

func (c *cache) front(e *entry) {
	e.next, e.prev = c.ring.next, &c.ring
	e.next.prev, c.ring.next = e, e
}

func (c *cache) get(key place) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return nil, false
	}
	e.unlink()
	c.front(e)
	return e.data, true
}

func (c *cache) put(key place, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[place]*entry{}
		c.ring.next, c.ring.prev = &c.ring, &c.ring
	}
	if _, ok := c.entries[key]; ok { // two readers read it at the same time
		return
	}
	e := &entry{key: key, data: data}
	c.entries[key] = e
	c.front(e)
	for c.held += int64(len(data)); c.held > c.budget && c.ring.prev != e; {
		last := c.ring.prev
		last.unlink()
		delete(c.entries, last.key)
		c.held -= int64(len(last.data))
	}
}
