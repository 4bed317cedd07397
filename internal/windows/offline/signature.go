package offline

import (
	"bytes"
	"fmt"
	"io"
)

// FileSystem names, as windows.Partition.FileSystem carries them.
const (
	fsNTFS      = "NTFS"
	fsFAT       = "FAT"
	fsBitLocker = "BitLocker"
	fsLUKS      = "LUKS"
)

// signature is a mark by which a file system or an encryption is known.
type signature struct {
	name   string
	offset int64
	magic  string
}

// signatures in the order in which they are tried. BitLocker comes before FAT and NTFS, as which its volumes disguise themselves.
var signatures = []signature{
	{fsBitLocker, 3, "-FVE-FS-"},
	// BitLocker To Go: a FAT boot sector that holds the GUID 4967D63B-2E29-4AD8-8399-F6A339E3D001.
	{fsBitLocker, 424, "\x3B\xD6\x67\x49\x29\x2E\xD8\x4A\x83\x99\xF6\xA3\x39\xE3\xD0\x01"},
	{fsLUKS, 0, "LUKS\xBA\xBE"},
	{fsNTFS, 3, "NTFS    "},
	{"exFAT", 3, "EXFAT   "},
	{"ReFS", 3, "ReFS\x00\x00\x00\x00"},
	{fsFAT, 82, "FAT32   "},
	{fsFAT, 54, "FAT16   "},
	{fsFAT, 54, "FAT12   "},
	{fsFAT, 54, "FAT     "},
	{"ext", 1080, "\x53\xEF"},
	{"XFS", 0, "XFSB"},
	{"LVM", 512, "LABELONE"},
	{"Btrfs", 65536 + 64, "_BHRfS_M"},
}

// detect names the file system of a volume of size bytes; "" when no mark is known.
func detect(r io.ReaderAt, size int64) (string, error) {
	head := make([]byte, min(size, 4096))
	if err := readFull(r, head, 0); err != nil {
		return "", fmt.Errorf("first sectors: %w", err)
	}
	for _, s := range signatures {
		end := s.offset + int64(len(s.magic))
		b := head
		if end > int64(len(head)) {
			if end > size {
				continue
			}
			b = make([]byte, end)
			if err := readFull(r, b[s.offset:], s.offset); err != nil {
				return "", fmt.Errorf("mark of %s: %w", s.name, err)
			}
		}
		if bytes.Equal(b[s.offset:end], []byte(s.magic)) {
			return s.name, nil
		}
	}
	return "", nil
}
