package main

import (
	"context"
	"os"
	"runtime/debug"
	"strings"

	"berth/internal/check/report"
	"berth/internal/disk"
	"berth/internal/image"
)

type inspectCmd struct {
	File   string `arg:"" type:"existingfile" help:"An exported VM: OVA, OVF, VMDK, VHD, VHDX, QCOW2 or a raw disk. It is only read."`
	Verify bool   `help:"Read the whole export and compare it with the digests in the manifest of its OVA or OVF."`
	Format string `help:"What the file is (${formats}), where its content could be taken for something else." placeholder:"NAME"`
	Output string `help:"text or json." enum:"text,json" default:"text" short:"o"`
}

// Help is shown by berth inspect --help.
func (inspectCmd) Help() string {
	return `Says what is in an exported VM: the disk's format, partitions and volumes, every Windows with its version, host name, users, programs and drivers, how far its registry can be trusted, and what is suspicious. Nothing is booted, mounted, converted or changed. What could not be read is said.

    berth inspect win10.ova
    berth inspect --verify win10.ova
    berth inspect -o json win10.vhdx | jq '.windows[].hostName.value'

Each fact in the JSON has a value (null: not known), "from" (where it was read) and "unknown" (why it is not known). See also berth ls, cat and reg.

Exit codes: 0 it was read; 1 with --verify: it is not what its manifest says; 2 it could not be read.`
}

func (c inspectCmd) Run(ctx context.Context) error {
	// What the packages' beginnings and the command line's parser left is half of what a look needs.
	debug.FreeOSMemory()
	returnProgram()
	env, err := openExport(c.File, disk.Options{Format: strings.ToUpper(c.Format)})
	if err != nil {
		return err // exit code 2
	}
	defer func() { _ = env.Close() }() // only read
	i, err := image.NewInspection(ctx, env, image.InspectionOptions{Verify: c.Verify})
	if err != nil {
		return err
	}
	if c.Output == "json" {
		err = report.WriteJSON(os.Stdout, i, "  ")
	} else {
		err = i.WriteText(os.Stdout)
	}
	if err == nil && i.Container.Integrity == image.Broken {
		err = exitCode(1)
	}
	return err
}
