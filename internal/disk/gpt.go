package disk

import (
	"fmt"
	"hash/crc32"
	"math"
	"unicode/utf16"
)

// A GPT, as chapter 5 of the UEFI specification describes it. Numbers are little endian, places are counted in sectors.
//
//	sector 0      1         2 ...                    ... n-2      n-1
//	+------------+--------+---------+---- ... ----+---------+--------+
//	| protective | header | entries | partitions  | entries | header |
//	| MBR        |        | 128x128 |             | (backup)| (backup)|
//	+------------+--------+---------+---- ... ----+---------+--------+
//
//	header   0 "EFI PART"  8 revision  12 its length  16 its CRC  24 its sector  32 the other's
//	         40 first and 48 last usable sector  56 disk GUID  72 entries at  80 number  84 length of one  88 their CRC
//	entry    0 type  16 GUID  32 first  40 last sector  48 attributes  56 name (36 UTF-16 units)
const (
	gptMagic = "EFI PART"
	// gptMaxEntries and gptMaxTable bound the table: Windows writes 128 entries of 128 bytes.
	gptMaxEntries = 4096
	gptMaxTable   = 1 << 20

	gptLegacyBootable = 1 << 2 // attribute
)

// readGPT reads the GPT of a disk, the backup if the primary is broken. nil, nil: there is neither.
func readGPT(img Image) (*Table, error) {
	var broken []error
	for _, size := range []int64{512, 4096} {
		t, err := readGPTAt(img, size, size)
		if err == nil && t != nil {
			t.Warnings = append(t.Warnings, gptBackupState(img, t.SectorSize)...)
			return t, nil
		}
		if err != nil && !isRefusal(err) {
			return nil, err
		}
		if err != nil {
			broken = append(broken, err)
		}
	}
	for _, size := range []int64{512, 4096} {
		// The backup is in the last sector, whatever the primary says.
		at := img.Size()/size*size - size
		t, err := readGPTAt(img, size, at)
		if err == nil && t != nil {
			why := "it is not there"
			if len(broken) > 0 {
				why = broken[0].Error()
			}
			t.Warnings = append(t.Warnings, fmt.Sprintf("The primary GPT is broken (%s); its backup at byte %d was read.", why, at))
			return t, nil
		}
		if err != nil && !isRefusal(err) {
			return nil, err
		}
		if err != nil {
			broken = append(broken, err)
		}
	}
	if len(broken) > 0 {
		return nil, broken[0]
	}
	return nil, nil
}

// gptBackupState warns of a disk that has a sound primary GPT but no backup where the disk ends, as after growing it.
func gptBackupState(img Image, size int64) []string {
	at := img.Size()/size*size - size
	if t, err := readGPTAt(img, size, at); t != nil && err == nil {
		return nil
	}
	return []string{fmt.Sprintf("The backup GPT in the last sector, at byte %d, is missing or broken: the disk was grown, shortened or damaged.", at)}
}

// readGPTAt reads the GPT whose header is at byte at. nil, nil: there is none.
func readGPTAt(img Image, sectorSize, at int64) (*Table, error) {
	h, err := diskBytes(img, "GPT header", at, sector)
	if err != nil || h == nil || string(h[:8]) != gptMagic {
		return nil, err
	}
	bad := func(field string, off int64, detail string, args ...any) error {
		return tableRefusal("GPT", field, at+off, detail, args...)
	}
	length := le.Uint32(h[12:])
	if length < 92 || length > sector {
		return nil, bad("header length", 12, "%d bytes, allowed are 92 to 512", length)
	}
	want := le.Uint32(h[16:])
	clear(h[16:20])
	if got := crc32.ChecksumIEEE(h[:length]); got != want {
		return nil, bad("header CRC", 16, "%08x, computed %08x", want, got)
	}
	if self := le.Uint64(h[24:]); self != uint64(at/sectorSize) {
		return nil, bad("header", 24, "it says that it is sector %d, but is %d (sectors of %d bytes)", self, at/sectorSize, sectorSize)
	}
	number, unit := int64(le.Uint32(h[80:])), int64(le.Uint32(h[84:]))
	if number == 0 || number > gptMaxEntries || unit < 128 || unit > 4096 || unit%8 != 0 || number*unit > gptMaxTable {
		return nil, bad("entries", 80, "%d of %d bytes, at most %d and %d bytes together are read", number, unit, gptMaxEntries, gptMaxTable)
	}
	start := le.Uint64(h[72:])
	if start > uint64(img.Size()/sectorSize) {
		return nil, bad("entries", 72, "sector %d lies beyond the end of the disk", start)
	}
	entries, err := diskBytes(img, "GPT entries", int64(start)*sectorSize, number*unit)
	if err != nil {
		return nil, err
	}
	if entries == nil {
		return nil, bad("entries", 72, "%d bytes from sector %d on reach beyond the end of the disk", number*unit, start)
	}
	if got, want := crc32.ChecksumIEEE(entries), le.Uint32(h[88:]); got != want {
		return nil, bad("entries CRC", 88, "%08x, computed %08x", want, got)
	}

	t := &Table{Scheme: GPT, SectorSize: sectorSize, DiskID: guid(h[56:72])}
	for i := range number {
		e := entries[i*unit : (i+1)*unit]
		kind := guid(e)
		if kind == "00000000-0000-0000-0000-000000000000" {
			continue
		}
		switch kind {
		case guidLDMMetadata, guidLDMData:
			t.Managed = DynamicDisk
		case guidStorageSpaces:
			t.Managed = StorageSpaces
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if last < first || last > math.MaxInt64/2 {
			return nil, tableRefusal("GPT", fmt.Sprintf("entry %d", i+1), int64(start)*sectorSize+i*unit+32, "it goes from sector %d to %d", first, last)
		}
		t.add(img, Partition{
			Number: int(i) + 1, TypeGUID: kind, GUID: guid(e[16:]), Name: gptName(e[56:128]),
			Bootable: le.Uint64(e[48:])&gptLegacyBootable != 0,
		}, int64(first), int64(last-first)+1)
	}
	return t, nil
}

// gptName reads a name of 36 UTF-16 units, padded with zeros.
func gptName(p []byte) string {
	var units []uint16
	for ; len(p) >= 2; p = p[2:] {
		u := le.Uint16(p)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// guid writes a GUID as Microsoft does: the first three groups are stored little endian.
func guid(p []byte) string {
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", le.Uint32(p), le.Uint16(p[4:]), le.Uint16(p[6:]), p[8:10], p[10:16])
}
