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

// Desktop is a WorkSpace as its user sees it.
type Desktop struct {
	WorkspaceID, ComputerName, State string
}

// SignIn signs a user in with a directory's registration code and lists the user's WorkSpaces. directory.ErrSignIn when
// code, name or password is wrong.
func (d *Desk) SignIn(ctx context.Context, code, user, password string) (directory.User, string, error) {
	var ids []string
	if err := d.db.NewSelect().Model((*registrationRecord)(nil)).Column("directory_id").Where("registration_code = ? AND state = ?", code, directoryRegistered).Scan(ctx, &ids); err != nil {
		return directory.User{}, "", fmt.Errorf("desk: %w", err)
	}
	id := "" // no directory has this id; the password is checked against nobody's, and takes its time
	if len(ids) == 1 {
		id = ids[0]
	}
	u, err := d.domain(id).SignIn(ctx, user, password)
	return u, id, err
}

// Desktops lists the WorkSpaces of a user who has signed in.
func (d *Desk) Desktops(ctx context.Context, directoryID, user string) ([]Desktop, error) {
	var rs []workspaceRecord
	if err := d.db.NewSelect().Model(&rs).Where("directory_id = ? AND user_name = ? AND state <> ?", directoryID, user, workspaceTerminated).Order("created_at").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	var out []Desktop
	for _, r := range rs {
		out = append(out, Desktop{WorkspaceID: r.ID, ComputerName: r.ComputerName, State: r.State})
	}
	return out, nil
}

// Connect dials the screen of a WorkSpace for the user that it belongs to. compute.ErrNotFound when it is somebody else's or
// is not there, compute.ErrOff when it does not run.
func (d *Desk) Connect(ctx context.Context, directoryID, user, workspaceID string) (net.Conn, error) {
	r, err := d.workspace(ctx, workspaceID)
	if err != nil {
		return nil, err
	}
	if r == nil || r.DirectoryID != directoryID || r.UserName != user {
		return nil, compute.ErrNotFound
	}
	return d.cfg.Driver.Display(ctx, workspaceID)
}
