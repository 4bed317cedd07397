// Package gateway lets a browser see and use the screen of a WorkSpace: its user signs in, and a websocket carries the
// machine's RFB stream (RFC 6143) both ways.
//
// [Sessions], [Brake] and [Guard] are what any page with a sign-in needs; the console uses them too. The gateway does not know
// machines or records: it asks a [Service]. What runs in the browser is in web/. Start reading at [New].
package gateway

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"math"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

// Service is what the gateway asks of the service behind it.
type Service interface {
	// SignIn checks a user of the directory that the registration code belongs to. ErrSignIn, whatever of the three is wrong.
	SignIn(ctx context.Context, registrationCode, userName, password string) (User, error)
	// Desktops lists a user's WorkSpaces. ErrSignIn when the user may not sign in any more.
	Desktops(ctx context.Context, u User) ([]Desktop, error)
	// Connect dials the screen of a user's WorkSpace, an RFB stream. ErrNoDesktop when the user has no such WorkSpace,
	// ErrNotRunning when it has no screen now.
	Connect(ctx context.Context, u User, workspaceID string) (net.Conn, error)
}

// User is a user of a directory who has signed in.
type User struct {
	DirectoryID, Name, DisplayName string
}

// Desktop is a WorkSpace as its user sees it. State is one of Amazon's.
type Desktop struct {
	WorkspaceID, ComputerName, State string
}

var (
	ErrSignIn     = errors.New("gateway: registration code, user name or password is wrong")
	ErrNoDesktop  = errors.New("gateway: no such WorkSpace of this user's")
	ErrNotRunning = errors.New("gateway: the WorkSpace is not running")
)

// Config is what a gateway is made of. Only Service is required.
type Config struct {
	Service Service
	// Assets is the path, with a slash at its end, that the pages find their scripts and styles at; "" when they have not
	// been built: the pages then say so.
	Assets string
	// Idle and Life bound a session (SessionRules).
	Idle, Life time.Duration
	// Watch is how often an open connection is looked after; default 10 seconds.
	Watch time.Duration
	Log   *slog.Logger
	// Now is the clock of sessions and of the brake; default time.Now.
	Now func() time.Time
}

// signedIn is what a session knows.
type signedIn struct {
	user    User
	viewers *semaphore.Weighted
}

type session = Session[signedIn]

const (
	// mostViewers is how many screens one session shows at once.
	mostViewers = 8
	// mostSigningIn is how many passwords are looked at or wait for it at once: looking takes memory and time.
	mostSigningIn = 16
	// largestForm is the largest form, in bytes, that is read.
	largestForm = 8 << 10
)

type gateway struct {
	Config
	sessions  *Sessions[signedIn]
	brake     *Brake
	signingIn *semaphore.Weighted
}

//go:embed pages/*.html
var pageFiles embed.FS

var pages = template.Must(template.ParseFS(pageFiles, "pages/*.html"))

// New is the handler of /desktop and what is below it.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Watch == 0 {
		c.Watch = 10 * time.Second
	}
	g := &gateway{Config: c, brake: NewBrake(c.Now), signingIn: semaphore.NewWeighted(mostSigningIn),
		sessions: NewSessions[signedIn](SessionRules{Cookie: "berth-desktop", Path: "/desktop", Idle: c.Idle, Life: c.Life, Now: c.Now})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /desktop", g.page)
	mux.HandleFunc("POST /desktop/session", g.signIn)
	mux.HandleFunc("POST /desktop/sign-out", g.signOut)
	mux.HandleFunc("GET /desktop/workspaces", g.workspaces)
	mux.HandleFunc("GET /desktop/connect", g.connect)
	return Guard(mux)
}

// view is what the pages are made from.
type view struct {
	Assets         string
	Code, UserName string // as given, to be corrected
	Message        string
	User           User
}

func (g *gateway) page(w http.ResponseWriter, r *http.Request) {
	x := g.sessions.Of(r)
	if x == nil {
		g.show(w, http.StatusOK, "signin.html", view{})
		return
	}
	x.Used()
	g.show(w, http.StatusOK, "desktop.html", view{User: x.Value.user})
}

func (g *gateway) show(w http.ResponseWriter, status int, page string, v view) {
	v.Assets = g.Assets
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, page, v); err != nil {
		g.Log.Debug("a page was not sent whole", "page", page, "err", err)
	}
}

// failed answers a failure of ours: logged here, not shown.
func (g *gateway) failed(w http.ResponseWriter, r *http.Request, doing string, err error) {
	if r.Context().Err() != nil {
		return // the browser went away
	}
	g.Log.Error(doing, "err", err)
	http.Error(w, "The service failed. Try again in a moment; its log says more.", http.StatusInternalServerError)
}

func (g *gateway) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, largestForm)
	if err := r.ParseForm(); err != nil {
		g.show(w, http.StatusBadRequest, "signin.html", view{Message: "The form could not be read."})
		return
	}
	v := view{Code: r.PostForm.Get("code"), UserName: r.PostForm.Get("user")}
	if !g.signingIn.TryAcquire(1) {
		v.Message = "Too many people are signing in just now. Try again in a moment."
		g.show(w, http.StatusServiceUnavailable, "signin.html", v)
		return
	}
	defer g.signingIn.Release(1)
	wait, worked := g.brake.Try(r, v.Code+"\x00"+v.UserName)
	if wait > 0 {
		v.Message = TooMany(w, wait)
		g.show(w, http.StatusTooManyRequests, "signin.html", v)
		return
	}
	u, err := g.Service.SignIn(r.Context(), v.Code, v.UserName, r.PostForm.Get("password"))
	switch {
	case errors.Is(err, ErrSignIn):
		g.Log.Info("a sign-in to a desktop was refused", "remote", remote(r))
		v.Message = "The registration code, the user name or the password is wrong."
		g.show(w, http.StatusUnauthorized, "signin.html", v)
	case err != nil:
		g.failed(w, r, "signing a user in", err)
	default:
		worked()
		g.sessions.Start(w, r, u.DirectoryID+"/"+u.Name, signedIn{u, semaphore.NewWeighted(mostViewers)})
		http.Redirect(w, r, "/desktop", http.StatusSeeOther)
	}
}

// TooMany sets the header that tells how long to wait, and says it for people.
func TooMany(w http.ResponseWriter, wait time.Duration) string {
	seconds := int(math.Ceil(wait.Seconds()))
	w.Header().Set("Retry-After", fmt.Sprint(seconds))
	return "Too many attempts have failed. Try again in " + (time.Duration(seconds) * time.Second).String() + "."
}

func (g *gateway) signOut(w http.ResponseWriter, r *http.Request) {
	g.sessions.SignOut(w, r)
	http.Redirect(w, r, "/desktop", http.StatusSeeOther)
}

// shown is a WorkSpace for the page's script (web/src/desktop.ts).
type shown struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Screen bool   `json:"screen"` // there may be a screen to connect to
	Advice string `json:"advice"` // what to do when there is not
}

// workspaces is asked by the page again and again; that does not keep the session from being idle.
func (g *gateway) workspaces(w http.ResponseWriter, r *http.Request) {
	x := g.sessions.Of(r)
	if x == nil {
		http.Error(w, "Sign in first.", http.StatusUnauthorized)
		return
	}
	ds, err := g.Service.Desktops(r.Context(), x.Value.user)
	if errors.Is(err, ErrSignIn) {
		x.End()
		http.Error(w, "Sign in first.", http.StatusUnauthorized)
		return
	}
	if err != nil {
		g.failed(w, r, "listing a user's WorkSpaces", err)
		return
	}
	list := []shown{}
	for _, d := range ds {
		s := shown{ID: d.WorkspaceID, Name: d.ComputerName, State: d.State}
		s.Screen, s.Advice = advice(d.State)
		list = append(list, s)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(list) // the browser may be gone: nobody to tell
}

// advice tells whether a WorkSpace in a state may have a screen, and what its user is told until one is seen. The states are
// those of WorkspaceState in Amazon's service model; one that is not known gets neither screen nor promise.
func advice(state string) (screen bool, text string) {
	switch state {
	case "AVAILABLE", "UPDATING", "MAINTENANCE", "ADMIN_MAINTENANCE":
		return true, "Connecting to its screen …"
	case "PENDING":
		return false, "It is being made. Its screen is shown here as soon as it runs."
	case "STARTING", "REBOOTING", "REBUILDING", "RESTORING":
		return true, "It is starting. Its screen is shown here as soon as it runs."
	case "UNHEALTHY", "IMPAIRED":
		return true, "It does not answer. The service tries to start it again; if that does not help, ask your administrator to reboot it."
	case "STOPPING":
		return false, "It is being turned off."
	case "STOPPED", "SUSPENDED":
		return false, "It is turned off. Ask your administrator to start it; its screen is shown here as soon as it runs."
	case "TERMINATING", "TERMINATED":
		return false, "It is being removed with all that is on it. Ask your administrator for another."
	case "ERROR":
		return false, "It could not be made. Ask your administrator: the WorkSpace's error message says why."
	}
	return false, "Ask your administrator what this means."
}
