package s3

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// checkBucketName refuses what Amazon refuses as a bucket's name (User Guide, "General purpose bucket naming rules"): 3 to 63 characters
// of a-z, 0-9, dot and hyphen, a letter or digit at both ends, no two dots in a row, not an IPv4 address, none of the reserved
// prefixes and suffixes. A name that passes is also safe as the name of a folder.
func checkBucketName(name string) error {
	bad := ErrInvalidBucketName.about(name)
	if len(name) < 3 || len(name) > 63 {
		return bad
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (c != '.' && c != '-' || i == 0 || i == len(name)-1) {
			return bad
		}
	}
	if strings.Contains(name, "..") {
		return bad
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return bad
	}
	for _, p := range []string{"xn--", "sthree-", "amzn-s3-demo-"} {
		if strings.HasPrefix(name, p) {
			return bad
		}
	}
	for _, s := range []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"} {
		if strings.HasSuffix(name, s) {
			return bad
		}
	}
	return nil
}

// checkKey refuses a key that is empty, longer than 1,024 bytes, or not UTF-8. Everything else is a key, "../../etc/passwd" and "a\x00b"
// included, for a key never becomes a path: see recordName.
func checkKey(key string) error {
	switch {
	case key == "":
		return ErrInvalidArgument.saying("An object key is required")
	case len(key) > MaxKeyBytes:
		return ErrKeyTooLong
	case !utf8.ValidString(key):
		return ErrInvalidURI
	}
	return nil
}

// recordName is the file name of a key's record: the key's SHA-256, so that neither its length (a file name has at most 255 bytes),
// nor its slashes, dots or letter case meet the file system.
func recordName(key string) string {
	h := sha256.Sum256([]byte(key))
	return hex.EncodeToString(h[:]) + recordSuffix
}

// fileSafe tells whether an id (they come from the caller's function) can name a file.
func fileSafe(id string) bool {
	if len(id) == 0 || len(id) > 100 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
