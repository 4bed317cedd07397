package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"berth/internal/phony/phonytest"
	"berth/internal/windows"
)

// decidesNothing are the facts that tell people more but carry no verdict.
var decidesNothing = []string{"HostName", "Release", "Revision", "Reclaimable", "AutoLogonSecret", "PendingRenames", "KMSHost", "SkipRearm"}

// otherFacts are those that decide nothing on the machine of the cases, because they concern others: Windows 11.
var otherFacts = []string{"TPM"}

// fields lists the names of the facts; every field of Facts must be a Known.
func fields(t *testing.T) []string {
	t.Helper()
	var list []string
	typ := reflect.TypeFor[Facts]()
	for i := range typ.NumField() {
		field := typ.Field(i)
		if !strings.HasPrefix(field.Type.Name(), "Known[") {
			t.Fatalf("Facts.%s is no Known", field.Name)
		}
		list = append(list, field.Name)
	}
	return list
}

// blank returns the facts without those named.
func blank(f *Facts, names ...string) *Facts {
	g := *f
	for _, name := range names {
		reflect.ValueOf(&g).Elem().FieldByName(name).SetZero()
	}
	return &g
}

// outcomes maps code to outcome.
func outcomes(r Report) map[string]Outcome {
	m := map[string]Outcome{}
	for _, f := range r.Findings {
		m[f.Code] = f.Outcome
	}
	return m
}

// better lists the checks that passed in got but not in before.
func better(before, got Report) []string {
	var list []string
	was := outcomes(before)
	for _, f := range got.Findings {
		if f.Outcome == Pass && was[f.Code] != Pass {
			list = append(list, f.Code)
		}
	}
	return list
}

// TestBlankFacts takes facts away from every machine of the cases: each that the case is about and a quarter of the others alone, and some
// and all but one at random; and once more, fewer, when the machine is judged for something else. No verdict may become PASS, and no
// machine fit.
func TestBlankFacts(t *testing.T) {
	names := fields(t)
	asked := requests()
	random := rand.New(rand.NewPCG(2, 6))
	usual := reflect.ValueOf(*Collect(context.Background(), fit(t)))
	for i, c := range cases {
		m := fit(t)
		c.change(t, m)
		facts := Collect(context.Background(), m)
		for _, of := range []struct {
			opt Options
			one int // in so many of the other facts
		}{{c.opt, 4}, {asked[random.IntN(len(asked))], 16}} {
			before := Run(facts, of.opt)
			var takes [][]string
			for j, name := range names {
				if (i+j)%of.one == 0 || !reflect.DeepEqual(usual.FieldByName(name).Interface(), reflect.ValueOf(*facts).FieldByName(name).Interface()) {
					takes = append(takes, []string{name})
				}
				if random.IntN(4*of.one) != 0 {
					continue
				}
				takes = append(takes, slices.Concat(names[:j], names[j+1:]))
				var some []string
				for _, n := range names {
					if random.IntN(5) == 0 {
						some = append(some, n)
					}
				}
				takes = append(takes, some)
			}
			for _, taken := range takes {
				got := Run(blank(facts, taken...), of.opt)
				if list := better(before, got); len(list) > 0 {
					t.Errorf("%s, %s as %s: without %v these pass: %v", c.name, before.Profile, before.Process, taken, list)
				}
				if got.Fit && !before.Fit {
					t.Errorf("%s, %s as %s: without %v the machine is fit", c.name, before.Profile, before.Process, taken)
				}
			}
		}
	}
}

// requests are all that a machine can be judged for: every profile, process, with Office and without, before and at ingestion.
func requests() []Options {
	var list []Options
	for _, profile := range Profiles() {
		for _, process := range Processes() {
			for i := range 4 {
				list = append(list, Options{Profile: profile, Process: process, Office: i&1 != 0, Ingestion: i&2 != 0})
			}
		}
	}
	return list
}

// TestBlankFactsForAll takes every fact away from machines that meet something, whatever they are judged for: no verdict may become
// PASS, and no machine fit. With nothing known nothing passes.
func TestBlankFactsForAll(t *testing.T) {
	machines := map[string]*memory{"Windows 10": fit(t), "Windows 11": fit(t), "Windows 10 that runs": live(t)}
	gptMachine("26100", "Enterprise")(t, machines["Windows 11"])
	names := fields(t)
	for name, m := range machines {
		facts := Collect(context.Background(), m)
		blanked := make([]*Facts, len(names))
		for i, n := range names {
			blanked[i] = blank(facts, n)
		}
		for _, opt := range requests() {
			before := Run(facts, opt)
			asked := fmt.Sprintf("%s, %s as %s, Office %v, ingestion %v", name, opt.Profile.Name, opt.Process, opt.Office, opt.Ingestion)
			for i, n := range names {
				got := Run(blanked[i], opt)
				if list := better(before, got); len(list) > 0 {
					t.Errorf("%s: without %s these pass: %v", asked, n, list)
				}
				if got.Fit && !before.Fit {
					t.Errorf("%s: without %s the machine is fit", asked, n)
				}
			}
			for _, f := range Run(&Facts{}, opt).Findings {
				if f.Outcome == Pass || f.Fix != nil {
					t.Errorf("%s: with nothing known %s is %s, with fix %v", asked, f.Code, f.Outcome, f.Fix)
				}
			}
		}
	}
}

// TestBlankFactsOfFit shows what each fact carries: on the fit machine, running, every fact but those listed takes a PASS away, every
// PASS hangs on a fact, and a machine of which nothing is known passes nothing. Switched off it is the same, but that what is
// left to the guest stays open.
func TestBlankFactsOfFit(t *testing.T) {
	for name, m := range map[string]*memory{"running": live(t), "off": fit(t)} {
		facts := Collect(context.Background(), m)
		before := Run(facts, Options{})
		was := outcomes(before)
		carried := map[string][]string{}
		for _, fact := range fields(t) {
			got := Run(blank(facts, fact), Options{})
			for _, f := range got.Findings {
				if was[f.Code] == Pass && f.Outcome != Pass {
					carried[f.Code] = append(carried[f.Code], fact)
				}
				if f.Outcome != was[f.Code] && f.Outcome != Unknown {
					t.Errorf("%s, without %s %s is %s, want UNKNOWN", name, fact, f.Code, f.Outcome)
				}
			}
			informs := slices.Contains(decidesNothing, fact) || slices.Contains(otherFacts, fact)
			switch fact {
			case "Licence", "RearmCount", "DeviceGuard": // only a running Windows tells them
				informs = name == "off"
			case "Running", "KeyChannel": // one that answers needs no word on whether it runs, and which key it has
				informs = name == "running"
			}
			if got.Fit != informs {
				t.Errorf("%s, without %s fit is %v, want %v", name, fact, got.Fit, informs)
			}
			if !got.Fit && got.ExitCode() != ExitUnreadable {
				t.Errorf("%s, without %s the exit code is %d, want %d", name, fact, got.ExitCode(), ExitUnreadable)
			}
		}
		var lines []string
		for _, f := range before.Findings {
			if f.Outcome != Pass {
				continue
			}
			if len(carried[f.Code]) == 0 {
				t.Errorf("%s, %s passes whatever is not known", name, f.Code)
			}
			lines = append(lines, f.Code+": "+strings.Join(carried[f.Code], " "))
		}
		if name == "running" {
			phonytest.Golden(t, *update, "testdata/carried.txt", strings.Join(lines, "\n")+"\n")
		}
	}

	asked := 0
	for _, f := range Run(&Facts{}, Options{}).Findings {
		want := Unknown
		if row, _ := Describe(f.Code); row.Operation != "" {
			want = NotApplicable
		} else {
			asked++
		}
		if f.Outcome != want {
			t.Errorf("of an unknown machine %s is %s, want %s", f.Code, f.Outcome, want)
		}
	}
	if r := Run(nil, Options{}); r.Fit || r.ExitCode() != ExitUnreadable || len(r.Open) != asked {
		t.Errorf("no facts: fit %v, exit %d, %d open of %d", r.Fit, r.ExitCode(), len(r.Open), asked)
	}
}

// TestOtherOperations: what Amazon asks of custom images is not asked of a machine, whatever it is.
func TestOtherOperations(t *testing.T) {
	for name, f := range map[string]*Facts{"fit": Collect(context.Background(), fit(t)), "running": Collect(context.Background(), live(t)), "unknown": {}} {
		for _, opt := range []Options{{}, {Ingestion: true}, {Profile: named("2026"), Process: RegularWSP, Office: true}} {
			for _, fd := range Run(f, opt).Findings {
				row, _ := Describe(fd.Code)
				if (row.Operation != "") != strings.Contains(row.Applies, "CreateWorkspaceImage") {
					t.Errorf("%s: operation %q, applies to %q", row.Code, row.Operation, row.Applies)
				}
				if row.Operation != "" && (fd.Outcome != NotApplicable || !strings.Contains(fd.Because, row.Operation)) {
					t.Errorf("%s, %+v: %s is %s: %s", name, opt, fd.Code, fd.Outcome, fd.Because)
				}
			}
		}
	}
}

// TestUnreadable breaks every key and value that Collect asks for, in turn, on every machine of the cases: an error must never
// do what absence does.
func TestUnreadable(t *testing.T) {
	informs := []string{ // what is read for people alone
		`\control\computername`, `\control\network`, `\driverdesc`, `\defaultpassword`, `\displayversion`, `\releaseid`, `\ubr`,
		`\secrets`, `\pendingfilerenameoperations`, `\keymanagementservicename`, `\skiprearm`, `\softwareprotectionplatform`, `bcd\objects\{1}\elements`,
		`\msft0101`, `\enum`, "c:/pagefile.sys", "c:/swapfile.sys",
	}
	usual := map[string]bool{}
	for i, c := range cases {
		m := fit(t)
		c.change(t, m)
		m.asked = map[string]bool{}
		before := Run(Collect(context.Background(), m), c.opt)
		asked := slices.Sorted(maps.Keys(m.asked))
		m.asked = nil
		broken := m.broken
		for j, what := range asked {
			if usual[what] && (i+j)%10 != 0 { // what every machine is asked for, every machine breaks a tenth of
				continue
			}
			usual[what] = true
			m.broken = maps.Clone(broken)
			if m.broken == nil {
				m.broken = map[string]error{}
			}
			m.broken[what] = errors.New("unreadable")
			got := Run(Collect(context.Background(), m), c.opt)
			if list := better(before, got); len(list) > 0 {
				t.Errorf("%s: with %s unreadable these pass: %v", c.name, what, list)
			}
			informing := slices.ContainsFunc(informs, func(s string) bool { return strings.Contains(what, s) })
			// Ingestion without a subscription does not ask for Office.
			informing = informing || c.opt.Ingestion && !c.opt.Office && strings.HasPrefix(what, `software\microsoft\office`)
			// Nor does ingestion at all ask for what is for who prepares the machine.
			for _, of := range []string{"c:/users/default", `software\amazon`, `\component based servicing\packages`, `\control\windows`} {
				informing = informing || c.opt.Ingestion && strings.Contains(what, of)
			}
			// A running Windows is asked instead.
			informing = informing || m.machine.Running && (what == "c:/hiberfil.sys" || strings.HasSuffix(what, `\digitalproductid4`))
			if got.Fit && !informing {
				t.Errorf("%s: with %s unreadable the machine is fit", c.name, what)
			}
		}
	}
}

// TestHives: a hive that is missing, unreadable or out of date leaves its facts unknown, and the machine unfit. It makes no
// machine better.
func TestHives(t *testing.T) {
	states := map[string]windows.HiveState{
		"unreadable": {Err: errors.New("regf: bad checksum")},
		"missing":    {Err: fmt.Errorf("no file: %w", fs.ErrNotExist)},
		"stale":      {Dirty: true, Stale: true, Why: "its logs are missing"},
		"damaged":    {Damaged: "2 bins"},
	}
	for i, c := range cases {
		m := fit(t)
		c.change(t, m)
		before := Run(Collect(context.Background(), m), c.opt)
		for j, name := range slices.Sorted(maps.Keys(states)) {
			for k, hive := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM, windows.Default, windows.Security, windows.BCD} {
				st := states[name]
				if (i+6*j+k)%5 != 0 { // every machine meets a few, and every pair many machines
					continue
				}
				m.states = map[windows.Hive]windows.HiveState{hive: st}
				got := Run(Collect(context.Background(), m), c.opt)
				// In a damaged hive absence proves nothing, but what is there is there: so much may be true of the small hives.
				if got.Fit && !(name == "damaged" && hive != windows.SystemHive && hive != windows.Software) {
					t.Errorf("%s: with hive %s %s the machine is fit", c.name, hive, name)
				}
				if list := better(before, got); len(list) > 0 && !c.damaging() {
					t.Errorf("%s: with hive %s %s these pass: %v", c.name, hive, name, list)
				}
			}
		}
	}
	m := fit(t)
	m.states = map[windows.Hive]windows.HiveState{windows.SAM: states["stale"]}
	rep := Run(Collect(context.Background(), m), Options{})
	f := find(t, rep, "WorkspacesBYOLAccountNotFound")
	if f.Outcome != Unknown || !strings.Contains(f.Because, "its logs are missing") || rep.ExitCode() != ExitUnreadable {
		t.Errorf("stale SAM: %s, %q, exit %d", f.Outcome, f.Because, rep.ExitCode())
	}
	m.states[windows.SAM] = windows.HiveState{Dirty: true, Replayed: 12}
	if rep := Run(Collect(context.Background(), m), Options{}); !rep.Fit {
		t.Error("a hive whose logs were applied is not trusted")
	}
}

// damaging cases set hive states of their own, which TestHives replaces.
func (c testCase) damaging() bool { return strings.Contains(c.name, "damaged") }

func TestCollectStopped(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	rep := Run(Collect(ctx, fit(t)), Options{})
	if rep.Fit || rep.ExitCode() != ExitUnreadable {
		t.Errorf("stopped: fit %v, exit %d", rep.Fit, rep.ExitCode())
	}
	if f := find(t, rep, "InPlaceUpgrade"); f.Outcome != Unknown || !strings.Contains(f.Because, "not collected") {
		t.Errorf("stopped: InPlaceUpgrade is %s: %s", f.Outcome, f.Because)
	}
}

// TestGuestOnly holds the rule for what a powered-off disk cannot tell against a row that only a guest decides.
func TestGuestOnly(t *testing.T) {
	guest := Check{Code: "ZeroRearmCount", ReportAs: "ZeroRearmCount", Level: Fail, DecidedIn: InGuest, Title: "Rearms are left",
		judge: func(*Facts, Params) Verdict { return unknown("This cannot be told from a disk.") }}
	disk := guest
	disk.DecidedIn = OnDisk
	warns := Check{Code: "X", Level: Warn, Fixable: true, Remedy: "mend it", judge: func(*Facts, Params) Verdict { return unmet("no") }}
	off := &Facts{Running: read(false, said("the machine itself"))}
	for _, c := range []struct {
		name  string
		check Check
		facts *Facts
		opt   Options
		want  Outcome
		fit   bool
		exit  int
	}{
		{"guest, disk is asked", guest, off, Options{}, Unknown, true, ExitFit},
		{"guest, ingestion of a disk", guest, off, Options{Ingestion: true}, Unknown, true, ExitFit},
		{"guest, guest was asked", guest, &Facts{Running: read(true, said("the machine itself"))}, Options{}, Unknown, false, ExitUnreadable},
		{"guest, guest was asked by ingestion", guest, &Facts{Running: read(true, said("the machine itself"))}, Options{Ingestion: true}, Fail, false, ExitUnfit},
		{"guest, nobody knows who was asked", guest, &Facts{}, Options{}, Unknown, false, ExitUnreadable},
		{"disk", disk, off, Options{}, Unknown, false, ExitUnreadable},
		{"disk, ingestion", disk, off, Options{Ingestion: true}, Fail, false, ExitUnfit},
		{"warning", warns, off, Options{}, Warn, false, ExitUnfit},
		{"warning, ingestion", warns, off, Options{Ingestion: true}, Fail, false, ExitUnfit},
	} {
		r := run([]Check{c.check}, c.facts, c.opt)
		if got := r.Findings[0].Outcome; got != c.want || r.Fit != c.fit || r.ExitCode() != c.exit {
			t.Errorf("%s: %s, fit %v, exit %d; want %s, %v, %d", c.name, got, r.Fit, r.ExitCode(), c.want, c.fit, c.exit)
		}
		if open := len(r.Open) == 1; open != (c.want == Unknown) {
			t.Errorf("%s: open is %v", c.name, r.Open)
		}
	}
	// Who runs Windows already exports nothing again.
	asked := run([]Check{guest, disk}, &Facts{Running: read(true, said("the machine itself"))}, Options{})
	for _, f := range asked.Findings {
		if f.Outcome != Unknown || strings.Contains(f.Remedy, "xport") || !strings.Contains(f.Remedy, "repeat the check") {
			t.Errorf("%s of a running Windows is %s: %q", f.Code, f.Outcome, f.Remedy)
		}
	}
	both := run([]Check{disk, warns}, off, Options{})
	if both.ExitCode() != ExitUnfit {
		t.Errorf("a warning beside an open check: exit %d, want %d", both.ExitCode(), ExitUnfit)
	}
	other := Check{Code: "Y", Level: Fail, Profiles: []string{"2026"}, judge: func(*Facts, Params) Verdict { return unmet("no") }}
	if r := run([]Check{other}, off, Options{}); r.Findings[0].Outcome != NotApplicable || !r.Fit {
		t.Errorf("a check of another profile is %s", r.Findings[0].Outcome)
	}
}

// TestBadOptions: with a profile that makes no sense, or a process that does not exist, nothing passes.
func TestBadOptions(t *testing.T) {
	empty, negative := Profile{Name: "acme"}, named("2026")
	negative.MinFreeGiB.Value = -1
	for name, opt := range map[string]Options{"empty profile": {Profile: empty}, "bad number": {Profile: negative}, "process": {Process: "BYOL_LARGE\x1b"}} {
		r := Run(Collect(context.Background(), fit(t)), opt)
		if r.Fit || r.ExitCode() != ExitUnreadable || len(r.Open) != len(table) {
			t.Errorf("%s: fit %v, exit %d, open %v", name, r.Fit, r.ExitCode(), r.Open)
		}
		prints(t, r)
		opt.Ingestion = true
		if r := Run(Collect(context.Background(), fit(t)), opt); r.ExitCode() != ExitUnfit {
			t.Errorf("%s, ingestion: exit %d", name, r.ExitCode())
		}
	}
}
