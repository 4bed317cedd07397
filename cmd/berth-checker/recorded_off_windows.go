//go:build !recorded

package main

import "berth/internal/windows/live"

// recorded is the machine as it is. In the program that the tests build what Wine cannot tell is read from a file; see
// recorded_windows.go.
func recorded(vm *live.System) (machine, error) { return vm, nil }
