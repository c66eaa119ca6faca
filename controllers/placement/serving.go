package placement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// RuntimeContainer is the name of the one container of a pool's pods.
const RuntimeContainer = "runtime"

// State is what a pod has made of an entry of its assignment.
type State int

// The states of an entry. Loading is also what is not known yet.
const (
	Loading State = iota
	Served
	Failed
)

// Report is what a pod says of itself, for many questions. Whether it is worth anything is Fresh's to say.
type Report struct {
	observed int64
	pending  map[v1alpha1.PendingAdapter]bool
	failed   map[v1alpha1.PendingAdapter]*v1alpha1.FailedAdapter
}

// ReportOf reads the status of an assignment.
func ReportOf(a *v1alpha1.AdapterAssignment) Report {
	return reportOf(a, func(string) bool { return true })
}

// ReportOn reads of the status of an assignment what it says of one adapter. A status of thousands is read whole in a
// hundred times that.
func ReportOn(a *v1alpha1.AdapterAssignment, name string) Report {
	return reportOf(a, func(of string) bool { return of == name })
}

func reportOf(a *v1alpha1.AdapterAssignment, asked func(name string) bool) Report {
	r := Report{
		observed: a.Status.ObservedRevision,
		pending:  map[v1alpha1.PendingAdapter]bool{},
		failed:   map[v1alpha1.PendingAdapter]*v1alpha1.FailedAdapter{},
	}
	for _, p := range a.Status.Pending {
		if asked(p.Name) {
			r.pending[p] = true
		}
	}
	for i, f := range a.Status.Failed {
		if asked(f.Name) {
			r.failed[v1alpha1.PendingAdapter{Name: f.Name, Digest: f.Digest}] = &a.Status.Failed[i]
		}
	}
	return r
}

// State tells what the pod has made of an entry.
func (r Report) State(e v1alpha1.AssignedAdapter) State {
	switch {
	case r.observed < e.Since || r.pending[v1alpha1.PendingAdapter{Name: e.Name, Digest: e.Digest}]:
		return Loading
	case r.Failure(e) != nil:
		return Failed
	}
	return Served
}

// Failure is why the pod could not load an entry, or nil.
func (r Report) Failure(e v1alpha1.AssignedAdapter) *v1alpha1.FailedAdapter {
	return r.failed[v1alpha1.PendingAdapter{Name: e.Name, Digest: e.Digest}]
}

// Answers is the digest with which the pod answers for an entry: its own, the fallback, or "" for neither.
func (r Report) Answers(e v1alpha1.AssignedAdapter) string {
	fallback := v1alpha1.PendingAdapter{Name: e.Name, Digest: e.FallbackDigest}
	switch {
	case r.State(e) == Served:
		return e.Digest
	case r.observed >= e.Since && (r.pending[fallback] || r.failed[fallback] != nil):
		return ""
	}
	return e.FallbackDigest
}

// Proves is the digest of an entry that the pod says it answers with, or "". Unlike Answers it takes nothing for
// granted that the pod has not said.
func (r Report) Proves(e v1alpha1.AssignedAdapter) string {
	if r.observed < e.Since {
		return ""
	}
	return r.Answers(e)
}

// Serves tells whether a pod reports that it answers with the entry's own digest.
func Serves(a *v1alpha1.AdapterAssignment, e v1alpha1.AssignedAdapter) bool {
	return ReportOn(a, e.Name).State(e) == Served
}

// Entry finds an adapter's entry in an assignment, which may be nil.
func Entry(a *v1alpha1.AdapterAssignment, name string) (v1alpha1.AssignedAdapter, bool) {
	if a == nil {
		return v1alpha1.AssignedAdapter{}, false
	}
	i, ok := slices.BinarySearchFunc(a.Spec.Adapters, name, compareName)
	if !ok {
		return v1alpha1.AssignedAdapter{}, false
	}
	return a.Spec.Adapters[i], true
}

// Ready tells whether the pod is ready and not on its way out.
func Ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp.IsZero() && readiness(pod).Status == corev1.ConditionTrue
}

// readiness is a pod's condition Ready, or an empty one.
func readiness(pod *corev1.Pod) corev1.PodCondition {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c
		}
	}
	return corev1.PodCondition{}
}

// Fresh tells whether the assignment's status was written by the process that now runs in the pod: one that started, to
// the second, no earlier than the container. A restarted container has forgotten what its predecessor had loaded.
func Fresh(pod *corev1.Pod, a *v1alpha1.AdapterAssignment) bool { return Doubt(pod, a) == "" }

// Doubt is why a report is not Fresh, for people; "" if it is.
func Doubt(pod *corev1.Pod, a *v1alpha1.AdapterAssignment) string {
	switch {
	case a == nil:
		return "it has no assignment yet"
	case !metav1.IsControlledBy(a, pod):
		return "the assignment of its name is another pod's"
	case a.Status.StartedAt == nil:
		return "it has not reported yet"
	}
	i := slices.IndexFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == RuntimeContainer
	})
	if i < 0 || pod.Status.ContainerStatuses[i].State.Running == nil {
		return "its container does not run"
	}
	if a.Status.StartedAt.Unix() < pod.Status.ContainerStatuses[i].State.Running.StartedAt.Unix() {
		return "its report is of a process that has ended"
	}
	return ""
}

// Counts tells whether the pod's report counts: it is of the process that runs, and the pod is ready to be asked.
func Counts(pod *corev1.Pod, a *v1alpha1.AdapterAssignment) bool { return Ready(pod) && Fresh(pod, a) }

// Changed names the adapters of which two states of one assignment say different things.
func Changed(before, after *v1alpha1.AdapterAssignment) []string {
	var names []string
	process := before.Status.BootID == after.Status.BootID && before.Status.StartedAt.Equal(after.Status.StartedAt)
	old, now := ReportOf(before), ReportOf(after)
	for _, e := range after.Spec.Adapters {
		was, ok := Entry(before, e.Name)
		if !process || !ok || was.Digest != e.Digest || old.State(was) != now.State(e) ||
			old.Answers(was) != now.Answers(e) || !sameFailure(old.Failure(was), now.Failure(e)) {
			names = append(names, e.Name)
		}
	}
	for _, e := range before.Spec.Adapters {
		if _, ok := Entry(after, e.Name); !ok {
			names = append(names, e.Name)
		}
	}
	return names
}

func sameFailure(a, b *v1alpha1.FailedAdapter) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
