package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// What other operators are known to get wrong has a test each: docs/faults.md. These are those that are held nowhere
// else.

// Pods that come while a swap stands that killed its first pod get what the others answer with.
func TestPodsThatComeAnswerAsTheOthersDo(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 2, "parity")
	old := s.adapter("parity").Status.ServedRevision
	s.source("parity", push(t, "parity", "killing-"+s.ns, wrappers.Poison(t, copied(t, "parity"))))
	s.awaitCrashed("parity")
	asking := s.ask("parity")
	s.kubectl("scale", "lorapool", poolName, "--replicas=4")
	s.await("the pool to be Ready", func() error { return s.poolIs(4) })
	for _, pod := range s.pods() {
		answers, err := s.infer(&pod, "parity")
		if err != nil || answers[0].Revision != old {
			t.Errorf("pod %s: expected an answer by %s, found %+v, %v", pod.Name, old, answers, err)
		}
	}
	s.answers(asking, 20*clients)
	s.noneLost(asking)
}

// What has changed while the API server was away is said soon after its return, whoever leads then: the manager that
// led before, or the standby that has outlived it, whose watches broke off as often.
func TestStatusesAreTrueSoonAfterAnOutage(t *testing.T) {
	long(t)
	standBy(t)
	s := newSite(t, 2, "parity", "holes")
	for range 2 { // the more of them, the longer an informer of client-go's own would wait
		away := awayAPIServer{s}
		if _, err := away.apply(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		victim := s.process(s.truth.anyReady(rand.New(rand.NewPCG(1, 1))))
		if err := syscall.Kill(victim.PID, syscall.SIGSTOP); err != nil { // its pod is not ready any more
			t.Fatal(err)
		}
		if err := away.heal(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.await("one of two pods to be ready", func() error {
			if pool, a := s.pool(), s.adapter("parity"); pool.Status.ReadyReplicas != 1 || a.Status.Pods.Desired != 1 {
				return fmt.Errorf("pool %+v, adapter %+v", pool.Status, a.Status)
			}
			return nil
		})
		if err := syscall.Kill(victim.PID, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		s.awaitServed("parity", 2)
		s.awaitServed("holes", 2)
		s.await("the pool to be Ready", func() error { return s.poolIs(2) })
	}
}

func (s *site) infer(pod *corev1.Pod, adapter string) ([]oip.Answer, error) {
	return oip.Infer(s.t.Context(), "http://"+pod.Status.PodIP+":8080", adapter,
		oip.Request{Inputs: []oip.Tensor{oip.Images(image)}})
}

// What does not fit is told, and takes nobody's place, however much is asked of the others; it comes when there is
// room.
func TestAFullPoolEvictsNobody(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 1, "parity", "holes")
	s.kubectl("patch", "lorapool", poolName, "--type=merge", "-p", `{"spec":{"adapters":{"maxCount":2}}}`)
	parity, holes := s.ask("parity"), s.ask("holes")
	before := s.assignments()
	s.apply(wrappers.LoRAAdapter(s.ns, "digit").Pool(poolName).Source(place.Ref("digit", "v1")).Obj())
	s.await("PoolFull", func() error {
		a := s.adapter("digit")
		ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != v1alpha1.ReasonPoolFull {
			return fmt.Errorf("%+v", ready)
		}
		return nil
	})
	s.answers(parity, 20*clients)
	s.answers(holes, 20*clients)
	for pod, now := range s.assignments() {
		if !slices.Equal(now.Spec.Adapters, before[pod].Spec.Adapters) {
			t.Errorf("pod %s: expected the entries %+v, found %+v", pod, before[pod].Spec.Adapters, now.Spec.Adapters)
		}
	}
	s.noneLost(parity)
	s.noneLost(holes)
	s.neverUnready("parity", "holes")
	s.kubectl("delete", "lora", "parity")
	s.awaitServed("digit", 1)
}

// A pod is Ready only once it answers for all that it was first assigned.
func TestAReadyPodAnswers(t *testing.T) {
	long(t)
	t.Parallel()
	names := []string{"parity", "holes", "digit"}
	s := newSite(t, 1, names...)
	known := map[string]bool{s.pods()[0].Name: true}
	s.kubectl("scale", "lorapool", poolName, "--replicas=3")
	for len(known) < 3 {
		var next corev1.Pod
		s.await("one more pod to be Ready", func() error {
			pods := s.pods()
			i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return !known[p.Name] && placement.Ready(&p) })
			if i < 0 {
				return errors.New("none is")
			}
			next = pods[i]
			return nil
		})
		known[next.Name] = true
		for _, name := range names {
			if _, err := s.infer(&next, name); err != nil {
				t.Errorf("pod %s has just become Ready: %s: %v", next.Name, name, err)
			}
		}
	}
}

// From apply to Ready are seconds, whatever else the machine does; make bench-ready measures how many.
func TestReadyWithinSeconds(t *testing.T) {
	long(t)
	s := newSite(t, 2)
	const most = 5 * time.Second
	var slowest time.Duration
	for n := range 10 {
		name, sample := fmt.Sprintf("adapter-%d", n), []string{"parity", "holes", "digit"}[n%3]
		ref := push(t, sample, fmt.Sprintf("quick-%d-%s", n, s.ns), labelled(t, sample, n))
		began := time.Now()
		s.apply(wrappers.LoRAAdapter(s.ns, name).Pool(poolName).Source(ref).Obj())
		s.awaitTarget(name)
		s.awaitServed(name, 2)
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("the slowest of ten adapters was Ready after %v", slowest.Round(time.Millisecond))
	if slowest > most {
		t.Errorf("expected each to be Ready within %v, found %v", most, slowest)
	}
}

// awaitTarget waits until an adapter that is new has a revision.
func (s *site) awaitTarget(name string) {
	s.t.Helper()
	s.await(name+" to be resolved", func() error {
		if a := s.adapter(name); a.Status.TargetRevision == nil {
			return fmt.Errorf("%+v", a.Status)
		}
		return nil
	})
}

// How many adapters a pod serves is told from what is loaded, by the pod itself.
func TestTheMetricCountsWhatIsLoaded(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 1, "parity", "holes", "digit")
	for n := 3; n > 1; n-- {
		if n < 3 {
			s.kubectl("delete", "lora", "digit")
		}
		s.await(fmt.Sprintf("%d adapters to be counted", n), func() error {
			text, err := oip.Do(t.Context(), http.MethodGet, "http://"+s.pods()[0].Status.PodIP+":9090/metrics", nil)
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("switchyard_adapters{state=\"served\"} %d\n", n); !strings.Contains(string(text), want) {
				return fmt.Errorf("expected %q", want)
			}
			return nil
		})
	}
}
