package phony

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/windows"
	"berth/internal/windows/registry"
	"berth/testdata/machines"
)

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
