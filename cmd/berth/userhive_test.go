package main

import "testing"

func TestUserKey(t *testing.T) {
	for in, want := range map[string]struct {
		sid, path string
		ok        bool
	}{
		"HKU": {"", "", true}, `\HKEY_USERS\`: {"", "", true}, `hku\S-1-5-18`: {"S-1-5-18", "", true}, `HKU\s-1-5-20\A b\C\`: {"s-1-5-20", `A b\C`, true},
		`HKU\.default\x`: {}, `HKLM\SOFTWARE`: {}, `HKUX\x`: {}, "": {},
	} {
		if sid, path, ok, err := userKey(in); sid != want.sid || path != want.path || ok != want.ok || err != nil {
			t.Errorf("%s: %q %q %v %v", in, sid, path, ok, err)
		}
	}
	if _, _, _, err := userKey(`HKU\S-1-5-18\a\\b`); err == nil {
		t.Error("a key without a name")
	}
}
