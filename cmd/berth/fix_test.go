package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows"
	"berth/internal/windows/ntfs"
	"berth/internal/windows/offline"
	"berth/testdata/hostile"
	"berth/testdata/machines"
)

// mendable are machines with much to mend: on the disk alone, and in the guest, too.
var mendable = map[string]string{
	"mendable": `Everything that berth fix can mend on the disk by edits of three hives.
-- machine --
base = win10-2004-enterprise
-- registry.reg --
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]
"AutoAdminLogon"="1"
"DefaultPassword"="Sample-Passw0rd"
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile]
"EnableFirewall"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\mountmgr]
"NoAutoMount"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\TimeZoneInformation]
"RealTimeIsUniversal"=-
-- accounts --
WorkSpaces_BYOL = rid 1001 never-expires disabled in Administrators in Users
`,
	"unmendable": `What is left for the running Windows and for people, too; small.
-- machine --
base = mendable
disk = 600MiB
-- accounts --
- WorkSpaces_BYOL
-- files --
- pagefile.sys
`,
	"mendable-dirty": `The volume was not taken off cleanly.
-- machine --
base = mendable
partition windows = size rest ntfs dirty
`,
}

// mendableMachine reads one of those machines.
func mendableMachine(t *testing.T, name string) *phony.Machine {
	t.Helper()
	base, err := fs.ReadFile(machines.FS, phony.Base+".txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{phony.Base + ".txtar": {Data: base}}
	for n, text := range mendable {
		files[n+".txtar"] = &fstest.MapFile{Data: []byte(text)}
	}
	m, err := phony.LoadFS(files, name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// export writes a machine's export.
func exported(t *testing.T, m *phony.Machine, format string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), m.Name+"."+format)
	if err := m.Export(t.Context(), path, format); err != nil {
		t.Fatal(err)
	}
	return path
}

// outcomes are a report's, by code.
func outcomes(r check.Report) map[string]check.Outcome {
	all := map[string]check.Outcome{}
	for _, f := range r.Findings {
		all[f.Code] = f.Outcome
	}
	return all
}

// outsideHives sees that all patches lie in the clusters of the installation's hive files, and tells how many there are.
func outsideHives(t *testing.T, s *offline.System, patches []disk.Patch) {
	t.Helper()
	clusters := hiveClusters(t, s)
	for _, p := range patches {
		if !slices.ContainsFunc(clusters, func(e ntfs.Extent) bool {
			return p.Off >= e.VolumeOffset && p.Off+int64(len(p.Data)) <= e.VolumeOffset+e.Length
		}) {
			t.Errorf("a patch of %d bytes at %#x is in no hive", len(p.Data), p.Off)
		}
	}
}

// hiveClusters are where the hives that may be edited lie on the disk.
func hiveClusters(t *testing.T, s *offline.System) []ntfs.Extent {
	t.Helper()
	_, start, _ := s.Location()
	var all []ntfs.Extent
	for _, h := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM} {
		list, err := s.Volume().Extents("Windows/System32/config/" + string(h))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			e.VolumeOffset += start
			all = append(all, e)
		}
	}
	return all
}

// TestFixEveryCode mends every machine that the project has. What can be mended on the disk passes afterwards, all other findings are what they
// were, and every check that says that an edit of the disk mends it is among those that did.
func TestFixEveryCode(t *testing.T) {
	names, err := phony.Names()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	mended, planned := map[string]bool{}, map[string]bool{}
	t.Run("machines", func(t *testing.T) {
		for _, name := range names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				m, err := phony.Load(name)
				if err != nil {
					t.Fatal(err)
				}
				fix := func(code string) bool {
					c, _ := check.Describe(code)
					return c.Fix != "" && m.Findings[code] != "PASS"
				}
				if m.Refused != "" || !slices.ContainsFunc(slices.Collect(maps.Keys(m.Findings)), fix) {
					return // nothing would be done to it
				}
				disks, plans := fixMachine(t, m)
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(mended, disks)
				maps.Copy(planned, plans)
			})
		}
	})
	var missing []string
	for _, c := range check.Checks() {
		switch {
		case c.Fixable && !mended[c.Code], c.Fix != "" && !c.Fixable && !planned[c.Code]:
			missing = append(missing, c.Code)
		}
	}
	if len(missing) > 0 || len(mended) < 8 || len(planned) < 3 {
		t.Errorf("no machine shows that these can be fixed: %v; %d can on the disk, %d in the guest", missing, len(mended), len(planned))
	}
}

// fixMachine mends a machine's disk as berth fix does, in memory, and tells which codes were mended there and which are left to the guest.
func fixMachine(t *testing.T, m *phony.Machine) (disks, plans map[string]bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := m.WriteRaw(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	env, err := disk.OpenFile(file, disk.Options{Format: "RAW"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = env.Close() }()
	env.Hardware.CDROMs = m.Hardware.CDROMs
	systems, err := offline.Open(env)
	if err != nil {
		t.Fatal(err)
	}
	opt := check.Options{Process: check.Process(m.Process), Office: m.Office}
	if m.Profile != "" {
		opt.Profile, _ = check.ProfileByName(m.Profile)
	}
	f := &fixing{system: systems[0], opt: opt}
	if err := f.propose(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := f.patch(time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)); err != nil {
		before := outcomes(f.before)
		if before["HibernationEnabled"] == check.Fail || before["VolumeDirty"] == check.Fail {
			return nil, nil // it says why
		}
		t.Fatal(err)
	}
	outsideHives(t, systems[0], f.patches)
	disks, plans = map[string]bool{}, map[string]bool{}
	for _, mend := range f.mends {
		if mend.refused != nil {
			t.Errorf("%s is not fixed: %v", mend.finding.Code, mend.refused)
		}
		switch {
		case len(mend.guest) > 0:
			plans[mend.finding.Code] = true
		case len(mend.values) == 0:
			t.Errorf("%s: nothing is changed", mend.finding.Code)
		default:
			disks[mend.finding.Code] = true
		}
	}
	if p := f.plan(); len(p.Steps) > 0 {
		if _, err := p.Script(); err != nil {
			t.Error(err)
		}
	}
	env.Disks[0].Image = disk.Overlay(env.Disks[0].Image, f.patches)
	after, err := judgeAgain(t.Context(), env, f)
	if err != nil {
		t.Fatal(err)
	}
	before, now := outcomes(f.before), outcomes(after)
	for code, was := range before {
		want := was
		if disks[code] {
			want = check.Pass
		}
		if now[code] != want {
			t.Errorf("%s: %s became %s, want %s", code, was, now[code], want)
		}
	}
	return disks, plans
}

// fixed runs berth fix as a program of its own.
func fixed(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"fix"}, args...)...)
	cmd.Env = append(os.Environ(), asBerth+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func fileHash(t *testing.T, path string) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(sum.Sum(nil))
}

// TestFixFormats fixes an export of every format, and looks at what was written as others would.
func TestFixFormats(t *testing.T) {
	for i, format := range phony.Formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			to := []string{"fixed.qcow2", "fixed.raw"}[i%2]
			name := "mendable"
			if format == "raw" || to == "fixed.raw" {
				name = "unmendable" // small: raw files are hashed whole
			}
			source := exported(t, mendableMachine(t, name), format)
			before := fileHash(t, source)
			out := filepath.Join(t.TempDir(), to)
			stdout, stderr, code := fixed(t, source, "-o", out)
			want := map[string]int{"mendable": 0, "unmendable": 1}[name]
			if code != want {
				t.Fatalf("exit code %d, want %d\n%s%s", code, want, stdout, stderr)
			}
			if fileHash(t, source) != before {
				t.Error("the source was written to")
			}
			for _, text := range []string{
				"AutoLogonEnabled: Nobody is signed in automatically at start\n  [SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Winlogon]\n    AutoAdminLogon: \"1\" (REG_SZ) -> \"0\" (REG_SZ)\n    DefaultPassword: REDACTED (32 bytes) -> none\n",
				"[SYSTEM\\ControlSet001\\Control\\TimeZoneInformation]\n    RealTimeIsUniversal: none -> 1 (REG_DWORD)\n",
				"Written: " + out + "\n", "Passes now (", "AutoMountDisabled",
			} {
				if !strings.Contains(stdout, text) {
					t.Errorf("the report lacks %q:\n%s", text, stdout)
				}
			}
			if strings.Contains(stdout+stderr, "Sample-Pass") {
				t.Error("the password is shown")
			}
			sameButHives(t, source, out)
			if strings.HasSuffix(out, ".qcow2") {
				if text, err := exec.CommandContext(t.Context(), "qemu-img", "check", out).CombinedOutput(); err != nil || !strings.Contains(string(text), "No errors were found") {
					t.Errorf("qemu-img check: %v: %s", err, text)
				}
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(out), "*.part")); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
			// Once more: there is nothing left to write.
			again := filepath.Join(t.TempDir(), "again.qcow2")
			stdout, _, code = fixed(t, out, "-o", again)
			if _, err := os.Stat(again); !os.IsNotExist(err) || code != want || !strings.Contains(stdout, "No disk was written") {
				t.Errorf("exit code %d, %v:\n%s", code, err, stdout)
			}
		})
	}
}

// sameButHives compares two exports as a guest sees their disks: they differ in clusters of hives only, and not in which files there are.
// ntfsfix finds nothing wrong, hivex reads the values.
func sameButHives(t *testing.T, source, fixed string) {
	t.Helper()
	a, sa := opened(t, source)
	b, sb := opened(t, fixed)
	clusters := hiveClusters(t, sa)
	if a.Size() != b.Size() {
		t.Fatalf("%d bytes became %d", a.Size(), b.Size())
	}
	differ := 0
	x, y := make([]byte, 4096), make([]byte, 4096)
	for _, at := range stored(t, a, b) {
		n := min(4096, a.Size()-at)
		if _, err := a.ReadAt(x[:n], at); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if _, err := b.ReadAt(y[:n], at); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if bytes.Equal(x[:n], y[:n]) {
			continue
		}
		differ++
		if !slices.ContainsFunc(clusters, func(e ntfs.Extent) bool { return at >= e.VolumeOffset && at+n <= e.VolumeOffset+e.Length }) {
			t.Errorf("the disks differ at %#x, which is in no hive", at)
		}
	}
	if differ == 0 {
		t.Error("the disks do not differ")
	}
	before, after := contents(t, sa), contents(t, sb)
	if len(before) < 20 || !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	for name, sum := range before {
		if sum != after[name] && !slices.Contains([]string{"SYSTEM", "SOFTWARE", "SAM"}, filepath.Base(name)) {
			t.Errorf("%s has changed", name)
		}
	}
	volume := filepath.Join(t.TempDir(), "volume")
	f, err := os.Create(volume)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, start, length := sb.Location()
	if err := f.Truncate(length); err != nil {
		t.Fatal(err)
	}
	for _, at := range stored(t, b) {
		if at < start || at >= start+length {
			continue
		}
		if _, err := b.ReadAt(y, at); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(y, at-start); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "ntfsfix", "-n", volume).CombinedOutput(); err != nil || !strings.Contains(string(out), "processed successfully") {
		t.Errorf("ntfsfix -n: %v: %s", err, out)
	}
	hive := filepath.Join(t.TempDir(), "SOFTWARE")
	data, err := fs.ReadFile(sb.Files(), "Windows/System32/config/SOFTWARE")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hive, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "hivexget", hive, `Microsoft\Windows NT\CurrentVersion\Winlogon`).Output()
	if err != nil || !strings.Contains(string(out), `"AutoAdminLogon"="0"`) || strings.Contains(string(out), "DefaultPassword") {
		t.Errorf("hivexget: %v: %s", err, out)
	}
}

// opened is an export's disk and its Windows.
func opened(t *testing.T, path string) (disk.Image, *offline.System) {
	t.Helper()
	env, err := openExport(path, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = env.Close() })
	systems, err := offline.Open(env)
	if err != nil {
		t.Fatal(err)
	}
	return env.Disks[0].Image, systems[0]
}

// stored is where 4 KiB blocks begin of which any of the disks stores something.
func stored(t *testing.T, images ...disk.Image) []int64 {
	t.Helper()
	all := map[int64]bool{}
	for _, img := range images {
		for x, err := range img.Extents() {
			if err != nil {
				t.Fatal(err)
			}
			if x.Kind == disk.Zero || x.Kind == disk.Unallocated {
				continue
			}
			for at := x.Start &^ 4095; at < x.Start+x.Length; at += 4096 {
				all[at] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// contents are the hashes of all files of at most 4 MiB.
func contents(t *testing.T, s *offline.System) map[string][32]byte {
	t.Helper()
	all := map[string][32]byte{}
	err := fs.WalkDir(s.Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		all[name] = [32]byte{}
		if i, err := d.Info(); err != nil || i.Size() > 4<<20 {
			return err
		}
		b, err := fs.ReadFile(s.Files(), name)
		all[name] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFixRealDirtyHive fixes a machine whose SYSTEM hive and logs are those of a Windows that was running.
func TestFixRealDirtyHive(t *testing.T) {
	const hives = "../../../shared/data/hives"
	if _, err := os.Stat(hives); os.IsNotExist(err) {
		t.Skip("no real hives on this machine")
	}
	m := mendableMachine(t, "unmendable")
	source := exported(t, m, "raw")
	raw, err := os.OpenFile(source, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := m.Partitions[1]
	dir := t.TempDir()
	volume := filepath.Join(dir, "volume")
	move := func(dst io.WriterAt, to int64, src io.ReaderAt, from int64) {
		t.Helper()
		if _, err := io.Copy(io.NewOffsetWriter(dst, to), io.NewSectionReader(src, from, c.Length)); err != nil {
			t.Fatal(err)
		}
	}
	v, err := os.Create(volume)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	move(v, 0, raw, c.Start)
	for _, suffix := range []string{"", ".LOG1", ".LOG2"} {
		b, err := exec.CommandContext(t.Context(), "xz", "-dc", filepath.Join(hives, "SYSTEM_B"+suffix+".xz")).Output()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "hive")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "ntfscp", "-q", volume, file, "/Windows/System32/config/SYSTEM"+suffix).CombinedOutput(); err != nil {
			t.Fatalf("ntfscp: %v: %s", err, out)
		}
	}
	move(raw, c.Start, v, 0)

	out := filepath.Join(dir, "fixed.qcow2")
	stdout, stderr, code := fixed(t, source, "-o", out)
	if code != 1 {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, text := range []string{
		"[SYSTEM\\ControlSet001\\Control\\Session Manager\\Power]\n    HiberbootEnabled: 1 (REG_DWORD) -> 0 (REG_DWORD)\n",
		"[SYSTEM\\ControlSet001\\Services\\wuauserv]\n    Start: 3 (REG_DWORD) -> 4 (REG_DWORD)\n",
		"    RealTimeIsUniversal: none -> 1 (REG_DWORD)\n",
	} {
		if !strings.Contains(stdout, text) {
			t.Errorf("the report lacks %q:\n%s", text, stdout)
		}
	}
	if _, s := opened(t, source); s.Hive(windows.SystemHive).Replayed != 24 {
		t.Errorf("before: %+v", s.Hive(windows.SystemHive))
	}
	if _, s := opened(t, out); s.Hive(windows.SystemHive) != (windows.HiveState{}) {
		t.Errorf("after: %+v", s.Hive(windows.SystemHive))
	}
	sameButHives(t, source, out)
}

func TestFixDryRun(t *testing.T) {
	source := exported(t, mendableMachine(t, "unmendable"), "vhdx")
	before := fileHash(t, source)
	stdout, stderr, code := fixed(t, "--dry-run", source, "--output", "json")
	if code != 1 || fileHash(t, source) != before {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	var got struct {
		DryRun   bool   `json:"dryRun"`
		Disk     string `json:"disk"`
		Findings []fixedFinding
		Plan     struct {
			Steps []struct{ Change, Name string }
		}
		PlanFile string   `json:"planFile"`
		Passed   []string `json:"passed"`
		Report   check.Report
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if !got.DryRun || got.Disk != "" || got.PlanFile != "" || len(got.Plan.Steps) != 1 || got.Plan.Steps[0].Change != "CreateAccount" ||
		!slices.Contains(got.Passed, "AutoLogonEnabled") || slices.Contains(got.Passed, "DiskFreeSpace") || outcomes(got.Report)["DiskFreeSpace"] != check.Fail {
		t.Errorf("%s", stdout)
	}
	i := slices.IndexFunc(got.Findings, func(x fixedFinding) bool { return x.Code == "AutoMountDisabled" })
	if want := (fixedValue{`SYSTEM\ControlSet001\Services\mountmgr`, "NoAutoMount", "1 (REG_DWORD)", "0 (REG_DWORD)"}); i < 0 || len(got.Findings[i].Values) != 1 || got.Findings[i].Values[0] != want {
		t.Errorf("%+v", got.Findings)
	}
	if left, err := os.ReadDir(filepath.Dir(source)); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	stdout, stderr, _ = fixed(t, "--dry-run", source, "--only", "DiskFreeSpace,OSNotSupported")
	for _, text := range []string{"note: DiskFreeSpace came out FAIL, and is to be mended by hand\n", "note: OSNotSupported came out PASS: there is nothing to fix\n"} {
		if !strings.Contains(stderr, text) || strings.Contains(stdout, "NoAutoMount: ") || !strings.Contains(stdout, "      It was left out: berth fix can mend it.\n") {
			t.Errorf("%q is not said:\n%s%s", text, stderr, stdout)
		}
	}
	stdout, _, _ = fixed(t, "--dry-run", source)
	for _, text := range []string{"Nothing was written (--dry-run).\n", "Would pass (", "Would remain:\n", "  WARN WorkspacesBYOLAccountNotFound: ", "The script for the first boot does it."} {
		if !strings.Contains(stdout, text) {
			t.Errorf("the report lacks %q:\n%s", text, stdout)
		}
	}
}

func TestFixOnlyAndPlan(t *testing.T) {
	source := exported(t, mendableMachine(t, "unmendable"), "qcow2")
	dir := t.TempDir()
	out, plan := filepath.Join(dir, "fixed"), filepath.Join(dir, "fixed-first-boot.ps1")
	stdout, stderr, code := fixed(t, source, "-o", out, "--to", "raw", "--only", "FirewallEnabled,WorkspacesBYOLAccountNotFound")
	if code != 1 {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	env, err := disk.OpenFile(out, disk.Options{Format: "RAW"})
	if err != nil {
		t.Fatal(err)
	}
	defer env.Close()
	systems, err := offline.Open(env)
	if err != nil {
		t.Fatal(err)
	}
	got := outcomes(check.Run(check.Collect(t.Context(), systems[0]), check.Options{}))
	if got["FirewallEnabled"] != check.Pass || got["AutoLogonEnabled"] != check.Warn || got["WorkspacesBYOLAccountNotFound"] != check.Warn {
		t.Errorf("%v", got)
	}
	script, err := os.ReadFile(plan)
	if err != nil || !strings.Contains(string(script), "Add-Administrator 'WorkSpaces_BYOL' }") || !strings.Contains(stdout, plan) {
		t.Errorf("%v\n%s", err, stdout)
	}
	// Only what the guest does: there is no disk to write.
	out, plan = filepath.Join(dir, "none.qcow2"), filepath.Join(dir, "mine.ps1")
	if stdout, stderr, code = fixed(t, source, "-o", out, "--plan", plan, "--only", "WorkspacesBYOLAccountNotFound"); code != 1 || !strings.Contains(stdout, "No disk was written") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Error(err)
	}
	if _, err := os.Stat(plan); err != nil {
		t.Error(err)
	}
}

func TestFixRefuses(t *testing.T) {
	source := exported(t, mendableMachine(t, "unmendable"), "raw")
	dirty := exported(t, mendableMachine(t, "mendable-dirty"), "qcow2")
	dir := t.TempDir()
	there := filepath.Join(dir, "there.qcow2")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "new-first-boot.ps1")
	for want, args := range map[string][]string{
		"say with -o where":                     {source},
		"is there already":                      {source, "-o", there},
		"nothing is ever written over":          {source, "-o", source},
		"say with --to":                         {source, "-o", filepath.Join(dir, "x.vmdk")},
		"there is no check \"Nonsense\"":        {source, "-o", filepath.Join(dir, "x.raw"), "--only", "Nonsense"},
		"there is no profile":                   {source, "-o", filepath.Join(dir, "x.raw"), "--profile", "1999"},
		"the volume of Windows is marked dirty": {dirty, "-o", filepath.Join(dir, "x.raw")},
		"there.qcow2 is there already":          {source, "-o", script, "--to", "raw", "--plan", there},
		"no such file or directory":             {source, "-o", filepath.Join(dir, "none", "x.raw")},
	} {
		if stdout, stderr, code := fixed(t, args...); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if b, err := os.ReadFile(there); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

// A disk appears when it is whole, whatever kills the program before.
func TestFixKilled(t *testing.T) {
	source := exported(t, mendableMachine(t, "unmendable"), "raw")
	// Much to copy, where no file of the volume is.
	f, err := os.OpenFile(source, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 1<<20)
	for i := range junk {
		junk[i] = byte(rand.Uint32())
	}
	for at := int64(200 << 20); at < 590<<20; at += 1 << 20 {
		if _, err := f.WriteAt(junk, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"fixed.raw", "fixed.qcow2"} {
		out := filepath.Join(t.TempDir(), to)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "fix", source, "-o", out)
		cmd.Env = append(os.Environ(), asBerth+"=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begun := func() bool {
			list, err := filepath.Glob(out + "*")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range list {
				if i, err := os.Stat(name); err == nil && i.Size() > 0 {
					return true
				}
			}
			return false
		}
		for !begun() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: it ended before it was killed: %v", to, cmd.ProcessState)
		}
		if _, err := os.Lstat(out); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", to, err)
		}
		// What is left says what it is, and is in nobody's way but another copy's.
		left, err := filepath.Glob(out + "*")
		if err != nil || len(left) != 1 || left[0] != out+".part" {
			t.Errorf("%v, %v", left, err)
		}
		if _, stderr, code := fixed(t, source, "-o", out); code != 2 || !strings.Contains(stderr, "remove the file") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		if err := os.Remove(out + ".part"); err != nil {
			t.Fatal(err)
		}
		if stdout, stderr, code := fixed(t, source, "-o", out); code != 1 {
			t.Errorf("exit code %d: %s%s", code, stdout, stderr)
		}
		if _, err := os.Stat(out); err != nil {
			t.Error(err)
		}
	}
}

// TestFixHostileFiles gives every hostile file to berth fix: it ends as berth check does or refuses, writes a disk only where it says so, and
// what it writes can be read.
func TestFixHostileFiles(t *testing.T) {
	files, err := hostile.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			data, err := f.Data()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), f.Name)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "fixed.qcow2")
			args := []string{path, "-o", out}
			if f.Format != "" {
				args = append(args, "--format", f.Format)
			}
			stdout, stderr, code := fixed(t, args...)
			if code != 1 && code != 2 || strings.Contains(stderr, "goroutine ") || code == 2 && !strings.Contains(stderr, "berth: ") || f.Check == 2 && code == 1 && strings.Contains(stdout, "Written: ") {
				t.Errorf("exit code %d, check's is %d\n%s%s", code, f.Check, stdout, stderr)
			}
			_, err = os.Stat(out)
			if written := err == nil; written != strings.Contains(stdout, "Written: ") {
				t.Errorf("exit code %d, there is a disk: %v\n%s%s", code, written, stdout, stderr)
			} else if written {
				opened(t, out)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the file was written to: %v", err)
			}
			if left, err := filepath.Glob(out + ".*"); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}
