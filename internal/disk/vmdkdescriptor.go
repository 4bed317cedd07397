package disk

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// descriptorLimit is the longest VMDK descriptor that is read, in bytes: 2,000 extents of a split disk take 120 KB.
const descriptorLimit = 1 << 20

// maxExtents bounds the extents of one disk: 16 TiB in pieces of 2 GiB.
const maxExtents = 8192

// descriptor is the text part of a VMDK:
//
//	# Disk DescriptorFile
//	version=1
//	CID=7e5b80a7
//	parentCID=ffffffff
//	createType="twoGbMaxExtentFlat"
//	RW 4192256 FLAT "win10-f001.vmdk" 0
//	ddb.adapterType = "lsilogic"
type descriptor struct {
	createType string
	extents    []vmdkExtent
}

type vmdkExtent struct {
	size   int64  // bytes
	kind   string // "SPARSE", "FLAT", "VMFS", "ZERO"
	name   string // bare
	offset int64  // bytes into the named file
}

func isDescriptor(src Source) bool {
	head := make([]byte, 64)
	n, _ := src.ReadAt(head, 0)
	head = bytes.TrimLeft(bytes.TrimPrefix(head[:n], []byte("\xef\xbb\xbf")), " \t\r\n")
	const first = "# Disk DescriptorFile"
	return len(head) >= len(first) && strings.EqualFold(string(head[:len(first)]), first)
}

// otherDisks are createTypes and extent types of disks whose bytes are not in files of the export.
var otherDisks = map[string]struct {
	reason Reason
	what   string
}{
	"vmfsrawdevicemap":            {RefersElsewhere, "a raw device mapping: the disk is a device of the old host"},
	"vmfspassthroughrawdevicemap": {RefersElsewhere, "a raw device mapping: the disk is a device of the old host"},
	"vmfsrdm":                     {RefersElsewhere, "a raw device mapping: the disk is a device of the old host"},
	"vmfsraw":                     {RefersElsewhere, "a raw device: the disk is a device of the old host"},
	"fulldevice":                  {RefersElsewhere, "a raw device: the disk is a device of the old host"},
	"partitioneddevice":           {RefersElsewhere, "a raw device: the disk is a device of the old host"},
	"device":                      {RefersElsewhere, "a raw device: the disk is a device of the old host"},
	"sesparse":                    {Unsupported, "SEsparse, an ESXi snapshot; export the machine instead"},
	"vmfssparse":                  {Unsupported, "vmfsSparse, an ESXi snapshot; export the machine instead"},
}

// parseDescriptor reads a descriptor that begins at byte at of f, and refuses every reference to anything but a sibling.
func parseDescriptor(f *file, text []byte, at int64) (*descriptor, error) {
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i] // an embedded one is padded with zeros
	}
	d := &descriptor{}
	parented := ""
	for pos := 0; pos < len(text); {
		end := bytes.IndexByte(text[pos:], '\n')
		if end < 0 {
			end = len(text) - pos
		}
		line, where := strings.TrimSpace(string(text[pos:pos+end])), at+int64(pos)
		pos += end + 1
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, isPair := strings.Cut(line, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if isPair && !strings.ContainsAny(key, " \t\"") {
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch key {
			case "parentcid":
				parented = value
				if !strings.EqualFold(value, "ffffffff") {
					return nil, f.refuse(RefersElsewhere, "parentCID", where, "%s: the disk is a snapshot or linked clone of another", value)
				}
			case "parentfilenamehint":
				return nil, f.refuse(RefersElsewhere, "parentFileNameHint", where, "the disk is a snapshot or linked clone of another")
			case "createtype":
				if o, ok := otherDisks[strings.ToLower(value)]; ok {
					return nil, f.refuse(o.reason, "createType", where, "%s", o.what)
				}
				d.createType = value
			case "encoding":
				// Only names in the descriptor depend on it, and they are looked up as they are.
			case "encryption.keysafe", "encryption.data":
				return nil, f.refuse(Encrypted, key, where, "VMware encrypted the disk; export it without encryption")
			}
			continue
		}
		x, err := parseExtent(f, line, where)
		if err != nil {
			return nil, err
		}
		if d.extents = append(d.extents, x); len(d.extents) > maxExtents {
			return nil, f.refuse(Damaged, "extents", where, "more than %d", maxExtents)
		}
	}
	switch {
	case parented == "":
		return nil, f.refuse(Damaged, "parentCID", at, "the descriptor does not say whether the disk has a parent")
	case d.createType == "":
		return nil, f.refuse(Damaged, "createType", at, "the descriptor has none")
	case len(d.extents) == 0:
		return nil, f.refuse(Damaged, "extents", at, "the descriptor has none")
	}
	return d, nil
}

// parseExtent reads a line such as: RW 4192256 FLAT "win10-f001.vmdk" 0
func parseExtent(f *file, line string, where int64) (x vmdkExtent, err error) {
	before, rest, quoted := strings.Cut(line, `"`)
	name, after, closed := strings.Cut(rest, `"`)
	words, tail := strings.Fields(before), strings.Fields(after)
	if len(words) != 3 || quoted != closed || len(tail) > 3 {
		return x, f.refuse(Damaged, "descriptor", where, "line %.80q is neither key=value nor an extent", line)
	}
	access := strings.ToUpper(words[0])
	if access != "RW" && access != "RDONLY" {
		return x, f.refuse(Unsupported, "extent", where, "access %.20q", words[0])
	}
	sectors, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil || sectors == 0 || sectors > 1<<50/sector {
		return x, f.refuse(Damaged, "extent", where, "%.40q sectors", words[1])
	}
	x.size = int64(sectors) * sector
	x.kind = strings.ToUpper(words[2])
	if o, ok := otherDisks[strings.ToLower(x.kind)]; ok {
		return x, f.refuse(o.reason, "extent", where, "%s", o.what)
	}
	switch x.kind {
	case "ZERO":
		return x, nil
	case "SPARSE", "FLAT", "VMFS":
	default:
		return x, f.refuse(Unsupported, "extent", where, "type %.20q", words[2])
	}
	if !bareName(name) {
		return x, f.refuse(RefersElsewhere, "extent", where, "%.80q is not the bare name of a file", name)
	}
	x.name = name
	if len(tail) > 0 && x.kind != "SPARSE" {
		start, err := strconv.ParseUint(tail[0], 10, 64)
		if err != nil || start > math.MaxInt64/sector {
			return x, f.refuse(Damaged, "extent", where, "offset %.40q", tail[0])
		}
		x.offset = int64(start) * sector
	}
	return x, nil
}

// bareName reports whether name can only be a file beside the one that names it: no folder, no drive, no protocol.
func bareName(name string) bool {
	return name != "" && len(name) <= 255 && name != "." && name != ".." && !strings.ContainsAny(name, "/\\:\x00")
}
