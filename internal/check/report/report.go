// Package report shows what a check came to: as text for a terminal, as a page that can be mailed, as JSON, as JUnit and SARIF for
// machines that run tests, and as the two logs that Amazon's own checker leaves.
//
// It judges nothing and reads nothing but a [check.Report]. Whatever the report quotes may come from a stranger's disk: no
// renderer lets it steer a terminal, become markup or break the format. What does not print is written as an escape.
//
// Start reading at [Parts], which puts the findings into the order that people need: what stands in the way, what can be fixed,
// what is not known, what is in order.
package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/internal/check"
)

// Subject says what a report is about, beside what the check found. Every field may be empty.
type Subject struct {
	// File is the bare name of the file that was checked, or of the computer where a running Windows was.
	File string
	// At is when it was checked.
	At time.Time
	// Version is that of the program that checked.
	Version string
	// Notes are about the file and about what was chosen in it, a sentence each.
	Notes []string
	// Fix is the command that mends what can be fixed: "berth fix win10.ova -o fixed.qcow2".
	Fix string
	// Running: it was a Windows that runs, in which whatever can be fixed is fixed at once. Otherwise it was a disk, a copy of which
	// takes some of the fixes; a script for the next start of Windows takes the others.
	Running bool
}

// asked is what the machine was judged for: "profile seed-2020, BYOL_REGULAR".
func asked(r check.Report) string {
	if r.Process == "" {
		return "profile " + r.Profile
	}
	return "profile " + r.Profile + ", " + string(r.Process)
}

// notes are the subject's and the report's own.
func notes(r check.Report, s Subject) []string { return slices.Concat(s.Notes, r.Notes) }

// Verdict is a report in a word or two: "FIT", "NOT FIT", or "CANNOT TELL" when nothing failed but something that is needed could
// not be read.
func Verdict(r check.Report) string {
	switch r.ExitCode() {
	case check.ExitFit:
		return "FIT"
	case check.ExitUnfit:
		return "NOT FIT"
	}
	return "CANNOT TELL"
}

// Part is a group of findings that ask for the same thing to be done.
type Part struct {
	// Name is "blocks", "fixable", "script" (a fix that only the running Windows takes), "unknown", "guest" (left to it), "passed" or
	// "notapplicable".
	Name string
	// Title heads it: "Stands in the way".
	Title string
	// Count says how many there are, for a list of all parts: "2 to mend".
	Count string
	// Hint says what to do about all of it, as a remedy does; may be empty.
	Hint string
	// Remedy is that of every finding, where there are several and all have the same; else empty.
	Remedy string
	// Findings are in the order of the table.
	Findings []check.Finding
}

// Parts groups a report's findings. Empty parts are left out. A finding with an outcome that does not exist is never in order: it is
// unknown.
func Parts(r check.Report, s Subject) []Part {
	parts := []Part{
		{Name: "blocks", Title: "Stands in the way", Count: "%d to mend by hand", Hint: "Mend this inside the machine, shut it down completely, and export it again."},
		{Name: "fixable", Title: "Can be fixed", Count: "%d can be fixed", Hint: "An edit of a copy of the disk mends this. By hand, inside the machine, it can be mended as well."},
		{Name: "script", Title: "Can be fixed by a script", Count: "%d can be fixed by a script", Hint: "The disk does not take this, but Windows does when it runs: a script mends it. By hand it can be mended as well."},
		{Name: "unknown", Title: "Not known", Count: "%d unknown", Hint: "What is needed for an answer could not be read. Unknown does not pass."},
		{Name: "guest", Title: "Left to the guest", Count: "%d left to the guest", Hint: "Only the running Windows can tell: run the checker inside it (\"berth checker\" writes it)."},
		{Name: "passed", Title: "Passed", Count: "%d passed"},
		{Name: "notapplicable", Title: "Does not apply", Count: "%d not applicable"},
	}
	switch {
	case s.Running:
		parts[0].Hint = "Mend this, and check again."
		parts[1].Hint = "The program mends this. By hand it can be mended as well."
	case s.Fix != "":
		parts[1].Hint = "Mended on a copy of the disk by:\n  " + s.Fix
		parts[2].Hint = "The disk does not take this, but Windows does when it runs. A script for it is written beside the copy by:\n  " + s.Fix
	}
	for _, f := range r.Findings {
		p := &parts[slices.IndexFunc(parts, func(p Part) bool { return p.Name == partOf(f, s.Running) })]
		p.Findings = append(p.Findings, f)
	}
	parts = slices.DeleteFunc(parts, func(p Part) bool { return len(p.Findings) == 0 })
	for i := range parts {
		p := &parts[i]
		p.Count = fmt.Sprintf(p.Count, len(p.Findings))
		one := p.Findings[0].Remedy
		if len(p.Findings) > 1 && !slices.ContainsFunc(p.Findings, func(f check.Finding) bool { return f.Remedy != one }) {
			p.Remedy = one
		}
	}
	return parts
}

// ToDo says whether somebody has to do something about the findings.
func (p Part) ToDo() bool {
	return slices.Contains([]string{"blocks", "fixable", "script", "unknown"}, p.Name)
}

func partOf(f check.Finding, running bool) string {
	switch f.Outcome {
	case check.Pass:
		return "passed"
	case check.NotApplicable:
		return "notapplicable"
	case check.Fail, check.Warn:
		switch {
		case f.Fix == nil && !f.Fixable: // a report that was kept before there were fixes has Fixable alone
			return "blocks"
		case running || f.Fixable:
			return "fixable"
		}
		return "script"
	}
	if f.MayWait {
		return "guest"
	}
	return "unknown"
}

// changes are what a fix does, in words that print.
func changes(f check.Finding) []string {
	if f.Fix == nil {
		return nil
	}
	var all []string
	for _, s := range f.Fix.Steps {
		all = append(all, oneLine(s))
	}
	return all
}

// outcomeWord is an outcome, UNKNOWN where there is no such outcome.
func outcomeWord(o check.Outcome) string {
	switch o {
	case check.Pass, check.Fail, check.Warn, check.NotApplicable:
		return string(o)
	}
	return string(check.Unknown)
}

// counts is "2 to mend by hand,", "1 can be fixed,", "40 passed".
func counts(parts []Part) []string {
	var each []string
	for i, p := range parts {
		if i < len(parts)-1 {
			p.Count += ","
		}
		each = append(each, p.Count)
	}
	return each
}

// about is the Windows that was looked at, in a line; empty when nothing is known of it.
func about(w check.Windows) string {
	var each []string
	for _, s := range []struct{ before, s string }{
		{"version ", w.Version}, {"build ", w.Build}, {"", w.Edition}, {"", w.Language}, {"", w.Architecture}, {"", w.HostName},
	} {
		if s.s != "" {
			each = append(each, s.before+s.s)
		}
	}
	if len(each) == 0 {
		return ""
	}
	return "Windows " + strings.Join(each, ", ")
}

// made says when and by what the report was made; empty when neither is known.
func made(s Subject) string {
	var words []string
	if !s.At.IsZero() {
		words = append(words, "on "+stamp(s.At))
	}
	if s.Version != "" {
		words = append(words, "by Berth "+s.Version)
	}
	if words == nil {
		return ""
	}
	return "Checked " + strings.Join(words, " ")
}

// stamp is a time for people.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// step is a line of a remedy.
type step struct {
	Text    string
	Command bool // to be typed
}

// steps are the lines of a remedy; a line that is indented is a command.
func steps(remedy string) []step {
	var all []step
	for line := range strings.SplitSeq(remedy, "\n") {
		if text := strings.TrimSpace(line); text != "" {
			all = append(all, step{Text: check.Printable(text), Command: strings.HasPrefix(line, "  ")})
		}
	}
	return all
}

// remedyText is a remedy as lines that print, commands indented.
func remedyText(f check.Finding) string {
	var b strings.Builder
	for i, s := range steps(f.Remedy) {
		if i > 0 {
			b.WriteByte('\n')
		}
		if s.Command {
			b.WriteString("  ")
		}
		b.WriteString(s.Text)
	}
	return b.String()
}
