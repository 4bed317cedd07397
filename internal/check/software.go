package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"berth/internal/windows"
)

// softwareChecks are the checks on what is installed beyond Windows.
//
// Office needs a word. The document forbids it twice: as any other software beyond Windows, and once more beside an Office
// subscription. Amazon's checker warns of it without counting the warning; its ingestion refuses it only beside a
// subscription, and names it then. So here: with a subscription FAIL; without one WARN, because the document asks for
// nothing beyond Windows and a warning that does not count would be a defect; at ingestion without one NOT_APPLICABLE, as
// Amazon does. It makes "fit" mean that the machine meets the document, and ingestion mean what Amazon's means.
var softwareChecks = []Check{
	{
		Code: "OfficeInstalled", ReportAs: "OfficeInstalled", Level: Fail, DecidedIn: OnDisk,
		Title:      "Microsoft Office is not installed",
		Source:     `document, Requirements and "Adding Microsoft Office to Your BYOL Image"; facts §4.2`,
		Applies:    "every request; beside a subscription it is FAIL, without one WARN, and at ingestion without one NOT_APPLICABLE",
		Evaluation: `No key with "0FF1CE" in its name in either Uninstall list, and no ProductReleaseIds of Click-to-Run; where the profile allows the Microsoft 365 apps, those that begin with "O365" may be there.`,
		Remedy:     "Uninstall it: Settings > Apps > Apps & features > Microsoft Office > Uninstall, then restart. Office can be added later, through the service or in a custom image.",
		judge:      judgeOffice,
	},
	{
		Code: "VMWareToolsInstalled", ReportAs: "VMWareToolsInstalled", Level: Fail, DecidedIn: OnDisk,
		Title:      "No hypervisor's guest tools are installed",
		Source:     "document, Requirements (nothing beyond Windows); facts §4.2",
		Evaluation: "No program in either Uninstall list and no service may be of a hypervisor's guest tools. VMware Tools are FAIL, others WARN.",
		Remedy:     "Uninstall them as the last thing before the export, because screen and mouse get worse without them: Settings > Apps > Apps & features > VMware Tools (Guest Additions, guest agent ...) > Uninstall. Restart, then shut down.",
		judge:      judgeGuestTools,
	},
	{
		Code: "PCoIPAgentInstalled", ReportAs: "PCoIPAgentInstalled", Level: Fail, DecidedIn: OnDisk,
		Title:      "No PCoIP agent is installed",
		Source:     "facts §4.2",
		Evaluation: "There must be no service PCoIPAgent, no entry that begins with PCoIP in either list of programs, and no uninst.exe of the agent. With its uninstaller it is a warning.",
		Fix:        "The agent's own uninstaller is run",
		Remedy: steps(
			"Uninstall it, and restart:",
			`  "C:\Program Files (x86)\Teradici\PCoIP Agent\uninst.exe" /S`,
			"A newer one is in C:\\Program Files\\Teradici\\PCoIP Agent. Where the uninstaller is gone, install the same version again first."),
		judge: judgePCoIP,
		fix:   fixPCoIP,
	},
	{
		Code: "AdditionalSoftwareInstalled", ReportAs: "UnknownError", Level: Warn, DecidedIn: OnDisk,
		Title:      "Nothing is installed beyond what comes with Windows",
		Source:     "document, Requirements; facts §4.3",
		Applies:    "before the export; ingestion does not refuse an image for it",
		Evaluation: "Either list of programs of the machine, and those that users have of their own (in the NTUSER.DAT of every profile of ProfileList), may name only what comes with Windows, what Windows Update and Amazon's agents bring, and what the profile allows. Entries without a DisplayName are not shown to people and do not count, nor does what has a check of its own.",
		Remedy:     "Uninstall the programs named above: Settings > Apps > Apps & features. What a user has alone is listed there when that user is signed in; if nobody needs the account, delete its profile instead: sysdm.cpl > Advanced > User Profiles > Settings. Install the programs again in a custom image, made of a WorkSpace. What you want to keep can be allowed in a profile of your own (allowedPrograms).",
		judge:      judgeSoftware,
	},
}

// officeCode is in the product code of everything of Office that Windows Installer sets up (facts §4.2).
const officeCode = "0FF1CE"

func judgeOffice(f *Facts, p Params) Verdict {
	on := []fact{f.Programs, f.Programs32, f.OfficeClickToRun}
	if p.Ingestion && !p.Office {
		return notApplicable("No Office is subscribed to, and ingestion refuses an installed one only beside a subscription.", on...)
	}
	microsoft365 := p.Profile.AllowMicrosoft365.Value
	var found []string
	var seen []Evidence
	for _, id := range f.OfficeClickToRun.Value {
		if microsoft365 = microsoft365 && strings.HasPrefix(strings.ToUpper(id), "O365"); !microsoft365 {
			found = append(found, id)
		}
	}
	told := map[string]bool{}
	// What Click-to-Run itself registers with an Office code belongs to the products named above.
	clickToRun := microsoft365 && len(f.OfficeClickToRun.Value) > 0
	for _, list := range []Known[[]Program]{f.Programs, f.Programs32} {
		for _, prog := range list.Value {
			if !strings.Contains(strings.ToUpper(prog.Key), officeCode) || clickToRun && strings.Contains(prog.Name, "Click-to-Run") {
				continue
			}
			name := prog.Name
			if name == "" {
				name = prog.Key
			}
			if !told[name] {
				told[name] = true
				found = append(found, name)
			}
			seen = few(seen, prog.From)
		}
	}
	if len(found) == 0 {
		if v, no := missing(on...); no {
			return v
		}
		if clickToRun {
			return pass("Only Microsoft 365 apps are installed, which profile "+p.Profile.Name+" allows.", on...)
		}
		return pass("No Office is installed.", on...)
	}
	v := unmet("Office is installed ("+names(found)+"), and must not be where Office is subscribed to through the service.", on...).saw(seen)
	if !p.Office {
		v.Outcome = Warn
		v.Because = "Office is installed (" + names(found) + "). The document asks for nothing beyond Windows; add software once the image is made."
	}
	return v
}

// begins reports whether a name begins with a word, without regard to the case of ASCII letters.
func begins(name, word string) bool {
	return len(name) >= len(word) && strings.EqualFold(name[:len(word)], word)
}

// names joins a few names from a disk, safe to show.
func names(list []string) string {
	const most = 5
	var shown []string
	for i, name := range list {
		if i == most {
			shown = append(shown, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		shown = append(shown, printable(name))
	}
	return strings.Join(shown, ", ")
}

// guestTools are the tools that hypervisors install in their guests: display names as they begin, lower case, and services.
// Amazon's checker knows the first of them alone, by its exact name in the native list (facts §4.1, defect 3).
var guestTools = []struct {
	Names    []string
	Services []string
	VMware   bool
}{
	{Names: []string{"vmware tools"}, Services: []string{"VMTools"}, VMware: true},
	{Names: []string{"oracle vm virtualbox guest additions", "oracle virtualbox guest additions"}, Services: []string{"VBoxService"}},
	{Names: []string{"qemu guest agent"}, Services: []string{"QEMU-GA"}},
	{Names: []string{"citrix xenserver tools", "citrix vm tools", "xenserver vm tools", "citrix hypervisor pv tools"}, Services: []string{"xenagent"}},
	{Names: []string{"parallels tools"}, Services: []string{"prl_tools_service"}},
}

func judgeGuestTools(f *Facts, _ Params) Verdict {
	on := []fact{f.Programs, f.Programs32, f.GuestTools}
	var found []string
	var seen []Evidence
	vmware := false
	for _, tools := range guestTools {
		hit := false
		for _, list := range []Known[[]Program]{f.Programs, f.Programs32} {
			for _, prog := range list.Value {
				for _, name := range tools.Names {
					if begins(prog.Name, name) {
						found, seen, hit = append(found, prog.Name), few(seen, prog.From), true
					}
				}
			}
		}
		for _, service := range f.GuestTools.Value {
			if slices.Contains(tools.Services, service) {
				found, hit = append(found, "service "+service), true
			}
		}
		vmware = vmware || hit && tools.VMware
	}
	switch {
	case vmware:
		return unmet("VMware Tools are installed ("+names(found)+").", on...).saw(seen)
	case len(found) > 0:
		v := unmet("A hypervisor's guest tools are installed ("+names(found)+"). Amazon looks for VMware's alone, but the document asks for nothing beyond Windows.", on...).saw(seen)
		// Without the lists of programs VMware Tools may be there as well, and that is worse.
		if _, no := missing(on...); !no {
			v.Outcome = Warn
		}
		return v
	}
	if v, no := missing(on...); no {
		return v
	}
	return pass("No hypervisor's guest tools are installed.", on...)
}

// pcoipFolders are where the agent's uninstaller is, newest last (facts §4.2, PCoIPAgentInstalled).
var pcoipFolders = []string{"Program Files (x86)/Teradici/PCoIP Agent", "Program Files/Teradici/PCoIP Agent"}

const (
	pcoipService     = "PCoIPAgent"
	pcoipUninstaller = "uninst.exe"
)

// isPCoIP tells the agent's entry in a list of programs by its key, as Amazon does, or by its name.
func isPCoIP(prog Program) bool {
	name := strings.ToLower(prog.Name)
	return strings.HasPrefix(strings.ToLower(prog.Key), "pcoip") || strings.HasPrefix(name, "pcoip") && strings.Contains(name, "agent")
}

// pcoip looks for the agent's service and its uninstaller.
func (r *reader) pcoip(f *Facts) {
	f.PCoIPService = r.present(windows.SystemHive, currentControlSet+`\Services\`+pcoipService)
	f.PCoIPUninstaller = read("")
	for _, folder := range pcoipFolders {
		there := r.exists(folder + "/" + pcoipUninstaller)
		switch {
		case !there.OK():
			f.PCoIPUninstaller = likewise[string](there)
			return
		case there.Value:
			f.PCoIPUninstaller = read(folder+"/"+pcoipUninstaller, there.From...)
			return
		}
		f.PCoIPUninstaller.From = append(f.PCoIPUninstaller.From, there.From...)
	}
}

func judgePCoIP(f *Facts, _ Params) Verdict {
	on := []fact{f.Programs, f.Programs32, f.PCoIPService, f.PCoIPUninstaller}
	var found []string
	var seen []Evidence
	for _, list := range []Known[[]Program]{f.Programs, f.Programs32} {
		for _, prog := range list.Value {
			if isPCoIP(prog) {
				found, seen = append(found, cmp.Or(prog.Name, prog.Key)), few(seen, prog.From)
			}
		}
	}
	if f.PCoIPService.Value {
		found = append(found, "service "+pcoipService)
	}
	if f.PCoIPUninstaller.Value != "" {
		found = append(found, pcoipUninstaller)
	}
	if len(found) == 0 {
		if v, no := missing(on...); no {
			return v
		}
		return pass("No PCoIP agent is installed.", on...)
	}
	if f.PCoIPUninstaller.Value == "" {
		return unmet("A PCoIP agent is installed ("+names(found)+"), and its uninstaller is not where it should be.", on...).saw(seen)
	}
	v := unmet("A PCoIP agent is installed ("+names(found)+").", on...).saw(seen)
	v.Outcome = Warn // it can be uninstalled
	return v
}

// withWindows begin the names, lower case, of programs that come with Windows, that Windows Update brings, or that Amazon's own
// way into EC2 installs (facts §4.3).
var withWindows = []string{
	"microsoft edge", "microsoft onedrive", "microsoft update health tools", "update for windows", "update for x64-based windows", "security update for windows",
	"windows pc health check", "microsoft gameinput", "remote desktop connection", "windows setup remediations",
	"aws pv drivers", "amazon ssm agent", "ec2config", "ec2launch", "amazon ec2launch", "aws tools for windows", "aws-cfn-bootstrap",
}

func judgeSoftware(f *Facts, p Params) Verdict {
	on := []fact{f.Programs, f.Programs32, f.UserPrograms}
	if p.Ingestion {
		return notRefused(on...)
	}
	allowed := slices.Clone(withWindows)
	for _, name := range p.Profile.AllowedPrograms.Value {
		allowed = append(allowed, strings.ToLower(name))
	}
	var found []string
	var seen []Evidence
	counted := map[string]bool{}
	for _, list := range []Known[[]Program]{f.Programs, f.Programs32, f.UserPrograms} {
		for _, prog := range list.Value {
			// Without a name it is not shown to people: parts of Windows have such entries. Office, guest tools and PCoIP have checks of their own,
			// which look at what is there for all users.
			shown := prog.Name
			if prog.User != "" {
				shown += " (of " + prog.User + ")"
			}
			if prog.Name == "" || counted[shown] || prog.User == "" && (isOffice(prog, f.OfficeClickToRun.Value) || isPCoIP(prog) || isGuestTools(prog)) {
				continue
			}
			counted[shown] = true
			name := strings.ToLower(prog.Name)
			if !slices.ContainsFunc(allowed, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
				found, seen = append(found, shown), few(seen, prog.From)
			}
		}
	}
	if len(found) > 0 {
		return unmet("Programs are installed that do not come with Windows: "+names(found)+".", on...).saw(seen)
	}
	if v, no := missing(on...); no {
		return v
	}
	return pass("No program is installed that does not come with Windows, for all users or for one.", on...)
}

// isOffice tells Office's entries by their key: Windows Installer's have Office's code, those of Click-to-Run begin with a product's id and go
// on with a language ("O365ProPlusRetail - en-us").
func isOffice(prog Program, clickToRun []string) bool {
	key := strings.ToUpper(prog.Key)
	return strings.Contains(key, officeCode) || slices.ContainsFunc(clickToRun, func(id string) bool { return strings.HasPrefix(key, strings.ToUpper(id)+" - ") })
}

// isGuestTools tells the guest tools of a hypervisor by their name.
func isGuestTools(prog Program) bool {
	display := strings.ToLower(prog.Name)
	for _, tools := range guestTools {
		for _, name := range tools.Names {
			if strings.HasPrefix(display, name) {
				return true
			}
		}
	}
	return false
}

// fixPCoIP runs the agent's own uninstaller, silently.
func fixPCoIP(f *Facts, _ Params) []windows.Change {
	if f.PCoIPUninstaller.Value == "" {
		return nil
	}
	return []windows.Change{windows.RunUninstaller{Program: "PCoIP agent", Path: `C:\` + strings.ReplaceAll(f.PCoIPUninstaller.Value, "/", `\`), Args: []string{"/S"}}}
}
