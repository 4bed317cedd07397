// Command berth-checker says whether the Windows that it runs in is fit to become a WorkSpaces image under Bring Your Own License, as
// "berth check" does of a powered-off disk: it collects the same facts through the same code and judges them by the same table.
//
// It shows Amazon's dialog ("Amazon WorkSpaces Image Validation" in the document's Step 2) as a page in the browser of this computer, or
// does everything in the console. It changes nothing that it has not asked about.
//
// It knows nothing of checks, hives or services: internal/check and internal/windows/live do. Start reading at checker.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"berth/internal/check"
)

// version is set when a release is built.
var version = "development"

// cli is the command line.
type cli struct {
	Yes           bool   `help:"Answer every question with yes. In the console." short:"y"`
	Output        string `help:"In the console, instead of a page in the browser: ${enum}." enum:"text,json,html,junit,sarif," default:"" short:"o" placeholder:"FORMAT"`
	Fix           bool   `help:"In the console: fix what can be fixed, and test again."`
	Sysprep       bool   `help:"In the console: run Sysprep when all tests have passed. Windows shuts down."`
	RemoveAccount bool   `help:"Remove the account WorkSpaces_BYOL, once the image is made, and end."`
	Profile       string `help:"Whose requirements: ${profiles}, or a file with a profile of your own." default:"${profile}" placeholder:"NAME|FILE"`
	Process       string `help:"What the image is to be ingested as: ${processes}." default:"${process}" placeholder:"PROCESS"`
	Office        bool   `help:"The image is to be subscribed to Microsoft Office through the service."`
	Logs          string `help:"Where the two log files go. Without it: beside this program." type:"path" placeholder:"FOLDER"`
	NoBrowser     bool   `help:"Print the page's address and open no browser."`
	Facts         bool   `help:"Print the facts as JSON, judge nothing, change nothing, and end." hidden:""`

	Version kong.VersionFlag `help:"Print the version."`
}

// Exit codes besides those of check.Report.
const exitTrouble = 2

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("berth-checker"),
		kong.Description("Says whether this Windows is fit to become a WorkSpaces image under Bring Your Own License, fixes what can be fixed, and runs Sysprep.\n\n"+
			"Without --yes, --output, --fix or --sysprep it shows a page in the browser.\n\n"+
			"Exit codes: 0 all tests have passed; 1 they have not; 2 it could not be told, or something else went wrong."),
		kong.Vars{"profiles": strings.Join(check.ProfileNames(), ", "), "profile": check.DefaultProfile, "processes": processNames(), "process": string(check.DefaultProcess), "version": "berth-checker " + version},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 80}),
		kong.Exit(func(code int) { os.Exit(min(code, exitTrouble)) }),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, "berth-checker:", err)
		return exitTrouble
	}
	_, err = parser.Parse(args)
	parser.FatalIfErrorf(err)
	// Windows sends SIGTERM when the window is closed, somebody signs out or the computer shuts down.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := c.run(ctx)
	if err != nil {
		for line := range strings.Lines("berth-checker: " + err.Error()) {
			fmt.Fprintln(os.Stderr, check.Printable(strings.TrimSuffix(line, "\n")))
		}
		return exitTrouble
	}
	return code
}

// options is what the machine is judged for, unless the page says otherwise.
func (c *cli) options() (check.Options, error) {
	opt := check.Options{Process: check.Process(strings.ToUpper(c.Process)), Office: c.Office}
	if !opt.Process.Known() {
		return opt, fmt.Errorf("there is no ingestion process %q: choose %s", c.Process, processNames())
	}
	var ok bool
	if opt.Profile, ok = check.ProfileByName(c.Profile); ok {
		return opt, nil
	}
	b, err := os.ReadFile(c.Profile)
	if errors.Is(err, fs.ErrNotExist) {
		return opt, fmt.Errorf("there is no profile %q, nor a file of that name: choose %s", c.Profile, strings.Join(check.ProfileNames(), ", "))
	}
	if err == nil {
		opt.Profile, err = check.LoadProfile(b)
	}
	if err != nil {
		return opt, fmt.Errorf("%s: %w", c.Profile, err)
	}
	return opt, nil
}

// processNames lists the ingestion processes.
func processNames() string {
	var names []string
	for _, p := range check.Processes() {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}

// inConsole tells whether somebody wants no page.
func (c *cli) inConsole() bool {
	return c.Yes || c.Output != "" || c.Fix || c.Sysprep || c.RemoveAccount || c.Facts
}

func (c *cli) run(ctx context.Context) (int, error) {
	opt, err := c.options()
	if err != nil {
		return 0, err
	}
	if again, err := elevate(c.inConsole()); again || err != nil {
		return 0, err
	}
	vm, err := openMachine()
	if err != nil {
		return 0, err
	}
	if c.Facts {
		return 0, printFacts(ctx, os.Stdout, vm)
	}
	folder := c.Logs
	if folder == "" {
		exe, err := os.Executable()
		if err != nil {
			return 0, err
		}
		folder = filepath.Dir(exe)
	}
	// Two at once would each put back what the other has turned off.
	release, err := onlyOne()
	if err != nil {
		return 0, err
	}
	defer release()
	sitting := newChecker(vm, time.Now, folder)
	if err := sitting.open(); err != nil {
		return 0, err
	}
	if c.inConsole() {
		con := &console{c: sitting, in: os.Stdin, out: os.Stdout, err: os.Stderr, yes: c.Yes, seen: term.IsTerminal(int(os.Stderr.Fd()))}
		code, err := con.run(ctx, c, opt)
		return code, errors.Join(err, sitting.close())
	}
	return 0, c.serve(ctx, sitting, opt)
}

// serve shows the page until it is closed or the program is told to end.
func (c *cli) serve(ctx context.Context, sitting *checker, opt check.Options) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	var work sync.WaitGroup
	p := newPage(sitting, opt, listener.Addr(), end, func(do func(context.Context)) { work.Go(func() { do(ctx) }) })
	server := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("The checker is at\n\n  %s\n\nClose this window, or press Ctrl-C in it, to cancel. Windows Update is put back then.\n", p.URL())
	if !c.NoBrowser {
		if err := browse(p.URL()); err != nil {
			fmt.Fprintln(os.Stderr, "No browser opens by itself:", check.Printable(err.Error()))
		}
	}
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	end()
	work.Wait() // what was being changed is changed, or was broken off
	err = errors.Join(err, sitting.close())
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // for the page to show that it is over
	defer stop()
	if server.Shutdown(last) != nil {
		_ = server.Close() // a browser that does not listen
	}
	return err
}
