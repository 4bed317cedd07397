package s3

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

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
