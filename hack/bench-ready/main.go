// Command bench-ready prints how long an adapter takes from its apply to Ready=True on a warm pool of two pods: one by
// one, and all at once. Every adapter has weights of its own: each is fetched, checked, stored, pulled and loaded.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/local"
	"github.com/switchyard-dev/switchyard/test/ocisource"
)

const (
	namespace = "bench"
	pool      = "digits"
)

func main() {
	bin := flag.String("bin", "bin", "`folder` of the binaries")
	repository := flag.String("repository", ".", "`folder` of this repository")
	n := flag.Int("adapters", 100, "`number` of adapters, one by one and again at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *bin, *repository, *n)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-ready:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, repository string, n int) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	place, err := local.Start(ctx, local.Options{
		Dir: dir, Repository: repository, SourceAddress: "127.0.0.1:0",
		Manager: filepath.Join(bin, "manager"), Runtime: filepath.Join(bin, "runtime"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	b, err := newBench(ctx, place)
	if err != nil {
		return err
	}
	defer b.events.Stop()
	return b.measure(ctx, n)
}

// bench is a warm pool, and the changes of its adapters as they come.
type bench struct {
	place  *local.Place
	events watch.Interface
}

func newBench(ctx context.Context, place *local.Place) (*bench, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	watcher, err := client.NewWithWatch(place.Plane.Config(), client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	if err := place.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return nil, err
	}
	replicas := int32(2)
	if err := place.Client.Create(ctx, &v1alpha1.InferencePool{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pool},
		Spec: v1alpha1.InferencePoolSpec{
			BaseModel: v1alpha1.BaseModel{Source: source(place.Ref("base", "v1"))}, Replicas: &replicas,
		},
	}); err != nil {
		return nil, err
	}
	if out, err := place.Kubectl(ctx, "wait", "-n", namespace, "--for=condition=Ready", "lorapool/"+pool,
		"--timeout=60s"); err != nil {
		return nil, fmt.Errorf("%w:\n%s", err, out)
	}
	events, err := watcher.Watch(ctx, &v1alpha1.LoRAAdapterList{}, client.InNamespace(namespace))
	return &bench{place, events}, err
}

func source(ref string) v1alpha1.Source { return v1alpha1.Source{OCI: &v1alpha1.OCISource{Ref: ref}} }

func (b *bench) measure(ctx context.Context, n int) error {
	var each []time.Duration
	for i := range n {
		name := fmt.Sprintf("single-%03d", i)
		if err := b.push(ctx, name, i); err != nil {
			return err
		}
		began := time.Now()
		if err := b.apply(ctx, name); err != nil {
			return err
		}
		if err := b.waitReady(ctx, map[string]bool{name: true}); err != nil {
			return err
		}
		each = append(each, time.Since(began))
	}
	slices.Sort(each)
	fmt.Printf("one by one, %d adapters on two pods, apply to Ready=True:\n", n)
	fmt.Printf("  median %6.0f ms   (goal: below 1000)\n", ms(each[n/2]))
	fmt.Printf("  p99    %6.0f ms   (goal: below 3000)\n", ms(each[(n*99+99)/100-1]))

	names := make(map[string]bool, n)
	for i := range n {
		name := fmt.Sprintf("burst-%03d", i)
		if err := b.push(ctx, name, n+i); err != nil {
			return err
		}
		names[name] = true
	}
	began := time.Now()
	for name := range names {
		if err := b.apply(ctx, name); err != nil {
			return err
		}
	}
	if err := b.waitReady(ctx, names); err != nil {
		return err
	}
	fmt.Printf("%d more at once, until all are Ready: %.1f s\n", n, time.Since(began).Seconds())
	return nil
}

// push puts an adapter of the sample into the source registry, its weights changed by a hair.
func (b *bench) push(ctx context.Context, name string, i int) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-adapter-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	kind := []string{"digit", "parity", "holes"}[i%3]
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(digits.Adapters(b.place.Sample()), kind))); err != nil {
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
	_, err = ocisource.Push(ctx, b.place.Ref(name, "v1"), dir)
	return err
}

func (b *bench) apply(ctx context.Context, name string) error {
	return b.place.Client.Create(ctx, &v1alpha1.LoRAAdapter{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.LoRAAdapterSpec{
			PoolRef: v1alpha1.PoolReference{Name: pool}, Source: source(b.place.Ref(name, "v1")),
		},
	})
}

// waitReady waits until each of the named is Ready, and takes it off.
func (b *bench) waitReady(ctx context.Context, names map[string]bool) error {
	for len(names) > 0 {
		select {
		case event, ok := <-b.events.ResultChan():
			if !ok {
				return errors.New("the watch ended")
			}
			adapter, ok := event.Object.(*v1alpha1.LoRAAdapter)
			switch {
			case !ok:
				return fmt.Errorf("the watch gave %T", event.Object)
			case apimeta.IsStatusConditionTrue(adapter.Status.Conditions, v1alpha1.ConditionReady):
				delete(names, adapter.Name)
			case apimeta.IsStatusConditionTrue(adapter.Status.Conditions, v1alpha1.ConditionStalled):
				return fmt.Errorf("adapter %s is stalled: %+v", adapter.Name, adapter.Status.Conditions)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
