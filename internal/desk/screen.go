package desk

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/compute"
	"berth/internal/directory"
	"berth/internal/gateway"
)

// GetWorkspaceScreenshotInput names a WorkSpace.
type GetWorkspaceScreenshotInput struct{ WorkspaceId *string }

// GetWorkspaceScreenshotOutput is its screen.
type GetWorkspaceScreenshotOutput struct{ Png []byte }

// GetWorkspaceScreenshot takes a picture of a running WorkSpace's screen.
func (b *Berth) GetWorkspaceScreenshot(ctx context.Context, in *GetWorkspaceScreenshotInput) (*GetWorkspaceScreenshotOutput, error) {
	id := aws.ToString(in.WorkspaceId)
	r, err := b.d.workspace(ctx, id)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, &types.ResourceNotFoundException{Message: aws.String("The WorkSpace " + id + " does not exist."), ResourceId: in.WorkspaceId}
	}
	png, err := b.d.cfg.Driver.Screenshot(ctx, id)
	if errors.Is(err, compute.ErrOff) || errors.Is(err, compute.ErrNotFound) {
		return nil, &types.InvalidResourceStateException{Message: aws.String("The WorkSpace " + id + " is " + r.State + "; it has no screen.")}
	}
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	return &GetWorkspaceScreenshotOutput{Png: png}, nil
}

// Desk is what the gateway asks.
var _ gateway.Service = (*Desk)(nil)

// SignIn signs a user in with a directory's registration code. gateway.ErrSignIn when code, name or password is wrong.
func (d *Desk) SignIn(ctx context.Context, code, user, password string) (gateway.User, error) {
	var ids []string
	if err := d.db.NewSelect().Model((*registrationRecord)(nil)).Column("directory_id").Where("registration_code = ? AND state = ?", code, directoryRegistered).Scan(ctx, &ids); err != nil {
		return gateway.User{}, fmt.Errorf("desk: %w", err)
	}
	id := "" // no directory has this id; the password is checked against nobody's, and takes its time
	if len(ids) == 1 {
		id = ids[0]
	}
	u, err := d.domain(id).SignIn(ctx, user, password)
	if errors.Is(err, directory.ErrSignIn) {
		return gateway.User{}, gateway.ErrSignIn
	}
	return gateway.User{DirectoryID: id, Name: u.Name, DisplayName: u.DisplayName}, err
}

// Desktops lists the WorkSpaces of a user who has signed in. gateway.ErrSignIn when the user, or the directory's
// registration, is not there any more.
func (d *Desk) Desktops(ctx context.Context, u gateway.User) ([]gateway.Desktop, error) {
	if err := d.mayStay(ctx, u); err != nil {
		return nil, err
	}
	var rs []workspaceRecord
	if err := d.db.NewSelect().Model(&rs).Where("directory_id = ? AND user_name = ? AND state <> ?", u.DirectoryID, u.Name, workspaceTerminated).Order("created_at", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	out := []gateway.Desktop{}
	for _, r := range rs {
		out = append(out, gateway.Desktop{WorkspaceID: r.ID, ComputerName: r.ComputerName, State: r.State})
	}
	return out, nil
}

// mayStay looks whether somebody who has signed in could still do so.
func (d *Desk) mayStay(ctx context.Context, u gateway.User) error {
	if n, err := d.db.NewSelect().Model((*registrationRecord)(nil)).Where("directory_id = ? AND state = ?", u.DirectoryID, directoryRegistered).Count(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	} else if n == 0 {
		return gateway.ErrSignIn
	}
	known, err := d.domain(u.DirectoryID).User(ctx, u.Name)
	if errors.Is(err, directory.ErrNoUser) || err == nil && !known.Enabled {
		return gateway.ErrSignIn
	}
	return err
}

// Connect dials the screen of a WorkSpace for the user that it belongs to. gateway.ErrNoDesktop when it is somebody else's or
// is not there, gateway.ErrNotRunning when it has no screen now.
func (d *Desk) Connect(ctx context.Context, u gateway.User, workspaceID string) (net.Conn, error) {
	if err := d.mayStay(ctx, u); err != nil {
		return nil, err
	}
	r, err := d.workspace(ctx, workspaceID)
	if err != nil {
		return nil, err
	}
	if r == nil || r.DirectoryID != u.DirectoryID || r.UserName != u.Name {
		return nil, gateway.ErrNoDesktop
	}
	if m, exists := r.machine(); !exists || !m.Running {
		return nil, gateway.ErrNotRunning
	}
	conn, err := d.cfg.Driver.Display(ctx, workspaceID)
	if errors.Is(err, compute.ErrOff) || errors.Is(err, compute.ErrNotFound) {
		return nil, gateway.ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("desk: screen of %s: %w", workspaceID, err)
	}
	return conn, nil
}
