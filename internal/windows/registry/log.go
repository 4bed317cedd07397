package registry

import (
	"cmp"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
)

const (
	logHeader   = 512 // a log begins with the first bytes of the base block
	sectorSize  = 512 // what logs are aligned to
	entryHeader = 40
	maxLog      = 256 << 20 // bytes of a log
	kindEntries = 6         // log of entries, since Windows 8.1
)

// Log is a transaction log of a hive: SYSTEM.LOG1, say.
type Log struct {
	Name string // for people
	R    io.ReaderAt
	Size int64 // bytes
}

// logEntry is a set of changes that Windows made at once.
//
//	0        4      8       12    16     20      24           32           40
//	┌────────┬──────┬───────┬─────┬──────┬───────┬────────────┬────────────┬──────────────────────────┬─ ─ ─
//	│ "HvLE" │ size │ flags │ seq │ bins │ count │ Marvin32   │ Marvin32   │ count × (offset, length) │ pages
//	└────────┴──────┴───────┴─────┴──────┴───────┴─of 40:size─┴─of 0:32 ───┴──────────────────────────┴─ ─ ─
type logEntry struct {
	seq, bins uint32
	pages     []logPage
}

// logPage is a stretch of the hbins and where its new contents are in the log.
type logPage struct{ off, n, at int64 }

// readLog is what a log holds that is sound, and why it stops where it does ("" at its proper end). An error is the reader's.
func readLog(l Log) (base baseBlock, entries []logEntry, stop string, err error) {
	if l.Size < logHeader {
		return base, nil, "empty", nil
	}
	if l.Size > maxLog {
		return base, nil, fmt.Sprintf("%d bytes; at most %d are read", l.Size, maxLog), nil
	}
	b := make([]byte, logHeader)
	if err := readFull(l.R, b, 0); err != nil {
		return base, nil, "", err
	}
	base, ok := parseBase(b)
	switch {
	case !ok:
		return base, nil, "empty", nil
	case !base.sound:
		return base, nil, "the checksum of its header is wrong", nil
	case base.seq1 != base.seq2:
		return base, nil, "it was being written", nil
	case base.kind == 1 || base.kind == 2:
		entries, stop, err = readOldLog(l, base)
		return base, entries, stop, err
	case base.kind != kindEntries:
		return base, nil, fmt.Sprintf("type %d is not known", base.kind), nil
	}
	for at := int64(logHeader); at+entryHeader <= l.Size; {
		e, n, stop, err := readEntry(l, at)
		if stop != "" || err != nil || n == 0 {
			return base, entries, stop, err
		}
		// What follows the newest entry is left from before.
		if len(entries) > 0 && e.seq != entries[len(entries)-1].seq+1 {
			break
		}
		entries = append(entries, e)
		at += n
	}
	return base, entries, "", nil
}

// readEntry reads the entry at an offset and its size; size 0 is the end.
func readEntry(l Log, at int64) (e logEntry, size int64, stop string, err error) {
	head := make([]byte, entryHeader)
	if err := readFull(l.R, head, at); err != nil {
		return e, 0, "", err
	}
	if string(head[:4]) != "HvLE" {
		return e, 0, "", nil
	}
	bad := func(format string, a ...any) (logEntry, int64, string, error) {
		return logEntry{}, 0, fmt.Sprintf("the entry at %#x is unsound (%s)", at, fmt.Sprintf(format, a...)), nil
	}
	size = int64(le.Uint32(head[4:]))
	count := int64(le.Uint32(head[20:]))
	e = logEntry{seq: le.Uint32(head[12:]), bins: le.Uint32(head[16:])}
	switch {
	case size < entryHeader || size%sectorSize != 0 || at+size > l.Size:
		return bad("size %d", size)
	case count*(8+sectorSize) > size:
		return bad("%d pages in %d bytes", count, size)
	case e.bins%pageSize != 0 || int64(e.bins)+baseSize > maxHive:
		return bad("hive of %#x bytes", e.bins)
	}
	m := newMarvin()
	m.write(head[:32])
	if m.sum() != le.Uint64(head[32:]) {
		return bad("hash of its header")
	}
	refs := make([]byte, 8*count)
	if err := readFull(l.R, refs, at+entryHeader); err != nil {
		return e, 0, "", err
	}
	m = newMarvin()
	buf := make([]byte, min(64<<10, size))
	for o := int64(entryHeader); o < size; {
		part := buf[:min(int64(len(buf)), size-o)]
		if err := readFull(l.R, part, at+o); err != nil {
			return e, 0, "", err
		}
		m.write(part)
		o += int64(len(part))
	}
	if m.sum() != le.Uint64(head[24:]) {
		return bad("hash of its contents")
	}
	data := entryHeader + 8*count
	e.pages = make([]logPage, count)
	for i := range e.pages {
		p := logPage{off: int64(le.Uint32(refs[8*i:])), n: int64(le.Uint32(refs[8*i+4:])), at: at + data}
		if p.n == 0 || p.n%sectorSize != 0 || p.off%sectorSize != 0 || p.off+p.n > int64(e.bins) || data+p.n > size {
			return bad("page %d: %#x bytes at %#x", i, p.n, p.off)
		}
		e.pages[i] = p
		data += p.n
	}
	return e, size, "", nil
}

// readOldLog reads a log as Windows wrote it before 8.1: "DIRT", one bit for each 512 bytes of the hbins, then those that
// changed, in order.
func readOldLog(l Log, base baseBlock) ([]logEntry, string, error) {
	if base.bins%pageSize != 0 || int64(base.bins)+baseSize > maxHive {
		return nil, fmt.Sprintf("hive of %#x bytes", base.bins), nil
	}
	b := make([]byte, 4+base.bins/sectorSize/8)
	if logHeader+int64(len(b)) > l.Size {
		return nil, "cut short", nil
	}
	if err := readFull(l.R, b, logHeader); err != nil {
		return nil, "", err
	}
	if string(b[:4]) != "DIRT" {
		return nil, "empty", nil
	}
	e := logEntry{seq: base.seq1, bins: base.bins}
	at := int64(logHeader+len(b)+sectorSize-1) &^ (sectorSize - 1)
	for i, bitmap := range b[4:] {
		for ; bitmap != 0; bitmap &= bitmap - 1 {
			if at+sectorSize > l.Size {
				return nil, "cut short", nil
			}
			off := int64(8*i+bits.TrailingZeros8(bitmap)) * sectorSize
			e.pages = append(e.pages, logPage{off, sectorSize, at})
			at += sectorSize
		}
	}
	return []logEntry{e}, "", nil
}

// replay lays over a dirty hive what its logs changed, as Windows does when it loads it: entries from the hive's second
// sequence number on, in order, from one log into the other, up to the first that is missing or torn.
func (h *Hive) replay(logs []Log) error {
	type source struct {
		Log
		base    baseBlock
		entries []logEntry
	}
	var notes []string
	var usable []source
	var lost []uint32 // numbers of entries that are unsound
	for _, l := range logs {
		base, entries, stop, err := readLog(l)
		if err != nil {
			return fmt.Errorf("hive: log %s: %w", l.Name, err)
		}
		if stop != "" {
			notes = append(notes, l.Name+": "+stop)
		}
		if h.base.sound {
			// An old log belongs to one flush; entries may begin before what the hive already holds.
			floor := h.base.seq2
			if base.kind != kindEntries {
				floor = h.base.seq1
			}
			all := len(entries)
			entries = slices.DeleteFunc(entries, func(e logEntry) bool { return before(e.seq, floor) })
			if len(entries) == 0 && all > 0 {
				notes = append(notes, fmt.Sprintf("%s: older than the hive", l.Name))
			}
		}
		if len(entries) > 0 {
			usable = append(usable, source{l, base, entries})
		} else if stop != "" && base.kind == kindEntries && base.sound && base.seq1 == base.seq2 && (!h.base.sound || !before(base.seq1, h.base.seq2)) {
			// Its header tells the number of its first entry. What comes after that one has nothing to stand on.
			lost = append(lost, base.seq1)
		}
	}
	usable = slices.DeleteFunc(usable, func(s source) bool {
		for _, seq := range lost {
			if first := s.entries[0].seq; before(seq, first) {
				h.state.Stale = true
				notes = append(notes, fmt.Sprintf("%s: its entries from %d on come after %d, which is lost", s.Name, first, seq))
				return true
			}
		}
		return false
	})
	slices.SortStableFunc(usable, func(a, b source) int { return cmp.Compare(int32(a.entries[0].seq-b.entries[0].seq), 0) })
	if len(usable) > 0 && !h.base.sound {
		// Windows takes the base block from the log then.
		h.base = usable[0].base
		h.base.kind = 0
		notes = append(notes, "base block taken from "+usable[0].Name)
	}
	var last uint32
	for i, l := range usable {
		if i > 0 && l.entries[0].seq != last+1 {
			first, newest := l.entries[0].seq, l.entries[len(l.entries)-1].seq
			h.state.Stale = h.state.Stale || before(last, newest)
			notes = append(notes, fmt.Sprintf("%s: its entries %d to %d do not follow %d", l.Name, first, newest, last))
			continue
		}
		for _, e := range l.entries {
			for _, p := range e.pages {
				h.pages.change(baseSize+p.off, p.n, l.R, p.at)
			}
			h.state.Entries++
			h.state.Pages += len(e.pages)
			h.base.bins = e.bins
			last = e.seq
		}
		notes = append(notes, fmt.Sprintf("%s: entries %d to %d applied", l.Name, l.entries[0].seq, last))
	}
	h.base.lastLog = last
	if h.state.Entries == 0 {
		h.state.Stale = true
		why := "no logs were given"
		if len(logs) > 0 {
			why = "no log has anything to apply"
		}
		notes = append([]string{why}, notes...)
	}
	h.state.Why = fmt.Sprintf("not cleanly closed (sequence numbers %d and %d): %s", h.base.seq1, h.base.seq2, strings.Join(notes, "; "))
	return nil
}

// before compares sequence numbers, which wrap around.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// marvin is the hash Marvin32 with the seed of the registry's logs. It takes whole 32-bit words only.
type marvin struct{ lo, hi uint32 }

func newMarvin() *marvin { return &marvin{lo: 0x7a4e55c5, hi: 0x82ef4d88} }

func (m *marvin) mix() {
	m.hi ^= m.lo
	m.lo = bits.RotateLeft32(m.lo, 20) + m.hi
	m.hi = bits.RotateLeft32(m.hi, 9) ^ m.lo
	m.lo = bits.RotateLeft32(m.lo, 27) + m.hi
	m.hi = bits.RotateLeft32(m.hi, 19)
}

func (m *marvin) write(b []byte) {
	lo, hi := m.lo, m.hi
	for len(b) >= 4 {
		lo += le.Uint32(b)
		hi ^= lo
		lo = bits.RotateLeft32(lo, 20) + hi
		hi = bits.RotateLeft32(hi, 9) ^ lo
		lo = bits.RotateLeft32(lo, 27) + hi
		hi = bits.RotateLeft32(hi, 19)
		b = b[4:]
	}
	m.lo, m.hi = lo, hi
}

// sum ends the hash.
func (m *marvin) sum() uint64 {
	m.lo += 0x80
	m.mix()
	m.mix()
	return uint64(m.hi)<<32 | uint64(m.lo)
}
