package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// cachedPages bounds what a hive keeps of its file in memory: 1024 pages are 4 MiB.
const cachedPages = 1024

// pages reads a hive file page by page, what the logs changed over it, and keeps the pages last read. It may be used
// concurrently.
type pages struct {
	source io.ReaderAt
	size   int64 // bytes of source
	// changed tells, for each page that the logs changed, what is laid over it, in this order.
	changed map[int64][]piece
	// whole is the file up to its last hbin with the logs applied, for the one who edits; nil for those that only read.
	whole []byte
	// edited is pages that were written to, by the one who edits; nil for those that only read.
	edited map[int64][]byte

	slots [cachedPages]atomic.Pointer[cachedPage]
}

type cachedPage struct {
	page int64
	data []byte // never changed
}

// piece is a stretch of a page whose newest contents are in a log.
type piece struct {
	start, end int // in the page
	log        io.ReaderAt
	at         int64
}

// read is n bytes from off. The bytes are shared: they must not be changed. The caller has bounded n.
func (p *pages) read(off, n int64) ([]byte, error) {
	first := off / pageSize
	if n == 0 {
		return nil, nil
	}
	if first == (off+n-1)/pageSize {
		d, err := p.page(first)
		if err != nil {
			return nil, err
		}
		return d[off-first*pageSize:][:n:n], nil
	}
	out := make([]byte, 0, n)
	for page := first; int64(len(out)) < n; page++ {
		d, err := p.page(page)
		if err != nil {
			return nil, err
		}
		d = d[max(0, off-page*pageSize):]
		out = append(out, d[:min(int64(len(d)), n-int64(len(out)))]...)
	}
	return out, nil
}

func (p *pages) page(page int64) ([]byte, error) {
	if d, ok := p.edited[page]; ok {
		return d, nil
	}
	if p.whole != nil {
		at := page * pageSize
		if at+pageSize > int64(len(p.whole)) {
			return nil, fmt.Errorf("page %#x: %w", page, io.ErrUnexpectedEOF)
		}
		return p.whole[at : at+pageSize : at+pageSize], nil
	}
	slot := &p.slots[page%cachedPages]
	if c := slot.Load(); c != nil && c.page == page {
		return c.data, nil
	}
	d := make([]byte, pageSize)
	at := page * pageSize
	if left := p.size - at; left > 0 {
		if err := readFull(p.source, d[:min(left, pageSize)], at); err != nil {
			return nil, err
		}
	}
	for _, c := range p.changed[page] {
		if err := readFull(c.log, d[c.start:c.end], c.at); err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
	}
	slot.Store(&cachedPage{page, d})
	return d, nil
}

// change lays n bytes of a log over the file at off; what it hides is forgotten.
func (p *pages) change(off, n int64, log io.ReaderAt, at int64) {
	for end := off + n; off < end; {
		page := off / pageSize
		start := off - page*pageSize
		part := min(end-off, pageSize-start)
		c := piece{int(start), int(start + part), log, at}
		if part == pageSize {
			p.changed[page] = p.changed[page][:0]
		}
		p.changed[page] = append(p.changed[page], c)
		off += part
		at += part
	}
}

// write puts bytes over the file, in copies of its pages. Slices that were read before keep what they had.
func (p *pages) write(off int64, b []byte) error {
	for len(b) > 0 {
		page := off / pageSize
		d, err := p.page(page)
		if err != nil {
			return err
		}
		d = bytes.Clone(d)
		n := copy(d[off-page*pageSize:], b)
		p.edited[page] = d
		b = b[n:]
		off += int64(n)
	}
	return nil
}

// readFull fills b from off. A source that ends early is an error, whatever it returns.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes at %#x: %w", len(b), off, err)
}
