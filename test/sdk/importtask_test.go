package sdk

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// importing asks for an import with every member that the service takes.
func importing(key string) *ec2.ImportImageInput {
	return &ec2.ImportImageInput{
		Architecture: aws.String("x86_64"), BootMode: types.BootModeValuesLegacyBios, Description: aws.String("Windows 10 <Enterprise> & more"), Hypervisor: aws.String("xen"), LicenseType: aws.String("BYOL"),
		Platform: aws.String("Windows"), RoleName: aws.String("vmimport"), Encrypted: aws.Bool(false), DryRun: aws.Bool(false),
		ClientData:     &types.ClientData{Comment: aws.String("from the SDK"), UploadStart: aws.Time(time.Now().Add(-time.Minute)), UploadEnd: aws.Time(time.Now()), UploadSize: aws.Float64(1.5)},
		DiskContainers: []types.ImageDiskContainer{{Description: aws.String("the only disk"), DeviceName: aws.String("/dev/sda1"), Format: aws.String("ova"), UserBucket: &types.UserBucket{S3Bucket: aws.String("exports"), S3Key: &key}}},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeImportImageTask, Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("harbour")},
			{Key: aws.String("empty"), Value: aws.String("")}}}},
	}
}

// importImages imports the sample, whose disk's file has size bytes, twice, once by bucket and key and once by URL, and tells the AMIs.
func importImages(t *testing.T, s *service, size int64) (amis []string) {
	c := s.ec2
	in := importing("win10.ova")
	in.DryRun = aws.Bool(true)
	_, err := c.ImportImage(t.Context(), in)
	refused(t, "dry run", err, "DryRunOperation", "would have succeeded")
	in.DryRun, in.ClientToken = nil, aws.String("once")
	asked, err := c.ImportImage(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "Architecture", asked.Architecture, "x86_64")
	same(t, "Description", asked.Description, *in.Description)
	same(t, "LicenseType", asked.LicenseType, "BYOL")
	same(t, "Platform", asked.Platform, "Windows")
	same(t, "Status", asked.Status, "active")
	same(t, "StatusMessage", asked.StatusMessage, "pending")
	same(t, "Progress", asked.Progress, "2")
	same(t, "Encrypted", asked.Encrypted, false)
	if len(asked.SnapshotDetails) != 1 || asked.SnapshotDetails[0].UserBucket == nil {
		t.Fatalf("SnapshotDetails are %+v", asked.SnapshotDetails)
	}
	same(t, "S3Key", asked.SnapshotDetails[0].UserBucket.S3Key, "win10.ova")
	again, err := c.ImportImage(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the task of the same token", again.ImportTaskId, *asked.ImportTaskId)
	other := importing("disk.vhdx")
	other.ClientToken = in.ClientToken
	_, err = c.ImportImage(t.Context(), other)
	refused(t, "the same token for another disk", err, "IdempotentParameterMismatch", "used before")

	byURL, err := c.ImportImage(t.Context(), &ec2.ImportImageInput{DiskContainers: []types.ImageDiskContainer{{Url: aws.String("s3://exports/win10.ova")}}})
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{*asked.ImportTaskId, *byURL.ImportTaskId}
	var tasks []types.ImportImageTask
	eventually(t, func() (bool, error) {
		out, err := c.DescribeImportImageTasks(t.Context(), &ec2.DescribeImportImageTasksInput{ImportTaskIds: ids, Filters: []types.Filter{{Name: aws.String("task-state"), Values: []string{"completed", "deleted"}}}})
		if err != nil {
			return false, err
		}
		tasks = out.ImportImageTasks
		return len(tasks) == 2, nil
	})
	slices.SortFunc(tasks, func(a, b types.ImportImageTask) int {
		return slices.Index(ids, *a.ImportTaskId) - slices.Index(ids, *b.ImportTaskId)
	})
	first := tasks[0]
	same(t, "Status", first.Status, "completed")
	same(t, "Architecture", first.Architecture, "x86_64")
	same(t, "Description", first.Description, *in.Description)
	same(t, "LicenseType", first.LicenseType, "BYOL")
	same(t, "Platform", first.Platform, "Windows")
	same(t, "Encrypted", first.Encrypted, false)
	if first.BootMode != types.BootModeValuesLegacyBios || first.Progress != nil || first.StatusMessage != nil {
		t.Errorf("the completed task is %+v", first)
	}
	if len(first.Tags) != 2 || *first.Tags[0].Key != "empty" || *first.Tags[0].Value != "" || *first.Tags[1].Key != "team" || *first.Tags[1].Value != "harbour" {
		t.Errorf("the task's tags are %+v", first.Tags)
	}
	if len(first.SnapshotDetails) != 1 {
		t.Fatalf("the task's disks are %+v", first.SnapshotDetails)
	}
	d := first.SnapshotDetails[0]
	same(t, "DiskImageSize", d.DiskImageSize, float64(size))
	same(t, "DeviceName", d.DeviceName, "/dev/sda1")
	same(t, "the disk's Status", d.Status, "completed")
	if d.UserBucket == nil || aws.ToString(d.UserBucket.S3Bucket) != "exports" || !strings.HasPrefix(aws.ToString(d.SnapshotId), "snap-") {
		t.Errorf("the task's disk is %+v", d)
	}
	for _, task := range tasks {
		if task.ImageId == nil {
			t.Fatalf("a task ended as %s: %s", aws.ToString(task.Status), aws.ToString(task.StatusMessage))
		}
		amis = append(amis, *task.ImageId)
	}

	// Page by page.
	var paged []string
	for p := ec2.NewDescribeImportImageTasksPaginator(c, &ec2.DescribeImportImageTasksInput{MaxResults: aws.Int32(1)}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(out.ImportImageTasks) > 1 {
			t.Errorf("a page of one has %d tasks", len(out.ImportImageTasks))
		}
		for _, task := range out.ImportImageTasks {
			paged = append(paged, *task.ImportTaskId)
		}
	}
	slices.Reverse(paged)
	if !slices.Equal(paged, ids) {
		t.Errorf("page by page the tasks are %v, want %v, newest first", paged, ids)
	}
	none, err := c.DescribeImportImageTasks(t.Context(), &ec2.DescribeImportImageTasksInput{Filters: []types.Filter{{Name: aws.String("task-state"), Values: []string{"active"}}}})
	if err != nil || len(none.ImportImageTasks) != 0 {
		t.Errorf("active tasks: %+v (%v), want none", none, err)
	}
	_, err = c.DescribeImportImageTasks(t.Context(), &ec2.DescribeImportImageTasksInput{ImportTaskIds: []string{"import-ami-00000000000000000"}})
	refused(t, "unknown task", err, "InvalidConversionTaskId.Malformed", "does not exist")
	_, err = c.DescribeImportImageTasks(t.Context(), &ec2.DescribeImportImageTasksInput{DryRun: aws.Bool(true)})
	refused(t, "dry run", err, "DryRunOperation", "would have succeeded")
	_, err = c.DescribeImportImageTasks(t.Context(), &ec2.DescribeImportImageTasksInput{NextToken: aws.String("bm93aGVyZQ")})
	refused(t, "made-up token", err, "InvalidParameterValue", "nextToken")
	_, err = c.ImportImage(t.Context(), &ec2.ImportImageInput{DiskContainers: []types.ImageDiskContainer{{SnapshotId: aws.String("snap-00000000000000000")}}})
	refused(t, "snapshot that is not there", err, "InvalidSnapshot.NotFound", "does not exist")
	bySnapshot, err := c.ImportImage(t.Context(), &ec2.ImportImageInput{DryRun: aws.Bool(true), DiskContainers: []types.ImageDiskContainer{{SnapshotId: d.SnapshotId}}})
	refused(t, fmt.Sprintf("dry run of a snapshot %v", bySnapshot), err, "DryRunOperation", "would have succeeded")
	return amis
}

// severalDisks imports a machine of two disks that came one by one: the root is the one with Windows.
func severalDisks(t *testing.T, s *service) {
	c := s.ec2
	disk := func(key string) types.ImageDiskContainer {
		return types.ImageDiskContainer{Description: aws.String("disk " + key), UserBucket: &types.UserBucket{S3Bucket: aws.String("exports"), S3Key: &key}}
	}
	in := &ec2.ImportImageInput{UsageOperation: aws.String("RunInstances:0800"), Hypervisor: aws.String("xen"), DiskContainers: []types.ImageDiskContainer{disk("disk.vhdx"), disk("win10.ova")}}
	asked, err := c.ImportImage(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "UsageOperation", asked.UsageOperation, "RunInstances:0800")
	same(t, "LicenseType", asked.LicenseType, "BYOL")
	same(t, "Hypervisor", asked.Hypervisor, "xen")
	var task types.ImportImageTask
	eventually(t, func() (bool, error) {
		out, err := c.DescribeImportImageTasks(t.Context(), &ec2.DescribeImportImageTasksInput{ImportTaskIds: []string{*asked.ImportTaskId}})
		if err != nil {
			return false, err
		}
		task = out.ImportImageTasks[0]
		return *task.Status == "completed" || *task.Status == "deleted", nil
	})
	if *task.Status != "completed" || len(task.SnapshotDetails) != 2 {
		t.Fatalf("the task ended as %s: %s, with %+v", *task.Status, aws.ToString(task.StatusMessage), task.SnapshotDetails)
	}
	data, root := task.SnapshotDetails[0], task.SnapshotDetails[1]
	same(t, "the data disk's DeviceName", data.DeviceName, "/dev/sdf")
	same(t, "the data disk's Format", data.Format, "VHDX")
	same(t, "the data disk's Description", data.Description, "disk disk.vhdx")
	same(t, "the root's DeviceName", root.DeviceName, "/dev/sda1")
	same(t, "the root's Format", root.Format, "VMDK")
	images, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{*task.ImageId}})
	if err != nil || len(images.Images) != 1 || len(images.Images[0].BlockDeviceMappings) != 2 {
		t.Fatalf("%+v (%v)", images, err)
	}
	for i, want := range []*string{root.SnapshotId, data.SnapshotId} {
		same(t, "SnapshotId", images.Images[0].BlockDeviceMappings[i].Ebs.SnapshotId, *want)
	}
	if _, err := c.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: task.ImageId, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
		t.Error(err)
	}
	_, err = c.ImportImage(t.Context(), &ec2.ImportImageInput{DiskContainers: []types.ImageDiskContainer{{Url: aws.String("https://example.com/win10.ova")}}})
	refused(t, "a host that was not allowed", err, "InvalidParameter", "is not supported: give s3://bucket/key")
	_, err = c.ImportImage(t.Context(), &ec2.ImportImageInput{DiskContainers: []types.ImageDiskContainer{disk("win10.ova")},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeImage, Tags: []types.Tag{{Key: aws.String("k")}}}}})
	refused(t, "tags for what is not made yet", err, "InvalidParameterValue", "'image' is not a valid taggable resource type")
}

func importSnapshot(t *testing.T, s *service) {
	c := s.ec2
	in := &ec2.ImportSnapshotInput{
		Description: aws.String("a data disk"), ClientToken: aws.String("a snapshot, once"), Encrypted: aws.Bool(false), RoleName: aws.String("vmimport"), DryRun: aws.Bool(true),
		ClientData:        &types.ClientData{Comment: aws.String("from the SDK"), UploadSize: aws.Float64(0.0625)},
		DiskContainer:     &types.SnapshotDiskContainer{Description: aws.String("D:"), Format: aws.String("VHDX"), UserBucket: &types.UserBucket{S3Bucket: aws.String("exports"), S3Key: aws.String("disk.vhdx")}},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeImportSnapshotTask, Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("harbour")}}}},
	}
	_, err := c.ImportSnapshot(t.Context(), in)
	refused(t, "dry run", err, "DryRunOperation", "would have succeeded")
	in.DryRun = nil
	asked, err := c.ImportSnapshot(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "Description", asked.Description, "a data disk")
	same(t, "Status", asked.SnapshotTaskDetail.Status, "active")
	if len(asked.Tags) != 1 || *asked.Tags[0].Value != "harbour" {
		t.Errorf("the task's tags are %+v", asked.Tags)
	}
	again, err := c.ImportSnapshot(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the task of the same token", again.ImportTaskId, *asked.ImportTaskId)
	one := &ec2.DescribeImportSnapshotTasksInput{ImportTaskIds: []string{*asked.ImportTaskId}}
	quick := func(o *ec2.SnapshotImportedWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, 200*time.Millisecond
	}
	if err := ec2.NewSnapshotImportedWaiter(c, quick).Wait(t.Context(), one, time.Minute); err != nil {
		t.Errorf("waiting for SnapshotImported: %v", err)
	}
	out, err := c.DescribeImportSnapshotTasks(t.Context(), one)
	if err != nil || len(out.ImportSnapshotTasks) != 1 {
		t.Fatalf("%+v (%v)", out, err)
	}
	d := out.ImportSnapshotTasks[0].SnapshotTaskDetail
	same(t, "Status", d.Status, "completed")
	same(t, "Format", d.Format, "VHDX")
	same(t, "Description", d.Description, "D:")
	same(t, "Encrypted", d.Encrypted, false)
	if !strings.HasPrefix(aws.ToString(d.SnapshotId), "snap-") || d.UserBucket == nil || aws.ToString(d.UserBucket.S3Key) != "disk.vhdx" || aws.ToFloat64(d.DiskImageSize) < 1<<20 {
		t.Errorf("the snapshot task's disk is %+v", d)
	}
	bad, err := c.ImportSnapshot(t.Context(), &ec2.ImportSnapshotInput{DiskContainer: &types.SnapshotDiskContainer{Format: aws.String("VMDK"), Url: aws.String("s3://exports/disk.vhdx")}})
	if err != nil {
		t.Fatal(err)
	}
	err = ec2.NewSnapshotImportedWaiter(c, quick).Wait(t.Context(), &ec2.DescribeImportSnapshotTasksInput{ImportTaskIds: []string{*bad.ImportTaskId}}, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "waiter state transitioned to Failure") {
		t.Errorf("waiting for a snapshot that fails: %v", err)
	}
	var ids []string
	for p := ec2.NewDescribeImportSnapshotTasksPaginator(c, &ec2.DescribeImportSnapshotTasksInput{MaxResults: aws.Int32(1)}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range out.ImportSnapshotTasks {
			ids = append(ids, *task.ImportTaskId)
		}
	}
	if want := []string{*bad.ImportTaskId, *asked.ImportTaskId}; !slices.Equal(ids, want) {
		t.Errorf("page by page the snapshot tasks are %v, want %v, newest first", ids, want)
	}
	_, err = c.DescribeImportSnapshotTasks(t.Context(), &ec2.DescribeImportSnapshotTasksInput{DryRun: aws.Bool(true)})
	refused(t, "dry run", err, "DryRunOperation", "would have succeeded")
	_, err = c.ImportSnapshot(t.Context(), &ec2.ImportSnapshotInput{})
	refused(t, "no disk", err, "MissingParameter", "DiskContainer")
}

func cancel(t *testing.T, s *service) {
	c := s.ec2
	asked, err := c.ImportImage(t.Context(), &ec2.ImportImageInput{DiskContainers: []types.ImageDiskContainer{{Url: aws.String("s3://exports/win10.ova")}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CancelImportTask(t.Context(), &ec2.CancelImportTaskInput{ImportTaskId: asked.ImportTaskId, DryRun: aws.Bool(true)})
	refused(t, "dry run", err, "DryRunOperation", "would have succeeded")
	out, err := c.CancelImportTask(t.Context(), &ec2.CancelImportTaskInput{ImportTaskId: asked.ImportTaskId, CancelReason: aws.String("wrong disk")})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "ImportTaskId", out.ImportTaskId, *asked.ImportTaskId)
	same(t, "State", out.State, "deleting")
	if !slices.Contains([]string{"active", "validating", "validated", "converting"}, aws.ToString(out.PreviousState)) {
		t.Errorf("PreviousState is %q", aws.ToString(out.PreviousState))
	}
	eventually(t, func() (bool, error) {
		out, err := c.DescribeImportImageTasks(t.Context(), &ec2.DescribeImportImageTasksInput{ImportTaskIds: []string{*asked.ImportTaskId}})
		if err != nil {
			return false, err
		}
		task := out.ImportImageTasks[0]
		same(t, "StatusMessage", task.StatusMessage, "wrong disk")
		return aws.ToString(task.Status) == "deleted" && task.ImageId == nil, nil
	})
	_, err = c.CancelImportTask(t.Context(), &ec2.CancelImportTaskInput{ImportTaskId: asked.ImportTaskId})
	refused(t, "cancelling twice", err, "IncorrectState", "cannot be cancelled")
	_, err = c.CancelImportTask(t.Context(), &ec2.CancelImportTaskInput{ImportTaskId: aws.String("import-ami-00000000000000000")})
	refused(t, "unknown task", err, "InvalidConversionTaskId.Malformed", "does not exist")
}
