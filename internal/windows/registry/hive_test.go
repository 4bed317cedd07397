package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/windows"
)

const realHives = "../../../../shared/data/hives"

// realHive reads one of the hives that Windows wrote, which are kept beside the checkout and not in it.
func realHive(t testing.TB, name string) []byte {
	t.Helper()
	if _, err := os.Stat(realHives); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no real hives beside this checkout")
	}
	out, err := exec.Command("xz", "-dc", filepath.Join(realHives, name+".xz")).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func openBytes(t testing.TB, b []byte, logs ...Log) *Hive {
	t.Helper()
	h, err := Open(bytes.NewReader(b), int64(len(b)), logs...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func logOf(name string, b []byte) Log { return Log{name, bytes.NewReader(b), int64(len(b))} }

func rootOf(t testing.TB, h *Hive) windows.Key {
	t.Helper()
	k, err := h.Root()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// counts is what a walk saw.
type counts struct{ keys, values, bad int }

// tree reads all below a key. What cannot be read is left out and counted, and the first reasons are kept.
func tree(k windows.Key, c *counts, why *[]error) *Node {
	n := &Node{Name: k.Name(), LastWrite: k.LastWrite()}
	bad := func(err error) {
		if err != nil {
			c.bad++
			if len(*why) < 20 {
				*why = append(*why, err)
			}
		}
	}
	c.keys++
	names, err := k.Values()
	bad(err)
	for _, name := range names {
		v, err := k.Value(name)
		bad(err)
		if err == nil {
			c.values++
			n.Values = append(n.Values, v)
		}
	}
	names, err = k.Subkeys()
	bad(err)
	for _, name := range names {
		s, err := k.Open(name)
		bad(err)
		if err == nil {
			n.Keys = append(n.Keys, tree(s, c, why))
		}
	}
	return n
}

// wholeTree reads a hive that must be sound.
func wholeTree(t testing.TB, h *Hive) (*Node, counts) {
	t.Helper()
	var c counts
	var why []error
	n := tree(rootOf(t, h), &c, &why)
	if c.bad > 0 || h.State().Damaged != "" {
		t.Fatalf("%d unreadable, damaged %q: %v", c.bad, h.State().Damaged, errors.Join(why...))
	}
	return n, c
}

func TestRealHivesAsHivexReads(t *testing.T) {
	for name, dirty := range map[string]bool{"BCD": false, "SAM": false, "SECURITY": true, "NTUSER_with_winscp.DAT": true,
		"SYSTEM_WIN_10_1709": true, "SYSTEM_B": true} {
		t.Run(name, func(t *testing.T) {
			b := realHive(t, name)
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			h := openBytes(t, b)
			if s := h.State(); s.Dirty != dirty || s.Stale != dirty || s.Entries != 0 || s.Dirty != (s.Why != "") {
				t.Errorf("state %+v", s)
			}
			start := time.Now()
			n, c := wholeTree(t, h)
			t.Logf("%d keys, %d values in %v", c.keys, c.values, time.Since(start))
			hivex := hivexml(t, file)
			compareTree(t, "", n, hivex, b)
			compareTimes(t, "", n, hivex)
		})
	}
}

// SYSTEM_B was copied from a running Windows with both logs.
func TestReplay(t *testing.T) {
	b := realHive(t, "SYSTEM_B")
	log1, log2 := logOf("LOG1", realHive(t, "SYSTEM_B.LOG1")), logOf("LOG2", realHive(t, "SYSTEM_B.LOG2"))
	for i, logs := range [][]Log{{log1, log2}, {log2, log1}} {
		h := openBytes(t, b, logs...)
		// The lab's own reading of these files, before this package: 24 entries with 315 pages, every hash right.
		if s := h.State(); !s.Dirty || s.Stale || s.Entries != 24 || s.Pages != 315 || s.Damaged != "" ||
			!strings.Contains(s.Why, "LOG1: entries 2107 to 2110 applied; LOG2: entries 2111 to 2130 applied") {
			t.Errorf("state %+v", s)
		}
		if i > 0 {
			continue
		}
		// The hive as it is after the logs, for hivex.
		size := int64(baseSize) + int64(h.base.bins)
		whole, err := h.pages.read(0, size)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "hive")
		whole = bytes.Clone(whole)
		le.PutUint32(whole[4:], 1)
		le.PutUint32(whole[8:], 1)
		le.PutUint32(whole[40:], h.base.bins)
		le.PutUint32(whole[508:], baseChecksum(whole))
		if err := os.WriteFile(file, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		n, c := wholeTree(t, h)
		if c.keys != 35595 {
			t.Errorf("%d keys, want 35595", c.keys)
		}
		compareTree(t, "", n, hivexml(t, file), whole)
	}
}

// Every entry of the logs that Windows wrote has the two hashes that are computed here, and one changed byte anywhere in it ends what is
// applied before it.
func TestEveryHashOfTheLogs(t *testing.T) {
	b := realHive(t, "SYSTEM_B")
	first, second := realHive(t, "SYSTEM_B.LOG1"), realHive(t, "SYSTEM_B.LOG2")
	entries := 0
	for i, log := range [][]byte{first, second} {
		seq := uint32([]int{2107, 2111}[i])
		for at := logHeader; at+entryHeader <= len(log) && string(log[at:at+4]) == "HvLE" && le.Uint32(log[at+12:]) == seq; seq++ {
			size := int(le.Uint32(log[at+4:]))
			e := bytes.Clone(log[at : at+size])
			hashEntry(e)
			if !bytes.Equal(e, log[at:at+size]) {
				t.Errorf("entry %d: hashes %x, Windows wrote %x", seq, e[24:40], log[at+24:at+40])
			}
			broken := [][]byte{first, second}
			broken[i] = bytes.Clone(log)
			broken[i][at+size/2] ^= 1
			// What is torn at a log's end was not done yet when the power went; entries of the other log must follow.
			s := openBytes(t, b, logOf("LOG1", broken[0]), logOf("LOG2", broken[1])).State()
			if s.Entries != int(seq-2107) || !strings.Contains(s.Why, "unsound") || s.Stale != (i == 0) {
				t.Errorf("entry %d changed: state %+v", seq, s)
			}
			entries++
			at += size
		}
	}
	if entries != 24 {
		t.Errorf("%d entries", entries)
	}
}

// Values that the machine of SYSTEM_B wrote while it resumed are in the logs only.
func TestReplayChangesValues(t *testing.T) {
	b := realHive(t, "SYSTEM_B")
	before := openBytes(t, b)
	after := openBytes(t, b, logOf("LOG1", realHive(t, "SYSTEM_B.LOG1")), logOf("LOG2", realHive(t, "SYSTEM_B.LOG2")))
	const power = `ControlSet001\Control\Session Manager\Power`
	const container = `ControlSet001\Control\DeviceContainers\{00000000-0000-0000-FFFF-FFFFFFFFFFFF}\Properties\{3464f7a4-2444-40b1-980a-e0903cb6d912}\0008`
	for _, c := range []struct{ key, value, before, after string }{
		{power, "POSTTime", "00000000", "63200000"},
		{power, "FwPOSTTime", "ef1d0000", "991e0000"},
		{power, "TotalResumeTime", "d8493715", "a33c0000"},
		{power, "TotalHibernateTime", "00000000", "d2240000"},
		{container, "en-US", "3e5c75a8decbd301", "b2075b88a2cdd301"}, // FILETIME: two days apart
	} {
		for h, want := range map[*Hive]string{before: c.before, after: c.after} {
			k, err := rootOf(t, h).Open(c.key)
			if err != nil {
				t.Fatal(err)
			}
			if v, err := k.Value(c.value); err != nil || fmt.Sprintf("%x", v.Data) != want {
				t.Errorf("%s is %x (replayed: %v), want %s: %v", c.value, v.Data, h == after, want, err)
			}
		}
	}
}

// What is sound in a damaged hive is read, what is not is told, and nothing unreadable passes for absent.
func TestDamagedHive(t *testing.T) {
	h := openBytes(t, realHive(t, "corrupted_system_hive"))
	var c counts
	var why []error
	tree(rootOf(t, h), &c, &why)
	if c.keys < 1600 || c.values < 5500 || c.bad == 0 {
		t.Errorf("%+v", c)
	}
	for _, err := range why {
		if !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
	if s := h.State(); !strings.Contains(s.Damaged, "cell 0x25078") || !strings.Contains(s.Damaged, "more") {
		t.Errorf("state %+v", s)
	}
	// Control lists Lsa, whose cell is damaged; the hashes in the list tell that no other damaged key is NoSuchKey.
	root := rootOf(t, h)
	if _, err := root.Open(`ControlSet001\Control\Lsa`); !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lsa: %v", err)
	}
	if _, err := root.Open(`ControlSet001\Control\NoSuchKey`); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("NoSuchKey: %v", err)
	}
	// It lists subkeys in a list that is damaged itself: none of them can be said to be absent.
	if _, err := root.Open(`ControlSet001\Control\CriticalDeviceDatabase\NoSuchKey`); !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below CriticalDeviceDatabase: %v", err)
	}
}
