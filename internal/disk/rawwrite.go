package disk

import "fmt"

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
