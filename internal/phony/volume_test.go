package phony

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ntfs3g runs one of ntfs-3g's tools, which know nothing of our writer.
func ntfs3g(t *testing.T, tool string, args ...string) string {
	t.Helper()
	path, err := findTool(tool, "ntfs-3g")
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", tool, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

func TestVolume(t *testing.T) {
	root := newFolder("")
	want := map[string][]byte{}
	put := func(path string, data []byte) {
		t.Helper()
		if err := root.put(path, &node{data: data}); err != nil {
			t.Fatal(err)
		}
		want[path] = data
	}
	put("bootmgr", []byte("tiny"))
	put("Windows/System32/config/SYSTEM", bytes.Repeat([]byte("registry"), 40000))
	put("Windows/empty.txt", nil)
	put("Straße/ein Name, der länger ist als die meisten und viel mehr.txt", []byte("ü"))
	for i := range 700 { // more than one level of index blocks below a root
		put(fmt.Sprintf("Windows/WinSxS/component-%04d-with-a-rather-long-name-as-they-are-there", i*37%1000), []byte(fmt.Sprint(i)))
	}
	for i := range 12 { // around the border between a resident index and a large one
		for j := range i {
			put(fmt.Sprintf("border/%d/file-%d", i, j), []byte("x"))
		}
	}
	for n := 600; n < 800; n += 8 { // and between resident and non-resident data
		put(fmt.Sprintf("resident/%d", n), bytes.Repeat([]byte("r"), n))
	}
	if err := root.put("pagefile.sys", &node{size: 1 << 30, flags: fileHidden | fileSystem}); err != nil {
		t.Fatal(err)
	}
	if err := root.put("Documents and Settings", &node{folder: true, junction: `C:\Users`, flags: fileHidden | fileSystem}); err != nil {
		t.Fatal(err)
	}

	const start, size = 1 << 20, 4 << 30
	disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := formatNTFS(context.Background(), disk, start, size, "Proof", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	v, err := openVolume(disk, start, 132539328000000000)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.save(root); err != nil {
		t.Fatal(err)
	}

	// The tools read a volume that is a file of its own.
	alone, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	if err := alone.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := cutOut(alone, disk, start, size); err != nil {
		t.Fatal(err)
	}
	name := alone.Name()
	out := ntfs3g(t, "ntfsfix", "-n", name)
	if !strings.Contains(out, "processed successfully") {
		t.Error(out)
	}
	ntfs3g(t, "ntfsresize", "--info", "--force", name)
	list := ntfs3g(t, "ntfsls", "-R", name)
	for _, s := range []string{"component-0999-", "pagefile.sys"} {
		if !strings.Contains(list, s) {
			t.Errorf("ntfsls does not list %s", s)
		}
	}
	for path, data := range want {
		if strings.Contains(path, "component") && !strings.Contains(path, "7") {
			continue // a process for each is slow
		}
		if got := ntfs3g(t, "ntfscat", name, path); got != string(data) {
			t.Errorf("ntfscat %s: %d bytes, want %d", path, len(got), len(data))
		}
	}
}
