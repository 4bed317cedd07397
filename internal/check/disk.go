package check

import (
	"fmt"
	"strings"

	"berth/internal/windows"
)

// diskChecks are the checks on disks, partitions and space.
var diskChecks = []Check{
	{
		Code: "IncompatiblePartitioning", ReportAs: "IncompatiblePartitioning", Level: Fail, DecidedIn: OnDisk,
		Title:      "The disk is partitioned as the Windows version asks, with one volume",
		Source:     "document, Requirements (a single volume); facts §4.2, §14",
		Evaluation: "The partition table that holds Windows must be of the kind that the profile's release asks for, and go with the firmware; there must be one volume beside boot, reserved and recovery partitions on all disks together.",
		Remedy: steps(
			"Move what is on other volumes to C: and delete them: diskmgmt.msc > right-click the volume > Delete Volume.",
			"The kind of partition table goes with the virtual machine's firmware: set up Windows 10 in a machine with legacy BIOS (Hyper-V: generation 1), which gives MBR, and Windows 11 in one with UEFI, which gives GPT."),
		judge: judgePartitioning,
	},
	{
		Code: "MultipleBootPartition", ReportAs: "MultipleBootPartition", Level: Fail, DecidedIn: OnDisk,
		Title:      "There is one partition to boot from and one Windows",
		Source:     "facts §4.2",
		Evaluation: "At most one partition may be marked to boot from (MBR: status 0x80; GPT: EFI system partition), there must be one Windows on the disks, all of whose partitions were read, and the boot manager may offer one Windows.",
		Remedy: steps(
			"Keep one Windows and one partition to boot from. See which are marked (diskmgmt.msc shows the one in use as System):",
			"  diskpart",
			"  list disk",
			"  select disk 0",
			"  list partition",
			"MBR, for each other one that is marked active:",
			"  select partition <n>",
			"  inactive",
			"GPT, for a second EFI system partition:",
			"  select partition <n>",
			"  delete partition override",
			"A second Windows: msconfig > Boot > select it > Delete, then delete its volume."),
		judge: judgeBoot,
	},
	{
		Code: "DiskSizeExceeded", ReportAs: "DiskSizeExceeded", Level: Fail, DecidedIn: OnDisk,
		Title:      "Disk and volume are no larger than the profile allows",
		Source:     "document, Requirements and Step 3; facts §4.2",
		Evaluation: "The size of C: and the virtual size of its disk must be at most what the profile allows. Amazon's checker does not run this test at ingestion; Berth does, for the document asks for it.",
		Remedy: steps(
			"Shrink C: (diskmgmt.msc > right-click C: > Shrink Volume). A recovery partition behind it is in the way; switch it off and delete it:",
			"  reagentc /disable",
			"  diskpart",
			"  list disk",
			"  select disk <n>",
			"  list partition",
			"  select partition <n>",
			"  delete partition override",
			"Shut down and make the virtual disk smaller with your hypervisor's tools. Where they cannot, copy the partitions to a new, smaller disk."),
		judge: judgeDiskSize,
	},
	{
		Code: "DiskFreeSpace", ReportAs: "DiskFreeSpace", Level: Fail, DecidedIn: OnDisk,
		Title:      "Enough space is free on C:",
		Source:     `document, Requirements, Step 3 and "Adding Microsoft Office"; facts §4.1 defects 1 and 2, §4.2`,
		Evaluation: "The clear bits of $Bitmap times the cluster size must be at least what the profile asks for; with an Office subscription what it asks for then, at ingestion too (Amazon's forgets it).",
		Remedy: steps(
			"Windows+R > cleanmgr > Clean up system files > tick Windows Update clean-up, previous installations and temporary files > OK. Then:",
			"  powercfg /h off",
			"  Dism /Online /Cleanup-Image /StartComponentCleanup",
			"The first gives back hiberfil.sys. If that is not enough, make disk and C: larger, within the profile's limit."),
		judge: judgeFreeSpace,
	},
}

const bytesPerGiB = 1 << 30

// gib shows a size in bytes.
func gib(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	case n < bytesPerGiB:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/bytesPerGiB)
}

func judgePartitioning(f *Facts, p Params) Verdict {
	on := []fact{f.Disks, f.Firmware, f.Build}
	if !f.Disks.OK() {
		v, _ := missing(on...)
		return v
	}
	var volumes, unclear []string
	var scheme windows.Scheme
	for i, d := range f.Disks.Value {
		for _, part := range d.Partitions {
			at := fmt.Sprintf("partition %d of %s", part.Number, diskName(i, d))
			switch part.Role {
			case windows.RoleSystem:
				scheme = d.Scheme
				volumes = append(volumes, at)
			case windows.RoleData:
				volumes = append(volumes, at)
			case windows.RoleBoot, windows.RoleReserved, windows.RoleRecovery:
			default:
				unclear = append(unclear, at)
			}
		}
	}
	if len(volumes) > 1 {
		return unmet(fmt.Sprintf("There are %d volumes (%s); Windows and everything else must be on one. Boot, reserved and recovery partitions do not count.", len(volumes), names(volumes)), on...)
	}
	if scheme == windows.MBR && f.Firmware.Value == "uefi" || scheme == windows.GPT && f.Firmware.Value == "bios" {
		return unmet(fmt.Sprintf("The partition table is %s, but the machine boots by %s.", scheme, strings.ToUpper(f.Firmware.Value)), on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	if scheme == windows.NoTable {
		return unknown("This cannot be told: no partition is known to hold Windows.", on...)
	}
	want := windows.MBR // Windows 10, and whatever else
	if f.Build.Value >= firstWindows11 {
		want = windows.GPT
	}
	if found := p.Profile.releases(f.Build.Value); len(found) > 0 {
		want = found[0].Scheme
	}
	if scheme != want {
		return unmet(fmt.Sprintf("The partition table is %s; %s must have %s.", scheme, windowsName(f.Build.Value), want), on...)
	}
	if len(unclear) > 0 {
		return unknown("This cannot be told: what is on "+names(unclear)+" was not recognised.", on...)
	}
	return pass(fmt.Sprintf("The partition table is %s, with one volume.", scheme), on...)
}

func judgeBoot(f *Facts, _ Params) Verdict {
	on := []fact{f.Disks, f.Installations, f.BootEntries}
	if f.Installations.OK() && f.Installations.Value > 1 {
		return unmet(fmt.Sprintf("There are %d installations of Windows on the disks.", f.Installations.Value), on...)
	}
	var bootable []string
	for i, d := range f.Disks.Value {
		for _, part := range d.Partitions {
			if part.Bootable {
				bootable = append(bootable, fmt.Sprintf("partition %d of %s", part.Number, diskName(i, d)))
			}
		}
	}
	if f.Disks.OK() && len(bootable) > 1 {
		return unmet(fmt.Sprintf("%d partitions are marked bootable: %s.", len(bootable), names(bootable)), on...)
	}
	if n := len(f.BootEntries.Value); n > 1 {
		return unmet(fmt.Sprintf("The boot manager offers %d Windows: %s.", n, names(f.BootEntries.Value)), on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	if len(bootable) == 0 {
		return pass("No partition beyond the one with Windows is marked bootable.", on...)
	}
	return pass("One partition is marked bootable, and there is one Windows.", on...)
}

func judgeDiskSize(f *Facts, p Params) Verdict {
	on := []fact{f.SystemVolume, f.SystemDisk}
	if v := f.SystemVolume; v.OK() && v.Value.SizeBytes > int64(p.Profile.MaxVolumeGiB.Value)*bytesPerGiB {
		return unmet(fmt.Sprintf("C: has %s; profile %s allows %d GiB.", gib(v.Value.SizeBytes), p.Profile.Name, p.Profile.MaxVolumeGiB.Value), on...)
	}
	if d := f.SystemDisk; d.OK() && d.Value > int64(p.Profile.MaxDiskGiB.Value)*bytesPerGiB {
		return unmet(fmt.Sprintf("The disk has %s; profile %s allows %d GiB.", gib(d.Value), p.Profile.Name, p.Profile.MaxDiskGiB.Value), on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	return pass(fmt.Sprintf("C: has %s of the %d GiB allowed, the disk %s of %d.", gib(f.SystemVolume.Value.SizeBytes), p.Profile.MaxVolumeGiB.Value,
		gib(f.SystemDisk.Value), p.Profile.MaxDiskGiB.Value), on...)
}

func judgeFreeSpace(f *Facts, p Params) Verdict {
	if v, no := missing(f.SystemVolume); no {
		return v
	}
	on := []fact{f.SystemVolume, f.Reclaimable}
	free, need := f.SystemVolume.Value.FreeBytes, p.Profile.MinFreeGiB.Value
	what := fmt.Sprintf("profile %s asks for %d GiB", p.Profile.Name, need)
	if p.Office {
		need = p.Profile.MinFreeOfficeGiB.Value
		what = fmt.Sprintf("profile %s asks for %d GiB where Office is subscribed to", p.Profile.Name, need)
	}
	if short := int64(need)*bytesPerGiB - free; short > 0 {
		return unmet(fmt.Sprintf("%s are free on C:; %s. %s are missing.", gib(free), what, gib(short)), on...)
	}
	return pass(fmt.Sprintf("%s are free on C:; %s.", gib(free), what), on...)
}
