package s3

import (
	"crypto/sha1" // one of S3's checksums
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/textproto"
	"slices"
	"strconv"
)

// Algorithm is one of S3's checksum algorithms, by Amazon's name (ChecksumAlgorithm).
type Algorithm string

// The checksum algorithms. User Guide, "Checking object integrity in Amazon S3".
const (
	CRC32     Algorithm = "CRC32"
	CRC32C    Algorithm = "CRC32C"
	CRC64NVME Algorithm = "CRC64NVME"
	SHA1      Algorithm = "SHA1"
	SHA256    Algorithm = "SHA256"
)

var algorithms = []Algorithm{CRC32, CRC32C, CRC64NVME, SHA1, SHA256}

// Checksum types of a multipart upload (ChecksumType): over the whole object, or over the checksums of its parts.
const (
	fullObject = "FULL_OBJECT"
	composite  = "COMPOSITE"
)

// The CRCs' polynomials in reversed notation, which is also how the combination below wants them. CRC-64/NVME is from the NVM Express
// NVM Command Set Specification 1.0d, 5.2.1.3.4.
const crc64NVMEPoly = 0x9a6c9329ac4bc9b5

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(crc64NVMEPoly)
)

func (a Algorithm) known() bool { return slices.Contains(algorithms, a) }

// header is the name of the header or trailer that carries the checksum, as net/http writes it.
func (a Algorithm) header() string {
	return textproto.CanonicalMIMEHeaderKey("X-Amz-Checksum-" + string(a))
}

func (a Algorithm) new() hash.Hash {
	switch a {
	case CRC32:
		return crc32.NewIEEE()
	case CRC32C:
		return crc32.New(castagnoli)
	case CRC64NVME:
		return crc64.New(nvme)
	case SHA1:
		return sha1.New() // one of S3's checksums
	case SHA256:
		return sha256.New()
	}
	return nil
}

// valid tells whether value is a checksum of this algorithm in base64.
func (a Algorithm) valid(value string) bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(value)
	return err == nil && len(raw) == a.new().Size()
}

// mismatch is Amazon's refusal of a body whose checksum is another than the client said.
func (a Algorithm) mismatch() error {
	return ErrBadDigest.saying("The %s you specified did not match the calculated checksum.", a)
}

// Checksum is an object's checksum as it is stored and shown.
type Checksum struct {
	Algorithm Algorithm `json:"algorithm,omitempty"`
	Type      string    `json:"type,omitempty"`  // FULL_OBJECT or COMPOSITE
	Value     string    `json:"value,omitempty"` // base64; of a COMPOSITE followed by "-" and the number of parts
}

// combine makes the checksum of a whole from those of its parts, in order: without reading anything again.
func (a Algorithm) combine(kind string, parts []part) (Checksum, error) {
	sum := Checksum{Algorithm: a, Type: kind}
	var whole uint64
	h := a.new()
	for i, p := range parts {
		raw, err := base64.StdEncoding.DecodeString(p.Checksum.Value)
		if err != nil || p.Checksum.Algorithm != a || len(raw) != h.Size() {
			return sum, fmt.Errorf("part %d has no %s checksum", p.Number, a)
		}
		if kind == composite {
			h.Write(raw)
			continue
		}
		var crc uint64
		switch len(raw) {
		case 4:
			crc = uint64(binary.BigEndian.Uint32(raw))
		case 8:
			crc = binary.BigEndian.Uint64(raw)
		}
		if i == 0 {
			whole = crc
			continue
		}
		whole = crcAppend(a, whole, crc, p.Size)
	}
	switch {
	case kind == composite:
		sum.Value = base64.StdEncoding.EncodeToString(h.Sum(nil)) + "-" + strconv.Itoa(len(parts))
	case h.Size() == 4:
		sum.Value = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, uint32(whole))) // 32 bits are all it has
	default:
		sum.Value = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, whole))
	}
	return sum, nil
}

// crcAppend is the CRC of a+b, given that of a and of b, and b's length in bytes. Appending n zero bits to a message multiplies its
// remainder by x^n; the pre- and post-conditioning of both CRCs cancel out (Mark Adler's argument for zlib's crc32_combine), so
// crc(ab) = crc(a)·x^(8·len(b)) + crc(b) over GF(2) modulo the polynomial.
func crcAppend(a Algorithm, crcA, crcB uint64, lenB int64) uint64 {
	poly, top := uint64(crc32.IEEE), uint64(1)<<31
	switch a {
	case CRC32C:
		poly = crc32.Castagnoli
	case CRC64NVME:
		poly, top = crc64NVMEPoly, 1<<63
	}
	// Reversed notation: the top bit is the coefficient of x^0, a shift to the right multiplies by x.
	times := func(p, q uint64) uint64 {
		var sum uint64
		for bit := top; bit != 0; bit >>= 1 {
			if p&bit != 0 {
				sum ^= q
			}
			carry := q&1 != 0
			q >>= 1
			if carry {
				q ^= poly
			}
		}
		return sum
	}
	shift := top       // x^0
	square := top >> 8 // x^8: one byte
	for n := lenB; n > 0; n >>= 1 {
		if n&1 != 0 {
			shift = times(shift, square)
		}
		square = times(square, square)
	}
	return times(shift, crcA) ^ crcB
}
