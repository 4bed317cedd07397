package ntfs

import (
	"encoding/binary"
	"fmt"
	"unicode/utf16"
)

// Attribute types.
const (
	attrStandardInfo = 0x10
	attrList         = 0x20
	attrFileName     = 0x30
	attrVolumeName   = 0x60
	attrVolumeInfo   = 0x70
	attrData         = 0x80
	attrIndexRoot    = 0x90
	attrIndexAlloc   = 0xA0
	attrReparse      = 0xC0
	attrEnd          = 0xFFFFFFFF
)

const (
	// maxListBytes is the largest attribute list that Windows writes.
	maxListBytes = 256 << 10
	// maxValueBytes bounds small attributes that are read whole (names, flags, reparse data: [MS-FSCC] 16 KiB).
	maxValueBytes = 64 << 10
)

// fileRef is the number of an MFT record in the low 48 bits and its sequence number in the high 16 (0: any).
type fileRef uint64

func (f fileRef) number() int64    { return int64(f & (1<<48 - 1)) }
func (f fileRef) sequence() uint16 { return uint16(f >> 48) }

// record is a base record of the MFT with its attributes.
//
//	 0 "FILE"   4 offset and 6 count of the update-sequence array   16 sequence   18 links   20 first attribute
//	22 flags (1 in use, 2 directory, 4 in $Extend, 8 has an index that is no directory's)   24 bytes in use   28 bytes allocated   32 base record (0: this is one)   44 number
type record struct {
	v      *Volume
	number int64
	seq    uint16
	links  uint16
	flags  uint16
	base   fileRef
	attrs  []attribute
	list   []listEntry // of $ATTRIBUTE_LIST; nil: there is none
}

// attribute is one attribute of one record, as stored.
type attribute struct {
	typ         uint32
	name        []uint16
	flags       uint16
	id          uint16
	nonResident bool
	value       []byte // resident
	// non-resident:
	firstVCN, lastVCN int64
	unitShift         uint8 // log2 of clusters per compression unit
	size, valid       int64 // bytes of data, and of those that were written (the rest reads as zeros)
	runs              []byte
}

// Attribute flags.
const (
	flagCompressed = 0x00FF
	flagEncrypted  = 0x4000
)

// listEntry is one entry of $ATTRIBUTE_LIST.
type listEntry struct {
	typ      uint32
	name     []uint16
	firstVCN int64
	ref      fileRef
	id       uint16
}

func (rec *record) corrupt(off int64, format string, a ...any) error {
	return &CorruptError{What: fmt.Sprintf("MFT record %d", rec.number), Offset: off, Detail: fmt.Sprintf(format, a...)}
}

func (rec *record) isDir() bool { return rec.flags&2 != 0 }

// isOwn tells the files that NTFS keeps for itself: $Secure, $Extend\$UsnJrnl, ...
func (rec *record) isOwn() bool { return rec.number < recordFirstUser || rec.flags&(4|8) != 0 }

func (rec *record) ref() fileRef { return fileRef(uint64(rec.seq)<<48 | uint64(rec.number)) }

// record reads the base record that ref names.
func (v *Volume) record(ref fileRef) (*record, error) {
	rec, err := v.rawRecord(ref)
	if err != nil {
		return nil, err
	}
	if rec.base != 0 {
		return nil, rec.corrupt(32, "is an extension of record %d, not a file", rec.base.number())
	}
	if err := rec.loadList(); err != nil {
		return nil, err
	}
	return rec, nil
}

// rawRecord reads a base or extension record without its attribute list.
func (v *Volume) rawRecord(ref fileRef) (*record, error) {
	n := ref.number()
	if n >= v.mft.size/v.recordBytes {
		return nil, &CorruptError{What: "MFT", Offset: -1, Detail: fmt.Sprintf("record %d lies beyond its %d records", n, v.mft.size/v.recordBytes)}
	}
	b := make([]byte, v.recordBytes)
	if err := readFull(v.mft, b, n*v.recordBytes); err != nil {
		return nil, fmt.Errorf("MFT record %d: %w", n, err)
	}
	rec, err := parseRecord(b, n, n*v.recordBytes)
	if err != nil {
		return nil, err
	}
	rec.v = v
	if rec.flags&1 == 0 {
		return nil, rec.corrupt(22, "is not in use but referred to")
	}
	if s := ref.sequence(); s != 0 && s != rec.seq {
		return nil, rec.corrupt(16, "has sequence %d, but is referred to as %d", rec.seq, s)
	}
	return rec, nil
}

// fixup checks and undoes the update-sequence protection of an MFT record or index block.
func fixup(b []byte) error {
	off, count := int(binary.LittleEndian.Uint16(b[4:])), int(binary.LittleEndian.Uint16(b[6:]))
	if count != len(b)/fixupStride+1 {
		return fmt.Errorf("update-sequence array has %d entries for %d bytes", count, len(b))
	}
	if off%2 != 0 || off < 8 || off+2*count > len(b) {
		return fmt.Errorf("update-sequence array at byte %d", off)
	}
	usn := [2]byte{b[off], b[off+1]}
	for i := 1; i < count; i++ {
		end := i*fixupStride - 2
		if b[end] != usn[0] || b[end+1] != usn[1] {
			return fmt.Errorf("torn write: sector %d ends in %02x%02x, not %02x%02x", i-1, b[end], b[end+1], usn[0], usn[1])
		}
	}
	for i := 1; i < count; i++ {
		end := i*fixupStride - 2
		b[end], b[end+1] = b[off+2*i], b[off+2*i+1]
	}
	return nil
}

// parseRecord parses record number n from b, which it keeps. at is where it was read, for messages.
func parseRecord(b []byte, n, at int64) (*record, error) {
	le := binary.LittleEndian
	rec := &record{number: n}
	if string(b[:4]) != "FILE" {
		return nil, rec.corrupt(0, "begins with %q (record at %d)", b[:4], at)
	}
	if err := fixup(b); err != nil {
		return nil, rec.corrupt(4, "%v", err)
	}
	rec.seq, rec.links, rec.flags = le.Uint16(b[16:]), le.Uint16(b[18:]), le.Uint16(b[22:])
	rec.base = fileRef(le.Uint64(b[32:]))
	used := int(le.Uint32(b[24:]))
	if used < 48 || used > len(b) {
		return nil, rec.corrupt(24, "%d bytes in use of %d", used, len(b))
	}
	for p := int(le.Uint16(b[20:])); ; {
		if p < 42 || p%8 != 0 || p+4 > used {
			return nil, rec.corrupt(int64(p), "attribute outside of the record's %d bytes", used)
		}
		if le.Uint32(b[p:]) == attrEnd {
			return rec, nil
		}
		if p+24 > used {
			return nil, rec.corrupt(int64(p), "attribute header exceeds the record")
		}
		l := int(le.Uint32(b[p+4:]))
		if l < 24 || l > used-p || l%8 != 0 {
			return nil, rec.corrupt(int64(p+4), "attribute of %d bytes", l)
		}
		a, err := parseAttribute(b[p : p+l : p+l])
		if err != nil {
			return nil, rec.corrupt(int64(p), "%v", err)
		}
		rec.attrs = append(rec.attrs, a)
		p += l
	}
}

// parseAttribute parses one attribute.
//
//	0 type   4 length   8 non-resident   9 name length   10 name offset   12 flags   14 id
//	resident:      16 value length   20 value offset
//	non-resident:  16 first VCN   24 last VCN   32 runs offset   34 unit   40 allocated   48 size   56 valid size
func parseAttribute(b []byte) (attribute, error) {
	le := binary.LittleEndian
	a := attribute{typ: le.Uint32(b), nonResident: b[8] != 0, flags: le.Uint16(b[12:]), id: le.Uint16(b[14:])}
	if nl, no := int(b[9]), int(le.Uint16(b[10:])); nl > 0 {
		if no+2*nl > len(b) {
			return a, fmt.Errorf("attribute %#x: name exceeds it", a.typ)
		}
		a.name = bytesToUTF16(b[no : no+2*nl])
	}
	if !a.nonResident {
		l, o := int64(le.Uint32(b[16:])), int64(le.Uint16(b[20:]))
		if o+l > int64(len(b)) {
			return a, fmt.Errorf("attribute %#x: value of %d bytes exceeds it", a.typ, l)
		}
		a.value = b[o : o+l : o+l]
		return a, nil
	}
	if len(b) < 64 {
		return a, fmt.Errorf("attribute %#x: header of %d bytes", a.typ, len(b))
	}
	first, last, size, valid := le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[48:]), le.Uint64(b[56:])
	if first != 0 { // only the first part of a stream knows its sizes
		size, valid = 0, 0
	}
	// An empty attribute has 0 and -1.
	if first > 1<<62 || last+1 > 1<<62 || last+1 < first || size > 1<<62 || valid > 1<<62 {
		return a, fmt.Errorf("attribute %#x: clusters %d to %d, %d bytes", a.typ, first, int64(last), size)
	}
	a.firstVCN, a.lastVCN, a.size, a.valid = int64(first), int64(last), int64(size), int64(min(valid, size))
	a.unitShift = b[34]
	o := int(le.Uint16(b[32:]))
	if o < 64 || o > len(b) {
		return a, fmt.Errorf("attribute %#x: runs at byte %d", a.typ, o)
	}
	a.runs = b[o:]
	return a, nil
}

// loadList reads $ATTRIBUTE_LIST, if the record has one.
//
//	0 type   4 entry length   6 name length   7 name offset   8 first VCN   16 record   24 id
func (rec *record) loadList() error {
	var la *attribute
	for i := range rec.attrs {
		if rec.attrs[i].typ == attrList {
			la = &rec.attrs[i]
		}
	}
	if la == nil {
		return nil
	}
	b := la.value
	if la.nonResident {
		s, err := rec.v.newStream(rec, []*attribute{la}, false)
		if err != nil {
			return err
		}
		if s.size > maxListBytes {
			return rec.corrupt(-1, "attribute list of %d bytes", s.size)
		}
		b = make([]byte, s.size)
		if err := readFull(s, b, 0); err != nil {
			return fmt.Errorf("attribute list of MFT record %d: %w", rec.number, err)
		}
	}
	le := binary.LittleEndian
	rec.list = []listEntry{}
	for p := 0; p < len(b); {
		if len(b)-p < 26 {
			return rec.corrupt(-1, "attribute list ends within an entry at byte %d", p)
		}
		l, nl, no := int(le.Uint16(b[p+4:])), int(b[p+6]), int(b[p+7])
		if l < 26 || l%8 != 0 || l > len(b)-p || nl > 0 && no+2*nl > l {
			return rec.corrupt(-1, "attribute list: entry of %d bytes at byte %d", l, p)
		}
		vcn := le.Uint64(b[p+8:])
		if vcn > 1<<62 {
			return rec.corrupt(-1, "attribute list: cluster %d at byte %d", vcn, p)
		}
		e := listEntry{typ: le.Uint32(b[p:]), firstVCN: int64(vcn), ref: fileRef(le.Uint64(b[p+16:])), id: le.Uint16(b[p+24:])}
		if nl > 0 {
			e.name = bytesToUTF16(b[p+no : p+no+2*nl])
		}
		rec.list = append(rec.list, e)
		p += l
	}
	return nil
}

// resolve finds the attribute that an entry of the attribute list names.
func (rec *record) resolve(e listEntry) (*attribute, error) {
	in := rec
	if e.ref.number() != rec.number {
		x, err := rec.v.rawRecord(e.ref)
		if err != nil {
			return nil, fmt.Errorf("extension of MFT record %d: %w", rec.number, err)
		}
		if x.base.number() != rec.number || x.base.sequence() != rec.seq {
			return nil, x.corrupt(32, "is used by record %d, but extends record %d", rec.number, x.base.number())
		}
		in = x
	}
	for i := range in.attrs {
		a := &in.attrs[i]
		if a.typ == e.typ && a.id == e.id && equalUTF16(a.name, e.name) {
			if a.nonResident && a.firstVCN != e.firstVCN {
				return nil, in.corrupt(-1, "attribute %#x begins at cluster %d, the list says %d", a.typ, a.firstVCN, e.firstVCN)
			}
			return a, nil
		}
	}
	return nil, in.corrupt(-1, "lacks attribute %#x (id %d) that record %d lists", e.typ, e.id, rec.number)
}

// find returns the attributes of a type and name, in the order of their clusters; name compares without case.
// Without one the error is errMissing.
func (rec *record) find(typ uint32, name string) ([]*attribute, error) {
	want := utf16.Encode([]rune(name))
	var found []*attribute
	if rec.list == nil {
		for i := range rec.attrs {
			if a := &rec.attrs[i]; a.typ == typ && rec.v.equalFold(a.name, want) {
				found = append(found, a)
			}
		}
	}
	for _, e := range rec.list {
		if e.typ != typ || !rec.v.equalFold(e.name, want) {
			continue
		}
		a, err := rec.resolve(e)
		if err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("MFT record %d, attribute %#x %q: %w", rec.number, typ, name, errMissing)
	}
	return found, nil
}

// stream opens the contents of an attribute.
func (rec *record) stream(typ uint32, name string) (*stream, error) {
	attrs, err := rec.find(typ, name)
	if err != nil {
		return nil, err
	}
	return rec.v.newStream(rec, attrs, false)
}

// value reads a small unnamed attribute whole.
func (rec *record) value(typ uint32) ([]byte, error) {
	s, err := rec.stream(typ, "")
	if err != nil {
		return nil, err
	}
	if s.size > maxValueBytes {
		return nil, rec.corrupt(-1, "attribute %#x of %d bytes", typ, s.size)
	}
	b := make([]byte, s.size)
	return b, readFull(s, b, 0)
}

// equalFold compares names by the volume's $UpCase.
func (v *Volume) equalFold(a, b []uint16) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && v.fold(a[i]) != v.fold(b[i]) {
			return false
		}
	}
	return true
}

func (v *Volume) fold(c uint16) uint16 {
	if v.upCase == nil { // while the volume is being opened, only ASCII names are looked for
		return c
	}
	return v.upCase[c]
}

func equalUTF16(a, b []uint16) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func bytesToUTF16(b []byte) []uint16 {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return u
}

func decodeUTF16(u []uint16) string { return string(utf16.Decode(u)) }
