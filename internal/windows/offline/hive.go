package offline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"unicode/utf16"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// hive is a hive file that is opened when it is first asked for.
type hive struct {
	name  windows.Hive
	files fs.FS
	path  string
	err   error // set from the start: where the file should be cannot be read

	once sync.Once
	reg  *registry.Hive
	top  windows.Key
}

// open opens the hive and its logs once.
func (h *hive) open() error {
	h.once.Do(func() {
		if h.err != nil {
			return
		}
		r, size, err := openAt(h.files, h.path)
		if err != nil {
			h.err = err
			return
		}
		if h.reg, err = registry.Open(r, size, h.logs()...); err != nil {
			h.err = fmt.Errorf("%s: %w", h.path, err)
			return
		}
		if h.top, err = h.reg.Root(); err != nil {
			h.err = fmt.Errorf("%s: %w", h.path, err)
		}
	})
	return h.err
}

// logs opens the transaction logs that are there: LOG1 and LOG2, and LOG of older Windows. One that is there and cannot be read
// answers with its error, so that a hive that needs it does not pass for one without.
func (h *hive) logs() []registry.Log {
	var logs []registry.Log
	for _, suffix := range []string{".LOG1", ".LOG2", ".LOG"} {
		l := registry.Log{Name: path.Base(h.path) + suffix}
		var err error
		if l.R, l.Size, err = openAt(h.files, h.path+suffix); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			l.R, l.Size = unreadable{err}, 1<<20
		}
		logs = append(logs, l)
	}
	return logs
}

type unreadable struct{ err error }

func (u unreadable) ReadAt([]byte, int64) (int, error) { return 0, u.err }

func openAt(files fs.FS, name string) (io.ReaderAt, int64, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, 0, err
	}
	i, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		return nil, 0, fmt.Errorf("%s is not a file", name)
	}
	return r, i.Size(), nil
}

// root is the hive's root key. Its errors never are fs.ErrNotExist: that the hive's file is missing does not make its keys absent.
func (h *hive) root() (windows.Key, error) {
	if err := h.open(); err != nil {
		return nil, fmt.Errorf("hive %s: %s", h.name, err.Error()) // not wrapped
	}
	return h.top, nil
}

// state is what windows.System tells of a hive.
func (h *hive) state() windows.HiveState {
	if err := h.open(); err != nil {
		return windows.HiveState{Err: err}
	}
	return h.reg.HiveState()
}

// Hive tells how far a hive can be trusted. Err is fs.ErrNotExist (wrapped) if its file surely is missing, or the name is of no hive of a
// powered-off machine's: nobody is signed in.
func (s *System) Hive(name windows.Hive) windows.HiveState {
	h, ok := s.hives[name]
	if !ok {
		return windows.HiveState{Err: fmt.Errorf("hive %q is not one of a machine's: %w", name, fs.ErrNotExist)}
	}
	return h.state()
}

// Open opens a key below a hive's root; see windows.System.
func (s *System) Open(name windows.Hive, keyPath string) (windows.Key, error) {
	h, ok := s.hives[name]
	if !ok {
		return nil, fmt.Errorf("hive %q is not one of a machine's", name)
	}
	root, err := h.root()
	if err != nil {
		return nil, err
	}
	if first, rest, _ := strings.Cut(keyPath, `\`); name == windows.SystemHive && sameName(first, "CurrentControlSet") {
		set, err := s.control.name(root)
		if err != nil {
			return nil, err
		}
		if keyPath = set; rest != "" {
			keyPath += `\` + rest
		}
	}
	if keyPath == "" {
		return root, nil
	}
	return root.Open(keyPath)
}

// controlSet is the control set that stands for CurrentControlSet, found out once.
type controlSet struct {
	once sync.Once
	set  string
	err  error
}

// name reads Select\Current. What goes wrong is never fs.ErrNotExist: it does not make the keys below absent.
func (c *controlSet) name(root windows.Key) (string, error) {
	c.once.Do(func() {
		fail := func(format string, a ...any) {
			c.err = errors.New(`CurrentControlSet cannot be told: SYSTEM\Select: ` + fmt.Sprintf(format, a...))
		}
		k, err := root.Open("Select")
		if err != nil {
			fail("%v", err)
			return
		}
		v, err := k.Value("Current")
		if err != nil {
			fail("Current: %v", err)
			return
		}
		if v.Type != windows.RegDWORD || len(v.Data) != 4 {
			fail("Current has type %d and %d bytes", v.Type, len(v.Data))
			return
		}
		n := binary.LittleEndian.Uint32(v.Data)
		if n == 0 || n > 999 {
			fail("Current is %d", n)
			return
		}
		set := fmt.Sprintf("ControlSet%03d", n)
		if _, err := root.Open(set); err != nil {
			fail("Current is %d, but %s: %v", n, set, err)
			return
		}
		c.set = set
	})
	return c.set, c.err
}

func decodeUTF16(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}
