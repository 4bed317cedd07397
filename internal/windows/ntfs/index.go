package ntfs

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"
	"unicode/utf16"
)

const (
	// maxIndexDepth bounds the way from an index's root to a leaf. Windows' trees are 2 or 3 deep.
	maxIndexDepth = 24
	// maxDirEntries bounds the entries of one directory that are listed: about 200 MB of memory.
	maxDirEntries = 1 << 20
	// collateFileName is the collation rule of directories.
	collateFileName = 1
)

// Name spaces of $FILE_NAME.
const (
	nameDOS = 2 // the short name of a file whose long name is another entry
)

// Attribute flags of $FILE_NAME that are used here. The others are those of [MS-FSCC] 2.6.
const (
	fileReparse   = 0x00000400
	fileDirectory = 0x10000000
)

// entry is a directory entry: the key of an index is a copy of the file's $FILE_NAME.
//
//	 0 parent   8 created   16 written   24 record changed   32 read   40 allocated   48 size   56 flags
//	60 reparse tag   64 name length   65 name space   66 name
type entry struct {
	ref     fileRef
	parent  fileRef
	written time.Time
	size    int64
	flags   uint32
	tag     uint32
	space   uint8
	name    []uint16
}

func parseFileName(b []byte) (entry, error) {
	le := binary.LittleEndian
	if len(b) < 66 || len(b) < 66+2*int(b[64]) || b[64] == 0 {
		return entry{}, fmt.Errorf("$FILE_NAME of %d bytes", len(b))
	}
	e := entry{
		parent:  fileRef(le.Uint64(b)),
		written: filetime(le.Uint64(b[16:])),
		size:    int64(le.Uint64(b[48:])),
		flags:   le.Uint32(b[56:]),
		space:   b[65],
		name:    bytesToUTF16(b[66 : 66+2*int(b[64])]),
	}
	if e.flags&fileReparse != 0 { // else the field is the size of extended attributes
		e.tag = le.Uint32(b[60:])
	}
	return e, nil
}

// filetime converts 100 ns units since 1601.
func filetime(t uint64) time.Time {
	const toUnix = 11644473600
	if t == 0 || t > 1<<63 {
		return time.Time{}
	}
	return time.Unix(int64(t/1e7)-toUnix, int64(t%1e7)*100).UTC()
}

// dirIndex is the $I30 index of a directory.
type dirIndex struct {
	rec        *record
	root       []byte  // the root's node
	alloc      *stream // nil: the root is all
	blockBytes int64
	vcnBytes   int64 // bytes that a block number counts
}

// directory opens the directory that ref names.
func (v *Volume) directory(ref fileRef) (*dirIndex, error) {
	rec, err := v.record(ref)
	if err != nil {
		return nil, err
	}
	return rec.index()
}

// index opens the record's directory index.
//
//	$INDEX_ROOT:  0 type of key (0x30)   4 collation   8 bytes per block   16 node
func (rec *record) index() (*dirIndex, error) {
	if !rec.isDir() {
		return nil, rec.corrupt(22, "is not a directory")
	}
	s, err := rec.stream(attrIndexRoot, "$I30")
	if err != nil {
		if isMissing(err) {
			return nil, rec.corrupt(-1, "directory has no $INDEX_ROOT")
		}
		return nil, err
	}
	if s.nonResident || s.size < 32 {
		return nil, rec.corrupt(-1, "$INDEX_ROOT has %d bytes (resident: %v)", s.size, !s.nonResident)
	}
	le := binary.LittleEndian
	b := s.resident
	if typ, rule := le.Uint32(b), le.Uint32(b[4:]); typ != attrFileName || rule != collateFileName {
		return nil, rec.corrupt(-1, "$INDEX_ROOT indexes attribute %#x with collation %d", typ, rule)
	}
	d := &dirIndex{rec: rec, root: b[16:], blockBytes: int64(le.Uint32(b[8:]))}
	if d.blockBytes < fixupStride || d.blockBytes > maxIndexBytes || bits.OnesCount64(uint64(d.blockBytes)) != 1 {
		return nil, rec.corrupt(-1, "index blocks of %d bytes", d.blockBytes)
	}
	// Blocks are counted in clusters, or in units of 512 bytes where a cluster is larger than a block.
	if d.vcnBytes = rec.v.clusterBytes; d.vcnBytes > d.blockBytes {
		d.vcnBytes = 512
	}
	d.alloc, err = rec.stream(attrIndexAlloc, "$I30")
	if err != nil && !isMissing(err) {
		return nil, err
	}
	return d, nil
}

func (d *dirIndex) corrupt(format string, a ...any) error {
	return &CorruptError{What: fmt.Sprintf("index of MFT record %d", d.rec.number), Offset: -1, Detail: fmt.Sprintf(format, a...)}
}

// block reads the node of the index block vcn.
//
//	0 "INDX"   4 offset and 6 count of the update-sequence array   16 its own number   24 node
func (d *dirIndex) block(vcn int64) ([]byte, error) {
	if d.alloc == nil {
		return nil, d.corrupt("refers to block %d, but has none", vcn)
	}
	if vcn < 0 || vcn > (d.alloc.size-d.blockBytes)/d.vcnBytes {
		return nil, d.corrupt("block %d lies beyond its %d bytes", vcn, d.alloc.size)
	}
	b := make([]byte, d.blockBytes)
	if err := readFull(d.alloc, b, vcn*d.vcnBytes); err != nil {
		return nil, fmt.Errorf("index of MFT record %d: %w", d.rec.number, err)
	}
	if string(b[:4]) != "INDX" {
		return nil, d.corrupt("block %d begins with %q", vcn, b[:4])
	}
	if err := fixup(b); err != nil {
		return nil, d.corrupt("block %d: %v", vcn, err)
	}
	// The number makes blocks distinct: extents that repeat a cluster cannot make an index larger than what is stored.
	if own := binary.LittleEndian.Uint64(b[16:]); own != uint64(vcn) {
		return nil, d.corrupt("block %d says that it is %d", vcn, own)
	}
	return b[24:], nil
}

// node calls yield for each entry of a node: its key (nil at the end) and its child (-1: none). It stops at false.
//
//	node:   0 first entry   4 bytes in use   12 flags (1: has children)
//	entry:  0 file   8 length   10 key length   12 flags (1: child in the last 8 bytes, 2: end)   16 key
func (d *dirIndex) node(b []byte, yield func(e *entry, child int64) (bool, error)) error {
	le := binary.LittleEndian
	if len(b) < 16 {
		return d.corrupt("node of %d bytes", len(b))
	}
	p, used := int64(le.Uint32(b)), int64(le.Uint32(b[4:]))
	if used > int64(len(b)) || p < 16 || p > used {
		return d.corrupt("node uses bytes %d to %d of %d", p, used, len(b))
	}
	for {
		if used-p < 16 {
			return d.corrupt("node has no last entry")
		}
		l, kl, flags := int64(le.Uint16(b[p+8:])), int64(le.Uint16(b[p+10:])), le.Uint16(b[p+12:])
		tail := int64(0)
		if flags&1 != 0 {
			tail = 8
		}
		if l < 16+tail || l > used-p {
			return d.corrupt("entry of %d bytes at byte %d of a node", l, p)
		}
		child := int64(-1)
		if tail > 0 {
			if child = int64(le.Uint64(b[p+l-8:])); child < 0 {
				return d.corrupt("entry at byte %d of a node refers to block %d", p, child)
			}
		}
		if flags&2 != 0 {
			_, err := yield(nil, child)
			return err
		}
		if 16+kl+tail > l {
			return d.corrupt("key of %d bytes at byte %d of a node", kl, p)
		}
		e, err := parseFileName(b[p+16 : p+16+kl])
		if err != nil {
			return d.corrupt("entry at byte %d of a node: %v", p, err)
		}
		e.ref = fileRef(le.Uint64(b[p:]))
		if e.parent.number() != d.rec.number {
			return d.corrupt("entry %q belongs to directory %d", decodeUTF16(e.name), e.parent.number())
		}
		if more, err := yield(&e, child); err != nil || !more {
			return err
		}
		p += l
	}
}

// collate compares names as NTFS does: by upper-cased UTF-16 units, shorter first.
func (v *Volume) collate(a, b []uint16) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if x, y := v.fold(a[i]), v.fold(b[i]); x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// exact orders names that collate equal: directories may hold names that differ in case only.
func exact(a, b []uint16) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}

// lookup descends the tree to the entry called name; the one written exactly so is preferred. nil means that there is none:
// all nodes on the way were in order and within their parents' bounds, so the name can be nowhere else.
func (d *dirIndex) lookup(name []uint16) (*entry, error) {
	v := d.rec.v
	node := d.root
	var low, high []uint16 // the parents' bounds; nil: none
	var found *entry
	for range maxIndexDepth {
		next := int64(-1)
		var hit *entry
		nextLow, nextHigh := low, high
		last, chosen := low, false
		err := d.node(node, func(e *entry, child int64) (bool, error) {
			if e == nil {
				if !chosen {
					next, chosen, nextLow = child, true, last
				}
				return false, nil
			}
			if last != nil && v.collate(last, e.name) > 0 || high != nil && v.collate(e.name, high) > 0 {
				return false, d.corrupt("entry %q is out of order", decodeUTF16(e.name))
			}
			if !chosen {
				c := v.collate(name, e.name)
				if c == 0 {
					if c = exact(name, e.name); c == 0 {
						hit, chosen = e, true
					} else {
						found = e
					}
				}
				if c < 0 {
					next, chosen, nextLow, nextHigh = child, true, last, e.name
				}
			}
			last = e.name
			return true, nil
		})
		if err != nil {
			return nil, err
		}
		if hit != nil {
			return hit, nil
		}
		if next < 0 {
			return found, nil
		}
		low, high = nextLow, nextHigh
		if node, err = d.block(next); err != nil {
			return nil, err
		}
	}
	return nil, d.corrupt("is more than %d levels deep", maxIndexDepth)
}

// list calls yield for each entry in order, DOS names left out.
func (d *dirIndex) list(yield func(*entry) error) error {
	seen := map[int64]bool{}
	count := 0
	var walk func(node []byte, depth int) error
	walk = func(node []byte, depth int) error {
		if depth > maxIndexDepth {
			return d.corrupt("is more than %d levels deep", maxIndexDepth)
		}
		return d.node(node, func(e *entry, child int64) (bool, error) {
			if child >= 0 {
				if seen[child] {
					return false, d.corrupt("block %d is referred to twice", child)
				}
				seen[child] = true
				b, err := d.block(child)
				if err != nil {
					return false, err
				}
				if err := walk(b, depth+1); err != nil {
					return false, err
				}
			}
			if e == nil || e.space == nameDOS {
				return true, nil
			}
			if count++; count > maxDirEntries {
				return false, fmt.Errorf("directory with more than %d entries (MFT record %d): %w", maxDirEntries, d.rec.number, ErrTooLarge)
			}
			return true, yield(e)
		})
	}
	return walk(d.root, 1)
}

// child opens the record that an entry of this directory names, and checks that the record agrees. Directories have one name
// and one parent; held to that, those that can be reached from the root form a tree, whatever the indexes say.
func (d *dirIndex) child(e *entry) (*record, error) {
	rec, err := d.rec.v.record(e.ref)
	if err != nil {
		return nil, err
	}
	attrs, err := rec.find(attrFileName, "")
	if err != nil {
		if isMissing(err) {
			return nil, rec.corrupt(-1, "has no name")
		}
		return nil, err
	}
	long, agrees := 0, false
	for _, a := range attrs {
		n, err := parseFileName(a.value)
		if err != nil || a.nonResident {
			return nil, rec.corrupt(-1, "%v", err)
		}
		if n.space != nameDOS {
			long++
		}
		if n.parent.number() == d.rec.number && d.rec.v.collate(n.name, e.name) == 0 && (n.space == nameDOS) == (e.space == nameDOS) {
			agrees = true
		}
	}
	if !agrees {
		return nil, rec.corrupt(-1, "is not called %q in directory %d", decodeUTF16(e.name), d.rec.number)
	}
	if rec.isDir() && (long != 1 || rec.number == recordRoot) {
		return nil, rec.corrupt(-1, "directory is listed in several places")
	}
	return rec, nil
}

// printable is the name as Go's io/fs can carry it: what cannot be part of a path, which Windows does not write, is U+FFFD.
func (e *entry) printable() string {
	r := utf16.Decode(e.name)
	for i, c := range r {
		if c == '/' || c == 0 {
			r[i] = 0xFFFD
		}
	}
	s := string(r)
	if s == "." || s == ".." {
		return "\uFFFD"
	}
	return s
}
