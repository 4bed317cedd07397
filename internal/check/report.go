package check

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// Options say what a machine is judged for. The zero value is the document's checker: default profile and process, no Office.
type Options struct {
	// Profile is the requirements; the zero Profile is [DefaultProfile].
	Profile Profile
	// Process is what the image is to be ingested as; "" is [DefaultProcess].
	Process Process
	// Office: Microsoft Office is to be subscribed to through the service.
	Office bool
	// Ingestion is the service's own run while it imports the image: every WARN is FAIL, and so is what is UNKNOWN although the
	// table does not leave it to the guest. It asks for all that the document asks for: Amazon's ingestion leaves DiskSizeExceeded out
	// and is content with 10 GB free beside an Office subscription (facts §4.1).
	Ingestion bool
}

// Report is what a run came to. It marshals to the JSON of "berth check --output json".
type Report struct {
	// Fit: no check that applies came out FAIL or WARN, and none UNKNOWN but those that may stay open until the guest is asked.
	Fit bool `json:"fit"`
	// Open lists the codes that came out UNKNOWN, in the order of the table.
	Open []string `json:"open"`
	// Running: a Windows that runs was asked, so that nothing is left to the guest.
	Running bool    `json:"running"`
	Profile string  `json:"profile"`
	Process Process `json:"process"`
	// Notes are sentences about what the profile asks for and no disk tells.
	Notes    []string  `json:"notes"`
	Windows  Windows   `json:"windows"`
	Findings []Finding `json:"findings"`
}

// Windows says which Windows was looked at. What is not known is empty.
type Windows struct {
	Version      string `json:"version"` // "2004"
	Build        string `json:"build"`   // "19041"
	Edition      string `json:"edition"` // EditionID
	Language     string `json:"language"`
	Architecture string `json:"architecture"` // as PROCESSOR_ARCHITECTURE has it: "AMD64"
	HostName     string `json:"hostName"`
}

// Finding is a check's result.
type Finding struct {
	Code     string     `json:"code"`
	Outcome  Outcome    `json:"outcome"`
	Title    string     `json:"title"`
	Because  string     `json:"because"`
	Evidence []Evidence `json:"evidence"`
	// Remedy says what to do; empty for PASS and NOT_APPLICABLE.
	Remedy string `json:"remedy"`
	// Fixable: an edit of the disk's registry mends it; then Fix has the place [OnDisk].
	Fixable bool `json:"fixable"`
	// Fix is what the program can do about it; nil where it can do nothing.
	Fix *Fix `json:"fix,omitempty"`
	// MayWait: UNKNOWN, and left to the guest: the checker that runs inside Windows (cmd/berth-checker) decides it.
	MayWait bool `json:"mayWait"`
	// Waiting: facts that the check looked at were not collected, or not yet; see [CollectEach]. What is not Waiting stays as it is
	// when the other facts come.
	Waiting bool `json:"-"`
}

// Exit codes of "berth check".
const (
	ExitFit        = 0
	ExitUnfit      = 1
	ExitUnreadable = 2
)

// ExitCode is the exit code of "berth check": 0 when the machine is fit, 1 when a check failed or warned, 2 when none did but what
// is needed to call it fit could not be read (a missing or unreadable hive, say).
func (r Report) ExitCode() int {
	if r.Fit {
		return ExitFit
	}
	for _, f := range r.Findings {
		if f.Outcome == Fail || f.Outcome == Warn {
			return ExitUnfit
		}
	}
	return ExitUnreadable
}

// remedyUnknown is for checks that want of facts kept open.
const remedyUnknown = "Start the machine, let it settle, and shut it down completely, so that its registry is written out:\n  shutdown /s /t 0\n" +
	"Export it again and repeat the check. If the file was copied, compare its size and checksum with the original."

// remedyRunning is for checks that want of facts kept open in a Windows that runs: what cannot be told then is mostly what WMI does not answer.
const remedyRunning = "Restart Windows, sign in as an administrator, let it settle for a few minutes, and repeat the check as administrator.\n" +
	"If the reason is an answer of WMI that does not come, see whether its service runs and its repository is consistent:\n  sc.exe query winmgmt\n  winmgmt /verifyrepository"

// remedyGuest is for checks that only a running Windows can answer.
const remedyGuest = "The disk of a machine that is switched off cannot tell. To have it decided, run the checker inside the machine before the export; this writes it:\n" +
	"  berth checker"

// Run judges the facts. It does not touch the machine and needs no time worth mentioning. A profile that makes no sense or a
// process that does not exist leaves every check UNKNOWN; see [LoadProfile]. A nil f is a machine of which nothing is known.
func Run(f *Facts, opt Options) Report { return run(table, f, opt) }

func run(checks []Check, f *Facts, opt Options) Report {
	if f == nil {
		f = &Facts{}
	}
	p, err := opt.params()
	rep := Report{Fit: true, Open: []string{}, Running: f.Running.OK() && f.Running.Value, Profile: printable(p.Profile.Name), Process: p.Process, Notes: p.notes(), Windows: describe(f), Findings: []Finding{}}
	var unusable Verdict
	if err != nil {
		unusable = unknown("This cannot be told: " + printable(err.Error()) + ".")
	}
	for _, c := range checks {
		v := unusable
		if err == nil {
			v = c.verdict(f, p)
		}
		fd := c.finding(f, v, p)
		switch fd.Outcome {
		case Fail, Warn:
			rep.Fit = false
		case Unknown:
			rep.Open = append(rep.Open, c.Code)
			rep.Fit = rep.Fit && fd.MayWait
		}
		rep.Findings = append(rep.Findings, fd)
	}
	return rep
}

// params makes what the checks may know of the options. An error is why nothing can be judged by them.
func (o Options) params() (Params, error) {
	p := Params{Profile: o.Profile, Process: cmp.Or(o.Process, DefaultProcess), Office: o.Office, Ingestion: o.Ingestion}
	if p.Profile.Name == "" {
		p.Profile, _ = ProfileByName(DefaultProfile)
	}
	if err := p.Profile.valid(); err != nil {
		return p, fmt.Errorf("profile %q makes no sense: %w", p.Profile.Name, err)
	}
	if !p.Process.Known() {
		err := fmt.Errorf("there is no ingestion process %q", p.Process)
		p.Process = Process(printable(string(p.Process)))
		return p, err
	}
	return p, nil
}

// notes says what the profile asks for and nothing on a disk tells.
func (p Params) notes() []string {
	pr, notes := p.Profile, []string{}
	switch {
	case p.Process.Graphics() && pr.MinGraphicsAlwaysOn.Value > 0:
		notes = append(notes, fmt.Sprintf("Amazon asks for at least %d AlwaysOn or %d AutoStop WorkSpaces with graphics processors in a Region and month (%s); Berth does not.",
			pr.MinGraphicsAlwaysOn.Value, pr.MinGraphicsAutoStop.Value, pr.MinGraphicsAlwaysOn.Source))
	case !p.Process.Graphics() && pr.MinWorkSpaces.Value > 0:
		notes = append(notes, fmt.Sprintf("Amazon asks for at least %d WorkSpaces in a Region (%s); Berth does not.", pr.MinWorkSpaces.Value, pr.MinWorkSpaces.Source))
	}
	return notes
}

func (c Check) verdict(f *Facts, p Params) Verdict {
	if c.Profiles != nil && !slices.ContainsFunc(c.Profiles, p.Profile.is) {
		return notApplicable("Profile " + p.Profile.Name + " does not ask for it.")
	}
	if slices.Contains(p.Profile.LeaveOut.Value, c.Code) {
		return notApplicable("Profile " + p.Profile.Name + " leaves it out (" + p.Profile.LeaveOut.Source + ").")
	}
	v := c.judge(f, p)
	v.Outcome = cmp.Or(v.Outcome, c.Level)
	return v
}

// finding turns a verdict into what is reported.
func (c Check) finding(f *Facts, v Verdict, p Params) Finding {
	fd := Finding{Code: c.Code, Outcome: v.Outcome, Title: c.Title, Because: v.Because, Evidence: v.Evidence, Waiting: v.waiting}
	if fd.Evidence == nil {
		fd.Evidence = []Evidence{}
	}
	switch v.Outcome {
	case Unknown:
		// A running Windows was asked already: nobody is left to wait for.
		fd.MayWait = c.DecidedIn == InGuest && !v.NoWait && f.Running.OK() && !f.Running.Value
		fd.Remedy = remedyUnknown
		if f.Running.OK() && f.Running.Value {
			fd.Remedy = remedyRunning
		}
		if fd.MayWait {
			fd.Remedy = remedyGuest
		} else if p.Ingestion {
			fd.Outcome = Fail
			fd.Because += " Ingestion takes nothing on trust."
		}
	case Fail, Warn:
		fd.Remedy = c.Remedy
		if c.fix != nil && !v.ByHand {
			fd.Fix = newFix(c.Code, c.fix(f, p))
			fd.Fixable = fd.Fix != nil && fd.Fix.Place == OnDisk
		}
		if p.Ingestion {
			fd.Outcome = Fail
		}
	}
	return fd
}

// describe gathers what the report's head says.
func describe(f *Facts) Windows {
	w := Windows{
		Edition: printable(f.EditionID.Value), Architecture: printable(f.Architecture.Value), HostName: printable(f.HostName.Value),
		Version: printable(f.Release.Value),
	}
	if f.Build.OK() {
		w.Build = strconv.Itoa(f.Build.Value)
		w.Version = cmp.Or(versionNames[f.Build.Value], w.Version)
	}
	if f.InstallLanguage.OK() {
		if id, err := strconv.ParseUint(f.InstallLanguage.Value, 16, 16); err == nil {
			w.Language = languageName(uint16(id))
		}
	}
	if len(f.DisplayLanguages.Value) > 0 {
		w.Language = printable(f.DisplayLanguages.Value[0])
	}
	return w
}
