package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

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
			want, err := Digest(t.Context(), c.img, nil)
			if err != nil {
				t.Fatal(err)
			}
			back, err := OpenFile(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, back)
			if got, err := Digest(t.Context(), back.Disks[0], nil); err != nil || got != want {
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

func slowCopy(from, to string, form Form) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	e, err := Open(pausing{newOSFile(f, info), 10 * time.Millisecond}, Options{})
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
