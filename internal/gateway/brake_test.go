package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func from(addr string) *http.Request {
	r := httptest.NewRequest("POST", "/", nil)
	r.RemoteAddr = addr
	return r
}

func TestBrakeGrows(t *testing.T) {
	c := newClock()
	b := NewBrake(c.now)
	r := from("192.0.2.1:1000")
	// After the fourth failure a second, then twice as long each time.
	for i, wait := range []time.Duration{0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900} {
		if got, _ := b.Try(r, "Ann"); got != 0 {
			t.Fatalf("try %d has to wait %s", i+1, got)
		}
		if got, _ := b.Try(r, "ann"); wait > 0 && got != wait*time.Second {
			t.Errorf("after failure %d: wait %s, want %s", i+1, got, wait*time.Second)
		} else if wait == 0 {
			delete(b.tries, only(b)) // that was a try as well: begin anew with the right number
			b.tries[keyOf(r, "ann")] = &tries{failed: i + 1, last: c.t}
		}
		c.passes(wait * time.Second)
	}
	if got, _ := b.Try(from("192.0.2.2:1000"), "ann"); got != 0 {
		t.Error("the same name is braked from another address")
	}
	if got, _ := b.Try(r, "bob"); got != 0 {
		t.Error("another name is braked from the same address")
	}
	c.passes(forgetAfter)
	for range freeTries + 1 {
		if got, _ := b.Try(r, "ann"); got != 0 {
			t.Error("failures are held against somebody for ever")
		}
	}
	if got, _ := b.Try(r, "ann"); got != time.Second {
		t.Errorf("after an hour and five failures: wait %s", got)
	}
}

func keyOf(r *http.Request, who string) (key [32]byte) {
	b := NewBrake(time.Now)
	b.Try(r, who)
	return only(b)
}

func only(b *Brake) (key [32]byte) {
	for k := range b.tries {
		key = k
	}
	return key
}

func TestBrakeForgivesWhoGetsIn(t *testing.T) {
	c := newClock()
	b := NewBrake(c.now)
	r := from("192.0.2.1:1000")
	for range 20 {
		wait, worked := b.Try(r, "ann")
		if wait != 0 {
			t.Fatalf("wait %s although the one before got in", wait)
		}
		worked()
	}
	if len(b.tries) != 0 {
		t.Error("who got in is remembered")
	}
}

func TestBrakeCountsTriesAtTheSameTime(t *testing.T) {
	b := NewBrake(newClock().now)
	var let atomic.Int32
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if wait, _ := b.Try(from("192.0.2.1:1000"), "ann"); wait == 0 {
				let.Add(1)
			}
		})
	}
	all.Wait()
	if let.Load() != freeTries+1 {
		t.Errorf("%d of 100 tries at the same time were let, want %d", let.Load(), freeTries+1)
	}
}

func TestBrakeIsBounded(t *testing.T) {
	c := newClock()
	b := NewBrake(c.now)
	guesser := from("192.0.2.1:1000")
	for range freeTries + 1 {
		b.Try(guesser, "ann")
	}
	for i := range mostBraked + 100 {
		b.Try(guesser, fmt.Sprint("somebody ", i))
	}
	if len(b.tries) > mostBraked {
		t.Errorf("%d are remembered", len(b.tries))
	}
	if wait, _ := b.Try(guesser, "ann"); wait == 0 {
		t.Error("the guesser was forgotten for the sake of those with one failure")
	}
}

func TestRemote(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:1000":          "192.0.2.1",
		"[::ffff:192.0.2.1]:1000": "192.0.2.1",
		"[2001:db8:1:2:3::4]:80":  "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":       "fe80::/64",
		"@":                       "@",
	} {
		if got := remote(from(addr)); got != want {
			t.Errorf("remote(%s) = %s, want %s", addr, got, want)
		}
	}
}
