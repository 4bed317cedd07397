package check

import (
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf16"
)

const (
	setupState = `[SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State]` + "\n"
	sysprepKey = `[SYSTEM\Setup\Status\SysprepStatus]` + "\n"
	skype      = "2020-10-05 15:58:02, Error                 SYSPRP Package Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c was installed for a user, but not provisioned for all users.\r\n"
	harmless   = "2020-09-22 09:13:02, Error                 SYSPRP setupdigetclassdevs failed with error 0\r\n"
	hit        = "2020-10-05 15:58:02, Error      [0x0f0082] SYSPRP WinMain:Hit failure while processing sysprep generalize internal providers; hr = 0x80073cf2\r\n"
)

// wide is a text as a UTF-16 file holds it.
func wide(s string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// user is a change of the default user's hive.
func user(text string) func(*testing.T, *memory) {
	return func(t *testing.T, m *memory) { m.setUser(t, text) }
}

var sysprepCases = []testCase{
	{"generalized", reg(setupState + `"ImageState"="IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"`), Options{}, "AlreadyGeneralized", Fail, "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"},
	{"state unread", broken(`SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State\ImageState`), Options{}, "AlreadyGeneralized", Unknown, "bad cell"},
	{"state gone", goneValue(`SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State`, "ImageState"), Options{}, "AlreadyGeneralized", Unknown, "missing"},

	{"sysprep broken off", reg(sysprepKey + `"GeneralizationState"=dword:3`), Options{}, "SysprepUnusable", Fail, "GeneralizationState is 3"},
	{"no status of sysprep", gone(`SYSTEM\Setup\Status\SysprepStatus`), Options{}, "SysprepUnusable", Pass, "is absent"},
	{"no sysprep", change(func(m *memory) { delete(m.files, "Windows/System32/Sysprep/sysprep.exe") }), Options{}, "SysprepUnusable", Fail, "missing: sysprep.exe"},
	{"no actions", change(func(m *memory) { delete(m.files, "Windows/System32/Sysprep/ActionFiles/Generalize.xml") }), Options{}, "SysprepUnusable", Fail, "Generalize.xml"},
	{"sysprep unread", broken("c:/windows/system32/sysprep/sysprep.exe"), Options{}, "SysprepUnusable", Unknown, "bad cell"},

	{"never failed", reg(``), Options{}, "UnknownError", Pass, "setuperr.log is absent"},
	{"empty log", file(sysprepErrors, ""), Options{}, "UnknownError", Pass, "tells of no failure"},
	{"harmless errors", file(sysprepErrors, harmless), Options{}, "UnknownError", Pass, "tells of no failure"},
	{"failed at Skype", file(sysprepErrors, harmless+skype+hit), Options{}, "UnknownError", Warn, "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c"},
	{"failed, in UTF-16", file(sysprepErrors, wide(harmless+hit)), Options{}, "UnknownError", Warn, "Hit failure"},
	{"an odd UTF-16", file(sysprepErrors, wide(hit)+"x"), Options{}, "UnknownError", Unknown, "odd length"},
	{"log unread", both(file(sysprepErrors, ""), broken("c:/"+sysprepErrors)), Options{}, "UnknownError", Unknown, "bad cell"},

	{"a file on the desktop", file("Users/Default/Desktop/Intranet.url", "x"), Options{}, "DefaultProfileCustomized", Warn, "Intranet.url"},
	{"a folder in the documents", file("Users/Default/Documents/Templates/a.dotx", "x"), Options{}, "DefaultProfileCustomized", Warn, "Templates"},
	{"a start menu", file("Users/Default/AppData/Local/Microsoft/Windows/Shell/LayoutModification.xml", "x"), Options{}, "DefaultProfileCustomized", Warn, "LayoutModification.xml"},
	{"no default profile", change(func(m *memory) { delete(m.files, "Users/Default/Desktop/desktop.ini"); delete(m.files, defaultHive) }), Options{}, "DefaultProfileCustomized", Unknown, "missing"},
	{"no default user's hive", change(func(m *memory) { delete(m.files, defaultHive) }), Options{}, "DefaultProfileCustomized", Unknown, "missing"},
	{"a default user's hive that is none", file(defaultHive, "regf"), Options{}, "DefaultProfileCustomized", Unknown, "no hive"},
	{"a default user's hive that is out of date", change(func(m *memory) { m.files[defaultHive].Data[4]++ }), Options{}, "DefaultProfileCustomized", Unknown, ""},
	{"a program starts with new users", user(`[NTUSER\Software\Microsoft\Windows\CurrentVersion\Run]` + "\n" + `"Intranet"="C:\\a.exe"`), Options{}, "DefaultProfileCustomized", Warn, "start of Intranet"},
	{"policies", user(`[NTUSER\Software\Policies\Google\Chrome]` + "\n" + `[NTUSER\Software\Policies\Microsoft\Edge]` + "\n" + `[NTUSER\Software\Policies\Microsoft\Windows\Explorer]`), Options{}, "DefaultProfileCustomized", Warn, "policies of Google, policies for Edge, policies for Windows, Explorer"},
	{"a wallpaper", user(`[NTUSER\Control Panel\Desktop]` + "\n" + `"Wallpaper"="C:\\ProgramData\\corp.jpg"`), Options{}, "DefaultProfileCustomized", Warn, "corp.jpg"},
	{"Windows's wallpaper", user(`[NTUSER\Control Panel\Desktop]` + "\n" + `"Wallpaper"="%SystemRoot%\\web\\wallpaper\\Windows\\img0.jpg"`), Options{}, "DefaultProfileCustomized", Pass, ""},
	{"a network drive", user(`[NTUSER\Network\Z]` + "\n" + `"RemotePath"="x"`), Options{}, "DefaultProfileCustomized", Warn, "network drive Z"},
	{"desktop unread", broken("c:/users/default/desktop"), Options{}, "DefaultProfileCustomized", Unknown, "bad cell"},
	{"desktop unread, but a start menu", both(file("Users/Default/AppData/Local/Microsoft/Windows/Shell/LayoutModification.json", "x"), broken("c:/users/default/desktop")), Options{}, "DefaultProfileCustomized", Warn, ""},
	{"a crowded desktop", change(func(m *memory) {
		for i := range maxProfileFiles + 1 {
			m.files["Users/Default/Desktop/desktop.ini"+strings.Repeat(".", i)] = &fstest.MapFile{}
		}
	}), Options{}, "DefaultProfileCustomized", Warn, "and 1"},

	{"a file on the desktop, at ingestion", file("Users/Default/Desktop/Intranet.url", "x"), Options{Ingestion: true}, "DefaultProfileCustomized", NotApplicable, "ingestion does not refuse"},
	{"checker failed, at ingestion", reg(`[SOFTWARE\Amazon\BYOLChecker]` + "\n" + `"status"="fail"`), Options{Ingestion: true}, "BYOLCheckerFailed", NotApplicable, ""},
	{"checker failed", reg(`[SOFTWARE\Amazon\BYOLChecker]` + "\n" + `"status"="fail"`), Options{}, "BYOLCheckerFailed", Warn, "ended with fail"},
	{"checker not run", gone(`SOFTWARE\Amazon`), Options{}, "BYOLCheckerFailed", NotApplicable, "was not run"},
	{"checker unread", broken(`SOFTWARE\Amazon\BYOLChecker\status`), Options{}, "BYOLCheckerFailed", Unknown, "bad cell"},
}

// TestSysprepErrors: of a long log the last failures are kept, and no line is longer than it may be.
func TestSysprepErrors(t *testing.T) {
	m := fit(t)
	var log strings.Builder
	for range 1000 {
		log.WriteString(skype)
	}
	log.WriteString("Error SYSPRP WinMain:Hit failure " + strings.Repeat("x", 100_000) + "\n")
	m.files[sysprepErrors] = &fstest.MapFile{Data: []byte(log.String())}
	got := Collect(t.Context(), m).SysprepErrors
	if len(got.Value) != maxLogLines || !strings.Contains(got.Value[maxLogLines-1], "Hit failure") {
		t.Errorf("kept are %d lines, the last one %q", len(got.Value), got.Value[len(got.Value)-1])
	}
	for _, line := range got.Value {
		if len(line) > maxLogLine {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}
