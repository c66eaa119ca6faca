package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Base reads the description of a base model that the registry has, without its weights.
func (s *Store) Base(ctx context.Context, repo, revision string) (*arch.Description, error) {
	raw, err := s.File(ctx, repo, revision, baseConfig, maxConfig)
	if err != nil {
		return nil, err
	}
	base, err := arch.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("base model %s: %w", revision, err)
	}
	return base, nil
}

// File reads one small file of an artifact, checked against its digest.
func (s *Store) File(ctx context.Context, repo, revision, name string, limit int64) ([]byte, error) {
	r, err := s.open(repo)
	if err != nil {
		return nil, err
	}
	where := s.where(repo + "@" + revision)
	raw, err := readManifest(ctx, r, revision)
	if err != nil {
		return nil, s.explain(ctx, repo, err)
	}
	var m ocispec.Manifest
	if sha256Digest(raw) != revision || json.Unmarshal(raw, &m) != nil {
		return nil, &Error{Reason: Unreachable, Retry: true, where: where, what: "its manifest is damaged"}
	}
	i := slices.IndexFunc(m.Layers, func(l ocispec.Descriptor) bool {
		return l.Annotations[ocispec.AnnotationTitle] == name
	})
	if i < 0 || m.Layers[i].Size > limit {
		return nil, invalid(where, "expected the file %s of at most %d bytes, found none", quote.Name(name), limit)
	}
	body, err := r.Blobs().Fetch(ctx, m.Layers[i])
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, &Error{Reason: Unreachable, Retry: true, where: where, what: "its file " + quote.Name(name) + " is lost"}
	}
	if err != nil {
		return nil, s.explain(ctx, repo, err)
	}
	defer func() { _ = body.Close() }()
	checked := content.NewVerifyReader(body, m.Layers[i])
	data, err := io.ReadAll(checked)
	if err == nil {
		err = checked.Verify()
	}
	if err != nil {
		return nil, s.explain(ctx, repo, err)
	}
	return data, nil
}
