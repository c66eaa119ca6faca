package artifact

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// FetcherOptions are a Fetcher's bounds and its way out. The zero value is usable.
type FetcherOptions struct {
	Layers       int            // of one artifact; 256
	Entries      int            // of one archive, those that are skipped too; 4096
	AdapterBytes int64          // of one adapter's files together, of its archive, and of all that is in that; 1 GiB
	BaseBytes    int64          // of one base, likewise; 16 GiB
	Patience     time.Duration  // in each of which an answer has to bring some bytes; 30 s
	PlainHTTP    []string       // hosts (with port) that are spoken to without TLS, besides loopback hosts
	Allow        []netip.Prefix // of the addresses that are special and refused, those that are asked for all that

	// Transport carries all requests, those to other hosts that a source sends us to included; nil is one that holds to
	// Allow.
	Transport http.RoundTripper
}

// Fetcher gets the folder of a base or an adapter from where its user keeps it.
type Fetcher struct {
	options FetcherOptions
	schemes schemes
}

// NewFetcher is a fetcher.
func NewFetcher(o FetcherOptions) *Fetcher {
	o.Layers = cmp.Or(o.Layers, 256)
	o.Entries = cmp.Or(o.Entries, 4096)
	o.AdapterBytes = cmp.Or(o.AdapterBytes, 1<<30)
	o.BaseBytes = cmp.Or(o.BaseBytes, 16<<30)
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	if o.Transport == nil {
		o.Transport = sourceTransport(addresses{o.Allow})
	}
	return &Fetcher{o, schemes{o.Transport, o.PlainHTTP}}
}

// Fetch writes the files of an origin into an empty folder, and returns the revision that the origin has of them: an
// artifact's is the digest of its manifest, an archive's its own. Given a revision, it is that one or an error,
// whatever a tag or a URL stands for by now. Only the files that a kind is made of are written. After an error the
// folder holds rubbish.
func (f *Fetcher) Fetch(ctx context.Context, kind Kind, from Origin, revision, dir string) (found string, err error) {
	root, err := openEmpty(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	if from.URL != "" {
		return f.fetchArchive(ctx, kind, from, revision, root)
	}
	return f.fetchArtifact(ctx, kind, from, revision, root)
}

// guard is the way to one origin, if its credentials, where it has any, are for its host.
func (f *Fetcher) guard(from Origin, scheme, host string) (*guard, error) {
	g := &guard{next: f.schemes, scheme: scheme, host: host, credentials: from.Credentials, patience: f.options.Patience}
	if from.Credentials != nil && from.Credentials.header(scheme, host) == "" {
		return nil, &Error{
			Reason: SecretInvalid, Retry: true, where: from.String(),
			what: "the Secret has no credentials for its host " + quote.Name(host),
		}
	}
	return g, nil
}

// limit is how many bytes a folder may have.
func (f *Fetcher) limit(kind Kind) int64 {
	if kind == Base {
		return f.options.BaseBytes
	}
	return f.options.AdapterBytes
}

// missing says what a folder holds in place of a file that it lacks.
func missing(f format, has func(name string) bool, names []string) string {
	if has(f.pickle) {
		return f.pickle + ", a pickle, which is never read: save it as safetensors"
	}
	return quote.Name(strings.Join(names, ", "))
}

// openEmpty opens an empty folder.
func openEmpty(dir string) (*os.Root, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("folder %s: expected it empty, found %s", quote.Name(dir), quote.Name(entries[0].Name()))
	}
	return os.OpenRoot(dir)
}

// advise adds to an error of a source that wants credentials, or others, what to do.
func advise(err error, g *guard) error {
	var e *Error
	if errors.As(err, &e) && e.Reason == Unauthorized {
		e.what += ": " + g.advice()
	}
	return err
}

func sha256Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
