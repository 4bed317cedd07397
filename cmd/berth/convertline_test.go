package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// All that the line of a conversion tells can be seen on a terminal of 80 characters, to the last of it; where it ends, whatever
// it takes.
func TestConvertFitsATerminal(t *testing.T) {
	for _, all := range []int64{1 << 20, 64 << 30, 1<<40 - 1<<30} {
		for _, took := range []time.Duration{time.Second, time.Minute, 3 * time.Hour} {
			for _, width := range []int{60, 80, 120} {
				now := time.Unix(0, 0)
				pace := newPace(func() time.Time { return now })
				p := &progress{terminal: true, width: width}
				pace.text(0, all, p.room("Convert"))
				now = now.Add(took)
				text := pace.text(all/7, all, p.room("Convert"))
				if !strings.HasSuffix(text, " left") || !strings.Contains(text, "/s, ") || !strings.Contains(text, " 14 % of ") || strings.Contains(text, "█") != (width >= 80) {
					t.Errorf("%d characters: %q", width, text)
				}
				if got := p.line("…", "Convert", 9999*time.Second, text); width >= 80 && !strings.HasSuffix(got, text) || len([]rune(got)) >= width {
					t.Errorf("%d characters: %q of %q", width, got, text)
				}
			}
		}
	}
	path := strings.Repeat("/folder", 30)
	p := &progress{terminal: true, width: 80}
	if got := p.line("✓", "Convert", time.Second, path); !strings.HasSuffix(got, path) {
		t.Errorf("the end: %q", got)
	}
}

// A terminal that is closed ends a conversion as Ctrl-C does, and leaves nothing; one that was begun with nohup goes on.
func TestConvertWhoseTerminalIsClosed(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		begin string
		end   string // of standard error
		files int
	}{
		{"", "; nothing is left of it\n", 1},
		{"trap '' HUP; ", "", 2},
	} {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.qcow2")
		data := make([]byte, 200<<20)
		for i := range data {
			data[i] = byte(i>>9) | 1
		}
		copy(data[510:], "\x55\xaa")
		if err := os.WriteFile(in, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf("%sexec %s convert %s %s --layout zstd", c.begin, program, in, out))
		cmd.Env = append(os.Environ(), asBerth+"=1")
		var text strings.Builder
		cmd.Stderr = &text
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(out + ".part"); err == nil {
				break
			}
		}
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if (err != nil) != (c.end != "") || !strings.HasSuffix(text.String(), c.end) {
			t.Errorf("%q: %v: %s", c.begin, err, text.String())
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != c.files {
			t.Errorf("%q: files %v: %v", c.begin, files, err)
		}
	}
}

// A disk that is not there is named as such, and those that are have names.
func TestConvertChoosesADisk(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.raw")
	if err := os.WriteFile(in, append(make([]byte, 510), 0x55, 0xaa), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := berth(t, "convert", in, filepath.Join(dir, "out.raw"), "--disk", "7")
	if code != 2 || !strings.Contains(stderr, "there is no disk 7, but: 1 (RAW, 0.5 KiB)") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// Of a disk in a gzip file nothing is left out, and why is said, unless nothing was to be.
func TestConvertTellsWhyAllOfAStreamIsCopied(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.raw.gz")
	var file bytes.Buffer
	w := gzip.NewWriter(&file)
	_, err := w.Write(append(make([]byte, 510), 0x55, 0xaa))
	if err := errors.Join(err, w.Close(), os.WriteFile(in, file.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	const why = "copied in full: The whole disk: what is in a gzip or xz file is read only once"
	_, stderr, code := berth(t, "convert", in, filepath.Join(dir, "out.raw"))
	if code != 0 || !strings.Contains(stderr, why) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	_, stderr, code = berth(t, "convert", in, filepath.Join(dir, "whole.raw"), "--no-skip")
	if code != 0 || strings.Contains(stderr, "in full") {
		t.Errorf("--no-skip: exit code %d: %s", code, stderr)
	}
}

// A disk of data may begin with anything: that it can be converted all the same is said where it is refused.
func TestConvertSaysHowADiskWithoutASignatureIsConverted(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "data.raw"), filepath.Join(dir, "out.raw")
	if err := os.WriteFile(in, []byte("anything"), 0o600); err != nil {
		t.Fatal(err)
	}
	const hint = "say so with --format raw"
	if _, stderr, code := berth(t, "convert", in, out); code != 2 || !strings.Contains(stderr, hint) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if _, stderr, code := berth(t, "convert", in, out, "--format", "vmdk"); code != 2 || strings.Contains(stderr, hint) {
		t.Errorf("as VMDK: exit code %d: %s", code, stderr)
	}
	if _, stderr, code := berth(t, "convert", in, out, "--format", "raw"); code != 0 {
		t.Errorf("as raw: exit code %d: %s", code, stderr)
	}
}
