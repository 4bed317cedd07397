package phony

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/tools/txtar"

	"berth/internal/windows"
)

// applySetting reads a line of the machine section: "disk = 40GiB".
func (m *Machine) applySetting(name, text string, removed bool) error {
	if partition, ok := strings.CutPrefix(name, "partition "); ok {
		return m.applyPartition(strings.TrimSpace(partition), text, removed)
	}
	if removed {
		return fmt.Errorf("%s cannot be removed", name)
	}
	var err error
	number := func() int {
		n, e := strconv.ParseUint(text, 10, 16)
		err = e
		return int(n)
	}
	switch name {
	case "base":
	case "disk":
		m.DiskBytes, err = parseSize(text)
	case "scheme":
		if m.Scheme = windows.Scheme(text); text == "none" {
			m.Scheme = windows.NoTable
		} else if m.Scheme != windows.MBR && m.Scheme != windows.GPT {
			err = fmt.Errorf("scheme %q is not MBR, GPT or none", text)
		}
	case "signature":
		var v uint64
		v, err = strconv.ParseUint(text, 16, 32)
		m.Signature = uint32(v)
	case "installed":
		m.Installed, err = time.Parse(time.RFC3339, text)
		if year := m.Installed.Year(); err == nil && (year < 1980 || year > 2200) {
			err = fmt.Errorf("year %d", year)
		}
	case "sid":
		m.SID = text
		_, err = parseSID(text)
	case "firmware":
		if m.Hardware.Firmware = text; text != "bios" && text != "efi" {
			err = fmt.Errorf("firmware %q is not bios or efi", text)
		}
	case "profile":
		m.Profile = text
	case "process":
		m.Process = text
	case "office":
		m.Office, err = strconv.ParseBool(text)
	case "os-type":
		m.Hardware.OSType = text
	case "cpus":
		m.Hardware.VCPUs = number()
	case "memory":
		var bytes int64
		bytes, err = parseSize(text)
		m.Hardware.MemoryMB = bytes >> 20
	case "nics":
		m.Hardware.NICs = number()
	case "cdroms":
		m.Hardware.CDROMs = number()
	default:
		err = errors.New("unknown setting")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (m *Machine) applyPartition(name, text string, removed bool) error {
	if name == "" || strings.ContainsAny(name, " :/") {
		return fmt.Errorf("partition %q: a name is one word", name)
	}
	at := slices.IndexFunc(m.Partitions, func(p Partition) bool { return p.Name == name })
	if removed {
		if at < 0 {
			return fmt.Errorf("no partition %s to remove", name)
		}
		m.Partitions = slices.Delete(m.Partitions, at, at+1)
		return nil
	}
	p := Partition{Name: name, FileSystem: "none"}
	words, err := split(text)
	if err != nil {
		return err
	}
	for i := 0; i < len(words); i++ {
		w, arg := words[i], ""
		if w == "size" || w == "type" || w == "label" {
			if i++; i == len(words) {
				return fmt.Errorf("partition %s: %s needs a value", name, w)
			}
			arg = words[i]
		}
		switch w {
		case "size":
			if p.size = -1; arg != "rest" {
				p.size, err = parseSize(arg)
			}
		case "type":
			p.Type = arg
		case "label":
			p.Label = arg
		case "active":
			p.Active = true
		case "ntfs", "fat", "bitlocker":
			p.FileSystem = w
		case "dirty":
			p.Dirty = true
		default:
			err = fmt.Errorf("a partition has no %q", w)
		}
		if err != nil {
			return fmt.Errorf("partition %s: %w", name, err)
		}
	}
	if p.Dirty && p.FileSystem != "ntfs" {
		return fmt.Errorf("partition %s: only an ntfs volume can be dirty", name)
	}
	if at < 0 {
		m.Partitions = append(m.Partitions, p)
	} else {
		m.Partitions[at] = p
	}
	return nil
}

// applyFile reads a line of the files section: "Windows/System32/ntoskrnl.exe = pe amd64". A path that ends in a slash is a
// folder; "boot:bootmgr" is on the partition boot instead of windows.
func (m *Machine) applyFile(a *txtar.Archive, name, text string, removed bool) error {
	f := file{partition: "windows", path: name}
	if partition, path, ok := strings.Cut(name, ":"); ok {
		f.partition, f.path = partition, path
	}
	f.path, f.node.folder = strings.CutSuffix(f.path, "/")
	if f.path == "" {
		return fmt.Errorf("%q names no file", name)
	}
	if removed {
		under := func(o file) bool {
			return o.partition == f.partition && (strings.EqualFold(o.path, f.path) ||
				len(o.path) > len(f.path) && strings.EqualFold(o.path[:len(f.path)+1], f.path+"/"))
		}
		if !slices.ContainsFunc(m.files, under) {
			return fmt.Errorf("no file %s to remove", name)
		}
		m.files = slices.DeleteFunc(m.files, under)
		return nil
	}
	if f.node.folder {
		f.node.children = map[string]*node{}
	}
	words, err := split(text)
	if err != nil {
		return err
	}
	for i := 0; i < len(words); i++ {
		w, arg := words[i], ""
		if slices.Contains([]string{"size", "text", "data", "pe", "junction"}, w) {
			if i++; i == len(words) {
				return fmt.Errorf("%s: %s needs a value", name, w)
			}
			arg = words[i]
		}
		switch w {
		case "size":
			f.node.size, err = parseSize(arg)
		case "text":
			f.node.data = []byte(arg)
		case "data":
			if f.node.data = []byte(section(a, "data/"+arg)); len(f.node.data) == 0 {
				err = fmt.Errorf("no section data/%s", arg)
			}
		case "pe":
			f.node.data, err = program(arg)
		case "junction":
			f.node.junction = arg
		case "hidden":
			f.node.flags |= fileHidden
		case "system":
			f.node.flags |= fileSystem
		case "read-only":
			f.node.flags |= fileReadOnly
		default:
			err = fmt.Errorf("a file has no %q", w)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if f.node.folder && (f.node.size > 0 || f.node.data != nil) || !f.node.folder && f.node.junction != "" {
		return fmt.Errorf("%s: contents are for files, junctions are folders", name)
	}
	m.files = append(m.files, f)
	return nil
}

// program is the smallest portable executable that says for which processor it is: it has headers and no sections.
func program(arch string) ([]byte, error) {
	machine, ok := map[string]uint16{"amd64": pe.IMAGE_FILE_MACHINE_AMD64, "386": pe.IMAGE_FILE_MACHINE_I386, "arm64": pe.IMAGE_FILE_MACHINE_ARM64}[arch]
	if !ok {
		return nil, fmt.Errorf("processor %q is not amd64, 386 or arm64", arch)
	}
	const header = 0x40
	b := make([]byte, header)
	copy(b, "MZ")
	le.PutUint32(b[0x3C:], header)
	w := bytes.NewBuffer(append(b, "PE\x00\x00"...))
	optional := any(pe.OptionalHeader64{Magic: 0x20B, SectionAlignment: 0x1000, FileAlignment: 0x200, MajorSubsystemVersion: 10, Subsystem: 1, SizeOfHeaders: 0x200, SizeOfImage: 0x1000, NumberOfRvaAndSizes: 16})
	characteristics := uint16(pe.IMAGE_FILE_EXECUTABLE_IMAGE | pe.IMAGE_FILE_LARGE_ADDRESS_AWARE)
	if machine == pe.IMAGE_FILE_MACHINE_I386 {
		optional = pe.OptionalHeader32{Magic: 0x10B, SectionAlignment: 0x1000, FileAlignment: 0x200, MajorSubsystemVersion: 10, Subsystem: 1, SizeOfHeaders: 0x200, SizeOfImage: 0x1000, NumberOfRvaAndSizes: 16}
		characteristics = pe.IMAGE_FILE_EXECUTABLE_IMAGE | pe.IMAGE_FILE_32BIT_MACHINE
	}
	file := pe.FileHeader{Machine: machine, SizeOfOptionalHeader: uint16(binary.Size(optional)), Characteristics: characteristics}
	for _, part := range []any{file, optional} {
		if err := binary.Write(w, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	out := make([]byte, 0x200)
	copy(out, w.Bytes())
	return out, nil
}
