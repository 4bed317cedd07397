package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/windows"
)

// lines joins the texts of evidence.
func lines(list []Evidence, with string) string {
	var b strings.Builder
	for _, e := range list {
		b.WriteString(e.Text + with)
	}
	return b.String()
}

func find(t testing.TB, r Report, code string) Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Code == code {
			return f
		}
	}
	t.Fatalf("the report has no %s", code)
	return Finding{}
}

// reg returns a change that reads text over the machine.
func reg(text string) func(*testing.T, *memory) {
	return func(t *testing.T, m *memory) { m.merge(t, text) }
}

func broken(what ...string) func(*testing.T, *memory) {
	return func(_ *testing.T, m *memory) {
		m.broken = map[string]error{}
		for _, w := range what {
			m.broken[strings.ToLower(w)] = errors.New("bad cell at 0x1234")
		}
	}
}

func gone(path string) func(*testing.T, *memory) {
	return func(_ *testing.T, m *memory) { m.remove(path) }
}

func goneValue(path, name string) func(*testing.T, *memory) {
	return func(_ *testing.T, m *memory) { m.removeValue(path, name) }
}

func change(f func(*memory)) func(*testing.T, *memory) {
	return func(_ *testing.T, m *memory) { f(m) }
}

const (
	cv    = `[SOFTWARE\Microsoft\Windows NT\CurrentVersion]` + "\n"
	gib1  = int64(1) << 30
	unins = `SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall`
	wow   = `SOFTWARE\WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall`
	ifs   = `SYSTEM\ControlSet001\Services\Tcpip\Parameters\Interfaces`
	nic   = `{08ba0cd8-e98c-475c-badf-65130c043bd6}`
	ghost = `{40ecfcb0-bd18-4aff-9d0a-0aa71cb762a9}`
)

func build10(number, edition string) func(*testing.T, *memory) {
	return reg(cv + `"CurrentBuildNumber"="` + number + `"` + "\n" + `"EditionID"="` + edition + `"`)
}

func gptMachine(number, edition string) func(*testing.T, *memory) {
	return func(t *testing.T, m *memory) {
		build10(number, edition)(t, m)
		m.machine.Firmware = "uefi"
		m.machine.Disks[0].Scheme = windows.GPT
		m.machine.Disks[0].Partitions[0].FileSystem = "FAT"
	}
}

func free(n int64) func(*testing.T, *memory) {
	return change(func(m *memory) { m.system().Volume.FreeBytes = n })
}

// sized makes C: and the disk of that many bytes.
func sized(volume, disk int64) func(*testing.T, *memory) {
	return change(func(m *memory) { m.system().Volume.SizeBytes = volume; m.machine.Disks[0].SizeBytes = disk })
}

// testCase is a machine that differs from the fit one in one respect, and what a check must make of it.
type testCase struct {
	name   string
	change func(*testing.T, *memory)
	opt    Options
	code   string
	want   Outcome
	says   string // part of Because or of the evidence
}

// cases are the machines of every group of checks.
var cases = slices.Concat(machineCases, protectionCases, membershipCases, servicingCases, licenceCases, sysprepCases, packageCases, bootCases, driveCases, userCases)

var machineCases = []testCase{
	{"1803", build10("17134", "Professional"), Options{}, "OSNotSupported", Pass, "Windows 10 version 1803 (build 17134)"},
	{"1803 in 2022", build10("17134", "Professional"), Options{Profile: named("2022")}, "OSNotSupported", Fail, "takes Windows 10 2004, 20H2, 21H1, 21H2"},
	{"1709", build10("16299", "Enterprise"), Options{}, "OSNotSupported", Fail, "Windows 10 version 1709 (build 16299); profile seed-2020 takes Windows 10 1803, 1809, 1903, 1909, 2004"},
	{"20H2", build10("19042", "Enterprise"), Options{}, "OSNotSupported", Fail, "20H2"},
	{"between releases", build10("19040", "Enterprise"), Options{}, "OSNotSupported", Fail, "no known release"},
	{"Windows 7", build10("7601", "Enterprise"), Options{}, "OSNotSupported", Fail, "older than Windows 10"},
	{"no build number", build10("", "Enterprise"), Options{}, "OSNotSupported", Unknown, "not a build number"},
	{"hostile build number", build10("99999999999999999999", "Enterprise"), Options{}, "OSNotSupported", Unknown, "not a build number"},
	{"Server 2019 has 1809's build", reg(`[SYSTEM\ControlSet001\Control\ProductOptions]` + "\n" + `"ProductType"="ServerNT"` + "\n" + cv + `"CurrentBuildNumber"="17763"`), Options{}, "OSNotSupported", Fail, "Windows Server"},
	{"product type unread", broken(`SYSTEM\ControlSet001\Control\ProductOptions`), Options{}, "OSNotSupported", Unknown, "bad cell at 0x1234"},
	{"LTSC 2019 in 2026", build10("17763", "EnterpriseS"), Options{Profile: named("2026")}, "OSNotSupported", Pass, ""},
	{"1809 in 2026 is LTSC or nothing", build10("17763", "Enterprise"), Options{Profile: named("2026")}, "OSNotSupported", Fail, "takes only Windows 10 LTSC 2019 (1809)"},
	{"Windows 11 24H2", gptMachine("26100", "Enterprise"), Options{Profile: named("2026")}, "OSNotSupported", Pass, "Windows 11 version 24H2"},
	{"LTSC 2024", gptMachine("26100", "EnterpriseS"), Options{Profile: named("2026")}, "OSNotSupported", Pass, ""},
	{"Windows 11 in the document", gptMachine("26100", "Enterprise"), Options{}, "OSNotSupported", Fail, "Windows 11"},

	{"Pro", build10("19041", "Professional"), Options{}, "EditionNotSupported", Pass, ""},
	{"Home", build10("19041", "Core"), Options{}, "EditionNotSupported", Fail, "takes Enterprise, EnterpriseS, Professional"},
	{"Enterprise N", build10("19041", "EnterpriseN"), Options{}, "EditionNotSupported", Fail, "EnterpriseN"},
	{"LTSC N", build10("19041", "EnterpriseSN"), Options{}, "EditionNotSupported", Fail, ""},
	{"Education", build10("19041", "Education"), Options{}, "EditionNotSupported", Fail, ""},
	{"evaluation", build10("19041", "EnterpriseEval"), Options{}, "EditionNotSupported", Fail, ""},
	{"Pro of Windows 11 in 2026", gptMachine("22631", "Professional"), Options{Profile: named("2026")}, "EditionNotSupported", Fail, "takes Enterprise."},
	{"edition unread", broken(`SOFTWARE\Microsoft\Windows NT\CurrentVersion\EditionID`), Options{}, "EditionNotSupported", Unknown, "bad cell"},

	{"32-bit", reg(`[SYSTEM\ControlSet001\Control\Session Manager\Environment]` + "\n" + `"PROCESSOR_ARCHITECTURE"="x86"`), Options{}, "Requires64BitOS", Fail, "x86"},
	{"ARM64", reg(`[SYSTEM\ControlSet001\Control\Session Manager\Environment]` + "\n" + `"PROCESSOR_ARCHITECTURE"="ARM64"`), Options{}, "Requires64BitOS", Fail, "ARM64"},
	{"kernel agrees", change(func(m *memory) { m.kernel(0x8664) }), Options{}, "Requires64BitOS", Pass, "is for machine 0x8664"},
	{"kernel contradicts", change(func(m *memory) { m.kernel(0xaa64) }), Options{}, "Requires64BitOS", Unknown, "contradicts"},
	{"kernel is no program", change(func(m *memory) { m.kernel(0x8664); m.files[kernelFile].Data[0] = 'X' }), Options{}, "Requires64BitOS", Pass, ""},
	{"no architecture", goneValue(`SYSTEM\ControlSet001\Control\Session Manager\Environment`, "PROCESSOR_ARCHITECTURE"), Options{}, "Requires64BitOS", Unknown, "missing"},

	{"German", reg(`[SYSTEM\ControlSet001\Control\Nls\Language]` + "\n" + `"InstallLanguage"="0407"`), Options{}, "LanguageNotSupported", Fail, "de-DE"},
	{"British", reg(`[SYSTEM\ControlSet001\Control\Nls\Language]` + "\n" + `"InstallLanguage"="0809"`), Options{}, "LanguageNotSupported", Fail, "en-GB"},
	{"no language", reg(`[SYSTEM\ControlSet001\Control\Nls\Language]` + "\n" + `"InstallLanguage"="english"`), Options{}, "LanguageNotSupported", Unknown, "not a language number"},
	{"shown in Japanese", reg(`[DEFAULT\Control Panel\Desktop]` + "\n" + `"PreferredUILanguages"=hex(7):6a,00,61,00,2d,00,4a,00,50,00,00,00,65,00,6e,00,2d,00,55,00,53,00,00,00,00,00`), Options{}, "LanguageNotSupported", Fail, "shown in ja-JP"},
	{"shown in English", reg(`[DEFAULT\Control Panel\Desktop]` + "\n" + `"PreferredUILanguages"=hex(7):65,00,6e,00,2d,00,55,00,53,00,00,00,6a,00,61,00,2d,00,4a,00,50,00,00,00,00,00`), Options{}, "LanguageNotSupported", Pass, "ja-JP"},
	{"cached in Japanese", reg(`[DEFAULT\Control Panel\Desktop\MuiCached]` + "\n" + `"MachinePreferredUILanguages"=hex(7):6a,00,61,00,2d,00,4a,00,50,00,00,00,00,00`), Options{}, "LanguageNotSupported", Fail, "shown in ja-JP"},
	{"no DEFAULT hive", gone(`DEFAULT`), Options{}, "LanguageNotSupported", Unknown, "the DEFAULT hive is missing"},

	{"upgraded", reg(`[SYSTEM\Setup\Source OS (Updated on 1/6/2019 02:18:37)]`), Options{}, "InPlaceUpgrade", Fail, "Source OS (Updated on 1/6/2019 02:18:37)"},
	{"upgraded, other trace", reg(`[SYSTEM\Setup\Upgrade]`), Options{}, "InPlaceUpgrade", Fail, `"Upgrade"`},
	{"no Setup key", gone(`SYSTEM\Setup`), Options{}, "InPlaceUpgrade", Unknown, "which every Windows has, is missing"},
	{"Setup unread", broken(`SYSTEM\Setup`), Options{}, "InPlaceUpgrade", Unknown, "bad cell"},
	{"upgraded in a damaged hive", func(t *testing.T, m *memory) {
		m.merge(t, `[SYSTEM\Setup\Upgrade]`)
		m.states = map[windows.Hive]windows.HiveState{windows.SystemHive: {Damaged: "3 cells"}}
	}, Options{}, "InPlaceUpgrade", Fail, ""},
	{"no trace in a damaged hive", change(func(m *memory) {
		m.states = map[windows.Hive]windows.HiveState{windows.SystemHive: {Damaged: "3 cells"}}
	}), Options{}, "InPlaceUpgrade", Unknown, "is damaged"},

	{"PowerShell 3", reg(`[SOFTWARE\Microsoft\PowerShell\3\PowerShellEngine]` + "\n" + `"PowerShellVersion"="3.0"`), Options{}, "OutdatedPowershellVersion", Fail, "must be 4 or later"},
	{"PowerShell 4", reg(`[SOFTWARE\Microsoft\PowerShell\3\PowerShellEngine]` + "\n" + `"PowerShellVersion"="4.0"`), Options{}, "OutdatedPowershellVersion", Pass, ""},
	{"PowerShell 10", reg(`[SOFTWARE\Microsoft\PowerShell\3\PowerShellEngine]` + "\n" + `"PowerShellVersion"="10.1"`), Options{}, "OutdatedPowershellVersion", Pass, ""},
	{"PowerShell 2 alone", gone(`SOFTWARE\Microsoft\PowerShell\3`), Options{}, "OutdatedPowershellVersion", Fail, "2.0"},
	{"no PowerShell", gone(`SOFTWARE\Microsoft\PowerShell`), Options{}, "OutdatedPowershellVersion", Fail, "No Windows PowerShell"},
	{"odd PowerShell", reg(`[SOFTWARE\Microsoft\PowerShell\3\PowerShellEngine]` + "\n" + `"PowerShellVersion"="five"`), Options{}, "OutdatedPowershellVersion", Unknown, "not a version number"},
	{"PowerShell unread", broken(`SOFTWARE\Microsoft\PowerShell\3`), Options{}, "OutdatedPowershellVersion", Unknown, ""},

	{"Office", reg(`[` + unins + `\{90160000-0011-0000-1000-0000000ff1ce}]` + "\n" + `"DisplayName"="Microsoft Office Professional Plus 2016"`), Options{}, "OfficeInstalled", Warn, "Professional Plus 2016"},
	{"Office, subscribed", reg(`[` + wow + `\{90160000-0011-0000-0000-0000000FF1CE}]`), Options{Office: true}, "OfficeInstalled", Fail, "0FF1CE"},
	{"Office, ingestion", reg(`[` + wow + `\{90160000-0011-0000-0000-0000000FF1CE}]`), Options{Ingestion: true}, "OfficeInstalled", NotApplicable, ""},
	{"Office, subscribed, ingestion", reg(`[` + wow + `\{90160000-0011-0000-0000-0000000FF1CE}]`), Options{Office: true, Ingestion: true}, "OfficeInstalled", Fail, ""},
	{"Microsoft 365", reg(`[SOFTWARE\Microsoft\Office\ClickToRun\Configuration]` + "\n" + `"ProductReleaseIds"="O365ProPlusRetail"`), Options{}, "OfficeInstalled", Warn, "O365ProPlusRetail"},
	{"Microsoft 365 in 2026", reg(microsoft365), Options{Profile: named("2026"), Office: true}, "OfficeInstalled", Pass, "Only Microsoft 365"},
	{"Microsoft 365 and another in 2026", reg(microsoft365 + `"ProductReleaseIds"="O365ProPlusRetail,ProPlus2019Volume"`), Options{Profile: named("2026"), Office: true}, "OfficeInstalled", Fail, "ProPlus2019Volume"},
	{"Microsoft 365 and stand-alone in 2026", reg(`[` + unins + `\{90160000-0011-0000-1000-0000000ff1ce}]` + "\n" + `"DisplayName"="Visio"` + "\n" + microsoft365), Options{Profile: named("2026"), Office: true}, "OfficeInstalled", Fail, "Visio"},
	{"what Click-to-Run left", reg(`[` + unins + `\{90160000-008C-0000-1000-0000000FF1CE}]` + "\n" + `"DisplayName"="Office 16 Click-to-Run Extensibility Component"`), Options{Profile: named("2026")}, "OfficeInstalled", Warn, "Click-to-Run"},
	{"programs unread", broken(wow), Options{}, "OfficeInstalled", Unknown, "bad cell"},
	{"32-bit programs missing", gone(`SOFTWARE\WOW6432Node`), Options{}, "OfficeInstalled", Unknown, "missing"},
	{"32-bit Windows has one list", func(t *testing.T, m *memory) {
		m.merge(t, `[SYSTEM\ControlSet001\Control\Session Manager\Environment]`+"\n"+`"PROCESSOR_ARCHITECTURE"="x86"`)
		m.remove(`SOFTWARE\WOW6432Node`)
	}, Options{}, "OfficeInstalled", Pass, "one list"},
	{"Office seen, 32-bit programs unread", func(t *testing.T, m *memory) {
		m.merge(t, `[`+unins+`\{90160000-0011-0000-1000-0000000FF1CE}]`)
		broken(wow)(t, m)
	}, Options{Office: true}, "OfficeInstalled", Fail, ""},

	{"VMware Tools", reg(`[` + unins + `\{A5CD39B7}]` + "\n" + `"DisplayName"="VMware Tools"`), Options{}, "VMWareToolsInstalled", Fail, "VMware Tools"},
	{"VMware Tools, 32-bit list, other case", reg(`[` + wow + `\{A5CD39B7}]` + "\n" + `"DisplayName"="VMWARE TOOLS 11.0"`), Options{}, "VMWareToolsInstalled", Fail, ""},
	{"VMware's service", reg(`[SYSTEM\ControlSet001\Services\vmtools]`), Options{}, "VMWareToolsInstalled", Fail, "VMTools"},
	{"VirtualBox", reg(`[SYSTEM\ControlSet001\Services\VBoxService]`), Options{}, "VMWareToolsInstalled", Warn, "VBoxService"},
	{"VirtualBox, ingestion", reg(`[SYSTEM\ControlSet001\Services\VBoxService]`), Options{Ingestion: true}, "VMWareToolsInstalled", Fail, "VBoxService"},
	{"VMware's driver is not the tools", reg(`[` + unins + `\x]` + "\n" + `"DisplayName"="My VMware Tools helper"`), Options{}, "VMWareToolsInstalled", Pass, ""},
	{"services unread", broken(`SYSTEM\ControlSet001\Services\QEMU-GA`), Options{}, "VMWareToolsInstalled", Unknown, ""},

	{"no account", change(func(m *memory) { m.setAccount("", 0, 0, false) }), Options{}, "WorkspacesBYOLAccountNotFound", Warn, "no local account WorkSpaces_BYOL"},
	{"no account, ingestion", change(func(m *memory) { m.setAccount("", 0, 0, false) }), Options{Ingestion: true}, "WorkspacesBYOLAccountNotFound", Fail, ""},
	{"no account that could be enabled", change(func(m *memory) { m.setAccount("", 0, 0, false) }), Options{}, "WorkspacesBYOLAccountDisabled", Warn, ""},
	{"no account that could be an administrator", change(func(m *memory) { m.setAccount("", 0, 0, false) }), Options{}, "WorkspacesBYOLAccountNotAdministrator", NotApplicable, ""},
	{"no SAM hive", gone(`SAM`), Options{}, "WorkspacesBYOLAccountNotFound", Unknown, "the SAM hive is missing"},
	{"no list of accounts", gone(`SAM\SAM\Domains\Account\Users\Names`), Options{}, "WorkspacesBYOLAccountNotFound", Unknown, ""},
	{"no account in a damaged hive", change(func(m *memory) {
		m.setAccount("", 0, 0, false)
		m.states = map[windows.Hive]windows.HiveState{windows.SAM: {Damaged: "bin at 0x3000"}}
	}), Options{}, "WorkspacesBYOLAccountNotFound", Unknown, "damaged"},
	{"plain user", change(func(m *memory) { m.setAccount(byolAccount, byolRID, 0x10, false) }), Options{}, "WorkspacesBYOLAccountNotAdministrator", Fail, "not a member"},
	{"plain user exists", change(func(m *memory) { m.setAccount(byolAccount, byolRID, 0x10, false) }), Options{}, "WorkspacesBYOLAccountNotFound", Pass, "without RID 1001"},
	{"group unread", broken(`SAM\SAM\Domains\Builtin\Aliases\00000220\C`), Options{}, "WorkspacesBYOLAccountNotAdministrator", Unknown, ""},
	{"disabled", change(func(m *memory) { m.setAccount(byolAccount, byolRID, 0x211, true) }), Options{}, "WorkspacesBYOLAccountDisabled", Warn, "is disabled"},
	{"locked is not disabled", change(func(m *memory) { m.setAccount(byolAccount, byolRID, 0x410, true) }), Options{}, "WorkspacesBYOLAccountDisabled", Pass, ""},
	{"account without its record", gone(`SAM\SAM\Domains\Account\Users\000003E9`), Options{}, "WorkspacesBYOLAccountDisabled", Unknown, ""},

	{"auto-logon", reg(`[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]` + "\n" + `"AutoAdminLogon"="1"` + "\n" + `"DefaultPassword"="Pa55word!"`), Options{}, "AutoLogonEnabled", Warn, "A password lies in DefaultPassword"},
	{"auto-logon as a number", reg(`[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]` + "\n" + `"AutoAdminLogon"=dword:1`), Options{}, "AutoLogonEnabled", Warn, ""},
	{"no auto-logon", goneValue(`SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon`, "AutoAdminLogon"), Options{}, "AutoLogonEnabled", Pass, "is absent"},
	{"auto-logon of an odd type", reg(`[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]` + "\n" + `"AutoAdminLogon"=hex:01`), Options{}, "AutoLogonEnabled", Unknown, "REG_BINARY"},
	{"no Winlogon", gone(`SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon`), Options{}, "AutoLogonEnabled", Unknown, ""},

	{"no automount", reg(`[SYSTEM\ControlSet001\Services\mountmgr]` + "\n" + `"NoAutoMount"=dword:1`), Options{}, "AutoMountDisabled", Warn, `SYSTEM\ControlSet001\Services\mountmgr\NoAutoMount = 1 (REG_DWORD)`},
	{"automount", reg(`[SYSTEM\ControlSet001\Services\mountmgr]` + "\n" + `"NoAutoMount"=dword:0`), Options{}, "AutoMountDisabled", Pass, ""},
	{"short number", reg(`[SYSTEM\ControlSet001\Services\mountmgr]` + "\n" + `"NoAutoMount"=hex(4):00,00`), Options{}, "AutoMountDisabled", Unknown, "2 bytes"},
	{"other control set", reg(`[SYSTEM\Select]` + "\n" + `"Current"=dword:2` + "\n" + `[SYSTEM\ControlSet002\Services\mountmgr]` + "\n" + `"NoAutoMount"=dword:1`), Options{}, "AutoMountDisabled", Warn, `ControlSet002\Services`},

	{"local time", reg(`[SYSTEM\ControlSet001\Control\TimeZoneInformation]` + "\n" + `"RealTimeIsUniversal"=dword:0`), Options{}, "RealTimeUniversalDisabled", Warn, "local time"},
	{"clock not set", goneValue(`SYSTEM\ControlSet001\Control\TimeZoneInformation`, "RealTimeIsUniversal"), Options{}, "RealTimeUniversalDisabled", Warn, "is absent"},

	{"no time zone", gone(`SYSTEM\ControlSet001\Control\TimeZoneInformation`), Options{}, "RealTimeUniversalDisabled", Unknown, "which every Windows has, is missing"},

	{"firewall", reg(`[SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile]` + "\n" + `"EnableFirewall"=dword:1`), Options{}, "FirewallEnabled", Warn, "is on for public"},
	{"firewall not set", goneValue(`SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile`, "EnableFirewall"), Options{}, "FirewallEnabled", Pass, ""},
	{"firewall by policy", reg(`[SOFTWARE\Policies\Microsoft\WindowsFirewall\PublicProfile]` + "\n" + `"EnableFirewall"=dword:1`), Options{}, "FirewallEnabled", Warn, "group policy"},
	{"no firewall profile", gone(`SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile`), Options{}, "FirewallEnabled", Unknown, ""},
	{"policy unread", broken(`SOFTWARE\Policies`), Options{}, "FirewallEnabled", Unknown, ""},

	{"fixed address", reg(`[` + ifs + `\` + nic + `]` + "\n" + `"EnableDHCP"=dword:0` + "\n" + `"IPAddress"=hex(7):31,00,30,00,2e,00,30,00,2e,00,30,00,2e,00,35,00,00,00,00,00`), Options{}, "DHCPDisabled", Fail, "Ethernet0 has 10.0.0.5"},
	{"second of two is fixed", reg(`[` + ifs + `\` + ghost + `]` + "\n" + `"EnableDHCP"=dword:0` + "\n" + `"IPAddress"=hex(7):31,00,2e,00,32,00,2e,00,33,00,2e,00,34,00,00,00,00,00` + "\n" +
		`[SYSTEM\ControlSet001\Control\Class\{4D36E972-E325-11CE-BFC1-08002BE10318}\0002]` + "\n" + `"NetCfgInstanceId"="` + ghost + `"` + "\n" + `"DriverDesc"="Second"`), Options{}, "DHCPDisabled", Fail, "Second has 1.2.3.4"},
	{"removed adapter", reg(`[` + ifs + `\` + ghost + `]` + "\n" + `"EnableDHCP"=dword:0` + "\n" + `"IPAddress"=hex(7):31,00,2e,00,32,00,2e,00,33,00,2e,00,34,00,00,00,00,00`), Options{}, "DHCPDisabled", Warn, "no longer there"},
	{"0.0.0.0 is no address", reg(`[` + ifs + `\` + nic + `]` + "\n" + `"EnableDHCP"=dword:0` + "\n" + `"IPAddress"=hex(7):30,00,2e,00,30,00,2e,00,30,00,2e,00,30,00,00,00,00,00`), Options{}, "DHCPDisabled", Pass, ""},
	{"DHCP client disabled", reg(`[SYSTEM\ControlSet001\Services\Dhcp]` + "\n" + `"Start"=dword:4`), Options{}, "DHCPDisabled", Fail, "DHCP Client"},
	{"interface unread", broken(ifs + `\` + nic + `\EnableDHCP`), Options{}, "DHCPDisabled", Unknown, ""},
	{"devices unread", broken(`SYSTEM\ControlSet001\Control\Class\{4D36E972-E325-11CE-BFC1-08002BE10318}\0001`), Options{}, "DHCPDisabled", Unknown, ""},

	{"GPT under Windows 10", gptMachine("19041", "Enterprise"), Options{}, "IncompatiblePartitioning", Fail, "must have MBR"},
	{"GPT under Windows 11", gptMachine("22631", "Enterprise"), Options{Profile: named("2026")}, "IncompatiblePartitioning", Pass, ""},
	{"MBR under Windows 11", build10("22631", "Enterprise"), Options{Profile: named("2026")}, "IncompatiblePartitioning", Fail, "must have GPT"},
	{"MBR with UEFI", change(func(m *memory) { m.machine.Firmware = "uefi" }), Options{}, "IncompatiblePartitioning", Fail, "boots by UEFI"},
	{"GPT with BIOS", func(t *testing.T, m *memory) {
		gptMachine("22631", "Enterprise")(t, m)
		m.machine.Firmware = "bios"
	}, Options{Profile: named("2026")}, "IncompatiblePartitioning", Fail, "boots by BIOS"},
	{"firmware unknown", change(func(m *memory) { m.machine.Firmware = "" }), Options{}, "IncompatiblePartitioning", Unknown, ""},
	{"data volume", change(func(m *memory) { m.partition(windows.RoleData) }), Options{}, "IncompatiblePartitioning", Fail, "2 volumes"},
	{"recovery partition", change(func(m *memory) { m.partition(windows.RoleRecovery) }), Options{}, "IncompatiblePartitioning", Pass, ""},
	{"partition of unknown use", change(func(m *memory) { m.partition("") }), Options{}, "IncompatiblePartitioning", Unknown, "partition 3 of disk 0"},
	{"data volume on another disk", change(func(m *memory) {
		m.machine.Disks = append(m.machine.Disks, windows.Disk{Name: "data.vmdk", SizeBytes: gib1, Scheme: windows.MBR, Partitions: []windows.Partition{{Number: 1, Role: windows.RoleData}}})
	}), Options{}, "IncompatiblePartitioning", Fail, "disk 1 (data.vmdk)"},
	{"another disk without a table", change(func(m *memory) {
		m.machine.Disks = append(m.machine.Disks, windows.Disk{Name: "raw.vmdk", SizeBytes: gib1})
	}), Options{}, "IncompatiblePartitioning", Unknown, "no partition table"},
	{"no disk", change(func(m *memory) { m.machine.Disks = nil }), Options{}, "IncompatiblePartitioning", Unknown, ""},

	{"two active partitions", change(func(m *memory) { m.system().Bootable = true }), Options{}, "MultipleBootPartition", Fail, "2 partitions are marked"},
	{"two Windows", change(func(m *memory) { m.machine.Installations = 2 }), Options{}, "MultipleBootPartition", Fail, "2 installations"},
	{"installations not counted", change(func(m *memory) { m.machine.Installations = 0 }), Options{}, "MultipleBootPartition", Unknown, ""},
	{"two Windows, table unread", change(func(m *memory) { m.machine.Installations = 2; m.machine.Disks[0].Scheme = "" }), Options{}, "MultipleBootPartition", Fail, ""},

	{"70 GiB", sized(70*gib1, 71*gib1), Options{}, "DiskSizeExceeded", Pass, "70.00 GiB of the 70 GiB"},
	{"a byte over 70 GiB", sized(70*gib1+1, 71*gib1), Options{}, "DiskSizeExceeded", Fail, "allows 70 GiB"},
	{"70 GiB in ingestion", sized(70*gib1+1, 71*gib1), Options{Ingestion: true}, "DiskSizeExceeded", Fail, ""},
	{"disk of 80 GiB", sized(60*gib1, 80*gib1), Options{}, "DiskSizeExceeded", Pass, ""},
	{"disk a byte over 80 GiB", sized(60*gib1, 80*gib1+1), Options{}, "DiskSizeExceeded", Fail, "The disk has"},
	{"80 GiB in 2026", sized(79*gib1, 80*gib1), Options{Profile: named("2026")}, "DiskSizeExceeded", Pass, ""},
	{"volume unread", change(func(m *memory) { m.system().Volume = nil }), Options{}, "DiskSizeExceeded", Unknown, ""},
	{"disk too large, volume unread", change(func(m *memory) { m.system().Volume = nil; m.machine.Disks[0].SizeBytes = 500 * gib1 }), Options{}, "DiskSizeExceeded", Fail, ""},
	{"two system partitions", change(func(m *memory) { m.partition(windows.RoleSystem) }), Options{}, "DiskSizeExceeded", Unknown, "more than one partition"},

	{"10 GiB free", free(10 * gib1), Options{}, "DiskFreeSpace", Pass, "10.00 GiB are free"},
	{"a byte short of 10 GiB", free(10*gib1 - 1), Options{}, "DiskFreeSpace", Fail, "1 bytes are missing"},
	{"10 GiB free, Office", free(10 * gib1), Options{Office: true}, "DiskFreeSpace", Fail, "10.00 GiB are missing"},
	{"20 GiB free, Office", free(20 * gib1), Options{Office: true}, "DiskFreeSpace", Pass, ""},
	{"10 GiB free, Office, ingestion", free(10 * gib1), Options{Office: true, Ingestion: true}, "DiskFreeSpace", Fail, "20 GiB where Office"},
	{"a byte short of 20 GiB, Office", free(20*gib1 - 1), Options{Office: true}, "DiskFreeSpace", Fail, ""},
	{"2026 asks for 20 GiB", free(20*gib1 - 1), Options{Profile: named("2026")}, "DiskFreeSpace", Fail, "asks for 20 GiB"},
	{"2 GiB free is no mere warning", free(2 * gib1), Options{}, "DiskFreeSpace", Fail, ""},
	{"more free than there is", free(200 * gib1), Options{}, "DiskFreeSpace", Unknown, "are said to be free"},
	{"file system unread", change(func(m *memory) { m.system().Err = errors.New("MFT record 5: bad fixup") }), Options{}, "DiskFreeSpace", Unknown, "bad fixup"},
	{"hibernation file", change(func(m *memory) { m.files["hiberfil.sys"] = m.files["pagefile.sys"] }), Options{}, "DiskFreeSpace", Pass, "C:/hiberfil.sys takes 1 MiB"},
}

const microsoft365 = `[` + unins + `\O365ProPlusRetail - en-us]` + "\n" + `"DisplayName"="Microsoft 365 Apps for enterprise - en-us"` + "\n" +
	`[` + unins + `\{90160000-008C-0000-1000-0000000FF1CE}]` + "\n" + `"DisplayName"="Office 16 Click-to-Run Extensibility Component"` + "\n" +
	`[SOFTWARE\Microsoft\Office\ClickToRun\Configuration]` + "\n" + `"ProductReleaseIds"="O365ProPlusRetail"` + "\n"

const kernelFile = "Windows/System32/ntoskrnl.exe"

// partition adds a third partition.
func (m *memory) partition(role windows.Role) {
	d := &m.machine.Disks[0]
	d.Partitions = append(d.Partitions, windows.Partition{Number: 3, Type: "0x07", Role: role, Length: gib1})
}

func TestChecks(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := fit(t)
			c.change(t, m)
			want := c.want
			if c.opt.Ingestion && (want == Unknown || want == Warn) {
				want = Fail
			}
			rep := Run(Collect(context.Background(), m), c.opt)
			f := find(t, rep, c.code)
			if f.Outcome != want {
				t.Fatalf("%s is %s, want %s: %s %q", c.code, f.Outcome, want, f.Because, f.Evidence)
			}
			if said := f.Because + "\n" + lines(f.Evidence, "\n"); !strings.Contains(said, c.says) {
				t.Errorf("%s does not say %q:\n%s", c.code, c.says, said)
			}
			if len(f.Evidence) == 0 {
				t.Errorf("%s has no evidence", c.code)
			}
			blocked := want == Fail || want == Warn || want == Unknown
			if blocked && (rep.Fit || rep.ExitCode() == ExitFit) {
				t.Errorf("%s is %s, but the machine is called fit", c.code, want)
			}
			if blocked && f.Remedy == "" || !blocked && f.Remedy != "" {
				t.Errorf("%s is %s with remedy %q", c.code, want, f.Remedy)
			}
			if strings.Contains(fmt.Sprint(rep), "Pa55word") {
				t.Error("the report shows a password")
			}
		})
	}
}

// TestCasesCoverTable: every check has a machine that fails it and one on which it cannot be told.
func TestCasesCoverTable(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cases {
		seen[c.code+" "+string(c.want)] = true
	}
	for _, c := range table {
		if c.Operation != "" { // never asked of a machine: see TestOtherOperations
			continue
		}
		if !seen[c.Code+" "+string(Fail)] && !seen[c.Code+" "+string(Warn)] {
			t.Errorf("no case fails %s", c.Code)
		}
		if !seen[c.Code+" "+string(Unknown)] {
			t.Errorf("no case leaves %s open", c.Code)
		}
	}
}

func TestFit(t *testing.T) {
	rep := Run(Collect(context.Background(), fit(t)), Options{})
	if !rep.Fit || rep.ExitCode() != ExitFit {
		t.Errorf("fit %v, exit %d, want a fit machine", rep.Fit, rep.ExitCode())
	}
	for _, f := range rep.Findings {
		row, _ := Describe(f.Code)
		switch {
		case f.Outcome == Unknown && f.MayWait && row.DecidedIn == InGuest:
		case f.Outcome == NotApplicable && (row.Operation != "" || row.Code == "UEFIRequired" || row.Code == "TPMNotFound"): // of others, and of Windows 11
		case f.Outcome != Pass:
			t.Errorf("%s is %s: %s", f.Code, f.Outcome, f.Because)
		}
	}
	if want := []string{"WindowsNotActivated", "ZeroRearmCount"}; !slices.Equal(rep.Open, want) {
		t.Errorf("open are %v, want %v", rep.Open, want)
	}
	if rep := Run(Collect(context.Background(), live(t)), Options{}); !rep.Fit || len(rep.Open) > 0 {
		t.Errorf("running: fit %v, open %v", rep.Fit, rep.Open)
	}
	if got, want := rep.Windows, (Windows{"2004", "19041", "Enterprise", "en-US", "AMD64", "DESKTOP-BYOL1"}); got != want {
		t.Errorf("windows is %+v, want %+v", got, want)
	}
}

// TestWindows: the head of the report knows a release by its build, and says nothing that was not read.
func TestWindows(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testing.T, *memory)
		want   Windows
	}{
		{"20H2, ReleaseId stands still", reg(cv + `"CurrentBuildNumber"="19042"` + "\n" + `"ReleaseId"="2009"`), Windows{"20H2", "19042", "Enterprise", "en-US", "AMD64", "DESKTOP-BYOL1"}},
		{"a build to come", reg(cv + `"CurrentBuildNumber"="30000"` + "\n" + `"DisplayVersion"="29H2"`), Windows{"29H2", "30000", "Enterprise", "en-US", "AMD64", "DESKTOP-BYOL1"}},
		{"no SOFTWARE", gone(`SOFTWARE`), Windows{"", "", "", "en-US", "AMD64", "DESKTOP-BYOL1"}},
		{"no SYSTEM", gone(`SYSTEM`), Windows{"2004", "19041", "Enterprise", "", "", ""}},
		{"a language without a name", reg(`[SYSTEM\ControlSet001\Control\Nls\Language]` + "\n" + `"InstallLanguage"="1234"`), Windows{"2004", "19041", "Enterprise", "language 1234", "AMD64", "DESKTOP-BYOL1"}},
	} {
		m := fit(t)
		c.change(t, m)
		if got := Run(Collect(context.Background(), m), Options{}).Windows; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// kernel puts a program made for a machine where the kernel is.
func (m *memory) kernel(machine uint16) {
	head := make([]byte, 0x200)
	copy(head, "MZ")
	head[0x3c] = 0xf8
	copy(head[0xf8:], "PE\x00\x00")
	head[0xfc], head[0xfd] = byte(machine), byte(machine>>8)
	m.files[kernelFile] = &fstest.MapFile{Data: head}
}
