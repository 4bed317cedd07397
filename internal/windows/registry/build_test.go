package registry

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/windows"
)

const machineText = `Windows Registry Editor Version 5.00

; a comment
[HKEY_LOCAL_MACHINE\SYSTEM\Select]
"Current"=dword:00000001

[SOFTWARE\Microsoft\Windows NT\CurrentVersion]
@="default \"quoted\" C:\\x"
"ProductName"="Windows 10 Pro" ; a comment \
"UBR"=dword:2d0
"Multi"=hex(7):61,00,00,00,\
  62,00,00,00,00,00
"Path"=hex(2):25,00,61,00,25,00,00,00
"Empty"=hex:
"One"=hex:01
"Two"=hex(0):01,02
"Three"=hex(0):01,02,3
"Q"=hex(b):01,02,03,04,05,06,07,08
"Gerät"="Größe"
"機械"="日本語 😀"

[SOFTWARE\ключ\Straße]

[HKEY_USERS\.DEFAULT\Control Panel]
@=""

[SAM\SAM\Domains\Account\Users\Names\Administrator]
@=hex(3e8):
`

var stamp = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// buildFile makes a hive file of n in a temporary folder.
func buildFile(t testing.TB, n *Node, opt BuildOptions) (file string, hive []byte) {
	t.Helper()
	hive, err := Build(n, opt)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "hive")
	if err := os.WriteFile(file, hive, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, hive
}

func TestBuildAsHivexReads(t *testing.T) {
	root, err := Parse(machineText)
	if err != nil {
		t.Fatal(err)
	}
	if len(root.Keys) != 4 {
		t.Fatalf("%d hives, want 4", len(root.Keys))
	}
	for _, n := range root.Keys {
		file, hive := buildFile(t, n, BuildOptions{LastWrite: stamp})
		x := hivexml(t, file)
		compareTree(t, n.Name, n, x, hive)
		if x.MTime != "2024-05-06T07:08:09Z" {
			t.Errorf("%s: last written %s", n.Name, x.MTime)
		}
	}
}

// Long data, long lists and full bins: every boundary of the layout.
func TestBuildSizes(t *testing.T) {
	root := &Node{Name: "SOFTWARE"}
	for _, n := range []int{0, 1, 2, 3, 4, 5, 4060, 4061, 4064, 4065, 16343, 16344, 16345, 16348, 2 * 16344, 2*16344 + 1, 1 << 20} {
		d := make([]byte, n)
		for i := range d {
			d[i] = byte(i*7 + i>>8)
		}
		root.Set(windows.Value{Name: fmt.Sprint(n), Type: windows.RegBinary, Data: d})
	}
	for _, n := range []int{1, leafEntries - 1, leafEntries, leafEntries + 1, 3000} {
		k := root.Make(fmt.Sprintf("list%d", n))
		for i := range n {
			// Not in order: Build sorts.
			k.Keys = append(k.Keys, &Node{Name: fmt.Sprintf("Key%d", (i*1009)%n)})
		}
	}
	file, hive := buildFile(t, root, BuildOptions{})
	compareTree(t, "", root, hivexml(t, file), hive)
	again, err := Build(root, BuildOptions{})
	if err != nil || !bytes.Equal(again, hive) {
		t.Errorf("the same tree gave another hive (%v)", err)
	}
}

func TestBuildRefuses(t *testing.T) {
	deep := &Node{Name: "X"}
	deep.Make(strings.Repeat(`a\`, maxDepth+1))
	for want, n := range map[string]*Node{
		"two keys":            {Keys: []*Node{{Name: "a"}, {Name: "A"}}},
		"two values":          {Values: []windows.Value{{Name: "é"}, {Name: "É"}}},
		"name is empty":       {Keys: []*Node{{}}},
		"backslash":           {Keys: []*Node{{Name: `a\b`}}},
		"256 characters":      {Keys: []*Node{{Name: strings.Repeat("x", 256)}}},
		"16384 characters":    {Values: []windows.Value{{Name: strings.Repeat("x", 16384)}}},
		"not UTF-8":           {Keys: []*Node{{Name: "\xff"}}},
		"512 keys deep":       deep,
		"ControlSet001":       {Name: "SYSTEM", Keys: []*Node{{Name: "CurrentControlSet"}}},
		"longer than 6710886": {Values: []windows.Value{{Data: make([]byte, maxValue+1)}}},
	} {
		if _, err := Build(n, BuildOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
