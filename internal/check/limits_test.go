package check

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// crowd puts n keys below a key.
func crowd(key string, n int, name func(int) string) func(*testing.T, *memory) {
	return change(func(m *memory) {
		k := m.root.Make(key)
		for i := range n {
			k.Keys = append(k.Keys, &registry.Node{Name: name(i)})
		}
	})
}

// TestCrowds: lists longer than any real machine's are not read, and what they would tell is not known.
func TestCrowds(t *testing.T) {
	number := func(format string) func(int) string {
		return func(i int) string { return fmt.Sprintf(format, i) }
	}
	menuOf := func(n int) func(*testing.T, *memory) {
		return change(func(m *memory) {
			list := registry.NewSZ("Element", strings.Repeat("{1}\x00", n)) // with the list's own end behind it
			list.Type = windows.RegMultiSZ
			m.root.Key(`BCD\` + bootMenu).Set(list)
		})
	}
	for _, c := range []struct {
		name   string
		change func(*testing.T, *memory)
		code   string
		says   string
	}{
		{"anti-virus programs", crowd(`SOFTWARE\Microsoft\Security Center\Provider\Av`, maxAntiVirus+1, number("{%d}")), "AntiVirusInstalled", "more than the 200"},
		{"running anti-virus programs", while(func(a *answers) { a.antiVirus = make([]windows.AntiVirusProduct, maxAntiVirus+1) }), "AntiVirusInstalled", "more than the 200"},
		{"packages of a user", crowd(`SOFTWARE\`+packageStore+`\`+person, maxPackages+1, number("A_%d_x64__p")), "AppXPackagesInstalled", "more than the 5000"},
		{"users with packages", crowd(`SOFTWARE\`+packageStore, maxPackageUsers+1, number("S-1-5-21-1-2-3-%d")), "AppXPackagesInstalled", "more than the 100"},
		{"long names of packages", func(t *testing.T, m *memory) {
			for i := range 10 {
				crowd(fmt.Sprintf(`SOFTWARE\%s\S-1-5-21-1-2-3-%d`, packageStore, i), maxPackages, number(strings.Repeat("x", 200)+"_%d_x64__p"))(t, m)
			}
		}, "AppXPackagesInstalled", "more than 8 MiB"},
		{"running packages", while(func(a *answers) { a.packages = make([]windows.Package, maxPackages+1) }), "AppXPackagesInstalled", "more than the 5000"},
		{"servicing's packages", crowd(`SOFTWARE\`+cbs+`\Packages`, maxServicing+1, number("p%d")), "UpdatesNotCurrent", "more than the 100000"},
		{"cumulative updates", crowd(`SOFTWARE\`+cbs+`\Packages`, maxRollups+1, number("Package_for_RollupFix~%d")), "UpdatesNotCurrent", "more than 1000"},
		{"the boot menu", menuOf(maxBootItems + 1), "MultipleBootPartition", "more than the 200"},
		{"policies of new users", func(t *testing.T, m *memory) {
			var text strings.Builder
			for i := range maxProfileFiles + 1 {
				fmt.Fprintf(&text, "[NTUSER\\Network\\%d]\n", i)
			}
			m.setUser(t, text.String())
		}, "DefaultProfileCustomized", "more than the 2000"},
	} {
		m := fit(t)
		c.change(t, m)
		f := find(t, Run(Collect(t.Context(), m), Options{}), c.code)
		if f.Outcome != Unknown || !strings.Contains(f.Because, c.says) {
			t.Errorf("%s: %s, %s", c.name, f.Outcome, f.Because)
		}
	}
	// Reasons for a restart are enough by themselves: some of them are kept.
	m := fit(t)
	while(func(a *answers) { a.restart = slices.Repeat([]string{"an update"}, 10_000) })(t, m)
	if k := Collect(t.Context(), m).PendingRestart; len(k.Value) != maxReasons {
		t.Errorf("%d reasons are kept, want %d", len(k.Value), maxReasons)
	}
}
