package ntfs

import (
	"bytes"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"testing"

	"berth/testdata/hostile"
)

// exercise does with a volume what Berth does, and whatever it finds: nothing may panic. What it costs is bounded elsewhere.
func exercise(r io.ReaderAt, size int64) {
	v, err := Open(r, size)
	if err != nil {
		return
	}
	_, _ = v.Info()
	folder := map[string]int{}
	count := 0
	b := make([]byte, 6000)
	_ = fs.WalkDir(v.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if count++; count > 200 {
			return fs.SkipAll
		}
		if err != nil {
			return fs.SkipDir
		}
		if folder[path.Dir(p)]++; folder[path.Dir(p)] > 20 {
			return fs.SkipDir
		}
		_, _ = d.Info()
		if d.IsDir() {
			return nil
		}
		_, _ = v.Extents(p)
		if f, err := v.FS().Open(p); err == nil {
			if r, ok := f.(*File); ok {
				_, _ = r.ReadAt(b, 0)
				_, _ = r.ReadAt(b, r.Size()-int64(len(b)/2))
			}
		}
		return nil
	})
	for _, p := range []string{"small.txt:stream", "big/A FILE WITH A LONG NAME 99.DAT", "Windows/System32/config/SAM", "junction/x"} {
		_, _ = fs.Stat(v.FS(), p)
	}
}

// patched is the sample volume with bytes of its own over it.
type patched struct{ patches map[int64]byte }

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := bytes.NewReader(sample()).ReadAt(b, off)
	for at, c := range p.patches { // a few at most
		if at >= off && at < off+int64(n) {
			b[at-off] = c
		}
	}
	return n, err
}

// targets are the ranges of the sample that hold structures: the boot sector, the MFT, index blocks, WOF and LZNT1 data.
func targets(t testing.TB) [][2]int64 {
	v := open(t, sample())
	list := [][2]int64{{0, 512}}
	add := func(s *stream) {
		for _, r := range s.runs {
			if r.lcn >= 0 {
				list = append(list, [2]int64{r.lcn * v.clusterBytes, r.n * v.clusterBytes})
			}
		}
	}
	add(v.mft)
	for _, n := range []string{"big", "comp/text", "comp/mixed"} {
		i, err := v.FS().Stat(n)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := v.record(fileRef(i.Sys().(*Entry).Record))
		if err != nil {
			t.Fatal(err)
		}
		if i.IsDir() {
			d, err := rec.index()
			if err != nil {
				t.Fatal(err)
			}
			add(d.alloc)
			continue
		}
		s, err := rec.stream(attrData, "")
		if err != nil {
			t.Fatal(err)
		}
		add(s)
	}
	return list
}

// apply reads patches of 5 bytes: target, offset in it (3 bytes, wrapping), value.
func apply(list [][2]int64, data []byte) patched {
	p := patched{map[int64]byte{}}
	for ; len(data) >= 5 && len(p.patches) < 256; data = data[5:] {
		t := list[int(data[0])%len(list)]
		off := int64(data[1]) | int64(data[2])<<8 | int64(data[3])<<16
		p.patches[t[0]+off%t[1]] = data[4]
	}
	return p
}

func FuzzVolume(f *testing.F) {
	list := targets(f)
	f.Add([]byte{})
	f.Add([]byte{0, 13, 0, 0, 0x81})                    // cluster size
	f.Add([]byte{0, 48, 0, 0, 0xFF, 0, 64, 0, 0, 0xF0}) // MFT elsewhere, small records
	f.Add([]byte{1, 24, 0, 0, 0xFF, 1, 25, 0, 0, 0xFF}) // bytes in use of $MFT
	f.Add([]byte{1, 0, 0x14 * 4, 0, 'X'})
	f.Add([]byte{2, 16, 0, 0, 9, 2, 24, 0, 0, 0xFF})
	r := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		b := make([]byte, 5*(1+r.IntN(12)))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		img := apply(list, data)
		hostile.Bounded(t, int64(len(sample())), func() { exercise(img, int64(len(sample()))) })
	})
}

// TestMutants does what FuzzVolume does, with structure-aware mutants: they keep their update sequences right.
func TestMutants(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	e := edit(t)
	n := e.v.mft.size / e.v.recordBytes
	for range 300 {
		for _, run := range e.v.mft.runs {
			from, to := run.lcn*e.v.clusterBytes, (run.lcn+run.n)*e.v.clusterBytes
			copy(e.img[from:to], sample()[from:to])
		}
		for range 1 + r.IntN(4) {
			rec := r.Int64N(min(n, 90))
			if string(e.img[e.at(e.v.mft, rec*e.v.recordBytes):][:4]) != "FILE" {
				continue
			}
			e.record(rec, func(b []byte) {
				for range 1 + r.IntN(6) {
					// Mostly small values and all ones, where the bugs are.
					b[8+r.IntN(400)] = []byte{0, 1, 2, 0x7F, 0x80, 0xFF, byte(r.Uint32())}[r.IntN(7)]
				}
				// The update-sequence array itself stays: the reader would stop there.
				le.PutUint16(b[4:], 48)
				le.PutUint16(b[6:], 3)
			})
		}
		hostile.Bounded(t, int64(len(e.img)), func() { exercise(bytes.NewReader(e.img), int64(len(e.img))) })
	}
}
