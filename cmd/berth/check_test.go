package main

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"berth/internal/check"
)

// TestCheck checks an export with two Windows as people do, through the program itself.
func TestCheck(t *testing.T) {
	vm := insideVM(t)
	folder := t.TempDir()
	own := filepath.Join(folder, "own.json")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(own, `{"name": "ours", "base": "seed-2020", "minPowerShell": {"value": 6, "source": "our standard"}}`)
	bad := filepath.Join(folder, "bad.json")
	write(bad, `{"name": "ours", "base": "seed-1999"}`)
	for _, c := range []struct {
		args   string // $VM is the export, $DIR a folder
		code   int
		stdout string // what it contains
		stderr string
	}{
		{"check $VM", 1, "NOT FIT for profile seed-2020, BYOL_REGULAR\n", ""},
		{"check $VM", 1, "There are 2 Windows: 1 is Windows", ""},
		{"check $VM", 1, "Windows 1 was judged", ""},
		{"check --windows 2 $VM", 1, "Windows 2 was judged", ""},
		{"check --windows 3 $VM", 2, "", "there is no Windows 3: 2 found"},
		{"check --profile 2026 --process regular_wsp $VM", 2, "", "no ingestion process"},
		{"check --profile 2026 --process byol_regular_wsp $VM", 1, "NOT FIT for profile 2026, BYOL_REGULAR_WSP\n", ""},
		{"check --profile $DIR/own.json $VM", 1, "NOT FIT for profile ours", ""},
		{"check --profile $DIR/own.json $VM", 1, "FAIL  OutdatedPowershellVersion", ""},
		{"check --profile $DIR/bad.json $VM", 2, "", "bad.json: profile: "},
		{"check --profile 1999 $VM", 2, "", `there is no profile "1999", nor a file of that name: choose seed-2020, 2022, 2026`},
		{"check --verbose $VM", 1, "PASS  Requires64BitOS", ""},
		{"check -o html $VM", 1, "<!doctype html>", ""},
		{"check -o html -O $DIR/report.html $VM", 1, "", "NOT FIT for profile seed-2020; the report is in "},
		{"check -O $DIR/none/report.txt $VM", 2, "", "none"},
		{"check --logs $DIR/logs $VM", 1, "NOT FIT", ""},
		{"check $DIR/own.json", 2, "", "berth: "},
		{"explain", 0, "  AutoLogonEnabled (WARN, fixed on the disk)\n", ""},
		{"explain AUTOLOGONENABLED", 0, "AutoLogonEnabled\nNobody is signed in automatically at start.\n", ""},
		{"explain AutoLogonEnable", 2, "", "did you mean AutoLogonEnabled?"},
		{"explain xyzzy", 2, "", "berth explain lists them all"},
		{"explain -o json autologonenabled", 0, `"code": "AutoLogonEnabled"`, ""},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.NewReplacer("$VM", vm, "$DIR", folder).Replace(args[i])
		}
		stdout, stderr, code := berth(t, args...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || (c.stderr == "" && stderr != "") {
			t.Errorf("%s: exit code %d, want %d\n%s\nstderr: %s", c.args, code, c.code, stdout, stderr)
		}
	}

	page, err := os.ReadFile(filepath.Join(folder, "report.html"))
	if err != nil || !strings.Contains(string(page), "DiskFreeSpace") {
		t.Errorf("the page that was written: %v\n%s", err, page)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, ".berth-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	logs, err := os.ReadDir(filepath.Join(folder, "logs"))
	if err != nil || len(logs) != 2 || !regexp.MustCompile(`^BYOLPrevalidationlog\d{4}-\d\d-\d\d_\d{6}\.txt$`).MatchString(logs[0].Name()) || logs[1].Name() != "ImageInfo.text" {
		t.Errorf("logs %v, %v", logs, err)
	}
}

// TestCheckFormats: what CI systems read says the same as the JSON.
func TestCheckFormats(t *testing.T) {
	vm := insideVM(t)
	var judged struct {
		check.Report
		File    string `json:"file"`
		Verdict string `json:"verdict"`
	}
	stdout, _, _ := berth(t, "check", "-o", "json", vm)
	if err := json.Unmarshal([]byte(stdout), &judged); err != nil {
		t.Fatal(err)
	}
	if judged.File != "inside.ova" || judged.Verdict != "NOT FIT" || judged.Fit || len(judged.Findings) != len(check.Checks()) {
		t.Errorf("the JSON is of %s, %s, with %d findings", judged.File, judged.Verdict, len(judged.Findings))
	}
	unmet := 0
	for _, f := range judged.Findings {
		if f.Outcome == check.Fail || f.Outcome == check.Warn {
			unmet++
		}
	}
	var suites struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
	}
	stdout, _, _ = berth(t, "check", "-o", "junit", vm)
	if err := xml.Unmarshal([]byte(stdout), &suites); err != nil || suites.Tests != len(judged.Findings) || suites.Failures != unmet {
		t.Errorf("JUnit has %+v, %v; the JSON %d findings, %d of them not met", suites, err, len(judged.Findings), unmet)
	}
	var sarif struct {
		Runs []struct {
			Results []struct {
				Level string `json:"level"`
			} `json:"results"`
		} `json:"runs"`
	}
	stdout, _, _ = berth(t, "check", "-o", "sarif", vm)
	if err := json.Unmarshal([]byte(stdout), &sarif); err != nil || len(sarif.Runs) != 1 {
		t.Fatalf("SARIF: %v", err)
	}
	failed := 0
	for _, r := range sarif.Runs[0].Results {
		if r.Level != "none" {
			failed++
		}
	}
	if failed != unmet {
		t.Errorf("SARIF has %d failures, the JSON %d", failed, unmet)
	}
}

// TestFixCommand: what is told to be typed mends what was judged.
func TestFixCommand(t *testing.T) {
	c := checkCmd{insideCmd: insideCmd{File: "/vms/win 10.raw", Windows: 2, Format: "RAW"}, judgeFlags: judgeFlags{Profile: "our profile.json", Process: "BYOL_REGULAR_WSP", Office: true}}
	if got, want := c.fix(), "berth fix --profile 'our profile.json' --process BYOL_REGULAR_WSP --office --windows 2 --format RAW '/vms/win 10.raw' -o fixed.qcow2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	c = checkCmd{insideCmd: insideCmd{File: "win10.ova", Windows: 1}, judgeFlags: judgeFlags{Profile: check.DefaultProfile, Process: string(check.DefaultProcess)}}
	if got, want := c.fix(), "berth fix win10.ova -o fixed.qcow2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestNearby(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	for path, want := range map[string]string{filepath.Join(folder, "a", "b.ova"): filepath.Join("a", "b.ova"), filepath.Dir(folder): filepath.Dir(folder), "c.ova": "c.ova"} {
		if got := nearby(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

// TestQuoted: what is told to be typed is one word to a shell.
func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{"win10.ova": "win10.ova", "a b": "'a b'", "": "''", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "/a/b-1.0,x": "/a/b-1.0,x"} {
		if got := quoted(in); got != want {
			t.Errorf("%q is %s, want %s", in, got, want)
		}
	}
}
