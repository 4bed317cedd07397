package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"

	"berth/internal/compute/computetest"
	"berth/internal/desk"
	"berth/internal/phony"
)

// asBerth makes the test program behave as berth, so that tests can run the service as a process of its own.
const asBerth = "BERTH_TEST_AS_BERTH"

func TestMain(m *testing.M) {
	if os.Getenv(asBerth) != "" {
		os.Unsetenv(asBerth) //nolint:errcheck // it was there
		os.Exit(run(os.Args[1:]))
	}
	code := m.Run()
	if sampleFolder != "" {
		os.RemoveAll(sampleFolder)
	}
	os.Exit(code)
}

// sampleFolder holds sampleVM until the tests end.
var sampleFolder string

// sampleVM is the sample as an OVA, made once in a test run.
var sampleVM = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "berth-sample-")
	if err != nil {
		return "", err
	}
	sampleFolder = dir
	m, err := phony.Load(phony.Base)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "win10.ova")
	return path, m.Export(context.Background(), path, "ova")
})

// service is a running service for a test, with software emulation; it ends with the test and leaves no machine.
func service(t *testing.T) (data string, s *supervised) {
	t.Helper()
	t.Setenv(asBerth, "1")
	data = t.TempDir()
	s, err := upCmd{Data: data, Listen: "127.0.0.1:0", Accelerator: "tcg"}.serve(t.Context())
	if err != nil {
		b, _ := os.ReadFile(filepath.Join(data, "service.log"))
		t.Fatalf("%v\n%s", err, b)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if left := computetest.Processes(t, data); len(left) > 0 {
			t.Errorf("machines outlived the service: %v", left)
		}
	})
	return data, s
}

// TestTheServiceIsKilledTenTimes takes a VM through the eight steps while the service is killed (kill -9) at ten points, and
// started again each time: the journey ends as it does undisturbed, and nothing is there twice.
func TestTheServiceIsKilledTenTimes(t *testing.T) {
	vm, err := sampleVM()
	if err != nil {
		t.Fatal(err)
	}
	data, s := service(t)
	// Where it dies: in which step, how long after the step's begin.
	points := []struct {
		step  string
		after time.Duration
	}{
		{"1 Enable BYOL", 0}, {"1 Enable BYOL", 1200 * time.Millisecond},
		{"3 Upload the export", 30 * time.Millisecond},
		{"4 Import it as an AMI", 0}, {"4 Import it as an AMI", 400 * time.Millisecond}, {"4 Import it as an AMI", 1500 * time.Millisecond},
		{"5 Make the BYOL image", 100 * time.Millisecond}, {"6 Make a bundle", 0}, {"7 Register a directory", 50 * time.Millisecond}, {"8 Launch the WorkSpace", 300 * time.Millisecond},
	}
	var kills sync.WaitGroup
	out := &progress{w: testWriter{t}}
	killed := 0
	out.begins = func(step string) {
		kills.Wait() // those of the step before
		var mine []time.Duration
		for _, p := range points {
			if p.step == step {
				mine = append(mine, p.after)
			}
		}
		killed += len(mine)
		kills.Go(func() {
			begun := time.Now()
			for _, after := range mine {
				time.Sleep(time.Until(begun.Add(after)))
				if err := s.ready(t.Context(), data); err != nil { // it dies at work, not while it starts
					t.Error(err)
					return
				}
				if err := s.process.Load().Kill(); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	j := &journey{data: data, vm: vm, out: out}
	if err := j.run(t.Context()); err != nil {
		b, _ := os.ReadFile(filepath.Join(data, "service.log"))
		t.Fatalf("%v\n%s", err, b)
	}
	kills.Wait()
	if killed != 10 {
		t.Fatalf("the service was killed %d times, want 10", killed)
	}
	j.nothingTwice(t)

	for _, command := range []string{"list", "verify", "gc"} {
		if code := run([]string{"images", "--data", data, command}); code != 0 {
			t.Errorf("berth images %s ended with %d", command, code)
		}
	}

	// A desktop runs on while the service is away, and is found again as it is. A second run finds everything else.
	before, running := j.workspace, computetest.Processes(t, data)
	if err := s.process.Load().Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	again := &journey{data: data, vm: vm, out: &progress{w: testWriter{t}}}
	if err := again.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again.workspace != before {
		t.Errorf("the second run made another WorkSpace: %s, %s", before, again.workspace)
	}
	again.nothingTwice(t)
	if now := computetest.Processes(t, data); !slices.Equal(now, running) {
		t.Errorf("the desktop's QEMU was %v before the service was killed, and is %v", running, now)
	}
	if err := again.takeDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := computetest.Processes(t, data); len(left) > 0 {
		t.Errorf("machines outlived their WorkSpace: %v", left)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// nothingTwice asks the service what there is.
func (j *journey) nothingTwice(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	var c *client
	if err := j.call(ctx, func(x *client) error { c = x; return x.berth(ctx, "ListDirectories", map[string]any{}, nil) }); err != nil {
		t.Fatal(err)
	}
	one := func(what string, n int, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if n != 1 {
			t.Errorf("there are %d %s, want 1", n, what)
		}
	}
	mods, err := c.workspaces.DescribeAccountModifications(ctx, &workspaces.DescribeAccountModificationsInput{})
	one("account modifications", len(mods.AccountModifications), err)
	objects, err := c.s3.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String(bucket)})
	one("objects", len(objects.Contents), err)
	uploads, err := c.s3.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: aws.String(bucket)})
	one("uploads and the object", 1+len(uploads.Uploads), err)
	var tasks desk.DescribeImportImageTasksOutput
	err = c.ec2(ctx, "DescribeImportImageTasks", url.Values{}, &tasks)
	one("import tasks", len(tasks.ImportImageTasks), err)
	var images desk.DescribeImagesOutput
	err = c.ec2(ctx, "DescribeImages", url.Values{}, &images)
	one("AMIs", len(images.Images), err)
	ims, err := c.workspaces.DescribeWorkspaceImages(ctx, &workspaces.DescribeWorkspaceImagesInput{})
	one("images", len(ims.Images), err)
	bundles, err := c.workspaces.DescribeWorkspaceBundles(ctx, &workspaces.DescribeWorkspaceBundlesInput{})
	one("bundles", len(bundles.Bundles), err)
	dirs, err := c.workspaces.DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{})
	one("directories", len(dirs.Directories), err)
	desktops, err := c.workspaces.DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{})
	one("WorkSpaces", len(desktops.Workspaces), err)
	one("QEMU processes", len(computetest.Processes(t, j.data)), nil)
	for dir, want := range map[string]int{"imports": 0, "stored": 1} {
		es, err := os.ReadDir(filepath.Join(j.data, dir))
		if err != nil || len(es) != want {
			t.Errorf("folder %s has %v (%v), want %d files", dir, es, err, want)
		}
	}
}
