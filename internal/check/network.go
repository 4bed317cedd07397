package check

import (
	"fmt"
	"strconv"
	"strings"

	"berth/internal/windows"
)

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
