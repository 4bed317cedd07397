package report

import (
	"strings"
	"testing"

	"berth/internal/check"
	"berth/internal/phony"
	"berth/internal/phony/phonytest"
)

// TestMachines writes what the checks really say, of every row of the table, in every way: within the width, and whole.
func TestMachines(t *testing.T) {
	for _, name := range []string{phony.Base, "auto-logon-enabled", "dhcp-disabled"} {
		sys, _ := phonytest.Open(t, phonytest.Load(t, name))
		facts := check.Collect(t.Context(), sys)
		for _, profile := range check.Profiles() {
			r := check.Run(facts, check.Options{Profile: profile})
			for _, width := range []int{60, 80, 120} {
				out := text(t, r, TextOptions{Width: width, Verbose: true})
				for line := range strings.Lines(out) {
					if n := columns(strings.TrimSuffix(line, "\n")); n > width {
						t.Errorf("%s, %s: a line of %d columns: %q", name, profile.Name, n, line)
					}
				}
			}
			for way := range renderers {
				out := render(t, way, r, subject())
				for _, f := range r.Findings {
					// ImageInfo.text names no codes, and SARIF has a rule for each.
					if way != "info.txt" && !strings.Contains(out, f.Code) {
						t.Errorf("%s, %s: %s does not tell of %s", name, profile.Name, way, f.Code)
					}
				}
			}
			logs := Logs(r, facts, subject())
			if info := decode(logs[1].Bytes); strings.Contains(info, `"OSArchitecture": null`) || strings.Contains(info, `"FreeSpaceOnCDrive": null`) {
				t.Errorf("%s: ImageInfo.text does not tell what is known:\n%s", name, info)
			}
		}
	}
}
