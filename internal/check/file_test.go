package check

import (
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"berth/internal/windows"
)

// FuzzFiles judges machines with files of any bytes where the checks look into files: no panic, what is kept is bounded, and the
// report can be shown.
func FuzzFiles(f *testing.F) {
	f.Add([]byte(skype+hit), []byte("HIBR"), []byte("MZ"))
	f.Add([]byte(wide(hit)), []byte("WAKE\x00"), make([]byte, 0x200))
	f.Add([]byte("\xff\xfe\x00"), []byte{}, []byte("MZ"+strings.Repeat("\xff", 0x100)))
	f.Add([]byte(strings.Repeat("\x1b[31mfatal error\u202e\n", 100)), []byte("\x1b[2J"), []byte{})
	f.Fuzz(func(t *testing.T, log, hibernation, kernel []byte) {
		m := fit(t)
		m.files[sysprepErrors] = &fstest.MapFile{Data: log}
		m.files[hiberFile] = &fstest.MapFile{Data: hibernation}
		m.files[kernelFile] = &fstest.MapFile{Data: kernel}
		facts := Collect(t.Context(), m)
		if n := len(facts.SysprepErrors.Value); n > maxLogLines {
			t.Errorf("%d lines are kept", n)
		}
		r := Run(facts, Options{})
		prints(t, r)
		if fd := find(t, r, "HibernationEnabled"); len(hibernation) >= 4 && strings.EqualFold(string(hibernation[:4]), "HIBR") && fd.Outcome != Fail {
			t.Errorf("hibernated, and %s", fd.Outcome)
		}
	})
}

// FuzzDecoders reads any bytes as the structures that the new facts decode: no panic, and nothing read from beyond them.
func FuzzDecoders(f *testing.F) {
	f.Add([]byte{1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}, "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c")
	f.Add([]byte("\x08\x00\x0a\x00\x08\x00\x00\x00C\x00O\x00R\x00P\x00"), `"%ProgramFiles%\A\a.exe"`)
	f.Add([]byte("DMIO:ID:0123456789abcdef"), "____")
	f.Add(make([]byte, productKeySize), `C:\..\..\x`)
	f.Fuzz(func(t *testing.T, b []byte, s string) {
		if sid, err := windows.SIDText(b); err == nil && !strings.HasPrefix(sid, "S-1-") {
			t.Errorf("a SID is %q", sid)
		}
		if text, err := countedText(b); err == nil && len(text) > 3*len(b) {
			t.Errorf("a text of %d bytes in %d", len(text), len(b))
		}
		if device := mountedDevice(b); device == "" || !utf8.ValidString(device) || strings.ContainsAny(device, "\x1b\n") {
			t.Errorf("a device is %q", device)
		}
		if at, _, err := filetime(windows.Value{Data: b}); err == nil && at.IsZero() {
			t.Error("a time that is none is told")
		}
		if path, ok := onSystemVolume(s); ok && (strings.Contains(path, "..") && strings.Contains("/"+path+"/", "/../") || strings.HasPrefix(path, "/")) {
			t.Errorf("%q leads to %q", s, path)
		}
		found, reasons := stoppers([]windows.Package{{FullName: s, Users: []string{"S-1-5-21-1-2-3-1001"}}}, []string{s}, stoppedAt([]string{s}))
		if len(found) != len(reasons) {
			t.Errorf("%d packages, %d reasons", len(found), len(reasons))
		}
		m := fit(t)
		m.root.Key(`SOFTWARE\` + currentVersion).Set(windows.Value{Name: "DigitalProductId4", Type: windows.RegBinary, Data: b})
		m.root.Key(`SECURITY\Policy\PolPrDmS`).Set(windows.Value{Data: b})
		prints(t, Run(Collect(t.Context(), m), Options{}))
	})
}
