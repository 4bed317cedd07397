package s3

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func (q *request) putObject() error {
	header, err := q.headers()
	if err != nil {
		return err
	}
	in, err := q.payload()
	if err != nil {
		return err
	}
	o, err := q.door.Store.put(q.Context(), q.bucket, q.key, header, in, q.stored())
	if err != nil {
		return err
	}
	q.w.Header().Set("ETag", quoted(o.ETag))
	setChecksum(q.w.Header(), o.Checksum)
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// getObject is GetObject and HeadObject.
func (q *request) getObject() error {
	o, f, err := q.door.Store.open(q.bucket, q.key)
	if errors.Is(err, ErrNoSuchKey) {
		// Who may not list the bucket is not told what is not in it (GetObject, "Permissions").
		if q.allowed("s3:ListBucket", q.bucket, "") != nil {
			return ErrAccessDenied
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	q.w.Header().Set("ETag", quoted(o.ETag))
	q.w.Header().Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	if err := readable(q.Header, o); err != nil {
		return err
	}
	piece, status, err := q.piece(o)
	if err != nil {
		q.w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(o.Size, 10))
		return err
	}
	h := q.w.Header()
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "binary/octet-stream")
	for name, value := range o.Header {
		h.Set(name, value)
	}
	for _, p := range overrides {
		if v := q.query.Get(p); v != "" {
			h.Set(strings.TrimPrefix(p, "response-"), v)
		}
	}
	if status == http.StatusPartialContent {
		h.Set("Content-Range", "bytes "+strconv.FormatInt(piece.start, 10)+"-"+strconv.FormatInt(piece.start+piece.length-1, 10)+"/"+strconv.FormatInt(o.Size, 10))
	} else if strings.EqualFold(q.Header.Get("X-Amz-Checksum-Mode"), "ENABLED") {
		setChecksum(h, o.Checksum)
	}
	h.Set("Content-Length", strconv.FormatInt(piece.length, 10))
	q.w.WriteHeader(status)
	if q.Method == http.MethodHead {
		return nil
	}
	return q.send(f, piece)
}

// piece is what of an object was asked for: by Range, by part number, or all of it.
func (q *request) piece(o *object) (span, int, error) {
	if q.query.Has("partNumber") {
		if q.Header.Get("Range") != "" {
			return span{}, 0, ErrInvalidRequest.saying("Cannot specify both Range header and partNumber query parameter")
		}
		n, err := q.number("partNumber", 0, 1, MaxParts)
		if err != nil {
			return span{}, 0, err
		}
		parts := o.Parts
		if len(parts) == 0 {
			parts = []int64{o.Size}
		} else {
			q.w.Header().Set("X-Amz-Mp-Parts-Count", strconv.Itoa(len(parts)))
		}
		if n < 1 || n > len(parts) {
			return span{}, 0, ErrInvalidPartNumber
		}
		s := span{length: parts[n-1]}
		for _, size := range parts[:n-1] {
			s.start += size
		}
		if s.length == 0 { // a Content-Range cannot say so
			return s, http.StatusOK, nil
		}
		return s, http.StatusPartialContent, nil
	}
	whole := span{0, o.Size}
	if m := q.Header.Get("If-Range"); m != "" && !sameETag(m, o.ETag) {
		return whole, http.StatusOK, nil
	}
	if r := q.Header.Get("Range"); r != "" {
		s, ok, err := byteRange(r, o.Size)
		if err != nil {
			return span{}, 0, err
		}
		if ok {
			return s, http.StatusPartialContent, nil
		}
	}
	return whole, http.StatusOK, nil
}

// send sends a piece of a file; the kernel copies it (sendfile). The status has been sent, so a failure can only be logged: net/http
// closes a connection on which less than Content-Length was written, and the client sees that.
func (q *request) send(f *os.File, s span) error {
	control := http.NewResponseController(q.w)
	_, err := f.Seek(s.start, io.SeekStart)
	for left := s.length; left > 0 && err == nil; {
		if e := control.SetWriteDeadline(time.Now().Add(q.door.stall())); e != nil && !errors.Is(e, http.ErrNotSupported) {
			err = e
			break
		}
		var n int64
		n, err = io.CopyN(q.w, f, min(left, sendBytes))
		left -= n
	}
	if err != nil {
		q.door.log().Info("sending an object ended early", "bucket", q.bucket, "key", q.key, "error", err)
	}
	return nil
}

func (q *request) copyObject() error {
	bucket, key, err := q.copySource()
	if err != nil {
		return err
	}
	if q.Header.Get("X-Amz-Copy-Source-Range") != "" {
		return ErrNotImplemented.about("x-amz-copy-source-range")
	}
	var header map[string]string
	switch q.Header.Get("X-Amz-Metadata-Directive") {
	case "REPLACE":
		if header, err = q.headers(); err != nil {
			return err
		}
	case "", "COPY":
		if bucket == q.bucket && key == q.key {
			return ErrInvalidRequest.saying("This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
		}
	default:
		return ErrInvalidArgument.saying("Unknown metadata directive.").about("x-amz-metadata-directive")
	}
	o, err := q.door.Store.copyObject(bucket, key, q.bucket, q.key, header, q.copyCondition(), q.stored())
	if err != nil {
		return err
	}
	q.answer(http.StatusOK, copyXML{XMLName: xml.Name{Space: xmlns, Local: "CopyObjectResult"}, LastModified: stamp(o.Modified), ETag: quoted(o.ETag), checksumXML: newChecksumXML(o.Checksum)})
	return nil
}

// copyCondition is what must hold of a copy's source.
func (q *request) copyCondition() condition {
	return condition{match: q.Header.Get("X-Amz-Copy-Source-If-Match"), noneMatch: q.Header.Get("X-Amz-Copy-Source-If-None-Match")}
}

func (q *request) deleteObject() error {
	if q.Header.Get("If-Match") != "" {
		return ErrNotImplemented.about("If-Match")
	}
	if err := q.door.Store.remove(q.bucket, q.key); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}
