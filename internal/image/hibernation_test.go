package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/phony"
	"berth/internal/windows"
	"berth/internal/windows/registry"
	"berth/testdata/machines"
)

// sleeper is a Windows of which only C: and the SYSTEM hive are known.
type sleeper struct {
	windows.System
	files fs.FS
	root  windows.Key
}

func (s sleeper) Files() fs.FS { return s.files }

func (s sleeper) Hive(windows.Hive) windows.HiveState { return windows.HiveState{} }

func (s sleeper) Open(_ windows.Hive, path string) (windows.Key, error) {
	return s.root.Open(strings.Replace(path, "CurrentControlSet", "ControlSet001", 1))
}

// badFile is a volume whose files open and cannot be read.
type badFile struct{ fstest.MapFS }

var errBadSector = errors.New("a sector cannot be read")

func (b badFile) Open(name string) (fs.File, error) {
	f, err := b.MapFS.Open(name)
	return badReader{f}, err
}

type badReader struct{ fs.File }

func (badReader) Read([]byte) (int, error) { return 0, errBadSector }

// TestHibernation reads what hiberfil.sys begins with, in every state that Windows leaves it in.
func TestHibernation(t *testing.T) {
	page := func(begin string) []byte { return append([]byte(begin), make([]byte, 4096-len(begin))...) }
	for name, c := range map[string]struct {
		file  []byte // nil: there is none
		state string
		from  string
	}{
		"no file":                      {nil, "none", "is not there"},
		"empty":                        {[]byte{}, "none", "is empty"},
		"three bytes":                  {[]byte("HIB"), "none", "is empty"},
		"hibernated":                   {page("HIBR"), "hibernated", `"HIBR"`},
		"hibernated, before Windows 8": {page("hibr"), "hibernated", `"hibr"`},
		"while it resumes":             {page("RSTR"), "hibernated", `"RSTR"`},
		"resumed":                      {page("WAKE"), "resumed", `"WAKE"`},
		"resumed, before Windows 8":    {page("wake"), "resumed", `"wake"`},
		"shut down fully":              {page(""), "none", "00 00 00 00"},
		"something else":               {page("\x1b[2J"), "none", "1b 5b 32 4a"},
		"the word further behind":      {page("xHIBR"), "none", "78 48 49 42"},
	} {
		files := fstest.MapFS{}
		if c.file != nil {
			files["hiberfil.sys"] = &fstest.MapFile{Data: c.file}
		}
		got := hibernation(sleeper{files: files})
		if got.Value == nil || *got.Value != c.state || !strings.Contains(got.From, c.from) || got.Unknown != "" {
			t.Errorf("%s: %+v", name, got)
		}
		// What cannot be read is not known; what is not there still surely is not.
		bad := hibernation(sleeper{files: badFile{files}})
		switch {
		case len(c.file) < 4:
			if bad.Value == nil || *bad.Value != "none" {
				t.Errorf("%s on a bad disk: %+v", name, bad)
			}
		case bad.Value != nil || !strings.Contains(bad.Unknown, errBadSector.Error()):
			t.Errorf("%s on a bad disk: %+v", name, bad)
		}
	}
}

// TestFastStartup reads HiberbootEnabled; a value of another type is not known, and neither is one that is not there.
func TestFastStartup(t *testing.T) {
	on, off := true, false
	for text, want := range map[string]*bool{
		`"HiberbootEnabled"=dword:00000001`:                 &on,
		`"HiberbootEnabled"=dword:00000000`:                 &off,
		`"HiberbootEnabled"="1"`:                            nil,
		`"HiberbootEnabled"=hex:01`:                         nil,
		`"HibernateEnabled"=dword:00000001`:                 nil,
		`"HiberbootEnabled"=hex(4):01,00,00,00,00,00,00,00`: nil,
	} {
		n, err := registry.Parse("[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Control\\Session Manager\\Power]\n" + text + "\n")
		if err != nil {
			t.Fatal(err)
		}
		b, err := registry.Build(n.Key("SYSTEM"), registry.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h, err := registry.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		root, err := h.Root()
		if err != nil {
			t.Fatal(err)
		}
		got := fastStartup(sleeper{root: root})
		if fmt.Sprint(deref(got.Value)) != fmt.Sprint(deref(want)) || (got.Unknown == "") != (want != nil) || !strings.HasSuffix(got.From, `Session Manager\Power\HiberbootEnabled`) {
			t.Errorf("%s: %+v, %v", text, got, deref(got.Value))
		}
	}
}

func deref(b *bool) any {
	if b == nil {
		return nil
	}
	return *b
}

// TestWhatSleepsIsSuspicious: a hibernated disk is not the machine's whole state, and Fast Startup hibernates at each shutdown as long as
// there is a file to do so.
func TestWhatSleepsIsSuspicious(t *testing.T) {
	base, err := fs.ReadFile(machines.FS, phony.Base+".txtar")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		fastStartup int
		file        string
		codes       []string
	}{
		"on, no file":        {1, "", nil},
		"on, shut down":      {1, `size 1MiB`, []string{SuspiciousFastStartup}},
		"on, hibernated":     {1, `text "HIBR and the kernel"`, []string{SuspiciousHibernated, SuspiciousFastStartup}},
		"off, hibernated":    {0, `text "HIBR and all"`, []string{SuspiciousHibernated}},
		"off, has resumed":   {0, `text "WAKE and the rest"`, nil},
		"off, being resumed": {0, `text "RSTR and the rest"`, []string{SuspiciousHibernated}},
	} {
		text := fmt.Sprintf("A machine that sleeps.\n-- machine --\nbase = %s\ndisk = 4GiB\n-- registry.reg --\n[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Control\\Session Manager\\Power]\n\"HiberbootEnabled\"=dword:%08x\n", phony.Base, c.fastStartup)
		if c.file != "" {
			text += "-- files --\nhiberfil.sys = " + c.file + "\n"
		}
		m, err := phony.LoadFS(fstest.MapFS{phony.Base + ".txtar": {Data: base}, "sleeper.txtar": {Data: []byte(text)}}, "sleeper")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "disk.raw")
		if err := m.WriteRaw(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		var codes []string
		for _, s := range inspect(t, path, InspectionOptions{}).Suspicious {
			codes = append(codes, s.Code)
		}
		if !slices.Equal(codes, c.codes) {
			t.Errorf("%s: %q, want %q", name, codes, c.codes)
		}
	}
}
