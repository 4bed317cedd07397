package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// editor is a hive in memory with pages of its own to write on. Every cell in use that can be reached is known to have one owner.
type editor struct {
	*Hive
	free  []freeCell
	steps int64 // free cells that were looked at
}

// maxSteps bounds the free cells that are looked at: many edits of a hive that is nothing but free cells would take hours.
const maxSteps = 1 << 31

type freeCell struct {
	off  uint32
	size int64 // with its header
}

// newEditor reads a whole hive, with its logs applied, and takes stock of its cells.
func newEditor(h *Hive) (*editor, error) {
	if h.limit > maxEdited {
		return nil, fmt.Errorf("it has %d bytes", h.limit)
	}
	whole, err := h.pages.read(0, h.limit)
	if err != nil {
		return nil, err
	}
	e := &editor{Hive: &Hive{base: h.base, limit: h.limit, pages: &pages{size: h.limit, whole: whole, edited: map[int64][]byte{}}}}
	c := &census{Hive: e.Hive, begins: newBitmap(h.base.bins), owned: newBitmap(h.base.bins), shared: newBitmap(h.base.bins)}
	if e.free, err = c.take(); err != nil {
		return nil, err
	}
	return e, nil
}

// edit makes one edit, and tells whether it changed anything.
func (e *editor) edit(x Edit) (changed bool, err error) {
	if err := checkValueName(x.Value.Name); err != nil {
		return false, err
	}
	if len(x.Value.Data) > segmentSize && !x.Delete {
		return false, fmt.Errorf("%d bytes; at most %d are set", len(x.Value.Data), segmentSize)
	}
	root, err := e.Root()
	if err != nil {
		return false, err
	}
	at, err := root.Open(x.Key)
	if x.Delete && errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	k := at.(*key)
	if k.flags&(keyIsLink|keyPredefined) != 0 {
		return false, errors.New("the key is a link or stands for one that Windows makes up")
	}
	if x.Delete {
		changed, err = e.remove(k, x.Value.Name)
	} else {
		changed, err = e.set(k, x)
	}
	if changed && err == nil && !x.At.IsZero() {
		err = e.write(k.off, 4, le.AppendUint64(nil, filetime(x.At.UTC().Truncate(100*time.Nanosecond))))
	}
	return changed, err
}

func (e *editor) set(k *key, x Edit) (changed bool, err error) {
	v, err := k.find(x.Value.Name)
	if errors.Is(err, fs.ErrNotExist) {
		if v.off, err = e.add(k, x.Value.Name); err != nil {
			return true, err
		}
		v.size = resident
	} else if err != nil {
		return false, err
	} else if old, err := e.data(v); err != nil {
		return false, err
	} else if v.kind == x.Value.Type && bytes.Equal(old, x.Value.Data) {
		return false, nil
	}
	data, err := e.place(v, x.Value.Data)
	if err != nil {
		return true, err
	}
	size := uint32(len(x.Value.Data))
	if size <= 4 {
		size |= resident
	}
	record := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, size), data), x.Value.Type)
	if err := e.write(v.off, 4, record); err != nil {
		return true, err
	}
	return true, e.raise(k, 64, uint32(len(x.Value.Data)))
}

// place finds room for a value's data, or makes it the field of its offset.
func (e *editor) place(v storedValue, data []byte) (uint32, error) {
	if n := v.size; n > 4 && n <= segmentSize && len(data) > 4 {
		old, err := e.cell(v.data, "value's data")
		if err != nil {
			return 0, err
		}
		if int64(len(data)) <= old.size {
			return v.data, e.write(v.data, 0, append(bytes.Clone(data), make([]byte, old.size-int64(len(data)))...))
		}
	}
	if err := e.releaseData(v); err != nil {
		return 0, err
	}
	if len(data) > 4 {
		return e.allocate(data)
	}
	var field [4]byte
	copy(field[:], data)
	return le.Uint32(field[:]), nil
}

// add adds a value without data to a key and gives its record's offset.
func (e *editor) add(k *key, name string) (uint32, error) {
	raw, compressed := storedName(name)
	record := make([]byte, valueSize, valueSize+len(raw))
	copy(record, "vk")
	le.PutUint16(record[2:], uint16(len(raw)))
	le.PutUint32(record[4:], resident)
	if compressed && len(raw) > 0 {
		le.PutUint16(record[16:], vkCompressed)
	}
	off, err := e.allocate(append(record, raw...))
	if err != nil {
		return 0, err
	}
	list, old, err := e.values(k)
	if err != nil {
		return 0, err
	}
	list = le.AppendUint32(list, off)
	at := k.valueSet
	if int64(len(list)) <= old.size {
		err = e.write(at, 0, list)
	} else if at, err = e.allocate(list); err == nil {
		err = e.release(old)
	}
	if err != nil {
		return 0, err
	}
	if err := e.write(k.off, 36, le.AppendUint32(le.AppendUint32(nil, k.values+1), at)); err != nil {
		return 0, err
	}
	return off, e.raise(k, 60, uint32(len(encodeUTF16(name))))
}

// remove takes a value out of a key and frees its cells. The fields for the key's longest name and data stay: they are upper bounds.
func (e *editor) remove(k *key, name string) (changed bool, err error) {
	v, err := k.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	list, cell, err := e.values(k)
	if err != nil {
		return false, err
	}
	i := 0
	for i < len(list) && le.Uint32(list[i:]) != v.off {
		i += 4
	}
	if i == len(list) {
		return false, fmt.Errorf("value %#x is not in its list", v.off) // find had it from there
	}
	list = append(slices.Delete(list, i, i+4), 0, 0, 0, 0)
	at := k.valueSet
	if k.values > 1 {
		err = e.write(at, 0, list)
	} else {
		at, err = none, e.release(cell)
	}
	if err != nil {
		return true, err
	}
	if err := e.write(k.off, 36, le.AppendUint32(le.AppendUint32(nil, k.values-1), at)); err != nil {
		return true, err
	}
	if err := e.releaseData(v); err != nil {
		return true, err
	}
	record, err := e.cell(v.off, "value")
	if err != nil {
		return true, err
	}
	return true, e.release(record)
}

// values is a copy of a key's list of values and its cell, or nothing.
func (e *editor) values(k *key) ([]byte, cell, error) {
	if k.values == 0 {
		return nil, cell{}, nil
	}
	c, err := e.cell(k.valueSet, "list of values")
	if err != nil {
		return nil, c, err
	}
	list, err := c.read(0, 4*int64(k.values), "list of values")
	return bytes.Clone(list), c, err
}

// releaseData frees the cells of a value's data.
func (e *editor) releaseData(v storedValue) error {
	cells, err := e.dataCells(v)
	if err != nil {
		return err
	}
	for _, off := range cells {
		c, err := e.cell(off, "value's data")
		if err != nil {
			return err
		}
		if err := e.release(c); err != nil {
			return err
		}
	}
	return nil
}

// raise sees that a key's field for the largest of something is not too small.
func (e *editor) raise(k *key, field int64, n uint32) error {
	c, err := e.cell(k.off, "key")
	if err != nil {
		return err
	}
	b, err := c.read(field, 4, "key")
	if err != nil || le.Uint32(b) >= n {
		return err
	}
	return e.write(k.off, field, le.AppendUint32(nil, n))
}

// write puts bytes into a cell's contents.
func (e *editor) write(off uint32, at int64, b []byte) error {
	c, err := e.cell(off, "cell to edit")
	if err != nil {
		return err
	}
	if at+int64(len(b)) > c.size {
		return fmt.Errorf("cell %#x: %d bytes at %d do not fit in %d", off, len(b), at, c.size)
	}
	return e.pages.write(baseSize+int64(off)+cellHeader+at, b)
}

// allocate makes a cell of the smallest free one that is large enough.
func (e *editor) allocate(data []byte) (uint32, error) {
	if err := e.step(); err != nil {
		return 0, err
	}
	need := int64(len(data)+cellHeader+7) &^ 7
	best := -1
	for i, f := range e.free {
		if f.size >= need && (best < 0 || f.size < e.free[best].size) {
			best = i
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("no free cell of %d bytes: the hive would have to grow", need)
	}
	f := e.free[best]
	if left := f.size - need; left > 0 {
		rest := freeCell{f.off + uint32(need), left}
		e.free[best] = rest
		if err := e.pages.write(baseSize+int64(rest.off), le.AppendUint32(nil, uint32(left))); err != nil {
			return 0, err
		}
	} else {
		e.free = slices.Delete(e.free, best, best+1)
	}
	whole := make([]byte, need)
	le.PutUint32(whole, uint32(-int32(need)))
	copy(whole[cellHeader:], data)
	return f.off, e.pages.write(baseSize+int64(f.off), whole)
}

// release makes a cell free and wipes it; the zero cell is none. Free neighbours become one with it, as Windows does it. Those in another
// hbin are none: its header lies between.
func (e *editor) release(c cell) error {
	if c.size == 0 {
		return nil
	}
	if err := e.step(); err != nil {
		return err
	}
	x := freeCell{c.off, c.size + cellHeader}
	wiped := x.size
	e.free = slices.DeleteFunc(e.free, func(f freeCell) bool {
		switch {
		case int64(f.off)+f.size == int64(x.off):
			x.off = f.off
		case int64(x.off)+x.size == int64(f.off):
			wiped += cellHeader
		default:
			return false
		}
		x.size += f.size
		return true
	})
	e.free = append(e.free, x)
	if err := e.pages.write(baseSize+int64(c.off), make([]byte, wiped)); err != nil {
		return err
	}
	return e.pages.write(baseSize+int64(x.off), le.AppendUint32(nil, uint32(x.size)))
}

// step counts a look at all free cells.
func (e *editor) step() error {
	if e.steps += int64(len(e.free)); e.steps > maxSteps {
		return fmt.Errorf("the hive has %d free cells: too many for so many edits", len(e.free))
	}
	return nil
}
