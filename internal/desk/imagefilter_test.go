package desk

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"berth/internal/phony"
)

// Every filter that EC2's model documents for DescribeImages is taken, and finds an image by what the image shows.
func TestImageFilters(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Now = func() time.Time { return time.Date(2026, 7, 3, 10, 0, 0, 4e6, time.UTC) }
		c.AccountID = "123456789012"
	})
	task := f.imported(f.upload(sample(t, phony.Base, "qcow2")))
	if err := putTags(t.Context(), f.db, *task.ImageID, []EC2Tag{{Key: aws.String("team"), Value: aws.String("desktops")}}); err != nil {
		t.Fatal(err)
	}
	find := func(name string, values ...string) []EC2Image {
		t.Helper()
		out, err := f.EC2().DescribeImages(t.Context(), &DescribeImagesInput{Filters: []Filter{{Name: &name, Values: values}}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return nil
		}
		return out.Images
	}
	all, err := f.EC2().DescribeImages(t.Context(), &DescribeImagesInput{})
	if err != nil || len(all.Images) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	im := all.Images[0]
	matching := map[string][2]string{ // what matches, what does not
		"architecture": {"x86_64", "i386"},
		"block-device-mapping.delete-on-termination": {"true", "false"},
		"block-device-mapping.device-name":           {"/dev/sda1", "/dev/sdf"},
		"block-device-mapping.encrypted":             {"false", "true"},
		"block-device-mapping.snapshot-id":           {*task.SnapshotDetails[0].SnapshotID, "snap-0123456789abcdef0"},
		"block-device-mapping.volume-size":           {strconv.FormatInt(im.BlockDeviceMappings[0].EBS.VolumeSize, 10), "0"},
		"block-device-mapping.volume-type":           {"gp2", "gp3"},
		"boot-mode":                                  {"legacy-bios", "uefi"},
		"creation-date":                              {"2026-07-03T10:00:00.004Z", "2026-07-04T*"},
		"description":                                {"Imported by Berth from *", "Imported"},
		"ena-support":                                {"false", "true"},
		"free-tier-eligible":                         {"false", "true"},
		"hypervisor":                                 {"xen", "ovm"},
		"image-id":                                   {*im.ImageID, "ami-0123456789abcdef0"},
		"image-type":                                 {"machine", "kernel"},
		"is-public":                                  {"false", "true"},
		"manifest-location":                          {*im.ImageLocation, *im.Name},
		"name":                                       {*task.ImportTaskID, "win10"},
		"owner-id":                                   {"123456789012", "210987654321"},
		"platform":                                   {"windows", "linux"},
		"platform-details":                           {"Windows BYOL", "Windows"},
		"root-device-name":                           {"/dev/sda1", "/dev/xvda"},
		"root-device-type":                           {"ebs", "instance-store"},
		"state":                                      {"available", "failed"},
		"tag:team":                                   {"desktops", "servers"},
		"tag-key":                                    {"team", "desktops"},
		"usage-operation":                            {"RunInstances:0800", "RunInstances:0002"},
		"virtualization-type":                        {"hvm", "paravirtual"},
	}
	for name, v := range matching {
		if got := find(name, v[1], v[0]); len(got) != 1 {
			t.Errorf("%s, %s: %d images", name, v[0], len(got))
		}
		if got := find(name, v[1]); len(got) != 0 {
			t.Errorf("%s, %s: %d images", name, v[1], len(got))
		}
	}
	never := []string{"image-allowed", "kernel-id", "owner-alias", "product-code", "product-code.type", "ramdisk-id", "source-image-id", "source-image-region",
		"source-instance-id", "sriov-net-support", "state-reason-code", "state-reason-message", "tpm-support"}
	for _, name := range never {
		if got := find(name, "*"); len(got) != 0 {
			t.Errorf("%s: %d images have it", name, len(got))
		}
	}
	if got := find("creation-date", "2026-07-03*"); len(got) != 1 {
		t.Errorf("of that day: %d images", len(got))
	}
	for name := range imageFilters {
		if _, ok := matching[name]; !ok && !slices.Contains(never, name) {
			t.Errorf("%s is not tested", name)
		}
	}
}
