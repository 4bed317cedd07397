package phony

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

func TestBaseOVA(t *testing.T) {
	m, err := Load(Base)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	began := time.Now()
	if err := m.WriteRaw(context.Background(), filepath.Join(dir, "x.raw")); err != nil {
		t.Fatal(err)
	}
	t.Log("raw", time.Since(began))
	began = time.Now()
	if err := m.Export(context.Background(), filepath.Join(dir, "x.ova"), "ova"); err != nil {
		t.Fatal(err)
	}
	t.Log("ova", time.Since(began))
}
