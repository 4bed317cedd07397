package ntfs

import (
	"encoding/binary"
	"errors"
)

var errLZX = errors.New("LZX data is damaged")

const (
	lzxWindow    = 32 << 10 // bytes; also the largest chunk and the default block
	lzxSlots     = 30       // of match offsets, for this window
	lzxMain      = 256 + 8*lzxSlots
	lzxLengths   = 249
	lzxPretree   = 20
	lzxE8Bytes   = 12_000_000 // the size of file that the translation of calls assumes, whatever the file's
	lzxE8Tail    = 10         // bytes at the end of a chunk in which no call is translated
	lzxVerbatim  = 1
	lzxAligned   = 2
	lzxRaw       = 3
	lzxMinLength = 2
)

// lzx inflates chunks of LZX as WIM files and WOF have it ([MS-PATCH] describes the format; a chunk here is independent of the
// others, has no header, and its calls are always translated). The zero value is ready; it holds tables and is not safe for
// concurrent use.
type lzx struct {
	in   []byte
	p    int    // of the next word
	buf  uint32 // bits, the next one highest
	have int    // bits in buf
	used int    // bits taken since the beginning of in

	mainLen                        [lzxMain]byte
	lengthLen                      [lzxLengths]byte
	main, length, aligned, pretree huffman
	recent                         [3]int
}

// inflate fills out, at most lzxWindow bytes, from in.
func (x *lzx) inflate(out, in []byte) error {
	x.in, x.p, x.buf, x.have, x.used = in, 0, 0, 0, 0
	clear(x.mainLen[:])
	clear(x.lengthLen[:])
	x.recent = [3]int{1, 1, 1}
	for pos := 0; pos < len(out); {
		kind := x.bits(3)
		size := lzxWindow
		if x.bits(1) == 0 {
			size = x.bits(16)
		}
		if size == 0 || size > len(out)-pos {
			return errLZX
		}
		var err error
		if kind == lzxRaw {
			err = x.raw(out[pos : pos+size])
		} else if err = x.codes(kind); err == nil {
			err = x.block(out[:pos+size], pos, kind == lzxAligned)
		}
		if err != nil {
			return err
		}
		pos += size
	}
	untranslate(out)
	return nil
}

// fill has at least 16 bits in buf; behind the end there are zeros.
func (x *lzx) fill() {
	for x.have <= 16 {
		w := uint32(0)
		if x.p+2 <= len(x.in) {
			w = uint32(binary.LittleEndian.Uint16(x.in[x.p:]))
		}
		x.p += 2
		x.buf |= w << (16 - x.have)
		x.have += 16
	}
}

// bits takes n bits, 16 at most.
func (x *lzx) bits(n int) int {
	if n == 0 {
		return 0
	}
	x.fill()
	v := int(x.buf >> (32 - n))
	x.take(n)
	return v
}

func (x *lzx) take(n int) {
	x.buf <<= n
	x.have -= n
	x.used += n
}

// symbol takes a symbol of a code.
func (x *lzx) symbol(h *huffman) (int, error) {
	x.fill()
	s, l := h.decode(x.buf)
	if l == 0 || x.used+l > 8*len(x.in) {
		return 0, errLZX
	}
	x.take(l)
	return s, nil
}

// raw copies a block that is stored. It begins at the next word (a whole word is skipped if the bits end at one) with the three recent
// offsets; after an odd number of bytes there is one more.
func (x *lzx) raw(out []byte) error {
	p := 2 * (x.used/16 + 1)
	if p+12+len(out) > len(x.in) {
		return errLZX
	}
	for i := range x.recent {
		o := binary.LittleEndian.Uint32(x.in[p+4*i:])
		if o == 0 || o > lzxWindow {
			return errLZX
		}
		x.recent[i] = int(o)
	}
	copy(out, x.in[p+12:])
	x.p = p + 12 + (len(out)+1)&^1
	x.buf, x.have, x.used = 0, 0, 8*x.p
	return nil
}

// codes reads the codes of a block. Lengths are told as differences from those of the block before.
func (x *lzx) codes(kind int) error {
	switch kind {
	case lzxAligned:
		var l [8]byte
		for i := range l {
			l[i] = byte(x.bits(3))
		}
		if err := x.aligned.build(l[:]); err != nil {
			return err
		}
	case lzxVerbatim:
	default:
		return errLZX
	}
	for _, part := range [][]byte{x.mainLen[:256], x.mainLen[256:], x.lengthLen[:]} {
		if err := x.lengths(part); err != nil {
			return err
		}
	}
	if err := x.main.build(x.mainLen[:]); err != nil {
		return err
	}
	return x.length.build(x.lengthLen[:])
}

// lengths reads code lengths by a code of their own: 0 to 16 a difference, 17 and 18 runs of zeros, 19 a run of one length.
func (x *lzx) lengths(l []byte) error {
	var pre [lzxPretree]byte
	for i := range pre {
		pre[i] = byte(x.bits(4))
	}
	if err := x.pretree.build(pre[:]); err != nil {
		return err
	}
	for i := 0; i < len(l); {
		s, err := x.symbol(&x.pretree)
		if err != nil {
			return err
		}
		n, v := 1, byte(0)
		switch s {
		case 17:
			n = 4 + x.bits(4)
		case 18:
			n = 20 + x.bits(5)
		case 19:
			n = 4 + x.bits(1)
			if s, err = x.symbol(&x.pretree); err != nil || s > 16 {
				return errLZX
			}
			fallthrough
		default:
			v = byte((int(l[i]) - s + 17) % 17)
		}
		if n > len(l)-i { // Windows' compressor may write a run beyond the end; it counts up to there
			n = len(l) - i
		}
		for range n {
			l[i] = v
			i++
		}
	}
	return nil
}

// lzxBase is the first offset of a slot, plus 2, and lzxExtra how many bits follow it.
var lzxBase, lzxExtra = func() (base, extra [lzxSlots]int) {
	for i := range base {
		extra[i] = max(0, i/2-1)
		if i > 0 {
			base[i] = base[i-1] + 1<<extra[i-1]
		}
	}
	return base, extra
}()

// block inflates a block into out[pos:].
func (x *lzx) block(out []byte, pos int, aligned bool) error {
	for pos < len(out) {
		s, err := x.symbol(&x.main)
		if err != nil {
			return err
		}
		if s < 256 {
			out[pos] = byte(s)
			pos++
			continue
		}
		length, slot := (s-256)&7, (s-256)>>3
		if length == 7 {
			l, err := x.symbol(&x.length)
			if err != nil {
				return err
			}
			length += l
		}
		length += lzxMinLength
		var offset int
		if slot < 3 { // one of the last three, which goes to the front
			offset = x.recent[slot]
			x.recent[slot] = x.recent[0]
		} else {
			n := lzxExtra[slot]
			offset = lzxBase[slot] - 2
			if aligned && n >= 3 {
				offset += x.bits(n-3) << 3
				low, err := x.symbol(&x.aligned)
				if err != nil {
					return err
				}
				offset += low
			} else {
				offset += x.bits(n)
			}
			x.recent[2], x.recent[1] = x.recent[1], x.recent[0]
		}
		x.recent[0] = offset
		if offset > pos || length > len(out)-pos {
			return errLZX
		}
		for range length {
			out[pos] = out[pos-offset]
			pos++
		}
	}
	return nil
}

// untranslate turns the targets of x86 calls (0xE8), which the compressor made absolute, back into relative ones.
func untranslate(b []byte) {
	for i := 0; i < len(b)-lzxE8Tail; i++ {
		if b[i] != 0xE8 {
			continue
		}
		target := b[i+1 : i+5]
		if a := int(int32(binary.LittleEndian.Uint32(target))); a >= -i && a < lzxE8Bytes {
			if a >= 0 {
				a -= i
			} else {
				a += lzxE8Bytes
			}
			binary.LittleEndian.PutUint32(target, uint32(a))
		}
		i += 4
	}
}
