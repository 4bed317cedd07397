package phony

import (
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

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
