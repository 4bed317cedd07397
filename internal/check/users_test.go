package check

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

const (
	profileList = `SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList`
	joeFile     = "Users/Joe/NTUSER.DAT"
	joeZoom     = `[NTUSER\Software\Microsoft\Windows\CurrentVersion\Uninstall\ZoomUMX]` + "\n" + `"DisplayName"="Zoom Workplace"`
	joeDrive    = `[NTUSER\Network\Z]` + "\n" + `"RemotePath"="\\\\files\\team"`
)

// joe gives Joe a registry of that text.
func joe(text string) func(*testing.T, *memory) {
	return func(t *testing.T, m *memory) { m.setProfile(t, "Joe", text) }
}

// signedIn is the machine while it runs and Joe is signed in: his registry is among the hives, and his file is in use.
func signedIn(text string) func(*testing.T, *memory) {
	return func(t *testing.T, m *memory) {
		while(func(*answers) {})(t, m)
		root, err := registry.Parse("[NTUSER\\Environment]\n" + text)
		if err != nil {
			t.Fatal(err)
		}
		hive := root.Key("NTUSER")
		hive.Name = joeSID
		m.replace(hive)
		broken("c:/"+joeFile)(t, m)
	}
}

var userCases = []testCase{
	{"a user's program", joe(joeZoom), Options{}, "AdditionalSoftwareInstalled", Warn, "Zoom Workplace (of Joe)"},
	{"a user's program, where it was read", joe(joeZoom), Options{}, "AdditionalSoftwareInstalled", Warn, `C:/Users/Joe/NTUSER.DAT\Software\Microsoft\Windows\CurrentVersion\Uninstall\ZoomUMX\DisplayName = "Zoom Workplace"`},
	{"a user's own OneDrive", change(func(*memory) {}), Options{}, "AdditionalSoftwareInstalled", Pass, "entries in C:/Users/Joe/NTUSER.DAT\\Software\\Microsoft\\Windows\\CurrentVersion\\Uninstall: 1"},
	{"a user without a list", joe(""), Options{}, "AdditionalSoftwareInstalled", Pass, "C:/Users/Joe/NTUSER.DAT\\Software\\Microsoft\\Windows\\CurrentVersion\\Uninstall is absent"},
	{"a user's program without a name", joe(`[NTUSER\Software\Microsoft\Windows\CurrentVersion\Uninstall\x]`), Options{}, "AdditionalSoftwareInstalled", Pass, ""},
	{"a user's guest tools count, for they have no check of their own", joe(strings.Replace(joeZoom, "Zoom Workplace", "VMware Tools", 1)), Options{}, "AdditionalSoftwareInstalled", Warn, "of Joe"},
	{"a user's program, ingestion", joe(joeZoom), Options{Ingestion: true}, "AdditionalSoftwareInstalled", NotApplicable, ""},
	{"a user's program while he is signed in", signedIn(joeZoom), Options{}, "AdditionalSoftwareInstalled", Warn, "Zoom Workplace (of Joe)"},
	{"nothing while he is signed in", signedIn(""), Options{}, "AdditionalSoftwareInstalled", Pass, ""},
	{"a mapped drive", joe(joeDrive), Options{}, "AdditionalDrivesAttached", Fail, `network drive Z: of Joe (\\files\team)`},
	{"a mapped drive, where it was read", joe(joeDrive), Options{}, "AdditionalDrivesAttached", Fail, `C:/Users/Joe/NTUSER.DAT\Network\Z\RemotePath`},
	{"a mapped drive without its share", joe(`[NTUSER\Network\Z]`), Options{}, "AdditionalDrivesAttached", Fail, "a share that is not named"},
	{"the key without drives", joe(`[NTUSER\Network]`), Options{}, "AdditionalDrivesAttached", Pass, ""},
	{"a mapped drive while he is signed in", signedIn(joeDrive), Options{}, "AdditionalDrivesAttached", Fail, "Z: of Joe"},
	{"a mapped drive that Windows tells of", func(t *testing.T, m *memory) {
		signedIn(joeDrive)(t, m)
		m.machine.Drives = []windows.Drive{{Kind: windows.NetworkDrive, Letter: "Z:", Medium: `\\files\team`}}
	}, Options{}, "AdditionalDrivesAttached", Fail, `Beside C: there are drives: network drive Z: (\\files\team).`},

	{"a user's registry unread", broken("c:/" + joeFile), Options{}, "AdditionalSoftwareInstalled", Unknown, "C:/Users/Joe/NTUSER.DAT: bad cell"},
	{"a user's registry unread, drives", broken("c:/" + joeFile), Options{}, "AdditionalDrivesAttached", Unknown, "bad cell"},
	{"a user's registry is no hive", change(func(m *memory) { m.files[joeFile] = &fstest.MapFile{Data: make([]byte, 8192)} }), Options{}, "AdditionalDrivesAttached", Unknown, "is not regf"},
	{"a user's registry cut off", change(func(m *memory) { f := m.files[joeFile]; f.Data = f.Data[:len(f.Data)-1] }), Options{}, "AdditionalDrivesAttached", Unknown, "cut off"},
	{"a user's registry out of date", change(func(m *memory) { m.files[joeFile].Data[4]++ }), Options{}, "AdditionalSoftwareInstalled", Unknown, "out of date"},
	{"a user's log unread", broken("c:/" + joeFile + ".log1"), Options{}, "AdditionalDrivesAttached", Unknown, "bad cell"},
	{"one user's registry unread, another's program", func(t *testing.T, m *memory) {
		m.merge(t, `[`+profileList+`\S-1-12-1-1-2-3-4]`+"\n"+`"ProfileImagePath"="%SystemDrive%\\Users\\Ann"`)
		m.setProfile(t, "Ann", joeZoom)
		broken("c:/"+joeFile)(t, m)
	}, Options{}, "AdditionalSoftwareInstalled", Warn, "of Ann"},
	{"a profile that was deleted by hand", change(func(m *memory) { delete(m.files, joeFile) }), Options{}, "AdditionalSoftwareInstalled", Pass, "profiles of users: 1"},
	{"a profile on another drive", reg(`[` + profileList + `\` + joeSID + `]` + "\n" + `"ProfileImagePath"="D:\\Users\\Joe"`), Options{}, "AdditionalDrivesAttached", Unknown, "not on C:"},
	{"a profile that climbs", reg(`[` + profileList + `\` + joeSID + `]` + "\n" + `"ProfileImagePath"="C:\\Users\\..\\Joe"`), Options{}, "AdditionalDrivesAttached", Unknown, "not on C:"},
	{"a profile that was set aside", func(t *testing.T, m *memory) {
		m.merge(t, `[`+profileList+`\`+joeSID+`.bak]`+"\n"+`"ProfileImagePath"="c:\\users\\joe"`)
		m.setProfile(t, "Joe", joeZoom)
	}, Options{}, "AdditionalSoftwareInstalled", Warn, "with Windows: Zoom Workplace (of Joe)."},
	{"no list of profiles", gone(profileList), Options{}, "AdditionalSoftwareInstalled", Unknown, "which every Windows has, is missing"},
	{"a service's profile", reg(`[` + profileList + `\S-1-5-80-1]` + "\n" + `"ProfileImagePath"="D:\\Service"`), Options{}, "AdditionalDrivesAttached", Pass, ""},
}

// TestTooManyUsers: what a hostile list of users can make the program do is bounded.
func TestTooManyUsers(t *testing.T) {
	m := fit(t)
	var text strings.Builder
	for i := range maxUsers + 1 {
		fmt.Fprintf(&text, "[%s\\S-1-5-21-1-2-3-%d]\n\"ProfileImagePath\"=\"C:\\\\Users\\\\U%d\"\n", profileList, i, i)
	}
	m.merge(t, text.String())
	f := Collect(t.Context(), m)
	if f.UserPrograms.OK() || !strings.Contains(f.UserPrograms.Why, "more than the 200 users") || f.MappedDrives.OK() {
		t.Errorf("%d users: %v, %v", maxUsers+2, f.UserPrograms.Why, f.MappedDrives.Why)
	}
}

// TestUsersHaveOneRoom: the lists of all users together are bounded, not each by itself.
func TestUsersHaveOneRoom(t *testing.T) {
	m := fit(t)
	long := strings.Repeat("x", 20_000)
	var list, own strings.Builder
	for i := range 12 {
		fmt.Fprintf(&own, "[NTUSER\\Software\\Microsoft\\Windows\\CurrentVersion\\Uninstall\\P%d]\n\"DisplayName\"=\"%s\"\n", i, long)
	}
	for i := range 60 {
		fmt.Fprintf(&list, "[%s\\S-1-5-21-1-2-3-%d]\n\"ProfileImagePath\"=\"C:\\\\Users\\\\U%d\"\n", profileList, i, i)
	}
	m.merge(t, list.String())
	m.setProfile(t, "U0", own.String())
	for i := range 60 {
		m.files[fmt.Sprintf("Users/U%d/NTUSER.DAT", i)] = m.files["Users/U0/NTUSER.DAT"]
	}
	if f := Collect(t.Context(), m); f.UserPrograms.OK() || !strings.Contains(f.UserPrograms.Why, "take more than 8 MiB") {
		t.Errorf("%d programs: %q", len(f.UserPrograms.Value), f.UserPrograms.Why)
	}
}

// TestUserEvidence: evidence of a user's registry says all that evidence of a machine's does, and whose file it is.
func TestUserEvidence(t *testing.T) {
	m := fit(t)
	m.setProfile(t, "Joe", joeDrive)
	f := find(t, Run(Collect(t.Context(), m), Options{}), "AdditionalDrivesAttached")
	e := f.Evidence[len(f.Evidence)-1]
	got, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	const want = `"hive":"NTUSER","key":"Network\\Z","value":"RemotePath","type":"REG_SZ","data":"\\\\files\\team","lastWrite":"`
	if !strings.Contains(string(got), want) || !strings.Contains(string(got), `"hiveState":"clean","file":"C:/Users/Joe/NTUSER.DAT"`) {
		t.Errorf("evidence %s, want %s", got, want)
	}
}
