//go:build unix

package disk

import (
	"os"
	"syscall"
	"testing"
)

// stored is how many bytes of a file its file system keeps.
func stored(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
