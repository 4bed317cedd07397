package live

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"berth/internal/windows"
)

// appxStore is where Windows keeps which AppX packages it has for whom (facts §4.2, AppXPackagesInstalled): Applications holds
// those that new users get, a key named by a user's SID those of that user.
const appxStore = `Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore`

// maxPackages bounds what is listed, of each kind. A real machine has some hundreds.
const maxPackages = 20_000

// packages lists the AppX packages, sorted by full name.
func packages(sys windows.System) ([]windows.Package, error) {
	store, err := sys.Open(windows.Software, appxStore)
	if err != nil {
		return nil, fmt.Errorf(`SOFTWARE\%s: %w`, appxStore, err)
	}
	names, err := store.Subkeys()
	if err != nil {
		return nil, fmt.Errorf(`SOFTWARE\%s: %w`, appxStore, err)
	}
	found := map[string]*windows.Package{}
	for _, name := range names {
		provisioned := strings.EqualFold(name, "Applications")
		if !provisioned && !strings.HasPrefix(strings.ToUpper(name), "S-1-") {
			continue // Staged, Deprovisioned, EndOfLife ...
		}
		full, err := below(store, name)
		if err != nil {
			return nil, fmt.Errorf(`SOFTWARE\%s\%s: %w`, appxStore, name, err)
		}
		if len(full)+len(found) > maxPackages {
			return nil, fmt.Errorf(`SOFTWARE\%s has more than %d packages`, appxStore, maxPackages)
		}
		for _, f := range full {
			p := found[strings.ToLower(f)]
			if p == nil {
				p = &windows.Package{FullName: f}
				found[strings.ToLower(f)] = p
			}
			if provisioned {
				p.Provisioned = true
			} else {
				p.Users = append(p.Users, name)
			}
		}
	}
	list := make([]windows.Package, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, *found[name])
	}
	return list, nil
}

func below(k windows.Key, name string) ([]string, error) {
	sub, err := k.Open(name)
	if errors.Is(err, fs.ErrNotExist) { // it went away meanwhile
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return sub.Subkeys()
}
