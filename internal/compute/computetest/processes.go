package computetest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Processes lists the QEMU processes of this machine, by their ids, that work with the service's data folder: what a test must leave
// none of. They outlive the service, so that no service can be asked for them.
func Processes(t testing.TB, data string) (pids []string) {
	t.Helper()
	data, err := filepath.EvalSymlinks(data)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte("qemu-system")) && bytes.Contains(b, []byte(data)) {
			pids = append(pids, strings.Split(f, "/")[2])
		}
	}
	return pids
}
