package computetest

import (
	"fmt"
	"slices"

	"berth/internal/compute"
)

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
