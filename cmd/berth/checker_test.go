package main

import (
	"archive/zip"
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckerIsOffered(t *testing.T) {
	folder := t.TempDir()
	door := serveChecker(folder, slog.New(slog.DiscardHandler))
	get := func() *http.Response {
		w := httptest.NewRecorder()
		door(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/"+checkerZIP, nil))
		return w.Result()
	}
	if r := get(); r.StatusCode != http.StatusNotFound {
		t.Errorf("without the program: %s", r.Status)
	}
	program := append([]byte("MZ"), bytes.Repeat([]byte{0, 1, 2, 3}, 1<<16)...)
	if err := os.WriteFile(filepath.Join(folder, checkerFile), program, 0o600); err != nil {
		t.Fatal(err)
	}
	r := get()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/zip" || !strings.Contains(r.Header.Get("Content-Disposition"), "BYOLChecker.zip") {
		t.Fatalf("%s, %v, %v", r.Status, r.Header, err)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]byte{}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if got[f.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 3 || !bytes.Equal(got[checkerFile], program) || !bytes.Contains(got["BYOLChecker.ps1"], []byte("'berth-checker.exe'\r\n")) || len(got["README.txt"]) == 0 {
		t.Errorf("it holds %d files, the program of %d bytes, the script %q", len(got), len(got[checkerFile]), got["BYOLChecker.ps1"])
	}
	for _, c := range string(got["BYOLChecker.ps1"]) + string(got["README.txt"]) {
		if c > '~' { // PowerShell 5 takes a script without a mark to be in the computer's code page
			t.Errorf("a text for Windows has the character %q", c)
		}
	}
}
