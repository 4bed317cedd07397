package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"golang.org/x/sync/errgroup"
)

const (
	defaultPieceBytes = 64 << 20        // of a ranged GET
	flushInterval     = 2 * time.Second // what is lost at most by a crash
	pieceGETs         = 4               // in parallel: enough to fill a line that one TCP connection does not
	pieceTries        = 5               // of one piece, each going on where the last one stopped, unless it got further
	pieceSuffix       = ".part"
	logSuffix         = ".part.log"
)

// ErrStalled is a place that has answered and sends no more.
var ErrStalled = errors.New("nothing came any more")

// StatusError is an answer that is neither the file nor a refusal of it: the place is in trouble.
type StatusError struct{ Status int } // HTTP

func (e *StatusError) Error() string { return fmt.Sprintf("HTTP status %d", e.Status) }

// download is one object on its way to a file.
//
//	dst.part       the object, with holes where pieces are missing
//	dst.part.log   a first line that names object and ETag, then lines of a piece's number and how many of its bytes are flushed to disk
type download struct {
	source     string // what names the object, for itself
	dst        string
	info       Info
	pieceBytes int64
	stall      time.Duration // how long nothing may come
	// get asks for a range of the object as info tells it, and returns the answer's body and Content-Range.
	get func(ctx context.Context, s span) (io.ReadCloser, string, error)
	// refused turns an answer into a Refusal where it is one.
	refused func(error) error

	file, log *os.File

	mu       sync.Mutex
	have     map[int64]int64 // bytes of pieces that are flushed to disk
	done     int64           // bytes, those of unfinished pieces included
	progress func(done, total int64)
}

func (d *download) head() string {
	h := sha256.Sum256([]byte(d.source))
	raw, _ := json.Marshal([]any{hex.EncodeToString(h[:]), d.info.ETag, d.info.Size, d.pieceBytes}) // cannot fail
	return string(raw)
}

// stage gets the object, from where an earlier download of it stopped.
func (d *download) stage(ctx context.Context) error {
	defer d.close()
	if err := d.open(); err != nil {
		return err
	}
	if err := d.run(ctx); err != nil {
		return err
	}
	if d.progress != nil {
		d.progress(d.info.Size, d.info.Size)
	}
	return nil
}

// open opens what an earlier one has left, or begins anew.
func (d *download) open() (err error) {
	dst, info := d.dst, d.info
	d.have = map[int64]int64{}
	if d.file, err = os.OpenFile(dst+pieceSuffix, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if d.log, err = os.OpenFile(dst+logSuffix, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(d.log, 64<<20)) // 5 TiB are 81,920 pieces
	if err != nil {
		return err
	}
	fi, err := d.file.Stat()
	if err != nil {
		return err
	}
	lines := strings.Split(string(raw), "\n")
	if lines[0] != d.head() || fi.Size() != info.Size {
		// Another object, or nothing, or a file that was complete and has its final name already. The log is emptied before the file: what is in the file must never count as the new object's.
		if err = errors.Join(d.log.Truncate(0), d.log.Sync(), d.file.Truncate(0)); err != nil {
			return err
		}
		if _, err = fmt.Fprintln(d.log, d.head()); err != nil {
			return err
		}
		if err = errors.Join(d.log.Sync(), syncFolder(filepath.Dir(dst))); err != nil {
			return err
		}
	} else {
		for _, l := range lines[1:] {
			var n, got int64
			// The dot at the end tells a line from one that a crash cut short.
			if _, err := fmt.Sscanf(l, "%d %d.", &n, &got); err == nil && n >= 0 && n < d.pieces() && got >= 0 && got <= d.piece(n).length && strings.HasSuffix(l, ".") {
				d.done += max(got-d.have[n], 0)
				d.have[n] = max(got, d.have[n])
			}
		}
	}
	return d.file.Truncate(info.Size)
}

func (d *download) close() {
	for _, f := range []*os.File{d.file, d.log} {
		if f != nil {
			_ = f.Close() // what matters has been flushed
		}
	}
}

func (d *download) pieces() int64 { return (d.info.Size + d.pieceBytes - 1) / d.pieceBytes }

func (d *download) piece(n int64) span {
	return span{n * d.pieceBytes, min(d.pieceBytes, d.info.Size-n*d.pieceBytes)}
}

func (d *download) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pieceGETs)
	for n := range d.pieces() {
		if d.have[n] == d.piece(n).length {
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
var errAnotherRange = ErrInvalidRequest.saying("it is not sent in the ranges that are asked for")

// fetch gets one piece, or the rest of it. It tries again, from where it stopped, as long as it gets on.
func (d *download) fetch(ctx context.Context, n int64) error {
	d.mu.Lock()
	have := d.have[n]
	d.mu.Unlock()
	whole := d.piece(n)
	left := span{whole.start + have, whole.length - have}
	for tries := 0; left.length > 0; {
		got, err := d.receive(ctx, n, left)
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
		var refusal *Refusal
		final := errors.As(err, &refusal) || errors.As(err, &status) && !passing(status.HTTPStatusCode())
		if tries++; final || tries >= pieceTries {
			return fmt.Errorf("bytes %d to %d: %w", left.start, left.start+left.length-1, d.refused(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(tries*tries) * 200 * time.Millisecond):
		}
	}
	return d.flushed(n, whole.length)
}

// flushed flushes the file and writes down that so many bytes of a piece are safe.
func (d *download) flushed(n, got int64) error {
	if err := d.file.Sync(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := fmt.Fprintf(d.log, "%d %d.\n", n, got); err != nil {
		return err
	}
	return d.log.Sync()
}

// header is the span as a Range header has it.
func (s span) header() string { return fmt.Sprintf("bytes=%d-%d", s.start, s.start+s.length-1) }

// receive gets what it can of a span of a piece in one request, and tells how many bytes it has written.
func (d *download) receive(ctx context.Context, piece int64, s span) (got int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(d.stall, func() { cancel(ErrStalled) }) // clients have no time limit for an answer's body
	defer stall.Stop()
	defer func() {
		if err != nil && errors.Is(context.Cause(ctx), ErrStalled) {
			err = ErrStalled
		}
	}()
	body, contentRange, err := d.get(ctx, s)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	want := fmt.Sprintf("bytes %d-%d/%d", s.start, s.start+s.length-1, d.info.Size)
	whole := s.start == 0 && s.length == d.info.Size && contentRange == "" // a server may answer so
	if !whole && contentRange != want {
		return 0, fmt.Errorf("%w: the Content-Range is %q instead of %q", errAnotherRange, contentRange, want)
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	kept := time.Now()
	for got < s.length {
		if time.Since(kept) >= flushInterval {
			kept = time.Now()
			if err := d.flushed(piece, s.start+got-d.piece(piece).start); err != nil {
				return got, err
			}
		}
		n, err := body.Read((*buf)[:min(int64(len(*buf)), s.length-got)])
		if n > 0 {
			stall.Reset(d.stall)
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

// moved counts bytes and reports them, few as they may be: a line that has become slow is to be seen.
func (d *download) moved(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done += n
	if d.progress != nil {
		d.progress(d.done, d.info.Size)
	}
}
