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
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"berth/internal/windows"
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
