package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"berth/internal/check"
	"berth/internal/image"
)

// adminCmd groups what AWS has no command for. All of it goes through the service's own door, as any client's.
type adminCmd struct {
	Data string `help:"The service's data folder: admin.json in it says where the service is, and has the key." default:".berth" type:"path" env:"BERTH_DATA"`

	CreateDirectory createDirectoryCmd `cmd:"" help:"Make a built-in directory."`
	ListDirectories listDirectoriesCmd `cmd:"" help:"List directories, registered for WorkSpaces or not."`
	CreateUser      createUserCmd      `cmd:"" help:"Make a user in a built-in directory. The password is read from standard input."`
	SetPassword     setPasswordCmd     `cmd:"" help:"Give a user another password, read from standard input."`
	CreateKey       createKeyCmd       `cmd:"" help:"Make an access key with an IAM policy."`
	ListKeys        listKeysCmd        `cmd:"" help:"List access keys, without their secrets."`
	DeleteKey       deleteKeyCmd       `cmd:"" help:"Remove an access key."`
	CheckUpload     checkUploadCmd     `cmd:"" help:"Check an export while it is still being uploaded, as far as it has come. Ends as berth check does."`
	Screenshot      screenshotCmd      `cmd:"" help:"Save a picture of a running WorkSpace's screen."`
}

type createDirectoryCmd struct {
	Name string `arg:"" help:"Its domain name, such as corp.example.com."`
}

func (x createDirectoryCmd) Run(ctx context.Context, c *cli) error {
	var out struct{ DirectoryId string }
	if err := c.Admin.call(ctx, "CreateDirectory", map[string]any{"Name": x.Name}, &out); err != nil {
		return err
	}
	fmt.Println(out.DirectoryId)
	return nil
}

type listDirectoriesCmd struct{}

func (listDirectoriesCmd) Run(ctx context.Context, c *cli) error {
	var out struct {
		Directories []struct{ DirectoryId, Name, Type string }
	}
	if err := c.Admin.call(ctx, "ListDirectories", map[string]any{}, &out); err != nil {
		return err
	}
	for _, d := range out.Directories {
		fmt.Printf("%-16s %-10s %s\n", d.DirectoryId, d.Type, d.Name)
	}
	return nil
}

type createUserCmd struct {
	Directory string `arg:"" help:"The directory's id."`
	Name      string `arg:"" help:"The user's name."`
	FullName  string `help:"The person's name." placeholder:"TEXT"`
	Email     string `help:"The person's address." placeholder:"TEXT"`
}

func (x createUserCmd) Run(ctx context.Context, c *cli) error {
	password, err := readPassword()
	if err != nil {
		return err
	}
	in := map[string]any{"DirectoryId": x.Directory, "UserName": x.Name, "Password": password}
	if x.FullName != "" {
		in["DisplayName"] = x.FullName
	}
	if x.Email != "" {
		in["Email"] = x.Email
	}
	return c.Admin.call(ctx, "CreateUser", in, nil)
}

type setPasswordCmd struct {
	Directory string `arg:"" help:"The directory's id."`
	Name      string `arg:"" help:"The user's name."`
}

func (x setPasswordCmd) Run(ctx context.Context, c *cli) error {
	password, err := readPassword()
	if err != nil {
		return err
	}
	return c.Admin.call(ctx, "SetUserPassword", map[string]any{"DirectoryId": x.Directory, "UserName": x.Name, "Password": password}, nil)
}

// readPassword asks for a password without showing it, or takes the first line of standard input.
func readPassword() (string, error) {
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		fmt.Fprint(os.Stderr, "Password: ")
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(os.Stderr)
		return string(b), err
	}
	var line strings.Builder
	for b := make([]byte, 1); ; {
		n, err := os.Stdin.Read(b)
		if n == 0 || b[0] == '\n' {
			break
		}
		if err != nil {
			return "", err
		}
		line.WriteByte(b[0])
	}
	if line.Len() == 0 {
		return "", errors.New("no password was given on standard input")
	}
	return strings.TrimSuffix(line.String(), "\r"), nil
}

type createKeyCmd struct {
	User   string `arg:"" help:"Whose key it is."`
	Policy string `help:"A file with an IAM policy (JSON). Without one the key may do nothing." type:"existingfile" placeholder:"FILE"`
}

func (x createKeyCmd) Run(ctx context.Context, c *cli) error {
	in := map[string]any{"UserName": x.User}
	if x.Policy != "" {
		b, err := os.ReadFile(x.Policy)
		if err != nil {
			return err
		}
		in["Policy"] = string(b)
	}
	var out struct{ AccessKeyId, SecretAccessKey string }
	if err := c.Admin.call(ctx, "CreateAccessKey", in, &out); err != nil {
		return err
	}
	fmt.Printf("export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\n", out.AccessKeyId, out.SecretAccessKey)
	return nil
}

type listKeysCmd struct{}

func (listKeysCmd) Run(ctx context.Context, c *cli) error {
	var out struct {
		AccessKeys []struct{ AccessKeyId, UserName string }
	}
	if err := c.Admin.call(ctx, "ListAccessKeys", map[string]any{}, &out); err != nil {
		return err
	}
	for _, k := range out.AccessKeys {
		fmt.Printf("%-22s %s\n", k.AccessKeyId, k.UserName)
	}
	return nil
}

type deleteKeyCmd struct {
	ID string `arg:"" help:"The access key's id."`
}

func (x deleteKeyCmd) Run(ctx context.Context, c *cli) error {
	return c.Admin.call(ctx, "DeleteAccessKey", map[string]any{"AccessKeyId": x.ID}, nil)
}

type checkUploadCmd struct {
	Bucket string `arg:"" help:"The bucket that it goes to."`
	Key    string `arg:"" help:"Its key."`
	File   string `arg:"" help:"The file that is being uploaded: how large the whole is." type:"existingfile"`
	Format string `help:"What it is, where its content could be taken for something else." placeholder:"NAME"`
}

// Help is shown by berth admin check-upload --help.
func (checkUploadCmd) Help() string {
	return `Raw disks, VHD, VHDX and sparse VMDK can be checked as soon as what Windows keeps its settings in has come, often after a small part of the file. What has not come yet is UNKNOWN. The upload must be one in parts, as "aws s3 cp" makes it of large files.`
}

func (x checkUploadCmd) Run(ctx context.Context, c *cli) error {
	fi, err := os.Stat(x.File)
	if err != nil {
		return err
	}
	in := map[string]any{"Bucket": x.Bucket, "Key": x.Key, "SizeBytes": fi.Size()}
	if x.Format != "" {
		in["Format"] = x.Format
	}
	var out struct {
		UploadedBytes int64
		Report        string
	}
	if err := c.Admin.call(ctx, "CheckUpload", in, &out); err != nil {
		return err
	}
	var report check.Report
	if err := json.Unmarshal([]byte(out.Report), &report); err != nil {
		return fmt.Errorf("the report: %w", err)
	}
	fmt.Printf("%s of %s have come.\n", size(out.UploadedBytes), size(fi.Size()))
	fit := true
	for _, f := range report.Findings {
		if f.Outcome == check.Pass || f.Outcome == check.NotApplicable {
			continue
		}
		fit = fit && f.Outcome == check.Unknown
		fmt.Printf("%-8s %s: %s\n", f.Outcome, f.Code, image.Printable(f.Because))
	}
	if !fit {
		return exitCode(1)
	}
	return nil
}

type screenshotCmd struct {
	Workspace string `arg:"" help:"The WorkSpace's id."`
	File      string `arg:"" help:"Where to write the PNG." type:"path"`
}

func (x screenshotCmd) Run(ctx context.Context, c *cli) error {
	var out struct{ Png []byte }
	if err := c.Admin.call(ctx, "GetWorkspaceScreenshot", map[string]any{"WorkspaceId": x.Workspace}, &out); err != nil {
		return err
	}
	return os.WriteFile(x.File, out.Png, 0o600)
}

func (a adminCmd) call(ctx context.Context, operation string, in map[string]any, out any) error {
	c, err := dial(a.Data)
	if err != nil {
		return err
	}
	return c.berth(ctx, operation, in, out)
}
