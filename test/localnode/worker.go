package localnode

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// retryAfter is when something is tried again that the apiserver or the pod's surroundings refused.
const retryAfter = 500 * time.Millisecond

// worker is the life of one pod on the node: one goroutine that looks at everything whenever something has changed.
type worker struct {
	node   *Node
	wakeup chan struct{} // of capacity 1
	serves atomic.Value  // string: its address while it is ready, as this node knows before the API server is told

	mu     sync.Mutex
	latest *corev1.Pod // as watched
	gone   bool        // from the API: a deletion by force

	// Only the goroutine's own.
	pod        *corev1.Pod // as watched or as written last
	dir        string
	number     int // of its address; 0 before it has one
	volumes    *volumes
	refreshAt  time.Time // of the volumes; zero before they were written
	containers []*container
	ending     time.Time // when its deletion was first seen
	log        *slog.Logger
}

// container is one of the pod's.
type container struct {
	observed

	run        *run
	probes     sync.WaitGroup
	stopProbes context.CancelFunc
	row        int       // how often it ended without having run for long
	due        time.Time // when it may be started
	killAt     time.Time // when SIGKILL follows; zero while it is to run
	asked      bool      // to end, as its pod is deleted
}

func newWorker(n *Node, pod *corev1.Pod, number int) *worker {
	dir := filepath.Join(n.options.Dir, "pods", string(pod.UID))
	w := &worker{
		node: n, wakeup: make(chan struct{}, 1), latest: pod, dir: dir, number: number,
		volumes: &volumes{
			dir: filepath.Join(dir, "volumes"), client: n.client, now: n.clock.Now, tokens: map[string]token{},
		},
		log: n.log.With("pod", pod.Namespace+"/"+pod.Name),
	}
	return w
}

// update tells the worker of the pod as watched; nil when it is gone.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	if pod == nil {
		w.gone = true
	} else {
		w.latest = pod
	}
	w.mu.Unlock()
	w.wake()
}

func (w *worker) wake() {
	select {
	case w.wakeup <- struct{}{}:
	default:
	}
}

// live runs until the pod is gone or ctx ends, and leaves no process.
func (w *worker) live(ctx context.Context) {
	defer w.leave()
	for {
		next, done := w.sync(ctx)
		if done || ctx.Err() != nil {
			return
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = w.node.clock.After(max(0, next.Sub(w.node.clock.Now())))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wakeup:
		case <-timer:
		}
	}
}

// leave kills what runs, and gives back what the pod had if the pod itself is gone.
func (w *worker) leave() {
	for _, c := range w.containers {
		if c.run == nil {
			continue
		}
		c.run.signal(syscall.SIGKILL)
		<-c.run.ended
		c.stopProbes()
		c.probes.Wait()
	}
	if w.number != 0 {
		w.node.podNumbers.release(w.number)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		if err := os.RemoveAll(w.dir); err != nil {
			w.log.Error("folder of a gone pod stays", "error", err)
		}
	}
}

// sync brings the pod a step further, and says when to look again (zero: when something changes).
func (w *worker) sync(ctx context.Context) (next time.Time, done bool) {
	w.mu.Lock()
	latest, gone := w.latest, w.gone
	w.mu.Unlock()
	if gone {
		return next, true
	}
	if w.pod == nil || !older(latest, w.pod) {
		w.pod = latest
	}
	if w.pod.Spec.NodeName == "" {
		if w.pod.DeletionTimestamp != nil {
			return next, false // the apiserver takes it away by itself
		}
		return w.bind(ctx), false
	}
	if w.pod.DeletionTimestamp != nil {
		return w.terminate(ctx)
	}
	if w.pod.Status.Phase == corev1.PodSucceeded || w.pod.Status.Phase == corev1.PodFailed {
		return next, false
	}
	if w.number == 0 {
		number, free, err := w.node.podNumbers.take(0)
		if err != nil {
			w.reportUnscheduled(ctx, err)
			select {
			case <-free:
			case <-w.wakeup:
			case <-ctx.Done():
			}
			return w.node.clock.Now(), false
		}
		w.number = number
	}
	w.watchContainers()
	at := w.start(ctx)
	if err := w.report(ctx); err != nil {
		w.log.Error("status", "error", err)
		return w.node.clock.Now().Add(retryAfter), false
	}
	return at, false
}

// bind is what a scheduler would do.
func (w *worker) bind(ctx context.Context) (next time.Time) {
	if name := w.pod.Spec.SchedulerName; name != corev1.DefaultSchedulerName && name != "" ||
		len(w.pod.Spec.SchedulingGates) > 0 {
		return next
	}
	if !labels.SelectorFromSet(w.pod.Spec.NodeSelector).Matches(labels.Set(w.node.labels())) {
		w.reportUnscheduled(ctx, fmt.Errorf("the only node %s has not the labels of nodeSelector", w.node.options.Name))
		return next
	}
	err := w.node.client.CoreV1().Pods(w.pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: w.pod.Name, Namespace: w.pod.Namespace, UID: w.pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: w.node.options.Name},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		w.log.Error("bind", "error", err)
		return w.node.clock.Now().Add(retryAfter)
	}
	return next // the watch tells the rest
}

func (w *worker) reportUnscheduled(ctx context.Context, why error) {
	pod := w.pod.DeepCopy()
	now := w.node.clock.Now()
	setCondition(&pod.Status, pod.Generation, corev1.PodScheduled, false, corev1.PodReasonUnschedulable, now)
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodScheduled {
			pod.Status.Conditions[i].Message = why.Error()
		}
	}
	if err := w.write(ctx, pod); err != nil {
		w.log.Error("status", "error", err)
	}
}

// watchContainers takes in what the processes and their probes did, and what of the spec may change (images).
func (w *worker) watchContainers() {
	for i := range w.pod.Spec.Containers {
		spec := &w.pod.Spec.Containers[i]
		if i == len(w.containers) {
			w.containers = append(w.containers, adopt(w.pod, spec.Name, w.node.clock.Now()))
		}
		c := w.containers[i]
		c.image = spec.Image
		if c.run != nil {
			w.watchRun(c)
		}
	}
	// Services are told of a process that has ended before its successor starts, which would take their connections as
	// long as the API server calls the pod ready.
	if !all(w.containers, func(c *container) bool { return c.running && c.ready }) {
		w.serves.Store("")
	}
}

// adopt is a container as another Run of this node left it: its process is gone, and nobody saw how.
func adopt(pod *corev1.Pod, name string, now time.Time) *container {
	c := &container{observed: observed{name: name}}
	for _, s := range pod.Status.ContainerStatuses {
		if s.Name != name || s.ContainerID == "" {
			continue
		}
		c.restarts, c.before, c.id, c.row = s.RestartCount, s.LastTerminationState.Terminated, s.ContainerID, 1
		c.exited = &exit{code: 128 + int32(syscall.SIGKILL), signal: int32(syscall.SIGKILL), at: now}
		switch {
		case s.State.Running != nil:
			c.startedAt = s.State.Running.StartedAt.Time
		case c.before != nil: // it waited for its next start
			c.startedAt = c.before.StartedAt.Time
			c.exited = &exit{code: c.before.ExitCode, signal: c.before.Signal, at: c.before.FinishedAt.Time}
		}
	}
	return c
}

// watchRun looks at a container's process.
func (w *worker) watchRun(c *container) {
	now := w.node.clock.Now()
	if why := c.run.unhealthy.Load(); why != nil && c.killAt.IsZero() {
		w.log.Info("restarting an unhealthy container", "container", c.name, "why", *why)
		c.killAt = now.Add(w.grace())
		c.run.signal(syscall.SIGTERM)
	}
	if !c.killAt.IsZero() && !now.Before(c.killAt) {
		c.run.signal(syscall.SIGKILL)
	}
	c.started, c.ready = c.run.started.Load(), c.run.ready.Load() && c.killAt.IsZero()
	if !c.run.hasEnded() {
		return
	}
	c.stopProbes()
	c.probes.Wait()
	ended := c.run.exit
	c.exited, c.running, c.run, c.killAt = &ended, false, nil, time.Time{}
	w.log.Info("container ended", "container", c.name, "code", ended.code, "signal", ended.signal)
	policy := w.pod.Spec.RestartPolicy
	if policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure && ended.code == 0 {
		c.finished = true
		return
	}
	if ended.at.Sub(c.startedAt) > 2*w.node.options.MaxBackoff {
		c.row = 0
	}
	c.row++
	wait := backoff(c.row, w.node.options.Backoff, w.node.options.MaxBackoff)
	c.due = now.Add(wait)
	if wait > 0 {
		c.reason = "CrashLoopBackOff"
		c.extra = fmt.Sprintf("back-off %v restarting container %s, which ended %d times", wait, c.name, c.row)
	}
}

// start starts what is due, and says when something else will be.
func (w *worker) start(ctx context.Context) (next time.Time) {
	now := w.node.clock.Now()
	pod := w.placed()
	if !now.Before(w.refreshAt) {
		again, err := w.volumes.write(ctx, pod)
		if err != nil {
			w.hold("ContainerCreating", err)
			return now.Add(retryAfter)
		}
		w.refreshAt = again
	}
	next = w.refreshAt
	for i, c := range w.containers {
		switch {
		case c.finished:
		case c.running:
			if !c.killAt.IsZero() {
				next = sooner(next, c.killAt)
			}
		case now.Before(c.due):
			next = sooner(next, c.due)
		default:
			if err := w.startContainer(ctx, pod, &pod.Spec.Containers[i], c); err != nil {
				c.reason, c.extra = "CreateContainerConfigError", quote.Text(err.Error())
				w.log.Error("container does not start", "container", c.name, "error", err)
				c.due = now.Add(retryAfter * 4)
				next = sooner(next, c.due)
			}
		}
	}
	return next
}

func (w *worker) hold(reason string, why error) {
	for _, c := range w.containers {
		if !c.running {
			c.reason, c.extra = reason, quote.Text(why.Error())
		}
	}
}

// placed is the pod as its containers see it: with its addresses, which the status may not say yet.
func (w *worker) placed() *corev1.Pod {
	pod := w.pod.DeepCopy()
	pod.Status.PodIP, pod.Status.HostIP = w.node.lane.pod(w.number), w.node.lane.host()
	return pod
}

func (w *worker) startContainer(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, c *container) error {
	if len(pod.Spec.InitContainers) > 0 {
		return fmt.Errorf("expected no init containers on this node, found %d", len(pod.Spec.InitContainers))
	}
	binary, known := w.node.options.Images[spec.Image]
	if !known {
		return fmt.Errorf("no binary for image %s, only for %s",
			quote.Name(spec.Image), strings.Join(sortedKeys(w.node.options.Images), ", "))
	}
	if spec.Lifecycle != nil {
		if stop := spec.Lifecycle.PreStop; spec.Lifecycle.PostStart != nil || stop != nil && stop.Sleep == nil {
			return fmt.Errorf("lifecycle: expected no hook but preStop.sleep on this node")
		}
	}
	env, err := containerEnvironment(ctx, pod, spec, w.node.environment(pod), apiObjects{w.node.client, pod.Namespace})
	if err != nil {
		return err
	}
	mounts, err := w.volumes.mounts(pod, spec, env)
	if err != nil {
		return err
	}
	probes, err := probesOf(pod, spec)
	if err != nil {
		return err
	}
	log := filepath.Join(w.node.options.Dir, "logs", fmt.Sprintf("%s_%s_%s.log", pod.Namespace, pod.Name, spec.Name))
	r, err := startRun(ctx, commandOf(spec, binary, env, mounts), log, filepath.Join(w.dir, spec.Name+".process.json"),
		w.node.clock.Now, w.wake)
	if err != nil {
		return err
	}
	if c.exited != nil {
		c.before = terminated(c.observed)
		c.restarts++
	}
	c.exited, c.reason, c.extra = nil, "", ""
	c.run, c.running, c.id, c.startedAt = r, true, r.id, r.startedAt
	probing, stop := context.WithCancel(ctx)
	c.stopProbes = stop
	probes.begin(r)
	c.probes.Go(func() { probes.watch(probing, w.node.clock, r, w.wake) })
	c.started, c.ready = r.started.Load(), r.ready.Load()
	w.log.Info("container started", "container", c.name, "address", pod.Status.PodIP, "restarts", c.restarts)
	return nil
}

// terminate ends the containers with their grace period, and then the object.
func (w *worker) terminate(ctx context.Context) (next time.Time, done bool) {
	now := w.node.clock.Now()
	if w.ending.IsZero() {
		w.ending = now
		w.log.Info("terminating", "grace", w.grace())
	}
	w.watchContainers()
	next = w.ending.Add(w.grace()) // a second deletion may shorten it
	left := false
	for i, c := range w.containers {
		c.finished, c.reason = true, ""
		if c.run == nil {
			continue
		}
		left = true
		c.killAt = w.ending.Add(w.grace())
		term := w.ending.Add(preStopSleep(&w.pod.Spec.Containers[i]))
		switch {
		case !now.Before(c.killAt):
			c.run.signal(syscall.SIGKILL)
			next = now.Add(eagerly) // its end wakes us before
		case now.Before(term):
			next = sooner(next, term)
		case !c.asked:
			c.asked = true
			c.run.signal(syscall.SIGTERM)
		}
	}
	if err := w.report(ctx); err != nil {
		w.log.Error("status", "error", err)
		next = now.Add(retryAfter)
	}
	if left {
		return next, false
	}
	zero := int64(0)
	err := w.node.client.CoreV1().Pods(w.pod.Namespace).Delete(ctx, w.pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &w.pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		w.log.Error("delete", "error", err)
	}
	return now.Add(retryAfter), false // until the watch says that it is gone: a finalizer may hold it
}

func (w *worker) grace() time.Duration {
	seconds := w.pod.DeletionGracePeriodSeconds
	if w.pod.DeletionTimestamp == nil || seconds == nil {
		seconds = w.pod.Spec.TerminationGracePeriodSeconds
	}
	if seconds == nil {
		return corev1.DefaultTerminationGracePeriodSeconds * time.Second
	}
	return time.Duration(*seconds) * time.Second
}

// report writes the pod's status if it is not as written before.
func (w *worker) report(ctx context.Context) error {
	at := place{hostIP: w.node.lane.host()}
	if w.number != 0 {
		at.podIP = w.node.lane.pod(w.number)
	}
	seen := make([]observed, len(w.containers))
	for i, c := range w.containers {
		seen[i] = c.observed
	}
	for {
		pod := w.pod.DeepCopy()
		pod.Status = podStatus(pod, at, seen, w.node.clock.Now())
		if conditionTrue(pod.Status.Conditions, corev1.PodReady) {
			w.serves.Store(at.podIP) // before anybody hears of it
		} else {
			w.serves.Store("")
		}
		err := w.write(ctx, pod)
		if !apierrors.IsConflict(err) {
			return err
		}
		fresh, err := w.node.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && fresh.UID != pod.UID {
			return nil // the watch will say so
		}
		if err != nil {
			return err
		}
		w.pod = fresh
	}
}

// write writes the status that pod has, if w.pod has another.
func (w *worker) write(ctx context.Context, pod *corev1.Pod) error {
	if equality.Semantic.DeepEqual(wire(pod.Status), wire(w.pod.Status)) {
		return nil
	}
	written, err := w.node.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the watch will say so
	}
	if err == nil {
		w.pod = written
	}
	return err
}

// older says that a was written before b.
func older(a, b *corev1.Pod) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// environment is what every container of the pod starts from.
func (n *Node) environment(pod *corev1.Pod) environment {
	return environment{
		{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{"HOME", "/"},
		{"HOSTNAME", cmp.Or(pod.Spec.Hostname, pod.Name)},
		{"KUBERNETES_SERVICE_HOST", n.apiHost},
		{"KUBERNETES_SERVICE_PORT", n.apiPort},
		{"KUBERNETES_SERVICE_PORT_HTTPS", n.apiPort},
	}
}

func preStopSleep(c *corev1.Container) time.Duration {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil {
		return 0
	}
	return time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
}

// wire is a status with its times as the apiserver keeps them, to the second.
func wire(s corev1.PodStatus) corev1.PodStatus {
	s = *s.DeepCopy()
	cut := func(t *metav1.Time) {
		if t != nil {
			*t = t.Rfc3339Copy()
		}
	}
	cut(s.StartTime)
	for i := range s.Conditions {
		cut(&s.Conditions[i].LastTransitionTime)
	}
	for i := range s.ContainerStatuses {
		c := &s.ContainerStatuses[i]
		for _, state := range []*corev1.ContainerState{&c.State, &c.LastTerminationState} {
			if state.Running != nil {
				cut(&state.Running.StartedAt)
			}
			if state.Terminated != nil {
				cut(&state.Terminated.StartedAt)
				cut(&state.Terminated.FinishedAt)
			}
		}
	}
	slices.SortFunc(s.Conditions, func(a, b corev1.PodCondition) int { return cmp.Compare(a.Type, b.Type) })
	return s
}
