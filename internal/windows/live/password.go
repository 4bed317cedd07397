package live

import (
	"crypto/rand"
	"log/slog"
	"math/big"
)

// Password is that of an account. It prints as REDACTED wherever fmt, slog or an encoder would show it; Reveal gives it out.
type Password string

const redacted = "REDACTED"

// Reveal returns the password itself.
func (p Password) Reveal() string { return string(p) }

func (p Password) String() string               { return redacted }
func (p Password) GoString() string             { return redacted }
func (p Password) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (p Password) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// randomPassword makes a password of 20 characters, about 120 bits, with some of each kind that a password policy may ask for.
func randomPassword() Password {
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
	return Password(p)
}

// randomBelow is an even random number below n.
func randomBelow(n int) int {
	v, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return int(v.Int64())
}
