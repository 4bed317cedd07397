package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
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
	digest, err := Digest(t.Context(), e.Disks[0], nil)
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
	const wantKey = "b6ba4a6e337a499d79c5292ebd2ef840d0957e0d47fe8ac4dcca4e563ea1cfe3"
	if digest != wantDigest || key != wantKey {
		t.Errorf("the digest is %s, the checkpoint's key %s: when the digest changes, checkpointVersion must, too", digest, key)
	}
}

// A checkpoint is worth nothing without what it speaks of: who is told to remove a part may leave what lies beside it.
func TestACopyIsNotGoneOnWithInAPartThatIsNotThere(t *testing.T) {
	guest := guestDisk(30<<20, 56)
	e, err := Open(bytes.NewReader(guest), Options{Format: "RAW"})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, e)
	for name, c := range map[string]struct {
		harm    func(part string) error
		resumed bool
	}{
		"as it was": {func(string) error { return nil }, true},
		"gone":      {os.Remove, false},
		"empty":     {func(part string) error { return os.Truncate(part, 0) }, false},
		"cut short": {func(part string) error { return os.Truncate(part, 64<<10) }, false},
		// Of the first one, which is not waited for.
		"the checkpoint lost by a power cut": {func(part string) error { return os.Truncate(notesOf(part), 0) }, false},
	} {
		for form, of := range map[Form]string{Raw: "raw", Plain: "plain", Zstd: "zstd"} {
			t.Run(name+", "+of, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "out")
				ctx, cancel := context.WithCancel(t.Context())
				opt := CopyOptions{Form: form, Checkpoint: "source", Resume: true, Every: time.Microsecond}
				opt.Progress = func(done, _ int64) {
					if done > 20<<20 {
						cancel()
					}
				}
				if _, err := CopyFile(ctx, path, e.Disks[0], opt); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if err := c.harm(path + ".part"); err != nil {
					t.Fatal(err)
				}
				opt.Progress = nil
				done, err := CopyFile(t.Context(), path, e.Disks[0], opt)
				if err != nil || (done.Resumed > 0) != c.resumed {
					t.Fatalf("gone on from %d: %v", done.Resumed, err)
				}
				back, err := OpenFile(path, Options{Format: map[bool]string{true: "RAW"}[form == Raw]})
				if err != nil {
					t.Fatal(err)
				}
				closeAfter(t, back)
				got := make([]byte, len(guest))
				if _, err := back.Disks[0].ReadAt(got, 0); err != nil || !bytes.Equal(got, guest) {
					t.Errorf("the copy is not the disk: %v", err)
				}
			})
		}
	}
}
