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
	fsVeraCrypt = "VeraCrypt"
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

// veraCryptEFI is VeraCrypt's boot loader on an EFI system partition (VeraCrypt's documentation, "System Encryption", EFI).
const veraCryptEFI = "EFI/VeraCrypt/DcsBoot.efi"

// veraCryptLoader tells whether the first sector of a disk is VeraCrypt's boot loader for a BIOS, or that of its forerunner: a far
// jump, then its name, which it prints. Its volumes themselves have no mark.
func veraCryptLoader(r io.ReaderAt) bool {
	b := make([]byte, 512)
	if readFull(r, b, 0) != nil {
		return false // a disk without a first sector has no partitions either, and its partition table says why
	}
	return bytes.Contains(b[:446], []byte("VeraCrypt Boot Loader")) || bytes.Contains(b[:446], []byte("TrueCrypt Boot Loader"))
}

// How evenly bytes must be distributed to look random, by Pearson's chi-squared test over the 256 values. Random bytes give
// 255 ± 22.6 (the mean and standard deviation for 255 degrees of freedom). The bounds are six deviations away: one encrypted volume
// in ten million is missed, while text, programs and pictures give thousands, and what counts up gives almost nothing. Well
// compressed data may pass: hence "possibly".
const (
	randomSample     = 64 << 10 // bytes; one grain of a stream-optimised VMDK
	randomLow        = 119
	randomHigh       = 391
	randomSmallest   = 16 << 10 // bytes; in less, distributions say little
	randomByteValues = 256
)

// looksRandom tells whether a volume begins with bytes that nothing but encryption, compression or chance makes.
func looksRandom(r io.ReaderAt, size int64) (bool, error) {
	b := make([]byte, min(size, randomSample))
	if len(b) < randomSmallest {
		return false, nil
	}
	if err := readFull(r, b, 0); err != nil {
		return false, fmt.Errorf("first %d bytes: %w", len(b), err)
	}
	var count [randomByteValues]int
	for _, c := range b {
		count[c]++
	}
	expected, sum := float64(len(b))/randomByteValues, 0.0
	for _, n := range count {
		d := float64(n) - expected
		sum += d * d / expected
	}
	return sum > randomLow && sum < randomHigh, nil
}
