package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestArguments(t *testing.T) {
	bios := hardware{
		id: "ws-0123456789", folder: "/data/machines/ws-0123456789", image: "/data/images/wsi-0123456789.qcow2",
		vcpus: 2, memoryMiB: 4096, accel: accelerator{name: "tcg", cpu: emulatedCPU},
	}
	uefi := bios
	uefi.user, uefi.uefi, uefi.accel = true, "/usr/share/OVMF/OVMF_CODE_4M.fd", accelerator{name: "kvm", cpu: hostCPU}
	odd := bios
	odd.folder, odd.image = `/da ta,with=all"kinds/machines/ws-0123456789`, `/da ta,with=all"kinds/images/wsi-0123456789.qcow2`
	for name, h := range map[string]hardware{"bios": bios, "uefi": uefi, "odd-path": odd} {
		got := strings.Join(arguments(h), "\n") + "\n"
		golden := filepath.Join("testdata", name+".args")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: arguments differ from %s (go test -update writes it anew):\n%s", name, golden, got)
		}
	}
}

// TestIdentity: serial number and adapter's address are the same for the same id only, and of the form that they must have.
func TestIdentity(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"a", "b", "ws-1", "ws-2"} {
		if u, m := uuid(id), mac(id); u != uuid(id) || m != mac(id) {
			t.Errorf("%s: not the same twice", id)
		}
		for _, identity := range []string{uuid(id), mac(id)} {
			if other, ok := seen[identity]; ok {
				t.Errorf("%s and %s are both %s", id, other, identity)
			}
			seen[identity] = id
		}
		if u := uuid(id); len(u) != 36 || u[14] != '8' || !strings.ContainsRune("89ab", rune(u[19])) {
			t.Errorf("%s: uuid %s is not of version 8", id, u)
		}
		if m := mac(id); len(m) != 17 || m[:3] != "02:" {
			t.Errorf("%s: address %s is not locally administered", id, m)
		}
	}
}
