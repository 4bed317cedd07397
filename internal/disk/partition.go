package disk

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Scheme is the kind of a partition table.
type Scheme string

const (
	// NoTable is a disk without a partition table: empty, or one file system from its first sector on.
	NoTable Scheme = ""
	MBR     Scheme = "MBR"
	GPT     Scheme = "GPT"
)

// Table is a disk's partition table.
type Table struct {
	Scheme Scheme
	// SectorSize is the unit in which the table counts, in bytes: 512 or 4096. An MBR does not say it; 512 is assumed.
	SectorSize int64
	// DiskID is the GPT's disk GUID, or the MBR's signature as eight hex digits.
	DiskID string
	// Entries in the order of their numbers. An extended partition is not among them, its logical partitions are.
	Entries []Partition
	// Managed says who else has divided the disk, so that the entries do not tell where the volumes are.
	Managed Managed
	// Warnings are sentences for people: backup GPT used, partition beyond the end of the disk, ...
	Warnings []string
}

// Managed is a volume manager that has taken over a disk.
type Managed string

const (
	// NotManaged is a basic disk: a partition is a volume.
	NotManaged Managed = ""
	// DynamicDisk is Windows' Logical Disk Manager: MBR type 0x42, or the LDM types of GPT.
	DynamicDisk Managed = "dynamic disk"
	// StorageSpaces is a member of a Windows storage pool: volumes are spread over several disks.
	StorageSpaces Managed = "Storage Spaces"
)

// Partition is an entry of a Table.
type Partition struct {
	// Number counts from 1: GPT the slot in the table, MBR 1 to 4, logical partitions from 5 on.
	Number int
	// TypeMBR is the MBR's type byte, 0 in a GPT; TypeGUID the GPT's type in capitals, empty in an MBR.
	TypeMBR  byte
	TypeGUID string
	// GUID is the GPT partition's own, empty in an MBR.
	GUID string
	// Name is the GPT's, empty in an MBR.
	Name string
	// Bootable is the MBR's active flag, and in a GPT the legacy BIOS bootable attribute.
	Bootable bool
	// Start and Length are in bytes and inside the disk.
	Start, Length int64
}

// The GPT partition types that this package itself looks at.
const (
	guidEFISystem     = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	guidLDMMetadata   = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3"
	guidLDMData       = "AF9B60A0-1431-4F62-BC68-3311714A69AD"
	guidStorageSpaces = "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D"
)

const (
	mbrExtendedCHS   = 0x05
	mbrExtendedLBA   = 0x0f
	mbrExtendedLinux = 0x85
	mbrLDM           = 0x42
	mbrProtective    = 0xee
	mbrStorageSpaces = 0xe7

	// maxLogical bounds the chain of extended boot records. Windows has 23 drive letters, Linux numbers up to 60.
	maxLogical = 128
)

// Partitions reads the partition table of a disk. A disk without one is a Table with Scheme NoTable. A table that cannot
// be right is a *Refusal with Format "GPT" or "MBR", whose Offset is in the guest's disk.
func Partitions(img Image) (*Table, error) {
	if img.Size() < 0 { // it can only be copied, and says so
		_, err := img.ReadAt(make([]byte, sector), 0)
		return nil, err
	}
	first, err := diskBytes(img, "MBR", 0, sector)
	if err != nil || first == nil || string(first[510:]) != "\x55\xaa" {
		if err != nil {
			return nil, err
		}
		// A disk whose first sector was lost may still have its GPT.
		t, err := readGPT(img)
		switch {
		case err != nil:
			return nil, err
		case t == nil:
			return &Table{SectorSize: sector}, nil
		}
		t.Warnings = append(t.Warnings, "The protective MBR is missing: firmware and Windows may not see the GPT.")
		return t, nil
	}
	if slices.ContainsFunc([]int{0, 1, 2, 3}, func(i int) bool { return first[446+16*i+4] == mbrProtective }) {
		t, err := readGPT(img)
		if t == nil && err == nil {
			err = tableRefusal(string(GPT), "header", sector, "the protective MBR says that there is a GPT, but neither it nor its backup is there")
		}
		return t, err
	}
	return readMBR(img, first)
}

// diskBytes reads n bytes of the guest's disk; nil if the disk is too short for them.
func diskBytes(img Image, what string, off, n int64) ([]byte, error) {
	if off < 0 || off > img.Size()-n {
		return nil, nil
	}
	p := make([]byte, n)
	if got, err := img.ReadAt(p, off); got < len(p) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("disk: read %s at byte %d: %w", what, off, err)
	}
	return p, nil
}

func tableRefusal(scheme, field string, off int64, detail string, args ...any) error {
	return &Refusal{Format: scheme, Reason: Damaged, Field: field, Offset: off, Detail: fmt.Sprintf(detail, args...)}
}

// readMBR reads the four entries of an MBR and the logical partitions of its extended ones.
//
//	 0         440        446                            510
//	+-----------+----------+------------------------------+----+
//	| boot code | disk id  | 4 entries of 16 bytes:       |55AA|
//	|           |          | flag chs type chs start size |    |
//	+-----------+----------+------------------------------+----+
func readMBR(img Image, first []byte) (*Table, error) {
	t := &Table{Scheme: MBR, SectorSize: sector, DiskID: fmt.Sprintf("%08X", le.Uint32(first[440:]))}
	var extended []mbrEntry
	for i := range 4 {
		e := parseMBREntry(first[446+16*i:])
		if e.flag&0x7f != 0 {
			// A flag is 0 or 0x80. This is the boot sector of a file system (a disk without a table), whose code ends in 55AA, too.
			return &Table{SectorSize: sector}, nil
		}
		switch e.typ {
		case 0:
			continue
		case mbrExtendedCHS, mbrExtendedLBA, mbrExtendedLinux:
			extended = append(extended, e)
			continue
		case mbrLDM:
			t.Managed = DynamicDisk
		case mbrStorageSpaces:
			t.Managed = StorageSpaces
		}
		t.add(img, Partition{Number: i + 1, TypeMBR: e.typ, Bootable: e.flag != 0}, e.start, e.sectors)
	}
	if isVolume(first) && len(t.Entries) == 0 && len(extended) == 0 {
		return &Table{SectorSize: sector}, nil
	}
	number := 5
	for _, e := range extended {
		if err := t.readLogical(img, e, &number); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// isVolume reports whether a boot sector is that of a file system.
func isVolume(first []byte) bool {
	return string(first[3:11]) == "NTFS    " || string(first[3:11]) == "EXFAT   " || string(first[3:11]) == "-FVE-FS-" ||
		string(first[54:59]) == "FAT12" || string(first[54:59]) == "FAT16" || string(first[82:87]) == "FAT32"
}

type mbrEntry struct {
	flag, typ      byte
	start, sectors int64
}

func parseMBREntry(p []byte) mbrEntry {
	return mbrEntry{p[0], p[4], int64(le.Uint32(p[8:])), int64(le.Uint32(p[12:]))}
}

// readLogical follows the chain of extended boot records. Each has one logical partition, counted from itself, and a
// link to the next, counted from the beginning of the extended partition.
func (t *Table) readLogical(img Image, extended mbrEntry, number *int) error {
	seen := map[int64]bool{}
	for at := extended.start; ; {
		off := at * sector
		if seen[at] {
			return tableRefusal("MBR", "extended boot record", off, "the chain comes back here")
		}
		if len(seen) == maxLogical {
			return tableRefusal("MBR", "extended boot record", off, "more than %d logical partitions", maxLogical)
		}
		seen[at] = true
		p, err := diskBytes(img, "extended boot record", off, sector)
		if err != nil {
			return err
		}
		if p == nil || string(p[510:]) != "\x55\xaa" {
			return tableRefusal("MBR", "extended boot record", off, "it is not there: beyond the end of the disk, or without a signature")
		}
		if e := parseMBREntry(p[446:]); e.typ != 0 && e.sectors != 0 {
			t.add(img, Partition{Number: *number, TypeMBR: e.typ, Bootable: e.flag == 0x80}, at+e.start, e.sectors)
			if e.typ == mbrLDM {
				t.Managed = DynamicDisk
			}
			*number++
		}
		next := parseMBREntry(p[462:])
		if next.typ == 0 || next.start == 0 {
			return nil
		}
		at = extended.start + next.start
	}
}

// add appends p, which the table places at sector start. What lies beyond the disk's end is cut off, and said to be.
func (t *Table) add(img Image, p Partition, start, sectors int64) {
	size := img.Size()
	if start > size/t.SectorSize || start*t.SectorSize >= size || sectors == 0 {
		t.Warnings = append(t.Warnings, fmt.Sprintf("Partition %d (%d sectors from %d on) lies beyond the end of the disk: it is left out.", p.Number, sectors, start))
		return
	}
	p.Start = start * t.SectorSize
	if sectors > (size-p.Start)/t.SectorSize {
		t.Warnings = append(t.Warnings, fmt.Sprintf("Partition %d (%d sectors from %d on) reaches beyond the end of the disk: it is cut off there.", p.Number, sectors, start))
		sectors = (size - p.Start) / t.SectorSize
		if sectors == 0 {
			return
		}
	}
	p.Length = sectors * t.SectorSize
	t.Entries = append(t.Entries, p)
}
