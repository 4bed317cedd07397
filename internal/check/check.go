// Package check says whether a Windows installation may become a WorkSpaces image under Bring Your Own License.
//
// It works in two halves that meet in [Facts]. [Collect] asks a [windows.System] and is the only reader of facts; it does not
// judge. [Run] judges the facts by the table of checks under a [Profile]; it reads nothing. A check never learns whether the
// facts come from a powered-off disk or from a running Windows.
//
// Unknown never passes: every fact is a [Known], which either says where it was read or why it could not be, and a check
// whose facts are missing comes out UNKNOWN. A machine is not fit while such a check is open, except where the table marks the
// check as decided in the guest.
//
// The package does not open disks (internal/disk), does not parse hives or file systems (internal/windows), and changes nothing.
//
// What can be done about a finding is a [Fix]: changes as data, for windows/offline or windows/live to make.
//
// Start reading at [Run], then the table in table.go, which is put together of one list of checks for each group. To add a check: a
// row beside its judgement; a field in Facts and its few lines in Collect if the fact is new; a fix if a machine can make it; a
// machine that fails it; then run the tests with -update, which also rewrites docs/checks.md.
package check

import (
	"slices"

	"berth/internal/windows"
)

// Outcome is what a check came to. The words are those of the report's JSON.
type Outcome string

const (
	// Pass: the facts were read and meet the requirement.
	Pass Outcome = "PASS"
	// Fail: the requirement is not met, and somebody must change the machine.
	Fail Outcome = "FAIL"
	// Warn: the requirement is not met, and Amazon's checker offers to mend it. Ingestion treats it as Fail.
	Warn Outcome = "WARN"
	// Unknown: the facts could not be read. Never counts as Pass.
	Unknown Outcome = "UNKNOWN"
	// NotApplicable: the requirement does not concern this machine or this request.
	NotApplicable Outcome = "NOT_APPLICABLE"
)

// Place says where a check can be decided.
type Place string

const (
	// OnDisk: a powered-off disk holds all the evidence. Such a check may not stay UNKNOWN.
	OnDisk Place = "disk"
	// InGuest: only a running Windows can tell. UNKNOWN may stay open until the guest is asked.
	InGuest Place = "guest"
)

// Check is a row of the table.
type Check struct {
	// Code names the check: one of Amazon's WorkspaceImageErrorDetailCode, or our own where Amazon has none.
	Code string
	// ReportAs is the WorkspaceImageErrorDetailCode under which the WorkSpaces API reports a failure of this check. It equals
	// Code for Amazon's own codes and is the nearest of them for ours.
	ReportAs string
	// Title is the requirement, as one short statement that holds when the check passes.
	Title string
	// Level is what the check comes to when the requirement is not met: Fail or Warn. A check may come out milder, never harder;
	// ingestion turns every Warn into Fail.
	Level Outcome
	// Source says who asks for it and where the test is written down: "document" is Amazon's page "Bring Your Own Windows Desktop
	// Licenses" of September 2020, "facts" the project's collection of facts around it (byol-facts), by section.
	Source string
	// Operation is the operation of Amazon's API whose check it is: empty for the import of a machine, "CreateWorkspaceImage" for
	// the checks of a WorkSpace that a custom image is made of, which are NOT_APPLICABLE to a machine.
	Operation string
	// Profiles names the profiles that ask for it, for those that began as them too; nil means all.
	Profiles []string
	// Applies says for people to what else the check is confined ("Windows 11", "Office is subscribed to"); empty: to nothing.
	Applies string
	// Evaluation says for people what is read and what it is compared with.
	Evaluation string
	// DecidedIn says where the answer can be had.
	DecidedIn Place
	// Fix says for people what the program can do about it; empty: nothing.
	Fix string
	// Fixable says that it is done by an edit of the powered-off disk's registry; otherwise only in the running Windows.
	Fixable bool
	// Remedy tells an administrator what to click or type, inside the machine unless it says otherwise: a line for each step,
	// commands indented by two spaces, to be typed in an elevated prompt.
	Remedy string

	judge func(*Facts, Params) Verdict
	// fix makes the changes that mend what judge found; none where it can do nothing this time. nil: it never can.
	fix func(*Facts, Params) []windows.Change
}

// Amazon reports whether the code is one of Amazon's.
func (c Check) Amazon() bool { return c.Code == c.ReportAs }

// Params is what a check may know besides the facts.
type Params struct {
	Profile Profile
	// Process is what the image is to be ingested as.
	Process Process
	// Office: Microsoft Office is to be subscribed to through the service.
	Office bool
	// Ingestion: the service is importing the image; see [Options].
	Ingestion bool
}

// Verdict is what a check's judgement returns.
type Verdict struct {
	// Outcome of the check; "" means that the requirement is not met, at the row's level.
	Outcome Outcome
	// Because says in a sentence or two what was found and what would have been right.
	Because string
	// Evidence is what was looked at.
	Evidence []Evidence
	// NoWait: UNKNOWN although the check is decided in the guest, and not to be left to it, for not even what the disk should tell of
	// it could be read.
	NoWait bool
	// ByHand is set where a check that has a fix as a rule cannot be mended by it this time.
	ByHand bool

	// waiting: facts that were looked at are not collected yet.
	waiting bool
}

// verdict is what facts come to.
func verdict(outcome Outcome, because string, on []fact) Verdict {
	waiting := slices.ContainsFunc(on, func(k fact) bool {
		_, _, why := k.state()
		return why == notCollected
	})
	return Verdict{Outcome: outcome, Because: because, Evidence: evidence(on...), waiting: waiting}
}

func pass(because string, on ...fact) Verdict { return verdict(Pass, because, on) }

func unmet(because string, on ...fact) Verdict { return verdict("", because, on) }

func notApplicable(because string, on ...fact) Verdict { return verdict(NotApplicable, because, on) }

// notRefused is what a requirement comes to at ingestion that the document has for who prepares the machine, and that Amazon's
// ingestion does not refuse an image for.
func notRefused(on ...fact) Verdict {
	return notApplicable("It is for who prepares the machine: ingestion does not refuse an image for it.", on...)
}

func unknown(because string, on ...fact) Verdict { return verdict(Unknown, because, on) }

// maxSeen bounds the evidence that a verdict has beside where its facts were read.
const maxSeen = 8

// few adds evidence to a list until it has enough. A hostile hive has thousands of programs that fail a check.
func few(seen []Evidence, more ...Evidence) []Evidence {
	return append(seen, more[:min(len(more), max(0, maxSeen-len(seen)))]...)
}

// saw adds evidence, a few pieces of it.
func (v Verdict) saw(seen []Evidence) Verdict {
	v.Evidence = append(v.Evidence, seen[:min(len(seen), maxSeen)]...)
	return v
}

// missing returns the UNKNOWN verdict when one of the facts is not known.
func missing(on ...fact) (Verdict, bool) {
	for _, k := range on {
		if ok, _, why := k.state(); !ok {
			return unknown("This cannot be told: "+why+".", on...), true
		}
	}
	return Verdict{}, false
}

// evidence is where the facts were read, or where one looked and why they are not known; each piece once.
func evidence(on ...fact) []Evidence {
	var list []Evidence
	for _, k := range on {
		ok, from, why := k.state()
		if len(from) == 0 {
			from = []Evidence{said(why)}
		} else if !ok { // the last one is what could not be read
			last := len(from) - 1
			from = append(slices.Clone(from[:last]), from[last].plus(": "+why))
		}
		for _, e := range from {
			if !slices.ContainsFunc(list, func(have Evidence) bool { return have.Text == e.Text }) {
				list = append(list, e)
			}
		}
	}
	return list
}

// Checks returns the table, in the order of the report. The slice is the caller's.
func Checks() []Check { return slices.Clone(table) }

// Describe returns the row for a code, which is compared exactly, and whether there is one.
func Describe(code string) (Check, bool) {
	i := slices.IndexFunc(table, func(c Check) bool { return c.Code == code })
	if i < 0 {
		return Check{}, false
	}
	return table[i], true
}
