package disk

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Holes of the file, as a file system has them, are extents that nothing was written to, in a raw disk and in an OVA.
func TestHolesOfTheFile(t *testing.T) {
	dir := t.TempDir()
	guest := make([]byte, 32<<20)
	copy(guest[510:], "\x55\xaa")
	copy(guest[8<<20:], bytes.Repeat([]byte{1}, 1<<20))
	copy(guest[len(guest)-5:], "last!")
	write := func(name string, data []byte, holes int64) string {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		closeAfter(t, f)
		for at := 0; at < len(data); at += 4096 {
			if part := data[at:min(len(data), at+4096)]; firstNonZero(part) >= 0 {
				if _, err := f.WriteAt(part, int64(at)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := f.Truncate(int64(len(data)) + holes); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ova := writeTar(t, tar.FormatUSTAR, tarFile{"a.ovf", vmwareOVF("a.img")}, tarFile{"a.img", guest})
	for _, path := range []string{write("raw", guest, 0), write("ova", ova, 0), write("tail", guest, 1<<30)} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			e, err := OpenFile(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, e)
			img := e.Disks[0]
			if img.Size() == int64(len(guest)) {
				equalImage(t, img, guest)
			}
			var stored int64
			for _, x := range extents(t, img) {
				if x.Kind == Data {
					stored += x.Length
				}
			}
			// Block sizes of file systems go up to 64 KiB.
			if stored < 1<<20 || stored > 1<<20+6*65536 {
				t.Errorf("%d bytes stored: %+v", stored, extents(t, img))
			}
		})
	}
}
