package ntfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
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

func TestAttributeList(t *testing.T) {
	want, err := open(t, sample()).FS().ReadFile("fragmented")
	if err != nil {
		t.Fatal(err)
	}
	before, err := open(t, sample()).Extents("fragmented")
	if err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"resident", "non-resident"} {
		e := edit(t)
		at := int64(0)
		if where == "non-resident" {
			at = e.freeCluster()
		}
		if x := e.scatter("fragmented", at); len(x) < 5 {
			t.Fatalf("only %d extension records", len(x))
		}
		v := open(t, e.img)
		got, err := v.FS().ReadFile("fragmented")
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", where, len(got), err)
		}
		after, err := v.Extents("fragmented")
		if err != nil || !slices.Equal(before, after) {
			t.Errorf("%s: extents %v, %v", where, after, err)
		}
	}
}

// TestMFTInPieces gives $MFT itself an attribute list, whose extension lies in the part that is known by then.
func TestMFTInPieces(t *testing.T) {
	build := func(t *testing.T, extension int64) []byte {
		e := edit(t)
		first := e.v.mft.runs[0]
		cut := []run{{0, first.lcn, 8}, {8, first.lcn + 8, first.n - 8}}
		rest := append(cut[1:], e.v.mft.runs[1:]...)
		var list []byte
		e.attrs(0, func(attrs [][]byte) [][]byte {
			var out [][]byte
			for _, a := range attrs {
				typ, id := le.Uint32(a), le.Uint16(a[14:])
				list = append(list, listItem(typ, 0, fileRef(0), id)...)
				if typ == attrData {
					list = append(list, listItem(typ, 8, fileRef(extension), 7)...)
					a = nonResident(attrData, id, e.v.mft.size, e.v.clusterBytes, cut[:1])
				}
				out = append(out, a)
			}
			return slices.Insert(out, 1, resident(attrList, 99, list))
		})
		e.attrs(extension, func([][]byte) [][]byte {
			return [][]byte{nonResident(attrData, 7, 0, e.v.clusterBytes, rest)}
		})
		e.record(extension, func(b []byte) {
			le.PutUint16(b[22:], 1)
			le.PutUint64(b[32:], 0x0001000000000000)
		})
		return e.img
	}
	v := open(t, build(t, 15))
	if b, err := v.FS().ReadFile("Windows/System32/config/SYSTEM"); err != nil || len(b) != 11393 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	// A record that is only found through itself.
	img := build(t, 100)
	if _, err := Open(bytes.NewReader(img), int64(len(img))); err == nil {
		t.Error("the extension of $MFT in the part that it describes was accepted")
	}
}

func TestDirty(t *testing.T) {
	e := edit(t)
	e.attr(recordVolume, attrVolumeInfo, func(a []byte) { a[24+10] |= 1 })
	i, err := open(t, e.img).Info()
	if err != nil || !i.Dirty || i.Label != "Größe C" {
		t.Errorf("%+v, %v", i, err)
	}
}

// TestUpCaseFallback: a volume whose $UpCase is lost can still be searched.
func TestUpCaseFallback(t *testing.T) {
	e := edit(t)
	e.record(recordUpCase, func(b []byte) { le.PutUint16(b[22:], 0) })
	v := open(t, e.img)
	if v.ownUpCase {
		t.Fatal("$UpCase was read")
	}
	if _, err := v.FS().Stat("WINDOWS/system32/CONFIG/system"); err != nil {
		t.Error(err)
	}
	if _, err := v.FS().Stat("ÜNÏCODE ä/ß"); err != nil {
		t.Error(err)
	}
}

func TestBitLocker(t *testing.T) {
	fixed := make([]byte, 8192)
	copy(fixed, "\xEB\x58\x90-FVE-FS-")
	toGo := make([]byte, 8192)
	copy(toGo, "\xEB\x58\x90MSWIN4.1")
	copy(toGo[424:], bitLockerGUID)
	for i, b := range [][]byte{fixed, toGo} {
		_, err := Open(bytes.NewReader(b), int64(len(b)))
		var locked *BitLockerError
		if !errors.As(err, &locked) || locked.ToGo != (i == 1) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestNotNTFS(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 511), make([]byte, 4096), bytes.Repeat([]byte("x"), 4096)} {
		if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrNotNTFS) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}

// TestOpenRefuses changes what Open depends on.
func TestOpenRefuses(t *testing.T) {
	for name, change := range map[string]func(e *editor){
		"signature":             func(e *editor) { e.img[510] = 0 },
		"sector size 0":         func(e *editor) { le.PutUint16(e.img[11:], 0) },
		"sector size 768":       func(e *editor) { le.PutUint16(e.img[11:], 768) },
		"cluster of 0":          func(e *editor) { e.img[13] = 0 },
		"cluster of 3":          func(e *editor) { e.img[13] = 3 },
		"cluster of 2^127":      func(e *editor) { e.img[13] = 0x81 },
		"more sectors":          func(e *editor) { le.PutUint64(e.img[40:], uint64(len(e.img)/512+1)) },
		"2^64-1 sectors":        func(e *editor) { le.PutUint64(e.img[40:], 1<<64-1) },
		"MFT beyond the end":    func(e *editor) { le.PutUint64(e.img[48:], 1<<40) },
		"MFT at 2^63":           func(e *editor) { le.PutUint64(e.img[48:], 1<<63) },
		"record of 2^128 bytes": func(e *editor) { e.img[64] = 0x80 },
		"record of 1 byte":      func(e *editor) { e.img[64] = 0 },
		"record of 127 clusters": func(e *editor) {
			e.img[64] = 127
		},
		"MFT is not FILE":      func(e *editor) { copy(e.img[e.at(e.v.mft, 0):], "BAAD") },
		"torn MFT record":      func(e *editor) { e.img[e.at(e.v.mft, 0)+510]++ },
		"MFT run beyond end":   func(e *editor) { e.attr(0, attrData, func(a []byte) { a[64+2] = 0xFF; a[64+3] = 0x7F }) },
		"MFT larger than runs": func(e *editor) { e.attr(0, attrData, func(a []byte) { le.PutUint64(a[48:], 1<<50) }) },
		"MFT ends after 2^62":  func(e *editor) { e.attr(0, attrData, func(a []byte) { le.PutUint64(a[24:], 1<<61) }) },
		"root is a file":       func(e *editor) { e.record(recordRoot, func(b []byte) { le.PutUint16(b[22:], 1) }) },
		"root is not in use":   func(e *editor) { e.record(recordRoot, func(b []byte) { le.PutUint16(b[22:], 2) }) },
		"attribute of 0 bytes": func(e *editor) { e.record(recordRoot, func(b []byte) { le.PutUint32(b[le.Uint16(b[20:])+4:], 0) }) },
		"attribute of 4 GiB": func(e *editor) {
			e.record(recordRoot, func(b []byte) { le.PutUint32(b[le.Uint16(b[20:])+4:], 0xFFFFFFF8) })
		},
		"index without root": func(e *editor) { e.attr(recordRoot, attrIndexRoot, func(a []byte) { le.PutUint32(a, 0x91) }) },
		"index blocks of 1 GiB": func(e *editor) {
			e.attr(recordRoot, attrIndexRoot, func(a []byte) { le.PutUint32(a[le.Uint16(a[20:])+8:], 1<<30) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := edit(t)
			change(e)
			if v, err := Open(bytes.NewReader(e.img), int64(len(e.img))); err == nil {
				t.Errorf("accepted: %+v", v)
			} else {
				t.Log(err)
			}
		})
	}
}

// entryAt finds the bytes of a directory's entry in its index blocks; big has several.
func (e *editor) entryAt(dir, name string, change func(entry []byte)) {
	d, err := e.v.directory(fileRef(e.number(dir)))
	if err != nil {
		e.t.Fatal(err)
	}
	for vcn := int64(0); vcn*d.vcnBytes < d.alloc.size; vcn += d.blockBytes / d.vcnBytes {
		node, err := d.block(vcn)
		if err != nil {
			continue
		}
		for p := le.Uint32(node); le.Uint16(node[p+12:])&2 == 0; p += uint32(le.Uint16(node[p+8:])) {
			if n, err := parseFileName(node[p+16:]); err == nil && decodeUTF16(n.name) == name {
				e.block(e.at(d.alloc, vcn*d.vcnBytes), d.blockBytes, func(b []byte) { change(b[24+p:]) })
				return
			}
		}
	}
	e.t.Fatalf("%s is not in an index block of %s", name, dir)
}

// TestReadsRefuse changes what a path depends on: the error must be about damage, never absence or other contents.
func TestReadsRefuse(t *testing.T) {
	const big = "big/a file with a long name 250.dat"
	const inBig = "a file with a long name 250.dat"
	loop := func(e *editor) { // an inner block of big has itself as its only child
		d, err := e.v.directory(fileRef(e.number("big")))
		if err != nil {
			e.t.Fatal(err)
		}
		top := int64(-1)
		if err := d.node(d.root, func(_ *entry, child int64) (bool, error) { top = child; return true, nil }); err != nil || top < 0 {
			e.t.Fatal("the root of big has no child", err)
		}
		e.block(e.at(d.alloc, top*d.vcnBytes), d.blockBytes, func(b []byte) {
			for node, p := b[24:], le.Uint32(b[24:]); ; p += uint32(le.Uint16(node[p+8:])) {
				if le.Uint16(node[p+12:])&1 == 0 {
					e.t.Fatal("the child of the root of big is a leaf")
				}
				le.PutUint64(node[p+uint32(le.Uint16(node[p+8:]))-8:], uint64(top))
				if le.Uint16(node[p+12:])&2 != 0 {
					return
				}
			}
		})
	}
	wof := func(change func(data []byte)) func(e *editor) {
		return func(e *editor) {
			rec, err := e.v.record(fileRef(e.number("wof/xpress4k")))
			if err != nil {
				e.t.Fatal(err)
			}
			s, err := rec.stream(attrData, wofStream)
			if err != nil {
				e.t.Fatal(err)
			}
			at := e.at(s, 0)
			change(e.img[at : at+s.size])
		}
	}
	data := func(name string, change func(a []byte)) func(e *editor) {
		return func(e *editor) { e.attr(e.number(name), attrData, change) }
	}
	for name, c := range map[string]struct {
		path   string
		change func(e *editor)
	}{
		"stale reference":   {"small.txt", func(e *editor) { e.record(e.number("small.txt"), func(b []byte) { b[16]++ }) }},
		"deleted record":    {"small.txt", func(e *editor) { e.record(e.number("small.txt"), func(b []byte) { b[22] = 0 }) }},
		"other name":        {"small.txt", func(e *editor) { e.attr(e.number("small.txt"), attrFileName, func(a []byte) { a[24+66] = 'X' }) }},
		"other parent":      {"small.txt", func(e *editor) { e.attr(e.number("small.txt"), attrFileName, func(a []byte) { a[24] = 77 }) }},
		"no data":           {"small.txt", func(e *editor) { e.attr(e.number("small.txt"), attrData, func(a []byte) { a[0] = 0xE0 }) }},
		"run beyond end":    {"hard.txt", data("hard.txt", func(a []byte) { copy(a[64:], "\x31\x03\xFF\xFF\x7F\x00") })},
		"run before start":  {"hard.txt", data("hard.txt", func(a []byte) { copy(a[64:], "\x31\x03\xFF\xFF\xFF\x00") })},
		"run of 0 clusters": {"hard.txt", data("hard.txt", func(a []byte) { copy(a[64:], "\x11\x00\x10\x00") })},
		"run of 2^63":       {"hard.txt", data("hard.txt", func(a []byte) { copy(a[64:], "\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F\x10") })},
		"runs too short":    {"hard.txt", data("hard.txt", func(a []byte) { a[64] = 0 })},
		"larger than runs":  {"hard.txt", data("hard.txt", func(a []byte) { le.PutUint64(a[48:], 1<<40) })},
		"EFS":               {"hard.txt", data("hard.txt", func(a []byte) { le.PutUint16(a[12:], flagEncrypted) })},
		"compression 2":     {"comp/text", data("comp/text", func(a []byte) { a[12] = 2 })},
		"unit of 2^63":      {"comp/text", data("comp/text", func(a []byte) { a[34] = 63 })},
		"LZNT1 garbage": {"comp/text", func(e *editor) {
			rec, _ := e.v.record(fileRef(e.number("comp/text")))
			s, err := rec.stream(attrData, "")
			if err != nil {
				e.t.Fatal(err)
			}
			at := e.at(s, 0)
			copy(e.img[at:], bytes.Repeat([]byte{0xFF}, 64))
		}},
		"WOF table":       {"wof/xpress4k", wof(func(b []byte) { le.PutUint32(b, 1<<31) })},
		"WOF table order": {"wof/xpress4k", wof(func(b []byte) { le.PutUint32(b[4:], 1) })},
		"WOF code":        {"wof/xpress4k", wof(func(b []byte) { clear(b[32:300]) })},
		"WOF stream gone": {"wof/xpress4k", func(e *editor) {
			e.attrs(e.number("wof/xpress4k"), func(attrs [][]byte) [][]byte {
				return slices.DeleteFunc(attrs, func(a []byte) bool { return le.Uint32(a) == attrData && a[9] != 0 })
			})
		}},
		"WOF provider":    {"wof/xpress4k", func(e *editor) { e.attr(e.number("wof/xpress4k"), attrReparse, func(a []byte) { a[24+12] = 1 }) }},
		"WOF compression": {"wof/xpress4k", func(e *editor) { e.attr(e.number("wof/xpress4k"), attrReparse, func(a []byte) { a[24+20] = 9 }) }},
		"index loop":      {"big/zzz", loop},
		"torn index":      {big, func(e *editor) { e.entryAt("big", inBig, func(b []byte) {}); e.tear("big") }},
		"entry of 0 bytes": {big, func(e *editor) {
			e.entryAt("big", inBig, func(b []byte) { le.PutUint16(b[8:], 0) })
		}},
		"entry too long": {big, func(e *editor) { e.entryAt("big", inBig, func(b []byte) { le.PutUint16(b[8:], 0xFFF8) }) }},
		"key too long":   {big, func(e *editor) { e.entryAt("big", inBig, func(b []byte) { le.PutUint16(b[10:], 0xFFF8) }) }},
		"name too long":  {big, func(e *editor) { e.entryAt("big", inBig, func(b []byte) { b[16+64] = 255 }) }},
		"out of order":   {big, func(e *editor) { e.entryAt("big", inBig, func(b []byte) { b[16+66] = 'z' }) }},
		"foreign entry":  {big, func(e *editor) { e.entryAt("big", inBig, func(b []byte) { b[16]++ }) }},
		"record 2^47":    {big, func(e *editor) { e.entryAt("big", inBig, func(b []byte) { b[5] = 0x80 }) }},
		"no last entry": {big, func(e *editor) {
			e.entryAt("big", inBig, func(b []byte) { le.PutUint16(b[8:], le.Uint16(b[8:])+8) })
		}},
		"list to another file": {"fragmented", func(e *editor) {
			x := e.scatter("fragmented", 0)
			e.record(x[2], func(b []byte) { le.PutUint64(b[32:], 77) })
		}},
		"list with a gap": {"fragmented", func(e *editor) {
			x := e.scatter("fragmented", 0)
			e.attr(x[2], attrData, func(a []byte) { le.PutUint64(a[16:], le.Uint64(a[16:])+1) })
		}},
		"list of 0-byte entries": {"fragmented", func(e *editor) {
			e.scatter("fragmented", 0)
			e.attr(e.number("fragmented"), attrList, func(a []byte) { le.PutUint16(a[24+4:], 0) })
		}},
		"list of 1 GiB": {"fragmented", func(e *editor) {
			e.scatter("fragmented", e.freeCluster())
			e.attr(e.number("fragmented"), attrList, func(a []byte) {
				le.PutUint64(a[48:], 1<<30)
				le.PutUint64(a[24:], 1<<18-1)
				copy(a[64:], "\x03\x00\x00\x04\x00") // one hole
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := edit(t)
			c.change(e)
			v, err := Open(bytes.NewReader(e.img), int64(len(e.img)))
			if err != nil {
				t.Fatalf("the volume does not open: %v", err)
			}
			b, err := v.FS().ReadFile(c.path)
			if err == nil {
				t.Fatalf("read %d bytes", len(b))
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("taken for absence: %v", err)
			}
			t.Log(err)
		})
	}
}

// tear makes the first sector of every index block of a directory look half-written.
func (e *editor) tear(dir string) {
	d, err := e.v.directory(fileRef(e.number(dir)))
	if err != nil {
		e.t.Fatal(err)
	}
	for off := int64(0); off < d.alloc.size; off += d.blockBytes {
		e.img[e.at(d.alloc, off)+510]++
	}
}

// TestDirectoryCycle lets a directory contain one of its own parents, under a name and under "..": walking must end.
func TestDirectoryCycle(t *testing.T) {
	for _, name := range []string{"System32", ".."} {
		e := edit(t)
		up := e.number("Windows")
		// The only entry of Windows/System32 is config: let it be Windows, with a matching second $FILE_NAME.
		sys := e.number("Windows/System32")
		e.attr(sys, attrIndexRoot, func(a []byte) {
			node := a[le.Uint16(a[20:])+16:]
			en := node[le.Uint32(node):]
			copy(en[:6], []byte{byte(up), byte(up >> 8), 0, 0, 0, 0})
			copy(en[6:8], []byte{0, 0})
		})
		e.attrs(up, func(attrs [][]byte) [][]byte {
			v := make([]byte, 66+2*6)
			le.PutUint64(v, uint64(sys))
			v[64], v[65] = 6, 1
			for i, c := range "config" {
				le.PutUint16(v[66+2*i:], uint16(c))
			}
			return slices.Insert(attrs, 2, resident(attrFileName, 50, v))
		})
		if name == ".." {
			e.attr(sys, attrIndexRoot, func(a []byte) {
				node := a[le.Uint16(a[20:])+16:]
				en := node[le.Uint32(node):]
				en[16+64] = 2
				copy(en[16+66:], ".\x00.\x00")
			})
		}
		v := open(t, e.img)
		seen := 0
		err := fs.WalkDir(v.FS(), ".", func(p string, d fs.DirEntry, err error) error {
			if seen++; seen > 5000 {
				t.Fatal("walking does not end")
			}
			if err == nil && strings.Contains(p, "..") {
				t.Errorf("walked %q", p)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if _, err := v.FS().Stat("Windows/System32/config/System32"); err == nil {
			t.Error("a directory was reached twice")
		}
	}
}

// TestSparseHuge: a file of 4 EiB that is one hole is read without memory for it, and not at once.
func TestSparseHuge(t *testing.T) {
	e := edit(t)
	e.attr(e.number("hard.txt"), attrData, func(a []byte) {
		le.PutUint64(a[24:], 1<<50-1)
		le.PutUint64(a[48:], 1<<62)
		le.PutUint64(a[56:], 1<<62)
		copy(a[64:], "\x07\x00\x00\x00\x00\x00\x00\x04")
	})
	f := open(t, e.img).FS()
	if _, err := f.ReadFile("hard.txt"); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	o, err := f.Open("hard.txt")
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte{1}, 100)
	if n, err := o.(io.ReaderAt).ReadAt(b, 1<<61); n != 100 || err != nil || !bytes.Equal(b, make([]byte, 100)) {
		t.Error(n, err)
	}
}

// exercise does with a volume what Berth does, and whatever it finds: nothing may panic, hang or need much memory.
func exercise(r io.ReaderAt, size int64) {
	v, err := Open(r, size)
	if err != nil {
		return
	}
	v.Info()
	folder := map[string]int{}
	count := 0
	b := make([]byte, 6000)
	fs.WalkDir(v.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if count++; count > 200 {
			return fs.SkipAll
		}
		if err != nil || d == nil {
			return nil
		}
		if folder[path.Dir(p)]++; folder[path.Dir(p)] > 20 {
			return fs.SkipDir
		}
		d.Info()
		if d.IsDir() {
			return nil
		}
		v.Extents(p)
		f, err := v.FS().Open(p)
		if err != nil {
			return nil
		}
		f.(io.ReaderAt).ReadAt(b, 0)
		if i, err := f.Stat(); err == nil {
			f.(io.ReaderAt).ReadAt(b, i.Size()-int64(len(b)/2))
		}
		return nil
	})
	for _, p := range []string{"small.txt:stream", "big/A FILE WITH A LONG NAME 99.DAT", "Windows/System32/config/SAM", "junction/x"} {
		fs.Stat(v.FS(), p)
	}
}

// patched is the sample volume with bytes of its own over it.
type patched struct{ patches map[int64]byte }

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := bytes.NewReader(sample()).ReadAt(b, off)
	for at, c := range p.patches { // a few at most
		if at >= off && at < off+int64(n) {
			b[at-off] = c
		}
	}
	return n, err
}

// targets are the ranges of the sample that hold structures: the boot sector, the MFT, index blocks, WOF and LZNT1 data.
func targets(t testing.TB) [][2]int64 {
	v := open(t, sample())
	list := [][2]int64{{0, 512}}
	add := func(s *stream) {
		for _, r := range s.runs {
			if r.lcn >= 0 {
				list = append(list, [2]int64{r.lcn * v.clusterBytes, r.n * v.clusterBytes})
			}
		}
	}
	add(v.mft)
	for _, n := range []string{"big", "comp/text", "comp/mixed"} {
		i, err := v.FS().Stat(n)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := v.record(fileRef(i.Sys().(*Entry).Record))
		if err != nil {
			t.Fatal(err)
		}
		if i.IsDir() {
			d, err := rec.index()
			if err != nil {
				t.Fatal(err)
			}
			add(d.alloc)
			continue
		}
		s, err := rec.stream(attrData, "")
		if err != nil {
			t.Fatal(err)
		}
		add(s)
	}
	return list
}

// apply reads patches of 5 bytes: target, offset in it (3 bytes, wrapping), value.
func apply(list [][2]int64, data []byte) patched {
	p := patched{map[int64]byte{}}
	for ; len(data) >= 5 && len(p.patches) < 256; data = data[5:] {
		t := list[int(data[0])%len(list)]
		off := int64(data[1]) | int64(data[2])<<8 | int64(data[3])<<16
		p.patches[t[0]+off%t[1]] = data[4]
	}
	return p
}

func FuzzVolume(f *testing.F) {
	list := targets(f)
	f.Add([]byte{})
	f.Add([]byte{0, 13, 0, 0, 0x81})                    // cluster size
	f.Add([]byte{0, 48, 0, 0, 0xFF, 0, 64, 0, 0, 0xF0}) // MFT elsewhere, small records
	f.Add([]byte{1, 24, 0, 0, 0xFF, 1, 25, 0, 0, 0xFF}) // bytes in use of $MFT
	f.Add([]byte{1, 0, 0x14 * 4, 0, 'X'})
	f.Add([]byte{2, 16, 0, 0, 9, 2, 24, 0, 0, 0xFF})
	r := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		b := make([]byte, 5*(1+r.IntN(12)))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		exercise(apply(list, data), int64(len(sample())))
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

// TestMutants does what FuzzVolume does, with structure-aware mutants: they keep their update sequences right.
func TestMutants(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	e := edit(t)
	n := e.v.mft.size / e.v.recordBytes
	for range 300 {
		for _, run := range e.v.mft.runs {
			from, to := run.lcn*e.v.clusterBytes, (run.lcn+run.n)*e.v.clusterBytes
			copy(e.img[from:to], sample()[from:to])
		}
		for range 1 + r.IntN(4) {
			rec := r.Int64N(min(n, 90))
			if string(e.img[e.at(e.v.mft, rec*e.v.recordBytes):][:4]) != "FILE" {
				continue
			}
			e.record(rec, func(b []byte) {
				for range 1 + r.IntN(6) {
					// Mostly small values and all ones, where the bugs are.
					b[8+r.IntN(400)] = []byte{0, 1, 2, 0x7F, 0x80, 0xFF, byte(r.Uint32())}[r.IntN(7)]
				}
				// The update-sequence array itself stays: the reader would stop there.
				le.PutUint16(b[4:], 48)
				le.PutUint16(b[6:], 3)
			})
		}
		exercise(bytes.NewReader(e.img), int64(len(e.img)))
	}
}
