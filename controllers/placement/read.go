package placement

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// The indexes of the cache that reads go through.
const (
	indexController = "metadata.controller" // Deployments, ReplicaSets and Pods by the UID of their controller
	indexPool       = "spec.poolRef.name"   // LoRAAdapters
)

// The defaults of a pool's limits, as the API server fills them in.
const (
	defaultCount = 512
	defaultBytes = 2 << 30
)

// IndexFields prepares a cache for PodsOf and AdaptersOf.
func IndexFields(ctx context.Context, indexer client.FieldIndexer) error {
	controller := func(o client.Object) []string {
		if owner := metav1.GetControllerOf(o); owner != nil {
			return []string{string(owner.UID)}
		}
		return nil
	}
	for _, o := range []client.Object{&appsv1.Deployment{}, &appsv1.ReplicaSet{}, &corev1.Pod{}} {
		if err := indexer.IndexField(ctx, o, indexController, controller); err != nil {
			return fmt.Errorf("index of %T: %w", o, err)
		}
	}
	return indexer.IndexField(ctx, &v1alpha1.LoRAAdapter{}, indexPool, func(o client.Object) []string {
		return []string{o.(*v1alpha1.LoRAAdapter).Spec.PoolRef.Name}
	})
}

// PodsOf finds a pool's pods by their controllers, from the pool over its Deployment and ReplicaSets, never by labels
// alone, with the assignments that are theirs; not those that have ended for good. All are the cache's own, not to be
// changed: an assignment may be of two thousand entries, and every reconcile of each of its adapters reads it.
func PodsOf(ctx context.Context, c client.Reader, pool *v1alpha1.InferencePool) ([]Pod, error) {
	controlledBy := func(o client.Object) []client.ListOption {
		return []client.ListOption{
			client.InNamespace(pool.Namespace), client.MatchingFields{indexController: string(o.GetUID())},
		}
	}
	var pods []Pod
	var deployments appsv1.DeploymentList
	if err := c.List(ctx, &deployments, controlledBy(pool)...); err != nil {
		return nil, err
	}
	for i := range deployments.Items {
		var sets appsv1.ReplicaSetList
		if err := c.List(ctx, &sets, controlledBy(&deployments.Items[i])...); err != nil {
			return nil, err
		}
		for j := range sets.Items {
			var list corev1.PodList
			if err := c.List(ctx, &list, append(controlledBy(&sets.Items[j]), client.UnsafeDisableDeepCopy)...); err != nil {
				return nil, err
			}
			for k := range list.Items {
				if phase := list.Items[k].Status.Phase; phase == corev1.PodFailed || phase == corev1.PodSucceeded {
					continue // evicted for its node's sake, it may lie there for ever
				}
				assignment, err := assignmentOf(ctx, c, &list.Items[k])
				if err != nil {
					return nil, err
				}
				pods = append(pods, Pod{&list.Items[k], assignment})
			}
		}
	}
	return pods, nil
}

// assignmentOf is a pod's assignment, or nil. One of a former pod of the name is none.
func assignmentOf(ctx context.Context, c client.Reader, pod *corev1.Pod) (*v1alpha1.AdapterAssignment, error) {
	var a v1alpha1.AdapterAssignment
	switch err := c.Get(ctx, client.ObjectKeyFromObject(pod), &a, client.UnsafeDisableDeepCopy); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	case !metav1.IsControlledBy(&a, pod):
		return nil, nil
	}
	return &a, nil
}

// Refer lists the adapters that refer to a pool. They are the cache's own: not to be changed.
func Refer(ctx context.Context, c client.Reader, namespace, pool string) ([]v1alpha1.LoRAAdapter, error) {
	var list v1alpha1.LoRAAdapterList
	err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{indexPool: pool},
		client.UnsafeDisableDeepCopy)
	return list.Items, err
}

// AdaptersOf is what placement needs to know of a pool's adapters.
func AdaptersOf(ctx context.Context, c client.Reader, pool *v1alpha1.InferencePool) ([]Adapter, error) {
	list, err := Refer(ctx, c, pool.Namespace, pool.Name)
	adapters := make([]Adapter, 0, len(list))
	for i := range list {
		adapters = append(adapters, adapterOf(&list[i]))
	}
	return adapters, err
}

func adapterOf(a *v1alpha1.LoRAAdapter) Adapter {
	out := Adapter{Name: a.Name, Created: a.CreationTimestamp.Time, Deleting: !a.DeletionTimestamp.IsZero()}
	if target := a.Status.TargetRevision; target != nil {
		out.Digest, out.Bytes, out.Proven = target.Digest, target.SizeBytes, target.Proven
	}
	return out
}

// LimitsOf is what one pod of a pool may hold.
func LimitsOf(pool *v1alpha1.InferencePool) Limits {
	limits := Limits{Count: defaultCount, Bytes: defaultBytes}
	if n := pool.Spec.Adapters.MaxCount; n != nil {
		limits.Count = int(*n)
	}
	if m := pool.Spec.Adapters.Memory; m != nil {
		limits.Bytes = m.Value()
	}
	return limits
}
