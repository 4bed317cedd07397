package main

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// returnProgram hands back to the kernel the memory by which the program itself is mapped. Every package's beginning runs through
// some of it, and a page that was touched once counts until the end, with the 15 around it: 18 MiB before main begins, of which a look
// at a disk needs a third. Nothing is lost: what is touched again is mapped again, out of the page cache.
//
// Only mappings in which every page is still the file's are handed back: relocations of a program that was built to be moved, and a
// debugger's breakpoints, are changes that would be undone. What is read for that is Linux's /proc/self/smaps, see proc_pid_smaps(5);
// without it everything stays as it is.
func returnProgram() {
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	var from, to uint64 // a mapping of a file that cannot be written to; or nothing
	for line := range strings.Lines(string(smaps)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 6 && (f[1] == "r-xp" || f[1] == "r--p"): // addresses, permissions, offset, device, inode, path
			first, last, _ := strings.Cut(f[0], "-")
			from, _ = strconv.ParseUint(first, 16, 64)
			to, _ = strconv.ParseUint(last, 16, 64)
			if f[4] == "0" {
				from, to = 0, 0 // not a file
			}
		case len(f) >= 5 && strings.Contains(f[0], "-"): // any other mapping
			from, to = 0, 0
		case len(f) == 3 && f[0] == "Anonymous:" && f[1] == "0" && from < to:
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED) // refused: it stays
		}
	}
}
