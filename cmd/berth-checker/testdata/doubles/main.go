//go:build windows

// Command doubles stands in, in Wine, for programs of Windows that Wine has not got, each under its own name. They take the command
// line that Microsoft's documentation has, refuse any other, and do what the checker looks at afterwards.
package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/windows/registry"
)

func main() {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	switch strings.ToLower(filepath.Base(exe)) {
	case "sysprep.exe":
		sysprep(filepath.Dir(exe))
	case "uninst.exe":
		uninstall(exe)
	case "powershell.exe":
		powershell()
	default:
		panic("no program is called " + exe)
	}
}

// refuse ends with an error.
func refuse(format string, a ...any) {
	fmt.Printf(format+"\r\n", a...)
	os.Exit(1)
}

// sysprep writes to its log, or marks its success. What it is to do stands in the environment.
func sysprep(folder string) {
	panther := filepath.Join(folder, "Panther")
	if err := os.MkdirAll(panther, 0o777); err != nil {
		panic(err)
	}
	fail := func(lines ...string) {
		log, err := os.OpenFile(filepath.Join(panther, "setuperr.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			panic(err)
		}
		for _, l := range lines {
			fmt.Fprintf(log, "%s, %s\r\n", time.Now().Format("2006-01-02 15:04:05"), l)
		}
		if err := log.Close(); err != nil {
			panic(err)
		}
		os.Exit(0) // Sysprep's exit code tells nothing
	}
	var answer string
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool {
		rest, ok := strings.CutPrefix(a, "/unattend:")
		if ok {
			answer = rest
		}
		return ok
	})
	slices.Sort(args)
	if !slices.Equal(args, []string{"/generalize", "/oobe", "/quiet", "/shutdown"}) {
		fail("Error      SYSPRP Invalid command line: " + strings.Join(os.Args[1:], " "))
	}
	b, err := os.ReadFile(answer)
	if err != nil {
		fail("Error      SYSPRP Failed to read the answer file: " + err.Error())
	}
	var file struct {
		XMLName  xml.Name `xml:"urn:schemas-microsoft-com:unattend unattend"`
		Settings []struct {
			Pass string `xml:"pass,attr"`
		} `xml:"settings"`
	}
	if err := xml.Unmarshal(b, &file); err != nil || len(file.Settings) == 0 || file.Settings[0].Pass != "oobeSystem" {
		fail(fmt.Sprintf("Error      SYSPRP Failed to parse the answer file: %v", err))
	}
	if os.Getenv("SYSPREP_FAILS") != "" {
		fail("Info       SYSPRP Nothing of note",
			"Error      SYSPRP Package Contoso.Game_1.0.0.0_x64__8wekyb3d8bbwe was installed for a user, but not provisioned for all users. This package will not function properly in the sysprep image.",
			"Error      SYSPRP Failed to remove apps for the current user: 0x80073cf2.<b>&\x1b[2J")
	}
	if err := os.WriteFile(filepath.Join(folder, "Sysprep_succeeded.tag"), nil, 0o666); err != nil {
		panic(err)
	}
}

// uninstall is the silent uninstaller of the PCoIP agent.
func uninstall(exe string) {
	if !slices.Equal(os.Args[1:], []string{"/S"}) {
		refuse("unknown arguments %q", os.Args[1:])
	}
	for _, key := range []string{
		`SYSTEM\CurrentControlSet\Services\PCoIPAgent`,
		`SOFTWARE\WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall\PCoIP Standard Agent`,
	} {
		if err := registry.DeleteKey(registry.LOCAL_MACHINE, key); err != nil {
			refuse("%s: %v", key, err)
		}
	}
	if err := os.Rename(exe, exe+".removed"); err != nil { // a program that runs cannot be deleted
		refuse("%v", err)
	}
	os.Exit(3010) // done; a restart is wanted
}

// powershell knows one script: what removes an AppX package.
func powershell() {
	name := os.Getenv("BERTH_PACKAGE")
	if len(os.Args) != 5 || !slices.Equal(os.Args[1:4], []string{"-NoProfile", "-NonInteractive", "-Command"}) {
		refuse("unknown arguments %q", os.Args[1:])
	}
	for _, part := range []string{"$env:BERTH_PACKAGE", "'Bundle', 'Main'", "Get-AppxPackage -AllUsers -PackageTypeFilter $type", "Remove-AppxPackage -AllUsers", "Remove-AppxProvisionedPackage -Online"} {
		if !strings.Contains(os.Args[4], part) {
			refuse("the script is without %s", part)
		}
	}
	if name == "" || strings.Contains(os.Args[4], name) {
		refuse("the package %q does not come in by the environment alone", name)
	}
	const store = `SOFTWARE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore`
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, store, registry.READ)
	if err != nil {
		refuse("%v", err)
	}
	users, err := k.ReadSubKeyNames(-1)
	if err != nil {
		refuse("%v", err)
	}
	family := func(full string) string {
		parts := strings.Split(full, "_")
		return strings.ToLower(parts[0] + "_" + parts[len(parts)-1])
	}
	found := false
	for _, user := range users {
		if !strings.HasPrefix(user, "S-1-") && user != "Applications" {
			continue
		}
		k, err := registry.OpenKey(registry.LOCAL_MACHINE, store+`\`+user, registry.READ)
		if err != nil {
			refuse("%v", err)
		}
		packages, err := k.ReadSubKeyNames(-1)
		if err != nil {
			refuse("%v", err)
		}
		for _, full := range packages {
			if family(full) == family(name) {
				found = registry.DeleteKey(registry.LOCAL_MACHINE, store+`\`+user+`\`+full) == nil || found
			}
		}
	}
	if !found {
		refuse("nobody has %s", name)
	}
}
