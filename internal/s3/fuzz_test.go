package s3

import (
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"berth/internal/awsapi"
)

// FuzzKey stores an object under any key and finds it again by the very same key, before and after a restart, alone in its bucket.
func FuzzKey(f *testing.F) {
	for _, s := range []string{"a", "../../etc/passwd", "nul\x00", strings.Repeat("k", 1025), "\xff", "a//b/", "ü漢🖥", ""} {
		f.Add(s, "a")
	}
	f.Fuzz(func(t *testing.T, key, prefix string) {
		dir := t.TempDir()
		s, err := Open(StoreOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CreateBucket("images"); err != nil {
			t.Fatal(err)
		}
		_, err = s.put(t.Context(), "images", key, nil, inMemory([]byte(key)), condition{})
		if valid := checkKey(key) == nil; valid != (err == nil) {
			t.Fatalf("put %q: %v", key, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(StoreOptions{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if checkKey(key) == nil && string(readObject(t, s, "images", key)) != key {
			t.Errorf("%q has another content", key)
		}
		l, err := s.list("images", prefix, "/", cursor{}, 10)
		if err != nil || len(l.objects)+len(l.prefixes) > 1 || (len(l.objects)+len(l.prefixes) == 1) != (checkKey(key) == nil && strings.HasPrefix(key, prefix)) {
			t.Errorf("list %q of %q: %+v, %v", prefix, key, l, err)
		}
		if n := files(t, dir); n[dataDir] > 1 {
			t.Errorf("files: %v", n)
		}
	})
}

// FuzzXML decodes any XML as every request that has some. What is accepted stays within the bounds.
func FuzzXML(f *testing.F) {
	for _, s := range []string{
		`<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Part><PartNumber>1</PartNumber><ETag>"x"</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>`,
		`<Delete><Quiet>true</Quiet><Object><Key>a&amp;b</Key></Object></Delete>`,
		`<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint><Tags/></CreateBucketConfiguration>`,
		`<!DOCTYPE x [<!ENTITY a "aaaa">]><Delete><Object><Key>&a;</Key></Object></Delete>`,
		strings.Repeat("<a>", 5000), `<CompleteMultipartUpload><Part><PartNumber>99999999999999999999</PartNumber></Part></CompleteMultipartUpload>`,
	} {
		f.Add(s)
	}
	u := &upload{parts: map[int]part{1: {Number: 1, Size: 1, ETag: "x"}}}
	f.Fuzz(func(t *testing.T, text string) {
		var c completeXML
		if xml.Unmarshal([]byte(text), &c) == nil {
			var list []completed
			for _, p := range c.Part {
				list = append(list, completed{p.PartNumber, p.ETag, p.read()})
			}
			if parts, err := u.choose(list); err == nil && (len(parts) != 1 || parts[0].Number != 1 || !sameETag(list[0].etag, "x")) {
				t.Errorf("%q was accepted as %+v", text, parts)
			}
		}
		var d deleteXML
		_ = xml.Unmarshal([]byte(text), &d)
		var b createBucketXML
		_ = xml.Unmarshal([]byte(text), &b)
	})
}

// FuzzRequest sends any method, path, query and headers without a signature to the door, and then to what is behind the signature's check.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/images/k", "", "bytes=0-1", "")
	f.Add("PUT", "/images/k", "partNumber=1&uploadId=x", "", "/images/a?versionId=null")
	f.Add("GET", "/images", "list-type=2&continuation-token=dHJ1ZTph&max-keys=-1", "bytes=-", "%zz")
	f.Add("POST", "/", "delete", "bytes=9223372036854775807-9223372036854775808", "")
	s, err := Open(StoreOptions{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	if err := s.CreateBucket("images"); err != nil {
		f.Fatal(err)
	}
	d := &Door{Store: s, Region: testRegion, AccountID: account, Auth: &awsapi.Authenticator{Keys: keys{}, Region: testRegion}}
	f.Fuzz(func(t *testing.T, method, path, query, span, source string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{"Range": {span}, "X-Amz-Copy-Source": {source}}, Body: http.NoBody, Host: "s3.localhost"}
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code < 400 || w.Code >= 500 {
			t.Errorf("without a signature: %d", w.Code)
		}
		q := &request{Request: r, door: d, w: w}
		var err error
		if q.query, err = url.ParseQuery(query); err != nil {
			return
		}
		if op, err := q.operation(q.locate()); err == nil && op.action == "" && op.name != "DeleteObjects" {
			t.Errorf("%s asks for no permission", op.name)
		}
		if _, _, err := q.copySource(); err == nil {
			t.Error("nobody may copy")
		}
		for _, size := range []int64{0, 1, 100, MaxObjectBytes} {
			if s, ok, err := byteRange(span, size); err == nil && ok && (s.start < 0 || s.length <= 0 || s.start+s.length > size) {
				t.Errorf("range %q of %d: %+v", span, size, s)
			}
		}
		if _, err := cursorOf(q.query.Get("continuation-token")); err != nil && !strings.Contains(err.Error(), "continuation") {
			t.Error(err)
		}
	})
}
