package phony

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"berth/internal/windows"
)

// liveMachines is a machine with answers, and one that is different from it.
func liveMachines(more string) fstest.MapFS {
	base := "A base.\n-- machine --\ndisk = 64MiB\nscheme = none\ninstalled = 2020-01-01T00:00:00Z\nsid = S-1-5-21-1-2-3\nprofile = 2026\nprocess = BYOL_REGULAR_WSP\noffice = true\n" +
		"-- live --\nlicence = rearms 1001 status 1 channel Volume:GVLK kms kms.example:1688 expires 2021-04-03T09:00:00Z\n" +
		"antivirus \"Windows Defender\" = windowsdefender://\npackage A_1.0_x64__p = provisioned user S-1-5-21-1-2-3-1001\ndevice-guard = memory-integrity uefi-lock\nrestart = none\n" +
		"-- findings --\nlive FAIL ZeroRearmCount\nWARN Other\n"
	return fstest.MapFS{
		"base.txtar": {Data: []byte(base)},
		"more.txtar": {Data: []byte("More.\n-- machine --\nbase = base\n" + more)},
	}
}

func TestGuest(t *testing.T) {
	m, err := LoadFS(liveMachines(""), "base")
	if err != nil {
		t.Fatal(err)
	}
	if m.Profile != "2026" || m.Process != "BYOL_REGULAR_WSP" || !m.Office || m.LiveFindings["ZeroRearmCount"] != "FAIL" || m.Findings["Other"] != "WARN" || len(m.Findings) != 1 {
		t.Errorf("%q %q %v %v %v", m.Profile, m.Process, m.Office, m.LiveFindings, m.Findings)
	}
	l, err := m.Guest.Licensing()
	want := windows.Licensing{RearmCount: 1001, Status: 1, Channel: "Volume:GVLK", KMS: "kms.example:1688", Expires: time.Date(2021, 4, 3, 9, 0, 0, 0, time.UTC)}
	if err != nil || l != want {
		t.Errorf("licensing is %+v, %v", l, err)
	}
	if av, err := m.Guest.AntiVirus(); err != nil || !slices.Equal(av, []windows.AntiVirusProduct{{Name: "Windows Defender", Executable: "windowsdefender://"}}) {
		t.Errorf("anti-virus is %+v, %v", av, err)
	}
	if p, err := m.Guest.Packages(); err != nil || len(p) != 1 || p[0].FullName != "A_1.0_x64__p" || !p[0].Provisioned || !slices.Equal(p[0].Users, []string{"S-1-5-21-1-2-3-1001"}) {
		t.Errorf("packages are %+v, %v", p, err)
	}
	if d, err := m.Guest.DeviceGuard(); err != nil || d != (windows.DeviceGuard{MemoryIntegrity: true, UEFILock: true}) {
		t.Errorf("device guard is %+v, %v", d, err)
	}
	if r, err := m.Guest.PendingReboot(); err != nil || len(r) != 0 {
		t.Errorf("restart is %q, %v", r, err)
	}
}

// TestGuestDifference: answers are taken over from the base, replaced and taken away; what is not recorded is an error, not nothing.
func TestGuestDifference(t *testing.T) {
	m, err := LoadFS(liveMachines("-- live --\n- licence\nantivirus = none\npackage B_1.0_x64__p = user S-1-5-21-1-2-3-1001\n- package A_1.0_x64__p\n- device-guard\nrestart = \"a driver was changed\"\n"), "more")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Guest.Licensing(); err == nil {
		t.Error("a licence that is not recorded is told")
	}
	if _, err := m.Guest.DeviceGuard(); err == nil {
		t.Error("a device guard that is not recorded is told")
	}
	if av, err := m.Guest.AntiVirus(); err != nil || len(av) != 0 {
		t.Errorf("anti-virus is %v, %v", av, err)
	}
	if p, err := m.Guest.Packages(); err != nil || len(p) != 1 || p[0].FullName != "B_1.0_x64__p" || p[0].Provisioned {
		t.Errorf("packages are %+v, %v", p, err)
	}
	if r, err := m.Guest.PendingReboot(); err != nil || !slices.Equal(r, []string{"a driver was changed"}) {
		t.Errorf("restart is %q, %v", r, err)
	}
	m, err = LoadFS(liveMachines("-- live --\n- antivirus\n- package\n- restart\n"), "more")
	if err != nil {
		t.Fatal(err)
	}
	_, noAV := m.Guest.AntiVirus()
	_, noPackages := m.Guest.Packages()
	if _, noRestart := m.Guest.PendingReboot(); noAV == nil || noPackages == nil || noRestart == nil {
		t.Errorf("lists that are not recorded are told: %v, %v, %v", noAV, noPackages, noRestart)
	}
	if len(m.LiveFindings) != 0 {
		t.Errorf("findings were taken over: %v", m.LiveFindings)
	}
}

func TestGuestMistakes(t *testing.T) {
	for line, says := range map[string]string{
		"licence = rearms":               "needs a value",
		"licence = rearms many":          "invalid syntax",
		"licence = colour red":           `no "colour"`,
		"antivirus = other":              "a line is",
		"restart twice = none":           "a line is",
		"package A_1_x64__p = user me":   "not a SID",
		"package A_1_x64__p = bought":    `no "bought"`,
		"device-guard = on":              `no "on"`,
		"weather = fine":                 `not asked for "weather"`,
		"licence = expires tomorrow":     "cannot parse",
		"antivirus \"A\" \"B\" = C.exe":  "a line is",
		"package \"A_1_x64__p = user me": "",
	} {
		_, err := LoadFS(liveMachines("-- live --\n"+line+"\n"), "more")
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "section live") {
			t.Errorf("%s: %v, want %q", line, err, says)
		}
	}
}
