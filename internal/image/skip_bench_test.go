package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"berth/internal/disk"
	"berth/internal/disk/disktest"
	"berth/internal/windows/ntfs"
)

// windowsDisk writes a raw disk of 16 GiB with one NTFS volume that mkntfs made: 512 MiB of files and page files of 64 MiB, of which
// one third does not compress and the rest is machine code, and 192 MiB of the like in clusters that are free.
func windowsDisk(b *testing.B, path string) {
	const size, files, perFile = 16 << 30, 18, 32 << 20
	contents := disktest.NewContents(b)
	content := func(p []byte) {
		for at, piece := range contents.Pieces(int64(len(p))) {
			copy(p[at:], piece)
		}
	}
	dir := b.TempDir()
	volume, file := filepath.Join(dir, "volume"), filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(volume, nil, 0o600), os.Truncate(volume, size-volumeStart-1<<20)); err != nil {
		b.Fatal(err)
	}
	tool(b, "mkntfs", "-q", "-Q", "-F", volume)
	p := make([]byte, perFile)
	for i := range files {
		content(p)
		if err := os.WriteFile(file, p, 0o600); err != nil {
			b.Fatal(err)
		}
		name := fmt.Sprintf("file %d", i)
		if i%9 == 4 {
			name = map[bool]string{true: "pagefile.sys", false: "swapfile.sys"}[i < 9]
		}
		tool(b, "ntfscp", "-f", "-q", volume, file, name)
	}
	f, err := os.OpenFile(volume, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	v, err := ntfs.Open(f, size-volumeStart-1<<20)
	if err != nil {
		b.Fatal(err)
	}
	left := files / 3
	err = v.Allocated(func(first int64, piece []byte) bool {
		for i := int64(0); left > 0 && i+perFile/4096 <= int64(len(piece))*8; i += perFile / 4096 {
			if !slices.ContainsFunc(piece[i/8:i/8+perFile/4096/8], func(b byte) bool { return b != 0 }) {
				content(p)
				if _, err := f.WriteAt(p, (first+i)*4096); err != nil {
					b.Fatal(err)
				}
				left--
			}
		}
		return left > 0
	})
	if err != nil || left > 0 {
		b.Fatal(left, err)
	}
	out, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	head := make([]byte, 512)
	head[450] = 7
	binary.LittleEndian.PutUint32(head[454:], volumeStart/512)
	binary.LittleEndian.PutUint32(head[458:], (size-volumeStart-1<<20)/512)
	copy(head[510:], "\x55\xaa")
	if _, err := out.Write(head); err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(out.Close(), f.Close()); err != nil {
		b.Fatal(err)
	}
	// A sparse copy behind the partition table.
	tool(b, "dd", "if="+volume, "of="+path, "bs=1M", "seek=1", "conv=sparse,notrunc", "status=none")
	if err := errors.Join(os.Truncate(path, size), os.Remove(volume)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkStore makes what Berth stores of a streamOptimized VMDK, a quarter of whose data NTFS has free, and a twelfth page files, by turns with
// qemu-img. Finding out what is free is part of it. It reports wall time, processor time and size against qemu-img's; medians. The bars:
//
//	compact, verified                     ≤ 1/30 of the time of qemu-img convert -c, ≤ 0.70 of its size
//	  with the content digest             ≤ 1/30 of that time, too: nobody asks for that, but it is how imports store
//	  against plain qemu-img convert      ≤ 0.25 of the time, ≤ 0.45 of the processor time, with the digest
//	plain                                 ≤ 0.3 of the time; ≤ 0.55 when both are on the disk;
//	                                      takes ≤ 1.01 of what is not left out of the data (x-allocated)
//	zstd                                  ≤ 0.25 of the time of qemu-img convert -c with zstd
//
// Of each, warm: the host has the VMDK in memory. What cold ones take, of which it has nothing at first, is told and has no bar.
func BenchmarkStore(b *testing.B) {
	dir := b.TempDir()
	raw, file := filepath.Join(dir, "raw"), filepath.Join(dir, "a.vmdk")
	windowsDisk(b, raw)
	tool(b, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, file)
	if err := os.Remove(raw); err != nil {
		b.Fatal(err)
	}
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	for _, c := range []struct {
		name            string
		opt             disk.CopyOptions
		peer            []string
		wall, cpu, size float64 // the bars; 0: none
		allocated       float64
		cold            bool
	}{
		{"compact-c", disk.CopyOptions{Form: disk.Compact}, []string{"-c"}, 1. / 30, 0, 0.70, 0, false},
		{"compact-c-digest", disk.CopyOptions{Form: disk.Compact, Digest: true}, []string{"-c"}, 1. / 30, 0, 0, 0, false},
		{"compact", disk.CopyOptions{Form: disk.Compact, Digest: true}, nil, 0.25, 0.45, 0, 0, false},
		{"plain", disk.CopyOptions{Form: disk.Plain}, nil, 0.3, 0, 0, 1.01, false},
		{"plain-durable", disk.CopyOptions{Form: disk.Plain, Durable: true}, nil, 0.55, 0, 0, 1.01, false},
		{"zstd", disk.CopyOptions{Form: disk.Zstd}, []string{"-c", "-o", "compression_type=zstd"}, 0.25, 0, 0, 0, false},
		{"compact-cold", disk.CopyOptions{Form: disk.Compact, Digest: true}, nil, 0, 0, 0, 0, true},
		{"plain-cold", disk.CopyOptions{Form: disk.Plain}, nil, 0, 0, 0, 0, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			var own, other []disktest.Cost
			var sizes [2]int64
			var allocated, wanted int64 // of our file; of the guest's disk
			for b.Loop() {
				if c.cold {
					disktest.Forget(b, file)
				}
				syscall.Sync() // what the one before has left to be written is not this one's work
				own = append(own, disktest.Measure(b, func() error {
					e, err := disk.OpenFile(file, disk.Options{})
					if err != nil {
						return err
					}
					left := LeaveOut(e.Disks[0], Keep{})
					if left.Ranges == nil {
						return fmt.Errorf("nothing is left out: %q", left.Kept)
					}
					opt := c.opt
					opt.Skip = left.Ranges
					done, err := disk.CopyFile(b.Context(), ours, e.Disks[0], opt)
					wanted = done.Stored - done.Skipped
					return errors.Join(err, e.Close())
				}, syscall.RUSAGE_SELF))
				if c.cold {
					disktest.Forget(b, file)
				}
				syscall.Sync()
				other = append(other, disktest.Measure(b, func() error {
					tool(b, "qemu-img", slices.Concat([]string{"convert", "-f", "vmdk", "-O", "qcow2"}, c.peer, []string{file, theirs})...)
					if c.opt.Durable {
						tool(b, "sync", "-d", theirs)
					}
					return nil
				}, syscall.RUSAGE_CHILDREN))
				for i, path := range []string{ours, theirs} {
					info, err := os.Stat(path)
					if err != nil {
						b.Fatal(err)
					}
					sizes[i] = info.Size()
					if i == 0 {
						allocated = info.Sys().(*syscall.Stat_t).Blocks * 512
					}
				}
				if err := errors.Join(os.Remove(ours), os.Remove(theirs)); err != nil {
					b.Fatal(err)
				}
			}
			a, o := disktest.Median(own), disktest.Median(other)
			b.ReportMetric(a.Wall.Seconds(), "own-s")
			b.ReportMetric(o.Wall.Seconds(), "qemu-img-s")
			disktest.Judge(b, "x-qemu-img", a.Wall.Seconds()/o.Wall.Seconds(), c.wall)
			disktest.Judge(b, "x-qemu-img-CPU", a.CPU.Seconds()/o.CPU.Seconds(), c.cpu)
			disktest.Judge(b, "x-size", float64(sizes[0])/float64(sizes[1]), c.size)
			if c.allocated > 0 { // what is compressed takes less in any case
				disktest.Judge(b, "x-allocated", float64(allocated)/float64(wanted), c.allocated)
			}
		})
	}
}
