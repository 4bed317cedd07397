// Package directory is where users come from: a [Domain] knows them and signs them in.
//
// builtin is a domain that Berth keeps itself. It does not know WorkSpaces or their registration; desk does.
// Start reading at [Domain].
package directory

import (
	"context"
	"errors"
	"time"
)

// Domain is a directory of users.
type Domain interface {
	// User looks a user up by name, without regard to case. ErrNoUser when there is none.
	User(ctx context.Context, name string) (User, error)
	// SignIn checks a password. ErrSignIn when the name or the password is wrong or the user is disabled, without telling
	// which, and in about the same time.
	SignIn(ctx context.Context, name, password string) (User, error)
}

// User is a person who may have a WorkSpace.
type User struct {
	Name        string // as the domain spells it
	DisplayName string
	Email       string
	Enabled     bool
	Created     time.Time
}

var (
	ErrNoUser = errors.New("directory: no such user")
	ErrSignIn = errors.New("directory: the user name or the password is wrong")
	ErrExists = errors.New("directory: the user exists already")
	// ErrPassword is a password that may not be used.
	ErrPassword = errors.New("directory: a password needs 8 to 128 characters")
	// ErrName is a user name that may not be used.
	ErrName = errors.New("directory: a user name is 1 to 63 letters, digits or any of . _ - and begins with a letter or digit")
)
