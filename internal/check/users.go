package check

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

const (
	// maxUsers bounds the profiles whose registries are read. A machine that is prepared for an image has a few.
	maxUsers = 200
	// maxMapped bounds the network drives of a user that are read; there are 26 letters.
	maxMapped = 64
	// hiveFile is a user's registry in the profile's folder.
	hiveFile = "NTUSER.DAT"
)

// userHive is how the registry of a user is called in evidence, beside its file.
const userHive windows.Hive = "NTUSER"

// profile is a user's folder, with slashes and without the drive, and who it is of.
type profile struct {
	sid    string
	folder string
}

// name is what people call the user: that of the folder.
func (p profile) name() string { return path.Base(p.folder) }

// users reads what users have for themselves alone: the programs of their own Uninstall lists, and the network drives that come back when they
// sign in. Both are in their registries (facts §4.2, §4.3).
func (r *reader) users(f *Facts) {
	list, at, err := r.profiles()
	if err != nil {
		f.UserPrograms, f.MappedDrives = unread[[]Program](at, why(err)), unread[[]MappedDrive](at, why(err))
		return
	}
	from := at.plus(fmt.Sprintf(" tells of the profiles of users: %d", len(list)))
	programs, drives := read([]Program(nil), from), read([]MappedDrive(nil), from)
	room := newRoom()
	for _, p := range list {
		u, done, err := r.user(p.sid, p.folder+"/"+hiveFile)
		switch {
		case errors.Is(err, fs.ErrNotExist): // the folder was deleted by hand, and with it what was in it
		case err != nil:
			keep(&programs, unread[[]Program](u.hiveEvidence(), why(err)))
			keep(&drives, unread[[]MappedDrive](u.hiveEvidence(), why(err)))
		default:
			own := u.programs(`Software\`+uninstall, optional, room)
			for i := range own.Value {
				own.Value[i].User = p.name()
			}
			keep(&programs, own)
			keep(&drives, u.mapped(p.name()))
		}
		done()
	}
	f.UserPrograms, f.MappedDrives = programs, drives
}

// keep adds what one user has to what the others have. One whose list is not known makes the whole not known, with what was found.
func keep[T any](all *Known[[]T], one Known[[]T]) {
	all.Value = append(all.Value, one.Value...)
	switch {
	case !all.OK():
	case !one.OK():
		all.From, all.Why = append(all.From, one.From...), one.Why
	default:
		all.From = few(all.From, one.From...)
	}
}

// profiles lists the profiles of users: of local and domain accounts (S-1-5-21-...) and of Microsoft Entra ID's (S-1-12-1-...). Those of services
// have no desktop on which one could install.
func (r *reader) profiles() ([]profile, Evidence, error) {
	const list = currentVersion + `\ProfileList`
	at := r.at(windows.Software, list)
	k, names, err := r.subkeys(windows.Software, list, maxPrograms)
	if err != nil {
		return nil, at, err
	}
	at = at.of(k)
	var found []profile
	for _, sid := range names {
		if !begins(sid, "S-1-5-21-") && !begins(sid, "S-1-12-1-") {
			continue
		}
		sub, err := k.Open(sid)
		if err != nil {
			return nil, at.below(sid), err
		}
		image := valueOf(r, sub, at.below(sid), "ProfileImagePath", keyAlways, "", text)
		if !image.OK() {
			return nil, image.From[0], errors.New(image.Why)
		}
		if image.Value == "" { // a key that is left over
			continue
		}
		folder, ok := onSystemVolume(image.Value)
		if !ok { // profiles may be put on another drive
			return nil, image.From[0], errors.New("the profile is not on C:, and its registry cannot be read")
		}
		if slices.ContainsFunc(found, func(p profile) bool { return strings.EqualFold(p.folder, folder) }) {
			continue // Windows keeps a second key, ".bak", of a profile that it could not load
		}
		if found = append(found, profile{sid, folder}); len(found) > maxUsers {
			return nil, at, fmt.Errorf("it has more than the %d users that are read", maxUsers)
		}
	}
	return found, at, nil
}

// mapped reads the network drives that come back when the user signs in.
func (r *reader) mapped(user string) Known[[]MappedDrive] {
	at := r.at(userHive, `Network`)
	k, err := r.open(userHive, `Network`)
	if errors.Is(err, fs.ErrNotExist) {
		return read([]MappedDrive(nil), at.plus(" is absent"))
	}
	if err != nil {
		return unread[[]MappedDrive](at, why(err))
	}
	at = at.of(k)
	letters, err := k.Subkeys()
	if err == nil && len(letters) > maxMapped {
		err = fmt.Errorf("it has %d subkeys, more than the %d that are read", len(letters), maxMapped)
	}
	if err != nil {
		return unread[[]MappedDrive](at, why(err))
	}
	all := read([]MappedDrive(nil), at.plus(fmt.Sprintf(" has drives: %d", len(letters))))
	for _, letter := range letters {
		sub, err := k.Open(letter)
		if err != nil {
			return unread[[]MappedDrive](at.below(letter), why(err))
		}
		share := valueOf(r, sub, at.below(letter), "RemotePath", keyAlways, "", text)
		if !share.OK() {
			return likewise[[]MappedDrive](share)
		}
		all.Value = append(all.Value, MappedDrive{User: user, Letter: letter + ":", Share: share.Value, From: share.From[0]})
	}
	if st := r.sys.Hive(userHive); st.Damaged != "" {
		all.Why = "the hive is damaged, so entries may be lost: " + printable(st.Damaged)
	}
	return all
}

// userSystem answers for the registry of one user, as the hive userHive.
type userSystem struct {
	windows.System
	root windows.Key
	// hive is the file's, state what is to be said where there is none: the user is signed in.
	hive  *registry.Hive
	state windows.HiveState
}

func (s userSystem) Hive(windows.Hive) windows.HiveState {
	if s.hive == nil {
		return s.state
	}
	return s.hive.HiveState()
}

func (s userSystem) Open(_ windows.Hive, p string) (windows.Key, error) { return s.root.Open(p) }

// user is a reader of a user's registry, by the name userHive; done closes its files, which a running Windows must not find in use. In a running
// Windows the registry of who is signed in is asked, whose file is in use. sid is empty for that of new users, who never sign in. The error is
// fs.ErrNotExist (wrapped) where there surely is no such file; the reader then, and with every other error, is good for evidence alone.
func (r *reader) user(sid, file string) (u *reader, done func(), err error) {
	u, done = &reader{running: r.running, file: file, sys: userSystem{System: r.sys, state: windows.HiveState{Err: fs.ErrNotExist}}}, func() {}
	if r.running && sid != "" {
		switch root, err := r.sys.Open(windows.Hive(sid), ""); {
		case err == nil:
			u.sys = userSystem{System: r.sys, root: root}
			return u, done, nil
		case !errors.Is(r.sys.Hive(windows.Hive(sid)).Err, fs.ErrNotExist):
			return u, done, err
		}
	}
	hive, done, err := registry.OpenFile(r.sys.Files(), file)
	if err != nil {
		u.sys = userSystem{System: r.sys, state: windows.HiveState{Err: err}}
		return u, done, err
	}
	u.sys = userSystem{System: r.sys, hive: hive}
	if err := u.usable(userHive); err != nil {
		return u, done, err
	}
	root, err := hive.Root()
	u.sys = userSystem{System: r.sys, hive: hive, root: root}
	if err == nil && r.running {
		u.running = false // the file's state tells more than that it is in use
	}
	return u, done, err
}

// hiveEvidence is the whole hive.
func (r *reader) hiveEvidence() Evidence {
	e := inFile(r.file)
	e.Hive, e.HiveState = userHive, r.hiveState(userHive)
	return e
}
