package check

import "berth/internal/windows"

// settingsChecks are the checks on Windows's settings.
var settingsChecks = []Check{
	{
		Code: "AutoLogonEnabled", ReportAs: "AutoLogonEnabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:      "Nobody is signed in automatically at start",
		Source:     "facts §4.2",
		Evaluation: "AutoAdminLogon of Winlogon must be absent, empty or 0. A password that was left behind is a check of its own.",
		Fix:        `AutoAdminLogon is set to "0", and a DefaultPassword is deleted`,
		Remedy: steps(
			`Windows+R > netplwiz > tick "Users must enter a user name and password to use this computer" > OK. Or:`,
			`  reg add "HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon" /v AutoAdminLogon /t REG_SZ /d 0 /f`,
			"Where a password was left behind:",
			`  reg delete "HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon" /v DefaultPassword /f`),
		judge: judgeAutoLogon,
		fix:   fixAutoLogon,
	},
	{
		Code: "AutoLogonPasswordLeft", ReportAs: "AutoLogonEnabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:      "No password for automatic sign-in lies in the registry",
		Source:     "facts §4.2 (AutoLogonEnabled, what else to report)",
		Applies:    "before the export; ingestion does not refuse an image for it",
		Evaluation: "DefaultPassword of Winlogon must be absent or empty. A secret of that name that the security authority keeps is told, and is no failure.",
		Fix:        "DefaultPassword of Winlogon is deleted",
		Remedy: steps(
			"Delete it, and change it wherever else it is used: every user of the machine could read it.",
			`  reg delete "HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon" /v DefaultPassword /f`),
		judge: judgeAutoLogonPassword,
		fix:   fixAutoLogonPassword,
	},
	{
		Code: "AutoMountDisabled", ReportAs: "AutoMountDisabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:      "Windows mounts new volumes by itself",
		Source:     "facts §4.2",
		Evaluation: "NoAutoMount of the service mountmgr must be absent or 0.",
		Fix:        "NoAutoMount is set to 0",
		Remedy: steps(
			"Switch automatic mounting on:",
			"  mountvol /E"),
		judge: judgeAutoMount,
		fix:   fixAutoMount,
	},
	{
		Code: "RealTimeUniversalDisabled", ReportAs: "RealTimeUniversalDisabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:      "Windows takes the hardware clock for UTC",
		Source:     "facts §4.2",
		Evaluation: `RealTimeIsUniversal of Control\TimeZoneInformation must be there and not 0.`,
		Fix:        "RealTimeIsUniversal is set to 1",
		Remedy: steps(
			"Tell Windows that the hardware clock runs on UTC:",
			`  reg add HKLM\SYSTEM\CurrentControlSet\Control\TimeZoneInformation /v RealTimeIsUniversal /t REG_DWORD /d 1 /f`),
		judge: judgeClock,
		fix:   fixClock,
	},
	{
		Code: "FirewallEnabled", ReportAs: "FirewallEnabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:      "Windows Firewall is off for public networks",
		Source:     "facts §4.2",
		Evaluation: "EnableFirewall of the public profile must be absent or 0, in the control set in use and in the group policies.",
		Fix:        "EnableFirewall of the public profile is set to 0; nothing is done about a group policy, which would come back",
		Remedy: steps(
			"Switch it off for the public profile:",
			"  netsh advfirewall set publicprofile state off",
			"Where a group policy switches it on: gpedit.msc > Computer Configuration > Windows Settings > Security Settings > Windows Defender Firewall with Advanced Security > Properties > Public Profile > Firewall state: Not configured. Switch it on again in the WorkSpaces, by group policy."),
		judge: judgeFirewall,
		fix:   fixFirewall,
	},
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

func judgeAutoLogonPassword(f *Facts, p Params) Verdict {
	if p.Ingestion {
		return notRefused(f.AutoLogonPassword)
	}
	if v, no := missing(f.AutoLogonPassword); no {
		return v
	}
	on := []fact{f.AutoLogonPassword, f.AutoLogonSecret}
	if f.AutoLogonPassword.Value {
		return unmet("A password lies in DefaultPassword, readable to every user.", on...)
	}
	because := "No password lies in DefaultPassword."
	if f.AutoLogonSecret.Value {
		because += " The security authority keeps a secret of that name, as many machines have it since they were set up; only it can read it."
	}
	return pass(because, on...)
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

func fixAutoLogonPassword(*Facts, Params) []windows.Change {
	return deleteValues(windows.Software, winlogon, "DefaultPassword")
}
