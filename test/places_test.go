package test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Exports in the service's own buckets and in those of another endpoint are imported by the same service. The other endpoint is another
// real service: nothing is put to it but what a client puts there, and it sees signed requests alone.
func TestBucketsHereAndElsewhere(t *testing.T) {
	t.Parallel()
	other := serve(t)
	reader := other.user(t, "reader", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],"Resource":["arn:aws:s3:::elsewhere","arn:aws:s3:::elsewhere/*"]}]}`)
	s := serve(t, "--s3-endpoint", other.Endpoint, "--s3-access-key", reader.AccessKeyID, "--s3-secret-key", reader.SecretAccessKey, "--s3-buckets", "elsewhere,locked")
	for _, b := range []string{"elsewhere", "locked", "unlisted"} {
		other.bucket(t, b)
		other.put(t, b, "small.vmdk", export(t, "small", "vmdk"))
	}
	s.bucket(t, "exports")
	s.put(t, "exports", "small.ova", export(t, "small", "ova"))
	s.ami(t, "exports", "small.ova")
	s.ami(t, "elsewhere", "small.vmdk")
	if files := s.files(t); len(files) != 1 {
		t.Errorf("one machine from two places is kept as %v", files)
	}
	for bucket, says := range map[string]string{"unlisted": "404 Not Found", "locked": "403 Forbidden", "nowhere": "404 Not Found"} {
		asked, err := s.importDisk(t, bucket, "small.vmdk")
		if err != nil {
			t.Fatal(err)
		}
		seen := s.imported(t, asked.ID)
		if last := seen[len(seen)-1]; last.Status != "deleted" || !strings.HasPrefix(last.StatusMessage, "ClientError: Disk validation failed [We do not have access to the given resource. Reason "+says) {
			t.Errorf("%s: %+v", bucket, last)
		}
	}
	name := "elsewhere"
	refuse(t, []refusal{{"a bucket in the place of another's", code("BucketAlreadyExists", "not available"), func() error {
		return errorOf(s.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}))
	}}})
}
