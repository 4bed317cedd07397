package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/phony"
)

// story is one account on its way through the eight steps, with what it has made so far.
type story struct {
	*service
	ami       string
	image     string
	bundle    string
	directory string
	workspace string
}

// TestTheEightSteps takes an exported VM to a desktop through the SDK's client, and on the way tries everything that AWS
// refuses there: before the step, at it, and when it is done twice.
func TestTheEightSteps(t *testing.T) {
	t.Parallel()
	s := &story{service: serve(t, "--enable-delay", "300ms", "--no-host-networks", "--reserve", "10.7.0.0/16,192.168.20.0/24")}
	for _, step := range []struct {
		name string
		take func(*testing.T)
	}{
		{"0 Nothing yet", s.nothingYet},
		{"1 Management ranges", s.managementRanges},
		{"1 Enable BYOL", s.enable},
		{"2 Check the VM", s.check},
		{"3 and 4 Upload and import", s.importVM},
		{"5 Make the image", s.ingest},
		{"5 Images that fail", s.unfitImages},
		{"6 Make a bundle", s.makeBundle},
		{"6 Fifty bundles", s.fiftyBundles},
		{"7 Register the directory", s.register},
		{"8 Launch the WorkSpace", s.launch},
		{"8 Look after it", s.operate},
		{"8 Take it down", s.takeDown},
	} {
		if !t.Run(step.name, step.take) {
			t.FailNow() // what comes after needs it
		}
	}
}

// call is an operation of the SDK's client as the error that it ends with.
func call[In, Out any](t *testing.T, op func(ctx context.Context, in *In, opts ...func(*workspaces.Options)) (*Out, error), in *In) func() error {
	return func() error { return errorOf(op(t.Context(), in)) }
}

func (s *story) nothingYet(t *testing.T) {
	w := s.workspaces
	acc, err := w.DescribeAccount(t.Context(), &workspaces.DescribeAccountInput{})
	if err != nil || acc.DedicatedTenancySupport != types.DedicatedTenancySupportResultEnumDisabled || acc.DedicatedTenancyManagementCidrRange != nil {
		t.Errorf("DescribeAccount says %+v (%v), want DISABLED", acc, err)
	}
	if err := s.berth(t, "CreateDirectory", map[string]any{"Name": "corp.berth.example"}, &struct{ DirectoryId *string }{&s.directory}); err != nil {
		t.Fatal(err)
	}
	refuse(t, []refusal{
		{"image before BYOL", exception[*types.OperationNotSupportedException]("not enabled for Bring Your Own License"), call(t, w.ImportWorkspaceImage, imageOf("ami-00000000000000000", "early"))},
		{"DEDICATED before BYOL", exception[*types.InvalidParameterValuesException]("needs an account that is enabled for Bring Your Own License"),
			call(t, w.RegisterWorkspaceDirectory, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &s.directory, Tenancy: types.TenancyDedicated})},
		{"directory that is there", code("ResourceAlreadyExistsException", "corp.berth.example already exists"), func() error {
			return s.berth(t, "CreateDirectory", map[string]any{"Name": "CORP.berth.example"}, nil)
		}},
		{"directory with a bad name", code("InvalidParameterValuesException", "must be a domain name"), func() error { return s.berth(t, "CreateDirectory", map[string]any{"Name": "corp"}, nil) }},
		{"deregister what is not registered", exception[*types.ResourceNotFoundException]("is not registered"),
			call(t, w.DeregisterWorkspaceDirectory, &workspaces.DeregisterWorkspaceDirectoryInput{DirectoryId: &s.directory})},
	})
}

func (s *story) managementRanges(t *testing.T) {
	w := s.workspaces
	for _, size := range []int32{1, 4, 5} {
		within, want := "0.0.0.0/0", 337 // the 339 of the document, without the two that --reserve takes
		if size < 5 {
			within, want = "172.16.0.0/12", 16
		}
		var all []string
		in := &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: &within, MaxResults: aws.Int32(size)}
		for more := true; more; more = in.NextToken != nil {
			out, err := w.ListAvailableManagementCidrRanges(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(out.ManagementCidrRanges); n > int(size) || n == 0 || n < int(size) && out.NextToken != nil {
				t.Errorf("a page of %d has %d ranges", size, n)
			}
			all = append(all, out.ManagementCidrRanges...)
			in.NextToken = out.NextToken
		}
		if len(all) != want {
			t.Errorf("there are %d ranges in %s, want %d", len(all), within, want)
		}
		slices.Sort(all)
		if len(slices.Compact(slices.Clone(all))) != len(all) || slices.Contains(all, "10.7.0.0/16") || slices.Contains(all, "192.168.0.0/16") {
			t.Errorf("ranges come twice or are reserved: %v", all)
		}
	}
	for within, want := range map[string][]string{"10.7.0.0/16": {}, "10.7.0.0/15": {"10.6.0.0/16"}, "198.18.0.0/15": {"198.18.0.0/16", "198.19.0.0/16"}, "10.1.2.0/24": {}, "8.8.0.0/16": {}} {
		out, err := w.ListAvailableManagementCidrRanges(t.Context(), &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: &within})
		if err != nil || !slices.Equal(out.ManagementCidrRanges, want) || out.ManagementCidrRanges == nil || out.NextToken != nil {
			t.Errorf("ranges within %s: %+v (%v), want %v", within, out, err, want)
		}
	}
	list := func(within string, most *int32, token *string) func() error {
		return call(t, w.ListAvailableManagementCidrRanges, &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: &within, MaxResults: most, NextToken: token})
	}
	modify := func(cidr string) func() error {
		return call(t, w.ModifyAccount, &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: &cidr})
	}
	const pattern = "failed to satisfy constraint: Member must satisfy regular expression pattern"
	refuse(t, []refusal{
		{"no CIDR", code("ValidationException", "'managementCidrRangeConstraint' "+pattern), list("10.0.0.0", nil, nil)},
		{"six in a page", code("ValidationException", "Value '6' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 5"), list("10.0.0.0/8", aws.Int32(6), nil)},
		{"none in a page", code("ValidationException", "Member must have value greater than or equal to 1"), list("10.0.0.0/8", aws.Int32(0), nil)},
		{"made-up token", exception[*types.InvalidParameterValuesException]("NextToken"), list("10.0.0.0/8", nil, aws.String("bm93aGVyZQ"))},
		{"reserved range", exception[*types.InvalidParameterValuesException]("10.7.0.0/16 is not available"), modify("10.7.0.0/16")},
		{"range that has a reserved network in it", exception[*types.InvalidParameterValuesException]("192.168.0.0/16 is not available"), modify("192.168.0.0/16")},
		{"public range", exception[*types.InvalidParameterValuesException]("8.8.0.0/16 is not available"), modify("8.8.0.0/16")},
		{"range beside a parent", exception[*types.InvalidParameterValuesException]("172.32.0.0/16 is not available"), modify("172.32.0.0/16")},
		{"range that is no /16", code("ValidationException", "'dedicatedTenancyManagementCidrRange' "+pattern), modify("10.1.0.0/20")},
		{"range that is not aligned", code("ValidationException", "'dedicatedTenancyManagementCidrRange' "+pattern), modify("10.1.2.0/16")},
		{"support without a range", exception[*types.InvalidParameterValuesException]("DedicatedTenancyManagementCidrRange"),
			call(t, w.ModifyAccount, &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled})},
		{"range without support", exception[*types.InvalidParameterValuesException]("DedicatedTenancySupport ENABLED"),
			call(t, w.ModifyAccount, &workspaces.ModifyAccountInput{DedicatedTenancyManagementCidrRange: aws.String("10.1.0.0/16")})},
		{"support that cannot be", code("ValidationException", "Member must satisfy enum value set: [ENABLED]"),
			call(t, w.ModifyAccount, &workspaces.ModifyAccountInput{DedicatedTenancySupport: "DISABLED", DedicatedTenancyManagementCidrRange: aws.String("10.1.0.0/16")})},
		{"nothing", exception[*types.InvalidParameterValuesException]("To enable BYOL"), call(t, w.ModifyAccount, &workspaces.ModifyAccountInput{})},
	})
	mods, err := w.DescribeAccountModifications(t.Context(), &workspaces.DescribeAccountModificationsInput{})
	if err != nil || len(mods.AccountModifications) != 0 {
		t.Errorf("refused modifications are listed: %+v (%v)", mods, err)
	}
}

func (s *story) enable(t *testing.T) {
	w := s.workspaces
	const cidr = "172.20.0.0/16"
	modify := func(cidr string) func() error {
		return call(t, w.ModifyAccount, &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String(cidr)})
	}
	if err := modify(cidr)(); err != nil {
		t.Fatal(err)
	}
	refuse(t, []refusal{
		{"again while it goes on", exception[*types.InvalidResourceStateException]("already being enabled for this account in us-east-1 with the management range 172.20.0.0/16"), modify("10.1.0.0/16")},
		{"DEDICATED while it goes on", exception[*types.InvalidParameterValuesException]("Enable it with ModifyAccount first"),
			call(t, w.RegisterWorkspaceDirectory, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: &s.directory, Tenancy: types.TenancyDedicated})},
	})
	var mod types.AccountModification
	eventually(t, "the modification is COMPLETED", func() (bool, error) {
		out, err := w.DescribeAccountModifications(t.Context(), &workspaces.DescribeAccountModificationsInput{})
		if err != nil || len(out.AccountModifications) != 1 {
			return false, errors.Join(err, fmt.Errorf("modifications: %+v", out))
		}
		mod = out.AccountModifications[0]
		return mod.ModificationState == types.DedicatedTenancyModificationStateEnumCompleted, nil
	})
	if aws.ToString(mod.DedicatedTenancyManagementCidrRange) != cidr || mod.DedicatedTenancySupport != types.DedicatedTenancySupportResultEnumEnabled || mod.StartTime == nil || mod.ErrorCode != nil {
		t.Errorf("the modification is %+v", mod)
	}
	acc, err := w.DescribeAccount(t.Context(), &workspaces.DescribeAccountInput{})
	if err != nil || acc.DedicatedTenancySupport != types.DedicatedTenancySupportResultEnumEnabled || aws.ToString(acc.DedicatedTenancyManagementCidrRange) != cidr {
		t.Errorf("DescribeAccount says %+v (%v)", acc, err)
	}
	refuse(t, []refusal{
		{"the same again", exception[*types.InvalidResourceStateException]("cannot be modified after it has been set"), modify(cidr)},
		{"another range", exception[*types.InvalidResourceStateException]("cannot be modified after it has been set"), modify("10.1.0.0/16")},
	})
}

// check asks berth check what it thinks of the sample and of one that is unfit.
func (s *story) check(t *testing.T) {
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]struct {
		exit  int
		fails string
	}{phony.Base: {0, ""}, "disk-free-space": {1, "DiskFreeSpace"}, "bitlocker": {2, ""}} {
		cmd := exec.CommandContext(t.Context(), path, "check", "--output", "json", export(t, kind, "ova"))
		out, err := cmd.Output()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want.exit {
			t.Errorf("berth check of %s ended with %v, want exit code %d", kind, err, want.exit)
		}
		if want.exit == 2 {
			continue
		}
		var report struct {
			Fit      bool
			Findings []struct{ Code, Outcome string }
		}
		if err := json.Unmarshal(out, &report); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		failed := ""
		for _, f := range report.Findings {
			if f.Outcome == "FAIL" || f.Outcome == "WARN" {
				failed += f.Code
			}
		}
		if report.Fit != (want.exit == 0) || failed != want.fails {
			t.Errorf("berth check of %s: fit %v, failed %q; want %q", kind, report.Fit, failed, want.fails)
		}
	}
}

func (s *story) importVM(t *testing.T) {
	s.bucket(t, "exports")
	s.put(t, "exports", "win10.ova", export(t, phony.Base, "ova"))
	s.ami = s.client.ami(t, "exports", "win10.ova")
	if !strings.HasPrefix(s.ami, "ami-") {
		t.Errorf("the AMI's id is %q", s.ami)
	}
}

// imageOf is a sound request for an image.
func imageOf(ami, name string) *workspaces.ImportWorkspaceImageInput {
	return &workspaces.ImportWorkspaceImageInput{Ec2ImageId: &ami, ImageName: &name, ImageDescription: aws.String("Made in a story"), IngestionProcess: types.WorkspaceImageIngestionProcessByolRegular}
}

// ingested waits for an image that is not PENDING any more.
func (s *story) ingested(t *testing.T, id string) (im types.WorkspaceImage) {
	t.Helper()
	eventually(t, "the image "+id+" is not PENDING", func() (bool, error) {
		out, err := s.workspaces.DescribeWorkspaceImages(t.Context(), &workspaces.DescribeWorkspaceImagesInput{ImageIds: []string{id}})
		if err != nil || len(out.Images) != 1 {
			return false, errors.Join(err, fmt.Errorf("images: %+v", out))
		}
		im = out.Images[0]
		return im.State != types.WorkspaceImageStatePending, nil
	})
	return im
}

func (s *story) ingest(t *testing.T) {
	w := s.workspaces
	with := func(change func(*workspaces.ImportWorkspaceImageInput)) func() error {
		in := imageOf(s.ami, "refused")
		change(in)
		return call(t, w.ImportWorkspaceImage, in)
	}
	process := func(p string) func() error {
		return with(func(in *workspaces.ImportWorkspaceImageInput) {
			in.IngestionProcess = types.WorkspaceImageIngestionProcess(p)
		})
	}
	refuse(t, []refusal{
		{"unknown AMI", exception[*types.ResourceNotFoundException]("ami-00000000000000000"), with(func(in *workspaces.ImportWorkspaceImageInput) { in.Ec2ImageId = aws.String("ami-00000000000000000") })},
		{"what is no AMI", code("ValidationException", "at 'ec2ImageId' failed to satisfy constraint"), with(func(in *workspaces.ImportWorkspaceImageInput) { in.Ec2ImageId = aws.String("wsi-000000000") })},
		{"graphics without the allow list", exception[*types.OperationNotSupportedException]("not on the allow list for BYOL_GRAPHICS"), process("BYOL_GRAPHICS_G4DN")},
		{"graphics pro without the allow list", exception[*types.OperationNotSupportedException]("not on the allow list for BYOL_GRAPHICSPRO"), process("BYOL_GRAPHICSPRO")},
		{"bring your own protocol", exception[*types.OperationNotSupportedException]("WorkSpaces Core"), process("BYOL_REGULAR_BYOP")},
		{"unknown process", code("ValidationException", "Member must satisfy enum value set: ["), process("BYOL_SPECIAL")},
		{"two Offices", exception[*types.InvalidParameterValuesException]("Only one version of Microsoft Office"), with(func(in *workspaces.ImportWorkspaceImageInput) {
			in.Applications = []types.Application{types.ApplicationMicrosoftOffice2016, types.ApplicationMicrosoftOffice2019}
		})},
		{"unknown Office", code("ValidationException", "at 'applications' failed to satisfy constraint"), with(func(in *workspaces.ImportWorkspaceImageInput) {
			in.Applications = []types.Application{"Microsoft_Office_97"}
		})},
		{"bad name", code("ValidationException", "at 'imageName' failed to satisfy constraint: Member must satisfy regular expression pattern"), with(func(in *workspaces.ImportWorkspaceImageInput) { in.ImageName = aws.String("a name") })},
		{"reserved tag", exception[*types.InvalidParameterValuesException]("aws: are reserved"), with(func(in *workspaces.ImportWorkspaceImageInput) {
			in.Tags = []types.Tag{{Key: aws.String("AWS:x"), Value: aws.String("y")}}
		})},
	})
	in := imageOf(s.ami, "win10")
	in.Applications = []types.Application{types.ApplicationMicrosoftOffice2019}
	in.Tags = []types.Tag{{Key: aws.String("team"), Value: aws.String("harbour")}}
	made, err := w.ImportWorkspaceImage(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	s.image = aws.ToString(made.ImageId)
	refuse(t, []refusal{{"the same name", exception[*types.ResourceAlreadyExistsException]("win10 already exists"), call(t, w.ImportWorkspaceImage, imageOf(s.ami, "win10"))}})
	im := s.ingested(t, s.image)
	if im.State != types.WorkspaceImageStateAvailable || aws.ToString(im.Name) != "win10" || aws.ToString(im.Description) != "Made in a story" || im.RequiredTenancy != types.WorkspaceImageRequiredTenancyDedicated ||
		im.OperatingSystem == nil || im.OperatingSystem.Type != types.OperatingSystemTypeWindows || aws.ToString(im.OwnerAccountId) != s.AccountID || im.Created == nil || im.ErrorCode != nil || len(im.ErrorDetails) > 0 {
		t.Errorf("the image is %+v", im)
	}
	shared, err := w.DescribeWorkspaceImages(t.Context(), &workspaces.DescribeWorkspaceImagesInput{ImageType: types.ImageTypeShared})
	if err != nil || len(shared.Images) != 0 {
		t.Errorf("shared images: %+v (%v), want none", shared, err)
	}
	// What the service shared the AMI for is over.
	var attr struct {
		Users []string `xml:"launchPermission>item>userId"`
	}
	if err := s.ec2(t, &attr, "DescribeImageAttribute", "ImageId", s.ami, "Attribute", "launchPermission"); err != nil || len(attr.Users) != 0 {
		t.Errorf("after the ingestion the AMI is shared with %v (%v)", attr.Users, err)
	}
}

// unfitImages imports machines that the ingestion refuses: each is an ERROR with the check's code.
func (s *story) unfitImages(t *testing.T) {
	w := s.workspaces
	type unfit struct {
		kind, code string
		office     bool
	}
	failed := ""
	for _, u := range []unfit{{"disk-free-space", "DiskFreeSpace", false}, {"office-installed", "OfficeInstalled", true}, {"auto-logon-enabled", "AutoLogonEnabled", false}} {
		s.put(t, "exports", u.kind+".ova", export(t, u.kind, "ova"))
		in := imageOf(s.client.ami(t, "exports", u.kind+".ova"), u.kind)
		if u.office {
			in.Applications = []types.Application{types.ApplicationMicrosoftOffice2016}
		}
		made, err := w.ImportWorkspaceImage(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		failed = aws.ToString(made.ImageId)
		im := s.ingested(t, failed)
		if im.State != types.WorkspaceImageStateError || aws.ToString(im.ErrorCode) != u.code || im.ErrorMessage == nil || len(im.ErrorDetails) != 1 ||
			string(im.ErrorDetails[0].ErrorCode) != u.code || len(aws.ToString(im.ErrorDetails[0].ErrorMessage)) < 20 {
			t.Errorf("the image of %s is %s: %s %q %+v", u.kind, im.State, aws.ToString(im.ErrorCode), aws.ToString(im.ErrorMessage), im.ErrorDetails)
		}
	}
	refuse(t, []refusal{{"bundle of an image in ERROR", exception[*types.ResourceUnavailableException]("is ERROR"), call(t, w.CreateWorkspaceBundle, bundleOf(failed, "of-error"))}})
	if _, err := w.DeleteWorkspaceImage(t.Context(), &workspaces.DeleteWorkspaceImageInput{ImageId: &failed}); err != nil {
		t.Errorf("deleting an image in ERROR: %v", err)
	}
	s.pendingImage(t)
	var names []string
	in := &workspaces.DescribeWorkspaceImagesInput{MaxResults: aws.Int32(1)}
	for range 10 {
		out, err := w.DescribeWorkspaceImages(t.Context(), in)
		if err != nil || len(out.Images) != 1 {
			t.Fatalf("a page of one image: %+v (%v)", out, err)
		}
		names = append(names, aws.ToString(out.Images[0].Name))
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if want := []string{"office-installed", "disk-free-space", "win10"}; !slices.Equal(names, want) {
		t.Errorf("the images are %v, want %v: newest first", names, want)
	}
}

// pendingImage tries to delete an image while it is made. It may be made before it is
// tried; then another one is.
func (s *story) pendingImage(t *testing.T) {
	w := s.workspaces
	for i := range 5 {
		made, err := w.ImportWorkspaceImage(t.Context(), imageOf(s.ami, fmt.Sprintf("pending-%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		_, early := w.DeleteWorkspaceImage(t.Context(), &workspaces.DeleteWorkspaceImageInput{ImageId: made.ImageId})
		if early == nil {
			continue
		}
		refuse(t, []refusal{{"deleting an image that is PENDING", exception[*types.InvalidResourceStateException]("is being created. Wait until it is AVAILABLE or in ERROR"), func() error { return early }}})
		s.ingested(t, *made.ImageId)
		if _, err := w.DeleteWorkspaceImage(t.Context(), &workspaces.DeleteWorkspaceImageInput{ImageId: made.ImageId}); err != nil {
			t.Errorf("deleting an image that is AVAILABLE: %v", err)
		}
		return
	}
	t.Error("five images were all made before they could be deleted")
}

// desktopPicture holds the screen of a WorkSpace against what the sample draws.
func (s *story) desktopPicture(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Second) {
		err := s.look(t)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("in three minutes the desktop did not show its screen: %v", err)
		}
	}
}

func (s *story) look(t *testing.T) error {
	var out struct{ Png []byte }
	if err := s.berth(t, "GetWorkspaceScreenshot", map[string]any{"WorkspaceId": s.workspace}, &out); err != nil {
		return err
	}
	picture, err := png.Decode(bytes.NewReader(out.Png))
	if err != nil {
		return err
	}
	return phony.CheckScreen(picture)
}
