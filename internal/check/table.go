package check

import (
	"slices"
	"strings"
)

// table holds the checks in the order of the report: what Windows this is, what is on it, what it belongs to, its
// account, its settings, its updates, its licence, what Sysprep meets, its network, its start, its disk; at last, what Amazon asks of others. A group's rows stand beside their judgements, in the file of the group. Levels are those of Amazon's checker
// (facts §4.2, "F" and "W"); for our own codes Fail, the document knows no milder word.
var table = slices.Concat(installationChecks, softwareChecks, protectionChecks, membershipChecks, accountChecks, settingsChecks, servicingChecks,
	licenceChecks, sysprepChecks, defaultProfileChecks, packageChecks, networkChecks, bootChecks, diskChecks, driveChecks, customImageChecks)

// steps joins the lines of a remedy.
func steps(lines ...string) string { return strings.Join(lines, "\n") }
