package watching

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// An API server that is away is asked again after a pause between these.
const (
	least = 250 * time.Millisecond
	most  = time.Second
)

// After a few tries the log says why, and again each time that so many more have failed.
const (
	few  = 3
	told = 60
)

// NewInformer is an informer that finds an API server soon that has come back: the NewInformer of a cache's options.
func NewInformer(
	from cache.ListerWatcher, of runtime.Object, resync time.Duration, indexers cache.Indexers,
) cache.SharedIndexInformer {
	p := &patient{from: cache.ToListerWatcherWithContext(from), of: of, versions: map[cache.ObjectName]string{}}
	informer := cache.NewSharedIndexInformer(p, of, resync, indexers)
	p.store = informer.GetStore()
	return informer
}

// patient lists and watches, and waits where the API server is away. It is one informer's, which lists or watches, and
// not both at a time.
type patient struct {
	from  cache.ListerWatcherWithContext
	of    runtime.Object // the type
	store cache.Store    // the informer's

	mu       sync.Mutex
	versions map[cache.ObjectName]string // of the objects that the informer was told of
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
			break
		}
	}
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if options.Continue == "" { // not a further page
		clear(p.versions)
	}
	return list, apimeta.EachListItem(list, func(o runtime.Object) error {
		name, version, err := identity(o)
		p.versions[name] = version
		return err
	})
}

func (p *patient) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	ctx, cancel := context.WithCancel(ctx)
	var first watch.Interface
	for n := 0; ; n++ {
		var err error
		if first, err = p.from.WatchWithContext(ctx, options); err == nil || forgotten(err) {
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

// keep passes a watch's events on, and those of the watches that follow it, until ctx ends. Where the API server has
// forgotten where a watch is to begin, it is nil.
func (p *patient) keep(ctx context.Context, options metav1.ListOptions, now watch.Interface, to chan<- watch.Event) {
	n := 0 // tries since a watch lasted
	for stale := now == nil; ; {
		began := time.Now()
		if now != nil {
			stale = p.pass(ctx, &options, now, to)
		}
		lasted := time.Since(began) >= least // one that ends as it begins is not begun at once
		if lasted {
			n = 0
		}
		for ; ; n++ {
			if n > 0 || !lasted {
				pause(ctx, n)
			}
			if ctx.Err() != nil {
				return
			}
			var err error
			if now, err = p.next(ctx, &options, &stale, to); err == nil {
				n++
				break
			}
			if n%told == few {
				klog.FromContext(ctx).Error(err, "the API server cannot be watched", "type", fmt.Sprintf("%T", p.of))
			}
		}
	}
}

// next is a watch that goes on where the one before broke off, or, if the API server has forgotten that, after a new
// list.
func (p *patient) next(
	ctx context.Context, options *metav1.ListOptions, stale *bool, to chan<- watch.Event,
) (watch.Interface, error) {
	if !*stale {
		now, err := p.from.WatchWithContext(ctx, *options)
		if !forgotten(err) { // any other is tried again: an API server that is not all there yet may refuse what it allowed
			return now, err
		}
		*stale = true
	}
	if err := p.compare(ctx, options, to); err != nil {
		return nil, err
	}
	*stale = false
	return p.from.WatchWithContext(ctx, *options)
}

// pass passes the events of one watch on until it ends; true if no other can go on from there. The options are then
// where it broke off.
func (p *patient) pass(
	ctx context.Context, options *metav1.ListOptions, from watch.Interface, to chan<- watch.Event,
) (stale bool) {
	defer from.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case event, ok := <-from.ResultChan():
			if !ok {
				return false
			}
			if event.Type == watch.Error {
				return forgotten(apierrors.FromObject(event.Object))
			}
			_, version, err := identity(event.Object)
			if err != nil || version == "" {
				return true
			}
			options.ResourceVersion = version
			if !p.tell(ctx, event, to) {
				return false
			}
		}
	}
}

// compare lists what there is, and tells the informer what has changed of what it was told. The options are then where
// a watch goes on.
func (p *patient) compare(ctx context.Context, options *metav1.ListOptions, to chan<- watch.Event) error {
	list, err := p.from.ListWithContext(ctx, metav1.ListOptions{
		LabelSelector: options.LabelSelector, FieldSelector: options.FieldSelector,
	})
	if err != nil {
		return err
	}
	whole, err := apimeta.ListAccessor(list)
	if err != nil {
		return err
	}
	p.mu.Lock()
	gone := maps.Clone(p.versions)
	p.mu.Unlock()
	err = apimeta.EachListItemWithAlloc(list, func(o runtime.Object) error {
		name, version, err := identity(o)
		if err != nil {
			return err
		}
		told, known := gone[name]
		delete(gone, name)
		switch {
		case !known:
			p.tell(ctx, watch.Event{Type: watch.Added, Object: o}, to)
		case told != version:
			p.tell(ctx, watch.Event{Type: watch.Modified, Object: o}, to)
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for name := range gone {
		last, err := p.last(name, whole.GetResourceVersion())
		if err != nil {
			return err
		}
		p.tell(ctx, watch.Event{Type: watch.Deleted, Object: last}, to)
	}
	options.ResourceVersion = whole.GetResourceVersion()
	return ctx.Err()
}

// last is an object as it was before it was deleted, by a version of the list that it is not in.
func (p *patient) last(name cache.ObjectName, version string) (runtime.Object, error) {
	o := p.of.DeepCopyObject() // if the informer has not taken it up yet
	if stored, ok, err := p.store.GetByKey(name.String()); err == nil && ok {
		if stored, ok := stored.(runtime.Object); ok {
			o = stored.DeepCopyObject()
		}
	}
	named, err := apimeta.Accessor(o)
	if err != nil {
		return nil, err
	}
	named.SetNamespace(name.Namespace)
	named.SetName(name.Name)
	named.SetResourceVersion(version)
	return o, nil
}

// tell passes an event on; false if nobody takes it any more.
func (p *patient) tell(ctx context.Context, event watch.Event, to chan<- watch.Event) bool {
	if name, version, err := identity(event.Object); err == nil && event.Type != watch.Bookmark {
		p.mu.Lock()
		if p.versions[name] = version; event.Type == watch.Deleted {
			delete(p.versions, name)
		}
		p.mu.Unlock()
	}
	select {
	case to <- event:
		return true
	case <-ctx.Done():
		return false
	}
}

func identity(o runtime.Object) (name cache.ObjectName, version string, err error) {
	m, err := apimeta.Accessor(o)
	if err != nil {
		return cache.ObjectName{}, "", err
	}
	return cache.MetaObjectToName(m), m.GetResourceVersion(), nil
}

// forgotten tells whether an error is that the API server does not know any more where a watch broke off.
func forgotten(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

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
