package main

import (
	"os"
	"path/filepath"

	"berth/internal/disk"
)

// openExport opens an exported VM by its content. The parts of a split or flat VMDK and the disks of a bare OVF are
// opened by their bare names in the folder of the descriptor, and nowhere else. The envelope is to be closed.
func openExport(path string, opt disk.Options) (*disk.Envelope, error) {
	folder, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }() // what was opened in it stays open
	opt.Siblings = disk.SiblingsIn(folder)
	return disk.OpenFile(path, opt)
}
