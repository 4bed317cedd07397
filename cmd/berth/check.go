package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"berth/internal/check"
	"berth/internal/check/report"
	"berth/internal/disk"
	"berth/internal/image"
	"berth/internal/windows/offline"
)

// judgeFlags say what a machine is judged for.
type judgeFlags struct {
	Profile string `help:"Whose requirements: ${profiles}, or a file with a profile of your own." default:"${profile}" env:"BERTH_PROFILE" placeholder:"NAME|FILE"`
	Process string `help:"What the image is to be ingested as: ${processes}." default:"${process}"`
	Office  bool   `help:"The image is to be subscribed to Microsoft Office through the service."`
}

// options turns the flags into what check.Run takes.
func (j judgeFlags) options() (check.Options, error) {
	profile, ok := check.ProfileByName(j.Profile)
	if !ok {
		var err error
		if profile, err = loadProfile(j.Profile); err != nil {
			return check.Options{}, err
		}
	}
	process := check.Process(strings.ToUpper(j.Process))
	if process != "" && !process.Known() {
		return check.Options{}, fmt.Errorf("there is no ingestion process %q: choose %s", j.Process, processNames())
	}
	return check.Options{Profile: profile, Process: process, Office: j.Office}, nil
}

// arguments are the flags as they were given, for a command that is to be typed.
func (j judgeFlags) arguments() []string {
	var words []string
	if j.Profile != "" && j.Profile != check.DefaultProfile {
		words = append(words, "--profile", j.Profile)
	}
	if j.Process != "" && j.Process != string(check.DefaultProcess) {
		words = append(words, "--process", j.Process)
	}
	if j.Office {
		words = append(words, "--office")
	}
	return words
}

// maxProfile bounds a profile file, in bytes: check.LoadProfile takes none that is larger.
const maxProfile = 1 << 20

// loadProfile reads a profile of the user's own.
func loadProfile(path string) (check.Profile, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return check.Profile{}, fmt.Errorf("there is no profile %q, nor a file of that name: choose %s", path, strings.Join(check.ProfileNames(), ", "))
	}
	if err != nil {
		return check.Profile{}, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return check.Profile{}, err
	}
	p, err := check.LoadProfile(b)
	if err != nil {
		return check.Profile{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// processNames lists the ingestion processes.
func processNames() string {
	var names []string
	for _, p := range check.Processes() {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}

type checkCmd struct {
	insideCmd
	judgeFlags
	Output  string `help:"text, json, html (one page to mail), junit or sarif (for CI systems)." enum:"text,json,html,junit,sarif" default:"text" short:"o"`
	Out     string `help:"Write the report to this file instead of printing it." short:"O" type:"path" placeholder:"FILE"`
	Logs    string `help:"Also write the two logs that Amazon's checker leaves into this folder." type:"path" placeholder:"FOLDER"`
	Verbose bool   `help:"Show the evidence of what passed, too." short:"v"`
}

// Help is shown by berth check --help.
func (checkCmd) Help() string {
	return `The disk is not booted, mounted, converted or changed. Nothing inside it is trusted.

    berth check win10.ova
    berth check --profile 2026 --verbose win11.vhdx
    berth check -o html -O report.html win10.ova
    berth explain AutoLogonEnabled

Exit codes: 0 the VM is fit; 1 it is not, and the report says why and what to do; 2 it could not be read.`
}

func (c checkCmd) Run(ctx context.Context) error {
	at := time.Now()
	opt, err := c.options()
	if err != nil {
		return err
	}
	judged, err := judgeExport(ctx, c.insideCmd, opt)
	if err != nil {
		return err // exit code 2
	}
	about := judged.subject
	about.At, about.Version, about.Fix = at, version, c.fix()
	if c.Logs != "" {
		if err := writeLogs(c.Logs, report.Logs(judged.report, judged.facts, about)); err != nil {
			return err
		}
	}
	if err := c.show(judged.report, about); err != nil {
		return err
	}
	if code := judged.report.ExitCode(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// show prints the report, or writes it to the file that was asked for: whole or not at all.
func (c checkCmd) show(r check.Report, about report.Subject) error {
	var b bytes.Buffer
	var err error
	switch c.Output {
	case "json":
		err = report.JSON(&b, r, about)
	case "html":
		err = report.HTML(&b, r, about)
	case "junit":
		err = report.JUnit(&b, r, about)
	case "sarif":
		err = report.SARIF(&b, r, about)
	default:
		err = report.Text(&b, r, about, c.textOptions())
	}
	if err != nil {
		return err
	}
	if c.Out == "" {
		_, err := os.Stdout.Write(b.Bytes())
		return err
	}
	if err := replaceFile(c.Out, b.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "berth: %s for profile %s; the report is in %s\n", report.Verdict(r), image.Printable(r.Profile), c.Out)
	return nil
}

// textOptions are the terminal's, unless the report goes to a file.
func (c checkCmd) textOptions() report.TextOptions {
	opt := report.TextOptions{}
	if c.Out == "" {
		opt = terminalText()
	}
	opt.Verbose = c.Verbose
	return opt
}

// terminalText is how text is written to the standard output: in colour and in its width where that is a terminal.
func terminalText() report.TextOptions {
	var opt report.TextOptions
	if out := int(os.Stdout.Fd()); term.IsTerminal(out) {
		opt.Color = os.Getenv("NO_COLOR") == ""
		if width, _, err := term.GetSize(out); err == nil {
			opt.Width = width
		}
	}
	return opt
}

// judgement is what checking an export comes to.
type judgement struct {
	report  check.Report
	facts   *check.Facts
	subject report.Subject // file and notes
}

// judgeExport checks the Windows in an exported VM.
func judgeExport(ctx context.Context, c insideCmd, opt check.Options) (*judgement, error) {
	env, err := openExport(c.File, disk.Options{Format: strings.ToUpper(c.Format)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = env.Close() }() // only read
	systems, err := offline.Open(env)
	if err != nil {
		return nil, err
	}
	if c.Windows < 1 || c.Windows > len(systems) {
		return nil, fmt.Errorf("there is no Windows %d: %d found", c.Windows, len(systems))
	}
	j := &judgement{subject: report.Subject{File: filepath.Base(c.File), Notes: env.Warnings}}
	j.facts = check.Collect(ctx, systems[c.Windows-1])
	if err := ctx.Err(); err != nil { // what Collect left out is not unknown
		return nil, err
	}
	j.report = check.Run(j.facts, opt)
	if len(systems) > 1 {
		j.subject.Notes = append(j.subject.Notes, severalWindows(ctx, systems, c.Windows))
	}
	return j, nil
}

// severalWindows names the installations of a disk that has more than one, and says which was judged.
func severalWindows(ctx context.Context, systems []*offline.System, judged int) string {
	var names []string
	for i, s := range systems {
		at, start, _ := s.Location()
		d := s.Machine().Disks[at]
		number := 0
		for _, p := range d.Partitions {
			if p.Start == start {
				number = p.Number
			}
		}
		w := check.Run(check.Collect(ctx, s), check.Options{}).Windows
		names = append(names, fmt.Sprintf("%d is %s on partition %d of disk %d", i+1, strings.Join(strings.Fields("Windows "+w.Edition+" "+w.Version+" "+w.HostName), " "), number, at))
	}
	return fmt.Sprintf("There are %d Windows: %s. Windows %d was judged; --windows N judges another.", len(systems), strings.Join(names, ", "), judged)
}

// fix is the command that mends what can be fixed.
func (c *checkCmd) fix() string {
	words := append([]string{"berth", "fix"}, c.arguments()...)
	if c.Windows > 1 {
		words = append(words, "--windows", strconv.Itoa(c.Windows))
	}
	if c.Format != "" {
		words = append(words, "--format", c.Format)
	}
	words = append(words, nearby(c.File), "-o", "fixed.qcow2")
	for i := range words {
		words[i] = quoted(words[i])
	}
	return strings.Join(words, " ")
}

// nearby is a path as one would type it: relative where it is in the working folder or below.
func nearby(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(short) {
		return short
	}
	return path
}

// quoted is a word as a POSIX shell takes it.
func quoted(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./+,:@%", r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".berth-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644) // a report is to be read by others
	}
	if shut := f.Close(); err == nil {
		err = shut
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one that counts
	}
	return err
}

// writeLogs writes files into a folder, which is made if it is not there.
func writeLogs(folder string, files []report.File) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := replaceFile(filepath.Join(folder, f.Name), f.Bytes); err != nil {
			return err
		}
	}
	return nil
}
