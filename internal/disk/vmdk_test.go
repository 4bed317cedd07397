package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zlib"
)

// streamStyle is how a writer of streamOptimized disks lays them out.
type streamStyle struct {
	name    string
	grain   int  // sectors
	atEnd   bool // directory and tables behind the grains, footer; else before them
	version uint32
	empty   uint32 // entry of a grain of zeros: 0, or 1 where the writer says "zeros"
	tables  bool   // write tables that have no grains
}

var (
	// esxi is what ESXi, vCenter and ovftool write.
	esxi = streamStyle{name: "ESXi", grain: 128, atEnd: true, version: 3}
	// openVMDK is what VMware's open-vmdk writes: all tables, directory before the footer, too.
	openVMDKTool = streamStyle{name: "open-vmdk", grain: 128, atEnd: true, version: 1, tables: true}
	small        = streamStyle{name: "small grains, zeros said", grain: 8, atEnd: true, version: 2, empty: 1, tables: true}
	atFront      = streamStyle{name: "directory in front", grain: 32, version: 1}
)

const streamDescriptor = `# Disk DescriptorFile
version=1
CID=7e5b80a7
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY %d SPARSE "generated-stream.vmdk"

# The Disk Data Base
#DDB
ddb.adapterType = "lsilogic"
ddb.encoding = "UTF-8"
`

// streamVMDK writes a streamOptimized disk.
func streamVMDK(guest []byte, style streamStyle) []byte {
	const perTable = 512
	capacity := uint64(len(guest) / 512)
	grainBytes := style.grain * 512
	grains := (len(guest) + grainBytes - 1) / grainBytes
	tables := (grains + perTable - 1) / perTable

	header := func(directory uint64) []byte {
		h := make([]byte, 512)
		copy(h, vmdkMagic)
		le.PutUint32(h[4:], style.version)
		le.PutUint32(h[8:], 0x30001)
		if style.empty == 1 {
			le.PutUint32(h[8:], 0x30005)
		}
		le.PutUint64(h[12:], capacity)
		le.PutUint64(h[20:], uint64(style.grain))
		le.PutUint64(h[28:], 1)
		le.PutUint64(h[36:], 20)
		le.PutUint32(h[44:], perTable)
		le.PutUint64(h[56:], directory)
		le.PutUint64(h[64:], 128)
		copy(h[73:], "\n \r\n")
		le.PutUint16(h[77:], 1)
		return h
	}
	marker := func(sectors uint64, kind uint32) []byte {
		m := make([]byte, 512)
		le.PutUint64(m, sectors)
		le.PutUint32(m[12:], kind)
		return m
	}
	var out []byte
	here := func() uint32 {
		out = append(out, make([]byte, -len(out)&511)...)
		return uint32(len(out) / 512)
	}
	out = append(out, header(vmdkAtEnd)...)
	out = fmt.Appendf(out, streamDescriptor, capacity)
	out = append(out, make([]byte, 128*512-len(out))...)

	directory := make([]byte, (tables*4+511)/512*512)
	front := uint32(0)
	if !style.atEnd {
		front = here()
		out = append(out, make([]byte, len(directory)+tables*perTable*4)...)
	}
	for i := range tables {
		table := make([]byte, perTable*4)
		used := style.tables
		for j := range perTable {
			g := i*perTable + j
			if g >= grains {
				break
			}
			data := guest[g*grainBytes : min(len(guest), (g+1)*grainBytes)]
			if firstNonZero(data) < 0 {
				le.PutUint32(table[j*4:], style.empty)
				used = used || style.empty != 0
				continue
			}
			used = true
			le.PutUint32(table[j*4:], here())
			var z bytes.Buffer
			w := zlib.NewWriter(&z)
			_, err := w.Write(data)
			if err := errors.Join(err, w.Close()); err != nil {
				panic(err)
			}
			out = le.AppendUint64(out, uint64(g*style.grain))
			out = le.AppendUint32(out, uint32(z.Len()))
			out = append(out, z.Bytes()...)
		}
		here()
		switch {
		case !used:
		case style.atEnd:
			out = append(out, marker(4, 1)...)
			le.PutUint32(directory[i*4:], here())
			out = append(out, table...)
		default:
			at := front + uint32(len(directory)/512+i*4)
			le.PutUint32(directory[i*4:], at)
			copy(out[at*512:], table)
		}
	}
	if style.atEnd {
		out = append(out, marker(uint64(len(directory)/512), 2)...)
		at := here()
		out = append(out, directory...)
		out = append(out, marker(1, 3)...)
		out = append(out, header(uint64(at))...)
	} else {
		copy(out[front*512:], directory)
		copy(out, header(uint64(front)))
	}
	return append(out, marker(0, 0)...)
}

func TestStreamOptimizedOfOtherWriters(t *testing.T) {
	for _, style := range []streamStyle{esxi, openVMDKTool, small, atFront} {
		for _, size := range []int64{512, 1<<20 + 512, 70<<20 + 1536} {
			t.Run(fmt.Sprint(style.name, size), func(t *testing.T) {
				t.Parallel()
				want := guestDisk(size, 5)
				if size > 64<<20 {
					clear(want[1<<20 : 66<<20]) // whole tables of holes
				}
				file := streamVMDK(want, style)
				e, err := Open(bytes.NewReader(file), Options{})
				if err != nil {
					t.Fatal(err)
				}
				if e.Disks[0].SubFormat != "streamOptimized" || len(e.Warnings) != 0 {
					t.Errorf("%s, warnings %q", e.Disks[0].SubFormat, e.Warnings)
				}
				equalImage(t, e.Disks[0], want)
				// QEMU reads our generator's output alike.
				dir := t.TempDir()
				path, back := filepath.Join(dir, "a.vmdk"), filepath.Join(dir, "raw")
				if err := os.WriteFile(path, file, 0o600); err != nil {
					t.Fatal(err)
				}
				qemuImg(t, "convert", "-f", "vmdk", "-O", "raw", path, back)
				if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
					t.Errorf("QEMU reads something else: %v", err)
				}
			})
		}
	}
}

func TestDescriptorReferences(t *testing.T) {
	good := "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
	for _, c := range []struct {
		text   string
		reason Reason
		field  string
	}{
		{good + `RW 4 FLAT "/etc/passwd" 0`, RefersElsewhere, "extent"},
		{good + `RW 4 FLAT "..\..\secret" 0`, RefersElsewhere, "extent"},
		{good + `RW 4 FLAT "../secret" 0`, RefersElsewhere, "extent"},
		{good + `RW 4 FLAT ".." 0`, RefersElsewhere, "extent"},
		{good + `RW 4 FLAT "nbd:localhost:1" 0`, RefersElsewhere, "extent"},
		{good + `RW 4 FLAT "C:x" 0`, RefersElsewhere, "extent"},
		{good + `RW 4 FLAT "" 0`, RefersElsewhere, "extent"},
		{good + `RW 4 FLAT a 0`, Damaged, "descriptor"},
		{good + `RW 4 FLAT "a`, Damaged, "descriptor"},
		{good + `RW 4 FLAT "a" 9223372036854775807`, Damaged, "extent"},
		{good + `RW 4 FLAT "a" -1`, Damaged, "extent"},
		{good + `RW 0 FLAT "a" 0`, Damaged, "extent"},
		{good + `RW -4 FLAT "a" 0`, Damaged, "extent"},
		{good + `RW 18446744073709551615 FLAT "a" 0`, Damaged, "extent"},
		{good + `RW 2199023255552 FLAT "a" 0`, TooLarge, "extents"},
		{good + `NOACCESS 4 FLAT "a" 0`, Unsupported, "extent"},
		{good + `RW 4 VMFSRDM "a-rdm.vmdk"`, RefersElsewhere, "extent"},
		{good + `RW 4 SESPARSE "a-sesparse.vmdk"`, Unsupported, "extent"},
		{good + `RW 4 VMFSSPARSE "a-delta.vmdk"`, Unsupported, "extent"},
		{good + `RW 4 MAGIC "a.vmdk"`, Unsupported, "extent"},
		{good + `RW 4 FLAT "a" 0`, RefersElsewhere, "extent a"},
		{good, Damaged, "extents"},
		{"# Disk DescriptorFile\nparentCID=ffffffff\nRW 4 FLAT \"a\" 0", Damaged, "createType"},
		{"# Disk DescriptorFile\ncreateType=\"monolithicFlat\"\nRW 4 FLAT \"a\" 0", Damaged, "parentCID"},
		{"# Disk DescriptorFile\ncreateType=\"monolithicSparse\"\nparentCID=12345678\nRW 4 SPARSE \"a\"", RefersElsewhere, "parentCID"},
		{good + "parentFileNameHint=\"/vmfs/base.vmdk\"\nRW 4 SPARSE \"a\"", RefersElsewhere, "parentFileNameHint"},
		{"# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"vmfsRawDeviceMap\"\nRW 4 VMFSRDM \"a\"", RefersElsewhere, "createType"},
		{"# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"fullDevice\"\nRW 4 FLAT \"\\\\.\\PhysicalDrive0\" 0", RefersElsewhere, "createType"},
		{"# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"seSparse\"\nRW 4 SESPARSE \"a\"", Unsupported, "createType"},
		{good + "encryption.data = \"x\"\nRW 4 FLAT \"a\" 0", Encrypted, "encryption"},
	} {
		t.Run(c.text, func(t *testing.T) {
			_, err := Open(bytes.NewReader([]byte(c.text)), Options{})
			wantRefusal(t, err, "VMDK", c.reason, c.field)
		})
	}
}

// A snapshot's text is refused before its siblings are looked for.
func TestSiblingsAreNotAskedForRefusedDisks(t *testing.T) {
	text := "# Disk DescriptorFile\ncreateType=\"monolithicSparse\"\nRW 4 FLAT \"a\" 0\nparentCID=12345678\n"
	_, err := Open(bytes.NewReader([]byte(text)), Options{Siblings: func(name string) (Source, error) {
		t.Errorf("sibling %q was asked for", name)
		return nil, os.ErrNotExist
	}})
	wantRefusal(t, err, "VMDK", RefersElsewhere, "parentCID")
}
