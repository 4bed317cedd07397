package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"berth/internal/windows"
)

var whole = Plan{Machine: "BYOL-WIN10", Steps: []Step{
	{[]string{"WorkspacesBYOLAccountNotFound", "WorkspacesBYOLAccountDisabled"}, windows.CreateAccount{Name: "WorkSpaces_BYOL"}},
	{[]string{"WorkspacesBYOLAccountDisabled"}, windows.EnableAccount{Name: "WorkSpaces_BYOL", RID: 1001}},
	{[]string{"PCoIPAgentInstalled"}, windows.RunUninstaller{Program: "PCoIP Agent", Path: `C:\Program Files (x86)\Teradici\PCoIP Agent\uninst.exe`, Args: []string{"/S"}}},
	{[]string{"AppXPackagesInstalled"}, windows.RemovePackage{FullName: "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c"}},
}}

// token is a token of PowerShell's expression mode, as far as the scripts of this package need it.
type token struct{ kind, text string }

// tokenize takes PowerShell apart, strictly: what it does not know is an error. Brackets must match.
func tokenize(script string) ([]token, error) {
	var list []token
	var open []rune
	pairs := map[rune]rune{')': '(', '}': '{', ']': '['}
	r := []rune(script)
	fail := func(i int, what string) ([]token, error) {
		return nil, fmt.Errorf("line %d: %s: %.40q", 1+strings.Count(string(r[:i]), "\n"), what, string(r[i:]))
	}
	// What PowerShell takes for quotes.
	single, double := "'\u2018\u2019\u201a\u201b", "\"\u201c\u201d\u201e"
	for i := 0; i < len(r); {
		c := r[i]
		switch {
		case c == '\r' || c == '\n' || c == ';':
			list = append(list, token{"end", ""})
			i++
		case c == ' ':
			i++
		case c == '<' && i+1 < len(r) && r[i+1] == '#':
			end := strings.Index(string(r[i:]), "#>")
			if end < 0 {
				return fail(i, "comment without end")
			}
			i += utf8.RuneCountInString(string(r[i:])[:end]) + 2
		case c == '#':
			for i < len(r) && r[i] != '\n' && r[i] != '\r' {
				i++
			}
		case c == '@' && i+1 < len(r) && strings.ContainsRune(single+double, r[i+1]):
			return fail(i, "here-string")
		case strings.ContainsRune(single, c):
			var text []rune
			for i++; ; i++ {
				if i >= len(r) {
					return fail(len(r), "string without end")
				}
				if strings.ContainsRune(single, r[i]) {
					if i+1 < len(r) && strings.ContainsRune(single, r[i+1]) {
						i++
					} else {
						break
					}
				}
				text = append(text, r[i])
			}
			i++
			list = append(list, token{"string", string(text)})
		case strings.ContainsRune(double, c):
			begin, depth := i, 0
			for i++; ; i++ {
				if i >= len(r) {
					return fail(begin, "string without end")
				}
				switch {
				case r[i] == '`':
					i++
				case r[i] == '$' && i+1 < len(r) && r[i+1] == '(':
					depth++
					i++
				case depth > 0 && r[i] == '(':
					depth++
				case depth > 0 && r[i] == ')':
					depth--
				}
				if i < len(r) && depth == 0 && strings.ContainsRune(double, r[i]) {
					break
				}
			}
			i++
			list = append(list, token{"expandable", string(r[begin+1 : i-1])})
		case strings.ContainsRune("([{", c):
			open = append(open, c)
			list = append(list, token{string(c), ""})
			i++
		case strings.ContainsRune(")]}", c):
			if len(open) == 0 || open[len(open)-1] != pairs[c] {
				return fail(i, "bracket that nothing opened")
			}
			open = open[:len(open)-1]
			list = append(list, token{string(c), ""})
			i++
		case c < 0x7f && c > ' ' && !strings.ContainsRune("`", c):
			begin := i
			for i < len(r) && r[i] > ' ' && r[i] < 0x7f && !strings.ContainsRune("'\"()[]{};`", r[i]) {
				i++
			}
			list = append(list, token{"word", string(r[begin:i])})
		default:
			return fail(i, "character")
		}
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("%d brackets are not closed", len(open))
	}
	return list, nil
}

// texts replaces the literals that this package writes by what they stand for, as tokens of kind "text".
func texts(list []token) []token {
	var out []token
	for i := 0; i < len(list); {
		if list[i].kind == "string" {
			out = append(out, token{"text", list[i].text})
			i++
			continue
		}
		if text, n := coded(list[i:]); n > 0 {
			out = append(out, token{"text", text})
			i += n
			continue
		}
		out = append(out, list[i])
		i++
	}
	return out
}

// coded reads (” + 'text' + [char]0x1234 ...) and tells how many tokens it takes; 0 if it is something else.
func coded(list []token) (string, int) {
	if len(list) < 3 || list[0].kind != "(" || list[1] != (token{"string", ""}) {
		return "", 0
	}
	var units []uint16
	i := 2
	for ; i < len(list) && list[i] == (token{"word", "+"}); i++ {
		switch {
		case i+1 < len(list) && list[i+1].kind == "string":
			units = append(units, utf16.Encode([]rune(list[i+1].text))...)
			i++
		case i+4 < len(list) && list[i+1].kind == "[" && list[i+2] == (token{"word", "char"}) && list[i+3].kind == "]" && list[i+4].kind == "word":
			u, err := strconv.ParseUint(strings.TrimPrefix(list[i+4].text, "0x"), 16, 16)
			if err != nil {
				return "", 0
			}
			units = append(units, uint16(u))
			i += 4
		default:
			return "", 0
		}
	}
	if i == len(list) || list[i].kind != ")" {
		return "", 0
	}
	return string(utf16.Decode(units)), i + 1
}

// shape is a script's tokens with all texts the same.
func shape(t *testing.T, script string) []token {
	t.Helper()
	for i := range len(script) {
		if c := script[i]; c != '\r' && c != '\n' && (c < ' ' || c > '~') || c == '\n' && script[i-1] != '\r' {
			t.Fatalf("byte %d is %#x", i, c)
		}
	}
	list, err := tokenize(script)
	if err != nil {
		t.Fatal(err)
	}
	list = texts(list)
	for i := range list {
		if list[i].kind == "text" {
			list[i].text = ""
		}
	}
	return list
}

func TestScript(t *testing.T) {
	script, err := whole.Script()
	if err != nil {
		t.Fatal(err)
	}
	shape(t, script)
	if strings.Contains(script, "#STEPS#") {
		t.Error("the steps are missing")
	}
	for _, line := range []string{
		"Write-Log ('Berth: what is left to do in ' + 'BYOL-WIN10')",
		"Invoke-Step -Codes 'WorkspacesBYOLAccountNotFound, WorkspacesBYOLAccountDisabled' -Does 'create the account WorkSpaces_BYOL and make it an administrator' -Done { Test-Administrator 'WorkSpaces_BYOL' } -Do { Add-Administrator 'WorkSpaces_BYOL' }",
		"Invoke-Step -Codes 'WorkspacesBYOLAccountDisabled' -Does 'enable the account WorkSpaces_BYOL' -Done { Test-AccountEnabled 'WorkSpaces_BYOL' } -Do { Enable-LocalUser -Name 'WorkSpaces_BYOL' }",
		`Invoke-Step -Codes 'PCoIPAgentInstalled' -Does 'uninstall PCoIP Agent' -Done { -not (Test-Path -LiteralPath 'C:\Program Files (x86)\Teradici\PCoIP Agent\uninst.exe') } -Do { Start-Uninstaller 'C:\Program Files (x86)\Teradici\PCoIP Agent\uninst.exe' '/S' }`,
		"Invoke-Step -Codes 'AppXPackagesInstalled' -Does 'remove the package Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c' -Done { Test-PackageGone 'Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c' } -Do { Remove-Package 'Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c' }",
	} {
		if !strings.Contains(script, "\r\n"+line+"\r\n") {
			t.Errorf("the script lacks the line\n%s", line)
		}
	}
	// Bundles are not listed unless asked for, and what is in one is removed for all users by removing the bundle (Microsoft,
	// Remove-AppxPackage, -AllUsers).
	if n := strings.Count(script, "Get-AppxPackage -AllUsers"); n != 1 || !strings.Contains(script, "Get-AppxPackage -AllUsers -PackageTypeFilter Bundle, Main, Framework |") {
		t.Errorf("bundles are not asked for in %d questions", n)
	}
	// Every function that is called is in the script or one of Windows PowerShell's own.
	list, err := tokenize(script)
	if err != nil {
		t.Fatal(err)
	}
	defined := map[string]bool{}
	for i, x := range list {
		if x == (token{"word", "function"}) {
			defined[list[i+1].text] = true
		}
	}
	own := strings.Fields("Write-Host Add-Content Get-Date Join-Path New-Object Get-LocalUser New-LocalUser Enable-LocalUser Add-LocalGroupMember Where-Object Sort-Object " +
		"ConvertTo-SecureString Out-Null Test-Path Start-Sleep Get-AppxPackage Get-AppxProvisionedPackage Remove-AppxPackage Remove-AppxProvisionedPackage Set-StrictMode")
	called := 0
	for _, x := range list {
		verb, _, ok := strings.Cut(x.text, "-")
		if x.kind != "word" || !ok || !slices.Contains([]string{"Write", "Invoke", "Get", "New", "Test", "Add", "Start", "Remove", "Join", "Where", "Sort", "Out", "Set", "ConvertTo", "Enable"}, verb) {
			continue
		}
		called++
		if !defined[x.text] && !slices.Contains(own, x.text) {
			t.Errorf("%s is defined nowhere", x.text)
		}
	}
	if called < 50 || len(defined) < 12 {
		t.Errorf("%d calls, %d functions: the tokenizer has lost something", called, len(defined))
	}
}

// Names that would be code if they were not quoted: the script is the same but for its texts, which are the names.
func TestHostileNames(t *testing.T) {
	plain, err := Plan{Machine: "m", Steps: []Step{{[]string{"C"}, windows.RunUninstaller{Program: "p", Path: `C:\p\u.exe`}}}}.Script()
	if err != nil {
		t.Fatal(err)
	}
	want := shape(t, plain)
	for _, name := range []string{"'; Remove-Item C:\\ -Recurse; '", "\u2019; calc; \u2018", "\u201a\u201b", "$(calc)", "`'; calc", "x\r\ncalc", "#>\ncalc", "\x00", "\u202e", "}", "\U0001F600'", "'", "''"} {
		script, err := Plan{Machine: name, Steps: []Step{{[]string{name}, windows.RunUninstaller{Program: name, Path: `C:\p\u.exe`}}}}.Script()
		if err != nil {
			t.Fatal(err)
		}
		if got := shape(t, script); !slices.Equal(got, want) {
			t.Errorf("%q changes the script", name)
		}
		list, _ := tokenize(script)
		if list = texts(list); !slices.Contains(list, token{"text", name}) || !slices.Contains(list, token{"text", "uninstall " + name}) {
			t.Errorf("%q is not in the script", name)
		}
	}
}

func TestScriptRefuses(t *testing.T) {
	for want, c := range map[string]windows.Change{
		"is a change of the powered-off disk":     windows.SetValue{Hive: windows.Software},
		"it is a change of the powered-off":       windows.DeleteValue{Hive: windows.Software},
		"1 to 20 characters":                      windows.CreateAccount{Name: "ABCDEFGHIJKLMNOPQRSTU"},
		"has 1 to 20":                             windows.EnableAccount{},
		`"a*b" cannot be`:                         windows.CreateAccount{Name: "a*b"},
		`"a\nb" cannot be`:                        windows.CreateAccount{Name: "a\nb"},
		`"..." cannot be`:                         windows.CreateAccount{Name: "..."},
		"is not the full name":                    windows.RemovePackage{FullName: "*"},
		`not the full name of a package`:          windows.RemovePackage{FullName: "A.B_1.2.3.4_x64__kzf8qxf38zg5c'; calc"},
		"not in a folder of a local drive":        windows.RunUninstaller{Path: `\\evil\share\u.exe`},
		"in a folder of a local drive":            windows.RunUninstaller{Path: `uninst.exe`},
		"is not in a folder of a local":           windows.RunUninstaller{Path: `C:\u.exe`},
		"is no .exe":                              windows.RunUninstaller{Path: `C:\p\u.bat`},
		"is a part of Windows":                    windows.RunUninstaller{Path: `C:\WINDOWS\System32\cmd.exe`},
		"a path that Windows does not have":       windows.RunUninstaller{Path: `C:\p\..\Windows\System32\cmd.exe`},
		"path that Windows does not have":         windows.RunUninstaller{Path: `C:\p/..\u.exe`},
		"has a path that Windows does not have":   windows.RunUninstaller{Path: `C:\p:stream\u.exe`},
		"uninstaller \"C:\\\\p \\\\u.exe\" has a": windows.RunUninstaller{Path: `C:\p \u.exe`},
		"short name":                              windows.RunUninstaller{Path: `C:\WINDOW~1\u.exe`},
		"control character":                       windows.RunUninstaller{Path: `C:\p\u.exe`, Args: []string{"a\nb"}},
	} {
		p := Plan{Steps: []Step{{Change: c}}}
		if _, err := p.Script(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
		if _, err := json.Marshal(p); err == nil {
			t.Errorf("%q: is written as JSON", want)
		}
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"machine":"BYOL-WIN10","steps":[` +
		`{"codes":["WorkspacesBYOLAccountNotFound","WorkspacesBYOLAccountDisabled"],"does":"create the account WorkSpaces_BYOL and make it an administrator","change":"CreateAccount","name":"WorkSpaces_BYOL"},` +
		`{"codes":["WorkspacesBYOLAccountDisabled"],"does":"enable the account WorkSpaces_BYOL","change":"EnableAccount","name":"WorkSpaces_BYOL"},` +
		`{"codes":["PCoIPAgentInstalled"],"does":"uninstall PCoIP Agent","change":"RunUninstaller","name":"PCoIP Agent","path":"C:\\Program Files (x86)\\Teradici\\PCoIP Agent\\uninst.exe","args":["/S"]},` +
		`{"codes":["AppXPackagesInstalled"],"does":"remove the package Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c","change":"RemovePackage","name":"Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c"}]}`
	if string(b) != want {
		t.Errorf("%s", b)
	}
}

// split takes a command line apart by the rules of CommandLineToArgvW, behind the program's name.
func split(line string) (args []string, err error) {
	var arg strings.Builder
	in, has := false, false
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == '\\':
			n := 0
			for i < len(line) && line[i] == '\\' {
				n, i = n+1, i+1
			}
			if i < len(line) && line[i] == '"' {
				arg.WriteString(strings.Repeat(`\`, n/2))
				if n%2 == 1 {
					arg.WriteByte('"')
					i++
				}
			} else {
				arg.WriteString(strings.Repeat(`\`, n))
			}
			has = true
		case c == '"':
			in, has = !in, true
			i++
		case (c == ' ' || c == '\t') && !in:
			if has {
				args = append(args, arg.String())
			}
			arg.Reset()
			has = false
			i++
		default:
			arg.WriteByte(c)
			has = true
			i++
		}
	}
	if in {
		return nil, errors.New("quotes are not closed")
	}
	if has {
		args = append(args, arg.String())
	}
	return args, nil
}

// FuzzScript: whatever the names, the script is the one of a harmless plan but for its texts, the texts are the names, and arguments
// arrive as they are.
func FuzzScript(f *testing.F) {
	f.Add("it's", "PCoIP 'Agent'", `C:\Program Files\x\u.exe`, "/S", `a "b\" c\\`)
	f.Add("\u2018\u2019", "$(calc)`", `D:\x\y.EXE`, "", "'")
	f.Add("\r\n", "\ud7ff\U0010ffff", `C:\a\b\c.exe`, "\\", `"`)
	plain, err := Plan{Machine: "m", Steps: []Step{{[]string{"C"}, windows.RunUninstaller{Program: "p", Path: `C:\p\u.exe`, Args: []string{"a", "b"}}}}}.Script()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, machine, program, path, arg1, arg2 string) {
		c := windows.RunUninstaller{Program: program, Path: path, Args: []string{arg1, arg2}}
		script, err := Plan{Machine: machine, Steps: []Step{{[]string{machine}, c}}}.Script()
		if err != nil {
			return
		}
		if !slices.Equal(shape(t, script), shape(t, plain)) {
			t.Fatalf("the names are more than texts:\n%s", script[strings.Index(script, "what is left"):])
		}
		list, _ := tokenize(script)
		list = texts(list)
		at := -1
		for i, word := range list {
			if word == (token{"word", "Start-Uninstaller"}) && i+2 < len(list) && list[i+1].kind == "text" { // not its definition
				at = i
			}
		}
		if at < 0 {
			t.Fatal("nothing is uninstalled")
		}
		if list[at+1].text != path {
			t.Errorf("path %q became %q", path, list[at+1].text)
		}
		if args, err := split(list[at+2].text); err != nil || !slices.Equal(args, c.Args) {
			t.Errorf("arguments %q became %q, %v", c.Args, args, err)
		}
		if utf8.ValidString(machine) && !slices.Contains(list, token{"text", machine}) {
			t.Errorf("the name %q is lost", machine)
		}
	})
}
