package phony

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

var le = binary.LittleEndian

// What NTFS calls things. The numbers are those of the published NTFS documentation (libfsntfs, Linux-NTFS).
const (
	attrStandardInformation = 0x10
	attrFileName            = 0x30
	attrSecurityDescriptor  = 0x50
	attrData                = 0x80
	attrIndexRoot           = 0x90
	attrIndexAllocation     = 0xA0
	attrBitmap              = 0xB0
	attrReparsePoint        = 0xC0
	attrEnd                 = 0xFFFFFFFF

	recordInUse     = 1
	recordDirectory = 2

	fileReadOnly     = 0x1
	fileHidden       = 0x2
	fileSystem       = 0x4
	fileArchive      = 0x20
	fileReparsePoint = 0x400
	fileHasI30       = 0x10000000 // in $FILE_NAME: the file is a folder

	recordMFT     = 0
	recordLogFile = 2
	recordVolume  = 3
	recordRoot    = 5
	recordBitmap  = 6
	recordUpCase  = 10
	recordExtend  = 11
	// firstUserRecord is where Windows begins to put files; 24 to 63 are kept for the file system.
	firstUserRecord = 64

	sectorBytes = 512 // update sequence stride, and the sector size of every phony disk
)

// run is a range of clusters on the volume, or a hole.
type run struct{ lcn, length int64 }

// hole is the lcn of a run that has no clusters: $BadClus has one over the whole volume.
const hole = -1

// attribute is one attribute of an MFT record, in parts.
type attribute struct {
	typ   uint32
	name  string
	flags uint16

	resident bool
	indexed  bool   // $FILE_NAME is in an index
	value    []byte // resident

	runs      []run // non-resident
	allocated int64 // bytes
	size      int64
	valid     int64 // initialised bytes
}

// record is an MFT record in parts: what encode lays out and decode takes apart.
//
//	0x00 "FILE" | 0x04 usa offset, count | 0x08 log sequence | 0x10 sequence, links | 0x14 first attribute, flags
//	0x18 bytes used, allocated | 0x20 base record | 0x28 next attribute id | 0x2C number | 0x30 update sequence | 0x38 attributes
type record struct {
	number   uint64
	sequence uint16
	links    uint16
	flags    uint16
	attrs    []attribute
}

const recordHeader = 0x38

// reference is how other records name this one: number in 48 bits, sequence in the upper 16.
func (r *record) reference() uint64 { return r.number | uint64(r.sequence)<<48 }

func (r *record) find(typ uint32, name string) *attribute {
	for i := range r.attrs {
		if r.attrs[i].typ == typ && r.attrs[i].name == name {
			return &r.attrs[i]
		}
	}
	return nil
}

// set replaces the attribute of the same type and name, or adds it.
func (r *record) set(a attribute) {
	if old := r.find(a.typ, a.name); old != nil {
		*old = a
		return
	}
	r.attrs = append(r.attrs, a)
}

func utf16Bytes(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = le.AppendUint16(b, u)
	}
	return b
}

func utf16String(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = le.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}

func align8(n int) int { return (n + 7) &^ 7 }

// length is the attribute's size in a record, in bytes.
func (a *attribute) length() int {
	name := 2 * len(utf16.Encode([]rune(a.name)))
	if a.resident {
		return align8(align8(0x18+name) + len(a.value))
	}
	return align8(align8(0x40+name) + len(mappingPairs(a.runs)))
}

func (a *attribute) encode(id uint16) []byte {
	name := utf16Bytes(a.name)
	b := make([]byte, a.length())
	le.PutUint32(b, a.typ)
	le.PutUint32(b[4:], uint32(len(b)))
	b[9] = byte(len(name) / 2)
	le.PutUint16(b[0xC:], a.flags)
	le.PutUint16(b[0xE:], id)
	if a.resident {
		at := align8(0x18 + len(name))
		le.PutUint16(b[0xA:], 0x18)
		copy(b[0x18:], name)
		le.PutUint32(b[0x10:], uint32(len(a.value)))
		le.PutUint16(b[0x14:], uint16(at))
		if a.indexed {
			b[0x16] = 1
		}
		copy(b[at:], a.value)
		return b
	}
	b[8] = 1
	at := align8(0x40 + len(name))
	var clusters int64
	for _, r := range a.runs {
		clusters += r.length
	}
	le.PutUint16(b[0xA:], 0x40)
	copy(b[0x40:], name)
	le.PutUint64(b[0x18:], uint64(clusters-1))
	le.PutUint16(b[0x20:], uint16(at))
	le.PutUint64(b[0x28:], uint64(a.allocated))
	le.PutUint64(b[0x30:], uint64(a.size))
	le.PutUint64(b[0x38:], uint64(a.valid))
	copy(b[at:], mappingPairs(a.runs))
	return b
}

// mappingPairs packs runs as NTFS does: a byte with two lengths, the run's length, and its distance from the run before.
func mappingPairs(runs []run) []byte {
	var b []byte
	var before int64
	for _, r := range runs {
		n, d := signed(r.length), []byte(nil)
		if r.lcn != hole {
			d = signed(r.lcn - before)
		}
		b = append(b, byte(len(d)<<4|len(n)))
		b = append(append(b, n...), d...)
		if r.lcn != hole {
			before = r.lcn
		}
	}
	return append(b, 0)
}

// signed is v in the fewest little-endian bytes that keep its sign.
func signed(v int64) []byte {
	var b []byte
	for {
		b = append(b, byte(v))
		top := int8(v)
		v >>= 8
		if v == 0 && top >= 0 || v == -1 && top < 0 {
			return b
		}
	}
}

func parseRuns(b []byte) ([]run, error) {
	var runs []run
	var lcn int64
	for len(b) > 0 && b[0] != 0 {
		n, d := int(b[0]&15), int(b[0]>>4)
		if n == 0 || n > 8 || d > 8 || 1+n+d > len(b) {
			return nil, fmt.Errorf("mapping pairs: bad header 0x%02x", b[0])
		}
		r := run{hole, parseSigned(b[1 : 1+n])}
		if d > 0 {
			lcn += parseSigned(b[1+n : 1+n+d])
			r.lcn = lcn
		}
		runs = append(runs, r)
		b = b[1+n+d:]
	}
	return runs, nil
}

func parseSigned(b []byte) int64 {
	var v int64
	for i, c := range b {
		v |= int64(c) << (8 * i)
	}
	if n := 64 - 8*len(b); len(b) > 0 && n > 0 {
		v = v << n >> n
	}
	return v
}

// free is how many more bytes of attributes fit into the record.
func (r *record) free(size int) int {
	used := recordHeader + 8
	for i := range r.attrs {
		used += r.attrs[i].length()
	}
	return size - used
}

// encode lays the record out in size bytes with its update sequence applied.
func (r *record) encode(size int) ([]byte, error) {
	if r.free(size) < 0 {
		return nil, fmt.Errorf("MFT record %d: attributes need %d bytes more than a record has", r.number, -r.free(size))
	}
	slices.SortStableFunc(r.attrs, func(a, b attribute) int {
		if a.typ != b.typ {
			return int(a.typ) - int(b.typ)
		}
		return strings.Compare(a.name, b.name)
	})
	b := make([]byte, size)
	copy(b, "FILE")
	le.PutUint16(b[4:], 0x30)
	le.PutUint16(b[6:], uint16(size/sectorBytes+1))
	le.PutUint16(b[0x10:], r.sequence)
	le.PutUint16(b[0x12:], r.links)
	le.PutUint16(b[0x14:], recordHeader)
	le.PutUint16(b[0x16:], r.flags)
	le.PutUint32(b[0x1C:], uint32(size))
	le.PutUint16(b[0x28:], uint16(len(r.attrs)))
	le.PutUint32(b[0x2C:], uint32(r.number))
	at := recordHeader
	for i := range r.attrs {
		at += copy(b[at:], r.attrs[i].encode(uint16(i)))
	}
	le.PutUint32(b[at:], attrEnd)
	le.PutUint32(b[0x18:], uint32(at+8))
	protect(b, 0x30)
	return b, nil
}

// protect applies an update sequence: the last two bytes of every sector are kept in the array at usa and replaced by the
// sequence number, so that a half-written block shows.
func protect(b []byte, usa int) {
	const number = 1
	le.PutUint16(b[usa:], number)
	for i := 0; i < len(b)/sectorBytes; i++ {
		end := (i+1)*sectorBytes - 2
		copy(b[usa+2+2*i:], b[end:end+2])
		le.PutUint16(b[end:], number)
	}
}

// unprotect undoes protect in place.
func unprotect(b []byte) error {
	usa, n := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if n != len(b)/sectorBytes+1 || usa+2*n > len(b) {
		return fmt.Errorf("%q block: update sequence at %d of %d entries", b[:4], usa, n)
	}
	for i := 1; i < n; i++ {
		end := i*sectorBytes - 2
		if le.Uint16(b[end:]) != le.Uint16(b[usa:]) {
			return fmt.Errorf("%q block: sector %d is torn", b[:4], i-1)
		}
		copy(b[end:end+2], b[usa+2*i:])
	}
	return nil
}

// decodeRecord takes apart a record as mkntfs wrote it, but for its number.
func decodeRecord(b []byte) (*record, error) {
	b = slices.Clone(b)
	if string(b[:4]) != "FILE" {
		return nil, fmt.Errorf("signature %q", b[:4])
	}
	if err := unprotect(b); err != nil {
		return nil, err
	}
	r := &record{
		sequence: le.Uint16(b[0x10:]), links: le.Uint16(b[0x12:]), flags: le.Uint16(b[0x16:]),
	}
	for at := int(le.Uint16(b[0x14:])); ; {
		if at+4 > len(b) {
			return nil, errors.New("attributes run past its end")
		}
		if le.Uint32(b[at:]) == attrEnd {
			return r, nil
		}
		if at+0x18 > len(b) {
			return nil, errors.New("attributes run past its end")
		}
		n := int(le.Uint32(b[at+4:]))
		if n < 0x18 || at+n > len(b) {
			return nil, fmt.Errorf("attribute at %d is %d bytes long", at, n)
		}
		a, err := decodeAttribute(b[at : at+n])
		if err != nil {
			return nil, err
		}
		r.attrs = append(r.attrs, a)
		at += n
	}
}

func decodeAttribute(b []byte) (attribute, error) {
	a := attribute{typ: le.Uint32(b), flags: le.Uint16(b[0xC:]), resident: b[8] == 0}
	bad := func() (attribute, error) { return a, fmt.Errorf("attribute 0x%x does not hold together", a.typ) }
	name, nameEnd := int(le.Uint16(b[0xA:])), int(le.Uint16(b[0xA:]))+2*int(b[9])
	if b[9] > 0 {
		if nameEnd > len(b) {
			return bad()
		}
		a.name = utf16String(b[name:nameEnd])
	}
	if a.resident {
		n, at := int(le.Uint32(b[0x10:])), int(le.Uint16(b[0x14:]))
		if at+n > len(b) {
			return bad()
		}
		a.indexed = b[0x16]&1 != 0
		a.value = slices.Clone(b[at : at+n])
		return a, nil
	}
	if len(b) < 0x40 || int(le.Uint16(b[0x20:])) > len(b) {
		return bad()
	}
	if a.flags != 0 || le.Uint16(b[0x22:]) != 0 { // compressed or sparse ones have one field more; mkntfs makes none
		return bad()
	}
	a.allocated, a.size, a.valid = int64(le.Uint64(b[0x28:])), int64(le.Uint64(b[0x30:])), int64(le.Uint64(b[0x38:]))
	var err error
	a.runs, err = parseRuns(b[le.Uint16(b[0x20:]):])
	return a, err
}

// standardInformation is the value of $STANDARD_INFORMATION, NTFS 3.x form: four times, flags, and the id of the security
// descriptor in $Secure (256: the entry that mkntfs makes for files).
func standardInformation(filetime uint64, flags uint32) attribute {
	v := make([]byte, 72)
	for i := range 4 {
		le.PutUint64(v[8*i:], filetime)
	}
	le.PutUint32(v[0x20:], flags)
	le.PutUint32(v[0x34:], 0x100)
	return attribute{typ: attrStandardInformation, resident: true, value: v}
}

// fileName is the value of $FILE_NAME, which an index entry repeats.
type fileName struct {
	parent          uint64 // reference
	filetime        uint64
	allocated, size int64
	flags           uint32
	reparse         uint32
	space           byte // 0 POSIX, 1 Win32, 2 DOS, 3 Win32 and DOS
	name            []uint16
}

func (f *fileName) encode() []byte {
	b := make([]byte, 66, 66+2*len(f.name))
	le.PutUint64(b, f.parent)
	for i := range 4 {
		le.PutUint64(b[8+8*i:], f.filetime)
	}
	le.PutUint64(b[0x28:], uint64(f.allocated))
	le.PutUint64(b[0x30:], uint64(f.size))
	le.PutUint32(b[0x38:], f.flags)
	le.PutUint32(b[0x3C:], f.reparse)
	b[0x40], b[0x41] = byte(len(f.name)), f.space
	for _, u := range f.name {
		b = le.AppendUint16(b, u)
	}
	return b
}

// dosName tells whether a name is valid as an 8.3 name, so that one $FILE_NAME serves both name spaces.
func dosName(name string) bool {
	stem, ext, dot := strings.Cut(name, ".")
	if stem == "" || len(stem) > 8 || len(ext) > 3 || dot && ext == "" {
		return false
	}
	for _, r := range stem + ext {
		if !(r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("$%'-_@~`!(){}^#&", r)) {
			return false
		}
	}
	return true
}
