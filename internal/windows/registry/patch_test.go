package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/windows"
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
	edits := []Edit{
		{`ControlSet001\Services\storahci`, NewDWORD("start", 0)},
		{`ControlSet001\Control\Session Manager\Power`, NewDWORD("HiberbootEnabled", 0)},
		{`ControlSet001\Control\ComputerName\ComputerName`, NewSZ("ComputerName", strings.Repeat("BERTH", 20))},
		{`ControlSet001\Control\Session Manager`, windows.Value{Name: "Added", Type: windows.RegBinary, Data: bytes.Repeat([]byte{7}, 3000)}},
		{`Setup`, NewDWORD("", 5)},
	}
	patches, err := h.Patch(edits...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, before) {
		t.Fatal("the source was written to")
	}
	for _, x := range edits {
		v := x.Value
		if old, ok := want.Key(x.Key).Value(v.Name); ok {
			v.Name = old.Name
		}
		want.Key(x.Key).Set(v)
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
	t.Logf("%d patches", len(patches))
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
				Edit{`a\b`, windows.Value{Name: "room", Type: windows.RegBinary, Data: []byte{9}}},
				Edit{`A\B`, windows.Value{Name: "X", Type: windows.RegExpandSZ, Data: bytes.Repeat([]byte{3}, to)}})
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
		patches, err := openBytes(t, b).Patch(Edit{"empty", NewSZ(name, name)})
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
	if e := (&editor{Hive: openBytes(t, b)}); e.scan() != nil {
		t.Error("the cells do not fill their hbins")
	}
}

func TestPatchRefuses(t *testing.T) {
	tree := &Node{Name: "S"}
	tree.Make("k").Set(windows.Value{Name: "long", Data: make([]byte, 20000)})
	h, b := built(t, tree)
	for want, x := range map[string]Edit{
		"file does not exist": {"absent", NewDWORD("v", 1)},
		"at most 16344":       {"k", windows.Value{Name: "v", Data: make([]byte, 16345)}},
		"20000 bytes now":     {"k", NewDWORD("long", 1)},
		"16384 characters":    {"k", NewDWORD(strings.Repeat("x", 16384), 1)},
	} {
		if _, err := h.Patch(x); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := h.Patch(Edit{"absent", NewDWORD("v", 1)}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := openBytes(t, b[:len(b)-4096]).Patch(Edit{"", NewDWORD("v", 1)}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a hive that is cut short: %v", err)
	}
	bad := bytes.Clone(b)
	copy(bad[baseSize:], "nibh")
	if _, err := openBytes(t, bad).Patch(Edit{"", NewDWORD("v", 1)}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a hive with a bad hbin: %v", err)
	}
	dirty, _ := dirtyHive(t)
	if _, err := openBytes(t, dirty).Patch(Edit{"k", NewDWORD("v", 1)}); err == nil || !strings.Contains(err.Error(), "not cleanly closed") {
		t.Errorf("a stale hive: %v", err)
	}
	log := appendEntry(newLog(dirty, kindEntries, 60), 60, 2*pageSize)
	if _, err := openBytes(t, dirty, logOf("A", log)).Patch(Edit{"k", NewDWORD("v", 1)}); err == nil || !strings.Contains(err.Error(), "its file has") {
		t.Errorf("a hive that grew: %v", err)
	}
}
