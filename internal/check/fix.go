package check

import "berth/internal/windows"

// Fix is what the program can do about a finding. It is data: nothing is changed by making it.
type Fix struct {
	// Code is the finding's.
	Code string `json:"code"`
	// Place is where it can be done: on the powered-off disk ([OnDisk], offline.System.Patch), or only in the running Windows
	// ([InGuest]), at its next start.
	Place Place `json:"place"`
	// Steps tell each change in words, safe to show.
	Steps []string `json:"steps"`
	// Changes are to be made in this order.
	Changes []windows.Change `json:"-"`
}

// Fixes lists what can be done about the report's findings, in the order of the table. A report that was read back from JSON has
// the steps but no changes.
func (r Report) Fixes() []Fix {
	var list []Fix
	for _, f := range r.Findings {
		if f.Fix != nil {
			list = append(list, *f.Fix)
		}
	}
	return list
}

// maxChanges bounds a fix. Real ones have a few changes for each of a few network adapters or packages; a hive that asks for more was
// made to.
const maxChanges = 500

// newFix makes the fix of changes; nil when there are none, or too many.
func newFix(code string, changes []windows.Change) *Fix {
	if len(changes) == 0 || len(changes) > maxChanges {
		return nil
	}
	x := &Fix{Code: code, Place: OnDisk, Changes: changes}
	for _, c := range changes {
		if !offline(c) {
			x.Place = InGuest
		}
		x.Steps = append(x.Steps, Printable(c.String()))
	}
	return x
}

// offline reports whether a powered-off disk takes a change; see [windows.Change].
func offline(c windows.Change) bool {
	switch c.(type) {
	case windows.SetValue, windows.DeleteValue, windows.EnableAccount:
		return true
	}
	return false
}

// setDWORD sets a REG_DWORD.
func setDWORD(h windows.Hive, key, name string, n uint32) windows.Change {
	return windows.SetValue{Hive: h, Key: key, Value: windows.Value{Name: name, Type: windows.RegDWORD, Data: []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}}}
}

// setText sets a REG_SZ. s is ASCII.
func setText(h windows.Hive, key, name, s string) windows.Change {
	data := make([]byte, 0, 2*len(s)+2)
	for _, c := range []byte(s + "\x00") {
		data = append(data, c, 0)
	}
	return windows.SetValue{Hive: h, Key: key, Value: windows.Value{Name: name, Type: windows.RegSZ, Data: data}}
}

// deleteValues deletes values of a key; those that are not there are no error.
func deleteValues(h windows.Hive, key string, names ...string) []windows.Change {
	var list []windows.Change
	for _, name := range names {
		list = append(list, windows.DeleteValue{Hive: h, Key: key, Name: name})
	}
	return list
}

// The fixes of the checks, by the facts that made them fail.

func fixAccount(*Facts, Params) []windows.Change {
	return []windows.Change{windows.CreateAccount{Name: byolAccount}}
}

// fixAccountDisabled makes the account where there is none, which then is enabled.
func fixAccountDisabled(f *Facts, p Params) []windows.Change {
	if f.BYOLAccount.Value == 0 {
		return fixAccount(f, p)
	}
	return []windows.Change{windows.EnableAccount{Name: byolAccount, RID: f.BYOLAccount.Value}}
}

func fixAutoLogon(f *Facts, _ Params) []windows.Change {
	list := []windows.Change{setText(windows.Software, winlogon, "AutoAdminLogon", "0")}
	if f.AutoLogonPassword.Value {
		list = append(list, deleteValues(windows.Software, winlogon, "DefaultPassword")...)
	}
	return list
}

func fixAutoMount(*Facts, Params) []windows.Change {
	return []windows.Change{setDWORD(windows.SystemHive, mountManager, "NoAutoMount", 0)}
}

func fixClock(*Facts, Params) []windows.Change {
	return []windows.Change{setDWORD(windows.SystemHive, timeZone, "RealTimeIsUniversal", 1)}
}

// fixFirewall does nothing about a group policy, which would come back.
func fixFirewall(f *Facts, _ Params) []windows.Change {
	if f.FirewallPublicPolicy.Value {
		return nil
	}
	return []windows.Change{setDWORD(windows.SystemHive, publicProfile, "EnableFirewall", 0)}
}

// fixDHCP makes every adapter with fixed addresses get them by DHCP, name servers too, as "netsh interface ipv4 set" does.
func fixDHCP(f *Facts, _ Params) []windows.Change {
	var list []windows.Change
	if f.DHCPClientStart.OK() && f.DHCPClientStart.Value == serviceDisabled {
		list = append(list, setDWORD(windows.SystemHive, dhcpService, "Start", serviceAutomatic))
	}
	for _, a := range f.Adapters.Value {
		if a.DHCP || len(a.Addresses) == 0 {
			continue
		}
		if len(list) > maxChanges { // see newFix
			break
		}
		key := interfaces + `\` + a.ID
		list = append(list, setDWORD(windows.SystemHive, key, "EnableDHCP", 1))
		list = append(list, deleteValues(windows.SystemHive, key, "IPAddress", "SubnetMask", "DefaultGateway", "DefaultGatewayMetric", "NameServer")...)
	}
	return list
}
