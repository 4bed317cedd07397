package registry

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"berth/internal/windows"
)

// ErrDamaged is wrapped by errors that tell that a part of a hive makes no sense. Other parts may be sound.
var ErrDamaged = errors.New("hive damaged")

// Hive is an open hive file. It may be used concurrently if its readers may.
//
// Base block, little-endian:
//
//	0        4      8      12            20      24      28     32       36     40      44    48          112    508
//	┌────────┬──────┬──────┬─────────────┬───────┬───────┬──────┬────────┬──────┬───────┬─────┬───────────┬─ ─ ─ ┬──────────┐
//	│ "regf" │ seq1 │ seq2 │ last write  │ major │ minor │ type │ format │ root │ bins  │  1  │ file name │      │ checksum │
//	└────────┴──────┴──────┴─────────────┴───────┴───────┴──────┴────────┴──────┴───────┴─────┴───────────┴─ ─ ─ ┴──────────┘
//
// bins is the size of all hbins. The sequence numbers differ while Windows has changes under way.
type Hive struct {
	pages *pages
	base  baseBlock
	limit int64 // offset in the file where the hbins end
	logs  []Log // as they were handed in

	mu      sync.Mutex
	state   State
	damages int // parts found damaged
}

// State says how far what is read from a hive can be trusted.
type State struct {
	// Dirty: the hive was not cleanly closed.
	Dirty bool
	// Entries of the logs and pages in them that were applied in memory. Old logs (before Windows 8.1) count as one entry.
	Entries, Pages int
	// Stale: the hive is dirty and what its logs would change is unknown, so anything read may be out of date.
	Stale bool
	// Why says, for people, what was made of the logs; empty for a clean hive.
	Why string
	// Damaged is what of the hive was found to make no sense so far; empty when nothing was. It grows as the hive is read.
	Damaged string
	// Cut: the file ends before the hive does, or where the hive ends is not known. What is there may be right, what is missing is not told.
	Cut bool
}

type baseBlock struct {
	seq1, seq2   uint32
	major, minor uint32
	kind, format uint32
	root, bins   uint32
	stamp        uint64
	sound        bool   // the checksum is right
	lastLog      uint32 // sequence number of the last log entry applied
}

func parseBase(b []byte) (baseBlock, bool) {
	if string(b[:4]) != "regf" {
		return baseBlock{}, false
	}
	return baseBlock{
		seq1: le.Uint32(b[4:]), seq2: le.Uint32(b[8:]), stamp: le.Uint64(b[12:]),
		major: le.Uint32(b[20:]), minor: le.Uint32(b[24:]), kind: le.Uint32(b[28:]), format: le.Uint32(b[32:]),
		root: le.Uint32(b[36:]), bins: le.Uint32(b[40:]),
		sound: baseChecksum(b) == le.Uint32(b[508:]),
	}, true
}

// Open opens a hive file of size bytes. It reads the base block and, of a dirty hive, the logs; the rest is read when it is asked
// for. The readers must not change while the hive is in use.
//
// A dirty hive's logs are applied in memory as Windows would when it starts. Without usable logs the hive opens too, and
// [Hive.State] says that it is stale. It also opens when it is cut short or its base block is damaged but can be made out;
// State tells. An error means that nothing of it can be read.
func Open(r io.ReaderAt, size int64, logs ...Log) (*Hive, error) {
	if size < baseSize+binHeader || size > maxHive {
		return nil, fmt.Errorf("%w: a file of %d bytes is no hive: it has %d to %d", ErrDamaged, size, baseSize+binHeader, maxHive)
	}
	b := make([]byte, 512)
	if err := readFull(r, b, 0); err != nil {
		return nil, fmt.Errorf("hive: base block: %w", err)
	}
	base, ok := parseBase(b)
	if !ok {
		return nil, fmt.Errorf("%w: offset 0: signature %q is not regf", ErrDamaged, b[:4])
	}
	h := &Hive{pages: &pages{source: r, size: size, changed: map[int64][]piece{}}, base: base, logs: logs}
	if !base.sound {
		_ = h.damage("base block: checksum %#x, computed %#x", le.Uint32(b[508:]), baseChecksum(b))
	}
	h.state.Dirty = base.seq1 != base.seq2 || !base.sound
	if h.state.Dirty {
		if err := h.replay(logs); err != nil {
			return nil, err
		}
	}
	base = h.base
	switch {
	case base.major != 1 || base.minor < 2 || base.minor > 6:
		return nil, fmt.Errorf("%w: base block: version %d.%d is not known", ErrDamaged, base.major, base.minor)
	case base.kind != 0:
		return nil, fmt.Errorf("%w: base block: a file of type %d is not a hive; is it its log?", ErrDamaged, base.kind)
	case base.format != 1:
		return nil, fmt.Errorf("%w: base block: format %d is not known", ErrDamaged, base.format)
	}
	h.limit = baseSize + int64(base.bins)
	if base.bins%pageSize != 0 || h.limit > maxHive {
		_ = h.damage("base block: size of the hbins %#x", base.bins)
		h.state.Cut = true
		h.limit = min(h.limit, size)
	}
	if h.state.Entries == 0 && h.limit > size {
		_ = h.damage("the file ends at %#x, the hive at %#x", size, h.limit)
		h.state.Cut = true
		h.limit = size
	}
	return h, nil
}

// State says how far the hive can be trusted, as far as it has been read.
func (h *Hive) State() State {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state
	if h.damages > 1 {
		s.Damaged += fmt.Sprintf(" (and %d more)", h.damages-1)
	}
	return s
}

// Root is the hive's root key.
func (h *Hive) Root() (windows.Key, error) {
	k, err := h.key(h.base.root, none, 0)
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	return k, nil
}

// damage notes that a part of the hive makes no sense and is the error that says so.
func (h *Hive) damage(format string, a ...any) error {
	err := fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, a...)...)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.damages == 0 {
		h.state.Damaged = fmt.Sprintf(format, a...)
	}
	h.damages++
	return err
}

// cell is an allocated cell's contents.
type cell struct {
	h    *Hive
	off  uint32 // of the cell, from the first hbin
	size int64  // of the contents
	head []byte // as much of the contents as is in the page where the cell begins
}

// cell finds the cell at an offset; what says what it should be.
func (h *Hive) cell(off uint32, what string) (cell, error) {
	at := int64(off) + baseSize
	if off == none || off%8 != 0 || off < binHeader || at+cellHeader > h.limit {
		return cell{}, h.damage("%s: offset %#x is in no hbin", what, off)
	}
	b, err := h.pages.page(at / pageSize)
	if err != nil {
		return cell{}, fmt.Errorf("hive: %s: %w", what, err)
	}
	b = b[at%pageSize:] // at is a multiple of 8
	n := -int64(int32(le.Uint32(b)))
	if n < 8 || n%8 != 0 || at+n > h.limit {
		return cell{}, h.damage("%s: cell %#x: size %d", what, off, n)
	}
	return cell{h, off, n - cellHeader, b[cellHeader:min(n, int64(len(b)))]}, nil
}

// read is n bytes of the contents, which must not be changed.
func (c cell) read(at, n int64, what string) ([]byte, error) {
	if at+n > c.size {
		return nil, c.h.damage("%s: cell %#x: bytes %d to %d of %d", what, c.off, at, at+n, c.size)
	}
	if at+n <= int64(len(c.head)) {
		return c.head[at : at+n : at+n], nil
	}
	b, err := c.h.pages.read(int64(c.off)+baseSize+cellHeader+at, n)
	if err != nil {
		return nil, fmt.Errorf("hive: %s: %w", what, err)
	}
	return b, nil
}

// sameName compares a stored name with one that is asked for, without decoding it where both are ASCII.
func sameName(raw []byte, compressed bool, name string) bool {
	if !compressed || !isASCII(name) {
		return EqualNames(storedText(raw, compressed), name)
	}
	if len(raw) != len(name) {
		return false
	}
	for i, c := range raw {
		if c != name[i] && upcase(uint16(c)) != upcase(uint16(name[i])) {
			return false
		}
	}
	return true
}

// storedText decodes a name.
func storedText(b []byte, compressed bool) string {
	if !compressed {
		return decodeUTF16(b)
	}
	if s := string(b); isASCII(s) {
		return s
	}
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}
