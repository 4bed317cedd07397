package desk

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/awsapi"
	"berth/internal/console"
	"berth/internal/gateway"
	"berth/internal/phony"
)

// states are the steps' states, one letter each: d(one), i(n progress), t(o do), a(ttention).
func (f *fixture) states() string {
	f.t.Helper()
	var b strings.Builder
	for i, s := range f.steps() {
		if s.Number != i+1 || s.Title == "" || s.Summary == "" {
			f.t.Errorf("step %d: %+v", i+1, s)
		}
		b.WriteByte(s.State[0])
	}
	return b.String()
}

func (f *fixture) steps() []console.Step {
	f.t.Helper()
	ss, err := f.Steps(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return ss
}

func (f *fixture) shows(states string) {
	f.t.Helper()
	if got := f.states(); got != states {
		f.t.Errorf("the steps are %s, want %s", got, states)
	}
}

// item is what a step shows about an id.
func (f *fixture) item(step int, id string) console.Item {
	f.t.Helper()
	items := f.steps()[step-1].Items
	i := slices.IndexFunc(items, func(it console.Item) bool { return it.ID == id })
	if i < 0 {
		f.t.Fatalf("step %d does not show %s: %+v", step, id, items)
	}
	return items[i]
}

func TestSteps(t *testing.T) {
	f := newFixture(t)
	f.shows("tttttttt")
	bundle := f.bundled()
	f.shows("ddddddtt")
	dir := f.registered(types.TenancyShared)
	f.shows("ddddddtt") // a shared directory is not what the step is about
	if it := f.item(7, dir); it.State != "REGISTERED" || !strings.HasPrefix(it.Detail, "shared, ") {
		t.Errorf("the shared directory: %+v", it)
	}
	if _, err := f.DeregisterWorkspaceDirectory(t.Context(), &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: &dir}); err != nil {
		t.Fatal(err)
	}
	until(t, "the deregistration", func() bool { return f.registration(dir) == "" })
	if it := f.item(7, dir); it.State != "not registered" || it.Detail != "" {
		t.Errorf("the directory that is not registered: %+v", it)
	}
	if _, err := f.RegisterWorkspaceDirectory(t.Context(), &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &dir, Tenancy: types.TenancyDedicated}); err != nil {
		t.Fatal(err)
	}
	until(t, "the registration", func() bool { return f.states() == "dddddddt" })
	out, err := f.CreateWorkspaces(t.Context(), &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{{DirectoryId: &dir, UserName: aws.String("alice"), BundleId: &bundle}}})
	if err != nil || len(out.PendingRequests) != 1 {
		t.Fatalf("%+v %v", out, err)
	}
	until(t, "the desktop", func() bool { return f.states() == "dddddddd" })
	id := *out.PendingRequests[0].WorkspaceId
	if it := f.item(8, id); it.State != "AVAILABLE" || !strings.HasPrefix(it.Name, "alice on DESKTOP-") || !strings.Contains(it.Detail, bundle) {
		t.Errorf("the desktop: %+v", it)
	}
	if s := f.steps()[7].Summary; s != "1 WorkSpace: 1 AVAILABLE." {
		t.Errorf("summary: %s", s)
	}
	if it := f.steps()[1].Items[0]; it.State != "fit" || !strings.HasPrefix(it.Name, "Windows Enterprise 2004 en-US") || !strings.Contains(it.Detail, " passed") {
		t.Errorf("the check: %+v", it)
	}
	if it := f.steps()[2].Items[0]; it.Name != "s3://b/"+phony.Base+".qcow2" || it.State != "QCOW2" || !strings.HasSuffix(it.Detail, "iB") {
		t.Errorf("the upload: %+v", it)
	}
	if it := f.steps()[5].Items[0]; it.ID != bundle || it.Detail == "" {
		t.Errorf("the bundle: %+v", it)
	}
}

func TestStepsThatNeedAttention(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Eligible = false; c.Guidance = "Talk to Carol." })
	if s := f.steps()[0]; s.State != console.Attention || s.Summary != "Talk to Carol." {
		t.Errorf("an account that is not eligible: %+v", s)
	}

	f = newFixture(t, func(c *Config) { c.EnableDelay = 300 * time.Millisecond })
	if _, err := f.ModifyAccount(callerContext(), &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String("10.5.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if s := f.steps()[0]; s.State != console.InProgress || s.Items[0].State != "PENDING" || s.Items[0].Name != "10.5.0.0/16" {
		t.Errorf("an account that is being enabled: %+v", s)
	}
	until(t, "BYOL", func() bool { return f.steps()[0].State == console.Done })

	task := f.imported("nothing.qcow2")
	if s := f.steps()[3]; s.State != console.Attention || s.Items[0].Detail != aws.ToString(task.StatusMessage) || s.Items[0].Detail == "" {
		t.Errorf("an import that failed: %+v", s)
	}
	unfit := f.imported(f.upload(sample(t, "in-place-upgrade", "qcow2")))
	f.ingested(*unfit.ImageID, "unfit")
	ss := f.steps()
	if s := ss[1]; s.State != console.Attention || s.Items[0].State != "not fit" || !strings.Contains(s.Items[0].Detail, "InPlaceUpgrade") {
		t.Errorf("the check of an unfit disk: %+v", s)
	}
	if it := ss[1].Items[0]; !it.Report {
		t.Errorf("no report of %+v", it)
	} else if page, err := f.Report(t.Context(), it.ID); err != nil || !strings.Contains(string(page), "NOT FIT") || !strings.Contains(string(page), `SYSTEM\Setup has the subkey`) || !strings.Contains(string(page), "Set up a new machine") {
		t.Errorf("the report: %v\n%s", err, page)
	}
	if page, err := f.Report(t.Context(), "wsi-none"); !errors.Is(err, fs.ErrNotExist) || page != nil {
		t.Errorf("a report of nothing: %v\n%s", err, page)
	}
	if s := ss[4]; s.State != console.Attention || s.Items[0].State != "ERROR" || !strings.Contains(s.Items[0].Detail, "InPlaceUpgrade") {
		t.Errorf("the image of an unfit disk: %+v", s)
	}
}

func TestManyThingsAreCountedAndFewShown(t *testing.T) {
	f := newFixture(t)
	dir := &directoryRecord{ID: "d-1", Name: "a.example", CreatedAt: f.now()}
	image := &workspaceImageRecord{ID: "wsi-1", Name: "i", State: imageAvailable, Applications: []string{}, ErrorDetails: []failureRecord{}, CreatedAt: f.now()}
	bundle := &bundleRecord{ID: "wsb-1", Name: "b", ImageID: "wsi-1", CreatedAt: f.now()}
	for _, r := range []any{dir, image, bundle} {
		if _, err := f.db.NewInsert().Model(r).Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		r := &workspaceRecord{ID: "ws-" + string(rune('a'+i)), DirectoryID: "d-1", UserName: string(rune('a' + i)), BundleID: "wsb-1", State: workspaceStopped, RunningMode: "AUTO_STOP", CreatedAt: f.now().Add(time.Duration(i) * time.Second), StateSince: f.now()}
		if i == 0 { // the oldest, which is not among those shown
			r.State = workspaceError
		}
		if _, err := f.db.NewInsert().Model(r).Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s := f.steps()[7]
	if s.State != console.Attention || len(s.Items) != shownItems || s.Summary != "30 WorkSpaces: 1 ERROR, 29 STOPPED." {
		t.Errorf("%s, %d items, %s", s.State, len(s.Items), s.Summary)
	}
}

// keyContext is a request signed with a key.
func (f *fixture) keyContext(id string) context.Context {
	f.t.Helper()
	k, err := f.AccessKey(f.t.Context(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return awsapi.WithCaller(f.t.Context(), awsapi.NewCaller(k, awsapi.JSON11))
}

func TestConsoleKeys(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	key := func(policy string) (id, secret string) {
		t.Helper()
		out, err := f.Berth().CreateAccessKey(ctx, &CreateAccessKeyInput{UserName: aws.String("u"), Policy: aws.String(policy)})
		if err != nil {
			t.Fatal(err)
		}
		return *out.AccessKeyId, *out.SecretAccessKey
	}
	id, secret := key(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"workspaces:Describe*","Resource":"*"}]}`)
	other, otherSecret := key(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:*","Resource":"*"}]}`)
	if err := f.SignInWithKey(ctx, id, secret); err != nil {
		t.Errorf("the right secret: %v", err)
	}
	for _, x := range [][2]string{{id, secret + "x"}, {id, ""}, {id, otherSecret}, {other, otherSecret}, {"AKIANONE", secret}, {"AKIANONE", ""}, {"", ""}} {
		if err := f.SignInWithKey(ctx, x[0], x[1]); !errors.Is(err, console.ErrSignIn) {
			t.Errorf("%v: %v", x, err)
		}
	}
	_, err := f.Berth().CreateConsoleToken(f.keyContext(other), nil)
	refusal(t, err, "AccessDeniedException", "workspaces:DescribeWorkspaces")
	_, err = f.Berth().CreateConsoleToken(ctx, nil)
	refusal(t, err, "AccessDeniedException", "workspaces:DescribeWorkspaces")
	out, err := f.Berth().CreateConsoleToken(f.keyContext(id), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Berth().DeleteAccessKey(ctx, &DeleteAccessKeyInput{AccessKeyId: &id}); err != nil {
		t.Fatal(err)
	}
	if err := f.AdmitKey(ctx, id); !errors.Is(err, console.ErrSignIn) {
		t.Errorf("a deleted key: %v", err)
	}
	if _, err := f.RedeemConsoleToken(ctx, *out.Token); !errors.Is(err, console.ErrSignIn) {
		t.Errorf("a deleted key's link: %v", err)
	}
}

func TestConsoleTokens(t *testing.T) {
	var passed atomic.Int64
	f := newFixture(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) } })
	admin, _, err := f.AdminKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token := func() string {
		t.Helper()
		out, err := f.Berth().CreateConsoleToken(f.keyContext(admin.ID), nil)
		if err != nil {
			t.Fatal(err)
		}
		return *out.Token
	}
	one := token()
	var redeemed atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if id, err := f.RedeemConsoleToken(t.Context(), one); err == nil && id == admin.ID {
				redeemed.Add(1)
			} else if !errors.Is(err, console.ErrSignIn) {
				t.Errorf("redeeming: %v", err)
			}
		})
	}
	all.Wait()
	if redeemed.Load() != 1 {
		t.Errorf("a link signed in %d times", redeemed.Load())
	}
	for _, x := range []string{"", one[1:], "%"} {
		if _, err := f.RedeemConsoleToken(t.Context(), x); !errors.Is(err, console.ErrSignIn) {
			t.Errorf("the token %q: %v", x, err)
		}
	}

	kept, late := token(), token()
	f.Desk.Close()
	f.open() // a link outlives the process
	if _, err := f.RedeemConsoleToken(t.Context(), kept); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	passed.Store(int64(consoleTokenLife))
	if _, err := f.RedeemConsoleToken(t.Context(), late); !errors.Is(err, console.ErrSignIn) {
		t.Errorf("after an hour: %v", err)
	}
	passed.Store(0)
	token()
	passed.Store(int64(consoleTokenLife))
	token()
	var keys []string
	if err := f.db.NewSelect().Model((*settingRecord)(nil)).Column("key").Where("key LIKE ?", consoleTokens+"%").Scan(t.Context(), &keys); err != nil || len(keys) != 1 {
		t.Errorf("kept tokens: %v, %v; want the newest alone", keys, err)
	}
	if strings.Contains(strings.Join(keys, " "), one) {
		t.Error("a token is kept as it is")
	}
}

func TestScreenIsItsUsersAlone(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	bundle := f.bundled()
	dir := f.registered(types.TenancyDedicated)
	if _, err := f.Berth().CreateUser(ctx, &CreateUserInput{DirectoryId: &dir, UserName: aws.String("bob"), Password: "battery staple"}); err != nil {
		t.Fatal(err)
	}
	out, err := f.CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{{DirectoryId: &dir, UserName: aws.String("alice"), BundleId: &bundle,
		WorkspaceProperties: &types.WorkspaceProperties{RunningMode: types.RunningModeAutoStop}}}})
	if err != nil || len(out.PendingRequests) != 1 {
		t.Fatalf("%+v %v", out, err)
	}
	id := *out.PendingRequests[0].WorkspaceId
	dirs, err := f.DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{})
	if err != nil {
		t.Fatal(err)
	}
	code := *dirs.Directories[0].RegistrationCode
	for _, x := range [][3]string{{code, "alice", "battery staple"}, {code, "carol", "correct horse"}, {code + "x", "alice", "correct horse"}, {"", "", ""}, {dir, "alice", "correct horse"}} {
		if _, err := f.SignIn(ctx, x[0], x[1], x[2]); !errors.Is(err, gateway.ErrSignIn) {
			t.Errorf("%v: %v", x, err)
		}
	}
	alice, err := f.SignIn(ctx, code, "ALICE", "correct horse")
	if err != nil || alice.DirectoryID != dir || alice.Name != "alice" {
		t.Fatalf("alice: %+v %v", alice, err)
	}
	bob, err := f.SignIn(ctx, code, "bob", "battery staple")
	if err != nil {
		t.Fatal(err)
	}
	state := func(want string) {
		t.Helper()
		until(t, want, func() bool {
			ds, err := f.Desktops(ctx, alice)
			return err == nil && len(ds) == 1 && ds[0].WorkspaceID == id && ds[0].State == want
		})
	}
	state("AVAILABLE")
	conn, err := f.Connect(ctx, alice, id)
	if err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 3)
	if _, err := conn.Read(hello); err != nil || string(hello) != "RFB" {
		t.Errorf("the screen says %q, %v", hello, err)
	}
	conn.Close()
	if ds, err := f.Desktops(ctx, bob); err != nil || len(ds) != 0 {
		t.Errorf("bob's desktops: %v %v", ds, err)
	}
	for _, x := range []struct {
		u  gateway.User
		id string
	}{{bob, id}, {alice, "ws-none"}, {alice, ""}, {alice, "../" + id}} {
		if _, err := f.Connect(ctx, x.u, x.id); !errors.Is(err, gateway.ErrNoDesktop) {
			t.Errorf("%s connecting to %q: %v", x.u.Name, x.id, err)
		}
	}
	if _, err := f.StopWorkspaces(ctx, &workspaces.StopWorkspacesInput{StopWorkspaceRequests: []types.StopRequest{{WorkspaceId: &id}}}); err != nil {
		t.Fatal(err)
	}
	state("STOPPED")
	if _, err := f.Connect(ctx, alice, id); !errors.Is(err, gateway.ErrNotRunning) {
		t.Errorf("connecting to a stopped WorkSpace: %v", err)
	}
	// DeleteUser refuses while there is a WorkSpace; a directory of another kind may not.
	if err := f.domain(dir).Delete(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Desktops(ctx, alice); !errors.Is(err, gateway.ErrSignIn) {
		t.Errorf("a deleted user's desktops: %v", err)
	}
	if _, err := f.Connect(ctx, alice, id); !errors.Is(err, gateway.ErrSignIn) {
		t.Errorf("a deleted user connecting: %v", err)
	}
}
