package live

import (
	"fmt"
	"unsafe"

	sys "golang.org/x/sys/windows"
)

var (
	procSystemLocale = kernel32.NewProc("GetSystemDefaultLocaleName")
	procUserLocale   = kernel32.NewProc("GetUserDefaultLocaleName")
)

// Locales asks Windows.
func (s *System) Locales() (Locales, error) {
	var l Locales
	var err error
	if l.System, err = localeName(procSystemLocale); err != nil {
		return l, fmt.Errorf("the system's locale: %w", err)
	}
	if l.User, err = localeName(procUserLocale); err != nil {
		return l, fmt.Errorf("the user's locale: %w", err)
	}
	return l, nil
}

func localeName(proc *sys.LazyProc) (string, error) {
	buf := make([]uint16, 85) // LOCALE_NAME_MAX_LENGTH
	if n, _, err := proc.Call(uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf))); n == 0 {
		return "", err
	}
	return sys.UTF16ToString(buf), nil
}
