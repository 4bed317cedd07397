package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"berth/internal/check"
	"berth/internal/check/report"
	"berth/internal/windows"
)

// console is the checker without a browser. Questions and what happens go to err, the report alone to out.
type console struct {
	c   *checker
	in  io.Reader
	out io.Writer
	err io.Writer
	yes bool // every answer is yes
	// seen: err is a console, which keeps nothing of what it shows.
	seen bool

	lines *bufio.Scanner
}

// ask asks a question; no answer is no.
func (o *console) ask(question string) bool {
	fmt.Fprintf(o.err, "%s [y/N] ", question)
	if o.yes {
		fmt.Fprintln(o.err, "y")
		return true
	}
	if o.lines == nil {
		o.lines = bufio.NewScanner(o.in)
	}
	if !o.lines.Scan() {
		fmt.Fprintln(o.err)
		return false
	}
	answer := strings.ToLower(strings.TrimSpace(o.lines.Text()))
	return answer == "y" || answer == "yes"
}

func (o *console) run(ctx context.Context, c *cli, opt check.Options) (int, error) {
	if c.RemoveAccount {
		return o.removeAccount()
	}
	if !o.ask("While the tests run, Windows Update is turned off: put back if you cancel, left off when all tests pass. Begin the tests?") {
		return exitTrouble, nil
	}
	o.c.ended = func(t test) {
		if t.State != notApplicable {
			fmt.Fprintf(o.err, "%-8s %s\n", t.State, t.Title)
		}
	}
	if err := o.c.check(ctx, opt); err != nil {
		return 0, err
	}
	s, _ := o.c.watch()
	if c.Fix && len(s.Fixes) > 0 {
		fmt.Fprintln(o.err, "This would be changed:")
		for _, f := range s.Fixes {
			fmt.Fprintf(o.err, "  %s\n", f.Code)
			for _, step := range f.Steps {
				fmt.Fprintf(o.err, "    %s\n", step)
			}
		}
		if o.ask("Change it?") {
			err := o.c.fix(ctx, s.Plan)
			o.tellPassword()
			if err != nil {
				return 0, err
			}
			s, _ = o.c.watch()
		}
	}
	for _, trouble := range s.Troubles {
		fmt.Fprintln(o.err, trouble)
	}
	judged := o.c.report
	if err := o.print(c.Output, judged); err != nil {
		return 0, err
	}
	for _, file := range s.Files {
		fmt.Fprintln(o.err, "Written:", file)
	}
	if s.Locales != nil {
		fmt.Fprintf(o.err, "System locale %s, user locale %s\n", check.Printable(s.Locales.System), check.Printable(s.Locales.User))
	}
	if !judged.Fit {
		return judged.ExitCode(), nil
	}
	fmt.Fprintln(o.err, "Validation Successful")
	if c.Sysprep && o.ask("Sysprep cannot be undone. Did you shut this VM down, take a snapshot of it, and start it again? Run Sysprep now?") {
		if err := o.c.sysprep(ctx); err != nil {
			return 0, err
		}
		fmt.Fprintln(o.err, "Sysprep has succeeded. Windows shuts down.")
	}
	return judged.ExitCode(), nil
}

// tellPassword shows the password of the account that was made, where it is not kept: redirected, it would lie in a file.
func (o *console) tellPassword() {
	switch password := o.c.reveal(); {
	case password == "":
	case o.seen:
		fmt.Fprintf(o.err, "The account %s was made. Its password is\n\n  %s\n\nWrite it down: it is not shown again.\n\n", byolAccount, password.Reveal())
	default:
		fmt.Fprintf(o.err, "The account %s was made. Its password is shown in a console only, and this is none. To set another:\n  net user %s *\n", byolAccount, byolAccount)
	}
}

// print writes the report.
func (o *console) print(format string, r check.Report) error {
	subject := o.c.subject(r, o.c.at)
	switch format {
	case "json":
		return report.JSON(o.out, r, subject)
	case "html":
		return report.HTML(o.out, r, subject)
	case "junit":
		return report.JUnit(o.out, r, subject)
	case "sarif":
		return report.SARIF(o.out, r, subject)
	}
	return report.Text(o.out, r, subject, report.TextOptions{})
}

func (o *console) removeAccount() (int, error) {
	there, err := o.c.vm.HasAccount(byolAccount)
	switch {
	case err != nil:
		return 0, err
	case !there:
		fmt.Fprintln(o.err, "There is no account "+byolAccount+".")
		return 0, nil
	case !o.ask("The account " + byolAccount + " is needed until the image is made. Is it made, and is the account to be removed?"):
		return exitTrouble, nil
	}
	if err := o.c.removeAccount(); err != nil {
		return 0, err
	}
	fmt.Fprintln(o.err, "Removed.")
	return 0, nil
}

// printFacts writes all facts, for comparisons.
func printFacts(ctx context.Context, w io.Writer, vm windows.System) error {
	return report.WriteJSON(w, check.Collect(ctx, vm), "  ")
}
