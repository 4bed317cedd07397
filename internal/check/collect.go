package check

import (
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"berth/internal/windows"
)

// Limits on what a stranger's disk may make us hold. A real machine stays far below them.
const (
	maxPrograms = 20_000
	maxAdapters = 2_000
	// kernelHead is how much of ntoskrnl.exe is read, in bytes: its PE header lies within the first page or two.
	kernelHead = 8 << 10
)

// Collect reads the facts. It never fails as a whole: what cannot be read is a fact that is not known, with the reason.
// A value that is surely absent means what Windows takes its absence for; a key that every Windows has and this one has not
// leaves its facts unknown, as does a hive that is stale, and absence in a hive that is damaged. When ctx ends, what was not
// read yet is not known.
func Collect(ctx context.Context, sys windows.System) *Facts {
	r := &reader{ctx: ctx, sys: sys}
	f := &Facts{}
	r.identity(f)
	r.software(f)
	r.account(f)
	r.settings(f)
	r.network(f)
	r.machine(f)
	return f
}

// reader asks one System.
type reader struct {
	ctx context.Context
	sys windows.System
	// controlSet is what people see instead of "CurrentControlSet".
	controlSet string
}

// currentControlSet begins the paths that follow Select\Current; see [windows.System].
const currentControlSet = `CurrentControlSet`

// errNoKey: a key that every Windows has is not there.
var errNoKey = errors.New("the key, which every Windows has, is missing")

// shown is a key's path for people.
func (r *reader) shown(h windows.Hive, p string) string {
	if rest, ok := strings.CutPrefix(p, currentControlSet+`\`); ok && h == windows.SystemHive && r.controlSet != "" {
		p = r.controlSet + `\` + rest
	}
	return string(h) + `\` + printable(p)
}

// usable says whether facts may be read from a hive at all.
func (r *reader) usable(h windows.Hive) error {
	if err := r.ctx.Err(); err != nil {
		return fmt.Errorf("the reading was stopped: %w", err)
	}
	st := r.sys.Hive(h)
	if st.Err != nil && !errors.Is(st.Err, fs.ErrNotExist) {
		return fmt.Errorf("the %s hive cannot be read: %w", h, st.Err)
	}
	if st.Err != nil { // not wrapped: a hive that is not there is no proof that its values are not set
		return fmt.Errorf("the %s hive is missing", h)
	}
	if st.Stale {
		why := st.Why
		if why == "" {
			why = "it was not closed cleanly and its logs cannot be used"
		}
		return fmt.Errorf("the %s hive is out of date: %s", h, printable(why))
	}
	return nil
}

// absence turns "surely absent" into an ordinary error where it is not that sure.
func (r *reader) absence(h windows.Hive, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if st := r.sys.Hive(h); st.Damaged != "" {
		return fmt.Errorf("it was not found, but the %s hive is damaged: %s", h, printable(st.Damaged))
	}
	return err
}

// open opens a key. fs.ErrNotExist means surely absent.
func (r *reader) open(h windows.Hive, p string) (windows.Key, error) {
	if err := r.usable(h); err != nil {
		return nil, err
	}
	k, err := r.sys.Open(h, p)
	if err != nil {
		return nil, r.absence(h, err)
	}
	return k, nil
}

// why is an error as a fact's reason, safe to show.
func why(err error) string {
	if errors.Is(err, errNoKey) {
		return errNoKey.Error()
	}
	return printable(err.Error())
}

// subkeys lists the subkeys of a key that every Windows has, limit at most.
func (r *reader) subkeys(h windows.Hive, p string, limit int) (windows.Key, []string, error) {
	k, err := r.open(h, p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errNoKey
	}
	if err != nil {
		return nil, nil, err
	}
	names, err := k.Subkeys()
	if err != nil {
		return nil, nil, fmt.Errorf("its subkeys cannot be listed: %w", err)
	}
	if len(names) > limit {
		return nil, nil, fmt.Errorf("it has %d subkeys, more than the %d that are read", len(names), limit)
	}
	// A list that lost entries proves nothing by what it does not hold.
	if st := r.sys.Hive(h); st.Damaged != "" {
		return k, names, fmt.Errorf("the %s hive is damaged, so entries may be lost: %s", h, printable(st.Damaged))
	}
	return k, names, nil
}

// need says what a missing key or value means.
type need int

const (
	// always: every Windows has the value, so that its absence tells nothing.
	always need = iota
	// keyAlways: every Windows has the key; without the value the default holds.
	keyAlways
	// optional: without the key or the value the default holds.
	optional
)

// value reads one value.
func value[T any](r *reader, h windows.Hive, key, name string, n need, absent T, decode func(windows.Value) (T, string, error)) Known[T] {
	at := r.shown(h, key) + `\` + name
	k, err := r.open(h, key)
	switch {
	case errors.Is(err, fs.ErrNotExist) && n == optional:
		return read(absent, at+" is absent")
	case errors.Is(err, fs.ErrNotExist):
		return unread[T](r.shown(h, key), errNoKey.Error())
	case err != nil:
		return unread[T](at, why(err))
	}
	return valueOf(r, h, k, at, name, n, absent, decode)
}

// valueOf reads one value of an open key.
func valueOf[T any](r *reader, h windows.Hive, k windows.Key, at, name string, n need, absent T, decode func(windows.Value) (T, string, error)) Known[T] {
	v, err := k.Value(name)
	err = r.absence(h, err)
	switch {
	case errors.Is(err, fs.ErrNotExist) && n == always:
		return unread[T](at, "the value, which every Windows has, is missing")
	case errors.Is(err, fs.ErrNotExist):
		return read(absent, at+" is absent")
	case err != nil:
		return unread[T](at, why(err))
	}
	got, shown, err := decode(v)
	if err != nil {
		return unread[T](at, why(err))
	}
	return read(got, fmt.Sprintf("%s = %s (%s)", at, shown, typeName(v.Type)))
}

const currentVersion = `Microsoft\Windows NT\CurrentVersion`

// identity reads what Windows this is.
func (r *reader) identity(f *Facts) {
	f.Running = read(r.sys.Machine().Running, "the machine itself")
	f.ControlSet = value(r, windows.SystemHive, `Select`, "Current", always, 0, number)
	if f.ControlSet.OK() {
		r.controlSet = fmt.Sprintf("ControlSet%03d", f.ControlSet.Value)
	}
	f.HostName = value(r, windows.SystemHive, currentControlSet+`\Control\ComputerName\ComputerName`, "ComputerName", always, "", text)
	f.ProductType = value(r, windows.SystemHive, currentControlSet+`\Control\ProductOptions`, "ProductType", always, "", text)
	f.Build = value(r, windows.Software, currentVersion, "CurrentBuildNumber", always, 0, build)
	f.Release = value(r, windows.Software, currentVersion, "DisplayVersion", keyAlways, "", text)
	if f.Release.OK() && f.Release.Value == "" { // before 20H2
		f.Release = value(r, windows.Software, currentVersion, "ReleaseId", keyAlways, "", text)
	}
	f.Revision = value(r, windows.Software, currentVersion, "UBR", keyAlways, 0, number)
	f.EditionID = value(r, windows.Software, currentVersion, "EditionID", always, "", text)
	f.Architecture = r.architecture()
	f.InstallLanguage = value(r, windows.SystemHive, currentControlSet+`\Control\Nls\Language`, "InstallLanguage", always, "", text)
	f.DisplayLanguages = r.displayLanguages()
	f.UpgradeTraces = r.upgradeTraces()
}

// displayLanguages reads what is set, or else what Windows last made of its defaults.
func (r *reader) displayLanguages() Known[[]string] {
	const desktop = `Control Panel\Desktop`
	set := value(r, windows.Default, desktop, "PreferredUILanguages", keyAlways, nil, texts)
	if !set.OK() || len(set.Value) > 0 {
		return set
	}
	cached := value(r, windows.Default, desktop+`\MuiCached`, "MachinePreferredUILanguages", optional, nil, texts)
	cached.From = set.From + "; " + cached.From
	return cached
}

// build decodes a build number, which Windows keeps as text.
func build(v windows.Value) (int, string, error) {
	s, shown, err := text(v)
	if err != nil {
		return 0, "", err
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return 0, "", fmt.Errorf("%s is not a build number", shown)
	}
	return int(n), shown, nil
}

// architecture reads what the registry says and holds the kernel's own header against it where that can be read.
func (r *reader) architecture() Known[string] {
	arch := value(r, windows.SystemHive, currentControlSet+`\Control\Session Manager\Environment`, "PROCESSOR_ARCHITECTURE", always, "", text)
	if !arch.OK() {
		return arch
	}
	const kernel = "Windows/System32/ntoskrnl.exe"
	machine, ok := r.peMachine(kernel)
	if !ok {
		return arch
	}
	name := map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "AMD64", pe.IMAGE_FILE_MACHINE_I386: "x86", pe.IMAGE_FILE_MACHINE_ARM64: "ARM64"}[machine]
	if !strings.EqualFold(name, arch.Value) {
		return unread[string](arch.From, fmt.Sprintf("it contradicts the kernel: the header of C:/%s says machine %#04x %s", kernel, machine, name))
	}
	arch.From += fmt.Sprintf("; C:/%s is for machine %#04x", kernel, machine)
	return arch
}

// peMachine reads the Machine field of a program's COFF header. Not ok: there is no such file, it cannot be read (a system
// file may be stored compressed), or it is no program.
func (r *reader) peMachine(name string) (uint16, bool) {
	file, err := r.sys.Files().Open(name)
	if err != nil {
		return 0, false
	}
	defer file.Close()
	head, err := io.ReadAll(io.LimitReader(file, kernelHead))
	if err != nil {
		return 0, false
	}
	const newHeader = 0x3c // e_lfanew: where the PE header is
	if len(head) < newHeader+4 || head[0] != 'M' || head[1] != 'Z' {
		return 0, false
	}
	at := uint64(binary.LittleEndian.Uint32(head[newHeader:]))
	if at+6 > uint64(len(head)) || string(head[at:at+4]) != "PE\x00\x00" {
		return 0, false
	}
	return binary.LittleEndian.Uint16(head[at+4:]), true
}

// upgradeTraces looks for what an upgrade in place leaves: a subkey of SYSTEM\Setup that is called "Source OS (Updated on
// ...)" or "Upgrade" (facts §4.2, InPlaceUpgrade).
func (r *reader) upgradeTraces() Known[[]string] {
	at := r.shown(windows.SystemHive, `Setup`)
	_, names, err := r.subkeys(windows.SystemHive, `Setup`, maxPrograms)
	var traces []string
	for _, name := range names {
		if low := strings.ToLower(name); strings.Contains(low, "source os") || strings.Contains(low, "upgrade") {
			traces = append(traces, name)
		}
	}
	switch {
	case len(traces) > 0: // found is found, whatever else is lost
		shown := make([]string, len(traces))
		for i, t := range traces {
			shown[i] = `"` + printable(t) + `"`
		}
		return read(traces, at+" has the subkeys "+clip(strings.Join(shown, ", ")))
	case err != nil:
		return unread[[]string](at, why(err))
	}
	return read(traces, fmt.Sprintf(`%s has no subkey named "Source OS" or "Upgrade"`, at))
}

// clip bounds a list that is shown in one line of evidence.
func clip(s string) string {
	const most = 400
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && s[cut]&0xc0 == 0x80 { // not within a character
		cut--
	}
	return s[:cut] + "..."
}

const uninstall = `Microsoft\Windows\CurrentVersion\Uninstall`

// software reads what is installed.
func (r *reader) software(f *Facts) {
	f.PowerShellVersion = r.powerShell()
	f.Programs = r.programs(uninstall)
	f.Programs32 = r.programs(`WOW6432Node\` + uninstall)
	f.OfficeClickToRun = value(r, windows.Software, `Microsoft\Office\ClickToRun\Configuration`, "ProductReleaseIds", optional, nil,
		func(v windows.Value) ([]string, string, error) {
			s, shown, err := text(v)
			return strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' }), shown, err
		})
	f.GuestTools = r.guestTools()
}

// powerShell reads the engine's version. Key 3 holds versions 3 to 5.1, key 1 versions 1 and 2.
func (r *reader) powerShell() Known[string] {
	newer := value(r, windows.Software, `Microsoft\PowerShell\3\PowerShellEngine`, "PowerShellVersion", optional, "", text)
	if !newer.OK() || newer.Value != "" {
		return newer
	}
	older := value(r, windows.Software, `Microsoft\PowerShell\1\PowerShellEngine`, "PowerShellVersion", optional, "", text)
	older.From = newer.From + "; " + older.From
	return older
}

func (r *reader) programs(p string) Known[[]Program] {
	at := r.shown(windows.Software, p)
	k, names, err := r.subkeys(windows.Software, p, maxPrograms)
	if err != nil {
		return unread[[]Program](at, why(err))
	}
	list := make([]Program, 0, len(names))
	for _, name := range names {
		sub, err := k.Open(name)
		if err != nil {
			return unread[[]Program](at+`\`+printable(name), why(err))
		}
		display := valueOf(r, windows.Software, sub, at+`\`+printable(name)+`\DisplayName`, "DisplayName", keyAlways, "", text)
		if !display.OK() {
			return unread[[]Program](display.From, display.Why)
		}
		list = append(list, Program{Key: name, Name: display.Value, From: display.From})
	}
	return read(list, fmt.Sprintf("entries in %s: %d", at, len(list)))
}

// guestTools looks for the services of the guest tools that hypervisors install.
func (r *reader) guestTools() Known[[]string] {
	const services = currentControlSet + `\Services`
	at := r.shown(windows.SystemHive, services)
	k, err := r.open(windows.SystemHive, services)
	if errors.Is(err, fs.ErrNotExist) {
		err = errNoKey
	}
	if err != nil {
		return unread[[]string](at, why(err))
	}
	var found []string
	for _, tools := range guestTools {
		for _, service := range tools.Services {
			switch _, err := k.Open(service); {
			case err == nil:
				found = append(found, service)
			case !errors.Is(r.absence(windows.SystemHive, err), fs.ErrNotExist):
				return unread[[]string](at+`\`+service, why(r.absence(windows.SystemHive, err)))
			}
		}
	}
	if len(found) == 0 {
		return read(found, at+" has no service of a hypervisor's guest tools")
	}
	return read(found, at+" has "+strings.Join(found, ", "))
}

// byolAccount is the account that the document asks for. Windows compares account names without case.
const byolAccount = "WorkSpaces_BYOL"

const (
	samAccounts = `SAM\Domains\Account`
	samBuiltin  = `SAM\Domains\Builtin\Aliases`
)

// account reads the account WorkSpaces_BYOL from the SAM hive.
func (r *reader) account(f *Facts) {
	f.BYOLAccount = r.accountRID()
	if !f.BYOLAccount.OK() || f.BYOLAccount.Value == 0 {
		f.BYOLAccountFlags = Known[uint16]{From: f.BYOLAccount.From, Why: f.BYOLAccount.Why}
		f.BYOLAccountAdministrator = Known[bool]{From: f.BYOLAccount.From, Why: f.BYOLAccount.Why}
		return
	}
	rid := f.BYOLAccount.Value
	f.BYOLAccountFlags = value(r, windows.SAM, fmt.Sprintf(`%s\Users\%08X`, samAccounts, rid), "F", always, 0,
		func(v windows.Value) (uint16, string, error) {
			flags, err := accountFlags(v.Data, rid)
			return flags, fmt.Sprintf("control flags %#04x at %#x", flags, userFlags), err
		})
	sid := value(r, windows.SAM, samAccounts, "V", always, nil, func(v windows.Value) ([]byte, string, error) {
		sid, err := accountSID(v.Data, rid)
		return sid, "the machine's SID", err
	})
	if !sid.OK() {
		f.BYOLAccountAdministrator = unread[bool](sid.From, sid.Why)
		return
	}
	f.BYOLAccountAdministrator = value(r, windows.SAM, fmt.Sprintf(`%s\%08X`, samBuiltin, administrators), "C", always, false,
		func(v windows.Value) (bool, string, error) {
			in, err := isMember(v.Data, administrators, sid.Value)
			if in {
				return true, fmt.Sprintf("Administrators with RID %d among its members", rid), err
			}
			return false, fmt.Sprintf("Administrators without RID %d among its members", rid), err
		})
}

// accountRID looks up the account's name; the RID is the type of its key's default value.
func (r *reader) accountRID() Known[uint32] {
	const names = samAccounts + `\Users\Names`
	at := r.shown(windows.SAM, names)
	k, err := r.open(windows.SAM, names)
	if errors.Is(err, fs.ErrNotExist) {
		err = errNoKey
	}
	if err != nil {
		return unread[uint32](at, why(err))
	}
	at += `\` + byolAccount
	account, err := k.Open(byolAccount)
	if err = r.absence(windows.SAM, err); errors.Is(err, fs.ErrNotExist) {
		return read(uint32(0), at+" is absent")
	}
	if err != nil {
		return unread[uint32](at, why(err))
	}
	v, err := account.Value("")
	if err != nil {
		return unread[uint32](at, "the account's RID cannot be read: "+why(err))
	}
	if v.Type == 0 {
		return unread[uint32](at, "the account's RID is 0")
	}
	return read(v.Type, fmt.Sprintf("%s is the account with RID %d", at, v.Type))
}

// settings reads the switches that Amazon's checker looks at.
func (r *reader) settings(f *Facts) {
	const winlogon = currentVersion + `\Winlogon`
	f.AutoLogon = value(r, windows.Software, winlogon, "AutoAdminLogon", keyAlways, false, switchText)
	f.AutoLogonPassword = value(r, windows.Software, winlogon, "DefaultPassword", keyAlways, false,
		func(windows.Value) (bool, string, error) { return true, "(a password, not shown)", nil })
	f.AutoMountOff = value(r, windows.SystemHive, currentControlSet+`\Services\mountmgr`, "NoAutoMount", keyAlways, false, boolean)
	f.RealTimeIsUniversal = value(r, windows.SystemHive, currentControlSet+`\Control\TimeZoneInformation`, "RealTimeIsUniversal", keyAlways, false, boolean)
	f.FirewallPublic = value(r, windows.SystemHive, currentControlSet+`\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile`, "EnableFirewall", keyAlways, false, boolean)
	f.FirewallPublicPolicy = value(r, windows.Software, `Policies\Microsoft\WindowsFirewall\PublicProfile`, "EnableFirewall", optional, false, boolean)
	f.DHCPClientStart = value(r, windows.SystemHive, currentControlSet+`\Services\Dhcp`, "Start", always, 0, number)
}

// switchText decodes AutoAdminLogon, a text that is on at any number but 0; some tools write a REG_DWORD.
func switchText(v windows.Value) (bool, string, error) {
	if v.Type == windows.RegDWORD {
		return boolean(v)
	}
	s, shown, err := text(v)
	if err != nil {
		return false, "", err
	}
	s = strings.TrimSpace(s)
	return s != "" && strings.Trim(s, "0") != "", shown, nil
}

const (
	interfaces = currentControlSet + `\Services\Tcpip\Parameters\Interfaces`
	// netClass is the device class of network adapters (GUID_DEVCLASS_NET, devguid.h).
	netClass = `{4D36E972-E325-11CE-BFC1-08002BE10318}`
)

// network reads the configuration of every interface that TCP/IP knows.
func (r *reader) network(f *Facts) {
	at := r.shown(windows.SystemHive, interfaces)
	k, ids, err := r.subkeys(windows.SystemHive, interfaces, maxAdapters)
	if err != nil {
		f.Adapters = unread[[]Adapter](at, why(err))
		return
	}
	drivers, err := r.drivers()
	if err != nil {
		f.Adapters = unread[[]Adapter](r.shown(windows.SystemHive, currentControlSet+`\Control\Class\`+netClass), why(err))
		return
	}
	list := make([]Adapter, 0, len(ids))
	for _, id := range ids {
		here := at + `\` + printable(id)
		sub, err := k.Open(id)
		if err != nil {
			f.Adapters = unread[[]Adapter](here, why(err))
			return
		}
		dhcp := valueOf(r, windows.SystemHive, sub, here+`\EnableDHCP`, "EnableDHCP", keyAlways, false, boolean)
		addresses := valueOf(r, windows.SystemHive, sub, here+`\IPAddress`, "IPAddress", keyAlways, nil, texts)
		for _, k := range []fact{dhcp, addresses} {
			if ok, from, why := k.state(); !ok {
				f.Adapters = unread[[]Adapter](from, why)
				return
			}
		}
		a := Adapter{ID: id, DHCP: dhcp.Value, From: dhcp.From + "; " + addresses.From}
		for _, address := range addresses.Value {
			if address != "0.0.0.0" {
				a.Addresses = append(a.Addresses, address)
			}
		}
		a.Name, a.Installed = drivers[strings.ToUpper(id)]
		connection := value(r, windows.SystemHive, currentControlSet+`\Control\Network\`+netClass+`\`+id+`\Connection`, "Name", optional, "", text)
		if connection.OK() && connection.Value != "" {
			a.Name = connection.Value
		}
		list = append(list, a)
	}
	f.Adapters = read(list, fmt.Sprintf("interfaces in %s: %d", at, len(list)))
}

// drivers maps the interface GUID, in upper case, of every registered network device to the driver's description.
func (r *reader) drivers() (map[string]string, error) {
	k, names, err := r.subkeys(windows.SystemHive, currentControlSet+`\Control\Class\`+netClass, maxAdapters)
	if err != nil {
		return nil, err
	}
	drivers := map[string]string{}
	for _, name := range names {
		if _, err := strconv.ParseUint(name, 10, 16); err != nil || len(name) != 4 {
			continue // "Configuration" and "Properties", which not everybody may open
		}
		sub, err := k.Open(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		id := valueOf(r, windows.SystemHive, sub, name+`\NetCfgInstanceId`, "NetCfgInstanceId", keyAlways, "", text)
		if !id.OK() {
			return nil, fmt.Errorf("%s: %s", id.From, id.Why)
		}
		desc := valueOf(r, windows.SystemHive, sub, name, "DriverDesc", keyAlways, "", text)
		drivers[strings.ToUpper(id.Value)] = desc.Value
	}
	return drivers, nil
}

// machine reads disks, partitions and volumes.
func (r *reader) machine(f *Facts) {
	m := r.sys.Machine()
	switch m.Firmware {
	case "bios", "uefi":
		f.Firmware = read(m.Firmware, "the machine boots by "+m.Firmware)
	default:
		f.Firmware = unread[string]("the firmware", "nothing on the disk says whether the machine boots by BIOS or UEFI")
	}
	f.Installations = unread[int]("the disks", "the installations of Windows on them were not counted")
	if m.Installations > 0 {
		f.Installations = read(m.Installations, fmt.Sprintf("installations of Windows on the disks: %d", m.Installations))
	}
	f.Disks = disks(m.Disks)
	f.SystemDisk, f.SystemVolume = systemVolume(m.Disks)
	f.Reclaimable = r.reclaimable()
}

func disks(list []windows.Disk) Known[[]windows.Disk] {
	if len(list) == 0 {
		return unread[[]windows.Disk]("the disks", "the machine's disks are not known")
	}
	var lines []string
	for i, d := range list {
		if d.Scheme == windows.NoTable {
			return unread[[]windows.Disk](diskName(i, d), "it has no partition table that is understood")
		}
		line := fmt.Sprintf("%s: %s, %s", diskName(i, d), gib(d.SizeBytes), d.Scheme)
		for _, p := range d.Partitions {
			line += "; " + partitionLine(p)
		}
		lines = append(lines, line)
	}
	return read(list, clip(strings.Join(lines, ". ")))
}

func diskName(i int, d windows.Disk) string {
	if d.Name == "" {
		return fmt.Sprintf("disk %d", i)
	}
	return fmt.Sprintf("disk %d (%s)", i, printable(d.Name))
}

func partitionLine(p windows.Partition) string {
	line := fmt.Sprintf("partition %d %s", p.Number, gib(p.Length))
	for _, word := range []string{string(p.Role), p.FileSystem} {
		if word != "" {
			line += " " + printable(word)
		}
	}
	if p.Bootable {
		line += " bootable"
	}
	return line
}

// systemVolume finds the partition that holds the Windows asked; there must be exactly one.
func systemVolume(list []windows.Disk) (Known[int64], Known[windows.Volume]) {
	var disk *windows.Disk
	var part *windows.Partition
	var at string
	for i := range list {
		for j := range list[i].Partitions {
			if list[i].Partitions[j].Role != windows.RoleSystem {
				continue
			}
			if part != nil {
				const why = "more than one partition is marked as the one that holds Windows"
				return unread[int64]("the disks", why), unread[windows.Volume]("the disks", why)
			}
			disk, part = &list[i], &list[i].Partitions[j]
			at = diskName(i, *disk)
		}
	}
	if part == nil {
		const why = "no partition is known to hold Windows"
		return unread[int64]("the disks", why), unread[windows.Volume]("the disks", why)
	}
	size := unread[int64](at, "its size is not known")
	if disk.SizeBytes > 0 {
		size = read(disk.SizeBytes, fmt.Sprintf("%s has %s (%d bytes)", at, gib(disk.SizeBytes), disk.SizeBytes))
	}
	at += fmt.Sprintf(", partition %d", part.Number)
	switch {
	case part.Err != nil:
		return size, unread[windows.Volume](at, why(part.Err))
	case part.Volume == nil || part.Volume.SizeBytes <= 0:
		return size, unread[windows.Volume](at, "its file system could not be read")
	}
	v := *part.Volume
	if v.FreeBytes < 0 || v.FreeBytes > v.SizeBytes {
		return size, unread[windows.Volume](at, fmt.Sprintf("%d bytes are said to be free of %d", v.FreeBytes, v.SizeBytes))
	}
	return size, read(v, fmt.Sprintf("%s (C:): %s of %s free (%d of %d bytes)", at, gib(v.FreeBytes), gib(v.SizeBytes), v.FreeBytes, v.SizeBytes))
}

// reclaimable finds the big files that Windows makes again by itself or that can be switched off.
func (r *reader) reclaimable() Known[[]File] {
	var found []File
	var lines []string
	for _, name := range []string{"hiberfil.sys", "pagefile.sys", "swapfile.sys"} {
		if r.ctx.Err() != nil {
			return unread[[]File]("C:/", "the reading was stopped")
		}
		info, err := fs.Stat(r.sys.Files(), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return unread[[]File](path.Join("C:/", name), why(err))
		}
		found = append(found, File{Name: name, Bytes: info.Size()})
		lines = append(lines, fmt.Sprintf("C:/%s takes %s", name, gib(info.Size())))
	}
	if len(found) == 0 {
		return read(found, "C:/ has no hiberfil.sys, pagefile.sys or swapfile.sys")
	}
	return read(found, strings.Join(lines, ", "))
}
