package inferencepool

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/condition"
	"github.com/switchyard-dev/switchyard/controllers/endpoint"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
)

// scope is all that a pool's status depends on.
type scope struct {
	pool       *v1alpha1.InferencePool                      // as it was read, with its former status
	outcome    *attempt.Outcome[v1alpha1.ResolvedBaseModel] // nil before the first attempt has ended
	model      *artifact.BaseModel                          // the base; nil as long as it is not known
	small      string                                       // why the pods' memory limit is too small; "" if it is not
	taken      string                                       // an object of another's that has a name the pool needs
	refused    string                                       // why the API server refuses an object; "" if it does not
	deployment *appsv1.Deployment                           // nil where there is none
	comingPods int32                                        // that are not ready and not on their way out
	misses     bool                                         // a pod says that the artifact registry lacks something
	readyPods  int32                                        // of the pool; the Deployment's own count may be a minute old
	service    *corev1.Service                              // nil where there is none
	adapters   []v1alpha1.LoRAAdapter
	now        metav1.Time
}

// stalls are the reasons that only a change of the spec, the source or the namespace can cure.
var stalls = []string{
	v1alpha1.ReasonSourceNotFound, v1alpha1.ReasonSourceInvalid, v1alpha1.ReasonSourceForbidden,
	v1alpha1.ReasonInvalidBaseModel, v1alpha1.ReasonNameTaken, v1alpha1.ReasonObjectRefused,
	v1alpha1.ReasonResourcesTooSmall,
}

// base is the base model that is known, or why none is; neither while it is sought. lost is why the artifact registry,
// which lost the one that is known, could not be given it again.
func (s *scope) base() (base v1alpha1.ResolvedBaseModel, why, lost *attempt.Failure) {
	known := s.sized(s.pool.Status.BaseModel)
	if s.outcome == nil {
		return known, nil, nil
	}
	failure, failed := s.outcome.Err.(*attempt.Failure) //nolint:errorlint // it is never wrapped
	switch {
	case s.outcome.Err == nil:
		return s.sized(s.outcome.Result), nil, nil
	case !failed: // a panic
		failure = &attempt.Failure{Reason: v1alpha1.ReasonInvalidBaseModel, Message: s.outcome.Err.Error()}
	case known.Digest != "" && failure.Reason == v1alpha1.ReasonStoreUnavailable:
		return known, nil, nil // asked again soon; nothing has changed for all that is known
	}
	if known.Digest != "" {
		return known, nil, failure
	}
	return known, failure, nil
}

// sized is a base model with what it takes of a pod's memory: what was said before as long as the model is not known.
func (s *scope) sized(base v1alpha1.ResolvedBaseModel) v1alpha1.ResolvedBaseModel {
	base.SizeBytes = s.pool.Status.BaseModel.SizeBytes
	if s.model != nil {
		base.SizeBytes = s.model.Bytes(dtype(s.pool))
	}
	return base
}

// status is the pool's status, from nothing but the scope.
func (s *scope) status() v1alpha1.InferencePoolStatus {
	status := *s.pool.Status.DeepCopy()
	status.ObservedGeneration = s.pool.Generation
	status.Selector = labels.SelectorFromSet(selector(s.pool)).String()
	base, why, lost := s.base()
	status.BaseModel = base
	status.Replicas, status.ReadyReplicas = 0, s.readyPods
	if d := s.deployment; d != nil {
		status.Replicas = d.Status.Replicas
	}
	status.Adapters = s.counts()
	status.Endpoint = v1alpha1.Endpoint{}
	if s.service != nil {
		status.Endpoint = endpoint.Of(s.service)
	}

	resolved := resolvedCondition(base, why, lost)
	available := condition.New(v1alpha1.ConditionAvailable, true, v1alpha1.ReasonServing,
		fmt.Sprintf("%d pods are ready", status.ReadyReplicas))
	if status.ReadyReplicas == 0 {
		available = condition.New(v1alpha1.ConditionAvailable, false, v1alpha1.ReasonNoPods, "no pod is ready")
	}
	ready := s.ready(base, why)
	s.set(&status, resolved, available, ready)
	s.progress(&status, ready)
	return status
}

func resolvedCondition(base v1alpha1.ResolvedBaseModel, why, lost *attempt.Failure) metav1.Condition {
	const kind = v1alpha1.ConditionBaseModelResolved
	switch {
	case lost != nil:
		return condition.New(kind, false, lost.Reason, "the artifact registry has lost "+base.Digest+
			", and it cannot be had from the source again: "+lost.Message)
	case why != nil:
		return condition.New(kind, false, why.Reason, why.Message)
	case base.Digest == "":
		c := condition.New(kind, false, v1alpha1.ReasonResolving, "asking the source")
		c.Status = metav1.ConditionUnknown
		return c
	}
	return condition.New(kind, true, v1alpha1.ReasonResolved, base.Architecture+", stored as "+base.Digest)
}

// ready is the condition Ready, or the first thing that stands in its way.
func (s *scope) ready(base v1alpha1.ResolvedBaseModel, why *attempt.Failure) metav1.Condition {
	no := func(reason, format string, args ...any) metav1.Condition {
		return condition.New(v1alpha1.ConditionReady, false, reason, fmt.Sprintf(format, args...))
	}
	d, wanted := s.deployment, replicas(s.pool)
	switch {
	case why != nil:
		return no(why.Reason, "%s", why.Message)
	case base.Digest == "":
		return no(v1alpha1.ReasonResolving, "asking the source for the base model")
	case s.taken != "":
		return no(v1alpha1.ReasonNameTaken, "%s exists and is not the pool's: it is left as it is", s.taken)
	case s.refused != "":
		return no(v1alpha1.ReasonObjectRefused, "the API server refuses it: %s", s.refused)
	case s.small != "":
		return no(v1alpha1.ReasonResourcesTooSmall, "%s", s.small)
	case d == nil || d.Status.ObservedGeneration < d.Generation || d.Spec.Replicas == nil || *d.Spec.Replicas != wanted:
		return no(v1alpha1.ReasonRollingOut, "the Deployment is on its way")
	case s.service == nil: // or still that of a former pool of the name
		return no(v1alpha1.ReasonRollingOut, "the Service is on its way")
	case d.Status.UpdatedReplicas < wanted && podsRefused(d) != "":
		return no(v1alpha1.ReasonObjectRefused, "%d of %d pods are of the current template, the API server refuses more: %s",
			d.Status.UpdatedReplicas, wanted, podsRefused(d))
	case d.Status.UpdatedReplicas < wanted:
		return no(v1alpha1.ReasonRollingOut, "%d of %d pods are of the current template", d.Status.UpdatedReplicas, wanted)
	case d.Status.Replicas > wanted:
		return no(v1alpha1.ReasonRollingOut, "%d pods more than wanted are still there", d.Status.Replicas-wanted)
	case s.readyPods < wanted && s.readyPods == 0:
		return no(v1alpha1.ReasonNoPods, "0 of %d pods are ready", wanted)
	case s.readyPods < wanted:
		return no(v1alpha1.ReasonRollingOut, "%d of %d pods are ready", s.readyPods, wanted)
	}
	return condition.New(v1alpha1.ConditionReady, true, v1alpha1.ReasonServing,
		fmt.Sprintf("all %d pods are ready", wanted))
}

// podsRefused is why the last pod that was to be made was not, as its ReplicaSet was told; "" where it was.
func podsRefused(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return c.Message
		}
	}
	return ""
}

// counts is the number of the pool's adapters by what they say of themselves.
func (s *scope) counts() v1alpha1.AdapterCounts {
	var n v1alpha1.AdapterCounts
	for i := range s.adapters {
		one := countOf(&s.adapters[i])
		n.Desired, n.Ready, n.Failed = n.Desired+one.Desired, n.Ready+one.Ready, n.Failed+one.Failed
	}
	return n
}

// countOf is what one adapter adds to the counts.
func countOf(a *v1alpha1.LoRAAdapter) (n v1alpha1.AdapterCounts) {
	if !a.DeletionTimestamp.IsZero() {
		return n
	}
	n.Desired = 1
	switch telemetry.StateOf(a.Generation, a.Status.Conditions) {
	case telemetry.Ready:
		n.Ready = 1
	case telemetry.Failed:
		n.Failed = 1
	case telemetry.Pending:
	}
	return n
}

// progress sets kstatus's two conditions, which are there only while they are true, and never both.
func (s *scope) progress(status *v1alpha1.InferencePoolStatus, ready metav1.Condition) {
	apimeta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionStalled)
	apimeta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionReconciling)
	var c metav1.Condition
	switch {
	case ready.Status == metav1.ConditionTrue:
		return
	case slices.Contains(stalls, ready.Reason):
		c = condition.New(v1alpha1.ConditionStalled, true, ready.Reason, ready.Message)
	default:
		c = condition.New(v1alpha1.ConditionReconciling, true, v1alpha1.ReasonProgressing, ready.Message)
	}
	s.set(status, condition.Since(s.pool.Status.Conditions, c))
}

func (s *scope) set(status *v1alpha1.InferencePoolStatus, conditions ...metav1.Condition) {
	condition.Set(&status.Conditions, s.pool.Generation, s.now, conditions...)
}
