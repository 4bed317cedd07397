package sdk

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// program is the service, which make sdk builds first.
const program = "../../bin/berth"

// service is a running service, by the SDK's clients of one user.
type service struct {
	ec2     *ec2.Client
	s3      *s3.Client
	sts     *sts.Client
	account string
}

func serve(t *testing.T) *service {
	t.Helper()
	data := t.TempDir()
	log, err := os.Create(filepath.Join(data, "service.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "serve", "--data", data, "--listen", "127.0.0.1:0", "--accelerator", "tcg", "--on-exit", "power-off")
	cmd.Stdout, cmd.Stderr = log, log
	// When this process dies without cleaning up, the service is told to end. The signal is bound to the thread that starts it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("%v (build it first: make sdk)", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended already
		if err := <-ended; err != nil {
			t.Errorf("the service ended with %v", err)
		}
		if t.Failed() {
			b, err := os.ReadFile(log.Name())
			t.Logf("the service's log (%v):\n%s", err, b)
		}
	})
	var admin struct{ Endpoint, Region, AccountID, AccessKeyID, SecretAccessKey string }
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(data, "admin.json"))
		if err == nil {
			if err := json.Unmarshal(b, &admin); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the service did not become ready")
		}
	}
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: admin.AccessKeyID, SecretAccessKey: admin.SecretAccessKey}, nil
	})
	return &service{
		ec2:     ec2.New(ec2.Options{Region: admin.Region, BaseEndpoint: &admin.Endpoint, Credentials: credentials}),
		s3:      s3.New(s3.Options{Region: admin.Region, BaseEndpoint: &admin.Endpoint, Credentials: credentials, UsePathStyle: true}),
		sts:     sts.New(sts.Options{Region: admin.Region, BaseEndpoint: &admin.Endpoint, Credentials: credentials}),
		account: admin.AccountID,
	}
}

// refused sees that a call was refused with EC2's code and text.
func refused(t *testing.T, what string, err error, code, says string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), says) {
		t.Errorf("%s: got %v, want %s with %q", what, err, code, says)
	}
}

// same holds a value against what was put in.
func same[T comparable](t *testing.T, what string, got *T, want T) {
	t.Helper()
	if got == nil {
		t.Errorf("%s is missing, want %v", what, want)
	} else if *got != want {
		t.Errorf("%s is %v, want %v", what, *got, want)
	}
}

// TestEC2 drives every EC2 operation of the service by the SDK's own client: what it writes is understood, and what it reads
// is what was put in.
func TestEC2(t *testing.T) {
	s := serve(t)
	vm := filepath.Join(t.TempDir(), "win10.ova")
	if out, err := exec.CommandContext(t.Context(), program, "sample", vm).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk := filepath.Join(t.TempDir(), "disk.vhdx")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "vhdx", disk, "64M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := s.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("exports")}); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"win10.ova": vm, "disk.vhdx": disk} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := s.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("exports"), Key: &name, Body: f}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("STS", func(t *testing.T) { identity(t, s) })
	t.Run("encryption by default", func(t *testing.T) { encryption(t, s) })
	var amis []string
	t.Run("ImportImage", func(t *testing.T) { amis = importImages(t, s, sizeInArchive(t, vm, ".vmdk")) })
	if len(amis) == 2 {
		t.Run("DescribeImages", func(t *testing.T) { describeImages(t, s, amis) })
		t.Run("image attributes", func(t *testing.T) { attributes(t, s, amis[0]) })
		t.Run("DeregisterImage", func(t *testing.T) { deregister(t, s, amis) })
	}
	t.Run("ImportSnapshot", func(t *testing.T) { importSnapshot(t, s) })
	t.Run("several disks", func(t *testing.T) { severalDisks(t, s) })
	t.Run("CancelImportTask", func(t *testing.T) { cancel(t, s) })
}

// sizeInArchive is how large the file with that ending is in an OVA, in bytes.
func sizeInArchive(t *testing.T, ova, ending string) int64 {
	t.Helper()
	f, err := os.Open(ova)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(h.Name, ending) {
			return h.Size
		}
	}
}

func identity(t *testing.T, s *service) {
	out, err := s.sts.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "Account", out.Account, s.account)
	same(t, "Arn", out.Arn, "arn:aws:iam::"+s.account+":user/admin")
	if aws.ToString(out.UserId) == "" {
		t.Error("UserId is missing")
	}
}

func encryption(t *testing.T, s *service) {
	c := s.ec2
	for _, dry := range []*bool{nil, aws.Bool(false)} {
		on, err := c.EnableEbsEncryptionByDefault(t.Context(), &ec2.EnableEbsEncryptionByDefaultInput{DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "encryption by default", on.EbsEncryptionByDefault, true)
	}
	_, err := c.DisableEbsEncryptionByDefault(t.Context(), &ec2.DisableEbsEncryptionByDefaultInput{DryRun: aws.Bool(true)})
	refused(t, "dry run of disabling", err, "DryRunOperation", "would have succeeded")
	got, err := c.GetEbsEncryptionByDefault(t.Context(), &ec2.GetEbsEncryptionByDefaultInput{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "encryption by default after a dry run of disabling it", got.EbsEncryptionByDefault, true)
	_, err = c.ImportImage(t.Context(), importing("win10.ova"))
	refused(t, "import with encryption by default", err, "InvalidParameter", "Encryption by default is on")
	off, err := c.DisableEbsEncryptionByDefault(t.Context(), &ec2.DisableEbsEncryptionByDefaultInput{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "encryption by default", off.EbsEncryptionByDefault, false)
	_, err = c.GetEbsEncryptionByDefault(t.Context(), &ec2.GetEbsEncryptionByDefaultInput{DryRun: aws.Bool(true)})
	refused(t, "dry run of asking", err, "DryRunOperation", "would have succeeded")
	_, err = c.EnableEbsEncryptionByDefault(t.Context(), &ec2.EnableEbsEncryptionByDefaultInput{DryRun: aws.Bool(true)})
	refused(t, "dry run of enabling", err, "DryRunOperation", "would have succeeded")
}

// eventually waits for something to become true.
func eventually(t *testing.T, is func() (bool, error)) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ok, err := is()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("not in two minutes")
		}
	}
}
