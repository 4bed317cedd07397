package registry

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// TestOpenFile opens hives as users leave them behind: closed, or not closed and with logs or without.
func TestOpenFile(t *testing.T) {
	root := &Node{Name: "ROOT"}
	root.Make("Environment").Set(NewSZ("TEMP", "here"))
	build := func(dirty bool) *fstest.MapFile {
		b, err := Build(root, BuildOptions{Dirty: dirty})
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
		h, done, err := OpenFile(c.files, name)
		got := "clean"
		switch {
		case err != nil:
			got = err.Error()
		case h.State().Stale:
			got = "stale"
		}
		done()
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

// TestOpenFileWithLogs opens a hive that Windows had open, with the logs that it was written to.
func TestOpenFileWithLogs(t *testing.T) {
	files := fstest.MapFS{}
	for _, suffix := range []string{"", ".LOG1", ".LOG2"} {
		files["Users/Joe/NTUSER.DAT"+suffix] = &fstest.MapFile{Data: realHive(t, "SYSTEM_B"+suffix)}
	}
	h, done, err := OpenFile(files, "Users/Joe/NTUSER.DAT")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if st := h.State(); !st.Dirty || st.Stale || st.Entries == 0 {
		t.Errorf("%+v", st)
	}
}
