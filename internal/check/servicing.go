package check

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/internal/windows"
)

// servicingChecks are the checks on Windows's updates.
var servicingChecks = []Check{
	{
		Code: "WindowsUpdatesEnabled", ReportAs: "WindowsUpdatesEnabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:      "Windows Update is disabled and the Windows Modules Installer starts on demand",
		Source:     "document, Step 2 (the checker disables the Windows Update service); facts §4.2",
		Evaluation: "Start of the service wuauserv must be 4 (disabled) and Start of TrustedInstaller 3 (on demand), both.",
		Fix:        "The start types of wuauserv and TrustedInstaller are set to 4 and 3, unless a restart is pending for which TrustedInstaller was set to start by itself",
		Remedy: steps(
			"Install the latest updates first. Then:",
			"  net stop wuauserv",
			"  sc.exe config wuauserv start= disabled",
			"  sc.exe config TrustedInstaller start= demand"),
		judge: judgeUpdateServices,
		fix:   fixUpdateServices,
	},
	{
		Code: "PendingReboot", ReportAs: "PendingReboot", Level: Fail, DecidedIn: OnDisk,
		Title:      "Nothing waits for a restart",
		Source:     "facts §4.2",
		Evaluation: "Nothing may be left for the next start: no pending packages, session or interrupted restart of Component Based Servicing, no pending.xml, no poqexec in SetupExecute, no pending update service, no restart that Windows Update asks for. Windows's own marks vanish when it shuts down; a running Windows is asked for them besides. PendingFileRenameOperations alone is told and is no failure, as with Amazon's checker.",
		Remedy: steps(
			"Restart, let Windows finish what it has begun, sign in, and shut down:",
			"  shutdown /r /t 0",
			"Where it comes back at every start, look for what cannot be finished:",
			"  notepad C:\\Windows\\Logs\\CBS\\CBS.log"),
		judge: judgePendingReboot,
	},
	{
		Code: "UpdatesNotCurrent", ReportAs: "UnknownError", Level: Warn, DecidedIn: OnDisk,
		Title:      "The updates that were out when Windows was last shut down are installed",
		Source:     `document, Requirements (latest Windows patches) and Step 2`,
		Applies:    "before the export; ingestion does not refuse an image for it",
		Evaluation: "The newest cumulative update (Package_for_RollupFix, installed) must have been installed on or after the last second Tuesday of a month before Windows was shut down, or before the release's updates ended. What came out since is not known here and not asked.",
		Remedy: steps(
			"Switch Windows Update on again, look for updates until there are none, and restart each time:",
			"  sc.exe config wuauserv start= demand",
			"  start ms-settings:windowsupdate",
			"Then switch it off (WindowsUpdatesEnabled)."),
		judge: judgeUpdates,
	},
	{
		Code: "ReservedStorageInUse", ReportAs: "ReservedStorageInUse", Level: Fail, DecidedIn: OnDisk, Fixable: true,
		Title:      "Windows keeps no storage in reserve for updates",
		Source:     "facts §4.2 (service side), §14",
		Evaluation: "ShippedWithReserves and ActiveScenario of ReserveManager must be absent or 0. Builds before 18362 know no reserve.",
		Fix:        "ShippedWithReserves and ActiveScenario are set to 0",
		Remedy: steps(
			"Once the updates are installed:",
			`  reg add HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\ReserveManager /v ShippedWithReserves /t REG_DWORD /d 0 /f`,
			`  reg add HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\ReserveManager /v ActiveScenario /t REG_DWORD /d 0 /f`,
			"  DISM /Online /Set-ReservedStorageState /State:Disabled",
			"DISM knows it from version 2004 on; before that the two values and a restart do. It refuses while updates are being installed: restart, and repeat it."),
		judge: judgeReserve,
		fix:   fixReserve,
	},
}

const (
	cbs           = `Microsoft\Windows\CurrentVersion\Component Based Servicing`
	windowsUpdate = `Microsoft\Windows\CurrentVersion\WindowsUpdate`
	services      = currentControlSet + `\Services\`
	reserveKey    = `Microsoft\Windows\CurrentVersion\ReserveManager`

	// startOnDemand is a service's Start of one that is started when it is needed (SERVICE_DEMAND_START, winnt.h).
	startOnDemand = 3
	// maxServicing bounds the packages of Component Based Servicing. Years of updates make some ten thousand.
	maxServicing = 100_000
	// maxRollups bounds the cumulative updates that are looked at: one a month, and their previews, in a Windows's life.
	maxRollups = 1_000
	// packageInstalled is a package's CurrentState when it is installed and nothing newer has taken its place (cbsapi.h, CbsInstallStateInstalled).
	packageInstalled = 0x70
	// rollup begins the name of a cumulative update's package.
	rollup = "package_for_rollupfix~"
)

// servicing reads the state of Windows's updates.
func (r *reader) servicing(f *Facts) {
	f.WindowsUpdateStart = value(r, windows.SystemHive, services+`wuauserv`, "Start", always, 0, number)
	f.ModulesInstallerStart = value(r, windows.SystemHive, services+`TrustedInstaller`, "Start", always, 0, number)
	f.PendingRestart = r.pendingRestart()
	f.PendingRenames = value(r, windows.SystemHive, currentControlSet+`\Control\Session Manager`, "PendingFileRenameOperations", keyAlways, false,
		func(v windows.Value) (bool, string, error) {
			return len(v.Data) > 4, fmt.Sprintf("%d bytes", len(v.Data)), nil // an empty list is one or two NULs
		})
	f.LastUpdate = r.lastUpdate()
	f.ShutDown = value(r, windows.SystemHive, currentControlSet+`\Control\Windows`, "ShutdownTime", always, time.Time{}, filetime)
	f.ReserveShipped = value(r, windows.Software, reserveKey, "ShippedWithReserves", optional, 0, number)
	f.ReserveScenario = value(r, windows.Software, reserveKey, "ActiveScenario", optional, 0, number)
}

// pendingRestart looks for what the next start has left to do. Windows's own marks for "restart me" are volatile and not on a
// powered-off disk; what a restart would do is, because it has to survive it (facts §4.2, PendingReboot). A running Windows is
// asked besides.
func (r *reader) pendingRestart() Known[[]string] {
	var t traces
	t.add("Windows Update wants a restart", r.present(windows.Software, windowsUpdate+`\Auto Update\RebootRequired`))
	t.add("servicing wants a restart", r.present(windows.Software, cbs+`\RebootPending`))
	t.add("servicing was interrupted by a restart", r.present(windows.Software, cbs+`\RebootInProgress`))
	t.add("packages wait to be installed", r.present(windows.Software, cbs+`\PackagesPending`))
	t.add("a servicing session is not finished", value(r, windows.Software, cbs+`\SessionsPending`, "Exclusive", optional, false, boolean))
	_, services := r.list(windows.Software, windowsUpdate+`\Services\Pending`, maxPrograms)
	t.add("an update service waits to be registered", some(services))
	t.add("a feature's set-up waits for a restart", value(r, windows.Software, `Microsoft\Windows\CurrentVersion\RunOnce`, "DVDRebootSignal", optional, false,
		func(windows.Value) (bool, string, error) { return true, "set", nil }))
	t.add("changes to components wait in pending.xml", r.exists("Windows/WinSxS/pending.xml"))
	t.add("changes to components wait in SetupExecute", value(r, windows.SystemHive, currentControlSet+`\Control\Session Manager`, "SetupExecute", keyAlways, false,
		func(v windows.Value) (bool, string, error) {
			list, shown, err := texts(v)
			return slices.ContainsFunc(list, func(s string) bool {
				s = strings.ToLower(s)
				return strings.Contains(s, "poqexec") || strings.Contains(s, "pending.xml")
			}), shown, err
		}))
	if r.running {
		reasons, err := ask(r, "pending restart", windows.Guest.PendingReboot)
		if err != nil {
			t.add("", unread[bool](asked("pending restart", "the running Windows"), why(err)))
		} else {
			t.add("", read(false, asked("pending restart", fmt.Sprintf("the running Windows tells of %d reasons for a restart", len(reasons)))))
		}
		for _, reason := range reasons[:min(len(reasons), maxReasons)] {
			t.add(reason, read(true, asked("pending restart", "the running Windows says: "+printable(reason))))
		}
	}
	return t.known()
}

// maxReasons bounds what a running Windows may say at once.
const maxReasons = 50

// some tells whether a list has entries.
func some(list Known[[]string]) Known[bool] {
	if !list.OK() {
		return likewise[bool](list)
	}
	return read(len(list.Value) > 0, list.From...)
}

// lastUpdate finds the cumulative update that was installed last.
func (r *reader) lastUpdate() Known[Update] {
	at := r.at(windows.Software, cbs+`\Packages`)
	k, names, err := r.subkeys(windows.Software, cbs+`\Packages`, maxServicing)
	if err != nil {
		return unread[Update](at, why(err))
	}
	at = at.of(k)
	var last Update
	from := at.plus(" has no cumulative update that is installed")
	looked := 0
	for _, name := range names {
		if len(name) < len(rollup) || !strings.EqualFold(name[:len(rollup)], rollup) {
			continue
		}
		if looked++; looked > maxRollups {
			return unread[Update](at, fmt.Sprintf("it has more than %d cumulative updates", maxRollups))
		}
		sub, err := k.Open(name)
		if err != nil {
			return unread[Update](at.below(name), why(err))
		}
		here := at.below(name)
		state := valueOf(r, sub, here, "CurrentState", keyAlways, 0, number)
		high := valueOf(r, sub, here, "InstallTimeHigh", keyAlways, 0, number)
		low := valueOf(r, sub, here, "InstallTimeLow", keyAlways, 0, number)
		for _, k := range []fact{state, high, low} {
			if ok, _, _ := k.state(); !ok {
				return likewise[Update](k)
			}
		}
		installed := timeOf(uint64(high.Value)<<32 | uint64(low.Value))
		if state.Value == packageInstalled && installed.After(last.Installed) {
			last = Update{Package: name, Installed: installed}
			from = here.of(sub).plus(" was installed on " + day(installed))
		}
	}
	return read(last, from)
}

// timeOf reads a FILETIME: units of 100 ns since 1601. What lies outside the years that make sense is the zero time.
func timeOf(t uint64) time.Time {
	const epoch = 11644473600 // seconds from 1601 to 1970
	at := time.Unix(int64(t/1e7)-epoch, int64(t%1e7)*100).UTC()
	if at.Year() < 2000 || at.Year() > 2200 {
		return time.Time{}
	}
	return at
}

func filetime(v windows.Value) (time.Time, string, error) {
	if len(v.Data) != 8 {
		return time.Time{}, "", fmt.Errorf("a time of %d bytes, not 8", len(v.Data))
	}
	n := binary.LittleEndian.Uint64(v.Data)
	t := timeOf(n)
	if t.IsZero() {
		return t, "", fmt.Errorf("%d is no time of this century or the next", n)
	}
	return t, t.Format("2006-01-02 15:04:05") + " UTC", nil
}

func day(t time.Time) string { return t.Format("2 January 2006") }

// updateDay is the last day on or before t on which Microsoft published updates for Windows: the second Tuesday of every month,
// at ten in the morning in Redmond.
func updateDay(t time.Time) time.Time {
	for month := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC); ; month = month.AddDate(0, -1, 0) {
		tuesday := month.AddDate(0, 0, (int(time.Tuesday)-int(month.Weekday())+7)%7+7).Add(18 * time.Hour)
		if !tuesday.After(t) {
			return tuesday
		}
	}
}

// lastUpdates are the days of the last updates for Enterprise, Pro, and Enterprise with long-term servicing, by build.
// Pro gets them for a shorter time. They are Microsoft's dates of "end of servicing" (Windows lifecycle fact sheet), which do not change once
// a release is out.
var lastUpdates = map[int]struct{ enterprise, pro, longTerm string }{
	17134: {"2021-05-11", "2019-11-12", ""}, 17763: {"2021-05-11", "2020-11-10", "2029-01-09"}, 18362: {"2020-12-08", "2020-12-08", ""},
	18363: {"2022-05-10", "2021-05-11", ""}, 19041: {"2021-12-14", "2021-12-14", ""}, 19042: {"2023-05-09", "2022-05-10", ""},
	19043: {"2022-12-13", "2022-12-13", ""}, 19044: {"2024-06-11", "2023-06-13", "2027-01-12"}, 19045: {"2025-10-14", "2025-10-14", ""},
	22621: {"2025-10-14", "2024-10-08", ""}, 22631: {"2026-11-10", "2025-11-11", ""}, 26100: {"2027-10-12", "2026-10-13", "2029-10-09"},
	26200: {"2028-10-10", "2027-10-12", ""},
}

// lastUpdateOf is the end of a release's last day of updates; zero where it is not known.
func lastUpdateOf(build int, edition string) time.Time {
	days := lastUpdates[build]
	date := days.enterprise
	switch {
	case strings.HasPrefix(edition, "Professional"):
		date = days.pro
	case isLTSC(edition) && days.longTerm != "":
		date = days.longTerm
	}
	t, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return time.Time{}
	}
	return t.Add(24 * time.Hour)
}

func judgeUpdateServices(f *Facts, _ Params) Verdict {
	on := []fact{f.WindowsUpdateStart, f.ModulesInstallerStart}
	var wrong []string
	if f.WindowsUpdateStart.OK() && f.WindowsUpdateStart.Value != serviceDisabled {
		wrong = append(wrong, "the Windows Update service is not disabled")
	}
	if f.ModulesInstallerStart.OK() && f.ModulesInstallerStart.Value != startOnDemand {
		wrong = append(wrong, "the Windows Modules Installer does not start on demand")
	}
	if len(wrong) > 0 {
		v := unmet(sentence(strings.Join(wrong, ", and "))+".", on...)
		// Servicing sets the installer to start by itself where the next start has to go on with it; it would not go on.
		if f.ModulesInstallerStart.Value == serviceAutomatic && (!f.PendingRestart.OK() || len(f.PendingRestart.Value) > 0) {
			v.Because += " Servicing may have to go on with it at the next start: restart first (PendingReboot)."
			v.ByHand = true
		}
		return v
	}
	if v, no := missing(on...); no {
		return v
	}
	return pass("Windows Update is disabled, and the Windows Modules Installer starts on demand.", on...)
}

// sentence begins with a capital letter.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func judgePendingReboot(f *Facts, _ Params) Verdict {
	on := []fact{f.PendingRestart, f.PendingRenames}
	if v, no := missing(f.PendingRestart); no {
		return v
	}
	if len(f.PendingRestart.Value) > 0 {
		return unmet("A restart is pending: "+names(f.PendingRestart.Value)+".", on...)
	}
	because := "The next start has nothing left to finish."
	if f.PendingRenames.Value {
		because += " It moves or deletes a few files, which programs ask for all the time."
	}
	return pass(because, on...)
}

func judgeUpdates(f *Facts, p Params) Verdict {
	on := []fact{f.LastUpdate, f.ShutDown, f.Build, f.Revision, f.EditionID}
	if p.Ingestion {
		return notRefused(on...)
	}
	if v, no := missing(f.LastUpdate, f.ShutDown, f.Build, f.EditionID); no {
		return v
	}
	until, what := f.ShutDown.Value, "Windows was last shut down on "+day(f.ShutDown.Value)
	if end := lastUpdateOf(f.Build.Value, f.EditionID.Value); !end.IsZero() && end.Before(until) {
		until, what = end, "Its last updates came out on "+day(end.Add(-24*time.Hour))
	}
	published := updateDay(until)
	switch last := f.LastUpdate.Value; {
	case last.Package == "":
		return unmet(fmt.Sprintf("%s, and no cumulative update was ever installed.", what), on...)
	case last.Installed.Before(published):
		return unmet(fmt.Sprintf("%s; the cumulative update of %s is missing. The last one was installed on %s.", what, day(published), day(last.Installed)), on...)
	}
	return pass(fmt.Sprintf("%s. A cumulative update was installed on %s, after that month's came out on %s. What came out since cannot be seen here.",
		what, day(f.LastUpdate.Value.Installed), day(published)), on...)
}

// firstReserved is the first build that keeps storage in reserve, 1903 (facts §4.2, ReservedStorageInUse).
const firstReserved = 18362

func judgeReserve(f *Facts, _ Params) Verdict {
	on := []fact{f.ReserveShipped, f.ReserveScenario, f.Build}
	switch {
	case f.ReserveShipped.OK() && f.ReserveShipped.Value != 0 && f.Build.OK() && f.Build.Value >= firstReserved:
		return unmet("Windows keeps storage in reserve for updates.", on...)
	case f.ReserveScenario.OK() && f.ReserveScenario.Value != 0 && f.Build.OK() && f.Build.Value >= firstReserved:
		return unmet(fmt.Sprintf("Windows is using its reserve of storage (scenario %d).", f.ReserveScenario.Value), on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	if f.Build.Value < firstReserved {
		return pass(windowsName(f.Build.Value)+" knows no reserved storage.", on...)
	}
	return pass("Windows keeps no storage in reserve.", on...)
}

func fixUpdateServices(*Facts, Params) []windows.Change {
	return []windows.Change{
		setDWORD(windows.SystemHive, services+`wuauserv`, "Start", serviceDisabled),
		setDWORD(windows.SystemHive, services+`TrustedInstaller`, "Start", startOnDemand),
	}
}

func fixReserve(*Facts, Params) []windows.Change {
	return []windows.Change{setDWORD(windows.Software, reserveKey, "ShippedWithReserves", 0), setDWORD(windows.Software, reserveKey, "ActiveScenario", 0)}
}
