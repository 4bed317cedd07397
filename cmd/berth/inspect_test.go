package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"berth/internal/disk"
	"berth/internal/disk/disktest"
	"berth/internal/image"
	"berth/internal/phony"
	"berth/internal/phony/phonytest"
	"berth/testdata/machines"
)

// The bars of berth inspect on a disk of 64 GiB, and of berth version.
const (
	barCPU        = 100 * time.Millisecond
	barVersionCPU = 30 * time.Millisecond
	barPeak       = 32 << 20 // bytes
	barRead       = 8 << 20  // bytes of the file
	barPeer       = 400      // of virt-inspector's CPU time, one part in so many
)

// worn is a machine of 64 GiB whose registry has what years of use leave: a SYSTEM of 17 MB with 700 services, a SOFTWARE of 44 MB
// with 400 programs in each list, and 60 accounts.
func worn(t testing.TB) *phony.Machine {
	t.Helper()
	var b strings.Builder
	b.WriteString("A machine of 64 GiB that was used for years.\n-- machine --\nbase = win10-2004-enterprise\ndisk = 64GiB\n-- accounts --\n")
	for i := range 60 {
		fmt.Fprintf(&b, "user%02d = rid %d never-expires in Users\n", i, 2000+i)
	}
	b.WriteString("-- registry.reg --\n")
	for i := range 700 {
		fmt.Fprintf(&b, "[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\Service%03d]\n\"Start\"=dword:%08x\n\"Type\"=dword:00000001\n\"Group\"=\"SCSI miniport\"\n\"ImagePath\"=\"System32\\\\drivers\\\\s%d.sys\"\n", i, i%5, i)
	}
	const uninstall = `Microsoft\Windows\CurrentVersion\Uninstall`
	for _, list := range []string{uninstall, `WOW6432Node\` + uninstall} {
		for i := range 400 {
			fmt.Fprintf(&b, "[HKEY_LOCAL_MACHINE\\SOFTWARE\\%s\\{%08d-0000-0000-0000-000000000000}]\n\"DisplayName\"=\"Program %d\"\n\"DisplayVersion\"=\"%d.0\"\n\"Publisher\"=\"Somebody\"\n", list, i, i, i)
		}
	}
	bulk := func(key string, keys int) {
		for i := range keys {
			fmt.Fprintf(&b, "[HKEY_LOCAL_MACHINE\\%s\\%03d\\{%08d-1111-2222-3333-444444444444}]\n@=\"Something that has a name of some length, number %d\"\n\"ThreadingModel\"=\"Apartment\"\n", key, i/500, i, i)
		}
	}
	bulk(`SYSTEM\ControlSet001\Enum\SWD`, 45_000)
	bulk(`SOFTWARE\Classes\CLSID`, 120_000)
	base, err := fs.ReadFile(machines.FS, phony.Base+".txtar")
	if err != nil {
		t.Fatal(err)
	}
	m, err := phony.LoadFS(fstest.MapFS{phony.Base + ".txtar": {Data: base}, "worn.txtar": {Data: []byte(b.String())}}, "worn")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// readBytes is how much of a file an inspection reads.
func readBytes(t testing.TB, path string) int64 {
	t.Helper()
	src := phonytest.OpenCounted(t, path)
	env, err := disk.Open(src, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := image.NewInspection(t.Context(), env, image.InspectionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(i.Windows) != 1 || len(*i.Windows[0].Programs.Value) < 800 || len(*i.Windows[0].Storage.Value) < 100 || len(*i.Windows[0].Users.Value) != 65 {
		t.Fatalf("%+v", i)
	}
	return src.Read()
}

const gnuTime = "/usr/bin/time"

// usage is what a run of a program took: processor time and, by GNU time, its greatest memory. What the kernel tells this process of
// a child begins with this process' own memory, so that somebody small must start it.
func usage(t testing.TB, argv ...string) (cpu time.Duration, peak int64) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "time")
	argv = append([]string{gnuTime, "-o", report, "-f", "%M"}, argv...)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v: %s", argv, err, errs.String())
	}
	kib, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(kib)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	s := cmd.ProcessState
	return s.UserTime() + s.SystemTime(), n << 10
}

// writtenBothWays is the program as the Makefile builds it, twice: written in pieces of 4 KiB and at once. The page cache holds the one
// in single pages, and the other, where the file system can, in folios of up to 2 MiB; what a program takes of memory depends on that.
func writtenBothWays(t testing.TB) []string {
	t.Helper()
	program, err := os.ReadFile(builtProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, piece := range []int{4 << 10, len(program)} {
		f, err := os.OpenFile(filepath.Join(t.TempDir(), "berth"), os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk(program, piece) {
			if _, err := f.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, f.Name())
	}
	return paths
}

// TestMemory holds the program to the bar of an inspection's memory, however it lies in the page cache, on the sample.
func TestMemory(t *testing.T) {
	for _, tool := range []string{"make", gnuTime} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v (make setup-test installs it)", err)
		}
	}
	file, err := sampleVM()
	if err != nil {
		t.Fatal(err)
	}
	for i, exe := range writtenBothWays(t) {
		for _, args := range [][]string{{"version"}, {"inspect", file}} {
			if _, peak := usage(t, append([]string{exe}, args...)...); peak == 0 || peak > barPeak {
				t.Errorf("berth %v, written the %d. way: a peak of %d bytes; the bar is %d", args, i+1, peak, barPeak)
			}
		}
	}
}

// BenchmarkInspect is berth inspect on a worn machine of 64 GiB in every format, as a process of its own, against virt-inspector on the
// same file where that is installed. CPU is the mean of the runs, the peak their greatest, of a program that was written both ways. What
// depends on the machine is reported beside its bar; more of the file than its bar allows fails.
func BenchmarkInspect(b *testing.B) {
	berth := writtenBothWays(b)
	m := worn(b)
	run := func(b *testing.B, barCPU time.Duration, programs []string, args ...string) time.Duration {
		var cpu time.Duration
		var peak int64
		for b.Loop() {
			for _, program := range programs {
				c, p := usage(b, append([]string{program}, args...)...)
				cpu += c
				peak = max(peak, p)
			}
		}
		cpu /= time.Duration(b.N * len(programs))
		b.ReportMetric(float64(cpu.Microseconds())/1000, "cpu-ms/op")
		b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
		if barCPU > 0 {
			b.Logf("bars of %v CPU and %d MiB: %s", barCPU, barPeak>>20, disktest.Held(cpu <= barCPU && peak <= barPeak))
		}
		return cpu
	}
	b.Run("version", func(b *testing.B) { run(b, barVersionCPU, berth, "version") })
	for _, format := range phony.Formats {
		path := filepath.Join(b.TempDir(), "worn."+format)
		if err := m.Export(b.Context(), path, format); err != nil {
			b.Fatal(err)
		}
		var own time.Duration
		b.Run(format, func(b *testing.B) {
			read := readBytes(b, path)
			if read == 0 || read > barRead {
				b.Errorf("%d bytes of the file were read; the bar is %d", read, barRead)
			}
			own = run(b, barCPU, berth, "inspect", path)
			b.ReportMetric(float64(read)/(1<<20), "read-MiB")
		})
		b.Run(format+"/virt-inspector", func(b *testing.B) {
			peer, err := exec.LookPath("virt-inspector")
			if err != nil {
				b.Skip("virt-inspector is not installed")
			}
			// Its appliance starts on any machine this way, by QEMU itself and without KVM. With KVM, where that works, it is quicker: say
			// LIBGUESTFS_BACKEND_SETTINGS= in the environment.
			for name, value := range map[string]string{"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"} {
				if _, set := os.LookupEnv(name); !set {
					b.Setenv(name, value)
				}
			}
			// What it printed is looked at, because it ends well without having found a Windows. An OVA it does not open: its disk is unpacked first.
			script := `set -e; file=$2; case $file in *.ova) tar -xf "$file" -C "$3"; for file in "$3"/*.vmdk; do :; done;; esac
"$1" -a "$file" >"$3/found"; grep -q '<operatingsystem>' "$3/found" || { echo "no Windows was found" >&2; exit 1; }`
			theirs := run(b, 0, []string{"/bin/sh"}, "-c", script, "sh", peer, path, b.TempDir())
			if own > 0 {
				b.ReportMetric(theirs.Seconds()/own.Seconds(), "x-berth")
				b.Logf("bar of 1/%d of virt-inspector's CPU: %s", barPeer, disktest.Held(theirs >= barPeer*own))
			}
		})
	}
}
