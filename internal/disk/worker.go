package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
)

// worker makes pieces, one after the other.
type worker struct {
	c         *copying
	window    window
	stretches []stretch
	zstd      *zstd.Encoder
	flate     *flate.Writer
}

func (c *copying) newWorker() (*worker, error) {
	w := &worker{c: c}
	var err error
	switch c.pack {
	case packZstd:
		// Clusters are decoded one by one, into memory of their size.
		w.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(copyChunk), zstd.WithLowerEncoderMem(true))
	case packDeflate:
		w.flate, err = flate.NewWriter(nil, flate.BestSpeed)
	}
	return w, err
}

// make reads a piece and makes it what is to be written.
func (w *worker) make(p *piece) error {
	if p.want == 0 {
		return nil
	}
	if !p.read {
		if err := w.read(p); err != nil {
			return err
		}
	}
	for _, gap := range p.gaps {
		clear(p.bytes[gap.Start-p.start : gap.end()-p.start])
	}
	if w.c.over != nil {
		w.c.over.lay(p.bytes[:p.length], p.start)
	}
	for i := range copyChunks {
		if p.want>>i&1 == 0 {
			continue
		}
		chunk := p.bytes[i*copyChunk : (i+1)*copyChunk]
		if beyond := int64(i+1)*copyChunk - p.length; beyond > 0 {
			clear(chunk[copyChunk-beyond:])
		}
		if p.streams[i].length == 0 || !w.c.opt.Unverified {
			w.look(p, i, chunk)
		}
		if p.blocks(i) == 0 {
			continue
		}
		if w.c.opt.Digest {
			p.digests[i] = blake3.Sum256(chunk)
		}
		if w.c.pack != packNothing && p.streams[i].length == 0 {
			if err := w.compress(p, i, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

// look finds out which blocks of a chunk are not zeros.
func (w *worker) look(p *piece, i int, chunk []byte) {
	var data uint16
	for b := range copyChunk / copyHole {
		if !isZero(chunk[b*copyHole : (b+1)*copyHole]) {
			data |= 1 << b
		}
	}
	p.data[i/4] |= uint64(data) << (i % 4 * 16)
	if data == 0 {
		p.streams[i].length = 0
	}
}

// read reads the wanted chunks of a piece, and keeps the streams that can be taken over.
func (w *worker) read(p *piece) error {
	changed := p.changed
	if o := w.c.over; o != nil {
		for i := range int64(copyChunks) {
			if at := p.start + i*copyChunk; o.touches(at, at+copyChunk) {
				changed |= 1 << i
			}
		}
	}
	for left := p.want; left != 0; {
		from := bits.TrailingZeros32(left)
		n := bits.TrailingZeros32(^(left >> from))
		left &^= uint32(1<<n-1) << from
		off := p.start + int64(from)*copyChunk
		part := p.bytes[from*copyChunk : min(int64(from+n)*copyChunk, p.length)]
		var err error
		if w.c.base != nil {
			err = w.bulk(p, part, off, changed)
		} else {
			err = readImage(w.c.img, part, off)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readImage fills part from an image.
func readImage(img Image, part []byte, off int64) error {
	n, err := img.ReadAt(part, off)
	if n == len(part) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("disk: read byte %d of the disk: %w", off+int64(n), err)
}

// bulk is ReadAt of the base, but for reading ahead: the blocks of a disk that was written in one go lie one behind the other.
func (w *worker) bulk(p *piece, part []byte, off int64, changed uint32) error {
	m, behind := w.c.base, off+int64(len(part))
	w.stretches = w.stretches[:0]
	for n := int64(0); n < int64(len(part)); {
		s, err := m.locate(off+n, int64(len(part))-n)
		if err != nil {
			return err
		}
		w.stretches = append(w.stretches, s)
		n += s.length
	}
	for i, s := range w.stretches {
		var err error
		here := part[:s.length]
		switch s.kind {
		case Zero, Unallocated:
			clear(here)
		case Data:
			err = s.file.readFull(here, s.at, s.what)
		case Compressed:
			if s.head != 0 || s.length != s.block {
				err = m.inflate(here, s)
				break
			}
			w.ahead(i, behind)
			err = w.block(p, here, s, off, changed)
		}
		if err != nil {
			return fmt.Errorf("disk: read byte %d of the disk: %w", off, err)
		}
		part = part[s.length:]
		off += s.length
	}
	return nil
}

// ahead reads the blocks from stretch i on ahead, as far as they lie one behind the other in the file. behind is the byte of
// the disk behind all stretches.
func (w *worker) ahead(i int, behind int64) {
	s := w.stretches[i]
	if w.window.holds(s.file, s.at, 1) {
		return
	}
	last, n := s.at, i
	follows := func(next stretch) bool {
		return next.kind == Compressed && next.file == s.file && next.at >= last && next.at-s.at <= copyAhead
	}
	for ; n < len(w.stretches) && follows(w.stretches[n]); n++ {
		last = w.stretches[n].at
	}
	// How long the last block is, is known where the next one begins; few are longer than what they hold.
	end := last + s.block + s.block/64
	if n == len(w.stretches) && behind < w.c.size {
		if next, err := w.c.base.locate(behind, 1); err == nil && follows(next) && next.at > last {
			end = next.at
		}
	}
	w.window.load(s.file, s.at, min(end-s.at, copyAhead))
}

// block inflates a whole block into its place, and keeps its stream if that can be taken over.
func (w *worker) block(p *piece, here []byte, s stretch, off int64, changed uint32) error {
	packed, err := s.owner.stream(s, &w.window)
	if err != nil {
		return err
	}
	i := int((off - p.start) / copyChunk)
	pass := w.c.pass && s.block == copyChunk && off%copyChunk == 0 && changed>>i&1 == 0
	if pass && w.c.opt.Unverified && len(packed) > copyChunk/64 { // a shorter one may be zeros
		if stream := s.owner.deflate(packed); stream != nil {
			p.keep(i, stream)
			return nil
		}
	}
	used, err := s.owner.inflate(here, packed, s)
	if err != nil || !pass || used == 0 {
		return err
	}
	if stream := s.owner.deflate(packed[:used]); stream != nil && len(stream) <= copyChunk-copyGain {
		p.keep(i, stream)
	}
	return nil
}

// keep takes the stream of chunk i over.
func (p *piece) keep(i int, stream []byte) {
	p.streams[i].at, p.streams[i].length = int32(len(p.packed)), int32(len(stream))
	p.packed = append(p.packed, stream...)
	p.passed |= 1 << i
}

// compress compresses a chunk, if it gains by that.
func (w *worker) compress(p *piece, i int, chunk []byte) error {
	before := len(p.packed)
	p.packed = slices.Grow(p.packed, copyChunk+1024)
	if w.zstd != nil {
		p.packed = w.zstd.EncodeAll(chunk, p.packed)
	} else {
		out := bytes.NewBuffer(p.packed)
		w.flate.Reset(out)
		_, err := w.flate.Write(chunk)
		if err := errors.Join(err, w.flate.Close()); err != nil {
			return fmt.Errorf("disk: compress: %w", err)
		}
		p.packed = out.Bytes()
	}
	n := len(p.packed) - before
	if n > copyChunk-copyGain {
		p.packed = p.packed[:before]
		return nil
	}
	p.streams[i].at, p.streams[i].length = int32(before), int32(n)
	return nil
}

var zeros [copyHole]byte

// isZero reports whether a block of at most copyHole bytes is zeros.
func isZero(p []byte) bool {
	// Most blocks that are not say so at once.
	if len(p) >= 16 && (le.Uint64(p) != 0 || le.Uint64(p[len(p)-8:]) != 0) {
		return false
	}
	return bytes.Equal(p, zeros[:len(p)])
}
