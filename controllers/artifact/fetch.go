package artifact

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	orasregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	// maxManifest is what registries allow a manifest to be.
	maxManifest = 4 << 20
	// maxRef is far more than the 255 bytes of a repository, a host and a digest take.
	maxRef = 1024
	// unpack marks a layer that oras made of a folder: an archive.
	unpack = "io.deis.oras.content.unpack"
)

// FetcherOptions are a Fetcher's bounds and its way out. The zero value is usable.
type FetcherOptions struct {
	Layers       int      // of one artifact; 256
	AdapterBytes int64    // of one adapter's files together; 1 GiB
	BaseBytes    int64    // of one base's files together; 16 GiB
	PlainHTTP    []string // hosts (with port) that are spoken to without TLS, besides loopback hosts

	// Transport carries all requests, those to other hosts that a registry sends us to included; nil dials anywhere.
	Transport http.RoundTripper
}

// Fetcher gets artifacts from OCI registries, as oras push puts them there: each layer is a file.
type Fetcher struct {
	options FetcherOptions
	schemes schemes
}

// NewFetcher is a fetcher.
func NewFetcher(o FetcherOptions) *Fetcher {
	o.Layers = cmp.Or(o.Layers, 256)
	o.AdapterBytes = cmp.Or(o.AdapterBytes, 1<<30)
	o.BaseBytes = cmp.Or(o.BaseBytes, 16<<30)
	if o.Transport == nil {
		o.Transport = defaultTransport()
	}
	return &Fetcher{o, schemes{o.Transport, o.PlainHTTP}}
}

// Resolve tells the digest of the manifest that a reference names now. A reference by digest is its own answer.
func (f *Fetcher) Resolve(ctx context.Context, ref string) (revision string, err error) {
	repo, err := f.open(ref)
	if err != nil {
		return "", err
	}
	if digest, err := repo.Reference.Digest(); err == nil {
		return digest.String(), nil
	}
	found, err := repo.Resolve(ctx, repo.Reference.Reference)
	if err == nil {
		return found.Digest.String(), nil
	}
	// A registry need not answer HEAD, nor with a digest.
	if e := explainRemote(ctx, source(ref), err); e.Reason != Invalid {
		return "", e
	}
	manifest, err := readManifest(ctx, repo, repo.Reference.Reference)
	if err != nil {
		return "", explain(ctx, source(ref), err)
	}
	return sha256Digest(manifest), nil
}

// Fetch writes the files of the artifact that a reference named when it was resolved to that revision into an empty
// folder. Only the files that a kind is made of are written. After an error the folder holds rubbish.
func (f *Fetcher) Fetch(ctx context.Context, kind Kind, ref, revision, dir string) error {
	repo, err := f.open(ref)
	if err != nil {
		return err
	}
	if pinned, err := repo.Reference.Digest(); err == nil && pinned.String() != revision {
		return invalid(source(ref), "expected its digest as the revision, found %s", quote.Name(revision))
	}
	raw, err := readManifest(ctx, repo, revision)
	if err != nil {
		return explain(ctx, source(ref), err)
	}
	if found := sha256Digest(raw); found != revision {
		return invalid(source(ref), "manifest: expected digest %s, found %s", quote.Name(revision), found)
	}
	layers, err := f.layers(kind, ref, raw)
	if err != nil {
		return err
	}
	root, err := openEmpty(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, layer := range layers {
		if err := download(ctx, repo, layer, root); err != nil {
			return explain(ctx, source(ref)+": file "+layer.Annotations[ocispec.AnnotationTitle], err)
		}
	}
	return nil
}

// open checks a reference and makes a client of its repository.
func (f *Fetcher) open(ref string) (*remote.Repository, error) {
	const expected = "expected host/repository:tag or host/repository@sha256:digest"
	if len(ref) > maxRef {
		return nil, invalid(source(ref), "%s, found %d bytes", expected, len(ref))
	}
	parsed, err := orasregistry.ParseReference(ref)
	if err != nil {
		return nil, invalid(source(ref), "%s", expected)
	}
	if parsed.Reference == "" {
		return nil, invalid(source(ref), "%s, found neither tag nor digest", expected)
	}
	// A client of its own for each artifact: its cache keeps the token that a registry gives to anyone who asks.
	client := &auth.Client{
		Client: &http.Client{Transport: f.schemes, CheckRedirect: sameScheme},
		Header: http.Header{"User-Agent": {"switchyard"}},
		Cache:  auth.NewCache(),
	}
	return repository(parsed, f.schemes.isPlain(parsed.Host()), client), nil
}

// readManifest reads a manifest by tag or digest; its digest is for the caller to check.
func readManifest(ctx context.Context, repo *remote.Repository, reference string) ([]byte, error) {
	_, body, err := repo.FetchReference(ctx, reference)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxManifest {
		return nil, refusal(fmt.Sprintf("manifest: expected at most %d bytes, found more", maxManifest))
	}
	return raw, nil
}

// layers are those of a manifest's layers that a kind is made of, checked by name and size.
func (f *Fetcher) layers(kind Kind, ref string, raw []byte) ([]ocispec.Descriptor, error) {
	manifest, err := parseManifest(ref, raw)
	if err != nil {
		return nil, err
	}
	if n := len(manifest.Layers); n > f.options.Layers {
		return nil, invalid(source(ref), "expected at most %d layers, found %d", f.options.Layers, n)
	}
	limit := f.options.AdapterBytes
	if kind == Base {
		limit = f.options.BaseBytes
	}
	format, seen := kind.format(), map[string]ocispec.Descriptor{}
	var names []string
	var wanted []ocispec.Descriptor
	left := limit
	for i, layer := range manifest.Layers {
		title, ok := layer.Annotations[ocispec.AnnotationTitle]
		if !ok {
			continue // not of oras push
		}
		if !isPlainName(title) {
			return nil, invalid(source(ref), "layer %d: expected a plain file name, found %s", i, quote.Name(title))
		}
		if _, ok := seen[title]; ok {
			return nil, invalid(source(ref), "layer %d: expected each file once, found %s twice", i, quote.Name(title))
		}
		seen[title], names = layer, append(names, title)
		if !slices.Contains(format.required, title) && !slices.Contains(format.optional, title) {
			continue
		}
		if err := layer.Digest.Validate(); err != nil {
			return nil, invalid(source(ref), "file %s: expected the digest sha256:…, found %s",
				quote.Name(title), quote.Name(string(layer.Digest)))
		}
		if layer.Size < 0 || layer.Size > left {
			return nil, invalid(source(ref), "file %s: expected at most %d bytes for all files, found %d for this one",
				quote.Name(title), limit, layer.Size)
		}
		left -= layer.Size
		wanted = append(wanted, layer)
	}
	for _, name := range format.required {
		if _, ok := seen[name]; !ok {
			return nil, invalid(source(ref), "expected the file %s, found %s", name, missing(format, seen, names))
		}
	}
	return wanted, nil
}

// manifest is an image manifest, or what betrays that it is an index.
type manifest struct {
	ocispec.Manifest
	Manifests []json.RawMessage `json:"manifests"`
}

// parseManifest reads a manifest of an artifact and refuses what else registries hold.
func parseManifest(ref string, raw []byte) (*manifest, error) {
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, invalid(source(ref), "manifest: expected the JSON of an OCI image manifest, found something else")
	}
	switch {
	case m.MediaType == ocispec.MediaTypeImageIndex || len(m.Manifests) > 0:
		return nil, invalid(source(ref), "manifest: expected one artifact, found an index of several")
	case m.MediaType != "" && m.MediaType != ocispec.MediaTypeImageManifest:
		return nil, invalid(source(ref), "manifest: mediaType: expected %s, found %s",
			ocispec.MediaTypeImageManifest, quote.Name(m.MediaType))
	case m.Config.MediaType == ocispec.MediaTypeImageConfig && m.ArtifactType == "":
		return nil, invalid(source(ref), "expected an artifact whose layers are files, as oras push makes it, "+
			"found a container image")
	}
	return &m, nil
}

// missing says what an artifact holds in place of a file that it lacks.
func missing(f format, seen map[string]ocispec.Descriptor, names []string) string {
	if _, ok := seen[f.pickle]; ok {
		return f.pickle + ", a pickle, which is never read: save it as safetensors"
	}
	for _, name := range names {
		if seen[name].Annotations[unpack] == "true" {
			return "the folder " + quote.Name(name) + ": push the files in it, not the folder"
		}
	}
	if len(names) == 0 {
		return "no layer with a file's name (" + ocispec.AnnotationTitle + ")"
	}
	return quote.Name(strings.Join(names, ", "))
}

// isPlainName tells whether a layer's title is the name of a file in a folder, and no way out of it.
func isPlainName(name string) bool {
	return name != "" && len(name) <= 255 && name[0] != '.' && !strings.ContainsAny(name, "/\\\x00")
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

// download writes a layer to the file that it is titled by, and checks size and digest on the way.
func download(ctx context.Context, repo *remote.Repository, layer ocispec.Descriptor, root *os.Root) error {
	body, err := repo.Blobs().Fetch(ctx, layer)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	file, err := root.OpenFile(layer.Annotations[ocispec.AnnotationTitle], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return local{err}
	}
	checked := content.NewVerifyReader(body, layer)
	_, err = io.Copy(file, checked)
	if err == nil {
		err = checked.Verify()
	}
	if closed := file.Close(); err == nil && closed != nil {
		return local{closed}
	}
	if disk := (*fs.PathError)(nil); errors.As(err, &disk) {
		return local{err}
	}
	return err
}

func sha256Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
