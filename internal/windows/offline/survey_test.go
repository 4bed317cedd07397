package offline

import (
	"slices"
	"testing"

	"berth/internal/disk"
	"berth/internal/windows"
)

// TestDrives: the CD drives that an export tells of are the machine's drives, and as many as it likes do not matter.
func TestDrives(t *testing.T) {
	cd := func(medium string) windows.Drive { return windows.Drive{Kind: windows.CDDrive, Medium: medium} }
	for _, c := range []struct {
		hardware disk.Hardware
		want     []windows.Drive
	}{
		{disk.Hardware{}, nil},
		{disk.Hardware{CDROMs: 2, CDImages: []string{"tools.iso"}}, []windows.Drive{cd("tools.iso"), cd("")}},
		{disk.Hardware{CDImages: []string{"a.iso", "b.iso"}}, []windows.Drive{cd("a.iso"), cd("b.iso")}},
	} {
		if got := cdDrives(c.hardware); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %+v, want %+v", c.hardware, got, c.want)
		}
	}
	if n := len(cdDrives(disk.Hardware{CDROMs: 1 << 30})); n != maxDrives {
		t.Errorf("%d drives, want %d", n, maxDrives)
	}
	_, disks := machine(t, "win10-2004-enterprise")
	env := envelope(t, disks...)
	env.Hardware.CDROMs = 1
	systems, err := Open(env)
	if err != nil {
		t.Fatal(err)
	}
	if got := systems[0].Machine().Drives; !slices.Equal(got, []windows.Drive{cd("")}) {
		t.Errorf("the machine's drives are %+v", got)
	}
}
