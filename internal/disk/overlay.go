package disk

import (
	"cmp"
	"fmt"
	"io"
	"iter"
	"slices"
	"sort"
)

// Patch is bytes to lay over a disk.
type Patch struct {
	// Off is the byte of the guest's disk where Data begins.
	Off  int64
	Data []byte
}

// Overlay is a view of img with bytes laid over it; img itself is not changed. Where patches overlap, the later one in the
// list counts. Their bytes are copied. In Extents what is patched is Data with At = -1, and what is left of a compressed
// block that is patched in part is Compressed with At = -1: the block as it is stored is no longer what the disk shows.
//
// A patch that does not lie inside the disk is an error of every ReadAt and of Extents, and so is any patch of a disk that
// can only be read from its beginning to its end ([Options].Sequential). Without patches the view is img itself.
func Overlay(img Image, patches []Patch) Image {
	size := img.Size()
	o := &overlaid{base: img}
	sorted := make([]Patch, 0, len(patches))
	for _, p := range patches {
		switch {
		case len(p.Data) == 0:
		case p.Off < 0 || int64(len(p.Data)) > size-p.Off:
			o.err = fmt.Errorf("disk: a patch of %d bytes at byte %d is not inside the disk, which has %d", len(p.Data), p.Off, size)
			return o
		default:
			sorted = append(sorted, p)
		}
	}
	if len(sorted) == 0 {
		return img
	}
	// What touches becomes one, so that the list is sorted and without overlap.
	all := slices.Clone(sorted)
	slices.SortStableFunc(sorted, func(a, b Patch) int { return cmp.Compare(a.Off, b.Off) })
	for _, p := range sorted {
		end := p.Off + int64(len(p.Data))
		if n := len(o.patches); n > 0 && p.Off <= o.patches[n-1].end() {
			last := &o.patches[n-1]
			last.Data = append(last.Data, make([]byte, max(0, end-last.end()))...)
			continue
		}
		o.patches = append(o.patches, Patch{p.Off, make([]byte, len(p.Data))})
	}
	for _, p := range all { // in the caller's order: the last one wins
		i, _ := slices.BinarySearchFunc(o.patches, p.Off+1, func(q Patch, off int64) int { return cmp.Compare(q.Off, off) })
		run := o.patches[i-1]
		copy(run.Data[p.Off-run.Off:], p.Data)
	}
	return o
}

func (p Patch) end() int64 { return p.Off + int64(len(p.Data)) }

// overlaid is an Image with patches over it, which are sorted and neither overlap nor touch.
type overlaid struct {
	base    Image
	patches []Patch
	err     error // what is wrong with the patches
}

var _ Image = (*overlaid)(nil)

func (o *overlaid) Size() int64 { return o.base.Size() }

// from are the patches that end behind byte off.
func (o *overlaid) from(off int64) []Patch {
	return o.patches[sort.Search(len(o.patches), func(i int) bool { return o.patches[i].end() > off }):]
}

// touches reports whether a byte of [start, end) is patched.
func (o *overlaid) touches(start, end int64) bool {
	after := o.from(start)
	return len(after) > 0 && after[0].Off < end
}

// lay lays the patches over p, which holds the disk from off on.
func (o *overlaid) lay(p []byte, off int64) {
	for _, patch := range o.from(off) {
		if patch.Off >= off+int64(len(p)) {
			return
		}
		if patch.Off >= off {
			copy(p[patch.Off-off:], patch.Data)
		} else {
			copy(p, patch.Data[off-patch.Off:])
		}
	}
}

func (o *overlaid) ReadAt(p []byte, off int64) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.base.ReadAt(p, off)
	if n > 0 {
		o.lay(p[:n], off)
	}
	return n, err
}

func (o *overlaid) Extents() iter.Seq2[Extent, error] {
	if o.err != nil {
		return func(yield func(Extent, error) bool) { yield(Extent{}, o.err) }
	}
	return func(yield func(Extent, error) bool) {
		var run Extent // patches may touch what is stored nowhere in the file, too: both are one
		give := func(x Extent) bool {
			if run.Length > 0 && run.Kind == Data && x.Kind == Data && run.At < 0 && x.At < 0 {
				run.Length += x.Length
				return true
			}
			if run.Length > 0 && !yield(run, nil) {
				return false
			}
			run = x
			return true
		}
		patches := o.patches
		for x, err := range o.base.Extents() {
			if err != nil {
				if run.Length == 0 || yield(run, nil) {
					yield(x, err)
				}
				return
			}
			for end := x.Start + x.Length; x.Length > 0; {
				for len(patches) > 0 && patches[0].end() <= x.Start {
					patches = patches[1:]
				}
				if len(patches) == 0 || patches[0].Off >= end {
					if !give(x) {
						return
					}
					break
				}
				if x.Kind == Compressed {
					x.At = -1
				}
				if before := x.before(patches[0].Off); before.Length > 0 && !give(before) {
					return
				}
				start, stop := max(x.Start, patches[0].Off), min(end, patches[0].end())
				if !give(Extent{Start: start, Length: stop - start, Kind: Data, At: -1}) {
					return
				}
				x = x.behind(stop)
			}
		}
		if run.Length > 0 {
			yield(run, nil)
		}
	}
}

// before is the part of an extent that is before byte off of the disk.
func (x Extent) before(off int64) Extent {
	x.Length = max(0, off-x.Start)
	return x
}

// behind is the part of an extent from byte off of the disk on.
func (x Extent) behind(off int64) Extent {
	x.Length -= off - x.Start
	if x.Kind == Data && x.At >= 0 {
		x.At += off - x.Start
	}
	x.Start = off
	return x
}

var _ io.ReaderAt = (*overlaid)(nil)
