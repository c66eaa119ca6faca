package placement_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// adapter is one of 10 bytes, created that many seconds after the first.
func adapter(name, digest string, age int) placement.Adapter {
	return placement.Adapter{Name: name, Digest: digest, Bytes: 10, Created: start.Add(time.Duration(age) * time.Second)}
}

func deleting(a placement.Adapter) placement.Adapter { a.Deleting = true; return a }

func sized(a placement.Adapter, bytes int64) placement.Adapter { a.Bytes = bytes; return a }

// pod is a ready pod that has taken up its assignment.
func pod(a *wrappers.AssignmentBuilder) placement.Pod {
	p := wrappers.Pod("demo", "pod").Running(start).Ready().Obj()
	if a == nil {
		return placement.Pod{Pod: p}
	}
	return placement.Pod{Pod: p, Assignment: a.Owner(p).Obj()}
}

func assigned() *wrappers.AssignmentBuilder {
	return wrappers.Assignment("demo", "pod").Pool("pool").Started(start)
}

func entries(e ...v1alpha1.AssignedAdapter) []v1alpha1.AssignedAdapter { return e }

func entry(name, digest, fallback string, since int64) v1alpha1.AssignedAdapter {
	return v1alpha1.AssignedAdapter{Name: name, Digest: digest, FallbackDigest: fallback, Since: since}
}

func TestEveryPod(t *testing.T) {
	wide := placement.Limits{Count: 100, Bytes: 1000}
	for name, c := range map[string]struct {
		adapters []placement.Adapter
		pod      placement.Pod
		limits   placement.Limits
		revision int64
		want     []v1alpha1.AssignedAdapter
		full     []string // those that wait for room to swap end in an exclamation mark
	}{
		"a pod without adapters gets an assignment all the same": {pod: pod(nil), revision: 1},
		"a new pod gets all, sorted by name": {
			adapters: []placement.Adapter{adapter("b", "B", 0), adapter("a", "A", 1), adapter("unresolved", "", 2)},
			pod:      pod(nil), revision: 1,
			want: entries(entry("a", "A", "", 1), entry("b", "B", "", 1)),
		},
		"nothing new, nothing changes": {
			adapters: []placement.Adapter{adapter("a", "A", 0)},
			pod:      pod(assigned().Revision(7).Entry("a", "A", "", 3)), revision: 7,
			want: entries(entry("a", "A", "", 3)),
		},
		"one more leaves the others as they are": {
			adapters: []placement.Adapter{adapter("a", "A", 0), adapter("b", "B", 1)},
			pod:      pod(assigned().Revision(7).Entry("a", "A", "", 3)), revision: 8,
			want: entries(entry("a", "A", "", 3), entry("b", "B", "", 8)),
		},
		"what is gone, or in deletion, is taken away": {
			adapters: []placement.Adapter{deleting(adapter("b", "B", 0)), adapter("c", "C", 0)},
			pod: pod(assigned().Revision(7).Entry("a", "A", "", 3).Entry("b", "B", "", 3).
				Entry("c", "C", "", 3)),
			revision: 8, want: entries(entry("c", "C", "", 3)),
		},
		"a swap keeps what is served as the fallback": {
			adapters: []placement.Adapter{adapter("a", "A2", 0)},
			pod:      pod(assigned().Revision(3).Entry("a", "A", "", 3).Observed(3)), revision: 4,
			want: entries(entry("a", "A2", "A", 4)),
		},
		"it is kept while the target loads": {
			adapters: []placement.Adapter{adapter("a", "A2", 0)},
			pod:      pod(assigned().Revision(4).Entry("a", "A2", "A", 4).Observed(4).Pending("a", "A2")), revision: 4,
			want: entries(entry("a", "A2", "A", 4)),
		},
		"and dropped once it is served, which is no change of what is served": {
			adapters: []placement.Adapter{adapter("a", "A2", 0)},
			pod:      pod(assigned().Revision(4).Entry("a", "A2", "A", 4).Observed(4)), revision: 5,
			want: entries(entry("a", "A2", "", 4)),
		},
		"but not on the word of a process that is gone": {
			adapters: []placement.Adapter{adapter("a", "A2", 0)},
			pod: pod(assigned().Revision(4).Entry("a", "A2", "A", 4).Observed(4).
				Started(start.Add(-time.Second))),
			revision: 4, want: entries(entry("a", "A2", "A", 4)),
		},
		"nor while the target failed": {
			adapters: []placement.Adapter{adapter("a", "A2", 0)},
			pod:      pod(assigned().Revision(4).Entry("a", "A2", "A", 4).Observed(4).Failed("a", "A2", "X", "")), revision: 4,
			want: entries(entry("a", "A2", "A", 4)),
		},
		"after a failed target the next one keeps the same fallback": {
			adapters: []placement.Adapter{adapter("a", "A3", 0)},
			pod:      pod(assigned().Revision(4).Entry("a", "A2", "A", 4).Observed(4).Failed("a", "A2", "X", "")), revision: 5,
			want: entries(entry("a", "A3", "A", 5)),
		},
		"a third revision waits until it is known which of two is served": {
			adapters: []placement.Adapter{adapter("a", "A3", 0)},
			pod:      pod(assigned().Revision(4).Entry("a", "A2", "A", 4).Observed(4).Pending("a", "A2")), revision: 4,
			want: entries(entry("a", "A2", "A", 4)),
		},
		"back to the first while the second loads": {
			adapters: []placement.Adapter{adapter("a", "A", 0)},
			pod:      pod(assigned().Revision(4).Entry("a", "A2", "A", 4).Observed(4).Pending("a", "A2")), revision: 5,
			want: entries(entry("a", "A", "A2", 5)),
		},
		"back to the first after the second failed": {
			adapters: []placement.Adapter{adapter("a", "A", 0)},
			pod:      pod(assigned().Revision(4).Entry("a", "A2", "A", 4).Observed(4).Failed("a", "A2", "X", "")), revision: 5,
			want: entries(entry("a", "A", "", 5)),
		},
		"without a target, what is there stays": {
			adapters: []placement.Adapter{adapter("a", "", 0)},
			pod:      pod(assigned().Revision(4).Entry("a", "A", "", 4).Observed(4)), revision: 4,
			want: entries(entry("a", "A", "", 4)),
		},
		"over the count the oldest win, then the name": {
			adapters: []placement.Adapter{
				adapter("d", "D", 1), adapter("c", "C", 2), adapter("b", "B", 2), adapter("a", "A", 3),
			},
			pod: pod(nil), limits: placement.Limits{Count: 2, Bytes: 1000}, revision: 1,
			want: entries(entry("b", "B", "", 1), entry("d", "D", "", 1)), full: []string{"a", "c"},
		},
		"over the memory the oldest win, and smaller ones use what is left": {
			adapters: []placement.Adapter{
				sized(adapter("a", "A", 1), 60), sized(adapter("b", "B", 2), 60), sized(adapter("c", "C", 3), 40),
			},
			pod: pod(nil), limits: placement.Limits{Count: 9, Bytes: 100}, revision: 1,
			want: entries(entry("a", "A", "", 1), entry("c", "C", "", 1)), full: []string{"b"},
		},
		"a swap waits for room, and takes nobody's place": {
			adapters: []placement.Adapter{adapter("a", "A2", 0), adapter("b", "B", 1)},
			pod:      pod(assigned().Revision(3).Entry("a", "A", "", 3).Entry("b", "B", "", 3).Observed(3)),
			limits:   placement.Limits{Count: 2, Bytes: 1000}, revision: 3,
			want: entries(entry("a", "A", "", 3), entry("b", "B", "", 3)), full: []string{"a!"},
		},
		"of two swaps with room for one the older goes first": {
			adapters: []placement.Adapter{adapter("b", "B2", 0), adapter("a", "A2", 1)},
			pod:      pod(assigned().Revision(3).Entry("a", "A", "", 3).Entry("b", "B", "", 3).Observed(3)),
			limits:   placement.Limits{Count: 3, Bytes: 1000}, revision: 4,
			want: entries(entry("a", "A", "", 3), entry("b", "B2", "B", 4)), full: []string{"a!"},
		},
		"a newcomer waits for the fallback of a swap under way": {
			adapters: []placement.Adapter{adapter("a", "A2", 0), adapter("b", "B", 1)},
			pod:      pod(assigned().Revision(3).Entry("a", "A2", "A", 3).Observed(3).Pending("a", "A2")),
			limits:   placement.Limits{Count: 2, Bytes: 1000}, revision: 3,
			want: entries(entry("a", "A2", "A", 3)), full: []string{"b"},
		},
		"a new revision too large for the pool leaves the old one there": {
			adapters: []placement.Adapter{sized(adapter("a", "A2", 0), 2000), adapter("b", "B", 1)},
			pod:      pod(assigned().Revision(3).Entry("a", "A", "", 3).Observed(3)), revision: 4,
			want: entries(entry("a", "A", "", 3), entry("b", "B", "", 4)), full: []string{"a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.limits == (placement.Limits{}) {
				c.limits = wide
			}
			plan := placement.EveryPod("pool", c.adapters, []placement.Pod{c.pod}, c.limits)
			got := plan.Specs["pod"]
			if got.Revision != c.revision || got.PoolName != "pool" {
				t.Errorf("expected revision %d of pool, found %d of %q", c.revision, got.Revision, got.PoolName)
			}
			if diff := cmp.Diff(c.want, slices.Clip(got.Adapters), cmpEmpty); diff != "" {
				t.Errorf("entries (- expected, + found):\n%s", diff)
			}
			if len(plan.Full) != len(c.full) {
				t.Errorf("full: expected %v, found %v", c.full, plan.Full)
			}
			for _, name := range c.full {
				reason := v1alpha1.ReasonPoolFull
				name, swap := strings.CutSuffix(name, "!")
				if swap {
					reason = v1alpha1.ReasonNoRoomForSwap
				}
				if full := plan.Full[name]; full.Reason != reason || full.Message == "" {
					t.Errorf("full: expected %v, found %v", c.full, plan.Full)
				}
			}
		})
	}
}

func TestTerminatingPodsAreLeftAlone(t *testing.T) {
	p := pod(assigned().Revision(3).Entry("a", "A", "", 3))
	p.Pod = wrappers.Pod("demo", "pod").Terminating(start).Obj()
	plan := placement.EveryPod("pool", nil, []placement.Pod{p}, placement.Limits{Count: 1, Bytes: 1})
	if len(plan.Specs) != 0 {
		t.Errorf("expected no plan, found %v", plan.Specs)
	}
}

var cmpEmpty = cmp.Transformer("empty", func(e []v1alpha1.AssignedAdapter) []v1alpha1.AssignedAdapter {
	return append([]v1alpha1.AssignedAdapter{}, e...)
})
