package ntfs

import (
	"encoding/binary"
	"errors"
)

var errXpress = errors.New("XPRESS data is damaged")

const (
	xpressTable   = 256 // bytes of the code lengths: 512 symbols, 4 bits each
	xpressMaxBits = 15
	xpressFast    = 10 // bits that the direct table decodes
)

// xpress inflates one chunk of LZ77+Huffman ([MS-XCA] 2.2). The zero value is ready; it holds tables and is not safe for
// concurrent use.
type xpress struct {
	fast   [1 << xpressFast]uint16 // symbol | length<<9; 0: longer code
	first  [xpressMaxBits + 2]uint32
	start  [xpressMaxBits + 2]uint32
	sorted [512]uint16
}

// tables builds the canonical Huffman code. Only complete codes are accepted.
func (x *xpress) tables(in []byte) error {
	var count [xpressMaxBits + 2]uint32
	length := func(sym int) uint32 { return uint32(in[sym/2]>>(4*(sym%2))) & 15 }
	for s := range 512 {
		count[length(s)]++
	}
	count[0] = 0
	code, at := uint32(0), uint32(0)
	for l := 1; l <= xpressMaxBits; l++ {
		code <<= 1
		x.first[l], x.start[l] = code, at
		code += count[l]
		at += count[l]
		if code > 1<<l {
			return errXpress
		}
	}
	if code != 1<<xpressMaxBits {
		return errXpress
	}
	next := x.start
	for s := range 512 {
		if l := length(s); l > 0 {
			x.sorted[next[l]] = uint16(s)
			next[l]++
		}
	}
	clear(x.fast[:])
	for l := 1; l <= xpressFast; l++ {
		for i := range count[l] {
			from := (x.first[l] + i) << (xpressFast - l)
			for k := range uint32(1) << (xpressFast - l) {
				x.fast[from+k] = x.sorted[x.start[l]+i] | uint16(l)<<9
			}
		}
	}
	// first[l+1] doubles as the end of the codes of length l.
	x.first[xpressMaxBits+1] = code << 1
	for l := 1; l <= xpressMaxBits; l++ {
		x.start[l] -= x.first[l] // start[l]+code is the index in sorted
	}
	return nil
}

// inflate fills out from in.
func (x *xpress) inflate(out, in []byte) error {
	if len(in) < xpressTable+4 {
		return errXpress
	}
	if err := x.tables(in); err != nil {
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
		sym, l := 0, 0
		if e := x.fast[buf>>(32-xpressFast)]; e != 0 {
			sym, l = int(e&511), int(e>>9)
		} else {
			for l = xpressFast + 1; l <= xpressMaxBits; l++ {
				// Codes of length l are below those of l+1 in the code's order.
				if c := buf >> (32 - l); c<<1 < x.first[l+1] {
					sym = int(x.sorted[x.start[l]+c])
					break
				}
			}
			if l > xpressMaxBits {
				return errXpress
			}
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
