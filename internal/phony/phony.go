// Package phony makes Windows machines from text, for tests and for the demo's sample VM.
//
// A machine is a txtar archive: how the disk is laid out, its registry in regedit's text, its local accounts, its files, and
// what the checks should find. Out of that come a partition table, NTFS volumes with folders and files, hives, a SAM, and
// boot code that draws a screen; written as a raw disk, as any format of qemu-img, or as an OVA. [Machine.WriteRaw] is
// deterministic: the same text gives the same bytes.
//
// It makes no Windows: no file has Microsoft's contents, and what runs is Berth's own boot code. It needs mkntfs (package
// ntfs-3g) and, for formats other than raw, qemu-img; neither root nor loop devices nor FUSE. It runs on Linux.
//
// Start reading at [Load] and testdata/machines/README.md.
package phony

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/tools/txtar"

	"berth/internal/windows"
	"berth/internal/windows/registry"
	"berth/testdata/machines"
)

// Machine is a phony Windows machine, ready to be written.
type Machine struct {
	// Name is that of the text it came from, without ".txtar". Summary is the text's first line.
	Name, Summary string
	// DiskBytes is the size of its only disk.
	DiskBytes int64
	Scheme    windows.Scheme
	// Signature is the MBR's disk signature, or what the GPT's GUIDs are made from.
	Signature  uint32
	Partitions []Partition
	// Installed is the time that every file, key and account bears.
	Installed time.Time
	// SID is the machine's own identifier, "S-1-5-21-...": the accounts' SIDs are this and their RID.
	SID      string
	Accounts []Account
	// Registry has a key for each hive, as registry.Parse makes it; NTUSER is the default user's hive, "NTUSER Joe" that of C:\Users\Joe.
	Registry *registry.Node
	Hardware Hardware
	// Guest is what the machine answers while it runs; nil where its text has no section live.
	Guest *Guest
	// Profile, Process and Office are what the machine is judged for; empty is the checks' default.
	Profile, Process string
	Office           bool
	// Findings is what the checks should say, by code: "FAIL", "WARN", "UNKNOWN", "NOT_APPLICABLE" or "PASS". A code that is not here is
	// expected to pass, or to be open where a powered-off disk cannot tell. LiveFindings is what they say otherwise of the running machine.
	Findings, LiveFindings map[string]string
	// Refused, when set, is why the machine cannot be checked at all: "BitLocker", "no Windows".
	Refused string

	files []file
}

// Partition is a partition of the machine's disk and the volume in it.
type Partition struct {
	// Name is how the text calls it; "windows" is C:, "boot" holds the boot manager.
	Name string
	// Start and Length are in bytes. Both are multiples of a sector; Start is one of 1 MiB.
	Start, Length int64
	// Type is an MBR type (0x07) or, on a GPT, the type's GUID in upper case.
	Type   string
	Active bool // MBR: status 0x80
	// FileSystem is "ntfs", "fat" (FAT32), "bitlocker" (whose files are lost in it) or "none".
	FileSystem string
	Label      string
	Dirty      bool // NTFS: not taken off cleanly

	size int64 // as asked for, -1: the rest
}

// Hardware is what the OVA's descriptor says of the machine.
type Hardware struct {
	OSType   string // VMware's name for the guest
	Firmware string // "bios" or "efi"
	VCPUs    int
	MemoryMB int64
	NICs     int
	CDROMs   int
}

// file is a line of the files section.
type file struct {
	partition, path string
	node            node
}

// Base is the machine that passes every check: the sample VM.
const Base = "win10-2004-enterprise"

// Load reads one of the machines in testdata/machines, without ".txtar". They are in the program: no file is opened.
func Load(name string) (*Machine, error) { return LoadFS(machines.FS, name) }

// Names lists the machines that Load knows, sorted.
func Names() ([]string, error) {
	list, err := fs.Glob(machines.FS, "*.txtar")
	for i := range list {
		list[i] = strings.TrimSuffix(list[i], ".txtar")
	}
	slices.Sort(list)
	return list, err
}

// LoadFS reads the machine name.txtar of fsys, and the machines that it is based on from there too. Errors name the file, the
// section and the line.
func LoadFS(fsys fs.FS, name string) (*Machine, error) {
	var chain []*txtar.Archive
	var names []string
	for next := name; next != ""; {
		if slices.Contains(names, next) {
			return nil, fmt.Errorf("machine %s: based on itself", next)
		}
		data, err := fs.ReadFile(fsys, next+".txtar")
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", next, err)
		}
		archive := txtar.Parse(data)
		chain, names = append(chain, archive), append(names, next)
		if next, err = baseOf(archive); err != nil {
			return nil, fmt.Errorf("machine %s: %w", names[len(names)-1], err)
		}
	}
	m := newMachine(name)
	for i := len(chain) - 1; i >= 0; i-- {
		if err := m.apply(chain[i]); err != nil {
			return nil, fmt.Errorf("machine %s: %w", names[i], err)
		}
	}
	m.Summary, _, _ = strings.Cut(strings.TrimSpace(string(chain[0].Comment)), "\n")
	if err := m.settle(); err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	return m, nil
}

func newMachine(name string) *Machine {
	return &Machine{
		Name: name, Scheme: windows.MBR, Registry: &registry.Node{}, Findings: map[string]string{}, LiveFindings: map[string]string{},
		Hardware: Hardware{OSType: "windows9_64Guest", Firmware: "bios", VCPUs: 2, MemoryMB: 4096, NICs: 1},
	}
}

func section(a *txtar.Archive, name string) string {
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

func baseOf(a *txtar.Archive) (base string, err error) {
	err = entries(section(a, "machine"), func(name, text string, removed bool) error {
		if name == "base" && !removed {
			base = text
			if text == "" || strings.ContainsAny(text, `/\`) {
				return fmt.Errorf("base %q is not the name of a machine", text)
			}
		}
		return nil
	})
	return base, err
}

// apply lays a text over what its bases gave.
func (m *Machine) apply(a *txtar.Archive) error {
	// Findings belong to one text; what does not concern the base does not concern what is made of it.
	maps.DeleteFunc(m.Findings, func(_, outcome string) bool { return outcome != "NOT_APPLICABLE" })
	m.LiveFindings, m.Refused = map[string]string{}, ""
	for _, f := range a.Files {
		var err error
		switch text := string(f.Data); f.Name {
		case "machine":
			err = entries(text, m.applySetting)
		case "registry.reg":
			err = applyRegistry(m.Registry, text)
		case "accounts":
			err = entries(text, m.applyAccount)
		case "files":
			err = entries(text, func(name, text string, removed bool) error { return m.applyFile(a, name, text, removed) })
		case "live":
			err = entries(text, m.applyLive)
		case "findings":
			err = entries(text, m.applyFinding)
		default:
			if !strings.HasPrefix(f.Name, "data/") {
				err = errors.New("unknown section; contents of files are in sections data/...")
			}
		}
		if err != nil {
			return fmt.Errorf("section %s: %w", f.Name, err)
		}
	}
	return nil
}

func (m *Machine) applyAccount(name, text string, removed bool) error {
	at := slices.IndexFunc(m.Accounts, func(a Account) bool { return strings.EqualFold(a.Name, name) })
	if removed {
		if at < 0 {
			return fmt.Errorf("no account %s to remove", name)
		}
		m.Accounts = slices.Delete(m.Accounts, at, at+1)
		return nil
	}
	a, err := parseAccount(name, text)
	if err != nil {
		return err
	}
	if at < 0 {
		m.Accounts = append(m.Accounts, a)
	} else {
		m.Accounts[at] = a
	}
	return nil
}

func (m *Machine) applyFinding(name, _ string, _ bool) error {
	findings := m.Findings
	if rest, live := strings.CutPrefix(name, "live "); live {
		findings, name = m.LiveFindings, rest
	}
	outcome, rest, _ := strings.Cut(name, " ")
	rest = strings.TrimSpace(rest)
	switch outcome {
	case "PASS", "FAIL", "WARN", "UNKNOWN", "NOT_APPLICABLE":
		if rest == "" || strings.Contains(rest, " ") {
			return fmt.Errorf("%q: one code is expected", name)
		}
		findings[rest] = outcome
	case "REFUSED":
		m.Refused = rest
	default:
		return fmt.Errorf("no outcome %q", outcome)
	}
	return nil
}

// applyRegistry adds a text to a registry. As in regedit's text [-KEY] removes a key with all below it and "name"=- a value;
// a text's removals come before its additions.
func applyRegistry(tree *registry.Node, text string) error {
	var keep strings.Builder
	key := ""
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		name, isValue := strings.CutSuffix(trimmed, "=-")
		switch {
		case strings.HasPrefix(trimmed, "[-") && strings.HasSuffix(trimmed, "]"):
			if err := removeKey(tree, trimmed[2:len(trimmed)-1]); err != nil {
				return fmt.Errorf("line %d: %w", i+1, err)
			}
			line = ""
		case strings.HasPrefix(trimmed, "[") && strings.HasSuffix(trimmed, "]"):
			key = trimmed[1 : len(trimmed)-1]
		case isValue && (name == "@" || strings.HasPrefix(name, `"`)):
			if err := removeValue(tree, key, name); err != nil {
				return fmt.Errorf("line %d: %w", i+1, err)
			}
			line = ""
		}
		keep.WriteString(line + "\n")
	}
	more, err := registry.Parse(keep.String())
	if err != nil {
		return err
	}
	merge(tree, more)
	return nil
}

// hivePath turns a key of the text into a path in the tree, by the parser's own rules.
func hivePath(key string) (string, error) {
	n, err := registry.Parse("[" + key + "]\n")
	if err != nil {
		return "", err
	}
	path := ""
	for len(n.Keys) > 0 {
		n = n.Keys[0]
		path += `\` + n.Name
	}
	return strings.TrimPrefix(path, `\`), nil
}

func removeKey(tree *registry.Node, key string) error {
	path, err := hivePath(key)
	if err != nil {
		return err
	}
	at := strings.LastIndexByte(path, '\\')
	parent := tree.Key(path[:max(at, 0)])
	if parent == nil || tree.Key(path) == nil {
		return fmt.Errorf("no key %s to remove", path)
	}
	gone := tree.Key(path)
	parent.Keys = slices.DeleteFunc(parent.Keys, func(k *registry.Node) bool { return k == gone })
	return nil
}

func removeValue(tree *registry.Node, key, quoted string) error {
	path, err := hivePath(key)
	if err != nil {
		return err
	}
	name := ""
	if quoted != "@" {
		name = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(strings.Trim(quoted, `"`))
	}
	k := tree.Key(path)
	if k == nil {
		return fmt.Errorf("no key %s to remove a value of", path)
	}
	if _, ok := k.Value(name); !ok {
		return fmt.Errorf("no value %q in %s to remove", name, path)
	}
	k.Values = slices.DeleteFunc(k.Values, func(v windows.Value) bool { return registry.EqualNames(v.Name, name) })
	return nil
}

func merge(into, more *registry.Node) {
	for _, v := range more.Values {
		into.Set(v)
	}
	for _, k := range more.Keys {
		merge(into.Make(k.Name), k)
	}
}
