package windows

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

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
	machineSID   = 24
	// maxMembers bounds the members of a local group that are looked at.
	maxMembers = 10_000
	// sidHeader is revision, count of sub-authorities and authority; each sub-authority takes 4 bytes, 15 at most.
	sidHeader, maxSubAuthorities = 8, 15
)

const (
	// AccountDisabled is the flag ACB_DISABLED.
	AccountDisabled = 0x0001
	// Administrators is the RID of the local group Administrators, the same in every language.
	Administrators = 0x220
	// AccountFlagsAt is where AccountFlags reads, in bytes.
	AccountFlagsAt = userFlags
)

// machineSIDPrefix begins every machine's SID: revision 1, four sub-authorities, authority 5, first of them 21.
var machineSIDPrefix = []byte{1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0}

// SID is a security identifier as Windows stores it.
type SID []byte

// Account is the SID of a machine's account: the machine's own and one more sub-authority, the RID.
func (s SID) Account(rid uint32) SID {
	a := bytes.Clone(s)
	a[1]++
	return binary.LittleEndian.AppendUint32(a, rid)
}

// RID is the account's where it is of that machine.
func (s SID) RID(machine SID) (rid uint32, ok bool) {
	if len(s) != len(machine)+4 {
		return 0, false
	}
	rid = binary.LittleEndian.Uint32(s[len(machine):])
	return rid, bytes.Equal(s, machine.Account(rid))
}

// SIDText is a security identifier as people write it, "S-1-5-21-1-2-3"; an error where the bytes are none.
func SIDText(b []byte) (string, error) {
	if len(b) < sidHeader || b[0] != 1 || b[1] > maxSubAuthorities || len(b) < sidHeader+4*int(b[1]) {
		return "", fmt.Errorf("%d bytes that are no SID", len(b))
	}
	var authority uint64
	for _, c := range b[2:sidHeader] {
		authority = authority<<8 | uint64(c)
	}
	text := fmt.Sprintf("S-1-%d", authority)
	for i := range int(b[1]) {
		text += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(b[sidHeader+4*i:]))
	}
	return text, nil
}

// AccountFlags reads an account's control flags (ACB_*) from the value F of its key, which must name its RID.
func AccountFlags(f []byte, rid uint32) (uint16, error) {
	if len(f) < userFlags+2 {
		return 0, fmt.Errorf("value F has %d bytes, the flags are at %#x", len(f), userFlags)
	}
	if got := binary.LittleEndian.Uint32(f[userRID:]); got != rid {
		return 0, fmt.Errorf("value F at %#x names RID %d, the account is %d", userRID, got, rid)
	}
	return binary.LittleEndian.Uint16(f[userFlags:]), nil
}

// MachineSID reads the machine's SID from the value V of SAM\Domains\Account.
func MachineSID(v []byte) (SID, error) {
	if len(v) < machineSID {
		return nil, fmt.Errorf("value V has %d bytes, the machine's SID alone takes %d", len(v), machineSID)
	}
	sid := bytes.Clone(v[len(v)-machineSID:])
	if !bytes.HasPrefix(sid, machineSIDPrefix) {
		return nil, fmt.Errorf("value V does not end in a machine's SID (S-1-5-21-...)")
	}
	return sid, nil
}

// GroupMembers reads the members of a local group from the value C of its key, which must name its RID. With an error it returns those before
// what could not be read.
func GroupMembers(c []byte, group uint32) ([]SID, error) {
	if len(c) < groupData {
		return nil, fmt.Errorf("value C has %d bytes, its header alone takes %#x", len(c), groupData)
	}
	if got := binary.LittleEndian.Uint32(c); got != group {
		return nil, fmt.Errorf("value C at 0 names group %#x, not %#x", got, group)
	}
	offset := uint64(binary.LittleEndian.Uint32(c[groupMembers:]))
	length := uint64(binary.LittleEndian.Uint32(c[groupMembers+4:]))
	count := binary.LittleEndian.Uint32(c[groupMembers+8:])
	if groupData+offset+length > uint64(len(c)) {
		return nil, fmt.Errorf("value C at %#x puts its members at %#x, %d bytes, beyond its %d bytes", groupMembers, groupData+offset, length, len(c))
	}
	if count > maxMembers {
		return nil, fmt.Errorf("value C at %#x counts %d members, %d at most are read", groupMembers+8, count, maxMembers)
	}
	var list []SID
	members := c[groupData+offset : groupData+offset+length]
	for i := range count {
		if len(members) < sidHeader || members[1] > maxSubAuthorities {
			return list, fmt.Errorf("value C: member %d of %d is not a SID", i+1, count)
		}
		n := sidHeader + 4*int(members[1])
		if len(members) < n {
			return list, fmt.Errorf("value C: member %d of %d is cut off", i+1, count)
		}
		list = append(list, SID(members[:n:n]))
		members = members[n:]
	}
	return list, nil
}
