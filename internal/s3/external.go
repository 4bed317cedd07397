package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"

	"berth/internal/awsapi"
)

// ExternalOptions say where an S3-compatible object store is and how to sign for it.
type ExternalOptions struct {
	Endpoint        string // https://s3.example.net; "" for Amazon's own of the Region
	Region          string
	AccessKeyID     string // "" for requests without a signature
	SecretAccessKey awsapi.Secret
	PathStyle       bool          // bucket in the path, as most stores want it, instead of in the host's name
	Stall           time.Duration // a download that does not move for so long is begun again; a minute when 0
}

// External reads objects from an S3-compatible endpoint.
type External struct {
	client *awss3.Client
	stall  time.Duration
	piece  int64 // bytes of one GET
}

const (
	pieceBytes  = 64 << 20 // of a ranged GET; also what is lost at most by a crash, for each of the parallel ones
	pieceGETs   = 4        // in parallel: enough to fill a line that one TCP connection does not
	pieceTries  = 5        // of one piece, each going on where the last one stopped, unless it got further
	pieceSuffix = ".part"
	logSuffix   = ".part.log"
)

// NewExternal makes a source of an endpoint. It does not connect.
func NewExternal(o ExternalOptions) *External {
	opts := awss3.Options{Region: o.Region, UsePathStyle: o.PathStyle, Credentials: aws.AnonymousCredentials{},
		// Stores that are not Amazon's may not know the newer checksums: ask for them only where the protocol requires it.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		HTTPClient:                 awshttp.NewBuildableClient(),
	}
	if o.Endpoint != "" {
		opts.BaseEndpoint = aws.String(strings.TrimSuffix(o.Endpoint, "/"))
	}
	if o.AccessKeyID != "" {
		opts.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: o.AccessKeyID, SecretAccessKey: o.SecretAccessKey.Reveal(), Source: "berth"}, nil
		})
	}
	e := &External{client: awss3.New(opts), stall: o.Stall, piece: pieceBytes}
	if e.stall <= 0 {
		e.stall = stallTime
	}
	return e
}

// Stat implements Source by HeadObject.
func (e *External) Stat(ctx context.Context, bucket, key string) (Info, error) {
	if err := errors.Join(checkBucketName(bucket), checkKey(key)); err != nil {
		return Info{}, err
	}
	out, err := e.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		err = e.refused(err)
		// The answer to a HEAD has no body, so that a missing bucket looks like a missing key.
		if errors.Is(err, ErrNoSuchKey) {
			if _, b := e.client.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: &bucket}); errors.Is(e.refused(b), ErrNoSuchKey) {
				err = ErrNoSuchBucket.about(bucket)
			}
		}
		return Info{}, fmt.Errorf("s3://%s/%s: %w", bucket, key, err)
	}
	if out.ContentLength == nil || *out.ContentLength < 0 || *out.ContentLength > MaxObjectBytes || aws.ToString(out.ETag) == "" {
		return Info{}, fmt.Errorf("s3://%s/%s: HeadObject told no usable Content-Length and ETag", bucket, key)
	}
	return Info{Size: *out.ContentLength, ETag: strings.Trim(*out.ETag, `"`), Modified: aws.ToTime(out.LastModified)}, nil
}

// Stage implements Source: by ranged GETs in parallel into dst+".part". After an interruption it goes on where it stopped, as long as
// the object's ETag is the same; every request asks for that ETag, so that a file is never of two objects. When an object
// is staged again after it was complete, it is downloaded again.
func (e *External) Stage(ctx context.Context, bucket, key, dst string, progress func(done, total int64)) error {
	info, err := e.Stat(ctx, bucket, key)
	if err != nil {
		return err
	}
	d, err := e.download(bucket, key, dst, info)
	if err != nil {
		return fmt.Errorf("stage s3://%s/%s: %w", bucket, key, err)
	}
	defer d.close()
	d.progress = progress
	if err := d.run(ctx); err != nil {
		return fmt.Errorf("stage s3://%s/%s: %w", bucket, key, err)
	}
	if progress != nil {
		progress(info.Size, info.Size)
	}
	return nil
}

// refused turns the endpoint's answer into a Refusal where a Source has one.
func (e *External) refused(err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return err
	}
	switch api.ErrorCode() {
	case "NoSuchBucket":
		return ErrNoSuchBucket
	case "NoSuchKey", "NotFound": // HeadObject's, whose answer has no body
		return ErrNoSuchKey
	case "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return ErrAccessDenied.saying("%s: %s", api.ErrorCode(), api.ErrorMessage())
	}
	return err
}

// download is one object on its way to a file.
//
//	dst.part       the object, with holes where pieces are missing
//	dst.part.log   a first line that names object and ETag, then the number of each piece that is flushed to disk
type download struct {
	e           *External
	bucket, key string
	dst         string
	info        Info
	file, log   *os.File

	mu       sync.Mutex
	have     map[int64]bool // pieces
	done     int64          // bytes, those of unfinished pieces included
	told     int64
	progress func(done, total int64)
}

func (d *download) head() string {
	h := sha256.Sum256([]byte(d.bucket + "\x00" + d.key))
	raw, _ := json.Marshal([]any{hex.EncodeToString(h[:]), d.info.ETag, d.info.Size, d.e.piece}) // cannot fail
	return string(raw)
}

// download opens what an earlier one has left, or begins anew.
func (e *External) download(bucket, key, dst string, info Info) (_ *download, err error) {
	d := &download{e: e, bucket: bucket, key: key, dst: dst, info: info, have: map[int64]bool{}}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.file, err = os.OpenFile(dst+pieceSuffix, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if d.log, err = os.OpenFile(dst+logSuffix, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(d.log, 64<<20)) // 5 TiB are 81,920 pieces
	if err != nil {
		return nil, err
	}
	fi, err := d.file.Stat()
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(raw), "\n")
	if lines[0] != d.head() || fi.Size() != info.Size {
		// Another object, or nothing, or a file that was complete and has its final name already. The log is emptied before the file: what is in the file must never count as the new object's.
		if err = errors.Join(d.log.Truncate(0), d.log.Sync(), d.file.Truncate(0)); err != nil {
			return nil, err
		}
		if _, err = fmt.Fprintln(d.log, d.head()); err != nil {
			return nil, err
		}
		if err = errors.Join(d.log.Sync(), syncFolder(filepath.Dir(dst))); err != nil {
			return nil, err
		}
	} else {
		for _, l := range lines[1:] {
			var n, size int64
			// A piece is said with its size, so that a number that a crash cut short is not taken for another.
			if _, err := fmt.Sscanf(l, "%d %d.", &n, &size); err == nil && n >= 0 && n < d.pieces() && size == d.piece(n).length && strings.HasSuffix(l, ".") && !d.have[n] {
				d.have[n] = true
				d.done += size
			}
		}
	}
	return d, d.file.Truncate(info.Size)
}

func (d *download) close() {
	for _, f := range []*os.File{d.file, d.log} {
		if f != nil {
			_ = f.Close() // what matters has been flushed
		}
	}
}

func (d *download) pieces() int64 { return (d.info.Size + d.e.piece - 1) / d.e.piece }

func (d *download) piece(n int64) span {
	return span{n * d.e.piece, min(d.e.piece, d.info.Size-n*d.e.piece)}
}

func (d *download) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pieceGETs)
	for n := range d.pieces() {
		if d.have[n] {
			continue
		}
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return d.fetch(gctx, n) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(d.dst+pieceSuffix, d.dst); err != nil {
		return err
	}
	if err := os.Remove(d.dst + logSuffix); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(d.dst))
}

// errAnotherRange is an endpoint's answer of other bytes than it was asked for; asking again will not help.
var errAnotherRange = errors.New("the endpoint answered with another Content-Range")

// fetch gets one piece. It tries again, from where it stopped, as long as it gets on.
func (d *download) fetch(ctx context.Context, n int64) error {
	left := d.piece(n)
	whole := left.length
	for tries := 0; left.length > 0; {
		got, err := d.get(ctx, left)
		left.start += got
		left.length -= got
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if got > 0 {
			tries = 0
		}
		var status *awshttp.ResponseError
		final := errors.As(err, &status) && status.HTTPStatusCode() < http.StatusInternalServerError && !slices.Contains([]int{http.StatusRequestTimeout, http.StatusTooManyRequests}, status.HTTPStatusCode())
		if tries++; final || tries >= pieceTries || errors.Is(err, errAnotherRange) {
			return fmt.Errorf("bytes %d to %d: %w", left.start, left.start+left.length-1, d.e.refused(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(tries*tries) * 200 * time.Millisecond):
		}
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := fmt.Fprintf(d.log, "%d %d.\n", n, whole); err != nil {
		return err
	}
	return d.log.Sync()
}

// get gets what it can of a span in one request, and tells how many bytes it has written.
func (d *download) get(ctx context.Context, s span) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stall := time.AfterFunc(d.e.stall, cancel) // the SDK's client has no time limit of its own for an answer's body
	defer stall.Stop()
	out, err := d.e.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &d.bucket, Key: &d.key, IfMatch: aws.String(quoted(d.info.ETag)),
		Range: aws.String(fmt.Sprintf("bytes=%d-%d", s.start, s.start+s.length-1))})
	if err != nil {
		return 0, err
	}
	defer out.Body.Close()
	want := fmt.Sprintf("bytes %d-%d/%d", s.start, s.start+s.length-1, d.info.Size)
	whole := s.start == 0 && s.length == d.info.Size && out.ContentRange == nil // a server may answer so
	if !whole && aws.ToString(out.ContentRange) != want {
		return 0, fmt.Errorf("%w: %q instead of %q", errAnotherRange, aws.ToString(out.ContentRange), want)
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var got int64
	for got < s.length {
		n, err := out.Body.Read((*buf)[:min(int64(len(*buf)), s.length-got)])
		if n > 0 {
			stall.Reset(d.e.stall)
			if _, err := d.file.WriteAt((*buf)[:n], s.start+got); err != nil {
				return got, err
			}
			got += int64(n)
			d.moved(int64(n))
		}
		if err != nil && got < s.length {
			if err == io.EOF { // the reader's own word for its end
				err = io.ErrUnexpectedEOF
			}
			return got, err
		}
	}
	return got, nil
}

// moved counts bytes and reports them now and then.
func (d *download) moved(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done += n
	if d.progress != nil && d.done-d.told >= copyBufBytes {
		d.told = d.done
		d.progress(d.done, d.info.Size)
	}
}
