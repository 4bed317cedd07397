package disk

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// An OVA is a tar file with an OVF descriptor and the files it refers to (DMTF DSP0243). It is read where it is: a disk in
// it is a section of the uploaded file, and a member's name is only ever compared, never used as a path.
//
//	+-----+-------------+-----+-----------+-----+------------------+-------
//	| tar | machine.ovf | tar | .mf       | tar | machine-disk1.vmdk | ...
//	+-----+-------------+-----+-----------+-----+------------------+-------
const (
	// maxMembers bounds the files in an OVA. Chunked exports have the most: they are refused, but by that name.
	maxMembers = 4096
	// maxDisks bounds the disks of a machine: VMware's limit is 256 (4 controllers of 64).
	maxDisks = 256
	// ovfLimit is the largest OVF descriptor or manifest that is read, in bytes. Real ones have 5 to 50 KB.
	ovfLimit = 1 << 20
)

// member is a file in an OVA.
type member struct {
	name string
	section
}

func isOVA(src Source) bool {
	return begins(src, 257, "ustar")
}

func openOVA(f *file, opt Options) (*Envelope, error) {
	members, err := listMembers(f)
	if err != nil {
		return nil, err
	}
	var descriptor, sums *member
	byName := map[string]*member{}
	for i := range members {
		m := &members[i]
		if byName[m.name] != nil {
			return nil, f.refuse(Damaged, "member "+m.name, m.offset, "there are two of this name")
		}
		byName[m.name] = m
		switch strings.ToLower(path.Ext(m.name)) {
		case ".ovf":
			if descriptor != nil {
				return nil, f.refuse(Unsupported, "OVF descriptor", m.offset, "there are two, %s and %s: which machine is meant?", descriptor.name, m.name)
			}
			descriptor = m
		case ".mf":
			sums = m
		}
	}
	if descriptor == nil {
		return nil, f.refuse(Damaged, "OVF descriptor", -1, "a tar file of %d members, none of which ends in .ovf", len(members))
	}
	if descriptor.bytes > ovfLimit {
		return nil, f.refuse(Damaged, "OVF descriptor", descriptor.offset, "%d bytes, at most %d are read", descriptor.bytes, ovfLimit)
	}
	text, err := f.bytes("OVF descriptor", descriptor.offset, descriptor.bytes)
	if err != nil {
		return nil, err
	}
	o, err := parseOVF(f, text, descriptor.offset)
	if err != nil {
		return nil, err
	}

	e := &Envelope{Hardware: o.hardware, Warnings: o.warnings}
	opt.Format = ""
	opt.Siblings = func(name string) (Source, error) {
		if m := byName[name]; m != nil {
			return &m.section, nil
		}
		return nil, fs.ErrNotExist
	}
	for _, href := range o.disks {
		m := byName[href]
		if m == nil {
			return nil, f.refuse(Damaged, "OVF File "+href, descriptor.offset, "the OVF refers to it, but it is not in the OVA")
		}
		if isOVA(&m.section) || isOVF(&m.section) {
			return nil, f.refuse(Unsupported, "member "+m.name, m.offset, "an OVA inside an OVA, or an OVF as a disk")
		}
		inner, err := open(&m.section, opt, f.mem)
		if err != nil {
			return nil, inMember(err, m)
		}
		e.add(m.name, inner, m.offset, m.bytes)
	}
	if sums == nil {
		e.Warnings = append(e.Warnings, "The OVA has no manifest: whether it was damaged on its way cannot be told.")
		return e, nil
	}
	if sums.bytes > ovfLimit {
		return nil, f.refuse(Damaged, "manifest", sums.offset, "%d bytes, at most %d are read", sums.bytes, ovfLimit)
	}
	if text, err = f.bytes("manifest", sums.offset, sums.bytes); err != nil {
		return nil, err
	}
	var needed []string // all but the manifest and the certificate, which signs it
	for i := range members {
		if name := members[i].name; &members[i] != sums && !strings.HasSuffix(strings.ToLower(name), ".cert") {
			needed = append(needed, name)
		}
	}
	e.manifest, err = readManifest(f, text, sums.offset, needed, func(name string, line int64) (Source, error) {
		if m := byName[name]; m != nil {
			return &m.section, nil
		}
		return nil, f.refuse(Damaged, "manifest", line, "%.80q is not in the OVA", name)
	})
	if err != nil {
		return nil, err
	}
	e.Warnings = append(e.Warnings, unverified)
	return e, nil
}

// unverified is the warning of an export whose manifest nobody has compared it with yet.
const unverified = "The digests in the manifest were not verified."

// add takes over the only disk of inner, which name is.
func (e *Envelope) add(name string, inner *Envelope, offset, length int64) {
	d := inner.Disks[0]
	d.Name, d.Offset, d.Length = name, offset, length
	e.Disks = append(e.Disks, d)
	for _, w := range inner.Warnings {
		e.Warnings = append(e.Warnings, name+": "+w)
	}
	e.closers = append(e.closers, inner.closers...)
}

// inMember says in a Refusal of a disk in which member it is and where it is in the uploaded file.
func inMember(err error, m *member) error {
	var r *Refusal
	if errors.As(err, &r) {
		r.Field = m.name + ": " + r.Field
		if r.Offset >= 0 {
			r.Offset += m.offset
		}
	}
	return err
}

// listMembers reads the tar's headers; the members' bytes are skipped.
func listMembers(f *file) ([]member, error) {
	var members []member
	whole := io.NewSectionReader(f.src, 0, f.size)
	t := tar.NewReader(whole)
	for n := 0; ; n++ {
		before, err := whole.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return members, nil
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
				return nil, f.refuse(Damaged, "tar header", before, "%v", err)
			}
			return nil, fmt.Errorf("disk: read tar header near byte %d: %w", before, err)
		}
		if n == maxMembers {
			return nil, f.refuse(Damaged, "tar header", before, "more than %d members", maxMembers)
		}
		// The reader stands behind the header: that is where the member's bytes are.
		at, err := whole.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(h.Name, "./")
		if name != strings.TrimSuffix(name, "/") || h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if !localName(name) {
			return nil, f.refuse(RefersElsewhere, "member", at, "the name %.80q leads out of the OVA", h.Name)
		}
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				h.Typeflag = tar.TypeGNUSparse
			}
		}
		if h.Typeflag != tar.TypeReg {
			return nil, f.refuse(Unsupported, "member "+name, at, "tar type %q: only plain files are read", h.Typeflag)
		}
		if !f.holds(at, h.Size) {
			return nil, f.refuse(Damaged, "member "+name, at, "%d bytes, but the file ends at byte %d", h.Size, f.size)
		}
		members = append(members, member{name, section{f.src, at, h.Size}})
	}
}

// localName reports whether a member's name, taken as a path, stays below the folder it would be unpacked in, on any system.
func localName(name string) bool {
	return fs.ValidPath(name) && name != "." && !strings.ContainsAny(name, "\\:\x00")
}
