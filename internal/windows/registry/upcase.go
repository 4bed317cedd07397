package registry

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
)

// notUpcased are the ranges in which today's Unicode has a capital for a small letter and Windows' table (which NTFS carries as
// $UpCase, and which has not followed Unicode since Windows 7) has none.
var notUpcased = [...][2]uint16{
	{0x023f, 0x0240}, {0x0252, 0x0252}, {0x025c, 0x025c}, {0x0261, 0x0261}, {0x0265, 0x0266}, {0x026a, 0x026a},
	{0x026c, 0x026c}, {0x0282, 0x0282}, {0x0287, 0x0287}, {0x029d, 0x029e}, {0x03f3, 0x03f3}, {0x0525, 0x052f},
	{0x10d0, 0x10fa}, {0x10fd, 0x10ff}, {0x13f8, 0x13fd}, {0x1d8e, 0x1d8e}, {0x2c5f, 0x2c5f}, {0x2cec, 0x2cee},
	{0x2cf3, 0x2cf3}, {0x2d27, 0x2d27}, {0x2d2d, 0x2d2d}, {0xa661, 0xa661}, {0xa699, 0xa69b}, {0xa791, 0xa794},
	{0xa797, 0xa7a9}, {0xa7b5, 0xa7c3}, {0xa7c8, 0xa7ca}, {0xa7d1, 0xa7d1}, {0xa7d7, 0xa7d9}, {0xa7f6, 0xa7f6},
	{0xab53, 0xab53}, {0xab70, 0xabbf},
}

// upcase is RtlUpcaseUnicodeChar: one UTF-16 unit to one, by Windows' table and not by a locale.
func upcase(c uint16) uint16 {
	if c < 0x80 {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		return c
	}
	u := unicode.ToUpper(rune(c))
	// Windows only folds pairs: µ, ı, ſ, ς and the title-case digraphs stay as they are.
	if u == rune(c) || u > 0xffff || unicode.ToLower(u) != rune(c) {
		return c
	}
	for _, r := range notUpcased {
		if c >= r[0] && c <= r[1] {
			return c
		}
	}
	return uint16(u)
}

// upcaseUnits is the name as Windows compares it: upcased UTF-16.
func upcaseUnits(name string) []uint16 {
	u := utf16.Encode([]rune(name))
	for i, c := range u {
		u[i] = upcase(c)
	}
	return u
}

// foldName is a name such that two names are the same exactly if these are equal.
func foldName(name string) string {
	if isASCII(name) {
		return strings.ToUpper(name)
	}
	return string(utf16.Decode(upcaseUnits(name)))
}

// EqualNames reports whether Windows takes two names of keys or values for the same.
func EqualNames(a, b string) bool {
	if isASCII(a) && isASCII(b) {
		return strings.EqualFold(a, b)
	}
	return foldName(a) == foldName(b)
}

// compareNames orders names as Windows orders keys.
func compareNames(a, b string) int {
	if !isASCII(a) || !isASCII(b) {
		return slices.Compare(upcaseUnits(a), upcaseUnits(b))
	}
	for i := range min(len(a), len(b)) {
		if x, y := upcase(uint16(a[i])), upcase(uint16(b[i])); x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// hashName is the hash that an lh list keeps for a name.
func hashName(upcased []uint16) uint32 {
	var h uint32
	for _, c := range upcased {
		h = h*37 + uint32(c)
	}
	return h
}
