package warm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/local"
	"github.com/switchyard-dev/switchyard/test/ocisource"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const (
	pool = "digits"
	// atOnce is how many adapters are pushed or applied at the same time.
	atOnce = 8
)

// Pool is a warm pool.
type Pool struct {
	place     *local.Place
	namespace string // the pool is alone in it
	pushed    int
	stop      context.CancelFunc
	running   sync.WaitGroup

	mu      sync.Mutex
	ready   map[string]time.Time // when an adapter was first seen to be Ready
	stalled error
	changed chan struct{} // closed, and another made, with each change of the above
}

// New makes a pool of so many pods, which hold up to so many adapters, and waits until it is Ready.
func New(ctx context.Context, place *local.Place, replicas, maxCount int32) (*Pool, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "warm-"}}
	if err := place.Client.Create(ctx, namespace); err != nil {
		return nil, err
	}
	if err := place.Client.Create(ctx, wrappers.Pool(namespace.Name, pool).Source(place.Ref("base", "v1")).
		Replicas(replicas).Limits(maxCount, "2Gi").Obj()); err != nil {
		return nil, err
	}
	if out, err := place.Kubectl(ctx, "wait", "-n", namespace.Name, "--for=condition=Ready", "lorapool/"+pool,
		"--timeout=60s"); err != nil {
		return nil, fmt.Errorf("%w:\n%s", err, out)
	}
	p := &Pool{place: place, namespace: namespace.Name, ready: map[string]time.Time{}, changed: make(chan struct{})}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	if err := p.watch(watching); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	return p, nil
}

// watch has see look at each state of each adapter.
func (p *Pool) watch(ctx context.Context) error {
	seen, err := cache.New(p.place.Plane.Config(), cache.Options{
		Scheme: p.place.Client.Scheme(), DefaultNamespaces: map[string]cache.Config{p.namespace: {}},
	})
	if err != nil {
		return err
	}
	p.running.Go(func() { _ = seen.Start(ctx) }) // an error is seen as what never becomes Ready
	informer, err := seen.GetInformer(ctx, &v1alpha1.LoRAAdapter{})
	if err != nil {
		return err
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { p.see(o.(*v1alpha1.LoRAAdapter)) },
		UpdateFunc: func(_, o any) { p.see(o.(*v1alpha1.LoRAAdapter)) },
	})
	return err
}

func (p *Pool) see(a *v1alpha1.LoRAAdapter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionStalled) && p.stalled == nil:
		p.stalled = fmt.Errorf("adapter %s is stalled: %+v", a.Name, a.Status.Conditions)
	case apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionReady) && p.ready[a.Name].IsZero():
		p.ready[a.Name] = time.Now()
	default:
		return
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// Close ends the watch, and deletes the pool with its namespace.
func (p *Pool) Close(ctx context.Context) error {
	p.stop()
	p.running.Wait()
	return p.place.Client.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.namespace}})
}

// Push puts adapters into the source registry: those of the sample, their weights changed by a hair, so that each is
// fetched, checked, stored, pulled and loaded.
func (p *Pool) Push(ctx context.Context, names ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, name := range names {
		i := p.pushed
		p.pushed++
		group.Go(func() error { return p.push(ctx, name, i) })
	}
	return group.Wait()
}

func (p *Pool) push(ctx context.Context, name string, i int) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-adapter-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	kind := []string{"digit", "parity", "holes"}[i%3]
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(digits.Adapters(p.place.Sample()), kind))); err != nil {
		return err
	}
	path := filepath.Join(dir, "adapter_model.safetensors")
	weights, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// The lowest bits of the last two values.
	weights[len(weights)-4], weights[len(weights)-8] = byte(i), byte(i>>8)
	if err := os.WriteFile(path, weights, 0o600); err != nil {
		return err
	}
	_, err = ocisource.Push(ctx, p.place.Ref(name, "v1"), dir)
	return err
}

// Apply creates adapters that were pushed, and tells when it began with each.
func (p *Pool) Apply(ctx context.Context, names ...string) (began map[string]time.Time, err error) {
	began = make(map[string]time.Time, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, name := range names {
		group.Go(func() error {
			return p.place.Client.Create(ctx,
				wrappers.LoRAAdapter(p.namespace, name).Pool(pool).Source(p.place.Ref(name, "v1")).Obj())
		})
		began[name] = time.Now() // once there was a place for it
	}
	return began, group.Wait()
}

// Ready waits until each of the adapters has been Ready, and tells when it was first seen to be. One that is stalled is
// an error.
func (p *Pool) Ready(ctx context.Context, names ...string) (seen map[string]time.Time, err error) {
	seen = make(map[string]time.Time, len(names))
	for {
		p.mu.Lock()
		err, changed := p.stalled, p.changed
		for _, name := range names {
			if at, ok := p.ready[name]; ok {
				seen[name] = at
			}
		}
		p.mu.Unlock()
		if err != nil || len(seen) == len(names) {
			return seen, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d adapters are Ready: %w", len(seen), len(names), ctx.Err())
		}
	}
}
