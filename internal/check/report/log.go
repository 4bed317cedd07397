package report

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"

	"berth/internal/check"
)

// File is a file to be written: its bare name and what is in it.
type File struct {
	Name  string
	Bytes []byte
}

// Logs are the two files that Amazon's checker leaves beside itself, by the names that the document gives them ("Step 2"):
// BYOLPrevalidationlogYYYY-MM-DD_HHmmss.txt, which tells each test, and ImageInfo.text, a JSON object of what was found. Both are
// UTF-16 with a byte order mark and CRLF, as PowerShell writes them. The time is s.At, in its own time zone.
//
// What is known of their content (facts §4.1; Amazon's program calls the second one ImageInfo.txt): that a line of the log is a
// date, a time and a text; the texts around a test and its result; and the names in the object. The other texts, the codes as the
// tests' names, the results besides success and failure, and the types in the object are Berth's. What is not known is null there.
func Logs(r check.Report, f *check.Facts, s Subject) []File {
	if f == nil {
		f = &check.Facts{}
	}
	var info bytes.Buffer
	_ = WriteJSON(&info, newImageInfo(f, r), "  ") // neither the buffer nor these types can fail
	return []File{
		{"BYOLPrevalidationlog" + s.At.Format("2006-01-02_150405") + ".txt", utf16File(prevalidation(r, s))},
		{"ImageInfo.text", utf16File(info.String())},
	}
}

// prevalidation is the log's text.
func prevalidation(r check.Report, s Subject) string {
	var b strings.Builder
	say := func(line string) {
		b.WriteString(s.At.Format("01/02/2006 15:04:05") + " " + check.Printable(line) + "\n")
	}
	say("Berth " + s.Version + " checks " + s.File + " for " + asked(r))
	if w := about(r.Windows); w != "" {
		say(w)
	}
	for _, n := range notes(r, s) {
		say(oneLine(n))
	}
	for _, f := range r.Findings {
		say("Beginning test : " + f.Code)
		say(logResults[check.Outcome(outcomeWord(f.Outcome))] + " " + oneLine(f.Because))
		for _, line := range lines(f) {
			say("    " + line)
		}
		say("Ending test : " + f.Code)
	}
	switch r.ExitCode() {
	case check.ExitFit:
		say("Validation Successful")
	case check.ExitUnfit:
		say("Validation failed")
	default:
		say("Validation cannot be completed: something that is needed could not be read")
	}
	return b.String()
}

var logResults = map[check.Outcome]string{
	check.Pass: "[SUCCESS]", check.Fail: " [FAIL]", check.Warn: " [WARNING]", check.Unknown: " [UNKNOWN]", check.NotApplicable: "[NOT APPLICABLE]",
}

// imageInfo is the object in ImageInfo.text.
type imageInfo struct {
	Account struct {
		Exists   *bool `json:"Exists"`
		Disabled *bool `json:"Disabled"`
	} `json:"WorkSpaces_BYOLAccount"`
	// DHCP: every installed adapter has its address from DHCP.
	DHCP *bool `json:"NetworkAdapterUsingDHCP"`
	// Free is in bytes.
	Free     *int64 `json:"FreeSpaceOnCDrive"`
	Domain   *bool  `json:"partOfDomain"`
	Firewall struct {
		Type     string `json:"Type"`
		TurnedOn *bool  `json:"TurnedOn"`
	} `json:"Firewall"`
	VMWareTools *bool       `json:"VMWareToolsInstalled"`
	Drives      []string    `json:"Drives"`
	Partitions  []imagePart `json:"Partitions"`
	AutoLogon   *bool       `json:"AutoLogonTurnedOn"`
	Universal   *bool       `json:"RealTimeIsUniversal"`
	OSArch      *string     `json:"OSArchitecture"`
}

type imagePart struct {
	Disk       string `json:"Disk"`
	Number     int    `json:"Number"`
	Bytes      int64  `json:"Size"`
	Scheme     string `json:"Type"`
	FileSystem string `json:"FileSystem"`
	Bootable   bool   `json:"Bootable"`
}

func newImageInfo(f *check.Facts, r check.Report) imageInfo {
	var i imageInfo
	if f.BYOLAccount.OK() {
		exists := f.BYOLAccount.Value != 0
		i.Account.Exists = &exists
		if exists && f.BYOLAccountFlags.OK() {
			disabled := f.BYOLAccountFlags.Value&accountDisabled != 0
			i.Account.Disabled = &disabled
		}
	}
	if f.Adapters.OK() {
		dhcp := true
		for _, a := range f.Adapters.Value {
			dhcp = dhcp && (a.DHCP || !a.Installed)
		}
		i.DHCP = &dhcp
	}
	if f.SystemVolume.OK() {
		i.Free = &f.SystemVolume.Value.FreeBytes
	}
	if f.Domain.OK() {
		joined := f.Domain.Value != ""
		i.Domain = &joined
	}
	i.Firewall.Type = "Public"
	i.Firewall.TurnedOn = known(f.FirewallPublic)
	i.VMWareTools = unmet(r, "VMWareToolsInstalled")
	i.AutoLogon = known(f.AutoLogon)
	i.Universal = known(f.RealTimeIsUniversal)
	i.OSArch = known(f.Architecture)
	for _, d := range f.Disks.Value {
		for _, p := range d.Partitions {
			i.Partitions = append(i.Partitions, imagePart{
				Disk: d.Name, Number: p.Number, Bytes: p.Length, Scheme: string(d.Scheme), FileSystem: p.FileSystem, Bootable: p.Bootable,
			})
		}
	}
	if f.SystemVolume.OK() && f.Drives.OK() {
		i.Drives = []string{"C: (fixed)"}
		for _, d := range f.Drives.Value {
			i.Drives = append(i.Drives, strings.TrimSpace(d.Letter+" ("+string(d.Kind)+")"))
		}
	}
	return i
}

// accountDisabled is ACB_DISABLED ([MS-SAMR] §2.2.1.12).
const accountDisabled = 0x0001

// known is a fact's value, or nil.
func known[T any](k check.Known[T]) *T {
	if !k.OK() {
		return nil
	}
	return &k.Value
}

// unmet says whether the check with this code failed; nil where it was not decided.
func unmet(r check.Report, code string) *bool {
	for _, f := range r.Findings {
		if f.Code == code && (f.Outcome == check.Pass || f.Outcome == check.Fail || f.Outcome == check.Warn) {
			failed := f.Outcome != check.Pass
			return &failed
		}
	}
	return nil
}

// utf16File is text as PowerShell's -Encoding Unicode writes it.
func utf16File(text string) []byte {
	units := utf16.Encode([]rune("\ufeff" + strings.ReplaceAll(text, "\n", "\r\n")))
	b := make([]byte, 0, 2*len(units))
	for _, u := range units {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}
