package live

import (
	"crypto/rand"
	"math/big"
)

// randomPassword makes a password of 20 characters, about 120 bits, with some of each kind that a password policy may ask for.
func randomPassword() string {
	kinds := []string{"abcdefghijkmnopqrstuvwxyz", "ABCDEFGHJKLMNPQRSTUVWXYZ", "23456789", "!#%+-_.="}
	all := kinds[0] + kinds[1] + kinds[2] + kinds[3]
	p := make([]byte, 20)
	for i := range p {
		from := all
		if i < len(kinds) {
			from = kinds[i]
		}
		p[i] = from[randomBelow(len(from))]
	}
	for i := range p { // so that the kinds are not where one knows them to be
		j := i + randomBelow(len(p)-i)
		p[i], p[j] = p[j], p[i]
	}
	return string(p)
}

// randomBelow is an even random number below n.
func randomBelow(n int) int {
	v, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return int(v.Int64())
}
