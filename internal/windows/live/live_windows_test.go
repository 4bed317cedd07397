package live

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows/registry"

	"berth/internal/windows"
	text "berth/internal/windows/registry"
)

// These tests change the Windows that they run in. They are run in Wine; see TestLive of cmd/berth-checker.

const scratch = `Berth\Test`

func here(t *testing.T) *System {
	t.Helper()
	s, err := Open(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, `SOFTWARE\`+scratch+`\Below`, registry.ALL_ACCESS)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	t.Cleanup(func() {
		_ = registry.DeleteKey(registry.LOCAL_MACHINE, `SOFTWARE\`+scratch+`\Below`)
		_ = registry.DeleteKey(registry.LOCAL_MACHINE, `SOFTWARE\`+scratch)
	})
	return s
}

// TestRegistry: what is set is read back, whatever its type; what is not there is surely absent.
func TestRegistry(t *testing.T) {
	s := here(t)
	values := []windows.Value{
		text.NewDWORD("number", 7), text.NewSZ("text", "Grüße"), {Name: "", Type: windows.RegSZ, Data: []byte{'d', 0, 0, 0}},
		{Name: "odd", Type: 0x3e9, Data: []byte{1, 2, 3}}, {Name: "empty", Type: windows.RegBinary}, {Name: "long", Type: windows.RegBinary, Data: bytes.Repeat([]byte{9}, 100_000)},
	}
	for _, v := range values {
		if _, err := s.Apply(t.Context(), windows.SetValue{Hive: windows.Software, Key: scratch, Value: v}); err != nil {
			t.Fatal(err)
		}
	}
	k, err := s.Open(windows.Software, scratch)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range values {
		got, err := k.Value(want.Name)
		if err != nil || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) || got.Name != want.Name {
			t.Errorf("%q is type %d, %d bytes, %v", want.Name, got.Type, len(got.Data), err)
		}
	}
	names, err := k.Values()
	if err != nil || len(names) != len(values) {
		t.Errorf("values %q, %v", names, err)
	}
	if below, err := k.Subkeys(); err != nil || !slices.Equal(below, []string{"Below"}) {
		t.Errorf("keys %q, %v", below, err)
	}
	if k.Name() != "Test" || time.Since(k.LastWrite()).Abs() > time.Hour {
		t.Errorf("%s, written %v", k.Name(), k.LastWrite())
	}
	if _, err := s.Apply(t.Context(), windows.DeleteValue{Hive: windows.Software, Key: scratch, Name: "text"}); err != nil {
		t.Error(err)
	}
	for _, gone := range []windows.DeleteValue{{Hive: windows.Software, Key: scratch, Name: "text"}, {Hive: windows.Software, Key: scratch + `\None`, Name: "text"}} {
		if _, err := s.Apply(t.Context(), gone); err != nil {
			t.Errorf("what is not there is deleted: %v", err)
		}
	}
	if _, err := k.Value("text"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a value that is not there: %v", err)
	}
	if _, err := k.Open("None"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that is not there: %v", err)
	}
	if _, err := s.Apply(t.Context(), windows.SetValue{Hive: windows.Software, Key: scratch + `\None`, Value: values[0]}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a value of a key that is not there: %v", err)
	}
	if _, err := s.Apply(t.Context(), windows.SetValue{Hive: windows.SAM, Key: "SAM", Value: values[0]}); err == nil {
		t.Error("the SAM is written to")
	}
}

// TestBackup: the way to keys that are closed to us leads to the same keys. Wine closes none.
func TestBackup(t *testing.T) {
	here(t)
	k := &key{root: registry.LOCAL_MACHINE, path: `software\` + scratch}
	h, err := k.backup()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if names, err := h.ReadSubKeyNames(-1); err != nil || !slices.Equal(names, []string{"Below"}) {
		t.Errorf("keys %q, %v", names, err)
	}
	k.path += `\None`
	if _, err := k.backup(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that is not there: %v", err)
	}
	users := &key{root: registry.USERS, path: ".DEFAULT"}
	if h, err := users.backup(); err != nil {
		t.Error(err)
	} else {
		h.Close()
	}
}

// TestSignedIn: the registry of who is signed in is a hive by their SID; one of who is not is surely not there.
func TestSignedIn(t *testing.T) {
	s := here(t)
	sids, err := registry.USERS.ReadSubKeyNames(-1)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, sid := range sids {
		if !strings.HasPrefix(sid, "S-1-5-21-") || strings.HasSuffix(sid, "_Classes") {
			continue
		}
		seen++
		if err := s.Hive(windows.Hive(sid)).Err; err != nil {
			t.Errorf("%s: %v", sid, err)
		}
		if k, err := s.Open(windows.Hive(sid), "Environment"); err != nil || k.Name() != "Environment" {
			t.Errorf("%s: %v, %v", sid, k, err)
		}
	}
	if seen == 0 {
		t.Errorf("nobody is signed in: %q", sids)
	}
	for _, none := range []windows.Hive{"S-1-5-21-1-2-3-4", `S-1-5-21-1-2-3-4\Software`} {
		if err := s.Hive(none).Err; err == nil || errors.Is(err, fs.ErrNotExist) != (none == "S-1-5-21-1-2-3-4") {
			t.Errorf("%s: %v", none, err)
		}
		if _, err := s.Open(none, "Environment"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a key of %s: %v", none, err)
		}
	}
}

// TestMissingHive: a hive that is not there makes none of its keys absent.
func TestMissingHive(t *testing.T) {
	s := here(t)
	if st := s.Hive(windows.BCD); !errors.Is(st.Err, fs.ErrNotExist) {
		t.Errorf("Wine has no BCD, and says %v", st.Err)
	}
	if _, err := s.Open(windows.BCD, "Objects"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key of it: %v", err)
	}
	if _, err := s.Open("NTUSER", ""); err == nil {
		t.Error("a hive that no machine has is opened")
	}
	if st := s.Hive(windows.Software); st != (windows.HiveState{}) {
		t.Errorf("SOFTWARE: %+v", st)
	}
}

// TestServices: how a service starts is told to the service control manager.
func TestServices(t *testing.T) {
	s := here(t)
	if _, err := s.Apply(t.Context(), windows.SetValue{Hive: windows.SystemHive, Key: `CurrentControlSet\Services\wuauserv`, Value: text.NewDWORD("Start", 2)}); err != nil {
		t.Fatal(err)
	}
	start := func() uint32 {
		t.Helper()
		svc, err := openService("wuauserv", 0x1) // SERVICE_QUERY_CONFIG
		if err != nil {
			t.Fatal(err)
		}
		defer svc.close()
		n, err := svc.start()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := start(); n != 2 {
		t.Errorf("it starts by %d", n)
	}
	if err := s.HoldUpdates(t.Context()); err != nil || start() != 4 {
		t.Errorf("held: %d, %v", start(), err)
	}
	if err := s.HoldUpdates(t.Context()); err != nil { // once more changes nothing
		t.Error(err)
	}
	if restored, err := s.ReleaseUpdates(); err != nil || !restored || start() != 2 {
		t.Errorf("released: %v, %d, %v", restored, start(), err)
	}
	if restored, err := s.ReleaseUpdates(); err != nil || restored {
		t.Errorf("released twice: %v, %v", restored, err)
	}

	// Kept off, and held again by another run that is cancelled: it is as it was at first.
	for _, err := range []error{s.HoldUpdates(t.Context()), s.KeepUpdatesOff(), s.HoldUpdates(t.Context())} {
		if err != nil {
			t.Error(err)
		}
	}
	if restored, err := s.ReleaseUpdates(); err != nil || !restored || start() != 2 {
		t.Errorf("cancelled after success: %v, %d, %v", restored, start(), err)
	}
	for _, err := range []error{s.HoldUpdates(t.Context()), s.KeepUpdatesOff()} {
		if err != nil {
			t.Error(err)
		}
	}
	if restored, err := s.ReleaseUpdates(); err != nil || restored || start() != 4 {
		t.Errorf("after success: %v, %d, %v", restored, start(), err)
	}
	if held, err := s.UpdatesHeld(); held || err != nil {
		t.Errorf("held %v, %v", held, err)
	}
}

// TestAccounts: Wine keeps accounts for as long as the program runs that makes them, and cannot enable any.
func TestAccounts(t *testing.T) {
	s := here(t)
	const name = "BerthTest"
	has := func() bool {
		t.Helper()
		there, err := s.HasAccount(name)
		if err != nil {
			t.Fatal(err)
		}
		return there
	}
	if has() {
		t.Fatal("the account is there before it is made")
	}
	// Wine would make it twice, so that this does not show that one which is there stays.
	password, err := s.Apply(t.Context(), windows.CreateAccount{Name: name})
	if err != nil || !has() {
		t.Fatal(err)
	}
	if len(password.Reveal()) != 20 {
		t.Errorf("a password of %d characters", len(password.Reveal()))
	}
	for range 2 {
		if err := s.RemoveAccount(name); err != nil || has() {
			t.Errorf("it is not removed: %v", err)
		}
	}
}

// TestUninstallerMustBeThere: nothing is looked for on the path.
func TestUninstallerMustBeThere(t *testing.T) {
	s := here(t)
	for _, path := range []string{"cmd.exe", `C:\none\uninst.exe`, ""} {
		if _, err := s.Apply(t.Context(), windows.RunUninstaller{Program: "Something", Path: path}); err == nil {
			t.Errorf("%q is run", path)
		}
	}
	if _, err := s.Apply(t.Context(), windows.RemovePackage{FullName: "a; b"}); err == nil {
		t.Error("what is no package is removed")
	}
}

// TestVolume: Wine knows the size of C:, but not whether it was taken off cleanly, so that nothing of it is known.
func TestVolume(t *testing.T) {
	s := here(t)
	v := s.volume(s.drive)
	if v.info.FreeBytes <= 0 || v.info.FreeBytes >= v.info.SizeBytes || v.info.ClusterBytes < 512 || v.fileSystem != "NTFS" {
		t.Errorf("%+v", v)
	}
	if v.err == nil || !strings.Contains(v.err.Error(), "dirty mark") {
		t.Errorf("its mark is told: %v", v.err)
	}
	m := s.Machine()
	if !m.Running || m.Installations < 1 || len(m.Disks) == 0 {
		t.Fatalf("%+v", m)
	}
	for _, d := range m.Disks { // how many there are is the host's business
		for _, p := range d.Partitions {
			if p.Role == windows.RoleSystem && (p.Volume != nil || p.Err == nil) {
				t.Errorf("%+v", p)
			}
		}
	}
}
