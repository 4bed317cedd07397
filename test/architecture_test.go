// Package test holds what concerns Berth as a whole: its architecture, and the eight steps as stories.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// floors are the packages from the top down (ARCHITECTURE.md). A package imports packages of lower floors only, of its own
// floor only where beside says so, and its parent.
var floors = [][]string{
	{"cmd/berth", "cmd/berth-checker"},
	{"internal/desk"},
	{"internal/image"},
	{"internal/check", "internal/check/report", "internal/guest", "internal/gateway", "internal/console", "internal/phony", "internal/phony/phonytest"},
	{"internal/windows", "internal/windows/offline", "internal/windows/live", "internal/windows/registry", "internal/windows/ntfs", "internal/compute", "internal/compute/qemu", "internal/compute/memory", "internal/compute/computetest"},
	{"internal/disk", "internal/disk/disktest", "internal/directory", "internal/directory/builtin", "internal/awsapi", "internal/awsapi/modelgen", "internal/s3", "internal/store", "internal/store/storetest", "testdata/machines", "testdata/hostile"},
	{"internal/inflate"},
}

// beside are the imports within a floor that are meant, besides those of a parent.
var beside = map[string][]string{
	"internal/console":         {"internal/gateway"},
	"internal/windows/offline": {"internal/windows/registry", "internal/windows/ntfs"},
	"internal/s3":              {"internal/awsapi"},
}

type pkg struct {
	ImportPath     string
	Imports        []string
	IgnoredGoFiles []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	var ps []pkg
	for _, system := range []string{"linux", "windows"} { // the floors hold for the files of either
		cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,IgnoredGoFiles", "berth/...")
		cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var p pkg
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			ps = append(ps, p)
		}
	}
	return ps
}

func floorOf(name string) int {
	return slices.IndexFunc(floors, func(f []string) bool { return slices.Contains(f, name) })
}

func TestArrowsGoDown(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "berth/")
		if name == "test" {
			continue
		}
		floor := floorOf(name)
		if floor < 0 {
			t.Errorf("package %s is on no floor: put it into floors, and into ARCHITECTURE.md", name)
			continue
		}
		for _, im := range p.Imports {
			other, ours := strings.CutPrefix(im, "berth/")
			if !ours {
				continue
			}
			down := floorOf(other) > floor
			parent := strings.HasPrefix(name, other+"/")
			if !down && !parent && !slices.Contains(beside[name], other) {
				t.Errorf("%s imports %s, which is not below it", name, other)
			}
		}
	}
}

func TestSDKStaysWhereItBelongs(t *testing.T) {
	allowed := []string{"cmd/berth", "internal/desk", "internal/awsapi", "internal/awsapi/modelgen", "internal/s3"}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "berth/")
		for _, im := range p.Imports {
			if strings.HasPrefix(im, "github.com/aws/") && !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s", name, im)
			}
		}
	}
}

// TestTestSupportIsForTests: what is named after tests is imported by tests alone, and phony besides by the program for its sample.
func TestTestSupportIsForTests(t *testing.T) {
	by := map[string][]string{
		"internal/phony":               {"cmd/berth", "internal/phony/phonytest"},
		"internal/phony/phonytest":     nil,
		"internal/compute/computetest": nil,
		"internal/disk/disktest":       nil,
		"internal/store/storetest":     nil,
	}
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "berth/")
		seen[name] = true
		if _, known := by[name]; !known && name != "test" && strings.HasSuffix(name, "test") {
			t.Errorf("%s: who may import it?", name)
		}
		for _, im := range p.Imports {
			if may, support := by[strings.TrimPrefix(im, "berth/")]; support && !slices.Contains(may, name) {
				t.Errorf("%s imports %s, which is for tests", name, im)
			}
		}
	}
	for name := range by {
		if !seen[name] {
			t.Errorf("there is no %s: is this test still looking?", name)
		}
	}
}

// TestBuildTags: what is compiled for one system only is where the running Windows is asked, and where a file is locked.
func TestBuildTags(t *testing.T) {
	allowed := []string{"internal/windows/live", "cmd/berth-checker", "internal/disk"} // disk: locks on files
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "berth/")
		seen[name] = seen[name] || len(p.IgnoredGoFiles) > 0
		if len(p.IgnoredGoFiles) > 0 && !slices.Contains(allowed, name) {
			t.Errorf("%s has files that not every system compiles: %q", name, p.IgnoredGoFiles)
		}
	}
	for _, name := range allowed {
		if !seen[name] {
			t.Errorf("%s has no file of that kind: is this test still looking?", name)
		}
	}
}

func TestNamesSayWhatPackagesAreFor(t *testing.T) {
	empty := []string{"util", "utils", "common", "helper", "helpers", "base", "types", "model", "models", "manager", "misc", "shared", "lib"}
	for _, p := range packages(t) {
		if slices.Contains(empty, path.Base(p.ImportPath)) {
			t.Errorf("%s: a name that says nothing", p.ImportPath)
		}
	}
}
