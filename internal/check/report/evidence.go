package report

import (
	"cmp"
	"strings"

	"berth/internal/check"
)

// sight is what was looked at in one place, for people: where, what was there, and how far that can be trusted. All of it prints.
type sight struct {
	Where string
	What  []string
}

// sights are a finding's evidence. Values of the same key stand together below it.
func sights(f check.Finding) []sight {
	var all []sight
	was, value := check.Evidence{}, false // the evidence before, and whether it was a value below its key
	for _, e := range f.Evidence {
		where, what := split(e)
		detail := check.Printable(e.Detail())
		if what != "" && value && was.Hive == e.Hive && was.File == e.File && was.Key == e.Key {
			last := &all[len(all)-1]
			if n := len(last.What) - 1; detail != "" && last.What[n] == detail {
				last.What = last.What[:n]
			}
			last.What = append(last.What, what)
		} else {
			all = append(all, sight{Where: where})
			if what != "" {
				all[len(all)-1].What = []string{what}
			}
		}
		if detail != "" {
			last := &all[len(all)-1]
			last.What = append(last.What, detail)
		}
		was, value = e, what != ""
	}
	return all
}

// split cuts the text of a registry value after its key; what is empty for anything else.
func split(e check.Evidence) (where, what string) {
	key := cmp.Or(e.File, string(e.Hive)) + `\` + e.Key // a user's hive is told by its file
	if rest, ok := strings.CutPrefix(e.Text, key+`\`); ok && e.Hive != "" && e.Value != "" && rest != "" {
		return check.Printable(key), check.Printable(rest)
	}
	return check.Printable(e.Text), ""
}

// lines are a finding's evidence as lines, what was there indented below where it was.
func lines(f check.Finding) []string {
	var all []string
	for _, s := range sights(f) {
		all = append(all, s.Where)
		for _, what := range s.What {
			all = append(all, "  "+what)
		}
	}
	return all
}
