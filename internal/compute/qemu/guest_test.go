package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"context"
)

// countingGuest is the boot sector of the tests' guest. It counts its boots in the second sector of its disk, shows the count
// as a letter (A: one) and waits for the power button, by ACPI's registers as SeaBIOS sets q35 up (0x600 PM1 status,
// 0x602 PM1 enable, 0x604 PM1 control; bit 8 is the button; 0x2000 in control is sleep type 0, enable: off).
//
// Memory: 0x7e00 the disk's number, 0x8000 the second sector ("BCNT", count), 0x9000 a copy of that once it is written.
const countingGuest = `
fa                    cli                      16 bits, at 0x7c00
31c0                  xor %ax,%ax
8ed8                  mov %ax,%ds
8ec0                  mov %ax,%es
8ed0                  mov %ax,%ss
bc007c                mov $0x7c00,%sp
fb                    sti
fc                    cld
8816007e              mov %dl,0x7e00           the disk's BIOS number
be837c                mov $0x7c83,%si
b442                  mov $0x42,%ah            extended read
cd13                  int $0x13
7245                  jc fail
66813e008042434e54    cmpl $0x544e4342,0x8000  "BCNT"
7412                  je known
66c706008042434e54    movl $0x544e4342,0x8000
66c706048000000000    movl $0,0x8004
66ff060480            known: incl 0x8004
be837c                mov $0x7c83,%si
8a16007e              mov 0x7e00,%dl
b80043                mov $0x4300,%ax          extended write
cd13                  int $0x13
7215                  jc fail
66a10480              mov 0x8004,%eax
66a30490              mov %eax,0x9004
66c706009042434e54    movl $0x544e4342,0x9000
0440                  add $0x40,%al
eb02                  jmp show
b021                  fail: mov $0x21,%al      an exclamation mark
b40e                  show: mov $0x0e,%ah      write on the screen
bb0700                mov $7,%bx
cd10                  int $0x10
ba0206                mov $0x602,%dx
b80001                mov $0x100,%ax           enable the button
ef                    out %ax,%dx
f4                    wait: hlt
ba0006                mov $0x600,%dx
ed                    in %dx,%ax
a90001                test $0x100,%ax
74f6                  jz wait
ba0406                mov $0x604,%dx
b80020                mov $0x2000,%ax
ef                    out %ax,%dx
ebed                  jmp wait
10000100              0x7c83: 16 bytes, one sector,
00800000              to 0:0x8000,
0100000000000000      sector 1
`

// deafGuest is the same without the power button: it enables nothing.
var deafGuest = strings.Replace(countingGuest, "b80001  ", "b80000  ", 1)

// sealedImage makes a sealed image of 1 GiB that boots the guest.
func sealedImage(t testing.TB, guest string) string {
	t.Helper()
	sector, err := assemble(guest)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	raw, image := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	if err := os.WriteFile(raw, sector, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(raw, 1<<30); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	return image
}

// human runs a command of QEMU's monitor for people.
func human(ctx context.Context, m *machine, line string) (string, error) {
	answer, err := m.command(ctx, "human-monitor-command", map[string]any{"command-line": line})
	if err != nil {
		return "", err
	}
	var said string
	err = json.Unmarshal(answer, &said)
	return said, err
}

// guestBoots reads the count from the guest's memory, where it is put after it was written to the disk. It also has QEMU
// flush the disk, as an operating system would: a count that was seen outlives a killed QEMU.
func guestBoots(ctx context.Context, d *driver, id string) (int, error) {
	m, err := d.machine(id)
	if err != nil {
		return 0, err
	}
	said, err := human(ctx, m, "xp /2xw 0x9000")
	if err != nil {
		return 0, err
	}
	var at, magic, count int
	if _, err := fmt.Sscanf(said, "%x: 0x%x 0x%x", &at, &magic, &count); err != nil {
		return 0, fmt.Errorf("xp said %q: %w", said, err)
	}
	if magic != 0x544e4342 {
		return 0, errors.New("the guest has not counted yet")
	}
	if said, err := human(ctx, m, `qemu-io root "flush"`); err != nil || said != "" {
		return 0, fmt.Errorf("flush: %q, %w", said, err)
	}
	return count, nil
}
