package integration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
)

// allowed is how long a status may say what is not so.
const allowed = 2 * time.Second

// truth holds the status of each adapter of a namespace against its pods and their assignments, whenever one of them
// changes.
type truth struct {
	ns string

	mu          sync.Mutex
	adapters    map[string]*v1alpha1.LoRAAdapter
	pods        map[string]*corev1.Pod
	assignments map[string]*v1alpha1.AdapterAssignment
	doubts      map[string]doubt // what an adapter's status says that is not so, now
	lies        []string
	longest     doubt
	unready     map[string][]string // by adapter: what Ready said, each time it was not True after it had been
	wasReady    map[string]bool
	fallbacks   map[string]bool // every fallback that was seen in an assignment
}

// doubt is a status that contradicts what is so.
type doubt struct {
	what  string
	since time.Time
	took  time.Duration // once over
}

// watchTruth watches until the test ends, which fails if a status lied.
func watchTruth(t *testing.T, ns string) *truth {
	t.Helper()
	w := &truth{
		ns: ns, adapters: map[string]*v1alpha1.LoRAAdapter{}, pods: map[string]*corev1.Pod{},
		assignments: map[string]*v1alpha1.AdapterAssignment{}, doubts: map[string]doubt{},
		unready: map[string][]string{}, wasReady: map[string]bool{}, fallbacks: map[string]bool{},
	}
	seen, err := cache.New(place.Plane.Config(), cache.Options{
		Scheme: place.Client.Scheme(), DefaultNamespaces: map[string]cache.Config{ns: {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(lasting)
	var running sync.WaitGroup
	running.Go(func() {
		if err := seen.Start(ctx); err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	t.Cleanup(func() { // before the namespace is deleted
		cancel()
		running.Wait()
		w.judge(t)
	})
	for _, o := range []client.Object{&v1alpha1.LoRAAdapter{}, &corev1.Pod{}, &v1alpha1.AdapterAssignment{}} {
		informer, err := seen.GetInformer(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.change(o, false) },
			UpdateFunc: func(_, o any) { w.change(o, false) },
			DeleteFunc: func(o any) { w.change(o, true) },
		}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// begin forgets the blinks of an adapter, once it is seen to be served by so many pods: a pool that comes up may have
// pods that were ready before the adapter was known.
func (w *truth) begin(adapter string, pods int32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.adapters[adapter]
	if a == nil {
		return errors.New("not seen yet")
	}
	delete(w.unready, adapter)
	return served(a, pods)
}

// blinks is what Ready of an adapter said each time it was not True after it had been.
func (w *truth) blinks(adapter string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unready[adapter]
}

// fellBack tells whether a pod was told to fall back on a digest.
func (w *truth) fellBack(digest string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fallbacks[digest]
}

func (w *truth) judge(t *testing.T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(time.Now())
	for name, d := range w.doubts {
		w.settle(name, d, time.Now())
	}
	for _, lie := range w.lies {
		t.Errorf("a status lied: %s", lie)
	}
	t.Logf("the longest contradiction took %v: %s", w.longest.took.Round(time.Millisecond), w.longest.what)
}

func (w *truth) change(o any, gone bool) {
	now := time.Now()
	if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = last.Obj
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := o.(type) {
	case *v1alpha1.LoRAAdapter:
		keep(w.adapters, o.Name, o, gone)
		w.note(o)
	case *corev1.Pod:
		keep(w.pods, o.Name, o, gone)
	case *v1alpha1.AdapterAssignment:
		keep(w.assignments, o.Name, o, gone)
		for _, e := range o.Spec.Adapters {
			w.fallbacks[e.FallbackDigest] = true
		}
	}
	w.look(now)
}

func keep[T any](in map[string]T, name string, o T, gone bool) {
	if gone {
		delete(in, name)
		return
	}
	in[name] = o
}

// note keeps when an adapter that was Ready is not any more.
func (w *truth) note(a *v1alpha1.LoRAAdapter) {
	ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	is := ready != nil && ready.Status == metav1.ConditionTrue
	if w.wasReady[a.Name] && !is && ready != nil {
		w.unready[a.Name] = append(w.unready[a.Name], ready.Reason+": "+ready.Message)
	}
	w.wasReady[a.Name] = is
}

// look takes up new doubts, and ends those that are over.
func (w *truth) look(now time.Time) {
	reports := make(map[string]placement.Report, len(w.assignments))
	for name, a := range w.assignments {
		reports[name] = placement.ReportOf(a)
	}
	for name, a := range w.adapters {
		what := w.contradiction(a, reports)
		d, doubted := w.doubts[name]
		switch {
		case what == "" && doubted:
			w.settle(name, d, now)
			delete(w.doubts, name)
		case what != "" && !doubted:
			w.doubts[name] = doubt{what: what, since: now}
		}
	}
	for name, d := range w.doubts {
		if w.adapters[name] == nil {
			w.settle(name, d, now)
			delete(w.doubts, name)
		}
	}
}

func (w *truth) settle(name string, d doubt, now time.Time) {
	d.what, d.took = name+": "+d.what, now.Sub(d.since)
	if d.took > w.longest.took {
		w.longest = d
	}
	if d.took > allowed {
		w.lies = append(w.lies, fmt.Sprintf("for %v: %s", d.took.Round(time.Millisecond), d.what))
	}
}

// contradiction is what an adapter's status says that is not so, or "". Only what depends on pods is looked at.
func (w *truth) contradiction(a *v1alpha1.LoRAAdapter, reports map[string]placement.Report) string {
	ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || !a.DeletionTimestamp.IsZero() {
		return "" // nothing was said yet, or nobody asks
	}
	is := ready.Status == metav1.ConditionTrue
	if is && ready.ObservedGeneration != a.Generation {
		return fmt.Sprintf("Ready for generation %d, but the spec is of %d", ready.ObservedGeneration, a.Generation)
	}
	if ready.Reason == v1alpha1.ReasonPoolNotFound {
		return "" // its pods are nobody's
	}
	var so v1alpha1.PodCounts
	why := ""
	for name, pod := range w.pods {
		if !placement.Ready(pod) {
			continue
		}
		so.Desired++
		switch e, assigned := placement.Entry(w.assignments[name], a.Name); {
		case !assigned:
			why = "pod " + name + " was not told of it"
		case a.Status.TargetRevision == nil || e.Digest != a.Status.TargetRevision.Digest:
			why = "pod " + name + " was told of another revision"
		case !placement.Counts(pod, w.assignments[name]):
			why = "the report of pod " + name + " is a former process's"
		case reports[name].State(e) == placement.Failed:
			so.Failed++
			why = "pod " + name + " could not load it"
		case reports[name].State(e) != placement.Served:
			why = "pod " + name + " is loading it"
		default:
			so.Ready++
		}
	}
	all := so.Desired > 0 && so.Ready == so.Desired
	switch {
	case is && !all:
		return fmt.Sprintf("Ready, but %d of %d ready pods serve it: %s", so.Ready, so.Desired, why)
	case a.Status.Pods != so:
		return fmt.Sprintf("status.pods is %+v, but should be %+v: %s", a.Status.Pods, so, why)
	case all && (ready.Reason == v1alpha1.ReasonLoading || ready.Reason == v1alpha1.ReasonNoPods):
		return fmt.Sprintf("%s, but all %d ready pods serve it", ready.Reason, so.Desired)
	}
	return ""
}
