package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"berth/internal/windows"
)

// maxUnreadable is after how many unreadable subkeys or values of one key the rest are left alone: damage of that extent leaves
// nothing to trust, and reading on is what a hostile hive would want.
const maxUnreadable = 64

// key is an open key.
//
// nk, in its cell:
//
//	0      2       4            12       16       20      24       28      32       36       40       44   48     52      72   74    76
//	┌──────┬───────┬────────────┬────────┬────────┬───────┬────────┬───────┬────────┬────────┬────────┬────┬──────┬─ ─ ──┬────┬─────┬──────┐
//	│ "nk" │ flags │ last write │ access │ parent │ keys  │ (vol.) │ list  │ (vol.) │ values │ list   │ sk │class │ sizes│ nl │ cl  │ name │
//	└──────┴───────┴────────────┴────────┴────────┴───────┴────────┴───────┴────────┴────────┴────────┴────┴──────┴─ ─ ──┴────┴─────┴──────┘
type key struct {
	h                *Hive
	off              uint32
	depth            int
	rawName          []byte // names are decoded when they are asked for
	flags            uint16
	stamp            uint64
	subkeys, list    uint32
	values, valueSet uint32
}

// key reads the key at an offset. Its parent must be the one that lists it: so the keys of a hive are a tree, however hostile,
// and none is reached twice.
func (h *Hive) key(off, parent uint32, depth int) (*key, error) {
	if depth > maxDepth {
		return nil, h.damage("key %#x: more than %d keys deep", off, maxDepth)
	}
	c, err := h.cell(off, "key")
	if err != nil {
		return nil, err
	}
	b, err := c.read(0, keySize, "key")
	if err != nil {
		return nil, err
	}
	if string(b[:2]) != "nk" {
		return nil, h.damage("key %#x: signature %q", off, b[:2])
	}
	k := &key{
		h: h, off: off, depth: depth, flags: le.Uint16(b[2:]), stamp: le.Uint64(b[4:]),
		subkeys: le.Uint32(b[20:]), list: le.Uint32(b[28:]), values: le.Uint32(b[36:]), valueSet: le.Uint32(b[40:]),
	}
	if p := le.Uint32(b[16:]); depth > 0 && (p != parent || off == h.base.root) {
		return nil, h.damage("key %#x: listed by the key %#x, it names %#x its parent", off, parent, p)
	}
	n := int64(le.Uint16(b[72:]))
	if n == 0 || n > 2*maxKeyName {
		return nil, h.damage("key %#x: a name of %d bytes", off, n)
	}
	raw, err := c.read(keySize, n, "key's name")
	if err != nil {
		return nil, err
	}
	k.rawName = raw
	if k.flags&keyCompressed == 0 && n%2 != 0 || strings.ContainsRune(k.Name(), '\\') {
		return nil, h.damage("key %#x: the name % x", off, raw)
	}
	return k, nil
}

// Name is the key's name.
func (k *key) Name() string { return storedText(k.rawName, k.flags&keyCompressed != 0) }

// LastWrite is when the key itself or one of its values was last changed; zero when the hive does not tell.
func (k *key) LastWrite() time.Time { return fromFiletime(k.stamp) }

// Subkeys lists the names of the subkeys that can be read; an error says that there are others.
func (k *key) Subkeys() ([]string, error) {
	var offs []uint32
	lost := k.eachSubkey(func(off uint32, _ string, _ []byte) (bool, error) {
		offs = append(offs, off)
		return true, nil
	})
	names := make([]string, 0, len(offs))
	var size int64
	bad := 0
	for _, off := range offs {
		c, err := k.h.key(off, k.off, k.depth+1)
		if err != nil {
			lost = firstErr(lost, err)
			if bad++; bad == maxUnreadable {
				break
			}
			continue
		}
		// Cells that do not overlap cannot hold more than the hive.
		if size += int64(len(c.rawName)); size > k.h.limit {
			lost = firstErr(lost, k.h.damage("key %#x: the names of its subkeys overlap", k.off))
			break
		}
		names = append(names, c.Name())
	}
	all := len(names)
	if names = distinct(names); len(names) < all {
		lost = firstErr(lost, k.h.damage("key %#x: two subkeys of one name", k.off))
	}
	if lost != nil {
		return names, fmt.Errorf("key %q: subkeys: %w", k.Name(), lost)
	}
	return names, nil
}

// distinct drops names that occurred before: who opens all that are listed would open the first of them again and again, and all that is
// below it. Windows keeps names in order, so there is rarely anything to look for.
func distinct(names []string) []string {
	ascending := true
	for i := 1; i < len(names) && ascending; i++ {
		ascending = compareNames(names[i-1], names[i]) < 0
	}
	if ascending {
		return names
	}
	seen := make(map[string]bool, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		folded := foldName(name)
		again := seen[folded]
		seen[folded] = true
		return again
	})
}

// Open opens the key at a path below k.
func (k *key) Open(path string) (windows.Key, error) {
	at := k
	for _, name := range splitPath(path) {
		next, err := at.child(name)
		if err != nil {
			return nil, fmt.Errorf("key %q: at %q: %w", path, name, err)
		}
		at = next
	}
	return at, nil
}

// child finds a subkey by its name. As Windows does it trusts the hashes in lists of hashes and reads only those keys whose hash
// fits; for names beyond ASCII it compares them all.
func (k *key) child(name string) (*key, error) {
	upcased := upcaseUnits(name)
	hash, ascii := hashName(upcased), isASCII(name)
	var found *key
	var bad int
	var lost error
	err := k.eachSubkey(func(off uint32, kind string, hint []byte) (bool, error) {
		if ascii && (kind == "lh" && le.Uint32(hint) != hash || kind == "lf" && !hintFits(hint, upcased)) {
			return true, nil
		}
		c, err := k.h.key(off, k.off, k.depth+1)
		if err != nil {
			lost = firstErr(lost, err)
			bad++
			return bad < maxUnreadable, nil
		}
		if sameName(c.rawName, c.flags&keyCompressed != 0, name) {
			found = c
			return false, nil
		}
		return true, nil
	})
	switch {
	case found != nil:
		return found, nil
	case err != nil:
		return nil, err
	case lost != nil:
		return nil, lost
	case k.flags&keyIsLink != 0:
		return nil, errLink
	}
	return nil, fs.ErrNotExist
}

// errLink is why nothing can be said to be absent below a link.
var errLink = errors.New("the key is a link to another key, which is not followed")

// hintFits reports whether the first four characters that an lf list keeps may begin a name. Only ASCII is taken at its word.
func hintFits(hint []byte, upcased []uint16) bool {
	for i, c := range hint {
		if c == 0 || c >= 0x80 {
			return true
		}
		if i >= len(upcased) || upcase(uint16(c)) != upcased[i] {
			return false
		}
	}
	return true
}

// firstErr keeps the first of two errors.
func firstErr(first, err error) error {
	if first != nil {
		return first
	}
	return err
}

// eachSubkey calls f with the offset of each subkey, the kind of list that has it, and the four bytes of hint or hash that lf and
// lh lists carry, until f returns false. It goes on after a list that cannot be read, and returns what was the matter at the end;
// nil means that f has seen all, or wanted no more.
//
// lf, lh: "lh", count, count × (key, hash). li: "li", count, count × key. ri: "ri", count, count × list of the other kinds.
func (k *key) eachSubkey(f func(off uint32, kind string, hint []byte) (bool, error)) error {
	if k.subkeys == 0 {
		return nil
	}
	// Each key takes a cell of 80 bytes and more.
	if int64(k.subkeys) > k.h.limit/80 {
		return k.h.damage("key %#x: %d subkeys in a hive of %#x bytes", k.off, k.subkeys, k.h.limit)
	}
	var seen uint32
	leaf := func(kind string, b []byte) (bool, error) {
		step := 8
		if kind == "li" {
			step = 4
		}
		for ; len(b) > 0; b = b[step:] {
			if seen++; seen > k.subkeys {
				return false, k.h.damage("key %#x: more in its list than its %d subkeys", k.off, k.subkeys)
			}
			if more, err := f(le.Uint32(b), kind, b[4:step]); !more || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	kind, b, err := k.h.list(k.list)
	if err != nil {
		return err
	}
	if kind != "ri" {
		more, err := leaf(kind, b)
		if err == nil && more && seen != k.subkeys {
			err = k.h.damage("key %#x: %d in its list of %d subkeys", k.off, seen, k.subkeys)
		}
		return err
	}
	var lost error
	bad := 0
	for ; len(b) > 0; b = b[4:] {
		kind, part, err := k.h.list(le.Uint32(b))
		if err == nil && (kind == "ri" || len(part) == 0) {
			err = k.h.damage("list %#x: it is %s of %d bytes in an ri list", le.Uint32(b), kind, len(part))
		}
		if err != nil {
			lost = firstErr(lost, err)
			if bad++; bad == maxUnreadable {
				return lost
			}
			continue
		}
		if more, err := leaf(kind, part); !more || err != nil {
			return err
		}
	}
	if lost == nil && seen != k.subkeys {
		lost = k.h.damage("key %#x: %d in its lists of %d subkeys", k.off, seen, k.subkeys)
	}
	return lost
}

// list reads a list of keys: its kind and its entries.
func (h *Hive) list(off uint32) (kind string, entries []byte, err error) {
	c, err := h.cell(off, "list of keys")
	if err != nil {
		return "", nil, err
	}
	b, err := c.read(0, 4, "list of keys")
	if err != nil {
		return "", nil, err
	}
	step := int64(4)
	switch kind = string(b[:2]); kind {
	case "lf", "lh":
		step = 8
	case "li", "ri":
	default:
		return "", nil, h.damage("list of keys %#x: signature %q", off, kind)
	}
	entries, err = c.read(4, step*int64(le.Uint16(b[2:])), "list of keys")
	return kind, entries, err
}
