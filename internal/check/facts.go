package check

import "berth/internal/windows"

// Facts is all that the checks know of a machine. Every field is a [Known]; nothing here judges. A test blanks every field
// in turn and shows that no verdict becomes better for it.
type Facts struct {
	// Running: the facts come from a running Windows, which is to be asked no second time.
	Running Known[bool]

	// HostName is the computer's name.
	HostName Known[string]
	// ControlSet is the number n of ControlSet00n that Windows runs with.
	ControlSet Known[uint32]
	// ProductType is "WinNT" on a workstation, "ServerNT" or "LanmanNT" on a server.
	ProductType Known[string]
	// Build is the Windows build number, 19041 for version 2004.
	Build Known[int]
	// Release is the version's name as Windows shows it: DisplayVersion ("22H2"), before it ReleaseId ("1909").
	Release Known[string]
	// Revision is the update level, the part behind the build number (19041.508).
	Revision Known[uint32]
	// EditionID is "Enterprise", "Professional", "EnterpriseS" (LTSC) ...
	EditionID Known[string]
	// Architecture is the processor's as Windows spells it: "AMD64", "x86", "ARM64".
	Architecture Known[string]
	// InstallLanguage is the language that Windows was set up in, as four hex digits: "0409" is English (United States).
	InstallLanguage Known[string]
	// DisplayLanguages are the languages set for the machine's own display, best first, as names ("en-US"); empty when none
	// is set and Windows shows its install language.
	DisplayLanguages Known[[]string]
	// UpgradeTraces are the keys that a version upgrade in place leaves below SYSTEM\Setup.
	UpgradeTraces Known[[]string]
	// PowerShellVersion is the newest installed Windows PowerShell, "5.1.19041.1"; empty when none is registered.
	PowerShellVersion Known[string]

	// Programs and Programs32 are what the native and the 32-bit Uninstall list hold.
	Programs   Known[[]Program]
	Programs32 Known[[]Program]
	// OfficeClickToRun holds the product ids of Office Click-to-Run ("O365ProPlusRetail"); empty when there is none.
	OfficeClickToRun Known[[]string]
	// GuestTools are the services of hypervisors' guest tools.
	GuestTools Known[[]string]

	// BYOLAccount is the RID of the local account WorkSpaces_BYOL; 0 when there is no such account.
	BYOLAccount Known[uint32]
	// BYOLAccountFlags are the account's control flags (ACB_*), bit 0x0001 is "disabled"; 0 when there is no such account.
	BYOLAccountFlags Known[uint16]
	// BYOLAccountAdministrator: the account is a direct member of the local group Administrators.
	BYOLAccountAdministrator Known[bool]

	// AutoLogon is AutoAdminLogon: somebody is signed in at start without being asked.
	AutoLogon Known[bool]
	// AutoLogonPassword: a DefaultPassword lies in the registry. What it is was not kept.
	AutoLogonPassword Known[bool]
	// AutoMountOff is the mount manager's NoAutoMount.
	AutoMountOff Known[bool]
	// RealTimeIsUniversal: Windows takes the hardware clock for UTC.
	RealTimeIsUniversal Known[bool]
	// FirewallPublic is the local setting of the firewall's public profile, FirewallPublicPolicy a group policy's.
	FirewallPublic       Known[bool]
	FirewallPublicPolicy Known[bool]
	// Adapters are the network interfaces that TCP/IP knows.
	Adapters Known[[]Adapter]
	// DHCPClientStart is the start type of the DHCP Client service: 2 automatic, 3 manual, 4 disabled.
	DHCPClientStart Known[uint32]

	// Firmware is "bios" or "uefi".
	Firmware Known[string]
	// Installations counts the Windows installations on all disks.
	Installations Known[int]
	// Disks are the machine's disks with their partitions.
	Disks Known[[]windows.Disk]
	// SystemDisk is the virtual size, in bytes, of the disk that holds Windows.
	SystemDisk Known[int64]
	// SystemVolume is the volume that holds Windows (C:).
	SystemVolume Known[windows.Volume]
	// Reclaimable are files on C: whose space an administrator can win back.
	Reclaimable Known[[]File]
}

// Program is an entry of an Uninstall list.
type Program struct {
	Key  string   // the key's name: a product code or a word
	Name string   // DisplayName; empty where the entry has none
	From Evidence // where the name was read, or that there is none
}

// Adapter is a network interface as TCP/IP has it configured.
type Adapter struct {
	ID   string // the interface's GUID with braces
	Name string // the connection's name or the driver's, as people see it; may be empty
	// Installed: a network device with this interface is registered. Otherwise it is left over from a removed one.
	Installed bool
	DHCP      bool
	Addresses []string   // fixed IPv4 addresses
	From      []Evidence // where it was read
}

// File is a file's name and size in bytes.
type File struct {
	Name  string
	Bytes int64
}
