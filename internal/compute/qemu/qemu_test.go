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

const patience = 20 * time.Second // for one step on a machine that is busy with other things

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
		if err := p.kill(context.Background()); err != nil {
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
