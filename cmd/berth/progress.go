package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows steps as they go: one live line on a terminal; elsewhere a line when a step begins to say something new
// (at most every few seconds) and one when it ends.
type progress struct {
	w        io.Writer
	terminal bool
	width    int // of the terminal, in characters
	names    int // how wide the column of the steps' names is, in characters
	took     []timed
	begins   func(step string) // told of every step, if set
}

type timed struct {
	name string
	took time.Duration
}

func newProgress(f *os.File) *progress {
	p := &progress{w: f, terminal: term.IsTerminal(int(f.Fd())), width: 80, names: 23}
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
		p.width = w
	}
	return p
}

// step does one step. do is given a way to say how it goes, and returns what came of it. Of a step that fails, its line shows how far it
// came: what the error is, whoever gets it says.
func (p *progress) step(name string, do func(say func(string)) (string, error)) error {
	if p.begins != nil {
		p.begins(name)
	}
	begun := time.Now()
	var mu sync.Mutex
	text := ""
	show := func(mark string) {
		line := p.line(mark, name, time.Since(begun), text)
		if !p.terminal {
			fmt.Fprintln(p.w, line)
			return
		}
		fmt.Fprint(p.w, "\r\x1b[K"+line)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // keeps the line alive
		defer close(stopped)
		every := 100 * time.Millisecond
		if !p.terminal {
			every = 5 * time.Second
		}
		for {
			select {
			case <-stop:
				return
			case <-time.After(every):
				mu.Lock()
				show("…")
				mu.Unlock()
			}
		}
	}()
	result, err := do(func(s string) {
		mu.Lock()
		text = s
		mu.Unlock()
	})
	close(stop)
	<-stopped
	mark := "✗"
	if err == nil {
		mark, text = "✓", result
	}
	show(mark)
	if p.terminal {
		fmt.Fprintln(p.w)
	}
	p.took = append(p.took, timed{name, time.Since(begun)})
	return err
}

// line is how a step shows: while it goes, within a terminal's line; the last of it stays, and may take several.
func (p *progress) line(mark, name string, took time.Duration, text string) string {
	line := strings.TrimRight(fmt.Sprintf("%s %-*s %6s  %s", mark, p.names, name, seconds(took), text), " ")
	if p.terminal && mark == "…" {
		line = clip(line, p.width-1)
	}
	return line
}

// room is how many characters of a step's text there are beside its name and its time while it goes, below 10,000 s.
func (p *progress) room(name string) int {
	const mark, time, edge = 2, len(" 9999.9 s  "), 1
	return p.width - mark - max(p.names, len(name)) - time - edge
}

// table prints how long each step took.
func (p *progress) table() {
	var sum time.Duration
	fmt.Fprintln(p.w, "\nTime taken:")
	for _, t := range p.took {
		fmt.Fprintf(p.w, "  %-23s %7s\n", t.name, seconds(t.took))
		sum += t.took
	}
	fmt.Fprintf(p.w, "  %-23s %7s\n", "all", seconds(sum))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

// clip cuts a line to a number of characters.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
