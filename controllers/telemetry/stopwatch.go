package telemetry

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Stopwatch takes the time of generations. It is told of one when it is first seen, if the status says nothing of it
// yet, and since when to count; what another process had under way is not timed. It holds what is being timed, no more.
type Stopwatch struct {
	mu    sync.Mutex
	began map[types.NamespacedName]began
}

type began struct {
	generation int64
	at         time.Time
}

// NewStopwatch times nothing yet.
func NewStopwatch() *Stopwatch { return &Stopwatch{began: map[types.NamespacedName]began{}} }

// Begin begins to time a generation, unless it does.
func (s *Stopwatch) Begin(key types.NamespacedName, generation int64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began[key].generation != generation {
		s.began[key] = began{generation, at}
	}
}

// End is how long the generation has taken; false if it was not timed.
func (s *Stopwatch) End(key types.NamespacedName, generation int64, now time.Time) (took time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.began[key]
	if !ok || b.generation != generation {
		return 0, false
	}
	delete(s.began, key)
	return now.Sub(b.at), true
}

// Forget gives up what is gone.
func (s *Stopwatch) Forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.began, key)
}
