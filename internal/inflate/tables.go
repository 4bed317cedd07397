package inflate

import "math/bits"

// A table is indexed with the next bits of the stream. An entry:
//
//	31       16 15  14  13  12 11      8 7        0
//	+----------+---+---+---+---+--------+----------+
//	| value    | L | S | E | I | code   | bits     |
//	+----------+---+---+---+---+--------+----------+
//
//	bits    how many bits the symbol takes, with its extra bits
//	code    how many of them are its code word; of a pointer to a subtable: how many bits index that
//	value   the literal, the base of the length or distance, or where the subtable begins
//	L       a literal, S a pointer to a subtable, E the end of the block, I not a symbol
const (
	literal    = 1 << 15
	subtable   = 1 << 14
	endOfBlock = 1 << 13
	invalid    = 1 << 12
	special    = subtable | endOfBlock | invalid
)

const (
	litBits  = 11 // index the table of literals and lengths
	distBits = 8
	preBits  = 7 // all that a code word of a code length can have
	maxBits  = 15

	maxLit  = 288 // symbols; 286 and 287 only have code words in fixed blocks
	maxDist = 32

	// litTable and distTable are powers of two not below what a complete code of 288 or 32 symbols of at most 15 bits needs
	// with its subtables: 2342 and 402 entries, as the program "enough" that comes with zlib counts.
	litTable  = 4096
	distTable = 512
)

// The symbols' values and extra bits: RFC 1951, 3.2.5.
var (
	lengthBase  = [...]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [...]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	// preOrder is the order in which the lengths of the code words for lengths are stored: 3.2.7.
	preOrder = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

	litSymbols  = literalsAndLengths()
	distSymbols = distances()
	preSymbols  = numbers()
)

// literalsAndLengths are the entries of the symbols, but for their code words.
func literalsAndLengths() (s [maxLit]uint32) {
	for i := range 256 {
		s[i] = uint32(i)<<16 | literal
	}
	s[256] = endOfBlock
	for i := range lengthBase {
		s[257+i] = uint32(lengthBase[i])<<16 | uint32(lengthExtra[i])
	}
	s[286], s[287] = invalid, invalid
	return s
}

func distances() (s [maxDist]uint32) {
	for i := range 30 {
		extra := max(i/2-1, 0)
		base := i + 1
		if i >= 4 {
			base = (2+i%2)<<extra + 1
		}
		s[i] = uint32(base)<<16 | uint32(extra)
	}
	s[30], s[31] = invalid, invalid
	return s
}

func numbers() (s [19]uint32) {
	for i := range s {
		s[i] = uint32(i) << 16
	}
	return s
}

// build fills a table that is indexed with width bits for code words of the given lengths. It reports whether the lengths
// make a code: one that is complete, or has one word of one bit, or none at all.
func build(table []uint32, width uint, lengths []uint8, symbols []uint32) bool {
	var count [maxBits + 1]int
	for _, l := range lengths {
		count[l&maxBits]++
	}
	used := len(lengths) - count[0]
	count[0] = 0
	left := 1
	for _, c := range count[1:] {
		if left = left*2 - c; left < 0 {
			return false
		}
	}
	if left > 0 {
		// Nothing, or a single word; what the table has for it is never right beyond that word.
		if used > 1 || used == 1 && count[1] != 1 {
			return false
		}
		for i := range 1 << width {
			table[i] = invalid
		}
		for i, l := range lengths {
			if l == 1 {
				for j := 0; j < 1<<width; j += 2 {
					table[j] = symbols[i] + 1<<8 + 1
				}
			}
		}
		return true
	}

	// The symbols in order of their code words: by length, then by number.
	var next [maxBits + 2]int
	for l := 1; l <= maxBits; l++ {
		next[l+1] = next[l] + count[l]
	}
	var sorted [maxLit]uint16
	for i, l := range lengths {
		if l != 0 {
			sorted[next[l]] = uint16(i)
			next[l]++
		}
	}

	// Code words come out of the stream with their first bit lowest, so they count up from the highest bit. Each length
	// begins with the table of the one before, twice.
	word, s := uint32(0), 0
	size := 1
	for l := uint(1); l <= width; l++ {
		copy(table[size:2*size], table[:size])
		size *= 2
		for range count[l] {
			table[word] = symbols[sorted[s]] + uint32(l)<<8 + uint32(l)
			s++
			word = following(word, l)
		}
	}

	// Longer words share subtables: all that have the same first width bits.
	start, subBits := size, uint(0)
	prefix := ^uint32(0)
	for l := width + 1; l <= maxBits; l++ {
		for range count[l] {
			if first := word & (1<<width - 1); first != prefix {
				if prefix != ^uint32(0) {
					start += 1 << subBits
				}
				prefix = first
				// As many bits as the longest word with this prefix has: the words go on until they fill it.
				subBits = l - width
				for room := 1<<subBits - count[l]; room > 0 && width+subBits < maxBits; {
					subBits++
					room = room*2 - count[width+subBits]
				}
				table[first] = uint32(start)<<16 | subtable | uint32(subBits)<<8 | uint32(width)
			}
			e := symbols[sorted[s]] + uint32(l)<<8 + uint32(l)
			for i := word >> width; i < 1<<subBits; i += 1 << (l - width) {
				table[uint32(start)+i] = e
			}
			s++
			count[l]--
			word = following(word, l)
		}
	}
	return true
}

// following is the code word of length l behind word, both with their first bit lowest; behind the last it is that itself.
func following(word uint32, l uint) uint32 {
	zeros := ^word & (1<<l - 1)
	if zeros == 0 {
		return word
	}
	bit := uint32(1) << (31 - bits.LeadingZeros32(zeros))
	return word&(bit-1) | bit
}

func (d *Decoder) fixedTables() {
	if d.fixed {
		return
	}
	for i := range maxLit {
		switch {
		case i < 144:
			d.lens[i] = 8
		case i < 256:
			d.lens[i] = 9
		case i < 280:
			d.lens[i] = 7
		default:
			d.lens[i] = 8
		}
	}
	build(d.lit[:], litBits, d.lens[:maxLit], litSymbols[:])
	for i := range maxDist {
		d.lens[i] = 5
	}
	build(d.dist[:], distBits, d.lens[:maxDist], distSymbols[:])
	d.fixed = true
}

// dynamicTables reads the code of a block.
func (d *Decoder) dynamicTables() error {
	d.fixed = false
	d.fill()
	if d.n < 14 {
		return ErrTruncated
	}
	lits, dists, pres := int(d.bit&31)+257, int(d.bit>>5&31)+1, int(d.bit>>10&15)+4
	if lits > 286 || dists > 30 {
		return ErrCorrupt
	}
	d.take(14)
	var lens [19]uint8
	for _, i := range preOrder[:pres] {
		if d.n < 3 {
			if d.fill(); d.n < 3 {
				return ErrTruncated
			}
		}
		lens[i] = uint8(d.bit & 7)
		d.take(3)
	}
	if !build(d.pre[:], preBits, lens[:], preSymbols[:]) {
		return ErrCorrupt
	}
	all := d.lens[:lits+dists]
	for i := 0; i < len(all); {
		if d.n < preBits+7 {
			d.fill()
		}
		e := d.pre[d.bit&(1<<preBits-1)]
		code := uint(e & 63)
		var repeat, more uint // bits that say how often, beyond the least
		var value uint8
		least := 3
		switch l := e >> 16; {
		case e&invalid != 0:
			return ErrCorrupt
		case l < 16:
			least, value = 1, uint8(l)
		case l == 16:
			if i == 0 {
				return ErrCorrupt
			}
			more, value = 2, all[i-1]
		case l == 17:
			more = 3
		default:
			more, least = 7, 11
		}
		if d.n < code+more {
			return ErrTruncated
		}
		repeat = uint(d.bit>>code) & (1<<more - 1)
		d.take(code + more)
		end := i + least + int(repeat)
		if end > len(all) {
			return ErrCorrupt
		}
		for ; i < end; i++ {
			all[i] = value
		}
	}
	if !build(d.lit[:], litBits, all[:lits], litSymbols[:]) || !build(d.dist[:], distBits, all[lits:], distSymbols[:]) {
		return ErrCorrupt
	}
	return nil
}
