package loraadapter

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// watch is what an adapter's status depends on: all adapters of a pool look again when the pool or one of its pods
// changes; when a pod reports, only those of which it says something new.
func (r *Reconciler) watch(b *builder.Builder) *builder.Builder {
	all := handler.EnqueueRequestsFromMapFunc(r.adaptersOf)
	return b.
		// Its own status too: the cache lags behind what was just written, and a status that goes back to what it was before
		// that would seem to be there already. Seen again with it, it is written.
		For(&v1alpha1.LoRAAdapter{}).
		// A Service of the adapter's name, be it its own or in its way.
		Watches(&corev1.Service{}, &handler.EnqueueRequestForObject{}).
		Watches(&v1alpha1.InferencePool{}, all, builder.WithPredicates(predicate.Funcs{UpdateFunc: poolChanged})).
		Watches(&corev1.Pod{}, all, builder.WithPredicates(placement.PodChanged())).
		Watches(&v1alpha1.AdapterAssignment{}, handler.Funcs{
			CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) {
				enqueueChanged(&v1alpha1.AdapterAssignment{}, e.Object, q)
			},
			UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) { enqueueChanged(e.ObjectOld, e.ObjectNew, q) },
			DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
				gone := &v1alpha1.AdapterAssignment{}
				gone.Namespace = e.Object.GetNamespace()
				enqueueChanged(e.Object, gone, q)
			},
		}).
		WatchesRawSource(source.Channel(r.attempts.Ended(), &handler.EnqueueRequestForObject{}))
}

func deletionBegan(e event.UpdateEvent) bool {
	return e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
}

func poolChanged(e event.UpdateEvent) bool {
	before, after := e.ObjectOld.(*v1alpha1.InferencePool), e.ObjectNew.(*v1alpha1.InferencePool)
	return before.Generation != after.Generation || before.UID != after.UID ||
		before.Status.BaseModel != after.Status.BaseModel || deletionBegan(e)
}

func (r *Reconciler) adaptersOf(ctx context.Context, o client.Object) []reconcile.Request {
	pool := placement.PoolOf(o)
	list, err := placement.Refer(ctx, r.client, pool.Namespace, pool.Name)
	if err != nil {
		return nil // the cache has stopped
	}
	requests := make([]reconcile.Request, 0, len(list))
	for i := range list {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list[i])})
	}
	return requests
}

func enqueueChanged(before, after client.Object, q queue) {
	for _, name := range placement.Changed(
		before.(*v1alpha1.AdapterAssignment), after.(*v1alpha1.AdapterAssignment),
	) {
		q.Add(reconcile.Request{NamespacedName: client.ObjectKey{Namespace: after.GetNamespace(), Name: name}})
	}
}
