package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// reporter writes the latest status: news at once, other changes a moment later. What changes in that moment, while one
// is being written or in the rest after it, is written together.
type reporter struct {
	source  Source
	backoff func(n int) time.Duration
	quiet   *quiet
	wake    chan struct{} // holds one: there is something new
	urgent  chan struct{} // holds one: and it is news

	mu     sync.Mutex
	latest *report
	news   bool // the latest, or one that it replaced unwritten, is
}

type report struct {
	uid    types.UID
	status v1alpha1.AdapterAssignmentStatus
	about  int    // entries of the assignment
	news   bool   // somebody waits for it: something is served or has failed. That it is being loaded is no news.
	told   func() // called once it is written, unless it is replaced before; may be nil
}

func (r *report) same(other *report) bool {
	return other != nil && r.uid == other.uid && equality.Semantic.DeepEqual(r.status, other.status)
}

func (r *report) tell() {
	if r.told != nil {
		r.told()
	}
}

func newReporter(source Source, backoff func(n int) time.Duration, q *quiet) *reporter {
	return &reporter{
		source: source, backoff: backoff, quiet: q, wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
	}
}

// set replaces what is to be reported.
func (r *reporter) set(latest report) {
	r.mu.Lock()
	r.latest, r.news = &latest, r.news || latest.news
	if latest.news {
		signal(r.urgent)
	}
	r.mu.Unlock()
	r.again()
}

// again has a report that failed tried again now: the API server seems to be there.
func (r *reporter) again() { signal(r.wake) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

const (
	// moment is how long what is no news waits for what may be: mostly, what begins to load is loaded by then.
	moment = 100 * time.Millisecond
	// entriesPerSecond is how many entries, of the assignment and of its status, the reports are about in the long run:
	// what a report costs the API server grows with both. entriesAtOnce come before that counts.
	entriesPerSecond = 1000
	entriesAtOnce    = 5000
)

// entries is what the cost of writing the report grows with.
func (r *report) entries() int {
	return min(entriesAtOnce, r.about+len(r.status.Pending)+len(r.status.Failed))
}

// take is the latest report, and whether it is news since one was taken before.
func (r *reporter) take() (latest *report, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	latest, news, r.news = r.latest, r.news, false
	select {
	case <-r.urgent: // it is taken
	default:
	}
	return latest, news
}

func (r *reporter) run(ctx context.Context) {
	entries := rate.NewLimiter(entriesPerSecond, entriesAtOnce)
	var written *report
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		for n := 0; ; n++ {
			latest, news := r.take()
			if latest == nil {
				break
			}
			if latest.same(written) {
				latest.tell()
				break
			}
			if !news && written != nil && n == 0 {
				if !wait(ctx, moment, r.urgent) {
					return
				}
				latest, _ = r.take()
			}
			err := r.source.Report(ctx, latest.uid, &latest.status)
			if err == nil {
				written, n = latest, -1
				latest.tell()
				now := time.Now()
				if !wait(ctx, entries.ReserveN(now, latest.entries()).DelayFrom(now), nil) {
					return
				}
				continue // what has changed meanwhile
			}
			if ctx.Err() != nil {
				return
			}
			r.quiet.warn("the status cannot be written", err)
			if !wait(ctx, r.backoff(n), r.wake) {
				return
			}
		}
	}
}

// quiet logs each text at most once in a while.
type quiet struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last map[string]time.Time
}

const (
	quietFor   = time.Minute
	quietTexts = 256 // that are remembered
)

func newQuiet(log *slog.Logger) *quiet {
	return &quiet{log: log, now: time.Now, last: make(map[string]time.Time)}
}

func (q *quiet) warn(message string, err error) {
	key, now := message+": "+err.Error(), q.now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, ok := q.last[key]; ok && now.Sub(last) < quietFor {
		return
	}
	if len(q.last) >= quietTexts {
		clear(q.last)
	}
	q.last[key] = now
	q.log.Warn(message, "error", err)
}
