package registry

import (
	"reflect"
	"strings"
	"testing"

	"berth/internal/windows"
)

func TestParseValues(t *testing.T) {
	root, err := Parse(machineText)
	if err != nil {
		t.Fatal(err)
	}
	k := root.Key(`software\MICROSOFT\windows nt\currentversion`)
	if k == nil {
		t.Fatal("no CurrentVersion")
	}
	for name, want := range map[string]windows.Value{
		"":            {Type: windows.RegSZ, Data: encodeSZ(`default "quoted" C:\x`)},
		"productname": {Type: windows.RegSZ, Data: encodeSZ("Windows 10 Pro")},
		"UBR":         {Type: windows.RegDWORD, Data: []byte{0xd0, 2, 0, 0}},
		"Multi":       {Type: windows.RegMultiSZ, Data: []byte{'a', 0, 0, 0, 'b', 0, 0, 0, 0, 0}},
		"Empty":       {Type: windows.RegBinary},
		"Three":       {Type: windows.RegNone, Data: []byte{1, 2, 3}},
		"GERÄT":       {Type: windows.RegSZ, Data: encodeSZ("Größe")},
		"機械":          {Type: windows.RegSZ, Data: encodeSZ("日本語 😀")},
	} {
		v, ok := k.Value(name)
		if !ok || v.Type != want.Type || string(v.Data) != string(want.Data) {
			t.Errorf("%q: %v %v, want %v", name, ok, v, want)
		}
	}
	admin := root.Key(`SAM\SAM\Domains\Account\Users\Names\Administrator`)
	if v, ok := admin.Value(""); !ok || v.Type != 0x3e8 || len(v.Data) != 0 {
		t.Errorf("Administrator: %v %v", ok, v)
	}
	if root.Key(`DEFAULT\Control Panel`) == nil {
		t.Error("HKEY_USERS\\.DEFAULT is not the hive DEFAULT")
	}
}

func TestParseReplaces(t *testing.T) {
	root, err := Parse("[SYSTEM\\A]\n\"x\"=dword:1\n\"y\"=dword:2\n[HKLM\\system\\a]\n\"X\"=\"later\"\n")
	if err != nil {
		t.Fatal(err)
	}
	a := root.Key(`SYSTEM\a`)
	if v, _ := a.Value("x"); v.Type != windows.RegSZ || len(a.Values) != 2 || len(root.Keys) != 1 {
		t.Errorf("%+v", a)
	}
}

// A comment that ends in a backslash must not swallow the value after it.
func TestParseCommentIsNotContinued(t *testing.T) {
	root, err := Parse("[SYSTEM\\A]\n\"x\"=\"1\" ; see C:\\\n\"y\"=hex:01 ; or D:\\\n\"z\"=\"3\"\n; E:\\\n\"w\"=\"4\"")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(root.Key(`SYSTEM\A`).Values); n != 4 {
		t.Errorf("%d values, want 4", n)
	}
}

func TestParseUTF16(t *testing.T) {
	text := "\xff\xfe" + string(encodeUTF16(strings.ReplaceAll(machineText, "\n", "\r\n")))
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse(machineText)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("UTF-16 and UTF-8 differ")
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"[-SYSTEM\\A]":                          "line 1: [-SYSTEM\\A] removes a key",
		"[SYSTEM]\n\"a\"=-":                     `line 2: value "a": - removes a value`,
		"REGEDIT4\n":                            "line 1: REGEDIT4",
		"\n\"a\"=dword:1":                       "line 2: a value before",
		"[SYSTEM":                               "no closing bracket",
		"[SYSTEM] x":                            "after a key",
		"[]":                                    "name is empty",
		"[SYSTEM\\\\A]":                         "name is empty",
		"[SYSTEM\\A\\]":                         "ends in a backslash",
		"[HKEY_CURRENT_USER\\x]":                "in no hive",
		"[HKEY_LOCAL_MACHINE\\HARDWARE]":        "in no hive",
		"[HKEY_LOCAL_MACHINE\\SYSTEMS]":         "in no hive",
		"[S]\n\"a\"=dword:":                     "eight hexadecimal digits",
		"[S]\n\"a\"=dword:123456789":            "eight hexadecimal digits",
		"[S]\n\"a\"=hex:1,,2":                   "byte 1",
		"[S]\n\"a\"=hex:100":                    "byte 0",
		"[S]\n\"a\"=hex(g):1":                   "type",
		"[S]\n\"a\"=hex(123456789):1":           "type",
		"[S]\n\"a\"=hex:01,\\":                  "ends in a continued line",
		"[S]\n\"a\"=\"b":                        "quote is missing",
		"[S]\n\"a\"=\"C:\\x\"":                  "column 4: a backslash",
		"[S]\n\"a\"=\"b\" c":                    "after the string",
		"[S]\n\"a\" dword:1":                    "no =",
		"[S]\n\"a\"=qword:1":                    "no kind of data",
		"[S]\nname=1":                           "does not begin with a quote",
		"[S]\n\"a\"=\"\xff\"":                   "neither UTF-8",
		"\xff\xfea":                             "odd length",
		"[" + strings.Repeat("a\\", 600) + "a]": "512 keys deep",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: want %q, got %v", text, want, err)
		}
	}
}

func TestFormat(t *testing.T) {
	root, err := Parse(machineText)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Format(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\SYSTEM]\r\n\r\n[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]\r\n\"Current\"=dword:00000001\r\n",
		"@=\"default \\\"quoted\\\" C:\\\\x\"\r\n",
		"\"Multi\"=hex(7):61,00,00,00,62,00,00,00,00,00\r\n",
		"\r\n[HKEY_USERS\\.DEFAULT\\Control Panel]\r\n@=\"\"\r\n",
		"\r\n@=hex(3e8):\r\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	again, err := Parse(text)
	if err != nil || !reflect.DeepEqual(again, root) {
		t.Errorf("the text reads back differently (%v)\n%s", err, text)
	}
}

// regedit breaks hexadecimal data before column 80 and indents by two.
func TestFormatWraps(t *testing.T) {
	root := &Node{}
	root.Make("SYSTEM").Set(windows.Value{Name: "a", Type: windows.RegBinary, Data: make([]byte, 60)})
	text, err := Format(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(text, "\r\n") {
		if len(l) > wrapAt {
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
	if again, err := Parse(text); err != nil || !reflect.DeepEqual(again, root) {
		t.Errorf("reads back differently (%v)", err)
	}
}

// What quotes cannot hold is written as bytes, and what no text can hold is refused.
func TestFormatUnusual(t *testing.T) {
	for _, data := range []string{"", "a", "a\x00", "\x00\x00a\x00\x00\x00", "\x00\xd8\x00\x00", "\n\x00\x00\x00", "a\x00\x00\x00\x00\x00"} {
		root := &Node{}
		root.Make(`SYSTEM\k`).Set(windows.Value{Name: "v", Type: windows.RegSZ, Data: []byte(data)})
		text, err := Format(root)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := again.Key(`SYSTEM\k`).Value("v"); v.Type != windows.RegSZ || string(v.Data) != data {
			t.Errorf("%q came back as %q from\n%s", data, v.Data, text)
		}
	}
	for _, n := range []*Node{
		{Keys: []*Node{{Name: "a\nb"}}},
		{Keys: []*Node{{Name: "a", Values: []windows.Value{{Name: "a\r"}}}}},
		{Keys: []*Node{{Name: "a\\b"}}},
		{Values: []windows.Value{{Name: "a"}}},
	} {
		if text, err := Format(n); err == nil {
			t.Errorf("formatted as %q", text)
		}
	}
}

func FuzzReg(f *testing.F) {
	f.Add(machineText)
	f.Add("\xff\xfe" + string(encodeUTF16(machineText)))
	f.Add("[SYSTEM\\a]\n\"x\"=hex(7):\\\n\\\n61,00")
	f.Add("[system]\n\"a\"=dword:1\n[SYSTEM\\b]")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := Parse(text)
		if err != nil {
			return
		}
		out, err := Format(root)
		if err != nil {
			return
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if !reflect.DeepEqual(again, root) {
			t.Fatalf("reads back differently:\n%s", out)
		}
		for _, n := range root.Keys {
			if _, err := Build(n, BuildOptions{}); err != nil && !strings.Contains(err.Error(), "CurrentControlSet") && !strings.Contains(err.Error(), "deep") {
				t.Fatal(err)
			}
		}
	})
}

func TestSplitKey(t *testing.T) {
	for key, want := range map[string][2]string{
		`HKLM\SYSTEM`:                           {"SYSTEM", ""},
		`hklm\system\Select`:                    {"SYSTEM", "Select"},
		`HKEY_LOCAL_MACHINE\Software\Microsoft`: {"SOFTWARE", "Microsoft"},
		`\HKLM\SAM\SAM\`:                        {"SAM", "SAM"},
		`HKU\.DEFAULT\Control Panel`:            {"DEFAULT", "Control Panel"},
		`HKEY_USERS\.default`:                   {"DEFAULT", ""},
		`HKLM\BCD00000000\Objects`:              {"BCD", "Objects"},
		`BCD`:                                   {"BCD", ""},
		`security\Policy`:                       {"SECURITY", "Policy"},
		`SYSTEM\a]b`:                            {"SYSTEM", "a]b"},
	} {
		hive, path, err := SplitKey(key)
		if string(hive) != want[0] || path != want[1] || err != nil {
			t.Errorf("%s: %s, %q, %v", key, hive, path, err)
		}
		again, path2, err := SplitKey(FullName(hive, path))
		if again != hive || path2 != path || err != nil {
			t.Errorf("%s: its full name %s is %s, %q, %v", key, FullName(hive, path), again, path2, err)
		}
	}
	for _, key := range []string{"", `HKLM`, `HKCU\Software`, `HKLM\HARDWARE`, `Windows\System32`, `HKLM\SYSTEMX`, `SYSTEM\\Select`, "SYSTEM\\" + strings.Repeat("x", 300)} {
		if hive, path, err := SplitKey(key); err == nil {
			t.Errorf("%q: %s, %q", key, hive, path)
		}
	}
}

func TestFormatKey(t *testing.T) {
	values := []windows.Value{{Name: "a", Type: windows.RegDWORD, Data: []byte{1, 0, 0, 0}}}
	got, err := FormatKey(`HKEY_LOCAL_MACHINE\SYSTEM\Select`, values)
	if want := "\r\n[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]\r\n\"a\"=dword:00000001\r\n"; got != want || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	root, err := Parse(TextHeader + "\r\n" + got)
	if err != nil || root.Key(`SYSTEM\Select`) == nil {
		t.Error(err)
	}
	if _, err := FormatKey("SYSTEM\\line\nbreak", nil); err == nil {
		t.Error("a name that text cannot hold is written")
	}
}
