package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const metaPrefix = "X-Amz-Meta-"

// keptHeaders are stored with an object and given back with it, besides user metadata (x-amz-meta-).
var keptHeaders = []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control", "Expires"}

// plainPayload describes the request's body: its size, and its MD5 if that was sent.
func (q *request) plainPayload() (body, error) {
	in := body{r: moving{q.body, http.NewResponseController(q.w), q.door.stall()}, size: q.body.Length()}
	if in.size < 0 {
		return in, ErrMissingLength
	}
	if q.Header.Values("Content-Md5") != nil {
		var err error
		if in.md5, err = decodeMD5(q.Header.Get("Content-Md5")); err != nil {
			return in, err
		}
	}
	return in, nil
}

// payload describes the request's body: its size, and what it must be.
func (q *request) payload() (body, error) {
	in, err := q.plainPayload()
	if err != nil {
		return in, err
	}
	given, err := q.checksum()
	if err != nil {
		return in, err
	}
	in.algorithm, in.want = given.Algorithm, given.Value
	if name := textproto.CanonicalMIMEHeaderKey(q.Header.Get("X-Amz-Trailer")); name != "" {
		if in.algorithm != "" {
			return in, ErrInvalidRequest.saying("Expecting a single x-amz-checksum- header").about(name)
		}
		in.algorithm = Algorithm(strings.ToUpper(strings.TrimPrefix(name, "X-Amz-Checksum-")))
		if !in.algorithm.known() {
			return in, ErrInvalidRequest.saying("The value specified in the x-amz-trailer header is not supported").about(name)
		}
		in.trailer = func() string { return q.body.Trailer().Get(in.algorithm.header()) }
	}
	if a := q.Header.Get("X-Amz-Sdk-Checksum-Algorithm"); a != "" && in.algorithm == "" {
		return in, ErrInvalidRequest.saying("x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
	}
	return in, nil
}

// checksum reads the one x-amz-checksum- header that a request may have; the zero Checksum when it has none.
func (q *request) checksum() (Checksum, error) {
	var given Checksum
	for _, a := range algorithms {
		value := q.Header.Get(a.header())
		if value == "" {
			continue
		}
		if given.Algorithm != "" {
			return given, ErrInvalidRequest.saying("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		plain, _, _ := strings.Cut(value, "-") // a COMPOSITE one has the number of parts behind it
		if !a.valid(plain) {
			return given, ErrInvalidRequest.saying("Value for %s header is invalid.", strings.ToLower(a.header()))
		}
		given = Checksum{Algorithm: a, Value: value}
	}
	return given, nil
}

// xml reads a body of XML, checks it as any other and decodes it.
func (q *request) xml(in body, v any) error {
	if in.size > maxXMLBytes {
		return ErrMalformedXML.saying("The XML is longer than %d bytes", int64(maxXMLBytes))
	}
	var text bytes.Buffer
	if _, err := receive(q.Context(), in, func(p []byte) error { _, err := text.Write(p); return err }); err != nil {
		return err
	}
	if err := xml.Unmarshal(text.Bytes(), v); err != nil {
		return ErrMalformedXML.about(err.Error())
	}
	return nil
}

// headers are the request's headers that are stored with the object.
func (q *request) headers() (map[string]string, error) {
	out := map[string]string{}
	meta := 0
	for name, values := range q.Header {
		value := strings.Join(values, ",")
		if after, ok := strings.CutPrefix(name, metaPrefix); ok {
			if meta += len(after) + len(value); meta > maxMetaBytes {
				return nil, ErrMetadataTooLarge
			}
			out[name] = value
			continue
		}
		if !slices.Contains(keptHeaders, name) {
			continue
		}
		if name == "Content-Encoding" {
			value = withoutChunked(value)
		}
		if value != "" {
			out[name] = value
		}
	}
	return out, nil
}

// withoutChunked takes aws-chunked out of a Content-Encoding: it belongs to the request, not to the object.
func withoutChunked(value string) string {
	var kept []string
	for e := range strings.SplitSeq(value, ",") {
		if e = strings.TrimSpace(e); e != "" && !strings.EqualFold(e, "aws-chunked") {
			kept = append(kept, e)
		}
	}
	return strings.Join(kept, ",")
}

// stored is the condition under which an object may be stored.
func (q *request) stored() condition {
	return condition{match: q.Header.Get("If-Match"), noneMatch: q.Header.Get("If-None-Match")}
}

// number reads a query parameter that is a number from least on; what is greater than most counts as most.
func (q *request) number(name string, fallback, least, most int) (int, error) {
	v := q.query.Get(name)
	if v == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(v)
	if errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(v, "-") {
		n, err = most, nil
	}
	if err != nil || n < least {
		return 0, ErrInvalidArgument.saying("Provided %s not an integer or within integer range", name).about(name)
	}
	return min(n, most), nil
}

// copySource reads x-amz-copy-source: /bucket/key, escaped as in a URL.
func (q *request) copySource() (bucket, key string, err error) {
	source, version, _ := strings.Cut(q.Header.Get("X-Amz-Copy-Source"), "?")
	if version != "" && version != "versionId=null" {
		return "", "", ErrNotImplemented.about("versionId")
	}
	if source, err = url.PathUnescape(source); err != nil {
		return "", "", ErrInvalidArgument.saying("Copy Source must mention the source bucket and key: sourcebucket/sourcekey").about("x-amz-copy-source")
	}
	bucket, key, _ = strings.Cut(strings.TrimPrefix(source, "/"), "/")
	if bucket == "" || key == "" {
		return "", "", ErrInvalidArgument.saying("Copy Source must mention the source bucket and key: sourcebucket/sourcekey").about("x-amz-copy-source")
	}
	return bucket, key, q.allowed("s3:GetObject", bucket, key)
}

// span is a piece of an object.
type span struct{ start, length int64 }

// byteRange reads a Range of one piece: "bytes=0-99", "bytes=100-", "bytes=-100". Another unit, several pieces, or what is no range at all
// counts as no range, as RFC 9110, 14.2 has it and S3 does. ok is false then.
func byteRange(header string, size int64) (s span, ok bool, err error) {
	spec, isBytes := strings.CutPrefix(header, "bytes=")
	first, last, isRange := strings.Cut(strings.TrimSpace(spec), "-")
	if !isBytes || !isRange || strings.Contains(spec, ",") {
		return span{}, false, nil
	}
	from, errFrom := strconv.ParseUint(first, 10, 63)
	to, errTo := strconv.ParseUint(last, 10, 63)
	switch {
	case first == "" && errTo == nil: // the last bytes
		n := min(int64(to), size) // 63 bits were asked for
		if n == 0 {
			return span{}, false, ErrInvalidRange.about(header)
		}
		return span{size - n, n}, true, nil
	case errFrom != nil || last != "" && (errTo != nil || to < from):
		return span{}, false, nil
	case int64(from) >= size: // 63 bits
		return span{}, false, ErrInvalidRange.about(header)
	case last == "" || int64(to) >= size: // 63 bits
		return span{int64(from), size - int64(from)}, true, nil // 63 bits
	}
	return span{int64(from), int64(to - from + 1)}, true, nil // 63 bits
}

// readable checks the conditions of a GET or HEAD in the order of RFC 9110, 13.2.2. Times have seconds only.
func readable(h http.Header, o *object) error {
	modified := o.Modified.Truncate(time.Second)
	if m := h.Get("If-Match"); m != "" {
		if !sameETag(m, o.ETag) {
			return ErrPreconditionFailed.about("If-Match")
		}
	} else if t, err := http.ParseTime(h.Get("If-Unmodified-Since")); err == nil && modified.After(t) {
		return ErrPreconditionFailed.about("If-Unmodified-Since")
	}
	if m := h.Get("If-None-Match"); m != "" {
		if sameETag(m, o.ETag) {
			return errNotModified
		}
	} else if t, err := http.ParseTime(h.Get("If-Modified-Since")); err == nil && !modified.After(t) {
		return errNotModified
	}
	return nil
}
