package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"berth/internal/check"
	"berth/internal/check/report"
	"berth/internal/disk"
	"berth/internal/windows/offline"
)

type checkCmd struct {
	File    string `arg:"" type:"existingfile" help:"An exported VM: OVA, OVF, VMDK, VHD, VHDX, QCOW2 or a raw disk. It is only read."`
	Profile string `help:"Whose requirements: ${profiles}." default:"${profile}" env:"BERTH_PROFILE"`
	Office  bool   `help:"Check for an image that is to be subscribed to Microsoft Office: 20 GB free, no Office installed."`
	Format  string `help:"What the file is (${formats}), where its content could be taken for something else." placeholder:"NAME"`
	Output  string `help:"text or json." enum:"text,json" default:"text" short:"o"`
}

// Help is shown by berth check --help.
func (checkCmd) Help() string {
	return `The disk is not booted, mounted, converted or changed. Nothing inside it is trusted.

Exit codes: 0 the VM is fit; 1 it is not, and the report says why and what to do; 2 it could not be read.`
}

func (c checkCmd) Run(ctx context.Context) error {
	profile, ok := check.ProfileByName(c.Profile)
	if !ok {
		return fmt.Errorf("there is no profile %q: choose %s", c.Profile, strings.Join(check.ProfileNames(), ", "))
	}
	judged, warnings, err := checkFile(ctx, c.File, strings.ToUpper(c.Format), check.Options{Profile: profile, Office: c.Office})
	if err != nil {
		return err // exit code 2
	}
	for _, w := range warnings {
		fmt.Fprintln(os.Stderr, "berth: note:", w)
	}
	if c.Output == "json" {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(judged)
	} else {
		err = report.Text(os.Stdout, judged, report.TextOptions{Color: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == ""})
	}
	if err != nil {
		return err
	}
	if code := judged.ExitCode(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// checkFile judges the Windows in an exported VM. warnings are about the file.
func checkFile(ctx context.Context, path, format string, opt check.Options) (judged check.Report, warnings []string, err error) {
	env, err := openExport(path, disk.Options{Format: format})
	if err != nil {
		return judged, nil, err
	}
	defer env.Close()
	systems, err := offline.Open(env)
	if err != nil {
		return judged, nil, err
	}
	return check.Run(check.Collect(ctx, systems[0]), opt), env.Warnings, nil
}
