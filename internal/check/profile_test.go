package check

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"berth/internal/windows"
)

// TestProfiles: Amazon's profiles are whole, each requirement in them has its source, and the files say nothing beside what is read.
func TestProfiles(t *testing.T) {
	if names := ProfileNames(); !slices.Equal(names, []string{DefaultProfile, "2022", "2026"}) {
		t.Errorf("the profiles are %v", names)
	}
	for _, p := range Profiles() {
		if err := p.valid(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if p.Base != "" || len(p.LeaveOut.Value) > 0 || len(p.AllowedPrograms.Value) > 0 {
			t.Errorf("%s: base %q, leaves out %v, allows %v", p.Name, p.Base, p.LeaveOut.Value, p.AllowedPrograms.Value)
		}
		for _, r := range p.Releases {
			if versionNames[r.Build] == "" || !strings.Contains(r.Version, versionNames[r.Build]) {
				t.Errorf("%s: build %d is called %s, the table of versions says %q", p.Name, r.Build, r.Version, versionNames[r.Build])
			}
			if is11 := r.Windows == "Windows 11"; is11 != (r.Scheme == windows.GPT) || is11 != (r.Firmware == "uefi") || is11 != r.TPM || is11 == slices.Contains(r.Protocols, PCoIP) {
				t.Errorf("%s: %s %s: %+v", p.Name, r.Windows, r.Version, r)
			}
		}
	}
	for name, want := range map[string][7]int{ // facts §2, §14
		"seed-2020": {5, 70, 80, 10, 20, 4, 200}, "2022": {4, 70, 80, 10, 20, 4, 100}, "2026": {8, 80, 80, 20, 20, 4, 50},
	} {
		p := named(name)
		got := [7]int{len(p.Releases), p.MaxVolumeGiB.Value, p.MaxDiskGiB.Value, p.MinFreeGiB.Value, p.MinFreeOfficeGiB.Value, p.MinPowerShell.Value, p.MinWorkSpaces.Value}
		if got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if p, ok := ProfileByName(""); !ok || p.Name != DefaultProfile {
		t.Errorf("no name is profile %s, %v", p.Name, ok)
	}
	if _, ok := ProfileByName("2021"); ok {
		t.Error("there is a profile 2021")
	}
	p := named("2026")
	p.Releases[0].Editions[0] = "changed"
	if named("2026").Releases[0].Editions[0] == "changed" {
		t.Error("ProfileByName hands out the profile itself")
	}
	if entries, err := amazonFiles.ReadDir("profiles"); err != nil || len(entries) != len(ProfileNames()) {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

const acme = `{"name": "acme", "base": "2026", "source": "ACME desktop standard 4.2",
	"minFreeGiB": {"value": 30, "source": "chapter 3"}, "minFreeOfficeGiB": {"value": 35, "source": "chapter 3"},
	"leaveOut": {"value": ["VMWareToolsInstalled"], "source": "we import from VMware"}}`

func TestLoadProfile(t *testing.T) {
	got, err := LoadProfile([]byte(acme))
	if err != nil {
		t.Fatal(err)
	}
	want := named("2026")
	want.Name, want.Base, want.Title, want.Source = "acme", "2026", want.Title+", changed", "ACME desktop standard 4.2"
	want.MinFreeGiB, want.MinFreeOfficeGiB = Requirement[int]{30, "chapter 3"}, Requirement[int]{35, "chapter 3"}
	want.LeaveOut = Requirement[[]string]{[]string{"VMWareToolsInstalled"}, "we import from VMware"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !got.is("2026") || got.is("2022") {
		t.Error("it did not begin as 2026")
	}
	whole, err := os.ReadFile("profiles/2022.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadProfile(whole); err == nil || !strings.Contains(err.Error(), `"2022" is Amazon's`) {
		t.Errorf("one of Amazon's under its own name: %v", err)
	}
	own := strings.Replace(string(whole), `"name": "2022"`, `"name": "own"`, 1)
	if p, err := LoadProfile([]byte(own)); err != nil || p.Base != "" || len(p.Releases) != 4 {
		t.Errorf("a whole profile: %+v, %v", p, err)
	}
	// Without a base nothing may be left out.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(own), &fields); err != nil {
		t.Fatal(err)
	}
	for field := range fields {
		rest := maps.Clone(fields)
		delete(rest, field)
		b, err := json.Marshal(rest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LoadProfile(b); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("a profile without %s: %v", field, err)
		}
	}
}

// badProfiles are files that are refused, and what the error says.
var badProfiles = []struct{ file, says string }{
	{``, "ends too early"},
	{`{"name": "a"`, "ends too early"},
	{`[]`, "cannot unmarshal array"},
	{`"a"`, "no JSON object"},
	{`{} {}`, "more behind"},
	{`{"name": "a", "base": "1999"}`, `base: there is no profile "1999"`},
	{`{"base": "2026"}`, `name: "" must be`},
	{`{"name": "a b", "base": "2026"}`, "name:"},
	{`{"name": "seed-2020", "base": "2026"}`, "Amazon's"},
	{`{"name": "a", "base": "2026", "maxDiskGB": {"value": 1, "source": "x"}}`, `unknown field "maxDiskGB"`},
	{`{"name": "a", "base": "2026", "maxDiskGiB": 100}`, "maxDiskGiB: a number where"},
	{`{"name": "a", "base": "2026", "maxDiskGiB": {"value": "100", "source": "x"}}`, "maxDiskGiB.value: a string where a int belongs"},
	{`{"name": "a", "base": "2026", "maxDiskGiB": {"value": 1.5, "source": "x"}}`, "maxDiskGiB.value"},
	{`{"name": "a", "base": "2026", "maxDiskGiB": {"value": 100}}`, "maxDiskGiB: it has no source"},
	{`{"name": "a", "base": "2026", "maxDiskGiB": {"source": "x"}}`, "maxDiskGiB: it has no value"},
	{`{"name": "a", "base": "2026", "maxDiskGiB": {"value": 100, "source": "x\u001b"}}`, "maxDiskGiB: it has no source, a line"},
	{`{"name": "a", "base": "2026", "maxDiskGiB": {"value": 10, "source": "x"}}`, "maxDiskGiB: it is 10, and must be 80 to 65536"},
	{`{"name": "a", "base": "2026", "minFreeGiB": {"value": -1, "source": "x"}}`, "minFreeGiB: it is -1"},
	{`{"name": "a", "base": "2026", "minFreeGiB": {"value": 30, "source": "x"}}`, "minFreeOfficeGiB: it is 20, and must be 30"},
	{`{"name": "a", "base": "2026", "minFreeGiB": {"value": 9, "source": "x"}, "MINFREEGIB": {"value": 0, "source": "x"}}`, "MINFREEGIB: it is said twice"},
	{`{"name": "a", "base": "2026", "minFreeGiB": {"value": 9, "source": "x", "value": 0}}`, "value: it is said twice"},
	{`{"name": "a", "base": "2026", "language": {"value": "English", "source": "x"}}`, "language:"},
	{`{"name": "a", "base": "2026", "allowMicrosoft365": {"value": null, "source": "x"}}`, "allowMicrosoft365: it has no value"},
	{`{"name": "a", "base": "2026", "leaveOut": {"value": ["Nothing"], "source": "x"}}`, `leaveOut[0]: there is no check "Nothing"`},
	{`{"name": "a", "base": "2026", "leaveOut": {"value": ["DiskFreeSpace"]}}`, "leaveOut: it has no source"},
	{`{"name": "a", "base": "2026", "allowedPrograms": {"value": ["7-Zip", " "], "source": "x"}}`, "allowedPrograms[1]"},
	{`{"name": "a", "base": "2026", "releases": []}`, "releases: there are 0"},
	{`{"name": "a", "base": "2026", "releases": [{"windows": "Windows 12"}]}`, `releases[0].windows: "Windows 12"`},
	{`{"name": "a", "base": "2026", "releases": [{"windows": "Windows 11", "version": "x", "build": 19041}]}`, "releases[0].build: 19041 is no build of Windows 11"},
	{`{"name": "a", "base": "2026", "releases": [{"windows": "Windows 10", "version": "x", "build": 19041}]}`, "releases[0].editions"},
	{`{"name": "a", "base": "2026", "releases": [{"windows": "Windows 10", "version": "x", "build": 19041, "editions": ["Enterprise"], "partitionTable": "mbr"}]}`, "releases[0].partitionTable"},
	{`{"name": "a", "base": "2026", "releases": [{"windows": "Windows 10", "version": "x", "build": 19041, "editions": ["Enterprise"], "partitionTable": "MBR", "firmware": "efi"}]}`, "releases[0].firmware"},
	{`{"name": "a", "base": "2026", "releases": [{"windows": "Windows 10", "version": "x", "build": 19041, "editions": ["Enterprise"], "partitionTable": "MBR", "firmware": "bios", "protocols": ["DCV"]}]}`, "releases[0].protocols"},
	{`{"name": "a", "base": "2026", "releases": [{"windows": "Windows 10", "version": "x", "build": 19041, "editions": ["Enterprise"], "partitionTable": "MBR", "firmware": "bios", "protocols": ["WSP"]}]}`, "releases[0].source"},
	{`{"name": "a", "base": "2026", "releases": ` + strings.Repeat("[", 100), "deeper"},
}

func TestBadProfiles(t *testing.T) {
	for _, c := range badProfiles {
		if p, err := LoadProfile([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.says) || p.Name != "" {
			t.Errorf("%s\n is %q, %v; want %q", c.file, p.Name, err, c.says)
		}
	}
	if _, err := LoadProfile(make([]byte, maxProfileBytes+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a file of %d bytes: %v", maxProfileBytes+1, err)
	}
}

// TestOwnProfile: what a profile of one's own changes is what the checks go by, and what began as a profile of Amazon's is asked for
// what that asks for.
func TestOwnProfile(t *testing.T) {
	p, err := LoadProfile([]byte(strings.Replace(acme, `"base": "2026"`, `"base": "seed-2020"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	m := fit(t)
	m.merge(t, `[`+unins+`\{A5CD39B7}]`+"\n"+`"DisplayName"="VMware Tools"`)
	m.system().Volume.FreeBytes = 29 << 30
	r := Run(Collect(t.Context(), m), Options{Profile: p})
	if f := find(t, r, "DiskFreeSpace"); f.Outcome != Fail || !strings.Contains(f.Because, "profile acme asks for 30 GiB") {
		t.Errorf("free space is %s: %s", f.Outcome, f.Because)
	}
	if f := find(t, r, "VMWareToolsInstalled"); f.Outcome != NotApplicable || !strings.Contains(f.Because, "we import from VMware") {
		t.Errorf("what is left out is %s: %s", f.Outcome, f.Because)
	}
	other := Check{Code: "Y", Level: Fail, Profiles: []string{"seed-2020"}, judge: func(*Facts, Params) Verdict { return unmet("no") }}
	if r := run([]Check{other}, &Facts{}, Options{Profile: p}); r.Findings[0].Outcome != Fail {
		t.Errorf("a check of the base is %s", r.Findings[0].Outcome)
	}
}

func FuzzLoadProfile(f *testing.F) {
	f.Add([]byte(acme))
	for _, name := range ProfileNames() {
		b, err := amazonFiles.ReadFile("profiles/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, c := range badProfiles {
		f.Add([]byte(c.file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := LoadProfile(b)
		if err != nil {
			if p.Name != "" {
				t.Error("a refused profile is handed out")
			}
			return
		}
		if _, err := (Options{Profile: p}).params(); err != nil {
			t.Errorf("taken, and makes no sense: %v", err)
		}
	})
}
