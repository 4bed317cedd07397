package check

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"

	"berth/internal/windows"
)

// maxText bounds a text value, in bytes. Those that are read here are names, version numbers and addresses.
const maxText = 64 << 10

// typeName is the type's name in winnt.h.
func typeName(t uint32) string {
	switch t {
	case windows.RegNone:
		return "REG_NONE"
	case windows.RegSZ:
		return "REG_SZ"
	case windows.RegExpandSZ:
		return "REG_EXPAND_SZ"
	case windows.RegBinary:
		return "REG_BINARY"
	case windows.RegDWORD:
		return "REG_DWORD"
	case windows.RegMultiSZ:
		return "REG_MULTI_SZ"
	case windows.RegQWORD:
		return "REG_QWORD"
	}
	return fmt.Sprintf("type %d", t)
}

// number decodes a REG_DWORD.
func number(v windows.Value) (uint32, string, error) {
	if v.Type != windows.RegDWORD {
		return 0, "", fmt.Errorf("it is %s, not REG_DWORD", typeName(v.Type))
	}
	if len(v.Data) != 4 {
		return 0, "", fmt.Errorf("a REG_DWORD of %d bytes", len(v.Data))
	}
	n := binary.LittleEndian.Uint32(v.Data)
	return n, fmt.Sprintf("%d", n), nil
}

// boolean decodes a REG_DWORD that is off at 0 and on at any other number.
func boolean(v windows.Value) (bool, string, error) {
	n, shown, err := number(v)
	return n != 0, shown, err
}

// text decodes a REG_SZ or REG_EXPAND_SZ up to its first NUL.
func text(v windows.Value) (string, string, error) {
	if v.Type != windows.RegSZ && v.Type != windows.RegExpandSZ {
		return "", "", fmt.Errorf("it is %s, not REG_SZ", typeName(v.Type))
	}
	s, err := utf16Text(v.Data)
	if err != nil {
		return "", "", err
	}
	s, _, _ = strings.Cut(s, "\x00")
	return s, `"` + printable(s) + `"`, nil
}

// texts decodes a REG_MULTI_SZ, or a REG_SZ as a list of one; empty entries are left out.
func texts(v windows.Value) ([]string, string, error) {
	if v.Type != windows.RegMultiSZ && v.Type != windows.RegSZ {
		return nil, "", fmt.Errorf("it is %s, not REG_MULTI_SZ", typeName(v.Type))
	}
	s, err := utf16Text(v.Data)
	if err != nil {
		return nil, "", err
	}
	var list []string
	for part := range strings.SplitSeq(s, "\x00") {
		if part != "" {
			list = append(list, part)
		}
	}
	return list, `"` + printable(strings.Join(list, `", "`)) + `"`, nil
}

func utf16Text(b []byte) (string, error) {
	if len(b) > maxText {
		return "", fmt.Errorf("a text of %d bytes, %d at most are read", len(b), maxText)
	}
	if len(b)%2 != 0 {
		return "", fmt.Errorf("a text of an odd length, %d bytes", len(b))
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units)), nil
}
