package offline

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows"
	"berth/internal/windows/ntfs"
	"berth/testdata/machines"
)

// own are machines beside those that all tests share.
var own = map[string]string{
	"uefi": `GPT, ESP, recovery and data.
-- machine --
base = incompatible-partitioning
disk = 8GiB
- partition windows
partition windows = size 6GiB ntfs label "Windows"
partition recovery = size 64MiB type recovery ntfs label "Recovery"
partition raw = size 32MiB
partition data = size rest ntfs label "Data" dirty
-- files --
recovery:Recovery/WindowsRE/Winre.wim = size 1MiB
data:notes.txt = text "data"
hiberfil.sys = text "HIBR and what else Fast Startup left"
`,
	"unmarked": `C: is what the test writes over it.
-- machine --
base = win10-2004-enterprise
disk = 2GiB
partition windows = size rest bitlocker
`,
	"unmarked-efi": `The same, with VeraCrypt's loader on the EFI system partition.
-- machine --
base = incompatible-partitioning
disk = 2GiB
partition windows = size rest bitlocker
-- files --
boot:EFI/VeraCrypt/DcsBoot.efi = pe amd64
`,
	"two": `Two Windows, the second one without hives.
-- machine --
base = win10-2004-enterprise
disk = 8GiB
partition windows = size 5GiB ntfs label "First"
partition other = size rest ntfs label "Second"
-- files --
other:Windows/System32/ntoskrnl.exe = text "kernel"
`,
}

// machine makes the raw disk of a machine and opens it.
func machine(t testing.TB, name string) (*phony.Machine, []byteDisk) {
	t.Helper()
	files := fstest.MapFS{}
	list, err := fs.Glob(machines.FS, "*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		b, err := fs.ReadFile(machines.FS, n)
		if err != nil {
			t.Fatal(err)
		}
		files[n] = &fstest.MapFile{Data: b}
	}
	for n, text := range own {
		files[n+".txtar"] = &fstest.MapFile{Data: []byte(text)}
	}
	m, err := phony.LoadFS(files, name)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := m.WriteRaw(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return m, []byteDisk{{f, m.DiskBytes}}
}

// byteDisk is a disk in a file that tests may change.
type byteDisk struct {
	*os.File
	size int64
}

func (d byteDisk) Size() int64 { return d.size }

func envelope(t testing.TB, disks ...byteDisk) *disk.Envelope {
	t.Helper()
	all := &disk.Envelope{Format: "RAW"}
	for _, d := range disks {
		e, err := disk.Open(d, disk.Options{Format: "RAW"})
		if err != nil {
			t.Fatal(err)
		}
		all.Disks = append(all.Disks, e.Disks...)
	}
	return all
}

func only(t testing.TB, disks ...byteDisk) *System {
	t.Helper()
	systems, err := Open(envelope(t, disks...))
	if err != nil {
		t.Fatal(err)
	}
	if len(systems) != 1 {
		t.Fatalf("%d installations", len(systems))
	}
	return systems[0]
}

// text reads a REG_SZ.
func text(t *testing.T, s windows.System, h windows.Hive, key, value string) string {
	t.Helper()
	k, err := s.Open(h, key)
	if err != nil {
		t.Errorf("%s\\%s: %v", h, key, err)
		return ""
	}
	v, err := k.Value(value)
	if err != nil {
		t.Errorf("%s\\%s %s: %v", h, key, value, err)
		return ""
	}
	return strings.TrimRight(decodeUTF16(v.Data), "\x00")
}

func TestBIOSMachine(t *testing.T) {
	m, disks := machine(t, phony.Base)
	s := only(t, disks...)

	got := s.Machine()
	if got.Firmware != "bios" || got.Installations != 1 || got.Running || len(got.Disks) != 1 {
		t.Fatalf("%+v", got)
	}
	d := got.Disks[0]
	if d.Scheme != windows.MBR || d.SizeBytes != m.DiskBytes || d.SectorSize != 512 || len(d.Partitions) != len(m.Partitions) {
		t.Fatalf("%+v", d)
	}
	for i, want := range []windows.Role{windows.RoleBoot, windows.RoleSystem} {
		p, w := d.Partitions[i], m.Partitions[i]
		if p.Role != want || p.Number != i+1 || p.Start != w.Start || p.Length != w.Length || p.Type != w.Type ||
			p.Bootable != w.Active || p.FileSystem != "NTFS" || p.Err != nil {
			t.Errorf("partition %d: %+v, want %s of %+v", i+1, p, want, w)
		}
		if v := p.Volume; v == nil || v.Label != w.Label || v.Dirty || v.ClusterBytes != 4096 || v.FreeBytes <= 0 || v.FreeBytes >= v.SizeBytes || v.SizeBytes > w.Length {
			t.Errorf("volume %d: %+v", i+1, p.Volume)
		}
	}

	for _, h := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM, windows.Security, windows.Default, windows.BCD} {
		if st := s.Hive(h); st != (windows.HiveState{}) {
			t.Errorf("%s: %+v", h, st)
		}
		if k, err := s.Open(h, ""); err != nil {
			t.Errorf("%s: %v", h, err)
		} else if list, err := k.Subkeys(); err != nil || len(list) == 0 {
			t.Errorf("%s: %v, %v", h, list, err)
		}
	}
	if got := text(t, s, windows.Software, `Microsoft\Windows NT\CurrentVersion`, "CurrentBuild"); got != "19041" {
		t.Errorf("build %q", got)
	}
	direct := text(t, s, windows.SystemHive, `ControlSet001\Control\ComputerName\ComputerName`, "ComputerName")
	if current := text(t, s, windows.SystemHive, `currentcontrolset\Control\ComputerName\ComputerName`, "ComputerName"); current != direct || current == "" {
		t.Errorf("CurrentControlSet is %q, ControlSet001 %q", current, direct)
	}
	if _, err := s.Open(windows.SystemHive, "CurrentControlSet"); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(windows.SystemHive, `CurrentControlSet\Nothing`); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want not exist", err)
	}
	if _, err := s.Open("NTUSER", ""); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}

	f, err := s.Files().Open("WINDOWS/system32/NTOSKRNL.exe")
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 2)
	if _, err := f.(io.ReaderAt).ReadAt(head, 0); err != nil || string(head) != "MZ" {
		t.Errorf("%q, %v", head, err)
	}
	if _, err := fs.Stat(s.Files(), "hiberfil.sys"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, ok := s.Files().(fs.ReadDirFS); !ok {
		t.Error("Files is no fs.ReadDirFS")
	}
	if i, start, length := s.Location(); i != 0 || start != m.Partitions[1].Start || length != m.Partitions[1].Length {
		t.Error(i, start, length)
	}

	// The same disk, less and less of it.
	t.Run("hive damaged", func(t *testing.T) {
		write(t, disks[0], s, "Windows/System32/config/SOFTWARE", 0, []byte("gone"))
		s := only(t, disks...)
		if st := s.Hive(windows.Software); st.Err == nil || errors.Is(st.Err, fs.ErrNotExist) {
			t.Errorf("%+v", st)
		}
		if _, err := s.Open(windows.Software, "Microsoft"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
		if _, err := s.Open(windows.SAM, "SAM"); err != nil {
			t.Error(err)
		}
	})
	t.Run("hive unreadable", func(t *testing.T) {
		tear(t, disks[0], s, "Windows/System32/config/SYSTEM")
		s := only(t, disks...)
		if st := s.Hive(windows.SystemHive); st.Err == nil || errors.Is(st.Err, fs.ErrNotExist) {
			t.Errorf("%+v", st)
		}
		if _, err := s.Open(windows.SystemHive, `CurrentControlSet\Services`); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	})
	t.Run("folder unreadable", func(t *testing.T) {
		tear(t, disks[0], s, "Windows")
		_, err := Open(envelope(t, disks...))
		var u *UnreadableError
		if !errors.As(err, &u) || u.Partition != 2 {
			t.Errorf("%v", err)
		}
		var damage *ntfs.CorruptError
		if !errors.As(err, &damage) {
			t.Errorf("%v does not tell the damage", err)
		}
	})
	for name, mark := range map[string]struct {
		off  int64
		text string
		by   string
	}{
		"BitLocker":       {3, "-FVE-FS-", "BitLocker"},
		"LUKS":            {0, "LUKS\xba\xbe", "LUKS"},
		"BitLocker To Go": {424, "\x3B\xD6\x67\x49\x29\x2E\xD8\x4A\x83\x99\xF6\xA3\x39\xE3\xD0\x01", "BitLocker"},
	} {
		t.Run(name, func(t *testing.T) {
			was := make([]byte, 512)
			if _, err := disks[0].ReadAt(was, m.Partitions[1].Start); err != nil {
				t.Fatal(err)
			}
			defer put(t, disks[0], m.Partitions[1].Start, was)
			put(t, disks[0], m.Partitions[1].Start+mark.off, []byte(mark.text))
			_, err := Open(envelope(t, disks...))
			var e *EncryptedError
			if !errors.As(err, &e) || e.By != mark.by || e.Partition != 2 {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("dynamic disk", func(t *testing.T) {
		put(t, disks[0], 446+4, []byte{0x42})
		put(t, disks[0], 446+16+4, []byte{0x42})
		_, err := Open(envelope(t, disks...))
		var e *ManagedError
		if !errors.As(err, &e) || e.By != disk.DynamicDisk {
			t.Errorf("%v", err)
		}
	})
	t.Run("empty", func(t *testing.T) {
		put(t, disks[0], 0, make([]byte, 1<<20))
		if _, err := Open(envelope(t, disks...)); !errors.Is(err, ErrNoWindows) {
			t.Errorf("%v", err)
		}
	})
}

func put(t *testing.T, d byteDisk, off int64, b []byte) {
	t.Helper()
	if _, err := d.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// write changes bytes of a file on the installation's volume.
func write(t *testing.T, d byteDisk, s *System, name string, off int64, b []byte) {
	t.Helper()
	list, err := s.Volume().Extents(name)
	if err != nil {
		t.Fatal(err)
	}
	_, start, _ := s.Location()
	for _, e := range list {
		if off >= e.FileOffset && off+int64(len(b)) <= e.FileOffset+e.Length && e.VolumeOffset >= 0 {
			put(t, d, start+e.VolumeOffset+off-e.FileOffset, b)
			return
		}
	}
	t.Fatalf("%s has no byte %d", name, off)
}

// tear makes the MFT record of a file look half-written.
func tear(t *testing.T, d byteDisk, s *System, name string) {
	t.Helper()
	i, err := fs.Stat(s.Files(), name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, d, s, "$MFT", i.Sys().(*ntfs.Entry).Record*1024+510, []byte{0xEE, 0xEE})
}

func TestUEFIMachine(t *testing.T) {
	m, disks := machine(t, "uefi")
	s := only(t, disks...)
	got := s.Machine()
	if got.Firmware != "uefi" || got.Disks[0].Scheme != windows.GPT {
		t.Errorf("%+v", got)
	}
	want := []struct {
		role windows.Role
		fs   string
		boot bool
	}{{windows.RoleBoot, "FAT", true}, {windows.RoleReserved, "", false}, {windows.RoleSystem, "NTFS", false},
		{windows.RoleRecovery, "NTFS", false}, {"", "", false}, {windows.RoleData, "NTFS", false}}
	parts := got.Disks[0].Partitions
	if len(parts) != len(want) {
		t.Fatalf("%+v", parts)
	}
	for i, w := range want {
		p := parts[i]
		if p.Role != w.role || p.FileSystem != w.fs || p.Bootable != w.boot || p.Err != nil || p.Type != m.Partitions[i].Type || (p.Volume != nil) != (w.fs != "") {
			t.Errorf("partition %d: %+v, want %+v", i+1, p, w)
		}
	}
	if !parts[5].Volume.Dirty || parts[2].Volume.Dirty {
		t.Error("the dirty volume is the last one")
	}
	if v := parts[0].Volume; v.FreeBytes <= 0 || v.FreeBytes >= v.SizeBytes {
		t.Errorf("%+v", v)
	}
	if st := s.Hive(windows.BCD); st.Err != nil {
		t.Errorf("%+v", st)
	}
	// What Fast Startup left can be told by the first bytes.
	f, err := s.Files().Open("HIBERFIL.SYS")
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 4)
	if _, err := f.(io.ReaderAt).ReadAt(head, 0); err != nil || string(head) != "HIBR" {
		t.Errorf("%q, %v", head, err)
	}
	// The boot configuration alone tells the firmware, too.
	esp := s.hives[windows.BCD].files
	if !startsWinloadEFI(&hive{name: windows.BCD, files: esp, path: efiStore}) {
		t.Error("winload.efi was not found in the boot configuration")
	}
	// Without a readable EFI system partition the boot configuration is unknown, not absent, and the firmware is not told.
	put(t, disks[0], m.Partitions[0].Start+13, []byte{0})
	s = only(t, disks...)
	if s.Machine().Firmware != "" {
		t.Errorf("firmware %q", s.Machine().Firmware)
	}
	if st := s.Hive(windows.BCD); st.Err == nil || errors.Is(st.Err, fs.ErrNotExist) {
		t.Errorf("%+v", st)
	}
	if s.Machine().Disks[0].Partitions[0].Err == nil {
		t.Error("the partition has no error")
	}
}

func TestSeveralInstallations(t *testing.T) {
	_, disks := machine(t, "two")
	systems, err := Open(envelope(t, disks...))
	if err != nil || len(systems) != 2 {
		t.Fatal(len(systems), err)
	}
	for i, s := range systems {
		m := s.Machine()
		if m.Installations != 2 {
			t.Errorf("%d installations", m.Installations)
		}
		for j, p := range m.Disks[0].Partitions {
			want := windows.RoleBoot
			if j > 0 {
				want = windows.RoleData
			}
			if j == i+1 {
				want = windows.RoleSystem
			}
			if p.Role != want {
				t.Errorf("installation %d: partition %d is %s", i, p.Number, p.Role)
			}
		}
	}
	if st := systems[0].Hive(windows.SystemHive); st.Err != nil {
		t.Error(st)
	}
	// The second one has no hives: the state says that the file is missing, and no key is said to be absent.
	if st := systems[1].Hive(windows.SystemHive); !errors.Is(st.Err, fs.ErrNotExist) {
		t.Error(st)
	}
	if _, err := systems[1].Open(windows.SystemHive, "CurrentControlSet"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestSecondDisk: Windows on the second of two disks, the boot configuration on the first one; then on a disk without a table.
func TestSecondDisk(t *testing.T) {
	_, other := machine(t, "not-windows")
	m, disks := machine(t, phony.Base)
	env := envelope(t, other[0], disks[0])
	env.Disks[0].Name, env.Disks[1].Name = "data.vmdk", "windows.vmdk"
	systems, err := Open(env)
	if err != nil || len(systems) != 1 {
		t.Fatal(len(systems), err)
	}
	s := systems[0]
	got := s.Machine()
	if len(got.Disks) != 2 || got.Disks[1].Name != "windows.vmdk" || got.Disks[0].Partitions[0].Role != windows.RoleData ||
		got.Disks[1].Partitions[1].Role != windows.RoleSystem || got.Firmware != "bios" {
		t.Errorf("%+v", got)
	}
	if i, start, _ := s.Location(); i != 1 || start != m.Partitions[1].Start {
		t.Error(i, start)
	}
	// The volume of Windows alone, from the first sector of a disk on.
	p := m.Partitions[1]
	bare := &disk.Envelope{Format: "RAW", Disks: []disk.Disk{{Image: partOf{env.Disks[1].Image, p.Start, p.Length}}}}
	systems, err = Open(bare)
	if err != nil || len(systems) != 1 {
		t.Fatal(len(systems), err)
	}
	got = systems[0].Machine()
	if d := got.Disks[0]; d.Scheme != windows.NoTable || len(d.Partitions) != 1 || d.Partitions[0].Number != 0 || d.Partitions[0].Role != windows.RoleSystem || got.Firmware != "" {
		t.Errorf("%+v", got)
	}
	if got := text(t, systems[0], windows.Software, `Microsoft\Windows NT\CurrentVersion`, "CurrentBuild"); got != "19041" {
		t.Errorf("build %q", got)
	}
	if st := systems[0].Hive(windows.BCD); !errors.Is(st.Err, fs.ErrNotExist) {
		t.Errorf("%+v", st)
	}
}

// partOf is a disk that is a piece of another one.
type partOf struct {
	disk.Image
	start, length int64
}

func (p partOf) Size() int64 { return p.length }
func (p partOf) ReadAt(b []byte, off int64) (int, error) {
	return section{p.Image, p.start, p.length}.ReadAt(b, off)
}

func TestConcurrentUse(t *testing.T) {
	_, disks := machine(t, phony.Base)
	s := only(t, disks...)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for _, h := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM} {
				if st := s.Hive(h); st.Err != nil {
					t.Error(st.Err)
				}
			}
			if _, err := s.Open(windows.SystemHive, `CurrentControlSet\Control`); err != nil {
				t.Error(err)
			}
			if _, err := fs.Stat(s.Files(), "windows/system32/ntoskrnl.exe"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestNoWindows(t *testing.T) {
	_, disks := machine(t, "not-windows")
	if _, err := Open(envelope(t, disks...)); !errors.Is(err, ErrNoWindows) {
		t.Error(err)
	}
	if _, err := Open(&disk.Envelope{}); !errors.Is(err, ErrNoWindows) {
		t.Error(err)
	}
}

func TestSection(t *testing.T) {
	s := section{bytes.NewReader([]byte("0123456789")), 2, 5}
	b := make([]byte, 10)
	if n, err := s.ReadAt(b, 3); n != 2 || !errors.Is(err, io.EOF) || string(b[:n]) != "56" {
		t.Error(n, err)
	}
	if n, err := s.ReadAt(b[:2], 3); n != 2 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.ReadAt(b, 5); n != 0 || !errors.Is(err, io.EOF) {
		t.Error(n, err)
	}
	if _, err := s.ReadAt(b, -1); err == nil {
		t.Error("read before the partition")
	}
}
