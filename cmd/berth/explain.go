package main

import (
	"fmt"
	"os"
	"strings"

	"berth/internal/check"
	"berth/internal/check/report"
)

type explainCmd struct {
	Code   string `arg:"" optional:"" help:"A code that berth check or the WorkSpaces API reports, in any case. Without one, all are listed."`
	Output string `help:"text or json." enum:"text,json" default:"text" short:"o"`
}

// Help is shown by berth explain --help.
func (explainCmd) Help() string {
	return `Says what a check asks for, who wants that, how it is judged, and what to type to mend it.

    berth explain AutoLogonEnabled
    berth explain -o json | jq -r '.[].code'`
}

func (c explainCmd) Run() error {
	checks := check.Checks()
	if c.Code == "" {
		if c.Output == "json" {
			rows := make([]report.Row, len(checks))
			for i := range checks {
				rows[i] = report.NewRow(checks[i])
			}
			return report.WriteJSON(os.Stdout, rows, "  ")
		}
		return report.List(os.Stdout, checks, terminalText())
	}
	row, near, ok := report.Find(checks, c.Code)
	switch {
	case !ok && len(near) > 0:
		return fmt.Errorf("there is no check %q; did you mean %s?", c.Code, strings.Join(near, ", "))
	case !ok:
		return fmt.Errorf("there is no check %q: berth explain lists them all", c.Code)
	case c.Output == "json":
		return report.WriteJSON(os.Stdout, report.NewRow(row), "  ")
	}
	return report.Explain(os.Stdout, row, terminalText())
}
