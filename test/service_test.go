package test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/smithy-go"

	"berth/internal/compute/computetest"
	"berth/internal/phony"
	"berth/testdata/machines"
)

// scratch is the folder of this run of the tests: the program, and the exports that stories share.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "berth-stories-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// program builds berth, once, and only when a test needs it.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "berth")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/berth").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// service is a process of the real program, with the files that it keeps, and the administrator's client.
type service struct {
	*client
	data string
}

// serve starts the service on a free port. It ends with the test, with its machines.
func serve(t *testing.T, flags ...string) *service {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	logFile := filepath.Join(data, "service.log")
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := []string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--accelerator", "tcg", "--on-exit", "power-off", "--grace", "1s"}
	cmd := exec.Command(path, append(args, flags...)...)
	cmd.Stderr, cmd.Stdout = log, log
	// When this process dies without cleaning up, the service is told to end: once, since a second signal would not let it
	// turn its machines off. The signal is bound to the thread that starts it, so that thread has to stay.
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
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, cmd, ended, data, logFile) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(data, "admin.json"))
		if err == nil {
			c := &client{http: &http.Client{Timeout: time.Minute}}
			if err := json.Unmarshal(b, &c.key); err != nil {
				t.Fatal(err)
			}
			c.dial()
			return &service{c, data}
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the service ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the service did not become ready")
		}
	}
}

// stop ends a service as an admin does, and sees that nothing of it is left.
func stop(t *testing.T, cmd *exec.Cmd, ended chan error, data, logFile string) {
	cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended already
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the service ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the service did not end")
		cmd.Process.Kill() //nolint:errcheck // there is no more that can be done
	}
	if left := computetest.Processes(t, data); len(left) > 0 {
		t.Errorf("machines outlived the service: %v", left)
	}
	if t.Failed() {
		b, err := os.ReadFile(logFile)
		t.Logf("the service's log (%v):\n%s", err, b[max(0, len(b)-20_000):])
	}
}

// key is what admin.json holds.
type key struct {
	Endpoint        string `json:"endpoint"`
	Region          string `json:"region"`
	AccountID       string `json:"accountId"`
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
}

// client speaks to a service over the network, as one user.
type client struct {
	key
	http       *http.Client
	workspaces *workspaces.Client
	s3         *s3.Client
}

func (c *client) dial() {
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c.credentials(), nil })
	c.workspaces = workspaces.New(workspaces.Options{Region: c.Region, BaseEndpoint: &c.Endpoint, Credentials: credentials})
	c.s3 = s3.New(s3.Options{Region: c.Region, BaseEndpoint: &c.Endpoint, Credentials: credentials, UsePathStyle: true})
}

func (c *client) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey}
}

// user makes a user with a policy, and is that user's client.
func (c *client) user(t *testing.T, name, policy string) *client {
	t.Helper()
	u := &client{key: c.key, http: c.http}
	var out struct{ AccessKeyId, SecretAccessKey string }
	if err := c.berth(t, "CreateAccessKey", map[string]any{"UserName": name, "Policy": policy}, &out); err != nil {
		t.Fatal(err)
	}
	u.AccessKeyID, u.SecretAccessKey = out.AccessKeyId, out.SecretAccessKey
	u.dial()
	return u
}

// request is one POST, signed, whose parts a test may change before it is sent.
type request struct {
	body    string
	header  http.Header
	service string    // what it is signed for; "" sends it without a signature
	at      time.Time // when it was signed; default now

	signedBody string // the body that it was signed with; default body
}

// target is a request of the WorkSpaces protocol.
func target(service, operation, body string) request {
	return request{body: body, service: service, header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {operation}}}
}

// form is a request of the Query protocols.
func form(service, body string) request {
	return request{body: body, service: service, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}}
}

// send sends a request. A refusal comes as a *smithy.GenericAPIError, in whichever protocol it was written.
func (c *client) send(t *testing.T, r request) (answer []byte, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Endpoint+"/", strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = r.header
	if r.at.IsZero() {
		r.at = time.Now()
	}
	if r.service != "" {
		sum := sha256.Sum256([]byte(cmp.Or(r.signedBody, r.body)))
		if err := v4.NewSigner().SignHTTP(t.Context(), c.credentials(), req, hex.EncodeToString(sum[:]), r.service, c.Region, r.at); err != nil {
			t.Fatal(err)
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil || res.StatusCode == http.StatusOK {
		return answer, err
	}
	var e struct {
		Type      string `json:"__type" xml:"-"`
		Text      string `json:"message" xml:"-"`
		EC2Code   string `json:"-" xml:"Errors>Error>Code"`
		EC2Text   string `json:"-" xml:"Errors>Error>Message"`
		QueryCode string `json:"-" xml:"Error>Code"`
		QueryText string `json:"-" xml:"Error>Message"`
	}
	if strings.Contains(res.Header.Get("Content-Type"), "json") {
		err = json.Unmarshal(answer, &e)
	} else {
		err = xml.Unmarshal(answer, &e)
	}
	if err != nil {
		t.Errorf("HTTP status %d with what is neither of AWS's error shapes: %v\n%s", res.StatusCode, err, answer)
	}
	if res.Header.Get("X-Amzn-Requestid") == "" {
		t.Error("the answer has no request id")
	}
	return nil, &smithy.GenericAPIError{Code: e.Type + e.EC2Code + e.QueryCode, Message: e.Text + e.EC2Text + e.QueryText}
}

// berth calls an operation of the service's own door.
func (c *client) berth(t *testing.T, operation string, in map[string]any, out any) error {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.send(t, target("berth", "BerthService."+operation, string(body)))
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

// ec2 calls an EC2 operation with parameters in pairs: name, value.
func (c *client) ec2(t *testing.T, out any, action string, params ...string) error {
	t.Helper()
	q := url.Values{"Action": {action}, "Version": {"2016-11-15"}}
	for i := 0; i+1 < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	answer, err := c.send(t, form("ec2", q.Encode()))
	if err != nil || out == nil {
		return err
	}
	return xml.Unmarshal(answer, out)
}

// bucket makes a bucket.
func (c *client) bucket(t *testing.T, name string) {
	t.Helper()
	if _, err := c.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
}

// put uploads a file.
func (c *client) put(t *testing.T, bucket, name, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := c.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &name, Body: f}); err != nil {
		t.Fatalf("uploading %s: %v", name, err)
	}
}

// task is an import task as described; image and snapshot tasks look different.
type task struct {
	ID            string `xml:"importTaskId"`
	Status        string `xml:"status"`
	StatusMessage string `xml:"statusMessage"`
	Progress      string `xml:"progress"`
	ImageID       string `xml:"imageId"`
	BootMode      string `xml:"bootMode"`
	Format        string `xml:"snapshotDetailSet>item>format"`
	DiskStatus    string `xml:"snapshotDetailSet>item>status"`
	DiskSnapshot  string `xml:"snapshotDetailSet>item>snapshotId"`

	Detail *struct {
		Status        string `xml:"status"`
		StatusMessage string `xml:"statusMessage"`
		SnapshotID    string `xml:"snapshotId"`
		Format        string `xml:"format"`
	} `xml:"snapshotTaskDetail"`
}

// importDisk asks for an import of an uploaded file. The format is that of the name's ending.
func (c *client) importDisk(t *testing.T, bucket, name string, params ...string) (task, error) {
	t.Helper()
	var out task
	err := c.ec2(t, &out, "ImportImage", append([]string{"DiskContainer.1.UserBucket.S3Bucket", bucket, "DiskContainer.1.UserBucket.S3Key", name}, params...)...)
	return out, err
}

// imported waits until an import has ended, one way or the other, and tells every look at it that was different.
func (c *client) imported(t *testing.T, id string) (seen []task) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(3 * time.Millisecond) {
		var out struct {
			Tasks []task `xml:"importImageTaskSet>item"`
		}
		if err := c.ec2(t, &out, "DescribeImportImageTasks", "ImportTaskId.1", id); err != nil {
			t.Fatal(err)
		}
		if len(out.Tasks) != 1 || out.Tasks[0].ID != id {
			t.Fatalf("asked for task %s, got %+v", id, out.Tasks)
		}
		now := out.Tasks[0]
		if len(seen) == 0 || seen[len(seen)-1] != now {
			seen = append(seen, now)
		}
		if now.Status == "completed" || now.Status == "deleted" {
			return seen
		}
	}
	t.Fatalf("import %s did not end: %+v", id, seen)
	return nil
}

// ami imports an uploaded disk and is the AMI's id.
func (c *client) ami(t *testing.T, bucket, name string) string {
	t.Helper()
	asked, err := c.importDisk(t, bucket, name)
	if err != nil {
		t.Fatal(err)
	}
	seen := c.imported(t, asked.ID)
	last := seen[len(seen)-1]
	if last.ImageID == "" {
		t.Fatalf("%s was not imported: %+v", name, last)
	}
	return last.ImageID
}

// eventually waits for something to become true.
func eventually(t *testing.T, what string, is func() (bool, error)) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		ok, err := is()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in two minutes", what)
		}
	}
}

// export makes an export of one of the sample machines, once in a run.
func export(t *testing.T, kind, format string) string {
	t.Helper()
	make, _ := exports.LoadOrStore(kind+"."+format, sync.OnceValues(func() (string, error) {
		fsys := fs.FS(machines.FS)
		var err error
		if kind == "small" {
			if fsys, err = small(); err != nil {
				return "", err
			}
		}
		m, err := phony.LoadFS(fsys, kind)
		if err != nil {
			return "", err
		}
		path := filepath.Join(scratch, kind+"."+format)
		return path, m.Export(context.WithoutCancel(t.Context()), path, format)
	}))
	path, err := make.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var exports sync.Map

// small is the sample on a disk of 256 MiB, so that a raw export of it can be uploaded. It is what an import wants, and too
// small for an image.
func small() (fs.FS, error) {
	base, err := fs.ReadFile(machines.FS, phony.Base+".txtar")
	if err != nil {
		return nil, err
	}
	return fstest.MapFS{phony.Base + ".txtar": {Data: base}, "small.txtar": {Data: []byte(`The sample on a small disk.

-- machine --
base = win10-2004-enterprise
disk = 256MiB

-- files --
- pagefile.sys
- swapfile.sys
`)}}, nil
}

// refusal is a call that AWS refuses, and how.
type refusal struct {
	name string
	want func(error) error
	call func() error
}

// exception is AWS's exception of the type E, whose message contains says.
func exception[E smithy.APIError](says string) func(error) error {
	return func(err error) error {
		var e E
		if !errors.As(err, &e) {
			return fmt.Errorf("got %w, want %T", err, e)
		}
		return saying(e, says)
	}
}

// code is an error that the SDK has no type for: of the wire, of EC2, of one request of several.
func code(name, says string) func(error) error {
	return func(err error) error {
		var e smithy.APIError
		if !errors.As(err, &e) || e.ErrorCode() != name {
			return fmt.Errorf("got %w, want %s", err, name)
		}
		return saying(e, says)
	}
}

func saying(e smithy.APIError, says string) error {
	if !strings.Contains(e.ErrorMessage(), says) {
		return fmt.Errorf("%s says %q, want %q in it", e.ErrorCode(), e.ErrorMessage(), says)
	}
	return nil
}

// refuse makes the calls and sees each of them refused.
func refuse(t *testing.T, rs []refusal) {
	t.Helper()
	for _, r := range rs {
		if err := r.want(r.call()); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
	}
}

// errorOf is a call's error alone.
func errorOf[T any](_ T, err error) error { return err }
