package disk

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestOverlay(t *testing.T) {
	guest := guestDisk(5<<20+512, 31)
	last := int64(len(guest))
	r := rand.New(rand.NewPCG(3, 1))
	random := make([]Patch, 60)
	for i := range random {
		p := make([]byte, 1+r.IntN(200_000))
		for j := range p {
			p[j] = byte(r.Uint32())
		}
		random[i] = Patch{r.Int64N(last - int64(len(p))), p}
	}
	for name, patches := range map[string][]Patch{
		"one byte":            {{700, []byte{1}}},
		"first and last byte": {{last - 1, []byte{1}}, {0, []byte{2}}},
		"touching":            {{65536, make([]byte, 100)}, {65636, []byte("behind")}},
		"the later wins":      {{1000, bytes.Repeat([]byte{1}, 100)}, {950, bytes.Repeat([]byte{2}, 100)}, {1010, []byte{3}}},
		"inside another":      {{1000, bytes.Repeat([]byte{1}, 100)}, {1050, []byte{2}}},
		"the whole disk":      {{0, bytes.Repeat([]byte{7}, len(guest))}},
		"random":              random,
	} {
		want := slices.Clone(guest)
		for _, p := range patches {
			copy(want[p.Off:], p.Data)
		}
		for format, file := range map[string][]byte{"RAW": guest, "QCOW2": plainQCOW2(guest), "VMDK": streamVMDK(guest, esxi), "VHDX": plainVHDX(guest, 512)} {
			t.Run(name+"/"+format, func(t *testing.T) {
				e, err := Open(bytes.NewReader(file), Options{})
				if err != nil {
					t.Fatal(err)
				}
				img := Overlay(e.Disks[0], patches)
				equalImage(t, img, want)
				overlaidExtents(t, e.Disks[0], img, patches)
				for range img.Extents() { // a caller may stop
					break
				}
				equalImage(t, e.Disks[0], guest)
			})
		}
	}
}

// overlaidExtents checks byte ranges: patched ones are Data stored nowhere, others are as in the base, unless they are left of a compressed block.
func overlaidExtents(t *testing.T, base, img Image, patches []Patch) {
	t.Helper()
	was := extents(t, base)
	for _, x := range extents(t, img) {
		for _, p := range patches {
			if x.Start < p.end() && p.Off < x.Start+x.Length && (x.Kind != Data || x.At != -1) {
				t.Fatalf("extent %+v, but there is a patch at %d+%d", x, p.Off, len(p.Data))
			}
		}
		if x.At < 0 {
			continue
		}
		found := false
		for _, w := range was {
			found = found || x == w || x.Kind == Data && w.Kind == Data && w.Start <= x.Start && x.Start+x.Length <= w.Start+w.Length && x.At-w.At == x.Start-w.Start
		}
		if !found {
			t.Fatalf("extent %+v is none of the base's", x)
		}
	}
}

func TestOverlayRefusesWhatIsNotInside(t *testing.T) {
	e, err := Open(bytes.NewReader(guestDisk(1<<20, 32)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	img := e.Disks[0]
	if Overlay(img, nil) != Image(img) || Overlay(img, []Patch{{5, nil}}) != Image(img) {
		t.Error("no patches, but another image")
	}
	for _, p := range []Patch{{-1, []byte{1}}, {1 << 20, []byte{1}}, {1<<20 - 1, []byte{1, 2}}, {1 << 62, []byte{1}}} {
		bad := Overlay(img, []Patch{{0, []byte{1}}, p})
		if n, err := bad.ReadAt(make([]byte, 10), 100); n != 0 || err == nil {
			t.Errorf("patch at %d: read %d bytes, %v", p.Off, n, err)
		}
		for x, err := range bad.Extents() {
			if err == nil {
				t.Errorf("patch at %d: extent %+v", p.Off, x)
			}
		}
	}
	if bad := Overlay(&sequential{}, []Patch{{0, []byte{1}}}); bad.Size() != -1 {
		t.Error("a sequential disk has a size")
	} else if _, err := bad.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("a sequential disk was patched")
	}
}
