package check

import (
	"testing"
	"time"
)

const (
	wcv     = `SOFTWARE\Microsoft\Windows\CurrentVersion`
	manager = `[SYSTEM\ControlSet001\Control\Session Manager]` + "\n"
	wuau    = `[SYSTEM\ControlSet001\Services\wuauserv]` + "\n"
	pkg     = wcv + `\Component Based Servicing\Packages\Package_for_RollupFix~31bf3856ad364e35~amd64~~19041.508.1.13`
)

// stopped sets when Windows was shut down, as a FILETIME.
func stopped(t time.Time) func(*testing.T, *memory) {
	n := uint64(t.Unix()+11644473600) * 1e7
	text := `[SYSTEM\ControlSet001\Control\Windows]` + "\n" + `"ShutdownTime"=hex:`
	for i := range 8 {
		if i > 0 {
			text += ","
		}
		text += string("0123456789abcdef"[n>>(8*i)>>4&15]) + string("0123456789abcdef"[n>>(8*i)&15])
	}
	return reg(text)
}

func on(year int, month time.Month, d int) time.Time {
	return time.Date(year, month, d, 20, 0, 0, 0, time.UTC)
}

var servicingCases = []testCase{
	{"updates on demand", reg(wuau + `"Start"=dword:3`), Options{}, "WindowsUpdatesEnabled", Warn, "not disabled"},
	{"modules installer automatic", reg(`[SYSTEM\ControlSet001\Services\TrustedInstaller]` + "\n" + `"Start"=dword:2`), Options{}, "WindowsUpdatesEnabled", Warn, "does not start on demand"},
	{"both wrong", reg(wuau + `"Start"=dword:2` + "\n" + `[SYSTEM\ControlSet001\Services\TrustedInstaller]` + "\n" + `"Start"=dword:4`), Options{}, "WindowsUpdatesEnabled", Warn, "not disabled, and the"},
	{"both wrong, at ingestion", reg(wuau + `"Start"=dword:2`), Options{Ingestion: true}, "WindowsUpdatesEnabled", Warn, ""},
	{"no Windows Update", gone(`SYSTEM\ControlSet001\Services\wuauserv`), Options{}, "WindowsUpdatesEnabled", Unknown, "missing"},
	{"start unread", broken(`SYSTEM\ControlSet001\Services\TrustedInstaller\Start`), Options{}, "WindowsUpdatesEnabled", Unknown, "bad cell"},

	{"RebootRequired kept", reg(`[` + wcv + `\WindowsUpdate\Auto Update\RebootRequired]`), Options{}, "PendingReboot", Fail, "Windows Update wants a restart"},
	{"RebootPending kept", reg(`[` + wcv + `\Component Based Servicing\RebootPending]`), Options{}, "PendingReboot", Fail, "servicing wants"},
	{"RebootInProgress", reg(`[` + wcv + `\Component Based Servicing\RebootInProgress]`), Options{}, "PendingReboot", Fail, "interrupted"},
	{"PackagesPending", reg(`[` + wcv + `\Component Based Servicing\PackagesPending]`), Options{}, "PendingReboot", Fail, "packages wait"},
	{"session", reg(`[` + wcv + `\Component Based Servicing\SessionsPending]` + "\n" + `"Exclusive"=dword:3`), Options{}, "PendingReboot", Fail, "session"},
	{"no session", reg(`[` + wcv + `\Component Based Servicing\SessionsPending]` + "\n" + `"Exclusive"=dword:0`), Options{}, "PendingReboot", Pass, ""},
	{"pending service", reg(`[` + wcv + `\WindowsUpdate\Services\Pending\{7971F918-A847-4430-9279-4A52D1EFE18D}]`), Options{}, "PendingReboot", Fail, "update service"},
	{"no pending service", reg(`[` + wcv + `\WindowsUpdate\Services\Pending]`), Options{}, "PendingReboot", Pass, ""},
	{"DVDRebootSignal", reg(`[` + wcv + `\RunOnce]` + "\n" + `"DVDRebootSignal"="x"`), Options{}, "PendingReboot", Fail, "feature"},
	{"pending.xml", file("Windows/WinSxS/pending.xml", "<xml/>"), Options{}, "PendingReboot", Fail, "pending.xml"},
	{"poqexec", reg(manager + `"SetupExecute"="C:\\Windows\\System32\\poqexec.exe /display_progress"`), Options{}, "PendingReboot", Fail, "SetupExecute"},
	{"another SetupExecute", reg(manager + `"SetupExecute"="autochk"`), Options{}, "PendingReboot", Pass, ""},
	{"renames alone", reg(manager + `"PendingFileRenameOperations"=hex(7):5c,00,3f,00,00,00,00,00,00,00`), Options{}, "PendingReboot", Pass, "moves or deletes a few files"},
	{"pending.xml unread", broken("c:/windows/winsxs/pending.xml"), Options{}, "PendingReboot", Unknown, "bad cell"},
	{"pending.xml unread, but packages wait", both(reg(`[`+wcv+`\Component Based Servicing\PackagesPending]`), broken("c:/windows/winsxs/pending.xml")), Options{}, "PendingReboot", Fail, "packages wait"},
	{"running and wants a restart", while(func(a *answers) { a.restart = []string{"Windows Update", "a driver"} }), Options{}, "PendingReboot", Fail, "Windows Update, a driver"},
	{"running and does not say", while(func(a *answers) { a.restart = nil }), Options{}, "PendingReboot", Unknown, "WMI does not answer"},

	{"updated in time", reg(``), Options{}, "UpdatesNotCurrent", Pass, "installed on 22 September 2020, after that month's came out on 8 September 2020"},
	{"shut down on the day before", stopped(on(2020, 10, 12)), Options{}, "UpdatesNotCurrent", Pass, ""},
	{"shut down on the update day", stopped(on(2020, 10, 13)), Options{}, "UpdatesNotCurrent", Warn, "the cumulative update of 13 October 2020 is missing"},
	{"after the release's last updates", both(stopped(on(2023, 6, 1)), reg(`[`+pkg+`]`+"\n"+`"InstallTimeHigh"=dword:01d7f500`)), Options{}, "UpdatesNotCurrent", Pass, "came out on 14 December 2021"},
	{"after the release's last updates, without them", stopped(on(2023, 6, 1)), Options{}, "UpdatesNotCurrent", Warn, "the cumulative update of 14 December 2021 is missing"},
	{"Pro after its last updates", both(build10("17134", "Professional"), stopped(on(2021, 4, 1)), reg(`[`+pkg+`]`+"\n"+`"InstallTimeHigh"=dword:01d59b50`)), Options{}, "UpdatesNotCurrent", Pass, "came out on 12 November 2019"},
	{"Enterprise when Pro's have ended", both(build10("17134", "Enterprise"), stopped(on(2021, 4, 1)), reg(`[`+pkg+`]`+"\n"+`"InstallTimeHigh"=dword:01d59b50`)), Options{}, "UpdatesNotCurrent", Warn, "of 9 March 2021 is missing"},
	{"never updated, at ingestion", gone(pkg), Options{Ingestion: true}, "UpdatesNotCurrent", NotApplicable, ""},
	{"a password left behind, at ingestion", reg(`[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]` + "\n" + `"DefaultPassword"="Pa55word!"`), Options{Ingestion: true}, "AutoLogonPasswordLeft", NotApplicable, ""},
	{"never updated", gone(pkg), Options{}, "UpdatesNotCurrent", Warn, "ever installed"},
	{"superseded", reg(`[` + pkg + `]` + "\n" + `"CurrentState"=dword:50`), Options{}, "UpdatesNotCurrent", Warn, "ever installed"},
	{"installed at no time", reg(`[` + pkg + `]` + "\n" + `"InstallTimeHigh"=dword:ffffffff`), Options{}, "UpdatesNotCurrent", Warn, "ever installed"},
	{"packages gone", gone(wcv + `\Component Based Servicing\Packages`), Options{}, "UpdatesNotCurrent", Unknown, "missing"},
	{"install time unread", broken(pkg + `\InstallTimeLow`), Options{}, "UpdatesNotCurrent", Unknown, "bad cell"},
	{"shut down at no time", reg(`[SYSTEM\ControlSet001\Control\Windows]` + "\n" + `"ShutdownTime"=hex:00,00,00,00,00,00,00,00`), Options{}, "UpdatesNotCurrent", Unknown, "no time of this century"},
	{"shutdown time cut", reg(`[SYSTEM\ControlSet001\Control\Windows]` + "\n" + `"ShutdownTime"=hex:00,00,00`), Options{}, "UpdatesNotCurrent", Unknown, "3 bytes"},

	{"no reserve", reg(``), Options{}, "ReservedStorageInUse", Pass, "is absent"},
	{"shipped with reserves", reg(`[` + wcv + `\ReserveManager]` + "\n" + `"ShippedWithReserves"=dword:1`), Options{}, "ReservedStorageInUse", Fail, "keeps storage"},
	{"reserve in use", reg(`[` + wcv + `\ReserveManager]` + "\n" + `"ActiveScenario"=dword:3`), Options{}, "ReservedStorageInUse", Fail, "scenario 3"},
	{"1809 knows none", both(build10("17763", "Enterprise"), reg(`[`+wcv+`\ReserveManager]`+"\n"+`"ShippedWithReserves"=dword:1`)), Options{}, "ReservedStorageInUse", Pass, "knows no reserved"},
	{"reserve unread", broken(wcv + `\ReserveManager`), Options{}, "ReservedStorageInUse", Unknown, "bad cell"},

	{"a password left behind", reg(`[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]` + "\n" + `"DefaultPassword"="Pa55word!"`), Options{}, "AutoLogonPasswordLeft", Warn, "readable to every user"},
	{"an empty password", reg(`[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]` + "\n" + `"DefaultPassword"=""`), Options{}, "AutoLogonPasswordLeft", Pass, ""},
	{"a secret", reg(`[SECURITY\Policy\Secrets\DefaultPassword]`), Options{}, "AutoLogonPasswordLeft", Pass, "keeps a secret of that name"},
	{"password unread", broken(`SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon\DefaultPassword`), Options{}, "AutoLogonPasswordLeft", Unknown, "bad cell"},
}

func TestUpdateDay(t *testing.T) {
	for _, c := range []struct{ at, want time.Time }{
		{on(2020, 9, 8), on(2020, 9, 8)},
		{on(2020, 9, 7), on(2020, 8, 11)},
		{on(2020, 9, 30), on(2020, 9, 8)},
		{on(2021, 1, 1), on(2020, 12, 8)},
		{on(2022, 2, 8), on(2022, 2, 8)},    // a month that begins with a Tuesday
		{on(2022, 11, 30), on(2022, 11, 8)}, // another
		{on(2026, 7, 31), on(2026, 7, 14)},  // one that begins with a Wednesday
	} {
		got := updateDay(c.at)
		if got.Format(time.DateOnly) != c.want.Format(time.DateOnly) || got.Weekday() != time.Tuesday || got.After(c.at) {
			t.Errorf("before %v it is %v, want %v", c.at, got, c.want)
		}
	}
}

// TestLastUpdates: the days are days, and those of every release of the profiles are there.
func TestLastUpdates(t *testing.T) {
	for build, d := range lastUpdates {
		for _, text := range []string{d.enterprise, d.pro, d.longTerm} {
			if text == "" {
				continue
			}
			day, err := time.Parse(time.DateOnly, text)
			if err != nil || day.Weekday() != time.Tuesday || day.Day() < 8 || day.Day() > 14 {
				t.Errorf("build %d: %s is no second Tuesday (%v)", build, text, err)
			}
		}
	}
	for _, p := range Profiles() {
		for _, r := range p.Releases {
			for _, e := range r.Editions {
				if lastUpdateOf(r.Build, e).IsZero() {
					t.Errorf("%s: the last updates of %s %s (%s) are not known", p.Name, r.Windows, r.Version, e)
				}
			}
		}
	}
	if got := lastUpdateOf(19044, "EnterpriseS"); got.Year() != 2027 {
		t.Errorf("LTSC 2021 ends %v", got)
	}
}
