package check

import (
	"slices"

	"berth/internal/windows"
)

// DefaultProfile is the document as it stands.
const DefaultProfile = "seed-2020"

// Profile is one dated set of Amazon's requirements. Amazon's "GB" is GiB throughout: its checker divides by 1024³.
type Profile struct {
	Name  string
	Title string
	// Releases are the Windows releases that are taken, oldest first.
	Releases []Release
	// MaxVolumeGiB bounds the volume that holds Windows; MaxDiskGiB the virtual disk around it.
	MaxVolumeGiB, MaxDiskGiB int
	// MinFreeGiB must be free on C:, MinFreeOfficeGiB when Office is subscribed to.
	MinFreeGiB, MinFreeOfficeGiB int
	// AllowMicrosoft365: the Microsoft 365 apps may be installed; stand-alone Office may not.
	AllowMicrosoft365 bool
	// Source says where the numbers are written down.
	Source string
}

// Release is a Windows release that a profile takes.
type Release struct {
	Windows  string // "Windows 10"
	Version  string // "2004"
	Build    int
	Editions []string // EditionID values
	// Scheme is the partition table that the release must come with.
	Scheme windows.Scheme
}

// Editions, as EditionID spells them. "EnterpriseS" is Enterprise LTSC. The document names Enterprise and Pro and nothing else,
// so that N, Education, Home, evaluation, IoT and Pro for Workstations are refused.
var (
	enterpriseOrPro = []string{"Enterprise", "EnterpriseS", "Professional"}
	enterprise      = []string{"Enterprise"}
	ltsc            = []string{"EnterpriseS"}
)

// ProfileNames lists the profiles, the default one first.
func ProfileNames() []string {
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.Name
	}
	return names
}

// ProfileByName finds a profile; "" is the default one.
func ProfileByName(name string) (Profile, bool) {
	if name == "" {
		name = DefaultProfile
	}
	i := slices.IndexFunc(profiles, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, false
	}
	return profiles[i], true
}

var profiles = []Profile{
	{
		Name:  "seed-2020",
		Title: "Administration guide of September 2020",
		// Document, "Windows Versions That Are Supported for BYOL". GPT is refused as by the checker of that time (v2.1.1,
		// facts §4.2 IncompatiblePartitioning).
		Releases: []Release{
			{"Windows 10", "1803", 17134, enterpriseOrPro, windows.MBR},
			{"Windows 10", "1809", 17763, enterpriseOrPro, windows.MBR},
			{"Windows 10", "1903", 18362, enterpriseOrPro, windows.MBR},
			{"Windows 10", "1909", 18363, enterpriseOrPro, windows.MBR},
			{"Windows 10", "2004", 19041, enterpriseOrPro, windows.MBR},
		},
		MaxVolumeGiB:     70, // document, Requirements: one volume of 70 GB at most; checker v2.1.1 measures C:
		MaxDiskGiB:       80, // checker v2.0.6 measures disk 0 (facts §4.2, DiskSizeExceeded)
		MinFreeGiB:       10, // document, Requirements
		MinFreeOfficeGiB: 20, // document, Requirements and "Adding Microsoft Office"
		Source:           `the document, "Requirements" and "Windows Versions That Are Supported for BYOL"; facts §2, §4.2`,
	},
	{
		Name:  "2022",
		Title: "Administration guide of September 2022",
		// Facts §2, evolution of the numbers.
		Releases: []Release{
			{"Windows 10", "2004", 19041, enterpriseOrPro, windows.MBR},
			{"Windows 10", "20H2", 19042, enterpriseOrPro, windows.MBR},
			{"Windows 10", "21H1", 19043, enterpriseOrPro, windows.MBR},
			{"Windows 10", "21H2", 19044, enterpriseOrPro, windows.MBR},
		},
		MaxVolumeGiB:     70, // facts §2: 70 GB in the guides up to 2022
		MaxDiskGiB:       80, // facts §4.2
		MinFreeGiB:       10, // facts §4.2, DiskFreeSpace
		MinFreeOfficeGiB: 20,
		Source:           "facts §2 (evolution of the numbers) and §4.2",
	},
	{
		Name:  "2026",
		Title: "Administration guide of 2025 and 2026",
		// Facts §2 and §14. Windows 10 comes with MBR, Windows 11 with GPT.
		Releases: []Release{
			{"Windows 10", "LTSC 2019 (1809)", 17763, ltsc, windows.MBR},
			{"Windows 10", "LTSC 2021 (21H2)", 19044, ltsc, windows.MBR},
			{"Windows 10", "22H2", 19045, []string{"Enterprise", "Professional"}, windows.MBR},
			{"Windows 11", "22H2", 22621, enterprise, windows.GPT},
			{"Windows 11", "23H2", 22631, enterprise, windows.GPT},
			{"Windows 11", "24H2", 26100, enterprise, windows.GPT},
			{"Windows 11", "LTSC 2024 (24H2)", 26100, ltsc, windows.GPT},
			{"Windows 11", "25H2", 26200, enterprise, windows.GPT},
		},
		MaxVolumeGiB:      80, // facts §14
		MaxDiskGiB:        80, // facts §4.2, §14
		MinFreeGiB:        20, // facts §14: 20 GB whether Office is asked for or not
		MinFreeOfficeGiB:  20,
		AllowMicrosoft365: true, // facts §4.2, OfficeInstalled
		Source:            "facts §2, §4.2 and §14",
	},
}

// versionNames are the names of Windows builds (facts §4.5). ReleaseId stands at 2009 from 20H2 on and on older builds one can
// trust neither it nor DisplayVersion alone, so that the build decides.
var versionNames = map[int]string{
	10586: "1511", 14393: "1607", 15063: "1703", 16299: "1709", 17134: "1803", 17763: "1809", 18362: "1903", 18363: "1909",
	19041: "2004", 19042: "20H2", 19043: "21H1", 19044: "21H2", 19045: "22H2",
	22000: "21H2", 22621: "22H2", 22631: "23H2", 26100: "24H2", 26200: "25H2",
}

// firstWindows11 is the first build of Windows 11, whose ProductName still says "Windows 10" (facts §4.2, OSNotSupported).
const firstWindows11 = 22000

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
