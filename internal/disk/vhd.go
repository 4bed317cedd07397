package disk

import (
	"bytes"
	"fmt"
	"math/bits"
)

// VHD, as Microsoft's "Virtual Hard Disk Image Format Specification" 1.0 describes it. Numbers are big endian.
//
//	fixed     | the guest's bytes                                             | footer |
//	dynamic   | copy of the footer | header | BAT | bitmap, block | bitmap, ... | footer |
//
//	footer  0 "conectix"  8 features  12 version  16 header at  24 time  28 creator  48 current size
//	        56 cylinders, heads, sectors  60 type (2 fixed, 3 dynamic, 4 differencing)  64 checksum  68 id
//	header  0 "cxsparse"  16 BAT at  24 version  28 BAT entries  32 block size  36 checksum  64 parent's name
//	BAT     for each block the sector of its bitmap and bytes, all ones: never written
//	bitmap  one bit for each sector of the block, highest bit first: 0 never written
const (
	vhdMagic       = "conectix"
	vhdHeaderMagic = "cxsparse"
	vhdFooter      = 512 // bytes
	// vhdOldFooter is the length of the footer that Virtual PC wrote before 2004.
	vhdOldFooter = 511
	vhdHeader    = 1024

	vhdFixed, vhdDynamic, vhdDifferencing = 2, 3, 4

	// vhdMaxBlock bounds a block, in bytes. The default is 2 MiB; the specification sets no bound.
	vhdMaxBlock = 1 << 30
	vhdFree     = 0xffffffff
)

// vhdTail is the byte at which the footer at the end of the file begins; -1: there is none.
func vhdTail(src Source) int64 {
	for _, n := range []int64{vhdFooter, vhdOldFooter} {
		if at := src.Size() - n; at >= 0 && begins(src, at, vhdMagic) {
			return at
		}
	}
	return -1
}

func isVHD(src Source) bool {
	return vhdTail(src) >= 0 || begins(src, 0, vhdMagic)
}

type vhdFoot struct {
	at         int64
	raw        []byte
	size       uint64 // bytes
	kind       uint32
	headerAt   uint64
	warnings   []string
	savedState bool
}

func openVHD(f *file, opt Options) (*Envelope, error) {
	foot, err := findVHDFooter(f)
	if err != nil {
		return nil, err
	}
	// A parent is a reference to another file: nothing else matters.
	switch foot.kind {
	case vhdFixed, vhdDynamic:
	case vhdDifferencing:
		return nil, f.refuse(RefersElsewhere, "disk type", foot.at+60, "differencing: the disk is a snapshot of another; merge and export it")
	default:
		return nil, f.refuse(Unsupported, "disk type", foot.at+60, "type %d, known are 2 (fixed) and 3 (dynamic)", foot.kind)
	}
	if err := f.checkSize(foot.size, "current size", foot.at+48, opt); err != nil {
		return nil, err
	}
	if foot.savedState {
		foot.warnings = append(foot.warnings, "The disk belongs to a machine in saved state: what its guest wrote last may be missing.")
	}
	if foot.kind == vhdFixed {
		if int64(foot.size) > foot.at {
			return nil, f.refuse(Damaged, "current size", foot.at+48, "%d bytes, but the footer is at byte %d", foot.size, foot.at)
		}
		return single(f, "fixed", int64(foot.size), flat{f, 0, "disk"}, foot.warnings...), nil
	}
	v, err := openDynamicVHD(f, foot)
	if err != nil {
		return nil, err
	}
	return single(f, "dynamic", int64(foot.size), v, foot.warnings...), nil
}

// findVHDFooter reads the footer at the end, or the copy at the beginning of a dynamic disk if that is broken.
func findVHDFooter(f *file) (*vhdFoot, error) {
	var tail, head *vhdFoot
	var tailErr, headErr error
	if at := vhdTail(f.src); at >= 0 {
		tail, tailErr = readVHDFooter(f, at)
	}
	if begins(f.src, 0, vhdMagic) && (tail == nil || tail.kind != vhdFixed) {
		head, headErr = readVHDFooter(f, 0)
	}
	switch {
	case tail != nil && tail.kind == vhdFixed:
		return tail, nil
	case tail != nil && head != nil:
		if !bytes.Equal(tail.raw[:vhdOldFooter], head.raw[:vhdOldFooter]) {
			// VM Import says so, too: "ClientError: Footers not identical".
			return nil, f.refuse(Damaged, "footer", tail.at, "footers not identical: the one at the end and its copy at the beginning disagree")
		}
		return tail, nil
	case tail != nil:
		if headErr == nil {
			headErr = f.refuse(Damaged, "footer", 0, "there is no copy of the footer at the beginning")
		}
		tail.warnings = append(tail.warnings, fmt.Sprintf("The copy of the footer is broken (%v); the footer was used.", headErr))
		return tail, nil
	case head != nil && head.kind == vhdFixed:
		return nil, f.refuse(Damaged, "footer", 0, "a fixed disk has its footer at the end, but this file begins with one: it is cut off or joined from pieces")
	case head != nil:
		if tailErr == nil {
			tailErr = f.refuse(Damaged, "footer", f.size, "there is none at the end: the file may be cut off")
		}
		head.warnings = append(head.warnings, fmt.Sprintf("The footer is broken (%v); its copy at the beginning was used.", tailErr))
		return head, nil
	case tailErr != nil:
		return nil, tailErr
	case headErr != nil:
		return nil, headErr
	}
	return nil, f.refuse(NotADisk, "footer", -1, "there is none")
}

func readVHDFooter(f *file, at int64) (*vhdFoot, error) {
	p := make([]byte, vhdFooter)
	n := min(vhdFooter, f.size-at)
	if err := f.readFull(p[:n], at, "footer"); err != nil {
		return nil, err
	}
	if got, want := vhdChecksum(p, 64), be.Uint32(p[64:]); got != want {
		return nil, f.refuse(Damaged, "footer checksum", at+64, "%08x, computed %08x", want, got)
	}
	if v := be.Uint32(p[12:]); v>>16 != 1 {
		return nil, f.refuse(Unsupported, "version", at+12, "%d.%d, known is 1.0", v>>16, v&0xffff)
	}
	foot := &vhdFoot{at: at, raw: p, size: be.Uint64(p[48:]), kind: be.Uint32(p[60:]), headerAt: be.Uint64(p[16:]), savedState: p[84] != 0}
	// Virtual PC, Virtual Server and QEMU give the guest the disk of the geometry, which may be smaller than the current
	// size; everyone else the current size. Above the largest geometry (127.5 GiB) it says nothing.
	switch string(p[28:32]) {
	case "vpc ", "vs  ", "qemu":
		chs := uint64(be.Uint16(p[56:])) * uint64(p[58]) * uint64(p[59])
		if chs != 0 && chs != 65535*16*255 && chs*sector < foot.size {
			foot.warnings = append(foot.warnings, fmt.Sprintf("The footer says %d bytes, its geometry %d: the geometry was believed, as its creator %q does.", foot.size, chs*sector, p[28:32]))
			foot.size = chs * sector
		}
	}
	return foot, nil
}

// vhdChecksum is the ones' complement of the sum of all bytes but the checksum's own, which are at byte at.
func vhdChecksum(p []byte, at int) uint32 {
	var sum uint32
	for i, b := range p {
		if i < at || i >= at+4 {
			sum += uint32(b)
		}
	}
	return ^sum
}

// vhd is the layout of a dynamic disk.
type vhd struct {
	f      *file
	bat    int64 // byte
	block  int64 // bytes
	bitmap int64 // bytes of a block's bitmap, whole sectors
	blocks int64
}

func openDynamicVHD(f *file, foot *vhdFoot) (*vhd, error) {
	if foot.headerAt > 1<<62 {
		return nil, f.refuse(Damaged, "dynamic header", foot.at+16, "byte %d lies beyond the file's end at byte %d", foot.headerAt, f.size)
	}
	at := int64(foot.headerAt)
	h, err := f.bytes("dynamic header", at, vhdHeader)
	if err != nil {
		return nil, err
	}
	if string(h[:8]) != vhdHeaderMagic {
		return nil, f.refuse(Damaged, "dynamic header", at, "%q, it begins with %q", h[:8], vhdHeaderMagic)
	}
	if got, want := vhdChecksum(h, 36), be.Uint32(h[36:]); got != want {
		return nil, f.refuse(Damaged, "dynamic header checksum", at+36, "%08x, computed %08x", want, got)
	}
	if v := be.Uint32(h[24:]); v>>16 != 1 {
		return nil, f.refuse(Unsupported, "dynamic header version", at+24, "%d.%d, known is 1.0", v>>16, v&0xffff)
	}
	block := be.Uint32(h[32:])
	if bits.OnesCount32(block) != 1 || block < sector || block > vhdMaxBlock {
		return nil, f.refuse(Damaged, "block size", at+32, "%d bytes: not a power of two from 512 to %d", block, vhdMaxBlock)
	}
	v := &vhd{f: f, block: int64(block)}
	v.bitmap = (v.block/sector/8 + sector - 1) / sector * sector
	v.blocks = (int64(foot.size) + v.block - 1) / v.block
	if n := int64(be.Uint32(h[28:])); n < v.blocks {
		return nil, f.refuse(Damaged, "BAT entries", at+28, "%d, the disk's size needs %d", n, v.blocks)
	}
	bat := be.Uint64(h[16:])
	if bat%4 != 0 || bat > 1<<62 || !f.holds(int64(bat), v.blocks*4) {
		return nil, f.refuse(Damaged, "BAT", at+16, "%d entries at byte %d: misplaced, or beyond the file's end at byte %d", v.blocks, bat, f.size)
	}
	v.bat = int64(bat)
	return v, nil
}

func (v *vhd) locate(off, max int64) (stretch, error) {
	index, head := off/v.block, off%v.block
	bat, err := v.f.table("BAT", v.bat+index*4, 4, (v.blocks-index)*4)
	if err != nil {
		return stretch{}, err
	}
	entry := be.Uint32(bat)
	if entry == vhdFree {
		n := int64(1)
		for bat = bat[4:]; len(bat) >= 4 && be.Uint32(bat) == vhdFree; bat = bat[4:] {
			n++
		}
		return stretch{length: n*v.block - head, kind: Unallocated}, nil
	}
	at := int64(entry) * sector
	first := head / sector
	bitmap, err := v.f.table("block bitmap", at+first/8, 1, (v.block/sector+7)/8-first/8)
	if err != nil {
		return stretch{}, err
	}
	// The run of sectors that are all written, or all not.
	written := bitmap[0]>>(7-first%8)&1 != 0
	whole := byte(0)
	if written {
		whole = 0xff
	}
	n := int64(0)
	last := min(v.block/sector, (int64(len(bitmap))+first/8)*8) // first sector that this part of the bitmap does not tell of
	for s := first; s < last && n*sector < max+sector; {
		b := bitmap[s/8-first/8]
		if s%8 == 0 && b == whole && s+8 <= last {
			s, n = s+8, n+8
			continue
		}
		if (b>>(7-s%8)&1 != 0) != written {
			break
		}
		s, n = s+1, n+1
	}
	s := stretch{length: n*sector - off%sector, kind: Unallocated}
	if written {
		s.kind, s.file, s.at, s.what = Data, v.f, at+v.bitmap+head, "block"
	}
	return s, nil
}
