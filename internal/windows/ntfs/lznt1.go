package ntfs

import (
	"encoding/binary"
	"errors"
)

var errLZNT1 = errors.New("LZNT1 data is damaged")

// lznt1Chunk is the number of bytes that a chunk of LZNT1 stands for.
const lznt1Chunk = 4096

// lznt1 inflates src, a sequence of chunks, to fill dst; what the chunks leave of it becomes zeros ([MS-XCA] 2.5).
func lznt1(dst, src []byte) error {
	for len(dst) > 0 {
		if len(src) < 2 {
			break
		}
		head := binary.LittleEndian.Uint16(src)
		if head == 0 {
			break
		}
		if head>>12&7 != 3 {
			return errLZNT1
		}
		n := int(head&0xFFF) + 1
		if n > len(src)-2 {
			return errLZNT1
		}
		out := dst[:min(len(dst), lznt1Chunk)]
		body := src[2 : 2+n]
		if head&0x8000 == 0 {
			clear(out[copy(out, body):])
		} else if err := lznt1Inflate(out, body); err != nil {
			return err
		}
		dst, src = dst[len(out):], src[2+n:]
	}
	clear(dst)
	return nil
}

// lznt1Inflate inflates one compressed chunk. A flag byte announces eight items: a literal byte, or a word whose upper bits are a
// distance and whose lower bits a length; the border moves with the position in the chunk.
func lznt1Inflate(out, in []byte) error {
	pos := 0
	for len(in) > 0 {
		flags := in[0]
		in = in[1:]
		for range 8 {
			if len(in) == 0 {
				break
			}
			if flags&1 == 0 {
				if pos == len(out) {
					return errLZNT1
				}
				out[pos] = in[0]
				pos++
				in = in[1:]
			} else {
				if len(in) < 2 || pos == 0 {
					return errLZNT1
				}
				w := int(binary.LittleEndian.Uint16(in))
				in = in[2:]
				lengthBits := 12
				for p := pos - 1; p >= 0x10; p >>= 1 {
					lengthBits--
				}
				distance, length := w>>lengthBits+1, w&(1<<lengthBits-1)+3
				if distance > pos || length > len(out)-pos {
					return errLZNT1
				}
				for range length {
					out[pos] = out[pos-distance]
					pos++
				}
			}
			flags >>= 1
		}
	}
	clear(out[pos:])
	return nil
}
