package check

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// tableTime is how long the whole table may take to judge a machine whose facts are there.
const tableTime = 5 * time.Millisecond

// TestTableTime holds the table to its time, on a fit machine and on one of which nothing is known. The best of the runs in five seconds counts:
// what else the computer does is not the table's.
func TestTableTime(t *testing.T) {
	for _, c := range []struct {
		name  string
		facts *Facts
		most  time.Duration
	}{
		{"fit", Collect(context.Background(), fit(t)), tableTime},
		{"unknown", &Facts{}, tableTime},
		// Nobody has machines like these; a hostile one must not take long either.
		{"2000 adapters", adapters(t, maxAdapters), 5 * tableTime},
		{"20000 programs", programs(t, maxPrograms), 5 * tableTime},
	} {
		best := time.Hour
		for end := time.Now().Add(5 * time.Second); best > c.most && time.Now().Before(end); {
			start := time.Now()
			Run(c.facts, Options{})
			best = min(best, time.Since(start))
		}
		if best > c.most {
			t.Errorf("%s: the table takes %v, more than %v", c.name, best, c.most)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	f := Collect(context.Background(), fit(b))
	for b.Loop() {
		Run(f, Options{})
	}
}

func BenchmarkCollect(b *testing.B) {
	m := fit(b)
	for b.Loop() {
		Collect(context.Background(), m)
	}
}

// adapters are the facts of a machine with n adapters that have fixed addresses.
func adapters(t testing.TB, n int) *Facts {
	f := Collect(context.Background(), fit(t))
	one := Adapter{ID: nic, Name: "Ethernet0", Installed: true, Addresses: []string{"10.0.0.5"}, From: slices.Clone(f.Adapters.From)}
	f.Adapters.Value = slices.Repeat([]Adapter{one}, n)
	return f
}

// BenchmarkFixes is the dearest machine to judge: every adapter that is read has fixed addresses.
func BenchmarkFixes(b *testing.B) {
	f := adapters(b, maxAdapters)
	for b.Loop() {
		Run(f, Options{})
	}
}

// programs are the facts of a machine whose every program of n is one that must not be there.
func programs(t testing.TB, n int) *Facts {
	f := Collect(context.Background(), fit(t))
	f.Programs.Value = nil
	for i := range n {
		f.Programs.Value = append(f.Programs.Value, Program{Key: "{90160000-0011-0000-1000-0000000FF1CE}", Name: fmt.Sprint("VMware Tools ", i), From: said("a program")})
	}
	return f
}
