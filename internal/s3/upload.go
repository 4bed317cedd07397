package s3

import (
	"bytes"
	"context"
	"crypto/md5" // S3's ETag is an MD5
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// upload is a multipart upload. On disk it is a folder:
//
//	upload.json     key, headers, checksum algorithm: written once
//	parts.log       a line of JSON for each part, flushed before the part is answered with success; the last one of a number counts
//	even-SIZE       the parts of SIZE bytes, number n at offset (n-1)·SIZE; holes where there is none
//	part-ID         a part that has no room there
//
// Clients cut a file into parts of one size and a rest, so when an upload is completed, even-SIZE already is the object, but for the
// rest: that is copied to the end, the file is cut to length and gets a second name in the data folder. 20 GiB are completed without
// moving more than one part and without taking the disk space twice. Any other choice of parts is copied together.
//
// A place in an even file that a recorded part lies in is not written to before another record for the part's number is on disk.
type upload struct {
	ID        string
	Key       string
	Initiated time.Time
	Header    map[string]string `json:",omitempty"`
	Algorithm Algorithm         `json:",omitempty"`
	Type      string            `json:",omitempty"` // fullObject or composite; "" without an algorithm

	dir string // of the store's root
	// mu guards what follows. Every write to a part's file holds it for reading, so that whoever holds it for writing and sets closed
	// knows that no byte will change any more.
	mu      sync.RWMutex
	closed  bool
	parts   map[int]part
	claimed map[string]bool // places in even files that are being written to or that a record names
}

// part is a part's record.
type part struct {
	Number   int       `json:"number"`
	Size     int64     `json:"size"`
	ETag     string    `json:"etag"`
	Modified time.Time `json:"modified"`
	File     string    `json:"file"`
	Offset   int64     `json:"offset,omitempty"`
	Checksum Checksum  `json:"checksum,omitzero"`
}

const (
	evenPrefix = "even-"
	lonePrefix = "part-"
)

// place is what claimed is keyed by.
func (p part) place() string { return p.File + "@" + strconv.FormatInt(p.Offset, 10) }

// end makes every running and future use of the upload fail.
func (u *upload) end() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
}

func (u *upload) path(name string) string { return u.dir + "/" + name }

// createUpload starts a multipart upload.
func (s *Store) createUpload(bucketName, key string, header map[string]string, a Algorithm, kind string) (*upload, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	u := &upload{ID: s.newID(), Key: key, Initiated: s.now().UTC(), Header: header, Algorithm: a, Type: kind,
		parts: map[int]part{}, claimed: map[string]bool{}}
	b, err := s.ready(bucketName, key, condition{})
	if err != nil {
		return nil, err
	}
	u.dir = trashDir + "/" + u.ID // until it is complete
	if err := s.root.Mkdir(u.dir, 0o700); err != nil {
		return nil, err
	}
	if err := errors.Join(s.writeJSON(u.path(uploadRecord), u), s.syncDir(u.dir)); err != nil {
		return nil, errors.Join(err, s.root.RemoveAll(u.dir))
	}
	made := u.dir
	u.dir = b.path(uploadsDir, u.ID)
	if err := s.root.Rename(made, u.dir); err != nil {
		return nil, errors.Join(s.gone(err), s.root.RemoveAll(made))
	}
	if err := s.syncDir(b.path(uploadsDir)); err != nil {
		return nil, errors.Join(s.gone(err), s.root.RemoveAll(u.dir))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if here, err := s.bucket(bucketName); err != nil || here != b {
		return nil, errors.Join(ErrNoSuchBucket.about(bucketName), s.root.RemoveAll(u.dir))
	}
	b.uploads[u.ID] = u
	return u, nil
}

// upload finds an upload. The key must be the one that it was started for.
func (s *Store) upload(bucketName, key, id string) (*bucket, *upload, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, err := s.bucket(bucketName)
	if err != nil {
		return nil, nil, err
	}
	u := b.uploads[id]
	if u == nil || u.Key != key {
		return b, nil, ErrNoSuchUpload.about(id)
	}
	return b, u, nil
}

// putPart stores a part. When it returns nil, the part is on disk.
func (s *Store) putPart(ctx context.Context, bucketName, key, id string, number int, in body) (part, error) {
	if number < 1 || number > MaxParts {
		return part{}, ErrInvalidArgument.saying("Part number must be an integer between 1 and 10000, inclusive").about("partNumber")
	}
	if in.size > MaxPutBytes {
		return part{}, ErrEntityTooLarge
	}
	_, u, err := s.upload(bucketName, key, id)
	if err != nil {
		return part{}, err
	}
	if in.algorithm != "" && u.Algorithm != "" && in.algorithm != u.Algorithm {
		return part{}, ErrInvalidRequest.saying("Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s",
			strings.ToLower(string(u.Algorithm)), strings.ToLower(string(in.algorithm)))
	}
	if in.algorithm == "" {
		in.algorithm = u.Algorithm
	}
	p, err := u.claim(number, in.size, s.newID)
	if err != nil {
		return part{}, err
	}
	if err := s.writePart(ctx, u, &p, in); err != nil {
		u.mu.Lock()
		delete(u.claimed, p.place())
		u.mu.Unlock()
		if strings.HasPrefix(p.File, lonePrefix) {
			err = errors.Join(err, s.discard(u.path(p.File)))
		}
		return part{}, err
	}
	// If this fails, the record may be on disk all the same: the place stays claimed.
	return p, s.recordPart(u, p)
}

// claim finds the place for a part: its own in the even file of its size, or else a file of its own.
func (u *upload) claim(number int, size int64, newID func() string) (part, error) {
	p := part{Number: number, Size: size, File: evenPrefix + strconv.FormatInt(size, 10), Offset: int64(number-1) * size}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return part{}, ErrNoSuchUpload.about(u.ID)
	}
	// An even file grows to number·size. Beyond an object's greatest size it would be of no use, and more than file systems allow.
	if size == 0 || p.Offset+size > MaxObjectBytes || u.claimed[p.place()] {
		p.File, p.Offset = lonePrefix+newID(), 0
	}
	u.claimed[p.place()] = true
	return p, nil
}

func (s *Store) writePart(ctx context.Context, u *upload, p *part, in body) error {
	f, err := s.root.OpenFile(u.path(p.File), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return u.gone(err)
	}
	defer f.Close()
	at := p.Offset
	got, err := receive(ctx, in, func(b []byte) error {
		u.mu.RLock()
		defer u.mu.RUnlock()
		if u.closed {
			return ErrNoSuchUpload.about(u.ID)
		}
		n, err := f.WriteAt(b, at)
		at += int64(n)
		return err
	})
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	p.ETag, p.Modified = hex.EncodeToString(got.md5), s.now().UTC()
	if in.algorithm != "" {
		p.Checksum = Checksum{Algorithm: in.algorithm, Value: got.checksum}
	}
	return nil
}

// recordPart makes a part the upload's part of that number.
func (s *Store) recordPart(u *upload, p part) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return ErrNoSuchUpload.about(u.ID)
	}
	if err := s.appendLog(u, p); err != nil {
		return err
	}
	old, replaced := u.parts[p.Number]
	u.parts[p.Number] = p
	if replaced {
		delete(u.claimed, old.place())
		if strings.HasPrefix(old.File, lonePrefix) {
			if err := s.discard(u.path(old.File)); err != nil {
				s.log.Warn("a replaced part stays until its upload ends", "upload", u.ID, "part", p.Number, "error", err)
			}
		}
	}
	return nil
}

// appendLog writes records of parts, flushed to disk. A record without a file takes its part back. The caller holds mu.
func (s *Store) appendLog(u *upload, parts ...part) error {
	lines := []byte("\n") // closes a line that an earlier failure has left unfinished
	for _, p := range parts {
		line, err := json.Marshal(p)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	f, err := s.root.OpenFile(u.path(partsLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return u.gone(err)
	}
	defer f.Close()
	if _, err := f.Write(lines); err != nil {
		return err
	}
	return errors.Join(f.Sync(), s.syncDir(u.dir))
}

// gone turns a missing folder into NoSuchUpload: the upload was aborted under a running request.
func (u *upload) gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return ErrNoSuchUpload.about(u.ID)
	}
	return err
}

// abort gives up an upload and its parts.
func (s *Store) abort(bucketName, key, id string) error {
	b, u, err := s.upload(bucketName, key, id)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed { // completed or aborted meanwhile
		return ErrNoSuchUpload.about(id)
	}
	u.closed = true
	return s.forget(b, u)
}

// forget removes a closed upload.
func (s *Store) forget(b *bucket, u *upload) error {
	s.mu.Lock()
	delete(b.uploads, u.ID)
	s.mu.Unlock()
	tmp := trashDir + "/" + s.newID()
	if err := s.root.Rename(u.dir, tmp); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil // with its bucket
		}
		return err
	}
	return errors.Join(s.syncDir(b.path(uploadsDir)), s.root.RemoveAll(tmp))
}

// uploads lists a bucket's unfinished uploads by key, then by start.
func (s *Store) uploads(bucketName string) ([]*upload, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, err := s.bucket(bucketName)
	if err != nil {
		return nil, err
	}
	out := make([]*upload, 0, len(b.uploads))
	for _, u := range b.uploads {
		out = append(out, u)
	}
	slices.SortFunc(out, func(x, y *upload) int {
		if c := strings.Compare(x.Key, y.Key); c != 0 {
			return c
		}
		if c := x.Initiated.Compare(y.Initiated); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return out, nil
}

// listParts lists an upload's parts by number.
func (s *Store) listParts(bucketName, key, id string) (*upload, []part, error) {
	_, u, err := s.upload(bucketName, key, id)
	if err != nil {
		return nil, nil, err
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	if u.closed {
		return nil, nil, ErrNoSuchUpload.about(id)
	}
	out := make([]part, 0, len(u.parts))
	for _, p := range u.parts {
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y part) int { return x.Number - y.Number })
	return u, out, nil
}

// loadUploads reads a bucket's unfinished uploads. Those that an object has come from are finished: the crash was between the object's
// record and the removal of the upload, whose even file is the object's content now and must not be written to again.
func (s *Store) loadUploads(b *bucket, finished map[string]bool) error {
	entries, err := s.readDir(b.path(uploadsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := b.path(uploadsDir, e.Name())
		u, err := s.loadUpload(dir)
		if finished[e.Name()] {
			if err := s.root.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		if err == nil && u.ID != e.Name() {
			err = fmt.Errorf("it is the record of another upload, %q", u.ID)
		}
		if err != nil {
			s.log.Error("a multipart upload cannot be read; it is left out and stays on disk", "bucket", b.name, "upload", e.Name(), "error", err)
			continue
		}
		b.uploads[u.ID] = u
	}
	return nil
}

func (s *Store) loadUpload(dir string) (*upload, error) {
	u := &upload{dir: dir, parts: map[int]part{}, claimed: map[string]bool{}}
	if err := s.readJSON(u.path(uploadRecord), u); err != nil {
		return nil, err
	}
	log, err := s.root.ReadFile(u.path(partsLog))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	files, err := s.readDir(dir)
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, f := range files {
		fi, err := f.Info()
		if err != nil {
			return nil, err
		}
		sizes[f.Name()] = fi.Size()
	}
	for line := range bytes.SplitSeq(log, []byte("\n")) {
		var p part
		// A line that does not parse was cut short by a crash and never answered.
		if len(line) == 0 || json.Unmarshal(line, &p) != nil || p.Number < 1 || p.Number > MaxParts {
			continue
		}
		u.parts[p.Number] = p
		if p.File == "" {
			delete(u.parts, p.Number)
		}
	}
	for n, p := range u.parts {
		if have, ok := sizes[p.File]; !ok || p.Size < 0 || p.Offset < 0 || have-p.Offset < p.Size {
			s.log.Error("a part is not where its record says; it is left out", "upload", u.ID, "part", n, "file", p.File, "bytes", have)
			delete(u.parts, n)
			continue
		}
		u.claimed[p.place()] = true
	}
	for name := range sizes {
		if strings.HasPrefix(name, lonePrefix) && !u.claimed[name+"@0"] {
			if err := s.root.Remove(u.path(name)); err != nil {
				return nil, err
			}
		}
	}
	return u, nil
}

// decodeMD5 reads a Content-MD5 header.
func decodeMD5(value string) ([]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(value)
	if err != nil || len(raw) != md5.Size {
		return nil, ErrInvalidDigest
	}
	return raw, nil
}
