package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"
	"github.com/uptrace/bun"

	"berth/internal/directory"
)

// workspaceRecord is a WorkSpace: a desktop of one user.
type workspaceRecord struct {
	bun.BaseModel   `bun:"table:workspaces"`
	ID              string    `bun:"id,pk"`
	DirectoryID     string    `bun:"directory_id"`
	UserName        string    `bun:"user_name"`
	BundleID        string    `bun:"bundle_id"`
	ImageID         string    `bun:"image_id"`
	ComputerName    string    `bun:"computer_name"`
	SubnetID        string    `bun:"subnet_id"`
	IPAddress       string    `bun:"ip_address"`
	State           string    `bun:"state"`
	Turn            int       `bun:"turn"`  // counts what was asked of it; a flow's run bears it
	Boots           int       `bun:"boots"` // counts the boots that were asked for
	ErrorCode       string    `bun:"error_code"`
	ErrorMessage    string    `bun:"error_message"`
	RunningMode     string    `bun:"running_mode"`
	AutoStopMinutes int       `bun:"auto_stop_minutes"`
	ComputeType     string    `bun:"compute_type"`
	RootGiB         int       `bun:"root_gib"`
	UserGiB         int       `bun:"user_gib"`
	BootMode        string    `bun:"boot_mode"`
	CreatedAt       time.Time `bun:"created_at"`
	StateSince      time.Time `bun:"state_since"`
}

const (
	workspacePending     = string(types.WorkspaceStatePending)
	workspaceAvailable   = string(types.WorkspaceStateAvailable)
	workspaceUnhealthy   = string(types.WorkspaceStateUnhealthy)
	workspaceRebooting   = string(types.WorkspaceStateRebooting)
	workspaceStarting    = string(types.WorkspaceStateStarting)
	workspaceTerminating = string(types.WorkspaceStateTerminating)
	workspaceTerminated  = string(types.WorkspaceStateTerminated)
	workspaceStopping    = string(types.WorkspaceStateStopping)
	workspaceStopped     = string(types.WorkspaceStateStopped)
	workspaceError       = string(types.WorkspaceStateError)
)

// CreateWorkspaces makes up to 25 WorkSpaces. Each request is taken or refused on its own; those taken are PENDING, then
// AVAILABLE or ERROR.
func (d *Desk) CreateWorkspaces(ctx context.Context, in *workspaces.CreateWorkspacesInput) (*workspaces.CreateWorkspacesOutput, error) {
	out := &workspaces.CreateWorkspacesOutput{FailedRequests: []types.FailedCreateWorkspaceRequest{}, PendingRequests: []types.Workspace{}}
	for _, req := range in.Workspaces {
		r, err := d.createWorkspace(ctx, &req)
		var refusal smithy.APIError
		switch {
		case errors.As(err, &refusal):
			out.FailedRequests = append(out.FailedRequests, types.FailedCreateWorkspaceRequest{WorkspaceRequest: &req, ErrorCode: aws.String(refusal.ErrorCode()), ErrorMessage: aws.String(refusal.ErrorMessage())})
		case err != nil:
			return nil, err
		default:
			// What a request in work shows (facts §13).
			out.PendingRequests = append(out.PendingRequests, types.Workspace{WorkspaceId: aws.String(r.ID), DirectoryId: aws.String(r.DirectoryID), UserName: aws.String(r.UserName),
				State: types.WorkspaceState(r.State), BundleId: aws.String(r.BundleID)})
		}
	}
	return out, nil
}

func (d *Desk) createWorkspace(ctx context.Context, req *types.WorkspaceRequest) (*workspaceRecord, error) {
	if aws.ToBool(req.RootVolumeEncryptionEnabled) || aws.ToBool(req.UserVolumeEncryptionEnabled) || req.VolumeEncryptionKey != nil {
		return nil, refused("UnsupportedWorkspaceConfiguration.Encryption", "Volumes cannot be encrypted here by the service.")
	}
	if req.WorkspaceName != nil || aws.ToString(req.UserName) == "[UNDEFINED]" {
		return nil, refused("InvalidUserConfiguration.Workspace", "A WorkSpace needs a user of its directory; WorkSpaces without one are not supported.")
	}
	bundle, err := d.bundle(ctx, aws.ToString(req.BundleId))
	if err != nil {
		return nil, err
	}
	im, err := d.workspaceImage(ctx, bundle.ImageID)
	if err != nil {
		return nil, err
	}
	r := &workspaceRecord{
		ID: d.workspacesID("ws-"), DirectoryID: aws.ToString(req.DirectoryId), BundleID: bundle.ID, ImageID: im.ID, ComputerName: "DESKTOP-" + d.random(upperDigits, 7),
		State: workspacePending, Turn: 1, Boots: 1, BootMode: im.BootMode, CreatedAt: d.now(), StateSince: d.now(),
		ComputeType: bundle.ComputeType, RootGiB: bundle.RootGiB, UserGiB: bundle.UserGiB,
	}
	if err := r.configure(req.WorkspaceProperties, gibOf(im.SizeBytes)); err != nil {
		return nil, err
	}
	err = d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := d.admit(ctx, tx, r, aws.ToString(req.UserName)); err != nil {
			return err
		}
		res, err := tx.NewInsert().Model(r).On("CONFLICT DO NOTHING").Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return refused("ResourceExists.WorkSpace", "The user %s already has a WorkSpace in the directory %s.", r.UserName, r.DirectoryID)
		}
		return putTags(ctx, tx, r.ID, tagsOf(req.Tags))
	})
	if err != nil {
		return nil, err
	}
	d.start(&createWorkspace, work{r.ID, r.Turn})
	return r, nil
}

func (d *Desk) bundle(ctx context.Context, id string) (*bundleRecord, error) {
	var r bundleRecord
	err := d.db.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, noBundle(id)
	}
	if err != nil {
		return nil, fmt.Errorf("desk: bundle %s: %w", id, err)
	}
	return &r, nil
}

func noBundle(id string) error {
	return refused("ResourceNotFound.Bundle", "The bundle %s does not exist.", id)
}

// admit holds a new WorkSpace against its directory: registered, dedicated (all bundles here are of BYOL images), and the
// user in it. Within the transaction it keeps the directory from being deregistered meanwhile, and the bundle from being deleted.
func (d *Desk) admit(ctx context.Context, tx bun.Tx, r *workspaceRecord, user string) error {
	if ok, err := hold(ctx, tx, (*bundleRecord)(nil), "id", r.BundleID); err != nil {
		return err
	} else if !ok {
		return noBundle(r.BundleID)
	}
	if _, err := hold(ctx, tx, (*registrationRecord)(nil), "directory_id", r.DirectoryID); err != nil {
		return err
	}
	var reg registrationRecord
	err := tx.NewSelect().Model(&reg).Where("directory_id = ?", r.DirectoryID).Scan(ctx)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return refused("ResourceNotFound.Directory", "The specified directory %s could not be found in the specified region.", r.DirectoryID)
	case err != nil:
		return err
	case reg.State != directoryRegistered:
		return refused("ResourceUnavailable.Directory", "The directory %s is %s.", r.DirectoryID, reg.State)
	case reg.Tenancy != string(types.TenancyDedicated):
		return refused("UnsupportedWorkspaceConfiguration.Tenancy", "The bundle %s is of a BYOL image and needs a directory that is registered for dedicated WorkSpaces; %s is %s.", r.BundleID, r.DirectoryID, reg.Tenancy)
	}
	if len(reg.SubnetIDs) > 0 {
		r.SubnetID = reg.SubnetIDs[0]
	}
	u, err := d.domain(r.DirectoryID).In(tx).User(ctx, user)
	if errors.Is(err, directory.ErrNoUser) {
		return refused("ResourceNotFound.User", "The user %s does not exist in the directory %s.", user, r.DirectoryID)
	}
	r.UserName = u.Name
	return err
}

// configure applies a request's properties over those of the bundle. imageGiB is the least that the root volume can be.
func (r *workspaceRecord) configure(p *types.WorkspaceProperties, imageGiB int64) error {
	r.RunningMode = string(types.RunningModeAlwaysOn) // what is meant when nothing is said (facts §8)
	if p == nil {
		return nil
	}
	if p.ComputeTypeName != "" {
		if computeTypes[p.ComputeTypeName].gpu != computeTypes[types.Compute(r.ComputeType)].gpu {
			return invalid("The compute type %s does not go with an image of a %s bundle.", p.ComputeTypeName, r.ComputeType)
		}
		r.ComputeType = string(p.ComputeTypeName)
	}
	if p.RootVolumeSizeGib != nil {
		r.RootGiB = int(*p.RootVolumeSizeGib)
	}
	if p.UserVolumeSizeGib != nil {
		r.UserGiB = int(*p.UserVolumeSizeGib)
	}
	if err := checkVolumes(types.Compute(r.ComputeType), r.RootGiB, r.UserGiB); err != nil {
		return err
	}
	if int64(r.RootGiB) < imageGiB {
		return invalid("The root volume must not be smaller than the image's, which has %d GB.", imageGiB)
	}
	if p.RunningMode != "" {
		r.RunningMode = string(p.RunningMode)
	}
	minutes := int(aws.ToInt32(p.RunningModeAutoStopTimeoutInMinutes))
	switch {
	case p.RunningMode == types.RunningModeAutoStop && minutes == 0:
		r.AutoStopMinutes = 60
	case p.RunningMode == types.RunningModeAutoStop && minutes > 0 && minutes%60 == 0:
		r.AutoStopMinutes = minutes
	case p.RunningMode == types.RunningModeAutoStop:
		return invalid("RunningModeAutoStopTimeoutInMinutes must be a multiple of 60; %d was given.", minutes)
	case minutes != 0 && r.RunningMode == string(types.RunningModeManual):
		return refused("AutoStopTimeoutIsNotDefaultForManualWorkspace", "A MANUAL WorkSpace has no auto-stop time-out.")
	case minutes != 0:
		return refused("AutoStopTimeoutIsNotApplicableForAnAlwaysOnWorkspace", "An ALWAYS_ON WorkSpace has no auto-stop time-out.")
	}
	return nil
}

// DescribeWorkspaces lists WorkSpaces: all, or those of one bundle, one directory (and in it one user), or by id.
func (d *Desk) DescribeWorkspaces(ctx context.Context, in *workspaces.DescribeWorkspacesInput) (*workspaces.DescribeWorkspacesOutput, error) {
	given := 0
	for _, is := range []bool{in.BundleId != nil, in.DirectoryId != nil, len(in.WorkspaceIds) > 0} {
		if is {
			given++
		}
	}
	if given > 1 {
		return nil, invalid("Only one of BundleId, DirectoryId and WorkspaceIds can be given.")
	}
	if in.UserName != nil && in.DirectoryId == nil {
		return nil, invalid("UserName needs a DirectoryId.")
	}
	var rs []workspaceRecord
	q := d.db.NewSelect().Model(&rs).Order("created_at", "id")
	if in.BundleId != nil {
		q.Where("bundle_id = ?", *in.BundleId)
	}
	if in.DirectoryId != nil {
		q.Where("directory_id = ?", *in.DirectoryId)
	}
	if in.UserName != nil {
		q.Where("user_name = ?", strings.ToLower(*in.UserName))
	}
	if len(in.WorkspaceIds) > 0 {
		q.Where("id IN (?)", bun.List(in.WorkspaceIds))
	}
	if in.WorkspaceName != nil {
		q.Where("FALSE") // none here has a name
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	rs, next, err := paginate(rs, aws.ToInt32(in.Limit), 25, in.NextToken, func(r workspaceRecord) string { return r.ID })
	if err != nil {
		return nil, err
	}
	out := &workspaces.DescribeWorkspacesOutput{Workspaces: []types.Workspace{}, NextToken: next}
	for _, r := range rs {
		out.Workspaces = append(out.Workspaces, r.view())
	}
	return out, nil
}

func (r *workspaceRecord) view() types.Workspace {
	w := types.Workspace{
		WorkspaceId: aws.String(r.ID), DirectoryId: aws.String(r.DirectoryID), UserName: aws.String(r.UserName), BundleId: aws.String(r.BundleID), State: types.WorkspaceState(r.State),
		ComputerName: aws.String(r.ComputerName), IpAddress: optional(r.IPAddress), SubnetId: optional(r.SubnetID), ErrorCode: optional(r.ErrorCode), ErrorMessage: optional(r.ErrorMessage),
		ModificationStates: []types.ModificationState{},
		WorkspaceProperties: &types.WorkspaceProperties{
			RunningMode: types.RunningMode(r.RunningMode), ComputeTypeName: types.Compute(r.ComputeType),
			RootVolumeSizeGib: aws.Int32(int32(r.RootGiB)), UserVolumeSizeGib: aws.Int32(int32(r.UserGiB)), Protocols: []types.Protocol{},
		},
	}
	if r.RunningMode == string(types.RunningModeAutoStop) {
		w.WorkspaceProperties.RunningModeAutoStopTimeoutInMinutes = aws.Int32(int32(r.AutoStopMinutes))
	}
	return w
}

// transition is something that is asked of a WorkSpace that exists.
type transition struct {
	flow  *flow
	verb  string
	from  []string // the states that it may be asked in (facts §9)
	to    string   // the state while it goes on
	boots bool     // it is a new boot
	modes bool     // only for AUTO_STOP and MANUAL WorkSpaces
}

// ask moves a WorkSpace into a transition and starts its flow. What does not go is a FailedWorkspaceChangeRequest.
func (d *Desk) ask(ctx context.Context, id string, t transition) (*types.FailedWorkspaceChangeRequest, error) {
	var r workspaceRecord
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		q := tx.NewUpdate().Model((*workspaceRecord)(nil)).Set("state = ?, state_since = ?, turn = turn + 1, error_code = '', error_message = ''", t.to, d.now()).
			Where("id = ? AND state IN (?)", id, bun.List(t.from))
		if t.boots {
			q.Set("boots = boots + 1")
		}
		if t.modes {
			q.Where("running_mode <> ?", types.RunningModeAlwaysOn)
		}
		res, err := q.Exec(ctx)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		err = tx.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return refused("ResourceNotFound.Workspace", "The WorkSpace %s does not exist.", id)
		case err == nil && n == 0 && t.modes && r.RunningMode == string(types.RunningModeAlwaysOn):
			return refused("InvalidResourceState.Workspace", "The WorkSpace %s is ALWAYS_ON; only AUTO_STOP and MANUAL WorkSpaces can be %s.", id, t.verb)
		case err == nil && n == 0:
			return refused("InvalidResourceState.Workspace", "The WorkSpace %s is %s and cannot be %s.", id, r.State, t.verb)
		}
		return err
	})
	var refusal smithy.APIError
	if errors.As(err, &refusal) {
		return &types.FailedWorkspaceChangeRequest{WorkspaceId: aws.String(id), ErrorCode: aws.String(refusal.ErrorCode()), ErrorMessage: aws.String(refusal.ErrorMessage())}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	d.start(t.flow, work{r.ID, r.Turn})
	return nil, nil
}

// askAll asks the same of several WorkSpaces.
func askAll[R any](d *Desk, ctx context.Context, reqs []R, id func(R) *string, t transition) ([]types.FailedWorkspaceChangeRequest, error) {
	failed := []types.FailedWorkspaceChangeRequest{}
	for _, req := range reqs {
		f, err := d.ask(ctx, aws.ToString(id(req)), t)
		if err != nil {
			return nil, err
		}
		if f != nil {
			failed = append(failed, *f)
		}
	}
	return failed, nil
}

// StartWorkspaces starts WorkSpaces that are STOPPED.
func (d *Desk) StartWorkspaces(ctx context.Context, in *workspaces.StartWorkspacesInput) (*workspaces.StartWorkspacesOutput, error) {
	f, err := askAll(d, ctx, in.StartWorkspaceRequests, func(r types.StartRequest) *string { return r.WorkspaceId },
		transition{flow: &startWorkspace, verb: "started", from: []string{workspaceStopped}, to: workspaceStarting, boots: true, modes: true})
	return &workspaces.StartWorkspacesOutput{FailedRequests: f}, err
}

// StopWorkspaces shuts WorkSpaces down. Their volumes stay.
func (d *Desk) StopWorkspaces(ctx context.Context, in *workspaces.StopWorkspacesInput) (*workspaces.StopWorkspacesOutput, error) {
	f, err := askAll(d, ctx, in.StopWorkspaceRequests, func(r types.StopRequest) *string { return r.WorkspaceId },
		transition{flow: &stopWorkspace, verb: "stopped", from: []string{workspaceAvailable, workspaceUnhealthy}, to: workspaceStopping, modes: true})
	return &workspaces.StopWorkspacesOutput{FailedRequests: f}, err
}

// RebootWorkspaces restarts WorkSpaces.
func (d *Desk) RebootWorkspaces(ctx context.Context, in *workspaces.RebootWorkspacesInput) (*workspaces.RebootWorkspacesOutput, error) {
	f, err := askAll(d, ctx, in.RebootWorkspaceRequests, func(r types.RebootRequest) *string { return r.WorkspaceId },
		transition{flow: &rebootWorkspace, verb: "rebooted", from: []string{workspaceAvailable, workspaceUnhealthy}, to: workspaceRebooting, boots: true})
	return &workspaces.RebootWorkspacesOutput{FailedRequests: f}, err
}

// TerminateWorkspaces destroys WorkSpaces with their volumes. There is no way back.
func (d *Desk) TerminateWorkspaces(ctx context.Context, in *workspaces.TerminateWorkspacesInput) (*workspaces.TerminateWorkspacesOutput, error) {
	f, err := askAll(d, ctx, in.TerminateWorkspaceRequests, func(r types.TerminateRequest) *string { return r.WorkspaceId },
		transition{flow: &terminateWorkspace, verb: "terminated", to: workspaceTerminating, from: []string{workspacePending, workspaceAvailable, workspaceUnhealthy, workspaceRebooting,
			workspaceStarting, workspaceStopping, workspaceStopped, workspaceError, workspaceTerminating}})
	return &workspaces.TerminateWorkspacesOutput{FailedRequests: f}, err
}
