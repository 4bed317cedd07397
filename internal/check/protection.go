package check

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"berth/internal/windows"
)

// protectionChecks are the checks on what protects Windows.
var protectionChecks = []Check{
	{
		Code: "AntiVirusInstalled", ReportAs: "AntiVirusInstalled", Level: Fail, DecidedIn: OnDisk,
		Title:      "No anti-virus program is installed beside Microsoft Defender",
		Source:     "facts §4.2",
		Evaluation: `No product but Microsoft's may be registered with the Security Center: below Provider\Av on a disk, AntiVirusProduct of a running Windows. A registration whose program is gone is a warning.`,
		Remedy: steps(
			"Uninstall it: Settings > Apps > Apps & features > the program > Uninstall, then restart. Where its registration stays behind, use its maker's removal tool.",
			"See what is registered:",
			"  powershell Get-CimInstance -Namespace root/SecurityCenter2 -ClassName AntiVirusProduct",
			"It can be installed again in a custom image."),
		judge: judgeAntiVirus,
	},
	{
		Code: "MemoryIntegrityIncompatibility", ReportAs: "MemoryIntegrityIncompatibility", Level: Fail, DecidedIn: InGuest, Fixable: true,
		Title:      "Memory integrity and Credential Guard are off, or at least not locked in the firmware",
		Source:     "facts §4.2 (service side), §14",
		Evaluation: "Hypervisor-enforced code integrity and Credential Guard must be off in the settings, the policies and, where Windows runs, in fact. Without a lock in the firmware it is a warning. The lock itself lies in the firmware's variables, and Windows may switch either on without any setting (Windows 11 Enterprise 22H2 and later): where the settings say off, a disk leaves it open, but for a machine with legacy BIOS, whose firmware keeps no such variables.",
		Fix:        "Enabled of HypervisorEnforcedCodeIntegrity and of CredentialGuard and LsaCfgFlags are set to 0, unless it is locked or a policy; what runs ends with the next restart",
		Remedy: steps(
			"Switch it off: Windows Security > Device security > Core isolation details > Memory integrity > Off. Or:",
			`  reg add HKLM\SYSTEM\CurrentControlSet\Control\DeviceGuard\Scenarios\HypervisorEnforcedCodeIntegrity /v Enabled /t REG_DWORD /d 0 /f`,
			`  reg add HKLM\SYSTEM\CurrentControlSet\Control\Lsa /v LsaCfgFlags /t REG_DWORD /d 0 /f`,
			"Where a group policy sets it: gpedit.msc > Computer Configuration > Administrative Templates > System > Device Guard > Turn On Virtualization Based Security: Disabled.",
			"Restart.",
			"A lock in the firmware goes only at the console, with Microsoft's tool: start SecConfig.efi as \"Disable Device Guard and Credential Guard\" in Microsoft's documentation tells, and confirm when the machine starts."),
		judge: judgeMemoryIntegrity,
		fix:   fixMemoryIntegrity,
	},
}

const (
	deviceGuard       = currentControlSet + `\Control\DeviceGuard`
	codeIntegrity     = deviceGuard + `\Scenarios\HypervisorEnforcedCodeIntegrity`
	credentialGuard   = deviceGuard + `\Scenarios\CredentialGuard`
	securityAuthority = currentControlSet + `\Control\Lsa`
	deviceGuardPolicy = `Policies\Microsoft\Windows\DeviceGuard`

	// withLock and withoutLock are the values of LsaCfgFlags and of the policy HypervisorEnforcedCodeIntegrity (Microsoft, "Enable
	// virtualization-based protection of code integrity"; facts §4.2).
	withLock, withoutLock = 1, 2

	// defender is the identity under which Microsoft Defender registers with the Security Center (facts §4.2).
	defender = "{D68DDC3A-831F-4FAE-9E44-DA132C1ACF46}"
	// maxAntiVirus bounds the registered anti-virus programs.
	maxAntiVirus = 200
)

// protection reads anti-virus programs and virtualization-based security.
func (r *reader) protection(f *Facts) {
	f.AntiVirus = r.antiVirus()
	f.CodeIntegrity = value(r, windows.SystemHive, codeIntegrity, "Enabled", optional, 0, number)
	f.CodeIntegrityPolicy = value(r, windows.Software, deviceGuardPolicy, "HypervisorEnforcedCodeIntegrity", optional, 0, number)
	f.CredentialGuard = value(r, windows.SystemHive, securityAuthority, "LsaCfgFlags", keyAlways, 0, number)
	f.CredentialGuardPolicy = value(r, windows.Software, deviceGuardPolicy, "LsaCfgFlags", optional, 0, number)
	f.CredentialGuardScenario = value(r, windows.SystemHive, credentialGuard, "Enabled", optional, 0, number)
	f.FirmwareLock = r.firmwareLock()
	f.DeviceGuard = unread[windows.DeviceGuard](asked("Win32_DeviceGuard", "the running Windows"), errOnlyRunning.Error())
	if d, err := ask(r, "device guard", windows.Guest.DeviceGuard); err == nil {
		f.DeviceGuard = read(d, asked("Win32_DeviceGuard", fmt.Sprintf("the running Windows: memory integrity %s, Credential Guard %s, lock in the firmware %s",
			onOff(d.MemoryIntegrity), onOff(d.CredentialGuard), onOff(d.UEFILock))))
	} else if r.running {
		f.DeviceGuard = unread[windows.DeviceGuard](asked("Win32_DeviceGuard", "the running Windows"), why(err))
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// firmwareLock tells whether the registry asks for a lock in the firmware's variables. A powered-off disk does not hold those, and
// they do not go with it.
func (r *reader) firmwareLock() Known[[]string] {
	var t traces
	t.add("Locked of virtualization-based security", value(r, windows.SystemHive, deviceGuard, "Locked", optional, false, boolean))
	t.add("Locked of memory integrity", value(r, windows.SystemHive, codeIntegrity, "Locked", optional, false, boolean))
	lock := func(v windows.Value) (bool, string, error) {
		n, shown, err := number(v)
		return n == withLock, shown, err
	}
	t.add("the policy for memory integrity", value(r, windows.Software, deviceGuardPolicy, "HypervisorEnforcedCodeIntegrity", optional, false, lock))
	t.add("the setting of Credential Guard", value(r, windows.SystemHive, securityAuthority, "LsaCfgFlags", keyAlways, false, lock))
	t.add("the policy for Credential Guard", value(r, windows.Software, deviceGuardPolicy, "LsaCfgFlags", optional, false, lock))
	return t.known()
}

// antiVirus asks the running Windows, or reads what was registered with its Security Center.
func (r *reader) antiVirus() Known[[]AntiVirus] {
	if r.running {
		at := asked("AntiVirusProduct", "products registered with the Windows Security Center")
		list, err := ask(r, "anti-virus", windows.Guest.AntiVirus)
		if err != nil {
			return unread[[]AntiVirus](at, why(err))
		}
		if len(list) > maxAntiVirus {
			return unread[[]AntiVirus](at, fmt.Sprintf("%d products, more than the %d that are read", len(list), maxAntiVirus))
		}
		var products []AntiVirus
		for _, p := range list {
			products = append(products, r.product(p.Name, p.Executable, "", at.says(fmt.Sprintf("registered: %s (%s)", printable(p.Name), printable(p.Executable)))))
		}
		return read(byName(products), at.plus(fmt.Sprintf(": %d", len(list))))
	}
	const providers = `Microsoft\Security Center\Provider\Av`
	k, ids := r.list(windows.Software, providers, maxAntiVirus)
	if !ids.OK() {
		return likewise[[]AntiVirus](ids)
	}
	var products []AntiVirus
	for _, id := range ids.Value {
		at := r.at(windows.Software, providers).below(id)
		sub, err := k.Open(id)
		if err != nil {
			return unread[[]AntiVirus](at, why(err))
		}
		name := valueOf(r, sub, at, "DISPLAYNAME", keyAlways, "", text)
		program := valueOf(r, sub, at, "PRODUCTEXE", keyAlways, "", text)
		for _, k := range []Known[string]{name, program} {
			if !k.OK() {
				return likewise[[]AntiVirus](k)
			}
		}
		products = append(products, r.product(name.Value, program.Value, id, slices.Concat(name.From, program.From)...))
	}
	return read(byName(products), ids.From...)
}

// byName sorts products, for WMI and the registry list them in orders of their own.
func byName(list []AntiVirus) []AntiVirus {
	slices.SortStableFunc(list, func(a, b AntiVirus) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// product tells whether a registered program is still there, as far as its path can be followed.
func (r *reader) product(name, program, id string, from ...Evidence) AntiVirus {
	p := AntiVirus{Name: name, Executable: program, From: from}
	p.Microsoft = strings.EqualFold(id, defender)
	for _, own := range []string{"windows defender", "microsoft defender"} {
		p.Microsoft = p.Microsoft || strings.HasPrefix(strings.ToLower(name), own)
	}
	if path, ok := onSystemVolume(program); ok {
		_, err := fs.Stat(r.sys.Files(), path)
		p.Gone = errors.Is(err, fs.ErrNotExist)
	}
	return p
}

// folders are the variables with which Windows begins the paths of programs.
var folders = map[string]string{
	"%programfiles%": "Program Files", "%programfiles(x86)%": "Program Files (x86)", "%programw6432%": "Program Files", "%programdata%": "ProgramData",
	"%allusersprofile%": "ProgramData", "%systemroot%": "Windows", "%windir%": "Windows", "%systemdrive%": "", "c:": "",
}

// onSystemVolume is the path of a program as windows.System.Files wants it; not ok: it is elsewhere, or no path.
func onSystemVolume(program string) (string, bool) {
	program = strings.Trim(strings.TrimSpace(program), `"`)
	first, rest, ok := strings.Cut(program, `\`)
	folder, known := folders[strings.ToLower(first)]
	path := strings.Trim(folder+"/"+strings.ReplaceAll(rest, `\`, "/"), "/")
	return path, ok && known && fs.ValidPath(path)
}

func judgeAntiVirus(f *Facts, _ Params) Verdict {
	if v, no := missing(f.AntiVirus); no {
		return v
	}
	var there, gone []string
	var seen []Evidence
	for _, p := range f.AntiVirus.Value {
		if p.Microsoft {
			continue
		}
		name := p.Name
		if name == "" {
			name = "a program without a name"
		}
		if seen = few(seen, p.From...); p.Gone {
			gone = append(gone, name)
		} else {
			there = append(there, name)
		}
	}
	switch {
	case len(there) > 0:
		return unmet("Anti-virus programs are installed: "+names(there)+".", f.AntiVirus).saw(seen)
	case len(gone) > 0:
		v := unmet("Anti-virus programs that are no longer there have left their registration behind: "+names(gone)+".", f.AntiVirus).saw(seen)
		v.Outcome = Warn
		return v
	}
	return pass("No anti-virus program is registered beside Microsoft Defender.", f.AntiVirus)
}

func judgeMemoryIntegrity(f *Facts, _ Params) Verdict {
	on := []fact{f.CodeIntegrity, f.CodeIntegrityPolicy, f.CredentialGuard, f.CredentialGuardPolicy, f.CredentialGuardScenario, f.FirmwareLock}
	off := f.Running.OK() && !f.Running.Value
	if !off {
		on = append(on, f.DeviceGuard)
	}
	policy := func(k Known[uint32]) bool { return k.Value == withLock || k.Value == withoutLock }
	memory := f.CodeIntegrity.Value != 0 || policy(f.CodeIntegrityPolicy)
	guard := policy(f.CredentialGuard) || policy(f.CredentialGuardPolicy) || f.CredentialGuardScenario.Value != 0
	runs := f.DeviceGuard.Value
	var enabled []string
	if memory || runs.MemoryIntegrity {
		enabled = append(enabled, "memory integrity")
	}
	if guard || runs.CredentialGuard {
		enabled = append(enabled, "Credential Guard")
	}
	what, is, run := strings.Join(enabled, " and "), " is", " runs"
	if len(enabled) > 1 {
		is, run = " are", " run"
	}
	if len(enabled) > 0 && (len(f.FirmwareLock.Value) > 0 || runs.UEFILock) {
		v := unmet(sentence(what)+is+" on and locked in the firmware, which an import cannot undo.", on...)
		v.ByHand = true
		return v
	}
	v, no := missing(on...)
	switch {
	case no && len(enabled) > 0:
		v := unmet(sentence(what)+is+" on, and whether it is locked in the firmware cannot be told.", on...)
		v.ByHand = true
		return v
	case no:
		v.NoWait = true // the disk should have told as much
		return v
	case len(enabled) > 0:
		because := sentence(what) + is + " on. No setting asks for a lock in the firmware, without which it can be switched off."
		if !memory && !guard {
			because = sentence(what) + run + ", although no setting asks for it: Windows has switched it on by itself, or the next restart ends it."
		}
		v := unmet(because, on...)
		v.Outcome = Warn
		v.ByHand = policy(f.CodeIntegrityPolicy) || policy(f.CredentialGuardPolicy) // a policy comes back
		return v
	case !off:
		return pass("Neither memory integrity nor Credential Guard runs.", on...)
	}
	on = append(on, f.Firmware)
	if v, no := missing(f.Firmware); no {
		v.Evidence, v.NoWait = evidence(on...), true
		return v
	}
	if f.Firmware.Value == "bios" {
		return pass("Memory integrity and Credential Guard are off, and legacy BIOS keeps no lock that could hold them on.", on...)
	}
	return unknown("The settings say that memory integrity and Credential Guard are off. Whether a lock in the firmware holds them on, or Windows has switched them on by itself, only the running Windows can tell.", on...)
}

// fixMemoryIntegrity does nothing about a lock, which it cannot reach, or a group policy, which would come back. What Windows has switched on by
// itself is off where the setting says so.
func fixMemoryIntegrity(f *Facts, _ Params) []windows.Change {
	var list []windows.Change
	if f.CodeIntegrity.Value != 0 || f.DeviceGuard.Value.MemoryIntegrity {
		list = append(list, setDWORD(windows.SystemHive, codeIntegrity, "Enabled", 0))
	}
	if f.CredentialGuardScenario.Value != 0 {
		list = append(list, setDWORD(windows.SystemHive, credentialGuard, "Enabled", 0))
	}
	if f.CredentialGuard.Value != 0 || f.DeviceGuard.Value.CredentialGuard {
		list = append(list, setDWORD(windows.SystemHive, securityAuthority, "LsaCfgFlags", 0))
	}
	return list
}
