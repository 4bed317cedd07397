package sdk

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func describeImages(t *testing.T, s *service, amis []string) {
	c := s.ec2
	if err := ec2.NewImageAvailableWaiter(c).Wait(t.Context(), &ec2.DescribeImagesInput{ImageIds: amis}, time.Minute); err != nil {
		t.Errorf("waiting for ImageAvailable: %v", err)
	}
	if err := ec2.NewImageExistsWaiter(c).Wait(t.Context(), &ec2.DescribeImagesInput{ImageIds: amis}, time.Minute); err != nil {
		t.Errorf("waiting for ImageExists: %v", err)
	}
	out, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: amis[:1], IncludeDeprecated: aws.Bool(true), IncludeDisabled: aws.Bool(true)})
	if err != nil || len(out.Images) != 1 {
		t.Fatalf("%+v (%v)", out, err)
	}
	im := out.Images[0]
	same(t, "ImageId", im.ImageId, amis[0])
	same(t, "OwnerId", im.OwnerId, s.account)
	same(t, "Description", im.Description, "Windows 10 <Enterprise> & more")
	same(t, "PlatformDetails", im.PlatformDetails, "Windows BYOL")
	same(t, "UsageOperation", im.UsageOperation, "RunInstances:0800")
	same(t, "Public", im.Public, false)
	same(t, "RootDeviceName", im.RootDeviceName, "/dev/sda1")
	if at, err := time.Parse(time.RFC3339, aws.ToString(im.CreationDate)); err != nil || time.Since(at) > time.Hour || time.Until(at) > time.Minute {
		t.Errorf("CreationDate is %q (%v)", aws.ToString(im.CreationDate), err)
	}
	if im.State != types.ImageStateAvailable || im.Architecture != types.ArchitectureValuesX8664 || im.Platform != "windows" || im.RootDeviceType != types.DeviceTypeEbs ||
		im.VirtualizationType != types.VirtualizationTypeHvm || im.ImageType != types.ImageTypeValuesMachine || im.Hypervisor != types.HypervisorTypeXen || im.BootMode != types.BootModeValuesLegacyBios || aws.ToString(im.Name) == "" {
		t.Errorf("the image is %+v", im)
	}
	if len(im.BlockDeviceMappings) != 1 || im.BlockDeviceMappings[0].Ebs == nil {
		t.Fatalf("its devices are %+v", im.BlockDeviceMappings)
	}
	same(t, "VolumeSize", im.BlockDeviceMappings[0].Ebs.VolumeSize, 40)
	same(t, "Encrypted", im.BlockDeviceMappings[0].Ebs.Encrypted, false)

	list := func(in *ec2.DescribeImagesInput) (ids []string) {
		t.Helper()
		for p := ec2.NewDescribeImagesPaginator(c, in); p.HasMorePages(); {
			out, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, im := range out.Images {
				ids = append(ids, *im.ImageId)
			}
		}
		slices.Sort(ids)
		return ids
	}
	both := slices.Sorted(slices.Values(amis))
	filter := func(name string, values ...string) []types.Filter {
		return []types.Filter{{Name: &name, Values: values}}
	}
	for what, row := range map[string]struct {
		in   ec2.DescribeImagesInput
		want []string
	}{
		"all":               {ec2.DescribeImagesInput{}, both},
		"one's own":         {ec2.DescribeImagesInput{Owners: []string{"self"}}, both},
		"the account's":     {ec2.DescribeImagesInput{Owners: []string{s.account}}, both},
		"Amazon's":          {ec2.DescribeImagesInput{Owners: []string{"amazon"}}, nil},
		"page by page":      {ec2.DescribeImagesInput{MaxResults: aws.Int32(1)}, both},
		"shared with self":  {ec2.DescribeImagesInput{ExecutableUsers: []string{"self"}}, both},
		"shared with 1…":    {ec2.DescribeImagesInput{ExecutableUsers: []string{"123456789012"}}, nil},
		"available":         {ec2.DescribeImagesInput{Filters: filter("state", "available")}, both},
		"pending or failed": {ec2.DescribeImagesInput{Filters: filter("state", "pending", "failed")}, nil},
		"by description":    {ec2.DescribeImagesInput{Filters: filter("description", "Windows ?? <*")}, amis[:1]},
		"by image id":       {ec2.DescribeImagesInput{Filters: filter("image-id", amis[1])}, amis[1:]},
		"x86 and Windows": {ec2.DescribeImagesInput{Filters: append(append(filter("architecture", "x86_64"), filter("platform", "windows")...),
			filter("virtualization-type", "hvm", "paravirtual")...)}, both},
		"ARM":       {ec2.DescribeImagesInput{Filters: filter("architecture", "arm64")}, nil},
		"public":    {ec2.DescribeImagesInput{Filters: filter("is-public", "true")}, nil},
		"by tag":    {ec2.DescribeImagesInput{Filters: filter("tag:team", "harbour")}, nil}, // the tags are the task's
		"UEFI":      {ec2.DescribeImagesInput{Filters: filter("boot-mode", "uefi")}, nil},
		"owner id":  {ec2.DescribeImagesInput{Filters: filter("owner-id", s.account)}, both},
		"EBS":       {ec2.DescribeImagesInput{Filters: filter("root-device-type", "ebs")}, both},
		"machines":  {ec2.DescribeImagesInput{Filters: filter("image-type", "machine")}, both},
		"any name":  {ec2.DescribeImagesInput{Filters: filter("name", "*")}, both},
		"this name": {ec2.DescribeImagesInput{Filters: filter("name", *im.Name)}, amis[:1]},
	} {
		if got := list(&row.in); !slices.Equal(got, row.want) {
			t.Errorf("images, %s: %v, want %v", what, got, row.want)
		}
	}
	_, err = c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Filters: filter("colour", "blue")})
	refused(t, "unknown filter", err, "InvalidParameterValue", "colour")
	_, err = c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{"ami-00000000000000000"}})
	refused(t, "unknown image", err, "InvalidAMIID.NotFound", "ami-00000000000000000")
	_, err = c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{DryRun: aws.Bool(true)})
	refused(t, "dry run", err, "DryRunOperation", "would have succeeded")
}

func attributes(t *testing.T, s *service, ami string) {
	c := s.ec2
	modify := func(in *ec2.ModifyImageAttributeInput) error {
		in.ImageId = &ami
		_, err := c.ModifyImageAttribute(t.Context(), in)
		return err
	}
	attribute := func(name types.ImageAttributeName) *ec2.DescribeImageAttributeOutput {
		t.Helper()
		out, err := c.DescribeImageAttribute(t.Context(), &ec2.DescribeImageAttributeInput{ImageId: &ami, Attribute: name})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "ImageId", out.ImageId, ami)
		return out
	}
	shared := func(want ...string) {
		t.Helper()
		var got []string
		for _, p := range attribute(types.ImageAttributeNameLaunchPermission).LaunchPermissions {
			got = append(got, aws.ToString(p.UserId))
		}
		if !slices.Equal(got, want) {
			t.Errorf("the image is shared with %v, want %v", got, want)
		}
	}
	const a, b, d = "111111111111", "222222222222", "333333333333"
	for _, in := range []*ec2.ModifyImageAttributeInput{
		{LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: aws.String(a)}, {UserId: aws.String(b)}}}},
		{Attribute: aws.String("launchPermission"), OperationType: types.OperationTypeAdd, UserIds: []string{b, d}},
	} {
		if err := modify(in); err != nil {
			t.Fatal(err)
		}
	}
	shared(a, b, d)
	out, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ExecutableUsers: []string{d}})
	if err != nil || len(out.Images) != 1 || *out.Images[0].ImageId != ami {
		t.Errorf("images shared with %s: %+v (%v)", d, out, err)
	}
	for _, in := range []*ec2.ModifyImageAttributeInput{
		{LaunchPermission: &types.LaunchPermissionModifications{Remove: []types.LaunchPermission{{UserId: aws.String(a)}}}},
		{Attribute: aws.String("launchPermission"), OperationType: types.OperationTypeRemove, UserIds: []string{d}},
		{Description: &types.AttributeValue{Value: aws.String("first")}},
	} {
		if err := modify(in); err != nil {
			t.Fatal(err)
		}
	}
	shared(b)
	same(t, "description", attribute(types.ImageAttributeNameDescription).Description.Value, "first")
	if err := modify(&ec2.ModifyImageAttributeInput{Attribute: aws.String("description"), Value: aws.String("second")}); err != nil {
		t.Fatal(err)
	}
	same(t, "description", attribute(types.ImageAttributeNameDescription).Description.Value, "second")
	same(t, "bootMode", attribute(types.ImageAttributeNameBootMode).BootMode.Value, "legacy-bios")
	if m := attribute(types.ImageAttributeNameBlockDeviceMapping).BlockDeviceMappings; len(m) != 1 || m[0].Ebs == nil || aws.ToInt32(m[0].Ebs.VolumeSize) != 40 {
		t.Errorf("blockDeviceMapping is %+v", m)
	}
	refused(t, "nothing", modify(&ec2.ModifyImageAttributeInput{}), "InvalidParameterCombination", "No attributes specified")
	refused(t, "everybody", modify(&ec2.ModifyImageAttributeInput{LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{Group: types.PermissionGroupAll}}}}), "InvalidAMIAttributeItemValue", "12 digits")
	refused(t, "who is no account", modify(&ec2.ModifyImageAttributeInput{LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: aws.String("ada")}}}}), "InvalidAMIAttributeItemValue", "12 digits")
	refused(t, "another attribute", modify(&ec2.ModifyImageAttributeInput{Attribute: aws.String("kernel"), Value: aws.String("x")}), "InvalidParameterValue", "kernel")
	refused(t, "unknown operation", modify(&ec2.ModifyImageAttributeInput{Attribute: aws.String("launchPermission"), OperationType: "give", UserIds: []string{a}}), "InvalidParameterValue", "enum value set: [add, remove]")
	refused(t, "dry run", modify(&ec2.ModifyImageAttributeInput{DryRun: aws.Bool(true), Description: &types.AttributeValue{Value: aws.String("third")}}), "DryRunOperation", "would have succeeded")
	same(t, "description after a dry run", attribute(types.ImageAttributeNameDescription).Description.Value, "second")
	_, err = c.ModifyImageAttribute(t.Context(), &ec2.ModifyImageAttributeInput{ImageId: aws.String("ami-00000000000000000"), Description: &types.AttributeValue{Value: aws.String("x")}})
	refused(t, "unknown image", err, "InvalidAMIID.NotFound", "ami-00000000000000000")
	_, err = c.DescribeImageAttribute(t.Context(), &ec2.DescribeImageAttributeInput{ImageId: &ami, Attribute: types.ImageAttributeNameKernel})
	refused(t, "attribute that is not kept", err, "InvalidParameterValue", "kernel")
	_, err = c.DescribeImageAttribute(t.Context(), &ec2.DescribeImageAttributeInput{ImageId: aws.String("ami-00000000000000000"), Attribute: types.ImageAttributeNameDescription})
	refused(t, "attribute of an unknown image", err, "InvalidAMIID.NotFound", "ami-00000000000000000")
	_, err = c.DescribeImageAttribute(t.Context(), &ec2.DescribeImageAttributeInput{ImageId: &ami, Attribute: types.ImageAttributeNameDescription, DryRun: aws.Bool(true)})
	refused(t, "dry run", err, "DryRunOperation", "would have succeeded")
}

func deregister(t *testing.T, s *service, amis []string) {
	c := s.ec2
	_, err := c.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &amis[0], DryRun: aws.Bool(true)})
	refused(t, "dry run", err, "DryRunOperation", "would have succeeded")
	for i, snapshots := range []bool{false, true} {
		out, err := c.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &amis[i], DeleteAssociatedSnapshots: &snapshots})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "Return", out.Return, true)
		if n := len(out.DeleteSnapshotResults); n != i {
			t.Errorf("%d snapshots were deleted, want %d", n, i)
		} else if n == 1 && out.DeleteSnapshotResults[0].ReturnCode != types.SnapshotReturnCodesSuccess {
			t.Errorf("deleting the snapshot: %+v", out.DeleteSnapshotResults[0])
		}
		_, err = c.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &amis[i]})
		refused(t, "deregistering twice", err, "InvalidAMIID.NotFound", amis[i])
	}
}
