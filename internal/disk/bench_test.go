//go:build unix

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// Sequential reading of a streamOptimized disk, whose grains are about half compressible, and qemu-img doing the same.
func BenchmarkStreamOptimized(b *testing.B) {
	guest := guestDisk(64<<20, 12)
	path := filepath.Join(b.TempDir(), "a.vmdk")
	if err := os.WriteFile(path, streamVMDK(guest, esxi), 0o600); err != nil {
		b.Fatal(err)
	}
	b.Run("ReadAt", func(b *testing.B) {
		b.SetBytes(int64(len(guest)))
		b.ReportAllocs()
		p := make([]byte, 1<<20)
		for b.Loop() {
			e, err := OpenFile(path, Options{})
			if err != nil {
				b.Fatal(err)
			}
			for off := int64(0); off < e.Disks[0].Size(); off += int64(len(p)) {
				if n, err := e.Disks[0].ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], guest[off:off+int64(n)]) {
					b.Fatalf("read at %d: %v", off, err)
				}
			}
			if err := e.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("qemu-img", func(b *testing.B) {
		b.SetBytes(int64(len(guest)))
		for b.Loop() {
			qemuImg(b, "convert", "-n", "-f", "vmdk", path, "null-co://")
		}
	})
}

// diskOfWindows writes a raw disk as a Windows machine leaves it: machine code, noise (what is compressed already) and holes;
// data bytes of it are stored, at the beginning, in the middle and at the end.
func diskOfWindows(b *testing.B, path string, size, data int64) {
	name, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	code, err := os.ReadFile(name)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	noise := rand.NewChaCha8([32]byte{})
	p := make([]byte, 1<<20)
	for i := int64(0); i < data; i += int64(len(p)) {
		copy(p, code[r.IntN(len(code)-len(p)):])
		if i>>20%3 == 0 {
			noise.Read(p)
		}
		copy(p[510:], "\x55\xaa")
		at := i
		if i > data/2 {
			at += size/2 - data
		}
		if _, err := f.WriteAt(p, at); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkConvert makes sparse raw files and plain QCOW2 of disks with 512 MiB of data, by turns with CopyFile and with
// qemu-img, and reports how much of qemu-img's time CopyFile takes (x-qemu-img), and of its processor time (x-qemu-img-CPU), which
// depends less on what else runs; medians. The bars:
//
//	to plain QCOW2       ≤ 1.0 of the time and of the processor time, all formats
//	  from VHDX, 64 GiB  ≤ 0.3 of the processor time
//	to raw               ≤ 1.0 of the time; from streamOptimized and VHDX ≤ 0.4
//
// VHDX's 0.3 is for a disk as machines have it: large, and most of it empty, of which qemu-img looks at every block. Of the disk of
// 4 GiB an eighth is full, and writing that alone, which both do the same way, is about 0.3 of what qemu-img takes of the
// processor: there the bar is that of all formats.
func BenchmarkConvert(b *testing.B) {
	const data = 512 << 20
	dir := b.TempDir()
	for _, size := range []int64{4 << 30, 64 << 30} {
		raw := filepath.Join(dir, "guest")
		diskOfWindows(b, raw, size, data)
		for _, v := range []variant{
			{"RAW", "", nil},
			{"QCOW2", "", nil},
			{"QCOW2", "zlib", []string{"-c"}},
			{"VHD", "", nil},
			{"VMDK", "sparse", nil},
			{"VMDK", "streamOptimized", []string{"-o", "subformat=streamOptimized"}},
			{"VHDX", "", nil},
		} {
			if size > 4<<30 && v.format != "VHDX" && v.subFormat != "streamOptimized" {
				continue
			}
			b.Run(fmt.Sprintf("%s%s/%dGiB", v.format, v.subFormat, size>>30), func(b *testing.B) {
				file, ours, theirs := raw, filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
				if v.format != "RAW" {
					file = filepath.Join(dir, "disk")
					qemuImg(b, append(append([]string{"convert", "-f", "raw", "-O", qemuFormat[v.format]}, v.args...), raw, file)...)
					defer os.Remove(file)
				}
				for to, form := range map[string]Form{"raw": Raw, "qcow2": Plain} {
					b.Run(to, func(b *testing.B) {
						var own, other []timing
						for b.Loop() {
							own = append(own, timed(b, syscall.RUSAGE_SELF, func() {
								e, err := OpenFile(file, Options{})
								if err == nil {
									_, err = CopyFile(b.Context(), ours, e.Disks[0], CopyOptions{Form: form})
									err = errors.Join(err, e.Close())
								}
								if err != nil {
									b.Fatal(err)
								}
							}))
							other = append(other, timed(b, syscall.RUSAGE_CHILDREN, func() {
								qemuImg(b, "convert", "-f", qemuFormat[v.format], "-O", to, file, theirs)
							}))
							b.ReportMetric(float64(stored(b, ours))/float64(stored(b, theirs)), "x-stored")
							if err := errors.Join(os.Remove(ours), os.Remove(theirs)); err != nil {
								b.Fatal(err)
							}
						}
						a, o := median(own), median(other)
						b.ReportMetric(a.wall.Seconds(), "own-s")
						b.ReportMetric(o.wall.Seconds(), "qemu-img-s")
						wall, cpu := 1.0, 1.0
						if form == Raw {
							cpu = 0 // none
							if v.format == "VHDX" || v.subFormat == "streamOptimized" {
								wall = 0.4
							}
						} else if v.format == "VHDX" && size > 4<<30 {
							cpu = 0.3
						}
						for _, m := range []struct {
							unit       string
							ratio, bar float64
						}{
							{"x-qemu-img", a.wall.Seconds() / o.wall.Seconds(), wall},
							{"x-qemu-img-CPU", a.cpu.Seconds() / o.cpu.Seconds(), cpu},
						} {
							b.ReportMetric(m.ratio, m.unit)
							word := "held"
							if m.ratio > m.bar {
								word = "MISSED"
							}
							if m.bar > 0 {
								b.Logf("%s, bar %.1f: %.2f, %s", m.unit, m.bar, m.ratio, word)
							}
						}
					})
				}
			})
		}
		if err := os.Remove(raw); err != nil {
			b.Fatal(err)
		}
	}
}

type timing struct{ wall, cpu time.Duration }

// timed measures do, whose processor time is this process's or that of its children.
func timed(b *testing.B, who int, do func()) timing {
	begun, cpu := time.Now(), processor(b, who)
	do()
	return timing{time.Since(begun), processor(b, who) - cpu}
}

// median is that of each measure for itself.
func median(all []timing) timing {
	middle := func(of func(timing) time.Duration) time.Duration {
		var d []time.Duration
		for _, t := range all {
			d = append(d, of(t))
		}
		slices.Sort(d)
		return d[len(d)/2]
	}
	return timing{middle(func(t timing) time.Duration { return t.wall }), middle(func(t timing) time.Duration { return t.cpu })}
}

// processor is the processor time used so far by this process or by its children that have ended.
func processor(b *testing.B, who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Opening a disk and reading one sector, as an inspection begins.
func BenchmarkOpen(b *testing.B) {
	for name, file := range samples(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			p := make([]byte, 512)
			for b.Loop() {
				e, err := Open(bytes.NewReader(file), Options{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := e.Disks[0].ReadAt(p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
