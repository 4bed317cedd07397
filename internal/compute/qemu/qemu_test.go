package qemu

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/internal/compute"
	"berth/internal/compute/computetest"
)

const patience = 40 * time.Second // for one step on a machine that is busy with other things

// host is a folder for drivers, one after the other.
type host struct {
	t testing.TB
	Config
	driver *driver // the last one opened
}

func newHost(t testing.TB) *host {
	h := &host{t: t, Config: Config{
		Dir:         filepath.Join(t.TempDir(), "data"),
		Log:         slog.New(slog.NewTextHandler(t.Output(), nil)),
		Accelerator: "tcg",
		GraceTime:   10 * time.Second,
	}}
	t.Cleanup(h.endAll)
	return h
}

func (h *host) open() (compute.Driver, error) {
	d, err := open(h.Config)
	if err != nil {
		return nil, err
	}
	h.driver = d
	return d, nil
}

// endAll ends what a failed test has left running.
func (h *host) endAll() {
	if h.driver != nil {
		h.driver.Close()
	}
	for _, p := range h.processes() {
		h.t.Errorf("left running: %s, process %d", p.folder, p.pid)
		if err := p.kill(context.Background(), patience); err != nil {
			h.t.Error(err)
		}
	}
}

func (h *host) processes() map[string]*process {
	dir, err := filepath.EvalSymlinks(h.Dir)
	if err != nil {
		return nil
	}
	found, err := findProcesses(filepath.Join(dir, "machines"))
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

func (h *host) kill(id string) error {
	p := h.processes()[id]
	if p == nil {
		return fmt.Errorf("%s does not run", id)
	}
	return syscall.Kill(p.pid, syscall.SIGKILL)
}

func (h *host) started(id string) string {
	if p := h.processes()[id]; p != nil {
		return fmt.Sprint("process ", p.pid)
	}
	return ""
}

func (h *host) volumes(id string) (map[string]int64, error) {
	sizes := map[string]int64{}
	for name, file := range map[string]string{"root": rootVolume, "user": userVolume} {
		size, err := volumeSize(filepath.Join(h.Dir, "machines", id, file))
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		sizes[name] = size
	}
	return sizes, nil
}

// leftovers are the files below the driver's folder whose path names the machine, and any process that mentions its folder.
func (h *host) leftovers(id string) (left []string) {
	filepath.WalkDir(h.Dir, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(strings.TrimPrefix(path, h.Dir), id) {
			left = append(left, path)
		}
		return nil
	})
	folder := []byte(filepath.Join("data", "machines", id) + "/")
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range processes {
		if cmdline, err := os.ReadFile(p); err == nil && bytes.Contains(cmdline, append([]byte(h.Dir[:len(h.Dir)-len("data")]), folder...)) {
			left = append(left, p)
		}
	}
	return left
}

func TestContract(t *testing.T) {
	image := sealedImage(t, countingGuest)
	computetest.Run(t, func(t *testing.T) computetest.Fixture {
		h := newHost(t)
		return computetest.Fixture{
			Open:    h.open,
			Image:   image,
			Kill:    h.kill,
			Started: h.started,
			GuestBoots: func(id string) (int, error) {
				return guestBoots(t.Context(), h.driver, id)
			},
			Volumes:   h.volumes,
			Leftovers: h.leftovers,
			Patience:  patience,
		}
	})
}

func (h *host) mustOpen() *driver {
	h.t.Helper()
	if _, err := h.open(); err != nil {
		h.t.Fatal(err)
	}
	return h.driver
}

// image makes a sealed image with that guest known as "sealed".
func (h *host) image(guest string) {
	h.t.Helper()
	if err := h.driver.EnsureImage(h.t.Context(), "sealed", sealedImage(h.t, guest)); err != nil {
		h.t.Fatal(err)
	}
}

// machineOf is a small machine, running on its first boot.
func machineOf(id string) compute.Machine {
	return compute.Machine{ID: id, Image: "sealed", RootGiB: 1, VCPUs: 1, MemoryMiB: 32, Firmware: compute.BIOS, Running: true, Boots: 1}
}

// ensure must succeed; the machine is deleted at the test's end.
func (h *host) ensure(m compute.Machine) compute.Status {
	h.t.Helper()
	h.t.Cleanup(func() { h.delete(m.ID) })
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	got, err := h.driver.Ensure(ctx, m)
	if err != nil {
		h.t.Fatalf("Ensure(%+v): %v", m, err)
	}
	return got
}

// delete deletes the machine, with a driver opened for it where there is none.
func (h *host) delete(id string) {
	h.t.Helper()
	h.driver.mu.Lock()
	closed := h.driver.closed
	h.driver.mu.Unlock()
	if closed {
		h.mustOpen()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.driver.Delete(ctx, id); err != nil {
		h.t.Errorf("Delete(%s): %v", id, err)
	}
}

func waitForBoots(t testing.TB, h *host, id string, want int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, err := guestBoots(t.Context(), h.driver, id)
		if err == nil && got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: the guest has counted %d boots (%v), want %d", id, got, err, want)
		}
	}
}

// waitForStatus waits until the status is as wanted.
func waitForStatus(t testing.TB, h *host, id string, ok func(compute.Status) bool) compute.Status {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, err := h.driver.Status(t.Context(), id)
		if err == nil && ok(got) {
			return got
		}
		if time.Now().After(end) {
			t.Fatalf("%s: Status = %+v, %v", id, got, err)
		}
	}
}
