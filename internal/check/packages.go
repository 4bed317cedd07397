package check

import (
	"fmt"
	"slices"
	"strings"

	"berth/internal/windows"
)

// packageChecks is the check on AppX packages, the most common reason for which Sysprep fails.
//
// Sysprep stops at a package that a user has and that new users would not get: it was installed by that user, or brought up to
// date by the Store beyond the version that is provisioned (Microsoft, "Sysprep fails after you remove or update Microsoft Store
// apps"). Frameworks, resource packages and Windows's own are no matter.
var packageChecks = []Check{
	{
		Code: "AppXPackagesInstalled", ReportAs: "AppXPackagesInstalled", Level: Fail, DecidedIn: OnDisk,
		Title:      "No AppX package is installed that Sysprep would stop at",
		Source:     "document, Step 2 (the most common reason that Sysprep fails); facts §4.2 (service side)",
		Evaluation: "Of every AppX package that a person has, new users must get the same: it must be provisioned, and in the same version where the two can be compared. Frameworks, resource packages and Windows's own do not count, unless the log of an earlier Sysprep says that it stopped at them. AppxAllUserStore is read, on a disk and of a running Windows.",
		Fix:        "The packages are removed for all users",
		Remedy: steps(
			"For each package named above, in Windows PowerShell as an administrator; its name is what goes before the first underscore. Bundles come first, and take what is in them along:",
			"  Get-AppxPackage -AllUsers -PackageTypeFilter Bundle -Name <name> | Remove-AppxPackage -AllUsers",
			"  Get-AppxPackage -AllUsers -Name <name> | Remove-AppxPackage -AllUsers",
			"Keep the Store from bringing it back while the image is made:",
			`  reg add HKLM\SOFTWARE\Policies\Microsoft\WindowsStore /v AutoDownload /t REG_DWORD /d 2 /f`),
		judge: judgePackages,
		fix:   fixPackages,
	},
}

const (
	packageStore = `Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore`
	// maxPackages bounds the packages of one user, maxPackageUsers the users. Windows itself comes with some hundred.
	maxPackages, maxPackageUsers = 5_000, 100
	// maxUsersShown bounds the users whose lists are named as evidence.
	maxUsersShown = 8
	// maxPackageText bounds the names that are kept, in bytes.
	maxPackageText = 8 << 20
)

// packages reads which packages users have, which are provisioned, and which are Windows's own.
func (r *reader) packages(f *Facts) {
	_, f.InboxPackages = r.list(windows.Software, packageStore+`\InboxApplications`, maxPackages)
	if !r.running {
		f.Packages = r.storedPackages()
		return
	}
	at := asked("AppxAllUserStore", "packages that users have or new ones get")
	list, err := ask(r, "AppX packages", windows.Guest.Packages)
	switch {
	case err != nil:
		f.Packages = unread[[]windows.Package](at, why(err))
	case len(list) > maxPackages:
		f.Packages = unread[[]windows.Package](at, fmt.Sprintf("%d packages, more than the %d that are read", len(list), maxPackages))
	default:
		f.Packages = read(list, at.plus(fmt.Sprintf(": %d", len(list))))
	}
}

// storedPackages reads the list that the deployment service keeps for all users: Applications holds what is provisioned, a key
// named by a user's SID what that user has.
func (r *reader) storedPackages() Known[[]windows.Package] {
	at := r.at(windows.Software, packageStore)
	store, keys, err := r.subkeys(windows.Software, packageStore, maxPackageUsers)
	if err != nil {
		return unread[[]windows.Package](at, why(err))
	}
	at = at.of(store)
	byName := map[string]*windows.Package{}
	var order []*windows.Package
	kept := 0
	var users []Evidence // of the people's keys
	for _, key := range keys {
		provisioned := strings.EqualFold(key, "Applications")
		if !provisioned && !isPerson(key) {
			continue
		}
		_, list := r.list(windows.Software, packageStore+`\`+key, maxPackages)
		if !list.OK() {
			return likewise[[]windows.Package](list)
		}
		if !provisioned && len(list.Value) > 0 && len(users) < maxUsersShown {
			users = append(users, list.From...)
		}
		for _, name := range list.Value {
			if kept += len(name) + len(key); kept > maxPackageText {
				return unread[[]windows.Package](at, fmt.Sprintf("the names of its packages take more than %d MiB", maxPackageText>>20))
			}
			low := strings.ToLower(name)
			p := byName[low]
			if p == nil {
				p = &windows.Package{FullName: name}
				byName[low], order = p, append(order, p)
			}
			if provisioned {
				p.Provisioned = true
			} else {
				p.Users = append(p.Users, key)
			}
		}
	}
	packages := make([]windows.Package, len(order))
	for i, p := range order {
		packages[i] = *p
	}
	return read(packages, append([]Evidence{at.says(fmt.Sprintf("packages in %s that users have or new ones get: %d", at, len(packages)))}, users...)...)
}

// isPerson tells the SIDs of people, local, of a domain or of Entra ID, from those of services.
func isPerson(sid string) bool {
	sid = strings.ToUpper(sid)
	return strings.HasPrefix(sid, "S-1-5-21-") || strings.HasPrefix(sid, "S-1-12-1-")
}

// packageName is a package's full name taken apart: Name_Version_Architecture_Resource_Publisher.
type packageName struct {
	name, version, architecture, resource, publisher string
}

func parsePackageName(full string) (packageName, bool) {
	parts := strings.Split(full, "_")
	if len(parts) != 5 || parts[0] == "" || parts[1] == "" || parts[4] == "" {
		return packageName{}, false
	}
	return packageName{parts[0], parts[1], parts[2], parts[3], parts[4]}, true
}

// family is what stays the same from version to version.
func (p packageName) family() string { return strings.ToLower(p.name + "_" + p.publisher) }

// bundle packages hold one package for each architecture and language; their versions count differently from those inside.
func (p packageName) bundle() bool { return p.resource == "~" }

// frameworks begin the names, lower case, of packages that others need. Sysprep passes over them.
var frameworks = []string{
	"microsoft.vclibs.", "microsoft.net.native.", "microsoft.net.corert", "microsoft.ui.xaml.", "microsoft.services.store.engagement", "microsoft.windowsappruntime.",
	"microsoft.winappruntime.", "microsoftcorporationii.winappruntime.", "microsoft.advertising.xaml", "microsoft.directxruntime", "microsoft.media.playready",
	"microsoft.winjs.", "microsoft.nettframework", "microsoft.windows.corert",
}

// windowsPublisher is the publisher of what is part of Windows ("CN=Microsoft Windows, O=Microsoft Corporation, ..."), hashed as in
// package names.
const windowsPublisher = "cw5n1h2txyewy"

// stoppers are the packages that Sysprep would stop at, and why; stopped holds the full names of those that it did stop at.
func stoppers(packages []windows.Package, inbox, stopped []string) (found []windows.Package, reasons []string) {
	own := map[string]bool{}
	for _, full := range inbox {
		if p, ok := parsePackageName(full); ok {
			own[p.family()] = true
		}
	}
	provisioned := map[string][]packageName{}
	for _, p := range packages {
		if n, ok := parsePackageName(p.FullName); ok && p.Provisioned {
			provisioned[n.family()] = append(provisioned[n.family()], n)
		}
	}
	for _, p := range packages {
		if p.Provisioned || !slices.ContainsFunc(p.Users, isPerson) {
			continue
		}
		n, ok := parsePackageName(p.FullName)
		low := strings.ToLower(n.name)
		switch {
		case slices.ContainsFunc(stopped, func(s string) bool { return strings.EqualFold(s, p.FullName) }):
			found, reasons = append(found, p), append(reasons, p.FullName+" (Sysprep has stopped at it before)")
			continue
		case !ok:
			found, reasons = append(found, p), append(reasons, p.FullName+" (its name is not one of a package)")
			continue
		case own[n.family()], n.publisher == windowsPublisher, n.resource != "" && n.resource != "neutral" && !n.bundle():
			continue
		case slices.ContainsFunc(frameworks, func(f string) bool { return strings.HasPrefix(low, f) }):
			continue
		}
		have, ok := provisioned[n.family()]
		switch {
		case !ok:
			found, reasons = append(found, p), append(reasons, p.FullName+" (new users do not get it)")
		case slices.ContainsFunc(have, func(h packageName) bool { return h.bundle() == n.bundle() }) &&
			!slices.ContainsFunc(have, func(h packageName) bool { return h.bundle() == n.bundle() && h.version == n.version }):
			found, reasons = append(found, p), append(reasons, p.FullName+" (new users get version "+have[0].version+")")
		}
	}
	return found, reasons
}

// stoppedAt takes the packages' full names out of the lines of Sysprep's log: "Package <name> was installed for a user, but not ...".
func stoppedAt(lines []string) []string {
	var list []string
	for _, line := range lines {
		before, _, ok := strings.Cut(line, " was installed for a user")
		if _, name, named := strings.Cut(before, "Package "); ok && named {
			list = append(list, strings.TrimSpace(name))
		}
	}
	return list
}

func judgePackages(f *Facts, _ Params) Verdict {
	on := []fact{f.Packages, f.InboxPackages, f.SysprepErrors}
	if v, no := missing(on...); no {
		return v
	}
	found, reasons := stoppers(f.Packages.Value, f.InboxPackages.Value, stoppedAt(f.SysprepErrors.Value))
	if len(found) == 0 {
		return pass("No user has a package that new users would not get.", on...)
	}
	var seen []Evidence
	for i, p := range found {
		for _, user := range p.Users {
			if isPerson(user) {
				seen = few(seen, said("user "+printable(user)+" has "+printable(reasons[i])))
			}
		}
	}
	return unmet("Sysprep would stop at these packages: "+names(reasons)+".", on...).saw(seen)
}

func fixPackages(f *Facts, _ Params) []windows.Change {
	found, _ := stoppers(f.Packages.Value, f.InboxPackages.Value, stoppedAt(f.SysprepErrors.Value))
	var list []windows.Change
	for _, p := range found {
		list = append(list, windows.RemovePackage{FullName: p.FullName})
	}
	return list
}
