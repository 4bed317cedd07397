package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// between is a proxy that may spoil what passes.
func between(t *testing.T, to string, spoil func(http.ResponseWriter, *http.Request, http.Handler)) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = u.Scheme, u.Host, r.In.Host
		r.Out.URL.Path, r.Out.URL.RawPath = r.In.URL.Path, r.In.URL.RawPath
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { spoil(w, r, p) }))
	t.Cleanup(srv.Close)
	return srv.URL
}

const testPiece = 1 << 20

func external(endpoint string) *External {
	e := NewExternal(ExternalOptions{Endpoint: endpoint, Region: testRegion, AccessKeyID: testKeyID, SecretAccessKey: testSecret, PathStyle: true})
	e.piece = testPiece
	return e
}

// pieces puts an object of three and a half pieces into a store.
func pieces(t *testing.T, d *door, bucket, key string, mark byte) []byte {
	t.Helper()
	content := noise(uint64(mark), 3*testPiece+testPiece/2)
	if _, err := d.store.put(t.Context(), bucket, key, nil, inMemory(content), condition{}); err != nil {
		t.Fatal(err)
	}
	return content
}

func TestExternal(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	content := pieces(t, d, b, "vm/ü 1.vhd", 1)
	e := external(d.url)
	info, err := e.Stat(ctx, b, "vm/ü 1.vhd")
	o := must2(d.store.head(b, "vm/ü 1.vhd"))(t)
	if err != nil || info.Size != int64(len(content)) || info.ETag != o.ETag {
		t.Errorf("Stat: %+v, %v", info, err)
	}
	dst := filepath.Join(t.TempDir(), "disk")
	last := int64(0)
	for range 2 {
		last = 0
		if err := e.Stage(ctx, b, "vm/ü 1.vhd", dst, func(done, total int64) {
			if done < last || total != info.Size {
				t.Errorf("progress %d of %d after %d", done, total, last)
			}
			last = done
		}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) || last != info.Size {
			t.Errorf("content differs, or progress ended at %d: %v", last, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(dst)); err != nil || len(entries) != 1 {
		t.Errorf("left beside the file: %v, %v", entries, err)
	}
	d.put(t, b, "empty", nil)
	if err := e.Stage(ctx, b, "empty", dst, nil); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dst); err != nil || fi.Size() != 0 {
		t.Errorf("empty: %v, %v", fi, err)
	}
	other := NewExternal(ExternalOptions{Endpoint: d.url, Region: testRegion, AccessKeyID: testKeyID, SecretAccessKey: "wrong", PathStyle: true})
	for _, c := range []struct {
		e           *External
		bucket, key string
		want        error
	}{{e, b, "none", ErrNoSuchKey}, {e, "nothing", "none", ErrNoSuchBucket}, {other, b, "empty", ErrAccessDenied}, {e, "Bad_Name", "k", ErrInvalidBucketName}} {
		if _, err := c.e.Stat(ctx, c.bucket, c.key); !errors.Is(err, c.want) {
			t.Errorf("Stat: %v, want %v", err, c.want)
		}
		if err := c.e.Stage(ctx, c.bucket, c.key, dst, nil); !errors.Is(err, c.want) {
			t.Errorf("Stage: %v, want %v", err, c.want)
		}
	}
}

// A download that is cut off goes on where it was, and one of another object begins anew.
func TestExternalResumes(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	content := pieces(t, d, b, "k", 1)
	dst := filepath.Join(t.TempDir(), "disk")

	var sent atomic.Int64
	var gets atomic.Int64
	counted := between(t, d.url, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(countingWriter{w, &sent}, r)
	})
	// Two pieces come, then the process is stopped.
	ctx1, stop := context.WithCancel(ctx)
	defer stop()
	slow := between(t, d.url, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && gets.Add(1) > 2 {
			for ctx1.Err() == nil {
				if raw, _ := os.ReadFile(dst + logSuffix); strings.Count(string(raw), ".\n") == 2 {
					stop()
				}
				time.Sleep(time.Millisecond)
			}
		}
		next.ServeHTTP(w, r)
	})
	if err := external(slow).Stage(ctx1, b, "k", dst, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := os.Stat(dst); err == nil {
		t.Error("half a file is at the destination")
	}
	sent.Store(0)
	if err := external(counted).Stage(ctx, b, "k", dst, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
		t.Errorf("content differs: %v", err)
	}
	if sent.Load() > int64(len(content)-testPiece-testPiece/2)+64<<10 { // the last piece is half a one
		t.Errorf("%d bytes were sent again of %d", sent.Load(), len(content))
	}

	// The leftovers of a download of another object.
	raw := (&download{source: b + "\x00k", pieceBytes: testPiece, info: Info{Size: int64(len(content)), ETag: must2(d.store.head(b, "k"))(t).ETag}}).head()
	content = pieces(t, d, b, "k", 77)
	if err := os.Rename(dst, dst+pieceSuffix); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dst+logSuffix, []byte(raw+"\n0 1048576.\n1 1048576.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := external(d.url).Stage(ctx, b, "k", dst, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
		t.Errorf("a mixture of two objects: %v", err)
	}

	// A log whose file has gone: the crash was between the file's final name and the removal of the log.
	raw = (&download{source: b + "\x00k", pieceBytes: testPiece, info: Info{Size: int64(len(content)), ETag: must2(d.store.head(b, "k"))(t).ETag}}).head()
	if err := os.WriteFile(dst+logSuffix, []byte(raw+"\n0 1048576.\n1 1048576.\n2 1048576.\n3 524288.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := external(d.url).Stage(ctx, b, "k", dst, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
		t.Errorf("holes: %v", err)
	}
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// Endpoints that break, stall, lie or change: what arrives is the object or an error.
func TestExternalUnreliable(t *testing.T) {
	t.Parallel()
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	content := noise(4, 5<<20)
	d.put(t, b, "k", content)
	dir := t.TempDir()
	var tries atomic.Int64
	// half passes on the first half of an answer, then does what then says.
	half := func(then func()) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != http.MethodGet || tries.Add(1) > 2 {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			_, _ = io.CopyN(w, rec.Body, int64(rec.Body.Len()/2))
			_ = http.NewResponseController(w).Flush()
			then()
			panic(http.ErrAbortHandler)
		}
	}
	for name, spoil := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"breaks": half(func() {}),
		"stalls": half(func() { time.Sleep(2 * time.Second) }),
		"busy": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodGet && tries.Add(1) <= 2 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tries.Store(0)
			dst := filepath.Join(dir, name)
			e := external(between(t, d.url, spoil))
			e.piece = 8 << 20
			if name == "stalls" {
				e.stall = time.Second
			}
			if err := e.Stage(ctx, b, "k", dst, nil); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
				t.Errorf("content differs: %v", err)
			}
			if tries.Load() < 3 {
				t.Errorf("%d tries", tries.Load())
			}
		})
	}
	// What will be the same however often it is asked is a refusal, and says what it is.
	heads := func(status int) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(status) }
	}
	for name, c := range map[string]struct {
		spoil func(http.ResponseWriter, *http.Request, http.Handler)
		want  error
		says  string
	}{
		"another Region's bucket": {heads(http.StatusMovedPermanently), ErrInvalidRequest, "its endpoint answered 301 Moved Permanently"},
		"another place": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, d.url+r.URL.Path, http.StatusTemporaryRedirect)
		}, ErrInvalidRequest, "its endpoint answered 307 Temporary Redirect"},
		"keys that have expired": {heads(http.StatusBadRequest), ErrInvalidRequest, "its endpoint answered 400 Bad Request"},
		"no ETag":                {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.Header().Set("Content-Length", "5") }, ErrInvalidRequest, "no ETag"},
		"another range": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Range", "bytes 1-5/6")
				w.WriteHeader(http.StatusPartialContent)
				return
			}
			next.ServeHTTP(w, r)
		}, ErrInvalidRequest, "not sent in the ranges"},
		"another object": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodGet {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
			next.ServeHTTP(w, r)
		}, ErrPreconditionFailed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := external(between(t, d.url, c.spoil)).Stage(ctx, b, "k", filepath.Join(dir, name), nil)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %v with %q", err, c.want, c.says)
			}
		})
	}
	t.Run("does not answer", func(t *testing.T) {
		e := external(between(t, d.url, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }))
		e.stall = 200 * time.Millisecond
		if _, err := e.Stat(ctx, b, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
	for name, spoil := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"gives another range": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Range", "bytes 1-5242880/5242881")
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(content)
				return
			}
			next.ServeHTTP(w, r)
		},
		"has another object meanwhile": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodGet {
				d.put(t, b, "k", noise(99, 5<<20))
			}
			next.ServeHTTP(w, r)
		},
		"tells no size": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodHead {
				w.Header().Set("Etag", `"x"`)
				w.Header().Set("Content-Length", "-5")
				return
			}
			next.ServeHTTP(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dst := filepath.Join(dir, name)
			e := external(between(t, d.url, spoil))
			e.piece = 8 << 20
			if err := e.Stage(ctx, b, "k", dst, nil); err == nil {
				t.Error("no error")
			}
			if _, err := os.Stat(dst); err == nil {
				t.Error("a file is at the destination")
			}
		})
	}
}
