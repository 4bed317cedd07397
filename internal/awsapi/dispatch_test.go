package awsapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"
)

// tiny is a small WorkSpaces that answers by the image's name.
type tiny struct{}

func (tiny) ImportWorkspaceImage(ctx context.Context, in *workspaces.ImportWorkspaceImageInput) (*workspaces.ImportWorkspaceImageOutput, error) {
	for _, action := range []string{"ec2:DescribeImages", "ec2:ModifyImageAttribute"} {
		if err := Authorize(ctx, action, "*"); err != nil {
			return nil, fmt.Errorf("import %s: %w", *in.ImageName, err)
		}
	}
	switch *in.ImageName {
	case "missing":
		return nil, fmt.Errorf("wrapped: %w", &types.ResourceNotFoundException{Message: aws.String("no such image"), ResourceId: in.Ec2ImageId})
	case "unsupported":
		return nil, &types.OperationNotSupportedException{Message: aws.String("not now"), Reason: aws.String("busy")}
	case "failure":
		return nil, errors.New("secret detail of a failure")
	case "panic":
		panic("secret detail of a panic")
	case "elsewhere":
		return nil, &smithy.OperationError{ServiceID: "S3", Err: &types.ResourceNotFoundException{Message: aws.String("of somebody else")}}
	case "nothing":
		return nil, nil
	}
	return &workspaces.ImportWorkspaceImageOutput{ImageId: aws.String("wsi-" + CallerOf(ctx).UserName)}, nil
}

func (tiny) DescribeTags(context.Context, *workspaces.DescribeTagsInput) (*workspaces.DescribeTagsOutput, error) {
	return &workspaces.DescribeTagsOutput{TagList: []types.Tag{}}, nil
}

func (tiny) DeleteWorkspaceImage(context.Context, *workspaces.DeleteWorkspaceImageInput) (*workspaces.DeleteWorkspaceImageOutput, error) {
	return &workspaces.DeleteWorkspaceImageOutput{}, nil
}

func (tiny) ResourceARNs(operation string, in any) []string {
	if d, ok := in.(*workspaces.DeleteWorkspaceImageInput); ok {
		return []string{"arn:aws:workspaces:us-east-1:123456789012:workspaceimage/" + *d.ImageId}
	}
	return nil
}

// Close is no operation and must not become one.
func (tiny) Close(context.Context) error { panic("called") }

// tinyEC2 and tinySTS are two operations of each Query protocol.
type tinyEC2 struct{}

type DescribeImagesInput struct {
	ImageIds []string `query:"ImageId"`
	Owners   []string `query:"Owner"`
	Filters  []filter `query:"Filter"`
}
type filter struct {
	Name   *string
	Values []string `query:"Value"`
}
type DescribeImagesOutput struct {
	Images []image `xml:"imagesSet>item"`
}
type image struct {
	ImageId      *string
	Public       *bool `xml:"isPublic"`
	Description  *string
	CreationDate *time.Time
	Tags         []tag     `xml:"tagSet"`
	Mappings     []mapping `xml:"blockDeviceMapping>item"`
}
type mapping struct {
	DeviceName *string
	Ebs        *ebs
}
type ebs struct{ VolumeSize *int32 }
type tag struct{ Key, Value *string }

func (tinyEC2) DescribeImages(_ context.Context, in *DescribeImagesInput) (*DescribeImagesOutput, error) {
	out := &DescribeImagesOutput{Images: []image{}}
	for _, id := range in.ImageIds {
		if id == "ami-none" {
			return nil, &Error{Code: "InvalidAMIID.NotFound", Message: "The image id '[ami-none]' does not exist"}
		}
		if id == "ami-failure" {
			return nil, errors.New("secret detail of a failure")
		}
		at := testNow
		out.Images = append(out.Images, image{ImageId: aws.String(id), Public: aws.Bool(false), Description: aws.String("<&> é"), CreationDate: &at,
			Tags: []tag{{aws.String("owners"), aws.String(strings.Join(in.Owners, ","))}}, Mappings: []mapping{{aws.String("/dev/sda1"), &ebs{aws.Int32(80)}}}})
	}
	for _, f := range in.Filters {
		out.Images = append(out.Images, image{ImageId: f.Name, Description: aws.String(strings.Join(f.Values, "+"))})
	}
	return out, nil
}

type ModifyImageAttributeInput struct{ ImageId *string }
type ModifyImageAttributeOutput struct{ Return *bool }

func (tinyEC2) ModifyImageAttribute(context.Context, *ModifyImageAttributeInput) (*ModifyImageAttributeOutput, error) {
	return &ModifyImageAttributeOutput{aws.Bool(true)}, nil
}

type tinySTS struct{}

type GetCallerIdentityInput struct{}
type GetCallerIdentityOutput struct{ UserId, Account, Arn *string }

func (tinySTS) GetCallerIdentity(ctx context.Context, _ *GetCallerIdentityInput) (*GetCallerIdentityOutput, error) {
	c := CallerOf(ctx)
	return &GetCallerIdentityOutput{&c.UserName, &c.AccountID, &c.ARN}, nil
}

// door is a running server and what it said.
type door struct {
	url  string
	log  *syncBuffer
	mu   sync.Mutex
	seen []string // service/operation/code
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
func (b *syncBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func open(t *testing.T, policy string) *door {
	t.Helper()
	d := &door{log: &syncBuffer{}}
	n := 0
	s, err := New(Config{
		Auth: &Authenticator{Keys: testKeys(t, policy), Region: testRegion, Now: time.Now},
		Services: []Service{
			{Name: "workspaces", Protocol: JSON11, TargetPrefix: "WorkspacesService", Operations: tiny{}, Model: WorkSpacesModel()},
			{Name: "ec2", Protocol: EC2, Version: "2016-11-15", Operations: tinyEC2{}, Model: EC2Model()},
			{Name: "sts", Protocol: Query, Version: "2011-06-15", Operations: tinySTS{}, Open: []string{"GetCallerIdentity"}},
		},
		NewID: func() string { d.mu.Lock(); defer d.mu.Unlock(); n++; return fmt.Sprintf("id-%d", n) },
		Log:   slog.New(slog.NewTextHandler(d.log, nil)),
		Observe: func(service, operation, code string, _ time.Duration) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.seen = append(d.seen, service+"/"+operation+"/"+code)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	d.url = srv.URL
	return d
}

func (d *door) client() *workspaces.Client {
	return workspaces.New(workspaces.Options{Region: testRegion, BaseEndpoint: &d.url, RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return testCred, nil })})
}

// post sends a signed request and returns the status and the body.
func (d *door) post(t *testing.T, service, target, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("POST", d.url+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if target != "" {
		r.Header.Set("Content-Type", jsonType)
		r.Header.Set("X-Amz-Target", target)
	}
	if service != "" {
		if err := v4.NewSigner().SignHTTP(t.Context(), testCred, r, hashOf(body), service, testRegion, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if id := res.Header.Get("X-Amzn-Requestid"); !strings.HasPrefix(id, "id-") {
		t.Errorf("request id %q", id)
	}
	return res.StatusCode, string(b)
}

func importing(name string) *workspaces.ImportWorkspaceImageInput {
	return &workspaces.ImportWorkspaceImageInput{Ec2ImageId: aws.String("ami-0123456789abcdef0"), ImageName: &name,
		ImageDescription: aws.String("d"), IngestionProcess: types.WorkspaceImageIngestionProcessByolRegular}
}

func TestErrorsReachTheSDK(t *testing.T) {
	d := open(t, AdministratorAccess)
	c := d.client()
	out, err := c.ImportWorkspaceImage(t.Context(), importing("good"))
	if err != nil || *out.ImageId != "wsi-ada" {
		t.Fatalf("%v, %v", out, err)
	}
	_, err = c.ImportWorkspaceImage(t.Context(), importing("missing"))
	var missing *types.ResourceNotFoundException
	if !errors.As(err, &missing) || *missing.ResourceId != "ami-0123456789abcdef0" || *missing.Message != "no such image" {
		t.Errorf("missing: %v", err)
	}
	_, err = c.ImportWorkspaceImage(t.Context(), importing("unsupported"))
	var unsupported *types.OperationNotSupportedException
	if !errors.As(err, &unsupported) || *unsupported.Reason != "busy" || *unsupported.Message != "not now" {
		t.Errorf("unsupported: %v", err)
	}
	_, err = c.DescribeWorkspaces(t.Context(), &workspaces.DescribeWorkspacesInput{})
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "OperationNotSupportedException" {
		t.Errorf("an operation that AWS has and we do not: %v", err)
	}
	for _, name := range []string{"failure", "panic", "elsewhere", "nothing"} {
		_, err = c.ImportWorkspaceImage(t.Context(), importing(name))
		if !errors.As(err, &api) || api.ErrorCode() != "InternalServerException" || !strings.Contains(api.ErrorMessage(), "Request id: id-") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "of somebody else") {
			t.Errorf("%s: its detail is shown: %v", name, err)
		}
		_, id, _ := strings.Cut(api.ErrorMessage(), "Request id: ")
		if strings.Count(d.log.String(), "request_id="+id+" ") != 1 {
			t.Errorf("%s is not logged once with its id:\n%s", name, d.log)
		}
	}
	if log := d.log.String(); !strings.Contains(log, "secret detail of a failure") || !strings.Contains(log, "secret detail of a panic") || !strings.Contains(log, "goroutine") {
		t.Errorf("the log lacks the detail:\n%s", log)
	}
	for i, want := range []string{"workspaces/ImportWorkspaceImage/", "workspaces/ImportWorkspaceImage/ResourceNotFoundException", "workspaces/ImportWorkspaceImage/OperationNotSupportedException", "workspaces/unknown/OperationNotSupportedException"} {
		if d.seen[i] != want {
			t.Errorf("observed %q, want %q", d.seen[i], want)
		}
	}
}

func TestRefusalsOfTheWire(t *testing.T) {
	d := open(t, AdministratorAccess)
	const ws = "WorkspacesService."
	long := strings.Repeat("x", 1<<20)
	tests := []struct {
		name, service, target, body string
		status                      int
		want                        string
	}{
		{"not JSON", "workspaces", ws + "DescribeTags", "{", 400, `{"__type":"SerializationException","message":"Unexpected end of JSON at byte 1"}`},
		{"empty", "workspaces", ws + "DescribeTags", "", 400, `"SerializationException"`},
		{"a list", "workspaces", ws + "DescribeTags", "[]", 400, `"The request body is not a JSON object"`},
		{"two values", "workspaces", ws + "DescribeTags", `{"ResourceId":"ws-1"}{}`, 400, `"SerializationException"`},
		{"wrong type", "workspaces", ws + "DescribeTags", `{"ResourceId":7}`, 400, `"NUMBER_VALUE can not be converted to a String (member ResourceId)"`},
		{"unknown operation", "workspaces", ws + "BrewCoffee", "{}", 400, `"UnknownOperationException"`},
		{"a method that is none", "workspaces", ws + "Close", "{}", 400, `"UnknownOperationException"`},
		{"operation of AWS", "workspaces", ws + "CopyWorkspaceImage", "{}", 400, `"OperationNotSupportedException"`},
		{"unknown service", "workspaces", "Other.X", "{}", 400, `"UnknownOperationException"`},
		{"too long", "workspaces", ws + "DescribeTags", `{"x":"` + long + `"}`, 413, `"RequestEntityTooLargeException"`},
		{"required", "workspaces", ws + "DescribeTags", "{}", 400, `{"__type":"ValidationException","message":"1 validation error detected: Value null at 'resourceId' failed to satisfy constraint: Member must not be null"}`},
		{"unsigned", "", ws + "DescribeTags", "{}", 400, `{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}`},
		{"signed for another", "ec2", ws + "DescribeTags", "{}", 400, `"InvalidSignatureException"`},

		{"EC2 unknown action", "ec2", "", "Action=RunInstances&Version=2016-11-15", 400, "<Response><Errors><Error><Code>InvalidAction</Code><Message>The action RunInstances is not valid for this web service.</Message></Error></Errors><RequestID>ID</RequestID></Response>"},
		{"EC2 action of AWS", "ec2", "", "Action=DescribeVpcs&Version=2016-11-15", 400, "<Code>UnsupportedOperation</Code>"},
		{"EC2 no action", "ec2", "", "Version=2016-11-15", 400, "<Code>MissingAction</Code>"},
		{"EC2 unknown parameter", "ec2", "", "Action=DescribeImages&Version=2016-11-15&ImageId.1=ami-1&Nonsense.1=2", 400, "<Code>UnknownParameter</Code><Message>The parameter Nonsense.1 is not recognized</Message>"},
		{"EC2 missing parameter", "ec2", "", "Action=ModifyImageAttribute&Version=2016-11-15", 400, "<Code>MissingParameter</Code><Message>The request must contain the parameter ImageId</Message>"},
		{"EC2 twice", "ec2", "", "Action=DescribeImages&Version=2016-11-15&ImageId.1=a&ImageId.1=b", 400, "<Code>InvalidQueryParameter</Code>"},
		{"EC2 bad form", "ec2", "", "Action=DescribeImages&Version=2016-11-15&%zz=1", 400, "<Code>MalformedQueryString</Code>"},
		{"EC2 refusal", "ec2", "", "Action=DescribeImages&Version=2016-11-15&ImageId.1=ami-none", 400, "<Code>InvalidAMIID.NotFound</Code>"},
		{"EC2 failure", "ec2", "", "Action=DescribeImages&Version=2016-11-15&ImageId.1=ami-failure", 500, "<Code>InternalError</Code><Message>An internal error has occurred. Request id: ID<"},
		{"EC2 dry run", "ec2", "", "Action=DescribeImages&Version=2016-11-15&ImageId.1=ami-none&DryRun=true", 412, "<Code>DryRunOperation</Code><Message>Request would have succeeded, but DryRun flag is set.</Message>"},
		{"EC2 not a boolean", "ec2", "", "Action=DescribeImages&Version=2016-11-15&DryRun=maybe", 400, "<Code>InvalidParameterValue</Code>"},
		{"EC2 signed for another", "sts", "", "Action=DescribeImages&Version=2016-11-15", 401, "<Code>AuthFailure</Code>"},
		{"EC2 unsigned", "", "", "Action=DescribeImages&Version=2016-11-15", 400, "<Code>MissingParameter</Code>"},
		{"EC2 no dry run", "ec2", "", "Action=ModifyImageAttribute&Version=2016-11-15&ImageId=ami-1&DryRun=false", 200, `<ModifyImageAttributeResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>ID</requestId><return>true</return></ModifyImageAttributeResponse>`},
		{"EC2 empty list", "ec2", "", "Action=DescribeImages&Version=2016-11-15", 200, "<imagesSet></imagesSet></DescribeImagesResponse>"},

		{"STS", "sts", "", "Action=GetCallerIdentity&Version=2011-06-15", 200, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><UserId>ada</UserId><Account>123456789012</Account><Arn>arn:aws:iam::123456789012:user/ada</Arn></GetCallerIdentityResult><ResponseMetadata><RequestId>ID</RequestId></ResponseMetadata></GetCallerIdentityResponse>`},
		{"STS unknown action", "sts", "", "Action=AssumeRole&Version=2011-06-15", 400, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>InvalidAction</Code>`},
		{"STS unsigned", "", "", "Action=GetCallerIdentity&Version=2011-06-15", 403, "<Code>MissingAuthenticationToken</Code>"},
		{"unknown version", "sts", "", "Action=GetCallerIdentity&Version=1999-01-01", 400, "<Code>InvalidAction</Code><Message>Could not find operation GetCallerIdentity for version 1999-01-01</Message>"},
		{"Query too long", "sts", "", "Action=" + long, 413, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>RequestEntityTooLarge</Code>`},
		{"EC2 too long", "ec2", "", "Action=" + long, 413, "<Response><Errors><Error><Code>RequestEntityTooLarge</Code>"},
		{"EC2 unknown version", "ec2", "", "Action=DescribeImages&Version=1999-01-01", 400, "<Response><Errors><Error><Code>InvalidAction</Code>"},
		{"EC2 bad form", "ec2", "", "Action=%zz", 400, "<Response><Errors><Error><Code>MalformedQueryString</Code>"},
		{"nobody's", "", "", "Action=X&Version=1999-01-01", 400, "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidAction</Code>"},
	}
	for _, tt := range tests {
		status, body := d.post(t, tt.service, tt.target, tt.body)
		body = regexp.MustCompile(`id-\d+<`).ReplaceAllString(body, "ID<")
		if status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %s, want %d %s", tt.name, status, body, tt.status, tt.want)
		}
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		r, err := http.NewRequest(method, d.url+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 400 {
			t.Errorf("%s: %d", method, res.StatusCode)
		}
	}
	for _, s := range d.seen {
		if strings.Contains(s, "BrewCoffee") || strings.Contains(s, "Other") || strings.Contains(s, "AssumeRole") {
			t.Errorf("a stranger's name is a label: %s", s)
		}
	}
}

// The permission note of the document: without one of the three permissions the import is refused as AWS refuses it.
func TestPermissions(t *testing.T) {
	all := []string{"workspaces:ImportWorkspaceImage", "ec2:DescribeImages", "ec2:ModifyImageAttribute"}
	allow := func(actions []string) string {
		b, err := json.Marshal(actions)
		if err != nil {
			t.Fatal(err)
		}
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":` + string(b) + `,"Resource":"*"}]}`
	}
	if _, err := open(t, allow(all)).client().ImportWorkspaceImage(t.Context(), importing("x")); err != nil {
		t.Fatal(err)
	}
	for i, lacking := range all {
		d := open(t, allow(append(append([]string{"sqs:*"}, all[:i]...), all[i+1:]...)))
		_, err := d.client().ImportWorkspaceImage(t.Context(), importing("x"))
		var denied *types.AccessDeniedException
		want := "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: " + lacking + " on resource: * because no identity-based policy allows the " + lacking + " action"
		if !errors.As(err, &denied) || *denied.Message != want {
			t.Errorf("without %s: %v", lacking, err)
		}
	}
	d := open(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":["ec2:Describe*","sts:*"],"Resource":"*"}]}`)
	status, body := d.post(t, "ec2", "", "Action=DescribeImages&Version=2016-11-15&DryRun=true")
	if status != 403 || !strings.Contains(body, "<Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/ada is not authorized to perform: ec2:DescribeImages with an explicit deny in an identity-based policy</Message>") {
		t.Errorf("EC2: %d %s", status, body)
	}
	// Open operations are open even to whom they are denied, as AWS's GetCallerIdentity is.
	if status, body := d.post(t, "sts", "", "Action=GetCallerIdentity&Version=2011-06-15"); status != 200 {
		t.Errorf("STS: %d %s", status, body)
	}
	// A single resource.
	d = open(t, `{"Statement":{"Effect":"Allow","Action":"workspaces:Delete*","Resource":"arn:aws:workspaces:*:123456789012:workspaceimage/wsi-aaaaaaaaa"}}`)
	if _, err := d.client().DeleteWorkspaceImage(t.Context(), &workspaces.DeleteWorkspaceImageInput{ImageId: aws.String("wsi-aaaaaaaaa")}); err != nil {
		t.Errorf("the resource that is allowed: %v", err)
	}
	_, err := d.client().DeleteWorkspaceImage(t.Context(), &workspaces.DeleteWorkspaceImageInput{ImageId: aws.String("wsi-bbbbbbbbb")})
	if err == nil || !strings.Contains(err.Error(), "on resource: arn:aws:workspaces:us-east-1:123456789012:workspaceimage/wsi-bbbbbbbbb because") {
		t.Errorf("another resource: %v", err)
	}
	// Nobody may do nothing.
	if err := Authorize(t.Context(), "ec2:DescribeImages", "*"); code(err) != "AccessDeniedException" {
		t.Errorf("without a caller: %v", err)
	}
}

// Amazon's own command line signs, encodes and reads the same.
func TestAWSCLI(t *testing.T) {
	const cli = "/usr/bin/aws" // Debian's; another one in PATH may be a wrapper
	if _, err := exec.LookPath(cli); err != nil {
		t.Fatal("the AWS CLI is needed (scripts/setup test installs it)")
	}
	d := open(t, AdministratorAccess)
	run := func(args ...string) string {
		c := exec.Command(cli, append(args, "--endpoint-url", d.url, "--region", testRegion, "--output", "json")...)
		c.Env = []string{"AWS_ACCESS_KEY_ID=" + testKey, "AWS_SECRET_ACCESS_KEY=" + testSecret, "HOME=" + t.TempDir(), "PATH=/usr/bin:/bin", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1"}
		b, _ := c.CombinedOutput() // some of the commands are meant to fail; what they print is compared
		return string(b)
	}
	var wg sync.WaitGroup
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"ec2", "describe-images", "--image-ids", "ami-1", "ami-2", "--owners", "self", "--filters", "Name=state,Values=available,pending"},
			[]string{`"ImageId": "ami-2"`, `"Public": false`, `"CreationDate": "2013-05-24T00:00:00.000Z"`, `"VolumeSize": 80`, `"Value": "self"`, `"Description": "available+pending"`, `"Description": "<&> é"`}},
		{[]string{"ec2", "describe-images", "--image-ids", "ami-none"}, []string{"(InvalidAMIID.NotFound)", "The image id '[ami-none]' does not exist"}},
		{[]string{"sts", "get-caller-identity"}, []string{`"Arn": "arn:aws:iam::123456789012:user/ada"`}},
		{[]string{"workspaces", "import-workspace-image", "--ec2-image-id", "ami-0123456789abcdef0", "--ingestion-process", "BYOL_REGULAR", "--image-name", "missing", "--image-description", "a b"}, []string{"(ResourceNotFoundException)", "no such image"}},
		{[]string{"workspaces", "import-workspace-image", "--ec2-image-id", "ami-0123456789abcdef0", "--ingestion-process", "BYOL_REGULAR", "--image-name", "good", "--image-description", "ü"}, []string{"Value 'ü' at 'imageDescription' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9_./() -]+$"}},
		{[]string{"workspaces", "describe-tags", "--resource-id", "ws-1"}, []string{`"TagList": []`}},
	} {
		wg.Go(func() {
			got := run(tt.args...)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("aws %s:\n%s\nlacks %s", strings.Join(tt.args, " "), got, want)
				}
			}
		})
	}
	wg.Wait()
}

// A caller who goes away is no failure of ours.
func TestCallerGone(t *testing.T) {
	var log syncBuffer
	s := &Server{cfg: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want string
	}{{gone, fmt.Errorf("read: %w", context.Canceled), "level=INFO"}, {t.Context(), context.Canceled, "level=ERROR"}, {gone, errors.New("disk full"), "level=ERROR"}} {
		log.b.Reset()
		if e := s.refusalOf(tt.ctx, &exchange{protocol: JSON11, id: "i"}, tt.err); e.ErrorCode() != "InternalServerException" || !strings.Contains(log.String(), tt.want) {
			t.Errorf("%v: %v, %s", tt.err, e, log.String())
		}
	}
}

type badService struct{}

type BadInput struct{ F func() }
type BadOutput struct{}

func (badService) Bad(context.Context, *BadInput) (*BadOutput, error) { return nil, nil }

type almost struct{}

func (almost) Bad(context.Context, *BadInput) error { return nil }

type alike struct{}

type AlikeInput struct {
	A, B *string `query:"A"`
}
type AlikeOutput struct{}

func (alike) Alike(context.Context, *AlikeInput) (*AlikeOutput, error) { return nil, nil }

type endless struct{}

type EndlessInput struct{ Next *EndlessInput }
type EndlessOutput struct{}

func (endless) Endless(context.Context, *EndlessInput) (*EndlessOutput, error) { return nil, nil }

func TestNewRefuses(t *testing.T) {
	good := func() Config {
		return Config{Auth: testAuth(t), NewID: func() string { return "" }, Log: slog.New(slog.DiscardHandler)}
	}
	ws := Service{Name: "workspaces", Protocol: JSON11, TargetPrefix: "W", Operations: tiny{}}
	for name, change := range map[string]func(*Config){
		"no authenticator":    func(c *Config) { c.Auth = nil },
		"no clock":            func(c *Config) { c.Auth.Now = nil },
		"no log":              func(c *Config) { c.Log = nil },
		"no ids":              func(c *Config) { c.NewID = nil },
		"no name":             func(c *Config) { c.Services = []Service{{Protocol: JSON11, TargetPrefix: "W", Operations: tiny{}}} },
		"S3":                  func(c *Config) { c.Services = []Service{{Name: "s3", Protocol: S3, Version: "1", Operations: tiny{}}} },
		"no prefix":           func(c *Config) { s := ws; s.TargetPrefix = ""; c.Services = []Service{s} },
		"the same prefix":     func(c *Config) { c.Services = []Service{ws, ws} },
		"type off the wire":   func(c *Config) { s := ws; s.Operations = badService{}; c.Services = []Service{s} },
		"almost an operation": func(c *Config) { s := ws; s.Operations = almost{}; c.Services = []Service{s} },
		"two names alike": func(c *Config) {
			s := ws
			s.Operations = alike{}
			s.Protocol, s.Version = EC2, "1"
			c.Services = []Service{s}
		},
		"contains itself":       func(c *Config) { s := ws; s.Operations = endless{}; c.Services = []Service{s} },
		"not in the model":      func(c *Config) { s := ws; s.Model = EC2Model(); c.Services = []Service{s} },
		"open but no operation": func(c *Config) { s := ws; s.Open = []string{"Close"}; c.Services = []Service{s} },
	} {
		c := good()
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c := good()
	c.Services = []Service{ws}
	if _, err := New(c); err != nil {
		t.Error(err)
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	k := AccessKey{ID: testKey, Secret: testSecret}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", k, "secret", k.Secret)
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "key", k, "secret", k.Secret)
	b, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %x", k, k, k, k.Secret, k.Secret, k.Secret) + log.String() + string(b)
	if strings.Contains(all, testSecret) || strings.Contains(all, fmt.Sprintf("%x", testSecret)) || !strings.Contains(all, redacted) {
		t.Error(all)
	}
	if k.Secret.Reveal() != testSecret {
		t.Error("Reveal")
	}
}
