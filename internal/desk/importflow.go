package desk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/uptrace/bun"

	"berth/internal/image"
	"berth/internal/s3"
)

// importDisk makes a snapshot, and for ImportImage an AMI, of an uploaded disk.
var importDisk = flow{
	name: "import-disk",
	steps: []step{
		stage{"stage", taskActive, "pending", 2, false, (*Desk).stageImport}.step(),
		stage{"validate", taskValidating, "validating", 16, true, (*Desk).validateImport}.step(),
		stage{"convert", taskConverting, "converting", 28, true, (*Desk).convertImport}.step(),
		stage{"register", taskUpdating, "preparing ami", 85, false, (*Desk).registerImport}.step(),
		{"finish", (*Desk).finishImport},
	},
	fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
		r, err := d.importTask(ctx, id)
		if err != nil {
			return err
		}
		if err := d.letGo(ctx, r.ID); err != nil {
			return err
		}
		if _, err := d.collect(ctx); err != nil {
			return err
		}
		q := d.db.NewUpdate().Model((*importRecord)(nil)).Set("status = ?", taskDeleted).Where("id = ?", id)
		if f.Code != cancelled {
			q.Set("status_message = ?", f.Message)
		}
		_, err = q.Exec(ctx)
		return err
	},
	pending: func(d *Desk, ctx context.Context) ([]work, error) {
		var ws []work
		err := d.db.NewSelect().Model((*importRecord)(nil)).ColumnExpr("id").Where("status NOT IN (?)", bun.List([]string{taskCompleted, taskDeleted})).Scan(ctx, &ws)
		return ws, err
	},
}

// cancelled is the failure of a task that its owner gave up. It is told apart from the others by this code.
const cancelled = "Cancelled"

var errCancelled = &failure{Code: cancelled, Message: "The import was cancelled."}

// uploadFile is where one of a task's files is while the task goes on.
func (d *Desk) uploadFile(id string, source int) string {
	return d.file("imports", id, strconv.Itoa(source))
}

// diskFile is where one of a task's disks is made.
func (d *Desk) diskFile(id string, number int) string {
	return d.file("imports", id, fmt.Sprintf("disk-%d.qcow2", number))
}

func (d *Desk) stageImport(ctx context.Context, r *importRecord) error {
	if err := os.MkdirAll(d.file("imports", r.ID), 0o700); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	var total int64
	shares, _ := d.cfg.Objects.(interface{ Shares(bucket string) bool })
	for i := range r.Sources {
		s := &r.Sources[i]
		s.RoomBytes = 0
		if s.FromSnapshot == "" {
			if r.WaitsFor == "" { // and not the trouble for which this is a new try
				if err := d.waits(ctx, r.ID, s.String()+": its answer"); err != nil {
					return err
				}
			}
			if err := d.find(ctx, s); err != nil {
				return err
			}
		}
		total += s.FileBytes
		if s.FromSnapshot == "" && (s.Bucket == "" || shares == nil || !shares.Shares(s.Bucket)) {
			s.RoomBytes = s.FileBytes
		}
	}
	// What is fetched lies beside the disks that are made of it until those are complete.
	if err := d.reserve(ctx, r, "the upload of "+r.source()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var before int64
	for i := range r.Sources {
		s := &r.Sources[i]
		dst := d.uploadFile(r.ID, s.Number)
		if s.FromSnapshot != "" {
			if err := d.stageSnapshot(ctx, s.FromSnapshot, dst); err != nil {
				return err
			}
			continue
		}
		tell := d.progress(ctx, r.ID, taskActive, "pending", 2, 15) // a new one, which tells at once
		err := d.fetch(ctx, s, dst, func(done, size int64) {
			waits := fmt.Sprintf("%s: %s of %s", s, sizeText(done), sizeText(size))
			if err := tell(float64(before+done)/float64(max(total, 1)), waits); err != nil {
				cancel(err)
			}
		})
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			return refusedSource(s, err)
		}
		before += s.FileBytes
	}
	return nil
}

// find looks for a source's file, and keeps what it was when it was seen first: another one in its place is not taken.
func (d *Desk) find(ctx context.Context, s *importSource) error {
	info, err := d.stat(ctx, s)
	if err != nil {
		return refusedSource(s, err)
	}
	if s.ETag != "" && (info.ETag != s.ETag || info.Size != s.FileBytes) {
		return &failure{Code: "ClientError", Message: fmt.Sprintf("ClientError: Disk validation failed [%s was changed while it was read. Import it again]", s)}
	}
	s.FileBytes, s.ETag = info.Size, info.ETag
	if _, err := d.db.NewUpdate().Model(s).Column("file_bytes", "etag").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	return nil
}

// refusedSource is the failure that a source's answer means, or the trouble that may pass.
func refusedSource(s *importSource, err error) error {
	var refusal *s3.Refusal
	switch {
	case errors.Is(err, s3.ErrPreconditionFailed): // another file is there now, which the next look will tell
		return &sourceError{s, err}
	case errors.Is(err, s3.ErrNoSuchBucket), errors.Is(err, s3.ErrNoSuchKey):
		return &failure{Code: "ClientError", Message: fmt.Sprintf("ClientError: Disk validation failed [We do not have access to the given resource. Reason 404 Not Found: there is no %s]", s)}
	case errors.Is(err, s3.ErrAccessDenied):
		why := ""
		if errors.As(err, &refusal); refusal.Message != s3.ErrAccessDenied.Message && s.Bucket == "" {
			why = ": " + refusal.Message
		}
		return &failure{Code: "ClientError", Message: "ClientError: Disk validation failed [We do not have access to the given resource. Reason 403 Forbidden" + why + "]"}
	case errors.As(err, &refusal) && refusal.Status < http.StatusInternalServerError:
		return &failure{Code: "ClientError", Message: fmt.Sprintf("ClientError: Disk validation failed [%s: %s]", s, refusal.Message)}
	}
	return &sourceError{s, err}
}

// stageSnapshot makes a snapshot the source of an import, by a link: its bytes never change.
func (d *Desk) stageSnapshot(ctx context.Context, snapshot, dst string) error {
	if ok, err := d.snapshotExists(ctx, snapshot); err != nil {
		return err
	} else if !ok {
		return &failure{Code: "ClientError", Message: "ClientError: Disk validation failed [The snapshot '" + snapshot + "' does not exist]"}
	}
	if err := removeIfThere(dst); err != nil {
		return err
	}
	r, err := d.snapshot(ctx, snapshot)
	if err != nil {
		return err
	}
	return os.Link(d.storedFile(r.Digest), dst)
}

func (d *Desk) snapshotExists(ctx context.Context, id string) (bool, error) {
	n, err := d.db.NewSelect().Model((*snapshotRecord)(nil)).Where("id = ?", id).Count(ctx)
	if err != nil {
		return false, fmt.Errorf("desk: %w", err)
	}
	return n > 0, nil
}

func (d *Desk) validateImport(ctx context.Context, r *importRecord) error {
	u, err := d.openUpload(r)
	if err != nil {
		return err
	}
	defer u.Close()
	tell := d.progress(ctx, r.ID, taskValidating, "validating", 16, 20)
	err = u.Verify(ctx, func(done, size int64) error {
		return tell(float64(done)/float64(max(size, 1)), fmt.Sprintf("the digests of %s: %s of %s", r.source(), sizeText(done), sizeText(size)))
	})
	if err != nil {
		return imported(err)
	}
	root := 0
	if r.Kind == importsImage {
		m, err := u.Machine()
		if err != nil {
			return imported(err)
		}
		if err := r.agree(m); err != nil {
			return err
		}
		root = m.Root
	} else if n := len(u.Disks); n > 1 {
		return &failure{Code: "ClientError", Message: fmt.Sprintf("ClientError: Disk validation failed [A snapshot is of one disk; the export has %d. Import it as an image]", n)}
	}
	if err := d.keepDisks(ctx, r, u, root); err != nil {
		return err
	}
	return d.advance(ctx, r.ID, taskValidated, "validated", 20, "")
}

// agree holds what the caller said of the machine against what its disk shows, and takes over what the disk shows.
func (r *importRecord) agree(m image.Machine) error {
	bad := func(format string, a ...any) error {
		return &failure{Code: "ClientError", Message: "ClientError: Disk validation failed [" + fmt.Sprintf(format, a...) + "]"}
	}
	switch {
	case m.BootMode == "" && r.BootMode == "":
		return &failure{Code: "ClientError", Message: "ClientError: No valid partitions. Not a valid volume. [No boot loader was found for BIOS or UEFI; give BootMode to import the disk all the same]"}
	case m.BootMode != "" && r.BootMode != "" && m.BootMode != r.BootMode:
		return bad("The boot mode %s was asked for, but the disk boots by %s", r.BootMode, m.BootMode)
	case r.Architecture != "" && r.Architecture != m.Architecture:
		return bad("The architecture %s was asked for, but Windows is made for %s", r.Architecture, m.Architecture)
	case r.LicenseType == licenseAWS && !m.Server:
		return bad("Windows for clients can only be imported with the license type %s", licenseBYOL)
	case r.LicenseType == "" && m.Server:
		r.LicenseType = licenseAWS
	case r.LicenseType == "":
		r.LicenseType = licenseBYOL
	}
	r.BootMode, r.Architecture = firstOf(m.BootMode, r.BootMode), m.Architecture
	return nil
}

// keepDisks writes what the disks are on the task's record, once.
func (d *Desk) keepDisks(ctx context.Context, r *importRecord, u *image.Upload, root int) error {
	var disks []importedDisk
	data := 0
	for i, x := range u.Disks {
		k := importedDisk{TaskID: r.ID, Number: i + 1, Source: r.Sources[u.From[i]].Number, Format: x.Format, DeviceName: rootDevice, SizeBytes: x.Size(), SnapshotID: d.ec2ID("snap-")}
		if u.Format == "OVA" {
			k.FileBytes = x.Length
		}
		if i != root {
			k.DeviceName = fmt.Sprintf("/dev/sd%c", firstDataDevice+data)
			data++
		}
		disks = append(disks, k)
	}
	return d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(&disks).On("CONFLICT (task_id, number) DO NOTHING").Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		_, err := tx.NewUpdate().Model(r).Column("boot_mode", "architecture", "license_type").WherePK().Exec(ctx)
		return err
	})
}

// openUpload opens a task's files as package image sees them.
func (d *Desk) openUpload(r *importRecord) (*image.Upload, error) {
	var files []image.File
	for _, s := range r.Sources {
		f := image.File{Name: s.name(), Path: d.uploadFile(r.ID, s.Number), Format: s.Format}
		if s.FromSnapshot != "" {
			f.Format = "QCOW2" // one of our snapshots, whatever the caller called it
		}
		files = append(files, f)
	}
	u, err := image.Open(files...)
	return u, imported(err)
}

// imported makes the failure of an import out of image's.
func imported(err error) error {
	var f *image.Failure
	if errors.As(err, &f) {
		return &failure{Code: "ClientError", Message: f.StatusMessage}
	}
	return err
}

func (d *Desk) convertImport(ctx context.Context, r *importRecord) error {
	u, err := d.openUpload(r)
	if err != nil {
		return err
	}
	defer u.Close()
	var total, before int64
	for i := range r.Disks {
		x := &r.Disks[i]
		if x.RoomBytes, err = u.RoomBytes(i); err != nil {
			return imported(err)
		}
		total += x.SizeBytes
	}
	if err := d.reserve(ctx, r, "the disks of "+r.source()); err != nil {
		return err
	}
	// Converting is the most of it; the rest is to read what came of it.
	const most = 0.9
	tell := d.progress(ctx, r.ID, taskConverting, "converting", 28, 76)
	for i, x := range r.Disks {
		if x.Digest != nil {
			before += x.SizeBytes
			continue
		}
		target := d.diskFile(r.ID, x.Number)
		// A snapshot is of a disk, whatever is on it.
		told := 0
		made, err := u.Convert(ctx, i, target, image.Layouts[d.cfg.ImageLayout], d.cfg.ImportWhole || r.Kind == importsSnapshot, func(percent float64) error {
			if p := int(percent); p >= told+10 { // of the disk, in its own detail
				told = p
				if _, err := d.db.NewUpdate().Model(&x).Set("progress = ?", p).WherePK().Exec(ctx); err != nil {
					return fmt.Errorf("desk: %w", err)
				}
			}
			done := float64(before) + most*percent/100*float64(x.SizeBytes)
			return tell(done/float64(max(total, 1)), fmt.Sprintf("disk %d of %d, %.0f %%", i+1, len(r.Disks), percent))
		})
		if err != nil {
			return imported(err)
		}
		if made.Resumed > 0 {
			d.log.Info("a conversion was gone on with", "id", r.ID, "disk", x.Number, "from", made.Resumed, "of", x.SizeBytes)
		}
		read := float64(before) + most*float64(x.SizeBytes) // does not fall back while a second file is read
		check := func(what string, done, size int64) error {
			if done == 0 { // something new is waited for, which is told at once
				tell = d.progress(ctx, r.ID, taskConverting, "converting", 28, 76)
			}
			read = max(read, float64(before)+(most+(1-most)*float64(done)/float64(max(size, 1)))*float64(x.SizeBytes))
			return tell(read/float64(max(total, 1)), fmt.Sprintf("disk %d of %d, %s: %s of %s", i+1, len(r.Disks), what, sizeText(done), sizeText(size)))
		}
		err = d.keep(ctx, target, &storedRecord{Digest: made.Digest, SizeBytes: x.SizeBytes}, check, func(ctx context.Context, tx bun.Tx) error {
			_, err := tx.NewUpdate().Model(&x).Set("progress = 100").Set("digest = ?", made.Digest).Set("note = ?", leftOut(made)).WherePK().Exec(ctx)
			return err
		})
		if err != nil {
			return err
		}
		before += x.SizeBytes
	}
	return nil
}

func (d *Desk) registerImport(ctx context.Context, r *importRecord) error {
	return d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		root, data := "", []machineImageDisk{}
		for _, x := range r.Disks {
			s := &snapshotRecord{ID: x.SnapshotID, TaskID: r.ID, Description: "Created by Berth for " + r.ID, SizeBytes: x.SizeBytes, Digest: aws.ToString(x.Digest), CreatedAt: d.now()}
			if _, err := insertNew(ctx, tx, s, "id"); err != nil {
				return err
			}
			if x.DeviceName == rootDevice {
				root = x.SnapshotID
			} else {
				data = append(data, machineImageDisk{ImageID: r.ImageID, DeviceName: x.DeviceName, SnapshotID: x.SnapshotID})
			}
		}
		if r.Kind == importsSnapshot {
			return nil
		}
		m := &machineImageRecord{ID: r.ImageID, TaskID: r.ID, SnapshotID: root, Name: r.ID, Description: firstOf(r.Description, "Imported by Berth from "+r.source()),
			Architecture: r.Architecture, BootMode: r.BootMode, LicenseType: r.LicenseType, CreatedAt: d.now()}
		if fresh, err := insertNew(ctx, tx, m, "id"); err != nil || !fresh || len(data) == 0 {
			return err
		}
		_, err := tx.NewInsert().Model(&data).Exec(ctx)
		return err
	})
}

// leftOut tells what a copy left out of its disk, or why nothing.
func leftOut(made image.Converted) string {
	var said []string
	if made.LeftOut > 0 {
		said = append(said, sizeText(made.LeftOut)+" that Windows does not need were left out")
	}
	for _, why := range made.Kept {
		said = append(said, "nothing was left out: "+image.Printable(why))
	}
	return strings.Join(said, "; ")
}

// letGo lets a task's files go, and the disks as far as only the task refers to them.
func (d *Desk) letGo(ctx context.Context, id string) error {
	if err := os.RemoveAll(d.file("imports", id)); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	return d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewUpdate().Model((*importSource)(nil)).Set("room_bytes = 0").Where("task_id = ?", id).Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		if _, err := tx.NewUpdate().Model((*importedDisk)(nil)).Set("digest = NULL, room_bytes = 0").Where("task_id = ?", id).Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		return nil
	})
}

func (d *Desk) finishImport(ctx context.Context, id string) error {
	if err := d.letGo(ctx, id); err != nil {
		return err
	}
	_, err := d.db.NewUpdate().Model((*importRecord)(nil)).Set("status = ?, status_message = '', progress = 100", taskCompleted).Where("id = ?", id).Exec(ctx)
	return err
}

// removeIfThere removes a file; it is no error when there is none.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("desk: %w", err)
	}
	return nil
}

// firstOf is the first of the texts that is not empty.
func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
