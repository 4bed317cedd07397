package check

import (
	"time"

	"berth/internal/windows"
)

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
	// UserPrograms are those of users' own Uninstall lists, MappedDrives the network drives that come back when they sign in.
	UserPrograms Known[[]Program]
	MappedDrives Known[[]MappedDrive]
	// OfficeClickToRun holds the product ids of Office Click-to-Run ("O365ProPlusRetail"); empty when there is none.
	OfficeClickToRun Known[[]string]
	// GuestTools are the services of hypervisors' guest tools.
	GuestTools Known[[]string]
	// PCoIPService: the PCoIP agent's service is registered. PCoIPUninstaller is its uninstaller's path on C:; empty when there is none.
	PCoIPService     Known[bool]
	PCoIPUninstaller Known[string]
	// CheckerStatus is what Amazon's BYOL Checker wrote when it ended, "success" or "fail"; empty when it was not run.
	CheckerStatus Known[string]

	// AntiVirus are the anti-virus programs registered with the Windows Security Center.
	AntiVirus Known[[]AntiVirus]
	// CodeIntegrity is whether memory integrity is to be enabled (1), CodeIntegrityPolicy a group policy's word: 0 off, 1 with a lock in
	// the firmware, 2 without. CredentialGuard and CredentialGuardPolicy (LsaCfgFlags) count alike; CredentialGuardScenario is 1 when enabled.
	CodeIntegrity, CodeIntegrityPolicy                              Known[uint32]
	CredentialGuard, CredentialGuardPolicy, CredentialGuardScenario Known[uint32]
	// FirmwareLock are the settings that ask for a lock of either in the firmware's variables.
	FirmwareLock Known[[]string]
	// DeviceGuard is what runs of it, and whether it is locked; only a running Windows can tell.
	DeviceGuard Known[windows.DeviceGuard]

	// Domain is the domain that the machine is a member of; empty in a workgroup.
	Domain Known[string]
	// CloudDomains are the machine's memberships in Microsoft Entra ID (Azure AD), by the thumbprint of their certificate.
	CloudDomains Known[[]string]

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
	// AutoLogonSecret: the security authority keeps a secret of that name, which tools for automatic sign-in use instead.
	AutoLogonSecret Known[bool]
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

	// WindowsUpdateStart and ModulesInstallerStart are the start types of the services wuauserv and TrustedInstaller: 2 automatic,
	// 3 on demand, 4 disabled.
	WindowsUpdateStart, ModulesInstallerStart Known[uint32]
	// PendingRestart is what waits for a restart, in words. PendingRenames: files are to be moved or deleted at the next start.
	PendingRestart Known[[]string]
	PendingRenames Known[bool]
	// LastUpdate is the cumulative update installed last; ShutDown is when Windows was shut down the last time.
	LastUpdate Known[Update]
	ShutDown   Known[time.Time]
	// ReserveShipped: Windows was set up to keep storage in reserve (1). ReserveScenario is what it uses it for; 0: nothing.
	ReserveShipped, ReserveScenario Known[uint32]

	// KeyChannel is the channel of the installed product key: "Volume:GVLK" is that of KMS clients; empty when there is no key.
	KeyChannel Known[string]
	// KMSHost is the key management server that is set; empty when DNS is to tell.
	KMSHost Known[string]
	// SkipRearm: Sysprep is not to rearm Windows (1).
	SkipRearm Known[uint32]
	// RearmCount is how often Windows can still be rearmed, Licence the state of its licence; only a running Windows can tell.
	RearmCount Known[int]
	Licence    Known[windows.Licensing]

	// ImageState is what Windows Setup thinks of the installation, "IMAGE_STATE_COMPLETE" when it is set up.
	ImageState Known[string]
	// GeneralizationState is 7 when Sysprep may be run.
	GeneralizationState Known[uint32]
	// SysprepMissing are files of Sysprep that are not there.
	SysprepMissing Known[[]string]
	// SysprepErrors are the last lines of its log that tell of a failure.
	SysprepErrors Known[[]string]
	// DefaultProfile are files in C:/Users/Default that Windows does not put there, DefaultSettings what its NTUSER.DAT has that Windows does
	// not, in words.
	DefaultProfile, DefaultSettings Known[[]string]
	// Packages are the AppX packages that users have or new ones get; InboxPackages the full names of Windows's own.
	Packages      Known[[]windows.Package]
	InboxPackages Known[[]string]

	// DefaultControlSet is the control set of the next start.
	DefaultControlSet Known[uint32]
	// BootEntries are the names of the Windows loaders that the boot manager offers.
	BootEntries Known[[]string]
	// TPM: Windows has found a TPM 2.0.
	TPM Known[bool]
	// Hibernated: the hibernation file holds Windows's memory. HibernateEnabled and FastStartup are what the next shutdown goes by.
	Hibernated, HibernateEnabled, FastStartup Known[bool]

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
	// Drives are what has or gets a drive letter beside the disks.
	Drives Known[[]windows.Drive]
	// LetterD is what the letter D: was given to, in words; empty when to nothing.
	LetterD Known[string]
	// BitLocker is BitLocker's state at the last start; 0 is off.
	BitLocker Known[uint32]
	// Reclaimable are files on C: whose space an administrator can win back.
	Reclaimable Known[[]File]
}

// Program is an entry of an Uninstall list.
type Program struct {
	Key  string   // the key's name: a product code or a word
	Name string   // DisplayName; empty where the entry has none
	User string   // whose own it is, by the name of the profile's folder; empty: all users'
	From Evidence // where the name was read, or that there is none
}

// MappedDrive is a network drive that a user has.
type MappedDrive struct {
	User   string // by the name of the profile's folder
	Letter string // "Z:"
	Share  string // \\server\share; may be empty
	From   Evidence
}

// AntiVirus is a registered anti-virus program.
type AntiVirus struct {
	Name, Executable string
	// Microsoft: it is Microsoft Defender.
	Microsoft bool
	// Gone: its program is no longer there.
	Gone bool
	From []Evidence
}

// Update is a cumulative update of Windows; the zero value is none.
type Update struct {
	Package   string // "Package_for_RollupFix~31bf3856ad364e35~amd64~~19041.508.1.13"
	Installed time.Time
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
