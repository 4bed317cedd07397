package check

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"berth/internal/windows"
)

// exists tells whether a file or folder is on C:.
func (r *reader) exists(name string) Known[bool] {
	at := inFile(name)
	switch _, err := fs.Stat(r.sys.Files(), name); {
	case err == nil:
		return read(true, at.plus(" is there"))
	case errors.Is(err, fs.ErrNotExist):
		return read(false, at.plus(" is absent"))
	default:
		return unread[bool](at, why(err))
	}
}

// head reads a file's first bytes, most at most; nil without an error where there is no such file.
func (r *reader) head(name string, most int64) ([]byte, error) {
	file, err := r.sys.Files().Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil {
		return nil, err
	}
	if b == nil {
		b = []byte{}
	}
	return b, nil
}

// present tells whether a key is there.
func (r *reader) present(h windows.Hive, p string) Known[bool] {
	at := r.at(h, p)
	switch k, err := r.open(h, p); {
	case err == nil:
		return read(true, at.of(k).plus(" is there"))
	case errors.Is(err, fs.ErrNotExist):
		return read(false, at.plus(" is absent"))
	default:
		return unread[bool](at, why(err))
	}
}

// list lists the subkeys of a key that need not be there, limit at most; the list is empty and the key nil where it is not.
func (r *reader) list(h windows.Hive, p string, limit int) (windows.Key, Known[[]string]) {
	at := r.at(h, p)
	k, names, err := r.subkeys(h, p, limit)
	switch {
	case errors.Is(err, errNoKey):
		return nil, read([]string(nil), at.plus(" is absent"))
	case err != nil:
		return nil, unread[[]string](at, why(err))
	}
	at = at.of(k)
	return k, read(names, at.says(fmt.Sprintf("subkeys of %s: %d", at, len(names))))
}

// traces gathers signs of one thing, each of which is enough.
type traces struct {
	found []string
	seen  []Evidence // of those found
	all   []Evidence // of those that are known
	doubt fact       // the first that is not known
}

// add takes a sign: what it is called where it is found.
func (t *traces) add(name string, sign Known[bool]) {
	switch {
	case !sign.OK():
		if t.doubt == nil {
			t.doubt = sign
		}
	case sign.Value:
		t.found, t.seen = append(t.found, name), append(t.seen, sign.From...)
		fallthrough
	default:
		t.all = append(t.all, sign.From...)
	}
}

// known is what was found. That nothing was found is known only where every sign could be looked for.
func (t *traces) known() Known[[]string] {
	switch {
	case len(t.found) > 0:
		return read(t.found, t.seen...)
	case t.doubt != nil:
		return likewise[[]string](t.doubt)
	}
	return read([]string(nil), t.all...)
}
