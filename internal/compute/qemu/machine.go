package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/compute"
)

// machine is one machine and, while it runs, its QEMU. Ensure and Delete take turns (begin, end); everything else looks on.
type machine struct {
	driver *driver
	id     string
	folder string
	turn   chan struct{} // holds one token while a call has its turn
	claims int           // calls of Ensure that want it; under driver.mu

	mu      sync.Mutex
	record  record
	written bool // there is a record on disk, so that the machine exists
	damaged error
	process *process // the last one known, maybe ended; nil: none
	gone    bool     // deleted: a call that waited for its turn must look anew
	busy    bool     // a call has its turn
	turns   uint64   // counts them
	before  compute.Status

	dialing sync.Mutex
	monitor *monitor // under dialing; maybe ended
	shots   atomic.Uint64
}

// record is machine.json: what outlives this service. It is written before what it announces is done and after what it
// reports was done, so that a crash between the two repeats work and never skips it.
type record struct {
	Image   string
	Running bool // wanted on
	// Boots is the boot reached. Being turned on is written down before, since a machine that is off has nothing to lose by
	// being turned on; a reset is written down after: a service that crashes in between, some milliseconds, resets
	// the machine a second time while it is still in its firmware.
	Boots int
	// What was made, once. A volume that was made and is missing is never made anew: that would be an empty disk where a
	// user's data was.
	RootMade, UserMade, FirmwareMade bool
}

var errGone = errors.New("the machine was deleted meanwhile")

func newMachine(d *driver, id string) *machine {
	return &machine{driver: d, id: id, folder: filepath.Join(d.machinesDir, id), turn: make(chan struct{}, 1)}
}

func (m *machine) path(name string) string { return filepath.Join(m.folder, name) }

func (m *machine) readRecord() error {
	b, err := os.ReadFile(m.path(recordFile))
	if err != nil {
		return err
	}
	m.written = true
	if err := json.Unmarshal(b, &m.record); err != nil {
		return fmt.Errorf("%s: %w", m.path(recordFile), err)
	}
	return compute.CheckID(m.record.Image)
}

// update changes the record, on disk first. The change must be the same for the same record.
func (m *machine) update(change func(*record)) error {
	m.mu.Lock()
	next, written := m.record, m.written
	m.mu.Unlock()
	was := next
	change(&next)
	if written && next == was {
		return nil
	}
	b, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	part := m.path(recordFile + partSuffix)
	if err := os.WriteFile(part, append(b, '\n'), 0o600); err != nil {
		return err
	}
	if err := commit(part, m.path(recordFile)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.record, m.written = next, true
	return nil
}

func (m *machine) exists() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written
}

func (m *machine) usesImage(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record.Image == id
}

// known is the record and the process, if one was last seen.
func (m *machine) known() (record, *process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record, m.process
}

func (m *machine) setProcess(p *process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process = p
}

// begin waits for this call's turn. What the machine was before is what others see until end.
func (m *machine) begin(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("machine %s: another call is at work on it: %w", m.id, context.Cause(ctx))
	}
	m.mu.Lock()
	gone := m.gone
	m.mu.Unlock()
	if gone {
		<-m.turn
		return errGone
	}
	before, err := m.see(ctx)
	if err != nil {
		<-m.turn
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before, m.busy = before, true
	m.turns++
	return nil
}

func (m *machine) end() {
	m.mu.Lock()
	m.busy = false
	m.mu.Unlock()
	<-m.turn
}

// look is what the machine is, or, while a call is at work on it, what it was before. exists is false for a machine whose
// first Ensure has not got as far as writing it down.
func (m *machine) look(ctx context.Context) (_ compute.Status, exists bool, _ error) {
	m.mu.Lock()
	before, busy, turns, written := m.before, m.busy, m.turns, m.written
	m.mu.Unlock()
	if busy || !written {
		return before, written, nil
	}
	now, err := m.see(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.turns != turns { // a call began while we looked, and what was seen may be half way
		return m.before, m.written, nil
	}
	return now, true, err
}

// see looks at the machine. Its error is the end of ctx.
func (m *machine) see(ctx context.Context) (compute.Status, error) {
	r, p := m.known()
	s := compute.Status{ID: m.id, State: compute.Off, Boots: r.Boots}
	failed := func(why string) (compute.Status, error) {
		s.State, s.Why = compute.Failed, why
		return s, nil
	}
	if m.damaged != nil {
		return failed(m.damaged.Error())
	}
	if p != nil && p.alive() {
		if err := trimLog(m.folder); err != nil {
			m.driver.Log.Warn("QEMU's log cannot be emptied", "machine", m.id, "error", err)
		}
		state, err := m.runState(ctx)
		switch {
		case ctx.Err() != nil:
			return compute.Status{}, context.Cause(ctx)
		case err != nil && nobodyListens(err) && !p.gone(ctx, m.driver.times.end):
			return failed(fmt.Sprintf("QEMU, process %d, is starting or ending: %v", p.pid, err))
		case err != nil && p.alive():
			return failed(fmt.Sprintf("QEMU, process %d, does not answer: %v", p.pid, err))
		case err == nil && state == "running":
			s.State = compute.Running
			return s, nil
		case err == nil && state == "shutdown" && p.gone(ctx, m.driver.times.end):
			// It was ending, and has ended: why is said below.
		case err == nil:
			return failed("QEMU says that the guest is in state " + state)
		}
	}
	if !r.Running {
		return s, nil
	}
	return failed(m.death(p))
}

// death says what is known of a process that is not there although the machine should run.
func (m *machine) death(p *process) string {
	why := "its QEMU is not running"
	if p != nil && p.exit != nil {
		select {
		case <-p.exit:
			why = "its QEMU ended: " + p.state.String()
		case <-time.After(time.Second): // nobody has waited for it yet
		}
	}
	m.dialing.Lock()
	defer m.dialing.Unlock()
	if m.monitor != nil {
		select {
		case <-m.monitor.done:
			if reason := m.monitor.shutdownReason(); reason == "guest-shutdown" {
				return "the guest turned itself off"
			} else if reason != "" {
				why += " (" + reason + ")"
			}
		case <-time.After(time.Second):
		}
	}
	if words := lastWords(m.folder); words != "" {
		why += "; its last words: " + words
	}
	return why
}

// connect is the connection to the monitor, a new one where the last has ended.
func (m *machine) connect(ctx context.Context) (*monitor, error) {
	m.dialing.Lock()
	defer m.dialing.Unlock()
	if m.monitor != nil {
		select {
		case <-m.monitor.done:
		default:
			return m.monitor, nil
		}
	}
	next, err := dialMonitor(ctx, m.folder)
	if err != nil {
		return nil, err
	}
	m.monitor = next
	return next, nil
}

// hangUp ends the connection to the monitor.
func (m *machine) hangUp() {
	m.dialing.Lock()
	defer m.dialing.Unlock()
	if m.monitor != nil {
		m.monitor.close()
		<-m.monitor.done
		m.monitor = nil
	}
}

// command runs one command of the monitor.
func (m *machine) command(ctx context.Context, name string, arguments any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.driver.times.answer, fmt.Errorf("no answer within %s", m.driver.times.answer))
	defer cancel()
	mon, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	return mon.do(ctx, name, arguments)
}

// runState is QEMU's word for what the guest is doing: "running", "paused", "io-error", "internal-error", ...
func (m *machine) runState(ctx context.Context) (string, error) {
	answer, err := m.command(ctx, "query-status", nil)
	if err != nil {
		return "", err
	}
	var status struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(answer, &status); err != nil || status.Status == "" {
		return "", fmt.Errorf("query-status: answer %.200q", answer)
	}
	return status.Status, nil
}

// ensure is the heart of the driver: each step looks at what is there and does what is missing.
func (m *machine) ensure(ctx context.Context, want compute.Machine) (compute.Status, error) {
	if m.damaged != nil {
		return compute.Status{}, m.damaged
	}
	if !m.exists() {
		if r, _ := m.known(); r.Image != want.Image {
			return compute.Status{}, fmt.Errorf("machine %s: another call is making it from image %s", m.id, r.Image)
		}
		if err := os.Mkdir(m.folder, 0o700); err != nil {
			return compute.Status{}, err
		}
		m.mu.Lock()
		m.before = compute.Status{ID: m.id, State: compute.Off}
		m.mu.Unlock()
	}
	if err := m.checkVolumes(want); err != nil {
		return compute.Status{}, err
	}
	if err := m.update(func(r *record) { r.Running = want.Running }); err != nil {
		return compute.Status{}, err
	}
	if err := m.ensureVolumes(ctx, want); err != nil {
		return compute.Status{}, err
	}
	var err error
	if want.Running {
		err = m.ensureOn(ctx, want)
	} else {
		err = m.off(ctx, m.driver.GraceTime)
	}
	if err != nil {
		return compute.Status{}, fmt.Errorf("machine %s: %w", m.id, err)
	}
	return m.see(ctx)
}

// ensureOn makes the machine run, on the wanted boot.
func (m *machine) ensureOn(ctx context.Context, want compute.Machine) error {
	if r, p := m.known(); p != nil && p.alive() {
		state, err := m.runState(ctx)
		if err == nil && (state == "paused" || state == "io-error") {
			// The host stopped it, out of space most likely. It loses nothing if it can go on.
			if _, err = m.command(ctx, "cont", nil); err == nil {
				state, err = m.runState(ctx)
			}
		}
		switch {
		case err != nil && nobodyListens(err):
			// It is ending, or it is starting: on waits for it.
			p.gone(ctx, m.driver.times.end)
		case err != nil && p.alive():
			// It may be that this host is only slow. What a hanging QEMU has in memory is not thrown away without being told to:
			// turning the machine off does that.
			return fmt.Errorf("QEMU, process %d, does not answer: %w", p.pid, err)
		case err == nil && state == "running" && r.Boots >= want.Boots:
			return nil
		case err == nil && state == "running":
			if _, err := m.command(ctx, "system_reset", nil); err != nil {
				return err
			}
			m.driver.Log.Info("machine reset", "machine", m.id, "boots", want.Boots)
			return m.update(func(r *record) { r.Boots = want.Boots })
		case err == nil:
			m.driver.Log.Warn("machine cannot go on and is turned off and on", "machine", m.id, "state", state)
			if err := m.off(ctx, 0); err != nil {
				return err
			}
		}
	}
	if err := m.update(func(r *record) { r.Boots = max(r.Boots, want.Boots) }); err != nil {
		return err
	}
	return m.on(ctx, want)
}

// on starts QEMU and waits until its guest runs.
func (m *machine) on(ctx context.Context, want compute.Machine) error {
	d := m.driver
	// A QEMU that is there is starting, or was started by a service that crashed. Asking costs a millisecond.
	processes, err := findProcesses(d.machinesDir)
	if err != nil {
		return err
	}
	_, p := m.known()
	if p == nil || !p.alive() {
		p = processes[m.id]
	}
	if p == nil {
		accel, err := d.accel(ctx)
		if err != nil {
			return err
		}
		m.hangUp() // from the QEMU before
		r, _ := m.known()
		h := hardware{
			id: m.id, folder: m.folder, image: d.imagePath(r.Image), base: d.baseOf(r.Image), user: r.UserMade,
			vcpus: want.VCPUs, memoryMiB: want.MemoryMiB, accel: accel,
		}
		if want.Firmware == compute.UEFI {
			h.uefi = d.FirmwareCode
		}
		if p, err = start(d.QEMU, m.folder, arguments(h)); err != nil {
			return err
		}
		d.Log.Info("machine started", "machine", m.id, "pid", p.pid, "boots", r.Boots)
	}
	m.setProcess(p)
	deadline := time.Now().Add(d.times.start)
	for {
		state, err := m.runState(ctx)
		switch {
		case err == nil && state == "running":
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx) // QEMU goes on starting; the next Ensure finds it
		case !p.alive():
			return errors.New(m.death(p))
		case time.Now().After(deadline):
			err = errors.Join(fmt.Errorf("QEMU, process %d, was not ready within %s (state %q)", p.pid, d.times.start, state), err)
			return errors.Join(err, m.off(ctx, 0))
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// off turns the machine off: it asks the guest and waits for the grace time, then tells QEMU to quit, then kills it.
func (m *machine) off(ctx context.Context, grace time.Duration) error {
	_, p := m.known()
	if p == nil || !p.alive() {
		m.setProcess(nil)
		return nil
	}
	how := "by its guest"
	off := false
	if grace > 0 {
		if state, err := m.runState(ctx); err == nil && state == "running" {
			if _, err := m.command(ctx, "system_powerdown", nil); err == nil {
				off = p.gone(ctx, grace)
			}
		}
	}
	if !off && ctx.Err() == nil {
		how = "by QEMU"
		_, _ = m.command(ctx, "quit", nil) // its answer may be lost with the process
		off = p.gone(ctx, m.driver.times.quit)
	}
	if !off && ctx.Err() == nil {
		how = "by killing QEMU"
		if err := p.kill(ctx, m.driver.times.kill); err != nil {
			return err
		}
		off = true
	}
	if !off {
		return context.Cause(ctx)
	}
	m.driver.Log.Info("machine turned off", "machine", m.id, "pid", p.pid, "how", how)
	m.setProcess(nil)
	m.hangUp()
	return nil
}

// remove ends the machine for good. Removing the record is the step that decides: a folder without one is rubbish.
func (m *machine) remove(ctx context.Context) error {
	if err := m.off(ctx, 0); err != nil {
		return err
	}
	if err := os.Remove(m.path(recordFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := errors.Join(os.RemoveAll(m.folder), syncDir(filepath.Dir(m.folder))); err != nil {
		return err
	}
	m.driver.Log.Info("machine deleted", "machine", m.id)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone, m.written = true, false
	return nil
}

// notRunning is ErrOff where the machine's QEMU is not there, else err.
func (m *machine) notRunning(err error) error {
	_, p := m.known()
	if p == nil || !p.alive() || nobodyListens(err) {
		return fmt.Errorf("%w: %s", compute.ErrOff, m.id)
	}
	return err
}

func (m *machine) display(ctx context.Context) (net.Conn, error) {
	if err := m.notRunning(nil); err != nil {
		return nil, err
	}
	conn, err := dialIn(ctx, m.folder, displaySocket)
	if err != nil {
		return nil, m.notRunning(err)
	}
	return conn, nil
}

func (m *machine) screenshot(ctx context.Context) ([]byte, error) {
	if err := m.notRunning(nil); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("screen-%d.png%s", m.shots.Add(1), partSuffix) // QEMU's folder is the machine's
	defer os.Remove(m.path(name))
	if _, err := m.command(ctx, "screendump", map[string]any{"filename": name, "format": "png"}); err != nil {
		return nil, m.notRunning(err)
	}
	return os.ReadFile(m.path(name))
}
