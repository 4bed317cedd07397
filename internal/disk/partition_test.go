package disk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"berth/testdata/hostile"
)

// mbrRow is an entry of an MBR or extended boot record, in sectors.
type mbrRow struct {
	flag, kind     byte
	start, sectors uint32
}

func putMBR(p []byte, rows ...mbrRow) {
	for i, r := range rows {
		e := p[446+16*i:]
		e[0], e[4] = r.flag, r.kind
		le.PutUint32(e[8:], r.start)
		le.PutUint32(e[12:], r.sectors)
	}
	copy(p[510:], "\x55\xaa")
}

// gptRow is an entry of a GPT, in sectors.
type gptRow struct {
	kind, id    string
	first, last uint64
	attributes  uint64
	name        string
}

const basicData = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"

// gptDisk writes a disk of n sectors with primary and backup GPT of 128 entries.
func gptDisk(n, size int64, rows ...gptRow) []byte {
	p := make([]byte, n*size)
	putMBR(p, mbrRow{0, mbrProtective, 1, uint32(n - 1)})
	table := make([]byte, 128*128)
	for i, r := range rows {
		e := table[i*128:]
		putGUID(e, r.kind)
		putGUID(e[16:], r.id)
		le.PutUint64(e[32:], r.first)
		le.PutUint64(e[40:], r.last)
		le.PutUint64(e[48:], r.attributes)
		for j, c := range r.name {
			le.PutUint16(e[56+2*j:], uint16(c))
		}
	}
	tableSectors := int64(len(table)) / size
	write := func(self, other, at int64) {
		h := p[self*size:]
		copy(h, gptMagic)
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], uint64(self))
		le.PutUint64(h[32:], uint64(other))
		le.PutUint64(h[40:], uint64(2+tableSectors))
		le.PutUint64(h[48:], uint64(n-2-tableSectors))
		putGUID(h[56:], "AABBCCDD-1122-3344-5566-778899AABBCC")
		le.PutUint64(h[72:], uint64(at))
		le.PutUint32(h[80:], 128)
		le.PutUint32(h[84:], 128)
		copy(p[at*size:], table)
		mendGPT(p, self*size, size)
	}
	write(1, n-1, 2)
	write(n-1, 1, n-1-tableSectors)
	return p
}

// mendGPT makes the checksums of the header at byte at right.
func mendGPT(p []byte, at, size int64) {
	if at < 0 || at+512 > int64(len(p)) || string(p[at:at+8]) != gptMagic {
		return
	}
	h := p[at:]
	// Two numbers of 32 bits: the product fits what is unsigned, and only that.
	start, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
	if have := uint64(len(p)); n <= have && start <= (have-n)/uint64(size) {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(p[start*uint64(size):][:n]))
	}
	if length := le.Uint32(h[12:]); length <= 512 {
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:length]))
	}
}

// asImage is a raw disk.
func asImage(t testing.TB, p []byte) Image {
	t.Helper()
	e, err := Open(bytes.NewReader(p), Options{Format: "RAW"})
	if err != nil {
		t.Fatal(err)
	}
	return e.Disks[0]
}

var windowsRows = []gptRow{
	{guidEFISystem, "00000001-0000-0000-0000-000000000001", 64, 127, 1 << 63, "EFI system partition"},
	{"E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "00000001-0000-0000-0000-000000000002", 128, 159, 0, "Microsoft reserved partition"},
	{basicData, "00000001-0000-0000-0000-000000000003", 160, 400, 4, "Basic data partition ä"},
}

func windowsTable(size int64) []Partition {
	return []Partition{
		{Number: 1, TypeGUID: guidEFISystem, GUID: windowsRows[0].id, Name: "EFI system partition", Start: 64 * size, Length: 64 * size},
		{Number: 2, TypeGUID: windowsRows[1].kind, GUID: windowsRows[1].id, Name: "Microsoft reserved partition", Start: 128 * size, Length: 32 * size},
		{Number: 3, TypeGUID: basicData, GUID: windowsRows[2].id, Name: "Basic data partition ä", Bootable: true, Start: 160 * size, Length: 241 * size},
	}
}

func TestGPT(t *testing.T) {
	for _, size := range []int64{512, 4096} {
		whole := gptDisk(1024, size, windowsRows...)
		last := int64(1023) * size
		for _, c := range []struct {
			name    string
			change  func(p []byte) []byte
			warning string
		}{
			{"whole", func(p []byte) []byte { return p }, ""},
			{"primary header damaged", func(p []byte) []byte { p[size+60]++; return p }, "header CRC"},
			{"primary entries damaged", func(p []byte) []byte { p[2*size+60]++; return p }, "entries CRC"},
			{"primary overwritten", func(p []byte) []byte { clear(p[size : 20*size]); return p }, "backup"},
			{"backup damaged", func(p []byte) []byte { p[last+60]++; return p }, "backup GPT in the last sector"},
			{"disk grown", func(p []byte) []byte { return append(p, make([]byte, 100*size)...) }, "backup GPT in the last sector"},
			{"first sector lost", func(p []byte) []byte { clear(p[:512]); return p }, "protective MBR is missing"},
		} {
			t.Run(fmt.Sprint(c.name, size), func(t *testing.T) {
				got, err := Partitions(asImage(t, c.change(slices.Clone(whole))))
				if err != nil {
					t.Fatal(err)
				}
				if got.Scheme != GPT || got.SectorSize != size || got.DiskID != "AABBCCDD-1122-3344-5566-778899AABBCC" || got.Managed != NotManaged {
					t.Errorf("table %+v", got)
				}
				if !reflect.DeepEqual(got.Entries, windowsTable(size)) {
					t.Errorf("entries %+v", got.Entries)
				}
				if w := strings.Join(got.Warnings, " "); !strings.Contains(w, c.warning) || c.warning == "" && w != "" {
					t.Errorf("warnings %q, want %q", w, c.warning)
				}
			})
		}
	}
}

func TestBrokenGPTIsRefused(t *testing.T) {
	whole := gptDisk(1024, 512, windowsRows...)
	last := int64(1023 * 512)
	both := func(at int64, b []byte) []byte {
		p := slices.Clone(whole)
		copy(p[512+at:], b)
		copy(p[last+at:], b)
		mendGPT(p, 512, 512)
		mendGPT(p, last, 512)
		return p
	}
	entry := func(b []byte) []byte {
		p := slices.Clone(whole)
		copy(p[1024+32:], b)
		copy(p[last-32*512+32:], b)
		mendGPT(p, 512, 512)
		mendGPT(p, last, 512)
		return p
	}
	for _, c := range []struct {
		name  string
		file  []byte
		field string
	}{
		{"both headers gone", func() []byte {
			p := slices.Clone(whole)
			clear(p[512:1024])
			clear(p[last:])
			return p
		}(), "header"},
		{"2^32-1 entries", both(80, le32(1<<32-1)), "entries"},
		{"no entries", both(80, le32(0)), "entries"},
		{"entries of 0 bytes", both(84, le32(0)), "entries"},
		{"entries of 2^31 bytes", both(84, le32(1<<31)), "entries"},
		{"entries at 2^63", both(72, le64(1<<63)), "entries"},
		{"entries at the end", both(72, le64(1023)), "entries"},
		{"header of 2^32-1 bytes", both(12, le32(1<<32-1)), "header length"},
		{"header of 0 bytes", both(12, le32(0)), "header length"},
		{"header of another sector", both(24, le64(77)), "header"},
		{"partition ends before it begins", entry(le64(200)), "entry 1"},
		{"partition to 2^64-1", entry(append(le64(64), le64(1<<64-1)...)), "entry 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Partitions(asImage(t, c.file))
			wantRefusal(t, err, "GPT", Damaged, c.field)
		})
	}
}

func TestPartitionBeyondTheDisk(t *testing.T) {
	rows := slices.Concat(windowsRows, []gptRow{
		{basicData, windowsRows[0].id, 500, 2000, 0, "reaches beyond"},
		{basicData, windowsRows[0].id, 1 << 50, 1<<50 + 1, 0, "lies beyond"},
	})
	got, err := Partitions(asImage(t, gptDisk(1024, 512, rows...)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Entries) != 4 || got.Entries[3].Start != 500*512 || got.Entries[3].Length != 524*512 || len(got.Warnings) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestMBR(t *testing.T) {
	p := make([]byte, 4096*512)
	le.PutUint32(p[440:], 0xdeadbeef)
	putMBR(p, mbrRow{0x80, 7, 64, 100}, mbrRow{0, 0x0f, 1000, 2000}, mbrRow{}, mbrRow{0, 0x27, 200, 50})
	// Links count from the beginning of the extended partition, partitions from their own record.
	putMBR(p[1000*512:], mbrRow{0, 7, 16, 100}, mbrRow{0, 5, 500, 600})
	putMBR(p[1500*512:], mbrRow{}, mbrRow{0, 5, 900, 100})
	putMBR(p[1900*512:], mbrRow{0, 0x0b, 16, 80})
	got, err := Partitions(asImage(t, p))
	if err != nil {
		t.Fatal(err)
	}
	want := &Table{Scheme: MBR, SectorSize: 512, DiskID: "DEADBEEF", Entries: []Partition{
		{Number: 1, TypeMBR: 7, Bootable: true, Start: 64 * 512, Length: 100 * 512},
		{Number: 4, TypeMBR: 0x27, Start: 200 * 512, Length: 50 * 512},
		{Number: 5, TypeMBR: 7, Start: 1016 * 512, Length: 100 * 512},
		{Number: 6, TypeMBR: 0x0b, Start: 1916 * 512, Length: 80 * 512},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestBrokenMBRIsRefused(t *testing.T) {
	base := make([]byte, 4096*512)
	putMBR(base, mbrRow{0x80, 7, 64, 100}, mbrRow{0, 5, 1000, 2000})
	change := func(f func(p []byte)) []byte {
		p := slices.Clone(base)
		f(p)
		return p
	}
	for _, c := range []struct {
		name string
		file []byte
	}{
		{"loop to itself", change(func(p []byte) {
			putMBR(p[1000*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 10, 1})
			putMBR(p[1010*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 10, 1})
		})},
		{"loop of two", change(func(p []byte) {
			putMBR(p[1000*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 10, 1})
			putMBR(p[1010*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 20, 1})
			putMBR(p[1020*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 10, 1})
		})},
		{"1,000 records", change(func(p []byte) {
			for i := range 1000 {
				putMBR(p[(1000+i)*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, uint32(i + 1), 1})
			}
		})},
		{"record beyond the disk", change(func(p []byte) { putMBR(p[1000*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 1<<32 - 1, 1}) })},
		{"record without signature", change(func(p []byte) {})},
		{"loop to the MBR", change(func(p []byte) { putMBR(p, mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 0, 2}, mbrRow{0, 5, 0, 2}) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Partitions(asImage(t, c.file))
			if c.name == "loop to the MBR" {
				// The "record" is the MBR itself, whose second entry has no link: one partition is seen twice, then it ends.
				if err != nil || len(got.Entries) > 3 {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			wantRefusal(t, err, "MBR", Damaged, "extended boot record")
		})
	}
}

func TestManagedDisks(t *testing.T) {
	mbr := func(kind byte) []byte {
		p := make([]byte, 4096*512)
		putMBR(p, mbrRow{0, kind, 63, 4000})
		return p
	}
	gpt := func(kind string) []byte {
		return gptDisk(1024, 512, gptRow{kind, windowsRows[0].id, 64, 127, 0, ""})
	}
	for _, c := range []struct {
		name string
		file []byte
		want Managed
	}{
		{"MBR basic", mbr(7), NotManaged},
		{"MBR dynamic", mbr(0x42), DynamicDisk},
		{"MBR pool", mbr(0xe7), StorageSpaces},
		{"GPT basic", gpt(basicData), NotManaged},
		{"GPT LDM metadata", gpt(guidLDMMetadata), DynamicDisk},
		{"GPT LDM data", gpt(guidLDMData), DynamicDisk},
		{"GPT pool", gpt(guidStorageSpaces), StorageSpaces},
	} {
		got, err := Partitions(asImage(t, c.file))
		if err != nil || got.Managed != c.want || len(got.Entries) != 1 {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestDisksWithoutTable(t *testing.T) {
	ntfs := make([]byte, 1<<20)
	copy(ntfs, "\xeb\x52\x90NTFS    ")
	copy(ntfs[510:], "\x55\xaa")
	text := slices.Clone(ntfs) // boot code with a message where the entries would be
	copy(text[446:], "A disk read error occurred")
	for name, p := range map[string][]byte{"zeros": make([]byte, 1<<20), "one sector": make([]byte, 512), "ten bytes": make([]byte, 10), "NTFS": ntfs, "NTFS with text": text} {
		got, err := Partitions(asImage(t, p))
		if err != nil || got.Scheme != NoTable || len(got.Entries) != 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// The tables of the system's own partitioning tool, if there is one here.
func TestTablesOfSfdisk(t *testing.T) {
	tool, err := exec.LookPath("sfdisk")
	if err != nil {
		t.Fatal("sfdisk is needed (scripts/setup test installs it)")
	}
	for _, script := range []string{
		"label: dos\nstart=2048, size=2048, type=7, bootable\nstart=4096, type=5\nstart=6144, size=2048, type=7\nstart=10240, size=2048, type=b\n",
		"label: gpt\nstart=2048, size=2048, type=U, name=EFI\nstart=4096, size=4096, type=" + basicData + ", name=Windows\n",
	} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, make([]byte, 16<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), tool, "-q", path)
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := exec.CommandContext(t.Context(), tool, "--json", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		var want struct {
			PartitionTable struct {
				Partitions []struct {
					Start, Size int64
					Type        string
					Bootable    bool
				}
			}
		}
		if err := json.Unmarshal(out, &want); err != nil {
			t.Fatal(err)
		}
		e, err := OpenFile(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		closeAfter(t, e)
		got, err := Partitions(e.Disks[0])
		if err != nil {
			t.Fatal(err)
		}
		rows := slices.DeleteFunc(want.PartitionTable.Partitions, func(p struct {
			Start, Size int64
			Type        string
			Bootable    bool
		}) bool {
			return p.Type == "5"
		})
		if len(got.Entries) != len(rows) {
			t.Fatalf("%+v, want %s", got, out)
		}
		for i, p := range got.Entries {
			kind := p.TypeGUID
			if kind == "" {
				kind = fmt.Sprintf("%x", p.TypeMBR)
			}
			if p.Start != rows[i].Start*512 || p.Length != rows[i].Size*512 || kind != rows[i].Type || p.Bootable != rows[i].Bootable {
				t.Errorf("%+v, want %+v", p, rows[i])
			}
		}
	}
}

func FuzzPartitions(f *testing.F) {
	f.Add(gptDisk(80, 512, windowsRows[0]), uint16(0))
	f.Add(gptDisk(512, 512, windowsRows...), uint16(0))
	f.Add(gptDisk(80, 4096, windowsRows[0]), uint16(9))
	endless := gptDisk(80, 512, windowsRows[0]) // More entries, of more bytes, than a signed number of 64 bits can count.
	le.PutUint64(endless[512+80:], math.MaxUint64)
	f.Add(endless, uint16(0))
	mbr := make([]byte, 8<<10)
	putMBR(mbr, mbrRow{0x80, 7, 1, 2}, mbrRow{0, 15, 4, 12})
	putMBR(mbr[4*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 4, 4})
	putMBR(mbr[8*512:], mbrRow{0, 7, 1, 1})
	f.Add(mbr, uint16(0))
	loop := bytes.Clone(mbr)
	putMBR(loop[8*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, 0, 4})
	f.Add(loop, uint16(3))
	f.Fuzz(func(t *testing.T, data []byte, zeros uint16) {
		// Zeros behind make room for what the table says.
		p := append(bytes.Clone(data), make([]byte, int(zeros)*16)...)
		if len(p) == 0 {
			return
		}
		for _, size := range []int64{512, 4096} {
			mendGPT(p, size, size)
			mendGPT(p, int64(len(p))/size*size-size, size)
		}
		var table *Table
		var err error
		disk := asImage(t, p)
		hostile.Bounded(t, int64(len(p)), func() { table, err = Partitions(disk) })
		if err != nil {
			sound(t, err)
			return
		}
		numbers := map[int]bool{}
		for _, e := range table.Entries {
			if e.Number < 1 || numbers[e.Number] || e.Start < 0 || e.Length <= 0 || e.Start > int64(len(p))-e.Length {
				t.Fatalf("partition %+v of a disk of %d bytes, with %+v", e, len(p), table.Entries)
			}
			numbers[e.Number] = true
		}
	})
}
