package disk

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"math/bits"
	"runtime"
	"slices"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// A copy is made by three kinds of goroutines. One finds out what is stored and cuts it into pieces; a worker for each
// processor reads a piece, inflates it, finds the zeros, and compresses it; one writes the pieces, in the order in which they
// lie on the disk, so that the end of what is written is always a place from which to go on (checkpoint.go).
//
//	Extents, Skip ─► split ─► todo ─► workers: piece.made ─┐
//	                   └────► order ──────────────────────► write ─► sink ─► free pieces
const (
	// copyPiece is what a worker takes at a time, in bytes: no compressed block is larger, and pieces begin at multiples of it,
	// so that no block is inflated twice.
	copyPiece = maxBlock
	// copyChunk is what of a piece is read or left, stored plain or compressed, in bytes: a cluster of the QCOW2 that is
	// written, a grain of most VMDKs.
	copyChunk  = 64 << 10
	copyChunks = copyPiece / copyChunk
	// copyHole is the smallest run of zeros that becomes a hole of the file, in bytes: a block of the usual file systems.
	copyHole = 4096
	// copyWrite is what is written at a time at most, in bytes. Linux puts what is written at once into one page as large as that,
	// and 2 MiB that are not broken up yet are dear: a guest gets them from its host first (0.9 instead of 0.2 s for 512 MiB).
	copyWrite = 512 << 10
	// copyWorkers bounds the workers; pieces wait for their turn to be written besides.
	copyWorkers = 6
	copyWaiting = 3
	// copyAhead is how much of a file is read ahead at most for one piece, in bytes: its blocks do not compress at worst.
	copyAhead = copyPiece + 128<<10
	// copyGain is what compressing 64 KiB must save, in bytes.
	copyGain = copyChunk / 16
	// copyCheckpoints is the time between two checkpoints.
	copyCheckpoints = 4 * time.Second
)

// piece is a range of the disk that lies between two multiples of copyPiece, and what a worker made of it.
type piece struct {
	start, length int64
	want          uint32  // the chunks that are read; the others are zeros
	changed       uint32  // the chunks of which some bytes are not what is stored
	gaps          []Range // what of the wanted chunks is skipped
	read          bool    // bytes holds the disk already
	stored        int64   // how many bytes of it the disk stores
	skipped       int64   // of them, those that are not wanted

	bytes   []byte                                 // of length copyPiece
	data    [copyPiece / copyHole / 64]uint64      // which blocks of copyHole bytes are not zeros
	packed  []byte                                 // compressed chunks, one behind the other
	streams [copyChunks]struct{ at, length int32 } // where in packed a chunk is; length 0: it is not compressed
	passed  uint32                                 // the compressed chunks that were taken over
	digests [copyChunks][sha256.Size]byte

	err  error
	made chan struct{}
}

// block are the bits of the blocks of chunk i, lowest first.
func (p *piece) blocks(i int) uint16 { return uint16(p.data[i/4] >> (i % 4 * 16)) }

// holds reports whether chunk i is anything but zeros.
func (p *piece) holds(i int) bool { return p.streams[i].length > 0 || p.blocks(i) != 0 }

// runs yields the runs of bytes that are to be stored plain, which begin and end at multiples of copyHole.
func (p *piece) runs(chunk int) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		for b, at := p.blocks(chunk), chunk*copyChunk; b != 0; {
			skip := bits.TrailingZeros16(b)
			b >>= skip
			n := bits.TrailingZeros16(^b)
			from := at + skip*copyHole
			at = from + n*copyHole
			if b >>= n; !yield(from, at) {
				return
			}
		}
	}
}

// sink is what writes a form. One goroutine uses it, and pieces come in ascending order.
type sink interface {
	// begin is called once, before all else; size is -1 where it is not known yet.
	begin(size int64) error
	put(p *piece) error
	// end writes what is left when all pieces are there of a disk of size bytes, and says how long the file is.
	end(size int64) (int64, error)
	// state and restore are for checkpoints: restore makes dst end where state was taken.
	state(s *checkpoint)
	restore(s *checkpoint) error
}

// copying is one call of Copy.
type copying struct {
	opt   CopyOptions
	img   Image     // with the patches
	base  *mapped   // without, if it is one of ours
	over  *overlaid // nil: no patches
	input *sequential
	size  int64
	to    sink
	pack  packing
	pass  bool // blocks of 64 KiB can be taken over

	result Copied
	chain  hash.Hash // of Copied.Digest
	from   int64     // where to begin: behind it all is done
	save   func(*checkpoint) error
}

// packing is how chunks are compressed that are.
type packing uint8

const (
	packNothing packing = iota
	packDeflate
	packZstd
)

func newCopying(dst Target, img Image, opt CopyOptions) (*copying, error) {
	if opt.Every < 0 {
		return nil, fmt.Errorf("disk: CopyOptions.Every is %v", opt.Every)
	}
	if opt.Digest && opt.Unverified {
		return nil, errors.New("disk: a digest needs every block to be inflated")
	}
	c := &copying{opt: opt, img: img, size: img.Size(), chain: sha256.New()}
	for inner := img; ; {
		switch x := inner.(type) {
		case Disk:
			inner = x.Image
			continue
		case *overlaid:
			if x.err != nil {
				return nil, x.err
			}
			c.over, inner = x, x.base
			continue
		case *mapped:
			c.base = x
		case *sequential:
			if c.over != nil || opt.Skip != nil {
				return nil, onlySequential(x.f)
			}
			c.input = x
		}
		break
	}
	switch opt.Form {
	case Raw, Plain:
	case Zstd:
		c.pack = packZstd
	case Compact:
		c.pack = packZstd
		if c.base != nil && deflates(c.base.layout) {
			c.pack, c.pass = packDeflate, true
		}
	default:
		return nil, fmt.Errorf("disk: form %d is not known", opt.Form)
	}
	c.aim(dst)
	return c, nil
}

// aim sets where the copy is written to; nil is nowhere.
func (c *copying) aim(dst Target) {
	switch {
	case dst == nil:
		c.to = nowhere{}
	case c.opt.Form == Raw:
		c.to = &rawSink{dst: dst}
	default:
		c.to = newQCOW2Sink(dst, c.pack == packZstd)
	}
}

// deflates reports whether a disk may have blocks that can be taken over.
func deflates(l layout) bool {
	switch x := l.(type) {
	case *sparse:
		return x.packed && x.grain == copyChunk
	case *qcow2:
		return !x.zstd && x.cluster == copyChunk
	case *chain:
		return slices.ContainsFunc(x.parts, func(p chainPart) bool { return deflates(p.layout) })
	}
	return false
}

func (c *copying) run(ctx context.Context) (Copied, error) {
	if err := c.to.begin(c.size); err != nil {
		return c.result, err
	}
	workers := min(runtime.GOMAXPROCS(0), copyWorkers)
	todo, order := make(chan *piece, workers+copyWaiting), make(chan *piece, workers+copyWaiting)
	free := make(chan *piece, workers+copyWaiting)
	for range cap(free) {
		free <- &piece{bytes: make([]byte, copyPiece), made: make(chan struct{}, 1)}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(order)
		defer close(todo)
		s := &splitter{c: c, free: free, todo: todo, order: order}
		if c.input != nil {
			return s.sequence(ctx)
		}
		return s.split(ctx)
	})
	for range workers {
		group.Go(func() error {
			w, err := c.newWorker()
			for p := range todo {
				if err == nil && ctx.Err() == nil {
					p.err = w.make(p)
				} else {
					p.err = errors.Join(err, ctx.Err())
				}
				p.made <- struct{}{}
			}
			return nil // the writer tells, so that it is always the first error of the disk
		})
	}
	group.Go(func() error { return c.write(ctx, order, free) })
	if err := group.Wait(); err != nil {
		return c.result, err
	}
	length, err := c.to.end(c.size)
	c.result.Size, c.result.File = c.size, length
	if c.opt.Form != Raw {
		c.result.Size = (c.size + sector - 1) / sector * sector
	}
	if c.opt.Digest {
		c.chain.Write(be.AppendUint64(nil, uint64((c.size+sector-1)/sector)))
		c.result.Digest = hex.EncodeToString(c.chain.Sum(nil))
	}
	if err == nil && c.opt.Progress != nil && c.input == nil {
		c.opt.Progress(c.size, c.size)
	}
	return c.result, err
}

// write writes pieces in their order.
func (c *copying) write(ctx context.Context, order <-chan *piece, free chan<- *piece) (err error) {
	var saved chan error // of the checkpoint that is being saved
	tick := time.NewTicker(cmp.Or(c.opt.Every, copyCheckpoints))
	defer tick.Stop()
	defer func() {
		if saved != nil {
			err = cmp.Or(err, <-saved)
		}
	}()
	for p := range order {
		select {
		case <-p.made:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.err != nil {
			return p.err
		}
		if err := c.to.put(p); err != nil {
			return err
		}
		c.count(p)
		end := p.start + p.length
		if c.opt.Progress != nil && (c.input != nil || end < c.size) {
			c.opt.Progress(end, c.img.Size())
		}
		free <- p
		select {
		case err := <-saved:
			if saved = nil; err != nil {
				return err
			}
		default:
		}
		select {
		case <-tick.C:
			if c.save == nil || saved != nil {
				break
			}
			s, err := c.checkpoint(end)
			if err != nil {
				return err
			}
			saved = make(chan error, 1)
			go func() { saved <- c.save(s) }()
		default:
		}
	}
	return nil
}

// count adds a piece to what is told of the copy.
func (c *copying) count(p *piece) {
	c.result.Stored += p.stored
	c.result.Skipped += p.skipped
	for i := range copyChunks {
		if !p.holds(i) {
			continue
		}
		switch n := min(copyChunk, p.length-int64(i)*copyChunk); {
		case p.streams[i].length == 0:
			c.result.Plain += n
		case p.passed>>i&1 != 0:
			c.result.Passed += n
		default:
			c.result.Packed += n
		}
		if c.opt.Digest {
			var number [8]byte
			be.PutUint64(number[:], uint64(p.start/copyChunk)+uint64(i))
			c.chain.Write(number[:])
			c.chain.Write(p.digests[i][:])
		}
	}
}

// splitter cuts a disk into pieces.
type splitter struct {
	c           *copying
	free        <-chan *piece
	todo, order chan<- *piece

	p       *piece
	pull    func() (Range, error, bool)
	skip    Range // the range that is next, or of which something is left
	skipped int64 // where the last one ended
}

// split sends the pieces of which anything is wanted.
func (s *splitter) split(ctx context.Context) error {
	pull, stop := iter.Pull2(s.c.opt.skips())
	defer stop()
	s.pull = pull
	if err := s.next(); err != nil {
		return err
	}
	for x, err := range s.c.img.Extents() {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if x.Kind == Zero || x.Kind == Unallocated || x.Start+x.Length <= s.c.from {
			continue
		}
		if x.Start < s.c.from {
			x = x.behind(s.c.from)
		}
		if err := s.cut(ctx, x.Start, x.Start+x.Length); err != nil {
			return err
		}
	}
	return s.send(ctx)
}

func (o CopyOptions) skips() iter.Seq2[Range, error] {
	if o.Skip == nil {
		return func(func(Range, error) bool) {}
	}
	return o.Skip
}

// next takes the next range that is to be skipped; behind the last one is one at the end of all disks.
func (s *splitter) next() error {
	r, err, ok := s.pull()
	switch {
	case !ok:
		s.skip = Range{1 << 62, 0}
		return nil
	case err != nil:
		return err
	case r.Length < 0 || r.Start < s.skipped || r.Length > s.c.size-r.Start:
		return fmt.Errorf("disk: the range to skip of %d bytes at byte %d is not behind byte %d, or not inside the disk", r.Length, r.Start, s.skipped)
	}
	s.skip, s.skipped = r, r.end()
	return nil
}

// cut takes a range that is stored, but for what of it is skipped and not patched.
func (s *splitter) cut(ctx context.Context, start, end int64) error {
	for start < end {
		if s.skip.end() <= start {
			if err := s.next(); err != nil {
				return err
			}
			continue
		}
		stop := min(end, s.skip.Start)
		if start < stop {
			if err := s.take(ctx, start, stop, false); err != nil {
				return err
			}
			start = stop
			continue
		}
		// Inside a range to skip: up to the next patch.
		stop = min(end, s.skip.end())
		if s.c.over != nil {
			if after := s.c.over.from(start); len(after) > 0 && after[0].Off < stop {
				if after[0].Off <= start {
					stop = min(stop, after[0].end())
					if err := s.take(ctx, start, stop, false); err != nil {
						return err
					}
					start = stop
					continue
				}
				stop = after[0].Off
			}
		}
		if err := s.take(ctx, start, stop, true); err != nil {
			return err
		}
		start = stop
	}
	return nil
}

// take adds a range to the pieces: as wanted, or as a gap in what may be wanted.
func (s *splitter) take(ctx context.Context, start, end int64, gap bool) error {
	for start < end {
		first := start - start%copyPiece
		if s.p == nil || s.p.start != first {
			if err := s.send(ctx); err != nil {
				return err
			}
			if err := s.begin(ctx, first); err != nil {
				return err
			}
		}
		stop := min(end, first+copyPiece)
		from, to := (start-first)/copyChunk, (stop-first-1)/copyChunk
		mask := uint32(1<<(to-from+1)-1) << from
		s.p.stored += stop - start
		if gap {
			s.p.skipped += stop - start
			s.p.gaps = append(s.p.gaps, Range{start, stop - start})
			s.p.changed |= mask
		} else {
			s.p.want |= mask
		}
		start = stop
	}
	return nil
}

// begin takes a free piece for what is at byte start of the disk.
func (s *splitter) begin(ctx context.Context, start int64) error {
	select {
	case s.p = <-s.free:
	case <-ctx.Done():
		return ctx.Err()
	}
	p := s.p
	p.start, p.length = start, min(copyPiece, s.c.size-start)
	if s.c.input != nil {
		p.length = copyPiece
	}
	p.want, p.changed, p.passed, p.read = 0, 0, 0, false
	p.stored, p.skipped, p.gaps = 0, 0, p.gaps[:0]
	return nil
}

// send hands the piece on, unless nothing of it is wanted.
func (s *splitter) send(ctx context.Context) error {
	p := s.p
	if s.p = nil; p == nil {
		return nil
	}
	for i := range copyChunks {
		p.streams[i].length = 0
	}
	clear(p.data[:])
	p.packed, p.err = p.packed[:0], nil
	for _, to := range []chan<- *piece{s.order, s.todo} {
		select {
		case to <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// sequence sends the pieces of a disk that can only be read from its beginning to its end.
func (s *splitter) sequence(ctx context.Context) error {
	src := s.c.input
	in := newInlet(src.f)
	r, err := src.unpack(in)
	if err != nil {
		return src.fault(in, err)
	}
	for at := int64(0); ; at += copyPiece {
		if err := s.begin(ctx, at); err != nil {
			return err
		}
		n, err := fill(r, s.p.bytes)
		if err != nil && err != io.EOF {
			return src.fault(in, err)
		}
		if at+int64(n) > src.limit {
			return src.f.refuse(TooLarge, "compressed data", in.read(), "the disk has more than the %d bytes that are accepted", src.limit)
		}
		s.c.size = at + int64(n)
		s.p.length, s.p.read = int64(n), true
		if n > 0 {
			s.p.stored = int64(n)
			s.p.want = uint32(1<<((n+copyChunk-1)/copyChunk) - 1)
			if err := s.send(ctx); err != nil {
				return err
			}
		}
		if err != nil { // the end
			return nil
		}
	}
}

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
			p.digests[i] = sha256.Sum256(chunk)
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

// nowhere is the sink of a digest.
type nowhere struct{}

func (nowhere) begin(int64) error         { return nil }
func (nowhere) put(*piece) error          { return nil }
func (nowhere) end(int64) (int64, error)  { return 0, nil }
func (nowhere) state(*checkpoint)         {}
func (nowhere) restore(*checkpoint) error { return nil }

// rawSink writes the bytes of the guest's disk.
type rawSink struct {
	dst Target
}

// begin sets the size, so that what is written does not change it each time.
func (r *rawSink) begin(size int64) error {
	if size < 0 {
		return nil
	}
	_, err := r.end(size)
	return err
}

func (r *rawSink) put(p *piece) error {
	// Runs that meet at the end of a chunk are written at once.
	from, to := 0, 0
	flush := func() error {
		end := min(int64(to), p.length)
		if int64(from) >= end {
			return nil
		}
		return writeTo(r.dst, p.bytes[from:end], p.start+int64(from))
	}
	for i := range copyChunks {
		for a, b := range p.runs(i) {
			if a != to {
				if err := flush(); err != nil {
					return err
				}
				from = a
			}
			to = b
		}
	}
	return flush()
}

// writeTo writes all of p, in steps of copyWrite.
func writeTo(dst Target, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := dst.WriteAt(p[:min(len(p), copyWrite)], at)
		if err != nil {
			return fmt.Errorf("disk: write byte %d of the copy: %w", at+int64(n), err)
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

func (r *rawSink) end(size int64) (int64, error) {
	if err := r.dst.Truncate(size); err != nil {
		return 0, fmt.Errorf("disk: set the size of the copy: %w", err)
	}
	return size, nil
}

func (r *rawSink) state(*checkpoint) {}

// restore makes zeros of what was written behind the checkpoint.
func (r *rawSink) restore(s *checkpoint) error { return r.dst.Truncate(s.At) }
