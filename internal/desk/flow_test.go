package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/awsapi"
	"berth/internal/compute"
	"berth/internal/compute/memory"
	"berth/internal/phony"
)

// The harness: every step of every flow crashes (kill -9 of a child process, before its effect and after it), fails in
// passing, is repeated, and fails for good; then everything is as if nothing had happened, or as if nothing had been asked.

// ids are what a scenario's preparation made, kept beside the data so that a child process finds them.
type ids map[string]string

// scenario exercises one flow.
type scenario struct {
	flow *flow
	// prepare brings a desk to the point where the flow can be asked for.
	prepare func(f *fixture) ids
	// trigger asks for it, with the id under which it can be looked for.
	trigger func(ctx context.Context, d *Desk, x ids) error
	// state is the state of what the flow works on; it ends as done, or as failed when a step fails for good.
	state        func(ctx context.Context, d *Desk, x ids) (string, error)
	done, failed string
}

func scenarios() []scenario {
	nothing := func(*fixture) ids { return ids{} }
	imported := func(f *fixture) ids {
		f.enabled()
		return ids{"ami": *f.imported(f.upload(sample(f.t, phony.Base, "qcow2"))).ImageID}
	}
	directory := func(f *fixture) ids {
		dir, err := f.Berth().CreateDirectory(f.t.Context(), &CreateDirectoryInput{Name: aws.String("corp.example.com")})
		if err != nil {
			f.t.Fatal(err)
		}
		return ids{"directory": *dir.DirectoryId}
	}
	desktop := func(f *fixture) ids {
		return ids{"bundle": f.bundled(), "directory": f.registered(types.TenancyDedicated)}
	}
	running := func(f *fixture) ids {
		x := desktop(f)
		if err := launch(f.t.Context(), f.Desk, x); err != nil {
			f.t.Fatal(err)
		}
		f.reaches(x, workspaceAvailable)
		return x
	}
	stopped := func(f *fixture) ids {
		x := running(f)
		if err := stop(f.t.Context(), f.Desk, x); err != nil {
			f.t.Fatal(err)
		}
		f.reaches(x, workspaceStopped)
		return x
	}
	registration := func(ctx context.Context, d *Desk, x ids) (string, error) {
		out, err := d.DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{})
		if err != nil || len(out.Directories) == 0 {
			return "", err
		}
		return string(out.Directories[0].State), nil
	}
	return []scenario{
		{&enableAccount, nothing, func(ctx context.Context, d *Desk, x ids) error {
			_, err := d.ModifyAccount(ctx, &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String("10.5.0.0/16")})
			return err
		}, func(ctx context.Context, d *Desk, x ids) (string, error) {
			out, err := d.DescribeAccountModifications(ctx, &workspaces.DescribeAccountModificationsInput{})
			if err != nil || len(out.AccountModifications) != 1 {
				return "", err
			}
			return string(out.AccountModifications[0].ModificationState), nil
		}, stateCompleted, stateFailed},
		{&importDisk, func(f *fixture) ids { return ids{"key": f.upload(sample(f.t, phony.Base, "ova"))} }, func(ctx context.Context, d *Desk, x ids) error {
			_, err := d.EC2().ImportImage(ctx, &ImportImageInput{ClientToken: aws.String("once"), DiskContainers: []DiskContainer{{UserBucket: &UserBucket{S3Bucket: aws.String("b"), S3Key: aws.String(x["key"])}}}})
			return err
		}, func(ctx context.Context, d *Desk, x ids) (string, error) {
			out, err := d.EC2().DescribeImportImageTasks(ctx, &DescribeImportImageTasksInput{})
			if err != nil || len(out.ImportImageTasks) != 1 {
				return "", err
			}
			return *out.ImportImageTasks[0].Status, nil
		}, taskCompleted, taskDeleted},
		{&ingestImage, imported, func(ctx context.Context, d *Desk, x ids) error {
			_, err := d.ImportWorkspaceImage(ctx, &workspaces.ImportWorkspaceImageInput{Ec2ImageId: aws.String(x["ami"]), ImageName: aws.String("win10"), ImageDescription: aws.String("a test"), IngestionProcess: types.WorkspaceImageIngestionProcessByolRegular})
			return err
		}, func(ctx context.Context, d *Desk, x ids) (string, error) {
			out, err := d.DescribeWorkspaceImages(ctx, &workspaces.DescribeWorkspaceImagesInput{})
			if err != nil || len(out.Images) != 1 {
				return "", err
			}
			return string(out.Images[0].State), nil
		}, imageAvailable, imageError},
		{&importCustomImage, imported, func(ctx context.Context, d *Desk, x ids) error {
			_, err := d.ImportCustomWorkspaceImage(ctx, customImage("win10", &types.ImageSourceIdentifierMemberEc2ImageId{Value: x["ami"]}))
			return err
		}, func(ctx context.Context, d *Desk, x ids) (string, error) {
			out, err := d.DescribeWorkspaceImages(ctx, &workspaces.DescribeWorkspaceImagesInput{})
			if err != nil || len(out.Images) != 1 {
				return "", err
			}
			c, err := d.DescribeCustomWorkspaceImageImport(ctx, &workspaces.DescribeCustomWorkspaceImageImportInput{ImageId: out.Images[0].ImageId})
			if err != nil {
				return "", err
			}
			return string(out.Images[0].State) + " " + string(c.State), nil
		}, imageAvailable + " COMPLETED", imageError + " ERROR"},
		{&registerDirectory, directory, func(ctx context.Context, d *Desk, x ids) error {
			_, err := d.RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: aws.String(x["directory"])})
			return err
		}, registration, directoryRegistered, directoryError},
		{&deregisterDirectory, func(f *fixture) ids { return ids{"directory": f.registered(types.TenancyShared)} }, func(ctx context.Context, d *Desk, x ids) error {
			_, err := d.DeregisterWorkspaceDirectory(ctx, &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: aws.String(x["directory"])})
			return err
		}, registration, "", directoryError},
		{&createWorkspace, desktop, launch, desktopState, workspaceAvailable, workspaceError},
		{&stopWorkspace, running, stop, desktopState, workspaceStopped, workspaceAvailable}, // it is revived
		{&startWorkspace, stopped, func(ctx context.Context, d *Desk, x ids) error {
			return changed(d.StartWorkspaces(ctx, &workspaces.StartWorkspacesInput{StartWorkspaceRequests: []types.StartRequest{{WorkspaceId: aws.String(desktopID(d))}}}))
		}, desktopState, workspaceAvailable, workspaceAvailable},
		{&rebootWorkspace, running, func(ctx context.Context, d *Desk, x ids) error {
			return changed(d.RebootWorkspaces(ctx, &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []types.RebootRequest{{WorkspaceId: aws.String(desktopID(d))}}}))
		}, desktopState, workspaceAvailable, workspaceAvailable},
		{&terminateWorkspace, running, func(ctx context.Context, d *Desk, x ids) error {
			return changed(d.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []types.TerminateRequest{{WorkspaceId: aws.String(desktopID(d))}}}))
		}, desktopState, "", workspaceError},
	}
}

func scenarioOf(t *testing.T, fl *flow) scenario {
	t.Helper()
	i := slices.IndexFunc(scenarios(), func(s scenario) bool { return s.flow == fl })
	if i < 0 {
		t.Fatalf("flow %s has no scenario", fl.name)
	}
	return scenarios()[i]
}

func launch(ctx context.Context, d *Desk, x ids) error {
	out, err := d.CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{{DirectoryId: aws.String(x["directory"]), UserName: aws.String("alice"), BundleId: aws.String(x["bundle"]),
		WorkspaceProperties: &types.WorkspaceProperties{RunningMode: types.RunningModeManual}}}})
	if err == nil && len(out.FailedRequests) > 0 {
		err = errors.New(*out.FailedRequests[0].ErrorMessage)
	}
	return err
}

func stop(ctx context.Context, d *Desk, x ids) error {
	return changed(d.StopWorkspaces(ctx, &workspaces.StopWorkspacesInput{StopWorkspaceRequests: []types.StopRequest{{WorkspaceId: aws.String(desktopID(d))}}}))
}

// changed makes an error of a refused change.
func changed[T any](out *T, err error) error {
	if err != nil {
		return err
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	var x struct {
		FailedRequests []types.FailedWorkspaceChangeRequest
	}
	if err := json.Unmarshal(b, &x); err != nil || len(x.FailedRequests) == 0 {
		return err
	}
	return errors.New(aws.ToString(x.FailedRequests[0].ErrorMessage))
}

func desktopID(d *Desk) string {
	out, err := d.DescribeWorkspaces(context.Background(), &workspaces.DescribeWorkspacesInput{})
	if err != nil || len(out.Workspaces) == 0 {
		return ""
	}
	return *out.Workspaces[0].WorkspaceId
}

func desktopState(ctx context.Context, d *Desk, _ ids) (string, error) {
	out, err := d.DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{})
	if err != nil || len(out.Workspaces) == 0 {
		return "", err
	}
	return string(out.Workspaces[0].State), nil
}

func (f *fixture) reaches(x ids, want string) {
	f.t.Helper()
	until(f.t, want, func() bool {
		s, err := desktopState(f.t.Context(), f.Desk, x)
		return err == nil && s == want
	})
}

func TestEveryFlowIsUnderTheHarness(t *testing.T) {
	for _, fl := range flows() {
		if !slices.ContainsFunc(scenarios(), func(s scenario) bool { return s.flow.name == fl.name }) {
			t.Errorf("flow %s has no scenario", fl.name)
		}
		var names []string
		for _, st := range fl.steps {
			if slices.Contains(names, st.name) || st.name == "fail" {
				t.Errorf("flow %s: step name %q is taken", fl.name, st.name)
			}
			names = append(names, st.name)
		}
		if fl.fail == nil || fl.pending == nil {
			t.Errorf("flow %s: no way to fail, or to find what is pending", fl.name)
		}
	}
}

// place is a point in a flow: before a step, or after its effect and before that is recorded.
type place struct {
	flow, step string
	done       bool
}

func (p place) String() string {
	if p.done {
		return "after " + p.step
	}
	return "before " + p.step
}

// places are all points of a flow, with those of its failure.
func (s scenario) places() (ps []place) {
	for _, st := range append(slices.Clone(s.flow.steps), step{name: "fail"}) {
		ps = append(ps, place{s.flow.name, st.name, false}, place{s.flow.name, st.name, true})
	}
	return ps
}

// once is a hook that does something the first time that a point is passed. A flow whose failure is wanted fails at the
// first step.
func once(at place, do func() error) StepHook {
	var mu sync.Mutex
	var been bool
	return func(flow, step string, done bool) error {
		mu.Lock()
		defer mu.Unlock()
		if flow == at.flow && at.step == "fail" && step != "fail" {
			return &failure{Code: "Injected", Message: "the test wants it to fail"}
		}
		if been || (place{flow, step, done}) != at {
			return nil
		}
		been = true
		return do()
	}
}

// prepared makes a scenario's data once; every test of it works on a copy.
func (s scenario) prepared(t *testing.T, change ...func(*Config)) (dir string, x ids) {
	f := newFixture(t, change...)
	x = s.prepare(f)
	if err := f.Desk.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(f.cfg.DataDir), x
}

// copied copies data for one test: what never changes by link, the rest by content.
func copied(t *testing.T, from string) string {
	to := t.TempDir()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch out := filepath.Join(to, rel); {
		case e.IsDir():
			return os.MkdirAll(out, 0o700)
		case strings.Contains(rel, ".db"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(out, b, 0o600)
		default:
			return os.Link(path, out)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func opened(dir, database string, host *memory.Host, hook StepHook) (*Desk, error) {
	return New(context.Background(), Config{DataDir: filepath.Join(dir, "data"), Database: database, Region: "eu-west-1", Eligible: true, Objects: uploads(filepath.Join(dir, "s3")),
		Driver: host.Open(), WatchInterval: 20 * time.Millisecond, StepPause: time.Millisecond, StepHook: hook})
}

// settles opens the data again if need be, waits for the end, and holds what is there against what should be.
func (s scenario) settles(t *testing.T, d *Desk, host *memory.Host, x ids, want string) {
	t.Helper()
	until(t, "the state "+want, func() bool {
		got, err := s.state(t.Context(), d, x)
		if err != nil {
			t.Fatal(err)
		}
		return got == want
	})
	until(t, "a sound desk", func() bool { return d.unsound(t, host) == "" })
}

// unsound says what is doubled, lost or left over in a desk at rest; "" when nothing is.
func (d *Desk) unsound(t *testing.T, host *memory.Host) string {
	if s := d.misplaced(t); s != "" {
		return s
	}
	ctx := t.Context()
	for _, q := range []string{
		"SELECT count(*) FROM import_tasks t WHERE status = 'completed' AND NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.task_id = t.id)",
		"SELECT count(*) FROM snapshots s WHERE NOT EXISTS (SELECT 1 FROM import_tasks t WHERE s.task_id = t.id AND t.status = 'completed')",
		"SELECT count(*) FROM workspaces WHERE id <> (SELECT min(id) FROM workspaces)",
	} {
		var n int
		if err := d.db.NewRaw(q).Scan(ctx, &n); err != nil {
			t.Fatal(err)
		}
		if n != 0 {
			return fmt.Sprintf("%d rows of %s", n, q)
		}
	}
	machines, err := host.Open().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	id := desktopID(d)
	r, err := d.workspace(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	m, exists := r.machine()
	switch {
	case !exists && len(machines) != 0:
		return fmt.Sprintf("machines are left over: %v", machines)
	case exists && (len(machines) != 1 || machines[0].ID != id || m.Running != (machines[0].State == compute.Running)):
		return fmt.Sprintf("wanted is %+v, there is %+v", m, machines)
	}
	return ""
}

// misplaced says which files no record knows, and which records have no file; "" when none.
func (d *Desk) misplaced(t *testing.T) string {
	ctx := t.Context()
	for _, kind := range []struct{ dir, query string }{
		{"imports", "SELECT '' WHERE FALSE"},
		{"stored", "SELECT substr(digest, 8) || '.qcow2' FROM stored_images ORDER BY digest"},
	} {
		var want, got []string
		if err := d.db.NewRaw(kind.query).Scan(ctx, &want); err != nil {
			t.Fatal(err)
		}
		es, err := os.ReadDir(d.file(kind.dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			got = append(got, e.Name())
		}
		if !slices.Equal(got, want) {
			return fmt.Sprintf("folder %s has %v, the records say %v", kind.dir, got, want)
		}
	}
	for _, q := range []string{
		"SELECT count(*) FROM launch_permissions",
		"SELECT count(*) FROM import_disks WHERE digest IS NOT NULL",
		"SELECT count(*) FROM snapshots WHERE digest IS NULL",
		"SELECT count(*) FROM workspace_images WHERE (state = 'AVAILABLE') <> (digest IS NOT NULL)",
		"SELECT count(*) FROM stored_images WHERE digest NOT IN (" + references + ")",
	} {
		var n int
		if err := d.db.NewRaw(q).Scan(ctx, &n); err != nil {
			t.Fatal(err)
		}
		if n != 0 {
			return fmt.Sprintf("%d rows of %s", n, q)
		}
	}
	return ""
}

func TestEveryStepFailsAndIsRepeated(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.flow.name, func(t *testing.T) {
			t.Parallel()
			base, x := s.prepared(t)
			for _, at := range s.places() {
				t.Run(at.String(), func(t *testing.T) { s.failsAndIsRepeated(t, copied(t, base), "", at, x) })
			}
		})
	}
}

// failsAndIsRepeated has one step fail in passing, on data of its own.
func (s scenario) failsAndIsRepeated(t *testing.T, dir, database string, at place, x ids) {
	host, passed := memory.NewHost(), make(chan struct{})
	d, err := opened(dir, database, host, once(at, func() error { close(passed); return errors.New("passing trouble") }))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := s.trigger(callerContext(), d, x); err != nil {
		t.Fatal(err)
	}
	select {
	case <-passed:
	case <-time.After(time.Minute):
		t.Fatal("the point was never passed")
	}
	s.settles(t, d, host, x, s.end(at))
}

// end is the state that a flow ends in when something happens at a point.
func (s scenario) end(at place) string {
	if at.step == "fail" {
		return s.failed
	}
	return s.done
}

// callerContext is a context of a caller who may do everything.
func callerContext() context.Context {
	p, err := awsapi.ParsePolicy(awsapi.AdministratorAccess)
	if err != nil {
		panic(err) // it is a constant
	}
	return awsapi.WithCaller(context.Background(), awsapi.NewCaller(awsapi.AccessKey{ID: "AKIATEST", UserName: "tester", AccountID: "111122223333", Policy: p}, awsapi.JSON11))
}

const crashVariable = "BERTH_TEST_CRASH"

// unkept is no step, but a place inside one: a disk has been made, and is not kept yet.
const unkept = "unkept"

// crash is what a child process is told: where its data are, and where to die.
type crash struct {
	Dir, Flow, Step string
	Done            bool
	IDs             ids
}

func TestEveryStepCrashes(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.flow.name, func(t *testing.T) {
			t.Parallel()
			base, x := s.prepared(t)
			for _, at := range s.places() {
				t.Run(at.String(), func(t *testing.T) {
					dir := copied(t, base)
					crash{dir, at.flow, at.step, at.done, x}.happens(t)
					host := memory.NewHost()
					hook := once(place{flow: at.flow, step: at.step}, func() error { return nil }) // it still fails where failing is wanted
					d, err := opened(dir, "", host, hook)
					if err != nil {
						t.Fatal(err)
					}
					defer d.Close()
					s.settles(t, d, host, x, s.end(at))
				})
			}
		})
	}
}

// happens runs the child process, to its death.
func (c crash) happens(t *testing.T) {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), crashVariable+"="+string(b))
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Fatalf("the child should have been killed: %v\n%s", err, out)
	}
}

// crashed is the child process: it asks for the flow and dies at the point.
func crashed(spec string) error {
	var c crash
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	i := slices.IndexFunc(scenarios(), func(s scenario) bool { return s.flow.name == c.Flow })
	s := scenarios()[i]
	d, err := opened(c.Dir, "", memory.NewHost(), once(place{c.Flow, c.Step, c.Done}, func() error {
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}))
	if err != nil {
		return err
	}
	if c.Step == unkept {
		d.storing.Lock()
	}
	if err := s.trigger(callerContext(), d, c.IDs); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); c.Step == unkept && time.Now().Before(end); time.Sleep(time.Millisecond) {
		if made, err := filepath.Glob(d.file("imports", "*", "disk-1.qcow2")); err != nil || len(made) > 0 {
			return errors.Join(err, syscall.Kill(os.Getpid(), syscall.SIGKILL))
		}
	}
	time.Sleep(30 * time.Second)
	return errors.New("the point was never passed")
}
