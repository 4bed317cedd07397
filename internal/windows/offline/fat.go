package offline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"path"
	"sort"
	"strings"
	"time"
	"unicode/utf16"

	"berth/internal/windows"
)

const (
	// maxFATDir is the largest directory of FAT, in bytes: 65,536 entries of 32.
	maxFATDir = 2 << 20
	// maxFATDepth bounds paths; a boot volume's are 5 deep.
	maxFATDepth = 32
	// maxFATRuns bounds the extents of one file.
	maxFATRuns = 1 << 18
)

// errFATDamaged is wrapped by whatever cannot be right in a FAT volume.
var errFATDamaged = errors.New("FAT is damaged")

func fatDamaged(format string, a ...any) error {
	return fmt.Errorf("%w: %s", errFATDamaged, fmt.Sprintf(format, a...))
}

// fatVolume reads FAT12, FAT16 and FAT32: an EFI system partition, as a rule. It is an fs.FS that compares names without case.
//
//	+---------------------+-----------+-----------+-----------------+------------------+
//	| reserved sectors    | FAT 1     | FAT 2     | root (12, 16)   | clusters 2, 3 ...|
//	| 0: boot sector, BPB |           |           | 32-byte entries |                  |
//	+---------------------+-----------+-----------+-----------------+------------------+
type fatVolume struct {
	r            io.ReaderAt
	bits         int   // 12, 16 or 32: width of an entry of the FAT
	clusterBytes int64 // bytes
	fat, fatLen  int64 // bytes
	root         int64 // FAT12, FAT16: where the root directory lies
	rootLen      int64
	rootCluster  uint32 // FAT32
	data         int64  // where cluster 2 lies
	clusters     int64
	bootLabel    string
}

// openFAT reads the boot sector of a FAT volume of size bytes.
//
//	11 bytes per sector  13 sectors per cluster  14 reserved sectors  16 FATs  17 root entries  19 and 32 sectors in all
//	22 and 36 sectors per FAT  44 root cluster  43 or 71 label  510 0x55AA
func openFAT(r io.ReaderAt, size int64) (*fatVolume, error) {
	b := make([]byte, 512)
	if err := readFull(r, b, 0); err != nil {
		return nil, fmt.Errorf("FAT boot sector: %w", err)
	}
	le := binary.LittleEndian
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	switch {
	case b[510] != 0x55 || b[511] != 0xAA:
		return nil, fatDamaged("boot sector: no 0x55AA at byte 510")
	case sector < 512 || sector > 4096 || bits.OnesCount64(uint64(sector)) != 1:
		return nil, fatDamaged("boot sector: %d bytes per sector", sector)
	case perCluster == 0 || bits.OnesCount64(uint64(perCluster)) != 1:
		return nil, fatDamaged("boot sector: %d sectors per cluster", perCluster)
	}
	reserved, fats, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	sectors, perFAT := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	v := &fatVolume{r: r, bits: 16, clusterBytes: sector * perCluster}
	label := b[43:54]
	if perFAT == 0 {
		perFAT, v.bits, v.rootCluster, label = int64(le.Uint32(b[36:])), 32, le.Uint32(b[44:]), b[71:82]
	}
	v.bootLabel = strings.TrimRight(string(label), " \x00")
	if reserved == 0 || fats == 0 || perFAT == 0 || sectors == 0 || sectors > size/sector {
		return nil, fatDamaged("boot sector: %d reserved sectors, %d FATs of %d, %d sectors in a volume of %d bytes", reserved, fats, perFAT, sectors, size)
	}
	v.fat, v.fatLen = reserved*sector, perFAT*sector
	v.root, v.rootLen = v.fat+fats*v.fatLen, rootEntries*32
	v.data = v.root + (v.rootLen+sector-1)/sector*sector
	if v.data >= sectors*sector {
		return nil, fatDamaged("boot sector: clusters begin at byte %d of %d", v.data, sectors*sector)
	}
	v.clusters = (sectors*sector - v.data) / v.clusterBytes
	// Below 4,085 clusters it is FAT12 (Microsoft, FAT specification 1.03).
	if v.bits == 16 && v.clusters < 4085 {
		v.bits = 12
	}
	if need := ((v.clusters+2)*int64(v.bits) + 7) / 8; need > v.fatLen {
		return nil, fatDamaged("boot sector: a FAT of %d bytes for %d clusters", v.fatLen, v.clusters)
	}
	return v, nil
}

// next is the cluster after c; done at the end of a chain.
func (v *fatVolume) next(c uint32) (n uint32, done bool, err error) {
	b := make([]byte, 4)
	at := int64(c) * int64(v.bits) / 8
	w := v.bits / 8
	if v.bits == 12 {
		w = 2
	}
	if err := readFull(v.r, b[:w], v.fat+at); err != nil {
		return 0, false, fmt.Errorf("FAT entry %d: %w", c, err)
	}
	n = binary.LittleEndian.Uint32(b)
	end := uint32(0xFFF8)
	switch v.bits {
	case 12:
		end = 0xFF8
		if c%2 == 1 {
			n >>= 4
		}
		n &= 0xFFF
	case 32:
		end = 0x0FFFFFF8
		n &= 0x0FFFFFFF
	}
	return n, n >= end, nil
}

// fatRun is a range of clusters in a row.
type fatRun struct{ at, length int64 } // bytes of the volume

// chain follows the clusters from c for at most limit bytes. With exact set it must hold them all.
func (v *fatVolume) chain(c uint32, limit int64, exact bool) ([]fatRun, error) {
	var runs []fatRun
	for have := int64(0); have < limit; {
		if c < 2 || int64(c) >= v.clusters+2 {
			return nil, fatDamaged("cluster %d of %d in a chain", c, v.clusters)
		}
		at := v.data + int64(c-2)*v.clusterBytes
		if k := len(runs) - 1; k >= 0 && runs[k].at+runs[k].length == at {
			runs[k].length += v.clusterBytes
		} else if len(runs) == maxFATRuns {
			return nil, fatDamaged("a chain of more than %d pieces", maxFATRuns)
		} else {
			runs = append(runs, fatRun{at, v.clusterBytes})
		}
		if have += v.clusterBytes; have/v.clusterBytes > v.clusters {
			return nil, fatDamaged("a chain of clusters does not end")
		}
		n, done, err := v.next(c)
		if err != nil {
			return nil, err
		}
		if done {
			if exact && have < limit {
				return nil, fatDamaged("a chain of %d bytes for a file of %d", have, limit)
			}
			return runs, nil
		}
		c = n
	}
	if !exact {
		return nil, fatDamaged("a directory of more than %d bytes", limit)
	}
	return runs, nil
}

// fatEntry is a file or directory.
type fatEntry struct {
	name, short string
	attr        byte
	cluster     uint32
	size        int64
	written     time.Time
}

// Attributes of FAT entries.
const (
	fatVolumeID  = 0x08
	fatDirectory = 0x10
	fatLongName  = 0x0F
)

// dir reads the directory whose first cluster is c; 0 is the root.
//
//	0 name 8+3   11 attributes   20 cluster, high   22 time   24 date   26 cluster, low   28 size
func (v *fatVolume) dir(c uint32) (entries []fatEntry, label string, err error) {
	var runs []fatRun
	if c == 0 && v.bits != 32 {
		runs = []fatRun{{v.root, v.rootLen}}
	} else {
		if c == 0 {
			c = v.rootCluster
		}
		if runs, err = v.chain(c, maxFATDir+1, false); err != nil {
			return nil, "", err
		}
	}
	le := binary.LittleEndian
	var long fatName
	for _, run := range runs {
		b := make([]byte, run.length)
		if err := readFull(v.r, b, run.at); err != nil {
			return nil, "", fmt.Errorf("FAT directory: %w", err)
		}
		for ; len(b) >= 32; b = b[32:] {
			e := b[:32]
			switch {
			case e[0] == 0:
				return entries, label, nil
			case e[0] == 0xE5:
				long = fatName{}
				continue
			case e[11]&0x3F == fatLongName:
				long.add(e)
				continue
			case e[11]&fatVolumeID != 0:
				label = strings.TrimRight(string(e[:11]), " ")
				long = fatName{}
				continue
			}
			f := fatEntry{short: shortName(e), attr: e[11], size: int64(le.Uint32(e[28:])),
				cluster: uint32(le.Uint16(e[26:])), written: fatTime(le.Uint16(e[24:]), le.Uint16(e[22:]))}
			if v.bits == 32 {
				f.cluster |= uint32(le.Uint16(e[20:])) << 16
			}
			if f.name = long.take(e); f.name == "" {
				f.name = f.short
			}
			if f.short == "." || f.short == ".." {
				continue
			}
			entries = append(entries, f)
		}
	}
	return entries, label, nil
}

// fatName collects the entries of a long name, which come last part first.
type fatName struct {
	units []uint16
	next  byte // number of the part that must follow; 0: complete
	sum   byte
}

func (n *fatName) add(e []byte) {
	part := e[0] & 0x3F
	if e[0]&0x40 != 0 {
		*n = fatName{next: part, sum: e[13]}
	}
	if part == 0 || part > 20 || part != n.next || e[13] != n.sum {
		*n = fatName{}
		return
	}
	units := make([]uint16, 0, 13+len(n.units))
	for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		u := binary.LittleEndian.Uint16(e[at:])
		if u == 0 || u == 0xFFFF {
			break
		}
		units = append(units, u)
	}
	n.units, n.next = append(units, n.units...), part-1
}

// take returns the name if it belongs to the short entry that follows it, else "".
func (n *fatName) take(short []byte) string {
	sum := byte(0)
	for _, c := range short[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	name := ""
	if n.next == 0 && n.sum == sum {
		name = string(utf16.Decode(n.units))
	}
	*n = fatName{}
	if !fs.ValidPath(name) || strings.ContainsAny(name, "/\x00") {
		return ""
	}
	return name
}

// shortName is the 8.3 name. Bits 3 and 4 of byte 12 say that its parts are to be shown in lower case.
func shortName(e []byte) string {
	text := func(b []byte, lower bool) string {
		s := []rune(nil)
		for i, c := range b {
			if i == 0 && c == 0x05 {
				c = 0xE5
			}
			s = append(s, rune(c))
			if c < 0x20 || c == '/' || c == 0x7F { // in no name
				s[i] = 0xFFFD
			}
		}
		t := strings.TrimRight(string(s), " ")
		if lower {
			t = strings.ToLower(t)
		}
		return t
	}
	base, ext := text(e[:8], e[12]&0x08 != 0), text(e[8:11], e[12]&0x10 != 0)
	if base == "" {
		base = "\uFFFD"
	}
	if ext != "" {
		base += "." + ext
	}
	return base
}

// fatTime converts a date and time of 2 seconds' resolution, in an unknown zone.
func fatTime(d, t uint16) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Date(1980+int(d>>9), time.Month(d>>5&15), int(d&31), int(t>>11), int(t>>5&63), int(t&31)*2, 0, time.UTC)
}

// find resolves a path.
func (v *fatVolume) find(name string) (fatEntry, error) {
	e := fatEntry{name: ".", attr: fatDirectory}
	if !fs.ValidPath(name) {
		return e, fs.ErrInvalid
	}
	if name == "." {
		return e, nil
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxFATDepth {
		return e, fmt.Errorf("path of %d parts", len(parts))
	}
	for _, part := range parts {
		if e.attr&fatDirectory == 0 {
			return e, fs.ErrNotExist
		}
		list, _, err := v.dir(e.cluster)
		if err != nil {
			return e, err
		}
		found := false
		for _, x := range list {
			if strings.EqualFold(x.name, part) || strings.EqualFold(x.short, part) {
				e, found = x, true
				break
			}
		}
		if !found {
			return e, fs.ErrNotExist
		}
		if e.attr&fatDirectory != 0 && e.cluster == 0 { // only ".." of a first-level directory says 0, for the root
			return e, fatDamaged("directory %q has no cluster", e.name)
		}
	}
	e.name = path.Base(name)
	return e, nil
}

// Open implements fs.FS.
func (v *fatVolume) Open(name string) (fs.File, error) {
	fail := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	e, err := v.find(name)
	if err != nil {
		return fail(err)
	}
	if e.attr&fatDirectory != 0 {
		list, _, err := v.dir(e.cluster)
		if err != nil {
			return fail(err)
		}
		sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
		return &fatDir{e, list}, nil
	}
	f := &fatFile{v: v, e: e}
	if e.size > 0 {
		if f.runs, err = v.chain(e.cluster, e.size, true); err != nil {
			return fail(err)
		}
	}
	f.SectionReader = *io.NewSectionReader(f.runsReader(), 0, e.size)
	return f, nil
}

// info tells what a mounted volume tells. Free clusters are counted in the first FAT.
func (v *fatVolume) info() (*windows.Volume, error) {
	_, label, err := v.dir(0)
	if err != nil {
		return nil, err
	}
	if label == "" && v.bootLabel != "NO NAME" {
		label = v.bootLabel
	}
	i := &windows.Volume{Label: label, SizeBytes: v.clusters * v.clusterBytes, ClusterBytes: v.clusterBytes}
	// A piece is a whole number of entries of every width.
	b := make([]byte, 96<<10)
	perPiece := int64(len(b)) * 8 / int64(v.bits)
	for first := int64(0); first < v.clusters+2; first += perPiece {
		n := min(perPiece, v.clusters+2-first)
		piece := b[:(n*int64(v.bits)+7)/8]
		if err := readFull(v.r, piece, v.fat+first*int64(v.bits)/8); err != nil {
			return nil, fmt.Errorf("FAT: %w", err)
		}
		for k := range n {
			if first+k < 2 {
				continue
			}
			free := false
			switch v.bits {
			case 12:
				w := uint16(piece[k*3/2])
				if int(k*3/2+1) < len(piece) {
					w |= uint16(piece[k*3/2+1]) << 8
				}
				if k%2 == 1 {
					free = w>>4 == 0
				} else {
					free = w&0xFFF == 0
				}
			case 16:
				free = binary.LittleEndian.Uint16(piece[2*k:]) == 0
			case 32:
				free = binary.LittleEndian.Uint32(piece[4*k:])&0x0FFFFFFF == 0
			}
			if free {
				i.FreeBytes += v.clusterBytes
			}
		}
	}
	return i, nil
}

// fatFile is an open file.
type fatFile struct {
	io.SectionReader
	v    *fatVolume
	e    fatEntry
	runs []fatRun
}

func (f *fatFile) Stat() (fs.FileInfo, error) { return fatInfo{f.e}, nil }
func (f *fatFile) Close() error               { return nil }

func (f *fatFile) runsReader() io.ReaderAt { return fatRuns{f.v.r, f.runs} }

// fatRuns reads runs one after the other.
type fatRuns struct {
	r    io.ReaderAt
	runs []fatRun
}

func (f fatRuns) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for _, run := range f.runs {
		if done == len(p) {
			break
		}
		if off >= run.length {
			off -= run.length
			continue
		}
		n := min(int64(len(p)-done), run.length-off)
		if err := readFull(f.r, p[done:done+int(n)], run.at+off); err != nil {
			return done, err
		}
		done, off = done+int(n), 0
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// fatDir is an open directory.
type fatDir struct {
	e    fatEntry
	rest []fatEntry
}

func (d *fatDir) Stat() (fs.FileInfo, error) { return fatInfo{d.e}, nil }
func (d *fatDir) Close() error               { return nil }
func (d *fatDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.e.name, Err: errors.New("is a directory")}
}

func (d *fatDir) ReadDir(n int) ([]fs.DirEntry, error) {
	take := len(d.rest)
	if n > 0 {
		if take == 0 {
			return nil, io.EOF
		}
		take = min(n, take)
	}
	var list []fs.DirEntry
	for _, e := range d.rest[:take] {
		list = append(list, fs.FileInfoToDirEntry(fatInfo{e}))
	}
	d.rest = d.rest[take:]
	return list, nil
}

// fatInfo implements fs.FileInfo.
type fatInfo struct{ e fatEntry }

func (i fatInfo) Name() string       { return i.e.name }
func (i fatInfo) ModTime() time.Time { return i.e.written }
func (i fatInfo) IsDir() bool        { return i.Mode().IsDir() }
func (i fatInfo) Sys() any           { return nil }

func (i fatInfo) Size() int64 {
	if i.IsDir() {
		return 0
	}
	return i.e.size
}

func (i fatInfo) Mode() fs.FileMode {
	if i.e.attr&fatDirectory != 0 {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// readFull reads all of b at off; an early end of r is io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d: %w", len(b), off, err)
}
