package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAServiceThatRunsAlreadyIsNotTakenOver(t *testing.T) {
	t.Setenv(asBerth, "1")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer other.Close()
	data := t.TempDir()
	admin := filepath.Join(data, "admin.json")
	if err := writeAdmin(admin, adminFile{Endpoint: other.URL}); err != nil {
		t.Fatal(err)
	}
	lock, err := lockFolder(data)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	s, err := upCmd{Data: data, Listen: "127.0.0.1:0", Accelerator: "tcg"}.serve(t.Context())
	if err == nil {
		s.stop()
	}
	if err == nil || !strings.Contains(err.Error(), "another berth serves") {
		t.Errorf("serve: %v", err)
	}
	if _, err := os.Stat(admin); err != nil {
		t.Errorf("the other service's admin.json: %v", err)
	}
}
