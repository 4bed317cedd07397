package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// program is the service, which make sdk builds first.
const program = "../../bin/berth"

// service is a running service, by the SDK's clients of one user.
type service struct {
	ec2     *ec2.Client
	s3      *s3.Client
	sts     *sts.Client
	account string
}

func serve(t *testing.T) *service {
	t.Helper()
	data := t.TempDir()
	log, err := os.Create(filepath.Join(data, "service.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "serve", "--data", data, "--listen", "127.0.0.1:0", "--accelerator", "tcg", "--on-exit", "power-off")
	cmd.Stdout, cmd.Stderr = log, log
	// When this process dies without cleaning up, the service is told to end. The signal is bound to the thread that starts it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("%v (build it first: make sdk)", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended already
		if err := <-ended; err != nil {
			t.Errorf("the service ended with %v", err)
		}
		if t.Failed() {
			b, err := os.ReadFile(log.Name())
			t.Logf("the service's log (%v):\n%s", err, b)
		}
	})
	var admin struct{ Endpoint, Region, AccountID, AccessKeyID, SecretAccessKey string }
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(data, "admin.json"))
		if err == nil {
			if err := json.Unmarshal(b, &admin); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the service did not become ready")
		}
	}
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: admin.AccessKeyID, SecretAccessKey: admin.SecretAccessKey}, nil
	})
	return &service{
		ec2:     ec2.New(ec2.Options{Region: admin.Region, BaseEndpoint: &admin.Endpoint, Credentials: credentials}),
		s3:      s3.New(s3.Options{Region: admin.Region, BaseEndpoint: &admin.Endpoint, Credentials: credentials, UsePathStyle: true}),
		sts:     sts.New(sts.Options{Region: admin.Region, BaseEndpoint: &admin.Endpoint, Credentials: credentials}),
		account: admin.AccountID,
	}
}

// refused sees that a call was refused with EC2's code and text.
func refused(t *testing.T, what string, err error, code, says string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), says) {
		t.Errorf("%s: got %v, want %s with %q", what, err, code, says)
	}
}

// same holds a value against what was put in.
func same[T comparable](t *testing.T, what string, got *T, want T) {
	t.Helper()
	if got == nil {
		t.Errorf("%s is missing, want %v", what, want)
	} else if *got != want {
		t.Errorf("%s is %v, want %v", what, *got, want)
	}
}

// TestEC2 drives every EC2 operation of the service by the SDK's own client: what it writes is understood, and what it reads
// is what was put in.
func TestEC2(t *testing.T) {
	s := serve(t)
	vm := filepath.Join(t.TempDir(), "win10.ova")
	if out, err := exec.CommandContext(t.Context(), program, "sample", vm).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk := filepath.Join(t.TempDir(), "disk.vhdx")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "vhdx", disk, "64M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := s.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("exports")}); err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for name, path := range map[string]string{"win10.ova": vm, "disk.vhdx": disk} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := s.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("exports"), Key: &name, Body: f}); err != nil {
			t.Fatal(err)
		}
		if fi, err := f.Stat(); err == nil && name == "win10.ova" {
			bytes = fi.Size()
		}
	}
	t.Run("STS", func(t *testing.T) { identity(t, s) })
	t.Run("encryption by default", func(t *testing.T) { encryption(t, s) })
	var amis []string
	t.Run("ImportImage", func(t *testing.T) { amis = importImages(t, s, bytes) })
	if len(amis) == 2 {
		t.Run("DescribeImages", func(t *testing.T) { describeImages(t, s, amis) })
		t.Run("image attributes", func(t *testing.T) { attributes(t, s, amis[0]) })
		t.Run("DeregisterImage", func(t *testing.T) { deregister(t, s, amis) })
	}
	t.Run("ImportSnapshot", func(t *testing.T) { importSnapshot(t, s) })
	t.Run("several disks", func(t *testing.T) { severalDisks(t, s) })
	t.Run("CancelImportTask", func(t *testing.T) { cancel(t, s) })
}

func identity(t *testing.T, s *service) {
	out, err := s.sts.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "Account", out.Account, s.account)
	same(t, "Arn", out.Arn, "arn:aws:iam::"+s.account+":user/admin")
	if aws.ToString(out.UserId) == "" {
		t.Error("UserId is missing")
	}
}

func encryption(t *testing.T, s *service) {
	c := s.ec2
	for _, dry := range []*bool{nil, aws.Bool(false)} {
		on, err := c.EnableEbsEncryptionByDefault(t.Context(), &ec2.EnableEbsEncryptionByDefaultInput{DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "encryption by default", on.EbsEncryptionByDefault, true)
	}
	_, err := c.DisableEbsEncryptionByDefault(t.Context(), &ec2.DisableEbsEncryptionByDefaultInput{DryRun: aws.Bool(true)})
	refused(t, "dry run of disabling", err, "DryRunOperation", "would have succeeded")
	got, err := c.GetEbsEncryptionByDefault(t.Context(), &ec2.GetEbsEncryptionByDefaultInput{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "encryption by default after a dry run of disabling it", got.EbsEncryptionByDefault, true)
	_, err = c.ImportImage(t.Context(), importing("win10.ova"))
	refused(t, "import with encryption by default", err, "InvalidParameter", "Encryption by default is on")
	off, err := c.DisableEbsEncryptionByDefault(t.Context(), &ec2.DisableEbsEncryptionByDefaultInput{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "encryption by default", off.EbsEncryptionByDefault, false)
	_, err = c.GetEbsEncryptionByDefault(t.Context(), &ec2.GetEbsEncryptionByDefaultInput{DryRun: aws.Bool(true)})
	refused(t, "dry run of asking", err, "DryRunOperation", "would have succeeded")
	_, err = c.EnableEbsEncryptionByDefault(t.Context(), &ec2.EnableEbsEncryptionByDefaultInput{DryRun: aws.Bool(true)})
	refused(t, "dry run of enabling", err, "DryRunOperation", "would have succeeded")
}

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

// importImages imports the sample twice, once by bucket and key and once by URL, and tells the AMIs.
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
	same(t, "Description", d.Description, "a data disk")
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

// eventually waits for something to become true.
func eventually(t *testing.T, is func() (bool, error)) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ok, err := is()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("not in two minutes")
		}
	}
}
