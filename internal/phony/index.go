package phony

import (
	"fmt"
	"slices"
)

const indexBlock = 4096 // bytes; mkntfs makes this size for clusters up to 4096

// indexEntry is one name in a folder.
type indexEntry struct {
	ref  uint64
	key  []byte   // a $FILE_NAME value
	name []uint16 // of the key, for the order
}

// child entries carry the block that holds the names before them in their last eight bytes.
func (e *indexEntry) encode(child int64) []byte {
	n := align8(16 + len(e.key))
	b := make([]byte, n, n+8)
	le.PutUint64(b, e.ref)
	le.PutUint16(b[10:], uint16(len(e.key)))
	copy(b[16:], e.key)
	if child >= 0 {
		b = le.AppendUint64(b, uint64(child))
		b[12] = 1
	}
	le.PutUint16(b[8:], uint16(len(b)))
	return b
}

// endEntry closes a node.
func endEntry(child int64) []byte {
	e := indexEntry{}
	b := e.encode(child)
	b[12] |= 2
	return b
}

// item is an entry with the block of the names before it, -1 in a leaf.
type item struct {
	indexEntry
	child int64
}

func itemsLength(items []item) int {
	n := 0
	for i := range items {
		n += len(items[i].encode(items[i].child))
	}
	return n
}

// buildIndex makes a folder's $I30 B-tree from its entries in NTFS order: the value of $INDEX_ROOT, which may take up to
// rootSpace bytes, and the blocks of $INDEX_ALLOCATION (nil when all fits into the root). Block n is at VCN n: one cluster each.
func buildIndex(entries []indexEntry, rootSpace int) (root []byte, blocks [][]byte, err error) {
	items := make([]item, len(entries))
	for i, e := range entries {
		items[i] = item{e, -1}
	}
	const rootHeader = 32
	last := int64(-1) // block behind the end entry
	for rootHeader+itemsLength(items)+len(endEntry(last)) > rootSpace {
		if len(items) == 0 {
			return nil, nil, fmt.Errorf("index root: %d bytes are too few for any entry", rootSpace)
		}
		items, last = splitLevel(items, last, &blocks)
	}
	root = make([]byte, rootHeader)
	le.PutUint32(root, attrFileName)
	le.PutUint32(root[4:], 1) // collation: file name
	le.PutUint32(root[8:], indexBlock)
	root[12] = 1 // clusters per block
	for i := range items {
		root = append(root, items[i].encode(items[i].child)...)
	}
	root = append(root, endEntry(last)...)
	indexHeader(root[16:], 16, len(root)-16, len(root)-16, last >= 0)
	return root, blocks, nil
}

// indexHeader is what $INDEX_ROOT and an INDX block share: where the entries are, how long, how much room, and whether there
// are blocks below.
func indexHeader(b []byte, entries, length, allocated int, children bool) {
	le.PutUint32(b, uint32(entries))
	le.PutUint32(b[4:], uint32(length))
	le.PutUint32(b[8:], uint32(allocated))
	if children {
		b[12] = 1
	}
}

// splitLevel packs one level of the tree into blocks. Between two blocks one entry goes up: it separates them.
func splitLevel(items []item, last int64, blocks *[][]byte) (up []item, upLast int64) {
	const room = indexBlock - 0x40
	for {
		n, used := 0, len(endEntry(last))
		for n < len(items) {
			l := len(items[n].encode(items[n].child))
			if used+l > room {
				break
			}
			used += l
			n++
		}
		if n == len(items) {
			*blocks = append(*blocks, encodeBlock(items, last, int64(len(*blocks))))
			return up, int64(len(*blocks)) - 1
		}
		if n == len(items)-1 {
			n-- // the block behind the separator must not be empty
		}
		separator := items[n]
		*blocks = append(*blocks, encodeBlock(items[:n], separator.child, int64(len(*blocks))))
		separator.child = int64(len(*blocks)) - 1
		up = append(up, separator)
		items = items[n+1:]
	}
}

// encodeBlock lays out an INDX block.
//
//	0x00 "INDX" | 0x04 usa offset, count | 0x08 log sequence | 0x10 VCN | 0x18 index header | 0x28 update sequence | 0x40 entries
func encodeBlock(items []item, last, vcn int64) []byte {
	b := make([]byte, indexBlock)
	copy(b, "INDX")
	le.PutUint16(b[4:], 0x28)
	le.PutUint16(b[6:], indexBlock/sectorBytes+1)
	le.PutUint64(b[0x10:], uint64(vcn))
	at := 0x40
	for i := range items {
		at += copy(b[at:], items[i].encode(items[i].child))
	}
	at += copy(b[at:], endEntry(last))
	indexHeader(b[0x18:], 0x28, at-0x18, indexBlock-0x18, last >= 0)
	protect(b, 0x28)
	return b
}

// parseIndex reads the entries of an index as mkntfs made it: a root and at most one level of leaves.
func parseIndex(root []byte, leaf func(vcn int64) ([]byte, error)) ([]indexEntry, error) {
	if len(root) < 32 {
		return nil, fmt.Errorf("index root of %d bytes", len(root))
	}
	entries, children, err := parseEntries(root[16:])
	if err != nil {
		return nil, err
	}
	for _, vcn := range children {
		b, err := leaf(vcn)
		if err != nil {
			return nil, err
		}
		if string(b[:4]) != "INDX" {
			return nil, fmt.Errorf("index block %d: signature %q", vcn, b[:4])
		}
		if err := unprotect(b); err != nil {
			return nil, err
		}
		more, deeper, err := parseEntries(b[0x18:])
		if err != nil {
			return nil, err
		}
		if len(deeper) > 0 {
			return nil, fmt.Errorf("index block %d: a tree of mkntfs has no third level", vcn)
		}
		entries = append(entries, more...)
	}
	return entries, nil
}

func parseEntries(b []byte) (entries []indexEntry, children []int64, err error) {
	at, end := int(le.Uint32(b)), int(le.Uint32(b[4:]))
	for at+16 <= end && end <= len(b) {
		n, key, flags := int(le.Uint16(b[at+8:])), int(le.Uint16(b[at+10:])), b[at+12]
		if n < 16 || at+n > end || 16+key > n {
			break
		}
		if flags&1 != 0 {
			children = append(children, int64(le.Uint64(b[at+n-8:])))
		}
		if flags&2 != 0 {
			return entries, children, nil
		}
		k := slices.Clone(b[at+16 : at+16+key])
		if len(k) < 66 || 66+2*int(k[64]) > len(k) {
			break
		}
		e := indexEntry{ref: le.Uint64(b[at:]), key: k}
		for i := range int(k[64]) {
			e.name = append(e.name, le.Uint16(k[66+2*i:]))
		}
		entries = append(entries, e)
		at += n
	}
	return nil, nil, fmt.Errorf("index entry at %d does not hold together", at)
}

// compareNames orders names as NTFS does: by UTF-16 unit after $UpCase.
func compareNames(a, b []uint16, upcase []uint16) int {
	up := func(u uint16) int {
		if int(u) < len(upcase) {
			return int(upcase[u])
		}
		return int(u)
	}
	for i := range min(len(a), len(b)) {
		if d := up(a[i]) - up(b[i]); d != 0 {
			return d
		}
	}
	return len(a) - len(b)
}
