package desk

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/check"
	"berth/internal/phony"
)

// Every finding of an ingestion is reported under one of Amazon's codes, which clients know.
func TestChecksAreReportedUnderAmazonsCodes(t *testing.T) {
	codes := types.WorkspaceImageErrorDetailCode("").Values()
	for _, c := range check.Checks() {
		if !slices.Contains(codes, types.WorkspaceImageErrorDetailCode(c.ReportAs)) {
			t.Errorf("check %s is reported as %q, which is no WorkspaceImageErrorDetailCode", c.Code, c.ReportAs)
		}
		if c.Code != c.ReportAs && slices.Contains(codes, types.WorkspaceImageErrorDetailCode(c.Code)) {
			t.Errorf("check %s is reported as %s although Amazon has its code", c.Code, c.ReportAs)
		}
	}
	if !slices.Contains(codes, types.WorkspaceImageErrorDetailCode("UnknownError")) {
		t.Error("UnknownError, which a disk that cannot be read is reported as, is no WorkspaceImageErrorDetailCode")
	}
}

// WorkSpaces' Describe operations have no exception for an id that does not exist: what there is of those asked for is
// listed. (Terraform and moto rely on it.)
func TestDescribingWhatDoesNotExist(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	if out, err := f.DescribeWorkspaceImages(ctx, &workspaces.DescribeWorkspaceImagesInput{ImageIds: []string{"wsi-none00000"}}); err != nil || len(out.Images) != 0 {
		t.Errorf("images: %+v, %v", out, err)
	}
	if out, err := f.DescribeWorkspaceBundles(ctx, &workspaces.DescribeWorkspaceBundlesInput{BundleIds: []string{"wsb-none00000"}}); err != nil || len(out.Bundles) != 0 {
		t.Errorf("bundles: %+v, %v", out, err)
	}
	if out, err := f.DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{DirectoryIds: []string{"d-0000000000"}}); err != nil || len(out.Directories) != 0 {
		t.Errorf("directories: %+v, %v", out, err)
	}
	if out, err := f.DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{"ws-none00000"}}); err != nil || len(out.Workspaces) != 0 {
		t.Errorf("WorkSpaces: %+v, %v", out, err)
	}
	// EC2's have.
	_, err := f.EC2().DescribeImages(ctx, &DescribeImagesInput{ImageIDs: []string{"ami-0123456789abcdef0"}})
	refusal(t, err, "InvalidAMIID.NotFound", "ami-0123456789abcdef0")
	_, err = f.EC2().DescribeImportImageTasks(ctx, &DescribeImportImageTasksInput{ImportTaskIDs: []string{"import-ami-0123456789abcdef0"}})
	refusal(t, err, "InvalidConversionTaskId.Malformed", "import-ami-0123456789abcdef0")
}

// Two images in the making from one AMI: whichever begins and ends first, the service's permission goes with the last.
// Windows 11 takes the Office of 2019 alone, and none with a GPU. Which Windows it is, the disk tells.
func TestOfficeThatWindowsDoesNotTake(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Profile, c.GraphicsAllowed = "2026", true })
	f.enabled()
	ami := *f.imported(f.upload(sample(t, "win11-24h2-enterprise", "vmdk"))).ImageID
	for i, c := range []struct {
		process types.WorkspaceImageIngestionProcess
		office  types.Application
		says    string
	}{
		{types.WorkspaceImageIngestionProcessByolRegularWsp, types.ApplicationMicrosoftOffice2016, "Microsoft_Office_2016 was asked for, and is not available with Windows 11. Import the image with Microsoft_Office_2019"},
		{types.WorkspaceImageIngestionProcessByolGraphicsG4dnWsp, types.ApplicationMicrosoftOffice2019, "Windows 11 takes no Microsoft Office with BYOL_GRAPHICS_G4DN_WSP"},
		{types.WorkspaceImageIngestionProcessByolRegularWsp, types.ApplicationMicrosoftOffice2019, ""},
	} {
		out, err := f.ImportWorkspaceImage(callerContext(), &workspaces.ImportWorkspaceImageInput{Ec2ImageId: &ami, ImageName: aws.String(fmt.Sprint("office-", i)), ImageDescription: aws.String("a test"),
			IngestionProcess: c.process, Applications: []types.Application{c.office}})
		if err != nil {
			t.Fatal(err)
		}
		var im types.WorkspaceImage
		until(t, "the end of the ingestion", func() bool {
			im = f.image(*out.ImageId)
			return im.State != types.WorkspaceImageStatePending
		})
		if c.says == "" {
			if im.State != types.WorkspaceImageStateAvailable {
				t.Errorf("%s, %s: %+v", c.process, c.office, im)
			}
		} else if im.State != types.WorkspaceImageStateError || len(im.ErrorDetails) != 1 || im.ErrorDetails[0].ErrorCode != types.WorkspaceImageErrorDetailCodeOsNotSupported || !strings.Contains(*im.ErrorDetails[0].ErrorMessage, c.says) {
			t.Errorf("%s, %s: %s, %+v", c.process, c.office, im.State, im.ErrorDetails)
		}
	}
}

func TestTwoImagesOfOneAMI(t *testing.T) {
	var mu sync.Mutex
	begun := map[string]chan struct{}{"share": make(chan struct{}), "publish": make(chan struct{})}
	seen := map[string]int{}
	f := newFixture(t, func(c *Config) {
		c.StepHook = func(flow, step string, done bool) error {
			// Both have shared before one goes on; both are about to publish, or have done with it, before one is AVAILABLE.
			if both := begun[step]; flow == ingestImage.name && both != nil && (done == (step == "share")) {
				mu.Lock()
				if seen[step]++; seen[step] == 2 {
					close(both)
				}
				mu.Unlock()
				<-both
			}
			return nil
		}
	})
	f.enabled()
	task := f.imported(f.upload(sample(t, phony.Base, "qcow2")))
	var wg sync.WaitGroup
	for _, name := range []string{"one", "two"} {
		wg.Go(func() {
			if im := f.ingested(*task.ImageID, name); im.State != types.WorkspaceImageStateAvailable {
				t.Errorf("image %s: %s", name, aws.ToString(im.ErrorMessage))
			}
		})
	}
	wg.Wait()
	if n, err := f.db.NewSelect().Model((*launchPermissionRecord)(nil)).Count(t.Context()); err != nil || n != 0 {
		t.Errorf("%d launch permissions are left (%v)", n, err)
	}
}

// What is in use is not deleted, in whichever order it is tried.
func TestDeletingWhatIsInUse(t *testing.T) {
	f := newFixture(t)
	id := f.launched()
	ctx := t.Context()
	out, err := f.DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{})
	if err != nil {
		t.Fatal(err)
	}
	w := out.Workspaces[0]
	image := func() string { r, _ := f.workspace(ctx, id); return r.ImageID }()
	_, err = f.DeleteWorkspaceImage(ctx, &workspaces.DeleteWorkspaceImageInput{ImageId: &image})
	refusal(t, err, "ResourceAssociatedException", "bundle")
	_, err = f.DeleteWorkspaceBundle(ctx, &workspaces.DeleteWorkspaceBundleInput{BundleId: w.BundleId})
	refusal(t, err, "ResourceAssociatedException", "1 WorkSpaces")
	_, err = f.Berth().DeleteUser(ctx, &DeleteUserInput{DirectoryId: w.DirectoryId, UserName: aws.String("Alice")})
	refusal(t, err, "ResourceAssociatedException", "has a WorkSpace")
	if _, err := f.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []types.TerminateRequest{{WorkspaceId: &id}}}); err != nil {
		t.Fatal(err)
	}
	f.reaches(nil, "")
	if _, err := f.Berth().DeleteUser(ctx, &DeleteUserInput{DirectoryId: w.DirectoryId, UserName: aws.String("ALICE")}); err != nil {
		t.Error(err)
	}
	if _, err := f.DeleteWorkspaceBundle(ctx, &workspaces.DeleteWorkspaceBundleInput{BundleId: w.BundleId}); err != nil {
		t.Error(err)
	}
	_, err = f.DeleteWorkspaceBundle(ctx, &workspaces.DeleteWorkspaceBundleInput{BundleId: w.BundleId})
	refusal(t, err, "ResourceNotFoundException", *w.BundleId)
	for range 2 { // the second time there is none, and the service model has no exception for that
		if _, err := f.DeleteWorkspaceImage(ctx, &workspaces.DeleteWorkspaceImageInput{ImageId: &image}); err != nil {
			t.Error(err)
		}
	}
}

// An image that the driver refuses stays an image when its deletion fails.
func TestAnImageThatTheDriverKeepsIsNotForgotten(t *testing.T) {
	f := newFixture(t)
	f.bundled()
	ctx := t.Context()
	out, err := f.DescribeWorkspaceBundles(ctx, &workspaces.DescribeWorkspaceBundlesInput{})
	if err != nil {
		t.Fatal(err)
	}
	image := out.Bundles[0].ImageId
	if _, err := f.DeleteWorkspaceBundle(ctx, &workspaces.DeleteWorkspaceBundleInput{BundleId: out.Bundles[0].BundleId}); err != nil {
		t.Fatal(err)
	}
	f.host.Fail("DeleteImage", errTest)
	if _, err := f.DeleteWorkspaceImage(ctx, &workspaces.DeleteWorkspaceImageInput{ImageId: image}); err == nil {
		t.Error("the driver's failure was lost")
	}
	if out, err := f.DescribeWorkspaceImages(ctx, &workspaces.DescribeWorkspaceImagesInput{}); err != nil || len(out.Images) != 1 {
		t.Errorf("images: %+v, %v", out, err)
	}
}

func TestGraphicsAndOtherHardwareDoNotMix(t *testing.T) {
	f := newFixture(t)
	bundle, dir := f.bundled(), f.registered(types.TenancyDedicated)
	out, err := f.CreateWorkspaces(t.Context(), &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{{DirectoryId: &dir, UserName: aws.String("alice"), BundleId: &bundle,
		WorkspaceProperties: &types.WorkspaceProperties{ComputeTypeName: types.ComputeGraphics, RootVolumeSizeGib: aws.Int32(100), UserVolumeSizeGib: aws.Int32(100)}}}})
	if err != nil || len(out.FailedRequests) != 1 || *out.FailedRequests[0].ErrorCode != "InvalidParameterValuesException" {
		t.Errorf("CreateWorkspaces: %+v, %v", out, err)
	}
}
