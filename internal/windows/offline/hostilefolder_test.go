package offline

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows"
	"berth/internal/windows/ntfs"
	"berth/testdata/hostile"
)

var update = flag.Bool("update", false, "write the files in testdata/hostile anew")

// victim is a small machine for the hostile ones to be made of.
const victim = `A small machine.
-- machine --
disk = 8MiB
scheme = MBR
signature = 1BADB002
partition windows = size rest ntfs active
installed = 2020-09-22T09:30:00Z
sid = S-1-5-21-1-2-3
-- registry.reg --
[HKEY_LOCAL_MACHINE\SYSTEM\Select]
"Current"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\ComputerName\ComputerName]
"ComputerName"="VICTIM"
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\storahci]
"Start"=dword:00000000
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion]
"CurrentBuild"="19041"
-- files --
Windows/System32/ntoskrnl.exe = pe amd64
Windows/System32/config/SYSTEM.LOG1 = size 16KiB
`

var le = binary.LittleEndian

// hostileMachine is a victim whose disk is changed, and what berth says then.
type hostileMachine struct {
	name           string
	change         func(c *changed)
	check, inspect int
	says           string
}

const systemHive = "Windows/System32/config/SYSTEM"

var hostileMachines = []hostileMachine{
	{"mft-loop.raw", (*changed).mftLoop, 2, 0, "MFT record 0 at byte 40960: no cluster holds this byte"},
	{"attribute-list-of-another-file.raw", (*changed).strayList, 1, 0, "MFT record 70 at byte 32: is used by record 68, but extends record 0"},
	{"directory-cycle-by-hard-link.raw", (*changed).directoryCycle, 2, 0, "MFT record 64: directory is listed in several places"},
	{"hive-file-of-4-eib.raw", func(c *changed) {
		c.attribute(c.number(systemHive), 0x80, func(a []byte) {
			le.PutUint64(a[24:], 1<<50-1)
			le.PutUint64(a[40:], 1<<62)
			le.PutUint64(a[48:], 1<<62)
			le.PutUint64(a[56:], 1<<62)
			copy(a[64:], "\x07\x00\x00\x00\x00\x00\x00\x04\x00")
		})
	}, 1, 0, "hive damaged: a file of 4611686018427387904 bytes"},
	{"hive-cell-loop.raw", func(c *changed) {
		c.hive(func(h []byte) {
			control := cell(h, "ControlSet001", "Control")
			list := h[4096+4+le.Uint32(h[control+28:]):]
			le.PutUint32(list[4:], cell(h, "ControlSet001")-4096-4) // Control lists its own parent
		})
	}, 1, 0, "key 0x110: listed by the key 0x170, it names 0xb8 its parent"},
	{"hive-list-of-itself.raw", func(c *changed) {
		c.hive(func(h []byte) {
			at := le.Uint32(h[cell(h, "ControlSet001", "Control")+28:])
			list := h[4096+4+at:]
			copy(list, "ri\x01\x00")
			le.PutUint32(list[4:], at)
		})
	}, 1, 0, "list 0x2e0: it is ri of 4 bytes in an ri list"},
	{"hive-of-2-32-values.raw", func(c *changed) {
		c.hive(func(h []byte) {
			le.PutUint32(h[cell(h, "Select")+36:], 1<<32-1)
		})
	}, 1, 0, "key 0x490: 4294967295 values in a hive of 0x2000 bytes"},
	{"hive-log-entry-of-4-gib.raw", (*changed).hostileLog, 1, 0, "SYSTEM.LOG1: the entry at 0x200 is unsound (size 4294966784)"},
}

// TestHostileFolder holds the files that the program is tested with against those that are made here.
func TestHostileFolder(t *testing.T) {
	m, err := phony.LoadFS(fstest.MapFS{"victim.txtar": {Data: []byte(victim)}}, "victim")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "victim.raw")
	if err := m.WriteRaw(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The volume's table of capitals is 120 KB that do not compress, eight times over. The reader has one of its own for volumes that
	// lost theirs.
	whole := change(t, sound, m.Partitions[0])
	for off := int64(0); off < 2<<16; off += 512 {
		at := whole.at("$UpCase", off)
		clear(whole.volume[at : at+512])
	}
	sound = whole.disk
	findWindows(t, sound)
	var made []hostile.File
	for _, h := range hostileMachines {
		c := change(t, sound, m.Partitions[0])
		h.change(c)
		if bytes.Equal(c.disk, sound) {
			t.Fatalf("%s: nothing was changed", h.name)
		}
		hostile.Bounded(t, int64(len(c.disk)), func() { readAll(t, c.disk) })
		made = append(made, hostile.Make(hostile.File{Name: h.name, Check: h.check, Inspect: h.inspect, Says: h.says}, c.disk))
	}
	if err := hostile.Keep("../../../testdata/hostile", hostile.Windows, "internal/windows/offline", made, *update); err != nil {
		t.Error(err)
	}
}

// findWindows sees that the victim is a Windows whose registry can be read, before it is spoilt.
func findWindows(t *testing.T, raw []byte) {
	t.Helper()
	env, err := disk.Open(bytes.NewReader(raw), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	systems, err := Open(env)
	if err != nil || len(systems) != 1 {
		t.Fatal(len(systems), err)
	}
	if st := systems[0].Hive(windows.SystemHive); st.Err != nil || st.Dirty || st.Damaged != "" {
		t.Fatalf("%+v", st)
	}
}

// readAll reads every file and key of a machine, as far as that goes. There are fewer of them than the disk has sectors.
func readAll(t *testing.T, raw []byte) {
	t.Helper()
	env, err := disk.Open(bytes.NewReader(raw), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	step := func() {
		if steps++; steps > len(raw)/512 {
			t.Fatal("there is no end of it")
		}
	}
	var keys func(k windows.Key)
	keys = func(k windows.Key) {
		step()
		values, _ := k.Values()
		for _, n := range values {
			_, _ = k.Value(n)
		}
		subkeys, _ := k.Subkeys()
		for _, n := range subkeys {
			if sub, err := k.Open(n); err == nil {
				keys(sub)
			}
		}
	}
	for _, s := range Find(env).Systems {
		_ = fs.WalkDir(s.Files(), ".", func(name string, d fs.DirEntry, err error) error {
			step()
			if err != nil || d.IsDir() {
				return nil // what cannot be read is passed over
			}
			if f, err := s.Files().Open(name); err == nil {
				_, _ = f.Read(make([]byte, 4096))
			}
			return nil
		})
		for _, h := range []windows.Hive{windows.SystemHive, windows.Software} {
			if k, err := s.Open(h, ""); err == nil {
				keys(k)
			}
		}
	}
}

// changed is a victim's disk in memory, and its volume as it was.
type changed struct {
	t      testing.TB
	disk   []byte
	volume []byte // of disk
	was    *ntfs.Volume
}

func change(t testing.TB, sound []byte, p phony.Partition) *changed {
	c := &changed{t: t, disk: slices.Clone(sound)}
	c.volume = c.disk[p.Start : p.Start+p.Length]
	before := slices.Clone(c.volume)
	var err error
	if c.was, err = ntfs.Open(bytes.NewReader(before), int64(len(before))); err != nil {
		t.Fatal(err)
	}
	return c
}

// number is the MFT record of a file.
func (c *changed) number(name string) int64 {
	i, err := fs.Stat(c.was.FS(), name)
	if err != nil {
		c.t.Fatal(err)
	}
	return i.Sys().(*ntfs.Entry).Record
}

// at is where a byte of a file is on the volume.
func (c *changed) at(name string, off int64) int64 {
	list, err := c.was.Extents(name)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, e := range list {
		if off >= e.FileOffset && off < e.FileOffset+e.Length && e.VolumeOffset >= 0 {
			return e.VolumeOffset + off - e.FileOffset
		}
	}
	c.t.Fatalf("%s has no byte %d", name, off)
	return 0
}

// attributes changes the attributes of an MFT record, each of which is a slice; the record's update sequence is kept right.
func (c *changed) attributes(n int64, edit func(head []byte, attrs [][]byte) [][]byte) {
	const size, words = 1024, 512
	off := c.at("$MFT", n*size)
	b := c.volume[off : off+size]
	usa := int(le.Uint16(b[4:]))
	for i := 1; i <= size/words; i++ {
		copy(b[i*words-2:i*words], b[usa+2*i:])
	}
	first := int(le.Uint16(b[20:]))
	var attrs [][]byte
	for p := first; le.Uint32(b[p:]) != 1<<32-1; p += int(le.Uint32(b[p+4:])) {
		attrs = append(attrs, slices.Clone(b[p:p+int(le.Uint32(b[p+4:]))]))
	}
	out := append(bytes.Join(edit(b, attrs), nil), 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0)
	if first+len(out) > size-2 {
		c.t.Fatalf("%d bytes of attributes do not fit", len(out))
	}
	clear(b[first:])
	copy(b[first:], out)
	le.PutUint32(b[24:], uint32(first+len(out)))
	for i := 1; i <= size/words; i++ {
		copy(b[usa+2*i:], b[i*words-2:i*words])
		copy(b[i*words-2:i*words], b[usa:usa+2])
	}
}

// attribute changes the first attribute of a type in place.
func (c *changed) attribute(n int64, kind uint32, edit func(a []byte)) {
	c.attributes(n, func(_ []byte, attrs [][]byte) [][]byte {
		i := slices.IndexFunc(attrs, func(a []byte) bool { return le.Uint32(a) == kind })
		if i < 0 {
			c.t.Fatalf("record %d has no attribute %#x", n, kind)
		}
		edit(attrs[i])
		return attrs
	})
}

// resident makes an attribute of a value.
func resident(kind uint32, id uint16, value []byte) []byte {
	a := make([]byte, (24+len(value)+7)&^7)
	le.PutUint32(a, kind)
	le.PutUint32(a[4:], uint32(len(a)))
	le.PutUint16(a[14:], id)
	le.PutUint32(a[16:], uint32(len(value)))
	le.PutUint16(a[20:], 24)
	copy(a[24:], value)
	return a
}

// listItem is an entry of an attribute list.
func listItem(kind uint32, vcn, record uint64, id uint16) []byte {
	b := make([]byte, 32)
	le.PutUint32(b, kind)
	b[4], b[7] = 32, 26
	le.PutUint64(b[8:], vcn)
	le.PutUint64(b[16:], record)
	le.PutUint16(b[24:], id)
	return b
}

// withList puts an attribute list before a record's attributes, which names them and one more.
func (c *changed) withList(n int64, more []byte) {
	c.attributes(n, func(_ []byte, attrs [][]byte) [][]byte {
		var list []byte
		for _, a := range attrs {
			list = append(list, listItem(le.Uint32(a), 0, uint64(n), le.Uint16(a[14:]))...)
		}
		return slices.Insert(attrs, 1, resident(0x20, 99, append(list, more...)))
	})
}

// mftLoop cuts $MFT after 8 clusters and says that where it goes on is told by record 40, which lies behind the cut.
func (c *changed) mftLoop() {
	c.attribute(0, 0x80, func(a []byte) {
		le.PutUint64(a[24:], 7)
		runs := a[le.Uint16(a[32:]):]
		if runs[0]&15 == 0 {
			c.t.Fatal("$MFT has no run")
		}
		clear(runs[1 : 1+runs[0]&15])
		runs[1] = 8
	})
	c.withList(0, listItem(0x80, 8, 40, 7))
}

// strayList says that the hive's contents go on in the record of another file.
func (c *changed) strayList() {
	c.withList(c.number(systemHive), listItem(0x80, 1<<20, uint64(c.number("Windows/System32/ntoskrnl.exe")), 0))
}

// directoryCycle makes Windows/System32/config another name of Windows.
func (c *changed) directoryCycle() {
	up, system32 := c.number("Windows"), c.number("Windows/System32")
	c.attribute(system32, 0x90, func(a []byte) {
		node := a[le.Uint16(a[20:])+16:]
		for p := le.Uint32(node); ; p += uint32(le.Uint16(node[p+8:])) {
			if le.Uint16(node[p+12:])&2 != 0 {
				c.t.Fatal("config is not in the root of System32's index")
			}
			if name := node[p+16+66:]; le.Uint16(node[p+10:]) == 66+12 && string(name[:12]) == "c\x00o\x00n\x00f\x00i\x00g\x00" {
				le.PutUint64(node[p:], uint64(up))
				return
			}
		}
	})
	c.attributes(up, func(head []byte, attrs [][]byte) [][]byte {
		le.PutUint16(head[18:], 2)
		v := make([]byte, 66+12)
		le.PutUint64(v, uint64(system32))
		v[64], v[65] = 6, 1
		copy(v[66:], "c\x00o\x00n\x00f\x00i\x00g\x00")
		return slices.Insert(attrs, 2, resident(0x30, 50, v))
	})
}

// hive changes the SYSTEM hive in its place, and makes the checksum of its base block right.
func (c *changed) hive(edit func(h []byte)) {
	h, err := fs.ReadFile(c.was.FS(), systemHive)
	if err != nil {
		c.t.Fatal(err)
	}
	edit(h)
	sum := uint32(0)
	for i := 0; i < 508; i += 4 {
		sum ^= le.Uint32(h[i:])
	}
	le.PutUint32(h[508:], sum)
	for off := 0; off < len(h); off += 512 {
		copy(c.volume[c.at(systemHive, int64(off)):], h[off:off+512])
	}
}

// hostileLog makes the hive dirty and its log say that its only entry has 4 GiB.
func (c *changed) hostileLog() {
	var log []byte
	c.hive(func(h []byte) {
		le.PutUint32(h[4:], le.Uint32(h[8:])+1)
		log = slices.Clone(h[:512])
		le.PutUint32(log[8:], le.Uint32(log[4:]))
		le.PutUint32(log[28:], 6)
	})
	sum := uint32(0)
	for i := 0; i < 508; i += 4 {
		sum ^= le.Uint32(log[i:])
	}
	le.PutUint32(log[508:], sum)
	entry := make([]byte, 512)
	copy(entry, "HvLE")
	le.PutUint32(entry[4:], 1<<32-512)
	le.PutUint32(entry[12:], le.Uint32(log[4:]))
	le.PutUint32(entry[20:], 1<<32-1)
	copy(c.volume[c.at(systemHive+".LOG1", 0):], append(log, entry...))
}

// cell is where the contents of a key's cell are in a hive of which all lists are small.
func cell(h []byte, path ...string) uint32 {
	at := 4096 + 4 + le.Uint32(h[36:])
	for _, name := range path {
		list := h[4096+4+le.Uint32(h[at+28:]):]
		found := false
		for i := range int(le.Uint16(list[2:])) {
			sub := 4096 + 4 + le.Uint32(list[4+8*i:])
			if n := uint32(le.Uint16(h[sub+72:])); strings.EqualFold(string(h[sub+76:sub+76+n]), name) {
				at, found = sub, true
				break
			}
		}
		if !found {
			panic(fmt.Sprintf("the hive has no key %q", path))
		}
	}
	return at
}
