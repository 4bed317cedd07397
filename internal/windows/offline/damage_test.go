package offline

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows"
)

// failing is a disk of which a range cannot be read.
type failing struct {
	disk.Image
	start, end int64
}

var errDisk = errors.New("the disk is bad")

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if off < f.end && off+int64(len(b)) > f.start {
		return 0, errDisk
	}
	return f.Image.ReadAt(b, off)
}

// TestDiskErrors: what the disk does not give is an error with its cause, wherever it happens.
func TestDiskErrors(t *testing.T) {
	m, disks := machine(t, phony.Base)
	env := envelope(t, disks[0])
	good := env.Disks[0].Image
	c := m.Partitions[1]
	for name, where := range map[string][2]int64{
		"partition table":          {0, 512},
		"boot sector":              {c.Start, c.Start + 512},
		"all of C:":                {c.Start, c.Start + c.Length},
		"all but C:'s boot sector": {c.Start + 512, c.Start + c.Length},
	} {
		env.Disks[0].Image = failing{good, where[0], where[1]}
		_, err := Open(env)
		var u *UnreadableError
		if !errors.As(err, &u) || !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nothing but the boot partition is lost: Windows is there, and its boot configuration unknown.
	boot := m.Partitions[0]
	env.Disks[0].Image = failing{good, boot.Start, boot.Start + boot.Length}
	systems, err := Open(env)
	if err != nil {
		t.Fatal(err)
	}
	got := systems[0].Machine()
	if p := got.Disks[0].Partitions[0]; !errors.Is(p.Err, errDisk) || p.Role != "" || p.Volume != nil || got.Firmware != "" {
		t.Errorf("%+v, firmware %q", p, got.Firmware)
	}
	if st := systems[0].Hive(windows.BCD); st.Err == nil || errors.Is(st.Err, fs.ErrNotExist) {
		t.Errorf("boot configuration: %+v", st)
	}
}

func TestWarnings(t *testing.T) {
	_, disks := machine(t, "incompatible-partitioning")
	if w := only(t, disks...).Warnings(); len(w) != 0 {
		t.Errorf("%q", w)
	}
	put(t, disks[0], 512, make([]byte, 512)) // the header of the first GPT
	if w := only(t, disks...).Warnings(); len(w) == 0 {
		t.Error("that the backup GPT was used is not said")
	}
}

func TestBrokenTable(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	d := byteDisk{f, 4 << 20}
	if err := f.Truncate(d.size); err != nil {
		t.Fatal(err)
	}
	put(t, d, 446+4, []byte{0xEE}) // a protective MBR without a GPT
	put(t, d, 510, []byte{0x55, 0xAA})
	_, err = Open(envelope(t, d))
	var u *UnreadableError
	var r *disk.Refusal
	if !errors.As(err, &u) || u.Partition != 0 || !errors.As(err, &r) {
		t.Error(err)
	}
	// LUKS over the whole disk.
	put(t, d, 0, append([]byte("LUKS\xba\xbe"), make([]byte, 600)...))
	_, err = Open(envelope(t, d))
	var e *EncryptedError
	if !errors.As(err, &e) || e.By != "LUKS" || e.Partition != 0 {
		t.Error(err)
	}
}

// TestOverlappingPartitions: the first of two partitions that share bytes is looked into, the other one is said to overlap it.
func TestOverlappingPartitions(t *testing.T) {
	m, disks := machine(t, phony.Base)
	row := make([]byte, 16)
	if _, err := disks[0].ReadAt(row, 446+16); err != nil { // C:
		t.Fatal(err)
	}
	put(t, disks[0], 446+32, row)
	s := only(t, disks...)
	parts := s.Machine().Disks[0].Partitions
	if len(parts) != 3 || parts[1].Err != nil || parts[1].Role != windows.RoleSystem || parts[2].Err == nil || !strings.Contains(parts[2].Err.Error(), "overlaps partition 2") || parts[2].Volume != nil {
		t.Errorf("%+v", parts)
	}
	// The last sector of one is the first of the next.
	binary.LittleEndian.PutUint32(row[8:], uint32((m.Partitions[1].Start+m.Partitions[1].Length)/512-1))
	binary.LittleEndian.PutUint32(row[12:], 1)
	put(t, disks[0], 446+32, row)
	if p := only(t, disks...).Machine().Disks[0].Partitions[2]; p.Err == nil {
		t.Errorf("%+v", p)
	}
}
