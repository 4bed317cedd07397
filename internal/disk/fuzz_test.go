package disk

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"

	"berth/testdata/hostile"
)

// A fuzzer that has to find checksums finds nothing else, and one that has to carry megabytes of zeros is slow. What
// FuzzOpen is given is therefore made into a file: checksums are made right, and a VHDX is its pages without the zeros
// between them.

// packed is the input for FuzzOpen that becomes file.
func packed(file []byte) []byte {
	if !bytes.HasPrefix(file, []byte(vhdxMagic)) {
		return file
	}
	var out []byte
	for _, at := range vhdxPages {
		out = append(out, file[at:at+4096]...)
	}
	return append(out, file[vhdxTestBlocks:min(len(file), vhdxTestBlocks+8192)]...)
}

// unpacked is the file that FuzzOpen's input stands for.
func unpacked(data []byte) []byte {
	file := slices.Clone(data)
	if bytes.HasPrefix(data, []byte(vhdxMagic)) {
		file = make([]byte, vhdxTestBlocks+2*vhdxMiB)
		rest := data
		for _, at := range vhdxPages {
			n := copy(file[at:at+4096], rest)
			rest = rest[n:]
		}
		copy(file[vhdxTestBlocks:], rest)
		mendVHDX(file)
		mendLog(file)
	}
	n := len(file)
	for _, at := range []int{0, n - 512} {
		if at >= 0 && at+512 <= n && string(file[at:at+8]) == vhdMagic {
			be.PutUint32(file[at+64:], vhdChecksum(file[at:at+512], 64))
		}
	}
	if n >= 1536 && string(file[512:520]) == vhdHeaderMagic {
		be.PutUint32(file[512+36:], vhdChecksum(file[512:1536], 36))
	}
	for _, size := range []int64{512, 4096} {
		mendGPT(file, size, size)
		mendGPT(file, int64(n)/size*size-size, size)
	}
	return file
}

// mendLog makes the checksums of log entries right that do not go around the end of the ring.
func mendLog(file []byte) {
	ring := file[vhdxTestLog : vhdxTestLog+vhdxMiB]
	for at := 0; at < len(ring); at += 4096 {
		e := ring[at:]
		if string(e[:4]) != "loge" {
			continue
		}
		if n := int64(le.Uint32(e[8:])); n >= 4096 && n <= int64(len(e)) {
			clear(e[4:8])
			le.PutUint32(e[4:], vhdxChecksum(e[:n]))
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, file := range samples(f) {
		if len(file) < 64<<10 || bytes.HasPrefix(file, []byte(vhdxMagic)) {
			f.Add(packed(file))
		}
	}
	for _, h := range hostileFiles(f) {
		if p := packed(h.file); len(p) < 64<<10 {
			f.Add(p)
		}
	}
	// Small enough to be tried often.
	guest := guestDisk(20<<10+512, 3)
	clear(guest[4096:12288])
	esx := streamVMDK(guest, small)
	f.Add(plainQCOW2(guest))
	f.Add(streamVMDK(guest, atFront))
	f.Add(esx)
	f.Add(dynamicVHD(guest, 3))
	f.Add(append(slices.Clone(guest), vhdFooterFor(int64(len(guest)), 2, "vpc ", 0)...))
	f.Add(gptDisk(80, 512, windowsRows[0]))
	f.Add(packed(dirtyVHDX(guest, 0, 1)))
	f.Add([]byte("# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\nRW 8 FLAT \"a\" 0\nRW 8 ZERO\nRW 80 SPARSE \"b\"\n"))
	f.Add(vmwareOVF("a", "b"))
	files := []tarFile{{"a.ovf", vmwareOVF("a.vmdk", "b.vhd")}, {"a.vmdk", esx}, {"b.vhd", dynamicVHD(guest, 3)}}
	f.Add(writeTar(f, tar.FormatUSTAR, append(files, tarFile{"a.mf", manifestOf("SHA512", files...)})...))

	siblings := map[string][]byte{"a": guest, "b": esx}
	f.Fuzz(func(t *testing.T, data []byte) {
		file := unpacked(data)
		hostile.Bounded(t, int64(len(file)), func() {
			e, err := Open(bytes.NewReader(file), Options{Siblings: func(name string) (Source, error) {
				if p, ok := siblings[name]; ok {
					return bytes.NewReader(p), nil
				}
				return nil, fs.ErrNotExist
			}})
			if err != nil {
				sound(t, err)
				return
			}
			for i, d := range e.Disks {
				if i == 3 {
					break
				}
				probe(t, d, int64(len(file)))
			}
			if err := e.Verify(t.Context(), nil); err != nil && !errors.Is(err, ErrNoManifest) {
				sound(t, err)
			}
		})
	})
}

// sound checks that an error is a Refusal with all that it should have.
func sound(t *testing.T, err error) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("%v (%T) is no refusal", err, err)
	}
	if r.Format == "" || r.Reason == "" || r.Field == "" || r.Detail == "" {
		t.Fatalf("%+v is not complete", r)
	}
}

// probe reads a disk here and there and walks its extents, as far as is quick.
func probe(t *testing.T, d Disk, length int64) {
	size := d.Size()
	if size <= 0 || size > DefaultMaxSize || d.Offset < 0 || d.Length < 0 || d.Offset+d.Length > length {
		t.Fatalf("%d bytes at %d+%d of %d", size, d.Offset, d.Length, length)
	}
	at, ended := int64(0), false
	n := 0
	p := make([]byte, 3000)
	for x, err := range d.Extents() {
		if ended {
			t.Fatal("extents after an error")
		}
		if err != nil {
			sound(t, err)
			ended = true
			continue
		}
		if x.Start != at || x.Length <= 0 || x.Length > size-at || x.Kind < Data || x.Kind > Unallocated {
			t.Fatalf("extent %+v, expected one at %d", x, at)
		}
		at += x.Length
		if n++; n > 20 {
			continue
		}
		for _, off := range []int64{x.Start, x.Start + x.Length/2, x.Start + x.Length - 1} {
			n, err := d.ReadAt(p, off)
			if err != nil && !errors.Is(err, io.EOF) {
				sound(t, err)
			} else if n != int(min(int64(len(p)), size-off)) {
				t.Fatalf("%d bytes at %d of %d", n, off, size)
			} else if k := min(int64(n), x.Start+x.Length-off); (x.Kind == Zero || x.Kind == Unallocated) && firstNonZero(p[:k]) >= 0 {
				t.Fatalf("extent %+v is not zero", x)
			}
		}
	}
	if !ended && at != size {
		t.Fatalf("extents end at %d, the disk at %d", at, size)
	}
	table, err := Partitions(d)
	if err != nil {
		sound(t, err)
		return
	}
	for _, e := range table.Entries {
		if e.Start < 0 || e.Length <= 0 || e.Start > size || e.Length > size-e.Start || e.Number < 1 {
			t.Fatalf("partition %+v of a disk of %d bytes", e, size)
		}
	}
}
