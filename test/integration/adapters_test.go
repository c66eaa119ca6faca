package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// A new revision takes over in one step: every request is answered, by the old one or the new, and by the old one never
// again once the status says Ready.
func TestASwapUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "parity", "holes")
	asking := s.ask("parity")
	old := s.adapter("parity").Status.ServedRevision
	s.source("parity", push(t, "parity", "capitals-"+s.ns, inCapitals(t, "parity")))
	now := s.awaitServed("parity", 2).Status.ServedRevision
	asking.MarkReady()
	s.answers(asking, 20*clients)
	report := s.noneLost(asking)
	if len(report.Revisions) != 2 || report.Revisions[0].Digest != old || report.Revisions[1].Digest != now {
		t.Fatalf("expected answers by %s and then by %s, found %+v", old, now, report.Revisions)
	}
	first, second := report.Revisions[0], report.Revisions[1]
	if first.AfterReady > 0 {
		t.Errorf("the old revision answered %d times after Ready", first.AfterReady)
	}
	if second.Label != strings.ToUpper(first.Label) {
		t.Errorf("expected the label %s in capitals, found %s", first.Label, second.Label)
	}
	if !s.truth.fellBack(old) {
		t.Error("expected the old revision as fallback while the new one was loaded")
	}
	s.await("the fallback to be dropped", func() error {
		for pod, a := range s.assignments() {
			for _, e := range a.Spec.Adapters {
				if e.FallbackDigest != "" || a.Status.ObservedRevision < a.Spec.Revision {
					return fmt.Errorf("pod %s, observed %d of %d: %+v", pod, a.Status.ObservedRevision, a.Spec.Revision, e)
				}
			}
		}
		return nil
	})
	s.neverUnready("holes")
}

// bad is a source that cannot be served, and what is said of it.
type bad struct {
	name      string
	ref       string
	condition string // the one that is False
	reason    string
	names     []string // what the message must name
}

// bads are all the ways in which a source may be wrong.
func bads(t *testing.T, tag string) []bad {
	const resolved, compatible = v1alpha1.ConditionArtifactResolved, v1alpha1.ConditionCompatible
	return []bad{
		{
			"not-there", place.Ref("parity", "never-pushed"), resolved, v1alpha1.ReasonSourceNotFound,
			[]string{"never-pushed", "not found"},
		},
		{
			"no-adapter", push(t, "no-adapter", tag, digits.Base(place.Sample())), resolved, v1alpha1.ReasonSourceInvalid,
			[]string{adapterConfig},
		},
		{
			"no-weights", push(t, "no-weights", tag, withoutModel(t, "parity")), resolved, v1alpha1.ReasonSourceInvalid,
			[]string{adapterModel},
		},
		{
			"other-base", push(t, "other-base", tag, ofAnotherBase(t)), compatible, v1alpha1.ReasonIncompatible,
			[]string{"96", "64"},
		},
		{
			"no-classifier", push(t, "no-classifier", tag, withoutClassifier(t, "parity")),
			compatible, v1alpha1.ReasonInvalidAdapter,
			[]string{"classifier"},
		},
		{
			"unsaved", push(t, "unsaved", tag, withUnsavedClassifier(t, "parity")),
			compatible, v1alpha1.ReasonInvalidAdapter,
			[]string{"labels", "10", "2"},
		},
		{
			"nan", push(t, "nan", tag, withNaN(t, "parity")), compatible, v1alpha1.ReasonInvalidAdapter,
			[]string{"base_model.model.", "NaN"},
		},
	}
}

// A bad new revision is refused with its reason, the good one goes on answering, and a good one after it is served.
func TestABadRevisionIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, "parity")
	asking := s.ask("parity")
	old := s.adapter("parity").Status.ServedRevision
	for _, b := range bads(t, s.ns) {
		s.source("parity", b.ref)
		a := s.awaitStalled("parity", b)
		if a.Status.ServedRevision != old || a.Status.TargetRevision.Digest != old ||
			!apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionAvailable) {
			t.Errorf("%s: expected %s to be served still, found %+v", b.name, old, a.Status)
		}
		s.answers(asking, 2*clients)
	}
	s.source("parity", push(t, "parity", "good-"+s.ns, inCapitals(t, "parity")))
	a := s.awaitServed("parity", 1)
	asking.MarkReady()
	s.answers(asking, 10*clients)
	if apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionStalled) != nil {
		t.Errorf("expected no Stalled, found %+v", a.Status.Conditions)
	}
	report := s.noneLost(asking)
	if r := report.Revisions; len(r) != 2 || r[0].AfterReady > 0 || r[1].Digest != a.Status.ServedRevision {
		t.Errorf("expected answers by %s and then %s alone, found %+v", old, a.Status.ServedRevision, report.Revisions)
	}
}

// A bad source says so within seconds, in its status and an event, and harms nobody.
func TestABadSourceSaysSo(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 1, "parity")
	asking := s.ask("parity")
	all := bads(t, s.ns)
	for _, b := range all {
		s.apply(wrappers.LoRAAdapter(s.ns, b.name).Pool(poolName).Source(b.ref).Obj())
	}
	began := time.Now()
	for _, b := range all {
		a := s.awaitStalled(b.name, b)
		if a.Status.TargetRevision != nil || a.Status.ServedRevision != "" || a.Status.Pods.Ready != 0 {
			t.Errorf("%s: expected that nothing is served, found %+v", b.name, a.Status)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("expected all to be refused within seconds, found %v", took)
	}
	for _, b := range all {
		s.await("an event of "+b.name, func() error { return s.hasEvent(b) })
	}
	s.answers(asking, 10*clients)
	s.noneLost(asking)
	s.neverUnready("parity")
	endpoint, err := place.Endpoint(t.Context(), s.ns, poolName)
	if err != nil {
		t.Fatal(err)
	}
	if err := notFound(t.Context(), endpoint.HTTP, "nan"); err != nil {
		t.Error(err)
	}
}

// awaitStalled waits until an adapter's status says of the spec as it is now what is wrong with it.
func (s *site) awaitStalled(name string, b bad) *v1alpha1.LoRAAdapter {
	s.t.Helper()
	var a *v1alpha1.LoRAAdapter
	s.await(name+" to be Stalled: "+b.name, func() error {
		a = s.adapter(name)
		stalled := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionStalled)
		if stalled == nil || stalled.Status != metav1.ConditionTrue || stalled.ObservedGeneration != a.Generation {
			return fmt.Errorf("generation %d: %+v", a.Generation, a.Status.Conditions)
		}
		return nil
	})
	for _, kind := range []string{b.condition, v1alpha1.ConditionReady, v1alpha1.ConditionStalled} {
		c := apimeta.FindStatusCondition(a.Status.Conditions, kind)
		if kind != v1alpha1.ConditionStalled && c.Status != metav1.ConditionFalse || c.Reason != b.reason {
			s.t.Errorf("%s: expected %s False with the reason %s, found %+v", b.name, kind, b.reason, c)
		}
		for _, text := range b.names {
			if !strings.Contains(c.Message, text) {
				s.t.Errorf("%s: expected a message of %s that names %q, found %q", b.name, kind, text, c.Message)
			}
		}
	}
	if c := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReconciling); c != nil {
		s.t.Errorf("%s: expected nothing but Stalled, found %+v", b.name, c)
	}
	return a
}

func (s *site) hasEvent(b bad) error {
	var list eventsv1.EventList
	if err := place.Client.List(s.t.Context(), &list, client.InNamespace(s.ns)); err != nil {
		return err
	}
	for _, e := range list.Items {
		if e.Regarding.Name == b.name && e.Reason == b.reason && e.Type == "Warning" {
			return nil
		}
	}
	return fmt.Errorf("none of %d events warns of %s", len(list.Items), b.reason)
}

// What is deleted is not known any more, in any pod; a pool that is deleted takes its pods, and its adapters say so.
func TestDeletion(t *testing.T) {
	long(t)
	t.Parallel()
	s := newSite(t, 2, "parity", "holes")
	s.kubectl("delete", "lora", "holes")
	for _, pod := range s.pods() {
		s.await("a 404 of pod "+pod.Name, func() error {
			return notFound(t.Context(), "http://"+pod.Status.PodIP+":8080", "holes")
		})
	}
	pods := s.pods()
	s.kubectl("delete", "lorapool", poolName)
	s.await("PoolNotFound", func() error {
		ready := apimeta.FindStatusCondition(s.adapter("parity").Status.Conditions, v1alpha1.ConditionReady)
		if ready.Status != metav1.ConditionFalse || ready.Reason != v1alpha1.ReasonPoolNotFound {
			return fmt.Errorf("%+v", ready)
		}
		return nil
	})
	for i := range pods {
		s.awaitGone(&pods[i])
	}
	s.awaitAssignmentsOfPodsOnly()
	a := s.adapter("parity")
	if a.Status.ServedRevision != "" || a.Status.Pods != (v1alpha1.PodCounts{}) ||
		apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionAvailable) {
		t.Errorf("expected that nothing is served, found %+v", a.Status)
	}
	s.apply(wrappers.Pool(s.ns, poolName).Source(place.Ref("base", "v1")).Replicas(1).Obj())
	s.awaitServed("parity", 1)
}

// notFound is nil if a server answers for an adapter with 404.
func notFound(ctx context.Context, url, adapter string) error {
	_, err := oip.Infer(ctx, url, adapter, oip.Request{Inputs: []oip.Tensor{oip.Images(image)}})
	var status *oip.StatusError
	if !errors.As(err, &status) || status.Code != http.StatusNotFound {
		return fmt.Errorf("expected 404, found %w", err)
	}
	return nil
}

// A hundred adapters at once are all served.
func TestAHundredAtOnce(t *testing.T) {
	long(t)
	s := newSite(t, 2)
	const many = 100
	samples := []string{"digit", "parity", "holes"}
	began := time.Now()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(10)
	for i := range many {
		sample := samples[i%len(samples)]
		a := wrappers.LoRAAdapter(s.ns, fmt.Sprintf("%s-%d", sample, i)).Pool(poolName).Source(place.Ref(sample, "v1")).Obj()
		group.Go(func() error { return place.Client.Create(ctx, a) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	s.await("all to be Ready", func() error {
		var list v1alpha1.LoRAAdapterList
		if err := place.Client.List(t.Context(), &list, client.InNamespace(s.ns)); err != nil {
			return err
		}
		for i := range list.Items {
			if a := &list.Items[i]; a.Status.TargetRevision == nil || served(a, 2) != nil {
				return fmt.Errorf("%s is not: %+v", a.Name, a.Status)
			}
		}
		return nil
	})
	t.Logf("%d adapters applied at once were all Ready after %v", many, time.Since(began).Round(10*time.Millisecond))
	s.await("the pool to count them", func() error {
		want := v1alpha1.AdapterCounts{Desired: many, Ready: many}
		if is := s.pool().Status.Adapters; is != want {
			return fmt.Errorf("expected %+v, found %+v", want, is)
		}
		return nil
	})
	for _, pod := range s.pods() {
		for i := range samples {
			name := fmt.Sprintf("%s-%d", samples[i], i)
			if _, err := oip.Infer(t.Context(), "http://"+pod.Status.PodIP+":8080", name,
				oip.Request{Inputs: []oip.Tensor{oip.Images(image)}}); err != nil {
				t.Errorf("pod %s, %s: %v", pod.Name, name, err)
			}
		}
	}
}
