package phony

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

var shared string // folder for what several tests read

func TestMain(m *testing.M) {
	var err error
	if shared, err = os.MkdirTemp("", "phony-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(shared)
	os.Exit(code)
}

var makeBase = sync.OnceValues(func() (string, error) {
	m, err := Load(Base)
	if err != nil {
		return "", err
	}
	path := filepath.Join(shared, "base.raw")
	return path, m.WriteRaw(context.Background(), path)
})

// baseDisk is the base machine's raw disk, made once. Nobody writes to it.
func baseDisk(t testing.TB) string {
	t.Helper()
	path, err := makeBase()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// cutOut copies the written parts of src from start on to the beginning of dst.
func cutOut(dst, src *os.File, start, size int64) error {
	for off := start; off < start+size; {
		data, end, err := nextData(src, off)
		if err != nil || data >= start+size {
			return err
		}
		b := make([]byte, min(end, start+size)-data)
		if _, err := src.ReadAt(b, data); err != nil {
			return err
		}
		if _, err := dst.WriteAt(b, data-start); err != nil {
			return err
		}
		off = end
	}
	return nil
}
