package check

import (
	"errors"
	"fmt"
	"io/fs"

	"berth/internal/windows"
)

// reader asks one System.
type reader struct {
	sys windows.System
	// controlSet is what people see instead of "CurrentControlSet".
	controlSet string
	// running: the System is a Windows that runs.
	running bool
	states  map[windows.Hive]hiveText
	// file is where the hive of a user lies, of whose registry this is the reader: a path on C: with slashes; else empty.
	file string
}

// currentControlSet begins the paths that follow Select\Current; see [windows.System].
const currentControlSet = `CurrentControlSet`

// errNoKey: a key that every Windows has is not there.
var errNoKey = errors.New("the key, which every Windows has, is missing")

// usable says whether facts may be read from a hive at all.
func (r *reader) usable(h windows.Hive) error {
	st := r.sys.Hive(h)
	if st.Err != nil && !errors.Is(st.Err, fs.ErrNotExist) {
		return fmt.Errorf("the %s hive cannot be read: %w", h, st.Err)
	}
	if st.Err != nil { // not wrapped: a hive that is not there is no proof that its values are not set
		return fmt.Errorf("the %s hive is missing", h)
	}
	if st.Stale {
		return fmt.Errorf("the %s hive is out of date: %s", h, staleWhy(st))
	}
	if st.Cut {
		return fmt.Errorf("the %s hive is cut off: %s", h, printable(st.Damaged))
	}
	return nil
}

// absence turns "surely absent" into an ordinary error where it is not that sure.
func (r *reader) absence(h windows.Hive, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if st := r.sys.Hive(h); st.Damaged != "" {
		return fmt.Errorf("it was not found, but the %s hive is damaged: %s", h, printable(st.Damaged))
	}
	return err
}

// open opens a key. fs.ErrNotExist means surely absent.
func (r *reader) open(h windows.Hive, p string) (windows.Key, error) {
	if err := r.usable(h); err != nil {
		return nil, err
	}
	k, err := r.sys.Open(h, p)
	if err != nil {
		return nil, r.absence(h, err)
	}
	return k, nil
}

// why is an error as a fact's reason, safe to show.
func why(err error) string {
	if errors.Is(err, errNoKey) {
		return errNoKey.Error()
	}
	return printable(err.Error())
}

// subkeys lists the subkeys of a key that every Windows has, limit at most.
func (r *reader) subkeys(h windows.Hive, p string, limit int) (windows.Key, []string, error) {
	k, err := r.open(h, p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errNoKey
	}
	if err != nil {
		return nil, nil, err
	}
	names, err := k.Subkeys()
	if err != nil {
		return nil, nil, fmt.Errorf("its subkeys cannot be listed: %w", err)
	}
	if len(names) > limit {
		return nil, nil, fmt.Errorf("it has %d subkeys, more than the %d that are read", len(names), limit)
	}
	// A list that lost entries proves nothing by what it does not hold.
	if st := r.sys.Hive(h); st.Damaged != "" {
		return k, names, fmt.Errorf("the %s hive is damaged, so entries may be lost: %s", h, printable(st.Damaged))
	}
	return k, names, nil
}

// need says what a missing key or value means.
type need int

const (
	// always: every Windows has the value, so that its absence tells nothing.
	always need = iota
	// keyAlways: every Windows has the key; without the value the default holds.
	keyAlways
	// optional: without the key or the value the default holds.
	optional
)

// value reads one value.
func value[T any](r *reader, h windows.Hive, key, name string, n need, absent T, decode func(windows.Value) (T, string, error)) Known[T] {
	at := r.at(h, key)
	k, err := r.open(h, key)
	switch {
	case errors.Is(err, fs.ErrNotExist) && n == optional:
		return read(absent, at.value(name).plus(" is absent"))
	case errors.Is(err, fs.ErrNotExist):
		return unread[T](at, errNoKey.Error())
	case err != nil:
		return unread[T](at.value(name), why(err))
	}
	return valueOf(r, k, at, name, n, absent, decode)
}

// valueOf reads one value of an open key, at which the evidence is the key's.
func valueOf[T any](r *reader, k windows.Key, at Evidence, name string, n need, absent T, decode func(windows.Value) (T, string, error)) Known[T] {
	at = at.of(k).value(name)
	v, err := k.Value(name)
	err = r.absence(at.Hive, err)
	switch {
	case errors.Is(err, fs.ErrNotExist) && n == always:
		return unread[T](at, "the value, which every Windows has, is missing")
	case errors.Is(err, fs.ErrNotExist):
		return read(absent, at.plus(" is absent"))
	case err != nil:
		return unread[T](at, why(err))
	}
	got, shown, err := decode(v)
	if err != nil {
		return unread[T](at, why(err))
	}
	return read(got, at.holds(shown, v.Type))
}
