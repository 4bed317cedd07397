package ntfs

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

var le = binary.LittleEndian

// editor changes a clone of the sample volume.
type editor struct {
	t   testing.TB
	img []byte
	v   *Volume // of the volume before the changes
}

func edit(t testing.TB) *editor {
	img := slices.Clone(sample())
	return &editor{t, img, open(t, img)}
}

// at is where a stream's byte lies in the image.
func (e *editor) at(s *stream, off int64) int64 {
	r := s.runs[s.runAt(off/e.v.clusterBytes)]
	return r.lcn*e.v.clusterBytes + off - r.vcn*e.v.clusterBytes
}

// number is the record number of a file.
func (e *editor) number(name string) int64 {
	i, err := e.v.FS().Stat(name)
	if err != nil {
		e.t.Fatal(err)
	}
	return i.Sys().(*Entry).Record
}

// block changes an MFT record or index block of n bytes at off, its update sequence taken off and put back on.
func (e *editor) block(off, n int64, change func(b []byte)) {
	b := e.img[off : off+n]
	if err := fixup(b); err != nil {
		e.t.Fatal(err)
	}
	change(b)
	usa, count := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	for i := 1; i < count; i++ {
		copy(b[usa+2*i:], b[i*fixupStride-2:i*fixupStride])
		copy(b[i*fixupStride-2:], b[usa:usa+2])
	}
}

func (e *editor) record(n int64, change func(b []byte)) {
	e.block(e.at(e.v.mft, n*e.v.recordBytes), e.v.recordBytes, change)
}

// attrs replaces the attributes of a record.
func (e *editor) attrs(n int64, change func(attrs [][]byte) [][]byte) {
	e.record(n, func(b []byte) {
		var list [][]byte
		p := int(le.Uint16(b[20:]))
		first := p
		for le.Uint32(b[p:]) != attrEnd {
			l := int(le.Uint32(b[p+4:]))
			list = append(list, slices.Clone(b[p:p+l]))
			p += l
		}
		out := append(bytes.Join(change(list), nil), 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0)
		if first+len(out) > len(b) {
			e.t.Fatalf("%d bytes of attributes do not fit", len(out))
		}
		clear(b[first:])
		copy(b[first:], out)
		le.PutUint32(b[24:], uint32(first+len(out)))
	})
}

// attr changes the first attribute of a type.
func (e *editor) attr(n int64, typ uint32, change func(a []byte)) {
	done := false
	e.attrs(n, func(attrs [][]byte) [][]byte {
		for _, a := range attrs {
			if le.Uint32(a) == typ && !done {
				change(a)
				done = true
			}
		}
		return attrs
	})
	if !done {
		e.t.Fatalf("record %d has no attribute %#x", n, typ)
	}
}

// spare are records that were used once and are not now.
func (e *editor) spare() []int64 {
	var list []int64
	for n := int64(64); n < e.v.mft.size/e.v.recordBytes; n++ {
		b := e.img[e.at(e.v.mft, n*e.v.recordBytes):][:e.v.recordBytes]
		if string(b[:4]) == "FILE" && le.Uint16(b[22:])&1 == 0 {
			list = append(list, n)
		}
	}
	return list
}

// resident makes a resident attribute.
func resident(typ uint32, id uint16, value []byte) []byte {
	l := (24 + len(value) + 7) &^ 7
	a := make([]byte, l)
	le.PutUint32(a, typ)
	le.PutUint32(a[4:], uint32(l))
	le.PutUint16(a[10:], 24)
	le.PutUint16(a[14:], id)
	le.PutUint32(a[16:], uint32(len(value)))
	le.PutUint16(a[20:], 24)
	copy(a[24:], value)
	return a
}

// nonResident makes a part of a non-resident attribute from absolute runs.
func nonResident(typ uint32, id uint16, size int64, clusterBytes int64, runs []run) []byte {
	var pairs []byte
	prev := int64(0)
	for _, r := range runs {
		pairs = append(pairs, 0x44)
		pairs = le.AppendUint32(pairs, uint32(r.n))
		pairs = le.AppendUint32(pairs, uint32(r.lcn-prev))
		prev = r.lcn
	}
	pairs = append(pairs, 0)
	l := (64 + len(pairs) + 7) &^ 7
	a := make([]byte, l)
	last := runs[len(runs)-1]
	le.PutUint32(a, typ)
	le.PutUint32(a[4:], uint32(l))
	a[8] = 1
	le.PutUint16(a[10:], 64)
	le.PutUint16(a[14:], id)
	le.PutUint64(a[16:], uint64(runs[0].vcn))
	le.PutUint64(a[24:], uint64(last.vcn+last.n-1))
	le.PutUint16(a[32:], 64)
	if runs[0].vcn == 0 {
		le.PutUint64(a[40:], uint64((size+clusterBytes-1)/clusterBytes*clusterBytes))
		le.PutUint64(a[48:], uint64(size))
		le.PutUint64(a[56:], uint64(size))
	}
	copy(a[64:], pairs)
	return a
}

func listItem(typ uint32, vcn int64, ref fileRef, id uint16) []byte {
	b := make([]byte, 32)
	le.PutUint32(b, typ)
	le.PutUint16(b[4:], 32)
	b[7] = 26
	le.PutUint64(b[8:], uint64(vcn))
	le.PutUint64(b[16:], uint64(ref))
	le.PutUint16(b[24:], id)
	return b
}

// scatter moves the extents of a file to other records, three to each, and gives the file an attribute list: in its record, or
// in the free cluster at.
func (e *editor) scatter(name string, at int64) (extensions []int64) {
	n := e.number(name)
	rec, err := e.v.record(fileRef(n))
	if err != nil {
		e.t.Fatal(err)
	}
	s, err := rec.stream(attrData, "")
	if err != nil {
		e.t.Fatal(err)
	}
	var list []byte
	for _, a := range rec.attrs {
		if a.typ != attrData {
			list = append(list, listItem(a.typ, 0, rec.ref(), a.id)...)
		}
	}
	spare := e.spare()
	for i := 0; i < len(s.runs); i += 3 {
		part := s.runs[i:min(i+3, len(s.runs))]
		x := spare[0]
		spare = spare[1:]
		extensions = append(extensions, x)
		e.attrs(x, func([][]byte) [][]byte {
			return [][]byte{nonResident(attrData, 7, s.size, e.v.clusterBytes, part)}
		})
		var seq uint16
		e.record(x, func(b []byte) {
			le.PutUint16(b[22:], 1)
			le.PutUint64(b[32:], uint64(rec.ref()))
			seq = le.Uint16(b[16:])
		})
		list = append(list, listItem(attrData, part[0].vcn, fileRef(uint64(seq)<<48|uint64(x)), 7)...)
	}
	e.attrs(n, func(attrs [][]byte) [][]byte {
		l := resident(attrList, 99, list)
		if at != 0 {
			copy(e.img[at*e.v.clusterBytes:], list)
			l = nonResident(attrList, 99, int64(len(list)), e.v.clusterBytes, []run{{0, at, 1}})
		}
		var out [][]byte
		for _, a := range attrs {
			switch typ := le.Uint32(a); {
			case typ == attrStandardInfo:
				out = append(out, a, l)
			case typ != attrData:
				out = append(out, a)
			}
		}
		return out
	})
	return extensions
}

// freeCluster is a cluster that nothing uses.
func (e *editor) freeCluster() int64 {
	at := int64(-1)
	err := e.v.Allocated(func(first int64, piece []byte) bool {
		for i := e.v.clusters/2 - first; i < int64(len(piece))*8; i++ {
			if piece[i/8]>>(i%8)&1 == 0 {
				at = first + i
				return false
			}
		}
		return true
	})
	if err != nil || at < 0 {
		e.t.Fatal("no free cluster", err)
	}
	return at
}
