package s3

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An upload that breaks off goes on where it stopped, with another process of the service too, and is an object in the end.
func TestResumable(t *testing.T) {
	d := openDoor(t)
	bucket := d.bucket(t, "exports")
	content := noise(5, 3<<20)
	var server *httptest.Server
	open := func() {
		t.Helper()
		r, err := NewResumable(d.store, d.keys, "/uploads/", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		server = httptest.NewServer(r)
		t.Cleanup(server.Close)
	}
	open()
	do := func(method, path string, body []byte, secret string, headers ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Tus-Resumable", "1.0.0")
		if secret != "" {
			req.SetBasicAuth(testKeyID, secret)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res
	}
	meta := func(bucket, key string) string {
		return "bucket " + base64.StdEncoding.EncodeToString([]byte(bucket)) + ",filename " + base64.StdEncoding.EncodeToString([]byte(key))
	}
	create := func(bucket, key, secret string) *http.Response {
		t.Helper()
		return do(http.MethodPost, "/uploads/", nil, secret, "Upload-Length", fmt.Sprint(len(content)), "Upload-Metadata", meta(bucket, key))
	}
	for _, x := range []struct {
		bucket, key, secret string
		status              int
	}{{bucket, "k", "", 401}, {bucket, "k", "wrong", 401}, {"nowhere", "k", string(testSecret), 404}, {"../x", "k", string(testSecret), 400}, {bucket, "", string(testSecret), 400}} {
		if res := create(x.bucket, x.key, x.secret); res.StatusCode != x.status {
			t.Errorf("creating %s/%s: %s, want %d", x.bucket, x.key, res.Status, x.status)
		}
	}
	made := create(bucket, "vm/win10.ova", string(testSecret))
	at := strings.TrimPrefix(made.Header.Get("Location"), server.URL)
	if made.StatusCode != http.StatusCreated || !strings.HasPrefix(at, "/uploads/") {
		t.Fatalf("creating: %s, %q", made.Status, at)
	}
	patch := func(offset, end int) *http.Response {
		t.Helper()
		return do(http.MethodPatch, at, content[offset:end], string(testSecret), "Upload-Offset", fmt.Sprint(offset), "Content-Type", "application/offset+octet-stream")
	}
	if res := patch(0, 1<<20); res.StatusCode != http.StatusNoContent {
		t.Fatalf("the first part: %s", res.Status)
	}
	if res := do(http.MethodHead, at, nil, ""); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("looking without a key: %s", res.Status)
	}
	server.Close()
	open()
	if res := do(http.MethodHead, at, nil, string(testSecret)); res.Header.Get("Upload-Offset") != fmt.Sprint(1<<20) {
		t.Fatalf("after a restart: %s, at %q", res.Status, res.Header.Get("Upload-Offset"))
	}
	if res := patch(5, 1<<20); res.StatusCode != http.StatusConflict {
		t.Errorf("from another place: %s", res.Status)
	}
	// A checksum that nobody would hold the part against is not taken as if somebody had.
	if res := do(http.MethodPatch, at, content[1<<20:], string(testSecret), "Upload-Offset", fmt.Sprint(1<<20), "Content-Type", "application/offset+octet-stream", "Upload-Checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA="); res.StatusCode != http.StatusBadRequest {
		t.Errorf("with a checksum: %s", res.Status)
	}
	if _, err := d.store.head(bucket, "vm/win10.ova"); err == nil {
		t.Error("half an object is there")
	}
	if res := patch(1<<20, len(content)); res.StatusCode != http.StatusNoContent {
		t.Fatalf("the rest: %s", res.Status)
	}
	o, f, err := d.store.open(bucket, "vm/win10.ova")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(f); err != nil || !bytes.Equal(got.Bytes(), content) || o.ETag != fmt.Sprintf("%x", md5.Sum(content)) {
		t.Errorf("the object: %v, %+v", err, o)
	}
	notes := func(what string, want int) {
		t.Helper()
		left, err := os.ReadDir(filepath.Join(d.store.dir, "resumable"))
		for _, e := range left {
			if !strings.HasSuffix(e.Name(), doneSuffix) {
				t.Errorf("%s: %s is left", what, e.Name())
			}
		}
		if err != nil || len(left) != want {
			t.Errorf("%s: %v, %v, want %d notes", what, left, err, want)
		}
	}
	notes("an object", 1)

	// The last answer was lost. The client sends the last part again, or asks; also another process; and nothing happens twice, not
	// even when the object is another one by now.
	d.put(t, bucket, "vm/win10.ova", []byte("another"))
	for _, restart := range []bool{false, true} {
		if restart {
			server.Close()
			open()
		}
		if res := do(http.MethodHead, at, nil, string(testSecret)); res.StatusCode != http.StatusOK || res.Header.Get("Upload-Offset") != fmt.Sprint(len(content)) {
			t.Errorf("asking for a finished upload: %s, at %q", res.Status, res.Header.Get("Upload-Offset"))
		}
		for range 2 {
			if res := patch(1<<20, len(content)); res.StatusCode != http.StatusNoContent || res.Header.Get("Upload-Offset") != fmt.Sprint(len(content)) {
				t.Errorf("the last part once more: %s, at %q", res.Status, res.Header.Get("Upload-Offset"))
			}
		}
		if res := patch(len(content), len(content)); res.StatusCode != http.StatusNoContent {
			t.Errorf("nothing, behind the end: %s", res.Status)
		}
		for _, x := range [][2]int{{0, 1 << 20}, {5, len(content) - 1}} {
			if res := patch(x[0], x[1]); res.StatusCode != http.StatusConflict {
				t.Errorf("bytes %d to %d of a finished upload: %s", x[0], x[1], res.Status)
			}
		}
		if res := do(http.MethodPatch, at, nil, "", "Upload-Offset", "0"); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("without a key: %s", res.Status)
		}
		if o, err := d.store.head(bucket, "vm/win10.ova"); err != nil || o.Size != int64(len("another")) {
			t.Errorf("the object: %+v, %v", o, err)
		}
		notes("the last part once more", 1)
	}
	// A crash between the note and the file's going.
	if err := os.WriteFile(filepath.Join(d.store.dir, "resumable", filepath.Base(at)), content, 0o600); err != nil {
		t.Fatal(err)
	}
	server.Close()
	open()
	notes("a crash", 1)

	// The process dies when every byte has come and there is no object yet. Whoever asks how far it is, or sends the end again, finishes it.
	for i, method := range []string{http.MethodHead, http.MethodPatch} {
		key := fmt.Sprintf("vm/late %d", i)
		made := create(bucket, key, string(testSecret))
		at := strings.TrimPrefix(made.Header.Get("Location"), server.URL)
		if err := os.WriteFile(filepath.Join(d.store.dir, "resumable", filepath.Base(at)), content, 0o600); err != nil {
			t.Fatal(err)
		}
		server.Close()
		open()
		if res := do(method, at, nil, ""); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a key: %s", method, res.Status)
		}
		res := do(method, at, nil, string(testSecret), "Upload-Offset", fmt.Sprint(len(content)), "Content-Type", "application/offset+octet-stream")
		if res.StatusCode/100 != 2 || res.Header.Get("Upload-Offset") != fmt.Sprint(len(content)) {
			t.Errorf("%s: %s, at %q", method, res.Status, res.Header.Get("Upload-Offset"))
		}
		if o, err := d.store.head(bucket, key); err != nil || o.ETag != fmt.Sprintf("%x", md5.Sum(content)) {
			t.Errorf("%s: %+v, %v", method, o, err)
		}
		notes(method, 2+i)
	}

	// One that nobody goes on with goes in the end, and not before.
	for _, key := range []string{"old", "new"} {
		if res := create(bucket, key, string(testSecret)); res.StatusCode != http.StatusCreated {
			t.Fatal(res.Status)
		} else if id := filepath.Base(res.Header.Get("Location")); key == "old" {
			long := time.Now().Add(-2 * resumableFor)
			if err := os.Chtimes(filepath.Join(d.store.dir, "resumable", id), long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	done, err := filepath.Glob(filepath.Join(d.store.dir, "resumable", "*"+doneSuffix))
	if err != nil || len(done) != 3 {
		t.Errorf("notes: %v, %v", done, err)
	}
	for _, path := range done {
		long := time.Now().Add(-2 * resumableFor)
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	open()
	if left, err := os.ReadDir(filepath.Join(d.store.dir, "resumable")); err != nil || len(left) != 2 {
		t.Errorf("a week later: %v, %v", left, err)
	}
	for _, path := range []string{"/uploads/none", "/uploads/..%2f..%2fbucket", "/uploads/../lock"} {
		if res := do(http.MethodHead, path, nil, string(testSecret)); res.StatusCode < 400 {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

// What goes wrong with a file is told to the client by what it means, and in no word that names this host's files.
func TestResumableWithoutRoom(t *testing.T) {
	d := openDoor(t)
	bucket := d.bucket(t, "exports")
	r, err := NewResumable(d.store, d.keys, "/uploads/", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	do := func(method, path, body string, headers ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(testKeyID, string(testSecret))
		req.Header.Set("Tus-Resumable", "1.0.0")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		said, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(said)
	}
	made, _ := do(http.MethodPost, "/uploads/", "", "Upload-Length", "5", "Upload-Metadata", "bucket "+base64.StdEncoding.EncodeToString([]byte(bucket))+",filename "+base64.StdEncoding.EncodeToString([]byte("k")))
	at := strings.TrimPrefix(made.Header.Get("Location"), server.URL)
	file := filepath.Join(r.dir, filepath.Base(at))
	for name, c := range map[string]struct {
		spoil  func() error
		status int
		says   string
	}{
		"full":    {func() error { return os.Symlink("/dev/full", file) }, http.StatusInsufficientStorage, "no disk space left"},
		"a dir's": {func() error { return os.Mkdir(file, 0o700) }, http.StatusInternalServerError, "could not be stored"},
	} {
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		offset := "0"
		if fi, err := os.Stat(file); err == nil && fi.IsDir() {
			offset = fmt.Sprint(fi.Size()) // which is taken for what has come
			if err := os.WriteFile(file+infoSuffix, []byte(fmt.Sprintf(`{"ID":%q,"Size":%d,"MetaData":{"bucket":%q,"filename":"k"},"Storage":{"Path":%q,"InfoPath":%q}}`, filepath.Base(at), fi.Size()+5, bucket, file, file+infoSuffix)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		res, said := do(http.MethodPatch, at, "12345", "Upload-Offset", offset, "Content-Type", "application/offset+octet-stream")
		if res.StatusCode != c.status || !strings.Contains(said, c.says) || strings.Contains(said, r.dir) {
			t.Errorf("%s: %s, %q", name, res.Status, said)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if res, said := do(http.MethodDelete, at, ""); res.StatusCode != http.StatusNoContent {
		t.Errorf("giving it up: %s, %q", res.Status, said)
	}
}
