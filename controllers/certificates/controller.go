package certificates

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const (
	// behind is when to look again after a write that met another's, or a newer Secret than the cache had.
	behind = 50 * time.Millisecond
	// atMost is when to look again in any case: clocks are set, and machines sleep.
	atMost = time.Hour
	// fieldOwner is under whose name the Secret is written.
	fieldOwner = client.FieldOwner("switchyard-certificates")
)

// Options are what a Reconciler needs.
type Options struct {
	Client client.Client
	Reader client.Reader        // a cache of the one Secret
	Secret types.NamespacedName // whose name nobody else uses
	Names  []string             // host names and addresses by which the registry is known
	Now    func() time.Time
}

// Reconciler keeps the Secret.
type Reconciler struct{ Options }

// New is a reconciler.
func New(o Options) *Reconciler { return &Reconciler{o} }

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	begin := func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(reconcile.Request{NamespacedName: r.Secret}) // of a Secret that is not there nothing would tell
		return nil
	}
	return ctrl.NewControllerManagedBy(mgr).Named("certificates").
		For(&corev1.Secret{}).
		WatchesRawSource(source.Func(begin)).
		Complete(r)
}

// Reconcile makes the Secret what it should be by now.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if req.NamespacedName != r.Secret {
		return ctrl.Result{}, nil
	}
	var secret corev1.Secret
	err := r.Reader.Get(ctx, r.Secret, &secret)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	now := r.Now()
	data, did, again, failed := next(secret.Data, r.Names, now)
	if failed != nil {
		return ctrl.Result{}, fmt.Errorf("certificate in Secret %s: %w", r.Secret, failed)
	}
	result := ctrl.Result{RequeueAfter: min(max(again.Sub(now), behind), atMost)}
	if did == none {
		return result, nil
	}
	secret.Data = data
	if apierrors.IsNotFound(err) {
		secret.ObjectMeta = metav1.ObjectMeta{Namespace: r.Secret.Namespace, Name: r.Secret.Name}
		secret.Type = corev1.SecretTypeTLS
		err = r.Client.Create(ctx, &secret, fieldOwner)
	} else {
		err = r.Client.Update(ctx, &secret, fieldOwner)
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		return ctrl.Result{RequeueAfter: behind}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	log.FromContext(ctx).Info("certificate of the artifact registry", "step", string(did), "until", again)
	return result, nil
}
