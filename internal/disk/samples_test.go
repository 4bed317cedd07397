package disk

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

// brokenSource fails from byte at on, as a disk of this machine does.
type brokenSource struct {
	Source
	at int64
}

var errBroken = errors.New("input/output error")

func (b brokenSource) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.at {
		return 0, errBroken
	}
	return b.Source.ReadAt(p, off)
}

func TestErrorsOfThisMachineAreNotRefusals(t *testing.T) {
	for name, file := range samples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			step := max(512, len(file)/200)
			for at := 1024; at < len(file); at += step {
				e, err := Open(brokenSource{bytes.NewReader(file), int64(at)}, Options{Format: strings.Fields(name)[0]})
				if err == nil {
					_, err = io.Copy(io.Discard, io.NewSectionReader(e.Disks[0], 0, e.Disks[0].Size()))
				}
				if r := new(Refusal); errors.As(err, &r) {
					t.Errorf("broken at %d: %v", at, err)
				}
			}
		})
	}
}

// samples are small sound files of all formats; a name begins with its format's.
func samples(t testing.TB) map[string][]byte {
	guest := guestDisk(1<<20+512, 6)
	esx := streamVMDK(guest, esxi)
	files := []tarFile{{"a.ovf", vmwareOVF("a.vmdk")}, {"a.vmdk", esx}}
	return map[string][]byte{
		"RAW":            guest,
		"QCOW2":          plainQCOW2(guest),
		"QCOW2 zlib":     packedQCOW2(deflated(65536), 0),
		"QCOW2 zstd":     packedQCOW2(zstded(65536), 1),
		"VMDK ESXi":      esx,
		"VMDK front":     streamVMDK(guest, atFront),
		"VMDK text":      []byte("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 800 ZERO\nRW 8 ZERO\n"),
		"VHD dynamic":    dynamicVHD(guest, 3),
		"VHD fixed":      append(slices.Clone(guest), vhdFooterFor(int64(len(guest)), 2, "win ", math.MaxUint64)...),
		"VHDX":           plainVHDX(guest, 512),
		"VHDX log":       dirtyVHDX(guest, vhdxMiB-8192, 2),
		"OVA":            writeTar(t, tar.FormatUSTAR, files...),
		"OVA and digest": writeTar(t, tar.FormatPAX, append(files, tarFile{"a.mf", manifestOf("SHA256", files...)})...),
	}
}

func TestSamplesAreSound(t *testing.T) {
	have := map[string]bool{"OVF": true} // it needs its siblings: ova_test.go
	for name, file := range samples(t) {
		e, err := Open(bytes.NewReader(file), Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e.Format != strings.Fields(name)[0] {
			t.Errorf("%s is %s", name, e.Format)
		}
		have[e.Format] = true
		extents(t, e.Disks[0])
	}
	for _, f := range Formats() {
		if !have[f.Name] && !f.Sequential {
			t.Errorf("no sample of %s", f.Name)
		}
	}
}

// A file that is cut off is refused, or what can be read of it is right.
func TestTruncation(t *testing.T) {
	for name, file := range samples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			format := strings.Fields(name)[0]
			whole, err := Open(bytes.NewReader(file), Options{})
			if err != nil {
				t.Fatal(err)
			}
			size := whole.Disks[0].Size()
			want := make([]byte, size)
			if n, err := whole.Disks[0].ReadAt(want, 0); int64(n) != size {
				t.Fatal(err)
			}
			cuts := []int{0, 1, 4, 100, 511, 512, 513, 1024, len(file) - 1, len(file) - 511, len(file) - 512, len(file) - 513, len(file) - 1024, len(file) - 1536}
			for at := 0; at < len(file); at += max(len(file)/97, 1) {
				cuts = append(cuts, at)
			}
			for _, at := range cuts {
				if at < 0 || at > len(file) {
					continue
				}
				e, err := Open(bytes.NewReader(file[:at]), Options{Format: format})
				if err != nil {
					if r := new(Refusal); !errors.As(err, &r) {
						t.Errorf("cut at %d: %v is no refusal", at, err)
					}
					continue
				}
				img := e.Disks[0]
				switch {
				case format == "RAW":
					if img.Size() != int64(at) {
						t.Errorf("cut at %d: %d bytes", at, img.Size())
					}
				case name == "VMDK text":
					continue // its last lines are whole extents
				case img.Size() != size:
					t.Errorf("cut at %d: %d bytes, want %d", at, img.Size(), size)
					continue
				}
				p := make([]byte, 4096)
				bad := 0
				for off := int64(0); off < img.Size(); off += 4096 {
					n, err := img.ReadAt(p, off)
					if err != nil && !errors.Is(err, io.EOF) {
						if r := new(Refusal); !errors.As(err, &r) {
							t.Errorf("cut at %d, read at %d: %v is no refusal", at, off, err)
						}
						bad++
						continue
					}
					if !bytes.Equal(p[:n], want[off:off+int64(n)]) {
						t.Fatalf("cut at %d: wrong bytes at %d", at, off)
					}
				}
				if at < len(file)/2 && bad == 0 && format != "RAW" && !strings.HasPrefix(name, "QCOW2 z") {
					t.Errorf("cut at %d of %d: everything can still be read", at, len(file))
				}
			}
		})
	}
}
