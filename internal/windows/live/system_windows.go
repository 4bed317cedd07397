package live

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
	"unsafe"

	sys "golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"berth/internal/windows"
)

// System is the Windows that this program runs in. It implements windows.System and windows.Guest, and is safe for concurrent use.
//
// Reading most of it needs an administrator's token: what that is not enough for stays unknown, with Windows' own reason.
type System struct {
	now     func() time.Time
	drive   string // `C:\`
	windows string // `C:\Windows`

	backup  error // why the SeBackupPrivilege cannot be used
	machine func() windows.Machine
}

var (
	_ windows.System = (*System)(nil)
	_ windows.Guest  = (*System)(nil)
)

// Open gets ready to ask this Windows. now tells the time.
func Open(now func() time.Time) (*System, error) {
	dir, err := sys.GetSystemWindowsDirectory()
	if err != nil {
		return nil, fmt.Errorf("the Windows folder: %w", err)
	}
	if len(dir) < 3 || dir[1] != ':' {
		return nil, fmt.Errorf("the Windows folder is %q, which is on no drive", dir)
	}
	s := &System{now: now, drive: dir[:2] + `\`, windows: dir, backup: enablePrivilege("SeBackupPrivilege")}
	s.machine = sync.OnceValue(s.look)
	return s, nil
}

// Elevated tells whether this program runs with an administrator's full rights.
func Elevated() bool { return sys.GetCurrentProcessToken().IsElevated() }

// Files is the drive that Windows is on. What Windows itself keeps open (the hives, pagefile.sys) can be asked for but not read.
func (s *System) Files() fs.FS { return os.DirFS(s.drive) }

// Machine tells firmware, disks, partitions and volumes, as they were when it was first asked.
func (s *System) Machine() windows.Machine { return s.machine() }

// root is where a hive is in the running registry.
type root struct {
	key  registry.Key
	path string
}

// hives are the places of the hives. CurrentControlSet is a link that Windows itself keeps.
var hives = map[windows.Hive]root{
	windows.SystemHive: {registry.LOCAL_MACHINE, `SYSTEM`},
	windows.Software:   {registry.LOCAL_MACHINE, `SOFTWARE`},
	windows.SAM:        {registry.LOCAL_MACHINE, `SAM`},
	windows.Security:   {registry.LOCAL_MACHINE, `SECURITY`},
	windows.Default:    {registry.USERS, `.DEFAULT`},
	windows.BCD:        {registry.LOCAL_MACHINE, `BCD00000000`},
}

// Hive says whether a hive can be read. What runs is current: it is never dirty, stale or damaged. Err is fs.ErrNotExist (wrapped)
// where the registry has no such hive.
func (s *System) Hive(name windows.Hive) windows.HiveState {
	_, err := s.root(name)
	return windows.HiveState{Err: err}
}

// root opens and closes a hive's root key.
func (s *System) root(name windows.Hive) (*key, error) {
	at, ok := hives[name]
	if !ok && strings.HasPrefix(string(name), "S-1-") && !strings.Contains(string(name), `\`) { // who is signed in
		at, ok = root{registry.USERS, string(name)}, true
	}
	if !ok {
		return nil, fmt.Errorf("hive %q is not one of a machine's", name)
	}
	k := &key{root: at.key, path: at.path, top: len(at.path)}
	h, err := k.handle(registry.READ)
	if err != nil {
		if s.backup != nil && errors.Is(err, sys.ERROR_ACCESS_DENIED) {
			err = fmt.Errorf("%w (and %w)", err, s.backup)
		}
		return nil, fmt.Errorf("hive %s: %w", name, err)
	}
	h.Close()
	return k, nil
}

// Open opens a key below a hive's root; see windows.System. That the whole hive is missing or closed to us never makes a key absent.
func (s *System) Open(name windows.Hive, path string) (windows.Key, error) {
	top, err := s.root(name)
	if err != nil {
		return nil, errors.New(err.Error()) // not wrapped
	}
	if path == "" {
		return top, nil
	}
	return top.Open(path)
}

// key is a key by its path: it is opened for each question, so that there is nothing to close.
type key struct {
	root registry.Key
	path string
	top  int // length of the hive's own part of the path
}

// handle opens the key with the rights that our token has, or else to be read as a backup would.
func (k *key) handle(access uint32) (registry.Key, error) {
	p, err := sys.UTF16PtrFromString(k.path)
	if err != nil {
		return 0, err
	}
	var h sys.Handle
	err = sys.RegOpenKeyEx(sys.Handle(k.root), p, 0, access|registry.WOW64_64KEY, &h)
	if errors.Is(err, sys.ERROR_ACCESS_DENIED) && access == registry.READ {
		return k.backup()
	}
	return registry.Key(h), err
}

var procOpenKeyEx = sys.NewLazySystemDLL("ntdll.dll").NewProc("NtOpenKeyEx")

// backup opens the key to be read by the holder of SeBackupPrivilege, whoever its access list lets in: that of SAM lets in SYSTEM alone.
// (Microsoft, "ZwOpenKeyEx", REG_OPTION_BACKUP_RESTORE.) It avoids writing the hive with everybody's password hashes to a file.
func (k *key) backup() (registry.Key, error) {
	const backupRestore = 4
	top := map[registry.Key]string{registry.LOCAL_MACHINE: `\Registry\Machine\`, registry.USERS: `\Registry\User\`}[k.root]
	name, err := sys.NewNTUnicodeString(top + k.path)
	if err != nil {
		return 0, err
	}
	at := sys.OBJECT_ATTRIBUTES{ObjectName: name, Attributes: sys.OBJ_CASE_INSENSITIVE}
	at.Length = uint32(unsafe.Sizeof(at))
	var h registry.Key
	if status, _, _ := procOpenKeyEx.Call(uintptr(unsafe.Pointer(&h)), registry.READ, uintptr(unsafe.Pointer(&at)), backupRestore); status != 0 {
		return 0, sys.NTStatus(status).Errno()
	}
	return h, nil
}

func (k *key) Name() string {
	if len(k.path) == k.top {
		return ""
	}
	return k.path[strings.LastIndexByte(k.path, '\\')+1:]
}

func (k *key) LastWrite() time.Time {
	h, err := k.handle(registry.READ)
	if err != nil {
		return time.Time{}
	}
	defer h.Close()
	info, err := h.Stat()
	if err != nil {
		return time.Time{}
	}
	return info.ModTime().UTC()
}

func (k *key) Subkeys() ([]string, error) {
	h, err := k.handle(registry.READ)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.ReadSubKeyNames(-1)
}

func (k *key) Open(path string) (windows.Key, error) {
	if path == "" {
		return k, nil
	}
	sub := &key{root: k.root, path: k.path + `\` + path, top: k.top}
	h, err := sub.handle(registry.READ)
	if err != nil {
		return nil, err
	}
	h.Close()
	return sub, nil
}

func (k *key) Values() ([]string, error) {
	h, err := k.handle(registry.READ)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.ReadValueNames(-1)
}

// maxValue bounds a value that is read, in bytes; what Windows keeps in its registry stays far below.
const maxValue = 64 << 20

func (k *key) Value(name string) (windows.Value, error) {
	h, err := k.handle(registry.READ)
	if err != nil {
		return windows.Value{}, err
	}
	defer h.Close()
	buf := make([]byte, 256)
	for {
		n, kind, err := h.GetValue(name, buf)
		switch {
		case err == nil:
			return windows.Value{Name: name, Type: kind, Data: buf[:n]}, nil
		case !errors.Is(err, registry.ErrShortBuffer):
			return windows.Value{}, err
		case n > maxValue:
			return windows.Value{}, fmt.Errorf("the value has %d bytes, %d at most are read", n, maxValue)
		}
		buf = make([]byte, max(n, 2*len(buf))) // it may have grown meanwhile
	}
}

// enablePrivilege switches on a privilege that the token has.
func enablePrivilege(name string) error {
	var token sys.Token
	if err := sys.OpenProcessToken(sys.CurrentProcess(), sys.TOKEN_ADJUST_PRIVILEGES|sys.TOKEN_QUERY, &token); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer token.Close()
	var state sys.Tokenprivileges
	state.PrivilegeCount = 1
	state.Privileges[0].Attributes = sys.SE_PRIVILEGE_ENABLED
	p, err := sys.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	if err := sys.LookupPrivilegeValue(nil, p, &state.Privileges[0].Luid); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	// The call succeeds where the token has not got the privilege; what is to be read then is refused by itself.
	if err := sys.AdjustTokenPrivileges(token, false, &state, 0, nil, nil); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
