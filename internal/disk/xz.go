package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// XZ around a raw disk, as "The .xz File Format" 1.2.1 describes it. Numbers are little endian, n is a number of 7 bits a
// byte, lowest first.
//
//	stream  | header | block | ... | index | footer |  perhaps zeros, and another stream
//	header  0 fd "7zXZ" 0   6 flags: 0, kind of check   8 CRC-32 of the flags
//	block   0 length/4-1   1 flags   n compressed, n decompressed size (if the flags say so)   filters: n id, n length, bytes
//	        zeros, CRC-32 | LZMA2 data | zeros up to 4 bytes | check
//	index   0   n blocks   for each: n its length without zeros, n decompressed size | zeros up to 4 bytes | CRC-32
//	footer  0 CRC-32   4 length of the index/4-1   8 flags   10 "YZ"
//
// The streams are read here and not by the library, which would make room for a dictionary of 4 GiB if a block says so.
const (
	xzMagic = "\xfd7zXZ\x00"

	// xzMaxDict is the largest dictionary, in bytes: that of xz -9. It is what decompressing needs in memory.
	xzMaxDict = 64 << 20
	// xzRoom is how many bytes of dictionaries may be made in all, beyond 16 times the file and twice what was decompressed: many
	// small blocks would otherwise keep their reader busy with making room. With what else a copy needs, on a machine with many
	// processors, it stays below 64 MiB.
	xzRoom = 32 << 20
	// xzBlock is what a block takes besides its dictionary, in bytes, counted with it: mostly the probabilities of LZMA.
	xzBlock = 64 << 10
	xzLZMA2 = 0x21
)

var ecma = crc64.MakeTable(crc64.ECMA)

var errXZ = errors.New("not as the format has it")

func isXZ(src Source) bool { return begins(src, 0, xzMagic) }

func openXZ(f *file, opt Options) (*Envelope, error) {
	return openSequential(f, opt, func(in *inlet) (io.Reader, error) {
		x := &xzReader{in: in}
		return x, x.stream()
	})
}

// xzReader reads the streams of a file.
type xzReader struct {
	in     *inlet
	flags  [2]byte
	block  io.Reader // the current block's data; nil between blocks
	check  hash.Hash // nil: none is known, what is stored is not looked at
	sized  int       // bytes of the check
	begun  int64     // byte at which the block begins
	data   int64     // byte at which its data begins
	packed int64     // bytes, -1: not said
	size   int64     // decompressed bytes, -1: not said
	out    int64     // bytes of the block so far

	total, taken int64     // bytes decompressed, and of memory for blocks, so far
	blocks       uint64    // of the stream
	sizes        hash.Hash // of what its index will have to say
}

// stream reads a stream's header.
func (x *xzReader) stream() error {
	var h [12]byte
	if err := x.full(h[:]); err != nil {
		return err
	}
	switch {
	case string(h[:6]) != xzMagic:
		return fmt.Errorf("stream header: %w", errXZ)
	case crc32.ChecksumIEEE(h[6:8]) != le.Uint32(h[8:]):
		return fmt.Errorf("stream header: wrong checksum")
	case h[6] != 0 || h[7] > 15:
		return x.in.f.refuse(Unsupported, "stream flags", x.in.read()-6, "%02x%02x", h[6], h[7])
	}
	x.flags = [2]byte(h[6:8])
	x.sized = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[h[7]]
	switch h[7] {
	case 0:
		x.check = nil
	case 1:
		x.check = crc32.NewIEEE()
	case 4:
		x.check = crc64.New(ecma)
	case 10:
		x.check = sha256.New()
	default:
		return x.in.f.refuse(Unsupported, "stream flags", x.in.read()-5, "check %d, known are 0 (none), 1 (CRC-32), 4 (CRC-64) and 10 (SHA-256)", h[7])
	}
	x.blocks, x.sizes = 0, sha256.New()
	return nil
}

func (x *xzReader) Read(p []byte) (int, error) {
	for {
		if x.block == nil {
			if err := x.next(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := x.block.Read(p)
		if x.check != nil {
			x.check.Write(p[:n])
		}
		x.out += int64(n)
		x.total += int64(n)
		if x.size >= 0 && x.out > x.size {
			return n, fmt.Errorf("the block has more than the %d bytes that it says", x.size)
		}
		if err == io.EOF {
			err = x.endOfBlock()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next begins the next block, or ends the stream; io.EOF is the end of the file.
func (x *xzReader) next() error {
	x.begun = x.in.read()
	size, err := x.in.ReadByte()
	if err != nil {
		return unexpected(err)
	}
	if size == 0 {
		if err := x.index(); err != nil {
			return err
		}
		// Zeros in fours, then the end or another stream.
		for {
			four, err := x.in.Peek(4)
			switch {
			case len(four) == 0 && err == io.EOF:
				return io.EOF
			case len(four) < 4:
				return unexpected(err)
			case le.Uint32(four) != 0:
				return x.stream()
			}
			if _, err := x.in.Discard(4); err != nil {
				return err
			}
		}
	}
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if err := x.full(h[1:]); err != nil {
		return err
	}
	body := h[:len(h)-4]
	if crc32.ChecksumIEEE(body) != le.Uint32(h[len(body):]) {
		return errors.New("block header: wrong checksum")
	}
	flags := body[1]
	r := bytes.NewReader(body[2:])
	x.packed, x.size = -1, -1
	for _, field := range []struct {
		bit byte
		to  *int64
	}{{0x40, &x.packed}, {0x80, &x.size}} {
		if flags&field.bit == 0 {
			continue
		}
		if *field.to, err = xzNumber(r); err != nil {
			return fmt.Errorf("block header: %w", err)
		}
	}
	filter, err := xzNumber(r)
	if err == nil && (flags&0x3f != 0 || filter != xzLZMA2) {
		return x.in.f.refuse(Unsupported, "block header", x.begun+1, "flags %#x, first filter %#x: only LZMA2 alone (%#x) is read", flags, filter, xzLZMA2)
	}
	one, err2 := xzNumber(r)
	bits, err3 := r.ReadByte()
	if err != nil || err2 != nil || err3 != nil || one != 1 || bits > 40 {
		return fmt.Errorf("block header: filter: %w", errXZ)
	}
	for r.Len() > 0 {
		if b, _ := r.ReadByte(); b != 0 {
			return fmt.Errorf("block header: padding: %w", errXZ)
		}
	}
	// 2 or 3 times a power of two; 40 is 4 GiB - 1.
	dict := int64(2|bits&1) << (bits/2 + 11)
	if dict > xzMaxDict {
		return x.in.f.refuse(TooLarge, "dictionary", x.begun, "%d bytes, at most %d are accepted: compress the disk with xz -9 or less", dict, xzMaxDict)
	}
	if x.size >= 0 {
		dict = min(dict, x.size)
	}
	// A file too small for more room has no use for it.
	room := xzRoom + 16*x.in.f.size
	dict = min(dict, room)
	if x.taken += dict + xzBlock; x.taken > room+xzBlock+2*x.total {
		return errors.New("so many blocks for so few bytes")
	}
	x.out, x.data = 0, x.in.read()
	if x.check != nil {
		x.check.Reset()
	}
	block, err := lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}.NewReader2(x.in)
	if err != nil {
		return unexpected(err)
	}
	x.block = block
	return nil
}

// endOfBlock checks what follows a block's data.
func (x *xzReader) endOfBlock() error {
	x.block = nil
	packed := x.in.read() - x.data
	if x.packed >= 0 && packed != x.packed || x.size >= 0 && x.out != x.size {
		return fmt.Errorf("a block of %d bytes with %d, but it says %d with %d", packed, x.out, x.packed, x.size)
	}
	if err := x.padding(packed); err != nil {
		return err
	}
	stored := make([]byte, x.sized)
	if err := x.full(stored); err != nil {
		return err
	}
	if x.check != nil {
		sum := x.check.Sum(nil)
		if x.sized < 32 { // the CRCs are stored with their lowest byte first
			for i, j := 0, len(sum)-1; i < j; i, j = i+1, j-1 {
				sum[i], sum[j] = sum[j], sum[i]
			}
		}
		if !bytes.Equal(sum, stored) {
			return errors.New("wrong checksum of a block")
		}
	}
	x.blocks++
	x.sizes.Write(le.AppendUint64(le.AppendUint64(nil, uint64(x.data-x.begun+packed+int64(x.sized))), uint64(x.out)))
	return nil
}

// index checks a stream's index, whose first byte was read, and its footer.
func (x *xzReader) index() error {
	crc := crc32.NewIEEE()
	crc.Write([]byte{0})
	r := tee{x.in, crc}
	n, err := xzNumber(r)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if uint64(n) != x.blocks {
		return fmt.Errorf("the index has %d blocks, the stream %d", n, x.blocks)
	}
	sizes := sha256.New()
	for range 2 * n {
		size, err := xzNumber(r)
		if err != nil {
			return fmt.Errorf("index: %w", err)
		}
		sizes.Write(le.AppendUint64(nil, uint64(size)))
	}
	if !bytes.Equal(sizes.Sum(nil), x.sizes.Sum(nil)) {
		return errors.New("the index does not tell of the stream's blocks")
	}
	for (x.in.read()-x.begun)%4 != 0 {
		if b, err := r.ReadByte(); err != nil || b != 0 {
			return fmt.Errorf("index: padding: %w", unexpected(err))
		}
	}
	length := x.in.read() - x.begun + 4
	var end [16]byte // the index's checksum, and the footer
	if err := x.full(end[:]); err != nil {
		return err
	}
	switch {
	case le.Uint32(end[:]) != crc.Sum32():
		return errors.New("index: wrong checksum")
	case le.Uint32(end[4:]) != crc32.ChecksumIEEE(end[8:14]):
		return errors.New("stream footer: wrong checksum")
	case (int64(le.Uint32(end[8:]))+1)*4 != length || [2]byte(end[12:14]) != x.flags || string(end[14:]) != "YZ":
		return fmt.Errorf("stream footer: %w", errXZ)
	}
	return nil
}

// padding reads the zeros that fill n bytes up to fours.
func (x *xzReader) padding(n int64) error {
	for ; n%4 != 0; n++ {
		if b, err := x.in.ReadByte(); err != nil {
			return unexpected(err)
		} else if b != 0 {
			return fmt.Errorf("padding: %w", errXZ)
		}
	}
	return nil
}

func (x *xzReader) full(p []byte) error {
	_, err := io.ReadFull(x.in, p)
	return unexpected(err)
}

// unexpected makes of the end of the file an error.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// xzNumber reads a number of at most 63 bits.
func xzNumber(r io.ByteReader) (int64, error) {
	n, err := binary.ReadUvarint(r)
	if err == nil && n >= 1<<63 {
		err = errXZ
	}
	return int64(n), unexpected(err)
}

// tee is a ByteReader whose bytes are written to a hash.
type tee struct {
	io.ByteReader
	hash.Hash
}

func (t tee) ReadByte() (byte, error) {
	b, err := t.ByteReader.ReadByte()
	if err == nil {
		t.Hash.Write([]byte{b})
	}
	return b, err
}
