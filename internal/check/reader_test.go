package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"berth/internal/windows"
)

func TestHiveStates(t *testing.T) {
	for _, c := range []struct {
		st   windows.HiveState
		want string
	}{
		{windows.HiveState{}, "clean"},
		{windows.HiveState{Dirty: true, Replayed: 12, Why: "12 entries were applied"}, "replayed from its logs (12 entries)"},
		{windows.HiveState{Dirty: true}, "not closed cleanly, with nothing in its logs to replay"},
		{windows.HiveState{Dirty: true, Stale: true, Why: "its logs\nare missing"}, `stale: its logs\x0aare missing`},
		{windows.HiveState{Dirty: true, Stale: true}, "stale: it was not closed cleanly and its logs cannot be used"},
		{windows.HiveState{Damaged: "bin at 0x3000"}, "damaged: bin at 0x3000"},
		{windows.HiveState{Dirty: true, Replayed: 1, Damaged: "bin at 0x3000"}, "replayed from its logs (1 entries); damaged: bin at 0x3000"},
		{windows.HiveState{Err: fmt.Errorf("no file: %w", fs.ErrNotExist)}, "missing"},
		{windows.HiveState{Err: errors.New("regf: bad checksum")}, "unreadable: regf: bad checksum"},
	} {
		m := fit(t)
		m.states = map[windows.Hive]windows.HiveState{windows.Software: c.st}
		r := &reader{sys: m}
		if got := r.at(windows.Software, `A\B`); got.HiveState != c.want || got.Text != `SOFTWARE\A\B` || got.Hive != windows.Software || got.Key != `A\B` {
			t.Errorf("%+v is %+v, want %q", c.st, got, c.want)
		}
		// Damage that is found while reading shows from then on.
		if c.st.Err == nil && c.st.Damaged == "" && !c.st.Stale {
			st := c.st
			st.Damaged = "cell at 0x20"
			m.states[windows.Software] = st
			if got := r.at(windows.Software, `A`).HiveState; got == c.want {
				t.Errorf("damage does not show: %q", got)
			}
			m.states[windows.Software] = c.st
			r = &reader{sys: m, running: true}
			if got := r.at(windows.Software, `A`).HiveState; got != "in use" {
				t.Errorf("the hive of a running Windows is %q", got)
			}
		}
	}
}

// TestLastWrite: times that JSON cannot tell are left out.
func TestLastWrite(t *testing.T) {
	for _, c := range []struct {
		at   time.Time
		kept bool
	}{
		{time.Date(2020, 10, 5, 18, 20, 7, 0, time.FixedZone("", 7200)), true},
		{time.Date(1601, 1, 1, 0, 0, 0, 1, time.UTC), true},
		{time.Date(60056, 5, 28, 5, 36, 10, 0, time.UTC), false}, // the greatest FILETIME
		{time.Time{}, false},
	} {
		m := fit(t)
		m.root.Key(`SYSTEM\ControlSet001\Services\mountmgr`).LastWrite = c.at
		f := find(t, Run(Collect(t.Context(), m), Options{}), "AutoMountDisabled")
		got := f.Evidence[0].LastWrite
		if _, err := json.Marshal(f); err != nil {
			t.Errorf("%v: %v", c.at, err)
		}
		if c.kept && !(got.Equal(c.at) && got.Location() == time.UTC) || !c.kept && !got.IsZero() {
			t.Errorf("%v became %v", c.at, got)
		}
	}
}
