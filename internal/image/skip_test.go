package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows/ntfs"
	"berth/testdata/machines"
)

const (
	volumeStart = 1 << 20
	volumeBytes = 32 << 20
)

func tool(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s (Debian: ntfs-3g, qemu-utils)", name, strings.Join(args, " "), err, out)
	}
	return out
}

// ntfsDisk is a raw disk with one NTFS volume, made by mkntfs and ntfscp: files, a page file, a hibernation file, and junk in
// every cluster that is free. It returns the files by name.
func ntfsDisk(t testing.TB, change func(put func(name string, data []byte))) (path string, want map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	volume := filepath.Join(dir, "volume")
	if err := os.WriteFile(volume, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(volume, volumeBytes); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkntfs", "-q", "-Q", "-F", "-L", "C", volume)
	want = map[string][]byte{}
	put := func(name string, data []byte) {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		tool(t, "ntfscp", "-f", "-q", volume, file, name)
		want[name] = data
	}
	r := rand.New(rand.NewPCG(1, 9))
	noise := rand.NewChaCha8([32]byte{7})
	for i := range 40 {
		p := make([]byte, 1+r.IntN(400_000))
		_, _ = noise.Read(p[:len(p)/2])
		put(fmt.Sprintf("file %d", i), p)
	}
	put("pagefile.sys", bytes.Repeat([]byte("page file secret"), 1<<17))
	put("swapfile.sys", bytes.Repeat([]byte("swap file secret"), 1<<15))
	put("hiberfil.sys", append(make([]byte, 4096), bytes.Repeat([]byte("hibernated secret"), 1<<15)...))
	if change != nil {
		change(put)
	}
	data, err := os.ReadFile(volume)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ntfs.Open(bytes.NewReader(data), volumeBytes)
	if err != nil {
		t.Fatal(err)
	}
	junk := bytes.Repeat([]byte("deleted secret  "), 256)
	err = v.Allocated(func(first int64, piece []byte) bool {
		for i := range int64(len(piece)) * 8 {
			if at := (first + i) * 4096; piece[i/8]>>(i%8)&1 == 0 && at+4096 <= volumeBytes-4096 {
				copy(data[at:], junk)
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, volumeStart+volumeBytes+1<<20)
	copy(out[volumeStart:], data)
	row := out[446:]
	row[4] = 7
	binary.LittleEndian.PutUint32(row[8:], volumeStart/512)
	binary.LittleEndian.PutUint32(row[12:], volumeBytes/512)
	copy(out[510:], "\x55\xaa")
	path = filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, want
}

func openDisk(t testing.TB, path string) disk.Disk {
	t.Helper()
	e, err := disk.OpenFile(path, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() }) // only read
	return e.Disks[0]
}

// hashes are the SHA-256 of all files of the volume.
func hashes(t testing.TB, img disk.Image) map[string][32]byte {
	t.Helper()
	v, err := ntfs.Open(io.NewSectionReader(img, volumeStart, volumeBytes), volumeBytes)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][32]byte{}
	err = fs.WalkDir(v.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := v.FS().ReadFile(path)
		all[path] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// In every form a copy without what is free has every file, and nothing that was deleted.
func TestLeavingOut(t *testing.T) {
	path, want := ntfsDisk(t, nil)
	stream := filepath.Join(t.TempDir(), "disk.vmdk")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", path, stream)
	sums := map[string][32]byte{}
	for name, data := range want {
		sums[name] = sha256.Sum256(data)
	}
	if !maps.Equal(sums, hashes(t, openDisk(t, path))) {
		t.Fatal("the disk was not made as it should be")
	}
	emptied := []string{"pagefile.sys", "swapfile.sys", "hiberfil.sys"}
	for _, keep := range []Keep{{}, {Free: true}, {PageFiles: true, HiberFile: true}, {Free: true, PageFiles: true}} {
		wantSums := maps.Clone(sums)
		secrets := map[string]bool{"deleted secret": keep.Free, "page file secret": keep.PageFiles, "swap file secret": keep.PageFiles, "hibernated secret": keep.HiberFile}
		for _, name := range emptied {
			if name == "hiberfil.sys" && !keep.HiberFile || name != "hiberfil.sys" && !keep.PageFiles {
				wantSums[name] = sha256.Sum256(make([]byte, len(want[name])))
			}
		}
		for _, source := range []string{path, stream} {
			for form, name := range map[disk.Form]string{disk.Raw: "raw", disk.Plain: "plain", disk.Zstd: "zstd", disk.Compact: "compact"} {
				t.Run(fmt.Sprintf("%+v/%s/%s", keep, filepath.Base(source), name), func(t *testing.T) {
					img := openDisk(t, source)
					left := LeaveOut(img, keep)
					if left.Ranges == nil || len(left.Kept) != 0 || (left.Free == 0) != keep.Free || len(left.Files) > 3 {
						t.Fatalf("%+v", left)
					}
					out := filepath.Join(t.TempDir(), "out")
					done, err := disk.CopyFile(t.Context(), out, img, disk.CopyOptions{Form: form, Skip: left.Ranges, Digest: true})
					if err != nil {
						t.Fatal(err)
					}
					if form != disk.Raw {
						tool(t, "qemu-img", "check", "-f", "qcow2", out)
					}
					copied := openDisk(t, out)
					if copied.Size() != img.Size() {
						t.Errorf("%d bytes, the source has %d", copied.Size(), img.Size())
					}
					if got := hashes(t, copied); !maps.Equal(got, wantSums) {
						for name := range got {
							if got[name] != wantSums[name] {
								t.Errorf("%s differs", name)
							}
						}
						t.Errorf("%d files, want %d", len(got), len(wantSums))
					}
					all := make([]byte, copied.Size())
					if n, err := copied.ReadAt(all, 0); n < len(all) {
						t.Fatal(err)
					}
					for secret, kept := range secrets {
						if bytes.Contains(all, []byte(secret)) != kept {
							t.Errorf("%q: kept %v, want %v", secret, !kept, kept)
						}
					}
					if digest, err := disk.Digest(t.Context(), copied, nil); err != nil || digest != done.Digest {
						t.Errorf("digest %s, %s when it was made: %v", digest, done.Digest, err)
					}
					if !keep.Free && done.Skipped < left.Free-1<<20 {
						t.Errorf("%d bytes left out, %d are free", done.Skipped, left.Free)
					}
				})
			}
		}
	}
}

// A hiberfil.sys is left out when Windows says that it has taken its memory back, and by no mark that nobody knows.
func TestHiberfileIsLeftOutWhenItIsSpent(t *testing.T) {
	for mark, want := range map[string]bool{"WAKE": true, "wake": true, "\x00\x00\x00\x00": true, "LINK": false, "\x81\x81\x81\x81": false} {
		path, _ := ntfsDisk(t, func(put func(string, []byte)) {
			put("hiberfil.sys", append([]byte(mark), bytes.Repeat([]byte("secret"), 1<<15)...))
		})
		left := LeaveOut(openDisk(t, path), Keep{})
		if _, got := left.Files["hiberfil.sys"]; got != want {
			t.Errorf("mark %q: left out %t, want %t (%+v)", mark, got, want, left.Files)
		}
	}
}

// A volume that is not certainly at rest is copied as a whole, and why is said.
func TestNothingIsLeftOutOfAVolumeInUse(t *testing.T) {
	restart := func(clients uint16, flags uint16, lsn uint64) []byte {
		p := bytes.Repeat([]byte{0xFF}, 8192)
		clear(p[:4096])
		copy(p, "RSTR")
		binary.LittleEndian.PutUint32(p[16:], 4096)
		binary.LittleEndian.PutUint16(p[24:], 48)
		binary.LittleEndian.PutUint64(p[48:], lsn)
		binary.LittleEndian.PutUint16(p[60:], clients)
		binary.LittleEndian.PutUint16(p[62:], flags)
		copy(p[4096:], p[:4096])
		return p
	}
	path, _ := ntfsDisk(t, nil)
	sleeping, _ := ntfsDisk(t, func(put func(string, []byte)) {
		put("hiberfil.sys", append([]byte("hibr"), make([]byte, 8192)...))
	})
	woken, _ := ntfsDisk(t, func(put func(string, []byte)) {
		put("hiberfil.sys", append([]byte("WAKE"), make([]byte, 8192)...))
	})
	// at is the byte of the disk where a file begins.
	at := func(name string) int64 {
		t.Helper()
		v, err := ntfs.Open(io.NewSectionReader(openDisk(t, path), volumeStart, volumeBytes), volumeBytes)
		if err != nil {
			t.Fatal(err)
		}
		x, err := v.Extents(name)
		if err != nil || len(x) == 0 || x[0].VolumeOffset < 0 {
			t.Fatalf("%s: %v", name, err)
		}
		return volumeStart + x[0].VolumeOffset
	}
	journal, bitmap, file := at("$LogFile"), at("$Bitmap"), at("file 3")
	dirty := dirtyFlag(t, path)
	newer := restart(0, 0, 9)
	copy(newer[4096:], restart(0xFFFF, 2, 8)[:4096])
	for name, c := range map[string]struct {
		path    string
		patches []disk.Patch
		why     string // "": the volume is at rest
	}{
		"as it is":                     {path, nil, ""},
		"woken":                        {woken, nil, ""},
		"journal without clients":      {path, []disk.Patch{{Off: journal, Data: restart(0xFFFF, 0, 1)}}, ""},
		"journal marked clean":         {path, []disk.Patch{{Off: journal, Data: restart(0, 2, 1)}}, ""},
		"hibernated":                   {sleeping, nil, `hibernated`},
		"dirty":                        {path, dirty, "dirty"},
		"a dynamic disk":               {path, []disk.Patch{{Off: 446 + 4, Data: []byte{0x42}}}, "dynamic disk"},
		"a page file of two names":     {path, linked(t, path, "pagefile.sys"), "another name"},
		"journal in use":               {path, []disk.Patch{{Off: journal, Data: restart(0, 0, 1)}}, "not closed"},
		"the newer page counts":        {path, []disk.Patch{{Off: journal, Data: newer}}, "not closed"},
		"journal without pages":        {path, []disk.Patch{{Off: journal, Data: make([]byte, 8192)}}, "no restart page"},
		"journal with hostile pages":   {path, []disk.Patch{{Off: journal, Data: append([]byte("RSTR"), bytes.Repeat([]byte{0x81}, 60)...)}}, "restart page"},
		"a file's cluster is free":     {path, []disk.Patch{{Off: bitmap + (file-volumeStart)/4096/8, Data: []byte{0}}}, "free, in which file"},
		"the bitmap's cluster is free": {path, []disk.Patch{{Off: bitmap, Data: make([]byte, 4096)}}, "$B"},
	} {
		t.Run(name, func(t *testing.T) {
			left := LeaveOut(disk.Overlay(openDisk(t, c.path), c.patches), Keep{})
			if c.why == "" {
				if left.Ranges == nil || len(left.Kept) != 0 {
					t.Errorf("%+v", left)
				}
				return
			}
			if left.Ranges != nil || left.Free != 0 || len(left.Files) != 0 || len(left.Kept) != 1 || !strings.Contains(left.Kept[0], c.why) {
				t.Errorf("%+v", left)
			}
		})
	}
}

// What Windows has in its memory may be of any disk of the machine, and what it needs may lie on any.
func TestNothingIsLeftOutForWhatIsOnAnotherDisk(t *testing.T) {
	path, _ := ntfsDisk(t, nil)
	sleeping, _ := ntfsDisk(t, func(put func(string, []byte)) {
		put("hiberfil.sys", append([]byte("HIBR"), make([]byte, 8192)...))
	})
	first := make([]byte, 512)
	gpt := bytes.Clone(first) // there is none
	gpt[446+4] = 0xEE
	copy(gpt[510:], "\x55\xaa")
	for name, c := range map[string]struct {
		path    string
		patches []disk.Patch
		why     string // "": it does not matter
	}{
		"at rest":                {path, nil, ""},
		"dirty":                  {path, dirtyFlag(t, path), ""},
		"never partitioned":      {path, []disk.Patch{{Off: 0, Data: first}}, ""},
		"hibernated":             {sleeping, nil, "partition 1: Windows is hibernated"},
		"hibernated and dirty":   {sleeping, dirtyFlag(t, sleeping), "partition 1: Windows is hibernated"},
		"a dynamic disk":         {path, []disk.Patch{{Off: 446 + 4, Data: []byte{0x42}}}, "dynamic disk"},
		"a table that is broken": {path, []disk.Patch{{Off: 0, Data: gpt}}, "its partitions cannot be read"},
		"NTFS that is broken":    {path, []disk.Patch{{Off: volumeStart + 48, Data: bytes.Repeat([]byte{0x7F}, 8)}}, "partition 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			other := disk.Disk{Name: "second.vmdk", Image: disk.Overlay(openDisk(t, c.path), c.patches)}
			left := LeaveOut(openDisk(t, path), Keep{}, disk.Disk{Name: "third.vmdk", Image: openDisk(t, path)}, other)
			switch {
			case c.why == "":
				if left.Ranges == nil || len(left.Kept) != 0 {
					t.Errorf("%+v", left)
				}
			case left.Ranges != nil || left.Free != 0 || len(left.Files) != 0 || len(left.Kept) != 1 ||
				!strings.Contains(left.Kept[0], c.why) || !strings.Contains(left.Kept[0], "second.vmdk"):
				t.Errorf("%+v", left)
			}
			if own := LeaveOut(other, Keep{}); c.why != "" && (own.Ranges != nil || len(own.Kept) != 1 || !strings.Contains(own.Kept[0], c.why)) {
				t.Errorf("of the disk itself: %+v", own)
			}
		})
	}
}

// Restore points read what the volume has free: of a disk with any, nothing is left out.
func TestNothingIsLeftOutThatShadowCopiesNeed(t *testing.T) {
	base, err := fs.ReadFile(machines.FS, phony.Base+".txtar")
	if err != nil {
		t.Fatal(err)
	}
	const folder, catalog = "System Volume Information/", "{3808876b-c176-4e48-b7ae-04046e6cc752}"
	for file, kept := range map[string]bool{
		folder + "tracking.log": false,
		folder + catalog:        false, // stays behind
		folder + "{8b3a2ef1-0000-11eb-8000-806e6f6e6963}" + strings.ToUpper(catalog): true,
	} {
		text := fmt.Sprintf("A machine.\n-- machine --\nbase = %s\ndisk = 4GiB\n-- files --\n%s = size 1MiB\n", phony.Base, file)
		m, err := phony.LoadFS(fstest.MapFS{phony.Base + ".txtar": {Data: base}, "shadowed.txtar": {Data: []byte(text)}}, "shadowed")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "disk.raw")
		if err := m.WriteRaw(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		left := LeaveOut(openDisk(t, path), Keep{})
		if kept && (left.Ranges != nil || left.Free != 0 || len(left.Files) != 0 || len(left.Kept) != 1 || !strings.Contains(left.Kept[0], "shadow copies")) || !kept && (left.Ranges == nil || left.Free == 0) {
			t.Errorf("%s: %+v", file, left)
		}
	}
}

// linked is the patch that gives a file a second name, as far as its record counts them.
func linked(t *testing.T, path, name string) []disk.Patch {
	t.Helper()
	img := openDisk(t, path)
	v, err := ntfs.Open(io.NewSectionReader(img, volumeStart, volumeBytes), volumeBytes)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := v.FS().Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	mft, err := v.Extents("$MFT")
	if err != nil || mft[0].Length < 1<<16 {
		t.Fatalf("%v: %v", mft, err)
	}
	return []disk.Patch{{Off: volumeStart + mft[0].VolumeOffset + fi.Sys().(*ntfs.Entry).Record*1024 + 18, Data: []byte{2}}}
}

// dirtyFlag is the patch that marks the volume dirty: the flags of $VOLUME_INFORMATION in record 3, a resident attribute of type 0x70.
func dirtyFlag(t *testing.T, path string) []disk.Patch {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	record := volumeStart + int64(le.Uint64(data[volumeStart+48:]))*4096 + 3*1024
	for a := record + int64(le.Uint16(data[record+20:])); le.Uint32(data[a:]) != 0xFFFFFFFF; a += int64(le.Uint32(data[a+4:])) {
		if le.Uint32(data[a:]) == 0x70 {
			at := a + int64(le.Uint16(data[a+20:])) + 10
			return []disk.Patch{{Off: at, Data: []byte{data[at] | 1}}}
		}
	}
	t.Fatal("no $VOLUME_INFORMATION")
	return nil
}

// Ranges are in order and do not overlap even where a file's clusters are free as well, and they end when the caller says so.
func TestRangesOfAHostileVolume(t *testing.T) {
	path, _ := ntfsDisk(t, nil)
	img := openDisk(t, path)
	v, err := ntfs.Open(io.NewSectionReader(img, volumeStart, volumeBytes), volumeBytes)
	if err != nil {
		t.Fatal(err)
	}
	r := &restingVolume{volume: v, start: volumeStart, cluster: 4096, total: volumeBytes/4096 - 1, free: 1}
	all := func(yield func(disk.Range, error) bool) { r.ranges(yield) }
	free := map[int64]bool{}
	for x := range all {
		for at := x.Start; at < x.Start+x.Length; at += 4096 {
			free[at] = true
		}
	}
	for range 300 {
		n := rand.Int64N(40)
		r.extents = append(r.extents, disk.Range{Start: volumeStart + rand.Int64N(r.total-n)*4096, Length: n * 4096})
	}
	slices.SortFunc(r.extents, func(a, b disk.Range) int { return int(a.Start - b.Start) })
	want := maps.Clone(free)
	for _, x := range r.extents {
		for at := x.Start; at < x.Start+x.Length; at += 4096 {
			want[at] = true
		}
	}
	got, end := map[int64]bool{}, int64(0)
	for x, err := range all {
		if err != nil || x.Start < end || x.Length <= 0 {
			t.Fatalf("%+v behind %d: %v", x, end, err)
		}
		end = x.Start + x.Length
		for at := x.Start; at < end; at += 4096 {
			got[at] = true
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d clusters, want %d", len(got), len(want))
	}
	n := 0
	for range all {
		if n++; n == 3 {
			break
		}
	}
}

// What cannot be read of the bitmap while it is gone through ends the copy.
func TestBitmapThatCannotBeRead(t *testing.T) {
	path, _ := ntfsDisk(t, nil)
	img := &failing{Image: openDisk(t, path)}
	left := LeaveOut(img, Keep{})
	if left.Ranges == nil {
		t.Fatal(left.Kept)
	}
	img.broken = true
	var last error
	for _, err := range left.Ranges {
		last = err
	}
	if !errors.Is(last, errFailing) {
		t.Errorf("%v", last)
	}
}

var errFailing = errors.New("input/output error")

type failing struct {
	disk.Image
	broken bool
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.broken {
		return 0, errFailing
	}
	return f.Image.ReadAt(p, off)
}
