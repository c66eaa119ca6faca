package watching

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// server is an API server with one pod, whose resourceVersion tells states apart.
type server struct {
	mu      sync.Mutex
	err     error // what it answers with
	forgets bool  // where watches broke off
	gone    bool  // the pod
	version int
	watches []string // the versions that were watched from
	lists   int
	open    *watch.FakeWatcher
}

func (s *server) pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "pod", ResourceVersion: strconv.Itoa(s.version),
	}, Spec: corev1.PodSpec{NodeName: "node"}}
}

func (s *server) list(context.Context, metav1.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	s.lists++
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)}}
	if !s.gone {
		list.Items = []corev1.Pod{*s.pod()}
	}
	return list, nil
}

func (s *server) watch(_ context.Context, options metav1.ListOptions) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	current := options.ResourceVersion == strconv.Itoa(s.version)
	if s.forgets && !current {
		return nil, apierrors.NewResourceExpired("too old")
	}
	s.watches = append(s.watches, options.ResourceVersion)
	s.open = watch.NewFakeWithChanSize(1, false)
	if !current {
		s.open.Modify(s.pod())
	}
	return s.open, nil
}

// goes has it answer with an error from now on, its watches broken off.
func (s *server) goes(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.open.Stop()
}

// comes has it answer, with its pod changed meanwhile.
func (s *server) comes(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.version++
}

func refused() error { return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED} }

// watched runs an informer of the server.
func watched(t *testing.T, s *server) cache.SharedIndexInformer {
	t.Helper()
	informer := NewInformer(&cache.ListWatch{ListWithContextFunc: s.list, WatchFuncWithContext: s.watch},
		&corev1.Pod{}, 0, cache.Indexers{})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return informer
}

func has(informer cache.SharedIndexInformer, version int) bool {
	o, _, _ := informer.GetStore().GetByKey("default/pod")
	pod, _ := o.(*corev1.Pod)
	return pod != nil && pod.ResourceVersion == strconv.Itoa(version)
}

// However long and often the API server was away, what has changed meanwhile is known within little more than a second
// of its return, by a watch that goes on where it broke off.
func TestWhatChangedWhileTheServerWasAwayIsSoonKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{version: 1}
		informer := watched(t, s)
		elapse(most)
		for _, away := range []time.Duration{time.Second, time.Minute, 10 * time.Second, 5 * time.Minute} {
			s.goes(refused())
			elapse(away)
			s.comes(nil)
			elapse(most)
			synctest.Wait()
			if !has(informer, s.version) {
				t.Errorf("away for %v: the change is not known %v later", away, most)
			}
		}
		if s.lists != 1 {
			t.Errorf("expected one list, found %d", s.lists)
		}
		for i, version := range s.watches {
			if version != strconv.Itoa(max(i, 1)) { // the first broke off at the version that it began with
				t.Errorf("expected a watch from each version on, found %v", s.watches)
				break
			}
		}
	})
}

// An API server that is away at first is waited for; one that answers with an error is left to the informer.
func TestAServerThatIsAwayAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{version: 1, err: refused()}
		informer := watched(t, s)
		elapse(time.Minute)
		s.comes(nil)
		elapse(most)
		synctest.Wait()
		if !has(informer, 2) {
			t.Errorf("the pod is not known %v after the server came", most)
		}
	})
}

// An API server that has begun anew does not know where a watch broke off: then all is listed anew, as soon, however
// often that was so.
func TestWhatIsForgottenIsListedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{version: 1, forgets: true}
		informer := watched(t, s)
		var deleted []string
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			DeleteFunc: func(o any) { deleted = append(deleted, o.(*corev1.Pod).Spec.NodeName) },
		}); err != nil {
			t.Fatal(err)
		}
		elapse(most)
		for n := range 10 {
			s.goes(refused())
			elapse(time.Minute)
			s.mu.Lock()
			s.gone = n%2 == 1
			s.mu.Unlock()
			s.comes(nil)
			elapse(most)
			synctest.Wait()
			if known := has(informer, s.version); known == s.gone {
				t.Errorf("return %d: the pod is gone: %v, and known: %v", n, s.gone, known)
			}
		}
		if s.lists != 11 {
			t.Errorf("expected a list at first and with each return, found %d", s.lists)
		}
		if !slices.Equal(deleted, slices.Repeat([]string{"node"}, 5)) {
			t.Errorf("expected the pod as it was to be deleted five times, found it on the nodes %q", deleted)
		}
	})
}

// A watch may be told in the middle that it is too old.
func TestAWatchThatIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{version: 1}
		informer := watched(t, s)
		elapse(most)
		for range 10 {
			s.mu.Lock()
			s.version++
			status := apierrors.NewResourceExpired("too old").ErrStatus
			s.open.Error(&status)
			s.mu.Unlock()
			elapse(most)
			synctest.Wait()
			if !has(informer, s.version) {
				t.Errorf("version %d is not known", s.version)
			}
		}
		if s.lists != 11 {
			t.Errorf("expected a list at first and with each error, found %d", s.lists)
		}
	})
}

// A server that is not all there yet may refuse for a moment what it allowed before, and end watches as they begin.
func TestARefusalAfterAReturnPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{version: 1}
		informer := watched(t, s)
		elapse(most)
		s.goes(apierrors.NewForbidden(corev1.Resource("pods"), "", nil))
		elapse(5 * time.Second)
		s.comes(nil)
		elapse(most)
		synctest.Wait()
		if !has(informer, 2) || s.lists != 1 {
			t.Errorf("expected the change by a watch, found %d lists", s.lists)
		}
		before := len(s.watches)
		for range 100 {
			s.mu.Lock()
			s.open.Stop()
			s.mu.Unlock()
			elapse(10 * time.Millisecond)
			synctest.Wait()
		}
		if n := len(s.watches) - before; n > 6 {
			t.Errorf("expected a pause between watches that end at once, found %d in a second", n)
		}
	})
}

// elapse lets the bubble's time pass.
func elapse(d time.Duration) { <-time.After(d) } //nolint:forbidigo // nobody waits in a bubble
