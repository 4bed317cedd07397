package live

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"berth/internal/windows"
)

// pendingKeys are keys that exist only while a restart is pending (facts §4.2, PendingReboot). The first two are all that Amazon's
// checker asks for; they are volatile, so that no powered-off disk has them.
var pendingKeys = []string{
	`Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired`,
	`Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending`,
	`Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootInProgress`,
	`Microsoft\Windows\CurrentVersion\Component Based Servicing\PackagesPending`,
}

// pendingReboot lists what the registry says of a pending restart. It fails where one of the places cannot be read, for what
// it says may be what matters.
func pendingReboot(sys windows.System) ([]string, error) {
	var found []string
	for _, path := range pendingKeys {
		switch _, err := sys.Open(windows.Software, path); {
		case err == nil:
			found = append(found, `SOFTWARE\`+path+` exists`)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf(`SOFTWARE\%s: %w`, path, err)
		}
	}
	const sessions = `Microsoft\Windows\CurrentVersion\Component Based Servicing\SessionsPending`
	exclusive, _, err := read(sys, windows.Software, sessions, "Exclusive")
	if err != nil {
		return nil, err
	}
	if len(exclusive.Data) == 4 && binary.LittleEndian.Uint32(exclusive.Data) != 0 {
		found = append(found, fmt.Sprintf(`SOFTWARE\%s\Exclusive is %s`, sessions, exclusive))
	}
	// A new name of the computer comes into force at the next start; ActiveComputerName is volatile.
	const names = `CurrentControlSet\Control\ComputerName\`
	wanted, ok1, err := read(sys, windows.SystemHive, names+`ComputerName`, "ComputerName")
	if err != nil {
		return nil, err
	}
	active, ok2, err := read(sys, windows.SystemHive, names+`ActiveComputerName`, "ComputerName")
	if err != nil {
		return nil, err
	}
	if ok1 && ok2 && !strings.EqualFold(utf16z(wanted.Data), utf16z(active.Data)) {
		found = append(found, fmt.Sprintf(`SYSTEM\%sComputerName is %s, while the computer still runs as %s`, names, wanted, active))
	}
	return found, nil
}

// read reads a value that may be absent.
func read(sys windows.System, hive windows.Hive, path, name string) (v windows.Value, found bool, err error) {
	k, err := sys.Open(hive, path)
	if err == nil {
		v, err = k.Value(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return windows.Value{}, false, nil
	}
	if err != nil {
		return windows.Value{}, false, fmt.Errorf(`%s\%s\%s: %w`, hive, path, name, err)
	}
	return v, true, nil
}
