package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var forms = map[string]Form{"raw": Raw, "plain": Plain, "zstd": Zstd, "compact": Compact}

// soundQCOW2 is qemu-img check, which finds leaks and wrong counts too.
func soundQCOW2(t testing.TB, path string) {
	t.Helper()
	var report struct {
		Errors  int   `json:"check-errors"`
		Corrupt int   `json:"corruptions"`
		Leaks   int   `json:"leaks"`
		End     int64 `json:"image-end-offset"`
	}
	out := qemuImg(t, "check", "--output=json", "-f", "qcow2", path)
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if report.Errors != 0 || report.Corrupt != 0 || report.Leaks != 0 || report.End != info.Size() {
		t.Errorf("%s; the file has %d bytes", out, info.Size())
	}
}

// written makes a copy in a form and checks it: by QEMU and by this package it reads as want.
func written(t *testing.T, img Image, want string, guest []byte, opt CopyOptions) (Copied, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	done, err := CopyFile(t.Context(), path, img, opt)
	if err != nil {
		t.Fatal(err)
	}
	format := "raw"
	if opt.Form != Raw {
		format = "qcow2"
		soundQCOW2(t, path)
	}
	qemuImg(t, "compare", "-f", format, "-F", "raw", path, want)
	e, err := OpenFile(path, Options{Format: format})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, e)
	equalImage(t, e.Disks[0], guest)
	info, err := os.Stat(path)
	if err != nil || done.File != info.Size() || done.Size != int64(len(guest)) || done.Stored < done.Skipped || done.Resumed != 0 {
		t.Errorf("%+v; the file has %d bytes: %v", done, info.Size(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("files %v: %v", left, err)
	}
	digest, err := Digest(t.Context(), bytesImage(t, guest), nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Digest(t.Context(), e.Disks[0], nil); err != nil || again != digest || opt.Digest && done.Digest != digest || !opt.Digest && done.Digest != "" {
		t.Errorf("digests %s of the guest, %s of the copy, %s when it was made: %v", digest, again, done.Digest, err)
	}
	return done, path
}

func bytesImage(t testing.TB, p []byte) Image {
	t.Helper()
	e, err := Open(bytes.NewReader(p), Options{Format: "RAW"})
	if err != nil {
		t.Fatal(err)
	}
	return e.Disks[0]
}

func TestEveryFormOfEveryFormat(t *testing.T) {
	for _, size := range []int64{512, 3<<20 + 5*512, 33<<20 + 4608} {
		dir := t.TempDir()
		guest, source := guestDisk(size, 7), filepath.Join(dir, "guest.raw")
		if err := os.WriteFile(source, guest, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, v := range variants {
			t.Run(fmt.Sprintf("%d/%s", size, strings.Join(v.args[1:], " ")), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				file, back := filepath.Join(dir, "disk"), filepath.Join(dir, "back")
				qemuImg(t, append(append([]string{"convert", "-f", "raw"}, v.args...), source, file)...)
				qemuImg(t, "convert", "-f", qemuFormat[v.format], "-O", "raw", file, back) // VHD's size is its own
				want, err := os.ReadFile(back)
				if err != nil {
					t.Fatal(err)
				}
				e, err := OpenFile(file, Options{Siblings: siblingsIn(t, dir)})
				if err != nil {
					t.Fatal(err)
				}
				closeAfter(t, e)
				for name, form := range forms {
					done, _ := written(t, e.Disks[0], back, want, CopyOptions{Form: form, Digest: form != Zstd})
					passes := form == Compact && size > 65536 && (v.subFormat == "streamOptimized" || v.format == "QCOW2" && slices.Contains(v.args, "-c") && !strings.ContainsAny(v.args[len(v.args)-1], "kMz"))
					if passes != (done.Passed > 0) || form < Zstd && done.Packed > 0 {
						t.Errorf("%s: %+v", name, done)
					}
				}
				if v.subFormat == "streamOptimized" {
					written(t, e.Disks[0], back, want, CopyOptions{Form: Compact, Unverified: true})
				}
			})
		}
	}
}

// Many L2 tables, holes of gigabytes, slabs between plain clusters, and what begins and ends inside clusters.
func TestQCOW2OfALargeDisk(t *testing.T) {
	source := filepath.Join(t.TempDir(), "guest.raw")
	f, err := os.Create(source)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, f)
	const size = 9<<30 + 512*7
	r := rand.New(rand.NewPCG(5, 5))
	data := guestDisk(8<<20, 41)
	var stored int64
	for at := int64(0); at < size-16<<20; at += r.Int64N(700<<20) / 512 * 512 {
		n := r.IntN(len(data)) / 512 * 512
		if _, err := f.WriteAt(data[:n], at); err != nil {
			t.Fatal(err)
		}
		stored += int64(n)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("\x55\xaa"), 510); err != nil {
		t.Fatal(err)
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			e, err := OpenFile(source, Options{})
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, e)
			path := filepath.Join(t.TempDir(), "out")
			done, err := CopyFile(t.Context(), path, e.Disks[0], CopyOptions{Form: form, Digest: true})
			if err != nil {
				t.Fatal(err)
			}
			if form != Raw {
				soundQCOW2(t, path)
				qemuImg(t, "compare", "-f", "qcow2", "-F", "raw", path, source)
			} else {
				qemuImg(t, "compare", "-f", "raw", "-F", "raw", path, source)
			}
			if digest, err := Digest(t.Context(), e.Disks[0], nil); err != nil || digest != done.Digest {
				t.Errorf("digest %s, %s when it was made: %v", digest, done.Digest, err)
			}
			if form >= Plain && done.File > stored+stored/2+64<<20 {
				t.Errorf("a file of %d bytes for %d", done.File, stored)
			}
		})
	}
}

func TestWriteEmpty(t *testing.T) {
	for _, size := range []int64{512, 64 << 30, 15 << 40} {
		path := filepath.Join(t.TempDir(), "empty")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(WriteEmpty(f, size), f.Close()); err != nil {
			t.Fatal(err)
		}
		qemuImg(t, "check", "-q", "-f", "qcow2", path)
		e, err := OpenFile(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		closeAfter(t, e)
		for x, err := range e.Disks[0].Extents() {
			if want := (Extent{Length: size, Kind: Unallocated, At: -1}); x != want || err != nil {
				t.Errorf("%+v, %v, want %+v", x, err, want)
			}
		}
	}
}
