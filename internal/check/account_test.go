package check

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// at returns b with a number written over it.
func at(b []byte, offset int, n uint32) []byte {
	b = append([]byte(nil), b...)
	binary.LittleEndian.PutUint32(b[offset:], n)
	return b
}

func TestIsMember(t *testing.T) {
	two := groupValue(windows.Administrators, accountOf(500), accountOf(byolRID))
	first := groupData + int(binary.LittleEndian.Uint32(two[groupMembers:]))
	long := append([]byte(nil), two...)
	long[first+1] = 16 // sub-authorities
	for _, c := range []struct {
		name  string
		value []byte
		in    bool
		says  string // part of the error
	}{
		{"second of two", two, true, ""},
		{"not there", groupValue(windows.Administrators, accountOf(500)), false, ""},
		{"empty group", groupValue(windows.Administrators), false, ""},
		{"well-known member before", groupValue(windows.Administrators, []byte{1, 1, 0, 0, 0, 0, 0, 5, 4, 0, 0, 0}, accountOf(byolRID)), true, ""},
		{"same RID of another machine", groupValue(windows.Administrators, at(accountOf(byolRID), 12, 7)), false, ""},
		{"counted out", at(two, groupMembers+8, 1), false, ""},
		{"another group", groupValue(0x221, accountOf(byolRID)), false, "0x221"},
		{"short", two[:groupData-1], false, "header"},
		{"members beyond the end", at(two, groupMembers, 0xfffffff0), false, "beyond"},
		{"length beyond the end", at(two, groupMembers+4, uint32(len(two))), false, "beyond"},
		{"more counted than there", at(two, groupMembers+8, 4), true, ""},
		{"more counted than there, not found", at(groupValue(windows.Administrators, accountOf(500)), groupMembers+8, 2), false, "member 2 of 2 is not a SID"},
		{"absurd count", at(two, groupMembers+8, 10_001), false, "10000 at most"},
		{"SID of 16 sub-authorities", long, false, "member 1 of 2 is not a SID"},
		{"SID cut off", at(two, groupMembers+4, 28+20), false, "member 2 of 2 is cut off"},
	} {
		in, err := isMember(c.value, windows.Administrators, accountOf(byolRID))
		if in != c.in || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; want %v, %q", c.name, in, err, c.in, c.says)
		}
	}
}

func TestAccountFlags(t *testing.T) {
	f := at(make([]byte, 0x50), userRID, byolRID)
	f[userFlags], f[userFlags+1] = 0x11, 0x02
	if flags, err := windows.AccountFlags(f, byolRID); err != nil || flags != 0x211 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	if flags, err := windows.AccountFlags(f[:userFlags+2], byolRID); err != nil || flags != 0x211 {
		t.Errorf("a value that ends behind the flags: %#x, %v", flags, err)
	}
	if _, err := windows.AccountFlags(f[:userFlags+1], byolRID); err == nil {
		t.Error("a value that ends within the flags is read")
	}
	if _, err := windows.AccountFlags(f, byolRID+1); err == nil {
		t.Error("another account's value is read")
	}
}

func TestAccountSID(t *testing.T) {
	v := append(make([]byte, 0x40), machineSID...)
	if machine, err := windows.MachineSID(v); err != nil || string(machine.Account(byolRID)) != string(accountOf(byolRID)) {
		t.Errorf("SID %x, %v", machine, err)
	}
	if _, err := windows.MachineSID(v[:len(v)-1]); err == nil {
		t.Error("a value that ends in no SID is read")
	}
	if _, err := windows.MachineSID(v[len(v)-23:]); err == nil {
		t.Error("a value shorter than a SID is read")
	}
}

func TestValues(t *testing.T) {
	str := func(typ uint32, s string) windows.Value { return windows.Value{Type: typ, Data: utf16Bytes(s)} }
	odd := str(windows.RegSZ, "19041\x00")
	odd.Data = append(odd.Data, 0)
	long := windows.Value{Type: windows.RegSZ, Data: make([]byte, maxText+2)}
	for _, c := range []struct {
		name string
		err  error
		says string
	}{
		{"odd text", third(text(odd)), "odd length"},
		{"long text", third(text(long)), "65536 at most"},
		{"text of the greatest length", third(text(windows.Value{Type: windows.RegSZ, Data: long.Data[2:]})), ""},
		{"number as text", third(text(windows.Value{Type: windows.RegDWORD, Data: []byte{1, 0, 0, 0}})), "REG_DWORD, not REG_SZ"},
		{"text as number", third(number(str(windows.RegSZ, "1"))), "REG_SZ, not REG_DWORD"},
		{"long number", third(number(windows.Value{Type: windows.RegDWORD, Data: make([]byte, 5)})), "5 bytes"},
		{"QWORD", third(number(windows.Value{Type: windows.RegQWORD, Data: make([]byte, 8)})), "REG_QWORD"},
		{"odd type", third(texts(windows.Value{Type: 99})), "type 99"},
	} {
		if (c.err == nil) != (c.says == "") || c.err != nil && !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, c.err, c.says)
		}
	}
	if s, _, _ := text(str(windows.RegExpandSZ, "Enterprise\x00rest")); s != "Enterprise" {
		t.Errorf("text does not end at its NUL: %q", s)
	}
	if list, _, _ := texts(str(windows.RegMultiSZ, "a\x00b\x00\x00")); len(list) != 2 || list[1] != "b" {
		t.Errorf("texts %q", list)
	}
	for s, want := range map[string]bool{"1": true, "0": false, "": false, " 1 ": true, "00": false, "2": true} {
		if on, _, err := switchText(str(windows.RegSZ, s+"\x00")); on != want || err != nil {
			t.Errorf("AutoAdminLogon %q is %v, %v", s, on, err)
		}
	}
}

func third[A, B any](_ A, _ B, err error) error { return err }

// TestLimits: lists that no machine has are not held, and leave their checks open.
func TestLimits(t *testing.T) {
	m := fit(t)
	list := m.root.Make(unins)
	for i := range maxPrograms {
		list.Keys = append(list.Keys, &registry.Node{Name: fmt.Sprint(i)})
	}
	rep := Run(Collect(context.Background(), m), Options{})
	if f := find(t, rep, "OfficeInstalled"); f.Outcome != Unknown || !strings.Contains(f.Because, "more than the 20000") {
		t.Errorf("%d programs: %s, %s", maxPrograms+1, f.Outcome, f.Because)
	}
	m = fit(t)
	list = m.root.Make(unins)
	for i := range 500 {
		list.Keys = append(list.Keys, &registry.Node{Name: fmt.Sprint(i), Values: []windows.Value{registry.NewSZ("DisplayName", strings.Repeat("x", 20_000))}})
	}
	rep = Run(Collect(context.Background(), m), Options{})
	if f := find(t, rep, "OfficeInstalled"); f.Outcome != Unknown || !strings.Contains(f.Because, "more than 8 MiB") {
		t.Errorf("10 MB of names: %s, %s", f.Outcome, f.Because)
	}
	m = fit(t)
	list = m.root.Make(ifs)
	for i := range maxAdapters {
		list.Keys = append(list.Keys, &registry.Node{Name: fmt.Sprint(i)})
	}
	rep = Run(Collect(context.Background(), m), Options{})
	if f := find(t, rep, "DHCPDisabled"); f.Outcome != Unknown || !strings.Contains(f.Because, "more than the 2000") {
		t.Errorf("%d interfaces: %s, %s", maxAdapters+1, f.Outcome, f.Because)
	}
}
