package hostile

import (
	"syscall"
	"testing"
	"time"
)

// spent is the processor time that this process took.
func spent(t testing.TB) time.Duration {
	var begun, ended, kernel, user syscall.Filetime
	process, err := syscall.GetCurrentProcess()
	if err == nil {
		err = syscall.GetProcessTimes(process, &begun, &ended, &kernel, &user)
	}
	if err != nil {
		t.Fatal(err)
	}
	all := time.Duration(0)
	for _, f := range []syscall.Filetime{kernel, user} {
		all += 100 * time.Duration(int64(f.HighDateTime)<<32|int64(f.LowDateTime)) // of 100 ns
	}
	return all
}
