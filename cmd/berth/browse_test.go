package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/phony"
	"berth/internal/windows/registry"
	"berth/testdata/machines"
)

// strange are machines for looking inside.
var strange = map[string]string{
	"inside": `Two Windows, and names that a terminal must not see.
-- machine --
base = win10-2004-enterprise
disk = 8GiB
partition windows = size 5GiB ntfs label "First"
partition other = size 2GiB ntfs label "Second"
partition data = size rest ntfs label "Data"
-- registry.reg --
[HKEY_LOCAL_MACHINE\SOFTWARE\Strange]
@="the default"
"text"="back\\slash and \"quotes\""
"binary"=hex:00,ff,1b
"multi"=hex(7):61,00,00,00,62,00,00,00,00,00
"qword"=hex(b):01,00,00,00,01,00,00,00
"odd"=hex(1):41,00,42
"type"=hex(3e8):01
"escape"=hex(1):1b,00,5b,00,32,00,4a,00,00,00
[HKEY_LOCAL_MACHINE\SOFTWARE\Strange\Below]
"n"=dword:0000002a
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList\S-1-5-21-1-2-3-1002]
"ProfileImagePath"="%SystemDrive%\\Users\\Joe"
[NTUSER Joe\Environment]
"TEMP"="of Joe"
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList\S-1-5-21-1-2-3-1003]
"ProfileImagePath"="D:\\Users\\Eve"
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList\S-1-5-21-1-2-3-1004]
"Flags"=dword:00000000
-- files --
other:Windows/System32/ntoskrnl.exe = pe amd64
other:second.txt = text "of the second"
data:Projects/notes.txt = text "on another volume"
strange/evil` + "\x1b[2J\u202e" + `.txt = text "a\x1b[2Jb\tc\r\n"
strange/Grüße.txt = text "Grüße"
strange/big = size 3MiB
`,
}

// insideVM makes that machine's export.
func insideVM(t *testing.T) string {
	t.Helper()
	base, err := fs.ReadFile(machines.FS, phony.Base+".txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{phony.Base + ".txtar": {Data: base}}
	for n, text := range strange {
		files[n+".txtar"] = &fstest.MapFile{Data: []byte(text)}
	}
	m, err := phony.LoadFS(files, "inside")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "inside.ova")
	if err := m.Export(t.Context(), path, "ova"); err != nil {
		t.Fatal(err)
	}
	return path
}

// berth runs this program and returns what it printed and its exit code.
func berth(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asBerth+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestBrowse looks into an export as people do, through the program itself.
func TestBrowse(t *testing.T) {
	vm := insideVM(t)
	for _, c := range []struct {
		args   string // $VM is the export
		code   int
		stdout string // exactly; where it begins with ~ what it contains
		stderr string // what it contains
	}{
		{"ls $VM /strange", 0, "Grüße.txt\nbig\nevil\\x1b[2J\\u{202e}.txt\n", "Windows 1 of 2"},
		{`ls $VM C:\STRANGE\big`, 0, "big\n", ""},
		{`ls $VM c:`, 0, "~Documents and Settings@\nPerfLogs/\n", ""},
		{"ls $VM ../../strange/../strange/big", 0, "big\n", ""},
		{"ls -l $VM /strange/big", 0, "A             3145728  2020-09-22 09:30  big\n", ""},
		{"ls -l $VM Users", 0, "~SH             <LINK>  2020-09-22 09:30  All Users@ -> \\??\\C:\\ProgramData\n", ""},
		{"ls -o json $VM strange/big", 0, `{"path":"strange/big","name":"big","kind":"file","bytes":3145728,"modified":"2020-09-22T09:30:00Z","attributes":"A"}` + "\n", ""},
		{"ls -o json $VM strange", 0, `~"name":"evil\u001b[2J\u202e.txt"`, ""},
		{"ls -r --partition 4 $VM", 0, "~Projects/\nProjects/notes.txt\n", ""},
		{"ls --partition 0:4 $VM Projects", 0, "notes.txt\n", ""},
		{"ls --windows 2 $VM", 0, "Windows/\nsecond.txt\n", "Windows 2 of 2"},
		{"ls --windows 3 $VM", 2, "", "there is no Windows 3"},
		{"ls --windows 0 $VM", 2, "", "there is no Windows 0"},
		{"ls --partition 9 $VM", 1, "", "partition 9"},
		{"ls --partition x $VM", 2, "", "--partition"},
		{`ls $VM D:\Projects`, 2, "", "only C: is known"},
		{"ls $VM nothing", 1, "", "nothing"},
		{"ls $VM ../x", 1, "", "berth: ../x: file does not exist"},
		{`ls $VM C:\Windows\x`, 1, "", `berth: C:\Windows\x: file does not exist`},
		{`cat $VM ..\x`, 1, "", `berth: ..\x: file does not exist`},
		{`cat $VM C:\strange`, 2, "", `C:\strange is a folder`},
		{"ls $VM Users/Default?User/Desktop", 2, "", "junction"},
		{"cat $VM /strange/Grüße.txt", 0, "Grüße", ""},
		{"cat --partition 4 $VM projects/NOTES.TXT", 0, "on another volume", ""},
		{"cat $VM strange", 2, "", "is a folder"},
		{"cat $VM strange/none", 1, "", "strange/none"},
		{"cat $VM Users/Default?User", 2, "", "not followed"},
		{`reg $VM HKLM\SOFTWARE\Strange`, 0, "HKEY_LOCAL_MACHINE\\SOFTWARE\\Strange\n" +
			"    (Default)    REG_SZ    the default\n    text    REG_SZ    back\\slash and \"quotes\"\n    binary    REG_BINARY    00FF1B\n" +
			"    multi    REG_MULTI_SZ    a\\0b\n    qword    REG_QWORD    0x100000001\n    odd    REG_SZ    410042\n    type    REG_TYPE_0x3e8    01\n" +
			"    escape    REG_SZ    \\x1b[2J\n\nHKEY_LOCAL_MACHINE\\SOFTWARE\\Strange\\Below\n\n", ""},
		{`reg $VM software\strange\below N`, 0, "HKEY_LOCAL_MACHINE\\SOFTWARE\\strange\\below\n    n    REG_DWORD    0x2a\n\n", ""},
		{`reg $VM SOFTWARE\Strange @`, 0, "HKEY_LOCAL_MACHINE\\SOFTWARE\\Strange\n    (Default)    REG_SZ    the default\n\n", ""},
		{`reg -r $VM SOFTWARE\Strange`, 0, "~Strange\\Below\n    n    REG_DWORD    0x2a\n", ""},
		{`reg $VM HKLM\SYSTEM\CurrentControlSet\Services\storahci Start`, 0, "~Start    REG_DWORD    0x0\n", ""},
		{`reg $VM HKU\.DEFAULT\Keyboard?Layout\Preload`, 0, "~    1    REG_SZ    00000409\n", ""},
		{`reg $VM SAM\SAM\Domains\Account\Users\Names`, 0, "~Names\\WorkSpaces_BYOL\n", ""},
		{`reg $VM HKLM\SECURITY\Policy`, 0, "~Policy\\PolRevision\n", ""},
		{`reg $VM BCD\Description KeyName`, 0, "HKEY_LOCAL_MACHINE\\BCD00000000\\Description\n    KeyName    REG_SZ    BCD00000000\n\n", ""},
		{`reg -o json $VM SOFTWARE\Strange\Below`, 0, `{"key":"HKEY_LOCAL_MACHINE\\SOFTWARE\\Strange\\Below","lastWrite":"2020-09-22T09:30:00Z","values":[{"name":"n","type":"REG_DWORD","data":42}],"subkeys":[]}` + "\n", ""},
		{`reg --reg $VM SOFTWARE\Strange\Below`, 0, "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\Strange\\Below]\r\n\"n\"=dword:0000002a\r\n", ""},
		{`reg --reg -o json $VM SOFTWARE`, 2, "", "one of them"},
		{`reg $VM HKCU\Software`, 2, "", "in no hive"},
		{`reg $VM HKLM\SOFTWARE\nix`, 1, "", `berth: the key HKLM\SOFTWARE\nix does not exist; what there is of its path is HKEY_LOCAL_MACHINE\SOFTWARE` + "\n"},
		{`reg $VM software\strange\Below\nix\below\nix`, 1, "", `berth: the key software\strange\Below\nix\below\nix does not exist; what there is of its path is HKEY_LOCAL_MACHINE\SOFTWARE\strange\Below` + "\n"},
		{`reg $VM SYSTEM\CurrentControlSet\nix`, 1, "", `what there is of its path is HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet` + "\n"},
		{`reg $VM SOFTWARE\Strange nothing`, 1, "", `berth: the key HKEY_LOCAL_MACHINE\SOFTWARE\Strange has no value nothing` + "\n"},
		{`reg $VM HKU`, 0, "HKEY_USERS\n\nHKEY_USERS\\.DEFAULT\n" +
			`HKEY_USERS\S-1-5-18    systemprofile    C:\Windows\system32\config\systemprofile` + "\n" +
			`HKEY_USERS\S-1-5-19    LocalService    C:\Windows\ServiceProfiles\LocalService` + "\n" +
			`HKEY_USERS\S-1-5-20    NetworkService    C:\Windows\ServiceProfiles\NetworkService` + "\n" +
			`HKEY_USERS\S-1-5-21-1-2-3-1002    Joe    C:\Users\Joe` + "\n" +
			`HKEY_USERS\S-1-5-21-1-2-3-1003    Eve    D:\Users\Eve` + "\n" +
			`HKEY_USERS\S-1-5-21-1472583690-2846193057-3905172846-1001    WorkSpaces_BYOL    C:\Users\WorkSpaces_BYOL` + "\n\n", ""},
		{`reg -o json $VM HKEY_USERS\`, 0, `~"subkeys":[".DEFAULT","S-1-5-18","S-1-5-19","S-1-5-20","S-1-5-21-1-2-3-1002","S-1-5-21-1-2-3-1003","S-1-5-21-1472583690-2846193057-3905172846-1001"],"users":[{"sid":"S-1-5-18","name":"systemprofile",`, ""},
		{`reg -r $VM HKU`, 2, "", "say which key below it"},
		{`reg $VM hku\S-1-5-21-1-2-3-1002\environment`, 0, "HKEY_USERS\\S-1-5-21-1-2-3-1002\\environment\n    TEMP    REG_SZ    of Joe\n\n", ""},
		{`reg $VM HKEY_USERS\S-1-5-21-1-2-3-1002`, 0, "HKEY_USERS\\S-1-5-21-1-2-3-1002\n\nHKEY_USERS\\S-1-5-21-1-2-3-1002\\Environment\n\n", ""},
		{`reg $VM HKU\S-1-5-21-1-2-3-1002\Environment\nix`, 1, "", `what there is of its path is HKEY_USERS\S-1-5-21-1-2-3-1002\Environment` + "\n"},
		{`reg $VM HKU\S-1-5-21-1-2-3-1003\Environment`, 2, "", `is in D:\Users\Eve, not on C:`},
		{`reg $VM HKU\S-1-5-21-1-2-3-1004\Environment`, 1, "", `ProfileImagePath`},
		{`reg $VM HKU\S-1-5-21-1-2-3-1005\Environment`, 1, "", `the key HKEY_USERS\S-1-5-21-1-2-3-1005 does not exist`},
		{`reg $VM HKU\S-1-5-21-1472583690-2846193057-3905172846-1001`, 2, "", "the hive of S-1-5-21-1472583690-2846193057-3905172846-1001 (WorkSpaces_BYOL)"}, // not 1: as above
		{`reg $VM HKU\S-1-5-18\Keyboard?Layout\Preload`, 0, "HKEY_USERS\\S-1-5-18\\Keyboard Layout\\Preload\n    1    REG_SZ    00000409\n\n", ""},
		{`reg $VM HKU\S-1-5-18\\\\x`, 2, "", "name"},
		{`reg --windows 2 $VM SYSTEM`, 2, "", "is missing"}, // not 1: its keys are not surely absent
		{"inspect $VM", 0, "~Windows 2 of 2, on disk 0, partition 3", ""},
		{"inspect --verify -o json $VM", 0, `~"integrity": "verified"`, ""},
		{"inspect --format raw $VM", 0, "~The file begins like OVA; it was read as RAW because that is what was said.", ""},
		{"inspect --format vmdk $VM", 2, "", "the file was said to be VMDK, but is OVA"},
		{"inspect /etc/passwd", 2, "", "not a disk"},
		{"ls /etc/passwd", 2, "", "not a disk"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(c.args)
			for i := range args {
				args[i] = strings.ReplaceAll(strings.ReplaceAll(args[i], "$VM", vm), "?", " ")
			}
			stdout, stderr, code := berth(t, args...)
			part, contains := strings.CutPrefix(c.stdout, "~")
			if code != c.code || !contains && stdout != c.stdout || !strings.Contains(stdout, part) || !strings.Contains(stderr, c.stderr) {
				t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
			}
			if strings.ContainsAny(stdout+stderr, "\x1b\u202e") {
				t.Errorf("a terminal would act on %q %q", stdout, stderr)
			}
			if code == 1 && strings.Count(strings.TrimSpace(stderr), "\n") > 1 {
				t.Errorf("more than one line says that something is not there: %s", stderr)
			}
		})
	}
}

// TestSplitExports looks into disks that lie in several files, which every command finds beside the descriptor.
func TestSplitExports(t *testing.T) {
	vm, dir := insideVM(t), t.TempDir()
	raw := filepath.Join(dir, "inside.raw")
	if _, stderr, code := berth(t, "convert", vm, raw); code != 0 {
		t.Fatal(stderr)
	}
	for _, sub := range []string{"monolithicFlat", "twoGbMaxExtentSparse"} {
		folder := filepath.Join(dir, sub)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(folder, "disk.vmdk")
		if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+sub, raw, file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		commands := []struct {
			args   []string
			stdout string // what it contains
			codes  string
		}{
			{[]string{"inspect", file}, "Windows 2 of 2", "0"},
			{[]string{"ls", file, "strange"}, "Grüße.txt", "0"},
			{[]string{"cat", file, "strange/Grüße.txt"}, "Grüße", "0"},
			{[]string{"reg", file, `SOFTWARE\Strange`, "qword"}, "0x100000001", "0"},
			{[]string{"check", file}, "", "01"}, // fit or not, but read
			{[]string{"convert", file, filepath.Join(folder, "out.raw")}, "", "0"},
		}
		for _, c := range commands {
			if stdout, stderr, code := berth(t, c.args...); !strings.ContainsRune(c.codes, rune('0'+code)) || !strings.Contains(stdout, c.stdout) {
				t.Errorf("%s of %s: exit code %d\n%s\n%s", c.args[0], sub, code, stdout, stderr)
			}
		}
		// Without one of its files the disk is refused, and so it is where that file is a link out of the folder.
		parts, err := filepath.Glob(filepath.Join(folder, "disk-*.vmdk"))
		if err != nil || len(parts) == 0 {
			t.Fatal(parts, err)
		}
		moved := filepath.Join(dir, "moved."+sub)
		if err := os.Rename(parts[0], moved); err != nil {
			t.Fatal(err)
		}
		for _, link := range []bool{false, true} {
			if link {
				if err := os.Symlink(moved, parts[0]); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range commands[:5] {
				if _, stderr, code := berth(t, c.args...); code != 2 || !strings.Contains(stderr, "refers elsewhere") {
					t.Errorf("%s of %s without a part, link %v: exit code %d, %s", c.args[0], sub, link, code, stderr)
				}
			}
		}
	}
}

// TestBareOVF looks into an export whose files were not packed into an OVA, or were unpacked.
func TestBareOVF(t *testing.T) {
	vm, dir := insideVM(t), t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "tar", "-xf", vm, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	descriptors, err := filepath.Glob(filepath.Join(dir, "*.ovf"))
	if err != nil || len(descriptors) != 1 {
		t.Fatal(descriptors, err)
	}
	if stdout, stderr, code := berth(t, "inspect", descriptors[0]); code != 0 || !strings.Contains(stdout, "Windows 2 of 2") || !strings.Contains(stdout, "OVF") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	if stdout, stderr, code := berth(t, "cat", descriptors[0], "strange/Grüße.txt"); code != 0 || stdout != "Grüße" {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	// The manifest beside it is compared as an OVA's is.
	verify := func(want int, says string) {
		t.Helper()
		if stdout, stderr, code := berth(t, "inspect", "--verify", descriptors[0]); code != want || !strings.Contains(stdout, says) {
			t.Errorf("exit code %d, want %d and %q\n%s\n%s", code, want, says, stdout, stderr)
		}
	}
	verify(0, "verified: all digests agree")
	disks, err := filepath.Glob(filepath.Join(dir, "*.vmdk"))
	if err != nil || len(disks) != 1 {
		t.Fatal(disks, err)
	}
	f, err := os.OpenFile(disks[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "*.mf"))
	if err != nil || len(manifests) != 1 {
		t.Fatal(manifests, err)
	}
	verify(1, "DAMAGED")
	if err := os.Remove(manifests[0]); err != nil {
		t.Fatal(err)
	}
	verify(0, "none: whether the file is whole cannot be told")
}

func TestFormatsThatCanBeLookedInto(t *testing.T) {
	if look, all := formatNames(false), formatNames(true); look != "OVA, OVF, QCOW2, VMDK, VHDX, VHD, RAW" || all != "OVA, OVF, QCOW2, VMDK, VHDX, GZIP, XZ, VHD, RAW" {
		t.Errorf("%s; to copy: %s", look, all)
	}
}

func TestCatWritesFiles(t *testing.T) {
	vm := insideVM(t)
	out := filepath.Join(t.TempDir(), "SOFTWARE")
	if stdout, stderr, code := berth(t, "cat", "-o", out, vm, "Windows/System32/config/SOFTWARE"); code != 0 || stdout != "" {
		t.Fatalf("%d %s", code, stderr)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	h, err := registry.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	root, err := h.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Open("Strange"); err != nil {
		t.Error(err)
	}
	// A file that is there is not replaced, and a link is not followed.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{out, link} {
		if _, stderr, code := berth(t, "cat", "-o", to, vm, "Windows/win.ini"); code != 2 || !strings.Contains(stderr, "exists") {
			t.Errorf("%s: %d %s", to, code, stderr)
		}
	}
	if again, err := os.ReadFile(out); err != nil || !bytes.Equal(again, b) {
		t.Error("the file was changed")
	}
	// To standard output, with nothing escaped.
	if stdout, _, code := berth(t, "cat", "-o", "-", vm, "strange/evil\x1b[2J\u202e.txt"); code != 0 || stdout != "a\x1b[2Jb\tc\r\n" {
		t.Errorf("%d %q", code, stdout)
	}
	// What the registry exports reads as what it was.
	stdout, _, code := berth(t, "reg", "--reg", vm, `SOFTWARE\Strange`)
	if code != 0 {
		t.Error(code)
	}
	n, err := registry.Parse(stdout)
	if err != nil {
		t.Fatal(err)
	}
	if k := n.Key(`SOFTWARE\Strange`); k == nil || len(k.Values) != 8 || len(k.Keys) != 1 {
		t.Errorf("%+v", k)
	}
}

func TestTamer(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\r\n": "plain\ttext\r\n", "\x1b[2J": `\x1b[2J`, "Grüße 日本 🙂": "Grüße 日本 🙂", "\u009b2J": `\xc2\x9b2J`, "\x9b2J": `\x9b2J`,
		"a\rb": `a\x0db`, "\x7f": `\x7f`, "\xe6\x97x\xa5": "\xe6\x97x\\xa5", "\xff": `\xff`,
	} {
		var b bytes.Buffer
		w := &tamer{w: &b}
		for i := range len(in) { // in pieces, as they come
			if in[i] == '\r' {
				break
			}
			if _, err := w.Write([]byte(in[i : i+1])); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.Contains(in, "\r") && b.String() != want {
			t.Errorf("%q in pieces: %q, want %q", in, b.String(), want)
		}
		b.Reset()
		if _, err := (&tamer{w: &b}).Write([]byte(in)); err != nil || b.String() != want {
			t.Errorf("%q: %q, want %q", in, b.String(), want)
		}
	}
}

func TestInsidePath(t *testing.T) {
	for in, want := range map[string]string{
		"": ".", "/": ".", `\`: ".", "C:": ".", `c:\`: ".", `C:\Windows\System32`: "Windows/System32", "Windows//x/": "Windows/x", "../..": ".", `..\x`: "x", "a:b": "a:b",
	} {
		if got, err := insidePath(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := insidePath(`D:\x`); err == nil {
		t.Error("D: is taken for C:")
	}
}
