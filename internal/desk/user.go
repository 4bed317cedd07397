package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"

	"berth/internal/awsapi"
	"berth/internal/directory"
	"berth/internal/directory/builtin"
)

// UserInfo is a user of a built-in directory.
type UserInfo struct {
	UserName    *string
	DisplayName *string
	Email       *string
	Enabled     *bool
	Created     *time.Time
}

// CreateUserInput is a new user and the first password (8 to 128 characters).
type CreateUserInput struct {
	DirectoryId *string
	UserName    *string
	DisplayName *string
	Email       *string
	Password    awsapi.Secret
}

// CreateUserOutput is the user as the directory has it.
type CreateUserOutput struct{ User *UserInfo }

// CreateUser makes a user in a built-in directory.
func (b *Berth) CreateUser(ctx context.Context, in *CreateUserInput) (*CreateUserOutput, error) {
	dom, err := b.domain(ctx, in.DirectoryId)
	if err != nil {
		return nil, err
	}
	u, err := dom.Create(ctx, directory.User{Name: aws.ToString(in.UserName), DisplayName: aws.ToString(in.DisplayName), Email: aws.ToString(in.Email)}, in.Password.Reveal())
	if err != nil {
		return nil, refuseUser(err, in.UserName)
	}
	v := userView(u)
	return &CreateUserOutput{User: &v}, nil
}

// ListUsersInput names a directory.
type ListUsersInput struct{ DirectoryId *string }

// ListUsersOutput lists users by name.
type ListUsersOutput struct{ Users []UserInfo }

// ListUsers lists the users of a built-in directory.
func (b *Berth) ListUsers(ctx context.Context, in *ListUsersInput) (*ListUsersOutput, error) {
	dom, err := b.domain(ctx, in.DirectoryId)
	if err != nil {
		return nil, err
	}
	us, err := dom.Users(ctx)
	if err != nil {
		return nil, err
	}
	out := &ListUsersOutput{Users: []UserInfo{}}
	for _, u := range us {
		out.Users = append(out.Users, userView(u))
	}
	return out, nil
}

// SetUserPasswordInput is a user's new password.
type SetUserPasswordInput struct {
	DirectoryId *string
	UserName    *string
	Password    awsapi.Secret
}

// SetUserPasswordOutput is empty.
type SetUserPasswordOutput struct{}

// SetUserPassword gives a user another password.
func (b *Berth) SetUserPassword(ctx context.Context, in *SetUserPasswordInput) (*SetUserPasswordOutput, error) {
	dom, err := b.domain(ctx, in.DirectoryId)
	if err != nil {
		return nil, err
	}
	return &SetUserPasswordOutput{}, refuseUser(dom.SetPassword(ctx, aws.ToString(in.UserName), in.Password.Reveal()), in.UserName)
}

// DeleteUserInput names a user.
type DeleteUserInput struct {
	DirectoryId *string
	UserName    *string
}

// DeleteUserOutput is empty.
type DeleteUserOutput struct{}

// DeleteUser removes a user who has no WorkSpace: the next one of the same name would find it.
func (b *Berth) DeleteUser(ctx context.Context, in *DeleteUserInput) (*DeleteUserOutput, error) {
	dom, err := b.domain(ctx, in.DirectoryId)
	if err != nil {
		return nil, err
	}
	name := aws.ToString(in.UserName)
	err = b.d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		// As long as it is held, CreateWorkspaces waits.
		if _, err := hold(ctx, tx, (*registrationRecord)(nil), "directory_id", aws.ToString(in.DirectoryId)); err != nil {
			return err
		}
		n, err := tx.NewSelect().Model((*workspaceRecord)(nil)).Where("directory_id = ? AND user_name = ? AND state <> ?", aws.ToString(in.DirectoryId), strings.ToLower(name), workspaceTerminated).Count(ctx)
		if err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		if n > 0 {
			return &types.ResourceAssociatedException{Message: aws.String("The user " + name + " has a WorkSpace. Terminate it first.")}
		}
		return dom.In(tx).Delete(ctx, name)
	})
	return &DeleteUserOutput{}, refuseUser(err, in.UserName)
}

// domain finds a directory by a request's id.
func (b *Berth) domain(ctx context.Context, id *string) (*builtin.Domain, error) {
	_, err := b.d.directory(ctx, aws.ToString(id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, &types.ResourceNotFoundException{Message: aws.String("The directory " + aws.ToString(id) + " does not exist."), ResourceId: id}
	}
	return b.d.domain(aws.ToString(id)), err
}

func userView(u directory.User) UserInfo {
	return UserInfo{UserName: aws.String(u.Name), DisplayName: optional(u.DisplayName), Email: optional(u.Email), Enabled: aws.Bool(u.Enabled), Created: aws.Time(u.Created)}
}

// refuseUser makes refusals of what a directory says about a caller's user.
func refuseUser(err error, name *string) error {
	switch {
	case errors.Is(err, directory.ErrNoUser):
		return &types.ResourceNotFoundException{Message: aws.String("The user " + aws.ToString(name) + " does not exist in the directory."), ResourceId: name}
	case errors.Is(err, directory.ErrExists):
		return &types.ResourceAlreadyExistsException{Message: aws.String("The user " + aws.ToString(name) + " already exists in the directory.")}
	case errors.Is(err, directory.ErrName):
		return invalid("A user name is 1 to 63 letters, digits or any of . _ - and begins with a letter or digit.")
	case errors.Is(err, directory.ErrPassword):
		return invalid("A password needs 8 to 128 characters.")
	}
	return err
}
