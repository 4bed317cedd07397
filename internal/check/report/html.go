package report

import (
	_ "embed"
	"html/template"
	"io"

	"berth/internal/check"
)

//go:embed page.gohtml
var pageText string

// htmlPage is parsed once, at start: a page that does not parse is a mistake in the program.
var htmlPage = template.Must(template.New("report").Parse(pageText))

// What page.gohtml shows. All text prints.
type (
	htmlReport struct {
		Verdict, Class, Asked, File, About, Made string
		Notes                                    []string
		Parts                                    []htmlPart
	}
	htmlPart struct {
		Name, Title, Count string
		Hint, Remedy       []step
		// Short: there is nothing to do about it.
		Short    bool
		Findings []htmlFinding
	}
	htmlFinding struct {
		Code, Outcome, Title, Because string
		Seen                          []sight
		Fix                           []string
		// Remedy is empty where it is the whole part's.
		Remedy []step
	}
)

// HTML writes the report as one page that stands alone: no script, no reference to anything outside it, light or dark as the reader's
// system is, and made to be printed too. It holds the evidence of every finding.
func HTML(w io.Writer, r check.Report, s Subject) error {
	show := check.Printable
	v := htmlReport{
		Verdict: Verdict(r), Class: map[int]string{check.ExitFit: "fit", check.ExitUnfit: "unfit", check.ExitUnreadable: "open"}[r.ExitCode()],
		Asked: show(asked(r)), File: show(s.File), About: show(about(r.Windows)), Made: show(made(s)),
	}
	for _, n := range notes(r, s) {
		v.Notes = append(v.Notes, show(n))
	}
	for _, p := range Parts(r, s) {
		part := htmlPart{Name: p.Name, Title: p.Title, Count: p.Count, Hint: steps(p.Hint), Short: !p.ToDo()}
		if p.ToDo() {
			part.Remedy = steps(p.Remedy)
		}
		for _, f := range p.Findings {
			found := htmlFinding{
				Code: show(f.Code), Outcome: outcomeWord(f.Outcome), Title: oneLine(f.Title), Because: oneLine(f.Because), Seen: sights(f), Fix: changes(f),
			}
			if p.ToDo() && p.Remedy == "" {
				found.Remedy = steps(f.Remedy)
			}
			part.Findings = append(part.Findings, found)
		}
		v.Parts = append(v.Parts, part)
	}
	return htmlPage.Execute(w, v)
}
