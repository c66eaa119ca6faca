package artifact

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	orasregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// StoreOptions say where the artifact registry is, and by what we and it know each other. Both may change at any time.
type StoreOptions struct {
	Host  string                                        // with port; spoken to over TLS only
	Token func() (string, error)                        // of our own service account, with the registry's audience
	Roots func(context.Context) (*x509.CertPool, error) // the certificates that its own must come from
}

// Store keeps artifacts in the artifact registry. What Push and Exists fail of is the registry's, not the artifact's,
// and worth another try.
type Store struct {
	host   string
	client *http.Client
}

// NewStore is a client of the artifact registry.
func NewStore(o StoreOptions) (*Store, error) {
	if err := (orasregistry.Reference{Registry: o.Host}).ValidateRegistry(); err != nil {
		return nil, fmt.Errorf("artifact registry: expected host:port, found %s", quote.Name(o.Host))
	}
	transport := defaultTransport()
	transport.Proxy = nil // it is a neighbour
	// It answers a push once all of it is on its disk, which takes its time.
	transport.ResponseHeaderTimeout = 5 * time.Minute
	transport.DialTLSContext = dialTrusting(o.Roots, transport.DialContext)
	return &Store{
		host: o.Host,
		client: &http.Client{
			Transport: bearer{transport, o.Host, o.Token},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return refusal("a redirect, which the artifact registry never sends")
			},
		},
	}, nil
}

// dialTrusting opens connections to whose certificate comes from one of the roots as they are at that time.
func dialTrusting(
	roots func(context.Context) (*x509.CertPool, error),
	dial func(ctx context.Context, network, address string) (net.Conn, error),
) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		trusted, err := roots(ctx)
		if err != nil {
			return nil, untrusting{err}
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTime)
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(conn, &tls.Config{RootCAs: trusted, ServerName: host, MinVersion: tls.VersionTLS13})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return secure, nil
	}
}

// handshakeTime bounds the making of a connection with its TLS.
const handshakeTime = 20 * time.Second

// untrusting says that we do not know whom to trust, or who we are, at this time.
type untrusting struct{ error }

func (u untrusting) Unwrap() error { return u.error }

// bearer carries our token to the artifact registry and nowhere else.
type bearer struct {
	next  http.RoundTripper
	host  string
	token func() (string, error)
}

// RoundTrip sends the request with the token.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != b.host {
		return b.next.RoundTrip(r)
	}
	token, err := b.token()
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, untrusting{err}
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return b.next.RoundTrip(r)
}

// Repository is where the artifacts of a pool are, its base's and its adapters'.
func Repository(namespace, pool string) string { return namespace + "/" + pool }

// Push puts an artifact into a repository. Blobs that are there are not sent again; pushing twice changes nothing. When
// it returns without an error, all of the artifact is there.
func (s *Store) Push(ctx context.Context, repo string, p *Packed) error {
	r, err := s.open(repo)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := s.push(ctx, r, p)
		if missesBlobs(err) && try < pushTries {
			continue // what was there when we looked, and was garbage until then, is pushed like the rest
		}
		if err != nil {
			return s.explain(ctx, repo, err)
		}
		break
	}
	switch ok, err := s.Exists(ctx, repo, p.Digest); {
	case err != nil:
		return err
	case !ok:
		// It has lost some of it again, or somebody used a damaged blob just when we pushed it, which left it there.
		return &Error{
			Reason: Unreachable, Retry: true, where: s.where(repo),
			what: p.Digest + " was pushed and is not there whole: the registry's storage is damaged",
		}
	}
	return nil
}

// pushTries is how often what is missing is pushed within one Push.
const pushTries = 3

// missesBlobs tells whether a manifest was not taken because blobs of it are not there.
func missesBlobs(err error) bool {
	var response *errcode.ErrorResponse
	return errors.As(err, &response) && slices.ContainsFunc(response.Errors, func(e errcode.Error) bool {
		return e.Code == errcode.ErrorCodeManifestBlobUnknown
	})
}

// Exists tells whether all of an artifact is there: its manifest, and each blob with its size.
func (s *Store) Exists(ctx context.Context, repo, revision string) (bool, error) {
	r, err := s.open(repo)
	if err != nil {
		return false, err
	}
	ok, err := exists(ctx, r, revision)
	if err != nil {
		return false, s.explain(ctx, repo, err)
	}
	return ok, nil
}

func (s *Store) open(repo string) (*remote.Repository, error) {
	ref := orasregistry.Reference{Registry: s.host, Repository: repo}
	if err := ref.ValidateRepository(); err != nil {
		return nil, fmt.Errorf("artifact registry: expected namespace/pool, found %s", quote.Name(repo))
	}
	return repository(ref, false, s.client), nil
}

func (s *Store) push(ctx context.Context, r *remote.Repository, p *Packed) error {
	settings := ocispec.Descriptor{Digest: digest.FromBytes(p.Settings), Size: int64(len(p.Settings))}
	if err := pushBlob(ctx, r, settings, p.Settings); err != nil {
		return err
	}
	for _, file := range p.Files {
		mapping, err := p.folder.MapFile(file.Name)
		if err != nil {
			return local{err}
		}
		blob := ocispec.Descriptor{
			Digest: digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(file.SHA256[:])),
			Size:   file.Size,
		}
		err = pushBlob(ctx, r, blob, mapping.Data)
		_ = mapping.Close()
		if err != nil {
			return err
		}
	}
	manifest := content.NewDescriptorFromBytes(ocispec.MediaTypeImageManifest, p.Manifest)
	return r.Manifests().Push(ctx, manifest, bytes.NewReader(p.Manifest))
}

// pushBlob pushes a blob unless it is there.
func pushBlob(ctx context.Context, r *remote.Repository, blob ocispec.Descriptor, data []byte) error {
	ok, err := holds(ctx, r, blob)
	if err != nil || ok {
		return err
	}
	body := &borrowed{data: data}
	defer body.end()
	return r.Blobs().Push(ctx, blob, body)
}

// borrowed reads bytes that may be unmapped once end has returned. A client whose request was answered early goes on
// reading the body for a while, and to read what is unmapped kills the process.
type borrowed struct {
	mu    sync.Mutex
	data  []byte
	ended bool
}

// Read copies the next bytes.
func (b *borrowed) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, fs.ErrClosed
	}
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func (b *borrowed) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended, b.data = true, nil
}

// holds tells whether a repository holds a blob with its whole size.
func holds(ctx context.Context, r *remote.Repository, blob ocispec.Descriptor) (bool, error) {
	found, err := r.Blobs().Resolve(ctx, blob.Digest.String())
	if errors.Is(err, errdef.ErrNotFound) {
		return false, nil
	}
	return err == nil && found.Size == blob.Size, err
}

func exists(ctx context.Context, r *remote.Repository, revision string) (bool, error) {
	raw, err := readManifest(ctx, r, revision)
	if errors.Is(err, errdef.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var m ocispec.Manifest
	if sha256Digest(raw) != revision || json.Unmarshal(raw, &m) != nil {
		return false, nil // damaged
	}
	for _, blob := range append(m.Layers, m.Config) {
		if ok, err := holds(ctx, r, blob); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (s *Store) where(repo string) string { return "artifact registry " + quote.Name(s.host+"/"+repo) }

// explain is for the registry's owner, who can cure whatever it is: nothing here is the artifact's fault.
func (s *Store) explain(ctx context.Context, repo string, err error) error {
	var e *Error
	if !errors.As(explain(ctx, place{s.where(repo), "an OCI registry"}, err), &e) {
		return err
	}
	var response *errcode.ErrorResponse
	var ours untrusting
	switch {
	case errors.As(err, &ours):
		e.what = ours.Error()
	case errors.As(err, &response) && response.StatusCode == http.StatusForbidden:
		e.what = "it does not let our account push"
	case e.Reason == Unauthorized:
		e.what = "it does not take our token"
	}
	e.Reason, e.Retry = Unreachable, true
	return e
}
