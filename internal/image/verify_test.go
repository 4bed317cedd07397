package image

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"berth/internal/phony"
)

// unpacked are an OVA's files, under names here that tell nothing. change may change what is in the one whose name ends so.
func unpacked(t *testing.T, ova, suffix string, change func([]byte)) (files []File, size int64) {
	t.Helper()
	f, err := os.Open(ova)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files, size
		} else if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil && strings.HasSuffix(h.Name, suffix) {
			change(b)
		}
		if !strings.HasSuffix(h.Name, ".mf") {
			size += h.Size
		}
		path := filepath.Join(dir, strconv.Itoa(len(files)))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: h.Name, Path: path})
	}
}

func TestVerifyTellsHowFarItIs(t *testing.T) {
	ova := export(t, phony.Base, "ova")
	apart, size := unpacked(t, ova, "", nil)
	damaged, _ := unpacked(t, ova, ".mf", func(b []byte) { // a digit of the last digest
		b[len(b)-9] = map[bool]byte{true: '1', false: '0'}[b[len(b)-9] == '0']
	})
	given := errors.New("given up")
	for name, c := range map[string]struct {
		files []File
		end   error // what progress says
		fails string
	}{
		"an OVA":              {[]File{{Path: ova}}, nil, ""},
		"an OVF":              {apart, nil, ""},
		"an OVF that is none": {damaged, nil, "digest"},
		"an OVA, given up":    {[]File{{Path: ova}}, given, "given up"},
		"an OVF, given up":    {apart, given, "given up"},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := Open(c.files...)
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			last, of := int64(-1), int64(0)
			err = u.Verify(t.Context(), func(done, size int64) error {
				if done < last || done > size {
					t.Errorf("from %d to %d of %d bytes", last, done, size)
				}
				last, of = done, size
				return c.end
			})
			if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Errorf("%v, want %q", err, c.fails)
			}
			if c.end != nil && (!errors.Is(err, given) || last != 0) {
				t.Errorf("at byte %d: %v", last, err)
			}
			if c.fails == "" && (last < size/2 || of < size || of > size+64<<10) {
				t.Errorf("told of %d of %d bytes, of files of %d", last, of, size)
			}
		})
	}
}
