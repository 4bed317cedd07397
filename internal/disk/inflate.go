package disk

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"berth/internal/inflate"
)

// A decompressor fills block from packed and says how much of it it filled. It is an error if packed does not fill it;
// what follows in packed is ignored. Its memory does not depend on what packed says.
type decompressor func(block, packed []byte) (int, error)

var inflaters = sync.Pool{New: func() any { return new(inflate.Decoder) }}

// inflateRaw is deflate without header and checksum: qcow2. As in QEMU a stream may go on when the block is full.
func inflateRaw(block, packed []byte) (int, error) {
	d := inflaters.Get().(*inflate.Decoder)
	defer inflaters.Put(d)
	n, _, err := d.Raw(block, packed)
	switch {
	case errors.Is(err, inflate.ErrFull):
		err = nil
	case err == nil && n < len(block):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// inflateZlib is deflate in zlib's wrapping, whose checksum is checked: VMDK. Unlike the others it accepts a stream that
// ends before the block is full, and refuses one that does not end with it.
func inflateZlib(block, packed []byte) (int, error) {
	d := inflaters.Get().(*inflate.Decoder)
	defer inflaters.Put(d)
	n, _, err := d.Zlib(block, packed)
	return n, err
}

// zstdWindow bounds the memory of a zstd decoder, in bytes: what RFC 8878 asks every decoder to support.
const zstdWindow = 8 << 20

var zstdPool sync.Pool

// inflateZstd reads one zstd frame: qcow2.
func inflateZstd(block, packed []byte) (int, error) {
	r, _ := zstdPool.Get().(*zstd.Decoder)
	if r == nil {
		var err error
		// One at a time: no goroutines that would have to be stopped.
		r, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return 0, err
		}
	}
	defer zstdPool.Put(r)
	if err := r.Reset(bytes.NewReader(packed)); err != nil {
		return 0, err
	}
	return io.ReadFull(r, block)
}

// loan is memory for packed bytes, used over and over.
type loan struct{ bytes []byte }

var loanPool = sync.Pool{New: func() any { return new(loan) }}

func borrow(n int64) *loan {
	l := loanPool.Get().(*loan)
	if int64(cap(l.bytes)) < n {
		l.bytes = make([]byte, n)
	}
	l.bytes = l.bytes[:n]
	return l
}

func (l *loan) release() { loanPool.Put(l) }
