// Package compute runs machines: the desktops' virtual hardware.
//
// A [Driver] is declarative: Ensure moves a machine towards what is wanted and may be called again after any crash. The caller
// chooses ids. Volumes belong to the driver. What a driver cannot do is data in its [Capabilities], not an error at midnight.
// qemu is the driver for one host, memory its twin for tests; computetest holds both to the same behaviour.
//
// It does not know WorkSpaces, users or images' contents. Start reading at [Driver].
package compute

import (
	"context"
	"errors"
	"net"
)

// Driver runs machines. All methods are safe for concurrent use; calls for one machine are serialised by the driver.
type Driver interface {
	Capabilities() Capabilities
	// EnsureImage makes the sealed image at path (a standalone qcow2, bytes never change) known under id. Idempotent.
	// The driver may link or copy; it never writes to path. Under it there may be one more image of the same size (base), which
	// shows where path has nothing: so that images that differ in little share the rest. Neither names the other.
	EnsureImage(ctx context.Context, id, path string, base ...string) error
	// DeleteImage forgets an image. ErrInUse while a machine is cloned from it. Deleting an unknown image is no error.
	DeleteImage(ctx context.Context, id string) error
	// Ensure makes the machine exist as wanted: volumes created (once), running or off, on its Boots-th boot. It returns
	// when that is reached or ctx ends. Calling it again with the same Machine does nothing.
	Ensure(ctx context.Context, m Machine) (Status, error)
	// Status looks at a machine. ErrNotFound when it does not exist.
	Status(ctx context.Context, id string) (Status, error)
	// List looks at every machine the driver has, running or not, also after the driver's own restart.
	List(ctx context.Context) ([]Status, error)
	// Delete stops the machine and removes it with its volumes. Nothing of it outlives the call. Unknown: no error.
	Delete(ctx context.Context, id string) error
	// Display dials the machine's screen: an RFB (RFC 6143) byte stream. ErrOff when it does not run.
	Display(ctx context.Context, id string) (net.Conn, error)
	// Screenshot is the screen as PNG. ErrOff when it does not run.
	Screenshot(ctx context.Context, id string) ([]byte, error)
	// Close lets go of the machines without stopping them: they are found again by the next driver on the same data.
	Close() error
}

var (
	ErrNotFound = errors.New("compute: no such machine")
	ErrOff      = errors.New("compute: the machine is not running")
	ErrInUse    = errors.New("compute: in use")
	ErrNoImage  = errors.New("compute: no such image")
	// ErrInvalid: what was asked for can never be, here or at all; asking again changes nothing.
	ErrInvalid = errors.New("compute: invalid")
)

// Capabilities is what a driver can do here.
type Capabilities struct {
	Name        string // "qemu"
	Accelerator string // "kvm", "tcg" (software emulation), "none"
	// AcceleratorWhy says how that was found, for people: the probe's outcome.
	AcceleratorWhy string
	Firmwares      []Firmware
	Hibernate      bool
}

// Firmware is what boots the machine.
type Firmware string

const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

// Machine is what is wanted.
type Machine struct {
	// ID is chosen by the caller: [a-z0-9-]{1,64}.
	ID string
	// Image is the sealed image that the root volume is a copy-on-write clone of. Used when the volume is first made.
	Image string
	// RootGiB and UserGiB are the volumes' sizes. A volume only grows: a smaller number than the volume has, or a root
	// smaller than the image, is ErrInvalid. UserGiB 0: no user volume. A running machine's volumes grow while it runs.
	RootGiB, UserGiB int
	// VCPUs, MemoryMiB and Firmware hold from the next time the machine is turned on; a reboot does not change them.
	VCPUs     int
	MemoryMiB int
	Firmware  Firmware
	// Running: on or off. Turning off asks the guest (ACPI) and, after the driver's grace time, pulls the plug.
	Running bool
	// Boots numbers the wanted boot, from 1. A running machine with a lower number is reset once, by however much it was
	// raised, so that a reboot is asked for by raising it, and a repeated request reboots once. Being turned on counts as
	// reaching the number. A number lower than the one reached asks for nothing.
	Boots int
}

// State is what a machine is doing.
type State string

const (
	Off     State = "off"
	Running State = "running"
	// Failed: it should run and does not (it crashed, or QEMU ended); Status.Why says what is known.
	Failed State = "failed"
)

// Status is what a machine is.
type Status struct {
	ID    string
	State State
	Boots int // the boot it is on, as last reached
	Why   string
	// IP is the guest's address where the driver knows it, else "".
	IP string
}
