package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	// A registry that is there answers at once; what it then sends comes at least this fast, or it is given up.
	headerTimeout  = 10 * time.Second
	leastBytesRate = 256 << 10 // a second
	graceToBegin   = 30 * time.Second
)

// UnreachableError says that the registry gave no answer that means anything: another try may well succeed.
type UnreachableError struct {
	Registry string
	Err      error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("registry %s: %v", e.Registry, e.Err) }
func (e *UnreachableError) Unwrap() error { return e.Err }

// Registry is one repository of an OCI registry, read anonymously and by digest only.
type Registry struct {
	base   string // "https://host:port/v2/namespace/name"
	host   string
	client *http.Client
}

// repositoryName is the distribution spec's grammar.
var repositoryName = regexp.MustCompile(`^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)

// NewRegistry is the repository at an address "http(s)://host:port". Plain HTTP is refused, unless it is to loopback or
// allowed: digests guard what is pulled, but not who learns of it.
func NewRegistry(address, repository string, allowPlainHTTP bool) (*Registry, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") ||
		(u.Path != "" && u.Path != "/") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("registry: expected http://host:port or https://host:port, found %s", quote.Name(address))
	}
	if u.Scheme == "http" && !allowPlainHTTP && !isLoopback(u.Hostname()) {
		return nil, fmt.Errorf("registry: expected https, or http to a loopback address, found %s", quote.Name(address))
	}
	if len(repository) > 255 || !repositoryName.MatchString(repository) {
		return nil, fmt.Errorf("repository: expected namespace/name in lower case, found %s", quote.Name(repository))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = headerTimeout
	transport.DisableCompression = true // a blob's bytes are its identity
	return &Registry{
		base: u.Scheme + "://" + u.Host + "/v2/" + repository,
		host: u.Host,
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // nowhere but there
		}},
	}, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// open begins to read a manifest or a blob of at most size bytes; kind is "manifests" or "blobs".
func (r *Registry) open(ctx context.Context, kind, digest string, size int64) (io.ReadCloser, error) {
	limit := graceToBegin + time.Duration(size/leastBytesRate)*time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/"+kind+"/"+digest, http.NoBody)
	if err != nil {
		cancel()
		return nil, err
	}
	if kind == "manifests" {
		request.Header.Set("Accept", manifestType)
	}
	response, err := r.client.Do(request)
	if err != nil {
		cancel()
		return nil, &UnreachableError{r.host, innermost(err)}
	}
	switch code := response.StatusCode; {
	case code == http.StatusOK:
		return &body{r.host, response.Body, cancel}, nil
	case code == http.StatusTooManyRequests || code >= http.StatusInternalServerError:
		err = &UnreachableError{r.host, fmt.Errorf("expected status 200, found %d", code)}
	default: // its text is not repeated: a registry may say anything
		err = fmt.Errorf("registry %s: expected status 200, found %d", r.host, code)
	}
	_ = response.Body.Close() // nothing of it is wanted
	cancel()
	return nil, err
}

// body is a response's body, whose errors are the registry's.
type body struct {
	host string
	io.ReadCloser
	cancel context.CancelFunc
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &UnreachableError{b.host, innermost(err)}
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// innermost strips the URL, which is long, differs from blob to blob, and says nothing of the cause.
func innermost(err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}
