package artifact

import (
	"net/url"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Origin is where a folder comes from: an artifact in an OCI registry, or an archive at a URL.
type Origin struct {
	Ref string // of an artifact, host/repository:tag or host/repository@sha256:digest; or
	URL string // of a .tar.gz, and
	// SHA256 of that, as hexadecimal digits, where only one archive will do.
	SHA256 string

	Credentials *Credentials // nil: none
}

// String is an origin as messages name it. The query of a URL is left out: it may be what gives access.
func (o Origin) String() string {
	if o.URL == "" {
		return "source " + quote.Name(o.Ref)
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.User != nil {
		return "source" // no telling what part of it is secret
	}
	return "source " + quote.Name((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String())
}

// parseURL checks the URL of an archive.
func (o Origin) parseURL() (*url.URL, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil ||
		len(o.URL) > maxURL {
		return nil, invalid(o.String(), "expected https://host/path of at most %d bytes, without a user", maxURL)
	}
	return u, nil
}
