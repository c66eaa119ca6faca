package placement

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// PodChanged passes what matters of pods: that they come and go, become ready, restart, or are told to end.
func PodChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
		return before.UID != after.UID || Ready(before) != Ready(after) || !runningSince(before).Equal(runningSince(after)) ||
			before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero()
	}}
}

func runningSince(pod *corev1.Pod) time.Time {
	for _, s := range pod.Status.ContainerStatuses {
		if s.Name == RuntimeContainer && s.State.Running != nil {
			return s.State.Running.StartedAt.Time
		}
	}
	return time.Time{}
}

// PoolOf maps an object of a pool to the pool that its label, spec or reference names. It need not be true: whoever is
// called looks again.
func PoolOf(o client.Object) types.NamespacedName {
	name := o.GetLabels()[v1alpha1.LabelPool]
	switch o := o.(type) {
	case *v1alpha1.LoRAAdapter:
		name = o.Spec.PoolRef.Name
	case *v1alpha1.AdapterAssignment:
		name = o.Spec.PoolName
	case *v1alpha1.InferencePool:
		name = o.Name
	}
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: name}
}

// targetChanged passes what placement needs to know of adapters.
func targetChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return adapterOf(e.ObjectOld.(*v1alpha1.LoRAAdapter)) != adapterOf(e.ObjectNew.(*v1alpha1.LoRAAdapter))
	}}
}

// EnqueuePool enqueues an object's pool a moment later, so that what changes at once is looked at once.
func EnqueuePool(moment time.Duration) handler.EventHandler {
	add := func(o client.Object, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		if pool := PoolOf(o); pool.Name != "" {
			q.AddAfter(reconcile.Request{NamespacedName: pool}, moment)
		}
	}
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { add(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) { add(e.ObjectNew, q) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { add(e.Object, q) },
	}
}
