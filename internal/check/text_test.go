package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

func write(t testing.TB, r Report, opt TextOptions) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b, opt); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// sick is a machine with something wrong of every kind.
func sick(t testing.TB) Report {
	m := fit(t)
	m.setAccount(byolAccount, byolRID, 0x10, false)
	m.merge(t, `[`+unins+`\{A5CD39B7}]`+"\n"+`"DisplayName"="VMware Tools"`+"\n"+
		`[SYSTEM\ControlSet001\Services\mountmgr]`+"\n"+`"NoAutoMount"=dword:1`)
	m.system().Volume.FreeBytes = 3 << 30
	m.broken = map[string]error{strings.ToLower(ifs): errors.New("subkey list at 0x4f020: signature \"\\x00\\x00\"")}
	return Run(Collect(context.Background(), m), Options{})
}

func TestText(t *testing.T) {
	golden(t, "testdata/fit.txt", write(t, Run(Collect(context.Background(), fit(t)), Options{}), TextOptions{}))
	golden(t, "testdata/unfit.txt", write(t, sick(t), TextOptions{}))
}

func TestTextWidth(t *testing.T) {
	r := sick(t)
	for _, width := range []int{0, 10, 60, 80, 120} {
		for line := range strings.Lines(write(t, r, TextOptions{Width: width})) {
			want := width
			if width == 0 {
				want = 80
			}
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > max(want, minWidth) {
				t.Errorf("width %d: a line of %d columns: %q", width, n, line)
			}
		}
	}
	first, _, _ := strings.Cut(write(t, r, TextOptions{}), "\n")
	if first != "NOT FIT for seed-2020: 3 failed, 1 warned, 1 open, 15 passed" {
		t.Errorf("the first line is %q", first)
	}
}

func TestTextColours(t *testing.T) {
	r := sick(t)
	coloured, without := write(t, r, TextOptions{Color: true}), write(t, r, TextOptions{})
	if strings.Contains(without, "\x1b") {
		t.Error("colours without a terminal")
	}
	if !strings.Contains(coloured, red) {
		t.Error("no colours on a terminal")
	}
	for _, sgr := range []string{red, yellow, green, cyan, bold, plain} {
		coloured = strings.ReplaceAll(coloured, sgr, "")
	}
	if coloured != without {
		t.Errorf("without its colours the text differs:\n%s", coloured)
	}
}

// TestTextHostile: what a disk says cannot steer the terminal or break a line, nor can a report that was read back.
func TestTextHostile(t *testing.T) {
	m := fit(t)
	evil := "\x1b]0;owned\x07\r\nPASS \u202e\u009b31m"
	m.root.Make(unins + `\0FF1CE` + evil).Set(windows.Value{Name: "DisplayName", Type: windows.RegSZ, Data: utf16Bytes(evil)})
	m.root.Make(`SYSTEM\ControlSet001\Control\ComputerName\ComputerName`).Set(windows.Value{Name: "ComputerName", Type: windows.RegSZ, Data: utf16Bytes(evil)})
	m.root.Make(`SYSTEM\Setup\Upgrade` + evil)
	m.machine.Disks[0].Name = evil
	m.broken = map[string]error{`system\controlset001\services\dhcp`: errors.New(evil)}
	r := Run(Collect(context.Background(), m), Options{})
	r.Findings[0].Because += evil
	r.Profile += evil
	out := write(t, r, TextOptions{})
	for _, bad := range []string{"\x1b", "\x07", "\r", "\u202e", "\u009b", "\nPASS "} {
		if strings.Contains(out, bad) {
			t.Errorf("the text has %q:\n%s", bad, out)
		}
	}
	if !strings.Contains(out, `\x1b]0;owned\x07`) {
		t.Errorf("the name is not shown at all:\n%s", out)
	}
	for _, f := range r.Findings[1:] {
		for _, e := range append(f.Evidence, f.Because) {
			if strings.ContainsAny(e, "\x1b\x07\r\n\u202e") {
				t.Errorf("%s: %q", f.Code, e)
			}
		}
	}
}

func utf16Bytes(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r), byte(r>>8))
	}
	return b
}

type shut struct{}

func (shut) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestTextWriter(t *testing.T) {
	if err := sick(t).WriteText(shut{}, TextOptions{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed writer gives %v", err)
	}
}

// TestJSON holds the report's shape.
func TestJSON(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(sick(t)); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/unfit.json", b.String())
	empty := run(nil, nil, Options{})
	got, err := json.Marshal(empty)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"fit":true,"open":[],"profile":"seed-2020","windows":{"version":"","build":"","edition":"","language":"","architecture":"","hostName":""},"findings":[]}`
	if string(got) != want {
		t.Errorf("an empty report is %s", got)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.ExitCode() != ExitUnfit {
		t.Errorf("read back: %v, exit %d", err, back.ExitCode())
	}
}

func FuzzMember(f *testing.F) {
	f.Add(groupValue(administrators, accountOf(500), accountOf(byolRID)))
	f.Add(groupValue(administrators))
	f.Add([]byte{})
	bad := groupValue(administrators, accountOf(byolRID))
	bad[groupMembers] = 0xff // members beyond the end
	f.Add(bad)
	many := groupValue(administrators, accountOf(byolRID))
	copy(many[groupMembers+8:], "\xff\xff\xff\xff")
	f.Add(many)
	f.Fuzz(func(t *testing.T, c []byte) {
		sid := accountOf(byolRID)
		in, err := isMember(c, administrators, sid)
		if in && (err != nil || !bytes.Contains(c, sid)) {
			t.Errorf("a member that is not there: %v, %x", err, c)
		}
		if flags, err := accountFlags(c, byolRID); err != nil && flags != 0 {
			t.Errorf("flags %#x with error %v", flags, err)
		}
		if sid, err := accountSID(c, byolRID); err == nil && len(sid) != 28 {
			t.Errorf("a SID of %d bytes", len(sid))
		}
	})
}

// FuzzCollect judges machines made of any text: no panic, nothing unprintable in the report, and never fit where the machine's
// disks are not known.
func FuzzCollect(f *testing.F) {
	f.Add(fitText)
	for _, c := range []string{microsoft365, `[SYSTEM\Select]` + "\n" + `"Current"=hex(4):01`, `[SAM\SAM\Domains\Account\Users\Names\WorkSpaces_BYOL]` + "\n@=hex(0):",
		`[SOFTWARE\Microsoft\Windows NT\CurrentVersion]` + "\n" + `"EditionID"=hex(1):1b`} {
		f.Add(fitText + c)
	}
	f.Fuzz(func(t *testing.T, text string) {
		root, err := registry.Parse(text)
		if err != nil {
			t.Skip()
		}
		m := fit(t)
		for _, k := range root.Keys {
			m.replace(k)
		}
		m.machine.Disks = nil
		r := Run(Collect(context.Background(), m), Options{})
		if r.Fit {
			t.Error("fit without a disk")
		}
		for line := range strings.Lines(write(t, r, TextOptions{})) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 || strings.ContainsRune(line, 0x1b) {
				t.Errorf("line %q", line)
			}
		}
	})
}
