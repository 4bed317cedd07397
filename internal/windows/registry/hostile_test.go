package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"

	"berth/internal/windows"
	"berth/testdata/hostile"
)

// victim is a hive with one of everything, which the tests then spoil.
func victim(t testing.TB) *Node {
	t.Helper()
	root, err := Parse(`[SYSTEM\A\B\C]
"small"=dword:1
"text"="some text"
[SYSTEM\A\D]
[SYSTEM\E]`)
	if err != nil {
		t.Fatal(err)
	}
	n := root.Key("SYSTEM")
	n.Key("A").Set(windows.Value{Name: "long", Type: windows.RegBinary, Data: make([]byte, 40000)})
	many := n.Make("Many")
	for i := range 1100 {
		many.Keys = append(many.Keys, &Node{Name: fmt.Sprint("k", i)})
	}
	return n
}

// spot is a hive whose cells a test changes.
type spot struct {
	t testing.TB
	h *Hive
	b []byte
}

func (s spot) key(path string) *key {
	k, err := rootOf(s.t, s.h).Open(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return k.(*key)
}

// at is the contents of a cell.
func (s spot) at(off uint32) []byte { return s.b[baseSize+off+cellHeader:] }

// value is the contents of a value's record.
func (s spot) value(path, name string) []byte {
	v, err := s.key(path).find(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.at(v.off)
}

func TestHostileHives(t *testing.T) {
	open := func(path string) func(windows.Key) error {
		return func(k windows.Key) error { _, err := k.Open(path); return err }
	}
	list := func(path string) func(windows.Key) error {
		return func(k windows.Key) error {
			k, err := k.Open(path)
			if err == nil {
				_, err = k.Subkeys()
			}
			return err
		}
	}
	value := func(path, name string) func(windows.Key) error {
		return func(k windows.Key) error {
			k, err := k.Open(path)
			if err == nil {
				_, err = k.Value(name)
			}
			return err
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(s spot)
		ask   func(windows.Key) error
	}{
		{"a key that lists its parent", func(s spot) { le.PutUint32(s.at(s.key(`A\B`).list)[4:], s.key("A").off) }, list(`A\B`)},
		{"a key that lists the root", func(s spot) { le.PutUint32(s.at(s.key(`A\B`).list)[4:], s.h.base.root) }, list(`A\B`)},
		{"a key that lists itself as its child", func(s spot) {
			b := s.key(`A\B`)
			le.PutUint32(s.at(b.list)[4:], b.off)
			le.PutUint32(s.at(b.off)[16:], b.off)
		}, list("A")},
		{"the root as its own child", func(s spot) {
			le.PutUint32(s.at(s.h.base.root)[16:], s.h.base.root)
			le.PutUint32(s.at(s.key("").list)[4:], s.h.base.root)
		}, list("")},
		{"a child twice", func(s spot) {
			l := s.at(s.key("").list)
			copy(l[12:20], l[4:12])
		}, list("")},
		{"two children of one name", func(s spot) { copy(s.at(s.key("A").off)[keySize:], "E") }, list("")},
		{"a backslash in a name", func(s spot) { copy(s.at(s.key("A").off)[keySize:], `\`) }, list("")},
		{"half a character in a name", func(s spot) { s.at(s.key("A").off)[2] &^= keyCompressed }, list("")},
		{"ri below ri", func(s spot) {
			l := s.key("Many").list
			le.PutUint32(s.at(l)[4:], l)
		}, list("Many")},
		{"ri below ri, look-up", func(s spot) {
			l := s.key("Many").list
			le.PutUint32(s.at(l)[4:], l)
		}, open(`Many\absent`)},
		{"an empty list below ri", func(s spot) {
			l := s.at(s.key("Many").list)
			le.PutUint16(s.at(le.Uint32(l[4:]))[2:], 0)
		}, open(`Many\absent`)},
		{"the same list again and again", func(s spot) {
			l := s.at(s.key("Many").list)
			for i := range int(le.Uint16(l[2:])) {
				copy(l[4+4*i:8+4*i], l[4:8])
			}
		}, list("Many")},
		{"65535 lists below ri", func(s spot) { le.PutUint16(s.at(s.key("Many").list)[2:], 0xffff) }, list("Many")},
		{"65535 in a list", func(s spot) { le.PutUint16(s.at(s.key("").list)[2:], 0xffff) }, list("")},
		{"four billion subkeys", func(s spot) { le.PutUint32(s.at(s.key("A").off)[20:], 0xffffffff) }, list("A")},
		{"more subkeys than in the list", func(s spot) { le.PutUint32(s.at(s.key("A").off)[20:], 3) }, open(`A\absent`)},
		{"fewer subkeys than in the list", func(s spot) { le.PutUint32(s.at(s.key("A").off)[20:], 1) }, open(`A\absent`)},
		{"a list of another kind", func(s spot) { copy(s.at(s.key("A").list), "xx") }, open(`A\absent`)},
		{"a list outside the hive", func(s spot) { le.PutUint32(s.at(s.key("A").off)[28:], 0x7ffffff8) }, open(`A\absent`)},
		{"a list in the base block", func(s spot) { le.PutUint32(s.at(s.key("A").off)[28:], 0xfffff000) }, open(`A\absent`)},
		{"a list in the header of an hbin", func(s spot) { le.PutUint32(s.at(s.key("A").off)[28:], 0) }, open(`A\absent`)},
		{"a list that is not aligned", func(s spot) { le.PutUint32(s.at(s.key("A").off)[28:], 0x21) }, open(`A\absent`)},
		{"a free key", func(s spot) { le.PutUint32(s.b[baseSize+s.key("E").off:], 80) }, open("E")},
		{"a cell of the smallest number", func(s spot) { le.PutUint32(s.b[baseSize+s.key("E").off:], 0x80000000) }, open("E")},
		{"a cell too small for a key", func(s spot) { le.PutUint32(s.b[baseSize+s.key("E").off:], 0xfffffff8) }, open("E")},
		{"a key of another kind", func(s spot) { copy(s.at(s.key("E").off), "vk") }, open("E")},
		{"a key without a name", func(s spot) { le.PutUint16(s.at(s.key("E").off)[72:], 0) }, list("")},
		{"a name beyond its cell", func(s spot) { le.PutUint16(s.at(s.key("E").off)[72:], 500) }, list("")},
		{"a name longer than names are", func(s spot) { le.PutUint16(s.at(s.key("E").off)[72:], 0xffff) }, list("")},
		{"four billion values", func(s spot) { le.PutUint32(s.at(s.key(`A\B\C`).off)[36:], 0xffffffff) }, value(`A\B\C`, "absent")},
		{"more values than in the list", func(s spot) { le.PutUint32(s.at(s.key(`A\B\C`).off)[36:], 100) }, value(`A\B\C`, "absent")},
		{"a value twice", func(s spot) {
			l := s.at(s.key(`A\B\C`).valueSet)
			copy(l[4:8], l[:4])
		}, func(k windows.Key) error {
			k, err := k.Open(`A\B\C`)
			if err == nil {
				_, err = k.Values()
			}
			return err
		}},
		{"a value that is a key", func(s spot) { copy(s.value(`A\B\C`, "small"), "nk") }, value(`A\B\C`, "absent")},
		{"a value's name beyond its cell", func(s spot) { le.PutUint16(s.value(`A\B\C`, "small")[2:], 30000) }, value(`A\B\C`, "small")},
		{"a value's name longer than names are", func(s spot) { le.PutUint16(s.value(`A\B\C`, "small")[2:], 0xffff) }, value(`A\B\C`, "small")},
		{"five bytes in place of an offset", func(s spot) { le.PutUint32(s.value(`A\B\C`, "small")[4:], resident|5) }, value(`A\B\C`, "small")},
		{"data beyond its cell", func(s spot) { le.PutUint32(s.value(`A\B\C`, "text")[4:], 1000) }, value(`A\B\C`, "text")},
		{"data of two gigabytes", func(s spot) { le.PutUint32(s.value(`A\B\C`, "text")[4:], 0x7fffffff) }, value(`A\B\C`, "text")},
		{"data nowhere", func(s spot) { le.PutUint32(s.value(`A\B\C`, "text")[8:], none) }, value(`A\B\C`, "text")},
		{"too few segments", func(s spot) { le.PutUint16(s.at(le.Uint32(s.value("A", "long")[8:]))[2:], 2) }, value("A", "long")},
		{"too many segments", func(s spot) { le.PutUint16(s.at(le.Uint32(s.value("A", "long")[8:]))[2:], 0xffff) }, value("A", "long")},
		{"segments nowhere", func(s spot) { le.PutUint32(s.at(le.Uint32(s.value("A", "long")[8:]))[4:], none) }, value("A", "long")},
		{"a record of itself as its segment", func(s spot) {
			db := le.Uint32(s.value("A", "long")[8:])
			le.PutUint32(s.at(le.Uint32(s.at(db)[4:])), db)
		}, value("A", "long")},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, b := built(t, victim(t))
			if err := c.ask(rootOf(t, h)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("before: %v", err)
			}
			c.spoil(spot{t, h, b})
			spoilt := openBytes(t, b)
			hostile.Bounded(t, int64(len(b)), func() {
				err := c.ask(rootOf(t, spoilt))
				if !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%v", err)
				}
				if spoilt.State().Damaged == "" {
					t.Error("State says nothing")
				}
				roam(spoilt)
			})
		})
	}
}

// roam walks a hive of any kind as far as it goes, within bounds that no sound hive of its size exceeds.
func roam(h *Hive) (keys int) {
	root, err := h.Root()
	if err != nil {
		return 0
	}
	var walk func(k windows.Key)
	walk = func(k windows.Key) {
		if keys++; int64(keys) > h.limit/8 {
			panic("more keys than the hive has room for")
		}
		_ = k.LastWrite()
		names, _ := k.Values()
		for _, n := range names[:min(len(names), 100)] {
			_, _ = k.Value(n)
		}
		names, _ = k.Subkeys()
		for _, n := range names[:min(len(names), 2000)] {
			if s, err := k.Open(n); err == nil {
				walk(s)
			}
		}
	}
	walk(root)
	return keys
}

func TestHostileBaseBlocks(t *testing.T) {
	_, b := built(t, victim(t))
	fix := func(b []byte) []byte {
		le.PutUint32(b[508:], baseChecksum(b))
		return b
	}
	for want, spoil := range map[string]func([]byte) []byte{
		"no hive":     func(b []byte) []byte { return b[:4096] },
		"not regf":    func(b []byte) []byte { b[0] = 'R'; return b },
		"version 2.5": func(b []byte) []byte { b[20] = 2; return fix(b) },
		"version 1.9": func(b []byte) []byte { b[24] = 9; return fix(b) },
		"type 6":      func(b []byte) []byte { b[28] = 6; return fix(b) },
		"format 7":    func(b []byte) []byte { b[32] = 7; return fix(b) },
	} {
		b := spoil(bytes.Clone(b))
		if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, spoil := range map[string]func([]byte) []byte{
		"checksum":            func(b []byte) []byte { b[60] ^= 1; return b },
		"the file ends at":    func(b []byte) []byte { return b[:len(b)-8192] },
		"size of the hbins":   func(b []byte) []byte { b[40] = 1; return fix(b) },
		"the hive at":         func(b []byte) []byte { b[43] = 0x40; return fix(b) },
		"size of the hbins 0": func(b []byte) []byte { copy(b[40:], "\x00\xf0\xff\xff"); return fix(b) },
	} {
		b := spoil(bytes.Clone(b))
		h, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		if s := h.State(); !strings.Contains(s.Damaged, strings.TrimSuffix(want, " 0")) {
			t.Errorf("%s: state %+v", want, s)
		}
		if n := roam(h); n < 1 {
			t.Errorf("%s: %d keys", want, n)
		}
	}
	// A base block that is torn makes a hive dirty: what its logs would say is not known.
	torn := bytes.Clone(b)
	torn[60] ^= 1
	if s := openBytes(t, torn).State(); !s.Dirty || !s.Stale {
		t.Errorf("state %+v", s)
	}
	none := bytes.Clone(b)
	le.PutUint32(none[36:], 0xfffffff0)
	if _, err := openBytes(t, fix(none)).Root(); !errors.Is(err, ErrDamaged) {
		t.Errorf("root: %v", err)
	}
}

// failing is a disk that cannot be read from an offset on.
type failing struct {
	io.ReaderAt
	from int64
}

var errDisk = errors.New("disk error")

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.from {
		return 0, errDisk
	}
	return f.ReaderAt.ReadAt(b, off)
}

// An unreadable disk is not damage of the hive, and not absence.
func TestUnreadableDisk(t *testing.T) {
	_, b := built(t, victim(t))
	for from := int64(0); from < int64(len(b)); from += pageSize {
		h, err := Open(failing{bytes.NewReader(b), from}, int64(len(b)))
		var k windows.Key
		if err == nil {
			k, err = h.Root()
		}
		if err == nil {
			_, err = k.Open(`A\B\C\absent`)
		}
		if err == nil || errors.Is(err, ErrDamaged) || !errors.Is(err, errDisk) && !errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrNotExist) && errors.Is(err, errDisk) {
			t.Fatalf("from %#x: %v", from, err)
		}
		if from == pageSize && !errors.Is(err, errDisk) {
			t.Errorf("from %#x: %v", from, err)
		}
	}
}

func FuzzHive(f *testing.F) {
	whole := victim(f)
	whole.Key("Many").Keys = whole.Key("Many").Keys[:10]
	whole.Key("A").Set(windows.Value{Name: "long", Data: make([]byte, 17000)})
	_, b := built(f, whole)
	f.Add(b, -1, uint32(0))
	small, err := Build(&Node{Name: "X", Keys: []*Node{{Name: "a", Keys: []*Node{{Name: "b"}}}}, Values: []windows.Value{{Name: "v", Data: make([]byte, 20)}}}, BuildOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small, 4096+32, uint32(0xffffffff))
	f.Add(small, 36, uint32(0x40))
	f.Add(small, math.MaxInt, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, at int, v uint32) {
		// Let the checksum be right more often than chance makes it.
		if at >= 0 && at <= len(b)-4 && len(b) >= baseSize {
			b = bytes.Clone(b)
			le.PutUint32(b[at:], v)
			le.PutUint32(b[508:], baseChecksum(b))
		}
		hostile.Bounded(t, int64(len(b)), func() {
			h, err := Open(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				roam(h)
			}
		})
	})
}
