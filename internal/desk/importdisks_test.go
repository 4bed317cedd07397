package desk

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/jackc/pgx/v5/pgconn"

	"berth/internal/compute/memory"
	"berth/internal/phony"
	"berth/internal/s3"
)

// run runs a program that makes something for a test.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// importedFiles imports several files as one machine.
func (f *fixture) importedFiles(keys ...string) ImportImageTask {
	f.t.Helper()
	in := &ImportImageInput{}
	for _, key := range keys {
		in.DiskContainers = append(in.DiskContainers, fromBucket(key)...)
	}
	out, err := f.EC2().ImportImage(callerContext(), in)
	if err != nil {
		f.t.Fatal(err)
	}
	if len(out.SnapshotDetails) != len(keys) {
		f.t.Errorf("%d files are shown as %d", len(keys), len(out.SnapshotDetails))
	}
	return f.ended(*out.ImportTaskID)
}

// A machine of several disks: the root is the one with Windows, wherever it comes in the order.
func TestTheRootIsTheDiskWithWindows(t *testing.T) {
	f := newFixture(t)
	f.enabled()
	data := filepath.Join(t.TempDir(), "data.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", data, "64M")
	task := f.importedFiles(f.upload(data), f.upload(sample(t, phony.Base, "vmdk")))
	if *task.Status != taskCompleted || len(task.SnapshotDetails) != 2 {
		t.Fatalf("%s: %s", *task.Status, aws.ToString(task.StatusMessage))
	}
	first, second := task.SnapshotDetails[0], task.SnapshotDetails[1]
	if *first.DeviceName != "/dev/sdf" || *first.Format != "QCOW2" || *second.DeviceName != "/dev/sda1" || *second.Format != "VMDK" || *first.SnapshotID == *second.SnapshotID ||
		*second.UserBucket.S3Key != phony.Base+".vmdk" || *task.Architecture != "x86_64" || *task.BootMode != "legacy-bios" || *task.LicenseType != "BYOL" {
		t.Errorf("the task: %+v; its disks: %+v, %+v", task, first, second)
	}
	images, err := f.EC2().DescribeImages(t.Context(), &DescribeImagesInput{ImageIDs: []string{*task.ImageID}})
	if err != nil {
		t.Fatal(err)
	}
	if b := images.Images[0].BlockDeviceMappings; len(b) != 2 || *b[0].DeviceName != "/dev/sda1" || *b[0].EBS.SnapshotID != *second.SnapshotID || *b[1].DeviceName != "/dev/sdf" || *b[1].EBS.SnapshotID != *first.SnapshotID {
		t.Errorf("the image's disks: %+v", b)
	}
	im := f.ingested(*task.ImageID, "two")
	if im.State != types.WorkspaceImageStateError || !slices.ContainsFunc(im.ErrorDetails, func(e types.ErrorDetails) bool { return e.ErrorCode == "AdditionalDrivesAttached" }) {
		t.Errorf("the image of two disks: %s, %+v", im.State, im.ErrorDetails)
	}
	if s := f.unsound(t, memory.NewHost()); s != "" {
		t.Error(s)
	}
	out, err := f.EC2().DeregisterImage(t.Context(), &DeregisterImageInput{ImageID: task.ImageID, DeleteAssociatedSnapshots: aws.Bool(true)})
	if err != nil || len(out.DeleteSnapshotResults) != 2 {
		t.Errorf("deregistered: %+v, %v", out, err)
	}
	if left, err := os.ReadDir(f.file("stored")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A machine whose files came one by one: an OVF with its disk, a VMDK in pieces. All are the same disk.
func TestAMachineInSeveralFiles(t *testing.T) {
	f := newFixture(t)
	whole := f.imported(f.upload(sample(t, phony.Base, "qcow2")))
	want := f.digest(*whole.SnapshotDetails[0].SnapshotID)
	dir := t.TempDir()
	var ovf []string
	ova, err := os.Open(sample(t, phony.Base, "ova"))
	if err != nil {
		t.Fatal(err)
	}
	defer ova.Close()
	for r := tar.NewReader(ova); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		ovf = append(ovf, f.upload(path))
	}
	slices.Reverse(ovf) // what refers to another need not come first
	var split []string
	run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", sample(t, phony.Base, "qcow2"), filepath.Join(dir, "split.vmdk"))
	parts, err := filepath.Glob(filepath.Join(dir, "split*.vmdk"))
	if err != nil || len(parts) < 2 {
		t.Fatalf("parts: %v, %v", parts, err)
	}
	for _, p := range parts {
		split = append(split, f.upload(p))
	}
	for name, keys := range map[string][]string{"OVF": ovf, "split VMDK": split} {
		task := f.importedFiles(keys...)
		if *task.Status != taskCompleted || len(task.SnapshotDetails) != 1 {
			t.Errorf("%s: %s, %s, %+v", name, *task.Status, aws.ToString(task.StatusMessage), task.SnapshotDetails)
			continue
		}
		if got := f.digest(*task.SnapshotDetails[0].SnapshotID); got != want {
			t.Errorf("%s: the disk is %s, want %s", name, got, want)
		}
	}
	if task := f.importedFiles(ovf[1:]...); *task.Status != taskDeleted || !strings.Contains(*task.StatusMessage, "ClientError: ") {
		t.Errorf("without its disk: %s, %s", *task.Status, aws.ToString(task.StatusMessage))
	}
}

// places is a source of uploads that may be in trouble.
type places struct {
	uploads
	stat  func() error
	stage func(ctx context.Context) error
	etag  atomic.Value
	count atomic.Int64
}

func (p *places) Stat(ctx context.Context, bucket, key string) (s3.Info, error) {
	if p.stat != nil {
		if err := p.stat(); err != nil {
			return s3.Info{}, err
		}
	}
	info, err := p.uploads.Stat(ctx, bucket, key)
	info.ETag, _ = p.etag.Load().(string)
	return info, err
}

func (p *places) Stage(ctx context.Context, bucket, key, dst string, progress func(done, total int64)) error {
	p.count.Add(1)
	if p.stage != nil {
		if err := p.stage(ctx); err != nil {
			return err
		}
	}
	return p.uploads.Stage(ctx, bucket, key, dst, progress)
}

// status500 is what the SDK makes of an endpoint's answer.
func status500() error {
	return &smithy.OperationError{ServiceID: "S3", OperationName: "HeadObject", Err: &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusInternalServerError}}, Err: errors.New("secret words of the endpoint")}}}
}

func (f *fixture) troubled(p *places) *places {
	p.uploads = f.cfg.Objects.(uploads)
	f.Close()
	f.cfg.Objects = p
	f.open()
	return p
}

func (f *fixture) describe(task string) ImportImageTask {
	f.t.Helper()
	out, err := f.EC2().DescribeImportImageTasks(f.t.Context(), &DescribeImportImageTasksInput{ImportTaskIDs: []string{task}})
	if err != nil {
		f.t.Fatal(err)
	}
	return out.ImportImageTasks[0]
}

// A task that waits says what for, goes on when it comes, and ends when it does not.
func TestATaskNeverHangs(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(p *places, heal <-chan struct{})
		waits   string
		heals   bool
	}{
		"endpoint that answers 500, for a while": {func(p *places, heal <-chan struct{}) {
			p.stat = func() error {
				select {
				case <-heal:
					return nil
				default:
					return status500()
				}
			}
		}, "s3://b/" + phony.Base + ".qcow2: its endpoint answered 500 Internal Server Error", true},
		"endpoint that answers 500": {func(p *places, _ <-chan struct{}) { p.stat = status500 }, "answered 500 Internal Server Error", false},
		"endpoint that stalls": {func(p *places, _ <-chan struct{}) {
			p.stage = func(context.Context) error { return fmt.Errorf("bytes 0 to 5: %w", s3.ErrStalled) }
		}, "its endpoint has stopped sending", false},
		"endpoint that does not answer": {func(p *places, _ <-chan struct{}) {
			p.stage = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		}, ".qcow2: its answer", false},
		"endpoint that ends the connection": {func(p *places, _ <-chan struct{}) {
			p.stage = func(context.Context) error { return fmt.Errorf("bytes 0 to 5: %w", io.ErrUnexpectedEOF) }
		}, "its endpoint ends the connection", false},
		"endpoint that does not answer in time": {func(p *places, _ <-chan struct{}) {
			p.stat = func() error { return fmt.Errorf("s3: %w", context.DeadlineExceeded) }
		}, "its endpoint does not answer in time", false},
		"host that has no address": {func(p *places, _ <-chan struct{}) {
			p.stat = func() error { return &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}} }
		}, "the address of its host is not found", false},
		"host that refuses the connection": {func(p *places, _ <-chan struct{}) {
			p.stat = func() error {
				return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			}
		}, "its endpoint cannot be reached", false},
		"file that changed meanwhile": {func(p *places, _ <-chan struct{}) {
			p.stage = func(context.Context) error { return s3.ErrPreconditionFailed }
		}, ".qcow2: it was changed while it was read", false},
		"file here that cannot be written": {func(p *places, _ <-chan struct{}) {
			p.stage = func(context.Context) error { return &os.PathError{Op: "write", Path: "/", Err: syscall.EIO} }
		}, ".qcow2: it could not be read, or not be written here", false},
		"trouble of our own": {func(p *places, _ <-chan struct{}) {
			p.stage = func(context.Context) error { return nil }
			p.uploads = "/proc/secret"
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, heal := &places{}, make(chan struct{})
			f := newFixture(t, func(cfg *Config) {
				cfg.StepPause = 20 * time.Millisecond
				cfg.StageTime, cfg.StageRate = 3*time.Second, 1<<40
				if c.heals {
					cfg.StageTime = time.Minute
				}
			})
			key := f.upload(sample(t, phony.Base, "qcow2"))
			f.troubled(p)
			c.trouble(p, heal)
			if p.uploads == "/proc/secret" {
				p.uploads = f.cfg.Objects.(*places).uploads + "/../none"
			}
			out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: fromBucket(key)})
			if err != nil {
				t.Fatal(err)
			}
			if c.waits != "" {
				until(t, "what it waits for", func() bool {
					d := f.describe(*out.ImportTaskID).SnapshotDetails[0]
					return strings.Contains(aws.ToString(d.StatusMessage), c.waits)
				})
			}
			for range 20 { // several tries
				if d := f.describe(*out.ImportTaskID).SnapshotDetails[0]; c.waits != "" && *d.Status == taskActive && !strings.Contains(aws.ToString(d.StatusMessage), c.waits) {
					t.Errorf("and then for %q", aws.ToString(d.StatusMessage))
				}
				time.Sleep(5 * time.Millisecond)
			}
			close(heal)
			task := f.ended(*out.ImportTaskID)
			message := aws.ToString(task.StatusMessage)
			if c.heals {
				if *task.Status != taskCompleted {
					t.Errorf("%s: %s", *task.Status, message)
				}
				return
			}
			if *task.Status != taskDeleted || strings.Contains(message, "secret words") || strings.Contains(message, f.cfg.DataDir) {
				t.Errorf("%s: %s", *task.Status, message)
			}
			if c.waits != "" && (!strings.HasPrefix(message, "ServerError: The import has been fetching its files for more than 3s, last waiting for: ") || !strings.Contains(message, c.waits)) {
				t.Errorf("the task ended with %q", message)
			}
			if s := f.unsound(t, memory.NewHost()); s != "" {
				t.Error(s)
			}
		})
	}
}

// What a place will answer again and again ends a task at once, also where it comes only when the file is fetched.
func TestAPlaceThatRefuses(t *testing.T) {
	p := &places{stage: func(context.Context) error {
		return fmt.Errorf("bytes 0 to 5: %w", &s3.Refusal{Status: http.StatusBadRequest, Code: "InvalidRequest", Message: "it is not sent in the ranges that are asked for"})
	}}
	f := newFixture(t)
	key := f.upload(sample(t, phony.Base, "qcow2"))
	f.troubled(p)
	out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: fromBucket(key)})
	if err != nil {
		t.Fatal(err)
	}
	if task := f.ended(*out.ImportTaskID); *task.Status != taskDeleted || *task.StatusMessage != "ClientError: Disk validation failed [s3://b/"+key+": it is not sent in the ranges that are asked for]" || p.count.Load() != 1 {
		t.Errorf("after %d tries: %s: %s", p.count.Load(), *task.Status, aws.ToString(task.StatusMessage))
	}
}

// Time in which no service runs is not the stage's.
func TestAStagesTimeStandsStillWithTheService(t *testing.T) {
	var passed atomic.Int64
	p := &places{}
	f := newFixture(t, func(c *Config) {
		c.StepPause, c.StageTime = 20*time.Millisecond, time.Hour
		c.Now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	})
	key := f.upload(sample(t, phony.Base, "qcow2"))
	f.troubled(p)
	p.stat = status500
	out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: fromBucket(key)})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "trouble", func() bool { return f.describe(*out.ImportTaskID).SnapshotDetails[0].StatusMessage != nil })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	passed.Store(int64(48 * time.Hour))
	p.stat = nil
	f.open()
	if task := f.ended(*out.ImportTaskID); *task.Status != taskCompleted {
		t.Errorf("after two days away: %s, %s", *task.Status, aws.ToString(task.StatusMessage))
	}
}

// What was seen first is imported, or nothing.
func TestASourceThatChanges(t *testing.T) {
	p := &places{}
	p.etag.Store("one")
	p.stage = func(context.Context) error {
		if p.etag.Swap("two") == "one" {
			return errors.New("the connection broke")
		}
		return nil
	}
	f := newFixture(t, func(c *Config) { c.StepPause = time.Millisecond })
	key := f.upload(sample(t, phony.Base, "qcow2"))
	f.troubled(p)
	if task := f.imported(key); *task.Status != taskDeleted || !strings.Contains(*task.StatusMessage, "s3://b/"+key+" was changed while it was read") {
		t.Errorf("%s: %s", *task.Status, aws.ToString(task.StatusMessage))
	}
	if s := f.unsound(t, memory.NewHost()); s != "" {
		t.Error(s)
	}
}

// fullDatabase is SQLite's error that has this code.
type fullDatabase int

func (fullDatabase) Error() string { return "database or disk is full" }
func (f fullDatabase) Code() int   { return int(f) }

// No room: before the first byte where it can be known, and clearly where it cannot.
func TestThereIsNoRoom(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		stage  func(context.Context) error
		says   string
		staged int64
	}{
		"on the disk":            {func(c *Config) { c.KeepFree = 1 << 60 }, nil, "keeps 1073741824.0 GiB of it free", 0},
		"in the quota":           {func(c *Config) { c.ImageQuota = 1 << 20 }, nil, "of the quota of 1.0 MiB, 0.0 KiB are taken", 1},
		"all of a sudden":        {func(*Config) {}, func(context.Context) error { return &os.PathError{Op: "write", Path: "/secret", Err: syscall.ENOSPC} }, "This service's disk is full", 1},
		"for the records":        {func(*Config) {}, func(context.Context) error { return fmt.Errorf("secret: %w", fullDatabase(13)) }, "This service's disk is full", 1},
		"for PostgreSQL's":       {func(*Config) {}, func(context.Context) error { return &pgconn.PgError{Message: "secret", Code: "53100"} }, "This service's disk is full", 1},
		"for the account at all": {func(*Config) {}, func(context.Context) error { return syscall.EDQUOT }, "This service's disk is full", 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := &places{stage: c.stage}
			f := newFixture(t, c.change)
			key := f.upload(sample(t, phony.Base, "qcow2"))
			f.troubled(p)
			task := f.imported(key)
			if m := aws.ToString(task.StatusMessage); *task.Status != taskDeleted || !strings.HasPrefix(m, "ServerError: Insufficient storage.") || !strings.Contains(m, c.says) || strings.Contains(m, "secret") {
				t.Errorf("%s: %s", *task.Status, m)
			}
			if n := p.count.Load(); n != c.staged {
				t.Errorf("it was fetched %d times, want %d", n, c.staged)
			}
			if s := f.unsound(t, memory.NewHost()); s != "" {
				t.Error(s)
			}
		})
	}
}

// Imports of the same machine at the same time, while others go: one disk is kept, as long as somebody needs it.
func TestStoredDisksAreShared(t *testing.T) {
	f := newFixture(t)
	keys := []string{f.upload(sample(t, phony.Base, "qcow2")), f.upload(sample(t, phony.Base, "vmdk")), f.upload(sample(t, phony.Base, "vhdx"))}
	tasks := make([]ImportImageTask, 6)
	var wg sync.WaitGroup
	for i := range tasks {
		wg.Go(func() {
			tasks[i] = f.imported(keys[i%len(keys)])
			if i%2 == 0 && *tasks[i].Status == taskCompleted {
				if _, err := f.EC2().DeregisterImage(t.Context(), &DeregisterImageInput{ImageID: tasks[i].ImageID, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := f.misplaced(t); s != "" {
		t.Error(s)
	}
	all, err := f.Berth().ListStoredImages(t.Context(), nil)
	if err != nil || len(all.StoredImages) != 1 || len(all.StoredImages[0].References) != 3 || all.FileBytes == 0 || all.FileBytes != all.StoredImages[0].FileBytes {
		t.Fatalf("stored: %+v, %v", all, err)
	}
	digest := all.StoredImages[0].Digest
	sound, err := f.Berth().VerifyStoredImage(t.Context(), &VerifyStoredImageInput{digest})
	if err != nil || sound.StoredImage.Damage != nil || sound.StoredImage.VerifiedAt == nil {
		t.Errorf("verified: %+v, %v", sound, err)
	}
	// A bit falls over.
	b, err := os.ReadFile(f.storedFile(*digest))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"a byte":  func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"its end": func(b []byte) []byte { return b[:len(b)-1<<16] },
		"all":     func([]byte) []byte { return nil },
	} {
		if err := errors.Join(os.Remove(f.storedFile(*digest)), os.WriteFile(f.storedFile(*digest), damage(slices.Clone(b)), 0o400)); err != nil {
			t.Fatal(err)
		}
		bad, err := f.Berth().VerifyStoredImage(t.Context(), &VerifyStoredImageInput{digest})
		if err != nil || bad.StoredImage.Damage == nil || strings.Contains(*bad.StoredImage.Damage, f.cfg.DataDir) {
			t.Errorf("without %s: %+v, %v", name, bad, err)
		}
	}
	// Importing it again mends it, whatever the format, also when the file is gone altogether.
	for i, key := range keys {
		if i == 1 {
			if err := os.Remove(f.storedFile(*digest)); err != nil {
				t.Fatal(err)
			}
		} else if err := errors.Join(os.Remove(f.storedFile(*digest)), os.WriteFile(f.storedFile(*digest), b[:len(b)/2], 0o400)); err != nil {
			t.Fatal(err)
		}
		if bad, err := f.Berth().VerifyStoredImage(t.Context(), &VerifyStoredImageInput{digest}); err != nil || bad.StoredImage.Damage == nil {
			t.Errorf("damaged again: %+v, %v", bad, err)
		}
		task := f.imported(key)
		all, err := f.Berth().ListStoredImages(t.Context(), nil)
		if err != nil || *task.Status != taskCompleted || len(all.StoredImages) != 1 || *all.StoredImages[0].Digest != *digest || all.StoredImages[0].Damage != nil {
			t.Fatalf("imported again: %s, %+v, %v", *task.Status, all, err)
		}
		if sound, err := f.Berth().VerifyStoredImage(t.Context(), &VerifyStoredImageInput{digest}); err != nil || sound.StoredImage.Damage != nil {
			t.Errorf("verified after another import: %s, %v", aws.ToString(sound.StoredImage.Damage), err)
		}
		if s := f.misplaced(t); s != "" {
			t.Error(s)
		}
		if _, err := f.EC2().DeregisterImage(t.Context(), &DeregisterImageInput{ImageID: task.ImageID, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
			t.Error(err)
		}
	}
	if b, err = os.ReadFile(f.storedFile(*digest)); err != nil {
		t.Fatal(err)
	}
	_, err = f.Berth().VerifyStoredImage(t.Context(), &VerifyStoredImageInput{aws.String("sha256:none")})
	refusal(t, err, "ResourceNotFoundException", "sha256:none")
	// What a crash leaves without a row goes; what a folder of an earlier version holds is taken over.
	stray := f.file("stored", "stray.qcow2")
	if err := os.WriteFile(stray, b, 0o400); err != nil {
		t.Fatal(err)
	}
	snapshot := *tasks[1].SnapshotDetails[0].SnapshotID
	if err := errors.Join(os.Remove(f.storedFile(*digest)), os.MkdirAll(f.file("snapshots"), 0o700), os.WriteFile(f.file("snapshots", snapshot+".qcow2"), b, 0o400)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.db.ExecContext(t.Context(), "UPDATE snapshots SET digest = NULL WHERE id = ?", snapshot); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f.open()
	if s := f.misplaced(t); s != "" {
		t.Error(s)
	}
	if again := f.digest(snapshot); again != *digest {
		t.Errorf("the disk that was taken over is %s, was %s", again, *digest)
	}
	sound, err = f.Berth().VerifyStoredImage(t.Context(), &VerifyStoredImageInput{digest})
	if err != nil || sound.StoredImage.Damage != nil {
		t.Errorf("verified after all: %+v, %v", sound, err)
	}
	if _, err := os.Stat(f.file("snapshots")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old folder: %v", err)
	}
}

// Heavy stages wait for their turn, say so, and can be given up meanwhile; the waiting is not their time.
func TestHeavyStagesTakeTurns(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.StageTime, c.StageRate = 2*time.Second, 1<<40 })
	key := f.upload(sample(t, phony.Base, "qcow2"))
	for range heavyStages {
		f.heavy <- struct{}{}
	}
	ask := func() string {
		t.Helper()
		out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: fromBucket(key)})
		if err != nil {
			t.Fatal(err)
		}
		until(t, "its turn to be waited for", func() bool {
			return aws.ToString(f.describe(*out.ImportTaskID).SnapshotDetails[0].StatusMessage) == "other imports, for its turn"
		})
		return *out.ImportTaskID
	}
	patient, given := ask(), ask()
	if _, err := f.EC2().CancelImportTask(t.Context(), &CancelImportTaskInput{ImportTaskID: &given}); err != nil {
		t.Fatal(err)
	}
	if task := f.ended(given); *task.Status != taskDeleted {
		t.Errorf("the one that was given up: %s", *task.Status)
	}
	time.Sleep(3 * time.Second) // longer than a stage may take
	if task := f.describe(patient); *task.Status != taskActive {
		t.Errorf("the one that waits: %s, %s", *task.Status, aws.ToString(task.StatusMessage))
	}
	for range heavyStages {
		<-f.heavy
	}
	if task := f.ended(patient); *task.Status != taskCompleted {
		t.Errorf("the one that waited: %s, %s", *task.Status, aws.ToString(task.StatusMessage))
	}
}

// A key stands in an s3:// URL as it is: it is not decoded, and nothing in it begins a query.
func TestKeysOfUploadsAreTakenAsTheyAre(t *testing.T) {
	f := newFixture(t)
	from := sample(t, phony.Base, "qcow2")
	for _, key := range []string{"a%20b.qcow2", "what?.qcow2", "no#1 ü+&=.qcow2", "100%"} {
		if err := os.Link(from, filepath.Join(string(f.cfg.Objects.(uploads)), "b", key)); err != nil {
			t.Fatal(err)
		}
		out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: []DiskContainer{{URL: aws.String("s3://b/" + key)}}})
		if err != nil {
			t.Error(err)
			continue
		}
		if b := out.SnapshotDetails[0].UserBucket; *b.S3Bucket != "b" || *b.S3Key != key {
			t.Errorf("%s is taken for %s of %s", key, *b.S3Key, *b.S3Bucket)
		}
		if task := f.ended(*out.ImportTaskID); *task.Status != taskCompleted {
			t.Errorf("%s: %s", key, aws.ToString(task.StatusMessage))
		}
	}
	if task := f.imported("none?.ova"); !strings.HasSuffix(*task.StatusMessage, "there is no s3://b/none?.ova]") {
		t.Error(*task.StatusMessage)
	}
	for _, url := range []string{"s3://", "s3://b", "s3://b/", "s3:///key"} {
		_, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: []DiskContainer{{URL: &url}}})
		refusal(t, err, "InvalidParameter", "must both be given")
	}
}

// A signed URL's query is the key to the file.
func TestASourceIsNamedWithoutItsSignature(t *testing.T) {
	s := importSource{URL: "https://host.example/a/win10.ova?X-Amz-Signature=secret"}
	if got := s.String(); got != "https://host.example/a/win10.ova" {
		t.Error(got)
	}
}
