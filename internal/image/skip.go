package image

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/bits"
	"slices"
	"strings"

	"berth/internal/disk"
	"berth/internal/windows/ntfs"
)

// LeftOut is what a copy of a disk need not have: what NTFS has free, and what Windows wrote for itself to be thrown away at
// its next start. Nothing that can be reached through the file system is among it but the contents of three files, which
// read as zeros; what people deleted is gone.
type LeftOut struct {
	// Ranges yields what is left out, in ascending order and without overlap, for disk.CopyOptions.Skip. It reads the volumes'
	// $Bitmap as it goes, and may be ranged over several times. Nil: nothing is left out.
	Ranges iter.Seq2[disk.Range, error]
	// Free is how many bytes the volumes have free; Files the bytes of the files whose contents are left out, by path on their
	// volume: pagefile.sys, swapfile.sys, and a hiberfil.sys that holds no Windows.
	Free  int64
	Files map[string]int64
	// Kept tells, a sentence for each volume of which all is copied, why. Volumes that are not NTFS are not mentioned.
	Kept []string
}

// Keep says what is copied though it could be left out.
type Keep struct {
	Free      bool // what NTFS has free
	PageFiles bool // the contents of pagefile.sys and swapfile.sys
	HiberFile bool // the contents of a hiberfil.sys that holds no Windows
}

// LeaveOut finds out what a copy of a disk need not have. Of a volume that is not certainly at rest, everything is copied: one
// that is marked dirty, whose journal ($LogFile) was not closed, or whose $Bitmap has free what is in use. A page file that goes
// by another name as well is no page file, and speaks for the same.
//
// A machine may have its volumes in memory, or what one of them needs on another: others are the disks that belong to the same
// machine. Everything is copied if any of its disks has a Windows that is hibernated, as after a Fast Startup; is dynamic or in
// Storage Spaces; has shadow copies (restore points), which read clusters that are free now, perhaps of another volume than the
// one that they are kept on; or cannot be looked through for these. A disk without a readable partition table is copied as a
// whole, too; none of that is an error here.
func LeaveOut(img disk.Image, keep Keep, others ...disk.Disk) LeftOut {
	out := LeftOut{Files: map[string]int64{}}
	if img.Size() < 0 {
		out.Kept = append(out.Kept, "The whole disk: what is in a gzip or xz file is read only once, from its beginning to its end.")
		return out
	}
	table, err := unbound(img)
	if err != nil {
		out.Kept = append(out.Kept, fmt.Sprintf("The whole disk: %v.", err))
		return out
	}
	for _, other := range others {
		if _, err := unbound(other); err != nil {
			out.Kept = append(out.Kept, fmt.Sprintf("The whole disk: of another disk of the machine (%s), %v.", cmp.Or(other.Name, other.Format), err))
			return out
		}
	}
	entries := slices.Clone(table.Entries)
	slices.SortFunc(entries, func(a, b disk.Partition) int { return cmp.Compare(a.Start, b.Start) })
	var resting []*restingVolume
	end := int64(0)
	for _, p := range entries {
		name := fmt.Sprintf("Partition %d", p.Number)
		if p.Start < end {
			out.Kept = append(out.Kept, fmt.Sprintf("%s and others: they overlap.", name))
			return LeftOut{Files: map[string]int64{}, Kept: out.Kept}
		}
		end = p.Start + p.Length
		v, err := ntfs.Open(io.NewSectionReader(img, p.Start, p.Length), p.Length)
		if errors.Is(err, ntfs.ErrNotNTFS) {
			continue
		}
		var r *restingVolume
		if err == nil {
			r, err = atRest(v, p, keep)
		}
		if err != nil {
			out.Kept = append(out.Kept, fmt.Sprintf("%s: %v.", name, err))
			continue
		}
		resting = append(resting, r)
		out.Free += r.free
		for _, f := range r.files {
			out.Files[f.name] += f.bytes
		}
	}
	if len(resting) > 0 {
		out.Ranges = func(yield func(disk.Range, error) bool) {
			for _, r := range resting {
				if !r.ranges(yield) {
					return
				}
			}
		}
	}
	return out
}

// unbound reads the partition table of a disk, and reports what on the disk speaks against leaving out anything of any volume of
// the machine.
func unbound(img disk.Image) (*disk.Table, error) {
	table, err := disk.Partitions(img)
	if err != nil {
		return nil, fmt.Errorf("its partitions cannot be read: %w", err)
	}
	if table.Managed != disk.NotManaged {
		// A volume may begin in a partition and go on elsewhere: the clusters that its $Bitmap speaks of are not where they seem.
		return nil, fmt.Errorf("%s, whose partitions do not tell where the volumes are", table.Managed)
	}
	for _, p := range table.Entries {
		v, err := ntfs.Open(io.NewSectionReader(img, p.Start, p.Length), p.Length)
		if errors.Is(err, ntfs.ErrNotNTFS) {
			continue
		}
		if err == nil {
			err = awake(v.FS())
		}
		if err == nil {
			err = unshadowed(v.FS())
		}
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.Number, err)
		}
	}
	return table, nil
}

// restingVolume is a volume that nobody has in use, as far as it says.
type restingVolume struct {
	volume  *ntfs.Volume
	start   int64 // byte of the disk
	cluster int64 // bytes
	total   int64 // clusters
	free    int64 // bytes; 0 if they are kept
	files   []emptied
	extents []disk.Range // of files, on the disk, sorted
}

type emptied struct {
	name  string
	bytes int64
}

// atRest checks a volume, and finds the files whose contents are left out.
func atRest(v *ntfs.Volume, p disk.Partition, keep Keep) (*restingVolume, error) {
	info, err := v.Info()
	if err != nil {
		return nil, err
	}
	if info.Dirty {
		return nil, errors.New("it is marked dirty, and Windows would check it at its next start")
	}
	files := v.FS()
	if err := journalClosed(files); err != nil {
		return nil, err
	}
	r := &restingVolume{volume: v, start: p.Start, cluster: info.ClusterBytes, total: info.TotalBytes / info.ClusterBytes}
	if err := r.sound(files); err != nil {
		return nil, err
	}
	if !keep.Free {
		r.free = info.FreeBytes
	}
	names := []string{}
	if !keep.PageFiles {
		names = append(names, "pagefile.sys", "swapfile.sys")
	}
	if !keep.HiberFile && spent(files) {
		names = append(names, "hiberfil.sys")
	}
	for _, name := range names {
		extents, err := v.Extents(name)
		if unsupported := (*ntfs.UnsupportedError)(nil); errors.Is(err, fs.ErrNotExist) || errors.As(err, &unsupported) {
			continue // resident, or made by nobody whom we know
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if fi, err := files.Stat(name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		} else if e, ok := fi.Sys().(*ntfs.Entry); !ok || e.Links > 1 {
			return nil, fmt.Errorf("%s has another name, by which it is something else", name)
		}
		f := emptied{name: name}
		for _, x := range extents {
			if x.VolumeOffset < 0 {
				continue
			}
			if x.VolumeOffset+x.Length > p.Length {
				return nil, fmt.Errorf("%s lies beyond the end of the partition", name)
			}
			r.extents = append(r.extents, disk.Range{Start: p.Start + x.VolumeOffset, Length: x.Length})
			f.bytes += x.Length
		}
		if f.bytes > 0 {
			r.files = append(r.files, f)
		}
	}
	slices.SortFunc(r.extents, func(a, b disk.Range) int { return cmp.Compare(a.Start, b.Start) })
	return r, nil
}

// awake reports a hiberfil.sys that Windows' memory is in: of all volumes that it has in use, something may be in there that the
// disks do not show. WAKE says that it is not: Windows has taken its memory back, and has since closed its journal or not.
func awake(files *ntfs.FS) error {
	head, err := beginning(files, "hiberfil.sys", 4)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hiberfil.sys: %w", err)
	}
	if slices.Contains([]string{"HIBR", "RSTR"}, strings.ToUpper(string(head))) {
		return fmt.Errorf("Windows is hibernated, or was shut down by Fast Startup (hiberfil.sys begins with %q)", head)
	}
	return nil
}

// spent reports a hiberfil.sys that is known to hold nothing any more: Windows marks it WAKE or clears its beginning when it has
// taken its memory back. One with any other mark, or that cannot be read, is copied as it is.
func spent(files *ntfs.FS) bool {
	head, err := beginning(files, "hiberfil.sys", 4)
	return err == nil && (strings.EqualFold(string(head), "WAKE") || strings.Trim(string(head), "\x00") == "")
}

// shadowStore ends the names of the files in System Volume Information that hold what shadow copies need of clusters that were
// written since. What was free or deleted since and not yet written is read from the volume itself. The file that bears this
// name alone is the catalog, which stays when the last shadow copy goes.
// https://github.com/libyal/libvshadow/blob/main/documentation/Volume%20Shadow%20Snapshot%20(VSS)%20format.asciidoc
const shadowStore = "}{3808876b-c176-4e48-b7ae-04046e6cc752}"

// unshadowed reports the shadow copies that a volume keeps.
func unshadowed(files *ntfs.FS) error {
	entries, err := files.ReadDir("System Volume Information")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("its folder System Volume Information: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(strings.ToLower(e.Name()), shadowStore) {
			return errors.New("it keeps shadow copies (restore points), which need clusters that are free now")
		}
	}
	return nil
}

// beginning reads the first n bytes of a file, or as many as it has.
func beginning(files *ntfs.FS, name string, n int) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := make([]byte, n)
	n, err = io.ReadFull(f, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return p[:n], err
}

// journalClosed reports what speaks against the volume's having been closed properly. $LogFile begins with two restart pages, the
// second at the page size that the first gives, of which the one with the higher sequence number counts:
//
//	page   0 "RSTR"   4 update sequence at   6 its words   16 page size   24 restart area at
//	area   0 sequence number (8 bytes)   12 first client in use (0xFFFF: none)   14 flags: 2 the volume is clean
//
// A volume that was formatted and never mounted by Windows has a journal of 0xFF.
func journalClosed(files *ntfs.FS) error {
	const pages, largest = 2, 64 << 10
	le := binary.LittleEndian
	p, err := beginning(files, "$LogFile", pages*largest)
	if err != nil {
		return fmt.Errorf("$LogFile: %w", err)
	}
	if len(p) >= 512 && !slices.ContainsFunc(p, func(b byte) bool { return b != 0xFF }) {
		return nil
	}
	open := errors.New("its journal ($LogFile) was not closed: the machine was switched off while it ran, or the export was made meanwhile")
	var best []byte
	for at, n := 0, 0; n < pages && at+512 <= len(p) && string(p[at:at+4]) == "RSTR"; n++ {
		page := p[at:]
		size, area := int(le.Uint32(page[16:])), int(le.Uint16(page[24:]))
		if size < 512 || size > largest || bits.OnesCount(uint(size)) != 1 || area < 30 || area+16 > 510 {
			return fmt.Errorf("$LogFile: the restart page at byte %d has pages of %d bytes and a restart area at %d", at, size, area)
		}
		if best == nil || le.Uint64(page[area:]) > le.Uint64(best) {
			best = page[area : area+16]
		}
		at += size
	}
	if best == nil {
		return errors.New("$LogFile has no restart page")
	}
	if le.Uint16(best[12:]) != 0xFFFF && le.Uint16(best[14:])&2 == 0 {
		return open
	}
	return nil
}

// sound checks that $Bitmap has in use what surely is: the file system's own files, the files in the root and those of the registry.
func (r *restingVolume) sound(files *ntfs.FS) error {
	names := []string{"$MFT", "$MFTMirr", "$LogFile", "$Bitmap", "$UpCase", "$AttrDef", "$Boot", "$Secure:$SDS"}
	for _, dir := range []string{".", "Windows/System32/config"} {
		entries, err := files.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("its folder %s: %w", dir, err)
		}
		for _, e := range entries {
			if e.Type().IsRegular() {
				names = append(names, strings.TrimPrefix(dir+"/"+e.Name(), "./"))
			}
		}
	}
	type use struct {
		first, n int64 // clusters
		name     string
	}
	var uses []use
	for _, name := range names {
		extents, err := r.volume.Extents(name)
		if bad := (*ntfs.CorruptError)(nil); errors.As(err, &bad) {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err != nil {
			continue // within the MFT, or not stored as it reads
		}
		for _, x := range extents {
			if x.VolumeOffset >= 0 {
				first := x.VolumeOffset / r.cluster
				uses = append(uses, use{first, (x.VolumeOffset+x.Length-1)/r.cluster - first + 1, name})
			}
		}
	}
	slices.SortFunc(uses, func(a, b use) int { return cmp.Compare(a.first, b.first) })
	// Each cluster is looked at once, however often a volume says that it is used.
	var wrong error
	looked := int64(0)
	err := r.volume.Allocated(func(first int64, piece []byte) bool {
		last := first + int64(len(piece))*8
		for ; len(uses) > 0 && uses[0].first < last; uses = uses[1:] {
			u := uses[0]
			c := max(u.first, looked)
			for ; c < min(u.first+u.n, last); c++ {
				if piece[(c-first)/8]>>(c%8)&1 == 0 {
					wrong = fmt.Errorf("its $Bitmap has cluster %d free, in which %s lies", c, u.name)
					return false
				}
			}
			if looked = max(looked, c); u.first+u.n > last {
				break // goes on in the next piece
			}
		}
		return true
	})
	return errors.Join(wrong, err)
}

// ranges yields what is left out of the volume: free clusters, and between them the extents of files.
func (r *restingVolume) ranges(yield func(disk.Range, error) bool) bool {
	end, files := r.start, r.extents
	give := func(x disk.Range) bool {
		// A cluster of a file that is free as well would come twice.
		if over := end - x.Start; over > 0 {
			x.Start, x.Length = x.Start+over, x.Length-over
		}
		if x.Length <= 0 {
			return true
		}
		end = x.Start + x.Length
		return yield(x, nil)
	}
	going := true
	run := disk.Range{} // of free clusters
	flush := func() bool {
		for len(files) > 0 && (run.Length == 0 || files[0].Start < run.Start) {
			if !give(files[0]) {
				return false
			}
			files = files[1:]
		}
		x := run
		run.Length = 0
		return give(x)
	}
	if r.free > 0 {
		err := r.volume.Allocated(func(first int64, piece []byte) bool {
			for i := int64(0); i < int64(len(piece))*8 && first+i < r.total; {
				// Bits that are alike, 64 at a time where there are as many.
				b, n := uint64(piece[i/8])>>(i%8), 8-i%8
				if i%8 == 0 && i/8+8 <= int64(len(piece)) {
					b, n = binary.LittleEndian.Uint64(piece[i/8:]), 64
				}
				inUse := b&1 != 0
				if inUse {
					b = ^b
				}
				n = min(n, int64(bits.TrailingZeros64(b)), r.total-first-i)
				at := r.start + (first+i)*r.cluster
				switch {
				case !inUse && run.Length > 0 && run.Start+run.Length == at:
					run.Length += n * r.cluster
				case !inUse:
					if run.Length > 0 && !flush() {
						going = false
						return false
					}
					run = disk.Range{Start: at, Length: n * r.cluster}
				}
				i += n
			}
			return true
		})
		if err != nil {
			return yield(disk.Range{}, fmt.Errorf("$Bitmap: %w", err)) && false
		}
	}
	if !going || run.Length > 0 && !flush() {
		return false
	}
	return flush()
}
