package disk

import (
	"context"
	"fmt"
	"io"
	"iter"
)

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
