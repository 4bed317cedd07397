package hostile

import (
	"runtime/metrics"
	"testing"
	"time"
)

// The bounds of what one hostile input may cost.
const (
	// memory and perByte: 64 MiB, and 16 bytes for each byte of the input.
	memory  = 64 << 20
	perByte = 16
	// processor is far above what any input takes (a second or so under the race detector), and far below forever. It is the process'
	// processor time, to which a busy machine does not add.
	processor = 10 * time.Second
)

// Bounded runs f, which reads a hostile input of n bytes, and fails t where it took more memory or processor time than any input may
// make it take. What f allocates in all counts, which is more than what it holds at once. Nothing else may run in the process.
func Bounded(t testing.TB, n int64, f func()) {
	t.Helper()
	allocated, began := heap(), spent(t)
	f()
	if used := heap() - allocated; used > memory+perByte*uint64(n) {
		t.Errorf("%d bytes of memory for an input of %d", used, n)
	}
	if took := spent(t) - began; took > processor {
		t.Errorf("%v of processor time for an input of %d bytes", took, n)
	}
}

// heap is how many bytes were allocated since the process began.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
