package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"berth/internal/windows"
)

// storedValue is a value's record.
//
// vk, in its cell:
//
//	0      2      4      8      12     16      18     20
//	┌──────┬──────┬──────┬──────┬──────┬───────┬──────┬──────┐
//	│ "vk" │ nl   │ size │ data │ type │ flags │      │ name │
//	└──────┴──────┴──────┴──────┴──────┴───────┴──────┴──────┘
//
// Up to four bytes are in the field of data itself; the highest bit of size says so.
type storedValue struct {
	off        uint32
	rawName    []byte
	compressed bool
	kind       uint32
	size, data uint32
}

func (v storedValue) name() string { return storedText(v.rawName, v.compressed) }

// Values lists the names of the values that can be read; an error says that there are others.
func (k *key) Values() ([]string, error) {
	var names []string
	var offs []uint32
	var size int64
	lost := k.eachValue(func(v storedValue) bool {
		offs = append(offs, v.off)
		names = append(names, v.name())
		size += int64(len(v.rawName))
		return size <= k.h.limit
	})
	switch {
	case duplicates(offs):
		return nil, fmt.Errorf("key %q: %w", k.Name(), k.h.damage("key %#x: lists a value twice", k.off))
	case size > k.h.limit:
		lost = firstErr(lost, k.h.damage("key %#x: the names of its values overlap", k.off))
	}
	if lost != nil {
		return names, fmt.Errorf("key %q: values: %w", k.Name(), lost)
	}
	return names, nil
}

// Value reads one value.
func (k *key) Value(name string) (windows.Value, error) {
	v, err := k.find(name)
	if err == nil {
		var data []byte
		if data, err = k.h.data(v); err == nil {
			return windows.Value{Name: v.name(), Type: v.kind, Data: data}, nil
		}
	}
	return windows.Value{}, fmt.Errorf("key %q: value %q: %w", k.Name(), name, err)
}

func (k *key) find(name string) (storedValue, error) {
	var found storedValue
	ok := false
	lost := k.eachValue(func(v storedValue) bool {
		if sameName(v.rawName, v.compressed, name) {
			found, ok = v, true
		}
		return !ok
	})
	switch {
	case ok:
		return found, nil
	case lost != nil:
		return found, lost
	case k.flags&keyIsLink != 0:
		return found, errLink
	}
	return found, fs.ErrNotExist
}

// eachValue calls f with each value's record until it returns false. It goes on after a record that cannot be read, and returns what
// was the matter at the end.
func (k *key) eachValue(f func(storedValue) bool) error {
	if k.flags&keyPredefined != 0 {
		return errors.New("the key stands for one that Windows makes up, which has no values in the hive")
	}
	if k.values == 0 {
		return nil
	}
	// Each value takes four bytes in the list and a cell of 24.
	if int64(k.values) > k.h.limit/28 {
		return k.h.damage("key %#x: %d values in a hive of %#x bytes", k.off, k.values, k.h.limit)
	}
	c, err := k.h.cell(k.valueSet, "list of values")
	if err != nil {
		return err
	}
	b, err := c.read(0, 4*int64(k.values), "list of values")
	if err != nil {
		return err
	}
	var lost error
	bad := 0
	for ; len(b) > 0; b = b[4:] {
		v, err := k.h.value(le.Uint32(b))
		if err != nil {
			lost = firstErr(lost, err)
			if bad++; bad == maxUnreadable {
				return lost
			}
			continue
		}
		if !f(v) {
			return nil
		}
	}
	return lost
}

func (h *Hive) value(off uint32) (storedValue, error) {
	c, err := h.cell(off, "value")
	if err != nil {
		return storedValue{}, err
	}
	b, err := c.read(0, valueSize, "value")
	if err != nil {
		return storedValue{}, err
	}
	if string(b[:2]) != "vk" {
		return storedValue{}, h.damage("value %#x: signature %q", off, b[:2])
	}
	v := storedValue{off: off, compressed: le.Uint16(b[16:])&vkCompressed != 0, size: le.Uint32(b[4:]), data: le.Uint32(b[8:]), kind: le.Uint32(b[12:])}
	n := int64(le.Uint16(b[2:]))
	if n > 2*maxValueName {
		return storedValue{}, h.damage("value %#x: a name of %d bytes", off, n)
	}
	v.rawName, err = c.read(valueSize, n, "value's name")
	return v, err
}

// data is a copy of a value's data.
func (h *Hive) data(v storedValue) ([]byte, error) {
	n := int64(v.size &^ resident)
	if n == 0 {
		return nil, nil
	}
	if v.size&resident != 0 {
		if n > 4 {
			return nil, h.damage("value %#x: %d bytes in place of its offset", v.off, n)
		}
		return le.AppendUint32(nil, v.data)[:n], nil
	}
	if n > maxValue || n > h.limit {
		return nil, h.damage("value %#x: %d bytes of data in a hive of %#x", v.off, n, h.limit)
	}
	c, err := h.cell(v.data, "value's data")
	if err != nil {
		return nil, err
	}
	// A cell that is large enough holds the data itself, whatever it begins with: a db record is much smaller.
	if n <= segmentSize || h.base.minor < 4 || c.size >= n {
		b, err := c.read(0, n, "value's data")
		return append([]byte(nil), b...), err
	}
	return h.longData(c, n)
}

// longData joins data of n bytes from its segments.
//
// db: "db", count, offset of count × offset of a segment. Each segment but the last has 16344 bytes.
func (h *Hive) longData(c cell, n int64) ([]byte, error) {
	c, err := h.segments(c, n)
	if err != nil {
		return nil, err
	}
	list, err := c.read(0, 4*((n+segmentSize-1)/segmentSize), "list of segments")
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, n)
	for ; len(list) > 0; list = list[4:] {
		s, err := h.cell(le.Uint32(list), "segment")
		if err != nil {
			return nil, err
		}
		part, err := s.read(0, min(segmentSize, n-int64(len(out))), "segment")
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	return out, nil
}

// segments finds the list of the segments of n bytes of data from their record.
func (h *Hive) segments(c cell, n int64) (cell, error) {
	b, err := c.read(0, 8, "long data")
	if err != nil {
		return c, err
	}
	count := int64(le.Uint16(b[2:]))
	if string(b[:2]) != "db" || count != (n+segmentSize-1)/segmentSize {
		return c, h.damage("long data %#x: signature %q, %d segments for %d bytes", c.off, b[:2], count, n)
	}
	return h.cell(le.Uint32(b[4:]), "list of segments")
}

// duplicates reports whether an offset occurs twice.
func duplicates(offs []uint32) bool {
	sorted := slices.Clone(offs)
	slices.Sort(sorted)
	return len(slices.Compact(sorted)) != len(offs)
}

// SZ is the text of a string (REG_SZ, REG_EXPAND_SZ as stored), up to its first NUL.
func SZ(v windows.Value) (string, error) {
	if v.Type != windows.RegSZ && v.Type != windows.RegExpandSZ {
		return "", wrongType(v, "REG_SZ or REG_EXPAND_SZ")
	}
	if len(v.Data)%2 != 0 {
		return "", wrongSize(v, "an even number")
	}
	s, _ := cutNUL(v.Data)
	return decodeUTF16(s), nil
}

// MultiSZ is the strings of a REG_MULTI_SZ, up to the empty one that ends it. A few values hold empty strings in between and are not
// of that form, PendingFileRenameOperations the best known: whether such a one is empty is all that MultiSZ tells.
func MultiSZ(v windows.Value) ([]string, error) {
	if v.Type != windows.RegMultiSZ {
		return nil, wrongType(v, "REG_MULTI_SZ")
	}
	if len(v.Data)%2 != 0 {
		return nil, wrongSize(v, "an even number")
	}
	var all []string
	for rest := v.Data; ; {
		var s []byte
		if s, rest = cutNUL(rest); len(s) == 0 {
			return all, nil
		}
		all = append(all, decodeUTF16(s))
	}
}

// cutNUL splits UTF-16 at its first NUL.
func cutNUL(b []byte) (before, after []byte) {
	for i := 0; i+1 < len(b); i += 2 {
		if b[i] == 0 && b[i+1] == 0 {
			return b[:i], b[i+2:]
		}
	}
	return b, nil
}

// DWORD is the number in a REG_DWORD.
func DWORD(v windows.Value) (uint32, error) {
	if v.Type != windows.RegDWORD {
		return 0, wrongType(v, "REG_DWORD")
	}
	if len(v.Data) != 4 {
		return 0, wrongSize(v, "4")
	}
	return le.Uint32(v.Data), nil
}

// QWORD is the number in a REG_QWORD.
func QWORD(v windows.Value) (uint64, error) {
	if v.Type != windows.RegQWORD {
		return 0, wrongType(v, "REG_QWORD")
	}
	if len(v.Data) != 8 {
		return 0, wrongSize(v, "8")
	}
	return le.Uint64(v.Data), nil
}

// NewSZ is a REG_SZ.
func NewSZ(name, text string) windows.Value {
	return windows.Value{Name: name, Type: windows.RegSZ, Data: encodeSZ(text)}
}

// NewDWORD is a REG_DWORD.
func NewDWORD(name string, n uint32) windows.Value {
	return windows.Value{Name: name, Type: windows.RegDWORD, Data: le.AppendUint32(nil, n)}
}

func wrongType(v windows.Value, want string) error {
	return fmt.Errorf("value %q: type %d, want %s", v.Name, v.Type, want)
}

func wrongSize(v windows.Value, want string) error {
	return fmt.Errorf("value %q: %d bytes of type %d, want %s of bytes", v.Name, len(v.Data), v.Type, want)
}
