package artifact

import (
	"net/netip"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ address, allow, want string }{
		{address: "8.8.8.8"},
		{address: "93.184.216.34"},
		{address: "172.15.255.255"},
		{address: "172.32.0.0"},
		{address: "100.63.255.255"},
		{address: "100.128.0.0"},
		{address: "2606:4700::1111"},
		{address: "::ffff:8.8.8.8"},
		{address: "64:ff9b::808:808"},
		{address: "2002:808:808::1"},

		{address: "0.0.0.0", want: "an unspecified"},
		{address: "0.1.2.3", want: "an unspecified"},
		{address: "::", want: "an unspecified"},
		{address: "127.0.0.1", want: "a loopback"},
		{address: "127.255.255.255", want: "a loopback"},
		{address: "::1", want: "a loopback"},
		{address: "10.0.0.1", want: "a private"},
		{address: "172.16.0.1", want: "a private"},
		{address: "172.31.255.255", want: "a private"},
		{address: "192.168.1.1", want: "a private"},
		{address: "fc00::1", want: "a private"},
		{address: "fd00:ec2::254", want: "a private"},
		{address: "fec0::1", want: "a private"},
		{address: "169.254.169.254", want: "a link-local"},
		{address: "fe80::1", want: "a link-local"},
		{address: "fe80::1%eth0", want: "a link-local"},
		{address: "100.64.0.1", want: "a shared (carrier-grade NAT)"},
		{address: "100.100.100.200", want: "a shared (carrier-grade NAT)"},
		{address: "224.0.0.1", want: "a multicast"},
		{address: "ff02::1", want: "a multicast"},
		{address: "255.255.255.255", want: "a broadcast"},
		{address: "240.0.0.1", want: "a reserved"},
		{address: "198.18.0.1", want: "a benchmarking"},
		{address: "192.0.2.1", want: "a documentation"},
		{address: "2001:db8::1", want: "a documentation"},
		{address: "168.63.129.16", want: "a cloud platform's own"},
		{address: "192.0.0.1", want: "a reserved"},
		{address: "2001::1", want: "a reserved"}, // Teredo
		{address: "100::1", want: "a reserved"},
		{address: "5f00::1", want: "a reserved"},

		{address: "::ffff:169.254.169.254", want: "a link-local"},
		{address: "::ffff:10.0.0.1", want: "a private"},
		{address: "64:ff9b::7f00:1", want: "a loopback"},
		{address: "64:ff9b:1::808:808", want: "a reserved"},
		{address: "64:ff9b:1:a00:0:100::", want: "a reserved"}, // 10.0.0.1 behind a /48, by RFC 6052
		{address: "64:ff9b:1::808:808", allow: "64:ff9b:1::/48"},
		{address: "2002:a9fe:a9fe::1", want: "a link-local"},
		{address: "::127.0.0.1", want: "a loopback"},

		{address: "10.1.2.3", allow: "10.1.0.0/16"},
		{address: "10.2.2.3", allow: "10.1.0.0/16", want: "a private"},
		{address: "::ffff:10.1.2.3", allow: "10.1.0.0/16"},
		{address: "64:ff9b::a01:203", allow: "10.1.0.0/16"},
		{address: "::1", allow: "127.0.0.0/8", want: "a loopback"},
		{address: "fd00::1", allow: "fd00::/8"},
	} {
		var a addresses
		if c.allow != "" {
			a.allow = []netip.Prefix{netip.MustParsePrefix(c.allow)}
		}
		if got := a.refused(netip.MustParseAddr(c.address)); got != c.want {
			t.Errorf("%s, allowed %q: expected %q, found %q", c.address, c.allow, c.want, got)
		}
	}
}

// A proxy's address would be the only one that is looked at, and what it may reach is more than we may.
func TestSourcesAreAskedWithoutAProxy(t *testing.T) {
	if transport := sourceTransport(addresses{}); transport.Proxy != nil || !transport.DisableKeepAlives {
		t.Error("expected no proxy, and a connection for each request")
	}
}
