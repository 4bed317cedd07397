package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"

	"berth/internal/image"
)

// storedRecord is a disk that is kept, named by what a guest reads of it (image.Digest). Snapshots, images and imports under
// way refer to it; two that have the same content share it, and one that differs by a few clusters is laid over the other.
//
// The row is there when and only when the file is, but for a moment: the file comes first and goes last, and what a crash
// leaves without a row is swept away. Adding, referring to and collecting exclude each other (Desk.storing).
type storedRecord struct {
	bun.BaseModel `bun:"table:stored_images"`
	Digest        string     `bun:"digest,pk"`
	Base          *string    `bun:"base"`
	SizeBytes     int64      `bun:"size_bytes"`  // virtual
	FileBytes     int64      `bun:"file_bytes"`  // that the file takes
	FileDigest    string     `bun:"file_digest"` // SHA-256 of the file
	CreatedAt     time.Time  `bun:"created_at"`
	VerifiedAt    *time.Time `bun:"verified_at"`
	Damage        string     `bun:"damage"` // what the last verification found; "": nothing
}

// storedName is a stored disk's file name.
func storedName(digest string) string { return strings.TrimPrefix(digest, "sha256:") + ".qcow2" }

// storedFile is where a stored disk is: a qcow2 that never changes.
func (d *Desk) storedFile(digest string) string { return d.file("stored", storedName(digest)) }

// stored is a disk with what is under it.
func (d *Desk) stored(ctx context.Context, digest string) (image.Stored, error) {
	r, err := recordOf[storedRecord](ctx, d.db, "stored image", "digest", digest)
	if err != nil {
		return image.Stored{}, err
	}
	s := image.Stored{Path: d.storedFile(digest)}
	if r.Base != nil {
		s.Base = d.storedFile(*r.Base)
	}
	return s, nil
}

// keep makes a finished file a stored disk, unless its content is there already, and refers to it in the same transaction.
// The file itself stays. Repeated, it does nothing more. A disk that is there already is shared if its file is still what it was
// when it was stored; if it is not, or nothing tells, the new file takes its place: importing a damaged disk again mends it.
// Files are read before anybody else has to wait; tell, if there is one, is told how that goes.
func (d *Desk) keep(ctx context.Context, file string, r *storedRecord, tell func(what string, done, size int64) error, refer func(ctx context.Context, tx bun.Tx) error) error {
	var stopped error // by tell
	digest := func(path, what string) (string, error) {
		return image.FileDigest(ctx, path, func(done, size int64) error {
			if tell != nil {
				stopped = tell(what, done, size)
			}
			return stopped
		})
	}
	own, err := digest(file, "checking what was written")
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	r.FileDigest = own
	if r.Base != nil { // of other disks the import has asked before it wrote them
		d.reserving.Lock()
		defer d.reserving.Unlock()
		if err := d.overlayWithinQuota(ctx, file, r.Digest); err != nil {
			return err
		}
	}
	var seen fs.FileInfo // the file that is there already,
	is := ""             // and its digest; "": it cannot be read
	for {
		info, err := os.Stat(d.storedFile(r.Digest))
		switch {
		case errors.Is(err, fs.ErrNotExist) || sameFile(info, seen):
		case err != nil:
			return fmt.Errorf("desk: %w", err)
		default:
			seen = info
			if is, err = digest(d.storedFile(r.Digest), "checking what is stored of the same content"); ctx.Err() != nil || stopped != nil {
				return errors.Join(ctx.Err(), stopped)
			}
			if err != nil {
				is = ""
				d.log.Warn("a stored image cannot be read", "digest", r.Digest, "err", err)
			}
		}
		if placed, err := d.linkStored(ctx, file, r, seen, is, refer); placed || err != nil {
			return err
		}
	}
}

// sameFile tells whether what has been seen of a file is still true of it.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// linkStored is keep's part that excludes others. It does nothing when another file than the one that was seen is there: false.
func (d *Desk) linkStored(ctx context.Context, file string, r *storedRecord, seen fs.FileInfo, is string, refer func(ctx context.Context, tx bun.Tx) error) (bool, error) {
	d.storing.Lock()
	defer d.storing.Unlock()
	stored := d.storedFile(r.Digest)
	shared := false
	switch err := os.Link(file, stored); {
	case errors.Is(err, fs.ErrExist): // the same content, but perhaps not stored in the same way
		if info, err := os.Stat(stored); err != nil {
			return false, fmt.Errorf("desk: %w", err)
		} else if !sameFile(info, seen) {
			return false, nil
		}
		var was storedRecord
		if err := d.db.NewSelect().Model(&was).Where("digest = ?", r.Digest).Scan(ctx); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, fmt.Errorf("desk: %w", err)
		}
		if is != "" && is == was.FileDigest {
			shared = true
			r.FileDigest = is
			break
		}
		if was.Digest != "" {
			d.log.Warn("a stored image was damaged, and is replaced by what is imported now", "digest", r.Digest)
		}
		next := stored + ".new" // swept away by collect, should a crash leave it
		if err := removeIfThere(next); err != nil {
			return false, err
		}
		if err := errors.Join(os.Link(file, next), os.Rename(next, stored), removeIfThere(next)); err != nil { // a rename of a file to its other name leaves both
			return false, fmt.Errorf("desk: %w", err)
		}
	case err != nil:
		return false, fmt.Errorf("desk: %w", err)
	}
	if err := syncFolder(d.file("stored")); err != nil {
		return false, err
	}
	var err error
	if r.FileBytes, err = image.FileBytes(stored); err != nil {
		return false, fmt.Errorf("desk: %w", err)
	}
	r.CreatedAt = d.now()
	return true, d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if fresh, err := insertNew(ctx, tx, r, "digest"); err != nil {
			return err
		} else if !fresh && !shared {
			if _, err := tx.NewUpdate().Model(r).Column("file_bytes", "file_digest", "damage").WherePK().Exec(ctx); err != nil {
				return fmt.Errorf("desk: %w", err)
			}
		}
		return refer(ctx, tx)
	})
}

// references are the digests that something refers to.
const references = `SELECT digest FROM snapshots WHERE digest IS NOT NULL UNION SELECT digest FROM workspace_images WHERE digest IS NOT NULL
 UNION SELECT digest FROM import_disks WHERE digest IS NOT NULL UNION SELECT base FROM stored_images WHERE base IS NOT NULL`

// collected is what collect removed: disks, and files that were no stored disk's, by name.
type collected struct {
	disks []storedRecord
	files []string
}

// collect removes the stored disks that nothing refers to, and files that are no stored disk's. Folders are not the service's,
// and whoever made them has what is in them.
func (d *Desk) collect(ctx context.Context) (gone collected, err error) {
	d.storing.Lock()
	defer d.storing.Unlock()
	for { // removing one may let go of the one under it
		var rs []storedRecord
		if err := d.db.NewDelete().Model(&rs).Where("digest NOT IN (" + references + ")").Returning("*").Scan(ctx); err != nil {
			return gone, fmt.Errorf("desk: %w", err)
		}
		if len(rs) == 0 {
			break
		}
		gone.disks = append(gone.disks, rs...)
	}
	var digests []string
	if err := d.db.NewSelect().Model((*storedRecord)(nil)).Column("digest").Scan(ctx, &digests); err != nil {
		return gone, fmt.Errorf("desk: %w", err)
	}
	known, was := map[string]bool{}, map[string]bool{}
	for _, x := range digests {
		known[storedName(x)] = true
	}
	for _, r := range gone.disks {
		was[storedName(r.Digest)] = true
	}
	files, err := os.ReadDir(d.file("stored"))
	if err != nil {
		return gone, fmt.Errorf("desk: %w", err)
	}
	for _, f := range files {
		if known[f.Name()] || f.IsDir() {
			continue
		}
		if err := removeIfThere(d.file("stored", f.Name())); err != nil {
			return gone, err
		}
		if !was[f.Name()] {
			gone.files = append(gone.files, f.Name())
			d.log.Warn("a file among the stored images was none, and has been removed", "name", f.Name())
		}
	}
	return gone, nil
}

// adopt takes over the disks of a data folder of before there were digests: a file for each snapshot and each image.
func (d *Desk) adopt(ctx context.Context) error {
	for _, kind := range []struct{ dir, table string }{{"snapshots", "snapshots"}, {"images", "workspace_images"}} {
		var rs []struct {
			ID        string
			SizeBytes int64
		}
		q := d.db.NewSelect().Table(kind.table).Column("id", "size_bytes").Where("digest IS NULL")
		if kind.table == "workspace_images" {
			q.Where("state = ?", imageAvailable)
		}
		if err := q.Scan(ctx, &rs); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		for _, r := range rs {
			path := d.file(kind.dir, r.ID+".qcow2")
			digest, err := image.DigestFile(ctx, path, nil)
			if err != nil {
				return fmt.Errorf("desk: taking over %s: %w", path, err)
			}
			err = d.keep(ctx, path, &storedRecord{Digest: digest, SizeBytes: r.SizeBytes}, nil, func(ctx context.Context, tx bun.Tx) error {
				_, err := tx.NewUpdate().Table(kind.table).Set("digest = ?", digest).Where("id = ?", r.ID).Exec(ctx)
				return err
			})
			if err != nil {
				return err
			}
			d.log.Info("a disk has been taken over", "from", path, "digest", digest)
		}
		if err := os.RemoveAll(d.file(kind.dir)); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
	}
	return nil
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	return nil
}

// StoredImage is a stored disk as it is listed.
type StoredImage struct {
	Digest     *string    // "sha256:…", of what a guest reads
	Base       *string    // the digest of the one that it is laid over
	SizeBytes  int64      // virtual
	FileBytes  int64      // that it takes here
	References []string   // ids of the snapshots, images and import tasks that it is there for, and digests of those laid over it
	Fixes      []string   // what was mended on the way to the images that it is: the check's code and each step
	CreatedAt  *time.Time //
	VerifiedAt *time.Time // when it was last read whole
	Damage     *string    // what was found then
}

// ListStoredImagesInput asks for all.
type ListStoredImagesInput struct{}

// ListStoredImagesOutput lists them, newest first, with the sum of what they take and what may be taken (0: no quota).
type ListStoredImagesOutput struct {
	StoredImages []StoredImage
	FileBytes    int64
	QuotaBytes   int64
}

// ListStoredImages lists the disks that are kept.
func (b *Berth) ListStoredImages(ctx context.Context, _ *ListStoredImagesInput) (*ListStoredImagesOutput, error) {
	d := b.d
	var rs []storedRecord
	if err := d.db.NewSelect().Model(&rs).Order("created_at DESC", "digest").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	users := map[string][]string{}
	for _, q := range []string{"SELECT digest, id FROM snapshots WHERE digest IS NOT NULL ORDER BY id", "SELECT digest, id FROM workspace_images WHERE digest IS NOT NULL ORDER BY id",
		"SELECT digest, task_id AS id FROM import_disks WHERE digest IS NOT NULL ORDER BY task_id", "SELECT base AS digest, digest AS id FROM stored_images WHERE base IS NOT NULL ORDER BY digest"} {
		var refs []struct{ Digest, ID string }
		if err := d.db.NewRaw(q).Scan(ctx, &refs); err != nil {
			return nil, fmt.Errorf("desk: %w", err)
		}
		for _, x := range refs {
			users[x.Digest] = append(users[x.Digest], x.ID)
		}
	}
	fixes := map[string][]string{}
	var images []workspaceImageRecord
	if err := d.db.NewSelect().Model(&images).Column("digest", "fixes").Where("digest IS NOT NULL").Order("id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	for _, im := range images {
		for _, f := range im.Fixes {
			for _, step := range f.Steps {
				if line := f.Code + ": " + step; !slices.Contains(fixes[*im.Digest], line) {
					fixes[*im.Digest] = append(fixes[*im.Digest], line)
				}
			}
		}
	}
	out := &ListStoredImagesOutput{StoredImages: []StoredImage{}, QuotaBytes: d.cfg.ImageQuota}
	for _, r := range rs {
		out.FileBytes += r.FileBytes
		v := r.view(users[r.Digest])
		v.Fixes = fixes[r.Digest]
		out.StoredImages = append(out.StoredImages, v)
	}
	return out, nil
}

func (r *storedRecord) view(users []string) StoredImage {
	return StoredImage{Digest: aws.String(r.Digest), Base: r.Base, SizeBytes: r.SizeBytes, FileBytes: r.FileBytes, References: slices.Compact(users), CreatedAt: aws.Time(r.CreatedAt),
		VerifiedAt: r.VerifiedAt, Damage: optional(r.Damage)}
}

// VerifyStoredImageInput names one by its digest.
type VerifyStoredImageInput struct{ Digest *string }

// VerifyStoredImageOutput tells what was found.
type VerifyStoredImageOutput struct{ StoredImage StoredImage }

// VerifyStoredImage reads a stored disk whole and holds it against its digest. Damage is mended by importing the disk again.
func (b *Berth) VerifyStoredImage(ctx context.Context, in *VerifyStoredImageInput) (*VerifyStoredImageOutput, error) {
	d := b.d
	var rs []storedRecord
	if err := d.db.NewSelect().Model(&rs).Where("digest = ?", aws.ToString(in.Digest)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	if len(rs) == 0 {
		return nil, &types.ResourceNotFoundException{Message: aws.String("There is no stored image " + aws.ToString(in.Digest) + "."), ResourceId: in.Digest}
	}
	r := rs[0]
	s, err := d.stored(ctx, r.Digest)
	if err != nil {
		return nil, err
	}
	err = image.Verify(ctx, s, r.Digest, aws.ToString(r.Base), r.FileDigest)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.VerifiedAt, r.Damage = aws.Time(d.now()), ""
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		r.Damage = "its file cannot be read: " + path.Err.Error()
	case err != nil:
		r.Damage = strings.ReplaceAll(err.Error(), filepath.Clean(d.cfg.DataDir), "")
	}
	if r.Damage != "" {
		d.log.Error("a stored image is damaged", "digest", r.Digest, "err", err)
	}
	if _, err := d.db.NewUpdate().Model(&r).Column("verified_at", "damage").WherePK().Exec(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	return &VerifyStoredImageOutput{r.view(nil)}, nil
}

// CollectStoredImagesInput asks for it.
type CollectStoredImagesInput struct{}

// CollectStoredImagesOutput lists what was removed: disks, and the names of files that were no stored disk's.
type CollectStoredImagesOutput struct {
	StoredImages []StoredImage
	Files        []string
}

// CollectStoredImages removes what nothing refers to. The service does so by itself whenever something is deleted.
func (b *Berth) CollectStoredImages(ctx context.Context, _ *CollectStoredImagesInput) (*CollectStoredImagesOutput, error) {
	gone, err := b.d.collect(ctx)
	if err != nil {
		return nil, err
	}
	out := &CollectStoredImagesOutput{StoredImages: []StoredImage{}, Files: gone.files}
	for _, r := range gone.disks {
		out.StoredImages = append(out.StoredImages, r.view(nil))
	}
	return out, nil
}
