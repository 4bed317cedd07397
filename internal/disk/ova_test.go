package disk

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tarFile is a member to be written.
type tarFile struct {
	name string
	data []byte
}

func writeTar(t testing.TB, format tar.Format, files ...tarFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.data)), Mode: 0o644, Typeflag: tar.TypeReg, Format: format}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// vmwareOVF is an OVF as vCenter writes it, with a file for each given disk and one for a CD.
func vmwareOVF(disks ...string) []byte {
	var files, entries, items strings.Builder
	for i, d := range disks {
		fmt.Fprintf(&files, `<File ovf:id="file%d" ovf:href="%s" ovf:size="1"/>`, i, d)
		fmt.Fprintf(&entries, `<Disk ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk%d" ovf:fileRef="file%d" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>`, i, i)
		fmt.Fprintf(&items, `<Item><rasd:HostResource>ovf:/disk/vmdisk%d</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>`, i)
	}
	return []byte(`<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
<References>` + files.String() + `</References>
<DiskSection><Info>disks</Info>` + entries.String() + `</DiskSection>
<VirtualSystem ovf:id="win10"><Info/><Name>Windows 10 &amp; more</Name>
<OperatingSystemSection ovf:id="103" vmw:osType="windows9_64Guest"><Info/></OperatingSystemSection>
<VirtualHardwareSection>
<Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>4</rasd:VirtualQuantity></Item>
<Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>8192</rasd:VirtualQuantity></Item>
<Item><rasd:ResourceType>10</rasd:ResourceType></Item>
<Item><rasd:ResourceType>15</rasd:ResourceType></Item>
` + items.String() + `
<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
</VirtualHardwareSection></VirtualSystem></Envelope>`)
}

func manifestOf(hash string, files ...tarFile) []byte {
	var b strings.Builder
	for _, f := range files {
		switch hash {
		case "SHA1":
			fmt.Fprintf(&b, "SHA1(%s)= %x\n", f.name, sha1.Sum(f.data))
		case "SHA256":
			fmt.Fprintf(&b, "SHA256(%s)= %x\r\n", f.name, sha256.Sum256(f.data))
		case "SHA512":
			fmt.Fprintf(&b, "SHA512(%s)= %x\n", f.name, sha512.Sum512(f.data))
		}
	}
	return []byte(b.String())
}

func TestOVA(t *testing.T) {
	first, second := guestDisk(3<<20+512, 1), guestDisk(1<<20, 2)
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		for _, hash := range []string{"SHA1", "SHA256", "SHA512", ""} {
			t.Run(fmt.Sprint(format, hash), func(t *testing.T) {
				files := []tarFile{
					{"win10.ovf", vmwareOVF("win10-disk1.vmdk", "win10-disk2.vmdk")},
					{"win10-disk2.vmdk", streamVMDK(second, esxi)},
					{"win10-disk1.vmdk", streamVMDK(first, esxi)},
				}
				if hash != "" {
					files = slices.Insert(files, 1, tarFile{"win10.mf", manifestOf(hash, files...)})
					files = append(files, tarFile{"win10.cert", []byte("not looked at")})
				}
				file := writeTar(t, format, files...)
				e, err := Open(bytes.NewReader(file), Options{})
				if err != nil {
					t.Fatal(err)
				}
				want := Hardware{Name: "Windows 10 & more", OSType: "windows9_64Guest", Firmware: "efi", NICs: 1, CDROMs: 1, VCPUs: 4, MemoryMB: 8192}
				if fmt.Sprint(e.Hardware) != fmt.Sprint(want) {
					t.Errorf("hardware %+v, want %+v", e.Hardware, want)
				}
				if e.Format != "OVA" || len(e.Disks) != 2 || len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0], "manifest") {
					t.Fatalf("%s, %d disks, warnings %q", e.Format, len(e.Disks), e.Warnings)
				}
				for i, want := range [][]byte{first, second} {
					d := e.Disks[i]
					if d.Name != fmt.Sprintf("win10-disk%d.vmdk", i+1) || d.Format != "VMDK" || d.SubFormat != "streamOptimized" {
						t.Errorf("disk %d is %s, %s %s", i, d.Name, d.Format, d.SubFormat)
					}
					if !bytes.Equal(file[d.Offset:d.Offset+d.Length], streamVMDK(want, esxi)) {
						t.Errorf("disk %d is not at %d+%d", i, d.Offset, d.Length)
					}
					equalImage(t, d, want)
				}

				err = e.Verify(t.Context(), nil)
				if hash == "" {
					if !errors.Is(err, ErrNoManifest) {
						t.Errorf("verified without a manifest: %v", err)
					}
					return
				}
				if err != nil {
					t.Errorf("verify: %v", err)
				}
				cancelled, cancel := context.WithCancel(t.Context())
				cancel()
				if err := e.Verify(cancelled, nil); !errors.Is(err, context.Canceled) {
					t.Errorf("verify after cancel: %v", err)
				}
				file[e.Disks[1].Offset+e.Disks[1].Length-1] ^= 1
				wantRefusal(t, e.Verify(t.Context(), nil), "OVA", Damaged, "manifest")
			})
		}
	}
}

// The words that VirtualBox and OVF 2 have for the same things.
func TestOVFDialects(t *testing.T) {
	disk := streamVMDK(guestDisk(1<<20, 3), esxi)
	ovf := `<?xml version="1.0"?><ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/2" xmlns:vbox="http://www.virtualbox.org/ovf/machine">
<ovf:References><ovf:File ovf:href="./a.vmdk" ovf:id="f1"/><ovf:File ovf:href="drivers.iso" ovf:id="f2"/></ovf:References>
<ovf:DiskSection><ovf:Disk ovf:diskId="d1" ovf:fileRef="f1"/><ovf:Disk ovf:diskId="cd" ovf:fileRef="f2"/><ovf:Disk ovf:diskId="blank"/></ovf:DiskSection>
<ovf:VirtualSystem ovf:id="vm"><ovf:OperatingSystemSection ovf:id="120"><vbox:OSType>Windows10_64</vbox:OSType></ovf:OperatingSystemSection>
<ovf:VirtualHardwareSection>
<ovf:Item><rasd:AllocationUnits xmlns:rasd="x">GigaBytes</rasd:AllocationUnits><rasd:ResourceType xmlns:rasd="x">4</rasd:ResourceType><rasd:VirtualQuantity xmlns:rasd="x">2</rasd:VirtualQuantity></ovf:Item>
<ovf:StorageItem><HostResource>/disk/d1</HostResource><ResourceType>17</ResourceType></ovf:StorageItem>
<ovf:StorageItem><HostResource>/disk/blank</HostResource><ResourceType>17</ResourceType></ovf:StorageItem>
<ovf:StorageItem><HostResource>/disk/cd</HostResource><ResourceType>15</ResourceType></ovf:StorageItem>
<ovf:EthernetPortItem><ResourceType>10</ResourceType></ovf:EthernetPortItem>
</ovf:VirtualHardwareSection><vbox:Machine><vbox:Hardware><vbox:Firmware type="EFI64"/></vbox:Hardware></vbox:Machine></ovf:VirtualSystem></ovf:Envelope>`
	e, err := Open(bytes.NewReader(writeTar(t, tar.FormatUSTAR, tarFile{"./a.ovf", []byte(ovf)}, tarFile{"./a.vmdk", disk}, tarFile{"drivers.iso", nil})), Options{Format: "OVA"})
	if err != nil {
		t.Fatal(err)
	}
	want := Hardware{Name: "vm", OSType: "Windows10_64", Firmware: "efi", NICs: 1, CDROMs: 1, CDImages: []string{"drivers.iso"}, MemoryMB: 2048}
	if fmt.Sprint(e.Hardware) != fmt.Sprint(want) {
		t.Errorf("hardware %+v, want %+v", e.Hardware, want)
	}
	if len(e.Disks) != 1 || e.Disks[0].Name != "a.vmdk" || !strings.Contains(strings.Join(e.Warnings, " "), "blank") {
		t.Errorf("%d disks, warnings %q", len(e.Disks), e.Warnings)
	}
}

// A flat disk in an OVA finds its extent among the members.
func TestOVAWithFlatDisk(t *testing.T) {
	want := guestDisk(1<<20, 4)
	text := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW %d FLAT \"a-flat.vmdk\" 1\nRW 8 ZERO\n", len(want)/512)
	file := writeTar(t, tar.FormatUSTAR, tarFile{"a.ovf", vmwareOVF("a.vmdk")}, tarFile{"a.vmdk", []byte(text)},
		tarFile{"a-flat.vmdk", append(make([]byte, 512), want...)})
	e, err := Open(bytes.NewReader(file), Options{})
	if err != nil {
		t.Fatal(err)
	}
	equalImage(t, e.Disks[0], append(slices.Clone(want), make([]byte, 8*512)...))
}

// An OVF whose files were left side by side is the same machine as its OVA, and opens nothing but what lies beside it.
func TestBareOVF(t *testing.T) {
	first, second := guestDisk(3<<20+512, 1), guestDisk(1<<20, 2)
	ovf := vmwareOVF("a.vmdk", "b.vmdk")
	flat := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW %d FLAT \"b-flat.vmdk\" 0\n", len(second)/512)
	files := map[string][]byte{"a.vmdk": streamVMDK(first, esxi), "b.vmdk": []byte(flat), "b-flat.vmdk": second,
		"itself.ovf": vmwareOVF("itself.ovf"), "machine.ova": writeTar(t, tar.FormatUSTAR), "newer": patched(plainQCOW2(second), 4, be32(9)...)}
	dir := t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	siblings := siblingsIn(t, dir)
	e, err := Open(bytes.NewReader(ovf), Options{Siblings: siblings})
	if err != nil {
		t.Fatal(err)
	}
	if e.Format != "OVF" || len(e.Disks) != 2 || e.Hardware.Firmware != "efi" || e.HasManifest() || len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0], "no manifest") {
		t.Fatalf("%+v", e)
	}
	for i, want := range [][]byte{first, second} {
		if d := e.Disks[i]; d.Name != []string{"a.vmdk", "b.vmdk"}[i] || d.Offset != 0 || d.Length != int64(len(ovf)) {
			t.Errorf("disk %d is %s, %d+%d", i, d.Name, d.Offset, d.Length)
		}
		equalImage(t, e.Disks[i], want)
	}
	if err := e.Verify(t.Context(), nil); !errors.Is(err, ErrNoManifest) {
		t.Errorf("verified: %v", err)
	}
	if len(e.closers) != 3 {
		t.Errorf("%d files to close, want 3", len(e.closers))
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}

	for _, c := range []struct {
		disk, format string
		reason       Reason
		field        string
	}{
		{"missing.vmdk", "OVF", RefersElsewhere, "missing.vmdk"},
		{"folder/a.vmdk", "OVF", RefersElsewhere, "href"},
		{"../a.vmdk", "OVF", RefersElsewhere, "href"},
		{"/etc/passwd", "OVF", RefersElsewhere, "href"},
		{"itself.ovf", "OVF", Unsupported, "itself.ovf"},
		{"newer", "QCOW2", Unsupported, "newer: version"},
	} {
		_, err := Open(bytes.NewReader(vmwareOVF("a.vmdk", c.disk)), Options{Siblings: siblings})
		wantRefusal(t, err, c.format, c.reason, c.field)
	}
	_, err = Open(bytes.NewReader(ovf), Options{})
	wantRefusal(t, err, "OVF", RefersElsewhere, "a.vmdk")
	_, err = Open(bytes.NewReader(writeTar(t, tar.FormatUSTAR, tarFile{"a.ovf", vmwareOVF("b")}, tarFile{"b", vmwareOVF("b")})), Options{})
	wantRefusal(t, err, "OVA", Unsupported, "member b")
}

// The manifest that lies beside an OVF is compared as an OVA's is.
func TestManifestBesideAnOVF(t *testing.T) {
	disk := streamVMDK(guestDisk(1<<20, 2), esxi)
	machine := tarFile{"win10.ovf", vmwareOVF("a.vmdk")}
	files := []tarFile{machine, {"a.vmdk", disk}, {"drivers.iso", []byte("an ISO that may be left behind")}}
	folder := func(manifest []byte, change func(dir map[string][]byte)) string {
		dir := map[string][]byte{"win10.mf": manifest}
		for _, f := range files {
			dir[f.name] = f.data
		}
		if change != nil {
			change(dir)
		}
		path := t.TempDir()
		for name, b := range dir {
			if err := os.WriteFile(filepath.Join(path, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	open := func(dir string) (*Envelope, error) {
		return OpenFile(filepath.Join(dir, "win10.ovf"), Options{Siblings: siblingsIn(t, dir)})
	}
	for _, hash := range []string{"SHA1", "SHA256", "SHA512"} {
		for name, c := range map[string]struct {
			change func(dir map[string][]byte)
			detail string
		}{
			"sound":          {nil, ""},
			"disk damaged":   {func(dir map[string][]byte) { dir["a.vmdk"] = patched(disk, len(disk)-1, 1) }, "a.vmdk is not the file"},
			"disk cut off":   {func(dir map[string][]byte) { dir["drivers.iso"] = nil }, "drivers.iso is not the file"},
			"ISO left away":  {func(dir map[string][]byte) { delete(dir, "drivers.iso") }, "drivers.iso, whose digest the manifest has, is not there"},
			"OVF has a line": {func(dir map[string][]byte) { dir["win10.ovf"] = append(slices.Clone(machine.data), '\n') }, "win10.ovf is not the file"},
		} {
			e, err := open(folder(manifestOf(hash, files...), c.change))
			if err != nil {
				t.Errorf("%s, %s: %v", hash, name, err)
				continue
			}
			if !e.HasManifest() || len(e.Warnings) != 1 || e.Warnings[0] != unverified {
				t.Errorf("%s, %s: warnings %q", hash, name, e.Warnings)
			}
			if err = e.Verify(t.Context(), nil); c.detail == "" && err != nil {
				t.Errorf("%s, %s: %v", hash, name, err)
			} else if c.detail != "" {
				wantRefusal(t, err, "OVF", Damaged, "manifest")
				if err == nil || !strings.Contains(err.Error(), c.detail) {
					t.Errorf("%s, %s: %v", hash, name, err)
				}
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for name, c := range map[string]struct {
		manifest []byte
		reason   Reason
	}{
		"disk not named":  {manifestOf("SHA256", machine), Damaged},
		"OVF not named":   {manifestOf("SHA256", files[1:]...), Damaged},
		"MD5":             {[]byte("MD5(a.vmdk)= d41d8cd98f00b204e9800998ecf8427e\n"), Unsupported},
		"another folder":  {manifestOf("SHA256", append(files, tarFile{"x/b", nil})...), RefersElsewhere},
		"folder above":    {manifestOf("SHA256", append(files, tarFile{"../b", nil})...), RefersElsewhere},
		"absolute":        {manifestOf("SHA256", append(files, tarFile{"/etc/passwd", nil})...), RefersElsewhere},
		"twice":           {manifestOf("SHA256", append(files, machine)...), Damaged},
		"2 MiB of spaces": {bytes.Repeat([]byte(" "), 2<<20), Damaged},
	} {
		_, err := open(folder(c.manifest, nil))
		if r := new(Refusal); !errors.As(err, &r) || r.Format != "OVF" || r.Reason != c.reason || !strings.HasPrefix(r.Field, "manifest") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
