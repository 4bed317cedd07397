package desk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"berth/internal/check"
)

// An installation is an account in a Region, with a database and a data folder that belong together. All four are what they
// are from the first start on: ids, ARNs, launch permissions and the one-time BYOL decision bear the account and the Region,
// and sweep removes from the folder what the database does not know.

// identify makes the installation at the first start, and afterwards refuses to start with parts of two.
func (d *Desk) identify(ctx context.Context) error {
	if a := d.cfg.AccountID; a != "" && !accountID(a) {
		return fmt.Errorf("desk: account %q: an account is 12 digits", a)
	}
	if _, ok := check.ProfileByName(d.cfg.Profile); !ok {
		return fmt.Errorf("desk: there is no check profile %q", d.cfg.Profile)
	}
	account, err := d.setting(ctx, "account-id", func() string { return firstOf(d.cfg.AccountID, d.digits(12)) })
	if err != nil {
		return err
	}
	if d.cfg.AccountID != "" && d.cfg.AccountID != account {
		return fmt.Errorf("desk: these data are account %s's, not %s's; an account cannot be renamed: use another data folder and database", account, d.cfg.AccountID)
	}
	d.cfg.AccountID = account
	region, err := d.setting(ctx, "region", func() string { return d.cfg.Region })
	if err != nil {
		return err
	}
	if d.cfg.Region != region {
		return fmt.Errorf("desk: these data are of the Region %s, not %s: use another data folder and database", region, d.cfg.Region)
	}
	return d.pair(ctx)
}

// pair marks the data folder as the database's. Without it a folder of images beside an empty database would be swept clean.
func (d *Desk) pair(ctx context.Context) error {
	id, err := d.setting(ctx, "data-id", func() string { return d.random(lowerDigits, 20) })
	if err != nil {
		return err
	}
	mark, err := os.ReadFile(d.file("id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("desk: %w", err)
	}
	if string(mark) == id {
		return nil
	}
	// They may become a pair as long as neither has anything that the other would miss.
	n, err := d.db.NewSelect().Model((*snapshotRecord)(nil)).Count(ctx)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	for _, dir := range []string{"stored"} {
		es, err := os.ReadDir(d.file(dir))
		if err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		n += int64(len(es))
	}
	if n > 0 {
		return fmt.Errorf("desk: the data folder %s and the database do not belong together: one of them is another installation's", d.cfg.DataDir)
	}
	made := d.file("id.new")
	if err := os.WriteFile(made, []byte(id), 0o600); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	if err := os.Rename(made, d.file("id")); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	return nil
}
