package ntfs

import "io/fs"

// Extent is a range of a file and where the volume holds it, in bytes.
type Extent struct {
	FileOffset int64
	// VolumeOffset is -1 for a range that reads as zeros and has no place of its own: a hole, or what was never written.
	VolumeOffset int64
	Length       int64
}

// Extents tells where the volume holds a file's bytes, in ascending order and covering exactly [0, size). It takes what FS.Open
// takes. What is not stored as it reads has no extents: resident, compressed and encrypted streams are an *UnsupportedError.
func (v *Volume) Extents(name string) ([]Extent, error) {
	n, ads, err := v.FS().resolve("extents", name)
	if err != nil {
		return nil, err
	}
	fail := func(err error) ([]Extent, error) { return nil, &fs.PathError{Op: "extents", Path: name, Err: err} }
	if n.rec.isDir() && ads == "" {
		return fail(fs.ErrInvalid)
	}
	r, _, err := n.contents(ads)
	if err != nil {
		return fail(err)
	}
	s, ok := r.(*stream)
	switch {
	case !ok:
		return fail(&UnsupportedError{What: "extents of a file compressed by WOF"})
	case s.compressed:
		return fail(&UnsupportedError{What: "extents of a compressed stream"})
	case !s.nonResident:
		return fail(&UnsupportedError{What: "extents of data that lies within the MFT"})
	}
	var list []Extent
	add := func(e Extent) {
		if k := len(list) - 1; k >= 0 {
			l := &list[k]
			joins := l.VolumeOffset < 0 && e.VolumeOffset < 0 || l.VolumeOffset >= 0 && l.VolumeOffset+l.Length == e.VolumeOffset
			if joins {
				l.Length += e.Length
				return
			}
		}
		list = append(list, e)
	}
	for _, r := range s.runs {
		from, to := r.vcn*v.clusterBytes, min((r.vcn+r.n)*v.clusterBytes, s.size)
		if mid := max(from, min(to, s.valid)); r.lcn >= 0 && mid > from {
			add(Extent{from, r.lcn * v.clusterBytes, mid - from})
			from = mid
		}
		if to > from {
			add(Extent{from, -1, to - from})
		}
	}
	return list, nil
}
