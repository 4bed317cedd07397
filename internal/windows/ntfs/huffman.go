package ntfs

import "errors"

var errHuffman = errors.New("the lengths of a Huffman code do not make one")

const (
	huffmanSymbols = 512
	huffmanMaxBits = 16
	huffmanFast    = 10 // bits that the direct table decodes
)

// huffman decodes a canonical code: shorter codes first, equal ones in the order of their symbols.
type huffman struct {
	fast   [1 << huffmanFast]uint16 // symbol | length<<9; 0: longer code
	end    [huffmanMaxBits + 1]uint32
	start  [huffmanMaxBits + 1]uint32
	sorted [huffmanSymbols]uint16
}

// build makes the code whose symbols have these lengths, 0 for those without one; at most huffmanSymbols. Only complete codes
// are accepted, and the empty one, which decodes nothing.
func (h *huffman) build(lengths []byte) error {
	var count, next [huffmanMaxBits + 1]uint32
	for _, l := range lengths {
		if l > huffmanMaxBits {
			return errHuffman
		}
		count[l]++
	}
	clear(h.fast[:])
	code, at := uint32(0), uint32(0)
	for l := 1; l <= huffmanMaxBits; l++ {
		code <<= 1
		next[l] = at
		h.start[l] = at - code // plus a code of length l: its index in sorted
		at += count[l]
		code += count[l]
		h.end[l] = code // the codes of length l are below
		if code > 1<<l {
			return errHuffman
		}
	}
	if code != 1<<huffmanMaxBits && at != 0 {
		return errHuffman
	}
	for s, l := range lengths {
		if l == 0 {
			continue
		}
		h.sorted[next[l]] = uint16(s)
		if l <= huffmanFast {
			from := (next[l] - h.start[l]) << (huffmanFast - l)
			for k := range uint32(1) << (huffmanFast - l) {
				h.fast[from+k] = uint16(s) | uint16(l)<<9
			}
		}
		next[l]++
	}
	return nil
}

// decode finds the symbol that the highest bits of buf begin with, and its length; 0 when the code is empty.
func (h *huffman) decode(buf uint32) (symbol, length int) {
	if e := h.fast[buf>>(32-huffmanFast)]; e != 0 {
		return int(e & 511), int(e >> 9)
	}
	for l := huffmanFast + 1; l <= huffmanMaxBits; l++ {
		if c := buf >> (32 - l); c < h.end[l] {
			return int(h.sorted[h.start[l]+c]), l
		}
	}
	return 0, 0
}
