package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"berth/internal/compute"
	"berth/internal/disk"
)

const partSuffix = ".part" // of a file that is still being made

func (d *driver) imagePath(id string) string { return filepath.Join(d.images, id+".qcow2") }

// basePath is where what is under an image is. An id has no dot, so that it is no other image's.
func (d *driver) basePath(id string) string { return filepath.Join(d.images, id+".base.qcow2") }

// baseOf is the file under an image; "" when there is none.
func (d *driver) baseOf(id string) string {
	if _, err := os.Stat(d.basePath(id)); err != nil {
		return "" // QEMU tells if it should be there: the image alone does not boot
	}
	return d.basePath(id)
}

func (d *driver) EnsureImage(ctx context.Context, id, path string, base ...string) error {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := compute.CheckID(id); err != nil {
		return err
	}
	size, err := compute.ImageSizes(path, base...)
	if err != nil {
		return err
	}
	ours := d.imagePath(id)
	if known, err := compute.ImageSize(ours); err == nil {
		if known != size {
			return fmt.Errorf("%w: image %s is already known with %d bytes, not %d", compute.ErrInvalid, id, known, size)
		}
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// What is under it comes first: an image that is there is whole. A crash between the two leaves a file of a name that only
	// this image uses.
	for _, b := range base {
		if err := os.Remove(d.basePath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := linkOrCopy(ctx, b, d.basePath(id)); err != nil {
			return err
		}
	}
	return linkOrCopy(ctx, path, ours)
}

// linkOrCopy makes the file to, whole or not at all, with the same bytes as from: another name of it where both are on one
// file system (its mode is then left alone, it being the caller's), else a copy. Two at once do no harm.
func linkOrCopy(ctx context.Context, from, to string) error {
	from, err := filepath.EvalSymlinks(from) // a link to a symbolic link would follow its later changes
	if err != nil {
		return err
	}
	if err := os.Link(from, to); err == nil || errors.Is(err, os.ErrExist) {
		return syncDir(filepath.Dir(to))
	}
	return copyFile(ctx, from, to, 0o400)
}

// copyFile makes the file to, whole or not at all, as a copy of from.
func copyFile(ctx context.Context, from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	part, err := os.CreateTemp(filepath.Dir(to), "*"+partSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(part.Name()) // fails once it is renamed
	defer part.Close()
	stop := context.AfterFunc(ctx, func() { in.Close() }) // ends the copying
	if _, err := io.Copy(part, in); !stop() {
		return context.Cause(ctx)
	} else if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	if err := part.Chmod(mode); err != nil {
		return err
	}
	return commit(part.Name(), to)
}

// commit gives a finished file its name, for good: what is there after a crash is whole.
func commit(part, name string) error {
	f, err := os.Open(part)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(part, name)
	}
	if err == nil {
		err = syncDir(filepath.Dir(name))
	}
	return err
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// removePartImages removes what a crash left of copies.
func (d *driver) removePartImages() error {
	parts, err := filepath.Glob(filepath.Join(d.images, "*"+partSuffix))
	for _, part := range parts {
		err = errors.Join(err, os.Remove(part))
	}
	return err
}

func (d *driver) DeleteImage(ctx context.Context, id string) error {
	_, leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := compute.CheckID(id); err != nil {
		return err
	}
	d.mu.Lock() // no machine is claimed meanwhile
	defer d.mu.Unlock()
	for _, m := range d.machines {
		if m.usesImage(id) {
			return fmt.Errorf("%w: image %s, by machine %s", compute.ErrInUse, id, m.id)
		}
	}
	for _, path := range []string{d.imagePath(id), d.basePath(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return syncDir(d.images)
}

// volume is one of a machine's volumes: how it is, and how it is wanted.
type volume struct {
	name, file string
	made       bool
	want       int64 // bytes; 0: none
	setMade    func(*record)
}

func (m *machine) volumes(want compute.Machine) []volume {
	r, _ := m.known()
	return []volume{
		{"root", rootVolume, r.RootMade, int64(want.RootGiB) * compute.GiB, func(r *record) { r.RootMade = true }},
		{"user", userVolume, r.UserMade, int64(want.UserGiB) * compute.GiB, func(r *record) { r.UserMade = true }},
	}
}

// checkVolumes refuses volumes smaller than they are, before anything is done.
func (m *machine) checkVolumes(want compute.Machine) error {
	for _, v := range m.volumes(want) {
		if !v.made {
			continue
		}
		size, err := volumeSize(m.path(v.file))
		if err != nil {
			return fmt.Errorf("machine %s: its %s volume, made before: %w", m.id, v.name, err)
		}
		if v.want < size {
			return fmt.Errorf("%w: machine %s: volumes only grow: %s from %d to %d bytes", compute.ErrInvalid, m.id, v.name, size, v.want)
		}
	}
	return nil
}

// ensureVolumes makes what is missing and grows what is too small.
func (m *machine) ensureVolumes(ctx context.Context, want compute.Machine) error {
	for _, v := range m.volumes(want) {
		if v.want == 0 {
			continue
		}
		path := m.path(v.file)
		size, err := volumeSize(path)
		if errors.Is(err, os.ErrNotExist) && !v.made {
			if err := createVolume(path, v.want); err != nil {
				return err
			}
			size, err = v.want, nil
		}
		if err != nil {
			return err
		}
		if err := m.update(v.setMade); err != nil {
			return err
		}
		if size < v.want {
			if err := m.grow(ctx, v); err != nil {
				return fmt.Errorf("machine %s: grow its %s volume from %d to %d bytes: %w", m.id, v.name, size, v.want, err)
			}
		}
	}
	if r, _ := m.known(); want.Firmware == compute.UEFI && !r.FirmwareMade {
		if err := copyFile(ctx, m.driver.FirmwareVars, m.path(firmwareFile), 0o600); err != nil {
			return err
		}
		return m.update(func(r *record) { r.FirmwareMade = true })
	}
	return nil
}

// grow grows a volume: by the QEMU that has it open, else by qemu-img.
func (m *machine) grow(ctx context.Context, v volume) error {
	if _, p := m.known(); p != nil && p.alive() {
		answer, err := m.command(ctx, "query-named-block-nodes", map[string]any{"flat": true})
		if err != nil {
			return err
		}
		var nodes []struct {
			Name string `json:"node-name"`
		}
		if err := json.Unmarshal(answer, &nodes); err != nil {
			return fmt.Errorf("query-named-block-nodes: %w", err)
		}
		for _, n := range nodes {
			if n.Name == v.name {
				_, err := m.command(ctx, "block_resize", map[string]any{"node-name": v.name, "size": v.want})
				return err
			}
		}
	}
	return m.driver.qemuImg(ctx, "resize", "-q", "-f", "qcow2", "--", m.path(v.file), fmt.Sprint(v.want))
}

// createVolume makes an empty volume of that size in bytes, whole or not at all. What it is a copy-on-write clone of does not
// stand in it: arguments tells QEMU.
func createVolume(path string, size int64) error {
	part, err := os.OpenFile(path+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(disk.WriteEmpty(part, size), part.Close()); err != nil {
		return err
	}
	return commit(part.Name(), path)
}

// qemuImg runs qemu-img on volumes of our own making.
func (d *driver) qemuImg(ctx context.Context, arguments ...string) error {
	cmd := exec.CommandContext(ctx, d.QEMUImg, arguments...)
	cmd.Env = environment()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		words := printable(output.Bytes()[:min(output.Len(), 1000)])
		return fmt.Errorf("qemu-img %s: %w: %s", strings.Join(arguments, " "), err, words)
	}
	return nil
}

// volumeSize is a volume's size in bytes, from its qcow2 header (compute.ImageSize shows it); also while QEMU runs with it.
func volumeSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	header := make([]byte, 32)
	if _, err := f.ReadAt(header, 0); err != nil {
		return 0, fmt.Errorf("volume %s: header: %w", path, err)
	}
	size := binary.BigEndian.Uint64(header[24:])
	if string(header[:4]) != "QFI\xfb" || size > uint64(compute.MaxVolumeGiB*compute.GiB) {
		return 0, fmt.Errorf("volume %s: no qcow2 header of a volume of ours", path)
	}
	return int64(size), nil
}
