package phony

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

// qemuFormats are the disk formats of Export: what qemu-img calls them, and the variant that hypervisors export.
var qemuFormats = map[string][]string{
	"qcow2": {"qcow2"},
	"vhd":   {"vpc", "-o", "subformat=dynamic,force_size=on"},
	"vhdx":  {"vhdx", "-o", "subformat=dynamic"},
	"vmdk":  {"vmdk", "-o", "subformat=streamOptimized"},
}

// Formats are what Export writes.
var Formats = []string{"raw", "qcow2", "vhd", "vhdx", "vmdk", "ova"}

// Export writes the machine to path as a hypervisor would export it: format is one of Formats. A file that is there already
// is replaced, at the end and at once; scratch files are beside it, and gone afterwards.
func (m *Machine) Export(ctx context.Context, path, format string) (err error) {
	if !slices.Contains(Formats, format) {
		return fmt.Errorf("phony %s: no format %q: it is one of %s", m.Name, format, strings.Join(Formats, ", "))
	}
	scratch, err := os.MkdirTemp(filepath.Dir(path), ".phony-")
	if err != nil {
		return fmt.Errorf("phony %s: %w", m.Name, err)
	}
	defer os.RemoveAll(scratch)
	raw := filepath.Join(scratch, "disk.raw")
	if err := m.WriteRaw(ctx, raw); err != nil {
		return err
	}
	out := raw
	switch format {
	case "raw":
	case "ova":
		disk := filepath.Join(scratch, "disk.vmdk")
		if err = convert(ctx, raw, disk, "vmdk"); err != nil {
			break
		}
		out = filepath.Join(scratch, "machine.ova")
		err = m.writeOVA(out, disk)
	default:
		out = filepath.Join(scratch, "disk."+format)
		err = convert(ctx, raw, out, format)
	}
	if err == nil {
		err = os.Rename(out, path)
	}
	if err != nil {
		return fmt.Errorf("phony %s: %s: %w", m.Name, format, err)
	}
	return nil
}

func convert(ctx context.Context, raw, out, format string) error {
	tool, err := findTool("qemu-img", "qemu-utils")
	if err != nil {
		return err
	}
	args := append([]string{"convert", "-f", "raw", "-O"}, qemuFormats[format]...)
	cmd := exec.CommandContext(ctx, tool, append(args, raw, out)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img convert: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

// writeOVA packs descriptor, manifest and disk, in the order that the OVF specification (DSP0243) asks for.
func (m *Machine) writeOVA(path, disk string) error {
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	descriptor, err := m.descriptor(size)
	if err != nil {
		return err
	}
	manifest := fmt.Sprintf("SHA256(%s.ovf)= %x\nSHA256(%s-disk1.vmdk)= %x\n", m.Name, sha256.Sum256(descriptor), m.Name, sum.Sum(nil))

	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	for _, part := range []struct {
		name string
		size int64
		io.Reader
	}{
		{m.Name + ".ovf", int64(len(descriptor)), bytes.NewReader(descriptor)},
		{m.Name + ".mf", int64(len(manifest)), strings.NewReader(manifest)},
		{m.Name + "-disk1.vmdk", size, f},
	} {
		h := &tar.Header{Name: part.name, Size: part.size, Mode: 0o644, ModTime: m.Installed, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, part); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Close()
}

// descriptorText is an OVF descriptor (DSP0243 1.1) as VMware's products write them; the numbers of ResourceType are CIM's:
// 3 processor, 4 memory, 5 IDE controller, 6 SCSI controller, 10 Ethernet, 15 CD drive, 17 disk.
var descriptorText = template.Must(template.New("ovf").Funcs(template.FuncMap{
	"xml": func(s string) (string, error) {
		var b strings.Builder
		err := xml.EscapeText(&b, []byte(s))
		return b.String(), err
	},
	"ids": func(first, n int) []int {
		ids := make([]int, n)
		for i := range ids {
			ids[i] = first + i
		}
		return ids
	},
}).Parse(`<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="file1" ovf:href="{{xml .Name}}-disk1.vmdk" ovf:size="{{.VMDKBytes}}"/>
  </References>
  <DiskSection>
    <Info>Virtual disk information</Info>
    <Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="{{.DiskBytes}}" ovf:capacityAllocationUnits="byte" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>The list of logical networks</Info>
    <Network ovf:name="VM Network"><Description>The VM Network network</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{{xml .Name}}">
    <Info>A virtual machine</Info>
    <Name>{{xml .Name}}</Name>
    <OperatingSystemSection ovf:id="1" vmw:osType="{{xml .OSType}}">
      <Info>The kind of installed guest operating system</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware requirements</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{{xml .Name}}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-14</vssd:VirtualSystemType>
      </System>
      <Item><rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits><rasd:ElementName>{{.VCPUs}} virtual CPU(s)</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>{{.VCPUs}}</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>{{.MemoryMB}}MB of memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>{{.MemoryMB}}</rasd:VirtualQuantity></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI Controller 0</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogicsas</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Hard Disk 1</rasd:ElementName><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
{{- range $i, $id := ids 100 .NICs}}
      <Item><rasd:AddressOnParent>{{$i}}</rasd:AddressOnParent><rasd:AutomaticAllocation>true</rasd:AutomaticAllocation><rasd:Connection>VM Network</rasd:Connection><rasd:ElementName>Ethernet {{$i}}</rasd:ElementName><rasd:InstanceID>{{$id}}</rasd:InstanceID><rasd:ResourceSubType>E1000e</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
{{- end}}
{{- if .CDROMs}}
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>IDE 0</rasd:ElementName><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceType>5</rasd:ResourceType></Item>
{{- end}}
{{- range $i, $id := ids 200 .CDROMs}}
      <Item ovf:required="false"><rasd:AddressOnParent>{{$i}}</rasd:AddressOnParent><rasd:AutomaticAllocation>false</rasd:AutomaticAllocation><rasd:ElementName>CD/DVD Drive {{$i}}</rasd:ElementName><rasd:InstanceID>{{$id}}</rasd:InstanceID><rasd:Parent>5</rasd:Parent><rasd:ResourceType>15</rasd:ResourceType></Item>
{{- end}}
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{{xml .Firmware}}"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`))

func (m *Machine) descriptor(vmdkBytes int64) ([]byte, error) {
	var b bytes.Buffer
	err := descriptorText.Execute(&b, struct {
		Name                 string
		VMDKBytes, DiskBytes int64
		Hardware
	}{m.Name, vmdkBytes, m.DiskBytes, m.Hardware})
	return b.Bytes(), err
}
