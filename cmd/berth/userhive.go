package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"berth/internal/check/report"
	"berth/internal/image"
	"berth/internal/windows"
	"berth/internal/windows/offline"
	"berth/internal/windows/registry"
)

// hkeyUsers is the key that a running Windows has its users' hives below, and profileList where it has written down where they lie.
const (
	hkeyUsers   = "HKEY_USERS"
	profileList = `Microsoft\Windows NT\CurrentVersion\ProfileList`
)

// systemSID is the SID of Windows itself (Local System), whose hive is DEFAULT.
const systemSID = "S-1-5-18"

// userKey takes the path of a key below HKEY_USERS apart, but for .DEFAULT, which is a hive of the machine: whose hive it is in, and the
// path in it. Of HKEY_USERS alone, sid is empty.
func userKey(key string) (sid, keyPath string, ok bool, err error) {
	top, rest, _ := strings.Cut(strings.Trim(key, `\`), `\`)
	if !strings.EqualFold(top, hkeyUsers) && !strings.EqualFold(top, "HKU") {
		return "", "", false, nil
	}
	sid, keyPath, _ = strings.Cut(rest, `\`)
	if strings.EqualFold(sid, ".DEFAULT") {
		return "", "", false, nil
	}
	if keyPath != "" { // the rules for names are the same in every hive
		_, keyPath, err = registry.SplitKey(`HKU\.DEFAULT\` + keyPath)
	}
	return sid, keyPath, true, err
}

// userProfile is a profile that Windows knows: whose, and where on C: it lies, with backslashes. Name is the folder's, by which people call
// the user.
type userProfile struct {
	SID    string `json:"sid"`
	Name   string `json:"name"`
	Folder string `json:"folder"`
}

// profileOf reads whose profile a key of the profile list is. The error is fs.ErrNotExist (wrapped) where it surely is nobody's.
func profileOf(k windows.Key) (userProfile, error) {
	v, err := k.Value("ProfileImagePath")
	if err != nil {
		return userProfile{}, fmt.Errorf("SOFTWARE\\%s\\%s: %w", profileList, k.Name(), err)
	}
	folder, ok := decoded(v).(string)
	if !ok {
		return userProfile{}, fmt.Errorf("SOFTWARE\\%s\\%s\\ProfileImagePath is a %s", profileList, k.Name(), regType(v.Type))
	}
	for variable, is := range map[string]string{"%SystemDrive%": "C:", "%SystemRoot%": `C:\Windows`} {
		if n := len(variable); len(folder) >= n && strings.EqualFold(folder[:n], variable) {
			folder = is + folder[n:]
		}
	}
	p := userProfile{SID: k.Name(), Folder: folder}
	p.Name = p.Folder[strings.LastIndexByte(p.Folder, '\\')+1:]
	return p, nil
}

// userHive opens the hive of the user with a SID. SID and name are told from the list of profiles of the Windows.
func userHive(s *offline.System, sid string) (*regHive, error) {
	h := &regHive{label: `HKU\` + sid, name: func(p string) string { return strings.TrimSuffix(hkeyUsers+`\`+sid+`\`+p, `\`) }}
	if strings.EqualFold(sid, systemSID) {
		h.open = func(p string) (windows.Key, error) { return s.Open(windows.Default, p) }
		h.state = func() windows.HiveState { return s.Hive(windows.Default) }
		return h, nil
	}
	k, err := s.Open(windows.Software, profileList+`\`+sid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notThere(fmt.Sprintf("the key %s\\%s does not exist: Windows knows no profile of that user (HKU lists them)", hkeyUsers, sid))
	}
	if err != nil {
		return nil, err
	}
	p, err := profileOf(k)
	if err != nil {
		return nil, err
	}
	if len(p.Folder) < 3 || !strings.EqualFold(p.Folder[:3], `C:\`) {
		return nil, fmt.Errorf("the profile of %s is in %s, not on C:, and its hive cannot be read", sid, p.Folder)
	}
	folder, err := insidePath(p.Folder)
	if err != nil {
		return nil, err
	}
	hive, _, err := registry.OpenFile(s.Files(), path.Join(folder, "NTUSER.DAT")) // open as long as the export is
	if err != nil {
		// Not wrapped: that the file is missing does not make its keys absent.
		return nil, fmt.Errorf("the hive of %s (%s): %s", sid, p.Name, err.Error())
	}
	root, err := hive.Root()
	if err != nil {
		return nil, fmt.Errorf("the hive of %s (%s): %w", sid, p.Name, err)
	}
	h.open = func(p string) (windows.Key, error) {
		if p == "" {
			return root, nil
		}
		return root.Open(p)
	}
	h.state = hive.HiveState
	return h, nil
}

// users prints what is below HKEY_USERS: whose profiles Windows knows. What can be read is printed; the first error is returned at the end.
func (c *regCmd) users(ctx context.Context, w io.Writer, s *offline.System) error {
	if c.Value != "" || c.Reg || c.Recursive {
		return errors.New("of HKEY_USERS itself there only is a list: say which key below it is meant")
	}
	k, err := s.Open(windows.Software, profileList)
	if err != nil {
		return fmt.Errorf("the list of profiles: %s", err.Error()) // not wrapped: every Windows has it
	}
	sids, first := k.Subkeys()
	var found []userProfile
	for _, sid := range sids {
		if err := ctx.Err(); err != nil {
			return err
		}
		sub, err := k.Open(sid)
		var p userProfile
		if err == nil {
			p, err = profileOf(sub)
		}
		switch {
		case err == nil:
			found = append(found, p)
		case first == nil && !errors.Is(err, fs.ErrNotExist): // else a key that is left over
			first = err
		}
	}
	list := struct {
		Key     string        `json:"key"`
		Subkeys []string      `json:"subkeys"`
		Users   []userProfile `json:"users"`
	}{hkeyUsers, []string{".DEFAULT"}, found}
	text := hkeyUsers + "\n\n" + hkeyUsers + "\\.DEFAULT\n"
	for _, p := range found {
		list.Subkeys = append(list.Subkeys, p.SID)
		text += fmt.Sprintf("%s\\%s    %s    %s\n", hkeyUsers, image.Printable(p.SID), image.Printable(p.Name), image.Printable(p.Folder))
	}
	if c.Output == "json" {
		return errors.Join(first, report.WriteJSON(w, list, ""))
	}
	_, err = io.WriteString(w, text+"\n")
	return errors.Join(first, err)
}
