package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"berth/internal/compute"
	"berth/internal/disk"
	"berth/internal/disk/disktest"
)

// readingGuest is the boot sector of a guest that reads what the sectors from 1 on list, one read after the other, and turns itself
// off. The list is of disk address packets, the BIOS's own form of a read (16 bytes: size, sectors, where to in memory, first
// sector); one of no sectors ends it. A read that fails leaves the guest running.
const readingGuest = `
fa              cli                    16 bits, at 0x7c00
31c0            xor %ax,%ax
8ed8            mov %ax,%ds
8ec0            mov %ax,%es
8ed0            mov %ax,%ss
bc007c          mov $0x7c00,%sp
fb              sti
fc              cld
8816007e        mov %dl,0x7e00         the disk's BIOS number
be4c7c          next: mov $0x7c4c,%si
e82900          call read
668306547c20    addl $32,0x7c54        where the list goes on
bf0080          mov $0x8000,%di
837d0200        each: cmpw $0,2(%di)
7410            je off
89fe            mov %di,%si
e81500          call read
83c710          add $16,%di
81ff00c0        cmp $0xc000,%di
72ec            jb each
ebdb            jmp next
ba0406          off: mov $0x604,%dx    q35's power
b80020          mov $0x2000,%ax
ef              out %ax,%dx
f4              halt: hlt
ebfd            jmp halt
b442            read: mov $0x42,%ah    extended read
8a16007e        mov 0x7e00,%dl
cd13            int $0x13
72f3            jc halt
c3              ret
10002000        0x7c4c: 16 bytes, 32 sectors,
00800000        to 0:0x8000,
0100000000000000 sector 1
`

// bootDisk writes a raw disk of 1 GiB that boots readingGuest: 384 MiB of files, of which a third does not compress and the rest is
// machine code, and a list of some 3000 reads as a system makes them that starts: files here and there, the beginning of each,
// then pieces of 4 to 64 KiB, of every fourth all. It returns how many bytes the guest reads; none if not asked for reads.
func bootDisk(b *testing.B, path string, reads bool) (bytes int64) {
	const data, start = 384 << 20, 1 << 20
	head, err := assemble(readingGuest)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 5))
	read := func(at, length int64) {
		head = binary.LittleEndian.AppendUint32(head, uint32(length/512)<<16|16)
		head = binary.LittleEndian.AppendUint32(head, 0x2000<<16) // memory from 128 KiB on
		head = binary.LittleEndian.AppendUint64(head, uint64(at/512))
		bytes += length
	}
	for range 450 {
		if !reads {
			break
		}
		at, size := start+r.Int64N((data-4<<20)/4096)*4096, 4096*(4+r.Int64N(252))
		read(at, 4096)
		all := r.IntN(4) == 0
		for done := int64(4096); done < size; {
			n := []int64{4, 8, 16, 16, 32, 32, 64}[r.IntN(7)] << 10
			if all {
				n = 64 << 10
			} else if done += r.Int64N(32) * 4096; done >= size || r.IntN(10) == 0 {
				break
			}
			n = min(n, size-done)
			read(at+done, n)
			done += n
		}
	}
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	for at, p := range disktest.NewContents(b).Pieces(data) {
		if _, err := f.WriteAt(p, start+at); err != nil {
			b.Fatal(err)
		}
	}
	if len(head) > start-1024 {
		b.Fatalf("the list takes %d bytes", len(head))
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<30), f.Close()); err != nil {
		b.Fatal(err)
	}
	return bytes
}

// bootOnce runs a desktop's machine on a new clone of the image, until the guest turns it off. cold forgets what the host has in
// memory of the image.
func bootOnce(b *testing.B, accel accelerator, image string, cold bool) disktest.Cost {
	folder := filepath.Join(filepath.Dir(image), "machine")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(folder)
	benchTool(b, "qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", filepath.Join(folder, rootVolume))
	if cold {
		disktest.Forget(b, image)
	} else if _, err := os.ReadFile(image); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", arguments(hardware{id: "bench", folder: folder, image: image, vcpus: 2, memoryMiB: 256, accel: accel})...)
	cmd.Dir = folder
	return disktest.Measure(b, func() error {
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}, syscall.RUSAGE_CHILDREN)
}

func benchTool(b *testing.B, name string, args ...string) {
	if out, err := exec.CommandContext(b.Context(), name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v: %s", name, err, out)
	}
}

// BenchmarkBoot has a guest read what a boot reads, through a desktop's clone of an image in each form, and reports, less the
// same of a guest that reads nothing, its time and QEMU's processor time; of an image that the host has in memory (warm) and of
// one that it has not (cold), for which it reports how much the host fetches, too. docs/adr/0007-conversion.md says what follows.
//
// The guest's BIOS waits for the disk by asking it again and again, so what a warm boot takes of time it takes of the processor.
func BenchmarkBoot(b *testing.B) {
	dir := b.TempDir()
	accel := chooseAccelerator(b.Context(), "qemu-system-x86_64", "auto")
	b.Logf("accelerator %s: %s", accel.name, accel.why)
	raw, file, image := filepath.Join(dir, "raw"), filepath.Join(dir, "a.vmdk"), filepath.Join(dir, "image")
	store := func(from string, form disk.Form) int64 {
		if err := os.Remove(image); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.Fatal(err)
		}
		e, err := disk.OpenFile(from, disk.Options{})
		if err != nil {
			b.Fatal(err)
		}
		done, err := disk.CopyFile(b.Context(), image, e.Disks[0], disk.CopyOptions{Form: form})
		if err := errors.Join(err, e.Close()); err != nil {
			b.Fatal(err)
		}
		return done.File
	}
	bootDisk(b, raw, false)
	store(raw, disk.Plain)
	var idle []disktest.Cost
	for range 3 {
		idle = append(idle, bootOnce(b, accel, image, false))
	}
	nothing := disktest.Median(idle)
	asked := bootDisk(b, raw, true)
	benchTool(b, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, file)
	for _, form := range []struct {
		name string
		form disk.Form
	}{{"fast", disk.Plain}, {"zstd", disk.Zstd}, {"compact", disk.Compact}} {
		size := store(file, form.form)
		for _, cold := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/%s", form.name, map[bool]string{false: "warm", true: "cold"}[cold]), func(b *testing.B) {
				var boots []disktest.Cost
				for b.Loop() {
					boots = append(boots, bootOnce(b, accel, image, cold))
				}
				m := disktest.Median(boots)
				b.ReportMetric((m.Wall - nothing.Wall).Seconds(), "reading-s")
				b.ReportMetric((m.CPU - nothing.CPU).Seconds(), "reading-CPU-s")
				b.ReportMetric(float64(m.Read)/(1<<20), "fetched-MiB")
				b.ReportMetric(float64(asked)/(1<<20), "read-MiB")
				b.ReportMetric(float64(size)/(1<<20), "image-MiB")
			})
		}
	}
}

// The bars of BenchmarkClone.
const (
	barClone     = 20 * time.Millisecond
	barCloneDisk = 1 << 20 // bytes
)

// BenchmarkClone makes a desktop's machine, turned off, whose root volume is a clone of an image of 64 GiB: as the service has it
// made, record and all, and so that it survives a power cut; by turns with qemu-img, which makes nothing but the clone, and does
// not wait for the disk. It reports the medians of their times and what the machine takes of the disk.
func BenchmarkClone(b *testing.B) {
	dir := b.TempDir()
	raw, image := filepath.Join(dir, "raw"), filepath.Join(dir, "image.qcow2")
	bootDisk(b, raw, false)
	if err := os.Truncate(raw, 64<<30); err != nil {
		b.Fatal(err)
	}
	e, err := disk.OpenFile(raw, disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	_, err = disk.CopyFile(b.Context(), image, e.Disks[0], disk.CopyOptions{Form: disk.Plain, Durable: true})
	if err := errors.Join(err, e.Close(), os.Remove(raw)); err != nil {
		b.Fatal(err)
	}
	d, err := open(Config{Dir: filepath.Join(dir, "data"), Log: slog.New(slog.DiscardHandler), Accelerator: "tcg"})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := d.EnsureImage(b.Context(), "wsi-1", image); err != nil {
		b.Fatal(err)
	}
	m := compute.Machine{ID: "ws-1", Image: "wsi-1", RootGiB: 64, VCPUs: 2, MemoryMiB: 4096, Firmware: compute.BIOS, Boots: 1}
	theirs := filepath.Join(dir, "theirs")
	var own, other []disktest.Cost
	var allocated int64
	for b.Loop() {
		own = append(own, disktest.Measure(b, func() error {
			_, err := d.Ensure(b.Context(), m)
			return err
		}, syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN))
		err := filepath.WalkDir(filepath.Join(d.machinesDir, m.ID), func(_ string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				allocated += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
			return err
		})
		if err := errors.Join(err, d.Delete(b.Context(), m.ID)); err != nil {
			b.Fatal(err)
		}
		other = append(other, disktest.Measure(b, func() error {
			benchTool(b, "qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", theirs)
			return nil
		}, syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN))
		if err := os.Remove(theirs); err != nil {
			b.Fatal(err)
		}
	}
	allocated /= int64(len(own))
	a, o := disktest.Median(own), disktest.Median(other)
	b.ReportMetric(float64(a.Wall.Microseconds())/1000, "own-ms")
	b.ReportMetric(float64(o.Wall.Microseconds())/1000, "qemu-img-ms")
	b.ReportMetric(float64(a.CPU.Microseconds())/1000, "own-CPU-ms")
	b.ReportMetric(float64(o.CPU.Microseconds())/1000, "qemu-img-CPU-ms")
	b.ReportMetric(float64(allocated)/1024, "stored-KiB")
	b.Logf("bar of %v: %v, %s", barClone, a.Wall, disktest.Held(a.Wall <= barClone))
	b.Logf("bar of %d KiB: %d KiB, %s", barCloneDisk>>10, allocated>>10, disktest.Held(allocated <= barCloneDisk))
}
