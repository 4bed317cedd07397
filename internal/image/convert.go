package image

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"berth/internal/disk"
)

// Limits of one conversion. qemu-img needs a few hundred MiB of address space for the largest grain tables; the CPU time is
// for a disk of 16 TiB at a slow 200 MiB/s and a factor of safety.
const (
	convertAddressSpace = 8 << 30 // bytes
	convertCPUSeconds   = 48 * 3600
)

// drivers are QEMU's names for the formats that this package's disks come in.
var drivers = map[string]string{"RAW": "raw", "VMDK": "vmdk", "VHD": "vpc", "VHDX": "vhdx", "QCOW2": "qcow2"}

// Convert writes the upload's i-th disk as a standalone qcow2 at target, which appears there whole or not at all. progress is
// told the percentage done; an error from it ends the conversion with that error. It returns the disk's [Digest]. A file that is
// at target already is that of an earlier call.
//
// qemu-img does the copying. It runs on a file whose every reference to another file package disk has refused already, with
// the format named, without network, and in a sandbox (bubblewrap) where only that file and the output are to be seen.
func (u *Upload) Convert(ctx context.Context, i int, target string, progress func(percent float64) error) (digest string, err error) {
	if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
		err = u.convert(ctx, i, target, progress)
		if err != nil {
			return "", err
		}
	} else if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	return DigestFile(ctx, target)
}

func (u *Upload) convert(ctx context.Context, i int, target string, progress func(percent float64) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work, err := os.MkdirTemp(filepath.Dir(target), ".convert-")
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(work)
	d, path := u.Disks[i], u.files[u.From[i]].Path
	if len(u.files) > 1 { // its bytes may be in several files
		path = filepath.Join(work, "disk.raw")
		if err := disk.CopyFile(ctx, path, d, false, nil); err != nil {
			return failureOf(err)
		}
		d = disk.Disk{Format: "RAW", Length: d.Size(), Image: d.Image}
	}
	source, err := sourceNode(d, "/in/disk")
	if err != nil {
		return err
	}
	in, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	out, err := filepath.Abs(work)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	cmd := sandboxed(ctx, in, out, "qemu-img", "convert", "-p", "-t", "writeback", "-O", "qcow2", source, "/out/disk.qcow2")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("image: starting qemu-img in its sandbox (bwrap, prlimit and qemu-img must be installed): %w", err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Split(percentages)
	for lines.Scan() {
		p, err := strconv.ParseFloat(lines.Text(), 64)
		if err != nil {
			continue
		}
		if err := progress(p); err != nil {
			cancel(err)
			break
		}
	}
	err = cmd.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) && strings.HasPrefix(stderr.String(), "qemu-img:") && !strings.Contains(stderr.String(), "No space left") {
		// It said no to this disk, and would again. (Killed, short of space, or a sandbox that cannot be made: that passes.)
		return &Failure{"ClientError: Disk validation failed [Unsupported " + u.Disks[i].Format + " File Format: " + strings.TrimSpace(stderr.String()) + "]"}
	}
	if err != nil {
		return fmt.Errorf("image: qemu-img convert: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return u.keep(i, filepath.Join(work, "disk.qcow2"), target)
}

// keep checks what was made, flushes it and moves it to its place.
func (u *Upload) keep(i int, made, target string) error {
	c, err := Open(File{Path: made, Format: "QCOW2"})
	if err != nil {
		return fmt.Errorf("image: reading the converted disk: %w", err)
	}
	size := c.Disks[0].Size()
	c.Close()
	if want := u.Disks[i].Size(); size != want {
		return fmt.Errorf("image: the converted disk has %d bytes, the upload's has %d", size, want)
	}
	f, err := os.OpenFile(made, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	err = errors.Join(f.Sync(), f.Chmod(0o400), f.Close()) // an image's bytes never change again
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := os.Rename(made, target); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer dir.Close()
	return dir.Sync()
}

// sourceNode is QEMU's description of the disk: its driver over the part of the file where it lies (a disk in an OVA is
// read in place), with nothing left to be probed or followed.
func sourceNode(d disk.Disk, path string) (string, error) {
	driver, ok := drivers[d.Format]
	if !ok {
		return "", fmt.Errorf("image: no QEMU driver for format %q", d.Format)
	}
	file := map[string]any{"driver": "file", "filename": path, "locking": "off", "read-only": true}
	part := map[string]any{"driver": "raw", "offset": d.Offset, "size": d.Length, "file": file, "read-only": true}
	node := map[string]any{"driver": driver, "file": part, "read-only": true}
	switch driver {
	case "raw": // a raw disk is that part itself; its length is a multiple of the sector size, or QEMU would round it
		node = part
	case "qcow2":
		node["backing"] = nil
	case "vpc":
		// The footer has two sizes, and its creator decides which one the guest saw: package disk knows. QEMU is made to take
		// the larger one, and cut to that.
		node["force_size_calc"] = "current_size"
		node = map[string]any{"driver": "raw", "size": d.Size(), "file": node, "read-only": true}
	}
	b, err := json.Marshal(node)
	return "json:" + string(b), err
}

// sandboxed is a command that sees its programs, the file in read-only at /in/disk and the folder out at /out; nothing
// else of this host, no network, no environment, and no way to outlive us.
func sandboxed(ctx context.Context, in, out string, argv ...string) *exec.Cmd {
	args := []string{
		"--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin",
		"--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
		"--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind-try", "/etc/alternatives", "/etc/alternatives",
		"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
		"--ro-bind", in, "/in/disk", "--bind", out, "/out", "--",
		"prlimit", fmt.Sprintf("--as=%d", convertAddressSpace), fmt.Sprintf("--cpu=%d", convertCPUSeconds), "--core=0", "--",
	}
	return exec.CommandContext(ctx, "bwrap", append(args, argv...)...)
}

// CheckSandbox tells whether this host can run qemu-img in its sandbox, and what to do if it cannot.
func CheckSandbox(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "berth-sandbox-")
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(dir)
	if out, err := sandboxed(ctx, os.DevNull, dir, "qemu-img", "--version").CombinedOutput(); err != nil {
		return fmt.Errorf("image: qemu-img cannot be run in a sandbox on this host: %w: %s (on Debian: apt-get install bubblewrap qemu-utils; in a container, allow it to make namespaces)", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// percentages splits qemu-img's progress, "    (12.34/100%)\r", into its numbers.
func percentages(data []byte, atEOF bool) (advance int, token []byte, err error) {
	open := bytes.IndexByte(data, '(')
	end := bytes.Index(data, []byte("/100%)"))
	switch {
	case open >= 0 && end > open:
		return end + len("/100%)"), data[open+1 : end], nil
	case atEOF:
		return len(data), nil, nil
	}
	return 0, nil, nil
}
