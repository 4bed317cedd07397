package desk

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"

	"berth/internal/compute/memory"
	"berth/internal/image"
	"berth/internal/phony"
)

// asked asks for an import of an upload, and waits for nothing.
func (f *fixture) asked(key string) string {
	f.t.Helper()
	out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: fromBucket(key)})
	if err != nil {
		f.t.Fatal(err)
	}
	return *out.ImportTaskID
}

// roomOf is what the disk of an export may take, and what it does take.
func roomOf(t *testing.T, path, layout string) (may, does int64) {
	t.Helper()
	// As it comes from an upload: a sparse file's holes, which a file system may tell or not, are not in there.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if path = filepath.Join(t.TempDir(), "export"); os.WriteFile(path, b, 0o600) != nil {
		t.Fatal("no room for the export")
	}
	u, err := image.Open(image.File{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if may, err = u.RoomBytes(0); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(t.TempDir(), "disk.qcow2")
	if _, err := u.Convert(t.Context(), 0, made, image.Layouts[layout], true, func(float64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if does, err = image.FileBytes(made); err != nil {
		t.Fatal(err)
	}
	return may, does
}

func TestWhatADiskTakesIsNotMoreThanItMay(t *testing.T) {
	for layout := range image.Layouts {
		for _, format := range []string{"vmdk", "qcow2", "vhdx"} {
			if may, does := roomOf(t, sample(t, phony.Base, format), layout); does > may || does == 0 {
				t.Errorf("%s as %s takes %d bytes and may take %d", format, layout, does, may)
			}
		}
	}
}

// Two imports at once, with a quota for one: the second is refused before its first byte, although the first one's disk is not
// stored yet.
func TestTheQuotaHoldsForImportsAtOnce(t *testing.T) {
	may, _ := roomOf(t, sample(t, phony.Base, "qcow2"), "fast")
	failing := make(chan struct{}, 1)
	f := newFixture(t, func(c *Config) {
		c.ImageQuota = may + may/2
		c.StepHook = func(_, step string, done bool) error {
			if step == "fail" && !done {
				failing <- struct{}{}
			}
			return nil
		}
	})
	key := f.upload(sample(t, phony.Base, "qcow2"))
	f.storing.Lock() // so that the first one is not kept yet
	first := f.asked(key)
	until(t, "the first one's disk", func() bool {
		made, err := filepath.Glob(f.file("imports", first, "disk-1.qcow2"))
		return err == nil && len(made) == 1
	})
	second := f.asked(key)
	select {
	case <-failing:
	case <-time.After(10 * time.Second): // it has been let in, and waits for the first one
	}
	f.storing.Unlock()
	refused := f.ended(second)
	if m := aws.ToString(refused.StatusMessage); *refused.Status != taskDeleted || !strings.HasPrefix(m, "ServerError: Insufficient storage. ") || !strings.Contains(m, "0.0 KiB are taken, "+sizeText(may)+" are promised to other imports under way") {
		t.Errorf("the second one: %s, %s", *refused.Status, m)
	}
	task := f.ended(first)
	if *task.Status != taskCompleted {
		t.Fatalf("the first one: %s, %s", *task.Status, aws.ToString(task.StatusMessage))
	}
	// What is over promises nothing: once the first one's disk has gone, there is room again.
	if _, err := f.EC2().DeregisterImage(t.Context(), &DeregisterImageInput{ImageID: task.ImageID, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if task := f.imported(key); *task.Status != taskCompleted {
		t.Errorf("with room again: %s, %s", *task.Status, aws.ToString(task.StatusMessage))
	}
}

// What a service that was killed had promised is promised still by the next one.
func TestTheQuotaHoldsAfterACrash(t *testing.T) {
	may, _ := roomOf(t, sample(t, phony.Base, "ova"), "fast")
	s := scenarioOf(t, &importDisk)
	dir, x := s.prepared(t)
	crash{Dir: dir, Flow: importDisk.name, Step: unkept, IDs: x}.happens(t)
	var been atomic.Bool
	begun, goOn := make(chan struct{}), make(chan struct{})
	host := memory.NewHost()
	f := &fixture{t: t, host: host}
	f.cfg = Config{DataDir: filepath.Join(dir, "data"), Region: "eu-west-1", Eligible: true, Objects: uploads(filepath.Join(dir, "s3")), ImageQuota: may + may/2,
		StepHook: func(_, step string, done bool) error {
			if step == "convert" && !done && been.CompareAndSwap(false, true) {
				close(begun)
				<-goOn
			}
			return nil
		}}
	f.open()
	t.Cleanup(func() { f.Close() })
	<-begun // the one that was under way, which has not begun again
	second := f.imported(x["key"])
	close(goOn)
	if m := aws.ToString(second.StatusMessage); *second.Status != taskDeleted || !strings.Contains(m, sizeText(may)+" are promised to other imports under way") {
		t.Errorf("the second one: %s, %s", *second.Status, m)
	}
	until(t, "the first one's end", func() bool {
		state, err := f.EC2().DescribeImportImageTasks(t.Context(), &DescribeImportImageTasksInput{Filters: []Filter{{Name: aws.String("task-state"), Values: []string{taskCompleted}}}})
		return err == nil && len(state.ImportImageTasks) == 1
	})
	if s := f.unsound(t, host); s != "" {
		t.Error(s)
	}
}

// The same for the file system: what another import will fetch is not there to be taken.
func TestTheFileSystemsRoomHoldsForImportsAtOnce(t *testing.T) {
	fetching, goOn := make(chan struct{}, 2), make(chan struct{})
	p := &places{stage: func(ctx context.Context) error {
		fetching <- struct{}{}
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return ctx.Err()
	}}
	f := newFixture(t)
	path := sample(t, phony.Base, "qcow2")
	key := f.upload(path)
	f.troubled(p)
	size, err := image.FileBytes(path)
	if err != nil {
		t.Fatal(err)
	}
	may, _ := roomOf(t, path, "fast")
	f.free = func(string) (int64, error) { return size + max(may, size/2), nil }
	f.Desk.cfg.KeepFree = max(may, size/2) - size/2
	first := f.asked(key)
	<-fetching
	second := f.imported(key)
	if m := aws.ToString(second.StatusMessage); *second.Status != taskDeleted || !strings.Contains(m, "Insufficient storage. [the upload of s3://b/"+key+" may take ") || !strings.Contains(m, " are promised to other imports under way and keeps ") {
		t.Errorf("the second one: %s, %s", *second.Status, m)
	}
	if n := p.count.Load(); n != 1 {
		t.Errorf("%d were fetched", n)
	}
	f.Desk.cfg.KeepFree = 0
	close(goOn)
	if task := f.ended(first); *task.Status != taskCompleted {
		t.Errorf("the first one: %s, %s", *task.Status, aws.ToString(task.StatusMessage))
	}
}

// What is mended of a disk counts, too: without room for it there is no image, and nothing more is kept; with room
// there is, and keeping it once more needs none.
func TestTheQuotaHoldsForWhatIsMended(t *testing.T) {
	const unfit = "auto-logon-enabled"
	f := newFixture(t, func(c *Config) { c.Fix = true })
	f.enabled()
	task := f.imported(f.upload(sample(t, unfit, "qcow2")))
	total := func() int64 {
		t.Helper()
		all, err := f.Berth().ListStoredImages(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return all.FileBytes
	}
	before := total()
	f.Desk.cfg.ImageQuota = before + 4096
	im := f.ingested(*task.ImageID, "refused")
	if m := aws.ToString(im.ErrorMessage); im.State != types.WorkspaceImageStateError || !strings.Contains(m, "Insufficient storage. [What is mended of the disk takes ") || !strings.Contains(m, sizeText(before)+" are taken") {
		t.Errorf("%s: %s", im.State, m)
	}
	if now := total(); now != before {
		t.Errorf("%d bytes are kept, %d before", now, before)
	}
	f.Desk.cfg.ImageQuota = 0
	if im = f.ingested(*task.ImageID, "mended"); im.State != types.WorkspaceImageStateAvailable {
		t.Fatalf("%s: %s", im.State, aws.ToString(im.ErrorMessage))
	}
	f.Desk.cfg.ImageQuota = total()
	if f.Desk.cfg.ImageQuota <= before {
		t.Fatalf("%d bytes are kept, %d before", f.Desk.cfg.ImageQuota, before)
	}
	// The same again, as after a crash between keeping it and writing so: nothing more is taken.
	var kept storedRecord
	if err := f.db.NewSelect().Model(&kept).Where("base IS NOT NULL").Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := storedRecord{Digest: kept.Digest, Base: kept.Base, SizeBytes: kept.SizeBytes}
	if err := f.keep(t.Context(), f.storedFile(kept.Digest), &again, nil, func(context.Context, bun.Tx) error { return nil }); err != nil {
		t.Errorf("again: %v", err)
	}
}
