package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf16"

	"berth/internal/check/report"
	"berth/internal/image"
	"berth/internal/windows"
	"berth/internal/windows/offline"
	"berth/internal/windows/registry"
)

type regCmd struct {
	insideCmd
	Key       string `arg:"" help:"HKLM\\SYSTEM\\Select, HKLM\\SOFTWARE\\..., HKLM\\SAM, HKLM\\SECURITY, HKU\\.DEFAULT, HKU\\S-1-5-21-... (a user's), BCD; HKLM and the like may be left out. CurrentControlSet is the one that Windows runs with."`
	Value     string `arg:"" optional:"" help:"Only this value; @ is the default value."`
	Recursive bool   `short:"r" help:"Keys within the key, too."`
	Reg       bool   `help:"Print the key and all that is below it as regedit exports it (.reg, version 5.00)."`
	Output    string `help:"text or json: one object per key and line." enum:"text,json" default:"text" short:"o"`
}

// Help is shown by berth reg --help.
func (regCmd) Help() string {
	return `Prints a key of the registry inside an exported VM as "reg query" does in Windows: its values, and the names of the keys below. A hive that was not closed cleanly is read with its transaction logs applied in memory; when it is out of date or damaged, a note says so. HKU lists the users whose profiles Windows knows; below their SIDs are their own hives, as if they were signed in.

    berth reg win10.ova 'HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
    berth reg win10.ova 'SYSTEM\CurrentControlSet\Services\storahci' Start
    berth reg --reg win10.ova 'HKU\.DEFAULT\Control Panel' > panel.reg
    berth reg win10.ova HKU
    berth reg win10.ova 'HKU\S-1-5-21-1472583690-2846193057-3905172846-1001\Environment'
    berth reg -r -o json win10.ova BCD | jq -r .key

Exit codes: 0; 1 there is no such key or value; 2 it could not be read.`
}

func (c regCmd) Run(ctx context.Context) error {
	if c.Reg && c.Output == "json" {
		return errors.New("--reg and --output json: one of them")
	}
	sid, path, ofUsers, err := userKey(c.Key)
	var hive windows.Hive
	if err == nil && !ofUsers {
		if hive, path, err = registry.SplitKey(c.Key); err != nil {
			err = fmt.Errorf("%w; users' hives are below HKEY_USERS, which berth reg lists", err)
		}
	}
	if err != nil {
		return err
	}
	env, found, err := c.open()
	if err != nil {
		return err
	}
	defer func() { _ = env.Close() }() // only read
	s, err := c.system(found)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(tamed(os.Stdout))
	if ofUsers {
		defer func() { note(string(windows.Software), s.Hive(windows.Software)) }() // which tells of the profiles
		if sid == "" {
			return errors.Join(c.users(ctx, out, s), out.Flush())
		}
	}
	h := machineHive(s, hive)
	if ofUsers {
		if h, err = userHive(s, sid); err != nil {
			return absent(err)
		}
	}
	st := h.state()
	if errors.Is(st.Err, fs.ErrNotExist) {
		return fmt.Errorf("the hive %s is missing: %w", h.label, st.Err) // its keys are not surely absent
	}
	k, err := h.open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = notThere(fmt.Sprintf("the key %s does not exist; what there is of its path is %s", c.Key, h.name(h.deepest(path))))
	case err == nil:
		var p keyPrinter
		switch {
		case c.Output == "json":
			p = &jsonKeys{out}
		case c.Reg:
			p = &regKeys{w: out}
		default:
			p = &textKeys{out}
		}
		err = errors.Join(c.print(ctx, p, k, h.name(path)), out.Flush())
	}
	note(h.label, h.state())
	return absent(err)
}

// regHive is a hive that keys are printed of.
type regHive struct {
	label string                            // what it is called in notes
	name  func(path string) string          // regedit's name of a key
	open  func(string) (windows.Key, error) // opens a key by its path in the hive
	state func() windows.HiveState
}

// machineHive is a hive of the machine.
func machineHive(s *offline.System, hive windows.Hive) *regHive {
	return &regHive{
		label: string(hive),
		name:  func(path string) string { return registry.FullName(hive, path) },
		open:  func(path string) (windows.Key, error) { return s.Open(hive, path) },
		state: func() windows.HiveState { return s.Hive(hive) },
	}
}

// deepest is how much of the path to a key that is not there is there.
func (h *regHive) deepest(path string) string {
	for path != "" {
		path = path[:max(0, strings.LastIndexByte(path, '\\'))]
		if _, err := h.open(path); err == nil {
			break
		}
	}
	return path
}

// notThere says what surely is not there. It is fs.ErrNotExist.
type notThere string

func (e notThere) Error() string      { return string(e) }
func (notThere) Is(target error) bool { return target == fs.ErrNotExist }

// note tells how far a hive can be trusted.
func note(hive string, st windows.HiveState) {
	say := func(format string, a ...any) {
		fmt.Fprintf(os.Stderr, "berth: note: hive %s "+format+"\n", append([]any{image.Printable(hive)}, a...)...)
	}
	switch {
	case st.Err != nil:
	case st.Stale:
		say("may be out of date: %s", image.Printable(st.Why))
	case st.Dirty:
		say("was not closed cleanly; log entries taken into account: %d", st.Replayed)
	}
	if st.Damaged != "" {
		say("is damaged: %s", image.Printable(st.Damaged))
	}
}

// keyPrinter prints keys in one of the forms.
type keyPrinter interface {
	key(name string, lastWrite time.Time, values []windows.Value, subkeys []string) error
}

// print prints a key, and those below it where that is asked for. What can be read is printed; the first error is returned at the end.
func (c *regCmd) print(ctx context.Context, p keyPrinter, k windows.Key, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Value != "" {
		want := c.Value
		if want == "@" {
			want = ""
		}
		v, err := k.Value(want)
		if errors.Is(err, fs.ErrNotExist) {
			return notThere(fmt.Sprintf("the key %s has no value %s", name, c.Value))
		}
		if err != nil {
			return err
		}
		return p.key(name, k.LastWrite(), []windows.Value{v}, nil)
	}
	names, first := k.Values()
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	values := make([]windows.Value, 0, len(names))
	for _, n := range names {
		v, err := k.Value(n)
		if keep(err); err == nil {
			values = append(values, v)
		}
	}
	subkeys, err := k.Subkeys()
	keep(err)
	keep(p.key(name, k.LastWrite(), values, subkeys))
	if !c.Recursive && !c.Reg {
		return first
	}
	for _, n := range subkeys {
		sub, err := k.Open(n)
		if err == nil {
			err = c.print(ctx, p, sub, name+`\`+n)
		}
		keep(err)
		if ctx.Err() != nil {
			break
		}
	}
	return first
}

// regTypes are the value types' names (winnt.h).
var regTypes = []string{"REG_NONE", "REG_SZ", "REG_EXPAND_SZ", "REG_BINARY", "REG_DWORD", "REG_DWORD_BIG_ENDIAN", "REG_LINK", "REG_MULTI_SZ",
	"REG_RESOURCE_LIST", "REG_FULL_RESOURCE_DESCRIPTOR", "REG_RESOURCE_REQUIREMENTS_LIST", "REG_QWORD"}

func regType(t uint32) string {
	if t < uint32(len(regTypes)) {
		return regTypes[t]
	}
	return fmt.Sprintf("REG_TYPE_%#x", t)
}

// decoded is a value's data as a string, a list of strings, a number, or in hexadecimal digits where it is not what its type says.
func decoded(v windows.Value) any {
	switch {
	case (v.Type == windows.RegSZ || v.Type == windows.RegExpandSZ) && len(v.Data)%2 == 0:
		return strings.TrimSuffix(utf16Text(v.Data), "\x00")
	case v.Type == windows.RegMultiSZ && len(v.Data)%2 == 0:
		all := strings.TrimSuffix(strings.TrimSuffix(utf16Text(v.Data), "\x00"), "\x00")
		if all == "" {
			return []string{}
		}
		return strings.Split(all, "\x00")
	case v.Type == windows.RegDWORD && len(v.Data) == 4:
		return binary.LittleEndian.Uint32(v.Data)
	case v.Type == windows.RegQWORD && len(v.Data) == 8:
		return binary.LittleEndian.Uint64(v.Data)
	}
	return strings.ToUpper(hex.EncodeToString(v.Data))
}

func utf16Text(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}

// textKeys prints as reg query does.
type textKeys struct{ w io.Writer }

func (p *textKeys) key(name string, _ time.Time, values []windows.Value, subkeys []string) error {
	name = image.Printable(name)
	var b strings.Builder
	fmt.Fprintln(&b, name)
	for _, v := range values {
		n := image.Printable(v.Name)
		if v.Name == "" {
			n = "(Default)"
		}
		var data string
		switch d := decoded(v).(type) {
		case string:
			data = image.Printable(d)
		case []string:
			for i := range d {
				d[i] = image.Printable(d[i])
			}
			data = strings.Join(d, `\0`)
		default:
			data = fmt.Sprintf("%#x", d)
		}
		fmt.Fprintf(&b, "    %s    %s    %s\n", n, regType(v.Type), data)
	}
	fmt.Fprintln(&b)
	for _, s := range subkeys {
		fmt.Fprintf(&b, "%s\\%s\n", name, image.Printable(s))
	}
	if len(subkeys) > 0 {
		fmt.Fprintln(&b)
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// jsonKeys prints one object per key.
type jsonKeys struct{ w io.Writer }

// regKey is a key as berth reg -o json prints it.
type regKey struct {
	Key       string     `json:"key"`
	LastWrite time.Time  `json:"lastWrite"`
	Values    []regValue `json:"values"`
	Subkeys   []string   `json:"subkeys"`
}

// regValue is a value of a key. Data is a string, a list of strings, a number, or the bytes in hexadecimal digits.
type regValue struct {
	Name string `json:"name"` // "" is the default value
	Type string `json:"type"`
	Data any    `json:"data"`
}

func (p *jsonKeys) key(name string, lastWrite time.Time, values []windows.Value, subkeys []string) error {
	k := regKey{Key: name, LastWrite: lastWrite, Values: []regValue{}, Subkeys: subkeys}
	if k.Subkeys == nil {
		k.Subkeys = []string{}
	}
	for _, v := range values {
		k.Values = append(k.Values, regValue{v.Name, regType(v.Type), decoded(v)})
	}
	return report.WriteJSON(p.w, k, "")
}

// regKeys prints regedit's text.
type regKeys struct {
	w     io.Writer
	began bool
}

func (p *regKeys) key(name string, _ time.Time, values []windows.Value, _ []string) error {
	text, err := registry.FormatKey(name, values)
	if err != nil {
		return err
	}
	if !p.began {
		p.began = true
		text = registry.TextHeader + "\r\n" + text
	}
	_, err = io.WriteString(p.w, text)
	return err
}
