package check

import (
	"slices"
	"strings"
)

// table holds the checks in the order of the report: what Windows this is, what is on it, its account, its settings, its network,
// its disk. A group's rows stand beside their judgements, in the file of the group. Levels are those of Amazon's checker
// (facts §4.2, "F" and "W"); for our own codes Fail, the document knows no milder word.
var table = slices.Concat(installationChecks, softwareChecks, accountChecks, settingsChecks, networkChecks, diskChecks)

// steps joins the lines of a remedy.
func steps(lines ...string) string { return strings.Join(lines, "\n") }
