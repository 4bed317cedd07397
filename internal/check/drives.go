package check

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"berth/internal/windows"
)

// driveChecks are the checks on drives and volumes beside C:.
var driveChecks = []Check{
	{
		Code: "AdditionalDrivesAttached", ReportAs: "AdditionalDrivesAttached", Level: Fail, DecidedIn: OnDisk,
		Title:      "C: is the machine's only drive",
		Source:     "facts §4.2",
		Evaluation: "There must be no volume beside C: but boot, reserved and recovery partitions, no other disk, and no CD, removable or network drive, nor one that a user has in the key Network of NTUSER.DAT, in every profile of ProfileList. A CD drive with nothing in it, in the export, is a warning.",
		Remedy: steps(
			"Take CD drives, USB drives and further disks out of the virtual machine: Edit Settings > the device > Remove. A network drive, signed in as the user who has it and not as an administrator, who does not see it:",
			"  net use * /delete",
			"A second volume on the same disk: move what is on it to C: and delete it (diskmgmt.msc)."),
		judge: judgeDrives,
	},
	{
		Code: "RestrictedDriveLetterInUse", ReportAs: "RestrictedDriveLetterInUse", Level: Fail, DecidedIn: OnDisk, Fixable: true,
		Title:      "The drive letter D: is free",
		Source:     "facts §4.2 (service side), §14",
		Evaluation: `SYSTEM\MountedDevices must have no \DosDevices\D:, no drive may have the letter, and there must be no second volume that would get it. A letter kept for what is no longer there is a warning, but for a CD drive: most machines had one.`,
		Fix:        `The value \DosDevices\D: is deleted where what it is kept for is no longer there`,
		Remedy: steps(
			"Give the drive another letter (diskmgmt.msc > right-click it > Change Drive Letter and Paths), or take it out of the machine. Where only the memory of it is left:",
			`  reg delete HKLM\SYSTEM\MountedDevices /v \DosDevices\D: /f`),
		judge: judgeDriveLetter,
		fix:   fixDriveLetter,
	},
	{
		Code: "VolumeEncrypted", ReportAs: "UnknownError", Level: Fail, DecidedIn: OnDisk,
		Title:      "No volume is encrypted",
		Source:     "document, Step 4 (encrypted disks are not imported); facts §4.2, §14",
		Evaluation: `No partition may begin with the mark of BitLocker, LUKS or VeraCrypt, and BootStatus of Control\BitLockerStatus must be absent or 0.`,
		Remedy: steps(
			"Decrypt every volume, and wait until it is done (Conversion Status: Fully Decrypted):",
			"  manage-bde -off C:",
			"  manage-bde -status"),
		judge: judgeEncryption,
	},
	{
		Code: "VolumeDirty", ReportAs: "UnknownError", Level: Warn, DecidedIn: OnDisk,
		Title:      "The volume with Windows was taken off cleanly",
		Source:     "facts §4.3",
		Evaluation: "The flag 0x0001 of $Volume of C: must be clear.",
		Remedy: steps(
			"Let Windows check it at the next start, restart, and shut down completely:",
			"  chkdsk C: /f",
			"  shutdown /r /t 0"),
		judge: judgeDirty,
	},
}

// letterD is what the mount manager calls D:.
const letterD = `\DosDevices\D:`

// drives reads what is there beside C:.
func (r *reader) drives(f *Facts) {
	list := r.sys.Machine().Drives
	from := said(fmt.Sprintf("drives beside the disks: %d", len(list)))
	if !r.running {
		from = said(fmt.Sprintf("CD drives that the export tells of: %d", len(list)))
	}
	f.Drives = read(list, from)
	f.LetterD = value(r, windows.SystemHive, `MountedDevices`, letterD, keyAlways, "", func(v windows.Value) (string, string, error) {
		device := mountedDevice(v.Data)
		return device, device, nil
	})
	f.BitLocker = value(r, windows.SystemHive, currentControlSet+`\Control\BitLockerStatus`, "BootStatus", optional, 0, number)
}

// cdDevice is a CD drive in words.
const cdDevice = "a CD drive"

// mountedDevice says what a drive letter was given to: a partition of an MBR (the disk's signature, the partition's first byte), of a
// GPT (its GUID), or a device by its path (facts §5).
func mountedDevice(b []byte) string {
	switch {
	case len(b) == 12:
		return fmt.Sprintf("a partition of the disk with signature %02X%02X%02X%02X", b[3], b[2], b[1], b[0])
	case strings.HasPrefix(string(b), "DMIO:ID:"):
		return "a partition of a GPT disk"
	}
	path, err := utf16Text(b)
	switch {
	case err != nil:
		return "a device that is not known"
	case strings.Contains(strings.ToLower(path), "cdrom"):
		return cdDevice
	case strings.Contains(strings.ToLower(path), "usbstor"):
		return "a USB drive"
	}
	return "the device " + printable(path)
}

// others are the volumes that get drive letters beside C:, and whether all is known of them.
func others(list []windows.Disk) (volumes, unclear []string) {
	for i, d := range list {
		for _, p := range d.Partitions {
			at := fmt.Sprintf("partition %d of %s", p.Number, diskName(i, d))
			switch p.Role {
			case windows.RoleSystem, windows.RoleBoot, windows.RoleReserved, windows.RoleRecovery:
			case windows.RoleData:
				volumes = append(volumes, at)
			default:
				unclear = append(unclear, at)
			}
		}
	}
	return volumes, unclear
}

func judgeDrives(f *Facts, _ Params) Verdict {
	on := []fact{f.Disks, f.Drives, f.MappedDrives}
	found, unclear := others(f.Disks.Value)
	var seen []Evidence
	for i, d := range f.Disks.Value {
		if i > 0 && len(d.Partitions) == 0 {
			found = append(found, diskName(i, d))
		}
	}
	empty := 0
	for _, d := range f.Drives.Value {
		name := string(d.Kind) + " drive"
		if d.Letter != "" {
			name += " " + d.Letter
		}
		switch {
		case d.Medium != "":
			found = append(found, name+" ("+d.Medium+")")
		case d.Kind == windows.CDDrive && d.Letter == "":
			empty++
		default:
			found = append(found, name)
		}
	}
	for _, d := range f.MappedDrives.Value {
		// Of who is signed in, Windows tells by itself.
		if !slices.ContainsFunc(f.Drives.Value, func(have windows.Drive) bool { return strings.EqualFold(have.Letter, d.Letter) }) {
			found = append(found, "network drive "+d.Letter+" of "+d.User+" ("+cmp.Or(d.Share, "a share that is not named")+")")
			seen = few(seen, d.From)
		}
	}
	if len(found) > 0 {
		return unmet("Beside C: there are drives: "+names(found)+".", on...).saw(seen)
	}
	if v, no := missing(on...); no {
		return v
	}
	switch {
	case len(unclear) > 0:
		return unknown("This cannot be told: what is on "+names(unclear)+" was not recognised.", on...)
	case empty > 0:
		v := unmet("The export has a CD drive with nothing in it. An import leaves it out, but Amazon's checker stops at it in the running machine.", on...)
		v.Outcome = Warn
		return v
	}
	return pass("C: is the only drive.", on...)
}

func judgeDriveLetter(f *Facts, _ Params) Verdict {
	on := []fact{f.LetterD, f.Disks, f.Drives}
	for _, d := range f.Drives.Value {
		if strings.EqualFold(d.Letter, "D:") {
			v := unmet("D: is the letter of a "+string(d.Kind)+" drive.", on...)
			v.ByHand = true
			return v
		}
	}
	if v, no := missing(on...); no {
		return v
	}
	volumes, unclear := others(f.Disks.Value)
	switch device := f.LetterD.Value; {
	case device == "" && len(volumes)+len(unclear) == 0:
		return pass("D: is free.", on...)
	case device == "":
		v := unmet("Windows will give D: to the next volume that it finds: "+names(append(volumes, unclear...))+".", on...)
		v.ByHand = true
		return v
	case len(volumes)+len(unclear) > 0:
		v := unmet("D: is given to "+device+".", on...)
		v.ByHand = true
		return v
	case device == cdDevice:
		return pass("D: is free: it was the letter of a CD drive, which is no longer there, as on most machines.", on...)
	default:
		v := unmet("D: is kept for "+device+", which is no longer there.", on...)
		v.Outcome = Warn
		return v
	}
}

// encryption names what encrypts a partition; "" where nothing is known to.
func encryption(p windows.Partition) string {
	switch p.FileSystem {
	case "BitLocker", "LUKS", "VeraCrypt":
		return p.FileSystem
	}
	return ""
}

func judgeEncryption(f *Facts, _ Params) Verdict {
	on := []fact{f.Disks, f.BitLocker}
	var found, doubtful []string
	for i, d := range f.Disks.Value {
		for _, p := range d.Partitions {
			at := fmt.Sprintf("partition %d of %s", p.Number, diskName(i, d))
			switch by := encryption(p); {
			case by != "":
				found = append(found, at+" ("+by+")")
			case p.FileSystem == "" && p.Err != nil:
				doubtful = append(doubtful, at+": "+why(p.Err))
			}
		}
	}
	switch {
	case len(found) > 0:
		return unmet("Volumes are encrypted: "+names(found)+".", on...)
	case f.BitLocker.OK() && f.BitLocker.Value != 0:
		return unmet(fmt.Sprintf("BitLocker guarded the last start (BootStatus %d).", f.BitLocker.Value), on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	if len(doubtful) > 0 {
		return unknown("This cannot be told: "+names(doubtful)+".", on...)
	}
	return pass("No volume is encrypted.", on...)
}

func judgeDirty(f *Facts, _ Params) Verdict {
	if v, no := missing(f.SystemVolume); no {
		return v
	}
	if f.SystemVolume.Value.Dirty {
		return unmet("C: is marked as not taken off cleanly.", f.SystemVolume)
	}
	return pass("C: was taken off cleanly.", f.SystemVolume)
}

// unreadVolume is the first partition that may hold a Windows and could not be read.
func unreadVolume(list []windows.Disk) (string, error) {
	for i, d := range list {
		for _, p := range d.Partitions {
			at := fmt.Sprintf("partition %d of %s", p.Number, diskName(i, d))
			switch by := encryption(p); {
			case by != "":
				return at, errors.New("it is encrypted with " + by)
			case p.Err != nil && p.Role != windows.RoleReserved && p.Role != windows.RoleSystem:
				return at, p.Err
			}
		}
	}
	return "", nil
}

// fixDriveLetter forgets a letter that is kept for what is no longer there.
func fixDriveLetter(f *Facts, _ Params) []windows.Change {
	volumes, unclear := others(f.Disks.Value)
	if !f.Disks.OK() || len(volumes)+len(unclear) > 0 || f.LetterD.Value == "" {
		return nil
	}
	return deleteValues(windows.SystemHive, `MountedDevices`, letterD)
}
