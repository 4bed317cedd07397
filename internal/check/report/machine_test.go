package report

import (
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows/offline"
)

// TestMachines writes what the checks really say, of every row of the table, in every way: within the width, and whole.
func TestMachines(t *testing.T) {
	for _, name := range []string{phony.Base, "auto-logon-enabled", "dhcp-disabled"} {
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
		if err != nil {
			t.Fatal(err)
		}
		facts := check.Collect(t.Context(), systems[0])
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
