// Package console is the administrator's page: the eight steps from an exported Windows VM to running desktops, how far each
// is, and what there is of it. It also holds the browser's bundle (web/), which the desktops' page uses too.
//
// The console only shows; everything is done through the API. What it shows it asks a [Service] for, which decides who may see
// it. Start reading at [New].
package console

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"berth/internal/gateway"
)

// State is how far a step is.
type State string

const (
	Done       State = "done"
	InProgress State = "in progress"
	ToDo       State = "to do"
	Attention  State = "attention" // it failed, or something in it did
)

// Class is the state as the style sheet has it.
func (s State) Class() string { return strings.ReplaceAll(string(s), " ", "-") }

// Step is one of the eight steps of Amazon's "Bring Your Own Windows Desktop Licenses".
type Step struct {
	Number  int
	Title   string
	State   State
	Summary string // one sentence: what there is, or what to do
	Items   []Item // newest first
}

// Item is something that a step has made or is making.
type Item struct {
	ID     string
	Name   string
	State  string // in the words of its own API
	Detail string
	// Report: Service.Report tells more about it.
	Report bool
}

// Service is what the console asks of the service behind it. A session belongs to an access key: whoever signs in has one, or
// a link that was made with one.
type Service interface {
	// SignInWithKey checks an access key's secret, and that its policy allows to look at WorkSpaces. ErrSignIn.
	SignInWithKey(ctx context.Context, accessKeyID, secret string) error
	// RedeemConsoleToken uses up the token of a link, and is the id of the access key that it was made with. ErrSignIn.
	RedeemConsoleToken(ctx context.Context, token string) (accessKeyID string, err error)
	// AdmitKey looks whether an access key is still there and allowed to look at WorkSpaces. ErrSignIn.
	AdmitKey(ctx context.Context, accessKeyID string) error
	// Steps are the eight steps, in order.
	Steps(ctx context.Context) ([]Step, error)
	// Report is a page about an item, HTML that runs nothing and fetches nothing. fs.ErrNotExist (wrapped) when there is none.
	Report(ctx context.Context, id string) ([]byte, error)
}

// ErrSignIn is the Service's answer to an access key or a token that does not let in.
var ErrSignIn = errors.New("console: the access key or the link is not valid, or its policy does not allow workspaces:DescribeWorkspaces")

// Config is what a console is made of. Only Service is required.
type Config struct {
	Service Service
	// Assets is AssetPath, "" when the pages shall say that the bundle has not been built; see BuiltAssets.
	Assets string
	// Idle and Life bound a session (gateway.SessionRules). An open page asks for the steps again and again; as long as it
	// does the session is in use.
	Idle, Life time.Duration
	Log        *slog.Logger
	// Now is the clock of sessions and of the brake; default time.Now.
	Now func() time.Time
}

// signedIn is what a session knows.
type signedIn struct{ accessKeyID string }

type console struct {
	Config
	sessions *gateway.Sessions[signedIn]
	brake    *gateway.Brake
}

//go:embed pages/*.html
var pageFiles embed.FS

var pages = template.Must(template.ParseFS(pageFiles, "pages/*.html"))

// New is the handler of / and of /console/. The paths below AssetPath are Assets'.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	h := &console{Config: c, brake: gateway.NewBrake(c.Now),
		sessions: gateway.NewSessions[signedIn](gateway.SessionRules{Cookie: "berth-console", Path: "/", Idle: c.Idle, Life: c.Life, Now: c.Now})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.page)
	mux.HandleFunc("GET /console/steps", h.steps)
	mux.HandleFunc("GET /console/reports/{id}", h.report)
	mux.HandleFunc("POST /console/session", h.signIn)
	mux.HandleFunc("POST /console/sign-out", h.signOut)
	return gateway.Guard(mux)
}

// view is what the pages are made from.
type view struct {
	Assets      string
	AccessKeyID string
	Message     string
	Steps       []Step
}

// page shows the steps, or asks to sign in. A link's token signs in, once. The page itself is the answer then, and not a
// redirection, because browsers do not send a new SameSite=Strict cookie along with a redirection that another page led to.
func (c *console) page(w http.ResponseWriter, r *http.Request) {
	id, err := c.who(r)
	token := r.URL.Query().Get("token")
	if errors.Is(err, ErrSignIn) && token != "" && r.Method == http.MethodGet && !strings.HasPrefix(r.Header.Get("Sec-Purpose"), "prefetch") {
		id, err = c.Service.RedeemConsoleToken(r.Context(), token)
		if errors.Is(err, ErrSignIn) {
			c.show(w, http.StatusUnauthorized, "signin.html", view{Message: "This link has been used or has expired. Sign in with an access key."})
			return
		}
		if err == nil {
			c.sessions.Start(w, r, id, signedIn{id})
		}
	}
	switch {
	case errors.Is(err, ErrSignIn):
		c.show(w, http.StatusOK, "signin.html", view{})
		return
	case err != nil:
		c.failed(w, r, "signing in to the console", err)
		return
	}
	steps, err := c.Service.Steps(r.Context())
	if err != nil {
		c.failed(w, r, "looking at the steps", err)
		return
	}
	c.show(w, http.StatusOK, "steps.html", view{AccessKeyID: id, Steps: steps})
}

// who is the access key of the request's session, ErrSignIn when there is no session or the key does not let in any more.
func (c *console) who(r *http.Request) (accessKeyID string, err error) {
	x := c.sessions.Of(r)
	if x == nil {
		return "", ErrSignIn
	}
	id := x.Value.accessKeyID
	if err := c.Service.AdmitKey(r.Context(), id); err != nil {
		if errors.Is(err, ErrSignIn) {
			x.End()
		}
		return "", err
	}
	x.Used()
	return id, nil
}

// steps is the page's list alone, for its script.
func (c *console) steps(w http.ResponseWriter, r *http.Request) {
	_, err := c.who(r)
	if errors.Is(err, ErrSignIn) {
		http.Error(w, "Sign in first.", http.StatusUnauthorized)
		return
	}
	var steps []Step
	if err == nil {
		steps, err = c.Service.Steps(r.Context())
	}
	if err != nil {
		c.failed(w, r, "looking at the steps", err)
		return
	}
	c.show(w, http.StatusOK, "list", view{Steps: steps})
}

// reportPolicy lets a report's page have its style in it, and nothing else.
const reportPolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// report is the page about an item.
func (c *console) report(w http.ResponseWriter, r *http.Request) {
	_, err := c.who(r)
	if errors.Is(err, ErrSignIn) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	var page []byte
	if err == nil {
		page, err = c.Service.Report(r.Context(), r.PathValue("id"))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "There is no such report.", http.StatusNotFound)
		return
	case err != nil:
		c.failed(w, r, "making a report", err)
		return
	}
	w.Header().Set("Content-Security-Policy", reportPolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if _, err := w.Write(page); err != nil {
		c.Log.Debug("a report was not sent whole", "err", err)
	}
}

func (c *console) show(w http.ResponseWriter, status int, page string, v view) {
	v.Assets = c.Assets
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, page, v); err != nil {
		c.Log.Error("making a page", "page", page, "err", err)
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if _, err := b.WriteTo(w); err != nil {
		c.Log.Debug("a page was not sent whole", "page", page, "err", err)
	}
}

// failed answers a failure of ours: logged here, not shown.
func (c *console) failed(w http.ResponseWriter, r *http.Request, doing string, err error) {
	if r.Context().Err() != nil {
		return // the browser went away
	}
	c.Log.Error(doing, "err", err)
	http.Error(w, "The service failed. Try again in a moment; its log says more.", http.StatusInternalServerError)
}

// largestForm is the largest form, in bytes, that is read.
const largestForm = 8 << 10

func (c *console) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, largestForm)
	if err := r.ParseForm(); err != nil {
		c.show(w, http.StatusBadRequest, "signin.html", view{Message: "The form could not be read."})
		return
	}
	v := view{AccessKeyID: strings.TrimSpace(r.PostForm.Get("key"))}
	wait, worked := c.brake.Try(r, v.AccessKeyID)
	if wait > 0 {
		v.Message = gateway.TooMany(w, wait)
		c.show(w, http.StatusTooManyRequests, "signin.html", v)
		return
	}
	err := c.Service.SignInWithKey(r.Context(), v.AccessKeyID, strings.TrimSpace(r.PostForm.Get("secret")))
	switch {
	case errors.Is(err, ErrSignIn):
		c.Log.Info("a sign-in to the console was refused")
		v.Message = "The access key or its secret is wrong, or its policy does not allow workspaces:DescribeWorkspaces."
		c.show(w, http.StatusUnauthorized, "signin.html", v)
	case err != nil:
		c.failed(w, r, "signing in to the console", err)
	default:
		worked()
		c.sessions.Start(w, r, v.AccessKeyID, signedIn{v.AccessKeyID})
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

func (c *console) signOut(w http.ResponseWriter, r *http.Request) {
	c.sessions.SignOut(w, r)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
