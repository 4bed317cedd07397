package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	c := cache{budget: 1000}
	f := &file{}
	for i := range int64(100) {
		c.put(place{f, i}, make([]byte, 100))
		if _, ok := c.get(place{f, 0}); !ok {
			t.Fatalf("what was used last is gone after %d", i)
		}
		if c.held > 1000 || int64(len(c.entries))*100 != c.held {
			t.Fatalf("%d bytes in %d entries", c.held, len(c.entries))
		}
	}
	if _, ok := c.get(place{f, 50}); ok {
		t.Error("what was not used for long is still there")
	}
	// One entry over the budget is kept alone: its reader is about to use it.
	c.put(place{f, 1000}, make([]byte, 5000))
	if _, ok := c.get(place{f, 1000}); !ok || len(c.entries) != 1 {
		t.Errorf("%d entries", len(c.entries))
	}
}

// A disk that is read everywhere keeps only its budget.
func TestMemoryOfAnEnvelope(t *testing.T) {
	guest := guestDisk(40<<20, 13)
	e, err := Open(bytes.NewReader(streamVMDK(guest, esxi)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 100)
	for range 5000 {
		off := r.Int64N(int64(len(guest) - len(p)))
		if _, err := e.Disks[0].ReadAt(p, off); err != nil || !bytes.Equal(p, guest[off:off+int64(len(p))]) {
			t.Fatalf("read at %d: %v", off, err)
		}
	}
	mem := e.Disks[0].Image.(*mapped).file.mem
	if mem.blocks.held > blockBudget || mem.pages.held > pageBudget || mem.blocks.held < blockBudget/2 {
		t.Errorf("%d bytes of blocks, %d of pages", mem.blocks.held, mem.pages.held)
	}
}

// Tables that are used over and over describe a disk of endless pieces in a small file.
func TestSharedTablesEndTheExtents(t *testing.T) {
	// 16 KiB clusters of 32 subclusters, every other of which is zeros: 32 pieces a cluster, 2^40/2^14 clusters, one L2 table.
	const cluster = 16384
	file := make([]byte, 64*cluster)
	copy(file, plainQCOW2(make([]byte, 65536))[:112])
	be.PutUint32(file[20:], 14)
	be.PutUint64(file[24:], 1<<40)
	be.PutUint64(file[72:], qcow2ExtendedL2)
	be.PutUint32(file[36:], 1<<16)
	be.PutUint64(file[40:], cluster)
	for i := range 1 << 16 {
		be.PutUint64(file[cluster+i*8:], 60*cluster)
	}
	for i := range cluster / 16 {
		be.PutUint64(file[60*cluster+i*16+8:], 0x5555555500000000)
	}
	e, err := Open(bytes.NewReader(file), Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for x, err := range e.Disks[0].Extents() {
		if n++; err != nil {
			wantRefusal(t, err, "QCOW2", Damaged, "tables")
			if x.Length != 0 || n > 9*len(file) {
				t.Errorf("extent %+v after %d", x, n)
			}
			return
		}
	}
	t.Errorf("%d extents and no end", n)
}

func TestQCOW2Warnings(t *testing.T) {
	guest := guestDisk(1<<20, 14)
	q := plainQCOW2(guest)
	for warning, file := range map[string][]byte{
		"not closed properly":  patched(q, 72, be64(qcow2Dirty)...),
		"3 internal snapshots": patched(q, 60, be32(3)...),
	} {
		e, err := Open(bytes.NewReader(file), Options{})
		if err != nil || len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0], warning) {
			t.Fatalf("%v, %+v", err, e)
		}
		equalImage(t, e.Disks[0], guest)
	}
}

// closing counts how often it was closed.
type closing struct {
	Source
	closed *int
}

func (c closing) Close() error { *c.closed++; return nil }

func TestSiblingsAreClosed(t *testing.T) {
	guest := guestDisk(1<<20, 15)
	text := "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\nRW 1024 FLAT \"a\" 0\nRW 1024 FLAT \"b\" 0\n"
	opened, closed := 0, 0
	siblings := func(missing string) func(string) (Source, error) {
		return func(name string) (Source, error) {
			if name == missing {
				return nil, fs.ErrNotExist
			}
			opened++
			return closing{bytes.NewReader(guest[:1024*512]), &closed}, nil
		}
	}
	_, err := Open(strings.NewReader(text), Options{Siblings: siblings("b")})
	wantRefusal(t, err, "VMDK", RefersElsewhere, "extent b")
	if opened != 1 || closed != 1 {
		t.Errorf("after a refusal: %d opened, %d closed", opened, closed)
	}
	e, err := Open(strings.NewReader(text), Options{Siblings: siblings("")})
	if err != nil {
		t.Fatal(err)
	}
	if opened != 3 || closed != 1 {
		t.Errorf("%d opened, %d closed before Close", opened, closed)
	}
	if err := errors.Join(e.Close(), e.Close()); err != nil || closed != 3 {
		t.Errorf("%d closed after Close: %v", closed, err)
	}
	equalImage(t, e.Disks[0], slices.Concat(guest[:1024*512], guest[:1024*512]))
}
