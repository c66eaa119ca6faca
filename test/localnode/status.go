package localnode

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// observed is what the node knows of one container.
type observed struct {
	name, image string

	id        string // of the process that runs, or ran last; empty before the first
	startedAt time.Time
	running   bool
	started   bool
	ready     bool

	exited        *exit // of the process that ran last, while none runs
	before        *corev1.ContainerStateTerminated
	restarts      int32
	reason, extra string // why it waits
	finished      bool   // it will not be started again
}

// place is where the pod is.
type place struct{ podIP, hostIP string }

// podStatus is the status of a pod on this node, from what is known of its containers and from the status before, whose
// conditions of others and times of transition it keeps.
func podStatus(pod *corev1.Pod, at place, containers []observed, now time.Time) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	status.ObservedGeneration = pod.Generation
	status.HostIP, status.HostIPs = at.hostIP, []corev1.HostIP{{IP: at.hostIP}}
	status.PodIP, status.PodIPs = at.podIP, nil
	if at.podIP != "" {
		status.PodIPs = []corev1.PodIP{{IP: at.podIP}}
	}
	if status.StartTime == nil {
		status.StartTime = &metav1.Time{Time: now}
	}
	status.ContainerStatuses = nil
	for _, c := range containers {
		status.ContainerStatuses = append(status.ContainerStatuses, containerStatus(c))
	}
	status.Phase = phase(containers)

	unready := ""
	switch {
	case status.Phase == corev1.PodSucceeded:
		unready = "PodCompleted"
	case status.Phase == corev1.PodFailed:
		unready = "PodFailed"
	// Its probe may have been good to the end.
	case !all(containers, func(c observed) bool { return c.running && c.ready }):
		unready = "ContainersNotReady"
	}
	up := all(containers, func(c observed) bool { return c.id != "" })
	set := func(kind corev1.PodConditionType, holds bool, reason string) {
		setCondition(&status, pod.Generation, kind, holds, reason, now)
	}
	set(corev1.PodReadyToStartContainers, up, "")
	set(corev1.PodInitialized, true, "")
	set(corev1.ContainersReady, unready == "", unready)
	// A pod that is on its way out gets no new work, whatever its probe would say.
	if unready == "" && pod.DeletionTimestamp != nil {
		unready = "PodTerminating"
	}
	if unready == "" && !all(pod.Spec.ReadinessGates, func(gate corev1.PodReadinessGate) bool {
		return conditionTrue(status.Conditions, gate.ConditionType)
	}) {
		unready = "ReadinessGatesNotReady"
	}
	set(corev1.PodReady, unready == "", unready)
	return status
}

func containerStatus(c observed) corev1.ContainerStatus {
	started := c.running && c.started
	s := corev1.ContainerStatus{
		Name: c.name, Image: c.image, ImageID: c.image, ContainerID: c.id,
		RestartCount: c.restarts, Started: &started, Ready: c.running && c.ready,
	}
	if c.before != nil {
		s.LastTerminationState.Terminated = c.before.DeepCopy()
	}
	switch {
	case c.running:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.startedAt)}
	case c.exited != nil && (c.finished || c.reason == ""):
		s.State.Terminated = terminated(c)
	default:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: c.reason, Message: c.extra}
		if c.reason == "" {
			s.State.Waiting.Reason = "ContainerCreating"
		}
		if c.exited != nil {
			s.LastTerminationState.Terminated = terminated(c)
		}
	}
	return s
}

func terminated(c observed) *corev1.ContainerStateTerminated {
	reason := "Error"
	if c.exited.code == 0 {
		reason = "Completed"
	}
	return &corev1.ContainerStateTerminated{
		ExitCode: c.exited.code, Signal: c.exited.signal, Reason: reason, ContainerID: c.id,
		StartedAt: metav1.NewTime(c.startedAt), FinishedAt: metav1.NewTime(c.exited.at),
	}
}

func phase(containers []observed) corev1.PodPhase {
	switch {
	case all(containers, func(c observed) bool { return c.finished }):
		if all(containers, func(c observed) bool { return c.exited == nil || c.exited.code == 0 }) {
			return corev1.PodSucceeded
		}
		return corev1.PodFailed
	case all(containers, func(c observed) bool { return c.id != "" }):
		return corev1.PodRunning
	default:
		return corev1.PodPending
	}
}

func setCondition(
	s *corev1.PodStatus, generation int64, kind corev1.PodConditionType, holds bool, reason string, now time.Time,
) {
	value := corev1.ConditionFalse
	if holds {
		value = corev1.ConditionTrue
	}
	i := slices.IndexFunc(s.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	if i < 0 {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: kind})
		i = len(s.Conditions) - 1
	}
	c := &s.Conditions[i]
	if c.Status != value {
		c.Status, c.LastTransitionTime = value, metav1.NewTime(now)
	}
	c.Reason, c.Message, c.ObservedGeneration = reason, "", generation
}

func conditionTrue(conditions []corev1.PodCondition, kind corev1.PodConditionType) bool {
	return slices.ContainsFunc(conditions, func(c corev1.PodCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}

// backoff is how long a container that ended so many times in a row waits before it runs again: not at all after the
// first time.
func backoff(ended int, first, most time.Duration) time.Duration {
	if ended <= 1 {
		return 0
	}
	wait := first
	for i := 2; i < ended && wait < most; i++ {
		wait *= 2
	}
	return min(wait, most)
}

func all[T any](of []T, holds func(T) bool) bool {
	return !slices.ContainsFunc(of, func(t T) bool { return !holds(t) })
}
