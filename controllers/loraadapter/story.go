package loraadapter

import (
	"fmt"
	"slices"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/source"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
)

// waits are the reasons that pass by themselves, and are no news.
var waits = []string{
	v1alpha1.ReasonResolving, v1alpha1.ReasonLoading, v1alpha1.ReasonPoolNotReady, v1alpha1.ReasonNoPods,
	v1alpha1.ReasonProgressing,
}

// story is what a change of the status adds to what `kubectl describe` tells of an adapter: what its source had, where
// that is going, that it is served, or why it is not. When all goes well a generation has two events; pods that come
// and go are the pool's story.
func story(before, after *v1alpha1.LoRAAdapter) (told []telemetry.Event) {
	const r = v1alpha1.ConditionArtifactResolved
	artifact, ready := turn(before, after, r), turn(before, after, v1alpha1.ConditionReady)
	if artifact.new && artifact.is.Status == metav1.ConditionTrue && after.Status.TargetRevision != nil &&
		artifact.is.Reason == v1alpha1.ReasonResolved && apimeta.IsStatusConditionTrue(
		after.Status.Conditions, v1alpha1.ConditionCompatible) {
		told = append(told, telemetry.Event{Reason: artifact.is.Reason, Message: resolved(before, after, ready.is)})
	}
	switch {
	case ready.new && ready.is.Status == metav1.ConditionTrue:
		recovered := ready.was.Status == metav1.ConditionFalse && !slices.Contains(waits, ready.was.Reason)
		if recovered || ready.was.ObservedGeneration != ready.is.ObservedGeneration ||
			before.Status.ServedRevision != after.Status.ServedRevision {
			told = append(told, telemetry.Event{
				Reason: ready.is.Reason, Message: "every ready pod serves " + after.Status.ServedRevision,
			})
		}
	case ready.new && !slices.Contains(waits, ready.is.Reason):
		told = append(told, telemetry.Event{Warning: true, Reason: ready.is.Reason, Message: ready.is.Message})
	case artifact.new && artifact.is.Status == metav1.ConditionFalse && !slices.Contains(waits, artifact.is.Reason) &&
		artifact.is.Reason != ready.is.Reason: // what is served has been lost
		told = append(told, telemetry.Event{Warning: true, Reason: artifact.is.Reason, Message: artifact.is.Message})
	}
	return told
}

// resolved says what the source had, what it replaces, and what comes next.
func resolved(before, after *v1alpha1.LoRAAdapter, ready metav1.Condition) string {
	target := after.Status.TargetRevision
	message := fmt.Sprintf("%s, revision %s, is stored as %s: rank %d, %d labels, %d bytes",
		source.Of(after.Namespace, after.Spec.Source, nil), target.SourceRevision, target.Digest, target.Rank,
		target.NumLabels, target.SizeBytes)
	if served := after.Status.ServedRevision; served != "" && served != target.Digest {
		message += "; until pods have it they serve " + served
	}
	if former := before.Status.TargetRevision; former != nil && former.Digest == target.Digest {
		message += ", as before"
	}
	if ready.Reason == v1alpha1.ReasonLoading || ready.Reason == v1alpha1.ReasonNoPods {
		message += "; " + ready.Message
	}
	return message
}

// turning is a condition before and after a change; what is not there is all zero.
type turning struct {
	was, is metav1.Condition
	new     bool // it says something else, or of another generation
}

func turn(before, after *v1alpha1.LoRAAdapter, kind string) turning {
	var t turning
	if was := apimeta.FindStatusCondition(before.Status.Conditions, kind); was != nil {
		t.was = *was
	}
	if is := apimeta.FindStatusCondition(after.Status.Conditions, kind); is != nil {
		t.is = *is
		t.new = t.was.Status != is.Status || t.was.Reason != is.Reason || t.was.ObservedGeneration != is.ObservedGeneration
	}
	return t
}
