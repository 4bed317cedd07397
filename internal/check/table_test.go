package check

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"berth/internal/phony/phonytest"
)

var update = flag.Bool("update", false, "rewrite the golden files and docs/checks.md")

// amazonCodes is the enumeration WorkspaceImageErrorDetailCode of the WorkSpaces API of 2015-04-08.
const amazonCodes = `
	OutdatedPowershellVersion OfficeInstalled PCoIPAgentInstalled WindowsUpdatesEnabled AutoMountDisabled
	WorkspacesBYOLAccountNotFound WorkspacesBYOLAccountDisabled DHCPDisabled DiskFreeSpace AdditionalDrivesAttached
	OSNotSupported DomainJoined AzureDomainJoined FirewallEnabled VMWareToolsInstalled DiskSizeExceeded
	IncompatiblePartitioning PendingReboot AutoLogonEnabled RealTimeUniversalDisabled MultipleBootPartition Requires64BitOS
	ZeroRearmCount InPlaceUpgrade AntiVirusInstalled UEFINotSupported UnknownError AppXPackagesInstalled
	ReservedStorageInUse AdditionalDrivesPresent WindowsUpdatesRequired SysPrepFileMissing UserProfileMissing
	InsufficientDiskSpace EnvironmentVariablesPathMissingEntries DomainAccountServicesFound InvalidIp
	RemoteDesktopServicesDisabled WindowsModulesInstallerDisabled AmazonSsmAgentEnabled UnsupportedSecurityProtocol
	MultipleUserProfiles StagedAppxPackage UnsupportedOsUpgrade InsufficientRearmCount ProtocolOSIncompatibility
	MemoryIntegrityIncompatibility RestrictedDriveLetterInUse`

// TestTable: every row is complete and can be told from the others.
func TestTable(t *testing.T) {
	amazon := map[string]bool{}
	for _, c := range table {
		if c.Amazon() {
			amazon[c.Code] = true
		}
	}
	seen := map[string]bool{}
	for _, c := range table {
		if seen[c.Code] {
			t.Errorf("%s is there twice", c.Code)
		}
		seen[c.Code] = true
		if c.Code == "" || c.Title == "" || c.Source == "" || c.Evaluation == "" || c.Remedy == "" || c.judge == nil {
			t.Errorf("%s is not complete", c.Code)
		}
		if c.Level != Fail && c.Level != Warn {
			t.Errorf("%s has level %q", c.Code, c.Level)
		}
		if c.DecidedIn != OnDisk && c.DecidedIn != InGuest {
			t.Errorf("%s is decided in %q", c.Code, c.DecidedIn)
		}
		if (c.Fix == "") != (c.fix == nil) || c.Fixable && c.fix == nil {
			t.Errorf("%s: fixable %v, fix %q, and there is one: %v", c.Code, c.Fixable, c.Fix, c.fix != nil)
		}
		if !amazon[c.ReportAs] {
			t.Errorf("%s is reported as %q, which is no code of Amazon's in the table", c.Code, c.ReportAs)
		}
		for _, p := range c.Profiles {
			if _, ok := ProfileByName(p); !ok || p == "" {
				t.Errorf("%s names profile %q", c.Code, p)
			}
		}
		if strings.HasSuffix(c.Title, ".") {
			t.Errorf("%s: the title ends in a full stop", c.Code)
		}
		if got, ok := Describe(c.Code); !ok || got.Title != c.Title {
			t.Errorf("Describe(%s) is %v, %v", c.Code, got.Title, ok)
		}
	}
	if _, ok := Describe("NoSuchCode"); ok {
		t.Error("Describe knows NoSuchCode")
	}
	for _, code := range strings.Fields(amazonCodes) {
		if !amazon[code] {
			t.Errorf("no row for Amazon's %s", code)
		}
		delete(amazon, code)
	}
	for code := range amazon {
		t.Errorf("%s passes for a code of Amazon's", code)
	}
	if list := Checks(); len(list) != len(table) {
		t.Errorf("Checks has %d rows, the table %d", len(list), len(table))
	} else if list[0].Code = "changed"; table[0].Code == "changed" {
		t.Error("Checks hands out the table itself")
	}
}

// TestDocs keeps docs/checks.md what the table says.
func TestDocs(t *testing.T) {
	phonytest.Golden(t, *update, "../../docs/checks.md", markdown())
	if _, err := LoadProfile([]byte(acmeDoc)); err != nil {
		t.Errorf("the sample profile: %v", err)
	}
}

func markdown() string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	p("# Checks")
	p("")
	p("Generated from the table in `internal/check`; `go test ./internal/check -update` rewrites it.")
	p("")
	p("A check comes out PASS, FAIL, WARN, UNKNOWN or NOT_APPLICABLE. A machine is **fit** when no check that applies is FAIL or WARN and")
	p("none is UNKNOWN, except those that only a running Windows can decide: they stay open until the checker is run in it. Ingestion turns every WARN into")
	p("FAIL, and every UNKNOWN that is not left to the guest. `berth check` exits with %d when the machine is fit, %d when a check failed or", ExitFit, ExitUnfit)
	p("warned, and %d when none did but something that is needed to call it fit could not be read.", ExitUnreadable)
	p("")
	p("Codes are Amazon's, those of `WorkspaceImageErrorDetailCode`. Where Amazon has none the code is Berth's own, and the WorkSpaces API reports it as the one")
	p("in brackets. A fix on the disk is an edit of the powered-off disk's registry (`berth fix`); one in the guest is made in the running Windows.")
	p("")
	p("Sources: \"document\" is Amazon's page \"Bring Your Own Windows Desktop Licenses\" of September 2020, \"facts\" the project's collection of facts around it (byol-facts), by")
	p("section.")
	p("")
	p("| code | requirement | when not met | decided on | fixed |")
	p("|---|---|---|---|---|")
	for _, c := range table {
		p("| [%s](#%s)%s | %s | %s | %s | %s |", c.Code, strings.ToLower(c.Code), reportedAs(c), c.Title, c.Level, c.DecidedIn, fixedIn(c))
	}
	p("")
	p("## Profiles")
	p("")
	p("Sizes are GiB; where Amazon writes GB it means these.")
	p("")
	p("| requirement |%s", strings.Repeat(" |", len(profiles())))
	p("|---|%s", strings.Repeat("---|", len(profiles())))
	row := func(what string, cell func(Profile) (string, string)) {
		line := "| " + what + " |"
		for _, pr := range profiles() {
			value, source := cell(pr)
			line += " " + value + " <sub>" + markdownText(source) + "</sub> |"
		}
		p("%s", line)
	}
	row("profile", func(pr Profile) (string, string) { return "`" + pr.Name + "`", pr.Title })
	for _, n := range []struct {
		what string
		of   func(Profile) Requirement[int]
	}{
		{"C: at most", func(p Profile) Requirement[int] { return p.MaxVolumeGiB }},
		{"disk at most", func(p Profile) Requirement[int] { return p.MaxDiskGiB }},
		{"free at least", func(p Profile) Requirement[int] { return p.MinFreeGiB }},
		{"free with Office", func(p Profile) Requirement[int] { return p.MinFreeOfficeGiB }},
		{"Windows PowerShell at least", func(p Profile) Requirement[int] { return p.MinPowerShell }},
		{"WorkSpaces at least (not checked)", func(p Profile) Requirement[int] { return p.MinWorkSpaces }},
		{"with graphics, AlwaysOn (not checked)", func(p Profile) Requirement[int] { return p.MinGraphicsAlwaysOn }},
		{"with graphics, AutoStop (not checked)", func(p Profile) Requirement[int] { return p.MinGraphicsAutoStop }},
	} {
		row(n.what, func(p Profile) (string, string) { r := n.of(p); return fmt.Sprint(r.Value), r.Source })
	}
	row("language", func(p Profile) (string, string) { return p.Language.Value, p.Language.Source })
	row("Microsoft 365 apps", func(p Profile) (string, string) {
		return allowed(p.AllowMicrosoft365.Value), p.AllowMicrosoft365.Source
	})
	p("")
	p("A profile of your own is a file for `berth check --profile FILE`: a name, one of these as its base, and what differs, each with its source.")
	p("What is left out is NOT_APPLICABLE, programs that are allowed are named by how their display names begin.")
	p("")
	p("```json")
	p("%s", acmeDoc)
	p("```")
	p("")
	p("| profile | Windows | build | editions (EditionID) | partition table | firmware | protocols |")
	p("|---|---|---|---|---|---|---|")
	for _, pr := range profiles() {
		for _, r := range pr.Releases {
			p("| `%s` | %s %s | %d | %s | %s | %s%s | %s |", pr.Name, r.Windows, r.Version, r.Build, strings.Join(r.Editions, ", "), r.Scheme, r.Firmware, tpm(r), protocols(r))
		}
	}
	for _, c := range table {
		p("")
		p("## %s", c.Code)
		p("")
		p("%s.", c.Title)
		p("")
		p("- When not met: %s%s", c.Level, reportedAs(c))
		p("- Decided on: %s", map[Place]string{OnDisk: "the powered-off disk", InGuest: "the running Windows; open until then"}[c.DecidedIn])
		p("- Applies to: %s", markdownText(appliesTo(c)))
		p("- Source: %s", c.Source)
		if c.Evaluation != "" {
			p("- Evaluation: %s", markdownText(c.Evaluation))
		}
		if c.fix != nil {
			p("- Fix, %s: %s.", map[Place]string{OnDisk: "on the powered-off disk", InGuest: "in the running Windows"}[Place(fixedIn(c))], markdownText(c.Fix))
		}
		was := "- "
		for step := range strings.SplitSeq(c.Remedy, "\n") {
			command, ok := strings.CutPrefix(step, "  ")
			if is := step[:2]; is != was { // a blank line between text and commands, and between steps
				p("")
			}
			if was = "- "; ok {
				was = "  "
				p("    %s", command)
				continue
			}
			p("%s", markdownText(step))
		}
	}
	return b.String()
}

func appliesTo(c Check) string {
	parts := []string{"every profile", "every ingestion process"}
	if c.Applies != "" {
		parts[1] = c.Applies
	}
	if len(c.Profiles) > 0 {
		parts[0] = "profiles " + strings.Join(c.Profiles, ", ")
	}
	return strings.Join(parts, "; ")
}

func reportedAs(c Check) string {
	if c.Amazon() {
		return ""
	}
	return " (" + c.ReportAs + ")"
}

func fixedIn(c Check) string {
	switch {
	case c.fix == nil:
		return "by hand"
	case c.Fixable:
		return string(OnDisk)
	}
	return string(InGuest)
}

func tpm(r Release) string {
	if r.TPM {
		return ", TPM"
	}
	return ""
}

func protocols(r Release) string {
	var list []string
	for _, p := range r.Protocols {
		list = append(list, string(p))
	}
	return strings.Join(list, ", ")
}

// acmeDoc is the sample of docs/checks.md; TestDocs reads it.
const acmeDoc = `{
  "name": "acme-2026",
  "base": "2026",
  "minFreeGiB": {"value": 30, "source": "ACME desktop standard 4.2"},
  "minFreeOfficeGiB": {"value": 30, "source": "ACME desktop standard 4.2"},
  "leaveOut": {"value": ["VMWareToolsInstalled"], "source": "they go with the first update"}
}`

func allowed(b bool) string {
	if b {
		return "allowed"
	}
	return "refused"
}

// markdownText keeps what looks like markup from being it.
func markdownText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, `<`, `\<`, `>`, `\>`).Replace(s)
}

// TestLanguages: the names are spelt as Windows spells them and none is there twice.
func TestLanguages(t *testing.T) {
	var names []string
	for id, name := range languages {
		if len(name) < 5 || name[2] != '-' || id&0xff == 0 {
			t.Errorf("%04x is called %s", id, name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != len(languages) {
		t.Error("a name is there twice")
	}
	if got := languageName(0x0409); got != "en-US" {
		t.Errorf("0409 is %s", got)
	}
	if got := languageName(0x1234); got != "language 1234" {
		t.Errorf("1234 is %s", got)
	}
}
