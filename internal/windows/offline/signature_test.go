package offline

import (
	"bytes"
	"compress/flate"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"berth/internal/phony"
	"berth/internal/windows"
)

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestLooksRandom(t *testing.T) {
	text := []byte(strings.Repeat("Nobody would take this for noise, not even when it is long. ", 2000))
	counting := make([]byte, 128<<10)
	for i := range counting {
		counting[i] = byte(i)
	}
	halfEmpty := append(noise(32<<10, 1), make([]byte, 96<<10)...)
	for name, c := range map[string]struct {
		data []byte
		want bool
	}{
		"zeros": {make([]byte, 128<<10), false}, "text": {text, false}, "counting": {counting, false}, "half empty": {halfEmpty, false},
		"short noise": {noise(8<<10, 2), false}, "noise": {noise(20<<10, 3), true}, "long noise": {noise(1<<20, 4), true},
	} {
		if got, err := looksRandom(bytes.NewReader(c.data), int64(len(c.data))); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for seed := range byte(200) { // no encrypted volume is missed
		if got, _ := looksRandom(bytes.NewReader(noise(randomSample, seed)), randomSample); !got {
			t.Errorf("noise %d does not look random", seed)
		}
	}
	// What deflate makes of text is packed tightly, but not evenly.
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100_000 {
		_, _ = w.Write([]byte(strings.Repeat("x", i%7) + text2(i)))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := looksRandom(bytes.NewReader(packed.Bytes()), int64(packed.Len())); got || err != nil {
		t.Errorf("%d bytes of deflate: %v, %v", packed.Len(), got, err)
	}
	if _, err := looksRandom(bytes.NewReader(noise(20<<10, 1)), 32<<10); err == nil {
		t.Error("a volume that ends early has no error")
	}
}

func text2(i int) string { return []string{"alpha ", "beta ", "gamma ", "delta ", "epsilon "}[i*i%5] }

// TestVeraCrypt: Windows' volume bears no mark; that it is encrypted is guessed, and known where VeraCrypt's loader starts it.
func TestVeraCrypt(t *testing.T) {
	m, disks := machine(t, "unmarked")
	env := envelope(t, disks...)
	put(t, disks[0], m.Partition("windows").Start, make([]byte, 4<<20))
	if _, err := Open(env); !errors.Is(err, ErrNoWindows) {
		t.Errorf("a volume of zeros: %v", err)
	}
	put(t, disks[0], m.Partition("windows").Start, noise(256<<10, 9))
	f := Find(env)
	var u *UnreadableError
	if !errors.As(f.NoWindows, &u) || !errors.Is(u, ErrLooksEncrypted) || u.Partition != 2 || len(f.Systems) != 0 {
		t.Error(f.NoWindows)
	}
	if p := f.Disks[0].Partitions[1]; p.FileSystem != "" || !errors.Is(p.Err, ErrLooksEncrypted) || p.Role != "" {
		t.Errorf("%+v", p)
	}
	put(t, disks[0], 0, []byte("\xEA\x1E\x7C\x00\x00 VeraCrypt Boot Loader\r\n\x00"))
	f = Find(env)
	var e *EncryptedError
	if !errors.As(f.NoWindows, &e) || e.By != "VeraCrypt" || e.Partition != 2 {
		t.Error(f.NoWindows)
	}
	if p := f.Disks[0].Partitions[1]; p.FileSystem != "VeraCrypt" || p.Err == nil || p.Role != windows.RoleData {
		t.Errorf("%+v", p)
	}
	if p := f.Disks[0].Partitions[0]; p.FileSystem != "NTFS" || p.Err != nil {
		t.Errorf("the loader makes other volumes encrypted: %+v", p)
	}
}

func TestVeraCryptEFI(t *testing.T) {
	m, disks := machine(t, "unmarked-efi")
	put(t, disks[0], m.Partition("windows").Start, noise(256<<10, 9))
	_, err := Open(envelope(t, disks...))
	var e *EncryptedError
	if !errors.As(err, &e) || e.By != "VeraCrypt" {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	_, disks := machine(t, "uefi")
	f := Find(envelope(t, disks...))
	if len(f.Systems) != 1 || f.NoWindows != nil {
		t.Fatal(f.NoWindows)
	}
	find := func(file string) int {
		t.Helper()
		for _, p := range f.Disks[0].Partitions {
			files, err := f.Files(0, p.Number)
			if err != nil {
				continue
			}
			if _, err := fs.Stat(files, file); err == nil {
				return p.Number
			}
		}
		t.Errorf("no volume has %s", file)
		return 0
	}
	seen := map[int]string{}
	for _, name := range []string{"EFI/Microsoft/Boot/BCD", "notes.txt", "Windows/System32/ntoskrnl.exe", "Recovery/WindowsRE/Winre.wim"} {
		n := find(name)
		if other := seen[n]; other != "" {
			t.Errorf("%s and %s are both on partition %d", name, other, n)
		}
		seen[n] = name
	}
	for _, where := range [][2]int{{1, 1}, {-1, 1}, {0, 99}} {
		if _, err := f.Files(where[0], where[1]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: %v", where, err)
		}
	}
	for _, p := range f.Disks[0].Partitions {
		if p.FileSystem == "" {
			if _, err := f.Files(0, p.Number); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("partition %d has no file system: %v", p.Number, err)
			}
		}
	}
	_, disks = machine(t, "bitlocker")
	if _, err := Find(envelope(t, disks...)).Files(0, 2); err == nil || !strings.Contains(err.Error(), "BitLocker") {
		t.Error(err)
	}
	_, disks = machine(t, phony.Base)
	if f := Find(envelope(t, disks...)); f.Disks[0].Partitions[1].Role != windows.RoleData || f.Systems[0].Machine().Disks[0].Partitions[1].Role != windows.RoleSystem {
		t.Error("a system's own role shows in what all have in common")
	}
}
