package ntfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// wofStream is the name of the stream that holds what the Windows Overlay Filter compressed.
const wofStream = "WofCompressedData"

// WOF providers and the compression of the FILE provider ([MS-FSCC] does not have them; wofapi.h does).
const (
	wofProviderWIM  = 1
	wofProviderFile = 2

	wofXpress4K  = 0
	wofLZX       = 1
	wofXpress8K  = 2
	wofXpress16K = 3
)

// wofReader inflates a file that CompactOS or compact /exe compressed. The unnamed stream then is a hole of the file's size; the
// stream WofCompressedData begins with a table: where each chunk but the first ends up, counted from the table's end, in 4
// bytes each (8 for a file of 4 GiB and more). A chunk that did not shrink is stored plainly.
type wofReader struct {
	what   string
	packed *stream
	size   int64
	chunk  int64
	entry  int64 // bytes of a table entry
	chunks int64

	mu       sync.Mutex
	at       int64 // number of the inflated chunk, -1 none
	inflated []byte
	in       []byte
	code     interface{ inflate(out, in []byte) error }
}

// newWOF opens the contents of a file whose reparse data, without the 8 bytes of header, is data.
//
//	0 WOF version (1)   4 provider   8 provider version (1)   12 compression
func newWOF(rec *record, size int64, data []byte) (*wofReader, error) {
	le := binary.LittleEndian
	if len(data) < 8 {
		return nil, rec.corrupt(-1, "WOF reparse data has %d bytes", len(data))
	}
	switch p := le.Uint32(data[4:]); {
	case p == wofProviderWIM:
		return nil, &UnsupportedError{What: "WOF files in a WIM (WIMBoot)"}
	case p != wofProviderFile:
		return nil, &UnsupportedError{What: fmt.Sprintf("WOF provider %d", p)}
	case len(data) < 16:
		return nil, rec.corrupt(-1, "WOF reparse data has %d bytes", len(data))
	}
	w := &wofReader{what: fmt.Sprintf("%s of MFT record %d", wofStream, rec.number), size: size, entry: 4, at: -1, code: new(xpress)}
	switch c := le.Uint32(data[12:]); c {
	case wofXpress4K:
		w.chunk = 4 << 10
	case wofXpress8K:
		w.chunk = 8 << 10
	case wofXpress16K:
		w.chunk = 16 << 10
	case wofLZX:
		w.chunk, w.code = lzxWindow, new(lzx)
	default:
		return nil, &UnsupportedError{What: fmt.Sprintf("WOF compression %d", c)}
	}
	if size >= 1<<32 {
		w.entry = 8
	}
	w.chunks = (size-1)/w.chunk + 1
	if size == 0 {
		w.chunks = 0
		return w, nil
	}
	var err error
	if w.packed, err = rec.stream(attrData, wofStream); err != nil {
		if isMissing(err) { // not absence of the file
			return nil, rec.corrupt(-1, "is compressed by WOF, but has no %s", wofStream)
		}
		return nil, err
	}
	return w, nil
}

// ReadAt implements io.ReaderAt.
func (w *wofReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset %d", w.what, off)
	}
	if off >= w.size {
		return 0, io.EOF
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	done := 0
	for done < len(p) && off < w.size {
		n := off / w.chunk
		if w.at != n {
			if err := w.load(n); err != nil {
				return done, err
			}
		}
		k := copy(p[done:], w.inflated[off-n*w.chunk:])
		done, off = done+k, off+int64(k)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// load inflates chunk n.
func (w *wofReader) load(n int64) error {
	w.at = -1
	table := w.entry * (w.chunks - 1)
	from, err := w.boundary(n)
	if err != nil {
		return err
	}
	to, err := w.boundary(n + 1)
	if err != nil {
		return err
	}
	want := min(w.chunk, w.size-n*w.chunk)
	if to <= from || to-from > want {
		return &CorruptError{What: w.what, Offset: w.entry * n, Detail: fmt.Sprintf("chunk %d from %d to %d", n, from, to)}
	}
	if w.inflated == nil {
		w.inflated, w.in = make([]byte, w.chunk), make([]byte, w.chunk)
	}
	in, out := w.in[:to-from], w.inflated[:want]
	if err := readFull(w.packed, in, table+from); err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	if to-from == want {
		copy(out, in)
	} else if err := w.code.inflate(out, in); err != nil {
		return &CorruptError{What: w.what, Offset: table + from, Detail: fmt.Sprintf("chunk %d: %v", n, err)}
	}
	w.inflated, w.at = out[:want:w.chunk], n
	if want < w.chunk { // the last chunk: keep the buffer's capacity for the others
		w.inflated = out
	}
	return nil
}

// boundary is where chunk n begins, counted from the end of the table.
func (w *wofReader) boundary(n int64) (int64, error) {
	table := w.entry * (w.chunks - 1)
	data := w.packed.size - table
	if data < 0 {
		return 0, &CorruptError{What: w.what, Offset: -1, Detail: fmt.Sprintf("%d bytes cannot hold a table of %d chunks", w.packed.size, w.chunks)}
	}
	switch n {
	case 0:
		return 0, nil
	case w.chunks:
		return data, nil
	}
	b := make([]byte, 8)
	if err := readFull(w.packed, b[:w.entry], w.entry*(n-1)); err != nil {
		return 0, fmt.Errorf("%s: %w", w.what, err)
	}
	at := binary.LittleEndian.Uint64(b)
	if at > uint64(data) {
		return 0, &CorruptError{What: w.what, Offset: w.entry * (n - 1), Detail: fmt.Sprintf("chunk %d begins at %d of %d", n, at, data)}
	}
	return int64(at), nil
}
