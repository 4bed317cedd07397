package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"berth/internal/awsapi"
)

// Door speaks the S3 REST API over a Store: an http.Handler for requests in path style (/bucket/key) and in virtual-host style (/key at
// bucket.s3.anything). Every request must be signed (awsapi.Authenticator.S3) and be allowed by its user's policy: s3:PutObject on
// arn:aws:s3:::bucket/key, and so on as IAM names the actions. What it does not do is refused with NotImplemented: operations, query
// parameters and x-amz- headers it does not know are never ignored.
//
// It wants the request as it came: an http.ServeMux in front of it would redirect keys with "//" and ".." in them. It moves the
// connection's deadlines along while a body is moving, so that a server's ReadTimeout and WriteTimeout do not end a long transfer.
type Door struct {
	Store     *Store
	Auth      *awsapi.Authenticator
	Region    string        // the Region of every bucket
	AccountID string        // the account that owns every bucket
	NewID     func() string // request ids; random when nil
	Stall     time.Duration // a body that does not move for so long is given up; stallTime when 0
	Log       *slog.Logger  // discarded when nil
}

const (
	stallTime = 60 * time.Second // our choice; Amazon names no figure
	sendBytes = 4 << 20          // bytes that must be taken within Stall while an object is sent
)

// request is one call of the door.
type request struct {
	*http.Request
	door        *Door
	w           http.ResponseWriter
	caller      awsapi.Caller
	body        *awsapi.Body
	query       url.Values
	bucket, key string
}

// level is what a request's path names.
type level int

const (
	serviceLevel level = iota
	bucketLevel
	objectLevel
)

// operation is an operation of the S3 API: how it is recognised, what it takes and what it asks for.
type operation struct {
	name   string
	level  level
	method string
	with   string   // query parameter, or header if it has an X- in front, that tells it from others of the same method
	params []string // other query parameters that it takes
	action string   // permission on the bucket or object; "" when run asks itself
	run    func(*request) error
}

// operations in the order in which they are tried.
var operations = []operation{
	{"ListBuckets", serviceLevel, "GET", "", []string{"prefix", "max-buckets", "continuation-token", "bucket-region"}, "s3:ListAllMyBuckets", (*request).listBuckets},

	{"GetBucketLocation", bucketLevel, "GET", "location", nil, "s3:GetBucketLocation", (*request).getBucketLocation},
	{"ListMultipartUploads", bucketLevel, "GET", "uploads", []string{"prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"}, "s3:ListBucketMultipartUploads", (*request).listMultipartUploads},
	{"ListObjectsV2", bucketLevel, "GET", "list-type", []string{"prefix", "delimiter", "continuation-token", "start-after", "max-keys", "encoding-type", "fetch-owner"}, "s3:ListBucket", (*request).listObjectsV2},
	{"ListObjects", bucketLevel, "GET", "", []string{"prefix", "delimiter", "marker", "max-keys", "encoding-type"}, "s3:ListBucket", (*request).listObjects},
	{"HeadBucket", bucketLevel, "HEAD", "", nil, "s3:ListBucket", (*request).headBucket},
	{"CreateBucket", bucketLevel, "PUT", "", nil, "s3:CreateBucket", (*request).createBucket},
	{"DeleteBucket", bucketLevel, "DELETE", "", nil, "s3:DeleteBucket", (*request).deleteBucket},
	{"DeleteObjects", bucketLevel, "POST", "delete", nil, "", (*request).deleteObjects},

	{"ListParts", objectLevel, "GET", "uploadId", []string{"max-parts", "part-number-marker", "encoding-type"}, "s3:ListMultipartUploadParts", (*request).listParts},
	{"GetObject", objectLevel, "GET", "", slices.Concat([]string{"partNumber"}, overrides), "s3:GetObject", (*request).getObject},
	{"HeadObject", objectLevel, "HEAD", "", slices.Concat([]string{"partNumber"}, overrides), "s3:GetObject", (*request).getObject},
	{"CreateMultipartUpload", objectLevel, "POST", "uploads", nil, "s3:PutObject", (*request).createMultipartUpload},
	{"CompleteMultipartUpload", objectLevel, "POST", "uploadId", nil, "s3:PutObject", (*request).completeMultipartUpload},
	{"AbortMultipartUpload", objectLevel, "DELETE", "uploadId", nil, "s3:AbortMultipartUpload", (*request).abortMultipartUpload},
	{"UploadPart", objectLevel, "PUT", "uploadId", []string{"partNumber"}, "s3:PutObject", (*request).uploadPart},
	{"CopyObject", objectLevel, "PUT", "X-Amz-Copy-Source", nil, "s3:PutObject", (*request).copyObject},
	{"PutObject", objectLevel, "PUT", "", nil, "s3:PutObject", (*request).putObject},
	{"DeleteObject", objectLevel, "DELETE", "", nil, "s3:DeleteObject", (*request).deleteObject},
}

// overrides are the query parameters of GetObject that replace headers of the answer, and the headers.
var overrides = []string{"response-content-type", "response-content-language", "response-expires", "response-cache-control",
	"response-content-disposition", "response-content-encoding"}

// amzHeaders are the x-amz- headers that one of our operations takes, or that change nothing here. Those of user metadata and checksums
// are told by their beginning; values are looked at where values matter (see checkHeaders).
var amzHeaders = []string{"X-Amz-Acl", "X-Amz-Content-Sha256", "X-Amz-Copy-Source", "X-Amz-Copy-Source-If-Match", "X-Amz-Copy-Source-If-None-Match",
	"X-Amz-Copy-Source-Range", "X-Amz-Date", "X-Amz-Decoded-Content-Length", "X-Amz-Expected-Bucket-Owner",
	"X-Amz-Metadata-Directive", "X-Amz-Mp-Object-Size", "X-Amz-Object-Ownership", "X-Amz-Request-Payer", "X-Amz-Sdk-Checksum-Algorithm",
	"X-Amz-Source-Expected-Bucket-Owner", "X-Amz-Storage-Class", "X-Amz-Trailer", "X-Amz-User-Agent"}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	newID := d.NewID
	if newID == nil {
		newID = rand.Text
	}
	id := newID()
	w.Header().Set("X-Amz-Request-Id", id)
	// Objects are strangers' bytes on the console's own origin: a browser that follows a presigned URL must not run them there.
	w.Header().Set("Content-Security-Policy", "sandbox")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// An upload may take longer than the server's WriteTimeout, and its answer as well. What is sent has time limits of its own, see send.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // a server that has no deadlines needs none taken away
	q := &request{Request: r, door: d, w: w}
	name, err := q.serve()
	if err == nil {
		return
	}
	shown := shown(err)
	if shown.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		d.log().ErrorContext(r.Context(), "s3 request failed", "operation", name, "bucket", q.bucket, "key", q.key, "requestId", id, "error", err)
	}
	q.refuse(shown, id)
}

func (d *Door) stall() time.Duration {
	if d.Stall <= 0 {
		return stallTime
	}
	return d.Stall
}

func (d *Door) log() *slog.Logger {
	if d.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Log
}

// serve does a request, and tells the operation's name.
func (q *request) serve() (string, error) {
	caller, body, err := q.door.Auth.S3(q.Request)
	if err != nil {
		return "", err
	}
	q.caller, q.body = caller, body
	if q.query, err = url.ParseQuery(q.URL.RawQuery); err != nil {
		return "", ErrInvalidURI
	}
	at := q.locate()
	op, err := q.operation(at)
	if err != nil {
		return "", err
	}
	if err := q.checkHeaders(); err != nil {
		return op.name, err
	}
	if op.action != "" {
		if err := q.allowed(op.action, q.bucket, q.key); err != nil {
			return op.name, err
		}
	}
	return op.name, op.run(q)
}

// locate reads bucket and key from the host and the path.
func (q *request) locate() level {
	p := strings.TrimPrefix(q.URL.Path, "/")
	host := q.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if i := strings.LastIndex(host, ".s3."); i > 0 {
		q.bucket, q.key = host[:i], p
	} else {
		q.bucket, q.key, _ = strings.Cut(p, "/")
	}
	switch {
	case q.bucket == "":
		return serviceLevel
	case q.key == "":
		return bucketLevel
	}
	return objectLevel
}

// operation finds what is asked for.
func (q *request) operation(at level) (*operation, error) {
	for i := range operations {
		op := &operations[i]
		if op.level != at || op.method != q.Method {
			continue
		}
		header := strings.HasPrefix(op.with, "X-")
		if op.with != "" && !header && !q.query.Has(op.with) || header && q.Header.Get(op.with) == "" {
			continue
		}
		for name, values := range q.query {
			if name != op.with && name != "x-id" && !strings.HasPrefix(name, "X-Amz-") && !slices.Contains(op.params, name) {
				return nil, ErrNotImplemented.saying("A query parameter you provided implies functionality that is not implemented").about(name)
			}
			if len(values) > 1 {
				return nil, ErrInvalidArgument.saying("The query parameter was given more than once").about(name)
			}
		}
		return op, nil
	}
	if !slices.Contains([]string{"GET", "HEAD", "PUT", "POST", "DELETE"}, q.Method) {
		return nil, ErrMethodNotAllowed.about(q.Method)
	}
	return nil, ErrNotImplemented.saying("This operation is not implemented").about(q.Method)
}

// checkHeaders refuses headers that ask for something that we do not do.
func (q *request) checkHeaders() error {
	accepted := map[string][]string{
		"X-Amz-Acl":              {"private", "bucket-owner-full-control", "bucket-owner-read"}, // the same where one account owns all
		"X-Amz-Storage-Class":    {"STANDARD"},
		"X-Amz-Object-Ownership": {"BucketOwnerEnforced"}, // no ACLs
		"X-Amz-Request-Payer":    {"requester"},           // nobody pays
	}
	for name := range q.Header {
		if !strings.HasPrefix(name, "X-Amz-") || strings.HasPrefix(name, metaPrefix) {
			continue
		}
		values, limited := accepted[name]
		if !slices.Contains(amzHeaders, name) && !checksumHeader(name) || limited && !slices.Contains(values, q.Header.Get(name)) {
			return ErrNotImplemented.about(name)
		}
	}
	for _, name := range []string{"X-Amz-Expected-Bucket-Owner", "X-Amz-Source-Expected-Bucket-Owner"} {
		if v := q.Header.Get(name); v != "" && v != q.door.AccountID {
			return ErrAccessDenied.about(name)
		}
	}
	return nil
}

// checksumHeader tells whether a header belongs to the checksums that we know.
func checksumHeader(name string) bool {
	switch name {
	case "X-Amz-Checksum-Algorithm", "X-Amz-Checksum-Type", "X-Amz-Checksum-Mode":
		return true
	}
	return slices.ContainsFunc(algorithms, func(a Algorithm) bool { return a.header() == name })
}

// allowed asks the caller's policy.
func (q *request) allowed(action, bucket, key string) error {
	resource := "arn:aws:s3:::" + bucket
	if key != "" {
		resource += "/" + key
	}
	if bucket == "" {
		resource = "*"
	}
	return q.caller.Authorize(action, resource)
}

// shown is what a client sees of an error. Failures of ours become InternalError; they are logged, not told.
func shown(err error) *Refusal {
	var r *Refusal
	var a *awsapi.Error
	switch {
	case errors.As(err, &a):
		if r = (&Refusal{a.Status, a.Code, a.Message, ""}); r.Status == 0 {
			r.Status = http.StatusBadRequest
		}
		return r
	case errors.As(err, &r):
		return r
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrRequestTimeout
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled), errors.Is(err, syscall.ECONNRESET):
		return ErrIncompleteBody
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errNoSpace
	case errors.Is(err, os.ErrClosed):
		return errServiceShuttingDown
	}
	return errInternal
}

// refuse answers with Amazon's error.
func (q *request) refuse(e *Refusal, id string) {
	if e.Status == http.StatusNotModified || q.Method == http.MethodHead {
		q.w.WriteHeader(e.Status)
		return
	}
	q.answer(e.Status, errorXML{Code: e.Code, Message: e.Message, Subject: e.Subject, Resource: q.URL.Path, BucketName: q.bucket, RequestID: id})
}

// moving is a request's body, given up when it stalls.
type moving struct {
	io.Reader
	control *http.ResponseController
	stall   time.Duration
}

func (m moving) Read(p []byte) (int, error) {
	// A server that cannot set deadlines has none to move along.
	if err := m.control.SetReadDeadline(time.Now().Add(m.stall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return m.Reader.Read(p)
}
