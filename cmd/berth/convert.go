package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"berth/internal/disk"
)

type convertCmd struct {
	File    string `arg:"" type:"existingfile" help:"An exported VM: OVA, OVF, VMDK, VHD, VHDX, QCOW2, or a raw disk, as it is or in gzip or xz. It is only read."`
	Out     string `arg:"" type:"path" help:"The raw disk to write. There must be no such file yet."`
	Disk    int    `help:"Which disk of an OVA that has several, from 1 on." placeholder:"N"`
	Format  string `help:"What the file is (${copyFormats}), where its content could be taken for something else." placeholder:"NAME"`
	Durable bool   `help:"End only when the copy has reached the disk, so that it survives a power cut."`
}

// Help is shown by berth convert --help.
func (convertCmd) Help() string {
	return `Writes the disk of an exported VM as a raw disk: the bytes that the guest saw, as every hypervisor and every tool reads them. The file is sparse: it is as long as the disk, but takes only the space of what is on it ("du" tells how much that is).

  berth convert win10.ova win10.raw
  berth convert win10-disk1.vmdk win10.raw
  berth convert server.ova data.raw --disk 2
  berth convert win10.raw.xz win10.raw

The export is found out by its content, never by its name, and is neither changed nor trusted: a disk that refers to another file is refused, but for the parts of a split VMDK and the disks of an OVF, which must lie beside it. The copy has its name only when it is whole; until then it ends in ".part".`
}

func (c convertCmd) Run(ctx context.Context) error {
	if _, err := os.Lstat(c.Out); err == nil {
		return fmt.Errorf("%s is there already, and nothing is ever written over: choose another name, or remove it", c.Out)
	}
	env, err := openExport(c.File, disk.Options{Format: strings.ToUpper(c.Format), Sequential: true})
	if err != nil {
		return err
	}
	defer env.Close()
	for _, w := range env.Warnings {
		fmt.Fprintln(os.Stderr, "berth: note:", w)
	}
	d, err := c.choose(env.Disks)
	if err != nil {
		return err
	}
	what := strings.TrimSpace(d.Format + " " + d.SubFormat)
	err = newProgress(os.Stderr).step("Convert "+what, func(say func(string)) (string, error) {
		var copied int64
		_, err := disk.CopyFile(ctx, c.Out, d, disk.CopyOptions{Durable: c.Durable, Progress: func(done, all int64) {
			copied = done
			if all < 0 { // how much comes out of a gzip file shows at its end
				say(size(done))
				return
			}
			say(fmt.Sprintf("%3d %% of %s", done*100/all, size(all)))
		}})
		return fmt.Sprintf("%s, %s", c.Out, size(copied)), err
	})
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; if no other conversion is at work, remove the file", err)
	}
	return err
}

// choose is the disk to convert.
func (c convertCmd) choose(disks []disk.Disk) (disk.Disk, error) {
	switch {
	case c.Disk == 0 && len(disks) == 1:
		return disks[0], nil
	case c.Disk >= 1 && c.Disk <= len(disks):
		return disks[c.Disk-1], nil
	}
	var names []string
	for i, d := range disks {
		names = append(names, fmt.Sprintf("%d (%s, %s)", i+1, d.Name, size(d.Size())))
	}
	return disk.Disk{}, fmt.Errorf("say with --disk which disk: %s", strings.Join(names, ", "))
}
