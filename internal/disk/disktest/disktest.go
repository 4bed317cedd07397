// Package disktest is what benchmarks of disks have in common: what fills a disk ([NewContents]), and what a piece of work takes ([Measure],
// [Median]) and whether that is within its bar ([Judge]).
//
// It makes no disk and knows no format: the tests of package disk use it, too. What is measured, and against which peer, is each benchmark's own.
package disktest

import (
	"errors"
	"iter"
	"math/rand/v2"
	"os"
	"testing"
)

// pieceSize is how many bytes of one kind lie together: many grains and clusters of 64 KiB, as in a large file.
const pieceSize = 1 << 20

// Contents is what the disks of Windows machines are full of: two thirds machine code, which compresses to about half, and one third
// noise, as what is compressed already.
type Contents struct {
	code  []byte
	from  *rand.Rand
	noise *rand.ChaCha8
}

// NewContents is the same contents in every run of one test program. The machine code is that program's own.
func NewContents(t testing.TB) *Contents {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(self)
	if err == nil && len(code) <= pieceSize {
		err = errors.New("a test program of less than a piece")
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Contents{code, rand.New(rand.NewPCG(1, 1)), rand.NewChaCha8([32]byte{})}
}

// Pieces is the next length bytes, in pieces of 1 MiB (what is left over is left out) with the offset of each. The first piece is noise, then
// every third. A piece is the caller's until the next one, who may change it.
func (c *Contents) Pieces(length int64) iter.Seq2[int64, []byte] {
	return func(yield func(int64, []byte) bool) {
		p := make([]byte, pieceSize)
		for at := int64(0); at+pieceSize <= length; at += pieceSize {
			copy(p, c.code[c.from.IntN(len(c.code)-pieceSize):])
			if at/pieceSize%3 == 0 {
				_, _ = c.noise.Read(p) // it never fails
			}
			if !yield(at, p) {
				return
			}
		}
	}
}
