package desk

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/compute"
)

// launched makes a running WorkSpace, all steps before it included.
func (f *fixture) launched() (id string) {
	f.t.Helper()
	x := ids{"bundle": f.bundled(), "directory": f.registered(types.TenancyDedicated)}
	if err := launch(f.t.Context(), f.Desk, x); err != nil {
		f.t.Fatal(err)
	}
	f.reaches(x, workspaceAvailable)
	return desktopID(f.Desk)
}

var errTest = errors.New("the test wants it so")

// lateList is a driver whose List, when it is held, tells what it saw only after a while.
type lateList struct {
	compute.Driver
	held atomic.Pointer[chan chan struct{}]
}

func (l *lateList) List(ctx context.Context) ([]compute.Status, error) {
	s, err := l.Driver.List(ctx)
	if held := l.held.Load(); held != nil {
		goOn := make(chan struct{})
		select {
		case *held <- goOn:
			<-goOn
		case <-ctx.Done():
		}
	}
	return s, err
}

func TestAMachineThatWasJustStartedIsNotRebooted(t *testing.T) {
	f := newFixture(t)
	id := f.launched()
	if err := stop(t.Context(), f.Desk, nil); err != nil {
		t.Fatal(err)
	}
	f.reaches(nil, workspaceStopped)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	late := &lateList{Driver: f.host.Open()}
	held := make(chan chan struct{})
	late.held.Store(&held)
	f.cfg.Driver = late
	d, err := New(context.Background(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.Desk = d
	goOn := <-held // the watch has seen the machine off
	if err := changed(f.StartWorkspaces(t.Context(), &workspaces.StartWorkspacesInput{StartWorkspaceRequests: []types.StartRequest{{WorkspaceId: &id}}})); err != nil {
		t.Fatal(err)
	}
	f.reaches(nil, workspaceAvailable)
	boots := f.host.GuestBoots(id)
	late.held.Store(nil)
	close(goOn)
	time.Sleep(4 * f.cfg.WatchInterval)
	if got := f.host.GuestBoots(id); got != boots {
		t.Errorf("the guest has booted %d times, want %d", got, boots)
	}
}

func TestPowerOffOnClose(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.PowerOffOnClose = true })
	id := f.launched()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f.host.Started(id) != "" {
		t.Error("the machine still runs")
	}
	f.open()
	until(t, "the machine's return", func() bool { return f.host.Started(id) != "" })
	if s, _ := desktopState(t.Context(), f.Desk, nil); s != workspaceAvailable {
		t.Errorf("the WorkSpace is %s", s)
	}
	// A WorkSpace that is stopped, or was never started, gets no machine by that.
	if err := stop(t.Context(), f.Desk, nil); err != nil {
		t.Fatal(err)
	}
	f.reaches(nil, workspaceStopped)
	if err := f.host.Open().Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if v := f.host.Volumes(id); len(v) != 0 {
		t.Errorf("turning off has made a machine: %v", v)
	}
	f.open()
}

func TestAnUnhealthyWorkSpaceRecoversWithoutATrace(t *testing.T) {
	f := newFixture(t)
	id := f.launched()
	if _, err := f.db.NewUpdate().Model((*workspaceRecord)(nil)).Set("state = ?, error_code = 'InternalError', error_message = 'x'", workspaceUnhealthy).Where("id = ?", id).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.reaches(nil, workspaceAvailable)
	out, err := f.DescribeWorkspaces(t.Context(), &workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{id}})
	if err != nil || out.Workspaces[0].ErrorCode != nil || out.Workspaces[0].ErrorMessage != nil {
		t.Errorf("an AVAILABLE WorkSpace shows %v %v (%v)", aws.ToString(out.Workspaces[0].ErrorCode), aws.ToString(out.Workspaces[0].ErrorMessage), err)
	}
}

func TestTerminatingTwiceIsTerminating(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.TerminatedFor = time.Hour })
	id := f.launched()
	terminate := func() error {
		return changed(f.TerminateWorkspaces(t.Context(), &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []types.TerminateRequest{{WorkspaceId: &id}}}))
	}
	if err := terminate(); err != nil {
		t.Fatal(err)
	}
	f.reaches(nil, workspaceTerminated)
	if _, err := f.db.NewUpdate().Model((*workspaceRecord)(nil)).Set("state = ?", workspaceTerminating).Where("id = ?", id).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := terminate(); err != nil {
		t.Errorf("terminating a WorkSpace that is TERMINATING: %v", err)
	}
	f.reaches(nil, workspaceTerminated)
}

// A clean stop in the middle of a step loses nothing; what is asked for while the service stops is done by the next one.
func TestWorkGoesOnAfterAStop(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.EnableDelay = time.Hour })
	if _, err := f.ModifyAccount(callerContext(), &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String("10.5.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // it is in the middle of waiting
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f.cfg.EnableDelay = 0
	f.open()
	until(t, "BYOL", func() bool {
		out, err := f.DescribeAccount(t.Context(), nil)
		return err == nil && out.DedicatedTenancySupport == types.DedicatedTenancySupportResultEnumEnabled
	})
}

func TestAFlowThatKillsTheServiceIsGivenUp(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.EnableDelay = time.Hour })
	if _, err := f.ModifyAccount(callerContext(), &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String("10.5.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// As the engine leaves it when a hundred processes have died of it.
	db, err := sql.Open("sqlite", filepath.Join(f.cfg.DataDir, "flows.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("UPDATE workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	f.open()
	out, err := f.DescribeAccountModifications(t.Context(), &workspaces.DescribeAccountModificationsInput{})
	if err != nil || out.AccountModifications[0].ModificationState != types.DedicatedTenancyModificationStateEnumFailed {
		t.Errorf("modifications: %+v, %v", out, err)
	}
}
