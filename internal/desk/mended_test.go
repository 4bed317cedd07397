package desk

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"

	"berth/internal/check"
	"berth/internal/image"
	"berth/internal/phony"
)

// With the service's leave, an ingestion mends what a powered-off disk takes: the image is a few clusters over the AMI's disk,
// which stays as it is, and what was done is told.
func TestAnIngestionMends(t *testing.T) {
	const unfit = "auto-logon-enabled"
	f := newFixture(t, func(c *Config) { c.Fix = true })
	f.enabled()
	task := f.imported(f.upload(sample(t, unfit, "qcow2")))
	before := f.digest(*task.SnapshotDetails[0].SnapshotID)
	im := f.ingested(*task.ImageID, "mended")
	if im.State != types.WorkspaceImageStateAvailable {
		t.Fatalf("%s: %v %+v", im.State, aws.ToString(im.ErrorMessage), im.ErrorDetails)
	}
	r, err := f.workspaceImage(t.Context(), *im.ImageId)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Fixes) == 0 || !slices.ContainsFunc(r.Fixes, func(x fixRecord) bool { return x.Code == "AutoLogonEnabled" && len(x.Steps) > 0 }) {
		t.Errorf("fixes: %+v", r.Fixes)
	}
	var report check.Report
	if err := json.Unmarshal([]byte(r.Report), &report); err != nil || !report.Fit {
		t.Errorf("the report of the mended disk: %v, %+v", err, report)
	}
	all, err := f.Berth().ListStoredImages(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all.StoredImages {
		if mended := *x.Digest == *r.Digest; mended != (len(x.Fixes) > 0) || mended && (!strings.HasPrefix(x.Fixes[0], "AutoLogonEnabled: set SOFTWARE") || *x.Base != before) {
			t.Errorf("it is listed as %+v", x)
		}
	}
	if it := f.item(5, *im.ImageId); !strings.Contains(it.Detail, "mended: AutoLogonEnabled") {
		t.Errorf("the console shows %+v", it)
	}
	s, err := f.stored(t.Context(), *r.Digest)
	if err != nil || s.Base != f.storedFile(before) || *r.Digest == before {
		t.Fatalf("the mended disk: %+v, %v", s, err)
	}
	over, err := os.Stat(s.Path)
	if err != nil || over.Size() > 4<<20 {
		t.Errorf("a few clusters: %v, %v", over, err)
	}
	// What the mended disk shows is fit, by another reader too: QEMU's, of both files.
	if report, err := image.Inspect(t.Context(), check.Options{Ingestion: true}, s); err != nil || !report.Fit {
		t.Errorf("the mended disk: %v, %+v", err, report)
	}
	flat := t.TempDir() + "/flat.qcow2"
	run(t, "qemu-img", "convert", "-O", "qcow2", `json:{"driver":"qcow2","file":{"driver":"file","filename":"`+s.Path+`"},"backing":{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"`+s.Base+`"}}}`, flat)
	if report, err := image.Inspect(t.Context(), check.Options{Ingestion: true}, image.Stored{Path: flat}); err != nil || !report.Fit {
		t.Errorf("the mended disk as QEMU reads it: %v, %+v", err, report)
	}
	run(t, "qemu-img", "check", "-q", "-f", "qcow2", s.Path)
	for _, digest := range []string{before, *r.Digest} {
		if out, err := f.Berth().VerifyStoredImage(t.Context(), &VerifyStoredImageInput{aws.String(digest)}); err != nil || out.StoredImage.Damage != nil {
			t.Errorf("%s: %+v, %v", digest, out, err)
		}
	}
	// The one under it stays as long as it is needed, and no longer.
	if _, err := f.EC2().DeregisterImage(t.Context(), &DeregisterImageInput{ImageID: task.ImageID, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(f.file("stored")); err != nil || len(es) != 2 {
		t.Errorf("stored: %v, %v", es, err)
	}
	f.Close()
	f.open() // the driver, which is a new one, is given both
	if _, err := f.DeleteWorkspaceImage(t.Context(), &workspaces.DeleteWorkspaceImageInput{ImageId: im.ImageId}); err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(f.file("stored")); err != nil || len(es) != 0 {
		t.Errorf("left: %v, %v", es, err)
	}
}

// What cannot be mended on a disk is a finding as before, and the fixes of the others are not half made.
func TestAnIngestionThatCannotMendAll(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Fix = true })
	f.enabled()
	unfit := f.ingested(*f.imported(f.upload(sample(t, "in-place-upgrade", "qcow2"))).ImageID, "unfit")
	if unfit.State != types.WorkspaceImageStateError || !slices.ContainsFunc(unfit.ErrorDetails, func(e types.ErrorDetails) bool { return e.ErrorCode == "InPlaceUpgrade" }) {
		t.Errorf("%s: %+v", unfit.State, unfit.ErrorDetails)
	}
	fit := f.ingested(*f.imported(f.upload(sample(t, phony.Base, "qcow2"))).ImageID, "fit")
	r, err := f.workspaceImage(t.Context(), *fit.ImageId)
	if err != nil || fit.State != types.WorkspaceImageStateAvailable || len(r.Fixes) != 0 {
		t.Errorf("a machine with nothing to mend: %s, %+v, %v", fit.State, r, err)
	}
	if s, err := f.stored(t.Context(), *r.Digest); err != nil || s.Base != "" {
		t.Errorf("it is %+v, %v", s, err)
	}
}
