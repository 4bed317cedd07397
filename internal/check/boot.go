package check

import (
	"encoding/binary"
	"fmt"
	"strings"

	"berth/internal/windows"
)

// bootChecks are the checks on how the machine starts and how it was stopped.
var bootChecks = []Check{
	{
		Code: "UEFINotSupported", ReportAs: "UEFINotSupported", Level: Fail, DecidedIn: OnDisk,
		Title:      "Windows 10 starts by legacy BIOS",
		Source:     "facts §4.2, §14",
		Applies:    "releases that the profile wants on legacy BIOS",
		Evaluation: "The firmware must be legacy BIOS: what starts the machine by what lies on its disks, or what the running Windows says.",
		Remedy:     "The firmware is chosen when the virtual machine is made: set up Windows 10 in one with legacy BIOS (Hyper-V: generation 1; VMware: VM Options > Boot Options > Firmware: BIOS).",
		judge:      judgeUEFI,
	},
	{
		Code: "UEFIRequired", ReportAs: "IncompatiblePartitioning", Level: Fail, DecidedIn: OnDisk,
		Title:      "Windows 11 starts by UEFI",
		Source:     "facts §14",
		Applies:    "releases that the profile wants on UEFI",
		Evaluation: "The firmware must be UEFI: what starts the machine by what lies on its disks, or what the running Windows says.",
		Remedy: steps(
			"Convert the disk, shut down, and switch the virtual machine's firmware to UEFI:",
			"  mbr2gpt /validate /allowFullOS",
			"  mbr2gpt /convert /allowFullOS"),
		judge: judgeUEFIRequired,
	},
	{
		Code: "TPMNotFound", ReportAs: "OSNotSupported", Level: Warn, DecidedIn: OnDisk,
		Title:      "Windows 11 has found a TPM 2.0",
		Source:     "facts §14 (Windows 11); Microsoft, Windows 11 requirements",
		Applies:    "releases that the profile wants with a TPM",
		Evaluation: `Enum\ACPI\MSFT0101, the device of a TPM 2.0, must be there.`,
		Remedy:     "Give the virtual machine a TPM (VMware: Add Other Device > Trusted Platform Module; Hyper-V: Security > Enable Trusted Platform Module), start it once and look whether Windows finds it:\n  tpm.msc",
		judge:      judgeTPM,
	},
	{
		Code: "HibernationEnabled", ReportAs: "UnknownError", Level: Fail, DecidedIn: OnDisk, Fixable: true,
		Title:      "Windows was shut down completely: it is not hibernated, and Fast Startup is off",
		Source:     "facts §4.1 (the checker disables hibernation), §4.3, §5",
		Evaluation: "hiberfil.sys must be absent or begin with none of HIBR, RSTR and WAKE. HibernateEnabled and HiberbootEnabled both on, as they are where they are absent, is a warning before the export; at ingestion it does not matter, since the checker switches it off.",
		Fix:        "HibernateEnabled and HiberbootEnabled are set to 0, unless Windows is hibernated",
		Remedy: steps(
			"Start the machine, switch hibernation off, which takes Fast Startup with it, and shut down completely:",
			"  powercfg /h off",
			"  shutdown /s /t 0"),
		judge: judgeHibernation,
		fix:   fixHibernation,
	},
	{
		Code: "ControlSetMismatch", ReportAs: "UnknownError", Level: Warn, DecidedIn: OnDisk,
		Title:      "The control set of the next start is the one that was judged",
		Source:     "facts §5",
		Evaluation: `Current and Default of SYSTEM\Select must be the same.`,
		Remedy:     "Start the machine and shut it down again, so that Windows settles on one:\n  shutdown /s /t 0",
		judge:      judgeControlSet,
	},
}

const (
	// bootManager is the object of the Windows boot manager, and the elements of its menu and default; loaderType is the type of a
	// Windows loader's object, description its name (Microsoft, BCD reference: GUID_WINDOWS_BOOTMGR, BcdBootMgrObjectList_DisplayOrder,
	// BcdBootMgrObject_DefaultObject, BcdLibraryString_Description).
	bootManager  = `Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}`
	bootMenu     = bootManager + `\Elements\24000001`
	bootDefault  = bootManager + `\Elements\23000003`
	loaderType   = 0x10200003
	description  = `\Elements\12000004`
	maxBootItems = 200

	// tpmDevice is the ACPI identity of a TPM 2.0 (Microsoft's, TCG ACPI specification).
	tpmDevice = currentControlSet + `\Enum\ACPI\MSFT0101`

	powerKey     = currentControlSet + `\Control\Power`
	sessionPower = currentControlSet + `\Control\Session Manager\Power`
	hiberFile    = "hiberfil.sys"
)

// boot reads how the machine starts and how it was stopped.
func (r *reader) boot(f *Facts) {
	f.DefaultControlSet = value(r, windows.SystemHive, `Select`, "Default", always, 0, number)
	f.BootEntries = r.bootEntries()
	f.TPM = r.present(windows.SystemHive, tpmDevice)
	f.HibernateEnabled = value(r, windows.SystemHive, powerKey, "HibernateEnabled", keyAlways, true, boolean)
	f.FastStartup = value(r, windows.SystemHive, sessionPower, "HiberbootEnabled", keyAlways, true, boolean)
	f.Hibernated = r.hibernated()
}

// bootEntries are the Windows loaders that the boot manager offers.
func (r *reader) bootEntries() Known[[]string] {
	menu := value(r, windows.BCD, bootMenu, "Element", optional, nil, texts)
	if menu.OK() && len(menu.Value) == 0 {
		only := value(r, windows.BCD, bootDefault, "Element", optional, nil, texts)
		only.From = append(menu.From, only.From...)
		menu = only
	}
	if !menu.OK() {
		return menu
	}
	if len(menu.Value) > maxBootItems {
		return unread[[]string](menu.From[0], fmt.Sprintf("it lists %d objects, more than the %d that are read", len(menu.Value), maxBootItems))
	}
	var loaders []string
	from := menu.From
	for _, id := range menu.Value {
		typ := value(r, windows.BCD, `Objects\`+id+`\Description`, "Type", optional, 0, number)
		if !typ.OK() {
			return likewise[[]string](typ)
		}
		if typ.Value != loaderType {
			continue
		}
		name := value(r, windows.BCD, `Objects\`+id+description, "Element", optional, "", text)
		if name.Value == "" {
			name.Value = id
		}
		loaders = append(loaders, name.Value)
		if from = append(from, typ.From...); name.OK() {
			from = append(from, name.From...)
		}
	}
	return read(loaders, from[:min(len(from), 8)]...)
}

// hibernated reads the mark at the beginning of the hibernation file: Windows's memory is in it.
func (r *reader) hibernated() Known[bool] {
	at := inFile(hiberFile)
	if r.running {
		return read(false, asked("the machine itself", "Windows is running"))
	}
	b, err := r.head(hiberFile, 4)
	switch {
	case err != nil:
		return unread[bool](at, why(err))
	case b == nil:
		return read(false, at.plus(" is absent"))
	}
	mark := strings.ToUpper(string(b))
	switch mark {
	case "HIBR", "RSTR", "WAKE": // facts §4.3
		return read(true, at.plus(" begins with "+mark))
	case "\x00\x00\x00\x00", "":
		return read(false, at.plus(" begins with zeros"))
	}
	if len(b) < 4 {
		return read(false, at.plus(fmt.Sprintf(" has %d bytes", len(b))))
	}
	return read(false, at.plus(fmt.Sprintf(" begins with %08x, which is no hibernated memory", binary.BigEndian.Uint32(b))))
}

// startsBy is the firmware that the profile asks of a build.
func (p Profile) startsBy(build int) string {
	if found := p.releases(build); len(found) > 0 {
		return found[0].Firmware
	}
	if build >= firstWindows11 {
		return "uefi"
	}
	return "bios"
}

func judgeUEFI(f *Facts, p Params) Verdict {
	on := []fact{f.Firmware, f.Build}
	if f.Build.OK() && p.Profile.startsBy(f.Build.Value) == "uefi" {
		return notApplicable(windowsName(f.Build.Value)+" is to start by UEFI.", on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	if f.Firmware.Value == "uefi" {
		return unmet(windowsName(f.Build.Value)+" starts by UEFI; it must start by legacy BIOS.", on...)
	}
	return pass(windowsName(f.Build.Value)+" starts by legacy BIOS.", on...)
}

func judgeUEFIRequired(f *Facts, p Params) Verdict {
	on := []fact{f.Firmware, f.Build}
	if f.Build.OK() && p.Profile.startsBy(f.Build.Value) != "uefi" {
		return notApplicable(windowsName(f.Build.Value)+" is to start by legacy BIOS.", on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	if f.Firmware.Value != "uefi" {
		return unmet(windowsName(f.Build.Value)+" starts by legacy BIOS; it must start by UEFI.", on...)
	}
	return pass(windowsName(f.Build.Value)+" starts by UEFI.", on...)
}

func judgeTPM(f *Facts, p Params) Verdict {
	on := []fact{f.TPM, f.Build}
	if f.Build.OK() {
		found, wanted := p.Profile.releases(f.Build.Value), f.Build.Value >= firstWindows11
		if len(found) > 0 {
			wanted = found[0].TPM
		}
		if !wanted {
			return notApplicable(windowsName(f.Build.Value)+" needs no TPM.", on...)
		}
	}
	if v, no := missing(on...); no {
		return v
	}
	if !f.TPM.Value {
		return unmet(windowsName(f.Build.Value)+" has never found a TPM 2.0 in this machine.", on...)
	}
	return pass(windowsName(f.Build.Value)+" has found a TPM 2.0 in this machine.", on...)
}

func judgeHibernation(f *Facts, p Params) Verdict {
	on := []fact{f.Hibernated, f.HibernateEnabled, f.FastStartup}
	if f.Hibernated.OK() && f.Hibernated.Value {
		v := unmet("Windows is hibernated, or was shut down by Fast Startup: part of its state is in hiberfil.sys, and what is on the disk may be out of date.", on...)
		v.ByHand = true // its memory would be lost
		return v
	}
	if v, no := missing(on...); no {
		return v
	}
	if f.HibernateEnabled.Value && f.FastStartup.Value {
		if p.Ingestion {
			return pass("Windows was shut down completely. Fast Startup is on, which the checker switches off.", on...)
		}
		v := unmet("Fast Startup is on: the next shutdown will not be complete.", on...)
		v.Outcome = Warn
		return v
	}
	return pass("Windows was shut down completely, and Fast Startup is off.", on...)
}

func judgeControlSet(f *Facts, _ Params) Verdict {
	on := []fact{f.ControlSet, f.DefaultControlSet}
	if v, no := missing(on...); no {
		return v
	}
	if f.ControlSet.Value != f.DefaultControlSet.Value {
		return unmet(fmt.Sprintf("ControlSet%03d was judged, which Windows ran with last; the next start takes ControlSet%03d.", f.ControlSet.Value, f.DefaultControlSet.Value), on...)
	}
	return pass(fmt.Sprintf("The next start takes ControlSet%03d, which was judged.", f.ControlSet.Value), on...)
}

// fixHibernation does nothing about a Windows that is hibernated: its memory would be lost.
func fixHibernation(f *Facts, _ Params) []windows.Change {
	if !f.Hibernated.OK() || f.Hibernated.Value {
		return nil
	}
	return []windows.Change{setDWORD(windows.SystemHive, powerKey, "HibernateEnabled", 0), setDWORD(windows.SystemHive, sessionPower, "HiberbootEnabled", 0)}
}
