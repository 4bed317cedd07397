package ntfs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"testing"
)

// TestDirectoryOf20000: the directory that testdata/bigdir.sh made with ntfs-3g is searched by its index. Every name is found, in any
// case, no other one is, and a lookup reads a few nodes of megabytes of directory.
func TestDirectoryOf20000(t *testing.T) {
	const files = 20_000
	f, err := os.Open("testdata/bigdir.img.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	img, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{r: bytes.NewReader(img)}
	v, err := Open(c, int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	tree := v.FS()
	c.bytes = 0
	list, err := tree.ReadDir("many")
	if err != nil || len(list) != files {
		t.Fatal(len(list), err)
	}
	directory := c.bytes
	if directory < 2<<20 {
		t.Errorf("the directory is said to have %d bytes", directory)
	}
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprintf("Entry %d.dat", i)
	}
	slices.Sort(names)
	for i, e := range list {
		if e.Name() != names[i] || e.IsDir() {
			t.Fatalf("entry %d is %s, want %s", i, e.Name(), names[i])
		}
	}
	most := 0
	look := func(name string, there bool) {
		c.bytes = 0
		_, err := tree.Stat("many/" + name)
		if there && err != nil || !there && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		most = max(most, c.bytes)
	}
	for i := range files {
		look(fmt.Sprintf("Entry %d.dat", i), true)
		if i%7 == 0 {
			look(fmt.Sprintf("ENTRY %d.DAT", i), true)
			look(fmt.Sprintf("Entry %d.da", i), false)
			look(fmt.Sprintf("Entry %d.", files+i), false)
		}
	}
	if most > 32<<10 {
		t.Errorf("a lookup read %d bytes; the whole directory has %d", most, directory)
	}
	t.Logf("a lookup reads %d bytes at most, the directory %d", most, directory)
	// What is in them: one has something.
	for _, name := range names {
		want := ""
		if name == "Entry 12345.dat" {
			want = "the one that is looked for"
		}
		if b, err := tree.ReadFile("many/" + name); string(b) != want || err != nil {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}
