package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Folder is a folder of this host that may be imported from, by URLs such as file:///exports/win10.ova, whose path begins in
// the folder. Nothing outside of it is opened, whatever the path or a symbolic link in the folder says.
type Folder struct{ root *os.Root }

// OpenFolder opens an import folder.
func OpenFolder(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("import folder: %w", err)
	}
	return &Folder{root}, nil
}

// Close lets go of the folder.
func (f *Folder) Close() error { return f.root.Close() }

// Check implements Place.
func (f *Folder) Check(raw string) error {
	_, err := inFolder(raw)
	return err
}

// inFolder is the path in the folder that a URL names.
func inFolder(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return "", errors.New("it cannot be read")
	case u.Scheme != "file", u.Host != "" && u.Host != "localhost", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return "", errors.New("give file:///path, the path beginning in the import folder")
	}
	name := strings.TrimPrefix(path.Clean("/"+u.Path), "/")
	if name == "" || !fs.ValidPath(name) || strings.ContainsRune(name, 0) {
		return "", errors.New("it names no file in the import folder")
	}
	return name, nil
}

// open opens a file for reading. What is no plain file is as if it were not there.
func (f *Folder) open(raw string) (*os.File, Info, error) {
	name, err := inFolder(raw)
	if err != nil {
		return nil, Info{}, ErrAccessDenied.saying("%s", err)
	}
	// Opening a pipe would wait for its writer, but for O_NONBLOCK.
	file, err := f.root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
		return nil, Info{}, ErrNoSuchKey.about(name)
	case errors.Is(err, fs.ErrPermission):
		return nil, Info{}, ErrAccessDenied.about(name)
	case err != nil:
		var outside *fs.PathError // os.Root's refusal has no name of its own
		if errors.As(err, &outside) && strings.Contains(outside.Err.Error(), "escapes") {
			return nil, Info{}, ErrAccessDenied.saying("it leads out of the import folder")
		}
		return nil, Info{}, err
	}
	info, err := fileInfo(file)
	if err != nil {
		return nil, Info{}, errors.Join(err, file.Close())
	}
	return file, info, nil
}

// fileInfo is what tells a file from another one, or from itself after a change.
func fileInfo(file *os.File) (Info, error) {
	fi, err := file.Stat()
	if err != nil {
		return Info{}, err
	}
	if !fi.Mode().IsRegular() {
		return Info{}, ErrNoSuchKey.saying("it is no plain file")
	}
	inode := uint64(0)
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return Info{Size: fi.Size(), ETag: fmt.Sprintf("%x-%x-%x", inode, fi.Size(), fi.ModTime().UnixNano()), Modified: fi.ModTime().UTC()}, nil
}

// Stat implements Place.
func (f *Folder) Stat(_ context.Context, raw string) (Info, error) {
	file, info, err := f.open(raw)
	if err != nil {
		return Info{}, err
	}
	return info, file.Close()
}

// Stage implements Place, by a copy: the file in the folder is somebody else's, who may write to it.
func (f *Folder) Stage(ctx context.Context, raw, dst string, progress func(done, total int64)) error {
	file, info, err := f.open(raw)
	if err != nil {
		return err
	}
	defer file.Close()
	if progress == nil {
		progress = func(int64, int64) {}
	}
	part := dst + pieceSuffix
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := copyTo(ctx, part, file, info.Size, progress); err != nil {
		return err
	}
	if now, err := fileInfo(file); err != nil {
		return err
	} else if now.ETag != info.ETag {
		return ErrPreconditionFailed
	}
	if err := os.Rename(part, dst); err != nil {
		return err
	}
	progress(info.Size, info.Size)
	return syncFolder(filepath.Dir(dst))
}
