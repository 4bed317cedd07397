package disk

import (
	"bytes"
	"testing"
)

// A checkpoint is of one kind of digest: whoever changes the one changes the other (checkpointVersion), so that a copy that an
// older program began is not gone on with.
func TestCheckpointsTellDigestsApart(t *testing.T) {
	guest := guestDisk(1<<20, 1)
	e, err := Open(bytes.NewReader(guest), Options{Format: "RAW"})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, e)
	digest, err := Digest(t.Context(), e.Disks[0])
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCopying(nil, e.Disks[0], CopyOptions{Checkpoint: "source", Digest: true})
	if err != nil {
		t.Fatal(err)
	}
	key, err := c.key()
	if err != nil {
		t.Fatal(err)
	}
	const wantDigest = "8096cb27da61a011ea671442ba126b4ffde3c92272d556c6018fe758e2ff2275"
	const wantKey = "81007a4674e568199c5f122fe383d5a6fb0539e71e40c5fca98bf7cf69f02c69"
	if digest != wantDigest || key != wantKey {
		t.Errorf("the digest is %s, the checkpoint's key %s: when the digest changes, checkpointVersion must, too", digest, key)
	}
}
