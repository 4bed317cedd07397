package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"berth/testdata/hostile"
)

// eachHostileFile runs a test for every hostile file, written to a folder of its own.
func eachHostileFile(t *testing.T, test func(t *testing.T, f hostile.File, path string, data []byte)) {
	files, err := hostile.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			data, err := f.Data()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), f.Name)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			test(t, f, path, data)
		})
	}
}

// TestHostileFiles gives every hostile file to the program, as its user does: it ends with the exit code that the folder's index has
// for it, says what is wrong and where, and opens no other file, starts no other program and speaks to nobody.
func TestHostileFiles(t *testing.T) {
	eachHostileFile(t, func(t *testing.T, f hostile.File, path string, _ []byte) {
		for command, want := range map[string]int{"check": f.Check, "inspect": f.Inspect} {
			args := []string{command, path}
			if f.Format != "" {
				args = append(args, "--format", f.Format)
			}
			said, code, calls := traced(t, args...)
			// Text is wrapped, and what is wrong may stand in a list.
			if code != want || !strings.Contains(strings.Join(strings.Fields(said), " "), f.Says) {
				t.Errorf("%s: exit code %d, want %d with %q\n%s", command, code, want, f.Says, said)
			}
			read := false
			for _, call := range calls {
				read = read || strings.Contains(call, path)
				if !harmless(call, path) {
					t.Errorf("%s: %s", command, call)
				}
			}
			if !read {
				t.Errorf("%s: that it opened the file was not seen in %q", command, calls)
			}
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
			t.Errorf("beside the file: %v, %v", left, err)
		}
	})
}

// traced runs this program as berth does under strace, and tells which files it opened, which programs it started and whom it called.
func traced(t *testing.T, args ...string) (said string, code int, calls []string) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is needed (scripts/setup test installs it)")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "calls")
	cmd := exec.CommandContext(t.Context(), strace, append([]string{"-f", "--seccomp-bpf", "-qq", "-s", "4096", "-e", "signal=none",
		"-e", "trace=open,openat,openat2,creat,execve,execveat,connect", "-o", log, exe}, args...)...)
	cmd.Env = append(os.Environ(), asBerth+"=1")
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	b, err := os.ReadFile(log)
	if err != nil || !bytes.Contains(b, []byte("execve")) {
		t.Fatalf("nothing was traced: %v\n%s", err, out)
	}
	return string(out), cmd.ProcessState.ExitCode(), strings.Split(strings.TrimSpace(string(b)), "\n")
}

// call is a line of strace: the process, the call, and the first text among its arguments.
var call = regexp.MustCompile(`^\d+\s+(?:<\.\.\. )?(\w+)(?: resumed>)?\(?([^"]*)"([^"]*)"`)

// harmless tells whether a call is one of those that reading the file at path needs, or a Go program on Linux when it starts.
func harmless(line, path string) bool {
	// What goes on was begun on a line of its own, with its arguments; what strace has no name for is where a thread was at the end.
	if strings.Contains(line, "resumed>") || strings.Contains(line, " ???(") {
		return true
	}
	m := call.FindStringSubmatch(line)
	if m == nil {
		return false
	}
	exe, err := os.Executable()
	if err != nil {
		return false
	}
	switch name, at, file := m[1], strings.TrimSpace(m[2]), m[3]; {
	case name == "execve":
		return file == exe
	case !strings.HasPrefix(name, "open") || at != "AT_FDCWD,":
		return false
	case file == path, file == filepath.Dir(path), file == exe:
		return true
	default:
		// The loader and the C library of a test that is built with cgo; the kernel's settings; the place for flags.
		return regexp.MustCompile(`^/(lib|lib64|usr/lib|sys|proc)/|^/etc/(ld\.so\.\w+|localtime|berth\.json)$|^/usr/share/zoneinfo/|^/dev/(null|urandom)$`).MatchString(file)
	}
}

// TestHarmless sees that what a hostile file might want would be noticed.
func TestHarmless(t *testing.T) {
	const path = "/tmp/x/hostile.qcow2"
	for line, want := range map[string]bool{
		`12 openat(AT_FDCWD, "/tmp/x/hostile.qcow2", O_RDONLY|O_CLOEXEC) = 7`: true,
		`12 openat(AT_FDCWD, "/tmp/x", O_RDONLY|O_CLOEXEC|O_DIRECTORY) = 6`:   true,
		`12 openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 7`:          false,
		`12 openat(AT_FDCWD, "/etc/passwd", O_RDONLY <unfinished ...>`:        false,
		`12 openat(AT_FDCWD, "/tmp/x/a.vmdk", O_RDONLY|O_CLOEXEC) = 7`:        false,
		`12 openat(6, "hostile.qcow2", O_RDONLY|O_NOFOLLOW) = 7`:              false,
		`12 openat2(6, "a.vmdk", {flags=O_RDONLY}, 24) = 7`:                   false,
		`12 open("../a.vmdk", O_RDONLY) = -1 ENOENT`:                          false,
		`12 creat("/tmp/x/hostile.raw", 0600) = 7`:                            false,
		`12 execve("/usr/bin/qemu-img", ["qemu-img"], 0x7ffd) = 0`:            false,
		`12 connect(3, {sa_family=AF_INET, sin_port=htons(80)}, 16) = 0`:      false,
	} {
		if harmless(line, path) != want {
			t.Errorf("%s: not %v", line, want)
		}
	}
}
