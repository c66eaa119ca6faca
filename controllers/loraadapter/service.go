package loraadapter

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/endpoint"
	"github.com/switchyard-dev/switchyard/controllers/owned"
)

// service has the adapter's name, by which the pods know who is asked, and leads to the pods of its pool. It has no
// metrics: those are of pods, each of which the pool's Service finds once.
func service(adapter *v1alpha1.LoRAAdapter) *coreac.ServiceApplyConfiguration {
	pool := adapter.Spec.PoolRef.Name
	return endpoint.Service(adapter.Namespace, adapter.Name, pool, endpoint.HTTP, endpoint.GRPC).
		WithLabels(map[string]string{
			v1alpha1.LabelPool:             pool,
			"app.kubernetes.io/name":       "switchyard",
			"app.kubernetes.io/component":  "adapter",
			"app.kubernetes.io/instance":   adapter.Name,
			"app.kubernetes.io/managed-by": "switchyard",
		}).
		WithOwnerReferences(metaac.OwnerReference().
			WithAPIVersion(v1alpha1.GroupVersion.String()).WithKind("LoRAAdapter").
			WithName(adapter.Name).WithUID(adapter.UID).WithController(true))
}

// serve makes the adapter's Service, once its pool has a base to serve, or takes it away where the spec does not ask
// for one. That of an adapter that is on its way out is the garbage collector's.
func (r *Reconciler) serve(ctx context.Context, s *scope) (err error) {
	live := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.adapter.Namespace, Name: s.adapter.Name}}
	switch {
	case !s.adapter.DeletionTimestamp.IsZero():
	case !s.adapter.Spec.Service:
		err = r.objects.Delete(ctx, s.adapter, live)
	case s.hasBase():
		s.service, err = r.objects.Apply(ctx, s.adapter, owned.Piece{
			Kind: "Service", Wanted: service(s.adapter), Live: live,
		})
	}
	if err != nil {
		return fmt.Errorf("service %s: %w", s.adapter.Name, err)
	}
	return nil
}
