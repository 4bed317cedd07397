package s3

import (
	"context"
	"crypto/md5" // S3's ETag is an MD5
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tus/tusd/v2/pkg/filestore"
	"github.com/tus/tusd/v2/pkg/handler"
	"github.com/tus/tusd/v2/pkg/memorylocker"
	expslog "golang.org/x/exp/slog"

	"berth/internal/awsapi"
)

// Resumable takes uploads by the tus protocol (https://tus.io, version 1.0.0), for lines that break: a client asks how much has come
// and goes on from there, also with the service's next process. A finished upload is an object like any other.
//
// The client signs in with HTTP Basic: an access key's id and secret, and says where the file goes in the upload's metadata, bucket
// and filename. Its policy must allow s3:PutObject there, with every request. What is not finished is kept for a week.
//
// The answer to the last part may be lost on its way. So what a finished upload was is kept for a week as well, and its client is
// told that all has come, whether it asks how far it is or sends the last part again.
//
// The protocol's extensions for checksums, for several uploads that become one, and for a length that is told later are not
// there; a part that brings a checksum is refused, since nobody would look at it.
//
// In the folder of the store's, an upload ID is the file ID and the note ID.info, which is called ID.done when it is an object.
type Resumable struct {
	store *Store
	keys  awsapi.KeyStore
	dir   string
	base  string
	log   *slog.Logger
	tus   http.Handler

	finishing sync.Mutex // an upload that is being made an object is not made one twice
}

// resumableFor is how long an unfinished upload is kept after its last byte, and the note of a finished one; our choice.
const resumableFor = 7 * 24 * time.Hour

// NewResumable makes the handler of the paths that begin with base ("/uploads/"). Files on their way are in a folder of the store's.
func NewResumable(store *Store, keys awsapi.KeyStore, base string, log *slog.Logger) (*Resumable, error) {
	r := &Resumable{store: store, keys: keys, dir: filepath.Join(store.dir, "resumable"), base: base, log: log}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, err
	}
	if err := r.sweep(); err != nil {
		return nil, err
	}
	composer := handler.NewStoreComposer()
	files := resumableStore{filestore.New(r.dir), log}
	composer.UseCore(files)
	composer.UseTerminater(files)
	memorylocker.New().UseIn(composer) // one process has the store
	tus, err := handler.NewHandler(handler.Config{StoreComposer: composer, BasePath: base, MaxSize: MaxObjectBytes, DisableDownload: true, Cors: &handler.CorsConfig{Disable: true},
		Logger: expslog.New(expslog.NewTextHandler(io.Discard, nil)), NetworkTimeout: stallTime,
		PreFinishResponseCallback: func(e handler.HookEvent) (handler.HTTPResponse, error) {
			r.finishing.Lock()
			defer r.finishing.Unlock()
			return handler.HTTPResponse{}, r.finish(e.Context, e.Upload)
		}})
	if err != nil {
		return nil, err
	}
	r.tus = http.StripPrefix(base, tus)
	return r, nil
}

// The endings of the notes of uploads that are under way, and of those that are objects.
const (
	infoSuffix = ".info"
	doneSuffix = ".done"
)

// sweep removes uploads that nobody goes on with, the notes of those that are long done, and what a crash left of either.
func (r *Resumable) sweep() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, infoSuffix) {
			continue // goes with its upload
		}
		fi, err := e.Info()
		if err != nil {
			continue // it has gone
		}
		old := time.Since(fi.ModTime()) > resumableFor
		path := filepath.Join(r.dir, name)
		switch _, done := os.Stat(path + doneSuffix); {
		case done == nil: // an object, and the crash came before its file went
			err = removeIfThere(path)
		case old && strings.HasSuffix(name, doneSuffix):
			err = removeIfThere(path)
		case old:
			r.log.Info("removing an upload that was not gone on with", "upload", name)
			err = errors.Join(removeIfThere(path), removeIfThere(path+infoSuffix))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeIfThere removes a file; it is no error when there is none.
func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (r *Resumable) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.Method == http.MethodOptions { // what the server can do
		r.tus.ServeHTTP(w, q)
		return
	}
	caller, err := r.caller(q)
	if err != nil {
		r.log.Error("resumable upload", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	if caller == nil {
		w.Header().Set("WWW-Authenticate", `Basic realm="access key"`)
		http.Error(w, "Sign in with an access key's id and secret.", http.StatusUnauthorized)
		return
	}
	bucket, key, err := r.target(q)
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		http.Error(w, refusal.Error(), refusal.Status)
		return
	case err != nil:
		r.log.Error("resumable upload", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	if err := caller.Authorize("s3:PutObject", "arn:aws:s3:::"+bucket+"/"+key); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if q.Header.Get("Upload-Checksum") != "" {
		w.Header().Set("Tus-Resumable", "1.0.0")
		http.Error(w, "The checksum extension is not supported: leave out Upload-Checksum. Every byte that comes is kept as it comes; the object's ETag is the MD5 of all.", http.StatusBadRequest)
		return
	}
	if (q.Method == http.MethodHead || q.Method == http.MethodPatch) && r.answerComplete(w, q) {
		return
	}
	r.tus.ServeHTTP(w, q)
}

// answerComplete answers for an upload of which every byte has come. It is an object already, and the answer that said so was
// lost; or it is none yet: the process died, or the request ended, in between. The handler knows nothing of the one, and takes the
// other to be done and would never finish it.
func (r *Resumable) answerComplete(w http.ResponseWriter, q *http.Request) bool {
	id := strings.Trim(strings.TrimPrefix(q.URL.Path, r.base), "/")
	info, done, err := r.info(id)
	if err != nil {
		return false
	}
	if !done {
		if fi, err := os.Stat(filepath.Join(r.dir, id)); err != nil || fi.Size() != info.Size {
			return false
		}
		info.ID = id
		r.finishing.Lock()
		err = r.finish(q.Context(), info)
		r.finishing.Unlock()
	}
	size := strconv.FormatInt(info.Size, 10)
	w.Header().Set("Tus-Resumable", "1.0.0")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		status := http.StatusInternalServerError
		var known handler.Error
		if errors.As(err, &known) {
			status = known.HTTPResponse.StatusCode
		}
		http.Error(w, "The upload is complete, and could not be stored.", status)
		return true
	}
	w.Header().Set("Upload-Offset", size)
	w.Header().Set("Upload-Length", size)
	if q.Method != http.MethodPatch {
		return true
	}
	// A part that ends where the upload does is the last one, once more. It is read to its end, or else its client would find the
	// connection broken instead of an answer.
	offset, err := strconv.ParseInt(q.Header.Get("Upload-Offset"), 10, 64)
	last := err == nil && offset >= 0 && offset <= info.Size && (q.ContentLength < 0 || q.ContentLength == info.Size-offset)
	if last {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTime)) // without one it is read all the same
		n, err := io.Copy(io.Discard, io.LimitReader(q.Body, info.Size-offset+1))
		last = err == nil && n == info.Size-offset
	}
	if !last {
		http.Error(w, "The upload is complete: all "+size+" bytes have come.", http.StatusConflict)
		return true
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}

// drainTime is how long a part may take that has come before.
const drainTime = 10 * time.Minute

// info is what was written down of an upload when it was made, and whether it is an object.
func (r *Resumable) info(id string) (info handler.FileInfo, done bool, err error) {
	b, err := os.ReadFile(filepath.Join(r.dir, id+infoSuffix))
	if errors.Is(err, os.ErrNotExist) {
		done = true
		b, err = os.ReadFile(filepath.Join(r.dir, id+doneSuffix))
	}
	if errors.Is(err, os.ErrNotExist) {
		return info, false, ErrNoSuchUpload
	}
	return info, done, errors.Join(err, json.Unmarshal(b, &info))
}

// caller is who signs in; nil when nobody does.
func (r *Resumable) caller(q *http.Request) (*awsapi.Caller, error) {
	id, secret, ok := q.BasicAuth()
	if !ok {
		return nil, nil
	}
	k, err := r.keys.AccessKey(q.Context(), id)
	if err != nil && !errors.Is(err, awsapi.ErrNoSuchKey) {
		return nil, err
	}
	got, want := sha256.Sum256([]byte(secret)), sha256.Sum256([]byte(k.Secret.Reveal()))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || k.Secret == "" {
		return nil, nil
	}
	c := awsapi.NewCaller(k, awsapi.S3)
	return &c, nil
}

// target is where an upload goes: by its metadata when it is made, by what was written down of it later.
func (r *Resumable) target(q *http.Request) (bucket, key string, err error) {
	var meta handler.MetaData
	if id := strings.Trim(strings.TrimPrefix(q.URL.Path, r.base), "/"); id == "" {
		meta = handler.ParseMetadataHeader(q.Header.Get("Upload-Metadata"))
	} else if !fileSafe(id) {
		return "", "", ErrNoSuchUpload
	} else {
		info, _, err := r.info(id)
		if err != nil {
			return "", "", err
		}
		meta = info.MetaData
	}
	bucket, key = meta["bucket"], meta["filename"]
	if err := errors.Join(checkBucketName(bucket), checkKey(key)); err != nil {
		var refusal *Refusal
		if errors.As(err, &refusal) {
			return "", "", refusal
		}
		return "", "", err
	}
	return bucket, key, r.store.HasBucket(bucket)
}

// finish makes an object of an upload, once.
func (r *Resumable) finish(ctx context.Context, info handler.FileInfo) error {
	path := filepath.Join(r.dir, info.ID)
	if _, err := os.Stat(path + doneSuffix); err == nil {
		return nil // another request has
	}
	err := r.store.take(ctx, info.MetaData["bucket"], info.MetaData["filename"], path, info.Size)
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return handler.NewError("ERR_"+refusal.Code, refusal.Error(), refusal.Status)
	}
	if err != nil {
		r.log.Error("resumable upload", "upload", info.ID, "err", err)
		return handler.NewError("ERR_INTERNAL", "the upload could not be stored; finish it again", http.StatusInternalServerError)
	}
	// The note first: a file without one is no upload, and goes at the next start.
	if err := os.Rename(path+infoSuffix, path+doneSuffix); err != nil {
		return err
	}
	now := time.Now() // from which its week is counted
	return errors.Join(os.Chtimes(path+doneSuffix, now, now), os.Remove(path))
}

// take makes a finished file an object, by a second name of it.
func (s *Store) take(ctx context.Context, bucketName, key, file string, size int64) error {
	b, err := s.ready(bucketName, key, condition{})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h := md5.New() // S3's ETag is an MD5
	n, err := io.Copy(h, readerOf(ctx, f))
	if err != nil {
		return err
	}
	if n != size {
		return ErrIncompleteBody
	}
	if err := f.Sync(); err != nil {
		return err
	}
	o := &object{Key: key, Data: s.newID()}
	o.Size, o.ETag = size, hex.EncodeToString(h.Sum(nil))
	name := b.path(dataDir, o.Data)
	if err := os.Link(file, filepath.Join(s.dir, filepath.FromSlash(name))); err != nil {
		return s.gone(err)
	}
	if err := s.syncDir(b.path(dataDir)); err != nil {
		return errors.Join(err, s.discard(name))
	}
	if err := s.commit(b, o, condition{}); err != nil {
		if late := (*committedError)(nil); errors.As(err, &late) {
			return err
		}
		return errors.Join(err, s.discard(name))
	}
	return nil
}

// readerOf is a reader that ends with ctx.
func readerOf(ctx context.Context, r io.Reader) io.Reader {
	return contextReader(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

type contextReader func(p []byte) (int, error)

func (f contextReader) Read(p []byte) (int, error) { return f(p) }
