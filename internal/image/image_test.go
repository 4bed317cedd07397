package image

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/phony"
)

// export makes a machine's export for a test.
func export(t *testing.T, name, format string) string {
	t.Helper()
	m, err := phony.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name+"."+format)
	if err := m.Export(t.Context(), path, format); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConvertEveryFormat(t *testing.T) {
	for _, format := range phony.Formats {
		t.Run(format, func(t *testing.T) {
			path := export(t, phony.Base, format)
			u, err := Open(File{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			target := filepath.Join(t.TempDir(), "out.qcow2")
			last := -1.0
			if _, err := u.Convert(t.Context(), 0, target, disk.Compact, false, func(p float64) error {
				if p < last || p > 100 {
					t.Errorf("progress went from %v to %v", last, p)
				}
				last = p
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if fi, err := os.Stat(target); err != nil || fi.Mode().Perm() != 0o400 {
				t.Errorf("the image can be written to: %v, %v", fi, err)
			}
			report, err := Inspect(t.Context(), check.Options{Ingestion: true}, Stored{Path: target})
			if err != nil || !report.Fit {
				t.Errorf("the converted disk: %+v, %v", report, err)
			}
			left, err := os.ReadDir(filepath.Dir(target))
			if err != nil || len(left) != 1 {
				t.Errorf("left beside the image: %v, %v", left, err)
			}
		})
	}
}

func TestConvertStopsWhenToldTo(t *testing.T) {
	u, err := Open(File{Path: export(t, phony.Base, "raw"), Format: "RAW"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	target := filepath.Join(t.TempDir(), "out.qcow2")
	enough := errors.New("enough")
	if _, err := u.Convert(t.Context(), 0, target, disk.Compact, false, func(float64) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Convert: %v", err)
	}
	if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a disk is there: %v", err)
	}
	// It can be gone on with.
	first, err := u.Convert(t.Context(), 0, target, disk.Compact, false, func(float64) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	// One that is done is read again, which may take as long, is told as it goes, and can be given up.
	var told []float64
	again, err := u.Convert(t.Context(), 0, target, disk.Compact, false, func(p float64) error {
		told = append(told, p)
		return nil
	})
	if err != nil || again.Digest != first.Digest {
		t.Errorf("a conversion that is done: %v, %+v and %+v", err, first, again)
	}
	if n := len(told); n < 3 || told[0] >= 50 || !slices.IsSorted(told) || told[n-1] != 100 {
		t.Errorf("told: %v", told)
	}
	if _, err := u.Convert(t.Context(), 0, target, disk.Compact, false, func(float64) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("reading it again is not given up: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(target)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWhatCannotBeImported(t *testing.T) {
	write := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct{ path, format, want string }{
		"text":         {write("a.txt", strings.Repeat("not a disk ", 1000)), "", "Not a valid volume"},
		"wrong format": {export(t, phony.Base, "qcow2"), "VHD", "was said to be VHD, but is QCOW2"},
		"BitLocker":    {export(t, "bitlocker", "qcow2"), "", "encrypted"},
		"two footers":  {footers(t), "VHD", "ClientError: Footers not identical ["},
		"no Windows":   {export(t, "not-windows", "qcow2"), "", "ClientError: Unknown OS / Missing OS files."},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := Open(File{Path: c.path, Format: c.format})
			if err == nil {
				_, err = u.Windows()
				u.Close()
			}
			var f *Failure
			if !errors.As(err, &f) || !strings.Contains(f.StatusMessage, c.want) {
				t.Errorf("got %v, want a failure with %q", err, c.want)
			}
		})
	}
}

// footers is a dynamic VHD whose two footers, both sound, disagree.
func footers(t *testing.T) string {
	t.Helper()
	path := export(t, phony.Base, "vhd")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	footer := make([]byte, 512)
	if _, err := f.ReadAt(footer, 0); err != nil {
		t.Fatal(err)
	}
	footer[24]++ // the time of its making
	clear(footer[64:68])
	var sum uint32
	for _, b := range footer {
		sum += uint32(b)
	}
	binary.BigEndian.PutUint32(footer[64:], ^sum)
	if _, err := f.WriteAt(footer, 0); err != nil {
		t.Fatal(err)
	}
	return path
}
