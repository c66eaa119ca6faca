package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// maxAdapterBytes is above what peft reads of an adapter.
const maxAdapterBytes = 2 << 30

// fewTries are those after which an artifact that the registry lacks may still be about to be pushed again. By the
// default back-off the pod has waited for about half a minute then.
const fewTries = 6

// load is how the loading of a revision ended, or why it has not yet.
type load struct {
	digest   string
	lease    *adapters.Lease // loaded
	failure  *failure        // final, unless it goes on
	goesOn   bool
	away     bool // it goes on because the registry is away
	early    bool // it goes on after few tries
	canceled bool
}

// errand is a revision that is to be loaded.
type errand struct {
	digest  string
	crashes int   // of former processes over it
	slots   int64 // that it takes of loadsAtOnce while it is pulled and opened
}

// begin loads a revision in the background; alone, as long as one is suspected of having ended a former process.
func (a *Agent) begin(ctx context.Context, group *errgroup.Group, digest string, alone bool) {
	of, cancel := context.WithCancel(ctx)
	a.state.revisions[digest], a.cancel[digest] = revision{phase: loading}, cancel
	e := errand{digest, a.state.crashes[digest], 1}
	if alone {
		e.slots = loadsAtOnce
	}
	group.Go(func() error {
		defer cancel()
		l := a.load(of, func(l load) { a.tell(ctx, l) }, e)
		a.tell(ctx, l)
		return nil
	})
}

// tell hands a load to the goroutine that owns the state.
func (a *Agent) tell(ctx context.Context, l load) {
	select {
	case a.loads <- l:
	case <-ctx.Done():
		if l.lease != nil {
			l.lease.Release()
		}
	}
}

// finish takes up how a load went.
func (a *Agent) finish(ctx context.Context, group *errgroup.Group, l load) {
	r := revision{failure: l.failure, away: l.away, early: l.early}
	switch {
	case l.goesOn:
		r.phase = loading
	case l.lease != nil:
		r.phase = loaded
		a.leases[l.digest] = l.lease
	default:
		r.phase = broken
	}
	if !l.goesOn {
		delete(a.cancel, l.digest)
	}
	if r.phase != loading && !l.canceled {
		delete(a.state.crashes, l.digest) // the process is still there
	}
	if l.canceled {
		delete(a.state.revisions, l.digest) // and begun again, if it is wanted again
	} else {
		a.state.revisions[l.digest] = r
	}
	a.step(ctx, group)
}

// load tries until the revision is loaded, or cannot be, or ctx ends. A registry that is away is waited for; what it
// lacks or has otherwise than its digest says is told, and tried again too: it may be pushed again.
func (a *Agent) load(ctx context.Context, tell func(load), e errand) load {
	var told load
	digest := e.digest
	wasAway := false
	for n := 0; ; n++ { // tries that ended alike
		lease, f, err := a.try(ctx, e)
		switch {
		case err == nil && f != nil:
			a.options.Log.Error("adapter failed", "revision", digest, "reason", f.reason, "message", f.message)
			return load{digest: digest, failure: f}
		case err == nil:
			return load{digest: digest, lease: lease}
		case ctx.Err() != nil:
			return load{digest: digest, canceled: true}
		}
		var away *artifacts.UnreachableError
		if isAway := errors.As(err, &away); isAway != wasAway {
			n, wasAway = 0, isAway
		}
		if wasAway {
			a.quiet.warn("artifacts cannot be pulled", away)
			told = told.or(tell, load{digest: digest, goesOn: true, away: true})
		} else {
			a.quiet.warn("an artifact cannot be pulled", err)
			f := newFailure(v1alpha1.FailurePullFailed, err.Error())
			told = told.or(tell, load{digest: digest, failure: f, goesOn: true, early: n < fewTries})
		}
		if !wait(ctx, a.options.Backoff(n), nil) {
			return load{digest: digest, canceled: true}
		}
	}
}

// or tells the next, unless it is what was told already.
func (l load) or(tell func(load), next load) load {
	if l.goesOn && l.away == next.away && l.early == next.early && (next.failure == nil || *l.failure == *next.failure) {
		return l
	}
	tell(next)
	return next
}

// try loads a revision once: a lease, or a failure that is final, or an error that another try may cure.
func (a *Agent) try(ctx context.Context, e errand) (*adapters.Lease, *failure, error) {
	if err := a.slots.Acquire(ctx, e.slots); err != nil {
		return nil, nil, err
	}
	defer a.slots.Release(e.slots)
	artifact, err := a.options.Store.Fetch(ctx, e.digest, maxAdapterBytes)
	if err != nil {
		return nil, nil, err
	}
	if err := a.marks.begin(e.digest, e.crashes); err != nil {
		if e.crashes > 0 { // it might end one process after another, and nobody would count them
			return nil, nil, err
		}
		a.quiet.warn("what is loaded cannot be marked", err)
	}
	defer a.marks.end(e.digest)
	failpoint(artifact.Folder)
	lease, err := a.open(artifact)
	if err != nil {
		return nil, newFailure(v1alpha1.FailureInvalidAdapter, err.Error()), nil
	}
	if err := a.options.Set.Try(lease); err != nil {
		lease.Release()
		return nil, newFailure(v1alpha1.FailureTrialFailed, err.Error()), nil
	}
	return lease, nil, nil
}

// open opens an adapter's artifact. What comes out has the artifact's digest again.
func (a *Agent) open(artifact *artifacts.Artifact) (*adapters.Lease, error) {
	if artifact.Type != peft.ArtifactType {
		return nil, fmt.Errorf("artifactType: expected %s, found %s", peft.ArtifactType, quote.Name(artifact.Type))
	}
	settings, err := peft.ParseSettings(artifact.Settings)
	if err != nil {
		return nil, err
	}
	open := func() (*weights.Folder, error) { return weights.OpenFolder(artifact.Folder) }
	lease, err := a.options.Set.Open(open, settings)
	if err != nil {
		return nil, err
	}
	if found := lease.Adapter().Digest; found != artifact.Digest {
		lease.Release()
		return nil, fmt.Errorf("expected files and settings of digest %s, found %s", artifact.Digest, found)
	}
	return lease, nil
}

// backoff doubles from least to most, less up to a third at random: pods that lost the same server come back one by
// one.
func backoff(least, most time.Duration) func(n int) time.Duration {
	return func(n int) time.Duration {
		d := most
		if n < 16 {
			d = min(most, least<<n)
		}
		return d - rand.N(d/3) //nolint:gosec // no secret
	}
}

// wait waits for a time, or until woken; it is false if ctx ends first.
func wait(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	timer := time.NewTimer(d) //nolint:forbidigo // a back-off
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-woken:
		return true
	case <-ctx.Done():
		return false
	}
}
