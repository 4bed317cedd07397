package report

import (
	"fmt"
	"io"
	"strings"

	"berth/internal/check"
)

// The objects of SARIF 2.1.0 that are written here, by the names and the property names of the standard (OASIS, March 2020, §3).
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool              sarifTool         `json:"tool"`
		AutomationDetails sarifAutomation   `json:"automationDetails"`
		Invocations       []sarifInvocation `json:"invocations"`
		Artifacts         []sarifArtifact   `json:"artifacts"`
		Results           []sarifResult     `json:"results"`
		Properties        map[string]any    `json:"properties,omitempty"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID                   string         `json:"id"`
		ShortDescription     sarifText      `json:"shortDescription"`
		Help                 sarifText      `json:"help"`
		DefaultConfiguration sarifDefault   `json:"defaultConfiguration"`
		Properties           map[string]any `json:"properties"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifAutomation struct {
		ID string `json:"id"`
	}
	sarifInvocation struct {
		ExecutionSuccessful bool   `json:"executionSuccessful"`
		ExitCode            int    `json:"exitCode"`
		EndTimeUTC          string `json:"endTimeUtc,omitempty"`
	}
	sarifArtifact struct {
		Location sarifArtifactLocation `json:"location"`
		Roles    []string              `json:"roles"`
	}
	sarifArtifactLocation struct {
		URI   string `json:"uri"`
		Index *int   `json:"index,omitempty"`
	}
	sarifResult struct {
		RuleID              string            `json:"ruleId"`
		RuleIndex           int               `json:"ruleIndex"`
		Kind                string            `json:"kind"`
		Level               string            `json:"level"`
		Message             sarifText         `json:"message"`
		Locations           []sarifLocation   `json:"locations"`
		PartialFingerprints map[string]string `json:"partialFingerprints"`
		Properties          map[string]any    `json:"properties"`
	}
	sarifLocation struct {
		PhysicalLocation sarifPhysical  `json:"physicalLocation"`
		LogicalLocations []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		ArtifactLocation sarifArtifactLocation `json:"artifactLocation"`
	}
	sarifLogical struct {
		Name               string `json:"name"`
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind,omitempty"`
	}
)

// sarifSchema is where OASIS publishes the schema; a reader may look for it there, we never do.
const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

// SARIF writes the report in the Static Analysis Results Interchange Format 2.1.0. The rules are the findings' checks. There is a
// result for every finding that is not in order: FAIL is an error, WARN a warning, UNKNOWN is of kind "open"; a rule without a
// result passed, does not apply, or waits for the guest. A location is the file by its bare name, and in it the registry value.
func SARIF(w io.Writer, r check.Report, s Subject) error {
	run := sarifRun{
		Tool:              sarifTool{sarifDriver{Name: "Berth", Version: check.Printable(s.Version), Rules: []sarifRule{}}},
		AutomationDetails: sarifAutomation{ID: check.Printable("berth-check/" + r.Profile + "/")},
		Invocations:       []sarifInvocation{{ExecutionSuccessful: true, ExitCode: r.ExitCode()}},
		Artifacts:         []sarifArtifact{{Location: sarifArtifactLocation{URI: fileURI(s.File)}, Roles: []string{"analysisTarget"}}},
		Results:           []sarifResult{},
		Properties:        map[string]any{"profile": check.Printable(r.Profile), "process": check.Printable(string(r.Process)), "verdict": Verdict(r), "windows": check.Printable(about(r.Windows))},
	}
	if !s.At.IsZero() {
		run.Invocations[0].EndTimeUTC = s.At.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	ids := map[string]int{}
	for _, f := range r.Findings {
		id := check.Printable(f.Code)
		if _, known := ids[id]; !known {
			ids[id] = len(run.Tool.Driver.Rules)
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRuleOf(f))
		}
		if part := (Part{Name: partOf(f, s.Running)}); !part.ToDo() {
			continue
		}
		result := sarifResult{
			RuleID: id, RuleIndex: ids[id], Kind: "fail", Level: "error",
			Message:             sarifText{oneLine(f.Because)},
			PartialFingerprints: map[string]string{"berthCheck/v1": id},
			Properties:          map[string]any{"outcome": outcomeWord(f.Outcome), "evidence": lines(f), "fixable": f.Fixable, "remedy": remedyText(f)},
		}
		if c := changes(f); c != nil {
			result.Properties["fix"] = c
		}
		switch f.Outcome {
		case check.Fail:
		case check.Warn:
			result.Level = "warning"
		default:
			result.Kind, result.Level = "open", "none" // §3.27.10: what is no failure has no level
		}
		index := 0
		result.Locations = []sarifLocation{{
			PhysicalLocation: sarifPhysical{sarifArtifactLocation{URI: fileURI(s.File), Index: &index}},
			LogicalLocations: logicalLocations(f),
		}}
		run.Results = append(run.Results, result)
	}
	return WriteJSON(w, sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}}, "  ")
}

// sarifRuleOf is the row of the table, or what the finding says of it where the table no longer has it.
func sarifRuleOf(f check.Finding) sarifRule {
	rule := sarifRule{
		ID: check.Printable(f.Code), ShortDescription: sarifText{oneLine(f.Title) + "."}, Help: sarifText{remedyText(f)},
		DefaultConfiguration: sarifDefault{"error"}, Properties: map[string]any{},
	}
	if c, ok := check.Describe(f.Code); ok {
		rule.Help.Text = c.Remedy
		if c.Level == check.Warn {
			rule.DefaultConfiguration.Level = "warning"
		}
		rule.Properties["source"], rule.Properties["reportAs"], rule.Properties["decidedIn"] = c.Source, c.ReportAs, string(c.DecidedIn)
	}
	if rule.Help.Text == "" {
		rule.Help.Text = rule.ShortDescription.Text
	}
	return rule
}

// fileURI is a bare file name as a relative URI reference (RFC 3986 §4.2), never empty: all but unreserved characters are written
// as percent and two digits, a colon too, which would make of what is before it a scheme.
func fileURI(name string) string {
	if name == "" {
		name = "unnamed"
	}
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// logicalLocations are what a finding's evidence names: registry keys and values, files, structures of the disk, what a running
// Windows was asked.
func logicalLocations(f check.Finding) []sarifLogical {
	var all []sarifLogical
	seen := map[string]bool{}
	add := func(kind, name string, path ...string) {
		full := check.Printable(strings.Join(path, `\`))
		if !seen[full] {
			seen[full] = true
			all = append(all, sarifLogical{Name: check.Printable(name), FullyQualifiedName: full, Kind: kind})
		}
	}
	for _, e := range f.Evidence {
		switch {
		case e.Hive != "" && e.Value != "":
			add("value", e.Value, string(e.Hive), e.Key, e.Value)
		case e.Hive != "":
			add("key", e.Key[strings.LastIndexByte(e.Key, '\\')+1:], string(e.Hive), e.Key)
		case e.File != "":
			add("file", e.File[strings.LastIndexByte(e.File, '/')+1:], e.File)
		case e.Structure != "":
			add("structure", e.Structure, e.Disk, e.Structure)
		case e.Live != "":
			add("resource", e.Live, e.Live) // what the running Windows was asked
		}
	}
	return all
}
