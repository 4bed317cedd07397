package s3

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"syscall"

	"github.com/tus/tusd/v2/pkg/filestore"
	"github.com/tus/tusd/v2/pkg/handler"
)

// resumableStore is tusd's store of files, whose troubles are logged here and told to clients without a word about this host.
type resumableStore struct {
	filestore.FileStore
	log *slog.Logger
}

// NewUpload implements handler.DataStore.
func (s resumableStore) NewUpload(ctx context.Context, info handler.FileInfo) (handler.Upload, error) {
	u, err := s.FileStore.NewUpload(ctx, info)
	return storedUpload{u, s}, s.outward(err)
}

// GetUpload implements handler.DataStore.
func (s resumableStore) GetUpload(ctx context.Context, id string) (handler.Upload, error) {
	u, err := s.FileStore.GetUpload(ctx, id)
	return storedUpload{u, s}, s.outward(err)
}

// AsTerminatableUpload implements handler.TerminaterDataStore.
func (s resumableStore) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload {
	return s.FileStore.AsTerminatableUpload(u.(storedUpload).Upload) // every upload is one of ours
}

// storedUpload is one of its uploads.
type storedUpload struct {
	handler.Upload
	store resumableStore
}

// WriteChunk implements handler.Upload.
func (u storedUpload) WriteChunk(ctx context.Context, offset int64, src io.Reader) (int64, error) {
	n, err := u.Upload.WriteChunk(ctx, offset, src)
	return n, u.store.outward(err)
}

// outward is what a client is told of an error: of a file's, what it means.
func (s resumableStore) outward(err error) error {
	var here *fs.PathError
	if !errors.As(err, &here) {
		return err
	}
	s.log.Error("resumable upload", "err", err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return handler.NewError("ERR_NO_SPACE", errNoSpace.Message, errNoSpace.Status)
	}
	return handler.NewError("ERR_INTERNAL", "the upload could not be stored", http.StatusInternalServerError)
}
