package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/windows"

	"berth/internal/windows/live"
)

func openMachine() (machine, error) {
	vm, err := live.Open(time.Now)
	if err != nil {
		return nil, err
	}
	return recorded(vm)
}

// elevate sees to it that the program has an administrator's full rights: from a window it starts itself again with them, for which Windows
// asks; again says that it did. In a console it cannot, for the other program would have a console of its own.
func elevate(inConsole bool) (again bool, err error) {
	if live.Elevated() {
		return false, nil
	}
	if inConsole {
		return false, errors.New("run this as administrator: choose Start, right-click Windows PowerShell, and choose Run as administrator")
	}
	exe, err := os.Executable()
	if err != nil {
		return false, err
	}
	quoted := make([]string, len(os.Args)-1)
	for i, a := range os.Args[1:] {
		quoted[i] = syscall.EscapeArg(a)
	}
	folder, err := os.Getwd()
	if err != nil {
		return false, err
	}
	var p [4]*uint16
	for i, s := range []string{"runas", exe, strings.Join(quoted, " "), folder} {
		if p[i], err = windows.UTF16PtrFromString(s); err != nil {
			return false, err
		}
	}
	if err := windows.ShellExecute(0, p[0], p[1], p[2], p[3], windows.SW_SHOWNORMAL); err != nil {
		return false, fmt.Errorf("the checker needs an administrator's rights: %w", err)
	}
	return true, nil
}

// onlyOne makes sure that no other checker runs.
func onlyOne() (release func(), err error) {
	name, err := windows.UTF16PtrFromString(`Global\berth-checker`)
	if err != nil {
		return nil, err
	}
	h, err := windows.CreateMutex(nil, false, name)
	if errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		_ = windows.CloseHandle(h)
		return nil, errors.New("another berth-checker runs already: use its page, or close its window")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot see whether another berth-checker runs: %w", err)
	}
	return func() { _ = windows.CloseHandle(h) }, nil
}

// browse opens the page in the browser of whoever is signed in. The shell starts it, without our rights.
func browse(url string) error {
	folder, err := windows.GetSystemWindowsDirectory()
	if err != nil {
		return err
	}
	return exec.Command(filepath.Join(folder, "explorer.exe"), url).Start()
}
