package check

import (
	"testing"
	"testing/fstest"

	"berth/internal/windows"
)

const (
	av     = `[SOFTWARE\Microsoft\Security Center\Provider\Av\{17AD7D40-BA12-9C46-7131-94903A54AD8B}]` + "\n"
	dg     = `[SYSTEM\ControlSet001\Control\DeviceGuard\Scenarios\HypervisorEnforcedCodeIntegrity]` + "\n"
	cg     = `[SYSTEM\ControlSet001\Control\DeviceGuard\Scenarios\CredentialGuard]` + "\n"
	lsa    = `[SYSTEM\ControlSet001\Control\Lsa]` + "\n"
	policy = `[SOFTWARE\Policies\Microsoft\Windows\DeviceGuard]` + "\n"
)

func file(name, text string) func(*testing.T, *memory) {
	return change(func(m *memory) { m.files[name] = &fstest.MapFile{Data: []byte(text)} })
}

// both makes several changes.
func both(changes ...func(*testing.T, *memory)) func(*testing.T, *memory) {
	return func(t *testing.T, m *memory) {
		for _, c := range changes {
			c(t, m)
		}
	}
}

var protectionCases = []testCase{
	{"defender", reg(`[SOFTWARE\Microsoft\Security Center\Provider\Av\{D68DDC3A-831F-4fae-9E44-DA132C1ACF46}]` + "\n" + `"DISPLAYNAME"="@oem.dll,-1"`), Options{}, "AntiVirusInstalled", Pass, "subkeys of SOFTWARE"},
	{"defender by its newer name", reg(av + `"DISPLAYNAME"="Microsoft Defender Antivirus"`), Options{}, "AntiVirusInstalled", Pass, ""},
	{"another one", both(reg(av+`"DISPLAYNAME"="Example AV"`+"\n"+`"PRODUCTEXE"="\"%ProgramFiles%\\Example\\av.exe\""`), file("Program Files/Example/av.exe", "MZ")), Options{}, "AntiVirusInstalled", Fail, "installed: Example AV"},
	{"an orphan", reg(av + `"DISPLAYNAME"="Example AV"` + "\n" + `"PRODUCTEXE"="C:\\Program Files\\Example\\av.exe"`), Options{}, "AntiVirusInstalled", Warn, "left their registration behind: Example AV"},
	{"one on another drive", reg(av + `"DISPLAYNAME"="Example AV"` + "\n" + `"PRODUCTEXE"="E:\\av.exe"`), Options{}, "AntiVirusInstalled", Fail, "Example AV"},
	{"one without a name", reg(av + `"STATE"=dword:1`), Options{}, "AntiVirusInstalled", Fail, "a program without a name"},
	{"one whose file cannot be looked at", both(reg(av+`"DISPLAYNAME"="Example AV"`+"\n"+`"PRODUCTEXE"="C:\\a\\av.exe"`), broken("c:/a/av.exe")), Options{}, "AntiVirusInstalled", Fail, ""},
	{"providers unread", both(reg(av+`"DISPLAYNAME"="Windows Defender"`), broken(`SOFTWARE\Microsoft\Security Center\Provider\Av`)), Options{}, "AntiVirusInstalled", Unknown, "bad cell"},
	{"a name unread", both(reg(av+`"DISPLAYNAME"="Windows Defender"`), broken(`SOFTWARE\Microsoft\Security Center\Provider\Av\{17AD7D40-BA12-9C46-7131-94903A54AD8B}\DISPLAYNAME`)), Options{}, "AntiVirusInstalled", Unknown, "bad cell"},
	{"another one, running", while(func(a *answers) { a.antiVirus = []windows.AntiVirusProduct{{Name: "Example AV"}} }), Options{}, "AntiVirusInstalled", Fail, "Example AV"},
	{"the registry of a running one is not asked", both(reg(av+`"DISPLAYNAME"="Example AV"`), while(func(*answers) {})), Options{}, "AntiVirusInstalled", Pass, "registered with the Windows Security Center: 1"},
	{"no answer about anti-virus", while(func(a *answers) { a.antiVirus = nil }), Options{}, "AntiVirusInstalled", Unknown, "WMI does not answer"},

	{"memory integrity", reg(dg + `"Enabled"=dword:1`), Options{}, "MemoryIntegrityIncompatibility", Warn, "Memory integrity is on. No setting asks for a lock"},
	{"memory integrity by policy", reg(policy + `"HypervisorEnforcedCodeIntegrity"=dword:2`), Options{}, "MemoryIntegrityIncompatibility", Warn, ""},
	{"locked by policy", reg(policy + `"HypervisorEnforcedCodeIntegrity"=dword:1`), Options{}, "MemoryIntegrityIncompatibility", Fail, "locked in the firmware"},
	{"locked", reg(dg + `"Enabled"=dword:1` + "\n" + `"Locked"=dword:1`), Options{}, "MemoryIntegrityIncompatibility", Fail, "locked in the firmware"},
	{"credential guard", reg(lsa + `"LsaCfgFlags"=dword:2`), Options{}, "MemoryIntegrityIncompatibility", Warn, "Credential Guard is on"},
	{"credential guard and memory integrity", reg(cg + `"Enabled"=dword:1` + "\n" + dg + `"Enabled"=dword:1`), Options{}, "MemoryIntegrityIncompatibility", Warn, "Memory integrity and Credential Guard are on"},
	{"credential guard locked", reg(lsa + `"LsaCfgFlags"=dword:1`), Options{}, "MemoryIntegrityIncompatibility", Fail, ""},
	{"credential guard off", reg(lsa + `"LsaCfgFlags"=dword:0`), Options{}, "MemoryIntegrityIncompatibility", Pass, ""},
	{"on, lock unread", both(reg(dg+`"Enabled"=dword:1`+"\n"+`"Locked"=dword:0`), broken(`SYSTEM\ControlSet001\Control\DeviceGuard\Scenarios\HypervisorEnforcedCodeIntegrity\Locked`)), Options{}, "MemoryIntegrityIncompatibility", Fail, "cannot be told"},
	{"LSA unread", broken(`SYSTEM\ControlSet001\Control\Lsa\LsaCfgFlags`), Options{}, "MemoryIntegrityIncompatibility", Unknown, "bad cell"},
	{"runs by a forgotten lock", while(func(a *answers) { a.device = &windows.DeviceGuard{MemoryIntegrity: true, UEFILock: true} }), Options{}, "MemoryIntegrityIncompatibility", Fail, "locked"},
	{"runs by itself", while(func(a *answers) { a.device = &windows.DeviceGuard{CredentialGuard: true} }), Options{}, "MemoryIntegrityIncompatibility", Warn, "Credential Guard runs, although no setting asks for it"},
	{"off by its settings, with legacy BIOS", reg(``), Options{}, "MemoryIntegrityIncompatibility", Pass, "legacy BIOS keeps no lock"},
	{"off by its settings, with UEFI", gptMachine("26100", "Enterprise"), Options{Profile: named("2026")}, "MemoryIntegrityIncompatibility", Unknown, "only the running Windows can tell"},
	{"off by its settings, firmware unknown", change(func(m *memory) { m.machine.Firmware = "" }), Options{}, "MemoryIntegrityIncompatibility", Unknown, "nothing on the disk says"},
	{"runs not, with UEFI", both(gptMachine("26100", "Enterprise"), while(func(*answers) {})), Options{Profile: named("2026")}, "MemoryIntegrityIncompatibility", Pass, "Neither"},
	{"no answer about device guard", while(func(a *answers) { a.device = nil }), Options{}, "MemoryIntegrityIncompatibility", Unknown, "WMI does not answer"},

	{"pcoip agent", both(reg(`[`+wow+`\PCoIP Standard Agent]`+"\n"+`"DisplayName"="PCoIP Standard Agent"`+"\n"+`[SYSTEM\ControlSet001\Services\PCoIPAgent]`+"\n"+`"Start"=dword:2`),
		file("Program Files (x86)/Teradici/PCoIP Agent/uninst.exe", "MZ")), Options{}, "PCoIPAgentInstalled", Warn, "service PCoIPAgent, uninst.exe"},
	{"pcoip agent for 64 bits", file("Program Files/Teradici/PCoIP Agent/uninst.exe", "MZ"), Options{}, "PCoIPAgentInstalled", Warn, "uninst.exe"},
	{"pcoip agent without its uninstaller", reg(`[SYSTEM\ControlSet001\Services\PCoIPAgent]`), Options{}, "PCoIPAgentInstalled", Fail, "not where it should be"},
	{"pcoip folder unread", broken("c:/Program Files/Teradici/PCoIP Agent/uninst.exe"), Options{}, "PCoIPAgentInstalled", Unknown, "bad cell"},
	{"pcoip agent, uninstaller unread", both(reg(`[SYSTEM\ControlSet001\Services\PCoIPAgent]`), broken("c:/Program Files (x86)/Teradici/PCoIP Agent/uninst.exe")), Options{}, "PCoIPAgentInstalled", Fail, ""},

	{"7-Zip", reg(`[` + unins + `\7-Zip]` + "\n" + `"DisplayName"="7-Zip 23.01"`), Options{}, "AdditionalSoftwareInstalled", Warn, "7-Zip 23.01"},
	{"7-Zip at ingestion", reg(`[` + unins + `\7-Zip]` + "\n" + `"DisplayName"="7-Zip 23.01"`), Options{Ingestion: true}, "AdditionalSoftwareInstalled", NotApplicable, ""},
	{"7-Zip twice", reg(`[` + unins + `\7-Zip]` + "\n" + `"DisplayName"="7-Zip 23.01"` + "\n" + `[` + wow + `\7-Zip]` + "\n" + `"DisplayName"="7-Zip 23.01"`), Options{}, "AdditionalSoftwareInstalled", Warn, "Windows: 7-Zip 23.01."},
	{"OneDrive comes with Windows", reg(`[` + unins + `\OneDriveSetup.exe]` + "\n" + `"DisplayName"="Microsoft OneDrive"`), Options{}, "AdditionalSoftwareInstalled", Pass, ""},
	{"Office has a check of its own", reg(`[` + unins + `\{90160000-0011-0000-1000-0000000FF1CE}]` + "\n" + `"DisplayName"="Microsoft Office Professional Plus 2016"`), Options{}, "AdditionalSoftwareInstalled", Pass, ""},
	{"Microsoft 365 has a check of its own", reg(microsoft365), Options{Profile: named("2026")}, "AdditionalSoftwareInstalled", Pass, ""},
	{"what is called like Office's product alone", reg(`[` + unins + `\O365ProPlusRetail - en-us]` + "\n" + `"DisplayName"="Free Games"`), Options{}, "AdditionalSoftwareInstalled", Warn, "Free Games"},
	{"a PCoIP client is no agent", reg(`[` + unins + `\{1}]` + "\n" + `"DisplayName"="PCoIP Client"`), Options{}, "PCoIPAgentInstalled", Pass, ""},
	{"a PCoIP agent for 64 bits by its name", reg(`[` + unins + `\{1}]` + "\n" + `"DisplayName"="PCoIP Standard Agent"`), Options{}, "PCoIPAgentInstalled", Fail, ""},
	{"allowed by the profile", reg(`[` + unins + `\7-Zip]` + "\n" + `"DisplayName"="7-Zip 23.01"`), Options{Profile: allowing("7-zip")}, "AdditionalSoftwareInstalled", Pass, ""},
	{"programs unread", broken(unins), Options{}, "AdditionalSoftwareInstalled", Unknown, "bad cell"},
}

// allowing is the document's profile with programs that may be there.
func allowing(programs ...string) Profile {
	p := named(DefaultProfile)
	p.AllowedPrograms = Requirement[[]string]{Value: programs, Source: "test"}
	return p
}

func TestOnSystemVolume(t *testing.T) {
	for program, want := range map[string]string{
		`C:\Program Files\A\a.exe`:          "Program Files/A/a.exe",
		`"%ProgramFiles(x86)%\A\a.exe"`:     "Program Files (x86)/A/a.exe",
		` %SystemRoot%\System32\a.exe `:     "Windows/System32/a.exe",
		`%SystemDrive%\a.exe`:               "a.exe",
		`windowsdefender://`:                "",
		`D:\a.exe`:                          "",
		`\\server\share\a.exe`:              "",
		`a.exe`:                             "",
		`C:\..\..\etc\passwd`:               "",
		`%ProgramFiles%\A\..\..\..\b`:       "",
		`C:\Program Files\A\a.exe /service`: "Program Files/A/a.exe /service",
		``:                                  "",
	} {
		got, ok := onSystemVolume(program)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s is %q, %v; want %q", program, got, ok, want)
		}
	}
}
