package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/uptrace/bun"

	"berth/internal/awsapi"
)

// keyRecord is an access key of a user, with the policy that says what the user may do.
type keyRecord struct {
	bun.BaseModel `bun:"table:access_keys"`
	ID            string    `bun:"id,pk"`
	Secret        string    `bun:"secret"`
	UserName      string    `bun:"user_name"`
	Policy        string    `bun:"policy"` // IAM policy, JSON
	CreatedAt     time.Time `bun:"created_at"`
}

// AccessKey finds a key for the wire. It makes Desk an awsapi.KeyStore.
func (d *Desk) AccessKey(ctx context.Context, id string) (awsapi.AccessKey, error) {
	if strings.Trim(id, upperDigits) != "" { // it comes from a stranger, and may be no text at all
		return awsapi.AccessKey{}, awsapi.ErrNoSuchKey
	}
	var r keyRecord
	err := d.db.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return awsapi.AccessKey{}, awsapi.ErrNoSuchKey
	}
	if err != nil {
		return awsapi.AccessKey{}, fmt.Errorf("desk: %w", err)
	}
	p, err := awsapi.ParsePolicy(r.Policy)
	if err != nil {
		return awsapi.AccessKey{}, fmt.Errorf("desk: policy of access key %s: %w", id, err)
	}
	return awsapi.AccessKey{ID: r.ID, Secret: awsapi.Secret(r.Secret), UserName: r.UserName, AccountID: d.cfg.AccountID, Policy: p}, nil
}

// AdminKey is the key of the user "admin", made at the first start. fresh is true the time that it is made.
func (d *Desk) AdminKey(ctx context.Context) (key awsapi.AccessKey, fresh bool, err error) {
	var r keyRecord
	err = d.db.NewSelect().Model(&r).Where("user_name = ?", "admin").Order("created_at", "id").Limit(1).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		made, err := d.newKey(ctx, "admin", awsapi.AdministratorAccess)
		if err != nil {
			return awsapi.AccessKey{}, false, err
		}
		r, fresh = *made, true
	} else if err != nil {
		return awsapi.AccessKey{}, false, fmt.Errorf("desk: %w", err)
	}
	key, err = d.AccessKey(ctx, r.ID)
	return key, fresh, err
}

func (d *Desk) newKey(ctx context.Context, user, policy string) (*keyRecord, error) {
	r := &keyRecord{ID: "AKIA" + d.random(upperDigits, 16), Secret: d.random(lowerDigits+upperDigits[:26], 40), UserName: user, Policy: policy, CreatedAt: d.now()}
	if _, err := d.db.NewInsert().Model(r).Exec(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	return r, nil
}

// Berth is the door of our own, for what AWS has no operation for, in the WorkSpaces protocol: X-Amz-Target
// BerthService.Operation, signing name "berth". Its methods are the operations.
type Berth struct{ d *Desk }

// Berth is the desk's own door.
func (d *Desk) Berth() *Berth { return &Berth{d} }

// AccessKeyInfo is an access key without its secret.
type AccessKeyInfo struct {
	AccessKeyId *string
	UserName    *string
	Policy      *string
	Created     *time.Time
}

// CreateAccessKeyInput asks for a key for a user with an IAM policy (JSON). Without a policy the user may do nothing.
type CreateAccessKeyInput struct {
	UserName *string
	Policy   *string
}

// CreateAccessKeyOutput is the only answer that ever shows the secret.
type CreateAccessKeyOutput struct {
	AccessKeyId     *string
	SecretAccessKey *string
}

// CreateAccessKey makes an access key.
func (b *Berth) CreateAccessKey(ctx context.Context, in *CreateAccessKeyInput) (*CreateAccessKeyOutput, error) {
	if !plainName(aws.ToString(in.UserName)) {
		return nil, invalid("UserName must be 1 to 63 letters, digits or any of _+=,.@- .")
	}
	policy := firstOf(aws.ToString(in.Policy), `{"Version":"2012-10-17","Statement":[]}`)
	if _, err := awsapi.ParsePolicy(policy); err != nil {
		return nil, invalid("Policy: %v", err)
	}
	r, err := b.d.newKey(ctx, *in.UserName, policy)
	if err != nil {
		return nil, err
	}
	return &CreateAccessKeyOutput{AccessKeyId: aws.String(r.ID), SecretAccessKey: aws.String(r.Secret)}, nil
}

// ListAccessKeysInput selects nothing: all keys are listed.
type ListAccessKeysInput struct{}

// ListAccessKeysOutput lists keys, oldest first.
type ListAccessKeysOutput struct{ AccessKeys []AccessKeyInfo }

// ListAccessKeys lists the access keys, without their secrets.
func (b *Berth) ListAccessKeys(ctx context.Context, _ *ListAccessKeysInput) (*ListAccessKeysOutput, error) {
	var rs []keyRecord
	if err := b.d.db.NewSelect().Model(&rs).Order("created_at", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	out := &ListAccessKeysOutput{AccessKeys: []AccessKeyInfo{}}
	for _, r := range rs {
		out.AccessKeys = append(out.AccessKeys, AccessKeyInfo{AccessKeyId: aws.String(r.ID), UserName: aws.String(r.UserName), Policy: aws.String(r.Policy), Created: aws.Time(r.CreatedAt)})
	}
	return out, nil
}

// DeleteAccessKeyInput names a key.
type DeleteAccessKeyInput struct{ AccessKeyId *string }

// DeleteAccessKeyOutput is empty.
type DeleteAccessKeyOutput struct{}

// DeleteAccessKey removes a key; requests signed with it are refused from then on. The last key of the administrator stays.
func (b *Berth) DeleteAccessKey(ctx context.Context, in *DeleteAccessKeyInput) (*DeleteAccessKeyOutput, error) {
	id := aws.ToString(in.AccessKeyId)
	if admin, _, err := b.d.AdminKey(ctx); err != nil {
		return nil, err
	} else if admin.ID == id {
		return nil, &types.OperationNotSupportedException{Message: aws.String("The administrator's own access key cannot be deleted.")}
	}
	res, err := b.d.db.NewDelete().Model((*keyRecord)(nil)).Where("id = ?", id).Exec(ctx)
	if err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	} else if n == 0 {
		return nil, &types.ResourceNotFoundException{Message: aws.String("There is no access key " + id + "."), ResourceId: in.AccessKeyId}
	}
	return &DeleteAccessKeyOutput{}, nil
}

// plainName tells a user's name as IAM and this service take it.
func plainName(s string) bool {
	if len(s) == 0 || len(s) > 63 {
		return false
	}
	for _, c := range s {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') && !strings.ContainsRune("_+=,.@-", c) {
			return false
		}
	}
	return true
}
