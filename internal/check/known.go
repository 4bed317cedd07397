package check

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Known is a fact and where it was read, or the reason why it is not known. The zero value is not known.
type Known[T any] struct {
	Value T
	// From is where the value was read; when the fact is not known, where one looked.
	From []Evidence
	// Why is the reason why the fact is not known; empty when it is.
	Why string
}

// fact is any Known, for code that does not care about the value.
type fact interface {
	state() (ok bool, from []Evidence, why string)
}

// OK reports whether the fact is known.
func (k Known[T]) OK() bool { return len(k.From) > 0 && k.Why == "" }

// Where is From in words.
func (k Known[T]) Where() string {
	var b strings.Builder
	for i, e := range k.From {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(e.Text)
	}
	return b.String()
}

// notCollected is why a fact is not known that was not asked for, or not yet.
const notCollected = "it was not collected"

func (k Known[T]) state() (ok bool, from []Evidence, why string) {
	if !k.OK() && k.Why == "" {
		return false, k.From, notCollected
	}
	return k.OK(), k.From, k.Why
}

// read makes a known fact.
func read[T any](value T, from ...Evidence) Known[T] { return Known[T]{Value: value, From: from} }

// unread makes an unknown one.
func unread[T any](from Evidence, why string) Known[T] {
	if why == "" {
		why = "it could not be read"
	}
	return Known[T]{From: []Evidence{from}, Why: why}
}

// likewise makes an unknown fact for the reason for which another one is not known.
func likewise[T any](k fact) Known[T] {
	_, from, why := k.state()
	return Known[T]{From: from, Why: why}
}

// maxShown bounds what is quoted from a disk in one piece of evidence, in bytes.
const maxShown = 240

// printable makes text from a disk safe to show, as [Printable] does, and bounds its length.
func printable(s string) string {
	if len(s) <= maxShown && plain(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if b.Len() >= maxShown {
			b.WriteString("...")
			break
		}
		b.WriteString(safe(s[i:], r))
	}
	return b.String()
}

// Printable makes text safe to show: what does not print (terminal escapes, line breaks, direction overrides) is written as an
// escape.
func Printable(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		b.WriteString(safe(s[i:], r))
	}
	return b.String()
}

// plain reports whether all of s is ASCII that prints, as nearly all is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// safe is the rune r, with which s begins, or an escape for it where it does not print.
func safe(s string, r rune) string {
	switch {
	case r == utf8.RuneError:
		return fmt.Sprintf(`\x%02x`, s[0])
	case unicode.IsPrint(r):
		return string(r)
	case r < 0x100:
		return fmt.Sprintf(`\x%02x`, r)
	}
	return fmt.Sprintf(`\u{%x}`, r)
}
