package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
)

// TestNotEligible is an account that may not enable BYOL: it gets AWS's refusal, with the admin's guidance.
func TestNotEligible(t *testing.T) {
	t.Parallel()
	const guidance = "Write to licensing@example.com with your agreement's number."
	s := serve(t, "--no-eligible", "--guidance", guidance)
	w := s.workspaces
	refuse(t, []refusal{
		{"ranges", exception[*types.AccessDeniedException](guidance), call(t, w.ListAvailableManagementCidrRanges, &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: aws.String("10.0.0.0/8")})},
		{"enable", exception[*types.AccessDeniedException](guidance), call(t, w.ModifyAccount, &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String("10.1.0.0/16")})},
		{"image", exception[*types.OperationNotSupportedException]("not enabled for Bring Your Own License"), call(t, w.ImportWorkspaceImage, imageOf("ami-00000000000000000", "x"))},
	})
	acc, err := w.DescribeAccount(t.Context(), &workspaces.DescribeAccountInput{})
	if err != nil || acc.DedicatedTenancySupport != types.DedicatedTenancySupportResultEnumDisabled || aws.ToString(acc.Message) != guidance {
		t.Errorf("DescribeAccount says %+v (%v), want DISABLED and the guidance", acc, err)
	}
	mods, err := w.DescribeAccountModifications(t.Context(), &workspaces.DescribeAccountModificationsInput{})
	if err != nil || len(mods.AccountModifications) != 0 {
		t.Errorf("modifications: %+v (%v), want none", mods, err)
	}
}

// TestAccess is who may do what, and what is told to those who may not: keys, policies, signatures, and requests that are none.
func TestAccess(t *testing.T) {
	t.Parallel()
	s := serve(t, "--enable-delay", "0s")
	s.bucket(t, "mine")
	s.bucket(t, "theirs")
	t.Run("permissions of the document's note", func(t *testing.T) { notePermissions(t, s) })
	t.Run("policies", func(t *testing.T) { policies(t, s) })
	t.Run("keys", func(t *testing.T) { keys(t, s) })
	t.Run("signatures", func(t *testing.T) { signatures(t, s) })
	t.Run("requests that are none", func(t *testing.T) { malformed(t, s) })
	t.Run("pages without a signature", func(t *testing.T) { pages(t, s) })
}

// allowing is a policy that allows actions on everything.
func allowing(actions ...string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["%s"],"Resource":"*"}]}`, strings.Join(actions, `","`))
}

// notePermissions imports an image without one of the three permissions that the document asks for, and then with all three.
func notePermissions(t *testing.T, s *service) {
	needed := []string{"workspaces:ImportWorkspaceImage", "ec2:DescribeImages", "ec2:ModifyImageAttribute"}
	for i, missing := range needed {
		var have []string
		for j, a := range needed {
			if j != i {
				have = append(have, a)
			}
		}
		u := s.user(t, fmt.Sprintf("without-%d", i), allowing(have...))
		refuse(t, []refusal{{"without " + missing, exception[*types.AccessDeniedException](fmt.Sprintf("user/without-%d is not authorized to perform: %s on resource: * because no identity-based policy allows the %s action", i, missing, missing)),
			call(t, u.workspaces.ImportWorkspaceImage, imageOf("ami-00000000000000000", "x"))}})
		if missing == "ec2:DescribeImages" {
			refuse(t, []refusal{{"the call itself", code("UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:iam::"+s.AccountID+":user/without-1 is not authorized to perform: ec2:DescribeImages"), func() error {
				return u.ec2(t, nil, "DescribeImages")
			}}})
		}
		if missing == "ec2:ModifyImageAttribute" {
			refuse(t, []refusal{{"the call itself", code("UnauthorizedOperation", "ec2:ModifyImageAttribute"), func() error {
				return u.ec2(t, nil, "ModifyImageAttribute", "ImageId", "ami-00000000000000000", "LaunchPermission.Add.1.UserId", "123456789012")
			}}})
		}
	}
	u := s.user(t, "with-all", allowing(needed...))
	refuse(t, []refusal{
		{"with all three it is the account's turn", exception[*types.OperationNotSupportedException]("not enabled for Bring Your Own License"), call(t, u.workspaces.ImportWorkspaceImage, imageOf("ami-00000000000000000", "x"))},
		{"and nothing else is allowed", exception[*types.AccessDeniedException]("workspaces:ModifyAccount"), call(t, u.workspaces.ModifyAccount, &workspaces.ModifyAccountInput{})},
		{"not even to make keys", code("AccessDeniedException", "berth:CreateAccessKey"), func() error {
			return u.berth(t, "CreateAccessKey", map[string]any{"UserName": "root", "Policy": allowing("*")}, nil)
		}},
	})
}

func policies(t *testing.T, s *service) {
	one := s.user(t, "one-bucket", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":["arn:aws:s3:::mine","arn:aws:s3:::mine/*"]}}`)
	object := func(c *client, bucket string) func() error {
		return func() error {
			_, err := c.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("disk.ova"), Body: strings.NewReader("a disk")})
			return err
		}
	}
	if err := object(one, "mine")(); err != nil {
		t.Errorf("putting an object into one's own bucket: %v", err)
	}
	reader := s.user(t, "reader", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],"Resource":"*"}]}`)
	denied := s.user(t, "denied", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":["workspaces:Modify*","ec2:Import?mage"],"Resource":"*"}]}`)
	nobody := s.user(t, "nobody", "")
	refuse(t, []refusal{
		{"another's bucket", code("AccessDenied", "user/one-bucket is not authorized to perform: s3:PutObject on resource: arn:aws:s3:::theirs/disk.ova"), object(one, "theirs")},
		{"all buckets", code("AccessDenied", "s3:ListAllMyBuckets"), func() error { return errorOf(one.s3.ListBuckets(t.Context(), &s3.ListBucketsInput{})) }},
		{"new bucket", code("AccessDenied", "s3:CreateBucket"), func() error {
			return errorOf(one.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("another")}))
		}},
		{"writing as a reader", code("AccessDenied", "s3:PutObject"), object(reader, "mine")},
		{"removing as a reader", code("AccessDenied", "s3:DeleteObject"), func() error {
			return errorOf(reader.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("mine"), Key: aws.String("disk.ova")}))
		}},
		{"explicit deny", exception[*types.AccessDeniedException]("workspaces:ModifyAccount on resource: * with an explicit deny in an identity-based policy"), call(t, denied.workspaces.ModifyAccount, &workspaces.ModifyAccountInput{})},
		{"explicit deny of EC2", code("UnauthorizedOperation", "ec2:ImportImage with an explicit deny"), func() error { return denied.ec2(t, nil, "ImportImage") }},
		{"no policy", exception[*types.AccessDeniedException]("user/nobody is not authorized to perform: workspaces:DescribeAccount"), call(t, nobody.workspaces.DescribeAccount, &workspaces.DescribeAccountInput{})},
		{"dry run of what is not allowed", code("UnauthorizedOperation", "ec2:DescribeImages"), func() error { return nobody.ec2(t, nil, "DescribeImages", "DryRun", "true") }},
		{"dry run of what is allowed", code("DryRunOperation", "Request would have succeeded, but DryRun flag is set."), func() error { return s.ec2(t, nil, "DescribeImages", "DryRun", "true") }},
	})
	got, err := reader.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("mine"), Key: aws.String("disk.ova")})
	if err != nil {
		t.Fatal(err)
	}
	got.Body.Close()
	if _, err := denied.workspaces.DescribeAccount(t.Context(), &workspaces.DescribeAccountInput{}); err != nil {
		t.Errorf("what is not denied: %v", err)
	}
	// GetCallerIdentity needs no permission.
	answer, err := nobody.send(t, form("sts", "Action=GetCallerIdentity&Version=2011-06-15"))
	if err != nil || !strings.Contains(string(answer), "<Arn>arn:aws:iam::"+s.AccountID+":user/nobody</Arn>") {
		t.Errorf("GetCallerIdentity: %v\n%s", err, answer)
	}
}

func keys(t *testing.T, s *service) {
	create := func(user, policy string) func() error {
		return func() error {
			return s.berth(t, "CreateAccessKey", map[string]any{"UserName": user, "Policy": policy}, nil)
		}
	}
	const invalid = "InvalidParameterValuesException"
	refuse(t, []refusal{
		{"bad user", code(invalid, "UserName must be 1 to 63"), create("a user", allowing("*"))},
		{"policy that is no JSON", code(invalid, "Policy: "), create("x", "allow all")},
		{"policy with a condition", code(invalid, `unknown or unsupported element "Condition"`), create("x", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}]}`)},
		{"policy of a bucket", code(invalid, `unknown or unsupported element "Principal"`), create("x", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}`)},
		{"policy with a twin", code(invalid, `"Effect" comes twice`), create("x", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Effect":"Allow","Action":"*","Resource":"*"}]}`)},
		{"policy that is too long", code(invalid, "more than 6144"), create("x", allowing(strings.Repeat("a", 7000)))},
		{"the administrator's own key", code("OperationNotSupportedException", "administrator's own access key cannot be deleted"), func() error {
			return s.berth(t, "DeleteAccessKey", map[string]any{"AccessKeyId": s.AccessKeyID}, nil)
		}},
		{"key that is not there", code("ResourceNotFoundException", "AKIA0000000000000000"), func() error {
			return s.berth(t, "DeleteAccessKey", map[string]any{"AccessKeyId": "AKIA0000000000000000"}, nil)
		}},
	})
	// The command makes keys too, with a policy from a file.
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(allowing("workspaces:Describe*")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, "admin", "--data", s.data, "create-key", "--policy", policy, "auditor").Output()
	if err != nil {
		t.Fatal(err)
	}
	u := &client{key: s.key, http: s.http}
	if _, err := fmt.Sscanf(string(out), "export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\n", &u.AccessKeyID, &u.SecretAccessKey); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	u.dial()
	if _, err := u.workspaces.DescribeAccount(t.Context(), &workspaces.DescribeAccountInput{}); err != nil {
		t.Errorf("the auditor may describe: %v", err)
	}
	refuse(t, []refusal{{"the auditor changes something", exception[*types.AccessDeniedException]("user/auditor"), call(t, u.workspaces.ModifyAccount, &workspaces.ModifyAccountInput{})}})
	var list struct {
		AccessKeys []map[string]any
	}
	if err := s.berth(t, "ListAccessKeys", map[string]any{}, &list); err != nil {
		t.Fatal(err)
	}
	for _, k := range list.AccessKeys {
		if strings.Contains(fmt.Sprint(k), u.SecretAccessKey) || k["SecretAccessKey"] != nil {
			t.Error("the list of keys shows secrets")
		}
	}
	if err := s.berth(t, "DeleteAccessKey", map[string]any{"AccessKeyId": u.AccessKeyID}, nil); err != nil {
		t.Fatal(err)
	}
	refuse(t, []refusal{{"deleted key", code("UnrecognizedClientException", "security token included in the request is invalid"), call(t, u.workspaces.DescribeAccount, &workspaces.DescribeAccountInput{})}})
}

// signatures are those that AWS does not take, in each protocol.
func signatures(t *testing.T, s *service) {
	unknown := &client{key: s.key, http: s.http}
	unknown.AccessKeyID = "AKIA0000000000000000"
	unknown.dial()
	wrong := &client{key: s.key, http: s.http}
	wrong.SecretAccessKey += "x"
	wrong.dial()
	describe := target("workspaces", "WorkspacesService.DescribeAccount", "{}")
	images := form("ec2", "Action=DescribeImages&Version=2016-11-15")
	identity := form("sts", "Action=GetCallerIdentity&Version=2011-06-15")
	late := func(r request, by time.Duration) request { r.at = time.Now().Add(by); return r }
	as := func(r request, service string) request { r.service = service; return r }
	send := func(c *client, r request) func() error {
		r.header = r.header.Clone()
		return func() error { return errorOf(c.send(t, r)) }
	}
	buckets := func(c *client) func() error {
		return func() error { return errorOf(c.s3.ListBuckets(t.Context(), &s3.ListBucketsInput{})) }
	}
	const auth = "AWS was not able to validate the provided access credentials"
	const mismatch = "The request signature we calculated does not match the signature you provided"
	refuse(t, []refusal{
		{"unknown key", code("UnrecognizedClientException", "security token included in the request is invalid"), send(unknown, describe)},
		{"unknown key, EC2", code("AuthFailure", auth), send(unknown, images)},
		{"unknown key, STS", code("InvalidClientTokenId", "security token"), send(unknown, identity)},
		{"unknown key, S3", code("InvalidAccessKeyId", "does not exist in our records"), buckets(unknown)},
		{"wrong secret", code("InvalidSignatureException", mismatch), send(wrong, describe)},
		{"wrong secret, EC2", code("AuthFailure", auth), send(wrong, images)},
		{"wrong secret, STS", code("SignatureDoesNotMatch", mismatch), send(wrong, identity)},
		{"wrong secret, S3", code("SignatureDoesNotMatch", mismatch), buckets(wrong)},
		{"six minutes ago", code("InvalidSignatureException", "Signature expired: "), send(s.client, late(describe, -6*time.Minute))},
		{"in six minutes", code("InvalidSignatureException", "Signature not yet current: "), send(s.client, late(describe, 6*time.Minute))},
		{"sixteen minutes ago, EC2", code("RequestExpired", "Request has expired."), send(s.client, late(images, -16*time.Minute))},
		{"six minutes ago, STS", code("SignatureDoesNotMatch", "Signature expired: "), send(s.client, late(identity, -6*time.Minute))},
		{"unsigned", code("MissingAuthenticationTokenException", "Missing Authentication Token"), send(s.client, as(describe, ""))},
		{"unsigned, EC2", code("MissingParameter", "AWSAccessKeyId"), send(s.client, as(images, ""))},
		{"unsigned, STS", code("MissingAuthenticationToken", "Request is missing Authentication Token"), send(s.client, as(identity, ""))},
		{"WorkSpaces signed for EC2", code("InvalidSignatureException", "Credential should be scoped to correct service: 'workspaces'"), send(s.client, as(describe, "ec2"))},
		{"EC2 signed for WorkSpaces", code("AuthFailure", auth), send(s.client, as(images, "workspaces"))},
		{"STS signed for EC2", code("SignatureDoesNotMatch", "correct service: 'sts'"), send(s.client, as(identity, "ec2"))},
		{"our own door, signed for WorkSpaces", code("InvalidSignatureException", "correct service: 'berth'"), send(s.client, target("workspaces", "BerthService.ListAccessKeys", "{}"))},
		{"another Region", code("InvalidSignatureException", "Credential should be scoped to a valid region, not 'eu-central-1'"), func() error {
			elsewhere := &client{key: s.key, http: s.http}
			elsewhere.Region = "eu-central-1"
			return send(elsewhere, describe)()
		}},
	})
	for by, r := range map[time.Duration]request{-4 * time.Minute: describe, 14 * time.Minute: images} {
		if err := send(s.client, late(r, by))(); err != nil {
			t.Errorf("a clock that is wrong by %v: %v", by, err)
		}
	}
	// A body that is not the one that was signed.
	changed := describe
	changed.signedBody = `{"a":1}`
	refuse(t, []refusal{{"another body", code("InvalidSignatureException", mismatch), send(s.client, changed)}})
}

func malformed(t *testing.T, s *service) {
	ws := func(operation, body string) func() error {
		return func() error { return errorOf(s.send(t, target("workspaces", "WorkspacesService."+operation, body))) }
	}
	query := func(service, body string) func() error {
		return func() error { return errorOf(s.send(t, form(service, body))) }
	}
	const oneError = "1 validation error detected: Value "
	refuse(t, []refusal{
		{"unknown operation", code("UnknownOperationException", "DescribeEverything does not exist"), ws("DescribeEverything", "{}")},
		{"operation that AWS has and we do not", code("OperationNotSupportedException", "MigrateWorkspace is not supported"), ws("MigrateWorkspace", "{}")},
		{"unknown service", code("UnknownOperationException", "OtherService.Describe does not exist"), func() error {
			return errorOf(s.send(t, target("workspaces", "OtherService.Describe", "{}")))
		}},
		{"unknown operation of EC2", code("InvalidAction", "The action RunEverything is not valid for this web service."), query("ec2", "Action=RunEverything&Version=2016-11-15")},
		{"operation of EC2 that we do not have", code("UnsupportedOperation", "RegisterImage is not supported"), query("ec2", "Action=RegisterImage&Version=2016-11-15")},
		{"unknown operation of STS", code("InvalidAction", "Could not find operation AssumeRole for version 2011-06-15"), query("sts", "Action=AssumeRole&Version=2011-06-15")},
		{"no action", code("MissingAction", "Action"), query("ec2", "Version=2016-11-15")},
		{"other version", code("InvalidAction", "for version 2006-03-01"), query("ec2", "Action=DescribeImages&Version=2006-03-01")},
		{"parameter twice", code("InvalidQueryParameter", "ImageId.1 comes more than once"), query("ec2", "Action=DescribeImages&Version=2016-11-15&ImageId.1=ami-1&ImageId.1=ami-2")},
		{"unknown parameter", code("UnknownParameter", "The parameter Colour is not recognized"), query("ec2", "Action=DescribeImages&Version=2016-11-15&Colour=blue")},
		{"number that is none", code("InvalidParameterValue", "Invalid value 'many' for MaxResults. Expected a value of type Integer."), query("ec2", "Action=DescribeImages&Version=2016-11-15&MaxResults=many")},
		{"missing parameter", code("MissingParameter", "The request must contain the parameter ImageId"), query("ec2", "Action=ModifyImageAttribute&Version=2016-11-15")},
		{"no JSON", code("SerializationException", "not valid JSON at byte"), ws("DescribeAccount", `{"a":`+"x}")},
		{"half of it", code("SerializationException", "Unexpected end of JSON"), ws("DescribeWorkspaces", `{"Limit":1`)},
		{"list for an object", code("SerializationException", "is not a JSON object"), ws("DescribeWorkspaces", `[]`)},
		{"text for a number", code("SerializationException", "member Limit"), ws("DescribeWorkspaces", `{"Limit":"five"}`)},
		{"number for a text", code("SerializationException", "member DirectoryId"), ws("DescribeWorkspaces", `{"DirectoryId":7}`)},
		{"two of them", code("SerializationException", "Unexpected data"), ws("DescribeAccount", `{}{}`)},
		{"no UTF-8", code("SerializationException", "not valid UTF-8"), ws("DescribeAccount", "{\"a\":\"\xff\"}")},
		{"deep", code("SerializationException", ""), ws("DescribeAccount", `{"a":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+"}")},
		{"oversize", code("RequestEntityTooLargeException", "Request size exceeded"), ws("DescribeAccount", `{"a":"`+strings.Repeat("a", 8<<20)+`"}`)},
		{"oversize, EC2", code("RequestEntityTooLarge", "Request size exceeded"), query("ec2", "Action=DescribeImages&Version=2016-11-15&ImageId.1="+strings.Repeat("a", 8<<20))},
		{"nothing that is required", code("ValidationException", "4 validation errors detected: Value null at 'ec2ImageId' failed to satisfy constraint: Member must not be null; Value null at 'imageDescription'"), ws("ImportWorkspaceImage", "{}")},
		{"a required member of a member", code("ValidationException", oneError+"null at 'workspaces.1.member.userName' failed to satisfy constraint: Member must not be null"), ws("CreateWorkspaces", `{"Workspaces":[{"DirectoryId":"d-0123456789","BundleId":"wsb-012345678"}]}`)},
		{"too long", code("ValidationException", "at 'imageName' failed to satisfy constraint: Member must have length less than or equal to 64"), ws("ImportWorkspaceImage", `{"Ec2ImageId":"ami-00000000","ImageDescription":"x","IngestionProcess":"BYOL_REGULAR","ImageName":"`+strings.Repeat("a", 65)+`"}`)},
		{"too few", code("ValidationException", oneError+"'[]' at 'startWorkspaceRequests' failed to satisfy constraint: Member must have length greater than or equal to 1"), ws("StartWorkspaces", `{"StartWorkspaceRequests":[]}`)},
		{"not one of the values", code("ValidationException", oneError+"'SOON' at 'imageType' failed to satisfy constraint: Member must satisfy enum value set: [OWNED, SHARED]"), ws("DescribeWorkspaceImages", `{"ImageType":"SOON"}`)},
		{"not of the pattern", code("ValidationException", oneError+"'10.0.0.0/8' at 'dedicatedTenancyManagementCidrRange' failed to satisfy constraint: Member must satisfy regular expression pattern: "), ws("ModifyAccount", `{"DedicatedTenancyManagementCidrRange":"10.0.0.0/8"}`)},
	})
	// Members that are not known are skipped, as AWS does.
	if err := ws("DescribeAccount", `{"Colour":{"is":["blue"]}}`)(); err != nil {
		t.Errorf("an unknown member: %v", err)
	}
}

// pages are what a monitor and a browser ask for.
func pages(t *testing.T, s *service) {
	for path, want := range map[string]string{"/healthz": "alive", "/readyz": "ready", "/metrics": `berth_request_seconds_count{code="AccessDeniedException",operation="ImportWorkspaceImage",service="workspaces"}`} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Endpoint+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(b), want) {
			t.Errorf("%s answers %d (%v), want %q in it:\n%.2000s", path, res.StatusCode, err, want, b)
		}
	}
	fi, err := os.Stat(filepath.Join(s.data, "admin.json"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("admin.json: %v (%v), want mode 0600", fi.Mode(), err)
	}
	log, err := os.ReadFile(filepath.Join(s.data, "service.log"))
	if err != nil || strings.Contains(string(log), s.SecretAccessKey) {
		t.Errorf("the administrator's secret is in the log (%v)", err)
	}
}
