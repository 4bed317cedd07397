package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// installationChecks are the checks on what Windows this is.
var installationChecks = []Check{
	{
		Code: "OSNotSupported", ReportAs: "OSNotSupported", Level: Fail, DecidedIn: OnDisk,
		Title:      "The Windows version is one that the profile takes",
		Source:     `document, "Windows Versions That Are Supported for BYOL"; facts §4.2, §4.5`,
		Evaluation: `ProductType must be "WinNT"; CurrentBuildNumber must be that of a release of the profile. A build that is taken in its LTSC edition alone asks for EditionID "EnterpriseS".`,
		Remedy: steps(
			"Set up a new machine from the installation media of a version that is taken (Microsoft's volume licensing site has them) and export that one. Do not upgrade this one in place: an upgraded Windows is refused as well.",
			"To see which version it is:",
			"  winver"),
		judge: judgeOS,
	},
	{
		Code: "EditionNotSupported", ReportAs: "OSNotSupported", Level: Fail, DecidedIn: OnDisk,
		Title:      "The edition is Windows Enterprise or Pro",
		Source:     "document, first paragraph and Requirements; facts §4.3",
		Evaluation: "EditionID must be one of those that the profile takes for the build, letter by letter: N, evaluation, Education and Home editions have names of their own.",
		Remedy: steps(
			"Set up a new machine from Enterprise or Pro media. From Home, Education or Pro for Workstations the edition can also be changed with a volume key: Settings > Update & Security > Activation > Change product key, or:",
			"  changepk.exe /ProductKey <key>",
			"An N or an evaluation edition has to be set up anew."),
		judge: judgeEdition,
	},
	{
		Code: "Requires64BitOS", ReportAs: "Requires64BitOS", Level: Fail, DecidedIn: OnDisk,
		Title:      "Windows is 64-bit, for x64 processors",
		Source:     "document, Requirements; facts §4.2",
		Evaluation: "PROCESSOR_ARCHITECTURE of the machine's environment must be AMD64. Where the header of C:/Windows/System32/ntoskrnl.exe can be read it must agree.",
		Remedy:     "Set up a new machine from 64-bit (x64) media. A 32-bit or an ARM64 Windows cannot be turned into one.",
		judge:      judgeArchitecture,
	},
	{
		Code: "LanguageNotSupported", ReportAs: "OSNotSupported", Level: Fail, DecidedIn: OnDisk,
		Title:      "The primary language is English (United States)",
		Source:     "document, Requirements; facts §4.3",
		Evaluation: "InstallLanguage must be the profile's language (0409 is en-US), and so must be the first of PreferredUILanguages, or else of MachinePreferredUILanguages, of the DEFAULT hive where one is set.",
		Remedy: steps(
			"Set up a new machine from English (United States) media; other languages can be added once the image is made.",
			`If Windows was set up in English and only its display was changed: Settings > Time & Language > Language > Windows display language > English (United States); then Administrative language settings > Copy settings > tick "Welcome screen and system accounts" > OK, and restart.`),
		judge: judgeLanguage,
	},
	{
		Code: "InPlaceUpgrade", ReportAs: "InPlaceUpgrade", Level: Fail, DecidedIn: OnDisk,
		Title:      "Windows was not upgraded from another version",
		Source:     "document, Important (first page); facts §4.2",
		Evaluation: `No subkey of SYSTEM\Setup may have "Source OS" or "Upgrade" in its name.`,
		Remedy:     "Set up a new machine from the media of the version you want and export that one. Cumulative and security updates are welcome, version upgrades are not. Deleting the traces does not help: Sysprep or the image would fail later.",
		judge:      judgeUpgrade,
	},
	{
		Code: "OutdatedPowershellVersion", ReportAs: "OutdatedPowershellVersion", Level: Fail, DecidedIn: OnDisk,
		Title:      "Windows PowerShell is version 4 or later",
		Source:     "document, Requirements; facts §4.2",
		Evaluation: `PowerShellVersion of Microsoft\PowerShell\3\PowerShellEngine, or else of 1, must begin with a number no smaller than the profile asks for.`,
		Remedy: steps(
			"Install Windows Management Framework 5.1 from Microsoft's Download Center and restart. To see the version:",
			"  powershell Get-Host"),
		judge: judgePowerShell,
	},
	{
		Code: "ProtocolOSIncompatibility", ReportAs: "ProtocolOSIncompatibility", Level: Fail, DecidedIn: OnDisk,
		Title:      "WorkSpaces of this Windows can be shown with the protocol of the ingestion process",
		Source:     "facts §4.2 (service side), §14",
		Evaluation: "The protocol of the ingestion process (PCoIP, _WSP or _BYOP) must be one that the profile names for the release; for a release that it does not name, any but PCoIP for Windows 11.",
		Remedy:     "Ask for another ingestion process: one that ends in _WSP or _BYOP for Windows 11, which PCoIP does not show.\n  berth check --process BYOL_REGULAR_WSP <file>",
		judge:      judgeProtocol,
	},
}

func judgeOS(f *Facts, p Params) Verdict {
	if v, no := missing(f.ProductType, f.Build, f.EditionID); no {
		return v
	}
	on := []fact{f.Build, f.Release, f.Revision, f.EditionID, f.ProductType}
	if !strings.EqualFold(f.ProductType.Value, "WinNT") {
		return unmet("This is Windows Server (ProductType "+printable(f.ProductType.Value)+"); only desktop editions of Windows are taken.", on...)
	}
	is := fmt.Sprintf("This is %s", windowsName(f.Build.Value))
	found := p.Profile.releases(f.Build.Value)
	if len(found) == 0 {
		return unmet(fmt.Sprintf("%s; profile %s takes %s.", is, p.Profile.Name, releaseList(p.Profile.Releases)), on...)
	}
	// A release may be taken in its LTSC edition alone. Which of the ordinary editions it is, is EditionNotSupported's question.
	for _, r := range found {
		if slices.ContainsFunc(r.Editions, func(e string) bool { return isLTSC(e) == isLTSC(f.EditionID.Value) }) {
			return pass(fmt.Sprintf("%s, which profile %s takes.", is, p.Profile.Name), on...)
		}
	}
	return unmet(fmt.Sprintf("%s, edition %s; of this build profile %s takes only %s.", is, printable(f.EditionID.Value), p.Profile.Name, releaseList(found)), on...)
}

func isLTSC(edition string) bool { return strings.HasPrefix(edition, "EnterpriseS") }

// windowsName is "Windows 10 version 2004 (build 19041)".
func windowsName(build int) string {
	name := "Windows 10"
	switch {
	case build >= firstWindows11:
		name = "Windows 11"
	case build < firstWindows10:
		return fmt.Sprintf("a Windows older than Windows 10 (build %d)", build)
	}
	if version, ok := versionNames[build]; ok {
		return fmt.Sprintf("%s version %s (build %d)", name, version, build)
	}
	return fmt.Sprintf("%s build %d, which is no known release", name, build)
}

func releaseList(releases []Release) string {
	var b strings.Builder
	last := ""
	for i, r := range releases {
		if i > 0 {
			b.WriteString(", ")
		}
		if r.Windows != last {
			b.WriteString(r.Windows + " ")
			last = r.Windows
		}
		b.WriteString(r.Version)
	}
	return b.String()
}

func judgeEdition(f *Facts, p Params) Verdict {
	if v, no := missing(f.EditionID, f.Build); no {
		return v
	}
	edition := f.EditionID.Value
	found := p.Profile.releases(f.Build.Value)
	if len(found) == 0 { // an unsupported version; what its editions might have been is any release's
		found = p.Profile.Releases
	}
	var taken []string
	for _, r := range found {
		for _, e := range r.Editions {
			if e == edition {
				return pass("The edition is "+printable(edition)+".", f.EditionID, f.Build)
			}
			if !slices.Contains(taken, e) {
				taken = append(taken, e)
			}
		}
	}
	return unmet(fmt.Sprintf("The edition is %s; profile %s takes %s.", printable(edition), p.Profile.Name, strings.Join(taken, ", ")), f.EditionID, f.Build)
}

func judgeArchitecture(f *Facts, _ Params) Verdict {
	if v, no := missing(f.Architecture); no {
		return v
	}
	if !strings.EqualFold(f.Architecture.Value, "AMD64") {
		return unmet("Windows is made for "+printable(f.Architecture.Value)+"; it must be AMD64 (x64).", f.Architecture)
	}
	return pass("Windows is made for AMD64 (x64).", f.Architecture)
}

func judgeLanguage(f *Facts, p Params) Verdict {
	if v, no := missing(f.InstallLanguage, f.DisplayLanguages); no {
		return v
	}
	on := []fact{f.InstallLanguage, f.DisplayLanguages}
	id, err := strconv.ParseUint(f.InstallLanguage.Value, 16, 16)
	if err != nil {
		return unknown("This cannot be told: the install language "+printable(f.InstallLanguage.Value)+" is not a language number.", on...)
	}
	want := p.Profile.Language.Value
	if !strings.EqualFold(languageName(uint16(id)), want) {
		return unmet(fmt.Sprintf("Windows was set up in %s; the primary language must be %s.", languageName(uint16(id)), want), on...)
	}
	if len(f.DisplayLanguages.Value) > 0 && !strings.EqualFold(f.DisplayLanguages.Value[0], want) {
		return unmet(fmt.Sprintf("Windows was set up in %s but is shown in %s; the primary language must be %s.", want, printable(f.DisplayLanguages.Value[0]), want), on...)
	}
	return pass("Windows was set up in "+want+" and is shown in it.", on...)
}

// languages are the display languages that Windows 10 and 11 are sold in, by language number ([MS-LCID]).
var languages = map[uint16]string{
	0x0401: "ar-SA", 0x0402: "bg-BG", 0x0404: "zh-TW", 0x0405: "cs-CZ", 0x0406: "da-DK", 0x0407: "de-DE", 0x0408: "el-GR", 0x0409: "en-US",
	0x040b: "fi-FI", 0x040c: "fr-FR", 0x040d: "he-IL", 0x040e: "hu-HU", 0x0410: "it-IT", 0x0411: "ja-JP", 0x0412: "ko-KR", 0x0413: "nl-NL",
	0x0414: "nb-NO", 0x0415: "pl-PL", 0x0416: "pt-BR", 0x0418: "ro-RO", 0x0419: "ru-RU", 0x041a: "hr-HR", 0x041b: "sk-SK", 0x041d: "sv-SE",
	0x041e: "th-TH", 0x041f: "tr-TR", 0x0422: "uk-UA", 0x0424: "sl-SI", 0x0425: "et-EE", 0x0426: "lv-LV", 0x0427: "lt-LT", 0x0804: "zh-CN",
	0x0809: "en-GB", 0x080a: "es-MX", 0x0816: "pt-PT", 0x0c0a: "es-ES", 0x0c0c: "fr-CA", 0x241a: "sr-Latn-RS",
}

// languageName is "de-DE", or the number where it has no name here.
func languageName(id uint16) string {
	if name, ok := languages[id]; ok {
		return name
	}
	return fmt.Sprintf("language %04x", id)
}

func judgeUpgrade(f *Facts, _ Params) Verdict {
	if v, no := missing(f.UpgradeTraces); no {
		return v
	}
	if n := len(f.UpgradeTraces.Value); n > 0 {
		return unmet(`Windows was upgraded in place: Setup has kept its traces below SYSTEM\Setup.`, f.UpgradeTraces)
	}
	return pass("There is no trace of an upgrade in place.", f.UpgradeTraces)
}

func judgePowerShell(f *Facts, p Params) Verdict {
	if v, no := missing(f.PowerShellVersion); no {
		return v
	}
	version := f.PowerShellVersion.Value
	if version == "" {
		return unmet("No Windows PowerShell is registered.", f.PowerShellVersion)
	}
	first, _, _ := strings.Cut(version, ".")
	major, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return unknown("This cannot be told: "+printable(version)+" is not a version number.", f.PowerShellVersion)
	}
	if oldest := p.Profile.MinPowerShell.Value; major < uint64(oldest) {
		return unmet(fmt.Sprintf("Windows PowerShell is version %s; it must be %d or later.", printable(version), oldest), f.PowerShellVersion)
	}
	return pass("Windows PowerShell is version "+printable(version)+".", f.PowerShellVersion)
}

func judgeProtocol(f *Facts, p Params) Verdict {
	if v, no := missing(f.Build); no {
		return v
	}
	protocol := p.Process.Protocol()
	taken := []Protocol{PCoIP, WSP, BYOP}
	if found := p.Profile.releases(f.Build.Value); len(found) > 0 {
		taken = found[0].Protocols
	} else if f.Build.Value >= firstWindows11 {
		taken = []Protocol{WSP, BYOP}
	}
	if !slices.Contains(taken, protocol) {
		return unmet(fmt.Sprintf("%s cannot be shown with %s, which %s means.", windowsName(f.Build.Value), protocol, p.Process), f.Build)
	}
	return pass(fmt.Sprintf("%s can be shown with %s, which %s means.", windowsName(f.Build.Value), protocol, p.Process), f.Build)
}
