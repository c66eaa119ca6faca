// Package attempt does beside the reconcilers what may take long: fetching from a source that does not answer must not
// keep the status of anything else waiting. A reconciler asks for the outcome, starts an attempt where one is due, and
// is called again when it ends.
//
// Invariants: an object has one attempt at a time, that of its last input, and an outcome is only ever given for the
// input it is of; at most a given number run at once, and those of one namespace never keep all the others' waiting;
// all have ended when Start returns.
package attempt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Outcome is how an attempt ended.
type Outcome[R any] struct {
	Result   R
	Err      error
	Failures int // in a row, of this input
	Ended    time.Time
}

// Retry tells whether it failed, and trying again may help by itself.
func (o *Outcome[R]) Retry() bool {
	failure, _ := o.Err.(*Failure) //nolint:errorlint // it is never wrapped
	return failure != nil && failure.Retry
}

// Failure is why an attempt failed, as a status will say it.
type Failure struct {
	Reason  string // one of api/v1alpha1's
	Retry   bool   // whether trying again may help by itself
	Message string
}

func (f *Failure) Error() string { return f.Message }

// Attempts are those of one kind of object. It is a manager's Runnable.
type Attempts[R any] struct {
	now   func() time.Time
	slots chan struct{}
	share int // of the slots, for one namespace
	ended chan event.GenericEvent

	mu      sync.Mutex
	spaces  map[string]*space // in which attempts run or wait
	stopped bool
	running sync.WaitGroup
	stop    chan struct{}
	objects map[types.NamespacedName]*object[R]
}

// space is a namespace's share of the slots: a source that hangs holds one for as long as it may, and whoever can name
// one such source can name a thousand.
type space struct {
	slots    chan struct{}
	attempts int
}

type object[R any] struct {
	input   string
	cancel  context.CancelFunc // nil while none runs or waits
	running bool               // it has a slot
	outcome *Outcome[R]        // nil until one has ended
}

// New has room for so many attempts at once, half of them for one namespace.
func New[R any](parallel int, now func() time.Time) *Attempts[R] {
	return &Attempts[R]{
		now: now, slots: make(chan struct{}, parallel), share: max(parallel/2, 1),
		ended: make(chan event.GenericEvent, parallel), stop: make(chan struct{}),
		spaces: map[string]*space{}, objects: map[types.NamespacedName]*object[R]{},
	}
}

// Ended carries the name of each object whose attempt has ended.
func (a *Attempts[R]) Ended() <-chan event.GenericEvent { return a.ended }

// Start waits for ctx to end, then for the attempts.
func (a *Attempts[R]) Start(ctx context.Context) error {
	<-ctx.Done()
	a.mu.Lock()
	a.stopped = true
	close(a.stop)
	for _, o := range a.objects {
		if o.cancel != nil {
			o.cancel()
		}
	}
	a.mu.Unlock()
	a.running.Wait()
	return nil
}

// Load is how many attempts run, and how many wait until they may.
func (a *Attempts[R]) Load() (running, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.objects {
		switch {
		case o.cancel == nil:
		case o.running:
			running++
		default:
			waiting++
		}
	}
	return running, waiting
}

// Outcome is that of the last attempt with this input.
func (a *Attempts[R]) Outcome(key types.NamespacedName, input string) *Outcome[R] {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.objects[key]
	if o == nil || o.input != input || o.outcome == nil {
		return nil
	}
	outcome := *o.outcome
	return &outcome
}

// Run begins an attempt, unless one with the same input is under way. One with another input is given up.
func (a *Attempts[R]) Run(
	ctx context.Context, key types.NamespacedName, input string, work func(context.Context) (R, error),
) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.objects[key]
	switch {
	case a.stopped || o != nil && o.input == input && o.cancel != nil:
		return
	case o == nil || o.input != input:
		a.forget(key)
		o = &object[R]{input: input}
		a.objects[key] = o
	}
	// It outlives the reconcile that began it; run, Forget or Start cancels it.
	ctx, o.cancel = context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // see above
	a.running.Go(func() { a.run(ctx, key, o, work) })
}

// Forget gives up the attempt of an object that is gone.
func (a *Attempts[R]) Forget(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(key)
}

func (a *Attempts[R]) forget(key types.NamespacedName) {
	if o := a.objects[key]; o != nil && o.cancel != nil {
		o.cancel()
	}
	delete(a.objects, key)
}

func (a *Attempts[R]) run(
	ctx context.Context, key types.NamespacedName, o *object[R], work func(context.Context) (R, error),
) {
	done, ok := a.begin(ctx, key.Namespace)
	if !ok {
		return
	}
	a.mu.Lock()
	o.running = true
	a.mu.Unlock()
	result, err := guarded(ctx, work)
	done()
	a.mu.Lock()
	o.running = false
	given := ctx.Err() != nil
	outcome := &Outcome[R]{Result: result, Err: err, Ended: a.now()}
	if err != nil {
		outcome.Failures = 1
		if o.outcome != nil {
			outcome.Failures += o.outcome.Failures
		}
	}
	o.outcome = outcome
	o.cancel()
	o.cancel = nil
	a.mu.Unlock()
	if given {
		return
	}
	select {
	case a.ended <- event.GenericEvent{Object: &metav1.PartialObjectMetadata{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
	}}:
	case <-a.stop:
	}
}

// begin waits for a slot of the namespace's and then for one of all; done gives both back.
func (a *Attempts[R]) begin(ctx context.Context, namespace string) (done func(), ok bool) {
	s := a.enter(namespace)
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		a.leave(namespace)
		return nil, false
	}
	leave := func() {
		<-s.slots
		a.leave(namespace)
	}
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, false
	}
	return func() {
		<-a.slots
		leave()
	}, true
}

func (a *Attempts[R]) enter(namespace string) *space {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.spaces[namespace]
	if s == nil {
		s = &space{slots: make(chan struct{}, a.share)}
		a.spaces[namespace] = s
	}
	s.attempts++
	return s
}

func (a *Attempts[R]) leave(namespace string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.spaces[namespace].attempts--; a.spaces[namespace].attempts == 0 {
		delete(a.spaces, namespace)
	}
}

// guarded turns a panic over hostile content into an error: nothing else may suffer.
func guarded[R any](ctx context.Context, work func(context.Context) (R, error)) (result R, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("reading it panicked: %v", v)
			log.FromContext(ctx).Error(err, "a fault of ours: please report it", "stack", string(debug.Stack()))
		}
	}()
	return work(ctx)
}

// Policy says when to try again.
type Policy struct {
	Recheck time.Duration // after a success, and after a failure that trying again does not cure by itself
	Least   time.Duration // after the first failure that may pass; doubled with each more
	Most    time.Duration
}

// Wait is how long after an outcome the next attempt is due, give or take a tenth, so that not all come at once.
func (p Policy) Wait(failures int, retry bool) time.Duration {
	wait := p.Recheck
	if failures > 0 && retry {
		wait = p.Least
		for i := 1; i < failures && wait < p.Most; i++ {
			wait *= 2
		}
		wait = min(wait, p.Most)
	}
	return wait - wait/10 + rand.N(max(wait/5, 1)) //nolint:gosec // spread, not secrecy
}
