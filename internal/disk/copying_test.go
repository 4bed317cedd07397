package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	"time"
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

// pausing is a Source that takes its time.
type pausing struct {
	Source
	pause time.Duration
}

func (p pausing) ReadAt(b []byte, off int64) (int, error) {
	time.Sleep(p.pause)
	return p.Source.ReadAt(b, off)
}

// A copy that is stopped over and over goes on each time from where it was, and is at last as if it never had been stopped.
func TestCopiesAreGoneOnWith(t *testing.T) {
	guest := guestDisk(60<<20+512, 53)
	file := streamVMDK(guest, esxi)
	source := filepath.Join(t.TempDir(), "want")
	if err := os.WriteFile(source, guest, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Open(bytes.NewReader(file), Options{})
	if err != nil {
		t.Fatal(err)
	}
	patches := []Patch{{30 << 20, []byte("patched")}}
	img := Overlay(e.Disks[0], patches)
	want := slices.Clone(guest)
	copy(want[30<<20:], "patched")
	r := rand.New(rand.NewPCG(6, 6))
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out")
			opt := CopyOptions{Form: form, Digest: true, Checkpoint: "source", Resume: true, Every: time.Microsecond}
			whole, err := Copy(t.Context(), &memoryTarget{}, img, opt)
			if err != nil {
				t.Fatal(err)
			}
			var done Copied
			stops, last := 0, int64(0)
			for {
				ctx, cancel := context.WithCancel(t.Context())
				var first int64
				left := 1 + r.IntN(6)
				opt.Progress = func(done, _ int64) {
					if first == 0 {
						first = done
					}
					if left--; left == 0 {
						cancel()
					}
				}
				done, err = CopyFile(ctx, path, img, opt)
				cancel()
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if first < last {
					t.Errorf("stopped when %d were saved, gone on before %d", last, first)
				}
				s, err := readCheckpoint(notesOf(path + ".part"))
				if err != nil || s == nil || s.At < last {
					t.Fatalf("checkpoint %+v: %v", s, err)
				}
				last = s.At
				if stops++; stops > 1000 {
					t.Fatal("there is no end to it")
				}
			}
			if stops < 5 || done.Resumed == 0 {
				t.Errorf("stopped %d times, %+v", stops, done)
			}
			if form != Raw {
				soundQCOW2(t, path)
			}
			back, err := OpenFile(path, Options{Format: map[bool]string{true: "RAW", false: "QCOW2"}[form == Raw]})
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, back)
			equalImage(t, back.Disks[0], want)
			done.Resumed = 0
			if done != whole {
				t.Errorf("%+v, without being stopped %+v", done, whole)
			}
			if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
				t.Errorf("files %v: %v", files, err)
			}
		})
	}
}

// What is not the same copy begins anew, and what is no copy's part is left alone.
func TestOtherCopiesAreNotGoneOnWith(t *testing.T) {
	guest := guestDisk(30<<20, 54)
	e, err := Open(bytes.NewReader(streamVMDK(guest, esxi)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	img := e.Disks[0]
	other, err := Open(bytes.NewReader(streamVMDK(guestDisk(30<<20, 55), esxi)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	opt := CopyOptions{Form: Plain, Checkpoint: "source", Resume: true, Every: time.Microsecond}
	stop := func(path string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		opt := opt
		opt.Progress = func(done, _ int64) {
			if done > 20<<20 {
				cancel()
			}
		}
		if _, err := CopyFile(ctx, path, img, opt); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		img Image
		opt func(*CopyOptions)
	}{
		"another name":   {img, func(o *CopyOptions) { o.Checkpoint = "another" }},
		"another form":   {img, func(o *CopyOptions) { o.Form = Compact }},
		"another disk":   {other.Disks[0], func(*CopyOptions) {}},
		"with a patch":   {Overlay(img, []Patch{{0, []byte("x")}}), func(*CopyOptions) {}},
		"with skips":     {img, func(o *CopyOptions) { o.Skip = skipping(nil) }},
		"with a digest":  {img, func(o *CopyOptions) { o.Digest = true }},
		"the same again": {img, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out")
			stop(path)
			opt := opt
			if c.opt != nil {
				c.opt(&opt)
			}
			done, err := CopyFile(t.Context(), path, c.img, opt)
			if err != nil || (done.Resumed > 0) != (c.opt == nil) {
				t.Fatalf("%+v: %v", done, err)
			}
			soundQCOW2(t, path)
			want, err := Digest(t.Context(), c.img)
			if err != nil {
				t.Fatal(err)
			}
			back, err := OpenFile(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, back)
			if got, err := Digest(t.Context(), back.Disks[0]); err != nil || got != want {
				t.Errorf("digest %s, want %s: %v", got, want, err)
			}
		})
	}

	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	stop(path)
	// Without Resume it is in the way, whole as it is.
	plain := opt
	plain.Resume = false
	if _, err := CopyFile(t.Context(), path, img, plain); !errors.Is(err, os.ErrExist) {
		t.Errorf("without Resume: %v", err)
	}
	// One at a time.
	f, err := os.OpenFile(path+".part", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock(f); err != nil {
		t.Fatal(err)
	}
	if _, err := CopyFile(t.Context(), path, img, opt); err == nil || !strings.Contains(err.Error(), "another copy") {
		t.Errorf("two at a time: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	notes, err := os.ReadFile(path + ".part.checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	// A damaged checkpoint ends the copy and leaves all as it is; there may be hours in it.
	for i := range 300 {
		bad := slices.Clone(notes)
		switch i {
		case 0:
			bad = nil
		case 1:
			bad = bytes.Replace(bad, []byte(`"At":`), []byte(`"At":9`), 1)
		case 2:
			bad = bytes.Replace(bad, []byte(`"Table":`), []byte(`"Table":9`), 1)
		default:
			bad[rand.IntN(min(len(bad), 2000))] = byte(rand.IntN(256))
		}
		if err := os.WriteFile(path+".part.checkpoint", bad, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := newCopying(nil, img, opt)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := c.openPart(path + ".part"); err == nil {
			_ = f.Close() // as good as any other
		}
	}
	// Killed before the part was there, or when it had its name already.
	early := filepath.Join(t.TempDir(), "out")
	for _, name := range []string{".part.checkpoint", ".part.checkpoint~"} {
		if err := os.WriteFile(early+name, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := CopyFile(t.Context(), early, img, opt); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(early+".part.checkpoint", notes, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CopyFile(t.Context(), early, img, opt); !errors.Is(err, os.ErrExist) {
		t.Errorf("there is one already: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(early)); err != nil || len(left) != 1 {
		t.Errorf("files %v: %v", left, err)
	}
	// What nobody wrote a checkpoint for is nobody's copy.
	if err := os.Remove(path + ".part.checkpoint"); err != nil {
		t.Fatal(err)
	}
	if _, err := CopyFile(t.Context(), path, img, opt); !errors.Is(err, os.ErrExist) {
		t.Errorf("somebody else's part: %v", err)
	}
	// A refusal leaves nothing: the disk will not be any better.
	refused := filepath.Join(t.TempDir(), "out")
	bad := streamVMDK(guest, esxi)
	for i := len(bad) / 2; i < len(bad)/2+100_000; i++ {
		bad[i] ^= 0x55
	}
	d, err := Open(bytes.NewReader(bad), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CopyFile(t.Context(), refused, d.Disks[0], opt); !isRefusal(err) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(refused)); err != nil || len(left) != 0 {
		t.Errorf("files %v: %v", left, err)
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

func slowCopy(from, to string, form Form) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	e, err := Open(pausing{&osFile{f, info.Size()}, 10 * time.Millisecond}, Options{})
	if err != nil {
		return err
	}
	_, err = CopyFile(context.Background(), to, e.Disks[0], CopyOptions{Form: form, Digest: true, Checkpoint: "source", Resume: true, Every: 20 * time.Millisecond})
	return err
}

// A process that is killed leaves a part from which the next goes on.
func TestKilledCopies(t *testing.T) {
	guest := guestDisk(120<<20, 56)
	from := filepath.Join(t.TempDir(), "a.vmdk")
	if err := os.WriteFile(from, streamVMDK(guest, esxi), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := filepath.Join(t.TempDir(), "out")
			killed, saved := 0, int64(0)
			for {
				cmd := child(t, "copy", fmt.Sprint(form), from, to)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				timer := time.AfterFunc(time.Duration(100+rand.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Kill() })
				err := cmd.Wait()
				timer.Stop()
				if _, there := os.Lstat(to); err == nil || there == nil && stderr.Len() > 0 { // the last one was killed when it was done
					break
				}
				if stderr.Len() > 0 {
					t.Fatal(stderr.String())
				}
				if s, err := readCheckpoint(notesOf(to + ".part")); err != nil || s != nil && s.At < saved {
					t.Fatalf("%+v after %d: %v", s, saved, err)
				} else if s != nil {
					saved = s.At
				}
				if killed++; killed > 300 {
					t.Fatal("there is no end to it")
				}
			}
			if killed == 0 {
				t.Error("it was never killed")
			}
			if form != Raw {
				soundQCOW2(t, to)
			}
			e, err := OpenFile(to, Options{Format: map[bool]string{true: "RAW", false: "QCOW2"}[form == Raw]})
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, e)
			got := make([]byte, len(guest))
			if _, err := e.Disks[0].ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, guest) {
				t.Errorf("differs from byte %d on: %v", firstDifference(got, guest), err)
			}
			if files, err := os.ReadDir(filepath.Dir(to)); err != nil || len(files) != 1 {
				t.Errorf("files %v: %v", files, err)
			}
		})
	}
}

// Somebody else's link in the place of a part is not followed, whatever lies beside it.
func TestNoPartIsALink(t *testing.T) {
	for _, notes := range []string{"", "{}"} {
		dir := t.TempDir()
		victim, to := filepath.Join(dir, "victim"), filepath.Join(dir, "out")
		if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, to+".part")); err != nil {
			t.Fatal(err)
		}
		if notes != "" {
			if err := os.WriteFile(notesOf(to+".part"), []byte(notes), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		e, err := Open(bytes.NewReader(guestDisk(1<<20, 58)), Options{Format: "RAW"})
		if err != nil {
			t.Fatal(err)
		}
		closeAfter(t, e)
		if _, err := CopyFile(t.Context(), to, e.Disks[0], CopyOptions{Checkpoint: "source", Resume: true}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%q: %v", notes, err)
		}
		if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
			t.Errorf("%q: the file now has %d bytes: %v", notes, len(b), err)
		}
	}
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
		if got, err := Digest(t.Context(), back.Disks[0]); err != nil || got != done.Digest {
			t.Fatalf("digest %s, %s when it was made: %v", got, done.Digest, err)
		}
	})
}
