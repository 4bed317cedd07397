package live

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unsafe"

	sys "golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"berth/internal/windows"
)

var (
	advapi32        = sys.NewLazySystemDLL("advapi32.dll")
	procRegSetValue = advapi32.NewProc("RegSetValueExW")
)

// Apply makes a change. It asks nobody. An error says that the change was not made, or not wholly. The password is that of an account
// that was made, and is kept nowhere else; it is empty after any other change.
func (s *System) Apply(ctx context.Context, c windows.Change) (Password, error) {
	switch c := c.(type) {
	case windows.SetValue:
		return "", s.setValue(ctx, c)
	case windows.DeleteValue:
		return "", s.deleteValue(c)
	case windows.EnableAccount:
		return "", enableAccount(c.Name)
	case windows.CreateAccount:
		return createAccount(c.Name)
	case windows.RunUninstaller:
		return "", runUninstaller(ctx, c)
	case windows.RemovePackage:
		return "", s.removePackage(ctx, c.FullName)
	}
	return "", fmt.Errorf("a running Windows cannot %s", c)
}

// writable opens a key that exists so that its values can be changed.
func (s *System) writable(hive windows.Hive, path string) (registry.Key, error) {
	if hive == windows.SAM || hive == windows.Security {
		return 0, fmt.Errorf("hive %s is Windows' own while it runs", hive)
	}
	top, err := s.root(hive)
	if err != nil {
		return 0, err
	}
	if path != "" {
		top.path += `\` + path
	}
	return top.handle(registry.SET_VALUE)
}

// setValue sets a value. How services start is told to the service control manager, which otherwise would not know and may write
// its own knowledge over it.
func (s *System) setValue(ctx context.Context, c windows.SetValue) error {
	if name, ok := serviceStart(c); ok {
		svc, err := openService(name, sys.SERVICE_CHANGE_CONFIG)
		if err == nil {
			defer svc.close()
			return svc.setStart(binary.LittleEndian.Uint32(c.Value.Data))
		}
		if !errors.Is(err, sys.ERROR_SERVICE_DOES_NOT_EXIST) {
			return err
		}
		// A key without a service behind it is only a key.
	}
	k, err := s.writable(c.Hive, c.Key)
	if err != nil {
		return err
	}
	defer k.Close()
	name, err := sys.UTF16PtrFromString(c.Value.Name)
	if err != nil {
		return err
	}
	var data *byte
	if len(c.Value.Data) > 0 {
		data = &c.Value.Data[0]
	}
	status, _, _ := procRegSetValue.Call(uintptr(k), uintptr(unsafe.Pointer(name)), 0, uintptr(c.Value.Type), uintptr(unsafe.Pointer(data)), uintptr(len(c.Value.Data)))
	if status != 0 {
		return fmt.Errorf(`%s\%s\%s: %w`, c.Hive, c.Key, c.Value.Name, sys.Errno(status))
	}
	return s.tell(ctx, c)
}

// setReservedStorage is the first build whose DISM knows /Set-ReservedStorageState (Windows 10, version 2004).
const setReservedStorage = 19041

// tell lets Windows' own tools do the rest where a value alone is not all: they would put it back, or it concerns files.
func (s *System) tell(ctx context.Context, c windows.SetValue) error {
	if len(c.Value.Data) != 4 || binary.LittleEndian.Uint32(c.Value.Data) != 0 {
		return nil
	}
	is := func(hive windows.Hive, key, name string) bool {
		return c.Hive == hive && strings.EqualFold(c.Key, key) && strings.EqualFold(c.Value.Name, name)
	}
	switch {
	case is(windows.SystemHive, `CurrentControlSet\Control\Power`, "HibernateEnabled"):
		return s.tool(ctx, "powercfg.exe", "/hibernate", "off") // deletes hiberfil.sys, too
	case is(windows.Software, `Microsoft\Windows\CurrentVersion\ReserveManager`, "ActiveScenario") && sys.RtlGetVersion().BuildNumber >= setReservedStorage:
		return s.tool(ctx, "dism.exe", "/Online", "/Set-ReservedStorageState", "/State:Disabled") // facts §4.2, ReservedStorageInUse
	}
	return nil
}

// tool runs one of Windows' own programs where this Windows has it.
func (s *System) tool(ctx context.Context, name string, args ...string) error {
	path := filepath.Join(s.windows, "System32", name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLine(out))
	}
	return nil
}

func (s *System) deleteValue(c windows.DeleteValue) error {
	k, err := s.writable(c.Hive, c.Key)
	if err == nil {
		defer k.Close()
		err = k.DeleteValue(c.Name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf(`%s\%s\%s: %w`, c.Hive, c.Key, c.Name, err)
	}
	return nil
}

// runUninstaller runs a program's uninstaller and waits for it.
func runUninstaller(ctx context.Context, c windows.RunUninstaller) error {
	if !filepath.IsAbs(c.Path) {
		return fmt.Errorf("the uninstaller of %s is %q, which is no full path", c.Program, c.Path)
	}
	if _, err := os.Stat(c.Path); err != nil {
		return fmt.Errorf("the uninstaller of %s: %w", c.Program, err)
	}
	out, err := exec.CommandContext(ctx, c.Path, c.Args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && restartWanted(exit.ExitCode()) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("the uninstaller of %s: %w: %s", c.Program, err, lastLine(out))
	}
	return nil
}

// restartWanted tells the exit codes of installers that did what they should and want a restart (ERROR_SUCCESS_REBOOT_REQUIRED,
// ERROR_SUCCESS_REBOOT_INITIATED).
func restartWanted(code int) bool { return code == 3010 || code == 1641 }

// removeScript removes a package in all its versions from every user and from what new ones get. Bundles are listed only where they are asked
// for, and take what is in them along, which alone is not removed for all users (Microsoft, Remove-AppxPackage). The name comes in as a
// variable of the environment, so that nothing of it is taken for PowerShell.
const removeScript = `$ErrorActionPreference = 'Stop'
$name = $env:BERTH_PACKAGE.Split('_')
Get-AppxProvisionedPackage -Online | Where-Object { $_.DisplayName -eq $name[0] } | Remove-AppxProvisionedPackage -Online | Out-Null
foreach ($type in 'Bundle', 'Main', 'Framework') {
    Get-AppxPackage -AllUsers -PackageTypeFilter $type | Where-Object { $_.Name -eq $name[0] -and $_.PublisherId -eq $name[-1] } | Remove-AppxPackage -AllUsers
}`

func (s *System) removePackage(ctx context.Context, fullName string) error {
	if !isPackageName(fullName) {
		return fmt.Errorf("%q is not the full name of a package", fullName)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.windows, `System32\WindowsPowerShell\v1.0\powershell.exe`), "-NoProfile", "-NonInteractive", "-Command", removeScript)
	cmd.Env = append(os.Environ(), "BERTH_PACKAGE="+fullName)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("package %s is not removed: %w: %s", fullName, err, lastLine(out))
	}
	return nil
}
