package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
)

// allowed is how long a status may say what is not so.
const allowed = 2 * time.Second

// late is how long an adapter that is not said to be Ready may have fewer pods in its status than serve it: that is no
// lie, but news of a hundred adapters at once take their time on a busy machine.
const late = 10 * time.Second

// progress begins the name of a doubt that is late news.
const progress = "progress of "

// limit is how long a doubt of that name may stand.
func limit(name string) time.Duration {
	if strings.HasPrefix(name, progress) {
		return late
	}
	return allowed
}

// truth holds the statuses of a namespace's adapters and pools against the pods and their assignments, whenever one of
// them changes.
//
// A contradiction is a lie once it has stood for longer than allowed. That time does not run while nobody can write a
// status: while the API server is away, and from the end of the leading manager until another holds the lease (stop and
// resume, called by who brings that about). What stood for too long before is a lie all the same. What stands when the
// time runs again has its whole time anew: whoever leads then has it to find its connections again, or to begin, and no
// more. That the API server comes back and that another manager takes over within their own bounds is for the fault to
// see to, else the time would stand still for ever.
type truth struct {
	ns string

	mu          sync.Mutex
	adapters    map[string]*v1alpha1.LoRAAdapter
	pools       map[string]*v1alpha1.InferencePool
	pods        map[string]*corev1.Pod
	assignments map[string]*v1alpha1.AdapterAssignment
	listed      map[string]time.Time          // by kind: when the list began that its watch goes on from
	asking      map[string]context.CancelFunc // by kind: ends what is asked now
	stopped     map[string]time.Time          // why the time does not run
	stood       time.Time                     // when it last stood still; now, if it does
	doubts      map[string]doubt              // what a status says that is not so, now
	lies        []string
	longest     doubt
	unready     map[string][]string // by adapter: what Ready said, each time it was not True after it had been
	wasReady    map[string]bool
	shaky       map[string]time.Time                               // by adapter: when it was last not Ready, or in doubt
	fallbacks   map[string]bool                                    // every fallback that was seen in an assignment
	counts      map[types.UID]v1alpha1.AdapterCounts               // of a pool's adapters, as they are
	counted     map[types.UID]map[v1alpha1.AdapterCounts]time.Time // and when they were last so
	taken       map[string]int32                                   // by pod: its restarts when the schedule took it
	turns       []turn
	deaths      []death
	deserted    []span                                 // when no pod was ready
	told        func(adapter string, generation int64) // is called with each generation that is said to be Ready
}

// turn is a pod that became ready, or was no more.
type turn struct {
	at   time.Time
	what string
}

// doubt is a status that contradicts what is so.
type doubt struct {
	what  string
	since time.Time
	took  time.Duration // once over
}

// death is a container's process that ended without having been told to.
type death struct {
	pod string
	at  time.Time // within a second
	why string
}

// watchTruth watches until the test ends, which fails if a status lied.
func watchTruth(t *testing.T, ns string) *truth {
	t.Helper()
	w := &truth{
		ns: ns, adapters: map[string]*v1alpha1.LoRAAdapter{}, pools: map[string]*v1alpha1.InferencePool{},
		pods: map[string]*corev1.Pod{}, assignments: map[string]*v1alpha1.AdapterAssignment{},
		listed: map[string]time.Time{}, asking: map[string]context.CancelFunc{}, stopped: map[string]time.Time{},
		doubts:  map[string]doubt{},
		taken:   map[string]int32{},
		unready: map[string][]string{}, wasReady: map[string]bool{}, shaky: map[string]time.Time{},
		fallbacks: map[string]bool{}, counts: map[types.UID]v1alpha1.AdapterCounts{},
		counted: map[types.UID]map[v1alpha1.AdapterCounts]time.Time{},
	}
	from, err := client.NewWithWatch(place.Plane.Config(), client.Options{Scheme: place.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(lasting)
	var running sync.WaitGroup
	t.Cleanup(func() { // before the namespace is deleted
		cancel()
		running.Wait()
		w.judge(t)
	})
	for _, k := range []followed{
		{"adapters", func() client.ObjectList { return &v1alpha1.LoRAAdapterList{} }, func() { clear(w.adapters) }},
		{"pools", func() client.ObjectList { return &v1alpha1.InferencePoolList{} }, func() { clear(w.pools) }},
		{"pods", func() client.ObjectList { return &corev1.PodList{} }, func() { clear(w.pods) }},
		{
			"assignments", func() client.ObjectList { return &v1alpha1.AdapterAssignmentList{} },
			func() { clear(w.assignments) },
		},
	} {
		running.Go(func() {
			wait.UntilWithContext(ctx, func(ctx context.Context) { w.follow(ctx, from, k) }, again)
		})
	}
	return w
}

// again is when a list or a watch that failed is tried again. A client's own informers take up to a minute to notice
// that the API server is back.
const again = 20 * time.Millisecond

// followed is a kind of objects.
type followed struct {
	kind  string
	list  func() client.ObjectList
	clear func()
}

// follow takes all objects of a kind and then what changes of them, until the watch ends.
func (w *truth) follow(ctx context.Context, from client.WithWatch, k followed) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.asking[k.kind] = cancel
	began, list := time.Now(), k.list()
	w.mu.Unlock()
	if err := from.List(ctx, list, client.InNamespace(w.ns)); err != nil {
		return
	}
	w.mu.Lock()
	k.clear()
	_ = apimeta.EachListItem(list, func(o runtime.Object) error { // what it calls does not fail
		w.change(o, false)
		return nil
	})
	w.listed[k.kind] = began
	w.look(time.Now())
	w.mu.Unlock()
	events, err := from.Watch(ctx, list, client.InNamespace(w.ns),
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}})
	if err != nil {
		return
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		switch event.Type {
		case watch.Added, watch.Modified, watch.Deleted:
			w.mu.Lock()
			w.change(event.Object, event.Type == watch.Deleted)
			w.look(time.Now())
			w.mu.Unlock()
		case watch.Error:
			return
		case watch.Bookmark:
		}
	}
}

// The reasons for which the time of contradictions stands still.
const (
	apiServerAway = "the API server is away"
	noLeader      = "no manager leads"
)

// stop has the time of contradictions stand still, for a reason. If it is the API server, once more when it is gone:
// what is listed from then on is what is there when it is back.
func (w *truth) stop(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.look(now)
	if len(w.stopped) == 0 {
		for name, d := range w.doubts {
			w.settle(name, d, now)
		}
		w.stood = now
	}
	w.stopped[why] = now
	if why == apiServerAway { // what was asked of the former one would be older than it seems
		for _, cancel := range w.asking {
			cancel()
		}
	}
}

// resume ends a reason for which the time stands still. With the last of them it runs again, once the watcher has seen
// what there is.
func (w *truth) resume(ctx context.Context, why string) error {
	err := wait.PollUntilContextTimeout(ctx, again, soon, true, func(context.Context) (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, began := range w.listed {
			if began.Before(w.stopped[apiServerAway]) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("the watcher does not see the API server: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.stopped, why); len(w.stopped) > 0 {
		return nil
	}
	w.stood = time.Now()
	for name, d := range w.doubts {
		d.since = w.stood
		w.doubts[name] = d
	}
	return nil
}

// lied are the lies so far.
func (w *truth) lied() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	found := slices.Clone(w.lies)
	for name, d := range w.doubts {
		if took := w.standing(d, now); took > limit(name) {
			found = append(found, fmt.Sprintf("for %v, and still: %s: %s", took.Round(time.Millisecond), name, d.what))
		}
	}
	return found
}

// doubtful tells whether the status of an adapter was not Ready, in doubt, or not to be written, at some time since.
func (w *truth) doubtful(adapter string, since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(time.Now())
	return len(w.stopped) > 0 || !w.stood.Before(since) || !w.shaky[adapter].Before(since)
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
	now := time.Now()
	w.look(now)
	for name, d := range w.doubts {
		w.settle(name, d, now)
	}
	for _, lie := range w.lies {
		t.Errorf("a status lied: %s", lie)
	}
	t.Logf("the longest contradiction took %v: %s", w.longest.took.Round(time.Millisecond), w.longest.what)
}

// change takes an object as it is now; under the lock.
func (w *truth) change(o runtime.Object, gone bool) {
	switch o := o.(type) {
	case *v1alpha1.LoRAAdapter:
		keep(w.adapters, o.Name, o, gone)
		w.note(o)
	case *v1alpha1.InferencePool:
		keep(w.pools, o.Name, o, gone)
	case *corev1.Pod:
		w.turn(w.pods[o.Name], o, gone)
		keep(w.pods, o.Name, o, gone)
		w.mourn(o)
	case *v1alpha1.AdapterAssignment:
		keep(w.assignments, o.Name, o, gone)
		for _, e := range o.Spec.Adapters {
			w.fallbacks[e.FallbackDigest] = true
		}
	}
}

// turn keeps when a pod became ready, or was no more: what is asked for when none was.
func (w *truth) turn(before, now *corev1.Pod, gone bool) {
	was, is := before != nil && placement.Ready(before), !gone && placement.Ready(now)
	if was == is {
		return
	}
	what := "is ready"
	switch {
	case gone:
		what = "is gone"
	case was && !now.DeletionTimestamp.IsZero():
		what = "is to go"
	case was:
		what = fmt.Sprintf("is not ready any more: %+v", now.Status.ContainerStatuses)
	}
	w.turns = append(w.turns, turn{time.Now(), "pod " + now.Name + " " + what})
}

func keep[T any](in map[string]T, name string, o T, gone bool) {
	if gone {
		delete(in, name)
		return
	}
	in[name] = o
}

// mourn keeps when processes ended by themselves.
func (w *truth) mourn(pod *corev1.Pod) {
	for _, s := range pod.Status.ContainerStatuses {
		for _, state := range []corev1.ContainerState{s.State, s.LastTerminationState} {
			ended := state.Terminated
			if ended == nil || ended.ExitCode == 0 {
				continue
			}
			d := death{pod.Name, ended.FinishedAt.Time, fmt.Sprintf("%s, exit code %d", ended.Reason, ended.ExitCode)}
			w.count(d)
		}
	}
}

// died tells of a death that whoever brings it about knows of.
func (w *truth) died(d death) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count(d)
}

// count keeps a death; what the pod says of it later, to the second, is the same one.
func (w *truth) count(d death) {
	if !slices.ContainsFunc(w.deaths, func(known death) bool {
		return known.pod == d.pod && known.at.Sub(d.at).Abs() < time.Second
	}) {
		w.deaths = append(w.deaths, d)
	}
}

// note keeps when an adapter that was Ready is not any more.
func (w *truth) note(a *v1alpha1.LoRAAdapter) {
	ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	is := ready != nil && ready.Status == metav1.ConditionTrue
	if w.wasReady[a.Name] && !is && ready != nil {
		w.unready[a.Name] = append(w.unready[a.Name], ready.Reason+": "+ready.Message)
	}
	w.wasReady[a.Name] = is
	if is && w.told != nil {
		w.told(a.Name, ready.ObservedGeneration)
	}
}

// onReady has told called with each generation of an adapter that is said to be Ready.
func (w *truth) onReady(told func(adapter string, generation int64)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = told
}

// losses are the processes that ended by themselves, and when no pod was ready since, until now.
func (w *truth) losses(since time.Time) (deaths []death, deserted []span) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.deserted {
		if s.to.IsZero() {
			s.to = time.Now()
		}
		if s.to.After(since) {
			deserted = append(deserted, s)
		}
	}
	return slices.Clone(w.deaths), deserted
}

// turnsAround are those shortly before a time and in it.
func (w *truth) turnsAround(s span) (around []turn) {
	const before = 15 * time.Second
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.turns {
		if t.at.After(s.from.Add(-before)) && !t.at.After(s.to) {
			around = append(around, t)
		}
	}
	return around
}

// look takes up new doubts, and ends those that are over; under the lock.
func (w *truth) look(now time.Time) {
	reports := make(map[string]placement.Report, len(w.assignments))
	for name, a := range w.assignments {
		reports[name] = placement.ReportOf(a)
	}
	found := map[string]doubt{}
	for name, a := range w.adapters {
		what, isLate := w.contradiction(a, reports)
		if isLate {
			found[progress+name] = doubt{what: what, since: now}
		} else {
			found[name] = doubt{what: what, since: now}
		}
		if what != "" || !apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionReady) {
			w.shaky[name] = now
		}
	}
	for name, p := range w.pools {
		found["pool "+name] = doubt{what: w.contradictionOfPool(p), since: now}
		found["counts of pool "+name] = w.miscount(p, now)
	}
	for name, d := range w.doubts {
		// A miscount that is told since the doubt began is another.
		if f := found[name]; f.what == "" || f.since.After(d.since) && f.what != d.what && f.since.Before(now) {
			w.settle(name, d, now)
			delete(w.doubts, name)
		}
	}
	for name, f := range found {
		if _, doubted := w.doubts[name]; f.what != "" && !doubted {
			w.doubts[name] = f
		}
	}
	w.watchOver(now)
}

// watchOver keeps when no pod was ready.
func (w *truth) watchOver(now time.Time) {
	last := len(w.deserted) - 1
	switch lonely := len(w.standingPods()) == 0; {
	case last >= 0 && w.deserted[last].to.IsZero() && lonely:
	case last >= 0 && w.deserted[last].to.IsZero():
		w.deserted[last].to = now
	case lonely:
		w.deserted = append(w.deserted, span{from: now})
	}
}

// ready counts the ready pods of a pool.
func (w *truth) ready(pool string) (n int32) {
	for _, pod := range w.pods {
		if placement.Ready(pod) && pod.Labels[v1alpha1.LabelPool] == pool {
			n++
		}
	}
	return n
}

// standing is how long a doubt has stood while the time ran.
func (w *truth) standing(d doubt, now time.Time) time.Duration {
	if len(w.stopped) > 0 {
		now = w.stood
	}
	return max(0, now.Sub(d.since))
}

func (w *truth) settle(name string, d doubt, now time.Time) {
	d.what, d.took = name+": "+d.what, w.standing(d, now)
	if d.took > w.longest.took && limit(name) == allowed {
		w.longest = d
	}
	if d.took > limit(name) {
		w.lies = append(w.lies, fmt.Sprintf("for %v: %s", d.took.Round(time.Millisecond), d.what))
	}
}

// contradictionOfPool is what a pool's status says that is not so, or "".
func (w *truth) contradictionOfPool(p *v1alpha1.InferencePool) string {
	ready := apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || !p.DeletionTimestamp.IsZero() {
		return "" // nothing was said yet, or nobody asks
	}
	wanted, is := int32(1), ready.Status == metav1.ConditionTrue
	if p.Spec.Replicas != nil {
		wanted = *p.Spec.Replicas
	}
	n := w.ready(p.Name)
	available := apimeta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionAvailable)
	switch {
	case is && ready.ObservedGeneration != p.Generation:
		return fmt.Sprintf("Ready for generation %d, but the spec is of %d", ready.ObservedGeneration, p.Generation)
	case is && n < wanted:
		return fmt.Sprintf("Ready, but %d of %d pods are ready", n, wanted)
	case available != (n > 0):
		return fmt.Sprintf("Available is %v, but %d pods are ready", available, n)
	case p.Status.ReadyReplicas != n:
		return fmt.Sprintf("readyReplicas is %d, but %d pods are ready", p.Status.ReadyReplicas, n)
	}
	return ""
}

// miscount is what a pool's status says of its adapters that is not so. The counts are of many, and change with each of
// them: what is said is in doubt since it was last so.
func (w *truth) miscount(p *v1alpha1.InferencePool, now time.Time) doubt {
	var so v1alpha1.AdapterCounts
	for _, a := range w.adapters {
		if a.Spec.PoolRef.Name != p.Name || !a.DeletionTimestamp.IsZero() {
			continue
		}
		so.Desired++
		switch telemetry.StateOf(a.Generation, a.Status.Conditions) {
		case telemetry.Ready:
			so.Ready++
		case telemetry.Failed:
			so.Failed++
		case telemetry.Pending:
		}
	}
	if w.counted[p.UID] == nil {
		w.counted[p.UID] = map[v1alpha1.AdapterCounts]time.Time{}
	}
	w.counted[p.UID][w.counts[p.UID]] = now // it was so until now
	w.counts[p.UID], w.counted[p.UID][so] = so, now
	if p.Status.Adapters == so || len(p.Status.Conditions) == 0 {
		return doubt{}
	}
	d := doubt{since: now, what: fmt.Sprintf("status.adapters is %+v, but should be %+v", p.Status.Adapters, so)}
	if last, was := w.counted[p.UID][p.Status.Adapters]; was {
		d.since = last
		if last.Before(w.stood) {
			d.since = w.stood
		}
	}
	return d
}

// contradiction is what an adapter's status says that is not so, or "". Only what depends on pods is looked at.
func (w *truth) contradiction(a *v1alpha1.LoRAAdapter, reports map[string]placement.Report) (what string, isLate bool) {
	ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || !a.DeletionTimestamp.IsZero() {
		return "", false // nothing was said yet, or nobody asks
	}
	is := ready.Status == metav1.ConditionTrue
	if is && ready.ObservedGeneration != a.Generation {
		return fmt.Sprintf("Ready for generation %d, but the spec is of %d", ready.ObservedGeneration, a.Generation), false
	}
	if ready.Reason == v1alpha1.ReasonPoolNotFound {
		return "", false // its pods are nobody's
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
		return fmt.Sprintf("Ready, but %d of %d ready pods serve it: %s", so.Ready, so.Desired, why), false
	case a.Status.Pods != so:
		isLate = !is && less(a.Status.Pods, so)
		return fmt.Sprintf("status.pods is %+v, but should be %+v: %s", a.Status.Pods, so, why), isLate
	case all && (ready.Reason == v1alpha1.ReasonLoading || ready.Reason == v1alpha1.ReasonNoPods):
		return fmt.Sprintf("%s, but all %d ready pods serve it", ready.Reason, so.Desired), false
	}
	return "", false
}

// less tells whether fewer pods are said to serve than do, and nothing else is wrong.
func less(said, so v1alpha1.PodCounts) bool {
	return said.Ready < so.Ready && said.Desired == so.Desired && said.Failed == so.Failed
}
