package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// volumes are the names of the PersistentVolumes that there are, each a folder.
var volumes = []string{"volume-1", "volume-2", "volume-3", "volume-4"}

// startVolumes makes the volumes, of the class that claims get by default. One that was released is emptied and may be
// claimed again.
func (c *Cluster) startVolumes(ctx context.Context) error {
	for _, name := range volumes {
		if err := c.emptyVolume(name); err != nil {
			return err
		}
	}
	objects, err := c.file("volumes.yaml")
	if err != nil {
		return err
	}
	if err := c.Kubectl(ctx, objects, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.Plane.Config())
	if err != nil {
		return err
	}
	watch := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "persistentvolumes", "", fields.Everything())
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: watch, ObjectType: &corev1.PersistentVolume{},
		Handler: cache.ResourceEventHandlerFuncs{
			UpdateFunc: func(_, o any) { c.recycle(context.WithoutCancel(ctx), o.(*corev1.PersistentVolume)) },
		},
	})
	go informer.RunWithContext(context.WithoutCancel(ctx))
	return nil
}

func (c *Cluster) recycle(ctx context.Context, volume *corev1.PersistentVolume) {
	if volume.Status.Phase != corev1.VolumeReleased {
		return
	}
	err := c.emptyVolume(volume.Name)
	if err == nil {
		err = c.Kubectl(ctx, nil, "patch", "pv", volume.Name, "--type=merge", "-p", `{"spec":{"claimRef":null}}`)
	}
	if err != nil {
		c.options.Log.Error("a released volume", "volume", volume.Name, "error", err)
	}
}

// emptyVolume leaves a volume's folder empty and open to the users that pods run as.
func (c *Cluster) emptyVolume(name string) error {
	folder := filepath.Join(c.options.Dir, "volumes", name)
	return errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755), os.Chmod(folder, 0o777))
}
