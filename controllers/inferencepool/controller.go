package inferencepool

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/owned"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
)

const (
	// parallelBrings are bases fetched at once; each fills a disk.
	parallelBrings = 2
	// parallel reconciles, which wait for nothing but the API server.
	parallel = 4
	// behind is when to look again after a write that met a newer object than the cache had.
	behind = 50 * time.Millisecond
	// countMoment is how long changes of adapters are gathered before they are counted: nothing waits for the counts.
	countMoment = 500 * time.Millisecond
	// waitedFor is how often it is looked whether the base is still stored while a pod is not ready, which may be for want
	// of it, as a pod that has no base yet can report nothing, or misses an adapter: then more may be lost. And how often
	// at least it is tried to store it again.
	waitedFor = 4 * time.Second
	// podMoment is how long changes of pods are gathered before they are counted.
	podMoment = 20 * time.Millisecond
	// takenAgain is when to look whether a name that is another's has become free: nothing tells.
	takenAgain = 10 * time.Second
	// failedLeast and failedMost are between tries after an error, such as an object that the API server refuses.
	failedLeast = 5 * time.Millisecond
	failedMost  = time.Minute
	// fieldOwner is under whose name a pool's objects and its status are written.
	fieldOwner = client.FieldOwner("switchyard-inferencepool")
)

// TempPattern is of the names of the folders in Options.TempDir.
const TempPattern = "base-*"

// Options are what a Reconciler needs.
type Options struct {
	Client  client.Client
	Reader  client.Reader // past the cache, which holds only what bears a pool's label
	Events  events.EventRecorder
	Metrics *telemetry.Metrics
	Source  Source
	Store   Store
	Trust   Trust
	TempDir string // in which bases are unpacked for a moment; "" is the system's
	Policy  attempt.Policy
	Now     func() time.Time
	Runtime Runtime
}

// Reconciler reconciles InferencePools.
type Reconciler struct {
	client   client.Client
	objects  *owned.Objects
	events   events.EventRecorder
	metrics  *telemetry.Metrics
	courier  *courier
	attempts *attempt.Attempts[v1alpha1.ResolvedBaseModel]
	policy   attempt.Policy
	now      func() time.Time
	trust    Trust
	runtime  Runtime
}

// New is a reconciler.
func New(o Options) *Reconciler {
	return &Reconciler{
		client: o.Client, objects: owned.New(o.Client, o.Reader, fieldOwner), events: o.Events, policy: o.Policy, now: o.Now,
		trust:   o.Trust,
		runtime: o.Runtime, metrics: o.Metrics,
		courier: &courier{
			source: o.Source, store: o.Store, metrics: o.Metrics, dir: o.TempDir, bases: map[string]described{},
		},
		attempts: attempt.New[v1alpha1.ResolvedBaseModel](parallelBrings, o.Now),
	}
}

// SetupWithManager registers the controller. The cache needs placement.IndexFields.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if err := mgr.Add(r.attempts); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("inferencepool").
		For(&v1alpha1.InferencePool{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		// Its own status too: the cache lags behind what was just written, and a status that goes back to what it was before
		// that would seem to be there already. Seen again with it, it is written; with what else is counted till then.
		Watches(&v1alpha1.InferencePool{}, placement.EnqueuePool(countMoment)).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.Service{}).
		Owns(&corev1.ServiceAccount{}).
		Owns(&rbacv1.RoleBinding{}).
		Owns(&networkingv1.NetworkPolicy{}).
		// Its status tells of pods at every turn.
		Owns(&policyv1.PodDisruptionBudget{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Pod{}, placement.EnqueuePool(podMoment), builder.WithPredicates(placement.PodChanged())).
		Watches(&v1alpha1.LoRAAdapter{}, placement.EnqueuePool(countMoment), builder.WithPredicates(countChanged())).
		Watches(&v1alpha1.AdapterAssignment{}, placement.EnqueuePool(podMoment), builder.WithPredicates(missesMore())).
		// The one that the cache has: what all pods are to trust may have changed.
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.all)).
		WatchesRawSource(source.Channel(r.attempts.Ended(), &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: parallel,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](
				failedLeast, failedMost),
		}).
		Complete(r)
}

// all are all pools.
func (r *Reconciler) all(ctx context.Context, _ client.Object) (requests []reconcile.Request) {
	var pools v1alpha1.InferencePoolList
	if err := r.client.List(ctx, &pools); err != nil {
		log.FromContext(ctx).Error(err, "pools cannot be listed") // of a cache: it does not fail
	}
	for i := range pools.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&pools.Items[i])})
	}
	return requests
}

// Load is how many attempts to bring a base model run, and how many wait.
func (r *Reconciler) Load() (running, waiting int) { return r.attempts.Load() }

// countChanged passes adapters of which the pool's counts say something else now.
func countChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return countOf(e.ObjectOld.(*v1alpha1.LoRAAdapter)) != countOf(e.ObjectNew.(*v1alpha1.LoRAAdapter))
	}}
}

// Reconcile begins an attempt to bring the base where one is due, applies the pool's objects, and writes the status.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var pool v1alpha1.InferencePool
	if err := r.client.Get(ctx, req.NamespacedName, &pool); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !pool.DeletionTimestamp.IsZero() {
		r.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	s := &scope{pool: &pool, now: metav1.NewTime(r.now().Truncate(time.Second))}
	if err := r.count(ctx, s); err != nil {
		return ctrl.Result{}, err
	}
	result := ctrl.Result{RequeueAfter: r.bring(ctx, s)}
	base, _, _ := s.base()
	s.model = r.courier.base(artifact.Repository(pool.Namespace, pool.Name), base.Digest)
	s.small = s.tooSmall()
	if err := r.readDeployment(ctx, s); err != nil {
		return ctrl.Result{}, err
	}
	refused := r.apply(ctx, s)
	if s.refused = owned.Refusal(refused); refused != nil && s.refused == "" {
		return ctrl.Result{}, refused
	}
	if s.taken != "" && (result.RequeueAfter == 0 || result.RequeueAfter > takenAgain) {
		result.RequeueAfter = takenAgain
	}
	if err := r.read(ctx, s); err != nil {
		return ctrl.Result{}, err
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

func (r *Reconciler) forget(pool types.NamespacedName) {
	r.attempts.Forget(pool)
	r.courier.forget(artifact.Repository(pool.Namespace, pool.Name))
	r.objects.Forget(pool)
}

// count counts the pool's pods.
func (r *Reconciler) count(ctx context.Context, s *scope) error {
	pods, err := placement.PodsOf(ctx, r.client, s.pool)
	if err != nil {
		return fmt.Errorf("pods: %w", err)
	}
	for _, pod := range pods {
		s.misses = s.misses || misses(pod.Assignment)
		switch {
		case placement.Ready(pod.Pod):
			s.readyPods++
		case pod.DeletionTimestamp.IsZero():
			s.comingPods++
		}
	}
	return nil
}

// misses tells whether a pod says that the artifact registry lacks something.
func misses(a *v1alpha1.AdapterAssignment) bool {
	return a != nil && slices.ContainsFunc(a.Status.Failed, func(f v1alpha1.FailedAdapter) bool {
		return f.Reason == v1alpha1.FailurePullFailed
	})
}

// missesMore passes assignments of pods that begin to miss something.
func missesMore() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, after := e.ObjectOld.(*v1alpha1.AdapterAssignment), e.ObjectNew.(*v1alpha1.AdapterAssignment)
			return misses(after) && !misses(before)
		},
	}
}

// bring begins an attempt if one is due, and tells when the next is.
func (r *Reconciler) bring(ctx context.Context, s *scope) (next time.Duration) {
	e := errandOf(s.pool)
	if !e.from.Known() {
		return 0
	}
	key, input := client.ObjectKeyFromObject(s.pool), e.input(s.pool)
	if s.outcome = r.attempts.Outcome(key, input); s.outcome != nil {
		wait := r.policy.Wait(s.outcome.Failures, s.outcome.Retry())
		if (s.misses || s.comingPods > 0) && (s.outcome.Err == nil || s.outcome.Retry()) {
			wait = min(wait, waitedFor)
		}
		if wait = s.outcome.Ended.Add(wait).Sub(r.now()); wait > 0 {
			return wait
		}
	}
	r.attempts.Run(ctx, key, input, func(ctx context.Context) (v1alpha1.ResolvedBaseModel, error) {
		base, err := r.courier.bring(ctx, e)
		r.metrics.Ended(ctx, telemetry.Base, err)
		return base, err
	})
	return 0 // called again when it ends
}

// apply makes the pool's objects what they should be, once there is a base to serve. Pods that cannot hold what they
// may be given are not made, and a Deployment that is there is left as it is, also until that is known.
func (r *Reconciler) apply(ctx context.Context, s *scope) error {
	base, _, _ := s.base()
	if base.Digest == "" {
		return nil
	}
	ca, err := r.trust.PEM(ctx)
	if err != nil {
		return fmt.Errorf("the artifact registry's certificates: %w", err)
	}
	agent, name := agentName(s.pool), s.pool.Name
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: s.pool.Namespace, Name: name}
	}
	var pieces []owned.Piece
	add := func(kind string, wanted runtime.ApplyConfiguration, live client.Object) {
		pieces = append(pieces, owned.Piece{Kind: kind, Wanted: wanted, Live: live})
	}
	if len(ca) > 0 { // else the pods wait for it, and we are called when it is there
		add("ConfigMap", configMap(s.pool, ca), &corev1.ConfigMap{ObjectMeta: meta(agent)})
	}
	add("ServiceAccount", serviceAccount(s.pool), &corev1.ServiceAccount{ObjectMeta: meta(agent)})
	add("RoleBinding", roleBinding(s.pool, r.runtime), &rbacv1.RoleBinding{ObjectMeta: meta(agent)})
	add("NetworkPolicy", networkPolicy(s.pool, r.runtime), &networkingv1.NetworkPolicy{ObjectMeta: meta(name)})
	add("PodDisruptionBudget", disruptionBudget(s.pool), &policyv1.PodDisruptionBudget{ObjectMeta: meta(name)})
	add("Service", service(s.pool), &corev1.Service{ObjectMeta: meta(name)})
	if s.small == "" && !s.unjudged() {
		add("Deployment", deployment(s.pool, base.Digest, r.runtime), &appsv1.Deployment{ObjectMeta: meta(name)})
	}
	for _, p := range pieces {
		standing, err := r.objects.Apply(ctx, s.pool, p)
		if err != nil {
			return fmt.Errorf("%s %s: %w", p.Kind, p.Live.GetName(), err)
		}
		if standing == owned.Foreign {
			s.taken = fmt.Sprintf("%s %q", p.Kind, p.Live.GetName())
			return nil
		}
	}
	return nil
}

// read gathers the rest of the scope from the cache.
func (r *Reconciler) read(ctx context.Context, s *scope) error {
	if err := r.readDeployment(ctx, s); err != nil {
		return err
	}
	key := client.ObjectKeyFromObject(s.pool)
	var service corev1.Service
	if err := r.client.Get(ctx, key, &service); client.IgnoreNotFound(err) != nil {
		return err
	}
	if metav1.IsControlledBy(&service, s.pool) {
		s.service = &service
	}
	var err error
	s.adapters, err = placement.Refer(ctx, r.client, s.pool.Namespace, s.pool.Name)
	return err
}

func (r *Reconciler) readDeployment(ctx context.Context, s *scope) error {
	var deployment appsv1.Deployment
	err := r.client.Get(ctx, client.ObjectKeyFromObject(s.pool), &deployment)
	if s.deployment = nil; metav1.IsControlledBy(&deployment, s.pool) {
		s.deployment = &deployment
	}
	return client.IgnoreNotFound(err)
}

// write writes the status if it has changed, then tells of it in events.
func (r *Reconciler) write(ctx context.Context, s *scope) error {
	status := s.status()
	if reflect.DeepEqual(status, s.pool.Status) {
		return nil
	}
	next := s.pool.DeepCopy()
	next.Status = status
	patch := client.MergeFromWithOptions(s.pool, client.MergeFromWithOptimisticLock{})
	if err := r.client.Status().Patch(ctx, next, patch, fieldOwner); err != nil {
		return err
	}
	telemetry.Tell(ctx, r.events, next, story(s.pool, next))
	return nil
}
