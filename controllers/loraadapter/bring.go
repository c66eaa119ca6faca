package loraadapter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/source"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Source is where adapters come from: *source.Fetcher.
type Source interface {
	Fetch(ctx context.Context, kind artifact.Kind, from source.Spec, revision, dir string) (found string, err error)
}

// Store is where pods pull them from: *artifact.Store.
type Store interface {
	Exists(ctx context.Context, repo, revision string) (bool, error)
	Push(ctx context.Context, repo string, p *artifact.Packed) error
	Base(ctx context.Context, repo, revision string) (artifact.BaseModel, error)
}

// errand is what one attempt is to bring, and all that its outcome depends on.
type errand struct {
	from     source.Spec
	settings peft.Settings
	repo     string
	base     string // digest
	maxRank  int32
	known    *v1alpha1.Revision // what it was found to be before, if that is still to be
}

const (
	// bringTimeout bounds an attempt, with the largest adapter over a slow line.
	bringTimeout = 15 * time.Minute
	// maxBases is how many bases' descriptions are kept.
	maxBases = 64
)

// courier brings adapters.
type courier struct {
	source  Source
	store   Store
	metrics *telemetry.Metrics
	dir     string // of temporary folders

	mu    sync.Mutex
	bases map[string]artifact.BaseModel // by digest
}

// bring makes sure that the artifact registry has the adapter, whole and checked. Its error is an *attempt.Failure.
func (c *courier) bring(ctx context.Context, e errand) (v1alpha1.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, bringTimeout)
	defer cancel()
	revision := "" // whatever the source has
	if e.known != nil {
		ok, err := c.store.Exists(ctx, e.repo, e.known.Digest)
		if err != nil {
			return v1alpha1.Revision{}, source.StoreFailure(err)
		}
		if ok {
			return *e.known, nil
		}
		revision = e.known.SourceRevision // what a tag or a URL stands for by now is not asked for
	}
	base, err := c.base(ctx, e.repo, e.base)
	if err != nil {
		return v1alpha1.Revision{}, source.StoreFailure(err)
	}
	dir, err := os.MkdirTemp(c.dir, TempPattern)
	if err != nil {
		return v1alpha1.Revision{}, source.Failure(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if revision, err = c.source.Fetch(ctx, artifact.Adapter, e.from, revision, dir); err != nil {
		return v1alpha1.Revision{}, source.Failure(err)
	}
	return c.keep(ctx, e, revision, dir, base)
}

// keep checks the adapter in a folder as a pod would, and pushes it.
func (c *courier) keep(
	ctx context.Context, e errand, revision, dir string, base artifact.BaseModel,
) (v1alpha1.Revision, error) {
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		return v1alpha1.Revision{}, source.Failure(err)
	}
	defer func() { _ = folder.Close() }()
	info, err := artifact.InspectAdapter(folder, base, e.settings)
	var misfit *peft.MisfitError
	switch {
	case errors.As(err, &misfit):
		return v1alpha1.Revision{}, &attempt.Failure{Reason: v1alpha1.ReasonIncompatible, Message: err.Error()}
	case err != nil:
		return v1alpha1.Revision{}, &attempt.Failure{Reason: v1alpha1.ReasonInvalidAdapter, Message: err.Error()}
	case info.Rank > int(e.maxRank):
		return v1alpha1.Revision{}, rankFailure(int32(info.Rank), e.maxRank) //nolint:gosec // at most 16384
	}
	packed, err := artifact.Pack(artifact.Adapter, folder, e.settings)
	if err != nil {
		return v1alpha1.Revision{}, source.Failure(err)
	}
	if packed.Digest != info.Digest {
		return v1alpha1.Revision{}, &attempt.Failure{
			Reason: v1alpha1.ReasonInvalidAdapter, Retry: true,
			Message: fmt.Sprintf("its files changed while they were read: expected %s, found %s", info.Digest, packed.Digest),
		}
	}
	if err := c.store.Push(ctx, e.repo, packed); err != nil {
		return v1alpha1.Revision{}, source.StoreFailure(err)
	}
	c.metrics.Stored(ctx, telemetry.Adapter, packed.Digest, packed.Size)
	return v1alpha1.Revision{
		Digest: packed.Digest, SourceRevision: revision, SizeBytes: info.Bytes,
		Rank: int32(info.Rank), NumLabels: int32(info.NumLabels), //nolint:gosec // bounded by peft
	}, nil
}

// base is what is known of a base that the artifact registry has; the weights are not asked for.
func (c *courier) base(ctx context.Context, repo, digest string) (base artifact.BaseModel, err error) {
	c.mu.Lock()
	base, ok := c.bases[digest]
	c.mu.Unlock()
	if ok {
		return base, nil
	}
	if base, err = c.store.Base(ctx, repo, digest); err != nil {
		return base, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bases) >= maxBases {
		clear(c.bases) // they are quickly read again
	}
	c.bases[digest] = base
	return base, nil
}

func rankFailure(rank, limit int32) *attempt.Failure {
	return &attempt.Failure{
		Reason:  v1alpha1.ReasonRankTooLarge,
		Message: fmt.Sprintf("rank: expected at most %d (the pool's spec.adapters.maxRank), found %d", limit, rank),
	}
}
