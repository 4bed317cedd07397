package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
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
	e := &Envelope{Hardware: o.hardware, Warnings: o.warnings}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	own := opt.Name
	opt.Format, opt.Name = "", ""
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
	if err := e.manifestBeside(f, own, o.files, opt.Siblings); err != nil {
		return nil, err
	}
	return e, nil
}

// manifestBeside reads the manifest of the OVF called own, if it lies beside it. Unlike in an OVA a file that the machine does not
// need may be left behind, an ISO in its drive: it is refused when it is to be verified.
func (e *Envelope) manifestBeside(f *file, own string, files []string, siblings func(string) (Source, error)) error {
	var text []byte
	err := fs.ErrNotExist
	if bareName(own) && len(own) > 4 && strings.EqualFold(own[len(own)-4:], ".ovf") {
		text, err = e.readSibling(f, own[:len(own)-4]+".mf", siblings)
	}
	if errors.Is(err, fs.ErrNotExist) {
		e.Warnings = append(e.Warnings, "The OVF has no manifest beside it: whether it was damaged on its way cannot be told.")
		return nil
	}
	if err != nil {
		return err
	}
	e.manifest, err = readManifest(f, text, 0, append([]string{own}, files...), func(name string, line int64) (Source, error) {
		if name == own {
			return f.src, nil
		}
		if !bareName(name) {
			return nil, f.refuse(RefersElsewhere, "manifest", line, "%.80q is not the bare name of a file beside the OVF", name)
		}
		src, err := siblings(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("disk: open %s: %w", name, err)
		}
		if c, ok := src.(io.Closer); ok {
			e.closers = append(e.closers, c)
		}
		return src, nil
	})
	if err == nil {
		e.Warnings = append(e.Warnings, unverified)
	}
	return err
}

// readSibling reads a manifest beside the OVF f.
func (e *Envelope) readSibling(f *file, name string, siblings func(string) (Source, error)) (text []byte, err error) {
	src, err := siblings(name)
	if err != nil {
		return nil, fmt.Errorf("disk: open %s: %w", name, err)
	}
	if c, ok := src.(io.Closer); ok {
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	if src.Size() > ovfLimit {
		return nil, f.refuse(Damaged, "manifest "+name, 0, "%d bytes, at most %d are read", src.Size(), ovfLimit)
	}
	return newFile(src, f.format, f.mem).bytes("manifest", 0, src.Size())
}
