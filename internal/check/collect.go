package check

import (
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"berth/internal/windows"
)

// Limits on what a stranger's disk may make us hold. A real machine stays far below them.
const (
	maxPrograms = 20_000
	// maxProgramText bounds the names of programs that are kept, in bytes: those of a hostile hive may share one long value.
	maxProgramText = 8 << 20
	maxAdapters    = 2_000
	// kernelHead is how much of ntoskrnl.exe is read, in bytes: its PE header lies within the first page or two.
	kernelHead = 8 << 10
)

// Collect reads the facts. It never fails as a whole: what cannot be read is a fact that is not known, with the reason.
// A value that is surely absent means what Windows takes its absence for; a key that every Windows has and this one has not
// leaves its facts unknown, as does a hive that is stale, and absence in a hive that is damaged. When ctx ends, what was not
// read yet stays unknown.
func Collect(ctx context.Context, sys windows.System) *Facts {
	return CollectEach(ctx, sys, func(*Facts) {})
}

// CollectEach is Collect for who waits: after every group of facts it hands over what is collected so far, which [Run] can judge;
// see [Finding].Waiting. In a running Windows some groups take seconds. The facts are still being added to: each must not keep them.
func CollectEach(ctx context.Context, sys windows.System, each func(*Facts)) *Facts {
	r := &reader{sys: sys}
	f := &Facts{}
	for _, read := range []func(*Facts){r.identity, r.software, r.users, r.protection, r.membership, r.account, r.settings, r.servicing, r.licence,
		r.sysprep, r.newUsers, r.packages, r.network, r.boot, r.machine, r.drives} {
		if ctx.Err() != nil {
			break
		}
		read(f)
		each(f)
	}
	return f
}

const currentVersion = `Microsoft\Windows NT\CurrentVersion`

// identity reads what Windows this is.
func (r *reader) identity(f *Facts) {
	r.running = r.sys.Machine().Running
	f.Running = read(r.running, said("the machine itself"))
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
	cached.From = slices.Concat(set.From, cached.From)
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

// architecture reads what the registry says and holds the kernel's own header against it where there is one.
func (r *reader) architecture() Known[string] {
	arch := value(r, windows.SystemHive, currentControlSet+`\Control\Session Manager\Environment`, "PROCESSOR_ARCHITECTURE", always, "", text)
	if !arch.OK() {
		return arch
	}
	const kernel = "Windows/System32/ntoskrnl.exe"
	machine, ok, err := r.peMachine(kernel)
	if err != nil {
		return unread[string](inFile(kernel), why(err))
	}
	if !ok {
		return arch
	}
	name := map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "AMD64", pe.IMAGE_FILE_MACHINE_I386: "x86", pe.IMAGE_FILE_MACHINE_ARM64: "ARM64"}[machine]
	if !strings.EqualFold(name, arch.Value) {
		return unread[string](arch.From[0], fmt.Sprintf("it contradicts the kernel: the header of C:/%s says machine %#04x %s", kernel, machine, name))
	}
	arch.From = append(arch.From, inFile(kernel).plus(fmt.Sprintf(" is for machine %#04x", machine)))
	return arch
}

// peMachine reads the Machine field of a program's COFF header. Not ok: there is no such file, or it is no program.
func (r *reader) peMachine(name string) (machine uint16, ok bool, err error) {
	head, err := r.head(name, kernelHead)
	if err != nil {
		return 0, false, err
	}
	const newHeader = 0x3c // e_lfanew: where the PE header is
	if len(head) < newHeader+4 || head[0] != 'M' || head[1] != 'Z' {
		return 0, false, nil
	}
	at := uint64(binary.LittleEndian.Uint32(head[newHeader:]))
	if at+6 > uint64(len(head)) || string(head[at:at+4]) != "PE\x00\x00" {
		return 0, false, nil
	}
	return binary.LittleEndian.Uint16(head[at+4:]), true, nil
}

// upgradeTraces looks for what an upgrade in place leaves: a subkey of SYSTEM\Setup that is called "Source OS (Updated on
// ...)" or "Upgrade" (facts §4.2, InPlaceUpgrade).
func (r *reader) upgradeTraces() Known[[]string] {
	at := r.at(windows.SystemHive, `Setup`)
	k, names, err := r.subkeys(windows.SystemHive, `Setup`, maxPrograms)
	if k != nil {
		at = at.of(k)
	}
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
		return read(traces, at.plus(" has the subkeys "+clip(strings.Join(shown, ", "))))
	case err != nil:
		return unread[[]string](at, why(err))
	}
	return read(traces, at.plus(` has no subkey named "Source OS" or "Upgrade"`))
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
	f.Programs = r.programs(uninstall, always, newRoom())
	f.Programs32 = r.programs(`WOW6432Node\`+uninstall, always, newRoom())
	if f.Architecture.OK() && strings.EqualFold(f.Architecture.Value, "x86") {
		f.Programs32 = read([]Program(nil), said("a 32-bit Windows has one list of programs"))
	}
	f.OfficeClickToRun = value(r, windows.Software, `Microsoft\Office\ClickToRun\Configuration`, "ProductReleaseIds", optional, nil,
		func(v windows.Value) ([]string, string, error) {
			s, shown, err := text(v)
			return strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' }), shown, err
		})
	f.GuestTools = r.guestTools()
	r.pcoip(f)
}

// powerShell reads the engine's version. Key 3 holds versions 3 to 5.1, key 1 versions 1 and 2.
func (r *reader) powerShell() Known[string] {
	newer := value(r, windows.Software, `Microsoft\PowerShell\3\PowerShellEngine`, "PowerShellVersion", optional, "", text)
	if !newer.OK() || newer.Value != "" {
		return newer
	}
	older := value(r, windows.Software, `Microsoft\PowerShell\1\PowerShellEngine`, "PowerShellVersion", optional, "", text)
	older.From = slices.Concat(newer.From, older.From)
	return older
}

// room is what is left of what may be held of lists of programs: entries, and bytes of their names.
type room struct{ programs, text int }

func newRoom() *room { return &room{maxPrograms, maxProgramText} }

// programs reads an Uninstall list of SOFTWARE, or of a user's hive where this is its reader; need says what it means that there is none.
func (r *reader) programs(p string, n need, left *room) Known[[]Program] {
	h := windows.Software
	if r.file != "" {
		h = userHive
	}
	at := r.at(h, p)
	if n == optional {
		if _, err := r.open(h, p); errors.Is(err, fs.ErrNotExist) {
			return read([]Program(nil), at.plus(" is absent"))
		}
	}
	k, names, err := r.subkeys(h, p, left.programs)
	if err != nil {
		return unread[[]Program](at, why(err))
	}
	left.programs -= len(names)
	at = at.of(k)
	list := make([]Program, 0, len(names))
	for _, name := range names {
		sub, err := k.Open(name)
		if err != nil {
			return unread[[]Program](at.below(name), why(err))
		}
		display := valueOf(r, sub, at.below(name), "DisplayName", keyAlways, "", text)
		if !display.OK() {
			return likewise[[]Program](display)
		}
		if left.text -= len(name) + len(display.Value) + display.From[0].size(); left.text < 0 {
			return unread[[]Program](at, fmt.Sprintf("the names of its programs take more than %d MiB", maxProgramText>>20))
		}
		list = append(list, Program{Key: name, Name: display.Value, From: display.From[0]})
	}
	return read(list, at.says(fmt.Sprintf("entries in %s: %d", at, len(list))))
}

// guestTools looks for the services of the guest tools that hypervisors install.
func (r *reader) guestTools() Known[[]string] {
	const services = currentControlSet + `\Services`
	at := r.at(windows.SystemHive, services)
	k, err := r.open(windows.SystemHive, services)
	if errors.Is(err, fs.ErrNotExist) {
		err = errNoKey
	}
	if err != nil {
		return unread[[]string](at, why(err))
	}
	at = at.of(k)
	var found []string
	var seen []Evidence
	for _, tools := range guestTools {
		for _, service := range tools.Services {
			switch sub, err := k.Open(service); {
			case err == nil:
				found, seen = append(found, service), append(seen, at.below(service).of(sub))
			case !errors.Is(r.absence(windows.SystemHive, err), fs.ErrNotExist):
				return unread[[]string](at.below(service), why(r.absence(windows.SystemHive, err)))
			}
		}
	}
	if len(found) == 0 {
		return read(found, at.plus(" has no service of a hypervisor's guest tools"))
	}
	return read(found, seen...)
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
		f.BYOLAccountFlags = likewise[uint16](f.BYOLAccount)
		f.BYOLAccountAdministrator = likewise[bool](f.BYOLAccount)
		return
	}
	rid := f.BYOLAccount.Value
	f.BYOLAccountFlags = value(r, windows.SAM, fmt.Sprintf(`%s\Users\%08X`, samAccounts, rid), "F", always, 0,
		func(v windows.Value) (uint16, string, error) {
			flags, err := windows.AccountFlags(v.Data, rid)
			return flags, fmt.Sprintf("control flags %#04x at %#x", flags, windows.AccountFlagsAt), err
		})
	sid := value(r, windows.SAM, samAccounts, "V", always, nil, func(v windows.Value) (windows.SID, string, error) {
		sid, err := windows.MachineSID(v.Data)
		return sid, "the machine's SID", err
	})
	if !sid.OK() {
		f.BYOLAccountAdministrator = likewise[bool](sid)
		return
	}
	f.BYOLAccountAdministrator = value(r, windows.SAM, fmt.Sprintf(`%s\%08X`, samBuiltin, windows.Administrators), "C", always, false,
		func(v windows.Value) (bool, string, error) {
			in, err := isMember(v.Data, windows.Administrators, sid.Value.Account(rid))
			if in {
				return true, fmt.Sprintf("Administrators with RID %d among its members", rid), err
			}
			return false, fmt.Sprintf("Administrators without RID %d among its members", rid), err
		})
}

// accountRID looks up the account's name; the RID is the type of its key's default value.
func (r *reader) accountRID() Known[uint32] {
	const names = samAccounts + `\Users\Names`
	at := r.at(windows.SAM, names)
	k, err := r.open(windows.SAM, names)
	if errors.Is(err, fs.ErrNotExist) {
		err = errNoKey
	}
	if err != nil {
		return unread[uint32](at, why(err))
	}
	at = at.of(k).below(byolAccount)
	account, err := k.Open(byolAccount)
	if err = r.absence(windows.SAM, err); errors.Is(err, fs.ErrNotExist) {
		return read(uint32(0), at.plus(" is absent"))
	}
	if err != nil {
		return unread[uint32](at, why(err))
	}
	at = at.of(account)
	v, err := account.Value("")
	if err != nil {
		return unread[uint32](at, "the account's RID cannot be read: "+why(err))
	}
	if v.Type == 0 {
		return unread[uint32](at, "the account's RID is 0")
	}
	return read(v.Type, at.plus(fmt.Sprintf(" is the account with RID %d", v.Type)))
}

const (
	winlogon      = currentVersion + `\Winlogon`
	mountManager  = currentControlSet + `\Services\mountmgr`
	timeZone      = currentControlSet + `\Control\TimeZoneInformation`
	publicProfile = currentControlSet + `\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile`
	dhcpService   = currentControlSet + `\Services\Dhcp`
)

// settings reads the switches that Amazon's checker looks at.
func (r *reader) settings(f *Facts) {
	f.AutoLogon = value(r, windows.Software, winlogon, "AutoAdminLogon", keyAlways, false, switchText)
	f.AutoLogonPassword = value(r, windows.Software, winlogon, "DefaultPassword", keyAlways, false,
		func(v windows.Value) (bool, string, error) {
			if len(strings.Trim(string(v.Data), "\x00")) == 0 {
				return false, "(nothing)", nil
			}
			return true, "(a password, not shown)", nil
		})
	f.AutoLogonSecret = r.present(windows.Security, `Policy\Secrets\DefaultPassword`)
	f.AutoMountOff = value(r, windows.SystemHive, mountManager, "NoAutoMount", keyAlways, false, boolean)
	f.RealTimeIsUniversal = value(r, windows.SystemHive, timeZone, "RealTimeIsUniversal", keyAlways, false, boolean)
	f.FirewallPublic = value(r, windows.SystemHive, publicProfile, "EnableFirewall", keyAlways, false, boolean)
	f.FirewallPublicPolicy = value(r, windows.Software, `Policies\Microsoft\WindowsFirewall\PublicProfile`, "EnableFirewall", optional, false, boolean)
	f.DHCPClientStart = value(r, windows.SystemHive, dhcpService, "Start", always, 0, number)
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
