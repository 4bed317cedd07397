package image

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"berth/internal/disk"
)

// TestOverlay writes overlays of disks of awkward sizes, and reads them again: by our reader, and with what is under them.
func TestOverlay(t *testing.T) {
	for _, size := range []int64{512, clusterBytes - 512, clusterBytes, 3*clusterBytes + 512, 512<<20 + 1024, 40 << 30} {
		last := (size - 1) / clusterBytes * clusterBytes
		var clusters []disk.Patch
		for _, at := range []int64{0, last / 2 / clusterBytes * clusterBytes, last} {
			if n := len(clusters); n > 0 && clusters[n-1].Off == at {
				continue
			}
			data := bytes.Repeat([]byte{byte(at>>16) + 1}, int(min(clusterBytes, size-at)))
			clusters = append(clusters, disk.Patch{Off: at, Data: data})
		}
		path := filepath.Join(t.TempDir(), "overlay.qcow2")
		if err := writeOverlay(path, size, clusters); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		got, err := readOverlay(path, size)
		if err != nil || len(got) != len(clusters) {
			t.Fatalf("%d bytes: %d clusters, want %d: %v", size, len(got), len(clusters), err)
		}
		for i := range got {
			if got[i].Off != clusters[i].Off || sha256.Sum256(got[i].Data) != sha256.Sum256(clusters[i].Data) {
				t.Errorf("%d bytes: cluster %d is at %d with %d bytes, want %d with %d", size, i, got[i].Off, len(got[i].Data), clusters[i].Off, len(clusters[i].Data))
			}
		}
		if overlayDigest("a", got) == overlayDigest("b", got) {
			t.Error("the digest does not depend on what is under it")
		}
		if _, err := readOverlay(path, size+512); err == nil {
			t.Error("an overlay of another disk was taken")
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o400 {
			t.Errorf("it can be written to: %v, %v", fi, err)
		}
	}
}

// FuzzOverlay reads what may have become of an overlay on its disk: an error, or clusters inside of the disk.
func FuzzOverlay(f *testing.F) {
	const size = 3 * clusterBytes
	path := filepath.Join(f.TempDir(), "seed.qcow2")
	if err := writeOverlay(path, size, []disk.Patch{{Off: clusterBytes, Data: bytes.Repeat([]byte{7}, clusterBytes)}}); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-clusterBytes])
	f.Add(b[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "overlay.qcow2")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		clusters, err := readOverlay(path, size)
		if err != nil {
			return
		}
		for _, c := range clusters {
			if c.Off < 0 || c.Off+int64(len(c.Data)) > size {
				t.Errorf("a cluster at %d of %d bytes, beyond the disk's %d", c.Off, len(c.Data), size)
			}
		}
	})
}
