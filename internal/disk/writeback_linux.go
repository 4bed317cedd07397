package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriteBack also forgets what has reached the disk: a desktop whose host imports an image keeps what it has in memory,
// and pages that are used over and over need not be got from a host (0.5 instead of 0.5 to 2.5 s of processor time for 1 GiB).
// It is without errors: those of the disk are told by the Sync at the end, and a file system that cannot do this does all of
// it then.
func beginWriteBack(f *os.File) {
	if c, err := f.SyscallConn(); err == nil { // unlike Fd, it is no other file if this one is closed meanwhile
		_ = c.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) })
	}
}
