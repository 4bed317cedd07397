package image

import (
	"context"

	"berth/internal/check"
	"berth/internal/disk"
)

// InspectPartial runs the checks over an export of which not all is there yet: src has an error for what is not. A check whose facts
// are in what is missing is UNKNOWN, with that error as the reason. Formats whose tables lie at their beginning can be read so: raw
// disks, VHD, VHDX, sparse VMDK. format is what the caller said it is, or "".
func InspectPartial(ctx context.Context, src disk.Source, format string, opt check.Options) (check.Report, error) {
	env, err := disk.Open(src, disk.Options{Format: format})
	if err != nil {
		return check.Report{}, failureOf(err)
	}
	defer env.Close()
	_, report, err := judge(ctx, env, opt)
	return report, err
}
