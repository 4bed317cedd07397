package registry

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"berth/internal/windows"
)

// maxEdited bounds a hive that is edited, in bytes: it is in memory meanwhile. SOFTWARE of a Windows that was used for years has about 150 MB.
const maxEdited = 512 << 20

// Edit is one alteration of a key that exists.
type Edit struct {
	Key string // path from the root, backslashes
	// Value is set: its type and data if the key has a value of this name, else it is added. Name "" is the default value.
	Value windows.Value
	// Delete removes the value named Value.Name instead. That it is not there, or its key is not, is no error.
	Delete bool
	// At becomes the key's and the hive's time of last write, if the edit changes anything; zero leaves them.
	At time.Time
}

// Patch is bytes to be put over a file.
type Patch struct {
	Off  int64  // from the beginning of the hive file
	Data []byte // not to be changed
}

// Patch tells which bytes of the hive file would make the edits, in order of their offsets. Nothing is written: putting all of
// them over the file leaves a hive that is cleanly closed, with its logs applied. It tells nothing where nothing would change.
//
// The logs need no patch. Windows does not look at them while the hive is clean; when it next is not, only entries count whose
// sequence number is the hive's or a later one, and the one that the hive is given is beyond those of every log handed to [Open].
//
// The hive never grows: what does not fit in place goes to free cells. What an edit frees or no longer needs is overwritten with zeros: a
// password that is deleted is gone from the hive.
//
// It fails where an edit cannot be made exactly: on a hive that is stale, has grown in its logs beyond its file, is larger than 512 MiB,
// or is damaged anywhere; fs.ErrNotExist for a key that is not there; on data of more than 16344 bytes; and when there is no
// free cell large enough. To know, it reads the hive as a whole into memory and sees that no cell is used twice; before it answers
// it reads the result back through the patches in the same way.
func (h *Hive) Patch(edits ...Edit) ([]Patch, error) {
	switch s := h.State(); {
	case s.Stale:
		return nil, fmt.Errorf("hive: not edited: %s", s.Why)
	case s.Damaged != "":
		return nil, fmt.Errorf("%w: not edited: %s", ErrDamaged, s.Damaged)
	case h.limit > h.pages.size:
		return nil, fmt.Errorf("hive: not edited: its logs make it %d bytes and its file has %d", h.limit, h.pages.size)
	case h.limit > maxEdited:
		return nil, fmt.Errorf("hive: not edited: it has %d bytes; at most %d are edited", h.limit, maxEdited)
	}
	newest, err := h.newestLog()
	if err != nil {
		return nil, err
	}
	e, err := newEditor(h)
	if err != nil {
		return nil, fmt.Errorf("hive: not edited: %w", err)
	}
	var at time.Time
	for _, x := range edits {
		changed, err := e.edit(x)
		if err != nil {
			return nil, fmt.Errorf("key %q: value %q: not edited: %w", x.Key, x.Value.Name, err)
		}
		if changed && x.At.After(at) {
			at = x.At
		}
	}
	if len(e.pages.edited) == 0 && !h.State().Dirty {
		return nil, nil
	}
	patches, err := e.patches(h.pages, newest, at)
	if err != nil {
		return nil, err
	}
	if err := verify(&patched{h.pages.source, patches}, h.pages.size, edits); err != nil {
		return nil, fmt.Errorf("the edited hive: %w", err)
	}
	return patches, nil
}

// sequence is a sequence number, or none.
type sequence struct {
	seq uint32
	ok  bool
}

// newestLog is the last sequence number that the logs name, those of entries that did not count too; not ok when there is none.
func (h *Hive) newestLog() (newest sequence, err error) {
	see := func(seq uint32) {
		if !newest.ok || before(newest.seq, seq) {
			newest.seq, newest.ok = seq, true
		}
	}
	for _, l := range h.logs {
		base, entries, _, err := readLog(l)
		if err != nil {
			return newest, fmt.Errorf("hive: not edited: log %s: %w", l.Name, err)
		}
		if !base.sound {
			continue
		}
		see(base.seq1)
		see(base.seq2)
		for _, e := range entries {
			see(e.seq)
		}
	}
	return newest, nil
}

// patches are the pages that the logs and the edits changed, and the base block.
func (e *editor) patches(file *pages, newest sequence, at time.Time) ([]Patch, error) {
	base := bytes.Clone(e.pages.whole[:logHeader])
	seq := e.base.seq1 + 1
	if newest.ok && before(seq, newest.seq+1) {
		seq = newest.seq + 1
	}
	le.PutUint32(base[4:], seq)
	le.PutUint32(base[8:], seq)
	if !at.IsZero() {
		le.PutUint64(base[12:], filetime(at))
	}
	// They may have come from a log's copy of the base block.
	for i, v := range []uint32{e.base.major, e.base.minor, 0, e.base.format, e.base.root, e.base.bins} {
		le.PutUint32(base[20+4*i:], v)
	}
	le.PutUint32(base[508:], baseChecksum(base))
	all := maps.Clone(e.pages.edited)
	for page := range file.changed {
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
		out = append(out, Patch{page * pageSize, bytes.Clone(d)}) // it must not keep the whole hive in memory
	}
	return out, nil
}

// patched is a file with patches over it, which are in order.
type patched struct {
	io.ReaderAt
	patches []Patch
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, off)
	end := off + int64(n)
	first, _ := slices.BinarySearchFunc(p.patches, off, func(x Patch, off int64) int { return cmp.Compare(x.Off+int64(len(x.Data)), off+1) })
	for _, x := range p.patches[first:] {
		from, to := max(off, x.Off), min(end, x.Off+int64(len(x.Data)))
		if from >= to {
			break
		}
		copy(b[from-off:to-off], x.Data[from-x.Off:])
	}
	return n, err
}

// verify reads the hive and the edited values back; of edits of one value the last counts.
func verify(r io.ReaderAt, size int64, edits []Edit) error {
	h, err := Open(r, size)
	if err != nil {
		return err
	}
	if s := h.State(); s != (State{}) {
		return fmt.Errorf("it is not clean: %+v", s)
	}
	e, err := newEditor(h)
	if err != nil {
		return err
	}
	root, err := e.Root()
	if err != nil {
		return err
	}
	last := map[string]int{}
	of := func(x Edit) string {
		return foldName(strings.Join(splitPath(x.Key), `\`)) + "\x00" + foldName(x.Value.Name)
	}
	for i, x := range edits {
		last[of(x)] = i
	}
	for i, x := range edits {
		if last[of(x)] != i {
			continue
		}
		v, err := valueAt(root, x.Key, x.Value.Name)
		switch {
		case x.Delete && errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case x.Delete:
			return fmt.Errorf("key %q: value %q is still there, or was there twice", x.Key, x.Value.Name)
		case v.Type != x.Value.Type || string(v.Data) != string(x.Value.Data):
			return fmt.Errorf("key %q: value %q reads back as type %d, %x", x.Key, x.Value.Name, v.Type, v.Data)
		}
	}
	return nil
}

func valueAt(root windows.Key, path, name string) (windows.Value, error) {
	k, err := root.Open(path)
	if err != nil {
		return windows.Value{}, err
	}
	return k.Value(name)
}
