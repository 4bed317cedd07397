package live

import (
	"errors"
	"fmt"
	"unsafe"

	sys "golang.org/x/sys/windows"
)

var (
	netapi32            = sys.NewLazySystemDLL("netapi32.dll")
	procUserAdd         = netapi32.NewProc("NetUserAdd")
	procUserSetInfo     = netapi32.NewProc("NetUserSetInfo")
	procUserDel         = netapi32.NewProc("NetUserDel")
	procGroupAddMembers = netapi32.NewProc("NetLocalGroupAddMembers")
)

// What the network management functions answer (lmerr.h, winerror.h).
const (
	nerrUserNotFound = 2221
	nerrUserExists   = 2224
	errMemberInAlias = 1378
)

// Flags of an account (lmaccess.h).
const (
	ufScript           = 0x0001
	ufAccountDisable   = 0x0002
	ufNormalAccount    = 0x0200
	ufDontExpirePasswd = 0x10000
	userPrivUser       = 1
)

// userInfo1 is USER_INFO_1.
type userInfo1 struct {
	name, password *uint16
	passwordAge    uint32
	privilege      uint32
	home, comment  *uint16
	flags          uint32
	script         *uint16
}

// userInfo1008 is USER_INFO_1008.
type userInfo1008 struct{ flags uint32 }

// createAccount makes a local account and returns its random password, also where the account then does not become an administrator.
// There is none for an account that was there already.
func createAccount(name string) (Password, error) {
	user, err := sys.UTF16PtrFromString(name)
	if err != nil {
		return "", err
	}
	made := randomPassword()
	password, err := sys.UTF16PtrFromString(made.Reveal())
	if err != nil {
		return "", err
	}
	info := userInfo1{name: user, password: password, privilege: userPrivUser, flags: ufScript | ufNormalAccount | ufDontExpirePasswd}
	switch status := netCall(procUserAdd, 0, 1, uintptr(unsafe.Pointer(&info)), 0); status {
	case 0:
	case nerrUserExists:
		made = ""
	default:
		return "", fmt.Errorf("account %s is not made: %w", name, status)
	}
	group, err := administrators()
	if err != nil {
		return made, err
	}
	member := struct{ name *uint16 }{user} // LOCALGROUP_MEMBERS_INFO_3
	if status := netCall(procGroupAddMembers, 0, uintptr(unsafe.Pointer(group)), 3, uintptr(unsafe.Pointer(&member)), 1); status != 0 && status != errMemberInAlias {
		return made, fmt.Errorf("account %s does not become an administrator: %w", name, status)
	}
	return made, nil
}

// enableAccount clears the disabled mark.
func enableAccount(name string) error {
	user, err := sys.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	var buf *byte
	if err := sys.NetUserGetInfo(nil, user, 1, &buf); err != nil {
		return fmt.Errorf("account %s: %w", name, err)
	}
	info := userInfo1008{(*userInfo1)(unsafe.Pointer(buf)).flags &^ ufAccountDisable}
	_ = sys.NetApiBufferFree(buf) // nothing can be done about it
	if status := netCall(procUserSetInfo, 0, uintptr(unsafe.Pointer(user)), 1008, uintptr(unsafe.Pointer(&info)), 0); status != 0 {
		return fmt.Errorf("account %s is not enabled: %w", name, status)
	}
	return nil
}

// RemoveAccount deletes a local account. That there is none is no error. Its profile stays.
func (s *System) RemoveAccount(name string) error {
	user, err := sys.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	if status := netCall(procUserDel, 0, uintptr(unsafe.Pointer(user))); status != 0 && status != nerrUserNotFound {
		return fmt.Errorf("account %s is not removed: %w", name, status)
	}
	return nil
}

// HasAccount tells whether there is a local account of that name.
func (s *System) HasAccount(name string) (bool, error) {
	user, err := sys.UTF16PtrFromString(name)
	if err != nil {
		return false, err
	}
	var buf *byte
	err = sys.NetUserGetInfo(nil, user, 0, &buf)
	if errors.Is(err, sys.Errno(nerrUserNotFound)) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("account %s: %w", name, err)
	}
	_ = sys.NetApiBufferFree(buf) // nothing can be done about it
	return true, nil
}

// administrators is the name of the group that English calls Administrators.
func administrators() (*uint16, error) {
	sid, err := sys.CreateWellKnownSid(sys.WinBuiltinAdministratorsSid)
	if err != nil {
		return nil, fmt.Errorf("the group of administrators: %w", err)
	}
	name, _, _, err := sid.LookupAccount("")
	if err != nil {
		return nil, fmt.Errorf("the group of administrators: %w", err)
	}
	return sys.UTF16PtrFromString(name)
}

// netCall calls a network management function, which answers with its status.
func netCall(proc *sys.LazyProc, args ...uintptr) sys.Errno {
	status, _, _ := proc.Call(args...)
	return sys.Errno(status)
}
