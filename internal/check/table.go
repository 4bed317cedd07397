package check

import "strings"

// table holds the checks in the order of the report: what Windows this is, what is on it, its account, its settings, its disk.
// Levels are those of Amazon's checker (facts §4.2, "F" and "W"); for our own codes Fail, the document knows no milder word.
//
// Office needs a word. The document forbids it twice: as any other software beyond Windows, and once more beside an Office
// subscription. Amazon's checker warns of it without counting the warning; its ingestion refuses it only beside a
// subscription, and names it then. So here: with a subscription FAIL; without one WARN, because the document asks for
// nothing beyond Windows and a warning that does not count would be a defect; at ingestion without one NOT_APPLICABLE, as
// Amazon does. It makes "fit" mean that the machine meets the document, and ingestion mean what Amazon's means.
var table = []Check{
	{
		Code: "OSNotSupported", ReportAs: "OSNotSupported", Level: Fail, DecidedIn: OnDisk,
		Title:  "The Windows version is one that the profile takes",
		Source: `document, "Windows Versions That Are Supported for BYOL"; facts §4.2, §4.5`,
		Remedy: steps(
			"Set up a new machine from the installation media of a version that is taken (Microsoft's volume licensing site has them) and export that one. Do not upgrade this one in place: an upgraded Windows is refused as well.",
			"To see which version it is:",
			"  winver"),
		judge: judgeOS,
	},
	{
		Code: "EditionNotSupported", ReportAs: "OSNotSupported", Level: Fail, DecidedIn: OnDisk,
		Title:  "The edition is Windows Enterprise or Pro",
		Source: "document, first paragraph and Requirements; facts §4.3",
		Remedy: steps(
			"Set up a new machine from Enterprise or Pro media. From Home, Education or Pro for Workstations the edition can also be changed with a volume key: Settings > Update & Security > Activation > Change product key, or:",
			"  changepk.exe /ProductKey <key>",
			"An N or an evaluation edition has to be set up anew."),
		judge: judgeEdition,
	},
	{
		Code: "Requires64BitOS", ReportAs: "Requires64BitOS", Level: Fail, DecidedIn: OnDisk,
		Title:  "Windows is 64-bit, for x64 processors",
		Source: "document, Requirements; facts §4.2",
		Remedy: "Set up a new machine from 64-bit (x64) media. A 32-bit or an ARM64 Windows cannot be turned into one.",
		judge:  judgeArchitecture,
	},
	{
		Code: "LanguageNotSupported", ReportAs: "OSNotSupported", Level: Fail, DecidedIn: OnDisk,
		Title:  "The primary language is English (United States)",
		Source: "document, Requirements; facts §4.3",
		Remedy: steps(
			"Set up a new machine from English (United States) media; other languages can be added once the image is made.",
			`If Windows was set up in English and only its display was changed: Settings > Time & Language > Language > Windows display language > English (United States); then Administrative language settings > Copy settings > tick "Welcome screen and system accounts" > OK, and restart.`),
		judge: judgeLanguage,
	},
	{
		Code: "InPlaceUpgrade", ReportAs: "InPlaceUpgrade", Level: Fail, DecidedIn: OnDisk,
		Title:  "Windows was not upgraded from another version",
		Source: "document, Important (first page); facts §4.2",
		Remedy: "Set up a new machine from the media of the version you want and export that one. Cumulative and security updates are welcome, version upgrades are not. Deleting the traces does not help: Sysprep or the image would fail later.",
		judge:  judgeUpgrade,
	},
	{
		Code: "OutdatedPowershellVersion", ReportAs: "OutdatedPowershellVersion", Level: Fail, DecidedIn: OnDisk,
		Title:  "Windows PowerShell is version 4 or later",
		Source: "document, Requirements; facts §4.2",
		Remedy: steps(
			"Install Windows Management Framework 5.1 from Microsoft's Download Center and restart. To see the version:",
			"  powershell -Command $PSVersionTable.PSVersion"),
		judge: judgePowerShell,
	},
	{
		Code: "OfficeInstalled", ReportAs: "OfficeInstalled", Level: Fail, DecidedIn: OnDisk,
		Title:  "Microsoft Office is not installed",
		Source: `document, Requirements and "Adding Microsoft Office to Your BYOL Image"; facts §4.2`,
		Remedy: "Uninstall it: Settings > Apps > Apps & features > Microsoft Office > Uninstall, then restart. Office can be added later, through the service or in a custom image.",
		judge:  judgeOffice,
	},
	{
		Code: "VMWareToolsInstalled", ReportAs: "VMWareToolsInstalled", Level: Fail, DecidedIn: OnDisk,
		Title:  "No hypervisor's guest tools are installed",
		Source: "document, Requirements (nothing beyond Windows); facts §4.2",
		Remedy: "Uninstall them as the last thing before the export, because screen and mouse get worse without them: Settings > Apps > Apps & features > VMware Tools (Guest Additions, guest agent ...) > Uninstall. Restart, then shut down.",
		judge:  judgeGuestTools,
	},
	{
		Code: "WorkspacesBYOLAccountNotFound", ReportAs: "WorkspacesBYOLAccountNotFound", Level: Warn, DecidedIn: OnDisk,
		Title:  "The local account WorkSpaces_BYOL exists",
		Source: "document, Requirements; facts §4.2",
		Remedy: steps(
			"Make the account (the first command asks for a password: note it down) and make it an administrator:",
			"  net user WorkSpaces_BYOL * /add",
			"  net localgroup Administrators WorkSpaces_BYOL /add"),
		judge: judgeAccount,
	},
	{
		Code: "WorkspacesBYOLAccountNotAdministrator", ReportAs: "WorkspacesBYOLAccountNotFound", Level: Fail, DecidedIn: OnDisk,
		Title:  "The account WorkSpaces_BYOL is a local administrator",
		Source: "document, Requirements; facts §4.3",
		Remedy: steps(
			"Make it an administrator:",
			"  net localgroup Administrators WorkSpaces_BYOL /add"),
		judge: judgeAdministrator,
	},
	{
		Code: "WorkspacesBYOLAccountDisabled", ReportAs: "WorkspacesBYOLAccountDisabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:  "The account WorkSpaces_BYOL is enabled",
		Source: "document, Requirements; facts §4.2",
		Remedy: steps(
			"Enable it:",
			"  net user WorkSpaces_BYOL /active:yes"),
		judge: judgeAccountEnabled,
	},
	{
		Code: "AutoLogonEnabled", ReportAs: "AutoLogonEnabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:  "Nobody is signed in automatically at start",
		Source: "facts §4.2",
		Remedy: steps(
			`Windows+R > netplwiz > tick "Users must enter a user name and password to use this computer" > OK. Or:`,
			`  reg add "HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon" /v AutoAdminLogon /t REG_SZ /d 0 /f`,
			"Where a password was left behind:",
			`  reg delete "HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon" /v DefaultPassword /f`),
		judge: judgeAutoLogon,
	},
	{
		Code: "AutoMountDisabled", ReportAs: "AutoMountDisabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:  "Windows mounts new volumes by itself",
		Source: "facts §4.2",
		Remedy: steps(
			"Switch automatic mounting on:",
			"  mountvol /E"),
		judge: judgeAutoMount,
	},
	{
		Code: "RealTimeUniversalDisabled", ReportAs: "RealTimeUniversalDisabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:  "Windows takes the hardware clock for UTC",
		Source: "facts §4.2",
		Remedy: steps(
			"Tell Windows that the hardware clock runs on UTC:",
			`  reg add HKLM\SYSTEM\CurrentControlSet\Control\TimeZoneInformation /v RealTimeIsUniversal /t REG_DWORD /d 1 /f`),
		judge: judgeClock,
	},
	{
		Code: "FirewallEnabled", ReportAs: "FirewallEnabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:  "Windows Firewall is off for public networks",
		Source: "facts §4.2",
		Remedy: steps(
			"Switch it off for the public profile:",
			"  netsh advfirewall set publicprofile state off",
			"Where a group policy switches it on: gpedit.msc > Computer Configuration > Windows Settings > Security Settings > Windows Defender Firewall with Advanced Security > Properties > Public Profile > Firewall state: Not configured. Switch it on again in the WorkSpaces, by group policy."),
		judge: judgeFirewall,
	},
	{
		Code: "DHCPDisabled", ReportAs: "DHCPDisabled", Level: Fail, DecidedIn: OnDisk, Fixable: true,
		Title:  "Every network adapter gets its address by DHCP",
		Source: "facts §4.2",
		Remedy: steps(
			"For each adapter named above:",
			`  netsh interface ipv4 set address name="<adapter>" source=dhcp`,
			`  netsh interface ipv4 set dnsservers name="<adapter>" source=dhcp`,
			"Where the DHCP Client service is disabled:",
			"  sc config Dhcp start= auto",
			"An adapter that is no longer there: devmgmt.msc > View > Show hidden devices > Network adapters > right-click it > Uninstall device."),
		judge: judgeDHCP,
	},
	{
		Code: "IncompatiblePartitioning", ReportAs: "IncompatiblePartitioning", Level: Fail, DecidedIn: OnDisk,
		Title:  "The disk is partitioned as the Windows version asks, with one volume",
		Source: "document, Requirements (a single volume); facts §4.2, §14",
		Remedy: steps(
			"Move what is on other volumes to C: and delete them: diskmgmt.msc > right-click the volume > Delete Volume.",
			"The kind of partition table goes with the virtual machine's firmware: set up Windows 10 in a machine with legacy BIOS (Hyper-V: generation 1), which gives MBR, and Windows 11 in one with UEFI, which gives GPT."),
		judge: judgePartitioning,
	},
	{
		Code: "MultipleBootPartition", ReportAs: "MultipleBootPartition", Level: Fail, DecidedIn: OnDisk,
		Title:  "There is one partition to boot from and one Windows",
		Source: "facts §4.2",
		Remedy: steps(
			"Keep one Windows and one partition to boot from. See which are marked (diskmgmt.msc shows the one in use as System):",
			"  diskpart",
			"  list disk",
			"  select disk 0",
			"  list partition",
			"MBR, for each other one that is marked active:",
			"  select partition <n>",
			"  inactive",
			"GPT, for a second EFI system partition:",
			"  select partition <n>",
			"  delete partition override",
			"A second Windows: msconfig > Boot > select it > Delete, then delete its volume."),
		judge: judgeBoot,
	},
	{
		Code: "DiskSizeExceeded", ReportAs: "DiskSizeExceeded", Level: Fail, DecidedIn: OnDisk,
		Title:  "Disk and volume are no larger than the profile allows",
		Source: "document, Requirements and Step 3; facts §4.2",
		Remedy: steps(
			"Shrink C: (diskmgmt.msc > right-click C: > Shrink Volume). A recovery partition behind it is in the way; switch it off and delete it:",
			"  reagentc /disable",
			"Shut down and make the virtual disk smaller with your hypervisor's tools. Where they cannot, copy the partitions to a new, smaller disk."),
		judge: judgeDiskSize,
	},
	{
		Code: "DiskFreeSpace", ReportAs: "DiskFreeSpace", Level: Fail, DecidedIn: OnDisk,
		Title:  "Enough space is free on C:",
		Source: `document, Requirements, Step 3 and "Adding Microsoft Office"; facts §4.1 defects 1 and 2, §4.2`,
		Remedy: steps(
			"Windows+R > cleanmgr > Clean up system files > tick Windows Update clean-up, previous installations and temporary files > OK. Then:",
			"  powercfg /h off",
			"  Dism /Online /Cleanup-Image /StartComponentCleanup",
			"The first gives back hiberfil.sys. If that is not enough, make disk and C: larger, within the profile's limit."),
		judge: judgeFreeSpace,
	},
}

// steps joins the lines of a remedy.
func steps(lines ...string) string { return strings.Join(lines, "\n") }
