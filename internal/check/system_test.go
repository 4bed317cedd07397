package check

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"berth/internal/windows"
	"berth/internal/windows/registry"
)

// memory is a windows.System made of regedit's text. It follows the contract of windows.System; what is to go wrong is put into
// states and broken.
type memory struct {
	root    *registry.Node // its children are the hives
	files   fstest.MapFS
	machine windows.Machine
	states  map[windows.Hive]windows.HiveState
	// broken holds what reading a key, or a value (key, backslash, name), comes to; lower case, with ControlSet001.
	broken map[string]error
	// asked collects the keys, values and files ("c:/...") that were read, spelt as in broken.
	asked map[string]bool
	// answers is what the machine tells while it runs.
	answers answers
}

// answers are those of a windows.Guest; what is nil is not told.
type answers struct {
	licensing *windows.Licensing
	antiVirus []windows.AntiVirusProduct
	packages  []windows.Package
	device    *windows.DeviceGuard
	restart   []string
}

var errNoAnswer = errors.New("WMI does not answer")

func (m *memory) Licensing() (windows.Licensing, error) {
	if m.answers.licensing == nil {
		return windows.Licensing{}, errNoAnswer
	}
	return *m.answers.licensing, nil
}

func (m *memory) DeviceGuard() (windows.DeviceGuard, error) {
	if m.answers.device == nil {
		return windows.DeviceGuard{}, errNoAnswer
	}
	return *m.answers.device, nil
}

func told[T any](list []T) ([]T, error) {
	if list == nil {
		return nil, errNoAnswer
	}
	return list, nil
}

func (m *memory) AntiVirus() ([]windows.AntiVirusProduct, error) { return told(m.answers.antiVirus) }
func (m *memory) Packages() ([]windows.Package, error)           { return told(m.answers.packages) }
func (m *memory) PendingReboot() ([]string, error)               { return told(m.answers.restart) }

var _ windows.Guest = (*memory)(nil)

func (m *memory) Open(hive windows.Hive, path string) (windows.Key, error) {
	if rest, ok := strings.CutPrefix(path, currentControlSet); ok && hive == windows.SystemHive {
		sel, err := m.Open(hive, `Select`)
		if err != nil {
			return nil, err
		}
		v, err := sel.Value("Current")
		if err != nil {
			return nil, err
		}
		if len(v.Data) != 4 {
			return nil, errors.New("Select\\Current is no number")
		}
		path = fmt.Sprintf("ControlSet%03d", binary.LittleEndian.Uint32(v.Data)) + rest
	}
	if st := m.Hive(hive); st.Err != nil {
		return nil, st.Err
	}
	return memoryKey{m, m.root.Key(string(hive)), string(hive)}.Open(path)
}

func (m *memory) Hive(hive windows.Hive) windows.HiveState {
	st := m.states[hive]
	if st.Err == nil && m.root.Key(string(hive)) == nil {
		st.Err = fmt.Errorf("hive %s: %w", hive, fs.ErrNotExist)
	}
	return st
}

func (m *memory) Files() fs.FS             { return memoryFiles{m} }
func (m *memory) Machine() windows.Machine { return m.machine }

// memoryFiles is the machine's C:.
type memoryFiles struct{ m *memory }

func (f memoryFiles) Open(name string) (fs.File, error) {
	if err := f.m.ask("c:/" + name); err != nil {
		return nil, err
	}
	return f.m.files.Open(name)
}

func (f memoryFiles) Stat(name string) (fs.FileInfo, error) {
	if err := f.m.ask("c:/" + name); err != nil {
		return nil, err
	}
	return f.m.files.Stat(name)
}

func (f memoryFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.m.ask("c:/" + name); err != nil {
		return nil, err
	}
	return f.m.files.ReadDir(name)
}

func (m *memory) ask(what string) error {
	what = strings.ToLower(what)
	if m.asked != nil {
		m.asked[what] = true
	}
	return m.broken[what]
}

type memoryKey struct {
	m    *memory
	n    *registry.Node
	path string
}

func (k memoryKey) Name() string         { return k.n.Name }
func (k memoryKey) LastWrite() time.Time { return k.n.LastWrite }

func (k memoryKey) Subkeys() ([]string, error) {
	var names []string
	for _, sub := range k.n.Keys {
		names = append(names, sub.Name)
	}
	return names, k.m.ask(k.path)
}

func (k memoryKey) Open(path string) (windows.Key, error) {
	for name := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '\\' }) {
		k.path += `\` + name
		if err := k.m.ask(k.path); err != nil {
			return nil, err
		}
		if k.n = k.n.Key(name); k.n == nil {
			return nil, fmt.Errorf("key %s: %w", k.path, fs.ErrNotExist)
		}
	}
	return k, nil
}

func (k memoryKey) Values() ([]string, error) { return nil, errors.New("nobody asks for it") }

func (k memoryKey) Value(name string) (windows.Value, error) {
	if err := k.m.ask(k.path + `\` + name); err != nil {
		return windows.Value{}, err
	}
	v, ok := k.n.Value(name)
	if !ok {
		return v, fmt.Errorf("value %s of %s: %w", name, k.path, fs.ErrNotExist)
	}
	return v, nil
}

// named is one of Amazon's profiles.
func named(name string) Profile {
	p, ok := ProfileByName(name)
	if !ok {
		panic("no profile " + name)
	}
	return p
}

// joeSID is who has the profile C:\Users\Joe.
const joeSID = "S-1-5-21-1760460187-1592185332-161725925-1001"

// fitText is a machine that the document would take.
const fitText = `Windows Registry Editor Version 5.00

[SYSTEM\Select]
"Current"=dword:00000001
"Default"=dword:00000001

[SYSTEM\MountedDevices]
"\\DosDevices\\C:"=hex:21,5a,3c,8f,00,00,60,03,00,00,00,00
[SYSTEM\Setup\Status\SysprepStatus]
"GeneralizationState"=dword:00000007
[SYSTEM\Setup\AllowStart]

[SYSTEM\ControlSet001\Control\ComputerName\ComputerName]
"ComputerName"="DESKTOP-BYOL1"
[SYSTEM\ControlSet001\Control\ProductOptions]
"ProductType"="WinNT"
[SYSTEM\ControlSet001\Control\Session Manager\Environment]
"PROCESSOR_ARCHITECTURE"="AMD64"
[SYSTEM\ControlSet001\Control\Nls\Language]
"InstallLanguage"="0409"
[SYSTEM\ControlSet001\Control\TimeZoneInformation]
"RealTimeIsUniversal"=dword:00000001
[SYSTEM\ControlSet001\Control\Class\{4D36E972-E325-11CE-BFC1-08002BE10318}\0001]
"NetCfgInstanceId"="{08BA0CD8-E98C-475C-BADF-65130C043BD6}"
"DriverDesc"="Intel(R) 82574L Gigabit Network Connection"
[SYSTEM\ControlSet001\Control\Class\{4D36E972-E325-11CE-BFC1-08002BE10318}\Properties]
[SYSTEM\ControlSet001\Control\Network\{4D36E972-E325-11CE-BFC1-08002BE10318}\{08BA0CD8-E98C-475C-BADF-65130C043BD6}\Connection]
"Name"="Ethernet0"
[SYSTEM\ControlSet001\Control\Lsa]
"LimitBlankPasswordUse"=dword:00000001
[SYSTEM\ControlSet001\Control\Power]
"HibernateEnabled"=dword:00000000
[SYSTEM\ControlSet001\Control\Session Manager]
"SetupExecute"=hex(7):00,00
[SYSTEM\ControlSet001\Control\Session Manager\Power]
"HiberbootEnabled"=dword:00000000
[SYSTEM\ControlSet001\Control\Windows]
"ShutdownTime"=hex:80,f3,b9,78,36,9b,d6,01
[SYSTEM\ControlSet001\Services\wuauserv]
"Start"=dword:00000004
[SYSTEM\ControlSet001\Services\TrustedInstaller]
"Start"=dword:00000003
[SYSTEM\ControlSet001\Services\mountmgr]
"Start"=dword:00000000
[SYSTEM\ControlSet001\Services\Dhcp]
"Start"=dword:00000002
[SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile]
"EnableFirewall"=dword:00000000
[SYSTEM\ControlSet001\Services\Tcpip\Parameters\Interfaces\{08ba0cd8-e98c-475c-badf-65130c043bd6}]
"EnableDHCP"=dword:00000001
"DhcpIPAddress"="192.0.2.15"

[SOFTWARE\Microsoft\Windows NT\CurrentVersion]
"CurrentBuildNumber"="19041"
"ReleaseId"="2004"
"UBR"=dword:000001fc
"EditionID"="Enterprise"
[SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]
"AutoAdminLogon"="0"
[SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList\S-1-5-18]
"ProfileImagePath"="%systemroot%\\system32\\config\\systemprofile"
[SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList\` + joeSID + `]
"ProfileImagePath"="C:\\Users\\Joe"
[SOFTWARE\Microsoft\PowerShell\1\PowerShellEngine]
"PowerShellVersion"="2.0"
[SOFTWARE\Microsoft\PowerShell\3\PowerShellEngine]
"PowerShellVersion"="5.1.19041.1"
[SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall\Connection Manager]
[SOFTWARE\WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall\Microsoft Edge]
"DisplayName"="Microsoft Edge"

[SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages\Package_for_RollupFix~31bf3856ad364e35~amd64~~19041.508.1.13]
"CurrentState"=dword:00000070
"InstallTimeHigh"=dword:01d690c2
"InstallTimeLow"=dword:f1469c00
[SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\Packages\Microsoft-Windows-Foundation-Package~31bf3856ad364e35~amd64~~10.0.19041.1]
"CurrentState"=dword:00000070
[SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State]
"ImageState"="IMAGE_STATE_COMPLETE"
[SOFTWARE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore\Applications\Microsoft.WindowsCalculator_2020.1906.55.0_neutral_~_8wekyb3d8bbwe]
[SOFTWARE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore\InboxApplications\Microsoft.Windows.ShellExperienceHost_10.0.19041.1_neutral_neutral_cw5n1h2txyewy]
[SOFTWARE\Amazon\BYOLChecker]
"status"="success"

[SECURITY\Policy\PolPrDmS]
@=hex(0):
[SECURITY\Policy\PolPrDmN]
@=hex(0):12,00,14,00,08,00,00,00,57,00,4f,00,52,00,4b,00,47,00,52,00,4f,00,55,00,50,00,00,00

[BCD\Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Elements\24000001]
"Element"=hex(7):7b,00,31,00,7d,00,00,00,00,00
[BCD\Objects\{1}\Description]
"Type"=dword:10200003
[BCD\Objects\{1}\Elements\12000004]
"Element"="Windows 10"

[DEFAULT\Control Panel\Desktop]
"WallPaper"=""
`

// Where the values of the SAM hive have what these machines are given there; see internal/windows/sam.go.
const userRID, userFlags, groupMembers, groupData = 0x30, 0x38, 0x28, 0x34

const byolRID = 1001

// fit makes the machine of fitText: its account, and a disk as a virtual machine with legacy BIOS has it.
func fit(t testing.TB) *memory {
	t.Helper()
	root, err := registry.Parse(fitText)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{root: root, files: fstest.MapFS{
		"pagefile.sys":                                        {Data: make([]byte, 1<<20)},
		"Windows/System32/Sysprep/sysprep.exe":                {Data: []byte("MZ")},
		"Windows/System32/Sysprep/ActionFiles/Generalize.xml": {Data: []byte("<xml/>")},
		"Users/Default/Desktop/desktop.ini":                   {Data: []byte("[.ShellClassInfo]")},
	}}
	m.setUser(t, "")
	m.setProfile(t, "Joe", `[NTUSER\Software\Microsoft\Windows\CurrentVersion\Uninstall\OneDriveSetup.exe]`+"\n"+`"DisplayName"="Microsoft OneDrive"`)
	m.setAccount("workspaces_byol", byolRID, 0x0210, true)
	const systemReserved, size = 549 << 20, 60 << 30
	m.machine = windows.Machine{Firmware: "bios", Installations: 1, Disks: []windows.Disk{{
		SizeBytes: size, SectorSize: 512, Scheme: windows.MBR,
		Partitions: []windows.Partition{
			{Number: 1, Type: "0x07", Role: windows.RoleBoot, Bootable: true, Start: 1 << 20, Length: systemReserved, FileSystem: "NTFS"},
			{Number: 2, Type: "0x07", Role: windows.RoleSystem, Start: 1<<20 + systemReserved, Length: size - systemReserved - 2<<20, FileSystem: "NTFS",
				Volume: &windows.Volume{SizeBytes: size - systemReserved - 2<<20, FreeBytes: 40 << 30, ClusterBytes: 4096}},
		},
	}}}
	return m
}

// live is the machine of fit while it runs.
func live(t testing.TB) *memory {
	t.Helper()
	m := fit(t)
	m.machine.Running = true
	m.answers = answers{
		licensing: &windows.Licensing{RearmCount: 1001, Status: 1, Channel: "Volume:GVLK", KMS: "kms.corp.example:1688"},
		antiVirus: []windows.AntiVirusProduct{{Name: "Windows Defender", Executable: "windowsdefender://"}},
		packages:  []windows.Package{{FullName: "Microsoft.WindowsCalculator_2020.1906.55.0_neutral_~_8wekyb3d8bbwe", Provisioned: true}},
		device:    &windows.DeviceGuard{},
		restart:   []string{},
	}
	return m
}

// while makes a change of a machine that runs.
func while(f func(*answers)) func(*testing.T, *memory) {
	return func(t *testing.T, m *memory) {
		m.machine.Running, m.answers = true, live(t).answers
		f(&m.answers)
	}
}

var machineSID = append([]byte{1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0}, 0x9b, 0x7d, 0xee, 0x68, 0xf4, 0xd1, 0xe6, 0x5e, 0xe5, 0xbd, 0xa3, 0x09)

func accountOf(rid uint32) []byte {
	sid := append([]byte(nil), machineSID...)
	sid[1] = 5
	return binary.LittleEndian.AppendUint32(sid, rid)
}

// groupValue is a group's C value with a name, no security descriptor, and members.
func groupValue(group uint32, members ...[]byte) []byte {
	c := make([]byte, groupData)
	binary.LittleEndian.PutUint32(c, group)
	name := []byte("A\x00d\x00m\x00i\x00n\x00s\x00")
	c = append(c, name...)
	binary.LittleEndian.PutUint32(c[groupMembers:], uint32(len(name)))
	for _, sid := range members {
		c = append(c, sid...)
	}
	binary.LittleEndian.PutUint32(c[groupMembers+4:], uint32(len(c)-groupData-len(name)))
	binary.LittleEndian.PutUint32(c[groupMembers+8:], uint32(len(members)))
	return c
}

// setUser gives the machine a default user's hive with what Windows makes there and some text's.
func (m *memory) setUser(t testing.TB, text string) {
	t.Helper()
	root, err := registry.Parse(`[NTUSER\Control Panel\Desktop]
"Wallpaper"=""
[NTUSER\Software\Microsoft\Windows\CurrentVersion\Run]
"OneDriveSetup"="C:\\Windows\\SysWOW64\\OneDriveSetup.exe /thfirstsetup"
[NTUSER\Software\Policies\Microsoft\SystemCertificates\CA]
[NTUSER\Software\Policies\Microsoft\Windows\CurrentVersion\Internet Settings\Cache]
` + text)
	if err != nil {
		t.Fatal(err)
	}
	m.files[defaultHive] = &fstest.MapFile{Data: userFile(t, root)}
}

// setProfile gives the machine the registry of a user, of that text.
func (m *memory) setProfile(t testing.TB, name, text string) {
	t.Helper()
	root, err := registry.Parse("[NTUSER\\Environment]\n" + text)
	if err != nil {
		t.Fatal(err)
	}
	m.files["Users/"+name+"/NTUSER.DAT"] = &fstest.MapFile{Data: userFile(t, root)}
}

func userFile(t testing.TB, root *registry.Node) []byte {
	t.Helper()
	b, err := registry.Build(root.Key("NTUSER"), registry.BuildOptions{LastWrite: time.Date(2020, 10, 5, 16, 20, 7, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// setAccount makes the SAM hive hold Administrator and one more account.
func (m *memory) setAccount(name string, rid uint32, flags uint16, administrator bool) {
	sam := &registry.Node{Name: string(windows.SAM)}
	m.replace(sam)
	sam.Make(samAccounts).Set(windows.Value{Name: "V", Type: windows.RegBinary, Data: append(make([]byte, 0x40), machineSID...)})
	sam.Make(samAccounts + `\Users\Names\Administrator`).Set(windows.Value{Type: 500})
	members := [][]byte{accountOf(500)}
	if name != "" {
		sam.Make(samAccounts + `\Users\Names\` + name).Set(windows.Value{Type: rid})
		f := make([]byte, 0x50)
		binary.LittleEndian.PutUint32(f[userRID:], rid)
		binary.LittleEndian.PutUint16(f[userFlags:], flags)
		sam.Make(samAccounts + fmt.Sprintf(`\Users\%08X`, rid)).Set(windows.Value{Name: "F", Type: windows.RegBinary, Data: f})
		if administrator {
			members = append(members, accountOf(rid))
		}
	}
	sam.Make(samBuiltin + `\00000220`).Set(windows.Value{Name: "C", Type: windows.RegBinary, Data: groupValue(windows.Administrators, members...)})
}

// replace puts a hive in the place of the one of its name.
func (m *memory) replace(hive *registry.Node) {
	m.remove(hive.Name)
	m.root.Keys = append(m.root.Keys, hive)
}

// remove takes away a key, or a hive.
func (m *memory) remove(path string) {
	parent, name := m.root, path
	if i := strings.LastIndexByte(path, '\\'); i >= 0 {
		parent, name = m.root.Key(path[:i]), path[i+1:]
	}
	for i, k := range parent.Keys {
		if registry.EqualNames(k.Name, name) {
			parent.Keys = append(parent.Keys[:i:i], parent.Keys[i+1:]...)
			return
		}
	}
}

// removeValue takes away a value.
func (m *memory) removeValue(path, name string) {
	k := m.root.Key(path)
	for i, v := range k.Values {
		if registry.EqualNames(v.Name, name) {
			k.Values = append(k.Values[:i:i], k.Values[i+1:]...)
			return
		}
	}
}

// merge reads more text over the machine's, later values replacing earlier ones.
func (m *memory) merge(t testing.TB, text string) {
	t.Helper()
	more, err := registry.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var over func(to, from *registry.Node)
	over = func(to, from *registry.Node) {
		for _, v := range from.Values {
			to.Set(v)
		}
		for _, k := range from.Keys {
			over(to.Make(k.Name), k)
		}
	}
	over(m.root, more)
}

func (m *memory) system() *windows.Partition { return &m.machine.Disks[0].Partitions[1] }
