package disk

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"iter"
	"math/bits"
	"runtime"
	"slices"
	"time"

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
	copyWorkers = 5
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
	digests [copyChunks][32]byte                   // BLAKE3

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
	back   *writeBack // nil: the copy need not reach the disk
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
		}
		if err := ctx.Err(); err != nil { // even if the piece is made, too
			return err
		}
		if p.err != nil {
			return p.err
		}
		if err := c.to.put(p); err != nil {
			return err
		}
		c.count(p)
		if c.back != nil {
			c.back.wrote(p.length)
		}
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
