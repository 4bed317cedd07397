package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// checkerFile is what "make build" puts beside this program: the checker that runs inside Windows (cmd/berth-checker).
const checkerFile = "berth-checker.exe"

// checkerZIP is the name that Amazon gives the download of its checker (document, "Step 2").
const checkerZIP = "BYOLChecker.zip"

//go:embed BYOLChecker.ps1
var checkerScript string

const checkerReadMe = `Berth's checker for Bring Your Own License. Berth is not Amazon's.

1. Make a folder BYOL in your Downloads folder and extract these files into it.
2. Choose Start, right-click Windows PowerShell, and choose Run as administrator.
3. cd $env:USERPROFILE\Downloads\BYOL
4. Set-ExecutionPolicy -Scope Process Unrestricted
5. .\BYOLChecker.ps1          or, without PowerShell: .\berth-checker.exe

A page opens in the browser: choose Begin Tests. Windows Update is turned off while
it runs. Nothing else is changed before you have agreed to it.
`

type checkerCmd struct {
	Out string `help:"Write it into this folder." short:"o" type:"path" default:"." placeholder:"FOLDER"`
}

// Help is shown by berth checker --help.
func (checkerCmd) Help() string {
	return `The ZIP holds berth-checker.exe and BYOLChecker.ps1, which runs it as administrator. A running service offers it, too: http://.../` + checkerZIP
}

func (c checkerCmd) Run() error {
	b, _, err := packChecker(besideThisProgram())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	path := filepath.Join(c.Out, checkerZIP)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

// besideThisProgram is the folder that this program is in; links are followed, as a package may have one in a bin folder.
func besideThisProgram() string {
	exe, err := os.Executable()
	if err != nil {
		return "."
	}
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	return filepath.Dir(exe)
}

// packChecker makes the ZIP of the checker in a folder. The time is that of the program in it.
func packChecker(folder string) ([]byte, time.Time, error) {
	path := filepath.Join(folder, checkerFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, fmt.Errorf("there is no %s beside this program: \"make build\" makes both: %w", checkerFile, err)
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	crlf := strings.NewReplacer("\n", "\r\n")
	for _, part := range []struct {
		name string
		from io.Reader
	}{
		{checkerFile, f},
		{"BYOLChecker.ps1", strings.NewReader(crlf.Replace(checkerScript))},
		{"README.txt", strings.NewReader(crlf.Replace(checkerReadMe))},
	} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: part.name, Method: zip.Deflate, Modified: info.ModTime().UTC()})
		if err == nil {
			_, err = io.Copy(w, part.from)
		}
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("%s in %s: %w", part.name, checkerZIP, err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, time.Time{}, err
	}
	return b.Bytes(), info.ModTime(), nil
}

// serveChecker offers the ZIP to whoever asks: it holds nothing that is anybody's. It is packed when it is first asked for, and kept.
func serveChecker(folder string, log *slog.Logger) http.HandlerFunc {
	var mu sync.Mutex
	var packed []byte
	var made time.Time
	pack := func() (err error) {
		mu.Lock()
		defer mu.Unlock()
		if packed == nil {
			packed, made, err = packChecker(folder)
		}
		return err
	}
	return func(w http.ResponseWriter, r *http.Request) {
		switch err := pack(); {
		case errors.Is(err, fs.ErrNotExist):
			http.Error(w, "This Berth was built without the checker.", http.StatusNotFound)
		case err != nil:
			log.Error("the checker cannot be packed", "err", err)
			http.Error(w, "The checker cannot be offered at the moment.", http.StatusInternalServerError)
		default:
			w.Header().Set("Content-Type", "application/zip")
			w.Header().Set("Content-Disposition", `attachment; filename="`+checkerZIP+`"`)
			http.ServeContent(w, r, checkerZIP, made, bytes.NewReader(packed))
		}
	}
}
