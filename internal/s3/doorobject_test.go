package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"berth/internal/awsapi"
)

// An object comes back as it went in, with the ETag that S3 computes and the checksum that the client asked for.
func TestObjectRoundTrip(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	content := noise(2, 3<<20+17)
	sum := md5.Sum(content)
	for _, a := range []types.ChecksumAlgorithm{"", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"} {
		key := "machines/win 10+ü." + string(a)
		in := &awss3.PutObjectInput{Bucket: &b, Key: &key, Body: bytes.NewReader(content), ChecksumAlgorithm: a,
			ContentType: aws.String("application/x-ova"), Metadata: map[string]string{"machine": "w10"}}
		kind := types.ChecksumType("FULL_OBJECT")
		if a == "" { // then the SDK sends no other checksum
			in.ContentMD5, kind = aws.String(base64.StdEncoding.EncodeToString(sum[:])), ""
		}
		put, err := d.client.PutObject(ctx, in)
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		if *put.ETag != `"`+hex.EncodeToString(sum[:])+`"` {
			t.Errorf("ETag %s", *put.ETag)
		}
		get, err := d.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(get.Body) // the SDK compares the checksum
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: content differs (%v)", a, err)
		}
		if *get.ContentType != "application/x-ova" || get.Metadata["machine"] != "w10" || *get.ETag != *put.ETag || get.ChecksumType != kind {
			t.Errorf("%s: headers %+v", a, get)
		}
		head, err := d.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &b, Key: &key})
		if err != nil || *head.ContentLength != int64(len(content)) || *head.ETag != *put.ETag {
			t.Errorf("HeadObject %+v, %v", head, err)
		}
	}
	key := "machines/win 10+ü."
	for _, c := range []struct {
		spec     string
		from, to int
	}{{"bytes=0-99", 0, 100}, {"bytes=100-100", 100, 101}, {"bytes=3145000-", 3145000, len(content)}, {"bytes=-10", len(content) - 10, len(content)}, {"bytes=10-99999999", 10, len(content)}} {
		out, err := d.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: &key, Range: &c.spec})
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(out.Body)
		if !bytes.Equal(got, content[c.from:c.to]) || *out.ContentRange != fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, len(content)) {
			t.Errorf("%s: %d bytes, %s", c.spec, len(got), *out.ContentRange)
		}
	}
	for _, spec := range []string{"bytes=99999999-", "bytes=-0"} {
		_, err := d.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: &key, Range: &spec})
		wantCode(t, err, "InvalidRange")
	}
	_, err := d.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: &key, IfMatch: aws.String(`"other"`)})
	wantCode(t, err, "PreconditionFailed")
	_, err = d.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: &key, IfNoneMatch: aws.String(hex.EncodeToString(sum[:]))})
	var re *smithyhttp.ResponseError
	if !errors.As(err, &re) || re.HTTPStatusCode() != http.StatusNotModified {
		t.Errorf("If-None-Match: %v", err)
	}
	_, err = d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: &key, Body: strings.NewReader("x"), IfNoneMatch: aws.String("*")})
	wantCode(t, err, "PreconditionFailed")
	_, err = d.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: aws.String("nothing")})
	wantCode(t, err, "NoSuchKey")

	copied := "copy"
	if _, err = d.client.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: &b, Key: &copied, CopySource: aws.String(b + "/machines/win%2010%2B%C3%BC.")}); err != nil {
		t.Fatal(err)
	}
	if _, err = d.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &b, Key: &key}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.get(t, b, copied), content) {
		t.Error("the copy differs, or went with its source")
	}
	_, err = d.client.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: &b, Key: &copied, CopySource: aws.String(b + "/" + copied)})
	wantCode(t, err, "InvalidRequest")
	// One content file for each object that is left, none for those replaced or deleted.
	if n := files(t, d.store.dir); n[dataDir] != 6 || n[objectsDir] != 6 {
		t.Errorf("files: %v", n)
	}
}

// Bodies that are not what was said are refused and leave nothing.
func TestBadBodies(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	wrongMD5 := md5.Sum([]byte("other"))
	_, err := d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("content"), ContentMD5: aws.String(base64.StdEncoding.EncodeToString(wrongMD5[:]))})
	wantCode(t, err, "BadDigest")
	_, err = d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("content"), ContentMD5: aws.String("notmd5")})
	wantCode(t, err, "InvalidDigest")
	_, err = d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("content"), ChecksumCRC32C: aws.String("AAAAAA==")})
	wantCode(t, err, "BadDigest")
	_, err = d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: strings.NewReader("content"), ChecksumCRC32C: aws.String("AAAA")})
	wantCode(t, err, "InvalidRequest")

	send := func(hash, signed, sent string, header map[string]string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, d.url+"/"+b+"/k", strings.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			r.Header.Set(k, v)
		}
		r.Header.Set("X-Amz-Content-Sha256", hash)
		cred := aws.Credentials{AccessKeyID: testKeyID, SecretAccessKey: signed}
		if err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(ctx, cred, r, hash, "s3", testRegion, time.Now()); err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		_, code, _ := strings.Cut(string(text), "<Code>")
		code, _, _ = strings.Cut(code, "</Code>")
		return fmt.Sprint(resp.StatusCode, code)
	}
	good := "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73" // sha256("content")
	if got := send(good, testSecret, "content", nil); got != "200" {
		t.Errorf("a good request: %s", got)
	}
	d.get(t, b, "k")
	if _, err := d.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &b, Key: aws.String("k")}); err != nil {
		t.Fatal(err)
	}
	for want, got := range map[string]string{
		"400 XAmzContentSHA256Mismatch": send(good, testSecret, "c0ntent", nil),
		"403 SignatureDoesNotMatch":     send(good, "other", "content", nil),
		"501 NotImplemented":            send(good, testSecret, "content", map[string]string{"X-Amz-Tagging": "a=b"}),
		"400 MetadataTooLarge":          send(good, testSecret, "content", map[string]string{"X-Amz-Meta-A": strings.Repeat("a", 2048)}),
		"403 AccessDenied":              send(good, testSecret, "content", map[string]string{"X-Amz-Expected-Bucket-Owner": "999999999999"}),
	} {
		if got != want && got != strings.Replace(want, " ", "", 1) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if status, text := raw(t, "GET", d.url+"/"+b+"/k", nil, nil); status != 403 || !strings.Contains(text, "<Code>AccessDenied</Code>") {
		t.Errorf("a request without a signature: %d %s", status, text)
	}
	if n := files(t, d.store.dir); n[dataDir] != 0 || n[objectsDir] != 0 {
		t.Errorf("files are left: %v", n)
	}
}

// A body shorter than it was said to be, as from a client that dies, stores nothing.
func TestBrokenUpload(t *testing.T) {
	d := openDoor(t)
	b := d.bucket(t, "images")
	ctx, cancel := context.WithCancel(t.Context())
	body := io.MultiReader(bytes.NewReader(make([]byte, 4<<20)), readerFunc(func([]byte) (int, error) { cancel(); return 0, io.ErrClosedPipe }))
	_, err := d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: body, ContentLength: aws.Int64(8 << 20)},
		awss3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware), func(o *awss3.Options) { o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired })
	if err == nil {
		t.Fatal("half an upload was accepted")
	}
	for range 100 {
		if files(t, d.store.dir)[dataDir] == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the half content stays")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Whatever a key looks like, it is a key: it comes back, and nothing appears outside the store.
func TestStrangeKeys(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	strange := []string{"../../etc/passwd", "..", ".", "/", "//", "/abs", "a//b", "a/./b", "a/../b", "nul\x00byte", "new\nline", "per%2Fcent", "pl+us", "q?x=y#z",
		"ü/漢字/🖥", strings.Repeat("k", 1024), strings.Repeat("d/", 512), "CON", "bucket.json", "a\\b", " ", "~", "*", "<&>\"'"}
	for _, k := range strange {
		d.put(t, b, k, []byte("content of "+k))
	}
	for _, k := range strange {
		if got := string(d.get(t, b, k)); got != "content of "+k {
			t.Errorf("%q: %q", k, got)
		}
	}
	again := reopen(t, d.store)
	for _, k := range strange {
		if o, err := again.head(b, k); err != nil || o.Size != int64(len("content of "+k)) {
			t.Errorf("%q after a restart: %v, %v", k, o, err)
		}
	}
	_, err := d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String(strings.Repeat("k", 1025)), Body: strings.NewReader("")})
	if err == nil {
		t.Error("a key of 1025 bytes was accepted")
	}
	if err := checkKey("\xff"); err == nil {
		t.Error("a key that is not UTF-8 was accepted")
	}
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	if _, err := Open(StoreOptions{Dir: s.dir}); err == nil {
		t.Error("the store was opened twice")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openStore(t, s.dir)
}

// Many readers and writers of one key: every reader sees one whole content.
func TestConcurrentReplacement(t *testing.T) {
	d := openDoor(t)
	b := d.bucket(t, "images")
	d.put(t, b, "k", bytes.Repeat([]byte{0}, 200_000))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 10 {
				c := bytes.Repeat([]byte{byte(i)}, 200_000)
				if _, err := d.client.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: bytes.NewReader(c)}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 10 {
				out, err := d.client.GetObject(t.Context(), &awss3.GetObjectInput{Bucket: &b, Key: aws.String("k")})
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(out.Body)
				if err != nil || len(got) != 200_000 || bytes.Count(got, got[:1]) != len(got) {
					t.Errorf("a mixed content of %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	if n := files(t, d.store.dir); n[dataDir] != 1 || n[objectsDir] != 1 {
		t.Errorf("files: %v", n)
	}
}

// A transfer that moves may take longer than the server's time limits; one that does not move is given up.
func TestSlowTransfers(t *testing.T) {
	t.Parallel()
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	h := &Door{Store: d.store, Region: testRegion, AccountID: account, Stall: 2 * time.Second, Auth: &awsapi.Authenticator{Keys: d.keys, Region: testRegion, Now: time.Now}}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond
	srv.Start()
	defer srv.Close()
	c := *d
	c.url = srv.URL
	put := func(body io.Reader, size int64) error {
		return errOf(c.as(testKeyID, testSecret).PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("k"), Body: body, ContentLength: &size},
			awss3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware), func(o *awss3.Options) { o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired }))
	}
	pause := func(d time.Duration) io.Reader {
		return readerFunc(func([]byte) (int, error) { time.Sleep(d); return 0, io.EOF })
	}
	if err := put(io.MultiReader(strings.NewReader("a"), pause(400*time.Millisecond), strings.NewReader("b"), pause(400*time.Millisecond), strings.NewReader("c")), 3); err != nil {
		t.Error(err)
	}
	if got := string(d.get(t, b, "k")); got != "abc" {
		t.Errorf("%q", got)
	}
	if err := put(io.MultiReader(strings.NewReader("x"), pause(4*time.Second), strings.NewReader("yz")), 3); err == nil {
		t.Error("a transfer that does not move was not given up")
	}
	if got := string(d.get(t, b, "k")); got != "abc" {
		t.Errorf("%q", got)
	}
	if n := files(t, d.store.dir); n[dataDir] != 1 {
		t.Errorf("files: %v", n)
	}
}
