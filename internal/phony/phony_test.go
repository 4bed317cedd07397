package phony

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/windows"
	"berth/internal/windows/registry"
	"berth/testdata/machines"
)

func load(t testing.TB, name string) *Machine {
	t.Helper()
	m, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMachines writes every machine and lets other people's tools read its volumes.
func TestMachines(t *testing.T) {
	names, err := Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		m := load(t, name)
		if m.Summary == "" {
			t.Errorf("%s says nothing about itself", name)
		}
		if len(m.Findings) == 0 && m.Refused == "" {
			t.Errorf("%s does not say what the checks should find", name)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.raw")
			if err := m.WriteRaw(context.Background(), path); err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
				t.Errorf("beside the disk: %v", left)
			}
			checkTable(t, m, path)
			for i := range m.Partitions {
				p := &m.Partitions[i]
				if p.FileSystem != "ntfs" {
					continue
				}
				volume := volumeOf(t, path, p)
				if out := ntfs3g(t, "ntfsfix", "-n", volume); !strings.Contains(out, "processed successfully") {
					t.Errorf("ntfsfix: %s", out)
				}
				// ntfsresize accounts for every cluster: what the records use must be what $Bitmap says.
				if out := ntfs3g(t, "ntfsresize", "--info", "--force", volume); !strings.Contains(out, "Space in use") || strings.Contains(out, "ERROR") {
					t.Errorf("ntfsresize: %s", out)
				}
				list := ntfs3g(t, "ntfsls", "--force", "-R", "-F", volume)
				for _, f := range m.files {
					if base := f.path[strings.LastIndexByte(f.path, '/')+1:]; f.partition == p.Name && !strings.Contains(list, base) {
						t.Errorf("ntfsls does not list %s", f.path)
					}
				}
			}
		})
	}
}

// volumeOf cuts a partition out of a disk: ntfs-3g's tools want it alone.
func volumeOf(t *testing.T, disk string, p *Partition) string {
	t.Helper()
	src, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(t.TempDir(), p.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if err := dst.Truncate(p.Length); err != nil {
		t.Fatal(err)
	}
	if err := cutOut(dst, src, p.Start, p.Length); err != nil {
		t.Fatal(err)
	}
	return dst.Name()
}

// checkTable compares the partition table with what util-linux reads.
func checkTable(t *testing.T, m *Machine, path string) {
	t.Helper()
	if len(m.Partitions) == 0 {
		return
	}
	out, err := exec.Command("partx", "--bytes", "--raw", "--noheadings", "--output", "NR,START,SECTORS,TYPE,SCHEME,FLAGS", path).CombinedOutput()
	if err != nil {
		t.Fatalf("partx: %v: %s", err, out)
	}
	var want strings.Builder
	for i := range m.Partitions {
		p := &m.Partitions[i]
		typ, scheme, flags := strings.ToLower(p.Type), "dos", "0x0"
		if n, err := strconv.ParseUint(typ, 0, 8); err == nil {
			typ = fmt.Sprintf("%#x", n)
		}
		if m.Scheme == windows.GPT {
			scheme = "gpt"
		}
		if p.Active {
			flags = "0x80"
		}
		fmt.Fprintf(&want, "%d %d %d %s %s %s\n", i+1, p.Start/sectorBytes, p.Length/sectorBytes, typ, scheme, flags)
	}
	if string(out) != want.String() {
		t.Errorf("partx reads\n%swant\n%s", out, want.String())
	}
}

// TestBaseHives reads the base machine's hives from its volumes with ntfs-3g and hivex.
func TestBaseHives(t *testing.T) {
	m := load(t, Base)
	disk := baseDisk(t)
	system, boot := volumeOf(t, disk, m.Partition("windows")), volumeOf(t, disk, m.Partition("boot"))
	hive := func(volume, path string) string {
		name := filepath.Join(t.TempDir(), "hive")
		if err := os.WriteFile(name, []byte(ntfs3g(t, "ntfscat", volume, path)), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const config = "Windows/System32/config/"
	files := map[string]string{
		"SYSTEM": hive(system, config+"SYSTEM"), "SOFTWARE": hive(system, config+"SOFTWARE"), "SAM": hive(system, config+"SAM"),
		"SECURITY": hive(system, config+"SECURITY"), "DEFAULT": hive(system, config+"DEFAULT"),
		"NTUSER": hive(system, "Users/Default/NTUSER.DAT"), "BCD": hive(boot, "Boot/BCD"),
	}
	for _, c := range []struct{ hive, key, value, want string }{
		{"SYSTEM", `Select`, "Current", `"Current"=dword:00000001`},
		{"SYSTEM", `ControlSet001\Control\ComputerName\ComputerName`, "ComputerName", "BYOL-WIN10"},
		{"SYSTEM", `ControlSet001\Control\Session Manager\Environment`, "PROCESSOR_ARCHITECTURE", "AMD64"},
		// signature 8F3C5A21, and C: begins 51 MiB into the disk
		{"SYSTEM", `MountedDevices`, `\DosDevices\C:`, "hex(3):21,5a,3c,8f,00,00,30,03,00,00,00,00"},
		{"SOFTWARE", `Microsoft\Windows NT\CurrentVersion`, "CurrentBuildNumber", "19041"},
		{"SOFTWARE", `Microsoft\Windows NT\CurrentVersion`, "EditionID", "Enterprise"},
		{"SOFTWARE", `Microsoft\Windows NT\CurrentVersion`, "InstallDate", "dword:5f69c418"},
		{"SAM", `SAM\Domains\Account\Users\Names\WorkSpaces_BYOL`, "@", "hex(1001):"},
		{"SAM", `SAM\Domains\Account\Users\Names\Administrator`, "@", "hex(500):"},
		{"SAM", `SAM\Domains\Builtin\Aliases\Members\S-1-5-21-1472583690-2846193057-3905172846\000003E9`, "@", "str(2):\"\u0220"},
		{"SECURITY", `Policy\PolPrDmS`, "@", "hex(0):"},
		{"SECURITY", `Policy\PolAcDmS`, "@", "hex(0):01,04,00,00,00,00,00,05,15,00,00,00,0a,d8,c5,57,a1,75,a5,a9,6e,35,c4,e8"},
		{"DEFAULT", `Control Panel\International`, "LocaleName", "en-US"},
		{"NTUSER", `Control Panel\International`, "LocaleName", "en-US"},
		{"BCD", `Objects\{4b4e9c70-fcb4-11ea-9c1d-000c293a5e7d}\Elements\12000002`, "Element", `\\Windows\\system32\\winload.exe`},
	} {
		out := hivexsh(t, files[c.hive], c.key)
		ok := slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
			return strings.HasPrefix(strings.Trim(line, `"`), strings.ReplaceAll(c.value, `\`, `\\`)) && strings.Contains(line, c.want)
		})
		if !ok {
			t.Errorf("%s\\%s: no %s with %s in:\n%s", c.hive, c.key, c.value, c.want, out)
		}
	}
	if got := ntfs3g(t, "ntfscat", system, "Windows/System32/ntoskrnl.exe"); got[:2] != "MZ" || got[0x44:0x46] != "\x64\x86" {
		t.Errorf("ntoskrnl.exe begins %x", got[:0x46])
	}
}

func hivexsh(t *testing.T, file, key string) string {
	t.Helper()
	cmd := exec.Command("hivexsh", file)
	cmd.Stdin = strings.NewReader("cd \\" + key + "\nlsval\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("hivexsh %s: %v: %s", key, err, out)
	}
	return string(out)
}

// TestFreeSpace holds what a volume has free against what the files' sizes leave.
func TestFreeSpace(t *testing.T) {
	for name, want := range map[string][2]float64{Base: {38, 40}, "disk-free-space": {7, 9}, "disk-size-exceeded": {98, 100}} {
		m := load(t, name)
		path := filepath.Join(t.TempDir(), "disk.raw")
		if err := m.WriteRaw(context.Background(), path); err != nil {
			t.Fatal(err)
		}
		out := ntfs3g(t, "ntfsinfo", "-m", volumeOf(t, path, m.Partition("windows")))
		_, rest, _ := strings.Cut(out, "Free Clusters:")
		clusters, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if free := float64(clusters*clusterBytes) / (1 << 30); free < want[0] || free > want[1] {
			t.Errorf("%s: %.2f GiB are free, want %v", name, free, want)
		}
	}
}

// TestDeterministic writes a machine twice: the same bytes.
func TestDeterministic(t *testing.T) {
	first := baseDisk(t)
	second := filepath.Join(t.TempDir(), "again.raw")
	if err := load(t, Base).WriteRaw(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	if a, b := contents(t, first), contents(t, second); a != b {
		t.Error("two disks of one text differ")
	}
}

// contents is a hash over the blocks of a disk that are not zero, with their places: how a file system keeps holes differs.
func contents(t *testing.T, path string) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	block, zero := make([]byte, 65536), make([]byte, 65536)
	for off := int64(0); ; {
		data, end, err := nextData(f, off)
		if err != nil {
			t.Fatal(err)
		}
		if data == math.MaxInt64 {
			return [32]byte(h.Sum(nil))
		}
		for off = data &^ 65535; off < end; off += 65536 {
			n, err := f.ReadAt(block, off)
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if !bytes.Equal(block[:n], zero[:n]) {
				fmt.Fprintln(h, off)
				h.Write(block[:n])
			}
		}
	}
}

// TestExport writes every format, and lets qemu-img compare it with the raw disk. The disk is small because qemu-img reads
// each zero of a VHDX one by one: 40 GiB take it more than a minute.
func TestExport(t *testing.T) {
	m, err := LoadFS(overlay("A small one.\n-- machine --\nbase = win10-2004-enterprise\ndisk = 1GiB\n"), "x")
	if err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(t.TempDir(), "raw")
	if err := m.WriteRaw(context.Background(), raw); err != nil {
		t.Fatal(err)
	}
	for _, format := range Formats {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "machine."+format)
			if err := m.Export(context.Background(), path, format); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("beside the file: %v", left)
			}
			kind, target := qemuFormats[format], path
			switch format {
			case "raw":
				kind = []string{"raw"}
			case "ova":
				kind, target = []string{"vmdk"}, checkOVA(t, m, path)
			}
			out, err := exec.Command("qemu-img", "compare", "-f", "raw", "-F", kind[0], raw, target).CombinedOutput()
			if err != nil {
				t.Errorf("qemu-img compare: %v: %s", err, out)
			}
		})
	}
	if err := m.Export(context.Background(), filepath.Join(t.TempDir(), "x"), "iso"); err == nil {
		t.Error("an unknown format is written")
	}
}

// TestSampleVM writes what the demo imports.
func TestSampleVM(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sample.ova")
	if err := load(t, Base).Export(context.Background(), path, "ova"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 16<<20 {
		t.Errorf("%d bytes are no few MB", info.Size())
	}
	checkOVA(t, load(t, Base), path)
}

// checkOVA reads an OVA as an importer does and returns its disk, unpacked.
func checkOVA(t *testing.T, m *Machine, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	parts := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Format != tar.FormatUSTAR {
			t.Errorf("%s: tar format %v", h.Name, h.Format)
		}
		names = append(names, h.Name)
		if parts[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{m.Name + ".ovf", m.Name + ".mf", m.Name + "-disk1.vmdk"}; !slices.Equal(names, want) {
		t.Fatalf("parts %v, want %v", names, want)
	}
	for _, name := range []string{names[0], names[2]} {
		if line := fmt.Sprintf("SHA256(%s)= %x\n", name, sha256.Sum256(parts[name])); !strings.Contains(string(parts[names[1]]), line) {
			t.Errorf("the manifest does not hold %s", line)
		}
	}
	var ovf struct {
		References struct {
			File struct {
				Href string `xml:"href,attr"`
				Size int64  `xml:"size,attr"`
			}
		}
		DiskSection struct {
			Disk struct {
				Capacity int64 `xml:"capacity,attr"`
			}
		}
		VirtualSystem struct {
			OperatingSystemSection struct {
				OSType string `xml:"osType,attr"`
			}
			VirtualHardwareSection struct {
				Item []struct{ ResourceType, VirtualQuantity int }
			}
		}
	}
	if err := xml.Unmarshal(parts[names[0]], &ovf); err != nil {
		t.Fatal(err)
	}
	if ovf.References.File.Href != names[2] || ovf.References.File.Size != int64(len(parts[names[2]])) || ovf.DiskSection.Disk.Capacity != m.DiskBytes {
		t.Errorf("descriptor: %+v", ovf)
	}
	quantity := map[int]int{}
	for _, i := range ovf.VirtualSystem.VirtualHardwareSection.Item {
		quantity[i.ResourceType] = i.VirtualQuantity
	}
	if quantity[3] != 2 || quantity[4] != 4096 || ovf.VirtualSystem.OperatingSystemSection.OSType != "windows9_64Guest" {
		t.Errorf("hardware: %v, %+v", quantity, ovf.VirtualSystem)
	}
	disk := filepath.Join(t.TempDir(), "disk.vmdk")
	if err := os.WriteFile(disk, parts[names[2]], 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("qemu-img", "info", "-f", "vmdk", "--output=json", disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Specific struct {
			Data struct {
				CreateType string `json:"create-type"`
			}
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &info); err != nil || info.Specific.Data.CreateType != "streamOptimized" {
		t.Errorf("the disk is %s, %v", out, err)
	}
	return disk
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dir := t.TempDir()
	if err := load(t, Base).Export(ctx, filepath.Join(dir, "x"), "ova"); err == nil {
		t.Error("a cancelled export succeeds")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// overlay is the shared machines with one more text.
func overlay(text string) fs.FS {
	data, err := machines.FS.ReadFile(Base + ".txtar")
	if err != nil {
		panic(err)
	}
	return fstest.MapFS{Base + ".txtar": {Data: data}, "x.txtar": {Data: []byte(text)}}
}

func TestDifferences(t *testing.T) {
	m, err := LoadFS(overlay(`A machine with changes.
-- machine --
base = win10-2004-enterprise
disk = 64GiB
-- registry.reg --
[-HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\wuauserv]
[HKEY_LOCAL_MACHINE\SYSTEM\Select]
"Failed"=-
"Default"=dword:00000002
[HKEY_LOCAL_MACHINE\SYSTEM\New]
@="new"
-- accounts --
- Guest
workspaces_byol = rid 1002 disabled in Users
-- files --
- Windows/System32
- swapfile.sys
Windows/notes.txt = data notes
boot:Boot/extra/
-- data/notes --
two
lines
-- findings --
FAIL DiskSizeExceeded
`), "x")
	if err != nil {
		t.Fatal(err)
	}
	if m.Summary != "A machine with changes." || m.DiskBytes != 64<<30 || m.Partition("windows").Length != 64<<30-51<<20 {
		t.Errorf("%q, %d bytes, %+v", m.Summary, m.DiskBytes, m.Partitions)
	}
	if m.Registry.Key(`SYSTEM\ControlSet001\Services\wuauserv`) != nil || m.Registry.Key(`SYSTEM\ControlSet001\Services\TrustedInstaller`) == nil {
		t.Error("the wrong key is gone")
	}
	sel := m.Registry.Key(`SYSTEM\Select`)
	if _, ok := sel.Value("Failed"); ok {
		t.Error("the value is still there")
	}
	if v, _ := sel.Value("Default"); v.Data[0] != 2 {
		t.Errorf("Default is %v", v)
	}
	if v, _ := m.Registry.Key(`SYSTEM\New`).Value(""); v.Type != windows.RegSZ {
		t.Errorf("default value is %v", v)
	}
	var names []string
	for _, a := range m.Accounts {
		names = append(names, fmt.Sprint(a.Name, " ", a.RID, " ", a.Disabled, " ", a.Groups))
	}
	if want := []string{"Administrator 500 true [Administrators]", "DefaultAccount 503 true [System Managed Accounts Group]",
		"WDAGUtilityAccount 504 true []", "workspaces_byol 1002 true [Users]"}; !slices.Equal(names, want) {
		t.Errorf("accounts %q, want %q", names, want)
	}
	trees, err := m.trees()
	if err != nil {
		t.Fatal(err)
	}
	win := trees["windows"].children["WINDOWS"]
	if got := string(win.children["NOTES.TXT"].data); got != "two\nlines\n" {
		t.Errorf("notes %q", got)
	}
	if s32 := win.children["SYSTEM32"]; len(s32.children) != 1 || s32.children["CONFIG"] == nil { // the hives remain
		t.Errorf("System32 has %v", s32.children)
	}
	if trees["boot"].children["BOOT"].children["EXTRA"] == nil || trees["windows"].children["SWAPFILE.SYS"] != nil {
		t.Error("files are not as told")
	}
	// Its own, and of the base's what does not concern it.
	if want := map[string]string{"DiskSizeExceeded": "FAIL", "TPMNotFound": "NOT_APPLICABLE", "UEFIRequired": "NOT_APPLICABLE"}; !maps.Equal(m.Findings, want) {
		t.Errorf("findings %v, want %v", m.Findings, want)
	}
}

// TestErrors: each text is refused, and the error says where.
func TestErrors(t *testing.T) {
	const top = "-- machine --\nbase = win10-2004-enterprise\n"
	for text, want := range map[string]string{
		"-- machine --\nbase = x\n":                "based on itself",
		"-- machine --\nbase = nowhere\n":          "nowhere",
		"-- machine --\nbase = ../x\n":             "not the name of a machine",
		top + "-- machines --\n":                   "section machines: unknown section",
		top + "colour = blue\n":                    "section machine: line 2: colour: unknown setting",
		top + "disk = 40\n":                        "disk",
		top + "disk = 9999999TiB\n":                "not a size",
		top + "disk = 99999999999999999999GiB\n":   "not a size",
		top + "disk = -1GiB\n":                     "not a size",
		top + "disk = 20MiB\n":                     "partition boot",
		top + "scheme = APM\n":                     "APM",
		top + "scheme = none\n":                    "has no partitions",
		top + "installed = yesterday\n":            "installed",
		top + "installed = 0001-01-01T00:00:00Z\n": "year 1",
		top + "sid = S-1\n":                        "sid",
		top + "sid = S-1-5-99999999999\n":          "sid",
		top + "firmware = coreboot\n":              "firmware",
		top + "cpus = -1\n":                        "cpus",
		top + "- disk\n":                           "cannot be removed",
		top + "- partition d\n":                    "no partition d",
		top + "partition a b = size 1MiB\n":        "one word",
		top + "partition d = size\n":               "size needs a value",
		top + "partition d = size 100KiB\n":        "partition d",
		top + "partition d = size 1MiB type 300\n": "type",
		top + "partition d = size 1MiB blue\n":     "blue",
		top + "partition d = size 1MiB dirty\n":    "dirty",
		top + "partition d = label \"x\n":          "closing quote",
		top + "partition a = size 1MiB\npartition b = size 1MiB\npartition c = size 1MiB\n": "four partitions",
		top + "-- registry.reg --\n[HKEY_LOCAL_MACHINE\\SYSTEM\\x]\n\"a\"=dword:zz\n":       "section registry.reg: line 2",
		top + "-- registry.reg --\n[-HKEY_LOCAL_MACHINE\\SYSTEM\\Nothing]\n":                "no key",
		top + "-- registry.reg --\n[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]\n\"Nothing\"=-\n":   "no value",
		top + "-- registry.reg --\n[HKEY_LOCAL_MACHINE\\SYSTEM\\No]\n\"Nothing\"=-\n":       "no key",
		top + "-- accounts --\n- Nobody\n":                                                  "no account",
		top + "-- accounts --\nA = in Users\n":                                              "no rid",
		top + "-- accounts --\nA = rid x\n":                                                 "rid",
		top + "-- accounts --\nA = rid 500\n":                                               "same rid",
		top + "-- accounts --\nA = rid 1002 in Wheel\n":                                     "Wheel",
		top + "-- accounts --\nA = rid 1002 tall\n":                                         "tall",
		top + "-- files --\nd:x\n":                                                          "no partition d",
		top + "-- files --\n- nowhere\n":                                                    "no file",
		top + "-- files --\n/\n":                                                            "names no file",
		top + "-- files --\na = size\n":                                                     "needs a value",
		top + "-- files --\na = data b\n":                                                   "no section data/b",
		top + "-- files --\na = pe z80\n":                                                   "z80",
		top + "-- files --\na/ = text x\n":                                                  "contents are for files",
		top + "-- files --\na = junction C:\\x\n":                                           "junctions are folders",
		top + "-- findings --\nBAD Code\n":                                                  "no outcome",
		top + "-- findings --\nFAIL\n":                                                      "one code",
	} {
		_, err := LoadFS(overlay(text), "x")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want an error with %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		top + "-- files --\nWindows\n-- files --\n":                            "Windows is not a folder",
		top + "-- files --\na*b\n":                                             "not a Windows file name",
		top + "-- files --\na/../b\n":                                          "not a Windows file name",
		top + "-- files --\n" + strings.Repeat("a", 256) + "\n":                "not a Windows file name",
		top + "-- files --\nUsers/All Users/x\n":                               "not a folder",
		top + "-- files --\n$MFT\n":                                            "belongs to the file system",
		top + "-- files --\nbig = size 50GiB\n":                                "free clusters",
		top + "-- registry.reg --\n[HKEY_LOCAL_MACHINE\\HARDWARE]\n":           "no hive",
		top + "-- registry.reg --\n[SYSTEM\\CurrentControlSet]\n\"a\"=\"b\"\n": "CurrentControlSet",
	} {
		m, err := LoadFS(overlay(text), "x")
		path := filepath.Join(t.TempDir(), "disk")
		if err == nil {
			err = m.WriteRaw(context.Background(), path)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want an error with %q", text, err, want)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
			t.Errorf("%q leaves %v behind", text, left)
		}
	}
}

// tiny stands for the base machine where thousands are loaded.
const tiny = `Tiny.
-- machine --
disk = 1GiB
scheme = GPT
signature = 1
installed = 2020-01-01T00:00:00Z
sid = S-1-5-21-1
partition boot = size 1MiB type system ntfs
partition windows = size rest ntfs label "C \\ \""
-- registry.reg --
[HKEY_LOCAL_MACHINE\SYSTEM\Select]
"Current"=dword:00000001
[HKEY_LOCAL_MACHINE\SECURITY\Policy]
-- accounts --
WorkSpaces_BYOL = rid 1001 in Users comment "c"
-- files --
Users/Default User/ = junction C:\Users\Default hidden
boot:bootmgr = data b read-only
Windows/System32/ntoskrnl.exe = pe arm64 system
pagefile.sys = size 1MiB
-- data/b --
b
`

// FuzzMachine holds that no text makes Load or the trees panic, and that what loads keeps within its disk.
func FuzzMachine(f *testing.F) {
	names, err := Names()
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		data, err := machines.FS.ReadFile(name + ".txtar")
		if err != nil {
			f.Fatal(err)
		}
		if name != Base {
			f.Add(data)
		}
	}
	f.Add([]byte(tiny))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := LoadFS(fstest.MapFS{Base + ".txtar": {Data: []byte(tiny)}, "x.txtar": {Data: text}}, "x")
		if err != nil {
			return
		}
		end := int64(0)
		for _, p := range m.Partitions {
			if p.Start < end || p.Start < mebibyte || p.Length <= 0 || p.Start+p.Length > m.DiskBytes {
				t.Errorf("partition %+v on %d bytes", p, m.DiskBytes)
			}
			end = p.Start + p.Length
		}
		trees, err := m.trees()
		if err != nil {
			return
		}
		for _, tree := range trees {
			if tree.data != nil {
				t.Error("a root folder with contents")
			}
		}
		for _, k := range m.Registry.Keys {
			if _, err := registry.Build(k, registry.BuildOptions{}); err != nil {
				t.Errorf("hive %s was built and cannot be: %v", k.Name, err)
			}
		}
	})
}
