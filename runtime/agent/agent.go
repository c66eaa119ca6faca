package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
)

const (
	// Loading is bound by disk and by the one that serves meanwhile.
	loadsAtOnce = 2
	// assignmentFile keeps the last assignment beside the artifacts.
	assignmentFile = "assignment.json"
	// readyFile is there once a process of the container was ready.
	readyFile = "ready"
	// mostCrashes is after how many a revision is not loaded again. One may be another's, loaded at the same time.
	mostCrashes = 2
)

// Source is where the assignment comes from and its status goes: *Client.
type Source interface {
	// Follow calls seen with each state of the assignment until ctx ends.
	Follow(ctx context.Context, seen func(*v1alpha1.AdapterAssignment))
	// Report writes the status of the assignment of that UID.
	Report(ctx context.Context, uid types.UID, status *v1alpha1.AdapterAssignmentStatus) error
}

// Options are an agent's settings.
type Options struct {
	Set        *adapters.Set
	Store      *artifacts.Store
	Source     Source
	BaseDigest string    // its artifact is kept
	Reserved   []string  // names that no adapter may have
	StartedAt  time.Time // of the process
	Log        *slog.Logger
	// Backoff is how long to wait before the nth new try of what failed; nil is from half a second to half a minute.
	Backoff func(n int) time.Duration
}

// Agent keeps a Set as its pod's assignment says. One goroutine, Run's, owns all of it but what Ready reads.
type Agent struct {
	options    Options
	state      state
	assigned   *assigned
	heard      bool                          // the assignment is the API server's; one from disk may be one too old
	leases     map[string]*adapters.Lease    // of what is loaded, by digest
	cancel     map[string]context.CancelFunc // of what is loading, by digest
	awaited    map[string]bool               // names of the first assignment that are not settled yet; nil before it
	failed     []v1alpha1.FailedAdapter      // as last decided
	untidy     bool                          // artifacts that nobody wants may lie on disk
	loads      chan load
	slots      *semaphore.Weighted
	marks      *marks
	reporter   *reporter
	quiet      *quiet
	startedAt  *metav1.Time // as it is reported; never written into, since reports hold it
	bootID     string
	unreadyFor atomic.Pointer[string] // nil once ready
}

// assigned is an assignment as it is kept on disk.
type assigned struct {
	UID  types.UID                      `json:"uid"`
	Spec v1alpha1.AdapterAssignmentSpec `json:"spec"`
}

// New is an agent that has not begun.
func New(options Options) *Agent {
	if options.Backoff == nil {
		options.Backoff = backoff(500*time.Millisecond, 30*time.Second)
	}
	q := newQuiet(options.Log)
	a := &Agent{
		options: options,
		state: state{
			revisions: make(map[string]revision), answers: make(map[string]answer), crashes: make(map[string]int),
		},
		leases: make(map[string]*adapters.Lease), cancel: make(map[string]context.CancelFunc),
		loads: make(chan load), slots: semaphore.NewWeighted(loadsAtOnce),
		marks:    &marks{store: options.Store, log: options.Log, opened: make(map[string]int)},
		reporter: newReporter(options.Source, options.Backoff, q), quiet: q,
		startedAt: firstSecond(options.StartedAt), bootID: rand.Text(),
	}
	a.unreadyFor.Store(new("the pod's assignment has not been seen yet"))
	return a
}

// firstSecond is the first full second not before t. A container's startedAt is taken a moment after its process began;
// were the second between them cut off here, the process would seem to be the container's predecessor, for ever.
func firstSecond(t time.Time) *metav1.Time {
	whole := t.Truncate(time.Second)
	if whole.Before(t) {
		whole = whole.Add(time.Second)
	}
	return new(metav1.NewTime(whole))
}

// Ready is nil once everything first assigned is loaded or failed, and stays so. What the registry lacks has failed
// after some tries only: the manager pushes it again when it hears of that.
func (a *Agent) Ready() error {
	if why := a.unreadyFor.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// unready says why it is not ready yet, unless it is meanwhile.
func (a *Agent) unready(why string) {
	if was := a.unreadyFor.Load(); was != nil {
		a.unreadyFor.CompareAndSwap(was, &why)
	}
}

// Run follows the assignment until ctx ends. What is served then goes on being served.
func (a *Agent) Run(ctx context.Context) error {
	seen := make(chan *v1alpha1.AdapterAssignment)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { <-ctx.Done(); a.marks.leave(); return nil })
	a.blame()
	a.remember(ctx, group)
	group.Go(func() error {
		a.options.Source.Follow(ctx, func(assignment *v1alpha1.AdapterAssignment) {
			select {
			case seen <- assignment:
			case <-ctx.Done():
			}
		})
		return nil
	})
	group.Go(func() error { a.reporter.run(ctx); return nil })
	group.Go(func() error {
		for {
			select {
			case assignment := <-seen:
				a.succeed(ctx, group, &assignment.Status)
				a.take(ctx, group, &assigned{assignment.UID, assignment.Spec})
			case l := <-a.loads:
				a.finish(ctx, group, l)
			case <-ctx.Done():
				return nil
			}
		}
	})
	return group.Wait()
}

// blame takes up what former processes of the container ended over.
func (a *Agent) blame() {
	crashes, err := a.options.Store.Crashes()
	if err != nil {
		a.options.Log.Warn("what former processes ended over cannot be told for sure", "error", err)
	}
	for digest, n := range crashes {
		a.options.Log.Warn("a former process ended while it loaded an adapter", "revision", digest, "times", n)
		a.state.crashes[digest] = n
		if n >= mostCrashes {
			a.state.revisions[digest] = revision{phase: broken, failure: newFailure(v1alpha1.FailureCrashedLoading,
				fmt.Sprintf("the process ended %d times while it was being loaded: it is not tried again in this pod", n))}
		}
	}
}

// remember takes up the assignment that the container's former process left.
func (a *Agent) remember(ctx context.Context, group *errgroup.Group) {
	raw, err := a.options.Store.ReadFile(assignmentFile)
	if err == nil && raw == nil {
		return
	}
	var last assigned
	if err == nil {
		err = json.Unmarshal(raw, &last)
	}
	if err != nil { // the API server has it too
		a.options.Log.Warn("the last assignment cannot be read", "error", err)
		return
	}
	a.options.Log.Info("the last assignment is taken up",
		"revision", last.Spec.Revision, "adapters", len(last.Spec.Adapters))
	ready, err := a.options.Store.ReadFile(readyFile)
	if err != nil {
		a.options.Log.Warn("whether a former process was ready cannot be told", "error", err)
	}
	a.assigned, a.state.returns = &last, ready != nil
	a.step(ctx, group)
}

// succeed has this process begin no earlier than the one that reported last: that was the container's former process,
// whatever the node's clock has done since, and a report that seems to be of an earlier one is refused.
func (a *Agent) succeed(ctx context.Context, group *errgroup.Group, last *v1alpha1.AdapterAssignmentStatus) {
	if last.BootID == a.bootID || !a.startedAt.Before(last.StartedAt) {
		return
	}
	a.options.Log.Warn("the clock has gone back: the former process began after this one",
		"former", last.StartedAt.UTC().Format(time.RFC3339), "this", a.startedAt.UTC().Format(time.RFC3339))
	a.startedAt = last.StartedAt
	if a.assigned != nil {
		a.step(ctx, group)
	}
}

// take takes up an assignment, unless it is an earlier state of the one that is.
func (a *Agent) take(ctx context.Context, group *errgroup.Group, next *assigned) {
	if now := a.assigned; now != nil && now.UID == next.UID && next.Spec.Revision <= now.Spec.Revision {
		if next.Spec.Revision == now.Spec.Revision {
			a.heard = true
			a.options.Set.Told()
			a.reporter.again()
		}
		return
	}
	raw, err := json.Marshal(next)
	if err == nil {
		err = a.options.Store.WriteFile(assignmentFile, raw)
	}
	if err != nil { // only a restart would miss it
		a.options.Log.Error("the assignment cannot be kept", "error", err)
	}
	a.assigned, a.heard = next, true
	a.step(ctx, group)
}

// step brings the set closer to the assignment: it answers with what is loaded, begins to load what is missing, lets go
// of what is not wanted, and reports.
func (a *Agent) step(ctx context.Context, group *errgroup.Group) {
	spec := a.assigned.Spec
	d := decide(spec.Adapters, a.options.Reserved, a.state)
	news := a.answer(d.answers) || !slices.Equal(d.failed, a.failed)
	if a.heard { // what was remembered may lack what has been assigned since
		a.options.Set.Told()
	}
	a.failed = d.failed
	wanted := make(map[string]bool, len(d.wanted))
	for _, digest := range d.wanted {
		wanted[digest] = true
	}
	next, alone := a.state.next(d.wanted)
	for _, digest := range next {
		a.begin(ctx, group, digest, alone)
	}
	a.forget(wanted)
	var told func() // once what is so now is reported
	if a.settle(spec.Adapters, d.settled) {
		told = a.latch
	}
	a.reporter.set(report{
		uid: a.assigned.UID, about: len(spec.Adapters), news: news || told != nil, told: told,
		status: v1alpha1.AdapterAssignmentStatus{
			ObservedRevision: spec.Revision, StartedAt: a.startedAt, BootID: a.bootID, Pending: d.pending, Failed: d.failed,
		},
	})
	a.untidy = true
	a.tidy()
}

// answer makes the set answer as was decided, and tells whether any name is served or refused now that was not.
func (a *Agent) answer(answers map[string]answer) (news bool) {
	for name, next := range answers {
		now, known := a.state.answers[name]
		switch {
		case known && now == next:
		case next.digest != "":
			a.options.Set.Serve(name, a.leases[next.digest])
			a.options.Log.Info("adapter served", "adapter", name, "revision", next.digest)
			news = true
		case next.failure != nil:
			a.options.Set.Refuse(name, next.failure)
			news = true
		default:
			a.options.Set.Expect(name)
		}
	}
	for name := range a.state.answers {
		if _, ok := answers[name]; !ok {
			a.options.Set.Drop(name)
			a.options.Log.Info("adapter removed", "adapter", name)
		}
	}
	a.state.answers = answers
	return news
}

// forget lets go of revisions that nobody wants. A failure is forgotten too, and a crash: who assigns its digest again
// wants a try.
func (a *Agent) forget(wanted map[string]bool) {
	for digest := range a.state.crashes {
		if !wanted[digest] && a.heard {
			delete(a.state.crashes, digest)
			a.marks.forget(digest)
		}
	}
	for digest, r := range a.state.revisions {
		if wanted[digest] || a.state.crashes[digest] >= mostCrashes {
			continue
		}
		if r.phase == loading {
			a.cancel[digest]() // it ends with a result of its own
			continue
		}
		if lease := a.leases[digest]; lease != nil {
			lease.Release()
			delete(a.leases, digest)
		}
		delete(a.state.revisions, digest)
	}
}

// settle tells whether all that was first assigned is loaded or failed, and only the report of it stands between the
// pod and its readiness: were the pod ready before, its adapters would seem to be loading again. A container that was
// ready before does not wait for the report: it may have no API server to write it to.
func (a *Agent) settle(entries []v1alpha1.AssignedAdapter, settled map[string]bool) bool {
	if a.Ready() == nil {
		return false
	}
	assigned := make(map[string]bool, len(entries))
	for _, e := range entries {
		assigned[e.Name] = true
	}
	if a.awaited == nil {
		a.awaited = maps.Clone(assigned)
	}
	for name := range a.awaited {
		if settled[name] || !assigned[name] {
			delete(a.awaited, name)
		}
	}
	switch {
	case len(a.awaited) > 0:
		a.unready(fmt.Sprintf("of the adapters first assigned, %d are still loading", len(a.awaited)))
	case a.state.returns:
		a.latch()
	default:
		a.unready("what is loaded has not been reported yet")
		return true
	}
	return false
}

// latch makes the pod ready, for good.
func (a *Agent) latch() {
	if a.unreadyFor.Swap(nil) == nil {
		return
	}
	a.options.Log.Info("ready")
	if err := a.options.Store.WriteFile(readyFile, []byte("yes\n")); err != nil {
		a.options.Log.Warn("that the pod is ready cannot be kept", "error", err) // only a restart would miss it
	}
}

// tidy removes artifacts that neither the assignment nor the base needs, once nothing is being loaded.
func (a *Agent) tidy() {
	if !a.untidy || len(a.cancel) > 0 {
		return
	}
	a.untidy = false
	keep := map[string]bool{a.options.BaseDigest: true}
	for _, e := range a.assigned.Spec.Adapters {
		keep[e.Digest], keep[e.FallbackDigest] = true, true
	}
	if err := a.options.Store.Keep(keep); err != nil {
		a.options.Log.Warn("artifacts cannot be removed", "error", err)
	}
}
