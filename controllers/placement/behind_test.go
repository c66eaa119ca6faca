package placement

import (
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// A pool is planned only when the cache has what was written last, or has had long enough: what was deleted never
// comes.
func TestThePlanWaitsForTheCache(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := New(nil, NewCompany(), func() time.Time { return now })
	pod := Pod{Pod: wrappers.Pod("demo", "p").Obj()}
	r.written[pod.UID] = written{revision: 2, at: now}
	for _, c := range []struct {
		what     string
		revision int64 // in the cache; 0 is no assignment
		after    time.Duration
		want     bool
	}{
		{"nothing seen", 0, 0, true},
		{"the one before", 1, 0, true},
		{"what was written", 2, 0, false},
		{"written by another since", 3, 0, false},
		{"nothing for long", 0, 2 * catchUp, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			r.written[pod.UID] = written{revision: 2, at: now.Add(-c.after)}
			if pod.Assignment = nil; c.revision > 0 {
				pod.Assignment = wrappers.Assignment("demo", "p").Revision(c.revision).Obj()
			}
			if got := r.isBehind([]Pod{pod}); got != c.want || (len(r.written) == 1) != c.want {
				t.Errorf("expected behind %v, found %v, and %d remembered", c.want, got, len(r.written))
			}
		})
	}
}
