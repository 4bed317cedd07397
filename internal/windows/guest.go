package windows

import "time"

// Guest is what only a running Windows can be asked, beside its registry and files. A System that runs implements it; a
// powered-off disk does not. Every method may fail by itself: the error is why that one thing cannot be told.
type Guest interface {
	// Licensing asks the Software Protection Platform (WMI class SoftwareLicensingService and SoftwareLicensingProduct).
	Licensing() (Licensing, error)
	// AntiVirus lists the registered products (WMI root\SecurityCenter2, AntiVirusProduct).
	AntiVirus() ([]AntiVirusProduct, error)
	// Packages lists the AppX packages that are installed for users or provisioned for new ones.
	Packages() ([]Package, error)
	// DeviceGuard tells memory integrity as it runs (WMI root\Microsoft\Windows\DeviceGuard, Win32_DeviceGuard).
	DeviceGuard() (DeviceGuard, error)
	// PendingReboot lists what says that a restart is pending, among it volatile keys that no powered-off disk holds.
	PendingReboot() ([]string, error)
}

// Licensing is the state of Windows's own licence.
type Licensing struct {
	// RearmCount is how often Windows can still be rearmed (SoftwareLicensingService.RemainingWindowsReArmCount).
	RearmCount int
	// Status is SoftwareLicensingProduct.LicenseStatus of the Windows product with a key: 0 unlicensed, 1 licensed, 2 out-of-box
	// grace, 3 out-of-tolerance grace, 4 non-genuine grace, 5 notification, 6 extended grace.
	Status int
	// Channel is its ProductKeyChannel ("Volume:GVLK" is a KMS client, "Volume:MAK", "Retail", "OEM:DM"); empty where not told.
	Channel string
	// KMS is the key management service that it last used or is set to use, "host:port"; empty when none is set.
	KMS string
	// Expires is when the activation ends; zero when it does not.
	Expires time.Time
}

// AntiVirusProduct is a product registered with the Windows Security Center.
type AntiVirusProduct struct {
	Name       string // DisplayName
	Executable string // PathToSignedProductExe
}

// Package is an AppX package.
type Package struct {
	FullName    string   // "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c"
	Provisioned bool     // new users get it
	Users       []string // SIDs of the users that have it
}

// DeviceGuard says what virtualization-based security does and whether it is locked in UEFI variables, which no disk holds.
type DeviceGuard struct {
	MemoryIntegrity bool // hypervisor-enforced code integrity runs
	CredentialGuard bool // Credential Guard runs
	UEFILock        bool // either is locked in a UEFI variable
}
