// Package offline finds the Windows installations on the disks of a powered-off machine and answers for them.
//
// It goes from disks over partitions and volumes to installations; each is a [System], which is a windows.System: hives are
// opened when they are asked for, their transaction logs are applied in memory, and the source is never written. [System.Patch]
// tells which bytes of the disk would make changes, for a copy of it.
//
// It decrypts nothing, follows no dynamic disk, and judges nothing. What it could not read is an error in the place that it
// belongs to, never absence. Start reading at [Open]; [Find] tells of disks without Windows, too.
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
	By        string // "BitLocker", "LUKS" or "VeraCrypt"
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

// ErrLooksEncrypted is in the Partition.Err of a volume that bears no known mark and whose first bytes look random, as those of
// an encrypted volume do that hides what encrypts it (a plain VeraCrypt volume, dm-crypt). It is a guess: [Find] tells how.
var ErrLooksEncrypted = errors.New("it bears the mark of no file system, and its first bytes look random: it is possibly encrypted")

// Found is what the disks of a machine hold, Windows or not.
type Found struct {
	// Disks with their partitions, in the order of the envelope. Any Windows' own partition is RoleData here: in its System's
	// Machine it is RoleSystem.
	Disks []windows.Disk
	// Systems are the Windows installations, in the order of disks and partitions.
	Systems []*System
	// NoWindows is the likeliest reason for which Systems is empty, as Open returns it; nil if it is not.
	NoWindows error
	// Warnings are sentences for people about the disks: the backup GPT was used, a partition ends beyond the disk, ...
	Warnings []string

	survey *found
}

// Find reads the partition tables and volumes of all disks. It never fails as a whole: what could not be read is in the
// Partition.Err of its place.
//
// A volume is known by its file system's mark. One without any whose first 64 KiB are as evenly distributed as random bytes is
// given ErrLooksEncrypted; where the disk starts with VeraCrypt's boot loader, or an EFI system partition holds it, such a volume
// is encrypted by VeraCrypt.
func Find(env *disk.Envelope) *Found {
	s := survey(env)
	f := &Found{Disks: s.disks, Warnings: s.warnings, survey: s}
	for _, in := range s.installations {
		f.Systems = append(f.Systems, s.system(in))
	}
	if len(f.Systems) == 0 {
		f.NoWindows = s.reason()
	}
	return f
}

// Files is the file system of a partition: disk is the index in Disks, number the Partition.Number. The error is fs.ErrNotExist
// (wrapped) where there is no such partition, its Err where it could not be read. An NTFS volume's FS is an *ntfs.FS.
func (f *Found) Files(disk, number int) (fs.FS, error) {
	if disk < 0 || disk >= len(f.Disks) {
		return nil, fmt.Errorf("there is no disk %d: %w", disk, fs.ErrNotExist)
	}
	d := &f.Disks[disk]
	for i := range d.Partitions {
		p := &d.Partitions[i]
		if p.Number != number {
			continue
		}
		for _, v := range f.survey.volumes {
			if v.disk == disk && v.part == i {
				return v.files, nil
			}
		}
		switch {
		case p.Err != nil:
			return nil, fmt.Errorf("%s: %w", place(d.Name, number), p.Err)
		case p.FileSystem != "":
			return nil, fmt.Errorf("%s has %s, which is not read", place(d.Name, number), p.FileSystem)
		}
		return nil, fmt.Errorf("%s has no file system that is known", place(d.Name, number))
	}
	return nil, fmt.Errorf("there is no partition %d on disk %d: %w", number, disk, fs.ErrNotExist)
}

// Open reads the partition tables and volumes of all disks and returns the Windows installations found, in the order of disks and
// partitions. There is at least one if the error is nil.
//
// Without any the error tells the likeliest reason: *EncryptedError, *ManagedError, *UnreadableError, or ErrNoWindows if all was
// read. Where Windows was found, what could not be read elsewhere is in Machine's Partition.Err.
func Open(env *disk.Envelope) ([]*System, error) {
	f := Find(env)
	return f.Systems, f.NoWindows
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
