// Package report shows what a check came to: for people in a terminal.
package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"berth/internal/check"
)

// TextOptions are how [Text] writes.
type TextOptions struct {
	// Color uses the terminal's colours; set it only when w is a terminal.
	Color bool
	// Width is the width of a line in columns; 0 is 80, and less than 60 is 60.
	Width int
}

// SGR sequences of ECMA-48.
const (
	red, yellow, green, cyan, bold, plain = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[36m", "\x1b[1m", "\x1b[0m"
)

// minWidth holds the longest code beside its outcome.
const minWidth = 60

// Text writes the report for people: the verdict first, then what is wrong with evidence and remedy, then what is open, then
// what passed, in short. What comes from the disk is written so that it cannot steer a terminal. A word longer than the line
// (a registry path, a command) is broken where it must be.
func Text(w io.Writer, r check.Report, opt TextOptions) error {
	if opt.Width == 0 {
		opt.Width = 80
	}
	t := &page{w: bufio.NewWriter(w), color: opt.Color, width: max(opt.Width, minWidth)}
	t.summary(r)
	for _, group := range [][]check.Outcome{{check.Fail}, {check.Warn}, {check.Unknown}} {
		for _, f := range r.Findings {
			if f.Outcome == group[0] {
				t.finding(f)
			}
		}
	}
	t.list(r, check.Pass, "Passed", green)
	t.list(r, check.NotApplicable, "Does not apply", "")
	return t.w.Flush()
}

// page lays text out in columns. Its writer keeps the first error for Flush.
type page struct {
	w     *bufio.Writer
	color bool
	width int
}

func (t *page) paint(colour, s string) string {
	if !t.color || colour == "" {
		return s
	}
	return colour + s + plain
}

func (t *page) summary(r check.Report) {
	count := map[check.Outcome]int{}
	for _, f := range r.Findings {
		count[f.Outcome]++
	}
	verdict, colour := "FIT", bold+green
	switch r.ExitCode() {
	case check.ExitUnfit:
		verdict, colour = "NOT FIT", bold+red
	case check.ExitUnreadable:
		verdict, colour = "CANNOT TELL", bold+yellow
	}
	var parts []string
	for _, c := range []struct {
		o    check.Outcome
		word string
	}{{check.Fail, "failed"}, {check.Warn, "warned"}, {check.Unknown, "open"}, {check.Pass, "passed"}, {check.NotApplicable, "not applicable"}} {
		if n := count[c.o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c.word))
		}
	}
	for i, line := range t.lines("", "", fmt.Sprintf("%s for %s: %s", verdict, r.Profile, strings.Join(parts, ", "))) {
		if i == 0 {
			line = t.paint(colour, verdict) + strings.TrimPrefix(line, verdict)
		}
		fmt.Fprintln(t.w, line)
	}
	var about []string
	for _, s := range []struct{ before, s string }{
		{"version ", r.Windows.Version}, {"build ", r.Windows.Build}, {"", r.Windows.Edition}, {"", r.Windows.Language}, {"", r.Windows.Architecture}, {"", r.Windows.HostName},
	} {
		if s.s != "" {
			about = append(about, s.before+s.s)
		}
	}
	if len(about) > 0 {
		t.wrap("", "Windows "+strings.Join(about, ", "))
	}
}

var outcomeColours = map[check.Outcome]string{check.Fail: bold + red, check.Warn: bold + yellow, check.Unknown: bold + cyan}

func (t *page) finding(f check.Finding) {
	fmt.Fprintf(t.w, "\n%s %s\n", t.paint(outcomeColours[f.Outcome], fmt.Sprintf("%-7s", f.Outcome)), onlyPrint(f.Code))
	t.labelled("Asked", f.Title+".")
	t.labelled("Because", f.Because)
	for _, e := range seen(f) {
		t.labelled("Seen", e)
	}
	for i, step := range strings.Split(f.Remedy, "\n") {
		switch command := strings.HasPrefix(step, "  "); {
		case f.Remedy == "":
		case i == 0:
			t.labelled("Remedy", step)
		case command:
			t.wrapFrom(gutter+"  ", gutter+"    ", step)
		default:
			t.wrap(gutter, step)
		}
	}
	if f.Fixable {
		t.labelled("Fixable", "yes, on the powered-off disk")
	}
}

// gutter is as wide as the labels.
const gutter = "           "

func (t *page) labelled(label, s string) {
	t.wrapFrom(fmt.Sprintf("  %-8s ", label+":"), gutter, s)
}

func (t *page) list(r check.Report, o check.Outcome, label, colour string) {
	var codes []string
	for _, f := range r.Findings {
		if f.Outcome == o {
			codes = append(codes, f.Code)
		}
	}
	if len(codes) == 0 {
		return
	}
	fmt.Fprintf(t.w, "\n%s\n", t.paint(colour, fmt.Sprintf("%s (%d)", label, len(codes))))
	t.wrap("  ", strings.Join(codes, ", "))
}

func (t *page) wrap(indent, s string) { t.wrapFrom(indent, indent, s) }

func (t *page) wrapFrom(first, indent, s string) {
	for _, line := range t.lines(first, indent, s) {
		fmt.Fprintln(t.w, line)
	}
}

// lines fills lines with words; the first begins with first, the others with indent.
func (t *page) lines(first, indent, s string) []string {
	var lines []string
	line, empty := first, true
	flush := func() {
		lines = append(lines, strings.TrimRight(line, " "))
		line, empty = indent, true
	}
	for word := range strings.FieldsSeq(onlyPrint(s)) {
		for word != "" {
			room := t.width - utf8.RuneCountInString(line)
			if !empty {
				room--
			}
			if utf8.RuneCountInString(word) <= room {
				if !empty {
					line += " "
				}
				line += word
				word, empty = "", false
				continue
			}
			if !empty {
				flush()
				continue
			}
			head := cut(word, room)
			line += head
			word, empty = word[len(head):], false
		}
	}
	flush()
	return lines
}

// cut returns the longest beginning of a word that fits into n columns, up to its last backslash, slash or comma if it has one.
func cut(word string, n int) string {
	end := len(word)
	for i := range word {
		if n == 0 {
			end = i
			break
		}
		n--
	}
	if at := strings.LastIndexAny(word[:end], `\/,`); at > 0 {
		return word[:at+1]
	}
	return word[:end]
}

// seen is the evidence of a finding, a line for each thing that was looked at.
func seen(f check.Finding) []string {
	var lines []string
	for _, e := range f.Evidence {
		lines = append(lines, e.Text)
	}
	return lines
}

// onlyPrint escapes what could steer a terminal, for reports that were not made by check.Run (read back from JSON).
func onlyPrint(s string) string { return check.Printable(strings.ReplaceAll(s, "\n", " ")) }
