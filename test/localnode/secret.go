package localnode

import (
	"context"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// MountSecret keeps a folder as a kubelet keeps the mount of some keys of a Secret, for a process that is no pod of
// this node, until ctx ends. written is called after each change, with what went wrong with it if anything did.
func MountSecret(
	ctx context.Context, client kubernetes.Interface, namespace, name, folder string, keys []string, written func(error),
) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}))
	write := func(object any) { written(writeKeys(folder, object.(*corev1.Secret), keys)) }
	_, err := factory.Core().V1().Secrets().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: write, UpdateFunc: func(_, object any) { write(object) },
		// One that is deleted leaves its files, as with a kubelet.
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown()
	return nil
}

func writeKeys(folder string, secret *corev1.Secret, keys []string) error {
	files := map[string][]byte{}
	for _, key := range keys {
		value, ok := secret.Data[key]
		if !ok {
			return fmt.Errorf("%s has no key %s", secret.Name, key)
		}
		files[key] = value
	}
	return writeFiles(folder, files)
}
