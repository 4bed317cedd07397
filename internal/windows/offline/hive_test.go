package offline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/windows"
	"berth/internal/windows/registry"
	"berth/testdata/hostile"
)

// realHives are hives that Windows wrote; they are not part of the project.
const realHives = "../../../../shared/data/hives"

func realHive(t *testing.T, name string) []byte {
	t.Helper()
	if _, err := os.Stat(realHives); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no real hives on this machine")
	}
	b, err := exec.CommandContext(t.Context(), "xz", "-dc", filepath.Join(realHives, name+".xz")).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

const configDir = "Windows/System32/config/"

// installation is a System that has only the SYSTEM hive and what lies beside it.
func installation(files fs.FS) *System {
	return &System{hives: map[windows.Hive]*hive{windows.SystemHive: {name: windows.SystemHive, files: files, path: configDir + "SYSTEM"}}}
}

// build makes a SYSTEM hive from regedit's text.
func build(t *testing.T, text string, dirty bool) []byte {
	t.Helper()
	root, err := registry.Parse("Windows Registry Editor Version 5.00\n\n" + text)
	if err != nil {
		t.Fatal(err)
	}
	b, err := registry.Build(root.Key("SYSTEM"), registry.BuildOptions{Dirty: dirty})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestControlSet(t *testing.T) {
	const two = "[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Control]\n\"Which\"=\"one\"\n[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet002\\Control]\n\"Which\"=\"two\"\n"
	const sel = "[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]\n"
	for name, c := range map[string]struct{ text, want string }{
		"first":        {two + sel + "\"Current\"=dword:00000001\n\"Default\"=dword:00000002\n", "one"},
		"second":       {two + sel + "\"Current\"=dword:00000002\n\"Default\"=dword:00000001\n", "two"},
		"no Select":    {two, ""},
		"no Current":   {two + sel + "\"Default\"=dword:00000001\n", ""},
		"zero":         {two + sel + "\"Current\"=dword:00000000\n", ""},
		"text":         {two + sel + "\"Current\"=\"1\"\n", ""},
		"too large":    {two + sel + "\"Current\"=dword:ffffffff\n", ""},
		"missing set":  {two + sel + "\"Current\"=dword:00000003\n", ""},
		"cut to bytes": {two + sel + "\"Current\"=hex(4):01,00\n", ""},
	} {
		s := installation(fstest.MapFS{configDir + "SYSTEM": {Data: build(t, c.text, false)}})
		k, err := s.Open(windows.SystemHive, `CurrentControlSet\Control`)
		if c.want == "" {
			if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "Select") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v, err := k.Value("Which"); err != nil || strings.TrimRight(decodeUTF16(v.Data), "\x00") != c.want {
			t.Errorf("%s: %q, %v", name, v.Data, err)
		}
		// Only the first component stands for it, and only in full.
		for _, p := range []string{`CurrentControlSet001\Control`, `Select\CurrentControlSet`} {
			if _, err := s.Open(windows.SystemHive, p); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
}

func TestDirtyHive(t *testing.T) {
	b := build(t, "[HKEY_LOCAL_MACHINE\\SYSTEM\\Setup]\n\"CmdLine\"=\"\"\n", true)
	s := installation(fstest.MapFS{configDir + "SYSTEM": {Data: b}})
	if st := s.Hive(windows.SystemHive); st.Err != nil || !st.Dirty || !st.Stale || st.Why == "" || st.Replayed != 0 {
		t.Errorf("without logs: %+v", st)
	}
	// A log that is there and cannot be read is not a log that is missing.
	s = installation(brokenLog{fstest.MapFS{configDir + "SYSTEM": {Data: b}}})
	if st := s.Hive(windows.SystemHive); st.Err == nil && !st.Stale || !strings.Contains(errorText(st), "the disk is bad") {
		t.Errorf("unreadable log: %+v", st)
	}
	// A clean hive needs no log.
	clean := build(t, "[HKEY_LOCAL_MACHINE\\SYSTEM\\Setup]\n\"CmdLine\"=\"\"\n", false)
	s = installation(brokenLog{fstest.MapFS{configDir + "SYSTEM": {Data: clean}}})
	if st := s.Hive(windows.SystemHive); st != (windows.HiveState{}) {
		t.Errorf("clean: %+v", st)
	}
}

func errorText(st windows.HiveState) string {
	if st.Err != nil {
		return st.Err.Error()
	}
	return st.Why
}

// brokenLog is a volume on which LOG1 cannot be read.
type brokenLog struct{ fs.FS }

func (b brokenLog) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, ".LOG1") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("the disk is bad")}
	}
	return b.FS.Open(name)
}

func TestRealDirtyHive(t *testing.T) {
	files := fstest.MapFS{configDir + "SYSTEM": {Data: realHive(t, "SYSTEM_B")}}
	s := installation(files)
	if st := s.Hive(windows.SystemHive); st.Err != nil || !st.Stale {
		t.Errorf("without logs: %+v", st)
	}
	files[configDir+"SYSTEM.LOG1"] = &fstest.MapFile{Data: realHive(t, "SYSTEM_B.LOG1")}
	files[configDir+"SYSTEM.LOG2"] = &fstest.MapFile{Data: realHive(t, "SYSTEM_B.LOG2")}
	s = installation(files)
	if st := s.Hive(windows.SystemHive); st.Err != nil || !st.Dirty || st.Stale || st.Replayed == 0 {
		t.Errorf("with logs: %+v", st)
	}
	k, err := s.Open(windows.SystemHive, `CurrentControlSet\Control\Session Manager`)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := k.Subkeys(); err != nil || len(list) < 5 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestWindowsBootStore reads a boot configuration that Windows wrote.
func TestWindowsBootStore(t *testing.T) {
	h := &hive{name: windows.BCD, files: fstest.MapFS{"BCD": {Data: realHive(t, "BCD")}}, path: "BCD"}
	root, err := h.root()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := root.Open("Objects")
	if err != nil {
		t.Fatal(err)
	}
	names, err := objects.Subkeys()
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	loaders := map[string]bool{}
	for _, n := range names {
		k, err := objects.Open(n + `\Elements\12000002`)
		if err != nil {
			continue
		}
		v, err := k.Value("Element")
		if err != nil {
			t.Error(err)
		}
		p := strings.ToLower(strings.TrimRight(decodeUTF16(v.Data), "\x00"))
		loaders[p[strings.LastIndexByte(p, '\\')+1:]] = true
	}
	if !loaders["winload.exe"] && !loaders["winload.efi"] || loaders["winload.efi"] != startsWinloadEFI(h) {
		t.Errorf("%v, startsWinloadEFI %v", loaders, startsWinloadEFI(h))
	}
}

// FuzzBootStore reads a boot configuration in which 4 bytes are another value, or one that is all the fuzzer's.
func FuzzBootStore(f *testing.F) {
	root := &registry.Node{Name: "BCD00000000"}
	for i := range 3 {
		object := fmt.Sprintf(`Objects\{%08d-0000-0000-0000-000000000000}`, i)
		root.Make(object + `\Description`).Set(registry.NewDWORD("Type", 0x10200003))
		root.Make(object + `\Elements\12000002`).Set(registry.NewSZ("Element", `\Windows\system32\winload.efi`))
	}
	store, err := registry.Build(root, registry.BuildOptions{})
	if err != nil {
		f.Fatal(err)
	}
	if !startsWinloadEFI(&hive{name: windows.BCD, files: fstest.MapFS{"BCD": {Data: store}}, path: "BCD"}) {
		f.Fatal("the seed is not read as what it is")
	}
	f.Add(store, -1, uint32(0))
	for at := 4096; at < len(store); at += 52 {
		f.Add(store, at, uint32(0xffffffff))
	}
	f.Fuzz(func(t *testing.T, b []byte, at int, v uint32) {
		if at >= 0 && at <= len(b)-4 {
			b = bytes.Clone(b)
			binary.LittleEndian.PutUint32(b[at:], v)
		}
		hostile.Bounded(t, int64(len(b)), func() {
			h := &hive{name: windows.BCD, files: fstest.MapFS{"BCD": {Data: b}}, path: "BCD"}
			if startsWinloadEFI(h) && h.state().Err != nil {
				t.Errorf("winload.efi was found in a store that does not open: %v", h.state().Err)
			}
		})
	})
}
