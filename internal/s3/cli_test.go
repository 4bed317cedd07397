package s3

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cli runs the AWS CLI against a door, with a home of its own.
type cli struct {
	d    *door
	home string
}

func newCLI(t *testing.T) cli {
	t.Helper()
	if _, err := os.Stat("/usr/bin/aws"); err != nil {
		t.Fatal("the AWS CLI is needed (scripts/setup test installs it)")
	}
	return cli{openDoor(t), t.TempDir()}
}

func (c cli) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/aws", append([]string{"--endpoint-url", c.d.url}, args...)...)
	cmd.Env = []string{"HOME=" + c.home, "PATH=/usr/bin:/bin", "AWS_ACCESS_KEY_ID=" + testKeyID, "AWS_SECRET_ACCESS_KEY=" + testSecret,
		"AWS_DEFAULT_REGION=" + testRegion, "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER="}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c cli) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.run(t, args...)
	if err != nil {
		t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// What a user types: make a bucket, upload a file in parts, look, share, download, copy, move, remove.
func TestAWSCLI(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	content := noise(3, 40<<20+99)
	file := filepath.Join(c.home, "win 10.ova")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kv := range [][2]string{{"multipart_chunksize", "5MB"}, {"multipart_threshold", "8MB"}, {"max_concurrent_requests", "4"}} {
		c.must(t, "configure", "set", "default.s3."+kv[0], kv[1])
	}
	c.must(t, "s3", "mb", "s3://exports")
	c.must(t, "s3", "cp", "--no-progress", file, "s3://exports/vm/win 10.ova")
	o, err := c.d.store.head("exports", "vm/win 10.ova")
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Parts) != 9 || !strings.HasSuffix(o.ETag, "-9") || !bytes.Equal(c.d.get(t, "exports", "vm/win 10.ova"), content) {
		t.Errorf("%d parts, ETag %s, or another content", len(o.Parts), o.ETag)
	}
	if out := c.must(t, "s3", "ls", "s3://exports/vm/"); !strings.Contains(out, "41943139 win 10.ova") {
		t.Errorf("s3 ls: %s", out)
	}
	c.must(t, "s3", "cp", "--no-progress", "s3://exports/vm/win 10.ova", file+".back")
	if back, err := os.ReadFile(file + ".back"); err != nil || !bytes.Equal(back, content) {
		t.Errorf("what came back differs: %v", err)
	}
	c.must(t, "s3", "cp", "--no-progress", "--copy-props", "none", "s3://exports/vm/win 10.ova", "s3://exports/copy.ova")
	if !bytes.Equal(c.d.get(t, "exports", "copy.ova"), content) {
		t.Error("the copy differs")
	}
	url := strings.TrimSpace(c.must(t, "s3", "presign", "s3://exports/vm/win 10.ova"))
	if status, text := raw(t, "GET", url, nil, nil); status != 200 || text != string(content) {
		t.Errorf("presigned: %d, %d bytes", status, len(text))
	}
	if status, text := raw(t, "GET", strings.Replace(url, "X-Amz-Signature=", "X-Amz-Signature=0", 1), nil, nil); status == 200 {
		t.Errorf("a presigned URL with another signature: %d %s", status, text)
	}
	small := filepath.Join(c.home, "small")
	if err := os.WriteFile(small, []byte("small"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.must(t, "s3api", "put-object", "--bucket", "exports", "--key", "small", "--body", small, "--checksum-algorithm", "SHA256")
	c.must(t, "s3", "mv", "s3://exports/small", "s3://exports/moved")
	if out, err := c.run(t, "s3api", "head-object", "--bucket", "exports", "--key", "small"); err == nil || !strings.Contains(out, "404") {
		t.Errorf("head-object of what was moved away: %s", out)
	}
	if out, err := c.run(t, "s3", "rb", "s3://exports"); err == nil || !strings.Contains(out, "BucketNotEmpty") {
		t.Errorf("s3 rb: %s", out)
	}
	c.must(t, "s3", "rb", "--force", "s3://exports")
	if n := files(t, c.d.store.dir); len(n) != 1 {
		t.Errorf("files are left: %v", n)
	}
}
