package image

import (
	"path/filepath"
	"slices"
	"testing"

	"berth/internal/phony"
)

// A conversion that was done already, by a process that died right after it, tells the same as one that is done now: what was left
// out, and why nothing was.
func TestAConversionTellsTheSameAgain(t *testing.T) {
	free, _ := ntfsDisk(t, nil)
	machine, err := phony.Load("volume-dirty")
	if err != nil {
		t.Fatal(err)
	}
	dirty := filepath.Join(t.TempDir(), "dirty.vmdk")
	if err := machine.Export(t.Context(), dirty, "vmdk"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path     string
		all      bool
		out, why bool // something is left out; it is said of a volume why nothing of it is
	}{{free, false, true, false}, {free, true, false, false}, {dirty, false, true, true}} {
		u, err := Open(File{Path: c.path})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		target := filepath.Join(t.TempDir(), "disk.qcow2")
		var made [2]Converted
		for i := range made {
			if made[i], err = u.Convert(t.Context(), 0, target, Layouts[DefaultLayout], c.all, func(float64) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		first, again := made[0], made[1]
		if (first.LeftOut > 0) != c.out || (len(first.Kept) > 0) != c.why || first.Resumed != 0 {
			t.Errorf("%s, all %t: %+v", filepath.Base(c.path), c.all, first)
		}
		if again.Digest != first.Digest || again.LeftOut != first.LeftOut || !slices.Equal(again.Kept, first.Kept) || again.Resumed != u.Disks[0].Size() {
			t.Errorf("%s, all %t: %+v, then %+v", filepath.Base(c.path), c.all, first, again)
		}
	}
}
