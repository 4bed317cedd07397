package phony

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"berth/internal/windows"
)

// Guest is what the machine answers while it runs: the section live of its text, in place of WMI. It implements
// windows.Guest; what the text does not tell is an error there.
type Guest struct {
	licensing *windows.Licensing
	antiVirus answer[windows.AntiVirusProduct]
	packages  answer[windows.Package]
	device    *windows.DeviceGuard
	restart   answer[string]
}

// answer is a list that was told, perhaps empty.
type answer[T any] struct {
	told bool
	list []T
}

var errNotRecorded = errors.New("it is not recorded")

func (a answer[T]) get() ([]T, error) {
	if !a.told {
		return nil, errNotRecorded
	}
	return slices.Clone(a.list), nil
}

// Licensing is what the line licence tells.
func (g *Guest) Licensing() (windows.Licensing, error) {
	if g.licensing == nil {
		return windows.Licensing{}, errNotRecorded
	}
	return *g.licensing, nil
}

// AntiVirus is what the lines antivirus tell.
func (g *Guest) AntiVirus() ([]windows.AntiVirusProduct, error) { return g.antiVirus.get() }

// Packages is what the lines package tell.
func (g *Guest) Packages() ([]windows.Package, error) { return g.packages.get() }

// DeviceGuard is what the line device-guard tells.
func (g *Guest) DeviceGuard() (windows.DeviceGuard, error) {
	if g.device == nil {
		return windows.DeviceGuard{}, errNotRecorded
	}
	return *g.device, nil
}

// PendingReboot is what the line restart tells.
func (g *Guest) PendingReboot() ([]string, error) { return g.restart.get() }

var _ windows.Guest = (*Guest)(nil)

// applyLive reads a line of the live section.
func (m *Machine) applyLive(name, text string, removed bool) error {
	if m.Guest == nil {
		m.Guest = &Guest{}
	}
	names, err := split(name)
	if err != nil {
		return err
	}
	words, err := split(text)
	if err != nil {
		return err
	}
	what, of := names[0], ""
	if len(names) == 2 {
		of = names[1]
	}
	list := what == "antivirus" || what == "package"
	if len(names) > 2 || of != "" && !list || of == "" && list && !removed && text != "none" {
		return fmt.Errorf("%q: a line is antivirus NAME, package FULLNAME, licence, device-guard or restart", name)
	}
	switch what {
	case "licence":
		m.Guest.licensing, err = parseLicensing(words, removed)
	case "antivirus":
		m.Guest.antiVirus = tell(m.Guest.antiVirus, of, removed, func(p windows.AntiVirusProduct) string { return p.Name },
			windows.AntiVirusProduct{Name: of, Executable: text})
	case "package":
		var p windows.Package
		if of != "" && !removed {
			p, err = parsePackage(of, words)
		}
		m.Guest.packages = tell(m.Guest.packages, of, removed, func(p windows.Package) string { return p.FullName }, p)
	case "device-guard":
		m.Guest.device, err = parseDeviceGuard(words, removed)
	case "restart":
		if m.Guest.restart = (answer[string]{told: !removed}); !slices.Equal(words, []string{"none"}) {
			m.Guest.restart.list = words
		}
	default:
		err = fmt.Errorf("a running Windows is not asked for %q", what)
	}
	return err
}

// tell adds an element to a list, in place of the one of its name. Without a name the list is empty, or no longer told.
func tell[T any](a answer[T], of string, removed bool, name func(T) string, element T) answer[T] {
	if of == "" {
		return answer[T]{told: !removed}
	}
	a.list = slices.DeleteFunc(slices.Clone(a.list), func(t T) bool { return name(t) == of })
	a.told = true
	if !removed {
		a.list = append(a.list, element)
	}
	return a
}

// parseLicensing reads "rearms 1001 status 1 channel Volume:GVLK kms kms.example:1688 expires 2021-04-03T09:00:00Z".
func parseLicensing(words []string, removed bool) (*windows.Licensing, error) {
	if removed {
		return nil, nil
	}
	l := &windows.Licensing{}
	for pair := range slices.Chunk(words, 2) {
		if len(pair) < 2 {
			return nil, fmt.Errorf("%s needs a value", pair[0])
		}
		var err error
		switch pair[0] {
		case "rearms":
			l.RearmCount, err = strconv.Atoi(pair[1])
		case "status":
			l.Status, err = strconv.Atoi(pair[1])
		case "channel":
			l.Channel = pair[1]
		case "kms":
			l.KMS = pair[1]
		case "expires":
			l.Expires, err = time.Parse(time.RFC3339, pair[1])
		default:
			err = fmt.Errorf("a licence has no %q", pair[0])
		}
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// parsePackage reads "provisioned user S-1-5-21-1-2-3-1001".
func parsePackage(fullName string, words []string) (windows.Package, error) {
	p := windows.Package{FullName: fullName}
	for len(words) > 0 {
		switch {
		case words[0] == "provisioned":
			p.Provisioned = true
			words = words[1:]
		case words[0] == "user" && len(words) > 1:
			if _, err := parseSID(words[1]); err != nil {
				return p, err
			}
			p.Users = append(p.Users, words[1])
			words = words[2:]
		default:
			return p, fmt.Errorf("a package has no %q", words[0])
		}
	}
	return p, nil
}

// parseDeviceGuard reads "memory-integrity credential-guard uefi-lock", or "off".
func parseDeviceGuard(words []string, removed bool) (*windows.DeviceGuard, error) {
	if removed {
		return nil, nil
	}
	d := &windows.DeviceGuard{}
	for _, w := range words {
		switch w {
		case "memory-integrity":
			d.MemoryIntegrity = true
		case "credential-guard":
			d.CredentialGuard = true
		case "uefi-lock":
			d.UEFILock = true
		case "off":
		default:
			return nil, fmt.Errorf("device-guard has no %q", w)
		}
	}
	return d, nil
}
