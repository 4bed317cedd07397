package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/uptrace/bun"
)

// machineImageRecord is an AMI: an imported disk that can boot.
type machineImageRecord struct {
	bun.BaseModel `bun:"table:machine_images"`
	ID            string    `bun:"id,pk"`
	TaskID        string    `bun:"task_id"`
	SnapshotID    string    `bun:"snapshot_id"`
	Name          string    `bun:"name"`
	Description   string    `bun:"description"`
	Architecture  string    `bun:"architecture"`
	BootMode      string    `bun:"boot_mode"`
	LicenseType   string    `bun:"license_type"`
	CreatedAt     time.Time `bun:"created_at"`
}

// machineImageDisk is a disk of an AMI besides its root.
type machineImageDisk struct {
	bun.BaseModel `bun:"table:machine_image_disks"`
	ImageID       string `bun:"image_id,pk"`
	DeviceName    string `bun:"device_name,pk"`
	SnapshotID    string `bun:"snapshot_id"`
}

type launchPermissionRecord struct {
	bun.BaseModel `bun:"table:launch_permissions"`
	ImageID       string `bun:"image_id,pk"`
	UserID        string `bun:"user_id,pk"`
}

// DescribeImages lists AMIs, newest first.
func (e *EC2) DescribeImages(ctx context.Context, in *DescribeImagesInput) (*DescribeImagesOutput, error) {
	d := e.d
	var rs []machineImageRecord
	if err := d.db.NewSelect().Model(&rs).Order("created_at DESC", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	rs, err := asked(rs, in.ImageIDs, func(r machineImageRecord) string { return r.ID }, noImage)
	if err != nil {
		return nil, err
	}
	if err := knownFilters(imageFilter, in.Filters); err != nil {
		return nil, err
	}
	// This account's images are the only ones here; "amazon" and other accounts own none.
	if len(in.Owners) > 0 && !slices.Contains(in.Owners, "self") && !slices.Contains(in.Owners, d.cfg.AccountID) {
		rs = nil
	}
	var images []EC2Image
	for _, r := range rs {
		im, err := d.ec2Image(ctx, &r)
		if err != nil {
			return nil, err
		}
		ok := passes(imageFilter, &im, in.Filters)
		if ok && len(in.ExecutableUsers) > 0 {
			if ok, err = d.executable(ctx, r.ID, in.ExecutableUsers); err != nil {
				return nil, err
			}
		}
		if ok {
			images = append(images, im)
		}
	}
	page, next, err := ec2Page(images, in.MaxResults, in.NextToken, func(im EC2Image) string { return *im.ImageID })
	return &DescribeImagesOutput{Images: page, NextToken: next}, err
}

// executable tells whether an image is shared with one of the users ("self" owns all of them).
func (d *Desk) executable(ctx context.Context, image string, users []string) (bool, error) {
	if slices.Contains(users, "self") {
		return true, nil
	}
	n, err := d.db.NewSelect().Model((*launchPermissionRecord)(nil)).Where("image_id = ? AND user_id IN (?)", image, bun.List(users)).Count(ctx)
	if err != nil {
		return false, fmt.Errorf("desk: %w", err)
	}
	return n > 0, nil
}

func noImage(id string) error {
	return refused("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
}

func (d *Desk) ec2Image(ctx context.Context, r *machineImageRecord) (EC2Image, error) {
	blocks, err := d.blockDevices(ctx, r)
	if err != nil {
		return EC2Image{}, err
	}
	tags, err := d.ec2Tags(ctx, r.ID)
	if err != nil {
		return EC2Image{}, err
	}
	details, usage := "Windows BYOL", "RunInstances:0800"
	if r.LicenseType == licenseAWS {
		details, usage = "Windows", "RunInstances:0002"
	}
	// EC2 knows the hypervisors ovm and xen alone, and says xen of its KVM machines too: typed clients know no other. EnaSupport is
	// false and TpmSupport is left out because the desktops made of these images have neither (compute/qemu's arguments).
	return EC2Image{
		ImageID: aws.String(r.ID), ImageLocation: aws.String(d.cfg.AccountID + "/" + r.Name), ImageState: aws.String("available"),
		ImageOwnerID: aws.String(d.cfg.AccountID), CreationDate: aws.Time(r.CreatedAt), Architecture: aws.String(r.Architecture), ImageType: aws.String("machine"),
		Platform: aws.String("windows"), PlatformDetails: aws.String(details), UsageOperation: aws.String(usage),
		BlockDeviceMappings: blocks, Description: optional(r.Description), Hypervisor: aws.String("xen"), Name: aws.String(r.Name),
		RootDeviceName: aws.String("/dev/sda1"), RootDeviceType: aws.String("ebs"), VirtualizationType: aws.String("hvm"), BootMode: optional(r.BootMode), Tags: tags,
	}, nil
}

func (d *Desk) blockDevices(ctx context.Context, r *machineImageRecord) ([]BlockDeviceMapping, error) {
	disks, err := disksOf(ctx, d.db, r)
	if err != nil {
		return nil, err
	}
	var out []BlockDeviceMapping
	for _, x := range disks {
		s, err := d.snapshot(ctx, x.SnapshotID)
		if err != nil {
			return nil, err
		}
		out = append(out, BlockDeviceMapping{DeviceName: aws.String(x.DeviceName), EBS: &EBSBlockDevice{
			DeleteOnTermination: true, SnapshotID: aws.String(s.ID), VolumeSize: gibOf(s.SizeBytes), VolumeType: aws.String("gp2")}})
	}
	return out, nil
}

// disksOf are an AMI's disks, the root first.
func disksOf(ctx context.Context, db bun.IDB, r *machineImageRecord) ([]machineImageDisk, error) {
	data := []machineImageDisk{}
	if err := db.NewSelect().Model(&data).Where("image_id = ?", r.ID).Order("device_name").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: disks of %s: %w", r.ID, err)
	}
	return append([]machineImageDisk{{ImageID: r.ID, DeviceName: rootDevice, SnapshotID: r.SnapshotID}}, data...), nil
}

// gibOf is a size in GiB, rounded up: what Amazon's API calls GB.
func gibOf(bytes int64) int64 { return (bytes + 1<<30 - 1) >> 30 }

// imageFilters are the filters of DescribeImages: those that EC2's model documents, and some for fields that it answers with
// besides. Each is what an image has of it. What images here never have (product codes, a kernel, …) matches nothing.
var imageFilters = map[string]func(im *EC2Image) []string{
	"architecture": func(im *EC2Image) []string { return had(im.Architecture) },
	"block-device-mapping.delete-on-termination": ofVolumes(func(v *EBSBlockDevice) []string { return []string{strconv.FormatBool(v.DeleteOnTermination)} }),
	"block-device-mapping.device-name": func(im *EC2Image) (names []string) {
		for _, b := range im.BlockDeviceMappings {
			names = append(names, had(b.DeviceName)...)
		}
		return names
	},
	"block-device-mapping.encrypted":   ofVolumes(func(v *EBSBlockDevice) []string { return []string{strconv.FormatBool(v.Encrypted)} }),
	"block-device-mapping.snapshot-id": ofVolumes(func(v *EBSBlockDevice) []string { return had(v.SnapshotID) }),
	"block-device-mapping.volume-size": ofVolumes(func(v *EBSBlockDevice) []string { return []string{strconv.FormatInt(v.VolumeSize, 10)} }),
	"block-device-mapping.volume-type": ofVolumes(func(v *EBSBlockDevice) []string { return had(v.VolumeType) }),
	"boot-mode":                        func(im *EC2Image) []string { return had(im.BootMode) },
	"creation-date":                    func(im *EC2Image) []string { return []string{im.CreationDate.UTC().Format("2006-01-02T15:04:05.000Z")} },
	"description":                      func(im *EC2Image) []string { return had(im.Description) },
	"ena-support":                      func(im *EC2Image) []string { return []string{strconv.FormatBool(im.EnaSupport)} },
	"free-tier-eligible":               func(*EC2Image) []string { return []string{"false"} },
	"hypervisor":                       func(im *EC2Image) []string { return had(im.Hypervisor) },
	"image-allowed":                    hadNever, // allowed AMIs cannot be switched on
	"image-id":                         func(im *EC2Image) []string { return had(im.ImageID) },
	"image-type":                       func(im *EC2Image) []string { return had(im.ImageType) },
	"is-public":                        func(im *EC2Image) []string { return []string{strconv.FormatBool(im.IsPublic)} },
	"kernel-id":                        hadNever,
	"manifest-location":                func(im *EC2Image) []string { return had(im.ImageLocation) },
	"name":                             func(im *EC2Image) []string { return had(im.Name) },
	"owner-alias":                      hadNever, // Amazon's own alone have one
	"owner-id":                         func(im *EC2Image) []string { return had(im.ImageOwnerID) },
	"platform":                         func(im *EC2Image) []string { return had(im.Platform) },
	"platform-details":                 func(im *EC2Image) []string { return had(im.PlatformDetails) },
	"product-code":                     hadNever,
	"product-code.type":                hadNever,
	"ramdisk-id":                       hadNever,
	"root-device-name":                 func(im *EC2Image) []string { return had(im.RootDeviceName) },
	"root-device-type":                 func(im *EC2Image) []string { return had(im.RootDeviceType) },
	"source-image-id":                  hadNever,
	"source-image-region":              hadNever,
	"source-instance-id":               hadNever,
	"sriov-net-support":                hadNever,
	"state":                            func(im *EC2Image) []string { return had(im.ImageState) },
	"state-reason-code":                hadNever,
	"state-reason-message":             hadNever,
	"tpm-support":                      hadNever, // see ec2Image
	"usage-operation":                  func(im *EC2Image) []string { return had(im.UsageOperation) },
	"virtualization-type":              func(im *EC2Image) []string { return had(im.VirtualizationType) },
	"tag-key": func(im *EC2Image) (keys []string) {
		for _, t := range im.Tags {
			keys = append(keys, had(t.Key)...)
		}
		return keys
	},
}

// hadNever is what no image here has.
func hadNever(*EC2Image) []string { return nil }

// ofVolumes is what an image's volumes have: the image matches by any of them.
func ofVolumes(of func(v *EBSBlockDevice) []string) func(im *EC2Image) []string {
	return func(im *EC2Image) (values []string) {
		for _, b := range im.BlockDeviceMappings {
			if b.EBS != nil {
				values = append(values, of(b.EBS)...)
			}
		}
		return values
	}
}

// imageFilter is what a filter looks at; nil when there is no such filter.
func imageFilter(name string) func(im *EC2Image) []string {
	key, ok := strings.CutPrefix(name, "tag:")
	if !ok {
		return imageFilters[name]
	}
	return func(im *EC2Image) (values []string) {
		for _, t := range im.Tags {
			if aws.ToString(t.Key) == key {
				values = append(values, aws.ToString(t.Value))
			}
		}
		return values
	}
}

func (d *Desk) machineImage(ctx context.Context, id string) (*machineImageRecord, error) {
	var r machineImageRecord
	err := d.db.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, noImage(id)
	}
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	return &r, nil
}

// ModifyImageAttribute shares an AMI with accounts or stops it, or changes its description. It can be written in both of
// EC2's ways: LaunchPermission.Add.1.UserId, or Attribute, OperationType and UserId.1.
func (e *EC2) ModifyImageAttribute(ctx context.Context, in *ModifyImageAttributeInput) (*ModifyImageAttributeOutput, error) {
	d := e.d
	r, err := d.machineImage(ctx, aws.ToString(in.ImageID))
	if err != nil {
		return nil, err
	}
	var add, remove []LaunchPermission
	description := in.Description
	if in.LaunchPermission != nil {
		add, remove = in.LaunchPermission.Add, in.LaunchPermission.Remove
	}
	switch a := aws.ToString(in.Attribute); {
	case a == "launchPermission" && len(in.UserIDs)+len(in.UserGroups) > 0:
		var list []LaunchPermission
		for _, u := range in.UserIDs {
			list = append(list, LaunchPermission{UserID: aws.String(u)})
		}
		for _, g := range in.UserGroups {
			list = append(list, LaunchPermission{Group: aws.String(g)})
		}
		switch op := aws.ToString(in.OperationType); op {
		case "add":
			add = append(add, list...)
		case "remove":
			remove = append(remove, list...)
		default:
			return nil, refused("InvalidParameterValue", "Value (%s) for parameter operationType is invalid. Give add or remove.", op)
		}
	case a == "description" && in.Value != nil:
		description = &AttributeValue{Value: in.Value}
	case a != "" && a != "launchPermission" && a != "description":
		return nil, refused("InvalidParameterValue", "The attribute '%s' cannot be modified.", a)
	}
	if len(add)+len(remove) == 0 && description == nil {
		return nil, refused("InvalidParameterCombination", "No attributes specified.")
	}
	for _, p := range append(slices.Clone(add), remove...) {
		if p.UserID == nil || !accountID(*p.UserID) {
			return nil, refused("InvalidAMIAttributeItemValue", "Images here are shared with accounts, by their 12 digits; groups and organizations do not exist.")
		}
	}
	return &ModifyImageAttributeOutput{Return: true}, d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		for _, p := range add {
			if err := share(ctx, tx, r.ID, *p.UserID); err != nil {
				return err
			}
		}
		for _, p := range remove {
			if _, err := tx.NewDelete().Model((*launchPermissionRecord)(nil)).Where("image_id = ? AND user_id = ?", r.ID, *p.UserID).Exec(ctx); err != nil {
				return err
			}
		}
		if description != nil {
			_, err := tx.NewUpdate().Model(r).Set("description = ?", aws.ToString(description.Value)).WherePK().Exec(ctx)
			return err
		}
		return nil
	})
}

// share lets an account use an AMI.
func share(ctx context.Context, db bun.IDB, image, user string) error {
	_, err := db.NewInsert().Model(&launchPermissionRecord{ImageID: image, UserID: user}).On("CONFLICT (image_id, user_id) DO NOTHING").Exec(ctx)
	return err
}

func accountID(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// DescribeImageAttribute tells one attribute of an AMI.
func (e *EC2) DescribeImageAttribute(ctx context.Context, in *DescribeImageAttributeInput) (*DescribeImageAttributeOutput, error) {
	d := e.d
	r, err := d.machineImage(ctx, aws.ToString(in.ImageID))
	if err != nil {
		return nil, err
	}
	out := &DescribeImageAttributeOutput{ImageID: aws.String(r.ID)}
	switch a := aws.ToString(in.Attribute); a {
	case "description":
		out.Description = &AttributeValue{Value: aws.String(r.Description)}
	case "bootMode":
		out.BootMode = &AttributeValue{Value: optional(r.BootMode)}
	case "blockDeviceMapping":
		out.BlockDeviceMappings, err = d.blockDevices(ctx, r)
	case "launchPermission":
		var ps []launchPermissionRecord
		if err := d.db.NewSelect().Model(&ps).Where("image_id = ?", r.ID).Order("user_id").Scan(ctx); err != nil {
			return nil, fmt.Errorf("desk: %w", err)
		}
		for _, p := range ps {
			out.LaunchPermissions = append(out.LaunchPermissions, LaunchPermission{UserID: aws.String(p.UserID)})
		}
	default:
		return nil, refused("InvalidParameterValue", "The attribute '%s' is not kept here: ask for description, bootMode, blockDeviceMapping or launchPermission.", a)
	}
	return out, err
}

// DeregisterImage removes an AMI. WorkSpaces images made of it stay; one that is being made keeps it from going.
func (e *EC2) DeregisterImage(ctx context.Context, in *DeregisterImageInput) (*DeregisterImageOutput, error) {
	d := e.d
	r, err := d.machineImage(ctx, aws.ToString(in.ImageID))
	if err != nil {
		return nil, err
	}
	withSnapshot := aws.ToBool(in.DeleteAssociatedSnapshots)
	var disks []machineImageDisk
	err = d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if ok, err := hold(ctx, tx, (*machineImageRecord)(nil), "id", r.ID); err != nil {
			return err
		} else if !ok {
			return noImage(r.ID)
		}
		if n, err := tx.NewSelect().Model((*workspaceImageRecord)(nil)).Where("machine_image_id = ? AND state = ?", r.ID, imagePending).Count(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		} else if n > 0 {
			return refused("InvalidAMIID.Unavailable", "The image %s is being made into a WorkSpaces image; wait until that has ended.", r.ID)
		}
		var err error
		if disks, err = disksOf(ctx, tx, r); err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model(r).WherePK().Exec(ctx); err != nil || !withSnapshot {
			return err
		}
		for _, x := range disks {
			if _, err := tx.NewDelete().Model((*snapshotRecord)(nil)).Where("id = ?", x.SnapshotID).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &DeregisterImageOutput{Return: true}
	if !withSnapshot {
		return out, nil
	}
	if _, err := d.collect(ctx); err != nil {
		return nil, err
	}
	for _, x := range disks {
		out.DeleteSnapshotResults = append(out.DeleteSnapshotResults, DeleteSnapshotResult{SnapshotID: aws.String(x.SnapshotID), ReturnCode: aws.String("success")})
	}
	return out, nil
}
