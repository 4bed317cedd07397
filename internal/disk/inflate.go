package disk

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// A decompressor fills block from packed and says how much of it it filled. It is an error if packed does not fill it;
// what follows in packed is ignored. Its memory does not depend on what packed says.
type decompressor func(block, packed []byte) (int, error)

// errLonger is a stream that goes on after its block is full.
var errLonger = errors.New("the data goes on beyond the end of the block")

var flatePool = sync.Pool{New: func() any { return flate.NewReader(bytes.NewReader(nil)) }}

// inflateRaw is deflate without header and checksum: qcow2.
func inflateRaw(block, packed []byte) (int, error) {
	r := flatePool.Get().(io.ReadCloser)
	defer flatePool.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(packed), nil); err != nil {
		return 0, err
	}
	return io.ReadFull(r, block)
}

var zlibPool sync.Pool

// inflateZlib is deflate in zlib's wrapping, whose checksum is checked: VMDK. Unlike the others it accepts a stream that
// ends before the block is full, and refuses one that does not end with it.
func inflateZlib(block, packed []byte) (int, error) {
	src := bytes.NewReader(packed)
	r, _ := zlibPool.Get().(io.ReadCloser)
	var err error
	if r == nil {
		r, err = zlib.NewReader(src)
	} else {
		err = r.(zlib.Resetter).Reset(src, nil)
	}
	if err != nil {
		return 0, err
	}
	defer zlibPool.Put(r)
	n, err := io.ReadFull(r, block)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		// ReadFull makes "ended early" of a clean end; a cut stream has to stay an error.
		var one [1]byte
		if _, again := r.Read(one[:]); errors.Is(again, io.EOF) {
			return n, nil
		}
		return n, err
	}
	if err != nil {
		return n, err
	}
	var one [1]byte
	switch more, err := r.Read(one[:]); {
	case more > 0:
		return n, errLonger
	case !errors.Is(err, io.EOF):
		return n, err
	}
	return n, nil
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
