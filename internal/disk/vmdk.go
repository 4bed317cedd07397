package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/bits"
	"strings"
)

// VMDK, as VMware's "Virtual Disk Format 5.0" describes it. A disk is a text descriptor and one or more extents; a
// monolithic or streamOptimized disk has the descriptor inside its only extent.
//
// A sparse extent; numbers are little endian, offsets are counted in 512-byte sectors:
//
//	+------------+ 0   "KDMV"   4 version   8 flags   12 capacity   20 grain size
//	| header     | 28  descriptor at   36 its size   44 entries in a grain table
//	|            | 48  redundant grain directory   56 grain directory   64 overhead
//	|            | 72  unclean shutdown   73 "\n \r\n"   77 compression
//	+------------+
//	| descriptor | text
//	+------------+
//	| directory  | one entry for each grain table
//	| tables     | 512 entries each: sector of a grain, 0 never written, 1 zeros
//	+------------+
//	| grains     | 64 KiB as a rule; streamOptimized: {sector of the disk, size, zlib data}
//	+------------+
//
// A streamOptimized disk that was written in one pass has directory and tables behind the grains, each after a marker
// sector, and ends with a footer: a copy of the header that, unlike the first, knows where the directory is.
const (
	vmdkMagic = "KDMV"
	cowdMagic = "COWD"
	// seSparseMagic is the first number of a SEsparse extent (vSphere's space-efficient snapshots).
	seSparseMagic = "\xbe\xba\xfe\xca\x00\x00\x00\x00"

	vmdkNewlines   = 1 << 0
	vmdkCompressed = 1 << 16
	vmdkMarkers    = 1 << 17

	vmdkAtEnd = math.MaxUint64 // grain directory: see the footer

	// vmdkMaxGrain bounds an uncompressed grain, in bytes. VMware writes 64 KiB, the format allows any power of two.
	vmdkMaxGrain = 64 << 20
)

func isVMDK(src Source) bool {
	return begins(src, 0, vmdkMagic) || begins(src, 0, cowdMagic) || begins(src, 0, seSparseMagic) || isDescriptor(src)
}

func openVMDK(f *file, opt Options) (*Envelope, error) {
	switch {
	case begins(f.src, 0, cowdMagic):
		return nil, f.refuse(Unsupported, "magic", 0, "a vmfsSparse extent, an ESXi snapshot; export the machine instead")
	case begins(f.src, 0, seSparseMagic):
		return nil, f.refuse(Unsupported, "magic", 0, "a SEsparse extent, an ESXi snapshot; export the machine instead")
	case begins(f.src, 0, vmdkMagic):
		return openMonolithic(f, opt)
	default:
		return openExtents(f, opt)
	}
}

// openMonolithic opens a sparse extent that has its descriptor inside.
func openMonolithic(f *file, opt Options) (*Envelope, error) {
	x, h, err := openSparse(f, opt)
	if err != nil {
		return nil, err
	}
	at, size := h.descriptor, h.descriptorSize
	if at == 0 || size == 0 {
		return nil, f.refuse(RefersElsewhere, "descriptor", 28, "there is none: this is one extent of a disk whose descriptor is another file")
	}
	if at > uint64(f.size)/sector || size > descriptorLimit/sector {
		return nil, f.refuse(Damaged, "descriptor", 28, "%d sectors at sector %d: beyond the file's end at byte %d, or over %d bytes", size, at, f.size, descriptorLimit)
	}
	text, err := f.bytes("descriptor", int64(at)*sector, int64(size)*sector)
	if err != nil {
		return nil, err
	}
	d, err := parseDescriptor(f, text, int64(at)*sector)
	if err != nil {
		return nil, err
	}
	if len(d.extents) != 1 || d.extents[0].kind != "SPARSE" {
		return nil, f.refuse(RefersElsewhere, "descriptor", int64(at)*sector, "it names other extents than the one that it is in")
	}
	e := single(f, d.createType, x.size, x)
	if x.packed != (strings.EqualFold(d.createType, "streamOptimized")) {
		e.Warnings = append(e.Warnings, fmt.Sprintf("The descriptor says createType %q, which is not how the disk is stored.", d.createType))
	}
	if said := d.extents[0].size; said != x.size {
		e.Warnings = append(e.Warnings, fmt.Sprintf("The descriptor says that the disk has %d bytes, its header %d: the header was believed.", said, x.size))
	}
	if h.unclean {
		e.Warnings = append(e.Warnings, "The disk was not closed properly by VMware: what its guest wrote last may be missing.")
	}
	return e, nil
}

// openExtents opens a disk whose descriptor f is; the extents are siblings of f.
func openExtents(f *file, opt Options) (_ *Envelope, err error) {
	if f.size > descriptorLimit {
		return nil, f.refuse(Damaged, "descriptor", 0, "%d bytes, at most %d are read", f.size, descriptorLimit)
	}
	text, err := f.bytes("descriptor", 0, f.size)
	if err != nil {
		return nil, err
	}
	d, err := parseDescriptor(f, text, 0)
	if err != nil {
		return nil, err
	}
	var size uint64
	for _, x := range d.extents {
		size += uint64(x.size) // at most 2^13 extents of 2^50 bytes
	}
	if err := f.checkSize(size, "extents", -1, opt); err != nil {
		return nil, err
	}

	var closers []io.Closer
	defer func() {
		if err != nil {
			for _, c := range closers {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	var disk chain
	stored := f.size
	for _, x := range d.extents {
		if x.kind == "ZERO" {
			disk.add(x.size, nothing{})
			continue
		}
		src, err := sibling(f, opt, x)
		if err != nil {
			return nil, err
		}
		if c, ok := src.(io.Closer); ok {
			closers = append(closers, c)
		}
		part := newFile(src, f.format, f.mem)
		stored = min(stored+part.size, math.MaxInt64/2)
		if x.kind != "SPARSE" {
			if !part.holds(x.offset, x.size) {
				return nil, f.refuse(Damaged, "extent "+x.name, -1, "%d bytes from byte %d on, but the file has %d", x.size, x.offset, part.size)
			}
			disk.add(x.size, flat{part, x.offset, "extent " + x.name})
			continue
		}
		sparse, _, err := openSparse(part, opt)
		if err != nil {
			return nil, err
		}
		if sparse.size < x.size {
			return nil, f.refuse(Damaged, "extent "+x.name, -1, "the descriptor says %d bytes, the extent's header %d", x.size, sparse.size)
		}
		disk.add(x.size, sparse)
	}
	e := single(f, d.createType, disk.size, &disk)
	e.Disks[0].Image.(*mapped).stored = stored
	e.closers = closers
	return e, nil
}

func sibling(f *file, opt Options, x vmdkExtent) (Source, error) {
	missing := f.refuse(RefersElsewhere, "extent "+x.name, -1, "it is a file of its own that did not come with the descriptor")
	if opt.Siblings == nil {
		return nil, missing
	}
	src, err := opt.Siblings(x.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, fmt.Errorf("disk: open extent %s: %w", x.name, err)
	}
	return src, nil
}

// vmdkHeader is what openSparse read but a sparse extent does not need.
type vmdkHeader struct {
	descriptor, descriptorSize uint64 // sectors
	unclean                    bool
}

// sparse is the layout of a sparse extent.
type sparse struct {
	f         *file
	size      int64 // bytes
	grain     int64 // bytes
	perTable  int64 // grains under a grain table
	directory int64 // byte of the grain directory
	packed    bool  // grains are compressed
}

func openSparse(f *file, opt Options) (*sparse, vmdkHeader, error) {
	no := func(err error) (*sparse, vmdkHeader, error) { return nil, vmdkHeader{}, err }
	h, err := f.bytes("header", 0, sector)
	if err != nil {
		return no(err)
	}
	base := int64(0) // byte of the header that knows where the directory is
	if string(h[:4]) != vmdkMagic {
		return no(f.refuse(Damaged, "magic", 0, "%q, a sparse extent begins with %q", h[:4], vmdkMagic))
	}
	header := vmdkHeader{le.Uint64(h[28:]), le.Uint64(h[36:]), h[72] != 0}
	if le.Uint64(h[56:]) == vmdkAtEnd {
		// ... | marker | footer | end-of-stream marker |
		base = f.size - 2*sector
		tail, err := f.bytes("footer", base-sector, 3*sector)
		if err != nil {
			return no(err)
		}
		if le.Uint64(tail) != 1 || le.Uint32(tail[8:]) != 0 || le.Uint32(tail[12:]) != 3 ||
			le.Uint64(tail[2*sector:]) != 0 || le.Uint32(tail[2*sector+8:]) != 0 || le.Uint32(tail[2*sector+12:]) != 0 ||
			string(tail[sector:sector+4]) != vmdkMagic {
			return no(f.refuse(Damaged, "footer", base, "no footer where the file ends: it is cut off, or something follows it"))
		}
		foot := tail[sector : 2*sector]
		if !bytes.Equal(foot[:28], h[:28]) || !bytes.Equal(foot[44:48], h[44:48]) {
			return no(f.refuse(Damaged, "footer", base, "it does not agree with the header"))
		}
		h = foot
	}
	if v := le.Uint32(h[4:]); v < 1 || v > 3 {
		return no(f.refuse(Unsupported, "version", base+4, "version %d, known are 1 to 3", v))
	}
	flags := le.Uint32(h[8:])
	if flags&vmdkNewlines != 0 && string(h[73:77]) != "\n \r\n" {
		return no(f.refuse(Damaged, "newline test", base+73, "%q: the file was copied as if it were text", h[73:77]))
	}
	x := &sparse{f: f, packed: flags&vmdkCompressed != 0}
	compression := le.Uint16(h[77:])
	switch {
	case x.packed && flags&vmdkMarkers == 0:
		return no(f.refuse(Unsupported, "flags", base+8, "compressed grains without markers"))
	case x.packed && compression != 1:
		return no(f.refuse(Unsupported, "compression", base+77, "method %d, known is 1 (deflate)", compression))
	}

	capacity := le.Uint64(h[12:])
	if capacity > math.MaxInt64/sector {
		return no(f.refuse(TooLarge, "capacity", base+12, "%d sectors, at most %d bytes are accepted", capacity, opt.MaxSize))
	}
	if err := f.checkSize(capacity*sector, "capacity", base+12, opt); err != nil {
		return no(err)
	}
	x.size = int64(capacity) * sector

	grain, limit := le.Uint64(h[20:]), uint64(vmdkMaxGrain)
	if x.packed {
		limit = maxBlock
	}
	if bits.OnesCount64(grain) != 1 || grain < 8 || grain > limit/sector {
		return no(f.refuse(Damaged, "grain size", base+20, "%d sectors: not a power of two from 8 to %d", grain, limit/sector))
	}
	x.grain = int64(grain) * sector

	x.perTable = int64(le.Uint32(h[44:]))
	if x.perTable < 1 || x.perTable > 512 {
		return no(f.refuse(Damaged, "entries in a grain table", base+44, "%d, allowed are 1 to 512", x.perTable))
	}
	under := x.grain * x.perTable
	tables := (x.size + under - 1) / under
	gd := le.Uint64(h[56:])
	if gd == 0 || gd > math.MaxInt64/sector || !f.holds(int64(gd)*sector, tables*4) {
		return no(f.refuse(Damaged, "grain directory", base+56, "%d entries at sector %d: beyond the file's end at byte %d", tables, gd, f.size))
	}
	x.directory = int64(gd) * sector
	return x, header, nil
}

func (x *sparse) locate(off, max int64) (stretch, error) {
	under := x.grain * x.perTable
	index, last := off/under, (x.size-1)/under
	gd, err := x.f.table("grain directory", x.directory+index*4, 4, (last-index+1)*4)
	if err != nil {
		return stretch{}, err
	}
	if le.Uint32(gd) == 0 {
		n := like(gd, 0)
		return stretch{length: n*under - off%under, kind: Unallocated}, nil
	}
	slot := off % under / x.grain
	at := int64(le.Uint32(gd))*sector + slot*4
	gt, err := x.f.table("grain table", at, 4, (x.perTable-slot)*4)
	if err != nil {
		return stretch{}, err
	}
	head := off % x.grain
	s := stretch{length: x.grain - head, what: "grain"}
	switch first := le.Uint32(gt); {
	case first == 0:
		s.kind, s.length = Unallocated, like(gt, 0)*x.grain-head
	case first == 1: // sector 1 is the header's neighbour and cannot be a grain
		s.kind, s.length = Zero, like(gt, 1)*x.grain-head
	case x.packed:
		s.kind, s.file, s.at = Compressed, x.f, int64(first)*sector
		s.block, s.head, s.start, s.owner = x.grain, head, off-head, x
	default:
		s.kind, s.file, s.at = Data, x.f, int64(first)*sector+head
		// Grains that follow each other in the file, too, are read at once.
		for p := gt[4:]; len(p) >= 4 && s.length < max && int64(le.Uint32(p))*sector == s.at+s.length; p = p[4:] {
			s.length += x.grain
		}
	}
	return s, nil
}

// like counts the entries at the beginning of a table that are entry.
func like(table []byte, entry uint32) (n int64) {
	for ; len(table) >= 4 && le.Uint32(table) == entry; table = table[4:] {
		n++
	}
	return n
}

func (x *sparse) stream(s stretch, w *window) ([]byte, error) {
	marker, err := w.bytes(x.f, "grain marker", s.at, 12)
	if err != nil {
		return nil, err
	}
	if lba := le.Uint64(marker); lba != uint64(s.start/sector) {
		return nil, x.f.refuse(Damaged, "grain marker", s.at, "it is of sector %d, the grain table says %d", lba, s.start/sector)
	}
	size := int64(le.Uint32(marker[8:]))
	if size > 2*x.grain {
		return nil, x.f.refuse(Damaged, "grain marker", s.at+8, "%d compressed bytes for a grain of %d", size, x.grain)
	}
	return w.bytes(x.f, "grain", s.at+12, size)
}

func (x *sparse) inflate(block, packed []byte, s stretch) (used int, err error) {
	n, used, err := inflateZlib(block, packed)
	if err != nil {
		return 0, x.f.refuse(Damaged, "grain", s.at+12, "%d of %d bytes inflated: %v", n, x.grain, err)
	}
	if int64(n) == x.grain {
		return used, nil
	}
	// The last grain may be as short as the disk.
	if want := min(x.grain, x.size-s.start); int64(n) < want {
		return 0, x.f.refuse(Damaged, "grain", s.at+12, "inflated to %d bytes, %d are needed", n, want)
	}
	clear(block[n:])
	return 0, nil
}

// deflate leaves zlib's header and checksum out.
func (x *sparse) deflate(packed []byte) []byte {
	if len(packed) < 7 || packed[0]&15 != 8 || packed[1]&0x20 != 0 {
		return nil
	}
	return packed[2 : len(packed)-4]
}

// chain is several layouts one after the other.
type chain struct {
	size  int64
	parts []chainPart
}

type chainPart struct {
	start, size int64
	layout      layout
}

func (c *chain) add(size int64, l layout) {
	c.parts = append(c.parts, chainPart{c.size, size, l})
	c.size += size
}

func (c *chain) locate(off, max int64) (stretch, error) {
	// The last part that begins at off or before it.
	lo, hi := 0, len(c.parts)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; c.parts[mid].start <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	p := c.parts[lo]
	left := p.start + p.size - off
	s, err := p.layout.locate(off-p.start, min(max, left))
	s.length = min(s.length, left)
	return s, err
}

// nothing is the layout of zeros.
type nothing struct{}

func (nothing) locate(_, max int64) (stretch, error) { return stretch{length: max, kind: Zero}, nil }
