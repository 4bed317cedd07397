package desk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/uptrace/bun"
)

// settingRecord is one fact about the account as a whole.
type settingRecord struct {
	bun.BaseModel `bun:"table:settings"`
	Key           string `bun:"key,pk"`
	Value         string `bun:"value"`
}

// setting reads a setting; where there is none yet it is made (once, whoever asks first) or, with make nil, is "".
func (d *Desk) setting(ctx context.Context, key string, make func() string) (string, error) {
	var r settingRecord
	err := d.db.NewSelect().Model(&r).Where("key = ?", key).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		if make == nil {
			return "", nil
		}
		r = settingRecord{Key: key, Value: make()}
		if _, err := d.db.NewInsert().Model(&r).On("CONFLICT (key) DO NOTHING").Exec(ctx); err != nil {
			return "", fmt.Errorf("desk: setting %s: %w", key, err)
		}
		err = d.db.NewSelect().Model(&r).Where("key = ?", key).Scan(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("desk: setting %s: %w", key, err)
	}
	return r.Value, nil
}

func (d *Desk) setSetting(ctx context.Context, key, value string) error {
	r := settingRecord{Key: key, Value: value}
	if _, err := d.db.NewInsert().Model(&r).On("CONFLICT (key) DO UPDATE SET value = EXCLUDED.value").Exec(ctx); err != nil {
		return fmt.Errorf("desk: setting %s: %w", key, err)
	}
	return nil
}
