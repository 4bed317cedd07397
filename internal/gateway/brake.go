package gateway

import (
	"crypto/sha256"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// freeTries may fail without delay: people mistype.
	freeTries = 4
	// longestDelay bounds the delay, which begins at a second and doubles with every failure.
	longestDelay = 15 * time.Minute
	// forgetAfter is how long a failure is held against somebody.
	forgetAfter = time.Hour
	// mostBraked bounds the memory: about 100 bytes each.
	mostBraked = 8192
)

// Brake slows down those who guess: after some failures in a row the next try has to wait, longer each time. It goes by
// name and address together, so that nobody can lock somebody else out from elsewhere. Safe for concurrent use.
type Brake struct {
	now   func() time.Time
	mu    sync.Mutex
	tries map[[sha256.Size]byte]*tries
}

type tries struct {
	failed      int
	last, until time.Time
}

// NewBrake is a brake by a clock.
func NewBrake(now func() time.Time) *Brake {
	return &Brake{now: now, tries: map[[sha256.Size]byte]*tries{}}
}

// Try begins an attempt of somebody from a request's address. A wait of more than zero refuses it. Else the attempt counts as
// failed, also for attempts at the same time, until worked is called.
func (b *Brake) Try(r *http.Request, who string) (wait time.Duration, worked func()) {
	key := sha256.Sum256([]byte(remote(r) + "\x00" + strings.ToLower(who)))
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	t := b.tries[key]
	switch {
	case t == nil:
		b.makeRoom(now)
		t = &tries{}
		b.tries[key] = t
	case now.Sub(t.last) >= forgetAfter:
		*t = tries{}
	case now.Before(t.until):
		return t.until.Sub(now), nil
	}
	t.failed++
	t.last, t.until = now, now.Add(delay(t.failed))
	return 0, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.tries, key)
	}
}

// delay is how long to wait after a number of failures.
func delay(failed int) time.Duration {
	over := failed - freeTries
	if over <= 0 {
		return 0
	}
	return min(longestDelay, time.Second<<min(over-1, 20))
}

// makeRoom keeps the table within its bound. Who has failed least is forgotten first: to be forgotten, one who guesses would
// have to be outnumbered by others who fail more. b.mu is held.
func (b *Brake) makeRoom(now time.Time) {
	if len(b.tries) < mostBraked {
		return
	}
	var least [sha256.Size]byte
	var of *tries
	for k, t := range b.tries {
		if now.Sub(t.last) >= forgetAfter {
			delete(b.tries, k)
			continue
		}
		if of == nil || t.failed < of.failed || t.failed == of.failed && t.last.Before(of.last) {
			least, of = k, t
		}
	}
	if len(b.tries) >= mostBraked {
		delete(b.tries, least)
	}
}

// remote is who a request comes from: the address, of IPv6 the /64 that one customer has.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
