package check

import (
	"encoding/binary"
	"fmt"
	"strings"

	"berth/internal/windows"
)

// membershipChecks are the checks on whom the machine belongs to.
var membershipChecks = []Check{
	{
		Code: "DomainJoined", ReportAs: "DomainJoined", Level: Fail, DecidedIn: OnDisk,
		Title:      "The machine belongs to no domain",
		Source:     "facts §4.2",
		Evaluation: `The default value of Policy\PolPrDmS in the SECURITY hive, the primary domain's SID, must be empty.`,
		Remedy: steps(
			"Leave the domain, with an account that is a local administrator, and restart:",
			"  powershell Remove-Computer -WorkgroupName WORKGROUP -Force -Restart",
			"WorkSpaces are joined to their directory when they are launched."),
		judge: judgeDomain,
	},
	{
		Code: "AzureDomainJoined", ReportAs: "AzureDomainJoined", Level: Fail, DecidedIn: OnDisk,
		Title:      "The machine is not joined to Microsoft Entra ID (Azure AD)",
		Source:     "facts §4.2",
		Evaluation: `Control\CloudDomainJoin\JoinInfo must be absent or have no subkeys.`,
		Remedy: steps(
			"Leave it, with an account that is a local administrator, and restart:",
			"  dsregcmd /leave",
			"dsregcmd /status must say AzureAdJoined : NO afterwards."),
		judge: judgeCloudDomain,
	},
}

// membership reads whom the machine belongs to.
func (r *reader) membership(f *Facts) {
	f.Domain = r.domain()
	_, f.CloudDomains = r.list(windows.SystemHive, currentControlSet+`\Control\CloudDomainJoin\JoinInfo`, maxPrograms)
}

// domain reads the security authority's primary domain: PolPrDmS holds its SID, and nothing in a workgroup; PolPrDmN its name,
// or the workgroup's (facts §4.2, DomainJoined). The values have no name, and their types mean nothing.
func (r *reader) domain() Known[string] {
	joined := value(r, windows.Security, `Policy\PolPrDmS`, "", always, false, func(v windows.Value) (bool, string, error) {
		if len(strings.Trim(string(v.Data), "\x00")) == 0 {
			return false, "no SID", nil
		}
		sid, err := windows.SIDText(v.Data)
		return true, sid, err
	})
	if !joined.OK() {
		return likewise[string](joined)
	}
	if !joined.Value {
		return read("", joined.From...)
	}
	name := value(r, windows.Security, `Policy\PolPrDmN`, "", always, "", func(v windows.Value) (string, string, error) {
		s, err := countedText(v.Data)
		return s, `"` + printable(s) + `"`, err
	})
	if !name.OK() || name.Value == "" {
		return read("a domain whose name cannot be read", joined.From...)
	}
	return read(name.Value, append(joined.From, name.From...)...)
}

// countedText decodes the security authority's texts: length and capacity in bytes (16 bits each), where the text begins (32 bits),
// the text in UTF-16.
func countedText(b []byte) (string, error) {
	const header = 8
	if len(b) < header {
		return "", fmt.Errorf("a text of %d bytes, its header alone takes %d", len(b), header)
	}
	length, at := int(binary.LittleEndian.Uint16(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
	if at < header || at+uint64(length) > uint64(len(b)) {
		return "", fmt.Errorf("a text of %d bytes at %d, in %d bytes", length, at, len(b))
	}
	return utf16Text(b[at : at+uint64(length)])
}

func judgeDomain(f *Facts, _ Params) Verdict {
	if v, no := missing(f.Domain); no {
		return v
	}
	if f.Domain.Value != "" {
		return unmet("The machine is a member of "+printable(f.Domain.Value)+".", f.Domain)
	}
	return pass("The machine is in a workgroup.", f.Domain)
}

func judgeCloudDomain(f *Facts, _ Params) Verdict {
	if v, no := missing(f.CloudDomains); no {
		return v
	}
	if n := len(f.CloudDomains.Value); n > 0 {
		return unmet("The machine is joined to Microsoft Entra ID (Azure AD).", f.CloudDomains)
	}
	return pass("The machine is not joined to Microsoft Entra ID (Azure AD).", f.CloudDomains)
}
