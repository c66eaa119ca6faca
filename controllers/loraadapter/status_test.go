package loraadapter

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/owned"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

var (
	started = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now     = metav1.NewTime(started.Add(time.Hour))
)

// pod is one that runs since started, with an assignment that may be edited; nil: none.
func pod(name string, ready bool, a *wrappers.AssignmentBuilder) placement.Pod {
	p := wrappers.Pod("demo", name).Running(started)
	if ready {
		p.Ready()
	}
	if a == nil {
		return placement.Pod{Pod: p.Obj()}
	}
	return placement.Pod{Pod: p.Obj(), Assignment: a.Owner(p.Obj()).Obj()}
}

func holds(digest, fallback string) *wrappers.AssignmentBuilder {
	return wrappers.Assignment("demo", "").Revision(1).Entry("parity", digest, fallback, 1).Observed(1).Started(started)
}

func brought(digest string) *attempt.Outcome[v1alpha1.Revision] {
	return &attempt.Outcome[v1alpha1.Revision]{Result: v1alpha1.Revision{Digest: digest}}
}

func failed(reason string) *attempt.Outcome[v1alpha1.Revision] {
	return &attempt.Outcome[v1alpha1.Revision]{Err: &attempt.Failure{Reason: reason, Message: "because"}, Failures: 1}
}

// known makes a status that says the target was found for this spec and base.
func known(s *scope, digest string) {
	s.adapter.Status.TargetRevision = &v1alpha1.Revision{Digest: digest}
	s.set(&s.adapter.Status, s.isCompatible())
}

func TestStatus(t *testing.T) {
	pool := wrappers.Pool("demo", "digits").Base("sha256:base", "ViT").Obj()
	for name, c := range map[string]struct {
		scope    scope
		known    string // digest that the status knows of
		served   string // that the status says is served
		want     string // Ready; of ArtifactResolved, Compatible, Available, Reconciling and Stalled what is True
		target   string
		serves   string
		pods     v1alpha1.PodCounts
		failures int
		says     string // Ready's message, if it matters
	}{
		"no pool": {want: "False PoolNotFound: Reconciling"},
		"no base": {
			scope: scope{pool: wrappers.Pool("demo", "digits").Obj()},
			want:  "False PoolNotReady: Reconciling",
		},
		"not yet asked": {scope: scope{pool: pool}, want: "False Resolving: Reconciling"},
		"not there": {
			scope: scope{pool: pool, outcome: failed("SourceNotFound")},
			want:  "False SourceNotFound: Stalled",
		},
		"no answer": {
			scope: scope{pool: pool, outcome: failed("SourceUnreachable")},
			want:  "False SourceUnreachable: Reconciling",
		},
		"for another": {
			scope: scope{pool: pool, outcome: failed("Incompatible")},
			want:  "False Incompatible: ArtifactResolved Stalled",
		},
		"a panic over it": {
			scope: scope{pool: pool, outcome: &attempt.Outcome[v1alpha1.Revision]{Err: errors.New("x")}},
			want:  "False InvalidAdapter: ArtifactResolved Stalled",
		},
		"no pods": {
			scope: scope{pool: pool, outcome: brought("A")}, target: "A",
			want: "False NoPods: ArtifactResolved Compatible Reconciling",
		},
		"known after a restart of the manager": {
			scope: scope{pool: pool, pods: []placement.Pod{pod("p", true, holds("A", ""))}},
			known: "A", target: "A", serves: "A",
			want: "True Serving: ArtifactResolved Compatible Available", pods: v1alpha1.PodCounts{Desired: 1, Ready: 1},
		},
		"an unready pod is not asked for": {
			scope: scope{pool: pool, outcome: brought("A"), pods: []placement.Pod{
				pod("p", true, holds("A", "")), pod("q", false, nil),
			}}, target: "A", serves: "A",
			want: "True Serving: ArtifactResolved Compatible Available", pods: v1alpha1.PodCounts{Desired: 1, Ready: 1},
		},
		"a ready pod without it is": {
			scope: scope{pool: pool, outcome: brought("A"), pods: []placement.Pod{
				pod("p", true, holds("A", "")), pod("q", true, nil),
			}}, target: "A",
			want: "False Loading: ArtifactResolved Compatible Available Reconciling",
			pods: v1alpha1.PodCounts{Desired: 2, Ready: 1},
		},
		"a report of a former process is none": {
			scope: scope{pool: pool, outcome: brought("A"), pods: []placement.Pod{
				pod("p", true, holds("A", "").Started(started.Add(-time.Second))),
			}}, target: "A",
			want: "False Loading: ArtifactResolved Compatible Reconciling", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"loading": {
			scope: scope{pool: pool, outcome: brought("A"), pods: []placement.Pod{
				pod("p", true, holds("A", "").Pending("parity", "A")),
			}}, target: "A",
			want: "False Loading: ArtifactResolved Compatible Reconciling", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"a swap under way": {
			scope: scope{pool: pool, outcome: brought("B"), pods: []placement.Pod{
				pod("p", true, holds("B", "A").Pending("parity", "B")), pod("q", true, holds("B", "A")),
			}}, known: "A", served: "A", target: "B", serves: "A",
			want: "False Loading: ArtifactResolved Compatible Available Reconciling",
			pods: v1alpha1.PodCounts{Desired: 2, Ready: 1},
		},
		"a swap that one pod failed": {
			scope: scope{pool: pool, outcome: brought("B"), pods: []placement.Pod{
				pod("p", true, holds("B", "A").Failed("parity", "B", "TrialFailed", "x")), pod("q", true, holds("B", "A")),
			}}, served: "A", target: "B", serves: "A", failures: 1,
			want: "False LoadFailed: ArtifactResolved Compatible Available Reconciling",
			pods: v1alpha1.PodCounts{Desired: 2, Ready: 1, Failed: 1},
		},
		"a bad new revision": {
			scope: scope{pool: pool, outcome: failed("InvalidAdapter"), pods: []placement.Pod{
				pod("p", true, holds("A", "")),
			}}, served: "A", target: "", serves: "A",
			want: "False InvalidAdapter: ArtifactResolved Available Stalled", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"no room": {
			scope: scope{
				pool: pool, outcome: brought("A"), full: placement.Shortage{Reason: "PoolFull", Message: "full"},
				pods: []placement.Pod{pod("p", true, wrappers.Assignment("demo", "p").Started(started))},
			}, target: "A",
			want: "False PoolFull: ArtifactResolved Compatible Reconciling", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"no room beside the old one": {
			scope: scope{
				pool: pool, outcome: brought("B"), full: placement.Shortage{Reason: "NoRoomForSwap", Message: "full"},
				pods: []placement.Pod{pod("p", true, holds("A", ""))},
			}, known: "A", served: "A", target: "B", serves: "A", says: "full; pods go on serving A",
			want: "False NoRoomForSwap: ArtifactResolved Compatible Available Reconciling", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"on its first pod": {
			scope: scope{pool: pool, outcome: brought("A"), first: "p", pods: []placement.Pod{
				pod("p", true, holds("A", "").Pending("parity", "A")),
				pod("q", true, wrappers.Assignment("demo", "q").Started(started)),
			}}, target: "A", says: "on its first pod, p; the others follow when it serves",
			want: "False Loading: ArtifactResolved Compatible Reconciling", pods: v1alpha1.PodCounts{Desired: 2},
		},
		"it waits for a second pod": {
			scope: scope{pool: pool, outcome: brought("B"), waits: true, pods: []placement.Pod{
				pod("p", true, holds("A", "")),
			}}, known: "A", served: "A", target: "B", serves: "A",
			says: "it waits for two ready pods of one template: the last is spared what is new",
			want: "False Loading: ArtifactResolved Compatible Available Reconciling", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"on its first pod, which is down over it": {
			scope: scope{pool: pool, outcome: brought("A"), first: "p", pods: []placement.Pod{
				pod("p", false, holds("A", "").Pending("parity", "A")),
				pod("q", true, wrappers.Assignment("demo", "q").Started(started)),
			}}, target: "A", says: "on its first pod, p; the others follow when it serves",
			want: "False Loading: ArtifactResolved Compatible Reconciling", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"it crashed its first pod, and the old one is served": {
			scope: scope{pool: pool, outcome: brought("B"), first: "p", pods: []placement.Pod{
				pod("p", true, holds("B", "A").Failed("parity", "B", "CrashedLoading", "x")), pod("q", true, holds("A", "")),
			}}, known: "A", served: "A", target: "B", serves: "A", failures: 1,
			says: "1 of 2 pods could not load it, pod p: CrashedLoading: x; the other pods are spared: none is given it " +
				"before one has served it; pods go on serving A",
			want: "False LoadFailed: ArtifactResolved Compatible Available Reconciling",
			pods: v1alpha1.PodCounts{Desired: 2, Failed: 1},
		},
		"the artifact registry does not answer when it is asked again": {
			scope: scope{pool: pool, outcome: failed("StoreUnavailable"), pods: []placement.Pod{
				pod("p", true, holds("A", "")),
			}}, known: "A", target: "A", serves: "A",
			want: "True Serving: ArtifactResolved Compatible Available", pods: v1alpha1.PodCounts{Desired: 1, Ready: 1},
		},
		"its Service is another's, while pods serve it": {
			scope: scope{
				pool: pool, outcome: brought("A"), service: owned.Foreign,
				pods: []placement.Pod{pod("p", true, holds("A", ""))},
			}, target: "A", serves: "A", says: `Service "parity" exists and is not the adapter's: it is left as it is`,
			want: "False NameTaken: ArtifactResolved Compatible Available Stalled",
			pods: v1alpha1.PodCounts{Desired: 1, Ready: 1},
		},
		"its Service is another's, and pods are still loading": {
			scope: scope{
				pool: pool, outcome: brought("A"), service: owned.Foreign,
				pods: []placement.Pod{pod("p", true, holds("A", "").Pending("parity", "A"))},
			}, target: "A",
			want: "False NameTaken: ArtifactResolved Compatible Stalled", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"its Service is another's, and its source is gone": {
			scope: scope{pool: pool, outcome: failed("SourceNotFound"), service: owned.Foreign},
			want:  "False SourceNotFound: Stalled",
		},
		"its Service is refused": {
			scope: scope{
				pool: pool, outcome: brought("A"), refused: "Service parity: exceeded quota",
				pods: []placement.Pod{pod("p", true, holds("A", ""))},
			}, target: "A", serves: "A", says: "the API server refuses it: Service parity: exceeded quota",
			want: "False ObjectRefused: ArtifactResolved Compatible Available Stalled",
			pods: v1alpha1.PodCounts{Desired: 1, Ready: 1},
		},
		"its Service is a former adapter's": {
			scope: scope{
				pool: pool, outcome: brought("A"), service: owned.Former,
				pods: []placement.Pod{pod("p", true, holds("A", ""))},
			}, target: "A", serves: "A", says: `Service "parity" is a former adapter's, and on its way out`,
			want: "False Progressing: ArtifactResolved Compatible Available Reconciling",
			pods: v1alpha1.PodCounts{Desired: 1, Ready: 1},
		},
		"its Service is a former adapter's, and pods are still loading": {
			scope: scope{
				pool: pool, outcome: brought("A"), service: owned.Former,
				pods: []placement.Pod{pod("p", true, holds("A", "").Pending("parity", "A"))},
			}, target: "A",
			want: "False Loading: ArtifactResolved Compatible Reconciling", pods: v1alpha1.PodCounts{Desired: 1},
		},
		"it has lost the artifact, and so has the source": {
			scope: scope{pool: pool, outcome: failed("SourceNotFound"), pods: []placement.Pod{
				pod("p", true, holds("A", "")),
			}}, known: "A", target: "A", serves: "A",
			want: "True Serving: Compatible Available", pods: v1alpha1.PodCounts{Desired: 1, Ready: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.scope
			s.now = now
			s.adapter = wrappers.LoRAAdapter("demo", "parity").Pool("digits").Generation(3).Served(c.served).Obj()
			if c.known != "" {
				known(&s, c.known)
			}
			got := s.status()
			if words := summary(t, got); words != c.want {
				t.Errorf("expected %s, found %s", c.want, words)
			}
			target := ""
			if got.TargetRevision != nil {
				target = got.TargetRevision.Digest
			}
			if target != c.target || got.ServedRevision != c.serves || got.Pods != c.pods || len(got.Failures) != c.failures {
				t.Errorf("expected target %q, served %q, %+v, %d failures, found %q, %q, %+v, %v",
					c.target, c.serves, c.pods, c.failures, target, got.ServedRevision, got.Pods, got.Failures)
			}
			// Whether pods answer for it is told of pods alone.
			available := apimeta.FindStatusCondition(got.Conditions, v1alpha1.ConditionAvailable)
			if available.Reason == v1alpha1.ReasonNameTaken || available.Reason == v1alpha1.ReasonObjectRefused {
				t.Errorf("found %+v", available)
			}
			ready := apimeta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReady)
			if c.says != "" && ready.Message != c.says {
				t.Errorf("expected %q, found %q", c.says, ready.Message)
			}
			if got.TargetRevision != nil && got.TargetRevision.Proven != (c.pods.Ready > 0) {
				t.Errorf("of %d pods that serve it: found proven %v", c.pods.Ready, got.TargetRevision.Proven)
			}
			// The same scope an hour later changes nothing, so nothing is written.
			again := s
			again.adapter = s.adapter.DeepCopy()
			again.adapter.Status, again.now = got, metav1.NewTime(now.Add(time.Hour))
			if later := again.status(); !reflect.DeepEqual(later, got) {
				t.Errorf("expected nothing new, found %+v after %+v", later, got)
			}
		})
	}
}

// summary is Ready, and what else is true.
func summary(t *testing.T, status v1alpha1.LoRAAdapterStatus) string {
	t.Helper()
	ready := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	var more []string
	for _, kind := range []string{"ArtifactResolved", "Compatible", "Available", "Reconciling", "Stalled"} {
		if apimeta.IsStatusConditionTrue(status.Conditions, kind) {
			more = append(more, kind)
		}
	}
	for _, c := range status.Conditions {
		if c.ObservedGeneration != 3 || c.LastTransitionTime.IsZero() || c.Reason == "" || c.Message == "" {
			t.Errorf("incomplete: %+v", c)
		}
	}
	return string(ready.Status) + " " + ready.Reason + ": " + strings.Join(more, " ")
}

// A base of another digest makes what was found for the former one worthless.
func TestAnotherBaseIsAskedAnew(t *testing.T) {
	s := scope{
		now: now, pool: wrappers.Pool("demo", "digits").Base("sha256:base", "ViT").Obj(),
		adapter: wrappers.LoRAAdapter("demo", "parity").Pool("digits").Generation(3).Obj(),
	}
	known(&s, "A")
	if s.known() == nil {
		t.Fatal("expected A, found nothing")
	}
	s.pool = wrappers.Pool("demo", "digits").Base("sha256:other", "ViT").Obj()
	if found := s.known(); found != nil {
		t.Errorf("expected nothing, found %+v", found)
	}
	s.pool = wrappers.Pool("demo", "digits").Base("sha256:base", "ViT").Obj()
	s.adapter.Generation = 4
	if found := s.known(); found != nil {
		t.Errorf("expected nothing of another spec, found %+v", found)
	}
}

// That a revision was proven holds as long as it is the target, whatever becomes of the pods and whoever finds it
// again.
func TestProvenIsKept(t *testing.T) {
	s := scope{
		now: now, pool: wrappers.Pool("demo", "digits").Base("sha256:base", "ViT").Obj(), outcome: brought("A"),
		adapter: wrappers.LoRAAdapter("demo", "parity").Pool("digits").Obj(),
		pods:    []placement.Pod{pod("p", true, holds("A", ""))},
	}
	for _, c := range []struct {
		what   string
		change func()
		want   bool
	}{
		{"served", func() {}, true},
		{"the pods are gone", func() { s.pods = nil }, true},
		{"found again", func() { s.outcome = brought("A") }, true},
		{"the source went", func() { s.outcome = failed("SourceNotFound") }, true},
		{"the manager restarted", func() { s.outcome = nil }, true},
		{"another revision", func() { s.outcome = brought("B") }, false},
		{"the former one again", func() { s.outcome = brought("A") }, false},
	} {
		c.change()
		s.adapter.Status = s.status()
		if found := s.adapter.Status.TargetRevision.Proven; found != c.want {
			t.Errorf("%s: expected proven %v, found %v", c.what, c.want, found)
		}
	}
	if s.outcome.Result.Proven {
		t.Error("the outcome was written into: it is the attempt's own")
	}
}

// Why a ready pod's report is worth nothing is said where people look, of the same pod every time.
func TestADoubtfulReportIsTold(t *testing.T) {
	fresh := pod("p", true, holds("A", ""))
	stranger := pod("q", true, holds("A", ""))
	stranger.Assignment = wrappers.Assignment("demo", "q").Owner(wrappers.Pod("demo", "former").Obj()).Obj()
	still := pod("q", true, holds("A", ""))
	still.Status.ContainerStatuses = nil
	former := pod("q", true, holds("A", "").Started(started.Add(-time.Second)))
	for want, doubtful := range map[string]placement.Pod{
		"pod q: it has no assignment yet":                    pod("q", true, nil),
		"pod q: the assignment of its name is another pod's": stranger,
		"pod q: it has not reported yet":                     pod("q", true, wrappers.Assignment("demo", "q")),
		"pod q: its report is of a process that has ended":   former,
		"pod q: its container does not run":                  still,
	} {
		for _, pods := range [][]placement.Pod{{fresh, doubtful}, {pod("r", true, nil), doubtful, fresh}} {
			s := scope{
				pool:    wrappers.Pool("demo", "digits").Base("sha256:base", "ViT").Obj(),
				adapter: wrappers.LoRAAdapter("demo", "parity").Pool("digits").Obj(),
				outcome: brought("A"), pods: pods, now: now,
			}
			ready := apimeta.FindStatusCondition(s.status().Conditions, v1alpha1.ConditionReady)
			if ready.Reason != v1alpha1.ReasonLoading || !strings.HasSuffix(ready.Message, " ready pods serve it; "+want) {
				t.Errorf("expected %s: …; %s, found %s: %s", v1alpha1.ReasonLoading, want, ready.Reason, ready.Message)
			}
		}
	}
}
