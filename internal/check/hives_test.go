package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/phony/phonytest"
	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// onHives answers from hive files; the rest is the memory's.
type onHives struct {
	*memory
	hives map[windows.Hive]*registry.Hive
}

func (s onHives) Open(hive windows.Hive, path string) (windows.Key, error) {
	if s.hives[hive] == nil {
		return s.memory.Open(hive, path)
	}
	root, err := s.hives[hive].Root()
	if err != nil {
		return nil, errors.New("root: " + err.Error())
	}
	if rest, ok := strings.CutPrefix(path, currentControlSet); ok && hive == windows.SystemHive {
		path = "ControlSet001" + rest // all hives here run on it
	}
	return root.Open(path)
}

func (s onHives) Hive(hive windows.Hive) windows.HiveState {
	if s.hives[hive] == nil {
		return s.memory.Hive(hive)
	}
	st := s.hives[hive].State()
	return windows.HiveState{Dirty: st.Dirty, Replayed: st.Entries, Stale: st.Stale, Why: st.Why, Damaged: st.Damaged, Cut: st.Cut}
}

// load puts a hive file in the place of the memory's.
func (s onHives) load(t testing.TB, hive windows.Hive, b []byte, logs ...registry.Log) bool {
	h, err := registry.Open(bytes.NewReader(b), int64(len(b)), logs...)
	if err != nil {
		return false
	}
	s.hives[hive] = h
	return true
}

const realHives = "../../../shared/data/hives"

// realHive reads one of the hives that Windows wrote, which are kept beside the checkout and not in it.
func realHive(t testing.TB, name string) []byte {
	t.Helper()
	if _, err := os.Stat(realHives); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no real hives beside this checkout")
	}
	out, err := exec.CommandContext(t.Context(), "xz", "-dc", filepath.Join(realHives, name+".xz")).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

// TestRealSAM reads the accounts of a hive that Windows wrote. It has Administrator (500), Guest (501, disabled) and Preston
// (1000); Administrators are 500 and 1000.
func TestRealSAM(t *testing.T) {
	s := onHives{fit(t), map[windows.Hive]*registry.Hive{}}
	if !s.load(t, windows.SAM, realHive(t, "SAM")) {
		t.Fatal("SAM does not open")
	}
	rep := Run(Collect(context.Background(), s), Options{})
	if f := find(t, rep, "WorkspacesBYOLAccountNotFound"); f.Outcome != Warn {
		t.Errorf("the account is %s: %s", f.Outcome, f.Because)
	}
	open := func(path string) windows.Key {
		k, err := s.Open(windows.SAM, path)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	data := func(k windows.Key, name string) windows.Value {
		v, err := k.Value(name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	domain := data(open(samAccounts), "V")
	group := data(open(samBuiltin+`\00000220`), "C")
	for _, a := range []struct {
		name     string
		rid      uint32
		disabled bool
		admin    bool
	}{{"administrator", 500, true, true}, {"GUEST", 501, true, false}, {"Preston", 1000, false, true}} {
		if v := data(open(samAccounts+`\Users\Names\`+a.name), ""); v.Type != a.rid {
			t.Errorf("%s has RID %d, want %d", a.name, v.Type, a.rid)
		}
		flags, err := windows.AccountFlags(data(open(samAccounts+`\Users\`+hex8(a.rid)), "F").Data, a.rid)
		if err != nil || flags&windows.AccountDisabled != 0 != a.disabled {
			t.Errorf("%s has flags %#x, %v; want disabled %v", a.name, flags, err, a.disabled)
		}
		machine, err := windows.MachineSID(domain.Data)
		if err != nil {
			t.Fatal(err)
		}
		if in, err := isMember(group.Data, windows.Administrators, machine.Account(a.rid)); err != nil || in != a.admin {
			t.Errorf("%s is an administrator: %v, %v; want %v", a.name, in, err, a.admin)
		}
	}
}

func hex8(n uint32) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 8)
	for i := range b {
		b[i] = digits[n>>(28-4*i)&15]
	}
	return string(b)
}

// TestRealSystem judges machines whose SYSTEM hive Windows wrote. A dirty hive whose logs are there is read with them; without
// them nothing of it counts.
func TestRealSystem(t *testing.T) {
	raw, log1, log2 := realHive(t, "SYSTEM_B"), realHive(t, "SYSTEM_B.LOG1"), realHive(t, "SYSTEM_B.LOG2")
	upgraded := realHive(t, "SYSTEM_WIN_10_1709")
	damaged := realHive(t, "corrupted_system_hive")
	var out strings.Builder
	for _, c := range []struct {
		name  string
		hive  []byte
		logs  []registry.Log
		clean bool // its sequence numbers are made equal, as if it had been closed
	}{
		{"1709, logs there", raw, []registry.Log{{Name: "SYSTEM.LOG1", R: bytes.NewReader(log1), Size: int64(len(log1))}, {Name: "SYSTEM.LOG2", R: bytes.NewReader(log2), Size: int64(len(log2))}}, false},
		{"1709, no logs", raw, nil, false},
		{"1903, upgraded twice, no logs", upgraded, nil, false},
		{"1903, upgraded twice, as if clean", upgraded, nil, true},
		{"damaged", damaged, nil, false},
	} {
		hive := bytes.Clone(c.hive)
		if c.clean {
			closed(hive)
		}
		s := onHives{fit(t), map[windows.Hive]*registry.Hive{}}
		out.WriteString("== " + c.name + "\n")
		if !s.load(t, windows.SystemHive, hive, c.logs...) {
			out.WriteString("does not open\n")
			continue
		}
		f := Collect(context.Background(), s)
		if s.Hive(windows.SystemHive).Stale {
			for _, k := range []fact{f.ControlSet, f.HostName, f.ProductType, f.UpgradeTraces, f.AutoMountOff, f.FirewallPublic, f.Adapters, f.GuestTools} {
				if ok, from, why := k.state(); ok || !strings.Contains(why, "out of date") {
					t.Errorf("%s: %s is known, or not for its age: %s", c.name, from, why)
				}
			}
			out.WriteString("out of date: nothing of it counts\n")
			continue
		}
		for _, k := range []fact{f.ControlSet, f.HostName, f.ProductType, f.Architecture, f.InstallLanguage, f.UpgradeTraces, f.GuestTools, f.AutoMountOff,
			f.RealTimeIsUniversal, f.FirewallPublic, f.DHCPClientStart, f.Adapters, f.CodeIntegrity, f.CredentialGuard, f.CloudDomains, f.WindowsUpdateStart,
			f.ModulesInstallerStart, f.PendingRenames, f.ShutDown, f.GeneralizationState, f.DefaultControlSet, f.TPM, f.HibernateEnabled, f.FastStartup, f.LetterD, f.BitLocker} {
			out.WriteString(detailed(evidence(k)))
		}
		for _, a := range f.Adapters.Value {
			out.WriteString("  " + a.ID + " " + a.Name + yesNo(" installed", a.Installed) + yesNo(" DHCP", a.DHCP) + " " + strings.Join(a.Addresses, ",") + "\n")
		}
		if rep := Run(f, Options{}); rep.Fit {
			t.Errorf("%s: the machine is fit", c.name)
		}
	}
	phonytest.Golden(t, *update, "testdata/realsystem.txt", out.String())
}

// closed makes a hive's sequence numbers equal, as if it had been closed, and its checksum right.
func closed(hive []byte) []byte {
	copy(hive[8:12], hive[4:8])
	sum := uint32(0)
	for i := 0; i < 508; i += 4 {
		sum ^= binary.LittleEndian.Uint32(hive[i:])
	}
	binary.LittleEndian.PutUint32(hive[508:], sum)
	return hive
}

// TestRealSecurity reads the security authority's hive of a Windows in a workgroup, which keeps a secret of automatic sign-in from its
// own set-up, and the boot configuration of a machine with one Windows.
func TestRealSecurity(t *testing.T) {
	s := onHives{fit(t), map[windows.Hive]*registry.Hive{}}
	raw := realHive(t, "SECURITY")
	if !s.load(t, windows.Security, raw) || !s.load(t, windows.BCD, realHive(t, "BCD")) {
		t.Fatal("SECURITY or BCD does not open")
	}
	if f := Collect(context.Background(), s); f.Domain.OK() { // its logs were not kept
		t.Errorf("a stale hive tells of domain %+v", f.Domain)
	}
	if !s.load(t, windows.Security, closed(raw)) {
		t.Fatal("SECURITY does not open as if closed")
	}
	f := Collect(context.Background(), s)
	if !f.Domain.OK() || f.Domain.Value != "" || !f.AutoLogonSecret.OK() || !f.AutoLogonSecret.Value {
		t.Errorf("domain %+v, secret %+v", f.Domain, f.AutoLogonSecret)
	}
	if !f.BootEntries.OK() || len(f.BootEntries.Value) != 1 {
		t.Errorf("the boot manager offers %+v", f.BootEntries)
	}
	rep := Run(f, Options{})
	var out strings.Builder
	for _, code := range []string{"DomainJoined", "AutoLogonPasswordLeft", "MultipleBootPartition"} {
		fd := find(t, rep, code)
		out.WriteString(code + " " + string(fd.Outcome) + ": " + fd.Because + "\n" + detailed(fd.Evidence))
	}
	phonytest.Golden(t, *update, "testdata/realsecurity.txt", out.String())
}

// detailed is the evidence with what it says beside its text.
func detailed(list []Evidence) string {
	var b strings.Builder
	for _, e := range list {
		b.WriteString(e.Text + "\n    " + e.Detail() + "\n")
	}
	return b.String()
}

func yesNo(s string, yes bool) string {
	if yes {
		return s
	}
	return ""
}

// TestTruncatedHives cuts every hive of a fit and of an unfit machine short, at every page: what was no PASS before never becomes
// one, and the machine is never fit.
func TestTruncatedHives(t *testing.T) {
	for _, what := range []string{"fit", "unfit"} {
		m := fit(t)
		if what == "unfit" {
			m.setAccount("", 0, 0, false)
			m.merge(t, `[SYSTEM\Setup\Upgrade]`+"\n"+`[`+unins+`\{0FF1CE}]`+"\n"+`"DisplayName"="VMware Tools"`+"\n"+
				`[SYSTEM\ControlSet001\Services\mountmgr]`+"\n"+`"NoAutoMount"=dword:1`+"\n"+
				`[SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile]`+"\n"+`"EnableFirewall"=dword:1`+"\n"+
				`[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]`+"\n"+`"AutoAdminLogon"="1"`)
		}
		before := Run(Collect(context.Background(), m), Options{})
		for _, hive := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM, windows.Default, windows.Security, windows.BCD} {
			file, err := registry.Build(m.root.Key(string(hive)), registry.BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			s := onHives{m, map[windows.Hive]*registry.Hive{}}
			if !s.load(t, hive, file) {
				t.Fatalf("%s does not open", hive)
			}
			whole := Run(Collect(context.Background(), s), Options{})
			for i, f := range whole.Findings {
				if f.Outcome != before.Findings[i].Outcome {
					t.Errorf("%s from a file: %s is %s, want %s", hive, f.Code, f.Outcome, before.Findings[i].Outcome)
				}
			}
			for cut := len(file) - 256; cut > 0; cut -= 256 {
				short := file[:cut:cut]
				s := onHives{m, map[windows.Hive]*registry.Hive{}}
				if !s.load(t, hive, short) {
					continue // windows/offline makes it the hive's Err, see TestHives
				}
				got := Run(Collect(context.Background(), s), Options{})
				if list := better(before, got); len(list) > 0 {
					t.Errorf("%s, %s cut at %#x: these pass: %v", what, hive, cut, list)
				}
				if got.Fit {
					t.Errorf("%s, %s cut at %#x is fit", what, hive, cut)
				}
			}
		}
	}
}

// TestTruncatedUserHive cuts a user's hive short, at every page: the machine is never fit.
func TestTruncatedUserHive(t *testing.T) {
	m := fit(t)
	whole := m.files[joeFile].Data
	if !Run(Collect(t.Context(), m), Options{}).Fit {
		t.Fatal("it is not fit to begin with")
	}
	for cut := len(whole) - 256; cut >= 0; cut -= 256 {
		m.files[joeFile] = &fstest.MapFile{Data: whole[:cut:cut]}
		if Run(Collect(t.Context(), m), Options{}).Fit {
			t.Errorf("cut at %#x it is fit", cut)
		}
	}
}

// hiveNames are the hives that facts are read from.
var hiveNames = []windows.Hive{windows.SystemHive, windows.Software, windows.SAM, windows.Security, windows.Default, windows.BCD}

// memoryOf is what a run of f allocates, in bytes.
func memoryOf(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzHives judges machines with a hive of any bytes: no panic, bounded memory, a report that can be shown, and without a sound list
// of programs never fit.
func FuzzHives(f *testing.F) {
	m := fit(f)
	for i, hive := range hiveNames {
		root := m.root.Key(string(hive))
		if root == nil {
			continue
		}
		file, err := registry.Build(root, registry.BuildOptions{})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), file)
		f.Add(uint8(i), file[:len(file)/2])
	}
	f.Add(uint8(len(hiveNames)), m.files[joeFile].Data)
	m.setProfile(f, "Joe", joeZoom+"\n"+joeDrive)
	f.Add(uint8(len(hiveNames)), m.files[joeFile].Data)
	f.Fuzz(func(t *testing.T, hive uint8, file []byte) {
		s := onHives{fit(t), map[windows.Hive]*registry.Hive{}}
		if n := int(hive) % (len(hiveNames) + 1); n == len(hiveNames) { // the hive of a user
			s.files[joeFile] = &fstest.MapFile{Data: file}
		} else if !s.load(t, hiveNames[n], file) {
			t.Skip()
		}
		s.machine.Disks = nil
		var r Report
		// What a hive makes us hold is bounded by the limits of collect.go: texts of programs, and a few hundred bytes for each
		// subkey of a key, which a hive may list again and again.
		if took := memoryOf(func() { r = Run(Collect(context.Background(), s), Options{}) }); took > 256<<20 {
			t.Errorf("%d MiB allocated for a hive of %d bytes", took>>20, len(file))
		}
		if r.Fit {
			t.Error("fit without a disk")
		}
		prints(t, r)
		for _, fd := range r.Findings {
			if len(fd.Because) > 4000 || len(fd.Evidence) > 40 {
				t.Errorf("%s: %d bytes of reason, %d pieces of evidence", fd.Code, len(fd.Because), len(fd.Evidence))
			}
		}
	})
}

// TestCutHives: nothing that is read from a hive whose end is missing passes, however little is missing.
func TestCutHives(t *testing.T) {
	for _, hive := range hiveNames {
		root := fit(t).root.Key(string(hive))
		if root == nil {
			t.Fatalf("the fit machine has no %s", hive)
		}
		file, err := registry.Build(root, registry.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{1, 512, len(file) / 3, 4096} {
			s := onHives{fit(t), map[windows.Hive]*registry.Hive{}}
			if !s.load(t, hive, file[:len(file)-cut]) {
				continue // windows/offline makes it the hive's Err
			}
			read := 0
			for _, f := range Run(Collect(context.Background(), s), Options{}).Findings {
				for _, e := range f.Evidence {
					if e.Hive != hive {
						continue
					}
					// What only tells more may be not known.
					if read++; f.Outcome == Pass && !strings.Contains(e.Text, "hive is cut off") {
						t.Errorf("%s without its last %d of %d bytes: %s passes by %s", hive, cut, len(file), f.Code, e.Text)
					}
				}
			}
			if read == 0 {
				t.Errorf("%s without its last %d bytes: nobody has looked", hive, cut)
			}
		}
	}
}

// FuzzTruncatedHives changes bytes of a hive of a fit machine and cuts it: what does not pass with the whole file does not pass with
// less of it, unless the whole file could not be told for its damage.
func FuzzTruncatedHives(f *testing.F) {
	files := make([][]byte, len(hiveNames))
	m := fit(f)
	for i, hive := range hiveNames {
		if root := m.root.Key(string(hive)); root != nil {
			file, err := registry.Build(root, registry.BuildOptions{})
			if err != nil {
				f.Fatal(err)
			}
			files[i] = file
			f.Add(uint8(i), uint32(0), uint8(0), uint32(256))
			f.Add(uint8(i), uint32(0x1020), uint8(0xff), uint32(4096))
		}
	}
	f.Fuzz(func(t *testing.T, hive uint8, at uint32, value uint8, cut uint32) {
		i := int(hive) % len(hiveNames)
		if files[i] == nil {
			t.Skip()
		}
		file := bytes.Clone(files[i])
		file[int(at)%len(file)] ^= value
		judge := func(b []byte) (Report, bool) {
			s := onHives{fit(t), map[windows.Hive]*registry.Hive{}}
			if !s.load(t, hiveNames[i], b) {
				return Report{}, false // windows/offline makes it the hive's Err
			}
			return Run(Collect(context.Background(), s), Options{}), true
		}
		whole, ok := judge(file)
		short, opened := judge(file[: len(file)-int(cut)%len(file) : len(file)])
		if !ok || !opened {
			t.Skip()
		}
		was := outcomes(whole)
		for _, code := range better(whole, short) {
			if was[code] != Unknown {
				t.Errorf("%s was %s, and passes with the hive cut short", code, was[code])
			}
		}
	})
}
