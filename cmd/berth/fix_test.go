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
	return machineOf(t, mendable, name)
}

// machineOf reads one of some machines.
func machineOf(t *testing.T, texts map[string]string, name string) *phony.Machine {
	t.Helper()
	base, err := fs.ReadFile(machines.FS, phony.Base+".txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{phony.Base + ".txtar": {Data: base}}
	for n, text := range texts {
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
	if stdout, stderr, code = fixed(t, source, "-o", out, "--plan", plan, "--only", "WorkspacesBYOLAccountNotFound"); code != 1 || !strings.Contains(stdout, "No disk was written") || !strings.Contains(stdout, "Start the machine, copy the script") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Error(err)
	}
	if _, err := os.Stat(plan); err != nil {
		t.Error(err)
	}
}

// What the script cannot do, because its name is none that Windows would have, is told; the rest is done.
func TestFixPlanLeavesOut(t *testing.T) {
	mendable := maps.Clone(mendable)
	const odd = "Contoso.Game'; calc"
	mendable["odd-package"] = `A user has a package without a version.
-- machine --
base = unmendable
-- registry.reg --
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore\S-1-5-21-1472583690-2846193057-3905172846-1001\` + odd + `]
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore\S-1-5-21-1472583690-2846193057-3905172846-1001\Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c]
`
	source := exported(t, machineOf(t, mendable, "odd-package"), "raw")
	dir := t.TempDir()
	out, plan := filepath.Join(dir, "fixed.raw"), filepath.Join(dir, "fixed-first-boot.ps1")
	stdout, stderr, code := fixed(t, source, "-o", out)
	if code != 1 || !strings.Contains(stdout, "Not fixed: remove the package "+odd) || !strings.Contains(stdout, "Start the machine from the fixed disk,") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	script, err := os.ReadFile(plan)
	if err != nil || strings.Contains(string(script), odd) || !strings.Contains(string(script), "Remove-Package 'Microsoft.SkypeApp_") || !strings.Contains(string(script), "Add-Administrator") {
		t.Errorf("%v\n%s", err, script)
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

// muchToFix is an export of which there is so much to copy, where no file of its volume is, that something can happen meanwhile.
func muchToFix(t *testing.T) string {
	t.Helper()
	source := exported(t, mendableMachine(t, "unmendable"), "raw")
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
	return source
}

// fixBegun is berth fix, which has begun to write.
func fixBegun(t *testing.T, source, out string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], "fix", source, "-o", out)
	cmd.Env = append(os.Environ(), asBerth+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
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
	return cmd, &stderr
}

// A disk appears when it is whole, whatever kills the program before.
func TestFixKilled(t *testing.T) {
	source := muchToFix(t)
	for _, to := range []string{"fixed.raw", "fixed.qcow2"} {
		out := filepath.Join(t.TempDir(), to)
		cmd, _ := fixBegun(t, source, out)
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

// Of an export that somebody writes to meanwhile there is no fixed copy: it would be half of what it was, and half of what it is.
func TestFixOfAnExportThatIsWrittenTo(t *testing.T) {
	source, out := muchToFix(t), filepath.Join(t.TempDir(), "fixed.raw")
	cmd, stderr := fixBegun(t, source, out)
	if err := os.Chtimes(source, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // how it ended is looked at below
	if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(stderr.String(), "was written to while it was read") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if left, err := filepath.Glob(out + "*"); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestFixHostileFiles gives every hostile file to berth fix: it ends as berth check does or refuses, writes a disk only where it says so, and
// what it writes can be read.
func TestFixHostileFiles(t *testing.T) {
	eachHostileFile(t, func(t *testing.T, f hostile.File, path string, data []byte) {
		out := filepath.Join(t.TempDir(), "fixed.qcow2")
		args := []string{path, "-o", out}
		if f.Format != "" {
			args = append(args, "--format", f.Format)
		}
		stdout, stderr, code := fixed(t, args...)
		if code != 1 && code != 2 || strings.Contains(stderr, "goroutine ") || code == 2 && !strings.Contains(stderr, "berth: ") || f.Check == 2 && code == 1 && strings.Contains(stdout, "Written: ") {
			t.Errorf("exit code %d, check's is %d\n%s%s", code, f.Check, stdout, stderr)
		}
		_, err := os.Stat(out)
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
