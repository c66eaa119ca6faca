package watching

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// An API server that is away is asked again after a pause between these.
const (
	least = 250 * time.Millisecond
	most  = time.Second
)

// NewInformer is an informer that finds an API server soon that has come back: the NewInformer of a cache's options.
func NewInformer(
	from cache.ListerWatcher, of runtime.Object, resync time.Duration, indexers cache.Indexers,
) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&patient{cache.ToListerWatcherWithContext(from)}, of, resync, indexers)
}

// patient lists and watches, and waits where the API server is away.
type patient struct {
	from cache.ListerWatcherWithContext
}

// IsWatchListSemanticsUnSupported has an informer list before it watches: what a watch begins with has no order, so it
// could not go on from there.
func (*patient) IsWatchListSemanticsUnSupported() bool { return true }

func (p *patient) List(options metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), options)
}

func (p *patient) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return p.WatchWithContext(context.Background(), options)
}

func (p *patient) ListWithContext(ctx context.Context, options metav1.ListOptions) (list runtime.Object, err error) {
	for n := 0; ; n++ {
		if list, err = p.from.ListWithContext(ctx, options); !away(err) || !pause(ctx, n) {
			return list, err
		}
	}
}

func (p *patient) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	ctx, cancel := context.WithCancel(ctx)
	var first watch.Interface
	for n := 0; ; n++ {
		var err error
		if first, err = p.from.WatchWithContext(ctx, options); err == nil {
			break
		}
		if !away(err) || !pause(ctx, n) {
			cancel()
			return nil, err
		}
	}
	events := make(chan watch.Event)
	kept := watch.NewProxyWatcher(events)
	go func() {
		select {
		case <-kept.StopChan():
		case <-ctx.Done():
		}
		cancel()
	}()
	go func() {
		defer cancel()
		defer close(events)
		p.keep(ctx, options, first, events)
	}()
	return kept, nil
}

// keep passes a watch's events on, and those of the watches that go on where it broke off, until ctx ends or a new list
// is needed.
func (p *patient) keep(ctx context.Context, options metav1.ListOptions, now watch.Interface, to chan<- watch.Event) {
	for {
		began := time.Now()
		if !pass(ctx, &options, now, to) {
			return
		}
		for n := 0; ; n++ {
			if (n > 0 || time.Since(began) < least) && !pause(ctx, n) { // one that ends as it begins is not begun at once
				return
			}
			next, err := p.from.WatchWithContext(ctx, options)
			if err == nil {
				now = next
				break
			}
			// An API server that is not all there yet may refuse what it allowed before.
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				status := apierrors.NewResourceExpired(err.Error()).ErrStatus
				send(ctx, to, watch.Event{Type: watch.Error, Object: &status})
				return
			}
		}
	}
}

// pass passes the events of one watch on until it breaks off; false if no other is to follow. The options are then
// where it broke off.
func pass(ctx context.Context, options *metav1.ListOptions, from watch.Interface, to chan<- watch.Event) bool {
	defer from.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case event, ok := <-from.ResultChan():
			if !ok {
				return true
			}
			if event.Type != watch.Error {
				o, err := apimeta.Accessor(event.Object)
				if err != nil || o.GetResourceVersion() == "" {
					return false // the informer lists anew
				}
				options.ResourceVersion = o.GetResourceVersion()
			}
			if !send(ctx, to, event) || event.Type == watch.Error {
				return false
			}
		}
	}
}

func send(ctx context.Context, to chan<- watch.Event, event watch.Event) bool {
	select {
	case to <- event:
		return true
	case <-ctx.Done():
		return false
	}
}

// away tells whether an error is that nobody answers, rather than an answer.
func away(err error) bool {
	var network net.Error
	var status apierrors.APIStatus
	return err != nil && !errors.As(err, &status) && !errors.Is(err, context.Canceled) &&
		(errors.As(err, &network) || utilnet.IsProbableEOF(err))
}

// pause waits before the nth new try; false if ctx ends first. Not all that have lost the same server come at once.
func pause(ctx context.Context, n int) bool {
	d := min(most, least<<min(n, 8))
	timer := time.NewTimer(d - rand.N(d/4)) //nolint:forbidigo,gosec // a back-off; spread, not secrecy
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
