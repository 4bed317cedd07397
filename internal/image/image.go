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
	"strings"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/windows/offline"
)

// Open opens an uploaded file as the one disk that an import takes, by its content. format is what the caller said it is
// ("OVA", "VMDK", …), or "". What is wrong with the file comes as a *Failure.
func Open(path, format string) (*Upload, error) {
	env, err := disk.OpenFile(path, disk.Options{Format: format})
	var r *disk.Refusal
	if format != "" && !strings.EqualFold(format, "RAW") && errors.As(err, &r) && r.Reason == disk.NotADisk {
		return nil, &Failure{fmt.Sprintf("ClientError: Disk validation failed [Unsupported %s File Format: %s]", strings.ToUpper(format), r.Error())}
	}
	if err != nil {
		return nil, failureOf(err)
	}
	if n := len(env.Disks); n != 1 {
		env.Close()
		return nil, &Failure{fmt.Sprintf("ClientError: Disk validation failed [The export has %d disks. A BYOL virtual machine must be on a single volume]", n)}
	}
	return &Upload{Envelope: env, path: path}, nil
}

// Upload is an uploaded file, opened: an export with one disk.
type Upload struct {
	*disk.Envelope
	path string
}

// Disk is the upload's only disk.
func (u *Upload) Disk() disk.Disk { return u.Disks[0] }

// Verify sees that all of the disk is in the file, which may have been cut off on its way, then reads the whole file and
// holds it against the digests that it brings along; a file without any is taken as it is.
func (u *Upload) Verify(ctx context.Context) error {
	for _, err := range u.Disk().Extents() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return failureOf(err)
		}
	}
	if err := u.Envelope.Verify(ctx); err != nil && !errors.Is(err, disk.ErrNoManifest) {
		return failureOf(err)
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
	if r.Format == "OVA" {
		return &Failure{"ClientError: Disk validation failed [OVF file parsing error: " + r.Error() + "]"}
	}
	return &Failure{fmt.Sprintf("ClientError: Disk validation failed [Unsupported %s File Format: %s]", r.Format, r.Error())}
}

// Windows looks for the Windows on the upload's disk: an import without one, or with an encrypted one, is a *Failure.
func (u *Upload) Windows() ([]*offline.System, error) {
	ss, err := offline.Open(u.Envelope)
	if err != nil {
		return nil, failureOf(err)
	}
	return ss, nil
}

// Inspect runs the checks over the Windows on an imported disk.
func Inspect(ctx context.Context, path string, opt check.Options) (check.Report, error) {
	u, err := Open(path, "QCOW2")
	if err != nil {
		return check.Report{}, err
	}
	defer u.Close()
	ss, err := u.Windows()
	if err != nil {
		return check.Report{}, err
	}
	// Several installations on one disk are a finding (MultipleBootPartition), not an error: the first one is judged.
	return check.Run(check.Collect(ctx, ss[0]), opt), nil
}
