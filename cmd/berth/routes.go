package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// hostNetworks lists the IPv4 networks that this host has routes to: those that its interfaces are in, and those behind its
// gateways and tunnels.
func hostNetworks() ([]netip.Prefix, error) {
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return routes(f)
}

// leastRouteBits is the length of the shortest route that means somebody's network: 10.0.0.0/8 is the largest private one.
// Shorter ones are the way to everywhere else: the default route, or the two halves (/1) that VPNs put in its place.
const leastRouteBits = 8

// routes reads the kernel's routing table as /proc/net/route shows it: a line of headings, then interface, destination,
// gateway, flags, three counters and the mask; addresses as hexadecimal numbers in the host's byte order.
func routes(r io.Reader) ([]netip.Prefix, error) {
	var out []netip.Prefix
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		field := strings.Fields(lines.Text())
		if n == 1 || len(field) == 0 {
			continue
		}
		if len(field) < 8 {
			return nil, fmt.Errorf("routing table, line %d: %d columns", n, len(field))
		}
		to, err1 := strconv.ParseUint(field[1], 16, 32)
		mask, err2 := strconv.ParseUint(field[7], 16, 32)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("routing table, line %d: destination %q, mask %q", n, field[1], field[7])
		}
		if length := bits.OnesCount32(uint32(mask)); field[0] != "lo" && length >= leastRouteBits {
			var a [4]byte
			binary.NativeEndian.PutUint32(a[:], uint32(to))
			out = append(out, netip.PrefixFrom(netip.AddrFrom4(a), length).Masked())
		}
	}
	return out, lines.Err()
}
