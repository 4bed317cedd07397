package inflate

// Adler32 is the checksum of RFC 1950, several times as fast as hash/adler32: eight bytes at a time.
func Adler32(p []byte) uint32 {
	const (
		mod = 65521
		// run is how many words are summed in lanes of 16 bits: 255 * (1 + 2 + ... + 21) is below 65536.
		run = 22
		odd = 0x00ff00ff00ff00ff
		// ones and fourths, as factors, put into the highest lane the sum of all lanes, once each, and 4, 3, 2 and 1 times from the
		// lowest on: at most 10 * 22 * 255, below 65536, and so is what the lanes below it come to.
		ones    = 0x0001000100010001
		fourths = 0x0004000300020001
		halves  = 0x0000ffff0000ffff
		// whole is after how many bytes a and b are reduced: a is below 2^26 then, and b, which grows by a for each byte, below 2^44.
		whole = 1024 * 8 * run
	)
	a, b := uint64(1), uint64(0)
	for len(p) >= 8*run {
		part := p[:min(len(p), whole)]
		for len(part) >= 8*run {
			// Lanes: the sums of the bytes at the places 0 to 7 of the words, and the sums of those sums.
			var even, odds, evens2, odds2 uint64
			chunk := part[:8*run]
			for i := 0; i < 8*run; i += 8 {
				w := le.Uint64(chunk[i:])
				evens2 += even
				odds2 += odds
				even += w & odd
				odds += w >> 8 & odd
			}
			// A byte at place i of word k counts (run-1-k)*8 + 8-i times in b: 8, 6, 4 and 2 times for the even places, 7, 5, 3 and 1
			// for the others, besides the sums of the sums.
			others := odds * ones >> 48
			weighted := 2*(even*fourths>>48+odds*fourths>>48) - others
			sums2 := evens2&halves + evens2>>16&halves + odds2&halves + odds2>>16&halves
			b += a*8*run + (sums2+sums2>>32)&0xffffffff*8 + weighted
			a += even*ones>>48 + others
			part = part[8*run:]
			p = p[8*run:]
		}
		a %= mod
		b %= mod
	}
	for _, c := range p {
		a += uint64(c)
		b += a
	}
	return uint32(b%mod)<<16 | uint32(a%mod)
}
