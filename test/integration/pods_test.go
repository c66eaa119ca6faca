package integration

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// A process that is killed takes the requests of its connections with it and nothing else, and its successor loads what
// it had by itself.
func TestAKilledRuntimeComesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "parity", "holes")
	asking := s.ask("parity")
	victim := s.pods()[0]
	before := s.assignments()[victim.Name]
	if err := syscall.Kill(s.process(&victim).PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.await("the killed process's successor to report", func() error {
		pods := s.pods()
		i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.UID == victim.UID })
		if i < 0 || len(pods[i].Status.ContainerStatuses) == 0 {
			return errors.New("the pod is gone, or says nothing of its container")
		}
		now, status := s.assignments()[victim.Name], pods[i].Status.ContainerStatuses[0]
		if status.RestartCount != 1 || now.Status.BootID == before.Status.BootID || !placement.Counts(&pods[i], now) {
			return fmt.Errorf("container %+v, report %+v", status, now.Status)
		}
		return nil
	})
	s.awaitServed("parity", 2)
	s.awaitServed("holes", 2)
	s.answers(asking, 10*clients)
	report := asking.Stop()
	t.Logf("requests lost with the killed process: %d", len(report.Failures))
	if n := len(report.Failures); n > clients {
		t.Errorf("expected at most one lost request of each of %d clients, found %d: %v", clients, n, report.Err())
	}
	for _, err := range report.Failures {
		var status *oip.StatusError
		if errors.As(err, &status) {
			t.Errorf("expected only broken connections, found %v", err)
		}
	}
}

// The data plane does not need the manager, and the manager finds everything as it was.
func TestTheManagerMayGoAndComeBack(t *testing.T) {
	long(t)
	s := newSite(t, 2, "parity", "holes")
	asking := s.ask("parity")
	before := map[string]*v1alpha1.LoRAAdapter{"parity": s.adapter("parity"), "holes": s.adapter("holes")}
	pods, assignments := s.pods(), s.assignments()

	s.truth.stop(noLeader)
	holder, _, err := place.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := place.KillManager(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.apply(wrappers.LoRAAdapter(s.ns, "digit").Pool(poolName).Source(place.Ref("digit", "v1")).Obj())
	s.answers(asking, 50*clients)
	if err := errors.Join(place.StartManager(lasting), <-s.awaitLeader(t.Context(), holder)); err != nil {
		t.Fatal(err)
	}
	s.awaitServed("digit", 2)
	s.answers(asking, 10*clients)

	s.noneLost(asking)
	for name, former := range before {
		now := s.adapter(name)
		if now.Generation != former.Generation || !reflect.DeepEqual(now.Status, former.Status) {
			t.Errorf("%s: expected the status\n%+v, found\n%+v", name, former.Status, now.Status)
		}
		if blinks := s.truth.blinks(name); len(blinks) > 0 {
			t.Errorf("%s: expected Ready all the time, found %q", name, blinks)
		}
	}
	for _, pod := range pods {
		for _, name := range []string{"parity", "holes"} {
			was, _ := placement.Entry(assignments[pod.Name], name)
			if is, _ := placement.Entry(s.assignments()[pod.Name], name); is != was {
				t.Errorf("pod %s: expected the entry %+v, found %+v", pod.Name, was, is)
			}
		}
	}
}

// Pods that come have all adapters before they are asked, and pods that go answer what they have taken.
func TestScalingLosesNothing(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 1, "parity", "holes")
	asking := s.ask("parity")
	for _, replicas := range []int32{3, 1} {
		s.kubectl("scale", "lorapool", poolName, fmt.Sprintf("--replicas=%d", replicas))
		s.await(fmt.Sprintf("%d pods", replicas), func() error { return s.poolIs(replicas) })
		s.awaitServed("parity", replicas)
		s.awaitServed("holes", replicas)
		s.answers(asking, 20*clients)
	}
	s.awaitAssignmentsOfPodsOnly()
	s.answers(asking, 10*clients)
	s.noneLost(asking)
	s.neverUnready("parity", "holes")
}

// A change of the template replaces all pods, one by one.
func TestARollingUpdateLosesNothing(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 2, "parity", "holes")
	asking := s.ask("parity")
	former := s.pods()
	s.roll()
	s.awaitRolled(2)
	s.awaitServed("parity", 2)
	s.awaitServed("holes", 2)
	for i := range former {
		s.awaitGone(&former[i])
	}
	s.awaitAssignmentsOfPodsOnly()
	s.answers(asking, 10*clients)
	s.noneLost(asking)
	s.neverUnready("parity", "holes")
}

// roll has all pods replaced.
func (s *site) roll() {
	s.t.Helper()
	s.kubectl("patch", "lorapool", poolName, "--type=merge", "-p",
		`{"spec":{"template":{"annotations":{"switchyard.test/roll":"1"}}}}`)
}

func isRolled(pod *corev1.Pod) bool { return pod.Annotations["switchyard.test/roll"] == "1" }

// awaitRolled waits until so many pods are ready that came with roll, and no others.
func (s *site) awaitRolled(replicas int32) {
	s.t.Helper()
	s.await("all pods to be of the new template", func() error {
		for _, pod := range s.pods() {
			if !isRolled(&pod) {
				return fmt.Errorf("pod %s is of the former template", pod.Name)
			}
		}
		return s.poolIs(replicas)
	})
}

// What the pods answer with is lost to the artifact registry, and its spec names another source before a pod has missed
// it: it cannot be pushed again. A pod that comes meanwhile is not ready without, in the place of one that has it: it
// tries the next revision, however much the others are spared.
func TestALostRevisionIsSucceededWhileAllPodsAreReplaced(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 2)
	for name, n := range map[string]int{"first": 8, "second": 9} { // blobs that no other test has
		push(t, "parity", name+"-"+s.ns, labelled(t, "parity", n))
	}
	s.apply(wrappers.LoRAAdapter(s.ns, "parity").Pool(poolName).Source(place.Ref("parity", "first-"+s.ns)).Obj())
	s.awaitServed("parity", 2)
	asking := s.ask("parity")
	former := s.adapter("parity").Status.ServedRevision
	if err := os.Remove(blob(former)); err != nil {
		t.Fatal(err)
	}
	s.roll()
	s.await("a pod to come", func() error {
		if !slices.ContainsFunc(s.pods(), func(pod corev1.Pod) bool { return isRolled(&pod) }) {
			return errors.New("there is none yet")
		}
		return nil
	})
	s.source("parity", place.Ref("parity", "second-"+s.ns))
	s.awaitRolled(2)
	s.awaitServed("parity", 2)
	if served := s.adapter("parity").Status.ServedRevision; served == former {
		t.Errorf("expected another revision than %s to be served", former)
	}
	s.noneLost(asking)
}

// A pod that is deleted is replaced, and nothing is left of it.
func TestADeletedPodIsReplaced(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 2, "parity")
	asking := s.ask("parity")
	victim := s.pods()[0]
	s.kubectl("delete", "pod", victim.Name, "--wait=false")
	s.awaitGone(&victim)
	s.await("the pool to be Ready", func() error { return s.poolIs(2) })
	s.awaitServed("parity", 2)
	s.awaitAssignmentsOfPodsOnly()
	s.answers(asking, 10*clients)
	s.noneLost(asking)
}

// awaitAssignmentsOfPodsOnly waits until each living pod has an assignment, and nothing else has.
func (s *site) awaitAssignmentsOfPodsOnly() {
	s.t.Helper()
	s.await("the assignments of gone pods to be gone", func() error {
		left := s.assignments()
		for _, pod := range s.pods() {
			if left[pod.Name] == nil {
				return fmt.Errorf("pod %s has no assignment", pod.Name)
			}
			delete(left, pod.Name)
		}
		if len(left) > 0 {
			return fmt.Errorf("%d assignments without a pod", len(left))
		}
		return nil
	})
}

// neverUnready expects that adapters, once Ready, were so all the time: pods that come are not Ready before they serve.
func (s *site) neverUnready(adapters ...string) {
	s.t.Helper()
	for _, name := range adapters {
		if blinks := s.truth.blinks(name); len(blinks) > 0 {
			s.t.Errorf("%s: expected Ready all the time, found %q", name, blinks)
		}
	}
}
