package disk

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// The QCOW2 that is written has version 3 and clusters of 64 KiB, and is written from its beginning to its end but for the
// header, which comes last: a file that is not whole is no QCOW2.
//
//	cluster 0     header
//	clusters      data, as it comes; compressed chunks in slabs of 2 MiB, one behind the other
//	              an L2 table when the 512 MiB that it describes are done
//	              a refcount block when the 2 GiB of the file that it counts are written
//	at the end    L1 table, refcount table, the last refcount blocks
const (
	qcow2ClusterBits = 16
	qcow2Cluster     = 1 << qcow2ClusterBits // copyChunk
	qcow2PerL2       = qcow2Cluster / 8
	qcow2UnderL2     = qcow2PerL2 * qcow2Cluster // bytes of the disk
	qcow2PerRefs     = qcow2Cluster / 2          // counts of 16 bits
	// qcow2Slab is what is set aside for compressed chunks at a time, in bytes, so that they are not scattered between plain
	// clusters, of which each fills whole ones.
	qcow2Slab = 2 << 20

	qcow2Copied     = 1 << 63 // of an L1 or L2 entry: nobody else uses the cluster
	qcow2Compressed = 1 << 62
)

// qcow2Sink writes a QCOW2. It holds the L1 table, one L2 table and two or three refcount blocks.
type qcow2Sink struct {
	dst  Target
	zstd bool
	qcow2State
}

// qcow2State is what a checkpoint keeps of a QCOW2 that is being written.
type qcow2State struct {
	End             int64  // of what is written or set aside, a multiple of the cluster size
	SlabAt, SlabEnd int64  // what is left of the slab
	Table           int64  // which L2 table L2 is
	L2              []byte // big endian, as in the file; nil: nothing of it is stored
	L1              []byte
	Refs            map[int64][]byte // the refcount blocks that are not written yet
	RefTable        []byte
}

func newQCOW2Sink(dst Target, zstd bool) *qcow2Sink {
	return &qcow2Sink{dst: dst, zstd: zstd, qcow2State: qcow2State{Refs: map[int64][]byte{}}}
}

func (q *qcow2Sink) begin(int64) error {
	if q.End == 0 {
		q.alloc(1) // the header
	}
	return nil
}

// alloc takes n clusters at the end of the file.
func (q *qcow2Sink) alloc(n int64) int64 {
	at := q.End
	q.End += n * qcow2Cluster
	for c := range n {
		q.use(at/qcow2Cluster + c)
	}
	return at
}

// use counts one more use of a cluster of the file.
func (q *qcow2Sink) use(cluster int64) {
	refs := q.Refs[cluster/qcow2PerRefs]
	if refs == nil {
		refs = make([]byte, qcow2Cluster)
		q.Refs[cluster/qcow2PerRefs] = refs
	}
	count := refs[cluster%qcow2PerRefs*2:]
	be.PutUint16(count, be.Uint16(count)+1)
}

func (q *qcow2Sink) put(p *piece) error {
	if err := q.turn(p.start / qcow2UnderL2); err != nil {
		return err
	}
	var plain, packed batch
	for i := range copyChunks {
		var entry uint64
		switch s := p.streams[i]; {
		case !p.holds(i):
			continue
		case s.length > 0:
			at, err := q.place(int64(s.length))
			if err != nil {
				return err
			}
			if err := packed.add(q.dst, p.packed, int(s.at), int(s.at+s.length), at); err != nil {
				return err
			}
			sectors := (at+int64(s.length)-1)/sector - at/sector
			entry = qcow2Compressed | uint64(sectors)<<(62-(qcow2ClusterBits-8)) | uint64(at)
		default:
			at := q.alloc(1)
			for from, to := range p.runs(i) {
				if err := plain.add(q.dst, p.bytes, from, to, at+int64(from-i*copyChunk)); err != nil {
					return err
				}
			}
			entry = qcow2Copied | uint64(at)
		}
		if q.L2 == nil {
			q.L2 = make([]byte, qcow2Cluster)
		}
		be.PutUint64(q.L2[(p.start/copyChunk+int64(i))%qcow2PerL2*8:], entry)
	}
	if err := plain.flush(q.dst); err != nil {
		return err
	}
	if err := packed.flush(q.dst); err != nil {
		return err
	}
	return q.settle()
}

// batch joins what is one behind the other in memory and in the file, to write it at once.
type batch struct {
	bytes []byte
	from  int // where bytes begins in its memory
	at    int64
}

func (b *batch) add(dst Target, memory []byte, from, to int, at int64) error {
	if n := len(b.bytes); n > 0 && b.from+n == from && b.at+int64(n) == at {
		b.bytes = memory[b.from:to]
		return nil
	}
	err := b.flush(dst)
	b.bytes, b.from, b.at = memory[from:to], from, at
	return err
}

func (b *batch) flush(dst Target) error {
	if len(b.bytes) == 0 {
		return nil
	}
	err := writeTo(dst, b.bytes, b.at)
	b.bytes = nil
	return err
}

// place takes room for a compressed chunk of n bytes and counts the clusters that it touches.
func (q *qcow2Sink) place(n int64) (int64, error) {
	if q.SlabEnd-q.SlabAt < n {
		if q.SlabEnd != q.End {
			q.SlabAt = q.End
		}
		q.End += qcow2Slab
		q.SlabEnd = q.End
	}
	at := q.SlabAt
	q.SlabAt += n
	for c := at / qcow2Cluster; c <= (q.SlabAt-1)/qcow2Cluster; c++ {
		q.use(c)
	}
	return at, nil
}

// turn writes the L2 table if the next chunks belong to another one.
func (q *qcow2Sink) turn(table int64) error {
	if table == q.Table {
		return nil
	}
	if q.L2 != nil {
		at := q.alloc(1)
		if err := q.write(q.L2, at); err != nil {
			return err
		}
		q.L1 = putEntry(q.L1, q.Table, qcow2Copied|uint64(at))
		q.L2 = nil
	}
	q.Table = table
	return nil
}

// putEntry sets an entry of a table that grows.
func putEntry(table []byte, index int64, entry uint64) []byte {
	if need := (index + 1) * 8; int64(len(table)) < need {
		table = append(table, make([]byte, need-int64(len(table)))...)
	}
	be.PutUint64(table[index*8:], entry)
	return table
}

func (q *qcow2Sink) write(p []byte, at int64) error { return writeTo(q.dst, p, at) }

// settle writes the refcount blocks whose clusters are all written.
func (q *qcow2Sink) settle() error {
	const under = qcow2PerRefs * qcow2Cluster
	for len(q.Refs) > 1 {
		settled := int64(-1)
		for k := range q.Refs {
			if end := (k + 1) * under; end <= q.End && (q.SlabEnd <= k*under || q.SlabAt/qcow2Cluster*qcow2Cluster >= end) {
				settled = k
			}
		}
		if settled < 0 {
			return nil
		}
		if err := q.writeRefs(settled, q.alloc(1)); err != nil {
			return err
		}
	}
	return nil
}

func (q *qcow2Sink) writeRefs(k, at int64) error {
	refs := q.Refs[k]
	delete(q.Refs, k)
	q.RefTable = putEntry(q.RefTable, k, uint64(at))
	return q.write(refs, at)
}

func (q *qcow2Sink) end(size int64) (int64, error) {
	if err := q.turn(-1); err != nil {
		return 0, err
	}
	if q.SlabEnd == q.End { // nothing is behind the slab: what is left of it is not needed
		q.End = (q.SlabAt + qcow2Cluster - 1) / qcow2Cluster * qcow2Cluster
	}
	q.SlabAt, q.SlabEnd = 0, 0
	entries := (size + qcow2UnderL2 - 1) / qcow2UnderL2
	q.L1 = append(q.L1, make([]byte, entries*8-int64(len(q.L1)))...)
	l1 := q.alloc((entries*8 + qcow2Cluster - 1) / qcow2Cluster)
	if err := q.write(q.L1, l1); err != nil {
		return 0, err
	}
	// The refcount table, with room for the blocks that count it and themselves; then these, of which the last may begin a new one.
	const counted = qcow2PerRefs * qcow2Cluster
	blocks := q.End/counted + 2
	tables := (blocks*8 + qcow2Cluster - 1) / qcow2Cluster
	table := q.alloc(tables)
	places := map[int64]int64{}
	for len(places) < len(q.Refs) {
		for _, k := range slices.Sorted(maps.Keys(q.Refs)) {
			if _, ok := places[k]; !ok {
				places[k] = q.alloc(1)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(q.Refs)) {
		if err := q.writeRefs(k, places[k]); err != nil {
			return 0, err
		}
	}
	if int64(len(q.RefTable)) > tables*qcow2Cluster {
		return 0, fmt.Errorf("disk: %d bytes of refcount table, room for %d clusters", len(q.RefTable), tables) // a bug
	}
	if err := q.write(q.RefTable, table); err != nil {
		return 0, err
	}
	if err := q.dst.Truncate(q.End); err != nil {
		return 0, fmt.Errorf("disk: set the size of the copy: %w", err)
	}
	h := make([]byte, qcow2Cluster)
	copy(h, qcow2Magic)
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], qcow2ClusterBits)
	be.PutUint64(h[24:], uint64((size+sector-1)/sector*sector))
	be.PutUint32(h[36:], uint32(entries))
	be.PutUint64(h[40:], uint64(l1))
	be.PutUint64(h[48:], uint64(table))
	be.PutUint32(h[56:], uint32(tables))
	be.PutUint32(h[96:], 4) // refcounts of 1<<4 bits
	be.PutUint32(h[100:], 112)
	if q.zstd {
		be.PutUint64(h[72:], qcow2Compression)
		h[104] = 1
	}
	return q.End, q.write(h, 0)
}

func (q *qcow2Sink) state(s *checkpoint) {
	c := q.qcow2State
	c.L1, c.L2, c.RefTable = slices.Clone(c.L1), slices.Clone(c.L2), slices.Clone(c.RefTable)
	c.Refs = map[int64][]byte{}
	for k, refs := range q.Refs {
		c.Refs[k] = slices.Clone(refs)
	}
	s.QCOW2 = &c
}

func (q *qcow2Sink) restore(s *checkpoint) error {
	c := s.QCOW2
	if c == nil || c.End < 0 || c.End%qcow2Cluster != 0 || c.SlabAt < 0 || c.SlabEnd < c.SlabAt || c.End < c.SlabEnd ||
		c.Table < 0 || c.Table > s.At/qcow2UnderL2 || c.L2 != nil && len(c.L2) != qcow2Cluster ||
		len(c.L1)%8 != 0 || int64(len(c.L1)/8) > s.At/qcow2UnderL2+1 || len(c.RefTable)%8 != 0 {
		return errors.New("disk: checkpoint: its tables are damaged")
	}
	for k, refs := range c.Refs {
		if k < 0 || k > c.End/(qcow2PerRefs*qcow2Cluster) || len(refs) != qcow2Cluster {
			return fmt.Errorf("disk: checkpoint: refcount block %d of %d bytes", k, len(refs))
		}
	}
	q.qcow2State = *c
	if q.Refs == nil {
		q.Refs = map[int64][]byte{}
	}
	return q.dst.Truncate(c.End)
}
