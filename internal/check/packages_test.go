package check

import (
	"slices"
	"strings"
	"testing"

	"berth/internal/windows"
)

const (
	appx   = `[SOFTWARE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore\`
	person = `S-1-5-21-1760460187-1591136756-161725925-1001`
)

// has gives a user packages.
func has(user string, packages ...string) func(*testing.T, *memory) {
	var text strings.Builder
	for _, p := range packages {
		text.WriteString(appx + user + `\` + p + "]\n")
	}
	return reg(text.String())
}

var packageCases = []testCase{
	{"provisioned", has(person, "Microsoft.WindowsCalculator_10.1906.55.0_x64__8wekyb3d8bbwe", "Microsoft.WindowsCalculator_10.1906.55.0_neutral_split.scale-100_8wekyb3d8bbwe"), Options{}, "AppXPackagesInstalled", Pass, ""},
	{"provisioned, as the bundle", has(person, "Microsoft.WindowsCalculator_2020.1906.55.0_neutral_~_8wekyb3d8bbwe"), Options{}, "AppXPackagesInstalled", Pass, ""},
	{"updated by the Store", has(person, "Microsoft.WindowsCalculator_2021.2012.21.0_neutral_~_8wekyb3d8bbwe"), Options{}, "AppXPackagesInstalled", Fail, "Microsoft.WindowsCalculator_2021.2012.21.0_neutral_~_8wekyb3d8bbwe (new users get version 2020.1906.55.0)"},
	{"installed by a user", has(person, "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c"), Options{}, "AppXPackagesInstalled", Fail, "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c (new users do not get it)"},
	{"says who", has(person, "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c"), Options{}, "AppXPackagesInstalled", Fail, "user " + person + " has"},
	{"installed by a user of Entra ID", has("S-1-12-1-1-2-3-4", "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c"), Options{}, "AppXPackagesInstalled", Fail, ""},
	{"staged for the system", has("S-1-5-18", "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c"), Options{}, "AppXPackagesInstalled", Pass, ""},
	{"frameworks and Windows's own", has(person, "Microsoft.VCLibs.140.00_14.0.27323.0_x64__8wekyb3d8bbwe", "Microsoft.UI.Xaml.2.4_2.42007.9001.0_x64__8wekyb3d8bbwe",
		"Microsoft.Windows.ShellExperienceHost_10.0.19041.1_neutral_neutral_cw5n1h2txyewy", "Microsoft.LockApp_10.0.19041.1023_neutral__cw5n1h2txyewy"), Options{}, "AppXPackagesInstalled", Pass, ""},
	{"a name that is none", has(person, "Calculator"), Options{}, "AppXPackagesInstalled", Fail, "its name is not one of a package"},
	{"Sysprep has stopped at a framework", both(has(person, "Microsoft.VCLibs.140.00_14.0.27323.0_x64__8wekyb3d8bbwe"),
		file(sysprepErrors, "Error SYSPRP Package Microsoft.VCLibs.140.00_14.0.27323.0_x64__8wekyb3d8bbwe was installed for a user, but not provisioned for all users.")), Options{}, "AppXPackagesInstalled", Fail, "Sysprep has stopped at it before"},
	{"Sysprep has stopped at what is gone", file(sysprepErrors, skype+hit), Options{}, "AppXPackagesInstalled", Pass, ""},
	{"Sysprep's log unread", broken("c:/" + sysprepErrors), Options{}, "AppXPackagesInstalled", Unknown, "bad cell"},
	{"store gone", gone(`SOFTWARE\` + packageStore), Options{}, "AppXPackagesInstalled", Unknown, "missing"},
	{"inbox list unread", broken(`SOFTWARE\` + packageStore + `\InboxApplications`), Options{}, "AppXPackagesInstalled", Unknown, "bad cell"},
	{"a user's list unread", both(has(person, "Microsoft.WindowsCalculator_10.1906.55.0_x64__8wekyb3d8bbwe"), broken(`SOFTWARE\`+packageStore+`\`+person)), Options{}, "AppXPackagesInstalled", Unknown, "bad cell"},
	{"running, installed by a user", while(func(a *answers) {
		a.packages = append(a.packages, windows.Package{FullName: "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c", Users: []string{"S-1-5-18", person}})
	}), Options{}, "AppXPackagesInstalled", Fail, "Microsoft.SkypeApp"},
	{"running, the system's alone", while(func(a *answers) {
		a.packages = append(a.packages, windows.Package{FullName: "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c", Users: []string{"S-1-5-18"}})
	}), Options{}, "AppXPackagesInstalled", Pass, ""},
	{"running, no answer about packages", while(func(a *answers) { a.packages = nil }), Options{}, "AppXPackagesInstalled", Unknown, "WMI does not answer"},
}

// TestStoredPackages: what the disk's list and what a running Windows tell of the same machine is judged alike.
func TestStoredPackages(t *testing.T) {
	m := fit(t)
	has(person, "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c", "MICROSOFT.WindowsCalculator_2020.1906.55.0_neutral_~_8wekyb3d8bbwe")(t, m)
	has("S-1-5-21-1-2-3-1002", "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c")(t, m)
	got := Collect(t.Context(), m).Packages
	want := []windows.Package{
		{FullName: "Microsoft.WindowsCalculator_2020.1906.55.0_neutral_~_8wekyb3d8bbwe", Provisioned: true, Users: []string{person}},
		{FullName: "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c", Users: []string{person, "S-1-5-21-1-2-3-1002"}},
	}
	same := slices.EqualFunc(got.Value, want, func(a, b windows.Package) bool {
		return a.FullName == b.FullName && a.Provisioned == b.Provisioned && slices.Equal(a.Users, b.Users)
	})
	if !got.OK() || !same {
		t.Errorf("packages are %+v (%s), want %+v", got.Value, got.Why, want)
	}
	off := find(t, Run(Collect(t.Context(), m), Options{}), "AppXPackagesInstalled")
	m.machine.Running, m.answers = true, live(t).answers
	m.answers.packages = want
	running := find(t, Run(Collect(t.Context(), m), Options{}), "AppXPackagesInstalled")
	if off.Outcome != Fail || off.Because != running.Because || off.Outcome != running.Outcome {
		t.Errorf("off: %s, %s\nrunning: %s, %s", off.Outcome, off.Because, running.Outcome, running.Because)
	}
	if off.Fix == nil || off.Fix.Place != InGuest || off.Fixable {
		t.Errorf("fix %+v, fixable on the disk %v", off.Fix, off.Fixable)
	}
}
