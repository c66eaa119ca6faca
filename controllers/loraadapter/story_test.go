package loraadapter

import (
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// chapter is what happens to an adapter, and what is told of it: nothing but news, each once.
type chapter struct {
	what string
	do   func(s *scope)
	want []string // each begins a reason's event and holds the words after it
}

// The story of an adapter, status by status.
func TestStory(t *testing.T) {
	pool := wrappers.Pool("demo", "digits").Base("sha256:base", "ViT").Obj()
	p := func(a *wrappers.AssignmentBuilder) placement.Pod { return pod("p", true, a) }
	q := func(a *wrappers.AssignmentBuilder) placement.Pod { return pod("q", true, a) }
	for name, chapters := range map[string][]chapter{
		"all goes well": {
			{"it is applied before its pool", func(*scope) {}, []string{"!PoolNotFound"}},
			{"the pool comes", func(s *scope) { s.pool = pool; s.pods = []placement.Pod{p(nil), q(nil)} }, nil},
			{"its source was read", func(s *scope) { s.outcome, s.first = brought("A"), "p" }, []string{
				`Resolved source "reg/parity:v1"|is stored as A|on its first pod, p`,
			}},
			{"the same again", func(*scope) {}, nil},
			{"its first pod serves it", func(s *scope) {
				s.pods, s.first = []placement.Pod{p(holds("A", "")), q(nil)}, ""
			}, nil},
			{"all do", func(s *scope) { s.pods = []placement.Pod{p(holds("A", "")), q(holds("A", ""))} }, []string{
				"Serving every ready pod serves A",
			}},
			{"a pod goes", func(s *scope) { s.pods = []placement.Pod{p(holds("A", "")), q(nil)} }, nil},
			{"and comes back", func(s *scope) { s.pods = []placement.Pod{p(holds("A", "")), q(holds("A", ""))} }, nil},
			{"a new spec", func(s *scope) { s.adapter.Generation, s.outcome = 2, nil }, nil},
			{"a new revision", func(s *scope) { s.outcome, s.first = brought("B"), "p" }, []string{
				"Resolved |is stored as B|until pods have it they serve A|on its first pod",
			}},
			{"is swapped in", func(s *scope) {
				s.pods, s.first = []placement.Pod{p(holds("B", "")), q(holds("B", ""))}, ""
			}, []string{"Serving every ready pod serves B"}},
		},
		"it is cured": {
			{"its source is not there", func(s *scope) {
				s.pool, s.outcome, s.pods = pool, failed("SourceNotFound"), []placement.Pod{p(nil)}
			}, []string{"!SourceNotFound"}},
			{"still not", func(s *scope) { s.outcome = failed("SourceNotFound") }, nil},
			{"a new spec", func(s *scope) { s.adapter.Generation, s.outcome = 2, nil }, nil},
			{"has a better one", func(s *scope) { s.outcome = brought("A") }, []string{"Resolved |0 of 1 ready pods serve it"}},
			{"a pod cannot load it", func(s *scope) {
				s.pods = []placement.Pod{p(holds("A", "").Failed("parity", "A", "TrialFailed", "NaN"))}
			}, []string{"!LoadFailed |TrialFailed: NaN"}},
			{"then it can", func(s *scope) { s.pods = []placement.Pod{p(holds("A", ""))} }, []string{"Serving"}},
			{"the registry loses it, and the source has", func(s *scope) { s.outcome = failed("SourceNotFound") }, []string{
				"!SourceNotFound the artifact registry has lost A",
			}},
			{"it is found again", func(s *scope) { s.outcome = brought("A") }, []string{"Resolved |as before"}},
		},
		"no room": {
			{"is told once", func(s *scope) {
				s.pool, s.outcome, s.pods = pool, brought("A"), []placement.Pod{p(nil)}
				s.full = placement.Shortage{Reason: "PoolFull", Message: "full"}
			}, []string{"Resolved is stored", "!PoolFull full"}},
			{"nothing changes", func(*scope) {}, nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			adapter := wrappers.LoRAAdapter("demo", "parity").Pool("digits").Source("reg/parity:v1").Generation(1).Obj()
			s := scope{adapter: adapter, now: now}
			for _, c := range chapters {
				before := s.adapter.DeepCopy()
				c.do(&s)
				s.adapter.Status = s.status()
				before.Generation = s.adapter.Generation
				tellsOf(t, c, before, s.adapter)
			}
		})
	}
}

func tellsOf(t *testing.T, c chapter, before, after *v1alpha1.LoRAAdapter) {
	t.Helper()
	found := story(before, after)
	if len(found) != len(c.want) {
		t.Fatalf("%s: expected %q, found %+v", c.what, c.want, found)
	}
	for i, want := range c.want {
		reason, words, _ := strings.Cut(want, " ")
		reason, warning := strings.CutPrefix(reason, "!")
		e := found[i]
		if e.Reason != reason || e.Warning != warning {
			t.Errorf("%s: expected %q, found %+v", c.what, want, e)
		}
		for word := range strings.SplitSeq(words, "|") {
			if !strings.Contains(e.Message, word) {
				t.Errorf("%s: expected %q in %q", c.what, word, e.Message)
			}
		}
	}
}
