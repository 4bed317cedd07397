package live

import (
	"encoding/binary"

	"berth/internal/windows"
)

// locked tells whether Windows was told to lock virtualization-based security in UEFI variables.
func locked(s windows.System) (bool, error) {
	const guard = `CurrentControlSet\Control\DeviceGuard`
	for _, at := range []struct{ path, name string }{
		{guard, "Locked"},
		{guard + `\Scenarios\HypervisorEnforcedCodeIntegrity`, "Locked"},
		{`CurrentControlSet\Control\Lsa`, "LsaCfgFlags"},
	} {
		v, found, err := read(s, windows.SystemHive, at.path, at.name)
		if err != nil {
			return false, err
		}
		if found && len(v.Data) == 4 && binary.LittleEndian.Uint32(v.Data) == 1 {
			return true, nil
		}
	}
	return false, nil
}
