package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/windows"
)

// built is a hive made of a tree, open.
func built(t testing.TB, n *Node) (*Hive, []byte) {
	t.Helper()
	b, err := Build(n, BuildOptions{LastWrite: stamp})
	if err != nil {
		t.Fatal(err)
	}
	return openBytes(t, b), b
}

func TestReadWhatWasBuilt(t *testing.T) {
	root, err := Parse(machineText)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range root.Keys {
		h, _ := built(t, want)
		if s := h.State(); s != (State{}) {
			t.Errorf("state %+v", s)
		}
		got, _ := wholeTree(t, h)
		var as func(n *Node)
		as = func(n *Node) { // as the hive has it: in order, with its time
			n.LastWrite = stamp
			slices.SortFunc(n.Keys, func(a, b *Node) int { return slices.Compare(upcaseUnits(a.Name), upcaseUnits(b.Name)) })
			for _, c := range n.Keys {
				as(c)
			}
		}
		as(want)
		want.Name = "ROOT"
		if !reflect.DeepEqual(got, want) {
			a, _ := Format(&Node{Keys: []*Node{got}})
			b, _ := Format(&Node{Keys: []*Node{want}})
			t.Errorf("got\n%s\nwant\n%s", a, b)
		}
	}
}

func TestDirtyWithoutLogsIsStale(t *testing.T) {
	b, err := Build(&Node{Name: "SYSTEM"}, BuildOptions{Dirty: true, FileName: `\SystemRoot\System32\Config\SYSTEM`})
	if err != nil {
		t.Fatal(err)
	}
	if s := openBytes(t, b).State(); !s.Dirty || !s.Stale || s.Entries != 0 || !strings.Contains(s.Why, "no logs were given") {
		t.Errorf("state %+v", s)
	}
}

// manyKeys is a key with n subkeys, over one list or many.
func manyKeys(n int) *Node {
	root := &Node{Name: "SOFTWARE"}
	k := root.Make("Many")
	for i := range n {
		k.Keys = append(k.Keys, &Node{Name: fmt.Sprintf("Key %d", i), Values: []windows.Value{
			{Name: "Number", Type: windows.RegDWORD, Data: le.AppendUint32(nil, uint32(i))}}})
	}
	return root
}

// asList rewrites the lh list at an offset as another kind, in its own cell.
func asList(h *Hive, b []byte, off uint32, kind string) {
	c := b[baseSize+off+cellHeader:]
	count := int(le.Uint16(c[2:]))
	copy(c, kind)
	for i := range count {
		child := le.Uint32(c[4+8*i:])
		switch kind {
		case "li":
			le.PutUint32(c[4+4*i:], child)
		case "lf":
			clear(c[8+8*i : 12+8*i])
			name := b[baseSize+child+cellHeader+keySize:]
			copy(c[8+8*i:12+8*i], name[:min(4, le.Uint16(b[baseSize+child+cellHeader+72:]))])
		}
	}
}

func TestLookupInEveryKindOfList(t *testing.T) {
	for _, n := range []int{1, 20, 1500} {
		for _, kind := range []string{"lh", "lf", "li"} {
			h, b := built(t, manyKeys(n))
			many, err := rootOf(t, h).Open("many")
			if err != nil {
				t.Fatal(err)
			}
			k := many.(*key)
			top, lists, err := h.list(k.list)
			if err != nil || (top == "ri") != (n > leafEntries) {
				t.Fatalf("%d keys: a list %s, %v", n, top, err)
			}
			if top != "ri" {
				lists = le.AppendUint32(nil, k.list)
			}
			for ; kind != "lh" && len(lists) > 0; lists = lists[4:] {
				asList(h, b, le.Uint32(lists), kind)
			}
			h = openBytes(t, b)
			if many, err = rootOf(t, h).Open("MANY"); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				c, err := many.Open(fmt.Sprintf("KEY %d", i))
				if err != nil {
					t.Fatalf("%s of %d: %v", kind, n, err)
				}
				v, err := c.Value("NUMBER")
				if err != nil {
					t.Fatal(err)
				}
				if d, err := DWORD(v); err != nil || d != uint32(i) {
					t.Errorf("%s of %d: Key %d has %d, %v", kind, n, i, d, err)
				}
			}
			for _, absent := range []string{fmt.Sprintf("Key %d", n), "Key", "Ke", "Key 0x", "ключ"} {
				if _, err := many.Open(absent); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s of %d: %q: %v", kind, n, absent, err)
				}
			}
			if names, err := many.Subkeys(); err != nil || len(names) != n {
				t.Errorf("%s of %d: %d names, %v", kind, n, len(names), err)
			}
			if d := h.State().Damaged; d != "" {
				t.Errorf("%s of %d: damaged: %s", kind, n, d)
			}
		}
	}
}

// A look-up touches the cells on its path and little more: of a hive of 9 MB it reads the lists on the way.
func TestLookupReadsLittle(t *testing.T) {
	root := manyKeys(20000)
	root.Make(`Microsoft\Windows NT\CurrentVersion`).Set(windows.Value{Name: "UBR", Type: windows.RegDWORD, Data: []byte{1, 0, 0, 0}})
	for i := range 200 {
		root.Set(windows.Value{Name: fmt.Sprint("blob", i), Type: windows.RegBinary, Data: make([]byte, 16000)})
	}
	_, b := built(t, root)
	r := &countingReader{r: strings.NewReader(string(b))}
	h, err := Open(r, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	k, err := rootOf(t, h).Open(`Microsoft\Windows NT\CurrentVersion`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Value("UBR"); err != nil {
		t.Fatal(err)
	}
	if r.bytes > 8*pageSize {
		t.Errorf("a value in %d bytes took %d bytes in %d reads", len(b), r.bytes, r.reads)
	}
	if _, err := rootOf(t, h).Open(`Many\Key 9999`); err != nil {
		t.Fatal(err)
	}
	// 20000 hashes of 8 bytes.
	if r.bytes > 60*pageSize {
		t.Errorf("one key of 20000 in %d bytes took %d bytes in %d reads", len(b), r.bytes, r.reads)
	}
	t.Logf("%d bytes in %d reads, of %d", r.bytes, r.reads, len(b))
}

// A hive is asked by several checks at once. The cache is smaller than the hive, so pages come and go.
func TestConcurrentReaders(t *testing.T) {
	root := manyKeys(3000)
	for i := range 400 {
		root.Set(windows.Value{Name: fmt.Sprint("blob", i), Type: windows.RegBinary, Data: bytes.Repeat([]byte{byte(i)}, 16000)})
	}
	h, b := built(t, root)
	if len(b) < cachedPages*pageSize {
		t.Fatalf("%d bytes fit in the cache", len(b))
	}
	top := rootOf(t, h)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := g; i < 3000; i += 7 {
				k, err := top.Open(fmt.Sprintf(`Many\Key %d`, i))
				if err != nil {
					t.Error(err)
					return
				}
				if v, err := k.Value("Number"); err != nil || le.Uint32(v.Data) != uint32(i) {
					t.Errorf("Key %d: %v, %v", i, v, err)
				}
				if v, err := top.Value(fmt.Sprint("blob", i%400)); err != nil || len(v.Data) != 16000 || v.Data[i%16000] != byte(i%400) {
					t.Errorf("blob %d: %v", i%400, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNothingIsAbsentBelowALink(t *testing.T) {
	root := &Node{Name: "SYSTEM"}
	root.Make(`Current`).Set(windows.Value{Name: "SymbolicLinkValue", Type: 6, Data: encodeUTF16(`\Registry\Machine\X`)})
	h, b := built(t, root)
	k, err := rootOf(t, h).Open("Current")
	if err != nil {
		t.Fatal(err)
	}
	b[baseSize+k.(*key).off+cellHeader+2] |= keyIsLink
	if k, err = rootOf(t, openBytes(t, b)).Open("Current"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Value("symboliclinkvalue"); err != nil {
		t.Error(err)
	}
	if _, err := k.Value("x"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("value: %v", err)
	}
	if _, err := k.Open("x"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("key: %v", err)
	}
}

func TestLastWrite(t *testing.T) {
	for _, want := range []time.Time{{}, stamp, time.Date(1601, 1, 1, 0, 0, 0, 100, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 123456700, time.UTC)} {
		h, _ := built(t, &Node{Name: "S", Keys: []*Node{{Name: "k", LastWrite: want}}})
		k, err := rootOf(t, h).Open("k")
		if err != nil {
			t.Fatal(err)
		}
		if want.IsZero() {
			want = stamp
		}
		if got := k.LastWrite(); !got.Equal(want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// NTFS carries Windows' table of capitals; mkntfs writes it.
func TestUpcaseIsWindows(t *testing.T) {
	image := filepath.Join(t.TempDir(), "ntfs")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkntfs", "-q", "-F", "-f", "-s", "512", "-p", "0", "-H", "16", "-S", "63", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	table, err := exec.Command("ntfscat", "-i", "10", image).Output()
	if err != nil || len(table) != 2<<16 {
		t.Fatalf("$UpCase: %d bytes, %v", len(table), err)
	}
	for c := range 1 << 16 {
		if got, want := upcase(uint16(c)), le.Uint16(table[2*c:]); got != want {
			t.Errorf("U+%04X: U+%04X, want U+%04X", c, got, want)
		}
	}
}

func TestEqualNames(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"Software", "SOFTWARE", true}, {"é", "É", true}, {"ключ", "КЛЮЧ", true}, {"a", "b", false}, {"a", "ab", false},
		// Unicode's rules take these for the same, Windows does not.
		{"K", "\u212a", false}, {"s", "ſ", false}, {"I", "ı", false}, {"ß", "SS", false}, {"σ", "ς", false},
	} {
		if EqualNames(c.a, c.b) != c.same || EqualNames(c.b, c.a) != c.same {
			t.Errorf("%q, %q: not %v", c.a, c.b, c.same)
		}
	}
}

func TestTypedValues(t *testing.T) {
	for _, c := range []struct {
		v    windows.Value
		want string
	}{
		{windows.Value{Type: 1, Data: encodeSZ("hello")}, "hello"},
		{windows.Value{Type: 2, Data: encodeSZ("%a%")}, "%a%"},
		{windows.Value{Type: 1, Data: encodeUTF16("no end")}, "no end"},
		{windows.Value{Type: 1, Data: encodeUTF16("one\x00two")}, "one"},
		{windows.Value{Type: 1}, ""},
	} {
		if s, err := SZ(c.v); err != nil || s != c.want {
			t.Errorf("%v: %q, %v", c.v, s, err)
		}
	}
	for _, c := range []struct {
		data string
		want []string
	}{
		{"", nil}, {"\x00", nil}, {"a\x00\x00", []string{"a"}}, {"a\x00bc\x00\x00", []string{"a", "bc"}}, {"a\x00b", []string{"a", "b"}}, {"a\x00\x00b\x00\x00", []string{"a"}},
	} {
		if s, err := MultiSZ(windows.Value{Type: 7, Data: encodeUTF16(c.data)}); err != nil || !slices.Equal(s, c.want) {
			t.Errorf("%q: %q, %v", c.data, s, err)
		}
	}
	if n, err := QWORD(windows.Value{Type: 11, Data: []byte{1, 0, 0, 0, 0, 0, 0, 1}}); err != nil || n != 1<<56+1 {
		t.Errorf("%d, %v", n, err)
	}
	for _, v := range []windows.Value{{Type: 3, Data: make([]byte, 4)}, {Type: 4, Data: make([]byte, 3)}, {Type: 4}, {Type: 11, Data: make([]byte, 4)},
		{Type: 1, Data: make([]byte, 3)}, {Type: 7, Data: make([]byte, 1)}, {Type: 5, Data: make([]byte, 4)}} {
		_, sz := SZ(v)
		_, multi := MultiSZ(v)
		_, dword := DWORD(v)
		_, qword := QWORD(v)
		if sz == nil || multi == nil || dword == nil || qword == nil {
			t.Errorf("%v was taken: %v, %v, %v, %v", v, sz, multi, dword, qword)
		}
	}
}
