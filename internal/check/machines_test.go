package check_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows/offline"
)

// TestMachines makes a disk of every machine in testdata/machines and judges it: the findings must be those that its text tells.
func TestMachines(t *testing.T) {
	names, err := phony.Names()
	if err != nil || len(names) == 0 {
		t.Fatalf("no machines: %v", err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := phony.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "disk.raw")
			if err := m.WriteRaw(t.Context(), file); err != nil {
				t.Fatal(err)
			}
			env, err := disk.OpenFile(file, disk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = env.Close() }()
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
			facts := check.Collect(context.Background(), systems[0])
			start := time.Now()
			report := check.Run(facts, check.Options{})
			if took := time.Since(start); took > 50*time.Millisecond {
				t.Errorf("judging took %v", took)
			}
			fit := true
			for _, f := range report.Findings {
				want, told := m.Findings[f.Code]
				if !told {
					want = string(check.Pass)
				}
				c, _ := check.Describe(f.Code)
				open := !told && f.Outcome == check.Unknown && c.DecidedIn == check.InGuest
				if string(f.Outcome) != want && !open {
					t.Errorf("%s is %s, want %s: %s %q", f.Code, f.Outcome, want, f.Because, f.Evidence)
				}
				fit = fit && want != string(check.Fail) && want != string(check.Warn) && want != string(check.Unknown)
			}
			for code := range m.Findings {
				if _, ok := check.Describe(code); !ok {
					t.Errorf("the text tells of %s, which is no check", code)
				}
			}
			if report.Fit != fit || fit != (report.ExitCode() == check.ExitFit) {
				t.Errorf("fit is %v with exit code %d, want fit %v", report.Fit, report.ExitCode(), fit)
			}
			if name == phony.Base && !report.Fit {
				t.Error("the sample VM is not fit")
			}
		})
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
		m, err := phony.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for code, outcome := range m.Findings {
			if outcome == string(check.Fail) || outcome == string(check.Warn) {
				failed[code] = true
			}
		}
	}
	for _, c := range check.Checks() {
		if !failed[c.Code] && c.DecidedIn == check.OnDisk {
			t.Errorf("no machine in testdata/machines fails %s", c.Code)
		}
	}
}
