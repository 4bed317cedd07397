package disk

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
)

// VHDX, as Microsoft's [MS-VHDX] describes it. Numbers are little endian; the GUIDs are written as Microsoft does.
//
//	0      64K     128K    192K    256K    1M
//	+------+-------+-------+-------+-------+-----+----------+-----+--------+---
//	| file | header| header| region| region| log | metadata | BAT | block  | ...
//	| id   |   1   |   2   | table | copy  |     |          |     |        |
//	+------+-------+-------+-------+-------+-----+----------+-----+--------+---
//
//	header   0 "head"  4 CRC  8 sequence  48 log GUID (0: log empty)  64 log version  66 version  68 log length  72 log at
//	regions  0 "regi"  4 CRC  8 entries, from 16 on: GUID, at, length, required
//	metadata 0 "metadata"  10 entries, from 32 on: GUID, at (in the region), length, flags
//	BAT      for each block: state (bits 0-2) and megabyte (bits 20-63); after each chunk an entry for a sector bitmap,
//	         which only disks with a parent use
const (
	vhdxMagic = "vhdxfile"

	vhdxHeaderSize = 4096
	vhdxRegionSize = 64 << 10
	vhdxMiB        = 1 << 20

	regionBAT      = "2DC27766-F623-4200-9D64-115E9BFD4A08"
	regionMetadata = "8B7CA206-4790-4B9A-B8FE-575F050F886E"

	itemFileParameters = "CAA16737-FA36-4D43-B3B6-33F0AA44E76B"
	itemDiskSize       = "2FA54224-CD1B-4876-B211-5DBED83BF4B8"
	itemDiskID         = "BECA12AB-B2E6-4523-93EF-C309E000C746"
	itemLogicalSector  = "8141BF1D-A96F-4709-BA47-F233A8FAAB5F"
	itemPhysicalSector = "CDA348C7-445D-4471-9CC9-E9885251C556"
	itemParentLocator  = "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C"

	noGUID = "00000000-0000-0000-0000-000000000000"
)

// States of a block in the BAT.
const (
	vhdxNotPresent       = 0
	vhdxUndefined        = 1
	vhdxZero             = 2
	vhdxUnmapped         = 3
	vhdxFullyPresent     = 6
	vhdxPartiallyPresent = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func isVHDX(src Source) bool { return begins(src, 0, vhdxMagic) }

type vhdxHeader struct {
	at                  int64
	sequence            uint64
	logGUID             string
	logVersion, version uint16
	logLength           uint32
	logAt               uint64
}

// vhdx is the layout of a fixed or dynamic disk.
type vhdx struct {
	f      *file
	bat    int64 // byte
	block  int64 // bytes
	chunk  int64 // blocks between two entries for sector bitmaps
	blocks int64
}

func openVHDX(f *file, opt Options) (*Envelope, error) {
	h, warnings, err := readVHDXHeaders(f)
	if err != nil {
		return nil, err
	}
	if h.version != 1 {
		return nil, f.refuse(Unsupported, "version", h.at+66, "version %d, known is 1", h.version)
	}
	length := f.size
	if h.logGUID != noGUID {
		// The log is written to a disk that is in use: what it says is put over the file, in memory, before anything else is read.
		over, n, err := replayVHDXLog(f, h)
		if err != nil {
			return nil, err
		}
		f = newFile(over, f.format, f.mem)
		warnings = append(warnings, fmt.Sprintf("The disk was not closed properly: %d entries of its log were replayed in memory. Its guest's last writes may be missing.", n))
	}
	regions, err := readVHDXRegions(f)
	if err != nil {
		return nil, err
	}
	m, err := readVHDXMetadata(f, regions[regionMetadata])
	if err != nil {
		return nil, err
	}
	if err := f.checkSize(m.size, "virtual disk size", m.sizeAt, opt); err != nil {
		return nil, err
	}
	if m.size%m.logicalSector != 0 {
		return nil, f.refuse(Damaged, "virtual disk size", m.sizeAt, "%d bytes is not a whole number of %d-byte sectors", m.size, m.logicalSector)
	}
	if m.logicalSector != sector {
		warnings = append(warnings, fmt.Sprintf("The disk has sectors of %d bytes.", m.logicalSector))
	}
	v := &vhdx{f: f, block: int64(m.block), chunk: int64(1 << 23 * m.logicalSector / m.block)}
	v.blocks = (int64(m.size) + v.block - 1) / v.block
	bat := regions[regionBAT]
	if need := (v.blocks + (v.blocks-1)/v.chunk) * 8; need > bat.length {
		return nil, f.refuse(Damaged, "BAT", bat.at, "%d bytes, the disk's size needs %d", bat.length, need)
	}
	v.bat = bat.at
	subFormat := "dynamic"
	if m.fixed {
		subFormat = "fixed"
	}
	e := single(f, subFormat, int64(m.size), v, warnings...)
	e.Disks[0].Length = length
	return e, nil
}

// readVHDXHeaders returns the current one of the two headers: of those whose checksum is right that with the higher sequence number.
func readVHDXHeaders(f *file) (*vhdxHeader, []string, error) {
	var current *vhdxHeader
	var warnings []string
	var first error
	for _, at := range []int64{64 << 10, 128 << 10} {
		h, err := readVHDXHeader(f, at)
		if err != nil {
			if !isRefusal(err) {
				return nil, nil, err
			}
			if first == nil {
				first = err
			}
			warnings = append(warnings, fmt.Sprintf("One of the two headers is broken (%v); the other was used.", err))
			continue
		}
		if current == nil || h.sequence > current.sequence {
			current = h
		}
	}
	if current == nil {
		return nil, nil, first
	}
	return current, warnings, nil
}

func readVHDXHeader(f *file, at int64) (*vhdxHeader, error) {
	p, err := f.bytes("header", at, vhdxHeaderSize)
	if err != nil {
		return nil, err
	}
	if string(p[:4]) != "head" {
		return nil, f.refuse(Damaged, "header", at, "%q, it begins with %q", p[:4], "head")
	}
	if got, want := vhdxChecksum(p), le.Uint32(p[4:]); got != want {
		return nil, f.refuse(Damaged, "header checksum", at+4, "%08x, computed %08x", want, got)
	}
	return &vhdxHeader{
		at: at, sequence: le.Uint64(p[8:]), logGUID: guid(p[48:]), logVersion: le.Uint16(p[64:]), version: le.Uint16(p[66:]),
		logLength: le.Uint32(p[68:]), logAt: le.Uint64(p[72:]),
	}, nil
}

// vhdxChecksum is the CRC-32C of p, whose bytes 4 to 7, where it is stored, count as zero.
func vhdxChecksum(p []byte) uint32 {
	var zero [4]byte
	crc := crc32.Update(0, castagnoli, p[:4])
	crc = crc32.Update(crc, castagnoli, zero[:])
	return crc32.Update(crc, castagnoli, p[8:])
}

type vhdxRegion struct{ at, length int64 }

// readVHDXRegions reads the region table, or its copy if that is broken.
func readVHDXRegions(f *file) (map[string]vhdxRegion, error) {
	var first error
	for _, at := range []int64{192 << 10, 256 << 10} {
		regions, err := readVHDXRegionTable(f, at)
		if err == nil {
			return regions, nil
		}
		if r := (*Refusal)(nil); !errors.As(err, &r) || r.Reason != Damaged {
			return nil, err
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func readVHDXRegionTable(f *file, at int64) (map[string]vhdxRegion, error) {
	p, err := f.bytes("region table", at, vhdxRegionSize)
	if err != nil {
		return nil, err
	}
	if string(p[:4]) != "regi" {
		return nil, f.refuse(Damaged, "region table", at, "%q, it begins with %q", p[:4], "regi")
	}
	if got, want := vhdxChecksum(p), le.Uint32(p[4:]); got != want {
		return nil, f.refuse(Damaged, "region table checksum", at+4, "%08x, computed %08x", want, got)
	}
	n := int64(le.Uint32(p[8:]))
	if n > (vhdxRegionSize-16)/32 {
		return nil, f.refuse(Damaged, "region table", at+8, "%d entries do not fit", n)
	}
	regions := map[string]vhdxRegion{}
	for i := range n {
		where := at + 16 + i*32
		e := p[16+i*32:]
		id, start, length := guid(e), le.Uint64(e[16:]), int64(le.Uint32(e[24:]))
		switch {
		case id != regionBAT && id != regionMetadata:
			if le.Uint32(e[28:])&1 != 0 {
				return nil, f.refuse(Unsupported, "region", where, "%s is required, but not known", id)
			}
			continue
		case start%vhdxMiB != 0 || start < vhdxMiB || start > math.MaxInt64 || !f.holds(int64(start), length):
			return nil, f.refuse(Damaged, "region", where, "%d bytes at byte %d: misplaced, or beyond the file's end at byte %d", length, start, f.size)
		case regions[id].at != 0:
			return nil, f.refuse(Damaged, "region", where, "%s is there twice", id)
		}
		regions[id] = vhdxRegion{int64(start), length}
	}
	for _, id := range []string{regionBAT, regionMetadata} {
		if regions[id].at == 0 {
			return nil, f.refuse(Damaged, "region table", at, "region %s is missing", id)
		}
	}
	return regions, nil
}

type vhdxMetadata struct {
	block         uint64 // bytes
	fixed         bool
	size          uint64 // bytes
	sizeAt        int64
	logicalSector uint64 // bytes
}

func readVHDXMetadata(f *file, region vhdxRegion) (*vhdxMetadata, error) {
	if region.length < vhdxRegionSize {
		return nil, f.refuse(Damaged, "metadata", region.at, "%d bytes, it has at least %d", region.length, vhdxRegionSize)
	}
	p, err := f.bytes("metadata", region.at, vhdxRegionSize)
	if err != nil {
		return nil, err
	}
	if string(p[:8]) != "metadata" {
		return nil, f.refuse(Damaged, "metadata", region.at, "%q, it begins with %q", p[:8], "metadata")
	}
	n := int64(le.Uint16(p[10:]))
	if n > 2047 { // [MS-VHDX] 2.6.1.1
		return nil, f.refuse(Damaged, "metadata", region.at+10, "%d entries, at most 2047 are allowed", n)
	}
	// The known items and their lengths in bytes; that of the parent locator varies, and a disk that has one is refused.
	lengths := map[string]int64{itemFileParameters: 8, itemDiskSize: 8, itemDiskID: 16, itemLogicalSector: 4, itemPhysicalSector: 4}
	type item struct {
		at   int64
		data []byte
	}
	items := map[string]item{}
	for i := range n {
		e, where := p[32+i*32:], region.at+32+i*32
		id, at, length, flags := guid(e), int64(le.Uint32(e[16:])), int64(le.Uint32(e[20:])), le.Uint32(e[24:])
		if id == itemParentLocator {
			return nil, f.refuse(RefersElsewhere, "parent locator", where, "differencing: the disk is a snapshot of another; merge and export it")
		}
		want, known := lengths[id]
		switch {
		case !known && flags&4 != 0:
			return nil, f.refuse(Unsupported, "metadata item", where, "%s is required, but not known", id)
		case !known:
			continue
		case items[id].data != nil:
			return nil, f.refuse(Damaged, "metadata item", where, "%s is there twice", id)
		case length != want || at < vhdxRegionSize || at > region.length-length:
			return nil, f.refuse(Damaged, "metadata item", where, "%s: %d bytes at byte %d of %d", id, length, at, region.length)
		}
		data, err := f.bytes("metadata item", region.at+at, length)
		if err != nil {
			return nil, err
		}
		items[id] = item{region.at + at, data}
	}
	for _, id := range []string{itemFileParameters, itemDiskSize, itemLogicalSector} {
		if items[id].data == nil {
			return nil, f.refuse(Damaged, "metadata", region.at, "item %s is missing", id)
		}
	}
	parameters := items[itemFileParameters]
	block, flags := le.Uint32(parameters.data), le.Uint32(parameters.data[4:])
	switch {
	case flags&2 != 0:
		return nil, f.refuse(RefersElsewhere, "HasParent", parameters.at+4, "differencing: the disk is a snapshot of another; merge and export it")
	case bits.OnesCount32(block) != 1 || block < vhdxMiB || block > 256<<20:
		return nil, f.refuse(Damaged, "block size", parameters.at, "%d bytes: not a power of two from 1 MiB to 256 MiB", block)
	}
	logical := le.Uint32(items[itemLogicalSector].data)
	if logical != 512 && logical != 4096 {
		return nil, f.refuse(Damaged, "logical sector size", items[itemLogicalSector].at, "%d bytes, allowed are 512 and 4096", logical)
	}
	return &vhdxMetadata{
		block: uint64(block), fixed: flags&1 != 0,
		size: le.Uint64(items[itemDiskSize].data), sizeAt: items[itemDiskSize].at, logicalSector: uint64(logical),
	}, nil
}

func (v *vhdx) locate(off, max int64) (stretch, error) {
	index, head := off/v.block, off%v.block
	at := v.bat + (index+index/v.chunk)*8
	// Up to the end of the chunk: then comes an entry of another kind.
	left := min(v.chunk-index%v.chunk, v.blocks-index)
	bat, err := v.f.table("BAT", at, 8, left*8)
	if err != nil {
		return stretch{}, err
	}
	s, err := v.entry(le.Uint64(bat), at, head)
	if err != nil {
		return s, err
	}
	for bat = bat[8:]; len(bat) >= 8 && s.length < max; bat = bat[8:] {
		at += 8
		if !s.extend(v.entry(le.Uint64(bat), at, 0)) {
			break
		}
	}
	return s, nil
}

// entry reads a block's entry, which is at byte at of the file, for the byte head of the block.
func (v *vhdx) entry(e uint64, at, head int64) (stretch, error) {
	s := stretch{length: v.block - head, file: v.f, what: "block"}
	switch state := e & 7; state {
	case vhdxNotPresent, vhdxUndefined:
		s.kind = Unallocated
	case vhdxZero, vhdxUnmapped:
		s.kind = Zero
	case vhdxFullyPresent:
		megabyte := e >> 20
		if megabyte == 0 || megabyte > math.MaxInt64/vhdxMiB-1 {
			return s, v.f.refuse(Damaged, "BAT entry", at, "block at megabyte %d", megabyte)
		}
		s.kind, s.at = Data, int64(megabyte)*vhdxMiB+head
	case vhdxPartiallyPresent:
		return s, v.f.refuse(Damaged, "BAT entry", at, "a block that is partly in a parent, but the disk has none")
	default:
		return s, v.f.refuse(Damaged, "BAT entry", at, "unknown state %d", state)
	}
	return s, nil
}
