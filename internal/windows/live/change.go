package live

import (
	"strings"

	"berth/internal/windows"
)

// serviceStart tells whether a value is how a service starts, and which service's.
func serviceStart(c windows.SetValue) (name string, ok bool) {
	const services = `CurrentControlSet\Services\`
	if c.Hive != windows.SystemHive || !strings.EqualFold(c.Value.Name, "Start") || c.Value.Type != windows.RegDWORD || len(c.Value.Data) != 4 {
		return "", false
	}
	if len(c.Key) <= len(services) || !strings.EqualFold(c.Key[:len(services)], services) {
		return "", false
	}
	name = c.Key[len(services):]
	return name, !strings.Contains(name, `\`)
}

// isPackageName tells names made of the characters that a package's full name may have:
// "Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c".
func isPackageName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._~-", c)) {
			return false
		}
	}
	return true
}

// lastLine is the last line with anything in it of what a program printed, cut to a length that an error can bear.
func lastLine(out []byte) string {
	const most = 300
	last := ""
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" {
			last = line
		}
	}
	if len(last) > most {
		last = strings.ToValidUTF8(last[:most], "") + "..."
	}
	return last
}
