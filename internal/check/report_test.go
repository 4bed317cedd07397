package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"berth/internal/phony/phonytest"
	"berth/internal/windows"
	"berth/internal/windows/registry"
)

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

// hostile is text that would steer a terminal or break a line.
const hostile = "\x1b]0;owned\x07\r\nPASS \u202e\u009b31m"

// prints fails where a report holds what does not print. A remedy is ours and has lines.
func prints(t *testing.T, r Report) {
	t.Helper()
	say := func(where, s string) {
		if Printable(s) != s {
			t.Errorf("%s does not print: %q", where, s)
		}
	}
	for _, f := range r.Findings {
		say(f.Code, f.Because)
		for _, e := range f.Evidence {
			type parts Evidence // shown with all its fields
			say(f.Code, fmt.Sprintf("%+v", parts(e)))
			if _, err := json.Marshal(e); err != nil {
				t.Errorf("%s: %v", f.Code, err)
			}
		}
	}
	for _, s := range []string{r.Windows.Version, r.Windows.Build, r.Windows.Edition, r.Windows.Language, r.Windows.Architecture, r.Windows.HostName} {
		say("the head", s)
	}
}

// TestHostileText: what a disk says is in the report as text that prints.
func TestHostileText(t *testing.T) {
	m := fit(t)
	m.root.Make(unins + `\0FF1CE` + hostile).Set(windows.Value{Name: "DisplayName", Type: windows.RegSZ, Data: utf16Bytes(hostile)})
	m.root.Make(`SYSTEM\ControlSet001\Control\ComputerName\ComputerName`).Set(windows.Value{Name: "ComputerName", Type: windows.RegSZ, Data: utf16Bytes(hostile)})
	m.root.Make(`SYSTEM\Setup\Upgrade` + hostile)
	m.machine.Disks[0].Name = hostile
	m.broken = map[string]error{`system\controlset001\services\dhcp`: errors.New(hostile)}
	r := Run(Collect(context.Background(), m), Options{})
	prints(t, r)
	if out := fmt.Sprint(r); !strings.Contains(out, `x1b]0;owned`) {
		t.Errorf("the name is not shown at all:\n%s", out)
	}
}

func utf16Bytes(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r), byte(r>>8))
	}
	return b
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
	phonytest.Golden(t, *update, "testdata/unfit.json", b.String())
	empty := run(nil, nil, Options{})
	got, err := json.Marshal(empty)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"fit":true,"open":[],"running":false,"profile":"seed-2020","process":"BYOL_REGULAR","notes":["Amazon asks for at least 200 WorkSpaces in a Region (document, Requirements: 200 per Region, in any mix of running modes); Berth does not."],"windows":{"version":"","build":"","edition":"","language":"","architecture":"","hostName":""},"findings":[]}`
	if string(got) != want {
		t.Errorf("an empty report is %s", got)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.ExitCode() != ExitUnfit {
		t.Errorf("read back: %v, exit %d", err, back.ExitCode())
	}
}

func FuzzMember(f *testing.F) {
	f.Add(groupValue(windows.Administrators, accountOf(500), accountOf(byolRID)))
	f.Add(groupValue(windows.Administrators))
	f.Add([]byte{})
	bad := groupValue(windows.Administrators, accountOf(byolRID))
	bad[groupMembers] = 0xff // members beyond the end
	f.Add(bad)
	many := groupValue(windows.Administrators, accountOf(byolRID))
	copy(many[groupMembers+8:], "\xff\xff\xff\xff")
	f.Add(many)
	f.Fuzz(func(t *testing.T, c []byte) {
		sid := accountOf(byolRID)
		in, err := isMember(c, windows.Administrators, sid)
		if in && (err != nil || !bytes.Contains(c, sid)) {
			t.Errorf("a member that is not there: %v, %x", err, c)
		}
		if flags, err := windows.AccountFlags(c, byolRID); err != nil && flags != 0 {
			t.Errorf("flags %#x with error %v", flags, err)
		}
		if machine, err := windows.MachineSID(c); err == nil {
			if rid, ok := machine.Account(byolRID).RID(machine); !ok || rid != byolRID {
				t.Errorf("the account of %x has RID %d, %v", machine, rid, ok)
			}
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
		prints(t, r)
	})
}
