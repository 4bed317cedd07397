package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriteBack is without errors: those of the disk are told by the Sync at the end, and a file system that cannot do this
// does all of it then.
func beginWriteBack(f *os.File) {
	if c, err := f.SyscallConn(); err == nil { // unlike Fd, it is no other file if this one is closed meanwhile
		_ = c.Control(func(fd uintptr) { _ = unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
	}
}
