package check

import (
	"testing"
)

const (
	power  = `[SYSTEM\ControlSet001\Control\Power]` + "\n"
	sPower = `[SYSTEM\ControlSet001\Control\Session Manager\Power]` + "\n"
	menu   = `[BCD\Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Elements\24000001]` + "\n"
	tpmKey = `[SYSTEM\ControlSet001\Enum\ACPI\MSFT0101\1]`
	// twoInMenu lists {1} and {2}.
	twoInMenu = menu + `"Element"=hex(7):7b,00,31,00,7d,00,00,00,7b,00,32,00,7d,00,00,00,00,00` + "\n"
)

func firmware(f string) func(*testing.T, *memory) {
	return change(func(m *memory) { m.machine.Firmware = f })
}

var bootCases = []testCase{
	{"Windows 10 by UEFI", firmware("uefi"), Options{}, "UEFINotSupported", Fail, "it must start by legacy BIOS"},
	{"Windows 10 by what is not known", firmware(""), Options{}, "UEFINotSupported", Unknown, "BIOS or UEFI"},
	{"Windows 11 by UEFI", gptMachine("22631", "Enterprise"), Options{Profile: named("2026"), Process: RegularWSP}, "UEFINotSupported", NotApplicable, "is to start by UEFI"},
	{"build unread", broken(`SOFTWARE\Microsoft\Windows NT\CurrentVersion\CurrentBuildNumber`), Options{}, "UEFIRequired", Unknown, "bad cell"},
	{"Windows 11 by BIOS", build10("22631", "Enterprise"), Options{Profile: named("2026"), Process: RegularWSP}, "UEFIRequired", Fail, "it must start by UEFI"},
	{"Windows 11 by UEFI, required", gptMachine("22631", "Enterprise"), Options{Profile: named("2026")}, "UEFIRequired", Pass, ""},
	{"Windows 11 of no profile", build10("22631", "Enterprise"), Options{}, "UEFIRequired", Fail, ""},

	{"Windows 11 without a TPM", gptMachine("22631", "Enterprise"), Options{Profile: named("2026")}, "TPMNotFound", Warn, "MSFT0101 is absent"},
	{"Windows 11 with a TPM", both(gptMachine("22631", "Enterprise"), reg(tpmKey)), Options{Profile: named("2026")}, "TPMNotFound", Pass, "is there"},
	{"Windows 11, TPM unread", both(gptMachine("22631", "Enterprise"), reg(tpmKey), broken(`SYSTEM\ControlSet001\Enum\ACPI\MSFT0101`)), Options{Profile: named("2026")}, "TPMNotFound", Unknown, "bad cell"},

	{"PCoIP for Windows 11", gptMachine("22631", "Enterprise"), Options{Profile: named("2026")}, "ProtocolOSIncompatibility", Fail, "cannot be shown with PCOIP, which BYOL_REGULAR means"},
	{"WSP for Windows 11", gptMachine("22631", "Enterprise"), Options{Profile: named("2026"), Process: RegularWSP}, "ProtocolOSIncompatibility", Pass, ""},
	{"BYOP for Windows 11", gptMachine("22631", "Enterprise"), Options{Profile: named("2026"), Process: GraphicsG4DNBYOP}, "ProtocolOSIncompatibility", Pass, ""},
	{"PCoIP for a Windows 11 of no profile", gptMachine("22631", "Enterprise"), Options{}, "ProtocolOSIncompatibility", Fail, ""},
	{"PCoIP for Windows 10", reg(``), Options{Process: Graphics}, "ProtocolOSIncompatibility", Pass, "BYOL_GRAPHICS means"},
	{"protocol for no build", build10("", "Enterprise"), Options{}, "ProtocolOSIncompatibility", Unknown, "not a build number"},

	{"hibernated", file("hiberfil.sys", "HIBR\x00\x00"), Options{}, "HibernationEnabled", Fail, "begins with HIBR"},
	{"hibernated, small letters", file("hiberfil.sys", "hibr\x00\x00"), Options{}, "HibernationEnabled", Fail, "hibernated"},
	{"resuming", file("hiberfil.sys", "RSTR"), Options{}, "HibernationEnabled", Fail, ""},
	{"woken", file("hiberfil.sys", "wake"), Options{}, "HibernationEnabled", Fail, ""},
	{"an empty hibernation file", file("hiberfil.sys", "\x00\x00\x00\x00\x00"), Options{}, "HibernationEnabled", Pass, "begins with zeros"},
	{"a hibernation file of one byte", file("hiberfil.sys", "x"), Options{}, "HibernationEnabled", Pass, "has 1 bytes"},
	{"something else", file("hiberfil.sys", "abcd"), Options{}, "HibernationEnabled", Pass, "61626364"},
	{"hibernation on, Fast Startup off", reg(power + `"HibernateEnabled"=dword:1`), Options{}, "HibernationEnabled", Pass, ""},
	{"Fast Startup on", reg(power + `"HibernateEnabled"=dword:1` + "\n" + sPower + `"HiberbootEnabled"=dword:1`), Options{}, "HibernationEnabled", Warn, "Fast Startup is on"},
	{"Fast Startup on, at ingestion", reg(power + `"HibernateEnabled"=dword:1` + "\n" + sPower + `"HiberbootEnabled"=dword:1`), Options{Ingestion: true}, "HibernationEnabled", Pass, "the checker switches off"},
	{"hibernated, at ingestion", file("hiberfil.sys", "HIBR\x00\x00"), Options{Ingestion: true}, "HibernationEnabled", Fail, ""},
	{"Fast Startup as it comes", both(goneValue(`SYSTEM\ControlSet001\Control\Power`, "HibernateEnabled"), goneValue(`SYSTEM\ControlSet001\Control\Session Manager\Power`, "HiberbootEnabled")), Options{}, "HibernationEnabled", Warn, ""},
	{"hibernated and running", both(file("hiberfil.sys", "HIBR"), while(func(*answers) {})), Options{}, "HibernationEnabled", Pass, "Windows is running"},
	{"hibernation file unread", broken("c:/hiberfil.sys"), Options{}, "HibernationEnabled", Unknown, "bad cell"},
	{"power unread", broken(`SYSTEM\ControlSet001\Control\Power\HibernateEnabled`), Options{}, "HibernationEnabled", Unknown, "bad cell"},

	{"another control set next", reg(`[SYSTEM\Select]` + "\n" + `"Default"=dword:2`), Options{}, "ControlSetMismatch", Warn, "the next start takes ControlSet002"},
	{"next control set unread", broken(`SYSTEM\Select\Default`), Options{}, "ControlSetMismatch", Unknown, "bad cell"},

	{"two in the menu", reg(twoInMenu + `[BCD\Objects\{2}\Description]` + "\n" + `"Type"=dword:10200003` + "\n" + `[BCD\Objects\{2}\Elements\12000004]` + "\n" + `"Element"="Windows 7"`), Options{}, "MultipleBootPartition", Fail, "offers 2 Windows: Windows 10, Windows 7"},
	{"a second one without a name", reg(twoInMenu + `[BCD\Objects\{2}\Description]` + "\n" + `"Type"=dword:10200003`), Options{}, "MultipleBootPartition", Fail, "Windows 10, {2}"},
	{"a memory test in the menu", reg(twoInMenu + `[BCD\Objects\{2}\Description]` + "\n" + `"Type"=dword:10200005`), Options{}, "MultipleBootPartition", Pass, ""},
	{"an object that is not there", reg(twoInMenu), Options{}, "MultipleBootPartition", Pass, ""},
	{"no menu, but a default", both(gone(`BCD\Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Elements\24000001`), reg(`[BCD\Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Elements\23000003]`+"\n"+`"Element"="{1}"`)), Options{}, "MultipleBootPartition", Pass, ""},
	{"BCD missing", gone(`BCD`), Options{}, "MultipleBootPartition", Unknown, "the BCD hive is missing"},
	{"an object unread", both(reg(twoInMenu), broken(`BCD\Objects\{2}`)), Options{}, "MultipleBootPartition", Unknown, "bad cell"},
}
