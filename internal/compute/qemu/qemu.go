// Package qemu is the compute driver for one host: each machine is a QEMU process of its own.
//
// QEMU is steered by its monitor (QMP) and shows its screen by VNC, both on unix sockets in the machine's folder: nothing
// listens on a network. The process is detached: it outlives this service, and the next driver on the same folder finds it
// by the kernel's table of processes and takes its monitor over. (Where systemd runs the service, its unit needs
// KillMode=process, or systemd ends the machines with it.) No machine outlives its deletion.
//
//	Config.Dir/
//	  lock                   held by the one driver that is open
//	  images/ID.qcow2        sealed images, read only
//	  machines/ID/
//	    machine.json         what is wanted and how far it is; a folder without it is rubbish, and is removed
//	    root.qcow2           copy-on-write clone of the image
//	    user.qcow2           the user volume, if any
//	    firmware-vars.fd     UEFI's variables, if any
//	    qemu.log qemu.pid    of the process
//	    qmp.sock vnc.sock    of the process
//
// It runs on Linux only, and needs QEMU 7.1 or later. It confines QEMU by QEMU's own seccomp filter and by giving it no
// network; namespaces and another user are not its business. Start reading at [New], then at machine.ensure.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/compute"
)

// Config is what New needs. Only Dir and Log must be given.
type Config struct {
	// Dir holds everything; it is made if missing. Image files that are to be linked rather than copied are on its file system.
	Dir string
	Log *slog.Logger
	// Accelerator: "auto" (also ""; KVM when a probe's guest runs with it, else software emulation), "kvm" or "tcg".
	Accelerator string
	// QEMU and QEMUImg are the programs: default "qemu-system-x86_64" and "qemu-img", looked up in PATH.
	QEMU, QEMUImg string
	// FirmwareCode and FirmwareVars are OVMF's two files for UEFI; default: looked for where distributions put them.
	FirmwareCode, FirmwareVars string
	// GraceTime is how long a guest that is asked to turn itself off may take; default 30 s.
	GraceTime time.Duration
}

// times are how long QEMU may take. It needs milliseconds; these are for a host that is overloaded.
type times struct {
	answer time.Duration // for an answer of the monitor
	start  time.Duration // from its start to its guest's
	quit   time.Duration // from the command to quit, with disks to flush, to the process's end
	kill   time.Duration // from SIGKILL to the process's end
	end    time.Duration // from its sockets' closing to the process's end
}

var patient = times{answer: 10 * time.Second, start: 60 * time.Second, quit: 10 * time.Second, kill: 10 * time.Second, end: 2 * time.Second}

type driver struct {
	Config
	times               times
	images, machinesDir string
	lock                *os.File
	closing             chan struct{} // closed by Close
	calls               sync.WaitGroup
	accel               func(context.Context) (accelerator, error) // waits for the probe; an error is the end of the context

	mu       sync.Mutex
	closed   bool
	machines map[string]*machine
}

var errClosed = errors.New("compute: the driver is closed")

// New opens the driver on Config.Dir, which one driver at a time may hold: it finds the machines that run, removes what a
// crash left half made or half deleted, and ends QEMUs whose machine is gone.
func New(c Config) (compute.Driver, error) {
	d, err := open(c)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func open(c Config) (_ *driver, err error) {
	if c.Log == nil {
		return nil, errors.New("qemu: Config.Log is missing")
	}
	if c.Dir == "" {
		return nil, errors.New("qemu: Config.Dir is missing")
	}
	switch c.Accelerator {
	case "":
		c.Accelerator = "auto"
	case "auto", "kvm", "tcg":
	default:
		return nil, fmt.Errorf("qemu: accelerator %q is none of auto, kvm, tcg", c.Accelerator)
	}
	if c.GraceTime == 0 {
		c.GraceTime = 30 * time.Second
	}
	if c.QEMU, err = program(c.QEMU, "qemu-system-x86_64"); err != nil {
		return nil, err
	}
	if c.QEMUImg, err = program(c.QEMUImg, "qemu-img"); err != nil {
		return nil, err
	}
	if err := checkVersion(c.QEMU); err != nil {
		return nil, err
	}
	for _, f := range firmwares {
		if c.FirmwareCode == "" && c.FirmwareVars == "" && isFile(f.code) && isFile(f.vars) {
			c.FirmwareCode, c.FirmwareVars = f.code, f.vars
		}
	}
	if (c.FirmwareCode == "") != (c.FirmwareVars == "") {
		return nil, errors.New("qemu: of the firmware's code and variables only one is given")
	}

	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	// One spelling of the path: processes are recognised by it.
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, err
	}
	if c.Dir, err = filepath.EvalSymlinks(c.Dir); err != nil {
		return nil, err
	}
	d := &driver{
		Config:      c,
		times:       patient,
		images:      filepath.Join(c.Dir, "images"),
		machinesDir: filepath.Join(c.Dir, "machines"),
		closing:     make(chan struct{}),
		machines:    map[string]*machine{},
	}
	for _, dir := range []string{d.images, d.machinesDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if d.lock, err = lock(filepath.Join(c.Dir, "lock")); err != nil {
		return nil, err
	}
	if err := d.find(); err != nil {
		d.lock.Close()
		return nil, err
	}
	d.probe()
	return d, nil
}

// lock takes the lock file, or says that another driver has it. The kernel lets go of it when the process ends, and whatever
// that process was just about to start: for those a second is waited.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.EWOULDBLOCK
	for until := time.Now().Add(time.Second); err == unix.EWOULDBLOCK && time.Now().Before(until); {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("qemu: %s is held by another driver: %w", path, err)
	}
	return f, nil
}

// program is the absolute path of a program.
func program(name, otherwise string) (string, error) {
	if name == "" {
		name = otherwise
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("qemu: %w (Debian's packages qemu-system-x86 and qemu-utils have QEMU)", err)
	}
	return filepath.Abs(path)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

var versionPattern = regexp.MustCompile(`version (\d+)\.(\d+)`)

// checkVersion refuses a QEMU before 7.1, in which the screendump command learnt PNG.
func checkVersion(binary string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patient.start)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", binary, err)
	}
	found := versionPattern.FindSubmatch(out)
	if found == nil {
		return fmt.Errorf("%s --version says %.100q", binary, out)
	}
	major, _ := strconv.Atoi(string(found[1])) // digits, by the pattern
	minor, _ := strconv.Atoi(string(found[2]))
	if major < 7 || major == 7 && minor < 1 {
		return fmt.Errorf("%s is version %d.%d, needed is 7.1 or later", binary, major, minor)
	}
	return nil
}

// probe starts choosing the accelerator. Machines, and whoever asks for the capabilities, wait for the outcome.
func (d *driver) probe() {
	ctx, cancel := context.WithCancel(context.Background())
	chosen := make(chan struct{})
	var a accelerator
	d.calls.Go(func() {
		defer close(chosen)
		a = chooseAccelerator(ctx, d.QEMU, d.Accelerator)
	})
	go func() {
		defer cancel()
		select {
		case <-d.closing:
		case <-chosen:
			d.Log.Info("accelerator chosen", "accelerator", a.name, "why", a.why)
		}
	}()
	d.accel = func(ctx context.Context) (accelerator, error) {
		select {
		case <-chosen:
			return a, nil
		case <-ctx.Done():
			return accelerator{}, context.Cause(ctx)
		}
	}
}

// find fills d.machines from the folder and the kernel's table of processes.
func (d *driver) find() error {
	processes, err := findProcesses(d.machinesDir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(d.machinesDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, folder := e.Name(), filepath.Join(d.machinesDir, e.Name())
		if compute.CheckID(id) != nil || !e.IsDir() {
			d.Log.Warn("not a machine's folder, left alone", "path", folder)
			continue
		}
		m := newMachine(d, id)
		err := m.readRecord()
		if errors.Is(err, os.ErrNotExist) {
			continue // rubbish: see below
		} else if err != nil {
			d.Log.Error("machine's record cannot be read", "machine", id, "error", err)
			m.damaged = err
		}
		m.process = processes[id]
		if m.process != nil {
			d.Log.Info("machine found running", "machine", id, "pid", m.process.pid)
		}
		delete(processes, id)
		d.machines[id] = m
	}
	for id, p := range processes {
		d.Log.Warn("QEMU without a machine is ended", "machine", id, "pid", p.pid)
		if err := p.kill(context.Background(), d.times.kill); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if compute.CheckID(e.Name()) == nil && d.machines[e.Name()] == nil {
			d.Log.Warn("machine half made or half deleted is removed", "machine", e.Name())
			if err := os.RemoveAll(filepath.Join(d.machinesDir, e.Name())); err != nil {
				return err
			}
		}
	}
	return d.removePartImages()
}

// enter begins a call of the driver: ctx ends also when the driver is closed. leave ends it.
func (d *driver) enter(ctx context.Context) (_ context.Context, leave func(), _ error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, errClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	d.calls.Add(1)
	go func() {
		select {
		case <-d.closing:
			cancel(errClosed)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		d.calls.Done()
	}, nil
}

func (d *driver) Capabilities() compute.Capabilities {
	a, _ := d.accel(context.Background()) // which does not end
	c := compute.Capabilities{
		Name:           "qemu",
		Accelerator:    a.name,
		AcceleratorWhy: a.why,
		Firmwares:      []compute.Firmware{compute.BIOS},
	}
	if d.FirmwareCode != "" {
		c.Firmwares = append(c.Firmwares, compute.UEFI)
	}
	return c
}

// machine is the machine of that id, ErrNotFound or ErrInvalid.
func (d *driver) machine(id string) (*machine, error) {
	if err := compute.CheckID(id); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[id]
	if m == nil {
		return nil, fmt.Errorf("%w: %s", compute.ErrNotFound, id)
	}
	return m, nil
}

func (d *driver) Ensure(ctx context.Context, want compute.Machine) (compute.Status, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return compute.Status{}, err
	}
	defer leave()
	if err := want.Check(); err != nil {
		return compute.Status{}, err
	}
	if want.Firmware == compute.UEFI && d.FirmwareCode == "" {
		return compute.Status{}, fmt.Errorf("%w: machine %s: Firmware %q, and there is no OVMF on this host (Debian's package ovmf has it)",
			compute.ErrInvalid, want.ID, want.Firmware)
	}
	for {
		m, err := d.claim(want)
		if err != nil {
			return compute.Status{}, err
		}
		if err := m.begin(ctx); errors.Is(err, errGone) {
			continue // deleted while we waited: it is made anew
		} else if err != nil {
			d.unclaim(m)
			return compute.Status{}, err
		}
		status, err := m.ensure(ctx, want)
		if err != nil && !m.exists() {
			err = errors.Join(err, os.RemoveAll(m.folder))
		}
		m.end()
		d.unclaim(m)
		return status, err
	}
}

// claim is the machine wanted, or a new one whose image exists. From then on the image is in use.
func (d *driver) claim(want compute.Machine) (*machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[want.ID]
	if m == nil {
		image, err := compute.ImageSize(d.imagePath(want.Image))
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", compute.ErrNoImage, want.Image)
		} else if err != nil {
			return nil, err
		}
		if root := int64(want.RootGiB) * compute.GiB; root < image {
			return nil, fmt.Errorf("%w: machine %s: a root volume of %d bytes is smaller than its image's %d", compute.ErrInvalid, want.ID, root, image)
		}
		m = newMachine(d, want.ID)
		m.record.Image = want.Image
		d.machines[want.ID] = m
	}
	m.claims++
	return m, nil
}

// unclaim ends a claim. A machine of which nothing was written, since its first Ensure failed early, is forgotten again.
func (d *driver) unclaim(m *machine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.claims--
	if m.claims == 0 && d.machines[m.id] == m && !m.exists() {
		delete(d.machines, m.id)
	}
}

func (d *driver) Status(ctx context.Context, id string) (compute.Status, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return compute.Status{}, err
	}
	defer leave()
	m, err := d.machine(id)
	if err != nil {
		return compute.Status{}, err
	}
	status, exists, err := m.look(ctx)
	if err == nil && !exists {
		err = fmt.Errorf("%w: %s", compute.ErrNotFound, id)
	}
	return status, err
}

// List is in the order of the ids.
func (d *driver) List(ctx context.Context) ([]compute.Status, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	d.mu.Lock()
	machines := maps.Clone(d.machines)
	d.mu.Unlock()
	list := []compute.Status{}
	for _, id := range slices.Sorted(maps.Keys(machines)) {
		status, exists, err := machines[id].look(ctx)
		if err != nil {
			return nil, err
		}
		if exists {
			list = append(list, status)
		}
	}
	return list, nil
}

func (d *driver) Delete(ctx context.Context, id string) error {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	m, err := d.machine(id)
	if errors.Is(err, compute.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if err := m.begin(ctx); errors.Is(err, errGone) {
		return nil
	} else if err != nil {
		return err
	}
	defer m.end()
	if err := m.remove(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.machines, id)
	return nil
}

func (d *driver) Display(ctx context.Context, id string) (net.Conn, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	m, err := d.machine(id)
	if err != nil {
		return nil, err
	}
	return m.display(ctx)
}

func (d *driver) Screenshot(ctx context.Context, id string) ([]byte, error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	m, err := d.machine(id)
	if err != nil {
		return nil, err
	}
	return m.screenshot(ctx)
}

// Close ends the calls that are under way and lets go of the machines, which run on.
func (d *driver) Close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if closed {
		return nil
	}
	close(d.closing)
	d.calls.Wait()
	for _, m := range d.machines { // no call is under way any more
		m.hangUp()
	}
	return d.lock.Close()
}
