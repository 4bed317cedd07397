package desk

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/awsapi"
	"berth/internal/check"
	"berth/internal/check/report"
	"berth/internal/console"
)

// Desk is what the console asks.
var _ console.Service = (*Desk)(nil)

// seeConsole is the action that a policy must allow for its key to see the console.
const seeConsole = "workspaces:DescribeWorkspaces"

// AdmitKey looks whether an access key may see the console. console.ErrSignIn when it is not there or its policy does not
// allow it.
func (d *Desk) AdmitKey(ctx context.Context, accessKeyID string) error {
	_, err := d.consoleKey(ctx, accessKeyID)
	return err
}

func (d *Desk) consoleKey(ctx context.Context, id string) (awsapi.AccessKey, error) {
	k, err := d.AccessKey(ctx, id)
	if errors.Is(err, awsapi.ErrNoSuchKey) || err == nil && k.Policy.Decide(seeConsole, "*") != awsapi.Allowed {
		return k, console.ErrSignIn
	}
	return k, err
}

// SignInWithKey checks an access key and its secret for the console. The secret is compared in the same time whether or not
// there is such a key.
func (d *Desk) SignInWithKey(ctx context.Context, accessKeyID, secret string) error {
	k, err := d.consoleKey(ctx, accessKeyID)
	if err != nil && !errors.Is(err, console.ErrSignIn) {
		return err
	}
	got, want := sha256.Sum256([]byte(secret)), sha256.Sum256([]byte(k.Secret.Reveal()))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || k.Secret == "" {
		return console.ErrSignIn
	}
	return err
}

// consoleTokenLife is how long a link to the console can be used, once.
const consoleTokenLife = time.Hour

// consoleToken is a link's token as it is kept: in the settings, by its hash, so that a copy of the database opens nothing.
type consoleToken struct {
	AccessKeyID string
	Expires     time.Time
}

func consoleTokenSetting(token string) string {
	sum := sha256.Sum256([]byte(token))
	return consoleTokens + hex.EncodeToString(sum[:])
}

const consoleTokens = "console-token:"

// CreateConsoleTokenInput asks for nothing.
type CreateConsoleTokenInput struct{}

// CreateConsoleTokenOutput has a token that opens the console once, as /?token=, until it expires.
type CreateConsoleTokenOutput struct {
	Token   *string
	Expires *time.Time
}

// CreateConsoleToken makes a link to the console for whoever holds the caller's access key: what the key may not see the
// link does not show.
func (b *Berth) CreateConsoleToken(ctx context.Context, _ *CreateConsoleTokenInput) (*CreateConsoleTokenOutput, error) {
	if err := awsapi.Authorize(ctx, seeConsole, "*"); err != nil {
		return nil, &types.AccessDeniedException{Message: aws.String(message(err))}
	}
	if err := b.d.forgetConsoleTokens(ctx); err != nil {
		return nil, err
	}
	t := consoleToken{AccessKeyID: awsapi.CallerOf(ctx).AccessKeyID, Expires: b.d.now().Add(consoleTokenLife)}
	kept, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	token := rand.Text() + rand.Text() // 256 random bits and some; not Config.Rand's, which tests make predictable
	if err := b.d.setSetting(ctx, consoleTokenSetting(token), string(kept)); err != nil {
		return nil, err
	}
	return &CreateConsoleTokenOutput{Token: aws.String(token), Expires: aws.Time(t.Expires)}, nil
}

// forgetConsoleTokens removes the tokens that have expired.
func (d *Desk) forgetConsoleTokens(ctx context.Context) error {
	var rs []settingRecord
	if err := d.db.NewSelect().Model(&rs).Where("key LIKE ?", consoleTokens+"%").Scan(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	for _, r := range rs {
		var t consoleToken
		if err := json.Unmarshal([]byte(r.Value), &t); err != nil {
			return fmt.Errorf("desk: setting %s: %w", r.Key, err)
		}
		if d.now().Before(t.Expires) {
			continue
		}
		if _, err := d.db.NewDelete().Model(&r).WherePK().Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
	}
	return nil
}

// RedeemConsoleToken uses a link's token up. console.ErrSignIn when there is no such token (any more), or its key does not
// let in any more.
func (d *Desk) RedeemConsoleToken(ctx context.Context, token string) (accessKeyID string, err error) {
	key := consoleTokenSetting(token)
	var values []string
	// Whoever deletes it has it: of two at the same time, one.
	if err := d.db.NewDelete().Model((*settingRecord)(nil)).Where("key = ?", key).Returning("value").Scan(ctx, &values); err != nil {
		return "", fmt.Errorf("desk: %w", err)
	}
	if len(values) == 0 {
		return "", console.ErrSignIn
	}
	var t consoleToken
	if err := json.Unmarshal([]byte(values[0]), &t); err != nil {
		return "", fmt.Errorf("desk: setting %s: %w", key, err)
	}
	if !d.now().Before(t.Expires) {
		return "", console.ErrSignIn
	}
	return t.AccessKeyID, d.AdmitKey(ctx, t.AccessKeyID)
}

// Steps are the eight steps and how far each is.
func (d *Desk) Steps(ctx context.Context) ([]console.Step, error) {
	var out []console.Step
	for i, s := range []struct {
		title string
		look  func(*Desk, context.Context) (console.Step, error)
	}{
		{"Enable BYOL for the account", (*Desk).accountStep},
		{"Check that the VM is fit", (*Desk).checkStep},
		{"Export the VM and upload it", (*Desk).uploadStep},
		{"Import it as an AMI", (*Desk).importStep},
		{"Make a BYOL image", (*Desk).imageStep},
		{"Make a bundle", (*Desk).bundleStep},
		{"Register a dedicated directory", (*Desk).directoryStep},
		{"Launch WorkSpaces", (*Desk).workspaceStep},
	} {
		step, err := s.look(d, ctx)
		if err != nil {
			return nil, err
		}
		step.Number, step.Title = i+1, s.title
		out = append(out, step)
	}
	return out, nil
}

// shownItems is how many things of a step are shown, newest first; the summary counts all.
const shownItems = 20

// newest reads the newest records of a table, those of a condition ("": all), and how many there are.
func newest[R any](ctx context.Context, d *Desk, order, where string) (rs []R, n int64, err error) {
	q := d.db.NewSelect().Model(&rs).OrderExpr(order).Limit(shownItems)
	if where != "" {
		q.Where(where)
	}
	n, err = q.ScanAndCount(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("desk: %w", err)
	}
	return rs, n, nil
}

// counted is a number of things in English: "1 image", "2 images".
func counted(n int64, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}

func (d *Desk) accountStep(ctx context.Context) (console.Step, error) {
	s := console.Step{State: console.ToDo, Summary: "Choose a management network (ListAvailableManagementCidrRanges) and enable BYOL with it (ModifyAccount), once."}
	rs, _, err := newest[modificationRecord](ctx, d, "started_at DESC, id", "")
	if err != nil {
		return s, err
	}
	for _, r := range rs {
		s.Items = append(s.Items, console.Item{ID: r.ID, Name: r.CIDR, State: r.State, Detail: joined(r.ErrorCode, r.ErrorMessage)})
	}
	last, err := d.lastModification(ctx)
	if err != nil {
		return s, err
	}
	switch {
	case last != nil && last.State == stateCompleted:
		s.State, s.Summary = console.Done, "BYOL is enabled for account "+d.cfg.AccountID+" in "+d.cfg.Region+"."
	case last != nil && last.State == statePending:
		s.State, s.Summary = console.InProgress, "BYOL is being enabled."
	case !d.cfg.Eligible:
		s.State, s.Summary = console.Attention, d.guidance()
	case last != nil:
		s.State, s.Summary = console.Attention, "BYOL could not be enabled. Try again (ModifyAccount)."
	}
	return s, nil
}

// joined is an error's code and message in one line.
func joined(code, text string) string {
	if code == "" || text == "" {
		return code + text
	}
	return code + ": " + text
}

// checkStep shows what the ingestion found on each image's disk, which is the same check that "berth check" does on a file.
func (d *Desk) checkStep(ctx context.Context) (console.Step, error) {
	s := console.Step{State: console.ToDo, Summary: "Check the exported file before you upload it: berth check FILE. The service checks it again when it makes the image."}
	rs, n, err := newest[workspaceImageRecord](ctx, d, "created_at DESC, id", "report <> ''")
	if err != nil || n == 0 {
		return s, err
	}
	for i, r := range rs {
		var kept check.Report
		if err := json.Unmarshal([]byte(r.Report), &kept); err != nil {
			return s, fmt.Errorf("desk: report of image %s: %w", r.ID, err)
		}
		it := console.Item{ID: r.ID, Name: windowsName(kept.Windows), State: "fit", Detail: outcomes(kept), Report: true}
		if !kept.Fit {
			it.State = "not fit"
		}
		s.Items = append(s.Items, it)
		if i > 0 {
			continue
		}
		s.State, s.Summary = console.Done, "The disk that was checked last is fit."
		if !kept.Fit {
			s.State, s.Summary = console.Attention, "The disk that was checked last is not fit. Its report tells what to do about it, and so does berth check FILE."
		}
	}
	return s, nil
}

// Report is the page about what the ingestion found on an image's disk. fs.ErrNotExist when there is no such image or it was not
// checked yet.
func (d *Desk) Report(ctx context.Context, id string) ([]byte, error) {
	r, err := d.workspaceImage(ctx, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fmt.Errorf("desk: image %s: %w", id, fs.ErrNotExist)
	case err != nil:
		return nil, err
	case r.Report == "":
		return nil, fmt.Errorf("desk: report of image %s: %w", id, fs.ErrNotExist)
	}
	var kept check.Report
	if err := json.Unmarshal([]byte(r.Report), &kept); err != nil {
		return nil, fmt.Errorf("desk: report of image %s: %w", id, err)
	}
	var b bytes.Buffer
	if err := report.HTML(&b, kept, report.Subject{File: r.Name + " (" + r.ID + ")"}); err != nil {
		return nil, fmt.Errorf("desk: report of image %s: %w", id, err)
	}
	return b.Bytes(), nil
}

func windowsName(w check.Windows) string {
	parts := slices.DeleteFunc([]string{"Windows", w.Edition, w.Version, w.Language, w.HostName}, func(s string) bool { return s == "" })
	return strings.Join(parts, " ")
}

// outcomes counts a report's findings, and names those that did not pass or are open.
func outcomes(kept check.Report) string {
	codes := map[check.Outcome][]string{}
	for _, f := range kept.Findings {
		codes[f.Outcome] = append(codes[f.Outcome], f.Code)
	}
	parts := []string{fmt.Sprintf("%d passed", len(codes[check.Pass]))}
	for _, x := range []struct {
		outcome check.Outcome
		word    string
	}{{check.Fail, "failed"}, {check.Warn, "warned of"}, {check.Unknown, "open until the guest is asked"}} {
		if c := codes[x.outcome]; len(c) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s: %s", len(c), x.word, strings.Join(c, ", ")))
		}
	}
	return strings.Join(parts, "; ") + "."
}

// importing tells a task that is under way.
func (r *importRecord) importing() bool { return r.Status != taskCompleted && r.Status != taskDeleted }

// uploadStep shows what import tasks have been given: what else lies in buckets is not this service's business.
func (d *Desk) uploadStep(ctx context.Context) (console.Step, error) {
	s := console.Step{State: console.ToDo, Summary: "Upload the OVA, VMDK, VHD, VHDX or raw disk to a bucket (aws s3 cp). Uploads are shown here once they are imported from."}
	rs, _, err := newest[importRecord](ctx, d, "created_at DESC, id", "")
	if err == nil {
		err = d.loadParts(ctx, rs)
	}
	if err != nil {
		return s, err
	}
	n, err := d.db.NewSelect().Model((*importSource)(nil)).Where("from_snapshot = ''").Count(ctx)
	if err != nil || n == 0 {
		return s, err
	}
	s.State, s.Summary = console.Done, counted(n, "import has", "imports have")+" been given an upload."
	for _, r := range rs {
		for _, x := range r.Sources {
			if x.FromSnapshot != "" || len(s.Items) == shownItems {
				continue
			}
			it := console.Item{Name: x.String(), ID: r.ID, State: x.Format}
			for _, made := range r.Disks {
				if made.Source == x.Number && it.State == "" {
					it.State = made.Format
				}
			}
			if x.FileBytes > 0 {
				it.Detail = sizeText(x.FileBytes)
			}
			s.Items = append(s.Items, it)
		}
	}
	return s, nil
}

// sizeText is a number of bytes for people.
func sizeText(n int64) string {
	const mib, gib = 1 << 20, 1 << 30
	switch {
	case n < mib:
		return fmt.Sprintf("%.1f KiB", float64(n)/1024)
	case n < gib:
		return fmt.Sprintf("%.1f MiB", float64(n)/mib)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/gib)
}

func (d *Desk) importStep(ctx context.Context) (console.Step, error) {
	s := console.Step{State: console.ToDo, Summary: "Import the upload as an AMI (ImportImage)."}
	rs, _, err := newest[importRecord](ctx, d, "created_at DESC, id", "")
	if err == nil {
		err = d.loadParts(ctx, rs)
	}
	if err != nil {
		return s, err
	}
	images, err := d.db.NewSelect().Model((*machineImageRecord)(nil)).Count(ctx)
	if err != nil {
		return s, fmt.Errorf("desk: %w", err)
	}
	for _, r := range rs {
		it := console.Item{Name: firstOf(r.ImageID, r.ID), ID: r.ID, State: r.Status, Detail: r.StatusMessage}
		if r.importing() {
			it.Detail = fmt.Sprintf("%s, %d %%", firstOf(r.StatusMessage, r.Status), r.Progress)
			if r.WaitsFor != "" {
				it.Detail += ": " + r.WaitsFor
			}
		}
		for _, x := range r.Disks {
			it.Detail = strings.TrimPrefix(it.Detail+"; "+x.Note, "; ")
		}
		it.Detail = strings.TrimSuffix(it.Detail, "; ")
		s.Items = append(s.Items, it)
	}
	switch {
	case slices.ContainsFunc(rs, func(r importRecord) bool { return r.importing() }):
		s.State, s.Summary = console.InProgress, "An upload is being imported."
	case len(rs) > 0 && rs[0].Status == taskDeleted && !rs[0].CancelRequested:
		s.State, s.Summary = console.Attention, "The last import failed; its message says why."
	case images > 0:
		s.State, s.Summary = console.Done, counted(images, "AMI is", "AMIs are")+" there."
	}
	return s, nil
}

func (d *Desk) imageStep(ctx context.Context) (console.Step, error) {
	s := console.Step{State: console.ToDo, Summary: "Make an image of the AMI (ImportWorkspaceImage)."}
	rs, n, err := newest[workspaceImageRecord](ctx, d, "created_at DESC, id", "")
	if err != nil || n == 0 {
		return s, err
	}
	s.State, s.Summary = console.Done, counted(n, "image", "images")+"."
	for _, r := range rs {
		it := console.Item{ID: r.ID, Name: r.Name, State: r.State, Detail: joined(r.ErrorCode, r.ErrorMessage)}
		var codes []string
		for _, e := range r.ErrorDetails {
			codes = append(codes, e.Code)
		}
		if len(codes) > 0 {
			it.Detail += " (" + strings.Join(slices.Compact(codes), ", ") + ")"
		}
		if it.Detail == "" {
			it.Detail = strings.Join(append([]string{r.IngestionProcess, "from " + r.MachineImageID}, r.Applications...), ", ")
		}
		for i, x := range r.Fixes {
			if i == 0 {
				it.Detail += "; mended: "
			} else {
				it.Detail += ", "
			}
			it.Detail += x.Code
		}
		s.Items = append(s.Items, it)
	}
	switch {
	case slices.ContainsFunc(rs, func(r workspaceImageRecord) bool { return r.State == imagePending }):
		s.State, s.Summary = console.InProgress, "An image is being made."
	case rs[0].State == imageError:
		s.State, s.Summary = console.Attention, "The last image could not be made; its error details say why."
	}
	return s, nil
}

func (d *Desk) bundleStep(ctx context.Context) (console.Step, error) {
	s := console.Step{State: console.ToDo, Summary: "Make a bundle: the image with hardware and volumes (CreateWorkspaceBundle)."}
	rs, n, err := newest[bundleRecord](ctx, d, "created_at DESC, id", "")
	if err != nil || n == 0 {
		return s, err
	}
	s.State, s.Summary = console.Done, counted(n, "bundle", "bundles")+"."
	for _, r := range rs {
		s.Items = append(s.Items, console.Item{ID: r.ID, Name: r.Name, State: string(types.WorkspaceBundleStateAvailable),
			Detail: fmt.Sprintf("%s, root %d GB, user %d GB, image %s", r.ComputeType, r.RootGiB, r.UserGiB, r.ImageID)})
	}
	return s, nil
}

func (d *Desk) directoryStep(ctx context.Context) (console.Step, error) {
	s := console.Step{State: console.ToDo, Summary: "Register a directory for dedicated WorkSpaces (RegisterWorkspaceDirectory with Tenancy DEDICATED)."}
	var rs []struct {
		directoryRecord
		RegistrationCode, State, ErrorMessage, Tenancy *string
	}
	err := d.db.NewSelect().TableExpr("directories AS d").Join("LEFT JOIN registrations AS r ON r.directory_id = d.id").
		ColumnExpr("d.id, d.name, d.turn, d.created_at, r.registration_code, r.state, r.error_message, r.tenancy").OrderExpr("d.created_at DESC, d.id").Limit(shownItems).Scan(ctx, &rs)
	if err != nil {
		return s, fmt.Errorf("desk: %w", err)
	}
	n, err := d.db.NewSelect().Model((*registrationRecord)(nil)).Where("state = ? AND tenancy = ?", directoryRegistered, types.TenancyDedicated).Count(ctx)
	if err != nil {
		return s, fmt.Errorf("desk: %w", err)
	}
	if n > 0 {
		s.State, s.Summary = console.Done, counted(n, "dedicated directory is", "dedicated directories are")+" registered."
	}
	for _, r := range rs {
		it := console.Item{ID: r.ID, Name: r.Name, State: "not registered"}
		if state := aws.ToString(r.State); state != "" {
			it.State = state
			it.Detail = strings.ToLower(aws.ToString(r.Tenancy)) + ", registration code " + aws.ToString(r.RegistrationCode)
			switch {
			case state == directoryError:
				it.Detail = aws.ToString(r.ErrorMessage)
				s.State, s.Summary = console.Attention, "A directory could not be registered."
			case state != directoryRegistered && s.State == console.ToDo:
				s.State, s.Summary = console.InProgress, "A directory is being registered or deregistered."
			}
		}
		s.Items = append(s.Items, it)
	}
	return s, nil
}

func (d *Desk) workspaceStep(ctx context.Context) (console.Step, error) {
	s := console.Step{State: console.ToDo, Summary: "Launch a WorkSpace for a user of the directory (CreateWorkspaces)."}
	rs, n, err := newest[workspaceRecord](ctx, d, "created_at DESC, id", "")
	if err != nil || n == 0 {
		return s, err
	}
	for _, r := range rs {
		it := console.Item{ID: r.ID, Name: r.UserName + " on " + r.ComputerName, State: r.State, Detail: joined(r.ErrorCode, r.ErrorMessage)}
		if it.Detail == "" {
			it.Detail = strings.Join(slices.DeleteFunc([]string{r.ComputeType, r.RunningMode, r.IPAddress, "bundle " + r.BundleID}, func(s string) bool { return s == "" }), ", ")
		}
		s.Items = append(s.Items, it)
	}
	// All are counted, not only those shown.
	var states []struct {
		State string
		Count int
	}
	if err := d.db.NewSelect().Model((*workspaceRecord)(nil)).ColumnExpr("state, count(*) AS count").Group("state").OrderExpr("state").Scan(ctx, &states); err != nil {
		return s, fmt.Errorf("desk: %w", err)
	}
	s.State = console.Done
	var parts []string
	for _, x := range states {
		parts = append(parts, fmt.Sprintf("%d %s", x.Count, x.State))
		switch x.State {
		case workspaceAvailable, workspaceStopped, workspaceTerminated:
		case workspaceError, workspaceUnhealthy:
			s.State = console.Attention
		default:
			if s.State == console.Done {
				s.State = console.InProgress
			}
		}
	}
	s.Summary = counted(n, "WorkSpace", "WorkSpaces") + ": " + strings.Join(parts, ", ") + "."
	return s, nil
}
