package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"berth/internal/windows"
)

// networkChecks are the checks on the network.
var networkChecks = []Check{
	{
		Code: "DHCPDisabled", ReportAs: "DHCPDisabled", Level: Fail, DecidedIn: OnDisk, Fixable: true,
		Title:      "Every network adapter gets its address by DHCP",
		Source:     "facts §4.2",
		Evaluation: `No interface below Tcpip\Parameters\Interfaces may have EnableDHCP 0 and an IPAddress other than 0.0.0.0, and Start of the service Dhcp must not be 4. Addresses that only removed adapters have left are WARN.`,
		Fix:        "EnableDHCP is set to 1 and the fixed addresses, gateways and name servers are deleted; the DHCP Client service is set to start automatically",
		Remedy: steps(
			"For each adapter named above:",
			`  netsh interface ipv4 set address name="<adapter>" source=dhcp`,
			`  netsh interface ipv4 set dnsservers name="<adapter>" source=dhcp`,
			"Where the DHCP Client service is disabled:",
			"  sc.exe config Dhcp start= auto",
			"An adapter that is no longer there: devmgmt.msc > View > Show hidden devices > Network adapters > right-click it > Uninstall device."),
		judge: judgeDHCP,
		fix:   fixDHCP,
	},
}

// Start types of services (SERVICE_AUTO_START, SERVICE_DISABLED, winnt.h).
const (
	serviceAutomatic = 2
	serviceDisabled  = 4
)

func judgeDHCP(f *Facts, _ Params) Verdict {
	on := []fact{f.Adapters, f.DHCPClientStart}
	var static, removed []string
	var seen []Evidence
	for _, a := range f.Adapters.Value {
		if a.DHCP || len(a.Addresses) == 0 {
			continue
		}
		name := a.ID
		if a.Name != "" {
			name = a.Name
		}
		name += " has " + strings.Join(a.Addresses, ", ")
		if a.Installed {
			static = append(static, name)
		} else {
			removed = append(removed, name)
		}
		seen = few(seen, a.From...)
	}
	var v Verdict
	switch {
	case f.DHCPClientStart.OK() && f.DHCPClientStart.Value == serviceDisabled && len(static) == 0:
		v = unmet("The DHCP Client service is disabled.", on...)
	case len(static) > 0:
		v = unmet("Network adapters have fixed addresses: "+names(static)+".", on...)
	case len(removed) > 0:
		v = unmet("Adapters that are no longer there have left fixed addresses behind: "+names(removed)+".", on...)
		if _, no := missing(on...); !no {
			v.Outcome = Warn
		}
	default:
		if v, no := missing(on...); no {
			return v
		}
		return pass("No network adapter has a fixed address.", on...)
	}
	return v.saw(seen)
}

const (
	interfaces = currentControlSet + `\Services\Tcpip\Parameters\Interfaces`
	// netClass is the device class of network adapters (GUID_DEVCLASS_NET, devguid.h).
	netClass = `{4D36E972-E325-11CE-BFC1-08002BE10318}`
)

// network reads the configuration of every interface that TCP/IP knows.
func (r *reader) network(f *Facts) {
	at := r.at(windows.SystemHive, interfaces)
	k, ids, err := r.subkeys(windows.SystemHive, interfaces, maxAdapters)
	if err != nil {
		f.Adapters = unread[[]Adapter](at, why(err))
		return
	}
	drivers, err := r.drivers()
	if err != nil {
		f.Adapters = unread[[]Adapter](r.at(windows.SystemHive, currentControlSet+`\Control\Class\`+netClass), why(err))
		return
	}
	at = at.of(k)
	list := make([]Adapter, 0, len(ids))
	for _, id := range ids {
		here := at.below(id)
		sub, err := k.Open(id)
		if err != nil {
			f.Adapters = unread[[]Adapter](here, why(err))
			return
		}
		dhcp := valueOf(r, sub, here, "EnableDHCP", keyAlways, false, boolean)
		addresses := valueOf(r, sub, here, "IPAddress", keyAlways, nil, texts)
		for _, k := range []fact{dhcp, addresses} {
			if ok, _, _ := k.state(); !ok {
				f.Adapters = likewise[[]Adapter](k)
				return
			}
		}
		a := Adapter{ID: id, DHCP: dhcp.Value, From: slices.Concat(dhcp.From, addresses.From)}
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
	f.Adapters = read(list, at.says(fmt.Sprintf("interfaces in %s: %d", at, len(list))))
}

// drivers maps the interface GUID, in upper case, of every registered network device to the driver's description.
func (r *reader) drivers() (map[string]string, error) {
	k, names, err := r.subkeys(windows.SystemHive, currentControlSet+`\Control\Class\`+netClass, maxAdapters)
	if err != nil {
		return nil, err
	}
	at := r.at(windows.SystemHive, currentControlSet+`\Control\Class\`+netClass)
	drivers := map[string]string{}
	for _, name := range names {
		if _, err := strconv.ParseUint(name, 10, 16); err != nil || len(name) != 4 {
			continue // "Configuration" and "Properties", which not everybody may open
		}
		sub, err := k.Open(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		id := valueOf(r, sub, at.below(name), "NetCfgInstanceId", keyAlways, "", text)
		if !id.OK() {
			return nil, fmt.Errorf("%s: %s", id.Where(), id.Why)
		}
		desc := valueOf(r, sub, at.below(name), "DriverDesc", keyAlways, "", text)
		drivers[strings.ToUpper(id.Value)] = desc.Value
	}
	return drivers, nil
}
