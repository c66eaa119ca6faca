package placement_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

func proven(a placement.Adapter) placement.Adapter { a.Proven = true; return a }

// member is a pod of several, with an assignment that may be edited; nil: none yet.
func member(p *wrappers.PodBuilder, a *wrappers.AssignmentBuilder) placement.Pod {
	if a == nil {
		return placement.Pod{Pod: p.Obj()}
	}
	a.Obj().Name = p.Obj().Name
	return placement.Pod{Pod: p.Obj(), Assignment: a.Owner(p.Obj()).Obj()}
}

// aged is a pod that was created so many seconds after the first.
func aged(name string, age int) *wrappers.PodBuilder {
	return wrappers.Pod("demo", name).Created(start.Add(time.Duration(age) * time.Second))
}

func up(name string, age int) *wrappers.PodBuilder { return aged(name, age).Running(start).Ready() }

// has is a report of a pod that has taken up an assignment of one entry.
func has(digest, fallback string) *wrappers.AssignmentBuilder {
	return assigned().Revision(1).Entry("a", digest, fallback, 1).Observed(1)
}

// Which pods have what for the adapter a, whose target is B and had better be tried on one pod.
func TestFirstPod(t *testing.T) {
	none := assigned
	target := adapter("a", "B", 0)
	for name, c := range map[string]struct {
		adapter placement.Adapter
		pods    []placement.Pod
		spare   bool
		want    string // pod=digest/fallback
		first   string
	}{
		"no pods": {},
		"the oldest of the ready ones": {
			pods: []placement.Pod{
				member(up("p", 2), none()), member(up("q", 1), none()), member(aged("r", 0).Running(start), none()),
			},
			want: "p= q=B r=", first: "q",
		},
		"of the same age by name": {
			pods: []placement.Pod{member(up("q", 0), none()), member(up("p", 0), none())},
			want: "p=B q=", first: "p",
		},
		"a pool that comes up: the oldest that has a node": {
			pods: []placement.Pod{
				member(aged("p", 0), nil),
				member(aged("q", 2).Bound(), nil),
				member(aged("r", 1).Bound(), nil),
			},
			want: "p= q= r=B", first: "r",
		},
		"a pool of which nothing is known yet": {
			pods: []placement.Pod{member(aged("q", 1), nil), member(aged("p", 0), nil)},
			want: "p=B q=", first: "p",
		},
		"it stays where it loads, though another is ready": {
			pods: []placement.Pod{
				member(up("p", 0), none()),
				member(aged("q", 1).Running(start), has("B", "").Pending("a", "B")),
			},
			want: "p= q=B", first: "q",
		},
		"it stays where its process ended": {
			pods: []placement.Pod{
				member(up("p", 0), none()), member(aged("q", 1).Running(start.Add(time.Minute)).Restarted(1), has("B", "")),
			},
			want: "p= q=B", first: "q",
		},
		"it stays where it failed": {
			pods: []placement.Pod{
				member(up("p", 0), none()),
				member(up("q", 1), has("B", "").Failed("a", "B", "CrashedLoading", "")),
			},
			want: "p= q=B", first: "q",
		},
		"it stays where it could not be pulled": {
			pods: []placement.Pod{
				member(up("p", 0), none()),
				member(up("q", 1), has("B", "").Failed("a", "B", "PullFailed", "")),
			},
			want: "p= q=B", first: "q",
		},
		"it leaves a pod on its way out": {
			pods: []placement.Pod{
				member(up("p", 0).Terminating(start), has("B", "").Pending("a", "B")),
				member(up("q", 2), none()),
				member(up("r", 1), none()),
			},
			want: "q= r=B", first: "r",
		},
		"it waits for no node while another pod is ready": {
			pods: []placement.Pod{
				member(aged("p", 0), assigned().Revision(1).Entry("a", "B", "", 1)),
				member(up("q", 1), none()),
			},
			want: "p= q=B", first: "q",
		},
		"but for a node it does while none is": {
			pods: []placement.Pod{
				member(aged("p", 0), assigned().Revision(1).Entry("a", "B", "", 1)), member(aged("q", 1).Running(start), none()),
			},
			want: "p=B q=", first: "p",
		},
		"served by a pod, ready or not, it goes to all": {
			pods: []placement.Pod{member(aged("p", 0).Running(start), has("B", "")), member(up("q", 1), none())},
			want: "p=B q=B",
		},
		"served by a pod on its way out too": {
			pods: []placement.Pod{
				member(up("p", 0).Terminating(start), has("B", "")),
				member(up("q", 1), none()),
				member(up("r", 1), nil),
			},
			want: "q=B r=B",
		},
		"proven before, it goes to all": {
			adapter: proven(target), pods: []placement.Pod{member(up("p", 0), none()), member(up("q", 1), nil)},
			want: "p=B q=B",
		},
		"a swap: the others keep what they have, and who comes gets it": {
			pods: []placement.Pod{member(up("p", 0), has("A", "")), member(up("q", 1), has("A", "")), member(aged("r", 2), nil)},
			want: "p=B/A q=A r=A", first: "p",
		},
		"a swap that failed: who comes gets what answers": {
			pods: []placement.Pod{
				member(up("p", 0), has("B", "A").Failed("a", "B", "CrashedLoading", "")), member(aged("q", 1), none()),
			},
			want: "p=B/A q=A", first: "p",
		},
		"a swap while all pods are replaced": {
			pods: []placement.Pod{
				member(up("p", 0).Terminating(start), has("B", "A").Failed("a", "B", "CrashedLoading", "")),
				member(aged("q", 1).Bound(), nil), member(aged("r", 2).Bound(), nil),
			},
			want: "q=B/A r=A", first: "q",
		},
		"what no report proves goes nowhere else": {
			pods: []placement.Pod{
				member(up("p", 0), has("C", "").Pending("a", "C")), member(up("q", 1), none()),
			},
			want: "p=B/C q=", first: "p",
		},
		"a target that does not fit any more: who comes gets what answers": {
			adapter: sized(target, 2000),
			pods:    []placement.Pod{member(up("p", 0), has("A", "")), member(aged("q", 1), nil)},
			want:    "p=A q=A",
		},
		"a swap that is served": {
			pods: []placement.Pod{member(up("p", 0), has("B", "A")), member(up("q", 1), has("A", ""))},
			want: "p=B q=B/A",
		},
		"a swap that failed": {
			pods: []placement.Pod{
				member(up("p", 0), has("B", "A").Failed("a", "B", "CrashedLoading", "")), member(up("q", 1), has("A", "")),
			},
			want: "p=B/A q=A", first: "p",
		},
		"a swap back to what the others serve": {
			adapter: adapter("a", "A", 0),
			pods: []placement.Pod{
				member(up("p", 0), has("B", "A").Failed("a", "B", "CrashedLoading", "")), member(up("q", 1), has("A", "")),
			},
			want: "p=A q=A",
		},
		"the next revision after one that failed": {
			adapter: adapter("a", "C", 0),
			pods: []placement.Pod{
				member(up("p", 0), has("B", "A").Failed("a", "B", "CrashedLoading", "")), member(up("q", 1), has("A", "")),
			},
			want: "p=C/A q=A", first: "p",
		},
		"held by two whose reports are of former processes, it stays with both": {
			pods: []placement.Pod{
				member(up("p", 0), has("B", "").Started(start.Add(-time.Second))),
				member(up("q", 1), has("B", "").Pending("a", "B")), member(up("r", 1), none()),
			},
			want: "p=B q=B r=", first: "p",
		},
		"the last ready pod is spared while another is down over a trial": {
			adapter: adapter("b", "B", 0),
			pods: []placement.Pod{
				member(up("p", 0), none()),
				member(aged("q", 1).Running(start.Add(time.Minute)).Restarted(1), has("X", "")),
			},
			want: "p= q=B", first: "q",
		},
		"and while another comes up": {
			adapter: adapter("b", "B", 0), spare: true,
			pods: []placement.Pod{
				member(up("p", 0), none()),
				member(aged("q", 1).Running(start), has("X", "").Pending("a", "X")),
			},
			want: "p= q=",
		},
		"but not for long": {
			adapter: adapter("b", "B", 0),
			pods: []placement.Pod{
				member(up("p", 0), none()),
				member(aged("q", 1).Running(start), has("X", "").Pending("a", "X")),
			},
			want: "p=B q=", first: "p",
		},
		"nor when that trial is over": {
			adapter: adapter("b", "B", 0),
			pods: []placement.Pod{
				member(up("p", 0), none()),
				member(aged("q", 1).Running(start).Restarted(2), has("X", "").Failed("a", "X", "CrashedLoading", "")),
			},
			want: "p=B q=", first: "p",
		},
		"spared while another is made": {
			adapter: adapter("b", "B", 0), spare: true,
			pods: []placement.Pod{member(up("p", 0), none()), member(aged("q", 1), none())},
			want: "p= q=",
		},
		"spared though no other is there yet": {
			spare: true, pods: []placement.Pod{member(up("p", 0), has("A", ""))}, want: "p=A",
		},
		"one whose report does not count answers, and is spared": {
			spare: true, pods: []placement.Pod{member(up("p", 0), nil)}, want: "p=",
		},
		"it is spared, and one that starts is not": {
			spare: true, pods: []placement.Pod{member(up("p", 0), nil), member(aged("q", 1).Running(start), none())},
			want: "p= q=B", first: "q",
		},
		"what a spared pod has already stays": {
			spare: true, pods: []placement.Pod{member(up("p", 0), has("B", "A").Pending("a", "B"))}, want: "p=B/A", first: "p",
		},
		"of two templates, as all are replaced, none tries it": {
			adapter: adapter("b", "B", 0), spare: true,
			pods: []placement.Pod{
				member(up("p", 0).Template("old"), none()), member(up("q", 1).Template("new"), none()),
				member(aged("r", 2).Template("new").Running(start), none()),
			},
			want: "p= q= r=",
		},
		"but one does that have stood so for long": {
			adapter: adapter("b", "B", 0),
			pods: []placement.Pod{
				member(up("p", 0).Template("old"), none()), member(up("q", 1).Template("new"), none()),
			},
			want: "p=B q=", first: "p",
		},
		"and one when the former are on their way out": {
			adapter: adapter("b", "B", 0), spare: true,
			pods: []placement.Pod{
				member(up("p", 0).Template("old").Terminating(start), none()),
				member(up("q", 1).Template("new"), none()), member(up("r", 2).Template("new"), none()),
			},
			want: "q=B r=", first: "q",
		},
		"but one does that comes up and cannot pull what it is to answer with": {
			spare: true,
			pods: []placement.Pod{
				member(up("p", 0).Template("old"), has("A", "")),
				member(aged("q", 1).Template("new").Running(start), has("A", "").Failed("a", "A", "PullFailed", "")),
				member(aged("r", 2).Template("new"), nil),
			},
			want: "p=A q=B/A r=A", first: "q",
		},
		"and one that has nothing to answer with, as what was new failed too": {
			adapter: adapter("a", "C", 0), spare: true,
			pods: []placement.Pod{
				member(up("p", 0).Template("old"), has("A", "")),
				member(aged("q", 1).Template("new").Running(start),
					has("B", "A").Failed("a", "B", "TrialFailed", "").Failed("a", "A", "PullFailed", "")),
			},
			want: "p=A q=C/A", first: "q",
		},
		"but not as long as what it answers with may come": {
			adapter: adapter("a", "C", 0), spare: true,
			pods: []placement.Pod{
				member(up("p", 0).Template("old"), has("A", "")),
				member(aged("q", 1).Template("new").Running(start),
					has("B", "A").Failed("a", "B", "PullFailed", "").Pending("a", "A")),
			},
			want: "p=A q=B/A",
		},
		"none that could pull it": {
			spare: true,
			pods: []placement.Pod{
				member(up("p", 0).Template("old"), has("A", "")),
				member(aged("q", 1).Template("new").Running(start), has("A", "").Failed("a", "A", "TrialFailed", "")),
				member(aged("r", 2).Template("new").Running(start), has("A", "").Pending("a", "A")),
			},
			want: "p=A q=A r=A",
		},
		"nor one that is ready without": {
			spare: true,
			pods: []placement.Pod{
				member(up("p", 0).Template("old"), has("A", "")),
				member(up("q", 1).Template("new"), has("A", "").Failed("a", "A", "PullFailed", "")),
			},
			want: "p=A q=A",
		},
		"two that are ready are not spared": {
			adapter: adapter("b", "B", 0), spare: true,
			pods: []placement.Pod{
				member(up("p", 0), none()), member(aged("q", 1).Running(start), none()), member(up("r", 2), none()),
			},
			want: "p=B q= r=", first: "p",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.adapter.Name == "" {
				c.adapter = target
			}
			adapters := []placement.Adapter{c.adapter}
			if c.adapter.Name == "b" {
				adapters = append(adapters, adapter("a", "X", 1))
			}
			limits := placement.Limits{Count: 100, Bytes: 1000, Spare: c.spare}
			plan := placement.EveryPod("pool", adapters, c.pods, limits)
			var found []string
			for _, name := range []string{"p", "q", "r"} {
				spec, planned := plan.Specs[name]
				if !planned {
					continue
				}
				holds := ""
				for _, e := range spec.Adapters {
					if e.Name == c.adapter.Name {
						holds = strings.TrimSuffix(e.Digest+"/"+e.FallbackDigest, "/")
					}
				}
				found = append(found, name+"="+holds)
			}
			if got := strings.Join(found, " "); got != c.want || plan.First[c.adapter.Name] != c.first {
				t.Errorf("expected %s, first %q, found %s, first %q", c.want, c.first, got, plan.First[c.adapter.Name])
			}
		})
	}
}

// What two adapters share is tried once.
func TestTwoAdaptersOfOneDigestAreTriedTogether(t *testing.T) {
	pods := []placement.Pod{member(up("p", 0), assigned()), member(up("q", 1), has("B", "").Pending("a", "B"))}
	adapters := []placement.Adapter{adapter("a", "B", 0), adapter("b", "B", 1)}
	plan := placement.EveryPod("pool", adapters, pods, placement.Limits{Count: 100, Bytes: 1000})
	if p, q := plan.Specs["p"].Adapters, plan.Specs["q"].Adapters; len(p) != 0 || len(q) != 2 {
		t.Errorf("expected both in q alone, found %+v and %+v", p, q)
	}
	adapters[1].Proven = true // of another time, by the same bytes
	plan = placement.EveryPod("pool", adapters, pods, placement.Limits{Count: 100, Bytes: 1000})
	if p, q := plan.Specs["p"].Adapters, plan.Specs["q"].Adapters; len(p) != 2 || len(q) != 2 {
		t.Errorf("expected both in both, found %+v and %+v", p, q)
	}
}

// A pool that wants more pods than the one that is ready spares it for a minute after it has had two, or a pod has
// come.
func TestSpares(t *testing.T) {
	now := start.Add(time.Hour)
	two := []placement.Pod{member(up("p", 0), nil), member(up("q", 1), nil)}
	one := two[:1]
	for name, c := range map[string]struct {
		replicas *int32
		before   map[time.Duration][]placement.Pod // what was seen so long ago
		pods     []placement.Pod
		want     bool
	}{
		"one pod by default":      {pods: one},
		"one pod":                 {replicas: new(int32(1)), pods: one},
		"seen for the first time": {replicas: new(int32(2)), pods: one, want: true},
		"two are ready":           {replicas: new(int32(2)), pods: two, want: true},
		"one for long": {
			replicas: new(int32(2)), pods: one, before: map[time.Duration][]placement.Pod{time.Minute: one},
		},
		"one for not so long": {
			replicas: new(int32(2)), pods: one, before: map[time.Duration][]placement.Pod{59 * time.Second: one}, want: true,
		},
		"one is gone of which nothing is left": {
			replicas: new(int32(2)), pods: one, want: true,
			before: map[time.Duration][]placement.Pod{time.Hour: one, 5 * time.Second: two},
		},
		"one is gone for long": {
			replicas: new(int32(2)), pods: one, before: map[time.Duration][]placement.Pod{time.Minute: two, time.Second: one},
		},
		"for long, but a pod was made since": {
			replicas: new(int32(2)), before: map[time.Duration][]placement.Pod{time.Hour: one}, want: true,
			pods: []placement.Pod{member(aged("p", 0), nil), member(wrappers.Pod("demo", "q").Created(now), nil)},
		},
		"for long, but a process began since": {
			replicas: new(int32(2)), before: map[time.Duration][]placement.Pod{time.Hour: one}, want: true,
			pods: []placement.Pod{member(aged("p", 0).Running(now.Add(-time.Second)), nil)},
		},
		"for long, with pods that are older": {
			replicas: new(int32(2)), before: map[time.Duration][]placement.Pod{time.Hour: one},
			pods: []placement.Pod{member(up("p", 0), nil), member(aged("q", 0).Running(start), nil)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pool, company := wrappers.Pool("demo", "pool").Obj(), placement.NewCompany()
			pool.Spec.Replicas = c.replicas
			for _, ago := range slices.Backward(slices.Sorted(maps.Keys(c.before))) {
				company.Spares(pool, c.before[ago], now.Add(-ago))
			}
			if got := company.Spares(pool, c.pods, now); got != c.want {
				t.Errorf("expected %v, found %v", c.want, got)
			}
		})
	}
}

// In a full pool a pod that cannot pull what it is to answer with gets what is known to be served in its place: there
// is no room for both, and it has nothing.
func TestAStrandedPodOfAFullPool(t *testing.T) {
	pods := []placement.Pod{
		member(up("p", 0), has("B", "")),
		member(aged("q", 1).Running(start), has("A", "").Failed("a", "A", "PullFailed", "")),
	}
	for count, want := range map[int]string{1: "", 2: "A"} {
		plan := placement.EveryPod("pool", []placement.Adapter{proven(adapter("a", "B", 0))}, pods,
			placement.Limits{Count: count, Bytes: 1000})
		entries := plan.Specs["q"].Adapters
		if len(entries) != 1 || entries[0].Digest != "B" || entries[0].FallbackDigest != want || len(plan.Full) > 0 {
			t.Errorf("%d revisions: expected B with the fallback %q, found %+v, %+v", count, want, entries, plan.Full)
		}
	}
}
