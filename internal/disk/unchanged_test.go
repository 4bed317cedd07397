package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A copy of a disk that is written to meanwhile, as by a machine that runs, would be half of one state of it and half of another:
// it does not appear, and nothing is kept to be gone on with.
func TestSourcesThatAreWrittenToMeanwhile(t *testing.T) {
	guest := guestDisk(30<<20, 57)
	extent := bytes.NewBuffer(nil)
	extent.WriteString("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 61440 FLAT \"flat.vmdk\" 0\n")
	for name, c := range map[string]struct {
		change func(file string) error
		file   string // which; "": none is
	}{
		"left alone":        {nil, ""},
		"one byte":          {func(file string) error { return writeByte(file, 29<<20) }, "disk.raw"},
		"longer":            {func(file string) error { return os.Truncate(file, 31<<20) }, "disk.raw"},
		"the file beside":   {func(file string) error { return writeByte(file, 29<<20) }, "flat.vmdk"},
		"another is beside": {func(file string) error { return os.Rename(file, file+".old") }, "flat.vmdk"}, // what was opened is as it was
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			long := time.Now().Add(-time.Hour)
			for file, content := range map[string][]byte{"disk.raw": guest, "disk.vmdk": extent.Bytes(), "flat.vmdk": guest} {
				if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(filepath.Join(dir, file), long, long); err != nil {
					t.Fatal(err)
				}
			}
			folder, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			source, format := "disk.raw", "RAW"
			if c.file == "flat.vmdk" {
				source, format = "disk.vmdk", ""
			}
			e, err := OpenFile(filepath.Join(dir, source), Options{Format: format, Siblings: SiblingsIn(folder)})
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, e)
			before := e.Identity()
			changed := false
			out := filepath.Join(t.TempDir(), "out")
			_, err = CopyFile(t.Context(), out, e.Disks[0], CopyOptions{Checkpoint: before, Resume: true, Confirm: e.Unchanged,
				Progress: func(int64, int64) {
					if c.change != nil && !changed {
						changed = true
						if err := c.change(filepath.Join(dir, c.file)); err != nil {
							t.Error(err)
						}
					}
				}})
			left, _ := filepath.Glob(out + "*")
			if c.change == nil || name == "another is beside" {
				if err != nil || len(left) != 1 {
					t.Errorf("%q: %v", left, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), filepath.Base(c.file)+" was written to while it was read") || len(left) != 0 {
				t.Errorf("left are %q: %v", left, err)
			}
			again, err := OpenFile(filepath.Join(dir, source), Options{Format: format, Siblings: SiblingsIn(folder)})
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, again)
			if again.Identity() == before || e.Identity() != before {
				t.Errorf("the files are %s, as they were before", again.Identity())
			}
		})
	}
}

func writeByte(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte{0x5A}, at); err != nil {
		return err
	}
	return f.Close()
}
