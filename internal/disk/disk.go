// Package disk reads virtual disks as hypervisors export them, without trusting them.
//
// A disk is opened by its content (never by its name) and is then an io.ReaderAt over the bytes the guest saw, plus a map
// of which of those bytes are stored at all. An exported machine is an [Envelope]: the disks, and what the export says about
// the hardware around them. Nothing inside a file makes this package open another file: every such reference is a [Refusal],
// but for the extents of a split disk and the disks of a bare OVF, which the caller hands in by bare name ([Options]).
//
// A format is one file and one entry in [Formats]; what it contributes is a layout, which tells where a byte of the guest's
// disk is stored. Reading, caching, inflating and bounds are the same for all.
//
// Memory does not depend on what a file says of itself: tables are read a page at a time, and at most 10 MiB of them and of
// inflated blocks are kept for an Envelope.
//
// It writes raw disks and QCOW2 ([Copy], [CopyFile]), and knows no file system; partition tables ([Partitions]) are as deep as it looks.
// Start reading at [Open].
package disk

import (
	"fmt"
	"io"
	"iter"
)

// Kind says how a range of the guest's disk is stored.
type Kind uint8

const (
	// Data is stored as it is.
	Data Kind = iota + 1
	// Compressed is stored, and must be inflated to be read.
	Compressed
	// Zero reads as zeros because the format says so.
	Zero
	// Unallocated reads as zeros because nothing was ever written.
	Unallocated
)

// Extent is a range of the guest's disk, in bytes, that is stored in one way.
type Extent struct {
	Start, Length int64
	Kind          Kind
	// At is the byte of the disk's own file (Disk.Offset on, in the uploaded file) where Data begins, or the one block that a
	// Compressed extent is: in a VMDK the grain's marker, in a QCOW2 the deflate or zstd data. It is -1 where nothing is stored,
	// where it is stored in a sibling, and in a VHDX whose log had to be replayed.
	At int64
}

// Image is one virtual disk. ReadAt is safe for concurrent use and reads io.EOF at Size.
type Image interface {
	io.ReaderAt
	// Size is the virtual size in bytes; -1 for a disk that can only be read from its beginning to its end (Options.Sequential).
	Size() int64
	// Extents yields ranges in ascending order that cover exactly [0, Size); neighbours differ in Kind, or
	// are not stored one behind the other. Tables are read as the sequence goes on. A yielded error ends it; its Extent has no Length and starts where the disk cannot be read.
	Extents() iter.Seq2[Extent, error]
}

// Source is the bytes of an uploaded file. *os.File with its size, or a section of one.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Refusal is a disk or export that Berth will not read, and says why: it is encrypted, refers to another file, is of an
// unsupported sub-format, or is damaged. It is about the input, never about this machine.
type Refusal struct {
	// Format is the container format as far as it was recognised: "OVA", "OVF", "VMDK", "VHD", "VHDX", "QCOW2", "RAW", "GZIP", "XZ"; or the kind
	// of partition table, "GPT" or "MBR".
	Format string
	// Reason is one of the Reason constants: what kind of thing is wrong.
	Reason Reason
	// Field names the header field or the part at fault, Offset where it is, in bytes (-1: not at one place): in the
	// uploaded file, in a sibling for what is in one, on the guest's disk for a partition table.
	Field  string
	Offset int64
	// Detail is one sentence for people.
	Detail string
}

// Reason classifies a Refusal.
type Reason string

const (
	Damaged         Reason = "damaged"          // cannot be right: bad magic, checksum, size, loop
	Unsupported     Reason = "unsupported"      // right, but a variant that is not read
	RefersElsewhere Reason = "refers elsewhere" // backing file, parent, external data file, a path in an extent
	Encrypted       Reason = "encrypted"        // qcow2 or LUKS encryption of the container
	TooLarge        Reason = "too large"        // virtual size over the policy
	Chunked         Reason = "chunked"          // an OVA whose disk is cut into chunk files
	NotADisk        Reason = "not a disk"       // nothing that this package knows
)

func (r *Refusal) Error() string {
	at := ""
	if r.Offset >= 0 {
		at = fmt.Sprintf(" at byte %d", r.Offset)
	}
	return fmt.Sprintf("%s disk refused (%s): %s%s: %s", r.Format, r.Reason, r.Field, at, r.Detail)
}

// Options bound what Open accepts. The zero value means the defaults.
type Options struct {
	// MaxSize is the largest virtual size accepted, in bytes; 0 is DefaultMaxSize.
	MaxSize int64
	// Format, when set ("RAW", "VMDK", ..., in any case), is what the user says the file is. A raw disk that begins like another format
	// is then read as raw, and Envelope.Warnings says so. Any other disagreement is a Refusal.
	Format string
	// Sequential accepts a raw disk inside a gzip or xz file. Its Size is -1, and only [Copy] reads it: ReadAt and Extents
	// refuse. Without it such a file is refused.
	Sequential bool
	// Siblings opens another file of the same upload by its bare name (split and flat VMDK, the disks of an OVF). nil: there are none. A name
	// that is not there is an error that satisfies errors.Is(err, fs.ErrNotExist). Inside an OVA its members are the siblings.
	Siblings func(name string) (Source, error)
	// Name is the file's own bare name among its siblings; OpenFile sets it. A bare OVF's manifest has that name with .mf for .ovf.
	Name string
}

// Envelope is an exported machine: one or more disks and what the export says about the hardware.
type Envelope struct {
	// Format is what the file itself is: "OVA", "OVF", or the format of its only disk.
	Format   string
	Disks    []Disk
	Hardware Hardware
	// Warnings are sentences for people: manifest not verified, raw disk that looks like qcow2, ...
	Warnings []string

	manifest *manifest   // of an OVA or OVF, nil: it has none
	closers  []io.Closer // what Close closes
}

// Disk is one disk of an Envelope.
type Disk struct {
	// Name is the file's name inside the OVA or beside the OVF, empty for a bare disk.
	Name string
	// Format and SubFormat: "VMDK" "streamOptimized", "VHD" "dynamic", "QCOW2" "", ...
	Format, SubFormat string
	// Offset and Length locate the disk's file inside the uploaded file, in bytes (0 and the file's size for a bare disk).
	// QEMU's raw driver takes them, so that a disk inside an OVA is never unpacked. Of a flat or split VMDK and of
	// an OVF it is the descriptor; QEMU does not read a VHDX here whose log had to be replayed (Envelope.Warnings says so).
	Offset, Length int64
	Image
}

// Hardware is what an OVF descriptor says. The zero value means that nothing is said.
type Hardware struct {
	Name     string   // the machine's name
	OSType   string   // as written, e.g. "windows9_64Guest"; CIM's number for it where the OVF has nothing better
	Firmware string   // "efi", "bios" or "" (not said)
	NICs     int      // network adapters
	CDROMs   int      // CD or DVD drives
	CDImages []string // files attached to them, names only, never opened
	VCPUs    int
	MemoryMB int64
}
