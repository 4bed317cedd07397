package disk

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"

	"berth/testdata/hostile"
)

var update = flag.Bool("update", false, "write the files in testdata/hostile anew")

// TestHostileFolder holds the files that the program is tested with against those of this package: the same bytes, refused for the
// same reason. What only Options say (a size over policy) is no property of a file, and is not in the folder.
func TestHostileFolder(t *testing.T) {
	var made []hostile.File
	for _, h := range hostileFiles(t) {
		if h.opt.MaxSize > 0 {
			continue
		}
		var r *Refusal
		if err := h.refusal(t); !errors.As(err, &r) {
			t.Fatalf("%s: %v", h.name, err)
		}
		at := ""
		if r.Offset >= 0 {
			at = fmt.Sprintf(" at byte %d", r.Offset)
		}
		f := hostile.File{
			Name: hostileName(h.name), Format: h.opt.Format, Check: 2, Inspect: 2,
			Says: fmt.Sprintf("%s disk refused (%s): %s%s", r.Format, r.Reason, r.Field, at),
		}
		if h.read || h.table {
			f.Inspect = 0 // it tells what it found, and that this is what it is
		}
		made = append(made, hostile.Make(f, h.file))
	}
	if err := hostile.Keep("../../testdata/hostile", hostile.Containers, "internal/disk", made, *update); err != nil {
		t.Error(err)
	}
}

// hostileName makes a file's name of a case's.
func hostileName(name string) string {
	kind, _, _ := strings.Cut(strings.ToLower(name), " ")
	end := map[string]string{"qcow2": ".qcow2", "vmdk": ".vmdk", "vhd": ".vhd", "vhdx": ".vhdx", "ova": ".ova", "ovf": ".ovf", "gzip": ".gz", "xz": ".xz"}[kind]
	if end == "" {
		end = ".raw"
	}
	name = strings.ReplaceAll(name, "..", "dotdot")
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return strings.Join(words, "-") + end
}
