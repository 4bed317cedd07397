package disk

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// vhdFooterFor writes a footer. kind is 2, 3 or 4, creator four letters.
func vhdFooterFor(size int64, kind uint32, creator string, headerAt uint64) []byte {
	p := make([]byte, 512)
	copy(p, vhdMagic)
	be.PutUint32(p[8:], 2)
	be.PutUint32(p[12:], 0x10000)
	be.PutUint64(p[16:], headerAt)
	copy(p[28:], creator)
	be.PutUint64(p[40:], uint64(size))
	be.PutUint64(p[48:], uint64(size))
	be.PutUint16(p[56:], uint16(size/512/16/63))
	p[58], p[59] = 16, 63
	be.PutUint32(p[60:], kind)
	be.PutUint32(p[64:], vhdChecksum(p, 64))
	return p
}

// dynamicVHD writes a dynamic disk with blocks of 4 KiB, whose bitmaps say what is written.
func dynamicVHD(guest []byte, kind uint32) []byte {
	const block = 4096
	n := (len(guest) + block - 1) / block
	foot := vhdFooterFor(int64(len(guest)), kind, "win ", 512)
	h := make([]byte, 1024)
	copy(h, vhdHeaderMagic)
	be.PutUint64(h[8:], ^uint64(0))
	be.PutUint64(h[16:], 1536)
	be.PutUint32(h[24:], 0x10000)
	be.PutUint32(h[28:], uint32(n))
	be.PutUint32(h[32:], block)
	be.PutUint32(h[36:], vhdChecksum(h, 36))
	bat := bytes.Repeat([]byte{0xff}, (n*4+511)/512*512)
	out := slices.Concat(foot, h, bat)
	for i := range n {
		data := guest[i*block : min(len(guest), (i+1)*block)]
		if firstNonZero(data) < 0 {
			continue
		}
		be.PutUint32(out[1536+i*4:], uint32(len(out)/512))
		bitmap, stored := make([]byte, 512), make([]byte, block)
		for s := 0; s*512 < len(data); s++ {
			sector := data[s*512 : (s+1)*512]
			if firstNonZero(sector) >= 0 {
				bitmap[s/8] |= 0x80 >> (s % 8)
				copy(stored[s*512:], sector)
			} else {
				copy(stored[s*512:], "left over from before the sector was trimmed")
			}
		}
		out = slices.Concat(out, bitmap, stored)
	}
	return append(out, foot...)
}

func TestVHDBitmap(t *testing.T) {
	guest := make([]byte, 1<<20+512)
	r := rand.New(rand.NewPCG(1, 1))
	for at := 0; at < len(guest); at += 512 {
		if r.IntN(3) == 0 || at/65536%2 == 0 {
			copy(guest[at:], fmt.Sprint("sector ", at))
		}
	}
	e, err := Open(bytes.NewReader(dynamicVHD(guest, 3)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	equalImage(t, e.Disks[0], guest)
	for _, x := range extents(t, e.Disks[0]) {
		if x.Kind == Data && firstNonZero(guest[x.Start:x.Start+512]) < 0 {
			t.Errorf("extent %+v was never written", x)
		}
	}
}

func TestVHDFooters(t *testing.T) {
	guest := guestDisk(1<<20+512, 8)
	dynamic := dynamicVHD(guest, 3)
	open := func(p []byte) (*Envelope, error) { return Open(bytes.NewReader(p), Options{Format: "VHD"}) }
	same := func(t *testing.T, p []byte, want []byte, warning string) {
		t.Helper()
		e, err := open(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(e.Warnings, " "); !strings.Contains(got, warning) || warning == "" && got != "" {
			t.Errorf("warnings %q, want %q", got, warning)
		}
		equalImage(t, e.Disks[0], want)
	}
	t.Run("whole", func(t *testing.T) { same(t, dynamic, guest, "") })
	t.Run("footer lost", func(t *testing.T) { same(t, dynamic[:len(dynamic)-512], guest, "copy at the beginning was used") })
	t.Run("footer of 511 bytes", func(t *testing.T) { same(t, dynamic[:len(dynamic)-1], guest, "") })
	t.Run("footer damaged", func(t *testing.T) {
		p := slices.Clone(dynamic)
		p[len(p)-512+50] ^= 1
		same(t, p, guest, "copy at the beginning was used")
	})
	t.Run("copy damaged", func(t *testing.T) {
		p := slices.Clone(dynamic)
		p[50] ^= 1
		same(t, p, guest, "the footer was used")
	})
	t.Run("both damaged", func(t *testing.T) {
		p := slices.Clone(dynamic)
		p[50] ^= 1
		p[len(p)-512+50] ^= 1
		_, err := open(p)
		wantRefusal(t, err, "VHD", Damaged, "footer checksum")
	})
	t.Run("not identical", func(t *testing.T) {
		p := slices.Clone(dynamic)
		copy(p[len(p)-512:], vhdFooterFor(int64(len(guest))-512, 3, "win ", 512))
		_, err := open(p)
		wantRefusal(t, err, "VHD", Damaged, "footer")
	})
	t.Run("differencing", func(t *testing.T) {
		_, err := open(dynamicVHD(guest, 4))
		wantRefusal(t, err, "VHD", RefersElsewhere, "disk type")
	})
	t.Run("unknown type", func(t *testing.T) {
		_, err := open(dynamicVHD(guest, 5))
		wantRefusal(t, err, "VHD", Unsupported, "disk type")
	})

	t.Run("fixed", func(t *testing.T) {
		same(t, append(slices.Clone(guest), vhdFooterFor(int64(len(guest)), 2, "win ", ^uint64(0))...), guest, "")
	})
	t.Run("fixed, geometry of VirtualPC", func(t *testing.T) {
		chs := len(guest) / 512 / 16 / 63 * 16 * 63 * 512
		p := append(slices.Clone(guest), vhdFooterFor(int64(len(guest)), 2, "vpc ", ^uint64(0))...)
		same(t, p, guest[:chs], "geometry was believed")
	})
	t.Run("fixed, too short", func(t *testing.T) {
		_, err := open(append(slices.Clone(guest), vhdFooterFor(int64(len(guest))+512, 2, "win ", ^uint64(0))...))
		wantRefusal(t, err, "VHD", Damaged, "current size")
	})
	t.Run("fixed, guest begins like qcow2", func(t *testing.T) {
		p := append(slices.Clone(guest), vhdFooterFor(int64(len(guest)), 2, "win ", ^uint64(0))...)
		copy(p, qcow2Magic)
		same(t, p, p[:len(guest)], "also looks like QCOW2")
	})
}

// vhdxPages are the places in plainVHDX's file that are not zeros, of 4096 bytes each, apart from the blocks.
var vhdxPages = []int64{0, 64 << 10, 128 << 10, 192 << 10, 256 << 10, 1 << 20, 1<<20 + 4096, 1<<20 + 8192, 1<<20 + 12288, 2 << 20, 2<<20 + 65536, 3 << 20}

const vhdxTestLog, vhdxTestMetadata, vhdxTestBAT, vhdxTestBlocks = 1 << 20, 2 << 20, 3 << 20, 4 << 20

func putGUID(p []byte, s string) {
	var a uint32
	var b, c uint16
	var d, e []byte
	if _, err := fmt.Sscanf(s, "%8X-%4X-%4X-%4X-%12X", &a, &b, &c, &d, &e); err != nil {
		panic(err)
	}
	le.PutUint32(p, a)
	le.PutUint16(p[4:], b)
	le.PutUint16(p[6:], c)
	copy(p[8:], d)
	copy(p[10:], e)
}

// plainVHDX writes a dynamic disk of blocks of 1 MiB without using any of the reader's code for it but checksums.
func plainVHDX(guest []byte, logicalSector uint32) []byte {
	n := (len(guest) + vhdxMiB - 1) / vhdxMiB
	out := make([]byte, vhdxTestBlocks)
	copy(out, vhdxMagic)
	for i, at := range []int{64 << 10, 128 << 10} {
		h := out[at:]
		copy(h, "head")
		le.PutUint64(h[8:], uint64(i+1))
		h[16], h[32] = 1, 2 // write GUIDs
		le.PutUint16(h[66:], 1)
		le.PutUint32(h[68:], vhdxMiB)
		le.PutUint64(h[72:], vhdxTestLog)
	}
	for _, at := range []int{192 << 10, 256 << 10} {
		r := out[at:]
		copy(r, "regi")
		le.PutUint32(r[8:], 2)
		for i, e := range []struct {
			id string
			at uint64
		}{{regionMetadata, vhdxTestMetadata}, {regionBAT, vhdxTestBAT}} {
			p := r[16+i*32:]
			putGUID(p, e.id)
			le.PutUint64(p[16:], e.at)
			le.PutUint32(p[24:], vhdxMiB)
			le.PutUint32(p[28:], 1)
		}
	}
	m := out[vhdxTestMetadata:]
	copy(m, "metadata")
	le.PutUint16(m[10:], 5)
	at := uint32(65536)
	for i, e := range []struct {
		id    string
		flags uint32
		data  []byte
	}{
		{itemFileParameters, 4, le.AppendUint64(nil, vhdxMiB)},
		{itemDiskSize, 6, le.AppendUint64(nil, uint64(len(guest)))},
		{itemDiskID, 6, make([]byte, 16)},
		{itemLogicalSector, 6, le.AppendUint32(nil, logicalSector)},
		{itemPhysicalSector, 6, le.AppendUint32(nil, 4096)},
	} {
		p := m[32+i*32:]
		putGUID(p, e.id)
		le.PutUint32(p[16:], at)
		le.PutUint32(p[20:], uint32(len(e.data)))
		le.PutUint32(p[24:], e.flags)
		copy(m[at:], e.data)
		at += uint32(len(e.data))
	}
	for i := range n {
		data := guest[i*vhdxMiB : min(len(guest), (i+1)*vhdxMiB)]
		if firstNonZero(data) < 0 {
			continue
		}
		le.PutUint64(out[vhdxTestBAT+i*8:], uint64(len(out)/vhdxMiB)<<20|vhdxFullyPresent)
		out = append(out, data...)
		out = append(out, make([]byte, -len(out)&(vhdxMiB-1))...)
	}
	mendVHDX(out)
	return out
}

// mendVHDX makes the checksums of headers and region tables right.
func mendVHDX(p []byte) {
	for _, r := range [][2]int{{64 << 10, vhdxHeaderSize}, {128 << 10, vhdxHeaderSize}, {192 << 10, vhdxRegionSize}, {256 << 10, vhdxRegionSize}} {
		if s := p[min(r[0], len(p)):]; len(s) >= r[1] {
			s = s[:r[1]]
			clear(s[4:8])
			le.PutUint32(s[4:], crc32.Checksum(s, castagnoli))
		}
	}
}

// logUpdate is a page or a range of zeros in a log entry.
type logUpdate struct {
	at    int64
	page  []byte
	zeros int64
}

const testLogGUID = "11223344-5566-7788-99AA-BBCCDDEEFF00"

// writeLogEntry writes an entry at pos of the ring that is 1 MiB at vhdxTestLog, and returns where it ends.
func writeLogEntry(file []byte, pos, tail int64, sequence uint64, id string, updates ...logUpdate) int64 {
	e := make([]byte, (64+len(updates)*32+4095)/4096*4096)
	for i, u := range updates {
		d := e[64+i*32:]
		le.PutUint64(d[16:], uint64(u.at))
		le.PutUint64(d[24:], sequence)
		if u.page == nil {
			copy(d, "zero")
			le.PutUint64(d[8:], uint64(u.zeros))
			continue
		}
		copy(d, "desc")
		copy(d[4:8], u.page[4092:])
		copy(d[8:16], u.page[:8])
		s := make([]byte, 4096)
		copy(s, "data")
		le.PutUint32(s[4:], uint32(sequence>>32))
		copy(s[8:4092], u.page[8:4092])
		le.PutUint32(s[4092:], uint32(sequence))
		e = append(e, s...)
	}
	copy(e, "loge")
	le.PutUint32(e[8:], uint32(len(e)))
	le.PutUint32(e[12:], uint32(tail))
	le.PutUint64(e[16:], sequence)
	le.PutUint32(e[24:], uint32(len(updates)))
	putGUID(e[32:], id)
	le.PutUint64(e[48:], uint64(len(file)))
	le.PutUint64(e[56:], uint64(len(file)))
	le.PutUint32(e[4:], crc32.Checksum(e, castagnoli))
	for i := range e {
		file[vhdxTestLog+(pos+int64(i))%vhdxMiB] = e[i]
	}
	return (pos + int64(len(e))) % vhdxMiB
}

func TestVHDXOfOurOwn(t *testing.T) {
	for _, logical := range []uint32{512, 4096} {
		guest := guestDisk(5<<20+4096, 9)
		clear(guest[2<<20 : 3<<20])
		file := plainVHDX(guest, logical)
		e, err := Open(bytes.NewReader(file), Options{})
		if err != nil {
			t.Fatal(err)
		}
		equalImage(t, e.Disks[0], guest)
		if logical != 512 {
			continue // QEMU reads no others
		}
		dir := t.TempDir()
		path, back := filepath.Join(dir, "a.vhdx"), filepath.Join(dir, "raw")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		qemuImg(t, "convert", "-f", "vhdx", "-O", "raw", path, back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, guest) {
			t.Errorf("QEMU reads something else: %v", err)
		}
	}
}

// dirtyVHDX is a disk whose log has to be replayed to read guest, starting at byte start of the ring. In the file and in
// entries that must not be replayed is rubbish. One entry has many descriptors.
func dirtyVHDX(guest []byte, start, many int64) []byte {
	file := plainVHDX(guest, 512)
	clean := slices.Clone(file)
	rubbish := bytes.Repeat([]byte("rubbish!"), 512)
	page := func(at int64) logUpdate { return logUpdate{at: at, page: clean[at : at+4096]} }

	// Pages that the log holds: the BAT, the metadata's items, a page of a block; zeros for the rest of the BAT's region.
	for _, at := range []int64{vhdxTestBAT, vhdxTestMetadata + 65536, vhdxTestBlocks + 8192, vhdxTestBAT + 4096, vhdxTestBAT + 8192} {
		copy(file[at:], rubbish)
	}
	clear(file[vhdxTestMetadata+65536:][:4096]) // no valid items
	bad := func(at int64) logUpdate { return logUpdate{at: at, page: rubbish} }

	// An older run with the same id, and an entry of another id with a higher number: both stay out.
	other := (start + vhdxMiB/2) % vhdxMiB
	writeLogEntry(file, other, other, 3, testLogGUID, bad(vhdxTestBAT))
	writeLogEntry(file, (other+65536)%vhdxMiB, (other+65536)%vhdxMiB, 900, "99999999-5566-7788-99AA-BBCCDDEEFF00", bad(vhdxTestBAT))

	pos := start
	tail := writeLogEntry(file, pos, pos, 100, testLogGUID, bad(vhdxTestBlocks+8192), bad(vhdxTestBlocks+16384)) // before the tail: written already
	pos = writeLogEntry(file, tail, tail, 101, testLogGUID, logUpdate{at: vhdxTestBAT, zeros: 65536}, bad(vhdxTestBlocks+8192), page(vhdxTestMetadata+65536))
	pos = writeLogEntry(file, pos, tail, 102, testLogGUID, page(vhdxTestBAT), bad(vhdxTestBAT+4096), page(vhdxTestBlocks+8192))
	var pages []logUpdate
	for i := range many {
		pages = append(pages, page(vhdxTestBlocks+4096*i))
	}
	pos = writeLogEntry(file, pos, tail, 103, testLogGUID, pages...)
	writeLogEntry(file, pos, tail, 104, testLogGUID, logUpdate{at: vhdxTestBAT + 4096, zeros: 4096})
	putGUID(file[128<<10+48:], testLogGUID)
	mendVHDX(file)
	return file
}

func TestVHDXLogReplay(t *testing.T) {
	guest := guestDisk(3<<20+512, 10)
	for _, c := range []struct {
		start, many int64
		qemu        bool
	}{
		{0, 126, true}, {4096, 126, true}, {vhdxMiB - 4096, 126, true},
		// QEMU 7.2 also replays what is before the tail, and refuses an entry that goes around the end of the ring behind
		// its first sector, or whose descriptors take two sectors.
		{0, 1, false}, {vhdxMiB - 16384, 126, false}, {vhdxMiB - 40960, 126, false}, {vhdxMiB - 40960, 127, false}, {0, 150, false},
	} {
		t.Run(fmt.Sprintf("%d,%d", c.start, c.many), func(t *testing.T) {
			file := dirtyVHDX(guest, c.start, c.many)
			e, err := Open(bytes.NewReader(file), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0], "4 entries of its log") {
				t.Errorf("warnings %q", e.Warnings)
			}
			if e.Disks[0].Length != int64(len(file)) {
				t.Errorf("length %d, the file has %d", e.Disks[0].Length, len(file))
			}
			equalImage(t, e.Disks[0], guest)

			if !c.qemu {
				return
			}
			// QEMU replays the same log into a copy of the file.
			dir := t.TempDir()
			path, back := filepath.Join(dir, "a.vhdx"), filepath.Join(dir, "raw")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", "vhdx", "-c", "read 0 512", path).CombinedOutput(); err != nil {
				t.Fatalf("qemu-io: %v\n%s", err, out)
			}
			qemuImg(t, "convert", "-f", "vhdx", "-O", "raw", path, back)
			if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, guest) {
				t.Errorf("QEMU replays something else: %v", err)
			}
		})
	}
}

func TestVHDXLogThatCannotBeReplayed(t *testing.T) {
	guest := guestDisk(1<<20, 11)
	t.Run("no entry", func(t *testing.T) {
		file := plainVHDX(guest, 512)
		putGUID(file[128<<10+48:], testLogGUID)
		mendVHDX(file)
		_, err := Open(bytes.NewReader(file), Options{})
		wantRefusal(t, err, "VHDX", Damaged, "log")
	})
	t.Run("the last entry is torn", func(t *testing.T) {
		file := dirtyVHDX(guest, 0, 1)
		file[bytes.LastIndex(file[:vhdxTestLog+vhdxMiB/2], []byte("loge"))+100] ^= 1
		e, err := Open(bytes.NewReader(file), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(e.Warnings, ""), "3 entries of its log") {
			t.Errorf("warnings %q", e.Warnings)
		}
	})
	t.Run("the file is cut off", func(t *testing.T) {
		file := dirtyVHDX(guest, 0, 126)
		_, err := Open(bytes.NewReader(file[:len(file)-512]), Options{})
		wantRefusal(t, err, "VHDX", Damaged, "log")
	})
	t.Run("too long", func(t *testing.T) {
		file := dirtyVHDX(guest, 0, 126)
		le.PutUint32(file[128<<10+68:], 128<<20)
		mendVHDX(file)
		_, err := Open(bytes.NewReader(file), Options{})
		wantRefusal(t, err, "VHDX", Unsupported, "log length")
	})
	t.Run("beyond the file", func(t *testing.T) {
		file := dirtyVHDX(guest, 0, 126)
		le.PutUint64(file[128<<10+72:], 1<<62)
		mendVHDX(file)
		_, err := Open(bytes.NewReader(file), Options{})
		wantRefusal(t, err, "VHDX", Damaged, "log")
	})
	t.Run("entries over each other", func(t *testing.T) {
		// Each sector begins an entry that is as long as the ring and has a wrong checksum.
		file := plainVHDX(guest, 512)
		for at := int64(0); at < vhdxMiB; at += 4096 {
			e := file[vhdxTestLog+at:]
			copy(e, "loge")
			le.PutUint32(e[8:], vhdxMiB)
			le.PutUint64(e[16:], uint64(at+1))
			putGUID(e[32:], testLogGUID)
		}
		putGUID(file[128<<10+48:], testLogGUID)
		mendVHDX(file)
		_, err := Open(bytes.NewReader(file), Options{})
		wantRefusal(t, err, "VHDX", Damaged, "log")
		if !strings.Contains(err.Error(), "overlap") {
			t.Error(err)
		}
	})
	t.Run("an entry for byte 2^63", func(t *testing.T) {
		file := plainVHDX(guest, 512)
		writeLogEntry(file, 0, 0, 1, testLogGUID, logUpdate{at: -4096, page: make([]byte, 4096)})
		putGUID(file[128<<10+48:], testLogGUID)
		mendVHDX(file)
		_, err := Open(bytes.NewReader(file), Options{})
		wantRefusal(t, err, "VHDX", Damaged, "log")
	})
}
