package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/windows/registry"
)

// TestHiveFile opens hives as users leave them behind: closed, or not closed and with logs or without.
func TestHiveFile(t *testing.T) {
	root := &registry.Node{Name: "ROOT"}
	root.Make("Environment").Set(registry.NewSZ("TEMP", "here"))
	build := func(dirty bool) *fstest.MapFile {
		b, err := registry.Build(root, registry.BuildOptions{Dirty: dirty})
		if err != nil {
			t.Fatal(err)
		}
		return &fstest.MapFile{Data: b}
	}
	const name = "Users/Joe/NTUSER.DAT"
	for what, c := range map[string]struct {
		files fs.FS
		state string // of the hive: clean, stale; or what the error contains
	}{
		"closed":                      {fstest.MapFS{name: build(false)}, "clean"},
		"not closed":                  {fstest.MapFS{name: build(true)}, "stale"},
		"not closed, with empty logs": {fstest.MapFS{name: build(true), name + ".LOG1": {}, name + ".LOG2": {}}, "stale"},
		"log that cannot be read":     {badLog{fstest.MapFS{name: build(true)}}, "the disk is bad"},
		"a folder":                    {fstest.MapFS{name + "/x": {}}, "not a file"},
		"no hive":                     {fstest.MapFS{name: {Data: make([]byte, 8192)}}, "hive"},
		"none":                        {fstest.MapFS{}, "does not exist"},
	} {
		h, err := hiveFile(c.files, name)
		got := "clean"
		switch {
		case err != nil:
			got = err.Error()
		case h.State().Stale:
			got = "stale"
		}
		if !strings.Contains(got, c.state) {
			t.Errorf("%s: %s, want %s", what, got, c.state)
		}
	}
}

// badLog is a volume on which LOG2 is there and cannot be read.
type badLog struct{ fs.FS }

func (b badLog) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, ".LOG2") {
		return nil, errors.New("the disk is bad")
	}
	return b.FS.Open(name)
}

func TestUserKey(t *testing.T) {
	for in, want := range map[string]struct {
		sid, path string
		ok        bool
	}{
		"HKU": {"", "", true}, `\HKEY_USERS\`: {"", "", true}, `hku\S-1-5-18`: {"S-1-5-18", "", true}, `HKU\s-1-5-20\A b\C\`: {"s-1-5-20", `A b\C`, true},
		`HKU\.default\x`: {}, `HKLM\SOFTWARE`: {}, `HKUX\x`: {}, "": {},
	} {
		if sid, path, ok, err := userKey(in); sid != want.sid || path != want.path || ok != want.ok || err != nil {
			t.Errorf("%s: %q %q %v %v", in, sid, path, ok, err)
		}
	}
	if _, _, _, err := userKey(`HKU\S-1-5-18\a\\b`); err == nil {
		t.Error("a key without a name")
	}
}

// TestHiveFileWithLogs opens a hive that Windows had open, with the logs that it was written to.
func TestHiveFileWithLogs(t *testing.T) {
	const hives = "../../../shared/data/hives"
	if _, err := os.Stat(hives); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no real hives on this machine")
	}
	files := fstest.MapFS{}
	for _, suffix := range []string{"", ".LOG1", ".LOG2"} {
		b, err := exec.CommandContext(t.Context(), "xz", "-dc", filepath.Join(hives, "SYSTEM_B"+suffix+".xz")).Output()
		if err != nil {
			t.Fatal(err)
		}
		files["Users/Joe/NTUSER.DAT"+suffix] = &fstest.MapFile{Data: b}
	}
	h, err := hiveFile(files, "Users/Joe/NTUSER.DAT")
	if err != nil {
		t.Fatal(err)
	}
	if st := h.State(); !st.Dirty || st.Stale || st.Entries == 0 {
		t.Errorf("%+v", st)
	}
}
