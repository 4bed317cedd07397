package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The verdict on an export can be read while it is being uploaded: by the command for it, of as much as has come. What has not come
// is no fault of the export's.
func TestAnUploadIsCheckedByTheCommand(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.bucket(t, "exports")
	file := export(t, "auto-logon-enabled", "vhdx") // 4 MiB and more of structures, then what is stored, then room
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bucket, key := aws.String("exports"), aws.String("win10.vhdx")
	up, err := s.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	const part = 5 << 20
	send := func(n int) {
		t.Helper()
		body := bytes.NewReader(content[n*part : min(len(content), (n+1)*part)])
		if _, err := s.s3.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(n + 1)), Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	verdict := func() (said string, code int) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), path, "admin", "check-upload", "--data", s.data, *bucket, *key, file).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if exit != nil {
			code = exit.ExitCode()
		}
		return string(out), code
	}
	send(0)
	if said, code := verdict(); code != 2 || !strings.Contains(said, "After 5.0 MiB of ") || !strings.Contains(said, "what says where Windows is has not come yet.") {
		t.Errorf("of one part: %d, %s", code, said)
	}
	last := (len(content) - 1) / part
	for n := 1; n < last; n++ {
		send(n)
	}
	come := fmt.Sprintf("%.1f MiB of %.1f MiB have come.\n", float64(last*part)/(1<<20), float64(len(content))/(1<<20))
	if said, code := verdict(); code != 1 || !strings.Contains(said, come) || !strings.Contains(said, "AutoLogonEnabled: ") {
		t.Errorf("of all but the last part: %d, %s", code, said)
	}
}
