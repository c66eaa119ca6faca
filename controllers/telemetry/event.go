package telemetry

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/condition"
)

// Event is one sentence of an object's story.
type Event struct {
	Warning bool
	Reason  string // one of api/v1alpha1's
	Message string
}

// The actions of events: what was being done.
const (
	actionResolve = "Resolve" // bring the artifact
	actionPlace   = "Place"   // find room for it in pods
	actionLoad    = "Load"    // have pods load it
	actionApply   = "Apply"   // make a pool's objects
	actionServe   = "Serve"
)

// Action is what was being done when an event of that reason came.
func Action(reason string) string {
	switch reason {
	case v1alpha1.ReasonServing:
		return actionServe
	case v1alpha1.ReasonLoading, v1alpha1.ReasonLoadFailed:
		return actionLoad
	case v1alpha1.ReasonPoolNotFound, v1alpha1.ReasonPoolNotReady, v1alpha1.ReasonPoolFull,
		v1alpha1.ReasonNoRoomForSwap, v1alpha1.ReasonNoPods:
		return actionPlace
	case v1alpha1.ReasonNameTaken, v1alpha1.ReasonObjectRefused, v1alpha1.ReasonResourcesTooSmall,
		v1alpha1.ReasonRollingOut:
		return actionApply
	}
	return actionResolve
}

// maxNote is what the API server takes of an event's text, in bytes.
const maxNote = 1024

// Tell makes events of an object whose status was written, and logs them.
func Tell(ctx context.Context, to events.EventRecorder, about client.Object, story []Event) {
	for _, e := range story {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		to.Eventf(about, nil, kind, e.Reason, Action(e.Reason), "%s", condition.Cut(e.Message, maxNote))
		ctrllog.FromContext(ctx).Info(e.Message, "reason", e.Reason)
	}
}
