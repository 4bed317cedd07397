package live

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	sys "golang.org/x/sys/windows"
)

// updateService is Windows Update.
const updateService = "wuauserv"

// service is an open service.
type service struct {
	name string
	h    sys.Handle
}

// openService opens a service. The error wraps ERROR_SERVICE_DOES_NOT_EXIST where there is none of that name.
func openService(name string, access uint32) (service, error) {
	manager, err := sys.OpenSCManager(nil, nil, sys.SC_MANAGER_CONNECT)
	if err != nil {
		return service{}, fmt.Errorf("the service control manager: %w", err)
	}
	defer func() { _ = sys.CloseServiceHandle(manager) }()
	p, err := sys.UTF16PtrFromString(name)
	if err != nil {
		return service{}, err
	}
	h, err := sys.OpenService(manager, p, access)
	if err != nil {
		return service{}, fmt.Errorf("service %s: %w", name, err)
	}
	return service{name, h}, nil
}

func (s service) close() { _ = sys.CloseServiceHandle(s.h) }

// start tells how the service starts: 2 automatically, 3 on demand, 4 not at all (winsvc.h). mgr.Service.Config, which could tell it,
// asks for more than Wine knows.
func (s service) start() (uint32, error) {
	var need uint32
	err := sys.QueryServiceConfig(s.h, nil, 0, &need)
	if err != nil && !errors.Is(err, sys.ERROR_INSUFFICIENT_BUFFER) {
		return 0, fmt.Errorf("service %s: %w", s.name, err)
	}
	buf := make([]uint64, need/8+64) // aligned for the pointers in it
	c := (*sys.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&buf[0]))
	if err := sys.QueryServiceConfig(s.h, c, uint32(8*len(buf)), &need); err != nil {
		return 0, fmt.Errorf("service %s: %w", s.name, err)
	}
	return c.StartType, nil
}

// setStart changes how the service starts, in the service control manager's own database and with it in the registry.
func (s service) setStart(start uint32) error {
	const same = sys.SERVICE_NO_CHANGE
	if err := sys.ChangeServiceConfig(s.h, same, start, same, nil, nil, nil, nil, nil, nil, nil); err != nil {
		return fmt.Errorf("start type of service %s: %w", s.name, err)
	}
	return nil
}

// running tells whether the service runs, or is about to.
func (s service) running() (bool, error) {
	var st sys.SERVICE_STATUS
	if err := sys.QueryServiceStatus(s.h, &st); err != nil {
		return false, fmt.Errorf("state of service %s: %w", s.name, err)
	}
	return st.CurrentState != sys.SERVICE_STOPPED && st.CurrentState != sys.SERVICE_STOP_PENDING, nil
}

// stop stops the service and waits until it has, half a minute at most.
func (s service) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var st sys.SERVICE_STATUS
	err := sys.ControlService(s.h, sys.SERVICE_CONTROL_STOP, &st)
	for err == nil && st.CurrentState != sys.SERVICE_STOPPED {
		select {
		case <-ctx.Done():
			return fmt.Errorf("service %s does not stop: %w", s.name, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
		err = sys.QueryServiceStatus(s.h, &st)
	}
	if err != nil && !errors.Is(err, sys.ERROR_SERVICE_NOT_ACTIVE) {
		return fmt.Errorf("service %s does not stop: %w", s.name, err)
	}
	return nil
}
