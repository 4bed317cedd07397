package check

import (
	"slices"

	"berth/internal/windows"
)

// DefaultProfile is the document as it stands.
const DefaultProfile = "seed-2020"

// Profile is one dated set of requirements: Amazon's ([Profiles]), or a user's own that differs from one of them ([LoadProfile]).
// Amazon's "GB" is GiB throughout: its checker divides by 1024³.
type Profile struct {
	Name  string
	Title string
	// Base is the profile of Amazon's that a user's own began as; empty for Amazon's.
	Base string
	// Source says where the requirements come from as a whole.
	Source string
	// Releases are the Windows releases that are taken, oldest first.
	Releases []Release
	// Language is the primary language, "en-US".
	Language Requirement[string]
	// MaxVolumeGiB bounds the volume that holds Windows; MaxDiskGiB the virtual disk around it.
	MaxVolumeGiB, MaxDiskGiB Requirement[int]
	// MinFreeGiB must be free on C:, MinFreeOfficeGiB when Office is subscribed to.
	MinFreeGiB, MinFreeOfficeGiB Requirement[int]
	// MinPowerShell is the oldest major version of Windows PowerShell that is taken.
	MinPowerShell Requirement[int]
	// AllowMicrosoft365: the Microsoft 365 apps may be installed; stand-alone Office may not.
	AllowMicrosoft365 Requirement[bool]
	// MinWorkSpaces is how many WorkSpaces per Region Amazon wants a customer to run, MinGraphicsAlwaysOn or MinGraphicsAutoStop how
	// many with graphics processors. No disk tells that: it is told, not checked.
	MinWorkSpaces, MinGraphicsAlwaysOn, MinGraphicsAutoStop Requirement[int]
	// AllowedPrograms begin the display names of programs that may be installed although they do not come with Windows, without
	// regard to case. Amazon's profiles name none.
	AllowedPrograms Requirement[[]string]
	// LeaveOut names checks that are not made. Amazon's profiles name none.
	LeaveOut Requirement[[]string]
}

// Requirement is something that a profile asks for, and where that is written down.
type Requirement[T any] struct {
	Value  T
	Source string
}

// Release is a Windows release that a profile takes.
type Release struct {
	Windows  string // "Windows 10"
	Version  string // "2004"
	Build    int
	Editions []string // EditionID values; "EnterpriseS" is Enterprise LTSC
	// Scheme is the partition table, Firmware ("bios" or "uefi") the firmware that the release must come with.
	Scheme   windows.Scheme
	Firmware string
	// TPM: the release runs only on machines with a Trusted Platform Module.
	TPM bool
	// Protocols are those that WorkSpaces of the release can be shown with.
	Protocols []Protocol
	Source    string
}

// ProfileNames lists Amazon's profiles, the default one first.
func ProfileNames() []string {
	var names []string
	for _, p := range profiles() {
		names = append(names, p.Name)
	}
	return names
}

// Profiles returns Amazon's profiles, the default one first.
func Profiles() []Profile {
	list := slices.Clone(profiles())
	for i := range list {
		list[i] = list[i].clone()
	}
	return list
}

// ProfileByName finds one of Amazon's profiles; "" is the default one.
func ProfileByName(name string) (Profile, bool) {
	if name == "" {
		name = DefaultProfile
	}
	for _, p := range profiles() {
		if p.Name == name {
			return p.clone(), true
		}
	}
	return Profile{}, false
}

// clone is a copy that shares nothing with p.
func (p Profile) clone() Profile {
	p.Releases = slices.Clone(p.Releases)
	for i := range p.Releases {
		p.Releases[i].Editions = slices.Clone(p.Releases[i].Editions)
		p.Releases[i].Protocols = slices.Clone(p.Releases[i].Protocols)
	}
	p.AllowedPrograms.Value = slices.Clone(p.AllowedPrograms.Value)
	p.LeaveOut.Value = slices.Clone(p.LeaveOut.Value)
	return p
}

// is reports whether the profile is the one of that name or began as it.
func (p Profile) is(name string) bool { return p.Name == name || p.Base == name }

// releases returns the profile's releases with a build number.
func (p Profile) releases(build int) []Release {
	var found []Release
	for _, r := range p.Releases {
		if r.Build == build {
			found = append(found, r)
		}
	}
	return found
}

// versionNames are the names of Windows builds (facts §4.5). ReleaseId stands at 2009 from 20H2 on and on older builds one can
// trust neither it nor DisplayVersion alone, so that the build decides.
var versionNames = map[int]string{
	10586: "1511", 14393: "1607", 15063: "1703", 16299: "1709", 17134: "1803", 17763: "1809", 18362: "1903", 18363: "1909",
	19041: "2004", 19042: "20H2", 19043: "21H1", 19044: "21H2", 19045: "22H2",
	22000: "21H2", 22621: "22H2", 22631: "23H2", 26100: "24H2", 26200: "25H2",
}

// firstWindows10 is the build of its first release, version 1507.
const firstWindows10 = 10240

// firstWindows11 is the first build of Windows 11, whose ProductName still says "Windows 10" (facts §4.2, OSNotSupported).
const firstWindows11 = 22000
