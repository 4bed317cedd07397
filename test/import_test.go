package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

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
			Device   string  `xml:"deviceName"`
			Format   string  `xml:"format"`
			Snapshot string  `xml:"snapshotId"`
			Size     float64 `xml:"diskImageSize"`
		} `xml:"importImageTaskSet>item>snapshotDetailSet>item"`
	}
	if err := s.ec2(t, &out, "DescribeImportImageTasks", "ImportTaskId.1", asked.ID); err != nil {
		t.Fatal(err)
	}
	if d := out.Disks; len(d) != 2 || d[0].Device != "/dev/sda1" || d[1].Device != "/dev/sdf" || d[0].Format != "VMDK" || d[0].Snapshot == d[1].Snapshot {
		t.Errorf("its disks are %+v", out.Disks)
	}
	vmdk := float64(len(read("vmdk"))) // in the OVA, too
	if d := out.Disks; len(d) == 2 && (d[0].Size != vmdk || d[1].Size != vmdk) {
		t.Errorf("its disks are said to be files of %.0f and %.0f bytes; they have %.0f", d[0].Size, d[1].Size, vmdk)
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
