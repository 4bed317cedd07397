package s3

import (
	"context"
	"errors"
	"slices"
)

// Buckets is the built-in Store and, beside it, buckets of another endpoint. A bucket that the store has is the store's.
type Buckets struct {
	*Store
	Other *External
	// Names are the other endpoint's buckets that are read; none: all that the store does not have. Let the store keep listed
	// names free ([StoreOptions].Reserved).
	Names []string
}

var _ Source = Buckets{}

// source is where a bucket is. What is nowhere is refused by the store, with NoSuchBucket.
func (b Buckets) source(bucket string) Source {
	if err := b.HasBucket(bucket); errors.Is(err, ErrNoSuchBucket) && (len(b.Names) == 0 || slices.Contains(b.Names, bucket)) {
		return b.Other
	}
	return b.Store
}

// Stat implements Source.
func (b Buckets) Stat(ctx context.Context, bucket, key string) (Info, error) {
	return b.source(bucket).Stat(ctx, bucket, key)
}

// Stage implements Source.
func (b Buckets) Stage(ctx context.Context, bucket, key, dst string, progress func(done, total int64)) error {
	return b.source(bucket).Stage(ctx, bucket, key, dst, progress)
}

// Shares is Store.Shares: what comes from the other endpoint takes room.
func (b Buckets) Shares(bucket string) bool {
	own, ok := b.source(bucket).(*Store)
	return ok && own.Shares(bucket)
}
