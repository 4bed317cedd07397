package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"
)

// bundleRecord is an image with the hardware and the volumes that its WorkSpaces get.
type bundleRecord struct {
	bun.BaseModel `bun:"table:bundles"`
	ID            string    `bun:"id,pk"`
	Name          string    `bun:"name"`
	Description   string    `bun:"description"`
	ImageID       string    `bun:"image_id"`
	ComputeType   string    `bun:"compute_type"`
	RootGiB       int       `bun:"root_gib"`
	UserGiB       int       `bun:"user_gib"`
	CreatedAt     time.Time `bun:"created_at"`
	UpdatedAt     time.Time `bun:"updated_at"`
}

// maxBundles is Amazon's quota of bundles in a Region (facts §7).
const maxBundles = 50

// hardware is what a compute type stands for.
type hardware struct {
	vcpus, memoryGiB int
	// rootGiB and userGiB are the least volumes, which are also the default for root. Amazon's "GB" is GiB.
	rootGiB, userGiB int
	gpu              bool
}

// computeTypes are the compute types that bundles can have here (facts §7). The G6 families are not among them: their least
// volumes are not known.
var computeTypes = map[types.Compute]hardware{
	types.ComputeValue:                 {1, 2, 80, 10, false},
	types.ComputeStandard:              {2, 4, 80, 10, false},
	types.ComputePerformance:           {2, 8, 80, 10, false},
	types.ComputePower:                 {4, 16, 80, 10, false},
	types.ComputePowerpro:              {8, 32, 80, 10, false},
	types.ComputeGeneralpurpose4xlarge: {16, 64, 175, 100, false},
	types.ComputeGeneralpurpose8xlarge: {32, 128, 175, 100, false},
	types.ComputeGraphics:              {8, 15, 100, 100, true},
	types.ComputeGraphicspro:           {16, 122, 100, 100, true},
	types.ComputeGraphicsG4dn:          {4, 16, 100, 100, true},
	types.ComputeGraphicsproG4dn:       {16, 64, 100, 100, true},
}

// checkVolumes holds a pair of volumes, in GiB, against the rules for a compute type (facts §7): (80, 10), (80, 50),
// (80, 100), or (175 to 2000, 100 to 2000); with a GPU (100 to 2000, 100 to 2000).
func checkVolumes(c types.Compute, root, user int) error {
	hw, ok := computeTypes[c]
	switch {
	case !ok:
		return invalid("The compute type %s is not available.", c)
	case root < hw.rootGiB || user < hw.userGiB:
		return invalid("The compute type %s needs a root volume of at least %d GB and a user volume of at least %d GB; %d and %d were given.", c, hw.rootGiB, hw.userGiB, root, user)
	case root > 2000 || user > 2000:
		return invalid("A volume can have at most 2000 GB; %d and %d were given.", root, user)
	case hw.gpu:
		return nil
	case root == 80 && (user == 10 || user == 50 || user == 100), root >= 175 && user >= 100:
		return nil
	}
	return invalid("A root volume of %d GB and a user volume of %d GB do not go together. Root 80 goes with user 10, 50 or 100; root 175 to 2000 goes with user 100 to 2000.", root, user)
}

// CreateWorkspaceBundle makes a bundle of an image that is AVAILABLE.
func (d *Desk) CreateWorkspaceBundle(ctx context.Context, in *workspaces.CreateWorkspaceBundleInput) (*workspaces.CreateWorkspaceBundleOutput, error) {
	gone := &types.ResourceNotFoundException{Message: aws.String("The image " + aws.ToString(in.ImageId) + " does not exist."), ResourceId: in.ImageId}
	im, err := d.workspaceImage(ctx, aws.ToString(in.ImageId))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, gone
	}
	if err != nil {
		return nil, err
	}
	if im.State != imageAvailable {
		return nil, &types.ResourceUnavailableException{Message: aws.String(fmt.Sprintf("The image %s is %s. A bundle needs an image that is AVAILABLE.", im.ID, im.State)), ResourceId: in.ImageId}
	}
	compute := in.ComputeType.Name
	hw, ok := computeTypes[compute]
	if !ok {
		return nil, invalid("The compute type %s is not available.", compute)
	}
	if graphics := strings.Contains(im.IngestionProcess, "GRAPHICS"); graphics != hw.gpu {
		return nil, invalid("The compute type %s does not go with an image that was ingested as %s.", compute, im.IngestionProcess)
	}
	root := hw.rootGiB
	if in.RootStorage != nil {
		if root, err = capacity("RootStorage", in.RootStorage.Capacity); err != nil {
			return nil, err
		}
	}
	user, err := capacity("UserStorage", in.UserStorage.Capacity)
	if err != nil {
		return nil, err
	}
	if err := checkVolumes(compute, root, user); err != nil {
		return nil, err
	}
	if need := gibOf(im.SizeBytes); int64(root) < need {
		return nil, invalid("The root volume must not be smaller than the image's, which has %d GB; %d were given.", need, root)
	}
	r := &bundleRecord{ID: d.workspacesID("wsb-"), Name: aws.ToString(in.BundleName), Description: aws.ToString(in.BundleDescription), ImageID: im.ID,
		ComputeType: string(compute), RootGiB: root, UserGiB: user, CreatedAt: d.now(), UpdatedAt: d.now()}
	err = d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if ok, err := hold(ctx, tx, (*workspaceImageRecord)(nil), "id", im.ID); err != nil {
			return err
		} else if !ok {
			return gone
		}
		if n, err := tx.NewSelect().Model((*bundleRecord)(nil)).Count(ctx); err != nil {
			return err
		} else if n >= maxBundles {
			return &types.ResourceLimitExceededException{Message: aws.String(fmt.Sprintf("You have reached the limit of %d bundles in this Region.", maxBundles))}
		}
		if fresh, err := insertNew(ctx, tx, r, "name"); err != nil {
			return err
		} else if !fresh {
			return &types.ResourceAlreadyExistsException{Message: aws.String("A bundle with the name " + r.Name + " already exists.")}
		}
		return putTags(ctx, tx, r.ID, tagsOf(in.Tags))
	})
	if err != nil {
		return nil, err
	}
	v := d.bundleView(r)
	return &workspaces.CreateWorkspaceBundleOutput{WorkspaceBundle: &v}, nil
}

// capacity reads a volume's size, which bundles write as text.
func capacity(member string, s *string) (int, error) {
	n, err := strconv.Atoi(aws.ToString(s))
	if err != nil || n < 1 || n > 1<<20 {
		return 0, invalid("%s.Capacity must be a number of GB; %q was given.", member, aws.ToString(s))
	}
	return n, nil
}

func (d *Desk) bundleView(r *bundleRecord) types.WorkspaceBundle {
	return types.WorkspaceBundle{
		BundleId: aws.String(r.ID), Name: aws.String(r.Name), Owner: aws.String(d.cfg.AccountID), Description: aws.String(r.Description), ImageId: aws.String(r.ImageID),
		RootStorage: &types.RootStorage{Capacity: aws.String(strconv.Itoa(r.RootGiB))}, UserStorage: &types.UserStorage{Capacity: aws.String(strconv.Itoa(r.UserGiB))},
		ComputeType: &types.ComputeType{Name: types.Compute(r.ComputeType)}, CreationTime: aws.Time(r.CreatedAt), LastUpdatedTime: aws.Time(r.UpdatedAt),
		State: types.WorkspaceBundleStateAvailable, BundleType: types.BundleTypeRegular,
	}
}

// DescribeWorkspaceBundles lists bundles by id, or those of an owner: this account (also without an owner). AMAZON has none
// here: all Windows is the customer's own.
func (d *Desk) DescribeWorkspaceBundles(ctx context.Context, in *workspaces.DescribeWorkspaceBundlesInput) (*workspaces.DescribeWorkspaceBundlesOutput, error) {
	if len(in.BundleIds) > 0 && in.Owner != nil {
		return nil, invalid("BundleIds and Owner cannot be given together.")
	}
	out := &workspaces.DescribeWorkspaceBundlesOutput{Bundles: []types.WorkspaceBundle{}}
	if o := aws.ToString(in.Owner); o != "" && o != d.cfg.AccountID {
		return out, nil
	}
	var rs []bundleRecord
	q := d.db.NewSelect().Model(&rs).Order("created_at DESC", "id")
	if len(in.BundleIds) > 0 {
		q.Where("id IN (?)", bun.List(in.BundleIds))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	rs, next, err := paginate(rs, 0, 25, in.NextToken, func(r bundleRecord) string { return r.ID })
	if err != nil {
		return nil, err
	}
	out.NextToken = next
	for _, r := range rs {
		out.Bundles = append(out.Bundles, d.bundleView(&r))
	}
	return out, nil
}

// DeleteWorkspaceBundle removes a bundle that no WorkSpace uses.
func (d *Desk) DeleteWorkspaceBundle(ctx context.Context, in *workspaces.DeleteWorkspaceBundleInput) (*workspaces.DeleteWorkspaceBundleOutput, error) {
	id := aws.ToString(in.BundleId)
	return &workspaces.DeleteWorkspaceBundleOutput{}, d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if ok, err := hold(ctx, tx, (*bundleRecord)(nil), "id", id); err != nil {
			return err
		} else if !ok {
			return &types.ResourceNotFoundException{Message: aws.String("The bundle " + id + " does not exist."), ResourceId: in.BundleId}
		}
		if n, err := tx.NewSelect().Model((*workspaceRecord)(nil)).Where("bundle_id = ?", id).Count(ctx); err != nil {
			return err
		} else if n > 0 {
			return &types.ResourceAssociatedException{Message: aws.String(fmt.Sprintf("The bundle %s is used by %d WorkSpaces.", id, n))}
		}
		if _, err := tx.NewDelete().Model((*bundleRecord)(nil)).Where("id = ?", id).Exec(ctx); err != nil {
			return err
		}
		_, err := tx.NewDelete().Model((*tagRecord)(nil)).Where("resource_id = ?", id).Exec(ctx)
		return err
	})
}
