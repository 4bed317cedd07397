// Package offline finds the Windows installations on the disks of a powered-off machine and answers for them.
//
// It goes from disks over partitions and volumes to installations; each is a [System], which is a windows.System: hives are
// opened when they are asked for, their transaction logs are applied in memory, and the source is never written.
//
// It decrypts nothing, follows no dynamic disk, and judges nothing. What it could not read is an error in the place that it
// belongs to, never absence. Start reading at [Open].
package offline

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"berth/internal/disk"
	"berth/internal/windows"
	"berth/internal/windows/ntfs"
)

// ErrNoWindows means that all volumes of all disks were read and none holds Windows.
var ErrNoWindows = errors.New("no Windows installation was found on the disks")

// EncryptedError means that no Windows was found, but a volume that is encrypted.
type EncryptedError struct {
	By        string // "BitLocker" or "LUKS"
	Disk      string // the disk's name; "" for the only one
	Partition int    // its number; 0: the disk as a whole
}

func (e *EncryptedError) Error() string {
	return fmt.Sprintf("%s is encrypted with %s: decrypt it in the running machine and export it again", place(e.Disk, e.Partition), e.By)
}

// ManagedError means that no Windows was found, but a disk that is divided by more than its partition table.
type ManagedError struct {
	By   disk.Managed
	Disk string // the disk's name; "" for the only one
}

func (e *ManagedError) Error() string {
	if e.By == disk.DynamicDisk {
		return fmt.Sprintf("%s is a dynamic disk: convert it to a basic disk and export it again", place(e.Disk, 0))
	}
	return fmt.Sprintf("%s belongs to %s: move Windows to a basic disk and export it again", place(e.Disk, 0), e.By)
}

// UnreadableError means that no Windows was found, but something that could not be read and may have held it.
type UnreadableError struct {
	Disk      string // the disk's name; "" for the only one
	Partition int    // its number; 0: the disk as a whole
	Err       error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("no Windows was found, and %s could not be read: %v", place(e.Disk, e.Partition), e.Err)
}

func (e *UnreadableError) Unwrap() error { return e.Err }

func place(disk string, partition int) string {
	at := "the disk"
	if disk != "" {
		at = fmt.Sprintf("disk %q", disk)
	}
	if partition != 0 {
		at = fmt.Sprintf("partition %d of %s", partition, at)
	}
	return at
}

// System is one Windows installation on the disks. It implements windows.System and is safe for concurrent use.
type System struct {
	machine windows.Machine
	disk    int // index of the disk
	part    int // index of the partition
	files   *ntfs.FS
	volume  *ntfs.Volume
	hives   map[windows.Hive]*hive
	control controlSet

	warnings []string
}

// Open reads the partition tables and volumes of all disks and returns the Windows installations found, in the order of disks and
// partitions. There is at least one if the error is nil.
//
// Without any the error tells the likeliest reason: *EncryptedError, *ManagedError, *UnreadableError, or ErrNoWindows if all was
// read. Where Windows was found, what could not be read elsewhere is in Machine's Partition.Err.
func Open(env *disk.Envelope) ([]*System, error) {
	s := survey(env)
	if len(s.installations) == 0 {
		return nil, s.reason()
	}
	systems := make([]*System, 0, len(s.installations))
	for _, in := range s.installations {
		systems = append(systems, s.system(in))
	}
	return systems, nil
}

// Files is the volume of the installation, an *ntfs.FS. Open files are io.ReaderAt.
func (s *System) Files() fs.FS { return s.files }

// Machine tells what the disks say. In it the partition of this installation has windows.RoleSystem.
func (s *System) Machine() windows.Machine { return s.machine }

// Warnings are sentences for people about the disks: the backup GPT was used, a partition ends beyond the disk, ...
func (s *System) Warnings() []string { return s.warnings }

// Location is the partition that holds this installation: the index of the disk in Machine().Disks, and the partition's start
// and length on it in bytes.
func (s *System) Location() (disk int, start, length int64) {
	p := s.machine.Disks[s.disk].Partitions[s.part]
	return s.disk, p.Start, p.Length
}

// Volume is the NTFS volume of the installation; its offsets count from Location's start.
func (s *System) Volume() *ntfs.Volume { return s.volume }

var _ windows.System = (*System)(nil)

// section is a partition's bytes. *io.SectionReader would do, but for its cursor.
type section struct {
	r             io.ReaderAt
	start, length int64
}

func (s section) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset %d", off)
	}
	if off >= s.length {
		return 0, io.EOF
	}
	short := int64(len(p)) > s.length-off
	if short {
		p = p[:s.length-off]
	}
	n, err := s.r.ReadAt(p, s.start+off)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}
