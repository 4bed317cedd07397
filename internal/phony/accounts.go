package phony

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// Account is a local account of the machine: a line of the accounts section.
type Account struct {
	Name     string
	RID      uint32
	FullName string
	Comment  string
	Disabled bool
	Locked   bool
	// NeverExpires and NoPassword: the password never expires, or need not be there.
	NeverExpires, NoPassword bool
	// Groups are the local groups (aliases of BUILTIN) that it is a member of: "Administrators", "Users", "Guests".
	Groups []string
}

// Flags of an account, at 0x38 of its value F.
const (
	accountDisabled     = 0x0001
	accountNoPassword   = 0x0004
	accountNormal       = 0x0010
	accountNeverExpires = 0x0200
	accountLocked       = 0x0400
)

type builtinGroup struct {
	rid           uint32
	name, comment string
}

// builtinGroups are the aliases of BUILTIN that a phony machine has.
var builtinGroups = []builtinGroup{
	{0x220, "Administrators", "Administrators have complete and unrestricted access to the computer/domain"},
	{0x221, "Users", "Users are prevented from making accidental or intentional system-wide changes and can run most applications"},
	{0x222, "Guests", "Guests have the same access as members of the Users group by default, except for the Guest account which is further restricted"},
	{0x245, "System Managed Accounts Group", "Members of this group are managed by the system."},
}

// parseAccount reads a line such as
//
//	WorkSpaces_BYOL = rid 1001 never-expires in Administrators in Users comment "..."
func parseAccount(name, text string) (Account, error) {
	a := Account{Name: name}
	words, err := split(text)
	if err != nil {
		return a, err
	}
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		argument := func() (string, error) {
			if len(words) == 0 {
				return "", fmt.Errorf("%s needs a value", w)
			}
			arg := words[0]
			words = words[1:]
			return arg, nil
		}
		switch w {
		case "rid":
			arg, err := argument()
			if err != nil {
				return a, err
			}
			rid, err := strconv.ParseUint(arg, 10, 32)
			if err != nil {
				return a, fmt.Errorf("rid: %w", err)
			}
			a.RID = uint32(rid)
		case "name":
			if a.FullName, err = argument(); err != nil {
				return a, err
			}
		case "comment":
			if a.Comment, err = argument(); err != nil {
				return a, err
			}
		case "in":
			arg, err := argument()
			if err != nil {
				return a, err
			}
			if !slices.ContainsFunc(builtinGroups, func(g builtinGroup) bool { return g.name == arg }) {
				return a, fmt.Errorf("no local group %q", arg)
			}
			a.Groups = append(a.Groups, arg)
		case "disabled":
			a.Disabled = true
		case "locked":
			a.Locked = true
		case "never-expires":
			a.NeverExpires = true
		case "no-password":
			a.NoPassword = true
		default:
			return a, fmt.Errorf("an account has no %q", w)
		}
	}
	if a.RID == 0 {
		return a, fmt.Errorf("account %s has no rid", name)
	}
	return a, nil
}

// sid is a security identifier in its binary form.
type sid []byte

func makeSID(authority byte, sub ...uint32) sid {
	s := sid{1, byte(len(sub)), 0, 0, 0, 0, 0, authority}
	for _, v := range sub {
		s = le.AppendUint32(s, v)
	}
	return s
}

// parseSID reads "S-1-5-21-1-2-3".
func parseSID(text string) (sid, error) {
	parts := strings.Split(text, "-")
	if len(parts) < 4 || len(parts) > 18 || parts[0] != "S" || parts[1] != "1" {
		return nil, fmt.Errorf("%q is not a SID", text)
	}
	authority, err := strconv.ParseUint(parts[2], 10, 8)
	if err != nil {
		return nil, fmt.Errorf("SID %q: %w", text, err)
	}
	var sub []uint32
	for _, p := range parts[3:] {
		v, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("SID %q: %w", text, err)
		}
		sub = append(sub, uint32(v))
	}
	return makeSID(byte(authority), sub...), nil
}

func (s sid) rid(rid uint32) sid {
	t := slices.Clone(s)
	t[1]++
	return le.AppendUint32(t, rid)
}

var (
	everyone       = makeSID(1, 0)
	anonymous      = makeSID(5, 7)
	administrators = makeSID(5, 32, 0x220)
)

// access is one entry of an access control list.
type access struct {
	typ, flags byte
	mask       uint32
	who        sid
}

func acl(entries ...access) []byte {
	b := []byte{2, 0, 0, 0, byte(len(entries)), 0, 0, 0}
	for _, e := range entries {
		b = append(b, e.typ, e.flags)
		b = le.AppendUint16(b, uint16(8+len(e.who)))
		b = le.AppendUint32(b, e.mask)
		b = append(b, e.who...)
	}
	le.PutUint16(b[2:], uint16(len(b)))
	return b
}

// descriptor is a self-relative security descriptor of the administrators with an audit list, as SAM objects have.
func descriptor(auditMask uint32, allow ...access) []byte {
	audit := acl(access{2, 0xC0, auditMask, everyone}, access{2, 0xC0, 0x1FFFFF, anonymous})
	list := acl(allow...)
	b := []byte{1, 0, 0x14, 0x80}
	owner := 20 + len(audit) + len(list)
	for _, at := range []int{owner, owner + len(administrators), 20, 20 + len(audit)} {
		b = le.AppendUint32(b, uint32(at))
	}
	return slices.Concat(b, audit, list, administrators, administrators)
}

// table is a SAM record of variable parts: offset, length and a number for each, then the parts, each on a multiple of four.
type table struct {
	head, parts []byte
}

func (t *table) add(part []byte, number uint32) {
	t.head = le.AppendUint32(t.head, uint32(len(t.parts)))
	t.head = le.AppendUint32(t.head, uint32(len(part)))
	t.head = le.AppendUint32(t.head, number)
	t.parts = append(t.parts, part...)
	for len(t.parts)%4 != 0 {
		t.parts = append(t.parts, 0)
	}
}

func (t *table) bytes() []byte { return append(t.head, t.parts...) }

// samRevision is the number beside a security descriptor and in front of F: record version 2, object version 1.
const samRevision = 0x10002

// addAccounts writes the machine's local accounts and groups into its SAM hive, as Windows lays them out: values F (fixed
// size) and V (variable) of each account, C of each group, and the tables of names and members whose counts and ids are
// kept in the type field of a default value.
func addAccounts(hive *registry.Node, machine sid, accounts []Account, installed time.Time) {
	top := hive.Make(`SAM`)
	number := func(k *registry.Node, typ uint32, data []byte) { k.Set(windows.Value{Type: typ, Data: data}) }
	binary := func(k *registry.Node, name string, data []byte) {
		k.Set(windows.Value{Name: name, Type: windows.RegBinary, Data: data})
	}
	now := filetimeOf(installed)

	domain := top.Make(`Domains\Account`)
	next := uint32(1000)
	for _, a := range accounts {
		next = max(next, a.RID+1)
	}
	binary(domain, "F", domainFixed(now, next))
	var v table
	v.add(descriptor(0x05047A, access{0, 0, 0x20385, everyone}, access{0, 0, 0x20385, makeSID(5, 32, 0x221)},
		access{0, 0, 0xF07DF, administrators}, access{0, 0, 0x203D5, makeSID(5, 32, 0x224)}), samRevision)
	v.add(machine, 0)
	v.add(nil, 0)
	v.add(nil, 0)
	binary(domain, "V", v.bytes())
	number(domain.Make(`Aliases\Names`), windows.RegNone, nil)
	number(domain.Make(`Aliases\Members`), windows.RegNone, nil)
	number(domain.Make(`Users`), uint32(len(accounts)), nil)
	number(domain.Make(`Users\Names`), windows.RegNone, nil)
	members := map[string][]Account{}
	for _, a := range accounts {
		k := domain.Make(fmt.Sprintf(`Users\%08X`, a.RID))
		binary(k, "F", a.fixed(now))
		binary(k, "V", a.variable(machine))
		number(domain.Make(`Users\Names\`+a.Name), a.RID, nil)
		for _, g := range a.Groups {
			members[g] = append(members[g], a)
		}
	}

	builtin := top.Make(`Domains\Builtin`)
	binary(builtin, "F", domainFixed(now, 1000))
	number(builtin.Make(`Aliases\Names`), windows.RegNone, nil)
	groupsOf := map[uint32][]byte{}
	for _, g := range builtinGroups {
		var list []byte
		for _, a := range members[g.name] {
			list = append(list, machine.rid(a.RID)...)
			groupsOf[a.RID] = le.AppendUint32(groupsOf[a.RID], g.rid)
		}
		t := table{head: le.AppendUint32(nil, g.rid)}
		t.add(descriptor(0x050013, access{0, 0, 0x2000C, everyone}, access{0, 0, 0xF001F, administrators}), samRevision)
		t.add(utf16Bytes(g.name), 0)
		t.add(utf16Bytes(g.comment), 0)
		t.add(list, uint32(len(members[g.name])))
		binary(builtin.Make(fmt.Sprintf(`Aliases\%08X`, g.rid)), "C", t.bytes())
		number(builtin.Make(`Aliases\Names\`+g.name), g.rid, nil)
	}
	number(builtin.Make(`Aliases`), uint32(len(builtinGroups)), nil)
	if len(groupsOf) > 0 {
		k := builtin.Make(`Aliases\Members\` + machine.String())
		number(k, uint32(len(groupsOf)), nil)
		for _, a := range accounts {
			if list := groupsOf[a.RID]; list != nil {
				number(k.Make(fmt.Sprintf("%08X", a.RID)), uint32(len(list)/4), list)
			}
		}
	}
}

func (s sid) String() string {
	b := "S-1-" + strconv.Itoa(int(s[7]))
	for i := range int(s[1]) {
		b += "-" + strconv.FormatUint(uint64(le.Uint32(s[8+4*i:])), 10)
	}
	return b
}

// domainFixed is value F of a domain: revision, when it was made, its password policy, and at 0x48 the next RID.
func domainFixed(now uint64, next uint32) []byte {
	const never, halfHour = 1 << 63, ^uint64(18000000000 - 1) // -30 minutes in units of 100 ns
	b := make([]byte, 0xF0)
	le.PutUint32(b, samRevision)
	le.PutUint64(b[0x08:], now)
	le.PutUint64(b[0x10:], 1)                  // modifications
	le.PutUint64(b[0x18:], ^uint64(36288e9-1)) // passwords may be 42 days old
	le.PutUint64(b[0x28:], never)
	le.PutUint64(b[0x30:], halfHour) // locked out for
	le.PutUint64(b[0x38:], halfHour)
	le.PutUint32(b[0x48:], next)
	b[0x60], b[0x64], b[0x68] = 1, 3, 1
	return b
}

func (a *Account) flags() uint16 {
	f := uint16(accountNormal)
	for _, x := range []struct {
		on  bool
		bit uint16
	}{{a.Disabled, accountDisabled}, {a.NoPassword, accountNoPassword}, {a.NeverExpires, accountNeverExpires}, {a.Locked, accountLocked}} {
		if x.on {
			f |= x.bit
		}
	}
	return f
}

// fixed is value F of an account.
//
//	0x00 revision | 0x08 last logon | 0x18 password set | 0x20 expires | 0x28 last bad password
//	0x30 RID | 0x34 primary group | 0x38 flags | 0x3A country, code page | 0x40 bad passwords | 0x42 logons
func (a *Account) fixed(now uint64) []byte {
	const usersGroup = 0x201
	b := make([]byte, 80)
	le.PutUint32(b, samRevision)
	if !a.Disabled {
		le.PutUint64(b[0x18:], now)
	}
	le.PutUint64(b[0x20:], 1<<63-1)
	le.PutUint32(b[0x30:], a.RID)
	le.PutUint32(b[0x34:], usersGroup)
	le.PutUint16(b[0x38:], a.flags())
	return b
}

// variable is value V of an account: 17 parts. No phony account has a password hash: the parts hold only their headers.
func (a *Account) variable(machine sid) []byte {
	var t table
	t.add(descriptor(0x050044, access{0, 0, 0x2031B, everyone}, access{0, 0, 0xF07FF, administrators},
		access{0, 0, 0x20044, machine.rid(a.RID)}), samRevision)
	t.add(utf16Bytes(a.Name), 0)
	t.add(utf16Bytes(a.FullName), 0)
	t.add(utf16Bytes(a.Comment), 0)
	for range 8 { // user comment, parameters, home, drive, script, profile, workstations, logon hours
		t.add(nil, 0)
	}
	t.add([]byte{1, 2, 0, 0, 7, 0, 0, 0}, 1)
	for range 4 { // LM hash, NT hash, histories of both: none
		t.add([]byte{3, 0, 1, 0}, 0)
	}
	return t.bytes()
}

// filetimeOf is t as Windows keeps it: 100 ns since 1601.
func filetimeOf(t time.Time) uint64 {
	return uint64(t.Unix()+11644473600)*1e7 + uint64(t.Nanosecond()/100)
}
