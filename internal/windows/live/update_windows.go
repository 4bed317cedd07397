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
)

// HoldUpdates stops the Windows Update service and disables it, until ReleaseUpdates or KeepUpdatesOff is called; how it was
// is written down first. Where that stands already it does nothing. A Windows without the service has nothing to hold.
func (s *System) HoldUpdates(ctx context.Context) error {
	if held, err := s.UpdatesHeld(); held || err != nil {
		return err
	}
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
	if start == sys.SERVICE_DISABLED && !running {
		return nil // it is off, and will be afterwards
	}
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, heldKey, registry.WRITE|registry.WOW64_64KEY)
	if err != nil {
		return fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	defer k.Close()
	n := uint32(0)
	if running {
		n = 1
	}
	// heldStart comes last: without it nothing is put back.
	if err := errors.Join(k.SetDWordValue(heldRunning, n), k.SetDWordValue(heldStart, start)); err != nil {
		return fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	if err := svc.setStart(sys.SERVICE_DISABLED); err != nil {
		return errors.Join(err, s.KeepUpdatesOff())
	}
	return svc.stop(ctx)
}

// UpdatesHeld tells whether HoldUpdates was called, by this program or by one before it that was killed, and nothing after it.
func (s *System) UpdatesHeld() (bool, error) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, heldKey, registry.READ|registry.WOW64_64KEY)
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

// ReleaseUpdates puts the Windows Update service back as it was before HoldUpdates, and forgets that.
func (s *System) ReleaseUpdates() error {
	if held, err := s.UpdatesHeld(); !held || err != nil {
		return err
	}
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, heldKey, registry.READ|registry.WOW64_64KEY)
	if err != nil {
		return fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	defer k.Close()
	start, _, err := k.GetIntegerValue(heldStart)
	if err != nil || start > sys.SERVICE_DISABLED {
		return fmt.Errorf(`HKLM\%s\%s is %d: %w`, heldKey, heldStart, start, errors.Join(err, errors.New("no start type")))
	}
	running, _, err := k.GetIntegerValue(heldRunning)
	if err != nil {
		return fmt.Errorf(`HKLM\%s\%s: %w`, heldKey, heldRunning, err)
	}
	svc, err := openService(updateService, sys.SERVICE_CHANGE_CONFIG|sys.SERVICE_START)
	if err != nil {
		return err
	}
	defer svc.close()
	if err := svc.setStart(uint32(start)); err != nil {
		return err
	}
	if err := s.KeepUpdatesOff(); err != nil { // what was written down is done
		return err
	}
	if running != 0 && start != sys.SERVICE_DISABLED {
		if err := sys.StartService(svc.h, 0, nil); err != nil && !errors.Is(err, sys.ERROR_SERVICE_ALREADY_RUNNING) {
			return fmt.Errorf("service %s does not start again: %w", updateService, err)
		}
	}
	return nil
}

// KeepUpdatesOff forgets how the service was, so that it stays as it is now.
func (s *System) KeepUpdatesOff() error {
	err := registry.DeleteKey(registry.LOCAL_MACHINE, heldKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf(`HKLM\%s: %w`, heldKey, err)
	}
	// Others may have put something there.
	if parent, err := registry.OpenKey(registry.LOCAL_MACHINE, heldParent, registry.READ|registry.WOW64_64KEY); err == nil {
		info, err := parent.Stat()
		parent.Close()
		if err == nil && info.SubKeyCount == 0 && info.ValueCount == 0 {
			_ = registry.DeleteKey(registry.LOCAL_MACHINE, heldParent) // an empty key harms nobody
		}
	}
	return nil
}
