package artifact

import (
	"context"
	"net/netip"
	"slices"
	"syscall"
)

// special are the ranges of addresses that are no place for a source, by what they are: nothing there is on the
// internet, and what is there may trust whoever can reach it. IPv6 is public in 2000::/3 alone.
var special = []struct {
	class  string
	ranges []netip.Prefix
}{
	{"an unspecified", prefixes("0.0.0.0/8", "::/128")},
	{"a loopback", prefixes("127.0.0.0/8", "::1/128")},
	{"a private", prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")},
	{"a link-local", prefixes("169.254.0.0/16", "fe80::/10")},
	{"a shared (carrier-grade NAT)", prefixes("100.64.0.0/10")},
	{"a multicast", prefixes("224.0.0.0/4", "ff00::/8")},
	{"a broadcast", prefixes("255.255.255.255/32")},
	{"a benchmarking", prefixes("198.18.0.0/15", "2001:2::/48")},
	{"a documentation", prefixes("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")},
	{"a cloud platform's own", prefixes("168.63.129.16/32")}, // Azure's, to every machine there
	{"a reserved", prefixes("192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "2001::/23")},
}

// The ranges of IPv6 that stand for IPv4: what the address holds is where a packet comes out. Not 64:ff9b:1::/48 (RFC
// 8215): where in such an address the IPv4 one is, only its network knows, so it is reserved as a whole.
var (
	public     = netip.MustParsePrefix("2000::/3")
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	compatible = netip.MustParsePrefix("::/96")
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// addresses says which may be asked.
type addresses struct{ allow []netip.Prefix }

// control refuses a connection that is about to be made. It sees the address that a name led to, so a redirect, a token
// realm or a name that has changed its meaning cannot get past it.
func (a addresses) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return forbidden("it leads to no address of the internet")
	}
	if class := a.refused(to.Addr()); class != "" {
		return forbidden("it leads to " + class + " address, where no source is asked unless --source-allow-cidr opens it")
	}
	return nil
}

// refused tells what is special about an address that may not be asked; "" if it may.
func (a addresses) refused(address netip.Addr) (class string) {
	address = address.WithZone("").Unmap()
	inner, embeds := embedded(address)
	if a.allows(address) || embeds && a.allows(inner) {
		return ""
	}
	if class := classOf(address); class != "" {
		return class
	}
	if embeds {
		return classOf(inner)
	}
	return ""
}

func (a addresses) allows(address netip.Addr) bool {
	return slices.ContainsFunc(a.allow, func(p netip.Prefix) bool { return p.Contains(address) })
}

// classOf tells what is special about an address, but for what it may embed.
func classOf(address netip.Addr) string {
	for _, s := range special {
		if slices.ContainsFunc(s.ranges, func(p netip.Prefix) bool { return p.Contains(address) }) {
			return s.class
		}
	}
	if _, embeds := embedded(address); address.Is6() && !embeds && !public.Contains(address) {
		return "a reserved"
	}
	return ""
}

// embedded is the IPv4 address that an IPv6 address stands for.
func embedded(address netip.Addr) (inner netip.Addr, ok bool) {
	b := address.As16()
	switch {
	case !address.Is6():
		return netip.Addr{}, false
	case sixToFour.Contains(address):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case nat64.Contains(address), compatible.Contains(address):
		return netip.AddrFrom4([4]byte(b[12:])), true
	}
	return netip.Addr{}, false
}
