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
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/phony"
)

// TestImports imports the sample in every format, and everything that VM Import refuses. What is refused leaves nothing
// behind.
func TestImports(t *testing.T) {
	t.Parallel()
	s := serve(t, "--graphics", "--enable-delay", "0s", "--region", "eu-west-1", "--import-whole") // so that the disk can be held against the export, byte by byte
	s.bucket(t, "exports")
	t.Run("every format", func(t *testing.T) { everyFormat(t, s) })
	t.Run("two disks in an OVA", func(t *testing.T) { twoDisksInAnOVA(t, s) })
	kept := s.files(t) // from here on, every import fails
	t.Run("refused at once", func(t *testing.T) { refusedAtOnce(t, s) })
	t.Run("refused by what is in it", func(t *testing.T) { refusedByContent(t, s) })
	t.Run("cancelled", func(t *testing.T) { cancelled(t, s) })
	t.Run("encryption by default", func(t *testing.T) { encryptionByDefault(t, s) })
	t.Run("snapshots", func(t *testing.T) { snapshotTasks(t, s) })
	if now := s.files(t); !slices.Equal(now, kept) {
		t.Errorf("refused imports left files behind: %v, want %v", now, kept)
	}
	t.Run("graphics", func(t *testing.T) { graphics(t, s) })
	t.Run("deregister", func(t *testing.T) { deregister(t, s) })
}

// files are what imports keep in the data folder.
func (s *service) files(t *testing.T) (names []string) {
	t.Helper()
	for _, dir := range []string{"imports", "stored"} {
		es, err := os.ReadDir(filepath.Join(s.data, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			names = append(names, dir+"/"+e.Name())
		}
	}
	return names
}

// messages are the status messages of an import that succeeds, in their order.
var messages = []string{"pending", "validating", "validated", "converting", "preparing ami", ""}

// everyFormat imports the same machine from each format at the same time.
func everyFormat(t *testing.T, s *service) {
	var mu sync.Mutex
	told := map[string]bool{}
	t.Run("all", func(t *testing.T) {
		for _, format := range []string{"ova", "vmdk", "vhd", "vhdx", "raw", "qcow2"} {
			t.Run(format, func(t *testing.T) {
				t.Parallel()
				name := "small." + format
				s.put(t, "exports", name, export(t, "small", format))
				asked, err := s.importDisk(t, "exports", name, "DiskContainer.1.Format", format, "Description", "From "+format)
				if err != nil {
					t.Fatal(err)
				}
				if asked.Status != "active" || asked.StatusMessage != "pending" || asked.Progress == "" || !strings.HasPrefix(asked.ID, "import-ami-") || len(asked.ID) != len("import-ami-")+17 {
					t.Errorf("the answer is %+v", asked)
				}
				seen := s.imported(t, asked.ID)
				at, percent := 0, 0
				for _, k := range seen {
					i := slices.Index(messages, k.StatusMessage)
					p, err := strconv.Atoi(k.Progress)
					if i < at || k.StatusMessage != "" && (err != nil || p < percent || p > 99) {
						t.Errorf("after %q, %d%% comes %q, %q%%", messages[at], percent, k.StatusMessage, k.Progress)
					}
					at, percent = max(i, at), max(p, percent)
					mu.Lock()
					told[k.StatusMessage] = true
					mu.Unlock()
				}
				last := seen[len(seen)-1]
				if last.Status != "completed" || last.StatusMessage != "" || last.Progress != "" || !strings.HasPrefix(last.ImageID, "ami-") || last.BootMode != "legacy-bios" ||
					last.Format != strings.ToUpper(format) && format != "ova" || last.DiskStatus != "completed" || !strings.HasPrefix(last.DiskSnapshot, "snap-") {
					t.Fatalf("%s ended as %+v", format, last)
				}
			})
		}
	})
	// Six times the same machine: what a guest reads is the same, and so it is kept once.
	kept := s.files(t)
	if len(kept) != 1 {
		t.Fatalf("six imports of one machine keep %v", kept)
	}
	sound(t, filepath.Join(s.data, kept[0]))
	for _, m := range messages {
		if !told[m] && m != "validating" && m != "validated" { // which may pass between two looks
			t.Errorf("in six imports nobody saw the status message %q; seen: %v", m, told)
		}
	}
	var images struct {
		Images []struct {
			ID    string `xml:"imageId"`
			State string `xml:"imageState"`
			Size  int    `xml:"blockDeviceMapping>item>ebs>volumeSize"`
			Boot  string `xml:"bootMode"`
			Text  string `xml:"description"`
		} `xml:"imagesSet>item"`
	}
	if err := s.ec2(t, &images, "DescribeImages", "Owner.1", "self", "Filter.1.Name", "platform", "Filter.1.Value.1", "windows"); err != nil {
		t.Fatal(err)
	}
	if len(images.Images) != 6 {
		t.Errorf("six imports made %d images", len(images.Images))
	}
	for _, im := range images.Images {
		if im.State != "available" || im.Size != 1 || im.Boot != "legacy-bios" || !strings.HasPrefix(im.Text, "From ") {
			t.Errorf("an image is %+v", im)
		}
	}
}

// twoDisksInAnOVA imports a machine that has its disk twice: each becomes a snapshot, the first with Windows is the root, and
// both are kept as the one disk that they are.
func twoDisksInAnOVA(t *testing.T, s *service) {
	read := func(format string) []byte {
		b, err := os.ReadFile(export(t, "small", format))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	kept := s.files(t)
	path := filepath.Join(t.TempDir(), "two.ova")
	if err := os.WriteFile(path, twoDisks(t, read("ova"), read("vmdk")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.put(t, "exports", "two.ova", path)
	asked, err := s.importDisk(t, "exports", "two.ova", "DiskContainer.1.Format", "OVA")
	if err != nil {
		t.Fatal(err)
	}
	all := s.imported(t, asked.ID)
	if last := all[len(all)-1]; last.Status != "completed" {
		t.Fatalf("it ended as %+v", last)
	}
	var out struct {
		Disks []struct {
			Device   string `xml:"deviceName"`
			Format   string `xml:"format"`
			Snapshot string `xml:"snapshotId"`
		} `xml:"importImageTaskSet>item>snapshotDetailSet>item"`
	}
	if err := s.ec2(t, &out, "DescribeImportImageTasks", "ImportTaskId.1", asked.ID); err != nil {
		t.Fatal(err)
	}
	if d := out.Disks; len(d) != 2 || d[0].Device != "/dev/sda1" || d[1].Device != "/dev/sdf" || d[0].Format != "VMDK" || d[0].Snapshot == d[1].Snapshot {
		t.Errorf("its disks are %+v", out.Disks)
	}
	if now := s.files(t); !slices.Equal(now, kept) {
		t.Errorf("the same disk twice more is kept as %v, beside %v", now, kept)
	}
}

// sound holds an imported disk against the machine's own: every byte of it.
func sound(t *testing.T, path string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", "compare", "-f", "raw", "-F", "qcow2", export(t, "small", "raw"), path).CombinedOutput()
	if err != nil {
		t.Errorf("the imported disk is not the one that was exported: %v: %s", err, out)
	}
}

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

// cancelled gives an import up while the disk is being converted: one with much to copy behind its partitions.
func cancelled(t *testing.T, s *service) {
	b, err := os.ReadFile(export(t, "small", "raw"))
	if err != nil {
		t.Fatal(err)
	}
	const tail = 128 << 20
	b = append(b, make([]byte, tail)...)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(b[len(b)-tail:]) //nolint:errcheck // it cannot fail
	path := filepath.Join(t.TempDir(), "long.raw")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s.put(t, "exports", "long.raw", path)
	asked, err := s.importDisk(t, "exports", "long.raw", "DiskContainer.1.Format", "RAW")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the disk is being converted", func() (bool, error) {
		var out struct {
			Tasks []task `xml:"importImageTaskSet>item"`
		}
		err := s.ec2(t, &out, "DescribeImportImageTasks", "Filters.1.Name", "task-state", "Filters.1.Value.1", "active")
		if err != nil || len(out.Tasks) != 1 {
			return false, fmt.Errorf("active tasks: %+v (%w)", out.Tasks, err)
		}
		return out.Tasks[0].StatusMessage == "converting", nil
	})
	var answer struct {
		ID     string `xml:"importTaskId"`
		Before string `xml:"previousState"`
		Now    string `xml:"state"`
	}
	if err := s.ec2(t, &answer, "CancelImportTask", "ImportTaskId", asked.ID, "CancelReason", "wrong disk"); err != nil {
		t.Fatal(err)
	}
	if answer.ID != asked.ID || answer.Before != "converting" || answer.Now != "deleting" {
		t.Errorf("cancelling answers %+v", answer)
	}
	refuse(t, []refusal{{"cancelling twice", code("IncorrectState", "cannot be cancelled"), func() error { return s.ec2(t, nil, "CancelImportTask", "ImportTaskId", asked.ID) }}})
	seen := s.imported(t, asked.ID)
	if last := seen[len(seen)-1]; last.Status != "deleted" || last.StatusMessage != "wrong disk" || last.ImageID != "" || last.DiskSnapshot != "" {
		t.Errorf("a cancelled import ended as %+v", last)
	}
}

// encryptionByDefault switches it on, which keeps every import out, and off again.
func encryptionByDefault(t *testing.T, s *service) {
	is := func(want bool) {
		t.Helper()
		var out struct {
			On bool `xml:"ebsEncryptionByDefault"`
		}
		if err := s.ec2(t, &out, "GetEbsEncryptionByDefault"); err != nil || out.On != want {
			t.Errorf("encryption by default is %v (%v), want %v", out.On, err, want)
		}
	}
	is(false)
	if err := s.ec2(t, nil, "EnableEbsEncryptionByDefault"); err != nil {
		t.Fatal(err)
	}
	is(true)
	refuse(t, []refusal{
		{"import of a machine", code("InvalidParameter", "Importing a VM with an encrypted disk is not supported. Encryption by default is on"), func() error {
			return errorOf(s.importDisk(t, "exports", "small.ova"))
		}},
		{"import of a disk", code("InvalidParameter", "Encryption by default is on"), func() error {
			return s.ec2(t, nil, "ImportSnapshot", "DiskContainer.Url", "s3://exports/small.vhd")
		}},
	})
	if err := s.ec2(t, nil, "DisableEbsEncryptionByDefault"); err != nil {
		t.Fatal(err)
	}
	is(false)
}

// snapshotTasks imports a disk as a snapshot, and calls it by the wrong format.
func snapshotTasks(t *testing.T, s *service) {
	var asked task
	if err := s.ec2(t, &asked, "ImportSnapshot", "DiskContainer.Url", "s3://exports/small.vhd", "DiskContainer.Format", "VMDK"); err != nil {
		t.Fatal(err)
	}
	last := s.snapshotTask(t, asked.ID)
	if d := last.Detail; d.Status != "error" || !strings.Contains(d.StatusMessage, "Unsupported VMDK File Format") || d.SnapshotID != "" {
		t.Errorf("a snapshot import of the wrong format ended as %+v", d)
	}
}

// snapshotTask waits until a snapshot import has ended.
func (s *service) snapshotTask(t *testing.T, id string) (last task) {
	t.Helper()
	eventually(t, id+" has ended", func() (bool, error) {
		var out struct {
			Tasks []task `xml:"importSnapshotTaskSet>item"`
		}
		if err := s.ec2(t, &out, "DescribeImportSnapshotTasks", "ImportTaskId.1", id); err != nil || len(out.Tasks) != 1 || out.Tasks[0].Detail == nil {
			return false, fmt.Errorf("%+v (%w)", out.Tasks, err)
		}
		last = out.Tasks[0]
		return last.Detail.Status != "active", nil
	})
	return last
}

// graphics is what an account on the allow list may and may not do.
func graphics(t *testing.T, s *service) {
	w := s.workspaces
	if _, err := w.ModifyAccount(t.Context(), &workspaces.ModifyAccountInput{DedicatedTenancySupport: types.DedicatedTenancySupportEnumEnabled, DedicatedTenancyManagementCidrRange: aws.String("198.19.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "BYOL is enabled", func() (bool, error) {
		out, err := w.DescribeAccount(t.Context(), &workspaces.DescribeAccountInput{})
		return err == nil && out.DedicatedTenancySupport == types.DedicatedTenancySupportResultEnumEnabled, err
	})
	office := imageOf("ami-00000000000000000", "gpu")
	office.IngestionProcess, office.Applications = types.WorkspaceImageIngestionProcessByolGraphicsG4dn, []types.Application{types.ApplicationMicrosoftOffice2016}
	gpu := imageOf("ami-00000000000000000", "gpu")
	gpu.IngestionProcess = types.WorkspaceImageIngestionProcessByolGraphicsG4dn
	refuse(t, []refusal{
		{"Office 2016 with G4dn", exception[*types.InvalidParameterValuesException]("Microsoft_Office_2016 is not available with BYOL_GRAPHICS_G4DN"), call(t, w.ImportWorkspaceImage, office)},
		{"on the allow list, and so the AMI's turn", exception[*types.ResourceNotFoundException]("ami-00000000000000000"), call(t, w.ImportWorkspaceImage, gpu)},
	})
	// A GPU's image takes a GPU's bundle, and no other. The machine must be whole for that.
	s.put(t, "exports", "win10.vmdk", export(t, phony.Base, "vmdk"))
	gpu.Ec2ImageId = aws.String(s.ami(t, "exports", "win10.vmdk"))
	made, err := w.ImportWorkspaceImage(t.Context(), gpu)
	if err != nil {
		t.Fatal(err)
	}
	st := &story{service: s}
	refuse(t, []refusal{{"deregistering an AMI that is being ingested", func(err error) error {
		if err == nil { // the ingestion may have been quicker than we
			out, err := w.DescribeWorkspaceImages(t.Context(), &workspaces.DescribeWorkspaceImagesInput{ImageIds: []string{*made.ImageId}})
			if err != nil || len(out.Images) != 1 || out.Images[0].State == types.WorkspaceImageStatePending {
				return fmt.Errorf("the AMI has gone, and the image that is made of it is %+v (%w)", out, err)
			}
			return nil
		}
		return code("InvalidAMIID.Unavailable", "is being made into a WorkSpaces image")(err)
	}, func() error { return s.ec2(t, nil, "DeregisterImage", "ImageId", *gpu.Ec2ImageId) }}})
	if im := st.ingested(t, *made.ImageId); im.State != types.WorkspaceImageStateAvailable {
		t.Fatalf("the image is %+v", im)
	}
	sized := func(compute types.Compute, root, user string) *workspaces.CreateWorkspaceBundleInput {
		in := bundleOf(*made.ImageId, "gpu")
		in.ComputeType.Name, in.RootStorage.Capacity, in.UserStorage.Capacity = compute, &root, &user
		return in
	}
	bad := exception[*types.InvalidParameterValuesException]
	refuse(t, []refusal{
		{"STANDARD of a GPU's image", bad("does not go with an image that was ingested as BYOL_GRAPHICS_G4DN"), call(t, w.CreateWorkspaceBundle, sized(types.ComputeStandard, "80", "10"))},
		{"small root of a GPU", bad("at least 100 GB"), call(t, w.CreateWorkspaceBundle, sized(types.ComputeGraphicsG4dn, "80", "100"))},
		{"small user volume of a GPU", bad("at least 100 GB"), call(t, w.CreateWorkspaceBundle, sized(types.ComputeGraphicsproG4dn, "100", "99"))},
		{"large root of a GPU", bad("at most 2000 GB"), call(t, w.CreateWorkspaceBundle, sized(types.ComputeGraphicsG4dn, "2001", "100"))},
	})
	if _, err := w.CreateWorkspaceBundle(t.Context(), sized(types.ComputeGraphicsG4dn, "100", "100")); err != nil {
		t.Error(err)
	}
}

// deregister removes every AMI with its snapshot, and sees the files go.
func deregister(t *testing.T, s *service) {
	var images struct {
		IDs []string `xml:"imagesSet>item>imageId"`
	}
	if err := s.ec2(t, &images, "DescribeImages"); err != nil {
		t.Fatal(err)
	}
	for _, id := range images.IDs {
		if err := s.ec2(t, nil, "DeregisterImage", "ImageId", id, "DeleteAssociatedSnapshots", "true"); err != nil {
			t.Errorf("deregistering %s: %v", id, err)
		}
		refuse(t, []refusal{{"deregistering twice", code("InvalidAMIID.NotFound", "The image id '["+id+"]' does not exist"), func() error { return s.ec2(t, nil, "DeregisterImage", "ImageId", id) }}})
	}
	if left := s.files(t); len(left) != 1 || !strings.HasPrefix(left[0], "stored/") {
		t.Errorf("after the last AMI there are %v, want the WorkSpaces image alone", left)
	}
}
