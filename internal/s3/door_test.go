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
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"berth/internal/awsapi"
)

func TestBuckets(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	for _, name := range []string{"exports", "a.b-c", "images"} {
		d.bucket(t, name)
	}
	_, err := d.client.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("images")})
	wantCode(t, err, "BucketAlreadyOwnedByYou")
	for _, name := range []string{"ab", "Exports", "a..b", "-abc", "abc-", "192.168.0.1", "xn--abc", "a_b", strings.Repeat("a", 64), "..."} {
		_, err := d.client.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String(name)})
		wantCode(t, err, "InvalidBucketName")
	}
	out, err := d.client.ListBuckets(ctx, &awss3.ListBucketsInput{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range out.Buckets {
		names = append(names, *b.Name)
	}
	if fmt.Sprint(names) != "[a.b-c exports images]" || *out.Owner.ID != account || time.Since(*out.Buckets[0].CreationDate) > time.Minute {
		t.Errorf("buckets %v of %v since %v", names, *out.Owner.ID, out.Buckets[0].CreationDate)
	}
	pages := awss3.NewListBucketsPaginator(d.client, &awss3.ListBucketsInput{Prefix: aws.String(""), MaxBuckets: aws.Int32(2)})
	names = nil
	for pages.HasMorePages() {
		page := must2(pages.NextPage(ctx))(t)
		for _, b := range page.Buckets {
			names = append(names, *b.Name)
		}
	}
	if fmt.Sprint(names) != "[a.b-c exports images]" {
		t.Errorf("pages of buckets: %v", names)
	}
	loc, err := d.client.GetBucketLocation(ctx, &awss3.GetBucketLocationInput{Bucket: aws.String("images")})
	if err != nil || loc.LocationConstraint != testRegion {
		t.Errorf("location %v, %v", loc, err)
	}
	if head, err := d.client.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: aws.String("images")}); err != nil || *head.BucketRegion != testRegion {
		t.Errorf("HeadBucket: %v, %v", head, err)
	}
	_, err = d.client.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: aws.String("nothing")})
	wantCode(t, err, "NotFound")
	_, err = d.client.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("elsewhere"),
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "ap-south-1"}})
	wantCode(t, err, "IllegalLocationConstraintException")
	if _, err = d.client.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("here"),
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: testRegion}}); err != nil {
		t.Error(err)
	}
	d.put(t, "images", "x", []byte("x"))
	_, err = d.client.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: aws.String("images")})
	wantCode(t, err, "BucketNotEmpty")
	if _, err = d.client.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: aws.String("exports")}); err != nil {
		t.Error(err)
	}
	_, err = d.client.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: aws.String("exports")})
	wantCode(t, err, "NoSuchBucket")
	_, err = d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("exports"), Key: aws.String("k"), Body: strings.NewReader("x")})
	wantCode(t, err, "NoSuchBucket")
	_, err = d.client.GetBucketVersioning(ctx, &awss3.GetBucketVersioningInput{Bucket: aws.String("images")})
	wantCode(t, err, "NotImplemented")
	_, err = d.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("images"), Key: aws.String("k"), Body: strings.NewReader("x"), ServerSideEncryption: "aws:kms"})
	wantCode(t, err, "NotImplemented")
}

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

// What a user may not do is refused, by the policy's action and resource.
func TestPermissions(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	d.bucket(t, "secret")
	d.put(t, b, "in/x", []byte("x"))
	d.put(t, "secret", "in/x", []byte("x"))
	add := func(id, doc string) *awss3.Client {
		k := d.keys[testKeyID]
		k.ID, k.UserName, k.Policy = id, id, policy(t, doc)
		d.keys[id] = k
		return d.as(id, testSecret)
	}
	up := add("AKIAUPLOADER", `{"Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::images/in/*"}]}`)
	read := add("AKIAREADER", `{"Statement":[{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],"Resource":"arn:aws:s3:::images*"},{"Effect":"Deny","Action":"s3:GetObject","Resource":"arn:aws:s3:::images/in/no"}]}`)
	body := func() io.Reader { return strings.NewReader("y") }

	if _, err := up.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("in/y"), Body: body()}); err != nil {
		t.Error(err)
	}
	m, err := up.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: &b, Key: aws.String("in/m")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: &b}); err != nil {
		t.Error(err)
	}
	if _, err := read.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &b, Key: aws.String("in/x")}); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"put elsewhere":      errOf(up.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("out/y"), Body: body()})),
		"put other bucket":   errOf(up.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("secret"), Key: aws.String("in/y"), Body: body()})),
		"get by uploader":    errOf(up.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: aws.String("in/x")})),
		"list by uploader":   errOf(up.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: &b})),
		"buckets":            errOf(up.ListBuckets(ctx, &awss3.ListBucketsInput{})),
		"missing, may not":   errOf(up.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: aws.String("in/none")})),
		"copy from secret":   errOf(up.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: &b, Key: aws.String("in/z"), CopySource: aws.String("secret/in/x")})),
		"part from secret":   errOf(up.UploadPartCopy(ctx, &awss3.UploadPartCopyInput{Bucket: &b, Key: aws.String("in/m"), UploadId: m.UploadId, PartNumber: aws.Int32(1), CopySource: aws.String("secret/in/x")})),
		"complete elsewhere": errOf(up.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: &b, Key: aws.String("out/m"), UploadId: m.UploadId})),
		"abort":              errOf(up.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: &b, Key: aws.String("in/m"), UploadId: m.UploadId})),
		"parts":              errOf(up.ListParts(ctx, &awss3.ListPartsInput{Bucket: &b, Key: aws.String("in/m"), UploadId: m.UploadId})),
		"uploads":            errOf(up.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: &b})),
		"put by reader":      errOf(read.PutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("in/y"), Body: body()})),
		"delete by reader":   errOf(read.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &b, Key: aws.String("in/x")})),
		"denied":             errOf(read.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: aws.String("in/no")})),
		"create bucket":      errOf(read.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("images2")})),
		"delete bucket":      errOf(read.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: &b})),
		"location":           errOf(read.GetBucketLocation(ctx, &awss3.GetBucketLocationInput{Bucket: &b})),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, err, "AccessDenied") })
	}
	_, err = read.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: aws.String("in/none")})
	wantCode(t, err, "NoSuchKey")
	_, err = d.as("AKIANOBODY", testSecret).GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: aws.String("in/x")})
	wantCode(t, err, "InvalidAccessKeyId")
	del, err := read.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: &b, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("in/x")}}}})
	if err != nil || len(del.Errors) != 1 || *del.Errors[0].Code != "AccessDenied" {
		t.Errorf("DeleteObjects: %+v, %v", del, err)
	}
	if string(d.get(t, b, "in/x")) != "x" || string(d.get(t, "secret", "in/x")) != "x" {
		t.Error("an object has changed")
	}
}

func errOf[T any](_ T, err error) error { return err }

func unescape(s string) string {
	u, err := url.PathUnescape(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestListing(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	keys := []string{"a", "a/", "a/b", "a/c/1", "a/c/2", "a/c0", "b", "b c/ü", "b\x01", "c/1", "c/2", "c0"}
	for _, k := range keys {
		if _, err := d.store.put(ctx, b, k, nil, body{r: strings.NewReader(k), size: int64(len(k))}, condition{}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(keys)
	// want is a listing made the plain way.
	want := func(prefix, delimiter, after string) (out []string) {
		for _, k := range keys {
			if !strings.HasPrefix(k, prefix) || k <= after {
				continue
			}
			if i := strings.Index(k[len(prefix):], delimiter); delimiter != "" && i >= 0 {
				k = k[:len(prefix)+i+len(delimiter)] + "*"
			}
			if !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
		return out
	}
	for _, prefix := range []string{"", "a", "a/", "a/c/", "b c/", "c", "zz"} {
		for _, delimiter := range []string{"", "/", "c"} {
			for _, most := range []int32{1, 2, 3, 1000} {
				var v1, v2 []string
				p := awss3.NewListObjectsV2Paginator(d.client, &awss3.ListObjectsV2Input{Bucket: &b, Prefix: &prefix, Delimiter: &delimiter, MaxKeys: &most, EncodingType: "url"})
				for p.HasMorePages() {
					page, err := p.NextPage(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if int(*page.KeyCount) != len(page.Contents)+len(page.CommonPrefixes) || *page.KeyCount > most {
						t.Errorf("KeyCount %d", *page.KeyCount)
					}
					v2 = append(v2, merged(page.Contents, page.CommonPrefixes)...)
				}
				var marker *string
				for {
					page, err := d.client.ListObjects(ctx, &awss3.ListObjectsInput{Bucket: &b, Prefix: &prefix, Delimiter: &delimiter, MaxKeys: &most, Marker: marker, EncodingType: "url"})
					if err != nil {
						t.Fatal(err)
					}
					v1 = append(v1, merged(page.Contents, page.CommonPrefixes)...)
					if !*page.IsTruncated {
						break
					}
					marker = aws.String(unescape(*page.NextMarker))
				}
				w := want(prefix, delimiter, "")
				if !slices.Equal(v2, w) || !slices.Equal(v1, w) {
					t.Errorf("prefix %q delimiter %q max %d:\nV2   %q\nV1   %q\nwant %q", prefix, delimiter, most, v2, v1, w)
				}
			}
		}
	}
	out, err := d.client.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: &b, StartAfter: aws.String("a/c/1"), Delimiter: aws.String("/"), Prefix: aws.String("a/")})
	if err != nil || !slices.Equal(merged(out.Contents, out.CommonPrefixes), want("a/", "/", "a/c/1")) {
		t.Errorf("start-after: %+v, %v", out, err)
	}
	_, err = d.client.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: &b, ContinuationToken: aws.String("rubbish")})
	wantCode(t, err, "InvalidArgument")
	_, err = d.client.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: aws.String("nothing")})
	wantCode(t, err, "NoSuchBucket")

	var ids []types.ObjectIdentifier
	for _, k := range keys {
		if k != "b\x01" { // XML 1.0 cannot name it
			ids = append(ids, types.ObjectIdentifier{Key: aws.String(k)})
		}
	}
	ids = append(ids, types.ObjectIdentifier{Key: aws.String("never was")}, types.ObjectIdentifier{Key: aws.String(strings.Repeat("x", 1025))})
	del, err := d.client.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: &b, Delete: &types.Delete{Objects: ids}})
	if err != nil || len(del.Deleted) != len(keys) || len(del.Errors) != 1 || *del.Errors[0].Code != "KeyTooLongError" {
		t.Fatalf("DeleteObjects: %+v, %v", del, err)
	}
	if n := files(t, d.store.dir); n[dataDir] != 1 {
		t.Errorf("files: %v", n)
	}
}

func merged(objects []types.Object, prefixes []types.CommonPrefix) (out []string) {
	for _, o := range objects {
		out = append(out, unescape(*o.Key))
	}
	for _, p := range prefixes {
		out = append(out, unescape(*p.Prefix)+"*")
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(strings.TrimSuffix(a, "*"), strings.TrimSuffix(b, "*")) })
	return out
}

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

// The bucket may be in the host's name.
func TestVirtualHostStyle(t *testing.T) {
	d := openDoor(t)
	b := d.bucket(t, "my.images")
	d.put(t, b, "in/x", []byte("content"))
	r, err := http.NewRequestWithContext(t.Context(), "GET", d.url+"/in/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = b + ".s3.localhost:1234"
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	cred := aws.Credentials{AccessKeyID: testKeyID, SecretAccessKey: testSecret}
	if err := v4.NewSigner().SignHTTP(t.Context(), cred, r, "UNSIGNED-PAYLOAD", "s3", testRegion, time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, _ := io.ReadAll(resp.Body); string(got) != "content" {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

// Presigned URLs work without any further header, until they are touched or expire.
func TestPresigned(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	ps := awss3.NewPresignClient(d.client)
	put, err := ps.PresignPutObject(ctx, &awss3.PutObjectInput{Bucket: &b, Key: aws.String("a b/ü")})
	if err != nil {
		t.Fatal(err)
	}
	if status, text := raw(t, "PUT", put.URL, []byte("hello"), nil); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	get, err := ps.PresignGetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: aws.String("a b/ü"), ResponseContentType: aws.String("text/plain")})
	if err != nil {
		t.Fatal(err)
	}
	if status, text := raw(t, "GET", get.URL, nil, nil); status != 200 || text != "hello" {
		t.Errorf("%d %s", status, text)
	}
	for _, c := range []struct{ method, url, code string }{
		{"PUT", get.URL, "SignatureDoesNotMatch"},
		{"GET", strings.Replace(get.URL, "/a%20b/", "/a%20c/", 1), "SignatureDoesNotMatch"},
		{"GET", strings.Replace(get.URL, "Expires=900", "Expires=9000", 1), "SignatureDoesNotMatch"},
	} {
		if status, text := raw(t, c.method, c.url, nil, nil); status != 403 || !strings.Contains(text, c.code) {
			t.Errorf("%s %s: %d %s", c.method, c.url, status, text)
		}
	}
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

// What a client is told of an error that is not its own.
func TestShown(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{&fs.PathError{Op: "write", Path: "data/x", Err: syscall.ENOSPC}, 507, "InternalError"},
		{errors.Join(os.ErrClosed, errors.New("later")), 503, "ServiceUnavailable"},
		{fmt.Errorf("read: %w", os.ErrDeadlineExceeded), 400, "RequestTimeout"},
		{io.ErrUnexpectedEOF, 400, "IncompleteBody"},
		{errors.New("open data/secret: permission denied"), 500, "InternalError"},
		{fmt.Errorf("complete: %w", ErrNoSuchKey.about("k")), 404, "NoSuchKey"},
		{&awsapi.Error{Code: "InvalidRequest", Message: "m"}, 400, "InvalidRequest"},
	} {
		if r := shown(c.err); r.Status != c.status || r.Code != c.code || strings.Contains(r.Message, "secret") {
			t.Errorf("%v is shown as %d %v", c.err, r.Status, r)
		}
	}
}
