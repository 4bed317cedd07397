package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"
	"github.com/uptrace/bun"

	"berth/internal/awsapi"
	"berth/internal/check"
	"berth/internal/compute"
	"berth/internal/image"
)

// workspaceImageRecord is a WorkSpaces image.
type workspaceImageRecord struct {
	bun.BaseModel    `bun:"table:workspace_images"`
	ID               string          `bun:"id,pk"`
	Name             string          `bun:"name"`
	Description      string          `bun:"description"`
	State            string          `bun:"state"`
	IngestionProcess string          `bun:"ingestion_process"`
	Applications     []string        `bun:"applications"` // Office that the image is subscribed to: none or one
	MachineImageID   string          `bun:"machine_image_id"`
	SnapshotID       string          `bun:"snapshot_id"`
	SizeBytes        int64           `bun:"size_bytes"` // virtual size
	BootMode         string          `bun:"boot_mode"`
	SharedByUs       bool            `bun:"shared_by_us"` // the launch permission is ours to take back
	WindowsVersion   string          `bun:"windows_version"`
	Report           string          `bun:"report"` // the check's report as JSON
	ErrorCode        string          `bun:"error_code"`
	ErrorMessage     string          `bun:"error_message"`
	ErrorDetails     []failureRecord `bun:"error_details"`
	Digest           *string         `bun:"digest"` // of the stored disk that it is
	Fixes            []fixRecord     `bun:"fixes"`  // what was mended on the way
	CreatedAt        time.Time       `bun:"created_at"`
}

// fixRecord is what was done about a finding.
type fixRecord struct {
	Code  string
	Steps []string
}

// failureRecord is one of the reasons why an image is in ERROR.
type failureRecord struct{ Code, Message string }

const (
	imagePending   = string(types.WorkspaceImageStatePending)
	imageAvailable = string(types.WorkspaceImageStateAvailable)
	imageError     = string(types.WorkspaceImageStateError)
)

// maxImages is Amazon's default quota of images in a Region (facts §7).
const maxImages = 40

// serviceAccount stands for the WorkSpaces service in an AMI's launch permissions: it shares the AMI with itself, with the
// caller's rights, while it reads it.
const serviceAccount = "000000000000"

// ImportWorkspaceImage makes a BYOL image of an AMI: the disk is checked once more, now strictly (a warning is a failure),
// and sealed. The work is asynchronous: the image is PENDING, then AVAILABLE or ERROR with ErrorDetails.
func (d *Desk) ImportWorkspaceImage(ctx context.Context, in *workspaces.ImportWorkspaceImageInput) (*workspaces.ImportWorkspaceImageOutput, error) {
	// The document's note on permissions: the service reads and shares the AMI as the caller.
	for _, action := range []string{"ec2:DescribeImages", "ec2:ModifyImageAttribute"} {
		if err := awsapi.Authorize(ctx, action, "*"); err != nil {
			return nil, &types.AccessDeniedException{Message: aws.String(message(err))}
		}
	}
	if ok, err := d.byolEnabled(ctx); err != nil {
		return nil, err
	} else if !ok {
		return nil, &types.OperationNotSupportedException{Message: aws.String("This account is not enabled for Bring Your Own License. Enable it with ModifyAccount first.")}
	}
	if err := d.allowedProcess(in); err != nil {
		return nil, err
	}
	ami, err := d.machineImage(ctx, aws.ToString(in.Ec2ImageId))
	if err != nil {
		var refusal smithy.APIError
		if errors.As(err, &refusal) {
			return nil, &types.ResourceNotFoundException{Message: aws.String(refusal.ErrorMessage()), ResourceId: in.Ec2ImageId}
		}
		return nil, err
	}
	snapshot, err := d.snapshot(ctx, ami.SnapshotID)
	if err != nil {
		return nil, err
	}
	r := &workspaceImageRecord{
		ID: d.workspacesID("wsi-"), Name: aws.ToString(in.ImageName), Description: aws.ToString(in.ImageDescription), State: imagePending,
		IngestionProcess: string(in.IngestionProcess), MachineImageID: ami.ID, SnapshotID: ami.SnapshotID, SizeBytes: snapshot.SizeBytes, BootMode: ami.BootMode,
		Applications: []string{}, ErrorDetails: []failureRecord{}, Fixes: []fixRecord{}, CreatedAt: d.now(),
	}
	for _, a := range in.Applications {
		r.Applications = append(r.Applications, string(a))
	}
	err = d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if ok, err := hold(ctx, tx, (*machineImageRecord)(nil), "id", ami.ID); err != nil {
			return err
		} else if !ok {
			return &types.ResourceNotFoundException{Message: aws.String(message(noImage(ami.ID))), ResourceId: in.Ec2ImageId}
		}
		if err := newWorkspaceImage(ctx, tx, r); err != nil {
			return err
		}
		return putTags(ctx, tx, r.ID, tagsOf(in.Tags))
	})
	if err != nil {
		return nil, err
	}
	d.start(&ingestImage, work{ID: r.ID})
	return &workspaces.ImportWorkspaceImageOutput{ImageId: aws.String(r.ID)}, nil
}

// newWorkspaceImage writes an image's record, within the quota and under a name of its own.
func newWorkspaceImage(ctx context.Context, tx bun.Tx, r *workspaceImageRecord) error {
	if n, err := tx.NewSelect().Model((*workspaceImageRecord)(nil)).Count(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	} else if n >= maxImages {
		return &types.ResourceLimitExceededException{Message: aws.String(fmt.Sprintf("You have reached the limit of %d images in this Region.", maxImages))}
	}
	if fresh, err := insertNew(ctx, tx, r, "name"); err != nil {
		return err
	} else if !fresh {
		return &types.ResourceAlreadyExistsException{Message: aws.String("An image with the name " + r.Name + " already exists.")}
	}
	return nil
}

// message is what a refusal says, without its code.
func message(err error) string {
	var refusal smithy.APIError
	if errors.As(err, &refusal) {
		return refusal.ErrorMessage()
	}
	return err.Error()
}

// allowedProcess refuses what the account, or this host, cannot ingest (facts §6).
func (d *Desk) allowedProcess(in *workspaces.ImportWorkspaceImageInput) error {
	p := string(in.IngestionProcess)
	if strings.Contains(p, "GRAPHICS") && !d.cfg.GraphicsAllowed {
		return &types.OperationNotSupportedException{Message: aws.String("This account is not on the allow list for " + p + ". Ask the administrator of this service to put it there.")}
	}
	if strings.HasSuffix(p, "_BYOP") {
		return &types.OperationNotSupportedException{Message: aws.String(p + " is for WorkSpaces Core, which this service is not.")}
	}
	if len(in.Applications) > 1 {
		return invalid("Only one version of Microsoft Office can be subscribed to; %d were given.", len(in.Applications))
	}
	if strings.Contains(p, "G4DN") && slices.Contains(in.Applications, types.ApplicationMicrosoftOffice2016) {
		return invalid("Microsoft_Office_2016 is not available with %s.", p)
	}
	return nil
}

// DescribeWorkspaceImages lists images, newest first: all, or those asked for. None is shared with this account.
func (d *Desk) DescribeWorkspaceImages(ctx context.Context, in *workspaces.DescribeWorkspaceImagesInput) (*workspaces.DescribeWorkspaceImagesOutput, error) {
	var rs []workspaceImageRecord
	q := d.db.NewSelect().Model(&rs).Order("created_at DESC", "id")
	if len(in.ImageIds) > 0 {
		q.Where("id IN (?)", bun.List(in.ImageIds))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	if in.ImageType == types.ImageTypeShared {
		rs = nil
	}
	rs, next, err := paginate(rs, aws.ToInt32(in.MaxResults), 25, in.NextToken, func(r workspaceImageRecord) string { return r.ID })
	if err != nil {
		return nil, err
	}
	out := &workspaces.DescribeWorkspaceImagesOutput{Images: []types.WorkspaceImage{}, NextToken: next}
	for _, r := range rs {
		out.Images = append(out.Images, d.workspaceImageView(&r))
	}
	return out, nil
}

func (d *Desk) workspaceImageView(r *workspaceImageRecord) types.WorkspaceImage {
	im := types.WorkspaceImage{
		ImageId: aws.String(r.ID), Name: aws.String(r.Name), Description: aws.String(r.Description), State: types.WorkspaceImageState(r.State),
		OperatingSystem: &types.OperatingSystem{Type: types.OperatingSystemTypeWindows}, RequiredTenancy: types.WorkspaceImageRequiredTenancyDedicated,
		OwnerAccountId: aws.String(d.cfg.AccountID), Created: aws.Time(r.CreatedAt), ErrorCode: optional(r.ErrorCode), ErrorMessage: optional(r.ErrorMessage),
	}
	for _, e := range r.ErrorDetails {
		im.ErrorDetails = append(im.ErrorDetails, types.ErrorDetails{ErrorCode: types.WorkspaceImageErrorDetailCode(e.Code), ErrorMessage: aws.String(e.Message)})
	}
	return im
}

// DeleteWorkspaceImage removes an image that no bundle uses.
func (d *Desk) DeleteWorkspaceImage(ctx context.Context, in *workspaces.DeleteWorkspaceImageInput) (*workspaces.DeleteWorkspaceImageOutput, error) {
	id := aws.ToString(in.ImageId)
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if ok, err := hold(ctx, tx, (*workspaceImageRecord)(nil), "id", id); err != nil || !ok {
			return err // the service model has no exception for one that does not exist
		}
		var r workspaceImageRecord
		if err := tx.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		if r.State == imagePending {
			return &types.InvalidResourceStateException{Message: aws.String("The image " + id + " is being created. Wait until it is AVAILABLE or in ERROR.")}
		}
		for _, user := range []struct{ table, what string }{{"bundles", "bundle"}, {"workspaces", "WorkSpace"}} {
			var using []string
			q := tx.NewSelect().Table(user.table).Column("id").Where("image_id = ?", id).Limit(1)
			if user.table == "workspaces" {
				q.Where("state <> ?", types.WorkspaceStateTerminated)
			}
			if err := q.Scan(ctx, &using); err != nil {
				return fmt.Errorf("desk: %w", err)
			}
			if len(using) > 0 {
				return &types.ResourceAssociatedException{Message: aws.String(fmt.Sprintf("The image %s is used by the %s %s.", id, user.what, using[0]))}
			}
		}
		if _, err := tx.NewDelete().Model((*tagRecord)(nil)).Where("resource_id = ?", id).Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		if _, err := tx.NewDelete().Model(&r).WherePK().Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		// The driver's comes last, while nobody can make a bundle of it. Should the service die here, the image is still there at
		// the next start, and is handed to the driver again.
		err := d.cfg.Driver.DeleteImage(ctx, id)
		if errors.Is(err, compute.ErrInUse) {
			return &types.ResourceAssociatedException{Message: aws.String("The image " + id + " is used by a machine that is being terminated. Try again when it has gone.")}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = d.collect(ctx)
	return &workspaces.DeleteWorkspaceImageOutput{}, err
}

// workspaceImage reads an image's record; sql.ErrNoRows (wrapped) when there is none.
func (d *Desk) workspaceImage(ctx context.Context, id string) (*workspaceImageRecord, error) {
	return recordOf[workspaceImageRecord](ctx, d.db, "image", "id", id)
}

// ingestImage makes a WorkSpaces image of an AMI's disk.
var ingestImage = flow{
	name: "ingest-image",
	steps: []step{
		{"share", (*Desk).shareWithService},
		{"inspect", (*Desk).inspectImage},
		{"seal", (*Desk).sealImage},
		{"publish", (*Desk).publishImage},
	},
	fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
		if err := d.unshare(ctx, id); err != nil {
			return err
		}
		if err := d.cfg.Driver.DeleteImage(ctx, id); err != nil {
			return err
		}
		if err := os.RemoveAll(d.file("imports", id)); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		details := []failureRecord{}
		for _, x := range f.Details {
			details = append(details, failureRecord{x.Code, x.Message})
		}
		r := &workspaceImageRecord{ID: id, State: imageError, ErrorCode: f.Code, ErrorMessage: f.Message, ErrorDetails: details}
		if _, err := d.db.NewUpdate().Model(r).Column("state", "error_code", "error_message", "error_details", "digest").WherePK().Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		_, err := d.collect(ctx)
		return err
	},
	pending: func(d *Desk, ctx context.Context) ([]work, error) {
		var ws []work
		err := d.db.NewSelect().Model((*workspaceImageRecord)(nil)).ColumnExpr("id").Where("state = ? AND id NOT IN (SELECT image_id FROM custom_imports)", imagePending).Scan(ctx, &ws)
		return ws, err
	},
}

// publishImage makes the image available.
func (d *Desk) publishImage(ctx context.Context, id string) error {
	if err := d.unshare(ctx, id); err != nil {
		return err
	}
	_, err := d.db.NewUpdate().Model((*workspaceImageRecord)(nil)).Set("state = ?", imageAvailable).Where("id = ? AND state = ?", id, imagePending).Exec(ctx)
	return err
}

// shareWithService lets the service use the AMI for the time of the ingestion, unless the caller has done so already.
func (d *Desk) shareWithService(ctx context.Context, id string) error {
	r, err := d.workspaceImage(ctx, id)
	if err != nil {
		return err
	}
	return d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if ok, err := hold(ctx, tx, (*machineImageRecord)(nil), "id", r.MachineImageID); err != nil {
			return err
		} else if !ok {
			return &failure{Code: "InvalidAMIID.NotFound", Message: "The AMI " + r.MachineImageID + " has been deregistered."}
		}
		given, err := tx.NewSelect().Model((*launchPermissionRecord)(nil)).Where("image_id = ? AND user_id = ?", r.MachineImageID, serviceAccount).Count(ctx)
		if err != nil {
			return err
		}
		ours, err := tx.NewSelect().Model((*workspaceImageRecord)(nil)).Where("machine_image_id = ? AND shared_by_us", r.MachineImageID).Count(ctx)
		if err != nil || given > 0 && ours == 0 {
			return err
		}
		if err := share(ctx, tx, r.MachineImageID, serviceAccount); err != nil {
			return err
		}
		_, err = tx.NewUpdate().Model(r).Set("shared_by_us = ?", true).WherePK().Exec(ctx)
		return err
	})
}

// unshare takes back what shareWithService gave, when no other image is in the making from the same AMI.
func (d *Desk) unshare(ctx context.Context, id string) error {
	r, err := d.workspaceImage(ctx, id)
	if err != nil || !r.SharedByUs {
		return err
	}
	return d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := hold(ctx, tx, (*machineImageRecord)(nil), "id", r.MachineImageID); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model(r).Set("shared_by_us = ?", false).WherePK().Exec(ctx); err != nil {
			return err
		}
		others, err := tx.NewSelect().Model((*workspaceImageRecord)(nil)).Where("machine_image_id = ? AND shared_by_us", r.MachineImageID).Count(ctx)
		if err != nil || others > 0 {
			return err
		}
		_, err = tx.NewDelete().Model((*launchPermissionRecord)(nil)).Where("image_id = ? AND user_id = ?", r.MachineImageID, serviceAccount).Exec(ctx)
		return err
	})
}

// inspectImage judges the disk as the ingestion does and keeps the report.
func (d *Desk) inspectImage(ctx context.Context, id string) error { return d.inspect(ctx, id, nil) }

// inspect is inspectImage; more, unless nil, tells what else is wrong with the Windows that was found.
func (d *Desk) inspect(ctx context.Context, id string, more func(check.Windows) []failure) error {
	r, err := d.workspaceImage(ctx, id)
	if err != nil {
		return err
	}
	disks, digest, err := d.storedDisks(ctx, r)
	if err != nil {
		return err
	}
	profile, _ := check.ProfileByName(d.cfg.Profile) // identify has refused one that does not exist
	opt := check.Options{Profile: profile, Process: check.Process(r.IngestionProcess), Office: len(r.Applications) > 0, Ingestion: true}
	var mended image.Mended
	overlay := d.file("imports", id, "mended.qcow2")
	if d.cfg.Fix {
		if err := os.MkdirAll(filepath.Dir(overlay), 0o700); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		mended, err = image.Mend(ctx, opt, overlay, digest, r.CreatedAt, disks...)
	} else {
		mended.Report, err = image.Inspect(ctx, opt, disks...)
	}
	var f *image.Failure
	if errors.As(err, &f) {
		return &failure{Code: "UnknownError", Message: f.StatusMessage, Details: []failure{{Code: "UnknownError", Message: f.StatusMessage}}}
	}
	if err != nil {
		return err
	}
	if err := d.keepReport(ctx, r, mended); err != nil {
		return err
	}
	others := officeUnfit(r, mended.Report.Windows)
	if more != nil {
		others = append(others, more(mended.Report.Windows)...)
	}
	if f := unfit(mended.Report, others...); f != nil {
		return f
	}
	refer := func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewUpdate().Model(r).Set("digest = ?", digest).WherePK().Exec(ctx)
		return err
	}
	if len(mended.Fixes) == 0 {
		return d.db.RunInTx(ctx, nil, refer)
	}
	base := digest
	digest = mended.Digest
	return d.keep(ctx, overlay, &storedRecord{Digest: digest, Base: &base, SizeBytes: r.SizeBytes}, nil, refer)
}

// officeUnfit tells why the Office that is subscribed to does not go with the Windows that was found: Windows 11 takes that of
// 2019 alone, and none with a GPU (facts §6).
func officeUnfit(r *workspaceImageRecord, w check.Windows) (out []failure) {
	if windowsGeneration(w.Build) != "Windows 11" {
		return nil
	}
	for _, office := range r.Applications {
		switch {
		case strings.Contains(r.IngestionProcess, "GRAPHICS"):
			out = append(out, failure{Code: "OSNotSupported", Message: fmt.Sprintf("%s was asked for, and Windows 11 takes no Microsoft Office with %s. Import the image without Applications.", office, r.IngestionProcess)})
		case office != string(types.ApplicationMicrosoftOffice2019):
			out = append(out, failure{Code: "OSNotSupported", Message: fmt.Sprintf("%s was asked for, and is not available with Windows 11. Import the image with %s, or without Applications.", office, types.ApplicationMicrosoftOffice2019)})
		}
	}
	return out
}

// storedDisks are the disks of an image's AMI, the root first, and the root's digest.
func (d *Desk) storedDisks(ctx context.Context, r *workspaceImageRecord) (disks []image.Stored, root string, err error) {
	all, err := disksOf(ctx, d.db, &machineImageRecord{ID: r.MachineImageID, SnapshotID: r.SnapshotID})
	if err != nil {
		return nil, "", err
	}
	for _, x := range all {
		s, err := d.snapshot(ctx, x.SnapshotID)
		if err != nil {
			return nil, "", err
		}
		k, err := d.stored(ctx, s.Digest)
		if err != nil {
			return nil, "", err
		}
		disks = append(disks, k)
		root = firstOf(root, s.Digest)
	}
	return disks, root, nil
}

// sealImage hands the disk, whose bytes never change, to the driver.
func (d *Desk) sealImage(ctx context.Context, id string) error {
	r, err := d.workspaceImage(ctx, id)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(d.file("imports", id)); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	return d.ensureImage(ctx, r)
}

// ensureImage hands an image's disk to the driver.
func (d *Desk) ensureImage(ctx context.Context, r *workspaceImageRecord) error {
	s, err := d.stored(ctx, aws.ToString(r.Digest))
	if err != nil {
		return err
	}
	if s.Base == "" {
		return d.cfg.Driver.EnsureImage(ctx, r.ID, s.Path)
	}
	return d.cfg.Driver.EnsureImage(ctx, r.ID, s.Path, s.Base)
}

// ensureImages hands every AVAILABLE image to the driver, which may be a new one or have lost its data.
func (d *Desk) ensureImages(ctx context.Context) error {
	var rs []workspaceImageRecord
	if err := d.db.NewSelect().Model(&rs).Where("state = ?", imageAvailable).Scan(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	for _, r := range rs {
		if err := d.ensureImage(ctx, &r); err != nil {
			d.log.Error("an image cannot be used", "image", r.ID, "err", err) // the others can
		}
	}
	return nil
}

// keepReport puts what was found on the image's record.
func (d *Desk) keepReport(ctx context.Context, r *workspaceImageRecord, m image.Mended) error {
	b, err := json.Marshal(m.Report)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	r.Report, r.WindowsVersion, r.Fixes = string(b), m.Report.Windows.Version, []fixRecord{}
	for _, f := range m.Fixes {
		r.Fixes = append(r.Fixes, fixRecord{f.Code, f.Steps})
	}
	_, err = d.db.NewUpdate().Model(r).Column("report", "windows_version", "fixes").WherePK().Exec(ctx)
	return err
}

// unfit is the failure of an image that did not pass: the first finding's code, and all of them as details. A check of our
// own is reported under the nearest of Amazon's codes, with its own in the text.
func unfit(report check.Report, others ...failure) *failure {
	f := &failure{Details: others}
	for _, x := range report.Findings {
		if x.Outcome != check.Fail {
			continue
		}
		code, text := x.Code, x.Because+" "+x.Remedy
		if c, ok := check.Describe(x.Code); ok && !c.Amazon() {
			code, text = c.ReportAs, x.Code+": "+text
		}
		f.Details = append(f.Details, failure{Code: code, Message: text})
	}
	if len(f.Details) == 0 {
		return nil
	}
	f.Code = f.Details[0].Code
	f.Message = fmt.Sprintf("The image did not pass %d of the checks. ErrorDetails lists them.", len(f.Details))
	return f
}
