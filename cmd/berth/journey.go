package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/check/report"
	"berth/internal/desk"
)

// journey takes one exported VM through the eight steps, as a client of the service and nothing else. Everything that it
// makes is named after the VM, so that a second run, or one after a crash of either side, finds what is there and goes on.
type journey struct {
	data, vm, office string
	out              *progress

	tag       string // names the VM: 8 hexadecimal digits
	ami       string
	image     string
	bundle    string
	directory string
	code      string // registration code
	user      string
	password  string
	workspace string
	picture   string // file
}

const (
	bucket = "berth-imports"
	domain = "corp.berth.example"
)

func (j *journey) run(ctx context.Context) error {
	tag, err := fingerprint(j.vm)
	if err != nil {
		return err
	}
	j.tag, j.user = tag, "user-"+tag
	for _, s := range []struct {
		name string
		do   func(ctx context.Context, say func(string)) (string, error)
	}{
		{"1 Enable BYOL", j.enable},
		{"2 Check the VM", j.check},
		{"3 Upload the export", j.upload},
		{"4 Import it as an AMI", j.importImage},
		{"5 Make the BYOL image", j.ingest},
		{"6 Make a bundle", j.makeBundle},
		{"7 Register a directory", j.register},
		{"8 Launch the WorkSpace", j.launch},
		{"Look at its screen", j.look},
	} {
		if err := j.out.step(s.name, func(say func(string)) (string, error) { return s.do(ctx, say) }); err != nil {
			return err
		}
	}
	j.out.table()
	return nil
}

// fingerprint tells one export from another without reading 20 GiB: by its size, its time, and its first and last MiB.
func fingerprint(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, fi.Size(), fi.ModTime().UnixNano())
	const part = 1 << 20
	for _, at := range []int64{0, max(0, fi.Size()-part)} {
		if _, err := io.Copy(h, io.NewSectionReader(f, at, part)); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:8], nil
}

// call calls the service, and again when the service could not be reached: it may be starting again. Everything that is
// called here may be repeated.
func (j *journey) call(ctx context.Context, do func(c *client) error) error {
	for deadline := time.Now().Add(time.Minute); ; {
		c, err := dial(j.data)
		if err == nil {
			err = do(c)
		}
		var network net.Error
		passing := errors.As(err, &network) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrNotExist)
		if err == nil || !passing || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// poll asks again and again until it is done.
func (j *journey) poll(ctx context.Context, ask func(c *client) (done bool, err error)) error {
	for {
		done := false
		if err := j.call(ctx, func(c *client) (err error) { done, err = ask(c); return err }); err != nil || done {
			return err
		}
		if err := pause(ctx, 150*time.Millisecond); err != nil {
			return err
		}
	}
}

func (j *journey) enable(ctx context.Context, say func(string)) (string, error) {
	cidr := ""
	err := j.poll(ctx, func(c *client) (bool, error) {
		acc, err := c.workspaces.DescribeAccount(ctx, &workspaces.DescribeAccountInput{})
		if err != nil {
			return false, err
		}
		if acc.DedicatedTenancySupport == types.DedicatedTenancySupportResultEnumEnabled {
			cidr = aws.ToString(acc.DedicatedTenancyManagementCidrRange)
			return true, nil
		}
		mods, err := c.workspaces.DescribeAccountModifications(ctx, &workspaces.DescribeAccountModificationsInput{})
		if err != nil {
			return false, err
		}
		if len(mods.AccountModifications) > 0 {
			switch m := mods.AccountModifications[0]; m.ModificationState {
			case types.DedicatedTenancyModificationStateEnumPending:
				say("being enabled with " + aws.ToString(m.DedicatedTenancyManagementCidrRange))
				return false, nil
			case types.DedicatedTenancyModificationStateEnumFailed:
				return false, errors.New(aws.ToString(m.ErrorMessage))
			}
		}
		say("looking for a free management range")
		for _, window := range []string{"198.18.0.0/15", "100.64.0.0/10", "10.0.0.0/8"} {
			free, err := c.workspaces.ListAvailableManagementCidrRanges(ctx, &workspaces.ListAvailableManagementCidrRangesInput{ManagementCidrRangeConstraint: aws.String(window), MaxResults: aws.Int32(1)})
			if err != nil {
				return false, err
			}
			if len(free.ManagementCidrRanges) == 0 {
				continue
			}
			_, err = c.workspaces.ModifyAccount(ctx, &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String(free.ManagementCidrRanges[0])})
			if refusedWith(err, "InvalidResourceStateException") {
				err = nil // it is being enabled already
			}
			return false, err
		}
		return false, errors.New("no management range is free")
	})
	return "management range " + cidr, err
}

func (j *journey) check(ctx context.Context, say func(string)) (string, error) {
	say("reading the disk")
	c := checkCmd{insideCmd: insideCmd{File: j.vm, Windows: 1}, judgeFlags: judgeFlags{Office: j.office != ""}}
	opt, err := c.options()
	if err != nil {
		return "", err
	}
	judged, err := judgeExport(ctx, c.insideCmd, opt)
	if err != nil {
		return "", err
	}
	if !judged.report.Fit {
		judged.subject.Fix = c.fix()
		var b strings.Builder
		if err := report.Text(&b, judged.report, judged.subject, report.TextOptions{}); err != nil {
			return "", err
		}
		return "", fmt.Errorf("the VM is not fit to become an image\n\n%s", b.String())
	}
	w := judged.report.Windows
	return fmt.Sprintf("fit: Windows %s %s (%s), %d checks", w.Version, w.Edition, w.Language, len(judged.report.Findings)), nil
}

// key is where the export lies in the bucket.
func (j *journey) key() string { return j.tag + "/" + filepath.Base(j.vm) }

func (j *journey) importImage(ctx context.Context, say func(string)) (string, error) {
	id := ""
	for try := 1; id == ""; try++ { // the token of an import that failed in an earlier run is used up
		var task desk.ImportImageOutput
		if err := j.call(ctx, func(c *client) error {
			return c.ec2(ctx, "ImportImage", url.Values{"ClientToken": {fmt.Sprintf("berth-up-%s-%d", j.tag, try)}, "Description": {filepath.Base(j.vm)}, "LicenseType": {"BYOL"},
				"DiskContainer.1.UserBucket.S3Bucket": {bucket}, "DiskContainer.1.UserBucket.S3Key": {j.key()}}, &task)
		}); err != nil {
			return "", err
		}
		if aws.ToString(task.Status) != "deleted" {
			id = aws.ToString(task.ImportTaskID)
		}
	}
	err := j.poll(ctx, func(c *client) (bool, error) {
		var out desk.DescribeImportImageTasksOutput
		if err := c.ec2(ctx, "DescribeImportImageTasks", url.Values{"ImportTaskId.1": {id}}, &out); err != nil {
			return false, err
		}
		if len(out.ImportImageTasks) != 1 {
			return false, fmt.Errorf("%s is not listed", id)
		}
		t := out.ImportImageTasks[0]
		say(fmt.Sprintf("%s: %s, %s %%", id, aws.ToString(t.StatusMessage), aws.ToString(t.Progress)))
		switch aws.ToString(t.Status) {
		case "completed":
			j.ami = aws.ToString(t.ImageID)
			return true, nil
		case "deleted", "deleting":
			return false, errors.New(aws.ToString(t.StatusMessage))
		}
		return false, nil
	})
	return j.ami, err
}

func (j *journey) ingest(ctx context.Context, say func(string)) (string, error) {
	name := "byol-" + j.tag
	first := true
	err := j.poll(ctx, func(c *client) (bool, error) {
		im, err := j.findImage(ctx, c, name)
		if err != nil {
			return false, err
		}
		if first && im != nil && im.State == types.WorkspaceImageStateError { // of an earlier run
			_, err := c.workspaces.DeleteWorkspaceImage(ctx, &workspaces.DeleteWorkspaceImageInput{ImageId: im.ImageId})
			return false, err
		}
		first = false
		if im == nil {
			in := &workspaces.ImportWorkspaceImageInput{Ec2ImageId: aws.String(j.ami), ImageName: aws.String(name), ImageDescription: aws.String("Made by berth up"), IngestionProcess: types.WorkspaceImageIngestionProcessByolRegular}
			if j.office != "" {
				in.Applications = []types.Application{types.Application(j.office)}
			}
			_, err := c.workspaces.ImportWorkspaceImage(ctx, in)
			if refusedWith(err, "ResourceAlreadyExistsException") {
				err = nil // the answer to an earlier call was lost
			}
			return false, err
		}
		j.image = aws.ToString(im.ImageId)
		say(j.image + " is " + string(im.State))
		if im.State == types.WorkspaceImageStateError {
			text := aws.ToString(im.ErrorMessage)
			for _, e := range im.ErrorDetails {
				text += fmt.Sprintf("\n  %s: %s", e.ErrorCode, aws.ToString(e.ErrorMessage))
			}
			return false, errors.New(text)
		}
		return im.State == types.WorkspaceImageStateAvailable, nil
	})
	return j.image + " is AVAILABLE", err
}

func (j *journey) findImage(ctx context.Context, c *client, name string) (*types.WorkspaceImage, error) {
	in := &workspaces.DescribeWorkspaceImagesInput{}
	for {
		out, err := c.workspaces.DescribeWorkspaceImages(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, im := range out.Images {
			if aws.ToString(im.Name) == name {
				return &im, nil
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return nil, nil
		}
	}
}

func (j *journey) makeBundle(ctx context.Context, say func(string)) (string, error) {
	name := "byol-" + j.tag
	err := j.poll(ctx, func(c *client) (bool, error) {
		p := workspaces.NewDescribeWorkspaceBundlesPaginator(c.workspaces, &workspaces.DescribeWorkspaceBundlesInput{})
		for p.HasMorePages() {
			out, err := p.NextPage(ctx)
			if err != nil {
				return false, err
			}
			for _, b := range out.Bundles {
				if aws.ToString(b.Name) == name {
					j.bundle = aws.ToString(b.BundleId)
					return true, nil
				}
			}
		}
		_, err := c.workspaces.CreateWorkspaceBundle(ctx, &workspaces.CreateWorkspaceBundleInput{BundleName: aws.String(name), BundleDescription: aws.String("Made by berth up"), ImageId: aws.String(j.image),
			ComputeType: &types.ComputeType{Name: types.ComputeStandard}, RootStorage: &types.RootStorage{Capacity: aws.String("80")}, UserStorage: &types.UserStorage{Capacity: aws.String("10")}})
		if refusedWith(err, "ResourceAlreadyExistsException") {
			err = nil
		}
		return false, err
	})
	return j.bundle + ": STANDARD, 80 GB and 10 GB", err
}

func (j *journey) register(ctx context.Context, say func(string)) (string, error) {
	err := j.poll(ctx, func(c *client) (bool, error) {
		var list struct {
			Directories []struct{ DirectoryId, Name string }
		}
		if err := c.berth(ctx, "ListDirectories", map[string]any{}, &list); err != nil {
			return false, err
		}
		j.directory = ""
		for _, d := range list.Directories {
			if d.Name == domain {
				j.directory = d.DirectoryId
			}
		}
		if j.directory == "" {
			err := c.berth(ctx, "CreateDirectory", map[string]any{"Name": domain}, nil)
			if refusedWith(err, "ResourceAlreadyExistsException") {
				err = nil
			}
			return false, err
		}
		out, err := c.workspaces.DescribeWorkspaceDirectories(ctx, &workspaces.DescribeWorkspaceDirectoriesInput{DirectoryIds: []string{j.directory}})
		if err != nil {
			return false, err
		}
		if len(out.Directories) == 0 {
			_, err := c.workspaces.RegisterWorkspaceDirectory(ctx, &workspaces.RegisterWorkspaceDirectoryInput{DirectoryId: aws.String(j.directory), Tenancy: types.TenancyDedicated})
			if refusedWith(err, "ResourceAlreadyExistsException") {
				err = nil
			}
			return false, err
		}
		d := out.Directories[0]
		j.code = aws.ToString(d.RegistrationCode)
		say(fmt.Sprintf("%s is %s", j.directory, d.State))
		if d.State == types.WorkspaceDirectoryStateError {
			return false, errors.New(aws.ToString(d.ErrorMessage))
		}
		return d.State == types.WorkspaceDirectoryStateRegistered, nil
	})
	if err != nil {
		return "", err
	}
	j.password = rand.Text()[:16]
	err = j.call(ctx, func(c *client) error {
		in := map[string]any{"DirectoryId": j.directory, "UserName": j.user, "Password": j.password}
		err := c.berth(ctx, "CreateUser", in, nil)
		if refusedWith(err, "ResourceAlreadyExistsException") {
			err = c.berth(ctx, "SetUserPassword", in, nil)
		}
		return err
	})
	return fmt.Sprintf("%s, dedicated, with %s", j.directory, j.user), err
}

// desktop is the user's WorkSpace, nil when there is none.
func (j *journey) desktop(ctx context.Context, c *client) (*types.Workspace, error) {
	out, err := c.workspaces.DescribeWorkspaces(ctx, &workspaces.DescribeWorkspacesInput{DirectoryId: aws.String(j.directory), UserName: aws.String(j.user)})
	if err != nil {
		return nil, err
	}
	for _, w := range out.Workspaces {
		if w.State != types.WorkspaceStateTerminated {
			return &w, nil
		}
	}
	return nil, nil
}

func (j *journey) launch(ctx context.Context, say func(string)) (string, error) {
	first := true
	err := j.poll(ctx, func(c *client) (bool, error) {
		w, err := j.desktop(ctx, c)
		if err != nil {
			return false, err
		}
		if first && w != nil && w.State == types.WorkspaceStateError { // of an earlier run
			_, err := c.workspaces.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []types.TerminateRequest{{WorkspaceId: w.WorkspaceId}}})
			return false, err
		}
		first = false
		if w == nil {
			out, err := c.workspaces.CreateWorkspaces(ctx, &workspaces.CreateWorkspacesInput{Workspaces: []types.WorkspaceRequest{{DirectoryId: aws.String(j.directory), UserName: aws.String(j.user), BundleId: aws.String(j.bundle)}}})
			if err == nil && len(out.FailedRequests) > 0 && aws.ToString(out.FailedRequests[0].ErrorCode) != "ResourceExists.WorkSpace" {
				err = fmt.Errorf("%s: %s", aws.ToString(out.FailedRequests[0].ErrorCode), aws.ToString(out.FailedRequests[0].ErrorMessage))
			}
			return false, err
		}
		j.workspace = aws.ToString(w.WorkspaceId)
		say(fmt.Sprintf("%s is %s", j.workspace, w.State))
		if w.State == types.WorkspaceStateError {
			return false, errors.New(aws.ToString(w.ErrorMessage))
		}
		return w.State == types.WorkspaceStateAvailable, nil
	})
	return j.workspace + " is AVAILABLE", err
}

// stillFor is how long a screen must not have changed to be taken for drawn.
const stillFor = 1500 * time.Millisecond

// look saves a picture of the screen, once there is something on it that stays.
func (j *journey) look(ctx context.Context, say func(string)) (string, error) {
	var last []byte
	var since time.Time
	err := j.poll(ctx, func(c *client) (bool, error) {
		var out struct{ Png []byte }
		err := c.berth(ctx, "GetWorkspaceScreenshot", map[string]any{"WorkspaceId": j.workspace}, &out)
		if refusedWith(err, "InvalidResourceStateException") {
			say("waiting for the machine")
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !bytes.Equal(out.Png, last) {
			last, since = out.Png, time.Now()
		}
		say("waiting for the desktop to draw its screen")
		painted, err := hasPicture(out.Png)
		return painted && time.Since(since) >= stillFor, err
	})
	if err != nil {
		return "", err
	}
	j.picture = filepath.Join(j.data, "desktop.png")
	return j.picture, os.WriteFile(j.picture, last, 0o600)
}

// hasPicture tells a screen that shows something from one that is all of one colour.
func hasPicture(b []byte) (bool, error) {
	im, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		return false, err
	}
	r, first := im.Bounds(), im.At(im.Bounds().Min.X, im.Bounds().Min.Y)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if im.At(x, y) != first {
				return true, nil
			}
		}
	}
	return false, nil
}

// invite tells how to get to the desktop.
func (j *journey) invite() {
	c, err := dial(j.data)
	if err != nil {
		fmt.Fprintln(os.Stderr, "berth:", err)
		return
	}
	fmt.Printf(`
The desktop is running.

  Desktop      %s/desktop
               registration code %s, user %s, password %s
  Console      %s
  Its screen   %s
  API key      %s (0600; export lines: berth serve --help)

Ctrl-C ends the service and turns the desktop off.
`, c.admin.Endpoint, j.code, j.user, j.password, j.console(c), j.picture, filepath.Join(j.data, "admin.json"))
}

// console is the console's address, with a token that signs in once.
func (j *journey) console(c *client) string {
	var out struct{ Token string }
	if err := c.berth(context.Background(), "CreateConsoleToken", map[string]any{}, &out); err != nil {
		return c.admin.Endpoint + "/"
	}
	return c.admin.Endpoint + "/?token=" + out.Token
}

// takeDown terminates the WorkSpace and sees it go.
func (j *journey) takeDown(ctx context.Context) error {
	return j.out.step("Terminate the WorkSpace", func(say func(string)) (string, error) {
		asked := false
		err := j.poll(ctx, func(c *client) (bool, error) {
			w, err := j.desktop(ctx, c)
			if err != nil || w == nil {
				return err == nil, err
			}
			say(fmt.Sprintf("%s is %s", j.workspace, w.State))
			if !asked {
				_, err = c.workspaces.TerminateWorkspaces(ctx, &workspaces.TerminateWorkspacesInput{TerminateWorkspaceRequests: []types.TerminateRequest{{WorkspaceId: w.WorkspaceId}}})
				asked = err == nil
			}
			return false, err
		})
		return "gone", err
	})
}
