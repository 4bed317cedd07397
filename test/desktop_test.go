package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"berth/internal/compute/computetest"
)

// bundleOf is a sound request for a bundle: one VALUE desktop with the least volumes.
func bundleOf(image, name string) *workspaces.CreateWorkspaceBundleInput {
	return &workspaces.CreateWorkspaceBundleInput{BundleName: &name, BundleDescription: aws.String("Made in a story"), ImageId: &image,
		ComputeType: &types.ComputeType{Name: types.ComputeValue}, RootStorage: &types.RootStorage{Capacity: aws.String("80")}, UserStorage: &types.UserStorage{Capacity: aws.String("10")}}
}

func (s *story) makeBundle(t *testing.T) {
	w := s.workspaces
	sized := func(compute, root, user string) func() error {
		in := bundleOf(s.image, "refused")
		in.ComputeType.Name, in.UserStorage.Capacity = types.Compute(compute), &user
		if in.RootStorage.Capacity = &root; root == "" {
			in.RootStorage = nil
		}
		return call(t, w.CreateWorkspaceBundle, in)
	}
	bad := exception[*types.InvalidParameterValuesException]
	rows := []refusal{
		{"image that is not there", exception[*types.ResourceNotFoundException]("wsi-000000000 does not exist"), call(t, w.CreateWorkspaceBundle, bundleOf("wsi-000000000", "refused"))},
		{"what is no image", code("ValidationException", "at 'imageId' failed to satisfy constraint"), call(t, w.CreateWorkspaceBundle, bundleOf("ami-000000000", "refused"))},
		{"GPU for an image without", bad("does not go with an image that was ingested as BYOL_REGULAR"), sized("GRAPHICS_G4DN", "100", "100")},
		{"GraphicsPro for an image without", bad("does not go with an image that was ingested as BYOL_REGULAR"), sized("GRAPHICSPRO", "100", "100")},
		{"compute type that is not here", bad("GRAPHICS_G6_XLARGE is not available"), sized("GRAPHICS_G6_XLARGE", "100", "100")},
		{"compute type that is nowhere", code("ValidationException", "at 'computeType.name' failed to satisfy constraint: Member must satisfy enum value set"), sized("ENORMOUS", "80", "10")},
		{"volume that is no number", bad("RootStorage.Capacity must be a number"), sized("VALUE", "80 GB", "10")},
		{"volume below nought", bad("UserStorage.Capacity must be a number"), sized("VALUE", "80", "-10")},
	}
	// The rules for volumes (facts, section 7): what is not (80; 10, 50, 100) or (175 to 2000; 100 to 2000) is refused.
	for _, v := range []struct{ compute, root, user, says string }{
		{"VALUE", "79", "10", "at least 80 GB"}, {"VALUE", "80", "9", "at least 10 GB"}, {"STANDARD", "80", "11", "do not go together"}, {"STANDARD", "80", "49", "do not go together"},
		{"PERFORMANCE", "80", "51", "do not go together"}, {"POWER", "80", "99", "do not go together"}, {"POWER", "80", "101", "do not go together"}, {"POWERPRO", "81", "10", "do not go together"},
		{"STANDARD", "174", "100", "do not go together"}, {"STANDARD", "175", "99", "do not go together"}, {"STANDARD", "175", "50", "do not go together"}, {"STANDARD", "2001", "100", "at most 2000 GB"},
		{"STANDARD", "175", "2001", "at most 2000 GB"}, {"GENERALPURPOSE_4XLARGE", "80", "10", "at least 175 GB"}, {"GENERALPURPOSE_8XLARGE", "175", "99", "at least 100 GB"},
	} {
		rows = append(rows, refusal{"volumes " + v.compute + " " + v.root + " and " + v.user, bad(v.says), sized(v.compute, v.root, v.user)})
	}
	refuse(t, rows)

	in := bundleOf(s.image, "value")
	in.RootStorage = nil // the least that VALUE has
	made, err := w.CreateWorkspaceBundle(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	b := made.WorkspaceBundle
	s.bundle = aws.ToString(b.BundleId)
	if aws.ToString(b.Name) != "value" || aws.ToString(b.Owner) != s.AccountID || aws.ToString(b.ImageId) != s.image || b.ComputeType.Name != types.ComputeValue || aws.ToString(b.RootStorage.Capacity) != "80" ||
		aws.ToString(b.UserStorage.Capacity) != "10" || b.State != types.WorkspaceBundleStateAvailable || aws.ToString(b.Description) != "Made in a story" || b.CreationTime == nil {
		t.Errorf("the bundle is %+v", b)
	}
	refuse(t, []refusal{
		{"the same name", exception[*types.ResourceAlreadyExistsException]("value already exists"), call(t, w.CreateWorkspaceBundle, bundleOf(s.image, "value"))},
		{"deleting an image that a bundle uses", exception[*types.ResourceAssociatedException]("is used by the bundle " + s.bundle), call(t, w.DeleteWorkspaceImage, &workspaces.DeleteWorkspaceImageInput{ImageId: &s.image})},
		{"deleting a bundle that is not there", exception[*types.ResourceNotFoundException]("wsb-000000000 does not exist"), call(t, w.DeleteWorkspaceBundle, &workspaces.DeleteWorkspaceBundleInput{BundleId: aws.String("wsb-000000000")})},
		{"bundles by id and owner", bad("cannot be given together"), call(t, w.DescribeWorkspaceBundles, &workspaces.DescribeWorkspaceBundlesInput{BundleIds: []string{s.bundle}, Owner: aws.String("AMAZON")})},
	})
	amazon, err := w.DescribeWorkspaceBundles(t.Context(), &workspaces.DescribeWorkspaceBundlesInput{Owner: aws.String("AMAZON")})
	if err != nil || len(amazon.Bundles) != 0 {
		t.Errorf("Amazon's bundles are %+v (%v), want none", amazon, err)
	}
}

// fiftyBundles makes as many bundles as Amazon allows, pages through them, and removes them.
func (s *story) fiftyBundles(t *testing.T) {
	w := s.workspaces
	want := []string{"value"}
	volumes := [][2]string{{"80", "50"}, {"80", "100"}, {"175", "100"}, {"2000", "2000"}, {"176", "123"}}
	for i := 2; i <= 50; i++ {
		in := bundleOf(s.image, fmt.Sprintf("bundle-%d", i))
		in.RootStorage.Capacity, in.UserStorage.Capacity = &volumes[i%5][0], &volumes[i%5][1]
		if _, err := w.CreateWorkspaceBundle(t.Context(), in); err != nil {
			t.Fatalf("bundle %d with volumes %v: %v", i, volumes[i%5], err)
		}
		want = append(want, *in.BundleName)
	}
	refuse(t, []refusal{
		{"one more than the quota", exception[*types.ResourceLimitExceededException]("limit of 50 bundles"), call(t, w.CreateWorkspaceBundle, bundleOf(s.image, "one-too-many"))},
		{"token that is none", exception[*types.InvalidParameterValuesException]("NextToken"), call(t, w.DescribeWorkspaceBundles, &workspaces.DescribeWorkspaceBundlesInput{NextToken: aws.String("bm93aGVyZQ")})},
	})
	var got []string
	pages := 0
	for p := workspaces.NewDescribeWorkspaceBundlesPaginator(w, &workspaces.DescribeWorkspaceBundlesInput{Owner: &s.AccountID}); p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range out.Bundles {
			got = append(got, *b.Name)
			if *b.BundleId == s.bundle {
				continue
			}
			defer func() {
				if _, err := w.DeleteWorkspaceBundle(t.Context(), &workspaces.DeleteWorkspaceBundleInput{BundleId: b.BundleId}); err != nil {
					t.Errorf("deleting bundle %s: %v", *b.Name, err)
				}
			}()
		}
	}
	slices.Reverse(got)
	if pages != 2 || !slices.Equal(got, want) {
		t.Errorf("in %d pages the bundles are %v, want the fifty, newest first", pages, got)
	}
}

func (s *story) register(t *testing.T) {
	w := s.workspaces
	register := func(id string, change func(*workspaces.RegisterWorkspaceDirectoryInput)) func() error {
		in := &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &id, Tenancy: types.TenancyDedicated}
		if change != nil {
			change(in)
		}
		return call(t, w.RegisterWorkspaceDirectory, in)
	}
	deregister := func(id string) func() error {
		return call(t, w.DeregisterWorkspaceDirectory, &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: &id})
	}
	create := func(change func(*types.WorkspaceRequest)) func() error { return s.createFails(t, change) }
	refuse(t, []refusal{
		{"unknown directory", exception[*types.ResourceNotFoundException]("d-0000000000 does not exist"), register("d-0000000000", nil)},
		{"no directory", exception[*types.InvalidParameterValuesException]("DirectoryId must be given"), call(t, w.RegisterWorkspaceDirectory, &workspaces.RegisterWorkspaceDirectoryInput{})},
		{"what is no directory", code("ValidationException", "at 'directoryId' failed to satisfy constraint"), register("directory1", nil)},
		{"unknown tenancy", code("ValidationException", "Member must satisfy enum value set: [DEDICATED, SHARED]"), register(s.directory, func(in *workspaces.RegisterWorkspaceDirectoryInput) { in.Tenancy = "ALONE" })},
		{"pool", exception[*types.OperationNotSupportedException]("POOLS is not supported"), register(s.directory, func(in *workspaces.RegisterWorkspaceDirectoryInput) { in.WorkspaceType = types.WorkspaceTypePools })},
		{"other identities", exception[*types.OperationNotSupportedException]("CUSTOMER_MANAGED is not supported"), register(s.directory, func(in *workspaces.RegisterWorkspaceDirectoryInput) {
			in.UserIdentityType = types.UserIdentityTypeCustomerManaged
		})},
		{"deregister an unknown directory", exception[*types.ResourceNotFoundException]("d-0000000000 does not exist"), deregister("d-0000000000")},
		{"WorkSpace in a directory that is not registered", code("ResourceNotFound.Directory", "could not be found in the specified region"), create(nil)},
	})
	s.registered(t, types.TenancyShared)
	if err := s.berth(t, "CreateUser", map[string]any{"DirectoryId": s.directory, "UserName": "ada", "Password": "correct horse"}, nil); err != nil {
		t.Fatal(err)
	}
	refuse(t, []refusal{
		{"twice", exception[*types.ResourceAlreadyExistsException]("is already registered"), register(s.directory, nil)},
		{"BYOL in a SHARED directory", code("UnsupportedWorkspaceConfiguration.Tenancy", "needs a directory that is registered for dedicated WorkSpaces"), create(nil)},
		{"user that is there", code("ResourceAlreadyExistsException", "ADA already exists"), func() error {
			return s.berth(t, "CreateUser", map[string]any{"DirectoryId": s.directory, "UserName": "ADA", "Password": "correct horse"}, nil)
		}},
		{"short password", code("InvalidParameterValuesException", "8 to 128 characters"), func() error {
			return s.berth(t, "CreateUser", map[string]any{"DirectoryId": s.directory, "UserName": "bob", "Password": "short"}, nil)
		}},
		{"bad user name", code("InvalidParameterValuesException", "A user name is"), func() error {
			return s.berth(t, "CreateUser", map[string]any{"DirectoryId": s.directory, "UserName": "bob smith", "Password": "correct horse"}, nil)
		}},
		{"user of an unknown directory", code("ResourceNotFoundException", "d-0000000000 does not exist"), func() error {
			return s.berth(t, "CreateUser", map[string]any{"DirectoryId": "d-0000000000", "UserName": "bob", "Password": "correct horse"}, nil)
		}},
		{"password of an unknown user", code("ResourceNotFoundException", "bob does not exist"), func() error {
			return s.berth(t, "SetUserPassword", map[string]any{"DirectoryId": s.directory, "UserName": "bob", "Password": "correct horse"}, nil)
		}},
	})
	// The way out of SHARED is to register again.
	if err := deregister(s.directory)(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the directory is not registered any more", func() (bool, error) {
		out, err := w.DescribeWorkspaceDirectories(t.Context(), &workspaces.DescribeWorkspaceDirectoriesInput{})
		return err == nil && len(out.Directories) == 0, err
	})
	s.registered(t, types.TenancyDedicated)
}

// registered registers the story's directory, and sees it REGISTERED.
func (s *story) registered(t *testing.T, tenancy types.Tenancy) {
	t.Helper()
	w := s.workspaces
	out, err := w.RegisterWorkspaceDirectory(t.Context(), &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &s.directory, Tenancy: tenancy, SubnetIds: []string{"subnet-0123456789abcdef0", "subnet-0123456789abcdef1"}})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(out.DirectoryId) != s.directory || out.State != types.WorkspaceDirectoryStateRegistering {
		t.Errorf("registering answers %+v", out)
	}
	var d types.WorkspaceDirectory
	eventually(t, "the directory is REGISTERED", func() (bool, error) {
		out, err := w.DescribeWorkspaceDirectories(t.Context(), &workspaces.DescribeWorkspaceDirectoriesInput{DirectoryIds: []string{s.directory}})
		if err != nil || len(out.Directories) != 1 {
			return false, errors.Join(err, fmt.Errorf("directories: %+v", out))
		}
		d = out.Directories[0]
		return d.State == types.WorkspaceDirectoryStateRegistered, nil
	})
	if d.Tenancy != tenancy || aws.ToString(d.DirectoryName) != "corp.berth.example" || aws.ToString(d.Alias) != s.directory || !strings.HasPrefix(aws.ToString(d.RegistrationCode), "SLiad+") ||
		len(d.SubnetIds) != 2 || d.WorkspaceAccessProperties == nil || d.WorkspaceCreationProperties == nil || d.SelfservicePermissions == nil {
		t.Errorf("the directory is %+v", d)
	}
}

// createFails asks for a WorkSpace for ada, with a change to it; its error is that of the request in FailedRequests.
func (s *story) createFails(t *testing.T, change func(*types.WorkspaceRequest)) func() error {
	return func() error {
		req := types.WorkspaceRequest{DirectoryId: &s.directory, BundleId: &s.bundle, UserName: aws.String("ada")}
		if change != nil {
			change(&req)
		}
		out, err := s.workspaces.CreateWorkspaces(t.Context(), &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{req}})
		if err != nil {
			return err
		}
		if len(out.FailedRequests) != 1 || len(out.PendingRequests) != 0 {
			return fmt.Errorf("%d failed and %d pending requests, want 1 and 0", len(out.FailedRequests), len(out.PendingRequests))
		}
		f := out.FailedRequests[0]
		if f.WorkspaceRequest == nil || aws.ToString(f.WorkspaceRequest.UserName) != *req.UserName {
			return fmt.Errorf("the failed request is not the one that was sent: %+v", f.WorkspaceRequest)
		}
		return &smithy.GenericAPIError{Code: aws.ToString(f.ErrorCode), Message: aws.ToString(f.ErrorMessage)}
	}
}

func (s *story) launch(t *testing.T) {
	w := s.workspaces
	with := func(p types.WorkspaceProperties) func() error {
		return s.createFails(t, func(r *types.WorkspaceRequest) { r.WorkspaceProperties = &p })
	}
	refuse(t, []refusal{
		{"unknown user", code("ResourceNotFound.User", "nobody does not exist in the directory"), s.createFails(t, func(r *types.WorkspaceRequest) { r.UserName = aws.String("nobody") })},
		{"unknown bundle", code("ResourceNotFound.Bundle", "wsb-000000000 does not exist"), s.createFails(t, func(r *types.WorkspaceRequest) { r.BundleId = aws.String("wsb-000000000") })},
		{"unknown directory", code("ResourceNotFound.Directory", "d-0000000000"), s.createFails(t, func(r *types.WorkspaceRequest) { r.DirectoryId = aws.String("d-0000000000") })},
		{"no user", code("InvalidUserConfiguration.Workspace", "needs a user"), s.createFails(t, func(r *types.WorkspaceRequest) { r.UserName = aws.String("[UNDEFINED]") })},
		{"encrypted root", code("UnsupportedWorkspaceConfiguration.Encryption", "cannot be encrypted"), s.createFails(t, func(r *types.WorkspaceRequest) { r.RootVolumeEncryptionEnabled = aws.Bool(true) })},
		{"encrypted user volume", code("UnsupportedWorkspaceConfiguration.Encryption", "cannot be encrypted"), s.createFails(t, func(r *types.WorkspaceRequest) { r.UserVolumeEncryptionEnabled = aws.Bool(true) })},
		{"encryption key", code("UnsupportedWorkspaceConfiguration.Encryption", "cannot be encrypted"), s.createFails(t, func(r *types.WorkspaceRequest) { r.VolumeEncryptionKey = aws.String("alias/key") })},
		{"auto-stop after 61 minutes", code("InvalidParameterValuesException", "multiple of 60; 61"), with(types.WorkspaceProperties{RunningMode: types.RunningModeAutoStop, RunningModeAutoStopTimeoutInMinutes: aws.Int32(61)})},
		{"auto-stop after less than nothing", code("InvalidParameterValuesException", "multiple of 60; -60"), with(types.WorkspaceProperties{RunningMode: types.RunningModeAutoStop, RunningModeAutoStopTimeoutInMinutes: aws.Int32(-60)})},
		{"auto-stop of ALWAYS_ON", code("AutoStopTimeoutIsNotApplicableForAnAlwaysOnWorkspace", "no auto-stop"), with(types.WorkspaceProperties{RunningModeAutoStopTimeoutInMinutes: aws.Int32(60)})},
		{"auto-stop of MANUAL", code("AutoStopTimeoutIsNotDefaultForManualWorkspace", "no auto-stop"), with(types.WorkspaceProperties{RunningMode: types.RunningModeManual, RunningModeAutoStopTimeoutInMinutes: aws.Int32(60)})},
		{"volumes that do not go together", code("InvalidParameterValuesException", "do not go together"), with(types.WorkspaceProperties{RootVolumeSizeGib: aws.Int32(80), UserVolumeSizeGib: aws.Int32(20)})},
		{"GPU without a GPU's bundle", code("InvalidParameterValuesException", "does not go with"), with(types.WorkspaceProperties{ComputeTypeName: types.ComputeGraphicsG4dn, RootVolumeSizeGib: aws.Int32(100), UserVolumeSizeGib: aws.Int32(100)})},
		{"root smaller than its type's", code("InvalidParameterValuesException", "at least 80 GB"), with(types.WorkspaceProperties{RootVolumeSizeGib: aws.Int32(40)})},
		{"twenty-six at once", code("ValidationException", "at 'workspaces' failed to satisfy constraint: Member must have length less than or equal to 25"), func() error {
			rs := slices.Repeat([]types.WorkspaceRequest{{DirectoryId: &s.directory, BundleId: &s.bundle, UserName: aws.String("ada")}}, 26)
			return errorOf(w.CreateWorkspaces(t.Context(), &workspaces.CreateWorkspacesInput{Workspaces: rs}))
		}},
		{"none at all", code("ValidationException", "at 'workspaces' failed to satisfy constraint: Member must have length greater than or equal to 1"), func() error {
			return errorOf(w.CreateWorkspaces(t.Context(), &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{}}))
		}},
	})
	if left := computetest.Processes(t, s.data); len(left) != 0 {
		t.Errorf("refused requests made machines: %v", left)
	}
	// One call with three requests: each is taken or refused on its own.
	stops := &types.WorkspaceProperties{RunningMode: types.RunningModeAutoStop}
	out, err := w.CreateWorkspaces(t.Context(), &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{
		{DirectoryId: &s.directory, BundleId: &s.bundle, UserName: aws.String("Ada"), WorkspaceProperties: stops},
		{DirectoryId: &s.directory, BundleId: &s.bundle, UserName: aws.String("ada"), WorkspaceProperties: stops},
		{DirectoryId: &s.directory, BundleId: &s.bundle, UserName: aws.String("nobody")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if f := out.FailedRequests; len(out.PendingRequests) != 1 || len(f) != 2 || aws.ToString(f[0].ErrorCode) != "ResourceExists.WorkSpace" || aws.ToString(f[1].ErrorCode) != "ResourceNotFound.User" {
		t.Fatalf("three requests, one of which can be: %+v", out)
	}
	p := out.PendingRequests[0]
	if p.State != types.WorkspaceStatePending || aws.ToString(p.UserName) != "ada" || aws.ToString(p.BundleId) != s.bundle || aws.ToString(p.DirectoryId) != s.directory {
		t.Errorf("the pending WorkSpace is %+v", p)
	}
	s.workspace = aws.ToString(p.WorkspaceId)
	refuse(t, []refusal{
		{"second WorkSpace", code("ResourceExists.WorkSpace", "ada already has a WorkSpace"), s.createFails(t, nil)},
		{"second WorkSpace in capitals", code("ResourceExists.WorkSpace", "ada already has a WorkSpace"), s.createFails(t, func(r *types.WorkspaceRequest) { r.UserName = aws.String("ADA") })},
	})
	ada := s.state(t, s.workspace, types.WorkspaceStateAvailable)
	if !strings.HasPrefix(aws.ToString(ada.ComputerName), "DESKTOP-") || aws.ToString(ada.SubnetId) != "subnet-0123456789abcdef0" || ada.ErrorCode != nil {
		t.Errorf("the WorkSpace is %+v", ada)
	}
	if q := ada.WorkspaceProperties; q.RunningMode != types.RunningModeAutoStop || aws.ToInt32(q.RunningModeAutoStopTimeoutInMinutes) != 60 || q.ComputeTypeName != types.ComputeValue || aws.ToInt32(q.RootVolumeSizeGib) != 80 || aws.ToInt32(q.UserVolumeSizeGib) != 10 {
		t.Errorf("its properties are %+v", q)
	}
	if got := computetest.Processes(t, s.data); len(got) != 1 {
		t.Errorf("one WorkSpace has the machines %v", got)
	}
	s.desktopPicture(t)
}

// state waits until a WorkSpace is in a state.
func (s *story) state(t *testing.T, id string, want types.WorkspaceState) (ws types.Workspace) {
	t.Helper()
	eventually(t, id+" is "+string(want), func() (bool, error) {
		out, err := s.workspaces.DescribeWorkspaces(t.Context(), &workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{id}})
		if err != nil || len(out.Workspaces) != 1 {
			return false, errors.Join(err, fmt.Errorf("WorkSpaces: %+v", out))
		}
		ws = out.Workspaces[0]
		if ws.State == types.WorkspaceStateError || ws.State == types.WorkspaceStateUnhealthy {
			return false, fmt.Errorf("it is %s: %s", ws.State, aws.ToString(ws.ErrorMessage))
		}
		return ws.State == want, nil
	})
	return ws
}

// changed is the error of the one request that a change of WorkSpaces was asked for; nil when it was taken.
func changed(failed []types.FailedWorkspaceChangeRequest, err error) error {
	if err != nil || len(failed) == 0 {
		return err
	}
	return &smithy.GenericAPIError{Code: aws.ToString(failed[0].ErrorCode), Message: aws.ToString(failed[0].ErrorMessage)}
}

// The four changes of one WorkSpace.
func (s *story) start(t *testing.T, id string) func() error {
	return func() error {
		out, err := s.workspaces.StartWorkspaces(t.Context(), &workspaces.StartWorkspacesInput{StartWorkspaceRequests: []types.StartRequest{{WorkspaceId: &id}}})
		if err != nil {
			return err
		}
		return changed(out.FailedRequests, nil)
	}
}

func (s *story) stop(t *testing.T, id string) func() error {
	return func() error {
		out, err := s.workspaces.StopWorkspaces(t.Context(), &workspaces.StopWorkspacesInput{StopWorkspaceRequests: []types.StopRequest{{WorkspaceId: &id}}})
		if err != nil {
			return err
		}
		return changed(out.FailedRequests, nil)
	}
}

func (s *story) reboot(t *testing.T, id string) func() error {
	return func() error {
		out, err := s.workspaces.RebootWorkspaces(t.Context(), &workspaces.RebootWorkspacesInput{RebootWorkspaceRequests: []types.RebootRequest{{WorkspaceId: &id}}})
		if err != nil {
			return err
		}
		return changed(out.FailedRequests, nil)
	}
}

func (s *story) terminate(t *testing.T, id string) func() error {
	return func() error {
		out, err := s.workspaces.TerminateWorkspaces(t.Context(), &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []types.TerminateRequest{{WorkspaceId: &id}}})
		if err != nil {
			return err
		}
		return changed(out.FailedRequests, nil)
	}
}

// operate stops, starts and reboots the desktop, and asks for what cannot be. One machine runs at a time: ada's desktop is
// stopped while bob has one.
func (s *story) operate(t *testing.T) {
	w := s.workspaces
	const none = "ws-000000000"
	refuse(t, []refusal{
		{"starting what is not there", code("ResourceNotFound.Workspace", none), s.start(t, none)},
		{"stopping what is not there", code("ResourceNotFound.Workspace", none), s.stop(t, none)},
		{"rebooting what is not there", code("ResourceNotFound.Workspace", none), s.reboot(t, none)},
		{"terminating what is not there", code("ResourceNotFound.Workspace", none), s.terminate(t, none)},
		{"screenshot of nothing", code("ResourceNotFoundException", none), func() error { return s.berth(t, "GetWorkspaceScreenshot", map[string]any{"WorkspaceId": none}, nil) }},
		{"deleting a user who has a WorkSpace", code("ResourceAssociatedException", "ada has a WorkSpace"), func() error {
			return s.berth(t, "DeleteUser", map[string]any{"DirectoryId": s.directory, "UserName": "ada"}, nil)
		}},
		{"deleting a user who is not there", code("ResourceNotFoundException", "nobody does not exist"), func() error {
			return s.berth(t, "DeleteUser", map[string]any{"DirectoryId": s.directory, "UserName": "nobody"}, nil)
		}},
		{"starting what runs", code("InvalidResourceState.Workspace", "is AVAILABLE and cannot be started"), s.start(t, s.workspace)},
		{"deregistering with a WorkSpace", exception[*types.InvalidResourceStateException]("has 1 WorkSpaces. Terminate them"), call(t, w.DeregisterWorkspaceDirectory, &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: &s.directory})},
		{"deleting the bundle of a WorkSpace", exception[*types.ResourceAssociatedException]("is used by 1 WorkSpaces"), call(t, w.DeleteWorkspaceBundle, &workspaces.DeleteWorkspaceBundleInput{BundleId: &s.bundle})},
	})
	if err := s.stop(t, s.workspace)(); err != nil {
		t.Fatal(err)
	}
	s.state(t, s.workspace, types.WorkspaceStateStopped)
	if got := computetest.Processes(t, s.data); len(got) != 0 {
		t.Errorf("a stopped WorkSpace has the machines %v", got)
	}
	refuse(t, []refusal{
		{"stopping what is stopped", code("InvalidResourceState.Workspace", "is STOPPED and cannot be stopped"), s.stop(t, s.workspace)},
		{"rebooting what is stopped", code("InvalidResourceState.Workspace", "is STOPPED and cannot be rebooted"), s.reboot(t, s.workspace)},
		{"screenshot of what is stopped", code("InvalidResourceStateException", "is STOPPED; it has no screen"), func() error {
			return s.berth(t, "GetWorkspaceScreenshot", map[string]any{"WorkspaceId": s.workspace}, nil)
		}},
	})
	s.second(t)
	if err := s.start(t, s.workspace)(); err != nil {
		t.Fatal(err)
	}
	s.state(t, s.workspace, types.WorkspaceStateAvailable)
	before := computetest.Processes(t, s.data)
	if err := s.reboot(t, s.workspace)(); err != nil {
		t.Fatal(err)
	}
	s.state(t, s.workspace, types.WorkspaceStateAvailable)
	if len(before) != 1 || len(computetest.Processes(t, s.data)) != 1 {
		t.Errorf("machines before and after a reboot: %v, %v", before, computetest.Processes(t, s.data))
	}
	s.desktopPicture(t)
}

// second gives bob a WorkSpace that is ALWAYS_ON, looks at the two that there are now, and terminates his.
func (s *story) second(t *testing.T) {
	w := s.workspaces
	if err := s.berth(t, "CreateUser", map[string]any{"DirectoryId": s.directory, "UserName": "bob", "Password": "battery staple"}, nil); err != nil {
		t.Fatal(err)
	}
	made, err := w.CreateWorkspaces(t.Context(), &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{{DirectoryId: &s.directory, BundleId: &s.bundle, UserName: aws.String("bob")}}})
	if err != nil || len(made.PendingRequests) != 1 {
		t.Fatalf("%+v (%v)", made, err)
	}
	bob := *made.PendingRequests[0].WorkspaceId
	if got := s.state(t, bob, types.WorkspaceStateAvailable).WorkspaceProperties; got.RunningMode != types.RunningModeAlwaysOn || got.RunningModeAutoStopTimeoutInMinutes != nil {
		t.Errorf("nothing was said of the running mode, and it is %+v", got)
	}
	both := []string{s.workspace, bob}
	for what, in := range map[string]*workspaces.DescribeWorkspacesInput{
		"all": {}, "by bundle": {BundleId: &s.bundle}, "by directory": {DirectoryId: &s.directory}, "by id": {WorkspaceIds: []string{bob, s.workspace}}, "page by page": {Limit: aws.Int32(1)},
	} {
		if got := s.list(t, in); !slices.Equal(got, both) {
			t.Errorf("WorkSpaces %s: %v, want %v", what, got, both)
		}
	}
	for what, in := range map[string]*workspaces.DescribeWorkspacesInput{
		"another bundle": {BundleId: aws.String("wsb-000000000")}, "another directory": {DirectoryId: aws.String("d-0000000000")}, "nobody's": {DirectoryId: &s.directory, UserName: aws.String("nobody")},
		"unknown id": {WorkspaceIds: []string{"ws-000000000"}}, "by a name": {WorkspaceName: aws.String("desk1")},
	} {
		if got := s.list(t, in); len(got) != 0 {
			t.Errorf("WorkSpaces of %s: %v, want none", what, got)
		}
	}
	if got := s.list(t, &workspaces.DescribeWorkspacesInput{DirectoryId: &s.directory, UserName: aws.String("BOB")}); !slices.Equal(got, []string{bob}) {
		t.Errorf("bob's WorkSpaces: %v, want %s", got, bob)
	}
	describe := func(in *workspaces.DescribeWorkspacesInput) func() error { return call(t, w.DescribeWorkspaces, in) }
	invalid := exception[*types.InvalidParameterValuesException]
	refuse(t, []refusal{
		{"bundle and directory", invalid("Only one of BundleId, DirectoryId and WorkspaceIds"), describe(&workspaces.DescribeWorkspacesInput{BundleId: &s.bundle, DirectoryId: &s.directory})},
		{"ids and directory", invalid("Only one of BundleId, DirectoryId and WorkspaceIds"), describe(&workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{bob}, DirectoryId: &s.directory})},
		{"user without a directory", invalid("UserName needs a DirectoryId"), describe(&workspaces.DescribeWorkspacesInput{UserName: aws.String("ada")})},
		{"token that is none", invalid("NextToken"), describe(&workspaces.DescribeWorkspacesInput{NextToken: aws.String("bm93aGVyZQ")})},
		{"twenty-six in a page", code("ValidationException", "less than or equal to 25"), describe(&workspaces.DescribeWorkspacesInput{Limit: aws.Int32(26)})},
		{"id that is none", code("ValidationException", "at 'workspaceIds' failed to satisfy constraint"), describe(&workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{"i-0"}})},
		{"stopping what is ALWAYS_ON", code("InvalidResourceState.Workspace", "is ALWAYS_ON; only AUTO_STOP and MANUAL"), s.stop(t, bob)},
		{"starting what is ALWAYS_ON", code("InvalidResourceState.Workspace", "is ALWAYS_ON; only AUTO_STOP and MANUAL"), s.start(t, bob)},
	})
	if err := s.terminate(t, bob)(); err != nil {
		t.Fatal(err)
	}
	s.state(t, bob, types.WorkspaceStateTerminated)
	refuse(t, []refusal{
		{"starting what is terminated", code("InvalidResourceState.Workspace", bob), s.start(t, bob)},
		{"rebooting what is terminated", code("InvalidResourceState.Workspace", "is TERMINATED and cannot be rebooted"), s.reboot(t, bob)},
		{"terminating twice", code("InvalidResourceState.Workspace", "is TERMINATED and cannot be terminated"), s.terminate(t, bob)},
	})
}

// list describes WorkSpaces, page by page, and is their ids.
func (s *story) list(t *testing.T, in *workspaces.DescribeWorkspacesInput) (ids []string) {
	t.Helper()
	for p := workspaces.NewDescribeWorkspacesPaginator(s.workspaces, in); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range out.Workspaces {
			ids = append(ids, *w.WorkspaceId)
		}
	}
	return ids
}

// takeDown terminates the last WorkSpace: nothing of it is left, and its directory can go.
func (s *story) takeDown(t *testing.T) {
	if err := s.terminate(t, s.workspace)(); err != nil {
		t.Fatal(err)
	}
	s.state(t, s.workspace, types.WorkspaceStateTerminated)
	if got := computetest.Processes(t, s.data); len(got) != 0 {
		t.Errorf("machines outlived their WorkSpaces: %v", got)
	}
	if err := errorOf(s.workspaces.DeregisterWorkspaceDirectory(t.Context(), &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: &s.directory})); err != nil {
		t.Errorf("deregistering after the last WorkSpace: %v", err)
	}
	for dir, want := range map[string]int{"imports": 0, "stored": 4} { // the sample's and three unfit machines'
		es, err := os.ReadDir(filepath.Join(s.data, dir))
		if err != nil || len(es) != want {
			t.Errorf("the folder %s has %v (%v), want %s files", dir, es, err, strconv.Itoa(want))
		}
	}
}
