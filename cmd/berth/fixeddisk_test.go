package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows"
	"berth/internal/windows/ntfs"
	"berth/internal/windows/offline"
)

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
