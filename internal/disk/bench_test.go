package disk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
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
