package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"berth/internal/phony"
	"berth/internal/windows"
	"berth/internal/windows/offline"
	"berth/internal/windows/registry"
)

// The tests run the program itself, as it is built for Windows, in Wine. A prefix (a Windows of Wine's) is made once; every test gets a
// copy of its own, with the registry and the files of one of testdata/machines in it.

// wine64 is Debian's: the wrapper script wants 32-bit Wine, too.
const wine64 = "/usr/lib/wine/wine64"

// bench is what is made once for all tests: programs and a prefix.
type bench struct {
	folder   string
	checker  string // the program as it is given away
	recorded string // the same, but for what Wine cannot tell; see recorded_windows.go
	doubles  string // programs of Windows that Wine has not got; see testdata/doubles
	live     string // the tests of windows/live that are for Windows
	prefix   string
}

var benchFolder string // to be removed at the end

var theBench = sync.OnceValues(func() (b bench, err error) {
	if _, err := os.Stat(wine64); err != nil {
		return b, fmt.Errorf("Wine is needed (scripts/setup test installs it): %w", err)
	}
	if b.folder, err = os.MkdirTemp("", "berth-checker-"); err != nil {
		return b, err
	}
	benchFolder = b.folder
	b.checker, b.recorded = filepath.Join(b.folder, "berth-checker.exe"), filepath.Join(b.folder, "recorded.exe")
	b.doubles, b.live = filepath.Join(b.folder, "doubles.exe"), filepath.Join(b.folder, "live.test.exe")
	b.prefix = filepath.Join(b.folder, "prefix")
	made := make(chan error, 5)
	build := func(args ...string) {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("go %q: %w: %s", args, err, out)
		}
		made <- err
	}
	go build("build", "-trimpath", "-ldflags", "-s -w", "-o", b.checker, ".")
	go build("build", "-trimpath", "-ldflags", "-s -w", "-tags", "recorded", "-o", b.recorded, ".")
	go build("build", "-trimpath", "-ldflags", "-s -w", "-o", b.doubles, "./testdata/doubles")
	go build("test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", b.live, "berth/internal/windows/live")
	go func() { made <- makePrefix(b.prefix) }()
	for range cap(made) {
		if e := <-made; e != nil && err == nil {
			err = e
		}
	}
	return b, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if benchFolder != "" {
		_ = os.RemoveAll(benchFolder)
	}
	os.Exit(code)
}

// makePrefix makes a Windows 10 of Wine's in which Go's programs run.
func makePrefix(prefix string) error {
	p := wine{prefix: prefix}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if out, err := p.command(ctx, "wineboot", "-i").CombinedOutput(); err != nil {
		return fmt.Errorf("wineboot: %w: %s", err, out)
	}
	// Wine 8 lacks the library that Go's programs take their random numbers from.
	if err := os.WriteFile(filepath.Join(prefix, "drive_c/windows/system32/bcryptprimitives.dll"), forwarder("bcryptprimitives.dll", "ProcessPrng", "advapi32.SystemFunction036"), 0o644); err != nil {
		return err
	}
	return p.stop()
}

// wine is a Windows of Wine's.
type wine struct {
	prefix string
	more   []string // of the environment
}

// command is a program in Wine. Without a display: none of ours needs one.
func (w *wine) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, wine64, args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "DISPLAY=") && !strings.HasPrefix(e, "HOME=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+filepath.Dir(w.prefix), "WINEPREFIX="+w.prefix, "WINEARCH=win64", "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree=d;mshtml=d;winemenubuilder.exe=d")
	cmd.Env = append(cmd.Env, w.more...)
	cmd.Dir = filepath.Dir(w.prefix)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// stop ends every program in it.
func (w *wine) stop() error {
	for _, flag := range []string{"-k", "-w"} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		cmd := w.command(ctx, flag)
		cmd.Path = filepath.Join(filepath.Dir(wine64), "wineserver64")
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil && flag == "-w" {
			return fmt.Errorf("wineserver %s: %w: %s", flag, err, out)
		}
	}
	return nil
}

// run runs a program to its end.
func (w *wine) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := w.command(ctx, args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil || ctx.Err() != nil {
		t.Fatalf("%q: %v, %v: %s", args, e, ctx.Err(), err.String())
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// reg runs Wine's reg.exe, which must succeed.
func (w *wine) reg(t *testing.T, args ...string) string {
	t.Helper()
	out, err, code := w.run(t, append([]string{"reg"}, args...)...)
	if code != 0 {
		t.Fatalf("reg %q: %s %s", args, out, err)
	}
	return out
}

// value reads a registry value with Wine's own tool: "0x4".
func (w *wine) value(t *testing.T, key, name string) string {
	t.Helper()
	words := strings.Fields(w.reg(t, "query", key, "/v", name))
	return words[len(words)-1]
}

// folder is a folder of drive C: on the Linux side, by its name in any case; it is made if it is not there.
func (w *wine) path(t *testing.T, name string) string {
	t.Helper()
	at := filepath.Join(w.prefix, "drive_c")
	for part := range strings.SplitSeq(name, "/") {
		entries, err := os.ReadDir(at)
		if err != nil {
			t.Fatal(err)
		}
		next := part
		for _, e := range entries {
			if strings.EqualFold(e.Name(), part) {
				next = e.Name()
			}
		}
		if at = filepath.Join(at, next); at == "" {
			t.Fatal("no path")
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// newWine copies the prefix. The programs in it are linked: nobody writes to them.
func newWine(t *testing.T) *wine {
	t.Helper()
	b, err := theBench()
	if err != nil {
		t.Fatal(err)
	}
	w := &wine{prefix: filepath.Join(t.TempDir(), "prefix")}
	if err := os.Mkdir(w.prefix, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-al", b.prefix+"/drive_c", b.prefix+"/dosdevices", w.prefix).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"system.reg", "user.reg", "userdef.reg", ".update-timestamp"} {
		b, err := os.ReadFile(filepath.Join(b.prefix, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.prefix, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// take makes Wine the machine as far as it can be: all hives go into its registry, and the files that it has not got onto its drive.
func (w *wine) take(t *testing.T, sys *offline.System) {
	t.Helper()
	// What Wine has of its own and the machine has not.
	var text strings.Builder
	text.WriteString(registry.TextHeader + "\r\n\r\n")
	for _, key := range []string{
		`SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall`, `SOFTWARE\WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall`,
		`SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces`, `SYSTEM\CurrentControlSet\Control\Class\{4d36e972-e325-11ce-bfc1-08002be10318}`,
	} {
		fmt.Fprintf(&text, "[-HKEY_LOCAL_MACHINE\\%s]\r\n\r\n", key)
	}
	root := &registry.Node{}
	for _, hive := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM, windows.Security, windows.Default, windows.BCD} {
		if err := sys.Hive(hive).Err; err != nil {
			continue
		}
		k, err := sys.Open(hive, "")
		if err != nil {
			t.Fatal(err)
		}
		n, err := tree(k)
		if err != nil {
			t.Fatal(err)
		}
		n.Name = string(hive)
		// In Wine CurrentControlSet is no link.
		if set := n.Key("ControlSet001"); set != nil {
			n.Keys = append(n.Keys, &registry.Node{Name: "CurrentControlSet", Values: set.Values, Keys: set.Keys})
		}
		root.Keys = append(root.Keys, n)
	}
	machine, err := registry.Format(root)
	if err != nil {
		t.Fatal(err)
	}
	text.WriteString(strings.TrimPrefix(machine, registry.TextHeader))
	file := filepath.Join(t.TempDir(), "machine.reg")
	unicode := []byte{0xff, 0xfe} // else it takes the numbers of hex(7) for those of letters
	for _, u := range utf16.Encode([]rune(text.String())) {
		unicode = binary.LittleEndian.AppendUint16(unicode, u)
	}
	if err := os.WriteFile(file, unicode, 0o600); err != nil {
		t.Fatal(err)
	}
	w.reg(t, "import", file)
	// The service control manager reads what services there are when it starts.
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.takeFiles(t, sys.Files())
}

// tree copies a key with all that is below it.
func tree(k windows.Key) (*registry.Node, error) {
	n := &registry.Node{Name: k.Name()}
	values, err := k.Values()
	if err != nil {
		return nil, err
	}
	for _, name := range values {
		v, err := k.Value(name)
		if err != nil {
			return nil, err
		}
		n.Values = append(n.Values, v)
	}
	keys, err := k.Subkeys()
	if err != nil {
		return nil, err
	}
	for _, name := range keys {
		sub, err := k.Open(name)
		if err != nil {
			return nil, err
		}
		below, err := tree(sub)
		if err != nil {
			return nil, err
		}
		n.Keys = append(n.Keys, below)
	}
	return n, nil
}

// takeFiles copies files that Wine has not got; long ones as holes.
func (w *wine) takeFiles(t *testing.T, files fs.FS) {
	t.Helper()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type()&^fs.ModeDir != 0 { // junctions are not followed
			return nil
		}
		if strings.HasPrefix(name, "$") || strings.HasPrefix(name, "System Volume Information") || strings.HasPrefix(strings.ToLower(name), "windows/system32/config/") {
			return nil
		}
		to := w.path(t, name)
		if _, err := os.Lstat(to); err == nil {
			return nil
		}
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		from, err := files.Open(name)
		if err != nil {
			return err
		}
		defer from.Close()
		info, err := from.Stat()
		if err != nil {
			return err
		}
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		defer f.Close()
		if info.Size() > 1<<20 {
			return f.Truncate(info.Size())
		}
		_, err = io.Copy(f, from)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// record writes what the machine would answer where Wine cannot; see recorded_windows.go.
func (w *wine) record(t *testing.T, m *phony.Machine, sys *offline.System) {
	t.Helper()
	machine := sys.Machine()
	machine.Running = true
	machine.Drives = nil
	licensing, err1 := m.Guest.Licensing()
	antiVirus, err2 := m.Guest.AntiVirus()
	device, err3 := m.Guest.DeviceGuard()
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(map[string]any{"Machine": machine, "Licensing": licensing, "AntiVirus": antiVirus, "Device": device, "Hold": "Z:" + w.hold()})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(w.prefix), "record.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.more = append(w.more, "BERTH_CHECKER_RECORD=Z:"+file)
}

// hold is the file that keeps the machine from telling its licence while it is there.
func (w *wine) hold() string { return filepath.Join(filepath.Dir(w.prefix), "hold") }

// install puts a program into a folder of drive C:, where its logs will be beside it.
func (w *wine) install(t *testing.T, program, folder, name string) (path string) {
	t.Helper()
	dir := w.path(t, folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, name)
	_ = os.Remove(to)
	if err := os.Link(program, to); err != nil {
		b, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return `C:\` + strings.ReplaceAll(folder, "/", `\`) + `\` + name
}

// interrupt asks a program in Wine to end, as Ctrl-C does.
func interrupt(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGINT) }

// forwarder makes a library with one function, which is another library's: headers and a section with the export table alone
// (Microsoft, "PE Format", The .edata Section).
func forwarder(library, function, target string) []byte {
	const section, align = 0x1000, 0x200
	le := binary.LittleEndian
	// The directory (40 bytes), the address of the function, of its name, its ordinal, then the texts.
	const texts = section + 40 + 4 + 4 + 2
	names := library + "\x00" + function + "\x00" + target + "\x00"
	functionAt := uint32(texts + len(library) + 1)
	targetAt := functionAt + uint32(len(function)) + 1
	var e []byte
	for _, n := range []uint32{0, 0, 0, texts, 1, 1, 1, section + 40, section + 44, section + 48, targetAt, functionAt} {
		e = le.AppendUint32(e, n)
	}
	e = append(le.AppendUint16(e, 0), names...)
	size := uint32(len(e))
	e = append(e, make([]byte, -len(e)&(align-1))...)

	h := make([]byte, 64, align)
	h[0], h[1] = 'M', 'Z'
	le.PutUint32(h[60:], 64)
	h = append(h, "PE\x00\x00"...)
	h = le.AppendUint16(le.AppendUint16(h, 0x8664), 1)   // AMD64, one section
	h = append(h, make([]byte, 12)...)                   // no time, no symbols
	h = le.AppendUint16(le.AppendUint16(h, 240), 0x2022) // size of the optional header; a library
	h = le.AppendUint16(h, 0x20b)                        // PE32+
	h = append(h, 0, 0)                                  // linker
	for _, n := range []uint32{0, uint32(len(e)), 0, 0, section} {
		h = le.AppendUint32(h, n) // sizes of code and data, entry point, base of code
	}
	h = le.AppendUint64(h, 0x180000000)
	for _, n := range []uint32{0x1000, align, 6, 0, 6, 0, 2 * section, align, 0} {
		h = le.AppendUint32(h, n) // alignments, versions, size of image and headers, checksum
	}
	h = le.AppendUint16(le.AppendUint16(h, 3), 0x0160)
	for _, n := range []uint64{0x100000, 0x1000, 0x100000, 0x1000} {
		h = le.AppendUint64(h, n)
	}
	for _, n := range []uint32{0, 16, section, size} {
		h = le.AppendUint32(h, n) // 16 directories, the first is the export table
	}
	h = append(h, make([]byte, 15*8)...)
	h = append(h, ".edata\x00\x00"...)
	for _, n := range []uint32{size, section, uint32(len(e)), align, 0, 0, 0, 0x40000040} {
		h = le.AppendUint32(h, n)
	}
	return append(append(h, make([]byte, align-len(h))...), e...)
}
