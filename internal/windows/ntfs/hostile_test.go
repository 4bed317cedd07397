package ntfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"berth/testdata/hostile"
)

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
	// A loop: a record that is only found through itself.
	img := build(t, 100)
	hostile.Bounded(t, int64(len(img)), func() {
		var damage *CorruptError
		if _, err := Open(bytes.NewReader(img), int64(len(img))); !errors.As(err, &damage) {
			t.Errorf("the extension of $MFT in the part that it describes: %v", err)
		}
	})
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
			hostile.Bounded(t, int64(len(e.img)), func() {
				if v, err := Open(bytes.NewReader(e.img), int64(len(e.img))); err == nil {
					t.Errorf("accepted: %+v", v)
				} else {
					t.Log(err)
				}
			})
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
			var b []byte
			hostile.Bounded(t, int64(len(e.img)), func() { b, err = v.FS().ReadFile(c.path) })
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

// endless is a volume of size bytes that begins with some.
type endless struct {
	begin []byte
	size  int64
}

func (r endless) ReadAt(b []byte, off int64) (int, error) {
	if off >= r.size {
		return 0, io.EOF
	}
	n := 0
	if off < int64(len(r.begin)) {
		n = copy(b, r.begin[off:])
	}
	clear(b[n:])
	return len(b), nil
}

// TestFreeSpaceOfAHugeVolume: one of 16 TiB takes a pass over 512 MiB of $Bitmap, however small its clusters are said to be.
func TestFreeSpaceOfAHugeVolume(t *testing.T) {
	const size = 16<<40 - 8*512
	e := edit(t)
	le.PutUint64(e.img[40:], size/512-1)
	e.attr(recordBitmap, attrData, func(a []byte) {
		const n = 512 << 20
		le.PutUint64(a[24:], n/4096-1)
		for _, at := range []int{40, 48, 56} { // allocated, size, valid
			le.PutUint64(a[at:], n)
		}
		copy(a[le.Uint16(a[32:]):], "\x33\x00\x00\x02\x00\x00\x10\x00")
	})
	r := endless{e.img, size}
	v, err := Open(r, size)
	if err != nil {
		t.Fatal(err)
	}
	hostile.Bounded(t, int64(len(e.img)), func() {
		if i, err := v.Info(); err != nil || i.FreeBytes != i.TotalBytes {
			t.Errorf("%+v, %v", i, err)
		}
	})
	e.img[13] = 1 // clusters of a sector
	var damage *CorruptError
	if _, err := Open(r, size); !errors.As(err, &damage) || damage.Offset != 40 {
		t.Errorf("2^35 clusters: %v", err)
	}
}
