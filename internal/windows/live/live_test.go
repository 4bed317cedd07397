package live

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf16"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// texted is a Windows of which only the registry is there, written as regedit's text.
type texted struct {
	windows.System
	hives map[windows.Hive]windows.Key
	err   error // what every key answers
}

func systemOf(t *testing.T, text string) *texted {
	t.Helper()
	tree, err := registry.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	s := &texted{hives: map[windows.Hive]windows.Key{}}
	for _, hive := range tree.Keys {
		b, err := registry.Build(hive, registry.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h, err := registry.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if s.hives[windows.Hive(hive.Name)], err = h.Root(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *texted) Open(hive windows.Hive, path string) (windows.Key, error) {
	if s.err != nil {
		return nil, s.err
	}
	k, ok := s.hives[hive]
	if !ok {
		return nil, errors.New("no such hive")
	}
	if rest, ok := strings.CutPrefix(path, "CurrentControlSet"); ok {
		path = "ControlSet001" + rest
	}
	return k.Open(path)
}

const quiet = `[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\ComputerName\ComputerName]
"ComputerName"="BYOL"
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\ComputerName\ActiveComputerName]
"ComputerName"="byol"
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\SessionsPending]
"Exclusive"=dword:00000000
`

func TestPendingReboot(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		`[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired]`:                                     `Auto Update\RebootRequired exists`,
		`[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending]`:                                      `RebootPending exists`,
		`[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\SessionsPending]` + "\n\"Exclusive\"=dword:00000003": `Exclusive is 3`,
		`[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\ComputerName\ComputerName]` + "\n\"ComputerName\"=\"NEW\"":                                  `still runs as`,
	} {
		found, err := pendingReboot(systemOf(t, quiet+text))
		if err != nil || (want == "") != (len(found) == 0) || want != "" && !strings.Contains(found[0], want) {
			t.Errorf("%s: %q, %v", text, found, err)
		}
	}
	broken := systemOf(t, quiet)
	broken.err = errors.New("no access")
	if found, err := pendingReboot(broken); err == nil {
		t.Errorf("a registry that cannot be read says %q", found)
	}
}

func TestPackages(t *testing.T) {
	const store = `[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore`
	list, err := packages(systemOf(t, store+`\Applications\B_1.0_x64__p]`+"\n"+store+`\S-1-5-21-1-2-3-1001\b_1.0_x64__P]`+"\n"+
		store+`\S-1-5-21-1-2-3-1002\A_1.0_x64__p]`+"\n"+store+`\S-1-5-18\A_1.0_x64__p]`+"\n"+store+`\Staged\C_1.0_x64__p]`))
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if a := list[0]; a.FullName != "A_1.0_x64__p" || a.Provisioned || !slices.Equal(a.Users, []string{"S-1-5-18", "S-1-5-21-1-2-3-1002"}) {
		t.Errorf("%+v", a)
	}
	if b := list[1]; b.FullName != "B_1.0_x64__p" || !b.Provisioned || !slices.Equal(b.Users, []string{"S-1-5-21-1-2-3-1001"}) {
		t.Errorf("%+v", b)
	}
	if _, err := packages(systemOf(t, quiet)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a store: %v", err)
	}
}

func TestLocked(t *testing.T) {
	for text, want := range map[string]bool{
		"": false,
		`[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\Lsa]` + "\n\"LsaCfgFlags\"=dword:00000001":                                              true,
		`[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\Lsa]` + "\n\"LsaCfgFlags\"=dword:00000002":                                              false, // without a lock
		`[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\DeviceGuard\Scenarios\HypervisorEnforcedCodeIntegrity]` + "\n\"Locked\"=dword:00000001": true,
	} {
		if got, err := locked(systemOf(t, quiet+text)); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

// driveLayout makes a DRIVE_LAYOUT_INFORMATION_EX.
func driveLayout(style uint32, entries ...func(e []byte)) []byte {
	b := make([]byte, layoutHeader+len(entries)*layoutEntry)
	binary.LittleEndian.PutUint32(b, style)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(entries)))
	for i, fill := range entries {
		fill(b[layoutHeader+i*layoutEntry:][:layoutEntry])
	}
	return b
}

func at(number uint32, start, length uint64, more func(e []byte)) func(e []byte) {
	return func(e []byte) {
		binary.LittleEndian.PutUint64(e[8:], start)
		binary.LittleEndian.PutUint64(e[16:], length)
		binary.LittleEndian.PutUint32(e[24:], number)
		more(e)
	}
}

func mbr(kind, active byte) func(e []byte) { return func(e []byte) { e[32], e[33] = kind, active } }

func gpt(id, name string) func(e []byte) {
	return func(e []byte) {
		copy(e[32:], id)
		for i, u := range utf16.Encode([]rune(name)) {
			binary.LittleEndian.PutUint16(e[72+2*i:], u)
		}
	}
}

func TestLayout(t *testing.T) {
	scheme, parts, err := layout(driveLayout(0,
		at(1, 1<<20, 50<<20, mbr(7, 1)), at(2, 51<<20, 1<<30, mbr(7, 0)), at(0, 0, 0, mbr(0, 0)), at(0, 2<<30, 1<<30, mbr(5, 0)), at(3, 2<<30+1<<20, 1<<20, mbr(0x27, 0))))
	if err != nil || scheme != windows.MBR || len(parts) != 3 {
		t.Fatalf("%s %+v, %v", scheme, parts, err)
	}
	if p := parts[0]; p.Number != 1 || p.Type != "0x07" || !p.Bootable || p.Start != 1<<20 || p.Length != 50<<20 || p.Role != "" {
		t.Errorf("%+v", p)
	}
	if p := parts[2]; p.Number != 3 || p.Role != windows.RoleRecovery || p.Bootable {
		t.Errorf("%+v", p)
	}
	scheme, parts, err = layout(driveLayout(1,
		at(1, 1<<20, 100<<20, gpt("\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b", "EFI system partition")),
		at(2, 101<<20, 16<<20, gpt("\x16\xe3\xc9\xe3\x5c\x0b\xb8\x4d\x81\x7d\xf9\x2d\xf0\x02\x15\xae", strings.Repeat("x", 36)))))
	if err != nil || scheme != windows.GPT || len(parts) != 2 {
		t.Fatalf("%s %+v, %v", scheme, parts, err)
	}
	if p := parts[0]; p.Type != gptEFI || !p.Bootable || p.Role != windows.RoleBoot || p.Name != "EFI system partition" {
		t.Errorf("%+v", p)
	}
	if p := parts[1]; p.Type != gptReserved || p.Bootable || p.Role != windows.RoleReserved || len(p.Name) != 36 {
		t.Errorf("%+v", p)
	}
	if scheme, parts, err := layout(driveLayout(2)); scheme != windows.NoTable || parts != nil || err != nil {
		t.Errorf("%s %v, %v", scheme, parts, err)
	}
	short := driveLayout(0, at(1, 1, 1, mbr(7, 0)))
	for _, b := range [][]byte{nil, short[:40], short[:100], driveLayout(7), driveLayout(0, at(1, 1<<63, 1, mbr(7, 0)))} {
		if _, parts, err := layout(b); err == nil {
			t.Errorf("%d bytes give %v", len(b), parts)
		}
	}
}

func FuzzLayout(f *testing.F) {
	f.Add(driveLayout(0, at(1, 1<<20, 50<<20, mbr(7, 1))))
	f.Add(driveLayout(1, at(1, 1<<20, 50<<20, gpt("0123456789abcdef", "name"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		scheme, parts, err := layout(b)
		if err != nil && (scheme != "" || parts != nil) {
			t.Errorf("an error and %s %v", scheme, parts)
		}
		for _, p := range parts {
			if p.Start < 0 || p.Length < 0 {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestErrorsIn(t *testing.T) {
	const old = "2026-01-01 Error of long ago\r\n"
	log := old
	for i := range 12 {
		log += "line\r\n2026-01-02 SYSPRP Failed to do " + string(rune('a'+i)) + "\r\n"
	}
	lines, err := errorsIn(strings.NewReader(log), int64(len(log)), int64(len(old)))
	if err != nil || len(lines) != errorLines || !strings.HasSuffix(lines[0], "do c") || !strings.HasSuffix(lines[9], "do l") {
		t.Errorf("%q, %v", lines, err)
	}
	if lines, err := errorsIn(strings.NewReader(old), int64(len(old)), 1000); err != nil || len(lines) != 1 {
		t.Errorf("of a log that was begun anew: %q, %v", lines, err)
	}
	if lines, err := errorsIn(strings.NewReader(old), int64(len(old)), int64(len(old))); err != nil || len(lines) != 0 {
		t.Errorf("of a log that did not grow: %q, %v", lines, err)
	}
	wide := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune("one ERROR\r\ntwo\r\n")) {
		wide = binary.LittleEndian.AppendUint16(wide, u)
	}
	if lines, err := errorsIn(bytes.NewReader(wide), int64(len(wide)), 0); err != nil || !slices.Equal(lines, []string{"one ERROR"}) {
		t.Errorf("in UTF-16: %q, %v", lines, err)
	}
	if lines, err := errorsIn(strings.NewReader("Error "+strings.Repeat("é", 1000)), 2006, 0); err != nil || len(lines[0]) > maxLogLine+3 {
		t.Errorf("a long line: %q, %v", lines, err)
	}
	if _, err := errorsIn(strings.NewReader("short"), 100, 0); err == nil {
		t.Error("a log that cannot be read is read")
	}
}

func TestSysprepError(t *testing.T) {
	e := &SysprepError{Log: `C:\setuperr.log`, Lines: []string{"Error one"}, Exit: errors.New("exit status 1")}
	if s := e.Error(); !strings.Contains(s, "exit status 1") || !strings.Contains(s, "Error one") || !errors.Is(e, e.Exit) {
		t.Error(s)
	}
	if s := (&SysprepError{Log: `C:\setuperr.log`}).Error(); !strings.Contains(s, `C:\setuperr.log does not say why`) {
		t.Error(s)
	}
}

func TestServiceStart(t *testing.T) {
	for _, c := range []struct {
		hive      windows.Hive
		key, name string
		want      string
	}{
		{windows.SystemHive, `CurrentControlSet\Services\wuauserv`, "Start", "wuauserv"},
		{windows.SystemHive, `currentcontrolset\services\Dhcp`, "start", "Dhcp"},
		{windows.SystemHive, `CurrentControlSet\Services\mountmgr`, "NoAutoMount", ""},
		{windows.SystemHive, `CurrentControlSet\Services\a\b`, "Start", ""},
		{windows.SystemHive, `CurrentControlSet\Services\`, "Start", ""},
		{windows.Software, `CurrentControlSet\Services\wuauserv`, "Start", ""},
	} {
		name, ok := serviceStart(windows.SetValue{Hive: c.hive, Key: c.key, Value: registry.NewDWORD(c.name, 4)})
		if ok != (c.want != "") || ok && name != c.want {
			t.Errorf("%s of %s is the start of %q", c.name, c.key, name)
		}
	}
	if _, ok := serviceStart(windows.SetValue{Hive: windows.SystemHive, Key: `CurrentControlSet\Services\x`, Value: registry.NewSZ("Start", "4")}); ok {
		t.Error("a text is taken for a start type")
	}
}

func TestPackageNames(t *testing.T) {
	for name, want := range map[string]bool{
		"Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c": true, "": false, "a'; Remove-Item C:": false, "a\nb": false, "ä": false, strings.Repeat("a", 256): false,
	} {
		if isPackageName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestRandomPassword(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		p := randomPassword().Reveal()
		if len(p) != 20 || seen[p] || !strings.ContainsFunc(p, unicode.IsUpper) || !strings.ContainsFunc(p, unicode.IsLower) || !strings.ContainsFunc(p, unicode.IsDigit) || !strings.ContainsAny(p, "!#%+-_.=") {
			t.Fatalf("%q", p)
		}
		seen[p] = true
	}
}

// TestPasswordPrintsNowhere: not in messages, logs or JSON.
func TestPasswordPrintsNowhere(t *testing.T) {
	p := Password("hunter2!")
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %s %q %+v %#v %x\n", p, p, p, struct{ P Password }{p}, p, p)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("made", "password", p, "all", []Password{p})
	slog.New(slog.NewTextHandler(&out, nil)).Info("made", "password", p)
	if err := json.NewEncoder(&out).Encode(map[string]any{"password": p, "also": &p}); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Contains(s, "hunter2") || strings.Contains(s, "68756e74") || strings.Count(s, redacted) < 8 {
		t.Errorf("it is shown: %s", s)
	}
	if p.Reveal() != "hunter2!" {
		t.Error("it is lost")
	}
}

func TestLastLine(t *testing.T) {
	if got := lastLine([]byte("one\r\ntwo \r\n\r\n")); got != "two" {
		t.Errorf("%q", got)
	}
	if got := lastLine([]byte(strings.Repeat("ü", 400))); len(got) > 303 {
		t.Errorf("%d bytes", len(got))
	}
}
