package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"berth/internal/check"
	"berth/internal/check/report"
	"berth/internal/guest"
	"berth/internal/image"
	"berth/internal/windows"
	"berth/internal/windows/offline"
)

// fixResult is what came of berth fix. It marshals to the JSON of "berth fix --output json".
type fixResult struct {
	File    string `json:"file"`
	Profile string `json:"profile"`
	DryRun  bool   `json:"dryRun"`
	// Disk is the file that was written; empty for a dry run, and where no value had to change.
	Disk string `json:"disk,omitempty"`
	// Findings are those that have a fix.
	Findings []fixedFinding `json:"findings"`
	// Plan is what only a running Windows can do, PlanFile the script that was written for it.
	Plan     *guest.Plan `json:"plan,omitempty"`
	PlanFile string      `json:"planFile,omitempty"`
	// Passed are the codes that did not pass before and do now.
	Passed []string `json:"passed"`
	Fit    bool     `json:"fit"`
	// Report is the check of the fixed disk, as of "berth check --output json".
	Report check.Report `json:"report"`
}

// fixedFinding is a finding that has a fix.
type fixedFinding struct {
	Code   string       `json:"code"`
	Title  string       `json:"title"`
	Values []fixedValue `json:"values"`
	// Guest is what the running Windows has to do, in words.
	Guest []string `json:"guest,omitempty"`
	// Refused is why the disk is not edited, or what is left out of the plan and why.
	Refused string `json:"refused,omitempty"`
}

// fixedValue is a registry value before and after.
type fixedValue struct {
	Key  string `json:"key"`  // `SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon`
	Name string `json:"name"` // "" is the default value
	Old  string `json:"old"`  // as regedit shows it; "none" where there was none
	New  string `json:"new"`  // "none" where it is deleted
}

func newFixResult(c *fixCmd, f *fixing) *fixResult {
	r := &fixResult{File: c.File, Profile: f.before.Profile, DryRun: c.DryRun, Findings: []fixedFinding{}, Passed: []string{}}
	for _, m := range f.mends {
		x := fixedFinding{Code: m.finding.Code, Title: m.finding.Title, Values: []fixedValue{}}
		for _, d := range m.values {
			x.Values = append(x.Values, showDifference(d))
		}
		for _, change := range m.guest {
			x.Guest = append(x.Guest, change.String())
		}
		if m.refused != nil {
			x.Refused = m.refused.Error()
		}
		r.Findings = append(r.Findings, x)
	}
	return r
}

// settle notes how the machine is judged afterwards.
func (r *fixResult) settle(f *fixing, after check.Report) {
	for _, fd := range after.Findings {
		was := slices.IndexFunc(f.before.Findings, func(b check.Finding) bool { return b.Code == fd.Code })
		if fd.Outcome == check.Pass && was >= 0 && f.before.Findings[was].Outcome != check.Pass {
			r.Passed = append(r.Passed, fd.Code)
		}
	}
	r.Report, r.Fit = after, after.Fit
}

// showDifference shows a value before and after. A password is not shown, and of an account only the flags.
func showDifference(d offline.Difference) fixedValue {
	v := fixedValue{Key: string(d.Hive) + `\` + d.Key, Name: d.Name, Old: "none", New: "none"}
	show := func(x *windows.Value) string {
		if _, ok := d.Change.(windows.EnableAccount); ok {
			const flags = 0x38 // byol-facts §4.2; offline has seen that it is there
			return fmt.Sprintf("control flags 0x%04x", binary.LittleEndian.Uint16(x.Data[flags:]))
		}
		if strings.Contains(strings.ToLower(d.Name), "password") {
			return fmt.Sprintf("REDACTED (%d bytes)", len(x.Data))
		}
		return x.String()
	}
	if d.Old != nil {
		v.Old = show(d.Old)
	}
	if d.New != nil {
		v.New = show(d.New)
	}
	return v
}

func (r *fixResult) print(w *os.File, output string) error {
	if output == "json" {
		return report.WriteJSON(w, r, "  ")
	}
	b := bufio.NewWriter(tamed(w))
	for _, x := range r.Findings {
		r.printFinding(b, x)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(b)
	}
	r.printEnd(b)
	return b.Flush()
}

func (r *fixResult) printFinding(w io.Writer, x fixedFinding) {
	fmt.Fprintf(w, "%s: %s\n", x.Code, x.Title)
	key := ""
	for _, v := range x.Values {
		if v.Key != key {
			key = v.Key
			fmt.Fprintf(w, "  [%s]\n", image.Printable(key))
		}
		name := image.Printable(v.Name)
		if v.Name == "" {
			name = "(Default)"
		}
		fmt.Fprintf(w, "    %s: %s -> %s\n", name, v.Old, v.New)
	}
	for _, g := range x.Guest {
		fmt.Fprintf(w, "  At the first boot: %s\n", image.Printable(g))
	}
	if x.Refused != "" {
		wrap(w, "  ", "Not fixed: "+image.Printable(x.Refused))
	}
}

// printEnd tells what there is now and what is left.
func (r *fixResult) printEnd(w io.Writer) {
	passes, remains, written := "Passes now", "Remains", "Written: "+r.Disk
	switch {
	case r.DryRun:
		passes, remains, written = "Would pass", "Would remain", "Nothing was written (--dry-run)."
	case r.Disk == "":
		written = "No disk was written: there is no value to change."
	}
	fmt.Fprintln(w, written)
	if r.PlanFile != "" {
		start := "Start the machine from the fixed disk"
		if r.Disk == "" {
			start = "Start the machine"
		}
		fmt.Fprintf(w, "First boot: %s\n", r.PlanFile)
		wrap(w, "  ", start+", copy the script into it, and run as administrator")
		fmt.Fprintf(w, "    powershell -ExecutionPolicy Bypass -File %s\n", filepath.Base(r.PlanFile))
	}
	if len(r.Passed) > 0 {
		wrap(w, "", fmt.Sprintf("%s (%d): %s", passes, len(r.Passed), strings.Join(r.Passed, ", ")))
	}
	left := 0
	for _, fd := range r.Report.Findings {
		if fd.Outcome != check.Fail && fd.Outcome != check.Warn && (fd.Outcome != check.Unknown || fd.MayWait) {
			continue
		}
		if left++; left == 1 {
			fmt.Fprintf(w, "%s:\n", remains)
		}
		wrap(w, "  ", fmt.Sprintf("%s %s: %s", fd.Outcome, fd.Code, image.Printable(fd.Because)))
		i := slices.IndexFunc(r.Findings, func(x fixedFinding) bool { return x.Code == fd.Code })
		switch {
		case i < 0 && fd.Fix != nil:
			fmt.Fprintln(w, "      It was left out: berth fix can mend it.")
			continue
		case i >= 0 && len(r.Findings[i].Guest) > 0 && r.Findings[i].Refused == "":
			fmt.Fprintln(w, "      The script for the first boot does it.")
			continue
		}
		for line := range strings.Lines(fd.Remedy) {
			line = image.Printable(strings.TrimSuffix(line, "\n"))
			if strings.HasPrefix(line, "  ") { // a command, to be copied as it is
				fmt.Fprintf(w, "      %s\n", line)
				continue
			}
			wrap(w, "      ", line)
		}
	}
	verdict := "FIT"
	if !r.Fit {
		verdict = "NOT FIT"
	}
	fmt.Fprintf(w, "%s for profile %s\n", verdict, r.Profile)
}

// wrap writes words in lines of 80 columns. What cannot be broken may be longer.
func wrap(w io.Writer, indent, text string) {
	const columns = 80
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(indent)+utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			fmt.Fprintln(w, indent+line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, indent+line)
}
