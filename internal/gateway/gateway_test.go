package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/coder/websocket"
)

// fake is a service with two users, of whom ann has a WorkSpace that runs, one that does not, and one that is broken.
type fake struct {
	mu      sync.Mutex
	barred  bool          // nobody may stay
	screens chan net.Conn // the machine's end of each connection
	broken  error
}

var ann = User{DirectoryID: "d-1", Name: "ann", DisplayName: "Ann <A.>"}

func (f *fake) SignIn(_ context.Context, code, user, password string) (User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return User{}, f.broken
	}
	if code == "SLx+1" && password == "right password" && (user == "ann" || user == "bob") {
		return User{DirectoryID: "d-1", Name: user, DisplayName: ann.DisplayName}, nil
	}
	return User{}, ErrSignIn
}

func (f *fake) Desktops(_ context.Context, u User) ([]Desktop, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.barred:
		return nil, ErrSignIn
	case f.broken != nil:
		return nil, f.broken
	case u.Name != "ann":
		return nil, nil
	}
	return []Desktop{{"ws-runs", "DESKTOP-1", "AVAILABLE"}, {"ws-off", "DESKTOP-2", "STOPPED"}}, nil
}

func (f *fake) Connect(_ context.Context, u User, id string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.barred:
		return nil, ErrSignIn
	case u.Name != "ann":
		return nil, ErrNoDesktop
	case id == "ws-off":
		return nil, ErrNotRunning
	case id == "ws-broken":
		return nil, errors.New("the secret inside")
	case id != "ws-runs":
		return nil, ErrNoDesktop
	}
	ours, theirs := net.Pipe()
	f.screens <- ours
	return theirs, nil
}

func (f *fake) bar() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.barred = true
}

// site is a gateway behind a server, and a browser without a window.
type site struct {
	t      *testing.T
	fake   *fake
	server *httptest.Server
	client *http.Client
}

func newSite(t *testing.T, change ...func(*Config)) *site {
	t.Helper()
	f := &fake{screens: make(chan net.Conn, 100)}
	c := Config{Service: f, Assets: "/assets/", Watch: 20 * time.Millisecond}
	for _, ch := range change {
		ch(&c)
	}
	s := &site{t: t, fake: f, server: httptest.NewServer(New(c))}
	t.Cleanup(s.server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

// answer is what came back, read whole.
type answer struct {
	*http.Response
	body string
}

func (s *site) do(method, path string, form url.Values, headers ...string) answer {
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
	return answer{res, string(b)}
}

func form(code, user, password string) url.Values {
	return url.Values{"code": {code}, "user": {user}, "password": {password}}
}

func (s *site) signsIn(user string) {
	s.t.Helper()
	if a := s.do("POST", "/desktop/session", form("SLx+1", user, "right password")); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/desktop" {
		s.t.Fatalf("signing in: %d %s", a.StatusCode, a.body)
	}
}

// dial opens the websocket as a page of ours does, but for what headers say.
func (s *site) dial(workspace string, headers ...string) (ws *websocket.Conn, status int, err error) {
	h := http.Header{"Origin": {s.server.URL}}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			h.Del(headers[i])
		}
	}
	u, err := url.Parse(s.server.URL + "/desktop")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range s.client.Jar.Cookies(u) {
		h.Add("Cookie", c.String())
	}
	ws, res, err := websocket.Dial(s.t.Context(), s.server.URL+"/desktop/connect?workspace="+workspace, &websocket.DialOptions{HTTPHeader: h, Subprotocols: []string{"binary"}, CompressionMode: websocket.CompressionDisabled})
	if res != nil {
		status = res.StatusCode
	}
	return ws, status, err
}

// connected opens the running WorkSpace and returns both ends.
func (s *site) connected() (*websocket.Conn, net.Conn) {
	s.t.Helper()
	ws, status, err := s.dial("ws-runs")
	if err != nil {
		s.t.Fatalf("connecting: %d %v", status, err)
	}
	s.t.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(relayBuffer)
	machine := <-s.fake.screens
	s.t.Cleanup(func() { machine.Close() })
	return ws, machine
}

// ends waits for the websocket's end and holds it against a code.
func (s *site) ends(ws *websocket.Conn, want websocket.StatusCode) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, _, err := ws.Read(ctx)
		if err == nil {
			continue
		}
		if got := websocket.CloseStatus(err); got != want {
			s.t.Errorf("the websocket ended with %v (%v), want %v", got, err, want)
		}
		return
	}
}

// gone waits until the machine's end is closed.
func (s *site) gone(machine net.Conn) {
	s.t.Helper()
	machine.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, machine); err != nil {
		s.t.Errorf("the machine's screen is still connected: %v", err)
	}
}

func TestSignIn(t *testing.T) {
	s := newSite(t)
	if a := s.do("GET", "/desktop", nil); a.StatusCode != 200 || !strings.Contains(a.body, `name="code"`) {
		t.Errorf("nobody sees %d %s", a.StatusCode, a.body)
	}
	var messages []string
	for _, f := range []url.Values{form("SLx+1", "ann", "wrong"), form("SLx+1", "nobody", "right password"), form("SLx+2", "ann", "right password"), form("", "", ""), {}} {
		a := s.do("POST", "/desktop/session", f)
		if a.StatusCode != http.StatusUnauthorized || len(a.Cookies()) != 0 {
			t.Errorf("%v: %d, cookies %v", f, a.StatusCode, a.Cookies())
		}
		_, m, _ := strings.Cut(a.body, `role="alert">`)
		m, _, _ = strings.Cut(m, "<")
		messages = append(messages, m)
		if strings.Contains(a.body, "right password") {
			t.Error("the page shows the password")
		}
	}
	for _, m := range messages {
		if m != messages[0] || m == "" {
			t.Errorf("the refusals differ: %q", messages)
		}
	}
	if a := s.do("POST", "/desktop/session", form("<b>", `"><script>`, "x")); strings.Contains(a.body, "<b>") || strings.Contains(a.body, `"><script>`) {
		t.Error("what was typed comes back as HTML")
	}
	if a := s.do("POST", "/desktop/session", url.Values{"code": {strings.Repeat("x", largestForm)}}); a.StatusCode != http.StatusBadRequest {
		t.Errorf("a huge form: %d", a.StatusCode)
	}
	s.signsIn("ann")
	a := s.do("GET", "/desktop", nil)
	if !strings.Contains(a.body, `id="screen"`) || !strings.Contains(a.body, "Ann &lt;A.&gt;") {
		t.Errorf("ann sees %s", a.body)
	}
	if a := s.do("POST", "/desktop/sign-out", url.Values{}); a.StatusCode != http.StatusSeeOther {
		t.Errorf("signing out: %d", a.StatusCode)
	}
	if a := s.do("GET", "/desktop", nil); strings.Contains(a.body, `id="screen"`) {
		t.Error("the desktop is shown after signing out")
	}
	if a := s.do("GET", "/desktop/session", nil); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("signing in with GET: %d", a.StatusCode)
	}
}

func TestSignInIsBraked(t *testing.T) {
	c := newClock()
	s := newSite(t, func(cfg *Config) { cfg.Now = c.now })
	for range freeTries + 1 {
		if a := s.do("POST", "/desktop/session", form("SLx+1", "ann", "wrong")); a.StatusCode != http.StatusUnauthorized {
			t.Fatalf("a failure: %d", a.StatusCode)
		}
	}
	a := s.do("POST", "/desktop/session", form("SLx+1", "ann", "right password"))
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "1" || !strings.Contains(a.body, "Try again in 1s") {
		t.Errorf("after failures: %d, Retry-After %q, %s", a.StatusCode, a.Header.Get("Retry-After"), a.body)
	}
	s.signsIn("bob")
	c.passes(time.Second)
	s.signsIn("ann")
}

func TestFailuresAreNotShown(t *testing.T) {
	s := newSite(t)
	s.signsIn("ann")
	s.fake.mu.Lock()
	s.fake.broken = errors.New("the secret inside")
	s.fake.mu.Unlock()
	for _, a := range []answer{s.do("POST", "/desktop/session", form("SLx+1", "ann", "x")), s.do("GET", "/desktop/workspaces", nil)} {
		if a.StatusCode != http.StatusInternalServerError || strings.Contains(a.body, "secret") {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
	if _, status, err := s.dial("ws-broken"); err == nil || status != http.StatusInternalServerError {
		t.Errorf("a screen that cannot be dialled: %d %v", status, err)
	}
}

func TestHeaders(t *testing.T) {
	s := newSite(t)
	s.signsIn("ann")
	for _, path := range []string{"/desktop", "/desktop/workspaces", "/desktop/nothing"} {
		a := s.do("GET", path, nil)
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %s: %q", path, name, got)
			}
		}
		csp := a.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q lacks %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%s: the policy %q allows inline code", path, csp)
		}
	}
	for _, user := range []bool{true, false} {
		if !user {
			s.do("POST", "/desktop/sign-out", url.Values{})
		}
		page := s.do("GET", "/desktop", nil).body
		if strings.Contains(page, "<style") || strings.Contains(page, " style=") || strings.Contains(page, " onclick") || strings.Count(page, "<script") != strings.Count(page, `src="/assets/`) {
			t.Errorf("the page has code that its own policy forbids: %s", page)
		}
	}
}

func TestOtherSitesAreRefused(t *testing.T) {
	s := newSite(t)
	s.signsIn("ann")
	for _, headers := range [][]string{
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:1"},
	} {
		for _, path := range []string{"/desktop/session", "/desktop/sign-out"} {
			if a := s.do("POST", path, form("SLx+1", "bob", "right password"), headers...); a.StatusCode != http.StatusForbidden || len(a.Cookies()) != 0 {
				t.Errorf("POST %s with %v: %d", path, headers, a.StatusCode)
			}
		}
	}
	if a := s.do("POST", "/desktop/session", form("SLx+1", "ann", "right password"), "Origin", s.server.URL); a.StatusCode != http.StatusSeeOther {
		t.Errorf("POST of our own page: %d", a.StatusCode)
	}
	port := s.server.URL[strings.LastIndex(s.server.URL, ":"):]
	for _, origin := range []string{"https://evil.example", "null", "", "http://127.0.0.1:1", "http://localhost" + port, "http://127.0.0.1" + port + ".evil.example", "::"} {
		_, status, err := s.dial("ws-runs", "Origin", origin)
		if err == nil || status != http.StatusForbidden {
			t.Errorf("a websocket from %q: %d, %v", origin, status, err)
		}
	}
	if len(s.fake.screens) != 0 {
		t.Error("a machine was dialled for another site")
	}
}

func TestConnectRefuses(t *testing.T) {
	s := newSite(t)
	for _, x := range []struct {
		user, workspace string
		status          int
	}{{"", "ws-runs", 401}, {"ann", "ws-off", 409}, {"ann", "ws-other", 404}, {"ann", "", 404}, {"bob", "ws-runs", 404}} {
		if x.user != "" {
			s.signsIn(x.user)
		}
		if _, status, err := s.dial(x.workspace); err == nil || status != x.status {
			t.Errorf("%s connecting to %q: %d, %v, want %d", x.user, x.workspace, status, err, x.status)
		}
	}
	s.signsIn("ann")
	if a := s.do("GET", "/desktop/connect?workspace=ws-runs", nil, "Origin", s.server.URL); a.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("connecting without a websocket: %d", a.StatusCode)
	}
	s.gone(<-s.fake.screens)
	s.fake.bar()
	if _, status, err := s.dial("ws-runs"); err == nil || status != http.StatusUnauthorized {
		t.Errorf("connecting after ann was removed: %d, %v", status, err)
	}
	if a := s.do("GET", "/desktop", nil); !strings.Contains(a.body, `name="code"`) {
		t.Error("the session of a removed user is still there")
	}
}

func TestRelay(t *testing.T) {
	s := newSite(t)
	s.signsIn("ann")
	ws, machine := s.connected()
	if ws.Subprotocol() != "binary" {
		t.Errorf("subprotocol %q", ws.Subprotocol())
	}
	up := bytes.Repeat([]byte("0123456789abcdef"), 20_000) // more than any buffer on the way
	down := bytes.Repeat([]byte("fedcba9876543210"), 20_000)
	var all sync.WaitGroup
	all.Go(func() {
		if err := ws.Write(t.Context(), websocket.MessageBinary, up); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		if _, err := machine.Write(down); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		got := make([]byte, len(up))
		if _, err := io.ReadFull(machine, got); err != nil || !bytes.Equal(got, up) {
			t.Errorf("the machine got something else: %v", err)
		}
	})
	var got []byte
	for len(got) < len(down) {
		kind, b, err := ws.Read(t.Context())
		if err != nil || kind != websocket.MessageBinary {
			t.Fatalf("%v %v", kind, err)
		}
		got = append(got, b...)
	}
	all.Wait()
	if !bytes.Equal(got, down) {
		t.Error("the browser got something else")
	}
	machine.Close()
	s.ends(ws, websocket.StatusGoingAway)
}

func TestRelayEnds(t *testing.T) {
	c := newClock()
	var mu sync.Mutex
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return c.t }
	passes := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); c.passes(d) }
	for name, x := range map[string]struct {
		end  func(s *site, ws *websocket.Conn)
		code websocket.StatusCode
	}{
		"signing out":           {func(s *site, _ *websocket.Conn) { s.do("POST", "/desktop/sign-out", url.Values{}) }, websocket.StatusPolicyViolation},
		"signing in as another": {func(s *site, _ *websocket.Conn) { s.signsIn("bob") }, websocket.StatusPolicyViolation},
		"the session's expiry":  {func(*site, *websocket.Conn) { passes(time.Hour) }, websocket.StatusPolicyViolation},
		"the user's removal":    {func(s *site, _ *websocket.Conn) { s.fake.bar() }, websocket.StatusPolicyViolation},
		"text instead of RFB":   {func(s *site, ws *websocket.Conn) { ws.Write(s.t.Context(), websocket.MessageText, []byte("hello")) }, websocket.StatusNormalClosure},
		"a message beyond bounds": {func(s *site, ws *websocket.Conn) {
			ws.Write(s.t.Context(), websocket.MessageBinary, make([]byte, largestMessage+1))
		}, websocket.StatusMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *Config) { c.Now = now })
			s.signsIn("ann")
			ws, machine := s.connected()
			var all sync.WaitGroup
			all.Go(func() { x.end(s, ws) })
			all.Go(func() { s.gone(machine) })
			s.ends(ws, x.code)
			all.Wait()
		})
	}
	t.Run("the browser's going", func(t *testing.T) {
		s := newSite(t)
		s.signsIn("ann")
		ws, machine := s.connected()
		ws.CloseNow()
		s.gone(machine)
	})
}

func TestTypingKeepsTheSession(t *testing.T) {
	var mu sync.Mutex
	c := newClock()
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return c.t }
	passes := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); c.passes(d) }
	s := newSite(t, func(cfg *Config) { cfg.Now = now; cfg.Idle = 10 * time.Minute; cfg.Watch = 5 * time.Millisecond })
	s.signsIn("ann")
	ws, machine := s.connected()
	send := func(b []byte) {
		t.Helper()
		if err := ws.Write(t.Context(), websocket.MessageBinary, b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(machine, make([]byte, len(b))); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		passes(9 * time.Minute)
		send([]byte{rfbKey, 1, 0, 0, 0, 0, 0, 'a'})
	}
	// What noVNC does by itself is no use: asking for the screen, and for the state.
	passes(9 * time.Minute)
	send([]byte{3, 1, 0, 0, 0, 0, 0, 1, 0, 1})
	if a := s.do("GET", "/desktop/workspaces", nil); a.StatusCode != 200 {
		t.Fatalf("the session ended early: %d", a.StatusCode)
	}
	passes(time.Minute)
	s.ends(ws, websocket.StatusPolicyViolation)
	if a := s.do("GET", "/desktop/workspaces", nil); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the idle time: %d", a.StatusCode)
	}
}

func TestOneSessionShowsSoManyScreens(t *testing.T) {
	s := newSite(t)
	s.signsIn("ann")
	for range mostViewers {
		s.connected()
	}
	if _, status, err := s.dial("ws-runs"); err == nil || status != http.StatusTooManyRequests {
		t.Errorf("one more screen: %d %v", status, err)
	}
}

func TestWorkspaces(t *testing.T) {
	s := newSite(t)
	if a := s.do("GET", "/desktop/workspaces", nil); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody's WorkSpaces: %d", a.StatusCode)
	}
	s.signsIn("bob")
	if a := s.do("GET", "/desktop/workspaces", nil); strings.TrimSpace(a.body) != "[]" {
		t.Errorf("bob's WorkSpaces: %s", a.body)
	}
	s.signsIn("ann")
	var got []shown
	a := s.do("GET", "/desktop/workspaces", nil)
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !got[0].Screen || got[0].ID != "ws-runs" || got[1].Screen || !strings.Contains(got[1].Advice, "administrator to start it") {
		t.Errorf("ann's WorkSpaces: %+v", got)
	}
	s.fake.bar()
	if a := s.do("GET", "/desktop/workspaces", nil); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after ann was removed: %d", a.StatusCode)
	}
}

func TestEveryStateHasAdvice(t *testing.T) {
	_, none := advice("")
	for _, state := range types.WorkspaceState("").Values() {
		if _, text := advice(string(state)); text == none {
			t.Errorf("%s has no advice", state)
		}
	}
}

func TestPagesWithoutTheBundle(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Assets = "" })
	for range 2 {
		if a := s.do("GET", "/desktop", nil); !strings.Contains(a.body, "make web") || strings.Contains(a.body, "<script") {
			t.Errorf("without a bundle: %s", a.body)
		}
		s.signsIn("ann")
	}
}
