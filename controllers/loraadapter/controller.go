package loraadapter

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/owned"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/controllers/source"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
)

const (
	// parallelBrings holds few adapters in memory at once: checking one takes twice its size.
	parallelBrings = 4
	// parallel reconciles, which wait for nothing but the API server.
	parallel = 8
	// behind is when to look again after a write that met a newer object than the cache had.
	behind = 50 * time.Millisecond
	// failedLeast and failedMost are between tries after an error, such as a Service that the API server refuses.
	failedLeast = 5 * time.Millisecond
	failedMost  = time.Minute
	// fieldOwner is under whose name the Service and the status are written.
	fieldOwner = client.FieldOwner("switchyard-loraadapter")
)

// TempPattern is of the names of the folders in Options.TempDir.
const TempPattern = "adapter-*"

// missedAgain is how often at least it is tried to store again what a pod misses.
const missedAgain = 4 * time.Second

// Options are what a Reconciler needs.
type Options struct {
	Client   client.Client
	Reader   client.Reader // past the cache
	Events   events.EventRecorder
	Metrics  *telemetry.Metrics
	Source   Source
	Store    Store
	TempDir  string // in which adapters are unpacked for a moment; "" is the system's
	Policy   attempt.Policy
	Company  *placement.Company // which the planner has, too
	Now      func() time.Time
	Parallel int // adapters brought at once; 4
}

// Reconciler reconciles LoRAAdapters.
type Reconciler struct {
	client    client.Client
	objects   *owned.Objects
	events    events.EventRecorder
	metrics   *telemetry.Metrics
	stopwatch *telemetry.Stopwatch
	courier   *courier
	attempts  *attempt.Attempts[v1alpha1.Revision]
	policy    attempt.Policy
	company   *placement.Company
	now       func() time.Time
}

// New is a reconciler.
func New(o Options) *Reconciler {
	if o.Parallel == 0 {
		o.Parallel = parallelBrings
	}
	return &Reconciler{
		client: o.Client, objects: owned.New(o.Client, o.Reader, fieldOwner), events: o.Events,
		policy: o.Policy, company: o.Company, now: o.Now,
		metrics: o.Metrics, stopwatch: telemetry.NewStopwatch(),
		courier: &courier{
			source: o.Source, store: o.Store, metrics: o.Metrics, dir: o.TempDir, bases: map[string]artifact.BaseModel{},
		},
		attempts: attempt.New[v1alpha1.Revision](o.Parallel, o.Now),
	}
}

// SetupWithManager registers the controller. The cache needs placement.IndexFields.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if err := mgr.Add(r.attempts); err != nil {
		return err
	}
	return r.watch(ctrl.NewControllerManagedBy(mgr).Named("loraadapter")).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: parallel,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](
				failedLeast, failedMost),
		}).
		Complete(r)
}

// Load is how many attempts to bring an adapter run, and how many wait.
func (r *Reconciler) Load() (running, waiting int) { return r.attempts.Load() }

// Reconcile reads the scope, begins an attempt to bring the artifact where one is due, makes the Service or takes it
// away, and writes the status.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var adapter v1alpha1.LoRAAdapter
	if err := r.client.Get(ctx, req.NamespacedName, &adapter); err != nil {
		if apierrors.IsNotFound(err) {
			r.attempts.Forget(req.NamespacedName)
			r.stopwatch.Forget(req.NamespacedName)
			r.objects.Forget(req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if adapter.Status.ObservedGeneration != adapter.Generation {
		r.stopwatch.Begin(req.NamespacedName, adapter.Generation, applied(&adapter, r.now()))
	}
	s, err := r.read(ctx, &adapter)
	if err != nil {
		return ctrl.Result{}, err
	}
	result := ctrl.Result{RequeueAfter: r.bring(ctx, s)}
	if err := r.fit(ctx, s); err != nil {
		return ctrl.Result{}, err
	}
	refused := r.serve(ctx, s)
	if s.refused = owned.Refusal(refused); refused != nil && s.refused == "" {
		return ctrl.Result{}, refused
	}
	switch err := r.write(ctx, s); {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: behind}, nil
	case err != nil:
		return ctrl.Result{}, client.IgnoreNotFound(err)
	case refused != nil:
		return ctrl.Result{}, refused // tried again, ever less often: nothing tells when a quota has room
	}
	return result, nil
}

// read gathers the scope from the cache.
func (r *Reconciler) read(ctx context.Context, adapter *v1alpha1.LoRAAdapter) (*scope, error) {
	s := &scope{adapter: adapter, now: metav1.NewTime(r.now().Truncate(time.Second))}
	var pool v1alpha1.InferencePool
	err := r.client.Get(ctx, client.ObjectKey{Namespace: adapter.Namespace, Name: adapter.Spec.PoolRef.Name}, &pool)
	if apierrors.IsNotFound(err) || err == nil && !pool.DeletionTimestamp.IsZero() {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	s.pool = &pool
	if s.pods, err = placement.PodsOf(ctx, r.client, &pool); err != nil {
		return nil, fmt.Errorf("pods: %w", err)
	}
	return s, nil
}

// bring begins an attempt if one is due, and tells when the next is.
func (r *Reconciler) bring(ctx context.Context, s *scope) (next time.Duration) {
	key := client.ObjectKeyFromObject(s.adapter)
	from := source.Of(s.adapter.Namespace, s.adapter.Spec.Source, s.adapter.Spec.SecretRef)
	if !s.hasBase() || !s.adapter.DeletionTimestamp.IsZero() || !from.Known() {
		r.attempts.Forget(key)
		return 0
	}
	e := errand{
		from: from, settings: settingsOf(s.adapter),
		repo: artifact.Repository(s.pool.Namespace, s.pool.Name), base: s.pool.Status.BaseModel.Digest,
		maxRank: maxRank(s.pool),
	}
	input := e.input(s.adapter)
	s.outcome = r.attempts.Outcome(key, input)
	if wait := r.wait(s); wait > 0 {
		return wait
	}
	e.known = s.known()
	r.attempts.Run(ctx, key, input, func(ctx context.Context) (v1alpha1.Revision, error) {
		revision, err := r.courier.bring(ctx, e)
		r.metrics.Ended(ctx, telemetry.Adapter, err)
		return revision, err
	})
	return 0 // called again when it ends
}

// wait is how long until the next attempt is due.
func (r *Reconciler) wait(s *scope) time.Duration {
	if s.outcome == nil {
		return 0
	}
	wait := r.policy.Wait(s.outcome.Failures, s.outcome.Retry())
	switch known := s.known(); {
	case s.outcome.Err == nil && s.look(s.outcome.Result.Digest).pullFailed:
		wait = min(wait, r.policy.Least) // perhaps the artifact registry has lost it
	case s.outcome.Retry() && known != nil && s.look(known.Digest).pullFailed:
		wait = min(wait, missedAgain)
	}
	return s.outcome.Ended.Add(wait).Sub(r.now())
}

// settingsOf is what else than its files changes the adapter's answers.
func settingsOf(adapter *v1alpha1.LoRAAdapter) peft.Settings {
	return peft.Settings{
		ClassNames: adapter.Spec.ClassNames, ProblemType: arch.Problem(adapter.Spec.ProblemType),
	}
}

// input is all that an outcome depends on, as a text.
func (e errand) input(adapter *v1alpha1.LoRAAdapter) string {
	raw, err := json.Marshal([]any{adapter.UID, e.from, e.settings, e.repo, e.base, e.maxRank})
	if err != nil {
		panic(err) // unreachable: strings and integers always marshal
	}
	return string(raw)
}

// fit asks the plan where the adapter stands, if it is not served by all: whether there is room, and which pod is
// first.
func (r *Reconciler) fit(ctx context.Context, s *scope) error {
	target := s.target(s.artifact())
	if s.pool == nil || target == nil || s.look(target.Digest).allServe() {
		return nil
	}
	adapters, err := placement.AdaptersOf(ctx, r.client, s.pool)
	if err != nil {
		return fmt.Errorf("adapters: %w", err)
	}
	for i := range adapters {
		if adapters[i].Name == s.adapter.Name { // its target may not have been written yet
			adapters[i].Digest, adapters[i].Bytes, adapters[i].Proven = target.Digest, target.SizeBytes, target.Proven
		}
	}
	limits := placement.LimitsOf(s.pool)
	limits.Spare = r.company.Spares(s.pool, s.pods, r.now())
	first, tried := "", false
	s.full, first, tried = placement.Fit(s.pool.Name, s.adapter.Name, adapters, s.pods, limits)
	s.first, s.waits = first, tried && first == ""
	return nil
}

func (p inPods) allServe() bool { return p.counts.Desired > 0 && p.counts.Ready == p.counts.Desired }

// write writes the status if it has changed, then tells of it in events.
func (r *Reconciler) write(ctx context.Context, s *scope) error {
	status := s.status()
	if reflect.DeepEqual(status, s.adapter.Status) {
		return nil
	}
	next := s.adapter.DeepCopy()
	next.Status = status
	patch := client.MergeFromWithOptions(s.adapter, client.MergeFromWithOptimisticLock{})
	if err := r.client.Status().Patch(ctx, next, patch, fieldOwner); err != nil {
		return err
	}
	telemetry.Tell(ctx, r.events, next, story(s.adapter, next))
	r.clock(ctx, next)
	return nil
}

// applied is when the spec was written as it is now. The API server tells whole seconds: what is seen within one was
// written just now.
func applied(a *v1alpha1.LoRAAdapter, now time.Time) time.Time {
	at := a.CreationTimestamp.Time
	for _, f := range a.ManagedFields {
		if f.Time != nil && f.Time.After(at) && bytes.Contains(f.FieldsV1.GetRawBytes(), []byte(`"f:spec"`)) {
			at = f.Time.Time
		}
	}
	if now.Sub(at) < time.Second {
		return now
	}
	return at
}

// clock counts how long a generation took that is Ready now.
func (r *Reconciler) clock(ctx context.Context, a *v1alpha1.LoRAAdapter) {
	if telemetry.StateOf(a.Generation, a.Status.Conditions) != telemetry.Ready {
		return
	}
	if took, timed := r.stopwatch.End(client.ObjectKeyFromObject(a), a.Generation, r.now()); timed {
		r.metrics.Ready(took)
		ctrllog.FromContext(ctx).Info("ready", "generation", a.Generation, "took", took.String())
	}
}

func maxRank(pool *v1alpha1.InferencePool) int32 {
	if n := pool.Spec.Adapters.MaxRank; n != nil {
		return *n
	}
	return 64 // as the API server fills it in
}
