package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/check"
	"berth/internal/phony/phonytest"
	"berth/internal/windows"
	"berth/internal/windows/live"
)

// standIn is a machine's disk that does as if it ran: what is done to it is written down, and fails where it is told to.
type standIn struct {
	windows.System
	mu    sync.Mutex
	did   []string
	fails map[string]error
	block chan struct{}                  // where set, every change waits for it
	gates map[windows.Hive]chan struct{} // what is read of these hives waits
}

func (m *standIn) Open(hive windows.Hive, path string) (windows.Key, error) {
	if gate := m.gates[hive]; gate != nil {
		<-gate
	}
	return m.System.Open(hive, path)
}

func (m *standIn) do(what string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.did = append(m.did, what)
	return m.fails[what]
}

func (m *standIn) times(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, d := range m.did {
		if strings.HasPrefix(d, what) {
			n++
		}
	}
	return n
}

func (m *standIn) Apply(ctx context.Context, c windows.Change) (live.Password, error) {
	if m.block != nil {
		select {
		case <-m.block:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	if _, ok := c.(windows.CreateAccount); ok {
		return "correct-Horse-7", m.do("apply " + c.String())
	}
	return "", m.do("apply " + c.String())
}
func (m *standIn) HoldUpdates(context.Context) error     { return m.do("hold") }
func (m *standIn) KeepUpdatesOff() error                 { return m.do("keep") }
func (m *standIn) ReleaseUpdates() (bool, error)         { return false, m.do("release") }
func (m *standIn) Sysprep(context.Context, []byte) error { return m.do("sysprep") }
func (m *standIn) HasAccount(string) (bool, error)       { return true, m.do("account") }
func (m *standIn) RemoveAccount(string) error            { return m.do("remove") }
func (m *standIn) Locales() (live.Locales, error) {
	return live.Locales{System: "en-US", User: "de-DE"}, m.do("locales")
}

// stage is a page with a stand-in behind it, and a browser's worth of client.
type stage struct {
	m      *standIn
	c      *checker
	p      *page
	server *httptest.Server
	client *http.Client // knows the page
	ended  chan struct{}
	work   sync.WaitGroup
}

func newStage(t *testing.T, machine string) *stage {
	t.Helper()
	sys, _ := phonytest.Open(t, phonytest.Parse(t, machine))
	s := &stage{m: &standIn{System: sys, fails: map[string]error{}}, ended: make(chan struct{})}
	s.c = newChecker(s.m, time.Now, t.TempDir())
	if err := s.c.open(); err != nil {
		t.Fatal(err)
	}
	profile, _ := check.ProfileByName("")
	s.server = httptest.NewUnstartedServer(nil)
	ctx, cancel := context.WithCancel(t.Context())
	s.p = newPage(s.c, check.Options{Profile: profile, Process: check.DefaultProcess}, s.server.Listener.Addr(), sync.OnceFunc(func() { close(s.ended) }), func(do func(context.Context)) { s.work.Go(func() { do(ctx) }) })
	s.server.Config.Handler = s.p.handler()
	s.server.Start()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{Jar: jar}
	t.Cleanup(func() {
		cancel()
		s.work.Wait()
		s.server.CloseClientConnections()
		s.server.Close()
	})
	r, err := s.client.Get(s.p.URL())
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatal(r, err)
	}
	r.Body.Close()
	return s
}

// post sends what the page would.
func (s *stage) post(t *testing.T, path, body string) (int, string) {
	t.Helper()
	r, err := s.client.Post(s.server.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// until waits for a state.
func (s *stage) until(t *testing.T, what string, is func(state) bool) state {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		now, changed := s.c.watch()
		if is(now) {
			return now
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("%s does not come; it is %s", what, now.Phase)
		}
	}
}

const testThis = `{"profile":"seed-2020","process":"BYOL_REGULAR","office":false}`

// TestStrangersAreRefused: without the token, by another host's name, from another site.
func TestStrangersAreRefused(t *testing.T) {
	s := newStage(t, unfit)
	base, err := url.Parse(s.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	good := s.client.Jar.Cookies(base)
	if len(good) != 1 {
		t.Fatalf("cookies %v", good)
	}
	for _, c := range []struct {
		name, method, path string
		change             func(*http.Request)
		status             int
	}{
		{"no cookie", "GET", "/", func(r *http.Request) { r.Header.Del("Cookie") }, http.StatusForbidden},
		{"no cookie", "GET", "/events", func(r *http.Request) { r.Header.Del("Cookie") }, http.StatusForbidden},
		{"no cookie", "POST", "/sysprep", func(r *http.Request) { r.Header.Del("Cookie") }, http.StatusForbidden},
		{"another token", "GET", "/", func(r *http.Request) { r.Header.Set("Cookie", cookieName+"=AAAAAAAAAAAAAAAAAAAAAAAAAA") }, http.StatusForbidden},
		{"another token", "GET", "/enter/AAAAAAAAAAAAAAAAAAAAAAAAAA", func(*http.Request) {}, http.StatusForbidden},
		{"another host's name", "GET", "/", func(r *http.Request) { r.Host = "evil.example" }, http.StatusMisdirectedRequest},
		{"localhost", "GET", "/", func(r *http.Request) { r.Host = "localhost:" + base.Port() }, http.StatusMisdirectedRequest},
		{"another host's name", "GET", "/enter/" + s.p.token, func(r *http.Request) { r.Host = "evil.example:" + base.Port() }, http.StatusMisdirectedRequest},
		{"another site", "POST", "/check", func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, http.StatusForbidden},
		{"another site", "POST", "/close", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		{"another port", "POST", "/close", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") }, http.StatusForbidden},
		{"a change by GET", "GET", "/sysprep", func(*http.Request) {}, http.StatusMethodNotAllowed},
		{"no JSON", "POST", "/check", func(*http.Request) {}, http.StatusBadRequest},
		{"who belongs here", "GET", "/", func(*http.Request) {}, http.StatusOK},
		{"who belongs here", "GET", "/page/checker.js", func(*http.Request) {}, http.StatusOK},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, s.server.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(good[0])
		c.change(r)
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.status {
			t.Errorf("%s, %s %s: %s", c.name, c.method, c.path, answer.Status)
		}
		if answer.StatusCode != http.StatusOK && strings.Contains(string(b), s.p.token) {
			t.Errorf("%s, %s %s tells the token", c.name, c.method, c.path)
		}
		if csp := answer.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s, %s %s: policy %q", c.name, c.method, c.path, csp)
		}
	}
	if n := s.m.times("hold") + s.m.times("sysprep"); n != 0 {
		t.Errorf("strangers did %v", s.m.did)
	}
	if good := s.client.Jar.Cookies(base)[0]; good.Value != s.p.token {
		t.Error("another cookie")
	}
	select {
	case <-s.ended:
		t.Error("a stranger has ended it")
	default:
	}
}

// TestNothingWithoutConsent: Sysprep wants a fit machine and a snapshot, a fix wants the plan that was shown, the account its name.
func TestNothingWithoutConsent(t *testing.T) {
	s := newStage(t, unfit)
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/fix", `{"plan":""}`, http.StatusConflict},
		{"/fix", `{"plan":"0123"}`, http.StatusConflict},
		{"/sysprep", `{"snapshot":false}`, http.StatusConflict},
		{"/sysprep", `{"snapshot":true}`, http.StatusConflict}, // nothing has passed yet
		{"/account/remove", `{"account":"Administrator"}`, http.StatusBadRequest},
		{"/check", `{"profile":"1999","process":"BYOL_REGULAR"}`, http.StatusBadRequest},
		{"/check", `{"profile":"seed-2020","process":"BYOL_REGULAR","more":1}`, http.StatusBadRequest},
		{"/check", `{"profile":"` + strings.Repeat("x", maxBody) + `"}`, http.StatusBadRequest},
	} {
		if status, say := s.post(t, c.path, c.body); status != c.status || say == "" {
			t.Errorf("%s %.60s: %d %s", c.path, c.body, status, say)
		}
	}
	if len(s.m.did) != 3 { // release, locales, account: what it does at the start
		t.Errorf("it did %q", s.m.did)
	}
	if status, say := s.post(t, "/account/remove", `{"account":"WorkSpaces_BYOL"}`); status != http.StatusNoContent || s.m.times("remove") != 1 {
		t.Errorf("the account: %d %s", status, say)
	}
}

// TestSitting goes through tests and fixes: what fails is told, a second request waits for nobody, the end puts Windows Update back.
func TestSitting(t *testing.T) {
	s := newStage(t, unfit)
	s.m.fails["hold"] = errors.New("access is denied\x1b[2J")
	if status, say := s.post(t, "/check", testThis); status >= 300 {
		t.Fatal(status, say)
	}
	now := s.until(t, "the end of the tests", func(s state) bool { return s.Phase == phaseChecked })
	if now.Fit || len(now.Fixes) == 0 || len(now.Troubles) != 1 || !strings.Contains(now.Troubles[0], `access is denied\x1b[2J`) {
		t.Errorf("fit %v, fixes %v, troubles %q", now.Fit, now.Fixes, now.Troubles)
	}
	for _, test := range now.Tests {
		if test.State == toBeTested || test.State == checking || test.Because == "" {
			t.Errorf("%s is %s because %q", test.Code, test.State, test.Because)
		}
		if test.State != passed && test.State != notApplicable && test.Remedy == "" {
			t.Errorf("%s is %s, and nothing says what to do", test.Code, test.State)
		}
	}
	first := now.Fixes[0].Steps[0]
	s.m.fails["apply "+first] = errors.New("it is locked")
	s.m.block = make(chan struct{})
	if status, say := s.post(t, "/fix", `{"plan":"`+now.Plan+`"}`); status != http.StatusAccepted {
		t.Fatal(status, say)
	}
	if status, _ := s.post(t, "/check", testThis); status != http.StatusConflict {
		t.Errorf("tests while changes are made: %d", status)
	}
	if status, _ := s.post(t, "/fix", `{"plan":"`+now.Plan+`"}`); status != http.StatusConflict {
		t.Errorf("changes while changes are made: %d", status)
	}
	if status, _ := s.post(t, "/account/remove", `{"account":"WorkSpaces_BYOL"}`); status != http.StatusConflict {
		t.Errorf("the account while changes are made: %d", status)
	}
	close(s.m.block)
	after := s.until(t, "the tests after the changes", func(s state) bool { return s.Phase == phaseChecked })
	if len(after.Done) == 0 || len(after.Troubles) < 1 || !strings.Contains(strings.Join(after.Troubles, "\n"), "it is locked") {
		t.Errorf("done %q, troubles %q", after.Done, after.Troubles)
	}
	for _, done := range after.Done {
		if done == first {
			t.Errorf("%q failed, and is said to be done", first)
		}
	}
	if s.m.times("keep") != 0 {
		t.Error("Windows Update stays off although the machine is not fit")
	}

	// The events tell it, to the end.
	r, err := s.client.Get(s.server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if status, _ := s.post(t, "/close", "{}"); status != http.StatusNoContent {
		t.Errorf("close: %d", status)
	}
	<-s.ended
	released := s.m.times("release")
	if err := s.c.close(); err != nil || s.m.times("release") != released+1 {
		t.Errorf("at the end: %v, %q", err, s.m.did)
	}
	var last state
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if last.Phase != phaseCancelled {
		t.Errorf("the last that the page hears is %s", last.Phase)
	}
	if status, _ := s.post(t, "/check", testThis); status != http.StatusConflict {
		t.Errorf("tests after the end: %d", status)
	}
}

// TestInstalments: what has ended is shown while the rest is still being read, and stays as it was shown.
func TestInstalments(t *testing.T) {
	s := newStage(t, unfit)
	sam, bcd := make(chan struct{}), make(chan struct{})
	open := sync.OnceFunc(func() { close(bcd) })
	t.Cleanup(open)
	s.m.gates = map[windows.Hive]chan struct{}{windows.SAM: sam, windows.BCD: bcd}
	var order []string
	s.c.ended = func(t test) { order = append(order, t.Code) }
	states := func(s state) map[string]test {
		by := map[string]test{}
		for _, t := range s.Tests {
			by[t.Code] = t
		}
		return by
	}
	if status, say := s.post(t, "/check", testThis); status != http.StatusAccepted {
		t.Fatal(status, say)
	}
	const early, account, settings, late = "OSNotSupported", "WorkspacesBYOLAccountNotFound", "FirewallEnabled", "MultipleBootPartition"
	first := states(s.until(t, "the first of the tests", func(s state) bool { return states(s)[early].State == passed }))
	for _, code := range []string{account, settings, late} {
		if first[code].State != checking || first[code].Because != "" {
			t.Errorf("while the accounts are read %s is %s", code, first[code].State)
		}
	}
	close(sam)
	second := states(s.until(t, "what was read then", func(s state) bool { return states(s)[settings].State == warning }))
	if second[account].State != passed || second[late].State != checking || second[settings].Because == "" {
		t.Errorf("while the boot menu is read they are %+v", second)
	}
	open()
	now := s.until(t, "the end of the tests", func(s state) bool { return s.Phase == phaseChecked })
	last := states(now)
	for _, before := range []map[string]test{first, second} {
		for code, was := range before {
			if was.State != checking && !reflect.DeepEqual(was, last[code]) {
				t.Errorf("%s was %+v and became %+v", code, was, last[code])
			}
		}
	}
	profile, _ := check.ProfileByName("seed-2020")
	want := check.Run(check.Collect(t.Context(), s.m.System), check.Options{Profile: profile, Process: check.DefaultProcess})
	for _, f := range want.Findings {
		if got, ok := last[f.Code]; ok && (got.State != stateOf[f.Outcome] || got.Because != f.Because || len(got.Evidence) != len(f.Evidence)) {
			t.Errorf("%s is %s in the end and %s when asked at once", f.Code, got.State, f.Outcome)
		}
	}
	if len(order) != len(now.Tests) || slices.Index(order, early) > slices.Index(order, account) || slices.Index(order, settings) > slices.Index(order, late) {
		t.Errorf("they ended in the order %q", order)
	}
}

// accountless is a machine that Fix All Warnings makes an account for.
const accountless = `There is no account WorkSpaces_BYOL.
-- machine --
base = win10-2004-enterprise
-- accounts --
- WorkSpaces_BYOL
`

// TestPasswordIsShownOnce: that of the account that was made is shown to who asks on the page, once, and is in nothing that is written.
func TestPasswordIsShownOnce(t *testing.T) {
	s := newStage(t, accountless)
	if status, say := s.post(t, "/check", testThis); status >= 300 {
		t.Fatal(status, say)
	}
	now := s.until(t, "the end of the tests", func(s state) bool { return s.Phase == phaseChecked })
	const ask = `{"account":"WorkSpaces_BYOL"}`
	if status, say := s.post(t, "/account/password", ask); status != http.StatusGone || now.Secret {
		t.Errorf("before there is one: %d %s, %v", status, say, now.Secret)
	}
	if status, say := s.post(t, "/fix", `{"plan":"`+now.Plan+`"}`); status >= 300 {
		t.Fatal(status, say)
	}
	now = s.until(t, "the tests after the changes", func(s state) bool { return s.Phase == phaseChecked && s.Secret })
	if s.m.times("apply create the account WorkSpaces_BYOL") != 1 {
		t.Fatalf("it did %q", s.m.did)
	}
	const password = "correct-Horse-7"
	told, err := json.Marshal(now)
	if err != nil || strings.Contains(string(told), password) {
		t.Errorf("everybody is told: %s, %v", told, err)
	}
	if status, say := s.post(t, "/account/password", `{"account":"Administrator"}`); status != http.StatusBadRequest {
		t.Errorf("another's: %d %s", status, say)
	}
	if status, say := s.post(t, "/account/password", ask); status != http.StatusOK || say != password {
		t.Errorf("it is shown as %d %q", status, say)
	}
	if status, say := s.post(t, "/account/password", ask); status != http.StatusGone || strings.Contains(say, password) {
		t.Errorf("shown twice: %d %q", status, say)
	}
	if now, _ := s.c.watch(); now.Secret {
		t.Error("it is said to be hidden still")
	}
	nothingWritten(t, s.c.folder, password)
}

// nothingWritten holds that no file in a folder, of which there are some, has a secret in it.
func nothingWritten(t *testing.T, folder, secret string) {
	t.Helper()
	files, err := os.ReadDir(folder)
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(folder, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.ReplaceAll(string(b), "\x00", ""); strings.Contains(text, secret) {
			t.Errorf("%s has it", f.Name())
		}
	}
}

// TestConsolePassword: a console shows the password, once; what may be a file does not get it.
func TestConsolePassword(t *testing.T) {
	sys, _ := phonytest.Open(t, phonytest.Parse(t, accountless))
	profile, _ := check.ProfileByName("")
	for _, seen := range []bool{true, false} {
		sitting := newChecker(&standIn{System: sys}, time.Now, t.TempDir())
		var out, says strings.Builder
		o := &console{c: sitting, in: strings.NewReader("y\ny\n"), out: &out, err: &says, seen: seen}
		if _, err := o.run(t.Context(), &cli{Fix: true, Output: "json"}, check.Options{Profile: profile, Process: check.DefaultProcess}); err != nil {
			t.Fatal(err)
		}
		shown := strings.Count(says.String(), "correct-Horse-7")
		if strings.Contains(out.String(), "correct-Horse") || seen && shown != 1 || !seen && (shown != 0 || !strings.Contains(says.String(), "net user WorkSpaces_BYOL *")) {
			t.Errorf("seen %v: %s\n%s", seen, says.String(), out.String())
		}
		for _, line := range []string{"PASSED   ", "WARNING  "} {
			if !strings.Contains(says.String(), "\n"+line) {
				t.Errorf("no test is %s as it ends: %s", line, says.String())
			}
		}
		nothingWritten(t, sitting.folder, "correct-Horse-7")
	}
}

// TestLeftover: what an earlier run turned off and cannot be put back is not passed over.
func TestLeftover(t *testing.T) {
	m := &standIn{fails: map[string]error{"release": errors.New("access is denied")}}
	if err := newChecker(m, time.Now, t.TempDir()).open(); err == nil || !strings.Contains(err.Error(), "access is denied") {
		t.Errorf("%v", err)
	}
}

// TestConsoleAsks: every change has a question of its own, and no answer is no.
func TestConsoleAsks(t *testing.T) {
	sys, _ := phonytest.Open(t, phonytest.Parse(t, unfit))
	profile, _ := check.ProfileByName("")
	for _, c := range []struct {
		name, answers string
		flags         cli
		code          int
		did           string // what was done, the last of it
		never         string // and what was not
		says          string
	}{
		{"nothing", "", cli{}, exitTrouble, "account", "hold", "Begin the tests? [y/N]"},
		{"tests", "y\n", cli{}, 1, "release", "apply", "Written:"},
		{"tests, no fixes", "yes\nn\n", cli{Fix: true}, 1, "release", "apply", "Change it?"},
		{"tests and fixes", "y\nY\n", cli{Fix: true}, 1, "release", "sysprep", "EnableFirewall to 0"}, // a stand-in changes nothing
		{"no Sysprep for what is not fit", "y\ny\ny\n", cli{Fix: true, Sysprep: true}, 1, "release", "sysprep", "Change it?"},
		{"the account, kept", "n\n", cli{RemoveAccount: true}, exitTrouble, "account", "remove", "Is it made"},
		{"the account", "y\n", cli{RemoveAccount: true}, 0, "remove", "hold", "Removed."},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &standIn{System: sys}
			sitting := newChecker(m, time.Now, t.TempDir())
			if err := sitting.open(); err != nil {
				t.Fatal(err)
			}
			var out, says strings.Builder
			o := &console{c: sitting, in: strings.NewReader(c.answers), out: &out, err: &says}
			code, err := o.run(t.Context(), &c.flags, check.Options{Profile: profile, Process: check.DefaultProcess})
			if err != nil || sitting.close() != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.String(), "copy of the disk") || c.code == 1 && !strings.Contains(out.String(), "NOT FIT") {
				t.Errorf("the report is %s", out.String())
			}
			if code != c.code || m.times(c.did) == 0 || m.times(c.never) != 0 || !strings.Contains(says.String(), c.says) {
				t.Errorf("exit code %d, did %q, says %s", code, m.did, says.String())
			}
		})
	}
}

// TestElsewhere: on anything but Windows it says where it belongs.
func TestElsewhere(t *testing.T) {
	if code := run([]string{"--yes"}); code != exitTrouble {
		t.Errorf("exit code %d", code)
	}
	if code := run([]string{"--process", "BYOL_OTHER"}); code != exitTrouble {
		t.Errorf("a process that does not exist: exit code %d", code)
	}
}
