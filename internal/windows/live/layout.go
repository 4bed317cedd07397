package live

import (
	"encoding/binary"
	"fmt"
	"unicode/utf16"

	"berth/internal/windows"
)

// DRIVE_LAYOUT_INFORMATION_EX (winioctl.h, 64 bits), what IOCTL_DISK_GET_DRIVE_LAYOUT_EX answers. Numbers are little-endian.
//
//	0   PartitionStyle: 0 MBR, 1 GPT, 2 none         48  PARTITION_INFORMATION_EX, 144 bytes each:
//	4   PartitionCount                                   0   PartitionStyle
//	8   of an MBR: Signature, CheckSum                   8   StartingOffset, in bytes
//	8   of a GPT: DiskId ...                             16  PartitionLength, in bytes
//	                                                     24  PartitionNumber, 0 where the entry is none
//	                                                     32  MBR: PartitionType, BootIndicator
//	                                                     32  GPT: PartitionType (GUID), 72: Name, 36 UTF-16 units
const (
	layoutHeader   = 48
	layoutEntry    = 144
	layoutName     = 36  // units
	maxLayoutParts = 512 // a GPT has 128 entries as a rule
)

// Partition types: MBR numbers and GPT GUIDs (Microsoft, "PARTITION_INFORMATION_GPT").
const (
	mbrExtended    = 0x05
	mbrExtendedLBA = 0x0f
	mbrRecovery    = 0x27
	mbrEFI         = 0xef
	gptEFI         = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	gptReserved    = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
	gptRecovery    = "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"
)

// layout decodes a disk's partition table. Errors name the offset.
func layout(b []byte) (windows.Scheme, []windows.Partition, error) {
	if len(b) < layoutHeader {
		return "", nil, fmt.Errorf("a drive layout of %d bytes, its header alone takes %d", len(b), layoutHeader)
	}
	style, count := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if count > maxLayoutParts || int(count) > (len(b)-layoutHeader)/layoutEntry {
		return "", nil, fmt.Errorf("drive layout at 4: %d partitions in %d bytes", count, len(b))
	}
	var scheme windows.Scheme
	switch style {
	case 0:
		scheme = windows.MBR
	case 1:
		scheme = windows.GPT
	case 2:
		return windows.NoTable, nil, nil
	default:
		return "", nil, fmt.Errorf("drive layout at 0: partition style %d", style)
	}
	var parts []windows.Partition
	for i := range int(count) {
		at := layoutHeader + i*layoutEntry
		e := b[at : at+layoutEntry]
		p := windows.Partition{
			Number: int(binary.LittleEndian.Uint32(e[24:])),
			Start:  int64(binary.LittleEndian.Uint64(e[8:])),
			Length: int64(binary.LittleEndian.Uint64(e[16:])),
		}
		if p.Start < 0 || p.Length < 0 {
			return "", nil, fmt.Errorf("drive layout at %d: a partition of %d bytes at %d", at, p.Length, p.Start)
		}
		if scheme == windows.MBR {
			kind := e[32]
			if kind == 0 || kind == mbrExtended || kind == mbrExtendedLBA || p.Length == 0 {
				continue // unused, or a container of others, which have entries of their own
			}
			p.Type, p.Bootable = fmt.Sprintf("0x%02X", kind), e[33] != 0
		} else {
			p.Type = guid(e[32:48])
			p.Bootable = p.Type == gptEFI
			p.Name = utf16z(e[72 : 72+2*layoutName])
		}
		p.Role = roleByType(p)
		parts = append(parts, p)
	}
	return scheme, parts, nil
}

// roleByType is what a partition's type says that it is for; "" where it says nothing.
func roleByType(p windows.Partition) windows.Role {
	switch p.Type {
	case gptReserved:
		return windows.RoleReserved
	case gptEFI, fmt.Sprintf("0x%02X", mbrEFI):
		return windows.RoleBoot
	case gptRecovery, fmt.Sprintf("0x%02X", mbrRecovery):
		return windows.RoleRecovery
	}
	return ""
}

// guid shows a GUID as stored: three little-endian numbers and eight bytes.
func guid(b []byte) string {
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16])
}

// utf16z decodes UTF-16 up to its first NUL.
func utf16z(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
