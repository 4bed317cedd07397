package registry

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"berth/internal/windows"
)

// TextHeader is the first line of regedit's text, version 5.00.
const TextHeader = "Windows Registry Editor Version 5.00"

const (
	regedit5 = TextHeader
	// maxTextLine bounds the bytes of one line of text together with its continuations: the largest value as hexadecimal text.
	maxTextLine = 4 * maxValue
	// wrapAt is the column before which regedit breaks a line of hexadecimal data.
	wrapAt = 80
)

// hiveKeys are the keys of a running Windows that stand for hives, as regedit names them. The first of a hive's names is the one
// that Format writes.
var hiveKeys = []struct{ key, hive string }{
	{`HKEY_LOCAL_MACHINE\SYSTEM`, string(windows.SystemHive)},
	{`HKEY_LOCAL_MACHINE\SOFTWARE`, string(windows.Software)},
	{`HKEY_LOCAL_MACHINE\SAM`, string(windows.SAM)},
	{`HKEY_LOCAL_MACHINE\SECURITY`, string(windows.Security)},
	{`HKEY_LOCAL_MACHINE\BCD00000000`, string(windows.BCD)},
	{`HKEY_USERS\.DEFAULT`, string(windows.Default)},
	{`HKLM\SYSTEM`, string(windows.SystemHive)},
	{`HKLM\SOFTWARE`, string(windows.Software)},
	{`HKLM\SAM`, string(windows.SAM)},
	{`HKLM\SECURITY`, string(windows.Security)},
	{`HKLM\BCD00000000`, string(windows.BCD)},
	{`HKU\.DEFAULT`, string(windows.Default)},
}

// Parse reads regedit's text, version 5.00. The keys right below the node that it returns are hives: [HKEY_LOCAL_MACHINE\SYSTEM\Setup]
// and [system\Setup] both are Key(`SYSTEM\Setup`), [HKEY_USERS\.DEFAULT] is DEFAULT and [HKEY_LOCAL_MACHINE\BCD00000000] is BCD, so
// that one text holds a whole machine and Build makes each hive of its own node.
//
// It reads strings, dword, hex and hex(N) of any type (an empty one too: hex(3e8): is a value of type 0x3e8 without data), the
// default value @, continued lines and comments. As in regedit a key may occur again and a later value replaces an earlier one.
// The first line that tells the version may be absent; REGEDIT4 is refused, its strings being in a code page that is not told,
// and so is what removes keys or values. The text may be UTF-8 or, as regedit saves it, UTF-16 with a byte order mark. Errors name
// the line.
func Parse(text string) (*Node, error) {
	text, err := decodeText(text)
	if err != nil {
		return nil, err
	}
	root := &Node{}
	// Every key so far by its folded path: a key of many subkeys is not searched for each of them.
	keys := map[string]*Node{"": root}
	var at *Node
	// A file names a key's values in a row; index finds one among many without comparing all.
	var index map[string]int
	lines := lineReader{rest: text}
	for {
		line, no, err := lines.next()
		if err != nil {
			return nil, err
		}
		if no == 0 {
			return root, nil
		}
		switch {
		case line == "" || line[0] == ';':
		case line == regedit5 && at == nil:
		case line == "REGEDIT4":
			return nil, fmt.Errorf("line %d: REGEDIT4 text is not read: its strings are in an unknown code page; export it again as version 5.00", no)
		case line[0] == '[':
			path, err := keyPath(line)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", no, err)
			}
			at = makeKey(keys, path)
			index = make(map[string]int, len(at.Values))
			for i, v := range at.Values {
				index[foldName(v.Name)] = i
			}
		default:
			v, err := parseValue(line)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", no, err)
			}
			if at == nil {
				return nil, fmt.Errorf("line %d: a value before the first [key]", no)
			}
			folded := foldName(v.Name)
			if i, ok := index[folded]; ok {
				at.Values[i] = v
				break
			}
			index[folded] = len(at.Values)
			at.Values = append(at.Values, v)
		}
	}
}

// makeKey is Node.Make by an index of folded paths.
func makeKey(keys map[string]*Node, path string) *Node {
	folded := foldName(path)
	if n := keys[folded]; n != nil {
		return n
	}
	parent, name := "", path
	if i := strings.LastIndexByte(path, '\\'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	n := &Node{Name: name}
	p := makeKey(keys, parent)
	p.Keys = append(p.Keys, n)
	keys[folded] = n
	return n
}

func decodeText(text string) (string, error) {
	if strings.HasPrefix(text, "\xff\xfe") {
		if len(text)%2 != 0 {
			return "", errors.New("registry text: UTF-16 of an odd length")
		}
		u := make([]uint16, len(text)/2-1)
		for i := range u {
			u[i] = uint16(text[2+2*i]) | uint16(text[3+2*i])<<8
		}
		return string(utf16.Decode(u)), nil
	}
	text = strings.TrimPrefix(text, "\ufeff")
	if !utf8.ValidString(text) {
		return "", errors.New("registry text: neither UTF-8 nor UTF-16 with a byte order mark")
	}
	return text, nil
}

// lineReader yields lines without their ends and surrounding blanks, continued ones joined.
type lineReader struct {
	rest string
	no   int
}

// next is a line and its number; number 0 is the end of the text.
func (l *lineReader) next() (string, int, error) {
	if l.rest == "" {
		return "", 0, nil
	}
	line := l.one()
	first := l.no
	// Only hexadecimal data is continued; a backslash may well end a comment.
	data, ok := hexData(line)
	if !ok {
		return line, first, nil
	}
	var whole strings.Builder
	for strings.HasSuffix(data, `\`) && !strings.Contains(data, ";") {
		whole.WriteString(strings.TrimSuffix(line, `\`))
		if l.rest == "" {
			return "", 0, fmt.Errorf("line %d: the text ends in a continued line", l.no)
		}
		line = l.one()
		data = line
		if whole.Len() > maxTextLine {
			return "", 0, fmt.Errorf("line %d: the value is longer than %d bytes", first, maxValue)
		}
	}
	whole.WriteString(line)
	return whole.String(), first, nil
}

// hexData is what follows the = in a line that gives a value as hexadecimal bytes.
func hexData(line string) (string, bool) {
	rest, ok := strings.CutPrefix(line, "@")
	if !ok {
		var err error
		if _, rest, err = quoted(line); err != nil {
			return "", false
		}
	}
	data, ok := strings.CutPrefix(strings.TrimSpace(rest), "=")
	data = strings.TrimSpace(data)
	return data, ok && len(data) > 3 && strings.EqualFold(data[:3], "hex")
}

func (l *lineReader) one() string {
	line, rest, _ := strings.Cut(l.rest, "\n")
	l.rest = rest
	l.no++
	return strings.TrimSpace(line)
}

// keyPath is what a line [key] names, its hive first.
func keyPath(line string) (string, error) {
	end := strings.LastIndexByte(line, ']')
	if end < 0 {
		return "", fmt.Errorf("%q has no closing bracket", line)
	}
	if tail := strings.TrimSpace(line[end+1:]); tail != "" && tail[0] != ';' {
		return "", fmt.Errorf("%q after a key", tail)
	}
	path := line[1:end]
	if strings.HasPrefix(path, "-") {
		return "", fmt.Errorf("[%s] removes a key: a text that describes a registry cannot", path)
	}
	names := strings.Split(path, `\`)
	for i, n := range names {
		if i == len(names)-1 && i > 0 && n == "" {
			return "", fmt.Errorf("[%s] ends in a backslash", path)
		}
		if err := checkKeyName(n); err != nil {
			return "", fmt.Errorf("[%s]: %w", path, err)
		}
	}
	if len(names) > maxDepth {
		return "", fmt.Errorf("[%.80s...]: more than %d keys deep", path, maxDepth)
	}
	for _, k := range hiveKeys {
		if len(path) < len(k.key) || !EqualNames(path[:len(k.key)], k.key) {
			continue
		}
		if len(path) == len(k.key) || path[len(k.key)] == '\\' {
			return k.hive + path[len(k.key):], nil
		}
	}
	switch top := strings.ToUpper(names[0]); {
	case strings.HasPrefix(top, "HKEY_"), top == "HKLM", top == "HKU", top == "HKCU", top == "HKCR":
		return "", fmt.Errorf("[%s] is in no hive of the machine; known are SYSTEM, SOFTWARE, SAM, SECURITY and BCD00000000 in HKEY_LOCAL_MACHINE, and HKEY_USERS\\.DEFAULT", path)
	}
	for _, k := range hiveKeys {
		if EqualNames(names[0], k.hive) {
			return k.hive + path[len(names[0]):], nil
		}
	}
	return path, nil
}

// SplitKey takes the path of a key as regedit and reg.exe name it (HKEY_LOCAL_MACHINE\SYSTEM\Setup, HKLM\SYSTEM\Setup,
// HKU\.DEFAULT, in any case) or as Parse does (SYSTEM\Setup, BCD\Objects) apart: which hive it is in, and the path in it.
func SplitKey(key string) (windows.Hive, string, error) {
	path, err := keyPath("[" + strings.Trim(key, `\`) + "]")
	if err != nil {
		return "", "", err
	}
	top, rest, _ := strings.Cut(path, `\`)
	for _, k := range hiveKeys {
		if EqualNames(top, k.hive) {
			return windows.Hive(k.hive), rest, nil
		}
	}
	return "", "", fmt.Errorf("%q is in no hive of the machine; known are SYSTEM, SOFTWARE, SAM, SECURITY and BCD00000000 in HKEY_LOCAL_MACHINE, and HKEY_USERS\\.DEFAULT", key)
}

// FullName is the name that regedit has for the key at a path in a hive.
func FullName(hive windows.Hive, path string) string {
	name := string(hive)
	for _, k := range hiveKeys {
		if k.hive == name {
			name = k.key
			break
		}
	}
	if path != "" {
		name += `\` + path
	}
	return name
}

// parseValue reads "name"=data or @=data.
func parseValue(line string) (windows.Value, error) {
	var v windows.Value
	rest, isDefault := strings.CutPrefix(line, "@")
	if !isDefault {
		var err error
		if v.Name, rest, err = quoted(line); err != nil {
			return v, fmt.Errorf("value's name: %w", err)
		}
		if err := checkValueName(v.Name); err != nil {
			return v, err
		}
	}
	data, ok := strings.CutPrefix(strings.TrimSpace(rest), "=")
	if !ok {
		return v, fmt.Errorf("value %q: no = after its name", v.Name)
	}
	if err := parseData(&v, strings.TrimSpace(data)); err != nil {
		return v, fmt.Errorf("value %q: %w", v.Name, err)
	}
	return v, nil
}

func parseData(v *windows.Value, data string) error {
	if strings.HasPrefix(data, `"`) {
		s, rest, err := quoted(data)
		if err != nil {
			return err
		}
		v.Type, v.Data = windows.RegSZ, encodeSZ(s)
		if rest = strings.TrimSpace(rest); rest != "" && rest[0] != ';' {
			return fmt.Errorf("%q after the string", rest)
		}
		return nil
	}
	data, _, _ = strings.Cut(data, ";")
	data = strings.TrimSpace(data)
	kind, digits, ok := strings.Cut(data, ":")
	if !ok {
		if data == "-" {
			return errors.New("- removes a value: a text that describes a registry cannot")
		}
		return fmt.Errorf("%q is no string, dword: or hex: data", data)
	}
	switch kind = strings.ToLower(strings.TrimSpace(kind)); {
	case kind == "dword":
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 32)
		if err != nil {
			return fmt.Errorf("dword %q is not eight hexadecimal digits", digits)
		}
		v.Type, v.Data = windows.RegDWORD, binary.LittleEndian.AppendUint32(nil, uint32(n))
		return nil
	case kind == "hex":
		v.Type = windows.RegBinary
	case strings.HasPrefix(kind, "hex(") && strings.HasSuffix(kind, ")"):
		n, err := strconv.ParseUint(kind[4:len(kind)-1], 16, 32)
		if err != nil {
			return fmt.Errorf("type %q is not a hexadecimal number of 32 bits", kind)
		}
		v.Type = uint32(n)
	default:
		return fmt.Errorf("%q is no kind of data; known are strings, dword:, hex: and hex(N):", kind)
	}
	var err error
	v.Data, err = parseBytes(digits)
	return err
}

// parseBytes reads bytes as regedit writes them: one or two hexadecimal digits each, commas between.
func parseBytes(s string) ([]byte, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, nil
	}
	out := make([]byte, 0, len(s)/3+1)
	for more := true; more; {
		var d string
		d, s, more = strings.Cut(s, ",")
		n, err := strconv.ParseUint(strings.TrimSpace(d), 16, 8)
		if err != nil {
			return nil, fmt.Errorf("byte %d: %q is not one or two hexadecimal digits", len(out), d)
		}
		if len(out) == maxValue {
			return nil, fmt.Errorf("longer than %d bytes", maxValue)
		}
		out = append(out, byte(n))
	}
	return out, nil
}

// quoted reads a quoted string, in which a backslash stands before a quote or a backslash, and what follows it.
func quoted(s string) (text, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", fmt.Errorf("%q does not begin with a quote", s)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", fmt.Errorf(`column %d: a backslash must come before a backslash or a quote`, i)
			}
			b.WriteByte(s[i])
		case 0:
			return "", "", fmt.Errorf("column %d: a NUL inside a string; write it as hex(1):", i+1)
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a quote is missing at the end")
}

// Format writes what is below root as regedit does: version 5.00, lines that end in CR LF, each key after its parent. The keys
// right below root are hives and get regedit's names for them; any other name stays. Parse reads the same tree from it, except
// LastWrite, for which the text has no place. It fails on names that the text cannot hold, such as one with a line break.
func Format(root *Node) (string, error) {
	var b strings.Builder
	b.WriteString(regedit5 + "\r\n")
	if len(root.Values) > 0 {
		return "", fmt.Errorf("registry text: value %q is in no hive", root.Values[0].Name)
	}
	for _, n := range root.Keys {
		name := n.Name
		for _, k := range hiveKeys {
			if EqualNames(k.hive, n.Name) {
				name = k.key
				break
			}
		}
		if err := formatKey(&b, n, name, 1); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func formatKey(b *strings.Builder, n *Node, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("[%.80s...]: more than %d keys deep", path, maxDepth)
	}
	if err := checkText(n.Name); err != nil {
		return fmt.Errorf("key [%s]: %w", path, err)
	}
	if err := checkKeyName(n.Name); err != nil {
		return fmt.Errorf("key [%s]: %w", path, err)
	}
	b.WriteString("\r\n[" + path + "]\r\n")
	for _, v := range n.Values {
		if err := checkText(v.Name); err != nil {
			return fmt.Errorf("key [%s], value %q: %w", path, v.Name, err)
		}
		formatValue(b, v)
	}
	for _, c := range n.Keys {
		if err := formatKey(b, c, path+`\`+c.Name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// FormatKey writes one key with its values as Format does, without the first line of the text: for who exports more than fits into
// memory. name is the key's full name.
func FormatKey(name string, values []windows.Value) (string, error) {
	var b strings.Builder
	n := &Node{Name: name[strings.LastIndexByte(name, '\\')+1:], Values: values}
	err := formatKey(&b, n, name, 1)
	return b.String(), err
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func formatValue(b *strings.Builder, v windows.Value) {
	line := "@="
	if v.Name != "" {
		line = `"` + escape.Replace(v.Name) + `"=`
	}
	if s, ok := plainSZ(v); ok {
		b.WriteString(line + `"` + escape.Replace(s) + "\"\r\n")
		return
	}
	switch {
	case v.Type == windows.RegDWORD && len(v.Data) == 4:
		fmt.Fprintf(b, "%sdword:%08x\r\n", line, binary.LittleEndian.Uint32(v.Data))
		return
	case v.Type == windows.RegBinary:
		line += "hex:"
	default:
		line += fmt.Sprintf("hex(%x):", v.Type)
	}
	b.WriteString(line)
	column := utf8.RuneCountInString(line)
	for i, c := range v.Data {
		if i > 0 {
			b.WriteByte(',')
			// Three more: two digits and the comma or backslash after them.
			if column++; column+3 >= wrapAt {
				b.WriteString("\\\r\n  ")
				column = 2
			}
		}
		b.WriteString(hex.EncodeToString([]byte{c}))
		column += 2
	}
	b.WriteString("\r\n")
}

// plainSZ is the text of a string that quotes can hold without loss.
func plainSZ(v windows.Value) (string, bool) {
	if v.Type != windows.RegSZ || len(v.Data) < 2 || len(v.Data)%2 != 0 {
		return "", false
	}
	s := decodeUTF16(v.Data[:len(v.Data)-2])
	if checkText(s) != nil || string(encodeSZ(s)) != string(v.Data) {
		return "", false
	}
	return s, true
}

// checkText refuses what a line of text cannot hold between quotes or brackets.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("not UTF-8")
	}
	for _, r := range s {
		if r < 0x20 || r == '\ufeff' || r == '\u0085' || r == '\u2028' || r == '\u2029' {
			return fmt.Errorf("the text form has no place for the character U+%04X", r)
		}
	}
	return nil
}

func encodeSZ(s string) []byte {
	return append(encodeUTF16(s), 0, 0)
}

func encodeUTF16(s string) []byte {
	u := utf16.Encode([]rune(s))
	b := make([]byte, 0, 2*len(u)+2)
	for _, c := range u {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

// decodeUTF16 decodes little-endian UTF-16; half a pair becomes U+FFFD.
func decodeUTF16(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}
