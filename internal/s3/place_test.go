package s3

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// webServer is an https server and a Web that trusts and may reach it.
func webServer(t *testing.T, serve http.HandlerFunc) (*Web, string) {
	t.Helper()
	s := httptest.NewTLSServer(serve)
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	w := NewWeb(WebOptions{Hosts: []string{s.Listener.Addr().String()}, Private: loopback, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, Stall: 2 * time.Second})
	w.piece = testPiece
	t.Cleanup(w.client.CloseIdleConnections)
	return w, s.URL
}

func TestWeb(t *testing.T) {
	content := noise(7, 3*testPiece+testPiece/2)
	modified := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for name, tag := range map[string]string{"ETag": `"one"`, "weak ETag": `W/"one"`, "time": ""} {
		t.Run(name, func(t *testing.T) {
			w, url := webServer(t, func(w http.ResponseWriter, r *http.Request) {
				if tag != "" {
					w.Header().Set("ETag", tag)
				}
				http.ServeContent(w, r, "", modified, bytes.NewReader(content))
			})
			info, err := w.Stat(t.Context(), url+"/win10.ova?signature=x")
			if err != nil || info.Size != int64(len(content)) || info.ETag == "" {
				t.Fatalf("%+v, %v", info, err)
			}
			dst := filepath.Join(t.TempDir(), "disk")
			var last int64
			if err := w.Stage(t.Context(), url+"/win10.ova", dst, func(done, total int64) { last = done }); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) || last != info.Size {
				t.Errorf("content differs, or the progress ended at %d: %v", last, err)
			}
		})
	}
}

// What a host answers when it has no such file, or cannot give it in ranges, or is in trouble.
func TestWebRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(w http.ResponseWriter, r *http.Request)
		want    error
		mention string
	}{
		"missing":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, ErrNoSuchKey, ""},
		"forbidden": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, ErrAccessDenied, ""},
		"no ranges": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all of it") }, ErrInvalidRequest, "does not send files in ranges"},
		"no size": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-0/*")
			w.WriteHeader(206)
		}, ErrInvalidRequest, "how large"},
		"no version": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-0/5")
			w.WriteHeader(206)
		}, ErrInvalidRequest, "ETag"},
		"busy": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, &StatusError{503}, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			w, url := webServer(t, c.answer)
			_, err := w.Stat(t.Context(), url+"/disk")
			var status *StatusError
			if !errors.Is(err, c.want) && !(errors.As(err, &status) && status.Status == 503) || !strings.Contains(err.Error(), c.mention) {
				t.Errorf("%v, want %v with %q", err, c.want, c.mention)
			}
		})
	}
}

// What a signed URL lets in by does not come into what people read: of a host that does not answer, either.
func TestWebKeepsSignatures(t *testing.T) {
	w, url := webServer(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := w.Stat(t.Context(), url+"/disk?X-Amz-Signature=secret"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// A host that cannot be trusted, or speaks something else, is refused at once, and it is said why.
func TestWebWithoutTrust(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for _, c := range []struct {
		host string
		want error
		says string
	}{
		{secure.Listener.Addr().String(), ErrAccessDenied, "certificate is not trusted here: x509: "},
		{plain.Listener.Addr().String(), ErrInvalidRequest, "does not speak TLS"},
	} {
		w := NewWeb(WebOptions{Hosts: []string{c.host}, Private: loopback})
		if _, err := w.Stat(t.Context(), "https://"+c.host+"/disk"); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %v with %q", err, c.want, c.says)
		}
	}
}

// A line on which hardly anything comes can be told from one on which nothing does.
func TestWebThatIsSlow(t *testing.T) {
	told := make(chan struct{})
	w, url := webServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		if r.Header.Get("Range") == "bytes=0-0" {
			w.Header().Set("Content-Range", "bytes 0-0/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("0"))
			return
		}
		w.Header().Set("Content-Range", "bytes 0-9/10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write([]byte("012"))
		_ = http.NewResponseController(w).Flush()
		<-told
		_, _ = w.Write([]byte("3456789"))
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first := true
	err := w.Stage(ctx, url+"/disk", filepath.Join(t.TempDir(), "disk"), func(done, total int64) {
		if done > 0 && done < total && first {
			first = false
			close(told)
		}
	})
	if err != nil || first {
		t.Errorf("%v; told of the first bytes: %v", err, !first)
	}
}

// A file that changes while it is read is not mixed.
func TestWebFileThatChanges(t *testing.T) {
	one, two := noise(1, 2*testPiece), noise(2, 2*testPiece)
	var gets atomic.Int64
	w, url := webServer(t, func(w http.ResponseWriter, r *http.Request) {
		tag, content := `"one"`, one
		if gets.Add(1) > 2 {
			tag, content = `"two"`, two
		}
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
	dst := filepath.Join(t.TempDir(), "disk")
	if err := w.Stage(t.Context(), url+"/disk", dst, nil); !errors.Is(err, ErrPreconditionFailed) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dst); err == nil {
		t.Error("a mixture is there")
	}
}

// Only https, only hosts that are allowed, only public addresses, also after a redirect.
func TestWebIsNotLedAstray(t *testing.T) {
	w := NewWeb(WebOptions{Hosts: []string{"downloads.example.com", "[2001:db8::1]:8443"}})
	for _, c := range []struct{ url, says string }{
		{"http://downloads.example.com/x", "https://"}, {"file:///etc/passwd", "https://"}, {"https://example.com/x", "not allowed"}, {"https://downloads.example.com:444/x", "not allowed"},
		{"https://u:p@downloads.example.com/x", "password"}, {"https://downloads.example.com.evil.test/x", "not allowed"}, {"https://[2001:db8::1]/x", "not allowed"}, {"https://%zz", "cannot be read"},
	} {
		if err := w.Check(c.url); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.url, err, c.says)
		}
	}
	for _, url := range []string{"https://downloads.example.com/x", "https://DOWNLOADS.example.com:443/x", "https://[2001:db8::1]:8443/x"} {
		if err := w.Check(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for address, ok := range map[string]bool{
		"127.0.0.1:443": false, "10.0.0.1:443": false, "172.16.0.1:443": false, "192.168.1.1:443": false, "169.254.169.254:80": false, "100.64.0.1:443": false, "0.0.0.0:443": false,
		"[::1]:443": false, "[fd00::1]:443": false, "[fe80::1]:443": false, "[::ffff:127.0.0.1]:443": false, "[::ffff:10.0.0.1]:443": false, "[64:ff9b::a00:1]:443": false, "[2002:a00:1::]:443": false, "[fec0::1]:443": false, "[::7f00:1]:443": false, "[3fff::1]:443": false, "[2606:4700::1]:443": true,
		"255.255.255.255:443": false, "224.0.0.1:443": false, "198.18.0.1:443": false, "nonsense": false, "1.1.1.1:443": true, "[2606:4700::1111]:443": true,
	} {
		if err := dialable(address, nil); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := dialable("[::ffff:127.0.0.1]:443", loopback); err != nil {
		t.Errorf("a network that was allowed: %v", err)
	}

	var reached atomic.Bool
	inner := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer inner.Close()
	for _, to := range []string{inner.URL + "/?signature=secret", "http://127.0.0.1:1/", "https://169.254.169.254/latest/meta-data/"} {
		w, url := webServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
		if _, err := w.Stat(t.Context(), url+"/disk"); !errors.Is(err, ErrAccessDenied) || !strings.Contains(err.Error(), "redirects to") || strings.Contains(err.Error(), "secret") {
			t.Errorf("redirect to %s: %v", to, err)
		}
	}
	loop, url := webServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) })
	if _, err := loop.Stat(t.Context(), url+"/disk"); !errors.Is(err, ErrAccessDenied) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a loop: %v", err)
	}
	// A host that is allowed, but whose address is private.
	strict := NewWeb(WebOptions{Hosts: []string{strings.TrimPrefix(inner.URL, "https://")}})
	if _, err := strict.Stat(t.Context(), inner.URL+"/disk"); !errors.Is(err, ErrAccessDenied) || !strings.Contains(err.Error(), "127.0.0.1, which is not public") {
		t.Errorf("a private address: %v", err)
	}
	if reached.Load() {
		t.Error("a request went where it must not")
	}
}

func TestFolder(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	content := noise(3, 1<<20)
	for _, x := range []string{filepath.Join(dir, "win10 ü.ova"), filepath.Join(outside, "secret")} {
		if err := os.WriteFile(x, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o700), os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link")), os.Symlink(outside, filepath.Join(dir, "dir")),
		os.Symlink("../win10 ü.ova", filepath.Join(dir, "sub", "inner")), os.Symlink("loop", filepath.Join(dir, "loop")), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dst := filepath.Join(t.TempDir(), "disk")
	for _, url := range []string{"file:///win10%20%C3%BC.ova", "file://localhost/win10%20%C3%BC.ova", "file:///sub/inner", "file:///sub/../win10%20%C3%BC.ova"} {
		info, err := f.Stat(t.Context(), url)
		if err != nil || info.Size != int64(len(content)) || info.ETag == "" {
			t.Errorf("%s: %+v, %v", url, info, err)
		}
		if err := f.Stage(t.Context(), url, dst, nil); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: content differs, %v", url, err)
		}
		if err := os.Remove(dst); err != nil {
			t.Fatal(err)
		}
	}
	for _, url := range []string{"file:///../" + filepath.Base(outside) + "/secret", "file:///link", "file:///dir/secret", "file:///%2e%2e/%2e%2e/etc/passwd", "file:///etc/passwd", "file:///none", "file:///pipe", "file:///sub", "file:///a%00b",
		"file://host/win10.ova", "file:///", "file:win10.ova?x", "https://host/win10.ova", "file:///sub/inner#x"} {
		if _, err := f.Stat(t.Context(), url); err == nil {
			t.Errorf("%s: it can be looked at", url)
		}
		if err := f.Stage(t.Context(), url, dst, nil); err == nil {
			t.Errorf("%s: it can be read", url)
		}
	}
	for _, url := range []string{"file:///none", "file:///pipe", "file:///sub", "file:///loop", "file:///sub/inner/x", "file:///" + strings.Repeat("a", 300)} {
		if _, err := f.Stat(t.Context(), url); !errors.Is(err, ErrNoSuchKey) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(dst)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
