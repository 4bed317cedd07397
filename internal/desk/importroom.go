package desk

import (
	"context"
	"fmt"
	"os"

	"github.com/uptrace/bun"
	"golang.org/x/sys/unix"

	"berth/internal/image"
)

// The room of imports. Before its first byte, a stage writes down on its task's rows what each file that it makes may take in
// the end (importSource.RoomBytes, importedDisk.RoomBytes), if there is that much besides what all other imports under way have
// written down and not taken yet. Nothing else counts: the rows are there after a crash, and letGo clears them with the files.

// reserve takes the room that a task's rows ask for, or is the failure that says why not; what names it. A disk that is kept
// already counts by what it takes.
func (d *Desk) reserve(ctx context.Context, r *importRecord, what string) error {
	d.reserving.Lock()
	defer d.reserving.Unlock()
	others, err := d.importsWithRoom(ctx, r.ID)
	if err != nil {
		return err
	}
	if err := d.withinQuota(ctx, r, what); err != nil {
		return err
	}
	// What is there of a file is looked at before what is free: what comes in between is counted twice rather than not at all.
	own := d.untaken(r)
	var promised int64
	for i := range others {
		promised += d.untaken(&others[i])
	}
	free, err := d.free(d.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	if own > 0 && own > free-promised-d.cfg.KeepFree {
		kept := ""
		if d.cfg.KeepFree > 0 {
			kept = " and keeps " + sizeText(d.cfg.KeepFree) + " of it free"
		}
		return &failure{Code: "ServerError", Message: fmt.Sprintf("ServerError: Insufficient storage. [%s may take %s; the service has %s left%s%s]",
			what, sizeText(own), sizeText(free), promisedText(promised), kept)}
	}
	return d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		for i := range r.Sources {
			if _, err := tx.NewUpdate().Model(&r.Sources[i]).Column("room_bytes").WherePK().Exec(ctx); err != nil {
				return fmt.Errorf("desk: %w", err)
			}
		}
		for i := range r.Disks {
			if _, err := tx.NewUpdate().Model(&r.Disks[i]).Column("room_bytes").WherePK().Exec(ctx); err != nil {
				return fmt.Errorf("desk: %w", err)
			}
		}
		return nil
	})
}

// withinQuota refuses a task's disks that the quota has no room for.
func (d *Desk) withinQuota(ctx context.Context, r *importRecord, what string) error {
	var kept int64
	for _, x := range r.Disks {
		if x.Digest == nil {
			kept += x.RoomBytes
		}
	}
	return d.quotaFor(ctx, kept, what+" may take", r.ID)
}

// overlayWithinQuota refuses what was mended of a disk, unless it is kept already, if the quota has no room for it. It is called
// when it is known what that takes, and before it is kept; until it is, the caller holds reserving.
func (d *Desk) overlayWithinQuota(ctx context.Context, file, digest string) error {
	if kept, err := d.db.NewSelect().Model((*storedRecord)(nil)).Where("digest = ?", digest).Exists(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	} else if kept {
		return nil
	}
	bytes, err := image.FileBytes(file)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	return d.quotaFor(ctx, bytes, "What is mended of the disk takes", "")
}

// quotaFor is the failure that the quota has no room for so many bytes more, besides what is promised to other imports than one.
// what takes it begins the sentence about it.
func (d *Desk) quotaFor(ctx context.Context, bytes int64, what, but string) error {
	if d.cfg.ImageQuota <= 0 || bytes == 0 {
		return nil
	}
	// One statement: a disk is promised or stored, and never neither.
	var sum struct{ Stored, Promised int64 }
	err := d.db.NewRaw("SELECT (SELECT COALESCE(SUM(file_bytes), 0) FROM stored_images) AS stored, (SELECT COALESCE(SUM(room_bytes), 0) FROM import_disks WHERE digest IS NULL AND task_id <> ?) AS promised", but).Scan(ctx, &sum)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	if bytes > d.cfg.ImageQuota-sum.Stored-sum.Promised {
		return &failure{Code: "ServerError", Message: fmt.Sprintf("ServerError: Insufficient storage. [%s %s; of the quota of %s, %s are taken%s]",
			what, sizeText(bytes), sizeText(d.cfg.ImageQuota), sizeText(sum.Stored), promisedText(sum.Promised))}
	}
	return nil
}

func promisedText(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %s are promised to other imports under way", sizeText(n))
}

// importsWithRoom are the tasks but one that have room written down.
func (d *Desk) importsWithRoom(ctx context.Context, but string) ([]importRecord, error) {
	var rs []importRecord
	err := d.db.NewSelect().Model(&rs).Where("id <> ?", but).
		Where("id IN (SELECT task_id FROM import_sources WHERE room_bytes > 0 UNION SELECT task_id FROM import_disks WHERE room_bytes > 0)").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	return rs, d.loadParts(ctx, rs)
}

// untaken is what a task's files may still take of the file system.
func (d *Desk) untaken(r *importRecord) (n int64) {
	left := func(room int64, path string) {
		for _, there := range []string{path, path + ".part"} {
			if size, err := image.FileBytes(there); err == nil { // it may not be there yet, or no more
				room -= size
			}
		}
		n += max(room, 0)
	}
	for _, s := range r.Sources {
		if s.RoomBytes > 0 {
			left(s.RoomBytes, d.uploadFile(r.ID, s.Number))
		}
	}
	for _, x := range r.Disks {
		if x.RoomBytes > 0 && x.Digest == nil {
			left(x.RoomBytes, d.diskFile(r.ID, x.Number))
		}
	}
	return n
}

// freeBytes is what a folder's file system has left for us.
func freeBytes(folder string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: folder, Err: err}
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}
