package live

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	sys "golang.org/x/sys/windows"

	"berth/internal/windows"
)

// What DeviceIoControl is asked for (winioctl.h, ntddvol.h).
const (
	ioctlDiskGetDriveGeometryEx = 0x000700a0
	ioctlDiskGetDriveLayoutEx   = 0x00070050
	ioctlVolumeGetDiskExtents   = 0x00560000
	fsctlIsVolumeDirty          = 0x00090078
)

// maxDisks bounds the search for disks; VMware's largest machine has 256.
const maxDisks = 256

var (
	kernel32            = sys.NewLazySystemDLL("kernel32.dll")
	procGetFirmwareType = kernel32.NewProc("GetFirmwareType")
	procGetDiskFree     = kernel32.NewProc("GetDiskFreeSpaceW")
)

// volume is a mounted volume and where it lies.
type volume struct {
	path          string // `\\?\Volume{...}\`, or `C:\`
	info          windows.Volume
	fileSystem    string
	err           error
	disk          uint32
	start, length int64
	placed        bool // disk and start are known
	windows       bool // it holds a Windows installation
	system        bool // it holds this one
}

// look gathers firmware, disks and volumes. What Windows does not tell is left out, which is unknown to the checks.
func (s *System) look() windows.Machine {
	m := windows.Machine{Running: true, Firmware: firmware(), Drives: drives()}
	volumes := s.volumes()
	for _, v := range volumes {
		if v.windows {
			m.Installations++
		}
	}
	for n := range uint32(maxDisks) {
		d, err := physicalDisk(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // numbers may have gaps
		}
		if err != nil {
			d = windows.Disk{} // it is there, and nothing can be told of it
		}
		d.Name = fmt.Sprintf("PhysicalDrive%d", n)
		place(&d, n, volumes)
		m.Disks = append(m.Disks, d)
	}
	// Where the disks cannot be opened Windows still tells its own volume.
	placed := false
	for _, d := range m.Disks {
		for _, p := range d.Partitions {
			placed = placed || p.Role == windows.RoleSystem
		}
	}
	if len(m.Disks) == 0 {
		m.Disks = append(m.Disks, windows.Disk{})
	}
	for _, v := range volumes {
		if d := &m.Disks[0]; v.system && !placed && len(m.Disks) == 1 && d.Scheme == windows.NoTable {
			d.Partitions = []windows.Partition{v.partition(windows.Partition{})}
		}
	}
	return m
}

// place puts the volumes into the partitions that they lie in.
func place(d *windows.Disk, number uint32, volumes []*volume) {
	for i := range d.Partitions {
		p := &d.Partitions[i]
		for _, v := range volumes {
			if v.placed && v.disk == number && v.start == p.Start {
				*p = v.partition(*p)
			}
		}
		if locked, err := bitLocked(d.Name, *p); locked {
			p.FileSystem = "BitLocker"
			p.Err = fmt.Errorf("the volume is encrypted with BitLocker")
		} else if err != nil && p.Volume == nil && p.Role == "" {
			p.Err = err
		}
		if p.Role == "" && p.FileSystem != "" {
			p.Role = windows.RoleData
		}
	}
}

// partition is a partition with this volume in it.
func (v *volume) partition(p windows.Partition) windows.Partition {
	p.FileSystem, p.Err = v.fileSystem, v.err
	if v.err == nil {
		info := v.info
		p.Volume = &info
	}
	exists := func(name string) bool {
		_, err := os.Stat(v.path + name)
		return err == nil
	}
	switch {
	case v.system:
		p.Role = windows.RoleSystem
	case p.Role != "": // the type said it
	case !v.windows && (p.Bootable || exists(`Boot\BCD`)) && exists("bootmgr"):
		p.Role = windows.RoleBoot
	case !v.windows && exists(`Recovery\WindowsRE\Winre.wim`):
		p.Role = windows.RoleRecovery
	}
	return p
}

// firmware asks what started this Windows (GetFirmwareType: 1 BIOS, 2 UEFI).
func firmware() string {
	var kind uint32
	if procGetFirmwareType.Find() != nil {
		return ""
	}
	if ok, _, _ := procGetFirmwareType.Call(uintptr(unsafe.Pointer(&kind))); ok == 0 {
		return ""
	}
	return map[uint32]string{1: "bios", 2: "uefi"}[kind]
}

// drives lists the drive letters that lead to no fixed disk.
func drives() []windows.Drive {
	mask, err := sys.GetLogicalDrives()
	if err != nil {
		return nil
	}
	var list []windows.Drive
	for letter := 'A'; letter <= 'Z'; letter++ {
		if mask>>(letter-'A')&1 == 0 {
			continue
		}
		d := windows.Drive{Letter: string(letter) + ":"}
		root, err := sys.UTF16PtrFromString(d.Letter + `\`)
		if err != nil {
			return list
		}
		switch sys.GetDriveType(root) {
		case sys.DRIVE_CDROM:
			d.Kind = windows.CDDrive
		case sys.DRIVE_REMOVABLE:
			d.Kind = windows.RemovableDrive
		case sys.DRIVE_REMOTE:
			d.Kind = windows.NetworkDrive
		default:
			continue
		}
		// Without a medium there is no file system to be asked.
		label, kind := make([]uint16, sys.MAX_PATH+1), make([]uint16, sys.MAX_PATH+1)
		if sys.GetVolumeInformation(root, &label[0], uint32(len(label)), nil, nil, nil, &kind[0], uint32(len(kind))) == nil {
			d.Medium = cmp.Or(sys.UTF16ToString(label), sys.UTF16ToString(kind))
		}
		list = append(list, d)
	}
	return list
}

// physicalDisk reads a disk's size and partition table. fs.ErrNotExist: there is no disk of that number.
func physicalDisk(n uint32) (windows.Disk, error) {
	h, err := device(fmt.Sprintf(`\\.\PhysicalDrive%d`, n), sys.GENERIC_READ)
	if err != nil {
		return windows.Disk{}, err
	}
	defer func() { _ = sys.CloseHandle(h) }()
	// DISK_GEOMETRY_EX: 20 bytes per sector, 24 the disk's size in bytes.
	geometry, err := control(h, ioctlDiskGetDriveGeometryEx, 32, 256)
	if err != nil {
		return windows.Disk{}, fmt.Errorf("geometry of disk %d: %w", n, err)
	}
	d := windows.Disk{SectorSize: int(binary.LittleEndian.Uint32(geometry[20:])), SizeBytes: int64(binary.LittleEndian.Uint64(geometry[24:]))}
	table, err := control(h, ioctlDiskGetDriveLayoutEx, layoutHeader, layoutHeader+maxLayoutParts*layoutEntry)
	if err != nil {
		return d, fmt.Errorf("partition table of disk %d: %w", n, err)
	}
	d.Scheme, d.Partitions, err = layout(table)
	return d, err
}

// bitLocked tells whether a partition bears BitLocker's mark, "-FVE-FS-" at 3 of its first sector, which it keeps while it is unlocked.
func bitLocked(disk string, p windows.Partition) (bool, error) {
	f, err := os.Open(`\\.\` + disk)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sector := make([]byte, 4096) // reads of a disk are in whole sectors
	if _, err := f.ReadAt(sector, p.Start); err != nil {
		return false, fmt.Errorf("the first sector of %s, partition %d: %w", disk, p.Number, err)
	}
	return string(sector[3:11]) == "-FVE-FS-", nil
}

// volumes lists the mounted volumes on fixed disks, this Windows' own first.
func (s *System) volumes() []*volume {
	list := []*volume{s.volume(s.drive)}
	own := make([]uint16, sys.MAX_PATH)
	if p, err := sys.UTF16PtrFromString(s.drive); err != nil || sys.GetVolumeNameForVolumeMountPoint(p, &own[0], uint32(len(own))) != nil {
		return list // one's own would be listed twice
	}
	name := make([]uint16, sys.MAX_PATH)
	find, err := sys.FindFirstVolume(&name[0], uint32(len(name)))
	if err != nil {
		return list
	}
	defer sys.FindVolumeClose(find)
	for range 4 * maxDisks {
		if path := sys.UTF16ToString(name); path != sys.UTF16ToString(own) && sys.GetDriveType(&name[0]) == sys.DRIVE_FIXED {
			list = append(list, s.volume(path))
		}
		if sys.FindNextVolume(find, &name[0], uint32(len(name))) != nil {
			break
		}
	}
	return list
}

// volume asks a volume by its root, `C:\` or `\\?\Volume{...}\`.
func (s *System) volume(path string) *volume {
	v := &volume{path: path, system: path == s.drive}
	v.windows = v.system
	if _, err := os.Stat(path + `Windows\System32\config\SYSTEM`); err == nil {
		v.windows = true
	}
	fail := func(what string, err error) *volume {
		v.err = fmt.Errorf("%s of the volume: %w", what, err)
		return v
	}
	p, err := sys.UTF16PtrFromString(path)
	if err != nil {
		return fail("path", err)
	}
	dev := strings.TrimSuffix(path, `\`) // `\\?\Volume{...}` opens the volume, `C:` does not
	if !strings.HasPrefix(dev, `\\`) {
		dev = `\\.\` + dev
	}
	if h, err := device(dev, 0); err == nil {
		// VOLUME_DISK_EXTENTS: 0 their number, then from 8 on disk number, 8 offset, 16 length in bytes.
		if b, err := control(h, ioctlVolumeGetDiskExtents, 32, 32); err == nil && binary.LittleEndian.Uint32(b) == 1 {
			v.disk, v.placed = binary.LittleEndian.Uint32(b[8:]), true
			v.start, v.length = int64(binary.LittleEndian.Uint64(b[16:])), int64(binary.LittleEndian.Uint64(b[24:]))
		}
		_ = sys.CloseHandle(h)
	}
	label, kind := make([]uint16, sys.MAX_PATH+1), make([]uint16, sys.MAX_PATH+1)
	if err := sys.GetVolumeInformation(p, &label[0], uint32(len(label)), nil, nil, nil, &kind[0], uint32(len(kind))); err != nil {
		return fail("file system", err)
	}
	v.info.Label, v.fileSystem = sys.UTF16ToString(label), sys.UTF16ToString(kind)
	if strings.HasPrefix(v.fileSystem, "FAT") { // FAT32
		v.fileSystem = "FAT"
	}
	var free, total uint64
	if err := sys.GetDiskFreeSpaceEx(p, nil, &total, &free); err != nil {
		return fail("free space", err)
	}
	v.info.SizeBytes, v.info.FreeBytes = int64(total), int64(free)
	var sectors, sector, freeClusters, clusters uint32
	if ok, _, err := procGetDiskFree.Call(uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&sectors)), uintptr(unsafe.Pointer(&sector)), uintptr(unsafe.Pointer(&freeClusters)), uintptr(unsafe.Pointer(&clusters))); ok == 0 {
		return fail("cluster size", err)
	}
	v.info.ClusterBytes = int64(sectors) * int64(sector)
	if dirty, err := isDirty(dev); err == nil {
		v.info.Dirty = dirty
	} else if v.fileSystem == "NTFS" { // others have no such mark
		return fail("dirty mark", err)
	}
	return v
}

// isDirty asks for NTFS' mark of a volume that was not taken off cleanly (FSCTL_IS_VOLUME_DIRTY, VOLUME_IS_DIRTY).
func isDirty(path string) (bool, error) {
	h, err := device(path, sys.GENERIC_READ)
	if err != nil {
		return false, err
	}
	defer func() { _ = sys.CloseHandle(h) }()
	b, err := control(h, fsctlIsVolumeDirty, 4, 4)
	if err != nil {
		return false, err
	}
	return binary.LittleEndian.Uint32(b)&1 != 0, nil
}

// device opens a disk or volume to be asked.
func device(path string, access uint32) (sys.Handle, error) {
	p, err := sys.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	h, err := sys.CreateFile(p, access, sys.FILE_SHARE_READ|sys.FILE_SHARE_WRITE, nil, sys.OPEN_EXISTING, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

// control asks a device a question without input; the answer has from least to most bytes.
func control(h sys.Handle, code uint32, least, most int) ([]byte, error) {
	buf := make([]byte, most)
	var n uint32
	if err := sys.DeviceIoControl(h, code, nil, 0, &buf[0], uint32(len(buf)), &n, nil); err != nil {
		return nil, err
	}
	if int(n) < least {
		return nil, fmt.Errorf("an answer of %d bytes, %d are needed", n, least)
	}
	return buf[:n], nil
}
