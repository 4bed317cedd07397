package computetest

import (
	"fmt"
	"maps"
	"strings"

	"berth/internal/compute"
)

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
