package offline

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"berth/internal/disk"
	"berth/internal/windows"
	"berth/internal/windows/ntfs"
	"berth/internal/windows/registry"
)

// ErrNeedsGuest is wrapped by the error for a change that no edit of a powered-off disk can make.
var ErrNeedsGuest = errors.New("only a running Windows can")

// Difference is a registry value before and after a change.
type Difference struct {
	// Change is what was asked for. One change may come to several differences, or none.
	Change windows.Change
	Hive   windows.Hive
	Key    string // below the hive's root, with the control set's own name
	Name   string // "" is the default value
	// Old is nil where there was no such value, New where there will be none.
	Old, New *windows.Value
}

// Patch tells which bytes of the disk that [System.Location] names would make the changes; nothing is written. No bytes, and no error,
// mean that all is as it should be already. Keys that are altered get the time at; zero leaves their times.
//
// What is patched are pages of hive files, in the clusters that they have: no file grows, shrinks or moves, and nothing that
// belongs to the file system itself is touched. A hive that was not closed cleanly gets its transaction logs' contents too, and is
// clean afterwards; see [registry.Hive.Patch].
//
// SetValue, DeleteValue and EnableAccount can be made so; for any other change the error wraps ErrNeedsGuest. CurrentControlSet is
// the control set that Select\Current names, and the one that Select\Default names if it is another: the next start uses it.
//
// It fails as a whole, and says why, where Windows would not see the edit or the edit could do harm: on a volume that is marked dirty,
// on a machine that is hibernated or was shut down by Fast Startup, on a hive that registry refuses to edit, and on a hive file
// whose bytes are not plain clusters of the volume (resident, sparse where it matters, compressed, encrypted). fs.ErrNotExist
// (wrapped): the key that a value was to be set in is not there.
func (s *System) Patch(at time.Time, changes ...windows.Change) ([]disk.Patch, error) {
	differences, err := s.Diff(changes...)
	if err != nil || len(differences) == 0 {
		return nil, err
	}
	if err := s.patchable(); err != nil {
		return nil, err
	}
	var names []windows.Hive
	edits := map[windows.Hive][]registry.Edit{}
	for _, d := range differences {
		if edits[d.Hive] == nil {
			names = append(names, d.Hive)
		}
		x := registry.Edit{Key: d.Key, Value: windows.Value{Name: d.Name}, Delete: d.New == nil, At: at}
		if d.New != nil {
			x.Value = *d.New
		}
		edits[d.Hive] = append(edits[d.Hive], x)
	}
	var out []disk.Patch
	for _, name := range names {
		h := s.hives[name]
		if name == windows.BCD {
			return nil, errors.New("hive BCD: not edited: it is on the volume that starts the machine")
		}
		patches, err := h.reg.Patch(edits[name]...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.path, err)
		}
		if patches, err := s.place(h.path, patches); err != nil {
			return nil, fmt.Errorf("%s: %w", h.path, err)
		} else {
			out = append(out, patches...)
		}
	}
	return out, s.apart(out)
}

// Diff tells what the changes would alter, in their order; values that are as they should be already are left out. A value that several
// changes set has its last one's data. Errors are those of Patch that can be told without editing.
func (s *System) Diff(changes ...windows.Change) ([]Difference, error) {
	var out []*Difference
	seen := map[string]*Difference{}
	for _, c := range changes {
		list, err := s.differences(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
		for _, d := range list {
			id := strings.ToUpper(string(d.Hive) + `\` + d.Key + "\x00" + d.Name)
			if before := seen[id]; before != nil {
				d.Old = before.Old
				*before = Difference{}
			}
			seen[id] = &d
			out = append(out, &d)
		}
	}
	var altered []Difference
	for _, d := range out {
		same := d.Old != nil && d.New != nil && d.Old.Type == d.New.Type && bytes.Equal(d.Old.Data, d.New.Data)
		if !same && (d.Old != nil || d.New != nil) {
			altered = append(altered, *d)
		}
	}
	return altered, nil
}

// differences are those of one change, with those that change nothing.
func (s *System) differences(c windows.Change) ([]Difference, error) {
	switch c := c.(type) {
	case windows.SetValue:
		return s.value(c, c.Hive, c.Key, c.Value.Name, &c.Value)
	case windows.DeleteValue:
		return s.value(c, c.Hive, c.Key, c.Name, nil)
	case windows.EnableAccount:
		return s.enable(c)
	}
	return nil, ErrNeedsGuest
}

// value is what setting a value, or deleting it where v is nil, comes to in each control set that matters.
func (s *System) value(c windows.Change, name windows.Hive, key, valueName string, v *windows.Value) ([]Difference, error) {
	keys, err := s.controlSets(name, key)
	if err != nil {
		return nil, err
	}
	var out []Difference
	for i, key := range keys {
		d := Difference{Change: c, Hive: name, Key: key, Name: valueName}
		k, err := s.Open(name, key)
		if err == nil {
			var old windows.Value
			if old, err = k.Value(valueName); err == nil {
				d.Old, d.Name = &old, old.Name
			} else if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		} else if errors.Is(err, fs.ErrNotExist) && (v == nil || i > 0) {
			continue // nothing to delete, or a control set that lacks the key
		}
		if err != nil {
			return nil, err
		}
		if v != nil {
			now := windows.Value{Name: d.Name, Type: v.Type, Data: v.Data}
			d.New = &now
		}
		out = append(out, d)
	}
	return out, nil
}

// controlSets is the key, once for each control set that CurrentControlSet at its start stands for.
func (s *System) controlSets(name windows.Hive, key string) ([]string, error) {
	first, rest, _ := strings.Cut(key, `\`)
	if name != windows.SystemHive || !sameName(first, "CurrentControlSet") {
		return []string{key}, nil
	}
	root, err := s.Open(name, "")
	if err != nil {
		return nil, err
	}
	set, err := s.control.name(root)
	if err != nil {
		return nil, err
	}
	keys := []string{set + `\` + rest}
	v, err := valueAt(root, "Select", "Default")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return keys, nil
	case err != nil:
		return nil, err
	case v.Type != windows.RegDWORD || len(v.Data) != 4:
		return nil, fmt.Errorf(`SYSTEM\Select: Default has type %d and %d bytes`, v.Type, len(v.Data))
	}
	if next := fmt.Sprintf("ControlSet%03d", binary.LittleEndian.Uint32(v.Data)); next != set {
		keys = append(keys, next+`\`+rest)
	}
	return keys, nil
}

// An account's value F, of fixed size: the offsets and the bit as in byol-facts §4.2, numbers little-endian.
const (
	accountRID      = 0x30 // 32 bits
	accountFlags    = 0x38 // 16 bits
	accountDisabled = 0x0001
)

// enable clears the mark "disabled" in an account's value F.
func (s *System) enable(c windows.EnableAccount) ([]Difference, error) {
	key := fmt.Sprintf(`SAM\Domains\Account\Users\%08X`, c.RID)
	k, err := s.Open(windows.SAM, key)
	if err != nil {
		return nil, err
	}
	old, err := k.Value("F")
	if err != nil {
		return nil, err
	}
	if len(old.Data) < accountFlags+2 {
		return nil, fmt.Errorf("value F has %d bytes, the flags are at %#x", len(old.Data), accountFlags)
	}
	if rid := binary.LittleEndian.Uint32(old.Data[accountRID:]); rid != c.RID {
		return nil, fmt.Errorf("value F at %#x names RID %d", accountRID, rid)
	}
	now := windows.Value{Name: old.Name, Type: old.Type, Data: bytes.Clone(old.Data)}
	flags := binary.LittleEndian.Uint16(now.Data[accountFlags:])
	binary.LittleEndian.PutUint16(now.Data[accountFlags:], flags&^accountDisabled)
	return []Difference{{Change: c, Hive: windows.SAM, Key: key, Name: old.Name, Old: &old, New: &now}}, nil
}

// patchable tells why nothing on the volume may be edited.
func (s *System) patchable() error {
	info, err := s.volume.Info()
	if err != nil {
		return fmt.Errorf("not edited: %w", err)
	}
	if info.Dirty {
		return errors.New("not edited: the volume of Windows is marked dirty, and what its journal still holds could undo or tear an edit: start the machine, let chkdsk run, shut it down completely (shutdown /s /t 0) and export it again")
	}
	switch mark, err := s.hibernation(); {
	case err != nil:
		return fmt.Errorf("not edited: hiberfil.sys cannot be read, so that it cannot be told whether Windows is hibernated: %w", err)
	case mark != "":
		return fmt.Errorf("not edited: Windows is hibernated, or was shut down by Fast Startup (hiberfil.sys begins with %q), and would put back what it has in memory: switch it off (powercfg /h off), shut it down completely (shutdown /s /t 0) and export it again", mark)
	}
	return nil
}

// hibernation is the mark that hiberfil.sys begins with while Windows' memory is in it ("HIBR", "RSTR", "WAKE"; before Windows 8 in small
// letters); "" when there is none.
func (s *System) hibernation() (string, error) {
	r, size, err := openAt(s.files, "hiberfil.sys")
	if errors.Is(err, fs.ErrNotExist) || err == nil && size == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	head := make([]byte, min(size, 4))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return "", cmp.Or(err, io.ErrUnexpectedEOF)
	}
	if slices.Contains([]string{"HIBR", "RSTR", "WAKE"}, strings.ToUpper(string(head))) {
		return string(head), nil
	}
	return "", nil
}

// place turns patches of a file into patches of the disk.
func (s *System) place(name string, patches []registry.Patch) ([]disk.Patch, error) {
	extents, err := s.volume.Extents(name)
	if err != nil {
		return nil, fmt.Errorf("not edited: %w", err)
	}
	_, start, length := s.Location()
	var out []disk.Patch
	for _, p := range patches {
		for at := p.Off; at < p.Off+int64(len(p.Data)); {
			i, _ := slices.BinarySearchFunc(extents, at, func(e ntfs.Extent, at int64) int { return cmp.Compare(e.FileOffset+e.Length, at+1) })
			if i == len(extents) || extents[i].VolumeOffset < 0 {
				return nil, fmt.Errorf("not edited: the volume holds no clusters for the file's byte %#x", at)
			}
			e := extents[i]
			n := min(p.Off+int64(len(p.Data)), e.FileOffset+e.Length) - at
			off := e.VolumeOffset + at - e.FileOffset
			if off+n > length {
				return nil, fmt.Errorf("not edited: the file's byte %#x is at %#x of the volume, which has %#x", at, off, length)
			}
			out = append(out, disk.Patch{Off: start + off, Data: p.Data[at-p.Off:][:n:n]})
			at += n
		}
	}
	return out, nil
}

// metadata are the file system's own files that lie in clusters. What mkntfs or Windows keeps within the MFT is not among them.
var metadata = []string{"$MFT", "$MFTMirr", "$LogFile", "$AttrDef", "$Bitmap", "$Boot", "$UpCase", "$Secure:$SDS"}

// apart sees that no patch is on a cluster of the file system's own files or of another patch. On a volume that is not hostile none is.
func (s *System) apart(patches []disk.Patch) error {
	type stretch struct {
		off, end int64
		what     string
	}
	var all []stretch
	_, start, _ := s.Location()
	for _, name := range metadata {
		extents, err := s.volume.Extents(name)
		if err != nil {
			continue // it is within the MFT, or is not there
		}
		for _, e := range extents {
			if e.VolumeOffset >= 0 {
				all = append(all, stretch{start + e.VolumeOffset, start + e.VolumeOffset + e.Length, name})
			}
		}
	}
	for _, p := range patches {
		all = append(all, stretch{p.Off, p.Off + int64(len(p.Data)), ""})
	}
	slices.SortStableFunc(all, func(a, b stretch) int { return cmp.Compare(a.off, b.off) })
	furthest := stretch{}
	for _, x := range all {
		if x.off < furthest.end && (x.what == "" || furthest.what == "") {
			return fmt.Errorf("not edited: byte %#x of the disk belongs to two files: a hive and %s", x.off, cmp.Or(x.what, furthest.what, "another hive"))
		}
		if x.end > furthest.end {
			furthest = x
		}
	}
	return nil
}

func valueAt(root windows.Key, key, name string) (windows.Value, error) {
	k, err := root.Open(key)
	if err != nil {
		return windows.Value{}, err
	}
	return k.Value(name)
}
