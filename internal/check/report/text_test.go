package report

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"berth/internal/check"
	"berth/internal/phony/phonytest"
	"berth/internal/windows"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var written = time.Date(2020, 9, 14, 8, 30, 1, 0, time.UTC)

// unfit is a report with something of every kind.
func unfit() check.Report {
	const version, mount = `Microsoft\Windows NT\CurrentVersion`, `ControlSet001\Services\mountmgr`
	offset := int64(446)
	return check.Report{
		Profile: "seed-2020", Process: check.Regular, Notes: []string{"Amazon asks for 200 WorkSpaces per Region at least."}, Open: []string{"FirewallEnabled", "ZeroRearmCount"},
		Windows: check.Windows{Version: "2004", Build: "19041", Edition: "Enterprise", Language: "en-US", Architecture: "AMD64", HostName: "DESKTOP-1"},
		Findings: []check.Finding{
			{Code: "OSNotSupported", Outcome: check.Pass, Title: "The Windows version is one that the profile takes", Because: "This is Windows 10 version 2004 (build 19041), which profile seed-2020 takes.", Evidence: []check.Evidence{
				{Text: `SOFTWARE\` + version + `\CurrentBuildNumber = "19041" (REG_SZ)`, Hive: windows.Software, Key: version, Value: "CurrentBuildNumber", Type: "REG_SZ", Data: "19041", LastWrite: written, HiveState: "clean"},
				{Text: `SOFTWARE\` + version + `\DisplayVersion is absent`, Hive: windows.Software, Key: version, Value: "DisplayVersion", LastWrite: written, HiveState: "clean"},
			}},
			{Code: "VMWareToolsInstalled", Outcome: check.Fail, Title: "No hypervisor's guest tools are installed", Because: "Installed are: VMware Tools.", Evidence: []check.Evidence{
				{Text: `SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall\{A5CD39B7}\DisplayName = "VMware Tools" (REG_SZ)`, Hive: windows.Software, Key: `Microsoft\Windows\CurrentVersion\Uninstall\{A5CD39B7}`, Value: "DisplayName", Type: "REG_SZ", Data: "VMware Tools", LastWrite: written, HiveState: "clean"},
			}, Remedy: "Settings > Apps > Apps & features > the tools > Uninstall, and restart. For VMware Tools:\n  wmic product where \"name='VMware Tools'\" call uninstall /nointeractive"},
			{Code: "AutoMountDisabled", Outcome: check.Warn, Title: "Windows mounts new volumes by itself", Because: "NoAutoMount is 1.", Evidence: []check.Evidence{
				{Text: `SYSTEM\` + mount + `\NoAutoMount = 1 (REG_DWORD)`, Hive: windows.SystemHive, Key: mount, Value: "NoAutoMount", Type: "REG_DWORD", Data: "1", LastWrite: written, HiveState: "replayed from its logs (12 entries)"},
			}, Remedy: "In an elevated prompt:\n  mountvol /E", Fixable: true, Fix: &check.Fix{Code: "AutoMountDisabled", Place: check.OnDisk, Steps: []string{`set SYSTEM\CurrentControlSet\Services\mountmgr\NoAutoMount to 0 (REG_DWORD)`}}},
			{Code: "PCoIPAgentInstalled", Outcome: check.Warn, Title: "No PCoIP agent is installed", Because: "The PCoIP agent is installed.", Evidence: []check.Evidence{
				{Text: "C:/Program Files/Teradici/PCoIP Agent/uninst.exe", File: "C:/Program Files/Teradici/PCoIP Agent/uninst.exe"},
			}, Remedy: "Settings > Apps > Apps & features > PCoIP Agent > Uninstall.", Fix: &check.Fix{Code: "PCoIPAgentInstalled", Place: check.InGuest, Steps: []string{"uninstall PCoIP Agent"}}},
			{Code: "FirewallEnabled", Outcome: check.Unknown, Title: "Windows Firewall is off for public networks", Because: "This cannot be told: subkey list at 0x4f020: signature.", Evidence: []check.Evidence{
				{Text: `SYSTEM\ControlSet001\Services\SharedAccess: subkey list at 0x4f020: signature`, Hive: windows.SystemHive, Key: `ControlSet001\Services\SharedAccess`, HiveState: "damaged: subkey list at 0x4f020"},
			}, Remedy: "Start the machine, let it settle, and shut it down completely."},
			{Code: "ZeroRearmCount", Outcome: check.Unknown, Title: "Windows can be rearmed at least once", Because: "Only the running Windows knows.", Evidence: []check.Evidence{}, MayWait: true, Remedy: "Nothing to do on the disk."},
			{Code: "IncompatiblePartitioning", Outcome: check.Pass, Title: "The disk is partitioned as the Windows version asks", Because: "The disk has an MBR.", Evidence: []check.Evidence{
				{Text: "disk 0: MBR with 2 partitions", Disk: "disk 0", Structure: "MBR partition table", Offset: &offset},
			}},
			{Code: "ProtocolOSIncompatibility", Outcome: check.NotApplicable, Title: "The protocol goes with the Windows version", Because: "The profile does not ask for it.", Evidence: []check.Evidence{}},
		},
	}
}

// subject is what unfit is about.
func subject() Subject {
	return Subject{File: "win10 sample.ova", At: time.Date(2026, 11, 23, 7, 5, 9, 0, time.UTC), Version: "1.2.3", Notes: []string{"The digests of the manifest were not verified."}, Fix: "berth fix 'win10 sample.ova' -o fixed.qcow2"}
}

func text(t testing.TB, r check.Report, opt TextOptions) string {
	t.Helper()
	var b strings.Builder
	if err := Text(&b, r, subject(), opt); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	phonytest.Golden(t, *update, "testdata/unfit.txt", text(t, unfit(), TextOptions{}))
	phonytest.Golden(t, *update, "testdata/verbose.txt", text(t, unfit(), TextOptions{Verbose: true, Width: 60}))
}

func TestTextWidth(t *testing.T) {
	for _, width := range []int{0, 10, 60, 80, 120} {
		for line := range strings.Lines(text(t, unfit(), TextOptions{Width: width})) {
			want := width
			if width == 0 {
				want = 80
			}
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > max(want, minWidth) {
				t.Errorf("width %d: a line of %d columns: %q", width, n, line)
			}
		}
	}
}

func TestTextColours(t *testing.T) {
	coloured, without := text(t, unfit(), TextOptions{Color: true}), text(t, unfit(), TextOptions{})
	if strings.Contains(without, "\x1b") {
		t.Error("colours without a terminal")
	}
	if !strings.Contains(coloured, red) {
		t.Error("no colours on a terminal")
	}
	for _, sgr := range []string{red, yellow, green, cyan, bold, faint, plain} {
		coloured = strings.ReplaceAll(coloured, sgr, "")
	}
	if coloured != without {
		t.Errorf("without its colours the text differs:\n%s", coloured)
	}
}

// TestTextHostile: a report that was read back cannot steer the terminal or break a line.
func TestTextHostile(t *testing.T) {
	const evil = "\x1b]0;owned\x07\r\nPASS \u202e\u009b31m"
	r := unfit()
	r.Profile += evil
	r.Windows.HostName = evil
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Code, f.Title, f.Because, f.Remedy = f.Code+evil, f.Title+evil, f.Because+evil, f.Remedy+evil
	}
	out := text(t, r, TextOptions{})
	for _, bad := range []string{"\x1b", "\x07", "\r", "\u202e", "\u009b", "\nPASS "} {
		if strings.Contains(out, bad) {
			t.Errorf("the text has %q:\n%s", bad, out)
		}
	}
	if !strings.Contains(out, `\x1b]0;owned\x07`) {
		t.Errorf("the name is not shown at all:\n%s", out)
	}
}

type shut struct{}

func (shut) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestTextWriter(t *testing.T) {
	if err := Text(shut{}, unfit(), Subject{}, TextOptions{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed writer gives %v", err)
	}
}
