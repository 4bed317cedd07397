package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"golang.org/x/sync/errgroup"

	"berth/internal/compute"
)

// workspace reads a WorkSpace's record; nil when there is none (any more).
func (d *Desk) workspace(ctx context.Context, id string) (*workspaceRecord, error) {
	var r workspaceRecord
	err := d.db.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("desk: WorkSpace %s: %w", id, err)
	}
	return &r, nil
}

// machine is the machine that a WorkSpace's record asks for; false when it shall not exist.
func (r *workspaceRecord) machine() (compute.Machine, bool) {
	if r == nil || r.State == workspaceTerminating || r.State == workspaceTerminated || r.State == workspaceError {
		return compute.Machine{}, false
	}
	hw := computeTypes[types.Compute(r.ComputeType)]
	m := compute.Machine{
		ID: r.ID, Image: r.ImageID, RootGiB: r.RootGiB, UserGiB: r.UserGiB, VCPUs: hw.vcpus, MemoryMiB: hw.memoryGiB * 1024,
		Firmware: compute.BIOS, Boots: r.Boots, Running: r.State != workspaceStopping && r.State != workspaceStopped,
	}
	if r.BootMode == "uefi" {
		m.Firmware = compute.UEFI
	}
	return m, true
}

// settle brings a WorkSpace's machine to what its record asks for, and does it again when the record has changed meanwhile:
// whoever comes last, the machine ends as the record is.
func (d *Desk) settle(ctx context.Context, id string) (compute.Status, error) {
	for {
		r, err := d.workspace(ctx, id)
		if err != nil {
			return compute.Status{}, err
		}
		var s compute.Status
		if m, exists := r.machine(); exists {
			s, err = d.cfg.Driver.Ensure(ctx, m)
		} else {
			err = d.cfg.Driver.Delete(ctx, id)
		}
		if err != nil {
			return s, fmt.Errorf("desk: machine of %s: %w", id, err)
		}
		now, err := d.workspace(ctx, id)
		if err != nil {
			return s, err
		}
		if now == nil && r == nil || now != nil && r != nil && now.State == r.State && now.Boots == r.Boots {
			return s, nil
		}
	}
}

// arrive is the end of a transition: the machine is as asked for, the WorkSpace goes from one state to the next. A WorkSpace
// that is not in the first state any more has been asked for something else since, and that flow ends it.
func arrive(from, to string) step {
	return step{"arrive", func(d *Desk, ctx context.Context, id string) error {
		s, err := d.settle(ctx, id)
		if err != nil {
			return err
		}
		_, err = d.db.NewUpdate().Model((*workspaceRecord)(nil)).Set("state = ?, state_since = ?, ip_address = ?", to, d.now(), s.IP).Where("id = ? AND state = ?", id, from).Exec(ctx)
		return err
	}}
}

// settleMachine is the step that does the work of a transition.
var settleMachine = step{"machine", func(d *Desk, ctx context.Context, id string) error {
	_, err := d.settle(ctx, id)
	switch {
	case errors.Is(err, compute.ErrNoImage):
		return &failure{Code: "ResourceNotFound.Image", Message: "The image of the WorkSpace is not there any more."}
	case errors.Is(err, compute.ErrInvalid): // this host cannot run such a machine, and asking again changes nothing
		return &failure{Code: "UnsupportedWorkspaceConfiguration.Machine", Message: err.Error()}
	}
	return err
}}

// transitionFlow is a flow that brings a WorkSpace from one state to the next.
func transitionFlow(name, from, to string) flow {
	return flow{
		name:  name,
		steps: []step{settleMachine, arrive(from, to)},
		fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
			// A WorkSpace that never ran is an ERROR, and nothing is left of its machine. One that did is UNHEALTHY.
			state := workspaceUnhealthy
			if from == workspacePending {
				state = workspaceError
			}
			if _, err := d.db.NewUpdate().Model((*workspaceRecord)(nil)).Set("state = ?, state_since = ?, error_code = ?, error_message = ?", state, d.now(), f.Code, f.Message).
				Where("id = ? AND state = ?", id, from).Exec(ctx); err != nil {
				return err
			}
			if state == workspaceError {
				return d.cfg.Driver.Delete(ctx, id)
			}
			return nil
		},
		pending: pendingWorkspaces(from),
	}
}

func pendingWorkspaces(states ...string) func(d *Desk, ctx context.Context) ([]work, error) {
	return func(d *Desk, ctx context.Context) ([]work, error) {
		var ws []work
		for _, s := range states {
			var some []work
			if err := d.db.NewSelect().Model((*workspaceRecord)(nil)).ColumnExpr("id, turn").Where("state = ?", s).Scan(ctx, &some); err != nil {
				return nil, err
			}
			ws = append(ws, some...)
		}
		return ws, nil
	}
}

var (
	createWorkspace = transitionFlow("create-workspace", workspacePending, workspaceAvailable)
	startWorkspace  = transitionFlow("start-workspace", workspaceStarting, workspaceAvailable)
	stopWorkspace   = transitionFlow("stop-workspace", workspaceStopping, workspaceStopped)
	rebootWorkspace = transitionFlow("reboot-workspace", workspaceRebooting, workspaceAvailable)
)

// terminateWorkspace destroys the machine, shows the WorkSpace as TERMINATED for a while, and forgets it.
var terminateWorkspace = flow{
	name: "terminate-workspace",
	steps: []step{
		settleMachine,
		{"terminated", func(d *Desk, ctx context.Context, id string) error {
			_, err := d.db.NewUpdate().Model((*workspaceRecord)(nil)).Set("state = ?, state_since = ?, ip_address = ''", workspaceTerminated, d.now()).Where("id = ? AND state = ?", id, workspaceTerminating).Exec(ctx)
			return err
		}},
		{"forget", func(d *Desk, ctx context.Context, id string) error {
			r, err := d.workspace(ctx, id)
			if err != nil || r == nil || r.State != workspaceTerminated {
				return err
			}
			if err := sleepUntil(ctx, r.StateSince.Add(d.cfg.TerminatedFor), d.cfg.Now); err != nil {
				return err
			}
			if _, err := d.db.NewDelete().Model((*tagRecord)(nil)).Where("resource_id = ?", id).Exec(ctx); err != nil {
				return err
			}
			_, err = d.db.NewDelete().Model(r).WherePK().Exec(ctx)
			return err
		}},
	},
	fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
		_, err := d.db.NewUpdate().Model((*workspaceRecord)(nil)).Set("state = ?, state_since = ?, error_code = ?, error_message = ?", workspaceError, d.now(), f.Code, f.Message).Where("id = ? AND state = ?", id, workspaceTerminating).Exec(ctx)
		return err
	},
	pending: pendingWorkspaces(workspaceTerminating, workspaceTerminated),
}

// watch looks after machines until ctx ends: what should run and does not is started again, what belongs to nobody is
// deleted. It is the reconciler of machines, which can drift: a process dies, a host restarts.
func (d *Desk) watch(ctx context.Context) {
	for {
		if err := d.lookAfterMachines(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("looking after machines", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(d.cfg.WatchInterval):
		}
	}
}

func (d *Desk) lookAfterMachines(ctx context.Context) error {
	// First what is wanted, then what there is: a machine that was turned on between the two is not taken for one that is off.
	var rs []workspaceRecord
	if err := d.db.NewSelect().Model(&rs).Where("state IN (?, ?)", workspaceAvailable, workspaceUnhealthy).Scan(ctx); err != nil {
		return err
	}
	machines, err := d.cfg.Driver.List(ctx)
	if err != nil {
		return err
	}
	seen := map[string]compute.State{}
	var errs []error
	for _, m := range machines {
		seen[m.ID] = m.State
		r, err := d.workspace(ctx, m.ID)
		if err != nil {
			return err
		}
		if _, exists := r.machine(); !exists {
			d.log.Warn("deleting a machine that belongs to no WorkSpace", "machine", m.ID)
			errs = append(errs, d.cfg.Driver.Delete(ctx, m.ID))
		}
	}
	for _, r := range rs {
		if seen[r.ID] == compute.Running && r.State == workspaceAvailable {
			continue
		}
		errs = append(errs, d.revive(ctx, &r, seen[r.ID]))
	}
	return errors.Join(errs...)
}

// revive boots a WorkSpace's machine that has stopped by itself. When that does not work the WorkSpace is UNHEALTHY, and is
// tried again.
func (d *Desk) revive(ctx context.Context, r *workspaceRecord, was compute.State) error {
	if was != compute.Running {
		d.log.Warn("starting a machine that stopped by itself", "machine", r.ID, "was", was)
		if _, err := d.db.NewUpdate().Model((*workspaceRecord)(nil)).Set("boots = boots + 1").Where("id = ? AND state = ? AND boots = ?", r.ID, r.State, r.Boots).Exec(ctx); err != nil {
			return err
		}
	}
	_, err := d.settle(ctx, r.ID)
	state, text := workspaceAvailable, ""
	if err != nil {
		state, text = workspaceUnhealthy, err.Error()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, uerr := d.db.NewUpdate().Model((*workspaceRecord)(nil)).Set("state = ?, state_since = ?, error_code = '', error_message = ?", state, d.now(), text).Where("id = ? AND state = ?", r.ID, r.State).Exec(ctx)
	return errors.Join(err, uerr)
}

// powerOff turns the machines off, whatever their WorkSpaces' records ask for. Nothing else may be at work any more.
func (d *Desk) powerOff(ctx context.Context) error {
	machines, err := d.cfg.Driver.List(ctx)
	if err != nil {
		return fmt.Errorf("desk: turning machines off: %w", err)
	}
	var g errgroup.Group // side by side: each guest may take the whole grace time
	g.SetLimit(16)
	for _, s := range machines {
		g.Go(func() error {
			r, err := d.workspace(ctx, s.ID)
			if err != nil || s.State != compute.Running {
				return err
			}
			m, exists := r.machine()
			if !exists {
				return d.cfg.Driver.Delete(ctx, s.ID)
			}
			m.Running = false
			_, err = d.cfg.Driver.Ensure(ctx, m)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("desk: turning machines off: %w", err)
	}
	return nil
}
