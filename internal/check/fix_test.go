package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// apply makes a change, as windows.Change tells it. What only a running Windows takes is an error.
func (m *memory) apply(c windows.Change) error {
	key := func(h windows.Hive, path string) (*registry.Node, error) {
		k, err := m.Open(h, path)
		if err != nil {
			return nil, err
		}
		return k.(memoryKey).n, nil
	}
	switch c := c.(type) {
	case windows.SetValue:
		n, err := key(c.Hive, c.Key)
		if err != nil {
			return err
		}
		n.Set(c.Value)
		if d := m.answers.device; d != nil && c.Value.Data[0] == 0 { // it is restarted before it is looked at again
			d.CredentialGuard = d.CredentialGuard && c.Value.Name != "LsaCfgFlags"
			d.MemoryIntegrity = d.MemoryIntegrity && c.Key != codeIntegrity
		}
	case windows.DeleteValue:
		n, err := key(c.Hive, c.Key)
		if err != nil {
			return err
		}
		for i, v := range n.Values {
			if registry.EqualNames(v.Name, c.Name) {
				n.Values = append(n.Values[:i:i], n.Values[i+1:]...)
				break
			}
		}
	case windows.EnableAccount:
		n, err := key(windows.SAM, fmt.Sprintf(`%s\Users\%08X`, samAccounts, c.RID))
		if err != nil {
			return err
		}
		v, ok := n.Value("F")
		if !ok {
			return fmt.Errorf("account %d has no F", c.RID)
		}
		v.Data[userFlags] &^= windows.AccountDisabled
	case windows.CreateAccount:
		m.setAccount(c.Name, byolRID, 0x10, true)
	case windows.RunUninstaller:
		delete(m.files, strings.ReplaceAll(strings.TrimPrefix(c.Path, `C:\`), `\`, "/"))
		m.remove(`SYSTEM\ControlSet001\Services\` + pcoipService)
		m.remove(wow + `\PCoIP Standard Agent`)
	case windows.RemovePackage:
		m.answers.packages = slices.DeleteFunc(m.answers.packages, func(p windows.Package) bool { return p.FullName == c.FullName })
		if store := m.root.Key(`SOFTWARE\` + packageStore); store != nil {
			for _, user := range store.Keys {
				user.Keys = slices.DeleteFunc(user.Keys, func(k *registry.Node) bool { return k.Name == c.FullName })
			}
		}
	default:
		return fmt.Errorf("%T is no change of a registry", c)
	}
	return nil
}

// TestFixes makes every fix of every case: what it is for passes then, nothing else gets worse, and a second look finds nothing to fix.
func TestFixes(t *testing.T) {
	fixed := map[string]bool{}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := fit(t)
			c.change(t, m)
			before := Run(Collect(context.Background(), m), c.opt)
			fixes := before.Fixes()
			for _, x := range fixes {
				row, _ := Describe(x.Code)
				// An account that is disabled is enabled on the disk; one that is missing, too, is made in the guest.
				_, made := x.Changes[0].(windows.CreateAccount)
				if row.Fixable != (x.Place == OnDisk) && !(made && x.Code == "WorkspacesBYOLAccountDisabled") {
					t.Errorf("%s is said to be fixable on the disk: %v; its fix is for the %s", x.Code, row.Fixable, x.Place)
				}
				if len(x.Steps) != len(x.Changes) || len(x.Changes) == 0 {
					t.Errorf("%s: %d changes, told in %d steps", x.Code, len(x.Changes), len(x.Steps))
				}
				for _, change := range x.Changes {
					if offline(change) != (x.Place == OnDisk) && x.Place == OnDisk {
						t.Errorf("%s: a powered-off disk does not take %s", x.Code, change)
					}
					if err := m.apply(change); err != nil {
						t.Errorf("%s: %s: %v", x.Code, change, err)
					}
				}
			}
			after := Run(Collect(context.Background(), m), c.opt)
			for _, x := range fixes {
				fixed[x.Code] = true
				if f := find(t, after, x.Code); f.Outcome != Pass {
					t.Errorf("%s is %s after its fix: %s", x.Code, f.Outcome, f.Because)
				}
			}
			was := outcomes(before)
			for code, is := range outcomes(after) {
				// An account that was missing exists now, so that other checks look at it.
				if worse := is != Pass && is != was[code]; worse {
					t.Errorf("%s was %s and is %s", code, was[code], is)
				}
			}
			if again := after.Fixes(); len(again) > 0 {
				t.Errorf("there is more to fix: %v", again)
			}
		})
	}
	for _, row := range table {
		if row.fix != nil && !fixed[row.Code] {
			t.Errorf("no case needs the fix of %s", row.Code)
		}
	}
}

// TestFixBound: nothing is made of a hive with more adapters than anybody has set up.
func TestFixBound(t *testing.T) {
	for n, want := range map[int]bool{maxChanges / 6: true, maxChanges/6 + 1: false} {
		f := Collect(context.Background(), fit(t))
		f.Adapters.Value = slices.Repeat([]Adapter{{ID: nic, Installed: true, Addresses: []string{"10.0.0.5"}}}, n)
		if x := find(t, Run(f, Options{}), "DHCPDisabled"); x.Outcome != Fail || (x.Fix != nil) != want || x.Fixable != want {
			t.Errorf("%d adapters: %s, fix %v", n, x.Outcome, x.Fix != nil)
		}
	}
}

// TestFixKinds: what is fixable, and where.
func TestFixKinds(t *testing.T) {
	profile := `[SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile]` + "\n" + `"EnableFirewall"=dword:1` + "\n"
	for _, c := range []struct {
		name   string
		change func(*testing.T, *memory)
		code   string
		place  Place  // "": there is no fix
		steps  string // joined
	}{
		{"nothing to mend", reg(``), "FirewallEnabled", "", ""},
		{"firewall", reg(profile), "FirewallEnabled", OnDisk, `set SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile\EnableFirewall to 0 (REG_DWORD)`},
		{"firewall by policy", reg(profile + `[SOFTWARE\Policies\Microsoft\WindowsFirewall\PublicProfile]` + "\n" + `"EnableFirewall"=dword:1`), "FirewallEnabled", "", ""},
		{"disabled account", change(func(m *memory) { m.setAccount(byolAccount, byolRID, 0x211, true) }), "WorkspacesBYOLAccountDisabled", OnDisk, "enable the account WorkSpaces_BYOL"},
		{"no account", change(func(m *memory) { m.setAccount("", 0, 0, false) }), "WorkspacesBYOLAccountDisabled", InGuest, "create the account WorkSpaces_BYOL and make it an administrator"},
		{"no account", change(func(m *memory) { m.setAccount("", 0, 0, false) }), "WorkspacesBYOLAccountNotFound", InGuest, "create the account WorkSpaces_BYOL and make it an administrator"},
		{"Credential Guard without a setting", while(func(a *answers) { a.device = &windows.DeviceGuard{CredentialGuard: true} }), "MemoryIntegrityIncompatibility", OnDisk,
			`set SYSTEM\CurrentControlSet\Control\Lsa\LsaCfgFlags to 0 (REG_DWORD)`},
		{"services while servicing waits", both(reg(`[SYSTEM\ControlSet001\Services\TrustedInstaller]`+"\n"+`"Start"=dword:2`), file("Windows/WinSxS/pending.xml", "<xml/>")), "WindowsUpdatesEnabled", "", ""},
		{"services while it cannot be told", both(reg(`[SYSTEM\ControlSet001\Services\TrustedInstaller]`+"\n"+`"Start"=dword:2`), broken("c:/windows/winsxs/pending.xml")), "WindowsUpdatesEnabled", "", ""},
		{"not to be told", gone(`SYSTEM\ControlSet001\Services\mountmgr`), "AutoMountDisabled", "", ""},
		{"auto-logon with a password", reg(`[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]` + "\n" + `"AutoAdminLogon"="1"` + "\n" + `"DefaultPassword"="Pa55word!"`), "AutoLogonEnabled", OnDisk,
			`set SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon\AutoAdminLogon to "0" (REG_SZ); delete SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon\DefaultPassword`},
	} {
		m := fit(t)
		c.change(t, m)
		f := find(t, Run(Collect(context.Background(), m), Options{}), c.code)
		if f.Fixable != (c.place == OnDisk) || (f.Fix == nil) != (c.place == "") {
			t.Errorf("%s: %s (%s) is fixable: %v, fix %+v; want %q", c.name, c.code, f.Outcome, f.Fixable, f.Fix, c.place)
			continue
		}
		if f.Fix != nil && (f.Fix.Place != c.place || strings.Join(f.Fix.Steps, "; ") != c.steps) {
			t.Errorf("%s: %+v, want %s: %s", c.name, f.Fix, c.place, c.steps)
		}
	}
}
