// Package computetest is the behaviour that every compute driver is held to.
//
// A driver's test calls [Run] with a [Fixture]: how to open the driver, and how to look behind it, at what only the host and
// the guest know. Everything else goes through compute.Driver alone. What only one driver can be asked (QEMU's arguments,
// a killed service) is tested beside that driver.
package computetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image/png"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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

func images(s *suite) {
	for range 2 {
		s.image()
	}
	m := s.wanted("clone")
	m.Running = false
	s.ensure(m)
	s.wantError(s.driver.DeleteImage(s.context(), "sealed"), compute.ErrInUse, "DeleteImage with a clone that is off")
	second := s.wanted("second")
	second.Running = false
	s.ensure(second) // the refusal took nothing away
	for _, id := range []string{m.ID, second.ID} {
		if err := s.driver.Delete(s.context(), id); err != nil {
			s.Fatal(err)
		}
	}
	for range 2 {
		if err := s.driver.DeleteImage(s.context(), "sealed"); err != nil {
			s.Errorf("DeleteImage: %v", err)
		}
	}
	_, err := s.driver.Ensure(s.context(), m)
	s.wantError(err, compute.ErrNoImage, "Ensure from a deleted image")
	if _, err := s.driver.Status(s.context(), m.ID); !errors.Is(err, compute.ErrNotFound) {
		s.Errorf("after an Ensure without its image, Status: %v, want %v", err, compute.ErrNotFound)
	}
	if left := s.Leftovers(m.ID); len(left) > 0 {
		s.Errorf("an Ensure without its image left %q", left)
	}
}

func badImages(s *suite) {
	sealed, err := os.ReadFile(s.Image)
	if err != nil {
		s.Fatal(err)
	}
	for what, spoil := range map[string]func([]byte) []byte{
		"empty":                  func(b []byte) []byte { return nil },
		"cut within its header":  func(b []byte) []byte { return b[:100] },
		"raw":                    func(b []byte) []byte { return make([]byte, 1<<16) },
		"of an unknown version":  func(b []byte) []byte { b[7] = 9; return b },
		"with a backing file":    func(b []byte) []byte { b[14] = 1; return b },
		"with a data file":       func(b []byte) []byte { b[79] |= 4; return b },
		"encrypted":              func(b []byte) []byte { b[35] = 2; return b },
		"of an absurd size":      func(b []byte) []byte { b[24] = 0x7f; return b },
		"of a size of no bytes":  func(b []byte) []byte { clear(b[24:32]); return b },
		"that claims to be qcow": func(b []byte) []byte { b[0] = 'q'; return b },
	} {
		path := filepath.Join(s.TempDir(), "spoilt.qcow2")
		if err := os.WriteFile(path, spoil(bytes.Clone(sealed)), 0o600); err != nil {
			s.Fatal(err)
		}
		s.wantError(s.driver.EnsureImage(s.context(), "spoilt", path), compute.ErrInvalid, "an image "+what)
	}
	s.wantError(s.driver.EnsureImage(s.context(), "spoilt", filepath.Join(s.TempDir(), "missing")), os.ErrNotExist, "no image")
	// An image over another one.
	s.wantError(s.driver.EnsureImage(s.context(), "layered", s.Image, filepath.Join(s.TempDir(), "missing")), os.ErrNotExist, "an image over none")
	s.wantError(s.driver.EnsureImage(s.context(), "layered", s.Image, s.Image, s.Image), compute.ErrInvalid, "an image over two")
	smaller := filepath.Join(s.TempDir(), "smaller.qcow2")
	half := bytes.Clone(sealed)
	binary.BigEndian.PutUint64(half[24:], binary.BigEndian.Uint64(half[24:])/2)
	if err := os.WriteFile(smaller, half, 0o600); err != nil {
		s.Fatal(err)
	}
	s.wantError(s.driver.EnsureImage(s.context(), "layered", smaller, s.Image), compute.ErrInvalid, "an image over a larger one")
	empty := filepath.Join(s.TempDir(), "empty.qcow2")
	if out, err := exec.CommandContext(s.Context(), "qemu-img", "create", "-q", "-f", "qcow2", empty, strconv.FormatUint(binary.BigEndian.Uint64(sealed[24:]), 10)).CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	for range 2 {
		if err := s.driver.EnsureImage(s.context(), "layered", empty, s.Image); err != nil {
			s.Fatal(err)
		}
	}
	layered := s.wanted("layered")
	layered.Image = "layered"
	s.ensure(layered)
	s.guestBoots(layered.ID, 1) // what boots is in the image below
	s.wantError(s.driver.DeleteImage(s.context(), "layered"), compute.ErrInUse, "deleting an image over another one")

	m := s.wanted("clone")
	m.Image = "spoilt"
	_, err = s.driver.Ensure(s.context(), m)
	s.wantError(err, compute.ErrNoImage, "a machine from an image that was refused")
	if now, err := os.ReadFile(s.Image); err != nil || !bytes.Equal(now, sealed) {
		s.Errorf("the sealed image was written to (%v)", err)
	}
}

func ids(s *suite) {
	s.image()
	for _, id := range []string{
		"", ".", "..", "../escape", "a/b", "/absolute", "a\x00b", "a,b", "a b", "A", "-version", "a\n", "ä", strings.Repeat("a", 65),
	} {
		m := s.wanted("valid")
		m.ID = id
		_, err := s.driver.Ensure(s.context(), m)
		s.wantError(err, compute.ErrInvalid, fmt.Sprintf("Ensure(%q)", id))
		m = s.wanted("valid")
		m.Image = id
		_, err = s.driver.Ensure(s.context(), m)
		s.wantError(err, compute.ErrInvalid, fmt.Sprintf("Ensure with image %q", id))
		_, err = s.driver.Status(s.context(), id)
		s.wantError(err, compute.ErrInvalid, fmt.Sprintf("Status(%q)", id))
		s.wantError(s.driver.Delete(s.context(), id), compute.ErrInvalid, fmt.Sprintf("Delete(%q)", id))
		_, err = s.driver.Display(s.context(), id)
		s.wantError(err, compute.ErrInvalid, fmt.Sprintf("Display(%q)", id))
		_, err = s.driver.Screenshot(s.context(), id)
		s.wantError(err, compute.ErrInvalid, fmt.Sprintf("Screenshot(%q)", id))
		s.wantError(s.driver.EnsureImage(s.context(), id, s.Image), compute.ErrInvalid, fmt.Sprintf("EnsureImage(%q)", id))
		s.wantError(s.driver.DeleteImage(s.context(), id), compute.ErrInvalid, fmt.Sprintf("DeleteImage(%q)", id))
	}
	long := s.wanted(strings.Repeat("a-1", 21) + "z") // 64 bytes are allowed
	s.ensure(long)
	s.guestBoots(long.ID, 1)
	if _, err := s.driver.Screenshot(s.context(), long.ID); err != nil {
		s.Errorf("Screenshot of a machine with the longest id: %v", err)
	}
}

func unknown(s *suite) {
	_, err := s.driver.Status(s.context(), "nobody")
	s.wantError(err, compute.ErrNotFound, "Status")
	_, err = s.driver.Display(s.context(), "nobody")
	s.wantError(err, compute.ErrNotFound, "Display")
	_, err = s.driver.Screenshot(s.context(), "nobody")
	s.wantError(err, compute.ErrNotFound, "Screenshot")
	if err := s.driver.Delete(s.context(), "nobody"); err != nil {
		s.Errorf("Delete: %v", err)
	}
	if err := s.driver.DeleteImage(s.context(), "nothing"); err != nil {
		s.Errorf("DeleteImage: %v", err)
	}
	if list, err := s.driver.List(s.context()); err != nil || len(list) != 0 {
		s.Errorf("List of an empty host = %v, %v", list, err)
	}
}

func refused(s *suite) {
	s.image()
	for what, spoil := range map[string]func(*compute.Machine){
		"no root volume":         func(m *compute.Machine) { m.RootGiB = 0 },
		"root volume of 1 EiB":   func(m *compute.Machine) { m.RootGiB = 1 << 30 },
		"negative user volume":   func(m *compute.Machine) { m.UserGiB = -1 },
		"no processor":           func(m *compute.Machine) { m.VCPUs = 0 },
		"a thousand processors":  func(m *compute.Machine) { m.VCPUs = 1000 },
		"no memory":              func(m *compute.Machine) { m.MemoryMiB = 0 },
		"boot zero":              func(m *compute.Machine) { m.Boots = 0 },
		"no firmware":            func(m *compute.Machine) { m.Firmware = "" },
		"firmware of an unknown": func(m *compute.Machine) { m.Firmware = "openfirmware" },
	} {
		m := s.wanted("refused")
		spoil(&m)
		_, err := s.driver.Ensure(s.context(), m)
		s.wantError(err, compute.ErrInvalid, what)
	}
	m := s.wanted("refused")
	m.Image = "unknown"
	_, err := s.driver.Ensure(s.context(), m)
	s.wantError(err, compute.ErrNoImage, "unknown image")
	if left := s.Leftovers("refused"); len(left) > 0 {
		s.Errorf("refused machines left %q", left)
	}
}

func ensure(s *suite) {
	s.image()
	m := s.wanted("first")
	m.UserGiB = 2
	got := s.ensure(m)
	if got.Boots != 1 {
		s.Errorf("Boots %d, want 1", got.Boots)
	}
	s.guestBoots(m.ID, 1)
	started := s.started(m.ID)
	for range 3 {
		if again := s.ensure(m); again != got {
			s.Errorf("Ensure again = %+v, was %+v", again, got)
		}
	}
	if now := s.started(m.ID); now != started {
		s.Errorf("after Ensure again the machine runs since %q, was %q", now, started)
	}
	list, err := s.driver.List(s.context())
	if err != nil || len(list) != 1 || list[0] != got {
		s.Errorf("List = %+v, %v, want only %+v", list, err, got)
	}
	s.wantVolumes(m.ID, map[string]int64{"root": 1 * compute.GiB, "user": 2 * compute.GiB})
	// A reboot now makes the count 2. Had one of the Ensures booted it again, it would be more.
	m.Boots = 2
	s.ensure(m)
	s.guestBoots(m.ID, 2)
}

func (s *suite) wantVolumes(id string, want map[string]int64) {
	s.Helper()
	got, err := s.Volumes(id)
	if err != nil || !maps.Equal(got, want) {
		s.Errorf("%s: volumes %v, %v, want %v", id, got, err, want)
	}
}

func offAndOn(s *suite) {
	s.image()
	m := s.wanted("switched")
	s.ensure(m)
	s.guestBoots(m.ID, 1)
	first := s.started(m.ID)

	m.Running = false
	for range 2 {
		if got := s.ensure(m); got.Boots != 1 || got.Why != "" {
			s.Errorf("off: %+v", got)
		}
	}
	if started := s.Started(m.ID); started != "" {
		s.Errorf("off, and yet it runs since %q", started)
	}
	s.wantVolumes(m.ID, map[string]int64{"root": 1 * compute.GiB})
	_, err := s.driver.Screenshot(s.context(), m.ID)
	s.wantError(err, compute.ErrOff, "Screenshot of a machine that is off")
	_, err = s.driver.Display(s.context(), m.ID)
	s.wantError(err, compute.ErrOff, "Display of a machine that is off")

	m.Running, m.Boots = true, 2
	if got := s.ensure(m); got.Boots != 2 {
		s.Errorf("on again: %+v", got)
	}
	// The count comes from the root volume: 2 shows that it outlived being off, and that being turned on was one boot
	// although Boots was raised with it.
	s.guestBoots(m.ID, 2)
	if second := s.started(m.ID); second == first {
		s.Errorf("turned off and on, it runs still since %q", second)
	}
	m.Boots = 3
	s.ensure(m)
	s.guestBoots(m.ID, 3)
}

func reboot(s *suite) {
	s.image()
	m := s.wanted("rebooted")
	s.ensure(m)
	s.guestBoots(m.ID, 1)
	started := s.started(m.ID)
	m.Boots = 2
	for range 3 {
		if got := s.ensure(m); got.Boots != 2 {
			s.Errorf("Boots %d, want 2", got.Boots)
		}
		s.guestBoots(m.ID, 2)
	}
	lower := m
	lower.Boots = 1
	if got := s.ensure(lower); got.Boots != 2 {
		s.Errorf("a lower number of boots: %+v", got)
	}
	m.Boots = 7 // raised by more than one: still one reset
	if got := s.ensure(m); got.Boots != 7 {
		s.Errorf("Boots %d, want 7", got.Boots)
	}
	s.guestBoots(m.ID, 3)
	if now := s.started(m.ID); now != started {
		s.Errorf("rebooting made another machine: it runs since %q, was %q", now, started)
	}
	m.Boots = 8
	s.ensure(m)
	s.guestBoots(m.ID, 4)
}

func volumes(s *suite) {
	s.image()
	m := s.wanted("growing")
	s.ensure(m)
	s.guestBoots(m.ID, 1)
	started := s.started(m.ID)
	m.RootGiB, m.UserGiB = 3, 2 // while it runs; the user volume is new
	m.Running = true
	s.ensure(m)
	if now := s.started(m.ID); now != started {
		s.Errorf("growing started it anew")
	}
	s.wantVolumes(m.ID, map[string]int64{"root": 3 * compute.GiB, "user": 2 * compute.GiB})
	m.Running = false
	s.ensure(m)
	m.RootGiB, m.UserGiB = 4, 5 // while it is off
	s.ensure(m)
	s.wantVolumes(m.ID, map[string]int64{"root": 4 * compute.GiB, "user": 5 * compute.GiB})
	for _, smaller := range [][2]int{{3, 5}, {4, 4}, {4, 0}} {
		n := m
		n.RootGiB, n.UserGiB = smaller[0], smaller[1]
		_, err := s.driver.Ensure(s.context(), n)
		s.wantError(err, compute.ErrInvalid, fmt.Sprintf("volumes of %d and %d GiB made smaller", n.RootGiB, n.UserGiB))
	}
	s.wantVolumes(m.ID, map[string]int64{"root": 4 * compute.GiB, "user": 5 * compute.GiB})
	m.Running = true
	s.ensure(m)
	s.guestBoots(m.ID, 2) // the root volume is still the same one
	// It runs with all its volumes: growing both again, while it runs, reaches both.
	m.RootGiB, m.UserGiB = 5, 6
	s.ensure(m)
	s.wantVolumes(m.ID, map[string]int64{"root": 5 * compute.GiB, "user": 6 * compute.GiB})
}

func display(s *suite) {
	s.image()
	m := s.wanted("seen")
	s.ensure(m)
	s.guestBoots(m.ID, 1)
	for range 2 { // a second viewer beside the first
		conn, err := s.driver.Display(s.context(), m.ID)
		if err != nil {
			s.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(s.Patience)); err != nil {
			s.Error(err)
		}
		greeting := make([]byte, 12)
		if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "RFB 003.008\n" {
			s.Fatalf("greeting %q, %v", greeting, err)
		}
		if _, err := io.WriteString(conn, "RFB 003.008\n"); err != nil {
			s.Fatal(err)
		}
		security := make([]byte, 2)
		if _, err := io.ReadFull(conn, security); err != nil || security[0] != 1 || security[1] != 1 {
			s.Fatalf("security types %v, %v: want one, None (who may look is the gateway's business)", security, err)
		}
		if _, err := conn.Write([]byte{1}); err != nil {
			s.Fatal(err)
		}
		result := make([]byte, 4)
		if _, err := io.ReadFull(conn, result); err != nil || !bytes.Equal(result, make([]byte, 4)) {
			s.Fatalf("security result %v, %v", result, err)
		}
		if _, err := conn.Write([]byte{1}); err != nil { // shared
			s.Fatal(err)
		}
		size := make([]byte, 4)
		if _, err := io.ReadFull(conn, size); err != nil || bytes.Equal(size[:2], []byte{0, 0}) {
			s.Fatalf("screen of size %v, %v", size, err)
		}
	}
	picture, err := s.driver.Screenshot(s.context(), m.ID)
	if err != nil {
		s.Fatal(err)
	}
	decoded, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		s.Fatalf("the screenshot is no PNG: %v", err)
	}
	if size := decoded.Bounds().Size(); size.X < 320 || size.Y < 200 {
		s.Errorf("a screenshot of %v pixels", size)
	}
}

func displayEnds(s *suite) {
	s.image()
	m := s.wanted("dark")
	s.ensure(m)
	s.guestBoots(m.ID, 1) // from here on it turns off when asked to
	conn, err := s.driver.Display(s.context(), m.ID)
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(s.Patience)); err != nil {
		s.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
		s.Fatal(err)
	}
	m.Running = false
	s.ensure(m)
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		s.Errorf("read %d bytes from the display of a machine that is off", n)
	} else if timeout := (interface{ Timeout() bool })(nil); errors.As(err, &timeout) && timeout.Timeout() {
		s.Errorf("the display of a machine that is off stays open: %v", err)
	}
}

func deleteAll(s *suite) {
	s.image()
	running, off := s.wanted("running"), s.wanted("off")
	running.UserGiB = 1
	off.Running = false
	s.ensure(running)
	s.ensure(off)
	for _, id := range []string{running.ID, off.ID} {
		if left := s.Leftovers(id); len(left) == 0 {
			s.Fatalf("nothing is seen of %s while it exists: Leftovers cannot tell", id)
		}
		for range 2 {
			if err := s.driver.Delete(s.context(), id); err != nil {
				s.Errorf("Delete(%s): %v", id, err)
			}
		}
		if left := s.Leftovers(id); len(left) > 0 {
			s.Errorf("after Delete(%s) there is left: %q", id, left)
		}
		_, err := s.driver.Status(s.context(), id)
		s.wantError(err, compute.ErrNotFound, "Status of the deleted "+id)
	}
	if list, err := s.driver.List(s.context()); err != nil || len(list) != 0 {
		s.Errorf("List after all was deleted = %v, %v", list, err)
	}
	// The same id again is another machine, with a new root volume.
	s.ensure(running)
	s.guestBoots(running.ID, 1)
}

func reopen(s *suite) {
	s.image()
	on, off := s.wanted("on"), s.wanted("off")
	on.UserGiB = 1
	on.Boots = 5
	off.Running = false
	was := []compute.Status{s.ensure(off), s.ensure(on)}
	s.guestBoots(on.ID, 1)
	started := s.started(on.ID)
	if err := s.driver.Close(); err != nil {
		s.Fatal(err)
	}
	if _, err := s.driver.Ensure(s.context(), on); err == nil {
		s.Error("a closed driver answers")
	}
	if now := s.Started(on.ID); now != started {
		s.Fatalf("with the driver closed, it runs since %q, was %q", now, started)
	}
	s.open()
	list, err := s.driver.List(s.context())
	if err != nil || !slices.Equal(list, was) {
		s.Errorf("List by the next driver = %+v, %v, want %+v", list, err, was)
	}
	if got := s.ensure(on); got != was[1] {
		s.Errorf("Ensure by the next driver = %+v, want %+v", got, was[1])
	}
	if now := s.started(on.ID); now != started {
		s.Errorf("the next driver runs it since %q, was %q", now, started)
	}
	if _, err := s.driver.Screenshot(s.context(), on.ID); err != nil {
		s.Error(err)
	}
	s.wantError(s.driver.DeleteImage(s.context(), "sealed"), compute.ErrInUse, "DeleteImage by the next driver")
	on.Boots = 6
	s.ensure(on)
	s.guestBoots(on.ID, 2) // and not 3: neither closing nor opening was a boot
	on.Running = false
	s.ensure(on)
	if now := s.Started(on.ID); now != "" {
		s.Errorf("the next driver did not turn it off: it runs since %q", now)
	}
}

func killed(s *suite) {
	s.image()
	m := s.wanted("victim")
	s.ensure(m)
	s.guestBoots(m.ID, 1)
	started := s.started(m.ID)
	if err := s.Kill(m.ID); err != nil {
		s.Fatal(err)
	}
	s.eventually("it is seen as failed", func() (bool, string) {
		got := s.status(m.ID)
		return got.State == compute.Failed && got.Why != "" && got.Boots == 1, fmt.Sprintf("%+v", got)
	})
	_, err := s.driver.Screenshot(s.context(), m.ID)
	s.wantError(err, compute.ErrOff, "Screenshot of a failed machine")
	_, err = s.driver.Display(s.context(), m.ID)
	s.wantError(err, compute.ErrOff, "Display of a failed machine")
	if got := s.ensure(m); got.Boots != 1 || got.Why != "" {
		s.Errorf("brought back: %+v", got)
	}
	if now := s.started(m.ID); now == started {
		s.Errorf("brought back, it runs still since %q", now)
	}
	s.guestBoots(m.ID, 2)
	if err := s.Kill(m.ID); err != nil {
		s.Fatal(err)
	}
	m.Running = false
	s.ensure(m) // a machine that failed can be turned off
}

func killedUnseen(s *suite) {
	s.image()
	m := s.wanted("victim")
	s.ensure(m)
	s.guestBoots(m.ID, 1)
	if err := s.driver.Close(); err != nil {
		s.Fatal(err)
	}
	if err := s.Kill(m.ID); err != nil {
		s.Fatal(err)
	}
	s.open()
	if got := s.status(m.ID); got.State != compute.Failed || got.Why == "" {
		s.Errorf("Status by the next driver = %+v, want it failed", got)
	}
	s.ensure(m)
	s.guestBoots(m.ID, 2)
}

func manyCallers(s *suite) {
	s.image()
	m := s.wanted("popular")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if got, err := s.driver.Ensure(s.context(), m); err != nil || got.State != compute.Running {
				s.Errorf("Ensure = %+v, %v", got, err)
			}
		})
	}
	group.Wait()
	s.guestBoots(m.ID, 1)
	started := s.started(m.ID)
	m.Boots = 2
	for range 4 {
		group.Go(func() {
			if got, err := s.driver.Ensure(s.context(), m); err != nil || got.Boots != 2 {
				s.Errorf("Ensure = %+v, %v", got, err)
			}
		})
	}
	group.Wait()
	s.guestBoots(m.ID, 2)
	if now := s.started(m.ID); now != started {
		s.Errorf("it runs since %q, was %q", now, started)
	}
	m.Boots = 3
	s.ensure(m)
	s.guestBoots(m.ID, 3)
	for range 4 { // whatever the order, nothing is left and nobody hangs
		group.Go(func() { _, _ = s.driver.Status(s.context(), m.ID) })
		group.Go(func() {
			if err := s.driver.Delete(s.context(), m.ID); err != nil {
				s.Errorf("Delete: %v", err)
			}
		})
	}
	group.Wait()
	if left := s.Leftovers(m.ID); len(left) > 0 {
		s.Errorf("after Delete by many there is left: %q", left)
	}
}

func manyMachines(s *suite) {
	s.image()
	const n = 4
	var machines []compute.Machine
	for i := range n {
		machines = append(machines, s.wanted(fmt.Sprint("m-", i)))
	}
	var group sync.WaitGroup
	for _, m := range machines {
		group.Go(func() {
			if got, err := s.driver.Ensure(s.context(), m); err != nil || got.State != compute.Running {
				s.Errorf("Ensure(%s) = %+v, %v", m.ID, got, err)
			}
		})
	}
	group.Wait()
	starts := map[string]bool{}
	for _, m := range machines {
		starts[s.started(m.ID)] = true
		s.guestBoots(m.ID, 1)
	}
	if len(starts) != n {
		s.Errorf("%d machines run as %d", n, len(starts))
	}
	list, err := s.driver.List(s.context())
	if err != nil || len(list) != n {
		s.Fatalf("List = %+v, %v", list, err)
	}
	for i, got := range list {
		if got.ID != machines[i].ID || got.State != compute.Running {
			s.Errorf("List[%d] = %+v, want %s running", i, got, machines[i].ID)
		}
	}
	// What is done to one is not done to another.
	if err := s.driver.Delete(s.context(), machines[0].ID); err != nil {
		s.Error(err)
	}
	for _, m := range machines[1:] {
		if got := s.status(m.ID); got.State != compute.Running {
			s.Errorf("%s was deleted, and %+v", machines[0].ID, got)
		}
	}
}

func contextEnds(s *suite) {
	s.image()
	over, cancel := context.WithCancel(s.T.Context())
	cancel()
	m := s.wanted("late")
	_, err := s.driver.Ensure(over, m)
	s.wantError(err, context.Canceled, "Ensure with a context that is over")
	s.ensure(m) // and the next one converges
	s.guestBoots(m.ID, 1)
}
