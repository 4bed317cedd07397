package ntfs

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// vectors are the examples of [MS-XCA] 3.2: their code lengths by symbol, and what follows the table.
var vectors = []struct {
	text    string
	lengths map[int]byte
	tail    string
}{
	{
		"abcdefghijklmnopqrstuvwxyz",
		func() map[int]byte {
			m := map[int]byte{256: 4}
			for c := 'a'; c <= 'z'; c++ {
				m[int(c)] = 5
				if c > 'v' {
					m[int(c)] = 4
				}
			}
			return m
		}(),
		"d8523ed794115be9195ff9d67cdf8d0400000000",
	},
	{strings.Repeat("abc", 100), map[int]byte{'a': 3, 'b': 3, 'c': 2, 256: 2, 256 + 0x1f: 2}, "a8dc0000ff2601"},
}

func xpressVector(t testing.TB, i int) []byte {
	b := make([]byte, xpressTable)
	for s, l := range vectors[i].lengths {
		b[s/2] |= l << (4 * (s % 2))
	}
	tail, err := hex.DecodeString(vectors[i].tail)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, tail...)
}

func TestXpress(t *testing.T) {
	var x xpress
	for i, v := range vectors {
		out := make([]byte, len(v.text))
		if err := x.inflate(out, xpressVector(t, i)); err != nil || string(out) != v.text {
			t.Errorf("%q, %v", out, err)
		}
	}
}

func TestXpressRefuses(t *testing.T) {
	change := func(f func(b []byte) []byte) []byte { return f(xpressVector(t, 1)) }
	for name, in := range map[string][]byte{
		"empty":           nil,
		"table only":      make([]byte, 256),
		"no code":         make([]byte, 300),
		"incomplete code": change(func(b []byte) []byte { b['a'/2] = 0; return b }),
		"crowded code":    change(func(b []byte) []byte { b[0] = 0x11; return b }),
		"too long":        change(func(b []byte) []byte { b[len(b)-2]++; return b }),
		"distance":        change(func(b []byte) []byte { b[256], b[257] = 0, 0xA0; return b }),
		"short length":    change(func(b []byte) []byte { b[len(b)-2], b[len(b)-1] = 1, 0; return b }),
	} {
		var x xpress
		if err := x.inflate(make([]byte, 300), in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestXpressLongCodes: codes longer than the direct table's, by a code whose lengths are 1, 2, ... 14, 15, 15.
func TestXpressLongCodes(t *testing.T) {
	in := make([]byte, xpressTable)
	code := map[byte]string{}
	for i := range 16 {
		l := min(i+1, 15)
		s := 'a' + i
		in[s/2] |= byte(l) << (4 * (s % 2))
		code[byte(s)] = strings.Repeat("1", i) + "0"
		if i == 15 {
			code[byte(s)] = strings.Repeat("1", 15)
		}
	}
	text := "ponmlkjihgfedcbaabcdefghijklmnoppppaaaaooooo"
	bitstring := ""
	for i := range len(text) {
		bitstring += code[text[i]]
	}
	for len(bitstring)%16 != 0 {
		bitstring += "0"
	}
	for ; bitstring != ""; bitstring = bitstring[16:] {
		w := uint16(0)
		for _, c := range bitstring[:16] {
			w = w<<1 | uint16(c-'0')
		}
		in = le.AppendUint16(in, w)
	}
	var x xpress
	out := make([]byte, len(text))
	if err := x.inflate(out, in); err != nil || string(out) != text {
		t.Errorf("%q, %v", out, err)
	}
}

func TestLZNT1(t *testing.T) {
	// By hand: three letters and matches. Up to 16 bytes into a chunk the length has 12 bits of a match's word, then 11.
	chunk := []byte{0b1000_1000, 'a', 'b', 'c', 0x0B, 0x20, 'x', 'y', 'z', 0x00, 0x88, 0b1, 0x02, 0x00}
	in := append(le.AppendUint16(nil, 0xB000|uint16(len(chunk)-1)), chunk...)
	want := strings.Repeat("abc", 5) + "ab" + "xyz" + "cab" + "bbbbb"
	out := bytes.Repeat([]byte{1}, 4096)
	if err := lznt1(out, in); err != nil || string(out[:len(want)]) != want {
		t.Errorf("%q, want %q, %v", out[:len(want)], want, err)
	}
	if !bytes.Equal(out[len(want):], make([]byte, 4096-len(want))) {
		t.Error("the rest is not zeros")
	}
	// A chunk that is stored, one that is compressed, and the end.
	in = append(append(append([]byte{0xFF, 0x3F}, bytes.Repeat([]byte("s"), 4096)...), in...), 0, 0, 9, 9)
	out = bytes.Repeat([]byte{1}, 3*4096)
	if err := lznt1(out, in); err != nil || out[0] != 's' || out[4095] != 's' || string(out[4096:4096+len(want)]) != want || out[8192] != 0 {
		t.Errorf("%v", err)
	}
	for name, in := range map[string]string{
		"signature":     "0080ff",
		"too long":      "ffb000",
		"match first":   "02b0010000",
		"match cut":     "02b0026100",
		"distance":      "03b002610010",
		"chunk too big": "06b0026100006100", // a literal, then a match that the chunk of 2 bytes below has no room for
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := lznt1(make([]byte, 2), b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// rawBlock is a chunk of stored LZX blocks; every block begins with its kind, its size and the recent offsets.
func rawBlock(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		bits := uint32(lzxRaw)<<29 | uint32(len(p))<<12 // 3 bits, a 0, 16 bits of size, and 12 to the next word
		b = le.AppendUint16(b, uint16(bits>>16))
		b = le.AppendUint16(b, uint16(bits))
		for _, o := range []uint32{1, 2, 3} {
			b = le.AppendUint32(b, o)
		}
		b = append(b, p...)
		if len(p)%2 == 1 {
			b = append(b, 0)
		}
	}
	return b
}

func TestLZX(t *testing.T) {
	// What the sample's compressor does not write: stored blocks. The others are in TestContents.
	want := "stored," + "and again" + "!"
	var x lzx
	out := make([]byte, len(want))
	if err := x.inflate(out, rawBlock("stored,", "and again", "!")); err != nil || string(out) != want {
		t.Errorf("%q, %v", out, err)
	}
	good := rawBlock("stored")
	zero := rawBlock("stored")
	le.PutUint32(zero[4:], 0)
	far := rawBlock("stored")
	le.PutUint32(far[8:], lzxWindow+1)
	for name, in := range map[string][]byte{
		"empty":          nil,
		"zeros":          make([]byte, 400),
		"ones":           bytes.Repeat([]byte{0xFF}, 400),
		"cut":            good[:len(good)-1],
		"offset 0":       zero,
		"offset too far": far,
		"block too long": rawBlock("stored and more"),
		"block of 0":     rawBlock(""),
		"no more":        rawBlock("stor"),
	} {
		if err := x.inflate(make([]byte, 6), in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// lzxChunk is a chunk of the sample that is compressed, and its contents.
func lzxChunk(t testing.TB) (in, out []byte) {
	v := open(t, sample())
	f, err := v.FS().Open("wof/lzx")
	if err != nil {
		t.Fatal(err)
	}
	packed, err := v.FS().ReadFile("wof/lzx:" + wofStream)
	if err != nil {
		t.Fatal(err)
	}
	size := f.(*File).Size()
	table := int((size-1)/lzxWindow) * 4
	out = make([]byte, lzxWindow)
	if err := readFull(f.(*File), out, 0); err != nil {
		t.Fatal(err)
	}
	return packed[table : table+int(le.Uint32(packed))], out
}

func TestLZXTruncated(t *testing.T) {
	in, want := lzxChunk(t)
	var x lzx
	out := make([]byte, lzxWindow)
	if err := x.inflate(out, in); err != nil || !bytes.Equal(out, want) {
		t.Fatal(err)
	}
	for n := 0; n < len(in)-2; n += 1 + n/50 {
		if err := x.inflate(out, in[:n]); err == nil {
			t.Errorf("%d bytes of %d were enough", n, len(in))
		}
	}
}

func FuzzLZX(f *testing.F) {
	in, _ := lzxChunk(f)
	f.Add(in, uint16(lzxWindow))
	f.Add(rawBlock("stored,", "and again"), uint16(16))
	f.Add(bytes.Repeat([]byte{0x20, 0x11}, 200), uint16(300))
	f.Fuzz(func(t *testing.T, in []byte, n uint16) {
		var x lzx
		_ = x.inflate(make([]byte, min(int(n), lzxWindow)), in)
	})
}

func FuzzXpress(f *testing.F) {
	for i, v := range vectors {
		f.Add(xpressVector(f, i), uint16(len(v.text)))
	}
	f.Fuzz(func(t *testing.T, in []byte, n uint16) {
		var x xpress
		_ = x.inflate(make([]byte, min(int(n), 16<<10)), in)
	})
}

func FuzzLZNT1(f *testing.F) {
	f.Add([]byte("\x38\xb0\x88F# \x00 G A\x00"))
	f.Add([]byte{0xff, 0xbf, 0, 1, 2, 3})
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		out := bytes.Repeat([]byte{0xAA}, 3*lznt1Chunk)
		again := bytes.Repeat([]byte{0x55}, 3*lznt1Chunk)
		if lznt1(out, in) == nil && (lznt1(again, in) != nil || !bytes.Equal(out, again)) {
			t.Error("what was in the buffer shows")
		}
	})
}

func FuzzRuns(f *testing.F) {
	f.Add([]byte("\x31\x03\x10\x00\x00\x00"), int64(2))
	f.Add([]byte("\x01\x03\x11\x01\x05\x11\x02\xFC\x00"), int64(5))
	f.Add([]byte("\x88\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F"), int64(1<<61))
	f.Fuzz(func(t *testing.T, in []byte, last int64) {
		v := &Volume{clusterBytes: 4096, clusters: 1000}
		if last < -1 || last > 1<<61 {
			return
		}
		s := &stream{v: v, nonResident: true}
		if s.appendRuns(&record{v: v}, &attribute{nonResident: true, lastVCN: last, runs: in}) != nil {
			return
		}
		at := int64(0)
		for _, r := range s.runs {
			if r.vcn != at || r.n <= 0 || r.lcn < -1 || r.lcn >= 0 && r.lcn+r.n > v.clusters {
				t.Fatalf("%+v", s.runs)
			}
			at += r.n
		}
		if at != last+1 {
			t.Fatalf("%d clusters, want %d", at, last+1)
		}
	})
}
