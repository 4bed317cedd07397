package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/disk"
	"berth/internal/image"
)

func TestConvert(t *testing.T) {
	dir := t.TempDir()
	disk := bytes.Repeat([]byte("berth..."), 1<<16)
	copy(disk[510:], "\x55\xaa")
	in, out := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.raw")
	if err := os.WriteFile(in, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run([]string{"convert", in, out, "--durable"}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, args := range [][]string{
		{"convert", in, in},  // over its input
		{"convert", in, out}, // over another file
		{"convert", in, filepath.Join(dir, "new.raw"), "--disk", "2"}, // there is one
		{"convert", in, filepath.Join(dir, "new")},                    // what?
		{"convert", in, filepath.Join(dir, "new.raw"), "--layout", "zstd"},
		{"convert", in, filepath.Join(dir, "new.qcow2"), "--no-verify"},
		{"convert", in, filepath.Join(dir, "new.raw"), "--no-skip", "--keep-free"},
		{"convert", in, filepath.Join(dir, "new.raw"), "--no-skip", "--keep-page-files"},
		{"convert", in, filepath.Join(dir, "new.raw"), "--no-skip", "--keep-hiberfile"},
		{"convert", in, filepath.Join(dir, "new.qcow2"), "--no-verify", "--layout", "compact", "--digest"},
	} {
		if code := run(args); code != 2 {
			t.Errorf("%q: exit code %d, want 2", args, code)
		}
	}
	for _, path := range []string{in, out} {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%s differs: %v", path, err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("files %v: %v", files, err)
	}
}

// A sample machine becomes a QCOW2 of each layout that reads as the machine does, and says what it left out.
func TestConvertToQCOW2(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "sample.ova")
	if code := run([]string{"sample", in}); code != 0 {
		t.Fatalf("sample: exit code %d", code)
	}
	digests := map[string]bool{}
	for _, args := range [][]string{{"a.qcow2"}, {"b.qcow2", "--layout", "zstd"}, {"c", "--to", "qcow2", "--layout", "compact"}, {"d.img"}, {"e.raw", "--no-skip"}} {
		out := filepath.Join(dir, args[0])
		text := standardOutput(t, func() {
			if code := run(append([]string{"convert", in, out, "--digest", "--output", "json"}, args[1:]...)); code != 0 {
				t.Fatalf("%q: exit code %d", args, code)
			}
		})
		lines := strings.Split(strings.TrimSpace(text), "\n")
		var done converted
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &done); err != nil || done.Event != "done" {
			t.Fatalf("%v: %s", err, text)
		}
		for _, line := range lines[:len(lines)-1] {
			var event struct {
				Event      string
				Done, Size int64
			}
			if err := json.Unmarshal([]byte(line), &event); err != nil || event.Event != "progress" || event.Done > event.Size {
				t.Errorf("%s: %v", line, err)
			}
		}
		e, err := disk.OpenFile(out, disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		digest, err := disk.Digest(t.Context(), e.Disks[0], nil)
		if err := errors.Join(err, e.Close()); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(out)
		if err != nil || done.Digest != digest || done.File != info.Size() || done.Size != e.Disks[0].Size() || (done.LeftOut > 0) != (args[0] != "e.raw" && len(done.Kept) == 0) {
			t.Errorf("%q: %+v, digest %s: %v", args, done, digest, err)
		}
		if args[0] != "e.raw" {
			digests[digest] = true
		}
		if code := run([]string{"check", out}); code > 1 {
			t.Errorf("%q: check: exit code %d", args, code)
		}
	}
	if len(digests) != 1 {
		t.Errorf("forms differ: %v", digests)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 6 {
		t.Errorf("files %v: %v", files, err)
	}
}

// An interrupted conversion leaves nothing, unless it may be gone on with; the same command then does.
func TestConvertIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.qcow2")
	data := make([]byte, 300<<20)
	for i := range data {
		data[i] = byte(i>>9) | 1
	}
	copy(data[510:], "\x55\xaa")
	if err := os.WriteFile(in, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, resume := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		c := convertCmd{File: in, Out: out, Resume: resume, Output: "text", Layout: "zstd"}
		go func() {
			for ctx.Err() == nil {
				if _, err := os.Stat(out + ".part"); err == nil {
					cancel()
				}
				time.Sleep(time.Millisecond)
			}
		}()
		err := c.Run(ctx)
		cancel()
		want := map[bool]string{false: "interrupted; nothing is left of it", true: "interrupted; what is done is kept: go on with the same command"}[resume]
		if err == nil || err.Error() != want {
			t.Fatal(err)
		}
		_, err = os.Stat(out + ".part")
		if (err == nil) != resume {
			t.Errorf("resume %v: the part: %v", resume, err)
		}
	}
	if code := run([]string{"convert", in, out}); code != 2 {
		t.Error("a part of another conversion was written over")
	}
	if code := run([]string{"convert", in, out, "--layout", "zstd", "--resume"}); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("files %v: %v", files, err)
	}
}

// Whoever reads the events may stop reading, as "| head" does, or end with the Ctrl-C that was meant for both: that ends the
// conversion, which leaves nothing.
func TestConvertWhoseReaderEnds(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.raw")
	data := bytes.Repeat([]byte("berth..."), 8<<20)
	copy(data[510:], "\x55\xaa")
	if err := os.WriteFile(in, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// In a process of its own: what a closed standard output does is to end that.
	cmd := exec.CommandContext(t.Context(), program, "convert", in, filepath.Join(dir, "out.raw"), "--output", "json")
	cmd.Env = append(os.Environ(), asBerth+"=1")
	cmd.Stdout = w
	text := new(bytes.Buffer)
	cmd.Stderr = text
	err = cmd.Run()
	w.Close()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("%v: %s", err, text)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("files %v: %v", files, err)
	}
}

// What cannot be gone on with is said before it is begun, and what does not say how far it is, when it is met.
func TestConvertThatCannotBeGoneOnWith(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.raw.gz"), filepath.Join(dir, "out.raw")
	var file bytes.Buffer
	w := gzip.NewWriter(&file)
	disk := bytes.Repeat([]byte("berth..."), 1<<16)
	copy(disk[510:], "\x55\xaa")
	if _, err := w.Write(disk); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.WriteFile(in, file.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	c := convertCmd{File: in, Out: out, NoSkip: true, Resume: true, Output: "text"}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "without --resume") {
		t.Error(err)
	}
	if err := os.WriteFile(out+".part", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Resume = false
	if err := c.Run(t.Context()); err == nil || strings.Contains(err.Error(), "--resume") || !strings.Contains(err.Error(), "remove") {
		t.Error(err)
	}
	c.File, c.Resume = filepath.Join(dir, "in.raw"), true
	if err := os.WriteFile(c.File, append(make([]byte, 510), 0x55, 0xaa), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "remove") {
		t.Error(err)
	}
	c.Out = filepath.Join(dir, "none", "out.raw")
	if err := c.Run(t.Context()); err == nil || strings.Contains(err.Error(), "checkpoint") || !strings.Contains(err.Error(), "folder") {
		t.Error(err)
	}
}

func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	p := newPace(func() time.Time { return now })
	event := func(at, all int64, want string) {
		t.Helper()
		if got, err := json.Marshal(p.event(at, all)); err != nil || string(got) != want {
			t.Errorf("%s, want %s: %v", got, want, err)
		}
	}
	event(1000, 5000, `{"event":"progress","done":1000,"size":5000}`)
	now = now.Add(2 * time.Second)
	event(1000, 5000, `{"event":"progress","done":1000,"size":5000}`)
	event(3000, 5000, `{"event":"progress","done":3000,"size":5000,"bytesPerSecond":1000,"secondsLeft":2}`)
	event(5000, 5000, `{"event":"progress","done":5000,"size":5000,"bytesPerSecond":2000,"secondsLeft":0}`)
	event(3000, -1, `{"event":"progress","done":3000,"size":-1,"bytesPerSecond":1000}`) // out of gzip
	if got := bar(1, 2, 20); got != "██████████░░░░░░░░░░" {
		t.Error(got)
	}
}

// What is left out and what is not are said of different volumes, and in words that do not contradict.
func TestConvertTellsEachVolumeOnce(t *testing.T) {
	var b bytes.Buffer
	convertCmd{}.tell(&b, disk.Copied{Skipped: 3 << 20}, image.LeftOut{Free: 2 << 20, Files: map[string]int64{"pagefile.sys": 1 << 20}, Kept: []string{"Partition 2: it is marked dirty."}})
	const want = "  left out: 3.0 MiB of what the export stores: what NTFS has free, pagefile.sys (1.0 MiB)\n  copied in full: Partition 2: it is marked dirty.\n"
	if b.String() != want {
		t.Errorf("%s, want %s", b.String(), want)
	}
}

// An error is said once, on standard error, by a step's line or by the program's last: not by both.
func TestConvertSaysAnErrorOnce(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.raw")
	if err := errors.Join(os.WriteFile(in, append(make([]byte, 510), 0x55, 0xaa), 0o600), os.WriteFile(out+".part", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := berth(t, "convert", in, out)
	if code != 2 || strings.Count(stderr, "out.raw.part") != 1 || strings.Count(stderr, "✗") != 1 || !strings.Contains(stderr, "\nberth: ") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// standardOutput is what do prints.
func standardOutput(t *testing.T, do func()) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stdout
	os.Stdout = f
	defer func() { os.Stdout = was }()
	do()
	text, err := os.ReadFile(f.Name())
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}
