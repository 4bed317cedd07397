package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"

	"berth/internal/directory"
	"berth/internal/directory/builtin"
)

// directoryRecord is a directory that exists, registered for WorkSpaces or not.
type directoryRecord struct {
	bun.BaseModel `bun:"table:directories"`
	ID            string    `bun:"id,pk"`
	Name          string    `bun:"name"` // its domain name, "corp.example.com"
	Turn          int       `bun:"turn"`
	CreatedAt     time.Time `bun:"created_at"`
}

// registrationRecord is a directory's registration for WorkSpaces.
type registrationRecord struct {
	bun.BaseModel    `bun:"table:registrations"`
	DirectoryID      string   `bun:"directory_id,pk"`
	RegistrationCode string   `bun:"registration_code"`
	State            string   `bun:"state"`
	ErrorMessage     string   `bun:"error_message"`
	Tenancy          string   `bun:"tenancy"`
	SubnetIDs        []string `bun:"subnet_ids"`
	SelfService      bool     `bun:"self_service"`
}

const (
	directoryRegistering   = string(types.WorkspaceDirectoryStateRegistering)
	directoryRegistered    = string(types.WorkspaceDirectoryStateRegistered)
	directoryDeregistering = string(types.WorkspaceDirectoryStateDeregistering)
	directoryDeregistered  = string(types.WorkspaceDirectoryStateDeregistered)
	directoryError         = string(types.WorkspaceDirectoryStateError)
)

// maxDirectories is Amazon's quota of registered directories in a Region (facts §7).
const maxDirectories = 50

// domain is the users of a directory.
func (d *Desk) domain(id string) *builtin.Domain { return builtin.New(d.db, id, d.now) }

// RegisterWorkspaceDirectory registers a directory, for dedicated WorkSpaces with Tenancy DEDICATED: that needs an account
// that is enabled for BYOL. The tenancy cannot be changed but by registering again.
func (d *Desk) RegisterWorkspaceDirectory(ctx context.Context, in *workspaces.RegisterWorkspaceDirectoryInput) (*workspaces.RegisterWorkspaceDirectoryOutput, error) {
	if t := in.UserIdentityType; t != "" && t != types.UserIdentityTypeAwsDirectoryService {
		return nil, &types.OperationNotSupportedException{Message: aws.String("UserIdentityType " + string(t) + " is not supported.")}
	}
	if t := in.WorkspaceType; t != "" && t != types.WorkspaceTypePersonal {
		return nil, &types.OperationNotSupportedException{Message: aws.String("WorkspaceType " + string(t) + " is not supported.")}
	}
	id := aws.ToString(in.DirectoryId)
	if id == "" {
		return nil, invalid("DirectoryId must be given.")
	}
	tenancy := in.Tenancy
	if tenancy == "" {
		tenancy = types.TenancyShared
	}
	if tenancy == types.TenancyDedicated {
		if ok, err := d.byolEnabled(ctx); err != nil {
			return nil, err
		} else if !ok {
			return nil, invalid("Tenancy DEDICATED needs an account that is enabled for Bring Your Own License. Enable it with ModifyAccount first.")
		}
	}
	r := &registrationRecord{DirectoryID: id, RegistrationCode: d.registrationCode(), State: directoryRegistering, Tenancy: string(tenancy), SubnetIDs: in.SubnetIds, SelfService: aws.ToBool(in.EnableSelfService)}
	if r.SubnetIDs == nil {
		r.SubnetIDs = []string{}
	}
	var turn int
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) (err error) {
		if turn, err = nextTurn(ctx, tx, id); err != nil {
			return err
		}
		if n, err := tx.NewSelect().Model((*registrationRecord)(nil)).Count(ctx); err != nil {
			return err
		} else if n >= maxDirectories {
			return &types.ResourceLimitExceededException{Message: aws.String(fmt.Sprintf("You have reached the limit of %d registered directories in this Region.", maxDirectories))}
		}
		if _, err := tx.NewDelete().Model((*registrationRecord)(nil)).Where("directory_id = ? AND state IN (?)", id, bun.List([]string{directoryError, directoryDeregistered})).Exec(ctx); err != nil {
			return err
		}
		res, err := tx.NewInsert().Model(r).On("CONFLICT (directory_id) DO NOTHING").Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return &types.ResourceAlreadyExistsException{Message: aws.String("The directory " + id + " is already registered.")}
		}
		return putTags(ctx, tx, id, tagsOf(in.Tags))
	})
	if err != nil {
		return nil, err
	}
	d.start(&registerDirectory, work{id, turn})
	return &workspaces.RegisterWorkspaceDirectoryOutput{DirectoryId: aws.String(id), State: types.WorkspaceDirectoryState(r.State)}, nil
}

// nextTurn counts a directory's registrations and deregistrations up. It refuses a directory that does not exist.
func nextTurn(ctx context.Context, tx bun.Tx, id string) (int, error) {
	if _, err := tx.NewUpdate().Model((*directoryRecord)(nil)).Set("turn = turn + 1").Where("id = ?", id).Exec(ctx); err != nil {
		return 0, err
	}
	var r directoryRecord
	err := tx.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, &types.ResourceNotFoundException{Message: aws.String("The directory " + id + " does not exist."), ResourceId: aws.String(id)}
	}
	return r.Turn, err
}

// registrationCode is what users type into their client: a Region's prefix, "+", and six characters. The prefixes of two
// Regions are known (facts §8); the others get their Region's letters.
func (d *Desk) registrationCode() string {
	prefix := map[string]string{"us-east-1": "SLiad", "us-west-2": "WSpdx"}[d.cfg.Region]
	if prefix == "" {
		prefix = "WS"
		for part := range strings.SplitSeq(d.cfg.Region, "-") {
			prefix += part[:min(1, len(part))]
		}
	}
	return prefix + "+" + d.random(upperDigits, 6)
}

// DescribeWorkspaceDirectories lists the registered directories.
func (d *Desk) DescribeWorkspaceDirectories(ctx context.Context, in *workspaces.DescribeWorkspaceDirectoriesInput) (*workspaces.DescribeWorkspaceDirectoriesOutput, error) {
	if len(in.Filters) > 0 {
		return nil, invalid("Filters are not supported.")
	}
	var rs []registrationRecord
	q := d.db.NewSelect().Model(&rs).Order("directory_id")
	if len(in.DirectoryIds) > 0 {
		q.Where("directory_id IN (?)", bun.List(in.DirectoryIds))
	}
	if len(in.WorkspaceDirectoryNames) > 0 {
		q.Where("directory_id IN (SELECT id FROM directories WHERE name IN (?))", bun.List(in.WorkspaceDirectoryNames))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	rs, next, err := paginate(rs, aws.ToInt32(in.Limit), 25, in.NextToken, func(r registrationRecord) string { return r.DirectoryID })
	if err != nil {
		return nil, err
	}
	out := &workspaces.DescribeWorkspaceDirectoriesOutput{Directories: []types.WorkspaceDirectory{}, NextToken: next}
	for _, r := range rs {
		dir, err := d.directory(ctx, r.DirectoryID)
		if err != nil {
			return nil, err
		}
		out.Directories = append(out.Directories, directoryView(dir, &r))
	}
	return out, nil
}

func (d *Desk) directory(ctx context.Context, id string) (*directoryRecord, error) {
	return recordOf[directoryRecord](ctx, d.db, "directory", "id", id)
}

func directoryView(dir *directoryRecord, r *registrationRecord) types.WorkspaceDirectory {
	self := types.ReconnectEnum("DISABLED")
	if r.SelfService {
		self = "ENABLED"
	}
	allow, deny := types.AccessPropertyValueAllow, types.AccessPropertyValueDeny
	return types.WorkspaceDirectory{
		DirectoryId: aws.String(r.DirectoryID), Alias: aws.String(r.DirectoryID), DirectoryName: aws.String(dir.Name), DirectoryType: types.WorkspaceDirectoryTypeSimpleAd,
		RegistrationCode: aws.String(r.RegistrationCode), State: types.WorkspaceDirectoryState(r.State), ErrorMessage: optional(r.ErrorMessage), SubnetIds: r.SubnetIDs,
		Tenancy: types.Tenancy(r.Tenancy), WorkspaceType: types.WorkspaceTypePersonal, UserIdentityType: types.UserIdentityTypeAwsDirectoryService,
		SelfservicePermissions:      &types.SelfservicePermissions{RestartWorkspace: self, IncreaseVolumeSize: self, ChangeComputeType: self, SwitchRunningMode: self, RebuildWorkspace: self},
		WorkspaceCreationProperties: &types.DefaultWorkspaceCreationProperties{EnableInternetAccess: aws.Bool(false), UserEnabledAsLocalAdministrator: aws.Bool(true), EnableMaintenanceMode: aws.Bool(true)},
		// What can reach a desktop here is a web browser.
		WorkspaceAccessProperties: &types.WorkspaceAccessProperties{DeviceTypeWeb: allow, DeviceTypeWindows: deny, DeviceTypeOsx: deny, DeviceTypeIos: deny, DeviceTypeAndroid: deny,
			DeviceTypeChromeOs: deny, DeviceTypeZeroClient: deny, DeviceTypeLinux: deny},
	}
}

// DeregisterWorkspaceDirectory takes a directory's registration back. No WorkSpace may be left in it.
func (d *Desk) DeregisterWorkspaceDirectory(ctx context.Context, in *workspaces.DeregisterWorkspaceDirectoryInput) (*workspaces.DeregisterWorkspaceDirectoryOutput, error) {
	id := aws.ToString(in.DirectoryId)
	var turn int
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) (err error) {
		if turn, err = nextTurn(ctx, tx, id); err != nil {
			return err
		}
		res, err := tx.NewUpdate().Model((*registrationRecord)(nil)).Set("state = ?", directoryDeregistering).
			Where("directory_id = ? AND state IN (?)", id, bun.List([]string{directoryRegistered, directoryError})).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			var states []string
			if err := tx.NewSelect().Model((*registrationRecord)(nil)).Column("state").Where("directory_id = ?", id).Scan(ctx, &states); err != nil {
				return err
			}
			if len(states) == 0 {
				return &types.ResourceNotFoundException{Message: aws.String("The directory " + id + " is not registered."), ResourceId: aws.String(id)}
			}
			return &types.InvalidResourceStateException{Message: aws.String("The directory " + id + " is " + states[0] + ".")}
		}
		n, err := tx.NewSelect().Model((*workspaceRecord)(nil)).Where("directory_id = ? AND state <> ?", id, types.WorkspaceStateTerminated).Count(ctx)
		if err == nil && n > 0 {
			err = &types.InvalidResourceStateException{Message: aws.String(fmt.Sprintf("The directory %s has %d WorkSpaces. Terminate them before you deregister it.", id, n))}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	d.start(&deregisterDirectory, work{id, turn})
	return &workspaces.DeregisterWorkspaceDirectoryOutput{}, nil
}

func (d *Desk) setRegistration(ctx context.Context, id, from, to string) error {
	_, err := d.db.NewUpdate().Model((*registrationRecord)(nil)).Set("state = ?", to).Where("directory_id = ? AND state = ?", id, from).Exec(ctx)
	return err
}

// pendingRegistrations lists the directories whose registration is in a state.
func pendingRegistrations(state string) func(d *Desk, ctx context.Context) ([]work, error) {
	return func(d *Desk, ctx context.Context) ([]work, error) {
		var ws []work
		err := d.db.NewSelect().TableExpr("registrations AS r").Join("JOIN directories AS d ON d.id = r.directory_id").ColumnExpr("d.id, d.turn").Where("r.state = ?", state).Scan(ctx, &ws)
		return ws, err
	}
}

// registerDirectory makes sure that the directory answers, and registers it.
var registerDirectory = flow{
	name: "register-directory",
	steps: []step{
		{"reach", func(d *Desk, ctx context.Context, id string) error {
			_, err := d.domain(id).Users(ctx)
			return err
		}},
		{"register", func(d *Desk, ctx context.Context, id string) error {
			return d.setRegistration(ctx, id, directoryRegistering, directoryRegistered)
		}},
	},
	fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
		_, err := d.db.NewUpdate().Model((*registrationRecord)(nil)).Set("state = ?, error_message = ?", directoryError, f.Message).Where("directory_id = ? AND state = ?", id, directoryRegistering).Exec(ctx)
		return err
	},
	pending: pendingRegistrations(directoryRegistering),
}

// deregisterDirectory shows the registration as gone, then forgets it.
var deregisterDirectory = flow{
	name: "deregister-directory",
	steps: []step{
		{"deregister", func(d *Desk, ctx context.Context, id string) error {
			return d.setRegistration(ctx, id, directoryDeregistering, directoryDeregistered)
		}},
		{"forget", func(d *Desk, ctx context.Context, id string) error {
			_, err := d.db.NewDelete().Model((*registrationRecord)(nil)).Where("directory_id = ? AND state = ?", id, directoryDeregistered).Exec(ctx)
			return err
		}},
	},
	fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
		_, err := d.db.NewUpdate().Model((*registrationRecord)(nil)).Set("state = ?, error_message = ?", directoryError, f.Message).Where("directory_id = ?", id).Exec(ctx)
		return err
	},
	pending: pendingRegistrations(directoryDeregistering),
}

// DirectoryInfo is a directory, registered or not.
type DirectoryInfo struct {
	DirectoryId *string
	Name        *string
	Type        *string // "BUILTIN"
	Created     *time.Time
}

// CreateDirectoryInput names the domain of a new built-in directory, "corp.example.com".
type CreateDirectoryInput struct{ Name *string }

// CreateDirectoryOutput is its id.
type CreateDirectoryOutput struct{ DirectoryId *string }

// CreateDirectory makes a built-in directory. (At AWS: Directory Service.) It still has to be registered for WorkSpaces.
func (b *Berth) CreateDirectory(ctx context.Context, in *CreateDirectoryInput) (*CreateDirectoryOutput, error) {
	name := strings.ToLower(aws.ToString(in.Name))
	if !domainName(name) {
		return nil, invalid("Name must be a domain name such as corp.example.com; %q was given.", aws.ToString(in.Name))
	}
	r := &directoryRecord{ID: "d-" + b.d.random(hexDigits, 10), Name: name, CreatedAt: b.d.now()}
	res, err := b.d.db.NewInsert().Model(r).On("CONFLICT (name) DO NOTHING").Exec(ctx)
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	} else if n == 0 {
		return nil, &types.ResourceAlreadyExistsException{Message: aws.String("A directory with the name " + name + " already exists.")}
	}
	return &CreateDirectoryOutput{DirectoryId: aws.String(r.ID)}, nil
}

// domainName tells a DNS name of two or more labels (RFC 1035).
func domainName(s string) bool {
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, lowerDigits+"-") != "" {
			return false
		}
	}
	return true
}

// ListDirectoriesInput selects nothing: all directories are listed.
type ListDirectoriesInput struct{}

// ListDirectoriesOutput lists directories, oldest first.
type ListDirectoriesOutput struct{ Directories []DirectoryInfo }

// ListDirectories lists the directories that exist, registered or not.
func (b *Berth) ListDirectories(ctx context.Context, _ *ListDirectoriesInput) (*ListDirectoriesOutput, error) {
	var rs []directoryRecord
	if err := b.d.db.NewSelect().Model(&rs).Order("created_at", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	out := &ListDirectoriesOutput{Directories: []DirectoryInfo{}}
	for _, r := range rs {
		out.Directories = append(out.Directories, DirectoryInfo{DirectoryId: aws.String(r.ID), Name: aws.String(r.Name), Type: aws.String("BUILTIN"), Created: aws.Time(r.CreatedAt)})
	}
	return out, nil
}

var _ directory.Domain = (*builtin.Domain)(nil)
