package disktest

import (
	"bytes"
	"compress/flate"
	"errors"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"
)

// packed is how many bytes deflate makes of p.
func packed(t *testing.T, p []byte) int {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(p)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

// TestContents: what all ratios of time and size rest on is a third that does not compress, and a rest that does.
func TestContents(t *testing.T) {
	const pieces = 12
	c, again := NewContents(t), NewContents(t)
	var first [][]byte
	code := 0
	for at, p := range c.Pieces(pieces<<20 + 4095) {
		if at != int64(len(first))<<20 || len(p) != 1<<20 {
			t.Fatalf("%d bytes at %d, after %d pieces", len(p), at, len(first))
		}
		if n := packed(t, p); at>>20%3 != 0 {
			code += n
		} else if n < len(p) {
			t.Errorf("the noise at %d compresses to %d bytes", at, n)
		}
		first = append(first, bytes.Clone(p))
		clear(p) // what the caller does to a piece is nothing to the next
	}
	if len(first) != pieces {
		t.Fatalf("%d pieces, want %d", len(first), pieces)
	}
	if ratio := float64(code) / (pieces * 2 / 3 << 20); ratio < 0.2 || ratio > 0.8 {
		t.Errorf("machine code compresses to %.2f", ratio)
	}
	for at, p := range again.Pieces(pieces << 20) {
		if !bytes.Equal(p, first[at>>20]) {
			t.Errorf("the second time, what is at %d differs", at)
		}
	}
	for at, p := range c.Pieces(pieces << 20) {
		if slices.ContainsFunc(first, func(q []byte) bool { return bytes.Equal(p, q) }) {
			t.Errorf("the next file has at %d what one before had", at)
		}
	}
}

func TestMeasure(t *testing.T) {
	busy := func(who ...int) Cost { // a child that works
		return Measure(t, func() error {
			return exec.CommandContext(t.Context(), "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done").Run()
		}, who...)
	}
	child := busy(syscall.RUSAGE_CHILDREN)
	if child.CPU < 20*time.Millisecond || child.Wall < child.CPU/2 {
		t.Errorf("a child that works: %+v", child)
	}
	if own := busy(syscall.RUSAGE_SELF); own.CPU > child.CPU/2 || own.Wall < child.CPU/2 {
		t.Errorf("of this process while a child works for %v: %+v", child.CPU, own)
	}
	if both := busy(syscall.RUSAGE_CHILDREN, syscall.RUSAGE_SELF); both.CPU < child.CPU/2 {
		t.Errorf("both: %+v", both)
	}
}

func TestMedian(t *testing.T) {
	runs := []Cost{{5, 1, 30}, {1, 3, 10}, {9, 2, 20}}
	if got, want := Median(runs), (Cost{5, 2, 20}); got != want {
		t.Errorf("Median(%v) = %v, want %v", runs, got, want)
	}
	if runs[0] != (Cost{5, 1, 30}) {
		t.Errorf("the runs were changed: %v", runs)
	}
}
