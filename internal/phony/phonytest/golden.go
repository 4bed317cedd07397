package phonytest

import (
	"os"
	"path/filepath"
	"testing"
)

// Golden compares text with a file, whose path begins at the folder of the test's package, or with update writes the file. Every package that
// has such files has a flag of its own, -update, by which that is said.
func Golden(t testing.TB, update bool, file, got string) {
	t.Helper()
	if update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s is out of date (go test -update rewrites it); now:\n%s", file, got)
	}
}
