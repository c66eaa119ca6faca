package integration

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/load"
	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// An adapter that kills the process that loads it costs one pod two restarts. The other pod loses no request, the pool
// none but those on the connections of the killed process, and the adapter is served once its source is mended.
func TestAPoisonousAdapterCostsOnePod(t *testing.T) {
	long(t)
	t.Parallel()
	good := []string{"parity", "holes", "digit"}
	s := newSite(t, 2, good...)
	var asking []*load.Load
	for _, name := range good {
		asking = append(asking, s.ask(name))
	}
	direct := map[string]*load.Load{}
	for _, pod := range s.pods() {
		direct[pod.Name] = s.askPod(&pod, "parity")
	}
	ref := push(t, "poison", "killing-"+s.ns, wrappers.Poison(t, copied(t, "parity")))
	s.apply(wrappers.LoRAAdapter(s.ns, "poison").Pool(poolName).Source(ref).Obj())
	victim := s.awaitCrashed("poison")

	for _, load := range asking {
		s.answers(load, 20*clients)
	}
	for _, pod := range s.pods() {
		if pod.Name != victim {
			s.answers(direct[pod.Name], 20*clients)
			s.noneLost(direct[pod.Name])
		}
	}
	for i, load := range asking {
		s.onlyConnectionsLost(good[i], load.Stop())
	}
	for _, name := range good {
		s.awaitServed(name, 2)
	}
	s.onlyIn("poison", victim)

	s.source("poison", push(t, "poison", "mended-"+s.ns, inCapitals(t, "parity")))
	s.awaitServed("poison", 2)
	s.restarts(victim)
}

// A swap to such a revision leaves the old one served everywhere, through the restarts of the pod that tried it.
func TestASwapToAPoisonousRevisionKeepsTheOldOne(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 2, "parity", "holes")
	old := s.adapter("parity").Status.ServedRevision
	asking := s.ask("parity")
	s.source("parity", push(t, "parity", "killing-"+s.ns, wrappers.Poison(t, copied(t, "parity"))))
	victim := s.awaitCrashed("parity")
	if a := s.adapter("parity"); a.Status.ServedRevision != old || a.Status.TargetRevision.Proven ||
		!apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionAvailable) {
		t.Errorf("expected that %s is served and the target not proven, found %+v", old, a.Status)
	}
	s.onlyIn("parity", victim)
	for _, pod := range s.pods() {
		answers, err := oip.Infer(t.Context(), "http://"+pod.Status.PodIP+":8080", "parity",
			oip.Request{Inputs: []oip.Tensor{oip.Images(image)}})
		if err != nil || answers[0].Revision != old {
			t.Errorf("pod %s: expected an answer by %s, found %+v, %v", pod.Name, old, answers, err)
		}
	}
	s.source("parity", push(t, "parity", "mended-"+s.ns, inCapitals(t, "parity")))
	now := s.awaitServed("parity", 2).Status.ServedRevision
	asking.MarkReady()
	s.answers(asking, 10*clients)
	report := asking.Stop()
	s.onlyConnectionsLost("parity", report)
	if r := report.Revisions; len(r) != 2 || r[0].Digest != old || r[0].AfterReady > 0 || r[1].Digest != now {
		t.Errorf("expected answers by %s and then %s alone, found %+v", old, now, r)
	}
	s.restarts(victim)
}

// A pool whose pods could not hold what they may be given says so, with the least limit that would do; its pods go on
// as they are, and what is said to do does.
func TestTooLittleMemoryChangesNoPod(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 1, "parity")
	asking := s.ask("parity")
	before := s.deployment()
	s.kubectl("patch", "lorapool", poolName, "--type=merge", "-p",
		`{"spec":{"adapters":{"memory":"64Mi"},"template":{"resources":{"limits":{"memory":"100Mi"}}}}}`)
	least := ""
	s.await("the pool to be Stalled", func() error {
		pool := s.pool()
		for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionStalled} {
			c := apimeta.FindStatusCondition(pool.Status.Conditions, kind)
			if c == nil || c.Reason != v1alpha1.ReasonResourcesTooSmall || c.ObservedGeneration != pool.Generation {
				return fmt.Errorf("%s: %+v", kind, c)
			}
			const says = "spec.template.resources.limits.memory: expected at least %s"
			if _, err := fmt.Sscanf(c.Message, says, &least); err != nil {
				return fmt.Errorf("%q: %w", c.Message, err)
			}
		}
		return nil
	})
	s.answers(asking, 10*clients)
	if now := s.deployment(); now.Generation != before.Generation || now.UID != before.UID {
		t.Errorf("expected the Deployment of generation %d, found %d", before.Generation, now.Generation)
	}
	s.kubectl("patch", "lorapool", poolName, "--type=merge", "-p", fmt.Sprintf(
		`{"spec":{"template":{"resources":{"limits":{"memory":%q}}}}}`, strings.TrimSuffix(least, ",")))
	s.await("the pool to be Ready", func() error { return s.poolIs(1) })
	s.awaitServed("parity", 1)
	s.noneLost(asking)
	if now := s.deployment(); now.Generation == before.Generation {
		t.Error("expected the Deployment to have the new limit")
	}
}

func (s *site) deployment() *appsv1.Deployment {
	s.t.Helper()
	var d appsv1.Deployment
	if err := place.Client.Get(s.t.Context(), client.ObjectKey{Namespace: s.ns, Name: poolName}, &d); err != nil {
		s.t.Fatal(err)
	}
	return &d
}

// A swap that has no room beside the revision it replaces says so, and that one is served until there is.
func TestASwapWithoutRoomWaits(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 1, "parity")
	old := s.adapter("parity").Status.ServedRevision
	s.kubectl("patch", "lorapool", poolName, "--type=merge", "-p", `{"spec":{"adapters":{"maxCount":1}}}`)
	asking := s.ask("parity")
	s.source("parity", push(t, "parity", "roomy-"+s.ns, inCapitals(t, "parity")))
	s.await("NoRoomForSwap", func() error {
		a := s.adapter("parity")
		ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
		if ready.Reason != v1alpha1.ReasonNoRoomForSwap || !strings.Contains(ready.Message, "go on serving "+old) ||
			a.Status.ServedRevision != old {
			return fmt.Errorf("served %q, %+v", a.Status.ServedRevision, ready)
		}
		return nil
	})
	s.answers(asking, 10*clients)
	s.kubectl("patch", "lorapool", poolName, "--type=merge", "-p", `{"spec":{"adapters":{"maxCount":2}}}`)
	if now := s.awaitServed("parity", 1).Status.ServedRevision; now == old {
		t.Errorf("expected another revision than %s", old)
	}
	s.noneLost(asking)
}

// awaitCrashed waits until an adapter is known to have ended the process of one pod, which is ready again, and returns
// its name.
func (s *site) awaitCrashed(adapter string) (victim string) {
	s.t.Helper()
	s.await(adapter+" to be given up by its first pod", func() error {
		a := s.adapter(adapter)
		ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
		want := v1alpha1.PodCounts{Desired: 2, Failed: 1}
		if ready == nil || ready.Status != metav1.ConditionFalse || ready.Reason != v1alpha1.ReasonLoadFailed ||
			a.Status.Pods != want || len(a.Status.Failures) != 1 {
			return fmt.Errorf("%+v of %+v", ready, a.Status)
		}
		victim = a.Status.Failures[0].Pod
		for _, text := range []string{victim, v1alpha1.FailureCrashedLoading, "spared"} {
			if !strings.Contains(ready.Message, text) {
				return fmt.Errorf("expected a message that names %q, found %q", text, ready.Message)
			}
		}
		if reason := a.Status.Failures[0].Reason; reason != v1alpha1.FailureCrashedLoading {
			return fmt.Errorf("expected %s, found %s", v1alpha1.FailureCrashedLoading, reason)
		}
		return nil
	})
	s.restarts(victim)
	return victim
}

// restarts holds that the process of one pod has ended at most twice, and that of no other.
func (s *site) restarts(victim string) {
	s.t.Helper()
	for _, pod := range s.pods() {
		most := int32(0)
		if pod.Name == victim {
			most = 2
		}
		if n := pod.Status.ContainerStatuses[0].RestartCount; n > most {
			s.t.Errorf("pod %s: expected at most %d restarts, found %d", pod.Name, most, n)
		} else {
			s.t.Logf("pod %s was restarted %d times", pod.Name, n)
		}
	}
}

// onlyIn holds that the target of an adapter is in one pod's assignment alone.
func (s *site) onlyIn(adapter, pod string) {
	s.t.Helper()
	target := s.adapter(adapter).Status.TargetRevision.Digest
	for name, a := range s.assignments() {
		if e, _ := placement.Entry(a, adapter); (e.Digest == target) != (name == pod) {
			s.t.Errorf("expected %s in pod %s alone, found %+v in pod %s", target, pod, e, name)
		}
	}
}

// askPod has clients ask an adapter of one pod until the test ends.
func (s *site) askPod(pod *corev1.Pod, adapter string) *load.Load {
	s.t.Helper()
	asking := load.Start(lasting, "http://"+pod.Status.PodIP+":8080", adapter, image, 1)
	s.t.Cleanup(func() { asking.Stop() })
	s.answers(asking, clients)
	return asking
}

// onlyConnectionsLost holds that of the requests only those were lost that a killed process had taken; of a poisonous
// adapter two are killed.
func (s *site) onlyConnectionsLost(adapter string, report *load.Report) {
	s.t.Helper()
	s.t.Logf("%s: requests lost with the killed process: %d", adapter, len(report.Failures))
	if n := len(report.Failures); n > 2*clients {
		s.t.Errorf("%s: expected at most two lost requests of each of %d clients, found %d: %v",
			adapter, clients, n, report.Err())
	}
	for _, err := range report.Failures {
		var status *oip.StatusError
		if errors.As(err, &status) {
			s.t.Errorf("%s: expected only broken connections, found %v", adapter, err)
		}
	}
}
