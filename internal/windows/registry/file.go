package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"berth/internal/windows"
)

// OpenFile opens a hive's file with the transaction logs beside it (LOG1 and LOG2) that are there; done closes them, and must be called
// only once the hive is not read any more. The error is fs.ErrNotExist (wrapped) if there surely is no such file, and never because of a log.
func OpenFile(files fs.FS, name string) (hive *Hive, done func(), err error) {
	var opened []fs.File
	done = func() {
		for _, f := range opened {
			_ = f.Close() // only read
		}
	}
	defer func() {
		if err != nil {
			done()
			done = func() {}
		}
	}()
	open := func(name string) (Log, error) {
		f, err := files.Open(name)
		if err != nil {
			return Log{}, err
		}
		opened = append(opened, f)
		info, err := f.Stat()
		if err != nil {
			return Log{}, err
		}
		r, ok := f.(io.ReaderAt)
		if !ok {
			return Log{}, fmt.Errorf("%s is not a file", name)
		}
		return Log{Name: path.Base(name), R: r, Size: info.Size()}, nil
	}
	file, err := open(name)
	if err != nil {
		return nil, done, err
	}
	var logs []Log
	for _, suffix := range []string{".LOG1", ".LOG2"} {
		log, err := open(name + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, done, err
		}
		logs = append(logs, log)
	}
	hive, err = Open(file.R, file.Size, logs...)
	return hive, done, err
}

// HiveState is State as windows.System tells it.
func (h *Hive) HiveState() windows.HiveState {
	s := h.State()
	return windows.HiveState{Dirty: s.Dirty, Replayed: s.Entries, Stale: s.Stale, Why: s.Why, Damaged: s.Damaged, Cut: s.Cut}
}
