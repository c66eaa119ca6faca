package placement

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// view is a pod as one plan sees it.
type view struct {
	Pod
	fresh  bool   // its report is of the process that runs
	report Report // only if it is fresh
}

func look(pods []Pod) []view {
	views := make([]view, len(pods))
	for i, pod := range pods {
		views[i].Pod = pod
		if views[i].fresh = Fresh(pod.Pod, pod.Assignment); views[i].fresh {
			views[i].report = ReportOf(pod.Assignment)
		}
	}
	return views
}

// living are those that are not on their way out, the oldest first.
func living(views []view) []*view {
	var found []*view
	for i := range views {
		if views[i].DeletionTimestamp.IsZero() {
			found = append(found, &views[i])
		}
	}
	slices.SortFunc(found, older)
	return found
}

func older(a, b *view) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

func (v *view) entries() []v1alpha1.AssignedAdapter {
	if v.Assignment == nil {
		return nil
	}
	return v.Assignment.Spec.Adapters
}

func (v *view) counts() bool { return v.fresh && Ready(v.Pod.Pod) }

// placed tells whether the pod's process may have begun: no kubelet knows of a pod that has no node.
func (v *view) placed() bool { return v.Spec.NodeName != "" || !runningSince(v.Pod.Pod).IsZero() }

// trials says which pod may hold a target that no pod is known to have served: one alone, since it may be one that ends
// the process that loads it.
type trials map[string][]string // by digest the pods that may hold it; what is not here may be held by all

// first is the pod of a digest that is on trial, or "" while it has none.
func (t trials) first(digest string) (pod string, tried bool) {
	pods, tried := t[digest]
	if len(pods) > 0 {
		pod = pods[0]
	}
	return pod, tried
}

func (t trials) admit(digest, pod string) bool {
	pods, open := t[digest]
	return !open || slices.Contains(pods, pod)
}

// former is the digest with which pods are known to answer for an adapter that has no target, or one on trial: a pod
// that comes answers with it too. It is "" if there is none, or no need; of several it is the oldest pod's.
func (t trials) former(views []view, a Adapter) string {
	if _, open := t[a.Digest]; !open && a.Digest != "" {
		return ""
	}
	var oldest *view
	digest := ""
	for i := range views {
		v := &views[i]
		e, ok := Entry(v.Assignment, a.Name)
		if !ok || !v.fresh || oldest != nil && older(oldest, v) < 0 {
			continue
		}
		if found := v.report.Proves(e); found != "" && found != a.Digest {
			oldest, digest = v, found
		}
	}
	return digest
}

// tryOut finds the pod of each target on trial. It is the one that has it already, whatever became of it there: one
// that failed goes nowhere else. So a trial moves only when its pod is on its way out, or has not even a node while
// another pod is ready. If the last pod that is ready is to be spared, a trial may have to wait for a pod.
func tryOut(members []Adapter, views []view, spare bool) trials {
	t := trials{}
	for _, a := range members {
		if a.Digest != "" && !a.Proven {
			t[a.Digest] = nil
		}
	}
	for _, a := range members {
		if a.Proven {
			delete(t, a.Digest)
		}
	}
	for i := range views {
		if len(t) > 0 && views[i].fresh {
			for _, e := range views[i].entries() {
				delete(t, views[i].report.Proves(e))
			}
		}
	}
	if len(t) == 0 {
		return t
	}
	pods := living(views)
	trying := t.hold(pods)
	first := firstPod(pods, trying, spare)
	for digest, holders := range t {
		pod := first
		if pod == nil {
			pod = firstStranded(pods, members, digest)
		}
		if len(holders) == 0 && pod != nil {
			t[digest] = []string{pod.Name}
		}
	}
	return t
}

// firstStranded is the oldest pod that is stranded over an adapter of that digest, or nil. It tries what is new though
// all others are spared.
func firstStranded(pods []*view, members []Adapter, digest string) *view {
	for _, v := range pods {
		for _, a := range members {
			if e, ok := Entry(v.Assignment, a.Name); ok && a.Digest == digest && v.stranded(e) {
				return v
			}
		}
	}
	return nil
}

// stranded tells whether a pod comes up and cannot pull the revision with which it is to answer for an entry, as when
// the artifact registry has lost it: soon it is ready without, and takes the place of a pod that still has it.
func (v *view) stranded(e v1alpha1.AssignedAdapter) bool {
	if !v.fresh || v.report.State(e) != Failed || v.report.Answers(e) != "" || Ready(v.Pod.Pod) {
		return false
	}
	if e.FallbackDigest != "" {
		e.Digest = e.FallbackDigest
	}
	failure := v.report.Failure(e)
	return failure != nil && failure.Reason == v1alpha1.FailurePullFailed
}

// missed is the digest over which the pod is stranded, where it has that alone.
func (v *view) missed(e v1alpha1.AssignedAdapter) string {
	if e.FallbackDigest == "" && v.stranded(e) {
		return e.Digest
	}
	return ""
}

// hold gives each trial to the pods that have it already, and returns those that are still at it.
func (t trials) hold(pods []*view) (trying map[*view]bool) {
	ready := slices.ContainsFunc(pods, (*view).counts)
	trying = map[*view]bool{}
	for _, v := range pods {
		if ready && !v.placed() {
			continue
		}
		for _, e := range v.entries() {
			for _, digest := range []string{e.Digest, e.FallbackDigest} {
				if holders, open := t[digest]; open && !slices.Contains(holders, v.Name) {
					t[digest] = append(holders, v.Name)
					trying[v] = trying[v] || !v.fresh || v.report.Failure(e) == nil
				}
			}
		}
	}
	return trying
}

// firstPod is where what is new is tried first: the oldest pod that is ready; while none is, the oldest that has a
// node. But the last pod that is ready is spared as long as another is down over a trial: it goes there too. If the
// last is to be spared anyway it waits for another; so it does for one that answers though its report does not count,
// and while pods of two templates are there: those of the former go as those of the next become ready, and the one that
// tries might be all that is left.
func firstPod(pods []*view, trying map[*view]bool, spare bool) *view {
	var ready []*view
	var down, placed, other *view
	for _, v := range pods {
		switch {
		case v.counts():
			ready = append(ready, v)
			continue
		case trying[v] && restarting(v.Pod.Pod) && down == nil:
			down = v
		}
		if spare && Ready(v.Pod.Pod) {
			continue
		}
		if v.placed() && placed == nil {
			placed = v
		}
		if other == nil {
			other = v
		}
	}
	switch {
	case len(ready) == 1 && down != nil:
		return down
	case spare && len(ready) > 0 && (len(ready) == 1 || replaced(pods)):
		return nil
	case len(ready) > 0:
		return ready[0]
	case placed != nil:
		return placed
	}
	return other
}

// replaced tells whether pods of one template are taking the place of those of another.
func replaced(pods []*view) bool {
	const template = appsv1.DefaultDeploymentUniqueLabelKey
	return slices.ContainsFunc(pods, func(v *view) bool { return v.Labels[template] != pods[0].Labels[template] })
}

// restarting tells whether the pod's process has ended before, or has not begun.
func restarting(pod *corev1.Pod) bool {
	again := func(s corev1.ContainerStatus) bool { return s.Name == RuntimeContainer && s.RestartCount > 0 }
	return runningSince(pod).IsZero() || slices.ContainsFunc(pod.Status.ContainerStatuses, again)
}

// withdraw takes a digest out of an entry of a pod that has never run; false if nothing is left of it.
func withdraw(e v1alpha1.AssignedAdapter, digest string) (v1alpha1.AssignedAdapter, bool) {
	if e.Digest == digest {
		e.Digest, e.FallbackDigest = e.FallbackDigest, ""
	}
	if e.FallbackDigest == digest {
		e.FallbackDigest = ""
	}
	return e, e.Digest != ""
}
