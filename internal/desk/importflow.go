package desk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/uptrace/bun"

	"berth/internal/image"
	"berth/internal/s3"
)

// importDisk makes a snapshot, and for ImportImage an AMI, of an uploaded disk.
var importDisk = flow{
	name: "import-disk",
	steps: []step{
		{"stage", (*Desk).stageImport},
		{"validate", (*Desk).validateImport},
		{"convert", (*Desk).convertImport},
		{"register", (*Desk).registerImport},
		{"finish", (*Desk).finishImport},
	},
	fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
		r, err := d.importTask(ctx, id)
		if err != nil {
			return err
		}
		err = errors.Join(os.RemoveAll(d.file("imports", id)), removeIfThere(d.snapshotFile(r.SnapshotID)))
		if err != nil {
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

// snapshotFile is where a snapshot's disk is: a standalone qcow2 that never changes.
func (d *Desk) snapshotFile(id string) string { return d.file("snapshots", id+".qcow2") }

// uploadFile is where a task's upload is while the task goes on.
func (d *Desk) uploadFile(id string) string { return d.file("imports", id, "upload") }

// advance writes how far a task is, unless it has been cancelled: then it ends with that failure.
func (d *Desk) advance(ctx context.Context, id, status, message string, percent int) error {
	res, err := d.db.NewUpdate().Model((*importRecord)(nil)).Set("status = ?, status_message = ?, progress = ?", status, message, percent).
		Where("id = ? AND NOT cancel_requested", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("desk: %w", err)
	} else if n == 0 {
		return errCancelled
	}
	return nil
}

// whileWanted is a context for work that does not tell how it goes: it ends, with errCancelled as its cause, when the task
// is cancelled.
func (d *Desk) whileWanted(ctx context.Context, id string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			if r, err := d.importTask(ctx, id); err == nil && r.CancelRequested {
				cancel(errCancelled)
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// progress spreads a part of the work over percentages of the task, writing at most once in a second.
func (d *Desk) progress(ctx context.Context, id, status, message string, from, to int) func(fraction float64) error {
	var last time.Time
	return func(fraction float64) error {
		if now := time.Now(); now.Sub(last) >= time.Second {
			last = now
			return d.advance(ctx, id, status, message, from+int(fraction*float64(to-from)))
		}
		return ctx.Err()
	}
}

func (d *Desk) stageImport(ctx context.Context, id string) error {
	if err := d.advance(ctx, id, taskActive, "pending", 2); err != nil {
		return err
	}
	r, err := d.importTask(ctx, id)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.file("imports", id), 0o700); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	dst := d.uploadFile(id)
	if r.Bucket == "" {
		return d.stageSnapshot(ctx, r.Key, dst)
	}
	info, err := d.cfg.Objects.Stat(ctx, r.Bucket, r.Key)
	switch {
	case errors.Is(err, s3.ErrNoSuchBucket), errors.Is(err, s3.ErrNoSuchKey):
		return &failure{Code: "ClientError", Message: "ClientError: Disk validation failed [We do not have access to the given resource. Reason 404 Not Found: there is no " + r.source() + "]"}
	case errors.Is(err, s3.ErrAccessDenied):
		return &failure{Code: "ClientError", Message: "ClientError: Disk validation failed [We do not have access to the given resource. Reason 403 Forbidden]"}
	case err != nil:
		return fmt.Errorf("desk: %w", err)
	}
	if _, err := d.db.NewUpdate().Model(r).Set("disk_bytes = ?", info.Size).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tell := d.progress(ctx, id, taskActive, "pending", 2, 15)
	err = d.cfg.Objects.Stage(ctx, r.Bucket, r.Key, dst, func(done, total int64) {
		if err := tell(float64(done) / float64(max(total, 1))); err != nil {
			cancel(err)
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
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
	return os.Link(d.snapshotFile(snapshot), dst)
}

func (d *Desk) snapshotExists(ctx context.Context, id string) (bool, error) {
	n, err := d.db.NewSelect().Model((*snapshotRecord)(nil)).Where("id = ?", id).Count(ctx)
	if err != nil {
		return false, fmt.Errorf("desk: %w", err)
	}
	return n > 0, nil
}

func (d *Desk) validateImport(ctx context.Context, id string) error {
	if err := d.advance(ctx, id, taskValidating, "validating", 16); err != nil {
		return err
	}
	r, u, err := d.openUpload(ctx, id)
	if err != nil {
		return err
	}
	defer u.Close()
	reading, done := d.whileWanted(ctx, id)
	defer done()
	if err := u.Verify(reading); context.Cause(reading) != nil {
		return context.Cause(reading)
	} else if err != nil {
		return imported(err)
	}
	r.DiskFormat = u.Envelope.Format
	if r.Kind == importsImage {
		ss, err := u.Windows()
		if err != nil {
			return imported(err)
		}
		m := ss[0].Machine()
		boot := map[string]string{"bios": "legacy-bios", "uefi": "uefi"}[m.Firmware]
		switch {
		case boot != "" && r.BootMode != "" && boot != r.BootMode:
			return &failure{Code: "ClientError", Message: fmt.Sprintf("ClientError: Disk validation failed [The boot mode %s was asked for, but the disk boots by %s]", r.BootMode, boot)}
		case boot != "":
			r.BootMode = boot
		case r.BootMode == "":
			return &failure{Code: "ClientError", Message: "ClientError: No valid partitions. Not a valid volume. [No boot loader was found for BIOS or UEFI; give BootMode to import the disk all the same]"}
		}
	}
	if _, err := d.db.NewUpdate().Model(r).Column("disk_format", "boot_mode").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	return d.advance(ctx, id, taskValidated, "validated", 20)
}

// openUpload opens a task's upload as package image sees it.
func (d *Desk) openUpload(ctx context.Context, id string) (*importRecord, *image.Upload, error) {
	r, err := d.importTask(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	format := r.Format
	if r.Bucket == "" {
		format = "QCOW2" // one of our snapshots, whatever the caller called it
	}
	u, err := image.Open(d.uploadFile(id), format)
	return r, u, imported(err)
}

// imported makes the failure of an import out of image's.
func imported(err error) error {
	var f *image.Failure
	if errors.As(err, &f) {
		return &failure{Code: "ClientError", Message: f.StatusMessage}
	}
	return err
}

func (d *Desk) convertImport(ctx context.Context, id string) error {
	if err := d.advance(ctx, id, taskConverting, "converting", 28); err != nil {
		return err
	}
	r, u, err := d.openUpload(ctx, id)
	if err != nil {
		return err
	}
	defer u.Close()
	target := d.snapshotFile(r.SnapshotID)
	if _, err := os.Stat(target); err == nil {
		return nil // a conversion appears whole or not at all: it has been done
	}
	tell := d.progress(ctx, id, taskConverting, "converting", 28, 76)
	return imported(u.Convert(ctx, target, func(percent float64) error { return tell(percent / 100) }))
}

func (d *Desk) registerImport(ctx context.Context, id string) error {
	message := "preparing ami"
	r, err := d.importTask(ctx, id)
	if err != nil {
		return err
	}
	if r.Kind == importsSnapshot {
		message = "preparing snapshot"
	}
	if err := d.advance(ctx, id, taskUpdating, message, 85); err != nil {
		return err
	}
	c, err := image.Open(d.snapshotFile(r.SnapshotID), "QCOW2")
	if err != nil {
		return err
	}
	size := c.Disk().Size()
	c.Close()
	return d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		s := &snapshotRecord{ID: r.SnapshotID, TaskID: r.ID, Description: "Created by Berth for " + r.ID, SizeBytes: size, CreatedAt: d.now()}
		if _, err := tx.NewInsert().Model(s).On("CONFLICT (id) DO NOTHING").Exec(ctx); err != nil || r.Kind == importsSnapshot {
			return err
		}
		m := &machineImageRecord{ID: r.ImageID, TaskID: r.ID, SnapshotID: r.SnapshotID, Name: r.ID, Description: firstOf(r.Description, "Imported by Berth from "+r.source()),
			Architecture: r.Architecture, BootMode: r.BootMode, CreatedAt: d.now()}
		_, err := tx.NewInsert().Model(m).On("CONFLICT (id) DO NOTHING").Exec(ctx)
		return err
	})
}

func (d *Desk) finishImport(ctx context.Context, id string) error {
	if err := os.RemoveAll(d.file("imports", id)); err != nil {
		return fmt.Errorf("desk: %w", err)
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
