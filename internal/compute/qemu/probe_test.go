package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/compute"
)

// TestProbeGuest: with software emulation, which has all that it asks for, the probe's guest succeeds; that shows that the guest
// is right, and that its failing elsewhere means something.
func TestProbeGuest(t *testing.T) {
	qemu, err := program("", "qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	if err := probe(t.Context(), qemu, "tcg", emulatedCPU); err != nil {
		t.Errorf("software emulation: %v", err)
	}
	for _, missing := range []string{"cx16", "lm"} {
		begin := time.Now()
		if err := probe(t.Context(), qemu, "tcg", emulatedCPU+","+missing+"=off"); err == nil || time.Since(begin) >= probeTime {
			t.Errorf("a processor without %s: %v", missing, err)
		}
	}
}

// TestProbeOutcomes stands programs in for QEMU that end as QEMU has been seen to.
func TestProbeOutcomes(t *testing.T) {
	for script, says := range map[string]string{
		"exit 85": "",
		"exit 23": "wrong result",
		"echo 'error: failed to set MSR 0x10a' >&2; kill -ABRT $$":            "failed to set MSR 0x10a",
		"echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60":           "KVM internal error. Suberror: 1",
		"echo 'Could not access KVM kernel module: No such file' >&2; exit 1": "Could not access KVM",
		"exit 0": "ended before its guest said anything",
		"head -c 10000000 /dev/zero | tr '\\0' x >&2; echo KVM internal error": "ended before",
	} {
		qemu := filepath.Join(t.TempDir(), "qemu")
		if err := os.WriteFile(qemu, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err := probe(t.Context(), qemu, "kvm", "host")
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v, want %q", script, err, says)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", script, len(err.Error()))
		}
		if took := time.Since(begin); took > probeTime/2 {
			t.Errorf("%s: took %s", script, took)
		}
	}
}

// TestAuto: whatever accelerator this host allows, the driver chooses one with which a machine runs, and says why.
func TestAuto(t *testing.T) {
	h := newHost(t)
	h.Accelerator = "auto"
	d := h.mustOpen()
	c := d.Capabilities()
	t.Logf("%s: %s", c.Accelerator, c.AcceleratorWhy)
	if c.Accelerator == "tcg" && !strings.Contains(c.AcceleratorWhy, "KVM does not work here: ") {
		t.Errorf("why: %s", c.AcceleratorWhy)
	}
	h.image(countingGuest)
	m := machineOf("auto")
	if got := h.ensure(m); got.State != compute.Running {
		t.Errorf("Ensure = %+v", got)
	}
	waitForBoots(t, h, m.ID, 1)
}

func TestAssemble(t *testing.T) {
	sector, err := assemble("fa cli\n\n ebfd jmp\n")
	if err != nil || len(sector) != 512 || string(sector[:4]) != "\xfa\xeb\xfd\x00" || string(sector[510:]) != "\x55\xaa" {
		t.Errorf("assemble = %x, %v", sector, err)
	}
	for _, bad := range []string{"xy what", "f half", strings.Repeat("90 nop\n", 511)} {
		if _, err := assemble(bad); err == nil {
			t.Errorf("assemble(%.20q) is accepted", bad)
		}
	}
}
