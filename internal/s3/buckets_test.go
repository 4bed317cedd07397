package s3

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Two places at once: each bucket is read where it is, the store's own first, and of the other endpoint only what is listed.
func TestBucketsOfTwoPlaces(t *testing.T) {
	ctx := t.Context()
	here, there := openDoor(t), openDoor(t)
	own, other := noise(1, 1000), noise(2, 2000)
	for _, b := range []string{"here", "both"} {
		here.put(t, here.bucket(t, b), "k", own)
	}
	for _, b := range []string{"there", "both", "unlisted"} {
		there.put(t, there.bucket(t, b), "k", other)
	}
	for _, c := range []struct {
		names  []string
		bucket string
		want   []byte // nil: there is no such bucket
	}{
		{nil, "here", own}, {nil, "there", other}, {nil, "both", own}, {nil, "unlisted", other}, {nil, "nowhere", nil},
		{[]string{"there", "both"}, "here", own}, {[]string{"there", "both"}, "there", other}, {[]string{"there", "both"}, "both", own}, {[]string{"there"}, "unlisted", nil}, {[]string{"there"}, "nowhere", nil},
	} {
		b := Buckets{Store: here.store, Other: external(there.url), Names: c.names}
		info, err := b.Stat(ctx, c.bucket, "k")
		dst := filepath.Join(t.TempDir(), "disk")
		staged := b.Stage(ctx, c.bucket, "k", dst, nil)
		if c.want == nil {
			if !errors.Is(err, ErrNoSuchBucket) || !errors.Is(staged, ErrNoSuchBucket) {
				t.Errorf("%v, %s: %v, %v", c.names, c.bucket, err, staged)
			}
			continue
		}
		got, readErr := os.ReadFile(dst)
		if err != nil || staged != nil || readErr != nil || info.Size != int64(len(c.want)) || !bytes.Equal(got, c.want) {
			t.Errorf("%v, %s: %+v, %v, %v, %v", c.names, c.bucket, info, err, staged, readErr)
		}
		if b.Shares(c.bucket) != bytes.Equal(c.want, own) {
			t.Errorf("%v, %s: shares %t", c.names, c.bucket, b.Shares(c.bucket))
		}
	}
}

// A bucket of the name of another endpoint's would be read in its place: it cannot be made.
func TestReservedNamesOfBuckets(t *testing.T) {
	s := must2(Open(StoreOptions{Dir: t.TempDir(), Reserved: []string{"there"}}))(t)
	defer s.Close()
	if err := s.CreateBucket("there"); !errors.Is(err, ErrBucketExists) {
		t.Errorf("a reserved name: %v", err)
	}
	if err := s.CreateBucket("here"); err != nil {
		t.Errorf("another name: %v", err)
	}
}
