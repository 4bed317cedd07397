package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestConvert(t *testing.T) {
	dir := t.TempDir()
	disk := bytes.Repeat([]byte("berth..."), 1<<16)
	copy(disk[510:], "\x55\xaa")
	in, out := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.raw")
	if err := os.WriteFile(in, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run([]string{"convert", in, out, "--durable"}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, args := range [][]string{
		{"convert", in, in},  // over its input
		{"convert", in, out}, // over another file
		{"convert", in, filepath.Join(dir, "new.raw"), "--disk", "2"}, // there is one
	} {
		if code := run(args); code != 2 {
			t.Errorf("%q: exit code %d, want 2", args, code)
		}
	}
	for _, path := range []string{in, out} {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%s differs: %v", path, err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("files %v: %v", files, err)
	}
}
