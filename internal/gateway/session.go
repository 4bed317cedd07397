package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"sync"
	"time"
)

// SessionRules say how a kind of session is kept and when it ends.
type SessionRules struct {
	// Cookie is the cookie's name, Path the pages that it is sent to.
	Cookie, Path string
	// Idle ends a session that is not used, Life ends every session. Default: 1 hour and 12 hours.
	Idle, Life time.Duration
	// Most sessions are kept at once, and MostOfOne of one owner; one more ends the one that was used longest ago, of that
	// owner's or of all. Default: 10,000 and 20.
	Most, MostOfOne int
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Sessions are the browsers that have signed in, by cookie. They are kept in memory: when the service ends, everybody has to
// sign in again. T is what a session knows about who signed in. Safe for concurrent use.
type Sessions[T any] struct {
	rules SessionRules
	mu    sync.Mutex
	all   map[[sha256.Size]byte]*Session[T] // by the hash of the id, so that the ids are nowhere but in the browsers
}

// Session is one browser that has signed in.
type Session[T any] struct {
	Value T

	of            *Sessions[T]
	key           [sha256.Size]byte
	owner         string
	started, used time.Time // under of.mu
	done          chan struct{}
}

// NewSessions keeps sessions by the rules.
func NewSessions[T any](rules SessionRules) *Sessions[T] {
	if rules.Idle == 0 {
		rules.Idle = time.Hour
	}
	if rules.Life == 0 {
		rules.Life = 12 * time.Hour
	}
	if rules.Most == 0 {
		rules.Most = 10_000
	}
	if rules.MostOfOne == 0 {
		rules.MostOfOne = 20
	}
	if rules.Now == nil {
		rules.Now = time.Now
	}
	return &Sessions[T]{rules: rules, all: map[[sha256.Size]byte]*Session[T]{}}
}

// idBytes makes ids of 256 random bits: nobody guesses one.
const idBytes = 32

// Start signs the browser in with a new id. A session that the browser had before ends.
func (s *Sessions[T]) Start(w http.ResponseWriter, r *http.Request, owner string, value T) *Session[T] {
	if old := s.Of(r); old != nil {
		old.End()
	}
	id := make([]byte, idBytes)
	rand.Read(id) // never fails (crypto/rand)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom(owner)
	now := s.rules.Now()
	x := &Session[T]{Value: value, of: s, key: sha256.Sum256(id), owner: owner, started: now, used: now, done: make(chan struct{})}
	s.all[x.key] = x
	s.setCookie(w, r, base64.RawURLEncoding.EncodeToString(id), 0)
	return x
}

// makeRoom forgets what has expired and ends sessions beyond the rules' numbers. s.mu is held.
func (s *Sessions[T]) makeRoom(owner string) {
	var oldest, oldestOfOwner *Session[T]
	ofOwner := 0
	for _, x := range s.all {
		if s.expired(x) {
			s.end(x)
			continue
		}
		if oldest == nil || x.used.Before(oldest.used) {
			oldest = x
		}
		if x.owner == owner {
			ofOwner++
			if oldestOfOwner == nil || x.used.Before(oldestOfOwner.used) {
				oldestOfOwner = x
			}
		}
	}
	switch {
	case ofOwner >= s.rules.MostOfOne:
		s.end(oldestOfOwner)
	case len(s.all) >= s.rules.Most:
		s.end(oldest)
	}
}

func (s *Sessions[T]) expired(x *Session[T]) bool {
	now := s.rules.Now()
	return now.Sub(x.used) >= s.rules.Idle || now.Sub(x.started) >= s.rules.Life
}

// end forgets a session. s.mu is held.
func (s *Sessions[T]) end(x *Session[T]) {
	if s.all[x.key] == x {
		delete(s.all, x.key)
		close(x.done)
	}
}

// Of is the session that a request belongs to, nil when there is none (any more). Asking does not count as use.
func (s *Sessions[T]) Of(r *http.Request) *Session[T] {
	c, err := r.Cookie(s.rules.Cookie)
	if err != nil {
		return nil
	}
	id, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || len(id) != idBytes {
		return nil
	}
	s.mu.Lock()
	x := s.all[sha256.Sum256(id)]
	s.mu.Unlock()
	if x == nil || !x.Alive() {
		return nil
	}
	return x
}

// SignOut ends the request's session, if it has one, and takes the cookie back.
func (s *Sessions[T]) SignOut(w http.ResponseWriter, r *http.Request) {
	if x := s.Of(r); x != nil {
		x.End()
	}
	s.setCookie(w, r, "", -1)
}

func (s *Sessions[T]) setCookie(w http.ResponseWriter, r *http.Request, value string, age int) {
	// Behind a proxy that does TLS the cookie must not travel without. A client who lies here gets a cookie that its own
	// browser keeps back.
	secure := r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
	http.SetCookie(w, &http.Cookie{Name: s.rules.Cookie, Value: value, Path: s.rules.Path, MaxAge: age, HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode})
}

// Alive tells whether the session still holds; one that has expired is ended.
func (x *Session[T]) Alive() bool {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	if x.of.expired(x) {
		x.of.end(x)
	}
	return x.of.all[x.key] == x
}

// Used says that the person is there: the idle time begins anew. A session that has expired does not come back.
func (x *Session[T]) Used() {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	if x.of.expired(x) {
		x.of.end(x)
		return
	}
	x.used = x.of.rules.Now()
}

// End ends the session, and what goes on in it.
func (x *Session[T]) End() {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	x.of.end(x)
}

// Done is closed when the session has been ended. Expiry alone does not close it: somebody has to ask Alive.
func (x *Session[T]) Done() <-chan struct{} { return x.done }
