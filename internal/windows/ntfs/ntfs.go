// Package ntfs reads NTFS volumes without trusting them: files by path, alternate streams, free space, and where on the
// volume a file's bytes lie.
//
// It reads what Windows 10 and 11 write: resident, fragmented and sparse data, LZNT1 compression, files compressed by the
// Windows Overlay Filter (CompactOS) with XPRESS or LZX, hard links, DOS names and directories of any size, which are searched
// through their B+ trees in the order that the volume's own $UpCase gives.
//
// It does not write, does not replay $LogFile, decrypts nothing (BitLocker: [BitLockerError]; EFS: [UnsupportedError]) and
// never follows a symbolic link or junction ([ReparseError]). What it cannot read is an error, never zeros and never absence:
// fs.ErrNotExist is returned only after a sound, ordered index said so.
//
// A volume may come from a stranger: every size is bounded before memory is taken, every loop ends, and the directories that
// can be reached form a tree even if the volume says otherwise. Start reading at [Open].
package ntfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"unicode"
)

// Record numbers of the files that every NTFS volume has.
const (
	recordMFT    = 0
	recordVolume = 3
	recordRoot   = 5
	recordBitmap = 6
	recordUpCase = 10
	// recordFirstUser is the first record that is not reserved for the file system's own files.
	recordFirstUser = 16
)

const (
	// fixupStride is the distance between the words that update-sequence arrays protect. It is 512 on disks with sectors of
	// 4096 bytes, too.
	fixupStride = 512
	// maxClusterBytes is the largest cluster that Windows formats (Windows 10 1709 and later).
	maxClusterBytes = 2 << 20
	// maxClusters is as many clusters as Windows uses on a volume ("NTFS overview"), 2^32-1: $Bitmap has at most 512 MiB then.
	maxClusters = 1<<32 - 1
	// maxRecordBytes bounds MFT records: Windows makes them of 1024 bytes, or of 4096 on disks with such sectors.
	maxRecordBytes = 4096
	// maxIndexBytes bounds index blocks, which are of 4096 bytes in practice.
	maxIndexBytes = 64 << 10
	// maxRuns bounds the extents of one stream: 3 MB of memory. A file with more is refused.
	maxRuns = 1 << 17
	// upCaseBytes is the size of $UpCase: one 16-bit character for each of 65536.
	upCaseBytes = 2 * 65536
)

// Volume is an open NTFS volume. It is immutable and safe for concurrent use.
type Volume struct {
	r            io.ReaderAt
	sectorBytes  int64
	clusterBytes int64
	clusters     int64 // number of clusters of the volume
	recordBytes  int64
	serial       uint64
	mft          *stream
	upCase       []uint16 // 65536 entries
	ownUpCase    bool     // upCase was read from the volume
}

// Info is what a volume says of itself.
type Info struct {
	Label        string
	Serial       uint64
	ClusterBytes int64
	TotalBytes   int64 // clusters times their size
	FreeBytes    int64 // clear bits of $Bitmap times the cluster size
	Dirty        bool  // $VOLUME_INFORMATION flag 0x0001: chkdsk will run at the next start
	Major, Minor uint8 // NTFS version; 3.1 since Windows XP
}

// Open reads the boot sector, the extents of the MFT and $UpCase of the volume of size bytes behind r.
//
// Errors: [ErrNotNTFS], [*BitLockerError], [*CorruptError], or what r returned.
func Open(r io.ReaderAt, size int64) (*Volume, error) {
	v := &Volume{r: r}
	mftCluster, err := v.readBoot(size)
	if err != nil {
		return nil, err
	}
	if err := v.openMFT(mftCluster); err != nil {
		return nil, err
	}
	v.upCase = simpleUpCase()
	if table, err := v.readUpCase(); err == nil {
		v.upCase, v.ownUpCase = table, true
	}
	// A volume without a root directory is of no use to anybody: say so now.
	if _, err := v.directory(fileRef(recordRoot)); err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	return v, nil
}

// readBoot checks the boot sector and returns the first cluster of the MFT.
//
//	 0  jump          3  OEM id "NTFS    "   11  bytes per sector   13  sectors per cluster
//	40  total sectors 48 first MFT cluster   56  first cluster of its mirror
//	64  clusters per MFT record (negative: log2 of bytes)   72  serial   510  0x55AA
func (v *Volume) readBoot(size int64) (int64, error) {
	if size < 512 {
		return 0, fmt.Errorf("%w: %d bytes are too few for a boot sector", ErrNotNTFS, size)
	}
	b := make([]byte, 512)
	if err := readFull(v.r, b, 0); err != nil {
		return 0, fmt.Errorf("boot sector: %w", err)
	}
	if err := bitLocker(b); err != nil {
		return 0, err
	}
	if !bytes.Equal(b[3:11], []byte("NTFS    ")) {
		return 0, fmt.Errorf("%w: OEM id is %q", ErrNotNTFS, b[3:11])
	}
	le := binary.LittleEndian
	bad := func(off int64, format string, a ...any) (int64, error) {
		return 0, &CorruptError{What: "boot sector", Offset: off, Detail: fmt.Sprintf(format, a...)}
	}
	if b[510] != 0x55 || b[511] != 0xAA {
		return bad(510, "no 0x55AA at the end")
	}
	v.sectorBytes = int64(le.Uint16(b[11:]))
	if v.sectorBytes < 256 || v.sectorBytes > 4096 || bits.OnesCount64(uint64(v.sectorBytes)) != 1 {
		return bad(11, "%d bytes per sector", v.sectorBytes)
	}
	perCluster := int64(b[13])
	if b[13] > 0x80 { // Windows 10 1709 and later: 2 to the power of the negated byte
		shift := 256 - int(b[13])
		if shift > 13 {
			return bad(13, "2^%d sectors per cluster", shift)
		}
		perCluster = 1 << shift
	}
	v.clusterBytes = perCluster * v.sectorBytes
	if bits.OnesCount64(uint64(perCluster)) != 1 || v.clusterBytes > maxClusterBytes {
		return bad(13, "%d sectors per cluster", perCluster)
	}
	sectors := le.Uint64(b[40:])
	if sectors == 0 || sectors > uint64(size/v.sectorBytes) {
		return bad(40, "%d sectors of %d bytes, but the volume has %d bytes", sectors, v.sectorBytes, size)
	}
	v.clusters = int64(sectors) / perCluster
	if v.clusters > maxClusters {
		return bad(40, "%d clusters, Windows uses at most %d", v.clusters, int64(maxClusters))
	}
	mft := le.Uint64(b[48:])
	if mft == 0 || mft >= uint64(v.clusters) {
		return bad(48, "the MFT begins at cluster %d of %d", mft, v.clusters)
	}
	var ok bool
	if v.recordBytes, ok = v.recordSize(int8(b[64])); !ok {
		return bad(64, "MFT record size %d", int8(b[64]))
	}
	v.serial = le.Uint64(b[72:])
	return int64(mft), nil
}

// recordSize decodes the size of an MFT record: clusters, or the negated log2 of bytes.
func (v *Volume) recordSize(code int8) (int64, bool) {
	n := int64(code) * v.clusterBytes
	if code < 0 {
		if code < -16 {
			return 0, false
		}
		n = 1 << -code
	}
	return n, n >= fixupStride && n <= maxRecordBytes && bits.OnesCount64(uint64(n)) == 1
}

// openMFT finds the extents of $MFT. Its first extent is in record 0 itself; further ones may be in records that the extents
// known so far reach, never in others.
func (v *Volume) openMFT(cluster int64) error {
	b := make([]byte, v.recordBytes)
	if err := readFull(v.r, b, cluster*v.clusterBytes); err != nil {
		return fmt.Errorf("MFT record 0: %w", err)
	}
	rec, err := parseRecord(b, recordMFT, cluster*v.clusterBytes)
	if err != nil {
		return err
	}
	rec.v = v
	var first *attribute
	for i := range rec.attrs {
		if a := &rec.attrs[i]; a.typ == attrData && len(a.name) == 0 {
			first = a
			break
		}
	}
	if first == nil || !first.nonResident || first.firstVCN != 0 {
		return rec.corrupt(-1, "$MFT has no extents in its first record")
	}
	m, err := v.newStream(rec, []*attribute{first}, true)
	if err != nil {
		return err
	}
	if m.compressed || m.encrypted {
		return rec.corrupt(-1, "$MFT is marked compressed or encrypted")
	}
	v.mft = m
	if err := rec.loadList(); err != nil {
		return err
	}
	for _, e := range rec.list {
		if e.typ != attrData || len(e.name) != 0 || e.firstVCN == 0 {
			continue
		}
		if e.firstVCN != m.mappedClusters() {
			return rec.corrupt(-1, "extent of $MFT at cluster %d follows %d", e.firstVCN, m.mappedClusters())
		}
		a, err := rec.resolve(e)
		if err != nil {
			return err
		}
		if err := m.appendRuns(rec, a); err != nil {
			return err
		}
	}
	return m.checkMapped(rec)
}

// readUpCase reads the table that orders the volume's directories.
func (v *Volume) readUpCase() ([]uint16, error) {
	rec, err := v.record(fileRef(recordUpCase))
	if err != nil {
		return nil, err
	}
	s, err := rec.stream(attrData, "")
	if err != nil {
		return nil, err
	}
	if s.size != upCaseBytes {
		return nil, rec.corrupt(-1, "$UpCase has %d bytes, not %d", s.size, upCaseBytes)
	}
	b := make([]byte, upCaseBytes)
	if err := readFull(s, b, 0); err != nil {
		return nil, err
	}
	table := make([]uint16, 65536)
	for i := range table {
		table[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	// A table that does not know that A is A is not one.
	for c := 'a'; c <= 'z'; c++ {
		if table[c] != uint16(c-'a'+'A') || table[c-'a'+'A'] != uint16(c-'a'+'A') {
			return nil, rec.corrupt(-1, "$UpCase maps %q to %#x", c, table[c])
		}
	}
	return table, nil
}

// simpleUpCase stands in for an unreadable $UpCase.
func simpleUpCase() []uint16 {
	table := make([]uint16, 65536)
	for i := range table {
		table[i] = uint16(i)
		if u := unicode.ToUpper(rune(i)); u < 65536 {
			table[i] = uint16(u)
		}
	}
	return table
}

// Info reads the label, the flags and the free space, which takes one pass over $Bitmap: a bit for each cluster.
func (v *Volume) Info() (Info, error) {
	info := Info{Serial: v.serial, ClusterBytes: v.clusterBytes, TotalBytes: v.clusters * v.clusterBytes}
	rec, err := v.record(fileRef(recordVolume))
	if err != nil {
		return Info{}, fmt.Errorf("$Volume: %w", err)
	}
	if name, err := rec.value(attrVolumeName); err == nil {
		info.Label = decodeUTF16(bytesToUTF16(name))
	} else if !isMissing(err) {
		return Info{}, fmt.Errorf("$Volume: %w", err)
	}
	vi, err := rec.value(attrVolumeInfo)
	if err != nil {
		return Info{}, fmt.Errorf("$Volume: %w", err)
	}
	if len(vi) < 12 {
		return Info{}, rec.corrupt(-1, "$VOLUME_INFORMATION has %d bytes", len(vi))
	}
	info.Major, info.Minor = vi[8], vi[9]
	info.Dirty = binary.LittleEndian.Uint16(vi[10:])&1 != 0
	free, err := v.freeClusters()
	if err != nil {
		return Info{}, fmt.Errorf("$Bitmap: %w", err)
	}
	info.FreeBytes = free * v.clusterBytes
	return info, nil
}

// Allocated calls yield for every piece of $Bitmap, in order: bit i of piece (low bit first) tells whether cluster first+i is
// in use. The piece is reused; the last one may hold bits beyond the volume's clusters. It stops when yield returns false.
func (v *Volume) Allocated(yield func(first int64, piece []byte) bool) error {
	rec, err := v.record(fileRef(recordBitmap))
	if err != nil {
		return err
	}
	s, err := rec.stream(attrData, "")
	if err != nil {
		return err
	}
	need := (v.clusters + 7) / 8
	if s.size < need {
		return rec.corrupt(-1, "$Bitmap has %d bytes for %d clusters", s.size, v.clusters)
	}
	buf := make([]byte, 64<<10)
	for at := int64(0); at < need; {
		n := min(int64(len(buf)), need-at)
		if err := readFull(s, buf[:n], at); err != nil {
			return err
		}
		if !yield(at*8, buf[:n]) {
			return nil
		}
		at += n
	}
	return nil
}

func (v *Volume) freeClusters() (int64, error) {
	used := int64(0)
	err := v.Allocated(func(first int64, piece []byte) bool {
		if over := first + int64(len(piece))*8 - v.clusters; over > 0 {
			piece[len(piece)-1] &= 0xFF >> over
		}
		for len(piece) >= 8 {
			used += int64(bits.OnesCount64(binary.LittleEndian.Uint64(piece)))
			piece = piece[8:]
		}
		for _, b := range piece {
			used += int64(bits.OnesCount8(b))
		}
		return true
	})
	return v.clusters - used, err
}

// readFull reads all of b at off; an early end of r is io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d: %w", len(b), off, err)
}
