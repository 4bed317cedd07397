package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"

	"berth/internal/awsapi"
	"berth/internal/check"
)

// customImportRecord is how an ImportCustomWorkspaceImage goes. What it makes is a workspaceImageRecord of the same id.
type customImportRecord struct {
	bun.BaseModel  `bun:"table:custom_imports"`
	ImageID        string    `bun:"image_id,pk"`
	State          string    `bun:"state"`
	Message        string    `bun:"message"`
	Progress       int       `bun:"progress"`    // percent
	SourceTask     string    `bun:"source_task"` // one of the two is set
	SourceImage    string    `bun:"source_image"`
	Infrastructure string    `bun:"infrastructure"` // echoed; there is no Image Builder here
	OSVersion      string    `bun:"os_version"`
	UpdatedAt      time.Time `bun:"updated_at"`
}

// customStage is one of the states of an import (facts §6, in their order), with the share of the work that is done when it
// begins, and what this service does in it. Where Amazon's pipeline does something in a running instance, the message says
// that there is none.
type customStage struct {
	state    types.CustomWorkspaceImageImportState
	progress int
	message  string
}

var (
	customPending    = customStage{types.CustomWorkspaceImageImportStatePending, 0, "The import waits to be started."}
	customInProgress = customStage{types.CustomWorkspaceImageImportStateInProgress, 5, "The import has begun."}
	customSource     = customStage{types.CustomWorkspaceImageImportStateProcessingSourceImage, 10, "The source's disks are looked for; an import task that is under way is waited for."}
	customTesting    = customStage{types.CustomWorkspaceImageImportStateImageTestingStart, 20, "The AMI is shared with the service for the time of the import."}
	customUpdating   = customStage{types.CustomWorkspaceImageImportStateUpdatingOperatingSystem, 30, "Windows is not updated here: update it before the export."}
	customChecking   = customStage{types.CustomWorkspaceImageImportStateImageCompatibilityChecking, 40, "The checks run over the powered-off disk; what can be mended there is, where the service is set to do so."}
	customGeneral    = customStage{types.CustomWorkspaceImageImportStateImageTestingGeneralization, 60, "The disk has been checked for what keeps Sysprep from succeeding."}
	customInstance   = customStage{types.CustomWorkspaceImageImportStateCreatingTestInstance, 65, "No test instance is needed: the disk itself was asked."}
	customComponents = customStage{types.CustomWorkspaceImageImportStateInstallingComponents, 70, "No components are installed into the image."}
	customSealing    = customStage{types.CustomWorkspaceImageImportStateGeneralizing, 75, "The disk is sealed: its bytes never change again."}
	customValidating = customStage{types.CustomWorkspaceImageImportStateValidating, 85, "The sealed disk has been handed to the host that runs desktops."}
	customPublishing = customStage{types.CustomWorkspaceImageImportStatePublishing, 95, "The image is made available."}
	customCompleted  = customStage{types.CustomWorkspaceImageImportStateCompleted, 100, "The image is available."}
)

// customProcess is the ingestion process that a compute type and a protocol stand for (facts §6).
func customProcess(c types.ImageComputeType, p types.CustomImageProtocol) (string, bool) {
	process, ok := map[types.ImageComputeType]string{types.ImageComputeTypeBase: "BYOL_REGULAR", types.ImageComputeTypeGraphicsG4dn: "BYOL_GRAPHICS_G4DN"}[c]
	switch p {
	case types.CustomImageProtocolDcv:
		process += "_WSP"
	case types.CustomImageProtocolByop:
		process += "_BYOP"
	}
	return process, ok
}

// ImportCustomWorkspaceImage makes a BYOL image of an import task or an AMI, as ImportWorkspaceImage does, and tells how it goes
// (DescribeCustomWorkspaceImageImport). There is no EC2 Image Builder here: its images cannot be a source, and the
// infrastructure configuration is only written down.
func (d *Desk) ImportCustomWorkspaceImage(ctx context.Context, in *workspaces.ImportCustomWorkspaceImageInput) (*workspaces.ImportCustomWorkspaceImageOutput, error) {
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
	process, ok := customProcess(in.ComputeType, in.Protocol)
	if !ok {
		return nil, &types.OperationNotSupportedException{Message: aws.String(fmt.Sprintf("The compute type %s is not supported here.", in.ComputeType))}
	}
	if err := d.allowedProcess(&workspaces.ImportWorkspaceImageInput{IngestionProcess: types.WorkspaceImageIngestionProcess(process)}); err != nil {
		return nil, err
	}
	r := &workspaceImageRecord{
		ID: d.workspacesID("wsi-"), Name: aws.ToString(in.ImageName), Description: aws.ToString(in.ImageDescription), State: imagePending, IngestionProcess: process,
		Applications: []string{}, ErrorDetails: []failureRecord{}, Fixes: []fixRecord{}, CreatedAt: d.now(),
	}
	c := &customImportRecord{ImageID: r.ID, State: string(customPending.state), Message: customPending.message, Infrastructure: aws.ToString(in.InfrastructureConfigurationArn),
		OSVersion: string(in.OsVersion), UpdatedAt: r.CreatedAt}
	notFound := func(id string) error {
		return &types.ResourceNotFoundException{Message: aws.String("The source " + id + " does not exist."), ResourceId: aws.String(id)}
	}
	switch s := in.ImageSource.(type) {
	case *types.ImageSourceIdentifierMemberEc2ImportTaskId:
		c.SourceTask = s.Value
		if t, err := d.importTask(ctx, s.Value); errors.Is(err, sql.ErrNoRows) || err == nil && t.Kind != importsImage {
			return nil, notFound(s.Value)
		} else if err != nil {
			return nil, err
		}
	case *types.ImageSourceIdentifierMemberEc2ImageId:
		c.SourceImage = s.Value
		if n, err := d.db.NewSelect().Model((*machineImageRecord)(nil)).Where("id = ?", s.Value).Count(ctx); err != nil {
			return nil, fmt.Errorf("desk: %w", err)
		} else if n == 0 {
			return nil, notFound(s.Value)
		}
	case *types.ImageSourceIdentifierMemberImageBuildVersionArn:
		return nil, &types.OperationNotSupportedException{Message: aws.String("There is no EC2 Image Builder here: give an import task or an AMI as ImageSource.")}
	default:
		return nil, invalid("ImageSource must be one of Ec2ImportTaskId and Ec2ImageId.")
	}
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := newWorkspaceImage(ctx, tx, r); err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(c).Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		return putTags(ctx, tx, r.ID, tagsOf(in.Tags))
	})
	if err != nil {
		return nil, err
	}
	d.start(&importCustomImage, work{ID: r.ID})
	return &workspaces.ImportCustomWorkspaceImageOutput{ImageId: aws.String(r.ID), State: types.CustomWorkspaceImageImportState(c.State)}, nil
}

// DescribeCustomWorkspaceImageImport tells how an ImportCustomWorkspaceImage goes.
func (d *Desk) DescribeCustomWorkspaceImageImport(ctx context.Context, in *workspaces.DescribeCustomWorkspaceImageImportInput) (*workspaces.DescribeCustomWorkspaceImageImportOutput, error) {
	c, err := d.customImport(ctx, aws.ToString(in.ImageId))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, &types.ResourceNotFoundException{Message: aws.String("There is no import of the image " + aws.ToString(in.ImageId) + "."), ResourceId: in.ImageId}
	}
	if err != nil {
		return nil, err
	}
	r, err := d.workspaceImage(ctx, c.ImageID)
	if err != nil {
		return nil, err
	}
	out := &workspaces.DescribeCustomWorkspaceImageImportOutput{ImageId: aws.String(c.ImageID), InfrastructureConfigurationArn: aws.String(c.Infrastructure),
		State: types.CustomWorkspaceImageImportState(c.State), StateMessage: aws.String(c.Message), ProgressPercentage: aws.Int32(int32(c.Progress)), Created: aws.Time(r.CreatedAt), LastUpdatedTime: aws.Time(c.UpdatedAt),
		ImageSource: &types.ImageSourceIdentifierMemberEc2ImageId{Value: c.SourceImage}}
	if c.SourceTask != "" {
		out.ImageSource = &types.ImageSourceIdentifierMemberEc2ImportTaskId{Value: c.SourceTask}
	}
	for _, e := range r.ErrorDetails {
		out.ErrorDetails = append(out.ErrorDetails, types.CustomWorkspaceImageImportErrorDetails{ErrorCode: aws.String(e.Code), ErrorMessage: aws.String(cut(e.Message, 2048))})
	}
	return out, nil
}

// cut is at most so many bytes of a text, whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}

func (d *Desk) customImport(ctx context.Context, id string) (*customImportRecord, error) {
	return recordOf[customImportRecord](ctx, d.db, "custom import", "image_id", id)
}

// importCustomImage makes the image of an ImportCustomWorkspaceImage.
var importCustomImage = flow{
	name: "import-custom-image",
	steps: []step{
		customStep("source", (*Desk).customSource, customInProgress, customSource),
		customStep("share", (*Desk).shareWithService, customTesting, customUpdating),
		customStep("inspect", (*Desk).inspectCustomImage, customChecking),
		customStep("seal", (*Desk).sealImage, customGeneral, customInstance, customComponents, customSealing),
		customStep("publish", (*Desk).publishImage, customValidating, customPublishing),
		customStep("complete", func(*Desk, context.Context, string) error { return nil }, customCompleted),
	},
	fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
		if len(f.Details) == 0 {
			f.Details = []failure{{Code: f.Code, Message: f.Message}}
		}
		if err := ingestImage.fail(d, ctx, id, f); err != nil {
			return err
		}
		_, err := d.db.NewUpdate().Model((*customImportRecord)(nil)).Set("state = ?, message = ?, updated_at = ?", types.CustomWorkspaceImageImportStateError, cut(f.Message, 1000), d.now()).Where("image_id = ?", id).Exec(ctx)
		return err
	},
	pending: func(d *Desk, ctx context.Context) ([]work, error) {
		var ws []work
		err := d.db.NewSelect().Model((*customImportRecord)(nil)).ColumnExpr("image_id AS id").
			Where("state NOT IN (?)", bun.List([]types.CustomWorkspaceImageImportState{types.CustomWorkspaceImageImportStateCompleted, types.CustomWorkspaceImageImportStateError})).Scan(ctx, &ws)
		return ws, err
	},
}

// customStep is a step that passes through states before it does its work.
func customStep(name string, run func(d *Desk, ctx context.Context, id string) error, through ...customStage) step {
	return step{name, func(d *Desk, ctx context.Context, id string) error {
		for _, s := range through {
			// Backwards it never goes: a step that is repeated begins where it was.
			if _, err := d.db.NewUpdate().Model((*customImportRecord)(nil)).Set("state = ?, message = ?, progress = ?, updated_at = ?", s.state, s.message, s.progress, d.now()).
				Where("image_id = ? AND progress <= ?", id, s.progress).Exec(ctx); err != nil {
				return fmt.Errorf("desk: %w", err)
			}
		}
		return run(d, ctx, id)
	}}
}

// customSource finds the AMI, once the import task that makes it has ended, and writes it on the image's record.
func (d *Desk) customSource(ctx context.Context, id string) error {
	c, err := d.customImport(ctx, id)
	if err != nil {
		return err
	}
	source := c.SourceImage
	for c.SourceTask != "" && source == "" {
		t, err := d.importTask(ctx, c.SourceTask)
		if err != nil {
			return err
		}
		switch t.Status {
		case taskCompleted:
			source = t.ImageID
			continue
		case taskDeleting, taskDeleted:
			return &failure{Code: "SourceImageFailed", Message: fmt.Sprintf("The import task %s ended without an image: %s", t.ID, t.StatusMessage)}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(superviseInterval):
		}
	}
	ami, err := d.machineImage(ctx, source)
	if err != nil {
		if f := noImage(source); err.Error() == f.Error() {
			return &failure{Code: "InvalidAMIID.NotFound", Message: "The AMI " + source + " has been deregistered."}
		}
		return err
	}
	s, err := d.snapshot(ctx, ami.SnapshotID)
	if err != nil {
		return err
	}
	r := &workspaceImageRecord{ID: id, MachineImageID: ami.ID, SnapshotID: ami.SnapshotID, SizeBytes: s.SizeBytes, BootMode: ami.BootMode}
	_, err = d.db.NewUpdate().Model(r).Column("machine_image_id", "snapshot_id", "size_bytes", "boot_mode").WherePK().Exec(ctx)
	return err
}

// inspectCustomImage is inspectImage, and holds the Windows that was said against the one that is there.
func (d *Desk) inspectCustomImage(ctx context.Context, id string) error {
	c, err := d.customImport(ctx, id)
	if err != nil {
		return err
	}
	return d.inspect(ctx, id, func(w check.Windows) []failure {
		said := strings.ReplaceAll(c.OSVersion, "_", " ")
		if found := windowsGeneration(w.Build); found != "" && found != said {
			return []failure{{Code: "OperatingSystemVersionMismatch", Message: fmt.Sprintf("OsVersion %s was given, and the disk has %s (build %s).", c.OSVersion, found, w.Build)}}
		}
		return nil
	})
}

// windowsGeneration is the name of the Windows that a build is of: builds from 22000 on are Windows 11 (facts §4.5). "" when the
// build is no number.
func windowsGeneration(build string) string {
	var n int
	if _, err := fmt.Sscan(build, &n); err != nil {
		return ""
	}
	if n >= 22000 {
		return "Windows 11"
	}
	return "Windows 10"
}
