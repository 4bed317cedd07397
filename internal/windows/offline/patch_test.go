package offline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/disk"
	"berth/internal/windows"
	"berth/internal/windows/ntfs"
	"berth/internal/windows/registry"
	"berth/testdata/hostile"
)

func init() {
	own["mend"] = `Things to mend, and another control set for the next start.
-- machine --
base = win10-2004-enterprise
disk = 2GiB
-- registry.reg --
[HKEY_LOCAL_MACHINE\SYSTEM\Select]
"Current"=dword:00000001
"Default"=dword:00000002
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\mountmgr]
"NoAutoMount"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet002\Services\mountmgr]
"NoAutoMount"=dword:00000001
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]
"AutoAdminLogon"="1"
"DefaultPassword"="Sample-Passw0rd"
"Room"="` + strings.Repeat("room for what grows ", 40) + `"
-- accounts --
WorkSpaces_BYOL = rid 1001 never-expires disabled in Administrators in Users
`
	own["mend-dirty"] = `The same on a volume that was not taken off cleanly.
-- machine --
base = mend
partition windows = size rest ntfs dirty
`
	for _, mark := range []string{"HIBR", "hibr", "WAKE", "RSTR"} {
		own["mend-"+mark] = "The same, hibernated.\n-- machine --\nbase = mend\n-- files --\nhiberfil.sys = text \"" + mark + " and memory\"\n"
	}
	own["mend-awake"] = "The same, with an empty hibernation file.\n-- machine --\nbase = mend\n-- files --\nhiberfil.sys = size 1MiB\n"
}

const winlogon = `Microsoft\Windows NT\CurrentVersion\Winlogon`

var mending = []windows.Change{
	windows.SetValue{Hive: windows.SystemHive, Key: `CurrentControlSet\Services\mountmgr`, Value: registry.NewDWORD("noautomount", 0)},
	windows.SetValue{Hive: windows.Software, Key: winlogon, Value: registry.NewSZ("AutoAdminLogon", "0")},
	windows.DeleteValue{Hive: windows.Software, Key: winlogon, Name: "DefaultPassword"},
	windows.DeleteValue{Hive: windows.Software, Key: winlogon, Name: "NotThere"},
	windows.DeleteValue{Hive: windows.Software, Key: `No\Such\Key`, Name: "NotThere"},
	windows.DeleteValue{Hive: windows.Software, Key: winlogon, Name: "Room"},
	windows.SetValue{Hive: windows.Software, Key: winlogon, Value: registry.NewSZ("Grown", strings.Repeat("longer than it was ", 20))},
	windows.EnableAccount{Name: "WorkSpaces_BYOL", RID: 1001},
}

var mended = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func TestPatch(t *testing.T) {
	_, disks := machine(t, "mend")
	s := only(t, disks...)
	differences, err := s.Diff(mending...)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	show := func(v *windows.Value) string {
		if v == nil {
			return "none"
		}
		return v.String()
	}
	for _, d := range differences {
		old, now := show(d.Old), show(d.New)
		if d.Hive == windows.SAM {
			old, now = fmt.Sprintf("%x", d.Old.Data[accountFlags:][:2]), fmt.Sprintf("%x", d.New.Data[accountFlags:][:2])
		}
		if d.Name == "Room" {
			old = fmt.Sprint(len(d.Old.Data))
		}
		if d.Name == "Grown" {
			now = fmt.Sprint(len(d.New.Data))
		}
		lines = append(lines, fmt.Sprintf(`%s\%s\%s: %s -> %s`, d.Hive, d.Key, d.Name, old, now))
	}
	want := []string{
		`SYSTEM\ControlSet001\Services\mountmgr\NoAutoMount: 1 (REG_DWORD) -> 0 (REG_DWORD)`,
		`SYSTEM\ControlSet002\Services\mountmgr\NoAutoMount: 1 (REG_DWORD) -> 0 (REG_DWORD)`,
		`SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon\AutoAdminLogon: "1" (REG_SZ) -> "0" (REG_SZ)`,
		`SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon\DefaultPassword: "Sample-Passw0rd" (REG_SZ) -> none`,
		`SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon\Room: 1602 -> none`,
		`SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon\Grown: none -> 762`,
		`SAM\SAM\Domains\Account\Users\000003E9\F: 1102 -> 1002`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("differences:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}

	patches, err := s.Patch(mended, mending...)
	if err != nil {
		t.Fatal(err)
	}
	inHives(t, s, patches)
	before := files(t, s)
	for _, p := range patches {
		put(t, disks[0], p.Off, p.Data)
	}
	s = only(t, disks...)
	for _, h := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM} {
		if st := s.Hive(h); st != (windows.HiveState{}) {
			t.Errorf("%s: %+v", h, st)
		}
	}
	if again, err := s.Patch(mended, mending...); err != nil || len(again) != 0 {
		t.Errorf("once more: %d patches, %v", len(again), err)
	}
	k, err := s.Open(windows.Software, winlogon)
	if err != nil || !k.LastWrite().Equal(mended) {
		t.Errorf("%v %v", k, err)
	}
	if k, err = s.Open(windows.Software, `Microsoft\Windows NT\CurrentVersion`); err != nil || k.LastWrite().Equal(mended) {
		t.Errorf("%v %v", k, err)
	}
	after := files(t, s)
	if len(before) < 10 || len(before) != len(after) {
		t.Fatalf("%d files, then %d", len(before), len(after))
	}
	for name, b := range before {
		hive := slices.Contains([]string{configDir + "SYSTEM", configDir + "SOFTWARE", configDir + "SAM"}, name)
		if bytes.Equal(b, after[name]) == hive {
			t.Errorf("%s: is a hive that was edited: %v, has changed: %v", name, hive, !hive)
		}
	}
	hivexGets(t, after[configDir+"SOFTWARE"], winlogon, "AutoAdminLogon", `"AutoAdminLogon"="0"`)
	hivexGets(t, after[configDir+"SYSTEM"], `ControlSet002\Services\mountmgr`, "NoAutoMount", `"NoAutoMount"=dword:00000000`)
	if bytes.Contains(after[configDir+"SOFTWARE"], []byte("S\x00a\x00m\x00p\x00l\x00e\x00-\x00P\x00a\x00s\x00s")) {
		t.Error("the password is still in the hive file")
	}
	ntfsfix(t, disks[0], s)
}

// inHives sees that patches lie in the clusters of hive files.
func inHives(t *testing.T, s *System, patches []disk.Patch) {
	t.Helper()
	_, start, _ := s.Location()
	var all []ntfs.Extent
	for _, h := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM} {
		list, err := s.Volume().Extents(configDir + string(h))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	if len(patches) == 0 {
		t.Error("no patches")
	}
	for _, p := range patches {
		if !slices.ContainsFunc(all, func(e ntfs.Extent) bool {
			return p.Off >= start+e.VolumeOffset && p.Off+int64(len(p.Data)) <= start+e.VolumeOffset+e.Length
		}) {
			t.Errorf("a patch of %d bytes at %#x is in no hive", len(p.Data), p.Off)
		}
	}
}

// files are the contents of all files of at most 4 MiB.
func files(t *testing.T, s *System) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := fs.WalkDir(s.Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if i, err := d.Info(); err != nil || i.Size() > 4<<20 {
			return err
		}
		all[name], err = fs.ReadFile(s.Files(), name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hivexGets asks hivex for a value of a hive.
func hivexGets(t *testing.T, hive []byte, key, value, want string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hive")
	if err := os.WriteFile(file, hive, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "hivexsh", file)
	cmd.Stdin = strings.NewReader("cd " + key + "\nlsval\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), want+"\n") {
		t.Errorf("hivexsh: %v: %s", err, out)
	}
}

// ntfsfix checks the installation's volume.
func ntfsfix(t *testing.T, d byteDisk, s *System) {
	t.Helper()
	volume := extract(t, d, s)
	if out, err := exec.CommandContext(t.Context(), "ntfsfix", "-n", volume).CombinedOutput(); err != nil || !strings.Contains(string(out), "processed successfully") {
		t.Errorf("ntfsfix -n: %v: %s", err, out)
	}
}

// extract copies the installation's volume to a file of its own, sparsely.
func extract(t *testing.T, d byteDisk, s *System) string {
	t.Helper()
	_, start, length := s.Location()
	name := filepath.Join(t.TempDir(), "volume")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	copySparse(t, f, 0, d, start, length)
	if err := f.Truncate(length); err != nil {
		t.Fatal(err)
	}
	return name
}

func copySparse(t *testing.T, dst io.WriterAt, to int64, src io.ReaderAt, from, length int64) {
	t.Helper()
	b, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < length; at += int64(len(b)) {
		b = b[:min(int64(len(b)), length-at)]
		if _, err := src.ReadAt(b, from+at); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(b, zero[:len(b)]) {
			continue
		}
		if _, err := dst.WriteAt(b, to+at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPatchNeedsGuest(t *testing.T) {
	_, disks := machine(t, "mend")
	s := only(t, disks...)
	for _, c := range []windows.Change{windows.CreateAccount{Name: "x"}, windows.RunUninstaller{Program: "PCoIP Agent"}, windows.RemovePackage{FullName: "p"}} {
		if _, err := s.Patch(mended, mending[0], c); !errors.Is(err, ErrNeedsGuest) || !strings.Contains(err.Error(), c.String()) {
			t.Errorf("%v", err)
		}
	}
	// The last of several changes of one value counts.
	auto := func(text string) windows.Change {
		return windows.SetValue{Hive: windows.Software, Key: winlogon, Value: registry.NewSZ("autoADMINlogon", text)}
	}
	if d, err := s.Diff(auto("5"), mending[0], auto("7")); err != nil || len(d) != 3 || d[2].Old.String() != `"1" (REG_SZ)` || d[2].New.String() != `"7" (REG_SZ)` {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := s.Diff(auto("5"), auto("1")); err != nil || len(d) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := s.Patch(mended, windows.SetValue{Hive: windows.Software, Key: `No\Such\Key`, Value: registry.NewDWORD("x", 1)}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := s.Patch(mended, windows.SetValue{Hive: windows.BCD, Key: `Description`, Value: registry.NewDWORD("x", 1)}); err == nil || !strings.Contains(err.Error(), "not edited") {
		t.Errorf("%v", err)
	}
	if _, err := s.Patch(mended, windows.EnableAccount{Name: "nobody", RID: 4711}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestPatchRefusesMachines(t *testing.T) {
	for name, want := range map[string]string{"mend-dirty": "marked dirty", "mend-HIBR": "hibernated", "mend-hibr": "hibernated",
		"mend-WAKE": "hibernated", "mend-RSTR": "hibernated", "mend-awake": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, disks := machine(t, name)
			s := only(t, disks...)
			patches, err := s.Patch(mended, mending...)
			if want == "" {
				if err != nil || len(patches) == 0 {
					t.Errorf("%d patches, %v", len(patches), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), want) || patches != nil {
				t.Errorf("%d patches, %v", len(patches), err)
			}
			if d, err := s.Diff(mending...); err != nil || len(d) == 0 {
				t.Errorf("what would be changed can be told all the same: %d, %v", len(d), err)
			}
		})
	}
}

// dataAttribute is where an MFT record's unnamed $DATA attribute is on the disk.
func dataAttribute(t testing.TB, d byteDisk, s *System, name string) int64 {
	t.Helper()
	i, err := fs.Stat(s.Files(), name)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Volume().Extents("$MFT")
	if err != nil {
		t.Fatal(err)
	}
	off := i.Sys().(*ntfs.Entry).Record * 1024
	_, start, _ := s.Location()
	for _, e := range list {
		if off < e.FileOffset || off >= e.FileOffset+e.Length {
			continue
		}
		rec := make([]byte, 1024)
		at := start + e.VolumeOffset + off - e.FileOffset
		if _, err := d.ReadAt(rec, at); err != nil {
			t.Fatal(err)
		}
		for a := int64(binary.LittleEndian.Uint16(rec[0x14:])); a+0x40 < 510; a += int64(binary.LittleEndian.Uint32(rec[a+4:])) {
			if binary.LittleEndian.Uint32(rec[a:]) == 0x80 && rec[a+9] == 0 {
				return at + a
			}
		}
	}
	t.Fatalf("%s has no $DATA in its record", name)
	return 0
}

// A hive file whose bytes are not plain clusters of the volume is not edited, nor one that lies where another file does.
func TestPatchRefusesHiveFiles(t *testing.T) {
	_, disks := machine(t, "mend")
	d := disks[0]
	for _, c := range []struct {
		name, want string
		at         int64
		to         []byte
	}{
		{"compressed", "compress", 0xC, []byte{1, 0}},
		{"encrypted", "ncrypt", 0xC, []byte{0, 0x40}},
		{"never written from its middle on", "", 0x38, []byte{0, 0x10, 0, 0, 0, 0, 0, 0}},
		{"longer than its clusters", "", 0x30, []byte{0, 0, 0, 0x10, 0, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := only(t, d)
			at := dataAttribute(t, d, s, configDir+"SOFTWARE") + c.at
			was := make([]byte, len(c.to))
			if _, err := d.ReadAt(was, at); err != nil {
				t.Fatal(err)
			}
			defer put(t, d, at, was)
			put(t, d, at, c.to)
			if p, err := only(t, d).Patch(mended, mending...); err == nil || !strings.Contains(strings.ToLower(err.Error()), c.want) || p != nil {
				t.Errorf("%d patches, %v", len(p), err)
			} else {
				t.Log(err)
			}
		})
	}
	t.Run("on top of each other", func(t *testing.T) {
		s := only(t, d)
		patches, err := s.Patch(mended, mending...)
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.Volume().Extents("$MFT")
		if err != nil {
			t.Fatal(err)
		}
		_, start, _ := s.Location()
		for name, p := range map[string]disk.Patch{
			"another hive": {Off: patches[0].Off + 8, Data: patches[0].Data[:8]},
			"$MFT":         {Off: start + list[0].VolumeOffset + list[0].Length - 8, Data: make([]byte, 512)},
			"$Boot":        {Off: start, Data: make([]byte, 512)},
		} {
			if err := s.apart(append(slices.Clone(patches), p)); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := s.apart(patches); err != nil {
			t.Error(err)
		}
	})
}

// The hive and the logs of a Windows that was running, on a volume: the edit takes the logs in, and they have no more effect.
func TestPatchRealDirtyHive(t *testing.T) {
	parts := map[string][]byte{}
	for _, suffix := range []string{"", ".LOG1", ".LOG2"} {
		parts["SYSTEM"+suffix] = realHive(t, "SYSTEM_B"+suffix)
	}
	_, disks := machine(t, "mend")
	s := only(t, disks...)
	volume := extract(t, disks[0], s)
	for name, b := range parts {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "ntfscp", "-q", volume, file, "/"+configDir+name).CombinedOutput(); err != nil {
			t.Fatalf("ntfscp %s: %v: %s", name, err, out)
		}
	}
	f, err := os.Open(volume)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, start, length := s.Location()
	copySparse(t, disks[0], start, f, 0, length)

	s = only(t, disks...)
	if st := s.Hive(windows.SystemHive); !st.Dirty || st.Stale || st.Replayed != 24 {
		t.Fatalf("%+v", st)
	}
	const power = `CurrentControlSet\Control\Session Manager\Power`
	change := windows.SetValue{Hive: windows.SystemHive, Key: power, Value: registry.NewDWORD("HiberbootEnabled", 0)}
	differences, err := s.Diff(change)
	if err != nil || len(differences) != 1 || differences[0].Old == nil {
		t.Fatalf("%+v, %v", differences, err)
	}
	patches, err := s.Patch(mended, change)
	if err != nil {
		t.Fatal(err)
	}
	inHives(t, s, patches)
	for _, p := range patches {
		put(t, disks[0], p.Off, p.Data)
	}
	s = only(t, disks...)
	if st := s.Hive(windows.SystemHive); st != (windows.HiveState{}) {
		t.Errorf("%+v", st)
	}
	k, err := s.Open(windows.SystemHive, power)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := k.Value("HiberbootEnabled"); err != nil || v.String() != "0 (REG_DWORD)" {
		t.Errorf("%v, %v", v, err)
	}
	hive, err := fs.ReadFile(s.Files(), configDir+"SYSTEM")
	if err != nil {
		t.Fatal(err)
	}
	hivexGets(t, hive, `ControlSet001\Control\Session Manager\Power`, "HiberbootEnabled", `"HiberbootEnabled"=dword:00000000`)
	// Every key and value is that of the hive with its logs, but for the one.
	want, err := registry.Open(bytes.NewReader(parts["SYSTEM"]), int64(len(parts["SYSTEM"])),
		registry.Log{R: bytes.NewReader(parts["SYSTEM.LOG1"]), Size: int64(len(parts["SYSTEM.LOG1"]))},
		registry.Log{R: bytes.NewReader(parts["SYSTEM.LOG2"]), Size: int64(len(parts["SYSTEM.LOG2"]))})
	if err != nil {
		t.Fatal(err)
	}
	root, err := want.Root()
	if err != nil {
		t.Fatal(err)
	}
	now, err := s.Open(windows.SystemHive, "")
	if err != nil {
		t.Fatal(err)
	}
	a, b := everything(t, root), everything(t, now)
	differ := 0
	for name, v := range a {
		if b[name] != v {
			differ++
			t.Logf("%s: %s, now %s", name, v, b[name])
		}
	}
	if differ != 1 || len(a) != len(b) || len(a) < 50000 {
		t.Errorf("%d of %d values differ, %d are there now", differ, len(a), len(b))
	}
	ntfsfix(t, disks[0], s)
}

// everything is all keys and values below a key.
func everything(t *testing.T, k windows.Key) map[string]string {
	t.Helper()
	all := map[string]string{}
	var walk func(path string, k windows.Key)
	walk = func(path string, k windows.Key) {
		all[path] = "key"
		names, err := k.Values()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			v, err := k.Value(n)
			if err != nil {
				t.Fatal(err)
			}
			all[path+`\\`+n] = fmt.Sprintf("%d %x", v.Type, v.Data)
		}
		names, err = k.Subkeys()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			sub, err := k.Open(n)
			if err != nil {
				t.Fatal(err)
			}
			walk(path+`\`+n, sub)
		}
	}
	walk("", k)
	return all
}

// FuzzPatch changes eight bytes of a machine's disk, in the MFT records of its hives, in the hives or anywhere, and has it mended: that is refused, or
// the bytes to write lie on its volume, beside what is the file system's own, and what they leave is mended, and is not edited again.
func FuzzPatch(f *testing.F) {
	_, disks := machine(f, "mend")
	s := only(f, disks...)
	_, start, length := s.Location()
	var spots [][2]int64 // offset and length of what is worth to be changed
	for _, h := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM} {
		name := configDir + string(h)
		at := dataAttribute(f, disks[0], s, name)
		spots = append(spots, [2]int64{at, 80}, [2]int64{at &^ 1023, 1024})
		list, err := s.Volume().Extents(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range list {
			spots = append(spots, [2]int64{start + e.VolumeOffset, e.Length})
		}
	}
	spots = append(spots, [2]int64{start, 512}, [2]int64{start, 200 << 20}, [2]int64{0, 1 << 20})
	env := envelope(f, disks...)
	img := env.Disks[0].Image
	for i := range spots {
		f.Add(uint8(i), uint32(32), []byte{0xff, 0xff, 0xff, 0x7f})
		f.Add(uint8(i), uint32(16), []byte{0, 0, 0, 0})
		f.Add(uint8(i), uint32(8192+40), []byte{1})
	}
	f.Fuzz(func(t *testing.T, spot uint8, at uint32, b []byte) {
		p := spots[int(spot)%len(spots)]
		off := p[0] + int64(at)%p[1]
		broken := disk.Overlay(img, []disk.Patch{{Off: off, Data: b[:min(len(b), 8)]}})
		with := func(img disk.Image) *System {
			e := *env
			e.Disks = slices.Clone(env.Disks)
			e.Disks[0].Image = img
			systems, err := Open(&e)
			if err != nil || len(systems) == 0 {
				return nil
			}
			return systems[0]
		}
		s := with(broken)
		if s == nil {
			return
		}
		var patches []disk.Patch
		var err error
		hostile.Bounded(t, 1<<20, func() { patches, err = s.Patch(mended, mending...) })
		if err != nil {
			return
		}
		for _, p := range patches {
			if p.Off < start || p.Off+int64(len(p.Data)) > start+length {
				t.Fatalf("%d bytes at %#x are not on the volume", len(p.Data), p.Off)
			}
		}
		if err := s.apart(patches); err != nil {
			t.Fatal(err)
		}
		after := with(disk.Overlay(broken, patches))
		if after == nil {
			t.Fatal("the mended disk has no Windows")
		}
		if d, err := after.Diff(mending...); err != nil || len(d) != 0 {
			t.Fatalf("what is left to mend: %+v, %v", d, err)
		}
	})
}
