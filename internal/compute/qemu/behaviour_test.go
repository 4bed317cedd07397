package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/compute"
)

func TestGuestThatIgnoresTheButton(t *testing.T) {
	h := newHost(t)
	h.GraceTime = 300 * time.Millisecond
	d := h.mustOpen()
	h.image(deafGuest)
	m := machineOf("deaf")
	h.ensure(m)
	waitForBoots(t, h, m.ID, 1)
	m.Running = false
	begin := time.Now()
	got, err := d.Ensure(t.Context(), m)
	if took := time.Since(begin); err != nil || got.State != compute.Off || took < h.GraceTime {
		t.Errorf("off = %+v, %v, after %s; want it off, and not before %s", got, err, took, h.GraceTime)
	}
	if now := h.started(m.ID); now != "" {
		t.Errorf("it runs still, as %s", now)
	}
}

// TestWhileOneCallIsAtWork: others see what the machine was before, and are not kept waiting.
func TestWhileOneCallIsAtWork(t *testing.T) {
	h := newHost(t)
	h.GraceTime = patience
	d := h.mustOpen()
	h.image(deafGuest)
	m := machineOf("deaf")
	was := h.ensure(m)
	waitForBoots(t, h, m.ID, 1)
	m.Running = false
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := d.Ensure(ctx, m)
		done <- err
	}()
	machine, err := d.machine(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		machine.mu.Lock()
		busy := machine.busy
		machine.mu.Unlock()
		if busy {
			break
		}
		if time.Now().After(end) {
			t.Fatal("Ensure is not at work")
		}
	}
	if got, err := d.Status(t.Context(), m.ID); err != nil || got != was {
		t.Errorf("Status = %+v, %v, want %+v", got, err, was)
	}
	if _, err := d.Screenshot(t.Context(), m.ID); err != nil {
		t.Error(err)
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := d.Ensure(short, m); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an Ensure that waited for the other: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the Ensure that was called off: %v", err)
	}
	if got, err := d.Status(t.Context(), m.ID); err != nil || got.State != compute.Running {
		t.Errorf("off was called off, and Status = %+v, %v", got, err)
	}
	// Close does not wait for a grace time either.
	go func() {
		_, err := d.Ensure(t.Context(), m)
		done <- err
	}()
	begin := time.Now()
	for !func() bool { machine.mu.Lock(); defer machine.mu.Unlock(); return machine.busy }() {
		time.Sleep(time.Millisecond)
	}
	d.Close()
	if err := <-done; !errors.Is(err, errClosed) {
		t.Errorf("Ensure in a driver that is closed: %v", err)
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("Close took %s", took)
	}
}

// TestHangingQEMU: one that does not answer is told as failed, left alone by Ensure, and killed by turning the machine off.
func TestHangingQEMU(t *testing.T) {
	h := newHost(t)
	d := h.mustOpen()
	h.image(countingGuest)
	m := machineOf("hanging")
	h.ensure(m)
	p := h.processes()[m.ID]
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d.times.answer, d.times.quit = 300*time.Millisecond, 300*time.Millisecond
	if got, err := d.Status(t.Context(), m.ID); err != nil || got.State != compute.Failed || !strings.Contains(got.Why, "does not answer") {
		t.Errorf("Status = %+v, %v", got, err)
	}
	if got, err := d.Ensure(t.Context(), m); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("Ensure = %+v, %v", got, err)
	}
	if now := h.processes()[m.ID]; now == nil || now.pid != p.pid {
		t.Fatalf("Ensure ended a QEMU that was only slow")
	}
	m.Running = false
	if got, err := d.Ensure(t.Context(), m); err != nil || got.State != compute.Off {
		t.Errorf("off = %+v, %v", got, err)
	}
	if now := h.started(m.ID); now != "" {
		t.Errorf("it is there still: %s", now)
	}
}

func TestGuestTurnsItselfOff(t *testing.T) {
	h := newHost(t)
	h.mustOpen()
	h.image(countingGuest)
	m := machineOf("independent")
	h.ensure(m)
	waitForBoots(t, h, m.ID, 1)
	machine, err := h.driver.machine(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := machine.command(t.Context(), "system_powerdown", nil); err != nil {
		t.Fatal(err)
	}
	// Whoever looks just then finds a QEMU that does not answer any more.
	waitForStatus(t, h, m.ID, func(s compute.Status) bool {
		return s.State == compute.Failed && strings.Contains(s.Why, "turned itself off")
	})
}

// TestPausedGuest: a guest that the host has stopped goes on, without losing what it has in memory.
func TestPausedGuest(t *testing.T) {
	h := newHost(t)
	h.mustOpen()
	h.image(countingGuest)
	m := machineOf("paused")
	h.ensure(m)
	waitForBoots(t, h, m.ID, 1)
	started := h.started(m.ID)
	machine, err := h.driver.machine(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := machine.command(t.Context(), "stop", nil); err != nil {
		t.Fatal(err)
	}
	got, err := h.driver.Status(t.Context(), m.ID)
	if err != nil || got.State != compute.Failed || !strings.Contains(got.Why, "paused") {
		t.Errorf("Status = %+v, %v", got, err)
	}
	if got := h.ensure(m); got.State != compute.Running {
		t.Errorf("Ensure = %+v", got)
	}
	if now := h.started(m.ID); now != started {
		t.Errorf("it runs as %s, was %s", now, started)
	}
	m.Boots = 2
	h.ensure(m)
	waitForBoots(t, h, m.ID, 2)
}

// TestDetached: nothing ties QEMU to this service but what it is meant to know.
func TestDetached(t *testing.T) {
	t.Setenv("SERVICE_SECRET", "hunter2")
	h := newHost(t)
	h.mustOpen()
	h.image(countingGuest)
	m := machineOf("detached")
	h.ensure(m)
	pid := h.processes()[m.ID].pid
	if session, err := unix.Getsid(pid); err != nil || session != pid {
		t.Errorf("QEMU, process %d, is in session %d (%v): a signal to this service's may end it", pid, session, err)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || !bytes.Contains(environ, []byte("LC_ALL=C")) || bytes.Contains(environ, []byte("SECRET")) {
		t.Errorf("QEMU has %d variables of the environment, %v: want PATH and LC_ALL alone", bytes.Count(environ, []byte{0}), err)
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/2", pid))
	if err != nil {
		t.Fatal(err)
	}
	var position, flags int64
	if _, err := fmt.Sscanf(string(info), "pos:\t%d\nflags:\t%o", &position, &flags); err != nil || flags&unix.O_APPEND == 0 {
		t.Errorf("QEMU's log is not open for appending, and cannot be emptied: %q, %v", info, err)
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(files) < 4 {
		t.Fatalf("QEMU's files: %q, %v", files, err)
	}
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && strings.HasSuffix(to, "/lock") {
			t.Errorf("QEMU holds the driver's lock")
		}
	}
	if listening := listeners(t, pid); len(listening) > 0 {
		t.Errorf("QEMU listens on the network: %q", listening)
	}
}

// listeners are the lines of /proc/net/tcp, tcp6, udp and udp6 whose socket the process has open.
func listeners(t *testing.T, pid int) (lines []string) {
	own := map[string]bool{}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.Trim(to, "socket:[]")] = true
		}
	}
	if len(own) < 2 {
		t.Errorf("QEMU has %d sockets, it should have its monitor and its display", len(own))
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if fields := strings.Fields(line); len(fields) > 9 && own[fields[9]] {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// TestLog: a log that has grown too long is emptied while QEMU goes on writing to it, and a short one is kept.
func TestLog(t *testing.T) {
	h := newHost(t)
	d := h.mustOpen()
	h.image(countingGuest)
	m := machineOf("noisy")
	h.ensure(m)
	path := filepath.Join(h.Dir, "machines", m.ID, logFile)
	size := func() int64 {
		if _, err := d.Status(t.Context(), m.ID); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for _, length := range []int64{maxLog, maxLog + 1} {
		if err := os.Truncate(path, length); err != nil {
			t.Fatal(err)
		}
		if got := size(); (got == length) != (length <= maxLog) {
			t.Errorf("a log of %d bytes has %d", length, got)
		}
	}
	if err := syscall.Kill(h.processes()[m.ID].pid, syscall.SIGTERM); err != nil { // of which QEMU complains in its log
		t.Fatal(err)
	}
	got := waitForStatus(t, h, m.ID, func(s compute.Status) bool { return s.State == compute.Failed })
	if n := size(); n == 0 || n > 1000 || !strings.Contains(got.Why, "terminating on signal 15") {
		t.Errorf("after it was emptied, the log has %d bytes; Why: %s", n, got.Why)
	}
}

// TestLongPath: unix sockets have names of 107 bytes at most, folders of 4095.
func TestLongPath(t *testing.T) {
	h := newHost(t)
	h.Dir = filepath.Join(h.Dir, strings.Repeat("long, and with a comma/", 10))
	h.mustOpen()
	h.image(countingGuest)
	m := machineOf(strings.Repeat("m", 64))
	h.ensure(m)
	waitForBoots(t, h, m.ID, 1)
	picture, err := h.driver.Screenshot(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
		t.Error(err)
	}
	conn, err := h.driver.Display(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
		t.Error(err)
	}
}

func TestOneDriverAtATime(t *testing.T) {
	h := newHost(t)
	first := h.mustOpen()
	if _, err := open(h.Config); err == nil || !strings.Contains(err.Error(), "another driver") {
		t.Errorf("a second driver on the same folder: %v", err)
	}
	first.Close()
	h.mustOpen()
}

// TestOnlyOurProcesses: neither a pid file nor a process that looks a little like a QEMU of ours gets anyone killed.
func TestOnlyOurProcesses(t *testing.T) {
	h := newHost(t)
	folder := filepath.Join(h.Dir, "machines", "ghost")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	strangers := []*exec.Cmd{
		exec.Command("sleep", "60"),
		exec.Command("sh", "-c", "sleep 60; :", "-name", "guest=ghost,", "-pidfile", filepath.Join(folder, pidFile), "-more"),
		exec.Command("sh", "-c", "sleep 60; :", filepath.Join(folder, pidFile)),
	}
	for _, s := range strangers {
		s.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		defer s.Wait()
		defer syscall.Kill(-s.Process.Pid, syscall.SIGKILL)
		stale := &process{pid: s.Process.Pid, folder: folder} // the number was a QEMU's once
		if stale.alive() {
			t.Errorf("%v is taken for a QEMU", s.Args)
		}
		if err := stale.kill(t.Context(), patience); err != nil {
			t.Error(err)
		}
	}
	h.mustOpen()
	for _, s := range strangers {
		if err := s.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("%v was killed: %v", s.Args, err)
		}
		if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Process.Pid)); err != nil || bytes.Contains(cmdline, []byte(") Z ")) {
			t.Errorf("%v was killed: %s, %v", s.Args, cmdline, err)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	good := newHost(t).Config
	old := filepath.Join(t.TempDir(), "old-qemu")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho QEMU emulator version 6.2.0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for says, spoil := range map[string]func(*Config){
		"Config.Log":        func(c *Config) { c.Log = nil },
		"Config.Dir":        func(c *Config) { c.Dir = "" },
		"accelerator":       func(c *Config) { c.Accelerator = "xen" },
		"executable file":   func(c *Config) { c.QEMU = "qemu-system-none" },
		"qemu-img-none":     func(c *Config) { c.QEMUImg = "qemu-img-none" },
		"7.1 or later":      func(c *Config) { c.QEMU = old },
		"only one is given": func(c *Config) { c.FirmwareCode = "/nowhere" },
	} {
		c := good
		spoil(&c)
		if d, err := New(c); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error that says %q, got %v", says, err)
			if err == nil {
				d.Close()
			}
		}
	}
}

// TestUEFI needs OVMF, as Debian's package ovmf has it.
func TestUEFI(t *testing.T) {
	h := newHost(t)
	d := h.mustOpen()
	h.image(countingGuest)
	m := machineOf("uefi")
	m.Firmware, m.MemoryMiB = compute.UEFI, 256
	has := false
	for _, f := range d.Capabilities().Firmwares {
		has = has || f == compute.UEFI
	}
	if !has {
		if _, err := d.Ensure(t.Context(), m); !errors.Is(err, compute.ErrInvalid) {
			t.Errorf("UEFI without OVMF: %v", err)
		}
		t.Fatal("OVMF is needed (scripts/setup test installs it)")
	}
	h.ensure(m)
	// OVMF runs in 64-bit mode, which neither SeaBIOS nor the boot sector enters, and writes its variables while it starts.
	machine, err := d.machine(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(d.FirmwareVars)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		registers, err := human(t.Context(), machine, "info registers")
		if err != nil {
			t.Fatal(err)
		}
		vars, err := os.ReadFile(filepath.Join(h.Dir, "machines", m.ID, firmwareFile))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(registers, "CS64") && len(vars) == len(first) && !bytes.Equal(vars, first) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("OVMF does not start, its variables are as at first: %t; registers:\n%s", bytes.Equal(vars, first), registers)
		}
	}
	if now, err := os.ReadFile(d.FirmwareVars); err != nil || !bytes.Equal(now, first) {
		t.Errorf("the firmware's own variables were written to (%v)", err)
	}
}
