package registry

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"berth/internal/windows"
)

// hivexNode is what hivexml, the reference, prints of a key.
type hivexNode struct {
	Name   string       `xml:"name,attr"`
	MTime  string       `xml:"mtime"`
	Values []hivexValue `xml:"value"`
	Nodes  []hivexNode  `xml:"node"`
}

type hivexValue struct {
	Type     string   `xml:"type,attr"`
	Encoding string   `xml:"encoding,attr"`
	Key      string   `xml:"key,attr"`
	Value    string   `xml:"value,attr"`
	Strings  []string `xml:"string"`
	Runs     []struct {
		Offset int `xml:"file_offset,attr"`
		Len    int `xml:"len,attr"`
	} `xml:"byte_runs>byte_run"`
}

// hivexml reads a hive file with hivex.
func hivexml(t testing.TB, file string) hivexNode {
	t.Helper()
	out, err := exec.Command("hivexml", file).Output()
	if err != nil {
		t.Fatalf("hivexml %s: %v", filepath.Base(file), err)
	}
	var x struct {
		Node hivexNode `xml:"node"`
	}
	if err := xml.Unmarshal(out, &x); err != nil {
		t.Fatalf("hivexml %s: %v", filepath.Base(file), err)
	}
	return x.Node
}

// hivexTypes are hivexml's words for the types; any other is "unknown".
var hivexTypes = []string{"none", "string", "expand", "binary", "int32", "int32", "link", "string-list",
	"resource-list", "resource-description", "resource-requirements", "int64"}

// differs tells how hivex' reading of a value is not v; "" when it is. Where hivexml shows strings decoded, the raw bytes are
// compared in the file, at the place that it tells.
func (x hivexValue) differs(v windows.Value, file []byte) string {
	if x.Key != v.Name {
		return fmt.Sprintf("hivex names it %q", x.Key)
	}
	typ := "unknown"
	if v.Type < uint32(len(hivexTypes)) {
		typ = hivexTypes[v.Type]
	}
	if x.Encoding == "base64" {
		raw, err := base64.StdEncoding.DecodeString(x.Value)
		if err != nil || string(raw) != string(v.Data) {
			return fmt.Sprintf("%x (%v), hivex %x", v.Data, err, raw)
		}
		// hivexml falls back to base64 for what it cannot decode, and keeps the type's word.
		if x.Type != typ && x.Type != "binary" {
			return fmt.Sprintf("type %d, hivex says %s", v.Type, x.Type)
		}
		return ""
	}
	if x.Type != typ {
		return fmt.Sprintf("type %d, hivex says %s", v.Type, x.Type)
	}
	switch x.Type {
	case "int32", "int64":
		size := map[string]int{"int32": 4, "int64": 8}[x.Type]
		n, err := strconv.ParseInt(x.Value, 10, 64)
		if len(v.Data) == 0 && n == -1 {
			return "" // hivexml's word for a number without data
		}
		if err != nil || len(v.Data) != size {
			return fmt.Sprintf("%d bytes, hivex %q", len(v.Data), x.Value)
		}
		want := binary.LittleEndian.AppendUint64(nil, uint64(n))[:size]
		if v.Type == 5 {
			want = binary.BigEndian.AppendUint32(nil, uint32(n))
		}
		if string(want) != string(v.Data) {
			return fmt.Sprintf("%x, hivex %x", v.Data, want)
		}
		return ""
	}
	if len(x.Runs) == 2 && len(v.Data) > 4 {
		if r := x.Runs[1]; string(file[r.Offset+4:r.Offset+r.Len]) != string(v.Data) {
			return fmt.Sprintf("%x, in the file %x", v.Data, file[r.Offset+4:r.Offset+r.Len])
		}
		return ""
	}
	text := strings.TrimRight(decodeUTF16(v.Data), "\x00")
	if want := x.Value + strings.TrimRight(strings.Join(x.Strings, "\x00"), "\x00"); text != want {
		return fmt.Sprintf("%q, hivex %q", text, want)
	}
	return ""
}

// compareTree holds a tree against hivex' reading of the hive that was made from it. Order matters: it is what Windows searches by.
func compareTree(t *testing.T, path string, n *Node, x hivexNode, file []byte) {
	t.Helper()
	if len(n.Values) != len(x.Values) {
		t.Fatalf("%s: %d values, hivex reads %d", path, len(n.Values), len(x.Values))
	}
	for i, v := range n.Values {
		if d := x.Values[i].differs(v, file); d != "" {
			t.Errorf("%s: value %q: %s", path, v.Name, d)
		}
	}
	if len(n.Keys) != len(x.Nodes) {
		t.Fatalf("%s: %d keys, hivex reads %d", path, len(n.Keys), len(x.Nodes))
	}
	for _, y := range x.Nodes {
		c := n.Key(y.Name)
		if c == nil || c.Name != y.Name {
			t.Fatalf("%s: hivex reads a key %q", path, y.Name)
		}
		compareTree(t, path+`\`+y.Name, c, y, file)
	}
}

// compareTimes holds the times of a hive's keys against hivex' reading of it, to the second.
func compareTimes(t *testing.T, path string, n *Node, x hivexNode) {
	t.Helper()
	if at := n.LastWrite.UTC().Format("2006-01-02T15:04:05Z"); x.MTime != "" && at != x.MTime {
		t.Errorf("%s: last written %s, hivex reads %s", path, at, x.MTime)
	}
	for _, y := range x.Nodes {
		compareTimes(t, path+`\`+y.Name, n.Key(y.Name), y)
	}
}
