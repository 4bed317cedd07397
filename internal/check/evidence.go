package check

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"time"

	"berth/internal/windows"
)

// Evidence is one thing that was looked at: a registry value or key, a file, a structure on a disk, or an answer of the running
// Windows. What comes from the machine is escaped and bounded in it, so that every field can be shown.
type Evidence struct {
	// Text is the whole in one line for people: `SYSTEM\ControlSet001\Services\mountmgr\NoAutoMount = 1 (REG_DWORD)`.
	Text string `json:"text"`

	// Hive and Key name a registry key, Key below the hive's root with the control set in use ("ControlSet001"). Value names a
	// value in it, "(Default)" the nameless one; empty where the key itself is the evidence. The hive of a user is "NTUSER", and File tells whose.
	Hive  windows.Hive `json:"hive,omitempty"`
	Key   string       `json:"key,omitempty"`
	Value string       `json:"value,omitempty"`
	// Type is the value's ("REG_DWORD") and Data what it holds, or what of it matters; both empty where it is absent.
	Type string `json:"type,omitempty"`
	Data string `json:"data,omitempty"`
	// LastWrite is when the key was last written, in UTC; zero where there is no such key or the time makes no sense.
	LastWrite time.Time `json:"lastWrite,omitzero"`
	// HiveState says how far the hive can be trusted: "clean", "replayed from its logs (12 entries)", "stale: ...",
	// "damaged: ...", "missing", "unreadable: ...", or "in use" by a Windows that runs.
	HiveState string `json:"hiveState,omitempty"`

	// File is a path on C:, "C:/hiberfil.sys"; of a user's hive it is where that lies.
	File string `json:"file,omitempty"`

	// Disk is the disk ("disk 0"), Structure what was read of it ("MBR partition table", "$Bitmap"), Offset where that begins on
	// the virtual disk, in bytes; nil where it is not known.
	Disk      string `json:"disk,omitempty"`
	Structure string `json:"structure,omitempty"`
	Offset    *int64 `json:"offset,omitempty"`

	// Live is what a running Windows was asked: a WMI class, a command.
	Live string `json:"live,omitempty"`
}

// String is the evidence's text.
func (e Evidence) String() string { return e.Text }

// Detail says in one line for people when a registry key was last written and in what state its hive is, or where on a disk a
// structure begins; empty where there is nothing to say beyond Text.
func (e Evidence) Detail() string {
	var parts []string
	if !e.LastWrite.IsZero() {
		parts = append(parts, "key written "+e.LastWrite.Format("2006-01-02 15:04:05")+" UTC")
	}
	if e.HiveState != "" {
		parts = append(parts, "hive "+e.HiveState)
	}
	if e.Structure != "" && e.Offset != nil {
		parts = append(parts, e.Structure+" at byte "+decimal(*e.Offset))
	}
	return strings.Join(parts, ", ")
}

// UnmarshalJSON also takes a string for the text alone: reports that were kept before evidence had parts hold those.
func (e *Evidence) UnmarshalJSON(b []byte) error {
	type parts Evidence // without this method
	if len(b) > 0 && b[0] == '"' {
		*e = Evidence{}
		return json.Unmarshal(b, &e.Text)
	}
	return json.Unmarshal(b, (*parts)(e))
}

// said is evidence in words alone.
func said(text string) Evidence { return Evidence{Text: text} }

// inFile is a file on C:, name with forward slashes and without the drive.
func inFile(name string) Evidence {
	name = "C:/" + printable(name)
	return Evidence{Text: name, File: name}
}

// onDisk is a structure on a disk; its text is to be set with says. A negative offset is not known.
func onDisk(disk, structure string, offset int64) Evidence {
	e := Evidence{Text: disk, Disk: disk, Structure: structure}
	if offset >= 0 {
		e.Offset = &offset
	}
	return e
}

// asked is an answer of the running Windows.
func asked(what, text string) Evidence { return Evidence{Text: text, Live: what} }

// size is what the evidence takes in memory beside its fixed part, in bytes.
func (e Evidence) size() int {
	return len(e.Text) + len(e.Key) + len(e.Value) + len(e.Data)
}

// says replaces the text.
func (e Evidence) says(text string) Evidence {
	e.Text = text
	return e
}

// plus adds to the text.
func (e Evidence) plus(text string) Evidence {
	e.Text += text
	return e
}

// of notes when the key was last written.
func (e Evidence) of(k windows.Key) Evidence {
	// The years that JSON can tell; a FILETIME from a hostile hive reaches far beyond.
	if t := k.LastWrite().UTC(); t.Year() >= 1601 && t.Year() <= 9999 {
		e.LastWrite = t
	}
	return e
}

// below is a subkey of the key.
func (e Evidence) below(name string) Evidence {
	name = printable(name)
	e.Key += `\` + name
	e.Text += `\` + name
	e.LastWrite = time.Time{}
	return e
}

// value is a value of the key, whose data is not known yet.
func (e Evidence) value(name string) Evidence {
	if e.Value = printable(name); name == "" {
		e.Value = "(Default)"
	}
	e.Text += `\` + e.Value
	return e
}

// holds tells what the value holds.
func (e Evidence) holds(shown string, typ uint32) Evidence {
	e.Type, e.Data = typeName(typ), shown
	if inner, ok := strings.CutPrefix(shown, `"`); ok && strings.Index(inner, `"`) == len(inner)-1 {
		e.Data = inner[:len(inner)-1] // one text needs no quotes in a field of its own
	}
	return e.plus(" = " + shown + " (" + e.Type + ")")
}

// at is the evidence of a key, path below the hive's root.
func (r *reader) at(h windows.Hive, path string) Evidence {
	if rest, ok := strings.CutPrefix(path, currentControlSet+`\`); ok && h == windows.SystemHive && r.controlSet != "" {
		path = r.controlSet + `\` + rest
	}
	path = printable(path)
	e := Evidence{Text: string(h) + `\` + path, Hive: h, Key: path, HiveState: r.hiveState(h)}
	if r.file != "" {
		e.File = inFile(r.file).File
		e.Text = e.File + `\` + path
	}
	return e
}

// hiveState is Evidence.HiveState. What is damaged is found out by and by, so that the state is asked for each time; its text is kept.
func (r *reader) hiveState(h windows.Hive) string {
	st := r.sys.Hive(h)
	kept, ok := r.states[h]
	if ok && kept.damaged == st.Damaged && st.Err == nil {
		return kept.text
	}
	text := stateText(st)
	if r.running && st.Err == nil && !st.Stale && st.Damaged == "" {
		text = "in use"
	}
	if r.states == nil {
		r.states = map[windows.Hive]hiveText{}
	}
	r.states[h] = hiveText{st.Damaged, text}
	return text
}

// hiveText is a hive's state in words, and the damage that was known when it was made.
type hiveText struct{ damaged, text string }

func stateText(st windows.HiveState) string {
	switch {
	case errors.Is(st.Err, fs.ErrNotExist):
		return "missing"
	case st.Err != nil:
		return "unreadable: " + printable(st.Err.Error())
	}
	var text string
	switch {
	case st.Stale:
		text = "stale: " + staleWhy(st)
	case st.Dirty && st.Replayed > 0:
		text = "replayed from its logs (" + decimal(int64(st.Replayed)) + " entries)"
	case st.Dirty:
		text = "not closed cleanly, with nothing in its logs to replay"
	case st.Damaged == "":
		return "clean"
	}
	if st.Damaged == "" {
		return text
	}
	if text != "" {
		text += "; "
	}
	return text + "damaged: " + printable(st.Damaged)
}

// staleWhy says why a hive is out of date.
func staleWhy(st windows.HiveState) string {
	if st.Why == "" {
		return "it was not closed cleanly and its logs cannot be used"
	}
	return printable(st.Why)
}
