package awsapi

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // S3's trailing checksums include SHA-1
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// The values of x-amz-content-sha256 that are not a hash ("Authenticating Requests: Using the Authorization Header").
const (
	unsignedPayload  = "UNSIGNED-PAYLOAD"
	unsignedTrailer  = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	streamingPayload = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamingTrailer = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
)

const (
	minChunk         = 8 << 10 // bytes; every signed chunk but the last one, S3's InvalidChunkSizeError
	maxLine          = 4 << 10 // bytes of a chunk header or a trailer; ours, the longest real one is about 150
	maxTrailers      = 16      // ours; S3 has one checksum and its signature
	emptySHA256      = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	crc64NVME        = 0x9a6c9329ac4bc9b5 // reversed polynomial of CRC-64/NVME
	trailerSignature = "x-amz-trailer-signature"
)

// Body is the payload of a request, verified while it is read, in constant memory whatever its length.
//
// A byte that Read returns is not verified until the chunk it belongs to has ended, and the payload is not
// verified until Read has returned io.EOF: keep nothing of a body that ended otherwise. An *Error from Read is a refusal; any other
// error is the connection's.
//
//	hex hash                            the SHA-256 of all bytes is compared at the end
//	UNSIGNED-PAYLOAD                    nothing to compare
//	STREAMING-AWS4-HMAC-SHA256-PAYLOAD  aws-chunked, every chunk signed and chained to the one before
//	  ...-TRAILER                       and a signed trailer after the last chunk
//	STREAMING-UNSIGNED-PAYLOAD-TRAILER  aws-chunked without signatures; the trailer has a checksum
//
//	+------------------------------------------------+
//	| size in hex [;chunk-signature=64 hex] CR LF    |  repeated; the last size is 0 and has no data
//	| data                                    CR LF  |
//	+------------------------------------------------+
//	| x-amz-checksum-...:base64 CR LF                |  trailer
//	| [x-amz-trailer-signature:64 hex CR LF] CR LF   |
//	+------------------------------------------------+
//
// A checksum in the trailer (CRC32, CRC32C, CRC64NVME, SHA1, SHA256) is compared too.
type Body struct {
	r       io.Reader
	length  int64
	trailer http.Header
	err     error // what ended the body; returned for ever after
}

// Read implements io.Reader; see Body for what its errors mean.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.err = err
	return n, err
}

// Length is the number of bytes of payload that the client declared, without the framing, or -1. A body that ends
// before or goes beyond it is refused.
func (b *Body) Length() int64 { return b.length }

// Trailer is what followed the payload, complete once Read has returned io.EOF: the checksum that the client
// announced in x-amz-trailer. It was compared with the payload.
func (b *Body) Trailer() http.Header { return b.trailer }

var (
	errIncomplete    = &Error{Code: "IncompleteBody", Message: "You did not provide the number of bytes specified by the Content-Length HTTP header"}
	errBodyMismatch  = &Error{Code: "XAmzContentSHA256Mismatch", Message: "The provided 'x-amz-content-sha256' header does not match what was computed."}
	errSmallChunk    = &Error{Code: "InvalidChunkSizeError", Message: "Only the last chunk is allowed to have a size less than 8192 bytes", Status: http.StatusForbidden}
	errMissingLength = &Error{Code: "MissingContentLength", Message: "You must provide the Content-Length HTTP header.", Status: http.StatusLengthRequired}
)

func malformed(what string) *Error {
	return &Error{Code: "InvalidRequest", Message: "The aws-chunked body is malformed: " + what}
}

// newBody chooses how a payload is verified by the value of x-amz-content-sha256, which the signature covers.
func newBody(r *http.Request, contentHash string, signer chunkSigner) (*Body, error) {
	b := &Body{length: r.ContentLength, trailer: http.Header{}}
	raw := r.Body
	if raw == nil {
		raw = http.NoBody
	}
	switch contentHash {
	case unsignedPayload:
		b.r = &lengthReader{r: raw, left: r.ContentLength}
		return b, nil
	case streamingPayload, streamingTrailer, unsignedTrailer:
	default:
		want, err := hex.DecodeString(contentHash)
		if err != nil || len(want) != sha256.Size {
			return nil, &Error{Code: "InvalidArgument", Message: "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, or a valid sha256 value."}
		}
		b.r = &hashReader{r: &lengthReader{r: raw, left: r.ContentLength}, sum: sha256.New(), want: want}
		return b, nil
	}
	n, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
	if err != nil || n < 0 {
		return nil, errMissingLength
	}
	b.length = n
	c := &chunkReader{r: bufio.NewReaderSize(raw, maxLine), left: n, trailer: b.trailer}
	if contentHash != unsignedTrailer {
		c.signer = &signer
		c.sum = sha256.New()
	}
	if contentHash != streamingPayload {
		c.trailed = true
		if c.announced, c.check, err = announcedChecksum(r.Header.Values("X-Amz-Trailer")); err != nil {
			return nil, err
		}
	}
	b.r = c
	return b, nil
}

// lengthReader holds a body to its Content-Length; left is -1 when there was none (chunked transfer).
type lengthReader struct {
	r    io.Reader
	left int64
}

func (l *lengthReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left >= 0 {
		if l.left -= int64(n); l.left < 0 {
			return 0, errIncomplete
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF && l.left > 0 {
		return n, errIncomplete
	}
	return n, err
}

// hashReader turns the end of a body into an error when its hash is not the one that was signed.
type hashReader struct {
	r    io.Reader
	sum  hash.Hash
	want []byte
}

func (h *hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.sum.Write(p[:n])
	if err == io.EOF && !hmac.Equal(h.sum.Sum(nil), h.want) {
		return 0, errBodyMismatch
	}
	return n, err
}

// chunkSigner makes the chain of chunk signatures; prev starts as the signature of the request.
type chunkSigner struct {
	key   []byte
	scope string // time, newline, credential scope
	prev  string
}

// chunk checks the signature of a data chunk whose SHA-256 is sum, and moves the chain on.
func (c *chunkSigner) chunk(sum []byte, got string) bool {
	return c.next("AWS4-HMAC-SHA256-PAYLOAD\n"+c.scope+"\n"+c.prev+"\n"+emptySHA256+"\n"+hex.EncodeToString(sum), got)
}

// trailer checks the signature of the trailing headers, given as canonical text.
func (c *chunkSigner) trailer(text, got string) bool {
	sum := sha256.Sum256([]byte(text))
	return c.next("AWS4-HMAC-SHA256-TRAILER\n"+c.scope+"\n"+c.prev+"\n"+hex.EncodeToString(sum[:]), got)
}

func (c *chunkSigner) next(toSign, got string) bool {
	c.prev = hex.EncodeToString(mac(c.key, toSign))
	return hmac.Equal([]byte(c.prev), []byte(got))
}

// chunkReader takes aws-chunked framing off.
type chunkReader struct {
	r         *bufio.Reader
	left      int64        // bytes of payload that are still to come, of those declared
	inChunk   int64        // bytes left in the current chunk
	signer    *chunkSigner // nil: chunks are not signed
	sum       hash.Hash    // of the current chunk; nil: not signed
	signature string       // of the current chunk
	small     bool         // a chunk below minChunk has been seen: it must have been the last one
	trailed   bool         // trailers follow the last chunk
	announced string
	check     hash.Hash // of the whole payload; nil: no checksum was announced
	trailer   http.Header
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.inChunk == 0 {
		if err := c.nextChunk(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.inChunk)])
	c.inChunk -= int64(n)
	c.left -= int64(n)
	if c.sum != nil {
		c.sum.Write(p[:n])
	}
	if c.check != nil {
		c.check.Write(p[:n])
	}
	if err != nil {
		return n, cutShort(err)
	}
	if c.inChunk == 0 { // verify now, so that the last bytes of a chunk never leave unverified
		if err := c.endChunk(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// cutShort is the error of a body that ends inside its framing.
func cutShort(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errIncomplete
	}
	return err
}

// line reads one line without its ending.
func (c *chunkReader) line() (string, error) {
	b, err := c.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", malformed("a line is longer than " + strconv.Itoa(maxLine) + " bytes")
	}
	if err != nil {
		return "", cutShort(err)
	}
	return strings.TrimSuffix(string(b[:len(b)-1]), "\r"), nil
}

// nextChunk reads a chunk's header; at the last chunk it goes on to the end of the body and returns io.EOF.
func (c *chunkReader) nextChunk() error {
	head, err := c.line()
	if err != nil {
		return err
	}
	digits, ext, _ := strings.Cut(head, ";")
	size, err := strconv.ParseUint(digits, 16, 62)
	if err != nil {
		return malformed("chunk size '" + printable(digits) + "'")
	}
	if int64(size) > c.left {
		return errIncomplete
	}
	if c.signer != nil {
		sig, ok := strings.CutPrefix(ext, "chunk-signature=")
		if !ok || len(sig) != 2*sha256.Size {
			return malformed("a chunk has no chunk-signature")
		}
		if c.small && size > 0 {
			return errSmallChunk
		}
		c.small = size < minChunk
		c.signature = sig
		c.sum.Reset()
	} else if ext != "" {
		return malformed("chunk extension '" + printable(ext) + "' in an unsigned body")
	}
	if size > 0 {
		c.inChunk = int64(size)
		return nil
	}
	return c.end()
}

// endChunk checks what follows the data of a chunk, and its signature.
func (c *chunkReader) endChunk() error {
	rest, err := c.line()
	if err != nil {
		return err
	}
	if rest != "" {
		return malformed("a chunk is longer than its size")
	}
	return c.checkChunk()
}

func (c *chunkReader) checkChunk() error {
	if c.signer != nil && !c.signer.chunk(c.sum.Sum(nil), c.signature) {
		return refuse(S3, wrongSignature, "")
	}
	return nil
}

// end reads from behind the header of the last chunk to the end of the body.
func (c *chunkReader) end() error {
	if c.left != 0 {
		return errIncomplete
	}
	if err := c.checkChunk(); err != nil {
		return err
	}
	if c.trailed {
		if err := c.readTrailer(); err != nil {
			return err
		}
	}
	// Clients differ in how many line ends close the body; anything else is smuggled.
	for range len("\r\n\r\n") + 1 {
		l, err := c.r.ReadByte()
		if err == io.EOF {
			return io.EOF
		}
		if err != nil {
			return cutShort(err)
		}
		if l != '\r' && l != '\n' {
			break
		}
	}
	return malformed("bytes after its end")
}

// readTrailer reads the trailing headers and checks their signature and the checksum among them.
func (c *chunkReader) readTrailer() error {
	var text strings.Builder
	var signature string
	for lines, done := 0, false; !done; lines++ {
		if lines > maxTrailers {
			return malformed("more than " + strconv.Itoa(maxTrailers) + " trailers")
		}
		l, err := c.line()
		if err != nil {
			return err
		}
		if l == "" {
			done = c.signer == nil // S3's documentation shows empty lines before the signature
			continue
		}
		name, value, ok := strings.Cut(l, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok:
			return malformed("trailer '" + printable(l) + "'")
		case name == trailerSignature && c.signer != nil:
			signature, done = value, true
		case name != c.announced || c.trailer.Get(name) != "":
			return malformed("trailer '" + printable(name) + "' was not announced in x-amz-trailer")
		default:
			c.trailer.Set(name, value)
			text.WriteString(name + ":" + value + "\n")
		}
	}
	if c.signer != nil && !c.signer.trailer(text.String(), signature) {
		return refuse(S3, wrongSignature, "")
	}
	got := c.trailer.Get(c.announced)
	if got == "" {
		return malformed("trailer '" + c.announced + "' was announced and did not come")
	}
	if got != base64.StdEncoding.EncodeToString(c.check.Sum(nil)) {
		kind := strings.ToUpper(strings.TrimPrefix(c.announced, "x-amz-checksum-"))
		return &Error{Code: "BadDigest", Message: "The " + kind + " you specified did not match the calculated checksum."}
	}
	return nil
}

// announcedChecksum reads x-amz-trailer: the name of the one checksum that will follow the payload.
func announcedChecksum(values []string) (string, hash.Hash, error) {
	name := strings.ToLower(strings.TrimSpace(strings.Join(values, ",")))
	switch name {
	case "x-amz-checksum-crc32":
		return name, crc32.NewIEEE(), nil
	case "x-amz-checksum-crc32c":
		return name, crc32.New(crc32.MakeTable(crc32.Castagnoli)), nil
	case "x-amz-checksum-crc64nvme":
		return name, crc64.New(crc64.MakeTable(crc64NVME)), nil
	case "x-amz-checksum-sha1":
		return name, sha1.New(), nil //nolint:gosec // see the import
	case "x-amz-checksum-sha256":
		return name, sha256.New(), nil
	}
	return "", nil, &Error{Code: "InvalidRequest", Message: "The value specified in the x-amz-trailer header is not supported"}
}
