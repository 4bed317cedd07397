package check

import (
	"testing"

	"berth/internal/windows"
)

const (
	joined = `[SECURITY\Policy\PolPrDmS]` + "\n" + `@=hex(0):01,04,00,00,00,00,00,05,15,00,00,00,b1,02,7a,11,c4,94,31,57,8d,20,be,40` + "\n"
	corp   = `[SECURITY\Policy\PolPrDmN]` + "\n" + `@=hex(0):08,00,0a,00,08,00,00,00,43,00,4f,00,52,00,50,00,00,00` + "\n"
	cloud  = `[SYSTEM\ControlSet001\Control\CloudDomainJoin\JoinInfo`
)

var membershipCases = []testCase{
	{"workgroup", reg(``), Options{}, "DomainJoined", Pass, "no SID"},
	{"joined", reg(joined + corp), Options{}, "DomainJoined", Fail, "a member of CORP"},
	{"joined, says the SID", reg(joined + corp), Options{}, "DomainJoined", Fail, "S-1-5-21-293208753-1462867140-1086201997"},
	{"joined, name lost", reg(joined + `[SECURITY\Policy\PolPrDmN]` + "\n" + `@=hex(0):ff,ff,00,00,08,00,00,00`), Options{}, "DomainJoined", Fail, "whose name cannot be read"},
	{"a SID that is none", reg(`[SECURITY\Policy\PolPrDmS]` + "\n" + `@=hex(0):02,04,00,00`), Options{}, "DomainJoined", Unknown, "no SID"},
	{"SECURITY unread", broken(`SECURITY\Policy\PolPrDmS`), Options{}, "DomainJoined", Unknown, "bad cell"},
	{"SECURITY missing", gone(`SECURITY`), Options{}, "DomainJoined", Unknown, "the SECURITY hive is missing"},
	{"no primary domain", gone(`SECURITY\Policy\PolPrDmS`), Options{}, "DomainJoined", Unknown, "missing"},

	{"never joined to Entra ID", reg(``), Options{}, "AzureDomainJoined", Pass, "JoinInfo is absent"},
	{"left Entra ID", reg(cloud + "]"), Options{}, "AzureDomainJoined", Pass, "JoinInfo: 0"},
	{"joined to Entra ID", reg(cloud + `\5F3C1E7A]` + "\n" + `"TenantId"="x"`), Options{}, "AzureDomainJoined", Fail, ""},
	{"Entra ID unread", broken(`SYSTEM\ControlSet001\Control\CloudDomainJoin`), Options{}, "AzureDomainJoined", Unknown, "bad cell"},
}

func TestSIDText(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{[]byte{1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0}, "S-1-5-18"},
		{[]byte{1, 0, 0, 0, 0, 1, 0, 0}, "S-1-65536"},
		{[]byte{1, 2, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0}, ""},
		{[]byte{1, 16, 0, 0, 0, 0, 0, 5}, ""},
		{[]byte{2, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0}, ""},
		{nil, ""},
	} {
		if got, err := windows.SIDText(c.b); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%x is %q, %v; want %q", c.b, got, err, c.want)
		}
	}
}

func TestCountedText(t *testing.T) {
	for _, c := range []struct {
		b    string
		want string
		ok   bool
	}{
		{"\x04\x00\x06\x00\x08\x00\x00\x00A\x00B\x00\x00\x00", "AB", true},
		{"\x00\x00\x02\x00\x08\x00\x00\x00", "", true},
		{"\x04\x00\x04\x00\x0a\x00\x00\x00A\x00B\x00", "", false},
		{"\x04\x00\x04\x00\x04\x00\x00\x00A\x00B\x00", "", false},
		{"\x04\x00\x04\x00\xff\xff\xff\xffA\x00B\x00", "", false},
		{"\x03\x00\x04\x00\x08\x00\x00\x00A\x00B\x00", "", false},
		{"\x04\x00", "", false},
	} {
		if got, err := countedText([]byte(c.b)); got != c.want || (err == nil) != c.ok {
			t.Errorf("%x is %q, %v", c.b, got, err)
		}
	}
}
