package placement

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// entriesPerSecond is how many entries are written of one assignment, in the long run: what a write costs the API
	// server and the pod grows with the entries. A thousand adapters that come at once are a few dozen writes.
	entriesPerSecond = 1000
	// entriesAtOnce may be written before that counts: an adapter that comes alone waits for nothing, not even in a pod
	// that holds a thousand others.
	entriesAtOnce = 5000
)

// pace keeps assignments from being written more often than they are worth. What changes while one rests is written
// together. The zero value is ready for use.
type pace struct {
	mu   sync.Mutex
	pods map[types.UID]*rate.Limiter
}

// rest is how much longer a pod's assignment rests.
func (p *pace) rest(pod types.UID, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	entries := p.pods[pod]
	if entries == nil {
		return 0
	}
	owed := -entries.TokensAt(now)
	return max(0, time.Duration(owed/entriesPerSecond*float64(time.Second)))
}

// soonest is how much longer all the pods' assignments rest: 0 as soon as one does not.
func (p *pace) soonest(pods []Pod, now time.Time) time.Duration {
	var least time.Duration
	for i, pod := range pods {
		if rest := p.rest(pod.UID, now); i == 0 || rest < least {
			least = rest
		}
	}
	return least
}

// wrote says that so many entries of a pod's assignment were written.
func (p *pace) wrote(pod types.UID, entries int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pods == nil {
		p.pods = map[types.UID]*rate.Limiter{}
	}
	for other, entries := range p.pods {
		if entries.TokensAt(now) >= entriesAtOnce { // as good as new, or its pod is gone
			delete(p.pods, other)
		}
	}
	if p.pods[pod] == nil {
		p.pods[pod] = rate.NewLimiter(entriesPerSecond, entriesAtOnce)
	}
	p.pods[pod].ReserveN(now, min(entries, entriesAtOnce))
}
