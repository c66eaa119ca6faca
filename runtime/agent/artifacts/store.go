package artifacts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	maxManifest = 1 << 20
	maxSettings = 4 << 20
	maxFiles    = 64 // of a revision; ours have three
)

// Store is the folder of artifacts. Safe for concurrent use.
type Store struct {
	dir      string
	registry *Registry
	// fetching is held to read by those who fetch, and to write while what is unwanted is removed.
	fetching sync.RWMutex
}

// Artifact is one revision on disk.
type Artifact struct {
	Digest   string
	Type     string // of its manifest: an adapter's or a base's
	Folder   string // its files
	Settings []byte // its config blob
}

// NewStore opens the folder, or makes it. What an interrupted process left half written is removed.
func NewStore(dir string, registry *Registry) (*Store, error) {
	s := &Store{dir: dir, registry: registry}
	if err := os.RemoveAll(s.path("incoming")); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	for _, sub := range []string{"incoming", "blobs/sha256", "revisions", marksDir} {
		if err := os.MkdirAll(s.path(sub), 0o700); err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
	}
	return s, nil
}

// Fetch makes sure that a revision of at most limit bytes is in the folder, whole and checked. One revision is fetched
// by one caller at a time. Its error is an UnreachableError if the registry is away, and the context's if that ends.
func (s *Store) Fetch(ctx context.Context, digest string, limit int64) (*Artifact, error) {
	s.fetching.RLock()
	defer s.fetching.RUnlock()
	if !IsDigest(digest) {
		return nil, fmt.Errorf("digest: expected sha256: and 64 hexadecimal digits, found %s", quote.Name(digest))
	}
	a, err := s.fetch(ctx, digest, limit)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("artifact %s: %w", digest, err)
	}
	return a, nil
}

func (s *Store) fetch(ctx context.Context, digest string, limit int64) (*Artifact, error) {
	raw, err := s.small(ctx, "manifests", descriptor{Digest: digest, Size: -1}, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := parseManifest(raw, limit)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	settings, err := s.small(ctx, "blobs", m.Config, maxSettings)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	for _, layer := range m.Layers {
		if s.holds(layer) {
			continue
		}
		if err := s.pull(ctx, "blobs", layer, layer.Size); err != nil {
			return nil, fmt.Errorf("file %s: %w", quote.Name(layer.title()), err)
		}
	}
	folder, err := s.assemble(digest, m)
	if err != nil {
		return nil, err
	}
	return &Artifact{digest, m.ArtifactType, folder, settings}, nil
}

// Keep removes every revision but those, with the blobs that only removed ones have. It does nothing while something is
// fetched: what that needs is not known yet.
func (s *Store) Keep(digests map[string]bool) error {
	if !s.fetching.TryLock() {
		return nil
	}
	defer s.fetching.Unlock()
	revisions, blobs := make(map[string]bool), make(map[string]bool)
	for digest := range digests {
		if !IsDigest(digest) {
			continue
		}
		revisions[hexOf(digest)], blobs[hexOf(digest)] = true, true
		raw, err := os.ReadFile(s.blob(digest))
		if err != nil {
			continue // not here yet
		}
		m, err := parseManifest(raw, 1<<62)
		if err != nil {
			continue
		}
		for _, d := range append(m.Layers, m.Config) {
			blobs[hexOf(d.Digest)] = true
		}
	}
	return errors.Join(s.sweep("revisions", revisions), s.sweep("blobs/sha256", blobs))
}

func (s *Store) sweep(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(s.path(dir))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !keep[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(s.path(dir), e.Name())))
		}
	}
	return errors.Join(errs...)
}

// small is a manifest or settings: in the folder, or pulled into it.
func (s *Store) small(ctx context.Context, kind string, d descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("expected at most %d bytes, found %d", limit, d.Size)
	}
	for pulled := false; ; pulled = true {
		raw, err := os.ReadFile(s.blob(d.Digest))
		if err == nil && digestOf(raw) == d.Digest && (d.Size < 0 || int64(len(raw)) == d.Size) {
			return raw, nil
		}
		if pulled { // it was checked as it came
			return nil, errors.Join(errors.New("expected to read what was just written, found other content"), err)
		}
		if err := s.pull(ctx, kind, d, limit); err != nil {
			return nil, err
		}
	}
}

// holds tells whether a blob is in the folder and is what it should be.
func (s *Store) holds(d descriptor) bool {
	file, err := os.Open(s.blob(d.Digest))
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // only read
	h := sha256.New()
	n, err := io.Copy(h, file)
	return err == nil && n == d.Size && "sha256:"+hex.EncodeToString(h.Sum(nil)) == d.Digest
}

// pull writes a blob into the folder. It appears there whole, or not at all.
func (s *Store) pull(ctx context.Context, kind string, d descriptor, limit int64) error {
	from, err := s.registry.open(ctx, kind, d.Digest, limit)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // only read
	file, err := os.CreateTemp(s.path("incoming"), hexOf(d.Digest)+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already if all went well
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, h), io.LimitReader(from, limit+1))
	if err == nil {
		err = file.Sync()
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if n > limit || (d.Size >= 0 && n != d.Size) {
		return fmt.Errorf("registry %s: expected %d bytes, found %s", s.registry.host, max(d.Size, 0), sizeFound(n, limit))
	}
	if found := "sha256:" + hex.EncodeToString(h.Sum(nil)); found != d.Digest {
		return fmt.Errorf("registry %s: expected content of digest %s, found %s", s.registry.host, d.Digest, found)
	}
	return os.Rename(file.Name(), s.blob(d.Digest))
}

func sizeFound(n, limit int64) string {
	if n > limit {
		return fmt.Sprintf("more than %d", limit)
	}
	return strconv.FormatInt(n, 10)
}

// assemble makes the revision's folder anew: one left by another process may have anything in it.
func (s *Store) assemble(digest string, m *manifest) (string, error) {
	folder := filepath.Join(s.path("revisions"), hexOf(digest))
	building, err := os.MkdirTemp(s.path("incoming"), "revision-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(building) }() // gone already if all went well
	for _, layer := range m.Layers {
		if err := os.Link(s.blob(layer.Digest), filepath.Join(building, layer.title())); err != nil {
			return "", err
		}
	}
	if err := os.RemoveAll(folder); err != nil {
		return "", err
	}
	return folder, os.Rename(building, folder)
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *Store) blob(digest string) string {
	return filepath.Join(s.path("blobs/sha256"), hexOf(digest))
}

// WriteFile writes a file of that name beside the artifacts, whole or not at all.
func (s *Store) WriteFile(name string, data []byte) error {
	file, err := os.CreateTemp(s.path("incoming"), "file-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already if all went well
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), s.path(name))
}

// ReadFile reads what WriteFile wrote; nil if there is none.
func (s *Store) ReadFile(name string) ([]byte, error) {
	data, err := os.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// manifest has the fields of an OCI image manifest that are used here.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type descriptor struct {
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

func (d descriptor) title() string { return d.Annotations["org.opencontainers.image.title"] }

// plainName is a file's name that is no path, no hidden file, and fit for any file system.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

// parseManifest reads a manifest whose files have at most limit bytes together.
func parseManifest(raw []byte, limit int64) (*manifest, error) {
	var m manifest
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(&m); err != nil {
		return nil, fmt.Errorf("malformed: %s", quote.Text(err.Error()))
	}
	if m.SchemaVersion != 2 || m.MediaType != manifestType {
		return nil, fmt.Errorf("expected schemaVersion 2 of type %s, found %d of %s",
			manifestType, m.SchemaVersion, quote.Name(m.MediaType))
	}
	if len(m.Layers) > maxFiles {
		return nil, fmt.Errorf("layers: expected at most %d, found %d", maxFiles, len(m.Layers))
	}
	total, names := int64(0), make([]string, 0, len(m.Layers))
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		if !IsDigest(d.Digest) || d.Size < 0 || d.Size > limit {
			return nil, fmt.Errorf("expected a sha256 digest and at most %d bytes, found %s of %d bytes",
				limit, quote.Name(d.Digest), d.Size)
		}
		if total += d.Size; total > limit {
			return nil, fmt.Errorf("expected at most %d bytes in all files, found more", limit)
		}
	}
	for _, d := range m.Layers {
		if !plainName.MatchString(d.title()) || slices.Contains(names, d.title()) {
			return nil, fmt.Errorf("layer: expected a plain file name that no other has, found %s", quote.Name(d.title()))
		}
		names = append(names, d.title())
	}
	return &m, nil
}

var digestGrammar = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// IsDigest tells whether a text is a digest as revisions have it.
func IsDigest(s string) bool { return digestGrammar.MatchString(s) }

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
