package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/testdata/hostile"
)

// TestHostileUploads gives every file that was made to harm to the service, over the network, as an import of a machine and as one of
// a disk: nothing of it becomes an image that is taken for a sound one, the service opens no file but its own, starts no
// program and speaks to nobody, and it lives on.
func TestHostileUploads(t *testing.T) {
	files, err := hostile.Files()
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t)
	s.bucket(t, "exports")
	seen := s.traced(t)
	dir := t.TempDir()
	type upload struct {
		hostile.File
		image, snapshot task
	}
	var uploads []*upload
	for i, f := range files {
		data, err := f.Data()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, f.Name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprintf("%d/%s", i, f.Name)
		s.put(t, "exports", key, path)
		u := &upload{File: f}
		var params, disk []string
		if f.Format != "" && !strings.EqualFold(f.Format, "gzip") {
			params = []string{"DiskContainer.1.Format", f.Format}
			if !strings.HasPrefix(strings.ToUpper(f.Format), "OV") {
				disk = []string{"DiskContainer.Format", f.Format}
			}
		}
		if u.image, err = s.importDisk(t, "exports", key, params...); err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		if err := s.ec2(t, &u.snapshot, "ImportSnapshot", append([]string{"DiskContainer.Url", "s3://exports/" + key}, disk...)...); err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		uploads = append(uploads, u)
	}
	for _, u := range uploads {
		all := s.imported(t, u.image.ID)
		last := all[len(all)-1]
		if last.Status != "deleted" || !strings.HasPrefix(last.StatusMessage, "ClientError: ") || last.ImageID != "" {
			t.Errorf("%s, which berth check ends with %d, became %s: %s", u.Name, u.Check, last.Status, last.StatusMessage)
		}
		disk := s.snapshotTask(t, u.snapshot.ID).Detail
		if disk.Status == "error" && !strings.HasPrefix(disk.StatusMessage, "ClientError: ") {
			t.Errorf("%s as a disk: %s: %s", u.Name, disk.Status, disk.StatusMessage)
		}
		for _, said := range []string{last.StatusMessage, disk.StatusMessage} {
			if strings.Contains(said, "root:") || strings.Contains(said, s.data) {
				t.Errorf("%s: the message shows this host: %s", u.Name, said)
			}
		}
	}
	own := regexp.MustCompile(`^/(sys|proc)/|^/etc/localtime$|^/usr/share/zoneinfo/|^/dev/(null|urandom)$`)
	opened := 0
	for _, call := range seen() {
		name, rest, _ := strings.Cut(call, "(")
		if strings.HasPrefix(name, "exec") {
			t.Errorf("a program was started: %s", call)
		}
		if strings.HasPrefix(name, "connect") {
			t.Errorf("somebody was called: %s", call)
		}
		if m := regexp.MustCompile(`^([^"]*)"([^"]*)"`).FindStringSubmatch(rest); m != nil && strings.HasPrefix(name, "open") {
			opened++
			path := m[2]
			// What is opened in a folder of the service's own has a relative name.
			inside := strings.HasPrefix(path, s.data+"/") || path == s.data || !strings.HasPrefix(path, "/") && !strings.HasPrefix(m[1], "AT_FDCWD") && !strings.Contains(path, "..")
			if !inside && !own.MatchString(path) {
				t.Errorf("a file of the host was opened: %s", call)
			}
		}
	}
	if opened < len(uploads) {
		t.Errorf("%d files were seen being opened, in %d imports", opened, len(uploads))
	}
}

// traced watches what the service opens, starts and calls, until the function that it returns is called, which tells.
func (s *service) traced(t *testing.T) func() []string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "calls")
	cmd := exec.Command("strace", "-f", "-qq", "-s", "4096", "-e", "signal=none", "-e", "trace=open,openat,openat2,creat,execve,execveat,connect", "-o", log, "-p", fmt.Sprint(s.pid(t)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	if err := cmd.Start(); err != nil {
		t.Fatalf("strace is needed (scripts/setup test installs it): %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			cmd.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended already
			<-ended
		}
	}
	t.Cleanup(stop)
	eventually(t, "strace watches", func() (bool, error) {
		if err := s.berth(t, "ListStoredImages", map[string]any{}, nil); err != nil {
			return false, err
		}
		b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(s.pid(t)), "status"))
		return err == nil && !strings.Contains(string(b), "TracerPid:\t0"), err
	})
	return func() []string {
		time.Sleep(100 * time.Millisecond)
		stop()
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		var calls []string
		for line := range strings.Lines(string(b)) {
			_, call, _ := strings.Cut(strings.TrimSpace(line), " ")
			if call = strings.TrimSpace(call); !strings.HasPrefix(call, "<... ") {
				calls = append(calls, call)
			}
		}
		return calls
	}
}

// pid is the service's process.
func (s *service) pid(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if args := strings.Split(string(b), "\x00"); err == nil && len(args) > 3 && args[1] == "serve" && args[3] == s.data {
			var pid int
			if _, err := fmt.Sscan(strings.Split(f, "/")[2], &pid); err == nil {
				return pid
			}
		}
	}
	t.Fatal("the service's process was not found")
	return 0
}
