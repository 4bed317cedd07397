package live

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"berth/internal/windows"
)

// windowsApplication is the application id of Windows itself among what the Software Protection Platform licenses (slmgr.vbs).
const windowsApplication = "55c92734-d682-4d71-983e-d6ec3f16059f"

// kmsPort is where a key management service listens unless told otherwise.
const kmsPort = 1688

// Licensing asks the classes SoftwareLicensingService and SoftwareLicensingProduct.
func (s *System) Licensing() (windows.Licensing, error) {
	var l windows.Licensing
	service, err := wmi(`root\cimv2`, "SELECT * FROM SoftwareLicensingService",
		"RemainingWindowsReArmCount", "KeyManagementServiceMachine", "KeyManagementServicePort", "DiscoveredKeyManagementServiceMachineName", "DiscoveredKeyManagementServiceMachinePort")
	if err != nil {
		return l, err
	}
	if len(service) != 1 {
		return l, fmt.Errorf("WMI has %d objects of SoftwareLicensingService", len(service))
	}
	var ok bool
	if l.RearmCount, ok = count(service[0]["RemainingWindowsReArmCount"]); !ok {
		return l, errors.New("SoftwareLicensingService does not tell RemainingWindowsReArmCount")
	}
	l.KMS = cmp.Or(
		address(service[0]["KeyManagementServiceMachine"], service[0]["KeyManagementServicePort"]),
		address(service[0]["DiscoveredKeyManagementServiceMachineName"], service[0]["DiscoveredKeyManagementServiceMachinePort"]))
	products, err := wmi(`root\cimv2`, "SELECT * FROM SoftwareLicensingProduct WHERE ApplicationID='"+windowsApplication+"' AND PartialProductKey IS NOT NULL",
		"LicenseStatus", "ProductKeyChannel", "GracePeriodRemaining", "LicenseIsAddon")
	if err != nil {
		return l, err
	}
	found := false
	for _, p := range products {
		if addon, _ := p["LicenseIsAddon"].(bool); addon { // extended security updates and the like
			continue
		}
		status, ok := count(p["LicenseStatus"])
		if !ok {
			return l, errors.New("SoftwareLicensingProduct does not tell LicenseStatus")
		}
		if found && l.Status == 1 {
			continue // of several keys the licensed one counts
		}
		found = true
		l.Status, l.Channel, l.Expires = status, word(p["ProductKeyChannel"]), time.Time{}
		if minutes, ok := count(p["GracePeriodRemaining"]); ok && minutes > 0 {
			l.Expires = s.now().Add(time.Duration(minutes) * time.Minute)
		}
	}
	if !found { // Windows without a product key
		l.Status = 0
	}
	return l, nil
}

// address joins a host and its port; "" where no host is set.
func address(host, port any) string {
	if word(host) == "" {
		return ""
	}
	n, ok := count(port)
	if !ok || n <= 0 {
		n = kmsPort
	}
	return net.JoinHostPort(word(host), strconv.Itoa(n))
}

// AntiVirus asks the class AntiVirusProduct of the Security Center.
func (s *System) AntiVirus() ([]windows.AntiVirusProduct, error) {
	rows, err := wmi(`root\SecurityCenter2`, "SELECT * FROM AntiVirusProduct", "displayName", "pathToSignedProductExe")
	if err != nil {
		return nil, err
	}
	var list []windows.AntiVirusProduct
	for _, r := range rows {
		list = append(list, windows.AntiVirusProduct{Name: word(r["displayName"]), Executable: word(r["pathToSignedProductExe"])})
	}
	return list, nil
}

// Packages reads the registry's store of AppX packages.
func (s *System) Packages() ([]windows.Package, error) { return packages(s) }

// PendingReboot looks at the registry.
func (s *System) PendingReboot() ([]string, error) { return pendingReboot(s) }

// What runs, as Win32_DeviceGuard.SecurityServicesRunning counts it.
const (
	credentialGuard = 1
	memoryIntegrity = 2
)

// DeviceGuard asks the class Win32_DeviceGuard for what runs. Whether that is locked no class tells, and the UEFI variable can only
// be read before Windows starts: the registry tells what Windows was told to lock (Locked, LsaCfgFlags 1).
func (s *System) DeviceGuard() (windows.DeviceGuard, error) {
	var g windows.DeviceGuard
	rows, err := wmi(`root\Microsoft\Windows\DeviceGuard`, "SELECT * FROM Win32_DeviceGuard", "SecurityServicesRunning")
	if err != nil {
		return g, err
	}
	if len(rows) != 1 {
		return g, fmt.Errorf("WMI has %d objects of Win32_DeviceGuard", len(rows))
	}
	running, ok := rows[0]["SecurityServicesRunning"].([]any)
	if !ok {
		return g, errors.New("Win32_DeviceGuard does not tell SecurityServicesRunning")
	}
	for _, v := range running {
		switch n, _ := count(v); n {
		case credentialGuard:
			g.CredentialGuard = true
		case memoryIntegrity:
			g.MemoryIntegrity = true
		}
	}
	g.UEFILock, err = locked(s)
	return g, err
}
