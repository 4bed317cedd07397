package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/phony/phonytest"
	"berth/internal/windows"
	"berth/testdata/machines"
)

// inspected are machines beside those that all tests share.
var inspected = map[string]string{
	"big": `A disk of 64 GiB.
-- machine --
base = win10-2004-enterprise
disk = 64GiB
`,
	"two": `Two Windows; the second one has no hives.
-- machine --
base = win10-2004-enterprise
disk = 8GiB
partition windows = size 5GiB ntfs label "First"
partition other = size rest ntfs label "Second"
-- files --
other:Windows/System32/ntoskrnl.exe = pe amd64
`,
	"trouble": `Everything that is suspicious on one disk.
-- machine --
base = win10-2004-enterprise
disk = 8GiB
partition windows = size 5GiB ntfs label "C\u202e" dirty
partition noise = size rest bitlocker
-- registry.reg --
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\Session Manager]
"PendingFileRenameOperations"=hex(7):5c,00,3f,00,3f,00,5c,00,61,00,00,00,00,00,00,00
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\Session Manager\Power]
"HiberbootEnabled"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\Setup]
"OOBEInProgress"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\viostor]
"Start"=dword:00000000
"Group"="SCSI miniport"
"ImagePath"="System32\\drivers\\viostor.sys"
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\storahci\StartOverride]
"0"=dword:00000003
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State]
"ImageState"="IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending]
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall\Evil]
"DisplayName"=hex(1):45,00,1b,00,5b,00,32,00,4a,00,2e,20,76,00,00,00
-- files --
hiberfil.sys = text "HIBR and what else Fast Startup left"
Windows/System32/Sysprep/Sysprep_succeeded.tag
Windows/INF/nete1g3e.inf = text "; not the real one"
`,
}

// load reads one of the machines of this package's tests, or of all tests.
func load(t testing.TB, name string) *phony.Machine {
	t.Helper()
	files := fstest.MapFS{}
	err := fs.WalkDir(machines.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(machines.FS, path)
		files[path] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for n, text := range inspected {
		files[n+".txtar"] = &fstest.MapFile{Data: []byte(text)}
	}
	m, err := phony.LoadFS(files, name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// made writes a machine's export into the test's folder.
func made(t testing.TB, name, format string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+"."+format)
	if err := load(t, name).Export(t.Context(), path, format); err != nil {
		t.Fatal(err)
	}
	return path
}

func inspect(t testing.TB, path string, opt InspectionOptions) *Inspection {
	t.Helper()
	env, err := disk.OpenFile(path, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = env.Close() }()
	i, err := NewInspection(t.Context(), env, opt)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func asText(t testing.TB, i *Inspection) string {
	t.Helper()
	var b strings.Builder
	if err := i.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > textWidth || strings.ContainsAny(line, "\x1b\u202e") || strings.HasSuffix(line, " \n") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	return b.String()
}

func want[T comparable](t testing.TB, what string, f Fact[T], value T, from string) {
	t.Helper()
	if f.Value == nil || *f.Value != value || !strings.Contains(f.From, from) || f.Unknown != "" {
		t.Errorf("%s: %v from %q, unknown %q; want %v from %q", what, f.Value, f.From, f.Unknown, value, from)
	}
}

func TestInspection(t *testing.T) {
	i := inspect(t, made(t, phony.Base, "ova"), InspectionOptions{})
	if c := i.Container; c.Format != "OVA" || c.Integrity != Unverified || c.Hardware == nil || c.Hardware.OSType != "windows9_64Guest" || c.Hardware.Firmware != "bios" ||
		c.Hardware.VCPUs != 2 || c.Hardware.MemoryMB != 4096 || c.Hardware.NICs != 1 || c.Hardware.CDROMs != 0 {
		t.Errorf("%+v, %+v", c, c.Hardware)
	}
	if len(i.Disks) != 1 || len(i.Windows) != 1 || i.NoWindows != "" || len(i.Suspicious) != 0 || len(i.Warnings) != 1 {
		t.Fatalf("%+v", i)
	}
	d := i.Disks[0]
	if d.Format != "VMDK" || d.SubFormat != "streamOptimized" || d.SizeBytes != 40<<30 || d.Scheme != windows.MBR || d.SectorSize != 512 || len(d.Partitions) != 2 {
		t.Errorf("%+v", d)
	}
	if p := d.Partitions[0]; p.Role != "boot" || p.FileSystem != "NTFS" || !p.Bootable || p.LengthBytes != 50<<20 || p.Volume == nil || p.Volume.Label != "System Reserved" {
		t.Errorf("%+v", p)
	}
	if p := d.Partitions[1]; p.Role != "windows" || p.Volume == nil || p.Volume.Dirty || p.Volume.FreeBytes < 39<<30 || p.Error != "" {
		t.Errorf("%+v", p)
	}
	w := i.Windows[0]
	if w.Disk != 0 || w.Partition != 2 {
		t.Errorf("Windows is on disk %d, partition %d", w.Disk, w.Partition)
	}
	want(t, "product", w.ProductName, "Windows 10 Enterprise", `SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProductName`)
	want(t, "version", w.Version, "2004", `ReleaseId = "2004"`)
	want(t, "build", w.Build, 19041, "CurrentBuildNumber")
	want(t, "revision", w.Revision, 508, "UBR")
	want(t, "edition", w.Edition, "Enterprise", "EditionID")
	want(t, "architecture", w.Architecture, "AMD64", "PROCESSOR_ARCHITECTURE")
	want(t, "language", w.InstallLanguage, "0409", "InstallLanguage")
	want(t, "host name", w.HostName, "BYOL-WIN10", "ComputerName")
	want(t, "time zone", w.TimeZone, "UTC", "TimeZoneKeyName")
	want(t, "setup", w.Setup, "IMAGE_STATE_COMPLETE", "ImageState")
	want(t, "hibernation", w.Hibernation, "none", "hiberfil.sys is not there")
	want(t, "fast startup", w.FastStartup, false, "HiberbootEnabled")
	want(t, "firmware", w.Firmware, "bios", "boots by")
	if w.Installed.Value == nil || w.Installed.Value.Format("2006-01-02T15:04:05Z07:00") != "2020-09-22T09:30:00Z" {
		t.Errorf("%+v", w.Installed)
	}
	if w.LastShutdown.Value == nil || w.LastShutdown.Value.Format("2006-01-02 15:04") != "2020-10-05 16:42" {
		t.Errorf("%+v", w.LastShutdown)
	}
	if w.DisplayLanguages.Value == nil || !slices.Equal(*w.DisplayLanguages.Value, []string{"en-US"}) {
		t.Errorf("%+v", w.DisplayLanguages)
	}
	var users []User
	for _, u := range *w.Users.Value {
		if !strings.Contains(u.From, `SAM\SAM\Domains\Account\Users\`) {
			t.Errorf("%+v", u)
		}
		u.From = ""
		users = append(users, u)
	}
	if !slices.Equal(users, []User{{"Administrator", 500, false, true, ""}, {"DefaultAccount", 503, false, false, ""}, {"Guest", 501, false, false, ""},
		{"WDAGUtilityAccount", 504, false, false, ""}, {"WorkSpaces_BYOL", 1001, true, true, ""}}) {
		t.Errorf("%+v", users)
	}
	if p := *w.Programs.Value; len(p) != 3 || p[0].Name != "Microsoft Update Health Tools" || p[0].Version != "2.67.0.0" || p[0].Publisher != "Microsoft Corporation" || p[0].Bits != 64 || p[1].Bits != 32 {
		t.Errorf("%+v", p)
	}
	if n := *w.Network.Value; len(n) != 1 || n[0].ComponentID != `pci\ven_8086&dev_10d3` || n[0].Description != "Intel(R) 82574L Gigabit Network Connection" || !strings.HasSuffix(n[0].From, `\0001`) {
		t.Errorf("%+v", n)
	}
	wantSupport(t, w, map[string]string{"AHCI disk": "boot", "LSI SAS disk": "boot", "e1000e network": "installed", "e1000 network": "absent", "virtio disk": "absent", "virtio network": "absent"})
	for _, h := range w.Hives {
		if h.State != "clean" || h.Dirty || h.Why != "" {
			t.Errorf("%+v", h)
		}
	}
	text := asText(t, i)
	for _, part := range []string{"Windows 10 Enterprise 2004 (build 19041.508)", "not verified", "System Reserved", "WorkSpaces_BYOL (RID 1001), administrator", "Suspicious\n  Nothing.\n"} {
		if !strings.Contains(text, part) {
			t.Errorf("the text lacks %q:\n%s", part, text)
		}
	}
	// What is known has its value in the JSON, what is not has null.
	b, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Windows []struct {
			HostName struct{ Value, From *string } `json:"hostName"`
		} `json:"windows"`
	}
	if err := json.Unmarshal(b, &back); err != nil || *back.Windows[0].HostName.Value != "BYOL-WIN10" {
		t.Errorf("%v: %s", err, b)
	}
}

func wantSupport(t *testing.T, w Windows, want map[string]string) {
	t.Helper()
	if w.Support.Value == nil {
		t.Fatal(w.Support.Unknown)
	}
	got := map[string]string{}
	for _, s := range *w.Support.Value {
		got[s.Hardware] = s.Driver
		if (s.Driver == "boot" || s.Driver == "installed") == (s.Service == "") {
			t.Errorf("%+v", s)
		}
	}
	for hardware, driver := range want {
		if got[hardware] != driver {
			t.Errorf("%s: %q, want %q", hardware, got[hardware], driver)
		}
	}
}

func TestInspectionFindsEveryWindows(t *testing.T) {
	i := inspect(t, made(t, "two", "qcow2"), InspectionOptions{})
	if len(i.Windows) != 2 || i.Windows[0].Partition != 2 || i.Windows[1].Partition != 3 {
		t.Fatalf("%+v", i.Windows)
	}
	if p := i.Disks[0].Partitions; p[0].Role != "boot" || p[1].Role != "windows" || p[2].Role != "windows" {
		t.Errorf("%+v", p)
	}
	want(t, "first", i.Windows[0].HostName, "BYOL-WIN10", "ComputerName")
	second := i.Windows[1]
	for what, f := range map[string]Fact[string]{"host name": second.HostName, "product": second.ProductName, "time zone": second.TimeZone} {
		if f.Value != nil || !strings.Contains(f.Unknown, "hive is missing") {
			t.Errorf("%s of a Windows without hives: %+v", what, f)
		}
	}
	if second.Users.Value != nil || second.Programs.Value != nil || second.Storage.Value != nil || second.Support.Value != nil || second.Network.Value != nil {
		t.Errorf("a Windows without hives has lists: %+v", second)
	}
	codes := codesOf(i)
	if !slices.Contains(codes, " SeveralWindows") || !slices.Contains(codes, "Windows 2 HiveNotCurrent") || slices.Contains(codes, "Windows 1 HiveNotCurrent") {
		t.Error(codes)
	}
	text := asText(t, i)
	for _, part := range []string{"Windows 1 of 2, on disk 0, partition 2: Windows 10 Enterprise", "Windows 2 of 2, on disk 0, partition 3: Windows\n", "There are 2 installations"} {
		if !strings.Contains(text, part) {
			t.Errorf("the text lacks %q:\n%s", part, text)
		}
	}
}

func codesOf(i *Inspection) []string {
	var codes []string
	for _, s := range i.Suspicious {
		codes = append(codes, s.Where+" "+s.Code)
	}
	return codes
}

func TestInspectionOfTrouble(t *testing.T) {
	path := made(t, "trouble", "raw")
	m := load(t, "trouble")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{7}).Read(noise)
	if _, err := f.WriteAt(noise, m.Partition("noise").Start); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	i := inspect(t, path, InspectionOptions{Verify: true})
	if i.Container.Integrity != NoManifest || i.Container.Hardware != nil {
		t.Errorf("%+v", i.Container)
	}
	codes := codesOf(i)
	for _, code := range []string{"disk 0, partition 2 DirtyVolume", "disk 0, partition 3 PossiblyEncrypted", " Hibernated", " FastStartup", " PendingRename", " PendingReboot", " SetupNotDone"} {
		if !slices.Contains(codes, code) {
			t.Errorf("%q is not among %q", code, codes)
		}
	}
	for _, s := range i.Suspicious {
		if s.Text == "" || s.From == "" {
			t.Errorf("%+v", s)
		}
	}
	w := i.Windows[0]
	want(t, "hibernation", w.Hibernation, "hibernated", `"HIBR"`)
	wantSupport(t, w, map[string]string{"virtio disk": "boot", "AHCI disk": "installed", "e1000 network": "available"})
	var boot, off []string
	for _, d := range *w.Storage.Value {
		if d.AtBoot {
			boot = append(boot, d.Service)
		} else {
			off = append(off, d.Service)
		}
	}
	if !slices.Equal(boot, []string{"LSI_SAS", "viostor"}) || !slices.Equal(off, []string{"storahci"}) {
		t.Errorf("at boot %q, not %q", boot, off)
	}
	text := asText(t, i) // which looks for terminal escapes
	if !strings.Contains(text, `E\x1b[2J\u{202e}v`) || !strings.Contains(text, "possibly encrypted") {
		t.Errorf("the text:\n%s", text)
	}
}

func TestInspectionWithoutWindows(t *testing.T) {
	i := inspect(t, made(t, "bitlocker", "vhdx"), InspectionOptions{})
	if len(i.Windows) != 0 || !strings.Contains(i.NoWindows, "BitLocker") || !slices.Contains(codesOf(i), "disk 0, partition 2 Encrypted") {
		t.Errorf("%+v", i)
	}
	if p := i.Disks[0].Partitions[1]; p.FileSystem != "BitLocker" || p.Error == "" || p.Volume != nil {
		t.Errorf("%+v", p)
	}
	if text := asText(t, i); !strings.Contains(text, "BitLocker") {
		t.Error(text)
	}
	i = inspect(t, made(t, "not-windows", "vmdk"), InspectionOptions{})
	if len(i.Windows) != 0 || i.NoWindows == "" || len(i.Disks[0].Partitions) == 0 {
		t.Errorf("%+v", i)
	}
	b, err := json.Marshal(i)
	if err != nil || !bytes.Contains(b, []byte(`"windows":[]`)) || !bytes.Contains(b, []byte(`"suspicious":[]`)) {
		t.Errorf("%v %s", err, b)
	}
}

func TestInspectionVerifies(t *testing.T) {
	path := made(t, phony.Base, "ova")
	i := inspect(t, path, InspectionOptions{Verify: true})
	if i.Container.Integrity != Verified || len(i.Warnings) != 0 || len(i.Suspicious) != 0 {
		t.Errorf("%+v", i)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// The last bytes of the tar are its padding; before them is the end of the disk, where its footer lies.
	at := info.Size() - 64<<10
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	i = inspect(t, path, InspectionOptions{Verify: true})
	if c := i.Container; c.Integrity != Broken || !strings.Contains(c.IntegrityWhy, "disk1.vmdk") || !slices.Contains(codesOf(i), " Damaged") {
		t.Errorf("%+v %q", c, codesOf(i))
	}
	if !strings.Contains(asText(t, i), "DAMAGED") {
		t.Error("the text does not say that the file is damaged")
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "Grüße 日本": "Grüße 日本", "\x1b[2J": `\x1b[2J`, "a\nb\tc": `a\x0ab\x09c`, "\u202etxt.exe": `\u{202e}txt.exe`,
		"\u009b2J": `\x9b2J`, "\xff": `\xff`, "\x7f": `\x7f`, "\ufffd": "\ufffd", "": "",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestInspectionIsTheSameInEveryFormat: the same disk of 64 GiB shows the same, and little of the file is read for it.
func TestInspectionIsTheSameInEveryFormat(t *testing.T) {
	const most = 8 << 20 // bytes; $Bitmap of 64 GiB alone has 2 MiB
	first := ""
	for _, format := range phony.Formats {
		src := phonytest.OpenCounted(t, made(t, "big", format))
		env, err := disk.Open(src, disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		i, err := NewInspection(t.Context(), env, InspectionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := src.Read(); n == 0 || n > most {
			t.Errorf("%s: %d bytes were read", format, n)
		}
		if d := &i.Disks[0]; !strings.EqualFold(i.Container.Format, format) || d.SizeBytes != 64<<30 || d.FileBytes <= 0 {
			t.Errorf("%s: %+v", format, d)
		} else {
			d.Name, d.Format, d.SubFormat, d.FileBytes = "", "", "", 0
		}
		i.Container, i.Warnings = Container{}, nil
		b, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte(" (big-disk1.vmdk)"), nil) // where the OVA's disk is named
		if first == "" {
			first = string(b)
		} else if string(b) != first {
			t.Errorf("%s: %s, but %s: %s", phony.Formats[0], first, format, b)
		}
	}
}

// TestInspectionEndsWithItsContext: nothing is half told.
func TestInspectionEndsWithItsContext(t *testing.T) {
	env, err := disk.OpenFile(made(t, phony.Base, "ova"), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = env.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, verify := range []bool{false, true} {
		if i, err := NewInspection(ctx, env, InspectionOptions{Verify: verify}); !errors.Is(err, context.Canceled) || i != nil {
			t.Errorf("%v, %v", i, err)
		}
	}
}

// sharing is a key of a hive whose keys share one long text, as no Windows writes it.
type sharing struct {
	windows.Key
	subkeys int
}

func (s sharing) Subkeys() ([]string, error) {
	names := make([]string, s.subkeys)
	for i := range names {
		names[i] = fmt.Sprintf("%04d", i)
	}
	return names, nil
}

func (s sharing) Open(name string) (windows.Key, error) {
	if name == "StartOverride" {
		return nil, fs.ErrNotExist
	}
	return sharing{}, nil
}

func (s sharing) Value(name string) (windows.Value, error) {
	switch name {
	case "Start":
		return windows.Value{Type: windows.RegDWORD, Data: make([]byte, 4)}, nil
	case "Group":
		return windows.Value{Type: windows.RegSZ, Data: []byte("S\x00C\x00S\x00I\x00 \x00m\x00i\x00n\x00i\x00p\x00o\x00r\x00t\x00")}, nil
	}
	return windows.Value{Type: windows.RegSZ, Data: bytes.Repeat([]byte("x\x00"), maxText/2)}, nil
}

// sharingSystem has such a key wherever it is asked.
type sharingSystem struct {
	hiveSystem
	subkeys int
}

func (s *sharingSystem) Hive(windows.Hive) windows.HiveState { return windows.HiveState{} }
func (s *sharingSystem) Open(windows.Hive, string) (windows.Key, error) {
	return sharing{subkeys: s.subkeys}, nil
}

// TestListsAreBounded: a small hive cannot make a list of gigabytes.
func TestListsAreBounded(t *testing.T) {
	for _, c := range []struct {
		subkeys int
		why     string
	}{{10, ""}, {maxAdapters, "its texts have more than"}, {maxServices + 1, "at most are read"}} {
		s := &sharingSystem{hiveSystem{files: fstest.MapFS{}}, c.subkeys}
		nics := networkAdapters(s)
		storage, support := driverServices(s)
		for what, unknown := range map[string]string{"network": nics.Unknown, "storage": storage.Unknown, "support": support.Unknown} {
			if (unknown == "") != (c.why == "") || !strings.Contains(unknown, c.why) {
				t.Errorf("%d keys, %s: %q, want %q", c.subkeys, what, unknown, c.why)
			}
		}
	}
}
