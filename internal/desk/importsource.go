package desk

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/uptrace/bun"

	"berth/internal/s3"
)

// importSource is one file that an import reads: a DiskContainer of its request.
type importSource struct {
	bun.BaseModel `bun:"table:import_sources"`
	TaskID        string `bun:"task_id,pk"`
	Number        int    `bun:"number,pk"`     // from 1, as in the request
	URL           string `bun:"url"`           // as given; "" when a bucket or a snapshot was
	Bucket        string `bun:"bucket"`        // of an upload to S3
	Key           string `bun:"object_key"`    //
	FromSnapshot  string `bun:"from_snapshot"` // the id of the snapshot that it is
	Description   string `bun:"description"`
	DeviceName    string `bun:"device_name"` // where the caller wants it
	Format        string `bun:"format"`      // what the caller said, upper case, or ""
	FileBytes     int64  `bun:"file_bytes"`  // once it is known
	ETag          string `bun:"etag"`        // of what was found first: nothing else is taken for it later
	RoomBytes     int64  `bun:"room_bytes"`  // what the file may take here, from before it is fetched until the task is over
}

// importFormats are the formats that a caller may name. OVF and QCOW2 are ours; the rest are VM Import's.
var importFormats = []string{"OVA", "VMDK", "VHD", "VHDX", "RAW", "OVF", "QCOW2"}

// maxSources is how many files one import may have: a VMDK that was split into extents of 2 GiB, as VMware does it, for a
// disk of 1 TiB.
const maxSources = 512

// newSource is what a DiskContainer asks for.
func (d *Desk) newSource(ctx context.Context, number int, c *DiskContainer) (importSource, error) {
	s := importSource{Number: number, Description: aws.ToString(c.Description), DeviceName: aws.ToString(c.DeviceName), Format: strings.ToUpper(aws.ToString(c.Format))}
	if s.Format != "" && !slices.Contains(importFormats, s.Format) {
		return s, refused("InvalidParameter", "disk-image-format %s is not supported: give one of %s.", aws.ToString(c.Format), strings.Join(importFormats, ", "))
	}
	given := 0
	for _, is := range []bool{c.URL != nil, c.UserBucket != nil, c.SnapshotID != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return s, refused("InvalidParameter", "A DiskContainer needs one of Url, UserBucket and SnapshotId.")
	}
	switch {
	case c.SnapshotID != nil:
		s.FromSnapshot = *c.SnapshotID
		if ok, err := d.snapshotExists(ctx, s.FromSnapshot); err != nil {
			return s, err
		} else if !ok {
			return s, noSnapshot(s.FromSnapshot)
		}
		return s, nil
	case c.UserBucket != nil:
		s.Bucket, s.Key = aws.ToString(c.UserBucket.S3Bucket), aws.ToString(c.UserBucket.S3Key)
	default:
		s.URL = *c.URL
		if object, ok := strings.CutPrefix(s.URL, "s3://"); ok { // no URL by its rules: a key stands as it is, with % and ? and #
			s.Bucket, s.Key, _ = strings.Cut(object, "/")
			break
		}
		u, err := url.Parse(s.URL)
		if err == nil && d.place(u.Scheme) != nil {
			if err := d.place(u.Scheme).Check(s.URL); err != nil {
				return s, refused("InvalidParameter", "Url %s is not supported: %s.", s.URL, err)
			}
			return s, nil
		}
		return s, refused("InvalidParameter", "Url %s is not supported: give %s.", s.URL, d.schemes())
	}
	if s.Bucket == "" || s.Key == "" {
		return s, refused("InvalidParameter", "The disk's S3 bucket and key must both be given.")
	}
	return s, nil
}

// place is where URLs of a scheme are fetched from; nil when they are not.
func (d *Desk) place(scheme string) s3.Place {
	switch {
	case scheme == "https" && d.cfg.Web != nil:
		return d.cfg.Web
	case scheme == "file" && d.cfg.Folder != nil:
		return d.cfg.Folder
	}
	return nil
}

// schemes lists the kinds of URLs that are taken.
func (d *Desk) schemes() string {
	out := "s3://bucket/key"
	if d.cfg.Web != nil {
		out += ", https://host/path"
	}
	if d.cfg.Folder != nil {
		out += ", file:///path in the import folder"
	}
	return out
}

// String names where the file comes from, for people: without a URL's query, which is the key to a file in a URL that was signed.
func (s *importSource) String() string {
	switch {
	case s.FromSnapshot != "":
		return s.FromSnapshot
	case s.Bucket != "":
		return "s3://" + s.Bucket + "/" + s.Key
	default:
		bare, _, _ := strings.Cut(s.URL, "?")
		return bare
	}
}

// name is the bare name by which a descriptor beside it would call the file; "" when it has none.
func (s *importSource) name() string {
	name := s.Key
	if s.Bucket == "" && s.URL != "" {
		if u, err := url.Parse(s.URL); err == nil {
			name = u.Path
		}
	}
	if name = path.Base(name); name == "." || name == "/" {
		return ""
	}
	return name
}

// userBucket is the source in the shape that EC2 shows it in; nil for one that is in no bucket.
func (s *importSource) userBucket() *UserBucket {
	if s.Bucket == "" {
		return nil
	}
	return &UserBucket{S3Bucket: aws.String(s.Bucket), S3Key: aws.String(s.Key)}
}

// stat looks at the file where it comes from.
func (d *Desk) stat(ctx context.Context, s *importSource) (s3.Info, error) {
	if s.Bucket != "" {
		return d.cfg.Objects.Stat(ctx, s.Bucket, s.Key)
	}
	p, err := d.placeOf(s)
	if err != nil {
		return s3.Info{}, err
	}
	return p.Stat(ctx, s.URL)
}

// fetch puts the file at dst, whole or not at all.
func (d *Desk) fetch(ctx context.Context, s *importSource, dst string, progress func(done, total int64)) error {
	if s.Bucket != "" {
		return d.cfg.Objects.Stage(ctx, s.Bucket, s.Key, dst, progress)
	}
	p, err := d.placeOf(s)
	if err != nil {
		return err
	}
	return p.Stage(ctx, s.URL, dst, progress)
}

// placeOf is where a source with a URL is fetched from. The service may have been started again without it.
func (d *Desk) placeOf(s *importSource) (s3.Place, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	p := d.place(u.Scheme)
	if p == nil {
		return nil, &failure{Code: "ClientError", Message: "ClientError: Disk validation failed [" + s.String() + " is not supported any more: give " + d.schemes() + "]"}
	}
	return p, nil
}
