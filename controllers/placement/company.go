package placement

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// sparing is for how long what is new waits for a second ready pod. Who makes pods may notice late that one is missing.
const sparing = time.Minute

// Company remembers when a pool was last seen with more than one ready pod. Nothing in the API server tells of a pod
// that is gone, and who would replace it may not have noticed.
type Company struct {
	mu    sync.Mutex
	pools map[types.NamespacedName]time.Time
}

// NewCompany has seen nothing: a pool counts as well manned until it is first looked at.
func NewCompany() *Company { return &Company{pools: map[types.NamespacedName]time.Time{}} }

// Spares tells whether a pool's last ready pod is to be spared what is new: it wants more, and has had more within a
// minute, or a pod has come or changed since.
func (c *Company) Spares(pool *v1alpha1.InferencePool, pods []Pod, now time.Time) bool {
	key := client.ObjectKeyFromObject(pool)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := pool.Spec.Replicas; n == nil || *n < 2 {
		delete(c.pools, key)
		return false
	}
	ready := 0
	for _, pod := range pods {
		if Ready(pod.Pod) {
			ready++
		}
	}
	moved, known := c.pools[key]
	if !known || ready > 1 {
		moved = now
		c.pools[key] = now
	}
	for _, pod := range pods {
		turned := readiness(pod.Pod).LastTransitionTime
		for _, at := range []time.Time{pod.CreationTimestamp.Time, runningSince(pod.Pod), turned.Time} {
			if at.After(moved) {
				moved = at
			}
		}
	}
	return now.Sub(moved) < sparing
}

// forget gives up what is known of a pool that is gone.
func (c *Company) forget(pool types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pools, pool)
}
