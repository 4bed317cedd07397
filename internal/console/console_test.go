package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

// fake is a service with one access key and links made with it.
type fake struct {
	mu     sync.Mutex
	tokens []string
	gone   bool // the key has been deleted
	broken error
	steps  []Step
}

const keyID, keySecret = "AKIAEXAMPLE", "the secret"

func (f *fake) SignInWithKey(ctx context.Context, id, secret string) error {
	if id != keyID || secret != keySecret {
		return ErrSignIn
	}
	return f.AdmitKey(ctx, id)
}

func (f *fake) RedeemConsoleToken(_ context.Context, token string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.tokens, token)
	if i < 0 {
		return "", ErrSignIn
	}
	f.tokens = slices.Delete(f.tokens, i, i+1)
	return keyID, nil
}

func (f *fake) AdmitKey(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || id != keyID {
		return ErrSignIn
	}
	return nil
}

func (f *fake) Steps(context.Context) ([]Step, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.steps), f.broken
}

func (f *fake) Report(_ context.Context, id string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id != "wsi-1" {
		return nil, fmt.Errorf("image %s: %w", id, fs.ErrNotExist)
	}
	return []byte("<!doctype html><style>p { color: #123456 }</style><p>NOT FIT</p>"), f.broken
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// eight are steps in all states.
func eight() []Step {
	states := []State{Done, Done, Done, Attention, InProgress, ToDo, ToDo, ToDo}
	var ss []Step
	for i, s := range states {
		ss = append(ss, Step{Number: i + 1, Title: "Step " + string(rune('A'+i)), State: s, Summary: "What there is."})
	}
	ss[3].Items = []Item{{ID: "import-ami-1", Name: "ami-1", State: "deleted", Detail: "<script>alert(1)</script> & more"}}
	return ss
}

type site struct {
	t      *testing.T
	fake   *fake
	server *httptest.Server
	client *http.Client
}

func newSite(t *testing.T, assets string) *site {
	t.Helper()
	f := &fake{steps: eight(), tokens: []string{"token-1"}}
	s := &site{t: t, fake: f, server: httptest.NewServer(New(Config{Service: f, Assets: assets}))}
	t.Cleanup(s.server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

func (s *site) do(method, path string, form url.Values, headers ...string) (status int, body string, h http.Header) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

func (s *site) signsIn(id, secret string) (status int, body string) {
	s.t.Helper()
	status, body, _ = s.do("POST", "/console/session", url.Values{"key": {id}, "secret": {secret}})
	return status, body
}

// in tells whether the page shows the steps to this browser.
func (s *site) in() bool {
	s.t.Helper()
	_, body, _ := s.do("GET", "/", nil)
	return strings.Contains(body, `id="step-1"`)
}

func TestSignInWithAKey(t *testing.T) {
	s := newSite(t, AssetPath)
	if s.in() {
		t.Fatal("nobody sees the steps")
	}
	var bodies []string
	for _, x := range [][2]string{{keyID, "wrong"}, {"AKIAOTHER", keySecret}, {"", ""}} {
		status, body := s.signsIn(x[0], x[1])
		if status != http.StatusUnauthorized || strings.Contains(body, keySecret) {
			t.Errorf("%v: %d %s", x, status, body)
		}
		bodies = append(bodies, strings.Replace(body, `value="`+x[0]+`"`, "", 1))
	}
	if bodies[0] != bodies[1] || bodies[0] != bodies[2] {
		t.Error("the refusals differ")
	}
	if status, _ := s.signsIn(" "+keyID+"\n", keySecret); status != http.StatusSeeOther || !s.in() {
		t.Errorf("signing in: %d", status)
	}
	if status, body, _ := s.do("GET", "/console/steps", nil); status != 200 || strings.Contains(body, "<html") || strings.Count(body, `<li class="step `) != 8 {
		t.Errorf("the list: %d %s", status, body)
	}
	s.do("POST", "/console/sign-out", url.Values{})
	if status, _, _ := s.do("GET", "/console/steps", nil); s.in() || status != http.StatusUnauthorized {
		t.Errorf("after signing out the list answers %d", status)
	}
}

func TestKeyThatIsDeletedEndsItsSessions(t *testing.T) {
	s := newSite(t, AssetPath)
	s.signsIn(keyID, keySecret)
	s.fake.set(func() { s.fake.gone = true })
	if status, _, _ := s.do("GET", "/console/steps", nil); status != http.StatusUnauthorized || s.in() {
		t.Errorf("with a deleted key the list answers %d", status)
	}
	s.fake.set(func() { s.fake.gone = false })
	if s.in() {
		t.Error("the session came back with the key")
	}
}

func TestTokenSignsInOnce(t *testing.T) {
	s := newSite(t, AssetPath)
	s.do("HEAD", "/?token=token-1", nil)
	s.do("GET", "/?token=token-1", nil, "Sec-Purpose", "prefetch;prerender")
	status, body, h := s.do("GET", "/?token=token-1", nil)
	if status != 200 || !strings.Contains(body, `id="step-1"`) {
		t.Fatalf("the link: %d %s", status, body)
	}
	if c := h.Get("Set-Cookie"); !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Strict") {
		t.Errorf("cookie: %s", c)
	}
	if !s.in() {
		t.Error("the link made no session")
	}
	s.fake.set(func() { s.fake.tokens = []string{"token-2"} })
	if s.do("GET", "/?token=token-2", nil); len(s.fake.tokens) != 1 {
		t.Error("who has signed in already used up another link")
	}
	s.do("POST", "/console/sign-out", url.Values{})
	if status, body, _ := s.do("GET", "/?token=token-1", nil); status != http.StatusUnauthorized || !strings.Contains(body, "has been used or has expired") || s.in() {
		t.Errorf("the link, again: %d %s", status, body)
	}
}

func TestPageIsSafe(t *testing.T) {
	s := newSite(t, AssetPath)
	s.signsIn(keyID, keySecret)
	_, body, h := s.do("GET", "/", nil)
	if strings.Contains(body, "<script>") || !strings.Contains(body, "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more") {
		t.Error("an item's text is taken for HTML")
	}
	if strings.Contains(body, " style=") || strings.Contains(body, "<style") || !strings.Contains(h.Get("Content-Security-Policy"), "script-src 'self'") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("headers: %v", h)
	}
	for _, want := range []string{`class="step done"`, `class="step in-progress"`, `class="step to-do"`, `class="step attention"`, `href="/desktop"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, path := range []string{"/console/session", "/console/sign-out"} {
		if status, _, _ := s.do("POST", path, url.Values{"key": {keyID}, "secret": {keySecret}}, "Origin", "https://evil.example"); status != http.StatusForbidden {
			t.Errorf("POST %s of another site: %d", path, status)
		}
	}
	if status, body := s.signsIn(`"><script>`, "x"); strings.Contains(body, `"><script>`) {
		t.Errorf("what was typed comes back as HTML: %d", status)
	}
	s.fake.set(func() { s.fake.broken = errors.New("the secret inside") })
	for _, path := range []string{"/", "/console/steps", "/console/reports/wsi-1"} {
		if status, body, _ := s.do("GET", path, nil); status != http.StatusInternalServerError || strings.Contains(body, "inside") {
			t.Errorf("a failure at %s: %d %s", path, status, body)
		}
	}
}

// TestReport: a report is shown to who is signed in, and runs nothing.
func TestReport(t *testing.T) {
	s := newSite(t, AssetPath)
	if status, body, _ := s.do("GET", "/console/reports/wsi-1", nil); strings.Contains(body, "NOT FIT") {
		t.Errorf("a report without signing in: %d %s", status, body)
	}
	s.signsIn(keyID, keySecret)
	status, body, header := s.do("GET", "/console/reports/wsi-1", nil)
	if policy := header.Get("Content-Security-Policy"); status != http.StatusOK || !strings.Contains(body, "NOT FIT") || !strings.HasPrefix(policy, "default-src 'none'; style-src 'unsafe-inline'") {
		t.Errorf("the report: %d %s, policy %q", status, body, policy)
	}
	for _, id := range []string{"wsi-2", "..%2f..%2fetc", "%00"} {
		if status, body, _ := s.do("GET", "/console/reports/"+id, nil); status != http.StatusNotFound {
			t.Errorf("report %s: %d %s", id, status, body)
		}
	}
	s.fake.set(func() { s.fake.steps[1].Items = []Item{{ID: "wsi-1", Report: true}} })
	if _, body, _ := s.do("GET", "/console/steps", nil); strings.Count(body, `<a href="/console/reports/wsi-1">`) != 1 {
		t.Errorf("no link to the report: %s", body)
	}
}

func TestGuessingIsBraked(t *testing.T) {
	s := newSite(t, AssetPath)
	last := 0
	for range 10 {
		last, _ = s.signsIn(keyID, "wrong")
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("the tenth guess: %d", last)
	}
	if status, _ := s.signsIn(keyID, keySecret); status != http.StatusTooManyRequests {
		t.Errorf("the right secret during the delay: %d", status)
	}
}

func TestWithoutTheBundle(t *testing.T) {
	s := newSite(t, "")
	if _, body, _ := s.do("GET", "/", nil); !strings.Contains(body, "make web") {
		t.Errorf("the sign-in: %s", body)
	}
	s.signsIn(keyID, keySecret)
	if _, body, _ := s.do("GET", "/", nil); !strings.Contains(body, "make web") || !strings.Contains(body, `id="step-8"`) || strings.Contains(body, "<script") {
		t.Errorf("the steps: %s", body)
	}
}

func TestAssets(t *testing.T) {
	h, err := serveBundle(fstest.MapFS{
		"dist/desktop.js": {Data: []byte("js")}, "dist/berth.css": {Data: []byte("css")}, "dist/novnc-LICENSE.txt": {Data: []byte("licence")},
		"dist/README.md": {Data: []byte("readme")}, "dist/.built": {}, "secret.txt": {Data: []byte("secret")},
	})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, tag string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.Header.Set("If-None-Match", tag)
		h.ServeHTTP(w, r)
		return w
	}
	for path, kind := range map[string]string{"desktop.js": "text/javascript", "berth.css": "text/css", "novnc-LICENSE.txt": "text/plain"} {
		w := get(AssetPath+path, "")
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		if w := get(AssetPath+path, w.Header().Get("ETag")); w.Code != http.StatusNotModified {
			t.Errorf("%s, known: %d", path, w.Code)
		}
	}
	for _, path := range []string{"", "README.md", ".built", "nothing.js", "../secret.txt", "..%2fsecret.txt", "."} {
		if w := get(AssetPath+path, ""); w.Code != http.StatusNotFound {
			t.Errorf("%q: %d", path, w.Code)
		}
	}
}
