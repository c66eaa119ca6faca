package placement

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// One adapter at a time never waits; many at once are written together, the seldomer the more there are.
func TestPace(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var p pace
	for range 5 {
		if rest := p.rest("a", now); rest != 0 {
			t.Fatalf("expected no rest, found %v", rest)
		}
		p.wrote("a", 1000, now)
	}
	if rest := p.rest("a", now); rest != 0 {
		t.Errorf("expected that a write may be owed, found a rest of %v", rest)
	}
	p.wrote("a", 2000, now)
	if rest := p.rest("a", now); rest != 2*time.Second {
		t.Errorf("expected 2s, found %v", rest)
	}
	pods := func(uids ...types.UID) (list []Pod) {
		for _, uid := range uids {
			pod := &corev1.Pod{}
			pod.UID = uid
			list = append(list, Pod{Pod: pod})
		}
		return list
	}
	for name, c := range map[string]struct {
		pods []Pod
		at   time.Duration
		want time.Duration
	}{
		"no pods":            {},
		"one that rests":     {pods("a"), 0, 2 * time.Second},
		"one that does not":  {pods("a", "b"), 0, 0},
		"half of it is over": {pods("a"), time.Second, time.Second},
		"over":               {pods("a"), 2 * time.Second, 0},
	} {
		if got := p.soonest(c.pods, now.Add(c.at)); got != c.want {
			t.Errorf("%s: expected %v, found %v", name, c.want, got)
		}
	}
	// What is as it was at first is forgotten, so pods that are gone take no memory.
	p.wrote("b", 1, now.Add(time.Hour))
	if len(p.pods) != 1 {
		t.Errorf("expected only b, found %v", p.pods)
	}
	p.wrote("b", 1<<20, now.Add(time.Hour)) // more than an assignment can have
	if rest := p.rest("b", now.Add(time.Hour)); rest > 5*time.Second {
		t.Errorf("expected at most 5s, found %v", rest)
	}
}
