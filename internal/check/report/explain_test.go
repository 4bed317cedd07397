package report

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"berth/internal/check"
)

// TestExplain: every row of the table is told in full, within the width.
func TestExplain(t *testing.T) {
	for _, width := range []int{60, 80, 120} {
		for _, c := range check.Checks() {
			var b strings.Builder
			if err := Explain(&b, c, TextOptions{Width: width}); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if n := columns(strings.TrimSuffix(line, "\n")); n > width {
					t.Errorf("%s: a line of %d columns: %q", c.Code, n, line)
				}
			}
			words := strings.Join(strings.Fields(b.String()), " ")
			for _, want := range []string{c.Code, c.ReportAs, c.Title, c.Evaluation, c.Fix, c.Applies} {
				if want == c.ReportAs && c.Amazon() {
					want = "Amazon's own"
				}
				if !strings.Contains(words, strings.Join(strings.Fields(want), " ")) {
					t.Errorf("%s does not tell %q:\n%s", c.Code, want, b.String())
				}
			}
			for _, label := range []string{"\n  Asked by", "\n  Decided", "\n  Fix", "\n  Remedy"} {
				if !strings.Contains(b.String(), label) {
					t.Errorf("%s has no line%s", c.Code, label)
				}
			}
		}
	}
}

// TestList: every row is in one group, and told.
func TestList(t *testing.T) {
	var b strings.Builder
	if err := List(&b, check.Checks(), TextOptions{}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range Groups(check.Checks()) {
		n += len(g.Checks)
	}
	if n != len(check.Checks()) {
		t.Errorf("%d rows in groups, %d in the table", n, len(check.Checks()))
	}
	for _, c := range check.Checks() {
		if strings.Count(b.String(), "\n  "+c.Code+" (") != 1 {
			t.Errorf("%s is not listed once", c.Code)
		}
	}
	for line := range strings.Lines(b.String()) {
		if n := columns(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
}

func TestFind(t *testing.T) {
	checks := check.Checks()
	for _, c := range checks {
		for _, code := range []string{c.Code, strings.ToLower(c.Code), " " + strings.ToUpper(c.Code)} {
			if got, _, ok := Find(checks, code); !ok || got.Code != c.Code {
				t.Errorf("%q finds %q", code, got.Code)
			}
		}
	}
	for code, want := range map[string]string{"AutoLogonEnable": "AutoLogonEnabled", "autologin": "", "rearm": "ZeroRearmCount", "OfficeInstaled": "OfficeInstalled", "64bit": "Requires64BitOS"} {
		_, near, ok := Find(checks, code)
		if ok || len(near) > 5 || (want != "" && (len(near) == 0 || !slices.Contains(near, want))) || (want == "" && len(near) > 0) {
			t.Errorf("%q finds %v, %v; want %q near", code, near, ok, want)
		}
	}
	if _, near, ok := Find(checks, strings.Repeat("x", 1<<20)); ok || near != nil {
		t.Errorf("a long code finds %v", near)
	}
	if got := distance("kitten", "sitting"); got != 3 {
		t.Errorf("distance %d", got)
	}
}

func TestRowJSON(t *testing.T) {
	var b strings.Builder
	if err := WriteJSON(&b, NewRow(check.Checks()[0]), ""); err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"code", "reportAs", "title", "level", "source", "evaluation", "decidedIn", "remedy"} {
		if s, ok := back[field].(string); !ok || s == "" {
			t.Errorf("%s is %v", field, back[field])
		}
	}
}

// TestSharedRemedy: what is to be done about all of a part is told once.
func TestSharedRemedy(t *testing.T) {
	r := check.Report{Findings: []check.Finding{
		{Code: "A", Outcome: check.Unknown, Title: "A", Because: "No hive.", Remedy: "Start it."},
		{Code: "B", Outcome: check.Unknown, Title: "B", Because: "No hive.", Remedy: "Start it."},
	}}
	for name, write := range map[string]string{"text": text(t, r, TextOptions{}), "html": render(t, "unfit.html", r, Subject{})} {
		if n := strings.Count(write, "Start it."); n != 1 {
			t.Errorf("%s: the remedy is told %d times:\n%s", name, n, write)
		}
	}
	r.Findings[1].Remedy = "Mend it."
	if out := text(t, r, TextOptions{}); !strings.Contains(out, "Start it.") || !strings.Contains(out, "Mend it.") {
		t.Errorf("a remedy is not told:\n%s", out)
	}
}
