package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/uptrace/bun"

	"berth/internal/image"
	"berth/internal/s3"
)

// importRecord is an ImportImage or ImportSnapshot task.
type importRecord struct {
	bun.BaseModel   `bun:"table:import_tasks"`
	ID              string    `bun:"id,pk"`
	Kind            string    `bun:"kind"`
	ClientToken     *string   `bun:"client_token"`
	Description     string    `bun:"description"`
	Bucket          string    `bun:"bucket"` // "" when the source is a snapshot, then Key is its id
	Key             string    `bun:"object_key"`
	Format          string    `bun:"format"` // what the caller said, upper case, or ""
	Architecture    string    `bun:"architecture"`
	LicenseType     string    `bun:"license_type"`
	BootMode        string    `bun:"boot_mode"` // what the caller said, then what the disk showed
	Status          string    `bun:"status"`
	StatusMessage   string    `bun:"status_message"`
	Progress        int       `bun:"progress"` // percent
	CancelRequested bool      `bun:"cancel_requested"`
	DiskFormat      string    `bun:"disk_format"`
	DiskBytes       int64     `bun:"disk_bytes"` // size of the upload
	SnapshotID      string    `bun:"snapshot_id"`
	ImageID         string    `bun:"image_id"` // "" for a snapshot task
	CreatedAt       time.Time `bun:"created_at"`
}

const (
	importsImage    = "image"
	importsSnapshot = "snapshot"
)

// The states of a task (facts §12). A task that failed ends deleted, with the reason in its message.
const (
	taskActive     = "active"
	taskValidating = "validating"
	taskValidated  = "validated"
	taskConverting = "converting"
	taskUpdating   = "updating"
	taskCompleted  = "completed"
	taskDeleting   = "deleting"
	taskDeleted    = "deleted"
)

// importFormats are the formats that a caller may name. QCOW2 is ours; the rest are VM Import's.
var importFormats = []string{"OVA", "VMDK", "VHD", "VHDX", "RAW", "QCOW2"}

// ImportImage imports an uploaded virtual machine as an AMI. The work is asynchronous: DescribeImportImageTasks tells how
// it goes. The same ClientToken gets the same task.
func (e *EC2) ImportImage(ctx context.Context, in *ImportImageInput) (*ImportImageOutput, error) {
	d := e.d
	if len(in.DiskContainers) != 1 {
		return nil, ec2Error("InvalidParameter", "Give one DiskContainer: a BYOL virtual machine must be on a single volume; got %d.", len(in.DiskContainers))
	}
	if a := aws.ToString(in.Architecture); a != "" && a != "x86_64" {
		return nil, ec2Error("InvalidParameter", "Architecture %s is not supported: Windows must be 64-bit (x86_64).", a)
	}
	if p := aws.ToString(in.Platform); p != "" && !strings.EqualFold(p, "Windows") {
		return nil, ec2Error("InvalidParameter", "Platform %s is not supported: only Windows can be imported.", p)
	}
	if l := aws.ToString(in.LicenseType); l != "" && l != "BYOL" {
		return nil, ec2Error("InvalidParameter", "LicenseType %s is not supported: Windows 10 and 11 can only be imported with BYOL.", l)
	}
	if in.LicenseType != nil && in.UsageOperation != nil {
		return nil, ec2Error("InvalidParameterCombination", "LicenseType and UsageOperation cannot be given together.")
	}
	boot := aws.ToString(in.BootMode)
	if !slices.Contains([]string{"", "legacy-bios", "uefi"}, boot) {
		return nil, ec2Error("InvalidParameter", "BootMode %s is not supported for an import: give legacy-bios or uefi.", boot)
	}
	r := &importRecord{Kind: importsImage, ClientToken: in.ClientToken, Description: aws.ToString(in.Description), BootMode: boot,
		Architecture: "x86_64", LicenseType: "BYOL", ID: d.ec2ID("import-ami-"), ImageID: d.ec2ID("ami-")}
	r, err := d.newImport(ctx, r, &in.DiskContainers[0], aws.ToBool(in.Encrypted) || in.KmsKeyID != nil, tagsFor(in.TagSpecifications, "import-image-task"))
	if err != nil {
		return nil, err
	}
	t, err := d.imageTask(ctx, r)
	return &ImportImageOutput{t}, err
}

// ImportSnapshot imports an uploaded disk as a snapshot, without asking what is on it.
func (e *EC2) ImportSnapshot(ctx context.Context, in *ImportSnapshotInput) (*ImportSnapshotOutput, error) {
	if in.DiskContainer == nil {
		return nil, ec2Error("MissingParameter", "The request must contain the parameter DiskContainer.")
	}
	if f := strings.ToUpper(aws.ToString(in.DiskContainer.Format)); f == "OVA" {
		return nil, ec2Error("InvalidParameter", "Format OVA is not supported for a snapshot: give VMDK, VHD, VHDX or RAW.")
	}
	if in.DiskContainer.SnapshotID != nil {
		return nil, ec2Error("InvalidParameter", "A snapshot cannot be imported from a snapshot.")
	}
	d := e.d
	r := &importRecord{Kind: importsSnapshot, ClientToken: in.ClientToken, Description: aws.ToString(in.Description), ID: d.ec2ID("import-snap-")}
	r, err := d.newImport(ctx, r, in.DiskContainer, aws.ToBool(in.Encrypted) || in.KmsKeyID != nil, tagsFor(in.TagSpecifications, "import-snapshot-task"))
	if err != nil {
		return nil, err
	}
	t, err := d.snapshotTask(ctx, r)
	return &ImportSnapshotOutput{t}, err
}

// newImport writes the record of a task and starts its flow; with a token that was used before it is that one's task.
func (d *Desk) newImport(ctx context.Context, r *importRecord, c *DiskContainer, encrypted bool, tags []EC2Tag) (*importRecord, error) {
	if encrypted {
		return nil, ec2Error("InvalidParameter", "Importing a VM with an encrypted disk is not supported: leave out Encrypted and KmsKeyId.")
	}
	if on, err := d.encryptionByDefault(ctx); err != nil {
		return nil, err
	} else if on {
		return nil, ec2Error("InvalidParameter", "Importing a VM with an encrypted disk is not supported. Encryption by default is on for this account and Region: switch it off (DisableEbsEncryptionByDefault) before importing your VM.")
	}
	r.Format = strings.ToUpper(aws.ToString(c.Format))
	if r.Format != "" && !slices.Contains(importFormats, r.Format) {
		return nil, ec2Error("InvalidParameter", "disk-image-format %s is not supported: give one of %s.", aws.ToString(c.Format), strings.Join(importFormats, ", "))
	}
	var err error
	if r.Bucket, r.Key, err = importSource(c); err != nil {
		return nil, err
	}
	if r.Bucket == "" {
		if ok, err := d.snapshotExists(ctx, r.Key); err != nil {
			return nil, err
		} else if !ok {
			return nil, ec2Error("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", r.Key)
		}
	}
	r.Status, r.StatusMessage, r.Progress, r.CreatedAt = taskActive, "pending", 2, d.now()
	r.SnapshotID = d.ec2ID("snap-")
	err = d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewInsert().Model(r).On("CONFLICT (client_token) DO NOTHING").Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n > 0 {
			return putTags(ctx, tx, r.ID, tags)
		}
		var old importRecord
		if err := tx.NewSelect().Model(&old).Where("client_token = ?", *r.ClientToken).Scan(ctx); err != nil {
			return err
		}
		if old.Kind != r.Kind || old.Bucket != r.Bucket || old.Key != r.Key {
			return ec2Error("IdempotentParameterMismatch", "The client token was used before with other parameters.")
		}
		*r = old
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.start(&importDisk, work{ID: r.ID})
	return r, nil
}

// importSource is where a container's disk is: a bucket and a key, or "" and a snapshot's id. Only s3:// URLs are taken;
// nothing else is ever fetched.
func importSource(c *DiskContainer) (bucket, key string, err error) {
	given := 0
	for _, is := range []bool{c.URL != nil, c.UserBucket != nil, c.SnapshotID != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return "", "", ec2Error("InvalidParameter", "A DiskContainer needs one of Url, UserBucket and SnapshotId.")
	}
	switch {
	case c.SnapshotID != nil:
		return "", *c.SnapshotID, nil
	case c.UserBucket != nil:
		bucket, key = aws.ToString(c.UserBucket.S3Bucket), aws.ToString(c.UserBucket.S3Key)
	default:
		u, err := url.Parse(*c.URL)
		if err != nil || u.Scheme != "s3" {
			return "", "", ec2Error("InvalidParameter", "Url %s is not supported: give s3://bucket/key.", *c.URL)
		}
		bucket, key = u.Host, strings.TrimPrefix(u.Path, "/")
	}
	if bucket == "" || key == "" {
		return "", "", ec2Error("InvalidParameter", "The disk's S3 bucket and key must both be given.")
	}
	return bucket, key, nil
}

// source names where the disk came from.
func (r *importRecord) source() string {
	if r.Bucket == "" {
		return r.Key
	}
	return "s3://" + r.Bucket + "/" + r.Key
}

// DescribeImportImageTasks tells how imports go, newest first.
func (e *EC2) DescribeImportImageTasks(ctx context.Context, in *DescribeImportImageTasksInput) (*DescribeImportImageTasksOutput, error) {
	rs, next, err := e.d.importTasks(ctx, importsImage, in.ImportTaskIDs, in.Filters, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &DescribeImportImageTasksOutput{NextToken: next}
	for _, r := range rs {
		t, err := e.d.imageTask(ctx, &r)
		if err != nil {
			return nil, err
		}
		out.ImportImageTasks = append(out.ImportImageTasks, t)
	}
	return out, nil
}

// DescribeImportSnapshotTasks tells how snapshot imports go, newest first.
func (e *EC2) DescribeImportSnapshotTasks(ctx context.Context, in *DescribeImportSnapshotTasksInput) (*DescribeImportSnapshotTasksOutput, error) {
	rs, next, err := e.d.importTasks(ctx, importsSnapshot, in.ImportTaskIDs, in.Filters, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &DescribeImportSnapshotTasksOutput{NextToken: next}
	for _, r := range rs {
		t, err := e.d.snapshotTask(ctx, &r)
		if err != nil {
			return nil, err
		}
		out.ImportSnapshotTasks = append(out.ImportSnapshotTasks, t)
	}
	return out, nil
}

func (d *Desk) importTasks(ctx context.Context, kind string, ids []string, filters []Filter, limit *int32, token *string) ([]importRecord, *string, error) {
	var rs []importRecord
	if err := d.db.NewSelect().Model(&rs).Where("kind = ?", kind).Order("created_at DESC", "id").Scan(ctx); err != nil {
		return nil, nil, fmt.Errorf("desk: %w", err)
	}
	for _, id := range ids {
		if !slices.ContainsFunc(rs, func(r importRecord) bool { return r.ID == id }) {
			return nil, nil, ec2Error("InvalidConversionTaskId.Malformed", "The import task ID '%s' does not exist.", id)
		}
	}
	for _, f := range filters {
		if name := aws.ToString(f.Name); name != "task-state" {
			return nil, nil, ec2Error("InvalidParameterValue", "The filter '%s' is invalid.", name)
		}
		rs = slices.DeleteFunc(rs, func(r importRecord) bool { return !slices.Contains(f.Values, r.taskState()) })
	}
	if len(ids) > 0 {
		rs = slices.DeleteFunc(rs, func(r importRecord) bool { return !slices.Contains(ids, r.ID) })
	}
	return ec2Page(rs, limit, token, func(r importRecord) string { return r.ID })
}

// taskState is what the filter task-state sees: active while there is work.
func (r *importRecord) taskState() string {
	switch r.Status {
	case taskCompleted, taskDeleting, taskDeleted:
		return r.Status
	}
	return taskActive
}

func (d *Desk) imageTask(ctx context.Context, r *importRecord) (ImportImageTask, error) {
	tags, err := d.ec2Tags(ctx, r.ID)
	t := ImportImageTask{
		Architecture: optional(r.Architecture), BootMode: optional(r.BootMode), Description: optional(r.Description),
		ImportTaskID: aws.String(r.ID), LicenseType: optional(r.LicenseType), Platform: aws.String("Windows"),
		Status: aws.String(r.Status), StatusMessage: optional(r.StatusMessage), Tags: tags,
	}
	detail := SnapshotDetail{Format: optional(firstOf(r.DiskFormat, r.Format)), Status: aws.String(taskActive), DeviceName: aws.String("/dev/sda1")}
	if r.Bucket != "" {
		detail.UserBucket = &UserBucket{S3Bucket: aws.String(r.Bucket), S3Key: aws.String(r.Key)}
	}
	if r.DiskBytes > 0 {
		detail.DiskImageSize = aws.Float64(float64(r.DiskBytes))
	}
	switch r.Status {
	case taskCompleted: // progress and message are absent then
		t.ImageID = aws.String(r.ImageID)
		detail.Status, detail.SnapshotID = aws.String(taskCompleted), aws.String(r.SnapshotID)
	case taskDeleted, taskDeleting:
		detail.Status = aws.String(r.Status)
	default:
		t.Progress = aws.String(fmt.Sprint(r.Progress))
	}
	t.SnapshotDetails = []SnapshotDetail{detail}
	return t, err
}

func (d *Desk) snapshotTask(ctx context.Context, r *importRecord) (ImportSnapshotTask, error) {
	tags, err := d.ec2Tags(ctx, r.ID)
	detail := &SnapshotTaskDetail{Description: optional(r.Description), Format: optional(firstOf(r.DiskFormat, r.Format)), Status: aws.String(taskActive), StatusMessage: optional(r.StatusMessage),
		UserBucket: &UserBucket{S3Bucket: aws.String(r.Bucket), S3Key: aws.String(r.Key)}}
	if r.DiskBytes > 0 {
		detail.DiskImageSize = aws.Float64(float64(r.DiskBytes))
	}
	switch {
	case r.Status == taskCompleted:
		detail.Status, detail.SnapshotID = aws.String(taskCompleted), aws.String(r.SnapshotID)
	case r.Status == taskDeleted && !r.CancelRequested:
		detail.Status = aws.String("error")
	case r.Status == taskDeleted || r.Status == taskDeleting:
		detail.Status = aws.String(r.Status)
	default:
		detail.Progress = aws.String(fmt.Sprint(r.Progress))
	}
	return ImportSnapshotTask{Description: optional(r.Description), ImportTaskID: aws.String(r.ID), SnapshotTaskDetail: detail, Tags: tags}, err
}

// CancelImportTask gives up an import that is under way; nothing of it is left. Once the disk is being registered
// (updating) it is too late.
func (e *EC2) CancelImportTask(ctx context.Context, in *CancelImportTaskInput) (*CancelImportTaskOutput, error) {
	d, id := e.d, aws.ToString(in.ImportTaskID)
	r, err := d.importTask(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ec2Error("InvalidConversionTaskId.Malformed", "The import task ID '%s' does not exist.", id)
	}
	if err != nil {
		return nil, err
	}
	res, err := d.db.NewUpdate().Model((*importRecord)(nil)).
		Set("cancel_requested = ?, status = ?, status_message = ?", true, taskDeleting, firstOf(aws.ToString(in.CancelReason), "The import was cancelled by request.")).
		Where("id = ? AND status NOT IN (?)", id, bun.List([]string{taskUpdating, taskCompleted, taskDeleting, taskDeleted})).Exec(ctx)
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	} else if n == 0 {
		if r, err = d.importTask(ctx, id); err != nil { // it may have gone on since it was read
			return nil, err
		}
		return nil, ec2Error("IncorrectState", "The import task %s is %s and cannot be cancelled.", id, r.Status)
	}
	return &CancelImportTaskOutput{ImportTaskID: aws.String(id), PreviousState: aws.String(r.Status), State: aws.String(taskDeleting)}, nil
}

func (d *Desk) importTask(ctx context.Context, id string) (*importRecord, error) {
	var r importRecord
	if err := d.db.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: import task %s: %w", id, err)
	}
	return &r, nil
}

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
