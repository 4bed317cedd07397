// Package machines holds the phony Windows machines that all tests share, and that the demo's sample VM is made from: one
// txtar archive each. README.md here tells how they are written; package phony makes disks of them.
//
// It holds texts and no code.
package machines

import "embed"

// FS holds every machine as NAME.txtar.
//
//go:embed *.txtar
var FS embed.FS
