package main

import (
	"context"

	"berth/internal/windows"
	"berth/internal/windows/live"
)

// machine is what the checker asks of the Windows that it runs in; live.System is the one there is.
type machine interface {
	windows.System
	Apply(ctx context.Context, change windows.Change) (live.Password, error)
	HoldUpdates(ctx context.Context) error
	KeepUpdatesOff() error
	ReleaseUpdates() (restored bool, err error)
	Locales() (live.Locales, error)
	Sysprep(ctx context.Context, answer []byte) error
	HasAccount(name string) (bool, error)
	RemoveAccount(name string) error
}
