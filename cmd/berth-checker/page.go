package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"berth/internal/check"
	"berth/internal/check/report"
	"berth/internal/windows/live"
)

//go:embed page
var pageFiles embed.FS

var pageTemplate = template.Must(template.ParseFS(pageFiles, "page/index.gohtml"))

// page serves the dialog to one browser on this computer.
//
// Whoever knows the address with its random token may use it; other users of this computer do not, and pages of the web cannot: the cookie that
// the token is traded for never leaves with a request that another site causes (SameSite), changes must come from the page
// itself (Origin, Sec-Fetch-Site), and a request that names any other host is refused, so that no name can be made to point here.
type page struct {
	c     *checker
	asked check.Options // what is chosen at first
	host  string        // "127.0.0.1:port"
	token string
	end   func() // asks the program to end
	// work runs what takes its time: it outlives the request that asked for it, and ends with the program.
	work func(func(context.Context))
}

const cookieName = "berth-checker"

// newPage makes the page for a listener on the loopback.
func newPage(c *checker, opt check.Options, at net.Addr, end func(), work func(func(context.Context))) *page {
	return &page{c: c, asked: opt, host: at.String(), token: rand.Text(), end: end, work: work}
}

// URL is what the browser is sent to.
func (p *page) URL() string { return "http://" + p.host + "/enter/" + p.token }

// handler is the page behind its guards.
func (p *page) handler() http.Handler {
	inside := http.NewServeMux()
	inside.HandleFunc("GET /{$}", p.index)
	inside.Handle("GET /page/", http.FileServerFS(pageFiles))
	inside.HandleFunc("GET /events", p.events)
	inside.HandleFunc("POST /check", p.check)
	inside.HandleFunc("POST /fix", p.fix)
	inside.HandleFunc("POST /sysprep", p.sysprep)
	inside.HandleFunc("POST /account/password", p.password)
	inside.HandleFunc("POST /account/remove", p.removeAccount)
	inside.HandleFunc("POST /close", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		p.end()
	})
	outside := http.NewServeMux()
	outside.HandleFunc("GET /enter/{token}", p.enter)
	outside.Handle("/", p.known(inside))
	guarded := http.NewCrossOriginProtection().Handler(outside)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if r.Host != p.host {
			http.Error(w, "This page is at http://"+p.host+" and nowhere else.", http.StatusMisdirectedRequest)
			return
		}
		guarded.ServeHTTP(w, r)
	})
}

// same compares secrets.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// enter trades the token for the cookie.
func (p *page) enter(w http.ResponseWriter, r *http.Request) {
	if !same(r.PathValue("token"), p.token) {
		http.Error(w, "Open the address that the checker's window shows.", http.StatusForbidden)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: p.token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// known lets through who has the cookie.
func (p *page) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A cookie belongs to a host, not to a port: there may be others of this name.
		for _, c := range r.CookiesNamed(cookieName) {
			if same(c.Value, p.token) {
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, "Open the address that the checker's window shows.", http.StatusForbidden)
	})
}

// profiles are Amazon's, and the user's own if there is one.
func (p *page) profiles() []check.Profile {
	list := check.Profiles()
	if !slices.ContainsFunc(list, func(q check.Profile) bool { return q.Name == p.asked.Profile.Name }) {
		list = append(list, p.asked.Profile)
	}
	return list
}

func (p *page) index(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = pageTemplate.Execute(w, map[string]any{ // fails only where the browser is gone
		"Profiles": p.profiles(), "Processes": check.Processes(), "Asked": p.asked, "Version": p.c.version, "Account": byolAccount, "Sources": report.Sources,
	})
}

// events sends the state, now and whenever it changes (text/event-stream).
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	for {
		s, changed := p.c.watch()
		if _, err := fmt.Fprint(w, "data: "); err != nil {
			return
		}
		if err := report.WriteJSON(w, s, ""); err != nil { // ends in a line end
			return
		}
		if _, err := fmt.Fprint(w, "\n"); err != nil || out.Flush() != nil {
			return
		}
		if s.Phase == phaseCancelled {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

// maxBody bounds what the page sends, in bytes.
const maxBody = 4 << 10

// body reads what the page sends.
func body(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		http.Error(w, "The request is not what this page sends: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// start runs what was asked for, and answers at once when it was refused, or when it is under way.
func (p *page) start(w http.ResponseWriter, do func(context.Context) error) {
	done := make(chan error, 1)
	p.work(func(ctx context.Context) { done <- do(ctx) })
	select {
	case err := <-done:
		refuse(w, err)
	case <-time.After(200 * time.Millisecond): // what happens is in the events
		w.WriteHeader(http.StatusAccepted)
	}
}

func refuse(w http.ResponseWriter, err error) {
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, errBusy), errors.Is(err, errChanged), errors.Is(err, errNotFit):
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		http.Error(w, check.Printable(err.Error()), http.StatusInternalServerError)
	}
}

func (p *page) check(w http.ResponseWriter, r *http.Request) {
	var ask asked
	if !body(w, r, &ask) {
		return
	}
	list := p.profiles()
	i := slices.IndexFunc(list, func(q check.Profile) bool { return q.Name == ask.Profile })
	if i < 0 || !ask.Process.Known() {
		http.Error(w, "There is no such profile or process.", http.StatusBadRequest)
		return
	}
	p.start(w, func(ctx context.Context) error {
		return p.c.check(ctx, check.Options{Profile: list[i], Process: ask.Process, Office: ask.Office})
	})
}

func (p *page) fix(w http.ResponseWriter, r *http.Request) {
	var ask struct{ Plan string }
	if body(w, r, &ask) {
		p.start(w, func(ctx context.Context) error { return p.c.fix(ctx, ask.Plan) })
	}
}

func (p *page) sysprep(w http.ResponseWriter, r *http.Request) {
	var ask struct{ Snapshot bool }
	if !body(w, r, &ask) {
		return
	}
	if !ask.Snapshot {
		http.Error(w, "Take a snapshot first.", http.StatusConflict)
		return
	}
	p.start(w, func(ctx context.Context) error {
		err := p.c.sysprep(ctx)
		var failed *live.SysprepError
		if errors.As(err, &failed) { // is in the events, with the log
			return nil
		}
		return err
	})
}

func (p *page) removeAccount(w http.ResponseWriter, r *http.Request) {
	var ask struct{ Account string }
	if !body(w, r, &ask) {
		return
	}
	if ask.Account != byolAccount {
		http.Error(w, "Only the account "+byolAccount+" is removed here.", http.StatusBadRequest)
		return
	}
	p.start(w, func(context.Context) error { return p.c.removeAccount() })
}

// password shows the password of the account that was made, once.
func (p *page) password(w http.ResponseWriter, r *http.Request) {
	var ask struct{ Account string }
	if !body(w, r, &ask) {
		return
	}
	if ask.Account != byolAccount {
		http.Error(w, "Only the account "+byolAccount+" is made here.", http.StatusBadRequest)
		return
	}
	password := p.c.reveal()
	if password == "" {
		http.Error(w, "No password is left to be shown.", http.StatusGone)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, password.Reveal()) // fails only where the browser is gone
}
