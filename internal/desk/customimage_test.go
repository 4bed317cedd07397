package desk

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/phony"
)

// customImage asks for an image of a source, in the newer way.
func customImage(name string, source types.ImageSourceIdentifier) *workspaces.ImportCustomWorkspaceImageInput {
	return &workspaces.ImportCustomWorkspaceImageInput{ImageName: aws.String(name), ImageDescription: aws.String("a test"), ComputeType: types.ImageComputeTypeBase, Protocol: types.CustomImageProtocolPcoip,
		ImageSource: source, InfrastructureConfigurationArn: aws.String("arn:aws:imagebuilder:eu-west-1:111122223333:infrastructure-configuration/berth"), Platform: types.PlatformWindows, OsVersion: types.OSVersionWindows10}
}

func (f *fixture) customImported(id string) *workspaces.DescribeCustomWorkspaceImageImportOutput {
	f.t.Helper()
	out, err := f.DescribeCustomWorkspaceImageImport(f.t.Context(), &workspaces.DescribeCustomWorkspaceImageImportInput{ImageId: &id})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// customEnded waits until an image is in a state that is an end.
func (f *fixture) customEnded(id string, want types.CustomWorkspaceImageImportState) (out *workspaces.DescribeCustomWorkspaceImageImportOutput) {
	f.t.Helper()
	until(f.t, "the state "+string(want), func() bool {
		out = f.customImported(id)
		return out.State == want
	})
	return out
}

// Every state is passed through in Amazon's order, with a percentage that never falls; the source is an import task that has not
// ended when it is asked for.
func TestCustomImageOfAnImportTask(t *testing.T) {
	var mu sync.Mutex
	var f *fixture
	var id string
	var states []types.CustomWorkspaceImageImportState
	last := int32(-1)
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		if id == "" {
			return
		}
		c := f.customImported(id)
		if *c.ProgressPercentage < last || aws.ToString(c.StateMessage) == "" || c.LastUpdatedTime.Before(*c.Created) {
			t.Errorf("after %d %%: %+v", last, c)
		}
		last = *c.ProgressPercentage
		if !slices.Contains(states, c.State) {
			states = append(states, c.State)
		}
	}
	f = newFixture(t, func(c *Config) {
		c.StepHook = func(flow, _ string, _ bool) error {
			if flow == importCustomImage.name {
				look()
			}
			return nil
		}
	})
	f.enabled()
	task, err := f.EC2().ImportImage(callerContext(), &ImportImageInput{DiskContainers: fromBucket(f.upload(sample(t, phony.Base, "vmdk")))})
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	out, err := f.ImportCustomWorkspaceImage(callerContext(), customImage("custom", &types.ImageSourceIdentifierMemberEc2ImportTaskId{Value: *task.ImportTaskID}))
	if err != nil || out.State != types.CustomWorkspaceImageImportStatePending {
		t.Fatalf("%+v, %v", out, err)
	}
	id = *out.ImageId
	mu.Unlock()
	until(t, "the image", func() bool {
		look()
		return f.customImported(id).State == types.CustomWorkspaceImageImportStateCompleted
	})
	all := types.CustomWorkspaceImageImportState("").Values()
	if !slices.IsSortedFunc(states, func(a, b types.CustomWorkspaceImageImportState) int {
		return slices.Index(all, a) - slices.Index(all, b)
	}) || len(states) < 5 {
		t.Errorf("the states seen are %v", states)
	}
	// The steps pass through all of Amazon's states but ERROR.
	var through []types.CustomWorkspaceImageImportState
	for _, s := range []customStage{customPending, customInProgress, customSource, customTesting, customUpdating, customChecking, customGeneral, customInstance, customComponents, customSealing, customValidating, customPublishing, customCompleted} {
		through = append(through, s.state)
	}
	if !slices.Equal(through, all[:len(all)-1]) || all[len(all)-1] != types.CustomWorkspaceImageImportStateError {
		t.Errorf("the states are %v, Amazon's are %v", through, all)
	}
	if s, ok := f.customImported(id).ImageSource.(*types.ImageSourceIdentifierMemberEc2ImportTaskId); !ok || s.Value != *task.ImportTaskID {
		t.Errorf("its source: %+v", f.customImported(id).ImageSource)
	}
	if im := f.image(id); im.State != types.WorkspaceImageStateAvailable {
		t.Errorf("the image: %+v", im)
	}
	if _, err := f.DeleteWorkspaceImage(t.Context(), &workspaces.DeleteWorkspaceImageInput{ImageId: &id}); err != nil {
		t.Error(err)
	}
	_, err = f.DescribeCustomWorkspaceImageImport(t.Context(), &workspaces.DescribeCustomWorkspaceImageImportInput{ImageId: &id})
	refusal(t, err, "ResourceNotFoundException", id)
}

// Everything that is wrong is told at once, with what to do about it.
func TestCustomImageThatIsUnfit(t *testing.T) {
	f := newFixture(t)
	f.enabled()
	in := customImage("unfit", &types.ImageSourceIdentifierMemberEc2ImageId{Value: *f.imported(f.upload(sample(t, "in-place-upgrade", "qcow2"))).ImageID})
	in.OsVersion = types.OSVersionWindows11
	out, err := f.ImportCustomWorkspaceImage(callerContext(), in)
	if err != nil {
		t.Fatal(err)
	}
	c := f.customEnded(*out.ImageId, types.CustomWorkspaceImageImportStateError)
	for _, want := range []struct{ code, says string }{{"OperatingSystemVersionMismatch", "the disk has Windows 10"}, {"InPlaceUpgrade", ""}} {
		if !slices.ContainsFunc(c.ErrorDetails, func(e types.CustomWorkspaceImageImportErrorDetails) bool {
			return *e.ErrorCode == want.code && strings.Contains(*e.ErrorMessage, want.says)
		}) {
			t.Errorf("%s is not among %+v", want.code, c.ErrorDetails)
		}
	}
	gone := f.imported("nothing.ova")
	out, err = f.ImportCustomWorkspaceImage(callerContext(), customImage("none", &types.ImageSourceIdentifierMemberEc2ImportTaskId{Value: *gone.ImportTaskID}))
	if err != nil {
		t.Fatal(err)
	}
	if c = f.customEnded(*out.ImageId, types.CustomWorkspaceImageImportStateError); len(c.ErrorDetails) != 1 || *c.ErrorDetails[0].ErrorCode != "SourceImageFailed" || !strings.Contains(*c.StateMessage, "404 Not Found") {
		t.Errorf("of an import that failed: %+v", c)
	}
}

func TestCustomImagesThatAreRefused(t *testing.T) {
	f := newFixture(t)
	ami := &types.ImageSourceIdentifierMemberEc2ImageId{Value: "ami-0123456789abcdef0"}
	_, err := f.ImportCustomWorkspaceImage(callerContext(), customImage("a", ami))
	refusal(t, err, "OperationNotSupportedException", "not enabled")
	f.enabled()
	_, err = f.ImportCustomWorkspaceImage(callerContext(), customImage("a", ami))
	refusal(t, err, "ResourceNotFoundException", ami.Value)
	_, err = f.ImportCustomWorkspaceImage(callerContext(), customImage("a", &types.ImageSourceIdentifierMemberEc2ImportTaskId{Value: "import-ami-01234567"}))
	refusal(t, err, "ResourceNotFoundException", "import-ami-01234567")
	_, err = f.ImportCustomWorkspaceImage(callerContext(), customImage("a", &types.ImageSourceIdentifierMemberImageBuildVersionArn{Value: "arn"}))
	refusal(t, err, "OperationNotSupportedException", "Image Builder")
	_, err = f.ImportCustomWorkspaceImage(callerContext(), customImage("a", nil))
	refusal(t, err, "InvalidParameterValuesException", "ImageSource")
	in := customImage("a", ami)
	in.ComputeType = types.ImageComputeTypeGraphicsG6
	_, err = f.ImportCustomWorkspaceImage(callerContext(), in)
	refusal(t, err, "OperationNotSupportedException", "GRAPHICS_G6")
	in.ComputeType = types.ImageComputeTypeGraphicsG4dn
	_, err = f.ImportCustomWorkspaceImage(callerContext(), in)
	refusal(t, err, "OperationNotSupportedException", "allow list")
	in.ComputeType, in.Protocol = types.ImageComputeTypeBase, types.CustomImageProtocolByop
	_, err = f.ImportCustomWorkspaceImage(callerContext(), in)
	refusal(t, err, "OperationNotSupportedException", "WorkSpaces Core")
}
