package qemu

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/internal/compute"
)

// crashWanted is what the service that is killed was making.
var crashWanted = compute.Machine{
	ID: "crashed", Image: "sealed", RootGiB: 1, UserGiB: 1, VCPUs: 1, MemoryMiB: 32, Firmware: compute.BIOS, Running: true, Boots: 3,
}

// TestMain is also the service that a crash kills: see TestCrash.
func TestMain(m *testing.M) {
	if dir := os.Getenv("QEMU_TEST_SERVICE"); dir != "" {
		fmt.Println(service(dir))
		os.Exit(1) // it is killed before
	}
	os.Exit(m.Run())
}

// service ensures the machine, with a QEMU that may stop it on the way: see TestCrash.
func service(dir string) error {
	d, err := open(Config{
		Dir: dir, Log: slog.New(slog.DiscardHandler), Accelerator: "tcg",
		QEMU: os.Getenv("QEMU_TEST_QEMU"),
	})
	if err != nil {
		return err
	}
	if _, err = d.Ensure(context.Background(), crashWanted); err != nil {
		return err
	}
	fmt.Println("stopped at the end")
	select {}
}

// TestCrash kills the service at several points of an Ensure. The next one's Ensure must end the same each time: one machine, the
// volumes whole, one QEMU.
func TestCrash(t *testing.T) {
	image := sealedImage(t, countingGuest)
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		qemu     string // shell
		file     string // of the machine's folder, and the system call about its part that strace kills the service at
		call     string
		survives bool // a QEMU is there before the next service looks
	}{
		{"before the root volume", "", rootVolume, "openat", false},
		{"after the root volume, before its name", "", rootVolume, "renameat", false},
		{"in the middle of the user volume", "", userVolume, "ftruncate", false},
		{"volumes made, QEMU not started", `case "$*" in *-pidfile*) kill -9 $PPID; exit; esac`, "", "", false},
		{"QEMU starting", `case "$*" in *-pidfile*) kill -9 $PPID; esac`, "", "", true},
		{"all done", "", "", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			d, err := h.open()
			if err != nil {
				t.Fatal(err)
			}
			if err := d.EnsureImage(t.Context(), "sealed", image); err != nil {
				t.Fatal(err)
			}
			d.Close()

			script := filepath.Join(t.TempDir(), "qemu")
			if err := os.WriteFile(script, []byte("#!/bin/sh\n"+c.qemu+"\nexec "+qemu+` "$@"`+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, self)
			if c.call != "" {
				folder, err := filepath.EvalSymlinks(h.Dir)
				if err != nil {
					t.Fatal(err)
				}
				// strace ends as what it follows does.
				cmd = exec.CommandContext(ctx, "strace", "-f", "-qq", "-o", filepath.Join(t.TempDir(), "calls"),
					"-P", filepath.Join(folder, "machines", crashWanted.ID, c.file+partSuffix), "-e", "trace="+c.call, "-e", "inject="+c.call+":signal=KILL", self)
			}
			cmd.Env = append(os.Environ(), "QEMU_TEST_SERVICE="+h.Dir, "QEMU_TEST_QEMU="+script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			if line != "" && (c.call != "" || line != "stopped at the end\n") {
				t.Errorf("the service said %q", line)
			}
			cmd.Process.Kill()
			cmd.Wait()
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
				t.Fatalf("the service was not killed: %s", cmd.ProcessState)
			}
			if ctx.Err() != nil {
				t.Fatalf("the service did not get to where it is killed")
			}
			before := h.started(crashWanted.ID)
			for c.survives && before == "" && ctx.Err() == nil { // the script is about to become QEMU
				time.Sleep(time.Millisecond)
				before = h.started(crashWanted.ID)
			}
			if survived := before != ""; survived != c.survives {
				t.Fatalf("QEMU after the crash: %q", before)
			}

			d, err = h.open()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				got, err := d.Ensure(ctx, crashWanted)
				if want := (compute.Status{ID: crashWanted.ID, State: compute.Running, Boots: 3}); err != nil || got != want {
					t.Fatalf("Ensure = %+v, %v, want %+v", got, err, want)
				}
			}
			if now := h.started(crashWanted.ID); c.survives && now != before {
				t.Errorf("it runs as %s, was %s", now, before)
			}
			waitForBoots(t, h, crashWanted.ID, 1)
			for _, volume := range []string{rootVolume, userVolume} {
				path := filepath.Join(h.Dir, "machines", crashWanted.ID, volume)
				if out, err := exec.CommandContext(ctx, img, "check", "-U", "-f", "qcow2", path).CombinedOutput(); err != nil {
					t.Errorf("qemu-img check %s: %v: %s", volume, err, out)
				}
			}
			if list, err := d.List(ctx); err != nil || len(list) != 1 {
				t.Errorf("List = %+v, %v", list, err)
			}
			if err := d.Delete(ctx, crashWanted.ID); err != nil {
				t.Fatal(err)
			}
			if left := h.leftovers(crashWanted.ID); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestDeleteCrash: a service that is killed while it deletes a machine leaves a folder without a record, and perhaps a QEMU.
func TestDeleteCrash(t *testing.T) {
	h := newHost(t)
	d := h.mustOpen()
	h.image(countingGuest)
	m := machineOf("half")
	h.ensure(m)
	waitForBoots(t, h, m.ID, 1)
	started := h.started(m.ID)
	d.Close()
	if err := os.Remove(filepath.Join(h.Dir, "machines", m.ID, recordFile)); err != nil {
		t.Fatal(err)
	}
	d = h.mustOpen()
	if list, err := d.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("List = %+v, %v", list, err)
	}
	if now := h.started(m.ID); now != "" {
		t.Errorf("it runs still, as %s, was %s", now, started)
	}
	if left := h.leftovers(m.ID); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestFolderGone: a QEMU whose machine's folder is gone is ended.
func TestFolderGone(t *testing.T) {
	h := newHost(t)
	h.mustOpen()
	h.image(countingGuest)
	m := machineOf("orphan")
	h.ensure(m)
	h.driver.Close()
	if err := os.RemoveAll(filepath.Join(h.Dir, "machines", m.ID)); err != nil {
		t.Fatal(err)
	}
	if h.started(m.ID) == "" {
		t.Fatal("it does not run any more: nothing is shown")
	}
	h.mustOpen()
	if now := h.started(m.ID); now != "" {
		t.Errorf("it runs still, as %s", now)
	}
}

// TestVolumeLost: a volume that was made and is missing is not made anew.
func TestVolumeLost(t *testing.T) {
	h := newHost(t)
	d := h.mustOpen()
	h.image(countingGuest)
	m := machineOf("robbed")
	m.Running, m.UserGiB = false, 1
	h.ensure(m)
	for _, volume := range []string{userVolume, rootVolume} {
		path := filepath.Join(h.Dir, "machines", m.ID, volume)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		m.Running = !m.Running
		if got, err := d.Ensure(t.Context(), m); err == nil || !strings.Contains(err.Error(), volume) {
			t.Errorf("without its %s, Ensure = %+v, %v", volume, got, err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s was made anew (%v)", volume, err)
		}
	}
	h.delete(m.ID)
}

// TestRecordDamaged: the machine is listed as failed, its QEMU and its volumes are left alone, and it can be deleted.
func TestRecordDamaged(t *testing.T) {
	h := newHost(t)
	h.mustOpen()
	h.image(countingGuest)
	m := machineOf("damaged")
	h.ensure(m)
	started := h.started(m.ID)
	h.driver.Close()
	if err := os.WriteFile(filepath.Join(h.Dir, "machines", m.ID, recordFile), []byte(`{"Image":`), 0o600); err != nil {
		t.Fatal(err)
	}
	d := h.mustOpen()
	list, err := d.List(t.Context())
	if err != nil || len(list) != 1 || list[0].State != compute.Failed || !strings.Contains(list[0].Why, recordFile) {
		t.Errorf("List = %+v, %v", list, err)
	}
	if _, err := d.Ensure(t.Context(), m); err == nil {
		t.Error("Ensure over a damaged record succeeds")
	}
	if now := h.started(m.ID); now != started {
		t.Errorf("it runs as %q, was %q", now, started)
	}
	h.delete(m.ID)
	if left := h.leftovers(m.ID); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
