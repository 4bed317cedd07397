package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"berth/internal/check"
)

// Explain writes a row of the table of checks for people.
func Explain(w io.Writer, c check.Check, opt TextOptions) error {
	t := newPage(w, opt)
	fmt.Fprintln(t.w, t.paint(bold, c.Code))
	t.wrap("", "", c.Title+".")
	fmt.Fprintln(t.w)
	code := "Amazon's own"
	if !c.Amazon() {
		code = "Berth's own; the WorkSpaces API reports it as " + c.ReportAs
	}
	level := string(c.Level)
	if c.Level == check.Warn {
		level += "; ingestion takes it for a FAIL"
	}
	fix := cmp.Or(c.Fix, "none; it is mended by hand")
	switch {
	case c.Fix == "":
	case c.Fixable:
		fix += " (berth fix, on a copy of the disk)"
	default:
		fix += " (in the running Windows: by the script that berth fix writes)"
	}
	for _, row := range []struct{ label, text string }{
		{"Code", code},
		{"When not met", level},
		{"Asked by", c.Source},
		{"Operation", c.Operation},
		{"Profiles", cmp.Or(strings.Join(c.Profiles, ", "), "all")},
		{"Applies to", c.Applies},
		{"Judged by", c.Evaluation},
		{"Decided", decided(c)},
		{"Fix", fix},
	} {
		if row.text != "" {
			t.field(row.label, row.text)
		}
	}
	label := "Remedy"
	for _, s := range steps(c.Remedy) {
		if s.Command {
			t.wrap(explainGutter+"  ", explainGutter+"    ", s.Text)
			continue
		}
		t.field(label, s.Text)
		label = ""
	}
	fmt.Fprintln(t.w)
	for _, line := range t.fill("", "", Sources) {
		fmt.Fprintln(t.w, t.paint(faint, line))
	}
	return t.w.Flush()
}

// Sources says what [check.Check.Source] names.
const Sources = `"document" is Amazon's page "Bring Your Own Windows Desktop Licenses" of September 2020, "facts" what is known around it, by section of the project's collection.`

// explainGutter is as wide as the labels of [Explain].
const explainGutter = "                "

func (t *page) field(label, s string) {
	for i, line := range t.fill(explainGutter, explainGutter, s) {
		if i == 0 && label != "" {
			line = "  " + t.paint(faint, label) + strings.Repeat(" ", len(explainGutter)-2-len(label)) + strings.TrimPrefix(line, explainGutter)
		}
		fmt.Fprintln(t.w, strings.TrimRight(line, " "))
	}
}

func decided(c check.Check) string {
	if c.DecidedIn == check.InGuest {
		return "in the running Windows; from a powered-off disk it stays open"
	}
	return "from the powered-off disk"
}

// Group is a part of the table of checks.
type Group struct {
	Title  string
	Checks []check.Check
}

// Groups puts the table's rows together by whose codes they are and where they are decided, in the order of the table otherwise.
func Groups(checks []check.Check) []Group {
	groups := []Group{
		{Title: "Amazon's codes, decided from the powered-off disk"},
		{Title: "Amazon's codes, decided in the running Windows"},
		{Title: "Berth's own, for what the document asks besides"},
		{Title: "Amazon's codes for making an image of a WorkSpace; they do not apply to an import"},
	}
	for _, c := range checks {
		at := 0
		switch {
		case c.Operation != "":
			at = 3
		case !c.Amazon():
			at = 2
		case c.DecidedIn == check.InGuest:
			at = 1
		}
		groups[at].Checks = append(groups[at].Checks, c)
	}
	return slices.DeleteFunc(groups, func(g Group) bool { return len(g.Checks) == 0 })
}

// List writes all rows in short.
func List(w io.Writer, checks []check.Check, opt TextOptions) error {
	t := newPage(w, opt)
	for i, g := range Groups(checks) {
		if i > 0 {
			fmt.Fprintln(t.w)
		}
		for _, line := range t.fill("", "", fmt.Sprintf("%s (%d)", g.Title, len(g.Checks))) {
			fmt.Fprintln(t.w, t.paint(bold, line))
		}
		for _, c := range g.Checks {
			marks := string(c.Level)
			switch {
			case c.Fixable:
				marks += ", fixed on the disk"
			case c.Fix != "":
				marks += ", fixed by a script"
			}
			fmt.Fprintf(t.w, "  %s %s\n", c.Code, t.paint(faint, "("+marks+")"))
			t.wrap("      ", "      ", c.Title+".")
		}
	}
	return t.w.Flush()
}

// Row is a row of the table as JSON.
type Row struct {
	Code       string   `json:"code"`
	ReportAs   string   `json:"reportAs"`
	Title      string   `json:"title"`
	Level      string   `json:"level"`
	Source     string   `json:"source"`
	Operation  string   `json:"operation,omitempty"`
	Profiles   []string `json:"profiles"` // null: all
	Applies    string   `json:"applies,omitempty"`
	Evaluation string   `json:"evaluation"`
	DecidedIn  string   `json:"decidedIn"`
	Fix        string   `json:"fix,omitempty"`
	Fixable    bool     `json:"fixable"`
	Remedy     string   `json:"remedy"`
}

// NewRow is a row of the table for [WriteJSON].
func NewRow(c check.Check) Row {
	return Row{
		Code: c.Code, ReportAs: c.ReportAs, Title: c.Title, Level: string(c.Level), Source: c.Source, Operation: c.Operation, Profiles: c.Profiles, Applies: c.Applies,
		Evaluation: c.Evaluation, DecidedIn: string(c.DecidedIn), Fix: c.Fix, Fixable: c.Fixable, Remedy: c.Remedy,
	}
}

// Find finds the row of a code, whatever its case. Without one, near are the codes that may have been meant, the likeliest first, a
// few of them.
func Find(checks []check.Check, code string) (c check.Check, near []string, ok bool) {
	const most = 5
	type guess struct {
		code string
		far  int
	}
	var guesses []guess
	want := strings.ToLower(strings.TrimSpace(code))
	if len(want) > 100 { // no code is nearly as long, and distance takes time
		return check.Check{}, nil, false
	}
	for _, c := range checks {
		is := strings.ToLower(c.Code)
		if is == want {
			return c, nil, true
		}
		far := distance(want, is)
		switch {
		case len(want) >= 3 && strings.Contains(is, want):
			guesses = append(guesses, guess{c.Code, 0})
		case far <= max(2, len(is)/4):
			guesses = append(guesses, guess{c.Code, far})
		case len(want) >= 3 && strings.Contains(strings.ToLower(c.Title), want):
			guesses = append(guesses, guess{c.Code, 100})
		}
	}
	slices.SortStableFunc(guesses, func(a, b guess) int { return a.far - b.far })
	for _, g := range guesses[:min(len(guesses), most)] {
		near = append(near, g.code)
	}
	return check.Check{}, near, false
}

// distance is how many bytes are to be added, left out or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
