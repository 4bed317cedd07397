package compute

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckID(t *testing.T) {
	for _, good := range []string{"a", "0", "ws-1", "a-", strings.Repeat("z", 64)} {
		if err := CheckID(good); err != nil {
			t.Errorf("CheckID(%q): %v", good, err)
		}
	}
	for _, bad := range []string{"", "-", "-a", "A", "a_b", "a.b", "..", "a/b", "a\n", "\na", "a\x00", "é", strings.Repeat("z", 65), strings.Repeat("z", 1<<20)} {
		err := CheckID(bad)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("CheckID(%.70q): %v", bad, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("CheckID of %d bytes: an error of %d", len(bad), len(err.Error()))
		}
	}
}

func TestMachineCheck(t *testing.T) {
	good := Machine{ID: "m", Image: "i", RootGiB: 80, UserGiB: 50, VCPUs: 2, MemoryMiB: 4096, Firmware: UEFI, Boots: 1}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	limits := good
	limits.RootGiB, limits.UserGiB, limits.VCPUs, limits.MemoryMiB = MaxVolumeGiB, MaxVolumeGiB, MaxVCPUs, MaxMemoryMiB
	if err := limits.Check(); err != nil {
		t.Error(err)
	}
	for field, spoil := range map[string]func(*Machine){
		"id":        func(m *Machine) { m.ID = "../m" },
		"Image":     func(m *Machine) { m.Image = "" },
		"RootGiB":   func(m *Machine) { m.RootGiB = MaxVolumeGiB + 1 },
		"UserGiB":   func(m *Machine) { m.UserGiB = -1 },
		"VCPUs":     func(m *Machine) { m.VCPUs = MaxVCPUs + 1 },
		"MemoryMiB": func(m *Machine) { m.MemoryMiB = MinMemoryMiB - 1 },
		"Firmware":  func(m *Machine) { m.Firmware = "BIOS" },
		"Boots":     func(m *Machine) { m.Boots = 0 },
	} {
		m := good
		spoil(&m)
		if err := m.Check(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// image is a good header, spoilt.
func image(spoil func(h []byte)) []byte {
	h := make([]byte, 104)
	copy(h, "QFI\xfb")
	binary.BigEndian.PutUint32(h[4:], 3)
	binary.BigEndian.PutUint64(h[24:], 80<<30)
	if spoil != nil {
		spoil(h)
	}
	return h
}

func TestImageSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	for _, c := range []struct {
		says string
		file []byte
		size int64
	}{
		{"", image(nil), 80 << 30},
		{"", image(func(h []byte) { h[7] = 2; h[79] = 4 }), 80 << 30}, // version 2 has no features there
		{"", image(func(h []byte) { h[79] = 3 }), 80 << 30},           // dirty, corrupt: QEMU's business
		{"shorter", image(nil)[:103], 0},
		{"shorter", nil, 0},
		{"byte 0", image(func(h []byte) { h[3]++ }), 0},
		{"byte 4", image(func(h []byte) { h[7] = 1 }), 0},
		{"byte 4", image(func(h []byte) { h[4] = 1 }), 0},
		{"byte 8", image(func(h []byte) { h[8] = 1 }), 0},
		{"byte 8", image(func(h []byte) { h[15] = 1 }), 0},
		{"byte 24", image(func(h []byte) { clear(h[24:32]) }), 0},
		{"byte 24", image(func(h []byte) { h[24] = 0xff }), 0},
		{"byte 32", image(func(h []byte) { h[35] = 1 }), 0},
		{"byte 72", image(func(h []byte) { h[79] = 4 }), 0},
	} {
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		size, err := ImageSize(path)
		if c.says == "" && (err != nil || size != c.size) {
			t.Errorf("%x: %d, %v, want %d", c.file, size, err, c.size)
		}
		if c.says != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%x: %v, want %q", c.file, err, c.says)
		}
	}
	if _, err := ImageSize(path + "-missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := ImageSize(t.TempDir()); err == nil {
		t.Error("a folder has a size")
	}
}

func FuzzImageSize(f *testing.F) {
	f.Add(image(nil))
	f.Add(image(func(h []byte) { h[24] = 0x80 }))
	f.Add(image(func(h []byte) { h[4], h[7] = 0xff, 0xff }))
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) < 104 {
			return
		}
		size, err := imageSize(file[:104])
		if err == nil && (size <= 0 || size > MaxVolumeGiB*GiB) {
			t.Errorf("size %d", size)
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%v is not ErrInvalid", err)
		}
	})
}
