package computetest

import (
	"context"
	"fmt"
	"sync"

	"berth/internal/compute"
)

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
