package check_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math/bits"
	"os"
	"strings"
	"testing"
	"time"

	"berth/internal/check"
	"berth/internal/phony"
	"berth/internal/phony/phonytest"
	"berth/internal/windows"
	"berth/internal/windows/offline"
	"berth/internal/windows/registry"
)

// TestEvidence looks up every piece of evidence again where it says that it was read.
func TestEvidence(t *testing.T) {
	for _, name := range []string{phony.Base, "win11-24h2-enterprise", "firewall-enabled", "dhcp-disabled", "network-drive-of-a-user", "software-of-a-user", "default-profile-customized"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sys, _ := phonytest.Open(t, phonytest.Load(t, name))
			rep := check.Run(check.Collect(t.Context(), sys), check.Options{})
			for _, f := range rep.Findings {
				placed := 0
				for _, e := range f.Evidence {
					if e.Text == "" || check.Printable(e.Text) != e.Text || e.String() != e.Text {
						t.Errorf("%s: text %q", f.Code, e.Text)
					}
					switch {
					case e.Hive == "NTUSER":
						inUsersRegistry(t, sys, f.Code, e)
					case e.Hive != "":
						inRegistry(t, sys, f.Code, e, sys.Open)
					case e.File != "":
						onVolume(t, sys, f.Code, e)
					case e.Disk != "":
						onDisk(t, sys, f.Code, e)
					default:
						continue
					}
					placed++
				}
				row, _ := check.Describe(f.Code)
				if placed == 0 && row.Operation == "" && row.DecidedIn == check.OnDisk {
					t.Errorf("%s says nowhere where it was read: %q", f.Code, f.Evidence)
				}
			}
		})
	}
}

// inUsersRegistry looks the evidence up in the file that it names.
func inUsersRegistry(t *testing.T, sys *offline.System, code string, e check.Evidence) {
	t.Helper()
	onVolume(t, sys, code, check.Evidence{Text: e.File, File: e.File})
	b, err := fs.ReadFile(sys.Files(), strings.TrimPrefix(e.File, "C:/"))
	if err != nil {
		t.Errorf("%s: %s: %v", code, e.Text, err)
		return
	}
	hive, err := registry.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Errorf("%s: %s: %v", code, e.Text, err)
		return
	}
	root, err := hive.Root()
	if err != nil {
		t.Errorf("%s: %s: %v", code, e.Text, err)
		return
	}
	if !strings.Contains(e.Text, e.File) {
		t.Errorf("%s: %q does not name %s", code, e.Text, e.File)
	}
	if e.Key == "" { // the whole hive was looked through
		return
	}
	inRegistry(t, sys, code, e, func(_ windows.Hive, path string) (windows.Key, error) { return root.Open(path) })
}

func inRegistry(t *testing.T, sys *offline.System, code string, e check.Evidence, open func(windows.Hive, string) (windows.Key, error)) {
	t.Helper()
	if e.HiveState != "clean" {
		t.Errorf("%s: %s: the hive is %q", code, e.Text, e.HiveState)
	}
	place := string(e.Hive)
	if e.File != "" {
		place = e.File
	}
	if !strings.Contains(e.Text, place+`\`+e.Key) {
		t.Errorf("%s: %q does not name %s\\%s", code, e.Text, place, e.Key)
	}
	k, err := open(e.Hive, e.Key)
	if errors.Is(err, fs.ErrNotExist) {
		if !e.LastWrite.IsZero() || e.Type != "" {
			t.Errorf("%s: %s: there is no such key", code, e.Text)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %s: %v", code, e.Text, err)
		return
	}
	if !e.LastWrite.Equal(k.LastWrite()) || e.LastWrite.Location() != time.UTC {
		t.Errorf("%s: %s: last written %v, it is %v", code, e.Text, e.LastWrite, k.LastWrite())
	}
	if e.Value == "" {
		return
	}
	name := e.Value
	if name == "(Default)" {
		name = ""
	}
	if v, err := k.Value(name); (err == nil) != (e.Type != "") {
		t.Errorf("%s: %s: type %q, and reading it gives %v, %v", code, e.Text, e.Type, v, err)
	}
}

func onVolume(t *testing.T, sys *offline.System, code string, e check.Evidence) {
	t.Helper()
	name, ok := strings.CutPrefix(e.File, "C:/")
	if !ok {
		t.Errorf("%s: file %q", code, e.File)
	}
	_, err := fs.Stat(sys.Files(), name)
	if absent := strings.Contains(e.Text, "is absent"); errors.Is(err, fs.ErrNotExist) != absent {
		t.Errorf("%s: %s: %v", code, e.Text, err)
	}
}

func onDisk(t *testing.T, sys *offline.System, code string, e check.Evidence) {
	t.Helper()
	if e.Structure == "" {
		t.Errorf("%s: %s: no structure", code, e.Text)
	}
	if e.Offset == nil {
		if e.Structure != "virtual size" {
			t.Errorf("%s: %s: no offset", code, e.Text)
		}
		return
	}
	if at := *e.Offset; at < 0 || at >= sys.Machine().Disks[0].SizeBytes {
		t.Errorf("%s: %s: at %d", code, e.Text, at)
	}
}

// TestEvidenceOfSpace counts the free clusters where the evidence says that they were counted.
func TestEvidenceOfSpace(t *testing.T) {
	sys, file := phonytest.Open(t, phonytest.Load(t, phony.Base))
	rep := check.Run(check.Collect(t.Context(), sys), check.Options{})
	var volume *windows.Volume
	var part int
	for i, p := range sys.Machine().Disks[0].Partitions {
		if p.Role == windows.RoleSystem {
			volume, part = p.Volume, i
		}
	}
	at := int64(-1)
	for _, f := range rep.Findings {
		for _, e := range f.Evidence {
			if f.Code == "DiskFreeSpace" && strings.HasPrefix(e.Structure, "$Bitmap of partition ") {
				at = *e.Offset
			}
		}
	}
	if at <= sys.Machine().Disks[0].Partitions[part].Start {
		t.Fatalf("$Bitmap is said to be at %d", at)
	}
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	clusters := volume.SizeBytes / volume.ClusterBytes
	b := make([]byte, (clusters+7)/8)
	if _, err := r.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	free := clusters
	for i, x := range b {
		for j := range 8 {
			if int64(8*i+j) < clusters && bits.OnesCount8(x&(1<<j)) == 1 {
				free--
			}
		}
	}
	if free*volume.ClusterBytes != volume.FreeBytes {
		t.Errorf("%d clusters are clear at %d, %d bytes of %d each are said to be free", free, at, volume.FreeBytes, volume.ClusterBytes)
	}
}

// TestEvidenceJSON: evidence survives JSON, and a report from before evidence had parts can still be read.
func TestEvidenceJSON(t *testing.T) {
	offset := int64(446)
	for _, e := range []check.Evidence{
		{Text: "a"},
		{Text: `SYSTEM\Setup\X = 1 (REG_DWORD)`, Hive: windows.SystemHive, Key: "Setup", Value: "X", Type: "REG_DWORD", Data: "1",
			LastWrite: time.Date(2020, 10, 5, 16, 20, 7, 123456700, time.UTC), HiveState: "replayed from its logs (12 entries)"},
		{Text: "disk 0: 40 GiB, MBR", Disk: "disk 0", Structure: "MBR partition table", Offset: &offset},
	} {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back check.Evidence
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(back)
		if err != nil || string(again) != string(b) || back.Detail() != e.Detail() {
			t.Errorf("%s became %s, %v", b, again, err)
		}
	}
	const old = `{"fit":true,"open":[],"profile":"seed-2020","windows":{},"findings":[{"code":"OSNotSupported","outcome":"PASS","evidence":["it was read","and so was this"]}]}`
	var rep check.Report
	if err := json.Unmarshal([]byte(old), &rep); err != nil || len(rep.Findings) != 1 || len(rep.Findings[0].Evidence) != 2 || rep.Findings[0].Evidence[1].Text != "and so was this" {
		t.Errorf("an old report is %+v, %v", rep, err)
	}
	for _, bad := range []string{`1`, `"\ud800`, `{"text":1}`, `[]`} {
		var e check.Evidence
		if err := json.Unmarshal([]byte(bad), &e); err == nil {
			t.Errorf("%s is taken for evidence: %+v", bad, e)
		}
	}
}

func TestDetail(t *testing.T) {
	offset := int64(446)
	for _, c := range []struct {
		e    check.Evidence
		want string
	}{
		{check.Evidence{Text: "a"}, ""},
		{check.Evidence{HiveState: "missing"}, "hive missing"},
		{check.Evidence{HiveState: "clean", LastWrite: time.Date(2020, 10, 5, 16, 20, 7, 0, time.UTC)}, "key written 2020-10-05 16:20:07 UTC, hive clean"},
		{check.Evidence{Structure: "MBR partition table", Offset: &offset}, "MBR partition table at byte 446"},
		{check.Evidence{Structure: "virtual size"}, ""},
	} {
		if got := c.e.Detail(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.e, got, c.want)
		}
	}
}
