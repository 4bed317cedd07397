package ntfs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

// sample is the volume that testdata/ntfs3g.sh makes. Callers that change it take a clone.
var sample = sync.OnceValue(func() []byte {
	f, err := os.Open("testdata/ntfs3g.img.gz")
	if err != nil {
		panic(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		panic(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		panic(err)
	}
	return b
})

func open(t testing.TB, img []byte) *Volume {
	t.Helper()
	v, err := Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestContents(t *testing.T) {
	v := open(t, sample())
	if !v.ownUpCase {
		t.Error("$UpCase of the volume was not used")
	}
	list, err := os.ReadFile("testdata/ntfs3g.sums")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(list)), "\n")
	if len(lines) < 10 {
		t.Fatalf("only %d sums", len(lines))
	}
	for _, line := range lines {
		sum, name, _ := strings.Cut(line, "  ./")
		b, err := v.FS().ReadFile(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != sum {
			t.Errorf("%s: sha256 %s, want %s", name, got, sum)
		}
		// The same in pieces that fit nothing.
		f, err := v.FS().Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r := f.(io.ReaderAt)
		piece := make([]byte, 1237)
		for off := len(b) - len(b)%7; off >= 0; off -= 61 * len(piece) / 7 {
			n, err := r.ReadAt(piece, int64(off))
			if n != min(len(piece), len(b)-off) || !bytes.Equal(piece[:n], b[off:off+n]) || (err == io.EOF) != (n < len(piece)) {
				t.Fatalf("%s: ReadAt(%d) = %d, %v", name, off, n, err)
			}
		}
	}
	// Alternate streams, which sha256sum does not see: what ntfs3g.sh wrote.
	var numbers strings.Builder
	for i := 1; i <= 900; i++ {
		fmt.Fprintln(&numbers, i)
	}
	for name, want := range map[string]string{"small.txt:stream": "alternate", "small.txt:large": numbers.String()} {
		if b, err := v.FS().ReadFile(name); string(b) != want || err != nil {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	// The test above proves little unless files are what they are called: sums of all kinds, two names of one file, holes, and many
	// extents.
	for _, name := range []string{"hard.txt", "sparse.bin", "fragmented", "comp/mixed", "wof/xpress4k", "wof/xpress8k", "wof/xpress16k", "wof/lzx", "Ünïcode Ä/ß/日本.txt"} {
		if !strings.Contains(string(list), "  ./"+name+"\n") {
			t.Errorf("there is no sum of %s", name)
		}
	}
	if x, err := v.Extents("fragmented"); err != nil || len(x) < 20 {
		t.Errorf("fragmented has %d extents, %v", len(x), err)
	}
	if x, err := v.Extents("sparse.bin"); err != nil || !slices.ContainsFunc(x, func(e Extent) bool { return e.VolumeOffset < 0 }) {
		t.Errorf("sparse.bin has no hole: %v, %v", x, err)
	}
	for _, name := range []string{"comp/text", "comp/mixed"} {
		var u *UnsupportedError
		if _, err := v.Extents(name); !errors.As(err, &u) || !strings.Contains(u.What, "compressed stream") {
			t.Errorf("%s is not LZNT1: %v", name, err)
		}
	}
}

func TestPaths(t *testing.T) {
	v := open(t, sample())
	for name, want := range map[string]int64{
		"small.txt":                      5,
		"SMALL.TXT":                      5,
		"small.txt:stream":               9,
		"Small.txt:STREAM":               9,
		"small.txt:stream:$DATA":         9,
		"small.txt::$DATA":               5,
		"small.txt:large":                3492,
		"windows/SYSTEM32/config/system": 11393,
		"hard.txt":                       11393,
		"ünïcode ä/ß/日本.TXT":             1,
		"BIG/afilew~7.dat":               0,
		"sparse.bin":                     5 << 20,
		"$UpCase":                        131072,
		"$MFT":                           v.mft.size,
	} {
		i, err := v.FS().Stat(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if i.Size() != want || i.IsDir() {
			t.Errorf("%s: %d bytes, want %d", name, i.Size(), want)
		}
	}
	for _, name := range []string{
		"nothing", "big/nothing", "big/a file with a long name 400.dat", "small.txt/x", "small.txt:other", "Windows/System32:x", "wof/xpress4k/x",
	} {
		if _, err := fs.Stat(v.FS(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want not exist", name, err)
		}
		if _, err := v.FS().Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want not exist", name, err)
		}
	}
	for _, name := range []string{"", "/Windows", "Windows/", "../x", "a\x00b", "small.txt:", "small.txt:stream:$OTHER", ":stream"} {
		if _, err := v.FS().Open(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v, want invalid", name, err)
		}
	}
	one, err := v.FS().Stat("hard.txt")
	if err != nil {
		t.Fatal(err)
	}
	two, err := v.FS().Stat("Windows/System32/config/SYSTEM")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := one.Sys().(*Entry), two.Sys().(*Entry); a.Record != b.Record || a.Links != 2 || a.Created.Year() < 2020 {
		t.Errorf("hard links: %+v and %+v", a, b)
	}
}

// NTFS' own files need not have contents: that is no damage.
func TestOwnFiles(t *testing.T) {
	v := open(t, sample())
	list, err := v.FS().ReadDir("$Extend")
	if err != nil || len(list) < 3 {
		t.Fatal(list, err)
	}
	for _, e := range list {
		i, err := e.Info()
		if err != nil || i.Size() != 0 || i.IsDir() {
			t.Errorf("%s: %v", e.Name(), err)
		}
		var u *UnsupportedError
		if _, err := v.FS().ReadFile("$Extend/" + e.Name()); !errors.As(err, &u) {
			t.Errorf("%s: %v", e.Name(), err)
		}
	}
	if i, err := v.FS().Stat("$Secure"); err != nil || i.Size() != 0 {
		t.Errorf("$Secure: %v", err)
	}
	if i, err := v.FS().Stat("$Secure:$SDS"); err != nil || i.Size() == 0 {
		t.Errorf("$Secure:$SDS: %v", err)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	v := open(t, sample())
	for name, want := range map[string]ReparseError{
		"junction":               {TagMountPoint, `\??\C:\Windows`},
		"junction/System32":      {TagMountPoint, `\??\C:\Windows`},
		"symlink":                {TagSymlink, `Windows\System32`},
		"SYMLINK/config/SYSTEM":  {TagSymlink, `Windows\System32`},
		"dedup":                  {TagDedup, ""},
		"junction/nothing/there": {TagMountPoint, `\??\C:\Windows`},
	} {
		_, err := v.FS().Open(name)
		var r *ReparseError
		if !errors.As(err, &r) || *r != want || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"junction", "symlink"} {
		i, err := v.FS().Stat(name)
		if err != nil || i.Mode().Type() != fs.ModeSymlink {
			t.Errorf("%s: %v, %v", name, i, err)
		}
	}
	list, err := v.FS().ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, e := range list {
		if e.Type() == fs.ModeSymlink {
			links++
		}
	}
	if links != 2 {
		t.Errorf("%d links in the root, want 2", links)
	}
}

func TestLargeDirectory(t *testing.T) {
	v := open(t, sample())
	list, err := v.FS().ReadDir("big")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 400 {
		t.Fatalf("%d entries, want 400", len(list))
	}
	for i := range 400 {
		name := fmt.Sprintf("a file with a long name %d.dat", i)
		if !slices.ContainsFunc(list, func(e fs.DirEntry) bool { return e.Name() == name }) {
			t.Errorf("%s is not listed", name)
		}
		if _, err := v.FS().Stat("big/" + strings.ToUpper(name)); err != nil {
			t.Error(err)
		}
		if _, err := v.FS().Stat("big/" + name + "x"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

// TestLookupIsNotAScan counts what a lookup reads: the way down the tree, not the directory.
func TestLookupIsNotAScan(t *testing.T) {
	c := &counter{r: bytes.NewReader(sample())}
	v, err := Open(c, int64(len(sample())))
	if err != nil {
		t.Fatal(err)
	}
	c.bytes = 0
	if _, err := v.FS().Stat("big/a file with a long name 250.dat"); err != nil {
		t.Fatal(err)
	}
	lookup := c.bytes
	c.bytes = 0
	if _, err := v.FS().ReadDir("big"); err != nil {
		t.Fatal(err)
	}
	if lookup*4 > c.bytes {
		t.Errorf("a lookup read %d bytes, the whole directory %d", lookup, c.bytes)
	}
}

type counter struct {
	r     io.ReaderAt
	bytes int
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	c.bytes += len(p)
	return c.r.ReadAt(p, off)
}

func TestFSContract(t *testing.T) {
	v := open(t, sample())
	for dir, file := range map[string]string{"Windows": "System32/config/SYSTEM", "comp": "mixed", "Ünïcode Ä": "ß/日本.txt", "big": "a file with a long name 3.dat"} {
		sub, err := fs.Sub(v.FS(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := fstest.TestFS(sub, file); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestExtents(t *testing.T) {
	img := sample()
	v := open(t, img)
	for name, least := range map[string]int{"fragmented": 20, "sparse.bin": 3, "Windows/System32/config/SYSTEM": 1, "$MFT": 1} {
		list, err := v.Extents(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) < least {
			t.Errorf("%s: %d extents", name, len(list))
		}
		var got []byte
		for _, e := range list {
			if e.FileOffset != int64(len(got)) {
				t.Fatalf("%s: extent at %d, expected %d", name, e.FileOffset, len(got))
			}
			if e.VolumeOffset < 0 {
				got = append(got, make([]byte, e.Length)...)
			} else {
				got = append(got, img[e.VolumeOffset:e.VolumeOffset+e.Length]...)
			}
		}
		want, err := v.FS().ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the extents hold other bytes than the file", name)
		}
	}
	for _, name := range []string{"small.txt", "comp/text", "wof/xpress8k"} {
		var u *UnsupportedError
		if list, err := v.Extents(name); !errors.As(err, &u) {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	if _, err := v.Extents("big"); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
}

func TestConcurrentReads(t *testing.T) {
	v := open(t, sample())
	f, err := v.FS().Open("comp/mixed")
	if err != nil {
		t.Fatal(err)
	}
	w, err := v.FS().Open("wof/xpress16k")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for _, f := range []fs.File{f, w} {
		f := f.(*File)
		want := make([]byte, f.Size())
		if err := readFull(f, want, 0); err != nil {
			t.Fatal(err)
		}
		for i := range int64(4) {
			group.Go(func() {
				b := make([]byte, 9000)
				for off := i * 1000; off < f.Size(); off += 20011 {
					n, err := f.ReadAt(b, off)
					if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(b[:n], want[off:off+int64(n)]) {
						t.Errorf("at %d: %d, %v", off, n, err)
					}
				}
			})
		}
	}
	group.Wait()
}

// tool runs one of ntfs-3g's tools, which the tests' setup installs.
func tool(t *testing.T, name string, arg ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Fatalf("%v: install ntfs-3g", err)
		}
	}
	out, err := exec.CommandContext(t.Context(), path, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arg, " "), err, out)
	}
	return string(out)
}

// TestGeometries holds the reader against mkntfs, ntfscp and ntfsinfo for the cluster and sector sizes there are.
func TestGeometries(t *testing.T) {
	for _, c := range []struct{ sector, cluster int }{{512, 512}, {512, 1024}, {512, 4096}, {512, 65536}, {4096, 4096}, {4096, 65536}, {512, 2 << 20}} {
		t.Run(fmt.Sprintf("%d-%d", c.sector, c.cluster), func(t *testing.T) {
			dir := t.TempDir()
			img := filepath.Join(dir, "img")
			if err := os.WriteFile(img, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			size := int64(24 << 20)
			if c.cluster > 1<<20 {
				size = 512 << 20
			}
			if err := os.Truncate(img, size); err != nil {
				t.Fatal(err)
			}
			tool(t, "mkntfs", "-q", "-Q", "-F", "-L", "Étage C", "-s", strconv.Itoa(c.sector), "-c", strconv.Itoa(c.cluster), img)
			src := filepath.Join(dir, "src")
			content := func(i int) []byte {
				return bytes.Repeat(fmt.Appendf(nil, "%d of the files\n", i), 1+i*i*i*3)
			}
			for i := range 30 {
				if err := os.WriteFile(src, content(i), 0o600); err != nil {
					t.Fatal(err)
				}
				tool(t, "ntfscp", "-f", "-q", img, src, fmt.Sprintf("file number %d", i))
			}
			tool(t, "ntfscp", "-f", "-q", "-N", "extra", img, src, "file number 3")

			f, err := os.Open(img)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			v, err := Open(f, size)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 30 {
				b, err := v.FS().ReadFile(fmt.Sprintf("FILE number %d", i))
				if err != nil || !bytes.Equal(b, content(i)) {
					t.Errorf("file %d: %d bytes, want %d, %v", i, len(b), len(content(i)), err)
				}
			}
			if b, err := v.FS().ReadFile("file number 3:extra"); err != nil || !bytes.Equal(b, content(29)) {
				t.Errorf("stream: %d bytes, %v", len(b), err)
			}
			info, err := v.Info()
			if err != nil {
				t.Fatal(err)
			}
			out := tool(t, "ntfsinfo", "-f", "-m", img)
			number := func(field string) int64 {
				m := regexp.MustCompile(field + `:\s*(\d+)`).FindStringSubmatch(out)
				if m == nil {
					t.Fatalf("ntfsinfo does not say %s:\n%s", field, out)
				}
				n, _ := strconv.ParseInt(m[1], 10, 64)
				return n
			}
			want := Info{
				Label: "Étage C", Serial: v.serial, ClusterBytes: int64(c.cluster), Major: 3, Minor: 1,
				TotalBytes: number("Volume Size in Clusters") * int64(c.cluster),
				FreeBytes:  number("Free Clusters") * int64(c.cluster),
			}
			if info != want {
				t.Errorf("%+v, want %+v", info, want)
			}
		})
	}
}
