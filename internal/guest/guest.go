// Package guest plans what only a running Windows can do, for the first time that the machine is started after its disk was fixed.
//
// A [Plan] is data: it is shown and kept as JSON, and rendered to one script for Windows PowerShell 5.1, the one that every
// supported Windows has. The script needs nothing else, says what it does, can be run again at any time, and looks after each step
// whether it had an effect.
//
// What the script is about comes from a stranger's disk: names and paths are checked for what Windows itself would accept, and are written as
// literals that PowerShell takes nothing in for code. The package runs nothing, and does not know what a check is.
//
// Start reading at [Plan.Script] and firstboot.ps1.
package guest

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"berth/internal/windows"
)

// Plan is what is to be done inside a machine, in this order.
type Plan struct {
	// Machine is the computer's name, for people.
	Machine string
	Steps   []Step
}

// Step is one change.
type Step struct {
	// Codes are the findings that ask for it.
	Codes  []string
	Change windows.Change
}

//go:embed firstboot.ps1
var firstBoot string

// Script renders the plan: ASCII, lines end as Windows wants them. An error says that a step can be no part of a plan: it is a change that
// belongs on the powered-off disk (SetValue, DeleteValue), or what it names cannot be right: an account name, a package name or
// the path of an uninstaller that Windows would not have, or an uninstaller that is a part of Windows (msiexec), of which the script could
// not tell when it is done.
func (p Plan) Script() (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "Write-Log ('Berth: what is left to do in ' + %s)\n", literal(p.Machine))
	for i, s := range p.Steps {
		done, do, err := s.commands()
		if err != nil {
			return "", fmt.Errorf("step %d: %s: %w", i+1, s.Change, err)
		}
		fmt.Fprintf(&b, "Invoke-Step -Codes %s -Does %s -Done { %s } -Do { %s }\n",
			literal(strings.Join(s.Codes, ", ")), literal(s.Change.String()), done, do)
	}
	script := strings.Replace(firstBoot, "#STEPS#\n", b.String(), 1)
	return strings.ReplaceAll(script, "\n", "\r\n"), nil
}

// commands are PowerShell that tells whether a step is done, and that does it.
func (s Step) commands() (done, do string, err error) {
	switch c := s.Change.(type) {
	case windows.CreateAccount:
		return "Test-Administrator " + literal(c.Name), "Add-Administrator " + literal(c.Name), accountName(c.Name)
	case windows.EnableAccount:
		return "Test-AccountEnabled " + literal(c.Name), "Enable-LocalUser -Name " + literal(c.Name), accountName(c.Name)
	case windows.RunUninstaller:
		return "-not (Test-Path -LiteralPath " + literal(c.Path) + ")",
			"Start-Uninstaller " + literal(c.Path) + " " + literal(commandLine(c.Args)), uninstaller(c)
	case windows.RemovePackage:
		return "Test-PackageGone " + literal(c.FullName), "Remove-Package " + literal(c.FullName), packageName(c.FullName)
	}
	return "", "", errors.New("it is a change of the powered-off disk")
}

// literal is an expression for a text, as an argument or operand. Only printable ASCII stands in quotes, of which PowerShell knows ', and,
// beyond ASCII, U+2018 to U+201B; all else is written as numbers of UTF-16 units.
func literal(s string) string {
	var b strings.Builder
	b.WriteString("(''")
	quoted, simple := false, true
	for _, u := range utf16.Encode([]rune(s)) {
		if u < ' ' || u > '~' {
			if quoted {
				b.WriteString("'")
			}
			fmt.Fprintf(&b, " + [char]0x%04x", u)
			quoted, simple = false, false
			continue
		}
		if !quoted {
			b.WriteString(" + '")
			quoted = true
		}
		b.WriteByte(byte(u))
		if u == '\'' {
			b.WriteByte('\'')
		}
	}
	if simple {
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	if quoted {
		b.WriteString("'")
	}
	return b.String() + ")"
}

// accountName checks a local account's name by the rules of New-LocalUser: 1 to 20 characters, none of them a control character or one of
// the set below, and neither dots nor spaces alone.
func accountName(name string) error {
	const most = 20
	switch n := len(utf16.Encode([]rune(name))); {
	case n == 0 || n > most:
		return fmt.Errorf("an account's name has 1 to %d characters", most)
	case !utf8.ValidString(name), strings.ContainsFunc(name, func(r rune) bool {
		return r < ' ' || r == utf8.RuneError || strings.ContainsRune(`"/\[]:;|=,+*?<>@`, r)
	}):
		return fmt.Errorf("%q cannot be an account's name", name)
	case strings.Trim(name, ". ") == "":
		return fmt.Errorf("%q cannot be an account's name", name)
	}
	return nil
}

// packageFullName is Name_Version_Architecture_ResourceId_PublisherId (Microsoft, "Package identity"); the resource id may be empty.
var packageFullName = regexp.MustCompile(`^[A-Za-z0-9.-]{3,50}_[0-9]+(\.[0-9]+){3}_[A-Za-z0-9]+_[A-Za-z0-9.~-]{0,30}_[a-z0-9]{13}$`)

func packageName(name string) error {
	if !packageFullName.MatchString(name) {
		return fmt.Errorf("%q is not the full name of a package", name)
	}
	return nil
}

// uninstaller checks that what is to be run is a program's own file on a local drive.
func uninstaller(c windows.RunUninstaller) error {
	const longest = 259 // MAX_PATH without its NUL
	path := c.Path
	bad := func(why string) error { return fmt.Errorf("the uninstaller %q %s", path, why) }
	parts := strings.Split(path, `\`)
	switch {
	case len(path) > longest || !utf8.ValidString(path):
		return bad("has a path that is too long, or no text")
	case len(parts) < 3 || len(parts[0]) != 2 || parts[0][1] != ':' || !isLetter(parts[0][0]):
		return bad(`is not in a folder of a local drive: C:\...`)
	case !strings.EqualFold(path[max(0, len(path)-4):], ".exe"):
		return bad("is no .exe")
	case strings.EqualFold(parts[1], "Windows"):
		return bad("is a part of Windows")
	}
	for _, part := range parts[1:] {
		if part == "" || strings.Trim(part, ". ") == "" || strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") ||
			strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == utf8.RuneError || strings.ContainsRune(`"/:*?<>|`, r) }) {
			return bad("has a path that Windows does not have")
		}
		// ~ would be a short name, behind which another file may be.
		if strings.Contains(part, "~") {
			return bad("has a short name in its path")
		}
	}
	for _, a := range c.Args {
		if strings.ContainsFunc(a, func(r rune) bool { return r < ' ' }) || !utf8.ValidString(a) {
			return fmt.Errorf("the uninstaller's argument %q has a control character, or is no text", a)
		}
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// commandLine joins arguments so that programs take them apart as they were (Microsoft, "Parsing C command-line arguments").
func commandLine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if a != "" && !strings.ContainsAny(a, " \t\"") {
			b.WriteString(a)
			continue
		}
		b.WriteByte('"')
		slashes := 0
		for _, c := range []byte(a) {
			switch c {
			case '\\':
				slashes++
			case '"':
				b.WriteString(strings.Repeat(`\`, slashes+1))
				slashes = 0
			default:
				slashes = 0
			}
			b.WriteByte(c)
		}
		b.WriteString(strings.Repeat(`\`, slashes))
		b.WriteByte('"')
	}
	return b.String()
}

// MarshalJSON writes the plan for programs: what each step does in words, the kind of the change, and its fields.
func (p Plan) MarshalJSON() ([]byte, error) {
	type step struct {
		Codes  []string `json:"codes"`
		Does   string   `json:"does"`
		Change string   `json:"change"` // CreateAccount, EnableAccount, RunUninstaller, RemovePackage
		Name   string   `json:"name,omitempty"`
		Path   string   `json:"path,omitempty"`
		Args   []string `json:"args,omitempty"`
	}
	steps := make([]step, 0, len(p.Steps))
	for i, s := range p.Steps {
		if _, _, err := s.commands(); err != nil {
			return nil, fmt.Errorf("step %d: %s: %w", i+1, s.Change, err)
		}
		out := step{Codes: s.Codes, Does: s.Change.String()}
		switch c := s.Change.(type) {
		case windows.CreateAccount:
			out.Change, out.Name = "CreateAccount", c.Name
		case windows.EnableAccount:
			out.Change, out.Name = "EnableAccount", c.Name
		case windows.RunUninstaller:
			out.Change, out.Name, out.Path, out.Args = "RunUninstaller", c.Program, c.Path, c.Args
		case windows.RemovePackage:
			out.Change, out.Name = "RemovePackage", c.FullName
		}
		steps = append(steps, out)
	}
	return json.Marshal(struct {
		Machine string `json:"machine"`
		Steps   []step `json:"steps"`
	}{p.Machine, steps})
}
