package registry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"berth/internal/windows"
)

var le = binary.LittleEndian

// Limits of the registry (Microsoft, "Registry Element Size Limits") and of this package.
const (
	maxKeyName   = 255      // UTF-16 units in a key's name
	maxValueName = 16383    // UTF-16 units in a value's name
	maxDepth     = 512      // keys below one another
	maxValue     = 64 << 20 // bytes of one value; Windows sets no limit, and wants 1 MiB at most
	maxHive      = 2 << 30  // bytes of a hive file; Windows' limit for the hive of a user and for SYSTEM is lower
)

// Sizes of the format, in bytes.
const (
	baseSize    = 0x1000 // base block; offsets of cells count from its end
	pageSize    = 0x1000 // hbins are whole pages
	binHeader   = 0x20   // header of an hbin
	cellHeader  = 4      // size of the cell
	keySize     = 76     // nk without its name
	valueSize   = 20     // vk without its name
	segmentSize = 16344  // data in a segment of long data; only longer data is cut into segments (format 1.4 and later)
	leafEntries = 507    // keys in an lh list such that its cell fills a page: (4096-32-4-4)/8
)

const none = 0xffffffff // no cell

// Flags of nk and vk.
const (
	keyIsRoot     = 0x04
	keyNoDelete   = 0x08
	keyIsLink     = 0x10
	keyCompressed = 0x20 // the name has one byte for a character, Latin-1
	keyPredefined = 0x40
	vkCompressed  = 0x01
	resident      = 1 << 31 // in vk's size: the data is in the field of the offset
)

// BuildOptions say what a tree does not.
type BuildOptions struct {
	// LastWrite is when the hive and all keys whose LastWrite is zero were last written; zero is no time at all.
	LastWrite time.Time
	// FileName is the end of the path that the base block carries (`\SystemRoot\System32\Config\SYSTEM`); Windows keeps the
	// last 31 characters.
	FileName string
	// Dirty leaves the two sequence numbers unequal, as a Windows that lost its power does.
	Dirty bool
}

// Build makes a hive file (regf 1.5) whose root is the given node: hashed, sorted lists of keys, one security descriptor
// (administrators and SYSTEM may do everything, users may read), long data in segments. The same tree and options give the same
// bytes. The node's own name becomes ROOT, as in Windows' hives, where it means nothing.
//
// It fails on what a hive cannot hold: names that are empty, too long or occur twice, a backslash in a key's name, values longer
// than 64 MiB, more than 512 keys below one another; and on a key CurrentControlSet in SYSTEM, which is a link
// that Windows makes when it starts and which no file holds.
func Build(root *Node, opt BuildOptions) ([]byte, error) {
	if EqualNames(root.Name, string(windows.SystemHive)) && root.child("CurrentControlSet") != nil {
		return nil, errors.New("hive SYSTEM: CurrentControlSet is in no file; give ControlSet001 and Select")
	}
	b := &builder{stamp: filetime(opt.LastWrite)}
	b.writeSecurity()
	top, err := b.key(root, none, "", 0)
	if err != nil {
		return nil, fmt.Errorf("hive %s: %w", root.Name, err)
	}
	b.closeBin()
	le.PutUint32(b.bins[b.sk+cellHeader+12:], b.keys)
	if b.full {
		return nil, fmt.Errorf("hive %s: larger than %d bytes", root.Name, maxHive)
	}
	if len(b.bins) > 0 {
		le.PutUint64(b.bins[20:], b.stamp)
	}

	base := make([]byte, baseSize, baseSize+len(b.bins))
	copy(base, "regf")
	le.PutUint32(base[4:], 1)
	le.PutUint32(base[8:], 1)
	if opt.Dirty {
		le.PutUint32(base[4:], 2)
	}
	le.PutUint64(base[12:], b.stamp)
	le.PutUint32(base[20:], 1) // version 1.5
	le.PutUint32(base[24:], 5)
	le.PutUint32(base[28:], 0) // a primary file
	le.PutUint32(base[32:], 1) // direct memory load
	le.PutUint32(base[36:], top)
	le.PutUint32(base[40:], uint32(len(b.bins)))
	le.PutUint32(base[44:], 1) // clustering factor: sectors of 512 bytes
	name := encodeUTF16(opt.FileName)
	if len(name) > 62 {
		name = name[len(name)-62:]
	}
	copy(base[48:], name)
	le.PutUint32(base[508:], baseChecksum(base))
	return append(base, b.bins...), nil
}

// baseChecksum is the checksum of the first 508 bytes of a base block, which must not be 0 or -1.
func baseChecksum(b []byte) uint32 {
	var c uint32
	for i := 0; i < 508; i += 4 {
		c ^= le.Uint32(b[i:])
	}
	switch c {
	case 0:
		return 1
	case 0xffffffff:
		return 0xfffffffe
	}
	return c
}

// builder lays cells out one after the other. A cell never crosses the end of its bin.
type builder struct {
	bins  []byte
	bin   int // where the open bin begins
	end   int // where it ends
	used  int // up to where it is in use
	sk    uint32
	keys  uint32
	stamp uint64
	full  bool
}

// cell allocates a cell and gives its offset and its zeroed contents, which stay valid until the next call.
func (b *builder) cell(size int) (uint32, []byte) {
	n := (size + cellHeader + 7) &^ 7
	if b.full || len(b.bins)+n+binHeader+pageSize > maxHive-baseSize {
		// The tree is still walked and checked, but nothing more is kept: Build refuses it.
		b.full = true
		return 0, make([]byte, size)
	}
	if b.used+n > b.end {
		b.closeBin()
		b.bin = len(b.bins)
		b.end = b.bin + (binHeader+n+pageSize-1)/pageSize*pageSize
		b.bins = slices.Grow(b.bins, b.end-b.bin)[:b.end]
		h := b.bins[b.bin:]
		copy(h, "hbin")
		le.PutUint32(h[4:], uint32(b.bin))
		le.PutUint32(h[8:], uint32(b.end-b.bin))
		b.used = b.bin + binHeader
	}
	off := b.used
	b.used += n
	le.PutUint32(b.bins[off:], uint32(-int32(n)))
	return uint32(off), b.bins[off+cellHeader : off+cellHeader+size]
}

// closeBin makes a free cell of what is left of the open bin.
func (b *builder) closeBin() {
	if b.used < b.end {
		le.PutUint32(b.bins[b.used:], uint32(b.end-b.used))
		b.used = b.end
	}
}

// at is a cell's contents again.
func (b *builder) at(off uint32) []byte {
	if b.full {
		return make([]byte, keySize)
	}
	return b.bins[off+cellHeader:]
}

// descriptor is O:BAG:SYD:P(A;CI;KA;;;BA)(A;CI;KA;;;SY)(A;CI;KR;;;BU), self-relative.
var descriptor = []byte{
	1, 0, 0x04, 0x90, 0x14, 0, 0, 0, 0x24, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, // owner, group, no SACL, DACL
	1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x20, 2, 0, 0, // S-1-5-32-544
	1, 1, 0, 0, 0, 0, 0, 5, 0x12, 0, 0, 0, // S-1-5-18
	2, 0, 0x4c, 0, 3, 0, 0, 0, // ACL of three
	0, 2, 0x18, 0, 0x3f, 0, 0x0f, 0, 1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x20, 2, 0, 0,
	0, 2, 0x14, 0, 0x3f, 0, 0x0f, 0, 1, 1, 0, 0, 0, 0, 0, 5, 0x12, 0, 0, 0,
	0, 2, 0x18, 0, 0x19, 0, 0x02, 0, 1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x21, 2, 0, 0,
}

// writeSecurity writes the one sk cell, a ring of its own.
func (b *builder) writeSecurity() {
	off, c := b.cell(20 + len(descriptor))
	copy(c, "sk")
	le.PutUint32(c[4:], off)
	le.PutUint32(c[8:], off)
	le.PutUint32(c[16:], uint32(len(descriptor)))
	copy(c[20:], descriptor)
	b.sk = off
}

func (b *builder) key(n *Node, parent uint32, path string, depth int) (uint32, error) {
	name := n.Name
	flags := uint16(0)
	if depth == 0 {
		name, flags = "ROOT", keyIsRoot|keyNoDelete
	} else {
		path += `\` + name
	}
	if err := checkKeyName(name); err != nil {
		return 0, fmt.Errorf("key %q: %w", path, err)
	}
	if depth > maxDepth {
		return 0, fmt.Errorf("key %.80q...: more than %d keys deep", path, maxDepth)
	}
	raw, compressed := storedName(name)
	if compressed {
		flags |= keyCompressed
	}
	stamp := b.stamp
	if !n.LastWrite.IsZero() {
		stamp = filetime(n.LastWrite)
	}
	off, c := b.cell(keySize + len(raw))
	b.keys++
	copy(c, "nk")
	le.PutUint16(c[2:], flags)
	le.PutUint64(c[4:], stamp)
	le.PutUint32(c[16:], parent)
	for _, o := range []int{28, 32, 40, 48} { // lists of subkeys, volatile subkeys, values; class
		le.PutUint32(c[o:], none)
	}
	le.PutUint32(c[44:], b.sk)
	le.PutUint16(c[72:], uint16(len(raw)))
	copy(c[keySize:], raw)
	if err := b.values(n, off, path); err != nil {
		return 0, err
	}
	return off, b.subkeys(n, off, path, depth)
}

func (b *builder) values(n *Node, key uint32, path string) error {
	if len(n.Values) == 0 {
		return nil
	}
	if len(n.Values) > maxHive/32 {
		return fmt.Errorf("key %q: %d values", path, len(n.Values))
	}
	offs := make([]uint32, len(n.Values))
	seen := make(map[string]bool, len(n.Values))
	var longestName, longestData int
	for i, v := range n.Values {
		folded := foldName(v.Name)
		if err := checkValueName(v.Name); err != nil {
			return fmt.Errorf("key %q, value %.80q: %w", path, v.Name, err)
		}
		if seen[folded] {
			return fmt.Errorf("key %q: two values %q", path, v.Name)
		}
		seen[folded] = true
		if len(v.Data) > maxValue {
			return fmt.Errorf("key %q, value %q: longer than %d bytes", path, v.Name, maxValue)
		}
		longestName = max(longestName, 2*len(utf16.Encode([]rune(v.Name))))
		longestData = max(longestData, len(v.Data))
		offs[i] = b.value(v)
	}
	list, c := b.cell(4 * len(offs))
	for i, o := range offs {
		le.PutUint32(c[4*i:], o)
	}
	k := b.at(key)
	le.PutUint32(k[36:], uint32(len(offs)))
	le.PutUint32(k[40:], list)
	le.PutUint32(k[60:], uint32(longestName))
	le.PutUint32(k[64:], uint32(longestData))
	return nil
}

func (b *builder) value(v windows.Value) uint32 {
	size := uint32(len(v.Data))
	var data uint32
	switch {
	case size <= 4:
		var d [4]byte
		copy(d[:], v.Data)
		size |= resident
		data = le.Uint32(d[:])
	case size > segmentSize:
		data = b.longData(v.Data)
	default:
		var c []byte
		data, c = b.cell(len(v.Data))
		copy(c, v.Data)
	}
	raw, compressed := storedName(v.Name)
	off, c := b.cell(valueSize + len(raw))
	copy(c, "vk")
	le.PutUint16(c[2:], uint16(len(raw)))
	le.PutUint32(c[4:], size)
	le.PutUint32(c[8:], data)
	le.PutUint32(c[12:], v.Type)
	if compressed && len(raw) > 0 {
		le.PutUint16(c[16:], vkCompressed)
	}
	copy(c[valueSize:], raw)
	return off
}

// longData writes a db record: "db", a count, the offset of the list of segments.
func (b *builder) longData(data []byte) uint32 {
	var segments []uint32
	for d := range slices.Chunk(data, segmentSize) {
		// Full segments occupy 16344 bytes and 4 more, as Windows allocates them.
		off, c := b.cell(len(d) + 4)
		copy(c, d)
		segments = append(segments, off)
	}
	list, c := b.cell(4 * len(segments))
	for i, o := range segments {
		le.PutUint32(c[4*i:], o)
	}
	off, c := b.cell(12)
	copy(c, "db")
	le.PutUint16(c[2:], uint16(len(segments)))
	le.PutUint32(c[4:], list)
	return off
}

func (b *builder) subkeys(n *Node, key uint32, path string, depth int) error {
	if len(n.Keys) == 0 {
		return nil
	}
	type entry struct {
		off, hash uint32
		upcased   []uint16
		node      *Node
	}
	list := make([]entry, len(n.Keys))
	longest := 0
	for i, c := range n.Keys {
		u := upcaseUnits(c.Name)
		list[i] = entry{hash: hashName(u), upcased: u, node: c}
		longest = max(longest, 2*len(u))
	}
	slices.SortFunc(list, func(x, y entry) int { return slices.Compare(x.upcased, y.upcased) })
	for i := range list {
		if i > 0 && slices.Equal(list[i].upcased, list[i-1].upcased) {
			return fmt.Errorf("key %q: two keys %q", path, list[i].node.Name)
		}
		var err error
		if list[i].off, err = b.key(list[i].node, key, path, depth+1); err != nil {
			return err
		}
	}
	var leaves []uint32
	for part := range slices.Chunk(list, leafEntries) {
		off, c := b.cell(4 + 8*len(part))
		copy(c, "lh")
		le.PutUint16(c[2:], uint16(len(part)))
		for i, e := range part {
			le.PutUint32(c[4+8*i:], e.off)
			le.PutUint32(c[8+8*i:], e.hash)
		}
		leaves = append(leaves, off)
	}
	top := leaves[0]
	if len(leaves) > 1 {
		if len(leaves) > 0xffff {
			return fmt.Errorf("key %q: %d subkeys", path, len(list))
		}
		off, c := b.cell(4 + 4*len(leaves))
		copy(c, "ri")
		le.PutUint16(c[2:], uint16(len(leaves)))
		for i, o := range leaves {
			le.PutUint32(c[4+4*i:], o)
		}
		top = off
	}
	k := b.at(key)
	le.PutUint32(k[20:], uint32(len(list)))
	le.PutUint32(k[28:], top)
	le.PutUint32(k[52:], uint32(longest))
	return nil
}

// storedName is a name as a hive stores it: one byte a character if all fit (Latin-1, "compressed"), else UTF-16.
func storedName(name string) (raw []byte, compressed bool) {
	for _, r := range name {
		if r > 0xff {
			return encodeUTF16(name), false
		}
	}
	for _, r := range name {
		raw = append(raw, byte(r))
	}
	return raw, true
}

func checkKeyName(name string) error {
	if name == "" {
		return errors.New("a key's name is empty")
	}
	if strings.ContainsAny(name, "\\\x00") {
		return errors.New("a backslash or NUL in a key's name")
	}
	return checkName(name, maxKeyName)
}

func checkValueName(name string) error { return checkName(name, maxValueName) }

func checkName(name string, limit int) error {
	if !utf8.ValidString(name) {
		return errors.New("a name is not UTF-8")
	}
	if n := len(utf16.Encode([]rune(name))); n > limit {
		return fmt.Errorf("a name of %d characters; Windows allows %d", n, limit)
	}
	return nil
}

// epoch is 1601-01-01 in seconds before 1970; a FILETIME counts 100 ns from there.
const epoch = 11644473600

func filetime(t time.Time) uint64 {
	s := t.Unix() + epoch
	if t.IsZero() || s < 0 || s >= 1<<63/10_000_000 {
		return 0
	}
	return uint64(s)*1e7 + uint64(t.Nanosecond()/100)
}

func fromFiletime(f uint64) time.Time {
	if f == 0 {
		return time.Time{}
	}
	return time.Unix(int64(f/1e7)-epoch, int64(f%1e7)*100).UTC()
}
