package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"berth/internal/check"
	"berth/internal/phony"
	"berth/internal/phony/phonytest"
	"berth/internal/windows"
	"berth/internal/windows/offline"
)

// TestMachines makes a disk of every machine in testdata/machines and judges it, switched off and, where its text records the
// answers, running: the findings must be those that the text tells.
func TestMachines(t *testing.T) {
	names, err := phony.Names()
	if err != nil || len(names) == 0 {
		t.Fatalf("no machines: %v", err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := phonytest.Load(t, name)
			env, _ := phonytest.Disk(t, m)
			systems, err := offline.Open(env)
			if m.Refused != "" {
				var encrypted *offline.EncryptedError
				switch {
				case m.Refused == "no Windows" && errors.Is(err, offline.ErrNoWindows):
				case errors.As(err, &encrypted) && encrypted.By == m.Refused:
				default:
					t.Fatalf("opened with %v, want a refusal for %s", err, m.Refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			judge(t, m, systems[0], m.Findings)
			if m.Guest != nil {
				alike(t, systems[0], running{systems[0], m.Guest})
				live := maps.Clone(m.Findings)
				maps.Copy(live, m.LiveFindings)
				judge(t, m, running{systems[0], m.Guest}, live)
			}
			if name == phony.Base && len(m.Findings) > 0 {
				for code, outcome := range m.Findings {
					if outcome != string(check.NotApplicable) {
						t.Errorf("the sample VM: %s %s", outcome, code)
					}
				}
			}
		})
	}
}

// running is a machine that answers for itself: what a powered-off disk holds, and what is recorded of the running Windows.
type running struct {
	windows.System
	windows.Guest
}

// Machine is the disk's, but running.
func (r running) Machine() windows.Machine {
	m := r.System.Machine()
	m.Running = true
	return m
}

// alike holds that the machine switched off and running tells the same facts, as far as both can be known. Which packages are listed is
// not the same, nor is how the disk's word and the running Windows's are found.
func alike(t *testing.T, off, on windows.System) {
	t.Helper()
	a, b := reflect.ValueOf(*check.Collect(context.Background(), off)), reflect.ValueOf(*check.Collect(context.Background(), on))
	known := func(v reflect.Value) bool {
		return v.Addr().MethodByName("OK").Call(nil)[0].Bool()
	}
	for i := range a.NumField() {
		name := a.Type().Field(i).Name
		x, y := reflect.New(a.Field(i).Type()).Elem(), reflect.New(b.Field(i).Type()).Elem()
		x.Set(a.Field(i))
		y.Set(b.Field(i))
		if slices.Contains([]string{"Running", "Packages", "Hibernated", "PendingRestart"}, name) || !known(x) || !known(y) {
			continue
		}
		left, right := withoutPlaces(t, x.FieldByName("Value").Interface()), withoutPlaces(t, y.FieldByName("Value").Interface())
		if !reflect.DeepEqual(left, right) {
			t.Errorf("%s is %+v switched off and %+v running", name, left, right)
		}
	}
}

// withoutPlaces is a value without what it says of where it was read.
func withoutPlaces(t *testing.T, value any) any {
	t.Helper()
	b, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var parts any
	if err := json.Unmarshal(b, &parts); err != nil {
		t.Fatal(err)
	}
	if list, ok := parts.([]any); ok {
		for _, element := range list {
			if fields, ok := element.(map[string]any); ok {
				delete(fields, "From")
			}
		}
	}
	return parts
}

// options are what a machine is judged for.
func options(t *testing.T, m *phony.Machine) check.Options {
	t.Helper()
	opt := check.Options{Process: check.Process(m.Process), Office: m.Office}
	if m.Profile != "" {
		p, ok := check.ProfileByName(m.Profile)
		if !ok {
			t.Fatalf("there is no profile %s", m.Profile)
		}
		opt.Profile = p
	}
	return opt
}

// judge holds what the checks say of a system against what the machine's text tells.
func judge(t *testing.T, m *phony.Machine, sys windows.System, findings map[string]string) {
	t.Helper()
	opt := options(t, m)
	report := check.Run(collect(t, sys, opt), opt)
	live := sys.Machine().Running
	fit := true
	for _, f := range report.Findings {
		c, _ := check.Describe(f.Code)
		want, told := findings[f.Code]
		switch {
		case told:
		case c.Operation != "":
			want = string(check.NotApplicable)
		case c.Code == "MemoryIntegrityIncompatibility" && sys.Machine().Firmware == "bios": // keeps no lock: its disk tells
			want = string(check.Pass)
		case c.DecidedIn == check.InGuest && !live:
			want = string(check.Unknown)
		default:
			want = string(check.Pass)
		}
		if string(f.Outcome) != want {
			t.Errorf("running %v: %s is %s, want %s: %s %q", live, f.Code, f.Outcome, want, f.Because, f.Evidence)
		}
		open := want == string(check.Unknown) && c.DecidedIn == check.InGuest && !live
		fit = fit && want != string(check.Fail) && want != string(check.Warn) && (want != string(check.Unknown) || open)
	}
	for code := range findings {
		if _, ok := check.Describe(code); !ok {
			t.Errorf("the text tells of %s, which is no check", code)
		}
	}
	if report.Fit != fit || fit != (report.ExitCode() == check.ExitFit) {
		t.Errorf("running %v: fit is %v with exit code %d, want fit %v", live, report.Fit, report.ExitCode(), fit)
	}
}

// TestMachinesCoverTable: for every check there is a machine that fails it.
func TestMachinesCoverTable(t *testing.T) {
	names, err := phony.Names()
	if err != nil {
		t.Fatal(err)
	}
	failed := map[string]bool{}
	for _, name := range names {
		m := phonytest.Load(t, name)
		for _, findings := range []map[string]string{m.Findings, m.LiveFindings} {
			for code, outcome := range findings {
				if outcome == string(check.Fail) || outcome == string(check.Warn) {
					failed[code] = true
				}
			}
		}
	}
	for _, c := range check.Checks() {
		if c.Operation == "" && !failed[c.Code] {
			t.Errorf("no machine in testdata/machines fails %s", c.Code)
		}
		if c.Operation != "" && failed[c.Code] {
			t.Errorf("a machine fails %s, which is not asked of machines", c.Code)
		}
	}
}
