//go:build !windows

package main

import "errors"

var errNotWindows = errors.New("this program runs inside the Windows that it is to check; for a powered-off disk there is: berth check FILE")

func openMachine() (machine, error) { return nil, errNotWindows }

func elevate(bool) (again bool, err error) { return false, errNotWindows }

func onlyOne() (release func(), err error) { return nil, errNotWindows }

func browse(string) error { return errNotWindows }
