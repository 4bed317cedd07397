package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode"
	"unicode/utf16"

	"berth/internal/check"
)

// document is a report and its subject as JSON.
type document struct {
	File    string    `json:"file"`
	At      time.Time `json:"at,omitzero"`
	Version string    `json:"berth,omitempty"`
	Notes   []string  `json:"fileNotes"`
	Verdict string    `json:"verdict"`
	check.Report
}

// JSON writes the report with all that it holds: what a [check.Report] marshals to, and beside it file, at, berth (the version),
// fileNotes and verdict. It can be read back as a check.Report.
func JSON(w io.Writer, r check.Report, s Subject) error {
	d := document{File: s.File, At: s.At.UTC(), Version: s.Version, Notes: s.Notes, Verdict: Verdict(r), Report: r}
	if d.Notes == nil {
		d.Notes = []string{}
	}
	return WriteJSON(w, d, "  ")
}

// WriteJSON writes v as JSON of which everything prints, with a line end: JSON itself lets the C1 controls and the characters that
// turn the direction of writing stand. indent is that of a level; "" writes one line.
func WriteJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var out bytes.Buffer
	for _, r := range b.String() {
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}
