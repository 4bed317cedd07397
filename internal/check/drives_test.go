package check

import (
	"errors"
	"testing"

	"berth/internal/windows"
)

const (
	mounted = `[SYSTEM\MountedDevices]` + "\n" + `"\\DosDevices\\D:"=hex:`
	cdPath  = `5c,00,3f,00,3f,00,5c,00,53,00,43,00,53,00,49,00,23,00,43,00,64,00,52,00,6f,00,6d,00`
)

func drive(d ...windows.Drive) func(*testing.T, *memory) {
	return change(func(m *memory) { m.machine.Drives = d })
}

// beside adds a third partition that is not one of the fit machine.
func beside(p windows.Partition) func(*testing.T, *memory) {
	return change(func(m *memory) {
		p.Number, p.Type, p.Length = 3, "0x07", gib1
		m.machine.Disks[0].Partitions = append(m.machine.Disks[0].Partitions, p)
	})
}

var driveCases = []testCase{
	{"a second volume", beside(windows.Partition{Role: windows.RoleData, FileSystem: "NTFS"}), Options{}, "AdditionalDrivesAttached", Fail, "partition 3 of disk 0"},
	{"an empty second disk", change(func(m *memory) {
		m.machine.Disks = append(m.machine.Disks, windows.Disk{SizeBytes: gib1, SectorSize: 512, Scheme: windows.GPT})
	}), Options{}, "AdditionalDrivesAttached", Fail, "disk 1"},
	{"a CD in the drive", drive(windows.Drive{Kind: windows.CDDrive, Medium: "tools.iso"}), Options{}, "AdditionalDrivesAttached", Fail, "CD drive (tools.iso)"},
	{"a CD drive in the export", drive(windows.Drive{Kind: windows.CDDrive}), Options{}, "AdditionalDrivesAttached", Warn, "nothing in it"},
	{"a CD drive in the running machine", both(while(func(*answers) {}), drive(windows.Drive{Kind: windows.CDDrive, Letter: "D:"})), Options{}, "AdditionalDrivesAttached", Fail, "CD drive D:"},
	{"a network drive", both(while(func(*answers) {}), drive(windows.Drive{Kind: windows.NetworkDrive, Letter: "Z:", Medium: `\\server\share`})), Options{}, "AdditionalDrivesAttached", Fail, `network drive Z:`},
	{"a partition of what", beside(windows.Partition{}), Options{}, "AdditionalDrivesAttached", Unknown, "was not recognised"},
	{"no disks", change(func(m *memory) { m.machine.Disks = nil }), Options{}, "AdditionalDrivesAttached", Unknown, "not known"},

	{"D: was a CD drive", reg(mounted + cdPath), Options{}, "RestrictedDriveLetterInUse", Pass, "the letter of a CD drive"},
	{"D: was a USB drive", reg(mounted + `55,00,53,00,42,00,53,00,54,00,4f,00,52,00`), Options{}, "RestrictedDriveLetterInUse", Warn, "kept for a USB drive"},
	{"D: is kept for a partition", reg(mounted + `21,5a,3c,8f,00,00,60,03,00,00,00,00`), Options{}, "RestrictedDriveLetterInUse", Warn, "signature 8F3C5A21"},
	{"D: is kept for a partition of a GPT", reg(mounted + `44,4d,49,4f,3a,49,44,3a,21,1f,93,09,af,7f,a9,44,81,d8,1e,73,c1,4b,9e,af`), Options{}, "RestrictedDriveLetterInUse", Warn, "a GPT disk"},
	{"D: is kept for something", reg(mounted + `41,00,42,00`), Options{}, "RestrictedDriveLetterInUse", Warn, "the device AB"},
	{"D: is kept for an odd thing", reg(mounted + `41`), Options{}, "RestrictedDriveLetterInUse", Warn, "not known"},
	{"D: is a volume", both(reg(mounted+`21,5a,3c,8f,00,00,60,03,00,00,00,00`), beside(windows.Partition{Role: windows.RoleData, FileSystem: "NTFS"})), Options{}, "RestrictedDriveLetterInUse", Fail, "is given to"},
	{"a volume that will be D:", beside(windows.Partition{Role: windows.RoleData, FileSystem: "NTFS"}), Options{}, "RestrictedDriveLetterInUse", Fail, "next volume"},
	{"D: is a CD drive", both(while(func(*answers) {}), drive(windows.Drive{Kind: windows.CDDrive, Letter: "d:"})), Options{}, "RestrictedDriveLetterInUse", Fail, "the letter of a CD drive"},
	{"letters unread", broken(`SYSTEM\MountedDevices\\DosDevices\D:`), Options{}, "RestrictedDriveLetterInUse", Unknown, "bad cell"},
	{"no letters", gone(`SYSTEM\MountedDevices`), Options{}, "RestrictedDriveLetterInUse", Unknown, "missing"},

	{"BitLocker on another volume", beside(windows.Partition{Role: windows.RoleData, FileSystem: "BitLocker", Err: errors.New("encrypted")}), Options{}, "VolumeEncrypted", Fail, "partition 3 of disk 0 (BitLocker)"},
	{"BitLocker guarded the start", reg(`[SYSTEM\ControlSet001\Control\BitLockerStatus]` + "\n" + `"BootStatus"=dword:1`), Options{}, "VolumeEncrypted", Fail, "BootStatus 1"},
	{"looks encrypted", beside(windows.Partition{Err: errors.New("it looks random")}), Options{}, "VolumeEncrypted", Unknown, "it looks random"},
	{"BitLocker unread", broken(`SYSTEM\ControlSet001\Control\BitLockerStatus\BootStatus`, `SYSTEM\ControlSet001\Control\BitLockerStatus`), Options{}, "VolumeEncrypted", Unknown, "bad cell"},

	{"dirty", change(func(m *memory) { m.system().Volume.Dirty = true }), Options{}, "VolumeDirty", Warn, "not taken off cleanly"},
	{"no volume", change(func(m *memory) { m.system().Volume = nil }), Options{}, "VolumeDirty", Unknown, "could not be read"},

	{"a partition that was not read", beside(windows.Partition{Role: windows.RoleData, FileSystem: "NTFS", Err: errors.New("bad $MFT")}), Options{}, "MultipleBootPartition", Unknown, "another Windows may be on it: bad $MFT"},
	{"two Windows and a partition that was not read", both(change(func(m *memory) { m.machine.Installations = 2 }), beside(windows.Partition{Role: windows.RoleData, FileSystem: "NTFS", Err: errors.New("bad $MFT")})), Options{}, "MultipleBootPartition", Fail, "2 installations"},
}
