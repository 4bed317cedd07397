package report

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf16"

	"berth/internal/check"
	"berth/internal/phony/phonytest"
	"berth/internal/windows"
)

// renderers are all ways to write a report, by the name of its golden file.
var renderers = map[string]func(io.Writer, check.Report, Subject) error{
	"unfit.json":  JSON,
	"unfit.html":  HTML,
	"unfit.xml":   JUnit,
	"unfit.sarif": SARIF,
	"log.txt": func(w io.Writer, r check.Report, s Subject) error {
		_, err := io.WriteString(w, decode(Logs(r, nil, s)[0].Bytes))
		return err
	},
	"info.txt": func(w io.Writer, r check.Report, s Subject) error {
		_, err := io.WriteString(w, decode(Logs(r, nil, s)[1].Bytes))
		return err
	},
	"verbose.txt": func(w io.Writer, r check.Report, s Subject) error {
		return Text(w, r, s, TextOptions{Width: 60, Verbose: true})
	},
}

func render(t testing.TB, name string, r check.Report, s Subject) string {
	t.Helper()
	var b strings.Builder
	if err := renderers[name](&b, r, s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	for name := range renderers {
		r := unfit()
		if name == "unfit.sarif" { // its rules come from the table, which is not to be in a golden file twice
			for i := range r.Findings {
				r.Findings[i].Code = "Sample" + r.Findings[i].Code
			}
		}
		phonytest.Golden(t, *update, "testdata/"+name, render(t, name, r, subject()))
	}
}

func TestWriteErrors(t *testing.T) {
	for name, write := range renderers {
		if strings.HasSuffix(name, ".txt") && name != "verbose.txt" {
			continue // made in memory
		}
		err := write(shut{}, unfit(), subject())
		if err == nil {
			t.Errorf("%s: a closed writer is no error", name)
		}
	}
}

func TestVerdict(t *testing.T) {
	fit := check.Report{Fit: true, Findings: []check.Finding{{Code: "A", Outcome: check.Pass}}}
	if got := Verdict(fit); got != "FIT" {
		t.Errorf("a fit machine is %s", got)
	}
	if got := Verdict(unfit()); got != "NOT FIT" {
		t.Errorf("an unfit machine is %s", got)
	}
	open := check.Report{Findings: []check.Finding{{Code: "A", Outcome: check.Unknown}}}
	if got := Verdict(open); got != "CANNOT TELL" {
		t.Errorf("an open machine is %s", got)
	}
	// What does not exist as an outcome is never in order.
	if parts := Parts(check.Report{Findings: []check.Finding{{Code: "A", Outcome: "FINE"}}}, Subject{}); len(parts) != 1 || parts[0].Name != "unknown" {
		t.Errorf("an outcome that does not exist is in %v", parts)
	}
}

// TestParts: every finding is in one part, and the parts come in the order of what is to be done.
func TestParts(t *testing.T) {
	var got []string
	n := 0
	for _, p := range Parts(unfit(), Subject{}) {
		got = append(got, p.Name)
		n += len(p.Findings)
	}
	if want := []string{"blocks", "fixable", "script", "unknown", "guest", "passed", "notapplicable"}; !slices.Equal(got, want) || n != len(unfit().Findings) {
		t.Errorf("parts %v with %d findings", got, n)
	}
}

// TestPartsOfARunningWindows: whatever can be fixed is fixed in it, and no command for a disk is told.
func TestPartsOfARunningWindows(t *testing.T) {
	parts := Parts(unfit(), Subject{Running: true})
	i := slices.IndexFunc(parts, func(p Part) bool { return p.Name == "fixable" })
	if i < 0 || len(parts[i].Findings) != 2 || slices.ContainsFunc(parts, func(p Part) bool { return p.Name == "script" }) {
		t.Errorf("parts %v", parts)
	}
	if out := text(t, unfit(), TextOptions{}); !strings.Contains(out, "berth fix") {
		t.Errorf("a disk's report does not tell the command:\n%s", out)
	}
	var b strings.Builder
	if err := Text(&b, unfit(), Subject{Running: true}, TextOptions{}); err != nil || strings.Contains(b.String(), "copy of the disk") || strings.Contains(b.String(), "export it") {
		t.Errorf("a running Windows is told what concerns a disk: %v\n%s", err, b.String())
	}
}

// TestLogVerdicts: the log ends with what the checker's dialog says.
func TestLogVerdicts(t *testing.T) {
	for want, r := range map[string]check.Report{
		"Validation Successful\n":                      {Fit: true},
		"Validation failed\n":                          unfit(),
		"something that is needed could not be read\n": {Findings: []check.Finding{{Code: "A", Outcome: check.Unknown}}},
	} {
		if log := decode(Logs(r, nil, subject())[0].Bytes); !strings.HasSuffix(log, want) {
			t.Errorf("the log does not end with %q:\n%s", want, log)
		}
	}
}

func TestJSONReadsBack(t *testing.T) {
	var back check.Report
	if err := json.Unmarshal([]byte(render(t, "unfit.json", unfit(), subject())), &back); err != nil {
		t.Fatal(err)
	}
	if text(t, back, TextOptions{Verbose: true}) != text(t, unfit(), TextOptions{Verbose: true}) {
		t.Error("a report that was read back is another")
	}
}

func TestWriteJSON(t *testing.T) {
	in := map[string]string{"a": "\x1b\u009b\u202e<&>é🙂\U000e0001"}
	var b bytes.Buffer
	if err := WriteJSON(&b, in, ""); err != nil {
		t.Fatal(err)
	}
	if want := `{"a":"\u001b\u009b\u202e<&>é🙂\udb40\udc01"}` + "\n"; b.String() != want {
		t.Errorf("%s, want %s", b.String(), want)
	}
	var out map[string]string
	if err := json.Unmarshal(b.Bytes(), &out); err != nil || out["a"] != in["a"] {
		t.Errorf("%q, %v", out, err)
	}
}

// TestJUnit reads the XML as a CI system does: the counts are those of the elements, and it is green exactly when the machine is fit.
func TestJUnit(t *testing.T) {
	type problem struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
	type suite struct {
		Name      string `xml:"name,attr"`
		Tests     int    `xml:"tests,attr"`
		Failures  int    `xml:"failures,attr"`
		Errors    int    `xml:"errors,attr"`
		Skipped   int    `xml:"skipped,attr"`
		Timestamp string `xml:"timestamp,attr"`
		Cases     []struct {
			Name      string    `xml:"name,attr"`
			ClassName string    `xml:"classname,attr"`
			Time      string    `xml:"time,attr"`
			Failure   []problem `xml:"failure"`
			Error     []problem `xml:"error"`
			Skipped   []problem `xml:"skipped"`
		} `xml:"testcase"`
	}
	var got struct {
		XMLName  xml.Name `xml:"testsuites"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Suites   []suite  `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(render(t, "unfit.xml", unfit(), subject())), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Suites) != 1 || got.Tests != len(unfit().Findings) || got.Failures != 3 {
		t.Fatalf("the file says %+v", got)
	}
	s := got.Suites[0]
	if _, err := time.Parse("2006-01-02T15:04:05", s.Timestamp); err != nil {
		t.Error(err)
	}
	failures, errs, skipped := 0, 0, 0
	for _, c := range s.Cases {
		if c.Name == "" || c.ClassName == "" || c.Time == "" {
			t.Errorf("case %+v is not complete", c)
		}
		if len(c.Failure)+len(c.Error)+len(c.Skipped) > 1 {
			t.Errorf("case %s ended in several ways", c.Name)
		}
		failures, errs, skipped = failures+len(c.Failure), errs+len(c.Error), skipped+len(c.Skipped)
		for _, p := range append(c.Failure, c.Error...) {
			if p.Message == "" || p.Type == "" || !strings.Contains(p.Text, "Remedy:") {
				t.Errorf("case %s: problem %+v is not complete", c.Name, p)
			}
		}
	}
	if len(s.Cases) != s.Tests || failures != s.Failures || errs != s.Errors || skipped != s.Skipped || errs != 1 || skipped != 2 {
		t.Errorf("counts: %d cases, %d failures, %d errors, %d skipped; the suite says %+v", len(s.Cases), failures, errs, skipped, s)
	}
}

// sarifObjects are, of the SARIF 2.1.0 schema, the objects that are written: the properties that each must have, those that it
// may have, and which object is in a property.
var sarifObjects = map[string]struct {
	required, allowed []string
	inside            map[string]string
}{
	"log":               {[]string{"version", "runs"}, []string{"$schema", "inlineExternalProperties", "properties"}, map[string]string{"runs": "run"}},
	"run":               {[]string{"tool"}, []string{"automationDetails", "invocations", "artifacts", "results", "properties"}, map[string]string{"tool": "tool", "automationDetails": "automationDetails", "invocations": "invocation", "artifacts": "artifact", "results": "result"}},
	"tool":              {[]string{"driver"}, []string{"extensions", "properties"}, map[string]string{"driver": "driver"}},
	"driver":            {[]string{"name"}, []string{"version", "rules", "properties"}, map[string]string{"rules": "rule"}},
	"rule":              {[]string{"id"}, []string{"shortDescription", "help", "defaultConfiguration", "properties"}, map[string]string{"shortDescription": "text", "help": "text", "defaultConfiguration": "configuration"}},
	"configuration":     {nil, []string{"level"}, nil},
	"text":              {[]string{"text"}, nil, nil},
	"automationDetails": {nil, []string{"id"}, nil},
	"invocation":        {[]string{"executionSuccessful"}, []string{"exitCode", "endTimeUtc"}, nil},
	"artifact":          {nil, []string{"location", "roles"}, map[string]string{"location": "artifactLocation"}},
	"artifactLocation":  {nil, []string{"uri", "index"}, nil},
	"result":            {[]string{"message"}, []string{"ruleId", "ruleIndex", "kind", "level", "locations", "partialFingerprints", "properties"}, map[string]string{"message": "text", "locations": "location"}},
	"location":          {nil, []string{"physicalLocation", "logicalLocations"}, map[string]string{"physicalLocation": "physicalLocation", "logicalLocations": "logicalLocation"}},
	"physicalLocation":  {nil, []string{"artifactLocation"}, map[string]string{"artifactLocation": "artifactLocation"}},
	"logicalLocation":   {nil, []string{"name", "fullyQualifiedName", "kind"}, nil},
}

func sarifValid(t *testing.T, kind, at string, v any) {
	t.Helper()
	if list, ok := v.([]any); ok {
		for _, x := range list {
			sarifValid(t, kind, at+"[]", x)
		}
		return
	}
	object, ok := v.(map[string]any)
	if !ok {
		t.Errorf("%s is %T", at, v)
		return
	}
	want := sarifObjects[kind]
	for _, p := range want.required {
		if _, ok := object[p]; !ok {
			t.Errorf("%s has no %s", at, p)
		}
	}
	for p, x := range object {
		if !slices.Contains(want.required, p) && !slices.Contains(want.allowed, p) {
			t.Errorf("%s has %s", at, p)
		}
		if inner := want.inside[p]; inner != "" {
			sarifValid(t, inner, at+"."+p, x)
		}
	}
}

func TestSARIF(t *testing.T) {
	var log map[string]any
	if err := json.Unmarshal([]byte(render(t, "unfit.sarif", unfit(), subject())), &log); err != nil {
		t.Fatal(err)
	}
	sarifValid(t, "log", "log", log)
	if log["version"] != "2.1.0" {
		t.Errorf("version %v", log["version"])
	}
	run := log["runs"].([]any)[0].(map[string]any)
	rules := run["tool"].(map[string]any)["driver"].(map[string]any)["rules"].([]any)
	if len(rules) != len(unfit().Findings) {
		t.Errorf("%d rules for %d findings", len(rules), len(unfit().Findings))
	}
	levels := map[string]string{}
	for _, x := range run["results"].([]any) {
		r := x.(map[string]any)
		id := r["ruleId"].(string)
		levels[id] = r["kind"].(string) + " " + r["level"].(string)
		if rule := rules[int(r["ruleIndex"].(float64))].(map[string]any); rule["id"] != id {
			t.Errorf("the rule of %s is %s", id, rule["id"])
		}
		if !slices.Contains([]string{"fail", "open"}, r["kind"].(string)) || !slices.Contains([]string{"error", "warning", "none"}, r["level"].(string)) || (r["kind"] == "open") != (r["level"] == "none") {
			t.Errorf("%s is of kind %v and level %v", id, r["kind"], r["level"])
		}
		location := r["locations"].([]any)[0].(map[string]any)
		if uri := location["physicalLocation"].(map[string]any)["artifactLocation"].(map[string]any)["uri"]; uri != "win10%20sample.ova" {
			t.Errorf("%s is in %v", id, uri)
		}
	}
	row, _ := check.Describe("AutoMountDisabled")
	if rule := rules[2].(map[string]any); rule["help"].(map[string]any)["text"] != row.Remedy || rule["defaultConfiguration"].(map[string]any)["level"] != "warning" {
		t.Errorf("the rule of AutoMountDisabled is %v", rule)
	}
	want := map[string]string{"VMWareToolsInstalled": "fail error", "AutoMountDisabled": "fail warning", "PCoIPAgentInstalled": "fail warning", "FirewallEnabled": "open none"}
	if len(levels) != len(want) {
		t.Errorf("results %v", levels)
	}
	for id, level := range want {
		if levels[id] != level {
			t.Errorf("%s is %q, want %q", id, levels[id], level)
		}
	}
}

func TestFileURI(t *testing.T) {
	for name, want := range map[string]string{"win10.ova": "win10.ova", "a b.ova": "a%20b.ova", "c:d.vhd": "c%3Ad.vhd", "../x": "..%2Fx", "": "unnamed", "Grüße.ova": "Gr%C3%BC%C3%9Fe.ova"} {
		if got := fileURI(name); got != want {
			t.Errorf("%q is %s, want %s", name, got, want)
		}
	}
}

// TestHTMLStandsAlone: the page runs nothing and fetches nothing.
func TestHTMLStandsAlone(t *testing.T) {
	page := render(t, "unfit.html", unfit(), subject())
	if found := regexp.MustCompile(`(?i)<(script|link|img|iframe|object|embed|base|form|svg)|\bon[a-z]+\s*=|url\(|@import|https?:|javascript:|src\s*=`).FindAllString(page, -1); found != nil {
		t.Errorf("the page has %q", found)
	}
	for _, link := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if id, ok := strings.CutPrefix(link[1], "#"); !ok || !strings.Contains(page, `id="`+id+`"`) {
			t.Errorf("link %s leads out of the page or nowhere", link[1])
		}
	}
	for _, f := range unfit().Findings {
		if !strings.Contains(page, f.Code) {
			t.Errorf("%s is not on the page", f.Code)
		}
	}
}

// decode reads a file as PowerShell wrote it.
func decode(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return strings.ReplaceAll(string(utf16.Decode(units)), "\r\n", "\n")
}

func TestLogs(t *testing.T) {
	known := func(v bool) check.Known[bool] {
		return check.Known[bool]{Value: v, From: []check.Evidence{{Text: "there"}}}
	}
	f := &check.Facts{AutoLogon: known(true), RealTimeIsUniversal: known(false)}
	f.BYOLAccount = check.Known[uint32]{Value: 1001, From: known(true).From}
	f.BYOLAccountFlags = check.Known[uint16]{Value: 0x0211, From: known(true).From}
	f.Adapters = check.Known[[]check.Adapter]{Value: []check.Adapter{{Installed: true, DHCP: true}, {DHCP: false}}, From: known(true).From}
	f.SystemVolume = check.Known[windows.Volume]{Value: windows.Volume{FreeBytes: 21 << 30}, From: known(true).From}
	f.Drives = check.Known[[]windows.Drive]{Value: []windows.Drive{{Kind: windows.CDDrive, Letter: "D:"}}, From: known(true).From}
	files := Logs(unfit(), f, subject())
	if len(files) != 2 || files[0].Name != "BYOLPrevalidationlog2026-11-23_070509.txt" || files[1].Name != "ImageInfo.text" {
		t.Fatalf("files %v", files)
	}
	for _, file := range files {
		if !bytes.HasPrefix(file.Bytes, []byte{0xff, 0xfe}) || len(file.Bytes)%2 != 0 {
			t.Errorf("%s is not UTF-16LE with a mark", file.Name)
		}
	}
	var info map[string]any
	if err := json.Unmarshal([]byte(strings.TrimPrefix(decode(files[1].Bytes), "\ufeff")), &info); err != nil {
		t.Fatal(err)
	}
	account := info["WorkSpaces_BYOLAccount"].(map[string]any)
	for what, is := range map[string]bool{
		"account is disabled": account["Disabled"] == true, "account is there": account["Exists"] == true, "DHCP": info["NetworkAdapterUsingDHCP"] == true,
		"drives": fmt.Sprint(info["Drives"]) == "[C: (fixed) D: ("+string(windows.CDDrive)+")]", "no partitions": info["Partitions"] == nil,
		"free": info["FreeSpaceOnCDrive"] == float64(21<<30), "domain unknown": info["partOfDomain"] == nil, "VMware Tools": info["VMWareToolsInstalled"] == true,
		"auto-logon": info["AutoLogonTurnedOn"] == true, "universal": info["RealTimeIsUniversal"] == false, "firewall unknown": info["Firewall"].(map[string]any)["TurnedOn"] == nil,
	} {
		if !is {
			t.Errorf("%s: %v", what, info)
		}
	}
	line := regexp.MustCompile(`^\d\d/\d\d/\d{4} \d\d:\d\d:\d\d .`)
	for l := range strings.Lines(strings.TrimPrefix(decode(files[0].Bytes), "\ufeff")) {
		if !line.MatchString(l) {
			t.Errorf("line %q", l)
		}
	}
}

// hostile fills every text of a report with s.
func hostile(s string) (check.Report, Subject) {
	r, about := unfit(), subject()
	r.Profile, r.Process, r.Open, r.Notes = s, check.Process(s), []string{s}, []string{s}
	r.Windows = check.Windows{Version: s, Build: s, Edition: s, Language: s, Architecture: s, HostName: s}
	about.File, about.Version, about.Notes, about.Fix = s, s, []string{s}, s
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Code += s
		f.Title, f.Because, f.Remedy = s, s, s
		if i == 0 {
			f.Outcome = check.Outcome("no " + s) // PASS would be more than a text
		}
		if f.Fix != nil {
			f.Fix.Code, f.Fix.Steps = s, []string{s, s}
		}
		for k := range f.Evidence {
			e := &f.Evidence[k]
			e.Text, e.Hive, e.Key, e.Value, e.Type, e.Data, e.HiveState, e.File, e.Disk, e.Structure, e.Live = s, windows.Hive(s), s, s, s, s, s, s, s, s, s
			if k == 0 {
				e.Text = s + `\` + s + `\` + s + " = " + s
			}
		}
	}
	return r, about
}

// FuzzRender: whatever text a report holds, no rendering steers a terminal, gains markup, or breaks its format.
func FuzzRender(f *testing.F) {
	for _, s := range []string{
		"\x1b]0;owned\x07\r\nPASS \u202e\u009b31m", "</style></title><script>alert(1)</script>", "]]><failure/>&lt;&#0;", `"><img src=x onerror=alert(1)>`, "javascript:alert(1)",
		"a\n  command\nb", "\xff\xfe\x00", "{{.}}", `\u0022,"fit":true`, strings.Repeat("zalgo\u0301", 200), "漢字", " ", "\ufffe\ufffd\U000e0041", `a\b\c`, "-->", "' onclick='", string(check.Pass), string(check.Fail),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 4<<10 {
			t.Skip()
		}
		r, about := hostile(s)
		// The same report with harmless letters: as many tags and no more.
		harmless := func(s string) string {
			return strings.Map(func(c rune) rune {
				if c == '\n' || c == ' ' {
					return c
				}
				if unicode.IsSpace(c) {
					return ' '
				}
				return 'x'
			}, s)
		}
		tame, tameAbout := hostile(harmless(s))
		for name := range renderers {
			out := render(t, name, r, about)
			for _, c := range out {
				if c != '\n' && c != '\ufeff' && !unicode.IsPrint(c) {
					t.Fatalf("%s has %q", name, c)
				}
			}
			switch name {
			case "unfit.html":
				if is, want := strings.Count(out, "<"), strings.Count(render(t, name, tame, tameAbout), "<"); is != want {
					t.Errorf("the page has %d tags, with harmless text %d", is, want)
				}
			case "unfit.xml":
				elements := 0
				for dec := xml.NewDecoder(strings.NewReader(out)); ; {
					token, err := dec.Token()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Fatalf("%v:\n%s", err, out)
					}
					if start, ok := token.(xml.StartElement); ok && start.Name.Local == "testcase" {
						elements++
					}
				}
				if elements != len(r.Findings) {
					t.Errorf("%d test cases for %d findings", elements, len(r.Findings))
				}
			case "verbose.txt":
				for line := range strings.Lines(out) {
					if n := columns(strings.TrimSuffix(line, "\n")); n > 60 {
						t.Errorf("a line of %d columns: %q", n, line)
					}
				}
			case "log.txt":
			default:
				if !json.Valid([]byte(strings.TrimPrefix(out, "\ufeff"))) {
					t.Errorf("%s is no JSON:\n%s", name, out)
				}
			}
		}
	})
}

// TestSightsOfUsersHives: values of a user's key stand below it, as those of the machine's do, and apart from another user's.
func TestSightsOfUsersHives(t *testing.T) {
	var list []check.Evidence
	for _, user := range []string{"Ann", "Joe"} {
		for _, name := range []string{"RemotePath", "UserName"} {
			file := "C:/Users/" + user + "/NTUSER.DAT"
			list = append(list, check.Evidence{Text: file + `\Network\Z\` + name + ` = "x" (REG_SZ)`, Hive: "NTUSER", File: file, Key: `Network\Z`, Value: name})
		}
	}
	got := strings.Join(lines(check.Finding{Evidence: list}), "\n")
	const want = `C:/Users/Ann/NTUSER.DAT\Network\Z
  RemotePath = "x" (REG_SZ)
  UserName = "x" (REG_SZ)
C:/Users/Joe/NTUSER.DAT\Network\Z
  RemotePath = "x" (REG_SZ)
  UserName = "x" (REG_SZ)`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
