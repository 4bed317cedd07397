package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"
)

// modificationRecord is one attempt to enable BYOL. The one that is COMPLETED is the account's state.
type modificationRecord struct {
	bun.BaseModel `bun:"table:account_modifications"`
	ID            string    `bun:"id,pk"`
	State         string    `bun:"state"`
	CIDR          string    `bun:"cidr"`
	StartedAt     time.Time `bun:"started_at"`
	ErrorCode     string    `bun:"error_code"`
	ErrorMessage  string    `bun:"error_message"`
}

// parentRanges are where a management network may lie, with their number of /16 blocks: 256, 64, 16, 1 and 2, 339 in all
// (document, Requirements).
var parentRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
}

// managementPage is the largest, and the default, number of ranges in one answer (service model: 1 to 5).
const managementPage = 5

// ListAvailableManagementCidrRanges lists the /16 blocks inside the constraint that the management network may take: those
// of the parent ranges that overlap neither a network of the admin's nor a route of this host. A constraint smaller than
// /16 contains no block, and the answer is empty.
func (d *Desk) ListAvailableManagementCidrRanges(ctx context.Context, in *workspaces.ListAvailableManagementCidrRangesInput) (*workspaces.ListAvailableManagementCidrRangesOutput, error) {
	if err := d.eligible(); err != nil {
		return nil, err
	}
	window, err := netip.ParsePrefix(aws.ToString(in.ManagementCidrRangeConstraint))
	if err != nil {
		return nil, invalid("ManagementCidrRangeConstraint %q is not an IPv4 CIDR range.", aws.ToString(in.ManagementCidrRangeConstraint))
	}
	free, err := d.managementRanges(window.Masked())
	if err != nil {
		return nil, err
	}
	page, next, err := paginate(free, aws.ToInt32(in.MaxResults), managementPage, in.NextToken, func(p netip.Prefix) string { return p.String() })
	if err != nil {
		return nil, err
	}
	out := &workspaces.ListAvailableManagementCidrRangesOutput{ManagementCidrRanges: []string{}, NextToken: next}
	for _, p := range page {
		out.ManagementCidrRanges = append(out.ManagementCidrRanges, p.String())
	}
	return out, nil
}

// managementRanges are the free /16 blocks inside window, in the parent ranges' order.
func (d *Desk) managementRanges(window netip.Prefix) ([]netip.Prefix, error) {
	taken := slices.Clone(d.cfg.ReservedNetworks)
	if d.cfg.HostNetworks != nil {
		host, err := d.cfg.HostNetworks()
		if err != nil {
			return nil, fmt.Errorf("desk: networks of this host: %w", err)
		}
		taken = append(taken, host...)
	}
	var free []netip.Prefix
	for _, parent := range parentRanges {
		for block := netip.PrefixFrom(parent.Addr(), 16); parent.Contains(block.Addr()); block = next16(block) {
			inside := window.Bits() <= 16 && window.Contains(block.Addr())
			if inside && !slices.ContainsFunc(taken, block.Overlaps) {
				free = append(free, block)
			}
		}
	}
	return free, nil
}

func next16(p netip.Prefix) netip.Prefix {
	a := p.Addr().As4()
	if a[1]++; a[1] == 0 {
		a[0]++
	}
	return netip.PrefixFrom(netip.AddrFrom4(a), 16)
}

// ModifyAccount enables BYOL with a management network, once for the account and Region; afterwards nothing changes it.
// The work is asynchronous: DescribeAccountModifications tells how it goes.
func (d *Desk) ModifyAccount(ctx context.Context, in *workspaces.ModifyAccountInput) (*workspaces.ModifyAccountOutput, error) {
	if err := d.eligible(); err != nil {
		return nil, err
	}
	if in.DedicatedTenancySupport == "" || in.DedicatedTenancyManagementCidrRange == nil {
		return nil, invalid("To enable BYOL, give DedicatedTenancySupport ENABLED and a DedicatedTenancyManagementCidrRange.")
	}
	cidr, err := netip.ParsePrefix(*in.DedicatedTenancyManagementCidrRange)
	if err != nil {
		return nil, invalid("DedicatedTenancyManagementCidrRange %q is not an IPv4 /16 CIDR range.", *in.DedicatedTenancyManagementCidrRange)
	}
	if last, err := d.lastModification(ctx); err != nil {
		return nil, err
	} else if last != nil && last.State != stateFailed {
		return nil, &types.InvalidResourceStateException{Message: aws.String(fmt.Sprintf(
			"BYOL is already %s for this account in %s with the management range %s. It cannot be modified after it has been set.", onceState(last.State), d.cfg.Region, last.CIDR))}
	}
	free, err := d.managementRanges(cidr.Masked())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(free, cidr) {
		return nil, invalid("The management CIDR range %s is not available. Choose one that ListAvailableManagementCidrRanges returns.", cidr)
	}
	r := &modificationRecord{ID: d.workspacesID("mod-"), State: string(types.DedicatedTenancyModificationStateEnumPending), CIDR: cidr.String(), StartedAt: d.now()}
	if _, err := d.db.NewInsert().Model(r).On("CONFLICT DO NOTHING").Exec(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	// Two callers may come this far; the table lets one in.
	if n, err := d.db.NewSelect().Model((*modificationRecord)(nil)).Where("id = ?", r.ID).Count(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	} else if n == 0 {
		return nil, &types.InvalidResourceStateException{Message: aws.String("BYOL is being enabled for this account already.")}
	}
	d.start(&enableAccount, work{ID: r.ID})
	return &workspaces.ModifyAccountOutput{}, nil
}

const (
	statePending   = string(types.DedicatedTenancyModificationStateEnumPending)
	stateCompleted = string(types.DedicatedTenancyModificationStateEnumCompleted)
	stateFailed    = string(types.DedicatedTenancyModificationStateEnumFailed)
)

func onceState(state string) string {
	if state == statePending {
		return "being enabled"
	}
	return "enabled"
}

// DescribeAccount tells whether BYOL is enabled, and with which management network.
func (d *Desk) DescribeAccount(ctx context.Context, _ *workspaces.DescribeAccountInput) (*workspaces.DescribeAccountOutput, error) {
	cidr, err := d.managementCIDR(ctx)
	if err != nil {
		return nil, err
	}
	out := &workspaces.DescribeAccountOutput{DedicatedTenancySupport: types.DedicatedTenancySupportResultEnumDisabled}
	switch {
	case cidr != "":
		out.DedicatedTenancySupport = types.DedicatedTenancySupportResultEnumEnabled
		out.DedicatedTenancyManagementCidrRange = aws.String(cidr)
	case !d.cfg.Eligible:
		out.Message = aws.String(d.guidance())
	}
	return out, nil
}

// DescribeAccountModifications lists the attempts to enable BYOL, newest first.
func (d *Desk) DescribeAccountModifications(ctx context.Context, in *workspaces.DescribeAccountModificationsInput) (*workspaces.DescribeAccountModificationsOutput, error) {
	var rs []modificationRecord
	if err := d.db.NewSelect().Model(&rs).Order("started_at DESC", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	rs, next, err := paginate(rs, 0, 25, in.NextToken, func(r modificationRecord) string { return r.ID })
	if err != nil {
		return nil, err
	}
	out := &workspaces.DescribeAccountModificationsOutput{AccountModifications: []types.AccountModification{}, NextToken: next}
	for _, r := range rs {
		out.AccountModifications = append(out.AccountModifications, types.AccountModification{
			ModificationState:                   types.DedicatedTenancyModificationStateEnum(r.State),
			DedicatedTenancySupport:             types.DedicatedTenancySupportResultEnumEnabled,
			DedicatedTenancyManagementCidrRange: aws.String(r.CIDR),
			StartTime:                           aws.Time(r.StartedAt),
			ErrorCode:                           optional(r.ErrorCode),
			ErrorMessage:                        optional(r.ErrorMessage),
		})
	}
	return out, nil
}

func (d *Desk) guidance() string {
	if d.cfg.Guidance != "" {
		return d.cfg.Guidance
	}
	return "This account is not eligible for Bring Your Own License. Check that your Microsoft licensing agreement allows Windows in a virtual hosted environment, then have the administrator of this service set it to eligible."
}

func (d *Desk) eligible() error {
	if !d.cfg.Eligible {
		return &types.AccessDeniedException{Message: aws.String(d.guidance())}
	}
	return nil
}

// managementCIDR is the account's management network, "" until BYOL is enabled.
func (d *Desk) managementCIDR(ctx context.Context) (string, error) {
	last, err := d.lastModification(ctx)
	if err != nil || last == nil || last.State != stateCompleted {
		return "", err
	}
	return last.CIDR, nil
}

// byolEnabled tells whether dedicated hardware, and so BYOL, is the account's.
func (d *Desk) byolEnabled(ctx context.Context) (bool, error) {
	cidr, err := d.managementCIDR(ctx)
	return cidr != "", err
}

// lastModification is the attempt that counts: the one that did not fail, else the newest, else nil.
func (d *Desk) lastModification(ctx context.Context) (*modificationRecord, error) {
	var r modificationRecord
	err := d.db.NewSelect().Model(&r).OrderExpr("CASE WHEN state = ? THEN 1 ELSE 0 END, started_at DESC", stateFailed).Limit(1).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	return &r, nil
}

// enableAccount waits as long as the admin said it shall take, looks again whether the range is free, and enables BYOL.
var enableAccount = flow{
	name: "enable-account",
	steps: []step{
		{"wait", func(d *Desk, ctx context.Context, id string) error {
			r, err := d.modification(ctx, id)
			if err != nil {
				return err
			}
			return sleepUntil(ctx, r.StartedAt.Add(d.cfg.EnableDelay), d.cfg.Now)
		}},
		{"enable", func(d *Desk, ctx context.Context, id string) error {
			r, err := d.modification(ctx, id)
			if err != nil || r.State == stateCompleted {
				return err
			}
			cidr, err := netip.ParsePrefix(r.CIDR)
			if err != nil {
				return fmt.Errorf("desk: account modification %s: %w", id, err)
			}
			// Routes come and go: what was free when it was asked for may not be any more.
			if free, err := d.managementRanges(cidr); err != nil {
				return err
			} else if !slices.Contains(free, cidr) {
				return &failure{Code: "ManagementCidrRangeConflict", Message: fmt.Sprintf("The management range %s overlaps a network of this host or one that the administrator has reserved. Choose another.", cidr)}
			}
			_, err = d.db.NewUpdate().Model((*modificationRecord)(nil)).Set("state = ?", stateCompleted).Where("id = ?", id).Exec(ctx)
			return err
		}},
	},
	fail: func(d *Desk, ctx context.Context, id string, f *failure) error {
		_, err := d.db.NewUpdate().Model((*modificationRecord)(nil)).
			Set("state = ?, error_code = ?, error_message = ?", stateFailed, f.Code, f.Message).Where("id = ?", id).Exec(ctx)
		return err
	},
	pending: func(d *Desk, ctx context.Context) ([]work, error) {
		var ws []work
		err := d.db.NewSelect().Model((*modificationRecord)(nil)).ColumnExpr("id").Where("state = ?", statePending).Scan(ctx, &ws)
		return ws, err
	},
}

func (d *Desk) modification(ctx context.Context, id string) (*modificationRecord, error) {
	return recordOf[modificationRecord](ctx, d.db, "account modification", "id", id)
}
