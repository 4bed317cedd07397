package disk

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"berth/internal/inflate"
)

// A decompressor fills block from packed and says how much of it it filled, and how much of packed that took (0: not known,
// or the stream goes on). It is an error if packed does not fill it; what follows in packed is ignored. Its memory does not
// depend on what packed says.
type decompressor func(block, packed []byte) (n, used int, err error)

var inflaters = sync.Pool{New: func() any { return new(inflate.Decoder) }}

// inflateRaw is deflate without header and checksum: qcow2. As in QEMU a stream may go on when the block is full.
func inflateRaw(block, packed []byte) (n, used int, err error) {
	d := inflaters.Get().(*inflate.Decoder)
	defer inflaters.Put(d)
	n, used, err = d.Raw(block, packed)
	switch {
	case errors.Is(err, inflate.ErrFull):
		return n, 0, nil
	case err == nil && n < len(block):
		err = io.ErrUnexpectedEOF
	}
	return n, used, err
}

// inflateZlib is deflate in zlib's wrapping, whose checksum is checked: VMDK. Unlike the others it accepts a stream that
// ends before the block is full, and refuses one that does not end with it.
func inflateZlib(block, packed []byte) (n, used int, err error) {
	d := inflaters.Get().(*inflate.Decoder)
	defer inflaters.Put(d)
	return d.Zlib(block, packed)
}

// zstdWindow bounds the memory of a zstd decoder, in bytes: what RFC 8878 asks every decoder to support.
const zstdWindow = 8 << 20

var zstdPool sync.Pool

// inflateZstd reads one zstd frame: qcow2.
func inflateZstd(block, packed []byte) (n, used int, err error) {
	r, _ := zstdPool.Get().(*zstd.Decoder)
	if r == nil {
		var err error
		// One at a time: no goroutines that would have to be stopped.
		r, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return 0, 0, err
		}
	}
	defer zstdPool.Put(r)
	if err := r.Reset(bytes.NewReader(packed)); err != nil {
		return 0, 0, err
	}
	n, err = io.ReadFull(r, block)
	return n, 0, err
}

// window is memory for the packed bytes of blocks, used over and over: those that were read ahead, many blocks at once, or
// those of one block.
type window struct {
	f     *file
	at    int64  // byte of f where ahead begins
	ahead []byte // length 0: nothing was read ahead
	one   []byte
}

// windows are those of single reads, which read nothing ahead.
var windows = sync.Pool{New: func() any { return new(window) }}

// bytes returns n bytes of f at offset, until the next call; field names what is being read. The caller bounds n.
func (w *window) bytes(f *file, field string, offset, n int64) ([]byte, error) {
	if w.holds(f, offset, n) {
		return w.ahead[offset-w.at : offset-w.at+n : offset-w.at+n], nil
	}
	if !f.holds(offset, n) {
		return nil, f.refuse(Damaged, field, offset, "needs %d bytes, but the file ends at byte %d", n, f.size)
	}
	if int64(cap(w.one)) < n {
		w.one = make([]byte, n)
	}
	w.one = w.one[:n]
	return w.one, f.readFull(w.one, offset, field)
}

// holds reports whether n bytes of f at offset were read ahead.
func (w *window) holds(f *file, offset, n int64) bool {
	return w.f == f && offset >= w.at && offset-w.at <= int64(len(w.ahead)) && n <= int64(len(w.ahead))-(offset-w.at)
}

// load reads n bytes of f at offset ahead, as far as there are so many. What cannot be read is read again when it is needed,
// and then is an error.
func (w *window) load(f *file, offset, n int64) {
	n = min(n, f.size-offset)
	if int64(cap(w.ahead)) < n {
		w.ahead = make([]byte, n)
	}
	w.f, w.at, w.ahead = f, offset, w.ahead[:n]
	if f.readFull(w.ahead, offset, "blocks") != nil {
		w.ahead = w.ahead[:0]
	}
}
