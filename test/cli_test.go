package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"

	"berth/internal/compute/computetest"
	"berth/internal/phony"
)

// cli is where Debian's package puts the AWS CLI.
const cli = "/usr/bin/aws"

// aws runs the AWS CLI against the service and reads its JSON into out. A refusal comes as a *smithy.GenericAPIError.
func (s *service) aws(t *testing.T, out any, args ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cli, append([]string{"--endpoint-url", s.Endpoint, "--output", "json", "--no-cli-pager"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.data, "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1",
		"AWS_REGION=" + s.Region, "AWS_ACCESS_KEY_ID=" + s.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + s.SecretAccessKey}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		_, rest, ok := strings.Cut(stderr.String(), "An error occurred (")
		name, rest, ok2 := strings.Cut(rest, ")")
		if _, text, ok3 := strings.Cut(rest, ": "); ok && ok2 && ok3 {
			return &smithy.GenericAPIError{Code: name, Message: strings.TrimSpace(text)}
		}
		return fmt.Errorf("aws %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("aws %s: %w: %s", strings.Join(args, " "), err, b)
	}
	return nil
}

// cliService is a service for a story of the AWS CLI's, with what runs its commands and what looks at their answers.
func cliService(t *testing.T) (s *service, run func(out any, args ...string), is func(what, got, want string)) {
	t.Parallel()
	if _, err := os.Stat(cli); errors.Is(err, os.ErrNotExist) {
		t.Fatal("the AWS CLI is needed (scripts/setup test installs it)")
	}
	s = serve(t, "--enable-delay", "0s", "--no-host-networks")
	run = func(out any, args ...string) {
		t.Helper()
		if err := s.aws(t, out, args...); err != nil {
			t.Fatal(err)
		}
	}
	is = func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %q, want %q", what, got, want)
		}
	}
	return s, run, is
}

// TestTheAWSCLIUploadsAndImports goes through steps 3 and 4 by the AWS CLI's commands, as the document does.
func TestTheAWSCLIUploadsAndImports(t *testing.T) {
	s, run, is := cliService(t)
	var who struct{ Account, Arn string }
	run(&who, "sts", "get-caller-identity")
	is("the account", who.Account, s.AccountID)
	is("the caller", who.Arn, "arn:aws:iam::"+s.AccountID+":user/admin")

	// The upload has more than the 8 MiB from which on the CLI uploads in parts.
	run(nil, "s3", "mb", "s3://exports")
	run(nil, "s3", "cp", "--only-show-errors", export(t, "small", "vhdx"), "s3://exports/small.vhdx")
	head, err := s.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("exports"), Key: aws.String("small.vhdx")})
	if err != nil {
		t.Fatal(err)
	}
	if parts := (aws.ToInt64(head.ContentLength) + 8<<20 - 1) / (8 << 20); parts < 2 || !strings.HasSuffix(aws.ToString(head.ETag), fmt.Sprintf(`-%d"`, parts)) {
		t.Errorf("%d bytes were uploaded, whose ETag is %s: not in parts of 8 MiB", aws.ToInt64(head.ContentLength), aws.ToString(head.ETag))
	}
	run(nil, "s3", "cp", "--only-show-errors", export(t, phony.Base, "ova"), "s3://exports/win10.ova")
	back := filepath.Join(t.TempDir(), "back.ova")
	run(nil, "s3", "cp", "--only-show-errors", "s3://exports/win10.ova", back)
	if !bytes.Equal(read(t, back), read(t, export(t, phony.Base, "ova"))) {
		t.Error("what was uploaded comes back changed")
	}
	var encryption struct{ EbsEncryptionByDefault bool }
	run(&encryption, "ec2", "enable-ebs-encryption-by-default")
	is("encryption, enabled", fmt.Sprint(encryption.EbsEncryptionByDefault), "true")
	importImage := func(key string) (id string, err error) {
		var task struct{ ImportTaskId, Status, StatusMessage, Progress, LicenseType string }
		err = s.aws(t, &task, "ec2", "import-image", "--license-type", "BYOL", "--description", "From the CLI",
			"--disk-containers", "Description=disk,UserBucket={S3Bucket=exports,S3Key="+key+"}", "--tag-specifications", "ResourceType=import-image-task,Tags=[{Key=team,Value=harbour}]")
		if err == nil && (task.Status != "active" || task.StatusMessage != "pending" || task.Progress == "" || task.LicenseType != "BYOL") {
			t.Errorf("import-image answers %+v", task)
		}
		return task.ImportTaskId, err
	}
	refuse(t, []refusal{{"import with encryption by default", code("InvalidParameter", "Encryption by default is on"), func() error { return errorOf(importImage("win10.ova")) }}})
	run(&encryption, "ec2", "disable-ebs-encryption-by-default")
	is("encryption, disabled", fmt.Sprint(encryption.EbsEncryptionByDefault), "false")
	run(&encryption, "ec2", "get-ebs-encryption-by-default")
	is("encryption, asked for", fmt.Sprint(encryption.EbsEncryptionByDefault), "false")
	id, err := importImage("win10.ova")
	if err != nil {
		t.Fatal(err)
	}
	s.imported(t, id)
	var tasks struct {
		ImportImageTasks []struct {
			ImportTaskId, Status, ImageId, BootMode, Description string
			SnapshotDetails                                      []struct{ Format, SnapshotId, Status string }
			Tags                                                 []struct{ Key, Value string }
		}
	}
	run(&tasks, "ec2", "describe-import-image-tasks", "--import-task-ids", id, "--filters", "Name=task-state,Values=completed")
	if len(tasks.ImportImageTasks) != 1 {
		t.Fatalf("the tasks are %+v", tasks)
	}
	task := tasks.ImportImageTasks[0]
	if task.ImportTaskId != id || task.Status != "completed" || task.Description != "From the CLI" || len(task.SnapshotDetails) != 1 || task.SnapshotDetails[0].Status != "completed" || len(task.Tags) != 1 || task.Tags[0].Value != "harbour" {
		t.Errorf("the task is %+v", task)
	}
	ami := task.ImageId
	refuse(t, []refusal{{"cancelling too late", code("IncorrectState", "is completed and cannot be cancelled"), func() error { return s.aws(t, nil, "ec2", "cancel-import-task", "--import-task-id", id) }}})
	run(nil, "ec2", "modify-image-attribute", "--image-id", ami, "--launch-permission", "Add=[{UserId=123456789012}]")
	run(nil, "ec2", "modify-image-attribute", "--image-id", ami, "--description", "Windows 10")
	var attribute struct {
		LaunchPermissions []struct{ UserId string }
	}
	run(&attribute, "ec2", "describe-image-attribute", "--image-id", ami, "--attribute", "launchPermission")
	is("who the AMI is shared with", fmt.Sprint(attribute.LaunchPermissions), "[{123456789012}]")
	var images struct {
		Images []struct{ ImageId, State, Description, Platform, BootMode, CreationDate string }
	}
	run(&images, "ec2", "describe-images", "--owners", "self", "--filters", "Name=state,Values=available")
	if len(images.Images) != 1 || images.Images[0].ImageId != ami || images.Images[0].Description != "Windows 10" || images.Images[0].Platform != "windows" || images.Images[0].CreationDate == "" {
		t.Errorf("the images are %+v", images)
	}
	var snapshot struct{ ImportTaskId string }
	run(&snapshot, "ec2", "import-snapshot", "--disk-container", "Format=VHDX,UserBucket={S3Bucket=exports,S3Key=small.vhdx}")
	s.snapshotTask(t, snapshot.ImportTaskId)
	var snapshots struct {
		ImportSnapshotTasks []struct {
			SnapshotTaskDetail struct{ Status, SnapshotId, Format string }
		}
	}
	run(&snapshots, "ec2", "describe-import-snapshot-tasks", "--import-task-ids", snapshot.ImportTaskId)
	if n := snapshots.ImportSnapshotTasks; len(n) != 1 || n[0].SnapshotTaskDetail.Status != "completed" || n[0].SnapshotTaskDetail.Format != "VHDX" || !strings.HasPrefix(n[0].SnapshotTaskDetail.SnapshotId, "snap-") {
		t.Errorf("the snapshot tasks are %+v", snapshots)
	}
	run(nil, "ec2", "deregister-image", "--image-id", ami)
}

// TestTheAWSCLIMakesDesktops goes through steps 1 and 5 to 8 by the AWS CLI's commands.
func TestTheAWSCLIMakesDesktops(t *testing.T) {
	s, run, is := cliService(t)

	// Step 1.
	var ranges struct{ ManagementCidrRanges []string }
	run(&ranges, "workspaces", "list-available-management-cidr-ranges", "--management-cidr-range-constraint", "198.18.0.0/15")
	is("the ranges", fmt.Sprint(ranges.ManagementCidrRanges), "[198.18.0.0/16 198.19.0.0/16]")
	run(nil, "workspaces", "modify-account", "--dedicated-tenancy-support", "ENABLED", "--dedicated-tenancy-management-cidr-range", "198.18.0.0/16")
	refuse(t, []refusal{{"enabling twice", code("InvalidResourceStateException", "BYOL is already"), func() error {
		return s.aws(t, nil, "workspaces", "modify-account", "--dedicated-tenancy-support", "ENABLED", "--dedicated-tenancy-management-cidr-range", "198.19.0.0/16")
	}}})

	s.bucket(t, "exports")
	s.put(t, "exports", "win10.ova", export(t, phony.Base, "ova"))
	ami := s.ami(t, "exports", "win10.ova")

	// Step 5.
	var image struct{ ImageId string }
	run(&image, "workspaces", "import-workspace-image", "--ec2-image-id", ami, "--ingestion-process", "BYOL_REGULAR", "--image-name", "win10", "--image-description", "From the CLI", "--applications", "Microsoft_Office_2019")
	st := &story{service: s}
	is("the image's state", string(st.ingested(t, image.ImageId).State), "AVAILABLE")
	var made struct {
		Images []struct{ ImageId, State, RequiredTenancy string }
	}
	run(&made, "workspaces", "describe-workspace-images", "--image-ids", image.ImageId)
	is("the images", fmt.Sprint(made.Images), "[{"+image.ImageId+" AVAILABLE DEDICATED}]")

	// Step 6.
	var bundle struct{ WorkspaceBundle struct{ BundleId string } }
	run(&bundle, "workspaces", "create-workspace-bundle", "--bundle-name", "value", "--bundle-description", "From the CLI", "--image-id", image.ImageId, "--compute-type", "Name=VALUE",
		"--user-storage", "Capacity=10", "--root-storage", "Capacity=80")

	// Step 7.
	var directory struct{ DirectoryId string }
	if err := s.berth(t, "CreateDirectory", map[string]any{"Name": "corp.berth.example"}, &directory); err != nil {
		t.Fatal(err)
	}
	if err := s.berth(t, "CreateUser", map[string]any{"DirectoryId": directory.DirectoryId, "UserName": "ada", "Password": "correct horse"}, nil); err != nil {
		t.Fatal(err)
	}
	run(nil, "workspaces", "register-workspace-directory", "--directory-id", directory.DirectoryId, "--tenancy", "DEDICATED", "--no-enable-work-docs")
	eventually(t, "the directory is REGISTERED", func() (bool, error) {
		out, err := s.workspaces.DescribeWorkspaceDirectories(t.Context(), &workspaces.DescribeWorkspaceDirectoriesInput{})
		return err == nil && len(out.Directories) == 1 && out.Directories[0].State == types.WorkspaceDirectoryStateRegistered, err
	})
	var directories struct {
		Directories []struct{ DirectoryId, Tenancy, State string }
	}
	run(&directories, "workspaces", "describe-workspace-directories")
	is("the directories", fmt.Sprint(directories.Directories), "[{"+directory.DirectoryId+" DEDICATED REGISTERED}]")

	// Step 8.
	var created struct {
		PendingRequests []struct{ WorkspaceId string }
		FailedRequests  []struct{ ErrorCode string }
	}
	run(&created, "workspaces", "create-workspaces", "--workspaces",
		"DirectoryId="+directory.DirectoryId+",UserName=ada,BundleId="+bundle.WorkspaceBundle.BundleId+",WorkspaceProperties={RunningMode=AUTO_STOP,RunningModeAutoStopTimeoutInMinutes=120}",
		"DirectoryId="+directory.DirectoryId+",UserName=nobody,BundleId="+bundle.WorkspaceBundle.BundleId)
	if len(created.PendingRequests) != 1 || len(created.FailedRequests) != 1 || created.FailedRequests[0].ErrorCode != "ResourceNotFound.User" {
		t.Fatalf("create-workspaces answers %+v", created)
	}
	ws := created.PendingRequests[0].WorkspaceId
	st.state(t, ws, types.WorkspaceStateAvailable)
	for _, change := range []struct {
		verb string
		then types.WorkspaceState
	}{{"reboot", types.WorkspaceStateAvailable}, {"stop", types.WorkspaceStateStopped}, {"start", types.WorkspaceStateAvailable}} {
		var out struct {
			FailedRequests []struct{ ErrorCode, ErrorMessage string }
		}
		run(&out, "workspaces", change.verb+"-workspaces", "--"+change.verb+"-workspace-requests", `[{"WorkspaceId":"`+ws+`"}]`)
		if len(out.FailedRequests) != 0 {
			t.Errorf("%s-workspaces: %+v", change.verb, out.FailedRequests)
		}
		st.state(t, ws, change.then)
	}
	var described struct {
		Workspaces []struct {
			WorkspaceId, State, UserName string
			WorkspaceProperties          struct{ RunningModeAutoStopTimeoutInMinutes int }
		}
	}
	run(&described, "workspaces", "describe-workspaces", "--directory-id", directory.DirectoryId, "--user-name", "ada")
	is("the WorkSpaces", fmt.Sprint(described.Workspaces), "[{"+ws+" AVAILABLE ada {120}}]")
	refuse(t, []refusal{{"deregistering with a WorkSpace", code("InvalidResourceStateException", "has 1 WorkSpaces"), func() error {
		return s.aws(t, nil, "workspaces", "deregister-workspace-directory", "--directory-id", directory.DirectoryId)
	}}})
	run(nil, "workspaces", "terminate-workspaces", "--terminate-workspace-requests", `[{"WorkspaceId":"`+ws+`"}]`)
	st.state(t, ws, types.WorkspaceStateTerminated)
	if left := computetest.Processes(t, s.data); len(left) != 0 {
		t.Errorf("machines outlived their WorkSpace: %v", left)
	}
}

// read reads a file.
func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
