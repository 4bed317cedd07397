package s3

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// ErrNotUploaded is a part of an upload that has not come yet.
var ErrNotUploaded = errors.New("this has not been uploaded yet")

// Partial is a multipart upload on its way, as the file that it will be: what has come can be read, at its place. Of what has
// not, ReadAt says ErrNotUploaded. Parts that come while it is open can be read too.
type Partial struct {
	s    *Store
	u    *upload
	file *os.File
	size int64 // that the client says the file has
	part int64 // of each part but the last, in bytes
	name string

	missed atomic.Bool
}

// partialTail is how much of the file's end reads as zeros when it has not come: formats that are known by their last bytes
// are looked for there, and nothing else is read of them.
const partialTail = 1 << 10

// Partial opens the newest unfinished upload of a key that will have size bytes. Only parts of one size can be read, which the
// first part that came has: clients cut files so.
func (s *Store) Partial(bucketName, key string, size int64) (*Partial, error) {
	all, err := s.uploads(bucketName)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(u *upload) bool { return u.Key != key })
	if len(all) == 0 {
		return nil, ErrNoSuchUpload.about(key)
	}
	p := &Partial{s: s, u: all[len(all)-1], size: size}
	p.u.mu.RLock()
	defer p.u.mu.RUnlock()
	count := map[string]int{}
	for _, x := range p.u.parts {
		if !strings.HasPrefix(x.File, evenPrefix) {
			continue
		}
		if count[x.File]++; p.name == "" || count[x.File] > count[p.name] || count[x.File] == count[p.name] && x.Size > p.part {
			p.name, p.part = x.File, x.Size
		}
	}
	if p.name == "" {
		return nil, fmt.Errorf("%s/%s: %w", bucketName, key, ErrNotUploaded)
	}
	if p.file, err = s.root.Open(p.u.path(p.name)); err != nil {
		return nil, p.u.gone(err)
	}
	return p, nil
}

// Size is what the file will have, in bytes.
func (p *Partial) Size() int64 { return p.size }

// Uploaded is how many bytes have come.
func (p *Partial) Uploaded() (n int64) {
	p.u.mu.RLock()
	defer p.u.mu.RUnlock()
	for _, x := range p.u.parts {
		n += x.Size
	}
	return n
}

// ReadAt implements io.ReaderAt.
func (p *Partial) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 || off >= p.size {
		return 0, io.EOF
	}
	end := io.EOF
	if int64(len(b)) <= p.size-off {
		end = nil
	} else {
		b = b[:p.size-off]
	}
	if off >= p.size-partialTail && !p.has(off) {
		clear(b)
		return len(b), end
	}
	for n < len(b) {
		at := off + int64(n)
		if !p.has(at) {
			p.missed.Store(true)
			return n, fmt.Errorf("byte %d: %w", at, ErrNotUploaded)
		}
		m, err := p.file.ReadAt(b[n:min(int64(len(b)), int64(n)+p.part-at%p.part)], at)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, end
}

// Missed reports whether anything was asked for that had not come.
func (p *Partial) Missed() bool { return p.missed.Load() }

// has reports whether the part with a byte has come.
func (p *Partial) has(at int64) bool {
	p.u.mu.RLock()
	defer p.u.mu.RUnlock()
	x, ok := p.u.parts[int(at/p.part)+1]
	return ok && x.File == p.name && !p.u.closed
}

// Close lets go of the upload.
func (p *Partial) Close() error { return p.file.Close() }
