package image

import (
	"fmt"

	"berth/internal/windows"
)

// Where the SAM hive keeps local accounts and the group Administrators.
const (
	samAccounts       = `SAM\Domains\Account`
	samAdministrators = `SAM\Domains\Builtin\Aliases\00000220`
)

// users lists the local accounts, in the order of the SAM's names.
func users(s windows.System) Fact[[]User] {
	const names = samAccounts + `\Users\Names`
	from := hivePath(windows.SAM, names)
	k, err := openKey(s, windows.SAM, names)
	if err != nil {
		return unknown[[]User](from, err)
	}
	list, err := k.Subkeys()
	if err == nil && len(list) > maxUsers {
		err = fmt.Errorf("%d accounts, %d at most are read", len(list), maxUsers)
	}
	if err != nil {
		return unknown[[]User](from, err)
	}
	admins, err := administrators(s)
	if err != nil {
		return unknown[[]User](hivePath(windows.SAM, samAdministrators), err)
	}
	out := []User{}
	var kept texts
	for _, name := range list {
		u, err := user(s, k, name)
		if err != nil {
			return unknown[[]User](from+`\`+name, err)
		}
		if err := kept.keep(u.Name, u.From); err != nil {
			return unknown[[]User](from, err)
		}
		u.Administrator = admins[u.RID]
		out = append(out, u)
	}
	return fact(out, from)
}

// user reads one account. The RID is the type of its name's default value.
func user(s windows.System, names windows.Key, name string) (User, error) {
	k, err := names.Open(name)
	if err != nil {
		return User{}, err
	}
	v, err := k.Value("")
	if err != nil {
		return User{}, fmt.Errorf("the account's RID cannot be read: %w", err)
	}
	u := User{Name: name, RID: v.Type}
	path := fmt.Sprintf(`%s\Users\%08X`, samAccounts, u.RID)
	if k, err = openKey(s, windows.SAM, path); err != nil {
		return u, err
	}
	f, err := k.Value("F")
	if err != nil {
		return u, err
	}
	flags, err := windows.AccountFlags(f.Data, u.RID)
	if err != nil {
		return u, err
	}
	u.Enabled = flags&windows.AccountDisabled == 0
	u.From = hivePath(windows.SAM, path, "F")
	return u, nil
}

// administrators are the RIDs of the machine's own accounts in the group Administrators.
func administrators(s windows.System) (map[uint32]bool, error) {
	k, err := openKey(s, windows.SAM, samAccounts)
	if err != nil {
		return nil, err
	}
	v, err := k.Value("V")
	if err != nil {
		return nil, err
	}
	machine, err := windows.MachineSID(v.Data)
	if err != nil {
		return nil, err
	}
	if k, err = openKey(s, windows.SAM, samAdministrators); err != nil {
		return nil, err
	}
	if v, err = k.Value("C"); err != nil {
		return nil, err
	}
	return members(v.Data, machine)
}

// members are the RIDs of the SIDs of a machine in the value C of the group Administrators.
func members(c []byte, machine windows.SID) (map[uint32]bool, error) {
	list, err := windows.GroupMembers(c, windows.Administrators)
	if err != nil {
		return nil, err
	}
	rids := map[uint32]bool{}
	for _, sid := range list {
		if rid, ok := sid.RID(machine); ok {
			rids[rid] = true
		}
	}
	return rids, nil
}
