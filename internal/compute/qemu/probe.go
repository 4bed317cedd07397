package qemu

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// accelerator is how a guest's instructions are carried out.
type accelerator struct {
	name string // "kvm" or "tcg", as QEMU's -accel
	cpu  string // QEMU's -cpu
	why  string // how it was chosen
}

// The processors offered to guests.
const (
	emulatedCPU = "max" // all that TCG can emulate
	// hostCPU is the host's own; the hv_ features are Hyper-V's, which spare Windows the work of guessing at time and locks.
	hostCPU      = "host,hv_relaxed,hv_vapic,hv_spinlocks=0x1fff,hv_time"
	plainHostCPU = "host"
)

// probeTime is how long a probe's guest may take. With KVM it needs some 0.1 s, with software emulation 0.1 to 2 s.
const probeTime = 10 * time.Second

// chooseAccelerator is KVM when a guest has proved that it works, else software emulation. wanted is Config.Accelerator.
func chooseAccelerator(ctx context.Context, binary, wanted string) accelerator {
	switch wanted {
	case "tcg":
		return accelerator{"tcg", emulatedCPU, "software emulation was asked for"}
	case "kvm":
		return accelerator{"kvm", plainHostCPU, "KVM was asked for, not probed"}
	}
	var failures []string
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		failures = append(failures, err.Error())
	} else {
		f.Close()
		for _, cpu := range []string{hostCPU, plainHostCPU} {
			err := probe(ctx, binary, "kvm", cpu)
			if err == nil {
				return accelerator{"kvm", cpu, "a 64-bit guest ran with KVM on cpu " + cpu}
			}
			failures = append(failures, fmt.Sprintf("cpu %s: %v", cpu, err))
		}
	}
	return accelerator{"tcg", emulatedCPU, "software emulation, since KVM does not work here: " + strings.Join(failures, "; ")}
}

// What the probe's guest says through the isa-debug-exit device, which makes QEMU exit with 2*said+1.
const (
	probeFit   = 0x2a
	probeUnfit = 0x0b
)

// probeGuest is the boot sector of the guest that decides whether an accelerator is usable. There are hosts whose /dev/kvm
// opens and makes machines, and whose guests die all the same; so a guest has to get as far as any 64-bit Windows
// does: it switches into long mode and, there, executes cmpxchg16b (which Windows needs since 8.1) once with the
// comparison true and once false, and looks at what that did to memory and registers.
//
// Memory: 0x1000 PML4, 0x2000 page directory pointers, 0x3000 page directory (one page of 2 MiB at 0), 0x6000 the operand,
// 0x7c00 this sector. Each line is bytes in hexadecimal, then what they mean, in AT&T's notation.
const probeGuest = `
fa                    cli                      16 bits, at 0x7c00
31c0                  xor %ax,%ax
8ed8                  mov %ax,%ds
8ec0                  mov %ax,%es
8ed0                  mov %ax,%ss
bc007c                mov $0x7c00,%sp
fc                    cld
bf0010                mov $0x1000,%di          clear the three tables
b90018                mov $0x1800,%cx
f3ab                  rep stos %ax,%es:(%di)
c70600100320          movw $0x2003,0x1000      present, writable
c70600200330          movw $0x3003,0x2000
c70600308300          movw $0x83,0x3000        present, writable, 2 MiB
66b800100000          mov $0x1000,%eax
0f22d8                mov %eax,%cr3
0f20e0                mov %cr4,%eax
0d2006                or $0x620,%ax            PAE, OSFXSR, OSXMMEXCPT
0f22e0                mov %eax,%cr4
66b9800000c0          mov $0xc0000080,%ecx     the EFER register
0f32                  rdmsr
0d0009                or $0x900,%ax            LME, NXE
0f30                  wrmsr
0f0116d07c            lgdt 0x7cd0
0f20c0                mov %cr0,%eax
660d01000080          or $0x80000001,%eax      PG, PE
0f22c0                mov %eax,%cr0
ea5c7c0800            ljmp $8,$0x7c5c
bf00600000            mov $0x6000,%edi         64 bits from here
31c0                  xor %eax,%eax
b907000000            mov $7,%ecx
48c70701000000        movq $1,(%rdi)           memory is 2:1
48c7470802000000      movq $2,8(%rdi)
b801000000            mov $1,%eax              compare with 2:1, that is, equal
ba02000000            mov $2,%edx
bb03000000            mov $3,%ebx              put 4:3
b904000000            mov $4,%ecx
f0480fc70f            lock cmpxchg16b (%rdi)
7524                  jne unfit
48833f03              cmpq $3,(%rdi)           memory has become 4:3
751e                  jne unfit
48837f0804            cmpq $4,8(%rdi)
7517                  jne unfit
f0480fc70f            lock cmpxchg16b (%rdi)   compare with 2:1, that is, not equal
7410                  je unfit
4883f803              cmp $3,%rax              the registers have become 4:3
750a                  jne unfit
4883fa04              cmp $4,%rdx
7504                  jne unfit
b02a                  mov $0x2a,%al            probeFit
eb02                  jmp say
b00b                  unfit: mov $0x0b,%al     probeUnfit
e6f4                  say: out %al,$0xf4
f4                    hlt
ebfd                  jmp .-1
0f1f00                align
0000000000000000      0x7cc0: segments: none,
00000000009a2000      8: code, 64 bits
0f00c07c0000          0x7cd0: 15, 0x7cc0       limit and address of the segments
`

// assemble makes a bootable sector, 512 bytes ending with 0x55 0xaa, of a listing whose lines begin with bytes in hexadecimal.
func assemble(listing string) ([]byte, error) {
	var sector []byte
	for line := range strings.Lines(listing) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		code, err := hex.DecodeString(fields[0])
		if err != nil {
			return nil, fmt.Errorf("listing line %q: %w", line, err)
		}
		sector = append(sector, code...)
	}
	if len(sector) > 510 {
		return nil, fmt.Errorf("%d bytes of code, 510 fit in a boot sector", len(sector))
	}
	sector = append(sector, make([]byte, 510-len(sector))...)
	return append(sector, 0x55, 0xaa), nil
}

// probe boots the probe's guest; nil when it has shown that such a guest works.
func probe(ctx context.Context, binary, accel, cpu string) error {
	sector, err := assemble(probeGuest)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "berth-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, append(sector, make([]byte, 1<<20)...), 0o600); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.CommandContext(limited, binary, "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35,vmport=off,hpet=off", "-accel", accel, "-cpu", cpu, "-m", "size=32M",
		"-action", "reboot=shutdown", // a guest that cannot go on resets itself: once is enough
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1",
		"-blockdev", blockdev(map[string]any{"driver": "raw", "node-name": "disk", "file": file(disk)}),
		"-device", "ide-hd,bus=ide.0,drive=disk")
	cmd.Env = environment()
	cmd.WaitDelay = time.Second
	said := &watcher{sign: []byte("KVM internal error"), seen: cancel} // after that QEMU stands still and waits for orders
	cmd.Stdout, cmd.Stderr = said, said
	err = cmd.Run()
	var exit *exec.ExitError
	switch words := said.words(); {
	case errors.As(err, &exit) && exit.ExitCode() == 2*probeFit+1:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() == 2*probeUnfit+1:
		return errors.New("the guest's cmpxchg16b gave a wrong result")
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil && words == "":
		return fmt.Errorf("the guest said nothing within %s", probeTime)
	case err == nil:
		return fmt.Errorf("QEMU ended before its guest said anything: %s", words)
	default:
		return fmt.Errorf("the guest died (%w): %s", err, words)
	}
}

// watcher keeps the beginning of what is written and calls seen when it contains the sign.
type watcher struct {
	sign []byte
	seen func()

	mu sync.Mutex
	b  []byte
}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const most = 64 << 10
	w.b = append(w.b, p[:min(len(p), most-len(w.b))]...)
	if bytes.Contains(w.b, w.sign) {
		w.seen()
	}
	return len(p), nil
}

func (w *watcher) words() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return printable(w.b[:min(len(w.b), 300)])
}
