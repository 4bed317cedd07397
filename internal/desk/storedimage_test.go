package desk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/uptrace/bun"

	"berth/internal/phony"
)

// Nobody waits while files are read that shall be kept, and what comes in between is right all the same.
func TestKeepingReadsBesideOthers(t *testing.T) {
	for name, needed := range map[string]bool{"a disk that is needed": true, "a disk that goes meanwhile": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			task := f.imported(f.upload(sample(t, phony.Base, "qcow2")))
			snapshot := *task.SnapshotDetails[0].SnapshotID
			digest := f.digest(snapshot)
			was, err := os.Stat(f.storedFile(digest))
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(f.storedFile(digest))
			if err != nil {
				t.Fatal(err)
			}
			again := f.file("imports", "again.qcow2")
			if err := os.WriteFile(again, b, 0o400); err != nil {
				t.Fatal(err)
			}
			if !needed {
				for _, q := range []string{"DELETE FROM machine_images", "DELETE FROM snapshots"} {
					if _, err := f.db.ExecContext(t.Context(), q); err != nil {
						t.Fatal(err)
					}
				}
			}
			var told []string
			tell := func(what string, done, size int64) error {
				if size != int64(len(b)) {
					t.Errorf("%s: %d of %d bytes", what, done, size)
				}
				if told = append(told, what); done > 0 {
					return nil
				}
				collected := make(chan error, 1)
				go func() {
					var err error
					if what != "checking what was written" {
						_, err = f.collect(t.Context())
					}
					collected <- err
				}()
				select {
				case err := <-collected:
					return err
				case <-time.After(10 * time.Second):
					return fmt.Errorf("%s: others wait", what)
				}
			}
			err = f.keep(t.Context(), again, &storedRecord{Digest: digest, SizeBytes: 1}, tell, func(ctx context.Context, tx bun.Tx) error {
				_, err := insertNew(ctx, tx, &snapshotRecord{ID: "snap-again", TaskID: *task.ImportTaskID, Digest: digest, CreatedAt: f.now()}, "id")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			told = slices.Compact(told)
			if !slices.Equal(told, []string{"checking what was written", "checking what is stored of the same content"}) {
				t.Errorf("told: %q", told)
			}
			if now, err := os.Stat(f.storedFile(digest)); err != nil || os.SameFile(was, now) != needed {
				t.Errorf("the file is another one: %v (%v)", !os.SameFile(was, now), err)
			}
			if sound, err := f.Berth().VerifyStoredImage(t.Context(), &VerifyStoredImageInput{&digest}); err != nil || sound.StoredImage.Damage != nil {
				t.Errorf("%+v, %v", sound, err)
			}
		})
	}
}

// What is among the stored images and is none goes, and is told; a folder, which the service never made there, is in nobody's way.
func TestCollectingWhatIsNoStoredImage(t *testing.T) {
	f := newFixture(t)
	f.imported(f.upload(sample(t, phony.Base, "qcow2")))
	if err := errors.Join(os.Mkdir(f.file("stored", "lost+found"), 0o700), os.WriteFile(f.file("stored", "lost+found", "file"), nil, 0o600), os.WriteFile(f.file("stored", "stray.qcow2"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	out, err := f.Berth().CollectStoredImages(t.Context(), nil)
	if err != nil || len(out.StoredImages) != 0 || !slices.Equal(out.Files, []string{"stray.qcow2"}) {
		t.Errorf("%+v: %v", out, err)
	}
	if left, err := os.ReadDir(f.file("stored")); err != nil || len(left) != 2 {
		t.Errorf("left are %v: %v", left, err)
	}
	if _, err := f.db.ExecContext(t.Context(), "DELETE FROM machine_images; DELETE FROM snapshots"); err != nil {
		t.Fatal(err)
	}
	if out, err = f.Berth().CollectStoredImages(t.Context(), nil); err != nil || len(out.StoredImages) != 1 || len(out.Files) != 0 {
		t.Errorf("%+v: %v", out, err)
	}
}

// An import says that it reads what it has written, and can be given up then.
func TestAnImportSaysThatItReadsWhatItHasWritten(t *testing.T) {
	f := newFixture(t)
	waited := f.waited(t)
	task := f.imported(f.upload(sample(t, phony.Base, "qcow2")))
	if *task.Status != taskCompleted {
		t.Fatalf("%s: %s", *task.Status, aws.ToString(task.StatusMessage))
	}
	f.imported(f.upload(sample(t, phony.Base, "vmdk")))
	all := waited()
	for _, want := range []string{"disk 1 of 1, checking what was written: 0.0 KiB of ", "checking what is stored of the same content: "} {
		if !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%q is not in %q", want, all)
		}
	}
}

// An import says that it compares an export with its digests, and how far that is.
func TestAnImportSaysThatItComparesDigests(t *testing.T) {
	f := newFixture(t)
	waited := f.waited(t)
	if task := f.imported(f.upload(sample(t, phony.Base, "ova"))); *task.Status != taskCompleted {
		t.Fatalf("%s: %s", *task.Status, aws.ToString(task.StatusMessage))
	}
	want := "validating 16: the digests of s3://b/" + phony.Base + ".ova: 0.0 KiB of "
	if all := waited(); !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, want) }) {
		t.Errorf("%q is not in %q", want, all)
	}
}

// waited has the service write down all that imports wait for from now on; what it gives tells it.
func (f *fixture) waited(t *testing.T) func() []string {
	t.Helper()
	for _, q := range []string{"CREATE TABLE waited (what TEXT)", "CREATE TRIGGER waiting AFTER UPDATE OF waits_for ON import_tasks BEGIN INSERT INTO waited VALUES (NEW.status || ' ' || NEW.progress || ': ' || NEW.waits_for); END"} {
		if _, err := f.db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	return func() (all []string) {
		t.Helper()
		if err := f.db.NewRaw("SELECT what FROM waited").Scan(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
}
