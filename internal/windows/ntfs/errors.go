package ntfs

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrNotNTFS means that the volume's first sector is not an NTFS boot sector.
var ErrNotNTFS = errors.New("not an NTFS volume")

// ErrTooLarge means that something is larger than this package is willing to hold in memory.
var ErrTooLarge = errors.New("too large to be read at once")

// errMissing is an attribute that a record does not have. Lookups of paths turn it into fs.ErrNotExist.
var errMissing = errors.New("no such attribute")

func isMissing(err error) bool { return errors.Is(err, errMissing) }

// CorruptError is a structure of the volume that cannot be right.
type CorruptError struct {
	What   string // the structure: "boot sector", "MFT record 42", "index of MFT record 5"
	Offset int64  // where in the structure, in bytes; -1 when it is not at one place
	Detail string // one clause for people
}

func (e *CorruptError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("NTFS is damaged: %s: %s", e.What, e.Detail)
	}
	return fmt.Sprintf("NTFS is damaged: %s at byte %d: %s", e.What, e.Offset, e.Detail)
}

// UnsupportedError is a sound structure that this package does not read.
type UnsupportedError struct {
	What string // e.g. "WOF files in a WIM (WIMBoot)", "EFS encryption"
}

func (e *UnsupportedError) Error() string { return "NTFS: not supported: " + e.What }

// BitLockerError is a volume that BitLocker encrypts, even if protection is suspended.
type BitLockerError struct {
	ToGo bool // BitLocker To Go: the volume pretends to be FAT
}

func (e *BitLockerError) Error() string {
	if e.ToGo {
		return "the volume is encrypted with BitLocker To Go"
	}
	return "the volume is encrypted with BitLocker"
}

// bitLockerGUID is the GUID 4967D63B-2E29-4AD8-8399-F6A339E3D001 as stored. It lies at byte 424 of the boot sector of a
// BitLocker To Go volume, and at 160 of a fixed one (public descriptions of the BDE format).
var bitLockerGUID = []byte{0x3B, 0xD6, 0x67, 0x49, 0x29, 0x2E, 0xD8, 0x4A, 0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01}

// bitLocker returns a *BitLockerError when the 512 bytes of boot sector are BitLocker's.
func bitLocker(boot []byte) error {
	switch {
	case bytes.Equal(boot[3:11], []byte("-FVE-FS-")):
		return &BitLockerError{}
	case bytes.Equal(boot[3:11], []byte("MSWIN4.1")) && bytes.Equal(boot[424:440], bitLockerGUID):
		return &BitLockerError{ToGo: true}
	}
	return nil
}

// Reparse tags ([MS-FSCC] 2.1.2.1).
const (
	TagMountPoint  = 0xA0000003 // junction or mount point
	TagSymlink     = 0xA000000C
	TagWOF         = 0x80000017 // Windows Overlay Filter: read through
	TagDedup       = 0x80000013
	TagAppExecLink = 0x8000001B

	tagSurrogate = 0x20000000 // the entry stands for another one
)

// ReparseError is a symbolic link, junction or other reparse point on the way to a file. It is never followed.
type ReparseError struct {
	Tag    uint32
	Target string // of a symbolic link or junction, as stored; else empty
}

func (e *ReparseError) Error() string {
	switch e.Tag {
	case TagMountPoint:
		return fmt.Sprintf("junction to %q is not followed", e.Target)
	case TagSymlink:
		return fmt.Sprintf("symbolic link to %q is not followed", e.Target)
	case TagDedup:
		return "contents are held by Data Deduplication and not read"
	}
	return fmt.Sprintf("reparse point with tag %#08x is not followed", e.Tag)
}
