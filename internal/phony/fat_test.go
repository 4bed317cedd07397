package phony

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// fatReader walks a FAT32 volume the plain way: by Microsoft's specification, and with none of the writer's code.
type fatReader struct {
	t              *testing.T
	b              []byte
	cluster, first int // bytes: of a cluster, and where cluster 2 is
	table          []byte
	seen           map[uint32]string
	files          map[string]string
}

func (r *fatReader) chain(n uint32, who string) []byte {
	var out []byte
	for ; n >= 2 && n < 0x0FFFFFF8; n = le.Uint32(r.table[4*n:]) {
		if other := r.seen[n]; other != "" {
			r.t.Fatalf("cluster %d belongs to %s and %s", n, other, who)
		}
		r.seen[n] = who
		at := r.first + int(n-2)*r.cluster
		out = append(out, r.b[at:at+r.cluster]...)
	}
	return out
}

func (r *fatReader) folder(n uint32, path string, parent uint32) {
	var long []uint16
	var sum byte
	b := r.chain(n, path)
	if path != "" && (string(b[:11]) != ".          " || le.Uint16(b[26:]) != uint16(n) || string(b[32:43]) != "..         " || le.Uint16(b[58:]) != uint16(parent)) {
		r.t.Errorf("%s does not begin with . and ..", path)
	}
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		if b[11] == 0x0F {
			part := make([]uint16, 0, 13)
			for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
				part = append(part, le.Uint16(b[at:]))
			}
			long, sum = append(part, long...), b[13]
			continue
		}
		if b[11]&8 != 0 || b[0] == '.' {
			continue
		}
		name := strings.TrimRight(string(b[:8]), " ")
		if ext := strings.TrimRight(string(b[8:11]), " "); ext != "" {
			name += "." + ext
		}
		if long != nil {
			var want byte
			for _, c := range b[:11] {
				want = (want&1)<<7 + want>>1 + c
			}
			if sum != want {
				r.t.Errorf("%s/%s: checksum %d of the long name, want %d", path, name, sum, want)
			}
			if end := slices.Index(long, 0); end >= 0 {
				long = long[:end]
			}
			name, long = string(utf16.Decode(long)), nil
		}
		first := uint32(le.Uint16(b[20:]))<<16 | uint32(le.Uint16(b[26:]))
		if b[11]&0x10 != 0 {
			r.files[path+name+"/"] = ""
			up := n
			if path == "" {
				up = 0
			}
			r.folder(first, path+name+"/", up)
			continue
		}
		data := r.chain(first, path+name)
		r.files[path+name] = string(data[:le.Uint32(b[28:])])
	}
}

func TestFAT(t *testing.T) {
	root := newFolder("")
	want := map[string]string{}
	put := func(path, data string) {
		t.Helper()
		if err := root.put(path, &node{data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
		want[path] = data
		for i := range path {
			if path[i] == '/' {
				want[path[:i+1]] = ""
			}
		}
	}
	put("BOOTX64.EFI", "8.3")
	put("bootx64.old", "lower case")
	put("EFI/Microsoft/Boot/BCD", strings.Repeat("hive", 4000))
	put("EFI/Microsoft/Boot/empty", "")
	put("exactly13.txt", "13 characters")
	put("a name of some length, with Ümlaut and commas.longext", "x")
	for i := range 60 { // a folder of several clusters, whose 8.3 names collide
		put(fmt.Sprintf("many/component number %d.manifest", i), fmt.Sprint(i))
	}
	const start, size = 1 << 20, 100 << 20
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(start + size); err != nil {
		t.Fatal(err)
	}
	if err := writeFAT(f, start, size, "EFI system", 0x1234ABCD, root, time.Date(2020, 9, 22, 9, 30, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, start); err != nil {
		t.Fatal(err)
	}
	reserved, tables, perTable := int(le.Uint16(b[14:])), int(b[16]), int(le.Uint32(b[36:]))
	cluster := int(b[13]) * 512
	r := &fatReader{
		t: t, b: b, cluster: cluster, first: (reserved + tables*perTable) * 512, seen: map[uint32]string{}, files: map[string]string{},
		table: b[reserved*512 : (reserved+perTable)*512],
	}
	clusters := (size - r.first) / cluster
	if clusters < 65525 || perTable*512/4 < clusters+2 || le.Uint32(b[32:])*512 != size || le.Uint32(b[28:])*512 != start {
		t.Errorf("%d clusters, tables of %d sectors", clusters, perTable)
	}
	if !bytes.Equal(r.table, b[(reserved+perTable)*512:(reserved+2*perTable)*512]) || !bytes.Equal(b[:1024], b[6*512:8*512]) {
		t.Error("the copies of the table or of the boot sector differ")
	}
	r.folder(le.Uint32(b[44:]), "", 0)
	if !maps.Equal(r.files, want) {
		t.Errorf("files %q, want %q", slices.Sorted(maps.Keys(r.files)), slices.Sorted(maps.Keys(want)))
	}
	if free := int(le.Uint32(b[512+488:])); free != clusters-len(r.seen) {
		t.Errorf("%d clusters are said to be free of %d with %d used", free, clusters, len(r.seen))
	}
	for n := range clusters + 2 {
		if used := le.Uint32(r.table[4*n:]) != 0; used != (r.seen[uint32(n)] != "" || n < 2 || uint32(n) == le.Uint32(b[44:])) {
			t.Errorf("cluster %d: used %v", n, used)
		}
	}
	if err := writeFAT(f, start, 16<<20, "", 0, newFolder(""), time.Now()); err == nil {
		t.Error("16 MiB are written as FAT32")
	}
	if err := root.put("big", &node{size: size}); err != nil {
		t.Fatal(err)
	}
	if err := writeFAT(f, start, size, "", 0, root, time.Now()); err == nil {
		t.Error("more is written than there is room")
	}
}
