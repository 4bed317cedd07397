package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestRoutes(t *testing.T) {
	// As on a little-endian machine with a LAN, a VPN for everything, an office network behind it, and a link-local network.
	const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0101A8C0	0003	0	0	100	00000000	0	0	0
tun0	00000000	01000A0A	0003	0	0	0	00000080	0	0	0
tun0	00000080	01000A0A	0003	0	0	0	00000080	0	0	0
tun0	0000070A	01000A0A	0003	0	0	0	0000FFFF	0	0	0
eth0	0001A8C0	00000000	0001	0	0	100	00FFFFFF	0	0	0
lo	0000007F	00000000	0001	0	0	0	000000FF	0	0	0
`
	got, err := routes(strings.NewReader(table))
	if want := "[10.7.0.0/16 192.168.1.0/24]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("routes: %v, %v; want %s", got, err, want)
	}
	for _, bad := range []string{"head\neth0 1 2\n", "head\neth0 xyz 0 0 0 0 0 00FFFFFF\n"} {
		if _, err := routes(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := hostNetworks(); err != nil {
		t.Error(err)
	}
}
