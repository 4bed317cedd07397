package image

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"berth/internal/disk"
)

// An overlay is a qcow2 (version 3, https://www.qemu.org/docs/master/interop/qcow2.html) that has only the clusters in which a
// disk differs from another one. It names no backing file: whoever opens it says what is under it.
//
//	cluster 0   header, 104 bytes
//	        1   refcount table: one entry
//	        2   refcount block: 16 bits for each cluster of the file
//	        3…  L1 table: an entry for each 512 MiB of the disk
//	        …   L2 tables, those of them that are needed
//	        …   the clusters

// maxOverlay bounds an overlay's clusters: 64 MiB, many times what changes of the registry touch. One refcount block counts them.
const maxOverlay = 1024

const (
	clusterBytes = 64 << 10
	l2Entries    = clusterBytes / 8
	copiedFlag   = 1 << 63 // refcount is exactly one
)

// touched are the clusters of a patched disk that patches lie in, in order.
func touched(img disk.Image, patches []disk.Patch) ([]disk.Patch, error) {
	in := map[int64]bool{}
	for _, p := range patches {
		for at := p.Off - p.Off%clusterBytes; at < p.Off+int64(len(p.Data)); at += clusterBytes {
			in[at] = true
		}
	}
	if len(in) > maxOverlay {
		return nil, fmt.Errorf("image: the changes touch %d clusters of %d bytes, at most %d are kept apart", len(in), clusterBytes, maxOverlay)
	}
	var out []disk.Patch
	for at := range in {
		data := make([]byte, min(clusterBytes, img.Size()-at))
		if n, err := img.ReadAt(data, at); n < len(data) {
			return nil, fmt.Errorf("image: read byte %d of the disk: %w", at+int64(n), err)
		}
		out = append(out, disk.Patch{Off: at, Data: data})
	}
	slices.SortFunc(out, func(a, b disk.Patch) int { return cmp.Compare(a.Off, b.Off) })
	return out, nil
}

// overlayDigest names a disk that is another one, by its digest, with some clusters changed.
func overlayDigest(base string, clusters []disk.Patch) string {
	h := sha256.New()
	io.WriteString(h, base) //nolint:errcheck // a digest takes everything
	for _, c := range clusters {
		place(h, c.Off)
		h.Write(c.Data)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// place writes a number of bytes into a digest.
func place(w io.Writer, n int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	w.Write(b[:]) //nolint:errcheck // a digest takes everything
}

// writeOverlay writes an overlay of a disk of size bytes, which appears at path whole or not at all, and never changes.
func writeOverlay(path string, size int64, clusters []disk.Patch) (err error) {
	l1Entries := (size + clusterBytes*l2Entries - 1) / (clusterBytes * l2Entries)
	l1Clusters := (l1Entries*8 + clusterBytes - 1) / clusterBytes
	l2At := map[int64]int64{} // by index in L1: the file's cluster
	next := 3 + l1Clusters
	for _, c := range clusters {
		if i := c.Off / (clusterBytes * l2Entries); l2At[i] == 0 {
			l2At[i] = next
			next++
		}
	}
	data := next
	next += int64(len(clusters))
	if next > clusterBytes/2 {
		return fmt.Errorf("image: an overlay of %d clusters, at most %d can be counted", next, clusterBytes/2)
	}
	b := make([]byte, data*clusterBytes)
	be := binary.BigEndian
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 16) // cluster bits
	be.PutUint64(b[24:], uint64(size))
	be.PutUint32(b[36:], uint32(l1Entries))
	be.PutUint64(b[40:], 3*clusterBytes)
	be.PutUint64(b[48:], clusterBytes)
	be.PutUint32(b[56:], 1)
	be.PutUint32(b[96:], 4) // refcounts of 1<<4 bits
	be.PutUint32(b[100:], 104)
	be.PutUint64(b[clusterBytes:], 2*clusterBytes)
	for i := range next {
		be.PutUint16(b[2*clusterBytes+2*i:], 1)
	}
	for i, at := range l2At {
		be.PutUint64(b[3*clusterBytes+8*i:], uint64(at*clusterBytes)|copiedFlag)
	}
	for n, c := range clusters {
		cluster := c.Off / clusterBytes
		be.PutUint64(b[l2At[cluster/l2Entries]*clusterBytes+8*(cluster%l2Entries):], uint64((data+int64(n))*clusterBytes)|copiedFlag)
	}
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(part))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	for _, c := range clusters {
		if _, err := w.Write(c.Data); err != nil {
			return fmt.Errorf("image: %w", err)
		}
		if _, err := w.Write(make([]byte, clusterBytes-len(c.Data))); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Chmod(0o400)); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return errors.Join(f.Close(), syncDir(filepath.Dir(path)))
}

// readOverlay reads the clusters of an overlay of a disk of size bytes.
func readOverlay(path string, size int64) ([]disk.Patch, error) {
	u, err := Open(File{Path: path, Format: "QCOW2"})
	if err != nil {
		return nil, fmt.Errorf("image: overlay: %w", err)
	}
	defer u.Close()
	img := u.Disks[0]
	if img.Size() != size {
		return nil, fmt.Errorf("image: the overlay is of a disk of %d bytes, the disk under it has %d", img.Size(), size)
	}
	var out []disk.Patch
	for x, err := range img.Extents() {
		if err != nil {
			return nil, fmt.Errorf("image: overlay: %w", err)
		}
		if x.Kind != disk.Data {
			continue
		}
		for at := x.Start; at < x.Start+x.Length; at += clusterBytes {
			if len(out) == maxOverlay {
				return nil, fmt.Errorf("image: an overlay of more than %d clusters", maxOverlay)
			}
			data := make([]byte, min(clusterBytes, size-at))
			if n, err := img.ReadAt(data, at); n < len(data) {
				return nil, fmt.Errorf("image: read byte %d of the overlay: %w", at+int64(n), err)
			}
			out = append(out, disk.Patch{Off: at, Data: data})
		}
	}
	return out, nil
}

// allocated is how much room a file takes, in bytes: Linux counts in 512.
func allocated(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
