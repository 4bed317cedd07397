package check

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// accountChecks are the checks on the account WorkSpaces_BYOL.
var accountChecks = []Check{
	{
		Code: "WorkspacesBYOLAccountNotFound", ReportAs: "WorkspacesBYOLAccountNotFound", Level: Warn, DecidedIn: OnDisk,
		Title:      "The local account WorkSpaces_BYOL exists",
		Source:     "document, Requirements; facts §4.2",
		Evaluation: `SAM\Domains\Account\Users\Names must have the key WorkSpaces_BYOL, in any case.`,
		Fix:        "The account is created, with a random password, and made an administrator",
		Remedy: steps(
			"Make the account (the first command asks for a password: note it down) and make it an administrator:",
			"  net user WorkSpaces_BYOL * /add",
			"  net localgroup Administrators WorkSpaces_BYOL /add"),
		judge: judgeAccount,
		fix:   fixAccount,
	},
	{
		Code: "WorkspacesBYOLAccountNotAdministrator", ReportAs: "WorkspacesBYOLAccountNotFound", Level: Fail, DecidedIn: OnDisk,
		Title:      "The account WorkSpaces_BYOL is a local administrator",
		Source:     "document, Requirements; facts §4.3",
		Applies:    "machines that have the account",
		Evaluation: `The SID of the account must be among the members in value C of SAM\Domains\Builtin\Aliases\00000220.`,
		Fix:        "The account is made an administrator",
		Remedy: steps(
			"Make it an administrator:",
			"  net localgroup Administrators WorkSpaces_BYOL /add"),
		judge: judgeAdministrator,
		fix:   fixAccount,
	},
	{
		Code: "WorkspacesBYOLAccountDisabled", ReportAs: "WorkspacesBYOLAccountDisabled", Level: Warn, DecidedIn: OnDisk, Fixable: true,
		Title:      "The account WorkSpaces_BYOL is enabled",
		Source:     "document, Requirements; facts §4.2",
		Evaluation: "Bit 0x0001 of the flags at 0x38 of the account's value F must be clear. Without the account it is not met either, as with Amazon's checker.",
		Fix:        `The mark "disabled" of the account is cleared; where there is no account, it is created as for WorkspacesBYOLAccountNotFound`,
		Remedy: steps(
			"Enable it:",
			"  net user WorkSpaces_BYOL /active:yes",
			"Where there is no such account, make it (the first command asks for a password: note it down):",
			"  net user WorkSpaces_BYOL * /add",
			"  net localgroup Administrators WorkSpaces_BYOL /add"),
		judge: judgeAccountEnabled,
		fix:   fixAccountDisabled,
	},
}

func judgeAccount(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		return unmet("There is no local account "+byolAccount+".", f.BYOLAccount)
	}
	return pass(fmt.Sprintf("The account %s exists (RID %d).", byolAccount, f.BYOLAccount.Value), f.BYOLAccount, f.BYOLAccountAdministrator)
}

func judgeAdministrator(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		return notApplicable("There is no account "+byolAccount+"; see WorkspacesBYOLAccountNotFound.", f.BYOLAccount)
	}
	if v, no := missing(f.BYOLAccountAdministrator); no {
		return v
	}
	if !f.BYOLAccountAdministrator.Value {
		return unmet("The account "+byolAccount+" exists but is not a member of the local group Administrators.", f.BYOLAccount, f.BYOLAccountAdministrator)
	}
	return pass("The account "+byolAccount+" is a member of the local group Administrators.", f.BYOLAccountAdministrator)
}

// judgeAccountEnabled also fires when there is no account, as Amazon's does (facts §4.2).
func judgeAccountEnabled(f *Facts, _ Params) Verdict {
	if v, no := missing(f.BYOLAccount); no {
		return v
	}
	if f.BYOLAccount.Value == 0 {
		return unmet("There is no account "+byolAccount+" that could be enabled; see WorkspacesBYOLAccountNotFound.", f.BYOLAccount)
	}
	if v, no := missing(f.BYOLAccountFlags); no {
		return v
	}
	if f.BYOLAccountFlags.Value&accountDisabled != 0 {
		return unmet("The account "+byolAccount+" is disabled.", f.BYOLAccount, f.BYOLAccountFlags)
	}
	return pass("The account "+byolAccount+" is enabled.", f.BYOLAccountFlags)
}

// The Security Account Manager keeps accounts as binary values. Their layout is not published; the offsets here are those of
// byol-facts §4.2 and were read off a real SAM hive. All numbers are little-endian.
//
//	Users\<RID>, value F (fixed part of an account)      Aliases\<RID>, value C (a local group)
//	0x30  RID                                            0x00  RID
//	0x38  control flags, 16 bits (ACB_*)                 0x28  members' offset, counted from 0x34
//	                                                     0x2C  members' length
//	Account, value V ends in the machine's SID:          0x30  members' count
//	S-1-5-21-a-b-c, 24 bytes                             0x34  data; a member is a SID
const (
	userRID      = 0x30
	userFlags    = 0x38
	groupMembers = 0x28
	groupData    = 0x34

	// accountDisabled is ACB_DISABLED.
	accountDisabled = 0x0001
	// administrators is the RID of the local group Administrators, the same in every language.
	administrators = 0x220
	// maxMembers bounds the members of a local group that are looked at.
	maxMembers = 10_000
	// sidHeader is revision, count of sub-authorities and authority; each sub-authority takes 4 bytes, 15 at most.
	sidHeader, maxSubAuthorities = 8, 15
)

// machineSIDPrefix begins every machine's SID: revision 1, four sub-authorities, authority 5, first of them 21.
var machineSIDPrefix = []byte{1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0}

// accountFlags reads an account's control flags from its F value.
func accountFlags(f []byte, rid uint32) (uint16, error) {
	if len(f) < userFlags+2 {
		return 0, fmt.Errorf("value F has %d bytes, the flags are at %#x", len(f), userFlags)
	}
	if got := binary.LittleEndian.Uint32(f[userRID:]); got != rid {
		return 0, fmt.Errorf("value F at %#x names RID %d, the account is %d", userRID, got, rid)
	}
	return binary.LittleEndian.Uint16(f[userFlags:]), nil
}

// accountSID makes an account's SID of the value V of the account domain.
func accountSID(v []byte, rid uint32) ([]byte, error) {
	const n = 24
	if len(v) < n {
		return nil, fmt.Errorf("value V has %d bytes, the machine's SID alone takes %d", len(v), n)
	}
	sid := bytes.Clone(v[len(v)-n:])
	if !bytes.HasPrefix(sid, machineSIDPrefix) {
		return nil, fmt.Errorf("value V does not end in a machine's SID (S-1-5-21-...)")
	}
	sid[1]++ // one more sub-authority
	return binary.LittleEndian.AppendUint32(sid, rid), nil
}

// isMember tells whether a local group's C value lists a SID.
func isMember(c []byte, group uint32, sid []byte) (bool, error) {
	if len(c) < groupData {
		return false, fmt.Errorf("value C has %d bytes, its header alone takes %#x", len(c), groupData)
	}
	if got := binary.LittleEndian.Uint32(c); got != group {
		return false, fmt.Errorf("value C at 0 names group %#x, not %#x", got, group)
	}
	offset := uint64(binary.LittleEndian.Uint32(c[groupMembers:]))
	length := uint64(binary.LittleEndian.Uint32(c[groupMembers+4:]))
	count := binary.LittleEndian.Uint32(c[groupMembers+8:])
	if groupData+offset+length > uint64(len(c)) {
		return false, fmt.Errorf("value C at %#x puts its members at %#x, %d bytes, beyond its %d bytes", groupMembers, groupData+offset, length, len(c))
	}
	if count > maxMembers {
		return false, fmt.Errorf("value C at %#x counts %d members, %d at most are read", groupMembers+8, count, maxMembers)
	}
	members := c[groupData+offset : groupData+offset+length]
	for i := range count {
		if len(members) < sidHeader || members[1] > maxSubAuthorities {
			return false, fmt.Errorf("value C: member %d of %d is not a SID", i+1, count)
		}
		n := sidHeader + 4*int(members[1])
		if len(members) < n {
			return false, fmt.Errorf("value C: member %d of %d is cut off", i+1, count)
		}
		if bytes.Equal(members[:n], sid) {
			return true, nil
		}
		members = members[n:]
	}
	return false, nil
}
