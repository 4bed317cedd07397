package check

import (
	"fmt"
	"strings"
)

// The checks on the account WorkSpaces_BYOL and on Windows's settings.

func judgeAccount(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		return unmet("There is no local account "+byolAccount+".", f.BYOLAccount)
	}
	return pass(fmt.Sprintf("The account %s exists (RID %d).", byolAccount, f.BYOLAccount.Value), f.BYOLAccount, f.BYOLAccountAdministrator)
}

func judgeAdministrator(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		return notApplicable("There is no account "+byolAccount+"; see WorkspacesBYOLAccountNotFound.", f.BYOLAccount)
	}
	if v, no := missing(f.BYOLAccountAdministrator); no {
		return v
	}
	if !f.BYOLAccountAdministrator.Value {
		return unmet("The account "+byolAccount+" exists but is not a member of the local group Administrators.", f.BYOLAccount, f.BYOLAccountAdministrator)
	}
	return pass("The account "+byolAccount+" is a member of the local group Administrators.", f.BYOLAccountAdministrator)
}

// judgeAccountEnabled also fires when there is no account, as Amazon's does (facts §4.2).
func judgeAccountEnabled(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		v := unmet("There is no account "+byolAccount+" that could be enabled; see WorkspacesBYOLAccountNotFound.", f.BYOLAccount)
		v.ByHand = true
		return v
	}
	if v, no := missing(f.BYOLAccountFlags); no {
		return v
	}
	if f.BYOLAccountFlags.Value&accountDisabled != 0 {
		return unmet("The account "+byolAccount+" is disabled.", f.BYOLAccount, f.BYOLAccountFlags)
	}
	return pass("The account "+byolAccount+" is enabled.", f.BYOLAccountFlags)
}

func judgeAutoLogon(f *Facts, _ Params) Verdict {
	if v, no := missing(f.AutoLogon); no {
		return v
	}
	left := ""
	if f.AutoLogonPassword.Value {
		left = " A password lies in DefaultPassword, readable to every user: delete it."
	}
	if f.AutoLogon.Value {
		return unmet("Automatic sign-in is on."+left, f.AutoLogon, f.AutoLogonPassword)
	}
	return pass("Automatic sign-in is off."+left, f.AutoLogon, f.AutoLogonPassword)
}

func judgeAutoMount(f *Facts, _ Params) Verdict {
	if v, no := missing(f.AutoMountOff); no {
		return v
	}
	if f.AutoMountOff.Value {
		return unmet("The mount manager gives new volumes no drive letter.", f.AutoMountOff)
	}
	return pass("The mount manager gives new volumes a drive letter.", f.AutoMountOff)
}

func judgeClock(f *Facts, _ Params) Verdict {
	if v, no := missing(f.RealTimeIsUniversal); no {
		return v
	}
	if !f.RealTimeIsUniversal.Value {
		return unmet("Windows takes the hardware clock for local time; the hosts' clocks run on UTC.", f.RealTimeIsUniversal)
	}
	return pass("Windows takes the hardware clock for UTC.", f.RealTimeIsUniversal)
}

func judgeFirewall(f *Facts, _ Params) Verdict {
	on := []fact{f.FirewallPublic, f.FirewallPublicPolicy}
	if f.FirewallPublicPolicy.OK() && f.FirewallPublicPolicy.Value {
		v := unmet("A group policy switches the firewall on for public networks.", on...)
		v.ByHand = true // a policy comes back
		return v
	}
	if f.FirewallPublic.OK() && f.FirewallPublic.Value {
		return unmet("The firewall is on for public networks.", on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	return pass("The firewall is off for public networks.", on...)
}

// serviceDisabled is a service's Start that keeps it from starting (SERVICE_DISABLED, winnt.h).
const serviceDisabled = 4

func judgeDHCP(f *Facts, _ Params) Verdict {
	on := []fact{f.Adapters, f.DHCPClientStart}
	var static, removed, lines []string
	for _, a := range f.Adapters.Value {
		if a.DHCP || len(a.Addresses) == 0 {
			continue
		}
		name := a.ID
		if a.Name != "" {
			name = a.Name
		}
		name += " has " + strings.Join(a.Addresses, ", ")
		if a.Installed {
			static = append(static, name)
		} else {
			removed = append(removed, name)
		}
		lines = append(lines, a.From)
	}
	var v Verdict
	switch {
	case f.DHCPClientStart.OK() && f.DHCPClientStart.Value == serviceDisabled && len(static) == 0:
		v = unmet("The DHCP Client service is disabled.", on...)
	case len(static) > 0:
		v = unmet("Network adapters have fixed addresses: "+names(static)+".", on...)
	case len(removed) > 0:
		v = unmet("Adapters that are no longer there have left fixed addresses behind: "+names(removed)+".", on...)
		if _, no := missing(on...); !no {
			v.Outcome = Warn
		}
	default:
		if v, no := missing(on...); no {
			return v
		}
		return pass("No network adapter has a fixed address.", on...)
	}
	return v.saw(lines)
}
