package check

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"berth/internal/windows"
)

// machine reads disks, partitions and volumes.
func (r *reader) machine(f *Facts) {
	m := r.sys.Machine()
	switch m.Firmware {
	case "bios", "uefi":
		f.Firmware = read(m.Firmware, said("the machine boots by "+m.Firmware))
	default:
		f.Firmware = unread[string](said("the firmware"), "nothing on the disk says whether the machine boots by BIOS or UEFI")
	}
	f.Installations = unread[int](said("the disks"), "the installations of Windows on them were not counted")
	if m.Installations > 0 {
		f.Installations = read(m.Installations, said(fmt.Sprintf("installations of Windows on the disks: %d", m.Installations)))
	}
	if at, err := unreadVolume(m.Disks); err != nil && m.Installations <= 1 {
		f.Installations = unread[int](said(at), "another Windows may be on it: "+why(err))
	}
	f.Disks = disks(m.Disks)
	f.SystemDisk, f.SystemVolume = systemVolume(m.Disks)
	f.Reclaimable = r.reclaimable()
}

// maxDisksShown bounds the disks that are named as evidence.
const maxDisksShown = 8

func disks(list []windows.Disk) Known[[]windows.Disk] {
	if len(list) == 0 {
		return unread[[]windows.Disk](said("the disks"), "the machine's disks are not known")
	}
	var seen []Evidence
	for i, d := range list {
		at := partitionTable(i, d)
		if d.Scheme == windows.NoTable {
			return unread[[]windows.Disk](at, "it has no partition table that is understood")
		}
		line := fmt.Sprintf("%s: %s, %s", diskName(i, d), gib(d.SizeBytes), d.Scheme)
		for _, p := range d.Partitions {
			line += "; " + partitionLine(p)
		}
		if i < maxDisksShown {
			seen = append(seen, at.says(clip(line)))
		}
	}
	return read(list, seen...)
}

// partitionTable is where a disk's partition table begins: the MBR's at byte 446 of the first sector, the GPT's header in the second.
func partitionTable(i int, d windows.Disk) Evidence {
	switch d.Scheme {
	case windows.MBR:
		return onDisk(diskName(i, d), "MBR partition table", 446)
	case windows.GPT:
		return onDisk(diskName(i, d), "GPT header", int64(d.SectorSize))
	}
	return onDisk(diskName(i, d), "first sector", 0)
}

func diskName(i int, d windows.Disk) string {
	if d.Name == "" {
		return fmt.Sprintf("disk %d", i)
	}
	return fmt.Sprintf("disk %d (%s)", i, printable(d.Name))
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func partitionLine(p windows.Partition) string {
	line := fmt.Sprintf("partition %d %s", p.Number, gib(p.Length))
	for _, word := range []string{string(p.Role), p.FileSystem} {
		if word != "" {
			line += " " + printable(word)
		}
	}
	if p.Bootable {
		line += " bootable"
	}
	return line
}

// systemVolume finds the partition that holds the Windows asked; there must be exactly one.
func systemVolume(list []windows.Disk) (Known[int64], Known[windows.Volume]) {
	var disk *windows.Disk
	var part *windows.Partition
	var name string
	for i := range list {
		for j := range list[i].Partitions {
			if list[i].Partitions[j].Role != windows.RoleSystem {
				continue
			}
			if part != nil {
				const why = "more than one partition is marked as the one that holds Windows"
				return unread[int64](said("the disks"), why), unread[windows.Volume](said("the disks"), why)
			}
			disk, part = &list[i], &list[i].Partitions[j]
			name = diskName(i, *disk)
		}
	}
	if part == nil {
		const why = "no partition is known to hold Windows"
		return unread[int64](said("the disks"), why), unread[windows.Volume](said("the disks"), why)
	}
	whole := onDisk(name, "virtual size", -1)
	size := unread[int64](whole, "its size is not known")
	if disk.SizeBytes > 0 {
		size = read(disk.SizeBytes, whole.plus(fmt.Sprintf(" has %s (%d bytes)", gib(disk.SizeBytes), disk.SizeBytes)))
	}
	at := onDisk(name, "boot sector of partition "+decimal(int64(part.Number)), part.Start).plus(fmt.Sprintf(", partition %d", part.Number))
	switch {
	case part.Err != nil:
		return size, unread[windows.Volume](at, why(part.Err))
	case part.Volume == nil || part.Volume.SizeBytes <= 0:
		return size, unread[windows.Volume](at, "its file system could not be read")
	}
	v := *part.Volume
	if v.FreeBytes < 0 || v.FreeBytes > v.SizeBytes {
		return size, unread[windows.Volume](at, fmt.Sprintf("%d bytes are said to be free of %d", v.FreeBytes, v.SizeBytes))
	}
	if part.Bitmap > 0 {
		at.Structure, at.Offset = "$Bitmap of partition "+decimal(int64(part.Number)), &part.Bitmap
	}
	return size, read(v, at.plus(fmt.Sprintf(" (C:): %s of %s free (%d of %d bytes)", gib(v.FreeBytes), gib(v.SizeBytes), v.FreeBytes, v.SizeBytes)))
}

// reclaimable finds the big files that Windows makes again by itself or that can be switched off.
func (r *reader) reclaimable() Known[[]File] {
	var found []File
	var seen []Evidence
	for _, name := range []string{"hiberfil.sys", "pagefile.sys", "swapfile.sys"} {
		info, err := fs.Stat(r.sys.Files(), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return unread[[]File](inFile(name), why(err))
		}
		found = append(found, File{Name: name, Bytes: info.Size()})
		seen = append(seen, inFile(name).plus(" takes "+gib(info.Size())))
	}
	if len(found) == 0 {
		return read(found, said("C:/ has no hiberfil.sys, pagefile.sys or swapfile.sys"))
	}
	return read(found, seen...)
}
