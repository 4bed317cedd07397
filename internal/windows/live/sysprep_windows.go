package live

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// sysprepTimeout is how long Sysprep may take; Amazon's checker waits ten minutes (facts §4.1), which a slow disk can exceed.
const sysprepTimeout = 30 * time.Minute

// Sysprep generalises this Windows with the answer file for its next start, and shuts it down: sysprep /generalize /oobe /shutdown.
// It returns when Sysprep is done, which is shortly before Windows ends this program with all others. The error is a
// *SysprepError where Sysprep ran and did not succeed; Windows then is in between, and its snapshot is what to go back to.
func (s *System) Sysprep(ctx context.Context, answer []byte) error {
	folder := filepath.Join(s.windows, `System32\Sysprep`)
	answerFile := filepath.Join(folder, "Berth.xml")
	if err := os.WriteFile(answerFile, answer, 0o600); err != nil {
		return fmt.Errorf("the answer file: %w", err)
	}
	log := filepath.Join(folder, `Panther\setuperr.log`)
	var before int64
	if info, err := os.Stat(log); err == nil {
		before = info.Size()
	}
	// The mark of an earlier success would pass for this one's.
	tag := filepath.Join(folder, "Sysprep_succeeded.tag")
	if err := os.Remove(tag); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the mark of an earlier Sysprep: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sysprepTimeout)
	defer cancel()
	exit := exec.CommandContext(ctx, filepath.Join(folder, "sysprep.exe"), "/generalize", "/oobe", "/shutdown", "/quiet", "/unattend:"+answerFile).Run()
	if errors.Is(exit, fs.ErrNotExist) {
		return fmt.Errorf("Sysprep does not run: %w", exit)
	}
	if _, err := os.Stat(tag); err == nil {
		return nil // its exit code tells nothing
	}
	failed := &SysprepError{Log: log, Exit: exit}
	if f, err := os.Open(log); err == nil {
		defer f.Close()
		if info, err := f.Stat(); err == nil {
			failed.Lines, _ = errorsIn(f, info.Size(), before) // without them the error names the log
		}
	}
	return failed
}
