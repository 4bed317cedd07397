package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"berth/internal/check"
	"berth/internal/windows"
	"berth/internal/windows/offline"
)

// Limits on what a stranger's disk may make us hold. A real machine stays far below them.
const (
	maxServices = 20_000 // Windows 11 has about 700
	maxAdapters = 2_000
	maxUsers    = 20_000
	maxText     = 64 << 10 // bytes of one text value
	// maxListText bounds the texts that one list keeps, in bytes: values of a hostile hive may share their data, so that the size of
	// the hive does not bound them. The longest real list, of programs, has some 100 KB.
	maxListText = 4 << 20
)

// texts counts what a list keeps.
type texts int

// keep is an error when the list has become too long.
func (t *texts) keep(list ...string) error {
	for _, s := range list {
		*t += texts(len(s))
	}
	if *t > maxListText {
		return fmt.Errorf("its texts have more than %d bytes", maxListText)
	}
	return nil
}

const (
	currentVersion = `Microsoft\Windows NT\CurrentVersion`
	control        = `CurrentControlSet\Control\`
	services       = `CurrentControlSet\Services`
	// netClass is the device class of network adapters (GUID_DEVCLASS_NET, devguid.h).
	netClass = control + `Class\{4D36E972-E325-11CE-BFC1-08002BE10318}`
)

// inspectWindows reads the facts of one installation.
func inspectWindows(ctx context.Context, s *offline.System) Windows {
	f := check.Collect(ctx, s)
	disk, start, _ := s.Location()
	w := Windows{
		Disk:     disk,
		Firmware: known(f.Firmware), Version: known(f.Release), Build: known(f.Build), Revision: known(f.Revision), Edition: known(f.EditionID),
		ProductType: known(f.ProductType), Architecture: known(f.Architecture), InstallLanguage: known(f.InstallLanguage),
		DisplayLanguages: known(f.DisplayLanguages), HostName: known(f.HostName),
		Volume: systemVolume(f.SystemVolume),

		ProductName:  value(s, windows.Software, currentVersion, "ProductName", text),
		Installed:    value(s, windows.Software, currentVersion, "InstallDate", unixTime),
		LastShutdown: value(s, windows.SystemHive, control+"Windows", "ShutdownTime", filetime),
		TimeZone:     value(s, windows.SystemHive, control+"TimeZoneInformation", "TimeZoneKeyName", text),
		Setup:        value(s, windows.Software, `Microsoft\Windows\CurrentVersion\Setup\State`, "ImageState", text),
		Hibernation:  hibernation(s),
		FastStartup:  fastStartup(s),
		Programs:     programs(s, f),
		Users:        users(s),
		Network:      networkAdapters(s),
	}
	for _, p := range s.Machine().Disks[disk].Partitions {
		if p.Start == start && p.Role == windows.RoleSystem {
			w.Partition = p.Number
		}
	}
	w.Storage, w.Support = driverServices(s)
	// Last, because damage shows while a hive is read.
	for _, h := range []windows.Hive{windows.SystemHive, windows.Software, windows.SAM, windows.Security, windows.Default, windows.BCD} {
		w.Hives = append(w.Hives, hive(h, s.Hive(h)))
	}
	return w
}

func systemVolume(k check.Known[windows.Volume]) Fact[Volume] {
	f := known(k)
	if f.Value == nil {
		return Fact[Volume]{From: f.From, Unknown: f.Unknown}
	}
	return fact(Volume(*f.Value), f.From)
}

func hive(name windows.Hive, s windows.HiveState) Hive {
	h := Hive{Name: string(name), State: "clean", Dirty: s.Dirty, Replayed: s.Replayed, Why: s.Why}
	switch {
	case errors.Is(s.Err, fs.ErrNotExist):
		h.State = "missing"
	case s.Err != nil:
		h.State, h.Why = "unreadable", s.Err.Error()
	case s.Damaged != "":
		h.State, h.Why = "damaged", s.Damaged
	case s.Stale:
		h.State = "stale"
	case s.Dirty:
		h.State = "replayed"
	}
	return h
}

// hivePath is a key or value for people.
func hivePath(h windows.Hive, path ...string) string {
	return string(h) + `\` + strings.Join(path, `\`)
}

// openKey opens a key of a hive that can be trusted. A key that is not found in a damaged hive is not surely absent.
func openKey(s windows.System, h windows.Hive, path string) (windows.Key, error) {
	switch st := s.Hive(h); {
	case errors.Is(st.Err, fs.ErrNotExist):
		return nil, fmt.Errorf("the %s hive is missing", h)
	case st.Err != nil:
		return nil, fmt.Errorf("the %s hive cannot be read: %w", h, st.Err)
	case st.Stale:
		return nil, fmt.Errorf("the %s hive is out of date: %s", h, st.Why)
	}
	k, err := s.Open(h, path)
	if st := s.Hive(h); errors.Is(err, fs.ErrNotExist) && st.Damaged != "" {
		err = fmt.Errorf("it was not found, but the %s hive is damaged: %s", h, st.Damaged)
	}
	return k, err
}

// value reads one value.
func value[T any](s windows.System, h windows.Hive, key, name string, decode func(windows.Value) (T, error)) Fact[T] {
	from := hivePath(h, key, name)
	k, err := openKey(s, h, key)
	if err != nil {
		return unknown[T](from, err)
	}
	got, err := valueOf(k, name, decode)
	if err != nil {
		return unknown[T](from, err)
	}
	return fact(got, from)
}

// valueOf reads one value of an open key.
func valueOf[T any](k windows.Key, name string, decode func(windows.Value) (T, error)) (T, error) {
	v, err := k.Value(name)
	if err != nil {
		var none T
		return none, err
	}
	return decode(v)
}

// optional is valueOf where absence is the zero value.
func optional[T any](k windows.Key, name string, decode func(windows.Value) (T, error)) (T, error) {
	got, err := valueOf(k, name, decode)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return got, err
}

// text decodes a text value up to its first NUL.
func text(v windows.Value) (string, error) {
	if v.Type != windows.RegSZ && v.Type != windows.RegExpandSZ {
		return "", fmt.Errorf("it has type %d, not that of a text", v.Type)
	}
	if len(v.Data) > maxText {
		return "", fmt.Errorf("a text of %d bytes, %d at most are read", len(v.Data), maxText)
	}
	units := make([]uint16, 0, len(v.Data)/2)
	for b := v.Data; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), nil
}

func number(v windows.Value) (uint32, error) {
	if v.Type != windows.RegDWORD || len(v.Data) != 4 {
		return 0, fmt.Errorf("it has type %d and %d bytes, a REG_DWORD has type 4 and 4 bytes", v.Type, len(v.Data))
	}
	return binary.LittleEndian.Uint32(v.Data), nil
}

func boolean(v windows.Value) (bool, error) {
	n, err := number(v)
	return n != 0, err
}

// unixTime decodes a REG_DWORD that counts seconds since 1970.
func unixTime(v windows.Value) (time.Time, error) {
	n, err := number(v)
	return time.Unix(int64(n), 0).UTC(), err
}

// filetime decodes eight bytes that count 100 ns since 1601 (FILETIME).
func filetime(v windows.Value) (time.Time, error) {
	const to1970 = 116444736000000000 // 100 ns from 1601 to 1970
	if len(v.Data) != 8 {
		return time.Time{}, fmt.Errorf("%d bytes, a FILETIME has 8", len(v.Data))
	}
	n := binary.LittleEndian.Uint64(v.Data)
	if n < to1970 || n > 1<<62 {
		return time.Time{}, fmt.Errorf("%#x is not a time since 1970", n)
	}
	n -= to1970
	return time.Unix(int64(n/1e7), int64(n%1e7)*100).UTC(), nil
}

// hibernation reads what hiberfil.sys begins with (PO_MEMORY_IMAGE's signature, in either case): HIBR: hibernated, by Fast Startup
// too; RSTR: while it was resuming; WAKE: it has resumed. Zeros: never, or shut down fully since.
func hibernation(s windows.System) Fact[string] {
	const name = "hiberfil.sys"
	from := "C:/" + name
	f, err := s.Files().Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fact("none", from+" is not there")
	}
	if err != nil {
		return unknown[string](from, err)
	}
	defer func() { _ = f.Close() }() // only read
	b := make([]byte, 4)
	if info, err := f.Stat(); err != nil || info.Size() < int64(len(b)) {
		return fact("none", from+" is empty")
	}
	for n := 0; n < len(b); {
		k, err := f.Read(b[n:])
		if n += k; err != nil && n < len(b) {
			return unknown[string](from, err)
		}
	}
	switch strings.ToUpper(string(b)) {
	case "HIBR", "RSTR":
		return fact("hibernated", fmt.Sprintf("%s begins with %q", from, b))
	case "WAKE":
		return fact("resumed", fmt.Sprintf("%s begins with %q", from, b))
	}
	return fact("none", fmt.Sprintf("%s begins with % x", from, b))
}

// fastStartup reads whether a shutdown hibernates the kernel.
func fastStartup(s windows.System) Fact[bool] {
	return value(s, windows.SystemHive, control+`Session Manager\Power`, "HiberbootEnabled", boolean)
}

// programs adds versions and publishers to the names that check reads.
func programs(s windows.System, f *check.Facts) Fact[[]Program] {
	const uninstall = `Microsoft\Windows\CurrentVersion\Uninstall`
	list := []Program{}
	var from []string
	var kept texts
	lists := []struct {
		known check.Known[[]check.Program]
		path  string
		bits  int
	}{{f.Programs, uninstall, 64}, {f.Programs32, `WOW6432Node\` + uninstall, 32}}
	if f.Architecture.OK() && strings.EqualFold(f.Architecture.Value, "x86") {
		lists[0].bits = 32
	}
	for _, l := range lists {
		if !l.known.OK() {
			return Fact[[]Program]{From: l.known.Where(), Unknown: known(l.known).Unknown}
		}
		from = append(from, l.known.Where())
		for _, p := range l.known.Value {
			if p.Name == "" {
				continue // Windows does not list it either
			}
			program := Program{Name: p.Name, Bits: l.bits, From: p.From.Text}
			if k, err := openKey(s, windows.Software, l.path+`\`+p.Key); err == nil {
				// Some installers write numbers here; what is no text is left out.
				program.Version, _ = optional(k, "DisplayVersion", text)
				program.Publisher, _ = optional(k, "Publisher", text)
			}
			if err := kept.keep(program.Name, program.Version, program.Publisher, program.From); err != nil {
				return unknown[[]Program](l.known.Where(), err)
			}
			list = append(list, program)
		}
	}
	return fact(list, strings.Join(from, "; "))
}

// startBoot is the start type of drivers that the boot loader brings along (SERVICE_BOOT_START, winnt.h).
const startBoot = 0

// support is the virtual hardware that hypervisors offer, the services of its drivers, and the setup files of those that Windows
// itself brings along for it.
var support = []struct {
	hardware string
	services []string
	inf      []string
}{
	{"AHCI disk", []string{"storahci", "msahci"}, nil},
	{"IDE disk", []string{"atapi", "intelide"}, nil},
	{"NVMe disk", []string{"stornvme", "AWSNVMe"}, nil},
	{"LSI SAS disk", []string{"LSI_SAS"}, nil},
	{"VMware paravirtual disk", []string{"pvscsi", "pvscsii"}, nil},
	{"Hyper-V disk", []string{"storvsc"}, nil},
	{"Xen disk", []string{"xenvbd"}, nil},
	{"virtio disk", []string{"viostor"}, nil},
	{"virtio SCSI disk", []string{"vioscsi"}, nil},
	{"e1000 network", []string{"E1G60"}, []string{"nete1g3e.inf"}},
	{"e1000e network", []string{"e1i65x64", "e1i63x64", "e1i68x64", "e1iexpress"}, []string{"net1ix64.inf"}},
	{"vmxnet3 network", []string{"vmxnet3ndis6"}, nil},
	{"Hyper-V network", []string{"netvsc"}, []string{"wnetvsc.inf"}},
	{"virtio network", []string{"netkvm"}, nil},
}

// driverServices reads the services: which drivers of disk controllers start at boot, and what hardware there are drivers for.
func driverServices(s windows.System) (Fact[[]StorageDriver], Fact[[]Support]) {
	from := hivePath(windows.SystemHive, services)
	fail := func(err error) (Fact[[]StorageDriver], Fact[[]Support]) {
		return unknown[[]StorageDriver](from, err), unknown[[]Support](from, err)
	}
	k, err := openKey(s, windows.SystemHive, services)
	if err != nil {
		return fail(err)
	}
	names, err := k.Subkeys()
	if err != nil {
		return fail(err)
	}
	if len(names) > maxServices {
		return fail(fmt.Errorf("it has %d subkeys, %d at most are read", len(names), maxServices))
	}
	storage := []StorageDriver{}
	var kept texts
	state := map[string]string{} // by service in lower case: "boot" or "installed"
	for _, name := range names {
		sub, err := k.Open(name)
		if err != nil {
			return fail(fmt.Errorf("%s: %w", name, err))
		}
		start, err := valueOf(sub, "Start", number)
		if err != nil {
			continue // a key of parameters, not a service
		}
		low := strings.ToLower(name)
		state[low] = "installed"
		if start != startBoot {
			continue
		}
		group, _ := optional(sub, "Group", text)
		if !strings.EqualFold(group, "SCSI miniport") && !isDiskService(low) {
			continue
		}
		d := StorageDriver{Service: name, AtBoot: true, From: from + `\` + name}
		d.Image, _ = optional(sub, "ImagePath", text)
		// StartOverride: for hardware profile 0 another start type holds, set when the controller is not there.
		if o, err := sub.Open("StartOverride"); err == nil {
			if n, err := valueOf(o, "0", number); err == nil && n != startBoot {
				d.AtBoot = false
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fail(fmt.Errorf("%s: %w", name, err))
		}
		if d.AtBoot {
			state[low] = "boot"
		}
		if err := kept.keep(d.Service, d.Image, d.From); err != nil {
			return fail(err)
		}
		storage = append(storage, d)
	}
	list := make([]Support, 0, len(support))
	for _, h := range support {
		one := Support{Hardware: h.hardware, Driver: "absent"}
		for _, service := range h.services {
			if st := state[strings.ToLower(service)]; st == "boot" || st != "" && one.Driver == "absent" {
				one.Driver, one.Service = st, service
			}
		}
		for _, inf := range h.inf {
			if one.Driver != "absent" {
				break
			}
			switch _, err := fs.Stat(s.Files(), "Windows/INF/"+inf); {
			case err == nil:
				one.Driver = "available"
			case !errors.Is(err, fs.ErrNotExist):
				return fact(storage, from), unknown[[]Support]("C:/Windows/INF/"+inf, err)
			}
		}
		list = append(list, one)
	}
	return fact(storage, from), fact(list, from+"; C:/Windows/INF")
}

func isDiskService(low string) bool {
	for _, h := range support {
		for _, service := range h.services {
			if strings.HasSuffix(h.hardware, "disk") && strings.ToLower(service) == low {
				return true
			}
		}
	}
	return false
}

// networkAdapters reads the class of network adapters: one key of four digits for each device that was ever set up.
func networkAdapters(s windows.System) Fact[[]NetworkAdapter] {
	from := hivePath(windows.SystemHive, netClass)
	k, err := openKey(s, windows.SystemHive, netClass)
	if err != nil {
		return unknown[[]NetworkAdapter](from, err)
	}
	names, err := k.Subkeys()
	if err == nil && len(names) > maxAdapters {
		err = fmt.Errorf("it has %d subkeys, %d at most are read", len(names), maxAdapters)
	}
	if err != nil {
		return unknown[[]NetworkAdapter](from, err)
	}
	list := []NetworkAdapter{}
	var kept texts
	for _, name := range names {
		if _, err := strconv.ParseUint(name, 10, 16); err != nil || len(name) != 4 {
			continue // "Configuration" and "Properties"
		}
		sub, err := k.Open(name)
		if err != nil {
			return unknown[[]NetworkAdapter](from+`\`+name, err)
		}
		a := NetworkAdapter{From: from + `\` + name}
		for _, v := range []struct {
			name string
			to   *string
		}{{"DriverDesc", &a.Description}, {"ComponentId", &a.ComponentID}, {"ProviderName", &a.Provider}, {"DriverVersion", &a.Version}} {
			if *v.to, err = optional(sub, v.name, text); err != nil {
				return unknown[[]NetworkAdapter](a.From+`\`+v.name, err)
			}
		}
		if err := kept.keep(a.Description, a.ComponentID, a.Provider, a.Version, a.From); err != nil {
			return unknown[[]NetworkAdapter](from, err)
		}
		list = append(list, a)
	}
	return fact(list, from)
}
