package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"berth/internal/check"
)

// The elements of the JUnit format as CI systems read it. There is no standard; these are the elements and attributes that the
// schema of Jenkins's xUnit plugin and the readers of GitLab and Azure have in common.
type (
	junitSuites struct {
		XMLName  xml.Name `xml:"testsuites"`
		Name     string   `xml:"name,attr"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Skipped  int      `xml:"skipped,attr"`
		Suites   []junitSuite
	}
	junitSuite struct {
		XMLName    xml.Name        `xml:"testsuite"`
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr,omitempty"`
		HostName   string          `xml:"hostname,attr,omitempty"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		XMLName   xml.Name      `xml:"testcase"`
		Name      string        `xml:"name,attr"`
		ClassName string        `xml:"classname,attr"`
		Time      string        `xml:"time,attr"`
		Failure   *junitProblem `xml:"failure"`
		Error     *junitProblem `xml:"error"`
		Skipped   *junitProblem `xml:"skipped"`
		Out       *junitOutput  `xml:"system-out"`
	}
	junitProblem struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",cdata"`
	}
	junitOutput struct {
		Text string `xml:",cdata"`
	}
)

// JUnit writes the report for CI systems that read JUnit's XML. A check is a test case: FAIL and WARN are failures, UNKNOWN is an
// error, and what does not apply or is left to the guest is skipped, so that the run is green exactly when the machine is fit.
func JUnit(w io.Writer, r check.Report, s Subject) error {
	suite := junitSuite{Name: check.Printable("berth check " + s.File + " (" + asked(r) + ")"), Time: "0", HostName: check.Printable(r.Windows.HostName), Tests: len(r.Findings)}
	if !s.At.IsZero() {
		suite.Timestamp = s.At.UTC().Format("2006-01-02T15:04:05")
	}
	suite.Properties = []junitProperty{
		{"file", check.Printable(s.File)}, {"profile", check.Printable(r.Profile)}, {"process", check.Printable(string(r.Process))}, {"windows", check.Printable(about(r.Windows))},
		{"verdict", Verdict(r)}, {"berth", check.Printable(s.Version)},
	}
	for _, f := range r.Findings {
		c := junitCase{Name: check.Printable(f.Code + ": " + f.Title), ClassName: "berth.check", Time: "0"}
		problem := &junitProblem{Message: oneLine(f.Because), Type: outcomeWord(f.Outcome)}
		seen := strings.Join(lines(f), "\n")
		switch partOf(f, s.Running) {
		case "blocks", "fixable", "script":
			suite.Failures++
			c.Failure = problem
		case "unknown":
			suite.Errors++
			c.Error = problem
		case "guest", "notapplicable":
			suite.Skipped++
			c.Skipped = &junitProblem{Message: problem.Message}
		}
		if c.Failure != nil || c.Error != nil {
			problem.Text = fmt.Sprintf("\n%s\n\nSeen:\n%s\n\nRemedy:\n%s\n", problem.Message, seen, remedyText(f))
			if c := changes(f); c != nil {
				problem.Text += fmt.Sprintf("\nFix:\n%s\n", strings.Join(c, "\n"))
			}
		} else {
			c.Out = &junitOutput{strings.TrimSpace(problem.Message + "\n" + seen)}
		}
		suite.Cases = append(suite.Cases, c)
	}
	all := junitSuites{Name: "berth check", Tests: suite.Tests, Failures: suite.Failures, Errors: suite.Errors, Skipped: suite.Skipped, Suites: []junitSuite{suite}}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
