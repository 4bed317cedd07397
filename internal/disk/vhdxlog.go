package disk

import (
	"errors"
	"hash/crc32"
	"io"
	"math"
)

// The log of a VHDX is a ring of entries. An entry is what one update writes to tables and metadata of the file: pages of
// 4096 bytes, and ranges of zeros. A file that was not closed has entries that must be written before it is read; here
// they are laid over it instead.
//
//	entry        0 "loge"  4 CRC  8 length  12 tail  16 sequence  24 descriptors  32 log GUID  48 flushed  56 last file offset
//	from 64 on   "desc"  4 last 4 bytes  8 first 8 bytes  16 byte in the file  24 sequence   (its page follows below)
//	             "zero"  8 length                         16 byte in the file  24 sequence
//	then         for each "desc" a page: "data"  4 sequence, high half  8 bytes 8 to 4091 of the page  4092 low half
const (
	logSector = 4096
	// logMaxLength is the longest log that is replayed, in bytes. Hyper-V and QEMU write one of 1 MiB.
	logMaxLength = 64 << 20
	// logMaxZeros bounds the ranges of zeros in effect: each is looked at for each page read.
	logMaxZeros = 1024
)

type vhdxLog struct {
	f      *file
	at     int64
	length int64
	guid   string
	budget int64 // bytes that may yet be checked: entries that overlap must not make it quadratic
}

type logEntry struct {
	pos, length int64 // bytes in the log
	tail        int64
	sequence    uint64
	descriptors int64
	flushed     uint64
	last        uint64
}

// replayVHDXLog finds the active sequence of entries and returns the file as it will be once they are written, and how many they are.
func replayVHDXLog(f *file, h *vhdxHeader) (*overlay, int, error) {
	bad := func(detail string, args ...any) error {
		return f.refuse(Damaged, "log", h.at+68, detail, args...)
	}
	if h.logVersion != 0 {
		return nil, 0, f.refuse(Unsupported, "log version", h.at+64, "version %d, known is 0", h.logVersion)
	}
	length := int64(h.logLength)
	switch {
	case length > logMaxLength:
		return nil, 0, f.refuse(Unsupported, "log length", h.at+68, "%d bytes, at most %d are replayed", length, logMaxLength)
	case length == 0 || length%vhdxMiB != 0 || h.logAt%vhdxMiB != 0 || h.logAt < vhdxMiB || h.logAt > math.MaxInt64 || !f.holds(int64(h.logAt), length):
		return nil, 0, bad("%d bytes at byte %d: misplaced, or beyond the file's end at byte %d", length, h.logAt, f.size)
	}
	l := &vhdxLog{f: f, at: int64(h.logAt), length: length, guid: h.logGUID, budget: 16 * length}
	active, err := l.active()
	if err != nil {
		return nil, 0, err
	}
	if len(active) == 0 {
		return nil, 0, bad("the disk was not closed properly, but its log has no valid entry")
	}
	o := &overlay{src: f.src, log: l, size: f.size, pages: map[int64]logPage{}}
	for _, e := range active {
		if e.flushed > uint64(f.size) {
			return nil, 0, f.refuse(Damaged, "log", l.at+e.pos+48, "the file had %d bytes when it was written, and has %d: it is cut off", e.flushed, f.size)
		}
		if e.last > math.MaxInt64 {
			return nil, 0, f.refuse(Damaged, "log", l.at+e.pos+56, "last file offset %d", e.last)
		}
		o.size = max(o.size, int64(e.last))
		if err := o.apply(e); err != nil {
			return nil, 0, err
		}
	}
	return o, len(active), nil
}

// active returns the entries to replay: of all runs of valid entries with rising sequence numbers whose last one points
// to a tail inside the run, the one with the highest number; from that tail on.
func (l *vhdxLog) active() ([]logEntry, error) {
	var best []logEntry
	for pos := int64(0); pos < l.length; {
		var run []logEntry
		at := pos
		for total := int64(0); ; {
			e, err := l.entry(at)
			if err != nil {
				return nil, err
			}
			if e == nil || len(run) > 0 && e.sequence != run[len(run)-1].sequence+1 {
				break
			}
			if total += e.length; total > l.length {
				break // once around
			}
			run = append(run, *e)
			at = (at + e.length) % l.length
		}
		if len(run) == 0 {
			pos += logSector
			continue
		}
		head := run[len(run)-1]
		for i, e := range run {
			if e.pos == head.tail && (best == nil || head.sequence > best[len(best)-1].sequence) {
				best = run[i:]
				break
			}
		}
		if at <= pos {
			break // went around the end: everything was seen
		}
		pos = at
	}
	return best, nil
}

// sector reads the 4096 bytes at pos, which may be beyond the end of the ring.
func (l *vhdxLog) sector(p []byte, pos int64) error {
	return l.f.readFull(p[:logSector], l.at+pos%l.length, "log")
}

// entry reads the entry at pos and checks it; nil: there is no valid one.
func (l *vhdxLog) entry(pos int64) (*logEntry, error) {
	var p [logSector]byte
	if err := l.sector(p[:], pos); err != nil {
		return nil, err
	}
	e := &logEntry{
		pos: pos, length: int64(le.Uint32(p[8:])), tail: int64(le.Uint32(p[12:])), sequence: le.Uint64(p[16:]),
		descriptors: int64(le.Uint32(p[24:])), flushed: le.Uint64(p[48:]), last: le.Uint64(p[56:]),
	}
	if string(p[:4]) != "loge" || guid(p[32:]) != l.guid || e.sequence == 0 ||
		e.length == 0 || e.length%logSector != 0 || e.length > l.length || e.tail%logSector != 0 || e.tail >= l.length ||
		e.descriptorSectors()*logSector > e.length {
		return nil, nil
	}
	if l.budget -= e.length; l.budget < 0 {
		return nil, l.f.refuse(Damaged, "log", l.at+pos, "its entries overlap")
	}
	want, crc := le.Uint32(p[4:]), vhdxChecksum(p[:])
	for at := int64(logSector); at < e.length; at += logSector {
		if err := l.sector(p[:], pos+at); err != nil {
			return nil, err
		}
		crc = crc32.Update(crc, castagnoli, p[:])
	}
	if crc != want {
		return nil, nil
	}
	// What the CRC covers was written as it is, but perhaps by somebody else.
	page := e.descriptorSectors()
	err := l.descriptors(e, func(d []byte) error {
		if le.Uint64(d[24:]) != e.sequence {
			return errNotValid
		}
		switch string(d[:4]) {
		case "zero":
			return nil
		case "desc":
			var q [logSector]byte
			if page*logSector >= e.length {
				return errNotValid
			}
			if err := l.sector(q[:], pos+page*logSector); err != nil {
				return err
			}
			page++
			if string(q[:4]) != "data" || uint64(le.Uint32(q[4:]))<<32|uint64(le.Uint32(q[4092:])) != e.sequence {
				return errNotValid
			}
			return nil
		}
		return errNotValid
	})
	if errors.Is(err, errNotValid) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// errNotValid is how a look at an entry's descriptors ends that finds the entry not valid.
var errNotValid = errors.New("disk: log entry is not valid")

// descriptorSectors is how many sectors header and descriptors take.
func (e *logEntry) descriptorSectors() int64 {
	return (64 + e.descriptors*32 + logSector - 1) / logSector
}

// descriptors calls see with each descriptor of an entry.
func (l *vhdxLog) descriptors(e *logEntry, see func(d []byte) error) error {
	var p [logSector]byte
	for i := range e.descriptors {
		at := 64 + i*32
		if i == 0 || at%logSector == 0 {
			if err := l.sector(p[:], e.pos+at/logSector*logSector); err != nil {
				return err
			}
		}
		if err := see(p[at%logSector:][:32]); err != nil {
			return err
		}
	}
	return nil
}

// overlay is a file with the pages of its log over it.
type overlay struct {
	src   Source
	log   *vhdxLog
	size  int64
	pages map[int64]logPage // by number of the page in the file
	zeros []logZeros
	order int
}

type logPage struct {
	sector   int64 // byte in the log
	first    [8]byte
	last     [4]byte
	sequence int // when it was written
}

type logZeros struct {
	page, pages int64
	sequence    int
}

// apply lays an entry over the file.
func (o *overlay) apply(e logEntry) error {
	page := e.descriptorSectors()
	return o.log.descriptors(&e, func(d []byte) error {
		o.order++
		at := le.Uint64(d[16:])
		if at%logSector != 0 || at > math.MaxInt64 {
			return o.log.f.refuse(Damaged, "log", o.log.at+e.pos, "an entry is for byte %d of the file", at)
		}
		if string(d[:4]) == "zero" {
			n := le.Uint64(d[8:])
			if n%logSector != 0 || n > math.MaxInt64-at {
				return o.log.f.refuse(Damaged, "log", o.log.at+e.pos, "an entry is for %d zeros", n)
			}
			if len(o.zeros) == logMaxZeros {
				return o.log.f.refuse(Unsupported, "log", o.log.at+e.pos, "more than %d ranges of zeros", logMaxZeros)
			}
			o.zeros = append(o.zeros, logZeros{int64(at / logSector), int64(n / logSector), o.order})
			return nil
		}
		p := logPage{sector: e.pos + page*logSector, sequence: o.order}
		copy(p.first[:], d[8:16])
		copy(p.last[:], d[4:8])
		page++
		o.pages[int64(at/logSector)] = p
		return nil
	})
}

func (o *overlay) Size() int64 { return o.size }

func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= o.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > o.size-off {
		p, end = p[:o.size-off], io.EOF
	}
	// The file may be shorter than its log makes it: what is missing is zeros.
	n := 0
	if old := min(int64(len(p)), o.src.Size()-off); old > 0 {
		var err error
		if n, err = o.src.ReadAt(p[:old], off); int64(n) < old {
			return n, err
		}
	}
	clear(p[n:])
	var page [logSector]byte
	for done := 0; done < len(p); {
		at := off + int64(done)
		number, head := at/logSector, int(at%logSector)
		part := p[done:min(len(p), done+logSector-head)]
		done += len(part)
		l, ok := o.pages[number]
		if o.zeroed(number) > l.sequence {
			clear(part)
		} else if ok {
			if err := o.log.sector(page[:], l.sector); err != nil {
				return done - len(part), err
			}
			copy(page[:], l.first[:])
			copy(page[logSector-4:], l.last[:])
			copy(part, page[head:])
		}
	}
	return len(p), end
}

// zeroed returns when a page was last made zeros, 0: never.
func (o *overlay) zeroed(page int64) (when int) {
	for _, z := range o.zeros {
		if page >= z.page && page-z.page < z.pages {
			when = z.sequence
		}
	}
	return when
}
