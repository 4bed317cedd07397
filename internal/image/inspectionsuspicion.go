package image

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"berth/internal/windows"
	"berth/internal/windows/offline"
)

// Suspicion is something that somebody who wants to use the machine should look at.
type Suspicion struct {
	// Code is one of the Suspicious constants.
	Code string `json:"code"`
	// Where is "disk 0, partition 2", "Windows 1", or "".
	Where string `json:"where,omitempty"`
	// Text is one sentence for people, From what it was told by.
	Text string `json:"text"`
	From string `json:"from,omitempty"`
}

// What can be suspicious.
const (
	SuspiciousDamage       = "Damaged"           // the file does not agree with its manifest
	SuspiciousDirty        = "DirtyVolume"       // chkdsk will run
	SuspiciousEncrypted    = "Encrypted"         // BitLocker, LUKS, VeraCrypt
	SuspiciousMaybe        = "PossiblyEncrypted" // no mark, random bytes
	SuspiciousUnreadable   = "UnreadableVolume"
	SuspiciousSeveral      = "SeveralWindows"
	SuspiciousHibernated   = "Hibernated"     // what is on the disk is not the whole state
	SuspiciousFastStartup  = "FastStartup"    // a shutdown would hibernate
	SuspiciousRename       = "PendingRename"  // files are to be replaced at the next start
	SuspiciousReboot       = "PendingReboot"  // an update waits for a restart
	SuspiciousSetup        = "SetupNotDone"   // Setup or Sysprep is under way, or generalised already
	SuspiciousHive         = "HiveNotCurrent" // stale, damaged, missing, unreadable
	SuspiciousReplay       = "HiveReplayed"   // not shut down cleanly, but mended
	SuspiciousCannotBeTold = "CannotBeTold"   // one of these could not be looked at
)

// suspect goes through what was read, and looks at what makes a Windows that was not shut down and finished.
func (i *Inspection) suspect(found *offline.Found) {
	add := func(code, where, from, format string, a ...any) {
		i.Suspicious = append(i.Suspicious, Suspicion{Code: code, Where: where, From: from, Text: fmt.Sprintf(format, a...)})
	}
	if i.Container.Integrity == Broken {
		add(SuspiciousDamage, "", "", "The file is not as it was exported: %s.", i.Container.IntegrityWhy)
	}
	for n := range found.Disks {
		for _, p := range found.Disks[n].Partitions {
			where := fmt.Sprintf("disk %d, partition %d", n, p.Number)
			if p.Number == 0 {
				where = fmt.Sprintf("disk %d", n)
			}
			switch {
			case errors.Is(p.Err, offline.ErrLooksEncrypted):
				add(SuspiciousMaybe, where, "the first 64 KiB", "The volume is possibly encrypted: it bears no known mark, and its bytes look random.")
			case p.FileSystem == "BitLocker" || p.FileSystem == "LUKS" || p.FileSystem == "VeraCrypt":
				add(SuspiciousEncrypted, where, "the volume's first sectors", "The volume is encrypted by %s.", p.FileSystem)
			case p.Err != nil:
				add(SuspiciousUnreadable, where, "", "It could not be read: %v.", p.Err)
			}
			if p.Volume != nil && p.Volume.Dirty {
				add(SuspiciousDirty, where, "$Volume", "The volume was not taken off cleanly: chkdsk will run when Windows starts.")
			}
		}
	}
	if n := len(i.Windows); n > 1 {
		add(SuspiciousSeveral, "", "the disks", "There are %d installations of Windows.", n)
	}
	for n := range i.Windows {
		where := ""
		if len(i.Windows) > 1 {
			where = fmt.Sprintf("Windows %d", n+1)
		}
		i.Windows[n].suspect(found.Systems[n], func(code, from, format string, a ...any) { add(code, where, from, format, a...) })
	}
}

func (w *Windows) suspect(s *offline.System, add func(code, from, format string, a ...any)) {
	cannot := func(from, why string) { add(SuspiciousCannotBeTold, from, "%s could not be looked at: %s.", from, why) }
	switch h := w.Hibernation; {
	case h.Value == nil:
		cannot(h.From, h.Unknown)
	case *h.Value == "hibernated":
		add(SuspiciousHibernated, h.From, "Windows is hibernated (or Fast Startup left it so): what is on the disk is not its whole state.")
	}
	if f := w.FastStartup; f.Value != nil && *f.Value {
		if _, err := fs.Stat(s.Files(), "hiberfil.sys"); err == nil {
			add(SuspiciousFastStartup, f.From, "Fast Startup is on: a shutdown hibernates Windows instead of ending it.")
		}
	}
	if f := w.Setup; f.Value != nil && *f.Value != "IMAGE_STATE_COMPLETE" {
		add(SuspiciousSetup, f.From, "Windows is not set up to its end, or is generalised already: its state is %s.", *f.Value)
	}
	for _, v := range []struct{ key, name, text string }{
		{`Setup`, "SystemSetupInProgress", "Windows Setup is under way."},
		{`Setup`, "OOBEInProgress", "Windows waits to be set up by its first user."},
	} {
		f := value(s, windows.SystemHive, v.key, v.name, boolean)
		if f.Value != nil && *f.Value {
			add(SuspiciousSetup, f.From, "%s", v.text)
		}
	}
	const tag = "Windows/System32/Sysprep/Sysprep_succeeded.tag"
	if _, err := fs.Stat(s.Files(), tag); err == nil {
		add(SuspiciousSetup, "C:/"+tag, "Sysprep has run here.")
	}
	pendingRename(s, add, cannot)
	for _, path := range []string{
		`Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired`,
		`Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending`,
	} {
		if _, err := openKey(s, windows.Software, path); err == nil {
			add(SuspiciousReboot, hivePath(windows.Software, path), "An update waits for a restart.")
		}
	}
	for _, h := range w.Hives {
		switch h.State {
		case "clean":
		case "replayed":
			add(SuspiciousReplay, h.Name, "The hive %s was not closed cleanly; its log had %d entries, which were taken into account.", h.Name, h.Replayed)
		case "missing":
			add(SuspiciousHive, h.Name, "The hive %s is missing.", h.Name)
		default:
			add(SuspiciousHive, h.Name, "The hive %s is %s: %s.", h.Name, h.State, strings.TrimSuffix(h.Why, "."))
		}
	}
}

// pendingRename looks for files that are to be replaced or deleted at the next start.
func pendingRename(s *offline.System, add func(code, from, format string, a ...any), cannot func(from, why string)) {
	const key, name = control + `Session Manager`, "PendingFileRenameOperations"
	from := hivePath(windows.SystemHive, key, name)
	k, err := openKey(s, windows.SystemHive, key)
	if err != nil {
		cannot(from, err.Error())
		return
	}
	v, err := k.Value(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		cannot(from, err.Error())
	case len(v.Data) > 4: // a list of nothing is one or two NULs
		add(SuspiciousRename, from, "Files are to be replaced or deleted when Windows starts.")
	}
}
