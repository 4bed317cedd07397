package inflate

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"errors"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

const grain = 64 << 10

// deflated is data as the standard library compresses it.
func deflated(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zlibbed(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// grains are pieces of 64 KiB as they are on a disk: machine code, text, noise, tables of small numbers, zeros.
func grains(t testing.TB, n int) [][]byte {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var all [][]byte
	for i := range n {
		p := make([]byte, grain)
		switch i % 8 {
		case 0:
			for j := range p {
				p[j] = byte(r.Uint32())
			}
		case 1:
			for j := 0; j < len(p); {
				words := [...]string{"HKEY_LOCAL_MACHINE", "\\SOFTWARE", "\\Microsoft", "\\Windows NT", "\r\n", "CurrentVersion", " = ", "dword:0000"}
				j += copy(p[j:], words[r.IntN(len(words))])
			}
		case 2:
			for j := 0; j+4 <= len(p); j += 4 {
				le.PutUint32(p[j:], r.Uint32N(1<<r.IntN(12)))
			}
		default:
			at := r.IntN(len(code) - grain)
			copy(p, code[at:])
		}
		all = append(all, p)
	}
	return append(all, make([]byte, grain))
}

func TestRawEqualsTheStandardLibrary(t *testing.T) {
	var d Decoder
	for i, want := range grains(t, 24) {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 1, 6, 9} {
			packed := deflated(t, want, level)
			got := make([]byte, grain)
			n, used, err := d.Raw(got, append(packed, "something that follows"...))
			if err != nil || n != grain || used != len(packed) || !bytes.Equal(got, want) {
				t.Fatalf("grain %d, level %d: %d bytes of %d: %v", i, level, n, used, err)
			}
			// A larger block, a smaller one.
			larger := make([]byte, 2*grain)
			if n, _, err := d.Raw(larger, packed); err != nil || n != grain || !bytes.Equal(larger[:n], want) {
				t.Fatalf("grain %d, level %d, larger block: %d: %v", i, level, n, err)
			}
			for _, size := range []int{0, 1, 100, grain / 2, grain - 1} {
				n, _, err := d.Raw(got[:size], packed)
				if !errors.Is(err, ErrFull) || n != size || !bytes.Equal(got[:n], want[:n]) {
					t.Fatalf("grain %d, level %d, block of %d: %d: %v", i, level, size, n, err)
				}
			}
			// A stream that is cut off.
			for _, size := range []int{0, 1, 2, 5, len(packed) / 2, len(packed) - 1} {
				if n, _, err := d.Raw(got, packed[:size]); !errors.Is(err, ErrTruncated) || !bytes.Equal(got[:n], want[:n]) {
					t.Fatalf("grain %d, level %d, cut at %d: %d: %v", i, level, size, n, err)
				}
			}
		}
	}
}

func TestNothingBehindTheBlockIsWritten(t *testing.T) {
	var d Decoder
	for _, want := range grains(t, 16) {
		packed := deflated(t, want, 6)
		whole := bytes.Repeat([]byte{0x5a}, grain+64)
		if _, _, err := d.Raw(whole[32:32+grain], packed); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(whole[:32], whole[32+grain:]) || bytes.Count(whole[:32], []byte{0x5a}) != 32 {
			t.Fatal("bytes outside the block were changed")
		}
	}
}

func TestZlib(t *testing.T) {
	var d Decoder
	want := grains(t, 4)[3]
	packed := zlibbed(t, want)
	got := make([]byte, grain)
	if n, used, err := d.Zlib(got, packed); err != nil || n != grain || used != len(packed) || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d: %v", n, used, err)
	}
	change := func(at int, b byte) []byte {
		p := bytes.Clone(packed)
		p[at] ^= b
		return p
	}
	for name, c := range map[string]struct {
		packed []byte
		want   error
	}{
		"empty":             {nil, ErrTruncated},
		"half a header":     {packed[:1], ErrTruncated},
		"half a checksum":   {packed[:len(packed)-2], ErrTruncated},
		"wrong checksum":    {change(len(packed)-1, 1), ErrCorrupt},
		"method 9":          {change(0, 1), ErrCorrupt},
		"window of 64 KiB":  {append([]byte{0x88, 0x1c}, packed[2:]...), ErrCorrupt},
		"preset dictionary": {append([]byte{0x78, 0xbb}, packed[2:]...), ErrCorrupt},
	} {
		if _, _, err := d.Zlib(got, c.packed); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if n, _, err := d.Zlib(got[:grain-1], packed); !errors.Is(err, ErrFull) || n != grain-1 {
		t.Errorf("smaller block: %d, %v", n, err)
	}
}

func TestAdler32EqualsTheStandardLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 2000 {
		p := bytes.Repeat([]byte{0xff}, n*7)
		if n%2 == 0 {
			for i := range p {
				p[i] = byte(r.Uint32())
			}
		}
		if got, want := Adler32(p), adler32.Checksum(p); got != want {
			t.Fatalf("%d bytes: %08x, want %08x", len(p), got, want)
		}
	}
	// More than is summed at once, at its worst.
	for _, n := range []int{180_223, 180_224, 180_225, 1<<20 + 3} {
		p := bytes.Repeat([]byte{0xff}, n)
		if got, want := Adler32(p), adler32.Checksum(p); got != want {
			t.Fatalf("%d bytes: %08x, want %08x", len(p), got, want)
		}
	}
}

// standard is what compress/flate makes of a stream, of at most limit bytes.
func standard(packed []byte, limit int64) ([]byte, error) {
	return io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), limit))
}

// agree holds the decoder against compress/flate for one stream and one size of block.
func agree(t *testing.T, d *Decoder, packed []byte, size int) {
	t.Helper()
	want, refused := standard(packed, int64(size)+1)
	block := bytes.Repeat([]byte{0xa5}, size+16)
	got, used, err := d.Raw(block[8:8+size], packed)
	for _, edge := range [][]byte{block[:8], block[8+size:]} {
		if !bytes.Equal(edge, []byte("\xa5\xa5\xa5\xa5\xa5\xa5\xa5\xa5")) {
			t.Fatal("bytes outside the block were written")
		}
	}
	if got > size || used > len(packed) {
		t.Fatalf("%d bytes of %d, from %d of %d", got, size, used, len(packed))
	}
	filled := block[8 : 8+got]
	switch {
	case errors.Is(err, ErrFull):
		// compress/flate may find the end of the input a symbol early.
		if got != size || !bytes.HasPrefix(want, filled) && !(refused != nil && bytes.HasPrefix(filled, want)) {
			t.Fatalf("full at %d bytes; the standard library has %d: %v", got, len(want), refused)
		}
	case err != nil:
		if refused == nil {
			t.Fatalf("refused (%v); the standard library is not, with %d bytes", err, len(want))
		}
	case refused != nil || !bytes.Equal(filled, want):
		t.Fatalf("%d bytes; the standard library has %d: %v", got, len(want), refused)
	}
}

func FuzzRaw(f *testing.F) {
	for i, p := range grains(f, 4) {
		f.Add(deflated(f, p[:2000], []int{flate.HuffmanOnly, 9}[i%2]), uint16(2000))
	}
	// By hand: the kinds of blocks, codes that are not complete, over-full, of one word, without the end of the block.
	for _, s := range []string{"\x03\x00", "\x01\x00\x00\xff\xff", "\x01\x05\x00\xfa\xffhello", "\x07", "\x4b\x4c\x84\x01\x00", "\x05\xc0\x81\x00\x00\x00\x00\x00\x10\xff\xd5\x10",
		"\x05\xe0\x81\x00\x00\x00\x00\x00\x10\xff\xd5\x10", "\x04\x80\x49\x92\x24\x49\x92\x24\x0f\xb4\xff\xff\xc3\x04", "\xed\xfd\x01", "\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		f.Add([]byte(s), uint16(100))
	}
	f.Fuzz(func(t *testing.T, packed []byte, size uint16) {
		var d Decoder
		agree(t, &d, packed, int(size))
		agree(t, &d, packed, int(size)) // with the tables of a stream before
	})
}

// Streams with a few wrong bits are where a decoder that trusts its input goes wrong; they are many, and quick to try.
func TestMutantsAreJudgedAsTheStandardLibraryDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var d Decoder
	all := grains(t, 8)
	for i := range 1000 {
		size := 500 + r.IntN(8000)
		packed := deflated(t, all[i%len(all)][:size], []int{flate.HuffmanOnly, 1, 6}[i%3])
		for range 1 + r.IntN(3) {
			at := r.IntN(len(packed))
			if i%2 == 0 { // in the code's description
				at = r.IntN(min(len(packed), 90))
			}
			packed[at] ^= 1 << r.IntN(8)
		}
		agree(t, &d, packed, size+r.IntN(2)*5000)
	}
}
