package desk

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/uptrace/bun"
)

// importRecord is an ImportImage or ImportSnapshot task. What it reads is in its sources, what it makes in its disks.
type importRecord struct {
	bun.BaseModel   `bun:"table:import_tasks"`
	ID              string    `bun:"id,pk"`
	Kind            string    `bun:"kind"`
	ClientToken     *string   `bun:"client_token"`
	Request         string    `bun:"request"` // digest of what the request with the token asked for
	Description     string    `bun:"description"`
	Architecture    string    `bun:"architecture"` // what the caller said, then what the disk showed
	LicenseType     string    `bun:"license_type"` // likewise
	UsageOperation  string    `bun:"usage_operation"`
	Hypervisor      string    `bun:"hypervisor"`
	BootMode        string    `bun:"boot_mode"` // likewise
	Status          string    `bun:"status"`
	StatusMessage   string    `bun:"status_message"`
	Progress        int       `bun:"progress"` // percent
	CancelRequested bool      `bun:"cancel_requested"`
	ImageID         string    `bun:"image_id"`    // "" for a snapshot task
	Stage           string    `bun:"stage"`       // the step that it is in,
	StageSince      time.Time `bun:"stage_since"` // since when, not counting when no service ran,
	SeenAt          time.Time `bun:"seen_at"`     // when it was last seen at work,
	WaitsFor        string    `bun:"waits_for"`   // and what it waits for, for people
	CreatedAt       time.Time `bun:"created_at"`

	Sources []importSource `bun:"-"`
	Disks   []importedDisk `bun:"-"` // none until they are known
}

// importedDisk is a disk that an import makes.
type importedDisk struct {
	bun.BaseModel `bun:"table:import_disks"`
	TaskID        string  `bun:"task_id,pk"`
	Number        int     `bun:"number,pk"` // from 1, in the order of the export
	Source        int     `bun:"source"`    // the number of the source that it came in
	Format        string  `bun:"format"`
	DeviceName    string  `bun:"device_name"`
	SizeBytes     int64   `bun:"size_bytes"` // virtual
	FileBytes     int64   `bun:"file_bytes"` // of its own file in an OVA; 0: the source's is the disk's
	SnapshotID    string  `bun:"snapshot_id"`
	Progress      int     `bun:"progress"`   // percent
	Note          string  `bun:"note"`       // what the copy left out, for people
	Digest        *string `bun:"digest"`     // of the stored disk, from when it is there until the task is over
	RoomBytes     int64   `bun:"room_bytes"` // what its file may take, from before it is made until the task is over
}

// Root devices and the others have these names, as EC2 recommends for volumes: /dev/sda1, /dev/sdf and on.
const (
	rootDevice      = "/dev/sda1"
	firstDataDevice = 'f'
)

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

// ImportImage imports an uploaded virtual machine as an AMI. The work is asynchronous: DescribeImportImageTasks tells how
// it goes. The same ClientToken gets the same task.
func (e *EC2) ImportImage(ctx context.Context, in *ImportImageInput) (*ImportImageOutput, error) {
	d := e.d
	if n := len(in.DiskContainers); n == 0 || n > maxSources {
		return nil, refused("InvalidParameter", "Give from 1 to %d DiskContainers; got %d.", maxSources, n)
	}
	if a := aws.ToString(in.Architecture); !slices.Contains([]string{"", "x86_64", "i386"}, a) {
		return nil, refused("InvalidParameter", "Architecture %s is not supported: Windows must be for x86_64 or i386.", a)
	}
	if p := aws.ToString(in.Platform); p != "" && !strings.EqualFold(p, "Windows") {
		return nil, refused("InvalidParameter", "Platform %s is not supported: only Windows can be imported.", p)
	}
	if in.LicenseType != nil && in.UsageOperation != nil {
		return nil, refused("InvalidParameterCombination", "LicenseType and UsageOperation cannot be given together.")
	}
	license := aws.ToString(in.LicenseType)
	if !slices.Contains([]string{"", licenseBYOL, licenseAWS}, license) {
		return nil, refused("InvalidParameter", "LicenseType %s is not supported: give %s or %s.", license, licenseBYOL, licenseAWS)
	}
	if op := aws.ToString(in.UsageOperation); op != "" {
		if license = usageLicense[op]; license == "" {
			return nil, refused("InvalidParameter", "UsageOperation %s is not supported: Windows runs as RunInstances:0800 (BYOL) or RunInstances:0002 (AWS).", op)
		}
	}
	if h := aws.ToString(in.Hypervisor); h != "" && h != "xen" {
		return nil, refused("InvalidParameter", "Hypervisor %s is not supported: xen is the only one that there is a name for.", h)
	}
	boot := aws.ToString(in.BootMode)
	if !slices.Contains([]string{"", "legacy-bios", "uefi"}, boot) {
		return nil, refused("InvalidParameter", "BootMode %s is not supported for an import: give legacy-bios or uefi.", boot)
	}
	r := &importRecord{Kind: importsImage, ClientToken: in.ClientToken, Description: aws.ToString(in.Description), BootMode: boot,
		Architecture: aws.ToString(in.Architecture), LicenseType: license, UsageOperation: aws.ToString(in.UsageOperation), Hypervisor: aws.ToString(in.Hypervisor),
		ID: d.ec2ID("import-ami-"), ImageID: d.ec2ID("ami-")}
	tags, err := taskTags(in.TagSpecifications, "import-image-task")
	if err != nil {
		return nil, err
	}
	r, err = d.newImport(ctx, r, in.DiskContainers, aws.ToBool(in.Encrypted) || in.KmsKeyID != nil, tags)
	if err != nil {
		return nil, err
	}
	t, err := d.imageTask(ctx, r)
	return &ImportImageOutput{t}, err
}

// Whose licence an image runs under, and EC2's codes for it ("AMI billing information fields" in the EC2 User Guide).
const (
	licenseBYOL = "BYOL"
	licenseAWS  = "AWS"
)

var usageLicense = map[string]string{"RunInstances:0800": licenseBYOL, "RunInstances:0002": licenseAWS}

// taskTags are the tags that a request gives its task. There is nothing else that it could tag.
func taskTags(specs []TagSpecification, resourceType string) ([]EC2Tag, error) {
	for _, s := range specs {
		if t := aws.ToString(s.ResourceType); t != resourceType {
			return nil, refused("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation: give %s.", t, resourceType)
		}
	}
	tags := tagsFor(specs, resourceType)
	seen := map[string]bool{}
	for _, t := range tags {
		key := aws.ToString(t.Key)
		switch {
		case key == "" || utf8.RuneCountInString(key) > 127 || utf8.RuneCountInString(aws.ToString(t.Value)) > 256:
			return nil, refused("InvalidParameterValue", "Tag keys have from 1 to 127 characters, tag values up to 256.")
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use; '%s' was given.", key)
		case seen[key]:
			return nil, refused("InvalidParameterValue", "Duplicate tag key '%s' specified.", key)
		}
		seen[key] = true
	}
	if len(tags) > maxTags {
		return nil, refused("TagLimitExceeded", "A resource can have at most %d tags; %d were given.", maxTags, len(tags))
	}
	return tags, nil
}

// ImportSnapshot imports an uploaded disk as a snapshot, without asking what is on it.
func (e *EC2) ImportSnapshot(ctx context.Context, in *ImportSnapshotInput) (*ImportSnapshotOutput, error) {
	if in.DiskContainer == nil {
		return nil, refused("MissingParameter", "The request must contain the parameter DiskContainer.")
	}
	if f := strings.ToUpper(aws.ToString(in.DiskContainer.Format)); f == "OVA" || f == "OVF" {
		return nil, refused("InvalidParameter", "Format %s is not supported for a snapshot: give VMDK, VHD, VHDX or RAW.", f)
	}
	if in.DiskContainer.SnapshotID != nil {
		return nil, refused("InvalidParameter", "A snapshot cannot be imported from a snapshot.")
	}
	tags, err := taskTags(in.TagSpecifications, "import-snapshot-task")
	if err != nil {
		return nil, err
	}
	d := e.d
	r := &importRecord{Kind: importsSnapshot, ClientToken: in.ClientToken, Description: aws.ToString(in.Description), ID: d.ec2ID("import-snap-")}
	r, err = d.newImport(ctx, r, []DiskContainer{*in.DiskContainer}, aws.ToBool(in.Encrypted) || in.KmsKeyID != nil, tags)
	if err != nil {
		return nil, err
	}
	t, err := d.snapshotTask(ctx, r)
	return &ImportSnapshotOutput{t}, err
}

// newImport writes the record of a task and starts its flow; with a token that was used before it is that one's task.
func (d *Desk) newImport(ctx context.Context, r *importRecord, cs []DiskContainer, encrypted bool, tags []EC2Tag) (*importRecord, error) {
	if encrypted {
		return nil, refused("InvalidParameter", "Importing a VM with an encrypted disk is not supported: leave out Encrypted and KmsKeyId.")
	}
	if on, err := d.encryptionByDefault(ctx); err != nil {
		return nil, err
	} else if on {
		return nil, refused("InvalidParameter", "Importing a VM with an encrypted disk is not supported. Encryption by default is on for this account and Region: switch it off (DisableEbsEncryptionByDefault) before importing your VM.")
	}
	if r.ClientToken != nil && !clientToken(*r.ClientToken) {
		return nil, refused("InvalidParameterValue", "A client token has from 1 to %d ASCII characters.", maxClientToken)
	}
	for i := range cs {
		s, err := d.newSource(ctx, i+1, &cs[i])
		if err != nil {
			return nil, err
		}
		s.TaskID = r.ID
		r.Sources = append(r.Sources, s)
	}
	var err error
	if r.Request, err = r.digest(tags); err != nil {
		return nil, err
	}
	r.Status, r.StatusMessage, r.Progress, r.CreatedAt = taskActive, "pending", 2, d.now()
	r.StageSince, r.SeenAt = r.CreatedAt, r.CreatedAt
	old := ""
	err = d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		fresh, err := insertNew(ctx, tx, r, "client_token")
		if err != nil {
			return err
		}
		if fresh {
			if _, err := tx.NewInsert().Model(&r.Sources).Exec(ctx); err != nil {
				return fmt.Errorf("desk: %w", err)
			}
			return putTags(ctx, tx, r.ID, tags)
		}
		var before importRecord
		if err := tx.NewSelect().Model(&before).Where("client_token = ?", *r.ClientToken).Scan(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		if before.Kind != r.Kind || before.Request != r.Request {
			return refused("IdempotentParameterMismatch", "The client token was used before with other parameters.")
		}
		old = before.ID
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.start(&importDisk, work{ID: firstOf(old, r.ID)})
	if old != "" {
		return d.importTask(ctx, old)
	}
	return r, nil
}

// maxClientToken is how long a client token may be ("Ensuring idempotency in Amazon EC2 API requests").
const maxClientToken = 64

func clientToken(s string) bool {
	return s != "" && len(s) <= maxClientToken && !strings.ContainsFunc(s, func(c rune) bool { return c > unicode.MaxASCII })
}

// digest is what tells a request, which gives the task those tags, from another one with the same token. The order of tags is nothing.
func (r *importRecord) digest(tags []EC2Tag) (string, error) {
	tags = slices.Clone(tags)
	slices.SortStableFunc(tags, func(a, b EC2Tag) int { return strings.Compare(aws.ToString(a.Key), aws.ToString(b.Key)) })
	var sources []importSource
	for _, s := range r.Sources {
		s.TaskID = ""
		sources = append(sources, s)
	}
	b, err := json.Marshal([]any{r.Kind, r.Description, r.Architecture, r.LicenseType, r.UsageOperation, r.Hypervisor, r.BootMode, sources, tags})
	if err != nil {
		return "", fmt.Errorf("desk: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b)), nil
}

// source names where the export came from.
func (r *importRecord) source() string {
	if n := len(r.Sources); n > 1 {
		return fmt.Sprintf("%s and %d more", &r.Sources[0], n-1)
	} else if n == 0 {
		return "nowhere"
	}
	return r.Sources[0].String()
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
	id := func(r importRecord) string { return r.ID }
	rs, err := asked(rs, ids, id, noTask)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range filters {
		if name := aws.ToString(f.Name); name != "task-state" {
			return nil, nil, refused("InvalidParameterValue", "The filter '%s' is invalid.", name)
		}
		// A value that is no state is one that no task is in.
		rs = slices.DeleteFunc(rs, func(r importRecord) bool { return !slices.Contains(f.Values, r.taskState()) })
	}
	page, next, err := ec2Page(rs, limit, token, id)
	if err != nil {
		return nil, nil, err
	}
	return page, next, d.loadParts(ctx, page)
}

// noTask is EC2's answer to a task's id that nothing has, well formed or not: it lists no code of its own for the former, and
// clients take this one for it (docs/adr/0010-unknown-amazon.md).
func noTask(id string) error {
	return refused("InvalidConversionTaskId.Malformed", "The import task ID '%s' does not exist.", id)
}

// loadParts reads the sources and disks of tasks.
func (d *Desk) loadParts(ctx context.Context, rs []importRecord) error {
	if len(rs) == 0 {
		return nil
	}
	at := map[string]*importRecord{}
	var ids []string
	for i := range rs {
		at[rs[i].ID] = &rs[i]
		ids = append(ids, rs[i].ID)
	}
	var sources []importSource
	var disks []importedDisk
	for _, q := range []*bun.SelectQuery{d.db.NewSelect().Model(&sources), d.db.NewSelect().Model(&disks)} {
		if err := q.Where("task_id IN (?)", bun.List(ids)).Order("task_id", "number").Scan(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
	}
	for _, s := range sources {
		at[s.TaskID].Sources = append(at[s.TaskID].Sources, s)
	}
	for _, x := range disks {
		at[x.TaskID].Disks = append(at[x.TaskID].Disks, x)
	}
	return nil
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
		Architecture: optional(r.Architecture), BootMode: optional(r.BootMode), Description: optional(r.Description), Hypervisor: optional(r.Hypervisor),
		ImportTaskID: aws.String(r.ID), LicenseType: optional(r.LicenseType), UsageOperation: optional(r.UsageOperation), Platform: aws.String("Windows"),
		Status: aws.String(r.Status), StatusMessage: optional(r.StatusMessage), Tags: tags,
	}
	switch r.Status {
	case taskCompleted: // progress and message are absent then
		t.ImageID = aws.String(r.ImageID)
	case taskDeleted, taskDeleting:
	default:
		t.Progress = aws.String(fmt.Sprint(r.Progress))
	}
	t.SnapshotDetails = r.snapshotDetails()
	return t, err
}

// snapshotDetails are a task's disks; as long as they are not known, its files.
func (r *importRecord) snapshotDetails() (out []SnapshotDetail) {
	detail := func(s *importSource) SnapshotDetail {
		d := SnapshotDetail{Description: optional(s.Description), DeviceName: optional(s.DeviceName), Format: optional(s.Format), Status: aws.String(taskActive),
			URL: optional(s.URL), UserBucket: s.userBucket()}
		if s.FileBytes > 0 {
			d.DiskImageSize = aws.Float64(float64(s.FileBytes))
		}
		switch r.Status {
		case taskCompleted, taskDeleted, taskDeleting:
			d.Status = aws.String(r.Status)
		default:
			d.StatusMessage = optional(r.WaitsFor)
		}
		return d
	}
	for _, x := range r.Disks {
		d := detail(&r.Sources[x.Source-1])
		d.DeviceName, d.Format = aws.String(x.DeviceName), aws.String(x.Format)
		if x.FileBytes > 0 {
			d.DiskImageSize = aws.Float64(float64(x.FileBytes))
		}
		switch r.Status {
		case taskCompleted:
			d.SnapshotID = aws.String(x.SnapshotID)
		case taskDeleted, taskDeleting:
		default:
			d.Progress = aws.String(fmt.Sprint(x.Progress))
		}
		out = append(out, d)
	}
	if len(r.Disks) == 0 {
		for i := range r.Sources {
			out = append(out, detail(&r.Sources[i]))
		}
		if len(out) == 1 && out[0].DeviceName == nil {
			out[0].DeviceName = aws.String(rootDevice)
		}
	}
	return out
}

func (d *Desk) snapshotTask(ctx context.Context, r *importRecord) (ImportSnapshotTask, error) {
	tags, err := d.ec2Tags(ctx, r.ID)
	s := r.snapshotDetails()[0]
	detail := &SnapshotTaskDetail{Description: optional(firstOf(r.Sources[0].Description, r.Description)), DiskImageSize: s.DiskImageSize, Format: s.Format, Status: aws.String(taskActive),
		StatusMessage: optional(r.StatusMessage), SnapshotID: s.SnapshotID, URL: s.URL, UserBucket: s.UserBucket}
	switch {
	case r.Status == taskCompleted:
		detail.Status = aws.String(taskCompleted)
	case r.Status == taskDeleted && !r.CancelRequested:
		detail.Status = aws.String("error")
	case r.Status == taskDeleted || r.Status == taskDeleting:
		detail.Status = aws.String(r.Status)
	default:
		detail.Progress = aws.String(fmt.Sprint(r.Progress))
		if s.StatusMessage != nil { // there is no other place in which to say what is waited for
			detail.StatusMessage = aws.String(fmt.Sprintf("%s [%s]", r.StatusMessage, *s.StatusMessage))
		}
	}
	return ImportSnapshotTask{Description: optional(r.Description), ImportTaskID: aws.String(r.ID), SnapshotTaskDetail: detail, Tags: tags}, err
}

// CancelImportTask gives up an import that is under way; nothing of it is left. Once the disk is being registered
// (updating) it is too late.
func (e *EC2) CancelImportTask(ctx context.Context, in *CancelImportTaskInput) (*CancelImportTaskOutput, error) {
	d, id := e.d, aws.ToString(in.ImportTaskID)
	r, err := d.importTask(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, noTask(id)
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
		return nil, refused("IncorrectState", "The import task %s is %s and cannot be cancelled.", id, r.Status)
	}
	return &CancelImportTaskOutput{ImportTaskID: aws.String(id), PreviousState: aws.String(r.Status), State: aws.String(taskDeleting)}, nil
}

func (d *Desk) importTask(ctx context.Context, id string) (*importRecord, error) {
	r, err := recordOf[importRecord](ctx, d.db, "import task", "id", id)
	if err != nil {
		return nil, err
	}
	one := []importRecord{*r}
	return &one[0], d.loadParts(ctx, one)
}
