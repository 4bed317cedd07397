package disk

import "fmt"

// A raw disk is the guest's bytes as they are. It has no mark of its own:
//
//	0                          510  512                    4096
//	+--------------------------+----+----------------------+---------
//	| boot code, MBR           |55AA| "EFI PART" (512 B)   | "EFI PART" (4096 B sectors)
//	+--------------------------+----+----------------------+---------
//
// so that without being told, only a file with a boot signature or a GPT header is taken for one.

func isRaw(src Source) bool {
	for _, f := range foreign {
		// An ISO image for USB sticks has a boot signature, too.
		if begins(src, f.offset, f.magic) {
			return false
		}
	}
	return begins(src, 510, "\x55\xaa") || begins(src, 512, "EFI PART") || begins(src, 4096, "EFI PART")
}

func openRaw(f *file, opt Options) (*Envelope, error) {
	switch {
	case f.size <= 0:
		return nil, f.refuse(Damaged, "file", -1, "the disk has no bytes")
	case f.size > opt.MaxSize:
		return nil, f.refuse(TooLarge, "file", -1, "%d bytes, at most %d are accepted", f.size, opt.MaxSize)
	}
	e := single(f, "", f.size, flat{f, 0, "disk"})
	if f.size%sector != 0 {
		e.Warnings = append(e.Warnings, fmt.Sprintf("The file ends inside a sector (%d bytes after the last whole one): it may be cut off.", f.size%sector))
	}
	return e, nil
}

// flat is the layout of a disk that is stored in one piece, from byte start of the file on.
type flat struct {
	f     *file
	start int64
	what  string
}

func (l flat) locate(off, max int64) (stretch, error) {
	return stretch{length: max, kind: Data, file: l.f, at: l.start + off, what: l.what}, nil
}
