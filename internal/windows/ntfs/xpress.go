package ntfs

import (
	"encoding/binary"
	"errors"
)

var errXpress = errors.New("XPRESS data is damaged")

// xpressTable is the size of the code lengths that a chunk begins with, in bytes: 512 symbols, 4 bits each.
const xpressTable = 256

// xpress inflates chunks of LZ77+Huffman ([MS-XCA] 2.2). The zero value is ready; it holds tables and is not safe for
// concurrent use.
type xpress struct{ code huffman }

// inflate fills out from in.
func (x *xpress) inflate(out, in []byte) error {
	if len(in) < xpressTable+4 {
		return errXpress
	}
	var lengths [2 * xpressTable]byte
	for i, b := range in[:xpressTable] {
		lengths[2*i], lengths[2*i+1] = b&15, b>>4
	}
	if err := x.code.build(lengths[:]); err != nil {
		return err
	}
	p := xpressTable
	word := func() uint32 {
		w := uint32(0)
		if p+2 <= len(in) {
			w = uint32(binary.LittleEndian.Uint16(in[p:]))
		}
		p += 2
		return w
	}
	// The bit buffer is filled a word at a time, and lengths are bytes between these words, where the reader is by then.
	buf := word() << 16
	buf |= word()
	spare := 16
	take := func(n int) {
		buf <<= n
		if spare -= n; spare < 0 {
			buf |= word() << -spare
			spare += 16
		}
	}
	for pos := 0; pos < len(out); {
		if p > len(in)+4 {
			return errXpress
		}
		sym, l := x.code.decode(buf)
		if l == 0 {
			return errXpress
		}
		take(l)
		if sym < 256 {
			out[pos] = byte(sym)
			pos++
			continue
		}
		sym -= 256
		length, distanceBits := sym&15, sym>>4
		if length == 15 {
			if p >= len(in) {
				return errXpress
			}
			length = int(in[p])
			p++
			if length == 255 {
				if length = int(word()); length == 0 {
					length = int(word() | word()<<16)
				}
				if length < 15 {
					return errXpress
				}
				length -= 15
			}
			length += 15
		}
		length += 3
		distance := 1 << distanceBits
		if distanceBits > 0 {
			distance += int(buf >> (32 - distanceBits))
			take(distanceBits)
		}
		if distance > pos || length > len(out)-pos {
			return errXpress
		}
		for range length {
			out[pos] = out[pos-distance]
			pos++
		}
	}
	return nil
}
