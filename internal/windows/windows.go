// Package windows is a Windows installation that can be asked, running or not.
//
// [System] is the only thing that the checks know. offline.System answers from a powered-off disk image; a running Windows
// answers from itself (windows/live). Neither knows what a check is.
//
// What only a running Windows can tell is [Guest]; what can be altered, and how it is told, is [Change].
//
// It does not judge, and it does not write. Start reading at [System].
package windows

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"
	"time"
	"unicode/utf16"
)

// Hive names a registry hive of the machine. A running Windows also has the hive of everybody who is signed in, by their SID
// ("S-1-5-21-..."), which is the key below HKEY_USERS; of who is not, NTUSER.DAT in their profile is a file like others.
type Hive string

const (
	SystemHive Hive = "SYSTEM"
	Software   Hive = "SOFTWARE"
	SAM        Hive = "SAM"
	Security   Hive = "SECURITY"
	Default    Hive = "DEFAULT" // HKEY_USERS\.DEFAULT
	BCD        Hive = "BCD"     // boot configuration, from the EFI or the active partition
)

// Registry value types (winnt.h).
const (
	RegNone     = 0
	RegSZ       = 1
	RegExpandSZ = 2
	RegBinary   = 3
	RegDWORD    = 4
	RegMultiSZ  = 7
	RegQWORD    = 11
)

// Key is an open registry key. Names compare case-insensitively. Errors: fs.ErrNotExist (wrapped) when the key or value
// is surely absent; any other error means that it could not be told, and must never be taken for absence.
type Key interface {
	Name() string
	LastWrite() time.Time
	// Subkeys lists the names of the direct subkeys in the hive's order.
	Subkeys() ([]string, error)
	// Open opens a key below this one; path uses backslashes.
	Open(path string) (Key, error)
	// Values lists the names of the values ("" is the default value).
	Values() ([]string, error)
	// Value reads one value; name "" is the default value.
	Value(name string) (Value, error)
}

// Value is a registry value as stored.
type Value struct {
	Name string
	Type uint32
	Data []byte
}

// String shows a value for people, as regedit does: its data and type. What does not print is escaped; long data is cut.
func (v Value) String() string {
	const longest = 240
	switch {
	case v.Type == RegDWORD && len(v.Data) == 4:
		return fmt.Sprintf("%d (REG_DWORD)", binary.LittleEndian.Uint32(v.Data))
	case v.Type == RegQWORD && len(v.Data) == 8:
		return fmt.Sprintf("%d (REG_QWORD)", binary.LittleEndian.Uint64(v.Data))
	case (v.Type == RegSZ || v.Type == RegExpandSZ || v.Type == RegMultiSZ) && len(v.Data)%2 == 0:
		units := make([]uint16, min(len(v.Data), 2*longest)/2)
		for i := range units {
			units[i] = binary.LittleEndian.Uint16(v.Data[2*i:])
		}
		parts := strings.Split(strings.TrimRight(string(utf16.Decode(units)), "\x00"), "\x00")
		if v.Type != RegMultiSZ {
			parts = parts[:1]
		}
		for i := range parts {
			parts[i] = fmt.Sprintf("%q", parts[i])
		}
		kind := map[uint32]string{RegSZ: "REG_SZ", RegExpandSZ: "REG_EXPAND_SZ", RegMultiSZ: "REG_MULTI_SZ"}[v.Type]
		return fmt.Sprintf("%s (%s)", strings.Join(parts, ", "), kind)
	}
	return fmt.Sprintf("%x (type %d, %d bytes)", v.Data[:min(len(v.Data), longest/4)], v.Type, len(v.Data))
}

// System is one Windows installation.
type System interface {
	// Open opens a key below a hive's root, backslashes, no leading one; "" is the root. In the SYSTEM hive the component
	// "CurrentControlSet" at the start stands for the control set that Select\Current names. Errors as for Key.
	Open(hive Hive, path string) (Key, error)
	// Hive tells how far a hive can be trusted.
	Hive(hive Hive) HiveState
	// Files is the system volume (C:). Paths use forward slashes and no drive ("Windows/System32"), case-insensitively.
	// fs.ErrNotExist means surely absent. The implementation also is a fs.ReadDirFS and fs.StatFS.
	Files() fs.FS
	// Machine tells disks, partitions and volumes.
	Machine() Machine
}

// HiveState says whether what is read from a hive is current.
type HiveState struct {
	// Err is why the hive cannot be read at all; nil when it can.
	Err error
	// Dirty: it was not cleanly closed. Replayed: its transaction logs were found and applied in memory (count of entries).
	Dirty    bool
	Replayed int
	// Stale: it is dirty and its logs are missing or unusable, so values may be out of date. Why says so for people.
	Stale bool
	Why   string
	// Damaged is set where parts of the hive were unreadable; empty when sound.
	Damaged string
	// Cut: the hive's file ends before the hive does, as Damaged says: nothing of it is proof of anything.
	Cut bool
}

// Machine is the hardware and its disks as far as the system can tell.
type Machine struct {
	// Running is true when the facts come from a live Windows.
	Running bool
	// Firmware is "bios", "uefi" or "" when it cannot be told.
	Firmware string
	Disks    []Disk
	// Installations counts Windows installations found on the disks (more than one is multi-boot).
	Installations int
	// Drives are what the machine has beside its disks: of a powered-off machine the CD drives that its export tells of, of a
	// running one also what is plugged in and what is mapped over the network.
	Drives []Drive
}

// Drive is something that gets a drive letter and is no fixed disk.
type Drive struct {
	Kind DriveKind
	// Letter is "D:"; empty where the machine is not running.
	Letter string
	// Medium is what is in it, or where it leads: the file's name in the export, the volume's label, the share; empty: nothing.
	Medium string
}

// DriveKind is what kind of drive it is.
type DriveKind string

const (
	CDDrive        DriveKind = "CD"
	RemovableDrive DriveKind = "removable"
	NetworkDrive   DriveKind = "network"
)

// Scheme is a partition table's kind.
type Scheme string

const (
	MBR Scheme = "MBR"
	GPT Scheme = "GPT"
	// NoTable: the disk has no partition table that is understood.
	NoTable Scheme = ""
)

// Disk is one disk, in its order of attachment.
type Disk struct {
	Name       string // the file's name in an OVA, or "" for the only one
	SizeBytes  int64  // virtual size
	SectorSize int    // 512 or 4096
	Scheme     Scheme
	Partitions []Partition
}

// Partition is an entry of the partition table and the volume in it.
type Partition struct {
	Number        int    // 1-based, as Windows counts
	Type          string // "0x07", or the GPT type GUID in upper case
	Role          Role
	Name          string // GPT name
	Bootable      bool   // MBR: status 0x80; GPT: it is an EFI system partition
	Start, Length int64  // bytes
	FileSystem    string // "NTFS", "FAT", "BitLocker", "" unknown
	// Bitmap is where on the disk the volume's map of free clusters ($Bitmap) begins, in bytes; 0 where that is not known.
	Bitmap int64
	// Volume is set where the file system could be read.
	Volume *Volume
	// Err says why a recognised file system could not be read.
	Err error
}

// Role is what a partition is for.
type Role string

const (
	RoleSystem   Role = "system"   // holds the Windows asked (C:)
	RoleBoot     Role = "boot"     // System Reserved, or the EFI system partition
	RoleReserved Role = "reserved" // Microsoft reserved (MSR)
	RoleRecovery Role = "recovery"
	RoleData     Role = "data"
)

// Volume is a mounted file system.
type Volume struct {
	Label        string
	SizeBytes    int64
	FreeBytes    int64 // clear bits of $Bitmap times the cluster size
	ClusterBytes int64
	Dirty        bool // NTFS: $Volume flag 0x0001
}
