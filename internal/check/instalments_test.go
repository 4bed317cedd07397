package check_test

import (
	"context"
	"reflect"
	"testing"

	"berth/internal/check"
	"berth/internal/windows"
)

// collect reads the facts, and holds that a check which is said to have ended before all of them were there ended as it does with all;
// and that the checks do end by and by.
func collect(t *testing.T, sys windows.System, opt check.Options) *check.Facts {
	t.Helper()
	early := map[string]check.Finding{}
	instalments := 0
	facts := check.CollectEach(context.Background(), sys, func(f *check.Facts) {
		before := len(early)
		for _, finding := range check.Run(f, opt).Findings {
			if _, ok := early[finding.Code]; !ok && !finding.Waiting {
				early[finding.Code] = finding
			}
		}
		if len(early) > before {
			instalments++
		}
	})
	for _, finding := range check.Run(facts, opt).Findings {
		if finding.Waiting {
			t.Errorf("%s waits for more than there is", finding.Code)
		}
		if first := early[finding.Code]; !reflect.DeepEqual(first, finding) {
			t.Errorf("%s ended as\n%+v, and then became\n%+v", finding.Code, first, finding)
		}
	}
	if instalments < 10 {
		t.Errorf("the checks end in %d instalments", instalments)
	}
	return facts
}
