package disk

import (
	"fmt"
	"math/bits"
)

// QCOW2, as docs/interop/qcow2.txt of QEMU describes it. All numbers are big endian.
//
//	+--------+---------------------------------------------------------------+
//	| header | 0 "QFI\xfb"   4 version      8 backing offset   16 its length  |
//	|        | 20 cluster bits   24 size   32 crypt   36 L1 entries  40 L1 at |
//	|        | 48 refcount table   60 snapshots                               |
//	|        | v3: 72 incompatible  80 compatible  88 autoclear features      |
//	|        |     96 refcount order  100 header length  104 compression      |
//	+--------+---------------------------------------------------------------+
//	| L1     | one entry for each L2 table                                    |
//	| L2     | one entry for each cluster, with extended L2 also 32 subclusters|
//	+--------+---------------------------------------------------------------+
const (
	qcow2Magic = "QFI\xfb"

	qcow2Dirty       = 1 << 0
	qcow2Corrupt     = 1 << 1
	qcow2DataFile    = 1 << 2
	qcow2Compression = 1 << 3
	qcow2ExtendedL2  = 1 << 4

	// qcow2Offset masks the host offset in L1 and L2 entries: bits 9 to 55.
	qcow2Offset = 0x00fffffffffffe00
	// qcow2MaxL1 is the largest L1 table that QEMU opens, in bytes.
	qcow2MaxL1 = 32 << 20
)

type qcow2 struct {
	f        *file
	bits     uint  // log2 of the cluster size
	cluster  int64 // bytes
	l1       int64 // byte where the L1 table is
	perL2    int64 // entries in an L2 table
	unit     int64 // bytes of an L2 entry: 8, extended 16
	zeroFlag bool  // version 3: bit 0 of an L2 entry means zeros
	unpack   decompressor
	zstd     bool // not deflate
}

func isQCOW2(src Source) bool { return begins(src, 0, qcow2Magic) }

func openQCOW2(f *file, opt Options) (*Envelope, error) {
	h, err := f.bytes("header", 0, 72)
	if err != nil {
		return nil, err
	}
	version := be.Uint32(h[4:])
	if version != 2 && version != 3 {
		return nil, f.refuse(Unsupported, "version", 4, "version %d, known are 2 and 3", version)
	}
	// References first: nothing else of the file matters if it wants another one.
	if at := be.Uint64(h[8:]); at != 0 {
		return nil, f.refuse(RefersElsewhere, "backing file", 8, "the disk is an overlay over another file; export it as one")
	}
	if method := be.Uint32(h[32:]); method != 0 {
		return nil, f.refuse(Encrypted, "encryption method", 32, "method %d; export the disk without encryption", method)
	}
	var incompatible uint64
	headerLength := uint32(72)
	compression := byte(0)
	if version == 3 {
		if h, err = f.bytes("header", 0, 104); err != nil {
			return nil, err
		}
		incompatible = be.Uint64(h[72:])
		headerLength = be.Uint32(h[100:])
	}
	switch {
	case incompatible&qcow2DataFile != 0:
		return nil, f.refuse(RefersElsewhere, "external data file", 72, "the disk's bytes are in another file")
	case incompatible&qcow2Corrupt != 0:
		return nil, f.refuse(Damaged, "corrupt bit", 72, "QEMU marked the disk as corrupt; repair it with qemu-img check")
	case incompatible>>5 != 0:
		return nil, f.refuse(Unsupported, "incompatible features", 72, "unknown feature bits %#x", incompatible)
	case version == 3 && headerLength < 104:
		return nil, f.refuse(Damaged, "header length", 100, "%d bytes, version 3 has at least 104", headerLength)
	}
	if incompatible&qcow2Compression != 0 {
		if headerLength < 105 {
			return nil, f.refuse(Damaged, "header length", 100, "%d bytes, no room for the compression type", headerLength)
		}
		p, err := f.bytes("compression type", 104, 1)
		if err != nil {
			return nil, err
		}
		compression = p[0]
	}

	q := &qcow2{f: f, unit: 8, zeroFlag: version == 3}
	switch compression {
	case 0:
		q.unpack = inflateRaw
	case 1:
		q.unpack, q.zstd = inflateZstd, true
	default:
		return nil, f.refuse(Unsupported, "compression type", 104, "type %d, known are 0 (zlib) and 1 (zstd)", compression)
	}
	clusterBits := be.Uint32(h[20:])
	if clusterBits < 9 || clusterBits > 21 {
		return nil, f.refuse(Damaged, "cluster bits", 20, "%d, allowed are 9 to 21", clusterBits)
	}
	q.bits = uint(clusterBits)
	q.cluster = 1 << q.bits
	if incompatible&qcow2ExtendedL2 != 0 {
		if q.bits < 14 {
			return nil, f.refuse(Damaged, "cluster bits", 20, "%d, extended L2 entries need at least 14", clusterBits)
		}
		q.unit = 16
	}
	q.perL2 = q.cluster / q.unit
	if int64(headerLength) > q.cluster {
		return nil, f.refuse(Damaged, "header length", 100, "%d bytes, more than a cluster", headerLength)
	}

	size := be.Uint64(h[24:])
	if err := f.checkSize(size, "size", 24, opt); err != nil {
		return nil, err
	}
	entries := int64(be.Uint32(h[36:]))
	perL1 := q.cluster * q.perL2 // bytes of the disk under an L1 entry: at most 2^39
	need := (int64(size) + perL1 - 1) / perL1
	switch {
	case entries*8 > qcow2MaxL1:
		return nil, f.refuse(Damaged, "L1 size", 36, "%d entries, QEMU's limit is %d", entries, qcow2MaxL1/8)
	case entries < need:
		return nil, f.refuse(Damaged, "L1 size", 36, "%d entries, the disk's size needs %d", entries, need)
	}
	l1 := be.Uint64(h[40:])
	if l1%uint64(q.cluster) != 0 || l1 > 1<<62 || !f.holds(int64(l1), entries*8) {
		return nil, f.refuse(Damaged, "L1 table", 40, "%d entries at byte %d: not on a cluster, or beyond the file's end at byte %d", entries, l1, f.size)
	}
	q.l1 = int64(l1)

	e := single(f, fmt.Sprintf("v%d", version), int64(size), q)
	if incompatible&qcow2Dirty != 0 {
		e.Warnings = append(e.Warnings, "The disk was not closed properly by QEMU: what its guest wrote last may be missing.")
	}
	if n := be.Uint32(h[60:]); n != 0 {
		e.Warnings = append(e.Warnings, fmt.Sprintf("The disk has %d internal snapshots: they are ignored, its current state is read.", n))
	}
	return e, nil
}

func (q *qcow2) locate(off, max int64) (stretch, error) {
	index := off >> q.bits
	l1, err := q.f.table("L1 table", q.l1+index/q.perL2*8, 8, pageSize)
	if err != nil {
		return stretch{}, err
	}
	entry := be.Uint64(l1)
	if entry&qcow2Offset == 0 {
		// As many empty L1 entries as the page has.
		n := int64(1)
		for p := l1[8:]; len(p) >= 8 && be.Uint64(p)&qcow2Offset == 0; p = p[8:] {
			n++
		}
		per := q.cluster * q.perL2
		return stretch{length: n*per - off%per, kind: Unallocated}, nil
	}
	l2At := int64(entry & qcow2Offset)
	if l2At%q.cluster != 0 {
		return stretch{}, q.f.refuse(Damaged, "L1 entry", q.l1+index/q.perL2*8, "L2 table at byte %d is not on a cluster", l2At)
	}
	slot := index % q.perL2
	at := l2At + slot*q.unit
	l2, err := q.f.table("L2 table", at, q.unit, (q.perL2-slot)*q.unit)
	if err != nil {
		return stretch{}, err
	}

	s, err := q.entry(l2, at, off)
	if err != nil || s.kind == Compressed {
		return s, err
	}
	// Clusters that follow and go on in the same way make one stretch: fewer, larger reads, and quick walks over holes.
	for l2 = l2[q.unit:]; int64(len(l2)) >= q.unit && s.length < max; l2 = l2[q.unit:] {
		if (off+s.length)%q.cluster != 0 {
			break // ended inside a cluster (subclusters)
		}
		at += q.unit
		if !s.extend(q.entry(l2, at, off+s.length)) {
			break
		}
	}
	return s, nil
}

// entry reads one L2 entry, which is at byte at of the file, for the guest's byte off: the rest of its cluster, or of its run of subclusters.
func (q *qcow2) entry(l2 []byte, at, off int64) (stretch, error) {
	e := be.Uint64(l2)
	head := off & (q.cluster - 1)
	s := stretch{length: q.cluster - head, file: q.f, what: "L2 entry"}
	if e&(1<<62) != 0 {
		if q.unit == 16 && be.Uint64(l2[8:]) != 0 {
			return s, q.f.refuse(Damaged, "L2 entry", at, "compressed, but with subclusters")
		}
		// Bits below x are the offset, above them the number of further sectors that the packed bytes touch.
		x := 62 - (q.bits - 8)
		s.kind = Compressed
		s.at = int64(e & (1<<x - 1))
		sectors := int64(e>>x&(1<<(q.bits-8)-1)) + 1
		s.packed = sectors*sector - s.at%sector
		s.block, s.head, s.start, s.owner = q.cluster, head, off-head, q
		return s, nil
	}
	host := int64(e & qcow2Offset)
	if host%q.cluster != 0 {
		return s, q.f.refuse(Damaged, "L2 entry", at, "cluster at byte %d is not on a cluster", host)
	}
	s.at = host + head
	if q.unit == 16 {
		return q.subclusters(s, be.Uint64(l2[8:]), at, head)
	}
	switch {
	case q.zeroFlag && e&1 != 0:
		s.kind = Zero
	case host == 0:
		s.kind = Unallocated
	default:
		s.kind = Data
	}
	return s, nil
}

// subclusters narrows s to the run of like subclusters that begins head bytes into the cluster. In bitmap, bit n says
// that subcluster n is stored, bit 32+n that it reads as zeros.
func (q *qcow2) subclusters(s stretch, bitmap uint64, at, head int64) (stretch, error) {
	stored, zeros := uint32(bitmap), uint32(bitmap>>32)
	host := s.at - head
	if stored&zeros != 0 || stored != 0 && host == 0 {
		return s, q.f.refuse(Damaged, "L2 entry", at, "subclusters %#x stored, %#x zero, cluster at byte %d: contradiction", stored, zeros, host)
	}
	sub := q.cluster / 32
	n := uint(head / sub)
	var same uint32 // the subclusters that are like subcluster n
	switch {
	case stored>>n&1 != 0:
		s.kind, same = Data, stored
	case zeros>>n&1 != 0:
		s.kind, same = Zero, zeros
	default:
		s.kind, same = Unallocated, ^(stored | zeros)
	}
	run := min(int64(bits.TrailingZeros32(^(same >> n))), 32-int64(n))
	s.length = run*sub - head%sub
	return s, nil
}

// stream is counted in sectors, so that the last of them may belong to another cluster or lie beyond the end of the file:
// the stream itself says where it ends.
func (q *qcow2) stream(s stretch, w *window) ([]byte, error) {
	return w.bytes(q.f, "compressed cluster", s.at, min(s.packed, q.f.size-s.at))
}

func (q *qcow2) inflate(block, packed []byte, s stretch) (used int, err error) {
	n, used, err := q.unpack(block, packed)
	if err != nil {
		return 0, q.f.refuse(Damaged, "compressed cluster", s.at, "%d of %d bytes inflated: %v", n, len(block), err)
	}
	return used, nil
}

func (q *qcow2) deflate(packed []byte) []byte {
	if q.zstd {
		return nil
	}
	return packed
}
