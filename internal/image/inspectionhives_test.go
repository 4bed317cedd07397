package image

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// realHives are hives that Windows wrote, beside the checkout and not in it.
const realHives = "../../../shared/data/hives"

// hiveSystem is a System of one hive.
type hiveSystem struct {
	windows.System
	hive  windows.Hive
	h     *registry.Hive
	files fs.FS
}

func (s *hiveSystem) Files() fs.FS { return s.files }

func (s *hiveSystem) Hive(h windows.Hive) windows.HiveState {
	if h != s.hive {
		return windows.HiveState{Err: fs.ErrNotExist}
	}
	st := s.h.State()
	return windows.HiveState{Dirty: st.Dirty, Replayed: st.Entries, Stale: st.Stale, Why: st.Why, Damaged: st.Damaged}
}

func (s *hiveSystem) Open(h windows.Hive, path string) (windows.Key, error) {
	if h != s.hive {
		return nil, errors.New("no such hive")
	}
	root, err := s.h.Root()
	if err != nil {
		return nil, err
	}
	return root.Open(strings.Replace(path, "CurrentControlSet", "ControlSet001", 1))
}

func realSystem(t *testing.T, hive windows.Hive, name string, logs ...string) *hiveSystem {
	t.Helper()
	if _, err := os.Stat(realHives); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no real hives beside this checkout")
	}
	read := func(name string) (*bytes.Reader, int64) {
		b, err := exec.CommandContext(t.Context(), "xz", "-dc", filepath.Join(realHives, name+".xz")).Output()
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(b), int64(len(b))
	}
	var sources []registry.Log
	for _, l := range logs {
		r, size := read(name + "." + l)
		sources = append(sources, registry.Log{Name: l, R: r, Size: size})
	}
	r, size := read(name)
	h, err := registry.Open(r, size, sources...)
	if err != nil {
		t.Fatal(err)
	}
	return &hiveSystem{hive: hive, h: h, files: fstest.MapFS{}}
}

// TestInspectionOfRealHives: what Windows itself wrote.
func TestInspectionOfRealHives(t *testing.T) {
	s := realSystem(t, windows.SystemHive, "SYSTEM_B", "LOG1", "LOG2")
	storage, list := driverServices(s)
	if storage.Value == nil || len(*storage.Value) < 25 || list.Value == nil {
		t.Fatalf("%+v, %+v", storage, list)
	}
	w := Windows{Support: list}
	wantSupport(t, w, map[string]string{"virtio disk": "absent", "virtio network": "absent"})
	atBoot := map[string]bool{}
	for _, d := range *storage.Value {
		if d.Service == "" || d.Image == "" {
			t.Errorf("%+v", d)
		}
		atBoot[d.Service] = d.AtBoot
	}
	// Intel's RAID controller was there; AHCI is switched off by StartOverride.
	if on, ok := atBoot["storahci"]; on || !ok || !atBoot["iaStorAV"] {
		t.Errorf("%v", atBoot)
	}
	wantSupport(t, w, map[string]string{"AHCI disk": "installed", "e1000e network": "installed", "Hyper-V disk": "installed"})
	nics := networkAdapters(s)
	if nics.Value == nil || !slices.ContainsFunc(*nics.Value, func(a NetworkAdapter) bool {
		return a.Description == "Intel(R) 82579LM Gigabit Network Connection" && a.ComponentID == `PCI\VEN_8086&DEV_1502` && a.Version == "12.15.22.6"
	}) {
		t.Errorf("%+v", nics)
	}
	if lines := network2text(nics); len(lines) < 3 || strings.Contains(strings.Join(lines, "\n"), "WAN Miniport") || !strings.HasPrefix(lines[len(lines)-1], "and ") {
		t.Errorf("%q", lines)
	}
	for _, f := range []Fact[string]{value(s, windows.SystemHive, control+"TimeZoneInformation", "TimeZoneKeyName", text)} {
		if f.Value == nil || *f.Value == "" {
			t.Errorf("%+v", f)
		}
	}
	accounts := users(realSystem(t, windows.SAM, "SAM"))
	if accounts.Value == nil {
		t.Fatalf("%+v", accounts)
	}
	for i := range *accounts.Value {
		(*accounts.Value)[i].From = ""
	}
	if !slices.Equal(*accounts.Value, []User{{"Administrator", 500, false, true, ""}, {"Guest", 501, false, false, ""}, {"Preston", 1000, true, true, ""}}) {
		t.Errorf("%+v", *accounts.Value)
	}
}
