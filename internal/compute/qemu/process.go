package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a QEMU that belongs to a machine. The kernel's table of processes is the only record of them that counts: a file
// with a number in it may outlive what it names. A process is ours when its arguments name the machine's own pid file.
type process struct {
	pid    int
	folder string
	// exit is closed, after state was set, when a process that this driver started has ended; nil for one it found.
	exit  chan struct{}
	state *os.ProcessState
}

// pidFileOf is the pid file among a process's arguments, or "". Only a command line that begins as arguments makes it counts: one
// that merely holds such a line, a shell's or a tracer's, is not QEMU's.
func pidFileOf(cmdline []byte) string {
	line := bytes.SplitN(cmdline, []byte{0}, 6)
	if len(line) < 6 || string(line[1]) != "-name" || !bytes.HasPrefix(line[2], []byte("guest=")) || string(line[3]) != "-pidfile" {
		return ""
	}
	return string(line[4])
}

// alive says whether the process is there and still the machine's. One that this driver started is there until it was waited
// for, whatever its arguments are: for a moment after it was started it has none. One that was found has none when it has ended
// and nobody has waited for it yet.
func (p *process) alive() bool {
	if p.exit != nil {
		select {
		case <-p.exit:
			return false
		default:
			return true
		}
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
	return err == nil && pidFileOf(cmdline) == filepath.Join(p.folder, pidFile)
}

// findProcesses looks through the kernel's table for QEMUs whose pid file is in a folder below machines, by machine's id.
func findProcesses(machines string) (map[string]*process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := map[string]*process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		file := pidFileOf(cmdline)
		folder := filepath.Dir(file)
		if filepath.Base(file) == pidFile && filepath.Dir(folder) == machines {
			found[filepath.Base(folder)] = &process{pid: pid, folder: folder}
		}
	}
	return found, nil
}

// kill ends the process at once and waits until it is gone. The process is looked at through a handle (a pidfd) that cannot
// come to mean another one, so that only a QEMU of ours is ever signalled.
func (p *process) kill(ctx context.Context, limit time.Duration) error {
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return err
	}
	defer func() { _ = handle.Release() }()
	if !p.alive() {
		return nil
	}
	if err := handle.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill QEMU, process %d: %w", p.pid, err)
	}
	if !p.gone(ctx, limit) {
		return fmt.Errorf("QEMU, process %d, was killed and is still there", p.pid)
	}
	return nil
}

// gone waits until the process has ended, at most for the time given.
func (p *process) gone(ctx context.Context, limit time.Duration) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.alive() {
		select {
		case <-p.exit: // nil, and never ready, for a process that was found
			return true
		case <-tick.C:
		case <-timeout.C:
			return !p.alive()
		case <-ctx.Done():
			return !p.alive()
		}
	}
	return true
}

// start starts QEMU in the machine's folder, in a session of its own so that no signal meant for this service reaches it, and
// with nothing of this service's environment, which holds secrets.
func start(binary, folder string, arguments []string) (*process, error) {
	for _, name := range []string{monitorSocket, displaySocket, pidFile} {
		if err := os.Remove(filepath.Join(folder, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	output, err := os.OpenFile(filepath.Join(folder, logFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	cmd := exec.Command(binary, arguments...) // without a context: it outlives this service
	cmd.Dir = folder
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	p := &process{pid: cmd.Process.Pid, folder: folder, exit: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its error is in the state
		p.state = cmd.ProcessState
		close(p.exit)
	}()
	return p, nil
}

// environment is what QEMU and qemu-img are given: messages in English, and where programs are.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
}

// maxLog is what QEMU's log may grow to, in bytes. A guest can make QEMU complain as often as it likes.
const maxLog = 1 << 20

// trimLog empties a log that has grown too long. QEMU goes on at its new end, since it has the file open for appending.
func trimLog(folder string) error {
	path := filepath.Join(folder, logFile)
	if info, err := os.Stat(path); err != nil || info.Size() <= maxLog {
		return nil
	}
	return os.Truncate(path, 0)
}

// lastWords is the end of what QEMU wrote to its log, on one line, for people; at most 400 bytes.
func lastWords(folder string) string {
	f, err := os.Open(filepath.Join(folder, logFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 400
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, 2); err != nil {
			return ""
		}
	}
	b := make([]byte, most)
	n, _ := f.Read(b)
	return printable(b[:n])
}

// printable makes one line of a program's output.
func printable(b []byte) string {
	lines := strings.FieldsFunc(strings.ToValidUTF8(string(b), "?"), func(r rune) bool { return r < ' ' })
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "" })
	return strings.Join(lines, "; ")
}
