package disktest

import (
	"cmp"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"
)

// Cost is what a piece of work took.
type Cost struct {
	Wall time.Duration
	CPU  time.Duration // the system's for it, too
	Read int64         // bytes that the host's disks had to read
}

// Measure is what do takes, which must succeed. Processor time and reads are those of whom is named, of whom there may be two:
// syscall.RUSAGE_SELF is this process, syscall.RUSAGE_CHILDREN are those that it started and that have ended.
func Measure(t testing.TB, do func() error, who ...int) Cost {
	t.Helper()
	used := func() (sum Cost) {
		for _, w := range who {
			var u syscall.Rusage
			if err := syscall.Getrusage(w, &u); err != nil {
				t.Fatal(err)
			}
			sum.CPU += time.Duration(u.Utime.Nano() + u.Stime.Nano())
			sum.Read += u.Inblock * 512 // getrusage(2) counts blocks of 512 bytes, whatever the disk
		}
		return sum
	}
	begun, before := time.Now(), used()
	err := do()
	took, after := time.Since(begun), used()
	if err != nil {
		t.Fatal(err)
	}
	return Cost{took, after.CPU - before.CPU, after.Read - before.Read}
}

// Median is that of each measure by itself, of one run at least.
func Median(runs []Cost) Cost {
	return Cost{
		median(runs, func(c Cost) time.Duration { return c.Wall }),
		median(runs, func(c Cost) time.Duration { return c.CPU }),
		median(runs, func(c Cost) int64 { return c.Read }),
	}
}

func median[V cmp.Ordered](runs []Cost, of func(Cost) V) V {
	var all []V
	for _, c := range runs {
		all = append(all, of(c))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// Judge reports a ratio as the benchmark's metric unit. Of a bar, the most that the ratio may be, it logs whether it was held; 0 is none.
func Judge(b *testing.B, unit string, ratio, bar float64) {
	b.Helper()
	b.ReportMetric(ratio, unit)
	if bar > 0 {
		b.Logf("%s, bar %.3f: %.3f, %s", unit, bar, ratio, Held(ratio <= bar))
	}
}

// Held is the word for a bar.
func Held(held bool) string {
	if held {
		return "held"
	}
	return "MISSED"
}

// Forget has the host drop what it has in memory of a file, once all of it is on the disk.
func Forget(t testing.TB, path string) {
	t.Helper()
	// GNU dd drops the whole file when it is asked to copy nothing to it without the cache (coreutils, "dd invocation", nocache).
	if out, err := exec.CommandContext(t.Context(), "dd", "if=/dev/null", "of="+path, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none").CombinedOutput(); err != nil {
		t.Fatalf("dd: %v: %s", err, out)
	}
}
