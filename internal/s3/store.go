package s3

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Names on disk. See Store for the layout.
const (
	recordSuffix = ".json"
	tempSuffix   = ".tmp"
	bucketRecord = "bucket.json"
	uploadRecord = "upload.json"
	partsLog     = "parts.log"
	bucketsDir   = "buckets"
	trashDir     = "trash"
	objectsDir   = "objects"
	dataDir      = "data"
	uploadsDir   = "uploads"
	lockFile     = "lock"
)

// Store keeps buckets and their objects in one directory, for one process at a time.
//
//	DIR/lock                               held while the store is open
//	DIR/trash/                             what is being removed or not yet complete; emptied by Open
//	DIR/buckets/NAME/bucket.json           when it was made
//	DIR/buckets/NAME/objects/SHA256.json   the record of an object; the file's name is the SHA-256 of its key
//	DIR/buckets/NAME/data/ID               an object's content, never written to again once a record names it
//	DIR/buckets/NAME/uploads/ID/           an unfinished multipart upload, see upload.go
//
// A record is the only thing that makes an object exist. It is written to a temporary file and renamed, after the content has been
// flushed to disk, so whatever is killed, whenever, an object is there whole (and answered as such) or as it was before.
// Open removes content that no record names. All records are in memory as well: some 500 bytes for each object.
type Store struct {
	dir   string
	root  *os.Root
	lock  *os.File
	now   func() time.Time
	newID func() string
	log   *slog.Logger

	reserved []string // names that are not given

	mu      sync.RWMutex // guards buckets and everything in a bucket; never held while a body is read
	buckets map[string]*bucket
	closed  bool
}

// StoreOptions are what a Store needs. Only Dir is required.
type StoreOptions struct {
	Dir   string           // made if it is not there
	Now   func() time.Time // time.Now when nil
	NewID func() string    // unique for ever, letters, digits, - and _ only; random when nil
	Log   *slog.Logger     // discarded when nil
	// Reserved are names that no bucket can be given from now on: another endpoint has buckets of these names ([Buckets]).
	Reserved []string
}

// bucket is a bucket in memory.
type bucket struct {
	name    string
	created time.Time
	objects map[string]*object // by key
	keys    []string           // the same keys, sorted
	uploads map[string]*upload // by upload id
	damaged bool               // a record could not be read: content that no record names is kept
}

// Bucket is what one sees of a bucket.
type Bucket struct {
	Name    string
	Created time.Time
}

// Open opens the store in a directory and puts right what a crash has left: unfinished writes are removed, unfinished multipart
// uploads stay. A record that cannot be read is logged, and its object is absent, but nothing in that bucket is removed then.
func Open(o StoreOptions) (*Store, error) {
	s := &Store{dir: o.Dir, now: o.Now, newID: o.NewID, log: o.Log, reserved: o.Reserved, buckets: map[string]*bucket{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.newID == nil {
		s.newID = rand.Text
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("s3 store: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("s3 store: %w", err)
	}
	if s.root, err = os.OpenRoot(s.dir); err != nil {
		return nil, fmt.Errorf("s3 store: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("s3 store %s: %w", s.dir, err), s.Close())
	}
	return s, nil
}

// Close lets go of the directory. It waits for nothing: a request that is still running ends with an error and stores nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.root.Close()
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

func (s *Store) load() error {
	var err error
	if s.lock, err = s.root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process has it open: %w", err)
	}
	if err := s.root.RemoveAll(trashDir); err != nil {
		return err
	}
	for _, d := range []string{trashDir, bucketsDir} {
		if err := s.root.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	entries, err := s.readDir(bucketsDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := s.loadBucket(e.Name())
		if err != nil {
			return fmt.Errorf("bucket %s: %w", e.Name(), err)
		}
		s.buckets[b.name] = b
	}
	return nil
}

func (s *Store) loadBucket(name string) (*bucket, error) {
	if err := checkBucketName(name); err != nil {
		return nil, err
	}
	b := newBucket(name)
	var rec struct{ Created time.Time }
	if err := s.readJSON(b.path(bucketRecord), &rec); err != nil {
		return nil, err
	}
	b.created = rec.Created
	named, finished, err := s.loadObjects(b)
	if err != nil {
		return nil, err
	}
	if err := s.loadUploads(b, finished); err != nil {
		return nil, err
	}
	if b.damaged {
		return b, nil
	}
	files, err := s.readDir(b.path(dataDir))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if named[f.Name()] {
			continue
		}
		s.log.Info("removing the content of an upload that did not finish", "bucket", name, "file", f.Name())
		if err := s.root.Remove(b.path(dataDir, f.Name())); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// loadObjects reads a bucket's records. It returns the content files that they name, and the multipart uploads that they came from.
func (s *Store) loadObjects(b *bucket) (named, finished map[string]bool, err error) {
	named, finished = map[string]bool{}, map[string]bool{}
	entries, err := s.readDir(b.path(objectsDir))
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), tempSuffix) {
			if err := s.root.Remove(b.path(objectsDir, e.Name())); err != nil {
				return nil, nil, err
			}
			continue
		}
		o, err := s.loadObject(b, e.Name())
		if err != nil {
			s.log.Error("the record of an object cannot be used; the object is left out and nothing is removed from its bucket",
				"bucket", b.name, "record", e.Name(), "error", err)
			b.damaged = true
			continue
		}
		b.objects[o.Key] = o
		b.keys = append(b.keys, o.Key)
		named[o.Data] = true
		if o.Upload != "" {
			finished[o.Upload] = true
		}
	}
	slices.Sort(b.keys)
	return named, finished, nil
}

func (s *Store) loadObject(b *bucket, file string) (*object, error) {
	o := &object{}
	if err := s.readJSON(b.path(objectsDir, file), o); err != nil {
		return nil, err
	}
	if recordName(o.Key) != file {
		return nil, fmt.Errorf("it is the record of another key, %q", o.Key)
	}
	if !fileSafe(o.Data) {
		return nil, fmt.Errorf("data: %q is no file name", o.Data)
	}
	fi, err := s.root.Stat(b.path(dataDir, o.Data))
	if err != nil {
		return nil, err
	}
	if fi.Size() != o.Size {
		return nil, fmt.Errorf("size: the content has %d bytes, the record says %d", fi.Size(), o.Size)
	}
	return o, nil
}

func newBucket(name string) *bucket {
	return &bucket{name: name, objects: map[string]*object{}, uploads: map[string]*upload{}}
}

func (b *bucket) path(elem ...string) string {
	return path.Join(append([]string{bucketsDir, b.name}, elem...)...)
}

// Buckets lists all buckets by name.
func (s *Store) Buckets() []Bucket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]Bucket, 0, len(s.buckets))
	for _, b := range s.buckets {
		out = append(out, Bucket{b.name, b.created})
	}
	slices.SortFunc(out, func(x, y Bucket) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// CreateBucket makes a bucket. A bucket that exists is refused with BucketAlreadyOwnedByYou, a reserved name with BucketAlreadyExists.
func (s *Store) CreateBucket(name string) error {
	if err := checkBucketName(name); err != nil {
		return err
	}
	b := newBucket(name)
	b.created = s.now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errServiceShuttingDown
	}
	if s.buckets[name] != nil {
		return ErrBucketOwned.about(name)
	}
	if slices.Contains(s.reserved, name) {
		return ErrBucketExists.about(name)
	}
	tmp := path.Join(trashDir, s.newID())
	for _, d := range []string{objectsDir, dataDir, uploadsDir} {
		if err := s.root.MkdirAll(path.Join(tmp, d), 0o700); err != nil {
			return err
		}
	}
	if err := s.writeJSON(path.Join(tmp, bucketRecord), struct{ Created time.Time }{b.created}); err != nil {
		return err
	}
	if err := s.syncDir(tmp); err != nil {
		return err
	}
	if err := s.root.Rename(tmp, b.path()); err != nil {
		return err
	}
	s.buckets[name] = b
	return s.syncDir(bucketsDir)
}

// DeleteBucket removes an empty bucket; its unfinished multipart uploads go with it.
func (s *Store) DeleteBucket(name string) error {
	tmp := path.Join(trashDir, s.newID())
	b, err := func() (*bucket, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, err := s.bucket(name)
		if err != nil {
			return nil, err
		}
		if len(b.objects) > 0 || b.damaged {
			return nil, ErrBucketNotEmpty.about(name)
		}
		if err := s.root.Rename(b.path(), tmp); err != nil {
			return nil, err
		}
		delete(s.buckets, name)
		return b, nil
	}()
	if err != nil {
		return err
	}
	for _, u := range b.uploads {
		u.end() // not under mu, which complete takes while it holds the upload's
	}
	return errors.Join(s.syncDir(bucketsDir), s.root.RemoveAll(tmp))
}

// HasBucket refuses with NoSuchBucket when there is no such bucket.
func (s *Store) HasBucket(name string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, err := s.bucket(name)
	return err
}

// bucket finds a bucket; the caller holds mu.
func (s *Store) bucket(name string) (*bucket, error) {
	if s.closed {
		return nil, errServiceShuttingDown
	}
	if b := s.buckets[name]; b != nil {
		return b, nil
	}
	return nil, ErrNoSuchBucket.about(name)
}

// Stat implements Source.
func (s *Store) Stat(_ context.Context, bucketName, key string) (Info, error) {
	o, err := s.head(bucketName, key)
	if err != nil {
		return Info{}, err
	}
	return o.Info, nil
}

// Shares tells that what is staged from a bucket takes no room of its own, as a rule: it is a hard link.
func (s *Store) Shares(string) bool { return true }

// Stage implements Source: by a hard link, or by a copy where the file system of dst is another one.
func (s *Store) Stage(ctx context.Context, bucketName, key, dst string, progress func(done, total int64)) error {
	o, f, err := s.open(bucketName, key)
	if err != nil {
		return err
	}
	defer f.Close()
	if progress == nil {
		progress = func(int64, int64) {}
	}
	tmp := dst + "." + s.newID() + tempSuffix
	defer os.Remove(tmp) // also after success: rename(2) does nothing when dst already is a link to the same file
	if err := os.Link(filepath.Join(s.dir, bucketsDir, bucketName, dataDir, o.Data), tmp); err != nil {
		// Another file system, one without links, a file with too many of them, or an object that was just replaced: copy what we have open.
		if err := copyTo(ctx, tmp, f, o.Size, progress); err != nil {
			return fmt.Errorf("stage s3://%s/%s: %w", bucketName, key, err)
		}
	}
	if err := os.Rename(tmp, dst); err != nil {
		return fmt.Errorf("stage s3://%s/%s: %w", bucketName, key, err)
	}
	if err := syncFolder(filepath.Dir(dst)); err != nil {
		return fmt.Errorf("stage s3://%s/%s: %w", bucketName, key, err)
	}
	progress(o.Size, o.Size)
	return nil
}

// copyTo copies size bytes to a new file and flushes it.
func copyTo(ctx context.Context, name string, from *os.File, size int64, progress func(done, total int64)) error {
	to, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := copyRange(ctx, to, from, size, progress); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	return to.Close()
}

// copyRange copies n bytes from where the one file stands to where the other stands. The kernel does it (copy_file_range), without copying
// at all on file systems that share blocks (XFS, Btrfs).
func copyRange(ctx context.Context, to, from *os.File, n int64, progress func(done, total int64)) error {
	for done := int64(0); done < n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := io.CopyN(to, from, min(n-done, copyStepBytes))
		done += c
		if err != nil {
			return err
		}
		if progress != nil {
			progress(done, n)
		}
	}
	return nil
}

// readDir lists a folder of the store.
func (s *Store) readDir(name string) ([]fs.DirEntry, error) {
	d, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

func (s *Store) readJSON(name string, v any) error {
	raw, err := s.root.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// writeJSON writes a file, flushed to disk, under its final name.
func (s *Store) writeJSON(name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(raw); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// syncDir makes the entries of a folder of the store survive a power cut.
func (s *Store) syncDir(name string) error {
	return syncFolder(filepath.Join(s.dir, filepath.FromSlash(name)))
}

func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
