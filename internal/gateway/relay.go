package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

const (
	// largestMessage from a browser, in bytes. noVNC's largest are clipboard texts.
	largestMessage = 1 << 20
	// relayBuffer is what one direction of one connection holds, in bytes.
	relayBuffer = 64 << 10
	// stuckAfter gives up on a browser or a machine that takes nothing any more.
	stuckAfter = 30 * time.Second
)

// RFB's messages that a person causes (RFC 6143, 7.5.4 to 7.5.6, and QEMU's extended key event).
const (
	rfbKey, rfbPointer, rfbCut, rfbQEMU = 4, 5, 6, 255
)

// connect joins a browser's websocket to the screen of a WorkSpace until one of them, or the session, ends.
func (g *gateway) connect(w http.ResponseWriter, r *http.Request) {
	x := g.sessions.Of(r)
	switch {
	case x == nil:
		http.Error(w, "Sign in first.", http.StatusUnauthorized)
		return
	case !sameOrigin(r):
		http.Error(w, "A page of another site may not connect.", http.StatusForbidden)
		return
	case !x.Value.viewers.TryAcquire(1):
		http.Error(w, fmt.Sprintf("This session shows %d screens already.", mostViewers), http.StatusTooManyRequests)
		return
	}
	defer x.Value.viewers.Release(1)
	id := r.URL.Query().Get("workspace")
	dial, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	machine, err := g.Service.Connect(dial, x.Value.user, id)
	cancel()
	switch {
	case errors.Is(err, ErrSignIn):
		x.End()
		http.Error(w, "Sign in first.", http.StatusUnauthorized)
		return
	case errors.Is(err, ErrNoDesktop):
		http.Error(w, "You have no such WorkSpace.", http.StatusNotFound)
		return
	case errors.Is(err, ErrNotRunning):
		http.Error(w, "The WorkSpace is not running.", http.StatusConflict)
		return
	case err != nil:
		g.failed(w, r, "connecting to a screen", err)
		return
	}
	defer machine.Close()
	// Accept compares Origin and Host once more. Screens are compressed by RFB already.
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"binary"}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // it has answered
	}
	defer func() { _ = ws.CloseNow() }() // it is closed already but after a panic
	ws.SetReadLimit(largestMessage)
	x.Used()
	log := g.Log.With("workspace", id, "user", x.Value.user.Name, "remote", remote(r))
	log.Info("a desktop session begins")
	begun := g.Now()
	why := g.relay(r.Context(), ws, machine, x)
	log.Info("a desktop session ended", "why", why, "took", g.Now().Sub(begun).Round(time.Second))
}

// relay copies both ways until there is a reason to end, tells the browser, and says which it was.
func (g *gateway) relay(ctx context.Context, ws *websocket.Conn, machine net.Conn, x *session) (why string) {
	ctx, cancel := context.WithCancel(ctx)
	type reason struct {
		code websocket.StatusCode
		text string
	}
	const parts = 3
	reasons := make(chan reason, parts)
	go func() {
		text := "the screen closed"
		if err := toBrowser(ctx, ws, machine); err != nil {
			text = "the browser went away"
		}
		reasons <- reason{websocket.StatusGoingAway, text}
	}()
	go func() {
		text := "the browser went away"
		if err := toMachine(ctx, ws, machine, x); errors.Is(err, errNotBinary) {
			text = "the browser sent text"
		}
		reasons <- reason{websocket.StatusNormalClosure, text}
	}()
	go func() {
		reasons <- reason{websocket.StatusPolicyViolation, g.watch(ctx, ws, x)}
	}()
	var first reason
	ended := 0
	select {
	case first = <-reasons:
		ended++
	case <-x.Done():
		first = reason{websocket.StatusPolicyViolation, "signed out"}
	}
	// The browser is told before the copying is cut off: cancelling a read closes the websocket without a word.
	machine.Close()
	ws.Close(first.code, first.text)
	cancel()
	for ; ended < parts; ended++ {
		<-reasons
	}
	return first.text
}

// toBrowser ends without an error when the machine's side ended.
func toBrowser(ctx context.Context, ws *websocket.Conn, machine net.Conn) error {
	buf := make([]byte, relayBuffer)
	for {
		n, err := machine.Read(buf)
		if n > 0 {
			ctx, cancel := context.WithTimeout(ctx, stuckAfter)
			err := ws.Write(ctx, websocket.MessageBinary, buf[:n])
			cancel()
			if err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

var errNotBinary = errors.New("gateway: a websocket message that is not binary")

func toMachine(ctx context.Context, ws *websocket.Conn, machine net.Conn, x *session) error {
	buf := make([]byte, relayBuffer)
	for {
		kind, message, err := ws.Reader(ctx)
		if err != nil {
			return err
		}
		if kind != websocket.MessageBinary {
			return errNotBinary
		}
		for first := true; ; first = false {
			n, err := message.Read(buf)
			if n > 0 {
				// noVNC sends each message of RFB in one of the websocket's. A client that does not can only spoil how its own
				// idle time is counted.
				if c := buf[0]; first && (c == rfbKey || c == rfbPointer || c == rfbCut || c == rfbQEMU) {
					x.Used()
				}
				if err := machine.SetWriteDeadline(time.Now().Add(stuckAfter)); err != nil {
					return err
				}
				if _, err := machine.Write(buf[:n]); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
}

// watch looks again and again whether the session holds, the user may still use WorkSpaces, and the browser is there.
func (g *gateway) watch(ctx context.Context, ws *websocket.Conn, x *session) string {
	tick := time.NewTicker(g.Watch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return "ended"
		case <-tick.C:
		}
		if !x.Alive() {
			return "the session has expired"
		}
		if _, err := g.Service.Desktops(ctx, x.Value.user); errors.Is(err, ErrSignIn) {
			x.End()
			return "the user may not sign in any more"
		}
		ping, cancel := context.WithTimeout(ctx, stuckAfter)
		err := ws.Ping(ping)
		cancel()
		if err != nil {
			return "the browser does not answer"
		}
	}
}
