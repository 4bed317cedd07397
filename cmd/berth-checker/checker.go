package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"berth/internal/check"
	"berth/internal/check/report"
	"berth/internal/windows/live"
)

// byolAccount is the account that the document asks for, and lets one remove once the image is made ("Step 2").
const byolAccount = "WorkSpaces_BYOL"

// phase is what the checker is doing.
type phase string

const (
	phaseReady     phase = "ready"     // nothing was tested yet
	phaseChecking  phase = "checking"  // the tests run
	phaseChecked   phase = "checked"   // they have run
	phaseFixing    phase = "fixing"    // changes are being made
	phaseSysprep   phase = "sysprep"   // Sysprep runs
	phaseShutdown  phase = "shutdown"  // Sysprep has succeeded; Windows shuts down
	phaseCancelled phase = "cancelled" // the program ends
)

// errBusy: what was asked for cannot be done now.
var errBusy = errors.New("the checker is busy with something else, or has ended")

// errChanged: what was agreed to is no longer what would be done.
var errChanged = errors.New("what is to be changed is no longer what was shown: look again")

// checker is one sitting: the tests, what can be fixed, Sysprep. It asks nobody: the page and the console have asked before they call.
// It is safe for concurrent use.
type checker struct {
	vm      machine
	now     func() time.Time
	folder  string // where the logs go
	version string
	ended   func(test) // is told of every test as it ends

	mu      sync.Mutex
	state   state
	changed chan struct{} // closed when state changes

	// Of the last run of the tests.
	options check.Options
	report  check.Report
	at      time.Time
	fixes   []check.Fix

	password live.Password // of the account that fix made, until somebody has seen it
}

// state is what people see.
type state struct {
	Phase    phase    `json:"phase"`
	Tests    []test   `json:"tests"`
	Fit      bool     `json:"fit"` // the last run: Validation Successful
	Windows  string   `json:"windows"`
	Computer string   `json:"computer"`
	Asked    asked    `json:"asked"`
	Fixes    []change `json:"fixes"`
	Plan     string   `json:"plan"` // names Fixes; fix wants it back
	Done     []string `json:"done"` // what Fix changed
	Troubles []string `json:"troubles"`
	Files    []string `json:"files"` // the logs that were written

	Locales *live.Locales `json:"locales"`
	Account bool          `json:"account"` // WorkSpaces_BYOL is there
	Secret  bool          `json:"secret"`  // its password has not been seen yet
	Sysprep *sysprepState `json:"sysprep"`
}

// asked is what the machine is judged for.
type asked struct {
	Profile string        `json:"profile"`
	Process check.Process `json:"process"`
	Office  bool          `json:"office"`
}

// change is what Fix All Warnings would do about a finding.
type change struct {
	Code  string   `json:"code"`
	Title string   `json:"title"`
	Steps []string `json:"steps"`
}

// test is a row of the table on its way.
type test struct {
	Code     string   `json:"code"`
	Title    string   `json:"title"`
	State    string   `json:"state"`
	Because  string   `json:"because"`
	Evidence []string `json:"evidence"`
	Remedy   string   `json:"remedy"`
	Source   string   `json:"source"`
	Fixable  bool     `json:"fixable"`
}

// sysprepState is how Sysprep failed.
type sysprepState struct {
	Error string   `json:"error"`
	Log   string   `json:"log"`
	Lines []string `json:"lines"`
}

// The states of a test. The first five are those of Amazon's dialog (document, "Step 2"); it has no word for what cannot be told.
const (
	toBeTested    = "To be tested"
	checking      = "Checking"
	passed        = "PASSED"
	failed        = "FAILED"
	warning       = "WARNING"
	unknown       = "UNKNOWN"
	notApplicable = "NOT APPLICABLE"
)

var stateOf = map[check.Outcome]string{check.Pass: passed, check.Fail: failed, check.Warn: warning, check.Unknown: unknown, check.NotApplicable: notApplicable}

func newChecker(vm machine, now func() time.Time, folder string) *checker {
	return &checker{
		vm: vm, now: now, folder: folder, version: version, ended: func(test) {}, changed: make(chan struct{}),
		state: state{Phase: phaseReady, Tests: tests(toBeTested)},
	}
}

// tests are the rows of the table in one state, but for those that concern another operation than the import of this Windows.
func tests(state string) []test {
	var list []test
	for _, row := range check.Checks() {
		if row.Operation != "" {
			continue
		}
		list = append(list, test{Code: row.Code, Title: row.Title, State: state, Source: row.Source})
	}
	return list
}

// open puts back what a checker left that was killed, and looks who is there.
func (c *checker) open() error {
	restored, err := c.vm.ReleaseUpdates()
	if err != nil {
		return fmt.Errorf("Windows Update, which an earlier run turned off, could not be put back: %w", err)
	}
	if restored {
		c.trouble("An earlier run of this program was ended in between. Windows Update, which it had turned off, was put back.")
	}
	c.look()
	return nil
}

// look reads what is shown beside the tests.
func (c *checker) look() {
	locales, err := c.vm.Locales()
	account, accountErr := c.vm.HasAccount(byolAccount)
	c.update(func(s *state) {
		s.Locales = nil
		if err == nil {
			s.Locales = &locales
		}
		s.Account = account && accountErr == nil
	})
}

// watch returns what people see, and a channel that is closed when that changes.
func (c *checker) watch() (state, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	s.Tests, s.Fixes = slices.Clone(s.Tests), slices.Clone(s.Fixes)
	s.Done, s.Troubles, s.Files = slices.Clone(s.Done), slices.Clone(s.Troubles), slices.Clone(s.Files)
	return s, c.changed
}

// update changes what people see.
func (c *checker) update(change func(*state)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.state)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *checker) trouble(say string) {
	c.update(func(s *state) { s.Troubles = append(s.Troubles, say) })
}

// enter goes from one of some phases to another, or answers errBusy.
func (c *checker) enter(to phase, from ...phase) error {
	err := errBusy
	c.update(func(s *state) {
		if slices.Contains(from, s.Phase) {
			s.Phase, err = to, nil
		}
	})
	return err
}

// check runs the tests: Windows Update goes off, the facts are read and judged, the logs are written.
func (c *checker) check(ctx context.Context, opt check.Options) error {
	if err := c.enter(phaseChecking, phaseReady, phaseChecked); err != nil {
		return err
	}
	c.update(func(s *state) {
		s.Tests, s.Fit, s.Fixes, s.Plan, s.Done, s.Troubles, s.Files, s.Sysprep = tests(checking), false, nil, "", nil, nil, nil, nil
		s.Asked = asked{opt.Profile.Name, opt.Process, opt.Office}
	})
	return c.run(ctx, opt)
}

// run is the tests themselves; the phase is left when they are done.
func (c *checker) run(ctx context.Context, opt check.Options) error {
	if err := c.vm.HoldUpdates(ctx); err != nil {
		c.trouble("Windows Update could not be turned off: " + check.Printable(err.Error()))
	}
	facts := check.CollectEach(ctx, c.vm, func(f *check.Facts) { c.tell(check.Run(f, opt), false) })
	if err := ctx.Err(); err != nil {
		c.update(func(s *state) { s.Phase, s.Tests = phaseReady, tests(toBeTested) })
		return err
	}
	rep := check.Run(facts, opt)
	at := c.now()
	c.tell(rep, true)
	fixes := rep.Fixes()
	c.mu.Lock()
	c.options, c.report, c.at, c.fixes = opt, rep, at, fixes
	c.mu.Unlock()
	files, err := c.writeLogs(rep, facts, at)
	if err != nil {
		c.trouble("The logs could not be written: " + check.Printable(err.Error()))
	}
	if rep.Fit {
		if err := c.vm.KeepUpdatesOff(); err != nil {
			c.trouble("Windows Update will not stay off: " + check.Printable(err.Error()))
		}
	}
	c.look()
	w := rep.Windows
	var changes []change
	for _, x := range fixes {
		row, _ := check.Describe(x.Code)
		changes = append(changes, change{x.Code, row.Title, x.Steps})
	}
	c.update(func(s *state) {
		s.Phase, s.Fit, s.Fixes, s.Plan, s.Files = phaseChecked, rep.Fit, changes, planName(fixes), files
		s.Windows, s.Computer = fmt.Sprintf("%s, version %s (build %s), %s, %s", w.Edition, w.Version, w.Build, w.Language, w.Architecture), w.HostName
	})
	return nil
}

// tell shows the results of the tests that have ended: of those that still wait for facts while these are read, and of all in the end.
func (c *checker) tell(r check.Report, last bool) {
	var ended []test
	c.update(func(s *state) {
		for _, f := range r.Findings {
			i := slices.IndexFunc(s.Tests, func(t test) bool { return t.Code == f.Code })
			if i < 0 || !last && (f.Waiting || s.Tests[i].State != checking) {
				continue
			}
			t := &s.Tests[i]
			first := t.State == checking
			t.State, t.Because, t.Remedy, t.Fixable = stateOf[f.Outcome], f.Because, f.Remedy, f.Fix != nil
			t.Evidence = nil
			for _, e := range f.Evidence {
				t.Evidence = append(t.Evidence, e.Text)
			}
			if first {
				ended = append(ended, *t)
			}
		}
	})
	for _, t := range ended {
		c.ended(t)
	}
}

// subject is what the report is about.
func (c *checker) subject(r check.Report, at time.Time) report.Subject {
	return report.Subject{File: r.Windows.HostName, At: at, Version: c.version, Running: true, Fix: "berth-checker.exe --fix"}
}

// writeLogs writes the two files that the document names, and returns their paths.
func (c *checker) writeLogs(r check.Report, f *check.Facts, at time.Time) ([]string, error) {
	var paths []string
	for _, file := range report.Logs(r, f, c.subject(r, at)) {
		path := filepath.Join(c.folder, file.Name)
		if err := os.WriteFile(path, file.Bytes, 0o644); err != nil {
			return paths, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// planName is a name for just these changes.
func planName(fixes []check.Fix) string {
	if len(fixes) == 0 {
		return ""
	}
	h := sha256.New()
	for _, f := range fixes {
		fmt.Fprintf(h, "%q %q\n", f.Code, f.Steps)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// fix makes the changes that the last run found, which plan must name, and runs the tests again.
func (c *checker) fix(ctx context.Context, plan string) error {
	c.mu.Lock()
	fixes, now, opt := c.fixes, c.state.Plan, c.options
	c.mu.Unlock()
	if plan == "" || plan != now {
		return errChanged
	}
	if err := c.enter(phaseFixing, phaseChecked); err != nil {
		return err
	}
	c.update(func(s *state) { s.Done, s.Troubles = nil, nil })
	made := map[string]bool{} // two findings may want the same
	for _, f := range fixes {
		for i, change := range f.Changes {
			if made[f.Steps[i]] {
				continue
			}
			if err := ctx.Err(); err != nil {
				c.update(func(s *state) { s.Phase = phaseChecked })
				return err
			}
			password, err := c.vm.Apply(ctx, change)
			if password != "" {
				c.keep(password)
			}
			if err != nil {
				c.trouble(fmt.Sprintf("%s: %s: %s", f.Code, f.Steps[i], check.Printable(err.Error())))
				continue
			}
			made[f.Steps[i]] = true
			c.update(func(s *state) { s.Done = append(s.Done, f.Steps[i]) })
		}
	}
	c.update(func(s *state) {
		s.Phase, s.Tests, s.Fit, s.Fixes, s.Plan, s.Files, s.Sysprep = phaseChecking, tests(checking), false, nil, "", nil, nil
	})
	return c.run(ctx, opt)
}

// keep keeps the password of the account that was made until it is shown.
func (c *checker) keep(password live.Password) {
	c.mu.Lock()
	c.password = password
	c.mu.Unlock()
	c.update(func(s *state) { s.Secret = true })
}

// reveal gives out the password of the account that was made, once; it is empty afterwards.
func (c *checker) reveal() live.Password {
	c.mu.Lock()
	password := c.password
	c.password = ""
	c.mu.Unlock()
	c.update(func(s *state) { s.Secret = false })
	return password
}

// errNotFit: Sysprep is for a machine that has passed.
var errNotFit = errors.New("the tests have not all passed")

// sysprep generalises this Windows, which then shuts down. How Sysprep failed is in the state, too.
func (c *checker) sysprep(ctx context.Context) error {
	c.mu.Lock()
	fit := c.state.Fit
	c.mu.Unlock()
	if !fit {
		return errNotFit
	}
	locales, err := c.vm.Locales()
	if err != nil {
		return err
	}
	answer, err := answerFile(c.vm, locales)
	if err != nil {
		return err
	}
	if err := c.enter(phaseSysprep, phaseChecked); err != nil {
		return err
	}
	c.update(func(s *state) { s.Sysprep = nil })
	// Once begun it is not broken off: a Windows that is half generalised is of no use.
	if err := c.vm.Sysprep(context.WithoutCancel(ctx), answer); err != nil {
		c.update(func(s *state) {
			s.Phase = phaseChecked
			s.Sysprep = &sysprepState{Error: check.Printable(err.Error())}
			var failed *live.SysprepError
			if errors.As(err, &failed) {
				s.Sysprep.Error, s.Sysprep.Log = "Sysprep failed", failed.Log
				if failed.Exit != nil {
					s.Sysprep.Error += ": " + check.Printable(failed.Exit.Error())
				}
				for _, line := range failed.Lines {
					s.Sysprep.Lines = append(s.Sysprep.Lines, check.Printable(line))
				}
			}
		})
		return err
	}
	c.update(func(s *state) { s.Phase = phaseShutdown })
	return nil
}

// removeAccount removes WorkSpaces_BYOL.
func (c *checker) removeAccount() error {
	c.mu.Lock()
	idle := c.state.Phase == phaseReady || c.state.Phase == phaseChecked
	c.mu.Unlock()
	if !idle {
		return errBusy
	}
	if err := c.vm.RemoveAccount(byolAccount); err != nil {
		return err
	}
	c.look()
	return nil
}

// close ends the sitting: Windows Update is put back unless the last run found the machine fit.
func (c *checker) close() error {
	c.update(func(s *state) { s.Phase = phaseCancelled })
	_, err := c.vm.ReleaseUpdates()
	return err
}
