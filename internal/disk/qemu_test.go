package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The tests in this file hold the readers against qemu-img: it writes the disks, and it says what is in them.

func qemuImg(t testing.TB, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Fatal("qemu-img is needed (Debian: qemu-utils): ", err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "qemu-img", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.Bytes()
}

// guestDisk is what a guest might have written: a boot signature, text, noise, and holes of all sizes, the last bytes being data.
func guestDisk(size int64, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(size)))
	p := make([]byte, size)
	for at := int64(0); at < size; {
		n := min(size-at, 512<<r.IntN(13)-r.Int64N(2)*512)
		n = max(n, 512)
		part := p[at:min(size, at+n)]
		switch r.IntN(4) {
		case 0: // noise, which does not compress
			for i := range part {
				part[i] = byte(r.Uint32())
			}
		case 1: // text, which does
			for i := range part {
				part[i] = "The quick brown fox jumps over the lazy dog. "[(int(at)+i*7/3)%45]
			}
		}
		at += n
	}
	copy(p[size-9:], "last byte")
	copy(p[510:], "\x55\xaa")
	return p
}

// variant is a sub-format that qemu-img writes.
type variant struct {
	format, subFormat string   // as Disk says
	args              []string // of qemu-img convert, after -f raw
}

var variants = []variant{
	{"RAW", "", []string{"-O", "raw"}},
	{"QCOW2", "v3", []string{"-O", "qcow2"}},
	{"QCOW2", "v2", []string{"-O", "qcow2", "-o", "compat=0.10"}},
	{"QCOW2", "v2", []string{"-O", "qcow2", "-c", "-o", "compat=0.10"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-o", "cluster_size=512"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-o", "cluster_size=4k"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-o", "cluster_size=2M"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-o", "preallocation=metadata"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-S", "0"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-o", "extended_l2=on"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-o", "extended_l2=on,cluster_size=16k"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-c", "-o", "extended_l2=on,cluster_size=2M"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-c"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-c", "-o", "cluster_size=512"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-c", "-o", "cluster_size=2M"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-c", "-o", "compression_type=zstd"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=4k"}},
	{"QCOW2", "v3", []string{"-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=2M"}},
	{"VMDK", "monolithicSparse", []string{"-O", "vmdk"}},
	{"VMDK", "monolithicSparse", []string{"-O", "vmdk", "-o", "zeroed_grain=on"}},
	{"VMDK", "monolithicSparse", []string{"-O", "vmdk", "-o", "compat6=on"}},
	{"VMDK", "monolithicFlat", []string{"-O", "vmdk", "-o", "subformat=monolithicFlat"}},
	{"VMDK", "twoGbMaxExtentSparse", []string{"-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"}},
	{"VMDK", "twoGbMaxExtentFlat", []string{"-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"}},
	{"VMDK", "streamOptimized", []string{"-O", "vmdk", "-o", "subformat=streamOptimized"}},
	{"VHD", "dynamic", []string{"-O", "vpc"}},
	{"VHD", "dynamic", []string{"-O", "vpc", "-o", "force_size=on"}},
	{"VHD", "fixed", []string{"-O", "vpc", "-o", "subformat=fixed"}},
	{"VHD", "fixed", []string{"-O", "vpc", "-o", "subformat=fixed,force_size=on"}},
	{"VHDX", "dynamic", []string{"-O", "vhdx"}},
	{"VHDX", "dynamic", []string{"-O", "vhdx", "-o", "block_size=1M"}},
	{"VHDX", "dynamic", []string{"-O", "vhdx", "-o", "block_size=256M"}},
	{"VHDX", "fixed", []string{"-O", "vhdx", "-o", "subformat=fixed"}},
}

// qemuFormat are QEMU's words for the formats.
var qemuFormat = map[string]string{"RAW": "raw", "QCOW2": "qcow2", "VMDK": "vmdk", "VHD": "vpc", "VHDX": "vhdx"}

// closeAfter closes c when the test is over.
func closeAfter(t testing.TB, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// siblingsIn opens files of a folder.
func siblingsIn(t testing.TB, dir string) func(string) (Source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, root)
	return SiblingsIn(root)
}

func TestEveryFormatIsComparedWithQEMU(t *testing.T) {
	have := map[string]bool{"OVA": true, "OVF": true} // QEMU reads none: ova_test.go
	for _, v := range variants {
		have[v.format] = true
	}
	for _, f := range Formats() {
		if !have[f.Name] && !f.Sequential {
			t.Errorf("no variant of format %s", f.Name)
		}
	}
}

func TestBytesAndExtentsEqualQEMU(t *testing.T) {
	// One sector; odd ends inside a grain, a cluster, a block; more than one grain table (32 MiB).
	sizes := []int64{512, 1<<20 + 512, 3<<20 + 5*512, 33<<20 + 4608}
	for _, size := range sizes {
		dir := t.TempDir()
		source := filepath.Join(dir, "guest.raw")
		if err := os.WriteFile(source, guestDisk(size, 7), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, v := range variants {
			t.Run(fmt.Sprintf("%d/%s", size, strings.Join(v.args[1:], " ")), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				file, back := filepath.Join(dir, "disk"), filepath.Join(dir, "back")
				qemuImg(t, append(append([]string{"convert", "-f", "raw"}, v.args...), source, file)...)
				qemuImg(t, "convert", "-f", qemuFormat[v.format], "-O", "raw", file, back)
				want, err := os.ReadFile(back)
				if err != nil {
					t.Fatal(err)
				}
				e, err := OpenFile(file, Options{Siblings: siblingsIn(t, dir)})
				if err != nil {
					t.Fatal(err)
				}
				closeAfter(t, e)
				if e.Format != v.format || len(e.Disks) != 1 || e.Disks[0].SubFormat != v.subFormat || len(e.Warnings) != 0 {
					t.Errorf("opened as %s %q, %d disks, warnings %q", e.Format, e.Disks[0].SubFormat, len(e.Disks), e.Warnings)
				}
				img := e.Disks[0]
				if info, err := os.Stat(file); err != nil || img.Offset != 0 || img.Length != info.Size() {
					t.Errorf("located at %d+%d: %v", img.Offset, img.Length, err)
				}
				equalImage(t, img, want)
				// As the format has it, without the holes of the file itself.
				plain, err := Open(withoutHoles{img.Image.(*mapped).file.src}, Options{Siblings: func(name string) (Source, error) {
					src, err := siblingsIn(t, dir)(name)
					return withoutHoles{src}, err
				}})
				if err != nil {
					t.Fatal(err)
				}
				if v.format == "VHDX" { // QEMU's driver has no map: for it everything is data
					equalBlocks(t, plain.Disks[0], file, want, v.subFormat == "fixed")
				} else {
					equalMap(t, plain.Disks[0], qemuImg(t, "map", "-f", qemuFormat[v.format], "--output=json", file))
				}
				if err := plain.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// withoutHoles is a Source that does not tell of holes.
type withoutHoles struct{ Source }

func (w withoutHoles) Close() error {
	if c, ok := w.Source.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// equalImage compares an image with the bytes that it should have: as a whole, in random pieces read by several at once,
// at its end, and where its extents say that there is nothing.
func equalImage(t *testing.T, img Image, want []byte) {
	t.Helper()
	if img.Size() != int64(len(want)) {
		t.Fatalf("size %d, want %d", img.Size(), len(want))
	}
	got := make([]byte, len(want))
	if n, err := img.ReadAt(got, 0); n != len(want) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read %d of %d bytes: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("bytes differ from %d on", firstDifference(got, want))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 40 {
				off := r.Int64N(img.Size())
				p := make([]byte, 1+r.Int64N(min(img.Size()-off, 1<<r.IntN(20))))
				if _, err := img.ReadAt(p, off); err != nil {
					t.Errorf("read %d at %d: %v", len(p), off, err)
				} else if !bytes.Equal(p, want[off:off+int64(len(p))]) {
					t.Errorf("read %d at %d: wrong bytes", len(p), off)
				}
			}
		})
	}
	wg.Wait()

	p := make([]byte, 100)
	if n, err := img.ReadAt(p, img.Size()-40); n != 40 || !errors.Is(err, io.EOF) || !bytes.Equal(p[:40], want[len(want)-40:]) {
		t.Errorf("read over the end: %d, %v", n, err)
	}
	if n, err := img.ReadAt(p, img.Size()); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	if _, err := img.ReadAt(p, -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read before the beginning: %v", err)
	}
	for _, x := range extents(t, img) {
		if x.Kind == Zero || x.Kind == Unallocated {
			if at := firstNonZero(want[x.Start : x.Start+x.Length]); at >= 0 {
				t.Errorf("extent %+v is not zero at %d", x, x.Start+int64(at))
			}
		}
	}
}

// extents collects an image's extents and checks that they cover it, in order and without gaps.
func extents(t testing.TB, img Image) []Extent {
	t.Helper()
	var all []Extent
	at := int64(0)
	for x, err := range img.Extents() {
		if err != nil {
			t.Fatalf("extents at %d: %v", x.Start, err)
		}
		if x.Start != at || x.Length <= 0 || x.Kind < Data || x.Kind > Unallocated {
			t.Fatalf("extent %+v, expected one at %d", x, at)
		}
		if n := len(all); n > 0 && x.Kind != Compressed {
			if last := all[n-1]; last.Kind == x.Kind && (last.At < 0 && x.At < 0 || last.At >= 0 && last.At+last.Length == x.At) {
				t.Fatalf("extents %+v and %+v are one", last, x)
			}
		}
		if (x.Kind == Zero || x.Kind == Unallocated) && x.At != -1 {
			t.Fatalf("extent %+v is nowhere", x)
		}
		at += x.Length
		all = append(all, x)
	}
	if at != img.Size() {
		t.Fatalf("extents end at %d, the disk at %d", at, img.Size())
	}
	return all
}

// equalMap compares extents with qemu-img's map: what QEMU calls data is stored, and what is stored QEMU does not call absent.
func equalMap(t *testing.T, img Image, text []byte) {
	t.Helper()
	var ranges []struct {
		Start, Length       int64
		Present, Zero, Data bool
		Compressed          *bool
		Offset              *int64 // in the file that it is in
	}
	if err := json.Unmarshal(text, &ranges); err != nil {
		t.Fatal(err)
	}
	all := extents(t, img)
	for _, r := range ranges {
		for _, x := range all {
			if x.Start >= r.Start+r.Length || x.Start+x.Length <= r.Start {
				continue
			}
			stored := x.Kind == Data || x.Kind == Compressed
			if r.Data && !stored {
				t.Errorf("extent %+v, but QEMU has data at %d+%d", x, r.Start, r.Length)
			}
			if stored && !r.Data && !r.Zero {
				t.Errorf("extent %+v, but QEMU has nothing at %d+%d", x, r.Start, r.Length)
			}
			if from := max(x.Start, r.Start); x.Kind == Data && x.At >= 0 && r.Offset != nil && x.At+from-x.Start != *r.Offset+from-r.Start {
				t.Errorf("extent %+v, but QEMU has byte %d of the disk at %d", x, from, *r.Offset+from-r.Start)
			}
			if r.Compressed != nil && r.Data && *r.Compressed != (x.Kind == Compressed) {
				t.Errorf("extent %+v, but QEMU says compressed: %v at %d+%d", x, *r.Compressed, r.Start, r.Length)
			}
		}
	}
}

// equalBlocks compares the extents of a VHDX with what QEMU stores: all of a fixed disk, of another one the blocks that are not all
// zeros. What an extent says is at a byte of the file is there.
func equalBlocks(t *testing.T, img Disk, path string, want []byte, fixed bool) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block := img.Image.(*mapped).layout.(*vhdx).block
	stored := map[int64]bool{}
	for _, x := range extents(t, img.Image) {
		if x.Kind != Data {
			continue
		}
		if !bytes.Equal(file[x.At:x.At+x.Length], want[x.Start:x.Start+x.Length]) {
			t.Errorf("extent %+v is not at its byte of the file", x)
		}
		for b := x.Start / block; b*block < x.Start+x.Length; b++ {
			stored[b] = true
		}
	}
	for b := int64(0); b*block < int64(len(want)); b++ {
		data := fixed || firstNonZero(want[b*block:min(int64(len(want)), (b+1)*block)]) >= 0
		if stored[b] != data {
			t.Errorf("block %d of %d bytes is stored: %v, want %v", b, block, stored[b], data)
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func firstNonZero(p []byte) int {
	for i, b := range p {
		if b != 0 {
			return i
		}
	}
	return -1
}

// A disk of 4 TiB with three pages written shows that nothing is read that nobody asked for.
func TestLargeSparseDisks(t *testing.T) {
	for _, v := range []variant{
		{"QCOW2", "v3", []string{"-o", "cluster_size=64k"}},
		{"QCOW2", "v3", []string{"-o", "cluster_size=2M,extended_l2=on"}},
		{"VHDX", "dynamic", nil},
		{"VMDK", "monolithicSparse", nil},
	} {
		t.Run(v.format+strings.Join(v.args, ""), func(t *testing.T) {
			t.Parallel()
			const size = 4 << 40
			file := filepath.Join(t.TempDir(), "disk")
			qemuImg(t, append(append([]string{"create", "-q", "-f", qemuFormat[v.format]}, v.args...), file, fmt.Sprint(int64(size)))...)
			at := []int64{0, 1<<40 + 12345*512, size - 4096}
			for _, off := range at {
				cmd := exec.CommandContext(t.Context(), "qemu-io", "-f", qemuFormat[v.format], "-c", fmt.Sprintf("write -P 0x5a %d 4096", off), file)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, f)
			info, _ := f.Stat()
			counted := &countingSource{Source: newOSFile(f, info)}
			e, err := Open(counted, Options{})
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 4096)
			for _, off := range at {
				if n, _ := e.Disks[0].ReadAt(p, off); n != 4096 || !bytes.Equal(p, bytes.Repeat([]byte{0x5a}, 4096)) {
					t.Errorf("read at %d: %d bytes, %x", off, n, p[:16])
				}
			}
			if n := counted.bytes(); n > 1<<20 {
				t.Errorf("three pages took %d bytes of the file", n)
			}
			if all := extents(t, e.Disks[0]); len(all) < 5 {
				t.Errorf("extents %+v", all)
			}
		})
	}
}

// countingSource counts the bytes that are read.
type countingSource struct {
	Source
	mu sync.Mutex
	n  int64
}

func (c *countingSource) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Source.ReadAt(p, off)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += int64(n)
	return n, err
}

func (c *countingSource) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// A split disk over 2 GiB has several extents.
func TestSplitVMDK(t *testing.T) {
	for _, sub := range []string{"twoGbMaxExtentSparse", "twoGbMaxExtentFlat"} {
		t.Run(sub, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "disk.vmdk")
			const size = 5<<30 + 512
			qemuImg(t, "create", "-q", "-f", "vmdk", "-o", "subformat="+sub, file, fmt.Sprint(size))
			at := []int64{0, 2<<30 - 65536, 4<<30 - 65536, size - 512}
			for i, off := range at {
				n := min(131072, size-off)
				cmd := exec.CommandContext(t.Context(), "qemu-io", "-f", "vmdk", "-c", fmt.Sprintf("write -P %d %d %d", i+1, off, n), file)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			e, err := OpenFile(file, Options{Siblings: siblingsIn(t, dir)})
			if err != nil {
				t.Fatal(err)
			}
			if e.Disks[0].Size() != size || e.Disks[0].SubFormat != sub {
				t.Errorf("%d bytes, %s", e.Disks[0].Size(), e.Disks[0].SubFormat)
			}
			for i, off := range at {
				p := make([]byte, min(131072, size-off))
				if n, _ := e.Disks[0].ReadAt(p, off); n != len(p) || !bytes.Equal(p, bytes.Repeat([]byte{byte(i + 1)}, n)) {
					t.Errorf("read at %d: %d bytes, %x", off, n, p[:16])
				}
			}
			extents(t, e.Disks[0])
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			// Without its siblings it is refused, and nothing was opened for it.
			_, err = OpenFile(file, Options{})
			wantRefusal(t, err, "VMDK", RefersElsewhere, "extent disk-")
			_, err = OpenFile(file, Options{Siblings: func(string) (Source, error) { return nil, fs.ErrNotExist }})
			wantRefusal(t, err, "VMDK", RefersElsewhere, "extent disk-")
		})
	}
}

func wantRefusal(t testing.TB, err error, format string, reason Reason, field string) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("error %v, want a refusal of %s: %s, %s", err, format, reason, field)
	}
	if r.Format != format || r.Reason != reason || !strings.Contains(r.Field, field) || r.Detail == "" {
		t.Errorf("refused with %v, want %s: %s, %s", err, format, reason, field)
	}
}

func TestOpenFileTakesRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	if err := exec.CommandContext(t.Context(), "mkfifo", filepath.Join(dir, "pipe")).Run(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "pipe"), filepath.Join(dir, "missing"), "/dev/null"} {
		_, err := OpenFile(path, Options{Format: "RAW"})
		if r := new(Refusal); err == nil || errors.As(err, &r) {
			t.Errorf("%s: %v, want an error that is no Refusal", path, err)
		}
	}
}
