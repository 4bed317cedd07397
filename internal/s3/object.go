package s3

import (
	"context"
	"crypto/md5" // S3's ETag is an MD5
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
)

// object is the record of an object. Once it is in the store's map it is never changed, only replaced.
type object struct {
	Key string `json:"key"`
	Info
	Data     string            `json:"data"`               // name of the content file in the bucket's data folder
	Upload   string            `json:"uploadId,omitempty"` // the multipart upload that it came from
	Parts    []int64           `json:"parts,omitempty"`    // sizes of the parts of a multipart upload
	Header   map[string]string `json:"header,omitempty"`   // Content-Type, X-Amz-Meta-...: given back as they came
	Checksum Checksum          `json:"checksum,omitzero"`
}

// body is a payload on its way in.
type body struct {
	r         io.Reader
	size      int64         // bytes, known before the first is read
	md5       []byte        // Content-MD5; nil when the client sent none
	algorithm Algorithm     // the checksum to calculate; "" for none
	want      string        // what it must be, in base64; "" when the client sent none
	trailer   func() string // the checksum that came behind the payload and was compared with it already; nil when none came
}

// sums are what was calculated of a payload.
type sums struct {
	md5      []byte
	checksum string // base64, of body.algorithm
}

// condition is what must hold at the moment in which an object is stored (If-Match, If-None-Match).
type condition struct{ match, noneMatch string }

func (c condition) check(o *object) error {
	if c.noneMatch != "" && o != nil && (c.noneMatch == "*" || sameETag(c.noneMatch, o.ETag)) {
		return ErrPreconditionFailed.about("If-None-Match")
	}
	if c.match != "" && o == nil {
		return ErrNoSuchKey
	}
	if c.match != "" && c.match != "*" && !sameETag(c.match, o.ETag) {
		return ErrPreconditionFailed.about("If-Match")
	}
	return nil
}

// sameETag tells whether one of a header's ETags (a list, each with or without quotes) is the object's.
func sameETag(header, etag string) bool {
	for e := range strings.SplitSeq(header, ",") {
		e = strings.TrimPrefix(strings.TrimSpace(e), "W/")
		if e == "*" || strings.Trim(e, `"`) == etag {
			return true
		}
	}
	return false
}

var buffers = sync.Pool{New: func() any { b := make([]byte, copyBufBytes); return &b }}

// receive takes a payload in and hands it to write piece by piece, in order. When it returns nil, all was there and as announced.
func receive(ctx context.Context, in body, write func(p []byte) error) (sums, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	etag := md5.New() // S3's ETag is an MD5
	var check hash.Hash
	if in.algorithm != "" && in.trailer == nil {
		check = in.algorithm.new()
	}
	for done := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return sums{}, err
		}
		n, err := fill(in.r, *buf)
		if done += int64(n); done > in.size {
			return sums{}, ErrIncompleteBody
		}
		if n > 0 {
			p := (*buf)[:n]
			etag.Write(p)
			if check != nil {
				check.Write(p)
			}
			if err := write(p); err != nil {
				return sums{}, err
			}
		}
		if err == io.EOF { // nothing else is the end of a body: a wrapped io.EOF is a broken connection
			if done != in.size {
				return sums{}, ErrIncompleteBody
			}
			break
		}
		if err != nil {
			return sums{}, err
		}
	}
	out := sums{md5: etag.Sum(nil)}
	if in.md5 != nil && !slices.Equal(in.md5, out.md5) {
		return sums{}, ErrBadDigest
	}
	if in.trailer != nil {
		out.checksum = in.trailer()
	}
	if check != nil {
		out.checksum = base64.StdEncoding.EncodeToString(check.Sum(nil))
		if in.want != "" && in.want != out.checksum {
			return sums{}, in.algorithm.mismatch()
		}
	}
	return out, nil
}

// fill reads until p is full or the reader has an error, io.EOF included: it never makes another error of it, as io.ReadFull does.
func fill(r io.Reader, p []byte) (n int, err error) {
	for idle := 0; n < len(p) && err == nil; {
		var m int
		m, err = r.Read(p[n:])
		n += m
		if m > 0 {
			idle = 0
		} else if idle++; idle > 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// put stores an object. When it returns nil, the object is on disk.
func (s *Store) put(ctx context.Context, bucketName, key string, header map[string]string, in body, c condition) (*object, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if in.size > MaxPutBytes {
		return nil, ErrEntityTooLarge
	}
	b, err := s.ready(bucketName, key, c)
	if err != nil {
		return nil, err
	}
	o := &object{Key: key, Data: s.newID(), Header: header}
	o.Size = in.size
	name := b.path(dataDir, o.Data)
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, s.gone(err)
	}
	defer f.Close()
	got, err := receive(ctx, in, func(p []byte) error { _, err := f.Write(p); return err })
	if err == nil {
		err = errors.Join(f.Sync(), f.Close(), s.syncDir(b.path(dataDir)))
	}
	if err == nil {
		o.ETag = hex.EncodeToString(got.md5)
		if in.algorithm != "" {
			o.Checksum = Checksum{in.algorithm, fullObject, got.checksum}
		}
		err = s.commit(b, o, c)
	}
	if late := (*committedError)(nil); err != nil && !errors.As(err, &late) {
		err = errors.Join(err, s.discard(name))
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// ready finds the bucket, and refuses early what commit would refuse after the whole body.
func (s *Store) ready(bucketName, key string, c condition) (*bucket, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, err := s.bucket(bucketName)
	if err != nil {
		return nil, err
	}
	return b, c.check(b.objects[key])
}

// commit makes an object exist, or take the place of another, by renaming its record into place. The content is on disk already.
func (s *Store) commit(b *bucket, o *object, c condition) error {
	o.Modified = s.now().UTC()
	record := b.path(objectsDir, recordName(o.Key))
	tmp := b.path(objectsDir, s.newID()+tempSuffix)
	if err := s.writeJSON(tmp, o); err != nil {
		return errors.Join(s.gone(err), s.discard(tmp))
	}
	old, err := func() (*object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if here, err := s.bucket(b.name); err != nil || here != b {
			return nil, ErrNoSuchBucket.about(b.name)
		}
		old := b.objects[o.Key]
		if err := c.check(old); err != nil {
			return nil, err
		}
		if err := s.root.Rename(tmp, record); err != nil {
			return nil, err
		}
		if old == nil {
			at, _ := slices.BinarySearch(b.keys, o.Key)
			b.keys = slices.Insert(b.keys, at, o.Key)
		}
		b.objects[o.Key] = o
		return old, nil
	}()
	if err != nil {
		return errors.Join(err, s.discard(tmp))
	}
	// From here on the object is there. A folder that cannot be flushed is still an error: it may not survive a power cut.
	if err := s.syncDir(b.path(objectsDir)); err != nil {
		return &committedError{s.gone(err)}
	}
	if old != nil { // only now, for a power cut before the flush would have brought the old record back
		if err := s.discard(b.path(dataDir, old.Data)); err != nil {
			s.log.Warn("the content of a replaced object stays until the next start", "bucket", b.name, "key", o.Key, "error", err)
		}
	}
	return nil
}

// committedError is a failure after the object's record was put in place: its content must stay.
type committedError struct{ error }

func (e *committedError) Unwrap() error { return e.error }

// discard removes a file that may not be there.
func (s *Store) discard(name string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// gone turns a missing folder into NoSuchBucket: the bucket was removed under a running request.
func (s *Store) gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoSuchBucket
	}
	if errors.Is(err, os.ErrClosed) {
		return errServiceShuttingDown
	}
	return err
}

// head finds an object.
func (s *Store) head(bucketName, key string) (*object, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.object(bucketName, key)
}

// object finds an object; the caller holds mu.
func (s *Store) object(bucketName, key string) (*object, error) {
	b, err := s.bucket(bucketName)
	if err != nil {
		return nil, err
	}
	o := b.objects[key]
	if o == nil {
		return nil, ErrNoSuchKey.about(key)
	}
	return o, nil
}

// open finds an object and opens its content, which stays readable when the object is replaced or deleted.
func (s *Store) open(bucketName, key string) (*object, *os.File, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, err := s.object(bucketName, key)
	if err != nil {
		return nil, nil, err
	}
	f, err := s.root.Open(s.buckets[bucketName].path(dataDir, o.Data))
	if err != nil {
		return nil, nil, fmt.Errorf("the content of %s/%s: %w", bucketName, key, err)
	}
	return o, f, nil
}

// remove deletes an object. One that does not exist is not an error.
func (s *Store) remove(bucketName, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	b, o, err := func() (*bucket, *object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, err := s.bucket(bucketName)
		if err != nil {
			return nil, nil, err
		}
		o := b.objects[key]
		if o == nil {
			return b, nil, nil
		}
		if err := s.root.Remove(b.path(objectsDir, recordName(key))); err != nil {
			return nil, nil, err
		}
		delete(b.objects, key)
		if at, found := slices.BinarySearch(b.keys, key); found {
			b.keys = slices.Delete(b.keys, at, at+1)
		}
		return b, o, nil
	}()
	if err != nil || o == nil {
		return err
	}
	if err := s.syncDir(b.path(objectsDir)); err != nil {
		return s.gone(err)
	}
	return s.discard(b.path(dataDir, o.Data))
}

// copyObject makes an object from another by a second link to its content. header replaces the source's when it is not nil.
func (s *Store) copyObject(srcBucket, srcKey, dstBucket, dstKey string, header map[string]string, source, dest condition) (*object, error) {
	if err := errors.Join(checkKey(srcKey), checkKey(dstKey)); err != nil {
		return nil, err
	}
	name, b, o, err := func() (string, *bucket, *object, error) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		src, err := s.object(srcBucket, srcKey)
		if err != nil {
			return "", nil, nil, err
		}
		if err := source.check(src); err != nil {
			return "", nil, nil, err
		}
		if src.Size > MaxPutBytes {
			return "", nil, nil, ErrInvalidRequest.saying("The specified copy source is larger than the maximum allowable size for a copy source: %d", int64(MaxPutBytes))
		}
		b, err := s.bucket(dstBucket)
		if err != nil {
			return "", nil, nil, err
		}
		o := &object{Key: dstKey, Data: s.newID(), Header: src.Header, Checksum: src.Checksum, Parts: src.Parts}
		o.Size, o.ETag = src.Size, src.ETag
		if header != nil {
			o.Header = header
		}
		name := b.path(dataDir, o.Data)
		// Under the lock, so that the source's content is still there.
		return name, b, o, s.root.Link(s.buckets[srcBucket].path(dataDir, src.Data), name)
	}()
	if err != nil {
		return nil, err
	}
	if err := s.syncDir(b.path(dataDir)); err != nil {
		return nil, errors.Join(err, s.discard(name))
	}
	if err := s.commit(b, o, dest); err != nil {
		if late := (*committedError)(nil); errors.As(err, &late) {
			return nil, err
		}
		return nil, errors.Join(err, s.discard(name))
	}
	return o, nil
}

// cursor is a place in a bucket's keys: behind a key, or behind all keys that begin with it.
type cursor struct {
	key   string
	group bool
}

// listing is one page of a bucket's keys.
type listing struct {
	objects  []*object
	prefixes []string // groups of keys that share what is before the delimiter
	more     bool     // something follows
	next     cursor   // where this page ends
}

// list pages through the keys that begin with prefix, in the order of their bytes. Its work grows with what it returns, not with the bucket.
func (s *Store) list(bucketName, prefix, delimiter string, after cursor, most int) (listing, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, err := s.bucket(bucketName)
	if err != nil {
		return listing{}, err
	}
	out := listing{next: after}
	at := sort.SearchStrings(b.keys, prefix)
	if after.key != "" {
		at = max(at, behind(b.keys, after))
	}
	for most > 0 && at < len(b.keys) && strings.HasPrefix(b.keys[at], prefix) {
		if len(out.objects)+len(out.prefixes) == most {
			out.more = true
			break
		}
		key := b.keys[at]
		if i := strings.Index(key[len(prefix):], delimiter); delimiter != "" && i >= 0 {
			out.next = cursor{key[:len(prefix)+i+len(delimiter)], true}
			out.prefixes = append(out.prefixes, out.next.key)
			at = behind(b.keys, out.next)
			continue
		}
		out.next = cursor{key, false}
		out.objects = append(out.objects, b.objects[key])
		at++
	}
	return out, nil
}

// behind is the index of the first key behind a cursor.
func behind(keys []string, c cursor) int {
	return sort.Search(len(keys), func(i int) bool {
		return keys[i] > c.key && !(c.group && strings.HasPrefix(keys[i], c.key))
	})
}
