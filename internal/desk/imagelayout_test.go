package desk

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"berth/internal/disk"
	"berth/internal/image"
	"berth/internal/phony"
)

// Whatever the layout, an import keeps the same disk; how it is kept is as it was set when it came first.
func TestImageLayout(t *testing.T) {
	digests := map[string]bool{}
	for layout, compressed := range map[string]bool{"": image.DefaultLayout != "fast", "fast": false, "zstd": true, "compact": true} {
		f := newFixture(t, func(c *Config) { c.ImageLayout = layout })
		key := f.upload(sample(t, phony.Base, "ova"))
		kinds := func() (kinds []disk.Kind) {
			task := f.imported(key)
			if *task.Status != taskCompleted {
				t.Fatalf("%q: %s: %s", layout, *task.Status, aws.ToString(task.StatusMessage))
			}
			digest := f.digest(*task.SnapshotDetails[0].SnapshotID)
			digests[digest] = true
			env, err := disk.OpenFile(f.storedFile(digest), disk.Options{Format: "QCOW2"})
			if err != nil {
				t.Fatal(err)
			}
			defer env.Close()
			for x, err := range env.Disks[0].Extents() {
				if err != nil {
					t.Fatal(err)
				}
				kinds = append(kinds, x.Kind)
			}
			return kinds
		}
		first := kinds()
		if slices.Contains(first, disk.Compressed) != compressed || !compressed && !slices.Contains(first, disk.Data) {
			t.Errorf("layout %q holds %v", layout, first)
		}
		f.Close()
		f.cfg.ImageLayout = map[bool]string{true: "fast", false: "compact"}[compressed]
		f.open()
		if again := kinds(); !slices.Equal(again, first) {
			t.Errorf("layout %q, then %q: %v, then %v", layout, f.cfg.ImageLayout, first, again)
		}
	}
	if len(digests) != 1 {
		t.Errorf("the same disk was kept as %v", digests)
	}
}

func TestNoSuchLayout(t *testing.T) {
	d, err := New(t.Context(), Config{DataDir: t.TempDir(), ImageLayout: "raw"})
	if err == nil || !strings.Contains(err.Error(), `"raw"`) {
		t.Errorf("opened with %v, %v", d, err)
	}
}
