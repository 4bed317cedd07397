package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/windows"
	"berth/internal/windows/offline"
)

// Inspection is what an export holds, read without booting, mounting, converting or trusting it. It does not judge whether that is
// fit for anything; package check does. As JSON it is what "berth inspect --output json" prints.
//
// Text in it is as the disk has it: whoever shows it on a terminal must escape it ([Printable]).
type Inspection struct {
	// Container is what the file is.
	Container Container `json:"container"`
	// Disks in the order of their attachment.
	Disks []Disk `json:"disks"`
	// Windows are the installations found, in the order of disks and partitions.
	Windows []Windows `json:"windows"`
	// NoWindows is why there is none; empty if there is one.
	NoWindows string `json:"noWindows,omitempty"`
	// Suspicious is what somebody who wants to use the machine should look at.
	Suspicious []Suspicion `json:"suspicious"`
	// Warnings are about the file and its partition tables.
	Warnings []string `json:"warnings"`
}

// Fact is something read from the disk, and where.
type Fact[T any] struct {
	// Value is null when it is not known.
	Value *T `json:"value"`
	// From says where it was read, or where one looked, for people.
	From string `json:"from,omitempty"`
	// Unknown is why it is not known; empty when it is.
	Unknown string `json:"unknown,omitempty"`
}

// Container is the exported file.
type Container struct {
	// Format is OVA, OVF, or the format of the only disk.
	Format string `json:"format"`
	// Integrity is "verified", "unverified" (the digests of the manifest were not compared), "damaged" (they do not agree) or
	// "no manifest" (there is nothing to compare with). IntegrityWhy says more about the last two.
	Integrity    Integrity `json:"integrity"`
	IntegrityWhy string    `json:"integrityWhy,omitempty"`
	// Hardware is what the descriptor of an OVA or OVF says of the machine; null for other formats.
	Hardware *Hardware `json:"hardware"`
}

// Integrity says whether the file is as it was when it was exported.
type Integrity string

const (
	Verified   Integrity = "verified"
	Unverified Integrity = "unverified"
	Broken     Integrity = "damaged"
	NoManifest Integrity = "no manifest"
)

// Hardware is what an OVF descriptor says. What it does not say is "" or 0.
type Hardware struct {
	Name     string   `json:"name"`
	OSType   string   `json:"osType"`
	Firmware string   `json:"firmware"` // "efi" or "bios"
	NICs     int      `json:"nics"`
	CDROMs   int      `json:"cdDrives"`
	CDImages []string `json:"cdImages,omitempty"` // files in them
	VCPUs    int      `json:"vcpus"`
	MemoryMB int64    `json:"memoryMiB"`
}

// Disk is one disk.
type Disk struct {
	Name       string `json:"name,omitempty"` // the file's name in an OVA
	Format     string `json:"format"`
	SubFormat  string `json:"subFormat,omitempty"` // "streamOptimized", "dynamic", ...
	FileBytes  int64  `json:"fileBytes"`           // of the disk's file
	SizeBytes  int64  `json:"sizeBytes"`           // virtual
	SectorSize int    `json:"sectorBytes"`
	// Scheme is "MBR", "GPT" or "" (no partition table that is understood).
	Scheme     windows.Scheme `json:"scheme"`
	Partitions []Partition    `json:"partitions"`
}

// Partition is a partition and the volume in it. Number 0 is a volume that fills a disk without a partition table.
type Partition struct {
	Number      int    `json:"number"`
	Type        string `json:"type"`           // "0x07", or a GPT type GUID
	Name        string `json:"name,omitempty"` // the GPT's
	Role        string `json:"role"`           // "windows", "boot", "reserved", "recovery", "data", "" unknown
	Bootable    bool   `json:"bootable"`
	StartBytes  int64  `json:"startBytes"`
	LengthBytes int64  `json:"lengthBytes"`
	FileSystem  string `json:"fileSystem"` // "NTFS", "FAT", "BitLocker", "LUKS", "VeraCrypt", ...; "" unknown
	// Volume is null where the file system could not be read; Error says why.
	Volume *Volume `json:"volume"`
	Error  string  `json:"error,omitempty"`
}

// Volume is a file system that was read.
type Volume struct {
	Label        string `json:"label"`
	SizeBytes    int64  `json:"sizeBytes"`
	FreeBytes    int64  `json:"freeBytes"`
	ClusterBytes int64  `json:"clusterBytes"`
	Dirty        bool   `json:"dirty"` // it was not taken off cleanly: chkdsk will run
}

// Windows is one installation.
type Windows struct {
	// Disk is the index in Disks, Partition the partition's number.
	Disk      int `json:"disk"`
	Partition int `json:"partition"`
	// Firmware is "bios" or "uefi": what starts it, by what lies on its disk.
	Firmware Fact[string] `json:"firmware"`

	ProductName  Fact[string] `json:"productName"` // as stored; Windows 11 calls itself "Windows 10 ..." here
	Version      Fact[string] `json:"version"`     // DisplayVersion ("22H2"), before it ReleaseId ("1909")
	Build        Fact[int]    `json:"build"`
	Revision     Fact[uint32] `json:"revision"` // UBR
	Edition      Fact[string] `json:"edition"`  // EditionID
	ProductType  Fact[string] `json:"productType"`
	Architecture Fact[string] `json:"architecture"`
	// InstallLanguage is four hex digits, "0409"; DisplayLanguages are names, "en-US", best first.
	InstallLanguage  Fact[string]    `json:"installLanguage"`
	DisplayLanguages Fact[[]string]  `json:"displayLanguages"`
	HostName         Fact[string]    `json:"hostName"`
	Installed        Fact[time.Time] `json:"installed"`
	LastShutdown     Fact[time.Time] `json:"lastShutdown"`
	TimeZone         Fact[string]    `json:"timeZone"`
	// Setup is ImageState: "IMAGE_STATE_COMPLETE" on a machine that is set up, another word within Sysprep.
	Setup Fact[string] `json:"setup"`
	// Hibernation is "none", "hibernated" or "resumed", by what hiberfil.sys begins with.
	Hibernation Fact[string] `json:"hibernation"`
	// FastStartup is HiberbootEnabled: a shutdown hibernates the kernel.
	FastStartup Fact[bool] `json:"fastStartup"`

	Volume   Fact[Volume]    `json:"volume"` // C:
	Programs Fact[[]Program] `json:"programs"`
	Users    Fact[[]User]    `json:"users"`
	// Storage are the drivers for disk controllers that start at boot, Network the network adapters that were ever set up.
	Storage Fact[[]StorageDriver]  `json:"storageDrivers"`
	Network Fact[[]NetworkAdapter] `json:"networkAdapters"`
	// Support says for the virtual hardware that hypervisors offer whether there is a driver.
	Support Fact[[]Support] `json:"support"`
	Hives   []Hive          `json:"hives"`
}

// Program is an entry of one of the two Uninstall lists that has a name.
type Program struct {
	Name      string `json:"name"`
	Version   string `json:"version,omitempty"`
	Publisher string `json:"publisher,omitempty"`
	Bits      int    `json:"bits"` // of the list that it is in: 32 is the WOW6432Node one of a 64-bit Windows
	From      string `json:"from"`
}

// User is a local account.
type User struct {
	Name          string `json:"name"`
	RID           uint32 `json:"rid"`
	Enabled       bool   `json:"enabled"`
	Administrator bool   `json:"administrator"` // a direct member of the local group Administrators
	From          string `json:"from"`
}

// StorageDriver is a driver service for a disk controller with start type 0.
type StorageDriver struct {
	Service string `json:"service"`
	// AtBoot is false where StartOverride makes the kernel leave it alone at boot: its controller was not there when last looked.
	AtBoot bool   `json:"atBoot"`
	Image  string `json:"image,omitempty"` // ImagePath
	From   string `json:"from"`
}

// NetworkAdapter is a device of the class of network adapters.
type NetworkAdapter struct {
	Description string `json:"description"`
	ComponentID string `json:"componentId"` // "pci\ven_8086&dev_10d3"
	Provider    string `json:"provider,omitempty"`
	Version     string `json:"version,omitempty"`
	From        string `json:"from"`
}

// Support is whether Windows has a driver for a piece of virtual hardware.
type Support struct {
	Hardware string `json:"hardware"` // "AHCI disk", "virtio network", ...
	// Driver is "boot" (it starts at boot), "installed", "available" (Windows brings it along, and sets it up when it sees the device)
	// or "absent".
	Driver  string `json:"driver"`
	Service string `json:"service,omitempty"`
}

// Hive is how far a registry hive can be trusted.
type Hive struct {
	Name string `json:"name"`
	// State is "clean", "replayed" (its logs were applied in memory), "stale", "damaged", "missing" or "unreadable".
	State    string `json:"state"`
	Dirty    bool   `json:"dirty"`
	Replayed int    `json:"replayedEntries"`
	Why      string `json:"why,omitempty"`
}

// InspectionOptions say how much NewInspection does.
type InspectionOptions struct {
	// Verify reads the whole file and compares it with the digests that it brings along.
	Verify bool
}

// NewInspection reads what an export holds. What cannot be read is said in its place; the error is ctx's, or one of reading the
// file itself.
func NewInspection(ctx context.Context, env *disk.Envelope, opt InspectionOptions) (*Inspection, error) {
	i := &Inspection{Disks: []Disk{}, Windows: []Windows{}, Suspicious: []Suspicion{}, Warnings: []string{}}
	i.Container.Format = env.Format
	if env.Format == "OVA" || env.Format == "OVF" {
		h := Hardware(env.Hardware)
		i.Container.Hardware = &h
	}
	if err := i.verify(ctx, env, opt.Verify); err != nil {
		return nil, err
	}
	found := offline.Find(env)
	i.Warnings = append(append(i.Warnings, env.Warnings...), found.Warnings...)
	if i.Container.Integrity == Verified || i.Container.Integrity == Broken {
		i.Warnings = slices.DeleteFunc(i.Warnings, func(w string) bool { return strings.Contains(w, "were not verified") })
	}
	for n := range env.Disks {
		i.Disks = append(i.Disks, inspectDisk(&env.Disks[n], &found.Disks[n]))
	}
	for _, s := range found.Systems {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w := inspectWindows(ctx, s)
		for k := range i.Disks[w.Disk].Partitions {
			if p := &i.Disks[w.Disk].Partitions[k]; p.Number == w.Partition {
				p.Role = "windows"
			}
		}
		i.Windows = append(i.Windows, w)
	}
	if found.NoWindows != nil {
		i.NoWindows = found.NoWindows.Error()
	}
	if err := ctx.Err(); err != nil { // what Collect left out is not unknown
		return nil, err
	}
	i.suspect(found)
	return i, nil
}

// verify compares the file with its manifest if it shall.
func (i *Inspection) verify(ctx context.Context, env *disk.Envelope, verify bool) error {
	c := &i.Container
	if !verify {
		if c.Integrity = Unverified; !env.HasManifest() {
			c.Integrity = NoManifest
		}
		return nil
	}
	err := env.Verify(ctx, nil)
	var refused *disk.Refusal
	switch {
	case err == nil:
		c.Integrity = Verified
	case errors.Is(err, disk.ErrNoManifest):
		c.Integrity, c.IntegrityWhy = NoManifest, "only OVAs and OVFs bring digests along, and not all of them"
	case errors.As(err, &refused):
		c.Integrity, c.IntegrityWhy = Broken, refused.Error()
	default:
		return fmt.Errorf("verify: %w", err)
	}
	return nil
}

func inspectDisk(d *disk.Disk, f *windows.Disk) Disk {
	out := Disk{Name: d.Name, Format: d.Format, SubFormat: d.SubFormat, FileBytes: d.Length, SizeBytes: d.Size(), SectorSize: f.SectorSize, Scheme: f.Scheme, Partitions: []Partition{}}
	for _, p := range f.Partitions {
		q := Partition{
			Number: p.Number, Type: p.Type, Name: p.Name, Role: string(p.Role), Bootable: p.Bootable,
			StartBytes: p.Start, LengthBytes: p.Length, FileSystem: p.FileSystem,
		}
		if p.Volume != nil {
			v := Volume(*p.Volume)
			q.Volume = &v
		}
		if p.Err != nil {
			q.Error = p.Err.Error()
		}
		out.Partitions = append(out.Partitions, q)
	}
	return out
}

// known turns one of check's facts into one of ours.
func known[T any](k check.Known[T]) Fact[T] {
	if !k.OK() {
		why := k.Why
		if why == "" {
			why = "it was not collected"
		}
		return Fact[T]{From: k.Where(), Unknown: why}
	}
	return Fact[T]{Value: &k.Value, From: k.Where()}
}

// fact makes a known fact.
func fact[T any](value T, from string) Fact[T] { return Fact[T]{Value: &value, From: from} }

// unknown makes one that is not.
func unknown[T any](from string, err error) Fact[T] {
	why := err.Error()
	if errors.Is(err, fs.ErrNotExist) {
		why = "it is not there"
	}
	return Fact[T]{From: from, Unknown: why}
}
