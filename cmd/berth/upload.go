package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

const (
	leastPart     = 16 << 20 // bytes of a part of an upload
	mostParts     = 9000     // S3 allows 10,000
	parallelParts = 3
)

// upload puts the export into the bucket, in parts; what an interrupted run has uploaded is not sent again.
func (j *journey) upload(ctx context.Context, say func(string)) (string, error) {
	f, err := os.Open(j.vm)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	object := fmt.Sprintf("s3://%s/%s", bucket, j.key())
	err = j.call(ctx, func(c *client) error {
		_, err := c.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket), CreateBucketConfiguration: location(c.admin.Region)})
		if err != nil && !refusedWith(err, "BucketAlreadyOwnedByYou") {
			return err
		}
		head, err := c.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: aws.String(j.key())})
		if err == nil && aws.ToInt64(head.ContentLength) == fi.Size() {
			return nil
		}
		if err != nil && !refusedWith(err, "NotFound") {
			return err
		}
		return j.uploadParts(ctx, c, f, fi.Size(), say)
	})
	return fmt.Sprintf("%s, %s", object, size(fi.Size())), err
}

// location is where a bucket is to be; S3 wants nothing said for us-east-1.
func location(region string) *s3types.CreateBucketConfiguration {
	if region == "us-east-1" {
		return nil
	}
	return &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(region)}
}

func (j *journey) uploadParts(ctx context.Context, c *client, f *os.File, total int64, say func(string)) error {
	id, have, err := j.unfinished(ctx, c)
	if err != nil {
		return err
	}
	part := max(int64(leastPart), (total+mostParts-1)/mostParts)
	parts := make([]s3types.CompletedPart, max(1, (total+part-1)/part))
	var sent atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelParts)
	for i := range parts {
		at := int64(i) * part
		n := min(part, total-at)
		number := int32(i + 1)
		if k := slices.IndexFunc(have, func(p s3types.Part) bool { return aws.ToInt32(p.PartNumber) == number && aws.ToInt64(p.Size) == n }); k >= 0 {
			parts[i] = s3types.CompletedPart{ETag: have[k].ETag, PartNumber: aws.Int32(number)}
			sent.Add(n)
			continue
		}
		g.Go(func() error {
			out, err := c.s3.UploadPart(gctx, &s3.UploadPartInput{Bucket: aws.String(bucket), Key: aws.String(j.key()), UploadId: aws.String(id), PartNumber: aws.Int32(number), Body: io.NewSectionReader(f, at, n)})
			if err != nil {
				return err
			}
			parts[i] = s3types.CompletedPart{ETag: out.ETag, PartNumber: aws.Int32(number)}
			say(fmt.Sprintf("%s of %s", size(sent.Add(n)), size(total)))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = c.s3.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: aws.String(bucket), Key: aws.String(j.key()), UploadId: aws.String(id), MultipartUpload: &s3types.CompletedMultipartUpload{Parts: parts}})
	return err
}

// unfinished finds the upload that an interrupted run has begun, with the parts that are there, or begins one.
func (j *journey) unfinished(ctx context.Context, c *client) (id string, have []s3types.Part, err error) {
	list, err := c.s3.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: aws.String(bucket), Prefix: aws.String(j.key())})
	if err != nil {
		return "", nil, err
	}
	for _, u := range list.Uploads {
		if aws.ToString(u.Key) != j.key() {
			continue
		}
		p := s3.NewListPartsPaginator(c.s3, &s3.ListPartsInput{Bucket: aws.String(bucket), Key: u.Key, UploadId: u.UploadId})
		for p.HasMorePages() {
			out, err := p.NextPage(ctx)
			if err != nil {
				return "", nil, err
			}
			have = append(have, out.Parts...)
		}
		return aws.ToString(u.UploadId), have, nil
	}
	made, err := c.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String(bucket), Key: aws.String(j.key())})
	if err != nil {
		return "", nil, err
	}
	return aws.ToString(made.UploadId), nil, nil
}
