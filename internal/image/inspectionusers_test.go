package image

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

func TestMembersRefuses(t *testing.T) {
	machine := []byte{1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}
	sid := func(rid byte) []byte {
		b := append(bytes.Clone(machine), rid, 0, 0, 0)
		b[1] = 5
		return b
	}
	group := func(offset, length uint32, data []byte) []byte {
		b := groupHead(3)
		b[groupMembersAt], b[groupMembersAt+4] = byte(offset), byte(length)
		b[groupMembersAt+3], b[groupMembersAt+7] = byte(offset>>24), byte(length>>24)
		return append(b, data...)
	}
	everyone := []byte{1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}
	data := slices.Concat(everyone, sid(9), sid(200))
	got, err := members(group(0, uint32(len(data)), data), machine)
	if err != nil || len(got) != 2 || !got[9] || !got[200] {
		t.Errorf("%v, %v", got, err)
	}
	for name, c := range map[string][]byte{
		"short": make([]byte, 10), "beyond": group(4, uint32(len(data)), data), "huge": group(0xff000000, 0xff000000, data),
		"cut": group(0, uint32(len(data))-1, data), "many": group(0, 12, append([]byte{1, 200}, data...)),
	} {
		if got, err := members(c, machine); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Where a local group has its members' offset, and what that counts from; see internal/windows/sam.go.
const groupMembersAt, groupDataAt = 0x28, 0x34

// groupHead begins the value C of the group Administrators, with a count of members.
func groupHead(members byte) []byte {
	b := make([]byte, groupDataAt)
	b[0], b[1], b[groupMembersAt+8] = 0x20, 2, members
	return b
}

// FuzzMembers: a local group of a stranger's machine never makes us panic, and every RID that is told is in it.
func FuzzMembers(f *testing.F) {
	machine := []byte{1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}
	sid := append(bytes.Clone(machine), 0xf4, 1, 0, 0)
	sid[1] = 5
	head := groupHead(1)
	head[groupMembersAt+4] = byte(len(sid))
	f.Add(append(bytes.Clone(head), sid...))
	f.Add(head[:groupDataAt-1])
	head[groupMembersAt+3] = 0xff
	f.Add(append(bytes.Clone(head), sid...))
	f.Fuzz(func(t *testing.T, c []byte) {
		rids, err := members(c, machine)
		if err != nil && rids != nil {
			t.Error("an error and an answer")
		}
		for rid := range rids {
			if !bytes.Contains(c, binary.LittleEndian.AppendUint32(bytes.Clone(sid[:24]), rid)) {
				t.Errorf("RID %d is not in the group", rid)
			}
		}
	})
}
