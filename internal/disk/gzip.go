package disk

import (
	"io"

	"github.com/klauspost/compress/gzip"
)

// GZIP (RFC 1952) around a raw disk, as dd piped into gzip leaves it. Where in it a byte of the disk is cannot be told without
// decompressing all that is before it, and neither can its size: the four bytes for it at the end count modulo 2^32, and
// only for the last of several members.
//
//	+----+----+---+-------+-----------------+--------------+--------+--------+
//	| 1f | 8b | 8 | flags | time, name, ... | deflate data | CRC-32 | length |  and perhaps another member
//	+----+----+---+-------+-----------------+--------------+--------+--------+

func isGzip(src Source) bool { return begins(src, 0, "\x1f\x8b\x08") }

func openGzip(f *file, opt Options) (*Envelope, error) {
	return openSequential(f, opt, func(in *inlet) (io.Reader, error) { return gzip.NewReader(in.Reader) })
}
