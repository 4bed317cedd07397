package gateway

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// clock is a clock that goes when it is told to.
type clock struct{ t time.Time }

func newClock() *clock { return &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time         { return c.t }
func (c *clock) passes(d time.Duration) { c.t = c.t.Add(d) }

// started signs somebody in and returns the session, the cookie, and a request that bears it.
func started(t *testing.T, s *Sessions[string], owner string) (*Session[string], *http.Cookie, *http.Request) {
	t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	x := s.Start(w, r, owner, owner+"'s")
	cs := w.Result().Cookies()
	if len(cs) != 1 {
		t.Fatalf("cookies: %v", cs)
	}
	r.AddCookie(cs[0])
	return x, cs[0], r
}

func TestCookie(t *testing.T) {
	s := NewSessions[string](SessionRules{Cookie: "c", Path: "/p"})
	_, c, r := started(t, s, "ann")
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/p" || c.Secure || len(c.Value) != 43 { // 32 bytes in base64
		t.Errorf("cookie: %v", c)
	}
	if x := s.Of(r); x == nil || x.Value != "ann's" {
		t.Errorf("session of the cookie: %v", x)
	}
	for name, change := range map[string]func(*http.Request){
		"TLS":                   func(r *http.Request) { r.TLS = &tls.ConnectionState{} },
		"a proxy that does TLS": func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") },
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		change(r)
		s.Start(w, r, "ann", "")
		if !w.Result().Cookies()[0].Secure {
			t.Errorf("behind %s the cookie is not Secure", name)
		}
	}
	for _, value := range []string{"", "AAAA", c.Value[:42], c.Value + "AAAA", "?", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(&http.Cookie{Name: "c", Value: value})
		if s.Of(r) != nil {
			t.Errorf("the cookie %q has a session", value)
		}
	}
}

func TestSessionEnds(t *testing.T) {
	c := newClock()
	rules := SessionRules{Cookie: "c", Path: "/", Idle: 10 * time.Minute, Life: time.Hour, Now: c.now}
	s := NewSessions[string](rules)

	x, _, r := started(t, s, "idle")
	c.passes(10*time.Minute - 1)
	if s.Of(r) != x {
		t.Error("the session ended before its idle time was over")
	}
	c.passes(1) // asking above was no use
	if s.Of(r) != nil || !closed(x.Done()) {
		t.Error("the session outlived its idle time")
	}
	x, _, r = started(t, s, "late")
	c.passes(10 * time.Minute)
	if x.Used(); s.Of(r) != nil || !closed(x.Done()) {
		t.Error("using an expired session brought it back")
	}

	x, _, r = started(t, s, "busy")
	for range 11 {
		c.passes(5 * time.Minute)
		x.Used()
	}
	if s.Of(r) != x {
		t.Error("a session that is used ended")
	}
	c.passes(5 * time.Minute)
	x.Used()
	if s.Of(r) != nil {
		t.Error("a session that is used outlived its life")
	}

	x, _, r = started(t, s, "leaver")
	w := httptest.NewRecorder()
	s.SignOut(w, r)
	if got := w.Result().Cookies(); len(got) != 1 || got[0].MaxAge >= 0 || got[0].Value != "" {
		t.Errorf("signing out sets %v", got)
	}
	if s.Of(r) != nil || !closed(x.Done()) {
		t.Error("the session outlived signing out")
	}
	s.SignOut(httptest.NewRecorder(), r) // twice is no harm

	x, _, r = started(t, s, "again")
	y := s.Start(httptest.NewRecorder(), r, "again", "")
	if s.Of(r) != nil || !closed(x.Done()) || y.key == x.key {
		t.Error("signing in again keeps the session that was there")
	}
	if len(s.all) != 1 {
		t.Errorf("%d sessions are kept, want the last one", len(s.all))
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestSessionsAreBounded(t *testing.T) {
	c := newClock()
	s := NewSessions[string](SessionRules{Cookie: "c", Path: "/", Most: 5, MostOfOne: 3, Now: c.now})
	var anns []*Session[string]
	for range 4 {
		x, _, _ := started(t, s, "ann")
		anns = append(anns, x)
		c.passes(time.Second)
	}
	if anns[0].Alive() || !anns[1].Alive() {
		t.Error("a fourth session of one owner did not end the first alone")
	}
	anns[1].Used()
	for i := range 3 {
		started(t, s, fmt.Sprint("other ", i))
		c.passes(time.Second)
	}
	if len(s.all) != 5 || anns[2].Alive() || !anns[1].Alive() {
		t.Errorf("%d sessions; the one used longest ago lives: %t", len(s.all), anns[2].Alive())
	}
}
