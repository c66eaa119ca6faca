package inferencepool

import (
	"slices"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
)

// waits are the reasons that pass by themselves, and are no news.
var waits = []string{v1alpha1.ReasonResolving, v1alpha1.ReasonRollingOut, v1alpha1.ReasonNoPods}

// story is what a change of the status adds to what `kubectl describe` tells of a pool: what its base is, that its pods
// are ready, or what hinders them.
func story(before, after *v1alpha1.InferencePool) (told []telemetry.Event) {
	base := ""
	for _, kind := range []string{v1alpha1.ConditionBaseModelResolved, v1alpha1.ConditionReady} {
		was := apimeta.FindStatusCondition(before.Status.Conditions, kind)
		is := apimeta.FindStatusCondition(after.Status.Conditions, kind)
		if kind == v1alpha1.ConditionBaseModelResolved && is != nil {
			base = is.Reason
		}
		switch {
		case is == nil || slices.Contains(waits, is.Reason):
		case was != nil && was.Status == is.Status && was.Reason == is.Reason:
		case kind == v1alpha1.ConditionReady && is.Reason == base: // told already
		default:
			told = append(told, telemetry.Event{
				Warning: is.Status != metav1.ConditionTrue, Reason: is.Reason, Message: is.Message,
			})
		}
	}
	return told
}
