package compute

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"regexp"
)

// GiB is 2^30 bytes, the unit of volumes. (The WorkSpaces API calls it GB.)
const GiB = int64(1) << 30

// Limits of a Machine. They keep a slip of the caller from becoming an argument of QEMU; what a host can carry is less.
const (
	MaxVolumeGiB = 16 * 1024   // 16 TiB: VM Import refuses disks of that size or more; WorkSpaces' own limit is 2,000 GB
	MaxVCPUs     = 288         // QEMU's q35 machine
	MaxMemoryMiB = 4096 * 1024 // 4 TiB
	MinMemoryMiB = 16          // what the firmware itself needs
)

var idPattern = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// CheckID refuses, with ErrInvalid, what is no id of a machine or an image: [a-z0-9-]{1,64}. An id may therefore be a file's
// name, but never one that begins with a dash, which a program could take for an option.
func CheckID(id string) error {
	if !idPattern.MatchString(id) || id[0] == '-' {
		return fmt.Errorf("%w: id %.80q is not [a-z0-9-]{1,64} beginning with a letter or digit", ErrInvalid, id)
	}
	return nil
}

// Check refuses, with ErrInvalid, a Machine that no driver can make.
func (m Machine) Check() error {
	if err := CheckID(m.ID); err != nil {
		return err
	}
	if err := CheckID(m.Image); err != nil {
		return fmt.Errorf("machine %s: Image: %w", m.ID, err)
	}
	for _, f := range []struct {
		name         string
		n, low, high int
	}{
		{"RootGiB", m.RootGiB, 1, MaxVolumeGiB},
		{"UserGiB", m.UserGiB, 0, MaxVolumeGiB},
		{"VCPUs", m.VCPUs, 1, MaxVCPUs},
		{"MemoryMiB", m.MemoryMiB, MinMemoryMiB, MaxMemoryMiB},
		{"Boots", m.Boots, 1, 1 << 30},
	} {
		if f.n < f.low || f.n > f.high {
			return fmt.Errorf("%w: machine %s: %s is %d, not from %d to %d", ErrInvalid, m.ID, f.name, f.n, f.low, f.high)
		}
	}
	if m.Firmware != BIOS && m.Firmware != UEFI {
		return fmt.Errorf("%w: machine %s: Firmware %q", ErrInvalid, m.ID, m.Firmware)
	}
	return nil
}

// ImageSize is the virtual size, in bytes, of the sealed image at path. It reads the fixed part of the qcow2 header only, and
// refuses with ErrInvalid what is not a standalone image: another format, a backing file, an external data file, encryption.
//
//	byte  0  magic "QFI\xfb"        byte 24  virtual size, bytes
//	byte  4  version, 2 or 3        byte 32  encryption method
//	byte  8  backing file's offset  byte 72  incompatible features (version 3)
//
// All numbers are big-endian (QEMU, docs/interop/qcow2.txt).
func ImageSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	header := make([]byte, 104) // a version 3 header is at least that long; a version 2 image is longer than that as well
	if _, err := f.ReadAt(header, 0); err == io.EOF {
		return 0, fmt.Errorf("%w: image %s: shorter than a qcow2 header", ErrInvalid, path)
	} else if err != nil {
		return 0, err
	}
	size, err := imageSize(header)
	if err != nil {
		return 0, fmt.Errorf("image %s: %w", path, err)
	}
	return size, nil
}

// ImageSizes is ImageSize of an image and of what is under it, which is one image at most and of the same size.
func ImageSizes(path string, base ...string) (int64, error) {
	size, err := ImageSize(path)
	if err != nil || len(base) == 0 {
		return size, err
	}
	if len(base) > 1 {
		return 0, fmt.Errorf("%w: %d images under %s, there can be one", ErrInvalid, len(base), path)
	}
	under, err := ImageSize(base[0])
	if err == nil && under != size {
		err = fmt.Errorf("%w: image %s has %d bytes, the one under it %d", ErrInvalid, path, size, under)
	}
	return size, err
}

// imageSize looks at the first 104 bytes of an image.
func imageSize(h []byte) (int64, error) {
	be := binary.BigEndian
	version := be.Uint32(h[4:])
	size := be.Uint64(h[24:])
	switch {
	case string(h[:4]) != "QFI\xfb":
		return 0, fmt.Errorf("%w: no qcow2 magic at byte 0", ErrInvalid)
	case version != 2 && version != 3:
		return 0, fmt.Errorf("%w: qcow2 version %d at byte 4", ErrInvalid, version)
	case be.Uint64(h[8:]) != 0:
		return 0, fmt.Errorf("%w: it has a backing file (byte 8)", ErrInvalid)
	case be.Uint32(h[32:]) != 0:
		return 0, fmt.Errorf("%w: it is encrypted (byte 32)", ErrInvalid)
	case version == 3 && be.Uint64(h[72:])&(1<<2) != 0: // bit 2: external data file
		return 0, fmt.Errorf("%w: its data is in another file (bit 2 at byte 72)", ErrInvalid)
	case size == 0 || size > uint64(MaxVolumeGiB*GiB):
		return 0, fmt.Errorf("%w: virtual size %d at byte 24", ErrInvalid, size)
	}
	return int64(size), nil
}
