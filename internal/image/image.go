// Package image turns a foreign disk into an image that desktops are cloned from: the import's refusals, the conversion to
// qcow2, and the look inside with the checks.
//
// It knows no API, no database and no task: desk calls it, one idempotent piece at a time. It does not run desktops, and it
// never writes to the disk that it was given. Start reading at [Open], then [Convert] and [Inspect].
package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"berth/internal/disk"
	"berth/internal/windows"
	"berth/internal/windows/offline"
)

// File is one file of an export, as it was uploaded.
type File struct {
	// Name is the bare name by which a descriptor among the other files may refer to it (an OVF to its disks, a VMDK to its
	// extents). "" when nothing does.
	Name string
	// Path is where it is here.
	Path string
	// Format is what the caller said it is ("OVA", "VMDK", …), or "".
	Format string
}

// Open opens the files of an export by their content: an OVA, disks, an OVF or a split VMDK with the files that it names, or
// several of them. What is wrong with a file comes as a *Failure.
func Open(files ...File) (_ *Upload, err error) {
	u := &Upload{Envelope: &disk.Envelope{}, files: files}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.Close())
			if f := new(Failure); errors.As(err, &f) {
				err = f
			}
		}
	}()
	// A file that another one names is part of that one, and no disk of its own, whatever it looks like.
	part := make([]bool, len(files))
	errs := make([]error, len(files))
	u.opened = make([]*disk.Envelope, len(files))
	for i := range files {
		u.opened[i], errs[i] = u.open(i, part)
	}
	for i, env := range u.opened {
		if part[i] {
			continue
		}
		if err := errs[i]; err != nil {
			var r *disk.Refusal
			if format := files[i].Format; format != "" && !strings.EqualFold(format, "RAW") && errors.As(err, &r) && r.Reason == disk.NotADisk {
				return nil, &Failure{fmt.Sprintf("ClientError: Disk validation failed [Unsupported %s File Format: %s]", strings.ToUpper(format), r.Error())}
			}
			return nil, failureOf(err)
		}
		if u.Format == "" {
			u.Format, u.Hardware = env.Format, env.Hardware
		}
		u.Warnings = append(u.Warnings, env.Warnings...)
		for _, d := range env.Disks {
			if len(files) > 1 && d.Name == "" {
				d.Name = files[i].Name
			}
			u.Disks = append(u.Disks, d)
			u.From = append(u.From, i)
		}
	}
	switch n := len(u.Disks); {
	case n == 0:
		return nil, &Failure{"ClientError: Disk validation failed [The export has no disk]"}
	case n > MaxDisks:
		return nil, &Failure{fmt.Sprintf("ClientError: Disk validation failed [The export has %d disks; %d can be imported]", n, MaxDisks)}
	}
	return u, nil
}

// MaxDisks is how many disks a machine may have (VM Import: "VMs with more than 21 volumes are not supported").
const MaxDisks = 21

// open opens the i-th file, and marks in part those that it names.
func (u *Upload) open(i int, part []bool) (*disk.Envelope, error) {
	f := u.files[i]
	return disk.OpenFile(f.Path, disk.Options{Format: f.Format, Name: f.Name, Siblings: func(name string) (disk.Source, error) {
		for j, other := range u.files {
			if j == i || other.Name != name || name == "" {
				continue
			}
			folder, err := os.OpenRoot(filepath.Dir(other.Path))
			if err != nil {
				return nil, err
			}
			defer folder.Close()
			part[j] = true
			return disk.SiblingsIn(folder)(filepath.Base(other.Path))
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}})
}

// Upload is an export, opened. Its Envelope has the disks of all files.
type Upload struct {
	*disk.Envelope
	// From tells for each disk the index of the file that it came in.
	From []int

	files  []File
	opened []*disk.Envelope // of each file; nil: it is none by itself
}

// Close closes the files.
func (u *Upload) Close() error {
	var errs []error
	for _, e := range u.opened {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	return errors.Join(errs...)
}

// Verify sees that all of the disks is in the files, which may have been cut off on their way, then reads the files whole and
// holds them against the digests that they bring along; a file without any is taken as it is. progress is told how many of the
// bytes have been read that there are digests of; an error from it ends the reading with that error.
func (u *Upload) Verify(ctx context.Context, progress func(done, size int64) error) error {
	for _, d := range u.Disks {
		for _, err := range d.Extents() {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return failureOf(err)
			}
		}
	}
	var before, read int64 // of envelopes that are done
	for _, e := range u.opened {
		if e == nil || !e.HasManifest() {
			continue
		}
		err := e.Verify(ctx, func(done, size int64) error {
			read = size
			return progress(before+done, before+size)
		})
		if err != nil {
			return failureOf(err)
		}
		before += read
	}
	return nil
}

// Failure is an import that cannot succeed because of its input, in the words of VM Import's StatusMessage.
type Failure struct{ StatusMessage string }

func (f *Failure) Error() string { return f.StatusMessage }

// failureOf puts a refusal of a disk in VM Import's words (facts §12); other errors stay what they are.
func failureOf(err error) error {
	var r *disk.Refusal
	var enc *offline.EncryptedError
	var managed *offline.ManagedError
	var unreadable *offline.UnreadableError
	switch {
	case errors.As(err, &enc):
		return &Failure{"ClientError: Disk validation failed [Importing a VM with an encrypted disk is not supported: " + enc.Error() + "]"}
	case errors.Is(err, offline.ErrNoWindows):
		return &Failure{"ClientError: Unknown OS / Missing OS files. [" + err.Error() + "]"}
	case errors.As(err, &managed), errors.As(err, &unreadable):
		return &Failure{"ClientError: No valid partitions. Not a valid volume. [" + err.Error() + "]"}
	case !errors.As(err, &r):
		return err
	}
	switch r.Reason {
	case disk.Chunked:
		return &Failure{"ClientError: Disk validation failed [OVF file parsing error: OVA with chunked disk files is not supported]"}
	case disk.Encrypted:
		return &Failure{"ClientError: Disk validation failed [Importing a VM with an encrypted disk is not supported: " + r.Error() + "]"}
	case disk.NotADisk:
		return &Failure{"ClientError: No valid partitions. Not a valid volume. [" + r.Error() + "]"}
	}
	// VM Import's own words for two kinds of damage.
	switch {
	case r.Format == "VHD" && strings.HasPrefix(r.Detail, "footers not identical"):
		return &Failure{"ClientError: Footers not identical [" + r.Error() + "]"}
	case r.Format == "VMDK" && r.Field == "grain" && strings.HasPrefix(r.Detail, "inflated to "):
		return &Failure{"ClientError: Uncompressed data has an invalid length [" + r.Error() + "]"}
	}
	if r.Format == "OVA" || r.Format == "OVF" {
		return &Failure{"ClientError: Disk validation failed [OVF file parsing error: " + r.Error() + "]"}
	}
	return &Failure{fmt.Sprintf("ClientError: Disk validation failed [Unsupported %s File Format: %s]", r.Format, r.Error())}
}

// Windows looks for the Windows on the upload's disks: an import without one, or with an encrypted one, is a *Failure.
func (u *Upload) Windows() ([]*offline.System, error) {
	ss, err := offline.Open(u.Envelope)
	if err != nil {
		return nil, failureOf(err)
	}
	return ss, nil
}

// Machine is what an import finds out about the machine on its disks.
type Machine struct {
	// Root is the index of the disk that holds Windows; the others hold data.
	Root int
	// BootMode is EC2's word for how it boots, "legacy-bios" or "uefi"; "" when no boot loader was found.
	BootMode string
	// Architecture is EC2's word for its processor: "x86_64", "i386", "arm64".
	Architecture string
	// Server: it is an edition of Windows Server.
	Server bool
}

// Machine looks at the Windows on the upload's disks; of several it takes the first, which the checks tell about later. What
// keeps a machine from being imported is a *Failure.
func (u *Upload) Machine() (Machine, error) {
	ss, err := u.Windows()
	if err != nil {
		return Machine{}, err
	}
	s := ss[0]
	m := Machine{BootMode: map[string]string{"bios": "legacy-bios", "uefi": "uefi"}[s.Machine().Firmware]}
	m.Root, _, _ = s.Location()
	if i := otherBootDisk(s.Machine().Disks, m.Root); i >= 0 {
		return m, &Failure{fmt.Sprintf("ClientError: No valid partitions. Not a valid volume. [The boot loader is on disk %d and Windows on disk %d; both must be on one]", i+1, m.Root+1)}
	}
	processor, err := systemText(s, `CurrentControlSet\Control\Session Manager\Environment`, "PROCESSOR_ARCHITECTURE")
	if err != nil {
		return m, &Failure{"ClientError: Unknown OS / Missing OS files. [" + err.Error() + "]"}
	}
	m.Architecture = map[string]string{"AMD64": "x86_64", "X86": "i386", "ARM64": "arm64"}[strings.ToUpper(processor)]
	switch m.Architecture {
	case "":
		return m, &Failure{fmt.Sprintf("ClientError: Unknown OS / Missing OS files. [Windows is made for the processor %s]", Printable(processor))}
	case "arm64":
		return m, &Failure{"ClientError: Unknown OS / Missing OS files. [Windows for ARM64 is not supported]"}
	}
	product, err := systemText(s, `CurrentControlSet\Control\ProductOptions`, "ProductType")
	if err != nil {
		return m, &Failure{"ClientError: Unknown OS / Missing OS files. [" + err.Error() + "]"}
	}
	m.Server = !strings.EqualFold(product, "WinNT") // facts.go in check
	return m, nil
}

// otherBootDisk is the index of the disk that a machine boots from where that is not the one with Windows; else -1.
func otherBootDisk(disks []windows.Disk, root int) int {
	other := -1
	for i, d := range disks {
		for _, p := range d.Partitions {
			boots := p.Role == windows.RoleBoot || p.Role == windows.RoleSystem && p.Bootable
			switch {
			case boots && i == root:
				return -1
			case boots && other < 0:
				other = i
			}
		}
	}
	return other
}

// systemText reads a text from the SYSTEM hive.
func systemText(s windows.System, key, name string) (string, error) {
	k, err := s.Open(windows.SystemHive, key)
	if err != nil {
		return "", fmt.Errorf("SYSTEM\\%s cannot be read: %w", key, err)
	}
	v, err := k.Value(name)
	if err != nil {
		return "", fmt.Errorf("SYSTEM\\%s\\%s cannot be read: %w", key, name, err)
	}
	t, err := text(v)
	if err != nil {
		return "", fmt.Errorf("SYSTEM\\%s\\%s: %w", key, name, err)
	}
	return t, nil
}
