package inferencepool

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Source is where base models come from: *artifact.Fetcher.
type Source interface {
	Resolve(ctx context.Context, ref string) (revision string, err error)
	Fetch(ctx context.Context, kind artifact.Kind, ref, revision, dir string) error
}

// Store is where pods pull them from: *artifact.Store.
type Store interface {
	Exists(ctx context.Context, repo, revision string) (bool, error)
	Push(ctx context.Context, repo string, p *artifact.Packed) error
}

// Failure is why a base model could not be brought into the artifact registry.
type Failure struct {
	Reason  string // one of api/v1alpha1's
	Retry   bool   // whether trying again may help by itself
	Message string
}

func (f *Failure) Error() string { return f.Message }

// errand is what one attempt is to bring.
type errand struct {
	ref, repo string
	known     v1alpha1.ResolvedBaseModel // what it was found to be before
}

// bringTimeout bounds an attempt, with a base of many gigabytes over a slow line.
const bringTimeout = time.Hour

// courier brings base models.
type courier struct {
	source Source
	store  Store
	dir    string // of temporary folders
}

// bring makes sure that the artifact registry has the base, whole and checked. Its error is a *Failure.
func (c *courier) bring(ctx context.Context, e errand) (v1alpha1.ResolvedBaseModel, error) {
	ctx, cancel := context.WithTimeout(ctx, bringTimeout)
	defer cancel()
	var none v1alpha1.ResolvedBaseModel
	if e.known.Digest != "" {
		ok, err := c.store.Exists(ctx, e.repo, e.known.Digest)
		if err != nil {
			return none, storeFailure(err)
		}
		if ok {
			return e.known, nil
		}
	}
	revision, err := c.source.Resolve(ctx, e.ref)
	if err != nil {
		return none, sourceFailure(err)
	}
	dir, err := os.MkdirTemp(c.dir, "base-")
	if err != nil {
		return none, sourceFailure(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := c.source.Fetch(ctx, artifact.Base, e.ref, revision, dir); err != nil {
		return none, sourceFailure(err)
	}
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		return none, sourceFailure(err)
	}
	defer func() { _ = folder.Close() }()
	base, size, err := artifact.InspectBase(folder)
	if err != nil {
		return none, &Failure{Reason: v1alpha1.ReasonInvalidBaseModel, Message: err.Error()}
	}
	packed, err := artifact.Pack(artifact.Base, folder, peft.Settings{})
	if err != nil {
		return none, sourceFailure(err)
	}
	if err := c.store.Push(ctx, e.repo, packed); err != nil {
		return none, storeFailure(err)
	}
	return v1alpha1.ResolvedBaseModel{
		Digest: packed.Digest, Architecture: base.Architecture, SizeBytes: size,
	}, nil
}

// sourceFailure is what a source's error means for a pool.
func sourceFailure(err error) *Failure {
	f := &Failure{Reason: v1alpha1.ReasonSourceUnreachable, Retry: true, Message: err.Error()}
	var e *artifact.Error
	if errors.As(err, &e) {
		f.Retry = e.Retry
		switch e.Reason {
		case artifact.NotFound:
			f.Reason = v1alpha1.ReasonSourceNotFound
		case artifact.Invalid:
			f.Reason = v1alpha1.ReasonSourceInvalid
		case artifact.Unreachable:
		}
	}
	return f
}

func storeFailure(err error) *Failure {
	return &Failure{Reason: v1alpha1.ReasonStoreUnavailable, Retry: true, Message: err.Error()}
}
