package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/guest"
	"berth/internal/image"
	"berth/internal/windows"
	"berth/internal/windows/offline"
)

type fixCmd struct {
	insideCmd
	judgeFlags
	Out    string   `short:"o" help:"The disk to write: a QCOW2, or a raw disk if the name ends in .raw or .img. There must be no such file yet." type:"path" placeholder:"FILE"`
	To     string   `help:"Write qcow2 or raw, whatever the name." enum:"qcow2,raw," default:"" placeholder:"FORMAT"`
	DryRun bool     `help:"Show which registry values would change, and what the check would say then. Nothing is written."`
	Only   []string `help:"Fix only these findings." placeholder:"CODE"`
	Plan   string   `help:"Where to write the script for what only a running Windows can do. It is beside the disk if not said otherwise, and is written only if there is such a thing." type:"path" placeholder:"FILE.ps1"`
	Output string   `help:"text or json." enum:"text,json" default:"text"`
}

// Help is shown by berth fix --help.
func (fixCmd) Help() string {
	return `Writes a copy of the disk on which everything is mended that an edit of the registry can mend, and checks the copy. The export itself is only read.

    berth fix --dry-run win10.ova
    berth fix win10.ova -o fixed.qcow2
    berth fix --only AutoLogonEnabled,FirewallEnabled win10.vhdx -o fixed.raw

The edits go into the clusters that the registry's files have: no file moves, grows or shrinks, and nothing of the file system itself is touched. A registry that was not closed cleanly gets what its transaction logs hold, and is clean afterwards. A disk that is hibernated, or whose volume is marked dirty, is not edited: the reason and what to do are told.

What only a running Windows can do (make an account, uninstall a program) goes into a PowerShell script, to be run inside the machine when it is next started.

Exit codes: 0 the machine is fit now; 1 it is not yet, and what is left is told; 2 nothing was written, and the reason is told.`
}

// now is when keys are written.
var now = time.Now

func (c fixCmd) Run(ctx context.Context) error {
	opt, err := c.options()
	if err != nil {
		return err
	}
	if err := c.target(); err != nil {
		return err
	}
	env, found, err := c.open()
	if err != nil {
		return err
	}
	defer func() { _ = env.Close() }() // only read
	for _, w := range env.Warnings {
		fmt.Fprintln(os.Stderr, "berth: note:", image.Printable(w))
	}
	if len(env.Disks) > 1 {
		fmt.Fprintf(os.Stderr, "berth: note: the export has %d disks; only the one with Windows is written\n", len(env.Disks))
	}
	s, err := c.system(found)
	if err != nil {
		return err
	}
	f := &fixing{system: s, opt: opt}
	if err := f.propose(ctx, c.Only); err != nil {
		return err
	}
	for _, n := range f.idle(c.Only) {
		fmt.Fprintln(os.Stderr, "berth: note:", n)
	}
	if err := f.patch(now()); err != nil {
		return err
	}
	result, err := c.write(ctx, env, f)
	if err != nil {
		return err
	}
	if err := result.print(os.Stdout, c.Output); err != nil {
		return err
	}
	if !result.Fit {
		return exitCode(1)
	}
	return nil
}

// target checks where the copy is to go, and settles its format.
func (c *fixCmd) target() error {
	if c.Out == "" {
		if c.DryRun {
			return nil
		}
		return errors.New("say with -o where to write the fixed disk, or see with --dry-run what would change")
	}
	if c.To == "" {
		switch strings.ToLower(filepath.Ext(c.Out)) {
		case ".raw", ".img":
			c.To = "raw"
		case ".qcow2", "":
			c.To = "qcow2"
		default:
			return fmt.Errorf("%s: say with --to whether it shall be qcow2 or raw", c.Out)
		}
	}
	if c.Plan == "" {
		c.Plan = strings.TrimSuffix(c.Out, filepath.Ext(c.Out)) + "-first-boot.ps1"
	}
	return isNew(c.Out)
}

// isNew refuses the name of a file that is there.
func isNew(name string) error {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return cmp.Or(err, fmt.Errorf("%s is there already, and nothing is ever written over: choose another name, or remove it", name))
}

// fixing is what is to be done to one Windows.
type fixing struct {
	system *offline.System
	opt    check.Options
	before check.Report
	mends  []*mend
	// patches of the disk that holds Windows.
	patches []disk.Patch
}

// mend is what mends one finding.
type mend struct {
	finding check.Finding
	changes []windows.Change // of the disk
	values  []offline.Difference
	guest   []windows.Change
	refused error // why its changes of the disk, or one of the guest, are not made
}

// propose judges the machine and sorts the fixes of what was found into those of the disk and those of the guest.
func (f *fixing) propose(ctx context.Context, only []string) error {
	facts := check.Collect(ctx, f.system)
	if err := ctx.Err(); err != nil {
		return err
	}
	f.before = check.Run(facts, f.opt)
	for _, code := range only {
		if _, ok := check.Describe(code); !ok {
			return fmt.Errorf("--only: there is no check %q (docs/checks.md lists them)", code)
		}
	}
	for _, fd := range f.before.Findings {
		if fd.Fix == nil || len(only) > 0 && !slices.Contains(only, fd.Code) {
			continue
		}
		m := &mend{finding: fd}
		var unplanned error
		for _, change := range fd.Fix.Changes {
			switch values, err := f.system.Diff(change); {
			case errors.Is(err, offline.ErrNeedsGuest):
				// A name that Windows would not have, out of a stranger's hive, is in nobody else's way.
				if _, err := (guest.Plan{Steps: []guest.Step{{Change: change}}}).Script(); err != nil {
					unplanned = cmp.Or(unplanned, fmt.Errorf("%s: %w", change, errors.Unwrap(err)))
					continue
				}
				m.guest = append(m.guest, change)
			case err != nil:
				m.refused = cmp.Or(m.refused, err)
			default:
				m.changes = append(m.changes, change)
				m.values = append(m.values, values...)
			}
		}
		if m.refused != nil {
			m.changes, m.values = nil, nil
		}
		m.refused = cmp.Or(m.refused, unplanned)
		f.mends = append(f.mends, m)
	}
	return nil
}

// idle are sentences about findings that were asked for by name and have nothing to fix.
func (f *fixing) idle(only []string) []string {
	var notes []string
	for _, fd := range f.before.Findings {
		switch {
		case !slices.Contains(only, fd.Code) || fd.Fix != nil:
		case fd.Outcome == check.Fail || fd.Outcome == check.Warn:
			notes = append(notes, fmt.Sprintf("%s came out %s, and is to be mended by hand", fd.Code, fd.Outcome))
		default:
			notes = append(notes, fmt.Sprintf("%s came out %s: there is nothing to fix", fd.Code, fd.Outcome))
		}
	}
	return notes
}

// patch makes patches of all changes of the disk. Where they cannot all be made, the findings are taken one by one, and those whose
// changes cannot are left. That none can is an error.
func (f *fixing) patch(at time.Time) error {
	var all []windows.Change
	for _, m := range f.mends {
		all = append(all, m.changes...)
	}
	var err error
	if f.patches, err = f.system.Patch(at, all...); err == nil {
		return nil
	}
	first := err
	all = nil
	for _, m := range f.mends {
		if len(m.changes) == 0 {
			continue
		}
		with := slices.Concat(all, m.changes)
		patches, err := f.system.Patch(at, with...)
		if err != nil {
			m.refused, m.changes, m.values = err, nil, nil
			continue
		}
		all, f.patches = with, patches
	}
	if len(all) == 0 {
		return first
	}
	return nil
}

// plan is what is left for the running Windows.
func (f *fixing) plan() guest.Plan {
	p := guest.Plan{Machine: f.before.Windows.HostName}
	for _, m := range f.mends {
		for _, change := range m.guest {
			// One account may be the remedy of several findings.
			if i := slices.IndexFunc(p.Steps, func(s guest.Step) bool { return s.Change.String() == change.String() }); i >= 0 {
				p.Steps[i].Codes = append(p.Steps[i].Codes, m.finding.Code)
				continue
			}
			p.Steps = append(p.Steps, guest.Step{Codes: []string{m.finding.Code}, Change: change})
		}
	}
	return p
}

// write writes the disk and the plan, as far as there is anything to write, and judges what came of it.
func (c *fixCmd) write(ctx context.Context, env *disk.Envelope, f *fixing) (*fixResult, error) {
	result := newFixResult(c, f)
	script := ""
	if plan := f.plan(); len(plan.Steps) > 0 {
		var err error
		if script, err = plan.Script(); err != nil {
			return nil, fmt.Errorf("the plan for the first boot: %w", err)
		}
		result.Plan = &plan
		if !c.DryRun {
			if err := isNew(c.Plan); err != nil {
				return nil, err
			}
		}
	}
	at, _, _ := f.system.Location()
	fixed := disk.Overlay(env.Disks[at].Image, f.patches)
	// What the export says of the hardware, and its other disks, are judged as before.
	machine := *env
	machine.Disks = slices.Clone(env.Disks)
	switch {
	case len(f.patches) == 0:
	case c.DryRun:
		machine.Disks[at].Image = fixed
	default:
		if err := c.copy(ctx, env, fixed); err != nil {
			return nil, err
		}
		result.Disk = c.Out
		again, err := disk.OpenFile(c.Out, disk.Options{Format: c.To})
		if err != nil {
			return nil, fmt.Errorf("the fixed disk: %w", err)
		}
		defer func() { _ = again.Close() }() // only read
		machine.Disks[at].Image = again.Disks[0].Image
	}
	after := f.before
	if len(f.patches) > 0 {
		var err error
		if after, err = judgeAgain(ctx, &machine, f); err != nil {
			return nil, fmt.Errorf("the fixed disk: %w", err)
		}
	}
	if script != "" && !c.DryRun {
		if err := writeNew(c.Plan, strings.NewReader(script)); err != nil {
			return nil, err
		}
		result.PlanFile = c.Plan
	}
	result.settle(f, after)
	return result, nil
}

// copy writes the disk, which is one of an export's, or laid over it.
func (c *fixCmd) copy(ctx context.Context, env *disk.Envelope, img disk.Image) error {
	return newProgress(os.Stderr).step("Write "+filepath.Base(c.Out), func(say func(string)) (string, error) {
		progress := func(done, all int64) { say(fmt.Sprintf("%3d %% of %s", done*100/max(all, 1), size(all))) }
		form := disk.Raw
		if c.To == "qcow2" {
			form = disk.Plain // it may well be started next, for what is left to the guest
		}
		copied, err := disk.CopyFile(ctx, c.Out, img, disk.CopyOptions{Form: form, Durable: true, Progress: progress, Confirm: env.Unchanged})
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%w; if nobody else is at work, remove the file", err)
		}
		return size(copied.File), err
	})
}

// judgeAgain judges the Windows that was fixed, on disks of which one is now another.
func judgeAgain(ctx context.Context, env *disk.Envelope, f *fixing) (check.Report, error) {
	systems, err := offline.Open(env)
	if err != nil {
		return check.Report{}, err
	}
	onDisk, start, _ := f.system.Location()
	for _, s := range systems {
		if i, at, _ := s.Location(); i == onDisk && at == start {
			facts := check.Collect(ctx, s)
			if err := ctx.Err(); err != nil {
				return check.Report{}, err
			}
			return check.Run(facts, f.opt), nil
		}
	}
	return check.Report{}, errors.New("the Windows that was fixed is not found again")
}
