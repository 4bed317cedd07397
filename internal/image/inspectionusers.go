package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"berth/internal/windows"
)

// Where the SAM hive keeps local accounts and the group Administrators. The layout of the values is drawn in check/account.go,
// which asks for the one account that matters there; here all are listed.
const (
	samAccounts       = `SAM\Domains\Account`
	samAdministrators = `SAM\Domains\Builtin\Aliases\00000220`

	accountFlagsAt  = 0x38 // in F
	accountDisabled = 0x0001
	groupMembersAt  = 0x28 // in C: offset, length, count
	groupDataAt     = 0x34 // what the offset counts from
	machineSIDBytes = 24
	sidHeaderBytes  = 8
	maxSubs         = 15 // sub-authorities of a SID
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
	if len(f.Data) < accountFlagsAt+2 {
		return u, fmt.Errorf("value F has %d bytes, the flags are at %#x", len(f.Data), accountFlagsAt)
	}
	u.Enabled = binary.LittleEndian.Uint16(f.Data[accountFlagsAt:])&accountDisabled == 0
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
	if len(v.Data) < machineSIDBytes {
		return nil, fmt.Errorf("value V of the accounts has %d bytes, the machine's SID alone takes %d", len(v.Data), machineSIDBytes)
	}
	machine := v.Data[len(v.Data)-machineSIDBytes:]
	if k, err = openKey(s, windows.SAM, samAdministrators); err != nil {
		return nil, err
	}
	if v, err = k.Value("C"); err != nil {
		return nil, err
	}
	return members(v.Data, machine)
}

// members are the RIDs of the SIDs of a machine in a local group's value C.
func members(c, machine []byte) (map[uint32]bool, error) {
	if len(c) < groupDataAt {
		return nil, fmt.Errorf("value C has %d bytes, its header alone takes %#x", len(c), groupDataAt)
	}
	offset, length := uint64(binary.LittleEndian.Uint32(c[groupMembersAt:])), uint64(binary.LittleEndian.Uint32(c[groupMembersAt+4:]))
	if groupDataAt+offset+length > uint64(len(c)) {
		return nil, fmt.Errorf("value C puts its members at %#x, %d bytes, beyond its %d bytes", groupDataAt+offset, length, len(c))
	}
	rids := map[uint32]bool{}
	for b := c[groupDataAt+offset:][:length]; len(b) > 0; {
		if len(b) < sidHeaderBytes || b[1] > maxSubs || len(b) < sidHeaderBytes+4*int(b[1]) {
			return nil, errors.New("value C: a member is not a SID")
		}
		n := sidHeaderBytes + 4*int(b[1])
		// An account's SID is the machine's with one more sub-authority, the RID.
		if n == machineSIDBytes+4 && b[0] == machine[0] && b[1] == machine[1]+1 && bytes.Equal(b[2:machineSIDBytes], machine[2:]) {
			rids[binary.LittleEndian.Uint32(b[machineSIDBytes:])] = true
		}
		b = b[n:]
	}
	return rids, nil
}
