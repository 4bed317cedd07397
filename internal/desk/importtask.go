package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/uptrace/bun"
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
