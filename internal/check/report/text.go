package report

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode"

	"berth/internal/check"
)

// TextOptions are how [Text] writes.
type TextOptions struct {
	// Color uses the terminal's colours; set it only when w is a terminal.
	Color bool
	// Width is the width of a line in columns; 0 is 80, less than 60 is 60, and more than 120 is 120.
	Width int
	// Verbose shows evidence for what passed and what does not apply, too.
	Verbose bool
}

// SGR sequences of ECMA-48.
const (
	red, yellow, green, cyan, bold, faint, plain = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[36m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
)

// Widths in columns: minWidth holds the longest code beside its outcome, and beyond maxWidth lines are tiring to read.
const minWidth, maxWidth = 60, 120

var partColours = map[string]string{"blocks": red, "fixable": yellow, "script": yellow, "unknown": cyan, "guest": "", "passed": green, "notapplicable": ""}

var verdictColours = map[int]string{check.ExitFit: green, check.ExitUnfit: red, check.ExitUnreadable: cyan}

// Text writes the report for people: the verdict in the first line, how many findings there are of each kind in the next, then
// every finding that asks for something to be done with its evidence and its remedy, then what is in order, in short. A word
// longer than the line (a registry path, a command) is broken where it must be.
func Text(w io.Writer, r check.Report, s Subject, opt TextOptions) error {
	t := newPage(w, opt)
	parts := Parts(r, s)
	t.head(r, s, parts, opt.Verbose)
	for _, p := range parts {
		t.part(p, opt.Verbose)
	}
	return t.w.Flush()
}

// page lays text out in columns. Its writer keeps the first error for Flush.
type page struct {
	w     *bufio.Writer
	color bool
	width int
}

func newPage(w io.Writer, opt TextOptions) *page {
	return &page{w: bufio.NewWriter(w), color: opt.Color, width: min(max(cmp.Or(opt.Width, 80), minWidth), maxWidth)}
}

func (t *page) paint(colour, s string) string {
	if !t.color || colour == "" {
		return s
	}
	return colour + s + plain
}

func (t *page) head(r check.Report, s Subject, parts []Part, verbose bool) {
	verdict := Verdict(r)
	for i, line := range t.fill("", "", verdict+" for "+asked(r)) {
		if i == 0 {
			line = t.paint(bold+verdictColours[r.ExitCode()], verdict) + strings.TrimPrefix(line, verdict)
		}
		fmt.Fprintln(t.w, line)
	}
	for _, line := range t.fillWords("", "", counts(parts)) {
		fmt.Fprintln(t.w, line)
	}
	subject := []string{s.File, about(r.Windows)}
	if verbose {
		subject = append(subject, made(s))
	}
	blank := true
	for _, line := range append(subject, notes(r, s)...) {
		if line == "" {
			continue
		}
		if blank {
			fmt.Fprintln(t.w)
			blank = false
		}
		t.wrap("", "  ", line)
	}
}

func (t *page) part(p Part, verbose bool) {
	title := fmt.Sprintf("%s (%d)", p.Title, len(p.Findings))
	fmt.Fprintf(t.w, "\n%s\n", t.paint(bold+partColours[p.Name], strings.ToUpper(title)))
	t.hint(p.Hint)
	if p.ToDo() {
		t.hint(p.Remedy)
	}
	switch {
	case p.ToDo() || verbose:
		for _, f := range p.Findings {
			t.finding(f, partColours[p.Name])
			if p.ToDo() && p.Remedy == "" {
				t.remedy(f)
			}
		}
	case p.Name == "guest":
		t.titles(p.Findings)
	default:
		t.codes(p.Findings)
	}
}

// hint writes what is to be done about a whole part.
func (t *page) hint(remedy string) {
	for _, s := range steps(remedy) {
		if s.Command {
			t.wrap("  ", "    ", s.Text)
			continue
		}
		t.wrap("", "", s.Text)
	}
}

// codes writes the codes alone, in columns.
func (t *page) codes(findings []check.Finding) {
	longest := 0
	for _, f := range findings {
		longest = max(longest, columns(check.Printable(f.Code)))
	}
	if 2+longest > t.width {
		for _, f := range findings {
			t.wrap("  ", "    ", f.Code)
		}
		return
	}
	across := (t.width - 2 + 2) / (longest + 2)
	down := (len(findings) + across - 1) / across
	for row := range down {
		line := ""
		for i := row; i < len(findings); i += down {
			code := check.Printable(findings[i].Code)
			line += "  " + code + strings.Repeat(" ", longest-columns(code))
		}
		fmt.Fprintln(t.w, strings.TrimRight(line, " "))
	}
}

// titles writes for each finding what is asked and what is known of it.
func (t *page) titles(findings []check.Finding) {
	for _, f := range findings {
		t.wrap("  ", "    ", f.Code+": "+f.Title)
		t.wrap("    ", "    ", f.Because)
	}
}

func (t *page) finding(f check.Finding, colour string) {
	fmt.Fprintln(t.w)
	outcome := outcomeWord(f.Outcome)
	for i, line := range t.fill(outcome+"  ", "  ", f.Code) {
		if code, ok := strings.CutPrefix(line, outcome); ok && i == 0 {
			line = t.paint(colour, outcome) + "  " + t.paint(bold, strings.TrimLeft(code, " "))
		}
		fmt.Fprintln(t.w, line)
	}
	t.labelled("Asked", f.Title+".")
	t.labelled("Found", f.Because)
	label := "Seen"
	for _, s := range sights(f) {
		t.labelled(label, s.Where)
		for _, what := range s.What {
			t.wrap(gutter+"  ", gutter+"    ", what)
		}
		label = ""
	}
	label = "Fix"
	for _, c := range changes(f) {
		t.labelled(label, c)
		label = ""
	}
}

func (t *page) remedy(f check.Finding) {
	label := "Remedy"
	for _, s := range steps(f.Remedy) {
		if s.Command {
			t.wrap(gutter+"  ", gutter+"    ", s.Text)
			continue
		}
		t.labelled(label, s.Text)
		label = ""
	}
}

// gutter is as wide as the labels.
const gutter = "          "

func (t *page) labelled(label, s string) {
	for i, line := range t.fill(gutter, gutter, s) {
		if i == 0 && label != "" {
			line = "  " + t.paint(faint, label) + strings.Repeat(" ", len(gutter)-2-len(label)) + strings.TrimPrefix(line, gutter)
		}
		fmt.Fprintln(t.w, strings.TrimRight(line, " "))
	}
}

func (t *page) wrap(first, indent, s string) {
	for _, line := range t.fill(first, indent, s) {
		fmt.Fprintln(t.w, line)
	}
}

// fill fills lines with the words of s.
func (t *page) fill(first, indent, s string) []string {
	return t.fillWords(first, indent, strings.Fields(oneLine(s)))
}

// fillWords fills lines with words; the first begins with first, the others with indent. There is one at least.
func (t *page) fillWords(first, indent string, words []string) []string {
	var lines []string
	line, empty := first, true
	flush := func() {
		lines = append(lines, strings.TrimRight(line, " "))
		line, empty = indent, true
	}
	for _, word := range words {
		for word != "" {
			room := t.width - columns(line)
			if !empty {
				room--
			}
			if columns(word) <= room {
				if !empty {
					line += " "
				}
				line += word
				word, empty = "", false
				continue
			}
			head := cut(word, max(room, 0))
			if !empty {
				// A word that no line holds is broken anyway: where it has a place for that, it begins here.
				fits := columns(word) <= t.width-columns(indent)
				if fits || columns(head) > room || !strings.HasSuffix(head, `\`) {
					flush()
					continue
				}
				line += " "
			}
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
	for i, r := range word {
		if n -= runeColumns(r); n < 0 && i > 0 {
			end = i
			break
		}
	}
	if at := strings.LastIndexAny(word[:end], `\/,`); at > 0 {
		return word[:at+1]
	}
	return word[:end]
}

// oneLine makes text safe for a terminal, for reports that were not made by check.Run (read back from JSON) as well. A line
// end is a space.
func oneLine(s string) string { return check.Printable(strings.ReplaceAll(s, "\n", " ")) }

// columns is how many columns of a terminal a text takes.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

// runeColumns is 2 for the wide characters of East Asia and pictures, 0 for marks that stand on the character before (UAX #11).
func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana, unicode.Bopomofo),
		r >= 0x3000 && r <= 0x303e, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff01 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff:
		return 2
	}
	return 1
}
