package phony

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf16"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

const (
	mebibyte = 1 << 20
	// maxDisk bounds a machine's disk, bytes: the largest that a virtual disk of VMware can be is 62 TiB; tests need 2.
	maxDisk = 64 << 40
	// gptTail is kept free for the GPT's copy, which needs 33 sectors.
	gptTail = mebibyte
)

// guid is a GUID as a disk holds it.
type guid [16]byte

// partitionTypes are the types by name: on an MBR, and on a GPT (UEFI specification and Microsoft's documentation).
var partitionTypes = map[string]struct {
	mbr  byte
	guid string
}{
	"basic":    {0x07, "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"},
	"system":   {0x07, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"}, // System Reserved, or the EFI system partition
	"reserved": {0x00, "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"}, // Microsoft reserved, GPT only
	"recovery": {0x27, "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"},
	"linux":    {0x83, "0FC63DAF-8483-4772-8E79-3D69D8477DE4"},
}

// settle checks the whole, gives partitions their places, and writes into the registry what follows from the layout.
func (m *Machine) settle() error {
	if m.DiskBytes <= 0 || m.DiskBytes > maxDisk || m.DiskBytes%sectorBytes != 0 {
		return fmt.Errorf("disk: %d bytes", m.DiskBytes)
	}
	if m.Installed.IsZero() {
		return errors.New("installed: no time is given")
	}
	machine, err := parseSID(m.SID)
	if err != nil {
		return fmt.Errorf("sid: %w", err)
	}
	if err := m.place(); err != nil {
		return err
	}
	for _, f := range m.files {
		if p := m.Partition(f.partition); p == nil || p.FileSystem == "none" {
			return fmt.Errorf("file %s: no partition %s with a file system", f.path, f.partition)
		}
	}
	rids := map[uint32]string{}
	for _, a := range m.Accounts {
		if other := rids[a.RID]; other != "" {
			return fmt.Errorf("accounts %s and %s have the same rid %d", other, a.Name, a.RID)
		}
		rids[a.RID] = a.Name
	}
	if len(m.Accounts) > 0 {
		addAccounts(m.Registry.Make(string(windows.SAM)), machine, m.Accounts, m.Installed)
	}
	if k := m.Registry.Key(`SECURITY\Policy`); k != nil && k.Key("PolAcDmS") == nil {
		k.Make("PolAcDmS").Set(windows.Value{Type: windows.RegNone, Data: machine})
	}
	if m.Registry.Key(string(windows.SystemHive)) != nil {
		m.mountDevices(m.Registry.Make(`SYSTEM\MountedDevices`))
	}
	return nil
}

// Partition is the partition of that name, or nil.
func (m *Machine) Partition(name string) *Partition {
	for i := range m.Partitions {
		if m.Partitions[i].Name == name {
			return &m.Partitions[i]
		}
	}
	return nil
}

func (m *Machine) place() error {
	limit := m.DiskBytes
	switch {
	case m.Scheme == windows.NoTable && len(m.Partitions) > 0:
		return errors.New("scheme none has no partitions")
	case m.Scheme == windows.MBR && len(m.Partitions) > 4:
		return errors.New("an MBR has four partitions at most")
	case m.Scheme == windows.GPT && len(m.Partitions) > 128:
		return errors.New("a GPT has 128 partitions at most")
	case m.Scheme == windows.GPT:
		limit -= gptTail
	}
	rest := limit - mebibyte
	for _, p := range m.Partitions {
		if p.size > maxDisk {
			return fmt.Errorf("partition %s: %d bytes", p.Name, p.size)
		}
		rest -= max(p.size, 0)
	}
	at := int64(mebibyte)
	for i := range m.Partitions {
		p := &m.Partitions[i]
		if p.Type == "" {
			p.Type = "basic"
		}
		if t, ok := partitionTypes[p.Type]; ok {
			p.Type = fmt.Sprintf("0x%02X", t.mbr)
			if m.Scheme == windows.GPT {
				p.Type = t.guid
			}
		}
		if _, err := m.typeBytes(p); err != nil {
			return fmt.Errorf("partition %s: %w", p.Name, err)
		}
		if p.Length = p.size; p.size < 0 {
			p.Length, rest = rest&^(mebibyte-1), 0
		}
		if p.Length < mebibyte || p.Length%mebibyte != 0 || at+p.Length > limit {
			return fmt.Errorf("partition %s: %d bytes at %d do not fit, or are no multiple of 1 MiB", p.Name, p.Length, at)
		}
		if m.Scheme == windows.MBR && (at+p.Length)/sectorBytes > 1<<32 {
			return fmt.Errorf("partition %s ends beyond the 2 TiB of an MBR", p.Name)
		}
		p.Start = at
		at += p.Length
	}
	return nil
}

func (m *Machine) typeBytes(p *Partition) ([]byte, error) {
	if m.Scheme == windows.GPT {
		g, err := parseGUID(p.Type)
		return g[:], err
	}
	v, err := strconv.ParseUint(strings.TrimPrefix(p.Type, "0x"), 16, 8)
	if err != nil || v == 0 {
		return nil, fmt.Errorf("type %q is not an MBR type", p.Type)
	}
	return []byte{byte(v)}, nil
}

func parseGUID(text string) (guid, error) {
	var a uint32
	var b, c, d uint16
	var e uint64
	if _, err := fmt.Sscanf(text, "%08X-%04X-%04X-%04X-%012X", &a, &b, &c, &d, &e); err != nil || len(text) != 36 {
		return guid{}, fmt.Errorf("%q is not a GUID", text)
	}
	out := le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, a), b), c)
	out = append(out, byte(d>>8), byte(d))
	for shift := 40; shift >= 0; shift -= 8 {
		out = append(out, byte(e>>shift))
	}
	return guid(out), nil
}

// identify makes a GUID that is always the same for this machine and thing.
func (m *Machine) identify(thing string) guid {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%s %08x %s", m.SID, m.Signature, thing)))
	g := guid(sum[:16])
	g[7] = g[7]&0x0F | 0x40 // version 4
	g[8] = g[8]&0x3F | 0x80
	return g
}

// mountDevices writes which drive letter stands for which partition, as Windows' mount manager keeps it, unless the text
// said so itself: on an MBR the disk's signature and the partition's first byte, on a GPT the partition's GUID.
func (m *Machine) mountDevices(k *registry.Node) {
	letter := 'C'
	for i := range m.Partitions {
		p := &m.Partitions[i]
		recovery := partitionTypes["recovery"]
		if p.FileSystem != "ntfs" && p.FileSystem != "bitlocker" || p.Name == "boot" || p.Type == recovery.guid || p.Type == fmt.Sprintf("0x%02X", recovery.mbr) {
			continue
		}
		name := `\DosDevices\` + string(letter) + ":"
		if letter++; p.Name == "windows" {
			name = `\DosDevices\C:`
		}
		data := le.AppendUint64(le.AppendUint32(nil, m.Signature), uint64(p.Start))
		if m.Scheme == windows.GPT {
			id := m.identify(p.Name)
			data = append([]byte("DMIO:ID:"), id[:]...)
		}
		if _, ok := k.Value(name); !ok {
			k.Set(windows.Value{Name: name, Type: windows.RegBinary, Data: data})
		}
	}
}

// WriteRaw writes the machine's disk to a new file at path, sparse: what was never written takes no room. A file that is
// there already is replaced. When it fails no file is left behind.
func (m *Machine) WriteRaw(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("phony %s: %w", m.Name, err)
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			os.Remove(path)
			err = fmt.Errorf("phony %s: %w", m.Name, err)
		}
	}()
	if err := f.Truncate(m.DiskBytes); err != nil {
		return err
	}
	if err := m.writeTable(f); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(path), ".phony-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	trees, err := m.trees()
	if err != nil {
		return err
	}
	for i := range m.Partitions {
		p := &m.Partitions[i]
		switch p.FileSystem {
		case "ntfs":
			err = m.writeNTFS(ctx, f, p, trees[p.Name], scratch)
		case "fat":
			id := m.identify("volume " + p.Name)
			err = writeFAT(f, p.Start, p.Length, p.Label, le.Uint32(id[:]), trees[p.Name], m.Installed.UTC())
		case "bitlocker":
			err = m.writeBitLocker(f, p)
		}
		if err != nil {
			return fmt.Errorf("partition %s: %w", p.Name, err)
		}
	}
	return nil
}

func (m *Machine) writeNTFS(ctx context.Context, f *os.File, p *Partition, tree *node, scratch string) error {
	if err := formatNTFS(ctx, f, p.Start, p.Length, p.Label, scratch); err != nil {
		return err
	}
	v, err := openVolume(f, p.Start, filetimeOf(m.Installed))
	if err != nil {
		return err
	}
	id := m.identify("volume " + p.Name)
	if err := v.setSerial(le.Uint64(id[:]), p.Length); err != nil {
		return err
	}
	if p.Dirty {
		if err := v.setDirty(); err != nil {
			return err
		}
	}
	return v.save(tree)
}

// trees gathers the files of each partition: those of the text, and the hives.
func (m *Machine) trees() (map[string]*node, error) {
	trees := map[string]*node{}
	for _, p := range m.Partitions {
		trees[p.Name] = newFolder("")
	}
	for _, f := range m.files {
		n := f.node
		if n.folder {
			n.children = map[string]*node{}
		}
		if err := trees[f.partition].put(f.path, &n); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.path, err)
		}
	}
	const config = "Windows/System32/config/"
	boot := "boot"
	if trees[boot] == nil {
		boot = "windows"
	}
	for _, h := range m.Registry.Keys {
		partition, path := "windows", config+h.Name
		switch h.Name {
		case string(windows.BCD):
			partition, path = boot, "Boot/BCD"
			if m.Hardware.Firmware == "efi" {
				path = "EFI/Microsoft/Boot/BCD"
			}
		case "NTUSER":
			path = "Users/Default/NTUSER.DAT"
		case "NTUSER " + strings.TrimPrefix(h.Name, "NTUSER "):
			path = "Users/" + strings.TrimPrefix(h.Name, "NTUSER ") + "/NTUSER.DAT"
		case string(windows.SystemHive), string(windows.Software), string(windows.SAM), string(windows.Security), string(windows.Default):
		default:
			return nil, fmt.Errorf("registry: no hive %s", h.Name)
		}
		if p := m.Partition(partition); p == nil || p.FileSystem == "none" {
			return nil, fmt.Errorf("hive %s: no partition %s with a file system", h.Name, partition)
		}
		data, err := registry.Build(h, registry.BuildOptions{LastWrite: m.Installed, FileName: `\` + strings.ReplaceAll(path, "/", `\`)})
		if err != nil {
			return nil, err
		}
		if err := trees[partition].put(path, &node{data: data}); err != nil {
			return nil, fmt.Errorf("hive %s: %w", h.Name, err)
		}
	}
	return trees, nil
}

// writeBitLocker writes what a volume encrypted by BitLocker shows without its key: a boot sector with its signature, and
// noise. Its metadata blocks are noise too.
func (m *Machine) writeBitLocker(f *os.File, p *Partition) error {
	const noise = 4 * mebibyte
	b := make([]byte, min(noise, p.Length))
	seed := sha256.Sum256([]byte(m.SID + p.Name))
	rand.NewChaCha8(seed).Read(b)
	clear(b[:sectorBytes])
	copy(b, "\xEB\x58\x90-FVE-FS-")
	le.PutUint16(b[0xB:], sectorBytes)
	b[0xD], b[0x15] = clusterBytes/sectorBytes, 0xF8
	le.PutUint32(b[0x1C:], uint32(p.Start/sectorBytes))
	id, err := parseGUID("4967D63B-2E29-4AD8-8399-F6A339E3D001") // BitLocker since Windows 7
	if err != nil {
		return err
	}
	copy(b[0xA0:], id[:])
	for i := range 3 { // where the metadata blocks are
		le.PutUint64(b[0xB0+8*i:], uint64(mebibyte*(i+1)))
	}
	b[510], b[511] = 0x55, 0xAA
	_, err = f.WriteAt(b, p.Start)
	return err
}

// writeTable writes the boot code and the partition table.
func (m *Machine) writeTable(f *os.File) error {
	loader, screen, err := bootCode()
	if err != nil {
		return err
	}
	head := make([]byte, (screenSector+screenSectors)*sectorBytes)
	copy(head, loader)
	le.PutUint32(head[440:], m.Signature)
	copy(head[screenSector*sectorBytes:], screen)
	head[510], head[511] = 0x55, 0xAA
	switch m.Scheme {
	case windows.MBR:
		for i := range m.Partitions {
			p := &m.Partitions[i]
			typ, err := m.typeBytes(p)
			if err != nil {
				return err
			}
			putEntry(head[446+16*i:], p.Active, typ[0], p.Start/sectorBytes, p.Length/sectorBytes)
		}
	case windows.GPT:
		sectors := m.DiskBytes / sectorBytes
		putEntry(head[446:], false, 0xEE, 1, min(sectors-1, 1<<32-1))
		primary, backup, table, err := m.gpt(sectors)
		if err != nil {
			return err
		}
		copy(head[sectorBytes:], primary)
		copy(head[2*sectorBytes:], table)
		if _, err := f.WriteAt(append(table, backup...), m.DiskBytes-33*sectorBytes); err != nil {
			return err
		}
	}
	_, err = f.WriteAt(head, 0)
	return err
}

// putEntry writes an MBR entry: status, CHS (0xFEFFFF: use LBA), type, CHS, first sector, sectors.
func putEntry(b []byte, active bool, typ byte, first, sectors int64) {
	if active {
		b[0] = 0x80
	}
	copy(b[1:], "\xFE\xFF\xFF")
	b[4] = typ
	copy(b[5:], "\xFE\xFF\xFF")
	le.PutUint32(b[8:], uint32(first))
	le.PutUint32(b[12:], uint32(sectors))
}

// gpt makes the two headers and the table that they share: 128 entries of 128 bytes.
func (m *Machine) gpt(sectors int64) (primary, backup, table []byte, err error) {
	table = make([]byte, 128*128)
	for i := range m.Partitions {
		p := &m.Partitions[i]
		e := table[128*i:]
		typ, err := m.typeBytes(p)
		if err != nil {
			return nil, nil, nil, err
		}
		id := m.identify(p.Name)
		copy(e, typ)
		copy(e[16:], id[:])
		le.PutUint64(e[32:], uint64(p.Start/sectorBytes))
		le.PutUint64(e[40:], uint64((p.Start+p.Length)/sectorBytes-1))
		name := utf16.Encode([]rune(p.Label))
		for j, u := range name[:min(len(name), 36)] {
			le.PutUint16(e[56+2*j:], u)
		}
	}
	header := func(here, other, tableAt int64) []byte {
		b := make([]byte, sectorBytes)
		copy(b, "EFI PART\x00\x00\x01\x00")
		le.PutUint32(b[12:], 92)
		le.PutUint64(b[24:], uint64(here))
		le.PutUint64(b[32:], uint64(other))
		le.PutUint64(b[40:], 34)
		le.PutUint64(b[48:], uint64(sectors-34))
		id := m.identify("disk")
		copy(b[56:], id[:])
		le.PutUint64(b[72:], uint64(tableAt))
		le.PutUint32(b[80:], 128)
		le.PutUint32(b[84:], 128)
		le.PutUint32(b[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:92]))
		return b
	}
	return header(1, sectors-1, 2), header(sectors-1, 1, sectors-33), table, nil
}
