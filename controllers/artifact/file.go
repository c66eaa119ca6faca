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
	"oras.land/oras-go/v2/registry/remote"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Base reads what adapters of a base model that the registry has are checked against, without its weights: of them the
// names alone.
func (s *Store) Base(ctx context.Context, repo, revision string) (base BaseModel, err error) {
	a, err := s.artifact(ctx, repo, revision)
	if err != nil {
		return BaseModel{}, err
	}
	raw, err := a.read(ctx, baseConfig, maxConfig)
	if err != nil {
		return BaseModel{}, err
	}
	names, err := a.tensors(ctx)
	if err != nil {
		return BaseModel{}, err
	}
	if base.Description, err = arch.Parse(raw, names); err != nil {
		return BaseModel{}, fmt.Errorf("base model %s: %w", revision, err)
	}
	if base.Text != nil {
		if base.Tokenizer, err = a.tokenizer(ctx, revision); err != nil {
			return BaseModel{}, err
		}
	}
	return base, nil
}

// tokenizer reads what a base's files say of tokens; nil if they say nothing.
func (a *stored) tokenizer(ctx context.Context, revision string) (*peft.Tokenizer, error) {
	for _, f := range tokenizers {
		layer, ok := a.layer(f.name)
		if !ok {
			continue
		}
		body, err := a.fetch(ctx, layer)
		if err != nil {
			return nil, err
		}
		defer func() { _ = body.Close() }() // at most one: the loop ends here
		checked := content.NewVerifyReader(body, layer)
		tokenizer, wrong := f.read(checked)
		if _, err = io.Copy(io.Discard, checked); err == nil {
			err = checked.Verify()
		}
		switch {
		case err != nil: // whatever was read of it
			return nil, a.store.explain(ctx, a.repo, err)
		case wrong != nil:
			return nil, fmt.Errorf("base model %s: %w", revision, wrong)
		}
		if f.name == baseVocabulary {
			if err := a.addTokens(ctx, revision, tokenizer); err != nil {
				return nil, err
			}
		}
		return tokenizer, nil
	}
	return nil, nil //nolint:nilnil // as said above
}

// addTokens adds to a base's vocab.txt what is said beside it.
func (a *stored) addTokens(ctx context.Context, revision string, vocabulary *peft.Tokenizer) error {
	var lost error // what could not be read, which is no fault of the base's
	err := addTokens(vocabulary, func(name string) (raw []byte, err error) {
		if _, ok := a.layer(name); ok {
			raw, lost = a.read(ctx, name, maxConfig)
		}
		return raw, lost
	})
	if err != nil && lost == nil {
		err = fmt.Errorf("base model %s: %w", revision, err)
	}
	return err
}

// tensors are the names of a base's tensors: by its index, or by the header of its one file. The header is not checked
// against the file's digest, which would take all of it; what pods load is.
func (a *stored) tensors(ctx context.Context) ([]string, error) {
	if _, ok := a.layer(weights.IndexFile); ok {
		index, err := a.read(ctx, weights.IndexFile, weights.MaxIndex)
		if err != nil {
			return nil, err
		}
		return weights.IndexedNames(index)
	}
	layer, ok := a.layer(weights.ModelFile)
	if !ok {
		return nil, invalid(a.where, "expected the file %s, found none", weights.ModelFile)
	}
	body, err := a.fetch(ctx, layer)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	names, err := weights.ReadNames(body)
	if err != nil {
		return nil, &Error{Reason: Unreachable, Retry: true, where: a.where, what: weights.ModelFile + ": " + err.Error()}
	}
	return names, nil
}

// stored is an artifact in the registry: its manifest.
type stored struct {
	store  *Store
	repo   string
	remote *remote.Repository
	where  string
	layers []ocispec.Descriptor
}

// artifact reads a manifest.
func (s *Store) artifact(ctx context.Context, repo, revision string) (*stored, error) {
	r, err := s.open(repo)
	if err != nil {
		return nil, err
	}
	a := &stored{store: s, repo: repo, remote: r, where: s.where(repo + "@" + revision)}
	raw, err := readManifest(ctx, r, revision)
	if err != nil {
		return nil, s.explain(ctx, repo, err)
	}
	var m ocispec.Manifest
	if sha256Digest(raw) != revision || json.Unmarshal(raw, &m) != nil {
		return nil, &Error{Reason: Unreachable, Retry: true, where: a.where, what: "its manifest is damaged"}
	}
	a.layers = m.Layers
	return a, nil
}

func (a *stored) layer(name string) (ocispec.Descriptor, bool) {
	i := slices.IndexFunc(a.layers, func(l ocispec.Descriptor) bool {
		return l.Annotations[ocispec.AnnotationTitle] == name
	})
	if i < 0 {
		return ocispec.Descriptor{}, false
	}
	return a.layers[i], true
}

func (a *stored) fetch(ctx context.Context, layer ocispec.Descriptor) (io.ReadCloser, error) {
	body, err := a.remote.Blobs().Fetch(ctx, layer)
	if errors.Is(err, errdef.ErrNotFound) {
		name := layer.Annotations[ocispec.AnnotationTitle]
		return nil, &Error{
			Reason: Unreachable, Retry: true, where: a.where, what: "its file " + quote.Name(name) + " is lost",
		}
	}
	if err != nil {
		return nil, a.store.explain(ctx, a.repo, err)
	}
	return body, nil
}

// read reads one small file, checked against its digest.
func (a *stored) read(ctx context.Context, name string, limit int64) ([]byte, error) {
	layer, ok := a.layer(name)
	if !ok || layer.Size > limit {
		return nil, invalid(a.where, "expected the file %s of at most %d bytes, found none", quote.Name(name), limit)
	}
	body, err := a.fetch(ctx, layer)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	checked := content.NewVerifyReader(body, layer)
	data, err := io.ReadAll(checked)
	if err == nil {
		err = checked.Verify()
	}
	if err != nil {
		return nil, a.store.explain(ctx, a.repo, err)
	}
	return data, nil
}
