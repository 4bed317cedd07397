// Package hostile holds disks that were made to harm whoever opens them, and what Berth must say of each. Besides it has the bounds
// that hold for whatever a stranger's file makes Berth do ([Bounded]). It is for tests.
//
// It makes no files and knows no format: the packages whose readers they are for do, and hold the folder to what they make ([Keep]).
// Start reading at [Files] and README.md.
package hostile

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed *.txt *.gz
var folder embed.FS

// Indexes are the lists of files: what is wrong with the container or the partition table, and what with the Windows inside.
var Indexes = []string{Containers, Windows}

const (
	Containers = "containers.txt"
	Windows    = "windows.txt"
)

// largest bounds what a file of the folder unpacks to, in bytes.
const largest = 64 << 20

// File is a file as a stranger hands it in.
type File struct {
	// Name is the file's bare name. It ends as files of its kind do, which tells nobody anything.
	Name string
	// Format, when set, is what the user says that the file is (--format).
	Format string
	// Check and Inspect are the exit codes of berth check and berth inspect: 2, it is refused; 1, it is read and not fit; 0, it is read.
	Check, Inspect int
	// Says is what both must say: of a refusal the format, the reason, the field and its offset.
	Says string

	data []byte
}

// Files lists the folder, in the order of its indexes.
func Files() ([]File, error) {
	var all []File
	for _, index := range Indexes {
		text, err := folder.ReadFile(index)
		if err != nil {
			return nil, err
		}
		files, err := parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", index, err)
		}
		all = append(all, files...)
	}
	return all, nil
}

// Data is what is in the file.
func (f *File) Data() ([]byte, error) {
	if f.data != nil {
		return f.data, nil
	}
	packed, err := folder.ReadFile(f.Name + ".gz")
	if err != nil {
		return nil, err
	}
	return unpack(packed)
}

// Make is the file f with what is in it, for Keep.
func Make(f File, data []byte) File {
	f.data = slices.Clip(append([]byte{}, data...))
	return f
}

// line is the file's line in its index.
func (f *File) line() string {
	said := ""
	if f.Format != "" {
		said = " --format " + f.Format
	}
	return fmt.Sprintf("%d %d %s%s: %s\n", f.Check, f.Inspect, f.Name, said, f.Says)
}

func parse(text string) ([]File, error) {
	var files []File
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); line == "" || line[0] == '#' {
			continue
		}
		head, says, ok := strings.Cut(line, ": ")
		words := strings.Fields(head)
		f := File{Says: says}
		if len(words) == 5 && words[3] == "--format" {
			f.Format, words = words[4], words[:3]
		}
		if !ok || says == "" || len(words) != 3 {
			return nil, fmt.Errorf("not understood: %q", line)
		}
		if _, err := fmt.Sscan(words[0]+" "+words[1], &f.Check, &f.Inspect); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		f.Name = words[2]
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, errors.New("it lists nothing")
	}
	return files, nil
}

// heading begins an index.
const heading = `# One file a line: the exit codes of berth check and berth inspect, the file (kept as FILE.gz), and what both say.
# Made by %s; README.md tells how.
`

// Keep holds an index and its files in the folder dir against what maker made: with update they are written, and files that are in
// no index any more are removed; without, a difference is the error.
func Keep(dir, index, maker string, made []File, update bool) error {
	want := fmt.Appendf(nil, heading, maker)
	names := map[string]bool{}
	for i := range made {
		if made[i].Name != filepath.Base(made[i].Name) || names[made[i].Name] {
			return fmt.Errorf("%s: the name is no bare one, or there twice", made[i].Name)
		}
		names[made[i].Name] = true
		want = append(want, made[i].line()...)
	}
	if update {
		return write(dir, index, want, made)
	}
	have, err := os.ReadFile(filepath.Join(dir, index))
	if err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		lines := map[string]bool{}
		for line := range strings.Lines(string(have)) {
			lines[line] = true
		}
		var other []string
		for line := range strings.Lines(string(want)) {
			if !lines[line] {
				other = append(other, line)
			}
		}
		return fmt.Errorf("%s is not what is made now: run go test with -update. It lacks %q", index, other)
	}
	for _, f := range made {
		packed, err := os.ReadFile(filepath.Join(dir, f.Name+".gz"))
		if err != nil {
			return err
		}
		if data, err := unpack(packed); err != nil || !bytes.Equal(data, f.data) {
			return errors.Join(err, fmt.Errorf("%s is not what is made now: run go test with -update", f.Name))
		}
	}
	return nil
}

func write(dir, index string, text []byte, made []File) error {
	old, err := os.ReadFile(filepath.Join(dir, index))
	if err == nil {
		files, err := parse(string(old))
		if err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
		for _, f := range files {
			if err := os.Remove(filepath.Join(dir, f.Name+".gz")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range made {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := z.Write(f.data); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name+".gz"), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, index), text, 0o644)
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(z, largest+1))
	if err == nil && len(data) > largest {
		err = fmt.Errorf("it unpacks to more than %d bytes", largest)
	}
	return data, err
}
