package offline

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"berth/internal/disk"
	"berth/internal/windows"
	"berth/internal/windows/ntfs"
)

// maxVolumes bounds the volumes that are opened, each of which may need 3 MB of memory. Real machines have a few.
const maxVolumes = 64

// GPT partition types ("PARTITION_INFORMATION_GPT", winioctl.h).
const (
	typeEFI      = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeReserved = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
	typeRecovery = "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"
)

// MBR partition types.
const (
	mbrRecovery = 0x27
	mbrEFI      = 0xEF
)

// found is what the disks hold.
type found struct {
	disks         []windows.Disk
	volumes       []*volume
	managed       []*ManagedError
	warnings      []string
	installations []*volume
	loaders       []bool // by disk: VeraCrypt's boot loader starts it
	drives        []windows.Drive
}

// volume is a partition whose file system was opened.
type volume struct {
	disk, part int // indices in found.disks and its Partitions
	esp        bool
	files      fs.FS
	ntfs       *ntfs.Volume // nil: FAT
	bootmgr    bool         // the file bootmgr is there: the volume starts a BIOS machine
	windows    bool
	winRE      bool
}

// survey reads all disks. What it cannot read is in the partition's Err.
func survey(env *disk.Envelope) *found {
	s := &found{drives: cdDrives(env.Hardware)}
	for i := range env.Disks {
		s.disk(i, &env.Disks[i])
	}
	for _, v := range s.volumes {
		if v.windows {
			s.installations = append(s.installations, v)
		}
	}
	s.blame()
	s.roles()
	return s
}

// maxDrives bounds the CD drives that an export may tell of. Real machines have one or two.
const maxDrives = 64

// cdDrives are the CD drives of the export's descriptor, those with a disc first. Nothing is exported of other drives.
func cdDrives(h disk.Hardware) []windows.Drive {
	var drives []windows.Drive
	for i := range min(max(h.CDROMs, len(h.CDImages)), maxDrives) {
		d := windows.Drive{Kind: windows.CDDrive}
		if i < len(h.CDImages) {
			d.Medium = h.CDImages[i]
		}
		drives = append(drives, d)
	}
	return drives
}

// disk reads the partition table and the volumes of one disk.
func (s *found) disk(i int, d *disk.Disk) {
	s.disks = append(s.disks, windows.Disk{Name: d.Name, SizeBytes: d.Size(), SectorSize: 512})
	s.loaders = append(s.loaders, veraCryptLoader(d.Image))
	w := &s.disks[i]
	whole := windows.Partition{Length: d.Size()}
	t, err := disk.Partitions(d.Image)
	if err != nil {
		whole.Err = fmt.Errorf("partition table: %w", err)
		w.Partitions = []windows.Partition{whole}
		return
	}
	w.SectorSize = int(t.SectorSize)
	for _, text := range t.Warnings {
		s.warnings = append(s.warnings, fmt.Sprintf("%s: %s", place(d.Name, 0), text))
	}
	if t.Managed != disk.NotManaged {
		s.managed = append(s.managed, &ManagedError{By: t.Managed, Disk: d.Name})
	}
	switch t.Scheme {
	case disk.MBR:
		w.Scheme = windows.MBR
	case disk.GPT:
		w.Scheme = windows.GPT
	default:
		// A file system, or an encrypted one, may fill the disk from its first sector on. Partition 0 stands for it.
		if s.partition(i, d, &whole, false); whole.FileSystem != "" || whole.Err != nil {
			w.Partitions = []windows.Partition{whole}
		}
		return
	}
	for _, e := range t.Entries {
		p := windows.Partition{Number: e.Number, Type: e.TypeGUID, Name: e.Name, Bootable: e.Bootable, Start: e.Start, Length: e.Length}
		esp := e.TypeGUID == typeEFI
		if t.Scheme == disk.MBR {
			p.Type = fmt.Sprintf("0x%02X", e.TypeMBR)
			esp = e.TypeMBR == mbrEFI
		} else {
			p.Bootable = esp
		}
		// What a volume manager divides is no volume, whatever its first sector looks like. And no byte belongs to two volumes: a table
		// that says so could have the same gigabytes read as often as it has entries.
		over := slices.IndexFunc(w.Partitions, func(q windows.Partition) bool { return p.Start < q.Start+q.Length && q.Start < p.Start+p.Length })
		switch {
		case t.Managed != disk.NotManaged:
			p.Err = fmt.Errorf("the disk is managed by %s", t.Managed)
		case over >= 0:
			p.Err = fmt.Errorf("it overlaps partition %d", w.Partitions[over].Number)
		default:
			s.partition(i, d, &p, esp)
		}
		w.Partitions = append(w.Partitions, p)
	}
}

// partition opens the file system of p, which will be appended to the disk's partitions, and looks what is in it.
func (s *found) partition(i int, d *disk.Disk, p *windows.Partition, esp bool) {
	if p.Length < 512 {
		return
	}
	r := section{d.Image, p.Start, p.Length}
	var err error
	if p.FileSystem, err = detect(r, p.Length); err != nil {
		p.Err = err
		return
	}
	if len(s.volumes) == maxVolumes {
		p.Err = fmt.Errorf("there are more than %d volumes", maxVolumes)
		return
	}
	v := &volume{disk: i, part: len(s.disks[i].Partitions), esp: esp}
	switch p.FileSystem {
	case fsNTFS:
		if v.ntfs, err = ntfs.Open(r, p.Length); err != nil {
			var locked *ntfs.BitLockerError
			if errors.As(err, &locked) {
				p.FileSystem = fsBitLocker
			}
			p.Err = err
			return
		}
		v.files = v.ntfs.FS()
		info, err := v.ntfs.Info()
		if err != nil {
			p.Err = err
		} else {
			p.Volume = &windows.Volume{Label: info.Label, SizeBytes: info.TotalBytes, FreeBytes: info.FreeBytes, ClusterBytes: info.ClusterBytes, Dirty: info.Dirty}
			if at, err := v.ntfs.Extents("$Bitmap"); err == nil && len(at) > 0 && at[0].VolumeOffset >= 0 { // only tells where it was read
				p.Bitmap = p.Start + at[0].VolumeOffset
			}
		}
	case fsFAT:
		f, err := openFAT(r, p.Length)
		if err != nil {
			p.Err = err
			return
		}
		v.files = f
		if p.Volume, err = f.info(); err != nil {
			p.Err = err
		}
	case fsBitLocker, fsLUKS:
		p.Err = fmt.Errorf("the volume is encrypted with %s", p.FileSystem)
		return
	case "":
		// The Microsoft reserved partition holds nothing that anybody ever wrote for us.
		if p.Type == typeReserved {
			return
		}
		if random, err := looksRandom(r, p.Length); err != nil {
			p.Err = err
		} else if random {
			p.Err = ErrLooksEncrypted
		}
		return
	default:
		return
	}
	if err := v.look(); err != nil && p.Err == nil {
		p.Err = err
	}
	s.volumes = append(s.volumes, v)
}

// blame says who encrypted the volumes that look random: VeraCrypt, where its boot loader starts their disk or lies on an EFI
// system partition of the machine.
func (s *found) blame() {
	onESP := false
	for _, v := range s.volumes {
		onESP = onESP || v.esp && v.has(veraCryptEFI)
	}
	for i := range s.disks {
		for j := range s.disks[i].Partitions {
			p := &s.disks[i].Partitions[j]
			if errors.Is(p.Err, ErrLooksEncrypted) && (s.loaders[i] || onESP) {
				p.FileSystem = fsVeraCrypt
				p.Err = fmt.Errorf("the volume is encrypted with %s", p.FileSystem)
			}
		}
	}
}

// look finds out what a volume is for. A folder that cannot be read makes the error, not an answer.
func (v *volume) look() error {
	var trouble []error
	has := func(name string) bool {
		_, err := fs.Stat(v.files, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			trouble = append(trouble, err)
		}
		return err == nil
	}
	v.bootmgr = has("bootmgr")
	v.winRE = has("Recovery/WindowsRE/Winre.wim")
	if v.ntfs == nil || !has("Windows/System32") {
		return errors.Join(trouble...)
	}
	// A Windows whose SYSTEM hive is lost or cannot be reached is a Windows all the same: its kernel says so, or an error that
	// does not say that there is none. The hives' own errors tell the rest.
	doubts := len(trouble)
	v.windows = has("Windows/System32/config/SYSTEM") || has("Windows/System32/ntoskrnl.exe") || len(trouble) > doubts
	return errors.Join(trouble...)
}

// roles says what the partitions are for, all of Windows' own taken as data: system makes one of them its own.
func (s *found) roles() {
	opened := map[[2]int]*volume{}
	for _, v := range s.volumes {
		opened[[2]int{v.disk, v.part}] = v
	}
	for i := range s.disks {
		d := &s.disks[i]
		for j := range d.Partitions {
			p, v := &d.Partitions[j], opened[[2]int{i, j}]
			switch {
			case p.Type == typeReserved:
				p.Role = windows.RoleReserved
			case p.Type == typeEFI || p.Type == fmt.Sprintf("0x%02X", mbrEFI):
				p.Role = windows.RoleBoot
			case p.Type == typeRecovery || p.Type == fmt.Sprintf("0x%02X", mbrRecovery):
				p.Role = windows.RoleRecovery
			case v == nil && p.FileSystem == "":
				// Unknown: neither empty nor data.
			case v == nil || v.windows:
				p.Role = windows.RoleData
			case v.bootmgr && (p.Bootable || v.has("Boot/BCD")):
				p.Role = windows.RoleBoot
			case v.winRE:
				p.Role = windows.RoleRecovery
			default:
				p.Role = windows.RoleData
			}
		}
	}
}

// has tells whether a file surely is there.
func (v *volume) has(name string) bool {
	_, err := fs.Stat(v.files, name)
	return err == nil
}

// system makes the System of an installation.
func (s *found) system(in *volume) *System {
	sys := &System{disk: in.disk, part: in.part, volume: in.ntfs, files: in.ntfs.FS(), warnings: s.warnings}
	sys.machine = windows.Machine{Disks: slices.Clone(s.disks), Installations: len(s.installations), Drives: s.drives}
	parts := slices.Clone(s.disks[in.disk].Partitions)
	parts[in.part].Role = windows.RoleSystem
	sys.machine.Disks[in.disk].Partitions = parts
	sys.hives = map[windows.Hive]*hive{}
	for _, h := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM, windows.Security, windows.Default} {
		sys.hives[h] = &hive{name: h, files: in.files, path: "Windows/System32/config/" + string(h)}
	}
	sys.hives[windows.BCD] = s.bootStore(in)
	sys.machine.Firmware = s.firmware(in, sys.hives[windows.BCD])
	return sys
}

// reason tells why there is no installation.
func (s *found) reason() error {
	var unreadable error
	for _, d := range s.disks {
		for _, p := range d.Partitions {
			switch p.FileSystem {
			case fsBitLocker, fsLUKS, fsVeraCrypt:
				return &EncryptedError{By: p.FileSystem, Disk: d.Name, Partition: p.Number}
			}
			if p.Err != nil && unreadable == nil {
				unreadable = &UnreadableError{Disk: d.Name, Partition: p.Number, Err: p.Err}
			}
		}
	}
	switch {
	case len(s.managed) > 0:
		return s.managed[0]
	case unreadable != nil:
		return unreadable
	}
	return ErrNoWindows
}

// sameName compares names of files and keys as Windows does, for ASCII.
func sameName(a, b string) bool { return strings.EqualFold(a, b) }
