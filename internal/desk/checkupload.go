package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/check"
	"berth/internal/image"
	"berth/internal/s3"
)

// CheckUploadInput names an upload that is under way.
type CheckUploadInput struct {
	Bucket, Key *string
	SizeBytes   int64   // of the whole file
	Format      *string // what it is, "RAW", "VMDK", …; found out by its content when left out
	Office      bool    // Microsoft Office is to be subscribed to
	// IngestionProcess is the one asked for; BYOL_REGULAR when left out.
	IngestionProcess *string
}

// CheckUploadOutput is the verdict on what has come so far.
type CheckUploadOutput struct {
	UploadedBytes int64
	Report        string // check.Report as JSON
}

// CheckUpload runs the checks over a multipart upload while it goes on. What has not come yet is UNKNOWN; what has is as it will be.
func (b *Berth) CheckUpload(ctx context.Context, in *CheckUploadInput) (*CheckUploadOutput, error) {
	d := b.d
	uploads, ok := d.cfg.Objects.(interface {
		Partial(bucket, key string, size int64) (*s3.Partial, error)
	})
	if !ok {
		return nil, &types.OperationNotSupportedException{Message: aws.String("Uploads do not come to this service, but to another endpoint.")}
	}
	if in.SizeBytes <= 0 || in.SizeBytes > s3.MaxObjectBytes {
		return nil, invalid("SizeBytes must be the size of the whole file, in bytes.")
	}
	process := firstOf(aws.ToString(in.IngestionProcess), string(types.WorkspaceImageIngestionProcessByolRegular))
	p, err := uploads.Partial(aws.ToString(in.Bucket), aws.ToString(in.Key), in.SizeBytes)
	var refusal *s3.Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, &types.ResourceNotFoundException{Message: aws.String("No upload of s3://" + aws.ToString(in.Bucket) + "/" + aws.ToString(in.Key) + " is under way."), ResourceId: in.Key}
	case errors.Is(err, s3.ErrNotUploaded):
		return nil, invalid("No part of it has come yet.")
	case err != nil:
		return nil, fmt.Errorf("desk: %w", err)
	}
	defer p.Close()
	profile, _ := check.ProfileByName(d.cfg.Profile) // identify has refused one that does not exist
	report, err := image.InspectPartial(ctx, p, strings.ToUpper(aws.ToString(in.Format)), check.Options{Profile: profile, Process: check.Process(process), Office: in.Office})
	var f *image.Failure
	switch {
	case errors.As(err, &f) && !p.Missed():
		return nil, invalid("After %s of %s: %s", sizeText(p.Uploaded()), sizeText(in.SizeBytes), f.StatusMessage)
	case errors.As(err, &f), errors.Is(err, s3.ErrNotUploaded): // what is missing may be what it failed for
		return nil, invalid("After %s of %s, what says where Windows is has not come yet.", sizeText(p.Uploaded()), sizeText(in.SizeBytes))
	case err != nil:
		return nil, err
	}
	raw, err := json.Marshal(report)
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	return &CheckUploadOutput{p.Uploaded(), string(raw)}, nil
}
