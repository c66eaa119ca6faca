package artifact

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	orasregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
)

const userAgent = "switchyard"

// maxRedirects is what a blob behind a content network takes, and some.
const maxRedirects = 5

// defaultTransport bounds every step that a context does not see until it is too late.
func defaultTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true, // bytes are checked as they come
	}
}

// sourceTransport is the way to sources: only to addresses that may be asked, by no proxy, whose address would be the
// only one to be looked at, and with a connection for each request: what is left of one on an idle connection net/http
// would write to the log, in the server's words.
func sourceTransport(to addresses) *http.Transport {
	transport := defaultTransport()
	transport.Proxy = nil
	transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second, ControlContext: to.control}).DialContext
	transport.DisableKeepAlives = true
	return transport
}

// schemes refuses plain HTTP but to loopback hosts and those named. It sees every request: redirects, and the places
// where registries give out tokens, too.
type schemes struct {
	next  http.RoundTripper
	plain []string // hosts, with port, that are spoken to without TLS
}

// RoundTrip sends what is allowed.
func (s schemes) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && (r.URL.Scheme != "http" || !s.isPlain(r.URL.Host)) {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, forbidden("it leads to a host that is not spoken to without TLS")
	}
	return s.next.RoundTrip(r)
}

func (s schemes) isPlain(host string) bool { return isLoopback(host) || slices.Contains(s.plain, host) }

// isLoopback tells of a host, with or without port, whether it is this machine by its name alone.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

// sameScheme follows redirects, as registries send to where blobs lie, while the scheme stays.
func sameScheme(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return refusal("more redirects than a registry has need of")
	}
	if r.URL.Scheme != via[0].URL.Scheme {
		return refusal("a redirect to another scheme")
	}
	return nil
}

// repository is the client of the repository of a reference.
func repository(ref orasregistry.Reference, plain bool, client remote.Client) *remote.Repository {
	return &remote.Repository{Client: client, Reference: ref, PlainHTTP: plain, MaxMetadataBytes: maxManifest}
}
