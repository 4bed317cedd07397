package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/phony"
)

type sampleCmd struct {
	File string `arg:"" help:"Where to write it. The ending says the format: ova, vmdk, vhd, vhdx, qcow2 or raw." type:"path"`
	Kind string `help:"Which machine: ${samples}." default:"${sample}"`
}

// Help is shown by berth sample --help.
func (sampleCmd) Help() string {
	return `The sample is a disk as a Windows 10 machine shows itself when it is switched off: partition table, NTFS, registry, accounts, folders. It is not Windows: no file is Microsoft's, and what boots is Berth's own boot code. The other kinds fail one check each.`
}

func (c sampleCmd) Run(ctx context.Context) error {
	format := strings.TrimPrefix(filepath.Ext(c.File), ".")
	if !slices.Contains(phony.Formats, format) {
		return fmt.Errorf("%s: the name must end in one of %s", c.File, strings.Join(phony.Formats, ", "))
	}
	m, err := phony.Load(c.Kind)
	if err != nil {
		return err
	}
	return m.Export(ctx, c.File, format)
}
