package artifacts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	// A registry that is there answers at once; what it then sends comes at least this fast, or it is given up.
	headerTimeout  = 10 * time.Second
	leastBytesRate = 256 << 10 // a second
	graceToBegin   = 30 * time.Second

	maxCAFile = 1 << 20
	maxToken  = 16 << 10
)

// UnreachableError says that the registry gave no answer that means anything: another try may well succeed.
type UnreachableError struct {
	Registry string
	Err      error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("registry %s: %v", e.Registry, e.Err) }
func (e *UnreachableError) Unwrap() error { return e.Err }

// RegistryOptions say where a repository is, and by what the pod and the registry know each other. The files are read
// again whenever they are needed: kubelet renews them under a running process.
type RegistryOptions struct {
	Address    string // https://host:port
	Repository string // namespace/pool
	TokenFile  string // with the pod's token for the registry
	CAFile     string // with the certificates that the registry's must come from
}

// Registry is one repository of an OCI registry, read by digest only.
type Registry struct {
	base      string // "https://host:port/v2/namespace/name"
	host      string
	tokenFile string
	client    *http.Client
}

// repositoryName is the distribution spec's grammar.
var repositoryName = regexp.MustCompile(`^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)

// NewRegistry is a repository; nothing is asked of it yet.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	u, err := url.Parse(o.Address)
	if err != nil || u.Host == "" || u.Scheme != "https" || (u.Path != "" && u.Path != "/") || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("registry: expected https://host:port, found %s", quote.Name(o.Address))
	}
	if len(o.Repository) > 255 || !repositoryName.MatchString(o.Repository) {
		return nil, fmt.Errorf("repository: expected namespace/name in lower case, found %s", quote.Name(o.Repository))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // it is a neighbour
	transport.ResponseHeaderTimeout = headerTimeout
	transport.DisableCompression = true // a blob's bytes are its identity
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, network, address, o.CAFile)
	}
	return &Registry{
		base:      "https://" + u.Host + "/v2/" + o.Repository,
		host:      u.Host,
		tokenFile: o.TokenFile,
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // nowhere but there
		}},
	}, nil
}

// dial makes a connection to whose certificate comes from one of those in the file as it is now.
func dial(ctx context.Context, network, address, caFile string) (net.Conn, error) {
	trusted, err := readFile(caFile, maxCAFile)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(trusted) {
		return nil, fmt.Errorf("certificates: expected PEM in %s, found none", caFile)
	}
	ctx, cancel := context.WithTimeout(ctx, headerTimeout)
	defer cancel()
	return (&tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}).
		DialContext(ctx, network, address)
}

// readFile reads a small file.
func readFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: expected at most %d bytes, found more", path, limit)
	}
	return data, nil
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
	token, err := readFile(r.tokenFile, maxToken)
	if err != nil {
		cancel()
		return nil, &UnreachableError{r.host, fmt.Errorf("our token for it: %w", err)}
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
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
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		err = fmt.Errorf("registry %s: it does not take this pod's token: expected status 200, found %d", r.host, code)
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
