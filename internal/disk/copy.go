package disk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

const (
	// copyPiece is what one worker of Copy reads at a time, in bytes: no compressed block is larger, and pieces begin at
	// multiples of it, so that no block is inflated twice.
	copyPiece = maxBlock
	// copyStep is what of stored bytes is read and written at once: it stays in the processor's cache meanwhile.
	copyStep = 256 << 10
	// copyHole is the smallest run of zeros that becomes a hole, in bytes: a block of the usual file systems.
	copyHole = 4096
	// copyWorkers bounds the workers, each of which has a piece in memory.
	copyWorkers = 8
)

// Target is where Copy writes a raw disk: a new file. What was never written to it reads as zeros.
type Target interface {
	io.WriterAt
	// Truncate sets the size, in bytes. It is called before anything is written, or last if the size is not known before.
	Truncate(size int64) error
}

// Copy writes the bytes of a disk to dst, on all processors. Zeros are not written, so that holes stay holes and new ones
// appear, in units of 4 KiB. It holds at most 2 MiB for each of up to 8 workers in memory, and what the disk's Envelope does.
// progress, unless nil, is told how many of size bytes are done, holes included, by one worker at a time; size is -1 for a
// disk in a gzip or xz file ([Options].Sequential), which only Copy can read.
//
// An error is a *Refusal where the disk is at fault. What dst then holds is of no use; see [CopyFile].
func Copy(ctx context.Context, dst Target, img Image, progress func(done, size int64)) error {
	if d, ok := img.(Disk); ok {
		img = d.Image
	}
	if s, ok := img.(*sequential); ok {
		return s.copy(ctx, dst, progress)
	}
	size := img.Size()
	if err := dst.Truncate(size); err != nil {
		return fmt.Errorf("disk: set the size of the copy: %w", err)
	}
	c := &copying{dst: dst, img: img, size: size, progress: progress}
	group, ctx := errgroup.WithContext(ctx)
	pieces := make(chan piece)
	for range min(runtime.GOMAXPROCS(0)+1, copyWorkers) {
		group.Go(func() error {
			buffer := make([]byte, copyPiece)
			for p := range pieces {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := c.piece(buffer, p); err != nil {
					return err
				}
				c.tell(p.length)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(pieces)
		return c.split(ctx, pieces)
	})
	return group.Wait()
}

// CopyFile is Copy to a new file at path, which appears there when it is whole: until then its name ends in ".part", and an
// error removes it. If there is a file already, whole or part, that is an error that satisfies errors.Is(err, fs.ErrExist),
// and it is left as it is. With durable the file has reached its disk when it appears.
func CopyFile(ctx context.Context, path string, img Image, durable bool, progress func(done, size int64)) (err error) {
	part := path + ".part"
	absent := func() error {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return cmp.Or(err, error(&fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}))
		}
		return nil
	}
	if err := absent(); err != nil {
		return err
	}
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	err = Copy(ctx, f, img, progress)
	if err == nil && durable {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := absent(); err != nil { // somebody was quicker
		return err
	}
	if err := os.Rename(part, path); err != nil || !durable {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// copying is one call of Copy.
type copying struct {
	dst  Target
	img  Image
	size int64

	// writing is held by the one worker that writes: file systems let one writer into a file at a time, and there is a worker
	// more than processors, so that all of them inflate meanwhile.
	writing sync.Mutex

	mu       sync.Mutex
	done     int64
	progress func(done, size int64)
}

func (c *copying) tell(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	if c.progress != nil {
		c.progress(c.done, c.size)
	}
}

// piece is a range of the disk that lies between two multiples of copyPiece.
type piece struct {
	start, length int64
	packed        bool // some of it is compressed
}

// split sends the stored parts of the disk to the workers. What lies between two parts in one piece is read with them if it
// is small: a read that knows where there is nothing costs less than one more read.
func (c *copying) split(ctx context.Context, pieces chan<- piece) error {
	var next piece
	flush := func() error {
		if next.length == 0 {
			return nil
		}
		select {
		case pieces <- next:
		case <-ctx.Done():
			return ctx.Err()
		}
		next = piece{}
		return nil
	}
	for x, err := range c.img.Extents() {
		if err != nil {
			return err
		}
		if x.Kind == Zero || x.Kind == Unallocated {
			c.tell(x.Length)
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		}
		for x.Length > 0 {
			n := min(x.Length, copyPiece-x.Start%copyPiece)
			if next.length > 0 && (next.start+next.length != x.Start || x.Start%copyPiece == 0) {
				if err := flush(); err != nil {
					return err
				}
			}
			if next.length == 0 {
				next.start = x.Start
			}
			next.length += n
			next.packed = next.packed || x.Kind == Compressed
			x.Start += n
			x.Length -= n
		}
	}
	return flush()
}

// piece copies one piece.
func (c *copying) piece(buffer []byte, p piece) error {
	step := int64(copyStep)
	if p.packed {
		step = copyPiece // a block is inflated into place if it is wanted as a whole
	}
	for p.length > 0 {
		part := buffer[:min(p.length, step)]
		if n, err := c.img.ReadAt(part, p.start); n < len(part) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("disk: read byte %d of the disk: %w", p.start+int64(n), err)
		}
		c.writing.Lock()
		err := writeSparse(c.dst, part, p.start)
		c.writing.Unlock()
		if err != nil {
			return err
		}
		p.start += int64(len(part))
		p.length -= int64(len(part))
	}
	return nil
}

// writeSparse writes p at byte off, but for the blocks of dst that p fills with zeros.
func writeSparse(dst io.WriterAt, p []byte, off int64) error {
	for len(p) > 0 {
		// A run of blocks that are all zeros, or all not.
		first := min(int64(len(p)), copyHole-off%copyHole)
		zero := isZero(p[:first])
		n := first
		for n < int64(len(p)) && isZero(p[n:min(n+copyHole, int64(len(p)))]) == zero {
			n = min(n+copyHole, int64(len(p)))
		}
		if !zero {
			if _, err := dst.WriteAt(p[:n], off); err != nil {
				return fmt.Errorf("disk: write byte %d of the copy: %w", off, err)
			}
		}
		p, off = p[n:], off+n
	}
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
