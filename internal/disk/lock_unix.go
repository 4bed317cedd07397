//go:build unix

package disk

import (
	"os"
	"syscall"
)

// lock makes sure that nobody else writes f; closing it, or the end of the process, ends that.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
