package loraadapter

import (
	"fmt"
	"slices"
	"strings"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/condition"
	"github.com/switchyard-dev/switchyard/controllers/owned"
	"github.com/switchyard-dev/switchyard/controllers/placement"
)

// scope is all that an adapter's status depends on.
type scope struct {
	adapter *v1alpha1.LoRAAdapter   // as it was read, with its former status
	pool    *v1alpha1.InferencePool // nil where there is none
	pods    []placement.Pod
	outcome *attempt.Outcome[v1alpha1.Revision] // nil before the first attempt for this spec and base has ended
	full    placement.Shortage                  // why some pod has no room for it
	first   string                              // the pod that is to serve its target before all others; "" if none is
	waits   bool                                // its target waits for such a pod
	service owned.Standing                      // how its Service stands; as its own where it is to have none
	refused string                              // why the API server refuses what is to become of that; "" if it does not
	now     metav1.Time
}

const (
	maxFailures = 5
	maxFailure  = 256 // of a message in status.failures
)

// stalls are the reasons that only a change of the spec, the source or the namespace can cure.
var stalls = []string{
	v1alpha1.ReasonSourceNotFound, v1alpha1.ReasonSourceInvalid, v1alpha1.ReasonSourceForbidden,
	v1alpha1.ReasonInvalidAdapter, v1alpha1.ReasonIncompatible, v1alpha1.ReasonRankTooLarge,
	v1alpha1.ReasonNameTaken, v1alpha1.ReasonObjectRefused,
}

// known is the revision that the status says was found for this spec and base, or nil.
func (s *scope) known() *v1alpha1.Revision {
	c := apimeta.FindStatusCondition(s.adapter.Status.Conditions, v1alpha1.ConditionCompatible)
	if c == nil || c.Status != metav1.ConditionTrue || c.ObservedGeneration != s.adapter.Generation ||
		!s.hasBase() || c.Message != s.compatible() {
		return nil
	}
	return s.adapter.Status.TargetRevision
}

func (s *scope) hasBase() bool { return s.pool != nil && s.pool.Status.BaseModel.Digest != "" }

// compatible is the message of Compatible=True. It names the base, so that another base makes it false.
func (s *scope) compatible() string {
	return fmt.Sprintf("checked against the base model %s (%s)",
		s.pool.Status.BaseModel.Digest, s.pool.Status.BaseModel.Architecture)
}

// artifactState is what is known of the artifact that the spec asks for.
type artifactState struct {
	revision *v1alpha1.Revision // found, checked and stored
	failure  *attempt.Failure   // else why not, or nil while it is sought
	lost     *attempt.Failure   // beside a revision: why the artifact registry, which lost it, could not be given it again
}

func (s *scope) artifact() artifactState {
	known := s.known()
	if s.outcome == nil || !s.hasBase() {
		return artifactState{revision: known}
	}
	failure, failed := s.outcome.Err.(*attempt.Failure) //nolint:errorlint // it is never wrapped
	switch {
	case s.outcome.Err == nil:
		return artifactState{revision: &s.outcome.Result}
	case !failed: // a panic
		return artifactState{failure: &attempt.Failure{Reason: v1alpha1.ReasonInvalidAdapter, Message: s.outcome.Err.Error()}}
	case known == nil || failure.Reason == v1alpha1.ReasonRankTooLarge:
		return artifactState{failure: failure}
	case failure.Reason == v1alpha1.ReasonStoreUnavailable:
		return artifactState{revision: known} // asked again soon; nothing has changed for all that is known
	}
	return artifactState{revision: known, lost: failure}
}

// target is the last revision that could be found, checked and stored, or nil. That it was proven is not forgotten
// while it is the same: an attempt that finds it again knows nothing of pods.
func (s *scope) target(state artifactState) *v1alpha1.Revision {
	former := s.adapter.Status.TargetRevision
	if state.revision == nil {
		return former
	}
	target := *state.revision
	target.Proven = former != nil && former.Digest == target.Digest && former.Proven
	return &target
}

// inPods is what pods make of an adapter.
type inPods struct {
	counts      v1alpha1.PodCounts
	failures    []v1alpha1.PodFailure
	answers     []string // of each ready pod: the digest with which it answers, or ""
	pullFailed  bool
	unavailable bool   // no pod answers
	doubt       string // of the first ready pod whose report is worth nothing: which, and why
}

// look reads the pods' reports of an adapter whose target is that digest.
func (s *scope) look(digest string) inPods {
	found := inPods{unavailable: true}
	var doubts []string
	for _, pod := range s.pods {
		if !placement.Ready(pod.Pod) {
			found.pullFailed = found.pullFailed || s.cannotPull(pod, digest)
			continue
		}
		found.counts.Desired++
		entry, assigned := placement.Entry(pod.Assignment, s.adapter.Name)
		if why := placement.Doubt(pod.Pod, pod.Assignment); why != "" {
			doubts = append(doubts, "pod "+pod.Name+": "+why)
		}
		if !assigned || !placement.Counts(pod.Pod, pod.Assignment) {
			found.answers = append(found.answers, "")
			continue
		}
		report := placement.ReportOn(pod.Assignment, s.adapter.Name)
		answer := report.Answers(entry)
		found.answers = append(found.answers, answer)
		found.unavailable = found.unavailable && answer == ""
		switch failure := report.Failure(entry); {
		case entry.Digest != digest:
		case report.State(entry) == placement.Served:
			found.counts.Ready++
		case failure != nil && report.State(entry) == placement.Failed:
			found.counts.Failed++
			found.pullFailed = found.pullFailed || failure.Reason == v1alpha1.FailurePullFailed
			found.failures = append(found.failures, v1alpha1.PodFailure{
				Pod: pod.Name, Reason: condition.Cut(failure.Reason, maxFailure),
				Message: condition.Cut(failure.Message, maxFailure),
			})
		}
	}
	slices.SortFunc(found.failures, func(a, b v1alpha1.PodFailure) int { return strings.Compare(a.Pod, b.Pod) })
	found.failures = found.failures[:min(len(found.failures), maxFailures)]
	if len(doubts) > 0 {
		found.doubt = slices.Min(doubts) // always the same one
	}
	return found
}

// cannotPull tells whether a pod waits for a digest that the artifact registry may have lost.
func (s *scope) cannotPull(pod placement.Pod, digest string) bool {
	entry, assigned := placement.Entry(pod.Assignment, s.adapter.Name)
	if !assigned || entry.Digest != digest || !placement.Fresh(pod.Pod, pod.Assignment) {
		return false
	}
	failure := placement.ReportOn(pod.Assignment, s.adapter.Name).Failure(entry)
	return failure != nil && failure.Reason == v1alpha1.FailurePullFailed
}

// status is the adapter's status, from nothing but the scope.
func (s *scope) status() v1alpha1.LoRAAdapterStatus {
	status := *s.adapter.Status.DeepCopy()
	status.ObservedGeneration = s.adapter.Generation
	state := s.artifact()
	target, digest := s.target(state).DeepCopy(), ""
	if target != nil {
		digest = target.Digest
	}
	found := s.look(digest)
	if found.counts.Ready > 0 {
		target.Proven = true
	}
	status.TargetRevision = target
	status.Pods, status.Failures = found.counts, found.failures
	status.ServedRevision = served(found.answers, status.ServedRevision)

	resolved, compatible := s.artifactConditions(state)
	ready := s.ready(state, found)
	if served := status.ServedRevision; served != "" && (state.failure != nil || slices.Contains([]string{
		v1alpha1.ReasonNoRoomForSwap, v1alpha1.ReasonLoadFailed,
	}, ready.Reason) && served != digest) {
		ready.Message += "; pods go on serving " + served
	}
	if ready.Reason == v1alpha1.ReasonLoading && found.doubt != "" {
		ready.Message += "; " + found.doubt
	}
	available := condition.New(v1alpha1.ConditionAvailable, true, v1alpha1.ReasonServing, "a ready pod answers for it")
	if found.unavailable {
		available = condition.New(v1alpha1.ConditionAvailable, false, ready.Reason, "no ready pod answers for it")
	}
	if found.unavailable && ready.Reason == v1alpha1.ReasonServing {
		available.Reason = v1alpha1.ReasonNoPods // cannot be: whoever serves answers
	}
	ready = s.addressed(ready)
	s.set(&status, resolved, compatible, available, ready)
	s.progress(&status, ready)
	return status
}

// served is the digest that every ready pod answers with, or the former one as long as any does.
func served(answers []string, former string) string {
	switch {
	case len(answers) == 0:
		return ""
	case answers[0] != "" && !slices.ContainsFunc(answers, func(a string) bool { return a != answers[0] }):
		return answers[0]
	case former != "" && slices.Contains(answers, former):
		return former
	}
	return ""
}

// artifactConditions are ArtifactResolved and Compatible.
func (s *scope) artifactConditions(state artifactState) (resolved, compatible metav1.Condition) {
	unknown := func(kind, reason, message string) metav1.Condition {
		c := condition.New(kind, false, reason, message)
		c.Status = metav1.ConditionUnknown
		return c
	}
	const r, c = v1alpha1.ConditionArtifactResolved, v1alpha1.ConditionCompatible
	switch f := state.failure; {
	case !s.hasBase():
		reason, message := s.missing()
		return unknown(r, reason, message), unknown(c, reason, message)
	case state.lost != nil:
		return condition.New(r, false, state.lost.Reason, "the artifact registry has lost "+state.revision.Digest+
			", and it cannot be had from the source again: "+state.lost.Message), s.isCompatible()
	case state.revision != nil:
		return condition.New(r, true, v1alpha1.ReasonResolved, "stored as "+state.revision.Digest), s.isCompatible()
	case f == nil:
		return unknown(r, v1alpha1.ReasonResolving, "asking the source"),
			unknown(c, v1alpha1.ReasonResolving, "not known before the source was read")
	case slices.Contains([]string{
		v1alpha1.ReasonInvalidAdapter, v1alpha1.ReasonIncompatible, v1alpha1.ReasonRankTooLarge,
	}, f.Reason):
		return condition.New(r, true, v1alpha1.ReasonResolved, "the source was read"),
			condition.New(c, false, f.Reason, f.Message)
	default:
		return condition.New(r, false, f.Reason, f.Message),
			unknown(c, v1alpha1.ReasonResolving, "not known before the source was read")
	}
}

func (s *scope) isCompatible() metav1.Condition {
	return condition.New(v1alpha1.ConditionCompatible, true, v1alpha1.ReasonCompatible, s.compatible())
}

// missing says what of the pool is missing.
func (s *scope) missing() (reason, message string) {
	name := s.adapter.Spec.PoolRef.Name
	if s.pool == nil {
		return v1alpha1.ReasonPoolNotFound, fmt.Sprintf("there is no InferencePool %q in the namespace", name)
	}
	return v1alpha1.ReasonPoolNotReady, fmt.Sprintf("the InferencePool %q has no base model yet", name)
}

// ready is the condition Ready as far as it is the pods': whether every ready pod serves the target, or the first thing
// that stands in the way.
func (s *scope) ready(state artifactState, found inPods) metav1.Condition {
	no := func(reason, format string, args ...any) metav1.Condition {
		return condition.New(v1alpha1.ConditionReady, false, reason, fmt.Sprintf(format, args...))
	}
	n := found.counts
	switch {
	case !s.hasBase():
		reason, message := s.missing()
		return no(reason, "%s", message)
	case state.failure != nil:
		return no(state.failure.Reason, "%s", state.failure.Message)
	case state.revision == nil:
		return no(v1alpha1.ReasonResolving, "asking the source")
	case n.Desired > 0 && n.Ready == n.Desired:
		return condition.New(v1alpha1.ConditionReady, true, v1alpha1.ReasonServing, "every ready pod serves it")
	case s.full.Reason != "":
		return no(s.full.Reason, "%s", s.full.Message)
	case n.Desired == 0:
		return no(v1alpha1.ReasonNoPods, "no pod of the pool is ready")
	case n.Failed > 0:
		first, spared := found.failures[0], ""
		if s.first != "" && n.Desired > n.Failed {
			spared = "; the other pods are spared: none is given it before one has served it"
		}
		return no(v1alpha1.ReasonLoadFailed, "%d of %d pods could not load it, pod %s: %s: %s%s",
			n.Failed, n.Desired, first.Pod, first.Reason, first.Message, spared)
	case s.waits:
		return no(v1alpha1.ReasonLoading, "it waits for two ready pods of one template: the last is spared what is new")
	case s.first != "" && len(s.pods) > 1:
		return no(v1alpha1.ReasonLoading, "on its first pod, %s; the others follow when it serves", s.first)
	}
	return no(v1alpha1.ReasonLoading, "%d of %d ready pods serve it", n.Ready, n.Desired)
}

// addressed is Ready, of which the pods' part is known, as the Service leaves it. What is wrong with the Service is
// said before what passes by itself, and after what is wrong with the adapter.
func (s *scope) addressed(ready metav1.Condition) metav1.Condition {
	no := func(reason, format string, args ...any) metav1.Condition {
		return condition.New(v1alpha1.ConditionReady, false, reason, fmt.Sprintf(format, args...))
	}
	switch {
	case slices.Contains(stalls, ready.Reason):
		return ready
	case s.service == owned.Foreign:
		return no(v1alpha1.ReasonNameTaken, "Service %q exists and is not the adapter's: it is left as it is", s.adapter.Name)
	case s.refused != "":
		return no(v1alpha1.ReasonObjectRefused, "the API server refuses it: %s", s.refused)
	case s.service == owned.Former && ready.Status == metav1.ConditionTrue:
		return no(v1alpha1.ReasonProgressing, "Service %q is a former adapter's, and on its way out", s.adapter.Name)
	}
	return ready
}

// progress sets kstatus's two conditions, which are there only while they are true, and never both.
func (s *scope) progress(status *v1alpha1.LoRAAdapterStatus, ready metav1.Condition) {
	apimeta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionStalled)
	apimeta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionReconciling)
	switch {
	case ready.Status == metav1.ConditionTrue:
	case slices.Contains(stalls, ready.Reason):
		s.restore(status, condition.New(v1alpha1.ConditionStalled, true, ready.Reason, ready.Message))
	default:
		s.restore(status, condition.New(v1alpha1.ConditionReconciling, true, v1alpha1.ReasonProgressing, ready.Message))
	}
}

// restore sets a condition that was taken out, with the time of its last transition if it was true before.
func (s *scope) restore(status *v1alpha1.LoRAAdapterStatus, c metav1.Condition) {
	s.set(status, condition.Since(s.adapter.Status.Conditions, c))
}

func (s *scope) set(status *v1alpha1.LoRAAdapterStatus, conditions ...metav1.Condition) {
	condition.Set(&status.Conditions, s.adapter.Generation, s.now, conditions...)
}
