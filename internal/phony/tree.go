package phony

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// node is a file or folder to be put on a volume.
type node struct {
	name     string
	folder   bool
	children map[string]*node // by upper-case name
	data     []byte
	size     int64 // bytes; what lies behind data is allocated and never written, so that it reads as zeros
	flags    uint32
	junction string // the folder is a junction to this Windows path

	record    record
	allocated int64
}

func newFolder(name string) *node {
	return &node{name: name, folder: true, children: map[string]*node{}}
}

// at finds or makes the folder at path (slashes), and fails where a file is in the way.
func (n *node) at(path string) (*node, error) {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." {
			continue
		}
		if err := checkName(part); err != nil {
			return nil, err
		}
		child := n.children[strings.ToUpper(part)]
		if child == nil {
			child = newFolder(part)
			n.children[strings.ToUpper(part)] = child
		}
		if !child.folder || child.junction != "" {
			return nil, fmt.Errorf("%s is not a folder", part)
		}
		n = child
	}
	return n, nil
}

// put adds a file or folder at path, in place of what is there by that name.
func (n *node) put(path string, f *node) error {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	if err := checkName(name); err != nil {
		return err
	}
	parent, err := n.at(dir)
	if err != nil {
		return err
	}
	if old := parent.children[strings.ToUpper(name)]; old != nil && old.folder && f.folder && f.junction == "" {
		return nil // a folder that is named again keeps what is in it
	}
	f.name = name
	parent.children[strings.ToUpper(name)] = f
	return nil
}

func checkName(name string) error {
	if name == "" || len(utf16.Encode([]rune(name))) > 255 || strings.ContainsAny(name, "\\/:*?\"<>|\x00") ||
		strings.HasSuffix(name, " ") || strings.HasSuffix(name, ".") {
		return fmt.Errorf("%q is not a Windows file name", name)
	}
	return nil
}

// sorted is the folder's content in NTFS order.
func (n *node) sorted(upcase []uint16) []*node {
	var list []*node
	for _, c := range n.children {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *node) int {
		return compareNames(utf16.Encode([]rune(a.name)), utf16.Encode([]rune(b.name)), upcase)
	})
	return list
}

const reparseMountPoint = 0xA0000003

// mountPoint is the reparse data of a junction: the NT path and the path for people.
func mountPoint(target string) []byte {
	nt, shown := utf16Bytes(`\??\`+target), utf16Bytes(target)
	b := make([]byte, 16)
	le.PutUint32(b, reparseMountPoint)
	le.PutUint16(b[4:], uint16(8+len(nt)+2+len(shown)+2))
	le.PutUint16(b[10:], uint16(len(nt)))
	le.PutUint16(b[12:], uint16(len(nt)+2))
	le.PutUint16(b[14:], uint16(len(shown)))
	b = append(append(b, nt...), 0, 0)
	return append(append(b, shown...), 0, 0)
}
