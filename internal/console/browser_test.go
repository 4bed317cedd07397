package console

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"berth/internal/compute"
	"berth/internal/compute/memory"
	"berth/internal/gateway"
)

var building sync.Mutex

// bundle is the web console's bundle as it is on disk. Where there is none (make unit has built it) it is built here.
func bundle(t *testing.T) fs.FS {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	if _, err := os.Stat("dist/desktop.js"); errors.Is(err, os.ErrNotExist) {
		for _, args := range [][]string{{"ci", "--prefix", "../../web", "--no-audit", "--no-fund"}, {"run", "build", "--prefix", "../../web"}} {
			if out, err := exec.CommandContext(t.Context(), "npm", args...).CombinedOutput(); err != nil {
				t.Fatalf("npm %s: %v\n%s", strings.Join(args, " "), err, out)
			}
		}
	}
	return os.DirFS(".")
}

// desktops is a service with one user, whose WorkSpaces are machines of the memory driver.
type desktops struct {
	driver  compute.Driver
	viewers atomic.Int32 // screens that are connected
	mu      sync.Mutex
	list    []gateway.Desktop
}

// viewed is a connection to a screen that is counted until it is closed.
type viewed struct {
	net.Conn
	close func()
}

func (v viewed) Close() error {
	v.close()
	return v.Conn.Close()
}

func (d *desktops) SignIn(_ context.Context, code, user, password string) (gateway.User, error) {
	if code != "SLtest+1" || user != "alice" || password != "correct horse" {
		return gateway.User{}, gateway.ErrSignIn
	}
	return gateway.User{DirectoryID: "d-1", Name: user}, nil
}

func (d *desktops) Desktops(context.Context, gateway.User) ([]gateway.Desktop, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list), nil
}

func (d *desktops) Connect(ctx context.Context, _ gateway.User, id string) (net.Conn, error) {
	conn, err := d.driver.Display(ctx, id)
	if errors.Is(err, compute.ErrOff) {
		err = gateway.ErrNotRunning
	} else if errors.Is(err, compute.ErrNotFound) {
		err = gateway.ErrNoDesktop
	}
	if err != nil {
		return nil, err
	}
	d.viewers.Add(1)
	return viewed{conn, sync.OnceFunc(func() { d.viewers.Add(-1) })}, nil
}

// turned runs a machine or turns it off, and shows its WorkSpace in the state.
func (d *desktops) turned(t *testing.T, id string, on bool, state string) {
	t.Helper()
	if _, err := d.driver.Ensure(t.Context(), compute.Machine{ID: id, Image: "sealed", RootGiB: 1, VCPUs: 1, MemoryMiB: 64, Firmware: compute.BIOS, Running: on, Boots: 1}); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	shown := gateway.Desktop{WorkspaceID: id, ComputerName: strings.ToUpper("desktop-" + id), State: state}
	if i := slices.IndexFunc(d.list, func(x gateway.Desktop) bool { return x.WorkspaceID == id }); i >= 0 {
		d.list[i] = shown
	} else {
		d.list = append(d.list, shown)
	}
}

// window is a headless Chromium on the real handlers.
type window struct {
	t      *testing.T
	ctx    context.Context
	url    string
	host   *memory.Host
	user   *desktops
	steps  *fake
	mu     sync.Mutex
	errors []string // what the pages wrote to the browser's console
}

func newWindow(t *testing.T) *window {
	t.Helper()
	w := &window{t: t, host: memory.NewHost(), steps: &fake{steps: eight(), tokens: []string{"token-1"}}}
	w.user = &desktops{driver: w.host.Open()}
	header := make([]byte, 104) // of an empty qcow2, which is all that the memory driver reads
	copy(header, "QFI\xfb")
	binary.BigEndian.PutUint32(header[4:], 2)
	binary.BigEndian.PutUint64(header[24:], 1<<20)
	image := filepath.Join(t.TempDir(), "sealed.qcow2")
	if err := os.WriteFile(image, header, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.user.driver.EnsureImage(t.Context(), "sealed", image); err != nil {
		t.Fatal(err)
	}
	assets, err := serveBundle(bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	desktop := gateway.New(gateway.Config{Service: w.user, Assets: AssetPath, Watch: 50 * time.Millisecond})
	mux.Handle("/desktop", desktop)
	mux.Handle("/desktop/", desktop)
	mux.Handle("/", New(Config{Service: w.steps, Assets: AssetPath}))
	mux.Handle(AssetPath, assets)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL

	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("Chromium is needed (scripts/setup test installs it): ", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	for _, flag := range []string{"headless", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithBrowserOption(chromedp.WithConsolef(func(format string, args ...any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.errors = append(w.errors, fmt.Sprintf(format, args...))
	})))
	t.Cleanup(cancel)
	w.ctx = ctx
	return w
}

func (w *window) do(steps ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	if err := chromedp.Do(w.ctx, steps...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *window) goes(path string) {
	w.t.Helper()
	if _, err := chromedp.Run(w.ctx, chromedp.Navigate(w.url+path)); err != nil {
		w.t.Fatal(err)
	}
}

// says is the value of an expression in the page.
func says[T any](w *window, expression string) T {
	w.t.Helper()
	v, err := chromedp.Run(w.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		w.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression in the page to be true. (chromedp's own Poll makes a function from text, which the pages'
// policy forbids.)
func (w *window) until(expression string) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		v, err := chromedp.Run(w.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && v {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("did not come: %s (%v)\n%s", expression, err, says[string](w, "document.body.innerText"))
		}
	}
}

func (w *window) fills(field, text string) {
	w.t.Helper()
	w.do(chromedp.SetValue(chromedp.CSS("[name="+field+"]"), text))
}

func (w *window) clicks(selector string) {
	w.t.Helper()
	w.do(chromedp.Click(chromedp.CSS(selector)))
}

// pixel is the colour of a point of the machine's screen, as the page has painted it.
func pixel(x, y int) string {
	return fmt.Sprintf("[...document.querySelector('#screen canvas').getContext('2d').getImageData(%d, %d, 1, 1).data].slice(0, 3).join()", x, y)
}

// painted is true when a machine that has booted once is on the screen: 640 x 480, a dark ground, a white bar at (5, 240) and
// none at (25, 240) (internal/compute/memory).
var painted = "(c => c && c.width === 640 && c.height === 480 && " + pixel(5, 240) + " === '255,255,255' && " + pixel(25, 240) + " === " + pixel(5, 100) + " && " + pixel(5, 100) + " !== '0,0,0')(document.querySelector('#screen canvas'))"

func (w *window) typed(id, text string) {
	w.t.Helper()
	var keys []uint32
	for _, r := range text {
		keys = append(keys, uint32(r)) // keysyms of Latin characters are the characters
	}
	for end := time.Now().Add(10 * time.Second); !slices.Equal(w.host.Typed(id), keys); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("the machine was typed %v, want %v", w.host.Typed(id), keys)
		}
	}
}

// quiet fails when a page wrote errors: of its script, or of its own policy. Answers that a test provokes are left out.
func (w *window) quiet() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.errors {
		if strings.Contains(e, "Content Security Policy") || strings.Contains(e, "Uncaught") {
			w.t.Errorf("the browser's console: %s", e)
		}
	}
}

func TestBrowserShowsTheDesktop(t *testing.T) {
	t.Parallel()
	w := newWindow(t)
	w.user.turned(t, "ws-1", true, "AVAILABLE")
	w.goes("/desktop")
	w.fills("code", "SLtest+1")
	w.fills("user", "alice")
	w.fills("password", "wrong")
	w.clicks("button.main")
	w.until("document.querySelector('#message')?.textContent.includes('is wrong')")
	if code := says[string](w, "document.querySelector('[name=code]').value"); code != "SLtest+1" {
		t.Errorf("the registration code is lost: %q", code)
	}
	w.fills("password", "correct horse")
	w.clicks("button.main")
	w.until(painted)
	w.until("document.querySelector('#notice').hidden && !document.querySelector('#keys').disabled")
	if bar := says[string](w, "document.querySelector('header').innerText"); !strings.Contains(bar, "DESKTOP-WS-1") || !strings.Contains(bar, "AVAILABLE") {
		t.Errorf("the bar says %q", bar)
	}
	if cookies := says[string](w, "document.cookie"); cookies != "" {
		t.Errorf("scripts see the cookies %q", cookies)
	}

	// Typing reaches the machine without a click, and what it draws is seen: a square at (5, 305) for the first key.
	w.do(chromedp.KeyEvent("hello A1"))
	w.typed("ws-1", "hello A1")
	w.until(pixel(5, 305) + " !== " + pixel(5, 100))
	w.clicks("#keys")
	w.until("document.activeElement.tagName === 'CANVAS'")

	// Signing out ends the session and the screen.
	if n := w.user.viewers.Load(); n != 1 {
		t.Errorf("%d viewers before signing out, want 1", n)
	}
	w.clicks("#out")
	w.until("!!document.querySelector('[name=code]')")
	if s := says[float64](w, "(x => (x.open('GET', '/desktop/workspaces', false), x.send(), x.status))(new XMLHttpRequest())"); s != http.StatusUnauthorized {
		t.Errorf("after signing out the WorkSpaces are answered with %v", s)
	}
	for end := time.Now().Add(10 * time.Second); w.user.viewers.Load() != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the machine's screen is still connected after signing out")
		}
	}
	w.quiet()
}

func TestBrowserWaitsForTheDesktop(t *testing.T) {
	t.Parallel()
	w := newWindow(t)
	w.user.turned(t, "ws-1", false, "STOPPED")
	w.goes("/desktop")
	w.fills("code", "SLtest+1")
	w.fills("user", "alice")
	w.fills("password", "correct horse")
	w.clicks("button.main")
	notice := "document.querySelector('#notice')"
	w.until(notice + ".innerText.includes('DESKTOP-WS-1 is STOPPED') && " + notice + ".innerText.includes('Ask your administrator to start it')")
	w.user.turned(t, "ws-1", true, "AVAILABLE")
	w.until(painted)
	w.until(notice + ".hidden")

	// The machine goes and comes back.
	w.user.turned(t, "ws-1", false, "STOPPED")
	w.until("!" + notice + ".hidden && " + notice + ".innerText.includes('STOPPED')")
	w.user.turned(t, "ws-1", true, "AVAILABLE")
	w.until(notice + ".hidden")
	w.until("document.querySelectorAll('#screen canvas').length === 1")
	w.do(chromedp.KeyEvent("x"))
	w.typed("ws-1", "x")

	// With a second WorkSpace there is a choice.
	w.user.turned(t, "ws-2", true, "AVAILABLE")
	w.until("!document.querySelector('#pick').hidden && document.querySelector('#pick').options.length === 2")
	w.do(chromedp.SetValue(chromedp.CSS("#pick"), "ws-2"))
	says[bool](w, "document.querySelector('#pick').dispatchEvent(new Event('change'))")
	w.until(notice + ".hidden && document.title === 'DESKTOP-WS-2'")
	w.do(chromedp.KeyEvent("y"))
	w.typed("ws-2", "y")
	w.typed("ws-1", "x")
	w.quiet()
}

func TestBrowserShowsTheSteps(t *testing.T) {
	t.Parallel()
	w := newWindow(t)
	w.goes("/?token=token-1")
	w.until("document.querySelectorAll('.step').length === 8")
	w.until("location.search === ''") // the token does not stay in the address bar
	if got := says[string](w, "[...document.querySelectorAll('.tag')].map(e => e.innerText).join()"); got != "done,done,done,attention,in progress,to do,to do,to do" {
		t.Errorf("states: %s", got)
	}
	if got := says[string](w, "document.querySelector('#step-4 .items').innerText"); !strings.Contains(got, "import-ami-1") || !strings.Contains(got, "<script>alert(1)</script>") {
		t.Errorf("the fourth step's items: %s", got)
	}
	// On a phone nothing is cut off at the side.
	w.do(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
	if wide := says[bool](w, "document.documentElement.scrollWidth > 360"); wide {
		t.Error("a phone has to scroll sideways")
	}
	w.steps.set(func() { w.steps.steps[4].State = Done })
	w.until("document.querySelector('#step-5 .tag').innerText === 'done'") // by itself
	w.steps.set(func() { w.steps.broken = errors.New("down") })
	w.until("!document.querySelector('#stale').hidden")
	w.steps.set(func() { w.steps.broken = nil })
	w.until("document.querySelector('#stale').hidden")
	w.steps.set(func() { w.steps.gone = true })
	w.until("!!document.querySelector('[name=secret]')")
	w.quiet()
}
