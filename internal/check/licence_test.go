package check

import (
	"strings"
	"testing"

	"berth/internal/windows"
)

// key gives the machine a product key of a channel.
func key(channel string) func(*testing.T, *memory) {
	return change(func(m *memory) {
		data := make([]byte, productKeySize)
		for i, c := range []byte(channel) {
			data[keyChannel+2*i] = c
		}
		m.root.Key(`SOFTWARE\` + currentVersion).Set(windows.Value{Name: "DigitalProductId4", Type: windows.RegBinary, Data: data})
	})
}

// licence makes a machine that runs with a licence.
func licence(l windows.Licensing) func(*testing.T, *memory) {
	return while(func(a *answers) { a.licensing = &l })
}

var licenceCases = []testCase{
	{"activated", licence(windows.Licensing{Status: 1, Channel: "Volume:GVLK", RearmCount: 3}), Options{}, "WindowsNotActivated", Pass, `channel "Volume:GVLK"`},
	{"in grace", licence(windows.Licensing{Status: 2, Channel: "Volume:GVLK"}), Options{}, "WindowsNotActivated", Fail, "in the grace period after set-up (2)"},
	{"in a state to come", licence(windows.Licensing{Status: 77, Channel: "Volume:GVLK"}), Options{}, "WindowsNotActivated", Fail, "not known (77)"},
	{"activated by MAK", licence(windows.Licensing{Status: 1, Channel: "Volume:MAK"}), Options{}, "WindowsNotActivated", Fail, "Volume:MAK"},
	{"activated by what is not said", licence(windows.Licensing{Status: 1}), Options{}, "WindowsNotActivated", Unknown, "by what kind of key"},
	{"does not say", while(func(a *answers) { a.licensing = nil }), Options{}, "WindowsNotActivated", Unknown, "WMI does not answer"},
	{"a key that is cut", reg(cv + `"DigitalProductId4"=hex:01,02`), Options{}, "WindowsNotActivated", Unknown, "it has 2 bytes, not 1272"},
	{"a retail key", key("Retail"), Options{}, "WindowsNotActivated", Warn, "channel Retail"},

	{"rearms left", licence(windows.Licensing{Status: 1, Channel: "Volume:GVLK", RearmCount: 1}), Options{}, "ZeroRearmCount", Pass, "1 times more"},
	{"no rearms left", licence(windows.Licensing{Status: 1, Channel: "Volume:GVLK"}), Options{}, "ZeroRearmCount", Fail, "RemainingWindowsReArmCount = 0"},
	{"less than none", licence(windows.Licensing{RearmCount: -1}), Options{}, "ZeroRearmCount", Fail, ""},
	{"rearms not told", while(func(a *answers) { a.licensing = nil }), Options{}, "ZeroRearmCount", Unknown, "WMI does not answer"},
}

// TestOpen: what only the guest can tell stays open on a disk, with what the disk does tell, and the machine stays fit.
func TestOpen(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testing.T, *memory)
		code   string
		says   string
	}{
		{"a KMS client's key", key("Volume:GVLK"), "WindowsNotActivated", "only a running Windows can tell. Its key is that of a KMS client."},
		{"and a server", both(key("Volume:GVLK"), reg(`[SOFTWARE\`+protection+`]`+"\n"+`"KeyManagementServiceName"="kms.corp.example"`)), "WindowsNotActivated", "kms.corp.example is set as its server"},
		{"no key", reg(``), "WindowsNotActivated", "only a running Windows can tell."},
		{"SkipRearm", reg(`[SOFTWARE\` + protection + `]` + "\n" + `"SkipRearm"=dword:1`), "ZeroRearmCount", "SkipRearm = 1"},
	} {
		m := fit(t)
		c.change(t, m)
		rep := Run(Collect(t.Context(), m), Options{})
		f := find(t, rep, c.code)
		if said := f.Because + "\n" + lines(f.Evidence, "\n"); f.Outcome != Unknown || !f.MayWait || !rep.Fit || !strings.Contains(said, c.says) {
			t.Errorf("%s: %s, may wait %v, fit %v, does not say %q:\n%s", c.name, f.Outcome, f.MayWait, rep.Fit, c.says, said)
		}
	}
}
