package ntfs

import (
	"fmt"
	"io"
	"sort"
	"sync"
)

// maxUnitBytes bounds a compression unit. Windows uses 16 clusters of at most 4096 bytes: 64 KiB.
const maxUnitBytes = 1 << 20

// run is a range of a stream's clusters; lcn is -1 for a hole.
type run struct{ vcn, lcn, n int64 }

// stream is the contents of an attribute. ReadAt is safe for concurrent use and returns io.EOF at size.
type stream struct {
	v           *Volume
	what        string // for messages
	resident    []byte
	nonResident bool
	runs        []run
	size, valid int64
	compressed  bool
	encrypted   bool
	unit        int64 // clusters per compression unit

	mu       sync.Mutex
	unitAt   int64 // number of the inflated unit, -1 none
	inflated []byte
}

// newStream joins the attributes, which are the parts of one stream in order. With partial set the extents may end early and
// appendRuns and checkMapped complete them.
func (v *Volume) newStream(rec *record, attrs []*attribute, partial bool) (*stream, error) {
	first := attrs[0]
	s := &stream{v: v, what: fmt.Sprintf("stream %#x of MFT record %d", first.typ, rec.number), unitAt: -1}
	if !first.nonResident {
		if len(attrs) > 1 {
			return nil, rec.corrupt(-1, "attribute %#x is resident, but in %d parts", first.typ, len(attrs))
		}
		s.resident, s.size, s.valid = first.value, int64(len(first.value)), int64(len(first.value))
		s.encrypted = first.flags&flagEncrypted != 0
		return s, nil
	}
	s.nonResident, s.size, s.valid = true, first.size, first.valid
	s.encrypted = first.flags&flagEncrypted != 0
	if first.flags&flagCompressed != 0 {
		if first.flags&flagCompressed != 1 {
			return nil, &UnsupportedError{What: fmt.Sprintf("compression method %d (%s)", first.flags&flagCompressed, s.what)}
		}
		if first.unitShift == 0 || first.unitShift > 16 || v.clusterBytes<<first.unitShift > maxUnitBytes {
			return nil, rec.corrupt(-1, "compression unit of 2^%d clusters", first.unitShift)
		}
		s.compressed, s.unit = true, 1<<first.unitShift
	}
	for _, a := range attrs {
		if err := s.appendRuns(rec, a); err != nil {
			return nil, err
		}
	}
	if partial {
		return s, nil
	}
	return s, s.checkMapped(rec)
}

// mappedClusters is how many clusters of the stream the runs cover.
func (s *stream) mappedClusters() int64 {
	if len(s.runs) == 0 {
		return 0
	}
	last := s.runs[len(s.runs)-1]
	return last.vcn + last.n
}

func (s *stream) checkMapped(rec *record) error {
	if n := s.mappedClusters(); (s.size-1)/s.v.clusterBytes >= n && s.size > 0 {
		return rec.corrupt(-1, "%s has %d bytes, but only %d clusters", s.what, s.size, n)
	}
	return nil
}

// appendRuns decodes the mapping pairs of a: a byte with the widths of length (low) and offset (high), the length, and the
// signed distance from the previous run's first cluster. Width 0 of the offset is a hole; a zero byte ends the list.
func (s *stream) appendRuns(rec *record, a *attribute) error {
	if !a.nonResident {
		return rec.corrupt(-1, "%s continues in a resident attribute", s.what)
	}
	vcn, lcn := a.firstVCN, int64(0)
	if vcn != s.mappedClusters() {
		return rec.corrupt(-1, "%s: part begins at cluster %d, expected %d", s.what, vcn, s.mappedClusters())
	}
	for b := a.runs; len(b) > 0 && b[0] != 0; {
		ln, on := int(b[0]&15), int(b[0]>>4)
		if ln == 0 || ln > 8 || on > 8 || 1+ln+on > len(b) {
			return rec.corrupt(-1, "%s: run header %#02x", s.what, b[0])
		}
		n := signed(b[1 : 1+ln])
		if n <= 0 || n > a.lastVCN+1-vcn {
			return rec.corrupt(-1, "%s: run of %d clusters at cluster %d of %d", s.what, n, vcn, a.lastVCN+1)
		}
		at := int64(-1)
		if on > 0 {
			// The sum of two int64 may wrap; both ends are checked, so a wrapped sum is caught or harmless.
			lcn += signed(b[1+ln : 1+ln+on])
			if at = lcn; at < 0 || at > s.v.clusters-n || n > s.v.clusters {
				return rec.corrupt(-1, "%s: run of %d clusters at %d, the volume has %d", s.what, n, at, s.v.clusters)
			}
		}
		if len(s.runs) == maxRuns {
			return fmt.Errorf("%s: more than %d extents: %w", s.what, maxRuns, ErrTooLarge)
		}
		s.runs = append(s.runs, run{vcn, at, n})
		vcn += n
		b = b[1+ln+on:]
	}
	if vcn != a.lastVCN+1 {
		return rec.corrupt(-1, "%s: runs end at cluster %d of %d", s.what, vcn, a.lastVCN+1)
	}
	return nil
}

// signed is a little-endian two's complement number of 1 to 8 bytes.
func signed(b []byte) int64 {
	n := int64(int8(b[len(b)-1]))
	for i := len(b) - 2; i >= 0; i-- {
		n = n<<8 | int64(b[i])
	}
	return n
}

// ReadAt implements io.ReaderAt.
func (s *stream) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset %d", s.what, off)
	}
	if s.encrypted {
		return 0, &UnsupportedError{What: "EFS encryption (" + s.what + ")"}
	}
	if off >= s.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > s.size-off
	if short {
		p = p[:s.size-off]
	}
	n, err := s.readAt(p, off)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// readAt reads p, which lies within size.
func (s *stream) readAt(p []byte, off int64) (int, error) {
	if !s.nonResident {
		return copy(p, s.resident[off:]), nil
	}
	done := 0
	for done < len(p) {
		q, at := p[done:], off+int64(done)
		if at >= s.valid { // allocated, but never written
			clear(q)
			return len(p), nil
		}
		q = q[:min(int64(len(q)), s.valid-at)]
		var n int
		var err error
		if s.compressed {
			n, err = s.readUnit(q, at)
		} else {
			n, err = s.readRun(q, at)
		}
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// runAt returns the index of the run that holds a cluster, or len(runs).
func (s *stream) runAt(vcn int64) int {
	return sort.Search(len(s.runs), func(i int) bool { return s.runs[i].vcn+s.runs[i].n > vcn })
}

// readRun reads as much of p at off as one run holds.
func (s *stream) readRun(p []byte, off int64) (int, error) {
	cb := s.v.clusterBytes
	i := s.runAt(off / cb)
	if i == len(s.runs) {
		return 0, &CorruptError{What: s.what, Offset: off, Detail: "no cluster holds this byte"}
	}
	r := s.runs[i]
	in := off - r.vcn*cb
	p = p[:min(int64(len(p)), r.n*cb-in)]
	if r.lcn < 0 {
		clear(p)
		return len(p), nil
	}
	if err := readFull(s.v.r, p, r.lcn*cb+in); err != nil {
		return 0, fmt.Errorf("%s: %w", s.what, err)
	}
	return len(p), nil
}

// readUnit reads as much of p at off as one compression unit holds. A unit whose clusters are all there is stored plainly, one
// with none is zeros, and one with some of them at its beginning is LZNT1 in these.
func (s *stream) readUnit(p []byte, off int64) (int, error) {
	cb := s.v.clusterBytes
	unitBytes := s.unit * cb
	unit := off / unitBytes
	in := off - unit*unitBytes
	p = p[:min(int64(len(p)), unitBytes-in)]

	stored := int64(0)
	for i, vcn := s.runAt(unit*s.unit), unit*s.unit; i < len(s.runs) && s.runs[i].lcn >= 0 && stored < s.unit; i++ {
		n := min(s.runs[i].vcn+s.runs[i].n-vcn, s.unit-stored)
		stored += n
		vcn += n
	}
	switch stored {
	case 0:
		clear(p)
		return len(p), nil
	case s.unit:
		return s.readRun(p, off)
	}
	// A last unit may be cut short by the end of the runs: then it is plain, unless a hole follows.
	if end := s.mappedClusters(); unit*s.unit+stored == end {
		return s.readRun(p[:min(int64(len(p)), stored*cb-in)], off)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unitAt != unit {
		packed := make([]byte, stored*cb)
		for n := 0; n < len(packed); {
			k, err := s.readRun(packed[n:], unit*unitBytes+int64(n))
			if err != nil {
				return 0, err
			}
			n += k
		}
		if s.inflated == nil {
			s.inflated = make([]byte, unitBytes)
		}
		s.unitAt = -1
		if err := lznt1(s.inflated, packed); err != nil {
			return 0, &CorruptError{What: s.what, Offset: unit * unitBytes, Detail: err.Error()}
		}
		s.unitAt = unit
	}
	return copy(p, s.inflated[in:]), nil
}
