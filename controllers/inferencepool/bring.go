package inferencepool

import (
	"context"
	"encoding/json"
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

// Source is where base models come from: *source.Fetcher.
type Source interface {
	Fetch(ctx context.Context, kind artifact.Kind, from source.Spec, revision, dir string) (found string, err error)
}

// Store is where pods pull them from: *artifact.Store.
type Store interface {
	Exists(ctx context.Context, repo, revision string) (bool, error)
	Push(ctx context.Context, repo string, p *artifact.Packed) error
	Base(ctx context.Context, repo, revision string) (artifact.BaseModel, error)
}

// Trust tells by which certificates the artifact registry is known: *certificates.Trust.
type Trust interface {
	// PEM is nil while there are none.
	PEM(ctx context.Context) ([]byte, error)
}

// errand is what one attempt is to bring.
type errand struct {
	from  source.Spec
	repo  string
	known v1alpha1.ResolvedBaseModel // what it was found to be before
}

func errandOf(pool *v1alpha1.InferencePool) errand {
	base := pool.Spec.BaseModel
	return errand{
		from: source.Of(pool.Namespace, base.Source, base.SecretRef), repo: artifact.Repository(pool.Namespace, pool.Name),
		known: pool.Status.BaseModel,
	}
}

// input is all that an outcome depends on, as a text.
func (e errand) input(pool *v1alpha1.InferencePool) string {
	raw, err := json.Marshal([]any{pool.UID, e.from})
	if err != nil {
		panic(err) // unreachable: strings always marshal
	}
	return string(raw)
}

// bringTimeout bounds an attempt, with a base of many gigabytes over a slow line.
const bringTimeout = time.Hour

// courier brings base models, and knows those that it brought or found.
type courier struct {
	source  Source
	store   Store
	metrics *telemetry.Metrics
	dir     string // of temporary folders

	mu    sync.Mutex
	bases map[string]described // by repository: one a pool
}

// described is a base model that was brought or found.
type described struct {
	digest string
	model  *artifact.BaseModel
}

// base is what is known of a pool's base model, nil where nothing is yet, as after a restart of the manager.
func (c *courier) base(repo, digest string) *artifact.BaseModel {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.bases[repo]; d.digest == digest {
		return d.model
	}
	return nil
}

func (c *courier) keep(repo, digest string, model *artifact.BaseModel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bases[repo] = described{digest, model}
}

func (c *courier) forget(repo string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.bases, repo)
}

// describe reads what there is to know of a base model that the artifact registry has.
func (c *courier) describe(ctx context.Context, repo, digest string) error {
	if c.base(repo, digest) != nil {
		return nil
	}
	base, err := c.store.Base(ctx, repo, digest)
	if err != nil {
		return err
	}
	c.keep(repo, digest, &base)
	return nil
}

// bring makes sure that the artifact registry has the base, whole and checked. What it takes of a pod's memory is not
// its affair: that is of how the pool has it kept. Its error is an *attempt.Failure.
func (c *courier) bring(ctx context.Context, e errand) (v1alpha1.ResolvedBaseModel, error) {
	ctx, cancel := context.WithTimeout(ctx, bringTimeout)
	defer cancel()
	var none v1alpha1.ResolvedBaseModel
	if e.known.Digest != "" {
		ok, err := c.store.Exists(ctx, e.repo, e.known.Digest)
		if err != nil {
			return none, source.StoreFailure(err)
		}
		if ok {
			if err := c.describe(ctx, e.repo, e.known.Digest); err != nil {
				return none, source.StoreFailure(err)
			}
			return e.known, nil
		}
	}
	dir, err := os.MkdirTemp(c.dir, TempPattern)
	if err != nil {
		return none, source.Failure(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Of one that was lost, what a tag or a URL stands for by now is not asked for.
	revision, err := c.source.Fetch(ctx, artifact.Base, e.from, e.known.SourceRevision, dir)
	if err != nil {
		return none, source.Failure(err)
	}
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		return none, source.Failure(err)
	}
	defer func() { _ = folder.Close() }()
	base, err := artifact.InspectBase(folder)
	if err != nil {
		return none, &attempt.Failure{Reason: v1alpha1.ReasonInvalidBaseModel, Message: err.Error()}
	}
	packed, err := artifact.Pack(artifact.Base, folder, peft.Settings{})
	if err != nil {
		return none, source.Failure(err)
	}
	if e.known.Digest != "" && packed.Digest != e.known.Digest {
		return none, &attempt.Failure{
			Reason: v1alpha1.ReasonInvalidBaseModel,
			Message: fmt.Sprintf("the source has another base model by now: expected %s, found %s",
				e.known.Digest, packed.Digest),
		}
	}
	if err := c.store.Push(ctx, e.repo, packed); err != nil {
		return none, source.StoreFailure(err)
	}
	c.keep(e.repo, packed.Digest, &base)
	c.metrics.Stored(ctx, telemetry.Base, packed.Digest, packed.Size)
	return v1alpha1.ResolvedBaseModel{
		Digest: packed.Digest, SourceRevision: revision, Architecture: base.Architecture,
	}, nil
}
