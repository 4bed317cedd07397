package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"berth/internal/phony"
)

type upCmd struct {
	VM     string `arg:"" optional:"" help:"An exported Windows VM. Without one a sample is made, which is not Windows." type:"existingfile"`
	Data   string `help:"Folder for everything that the service keeps." default:".berth" type:"path" env:"BERTH_DATA"`
	Listen string `help:"Address of the service." default:"127.0.0.1:7654" env:"BERTH_LISTEN"`
	Demo   bool   `help:"End when the desktop has been shown, and take down what was put up."`
	Office string `help:"Subscribe the image to Microsoft_Office_2016 or Microsoft_Office_2019." enum:",Microsoft_Office_2016,Microsoft_Office_2019" default:"" placeholder:"NAME"`

	Accelerator string `help:"How desktops run: kvm, tcg, or auto." enum:"auto,kvm,tcg" default:"auto" env:"BERTH_ACCELERATOR"`
}

// Help is shown by berth up --help.
func (upCmd) Help() string {
	return `The eight steps are those of Amazon's "Bring Your Own Windows Desktop Licenses": enable BYOL, check the VM, export it, import it, make an image, make a bundle, register a directory, launch a WorkSpace. Each is done through the service's public API. What an earlier run has done is found and not done again.

The service's log is in service.log in the data folder. With Ctrl-C the service ends and its desktops are turned off; the next run finds them.`
}

func (c upCmd) Run(ctx context.Context) error {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	out := newProgress(os.Stdout)
	vm := c.VM
	if vm == "" {
		vm = filepath.Join(c.Data, "sample", "win10-2004.ova")
		if err := out.step("Sample VM", func(say func(string)) (string, error) { return makeSample(ctx, vm, say) }); err != nil {
			return err
		}
	}
	served, err := c.serve(ctx)
	if err != nil {
		return err
	}
	j := &journey{data: c.Data, vm: vm, office: c.Office, out: out}
	err = j.run(ctx)
	if err == nil && !c.Demo {
		j.invite()
		<-ctx.Done()
		fmt.Println("\nTurning desktops off …")
	} else if err == nil {
		err = j.takeDown(ctx)
	}
	stopped := served.stop()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = exitCode(130)
	}
	return errors.Join(err, stopped)
}

// makeSample makes the sample VM once.
func makeSample(ctx context.Context, path string, say func(string)) (string, error) {
	if fi, err := os.Stat(path); err == nil {
		return fmt.Sprintf("%s is there, %s", path, size(fi.Size())), nil
	}
	say("writing partitions, NTFS, registry and files")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	m, err := phony.Load(phony.Base)
	if err != nil {
		return "", err
	}
	if err := m.Export(ctx, path, "ova"); err != nil {
		return "", err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s (it is not Windows)", path, size(fi.Size())), nil
}

// supervised is the service as a process of its own, started again when it dies.
type supervised struct {
	cancel  context.CancelFunc
	ended   chan error
	process atomic.Pointer[os.Process]
}

// serve starts the service. It lives in a process group of its own, so that Ctrl-C is for us to pass on.
func (c upCmd) serve(ctx context.Context) (*supervised, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Another service's answers must not be taken for this one's, nor what an earlier one has left.
	lock, err := lockFolder(c.Data)
	if err != nil {
		return nil, err
	}
	err = removeAdmin(c.Data)
	lock.Close()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(c.Data, "service.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &supervised{cancel: cancel, ended: make(chan error, 1)}
	args := []string{"serve", "--data", c.Data, "--listen", c.Listen, "--accelerator", c.Accelerator, "--on-exit", "power-off", "--grace", "3s"}
	go func() {
		defer log.Close()
		for {
			cmd := exec.CommandContext(run, self, args...)
			cmd.Stdout, cmd.Stderr = log, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = 90 * time.Second
			err := cmd.Start()
			if err == nil {
				s.process.Store(cmd.Process)
				err = cmd.Wait()
			}
			if run.Err() != nil {
				s.ended <- nil
				return
			}
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.Exited() { // it said no, or could not be started
				s.ended <- fmt.Errorf("the service does not run (%w): see %s", err, log.Name())
				return
			}
			fmt.Fprintf(os.Stderr, "\nThe service was ended (%v) and is started again.\n", err)
		}
	}()
	if err := s.ready(ctx, c.Data); err != nil {
		_ = s.stop() // err says what there is to say
		return nil, err
	}
	return s, nil
}

// ready waits until the service answers.
func (s *supervised) ready(ctx context.Context, data string) error {
	deadline := time.After(time.Minute)
	for {
		if c, err := dial(data); err == nil {
			if res, err := http.Get(c.admin.Endpoint + "/readyz"); err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					return nil
				}
			}
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return errors.New("the service is not ready after a minute: see service.log in the data folder")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop asks the service to end and waits until it has.
func (s *supervised) stop() error {
	s.cancel()
	return <-s.ended
}
