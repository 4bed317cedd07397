package s3

import (
	"context"
	"crypto/md5" // S3's ETag is an MD5
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// completed is what the client says of a part when it completes an upload.
type completed struct {
	number   int
	etag     string
	checksum Checksum // zero when it gives none
}

// complete makes an object of an upload's parts. Asked again after success, it gives the same answer, as long as the object is there.
func (s *Store) complete(ctx context.Context, bucketName, key, id string, list []completed, want Checksum, size int64, c condition) (*object, error) {
	b, u, err := s.upload(bucketName, key, id)
	if errors.Is(err, ErrNoSuchUpload) {
		if o, e := s.head(bucketName, key); e == nil && o.Upload == id {
			return o, nil
		}
	}
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		if o, e := s.head(bucketName, key); e == nil && o.Upload == id {
			return o, nil
		}
		return nil, ErrNoSuchUpload.about(id)
	}
	parts, err := u.choose(list)
	if err != nil {
		return nil, err
	}
	o, err := u.object(parts)
	if err != nil {
		return nil, err
	}
	if size >= 0 && size != o.Size {
		return nil, ErrInvalidRequest.saying("The provided 'x-amz-mp-object-size' header value %d does not match what was computed: %d", size, o.Size)
	}
	if want.Algorithm != "" && (want.Algorithm != u.Algorithm || want.Value != o.Checksum.Value) {
		return nil, want.Algorithm.mismatch()
	}
	if _, err := s.ready(bucketName, key, c); err != nil {
		return nil, err
	}
	u.closed = true
	o.Data = s.newID()
	if err := s.assemble(ctx, u, parts, b.path(dataDir, o.Data)); err != nil {
		u.closed = false
		return nil, fmt.Errorf("complete multipart upload %s: %w", u.ID, err)
	}
	err = s.syncDir(b.path(dataDir))
	if err == nil {
		err = s.commit(b, o, c)
	}
	if late := (*committedError)(nil); err != nil && !errors.As(err, &late) {
		u.closed = false
		return nil, errors.Join(err, s.discard(b.path(dataDir, o.Data)))
	}
	if e := s.forget(b, u); e != nil {
		s.log.Warn("a completed upload's folder stays until the next start", "bucket", b.name, "upload", u.ID, "error", e)
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// choose checks the client's list of parts against what was uploaded.
func (u *upload) choose(list []completed) ([]part, error) {
	if len(list) == 0 || len(list) > MaxParts {
		return nil, ErrMalformedXML
	}
	for i, l := range list[1:] {
		if l.number <= list[i].number {
			return nil, ErrInvalidPartOrder
		}
	}
	parts := make([]part, 0, len(list))
	for i, l := range list {
		p, ok := u.parts[l.number]
		if !ok || !sameETag(l.etag, p.ETag) {
			return nil, ErrInvalidPart.about(strconv.Itoa(l.number))
		}
		if l.checksum.Algorithm != "" && l.checksum != p.Checksum {
			return nil, ErrInvalidPart.about(strconv.Itoa(l.number))
		}
		if p.Size < MinPartBytes && i < len(list)-1 {
			return nil, ErrEntityTooSmall.about(strconv.Itoa(l.number))
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// object is the record of the object that the parts make, but for its content.
func (u *upload) object(parts []part) (*object, error) {
	o := &object{Key: u.Key, Upload: u.ID, Header: u.Header}
	etags := md5.New() // S3's ETag is an MD5
	for _, p := range parts {
		raw, err := hex.DecodeString(p.ETag)
		if err != nil {
			return nil, fmt.Errorf("part %d: its ETag %q is not hexadecimal: %w", p.Number, p.ETag, err)
		}
		etags.Write(raw)
		o.Size += p.Size
		o.Parts = append(o.Parts, p.Size)
	}
	if o.Size > MaxObjectBytes {
		return nil, ErrEntityTooLarge
	}
	o.ETag = hex.EncodeToString(etags.Sum(nil)) + "-" + strconv.Itoa(len(parts))
	if u.Algorithm != "" {
		var err error
		if o.Checksum, err = u.Algorithm.combine(u.Type, parts); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// assemble puts the parts together in the file dst and flushes it.
func (s *Store) assemble(ctx context.Context, u *upload, parts []part, dst string) error {
	target, in := dst, ""
	even := isEven(parts)
	if even {
		in = evenPrefix + strconv.FormatInt(parts[0].Size, 10)
		target = u.path(in)
		if err := s.cutOff(u, parts, in); err != nil {
			return err
		}
	}
	to, err := s.root.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	err = s.fillIn(ctx, u, parts, to, in)
	if err == nil {
		err = errors.Join(to.Sync(), to.Close())
	}
	if err == nil && even {
		err = s.root.Link(target, dst)
	}
	if err != nil {
		return errors.Join(err, s.discard(dst))
	}
	return nil
}

// cutOff takes back the parts of an even file that are not wanted, since they lie behind its new end.
func (s *Store) cutOff(u *upload, wanted []part, file string) error {
	var lost []part
	for n, p := range u.parts {
		if p.File == file && n > len(wanted) {
			lost = append(lost, part{Number: n})
		}
	}
	if len(lost) == 0 {
		return nil
	}
	if err := s.appendLog(u, lost...); err != nil {
		return err
	}
	for _, p := range lost {
		delete(u.claimed, u.parts[p.Number].place())
		delete(u.parts, p.Number)
	}
	return nil
}

// isEven tells whether the even file of the first part's size can become the object: consecutive parts of one size, where the last may be
// smaller. Then whatever has to be copied in lands where no part lies that is still wanted: in the place of its own number.
func isEven(parts []part) bool {
	size := parts[0].Size
	for i, p := range parts {
		if p.Number != i+1 || p.Size > size || p.Size < size && i < len(parts)-1 {
			return false
		}
	}
	return true
}

// fillIn copies to a file those parts that are not in it already, each to its place, and cuts it to length.
func (s *Store) fillIn(ctx context.Context, u *upload, parts []part, to *os.File, in string) error {
	at := int64(0)
	for _, p := range parts {
		if p.File != in || p.Offset != at {
			if err := s.copyPart(ctx, u, p, to, at); err != nil {
				return fmt.Errorf("part %d: %w", p.Number, err)
			}
		}
		at += p.Size
	}
	return to.Truncate(at)
}

func (s *Store) copyPart(ctx context.Context, u *upload, p part, to *os.File, at int64) error {
	from, err := s.root.Open(u.path(p.File))
	if err != nil {
		return err
	}
	defer from.Close()
	if _, err := from.Seek(p.Offset, io.SeekStart); err != nil {
		return err
	}
	if _, err := to.Seek(at, io.SeekStart); err != nil {
		return err
	}
	return copyRange(ctx, to, from, p.Size, nil)
}
