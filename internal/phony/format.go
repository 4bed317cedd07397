package phony

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// formatNTFS lets mkntfs make an empty NTFS volume of size bytes in a scratch file, and copies what it wrote to disk at
// start: mkntfs cannot write into a part of a file. size is a multiple of a sector.
func formatNTFS(ctx context.Context, disk *os.File, start, size int64, label, scratch string) error {
	mkntfs, err := findTool("mkntfs", "ntfs-3g")
	if err != nil {
		return err
	}
	empty := filepath.Join(scratch, "volume.ntfs")
	f, err := os.OpenFile(empty, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(empty)
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	// Heads and sectors per track are those of every BIOS translation above 8 GiB.
	cmd := exec.CommandContext(ctx, mkntfs, "--force", "--quick", "--quiet", "--zero-time", "--cluster-size", strconv.Itoa(indexBlock),
		"--sector-size", strconv.Itoa(sectorBytes), "--partition-start", strconv.FormatInt(start/sectorBytes, 10),
		"--heads", "255", "--sectors-per-track", "63", "--label", label, empty)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkntfs: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := emptyLog(f); err != nil {
		return err
	}
	return copyData(disk, start, f, size)
}

// findTool looks where Debian puts a tool of its package too: /usr/sbin is not on every user's PATH.
func findTool(name, debian string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (Debian package %s): %w", name, debian, exec.ErrNotFound)
}

// logBytes is how large a $LogFile is left: what mkntfs itself gives a volume of 100 MiB. On C: it makes 64 MiB of 0xFF, which
// every disk, export and import of a test would carry; the rest becomes free space.
const logBytes = 4 << 20

// emptyLog gives back what the $LogFile of an empty volume has beyond logBytes, so that it is not copied. The records change in
// save, when all else does.
func emptyLog(f *os.File) error {
	v, err := openVolume(f, 0, 0)
	if err != nil {
		return err
	}
	for _, r := range v.surplusLog() {
		if err := punchHole(f, v.at(r.lcn), r.length*clusterBytes); err != nil {
			return err
		}
	}
	return nil
}

// copyData copies the parts of a sparse file that were written.
func copyData(dst *os.File, at int64, src *os.File, size int64) error {
	for off := int64(0); off < size; {
		data, end, err := nextData(src, off)
		if err != nil {
			return err
		}
		if data >= size {
			return nil
		}
		if _, err := dst.Seek(at+data, io.SeekStart); err != nil {
			return err
		}
		if _, err := src.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(dst, src, min(end, size)-data); err != nil {
			return err
		}
		off = end
	}
	return nil
}

// nextData finds the next written range of a sparse file from off; start is beyond every size when there is none.
func nextData(f *os.File, off int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return math.MaxInt64, math.MaxInt64, nil
	}
	if err != nil {
		return 0, 0, &os.PathError{Op: "seek data", Path: f.Name(), Err: err}
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, &os.PathError{Op: "seek hole", Path: f.Name(), Err: err}
	}
	return start, end, nil
}

// punchHole makes a range of a file read as zeros and take no room. A file system that cannot do it is written to instead.
func punchHole(f *os.File, off, length int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zero := make([]byte, 1<<20)
	for end := off + length; off < end; {
		n, err := f.WriteAt(zero[:min(int64(len(zero)), end-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
