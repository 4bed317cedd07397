package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func skipping(ranges []Range) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		for _, r := range ranges {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// Ranges that are skipped read as zeros to the byte, patches lie over them, and all else is as it was.
func TestSkippedAndPatchedCopies(t *testing.T) {
	guest := guestDisk(5<<20+1024, 51)
	for i := range guest { // so that what is left is seen
		if guest[i] == 0 {
			guest[i] = byte(i >> 12)
		}
	}
	last := int64(len(guest))
	r := rand.New(rand.NewPCG(8, 8))
	var many []Range
	for at := r.Int64N(100_000); at < last; {
		n := min(last-at, 1+r.Int64N(1<<r.IntN(20)))
		many = append(many, Range{at, n})
		at += n + r.Int64N(1<<r.IntN(21))
	}
	var patches []Patch
	for range 40 {
		p := bytes.Repeat([]byte("patch"), 1+r.IntN(3000))
		patches = append(patches, Patch{r.Int64N(last - int64(len(p))), p})
	}
	for name, c := range map[string]struct {
		skip    []Range
		patches []Patch
	}{
		"nothing":           {nil, nil},
		"everything":        {[]Range{{0, last}}, nil},
		"all but the ends":  {[]Range{{1, last - 2}}, nil},
		"clusters":          {[]Range{{65536, 65536}, {2 << 20, 2 << 20}, {last - last%65536, last % 65536}}, nil},
		"touching":          {[]Range{{100, 100}, {200, 0}, {200, 65536}}, nil},
		"many":              {many, nil},
		"patches":           {nil, patches},
		"patches over many": {many, patches},
		"patch over all":    {[]Range{{0, last}}, patches},
	} {
		want := slices.Clone(guest)
		for _, s := range c.skip {
			clear(want[s.Start:s.end()])
		}
		for _, p := range c.patches {
			copy(want[p.Off:], p.Data)
		}
		dir := t.TempDir()
		file := filepath.Join(dir, "want")
		if err := os.WriteFile(file, want, 0o600); err != nil {
			t.Fatal(err)
		}
		for format, source := range map[string][]byte{"RAW": guest, "QCOW2": plainQCOW2(guest), "VMDK": streamVMDK(guest, esxi), "VMDK small": streamVMDK(guest, small)} {
			if strings.HasSuffix(name, "patches") != (format == "RAW") && !strings.Contains(name, "many") && format != "VMDK" {
				continue // all with many ranges; the others are about where they are, not how it is stored
			}
			t.Run(name+"/"+format, func(t *testing.T) {
				t.Parallel()
				e, err := Open(bytes.NewReader(source), Options{})
				if err != nil {
					t.Fatal(err)
				}
				for _, form := range forms {
					opt := CopyOptions{Form: form, Digest: true}
					if c.skip != nil {
						opt.Skip = skipping(c.skip)
					}
					done, _ := written(t, Overlay(e.Disks[0], c.patches), file, want, opt)
					if (done.Skipped > 0) != (len(c.skip) > 0) || c.skip == nil && done.Stored < last/2 {
						t.Errorf("%+v", done)
					}
				}
			})
		}
	}
}

func TestSkipsThatAreWrong(t *testing.T) {
	img := bytesImage(t, guestDisk(5<<20, 52))
	broken := func(yield func(Range, error) bool) { _ = yield(Range{0, 512}, nil) && yield(Range{}, errBroken) }
	for name, skip := range map[string]iter.Seq2[Range, error]{
		"backwards":    skipping([]Range{{4096, 4096}, {0, 4096}}),
		"overlapping":  skipping([]Range{{0, 4096}, {4095, 4096}}),
		"negative":     skipping([]Range{{-1, 4096}}),
		"beyond":       skipping([]Range{{4 << 20, 1<<20 + 1}}),
		"far beyond":   skipping([]Range{{1 << 40, 1 << 62}}),
		"of no length": skipping([]Range{{0, -1}}),
		"broken":       broken,
	} {
		dir := t.TempDir()
		_, err := CopyFile(t.Context(), filepath.Join(dir, "out"), img, CopyOptions{Skip: skip})
		if r := new(Refusal); err == nil || errors.As(err, &r) || name == "broken" && !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: files %v: %v", name, left, err)
		}
	}
	for _, opt := range []CopyOptions{{Form: 9}, {Digest: true, Unverified: true}, {Every: -1}} {
		if _, err := Copy(t.Context(), &memoryTarget{}, img, opt); err == nil {
			t.Errorf("%+v is accepted", opt)
		}
	}
	if _, err := Copy(t.Context(), &memoryTarget{}, Overlay(img, []Patch{{-1, []byte{1}}}), CopyOptions{}); err == nil {
		t.Error("a patch before the disk is accepted")
	}
}

// The child of TestKilledCopies copies slowly; that of TestMemoryOfACopy tells how much memory it took.
func TestMain(m *testing.M) {
	switch args := strings.Split(os.Getenv("DISK_TEST_CHILD"), ","); args[0] {
	case "":
		os.Exit(m.Run())
	case "copy":
		form, _ := strconv.Atoi(args[1])
		if err := slowCopy(args[2], args[3], Form(form)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "memory":
		form, _ := strconv.Atoi(args[1])
		debug.SetMemoryLimit(80 << 20)
		if _, err := Copy(context.Background(), forgetful{}, endless{}, CopyOptions{Form: Form(form), Digest: true}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		status, _ := os.ReadFile("/proc/self/status")
		fmt.Println(string(status))
	}
}

func child(t *testing.T, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "DISK_TEST_CHILD="+strings.Join(args, ","))
	return cmd
}

var endlessBytes = guestDisk(1<<20, 57)

// endless is a disk of 8 TiB with something everywhere, and much of it in some places.
type endless struct{}

func (endless) Size() int64 { return 8 << 40 }

func (endless) Extents() iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for at := int64(0); at < 8<<40; at += 1 << 30 {
			n := int64(4 << 10)
			if at%(512<<30) == 0 {
				n = 16 << 20
			}
			if !yield(Extent{at, n, Data, -1}, nil) || !yield(Extent{at + n, 1<<30 - n, Zero, -1}, nil) {
				return
			}
		}
	}
}

func (endless) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		n += copy(p[n:], endlessBytes[off>>12%977:])
	}
	return len(p), nil
}

// forgetful is a Target of which only the bytes in the tables' places are remembered: none.
type forgetful struct{}

func (forgetful) Truncate(int64) error                   { return nil }
func (forgetful) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// The bar is 96 MiB for the whole process, whatever the disk.
func TestMemoryOfACopy(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc tells how much memory a process took")
	}
	for name, form := range forms {
		out, err := child(t, "memory", fmt.Sprint(form)).Output()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(out), "VmHWM:")
		kib, err := strconv.Atoi(strings.Fields(rest + " kB")[0])
		if err != nil || kib > 96<<10 || kib < 5<<10 {
			t.Errorf("%s: %d KiB: %v", name, kib, err)
		}
		t.Logf("%s: %d MiB", name, kib>>10)
	}
}

// FuzzWrite copies what FuzzOpen reads: a disk is refused, or its copy is sound and has the same contents.
func FuzzWrite(f *testing.F) {
	for _, file := range samples(f) {
		if len(file) < 64<<10 || bytes.HasPrefix(file, []byte(vhdxMagic)) {
			f.Add(packed(file), uint8(len(file)))
		}
	}
	for i, h := range hostileFiles(f) {
		if p := packed(h.file); len(p) < 64<<10 {
			f.Add(p, uint8(i))
		}
	}
	guest := guestDisk(200<<10+512, 3)
	f.Add(streamVMDK(guest, esxi), uint8(3))
	f.Add(packedQCOW2(deflated(65536), 0), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		e, err := Open(bytes.NewReader(unpacked(data)), Options{MaxSize: 8 << 20})
		if err != nil || len(e.Disks) == 0 {
			return
		}
		img := e.Disks[0].Image
		opt := CopyOptions{Form: Form(how % 4), Unverified: how&4 != 0, Digest: how&4 == 0}
		if how&8 != 0 {
			opt.Skip = skipping([]Range{{0, min(img.Size(), 512)}, {img.Size() - img.Size()/3, img.Size() / 4}})
		}
		if how&16 != 0 {
			img = Overlay(img, []Patch{{img.Size() / 2, []byte{how}}})
		}
		var out memoryTarget
		done, err := Copy(t.Context(), &out, img, opt)
		if err != nil {
			sound(t, err)
			return
		}
		if int64(len(out.bytes)) != done.File || done.File > 2*done.Size+16<<20 {
			t.Fatalf("%+v, and %d bytes", done, len(out.bytes))
		}
		format := "QCOW2"
		if opt.Form == Raw {
			format = "RAW"
		}
		back, err := Open(bytes.NewReader(out.bytes), Options{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if !opt.Digest {
			return
		}
		if got, err := Digest(t.Context(), back.Disks[0], nil); err != nil || got != done.Digest {
			t.Fatalf("digest %s, %s when it was made: %v", got, done.Digest, err)
		}
	})
}
