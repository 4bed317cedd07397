package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"berth/internal/windows"
)

// Edit sets a value of a key that exists: its type and data if the value exists, else the value is added. Value.Name "" is the
// default value. The key's time stays.
type Edit struct {
	Key   string // path from the root, backslashes
	Value windows.Value
}

// Patch is bytes to be put over a file.
type Patch struct {
	Off  int64  // from the beginning of the hive file
	Data []byte // not to be changed
}

// Patch tells which bytes of the hive file would make the edits, in order of their offsets. Nothing is written: putting all of
// them over the file leaves a hive that is cleanly closed, with its logs applied and of no more effect. The hive never grows: what
// does not fit in place goes to free cells.
//
// It fails where an edit cannot be made exactly: on a hive that is stale or known to be damaged, or has grown in its logs
// beyond its file; fs.ErrNotExist for a key that is not there; on values that are, or would be, longer than 16344 bytes; and when
// there is no free cell large enough. Before it answers it reads the edited values back through the patches.
func (h *Hive) Patch(edits ...Edit) ([]Patch, error) {
	switch s := h.State(); {
	case s.Stale:
		return nil, fmt.Errorf("hive: not edited: %s", s.Why)
	case s.Damaged != "":
		return nil, fmt.Errorf("%w: not edited: %s", ErrDamaged, s.Damaged)
	case h.limit > h.pages.size:
		return nil, fmt.Errorf("hive: not edited: its logs make it %d bytes and its file has %d", h.limit, h.pages.size)
	}
	e := &editor{Hive: &Hive{base: h.base, limit: h.limit, pages: &pages{
		source: h.pages.source, size: h.pages.size, changed: h.pages.changed, edited: map[int64][]byte{}}}}
	for _, x := range edits {
		if err := e.set(x); err != nil {
			return nil, fmt.Errorf("key %q: value %q: not edited: %w", x.Key, x.Value.Name, err)
		}
	}
	patches, err := e.patches()
	if err != nil {
		return nil, err
	}
	return patches, verify(&patched{h.pages.source, patches}, h.pages.size, edits)
}

// editor is a hive with pages of its own to write on.
type editor struct {
	*Hive
	free    []freeCell
	scanned bool
}

type freeCell struct {
	off  uint32
	size int64 // with its header
}

func (e *editor) set(x Edit) error {
	if err := checkValueName(x.Value.Name); err != nil {
		return err
	}
	if len(x.Value.Data) > segmentSize {
		return fmt.Errorf("%d bytes; at most %d are set in place", len(x.Value.Data), segmentSize)
	}
	root, err := e.Root()
	if err != nil {
		return err
	}
	at, err := root.Open(x.Key)
	if err != nil {
		return err
	}
	k := at.(*key)
	if k.flags&(keyIsLink|keyPredefined) != 0 {
		return errors.New("the key is a link or stands for one that Windows makes up")
	}
	v, err := k.find(x.Value.Name)
	if errors.Is(err, fs.ErrNotExist) {
		if v.off, err = e.add(k, x.Value.Name); err != nil {
			return err
		}
		v.size = resident
	} else if err != nil {
		return err
	}
	data, err := e.place(v, x.Value.Data)
	if err != nil {
		return err
	}
	size := uint32(len(x.Value.Data))
	if size <= 4 {
		size |= resident
	}
	record := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, size), data), x.Value.Type)
	if err := e.write(v.off, 4, record); err != nil {
		return err
	}
	return e.raise(k, 64, uint32(len(x.Value.Data)))
}

// place finds room for a value's data, or makes it the field of its offset.
func (e *editor) place(v storedValue, data []byte) (uint32, error) {
	old := cell{}
	if v.size&resident == 0 && v.size > 0 {
		if v.size > segmentSize {
			return 0, fmt.Errorf("it has %d bytes now; at most %d are replaced", v.size, segmentSize)
		}
		var err error
		if old, err = e.cell(v.data, "value's data"); err != nil {
			return 0, err
		}
	}
	switch n := int64(len(data)); {
	case n > 4 && n <= old.size:
		return v.data, e.write(v.data, 0, data)
	case n > 4:
		off, err := e.allocate(data)
		if err != nil {
			return 0, err
		}
		return off, e.release(old)
	}
	var field [4]byte
	copy(field[:], data)
	return le.Uint32(field[:]), e.release(old)
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
	list, old := []byte{}, cell{}
	if k.values > 0 {
		if old, err = e.cell(k.valueSet, "list of values"); err != nil {
			return 0, err
		}
		if list, err = old.read(0, 4*int64(k.values), "list of values"); err != nil {
			return 0, err
		}
	}
	list = le.AppendUint32(slices.Clone(list), off)
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
	if err := e.scan(); err != nil {
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

// release makes a cell free; the zero cell is none. It is not joined with free neighbours: Windows does so when it next frees one of them.
func (e *editor) release(c cell) error {
	if c.size == 0 {
		return nil
	}
	size := c.size + cellHeader
	e.free = append(e.free, freeCell{c.off, size})
	return e.pages.write(baseSize+int64(c.off), le.AppendUint32(nil, uint32(size)))
}

// scan finds the free cells of the whole hive, once.
func (e *editor) scan() error {
	if e.scanned {
		return nil
	}
	e.scanned = true
	released := map[uint32]bool{}
	for _, f := range e.free {
		released[f.off] = true
	}
	for bin := int64(0); bin < int64(e.base.bins); {
		b, err := e.pages.read(baseSize+bin, binHeader)
		if err != nil {
			return fmt.Errorf("hive: hbin %#x: %w", bin, err)
		}
		size := int64(le.Uint32(b[8:]))
		if string(b[:4]) != "hbin" || int64(le.Uint32(b[4:])) != bin || size == 0 || size%pageSize != 0 || bin+size > int64(e.base.bins) {
			return e.damage("hbin %#x: signature %q, offset %#x, size %#x", bin, b[:4], le.Uint32(b[4:]), size)
		}
		for at := bin + binHeader; at < bin+size; {
			b, err := e.pages.read(baseSize+at, cellHeader)
			if err != nil {
				return fmt.Errorf("hive: cell %#x: %w", at, err)
			}
			n := int64(int32(le.Uint32(b)))
			free := n > 0
			n = max(n, -n)
			if n < 8 || n%8 != 0 || at+n > bin+size {
				return e.damage("cell %#x: size %d in an hbin that ends at %#x", at, n, bin+size)
			}
			if free && !released[uint32(at)] {
				e.free = append(e.free, freeCell{uint32(at), n})
			}
			at += n
		}
		bin += size
	}
	return nil
}

// patches are the pages that the logs and the edits changed, and the base block.
func (e *editor) patches() ([]Patch, error) {
	base := make([]byte, 512)
	if err := readFull(e.pages.source, base, 0); err != nil {
		return nil, fmt.Errorf("hive: base block: %w", err)
	}
	seq := e.base.seq1 + 1
	if before(seq, e.base.lastLog+1) && len(e.pages.changed) > 0 {
		seq = e.base.lastLog + 1
	}
	le.PutUint32(base[4:], seq)
	le.PutUint32(base[8:], seq)
	le.PutUint32(base[40:], e.base.bins)
	le.PutUint32(base[508:], baseChecksum(base))
	all := maps.Clone(e.pages.edited)
	for page := range e.pages.changed {
		all[page] = nil
	}
	if len(all) > maxLog/pageSize {
		return nil, fmt.Errorf("hive: not edited: its logs change %d pages; at most %d are put into it", len(all), maxLog/pageSize)
	}
	out := []Patch{{0, base}}
	for _, page := range slices.Sorted(maps.Keys(all)) {
		if page*pageSize >= e.limit {
			continue // from an earlier log entry, before the hive shrank
		}
		d, err := e.pages.page(page)
		if err != nil {
			return nil, fmt.Errorf("hive: page %#x: %w", page, err)
		}
		out = append(out, Patch{page * pageSize, d})
	}
	return out, nil
}

// patched is a file with patches over it.
type patched struct {
	io.ReaderAt
	patches []Patch
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, off)
	for _, x := range p.patches {
		if from, to := max(off, x.Off), min(off+int64(n), x.Off+int64(len(x.Data))); from < to {
			copy(b[from-off:to-off], x.Data[from-x.Off:])
		}
	}
	return n, err
}

// verify reads the edited values back; of edits of one value the last counts.
func verify(r io.ReaderAt, size int64, edits []Edit) error {
	h, err := Open(r, size)
	if err != nil {
		return fmt.Errorf("the edited hive: %w", err)
	}
	if s := h.State(); s != (State{}) {
		return fmt.Errorf("the edited hive is not clean: %+v", s)
	}
	root, err := h.Root()
	if err != nil {
		return fmt.Errorf("the edited hive: %w", err)
	}
	for i, x := range edits {
		if slices.ContainsFunc(edits[i+1:], func(y Edit) bool { return EqualNames(x.Key, y.Key) && EqualNames(x.Value.Name, y.Value.Name) }) {
			continue
		}
		k, err := root.Open(x.Key)
		if err != nil {
			return fmt.Errorf("the edited hive: %w", err)
		}
		v, err := k.Value(x.Value.Name)
		if err != nil {
			return fmt.Errorf("the edited hive: %w", err)
		}
		if v.Type != x.Value.Type || string(v.Data) != string(x.Value.Data) {
			return fmt.Errorf("the edited hive: key %q: value %q reads back as type %d, %x", x.Key, x.Value.Name, v.Type, v.Data)
		}
	}
	return nil
}
