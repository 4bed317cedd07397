package desk

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"berth/internal/phony"
)

// Imported disks are listed as EC2 does it, until they are gone.
func TestSnapshots(t *testing.T) {
	f := newFixture(t)
	key := f.upload(sample(t, phony.Base, "qcow2"))
	task := f.imported(key)
	ofImage := *task.SnapshotDetails[0].SnapshotID
	asked, err := f.EC2().ImportSnapshot(callerContext(), &ImportSnapshotInput{DiskContainer: &fromBucket(key)[0]})
	if err != nil {
		t.Fatal(err)
	}
	var alone string
	until(t, "the end of the import", func() bool {
		out, err := f.EC2().DescribeImportSnapshotTasks(t.Context(), &DescribeImportSnapshotTasksInput{ImportTaskIDs: []string{*asked.ImportTaskID}})
		if err != nil {
			t.Fatal(err)
		}
		d := out.ImportSnapshotTasks[0].SnapshotTaskDetail
		alone = aws.ToString(d.SnapshotID)
		return *d.Status == taskCompleted
	})
	list := func(in DescribeSnapshotsInput) (ids []string, next *string) {
		t.Helper()
		out, err := f.EC2().DescribeSnapshots(t.Context(), &in)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range out.Snapshots {
			if *s.Status != "completed" || *s.Progress != "100%" || s.VolumeSize != 40 || *s.OwnerID != f.AccountID() || s.Encrypted || s.StartTime.IsZero() {
				t.Errorf("a snapshot is %+v", s)
			}
			ids = append(ids, *s.SnapshotID)
		}
		return ids, out.NextToken
	}
	by := func(name string, values ...string) DescribeSnapshotsInput {
		return DescribeSnapshotsInput{Filters: []Filter{{Name: &name, Values: values}}}
	}
	for name, c := range map[string]struct {
		in   DescribeSnapshotsInput
		want int
	}{
		"all": {DescribeSnapshotsInput{}, 2}, "by id": {DescribeSnapshotsInput{SnapshotIDs: []string{alone}}, 1},
		"own": {DescribeSnapshotsInput{OwnerIDs: []string{"self"}}, 2}, "by account": {DescribeSnapshotsInput{OwnerIDs: []string{f.AccountID()}}, 2}, "Amazon's": {DescribeSnapshotsInput{OwnerIDs: []string{"amazon"}}, 0},
		"another's to restore": {DescribeSnapshotsInput{RestorableByUserIDs: []string{"111122223333"}}, 0},
		"completed":            {by("status", "completed"), 2}, "pending": {by("status", "pending"), 0}, "of one task": {by("description", "*"+*asked.ImportTaskID), 1},
		"of a size": {by("volume-size", "40"), 2}, "tagged": {by("tag:a", "*"), 0}, "encrypted": {by("encrypted", "true"), 0},
	} {
		if ids, _ := list(c.in); len(ids) != c.want {
			t.Errorf("%s: %q", name, ids)
		}
	}
	first, next := list(DescribeSnapshotsInput{MaxResults: aws.Int32(1)})
	second, end := list(DescribeSnapshotsInput{MaxResults: aws.Int32(1), NextToken: next})
	if len(first) != 1 || first[0] != alone || len(second) != 1 || second[0] != ofImage || end != nil {
		t.Errorf("pages: %q, %q, %v", first, second, end)
	}
	none := "snap-0123456789abcdef0"
	_, err = f.EC2().DescribeSnapshots(t.Context(), &DescribeSnapshotsInput{SnapshotIDs: []string{none}})
	refusal(t, err, "InvalidSnapshot.NotFound", none)
	colour := by("colour", "red")
	_, err = f.EC2().DescribeSnapshots(t.Context(), &colour)
	refusal(t, err, "InvalidParameterValue", "'colour'")
	if _, err := f.EC2().DeregisterImage(t.Context(), &DeregisterImageInput{ImageID: task.ImageID, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if ids, _ := list(DescribeSnapshotsInput{}); len(ids) != 1 || ids[0] != alone {
		t.Errorf("with the AMI's disk gone: %q", ids)
	}
}
