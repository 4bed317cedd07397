package check

import (
	"slices"
	"strings"
)

// Process is what an image is ingested as: a value of Amazon's WorkspaceImageIngestionProcess. It names the hardware of the
// WorkSpaces and the protocol that they are shown with (facts §6).
type Process string

// The ingestion processes of Amazon's service model, in its order.
const (
	Regular         Process = "BYOL_REGULAR"
	Graphics        Process = "BYOL_GRAPHICS"
	GraphicsPro     Process = "BYOL_GRAPHICSPRO"
	GraphicsG4DN    Process = "BYOL_GRAPHICS_G4DN"
	RegularWSP      Process = "BYOL_REGULAR_WSP"
	GraphicsG4DNWSP Process = "BYOL_GRAPHICS_G4DN_WSP"
	// The last two bring their own protocol.
	RegularBYOP      Process = "BYOL_REGULAR_BYOP"
	GraphicsG4DNBYOP Process = "BYOL_GRAPHICS_G4DN_BYOP"
)

// DefaultProcess is the only process for WorkSpaces without a graphics processor that the document knows.
const DefaultProcess = Regular

// Processes lists them; the slice is the caller's.
func Processes() []Process {
	return []Process{Regular, Graphics, GraphicsPro, GraphicsG4DN, RegularWSP, GraphicsG4DNWSP, RegularBYOP, GraphicsG4DNBYOP}
}

// Known reports whether the process is one of Amazon's; it is compared exactly.
func (p Process) Known() bool { return slices.Contains(Processes(), p) }

// Protocol is what WorkSpaces of the process are shown with.
func (p Process) Protocol() Protocol {
	switch {
	case strings.HasSuffix(string(p), "_WSP"):
		return WSP
	case strings.HasSuffix(string(p), "_BYOP"):
		return BYOP
	}
	return PCoIP
}

// Graphics reports whether the WorkSpaces have a graphics processor.
func (p Process) Graphics() bool { return strings.Contains(string(p), "GRAPHICS") }

// Protocol is a streaming protocol, spelt as the WorkSpaces API spells it.
type Protocol string

const (
	PCoIP Protocol = "PCOIP"
	// WSP is the WorkSpaces Streaming Protocol, which Amazon calls DCV by now.
	WSP Protocol = "WSP"
	// BYOP: bring your own protocol, for WorkSpaces Core.
	BYOP Protocol = "BYOP"
)
