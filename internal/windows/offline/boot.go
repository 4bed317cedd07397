package offline

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"berth/internal/windows"
)

// Where the boot configuration lies on the EFI system partition, and on the partition from which a BIOS starts.
const (
	efiStore  = "EFI/Microsoft/Boot/BCD"
	efiLoader = "EFI/Microsoft/Boot/bootmgfw.efi"
	mbrStore  = "Boot/BCD"
)

// bootStore finds the BCD that starts the Windows on in: on the EFI system partition or the active partition of its own disk, then
// of the others, then on the volume of Windows itself. When none has one, the hive says so.
func (s *found) bootStore(in *volume) *hive {
	type spot struct {
		v    *volume
		path string
	}
	var own, other []spot
	for _, v := range s.volumes {
		p := &s.disks[v.disk].Partitions[v.part]
		var path string
		switch {
		case v.esp:
			path = efiStore
		case p.Bootable || v.bootmgr:
			path = mbrStore
		default:
			continue
		}
		if v.disk == in.disk {
			own = append(own, spot{v, path})
		} else {
			other = append(other, spot{v, path})
		}
	}
	candidates := append(own, other...)
	candidates = append(candidates, spot{in, mbrStore})
	var doubt *hive
	for _, c := range candidates {
		h := &hive{name: windows.BCD, files: c.v.files, path: c.path}
		switch _, err := fs.Stat(c.v.files, c.path); {
		case err == nil:
			return h
		case !errors.Is(err, fs.ErrNotExist) && doubt == nil:
			doubt = h // opening it gives the error
		}
	}
	if doubt != nil {
		return doubt
	}
	// What could not be read may have held it.
	for _, d := range s.disks {
		for _, p := range d.Partitions {
			if p.Err != nil {
				err := fmt.Errorf("no boot configuration was found, and %s could not be read: %w", place(d.Name, p.Number), p.Err)
				return &hive{name: windows.BCD, err: err}
			}
		}
	}
	last := candidates[0]
	return &hive{name: windows.BCD, files: last.v.files, path: last.path}
}

// firmware tells what starts the machine by what lies on its disks: "uefi" on a GPT whose EFI system partition holds Windows' boot
// manager or whose boot configuration starts winload.efi, "bios" on an MBR whose active partition holds bootmgr, else "".
func (s *found) firmware(in *volume, store *hive) string {
	d := &s.disks[in.disk]
	for _, v := range s.volumes {
		if v.disk != in.disk {
			continue
		}
		switch {
		case d.Scheme == windows.GPT && v.esp && v.has(efiLoader):
			return "uefi"
		case d.Scheme == windows.MBR && d.Partitions[v.part].Bootable && v.bootmgr:
			return "bios"
		}
	}
	if d.Scheme == windows.GPT && startsWinloadEFI(store) {
		return "uefi"
	}
	return ""
}

// maxBootObjects bounds the objects of a boot configuration that are looked at; Windows makes about 20.
const maxBootObjects = 1024

// startsWinloadEFI tells whether an object of the boot configuration has winload.efi as its application.
func startsWinloadEFI(store *hive) bool {
	// BcdLibraryString_ApplicationPath (BCD reference, element types).
	const applicationPath = `Elements\12000002`
	root, err := store.root()
	if err != nil {
		return false
	}
	objects, err := root.Open("Objects")
	if err != nil {
		return false
	}
	names, err := objects.Subkeys()
	if err != nil || len(names) > maxBootObjects {
		return false
	}
	for _, n := range names {
		k, err := objects.Open(n + `\` + applicationPath)
		if err != nil {
			continue
		}
		v, err := k.Value("Element")
		if err != nil || v.Type != windows.RegSZ {
			continue
		}
		path := strings.ToLower(strings.TrimRight(decodeUTF16(v.Data), "\x00"))
		if strings.HasSuffix(path, `\winload.efi`) {
			return true
		}
	}
	return false
}
