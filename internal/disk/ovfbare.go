package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// An OVF that was not packed into an OVA: its disks are siblings of the descriptor, by bare name.

// isOVF looks for the root element of an OVF near the beginning of a file that begins as XML does.
func isOVF(src Source) bool {
	p := make([]byte, 4096)
	n, _ := src.ReadAt(p, 0)
	p = bytes.TrimLeft(bytes.TrimPrefix(p[:n], []byte("\xef\xbb\xbf")), " \t\r\n")
	return bytes.HasPrefix(p, []byte("<")) && (bytes.Contains(p, []byte("<Envelope")) || bytes.Contains(p, []byte(":Envelope"))) && bytes.Contains(p, []byte("/ovf/envelope/"))
}

func openOVF(f *file, opt Options) (_ *Envelope, err error) {
	if f.size > ovfLimit {
		return nil, f.refuse(Damaged, "OVF descriptor", 0, "%d bytes, at most %d are read", f.size, ovfLimit)
	}
	text, err := f.bytes("OVF descriptor", 0, f.size)
	if err != nil {
		return nil, err
	}
	o, err := parseOVF(f, text, 0)
	if err != nil {
		return nil, err
	}
	e := &Envelope{Hardware: o.hardware, Warnings: append(o.warnings, "An OVF's manifest is verified only inside an OVA: whether the disks were damaged on their way cannot be told.")}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	opt.Format = ""
	for _, href := range o.disks {
		if !bareName(href) {
			return nil, f.refuse(RefersElsewhere, "OVF File href", 0, "%.80q is not the bare name of a file beside the OVF", href)
		}
		missing := f.refuse(RefersElsewhere, "OVF File "+href, 0, "it is a file of its own that did not come with the OVF")
		if opt.Siblings == nil {
			return nil, missing
		}
		src, err := opt.Siblings(href)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, missing
		}
		if err != nil {
			return nil, fmt.Errorf("disk: open %s: %w", href, err)
		}
		if c, ok := src.(io.Closer); ok {
			e.closers = append(e.closers, c)
		}
		// An OVF could name itself.
		if isOVA(src) || isOVF(src) {
			return nil, f.refuse(Unsupported, "OVF File "+href, 0, "it is an OVA or OVF, not a disk")
		}
		inner, err := open(src, opt, f.mem)
		if err != nil {
			if r := new(Refusal); errors.As(err, &r) {
				r.Field = href + ": " + r.Field
			}
			return nil, err
		}
		e.add(href, inner, 0, f.size)
	}
	return e, nil
}
