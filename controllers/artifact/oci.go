package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
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
	// unpacked marks a layer that oras made of a folder: an archive.
	unpacked = "io.deis.oras.content.unpack"
)

// fetchArtifact gets an artifact as oras push puts it there: each layer is a file.
func (f *Fetcher) fetchArtifact(
	ctx context.Context, kind Kind, from Origin, revision string, root *os.Root,
) (found string, err error) {
	repo, g, err := f.open(from)
	if err != nil {
		return "", err
	}
	if revision, err = f.pull(ctx, repo, kind, from, revision, root); err != nil {
		return "", advise(err, g)
	}
	return revision, nil
}

func (f *Fetcher) pull(
	ctx context.Context, repo *remote.Repository, kind Kind, from Origin, revision string, root *os.Root,
) (found string, err error) {
	where := place{from.String(), "an OCI registry"}
	reference := repo.Reference.Reference // what to ask for: a tag is asked for once, so that it cannot move
	if pinned, err := repo.Reference.Digest(); err == nil {
		if revision == "" {
			revision = pinned.String()
		}
		if pinned.String() != revision {
			return "", invalid(where.name, "expected its digest as the revision, found %s", quote.Name(revision))
		}
	}
	if revision != "" {
		reference = revision
	}
	raw, err := readManifest(ctx, repo, reference)
	if err != nil {
		return "", explain(ctx, where, err)
	}
	found = sha256Digest(raw)
	if revision != "" && found != revision {
		return "", invalid(where.name, "manifest: expected digest %s, found %s", quote.Name(revision), found)
	}
	layers, err := f.layers(kind, where.name, raw)
	if err != nil {
		return "", err
	}
	for _, layer := range layers {
		if err := downloadLayer(ctx, repo, layer, root); err != nil {
			where.name += ": file " + layer.Annotations[ocispec.AnnotationTitle]
			return "", explain(ctx, where, err)
		}
	}
	return found, nil
}

// open checks a reference and makes a client of its repository.
func (f *Fetcher) open(from Origin) (*remote.Repository, *guard, error) {
	const expected = "expected host/repository:tag or host/repository@sha256:digest"
	if len(from.Ref) > maxRef {
		return nil, nil, invalid(from.String(), "%s, found %d bytes", expected, len(from.Ref))
	}
	parsed, err := orasregistry.ParseReference(from.Ref)
	if err != nil {
		return nil, nil, invalid(from.String(), "%s", expected)
	}
	if parsed.Reference == "" {
		return nil, nil, invalid(from.String(), "%s, found neither tag nor digest", expected)
	}
	scheme, plain := "https", f.schemes.isPlain(parsed.Host())
	if plain {
		scheme = "http"
	}
	g, err := f.guard(from, scheme, parsed.Host())
	if err != nil {
		return nil, nil, err
	}
	// A client of its own for each artifact: its cache keeps the token that a registry gives in exchange for what the
	// guard adds, or to anyone who asks. It knows no credentials itself, for it would take them wherever a registry says.
	client := &auth.Client{
		Client:               &http.Client{Transport: g, CheckRedirect: sameScheme},
		Header:               http.Header{"User-Agent": {userAgent}},
		Cache:                auth.NewCache(),
		BlockedRealmPrefixes: []netip.Prefix{}, // where a connection may go is looked at when it is made
	}
	return repository(parsed, plain, client), g, nil
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
func (f *Fetcher) layers(kind Kind, where string, raw []byte) ([]ocispec.Descriptor, error) {
	manifest, err := parseManifest(where, raw)
	if err != nil {
		return nil, err
	}
	if n := len(manifest.Layers); n > f.options.Layers {
		return nil, invalid(where, "expected at most %d layers, found %d", f.options.Layers, n)
	}
	limit := f.limit(kind)
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
			return nil, invalid(where, "layer %d: expected a plain file name, found %s", i, quote.Name(title))
		}
		if _, ok := seen[title]; ok {
			return nil, invalid(where, "layer %d: expected each file once, found %s twice", i, quote.Name(title))
		}
		seen[title], names = layer, append(names, title)
		if !format.has(title) {
			continue
		}
		if err := layer.Digest.Validate(); err != nil {
			return nil, invalid(where, "file %s: expected the digest sha256:…, found %s",
				quote.Name(title), quote.Name(string(layer.Digest)))
		}
		if layer.Size < 0 || layer.Size > left {
			return nil, invalid(where, "file %s: expected at most %d bytes for all files, found %d for this one",
				quote.Name(title), limit, layer.Size)
		}
		left -= layer.Size
		wanted = append(wanted, layer)
	}
	if name := format.lacks(func(name string) bool { _, ok := seen[name]; return ok }); name != "" {
		return nil, invalid(where, "expected the file %s, found %s", name, missingLayer(format, seen, names))
	}
	return wanted, nil
}

// manifest is an image manifest, or what betrays that it is an index.
type manifest struct {
	ocispec.Manifest
	Manifests []json.RawMessage `json:"manifests"`
}

// parseManifest reads a manifest of an artifact and refuses what else registries hold.
func parseManifest(where string, raw []byte) (*manifest, error) {
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, invalid(where, "manifest: expected the JSON of an OCI image manifest, found something else")
	}
	switch {
	case m.MediaType == ocispec.MediaTypeImageIndex || len(m.Manifests) > 0:
		return nil, invalid(where, "manifest: expected one artifact, found an index of several")
	case m.MediaType != "" && m.MediaType != ocispec.MediaTypeImageManifest:
		return nil, invalid(where, "manifest: mediaType: expected %s, found %s",
			ocispec.MediaTypeImageManifest, quote.Name(m.MediaType))
	case m.Config.MediaType == ocispec.MediaTypeImageConfig && m.ArtifactType == "":
		return nil, invalid(where, "expected an artifact whose layers are files, as oras push makes it, "+
			"found a container image")
	}
	return &m, nil
}

// missingLayer says what an artifact holds in place of a file that it lacks.
func missingLayer(f format, seen map[string]ocispec.Descriptor, names []string) string {
	for _, name := range names {
		if seen[name].Annotations[unpacked] == "true" {
			return "the folder " + quote.Name(name) + ": push the files in it, not the folder"
		}
	}
	if len(names) == 0 {
		return "no layer with a file's name (" + ocispec.AnnotationTitle + ")"
	}
	return missing(f, func(name string) bool { _, ok := seen[name]; return ok }, names)
}

// isPlainName tells whether a layer's title is the name of a file in a folder, and no way out of it.
func isPlainName(name string) bool {
	return name != "" && len(name) <= 255 && name[0] != '.' && !strings.ContainsAny(name, "/\\\x00")
}

// downloadLayer writes a layer to the file that it is titled by, and checks size and digest on the way.
func downloadLayer(ctx context.Context, repo *remote.Repository, layer ocispec.Descriptor, root *os.Root) error {
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
