// Package computetest is the behaviour that every compute driver is held to.
//
// A driver's test calls [Run] with a [Fixture]: how to open the driver, and how to look behind it, at what only the host and
// the guest know. Everything else goes through compute.Driver alone. What only one driver can be asked (QEMU's arguments,
// a killed service) is tested beside that driver.
package computetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"berth/internal/compute"
)

// Fixture is a host for one test, with nothing on it.
type Fixture struct {
	// Open opens a driver on the host, again after the one before was closed. The test closes it.
	Open func() (compute.Driver, error)
	// Image is the path of a sealed image of 1 GiB whose guest boots by BIOS, counts its boots on its root volume, and
	// turns itself off when asked to.
	Image string
	// Kill ends a running machine from outside, as a crash does.
	Kill func(id string) error
	// Started names the start that a running machine runs since: the same until it is turned off, "" when it does not run.
	Started func(id string) string
	// GuestBoots is the count that the machine's guest keeps on its root volume: how often it was turned on or reset. It is
	// asked again until the count is the one hoped for, or Patience is over.
	GuestBoots func(id string) (int, error)
	// Volumes are the sizes, in bytes, of the machine's volumes "root" and "user".
	Volumes func(id string) (map[string]int64, error)
	// Leftovers names whatever is there of the machine: files, processes, sockets, entries.
	Leftovers func(id string) []string
	// Patience is how long one call, or a guest's boot, may take.
	Patience time.Duration
}

// Run holds a driver to the contract. open is called once for each test, with that test; the tests run in parallel.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"capabilities", capabilities},
		{"image", images},
		{"image that is none", badImages},
		{"ids", ids},
		{"unknown machine", unknown},
		{"machine refused", refused},
		{"ensure from nothing and again", ensure},
		{"off, on and the root volume's data", offAndOn},
		{"reboot once", reboot},
		{"volumes grow", volumes},
		{"display and screenshot", display},
		{"display ends with the machine", displayEnds},
		{"delete leaves nothing", deleteAll},
		{"driver closed and opened again", reopen},
		{"killed machine", killed},
		{"killed while no driver looked", killedUnseen},
		{"one machine asked for by many", manyCallers},
		{"many machines", manyMachines},
		{"context ends", contextEnds},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &suite{T: t, Fixture: open(t)}
			s.open()
			c.test(s)
		})
	}
}

type suite struct {
	*testing.T
	Fixture
	driver compute.Driver
}

func (s *suite) open() {
	s.Helper()
	d, err := s.Open()
	if err != nil {
		s.Fatalf("open the driver: %v", err)
	}
	s.driver = d
	s.Cleanup(func() { d.Close() }) // closing twice is allowed
}

// context is one for one call.
func (s *suite) context() context.Context {
	ctx, cancel := context.WithTimeout(s.T.Context(), s.Patience)
	s.Cleanup(cancel)
	return ctx
}

func (s *suite) image() {
	s.Helper()
	if err := s.driver.EnsureImage(s.context(), "sealed", s.Image); err != nil {
		s.Fatalf("EnsureImage: %v", err)
	}
}

// wanted is a small machine, running on its first boot. It is deleted at the test's end.
func (s *suite) wanted(id string) compute.Machine {
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.Patience) // the test's own context is over
		defer cancel()
		s.driver.Close() // it may hold what the next one needs
		d, err := s.Open()
		if err != nil {
			s.Errorf("open the driver to delete %s: %v", id, err)
			return
		}
		defer d.Close()
		if err := d.Delete(ctx, id); err != nil {
			s.Errorf("Delete %s: %v", id, err)
		}
	})
	return compute.Machine{
		ID: id, Image: "sealed", RootGiB: 1, VCPUs: 1, MemoryMiB: 32, Firmware: compute.BIOS, Running: true, Boots: 1,
	}
}

// ensure is Ensure that must succeed and reach what is wanted.
func (s *suite) ensure(m compute.Machine) compute.Status {
	s.Helper()
	got, err := s.driver.Ensure(s.context(), m)
	if err != nil {
		s.Fatalf("Ensure(%+v): %v", m, err)
	}
	state := compute.Off
	if m.Running {
		state = compute.Running
	}
	if got.ID != m.ID || got.State != state {
		s.Fatalf("Ensure(%+v) = %+v, want it %s", m, got, state)
	}
	if looked := s.status(m.ID); looked != got {
		s.Fatalf("Ensure(%s) = %+v, then Status = %+v", m.ID, got, looked)
	}
	return got
}

func (s *suite) status(id string) compute.Status {
	s.Helper()
	got, err := s.driver.Status(s.context(), id)
	if err != nil {
		s.Fatalf("Status(%s): %v", id, err)
	}
	return got
}

// eventually waits until the condition holds and fails with what was seen instead.
func (s *suite) eventually(what string, condition func() (bool, string)) {
	s.Helper()
	for end := time.Now().Add(s.Patience); ; time.Sleep(20 * time.Millisecond) {
		ok, seen := condition()
		if ok {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("%s: not within %s; last seen: %s", what, s.Patience, seen)
		}
	}
}

// guestBoots waits until the guest has counted n boots. That it counts no further is seen where the next count is awaited.
func (s *suite) guestBoots(id string, n int) {
	s.Helper()
	s.eventually(fmt.Sprintf("%s: the guest counts %d boots", id, n), func() (bool, string) {
		got, err := s.GuestBoots(id)
		if got > n {
			s.Fatalf("%s: the guest has counted %d boots, want %d", id, got, n)
		}
		return err == nil && got == n, fmt.Sprint(got, " ", err)
	})
}

func (s *suite) started(id string) string {
	s.Helper()
	started := s.Started(id)
	if started == "" {
		s.Fatalf("%s does not run", id)
	}
	return started
}

func (s *suite) wantError(err, want error, what string) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func capabilities(s *suite) {
	c := s.driver.Capabilities()
	if c.Name == "" || c.AcceleratorWhy == "" {
		s.Errorf("capabilities without a name or a reason: %+v", c)
	}
	if !slices.Contains([]string{"kvm", "tcg", "none"}, c.Accelerator) {
		s.Errorf("accelerator %q", c.Accelerator)
	}
	if !slices.Contains(c.Firmwares, compute.BIOS) {
		s.Errorf("firmwares %q without %q", c.Firmwares, compute.BIOS)
	}
}
