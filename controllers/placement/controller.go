package placement

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

const (
	// moment is how long changes are gathered before they are planned. It is a part of the time to Ready. Large
	// assignments rest besides (pace.go).
	moment = 20 * time.Millisecond
	// behind is when to look again after a write that met a newer object than the cache had, or that it has not yet.
	behind = 50 * time.Millisecond
	// catchUp is how long the cache may take to see a write. What it has not then was deleted by somebody.
	catchUp = 5 * time.Second
	// sparedAgain is how often it is looked whether what waits for a second pod has waited for long enough.
	sparedAgain = time.Second
	// parallel pools; one pool is never planned twice at once.
	parallel = 4
)

// Reconciler carries the plans out.
type Reconciler struct {
	client  client.Client
	now     func() time.Time
	company *Company
	pace    pace

	mu      sync.Mutex
	written map[types.UID]written // by pod
}

// written is the last spec written for a pod, as long as the cache may not have it.
type written struct {
	revision int64
	at       time.Time
}

// New is a reconciler.
func New(c client.Client, company *Company, now func() time.Time) *Reconciler {
	return &Reconciler{client: c, now: now, company: company, written: map[types.UID]written{}}
}

// SetupWithManager registers the controller. The cache needs IndexFields.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	enqueue := EnqueuePool(moment)
	// A pod can be seen before the ReplicaSet that leads from it to its pool.
	appears := builder.WithPredicates(predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetUID() != e.ObjectNew.GetUID()
	}})
	return ctrl.NewControllerManagedBy(mgr).Named("placement").
		Watches(&v1alpha1.InferencePool{}, enqueue, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.LoRAAdapter{}, enqueue, builder.WithPredicates(targetChanged())).
		Watches(&v1alpha1.AdapterAssignment{}, enqueue).
		Watches(&corev1.Pod{}, enqueue, builder.WithPredicates(PodChanged())).
		Watches(&appsv1.ReplicaSet{}, enqueue, appears).
		Watches(&appsv1.Deployment{}, enqueue, appears).
		WithOptions(controller.Options{MaxConcurrentReconciles: parallel}).
		Complete(r)
}

// Reconcile plans one pool and writes what changes. What is gone is the garbage collector's.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var pool v1alpha1.InferencePool
	if err := r.client.Get(ctx, req.NamespacedName, &pool); err != nil {
		if apierrors.IsNotFound(err) {
			r.company.forget(req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !pool.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	pods, err := PodsOf(ctx, r.client, &pool)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("pods: %w", err)
	}
	spare := r.company.Spares(&pool, pods, r.now()) // before any rest: who goes meanwhile is not seen again
	if rest := r.pace.soonest(pods, r.now()); rest > 0 {
		return ctrl.Result{RequeueAfter: rest}, nil
	}
	adapters, err := AdaptersOf(ctx, r.client, &pool)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("adapters: %w", err)
	}
	if r.isBehind(pods) {
		return ctrl.Result{RequeueAfter: behind}, nil
	}
	limits := LimitsOf(&pool)
	limits.Spare = spare
	again, err := r.carryOut(ctx, pods, EveryPod(pool.Name, adapters, pods, limits))
	return ctrl.Result{RequeueAfter: again}, err
}

// carryOut writes what changes, and tells when to look again; 0 is when something changes.
func (r *Reconciler) carryOut(ctx context.Context, pods []Pod, plan Plan) (again time.Duration, err error) {
	sooner := func(d time.Duration) {
		if again == 0 || d < again {
			again = d
		}
	}
	tried := 0
	for _, first := range plan.First {
		switch {
		case first != "":
			tried++
		case len(plan.Specs) > 0:
			sooner(sparedAgain)
		}
	}
	for _, pod := range pods {
		spec, ok := plan.Specs[pod.Name]
		if !ok || pod.Assignment != nil && reflect.DeepEqual(pod.Assignment.Spec, spec) {
			continue
		}
		if rest := r.pace.rest(pod.UID, r.now()); rest > 0 {
			sooner(rest)
			continue
		}
		switch err := r.write(ctx, pod, spec); {
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
			sooner(behind)
		case apierrors.IsNotFound(err): // the pod, or its namespace, went meanwhile
		case err != nil:
			return 0, fmt.Errorf("assignment of pod %s: %w", pod.Name, err)
		default:
			r.pace.wrote(pod.UID, len(spec.Adapters), r.now())
			ctrllog.FromContext(ctx).Info("assignment written", "pod", pod.Name, "revision", spec.Revision,
				"adapters", len(spec.Adapters), "noRoomFor", len(plan.Full), "onFirstPod", tried)
		}
	}
	return again, nil
}

// isBehind tells whether the cache lacks what was last written for one of the pods. A plan of what was before that
// might give to a second pod what is to be tried on one.
func (r *Reconciler) isBehind(pods []Pod) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	lacking := false
	for _, pod := range pods {
		last, ok := r.written[pod.UID]
		switch {
		case !ok:
		case pod.Assignment != nil && pod.Assignment.Spec.Revision >= last.revision, r.now().Sub(last.at) > catchUp:
			delete(r.written, pod.UID)
		default:
			lacking = true
		}
	}
	return lacking
}

// write creates a pod's assignment, or updates it where it was as the plan knew it.
func (r *Reconciler) write(ctx context.Context, pod Pod, spec v1alpha1.AdapterAssignmentSpec) error {
	if err := r.put(ctx, pod, spec); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	maps.DeleteFunc(r.written, func(_ types.UID, w written) bool { return now.Sub(w.at) > catchUp }) // of pods that went
	r.written[pod.UID] = written{spec.Revision, now}
	return nil
}

func (r *Reconciler) put(ctx context.Context, pod Pod, spec v1alpha1.AdapterAssignmentSpec) error {
	if pod.Assignment == nil {
		owner := metav1.NewControllerRef(pod.Pod, corev1.SchemeGroupVersion.WithKind("Pod"))
		owner.BlockOwnerDeletion = nil // it would take a right to the finalizers of all pods, for nothing
		return r.client.Create(ctx, &v1alpha1.AdapterAssignment{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: pod.Namespace, Name: pod.Name,
				Labels:          map[string]string{v1alpha1.LabelPool: spec.PoolName},
				OwnerReferences: []metav1.OwnerReference{*owner},
			},
			Spec: spec,
		})
	}
	next := pod.Assignment.DeepCopy()
	next.Spec = spec
	return r.client.Update(ctx, next)
}
