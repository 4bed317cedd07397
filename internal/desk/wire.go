package desk

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"
	"github.com/uptrace/bun"
)

// invalid is the refusal of a parameter's value.
func invalid(format string, a ...any) error {
	return &types.InvalidParameterValuesException{Message: aws.String(fmt.Sprintf(format, a...))}
}

// refused is a refusal that has a code and a text and no type of its own: all of EC2's, and those of single requests in a batch.
func refused(code, format string, a ...any) error {
	return &smithy.GenericAPIError{Code: code, Message: fmt.Sprintf(format, a...), Fault: smithy.FaultClient}
}

// optional is a string member that is left out when empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// paginate cuts one page out of all: at most limit items (or most, where limit is 0 or above it), after the one that the
// token names by its key. A token of an item that is gone is refused: the caller starts again.
func paginate[T any](all []T, limit int32, most int, token *string, key func(T) string) ([]T, *string, error) {
	if limit <= 0 || int(limit) > most {
		limit = int32(most)
	}
	if token != nil {
		after, err := base64.RawURLEncoding.DecodeString(*token)
		found := -1
		for i := range all {
			if err == nil && key(all[i]) == string(after) {
				found = i
			}
		}
		if found < 0 {
			return nil, nil, invalid("NextToken is not valid.")
		}
		all = all[found+1:]
	}
	if len(all) <= int(limit) {
		return all, nil, nil
	}
	all = all[:limit]
	return all, aws.String(base64.RawURLEncoding.EncodeToString([]byte(key(all[limit-1])))), nil
}

// recordOf reads the record that has an id in a column; sql.ErrNoRows (wrapped) when there is none. What it is comes into the error.
func recordOf[T any](ctx context.Context, db bun.IDB, what, column, id string) (*T, error) {
	var r T
	if err := db.NewSelect().Model(&r).Where("? = ?", bun.Ident(column), id).Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %s %s: %w", what, id, err)
	}
	return &r, nil
}

// insertNew inserts a record, and tells whether it is new: false when there is one already with the same value in a column
// that is unique.
func insertNew(ctx context.Context, db bun.IDB, record any, column string) (bool, error) {
	res, err := db.NewInsert().Model(record).On("CONFLICT (?) DO NOTHING", bun.Ident(column)).Exec(ctx)
	if err != nil {
		return false, fmt.Errorf("desk: %w", err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// hold locks the row of a table that has an id, until the transaction ends, and tells whether there is one. An update that
// changes nothing is a lock that both databases have.
func hold(ctx context.Context, tx bun.Tx, model any, column, id string) (bool, error) {
	res, err := tx.NewUpdate().Model(model).Set("? = ?", bun.Ident(column), bun.Ident(column)).Where("? = ?", bun.Ident(column), id).Exec(ctx)
	if err != nil {
		return false, fmt.Errorf("desk: %w", err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// sleepUntil waits for a time by the given clock, or for ctx.
func sleepUntil(ctx context.Context, t time.Time, now func() time.Time) error {
	for d := t.Sub(now()); d > 0; d = t.Sub(now()) {
		timer := time.NewTimer(min(d, time.Second))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
	return nil
}

// cutURL splits a database URL at its scheme.
func cutURL(u string) (scheme, rest string, ok bool) { return strings.Cut(u, ":") }
