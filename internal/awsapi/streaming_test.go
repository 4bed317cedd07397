package awsapi

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// upload makes aws-chunked requests. Its chunk signatures are the SDK's: an event stream's string to sign is that of
// an S3 chunk when the event has no headers.
type upload struct {
	mode    string
	chunks  []string
	trailer string // "name:value"; "": none
	encode  func(parts []string) []string
	// header changes the request before it is signed
	header func(http.Header)
}

func (u upload) request(t testing.TB) *http.Request {
	t.Helper()
	size := 0
	for _, c := range u.chunks {
		size += len(c)
	}
	c, err := http.NewRequest("PUT", "http://s3.example/bucket/key", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Header.Set("X-Amz-Content-Sha256", u.mode)
	c.Header.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(size))
	c.Header.Set("Content-Encoding", "aws-chunked")
	if u.trailer != "" {
		name, _, _ := strings.Cut(u.trailer, ":")
		c.Header.Set("X-Amz-Trailer", name)
	}
	if u.header != nil {
		u.header(c.Header)
	}
	if err := v4.NewSigner(s3Signer).SignHTTP(t.Context(), testCred, c, u.mode, "s3", testRegion, testNow); err != nil {
		t.Fatal(err)
	}
	_, sig, _ := strings.Cut(c.Header.Get("Authorization"), "Signature=")
	seed, err := hex.DecodeString(sig)
	if err != nil {
		t.Fatal(err)
	}
	stream := v4.NewStreamSigner(testCred, "s3", testRegion, seed)
	var parts []string
	var last []byte
	for _, data := range append(append([]string{}, u.chunks...), "") {
		head := fmt.Sprintf("%x", len(data))
		if u.mode != unsignedTrailer {
			if last, err = stream.GetSignature(t.Context(), nil, []byte(data), testNow); err != nil {
				t.Fatal(err)
			}
			head += ";chunk-signature=" + hex.EncodeToString(last)
		}
		if data != "" {
			data += "\r\n"
		}
		parts = append(parts, head+"\r\n"+data)
	}
	end := "\r\n"
	if u.trailer != "" {
		end = u.trailer + "\r\n"
		if u.mode == streamingTrailer {
			scope := testNow.Format(isoTime) + "\n20130524/us-east-1/s3/aws4_request\n"
			toSign := "AWS4-HMAC-SHA256-TRAILER\n" + scope + hex.EncodeToString(last) + "\n" + hashOf(u.trailer+"\n")
			end += "x-amz-trailer-signature:" + hex.EncodeToString(mac(signingKey(testSecret, "20130524", testRegion, "s3"), toSign)) + "\r\n"
		}
		end += "\r\n"
	}
	parts = append(parts, end)
	if u.encode != nil {
		parts = u.encode(parts)
	}
	return received(t, c, strings.Join(parts, ""))
}

func crc32Of(s string) string {
	h := crc32.NewIEEE()
	h.Write([]byte(s))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func readS3(t testing.TB, r *http.Request, wrap func(io.Reader) io.Reader) (string, *Body, error) {
	t.Helper()
	_, b, err := testAuth(t).S3(r)
	if err != nil {
		return "", nil, err
	}
	got, err := io.ReadAll(wrap(b))
	return string(got), b, err
}

func plain(r io.Reader) io.Reader { return r }

func TestStreamingBodies(t *testing.T) {
	big, small := strings.Repeat("abcdefgh", 9000), "the end"
	sum := "x-amz-checksum-crc32:" + crc32Of(big+big+small)
	edits := func(old, new string) func([]string) []string {
		return func(p []string) []string {
			all := strings.Join(p, "")
			out := strings.Replace(all, old, new, 1)
			if all == out {
				t.Fatalf("%q is not in the body", old)
			}
			return []string{out}
		}
	}
	three := []string{big, big, small}
	tests := []struct {
		name string
		u    upload
		code string
	}{
		{"signed", upload{mode: streamingPayload, chunks: three}, ""},
		{"signed, empty", upload{mode: streamingPayload}, ""},
		{"signed trailer", upload{mode: streamingTrailer, chunks: three, trailer: sum}, ""},
		{"unsigned trailer", upload{mode: unsignedTrailer, chunks: three, trailer: sum}, ""},
		{"data changed", upload{mode: streamingPayload, chunks: three, encode: edits("the end", "the And")}, "SignatureDoesNotMatch"},
		{"data changed early", upload{mode: streamingPayload, chunks: three, encode: edits("abcdefgh", "abcdefgH")}, "SignatureDoesNotMatch"},
		{"data changed before the trailer", upload{mode: streamingTrailer, chunks: three, trailer: sum, encode: edits("the end", "the And")}, "SignatureDoesNotMatch"},
		{"data changed, checksum only", upload{mode: unsignedTrailer, chunks: three, trailer: sum, encode: edits("the end", "the And")}, "BadDigest"},
		{"chunks swapped", upload{mode: streamingPayload, chunks: []string{big, big + "x", small}, encode: func(p []string) []string { p[0], p[1] = p[1], p[0]; return p }}, "SignatureDoesNotMatch"},
		{"chunk left out", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string { return append(p[:1:1], p[2:]...) }}, "SignatureDoesNotMatch"},
		{"chunk doubled", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string { return append([]string{p[0]}, p...) }}, "SignatureDoesNotMatch"},
		{"last data chunk left out", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string { return append(p[:2:2], p[3:]...) }}, "IncompleteBody"},
		{"no end", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string { return p[:3] }}, "IncompleteBody"},
		{"end not signed", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string {
			return append(p[:3:3], "0;chunk-signature="+hashOf("")+"\r\n\r\n")
		}}, "SignatureDoesNotMatch"},
		{"end without a signature", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string { return append(p[:3:3], "0\r\n\r\n") }}, "InvalidRequest"},
		{"cut in data", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string { return []string{p[0][:5000]} }}, "IncompleteBody"},
		{"cut in a header", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string { return []string{p[0][:20]} }}, "IncompleteBody"},
		{"bytes behind the end", upload{mode: streamingPayload, chunks: three, encode: func(p []string) []string { return append(p, "GET / HTTP/1.1") }}, "InvalidRequest"},
		{"small chunk in the middle", upload{mode: streamingPayload, chunks: []string{big, small, big}}, "InvalidChunkSizeError"},
		{"huge size", upload{mode: streamingPayload, chunks: three, encode: edits("11940;", "7fffffffffffffff;")}, "InvalidRequest"},
		{"size beyond the declared length", upload{mode: streamingPayload, chunks: three, encode: edits("11940;", "3fffffffffffffff;")}, "IncompleteBody"},
		{"negative size", upload{mode: streamingPayload, chunks: three, encode: edits("11940;", "-1;")}, "InvalidRequest"},
		{"size too small", upload{mode: streamingPayload, chunks: three, encode: edits("11940;", "11930;")}, "InvalidRequest"},
		{"endless header", upload{mode: streamingPayload, chunks: three, encode: func([]string) []string { return []string{strings.Repeat("0", 1<<20)} }}, "InvalidRequest"},
		{"declared too long", upload{mode: streamingPayload, chunks: three, header: func(h http.Header) { h.Set("X-Amz-Decoded-Content-Length", "999999") }}, "IncompleteBody"},
		{"no declared length", upload{mode: streamingPayload, chunks: three, header: func(h http.Header) { h.Del("X-Amz-Decoded-Content-Length") }}, "MissingContentLength"},
		{"trailer changed", upload{mode: streamingTrailer, chunks: three, trailer: sum, encode: edits(sum, "x-amz-checksum-crc32:AAAAAA==")}, "SignatureDoesNotMatch"},
		{"trailer wrong but signed", upload{mode: streamingTrailer, chunks: three, trailer: "x-amz-checksum-crc32:AAAAAA=="}, "BadDigest"},
		{"trailer missing", upload{mode: unsignedTrailer, chunks: three, trailer: sum, encode: edits(sum+"\r\n", "")}, "InvalidRequest"},
		{"other trailer", upload{mode: unsignedTrailer, chunks: three, trailer: sum, encode: edits(sum, "x-amz-meta-a:b")}, "InvalidRequest"},
		{"trailer twice", upload{mode: unsignedTrailer, chunks: three, trailer: sum, encode: edits(sum, sum+"\r\n"+sum)}, "InvalidRequest"},
		{"trailer not announced", upload{mode: unsignedTrailer, chunks: three, trailer: sum, header: func(h http.Header) { h.Del("X-Amz-Trailer") }}, "InvalidRequest"},
		{"signature in an unsigned body", upload{mode: unsignedTrailer, chunks: three, trailer: sum, encode: edits("11940\r\n", "11940;chunk-signature=00\r\n")}, "InvalidRequest"},
	}
	for _, tt := range tests {
		for how, wrap := range map[string]func(io.Reader) io.Reader{"whole": plain, "byte by byte": iotest.OneByteReader} {
			got, b, err := readS3(t, tt.u.request(t), wrap)
			if code(err) != tt.code {
				t.Errorf("%s, %s: %v, want %q", tt.name, how, err, tt.code)
				continue
			}
			if want := strings.Join(tt.u.chunks, ""); err == nil && got != want {
				t.Errorf("%s, %s: %d bytes, want %d", tt.name, how, len(got), len(want))
			}
			if err == nil && tt.u.trailer != "" && "x-amz-checksum-crc32:"+b.Trailer().Get("X-Amz-Checksum-Crc32") != tt.u.trailer {
				t.Errorf("%s: trailer %v", tt.name, b.Trailer())
			}
			if b != nil { // what ended a body ends it for ever
				if _, again := b.Read(make([]byte, 1)); err != nil && !errors.Is(again, err) || err == nil && again != io.EOF {
					t.Errorf("%s: read again: %v", tt.name, again)
				}
			}
		}
	}
}

// Every checksum that S3 has, with the test vectors of their definitions: the check values of "123456789".
func TestTrailerChecksums(t *testing.T) {
	const data = "123456789"
	b64 := func(h string) string {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	for name, sum := range map[string]string{
		"crc32": "cbf43926", "crc32c": "e3069283", "crc64nvme": "ae8b14860a799888",
		"sha1":   "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
		"sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
	} {
		u := upload{mode: unsignedTrailer, chunks: []string{data}, trailer: "x-amz-checksum-" + name + ":" + b64(sum)}
		if got, _, err := readS3(t, u.request(t), plain); err != nil || got != data {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		u.chunks = []string{data + "0"}
		if _, _, err := readS3(t, u.request(t), plain); code(err) != "BadDigest" {
			t.Errorf("%s of other data: %v", name, err)
		}
	}
}

// The worked examples of Amazon's S3 documentation, "Signature Calculations for the Authorization Header: Transferring
// Payload in Multiple Chunks" and "... Including Trailing Headers": 65 KiB of the letter a.
func TestDocumentedStreams(t *testing.T) {
	a64, a1 := strings.Repeat("a", 64<<10), strings.Repeat("a", 1<<10)
	tests := []struct {
		name, signedHeaders, seed string
		headers                   map[string]string
		length                    int64
		body                      string
	}{
		{"payload", "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
			"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
			map[string]string{"X-Amz-Content-Sha256": streamingPayload}, 66824,
			"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + a64 + "\r\n" +
				"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + a1 + "\r\n" +
				"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"},
		{"trailer", "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
			"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
			map[string]string{"X-Amz-Content-Sha256": streamingTrailer, "X-Amz-Trailer": "x-amz-checksum-crc32c"}, -1,
			"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + a64 + "\r\n" +
				"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + a1 + "\r\n" +
				"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n" +
				"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"},
	}
	for _, tt := range tests {
		c, err := http.NewRequest("PUT", "http://s3.amazonaws.com/examplebucket/chunkObject.txt", nil)
		if err != nil {
			t.Fatal(err)
		}
		r := received(t, c, tt.body)
		r.ContentLength = tt.length
		r.Header.Set("Content-Encoding", "aws-chunked")
		r.Header.Set("X-Amz-Date", "20130524T000000Z")
		r.Header.Set("X-Amz-Decoded-Content-Length", "66560")
		r.Header.Set("X-Amz-Storage-Class", "REDUCED_REDUNDANCY")
		for k, v := range tt.headers {
			r.Header.Set(k, v)
		}
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+testKey+"/20130524/us-east-1/s3/aws4_request,SignedHeaders="+tt.signedHeaders+",Signature="+tt.seed)
		if got, _, err := readS3(t, r, plain); err != nil || got != a64+a1 {
			t.Errorf("%s: %d bytes, %v", tt.name, len(got), err)
		}
	}
}

// A body of 256 MiB goes through in constant memory, whatever the size of its chunks.
func TestStreamingMemory(t *testing.T) {
	const size = 256 << 20
	sum := crc32.NewIEEE()
	if _, err := io.CopyN(sum, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	u := upload{mode: unsignedTrailer, trailer: "x-amz-checksum-crc32:" + base64.StdEncoding.EncodeToString(sum.Sum(nil)),
		header: func(h http.Header) { h.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(size)) }}
	r := u.request(t)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(fmt.Sprintf("%x\r\n", size)), io.LimitReader(zeros{}, size), strings.NewReader("\r\n"), r.Body))
	_, b, err := testAuth(t).S3(r)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := io.Copy(io.Discard, struct{ io.Reader }{b})
	runtime.ReadMemStats(&after)
	if n != size || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Fatalf("%d bytes were allocated", grown)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// An error of the connection is neither a refusal nor an end.
func TestBrokenConnection(t *testing.T) {
	gone := errors.New("connection reset")
	for _, u := range []upload{{mode: streamingPayload, chunks: []string{"data"}}, {mode: unsignedPayload, chunks: []string{"data"}}} {
		r := u.request(t)
		r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 3), iotest.ErrReader(gone)))
		if _, _, err := readS3(t, r, plain); !errors.Is(err, gone) {
			t.Errorf("%s: %v", u.mode, err)
		}
	}
}

func FuzzStreaming(f *testing.F) {
	u := upload{mode: unsignedTrailer, chunks: []string{"0123456789"}, trailer: "x-amz-checksum-crc32:" + crc32Of("0123456789")}
	body := func(u upload) string {
		b, err := io.ReadAll(u.request(f).Body)
		if err != nil {
			f.Fatal(err)
		}
		return string(b)
	}
	f.Add(0, body(u))
	u.mode = streamingTrailer
	f.Add(1, body(u))
	u.mode, u.trailer = streamingPayload, ""
	f.Add(2, body(u))
	f.Add(0, "a\r\n0123456789\r\n0\r\n\r\n")
	f.Add(0, "ffffffffffffffff\r\n")
	f.Add(1, "0;chunk-signature=\r\n:\r\n")
	f.Add(2, strings.Repeat("\r\n", 9))
	f.Fuzz(func(t *testing.T, mode int, body string) {
		modes := []string{unsignedTrailer, streamingTrailer, streamingPayload}
		u := upload{mode: modes[uint(mode)%3], chunks: []string{"0123456789"}, trailer: "x-amz-checksum-crc32:" + crc32Of("0123456789")}
		if u.mode == streamingPayload {
			u.trailer = ""
		}
		r := u.request(t)
		r.Body = io.NopCloser(strings.NewReader(body))
		got, _, err := readS3(t, r, iotest.HalfReader)
		if err == nil && got != "0123456789" {
			t.Fatalf("%s verified as %q", body, got)
		}
		if len(got) > 10 {
			t.Fatalf("%d bytes of 10 declared", len(got))
		}
	})
}
