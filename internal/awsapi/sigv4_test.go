package awsapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	testKey    = "AKIAIOSFODNN7EXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	testRegion = "us-east-1"
)

var testNow = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

// keys is a KeyStore; the key "BROKEN" makes it fail.
type keys map[string]AccessKey

var errStore = errors.New("the disk is gone")

func (k keys) AccessKey(_ context.Context, id string) (AccessKey, error) {
	if id == "BROKEN" {
		return AccessKey{}, errStore
	}
	if key, ok := k[id]; ok {
		return key, nil
	}
	return AccessKey{}, ErrNoSuchKey
}

func testKeys(t testing.TB, policy string) keys {
	t.Helper()
	p, err := ParsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	return keys{testKey: {ID: testKey, Secret: testSecret, UserName: "ada", AccountID: "123456789012", Policy: p}}
}

func testAuth(t testing.TB) *Authenticator {
	return &Authenticator{Keys: testKeys(t, AdministratorAccess), Region: testRegion, Now: func() time.Time { return testNow }}
}

var testCred = aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}

func hashOf(b string) string {
	s := sha256.Sum256([]byte(b))
	return hex.EncodeToString(s[:])
}

// received turns a client's request into the one that a server sees.
func received(t testing.TB, c *http.Request, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(c.Method, c.URL.RequestURI(), strings.NewReader(body))
	r.Host = c.URL.Host
	if c.Host != "" {
		r.Host = c.Host
	}
	for k, v := range c.Header {
		r.Header[k] = v
	}
	return r
}

// signed is a request to a JSON service, signed by the SDK's signer.
func signed(t testing.TB, body string, cred aws.Credentials, service, region string, at time.Time) *http.Request {
	t.Helper()
	c, err := http.NewRequest("POST", "http://workspaces.example/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	c.Header.Set("X-Amz-Target", "WorkspacesService.DescribeTags")
	c.Header.Set("Content-Type", "application/x-amz-json-1.1")
	if err := v4.NewSigner().SignHTTP(t.Context(), cred, c, hashOf(body), service, region, at); err != nil {
		t.Fatal(err)
	}
	return received(t, c, body)
}

func code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return "not an *Error: " + err.Error()
	}
	return ""
}

func TestHeaderSignature(t *testing.T) {
	const body = `{"ResourceId":"ws-1"}`
	other := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: "another"}
	unknown := aws.Credentials{AccessKeyID: "AKIAUNKNOWN", SecretAccessKey: "another"}
	token := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret, SessionToken: "token"}
	good := func(t testing.TB) *http.Request { return signed(t, body, testCred, "workspaces", testRegion, testNow) }
	tests := []struct {
		name    string
		request func(t testing.TB) *http.Request
		body    string
		// the codes expected for JSON 1.1, Query and EC2
		json, query, ec2 string
		message          string // of JSON 1.1, a part of it
	}{
		{name: "good", request: good},
		{name: "tampered body", request: good, body: body + " ", json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure", message: "The request signature we calculated does not match"},
		{name: "wrong secret", request: func(t testing.TB) *http.Request { return signed(t, body, other, "workspaces", testRegion, testNow) },
			json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure"},
		{name: "unknown key", request: func(t testing.TB) *http.Request {
			return signed(t, body, unknown, "workspaces", testRegion, testNow)
		}, json: "UnrecognizedClientException", query: "InvalidClientTokenId", ec2: "AuthFailure", message: "The security token included in the request is invalid."},
		{name: "session token", request: func(t testing.TB) *http.Request { return signed(t, body, token, "workspaces", testRegion, testNow) },
			json: "UnrecognizedClientException", query: "InvalidClientTokenId", ec2: "AuthFailure"},
		{name: "other service", request: func(t testing.TB) *http.Request { return signed(t, body, testCred, "sqs", testRegion, testNow) },
			json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure", message: "Credential should be scoped to correct service: 'workspaces'."},
		{name: "other region", request: func(t testing.TB) *http.Request {
			return signed(t, body, testCred, "workspaces", "eu-west-1", testNow)
		}, json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure", message: "Credential should be scoped to a valid region, not 'eu-west-1'."},
		{name: "late", request: func(t testing.TB) *http.Request {
			return signed(t, body, testCred, "workspaces", testRegion, testNow.Add(-5*time.Minute-time.Second))
		}, json: "InvalidSignatureException", query: "SignatureDoesNotMatch", message: "Signature expired: 20130523T235459Z is now earlier than 20130523T235500Z (20130524T000000Z - 5 min.)"},
		{name: "very late", request: func(t testing.TB) *http.Request {
			return signed(t, body, testCred, "workspaces", testRegion, testNow.Add(-15*time.Minute-time.Second))
		}, json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "RequestExpired"},
		{name: "early", request: func(t testing.TB) *http.Request {
			return signed(t, body, testCred, "workspaces", testRegion, testNow.Add(5*time.Minute+time.Second))
		}, json: "InvalidSignatureException", query: "SignatureDoesNotMatch", message: "Signature not yet current: 20130524T000501Z is still later than 20130524T000500Z (20130524T000000Z + 5 min.)"},
		{name: "in time", request: func(t testing.TB) *http.Request {
			return signed(t, body, testCred, "workspaces", testRegion, testNow.Add(-5*time.Minute))
		}},
		{name: "no credentials", request: func(t testing.TB) *http.Request { r := good(t); r.Header.Del("Authorization"); return r },
			json: "MissingAuthenticationTokenException", query: "MissingAuthenticationToken", ec2: "MissingParameter"},
		{name: "other operation", request: func(t testing.TB) *http.Request {
			r := good(t)
			r.Header.Set("X-Amz-Target", "WorkspacesService.TerminateWorkspaces")
			return r
		}, json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure"},
		{name: "unsigned amz header", request: func(t testing.TB) *http.Request { r := good(t); r.Header.Set("X-Amz-Extra", "1"); return r },
			json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure", message: "'x-amz-extra' must be a 'SignedHeader'"},
		{name: "other host", request: func(t testing.TB) *http.Request { r := good(t); r.Host = "elsewhere.example"; return r },
			json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure"},
		{name: "other method", request: func(t testing.TB) *http.Request { r := good(t); r.Method = "PUT"; return r },
			json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure"},
		{name: "added query", request: func(t testing.TB) *http.Request { r := good(t); r.URL.RawQuery = "a=b"; return r },
			json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure"},
		{name: "query that is not read", request: func(t testing.TB) *http.Request { r := good(t); r.URL.RawQuery = "a=b;c=d"; return r },
			json: "MalformedQueryString", query: "MalformedQueryString", ec2: "MalformedQueryString"},
		{name: "two dates", request: func(t testing.TB) *http.Request {
			r := good(t)
			r.Header.Add("X-Amz-Date", "20130524T000000Z")
			return r
		},
			json: "IncompleteSignatureException", query: "IncompleteSignature", ec2: "IncompleteSignature"},
		{name: "two authorizations", request: func(t testing.TB) *http.Request {
			r := good(t)
			r.Header.Add("Authorization", r.Header.Get("Authorization"))
			return r
		}, json: "IncompleteSignatureException", query: "IncompleteSignature", ec2: "IncompleteSignature"},
		{name: "no date", request: func(t testing.TB) *http.Request { r := good(t); r.Header.Del("X-Amz-Date"); return r },
			json: "IncompleteSignatureException", query: "IncompleteSignature", ec2: "IncompleteSignature"},
		{name: "scope of another day", request: edit(good, "/20130524/", "/20130523/"),
			json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure", message: "'20130523' != '20130524', from '20130524T000000Z'"},
		{name: "four scope parts", request: edit(good, "/aws4_request", ""), json: "IncompleteSignatureException", query: "IncompleteSignature", ec2: "IncompleteSignature", message: "5 slash-delimited elements"},
		{name: "other algorithm", request: edit(good, "AWS4-HMAC-SHA256 ", "AWS3 "), json: "IncompleteSignatureException", query: "IncompleteSignature", ec2: "IncompleteSignature"},
		{name: "no signature", request: edit(good, "Signature=", "Sign="), json: "IncompleteSignatureException", query: "IncompleteSignature", ec2: "IncompleteSignature", message: "Authorization header requires 'Signature' parameter."},
		{name: "short signature", request: func(t testing.TB) *http.Request {
			r := good(t)
			a := r.Header.Get("Authorization")
			r.Header.Set("Authorization", a[:len(a)-2])
			return r
		}, json: "IncompleteSignatureException", query: "IncompleteSignature", ec2: "IncompleteSignature"},
		{name: "host not signed", request: edit(good, "host;", ""), json: "InvalidSignatureException", query: "SignatureDoesNotMatch", ec2: "AuthFailure", message: "'Host' or ':authority' must be a 'SignedHeader'"},
		{name: "twice the credential", request: edit(good, "Credential=", "Credential=x, Credential="), json: "IncompleteSignatureException", query: "IncompleteSignature", ec2: "IncompleteSignature"},
	}
	a := testAuth(t)
	for _, tt := range tests {
		for p, want := range map[Protocol]string{JSON11: tt.json, Query: tt.query, EC2: tt.ec2} {
			sent := body
			if tt.body != "" {
				sent = tt.body
			}
			c, err := a.request(tt.request(t), []byte(sent), "workspaces", p)
			if code(err) != want {
				t.Errorf("%s, protocol %d: code %q, want %q (%v)", tt.name, p, code(err), want, err)
			}
			if err == nil && c.ARN != "arn:aws:iam::123456789012:user/ada" {
				t.Errorf("%s: caller %q", tt.name, c.ARN)
			}
			if err != nil && c != (Caller{}) {
				t.Errorf("%s: a refused request has the caller %v", tt.name, c)
			}
			if p == JSON11 && !strings.Contains(errText(err), tt.message) {
				t.Errorf("%s: message %q, want %q", tt.name, err, tt.message)
			}
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func edit(good func(testing.TB) *http.Request, old, new string) func(testing.TB) *http.Request {
	return func(t testing.TB) *http.Request {
		r := good(t)
		was := r.Header.Get("Authorization")
		is := strings.Replace(was, old, new, 1)
		if was == is {
			t.Fatalf("%q is not in %q", old, was)
		}
		r.Header.Set("Authorization", is)
		return r
	}
}

// A key store that fails is our failure, not the caller's.
func TestKeyStoreFailure(t *testing.T) {
	r := signed(t, "{}", aws.Credentials{AccessKeyID: "BROKEN", SecretAccessKey: "x"}, "workspaces", testRegion, testNow)
	_, err := testAuth(t).request(r, []byte("{}"), "workspaces", JSON11)
	var refusal *Error
	if !errors.Is(err, errStore) || errors.As(err, &refusal) {
		t.Fatalf("got %v", err)
	}
}

// A secret that has been replaced is of no use any more, although the signer could have kept its derived key.
func TestReplacedSecret(t *testing.T) {
	a := testAuth(t)
	r := func() *http.Request { return signed(t, "{}", testCred, "workspaces", testRegion, testNow) }
	if _, err := a.request(r(), []byte("{}"), "workspaces", JSON11); err != nil {
		t.Fatal(err)
	}
	k := a.Keys.(keys)[testKey]
	k.Secret = "a new one"
	a.Keys.(keys)[testKey] = k
	if _, err := a.request(r(), []byte("{}"), "workspaces", JSON11); code(err) != "InvalidSignatureException" {
		t.Fatalf("got %v", err)
	}
}

func s3Signer(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }

func TestS3Header(t *testing.T) {
	const body = "some bytes"
	make := func(path, hash string, at time.Time) *http.Request {
		c, err := http.NewRequest("PUT", "http://127.0.0.1:8080"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		c.Header.Set("X-Amz-Content-Sha256", hash)
		if err := v4.NewSigner(s3Signer).SignHTTP(t.Context(), testCred, c, hash, "s3", testRegion, at); err != nil {
			t.Fatal(err)
		}
		return received(t, c, body)
	}
	read := func(r *http.Request) (string, error) {
		_, b, err := testAuth(t).S3(r)
		if err != nil {
			return "", err
		}
		got, err := io.ReadAll(b)
		return string(got), err
	}
	// The path goes into the signature as it is on the wire.
	for _, path := range []string{"/bucket/key", "/bucket/a%20b%2Bc", "/bucket/a+b", "/bucket//double", "/bucket/%C3%BC?uploads=", "/bucket/k?partNumber=1&uploadId=x%2Fy%3D", "/"} {
		if got, err := read(make(path, hashOf(body), testNow)); err != nil || got != body {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		if got, err := read(make(path, "UNSIGNED-PAYLOAD", testNow)); err != nil || got != body {
			t.Errorf("%s unsigned: %q, %v", path, got, err)
		}
	}
	if _, err := read(make("/b/k", hashOf("other"), testNow)); code(err) != "XAmzContentSHA256Mismatch" {
		t.Errorf("other hash: %v", err)
	}
	if _, err := read(make("/b/k", "nonsense", testNow)); code(err) != "InvalidArgument" {
		t.Errorf("not a hash: %v", err)
	}
	for at, want := range map[time.Duration]string{14 * time.Minute: "", -14 * time.Minute: "", 16 * time.Minute: "RequestTimeTooSkewed", -16 * time.Minute: "RequestTimeTooSkewed"} {
		if _, err := read(make("/b/k", hashOf(body), testNow.Add(at))); code(err) != want {
			t.Errorf("%v off: %v", at, err)
		}
	}
	r := make("/b/k", hashOf(body), testNow)
	r.Header.Del("X-Amz-Content-Sha256")
	if _, err := read(r); code(err) != "InvalidRequest" {
		t.Errorf("without x-amz-content-sha256: %v", err)
	}
	r = make("/b/k", hashOf(body), testNow)
	r.URL.Path = "/b/other"
	if _, err := read(r); code(err) != "SignatureDoesNotMatch" {
		t.Errorf("other key: %v", err)
	}
	r = make("/b/k", hashOf(body), testNow)
	r.ContentLength++
	if _, err := read(r); code(err) != "SignatureDoesNotMatch" {
		t.Errorf("other length: %v", err)
	}
}

func TestPresigned(t *testing.T) {
	make := func(at time.Time, expires string, headers ...string) *http.Request {
		c, err := http.NewRequest("GET", "http://127.0.0.1:8080/bucket/a%20b?X-Amz-Expires="+expires+"&response-content-type=text%2Fplain", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range headers {
			c.Header.Set(h, "v")
		}
		u, _, err := v4.NewSigner(s3Signer).PresignHTTP(t.Context(), testCred, c, unsignedPayload, "s3", testRegion, at)
		if err != nil {
			t.Fatal(err)
		}
		if c.URL, err = url.Parse(u); err != nil {
			t.Fatal(err)
		}
		return received(t, c, "")
	}
	change := func(r *http.Request, f func(url.Values)) *http.Request {
		q := r.URL.Query()
		f(q)
		r.URL.RawQuery = q.Encode()
		return r
	}
	tests := []struct {
		name string
		r    *http.Request
		code string
	}{
		{"good", make(testNow.Add(-time.Hour), "3600"), ""},
		{"signed header", make(testNow, "60", "X-Custom"), ""},
		{"past", make(testNow.Add(-time.Hour), "3599"), "AccessDenied"},
		{"future", make(testNow.Add(time.Hour), "3600"), "RequestTimeTooSkewed"},
		{"a week", make(testNow, "604800"), ""},
		{"longer than a week", make(testNow, "604801"), "AuthorizationQueryParametersError"},
		{"no time", make(testNow, "0"), "AuthorizationQueryParametersError"},
		{"negative", make(testNow, "-1"), "AuthorizationQueryParametersError"},
		{"not a number", make(testNow, "x"), "AuthorizationQueryParametersError"},
		{"prolonged", change(make(testNow, "60"), func(q url.Values) { q.Set("X-Amz-Expires", "61") }), "SignatureDoesNotMatch"},
		{"other answer", change(make(testNow, "60"), func(q url.Values) { q.Set("response-content-type", "text/html") }), "SignatureDoesNotMatch"},
		{"two expiries", change(make(testNow, "60"), func(q url.Values) { q.Add("X-Amz-Expires", "61") }), "AuthorizationQueryParametersError"},
		{"no signature", change(make(testNow, "60"), func(q url.Values) { q.Del("X-Amz-Signature") }), "AuthorizationQueryParametersError"},
		{"token", change(make(testNow, "60"), func(q url.Values) { q.Set("X-Amz-Security-Token", "t") }), "InvalidToken"},
	}
	both := make(testNow, "60")
	both.Header.Set("Authorization", "AWS4-HMAC-SHA256 x")
	tests = append(tests, struct {
		name string
		r    *http.Request
		code string
	}{"two mechanisms", both, "InvalidArgument"})
	for _, tt := range tests {
		_, _, err := testAuth(t).S3(tt.r)
		if code(err) != tt.code {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.code)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	good := signed(f, "{}", testCred, "workspaces", testRegion, testNow)
	f.Add(good.Header.Get("Authorization"), good.Header.Get("X-Amz-Date"), "")
	f.Add("AWS4-HMAC-SHA256 Credential=////, SignedHeaders=;;;, Signature=", "20130524T000000Z", "X-Amz-Algorithm=AWS4-HMAC-SHA256")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=1&X-Amz-SignedHeaders=host&X-Amz-Signature="+hashOf(""))
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request,=,=", "9", "a=%zz;")
	f.Add(good.Header.Get("Authorization"), good.Header.Get("X-Amz-Date"), "&&") // as good as no query
	a := testAuth(f)
	f.Fuzz(func(t *testing.T, authorization, date, query string) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader([]byte("{}")))
		r.URL.RawQuery = query
		r.Host = "workspaces.example"
		r.Header.Set("X-Amz-Target", "WorkspacesService.DescribeTags")
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
		r.Header.Set("X-Amz-Date", date)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		c, err := a.request(r, []byte("{}"), "workspaces", JSON11)
		if err == nil && (len(r.URL.Query()) > 0 || !strings.Contains(authorization, "Signature=") || c.AccessKeyID != testKey) {
			t.Fatalf("let in: %q %q %q", authorization, date, query)
		}
		if _, _, err := a.S3(r); err == nil {
			t.Fatalf("let in by S3: %q %q %q", authorization, date, query)
		}
	})
}
