package registry

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"berth/internal/windows"
	"berth/testdata/hostile"
)

// change is new contents for a stretch of the hbins.
type change struct {
	off  uint32
	data []byte
}

// appendEntry adds an entry to a log, with its hashes.
func appendEntry(log []byte, seq, bins uint32, changes ...change) []byte {
	e := make([]byte, entryHeader)
	copy(e, "HvLE")
	le.PutUint32(e[12:], seq)
	le.PutUint32(e[16:], bins)
	le.PutUint32(e[20:], uint32(len(changes)))
	for _, c := range changes {
		e = le.AppendUint32(e, c.off)
		e = le.AppendUint32(e, uint32(len(c.data)))
	}
	for _, c := range changes {
		e = append(e, c.data...)
	}
	for len(e)%sectorSize != 0 {
		e = append(e, 0)
	}
	le.PutUint32(e[4:], uint32(len(e)))
	hashEntry(e)
	return append(log, e...)
}

func hashEntry(e []byte) {
	m := newMarvin()
	m.write(e[entryHeader:])
	le.PutUint64(e[24:], m.sum())
	m = newMarvin()
	m.write(e[:32])
	le.PutUint64(e[32:], m.sum())
}

// newLog is the header of a log of the hive's: its base block, with another type.
func newLog(hive []byte, kind, seq uint32) []byte {
	b := bytes.Clone(hive[:logHeader])
	le.PutUint32(b[4:], seq)
	le.PutUint32(b[8:], seq)
	le.PutUint32(b[28:], kind)
	le.PutUint32(b[508:], baseChecksum(b))
	return b
}

// dirtyHive is a hive whose one value is 1, dirty with the sequence numbers 51 and 50, and the page that holds the value with n
// instead.
func dirtyHive(t testing.TB) (hive []byte, page func(n byte) change) {
	t.Helper()
	root := &Node{Name: "SYSTEM"}
	root.Make("k").Set(windows.Value{Name: "v", Type: windows.RegDWORD, Data: []byte{1, 0, 0, 0}})
	h, b := built(t, root)
	at := spot{t, h, b}.value("k", "v")
	le.PutUint32(b[4:], 51)
	le.PutUint32(b[8:], 50)
	le.PutUint32(b[508:], baseChecksum(b))
	return b, func(n byte) change {
		old := at[8]
		at[8] = n
		p := bytes.Clone(b[baseSize : baseSize+pageSize])
		at[8] = old
		return change{0, p}
	}
}

// valueOf reads the one value.
func valueOf(t testing.TB, h *Hive) uint32 {
	t.Helper()
	k, err := rootOf(t, h).Open("k")
	if err != nil {
		t.Fatal(err)
	}
	v, err := k.Value("v")
	if err != nil {
		t.Fatal(err)
	}
	n, err := DWORD(v)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLogs(t *testing.T) {
	b, page := dirtyHive(t)
	const bins = pageSize
	log := func(seq uint32) []byte { return newLog(b, kindEntries, seq) }
	entries := func(first uint32, values ...byte) []byte {
		l := log(first)
		for i, v := range values {
			l = appendEntry(l, first+uint32(i), bins, page(v))
		}
		return l
	}
	torn := entries(60, 2, 3)
	torn[len(torn)-1] ^= 1
	first, oldFirst := entries(60, 2), entries(30, 2)
	first[len(first)-1] ^= 1
	oldFirst[len(oldFirst)-1] ^= 1
	badHeader := entries(60, 2)
	badHeader[100] ^= 1
	writing := entries(60, 2)
	le.PutUint32(writing[4:], 61)
	le.PutUint32(writing[508:], baseChecksum(writing))
	outside := appendEntry(log(60), 60, bins, change{bins, make([]byte, 512)})
	odd := appendEntry(log(60), 60, bins, change{0, make([]byte, 700)})
	for _, c := range []struct {
		name    string
		logs    [][]byte
		value   uint32
		entries int
		stale   bool
		why     string
	}{
		{"one", [][]byte{entries(60, 2, 3)}, 3, 2, false, "A: entries 60 to 61 applied"},
		{"two", [][]byte{entries(60, 2, 3), entries(62, 4)}, 4, 3, false, "B: entries 62 to 62 applied"},
		{"two, the older second", [][]byte{entries(62, 4), entries(60, 2, 3)}, 4, 3, false, "B: entries 60 to 61 applied; A: entries 62 to 62 applied"},
		{"the other is old", [][]byte{entries(60, 2), entries(30, 7, 7)}, 2, 1, false, "B: older than the hive"},
		{"begins before the hive's number", [][]byte{entries(49, 2, 3)}, 3, 1, false, "entries 50 to 50"},
		{"a gap between the logs", [][]byte{entries(60, 2), entries(62, 3)}, 2, 1, true, "do not follow 60"},
		{"the same log twice", [][]byte{entries(60, 2), entries(60, 2)}, 2, 1, false, "do not follow"},
		{"remains of older entries", [][]byte{appendEntry(entries(60, 2), 55, bins, page(9))}, 2, 1, false, "60 to 60"},
		{"torn at the end", [][]byte{torn}, 2, 1, false, "unsound (hash of its contents)"},
		{"the first entry is torn", [][]byte{first, entries(62, 4)}, 1, 0, true, "come after 60, which is lost"},
		{"the first entry is torn, of an old log", [][]byte{oldFirst, entries(60, 2, 3)}, 3, 2, false, "entries 60 to 61 applied"},
		{"only old ones", [][]byte{entries(30, 7)}, 1, 0, true, "no log has anything to apply; A: older"},
		{"no entries", [][]byte{log(60)}, 1, 0, true, "no log has anything"},
		{"no bytes", [][]byte{nil, make([]byte, 4096)}, 1, 0, true, "A: empty; B: empty"},
		{"checksum", [][]byte{badHeader}, 1, 0, true, "checksum of its header"},
		{"being written", [][]byte{writing}, 1, 0, true, "being written"},
		{"a page outside the hive", [][]byte{outside}, 1, 0, true, "page 0"},
		{"a page of 700 bytes", [][]byte{odd}, 1, 0, true, "page 0"},
	} {
		var logs []Log
		for i, l := range c.logs {
			logs = append(logs, logOf(string(rune('A'+i)), l))
		}
		h := openBytes(t, b, logs...)
		s := h.State()
		if v := valueOf(t, h); v != c.value || !s.Dirty || s.Entries != c.entries || s.Stale != c.stale || !strings.Contains(s.Why, c.why) || s.Damaged != "" {
			t.Errorf("%s: value %d, state %+v", c.name, v, s)
		}
	}
}

// Logs say nothing about a hive that was cleanly closed.
func TestCleanHiveIgnoresLogs(t *testing.T) {
	b, page := dirtyHive(t)
	log := appendEntry(newLog(b, kindEntries, 60), 60, pageSize, page(2))
	le.PutUint32(b[4:], 50)
	le.PutUint32(b[508:], baseChecksum(b))
	h := openBytes(t, b, logOf("A", log))
	if s := h.State(); s != (State{}) || valueOf(t, h) != 1 {
		t.Errorf("state %+v", s)
	}
}

// The numbers are compared as they wrap.
func TestLogSequenceWraps(t *testing.T) {
	b, page := dirtyHive(t)
	le.PutUint32(b[4:], 0xffffffff)
	le.PutUint32(b[8:], 0xfffffffe)
	le.PutUint32(b[508:], baseChecksum(b))
	l1 := appendEntry(newLog(b, kindEntries, 0xffffffff), 0xffffffff, pageSize, page(2))
	l2 := appendEntry(newLog(b, kindEntries, 0), 0, pageSize, page(3))
	h := openBytes(t, b, logOf("2", l2), logOf("1", l1))
	if s := h.State(); s.Entries != 2 || s.Stale || valueOf(t, h) != 3 {
		t.Errorf("state %+v", s)
	}
}

// A log may make the hive longer than its file, and change less than a page.
func TestLogGrowsHive(t *testing.T) {
	b, _ := dirtyHive(t)
	root := &Node{Name: "SYSTEM"}
	root.Make("k").Set(windows.Value{Name: "v", Type: windows.RegDWORD, Data: []byte{8, 0, 0, 0}})
	big := root.Make("big")
	for _, n := range []int{3000, 3100, 3200} {
		big.Set(windows.Value{Name: string(rune('a' + n/100 - 30)), Type: windows.RegBinary, Data: bytes.Repeat([]byte{byte(n / 100)}, n)})
	}
	_, grown := built(t, root)
	log := newLog(b, kindEntries, 60)
	var changes []change
	for off := baseSize; off < len(grown); off += sectorSize {
		changes = append(changes, change{uint32(off - baseSize), grown[off : off+sectorSize]})
	}
	log = appendEntry(log, 60, uint32(len(grown)-baseSize), changes...)
	h := openBytes(t, b, logOf("A", log))
	got, _ := wholeTree(t, h)
	want, _ := wholeTree(t, openBytes(t, grown))
	if g, w := text(t, got), text(t, want); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func text(t testing.TB, n *Node) string {
	t.Helper()
	s, err := Format(&Node{Keys: []*Node{n}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A base block that was being written when the power went is taken from the log, as Windows does.
func TestLogMendsBaseBlock(t *testing.T) {
	b, page := dirtyHive(t)
	log := appendEntry(newLog(b, kindEntries, 60), 60, pageSize, page(2))
	clear(b[4:44])
	h := openBytes(t, b, logOf("A", log))
	if s := h.State(); !s.Dirty || s.Stale || s.Entries != 1 || !strings.Contains(s.Why, "base block taken from A") || s.Damaged == "" {
		t.Errorf("state %+v", s)
	}
	if valueOf(t, h) != 2 {
		t.Error("the value is not the log's")
	}
}

// Before Windows 8.1 a log was a bitmap and sectors.
func TestOldLog(t *testing.T) {
	b, page := dirtyHive(t)
	p := page(5).data
	old := func(seq uint32) []byte {
		l := append(newLog(b, 1, seq), "DIRT"...)
		l = append(l, 0b101) // the first and third of the page's eight sectors
		l = append(l, make([]byte, 1024-len(l))...)
		l = append(l, p[:512]...)
		return append(l, p[1024:1536]...)
	}
	h := openBytes(t, b, logOf("LOG", old(51)))
	if s := h.State(); s.Stale || s.Entries != 1 || s.Pages != 2 || valueOf(t, h) != 5 {
		t.Errorf("state %+v, value %d", s, valueOf(t, h))
	}
	for why, l := range map[string][]byte{
		"older":     old(50),
		"cut short": old(51)[:1500],
		"empty":     bytes.Replace(old(51), []byte("DIRT"), []byte("dirt"), 1),
	} {
		h := openBytes(t, b, logOf("LOG", l))
		if s := h.State(); !s.Stale || s.Entries != 0 || !strings.Contains(s.Why, why) || valueOf(t, h) != 1 {
			t.Errorf("%s: state %+v", why, s)
		}
	}
}

// That a log cannot be read is an error: what it would say is neither known nor missing.
func TestUnreadableLog(t *testing.T) {
	b, page := dirtyHive(t)
	log := appendEntry(newLog(b, kindEntries, 60), 60, pageSize, page(2))
	for _, from := range []int64{0, 520, 560, 2000} {
		l := Log{"A", failing{bytes.NewReader(log), from}, int64(len(log))}
		if _, err := Open(bytes.NewReader(b), int64(len(b)), l); !errors.Is(err, errDisk) {
			t.Errorf("from %d: %v", from, err)
		}
	}
	cut := Log{"A", bytes.NewReader(log[:1000]), int64(len(log))}
	if _, err := Open(bytes.NewReader(b), int64(len(b)), cut); err == nil {
		t.Error("a log that ends early was taken")
	}
}

func FuzzLog(f *testing.F) {
	b, page := dirtyHive(f)
	f.Add(appendEntry(appendEntry(newLog(b, kindEntries, 60), 60, pageSize, page(2)), 61, pageSize, page(3))[logHeader:], uint32(60), byte(kindEntries))
	f.Add(append([]byte("DIRT\x05"), make([]byte, 3000)...), uint32(51), byte(1))
	f.Fuzz(func(t *testing.T, body []byte, seq uint32, kind byte) {
		log := append(newLog(b, uint32(kind), seq), body...)
		// Right hashes let more of what is behind them be tried.
		for at := logHeader; at+entryHeader <= len(log); {
			size := int64(le.Uint32(log[at+4:]))
			if size < entryHeader || size%sectorSize != 0 || int64(at)+size > int64(len(log)) {
				break
			}
			hashEntry(log[at : int64(at)+size])
			at += int(size)
		}
		hostile.Bounded(t, int64(len(b)+len(log)+len(body)), func() {
			h, err := Open(bytes.NewReader(b), int64(len(b)), logOf("A", log), logOf("B", body))
			if err != nil {
				return
			}
			if s := h.State(); !s.Dirty || s.Entries == 0 && !s.Stale {
				t.Errorf("state %+v", s)
			}
			roam(h)
		})
	})
}
