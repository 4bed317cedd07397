package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"www.velocidex.com/golang/regparser"

	"berth/internal/windows"
	"berth/testdata/hostile"
)

// apply puts patches over a copy of a file.
func apply(t testing.TB, file []byte, patches []Patch) []byte {
	t.Helper()
	out := bytes.Clone(file)
	last := int64(-1)
	for _, p := range patches {
		if p.Off <= last || p.Off+int64(len(p.Data)) > int64(len(out)) {
			t.Fatalf("patch of %d bytes at %#x after %#x in a file of %#x", len(p.Data), p.Off, last, len(out))
		}
		last = p.Off + int64(len(p.Data)) - 1
		copy(out[p.Off:], p.Data)
	}
	return out
}

// Edits of a real SYSTEM whose logs have to go into the file first; hivex reads the result as it should be.
func TestPatchRealHive(t *testing.T) {
	b := realHive(t, "SYSTEM_B")
	before := bytes.Clone(b)
	h := openBytes(t, b, logOf("LOG1", realHive(t, "SYSTEM_B.LOG1")), logOf("LOG2", realHive(t, "SYSTEM_B.LOG2")))
	want, _ := wholeTree(t, h)
	const power = `ControlSet001\Control\Session Manager\Power`
	const manager = `ControlSet001\Control\Session Manager`
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	edits := []Edit{
		{Key: `ControlSet001\Services\storahci`, Value: NewDWORD("start", 0)},
		{Key: power, Value: NewDWORD("HiberbootEnabled", 0), At: at},
		{Key: `ControlSet001\Control\ComputerName\ComputerName`, Value: NewSZ("ComputerName", strings.Repeat("BERTH", 20))},
		{Key: manager, Value: windows.Value{Name: "Added", Type: windows.RegBinary, Data: bytes.Repeat([]byte{7}, 3000)}},
		{Key: `Setup`, Value: NewDWORD("", 5)},
		{Key: manager, Value: windows.Value{Name: "bootexecute"}, Delete: true},
		{Key: `Select`, Value: windows.Value{Name: "LastKnownGood"}, Delete: true, At: at},
	}
	patches, err := h.Patch(edits...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, before) {
		t.Fatal("the source was written to")
	}
	for _, x := range edits {
		k, v := want.Key(x.Key), x.Value
		old, ok := k.Value(v.Name)
		if ok {
			v.Name = old.Name
		}
		if !x.Delete {
			k.Set(v)
			continue
		}
		if !ok {
			t.Errorf("there is no %s to delete", v.Name)
		}
		k.Values = slices.DeleteFunc(k.Values, func(v windows.Value) bool { return v.Name == old.Name })
	}
	after := apply(t, b, patches)
	file := filepath.Join(t.TempDir(), "hive")
	if err := os.WriteFile(file, after, 0o600); err != nil {
		t.Fatal(err)
	}
	compareTree(t, "", want, hivexml(t, file), after)
	edited := openBytes(t, after, logOf("LOG1", realHive(t, "SYSTEM_B.LOG1")))
	if s := edited.State(); s != (State{}) {
		t.Errorf("state %+v", s)
	}
	if edited.base.seq1 != 2131 {
		t.Errorf("sequence number %d, want the one after the last entry, 2130", edited.base.seq1)
	}
	if got, _ := wholeTree(t, edited); !sameTree(got, want, map[string]time.Time{power: at, "Select": at}) {
		t.Error("another tree")
	}
	n := compareRegparser(t, "", want, regparserRoot(t, after))
	t.Logf("%d patches; regparser read %d values", len(patches), n)
}

// regparserRoot opens a hive with regparser, a reader by other people.
func regparserRoot(t testing.TB, hive []byte) *regparser.CM_KEY_NODE {
	t.Helper()
	r, err := regparser.NewRegistry(bytes.NewReader(hive))
	if err != nil {
		t.Fatal(err)
	}
	return r.OpenKey("")
}

// compareRegparser holds a tree against what regparser reads, and counts the values. It has two defects that are passed over: data of one to
// three bytes comes as four, and not all long data comes whole. Names come as they are stored.
func compareRegparser(t testing.TB, path string, n *Node, x *regparser.CM_KEY_NODE) (values int) {
	t.Helper()
	is := func(stored, name string) bool {
		return stored == name || decodeUTF16([]byte(stored)) == name || storedText([]byte(stored), true) == name
	}
	list := x.Values()
	if len(list) != len(n.Values) {
		t.Fatalf("%s: %d values, regparser reads %d", path, len(n.Values), len(list))
	}
	for i, v := range n.Values {
		values++
		got := list[i].ValueData()
		if !is(list[i].ValueName(), v.Name) || got.Type != v.Type {
			t.Errorf("%s: value %q of type %d, regparser reads %q of type %d", path, v.Name, v.Type, list[i].ValueName(), got.Type)
		}
		if int(list[i].DataSize()) != len(v.Data) || len(v.Data) <= segmentSize && len(v.Data) > 0 && !bytes.HasPrefix(got.Data, v.Data) {
			t.Errorf("%s: value %q: %x, regparser reads %x", path, v.Name, v.Data, got.Data)
		}
	}
	if len(n.Keys) == 0 {
		return values
	}
	keys := x.Subkeys()
	if len(keys) != len(n.Keys) {
		t.Fatalf("%s: %d keys, regparser reads %d", path, len(n.Keys), len(keys))
	}
	for i, k := range n.Keys {
		if !is(keys[i].Name(), k.Name) {
			t.Fatalf("%s: key %q, regparser reads %q", path, k.Name, keys[i].Name())
		}
		values += compareRegparser(t, path+`\`+k.Name, k, keys[i])
	}
	return values
}

// Any length may follow any other, in any order, and what else is in the hive stays.
func TestPatchLengths(t *testing.T) {
	lengths := []int{0, 1, 4, 5, 12, 13, 100, 4000, 5000, 16344}
	for _, from := range lengths {
		for _, to := range lengths {
			root := &Node{Name: "S"}
			k := root.Make(`a\b`)
			k.Set(windows.Value{Name: "x", Type: windows.RegBinary, Data: bytes.Repeat([]byte{1}, from)})
			k.Set(windows.Value{Name: "room", Type: windows.RegBinary, Data: bytes.Repeat([]byte{2}, 16000)})
			root.Make("other").Set(NewSZ("stays", "as it is"))
			h, b := built(t, root)
			// Room for more: free a cell and have it used.
			patches, err := h.Patch(
				Edit{Key: `a\b`, Value: windows.Value{Name: "room", Type: windows.RegBinary, Data: []byte{9}}},
				Edit{Key: `A\B`, Value: windows.Value{Name: "X", Type: windows.RegExpandSZ, Data: bytes.Repeat([]byte{3}, to)}})
			if to == 16344 && from < 16344 {
				if err == nil || !strings.Contains(err.Error(), "have to grow") {
					t.Errorf("%d to %d: %v", from, to, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%d to %d: %v", from, to, err)
			}
			k.Values = []windows.Value{
				{Name: "x", Type: windows.RegExpandSZ, Data: bytes.Repeat([]byte{3}, to)}, {Name: "room", Type: windows.RegBinary, Data: []byte{9}}}
			after := apply(t, b, patches)
			file := filepath.Join(t.TempDir(), "hive")
			if err := os.WriteFile(file, after, 0o600); err != nil {
				t.Fatal(err)
			}
			compareTree(t, fmt.Sprint(from, " to ", to), root, hivexml(t, file), after)
		}
	}
}

// Values are added until the hive is full, and then the edit is refused.
func TestPatchAddsUntilFull(t *testing.T) {
	root := &Node{Name: "S"}
	root.Make("empty")
	_, b := built(t, root)
	n := 0
	for ; ; n++ {
		name := fmt.Sprintf("value %d ж", n)
		patches, err := openBytes(t, b).Patch(Edit{Key: "empty", Value: NewSZ(name, name)})
		if err != nil {
			if !strings.Contains(err.Error(), "have to grow") {
				t.Fatal(err)
			}
			break
		}
		b = apply(t, b, patches)
		root.Key("empty").Set(NewSZ(name, name))
	}
	if n < 20 {
		t.Errorf("only %d values fit in a page", n)
	}
	file := filepath.Join(t.TempDir(), "hive")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	compareTree(t, "", root, hivexml(t, file), b)
	if _, err := newEditor(openBytes(t, b)); err != nil {
		t.Errorf("the cells: %v", err)
	}
}

func TestPatchRefuses(t *testing.T) {
	tree := &Node{Name: "S"}
	tree.Make("k").Set(windows.Value{Name: "long", Data: make([]byte, 20000)})
	h, b := built(t, tree)
	for want, x := range map[string]Edit{
		"file does not exist": {Key: "absent", Value: NewDWORD("v", 1)},
		"at most 16344":       {Key: "k", Value: windows.Value{Name: "v", Data: make([]byte, 16345)}},
		"16384 characters":    {Key: "k", Value: NewDWORD(strings.Repeat("x", 16384), 1)},
	} {
		if _, err := h.Patch(x); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := h.Patch(Edit{Key: "absent", Value: NewDWORD("v", 1)}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := openBytes(t, b[:len(b)-4096]).Patch(Edit{Key: "", Value: NewDWORD("v", 1)}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a hive that is cut short: %v", err)
	}
	bad := bytes.Clone(b)
	copy(bad[baseSize:], "nibh")
	if _, err := openBytes(t, bad).Patch(Edit{Key: "", Value: NewDWORD("v", 1)}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a hive with a bad hbin: %v", err)
	}
	e, err := newEditor(openBytes(t, b))
	if err != nil {
		t.Fatal(err)
	}
	e.steps = maxSteps
	if _, err := e.edit(Edit{Key: "k", Value: NewDWORD("more", 1)}); err == nil || !strings.Contains(err.Error(), "too many for so many edits") {
		t.Errorf("work without end: %v", err)
	}
	dirty, _ := dirtyHive(t)
	if _, err := openBytes(t, dirty).Patch(Edit{Key: "k", Value: NewDWORD("v", 1)}); err == nil || !strings.Contains(err.Error(), "not cleanly closed") {
		t.Errorf("a stale hive: %v", err)
	}
	log := appendEntry(newLog(dirty, kindEntries, 60), 60, 2*pageSize)
	if _, err := openBytes(t, dirty, logOf("A", log)).Patch(Edit{Key: "k", Value: NewDWORD("v", 1)}); err == nil || !strings.Contains(err.Error(), "its file has") {
		t.Errorf("a hive that grew: %v", err)
	}
}

// Values are deleted from keys that have one, several, none: the list shrinks, cells are freed and wiped, and nothing else changes.
func TestPatchDeletes(t *testing.T) {
	secret := bytes.Repeat([]byte("s3cret-"), 20)
	tree := func() *Node {
		root := &Node{Name: "S"}
		k := root.Make(`a\b`)
		k.Set(NewSZ("first", "one"))
		k.Set(windows.Value{Name: "second", Type: windows.RegBinary, Data: secret})
		k.Set(NewDWORD("third", 3))
		k.Set(windows.Value{Name: "long", Type: windows.RegBinary, Data: bytes.Repeat(secret, 300)})
		root.Make("one").Set(NewSZ("", "only"))
		root.Make("other").Set(NewSZ("stays", "as it is"))
		return root
	}
	for _, names := range [][]string{{"first"}, {"second"}, {"THIRD"}, {"long"}, {"first", "second"}, {"long", "third", "second", "first"}, {"absent", "second"}} {
		want := tree()
		h, b := built(t, want)
		stamped, _ := wholeTree(t, h)
		at := time.Date(2026, 11, 23, 8, 0, 0, 100, time.UTC)
		var edits []Edit
		k := want.Key(`a\b`)
		for _, n := range names {
			edits = append(edits, Edit{Key: `A\B`, Value: windows.Value{Name: n}, Delete: true, At: at})
			k.Values = slices.DeleteFunc(k.Values, func(v windows.Value) bool { return EqualNames(v.Name, n) })
		}
		edits = append(edits, Edit{Key: "one", Delete: true})
		want.Key("one").Values = nil
		after := apply(t, b, mustPatch(t, openBytes(t, b), edits...))
		file := filepath.Join(t.TempDir(), "hive")
		if err := os.WriteFile(file, after, 0o600); err != nil {
			t.Fatal(err)
		}
		compareTree(t, fmt.Sprint(names), want, hivexml(t, file), after)
		compareRegparser(t, "", want, regparserRoot(t, after))
		stamped.Key(`a\b`).Values, stamped.Key("one").Values = k.Values, nil
		h = openBytes(t, after)
		if got, _ := wholeTree(t, h); !sameTree(got, stamped, map[string]time.Time{`a\b`: at}) {
			t.Errorf("%v: the tree is not as it should be", names)
		}
		if slices.Contains(names, "second") && slices.Contains(names, "long") && bytes.Contains(after, []byte("s3cret")) {
			t.Errorf("%v: what was deleted is still in the file", names)
		}
		freed, err := newEditor(h)
		if err != nil {
			t.Fatal(err)
		}
		before, err := newEditor(openBytes(t, b))
		if err != nil {
			t.Fatal(err)
		}
		if freeBytes(freed) <= freeBytes(before) {
			t.Errorf("%v: %d bytes free after %d", names, freeBytes(freed), freeBytes(before))
		}
		for i, f := range freed.free[1:] {
			if last := freed.free[i]; int64(last.off)+last.size == int64(f.off) {
				t.Errorf("%v: two free cells at %#x that should be one", names, f.off)
			}
		}
	}
}

func freeBytes(e *editor) (n int64) {
	for _, f := range e.free {
		n += f.size
	}
	return n
}

func mustPatch(t testing.TB, h *Hive, edits ...Edit) []Patch {
	t.Helper()
	patches, err := h.Patch(edits...)
	if err != nil {
		t.Fatal(err)
	}
	return patches
}

// sameTree compares trees with their times; written are the keys, by path, that have another time than in want.
func sameTree(got, want *Node, written map[string]time.Time) bool {
	var same func(path string, a, b *Node) bool
	same = func(path string, a, b *Node) bool {
		at := b.LastWrite
		if w, ok := written[path]; ok {
			at = w
		}
		if !a.LastWrite.Equal(at) || len(a.Values) != len(b.Values) || len(a.Keys) != len(b.Keys) || a.Name != b.Name {
			return false
		}
		for i, v := range a.Values {
			if w := b.Values[i]; v.Name != w.Name || v.Type != w.Type || !bytes.Equal(v.Data, w.Data) {
				return false
			}
		}
		for _, x := range a.Keys {
			y := b.Key(x.Name)
			if y == nil || !same(strings.TrimPrefix(path+`\`+x.Name, `\`), x, y) {
				return false
			}
		}
		return true
	}
	return same("", got, want)
}

// What is already as it should be needs no patch, and a dirty hive's logs are put into its file even then.
func TestPatchOfNothing(t *testing.T) {
	root := &Node{Name: "S"}
	root.Make("k").Set(NewDWORD("v", 1))
	h, _ := built(t, root)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if p := mustPatch(t, h, Edit{Key: "k", Value: NewDWORD("V", 1), At: at}, Edit{Key: "k", Value: windows.Value{Name: "x"}, Delete: true, At: at},
		Edit{Key: "absent", Delete: true, At: at}); p != nil {
		t.Errorf("%d patches", len(p))
	}
	b, page := dirtyHive(t)
	log := appendEntry(newLog(b, kindEntries, 50), 50, pageSize, page(9))
	after := apply(t, b, mustPatch(t, openBytes(t, b, logOf("LOG1", log))))
	if h := openBytes(t, after); h.State() != (State{}) || valueOf(t, h) != 9 {
		t.Errorf("%+v", h.State())
	}
}

// An edited hive that Windows then fails to close is not set back by the logs from before: not by entries that were applied, not by
// those that a clean hive never looked at, and not by logs of either kind.
func TestOldLogsDoNotUndoEdits(t *testing.T) {
	dirty, page := dirtyHive(t)
	clean := bytes.Clone(dirty)
	le.PutUint32(clean[4:], 50)
	le.PutUint32(clean[508:], baseChecksum(clean))
	entries := func(first uint32, values ...byte) []byte {
		l := newLog(dirty, kindEntries, first)
		for i, v := range values {
			l = appendEntry(l, first+uint32(i), pageSize, page(v))
		}
		return l
	}
	old := newLog(dirty, 1, 51)
	old = append(old, "DIRT\xff"...)
	old = append(old, make([]byte, sectorSize-5)...)
	old = append(old, page(7).data...)
	for name, c := range map[string]struct {
		hive []byte
		logs []Log
	}{
		"applied":                   {dirty, []Log{logOf("LOG1", entries(50, 2, 3)), logOf("LOG2", entries(52, 4, 5))}},
		"of a clean hive, earlier":  {clean, []Log{logOf("LOG1", entries(40, 2, 3))}},
		"of a clean hive, later":    {clean, []Log{logOf("LOG1", entries(900, 2, 3)), logOf("LOG2", entries(52, 4, 5))}},
		"of a clean hive, its own":  {clean, []Log{logOf("LOG1", entries(50, 2)), logOf("LOG2", entries(51, 4))}},
		"from before Windows 8.1":   {dirty, []Log{logOf("LOG", old)}},
		"of both kinds":             {clean, []Log{logOf("LOG", old), logOf("LOG1", entries(50, 2))}},
		"around the highest number": {clean, []Log{logOf("LOG1", entries(0xffffffff, 2, 3))}},
	} {
		t.Run(name, func(t *testing.T) {
			h := openBytes(t, c.hive, c.logs...)
			if s := h.State(); s.Dirty != (c.hive[4] != c.hive[8]) || s.Stale {
				t.Fatalf("%+v", s)
			}
			fixed := apply(t, c.hive, mustPatch(t, h, Edit{Key: "k", Value: NewDWORD("v", 77)}))
			h = openBytes(t, fixed, c.logs...)
			if h.State() != (State{}) || valueOf(t, h) != 77 {
				t.Errorf("%+v, value %d", h.State(), valueOf(t, h))
			}
			// Windows counts the first up, writes, and loses its power before it counts the second up.
			le.PutUint32(fixed[4:], le.Uint32(fixed[4:])+1)
			le.PutUint32(fixed[508:], baseChecksum(fixed))
			h = openBytes(t, fixed, c.logs...)
			if s := h.State(); s.Entries != 0 || valueOf(t, h) != 77 {
				t.Errorf("%+v, value %d", s, valueOf(t, h))
			}
		})
	}
}

// A hive in which two owners have one cell is not edited: an edit of the one would be an edit of the other.
func TestPatchRefusesSharedCells(t *testing.T) {
	for name, spoil := range map[string]func(s spot){
		"two values of one record": func(s spot) { copy(s.at(s.key(`A\B\C`).valueSet)[4:8], s.at(s.key(`A\B\C`).valueSet)[:4]) },
		"values of two keys": func(s spot) {
			d := s.at(s.key("A").off)
			le.PutUint32(d[40:], s.key(`A\B\C`).valueSet)
		},
		"data of two values": func(s spot) {
			le.PutUint32(s.value("A", "long")[4:], 8)
			le.PutUint32(s.value("A", "long")[8:], le.Uint32(s.value(`A\B\C`, "text")[8:]))
		},
		"5 bytes in the place of an offset": func(s spot) { le.PutUint32(s.value(`A\B\C`, "small")[4:], 0x80000005) },
		"data longer than its cell":         func(s spot) { le.PutUint32(s.value(`A\B\C`, "text")[4:], segmentSize) },
		"a segment that is a short cell": func(s spot) {
			l := s.at(le.Uint32(s.at(le.Uint32(s.value("A", "long")[8:]))[4:]))
			le.PutUint32(l, le.Uint32(s.value(`A\B\C`, "text")[8:]))
			le.PutUint32(s.value(`A\B\C`, "text")[4:], resident)
		},
		"data that is a key": func(s spot) { le.PutUint32(s.value(`A\B\C`, "text")[8:], s.key("E").off) },
		"data in the middle of a key": func(s spot) {
			le.PutUint32(s.value(`A\B\C`, "text")[8:], s.key("E").off+8)
			le.PutUint32(s.at(s.key("E").off)[4:], 0xfffffff0)
		},
		"data that is a security descriptor": func(s spot) {
			le.PutUint32(s.value(`A\B\C`, "text")[8:], le.Uint32(s.at(s.key("E").off)[44:]))
		},
		"a segment twice": func(s spot) {
			l := s.at(le.Uint32(s.at(le.Uint32(s.value("A", "long")[8:]))[4:]))
			copy(l[4:8], l[:4])
		},
		"a list of keys of two keys": func(s spot) {
			d := s.at(s.key("E").off)
			le.PutUint32(d[20:], 1)
			le.PutUint32(d[28:], s.key("A").list)
		},
		"a class that is a value": func(s spot) {
			d := s.at(s.key("E").off)
			le.PutUint16(d[74:], 4)
			le.PutUint32(d[48:], le.Uint32(s.at(s.key(`A\B\C`).valueSet)))
		},
		"a list below ri twice": func(s spot) {
			l := s.at(s.key("Many").list)
			copy(l[8:12], l[4:8])
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, b := built(t, victim(t))
			mustPatch(t, h, Edit{Key: "E", Value: NewDWORD("v", 1)})
			spoil(spot{t, h, b})
			if _, err := openBytes(t, b).Patch(Edit{Key: "E", Value: NewDWORD("v", 1)}); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
		})
	}
}

// FuzzPatch edits hives of which nothing is known: the answer is an error, or patches that leave a clean hive in which nothing but the
// edited value changed.
func FuzzPatch(f *testing.F) {
	whole := victim(f)
	whole.Key("Many").Keys = whole.Key("Many").Keys[:10]
	whole.Key("A").Set(windows.Value{Name: "long", Data: make([]byte, 17000)})
	_, b := built(f, whole)
	f.Add(b, -1, uint32(0), `A\B\C`, "text", []byte("some longer text than there was"), false)
	f.Add(b, -1, uint32(0), `A\B\C`, "text", []byte{}, true)
	f.Add(b, -1, uint32(0), "A", "long", []byte{1}, true)
	f.Add(b, -1, uint32(0), "E", "", bytes.Repeat([]byte{3}, 900), false)
	for at := baseSize + binHeader; at < baseSize+1200; at += 44 {
		f.Add(b, at, uint32(0xffffffe0), `A\B\C`, "small", []byte("12345"), at%8 == 0)
	}
	f.Add(b, math.MaxInt, uint32(0), "E", "", []byte{}, false)
	// A value that cannot be read, and is to be removed: 5 bytes in the place of an offset, and more than its cell has.
	size := func(name string) int { return bytes.Index(b, []byte(name)) - valueSize + 4 }
	f.Add(b, size("small"), uint32(resident|5), `A\B\C`, "small", []byte{}, true)
	f.Add(b, size("text"), uint32(segmentSize), `A\B\C`, "text", []byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, at int, v uint32, path, name string, data []byte, remove bool) {
		if at >= 0 && at <= len(b)-4 && len(b) >= baseSize {
			b = bytes.Clone(b)
			le.PutUint32(b[at:], v)
			le.PutUint32(b[508:], baseChecksum(b))
		}
		if len(b) > 1<<20 {
			return
		}
		h, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		x := Edit{Key: path, Value: windows.Value{Name: name, Type: windows.RegBinary, Data: data}, Delete: remove}
		var patches []Patch
		hostile.Bounded(t, int64(len(b)), func() { patches, err = h.Patch(x) })
		if err != nil {
			return
		}
		after := openBytes(t, apply(t, b, patches))
		if len(patches) > 0 && after.State() != (State{}) {
			t.Fatalf("not clean: %+v", after.State())
		}
		var c, d counts
		var why, why2 []error
		want, got := tree(rootOf(t, h), &c, &why), tree(rootOf(t, after), &d, &why2)
		if k := want.Key(path); k != nil && remove {
			k.Values = slices.DeleteFunc(k.Values, func(v windows.Value) bool { return EqualNames(v.Name, name) })
		} else if k != nil {
			if old, ok := k.Value(name); ok {
				x.Value.Name = old.Name
			} else {
				x.Value.Name = decodeUTF16(encodeUTF16(name)) // what is no character becomes one
			}
			k.Set(x.Value)
		}
		if !sameTree(got, want, nil) || c.bad != d.bad {
			t.Fatalf("another tree after editing %q %q; unreadable %d, then %d", path, name, c.bad, d.bad)
		}
	})
}
