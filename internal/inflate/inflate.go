// Package inflate decompresses deflate streams (RFC 1951, and RFC 1950 around them) whose size is known, from memory into
// memory: the grains and clusters of compressed virtual disks, about 64 KiB each.
//
// Having both buffers as a whole makes it about twice as fast as a decoder with io.Reader and a window, which is what
// compress/flate and klauspost/compress are; it accepts what compress/flate accepts. The input may be anything: the package
// has no unsafe code, uses no memory but the [Decoder]'s, and its time is bounded by the lengths of the two buffers.
//
// It does not compress, and does not stream. Start reading at [Decoder.Raw].
package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	// ErrCorrupt is a stream that is no deflate, or whose checksum is wrong.
	ErrCorrupt = errors.New("corrupt deflate stream")
	// ErrTruncated is a stream that does not end inside src.
	ErrTruncated = errors.New("truncated deflate stream")
	// ErrFull is a stream that goes on when dst is full. All of dst is then right.
	ErrFull = errors.New("the data goes on beyond the end of the block")
)

var le = binary.LittleEndian

// Decoder decompresses one stream after the other, one at a time. The zero value is ready; 20 KiB of tables make it worth
// keeping.
type Decoder struct {
	lit  [litTable]uint32
	dist [distTable]uint32
	pre  [1 << preBits]uint32
	lens [maxLit + maxDist]uint8
	// fixed: lit and dist are those of a block with fixed codes.
	fixed bool

	src []byte
	pos int    // of the next byte of src that is not in bits
	bit uint64 // bits that were taken out of src, lowest first
	n   uint   // how many bits those are; above them bit is zero between the methods
	dst []byte
	out int // bytes of dst that are written
}

// Raw decompresses the stream with which src begins into dst, and says how many bytes of dst it filled and how many bytes
// of src the stream took. What follows the stream in src is ignored. The stream may be shorter than dst; the bytes of dst
// behind n are then undefined. Errors are ErrCorrupt, ErrTruncated (with where in src) and ErrFull.
func (d *Decoder) Raw(dst, src []byte) (n, used int, err error) {
	d.src, d.pos, d.bit, d.n = src, 0, 0, 0
	d.dst, d.out = dst, 0
	defer func() { d.src, d.dst = nil, nil }()
	for final := false; !final; {
		d.fill()
		if d.n < 3 {
			return d.out, 0, d.fail(ErrTruncated)
		}
		final = d.bit&1 != 0
		kind := d.bit >> 1 & 3
		d.take(3)
		switch kind {
		case 0:
			err = d.stored()
		case 1:
			d.fixedTables()
			err = d.block()
		case 2:
			if err = d.dynamicTables(); err == nil {
				err = d.block()
			}
		default:
			err = ErrCorrupt
		}
		if err != nil {
			return d.out, 0, d.fail(err)
		}
	}
	return d.out, d.pos - int(d.n/8), nil
}

// Zlib is Raw for a stream in zlib's wrapping (RFC 1950), whose checksum it verifies. A preset dictionary is corrupt.
func (d *Decoder) Zlib(dst, src []byte) (n, used int, err error) {
	if len(src) < 2 {
		return 0, 0, fmt.Errorf("%w: no zlib header", ErrTruncated)
	}
	// Method 8, a window of at most 32 KiB, no dictionary, and the whole a multiple of 31.
	if src[0]&15 != 8 || src[0]>>4 > 7 || src[1]&0x20 != 0 || binary.BigEndian.Uint16(src)%31 != 0 {
		return 0, 0, fmt.Errorf("%w: zlib header %02x%02x", ErrCorrupt, src[0], src[1])
	}
	n, used, err = d.Raw(dst, src[2:])
	if err != nil {
		return n, 0, err
	}
	used += 2
	if len(src)-used < 4 {
		return n, 0, fmt.Errorf("%w: no checksum at byte %d", ErrTruncated, used)
	}
	if want, got := binary.BigEndian.Uint32(src[used:]), Adler32(dst[:n]); want != got {
		return n, 0, fmt.Errorf("%w: checksum %08x, computed %08x", ErrCorrupt, want, got)
	}
	return n, used + 4, nil
}

func (d *Decoder) fail(err error) error {
	if err == ErrFull {
		return err
	}
	return fmt.Errorf("%w at byte %d", err, d.pos-int(d.n/8))
}

// fill takes bytes out of src as long as they fit, so that at least 56 bits are there unless src ends.
func (d *Decoder) fill() {
	if d.n < 56 && len(d.src)-d.pos >= 8 {
		d.bit |= le.Uint64(d.src[d.pos:]) << (d.n & 63)
		d.pos += int((63 - d.n) >> 3)
		d.n |= 56
		d.bit &= 1<<(d.n&63) - 1
		return
	}
	for d.n < 56 && d.pos < len(d.src) {
		d.bit |= uint64(d.src[d.pos]) << d.n
		d.pos++
		d.n += 8
	}
}

func (d *Decoder) take(n uint) {
	d.bit >>= n
	d.n -= n
}

// stored copies a block that is not compressed.
func (d *Decoder) stored() error {
	d.take(d.n & 7)
	d.pos -= int(d.n / 8)
	d.bit, d.n = 0, 0
	if len(d.src)-d.pos < 4 {
		return ErrTruncated
	}
	size := le.Uint16(d.src[d.pos:])
	if size != ^le.Uint16(d.src[d.pos+2:]) {
		return ErrCorrupt
	}
	d.pos += 4
	from := d.src[d.pos:min(len(d.src), d.pos+int(size))]
	n := copy(d.dst[d.out:], from)
	d.pos += n
	d.out += n
	switch {
	case n < len(from):
		return ErrFull
	case n < int(size):
		return ErrTruncated
	}
	return nil
}

// block decompresses a block with the tables as they are.
func (d *Decoder) block() error {
	for {
		// Where both buffers have room, quickly; at their ends, symbol by symbol with every length checked.
		if len(d.src)-d.pos >= fastIn && len(d.dst)-d.out >= fastOut {
			if done, err := d.fast(); done || err != nil {
				return err
			}
		}
		if done, err := d.symbol(); done || err != nil {
			return err
		}
	}
}

// symbol decompresses one literal or one match; done is the end of the block.
func (d *Decoder) symbol() (done bool, err error) {
	d.fill()
	e := d.lit[d.bit&(1<<litBits-1)]
	if e&subtable != 0 {
		e = d.lit[(e>>16+uint32(d.bit>>litBits)&(1<<(e>>8&15)-1))%litTable]
	}
	switch {
	case e&invalid != 0:
		return false, ErrCorrupt
	case uint(e&63) > d.n:
		return false, ErrTruncated
	case e&literal != 0:
		if d.out == len(d.dst) {
			return false, ErrFull
		}
		d.dst[d.out] = byte(e >> 16)
		d.out++
		d.take(uint(e & 63))
		return false, nil
	case e&endOfBlock != 0:
		d.take(uint(e & 63))
		return true, nil
	}
	length := int(e>>16) + extra(d.bit, e)
	d.take(uint(e & 63))

	d.fill()
	e = d.dist[d.bit&(1<<distBits-1)]
	if e&subtable != 0 {
		e = d.dist[(e>>16+uint32(d.bit>>distBits)&(1<<(e>>8&15)-1))%distTable]
	}
	switch {
	case e&invalid != 0:
		return false, ErrCorrupt
	case uint(e&63) > d.n:
		return false, ErrTruncated
	}
	distance := int(e>>16) + extra(d.bit, e)
	d.take(uint(e & 63))
	if distance > d.out {
		return false, ErrCorrupt
	}
	full := length > len(d.dst)-d.out
	length = min(length, len(d.dst)-d.out)
	if distance >= length {
		d.out += copy(d.dst[d.out:d.out+length], d.dst[d.out-distance:])
		length = 0
	}
	for ; length > 0; length-- {
		d.dst[d.out] = d.dst[d.out-distance]
		d.out++
	}
	if full {
		return false, ErrFull
	}
	return false, nil
}

// extra is the value of the extra bits that follow the code word of e.
func extra(bits uint64, e uint32) int {
	return int(bits & (1<<(e&63) - 1) >> (e >> 8 & 15))
}

const (
	// fastIn and fastOut are what fast needs in front of it, in bytes: it loads 8 bytes after having moved on by up to 7,
	// and twice at that; it writes 3 literals before it looks how much room there is.
	fastIn  = 24
	fastOut = 3
	// wide is how many bytes are copied at a time, of which all but one may lie beyond the match.
	wide = 16
)

// fast decompresses until the block or one of the buffers is about to end. bit holds more bits here than n says: those
// that are the same when they are loaded again.
func (d *Decoder) fast() (done bool, err error) {
	src, dst := d.src, d.dst
	lit, dist := &d.lit, &d.dist
	pos, out := d.pos, d.out
	bit, n := d.bit, d.n
	lastIn, lastOut, lastEnd := len(src)-fastIn, len(dst)-fastOut, len(dst)-(wide-1)

	bit |= le.Uint64(src[pos:]) << (n & 63)
	pos += int((63 - n) >> 3)
	n |= 56
	e := lit[bit&(1<<litBits-1)]
decode:
	for pos <= lastIn && out <= lastOut {
		// Here n >= 56, and e is the entry for bit. A literal in the main table takes at most 11 bits.
		if e&literal != 0 {
			bit >>= e & 63
			n -= uint(e & 63)
			dst[out] = byte(e >> 16)
			out++
			e = lit[bit&(1<<litBits-1)]
			if e&literal != 0 {
				bit >>= e & 63
				n -= uint(e & 63)
				dst[out] = byte(e >> 16)
				out++
				e = lit[bit&(1<<litBits-1)]
				if e&literal != 0 {
					bit >>= e & 63
					n -= uint(e & 63)
					dst[out] = byte(e >> 16)
					out++
					bit |= le.Uint64(src[pos:]) << (n & 63)
					pos += int((63 - n) >> 3)
					n |= 56
					e = lit[bit&(1<<litBits-1)]
					continue
				}
			}
		}
		// n >= 34: enough for a length, 15 bits and 5 extra.
		if e&special != 0 {
			if e&subtable != 0 {
				e = lit[(e>>16+uint32(bit>>litBits)&(1<<(e>>8&15)-1))%litTable]
			}
			if e&(literal|special) != 0 {
				if e&invalid != 0 {
					err = ErrCorrupt
					break
				}
				bit >>= e & 63
				n -= uint(e & 63)
				if e&endOfBlock != 0 {
					done = true
					break
				}
				dst[out] = byte(e >> 16)
				out++
				bit |= le.Uint64(src[pos:]) << (n & 63)
				pos += int((63 - n) >> 3)
				n |= 56
				e = lit[bit&(1<<litBits-1)]
				continue
			}
		}
		length := int(e>>16) + extra(bit, e)
		bit >>= e & 63
		n -= uint(e & 63)
		if n < 28 { // a distance takes up to 15 bits and 13 extra
			bit |= le.Uint64(src[pos:]) << (n & 63)
			pos += int((63 - n) >> 3)
			n |= 56
		}
		e = dist[bit&(1<<distBits-1)]
		if e&special != 0 {
			if e&subtable != 0 {
				e = dist[(e>>16+uint32(bit>>distBits)&(1<<(e>>8&15)-1))%distTable]
			}
			if e&invalid != 0 {
				err = ErrCorrupt
				break
			}
		}
		distance := int(e>>16) + extra(bit, e)
		bit >>= e & 63
		n -= uint(e & 63)
		if distance > out {
			err = ErrCorrupt
			break
		}
		// The next symbol is looked up while the bytes are copied.
		bit |= le.Uint64(src[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e = lit[bit&(1<<litBits-1)]

		from, end := out-distance, out+length
		switch {
		case end > lastEnd:
			if end > len(dst) {
				end, err = len(dst), ErrFull
			}
			for out < end {
				dst[out] = dst[from]
				out++
				from++
			}
			if err != nil {
				break decode
			}
		case distance >= wide:
			for {
				a, b := le.Uint64(dst[from:]), le.Uint64(dst[from+8:])
				le.PutUint64(dst[out:], a)
				le.PutUint64(dst[out+8:], b)
				out += 16
				from += 16
				if out >= end {
					break
				}
			}
		case distance >= 8:
			for out < end {
				le.PutUint64(dst[out:], le.Uint64(dst[from:]))
				out += 8
				from += 8
			}
		case distance == 1:
			same := uint64(dst[from]) * 0x0101010101010101
			for out < end {
				le.PutUint64(dst[out:], same)
				out += 8
			}
		default:
			for out < end {
				dst[out] = dst[from]
				out++
				from++
			}
		}
		out = end
	}
	d.pos, d.out = pos, out
	d.bit, d.n = bit&(1<<(n&63)-1), n
	return done, err
}
