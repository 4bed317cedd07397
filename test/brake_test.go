package test

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// brake makes conversions slow, from outside: as long as a disk that is being made has more bytes than it may have by now, the
// whole service is stopped (SIGSTOP).
type brake struct {
	mu      sync.Mutex
	data    string
	process *os.Process
	allowed func(since time.Duration) int64 // bytes of the disk, by the time since its conversion began in this process; nil: no brake
}

// on puts the brake on a process.
func (b *brake) on(data string, p *os.Process, allowed func(time.Duration) int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process != nil {
		b.process.Signal(syscall.SIGCONT) //nolint:errcheck // it may have ended
	}
	b.data, b.process, b.allowed = data, p, allowed
}

// off lets go of it.
func (b *brake) off() { b.on("", nil, nil) }

// newBrake makes a brake that watches until the test ends.
func newBrake(t *testing.T) *brake {
	b, ended, done := &brake{}, make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(ended); <-done; b.off() })
	go func() {
		defer close(done)
		var of *os.Process
		var begun time.Time
		var before int64
		for {
			select {
			case <-ended:
				return
			case <-time.After(2 * time.Millisecond):
			}
			b.mu.Lock()
			written, ok := b.written()
			switch {
			case !ok:
				of = nil
				if b.process != nil { // it may have ended the disk between the last look and the signal
					b.process.Signal(syscall.SIGCONT) //nolint:errcheck // it may have ended
				}
			case of != b.process:
				of, begun, before = b.process, time.Now(), written
			}
			if ok {
				signal := syscall.SIGCONT
				if written > before+b.allowed(time.Since(begun)) {
					signal = syscall.SIGSTOP
				}
				b.process.Signal(signal) //nolint:errcheck // it may have ended
			}
			b.mu.Unlock()
		}
	}()
	return b
}

// written is how many bytes a disk has that is being made; not ok when none is, or the brake is off.
func (b *brake) written() (bytes int64, ok bool) {
	if b.allowed == nil {
		return 0, false
	}
	parts, _ := fs.Glob(os.DirFS(b.data), "imports/*/disk-*.qcow2.part") // the pattern is right
	for _, p := range parts {
		var st syscall.Stat_t
		if syscall.Stat(filepath.Join(b.data, p), &st) == nil {
			return st.Blocks * 512, true
		}
	}
	return 0, false
}

// bulky is an export, a compressed QCOW2, of the small machine with so many bytes behind its partitions: noise, which stays as large
// as it is, or what compresses well.
func bulky(t *testing.T, bytes int, noise bool) string {
	t.Helper()
	raw, err := os.ReadFile(export(t, "small", "raw"))
	if err != nil {
		t.Fatal(err)
	}
	raw = append(raw, make([]byte, bytes)...)
	tail := raw[len(raw)-bytes:]
	if noise {
		rng := rand.NewChaCha8([32]byte{2})
		rng.Read(tail) //nolint:errcheck // it cannot fail
	} else {
		for i := range tail {
			tail[i] = byte(i>>12) | 1
		}
	}
	path := filepath.Join(t.TempDir(), "bulky")
	if err := os.WriteFile(path+".raw", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", path+".raw", path+".qcow2").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	return path + ".qcow2"
}
