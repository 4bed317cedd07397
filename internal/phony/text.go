package phony

import (
	"fmt"
	"strconv"
	"strings"
)

// split takes a line apart into words; a word in double quotes may hold spaces, and \" and \\ inside.
func split(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t,")
		if line == "" {
			return words, nil
		}
		if line[0] == '"' {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("%s: no closing quote", line)
			}
			word, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", quoted, err)
			}
			words, line = append(words, word), line[len(quoted):]
			continue
		}
		end := strings.IndexAny(line, " \t,")
		if end < 0 {
			end = len(line)
		}
		words, line = append(words, line[:end]), line[end:]
	}
}

// parseSize reads bytes: "512", "64MiB", "40GiB".
func parseSize(text string) (int64, error) {
	number, unit := text, int64(1)
	for _, u := range []struct {
		suffix string
		bytes  int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}} {
		if n, ok := strings.CutSuffix(text, u.suffix); ok {
			number, unit = n, u.bytes
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("%q is not a size such as 64MiB", text)
	}
	return n * unit, nil
}

// entries yields the lines of a section that say something: "name = text" as a pair, "- name" with removed set.
func entries(section string, each func(name, text string, removed bool) error) error {
	for i, line := range strings.Split(section, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var err error
		if rest, ok := strings.CutPrefix(line, "- "); ok {
			err = each(strings.TrimSpace(rest), "", true)
		} else {
			name, text, _ := strings.Cut(line, " = ")
			err = each(strings.TrimSpace(name), strings.TrimSpace(text), false)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return nil
}
