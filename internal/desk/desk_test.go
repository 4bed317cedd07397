package desk

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"berth/internal/compute/memory"
	"berth/internal/phony"
	"berth/internal/s3"
)

// uploads is a folder of objects, "bucket/key" as files.
type uploads string

func (u uploads) Stat(_ context.Context, bucket, key string) (s3.Info, error) {
	fi, err := os.Stat(filepath.Join(string(u), bucket, key))
	if errors.Is(err, os.ErrNotExist) {
		return s3.Info{}, s3.ErrNoSuchKey
	}
	if err != nil {
		return s3.Info{}, err
	}
	return s3.Info{Size: fi.Size()}, nil
}

func (u uploads) Stage(_ context.Context, bucket, key, dst string, progress func(done, total int64)) error {
	if err := os.Remove(dst); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	progress(1, 1)
	return os.Link(filepath.Join(string(u), bucket, key), dst)
}

var samples = struct {
	sync.Mutex
	dir string
}{}

func TestMain(m *testing.M) {
	if spec := os.Getenv(crashVariable); spec != "" {
		fmt.Fprintln(os.Stderr, crashed(spec))
		os.Exit(1)
	}
	var err error
	if samples.dir, err = os.MkdirTemp("", "berth-desk-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(samples.dir)
	os.Exit(code)
}

// sample is the exported machine of a txtar in testdata/machines, made once in a test run.
func sample(t *testing.T, name, format string) string {
	t.Helper()
	samples.Lock()
	defer samples.Unlock()
	path := filepath.Join(samples.dir, name+"."+format)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	m, err := phony.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Export(context.Background(), path, format); err != nil {
		t.Fatal(err)
	}
	return path
}

// fixture is a desk over a memory driver, with a bucket "b".
type fixture struct {
	*Desk
	t    *testing.T
	cfg  Config
	host *memory.Host
}

func newFixture(t *testing.T, change ...func(*Config)) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{t: t, host: memory.NewHost()}
	f.cfg = Config{DataDir: filepath.Join(dir, "data"), Region: "eu-west-1", Eligible: true, Objects: uploads(filepath.Join(dir, "s3")), WatchInterval: 50 * time.Millisecond}
	if err := os.MkdirAll(filepath.Join(dir, "s3", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(&f.cfg)
	}
	f.open()
	t.Cleanup(func() { f.Desk.Close() })
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	f.cfg.Driver = f.host.Open()
	d, err := New(context.Background(), f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Desk = d
}

// upload puts a file into bucket b under its own name.
func (f *fixture) upload(path string) string {
	f.t.Helper()
	key := filepath.Base(path)
	if err := os.Link(path, filepath.Join(string(f.cfg.Objects.(uploads)), "b", key)); err != nil && !errors.Is(err, os.ErrExist) {
		f.t.Fatal(err)
	}
	return key
}

// until asks again and again until what it asks for has come.
func until(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ask(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// refusal holds an error against the code of an AWS exception and a part of its message.
func refusal(t *testing.T, err error, code, text string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) {
		t.Errorf("want %s, got %v", code, err)
		return
	}
	if api.ErrorCode() != code || !strings.Contains(api.ErrorMessage(), text) {
		t.Errorf("want %s with %q, got %s: %s", code, text, api.ErrorCode(), api.ErrorMessage())
	}
}

// enabled enables BYOL and waits for it.
func (f *fixture) enabled() {
	f.t.Helper()
	if _, err := f.ModifyAccount(callerContext(), &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String("10.5.0.0/16")}); err != nil {
		f.t.Fatal(err)
	}
	until(f.t, "BYOL", func() bool {
		out, err := f.DescribeAccount(f.t.Context(), nil)
		return err == nil && out.DedicatedTenancySupport == types.DedicatedTenancySupportResultEnumEnabled
	})
}

// imported imports an upload and returns the task when it has ended.
func (f *fixture) imported(key string) ImportImageTask {
	f.t.Helper()
	out, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: []DiskContainer{{UserBucket: &UserBucket{S3Bucket: aws.String("b"), S3Key: aws.String(key)}}}})
	if err != nil {
		f.t.Fatal(err)
	}
	return f.ended(*out.ImportTaskID)
}

func (f *fixture) ended(task string) (t ImportImageTask) {
	f.t.Helper()
	until(f.t, "the end of "+task, func() bool {
		out, err := f.EC2().DescribeImportImageTasks(f.t.Context(), &DescribeImportImageTasksInput{ImportTaskIDs: []string{task}})
		if err != nil {
			f.t.Fatal(err)
		}
		t = out.ImportImageTasks[0]
		return *t.Status == taskCompleted || *t.Status == taskDeleted
	})
	return t
}

// ingested makes a WorkSpaces image of an AMI and returns it when it has ended.
func (f *fixture) ingested(ami, name string) (im types.WorkspaceImage) {
	f.t.Helper()
	out, err := f.ImportWorkspaceImage(callerContext(), &workspaces.ImportWorkspaceImageInput{Ec2ImageId: aws.String(ami), ImageName: aws.String(name), ImageDescription: aws.String("a test"), IngestionProcess: types.WorkspaceImageIngestionProcessByolRegular})
	if err != nil {
		f.t.Fatal(err)
	}
	until(f.t, "the end of the ingestion", func() bool {
		im = f.image(*out.ImageId)
		return im.State != types.WorkspaceImageStatePending
	})
	return im
}

// image is a WorkSpaces image as it is described.
func (f *fixture) image(id string) types.WorkspaceImage {
	f.t.Helper()
	out, err := f.DescribeWorkspaceImages(f.t.Context(), &workspaces.DescribeWorkspaceImagesInput{ImageIds: []string{id}})
	if err != nil || len(out.Images) != 1 {
		f.t.Fatalf("image %s: %+v, %v", id, out, err)
	}
	return out.Images[0]
}

// bundled makes a bundle of the sample machine, all steps before it included.
func (f *fixture) bundled() string {
	f.t.Helper()
	f.enabled()
	task := f.imported(f.upload(sample(f.t, phony.Base, "qcow2")))
	if *task.Status != taskCompleted {
		f.t.Fatalf("import: %s", aws.ToString(task.StatusMessage))
	}
	im := f.ingested(*task.ImageID, "win10")
	if im.State != types.WorkspaceImageStateAvailable {
		f.t.Fatalf("ingestion: %v %v", aws.ToString(im.ErrorMessage), im.ErrorDetails)
	}
	out, err := f.CreateWorkspaceBundle(f.t.Context(), &workspaces.CreateWorkspaceBundleInput{BundleName: aws.String("bundle"), BundleDescription: aws.String("a test"), ImageId: im.ImageId,
		ComputeType: &types.ComputeType{Name: types.ComputeValue}, UserStorage: &types.UserStorage{Capacity: aws.String("10")}})
	if err != nil {
		f.t.Fatal(err)
	}
	return *out.WorkspaceBundle.BundleId
}

// registered makes a directory with the user alice and registers it.
func (f *fixture) registered(tenancy types.Tenancy) string {
	f.t.Helper()
	ctx := f.t.Context()
	dir, err := f.Berth().CreateDirectory(ctx, &CreateDirectoryInput{Name: aws.String("corp.example.com")})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.Berth().CreateUser(ctx, &CreateUserInput{DirectoryId: dir.DirectoryId, UserName: aws.String("Alice"), Password: "correct horse"}); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: dir.DirectoryId, Tenancy: tenancy}); err != nil {
		f.t.Fatal(err)
	}
	until(f.t, "the registration", func() bool { return f.registration(*dir.DirectoryId) == types.WorkspaceDirectoryStateRegistered })
	return *dir.DirectoryId
}

func (f *fixture) registration(id string) types.WorkspaceDirectoryState {
	f.t.Helper()
	out, err := f.DescribeWorkspaceDirectories(f.t.Context(), &workspaces.DescribeWorkspaceDirectoriesInput{DirectoryIds: []string{id}})
	if err != nil {
		f.t.Fatal(err)
	}
	if len(out.Directories) == 0 {
		return ""
	}
	return out.Directories[0].State
}

func TestRecordsAreForNobodyElse(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"berth.db", "flows.db"} {
		if fi, err := os.Stat(f.file(name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, fi, err)
		}
	}
}

func TestManagementRanges(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.ReservedNetworks = []netip.Prefix{netip.MustParsePrefix("10.7.1.0/24"), netip.MustParsePrefix("172.16.0.0/12")}
		c.HostNetworks = func() ([]netip.Prefix, error) { return []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, nil }
	})
	all, err := f.managementRanges(netip.MustParsePrefix("0.0.0.0/0"))
	if err != nil {
		t.Fatal(err)
	}
	if want := 339 - 1 - 16 - 1; len(all) != want {
		t.Errorf("%d ranges are free, want %d", len(all), want)
	}
	var got []string
	in := &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: aws.String("10.0.0.0/12"), MaxResults: aws.Int32(2)}
	for pages := 0; ; pages++ {
		out, err := f.ListAvailableManagementCidrRanges(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, out.ManagementCidrRanges...)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if len(got) != 15 || got[0] != "10.0.0.0/16" || got[14] != "10.15.0.0/16" || strings.Contains(strings.Join(got, " "), "10.7.") {
		t.Errorf("paged ranges: %v", got)
	}
	if out, err := f.ListAvailableManagementCidrRanges(t.Context(), &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: aws.String("10.1.2.0/24")}); err != nil || len(out.ManagementCidrRanges) != 0 {
		t.Errorf("a constraint smaller than /16: %v, %v", out, err)
	}
	if none, _ := newFixture(t).managementRanges(netip.MustParsePrefix("0.0.0.0/0")); len(none) != 339 {
		t.Errorf("%d blocks in all, want 339", len(none))
	}
}

func TestAccountIsEnabledOnce(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.ReservedNetworks = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")} })
	in := func(cidr string) *workspaces.ModifyAccountInput {
		return &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String(cidr)}
	}
	_, err := f.ModifyAccount(t.Context(), in("10.9.0.0/16"))
	refusal(t, err, "InvalidParameterValuesException", "not available")
	_, err = f.ModifyAccount(t.Context(), in("11.0.0.0/16"))
	refusal(t, err, "InvalidParameterValuesException", "not available")
	_, err = f.ModifyAccount(t.Context(), &workspaces.ModifyAccountInput{})
	refusal(t, err, "InvalidParameterValuesException", "DedicatedTenancyManagementCidrRange")
	f.enabled()
	_, err = f.ModifyAccount(t.Context(), in("10.6.0.0/16"))
	refusal(t, err, "InvalidResourceStateException", "cannot be modified")
	out, err := f.DescribeAccountModifications(t.Context(), &workspaces.DescribeAccountModificationsInput{})
	if err != nil || len(out.AccountModifications) != 1 || out.AccountModifications[0].ModificationState != types.DedicatedTenancyModificationStateEnumCompleted {
		t.Errorf("modifications: %+v, %v", out, err)
	}
}

func TestAccountThatIsNotEligible(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Eligible = false; c.Guidance = "Talk to Carol." })
	_, err := f.ListAvailableManagementCidrRanges(t.Context(), &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: aws.String("10.0.0.0/8")})
	refusal(t, err, "AccessDeniedException", "Talk to Carol.")
	_, err = f.ModifyAccount(t.Context(), &workspaces.ModifyAccountInput{})
	refusal(t, err, "AccessDeniedException", "Talk to Carol.")
	out, err := f.DescribeAccount(t.Context(), nil)
	if err != nil || aws.ToString(out.Message) != "Talk to Carol." {
		t.Errorf("DescribeAccount: %+v, %v", out, err)
	}
}

func TestDesktop(t *testing.T) { newFixture(t).desktopLives() }

// desktopLives takes a desktop through its whole life.
func (f *fixture) desktopLives() {
	t := f.t
	bundle := f.bundled()
	dir := f.registered(types.TenancyDedicated)
	ctx := t.Context()
	create := func(user string) (*workspaces.CreateWorkspacesOutput, error) {
		return f.CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{{DirectoryId: &dir, UserName: &user, BundleId: &bundle,
			WorkspaceProperties: &types.WorkspaceProperties{RunningMode: types.RunningModeAutoStop}}}})
	}
	out, err := create("ALICE")
	if err != nil || len(out.PendingRequests) != 1 {
		t.Fatalf("CreateWorkspaces: %+v, %v", out, err)
	}
	id := *out.PendingRequests[0].WorkspaceId
	state := func() types.WorkspaceState {
		out, err := f.DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Workspaces) == 0 {
			return ""
		}
		return out.Workspaces[0].State
	}
	is := func(want types.WorkspaceState) {
		t.Helper()
		until(t, string(want), func() bool { return state() == want })
	}
	is(types.WorkspaceStateAvailable)
	for user, code := range map[string]string{"alice": "ResourceExists.WorkSpace", "bob": "ResourceNotFound.User"} {
		out, err := create(user)
		if err != nil || len(out.FailedRequests) != 1 || *out.FailedRequests[0].ErrorCode != code {
			t.Errorf("CreateWorkspaces for %s: %+v, %v; want %s", user, out, err, code)
		}
	}
	if _, err := f.DeregisterWorkspaceDirectory(ctx, &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: &dir}); err == nil {
		t.Error("a directory with a WorkSpace was deregistered")
	} else {
		refusal(t, err, "InvalidResourceStateException", "Terminate them")
	}
	if f.registration(dir) != types.WorkspaceDirectoryStateRegistered {
		t.Errorf("the refused deregistration left the directory %s", f.registration(dir))
	}

	stop, err := f.StopWorkspaces(ctx, &workspaces.StopWorkspacesInput{StopWorkspaceRequests: []types.StopRequest{{WorkspaceId: &id}, {WorkspaceId: aws.String("ws-nothere00")}}})
	if err != nil || len(stop.FailedRequests) != 1 || *stop.FailedRequests[0].ErrorCode != "ResourceNotFound.Workspace" {
		t.Errorf("StopWorkspaces: %+v, %v", stop, err)
	}
	is(types.WorkspaceStateStopped)
	reboot, err := f.RebootWorkspaces(ctx, &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []types.RebootRequest{{WorkspaceId: &id}}})
	if err != nil || len(reboot.FailedRequests) != 1 || *reboot.FailedRequests[0].ErrorCode != "InvalidResourceState.Workspace" {
		t.Errorf("rebooting a stopped WorkSpace: %+v, %v", reboot, err)
	}
	if _, err := f.StartWorkspaces(ctx, &workspaces.StartWorkspacesInput{StartWorkspaceRequests: []types.StartRequest{{WorkspaceId: &id}}}); err != nil {
		t.Fatal(err)
	}
	is(types.WorkspaceStateAvailable)
	boots := f.host.GuestBoots(id)
	if _, err := f.RebootWorkspaces(ctx, &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []types.RebootRequest{{WorkspaceId: &id}}}); err != nil {
		t.Fatal(err)
	}
	is(types.WorkspaceStateAvailable)
	until(t, "the reboot", func() bool { return f.host.GuestBoots(id) == boots+1 })

	// A machine that dies is started again.
	f.host.Kill(id)
	until(t, "the machine's return", func() bool { return f.host.GuestBoots(id) == boots+2 })

	if _, err := f.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []types.TerminateRequest{{WorkspaceId: &id}}}); err != nil {
		t.Fatal(err)
	}
	is("")
	if v := f.host.Volumes(id); len(v) != 0 {
		t.Errorf("volumes are left: %v", v)
	}
	if _, err := f.DeregisterWorkspaceDirectory(ctx, &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: &dir}); err != nil {
		t.Fatal(err)
	}
	until(t, "the deregistration", func() bool { return f.registration(dir) == "" })
	if _, err := f.RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &dir}); err != nil {
		t.Fatal(err)
	}
	until(t, "the second registration", func() bool { return f.registration(dir) == types.WorkspaceDirectoryStateRegistered })
	shared, err := create("alice")
	if err != nil || len(shared.FailedRequests) != 1 || *shared.FailedRequests[0].ErrorCode != "UnsupportedWorkspaceConfiguration.Tenancy" {
		t.Errorf("CreateWorkspaces in a shared directory: %+v, %v", shared, err)
	}
}

// digest is that of a snapshot's stored disk.
func (f *fixture) digest(snapshot string) (digest string) {
	f.t.Helper()
	if err := f.db.NewSelect().Model((*snapshotRecord)(nil)).Column("digest").Where("id = ?", snapshot).Scan(f.t.Context(), &digest); err != nil {
		f.t.Fatal(err)
	}
	return digest
}
