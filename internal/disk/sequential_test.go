package disk

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"berth/testdata/hostile"
)

// compressed is what a compressor that is installed makes of data.
func compressed(t testing.TB, data []byte, command ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v (Debian: gzip, xz-utils)", strings.Join(command, " "), err)
	}
	return out
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// copied is what Copy makes of a file.
func copied(ctx context.Context, file Source, opt Options) ([]byte, error) {
	e, err := Open(file, opt)
	if err != nil {
		return nil, err
	}
	var m memoryTarget
	_, err = Copy(ctx, &m, e.Disks[0], CopyOptions{})
	return m.bytes, err
}

// memoryTarget is a small Target.
type memoryTarget struct{ bytes []byte }

func (m *memoryTarget) Truncate(n int64) error {
	m.bytes = append(m.bytes, make([]byte, max(n-int64(len(m.bytes)), 0))...)[:n]
	return nil
}

func (m *memoryTarget) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.bytes)) {
		if err := m.Truncate(end); err != nil {
			return 0, err
		}
	}
	return copy(m.bytes[off:], p), nil
}

func TestCompressedRawDisksAreCopied(t *testing.T) {
	guest := guestDisk(5<<20+512, 31)
	clear(guest[1<<20 : 4<<20])
	half := len(guest) / 2
	for name, file := range map[string][]byte{
		"GZIP gzip":           compressed(t, guest, "gzip", "-c"),
		"GZIP ours":           gzipped(t, guest),
		"GZIP two members":    slices.Concat(gzipped(t, guest[:half]), gzipped(t, guest[half:])),
		"XZ xz":               compressed(t, guest, "xz", "-c", "-1"),
		"XZ CRC-32":           compressed(t, guest, "xz", "-c", "-0", "--check=crc32"),
		"XZ SHA-256":          compressed(t, guest, "xz", "-c", "-0", "--check=sha256"),
		"XZ no check":         compressed(t, guest, "xz", "-c", "-0", "--check=none"),
		"XZ -9":               compressed(t, guest, "xz", "-c", "-9"),
		"XZ blocks":           compressed(t, guest, "xz", "-c", "-0", "--block-size=500000"),
		"XZ threads":          compressed(t, guest, "xz", "-c", "-0", "-T2", "--block-size=1MiB"),
		"XZ streams, padding": slices.Concat(compressed(t, guest[:half], "xz", "-c", "-0"), make([]byte, 8), compressed(t, guest[half:], "xz", "-c", "-0"), make([]byte, 4)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			format, _, _ := strings.Cut(name, " ")
			e, err := Open(bytes.NewReader(file), Options{Sequential: true})
			if err != nil {
				t.Fatal(err)
			}
			d := e.Disks[0]
			if e.Format != format || d.Format != format || d.Size() != -1 || d.Length != int64(len(file)) {
				t.Errorf("%+v", e)
			}
			path := filepath.Join(t.TempDir(), "out.raw")
			last := int64(0)
			if _, err := CopyFile(t.Context(), path, d, CopyOptions{Progress: func(done, size int64) {
				if done <= last || size != -1 {
					t.Errorf("progress from %d to %d of %d", last, done, size)
				}
				last = done
			}}); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, guest) {
				t.Fatalf("%d bytes, wrong from %d on: %v", len(got), firstDifference(got, guest), err)
			}
			if n := stored(t, path); n > 3<<20 || last != int64(len(guest)) {
				t.Errorf("%d bytes are stored; progress ended at %d", n, last)
			}
			// In no other way.
			_, err = d.ReadAt(make([]byte, 512), 0)
			wantRefusal(t, err, format, Unsupported, "compression")
			for _, err := range d.Extents() {
				wantRefusal(t, err, format, Unsupported, "compression")
			}
			_, err = Partitions(d)
			wantRefusal(t, err, format, Unsupported, "compression")
			_, err = Open(bytes.NewReader(file), Options{})
			wantRefusal(t, err, format, Unsupported, "compression")
			// Cut off, anywhere.
			for _, at := range []int{13, len(file) / 3, len(file) - 40, len(file) - 9, len(file) - 1} {
				if _, err := copied(t.Context(), bytes.NewReader(file[:at]), Options{Sequential: true}); !isRefusal(err) {
					t.Errorf("cut at %d of %d: %v", at, len(file), err)
				}
			}
			if _, err := copied(t.Context(), failingSource{bytes.NewReader(file), int64(len(file) / 2)}, Options{Sequential: true}); !errors.Is(err, errBroken) || isRefusal(err) {
				t.Errorf("a source that cannot be read: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := copied(ctx, bytes.NewReader(file), Options{Sequential: true}); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
}

// Whatever bit is wrong, what comes out is right or refused.
func TestCompressedDisksThatAreDamaged(t *testing.T) {
	guest := guestDisk(60000, 32)
	r := rand.New(rand.NewPCG(1, 1))
	for _, file := range [][]byte{gzipped(t, guest), compressed(t, guest, "xz", "-c", "-0", "--block-size=20000")} {
		refused := 0
		for range 300 {
			mutant := bytes.Clone(file)
			at := r.IntN(len(file))
			if r.IntN(2) == 0 {
				at = len(file) - 1 - r.IntN(70)
			}
			mutant[at] ^= 1 << r.IntN(8)
			got, err := copied(t.Context(), bytes.NewReader(mutant), Options{Sequential: true})
			if err == nil && !bytes.Equal(got, guest) {
				t.Fatalf("byte %d of %d: wrong bytes", at, len(file))
			} else if err != nil {
				sound(t, err)
				refused++
			}
		}
		if refused < 270 { // a name, a time, and the like do not matter
			t.Errorf("%d of 300 refused", refused)
		}
	}
}

// xzOf is an xz file of one block, with the header as given (from its flags on) and no data that is right.
func xzOf(header string, data ...byte) []byte {
	h, err := hex.DecodeString(strings.ReplaceAll(header, " ", ""))
	if err != nil {
		panic(err)
	}
	flags := []byte{0, 0}
	out := append([]byte(xzMagic), flags...)
	out = le.AppendUint32(out, crc32.ChecksumIEEE(flags))
	block := append([]byte{0}, h...)
	block = append(block, make([]byte, -len(block)&3)...)
	block[0] = byte(len(block) / 4)
	out = append(out, block...)
	out = le.AppendUint32(out, crc32.ChecksumIEEE(block))
	return append(out, data...)
}

func TestCompressedDisksThatAreRefused(t *testing.T) {
	guest := guestDisk(1<<20, 33)
	for name, c := range map[string]struct {
		file          []byte
		opt           Options
		reason        Reason
		field, detail string
	}{
		"gzip of qcow2":           {file: gzipped(t, plainQCOW2(guest)), reason: Unsupported, field: "compression", detail: "QCOW2"},
		"gzip of an OVA":          {file: gzipped(t, samples(t)["OVA"]), reason: Unsupported, field: "compression", detail: "OVA"},
		"gzip of gzip":            {file: gzipped(t, gzipped(t, guest)), reason: Unsupported, field: "compression", detail: "GZIP"},
		"xz of gzip":              {file: compressed(t, gzipped(t, guest), "xz", "-c"), reason: Unsupported, field: "compression", detail: "GZIP"},
		"gzip of text":            {file: gzipped(t, []byte("hello")), reason: NotADisk, field: "compressed data", detail: "no disk format"},
		"gzip of nothing":         {file: gzipped(t, nil), reason: NotADisk, field: "compressed data", detail: "no disk format"},
		"gzip of LUKS":            {file: gzipped(t, append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, 1024)...)), reason: Encrypted, field: "compressed data", detail: "LUKS"},
		"gzip over policy":        {file: gzipped(t, guest), opt: Options{MaxSize: 1<<20 - 1}, reason: TooLarge, field: "compressed data", detail: "1048575 bytes"},
		"gzip bomb":               {file: gzipped(t, patched(make([]byte, 100<<20), 510, 0x55, 0xaa)), opt: Options{MaxSize: 64 << 20}, reason: TooLarge, field: "compressed data"},
		"gzip and something":      {file: append(gzipped(t, guest), "something"...), reason: Damaged, field: "compressed data"},
		"xz bomb":                 {file: compressed(t, patched(make([]byte, 100<<20), 510, 0x55, 0xaa), "xz", "-c", "-0"), opt: Options{MaxSize: 64 << 20}, reason: TooLarge, field: "compressed data"},
		"xz with BCJ":             {file: compressed(t, guest, "xz", "-c", "--x86", "--lzma2=preset=0"), reason: Unsupported, field: "block header", detail: "LZMA2"},
		"xz, dictionary of 4 GiB": {file: xzOf("00 21 01 28"), reason: TooLarge, field: "dictionary", detail: "xz -9"},
		"xz, dictionary code 41":  {file: xzOf("00 21 01 29"), reason: Damaged, field: "compressed data"},
		"xz, reserved flag":       {file: xzOf("04 21 01 10"), reason: Unsupported, field: "block header"},
		"xz, length of 2^63":      {file: xzOf("40 ffffffffffffffffff01 21 01 10"), reason: Damaged, field: "compressed data"},
		"xz, endless number":      {file: xzOf("40 ffffffffffffffffffffff"), reason: Damaged, field: "compressed data"},
		"xz, nonsense":            {file: xzOf("00 21 01 10", 0x55, 0x55), reason: Damaged, field: "compressed data"},
		"xz, uncompressed chunk before the dictionary": {file: xzOf("00 21 01 10", 2, 0, 0, 0), reason: Damaged, field: "compressed data"},
		"xz, less than it says":                        {file: xzOf("80 8008 21 01 10", 1, 0, 0, 'x', 0), reason: Damaged, field: "compressed data", detail: "1024"},
		"xz, many blocks of nothing":                   {file: append(xzOf("00 21 01 1c", 0, 0, 0, 0), bytes.Repeat(xzOf("00 21 01 1c", 0, 0, 0, 0)[12:], 100)...), reason: Damaged, field: "compressed data", detail: "so many blocks"},
		"xz, many small blocks of nothing":             {file: append(xzOf("00 21 01 00", 0, 0, 0, 0), bytes.Repeat(xzOf("00 21 01 00", 0, 0, 0, 0)[12:], 600)...), reason: Damaged, field: "compressed data", detail: "so many blocks"},
	} {
		t.Run(name, func(t *testing.T) {
			c.opt.Sequential = true
			_, err := copied(t.Context(), bytes.NewReader(c.file), c.opt)
			format := "GZIP"
			if strings.HasPrefix(name, "xz") {
				format = "XZ"
			}
			wantRefusal(t, err, format, c.reason, c.field)
			if !strings.Contains(err.Error(), c.detail) {
				t.Errorf("%v, want %q", err, c.detail)
			}
		})
	}
}

// A file that is said to be raw is, whatever it begins with.
func TestGzipSaidToBeRaw(t *testing.T) {
	file := gzipped(t, guestDisk(4096, 1))
	got, err := copied(t.Context(), bytes.NewReader(file), Options{Sequential: true, Format: "RAW"})
	if err != nil || !bytes.Equal(got, file) {
		t.Errorf("%d bytes: %v", len(got), err)
	}
}

// limitedTarget counts, and has room for a million bytes.
type limitedTarget struct{ end int64 }

var errLimit = errors.New("enough")

func (l *limitedTarget) Truncate(int64) error { return nil }

func (l *limitedTarget) WriteAt(p []byte, off int64) (int, error) {
	if l.end = max(l.end, off+int64(len(p))); l.end > 1_000_000 {
		return 0, errLimit
	}
	return len(p), nil
}

// FuzzCopy is about the formats that FuzzOpen does not read through: their checksums are made right where they are near.
func FuzzCopy(f *testing.F) {
	guest := guestDisk(3000, 34)
	f.Add(gzipped(f, guest))
	f.Add(compressed(f, guest, "xz", "-c", "-0"))
	f.Add(compressed(f, guest, "xz", "-c", "-0", "--check=none", "--block-size=1000"))
	f.Add(xzOf("00 21 01 10", 1, 0, 0, 'x', 0))
	f.Add(xzOf("c0 05 01 21 01 10", 1, 0, 0, 'x', 0))
	// The largest dictionary: one, and again and again.
	f.Add(xzOf("00 21 01 1c", 1, 0, 0, 'x', 0))
	block := xzOf("00 21 01 1c", 0, 0, 0, 0)
	f.Add(append(block, bytes.Repeat(block[12:], 100)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := slices.Clone(data)
		if len(file) > 16 && isXZ(bytes.NewReader(file)) {
			le.PutUint32(file[8:], crc32.ChecksumIEEE(file[6:8]))
			if end := 12 + int(file[12])*4; file[12] != 0 && end+4 <= len(file) {
				le.PutUint32(file[end:], crc32.ChecksumIEEE(file[12:end]))
			}
		}
		var e *Envelope
		var err error
		hostile.Bounded(t, int64(len(file)), func() {
			e, err = Open(bytes.NewReader(file), Options{Sequential: true, MaxSize: 1 << 20})
		})
		if err != nil {
			sound(t, err)
			return
		}
		hostile.Bounded(t, int64(len(file)), func() {
			if _, err := Copy(t.Context(), &limitedTarget{}, e.Disks[0], CopyOptions{}); err != nil && !errors.Is(err, errLimit) && !errors.Is(err, io.EOF) {
				sound(t, err)
			}
		})
	})
}
