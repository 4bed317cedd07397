package main

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"berth/internal/phony"
)

// TestDesktopInTheBrowser takes the sample through the eight steps, signs in to its desktop in headless Chromium and types:
// the picture is the sample's, and the keys reach the machine.
func TestDesktopInTheBrowser(t *testing.T) {
	vm, err := sampleVM()
	if err != nil {
		t.Fatal(err)
	}
	data, _ := service(t)
	j := &journey{data: data, vm: vm, out: &progress{w: testWriter{t}}}
	if err := j.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(j.picture)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := phony.CheckScreen(saved); err != nil {
		t.Errorf("the journey's picture: %v", err)
	}

	c, err := dial(data)
	if err != nil {
		t.Fatal(err)
	}
	ctx := chromium(t)
	if err := chromedp.Do(ctx,
		chromedp.Navigate(c.admin.Endpoint+"/desktop"),
		chromedp.SetValue(chromedp.CSS("[name=code]"), j.code), chromedp.SetValue(chromedp.CSS("[name=user]"), j.user), chromedp.SetValue(chromedp.CSS("[name=password]"), j.password),
		chromedp.Click(chromedp.CSS("button.main")),
		chromedp.WaitVisible(chromedp.CSS("#screen canvas")),
	); err != nil {
		t.Fatal(err)
	}
	before := j.screen(t, c)
	end := time.Now().Add(time.Minute)
	for typed := false; !typed; {
		if time.Now().After(end) {
			t.Fatal("what was typed did not reach the desktop")
		}
		// The screen may not be connected yet, and then takes no keys: type until some arrive.
		if err := chromedp.Do(ctx, chromedp.KeyEvent("hello")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		now := j.screen(t, c)
		typed = differs(before, now, phony.TypingArea)
		if err := phony.CheckScreen(now); err != nil {
			t.Errorf("the screen after typing: %v", err)
		}
	}
}

// chromium is a headless browser for a test.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("Chromium is needed (scripts/setup test installs it): ", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	for _, flag := range []string{"headless", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// screen is a picture of the desktop, by the API.
func (j *journey) screen(t *testing.T, c *client) image.Image {
	t.Helper()
	var out struct{ Png []byte }
	if err := c.berth(t.Context(), "GetWorkspaceScreenshot", map[string]any{"WorkspaceId": j.workspace}, &out); err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(out.Png))
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

// differs tells whether two pictures differ in an area.
func differs(a, b image.Image, area image.Rectangle) bool {
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			if a.At(x, y) != b.At(x, y) {
				return true
			}
		}
	}
	return false
}
