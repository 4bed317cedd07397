package live

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	sys "golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// heldKey is where it stands how Windows Update was before HoldUpdates, so that it can be put back although the program was killed.
const (
	heldKey     = `SOFTWARE\Berth\Checker`
	heldParent  = `SOFTWARE\Berth`
	heldStart   = "WindowsUpdateStart"
	heldRunning = "WindowsUpdateRunning"
	heldForGood = "WindowsUpdateStaysOff"
)

// HoldUpdates stops the Windows Update service and disables it until ReleaseUpdates; how it was is written down first, if it does not
// stand there already. A Windows without the service has nothing to hold.
func (s *System) HoldUpdates(ctx context.Context) error {
	svc, err := openService(updateService, sys.SERVICE_QUERY_CONFIG|sys.SERVICE_CHANGE_CONFIG|sys.SERVICE_QUERY_STATUS|sys.SERVICE_STOP)
	if errors.Is(err, sys.ERROR_SERVICE_DOES_NOT_EXIST) {
		return nil
	}
	if err != nil {
		return err
	}
	defer svc.close()
	start, err := svc.start()
	if err != nil {
		return err
	}
	running, err := svc.running()
	if err != nil {
		return err
	}
	held, err := s.UpdatesHeld()
	if err != nil {
		return err
	}
	if !held && start == sys.SERVICE_DISABLED && !running {
		return nil // it is off, and will be afterwards
	}
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, heldKey, registry.WRITE|registry.WOW64_64KEY)
	if err != nil {
		return fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	defer k.Close()
	if !held {
		n := uint32(0)
		if running {
			n = 1
		}
		// heldStart comes last: without it nothing is put back.
		err = errors.Join(k.SetDWordValue(heldRunning, n), k.SetDWordValue(heldStart, start))
	} else if err = k.DeleteValue(heldForGood); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	if err := svc.setStart(sys.SERVICE_DISABLED); err != nil {
		return err
	}
	return svc.stop(ctx)
}

// UpdatesHeld tells whether HoldUpdates was called, by this program or by one before it that was killed, and not ReleaseUpdates since.
func (s *System) UpdatesHeld() (bool, error) {
	k, err := openHeld(registry.READ)
	if err == nil {
		defer k.Close()
		_, _, err = k.GetIntegerValue(heldStart)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf(`HKLM\%s\%s: %w`, heldKey, heldStart, err)
	}
	return true, nil
}

// KeepUpdatesOff makes ReleaseUpdates leave the service off, until HoldUpdates is called again.
func (s *System) KeepUpdatesOff() error {
	if held, err := s.UpdatesHeld(); !held || err != nil {
		return err
	}
	k, err := openHeld(registry.WRITE)
	if err == nil {
		defer k.Close()
		err = k.SetDWordValue(heldForGood, 1)
	}
	if err != nil {
		return fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	return nil
}

// ReleaseUpdates puts the Windows Update service back as it was before HoldUpdates, unless KeepUpdatesOff was called since, and
// forgets how it was. It tells whether it put anything back.
func (s *System) ReleaseUpdates() (restored bool, err error) {
	if held, err := s.UpdatesHeld(); !held || err != nil {
		return false, err
	}
	k, err := openHeld(registry.READ)
	if err != nil {
		return false, fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	defer k.Close()
	if _, _, err := k.GetIntegerValue(heldForGood); err == nil {
		return false, forgetHeld()
	}
	start, _, err := k.GetIntegerValue(heldStart)
	if err == nil && start > sys.SERVICE_DISABLED {
		err = fmt.Errorf("%d is no start type", start)
	}
	if err != nil {
		return false, fmt.Errorf(`HKLM\%s\%s: %w`, heldKey, heldStart, err)
	}
	running, _, err := k.GetIntegerValue(heldRunning)
	if err != nil {
		return false, fmt.Errorf(`HKLM\%s\%s: %w`, heldKey, heldRunning, err)
	}
	svc, err := openService(updateService, sys.SERVICE_CHANGE_CONFIG|sys.SERVICE_START)
	if err != nil {
		return false, err
	}
	defer svc.close()
	if err := svc.setStart(uint32(start)); err != nil {
		return false, err
	}
	if err := forgetHeld(); err != nil {
		return true, err
	}
	if running != 0 && start != sys.SERVICE_DISABLED {
		if err := sys.StartService(svc.h, 0, nil); err != nil && !errors.Is(err, sys.ERROR_SERVICE_ALREADY_RUNNING) {
			return true, fmt.Errorf("service %s does not start again: %w", updateService, err)
		}
	}
	return true, nil
}

func openHeld(access uint32) (registry.Key, error) {
	return registry.OpenKey(registry.LOCAL_MACHINE, heldKey, access|registry.WOW64_64KEY)
}

// forgetHeld removes what was written down.
func forgetHeld() error {
	if err := registry.DeleteKey(registry.LOCAL_MACHINE, heldKey); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	// Others may have put something into the key above.
	if parent, err := registry.OpenKey(registry.LOCAL_MACHINE, heldParent, registry.READ|registry.WOW64_64KEY); err == nil {
		info, err := parent.Stat()
		parent.Close()
		if err == nil && info.SubKeyCount == 0 && info.ValueCount == 0 {
			_ = registry.DeleteKey(registry.LOCAL_MACHINE, heldParent) // an empty key harms nobody
		}
	}
	return nil
}
