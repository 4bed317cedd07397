package desk

import (
	"errors"
	"testing"

	"berth/internal/awsapi"
)

func TestAccessKeysThatCannotBe(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"", "AKIANONE", "AKIA\x00", "AKIA\xff", "AKIA' OR ''='", "akia"} {
		if k, err := f.AccessKey(t.Context(), id); !errors.Is(err, awsapi.ErrNoSuchKey) {
			t.Errorf("access key %q: %v, %v", id, k.ID, err)
		}
	}
}
