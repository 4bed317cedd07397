//go:build recorded

package main

import (
	"encoding/json"
	"errors"
	"os"
	"time"

	"berth/internal/windows"
	"berth/internal/windows/live"
)

// recordedMachine is a machine that runs in Wine. Wine has no licence, no Security Center and no disks to tell of: what a Windows would
// answer there stands in a file. All else is asked of Wine.
type recordedMachine struct {
	*live.System
	record record
}

// record is what the file holds, in JSON. The tests write it from a machine of testdata/machines.
type record struct {
	Machine   windows.Machine
	Licensing *windows.Licensing
	AntiVirus []windows.AntiVirusProduct
	Device    *windows.DeviceGuard
	// Hold is a file: while it is there the licence is not told, for WMI takes its time, too.
	Hold string
}

// recordVariable names the file, in the environment.
const recordVariable = "BERTH_CHECKER_RECORD"

var errNotRecorded = errors.New("it is not recorded")

func recorded(vm *live.System) (machine, error) {
	b, err := os.ReadFile(os.Getenv(recordVariable))
	if err != nil {
		return nil, err
	}
	m := &recordedMachine{System: vm}
	return m, json.Unmarshal(b, &m.record)
}

func (m *recordedMachine) Machine() windows.Machine { return m.record.Machine }

func (m *recordedMachine) Licensing() (windows.Licensing, error) {
	for range 600 { // a minute
		if _, err := os.Stat(m.record.Hold); err != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if m.record.Licensing == nil {
		return windows.Licensing{}, errNotRecorded
	}
	return *m.record.Licensing, nil
}

func (m *recordedMachine) AntiVirus() ([]windows.AntiVirusProduct, error) {
	return m.record.AntiVirus, nil
}

func (m *recordedMachine) DeviceGuard() (windows.DeviceGuard, error) {
	if m.record.Device == nil {
		return windows.DeviceGuard{}, errNotRecorded
	}
	return *m.record.Device, nil
}
