package offline

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"berth/testdata/hostile"
)

// samples are the volumes that testdata/fat.sh makes.
var samples = sync.OnceValue(func() map[string][]byte {
	m := map[string][]byte{}
	for _, n := range []string{"fat12", "fat16", "fat32"} {
		f, err := os.Open("testdata/" + n + ".img.gz")
		if err != nil {
			panic(err)
		}
		defer func() { _ = f.Close() }()
		z, err := gzip.NewReader(f)
		if err != nil {
			panic(err)
		}
		if m[n], err = io.ReadAll(z); err != nil {
			panic(err)
		}
	}
	return m
})

func fat(t testing.TB, b []byte) *fatVolume {
	t.Helper()
	v, err := openFAT(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFAT(t *testing.T) {
	sums, err := os.ReadFile("testdata/fat.sums")
	if err != nil {
		t.Fatal(err)
	}
	used, err := os.ReadFile("testdata/fat.used")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range samples() {
		t.Run(name, func(t *testing.T) {
			v := fat(t, b)
			if want := strings.TrimPrefix(name, "fat"); fmt.Sprint(v.bits) != want {
				t.Fatalf("FAT%d", v.bits)
			}
			if fs, err := detect(bytes.NewReader(b), int64(len(b))); fs != fsFAT || err != nil {
				t.Errorf("detected as %q, %v", fs, err)
			}
			n := 0
			for line := range strings.Lines(string(sums)) {
				sum, file, _ := strings.Cut(strings.TrimSpace(line), "  ")
				got, err := fs.ReadFile(v, strings.ToUpper(file))
				if err != nil {
					t.Error(err)
				} else if fmt.Sprintf("%x", sha256.Sum256(got)) != sum {
					t.Errorf("%s: %d bytes of other contents", file, len(got))
				}
				n++
			}
			if n < 40 {
				t.Errorf("only %d sums", n)
			}
			if err := fstest.TestFS(v, "EFI/Microsoft/Boot/BCD", "empty", "many/entry number 40"); err != nil {
				t.Error(err)
			}
			info, err := v.info()
			if err != nil {
				t.Fatal(err)
			}
			var inUse, all int64
			for line := range strings.Lines(string(used)) {
				if rest, ok := strings.CutPrefix(line, name+" "); ok {
					if _, err := fmt.Sscan(rest, &inUse, &all); err != nil {
						t.Fatal(err)
					}
				}
			}
			if all == 0 || info.SizeBytes != all*v.clusterBytes || info.FreeBytes != (all-inUse)*v.clusterBytes || info.Label != "BOOTDISK" {
				t.Errorf("%+v, want %d clusters of %d in use", info, inUse, all)
			}
			for _, p := range []string{"EFI/nothing", "empty/x", "EFI/Microsoft/Boot/BCD.LOG"} {
				if _, err := fs.Stat(v, p); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v", p, err)
				}
			}
			if _, err := v.Open("../x"); !errors.Is(err, fs.ErrInvalid) {
				t.Error(err)
			}
		})
	}
}

// TestFATRefuses changes the volume: damage is an error, never absence.
func TestFATRefuses(t *testing.T) {
	le := binary.LittleEndian
	for name, change := range map[string]func(b []byte){
		"no signature":       func(b []byte) { b[510] = 0 },
		"sector of 0":        func(b []byte) { le.PutUint16(b[11:], 0) },
		"cluster of 0":       func(b []byte) { b[13] = 0 },
		"cluster of 3":       func(b []byte) { b[13] = 3 },
		"no reserved sector": func(b []byte) { le.PutUint16(b[14:], 0) },
		"no FAT":             func(b []byte) { b[16] = 0 },
		"more sectors":       func(b []byte) { le.PutUint16(b[19:], 0); le.PutUint32(b[32:], 1<<31) },
		"FAT too short":      func(b []byte) { le.PutUint16(b[22:], 1) },
		"FAT too long":       func(b []byte) { le.PutUint16(b[22:], 0xFFFF) },
	} {
		b := slices.Clone(samples()["fat16"])
		change(b)
		if _, err := openFAT(bytes.NewReader(b), int64(len(b))); !errors.Is(err, errFATDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"fat12", "fat16", "fat32"} {
		clean := samples()[name]
		v := fat(t, clean)
		e, err := v.find("EFI/Microsoft/Boot/BCD")
		if err != nil {
			t.Fatal(err)
		}
		d, err := v.find("EFI")
		if err != nil {
			t.Fatal(err)
		}
		set := func(b []byte, c, to uint32) {
			at := v.fat + int64(c)*int64(v.bits)/8
			switch {
			case v.bits == 32:
				le.PutUint32(b[at:], to)
			case v.bits == 16:
				le.PutUint16(b[at:], uint16(to))
			case c%2 == 0:
				le.PutUint16(b[at:], le.Uint16(b[at:])&0xF000|uint16(to)&0xFFF)
			default:
				le.PutUint16(b[at:], le.Uint16(b[at:])&0x000F|uint16(to)<<4)
			}
		}
		for what, change := range map[string]func(b []byte){
			"chain too short":   func(b []byte) { set(b, e.cluster, 0x0FFFFFFF) },
			"chain to 0":        func(b []byte) { set(b, e.cluster, 0) },
			"chain to 1":        func(b []byte) { set(b, e.cluster, 1) },
			"chain beyond":      func(b []byte) { set(b, e.cluster, uint32(v.clusters)+2) },
			"directory loop":    func(b []byte) { set(b, d.cluster, d.cluster); fill(b, v, d.cluster) },
			"directory's chain": func(b []byte) { set(b, d.cluster, 1); fill(b, v, d.cluster) },
		} {
			b := slices.Clone(clean)
			change(b)
			_, err := fs.ReadFile(fat(t, b), "EFI/Microsoft/Boot/BCD")
			if !errors.Is(err, errFATDamaged) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		// A chain that never ends, of a file that says that it has 4 GiB.
		b := slices.Clone(clean)
		set(b, e.cluster, e.cluster)
		if _, err := fat(t, b).chain(e.cluster, 1<<32-1, true); !errors.Is(err, errFATDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fill takes the end off a directory: its cluster gets full of deleted entries.
func fill(b []byte, v *fatVolume, c uint32) {
	at := v.data + int64(c-2)*v.clusterBytes
	for i := int64(0); i < v.clusterBytes; i += 32 {
		b[at+i] = 0xE5
	}
}

func FuzzFAT(f *testing.F) {
	names := []string{"fat12", "fat16", "fat32"}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{13, 0, 0, 0x80})
	f.Add(uint8(2), []byte{44, 0, 0, 0xFF, 45, 0, 0, 0xFF})
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 24 {
		b := make([]byte, 4*(1+r.IntN(10)))
		for k := range b {
			b[k] = byte(r.Uint32())
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		clean := samples()[names[int(which)%3]]
		p := patched{bytes.NewReader(clean), map[int64]byte{}}
		// The boot sector, the FAT and the first directories lie in the first 200 KiB or, on FAT32, behind two FATs of 290 KiB.
		for ; len(data) >= 4 && len(p.patches) < 64; data = data[4:] {
			at := int64(data[0]) | int64(data[1])<<8 | int64(data[2])<<16
			p.patches[at%min(int64(len(clean)), 800<<10)] = data[3]
		}
		hostile.Bounded(t, int64(len(clean)), func() {
			v, err := openFAT(p, int64(len(clean)))
			if err != nil {
				return
			}
			_, _ = v.info()
			count := 0
			folder := map[string]int{}
			_ = fs.WalkDir(v, ".", func(name string, d fs.DirEntry, err error) error {
				if count++; count > 200 {
					return fs.SkipAll
				}
				if err != nil {
					return fs.SkipDir
				}
				if folder[path.Dir(name)]++; folder[path.Dir(name)] > 10 {
					return fs.SkipDir
				}
				if d.IsDir() {
					return nil
				}
				if o, err := v.Open(name); err == nil {
					b := make([]byte, 5000)
					_, _ = o.(io.ReaderAt).ReadAt(b, 0)
				}
				return nil
			})
		})
	})
}

// patched is a reader with bytes of its own over it.
type patched struct {
	io.ReaderAt
	patches map[int64]byte
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, off)
	for at, c := range p.patches {
		if at >= off && at < off+int64(n) {
			b[at-off] = c
		}
	}
	return n, err
}
