// Command berth gives your own, licensed Windows a berth: it checks an exported Windows virtual machine, makes an image of
// it, and runs desktops from it behind the Amazon WorkSpaces API.
//
// This package is wiring: flags, environment, configuration file, and which parts go together. Start reading at cli.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"berth/internal/check"
	"berth/internal/disk"
	"berth/internal/image"
	"berth/internal/phony"
)

// version is set when a release is built.
var version = "development"

// cli is the command line. What is set for good can also be given as an environment variable, which --help names, and every
// flag in a JSON file named by --config or found at /etc/berth.json. A flag overrules the environment, and that the file.
type cli struct {
	Config kong.ConfigFlag `help:"A JSON file with flags as keys, {\"region\": \"eu-west-1\"}. /etc/berth.json is read too, if it is there." type:"path" env:"BERTH_CONFIG" placeholder:"FILE"`

	Up      upCmd      `cmd:"" help:"Take an exported Windows VM through all eight steps, and show its desktop."`
	Serve   serveCmd   `cmd:"" help:"Run the service: WorkSpaces, EC2 image import, S3 and STS on one address."`
	Check   checkCmd   `cmd:"" help:"Say whether an exported Windows VM is fit to become a WorkSpaces image."`
	Checker checkerCmd `cmd:"" help:"Write BYOLChecker.zip, the checker that runs inside Windows."`
	Explain explainCmd `cmd:"" help:"Say what a check asks for and what to do about it, or list all checks."`
	Fix     fixCmd     `cmd:"" help:"Write a copy of an exported VM's disk with everything mended that can be mended on it."`
	Inspect inspectCmd `cmd:"" help:"Say what is in an exported VM: disks, volumes, every Windows, and what is suspicious."`
	Ls      lsCmd      `cmd:"" help:"List a folder inside an exported VM."`
	Cat     catCmd     `cmd:"" help:"Print a file inside an exported VM, or copy it out."`
	Reg     regCmd     `cmd:"" help:"Print a registry key inside an exported VM."`
	Convert convertCmd `cmd:"" help:"Write the disk of an exported VM as a raw disk or a QCOW2."`
	Sample  sampleCmd  `cmd:"" help:"Make a sample of an exported VM, to try things out. It is not Windows."`
	Images  imagesCmd  `cmd:"" help:"The disks that the service keeps: list, verify, collect."`
	Admin   adminCmd   `cmd:"" help:"What AWS has no command for: directories, users, access keys, screenshots."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// exitCode is an error that only says how the program shall end.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	returnProgram()
	os.Exit(run(os.Args[1:]))
}

// newParser makes the command line's parser.
func newParser(c *cli) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("berth"),
		kong.Description("Berth gives your own, licensed Windows a berth: desktops behind the Amazon WorkSpaces API, on your own hardware.\n\nBegin with \"berth up\", which shows the whole process on a sample."),
		kong.Configuration(loadConfiguration, "/etc/berth.json"),
		kong.Vars{"profiles": strings.Join(check.ProfileNames(), ", "), "profile": check.DefaultProfile, "processes": processNames(), "process": string(check.DefaultProcess), "formats": formatNames(false), "copyFormats": formatNames(true), "sample": phony.Base, "samples": sampleNames(), "layouts": strings.Join(slices.Sorted(maps.Keys(image.Layouts)), ","), "layout": image.DefaultLayout},
		kong.ShortUsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 80}),
		kong.ExplicitGroups([]kong.Group{{Key: "account", Title: "The account:"}, {Key: "network", Title: "Network:"}, {Key: "imports", Title: "Imports:"}, {Key: "machines", Title: "Desktops:"}, {Key: "log", Title: "Log:"}}),
		kong.Exit(func(code int) { os.Exit(min(code, 2)) }), // a wrong command line is 2, as what cannot be read
	)
}

func run(args []string) int {
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "berth:", err)
		return 2
	}
	k, err := parser.Parse(args)
	parser.FatalIfErrorf(err)
	// The first signal asks for a clean end; after it the signals have their usual effect again, so that the second kills.
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup: it is to outlive its terminal
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop)
	k.BindTo(ctx, (*context.Context)(nil))
	err = k.Run()
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	default:
		// What an error quotes may come from a stranger's file.
		for line := range strings.Lines("berth: " + err.Error()) {
			fmt.Fprintln(os.Stderr, image.Printable(strings.TrimSuffix(line, "\n")))
		}
		return 2
	}
}

// formatNames are the formats that a disk can be said to be of; with sequential, those too that can only be copied.
func formatNames(sequential bool) string {
	var names []string
	for _, f := range disk.Formats() {
		if sequential || !f.Sequential {
			names = append(names, f.Name)
		}
	}
	return strings.Join(names, ", ")
}

// sampleNames are the machines that a sample can be of.
func sampleNames() string {
	names, err := phony.Names()
	if err != nil {
		panic(err) // they are in the program
	}
	return strings.Join(names, ", ")
}

type versionCmd struct{}

func (versionCmd) Run() error {
	fmt.Println("berth", version)
	return nil
}
