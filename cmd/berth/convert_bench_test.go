package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"berth/internal/disk/disktest"
	"berth/internal/phony"
	"berth/testdata/machines"
)

// The bars of a check and a conversion of an OVA: of virt-v2v's time and memory, one part in so many; and of a conversion of any disk.
const (
	barV2VTime     = 30
	barV2VMemory   = 15
	barConvertPeak = 96 << 20 // bytes
)

// builtProgram is the program as the Makefile builds it.
func builtProgram(t testing.TB) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "berth")
	if out, err := exec.CommandContext(t.Context(), "make", "-s", "-C", "../..", "program", "PROGRAM="+exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return exe
}

// filledMachine writes a raw disk of a phony machine whose partition "data", which has no file system, is full of what disks are full
// of.
func filledMachine(b *testing.B, text, path string) {
	base := fstest.MapFS{"filled.txtar": {Data: []byte(text)}}
	names, err := phony.Names()
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(machines.FS, name+".txtar")
		if err != nil {
			b.Fatal(err)
		}
		base[name+".txtar"] = &fstest.MapFile{Data: data}
	}
	m, err := phony.LoadFS(base, "filled")
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Export(b.Context(), path, "raw"); err != nil {
		b.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	data := m.Partition("data")
	for at, p := range disktest.NewContents(b).Pieces(data.Length) {
		if _, err := f.WriteAt(p, data.Start+at); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}

// benchTool runs a program that must end well.
func benchTool(b *testing.B, argv ...string) {
	if out, err := exec.CommandContext(b.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v: %s", argv, err, out)
	}
}

// family is what a program and all that it started, as long as they are in its session, took.
type family struct {
	wall time.Duration
	cpu  time.Duration // of those that were waited for
	peak int64         // bytes: the largest sum that was seen
}

// runFamily runs a program in a session of its own, and looks every 100 ms at the memory of every process in it. Counted is each one's
// share (Pss), so that what several have in common counts once; what the kernel keeps of files for them does not.
func runFamily(b *testing.B, argv ...string) (took family) {
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Minute
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ticks := time.NewTicker(100 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case err := <-ended:
			took.wall = time.Since(begun)
			if s := cmd.ProcessState; s != nil {
				took.cpu = s.UserTime() + s.SystemTime()
			}
			for pid := range session(cmd.Process.Pid) { // there is none unless it was cut short
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			if err != nil {
				b.Fatalf("%s: %v: %s", argv, err, out.String())
			}
			return took
		case <-ticks.C:
			var sum int64
			for _, share := range session(cmd.Process.Pid) {
				sum += share
			}
			took.peak = max(took.peak, sum)
		}
	}
}

var pssLine = regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB$`)

// session is the processes of a session, and what each takes of memory, in bytes.
func session(id int) map[int]int64 {
	found := map[int]int64{}
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		stat, err := os.ReadFile(filepath.Join(folder, "stat"))
		if err != nil {
			continue // it has ended
		}
		// Behind the name, which is in brackets and may have any character: state, parent, group, session.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 4 || fields[3] != strconv.Itoa(id) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			continue
		}
		found[pid] = 0
		rollup, err := os.ReadFile(filepath.Join(folder, "smaps_rollup"))
		if m := pssLine.FindSubmatch(rollup); err == nil && m != nil {
			kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
			found[pid] = kib << 10
		}
	}
	return found
}

// BenchmarkCheckAndConvert is berth check and, after it, berth convert to a plain QCOW2 that is on the disk when it ends, of the OVA of
// a machine of 64 GiB with 1 GiB of data, against virt-v2v, which inspects, converts and waits for the disk, too. Wall time is the
// median, ours of memory the greatest. virt-v2v takes minutes, and runs once. Most of its time does not depend on the data: the
// more there are, the closer the two come.
func BenchmarkCheckAndConvert(b *testing.B) {
	exe, dir := builtProgram(b), b.TempDir()
	raw, vmdk, ova := filepath.Join(dir, "raw"), filepath.Join(dir, "filled-disk1.vmdk"), filepath.Join(dir, "filled.ova")
	filledMachine(b, `A machine that holds something.
-- machine --
base = win10-2004-enterprise
disk = 64GiB
- partition windows
partition windows = size 62GiB ntfs
partition data = size 1GiB type basic
`, raw)
	benchTool(b, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, vmdk)
	if err := os.Remove(raw); err != nil {
		b.Fatal(err)
	}
	ovf := `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:id="file1" ovf:href="filled-disk1.vmdk"/></References>
<DiskSection><Info>Disks</Info><Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="68719476736" ovf:capacityAllocationUnits="byte" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
<VirtualSystem ovf:id="filled"><Info>A machine</Info><Name>filled</Name>
<OperatingSystemSection ovf:id="1"><Info>Windows</Info></OperatingSystemSection>
<VirtualHardwareSection><Info>Hardware</Info>
<Item><rasd:ElementName>2 processors</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
<Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>4096</rasd:VirtualQuantity></Item>
<Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogicsas</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
<Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Disk</rasd:ElementName><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
`
	if err := os.WriteFile(filepath.Join(dir, "filled.ovf"), []byte(ovf), 0o600); err != nil {
		b.Fatal(err)
	}
	benchTool(b, "tar", "--format=ustar", "-cf", ova, "-C", dir, "filled.ovf", "filled-disk1.vmdk")
	if err := os.Remove(vmdk); err != nil {
		b.Fatal(err)
	}

	var own disktest.Cost
	var ownPeak int64
	b.Run("berth", func(b *testing.B) {
		// A machine that is found not to be fit is converted, too, as virt-v2v does.
		const script = `"$1" check "$2" >/dev/null; [ $? -le 1 ] && "$1" convert --durable "$2" "$3"`
		var runs []disktest.Cost
		for b.Loop() {
			out := filepath.Join(dir, "out.qcow2")
			runs = append(runs, disktest.Measure(b, func() error {
				_, peak := usage(b, "/bin/sh", "-c", script, "sh", exe, ova, out)
				ownPeak = max(ownPeak, peak)
				return nil
			}, syscall.RUSAGE_CHILDREN))
			if err := os.Remove(out); err != nil {
				b.Fatal(err)
			}
		}
		own = disktest.Median(runs)
		b.ReportMetric(own.Wall.Seconds(), "own-s")
		b.ReportMetric(own.CPU.Seconds(), "own-CPU-s")
		b.ReportMetric(float64(ownPeak)/(1<<20), "peak-MiB")
	})
	b.Run("virt-v2v", func(b *testing.B) {
		for _, name := range []string{"virt-v2v", "nbdkit", "nbdcopy"} {
			if _, err := exec.LookPath(name); err != nil {
				b.Skip(name, " is not installed (Debian: virt-v2v, nbdkit, libnbd-bin)")
			}
		}
		for name, value := range map[string]string{"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"} {
			if _, set := os.LookupEnv(name); !set {
				b.Setenv(name, value) // as BenchmarkInspect says
			}
		}
		var theirs family
		for b.Loop() {
			if theirs.wall == 0 {
				theirs = runFamily(b, "virt-v2v", "-i", "ova", ova, "-o", "local", "-os", b.TempDir(), "-of", "qcow2")
			}
		}
		b.ReportMetric(float64(theirs.wall.Nanoseconds()), "ns/op")
		b.ReportMetric(theirs.wall.Seconds(), "virt-v2v-s")
		b.ReportMetric(theirs.cpu.Seconds(), "virt-v2v-CPU-s")
		b.ReportMetric(float64(theirs.peak)/(1<<20), "peak-MiB")
		if own.Wall > 0 {
			ratio := theirs.wall.Seconds() / own.Wall.Seconds()
			b.Logf("bar of 1/%d of virt-v2v's time: 1/%.1f, %s", barV2VTime, ratio, disktest.Held(ratio >= barV2VTime))
		}
		if ownPeak > 0 { // else there is no GNU time
			ratio := float64(theirs.peak) / float64(ownPeak)
			b.Logf("bar of 1/%d of virt-v2v's memory: 1/%.1f, %s", barV2VMemory, ratio, disktest.Held(ratio >= barV2VMemory))
		}
	})
}

// BenchmarkConvertPeak is what berth convert takes of memory with a disk of 8 TiB that holds a Windows on a volume of 1780 GiB
// and 256 MiB of data at its end, from every format that can be so large (the VMDK is of 2 TiB) to every form, with the digest, and with as many workers as a
// large host has.
func BenchmarkConvertPeak(b *testing.B) {
	b.Setenv("GOMAXPROCS", "8")
	exe, dir := builtProgram(b), b.TempDir()
	raw, file := filepath.Join(dir, "guest.raw"), filepath.Join(dir, "disk")
	for _, source := range []struct {
		name, size, space string
		args              []string // of qemu-img
	}{
		{"raw", "8TiB", "partition space = size 6400GiB type basic", nil},
		{"qcow2", "8TiB", "partition space = size 6400GiB type basic", []string{"qcow2", "-c"}},
		{"vhdx", "8TiB", "partition space = size 6400GiB type basic", []string{"vhdx"}},
		{"vmdk", "2TiB", "", []string{"vmdk", "-o", "subformat=streamOptimized"}},
	} {
		filledMachine(b, fmt.Sprintf(`A machine with a large disk.
-- machine --
base = win11-24h2-enterprise
disk = %s
- partition windows
- partition recovery
partition windows = size 1780GiB ntfs
partition recovery = size 1GiB type recovery ntfs label "Recovery"
%s
partition data = size 256MiB type basic
`, source.size, source.space), raw)
		from := raw
		if source.args != nil {
			from = file
			benchTool(b, slices.Concat([]string{"qemu-img", "convert", "-f", "raw", "-O"}, source.args, []string{raw, from})...)
		}
		for _, to := range [][]string{{"out.raw"}, {"out.qcow2", "--layout", "fast"}, {"out.qcow2", "--layout", "zstd"}, {"out.qcow2", "--layout", "compact"}} {
			b.Run(source.name+"/"+strings.TrimPrefix(to[len(to)-1], "out."), func(b *testing.B) {
				var peak int64
				var cpu time.Duration
				for b.Loop() {
					out := filepath.Join(dir, to[0])
					used, p := usage(b, slices.Concat([]string{exe, "convert", "--digest", from, out}, to[1:])...)
					cpu += used
					peak = max(peak, p)
					if err := os.Remove(out); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s")
				b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
				b.Logf("bar of %d MiB: %.1f MiB, %s", barConvertPeak>>20, float64(peak)/(1<<20), disktest.Held(peak <= barConvertPeak))
			})
		}
		if err := errors.Join(os.Remove(raw), os.RemoveAll(file)); err != nil {
			b.Fatal(err)
		}
	}
}
