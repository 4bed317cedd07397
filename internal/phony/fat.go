package phony

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

// FAT32, for the EFI system partition of a machine with UEFI firmware (Microsoft's FAT specification, 1.03).
const (
	fatReserved  = 32      // sectors before the first FAT
	fatMinimum   = 65525   // clusters; with fewer it is FAT16
	fatMaximum   = 1 << 21 // clusters; with more a cluster gets larger
	fatEnd       = 0x0FFFFFF8
	fatFile      = 64 << 20 // bytes: files are put together in memory
	fatDirectory = 0x10
	fatLongName  = 0x0F
)

// fatVolume collects the clusters of a FAT32 volume: entry n of the table and of data are for cluster n.
type fatVolume struct {
	cluster int64 // bytes
	most    int64 // clusters
	table   []uint32
	data    [][]byte
	stamp   [4]byte // DOS time and date
}

// writeFAT makes a FAT32 volume of size bytes at start with the tree on it.
func writeFAT(disk *os.File, start, size int64, label string, serial uint32, tree *node, when time.Time) error {
	sectors := size / sectorBytes
	perCluster := int64(1)
	for sectors/perCluster > fatMaximum {
		perCluster *= 2
	}
	tableSectors := (sectors/perCluster*4 + sectorBytes - 1) / sectorBytes // a little too large: it also covers itself
	clusters := (sectors - fatReserved - 2*tableSectors) / perCluster
	if clusters < fatMinimum || perCluster > 64 {
		return fmt.Errorf("FAT32: %d bytes are too few or too many", size)
	}
	v := &fatVolume{cluster: perCluster * sectorBytes, most: clusters, table: []uint32{fatEnd, fatEnd}, data: [][]byte{nil, nil}}
	le.PutUint16(v.stamp[:], uint16(when.Hour()<<11|when.Minute()<<5|when.Second()/2))
	le.PutUint16(v.stamp[2:], uint16((when.Year()-1980)<<9|int(when.Month())<<5|when.Day()))
	if _, err := v.folder(tree, 0, true, fatLabel(label)); err != nil {
		return err
	}

	boot := make([]byte, sectorBytes)
	copy(boot, "\xEB\x58\x90MSDOS5.0")
	le.PutUint16(boot[11:], sectorBytes)
	boot[13] = byte(perCluster)
	le.PutUint16(boot[14:], fatReserved)
	boot[16], boot[21] = 2, 0xF8 // FATs, a fixed disk
	le.PutUint16(boot[24:], 63)
	le.PutUint16(boot[26:], 255)
	le.PutUint32(boot[28:], uint32(start/sectorBytes))
	le.PutUint32(boot[32:], uint32(sectors))
	le.PutUint32(boot[36:], uint32(tableSectors))
	le.PutUint32(boot[44:], 2) // the root folder's cluster
	le.PutUint16(boot[48:], 1) // information sector
	le.PutUint16(boot[50:], 6) // copy of this sector
	boot[64], boot[66] = 0x80, 0x29
	le.PutUint32(boot[67:], serial)
	copy(boot[71:], fatLabel(label))
	copy(boot[82:], "FAT32   ")
	boot[510], boot[511] = 0x55, 0xAA
	info := make([]byte, sectorBytes)
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], uint32(clusters-int64(len(v.table))+2))
	le.PutUint32(info[492:], uint32(len(v.table)))
	info[510], info[511] = 0x55, 0xAA
	table := make([]byte, 0, 4*len(v.table))
	for _, n := range v.table {
		table = le.AppendUint32(table, n)
	}
	at := func(sector int64) int64 { return start + sector*sectorBytes }
	write := func(b []byte, sectors ...int64) error {
		for _, s := range sectors {
			if _, err := disk.WriteAt(b, at(s)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(slices.Concat(boot, info), 0, 6); err != nil {
		return err
	}
	if err := write(table, fatReserved, fatReserved+tableSectors); err != nil {
		return err
	}
	first := fatReserved + 2*tableSectors
	for i, b := range v.data[2:] {
		if err := write(b, first+int64(i)*perCluster); err != nil {
			return err
		}
	}
	return nil
}

// store appends a chain of clusters and returns the first, 0 for nothing.
func (v *fatVolume) store(b []byte) (uint32, error) {
	if int64(len(v.table))+int64(len(b))/v.cluster+1 > v.most {
		return 0, fmt.Errorf("FAT32: the volume is full")
	}
	first := uint32(0)
	for part := range slices.Chunk(b, int(v.cluster)) {
		n := uint32(len(v.table))
		if first == 0 {
			first = n
		} else {
			v.table[n-1] = n
		}
		v.table = append(v.table, fatEnd)
		v.data = append(v.data, part)
	}
	return first, nil
}

// folder writes a folder with all that is in it. Its own cluster comes first, for the ".." of those below: space for its
// entries is taken before they are known.
func (v *fatVolume) folder(n *node, parent uint32, root bool, label string) (uint32, error) {
	names := v.aliases(n)
	slots := 0
	for _, c := range n.sorted(nil) {
		slots += 1 + longSlots(c.name, names[c])
	}
	if root {
		slots++ // the label
	} else {
		slots += 2 // . and ..
	}
	entries := make([]byte, (int64(slots*32)/v.cluster+1)*v.cluster)
	first, err := v.store(entries) // store keeps slices of entries, so that what follows fills them
	if err != nil {
		return 0, err
	}
	at := entries
	put := func(name string, attributes byte, cluster uint32, size int64) {
		copy(at, name)
		at[11] = attributes
		copy(at[14:18], v.stamp[:])
		copy(at[18:20], v.stamp[2:])
		copy(at[22:26], v.stamp[:])
		le.PutUint16(at[20:], uint16(cluster>>16))
		le.PutUint16(at[26:], uint16(cluster))
		le.PutUint32(at[28:], uint32(size))
		at = at[32:]
	}
	if root {
		put(label, 0x08, 0, 0)
	} else {
		put(".          ", fatDirectory, first, 0)
		put("..         ", fatDirectory, parent, 0)
	}
	for _, c := range n.sorted(nil) {
		var cluster uint32
		attributes := byte(c.flags&(fileReadOnly|fileHidden|fileSystem) | fileArchive)
		if c.folder {
			up := first
			if root {
				up = 0
			}
			attributes = byte(c.flags&(fileHidden|fileSystem)) | fatDirectory
			cluster, err = v.folder(c, up, false, "")
		} else {
			b := c.data
			if c.size > int64(len(b)) {
				if c.size > fatFile {
					return 0, fmt.Errorf("FAT32: %s has %d bytes, more than the %d that are written here", c.name, c.size, fatFile)
				}
				b = append(slices.Clone(b), make([]byte, c.size-int64(len(b)))...)
			}
			c.size = int64(len(b))
			cluster, err = v.store(b)
		}
		if err != nil {
			return 0, err
		}
		at = at[putLongName(at, c.name, names[c]):]
		put(names[c], attributes, cluster, c.size)
	}
	return first, nil
}

// aliases gives every file of a folder its 8.3 name, padded to eleven characters.
func (v *fatVolume) aliases(n *node) map[*node]string {
	names, taken := map[*node]string{}, map[string]bool{}
	pad := func(stem, ext string) string { return fmt.Sprintf("%-8s%-3s", stem, ext) }
	list := n.sorted(nil)
	for _, c := range list {
		if dosName(c.name) {
			stem, ext, _ := strings.Cut(strings.ToUpper(c.name), ".")
			names[c] = pad(stem, ext)
			taken[names[c]] = true
		}
	}
	clean := func(s string, most int) string {
		s = strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("$%'-_@~`!(){}^#&", r) {
				return r
			}
			return -1
		}, strings.ToUpper(s))
		return s[:min(len(s), most)]
	}
	for _, c := range list {
		if names[c] != "" {
			continue
		}
		stem, ext := c.name, ""
		if i := strings.LastIndexByte(c.name, '.'); i > 0 {
			stem, ext = c.name[:i], c.name[i+1:]
		}
		for i := 1; names[c] == ""; i++ {
			tail := fmt.Sprintf("~%d", i)
			if name := pad(clean(stem, 8-len(tail))+tail, clean(ext, 3)); !taken[name] {
				names[c], taken[name] = name, true
			}
		}
	}
	return names
}

// shortOnly tells whether the 8.3 name says it all: no lower case.
func shortOnly(name, alias string) bool {
	stem, ext := strings.TrimRight(alias[:8], " "), strings.TrimRight(alias[8:], " ")
	return name == stem && ext == "" || name == stem+"."+ext
}

const longUnits = 13 // of UTF-16 in one slot

func longSlots(name, alias string) int {
	if shortOnly(name, alias) {
		return 0
	}
	return (len(utf16.Encode([]rune(name))) + longUnits - 1) / longUnits
}

// putLongName writes the slots of a long name, last part first, and returns their length in bytes.
func putLongName(b []byte, name, alias string) int {
	slots := longSlots(name, alias)
	var sum byte
	for _, c := range []byte(alias) {
		sum = sum>>1 | sum<<7
		sum += c
	}
	units := utf16.Encode([]rune(name))
	if len(units) < slots*longUnits {
		units = append(units, 0)
	}
	for len(units) < slots*longUnits {
		units = append(units, 0xFFFF)
	}
	for i := range slots {
		e, part := b[32*(slots-1-i):], units[longUnits*i:]
		e[0] = byte(i + 1)
		if i == slots-1 {
			e[0] |= 0x40
		}
		e[11], e[13] = fatLongName, sum
		for j := range longUnits {
			at := 1 + 2*j
			if j >= 5 {
				at += 3
			}
			if j >= 11 {
				at += 2
			}
			le.PutUint16(e[at:], part[j])
		}
	}
	return 32 * slots
}

func fatLabel(label string) string {
	if label == "" {
		label = "NO NAME"
	}
	label = strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == ' ' {
			return r
		}
		return '_'
	}, strings.ToUpper(label))
	return fmt.Sprintf("%-11.11s", label)
}
