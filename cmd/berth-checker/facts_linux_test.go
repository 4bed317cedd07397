package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"berth/internal/phony"
	"berth/internal/phony/phonytest"
)

// notInWine are the facts that Wine has no answer to, or only its own: it has no disks, no firmware and no Security Center, and bears
// the name of the computer that it runs on.
var notInWine = []string{"Running", "HostName", "Firmware", "Disks", "SystemDisk", "SystemVolume", "AntiVirus"}

// fact is a check.Known of any type.
type fact struct {
	Value json.RawMessage
	Why   string
}

func factsOf(t *testing.T, b []byte) map[string]fact {
	t.Helper()
	var f map[string]fact
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatalf("%v: %.200s", err, b)
	}
	return f
}

// plain is a value without where its parts were read.
func plain(t *testing.T, b json.RawMessage) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var strip func(v any)
	strip = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "From")
			for _, below := range v {
				strip(below)
			}
		case []any:
			for _, below := range v {
				strip(below)
			}
		}
	}
	strip(v)
	if list, ok := v.([]any); ok { // keys have no order of their own
		slices.SortFunc(list, func(a, b any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestFactsAreEqual: a machine answers the same when its disk is read and when it runs, as far as Wine can be it.
func TestFactsAreEqual(t *testing.T) {
	b, err := theBench()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{phony.Base, "office-installed", "dhcp-disabled", "workspaces-byol-account-disabled", "in-place-upgrade", "network-drive-of-a-user", "software-of-a-user", "win11-24h2-enterprise"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sys, _ := phonytest.Open(t, phonytest.Load(t, name))
			w := newWine(t)
			w.take(t, sys)
			var offline bytes.Buffer
			if err := printFacts(t.Context(), &offline, sys); err != nil {
				t.Fatal(err)
			}
			out, stderr, code := w.run(t, b.checker, "--facts")
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			want, got := factsOf(t, offline.Bytes()), factsOf(t, []byte(out))
			for _, name := range slices.Sorted(maps.Keys(want)) {
				same := plain(t, want[name].Value) == plain(t, got[name].Value) && (want[name].Why == "") == (got[name].Why == "")
				if excused := slices.Contains(notInWine, name); same == excused {
					t.Errorf("excused %v: %s is %s %s on the disk, and running %s %s", excused, name, plain(t, want[name].Value), want[name].Why, plain(t, got[name].Value), got[name].Why)
				}
			}
		})
	}
}

// TestNothingIsRecorded: the program that is given away reads no record.
func TestNothingIsRecorded(t *testing.T) {
	b, err := theBench()
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{b.checker: false, b.recorded: true} {
		program, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(program, []byte("BERTH_CHECKER_RECORD")) != want {
			t.Errorf("%s knows of records: %v", file, !want)
		}
	}
}
