package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"berth/internal/awsapi"
)

// ExternalOptions say where an S3-compatible object store is and how to sign for it.
type ExternalOptions struct {
	Endpoint        string // https://s3.example.net; "" for Amazon's own of the Region
	Region          string
	AccessKeyID     string // "" for requests without a signature
	SecretAccessKey awsapi.Secret
	PathStyle       bool          // bucket in the path, as most stores want it, instead of in the host's name
	Stall           time.Duration // a download that does not move for so long is begun again; a minute when 0
}

// External reads objects from an S3-compatible endpoint.
type External struct {
	client *awss3.Client
	stall  time.Duration
	piece  int64 // bytes of one GET
}

// NewExternal makes a source of an endpoint. It does not connect.
func NewExternal(o ExternalOptions) *External {
	opts := awss3.Options{Region: o.Region, UsePathStyle: o.PathStyle, Credentials: aws.AnonymousCredentials{},
		// Stores that are not Amazon's may not know the newer checksums: ask for them only where the protocol requires it.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		// No redirect is followed: where it leads nobody has configured, and it may be a place that only this host can reach.
		HTTPClient: &http.Client{Transport: awshttp.NewBuildableClient().GetTransport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	if o.Endpoint != "" {
		opts.BaseEndpoint = aws.String(strings.TrimSuffix(o.Endpoint, "/"))
	}
	if o.AccessKeyID != "" {
		opts.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: o.AccessKeyID, SecretAccessKey: o.SecretAccessKey.Reveal(), Source: "berth"}, nil
		})
	}
	e := &External{client: awss3.New(opts), stall: o.Stall, piece: defaultPieceBytes}
	if e.stall <= 0 {
		e.stall = stallTime
	}
	return e
}

// Stat implements Source by HeadObject.
func (e *External) Stat(ctx context.Context, bucket, key string) (Info, error) {
	if err := errors.Join(checkBucketName(bucket), checkKey(key)); err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.stall) // the client has no time limit for an answer
	defer cancel()
	out, err := e.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		err = e.refused(err)
		// The answer to a HEAD has no body, so that a missing bucket looks like a missing key.
		if errors.Is(err, ErrNoSuchKey) {
			if _, b := e.client.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: &bucket}); errors.Is(e.refused(b), ErrNoSuchKey) {
				err = ErrNoSuchBucket.about(bucket)
			}
		}
		return Info{}, fmt.Errorf("s3://%s/%s: %w", bucket, key, err)
	}
	if out.ContentLength == nil || *out.ContentLength < 0 || *out.ContentLength > MaxObjectBytes || aws.ToString(out.ETag) == "" {
		return Info{}, fmt.Errorf("s3://%s/%s: %w", bucket, key, ErrInvalidRequest.saying("its endpoint does not tell how large it is, or no ETag"))
	}
	return Info{Size: *out.ContentLength, ETag: strings.Trim(*out.ETag, `"`), Modified: aws.ToTime(out.LastModified)}, nil
}

// Stage implements Source: by ranged GETs in parallel into dst+".part". After an interruption it goes on where it stopped, as long as
// the object's ETag is the same; every request asks for that ETag, so that a file is never of two objects. When an object
// is staged again after it was complete, it is downloaded again.
func (e *External) Stage(ctx context.Context, bucket, key, dst string, progress func(done, total int64)) error {
	info, err := e.Stat(ctx, bucket, key)
	if err != nil {
		return err
	}
	d := &download{source: bucket + "\x00" + key, dst: dst, info: info, pieceBytes: e.piece, stall: e.stall, progress: progress, refused: e.refused,
		get: func(ctx context.Context, s span) (io.ReadCloser, string, error) {
			out, err := e.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &bucket, Key: &key, IfMatch: aws.String(quoted(info.ETag)), Range: aws.String(s.header())})
			if err != nil {
				return nil, "", err
			}
			return out.Body, aws.ToString(out.ContentRange), nil
		}}
	if err := d.stage(ctx); err != nil {
		return fmt.Errorf("stage s3://%s/%s: %w", bucket, key, err)
	}
	return nil
}

// refused turns the endpoint's answer into a Refusal where a Source has one.
func (e *External) refused(err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return err
	}
	switch api.ErrorCode() {
	case "NoSuchBucket":
		return ErrNoSuchBucket
	case "NoSuchKey", "NotFound": // HeadObject's, whose answer has no body
		return ErrNoSuchKey
	case "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return ErrAccessDenied.saying("%s: %s", api.ErrorCode(), api.ErrorMessage())
	}
	var answer *awshttp.ResponseError
	if !errors.As(err, &answer) {
		return err
	}
	switch status := answer.HTTPStatusCode(); {
	case status == http.StatusPreconditionFailed:
		return ErrPreconditionFailed
	case passing(status), status < http.StatusMultipleChoices:
		return err
	default: // a bucket of another Region (301), keys that have expired (400), …
		return ErrInvalidRequest.saying("its endpoint answered %d %s", status, http.StatusText(status))
	}
}

// passing reports whether an answer's status tells of trouble that may be over when it is asked again.
func passing(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}
