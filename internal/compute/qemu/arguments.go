package qemu

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
)

// Names of what is in a machine's folder. QEMU is started inside it, and so can take the sockets' short names: see dialIn.
const (
	recordFile    = "machine.json"
	rootVolume    = "root.qcow2"
	userVolume    = "user.qcow2"
	firmwareFile  = "firmware-vars.fd"
	logFile       = "qemu.log"
	pidFile       = "qemu.pid"
	monitorSocket = "qmp.sock"
	displaySocket = "vnc.sock"
)

// hardware is all that a machine's command line is made of.
type hardware struct {
	id        string
	folder    string // the machine's, absolute
	image     string // the sealed image under the root volume, absolute
	base      string // what is under that one, absolute; empty: nothing
	user      bool   // there is a user volume
	vcpus     int
	memoryMiB int
	accel     accelerator
	uefi      string // path of the firmware's code; empty: BIOS
}

// arguments is QEMU's command line for a machine: the same hardware, the same line.
//
// The disks are on AHCI and the network is an e1000e because Windows has drivers for both before anyone installs any. The
// clock is UTC because a BYOL image must have RealTimeIsUniversal set. One socket, because Windows editions for desktops use
// two at most. Nothing is found by QEMU itself: no defaults, no configuration files, no probing of formats, and not the
// file names that a disk's header mentions.
func arguments(h hardware) []string {
	machine := "q35,vmport=off,hpet=off"
	var firmware []string
	if h.uefi == "" {
		// SeaBIOS would go through system management mode for its drivers. Under software emulation QEMU 7.2 can then run what a
		// guest has drawn on the screen's memory in place of the BIOS's code there, and the guest hangs.
		machine += ",smm=off"
	} else {
		machine += ",pflash0=code,pflash1=vars"
		firmware = []string{
			"-blockdev", blockdev(map[string]any{
				"driver": "raw", "node-name": "code", "read-only": true, "file": file(h.uefi),
			}),
			"-blockdev", blockdev(map[string]any{
				"driver": "raw", "node-name": "vars", "file": file(filepath.Join(h.folder, firmwareFile)),
			}),
		}
	}
	line := []string{
		"-name", "guest=" + h.id + ",debug-threads=on",
		"-pidfile", filepath.Join(h.folder, pidFile), // also what this process is recognised by
		"-nodefaults", "-no-user-config",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-msg", "timestamp=on",
		"-machine", machine,
		"-accel", h.accel.name, "-cpu", h.accel.cpu,
		"-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", h.vcpus, h.vcpus),
		"-m", fmt.Sprintf("size=%dM", h.memoryMiB),
		"-uuid", uuid(h.id),
		"-rtc", "base=utc,driftfix=slew",
		"-boot", "menu=off,strict=on",
		// No sleep states: a machine that sleeps cannot be told from one that hangs.
		"-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1",
		"-chardev", "socket,id=qmp,path=" + monitorSocket + ",server=on,wait=off", "-mon", "chardev=qmp,mode=control",
		"-device", "VGA,vgamem_mb=16",
		"-vnc", "unix:" + displaySocket + ",share=force-shared",
		// The keyboard is the board's own (PS/2): with a USB one QEMU sends it all keys, and a BIOS guest sees none of them.
		"-device", "qemu-xhci,id=usb", "-device", "usb-tablet,bus=usb.0",
		// restrict: the guest reaches neither this host nor anything beyond it.
		"-netdev", "user,id=net0,restrict=on", "-device", "e1000e,netdev=net0,romfile=,mac=" + mac(h.id),
	}
	line = append(line, firmware...)
	line = append(line,
		"-blockdev", blockdev(map[string]any{
			"driver": "qcow2", "node-name": "root", "discard": "unmap", "detect-zeroes": "unmap",
			"file": file(filepath.Join(h.folder, rootVolume)),
			"backing": map[string]any{
				"driver": "qcow2", "node-name": "image", "read-only": true, "file": file(h.image), "backing": under(h.base),
			},
		}),
		"-device", "ide-hd,bus=ide.0,drive=root,serial=root,rotation_rate=1,bootindex=1", // 1: a disk that does not rotate
	)
	if h.user {
		line = append(line,
			"-blockdev", blockdev(map[string]any{
				"driver": "qcow2", "node-name": "user", "discard": "unmap", "detect-zeroes": "unmap", "backing": nil,
				"file": file(filepath.Join(h.folder, userVolume)),
			}),
			"-device", "ide-hd,bus=ide.1,drive=user,serial=user,rotation_rate=1",
		)
	}
	return line
}

// under is what shows through where an image has nothing: zeros, or another image.
func under(base string) any {
	if base == "" {
		return nil
	}
	return map[string]any{"driver": "qcow2", "node-name": "base", "read-only": true, "file": file(base), "backing": nil}
}

func file(path string) map[string]any {
	return map[string]any{"driver": "file", "filename": path}
}

// blockdev writes a block device's options as JSON, in which no path needs escaping.
func blockdev(options map[string]any) string {
	b, err := json.Marshal(options)
	if err != nil {
		panic(err) // strings, booleans and maps of them
	}
	return string(b)
}

// uuid is the machine's serial number, the same each time it is turned on: Windows' activation looks at it.
// It is of version 8, "custom" (RFC 9562, 5.8), made from the id.
func uuid(id string) string {
	b := sha256.Sum256([]byte("berth machine " + id))
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// mac is the network adapter's address: locally administered (the second bit of the first byte), made from the id.
func mac(id string) string {
	b := sha256.Sum256([]byte("berth adapter " + id))
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4])
}

// firmwares are the places where distributions put OVMF without Secure Boot: its code, and its variables as they are at first.
var firmwares = []struct{ code, vars string }{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},           // Debian's package ovmf
	{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},                 // Debian 11, Fedora
	{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},   // Arch
	{"/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"}, // openSUSE
}
