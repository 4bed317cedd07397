package check

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"berth/internal/windows"
)

// Amazon's profiles, one file each. They have the form that LoadProfile takes, and name no base.
//
//go:embed profiles/*.json
var amazonFiles embed.FS

// profiles reads Amazon's, the default one first, and the others by age. The files are part of the program, so that one that
// does not read is a mistake in it.
var profiles = sync.OnceValue(func() []Profile {
	list := make([]Profile, 0, 3)
	for _, name := range []string{DefaultProfile, "2022", "2026"} {
		b, err := amazonFiles.ReadFile("profiles/" + name + ".json")
		if err != nil {
			panic(err)
		}
		p, err := readProfile(b, list)
		if err == nil && p.Name != name {
			err = fmt.Errorf("name: it is %q", p.Name)
		}
		if err != nil {
			panic(fmt.Sprintf("check: profiles/%s.json: %v", name, err))
		}
		list = append(list, p)
	}
	return list
})

// Bounds of a profile file.
const (
	maxProfileBytes = 1 << 20
	maxListed       = 1000 // entries of a list in it
	maxGiB          = 64 << 10
)

// LoadProfile reads a user's own profile, a JSON object:
//
//	{
//	  "name": "acme-2026",
//	  "base": "2026",
//	  "minFreeGiB": {"value": 30, "source": "ACME desktop standard 4.2"},
//	  "leaveOut": {"value": ["VMWareToolsInstalled"], "source": "we import from VMware"}
//	}
//
// "base" is one of Amazon's profiles, and what the file does not say is as it is there; without a base everything must be said, as
// Amazon's own files do (profiles/*.json). Every requirement has its source beside it. An error names the field.
func LoadProfile(b []byte) (Profile, error) {
	p, err := readProfile(b, profiles())
	if err != nil {
		return Profile{}, fmt.Errorf("profile: %w", err)
	}
	if slices.Contains(ProfileNames(), p.Name) {
		return Profile{}, fmt.Errorf("profile: name: %q is Amazon's; a profile of one's own has its own name", p.Name)
	}
	return p, nil
}

// stated is a requirement as a file has it.
type stated[T any] struct {
	Value  *T     `json:"value"`
	Source string `json:"source"`
}

type statedRelease struct {
	Windows   string         `json:"windows"`
	Version   string         `json:"version"`
	Build     int            `json:"build"`
	Editions  []string       `json:"editions"`
	Scheme    windows.Scheme `json:"partitionTable"`
	Firmware  string         `json:"firmware"`
	TPM       bool           `json:"tpm"`
	Protocols []Protocol     `json:"protocols"`
	Source    string         `json:"source"`
}

type statedProfile struct {
	Name     string          `json:"name"`
	Title    string          `json:"title"`
	Base     string          `json:"base"`
	Source   string          `json:"source"`
	Releases []statedRelease `json:"releases"`

	Language            *stated[string]   `json:"language"`
	MaxVolumeGiB        *stated[int]      `json:"maxVolumeGiB"`
	MaxDiskGiB          *stated[int]      `json:"maxDiskGiB"`
	MinFreeGiB          *stated[int]      `json:"minFreeGiB"`
	MinFreeOfficeGiB    *stated[int]      `json:"minFreeOfficeGiB"`
	MinPowerShell       *stated[int]      `json:"minPowerShell"`
	AllowMicrosoft365   *stated[bool]     `json:"allowMicrosoft365"`
	MinWorkSpaces       *stated[int]      `json:"minWorkSpaces"`
	MinGraphicsAlwaysOn *stated[int]      `json:"minGraphicsAlwaysOn"`
	MinGraphicsAutoStop *stated[int]      `json:"minGraphicsAutoStop"`
	AllowedPrograms     *stated[[]string] `json:"allowedPrograms"`
	LeaveOut            *stated[[]string] `json:"leaveOut"`
}

// readProfile reads a profile that may begin as one of bases.
func readProfile(b []byte, bases []Profile) (Profile, error) {
	if len(b) > maxProfileBytes {
		return Profile{}, fmt.Errorf("%d bytes, %d at most are read", len(b), maxProfileBytes)
	}
	if err := onceEach(b); err != nil {
		return Profile{}, err
	}
	var s statedProfile
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Profile{}, profileError(err)
	}
	p := Profile{}
	if s.Base != "" {
		i := slices.IndexFunc(bases, func(p Profile) bool { return p.Name == s.Base })
		if i < 0 {
			return Profile{}, fmt.Errorf("base: there is no profile %q", s.Base)
		}
		p = bases[i].clone()
		p.Base, p.Title, p.Source = s.Base, p.Title+", changed", p.Source+"; "+s.Name
	}
	p.Name = s.Name
	if s.Title != "" {
		p.Title = s.Title
	}
	if s.Source != "" {
		p.Source = s.Source
	}
	if s.Releases != nil {
		p.Releases = nil
		for _, r := range s.Releases {
			p.Releases = append(p.Releases, Release(r))
		}
	}
	if err := errors.Join(
		take(&p.Language, s.Language, "language"),
		take(&p.MaxVolumeGiB, s.MaxVolumeGiB, "maxVolumeGiB"),
		take(&p.MaxDiskGiB, s.MaxDiskGiB, "maxDiskGiB"),
		take(&p.MinFreeGiB, s.MinFreeGiB, "minFreeGiB"),
		take(&p.MinFreeOfficeGiB, s.MinFreeOfficeGiB, "minFreeOfficeGiB"),
		take(&p.MinPowerShell, s.MinPowerShell, "minPowerShell"),
		take(&p.AllowMicrosoft365, s.AllowMicrosoft365, "allowMicrosoft365"),
		take(&p.MinWorkSpaces, s.MinWorkSpaces, "minWorkSpaces"),
		take(&p.MinGraphicsAlwaysOn, s.MinGraphicsAlwaysOn, "minGraphicsAlwaysOn"),
		take(&p.MinGraphicsAutoStop, s.MinGraphicsAutoStop, "minGraphicsAutoStop"),
		take(&p.AllowedPrograms, s.AllowedPrograms, "allowedPrograms"),
		take(&p.LeaveOut, s.LeaveOut, "leaveOut"),
	); err != nil {
		return Profile{}, err
	}
	return p, p.valid()
}

// take puts what a file states over what is there.
func take[T any](to *Requirement[T], s *stated[T], field string) error {
	switch {
	case s == nil:
		return nil
	case s.Value == nil:
		return fmt.Errorf("%s: it has no value", field)
	}
	*to = Requirement[T]{*s.Value, s.Source}
	return nil
}

// profileError makes an error of the decoder name the field.
func profileError(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("%s: a %s where a %s belongs (byte %d)", wrong.Field, wrong.Value, wrong.Type, wrong.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the file ends too early")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// onceEach refuses what encoding/json lets pass: a field that is said twice, and anything behind the object.
func onceEach(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type level struct {
		seen map[string]bool // nil: a list
		key  bool            // a key comes next
	}
	var open []level
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) && len(open) == 0 {
			return nil
		}
		if err != nil {
			return profileError(err)
		}
		var top *level
		if len(open) > 0 {
			top = &open[len(open)-1]
		}
		switch text, isText := token.(string); {
		case token == json.Delim('{'):
			if len(open) == 8 {
				return errors.New("objects and lists within each other, deeper than any profile has them")
			}
			open = append(open, level{seen: map[string]bool{}, key: true})
			continue
		case token == json.Delim('['):
			if len(open) == 8 {
				return errors.New("objects and lists within each other, deeper than any profile has them")
			}
			open = append(open, level{})
			continue
		case token == json.Delim('}'), token == json.Delim(']'):
			if open = open[:len(open)-1]; len(open) > 0 {
				top = &open[len(open)-1]
			} else {
				if _, err := dec.Token(); !errors.Is(err, io.EOF) {
					return errors.New("there is more behind the profile")
				}
				return nil
			}
		case top == nil:
			return errors.New("it is no JSON object")
		case isText && top.key:
			// encoding/json takes names without regard to case.
			low := strings.ToLower(text)
			if top.seen[low] {
				return fmt.Errorf("%s: it is said twice", text)
			}
			top.seen[low], top.key = true, false
			continue
		}
		top.key = top.seen != nil
	}
}

var (
	profileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	language    = regexp.MustCompile(`^[a-z]{2,3}(-[A-Za-z]{4})?-[A-Z]{2}$`)
)

// valid says what is wrong with a profile, by field.
func (p Profile) valid() error {
	if !profileName.MatchString(p.Name) {
		return fmt.Errorf("name: %q must be 1 to 64 letters, digits, dots, hyphens and underscores", p.Name)
	}
	for _, t := range []struct{ field, text string }{{"title", p.Title}, {"source", p.Source}} {
		if t.text == "" || printable(t.text) != t.text {
			return fmt.Errorf("%s: it must be a line of at most %d bytes", t.field, maxShown)
		}
	}
	if n := len(p.Releases); n == 0 || n > maxListed {
		return fmt.Errorf("releases: there are %d, and must be 1 to %d", n, maxListed)
	}
	for i, r := range p.Releases {
		if err := r.valid(); err != nil {
			return fmt.Errorf("releases[%d].%w", i, err)
		}
	}
	for _, n := range []struct {
		field    string
		is       Requirement[int]
		min, max int
	}{
		{"maxVolumeGiB", p.MaxVolumeGiB, 1, maxGiB}, {"maxDiskGiB", p.MaxDiskGiB, p.MaxVolumeGiB.Value, maxGiB},
		{"minFreeGiB", p.MinFreeGiB, 0, p.MaxVolumeGiB.Value}, {"minFreeOfficeGiB", p.MinFreeOfficeGiB, p.MinFreeGiB.Value, p.MaxVolumeGiB.Value},
		{"minPowerShell", p.MinPowerShell, 1, 100}, {"minWorkSpaces", p.MinWorkSpaces, 0, 1e9},
		{"minGraphicsAlwaysOn", p.MinGraphicsAlwaysOn, 0, 1e9}, {"minGraphicsAutoStop", p.MinGraphicsAutoStop, 0, 1e9},
	} {
		if err := n.is.sourced(n.field); err != nil {
			return err
		}
		if n.is.Value < n.min || n.is.Value > n.max {
			return fmt.Errorf("%s: it is %d, and must be %d to %d", n.field, n.is.Value, n.min, n.max)
		}
	}
	if err := errors.Join(p.Language.sourced("language"), p.AllowMicrosoft365.sourced("allowMicrosoft365")); err != nil {
		return err
	}
	if !language.MatchString(p.Language.Value) {
		return fmt.Errorf("language: %q is no language like en-US", p.Language.Value)
	}
	for _, l := range []struct {
		field string
		is    Requirement[[]string]
	}{{"allowedPrograms", p.AllowedPrograms}, {"leaveOut", p.LeaveOut}} {
		if len(l.is.Value) == 0 {
			continue
		}
		if err := l.is.sourced(l.field); err != nil {
			return err
		}
		if len(l.is.Value) > maxListed {
			return fmt.Errorf("%s: %d entries, at most %d are read", l.field, len(l.is.Value), maxListed)
		}
		for i, s := range l.is.Value {
			if strings.TrimSpace(s) == "" || printable(s) != s {
				return fmt.Errorf("%s[%d]: it must be a name of at most %d bytes", l.field, i, maxShown)
			}
		}
	}
	for i, code := range p.LeaveOut.Value {
		if _, ok := Describe(code); !ok {
			return fmt.Errorf("leaveOut[%d]: there is no check %q", i, code)
		}
	}
	return nil
}

// sourced says whether a requirement has its source.
func (r Requirement[T]) sourced(field string) error {
	if r.Source == "" || printable(r.Source) != r.Source {
		return fmt.Errorf("%s: it has no source, a line of at most %d bytes that says where it is written down", field, maxShown)
	}
	return nil
}

func (r Release) valid() error {
	is11 := r.Build >= firstWindows11
	switch {
	case r.Windows != "Windows 10" && r.Windows != "Windows 11":
		return fmt.Errorf("windows: %q is neither Windows 10 nor Windows 11", r.Windows)
	case r.Build < firstWindows10 || is11 != (r.Windows == "Windows 11"):
		return fmt.Errorf("build: %d is no build of %s", r.Build, r.Windows)
	case r.Version == "" || printable(r.Version) != r.Version:
		return fmt.Errorf("version: it must be a name of at most %d bytes", maxShown)
	case len(r.Editions) == 0 || len(r.Editions) > maxListed || slices.ContainsFunc(r.Editions, func(e string) bool { return e == "" || printable(e) != e }):
		return errors.New("editions: there must be some, each an EditionID")
	case r.Scheme != windows.MBR && r.Scheme != windows.GPT:
		return fmt.Errorf("partitionTable: %q is neither MBR nor GPT", r.Scheme)
	case r.Firmware != "bios" && r.Firmware != "uefi":
		return fmt.Errorf("firmware: %q is neither bios nor uefi", r.Firmware)
	case len(r.Protocols) == 0 || slices.ContainsFunc(r.Protocols, func(p Protocol) bool { return p != PCoIP && p != WSP && p != BYOP }):
		return errors.New("protocols: there must be some of PCOIP, WSP and BYOP")
	}
	return Requirement[int]{Source: r.Source}.sourced("source")
}
