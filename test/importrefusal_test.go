package test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// refusedAtOnce tries what is refused before there is a task.
func refusedAtOnce(t *testing.T, s *service) {
	image := func(params ...string) func() error {
		return func() error { return s.ec2(t, nil, "ImportImage", params...) }
	}
	const bucket, object = "DiskContainer.1.UserBucket.S3Bucket", "DiskContainer.1.UserBucket.S3Key"
	sound := func(params ...string) func() error {
		return image(append([]string{bucket, "exports", object, "small.ova"}, params...)...)
	}
	snapshot := func(params ...string) func() error {
		return func() error { return s.ec2(t, nil, "ImportSnapshot", params...) }
	}
	token := "story-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	var first, again struct {
		ID string `xml:"importTaskId"`
	}
	for _, out := range []any{&first, &again} {
		if err := s.ec2(t, out, "ImportImage", bucket, "exports", object, "there-is-none", "ClientToken", token); err != nil {
			t.Fatal(err)
		}
	}
	if first.ID == "" || first.ID != again.ID {
		t.Errorf("the same token made the tasks %q and %q", first.ID, again.ID)
	}
	s.imported(t, first.ID)
	refuse(t, []refusal{
		{"no disk", code("InvalidParameter", "Give from 1 to 512 DiskContainers; got 0"), image()},
		{"ARM", code("InvalidParameter", "must be for x86_64 or i386"), sound("Architecture", "arm64")},
		{"Linux", code("InvalidParameter", "only Windows"), sound("Platform", "Linux")},
		{"licence that nobody knows", code("InvalidParameter", "LicenseType FREE is not supported"), sound("LicenseType", "FREE")},
		{"Linux's usage operation", code("InvalidParameter", "UsageOperation RunInstances is not supported"), sound("UsageOperation", "RunInstances")},
		{"tags for what is not made yet", code("InvalidParameterValue", "'image' is not a valid taggable resource type"), sound("TagSpecification.1.ResourceType", "image", "TagSpecification.1.Tag.1.Key", "k")},
		{"licence and usage operation", code("InvalidParameterCombination", "cannot be given together"), sound("LicenseType", "BYOL", "UsageOperation", "RunInstances:0800")},
		{"boot mode that nobody knows", code("InvalidParameterValue", "BootMode is invalid. Member must satisfy enum value set: [legacy-bios, uefi"), sound("BootMode", "floppy")},
		{"boot mode that imports do not take", code("InvalidParameter", "give legacy-bios or uefi"), sound("BootMode", "uefi-preferred")},
		{"encrypted", code("InvalidParameter", "encrypted disk is not supported"), sound("Encrypted", "true")},
		{"encryption key", code("InvalidParameter", "encrypted disk is not supported"), sound("KmsKeyId", "alias/key")},
		{"encrypted, said badly", code("InvalidParameterValue", "Invalid value 'yes' for Encrypted. Expected a value of type Boolean"), sound("Encrypted", "yes")},
		{"format that nobody knows", code("InvalidParameter", "disk-image-format VDI is not supported"), sound("DiskContainer.1.Format", "VDI")},
		{"web address", code("InvalidParameter", "Url http://127.0.0.1/disk.ova is not supported: give s3://bucket/key"), image("DiskContainer.1.Url", "http://127.0.0.1/disk.ova")},
		{"file", code("InvalidParameter", "Url file:///etc/passwd is not supported"), image("DiskContainer.1.Url", "file:///etc/passwd")},
		{"address without a key", code("InvalidParameter", "bucket and key must both be given"), image("DiskContainer.1.Url", "s3://exports")},
		{"bucket without a key", code("InvalidParameter", "bucket and key must both be given"), image(bucket, "exports")},
		{"address and bucket", code("InvalidParameter", "one of Url, UserBucket and SnapshotId"), sound("DiskContainer.1.Url", "s3://exports/small.ova")},
		{"snapshot that is not there", code("InvalidSnapshot.NotFound", "The snapshot 'snap-00000000000000000' does not exist"), image("DiskContainer.1.SnapshotId", "snap-00000000000000000")},
		{"nothing in the container", code("InvalidParameter", "one of Url, UserBucket and SnapshotId"), image("DiskContainer.1.Format", "OVA")},
		{"parameter that is not here", code("UnknownParameter", "LicenseSpecifications.1.LicenseConfigurationArn"), sound("LicenseSpecifications.1.LicenseConfigurationArn", "arn:aws:license-manager::1:license-configuration:x")},
		{"token with another disk", code("IdempotentParameterMismatch", "used before with other parameters"), sound("ClientToken", token)},
		{"snapshot of nothing", code("MissingParameter", "DiskContainer"), snapshot()},
		{"snapshot of an OVA", code("InvalidParameter", "Format OVA is not supported for a snapshot"), snapshot("DiskContainer.Format", "ova", "DiskContainer.Url", "s3://exports/small.ova")},
		{"snapshot of a snapshot", code("InvalidParameter", "cannot be imported from a snapshot"), snapshot("DiskContainer.SnapshotId", "snap-0123456789abcdef0")},
		{"encrypted snapshot", code("InvalidParameter", "encrypted disk is not supported"), snapshot("DiskContainer.Url", "s3://exports/small.vhd", "Encrypted", "true")},
		{"snapshot from the web", code("InvalidParameter", "give s3://bucket/key"), snapshot("DiskContainer.Url", "https://example.com/disk.vhd")},
		{"unknown task", code("InvalidConversionTaskId.Malformed", "'import-ami-00000000000000000' does not exist"), func() error {
			return s.ec2(t, nil, "DescribeImportImageTasks", "ImportTaskId.1", "import-ami-00000000000000000")
		}},
		{"snapshot task asked for as an image task", code("InvalidConversionTaskId.Malformed", "does not exist"), func() error {
			return s.ec2(t, nil, "DescribeImportSnapshotTasks", "ImportTaskId.1", first.ID)
		}},
		{"filter that is none", code("InvalidParameterValue", "The filter 'colour' is invalid"), func() error {
			return s.ec2(t, nil, "DescribeImportImageTasks", "Filters.1.Name", "colour", "Filters.1.Value.1", "blue")
		}},
		{"cancelling what is not there", code("InvalidConversionTaskId.Malformed", "does not exist"), func() error {
			return s.ec2(t, nil, "CancelImportTask", "ImportTaskId", "import-ami-00000000000000000")
		}},
		{"cancelling what has ended", code("IncorrectState", "is deleted and cannot be cancelled"), func() error {
			return s.ec2(t, nil, "CancelImportTask", "ImportTaskId", first.ID)
		}},
	})
}

// refusedByContent imports files that only show what they are when they are read: each task ends deleted with VM Import's text.
func refusedByContent(t *testing.T, s *service) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) string {
		if err := os.WriteFile(at(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	read := func(format string) []byte {
		b, err := os.ReadFile(export(t, "small", format))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	run := func(name string, args ...string) {
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", at("backed.qcow2"), "1M")
	run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+at("data"), at("data-file.qcow2"), "1M")
	ova, vmdk, vhd, vhdx, qcow2 := read("ova"), read("vmdk"), read("vhd"), read("vhdx"), read("qcow2")
	noise := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{})
	rng.Read(noise) //nolint:errcheck // it cannot fail

	const failed = "ClientError: Disk validation failed ["
	const encrypted = failed + "Importing a VM with an encrypted disk is not supported"
	rows := []struct{ name, file, format, says string }{
		{"BitLocker", export(t, "bitlocker", "qcow2"), "", encrypted},
		{"no Windows", export(t, "not-windows", "ova"), "", "ClientError: Unknown OS / Missing OS files."},
		{"noise", write("noise", noise), "", "ClientError: No valid partitions. Not a valid volume."},
		{"nothing but noughts", write("noughts", make([]byte, 1<<20)), "RAW", "ClientError: "},
		{"half an OVA", write("half.ova", ova[:len(ova)/2]), "", failed + "OVF file parsing error: "},
		{"half a VMDK", write("half.vmdk", vmdk[:len(vmdk)/2]), "", "ClientError: "},
		{"VMDK without its end", write("end.vmdk", bytes.TrimRight(vmdk, "\x00")[:len(bytes.TrimRight(vmdk, "\x00"))-100]), "", "ClientError: "},
		{"VMDK with a damaged grain", write("grain.vmdk", append(slices.Clone(vmdk[:len(vmdk)/3]), append(make([]byte, 2000), vmdk[len(vmdk)/3+2000:]...)...)), "", "ClientError: "},
		{"VHD without its end", write("end.vhd", vhd[:len(vhd)-4096]), "", "ClientError: "},
		{"VHDX without its end", write("end.vhdx", vhdx[:len(vhdx)-1<<20]), "", "ClientError: "},
		{"VHDX without its last byte", write("last.vhdx", vhdx[:len(vhdx)-1]), "", "ClientError: "},
		{"qcow2 without its end", write("end.qcow2", qcow2[:len(qcow2)-65536]), "", "ClientError: "},
		{"qcow2 without its last byte", write("last.qcow2", qcow2[:len(qcow2)-1]), "", "ClientError: "},
		{"OVA without its end", write("end.ova", ova[:len(ova)-65536]), "", "ClientError: "},
		{"half a VHD", write("half.vhd", vhd[:len(vhd)/2]), "", "ClientError: "},
		{"half a VHDX", write("half.vhdx", vhdx[:len(vhdx)/2]), "", "ClientError: "},
		{"OVA in chunks", write("chunked.ova", edited(t, ova, `ovf:size="`, `ovf:chunkSize="1000000" ovf:size="`)), "", failed + "OVF file parsing error: OVA with chunked disk files is not supported]"},
		{"OVA whose digests are wrong", write("digest.ova", edited(t, ova, "A virtual machine", "A changed machine")), "", failed + "OVF file parsing error: "},
		{"qcow2 on another file", at("backed.qcow2"), "", failed + "Unsupported QCOW2 File Format"},
		{"qcow2 beside another file", at("data-file.qcow2"), "QCOW2", failed + "Unsupported QCOW2 File Format"},
		{"VMDK on a file of the host", write("flat.vmdk", []byte(flatDescriptor)), "", failed + "Unsupported VMDK File Format"},
		{"VMDK that names a file of the host", write("flat2.vmdk", []byte(flatDescriptor)), "VMDK", failed + "Unsupported VMDK File Format"},
		{"VHD called VMDK", export(t, "small", "vhd"), "VMDK", failed + "Unsupported VMDK File Format"},
		{"OVA called RAW", export(t, "small", "ova"), "RAW", "ClientError: "},
		{"qcow2 called VHDX", export(t, "small", "qcow2"), "VHDX", failed + "Unsupported VHDX File Format"},
		{"there is no such file", "", "", failed + "We do not have access to the given resource. Reason 404 Not Found"},
		{"Amazon's licence for a client", export(t, "small", "vmdk"), "LicenseType=AWS", failed + "Windows for clients can only be imported with the license type BYOL"},
		{"Amazon's usage operation for a client", export(t, "small", "vmdk"), "UsageOperation=RunInstances:0002", failed + "Windows for clients can only be imported"},
		{"32 bits asked for", export(t, "small", "vmdk"), "Architecture=i386", failed + "The architecture i386 was asked for, but Windows is made for x86_64"},
		{"UEFI asked for, BIOS on the disk", export(t, "small", "vmdk"), "BootMode=uefi", failed + "The boot mode uefi was asked for, but the disk boots by legacy-bios"},
	}
	for _, r := range rows {
		key := strings.ReplaceAll(r.name, " ", "-")
		if r.file != "" {
			s.put(t, "exports", key, r.file)
		}
		var params []string
		if param, value, ok := strings.Cut(r.format, "="); ok {
			params = []string{param, value}
		} else if r.format != "" {
			params = []string{"DiskContainer.1.Format", r.format}
		}
		asked, err := s.importDisk(t, "exports", key, params...)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		seen := s.imported(t, asked.ID)
		if last := seen[len(seen)-1]; last.Status != "deleted" || !strings.HasPrefix(last.StatusMessage, r.says) || last.ImageID != "" || strings.Contains(last.StatusMessage, s.data) || strings.Contains(last.StatusMessage, "root:") {
			t.Errorf("%s ended as %s, %q; want deleted, %q", r.name, last.Status, last.StatusMessage, r.says)
		}
	}
}

// flatDescriptor is a VMDK that is all text, and whose only extent is a file of the machine that reads it.
const flatDescriptor = `# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

RW 4 FLAT "/etc/passwd" 0

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "1"
ddb.geometry.heads = "16"
ddb.geometry.sectors = "63"
ddb.adapterType = "ide"
`

// edited is an OVA whose descriptor has a piece replaced.
func edited(t *testing.T, ova []byte, piece, by string) []byte {
	t.Helper()
	return repacked(t, ova, func(name string, b []byte) []byte {
		if !strings.HasSuffix(name, ".ovf") {
			return b
		}
		if !bytes.Contains(b, []byte(piece)) {
			t.Fatalf("%s has no %q", name, piece)
		}
		return bytes.Replace(b, []byte(piece), []byte(by), 1)
	}, nil)
}

// twoDisks is an OVA whose machine has its disk twice, in two files.
func twoDisks(t *testing.T, ova, vmdk []byte) []byte {
	t.Helper()
	const item = `<Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:ElementName>Hard Disk 2</rasd:ElementName><rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource><rasd:InstanceID>5</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>`
	const disk = `<Disk ovf:diskId="vmdisk2" ovf:fileRef="file2" ovf:capacity="268435456" ovf:capacityAllocationUnits="byte" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>`
	ova = edited(t, ova, "</References>", fmt.Sprintf(`<File ovf:id="file2" ovf:href="second.vmdk" ovf:size="%d"/></References>`, len(vmdk)))
	ova = edited(t, ova, "</DiskSection>", disk+"</DiskSection>")
	ova = edited(t, ova, "</VirtualHardwareSection>", item+"</VirtualHardwareSection>")
	return repacked(t, ova, func(name string, b []byte) []byte {
		if strings.HasSuffix(name, ".mf") {
			return nil // its digests do not hold any more
		}
		return b
	}, vmdk)
}

// repacked is an OVA with its files changed, left out where the change is nil, and with one more, second.vmdk.
func repacked(t *testing.T, ova []byte, change func(name string, b []byte) []byte, second []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	put := func(h tar.Header, b []byte) {
		if b == nil {
			return
		}
		h.Size = int64(len(b))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for r := tar.NewReader(bytes.NewReader(ova)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		put(*h, change(h.Name, b))
	}
	put(tar.Header{Name: "second.vmdk", Mode: 0o600}, second)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
