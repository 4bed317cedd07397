// Package memory is the compute driver for tests: machines that exist in memory only, held by computetest to the behaviour
// of the real drivers. A [Host] stands for the hardware and what is stored on it; several drivers, one after the other, may be
// opened on it, which is what a restart of the service is. A machine shows a picture that changes with every boot and
// with every key, by RFB and as PNG.
//
// Nothing is emulated: no guest runs. Start reading at [NewHost].
package memory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"berth/internal/compute"
)

// Host is the hardware: images, machines and their volumes. It outlives the drivers opened on it. Safe for concurrent use.
type Host struct {
	mu       sync.Mutex
	images   map[string]int64 // virtual size in bytes
	machines map[string]*machine
	starts   int // how many machines were ever turned on
	faults   []fault
}

type machine struct {
	id, image  string
	root, user int64 // bytes; user 0: no volume
	boots      int   // reached
	guestBoots int   // what the guest, on its root volume, has counted
	start      int   // which of the host's starts it runs since; 0 when it does not run
	failed     string
	screen     *screen // nil when it does not run
	typed      []uint32
}

type fault struct {
	call  string
	after bool
	err   error
}

// NewHost is a host with nothing on it.
func NewHost() *Host {
	return &Host{images: map[string]int64{}, machines: map[string]*machine{}}
}

// Fail makes the next call of that name ("Ensure", "Delete", ... a method of compute.Driver) return err and do nothing.
func (h *Host) Fail(call string, err error) { h.fail(fault{call: call, err: err}) }

// FailAfter makes the next call of that name do its work and then return err: what a caller sees that crashed, or was cut
// off, before it learnt the answer.
func (h *Host) FailAfter(call string, err error) { h.fail(fault{call: call, err: err, after: true}) }

func (h *Host) fail(f fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f)
}

// Kill makes a running machine end by itself, as a crashed QEMU does. It says whether there was one.
func (h *Host) Kill(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.machines[id]
	if m == nil || m.screen == nil {
		return false
	}
	m.off()
	m.failed = "killed"
	return true
}

// Started names the start that the machine runs since, "" when it does not run: the same as long as it was not turned off.
func (h *Host) Started(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.machines[id]; m != nil && m.start != 0 {
		return fmt.Sprint("start ", m.start)
	}
	return ""
}

// GuestBoots is how often the machine's guest has booted in its life: turned on or reset.
func (h *Host) GuestBoots(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.machines[id]; m != nil {
		return m.guestBoots
	}
	return 0
}

// Volumes are the sizes, in bytes, of the machine's volumes "root" and "user".
func (h *Host) Volumes(id string) map[string]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	volumes := map[string]int64{}
	if m := h.machines[id]; m != nil {
		volumes["root"] = m.root
		if m.user > 0 {
			volumes["user"] = m.user
		}
	}
	return volumes
}

// Typed are the X11 keysyms of the keys pressed on the machine's display since it was last turned on.
func (h *Host) Typed(id string) []uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.machines[id]; m != nil {
		return slices.Clone(m.typed)
	}
	return nil
}

// Open is a driver for the host.
func (h *Host) Open() compute.Driver { return &driver{host: h} }

type driver struct {
	host   *Host
	closed bool // under host.mu
}

var errClosed = errors.New("compute: the driver is closed")

// call runs one method of the driver, with the host locked and the faults asked for.
func (d *driver) call(ctx context.Context, name string, work func() error) error {
	h := d.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.closed {
		return errClosed
	}
	i := slices.IndexFunc(h.faults, func(f fault) bool { return f.call == name })
	if i < 0 {
		return work()
	}
	f := h.faults[i]
	h.faults = slices.Delete(h.faults, i, i+1)
	if f.after {
		if err := work(); err != nil {
			return err
		}
	}
	return f.err
}

func (d *driver) Capabilities() compute.Capabilities {
	return compute.Capabilities{
		Name:           "memory",
		Accelerator:    "none",
		AcceleratorWhy: "machines in memory run no guest",
		Firmwares:      []compute.Firmware{compute.BIOS, compute.UEFI},
	}
}

func (d *driver) EnsureImage(ctx context.Context, id, path string, base ...string) error {
	return d.call(ctx, "EnsureImage", func() error {
		if err := compute.CheckID(id); err != nil {
			return err
		}
		size, err := compute.ImageSizes(path, base...)
		if err != nil {
			return err
		}
		if known, ok := d.host.images[id]; ok && known != size {
			return fmt.Errorf("%w: image %s is already known with %d bytes, not %d", compute.ErrInvalid, id, known, size)
		}
		d.host.images[id] = size
		return nil
	})
}

func (d *driver) DeleteImage(ctx context.Context, id string) error {
	return d.call(ctx, "DeleteImage", func() error {
		if err := compute.CheckID(id); err != nil {
			return err
		}
		for _, m := range d.host.machines {
			if m.image == id {
				return fmt.Errorf("%w: image %s, by machine %s", compute.ErrInUse, id, m.id)
			}
		}
		delete(d.host.images, id)
		return nil
	})
}

func (d *driver) Ensure(ctx context.Context, want compute.Machine) (compute.Status, error) {
	var status compute.Status
	err := d.call(ctx, "Ensure", func() error {
		if err := want.Check(); err != nil {
			return err
		}
		m, err := d.host.ensure(want)
		if err != nil {
			return err
		}
		status = m.status()
		return nil
	})
	return status, err
}

func (h *Host) ensure(want compute.Machine) (*machine, error) {
	root, user := int64(want.RootGiB)*compute.GiB, int64(want.UserGiB)*compute.GiB
	m := h.machines[want.ID]
	if m == nil {
		image, ok := h.images[want.Image]
		if !ok {
			return nil, fmt.Errorf("%w: %s", compute.ErrNoImage, want.Image)
		}
		if root < image {
			return nil, fmt.Errorf("%w: machine %s: a root volume of %d bytes is smaller than its image's %d", compute.ErrInvalid, want.ID, root, image)
		}
		m = &machine{id: want.ID, image: want.Image, root: root, user: user}
		h.machines[want.ID] = m
	}
	if root < m.root || user < m.user {
		return nil, fmt.Errorf("%w: machine %s: volumes only grow: root %d to %d, user %d to %d bytes",
			compute.ErrInvalid, want.ID, m.root, root, m.user, user)
	}
	m.root, m.user = root, user
	switch {
	case !want.Running:
		m.off()
	case m.screen == nil:
		h.starts++
		m.start, m.failed, m.typed = h.starts, "", nil
		m.boots = max(m.boots, want.Boots)
		m.guestBoots++
		m.screen = newScreen(m.id, m.guestBoots, func(key uint32) { h.pressed(m, key) })
	case want.Boots > m.boots:
		m.boots = want.Boots
		m.guestBoots++
		m.screen.boot(m.guestBoots)
	}
	return m, nil
}

// off turns the machine off; a machine that is off stays so.
func (m *machine) off() {
	if m.screen != nil {
		m.screen.close()
	}
	m.screen, m.start, m.failed = nil, 0, ""
}

func (h *Host) pressed(m *machine, key uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	const most = 4096 // keys remembered
	if len(m.typed) < most {
		m.typed = append(m.typed, key)
	}
}

func (m *machine) status() compute.Status {
	s := compute.Status{ID: m.id, State: compute.Off, Boots: m.boots, Why: m.failed}
	switch {
	case m.screen != nil:
		s.State = compute.Running
	case m.failed != "":
		s.State = compute.Failed
	}
	return s
}

// find is the machine, ErrNotFound or ErrInvalid.
func (d *driver) find(id string) (*machine, error) {
	if err := compute.CheckID(id); err != nil {
		return nil, err
	}
	m := d.host.machines[id]
	if m == nil {
		return nil, fmt.Errorf("%w: %s", compute.ErrNotFound, id)
	}
	return m, nil
}

func (d *driver) Status(ctx context.Context, id string) (compute.Status, error) {
	var status compute.Status
	err := d.call(ctx, "Status", func() error {
		m, err := d.find(id)
		if err != nil {
			return err
		}
		status = m.status()
		return nil
	})
	return status, err
}

func (d *driver) List(ctx context.Context) ([]compute.Status, error) {
	list := []compute.Status{}
	err := d.call(ctx, "List", func() error {
		for _, m := range d.host.machines {
			list = append(list, m.status())
		}
		return nil
	})
	slices.SortFunc(list, func(a, b compute.Status) int { return strings.Compare(a.ID, b.ID) })
	return list, err
}

func (d *driver) Delete(ctx context.Context, id string) error {
	return d.call(ctx, "Delete", func() error {
		m, err := d.find(id)
		if errors.Is(err, compute.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		m.off()
		delete(d.host.machines, id)
		return nil
	})
}

func (d *driver) Display(ctx context.Context, id string) (net.Conn, error) {
	var conn net.Conn
	err := d.call(ctx, "Display", func() error {
		m, err := d.find(id)
		if err != nil {
			return err
		}
		if m.screen == nil {
			return fmt.Errorf("%w: %s", compute.ErrOff, id)
		}
		conn = m.screen.dial()
		return nil
	})
	return conn, err
}

func (d *driver) Screenshot(ctx context.Context, id string) ([]byte, error) {
	var picture []byte
	err := d.call(ctx, "Screenshot", func() error {
		m, err := d.find(id)
		if err != nil {
			return err
		}
		if m.screen == nil {
			return fmt.Errorf("%w: %s", compute.ErrOff, id)
		}
		picture, err = m.screen.png()
		return err
	})
	return picture, err
}

func (d *driver) Close() error {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	d.closed = true
	return nil
}
